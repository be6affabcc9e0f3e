// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
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

func readModprobeConf(h *host.Host) modprobeConf {
	c := modprobeConf{installs: map[string]string{}, blacklist: map[string]string{}, loads: map[string]string{}}
	each := func(name string, places []string, f func(p, text string)) {
		paths, why := facts.ConfFiles(h, name, places...)
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
	each("modprobe.d", facts.ModprobePlaces, func(p, text string) {
		for _, l := range facts.ModprobeLines(text) {
			at := fmt.Sprintf("%s:%d says %q", p, l.Line, strings.Join(l.Words, " "))
			switch {
			case len(l.Words) > 2 && l.Words[0] == "install":
				c.installs[facts.ModuleName(l.Words[1])] = at
			case len(l.Words) == 2 && l.Words[0] == "blacklist":
				c.blacklist[facts.ModuleName(l.Words[1])] = at
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
