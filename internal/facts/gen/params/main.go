// SPDX-License-Identifier: Apache-2.0

// Command params writes the list of the names that a kernel accepts on its
// command line, from a kernel source tree:
//
//	LINUX_SOURCE=/usr/src/linux-6.12 go generate ./internal/facts
//
// Without LINUX_SOURCE it leaves the list as it is.
//
// It follows the Makefiles from the top to know on which configuration symbols
// each object depends, reads __setup, early_param, core_param and unprefixed
// module_param of everything that can be built in, and keeps the #if
// conditions around them. Tests do not need the source tree; the list is
// committed.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const header = `# Names on the kernel command line, made from Linux %s by internal/facts/gen/params.
# NAME KIND ARCH CONDITION, where KIND is
#   early   early_param(): the name as a whole
#   setup   __setup(): a prefix of the token; with "=" it needs a value
#   word    __setup() without "=" whose handler refuses what follows the name
#   bool    __setup() whose handler refuses a value that is no boolean
#   never   __setup() whose handler always answers "not mine": logged as unknown
#   core    core_param() and the like: the name as a whole
# and CONDITION is configuration symbols that are =y ("!": are not; "?": are =y or =m), "-" for none.
`

func main() {
	log.SetFlags(0)
	source := flag.String("source", "", "root of a kernel source `tree`")
	out := flag.String("o", "", "output `file`")
	flag.Parse()
	if *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	if *source == "" { // as "go generate" without LINUX_SOURCE runs it
		log.Printf("no kernel source tree given: %s is left as it is", *out)
		return
	}
	version, err := kernelVersion(*source)
	if err != nil {
		log.Fatal(err)
	}
	byArch := map[string]map[param]bool{}
	for _, arch := range []string{"x86", "arm64"} {
		g := &generator{root: *source, arch: arch, found: map[param]bool{}, units: map[string]bool{}}
		for _, top := range []string{"Kbuild", "arch/" + arch + "/Makefile"} {
			g.makefile(top, ".", nil)
		}
		g.directory("lib", nil) // libs-y of the top Makefile
		log.Printf("%s: %d objects, %d names", arch, len(g.units), len(g.found))
		byArch[arch] = g.found
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, header, version)
	for _, line := range merge(byArch) {
		fmt.Fprintln(&b, line)
	}
	if err := os.WriteFile(*out, b.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

// kernelVersion reads the top Makefile: "6.12.117".
func kernelVersion(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return "", fmt.Errorf("cannot read a kernel source tree: %w", err)
	}
	var v []string
	for _, key := range []string{"VERSION", "PATCHLEVEL", "SUBLEVEL"} {
		m := regexp.MustCompile(`(?m)^` + key + ` = (\d+)$`).FindSubmatch(b)
		if m == nil {
			return "", fmt.Errorf("%s: no %s; is this a kernel source tree?", root, key)
		}
		v = append(v, string(m[1]))
	}
	return strings.Join(v, "."), nil
}

// param is one accepted name under one condition.
type param struct{ name, kind, cond string }

// merge gives the sorted lines; what all architectures have is "any".
func merge(byArch map[string]map[param]bool) []string {
	arches := map[param][]string{}
	for _, arch := range slices.Sorted(maps.Keys(byArch)) {
		for p := range byArch[arch] {
			if p.cond != "-" && byArch[arch][param{p.name, p.kind, "-"}] {
				continue // unconditional anyway
			}
			arches[p] = append(arches[p], arch)
		}
	}
	var lines []string
	for p, in := range arches {
		arch := in[0]
		if len(in) == len(byArch) {
			arch = "any"
		}
		lines = append(lines, strings.Join([]string{p.name, p.kind, arch, p.cond}, " "))
	}
	slices.Sort(lines)
	return lines
}

// generator follows the build of one architecture.
type generator struct {
	root, arch string
	found      map[param]bool
	units      map[string]bool // object and condition seen
}

var (
	assignment = regexp.MustCompile(`^\s*([\w.$()/, -]+?)\s*(?:\+=|:=|=)\s*(.*)$`)
	objList    = regexp.MustCompile(`^(?:obj|lib|core|drivers|libs)-(.+)$`)
	configName = regexp.MustCompile(`CONFIG_(\w+)`)
)

// item is a word of an object list: a file or a directory, with what it needs.
type item struct {
	word string
	cond []string
}

// makefile reads one Kbuild file. Directories in it are relative to dir.
func (g *generator) makefile(file, dir string, cond []string) {
	b, err := os.ReadFile(filepath.Join(g.root, file))
	if err != nil {
		return
	}
	text := strings.ReplaceAll(string(b), "\\\n", " ")
	var ifs [][]string
	var objects []item
	members := map[string][]item{} // composite object -> what it is made of
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		switch word, rest, _ := strings.Cut(line, " "); word {
		case "ifdef", "ifndef", "ifeq", "ifneq":
			ifs = append(ifs, makeCondition(word, rest))
			continue
		case "else":
			if n := len(ifs); n > 0 {
				ifs[n-1] = negate(ifs[n-1])
			}
			continue
		case "endif":
			if n := len(ifs); n > 0 {
				ifs = ifs[:n-1]
			}
			continue
		}
		m := assignment.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		here := slices.Concat(ifs...)
		if o := objList.FindStringSubmatch(m[1]); o != nil {
			if need, ok := listCondition(o[1]); ok {
				for _, w := range strings.Fields(m[2]) {
					objects = append(objects, item{g.expand(w), slices.Concat(here, need)})
				}
			}
			continue
		}
		if name, suffix, ok := cutMember(m[1]); ok {
			if need, ok := listCondition(suffix); ok {
				for _, w := range strings.Fields(m[2]) {
					members[name] = append(members[name], item{g.expand(w), slices.Concat(here, need)})
				}
			}
		}
	}
	for _, o := range objects {
		need := slices.Concat(cond, o.cond)
		if strings.HasSuffix(o.word, "/") {
			g.directory(filepath.Join(dir, o.word), need)
			continue
		}
		g.object(dir, o.word, need, members, 0)
	}
}

func (g *generator) directory(dir string, cond []string) {
	key := dir + " " + join(cond)
	if g.units[key] || contradictory(cond) {
		return
	}
	g.units[key] = true
	for _, name := range []string{"Kbuild", "Makefile"} {
		if _, err := os.Stat(filepath.Join(g.root, dir, name)); err == nil {
			g.makefile(filepath.Join(dir, name), dir, cond)
			return
		}
	}
}

func (g *generator) object(dir, word string, cond []string, members map[string][]item, depth int) {
	base, ok := strings.CutSuffix(word, ".o")
	if list, is := strings.CutPrefix(word, "$("); is && !ok {
		base, ok = strings.CutSuffix(list, "-y)") // a list by another name: $(mmu-y)
	}
	if !ok || depth > 3 {
		return
	}
	for _, m := range members[base] {
		need := slices.Concat(cond, m.cond)
		if strings.HasSuffix(m.word, "/") {
			g.directory(filepath.Join(dir, m.word), need)
		} else if m.word != word {
			g.object(dir, m.word, need, members, depth+1)
		}
	}
	g.source(filepath.Join(dir, base+".c"), cond, map[string]bool{})
}

func (g *generator) expand(word string) string {
	return strings.NewReplacer("$(SRCARCH)", g.arch, "$(BITS)", "64", "$(obj)/", "", "$(src)/", "").Replace(word)
}

// cutMember splits "foo-y", "foo-objs" and "foo-$(CONFIG_X)".
func cutMember(name string) (object, suffix string, ok bool) {
	if i := strings.LastIndex(name, "-$("); i > 0 {
		return name[:i], name[i+1:], true
	}
	for _, s := range []string{"-y", "-objs"} {
		if o, found := strings.CutSuffix(name, s); found {
			return o, "y", true
		}
	}
	return "", "", false
}

// listCondition is what the suffix of a list ("y", "$(CONFIG_X)") asks.
func listCondition(suffix string) (cond []string, ok bool) {
	switch {
	case suffix == "y", suffix == "objs":
		return nil, true
	case strings.HasPrefix(suffix, "$(CONFIG_"):
		return []string{configName.FindStringSubmatch(suffix)[1]}, true
	case strings.HasPrefix(suffix, "$(subst m,y,$(CONFIG_"):
		return []string{configName.FindStringSubmatch(suffix)[1] + "?"}, true
	case strings.HasPrefix(suffix, "$("):
		return nil, true // a variable: built, as far as this can tell
	}
	return nil, false
}

// makeCondition reads the simple forms; nil is "may be".
func makeCondition(word, rest string) []string {
	m := configName.FindAllStringSubmatch(rest, -1)
	if len(m) != 1 {
		return nil
	}
	sym := m[0][1]
	switch word {
	case "ifdef":
		return []string{sym + "?"}
	case "ifndef":
		return []string{"!" + sym}
	case "ifeq":
		if strings.HasSuffix(strings.ReplaceAll(rest, " ", ""), ",y)") {
			return []string{sym}
		}
	case "ifneq":
		if strings.HasSuffix(strings.ReplaceAll(rest, " ", ""), ",)") {
			return []string{sym + "?"}
		}
	}
	return nil
}

func negate(cond []string) []string {
	if len(cond) != 1 {
		return nil
	}
	if sym, neg := strings.CutPrefix(cond[0], "!"); neg {
		return []string{sym}
	}
	return []string{"!" + strings.TrimSuffix(cond[0], "?")}
}

func contradictory(cond []string) bool {
	return slices.ContainsFunc(cond, func(s string) bool { return slices.Contains(cond, "!"+s) })
}

func join(cond []string) string {
	c := slices.Clone(cond)
	slices.Sort(c)
	c = slices.Compact(c)
	if len(c) == 0 {
		return "-"
	}
	return strings.Join(c, "&")
}

var (
	include  = regexp.MustCompile(`^\s*#\s*include\s+"([^"]+\.[ch])"`)
	ifLine   = regexp.MustCompile(`^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b\s*(.*)$`)
	macro    = regexp.MustCompile(`^\s*(__setup|__setup_param|early_param|early_param_on_off|core_param|core_param_cb|module_param|module_param_cb|module_param_named|module_param_array|__module_param_call|param_check)\s*\(`)
	prefix   = regexp.MustCompile(`^\s*#\s*define\s+MODULE_PARAM_PREFIX\s+(.*)$`)
	stringRe = regexp.MustCompile(`"([^"]*)"`)
	comment  = regexp.MustCompile(`(?s)/\*.*?\*/`)
)

