// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

const kubeletUnit = "kubelet.service"

// kubeletCommand is how the kubelet is started.
type kubeletCommand struct {
	found  bool
	source string
	args   []string // behind the name of the program
	why    string   // why the arguments are not known, "" where they are
}

// afterKubelet gives the arguments of a kubelet, in either of its forms:
// "kubelet …" and "hyperkube kubelet …".
func afterKubelet(words []string) ([]string, bool) {
	switch {
	case len(words) > 0 && path.Base(words[0]) == "kubelet":
		return words[1:], true
	case len(words) > 1 && path.Base(words[0]) == "hyperkube" && words[1] == "kubelet":
		return words[2:], true
	}
	return nil, false
}

// unitCommand reads a unit with its drop-ins and gives the command that it
// starts, with the variables of its files filled in.
func unitCommand(h *host.Host, unit string) (c kubeletCommand) {
	files, why := unitFiles(h, unit)
	if why != "" {
		return kubeletCommand{found: true, source: unit, why: why}
	}
	if len(files) == 0 {
		return c
	}
	c.found, c.source = true, files[0]
	s := unitService{}
	for _, p := range files {
		b, err := h.Read(p)
		if err != nil {
			c.why = whyNot(h, err)
			return c
		}
		n := s.sets
		if s.add(string(b)); s.sets != n {
			c.source = p
		}
	}
	env := map[string]string{}
	for _, line := range s.env {
		setVariables(env, splitWords(line))
	}
	for _, file := range s.files {
		p, optional := strings.CutPrefix(file, "-")
		b, err := h.Read(path.Join("/", p))
		switch {
		case err == nil:
			setVariables(env, envLines(string(b)))
		case !optional || !host.Absent(err):
			c.why = whyNot(h, err)
			return c
		}
	}
	words := expandWords(splitWords(strings.TrimLeft(s.start, "@-:+!|")), env)
	args, ok := afterKubelet(words)
	if !ok {
		c.why = fmt.Sprintf("%s starts %.80q, and what that starts is not known here", c.source, s.start)
		return c
	}
	c.args = args
	return c
}

// unitService is what counts of the section [Service].
type unitService struct {
	start      string // the last ExecStart=
	sets       int    // how often it was set
	env, files []string
}

func (s *unitService) add(text string) {
	for _, l := range parseINI(strings.ReplaceAll(text, "\\\n", " ")) {
		if l.section != "Service" {
			continue
		}
		list := &s.env
		switch l.key {
		case "ExecStart":
			s.start = l.value
			s.sets++
			continue
		case "Environment":
		case "EnvironmentFile":
			list = &s.files
		default:
			continue
		}
		if l.value == "" {
			*list = nil
			continue
		}
		*list = append(*list, l.value)
	}
}

// setVariables takes assignments: NAME=VALUE.
func setVariables(env map[string]string, words []string) {
	for _, w := range words {
		if name, v, ok := strings.Cut(w, "="); ok {
			env[strings.TrimSpace(name)] = v
		}
	}
}

// envLines reads an environment file: an assignment a line, its value in
// quotes or not.
func envLines(text string) (words []string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", ""), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, v, ok := strings.Cut(line, "=")
		if v = strings.TrimSpace(v); ok {
			if len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
				v = v[1 : len(v)-1]
			}
			words = append(words, name+"="+v)
		}
	}
	return words
}

// splitWords splits at blanks outside quotes and takes the quotes away.
func splitWords(s string) (words []string) {
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if in {
				words = append(words, b.String())
			}
			b.Reset()
			in = false
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}

// expandWords fills in variables as systemd does: "$NAME" as a word of its own
// becomes as many words as it holds, "${NAME}" within a word is replaced.
func expandWords(words []string, env map[string]string) (out []string) {
	for _, w := range words {
		if name, ok := strings.CutPrefix(w, "$"); ok && name != "" && !strings.ContainsAny(name, "${}") {
			out = append(out, splitWords(env[name])...)
			continue
		}
		for from := 0; ; {
			i := strings.Index(w[from:], "${")
			if i < 0 {
				break
			}
			i += from
			end := strings.IndexByte(w[i:], '}')
			if end < 0 {
				break
			}
			v := env[w[i+2:i+end]]
			w = w[:i] + v + w[i+end+1:]
			from = i + len(v)
		}
		out = append(out, w)
	}
	return out
}

