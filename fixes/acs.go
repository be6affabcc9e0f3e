// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// kindACS is Access Control Services of a port: Target is the port's address,
// Name "control", the value as the kernel writes it ("xx000x0", DirectTrans
// first). Only a boot sets it, by pci=config_acs= or pci=disable_acs_redir=:
// the IOMMU groups do not follow a later write.
const kindACS = "acs"

// ACSSetting names the control bits of a port.
func ACSSetting(bdf string) plan.Setting {
	return plan.Setting{Kind: kindACS, Target: bdf, Name: "control"}
}

// The options by which a kernel sets ACS; the last of each counts.
const (
	configACS    = "config_acs"
	disableRedir = "disable_acs_redir"
)

const fixedACS = "the commit 9cf8a952d57b (\"PCI/ACS: Fix 'pci=config_acs=' parameter\", in 6.12.23, 6.13.11, 6.14.2 and 6.15)"

func acsKernel(f *facts.Facts) facts.ACSKernel {
	if r := f.Kernel().Release; r != nil {
		return facts.ACSKernelOf(*r)
	}
	return facts.ACSNotKnown
}

// settable gives the ports that a boot of this kernel brings to what is wished,
// and refuses the others. The first refusal has the steps for all of them, as
// one option lists all ports.
func settable(f *facts.Facts, l loader, ports []plan.Wish) (good []plan.Wish, refused []plan.Refusal) {
	var bad []plan.Wish
	var why []string
	for _, w := range ports {
		if len(w.Want) != 7 || strings.Trim(w.Want, "01x") != "" || w.Setting != ACSSetting(w.Target) {
			refused = append(refused, refuse(w, fmt.Sprintf("%q is not seven of 0, 1 and x", w.Want)))
			continue
		}
		if no := unsettable(f, w); no != "" {
			bad, why = append(bad, w), append(why, no)
			continue
		}
		good = append(good, w)
	}
	if good != nil {
		add, remove, _ := acsTokens(f, good, nil, nil)
		option := add[len(add)-1]
		if acsKernel(f) == facts.ACSFirstPort && strings.Contains(option, ";") {
			for range good {
				why = append(why, "this kernel takes the first port of pci=config_acs= only: it lacks "+fixedACS)
			}
			bad, good = append(bad, good...), nil
		}
		for _, t := range append(remove, option) {
			if held := ownedBy(f, plan.Wish{Setting: CmdlineSetting(t), Want: TokenPresent}); held != nil {
				for _, w := range good {
					refused = append(refused, refuse(w, held.Reason, held.Steps...))
				}
				good = nil
			}
		}
	}
	if bad == nil {
		return good, refused
	}
	add, remove, note := acsTokens(f, slices.Concat(good, bad), nil, nil)
	steps := append(bootSteps(f.Host(), l, add, remove), note...)
	for i, w := range bad {
		refused = append(refused, refuse(w, "tier boot: hostcheck does not try it: "+why[i]+"; by hand, here ("+l.name+"):", steps...))
		steps = []string{"see the steps above: one option lists all ports"}
	}
	return good, refused
}

// unsettable says why no boot of this kernel brings a port to what is wished, "" when one does.
func unsettable(f *facts.Facts, w plan.Wish) string {
	port := f.PCI().At(w.Target)
	if port == nil || port.Space == nil || port.Space.ACS == nil {
		return "the ACS registers of " + w.Target + " are not known"
	}
	kernel, a := acsKernel(f), port.Space.ACS
	entry := acsEntry(kernel, w)
	c := facts.ParseCmdline("pci="+acsOption(kernel, entry), f.CmdlineEnv())
	if entry != "" && a.As(f.ACSAfter(c, w.Target, a), w.Want) {
		return ""
	}
	switch {
	case kernel == facts.ACSNotKnown:
		return "the release of the kernel is not known"
	case a.Quirk != "":
		return "on ports like " + w.Target + " the kernel only takes redirection away (" + a.Quirk + ")"
	case kernel == facts.ACSRedirOnly:
		return "this kernel is older than 6.11: its pci=disable_acs_redir= clears ReqRedir, CmpltRedir and EgressCtrl and does nothing else"
	case kernel == facts.ACSFirstPort:
		return "pci=config_acs= of this kernel leaves a bit that is to be off as the firmware had it: it lacks " + fixedACS
	}
	return w.Target + " does not have all of these bits"
}

