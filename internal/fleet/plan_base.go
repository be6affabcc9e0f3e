// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

// baseline is what the first report of a host judged: the one after the fix has
// to judge it as well, or it is not known that nothing fails that did not fail.
// Hosts that are alike share it.
type baseline struct {
	profile, intent string
	checks          []uint32 // all of the report, in texts
	passed          []uint32 // of them, those with a finding that did not fail
	clear           []uint32 // of these, those with none that is unknown
	pairs           []uint64 // findings that did not fail, by [Planner.mark], sorted
	subjects        []uint32 // those that two checks or more passed, such as a device, in texts
}

// fine reports whether a finding is judged and does not fail.
func (p *Planner) fine(f *planFinding) bool {
	return f.Waiver == nil && !f.Pending && (f.Status == check.Pass || f.Status == check.Warn && p.opts.FailOn != check.Warn)
}

// unanswered reports whether a finding is no answer.
func (f *planFinding) unanswered() bool {
	return f.Waiver == nil && (f.Status == check.Skip || f.blind())
}

// blind reports whether the check should have answered.
func (f *planFinding) blind() bool { return f.Status == check.Unknown || f.Status == check.Error }

// mark stands for the check and the subject of a finding.
func (p *Planner) mark(f *planFinding) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	_, _ = h.WriteString(f.Check)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(f.Subject)
	return h.Sum64()
}

// baseOf gives what a report judged.
func (p *Planner) baseOf(r *planReport) baseline {
	b := baseline{profile: r.Profile.Hash, intent: r.Profile.Intent}
	fine, open := map[string]bool{}, map[string]bool{}
	by, several := map[string]string{}, map[string]bool{} // the first check that passed a subject; those that others passed too
	for _, f := range r.findings {
		fine[f.Check] = fine[f.Check] || p.fine(f)
		open[f.Check] = open[f.Check] || f.blind()
		if !p.fine(f) {
			continue
		}
		b.pairs = append(b.pairs, p.mark(f))
		if f.Subject != "" {
			if first, ok := by[f.Subject]; !ok {
				by[f.Subject] = f.Check
			} else if first != f.Check {
				several[f.Subject] = true
			}
		}
	}
	for id, ok := range fine {
		n := p.text(id)
		b.checks = append(b.checks, n)
		if ok {
			b.passed = append(b.passed, n)
		}
		if ok && !open[id] {
			b.clear = append(b.clear, n)
		}
	}
	for s := range several {
		b.subjects = append(b.subjects, p.text(s))
	}
	slices.Sort(b.checks)
	slices.Sort(b.passed)
	slices.Sort(b.clear)
	slices.Sort(b.pairs)
	slices.Sort(b.subjects)
	return b
}

// baseID numbers a baseline.
func (p *Planner) baseID(b baseline) uint32 {
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d %d %d %d", b.profile, b.intent, b.checks, b.passed, b.clear, b.pairs, b.subjects))
	if id, ok := p.baseIDs[key]; ok {
		return id
	}
	if p.used += 200 + len(b.profile) + len(b.intent) + 8*len(b.pairs) + 4*(len(b.checks)+len(b.passed)+len(b.clear)+len(b.subjects)); p.used > p.memory {
		p.full = fmt.Errorf("the hosts pass in more different ways than %d MiB hold: plan for a part of the fleet at a time", p.memory>>20)
		return 0
	}
	id := uint32(len(p.bases)) //nolint:gosec // at most MaxHosts
	p.bases, p.baseIDs[key] = append(p.bases, b), id
	return id
}
