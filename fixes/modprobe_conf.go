// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

// modprobeConf is what modprobe and the boot are told about modules.
type modprobeConf struct {
	installs  map[string]string // module to the "install" line that replaces loading, with its place
	blacklist map[string]string
	loads     map[string]string // module to the file that loads it at boot
	unknown   string            // why the rest is not known
}

type modprobeLine struct {
	words []string
	line  int
}

// modprobeLines reads modprobe.d(5): a backslash at its end continues a line.
func modprobeLines(text string) []modprobeLine {
	var out []modprobeLine
	n, start, held := 0, 0, ""
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if held == "" {
			start = n
		}
		if head, more := strings.CutSuffix(strings.TrimRight(line, "\r"), `\`); more {
			held += head + " "
			continue
		}
		words := strings.Fields(held + line)
		held = ""
		if len(words) > 0 && words[0][0] != '#' {
			out = append(out, modprobeLine{words, start})
		}
	}
	return out
}

// confFiles lists the ".conf" files of a configuration directory's places; of
// one name the first place counts.
func confFiles(h *host.Host, name string, places ...string) (paths []string, why string) {
	seen := map[string]bool{}
	for _, dir := range places {
		names, err := h.List(path.Join(dir, name))
		if err != nil && !host.Absent(err) {
			return nil, host.Reason(err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, ".conf") && !seen[n] {
				seen[n] = true
				paths = append(paths, path.Join(dir, name, n))
			}
		}
	}
	return paths, ""
}

func readModprobeConf(h *host.Host) modprobeConf {
	c := modprobeConf{installs: map[string]string{}, blacklist: map[string]string{}, loads: map[string]string{}}
	each := func(name string, places []string, f func(p, text string)) {
		paths, why := confFiles(h, name, places...)
		for _, p := range paths {
			b, err := h.Read(p)
			if err != nil && !host.Absent(err) && why == "" {
				why = host.Reason(err)
			}
			f(p, string(b))
		}
		if why != "" {
			c.unknown = why
		}
	}
	each("modprobe.d", []string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"}, func(p, text string) {
		for _, l := range modprobeLines(text) {
			at := fmt.Sprintf("%s:%d says %q", p, l.line, strings.Join(l.words, " "))
			switch {
			case len(l.words) > 2 && l.words[0] == "install":
				c.installs[facts.ModuleName(l.words[1])] = at
			case len(l.words) == 2 && l.words[0] == "blacklist":
				c.blacklist[facts.ModuleName(l.words[1])] = at
			}
		}
	})
	boot := func(p, text string) {
		for line := range strings.Lines(text) {
			if m := strings.TrimSpace(line); m != "" && m[0] != '#' && m[0] != ';' {
				c.loads[facts.ModuleName(strings.Fields(m)[0])] = p
			}
		}
	}
	each("modules-load.d", []string{"/etc", "/run", "/usr/local/lib", "/usr/lib"}, boot)
	if b, err := h.Read("/etc/modules"); err == nil {
		boot("/etc/modules", string(b))
	}
	return c
}

// forbids gives the line that keeps a module out, or "". A blacklist does not
// stop modprobe, but it stops the boot, and somebody meant it.
func (c modprobeConf) forbids(module string) string {
	if line := c.installs[module]; line != "" {
		return line
	}
	return c.blacklist[module]
}
