// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// guards is how things stand that no change may break.
type guards struct {
	routes []string          // interfaces of default routes
	state  map[string]string // interface that the host is managed through -> operstate
	boot   map[string]string // file of a boot loader -> what it holds, or why that is not known
}

// bootFiles hold the default boot entry of GRUB (Debian, Red Hat, SUSE) and
// systemd-boot; bootEntries the entries themselves.
var (
	bootFiles = []string{
		"/boot/grub/grub.cfg", "/boot/grub/grubenv", "/boot/grub2/grub.cfg", "/boot/grub2/grubenv",
		"/boot/loader/loader.conf", "/boot/efi/loader/loader.conf", "/efi/loader/loader.conf",
	}
	bootEntries = []string{"/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries"}
)

func readGuards(h *host.Host) guards {
	g := guards{routes: fixes.DefaultRoutes(h), state: map[string]string{}, boot: map[string]string{}}
	for dev := range fixes.Managed(h) {
		g.state[dev], _ = h.Text(path.Join("/sys/class/net", dev, "operstate"))
	}
	files := slices.Clone(bootFiles)
	for _, dir := range bootEntries {
		names, _ := h.List(dir)
		for _, n := range names {
			files = append(files, path.Join(dir, n))
		}
	}
	for _, p := range files {
		if b, err := h.Read(p); err == nil {
			g.boot[p] = string(b)
		} else if !host.Absent(err) {
			g.boot[p] = "\x00" + err.Error()
		}
	}
	return g
}

// compare says how the guards of g stand after p, and what is broken.
func (g guards) compare(now guards, p plan.Plan) ([]report.Guard, error) {
	var out []report.Guard
	var broken []error
	add := func(name, good string, problems []string) {
		r := report.Guard{Name: name, Held: len(problems) == 0, Got: good}
		if !r.Held {
			r.Got = strings.Join(problems, "; ")
			broken = append(broken, fmt.Errorf("%s: %s", name, r.Got))
		}
		out = append(out, r)
	}
	if len(g.routes) > 0 {
		var problems []string
		for _, dev := range g.routes {
			if !slices.Contains(now.routes, dev) {
				problems = append(problems, dev+" has lost it")
			}
		}
		for _, dev := range slices.Sorted(maps.Keys(g.state)) {
			if g.state[dev] == "up" && now.state[dev] != "up" {
				problems = append(problems, dev+" was up and is "+cmp.Or(now.state[dev], "gone"))
			}
		}
		add("default route", "as before, over "+strings.Join(g.routes, " and "), problems)
	}
	boots := slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Tier == plan.Boot })
	if len(g.boot) > 0 && !boots {
		all := maps.Clone(g.boot)
		maps.Copy(all, now.boot)
		var problems []string
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if g.boot[name] != now.boot[name] {
				problems = append(problems, name+" changed")
			}
		}
		add("boot entries", "untouched", problems)
	}
	return out, errors.Join(broken...)
}