// source reads one C file and what it includes from beside it, as one unit.
func (g *generator) source(file string, cond []string, seen map[string]bool) {
	if seen[file] || contradictory(cond) {
		return
	}
	seen[file] = true
	b, err := os.ReadFile(filepath.Join(g.root, file))
	if err != nil {
		return
	}
	text := string(comment.ReplaceAllFunc(b, func(c []byte) []byte { return bytes.Repeat([]byte("\n"), bytes.Count(c, []byte("\n"))) }))
	text = strings.ReplaceAll(text, "\\\n", " ")
	unprefixed := false
	type branch struct {
		cond []string
		off  bool
	}
	var ifs []branch
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.Contains(line, "#") && !strings.Contains(line, "_param") && !strings.Contains(line, "__setup") {
			continue // most of them; the expressions below are slow
		}
		if m := ifLine.FindStringSubmatch(line); m != nil {
			n := len(ifs)
			switch m[1] {
			case "endif":
				ifs = ifs[:max(0, n-1)]
			case "else":
				if n > 0 {
					ifs[n-1] = branch{negate(ifs[n-1].cond), false}
				}
			case "elif":
				if n > 0 {
					c, off := cppCondition("if", m[2])
					ifs[n-1] = branch{c, off}
				}
			default:
				c, off := cppCondition(m[1], m[2])
				ifs = append(ifs, branch{c, off})
			}
			continue
		}
		here := slices.Clone(cond)
		off := false
		for _, i := range ifs {
			here, off = append(here, i.cond...), off || i.off
		}
		if off || contradictory(here) {
			continue
		}
		if m := include.FindStringSubmatch(line); m != nil {
			g.source(filepath.Join(filepath.Dir(file), m[1]), here, seen)
			continue
		}
		if m := prefix.FindStringSubmatch(line); m != nil {
			unprefixed = strings.TrimSpace(m[1]) == `""` || strings.TrimSpace(m[1]) == ""
			continue
		}
		m := macro.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for !strings.Contains(line, ")") && lines.Scan() {
			line += lines.Text()
		}
		g.record(m[1], line[strings.Index(line, "(")+1:], text, unprefixed, here)
	}
}

