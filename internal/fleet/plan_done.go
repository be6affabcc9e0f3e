// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
)

// verdict is what a host's new report says of its fix.
type verdict struct {
	at      time.Time
	state   string // of a [Holding]; "" is done
	why     string
	pending bool
}

// States of a host that holds a batch back.
const (
	hostFailed   = "failed"
	hostUnjudged = "unjudged"
	hostMissing  = "missing"
	hostStale    = "stale"
)

// Done takes the reports that came back from hosts of the batches that were run;
// all that [Planner.Read] takes must have been read.
func (p *Planner) Done(name string, in io.Reader) {
	p.settle()
	usable := false
	defer func() {
		if !usable {
			p.silent++
		}
	}()
	p.reports(name, in, func(line int, r *planReport) {
		usable = true
		i, known := p.byName[*r.Host.Name]
		if !known {
			p.problem(Problem{Source: name, Line: line, Host: *r.Host.Name, Why: "the plan is not made from a report of this host: it counts for nothing"})
			return
		}
		v := p.judge(&p.hosts[i], r)
		if why := toCome(v.at, p.opts.Now); why != "" {
			v = verdict{at: v.at, state: hostUnjudged, why: why}
			if old, twice := p.ahead[i]; !twice || lessFit(&v, &old) > 0 {
				p.ahead[i] = v
			}
			return
		}
		s := sample[verdict]{v, text(r.Host.BootID), v.at}
		first, twice := p.back[i]
		if !twice {
			p.back[i] = s
			return
		}
		n := p.again[i]
		if n == nil {
			n = namesakesOf(first, lessFit)
			p.again[i] = n
		}
		boots := len(n.boots)
		_ = n.add(s, lessFit)
		p.boots(len(n.boots)-boots, 300+len(v.why))
	})
}

