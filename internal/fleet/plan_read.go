// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Bounds of what is kept of reports for a plan.
const (
	maxOpen   = 4096     // findings of one host that fail or warn
	planTexts = 64 << 20 // bytes of different names of checks, subjects, kernels and profiles
)

// planReport is what a plan reads of a report.
type planReport struct {
	head
	findings []*planFinding
}

// planFinding is what a plan reads of a finding.
type planFinding struct {
	Check, Subject, Got, Why string
	Status                   check.Status
	Pending                  bool
	Waiver                   *struct{}
	Fix                      tierSet
}

// tierSet is the tiers of the changes of a finding, each once, for there may be
// millions of them.
type tierSet []plan.Tier

// UnmarshalJSON implements [json.Unmarshaler].
func (t *tierSet) UnmarshalJSON(b []byte) error {
	*t = nil
	var c struct{ Tier plan.Tier }
	err := each(b, func(i int) (int, error) {
		end, err := extent(b, i)
		if err != nil {
			return i, err
		}
		c.Tier = ""
		if err := json.Unmarshal(b[i:end], &c); err != nil {
			return i, err
		}
		if slices.Contains(plan.Tiers, c.Tier) && !slices.Contains(*t, c.Tier) {
			*t = append(*t, c.Tier)
		}
		return end, nil
	})
	if err != nil {
		return fmt.Errorf("its fix %w", err)
	}
	return nil
}

// open reports whether the finding asks for something: it fails or warns, and
// neither does a boot mend it nor did anybody decide to live with it.
func (f *planFinding) open() bool {
	return (f.Status == check.Fail || f.Status == check.Warn) && !f.Pending && f.Waiver == nil
}

// planFindings are findings seen before, by their bytes: hosts are alike, so most
// of a report need not be decoded. When they are many they are forgotten.
type planFindings struct {
	known map[string]*planFinding
	size  int // bytes, roughly
}

// read decodes a finding, which is valid JSON.
func (k *planFindings) read(b []byte) (*planFinding, error) {
	if f := k.known[string(b)]; f != nil {
		return f, nil
	}
	f := &planFinding{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("a finding cannot be decoded: %w", err)
	}
	switch {
	case !checkID(f.Check):
		return nil, fmt.Errorf("a finding has no ID of a check: %q", clip([]byte(f.Check), 30))
	case !slices.Contains(check.Statuses, f.Status):
		return nil, fmt.Errorf("a finding has a status that is not known: %q", clip([]byte(f.Status), 30))
	}
	if k.size > rawMemory || k.known == nil {
		k.known, k.size = map[string]*planFinding{}, 0
	}
	k.known[string(b)] = f
	k.size += 2*len(b) + 200
	return f, nil
}

// report decodes a report, whole or not at all.
func (k *planFindings) report(p piece) (*planReport, error) {
	r := &planReport{}
	if err := r.read(p, func(b []byte, i int) (int, error) { return k.list(r, b, i) }); err != nil {
		return r, err
	}
	var n [256]int
	for _, f := range r.findings {
		n[letterOf(f.Status, f.Pending, f.Waiver != nil)]++
	}
	return r, r.Summary.count(&n)
}

// list reads the findings at b[i] and gives the index after them.
func (k *planFindings) list(r *planReport, b []byte, i int) (int, error) {
	return elements(b, i, func(i int) (int, error) {
		end, err := extent(b, i)
		if err != nil {
			return i, err
		}
		f, err := k.read(b[i:end])
		if err != nil {
			return i, err
		}
		r.findings = append(r.findings, f)
		return end, nil
	})
}

// checkID: "area.name", for it becomes a word of a command.
func checkID(s string) bool {
	return len(s) <= 100 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.") == "" && strings.Contains(s, ".")
}

// reports gives every usable report of a stream, and takes note of the others.
func (p *Planner) reports(name string, in io.Reader, take func(line int, r *planReport)) {
	reports(name, in, func(q piece) (*head, error) {
		r, err := p.seen.report(q)
		if err == nil {
			take(q.line, r)
		}
		return &r.head, err
	}, p.problem)
}

// Lost takes note of reports that never came, such as of a file that cannot be
// opened.
func (p *Planner) Lost(name, why string) {
	p.problem(Problem{Source: name, Why: why, Lost: true})
}

func (p *Planner) problem(q Problem) {
	if q.Lost {
		p.lost++
	}
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, q)
	} else {
		p.more++
	}
}

// pair is one finding of a host, by its check and subject in texts.
type pair struct{ check, subject uint32 }

