// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

const (
	sysctlDir    = "/etc/sysctl.d"
	sysctlDropIn = sysctlDir + "/99-zz-hostcheck.conf"

	// ownHeader starts every configuration file that is ours.
	ownHeader = "# Written by hostcheck, which takes it back with \"hostcheck undo\".\n"
	ownNote   = "# hostcheck writes this file as a whole: put your own settings elsewhere.\n"
)

// own reports whether a file is ours to write: it starts with our line.
func own(text string) bool { return strings.HasPrefix(text, ownHeader) }

// entry is one parameter of our drop-in.
type entry struct{ comment, name, value string }

// parseDropIn reads a drop-in that we wrote, and what people added to it.
func parseDropIn(text string) map[string]entry {
	out := map[string]entry{}
	comment := ""
	for line := range strings.Lines(strings.TrimPrefix(strings.TrimPrefix(text, ownHeader), ownNote)) {
		line = strings.TrimSpace(line)
		key, value, set := strings.Cut(strings.TrimPrefix(line, "-"), "=")
		switch {
		case line == "":
			comment = ""
		case line[0] == '#' || line[0] == ';':
			comment += line + "\n"
		case set:
			name := facts.SysctlName(facts.SysctlPath(strings.TrimSpace(key)))
			out[name] = entry{comment, name, facts.SysctlText(value)}
			comment = ""
		}
	}
	return out
}

// render writes a drop-in. A parameter of one interface is prefixed with "-":
// that the interface is not there is then no error.
func render(entries map[string]entry) string {
	var b strings.Builder
	b.WriteString(ownHeader + ownNote)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		ignore := ""
		if ofInterface(name) {
			ignore = "-"
		}
		fmt.Fprintf(&b, "\n%s%s%s = %s\n", e.comment, ignore, e.name, e.value)
	}
	return b.String()
}

// ofInterface: net.ipv4.conf.eth0.x and its like.
func ofInterface(name string) bool {
	p := strings.Split(facts.SysctlPath(name), "/")
	return len(p) > 4 && p[0] == "net" && (p[2] == "conf" || p[2] == "neigh") && p[3] != "all" && p[3] != "default"
}

// dropIn makes the wanted values last, in a file of ours that both
// systemd-sysctl and "sysctl --system" read after every line that sets one of
// them now; which it does is found by resolving all files again, with ours
// among them. Parameters that the files set so already are left alone. Wishes
// that no drop-in can carry are refused: what /etc/sysctl.conf says, procps
// reads last.
func dropIn(h *host.Host, s *facts.Sysctl, wishes []plan.Wish) (carried []plan.Wish, changes []plan.Change, refused []plan.Refusal, err error) {
	ours, others, err := ownFiles(h, s.Conf)
	if err != nil {
		return nil, nil, nil, err
	}
	entries := map[string]entry{}
	for _, p := range slices.Sorted(maps.Keys(ours)) {
		maps.Copy(entries, parseDropIn(ours[p]))
	}
	carried = slices.Clone(wishes)
	for {
		merged := maps.Clone(entries)
		var new []plan.Wish
		for _, w := range carried {
			if _, mine := entries[w.Name]; mine || !resolves(s.Conf, w.Name, w.Want) {
				merged[w.Name] = entry{"# " + comment(w) + "\n", w.Name, w.Want}
				if e := entries[w.Name]; e.value == w.Want {
					merged[w.Name] = e
				}
				new = append(new, w)
			}
		}
		if len(new) == 0 {
			return carried, nil, refused, nil
		}
		text := render(merged)
		var lost []string
		for _, p := range candidates(h, ours, others, slices.Collect(maps.Keys(merged))) {
			conf := others.Set(p, text)
			lost = slices.DeleteFunc(unresolved(conf, merged), func(name string) bool {
				old, mine := entries[name] // lost before: not for this plan to mend
				return mine && merged[name] == old && !resolves(s.Conf, name, facts.SysctlDecimal(old.value))
			})
			if len(lost) == 0 {
				return carried, dropInChanges(p, text, ours, new), refused, nil
			}
		}
		if lost == nil {
			return nil, nil, nil, fmt.Errorf("%s is there and is not of hostcheck's making; move it away", sysctlDropIn)
		}
		before := len(carried)
		carried = slices.DeleteFunc(carried, func(w plan.Wish) bool {
			if !slices.Contains(lost, w.Name) {
				return false
			}
			refused = append(refused, refuseLost(others, w))
			return true
		})
		if len(carried) == before {
			return nil, nil, nil, fmt.Errorf("no file in %s can make parameters last: %s would not hold", sysctlDir, strings.Join(lost, ", "))
		}
	}
}

