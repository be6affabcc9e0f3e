// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// ACS sets Access Control Services of ports: kind "acs", Target the port's
// address, Name "control", the value as the kernel writes it ("xx000x0",
// DirectTrans first). Tier boot, through pci=config_acs=: shown and not done.
type ACS struct{ byHand }

// Kind is "acs".
func (ACS) Kind() string { return "acs" }

// ACSSetting names the control bits of a port.
func ACSSetting(bdf string) plan.Setting {
	return plan.Setting{Kind: "acs", Target: bdf, Name: "control"}
}

// Expand refuses all wishes; the first has the steps for all ports together,
// as one option lists them all and the last such option counts.
func (ACS) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	f := facts.New(h)
	var good []plan.Wish
	for _, w := range wishes {
		if len(w.Want) != 7 || strings.Trim(w.Want, "01x") != "" || w.Setting != ACSSetting(w.Target) {
			refused = append(refused, refuse(w, fmt.Sprintf("%q is not seven of 0, 1 and x", w.Want)))
			continue
		}
		good = append(good, w)
	}
	if len(good) == 0 {
		return nil, refused, nil
	}
	l := loaderOf(f)
	add, remove, note := acsTokens(f, good)
	steps := append(bootSteps(h, l, add, remove), note...)
	for i, w := range good {
		if i > 0 {
			steps = []string{"see the steps above: one option lists all ports"}
		}
		refused = append(refused, refuse(w, "tier boot: hostcheck does not change ACS; by hand, here ("+l.name+"):", steps...))
	}
	return nil, refused, nil
}

// acsTokens gives the tokens that set the ports as wanted and keep what other
// ports were given, and those that they replace.
func acsTokens(f *facts.Facts, wishes []plan.Wish) (add, remove, note []string) {
	old := kernelBefore(f, "6.11")
	option := "config_acs"
	if old {
		option = "disable_acs_redir"
	}
	var list, more []string
	wanted := func(dev string) bool {
		return slices.ContainsFunc(wishes, func(w plan.Wish) bool { return w.Target == dev })
	}
	for _, t := range f.Cmdline().Find("pci") {
		if t.Value == nil {
			continue
		}
		acs := false
		var rest []string
		for word := range strings.SplitSeq(*t.Value, ",") {
			name, devices, _ := strings.Cut(word, "=")
			if name != "config_acs" && name != "disable_acs_redir" {
				rest = append(rest, word)
				continue
			}
			acs = true
			if name != option {
				continue
			}
			list = list[:0] // the last one counts
			for entry := range strings.SplitSeq(devices, ";") {
				_, dev, ok := strings.Cut(entry, "@")
				if !ok {
					dev = entry
				}
				if !wanted(dev) {
					list = append(list, entry)
				}
			}
		}
		if !acs {
			continue
		}
		remove = append(remove, t.Raw)
		if rest != nil {
			more = append(more, "pci="+strings.Join(rest, ","))
		}
	}
	closed := 0
	for _, w := range wishes {
		switch {
		case !old:
			list = append(list, w.Want+"@"+w.Target)
		case w.Want[3:5] == "00": // CmpltRedir and ReqRedir
			list = append(list, w.Target)
		default:
			closed++
		}
	}
	add = more
	if len(list) > 0 {
		add = append(add, "pci="+option+"="+strings.Join(list, ";"))
	}
	if old {
		note = append(note, "this kernel is older than 6.11 and, unless its maker added it, has no pci=config_acs=: disable_acs_redir= clears ReqRedir, CmpltRedir and EgressCtrl only")
		if closed > 0 {
			note = append(note, fmt.Sprintf("%d ports are to be closed, which it cannot: an active IOMMU does so at boot, for ports that no disable_acs_redir= names", closed))
		}
	} else if len(list) > 1 {
		note = append(note, "kernels from 6.11 on without the commit 9cf8a952d57b (\"PCI/ACS: Fix 'pci=config_acs=' parameter\", in 6.15 and later 6.12.y) take the first port only")
	}
	return add, remove, append(note, "for port in "+targets(wishes)+"; do lspci -vvv -s $port | grep ACSCtl; done")
}

func targets(wishes []plan.Wish) string {
	var s []string
	for _, w := range wishes {
		s = append(s, w.Target)
	}
	return strings.Join(s, " ")
}
