// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var sysctlRPFilter = &check.Check{
	ID: "sysctl.rp_filter", Title: "Rails take packets whose way back is another rail", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `rp_filter drops a received packet when the way back to its source would not leave by the interface that it came in by (1, strict)
or by any (2, loose). Hosts with several rails in one subnet answer by one of them, so strict mode drops what comes in on the others:
ping works on the first rail alone, and TCP exchanges before RDMA connects time out.

What counts for an interface is the larger of net.ipv4.conf.all.rp_filter and its own value. So "all = 2" loosens every
interface, the one to the Internet included; it also overrides a wanted 0, which Cilium needs. The check judges the larger of the
two on the rails of the profile alone, now and as the files will set it at the next boot. What a file sets for
net.ipv4.conf.default counts for interfaces that appear later.

By hand, for one rail and for good:

    sysctl -w net.ipv4.conf.ens1np0.rp_filter=2
    echo '-net.ipv4.conf.ens1np0.rp_filter = 2' > /etc/sysctl.d/90-rails.conf

The "-" lets the interface be absent. A dot in an interface's name is written as a slash (net.ipv4.conf.eth0/100.rp_filter).

Often copied and wrong: that this governs RoCE. RDMA data never meets rp_filter. rdma_cm makes its own test, whatever rp_filter
says: it wants a route to the peer out of the very interface that the request came in by, else EHOSTUNREACH. Rails of one subnet
need arp_ignore=1 and arp_announce=2, and policy routing (a table and a rule for each rail): see rdma.subnets.`,
	Refs: []string{ipSysctlDoc, sysctlDMan},
	Run:  runRPFilter,
}

const rpFilterAll = "net.ipv4.conf.all.rp_filter"

// rpFilterOf names an interface's own parameter.
func rpFilterOf(ifname string) string {
	return facts.SysctlName("net/ipv4/conf/" + ifname + "/rp_filter")
}

func runRPFilter(_ context.Context, r *check.Run) error {
	want := r.Profile.Sysctl.RailRPFilter
	if !want.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say which modes rails may have"})
		return nil
	}
	s := r.Facts.Sysctl()
	var rails []*facts.NIC
	names := []string{rpFilterAll}
	for _, w := range selected(r) {
		if w.Rule.Rail.V && !w.NIC.VF {
			rails = append(rails, w.NIC)
			names = append(names, rpFilterOf(w.NIC.Name))
		}
	}
	s.Prefetch(names)
	all := s.Key(rpFilterAll)
	for _, n := range rails {
		own := s.Key(rpFilterOf(n.Name))
		f := check.Finding{Subject: n.Subject(), Want: "effective rp_filter " + rpModes(want.V), Source: want.Origin.String()}
		judgeRail(r, &f, &all, &own, want.V)
		if (f.Status == check.Fail || f.Status == check.Warn) && want.Origin.Assumed {
			f.Fix = nil
		}
		f.Status = atMostWarn(f.Status, want.Origin)
		r.Report(f)
	}
	return nil
}

func rpModes(list []int) string {
	words := map[int]string{0: "0 (off)", 1: "1 (strict)", 2: "2 (loose)"}
	var out []string
	for _, m := range list {
		out = append(out, words[m])
	}
	return strings.Join(out, " or ")
}

func judgeRail(r *check.Run, f *check.Finding, all, own *facts.SysctlKey, allowed []int) {
	s := r.Facts.Sysctl()
	live, ok := effectiveMode(all.Running, own.Running)
	if !ok {
		f.Status, f.Why = check.Unknown, reasons(facts.Unknown{"a": all.Unknown["running"], "b": own.Unknown["running"]}, "a", "b")
		if f.Why == "" {
			f.Why = own.Path() + ": not a number"
		}
		return
	}
	f.Got = fmt.Sprintf("effective %d: all %s, own %s", live, *all.Running, *own.Running)
	f.Evidence = []check.Evidence{{Source: all.Path(), Value: *all.Running}, {Source: own.Path(), Value: *own.Running}}
	next, from, known := railAtBoot(s, all, own)
	f.Truth = &check.Truth{Live: strconv.Itoa(live)}
	if known {
		f.Truth.Configured, f.Truth.NextBoot = strconv.Itoa(next), strconv.Itoa(next)
		f.Evidence = append(f.Evidence, from...)
	}
	switch {
	case !slices.Contains(allowed, live):
		f.Status = check.Fail
		f.Why = "packets whose way back leaves by another interface are dropped here; of several rails in one subnet only one then works for TCP and ping"
	case known && !slices.Contains(allowed, next):
		f.Status = check.Fail
		f.Got += fmt.Sprintf("; the next boot makes it %d", next)
		f.Why = "the mode was set at run time alone, and the files say otherwise"
	default:
		f.Status = check.Pass
		f.Truth = nil
		return
	}
	value, ok := railMode(s, all, own, live, allowed)
	if !ok {
		f.Next = fmt.Sprintf("lower %s first, which every interface obeys: find who sets it (%s)", rpFilterAll, decided(s, all))
		return
	}
	v := strconv.Itoa(value)
	f.Next = setByHand(s, own, v)
	f.Fix = []plan.Wish{{Setting: plan.Setting{Kind: "sysctl", Name: own.Name}, Got: *own.Running, Want: v, Tier: plan.Safe,
		Why: "a rail must take packets whose way back is another rail"}}
}

func decided(s *facts.Sysctl, k *facts.SysctlKey) string {
	if a := s.AtBoot(k); a != nil {
		return a.At()
	}
	return "no file does"
}

func effectiveMode(all, own *string) (int, bool) {
	if all == nil || own == nil {
		return 0, false
	}
	a, err1 := strconv.Atoi(*all)
	b, err2 := strconv.Atoi(*own)
	return max(a, b), err1 == nil && err2 == nil
}

// railAtBoot is the effective mode after the next boot: an interface without
// a line of its own starts with net.ipv4.conf.default; the kernel's own value
// of all is 0.
func railAtBoot(s *facts.Sysctl, all, own *facts.SysctlKey) (mode int, from []check.Evidence, known bool) {
	if !all.Known() {
		return 0, nil, false
	}
	zero := "0"
	of := func(k *facts.SysctlKey) *string {
		a := s.AtBoot(k)
		if a == nil {
			return nil
		}
		from = append(from, check.Evidence{Source: a.At(), Value: k.Name + " = " + a.Value})
		return &a.Value
	}
	a, b := of(all), of(own)
	if b == nil {
		def := s.Key("net.ipv4.conf.default.rp_filter")
		b = of(&def)
	}
	if a == nil {
		a = &zero
	}
	if b == nil {
		b = &zero
	}
	mode, known = effectiveMode(a, b)
	return mode, from, known
}

// railMode is the value of the rail's own parameter that makes the effective
// one right now and at the next boot, whatever all says.
func railMode(s *facts.Sysctl, all, own *facts.SysctlKey, live int, allowed []int) (int, bool) {
	floor, _ := strconv.Atoi(*all.Running)
	if a := s.AtBoot(all); a != nil {
		n, _ := strconv.Atoi(a.Value)
		floor = max(floor, n)
	}
	for _, m := range append([]int{live, 2}, allowed...) {
		if m >= floor && slices.Contains(allowed, m) {
			return m, true
		}
	}
	return 0, false
}