// lessFit orders what reports say of a host that came back; see [compare].
func lessFit(a, b *verdict) int {
	worse := func(v *verdict) int {
		switch {
		case v.state == hostFailed:
			return 3
		case v.state != "":
			return 2
		case v.pending:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(worse(a), worse(b)), cmp.Compare(b.why, a.why))
}

// verdictOf gives what counts of the reports of a host that came back. A doubt
// about them holds it, and so does one of a time to come, for both may be another
// host's, unless it is known not to be fit.
func (p *Planner) verdictOf(i int32) (v verdict, reported bool) {
	h := &p.hosts[i]
	first, reported := p.back[i]
	if reported {
		n := p.again[i]
		if n == nil {
			n = namesakesOf(first, lessFit)
		}
		// the one that it was planned from tells two hosts of one name apart as well
		_ = n.add(sample[verdict]{stale(h.at), h.boot, h.at}, lessFit)
		s, doubt := n.settle(lessFit)
		if v = s.host; doubt != "" && v.state != hostFailed {
			v.state, v.why = hostUnjudged, doubt
		}
	}
	if w, ok := p.ahead[i]; ok && v.state != hostFailed {
		return w, true
	}
	return v, reported
}

// stale is the verdict of a report that is no newer than the one that the host was
// planned from.
func stale(at time.Time) verdict {
	return verdict{at: at, state: hostStale, why: "stale: its report is not newer than the one it was planned from; where it was collected since, the clock was set back: plan anew"}
}

// judge says whether a host is fit as far as the plan is about it: what was to be
// fixed is no longer amiss, or only until the next boot, nothing fails that did
// not fail before, and all is judged that was judged before, by the same profile.
func (p *Planner) judge(h *planHost, r *planReport) verdict {
	v := verdict{at: stamp(r.Host.CapturedAt)}
	if !v.at.After(h.at) {
		return stale(v.at)
	}
	if why := r.Summary.unjudged(); why != "" {
		v.state, v.why = hostUnjudged, why
		return v
	}
	n := &p.needs[h.need]
	if len(n.checks) == 0 {
		return v // in no batch
	}
	base := &p.bases[h.base]
	if r.Profile.Hash != base.profile || r.Profile.Intent != base.intent {
		v.state, v.why = hostUnjudged, "it was judged by another profile or intent than the one it was planned from: collect its report with the same flags, or plan anew"
		return v
	}
	fixed, failed, seen := pairs(n.fixed), pairs(n.failed), map[pair]bool{}
	judged, answered := map[string]bool{}, map[string]bool{}
	blind := map[string]bool{} // did not judge a subject, which may be the one that was fixed
	subjects := map[string]bool{}
	doubts := doubts{planned: n.checks}
	for _, f := range r.findings {
		judged[f.Check], subjects[f.Subject] = true, true
		k, known := p.known(f)
		seen[k] = seen[k] || known
		mended := known && fixed[k]
		blind[f.Check] = blind[f.Check] || f.unanswered() || f.Waiver != nil
		answered[f.Check] = answered[f.Check] || !f.unanswered()
		switch {
		case f.Waiver != nil && mended:
			doubts.add(f.Check, f.named()+" was waived since: a waiver does not make it done")
		case f.Waiver != nil:
		case f.unanswered() && mended:
			doubts.add(f.Check, f.says("was to be fixed and is"))
		case f.unanswered():
			if p.passed(base, f) {
				doubts.add(f.Check, f.says("passed before and is now"))
			}
		case f.Pending && f.Status != check.Pass:
			v.pending = true
		case mended && f.open():
			v.fail(f, "is")
		case f.open() && (f.Status == check.Fail || p.opts.FailOn == check.Warn) && (!known || !failed[k]):
			v.fail(f, "did not fail before and is now")
		}
	}
	for _, k := range n.fixed {
		// a check may word its subjects otherwise once they are as they should be
		id := p.words[k.check]
		if !judged[id] || !seen[k] && blind[id] {
			doubts.add(id, "its report does not say what "+id+" came to")
		}
	}
	for _, c := range base.passed {
		if id := p.words[c]; judged[id] && !answered[id] {
			doubts.add(id, id+" passed before and judges nothing now")
		}
	}
	for _, c := range base.checks {
		if id := p.words[c]; !judged[id] {
			doubts.add(id, "its report says nothing of "+id+", which the one before did")
		}
	}
	for _, s := range base.subjects {
		if s := p.words[s]; !subjects[s] {
			doubts.add("", "its report says nothing of "+s+", which passed before")
		}
	}
	if v.state == "" && len(doubts.ids) > 0 {
		v.state, v.why = hostUnjudged, doubts.String()
	}
	return v
}

// passed reports whether a finding that is no answer was one before: itself, or
// any of its check where that left nothing unknown.
func (p *Planner) passed(base *baseline, f *planFinding) bool {
	if _, was := slices.BinarySearch(base.pairs, p.mark(f)); was {
		return true
	}
	c, known := p.texts[f.Check]
	_, was := slices.BinarySearch(base.clear, c)
	return f.blind() && known && was
}

func pairs(list []pair) map[pair]bool {
	set := make(map[pair]bool, len(list))
	for _, k := range list {
		set[k] = true
	}
	return set
}

// doubts are reasons why a report does not tell whether its host is fit: one of
// them, of what was to be fixed where there is one, and of how many checks there
// are any.
type doubts struct {
	planned []string // checks
	first   string
	grave   bool // first is of a planned one
	ids     map[string]bool
}

func (d *doubts) add(id, why string) {
	if d.ids == nil {
		d.ids = map[string]bool{}
	}
	d.ids[id] = true
	grave := slices.Contains(d.planned, id)
	// by the alphabet, for the order in which reports are read must not matter
	if d.first == "" || grave && !d.grave || grave == d.grave && why < d.first {
		d.first, d.grave = why, grave
	}
}

func (d *doubts) String() string {
	s := string(clip([]byte(d.first), 300))
	if n := len(d.ids) - 1; n > 0 {
		s += fmt.Sprintf("; and so for %d more %s", n, verb(n, "check", "checks"))
	}
	return s
}

// named is the check of a finding with its subject.
func (f *planFinding) named() string {
	if f.Subject == "" {
		return f.Check
	}
	return f.Check + " " + f.Subject
}

// says is what became of a finding, with the reason that the report gives.
func (f *planFinding) says(how string) string {
	s := fmt.Sprintf("%s %s %q", f.named(), how, f.Status)
	switch {
	case f.Got != "":
		s += ": " + f.Got
	case f.Why != "":
		s += ": " + f.Why
	}
	return s
}

// fail notes the first finding that is not as it should be.
func (v *verdict) fail(f *planFinding, how string) {
	if v.state != hostFailed {
		v.state, v.why = hostFailed, clip([]byte(f.says(how)), 300)
	}
}

// known gives the finding's pair, if any host that was planned from had one.
func (p *Planner) known(f *planFinding) (pair, bool) {
	c, ok := p.texts[f.Check]
	if !ok {
		return pair{}, false
	}
	s, ok := p.texts[f.Subject]
	return pair{c, s}, ok
}

// progress says how far the plan has come. A batch counts only when all before
// it are done, and each of its hosts reported and is fit: one that is not stops
// everything.
func (p *Planner) progress(out *Plan, batches [][]int32) {
	s := &out.Summary
	for k := range batches {
		b := &out.Batches[k]
		reported := 0
		for _, i := range batches[k] {
			v, ok := p.verdictOf(i)
			switch {
			case !ok:
				v.state, v.why = hostMissing, "it has not reported"
			case v.state != hostStale:
				reported++
			}
			if v.state == "" {
				s.Done++
				if v.pending {
					s.Pending++
				}
				continue
			}
			out.Holding = append(out.Holding, Holding{p.hosts[i].name, b.Number, v.state, v.why})
		}
		if len(out.Holding) == 0 {
			b.State = batchDone
			continue
		}
		p.hold(out, b, reported)
		break
	}
	if out.State == "" {
		out.State, out.Why = PlanComplete, "every batch is done"
		if len(batches) == 0 {
			out.Why = "no host is to be fixed"
		}
		if n := s.Failing; n > 0 {
			out.Why += fmt.Sprintf("; %d that %s left out %s", n, verb(n, "is", "are"), verb(n, "fails", "fail"))
		}
	}
	s.Exit = s.exitOf(out)
}

// hold says why the batches after b, or b itself, cannot be run.
func (p *Planner) hold(out *Plan, b *Batch, reported int) {
	failed, unjudged, stale := 0, 0, 0
	for _, h := range out.Holding {
		switch h.State {
		case hostFailed:
			failed++
		case hostUnjudged:
			unjudged++
		case hostStale:
			stale++
		}
	}
	switch {
	case failed > 0:
		out.State, out.Why = PlanStopped, fmt.Sprintf("%d of %d hosts of batch %d %s not fit: no other batch is given", failed, b.N, b.Number, verb(failed, "is", "are"))
	case unjudged > 0:
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d of %d hosts of batch %d could not be judged", unjudged, b.N, b.Number)
	case stale > 0 && reported+stale == b.N:
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d of %d hosts of batch %d sent a report that is not newer than the one before", stale, b.N, b.Number)
	case reported+stale > 0:
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d of %d hosts of batch %d %s not reported since the plan", len(out.Holding), b.N, b.Number, verb(len(out.Holding), "has", "have"))
	case p.silent > 0: // such as of hosts that died in it
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d %s of --done %s no usable report, so batch %d may have been run: take away what is not of it", p.silent, verb(p.silent, "file", "files"), verb(p.silent, "has", "have"), b.Number)
	default:
		out.State, out.Why, out.Next = PlanNext, fmt.Sprintf("batch %d of %d is to be run", b.Number, len(out.Batches)), &b.Number
		out.Holding = []Holding{}
	}
	b.State = out.State
}

// verb is the form of a verb that goes with n.
func verb(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// exitOf gives the exit code of a plan: what stopped before what is to be done,
// before what is not known, before what waits for a boot.
func (s *PlanSummary) exitOf(p *Plan) int {
	switch {
	case p.State == PlanStopped:
		return 4
	case p.State == PlanNext:
		return 1
	case p.State == PlanWaiting, s.Problems > 0, s.Unjudged > 0:
		return 3
	case s.Pending > 0:
		return 10
	}
	return 0
}
