// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Runner runs checks with deadlines.
type Runner struct {
	PerCheck time.Duration // deadline of one check; 0 means 10 s
	Progress func(done, total int, id string)
	Debug    func(id string, stack []byte) // called after a panic; may be nil
}

// Run runs all checks, some at a time, and gives their results in the given
// order whatever happens: a check that panics is an error finding, one that
// does not end in time is an unknown that says so, and the others still report.
func (r *Runner) Run(ctx context.Context, checks []*Check, in Run) []Result {
	per := r.PerCheck
	if per <= 0 {
		per = 10 * time.Second
	}
	results := make([]Result, len(checks))
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i, c := range checks {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i] = Result{c, r.one(ctx, per, c, in)}
			if r.Progress != nil {
				mu.Lock()
				done++
				r.Progress(done, len(checks), c.ID)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	followUps(results)
	return results
}

// one runs a check in a goroutine of its own, which is left behind when it
// does not end: what it reports later is dropped.
func (r *Runner) one(ctx context.Context, per time.Duration, c *Check, in Run) []Finding {
	ctx, cancel := context.WithTimeoutCause(ctx, per, fmt.Errorf("the check did not end within %v", per))
	defer cancel()
	var mu sync.Mutex
	var got []Finding
	closed := false
	add := func(f Finding) {
		mu.Lock()
		defer mu.Unlock()
		if !closed {
			got = append(got, c.complete(f))
		}
	}
	in.Report = add
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if v := recover(); v != nil {
				if r.Debug != nil {
					r.Debug(c.ID, debug.Stack())
				}
				add(Finding{Status: Error, Why: fmt.Sprintf("hostcheck failed here: %v", v), Next: "please report this with a bundle of the host"})
			}
		}()
		if err := c.Run(ctx, &in); err != nil {
			add(Finding{Status: Unknown, Why: err.Error()})
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		select {
		case <-ended: // what it is just finding counts
		case <-time.After(50 * time.Millisecond):
			add(Finding{Status: Unknown, Why: context.Cause(ctx).Error()})
		}
	}
	mu.Lock()
	defer mu.Unlock()
	closed = true
	if len(got) == 0 {
		got = append(got, c.complete(Finding{Status: Skip, Why: "nothing on this host is a subject of this check"}))
	}
	return got
}

// complete fills in what the check need not say, and refuses a pass that
// names no evidence.
func (c *Check) complete(f Finding) Finding {
	f.Check = c.ID
	for i := range f.Fix {
		f.Fix[i].Check = c.ID
	}
	if f.Status == Pass && len(f.Evidence) == 0 {
		f.Status, f.Why = Error, "hostcheck failed here: a pass without evidence"
	}
	return f
}

// followUps turns a failure into a skip where a required check has failed for
// the same subject or for the whole host: one cause, one finding.
func followUps(results []Result) {
	failed := map[string]map[string]bool{}
	for _, r := range results {
		for _, f := range r.Findings {
			if f.Status == Fail {
				if failed[f.Check] == nil {
					failed[f.Check] = map[string]bool{}
				}
				failed[f.Check][f.Subject] = true
			}
		}
	}
	for _, r := range results {
		for _, id := range r.Check.Requires {
			for i := range r.Findings {
				f := &r.Findings[i]
				if (f.Status == Fail || f.Status == Warn) && (failed[id][f.Subject] || failed[id][""]) {
					f.Status, f.Fix = Skip, nil
					f.Why = "follows from " + id + ": " + f.Why
				}
			}
		}
	}
}