// planHost is one host of the fleet.
type planHost struct {
	name  string
	at    time.Time // of its report
	boot  string
	set   bool   // it was judged with --set
	doubt string // why none of several reports counts; "" is none
	need  uint32 // in needs
	base  uint32 // in bases, where it needs a fix
	kind  uint32 // in kinds
	group uint32 // in groups
}

// need is what a host needs, or why it is in no batch.
type need struct {
	checks []string // to be fixed; none: not planned
	tiers  []plan.Tier
	stays  []string // checks that fail there and are not fixed
	fixed  []pair   // findings of checks, which are to be better afterwards
	failed []pair   // all findings that fail: no other may fail afterwards
	out    string   // why not planned; "" with no checks is fit
	blind  bool     // out because the report is no verdict
	boot   bool     // out, and pending a reboot
	unfit  bool     // out, and fails
}

// Read takes the reports of a file that the plan is made from.
func (p *Planner) Read(name string, in io.Reader) {
	p.reports(name, in, func(line int, r *planReport) { p.add(name, line, r) })
}

func (p *Planner) add(source string, line int, r *planReport) {
	h := planHost{name: *r.Host.Name, at: stamp(r.Host.CapturedAt)}
	if why := toCome(h.at, p.opts.Now); why != "" {
		p.problem(Problem{Source: source, Line: line, Host: h.name, Why: why, Lost: true})
		return
	}
	i, known := p.byName[h.name]
	if !known && len(p.hosts) >= MaxHosts {
		p.full = fmt.Errorf("more than %d hosts: plan for a part of the fleet at a time", MaxHosts)
		return
	}
	n := p.needOf(r, h.at)
	if len(n.checks) > 0 {
		h.base = p.baseID(p.baseOf(r))
	}
	h.need = p.needID(n)
	h.kind = p.kindID(fmt.Sprintf("%q %q %q %d", text(r.Host.Kernel), text(r.Host.Arch), r.Profile.Hash, h.need))
	h.boot = text(r.Host.BootID)
	h.set = bytes.Contains(r.Profile.Layers, []byte(`"--set"`))
	if !known {
		// a name stands in three lists, and in what is written of them
		if p.used += 128 + 12*max(0, len(h.name)-64); p.used > p.memory {
			p.full = fmt.Errorf("there are more hosts, or longer names of them, than %d MiB hold: plan for a part of the fleet at a time", p.memory>>20)
			return
		}
		p.byName[h.name] = int32(len(p.hosts)) //nolint:gosec // at most MaxHosts
		p.hosts = append(p.hosts, h)
		return
	}
	h.name = p.hosts[i].name
	twins := p.repeated[i]
	if twins == nil {
		twins = namesakesOf(p.hosts[i].sample(), otherKind)
		p.repeated[i] = twins
	}
	twins.source, twins.line = source, line
	boots := len(twins.boots)
	if note := twins.add(h.sample(), otherKind); note != "" {
		p.problem(Problem{Source: source, Line: line, Host: h.name, Why: note})
	}
	p.boots(len(twins.boots)-boots, 300)
}

// boots takes note of n more boots that are kept of a host, and their size in bytes.
func (p *Planner) boots(n, size int) {
	if p.used += size * n; p.used > p.memory {
		p.full = fmt.Errorf("there are more reports of the same hosts than %d MiB hold: give the last one of each", p.memory>>20)
	}
}

// sample gives a host as one of several reports.
func (h *planHost) sample() sample[planHost] { return sample[planHost]{*h, h.boot, h.at} }

// otherKind orders what reports say of a host; see [compare]. Of reports that
// differ none is planned from, so which one is the worse does not matter.
func otherKind(a, b *planHost) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.base, b.base))
}