// cppCondition reads the simple forms of a preprocessor condition; nil is "may
// be", off is never.
func cppCondition(word, expr string) (cond []string, off bool) {
	expr = strings.TrimSpace(expr)
	switch word {
	case "ifdef", "ifndef":
		sym, is := strings.CutPrefix(expr, "CONFIG_")
		switch {
		case expr == "MODULE":
			return nil, word == "ifdef"
		case !is:
			return nil, false
		case word == "ifdef":
			return []string{sym}, false
		}
		return []string{"!" + sym}, false
	}
	if expr == "0" {
		return nil, true
	}
	if strings.Contains(expr, "||") {
		return nil, false
	}
	simple := regexp.MustCompile(`^(!?)\s*(defined|IS_ENABLED|IS_BUILTIN)\s*\(?\s*CONFIG_(\w+?)\s*\)?$`)
	for part := range strings.SplitSeq(expr, "&&") {
		m := simple.FindStringSubmatch(strings.TrimSpace(part))
		switch {
		case m == nil:
		case m[1] == "!":
			cond = append(cond, "!"+m[3])
		case m[2] == "IS_ENABLED":
			cond = append(cond, m[3]+"?")
		default:
			cond = append(cond, m[3])
		}
	}
	return cond, false
}

func (g *generator) record(kind, args, text string, unprefixed bool, cond []string) {
	add := func(name, kind string) {
		if name != "" && !strings.ContainsAny(name, " \t") {
			g.found[param{name, kind, join(cond)}] = true
		}
	}
	first, rest, _ := strings.Cut(args, ",")
	first = strings.TrimSpace(first)
	literal := ""
	if m := stringRe.FindStringSubmatch(first); m != nil {
		literal = m[1]
	}
	switch kind {
	case "early_param":
		add(literal, "early")
	case "early_param_on_off":
		for _, m := range stringRe.FindAllStringSubmatch(args, 2) {
			add(m[1], "early")
		}
	case "__setup", "__setup_param":
		handler := rest
		if kind == "__setup_param" { // (name, unique id, handler, early)
			_, handler, _ = strings.Cut(rest, ",")
			handler, _, _ = strings.Cut(handler, ",")
		}
		add(literal, setupKind(literal, strings.Trim(handler, " \t);"), text))
	case "core_param", "core_param_cb":
		add(first, "core")
	case "__module_param_call":
		if m := stringRe.FindStringSubmatch(first); m != nil && m[1] == "" {
			name, _, _ := strings.Cut(rest, ",")
			add(strings.TrimSpace(name), "core")
		}
	default:
		if unprefixed {
			add(first, "core")
		}
	}
}

