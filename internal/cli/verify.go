// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// behind is the checks of which a wish is in the plan, or holds already.
func behind(results []check.Result, v report.PlanView) map[string]bool {
	ids := map[string]bool{}
	for _, w := range wishes(results) {
		for id := range strings.SplitSeq(w.Check, ", ") {
			ids[id] = ids[id] || !blocked(w, v)
		}
	}
	return ids
}

// badness orders verdicts as far as a fix is concerned: nothing wrong, or only
// until the next boot, or waived; a warning; a failure, or not known.
func badness(f *check.Finding) int {
	switch {
	case f.Status == check.Pass, f.Status == check.Skip, f.Pending, f.Waiver != nil:
		return 0
	case f.Status == check.Warn:
		return 1
	}
	return 2
}

// unmet says which of the checks behind the changes do not hold after them. A
// finding of which a part was refused or held back may stay as it was; any
// other must be better than before. Of a running host none that was good may
// fail either; in a tree a file may well say something else now than what ran
// when the tree was taken.
func unmet(before, after []check.Result, v report.PlanView, live bool) error {
	ids := behind(before, v)
	type key struct{ check, subject string }
	was := map[key]int{}      // how bad it was
	excused := map[key]bool{} // not all of it was in the plan
	worst := map[string]int{}
	for _, r := range before {
		for i := range r.Findings {
			f := &r.Findings[i]
			k := key{f.Check, f.Subject}
			was[k] = max(was[k], badness(f))
			worst[f.Check] = max(worst[f.Check], badness(f))
			if badness(f) > 0 && (len(f.Fix) == 0 || slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return blocked(w, v) })) {
				excused[k] = true
			}
		}
	}
	var lines []string
	for _, r := range after {
		for i := range r.Findings {
			f := &r.Findings[i]
			k := key{f.Check, f.Subject}
			now, then := badness(f), was[k]
			_, known := was[k]
			switch {
			case !ids[f.Check], now == 0:
				continue
			case !known: // the check words its subjects otherwise now
				if !live || now < worst[f.Check] {
					continue
				}
			case then == 0:
				if !live || now == 1 {
					continue
				}
			case now < then, excused[k] && now == then:
				continue
			}
			line := f.Check
			if f.Subject != "" {
				line += " " + f.Subject
			}
			line += fmt.Sprintf(" is still %q", f.Status)
			switch {
			case f.Got != "":
				line += ": " + f.Got
			case f.Why != "":
				line += ": " + f.Why
			}
			lines = append(lines, line)
		}
	}
	const most = 3
	if n := len(lines); n > most {
		lines = append(lines[:most], fmt.Sprintf("and %d more", n-most))
	}
	if lines == nil {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(lines, "; "))
}

// blocked reports whether a wish, or a part of it, is not in the plan.
func blocked(w plan.Wish, v report.PlanView) bool {
	for _, r := range v.Plan.Refused {
		if r.Setting == w.Setting || names(r.Why, w.Check) {
			return true
		}
	}
	return slices.ContainsFunc(v.Held, func(c plan.Change) bool { return c.Setting == w.Setting || names(c.Why, w.Check) })
}

// names reports whether the reason of a change names a check: "ID: reason" or
// "ID, ID: reason".
func names(why, id string) bool {
	ids, _, _ := strings.Cut(why, ": ")
	for got := range strings.SplitSeq(ids, ", ") {
		for want := range strings.SplitSeq(id, ", ") {
			if got != "" && got == want {
				return true
			}
		}
	}
	return false
}