// kubeletFlags are the flags of a command line in order, with dashes in the
// names as the kubelet makes them of underscores.
type kubeletFlags []kubeletFlag

type kubeletFlag struct{ name, value string }

// Flags that are decoded. They win over all files; a mapping replaces the one
// of the files when it comes first and adds to it when it comes again.
var (
	kubeletFlagScalar = map[string]string{
		"cpu-manager-policy": "cpuManagerPolicy", "memory-manager-policy": "memoryManagerPolicy", "reserved-cpus": "reservedSystemCPUs",
		"topology-manager-policy": "topologyManagerPolicy", "topology-manager-scope": "topologyManagerScope",
	}
	kubeletFlagMap = map[string]struct{ key, sep string }{
		"cpu-manager-policy-options":      {"cpuManagerPolicyOptions.", "="},
		"topology-manager-policy-options": {"topologyManagerPolicyOptions.", "="},
		"kube-reserved":                   {"kubeReserved.", "="},
		"system-reserved":                 {"systemReserved.", "="},
		"eviction-hard":                   {"evictionHard.", "<"},
	}
)

const kubeletFlagReserved = "reserved-memory"

// takesValue reports whether the word behind a flag may be its value.
func takesValue(name string) bool {
	_, m := kubeletFlagMap[name]
	return kubeletFlagScalar[name] != "" || m || name == kubeletFlagReserved || name == "config" || name == "config-dir" || name == "root-dir"
}

func parseKubeletFlags(args []string) (flags kubeletFlags) {
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			break
		}
		name, ok := strings.CutPrefix(args[i], "--")
		if !ok {
			continue
		}
		name, v, has := strings.Cut(name, "=")
		name = strings.ReplaceAll(name, "_", "-")
		if !has && takesValue(name) && i+1 < len(args) {
			i++
			v = args[i]
		}
		flags = append(flags, kubeletFlag{name, v})
	}
	return flags
}

// last gives the value of a flag, "" where it is not there.
func (f kubeletFlags) last(name string) (v string) {
	for _, x := range f {
		if x.name == name {
			v = x.value
		}
	}
	return v
}

// flags lays the flags over what the files say.
func (v *kubeletValues) flags(flags kubeletFlags, source string) error {
	seen := map[string]bool{}
	for _, f := range flags {
		from := "--" + f.name + " of " + source
		m, isMap := kubeletFlagMap[f.name]
		switch {
		case kubeletFlagScalar[f.name] != "":
			name := kubeletFlagScalar[f.name]
			v.set[name] = KubeletSetting{name, f.value, from}
		case isMap:
			if !seen[f.name] {
				v.dropAll(m.key)
			}
			for pair := range strings.SplitSeq(f.value, ",") {
				key, value, ok := strings.Cut(strings.TrimSpace(pair), m.sep)
				if pair == "" {
					continue
				}
				if !ok {
					return fmt.Errorf("--%s: %.40q is not NAME%sVALUE", f.name, pair, m.sep)
				}
				name := m.key + strings.TrimSpace(key)
				v.set[name] = KubeletSetting{name, strings.TrimSpace(value), from}
			}
		case f.name == kubeletFlagReserved:
			if !seen[f.name] {
				v.reserved = []KubeletReserved{}
			}
			list, err := parseReservedFlag(f.value)
			if err != nil {
				return err
			}
			for _, r := range list {
				r.Source = from
				v.reserved = append(v.reserved, r)
			}
		}
		seen[f.name] = true
	}
	return nil
}

// parseReservedFlag reads "0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=1Gi".
func parseReservedFlag(s string) (list []KubeletReserved, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ";") {
		number, limits, ok := strings.Cut(part, ":")
		node, err := strconv.Atoi(number)
		if !ok || err != nil || node < 0 || node >= maxNodes {
			return nil, fmt.Errorf("--%s: %.40q is not NODE:TYPE=VALUE", kubeletFlagReserved, part)
		}
		for l := range strings.SplitSeq(limits, ",") {
			kind, value, ok := strings.Cut(l, "=")
			if !ok {
				return nil, fmt.Errorf("--%s: %.40q is not TYPE=VALUE", kubeletFlagReserved, l)
			}
			list = append(list, KubeletReserved{Node: node, Type: kind, Value: value})
		}
	}
	return list, nil
}
