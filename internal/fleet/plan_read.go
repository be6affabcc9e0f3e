// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	host struct {
		Name, Kernel, Arch *string
		BootID             *string `json:"boot_id"`
		CapturedAt         *string `json:"captured_at"`
	}
	profile  struct{ Hash, Intent string }
	summary  planCounts
	findings []*planFinding
}

// planCounts is the summary of a report.
type planCounts struct {
	Pass, Warn, Fail, Skip, Unknown, Error, Waived, Pending int
	Exit                                                    *int
}

// planFinding is what a plan reads of a finding.
type planFinding struct {
	Check, Subject, Got, Why string
	Status                   check.Status
	Pending                  bool
	Waiver                   *struct{}
	Fix                      []struct{ Tier plan.Tier }
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
func (k *planFindings) report(b []byte) (*planReport, error) {
	r := &planReport{}
	if !json.Valid(b) || b[0] != '{' {
		return r, errors.New("it is no valid JSON object")
	}
	schema := ""
	seen := map[string]bool{}
	err := object(b, func(key, v []byte) (err error) {
		var into any
		switch string(key) {
		case "schema":
			into = &schema
		case "host":
			into = &r.host
		case "profile":
			into = &r.profile
		case "summary":
			into = &r.summary
		case "findings":
			into = nil
		default:
			return nil // later versions may have more
		}
		if seen[string(key)] {
			return fmt.Errorf("it has %s twice", key)
		}
		seen[string(key)] = true
		if into == nil {
			return k.list(r, v)
		}
		if err := json.Unmarshal(v, into); err != nil {
			return fmt.Errorf("its %s cannot be decoded: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	return r, r.judge(schema, seen)
}

// list reads the findings.
func (k *planFindings) list(r *planReport, b []byte) error {
	if b[0] != '[' {
		return errors.New("its findings are no list")
	}
	for i := space(b, 1); b[i] != ']'; {
		end, err := extent(b, i)
		if err != nil {
			return err
		}
		f, err := k.read(b[i:end])
		if err != nil {
			return err
		}
		r.findings = append(r.findings, f)
		if i = space(b, end); b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return nil
}

// judge refuses what is no usable report.
func (r *planReport) judge(schema string, seen map[string]bool) error {
	switch {
	case schema == Schema:
		return errors.New("it is a merge, which holds no fixes: give the reports that it was made from")
	case schema == "":
		return errors.New("it is no report: it has no schema")
	case schema != reportSchema:
		return fmt.Errorf("its format %q is not known: this hostcheck reads %s", clip([]byte(schema), 60), reportSchema)
	case !seen["host"] || !seen["profile"] || !seen["summary"] || !seen["findings"] || r.summary.Exit == nil:
		return errors.New("it lacks its host, its profile, its summary or its findings")
	case r.host.Name == nil || *r.host.Name == "":
		return errors.New("it does not name its host")
	case !hostName(*r.host.Name):
		return fmt.Errorf("its host has a name that no host can have: %q", clip([]byte(*r.host.Name), 60))
	}
	n := planCounts{Exit: r.summary.Exit}
	for _, f := range r.findings {
		switch {
		case f.Waiver != nil:
			n.Waived++
		case f.Pending && (f.Status == check.Fail || f.Status == check.Warn):
			n.Pending++
		default:
			n.count(f.Status)
		}
	}
	if n != r.summary {
		return errors.New("its summary does not count what its findings say: it was changed after it was written")
	}
	return nil
}

// checkID: "area.name", for it becomes a word of a command.
func checkID(s string) bool {
	return len(s) <= 100 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.") == "" && strings.Contains(s, ".")
}

// count counts a status.
func (n *planCounts) count(s check.Status) {
	switch s {
	case check.Pass:
		n.Pass++
	case check.Warn:
		n.Warn++
	case check.Fail:
		n.Fail++
	case check.Skip:
		n.Skip++
	case check.Unknown:
		n.Unknown++
	case check.Error:
		n.Error++
	}
}

// unjudged says why a run is no verdict on its host; "" where it is one.
func (n *planCounts) unjudged() string {
	switch exit := *n.Exit; {
	case exit > 128:
		return "its run was interrupted"
	case n.Pass+n.Warn+n.Fail+n.Waived+n.Pending == 0:
		return "nothing on it could be judged"
	case exit == 3:
		return "what its profile requires could not be judged"
	case exit != 0 && exit != 1 && exit != 10:
		return fmt.Sprintf("its run ended with exit code %d", exit)
	}
	return ""
}

// reports gives every usable report of a stream, and takes note of the others.
func (p *Planner) reports(name string, in io.Reader, take func(line int, r *planReport)) {
	s, err := newStream(in)
	if err != nil {
		p.problem(Problem{Source: name, Why: err.Error(), Lost: true})
		return
	}
	found := 0
	for {
		piece, ok := s.next()
		if !ok {
			break
		}
		found++
		if piece.why != "" {
			p.problem(Problem{Source: name, Line: piece.line, Why: piece.why, Lost: true})
			continue
		}
		r, err := p.seen.report(piece.b)
		if err != nil {
			host := ""
			if h := r.host.Name; h != nil && hostName(*h) {
				host = *h
			}
			p.problem(Problem{Source: name, Line: piece.line, Host: host, Why: err.Error(), Lost: true})
			continue
		}
		take(piece.line, r)
	}
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		p.problem(Problem{Source: name, Line: s.line, Why: "it cannot be read on: " + s.err.Error(), Lost: true})
	case found == 0:
		p.problem(Problem{Source: name, Why: "it is empty", Lost: true})
	}
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
	twice bool   // two hosts have this name
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
}

// Read takes the reports of a file that the plan is made from.
func (p *Planner) Read(name string, in io.Reader) {
	p.reports(name, in, func(line int, r *planReport) { p.add(name, line, r) })
}

func (p *Planner) add(source string, line int, r *planReport) {
	h := planHost{name: *r.host.Name, at: stamp(r.host.CapturedAt), boot: text(r.host.BootID)}
	if why := p.toCome(h.at); why != "" {
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
	h.kind = p.kindID(fmt.Sprintf("%q %q %q %d", text(r.host.Kernel), text(r.host.Arch), r.profile.Hash, h.need))
	if !known {
		p.byName[h.name] = int32(len(p.hosts)) //nolint:gosec // at most MaxHosts
		p.hosts = append(p.hosts, h)
		return
	}
	old := &p.hosts[i]
	q := Problem{Source: source, Line: line, Host: h.name}
	switch {
	case h.at.After(old.at):
		q.Why = "it replaces an older report of this host"
		h.name = old.name
		*old = h
	case old.at.After(h.at):
		q.Why = "a newer report of this host is used"
	case h.boot == old.boot && h.kind == old.kind:
		q.Why = "a report of this host is used already; this one was sampled at the same time"
	default:
		old.twice = true
		q.Why = "another report of this host was sampled at the same time: two hosts have this name"
	}
	p.problem(q)
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
	if why := r.summary.unjudged(); why != "" {
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
		for _, c := range f.Fix {
			switch {
			case slices.Contains(p.allow, c.Tier):
				may = true
				tiers[c.Tier] = true
			case c.Tier == plan.Link, c.Tier == plan.Boot:
				other = c.Tier
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
			return need{out: fmt.Sprintf("it has more than %d findings that fail", maxOpen)}
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
	case r.summary.Pending > 0 || *r.summary.Exit == 10:
		n.out = "it waits for its next boot"
	}
	return need{out: n.out, boot: *r.summary.Exit != 1 && (r.summary.Pending > 0 || *r.summary.Exit == 10)}
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
	key := fmt.Sprint(n.out, n.boot, n.checks, n.tiers, n.stays, n.fixed, n.failed)
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
