// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// rxfragWorth is how much of the rings' memory, in percent, a change must save
// that no check asks for.
const rxfragWorth = 25

// rxfrag is the policy of receive buffers.
func rxfrag() *Module {
	var fullPage bool
	return &Module{
		Name:  "rxfrag",
		Title: "receive buffers: packets that share pages, rings that fit",
		Doc: `Predicts for each network interface how much memory a received packet takes, by its driver's rule, and sets what saves memory, on the
interface of the driver (enP…), not on the synthetic one above it. In this order:

  1. known bugs first: full-page-rx on where mana without its fix receives through bounce buffers (rxfrag.bounce)
  2. full-page-rx off where pages are of 16K or more and each packet takes one (rxfrag.packing)
  3. rx_striding_rq on where mlx5 saves a quarter of its rings by it
  4. smaller rings where they take more than 10 % of their node's memory (rxfrag.memory)

The default of other hosts is left alone. --full-page-rx is for the processor Cobalt 200 with pages of 4K, where pages that packets share
cost throughput. XDP, MTU and the kernel are yours: the plan says what each would do. Private flags and rings restart the interface:
these changes need --allow link, are refused beyond a quarter of the available memory, and are set again at each boot.`,
		Flags: func(s *pflag.FlagSet) {
			s.BoolVar(&fullPage, "full-page-rx", false, "a page for each packet, on pages of 4K only: for the processor Cobalt 200, at the cost of memory")
		},
		Plan: func(_ context.Context, in Input) (Advice, error) { return planRXFrag(in, fullPage) },
	}
}

// RXFragAdvice is the JSON of what the module makes of a host.
type RXFragAdvice struct {
	PageSize int         `json:"page_size"` // bytes
	Saved    int64       `json:"saved_bytes"`
	NICs     []RXFragNIC `json:"nics"`
}

// RXFragNIC is one interface in it.
type RXFragNIC struct {
	NIC    string            `json:"nic"`
	Driver string            `json:"driver"`
	Now    *facts.RXLayout   `json:"now"`  // null where it is not known
	Then   *facts.RXLayout   `json:"then"` // with the changes; null without any
	Saved  int64             `json:"saved_bytes"`
	Seen   *facts.RXObserved `json:"observed"`
	Advice []string          `json:"advice"` // what a person may do besides

	n *facts.RXNIC
}

func planRXFrag(in Input, fullPage bool) (Advice, error) {
	all := in.Facts.RXFrag()
	if fullPage && all.PageSize != nil && *all.PageSize > 4096 {
		return Advice{}, fmt.Errorf("--full-page-rx is for pages of 4K; here they are of %dK, and each packet would take one", *all.PageSize>>10)
	}
	wishes := in.Wishes()
	able := 0
	for _, n := range all.NICs {
		more := strideWish(all, n)
		if fullPage && n.Driver == "mana" && n.HasFlag != nil && *n.HasFlag {
			able++
			more = append(more, fullPageWish(n)...)
		}
		for _, w := range more {
			if !slices.ContainsFunc(wishes, func(o plan.Wish) bool { return o.Setting == w.Setting }) {
				wishes = append(wishes, w)
			}
		}
	}
	if fullPage && able == 0 {
		return Advice{}, errors.New("--full-page-rx: no interface here has the private flag full-page-rx")
	}
	a := RXFragAdvice{NICs: []RXFragNIC{}}
	if all.PageSize != nil {
		a.PageSize = *all.PageSize
	}
	for _, n := range all.NICs {
		one := RXFragNIC{NIC: n.Name, Driver: n.Driver, Now: n.Predicted, Seen: n.Observed, Advice: rxAdvice(all, n), n: n}
		if n.Predicted != nil {
			if then, changed := after(all, n, wishes); changed && then != nil {
				one.Then, one.Saved = then, n.Predicted.RingBytes-then.RingBytes
				a.Saved += one.Saved
			}
		}
		a.NICs = append(a.NICs, one)
	}
	return Advice{Wishes: wishes, Text: a.text(all), Value: a}, nil
}

// strideWish wants mlx5's striding receive queue where that saves memory.
func strideWish(all *facts.RXFrag, n *facts.RXNIC) []plan.Wish {
	if n.Driver != "mlx5_core" || n.On == nil || *n.On || n.Predicted == nil {
		return nil
	}
	on := n.Layout(all, func(_ *facts.RXParams, flag *bool) { *flag = true })
	if on == nil || on.RingBytes*100 > n.Predicted.RingBytes*(100-rxfragWorth) {
		return nil
	}
	return []plan.Wish{flagWish(n, true, fmt.Sprintf("%d bytes for each packet instead of %d", on.PacketBytes, n.Predicted.PacketBytes))}
}

func fullPageWish(n *facts.RXNIC) []plan.Wish {
	if n.On == nil || *n.On {
		return nil
	}
	return []plan.Wish{flagWish(n, true, "asked for: a page for each packet, whose reference count no other packet contends for")}
}

func flagWish(n *facts.RXNIC, on bool, why string) plan.Wish {
	word := map[bool]string{true: "on", false: "off"}
	return plan.Wish{
		Setting: plan.Setting{Kind: "ethtool", Target: n.NIC().Subject(), Name: "flag " + n.Flag},
		Got:     word[!on], Want: word[on], Tier: plan.Link, Check: "tune.rxfrag", Why: why,
	}
}

