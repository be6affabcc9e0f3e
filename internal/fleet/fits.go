// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

var (
	errLess  = errors.New("it counts less than nothing")
	errHosts = errors.New("its summary does not count its hosts")
)

// fits refuses what a merge lists that does not fit its counts, which are known
// to be those of its hosts.
func (f *Fleet) fits() error {
	s := &f.Summary
	if s.Warning > s.Compliant || s.Hosts > s.Lines-s.Repeated {
		return errHosts
	}
	if f.FailOn != string(check.Fail) && f.FailOn != string(check.Warn) {
		return fmt.Errorf("its hosts fail from %q on, which is no status", clip([]byte(f.FailOn), 30))
	}
	for i := range f.Checks {
		if err := f.Checks[i].fits(); err != nil {
			return fmt.Errorf("its check %q %w", clip([]byte(f.Checks[i].ID), 60), err)
		}
	}
	for i := range f.Outliers {
		o := &f.Outliers[i]
		if o.N < 1 || o.N > o.Of || o.Of > s.Hosts || o.Also < 0 {
			return fmt.Errorf("its outlier %d does not count its hosts", i)
		}
		o.Share = share(o.N, o.Of)
	}
	if p := f.Since; p != nil && (p.New < 0 || p.New > s.Hosts || p.Gone < 0 || p.Gone > p.Hosts) || p == nil && len(f.Changed) > 0 {
		return errors.New("what it says of an earlier merge does not count its hosts")
	}
	for i := range f.Changed {
		if c := &f.Changed[i]; c.N < 1 || c.N > s.Hosts || c.Before == c.After {
			return fmt.Errorf("its change %d does not count its hosts", i)
		}
	}
	for i := range f.Problems {
		if f.Problems[i].Line < 0 {
			return errLess
		}
	}
	return nil
}

// share is the part that n is of a number.
func share(n, of int) float64 { return math.Round(float64(n)/float64(of)*1e6) / 1e6 }

// fits refuses cases of more hosts than have such a verdict, or a worse one of
// another finding of the check, and of fewer.
func (c *Check) fits() error {
	severities := []check.Severity{"", check.Info, check.Low, check.Medium, check.High}
	if c.MoreCases < 0 || !slices.Contains(severities, c.Severity) {
		return errors.New("has a number of cases or a severity that none has")
	}
	n := &c.Counts
	with := []int{n.Fail, n.Error, n.Warn, n.Pending, n.Unknown, n.Waived} // by rank
	listed := make([]int, len(with))
	for i := range c.Cases {
		k := &c.Cases[i]
		rank := Rank(letterOf(k.Status, k.Pending, k.Waived))
		if k.Status == check.Pass || rank >= len(with) || !slices.Contains(check.Statuses, k.Status) {
			return fmt.Errorf("has a case that is %q", clip([]byte(k.Status), 30))
		}
		most := 0
		for _, n := range with[:rank+1] {
			most += n
		}
		if k.N < 1 || k.N > most {
			return errors.New("has a case that does not count its hosts")
		}
		listed[rank] += k.N
	}
	for rank, n := range with[:Rank('v')] { // what passes may be waived, and is no case
		if c.MoreCases == 0 && listed[rank] < n {
			return errors.New("has fewer cases than hosts")
		}
	}
	return nil
}