var (
	returns     = regexp.MustCompile(`\breturn\b\s*([^;]*);`)
	refusesTail = regexp.MustCompile(`if\s*\(\s*\*\s*\w+\s*\)\s*(\{[^}]*?)?return\s+0\s*;`)
	boolReturn  = regexp.MustCompile(`return\s*\(?\s*(kstrtobool\(\w+,\s*&\w+\)\s*==\s*0|!\s*kstrtobool\(\w+,\s*&\w+\))`)
)

// setupKind looks into the handler for the plain cases of refusing.
func setupKind(name, handler, text string) string {
	i := regexp.MustCompile(`\b` + regexp.QuoteMeta(handler) + `\s*\([^;{)]*\)\s*\{`).FindStringIndex(text)
	if i == nil {
		return "setup"
	}
	body := text[i[1]:]
	if end := strings.Index(body, "\n}"); end >= 0 {
		body = body[:end]
	}
	zero := true
	all := returns.FindAllStringSubmatch(body, -1)
	for _, r := range all {
		zero = zero && strings.TrimSpace(r[1]) == "0"
	}
	switch {
	case zero && len(all) > 0:
		return "never"
	case boolReturn.MatchString(body):
		return "bool"
	case !strings.HasSuffix(name, "=") && refusesTail.MatchString(body):
		return "word"
	}
	return "setup"
}
