// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

func run(t *testing.T, checks ...*check.Check) []check.Result {
	t.Helper()
	r := check.Runner{PerCheck: 50 * time.Millisecond}
	return r.Run(t.Context(), checks, check.Run{})
}

func reports(id string, fs ...check.Finding) *check.Check {
	return &check.Check{ID: id, Run: func(_ context.Context, r *check.Run) error {
		for _, f := range fs {
			r.Report(f)
		}
		return nil
	}}
}

func TestOneBadCheckHidesNoOther(t *testing.T) {
	good := reports("a.good", check.Finding{Status: check.Pass, Evidence: []check.Evidence{{Source: "/x", Value: "1"}}})
	panics := &check.Check{ID: "a.panics", Run: func(context.Context, *check.Run) error { panic("boom") }}
	hangs := &check.Check{ID: "a.hangs", Run: func(_ context.Context, r *check.Run) error {
		r.Report(check.Finding{Status: check.Warn, Got: "partial"})
		select {} // never ends, and never looks at its context
	}}
	fails := &check.Check{ID: "a.fails", Run: func(context.Context, *check.Run) error { return errors.New("cannot read /y: EIO") }}

	results := run(t, panics, hangs, fails, good)
	for i, want := range []struct {
		id     string
		status []check.Status
		why    string
	}{
		{"a.panics", []check.Status{check.Error}, "boom"},
		{"a.hangs", []check.Status{check.Warn, check.Unknown}, "did not end within 50ms"},
		{"a.fails", []check.Status{check.Unknown}, "cannot read /y"},
		{"a.good", []check.Status{check.Pass}, ""},
	} {
		r := results[i]
		if r.Check.ID != want.id || len(r.Findings) != len(want.status) {
			t.Fatalf("result %d: %s with %d findings, want %s with %d", i, r.Check.ID, len(r.Findings), want.id, len(want.status))
		}
		for j, s := range want.status {
			if f := r.Findings[j]; f.Status != s || f.Check != want.id {
				t.Errorf("%s: finding %d is %s of %s, want %s", want.id, j, f.Status, f.Check, s)
			}
		}
		if last := r.Findings[len(r.Findings)-1]; !strings.Contains(last.Why, want.why) {
			t.Errorf("%s: why is %q, want %q in it", want.id, last.Why, want.why)
		}
	}
}

func TestNoVacuousPass(t *testing.T) {
	results := run(t, reports("a.silent"), reports("a.bare", check.Finding{Status: check.Pass}))
	if s := results[0].Findings[0].Status; s != check.Skip {
		t.Errorf("a check without subjects is %s, want skip", s)
	}
	if s := results[1].Findings[0].Status; s != check.Error {
		t.Errorf("a pass without evidence is %s, want error", s)
	}
}

func TestFollowUpsBecomeSkips(t *testing.T) {
	fix := []plan.Wish{{Want: "x"}}
	cause := reports("a.cause", check.Finding{Status: check.Fail, Subject: "eth0"})
	follow := reports("a.follow",
		check.Finding{Status: check.Fail, Subject: "eth0", Why: "slow", Fix: fix},
		check.Finding{Status: check.Fail, Subject: "eth1"})
	follow.Requires = []string{"a.cause"}
	fs := run(t, cause, follow)[1].Findings
	if fs[0].Status != check.Skip || fs[0].Fix != nil || fs[0].Why != "follows from a.cause: slow" {
		t.Errorf("the same subject: %+v, want a skip without a fix that names its cause", fs[0])
	}
	if fs[1].Status != check.Fail {
		t.Errorf("another subject became %s, want fail", fs[1].Status)
	}
}

func TestInterruptedRunStillReports(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	r := check.Runner{}
	hangs := &check.Check{ID: "a.hangs", Run: func(context.Context, *check.Run) error { select {} }}
	fs := r.Run(ctx, []*check.Check{hangs}, check.Run{})[0].Findings
	if len(fs) != 1 || fs[0].Status != check.Unknown || fs[0].Why != "interrupted" {
		t.Errorf("got %+v, want one unknown that says why", fs)
	}
}