func comment(w plan.Wish) string {
	if w.Check == "" {
		return "wanted"
	}
	return "wanted by " + w.Check
}

// ownFiles gives the text of our drop-ins, and the configuration without them.
func ownFiles(h *host.Host, conf *facts.SysctlConf) (ours map[string]string, others *facts.SysctlConf, err error) {
	ours, others = map[string]string{}, conf
	for _, f := range conf.Procps() {
		if path.Dir(f.Path) != sysctlDir || f.Masked || !strings.Contains(path.Base(f.Path), "hostcheck") {
			continue
		}
		b, err := h.Read(f.Path)
		if err != nil {
			return nil, nil, err
		}
		if own(string(b)) {
			ours[f.Path] = string(b)
			others = others.Drop(f.Path)
		}
	}
	return ours, others, nil
}

// candidates are the files to try: the one that we have, the usual one, and
// one right behind the last that sets any of the parameters.
func candidates(h *host.Host, ours map[string]string, others *facts.SysctlConf, names []string) []string {
	list := slices.Sorted(maps.Keys(ours))
	list = append(list, sysctlDropIn)
	last := ""
	for _, f := range others.Procps() {
		if f.Path != facts.SysctlMain && f.Touches(names) {
			last = max(last, path.Base(f.Path))
		}
	}
	if last != "" {
		// "_" sorts after "."
		list = append(list, path.Join(sysctlDir, strings.TrimSuffix(last, ".conf")+"_hostcheck.conf"))
	}
	return slices.DeleteFunc(list, func(p string) bool { return ours[p] == "" && exists(h, p) })
}

func resolves(c *facts.SysctlConf, name, value string) bool {
	a, b := c.BySystemd(name), c.ByProcps(name)
	return a != nil && b != nil && a.Value == value && b.Value == value
}

func unresolved(c *facts.SysctlConf, entries map[string]entry) (names []string) {
	for _, e := range entries {
		if !resolves(c, e.name, facts.SysctlDecimal(e.value)) {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	return names
}

// refuseLost names the line that wins whatever a drop-in says.
func refuseLost(c *facts.SysctlConf, w plan.Wish) plan.Refusal {
	a := c.ByProcps(w.Name)
	if a == nil {
		return refuse(w, "no drop-in in "+sysctlDir+" can make it last")
	}
	return refuse(w, fmt.Sprintf("%s says %s, and \"sysctl --system\" reads that file last, after every drop-in; hostcheck does not write files that are not its own", a.At(), a.Value),
		fmt.Sprintf("remove line %d of %s: %s = %s", a.Line, a.File, w.Name, a.Value), "run hostcheck again")
}

func dropInChanges(p, text string, ours map[string]string, wishes []plan.Wish) []plan.Change {
	var names []string
	tier := plan.Safe
	for _, w := range wishes {
		names = append(names, w.Name)
		if slices.Index(plan.Tiers, w.Tier) > slices.Index(plan.Tiers, tier) {
			tier = w.Tier
		}
	}
	file := func(p string, after plan.Value, why string) plan.Change {
		return plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: p}, After: after, Tier: tier, Persist: true, Why: why}
	}
	changes := []plan.Change{file(p, plan.Text(text), "sets at each boot, after every other file: "+strings.Join(names, ", "))}
	for _, old := range slices.Sorted(maps.Keys(ours)) {
		if old != p {
			changes = append(changes, file(old, plan.Absent, "what it says moves to "+p+", which is read later"))
		}
	}
	return changes
}