// after is an interface's layout with what is wished of it.
func after(all *facts.RXFrag, n *facts.RXNIC, wishes []plan.Wish) (l *facts.RXLayout, changed bool) {
	l = n.Layout(all, func(p *facts.RXParams, flag *bool) {
		for _, w := range wishes {
			if w.Kind != "ethtool" || w.Target != n.NIC().Subject() {
				continue
			}
			switch w.Name {
			case "flag " + n.Flag:
				*flag, changed = w.Want == "on", true
			case "rings rx":
				if ring, err := strconv.Atoi(w.Want); err == nil {
					p.Ring, changed = ring, true
				}
			}
		}
	})
	return l, changed
}

// rxAdvice is what hostcheck does not change by itself.
func rxAdvice(all *facts.RXFrag, n *facts.RXNIC) []string {
	list := []string{}
	l := n.Predicted
	if l == nil {
		return list
	}
	saves := func(change func(p *facts.RXParams)) *facts.RXLayout {
		to := n.Layout(all, func(p *facts.RXParams, _ *bool) { change(p) })
		if to == nil || to.PacketBytes*100 > l.PacketBytes*(100-rxfragWorth) {
			return nil
		}
		return to
	}
	if n.Driver == "mana" && !*n.Shares {
		list = append(list, "a kernel whose driver has fragments (6.18, or a distribution's that has them) lets packets share pages; "+
			"until then fewer queues, rings of 512, and MTU 9000 for more payload in a page")
	}
	if *n.XDP {
		if to := saves(func(p *facts.RXParams) { p.XDP = false }); to != nil {
			list = append(list, fmt.Sprintf("without its XDP program a packet takes %d bytes", to.PacketBytes))
		}
	}
	if l.Whole() && l.LargestMTU > 0 && *n.MTU > l.LargestMTU {
		if to := saves(func(p *facts.RXParams) { p.MTU = l.LargestMTU }); to != nil {
			on := n.Name
			if n.Above != "" {
				on = n.Above
			}
			list = append(list, fmt.Sprintf("with an MTU of at most %d, set on %s, %d packets share a page, and each takes %d bytes", l.LargestMTU, on, to.PerPage, to.PacketBytes))
		}
	}
	if page := int64(*all.PageSize); l.Whole() && l.PacketBytes > page {
		list = append(list, fmt.Sprintf("each packet needs %d pages in one piece: watch allocation failures when memory is fragmented", l.PacketBytes/page))
	}
	if *all.PageSize >= 16<<10 && !l.Whole() && *n.MTU < 9000 && l.LargestMTU >= 9000 {
		list = append(list, fmt.Sprintf("an MTU of 9000 is well served too, where the network has it: packets share pages up to %d", l.LargestMTU))
	}
	return list
}

// text is what a person reads before the changes.
func (a *RXFragAdvice) text(all *facts.RXFrag) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if len(a.NICs) == 0 {
		line("no interface here has a driver whose receive buffers hostcheck knows (mana, mlx5, mlx4), or a page pool")
		return b.String()
	}
	head := "receive buffers"
	if all.PageSize != nil {
		head += fmt.Sprintf(" on pages of %dK", *all.PageSize>>10)
	}
	line("%s, by each driver's rule", head)
	for _, one := range a.NICs {
		n := one.n
		about := n.Driver
		if n.MTU != nil {
			about += fmt.Sprintf(", MTU %d", *n.MTU)
		}
		if n.Queues != nil && n.Ring != nil {
			about += fmt.Sprintf(", %d queues of %d", *n.Queues, *n.Ring)
		}
		line("  %s  %s", n.NIC().Subject(), about)
		row := func(label, format string, args ...any) { line("      %-9s %s", label, fmt.Sprintf(format, args...)) }
		if one.Now == nil {
			row("now", "not known: %s", n.Unknown["predicted"])
		} else {
			row("now", "%s", layoutLine(one.Now))
		}
		if s := seen(one.Seen); s != "" {
			row("observed", "%s", s)
		}
		if one.Then != nil {
			row("then", "%s", layoutLine(one.Then))
			label, saved := savedLine(one.Now, one.Then)
			row(label, "%s", saved)
			row("takes", "%s for the new rings while the old ones are held", facts.MemName(one.Then.ChangeBytes/1024))
		}
		for _, s := range one.Advice {
			row("advice", "%s", s)
		}
	}
	return b.String()
}

// savedLine says what a change saves, or costs, in bytes.
func savedLine(now, then *facts.RXLayout) (label, text string) {
	label, packet, rings := "saves", now.PacketBytes-then.PacketBytes, now.RingBytes-then.RingBytes
	if rings < 0 {
		label, packet, rings = "costs", -packet, -rings
	}
	text = fmt.Sprintf("%s of the rings (%d bytes)", facts.MemName(rings/1024), rings)
	if packet != 0 {
		text = fmt.Sprintf("%d bytes of each packet, %s", packet, text)
	}
	return label, text
}

func layoutLine(l *facts.RXLayout) string {
	share := fmt.Sprintf("%d in a page", l.PerPage)
	switch {
	case l.Whole():
		share = "a page or more for each alone"
	case l.Spread:
		share = "in pieces that share pages"
	}
	about := ""
	if !l.Exact {
		about = "about "
	}
	return fmt.Sprintf("%s%d bytes for each packet, %s; rings of %s", about, l.PacketBytes, share, facts.MemName(l.RingBytes/1024))
}

func seen(o *facts.RXObserved) string {
	if o == nil || o.Pools == 0 {
		return ""
	}
	s := fmt.Sprintf("%d pages, %s in flight in %d page pools", o.Pages, facts.MemName(int64(min(o.Bytes, 1<<50)/1024)), o.Pools)
	if per, ok := o.PagesPerPacket(); ok {
		s += fmt.Sprintf("; %.2f pages for each packet", per)
	}
	return s
}