// settle makes the report that counts that of each host with several.
func (p *Planner) settle() {
	for _, i := range slices.SortedFunc(maps.Keys(p.repeated), func(a, b int32) int { return compareNames(p.hosts[a].name, p.hosts[b].name) }) {
		n := p.repeated[i]
		s, doubt := n.settle(otherKind)
		p.hosts[i] = s.host
		if doubt != "" {
			p.hosts[i].doubt = doubt
			p.problem(Problem{Source: n.source, Line: n.line, Host: s.host.name, Why: doubt, Lost: true})
		}
	}
	clear(p.repeated)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// needOf says what a host needs. Only a run that was a verdict on the host and
// knows its time is planned from.
func (p *Planner) needOf(r *planReport, at time.Time) need {
	var n need
	if why := r.Summary.unjudged(); why != "" {
		n.out, n.blind = why, true
		return n
	}
	tiers := map[plan.Tier]bool{}
	var held, helpless, waived []string
	for _, f := range r.findings {
		if f.Waiver != nil && (f.Status == check.Fail || f.Status == check.Warn) {
			waived = append(waived, f.Check)
		}
		if !f.open() {
			continue
		}
		k := pair{p.text(f.Check), p.text(f.Subject)}
		fails := f.Status == check.Fail || p.opts.FailOn == check.Warn
		if fails {
			n.failed = append(n.failed, k)
		}
		may, other := false, plan.Tier("")
		for _, t := range f.Fix {
			switch {
			case slices.Contains(p.allow, t):
				may = true
				tiers[t] = true
			case t == plan.Link, t == plan.Boot:
				other = t
			}
		}
		switch {
		case p.opts.Selected != nil && !p.opts.Selected(f.Check):
			if fails {
				n.stays = append(n.stays, f.Check)
			}
		case may:
			n.checks, n.fixed = append(n.checks, f.Check), append(n.fixed, k)
		default:
			if fails {
				n.stays = append(n.stays, f.Check)
			}
			if other != "" {
				held = append(held, "--allow "+string(other)+" for "+f.Check)
			} else if fails {
				helpless = append(helpless, f.Check)
			}
		}
		if len(n.failed)+len(n.fixed) > maxOpen {
			return need{out: fmt.Sprintf("it has more than %d findings that fail", maxOpen), unfit: len(n.failed) > 0}
		}
	}
	// a check that is fixed on one device and not on another stands in checks
	n.checks, n.stays = sorted(n.checks), sorted(n.stays)
	for _, t := range plan.Tiers {
		if tiers[t] {
			n.tiers = append(n.tiers, t)
		}
	}
	switch {
	case len(n.checks) > 0 && at.IsZero():
		n.out = "its report does not say when it was made, so that no later one could be told from it"
	case len(n.checks) > 0:
		return n
	case len(held) > 0:
		n.out = "it needs " + listed(held)
	case len(helpless) > 0:
		n.out = "hostcheck has no fix for " + listed(helpless)
	case len(n.stays) > 0:
		n.out = "it fails only in what --only and --skip leave out"
	case len(waived) > 0:
		n.out = "somebody waived " + listed(waived)
	case r.Summary.waits():
		n.out = "it waits for its next boot"
	}
	return need{out: n.out, boot: *r.Summary.Exit != 1 && r.Summary.waits(), unfit: len(n.failed) > 0}
}

// sorted is a set of words in their order.
func sorted(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

// listed is a set of words as text.
func listed(words []string) string {
	const most = 6
	words = sorted(words)
	if n := len(words); n > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(words, ", ")
}

// text numbers a text.
func (p *Planner) text(s string) uint32 {
	if n, ok := p.texts[s]; ok {
		return n
	}
	n := uint32(len(p.texts)) //nolint:gosec // bounded by memory
	if p.used += len(s) + 64; p.used > p.memory {
		p.full = fmt.Errorf("the reports name more different checks and subjects than %d MiB hold: plan for a part of the fleet at a time, or with --only", p.memory>>20)
		return 0
	}
	p.texts[s], p.words = n, append(p.words, s)
	return n
}

// needID numbers a need; hosts that are alike share it.
func (p *Planner) needID(n need) uint32 {
	key := fmt.Sprint(n.out, n.boot, n.unfit, n.checks, n.tiers, n.stays, n.fixed, n.failed)
	if id, ok := p.needIDs[key]; ok {
		return id
	}
	if p.used += 2*len(key) + 200; p.used > p.memory {
		p.full = fmt.Errorf("the hosts fail in more different ways than %d MiB hold: plan for a part of the fleet at a time, or with --only", p.memory>>20)
		return 0
	}
	id := uint32(len(p.needs)) //nolint:gosec // at most MaxHosts
	p.needs, p.needIDs[key] = append(p.needs, n), id
	return id
}

// kindID numbers a kind of host.
func (p *Planner) kindID(key string) uint32 {
	id, ok := p.kinds[key]
	if !ok {
		if p.used += len(key) + 64; p.used > p.memory {
			p.full = fmt.Errorf("the reports name more different kernels and profiles than %d MiB hold: plan for a part of the fleet at a time", p.memory>>20)
			return 0
		}
		id = uint32(len(p.kinds)) //nolint:gosec // at most MaxHosts
		p.kinds[key] = id
	}
	return id
}
