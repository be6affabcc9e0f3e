// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"io"
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
	p.reports(name, in, func(line int, r *planReport) {
		i, known := p.byName[*r.host.Name]
		if !known {
			p.problem(Problem{Source: name, Line: line, Host: *r.host.Name, Why: "the plan is not made from a report of this host: it counts for nothing"})
			return
		}
		v := p.judge(&p.hosts[i], r)
		if old, twice := p.back[i]; twice {
			// of two the newer counts, and of two of one time the worse
			if old.at.After(v.at) || old.at.Equal(v.at) && old.state != "" {
				return
			}
		}
		p.back[i] = v
	})
}

// judge says whether a host is fit as far as the plan is about it: what was to be
// fixed is no longer amiss, or only until the next boot, and nothing fails that
// did not fail before.
func (p *Planner) judge(h *planHost, r *planReport) verdict {
	v := verdict{at: stamp(r.host.CapturedAt)}
	if !v.at.After(h.at) {
		v.state, v.why = hostStale, "its report is not newer than the one that was planned from"
		return v
	}
	if why := r.summary.unjudged(); why != "" {
		v.state, v.why = hostUnjudged, why
		return v
	}
	n := &p.needs[h.need]
	fixed, failed, seen := map[pair]bool{}, map[pair]bool{}, map[pair]bool{}
	for _, k := range n.fixed {
		fixed[k] = true
	}
	for _, k := range n.failed {
		failed[k] = true
	}
	judged := map[string]bool{}
	blind := map[string]bool{} // could not judge a subject, which may be the one that was fixed
	for _, f := range r.findings {
		judged[f.Check] = true
		k, known := p.known(f)
		seen[k] = seen[k] || known
		mended := known && fixed[k]
		open := f.Status == check.Unknown || f.Status == check.Error
		blind[f.Check] = blind[f.Check] || open
		switch {
		case f.Waiver != nil:
		case f.Pending:
			v.pending = true
		case mended && (f.open() || open):
			v.fail(f, "is")
		case f.open() && (f.Status == check.Fail || p.opts.FailOn == check.Warn) && (!known || !failed[k]):
			v.fail(f, "did not fail before and is now")
		}
	}
	for _, k := range n.fixed {
		// a check may word its subjects otherwise once they are as they should be
		id := p.words[k.check]
		if v.state == "" && (!judged[id] || !seen[k] && blind[id]) {
			v.state, v.why = hostUnjudged, "its report does not say what "+id+" came to"
		}
	}
	return v
}

// fail notes the first finding that is not as it should be.
func (v *verdict) fail(f *planFinding, how string) {
	if v.state == hostFailed {
		return
	}
	what := f.Check
	if f.Subject != "" {
		what += " " + f.Subject
	}
	v.state, v.why = hostFailed, fmt.Sprintf("%s %s %q", what, how, f.Status)
	switch {
	case f.Got != "":
		v.why += ": " + f.Got
	case f.Why != "":
		v.why += ": " + f.Why
	}
	v.why = clip([]byte(v.why), 300)
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
			v, ok := p.back[i]
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
	}
	s.Exit = s.exitOf(out)
}

// hold says why the batches after b, or b itself, cannot be run.
func (p *Planner) hold(out *Plan, b *Batch, reported int) {
	failed, unjudged := 0, 0
	for _, h := range out.Holding {
		switch h.State {
		case hostFailed:
			failed++
		case hostUnjudged:
			unjudged++
		}
	}
	switch {
	case failed > 0:
		out.State, out.Why = PlanStopped, fmt.Sprintf("%d of %d hosts of batch %d %s not fit: no other batch is given", failed, b.N, b.Number, verb(failed, "is", "are"))
	case unjudged > 0:
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d of %d hosts of batch %d could not be judged", unjudged, b.N, b.Number)
	case reported > 0:
		out.State, out.Why = PlanWaiting, fmt.Sprintf("%d of %d hosts of batch %d %s not reported since the plan", len(out.Holding), b.N, b.Number, verb(len(out.Holding), "has", "have"))
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
