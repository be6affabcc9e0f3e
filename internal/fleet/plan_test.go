// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// sick is a report with findings that fail: "check subject tier", tier "none"
// for no fix. what else it says is in the arguments: "name", "at", "exit".
type sick struct {
	name, at, kernel, boot string
	profile, intent        string // "": "p", "guest"
	exit                   int
	findings               []string // "STATUS CHECK SUBJECT TIER"; "-" is no subject, no tier
}

func (s sick) json(t testing.TB) []byte {
	t.Helper()
	counts := map[string]int{"pass": 0, "warn": 0, "fail": 0, "skip": 0, "unknown": 0, "error": 0, "waived": 0, "pending": 0, "exit": s.exit}
	all := []map[string]any{}
	for _, line := range append([]string{"pass system.clocksource - -"}, s.findings...) {
		w := strings.Fields(line)
		f := map[string]any{"check": w[1], "subject": strings.Trim(w[2], "-"), "status": w[0], "pending": w[0] == "pending", "waiver": nil, "fix": []any{}}
		switch w[0] {
		case "pending":
			f["status"] = "fail"
		case "unknown+pending":
			f["status"], f["pending"] = "unknown", true
			counts["unknown"]++
			counts[w[0]]--
		case "waived":
			f["status"], f["waiver"] = "fail", map[string]string{"owner": "ops"}
		}
		if w[3] != "-" {
			f["fix"] = []any{map[string]string{"kind": "sysctl", "tier": w[3]}}
		}
		counts[w[0]]++
		all = append(all, f)
	}
	kernel := s.kernel
	if kernel == "" {
		kernel = "6.12"
	}
	at := any(s.at)
	if s.at == "" {
		at = "2026-11-02T08:00:00Z"
	}
	if s.at == "never" {
		at = nil
	}
	profile := map[string]string{"hash": cmp.Or(s.profile, "p"), "intent": cmp.Or(s.intent, "guest")}
	b, err := json.Marshal(map[string]any{
		"schema": reportSchema, "tool": map[string]string{}, "host": map[string]any{"name": s.name, "kernel": kernel, "arch": "amd64", "captured_at": at, "boot_id": s.boot},
		"profile": profile, "summary": counts, "findings": all,
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func fraction(t testing.TB, s string) Fraction {
	t.Helper()
	f, err := ParseFraction(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// now is a time after all reports but those of a time to come.
var now = time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)

// made plans from reports and those that came back.
func made(t testing.TB, o PlanOptions, before, done []sick) *Plan {
	t.Helper()
	o.Now = now
	p := NewPlanner(o)
	var b, d bytes.Buffer
	for _, s := range before {
		b.Write(s.json(t))
	}
	for _, s := range done {
		d.Write(s.json(t))
	}
	p.Read("before", &b)
	if done != nil {
		p.Done("done", &d)
	}
	out, err := p.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseFraction(t *testing.T) {
	for in, want := range map[string]string{"0.05": "0.05", "5%": "0.05", "100%": "1", "1": "1", "0.29": "0.29", "33.34%": "0.3334", ".5": "0.5", " 7% ": "0.07"} {
		f, err := ParseFraction(in)
		if err != nil || f.String() != want {
			t.Errorf("%q: %q, %v", in, f.String(), err)
		}
	}
	for _, in := range []string{"", "0", "0%", "101%", "1.01", "-5%", "5%%", "1e-2", "1/3", "1e999999999", "0x1", "..", "5 %", strings.Repeat("1", 1000), "NaN"} {
		if f, err := ParseFraction(in); err == nil {
			t.Errorf("%q was taken as %v", in, f)
		}
	}
	if n := fraction(t, "0.29").Of(100); n != 29 {
		t.Errorf("0.29 of 100 is %d", n)
	}
	// what a refusal names is one host, of any number
	for n := 1; n < 3*MaxHosts; n += 1 + n/5000*7 {
		if got := fraction(t, least(n)).Of(n); got != 1 {
			t.Errorf("%s of %d hosts is %d", least(n), n, got)
		}
	}
}

// fleetOf makes hosts of several kinds in racks, some of them not to be planned.
func fleetOf(n int, r *rand.Rand) (hosts []sick, labels map[string]map[string]string) {
	labels = map[string]map[string]string{}
	for i := range n {
		s := sick{name: fmt.Sprintf("n%d", i), kernel: []string{"6.1", "6.12"}[r.IntN(2)]}
		switch r.IntN(8) {
		case 0: // fit
		case 1:
			s.exit = 3
		case 2:
			s.exit, s.findings = 1, []string{"fail pcie.link 0000:18:00.0 -"}
		case 3:
			s.exit, s.findings = 1, []string{"fail hugepages.pool node0 boot"}
		case 4:
			s.exit, s.findings = 1, []string{"fail sysctl.backlog - safe", "fail link.rings eth0 link"}
		default:
			s.exit, s.findings = 1, []string{"fail sysctl.backlog - safe"}
		}
		hosts = append(hosts, s)
		if r.IntN(20) > 0 {
			labels[s.name] = map[string]string{"rack": fmt.Sprint(i % max(1, n/20))}
		}
	}
	return hosts, labels
}

// Whatever the fleet: no batch is over a cap, no group is, each host that needs a
// fix stands in one batch and no other host in any, canaries cover all kinds
// before anything else, batches at most double.
func TestPlanCaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		n := 1 + r.IntN(300)
		hosts, labels := fleetOf(n, r)
		o := PlanOptions{MaxHosts: 1 + r.IntN(20), MaxFraction: fraction(t, []string{"1", "50%", "0.1", "7%"}[r.IntN(4)]), Labels: labels}
		if r.IntN(2) == 0 {
			o.Spread = "rack"
		}
		if r.IntN(2) == 0 {
			o.Allow = []plan.Tier{plan.Link}
		}
		if o.MaxFraction.Of(n) == 0 {
			continue
		}
		p := made(t, o, hosts, nil)
		sizes := map[string]int{}
		byName := map[string]sick{}
		needs := 0
		for _, h := range hosts {
			byName[h.name] = h
			sizes[labels[h.name]["rack"]]++
			if h.exit == 1 && slices.ContainsFunc(h.findings, func(f string) bool {
				return strings.HasSuffix(f, " safe") || o.Allow != nil && strings.HasSuffix(f, " link")
			}) {
				needs++
			}
		}
		seen := map[string]bool{}
		kinds, canaries := map[string]bool{}, map[string]bool{}
		size := 0
		for k, b := range p.Batches {
			racks := map[string]int{}
			here := 0
			for _, s := range b.Steps {
				if !slices.Equal(Unfold(s.Hosts), s.Names) && len(Unfold(s.Hosts)) != len(s.Names) {
					t.Errorf("%s is not %v", s.Hosts, s.Names)
				}
				for _, name := range s.Names {
					if seen[name] {
						t.Errorf("%s stands in two places", name)
					}
					seen[name] = true
					racks[labels[name]["rack"]]++
					here++
					kind := byName[name].kernel + fmt.Sprint(byName[name].findings)
					kinds[kind] = true
					if b.Canary {
						if canaries[kind] {
							t.Errorf("two canaries of kind %s", kind)
						}
						canaries[kind] = true
					}
				}
			}
			if here != b.N || here == 0 || here > o.MaxHosts || here > o.MaxFraction.Of(n) || b.Number != k+1 {
				t.Errorf("batch %d of %d has %d hosts, %d said; caps %d and %s of %d", b.Number, len(p.Batches), here, b.N, o.MaxHosts, o.MaxFraction, n)
			}
			if !b.Canary {
				if size > 0 && here > 2*size {
					t.Errorf("batch %d has %d hosts after one of %d", b.Number, here, size)
				}
				size = max(size, here)
			}
			for rack, k := range racks {
				if o.Spread != "" && k > max(1, o.MaxFraction.Of(sizes[rack])) {
					t.Errorf("batch %d has %d of %d hosts of rack %q", b.Number, k, sizes[rack], rack)
				}
			}
		}
		if len(seen) != needs || p.Summary.Planned != needs || len(kinds) != len(canaries) {
			t.Errorf("%d hosts in batches, %d need a fix; %d kinds, %d canaries", len(seen), needs, len(kinds), len(canaries))
		}
		if s := p.Summary; s.Planned+s.Fit+s.LeftOut != n || s.Hosts != n {
			t.Errorf("%+v of %d hosts", s, n)
		}
		// the order of the reports does not matter
		mixed := slices.Clone(hosts)
		r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if q := made(t, o, mixed, nil); q.Hash != p.Hash {
			t.Error("the same reports in another order give another plan")
		}
	}
}

// Every batch is given when all before it are done, and one failure or one host
// that does not report stops everything.
func TestPlanStops(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	hosts, _ := fleetOf(60, r)
	o := PlanOptions{MaxHosts: 8, MaxFraction: fraction(t, "1")}
	first := made(t, o, hosts, nil)
	if len(first.Batches) < 4 {
		t.Fatalf("only %d batches", len(first.Batches))
	}
	later := func(name string) sick {
		s := hosts[slices.IndexFunc(hosts, func(s sick) bool { return s.name == name })]
		s.at, s.findings = "2026-11-02T09:00:00Z", slices.Clone(s.findings)
		for i, f := range s.findings {
			if strings.HasPrefix(f, "fail sysctl.backlog ") {
				s.findings[i] = "pass sysctl.backlog - -"
			}
		}
		return s
	}
	var done []sick
	for k, b := range first.Batches {
		p := made(t, o, hosts, done)
		if p.State != PlanNext || p.Next == nil || *p.Next != k+1 || p.Summary.Exit != 1 || p.Hash != first.Hash {
			t.Fatalf("after %d batches: %s %v, exit %d, %s", k, p.State, p.Next, p.Summary.Exit, p.Why)
		}
		var names []string
		for _, s := range b.Steps {
			names = append(names, s.Names...)
		}
		for _, i := range []int{0, len(names) - 1} {
			for what, bad := range map[string]sick{
				"failed":   {name: names[i], at: "2026-11-02T09:00:00Z", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
				"unjudged": {name: names[i], at: "2026-11-02T09:00:00Z", exit: 3, findings: []string{"pass sysctl.backlog - -"}},
				"stale":    {name: names[i], findings: []string{"pass sysctl.backlog - -"}},
				"missing":  {name: "elsewhere", at: "2026-11-02T09:00:00Z"},
			} {
				got := append(slices.Clone(done), bad)
				for _, other := range names {
					if other != names[i] {
						got = append(got, later(other))
					}
				}
				p := made(t, o, hosts, got)
				if len(names) == 1 && what == "missing" { // as if it had not been run
					continue
				}
				want := map[string]int{"failed": 4}[what]
				if want == 0 {
					want = 3
				}
				if p.Next != nil || p.Summary.Exit != want || len(p.Holding) != 1 || p.Holding[0].Host != names[i] || p.Holding[0].State != what {
					t.Errorf("batch %d, %s %s: %s, exit %d, %+v", k+1, names[i], what, p.State, p.Summary.Exit, p.Holding)
				}
			}
		}
		for _, name := range names {
			done = append(done, later(name))
		}
	}
	p := made(t, o, hosts, done)
	// hosts that were never judged stay so
	if p.State != PlanComplete || p.Next != nil || p.Summary.Exit != 3 || p.Summary.Done != first.Summary.Planned || p.Summary.Unjudged == 0 {
		t.Errorf("at the end: %s, %+v", p.State, p.Summary)
	}
}

// What a new report says of the fix.
func TestPlanJudges(t *testing.T) {
	before := sick{name: "a", exit: 1, findings: []string{"fail sysctl.backlog - safe", "fail pcie.link 0000:18:00.0 -", "unknown acs.redirect 0000:17:00.0 -", "warn link.fec eth0 safe"}}
	o := PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")}
	for _, c := range []struct {
		name     string
		exit     int
		findings []string
		want     string // state of the plan
		code     int
		why      string
	}{
		{"fit", 0, []string{"pass sysctl.backlog - -", "pass link.fec eth0 -", "pass pcie.link 0000:18:00.0 -", "pass acs.redirect 0000:17:00.0 -"}, PlanComplete, 0, ""},
		{"what failed before may fail", 1, []string{"pass sysctl.backlog - -", "pass link.fec eth0 -", "fail pcie.link 0000:18:00.0 -"}, PlanComplete, 0, ""},
		{"pending", 10, []string{"pending sysctl.backlog - -", "pass link.fec eth0 -"}, PlanComplete, 10, ""},
		{"waived since", 0, []string{"waived sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, "sysctl.backlog was waived since: a waiver does not make it done"},
		{"still fails", 1, []string{"fail sysctl.backlog - safe", "pass link.fec eth0 -"}, PlanStopped, 4, `sysctl.backlog is "fail"`},
		{"a warning that was to go", 0, []string{"pass sysctl.backlog - -", "warn link.fec eth0 safe"}, PlanStopped, 4, `link.fec eth0 is "warn"`},
		{"no longer known", 0, []string{"unknown sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, `sysctl.backlog was to be fixed and is "unknown"`},
		{"another failure", 1, []string{"pass sysctl.backlog - -", "pass link.fec eth0 -", "fail link.carrier eth0 -"}, PlanStopped, 4, `link.carrier eth0 did not fail before and is now "fail"`},
		{"the same check elsewhere", 1, []string{"pass sysctl.backlog - -", "pass link.fec eth0 -", "fail pcie.link 0000:9a:00.0 -"}, PlanStopped, 4, "pcie.link 0000:9a:00.0 did not fail before"},
		{"not judged", 0, []string{"pass link.fec eth0 -"}, PlanWaiting, 3, "its report does not say what sysctl.backlog came to"},
		{"in error", 0, []string{"error sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, `sysctl.backlog was to be fixed and is "error"`},
		{"skipped", 0, []string{"skip sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, `sysctl.backlog was to be fixed and is "skip"`},
		{"its device is gone", 0, []string{"pass sysctl.backlog - -", "skip link.fec - -"}, PlanWaiting, 3, "its report does not say what link.fec came to"},
		{"unknown and pending", 0, []string{"unknown+pending sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, `sysctl.backlog was to be fixed and is "unknown"`},
		{"its subject is gone and others are open", 0, []string{"pass sysctl.backlog - -", "unknown link.fec eth1 -"}, PlanWaiting, 3, "could not be judged"},
		{"its subject has another name", 0, []string{"pass sysctl.backlog all -", "pass link.fec eth9 -"}, PlanComplete, 0, ""},
		{"interrupted", 130, []string{"pass sysctl.backlog - -", "pass link.fec eth0 -"}, PlanWaiting, 3, "could not be judged"},
	} {
		for _, f := range before.findings { // what was judged before and is beside the point
			id := strings.Fields(f)[1]
			if !strings.HasPrefix(id, "sysctl.") && !strings.HasPrefix(id, "link.") && !strings.Contains(fmt.Sprint(c.findings), id) {
				c.findings = append(c.findings, strings.Replace(f, "fail", "pass", 1))
			}
		}
		p := made(t, o, []sick{before}, []sick{{name: "a", at: "2026-11-02T09:00:00Z", exit: c.exit, findings: c.findings}})
		text := p.Why + fmt.Sprint(p.Holding)
		if p.State != c.want || p.Summary.Exit != c.code || !strings.Contains(text, c.why) {
			t.Errorf("%s: %s, exit %d: %s", c.name, p.State, p.Summary.Exit, text)
		}
		if stays := p.Batches[0].Steps[0].Stays; !slices.Equal(stays, []string{"pcie.link"}) {
			t.Errorf("stays: %v", stays)
		}
	}
}

// What was judged before has to be judged again, by the same profile.
func TestPlanJudgesTheRest(t *testing.T) {
	findings := []string{"fail sysctl.backlog - safe", "pass link.mtu eth0 -", "pass link.mtu eth1 -", "pass link.fec eth0 -", "pass link.fec eth1 -",
		"unknown acs.redirect x -", "pass acs.redirect y -", "skip dcqcn.np - -", "fail pcie.link eth1 -", "pass pcie.link eth0 -"}
	o := PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1"), FailOn: check.Fail}
	for _, c := range []struct {
		change []string // old, new: of the findings after the fix
		sick   sick
		why    string
	}{
		{nil, sick{}, ""},
		{[]string{"pass link.mtu eth1 -", "unknown link.mtu eth1 -"}, sick{}, `link.mtu eth1 passed before and is now "unknown"`},
		{[]string{"pass link.mtu eth1 -", "skip link.mtu eth1 -"}, sick{}, `link.mtu eth1 passed before and is now "skip"`},
		{[]string{"pass link.mtu eth0 -", "error link.mtu - -", "pass link.fec eth0 -", "error link.fec - -"}, sick{}, `link.fec passed before and is now "error"; and so for 1 more check`},
		{[]string{"pass link.mtu eth0 -", "", "pass link.mtu eth1 -", "skip link.mtu - -"}, sick{}, "link.mtu passed before and judges nothing now"},
		{[]string{"pass link.mtu eth1 -", "", "pass link.fec eth1 -", "", "fail pcie.link eth1 -", ""}, sick{}, "its report says nothing of eth1, which passed before"},
		{[]string{"pass link.fec eth0 -", "", "pass link.fec eth1 -", ""}, sick{}, "its report says nothing of link.fec, which the one before did"},
		{[]string{"skip dcqcn.np - -", ""}, sick{}, "its report says nothing of dcqcn.np, which the one before did"},
		{[]string{"skip dcqcn.np - -", "unknown dcqcn.np - -"}, sick{}, ""},
		{[]string{"pass link.mtu eth1 -", "pending link.mtu eth1 boot"}, sick{}, ""},
		{[]string{"unknown acs.redirect x -", "unknown acs.redirect z -"}, sick{}, ""},
		{[]string{"unknown acs.redirect x -", "skip acs.redirect x -"}, sick{}, ""},
		{nil, sick{profile: "q"}, "it was judged by another profile or intent than the one it was planned from"},
		{nil, sick{intent: "baremetal"}, "it was judged by another profile or intent than the one it was planned from"},
	} {
		after := strings.Join(findings, "\n")
		after = strings.Replace(after, "fail sysctl.backlog - safe", "pass sysctl.backlog - -", 1)
		after = strings.NewReplacer(c.change...).Replace(after)
		s := c.sick
		s.name, s.at, s.exit = "a", "2026-11-02T09:00:00Z", 1
		for _, f := range strings.Split(after, "\n") {
			if f != "" {
				s.findings = append(s.findings, f)
			}
		}
		p := made(t, o, []sick{{name: "a", exit: 1, findings: findings}}, []sick{s})
		switch {
		case c.why == "" && p.State == PlanComplete:
		case c.why != "" && p.State == PlanWaiting && p.Summary.Exit == 3 && len(p.Holding) == 1 && p.Holding[0].State == "unjudged" && strings.HasPrefix(p.Holding[0].Why, c.why):
		default:
			t.Errorf("%v %+v: %s, exit %d: %v; want %q", c.change, c.sick, p.State, p.Summary.Exit, p.Holding, c.why)
		}
	}
}

// Of several reports of a host that came back it does not matter which is read
// first, and none of a time to come makes it fit.
func TestPlanJudgesInAnyOrder(t *testing.T) {
	before := []sick{{name: "a", boot: "A", exit: 1, findings: []string{"fail sysctl.backlog - safe"}}}
	of := func(boot string, s sick) sick {
		s.boot = boot
		return s
	}
	at := func(at string, exit int, finding string) sick {
		return sick{name: "a", at: at, exit: exit, findings: []string{finding}}
	}
	const nine, ten, late = "2026-11-02T09:00:00Z", "2026-11-02T10:00:00Z", "2099-01-01T00:00:00Z"
	fit := func(when string) sick { return at(when, 0, "pass sysctl.backlog - -") }
	fails := func(when string) sick { return at(when, 1, "fail sysctl.backlog - safe") }
	for _, c := range []struct {
		done []sick
		want string
		code int
		why  string
	}{
		{[]sick{at(nine, 3, "pass sysctl.backlog - -"), fails(nine), fit(nine)}, PlanStopped, 4, `is "fail"`},
		{[]sick{fit(nine), fit(nine)}, PlanComplete, 0, ""},
		{[]sick{fit(nine), at(nine, 10, "pending sysctl.backlog - boot")}, PlanWaiting, 3, "sampled at the same time, says something else"},
		// which of two hosts of one name a command reached is not known
		{[]sick{of("B", at(nine, 3, "unknown sysctl.backlog - -")), of("C", fit("2026-11-02T09:00:05Z"))}, PlanWaiting, 3, "two hosts have this name"},
		{[]sick{of("B", fails(nine)), of("C", fit("2026-11-02T09:00:05Z"))}, PlanStopped, 4, `is "fail"`},
		{[]sick{of("B", fit(nine)), of("C", fit("2026-11-02T09:00:05Z"))}, PlanWaiting, 3, "two hosts have this name"},
		{[]sick{of("B", fit(nine)), of("A", fit(ten))}, PlanWaiting, 3, "two hosts have this name"},
		{[]sick{of("B", fit("2026-11-02T08:00:05Z"))}, PlanWaiting, 3, "two hosts have this name"},
		{[]sick{of("A", fit(nine)), of("B", fit(ten))}, PlanComplete, 0, ""}, // a reboot
		{[]sick{of("B", fit(nine))}, PlanComplete, 0, ""},
		{[]sick{fit("never"), fit(nine)}, PlanWaiting, 3, "has no time that can be believed"},
		{[]sick{fit("never")}, PlanWaiting, 3, "stale: its report is not newer"},
		{[]sick{fails(nine), fit(ten)}, PlanComplete, 0, ""},
		{[]sick{fails(""), fit(nine)}, PlanComplete, 0, ""},
		{[]sick{fit(late)}, PlanWaiting, 3, "made at 2099-01-01T00:00:00Z, which is to come"},
		{[]sick{fit(late), fit(nine)}, PlanWaiting, 3, "which is to come"},
		{[]sick{fit(late), fails(nine)}, PlanStopped, 4, `is "fail"`},
		{[]sick{fit("2026-11-03T00:05:00Z")}, PlanComplete, 0, ""}, // clocks differ by a little
		{[]sick{fit("2026-11-02T07:00:00Z")}, PlanWaiting, 3, "stale: its report is not newer than the one it was planned from"},
	} {
		for i := range c.done {
			order := slices.Concat(c.done[i:], c.done[:i])
			for range 2 {
				p := made(t, PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")}, before, order)
				if text := fmt.Sprint(p.Holding); p.State != c.want || p.Summary.Exit != c.code || !strings.Contains(text, c.why) {
					t.Errorf("%v: %s, exit %d: %s", order, p.State, p.Summary.Exit, text)
				}
				slices.Reverse(order)
			}
		}
	}
	// nor is it planned from one
	p := made(t, PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")}, append(before, fit(late)), nil)
	if p.State != PlanNext || len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Why, "which is to come") || p.Summary.Problems != 1 {
		t.Errorf("%s, %v", p.State, p.Problems)
	}
}

// Whatever comes back under one name: its order does not matter, and a host is done
// only where none of its newest reports says otherwise and all can be its own.
func TestPlanJudgesAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	before := []sick{{name: "a", boot: "A", exit: 1, findings: []string{"fail sysctl.backlog - safe"}}}
	verdicts := map[int]string{0: "pass sysctl.backlog - -", 1: "fail sysctl.backlog - safe", 3: "unknown sysctl.backlog - -", 10: "pending sysctl.backlog - boot"}
	codes := []int{0, 0, 0, 1, 3, 10}
	times := []string{"2026-11-02T07:00:00Z", "2026-11-02T08:00:00Z", "2026-11-02T08:00:05Z", "2026-11-02T09:00:00Z", "2026-11-02T09:00:05Z", "2026-11-02T10:00:00Z", "never", "2099-01-01T00:00:00Z"}
	complete := 0
	for range 3000 {
		var done []sick
		for range 1 + r.IntN(4) {
			code := codes[r.IntN(len(codes))]
			done = append(done, sick{name: "a", at: times[r.IntN(len(times))], boot: []string{"", "A", "B", "C"}[r.IntN(4)], exit: code, findings: []string{verdicts[code]}})
		}
		o := PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")}
		first := made(t, o, before, done)
		for range 3 {
			r.Shuffle(len(done), func(i, j int) { done[i], done[j] = done[j], done[i] })
			if p := made(t, o, before, done); p.State != first.State || p.Summary != first.Summary || fmt.Sprint(p.Holding) != fmt.Sprint(first.Holding) {
				t.Fatalf("%+v: %s %+v, and in another order %s %+v", done, first.State, first.Holding, p.State, p.Holding)
			}
		}
		if first.State != PlanComplete {
			continue
		}
		complete++
		newest := slices.MaxFunc(done, func(a, b sick) int { return strings.Compare(a.at, b.at) }) // "never" is the greatest
		last := map[string]string{"A": "2026-11-02T08:00:00Z"}
		for _, s := range done {
			if s.at == newest.at && s.exit != 0 && s.exit != 10 || s.at == "never" && s.at != newest.at || s.at > "2026-11-03" && s.at != "never" {
				t.Fatalf("done in spite of %+v", s)
			}
			if s.boot != "" && s.at > last[s.boot] {
				last[s.boot] = s.at
			}
		}
		for a, at := range last {
			for b, bt := range last {
				d := stamp(&at).Sub(stamp(&bt))
				if a != b && -apart < d && d < apart {
					t.Fatalf("done with two boots at %s and %s: %+v", at, bt, done)
				}
			}
		}
	}
	if complete < 100 {
		t.Errorf("only %d were done", complete)
	}
}

// A host that waits for its next boot is not done, whoever made it wait.
func TestPlanWaitsForBoot(t *testing.T) {
	o := PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")}
	waits := sick{name: "b", exit: 10, findings: []string{"pending cmdline.required iommu=pt -"}}
	p := made(t, o, []sick{{name: "a"}, waits}, nil)
	if p.State != PlanComplete || p.Summary.Exit != 10 || p.Summary.Pending != 1 {
		t.Errorf("%s, %+v", p.State, p.Summary)
	}
	p = made(t, o, []sick{{name: "a", exit: 1, findings: []string{"fail sysctl.backlog - safe"}}, waits}, nil)
	if p.State != PlanNext || p.Summary.Exit != 1 {
		t.Errorf("%s, %+v", p.State, p.Summary)
	}
}

// Who is left out, and why; and what is run on the others.
func TestPlanLeavesOut(t *testing.T) {
	hosts := []sick{
		{name: "fit"},
		{name: "blind", exit: 3},
		{name: "cut", exit: 130, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "broken", exit: 1, findings: []string{"fail pcie.link 0000:18:00.0 -", "fail link.mtu eth0 firmware"}},
		{name: "boot", exit: 1, findings: []string{"fail hugepages.pool node0 boot"}},
		{name: "waived", findings: []string{"waived sysctl.backlog - safe"}},
		{name: "pending", exit: 10, findings: []string{"pending cmdline.required iommu=pt -"}},
		{name: "timeless", at: "never", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "twin", boot: "1", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "twin", boot: "2", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "double", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "double", findings: []string{"pass sysctl.backlog - -"}},
		{name: "copied"},
		{name: "copied"},
		{name: "again", at: "2026-11-02T07:00:00Z", exit: 1, findings: []string{"fail sysctl.backlog - safe"}},
		{name: "again", at: "2026-11-02T07:30:00Z"},
		{name: "skipped", exit: 1, findings: []string{"fail irq.local eth0 safe"}},
		{name: "todo", exit: 1, findings: []string{"warn sysctl.backlog - safe", "fail link.rings eth0 link"}},
	}
	o := PlanOptions{MaxHosts: 9, MaxFraction: fraction(t, "1"), Allow: []plan.Tier{plan.Link}, Judged: []string{"--profile", "site"},
		Selected: func(id string) bool { return id != "irq.local" }}
	p := made(t, o, hosts, nil)
	why := map[string]string{}
	for _, l := range p.LeftOut {
		for _, name := range Unfold(l.Hosts) {
			why[name] = l.Why
		}
	}
	for name, want := range map[string]string{
		"blind": "what its profile requires could not be judged", "cut": "its run was interrupted",
		"broken": "hostcheck has no fix for link.mtu, pcie.link", "boot": "it needs --allow boot for hugepages.pool",
		"waived": "somebody waived sysctl.backlog", "pending": "it waits for its next boot", "timeless": "does not say when it was made",
		"twin": "two hosts have this name", "double": "several reports of it contradict each other", "skipped": "--only and --skip",
	} {
		if !strings.Contains(why[name], want) {
			t.Errorf("%s: %q", name, why[name])
		}
		delete(why, name)
	}
	if len(why) > 0 || p.Summary.Fit != 3 || p.Summary.Planned != 1 || p.Summary.Unjudged != 4 || p.Summary.Failing != 4 || len(p.Problems) != 4 {
		t.Errorf("also left out %v; %+v, %v", why, p.Summary, p.Problems)
	}
	want := "hostcheck --fix --yes --allow link --confirm auto --profile site link.rings sysctl.backlog"
	if s := p.Batches[0].Steps[0]; strings.Join(s.Command, " ") != want || s.Hosts != "todo" {
		t.Errorf("%v on %s", s.Command, s.Hosts)
	}
}

// Of several reports of a host it is planned from the newest, in whatever order
// they come, and from none where that is not known or it is another host's.
func TestPlanFromOneReport(t *testing.T) {
	fails := func(at, boot string) string {
		return string(sick{name: "a", at: at, boot: boot, exit: 1, findings: []string{"fail sysctl.backlog - safe"}}.json(t))
	}
	fit := func(at, boot string) string { return string(sick{name: "a", at: at, boot: boot}.json(t)) }
	const eight, nine, ten = "2026-11-02T08:00:00Z", "2026-11-02T09:00:00Z", "2026-11-02T10:00:00Z"
	for _, c := range []struct {
		reports []string
		want    PlanSummary
	}{
		{[]string{fails(eight, "a"), fit(nine, "a")}, PlanSummary{Hosts: 1, Fit: 1}},
		{[]string{fit(eight, "a"), fails(nine, "b")}, PlanSummary{Hosts: 1, Planned: 1, Exit: 1}},
		{[]string{fit(eight, "a"), fails(nine, "b"), fit(ten, "a")}, PlanSummary{Hosts: 1, LeftOut: 1, Unjudged: 1, Problems: 1, Exit: 3}},
		{[]string{fit(eight, "a"), fails(eight, "a"), fit(nine, "a")}, PlanSummary{Hosts: 1, Fit: 1}},
		{[]string{fit(eight, "a"), fails("never", "a")}, PlanSummary{Hosts: 1, LeftOut: 1, Unjudged: 1, Problems: 1, Exit: 3}},
		{[]string{fails(eight, "a"), "b: " + fit(nine, "a")}, PlanSummary{Hosts: 1, Planned: 1, Problems: 1, Exit: 1}},
		{[]string{fails(eight, "a"), "a: " + fit(nine, "a")}, PlanSummary{Hosts: 1, Fit: 1}},
	} {
		for i := range c.reports {
			p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1"), Now: now})
			p.Read("r", strings.NewReader(strings.Join(slices.Concat(c.reports[i:], c.reports[:i]), "")))
			out, err := p.Plan()
			if err != nil {
				t.Fatal(err)
			}
			if out.Summary != c.want {
				t.Errorf("from %q: %+v, want %+v; %v", c.reports, out.Summary, c.want, out.Problems)
			}
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		hosts, max int
		part, want string
	}{
		{0, 1, "1", "no usable report"},
		{12, 5, "5%", "less than one host, and a cap is never rounded up; for one at a time give --max-fraction 8.34%"},
	} {
		p := NewPlanner(PlanOptions{MaxHosts: c.max, MaxFraction: fraction(t, c.part)})
		for i := range c.hosts {
			p.Read("r", bytes.NewReader(sick{name: fmt.Sprint("n", i)}.json(t)))
		}
		if _, err := p.Plan(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d hosts, %s: %v", c.hosts, c.part, err)
		}
	}
	for text, want := range map[string]string{
		`{"schema":"hostcheck.fleet/v1"}`: "no usable report to plan from; r:1: it is a merge, not a report",
		"node7: Connection refused\n":     `no usable report to plan from; r:1: it is no report: it begins with "node7: Connection refused"`,
		"":                                "no usable report to plan from; r: it is empty",
	} {
		p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")})
		p.Read("r", strings.NewReader(text))
		if _, err := p.Plan(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1"), FailOn: check.Fail})
	p.memory = 1 << 20
	for i := range 5 {
		s := sick{name: fmt.Sprint("n", i), exit: 1}
		for k := range 300 {
			s.findings = append(s.findings, fmt.Sprintf("fail link.speed %d-%d-%s -", i, k, strings.Repeat("x", 1000)))
		}
		p.Read("r", bytes.NewReader(s.json(t)))
	}
	if _, err := p.Plan(); err == nil || !strings.Contains(err.Error(), "plan for a part of the fleet at a time") || p.used > 4*p.memory {
		t.Errorf("%d bytes kept: %v", p.used, err)
	}
}

func FuzzPlanReport(f *testing.F) {
	good := sick{name: "a", exit: 1, findings: []string{"fail sysctl.backlog - safe", "waived link.mtu eth0 -", "pending link.fec eth0 boot"}}.json(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"schema":"hostcheck.report/v1","host":{"name":"-x"},"profile":{},"summary":{"exit":0},"findings":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1"), Allow: []plan.Tier{plan.Boot}})
		p.Read("f", bytes.NewReader(b))
		p.Done("f", bytes.NewReader(b))
		out, err := p.Plan()
		if err != nil {
			return
		}
		n := 0
		for _, b := range out.Batches {
			if b.N != 1 {
				t.Errorf("a batch of %d hosts", b.N)
			}
			n += b.N
			for _, w := range b.Steps[0].Command[3:] {
				if strings.HasPrefix(w, "-") && w != "--allow" {
					t.Errorf("a report put %q on a command line", w)
				}
			}
		}
		if s := out.Summary; n != s.Planned || s.Planned+s.Fit+s.LeftOut != s.Hosts || s.Done > 0 {
			t.Errorf("%+v", s)
		}
	})
}