func acsOption(kernel facts.ACSKernel, entries ...string) string {
	option := configACS
	if kernel == facts.ACSRedirOnly {
		option = disableRedir
	}
	return option + "=" + strings.Join(entries, ";")
}

// acsEntry names a port in the list of the kernel's option, "" where
// disable_acs_redir= must not name it.
func acsEntry(kernel facts.ACSKernel, w plan.Wish) string {
	switch {
	case kernel != facts.ACSRedirOnly:
		return w.Want + "@" + w.Target
	case w.Want[3:5] == "00": // CmpltRedir and ReqRedir
		return w.Target
	}
	return ""
}

// bootCmdline is the command line that changes start from: that of the entry
// that boots as a rule, where it is known.
func bootCmdline(f *facts.Facts) *facts.Cmdline {
	if e := f.Boot().Usual(); e != nil && e.Cmdline != nil {
		return facts.ParseCmdline(*e.Cmdline, f.CmdlineEnv())
	}
	return f.Cmdline()
}

// acsTokens adds to the tokens that come and go those that set the ports as
// wanted. Other words of pci= stay, and other ports keep what they were given.
func acsTokens(f *facts.Facts, ports []plan.Wish, add, remove []string) (_, _, note []string) {
	add, remove = slices.Clone(add), slices.Clone(remove)
	kernel := acsKernel(f)
	option, _, _ := strings.Cut(acsOption(kernel), "=")
	var now, more, kept []string // tokens of pci=, what stays of them, other ports
	for _, t := range bootCmdline(f).Find("pci") {
		if t.Value != nil && !slices.Contains(remove, t.Raw) && !slices.Contains(now, t.Raw) {
			now = append(now, t.Raw)
		}
	}
	for _, t := range add {
		if strings.HasPrefix(t, "pci=") && !slices.Contains(now, t) {
			now = append(now, t)
		}
	}
	for _, t := range now {
		acs := false
		var rest []string
		for word := range strings.SplitSeq(strings.Trim(t[len("pci="):], `"`), ",") {
			name, list, _ := strings.Cut(word, "=")
			if name != option {
				rest = append(rest, word)
				continue
			}
			acs, kept = true, nil // the last one counts
			for entry := range strings.SplitSeq(list, ";") {
				_, device := facts.ACSDevice(entry)
				if !slices.ContainsFunc(ports, func(w plan.Wish) bool { return facts.SameBDF(device, w.Target) }) {
					kept = append(kept, entry)
				}
			}
		}
		if !acs {
			continue
		}
		if i := slices.Index(add, t); i >= 0 {
			add = slices.Delete(add, i, i+1)
		} else {
			remove = append(remove, t)
		}
		if rest != nil {
			more = append(more, "pci="+strings.Join(rest, ","))
		}
	}
	var list []string
	closed := 0
	for _, w := range ports {
		if entry := acsEntry(kernel, w); entry != "" {
			list = append(list, entry)
		} else {
			closed++
		}
	}
	list = append(list, kept...) // after ours: the first entry that fits a port counts
	add = append(add, more...)
	if len(list) > 0 {
		add = append(add, "pci="+acsOption(kernel, list...))
	}
	if kernel == facts.ACSRedirOnly {
		note = append(note, "this kernel is older than 6.11 and, unless its maker added it, has no pci=config_acs=: disable_acs_redir= clears ReqRedir, CmpltRedir and EgressCtrl only")
		if closed > 0 {
			note = append(note, fmt.Sprintf("%d ports are to be closed, which it cannot: an active IOMMU does so at boot, for ports that no disable_acs_redir= names", closed))
		}
	} else if kernel != facts.ACSWhole && len(list) > 1 {
		note = append(note, "kernels from 6.11 on without "+fixedACS+" take the first port only")
	}
	return add, remove, append(note, "for port in "+targets(ports)+"; do lspci -vvv -s $port | grep ACSCtl; done")
}

func targets(wishes []plan.Wish) string {
	var s []string
	for _, w := range wishes {
		s = append(s, w.Target)
	}
	return strings.Join(s, " ")
}
