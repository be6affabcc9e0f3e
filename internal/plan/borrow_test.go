// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// lent takes two knobs through several values; log is what they held in use.
func lent(t *testing.T, root string, e *plan.Engine, log *[]string, last func(context.Context) error) plan.Loan {
	t.Helper()
	set := func(p, v string) plan.Change {
		return plan.Change{Setting: plan.Setting{Kind: "knob", Name: p}, After: plan.Text(v), Tier: plan.Safe}
	}
	see := func(context.Context) error {
		a, _ := os.ReadFile(filepath.Join(root, knobA))
		b, _ := os.ReadFile(filepath.Join(root, knobB))
		*log = append(*log, strings.TrimSpace(string(a))+" "+strings.TrimSpace(string(b)))
		return nil
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l, err := e.PlanLoan(t.Context(), h, []plan.Stage{
		{Changes: []plan.Change{set(knobA, "1"), set(knobB, "256")}, Use: see}, // the first holds already
		{Changes: []plan.Change{set(knobA, "2"), set(knobB, "256")}, Use: see},
		{Use: see},
		{Changes: []plan.Change{set(knobB, "128")}, Use: func(ctx context.Context) error { return errors.Join(see(ctx), last(ctx)) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// place is a host with room for a journal.
func place(t *testing.T, root string) {
	t.Helper()
	setup(t, root)
	plantest.Files(t, root, map[string]string{"/var/lib/": ""})
}

func noError(context.Context) error { return nil }

func TestBorrow(t *testing.T) {
	root := plantest.TempDir(t)
	place(t, root)
	e := engine(root)
	before := plantest.Snapshot(t, root)
	var log []string
	r, err := e.Borrow(t.Context(), lent(t, root, e, &log, noError), plan.Options{})
	if err != nil || r.Outcome != plan.Returned || r.Exit() != 0 || r.Changed != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := strings.Join(log, ", "); got != "1 256, 2 256, 2 256, 2 128" {
		t.Errorf("in use: %s", got)
	}
	if d := plantest.Diff(before, plantest.Snapshot(t, root)); d != "" {
		t.Error(d)
	}
	txns, err := e.History()
	if err != nil || len(txns) != 1 || txns[0].State != plan.WasReturned || !txns[0].Borrow {
		t.Errorf("%+v, %v", txns, err)
	}
	if _, err := e.Undo(t.Context(), "", plan.Options{}); !errors.Is(err, plan.ErrNothing) {
		t.Errorf("undo: %v", err)
	}
}

// What fails while it is used, and a signal, put all back.
func TestBorrowFails(t *testing.T) {
	for name, c := range map[string]struct {
		use  func(cancel context.CancelCauseFunc) error
		want plan.Outcome
		exit int
	}{
		"error": {func(context.CancelCauseFunc) error { return errors.New("no room") }, plan.Restored, 4},
		"panic": {func(context.CancelCauseFunc) error { panic("oh") }, plan.Restored, 4},
		"signal": {func(cancel context.CancelCauseFunc) error {
			cancel(plan.Signal{Signal: syscall.SIGTERM})
			return errors.New("stopped")
		}, plan.Interrupted, 143},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			place(t, root)
			e := engine(root)
			before := plantest.Snapshot(t, root)
			ctx, cancel := context.WithCancelCause(t.Context())
			var log []string
			r, err := e.Borrow(ctx, lent(t, root, e, &log, func(context.Context) error { return c.use(cancel) }), plan.Options{})
			if err != nil || r.Outcome != c.want || r.Exit() != c.exit || r.Cause == nil {
				t.Errorf("%+v, exit %d, %v", r, r.Exit(), err)
			}
			if d := plantest.Diff(before, plantest.Snapshot(t, root)); d != "" {
				t.Error(d)
			}
		})
	}
}

// A loan that holds already is used without a journal, and under the lock.
func TestBorrowNothing(t *testing.T) {
	root := plantest.TempDir(t)
	place(t, root)
	e := engine(root)
	used := 0
	l := plan.Loan{Stages: []plan.Stage{{Use: func(context.Context) error {
		used++
		if _, err := e.Borrow(t.Context(), plan.Loan{}, plan.Options{}); !errors.Is(err, plan.ErrBusy) {
			t.Errorf("while it is used: %v", err)
		}
		return nil
	}}}}
	if r, err := e.Borrow(t.Context(), l, plan.Options{}); err != nil || r.Outcome != plan.Returned || used != 1 {
		t.Errorf("%+v, %v, used %d times", r, err, used)
	}
	l.Stages[0].Use = func(context.Context) error { return errors.New("no") }
	if r, err := e.Borrow(t.Context(), l, plan.Options{}); err != nil || r.Outcome != plan.Restored {
		t.Errorf("%+v, %v", r, err)
	}
	if txns, err := e.History(); err != nil || len(txns) != 0 {
		t.Errorf("%v, %v", txns, err)
	}
}

// Stopped at any point, the process gone, the host is put back by GiveBack, by
// the next transaction and by undo; until then status says so.
func TestBorrowStopped(t *testing.T) {
	next := map[string]func(e *plan.Engine) error{
		"give back": func(e *plan.Engine) error { _, err := e.GiveBack(t.Context(), plan.Options{}); return err },
		"apply": func(e *plan.Engine) error {
			_, err := e.Apply(t.Context(), sealed(knob("other", knobD, "5", "6")), plan.Options{})
			if _, undone := e.Undo(t.Context(), "", plan.Options{}); undone != nil {
				return undone
			}
			return err
		},
		"undo": func(e *plan.Engine) error {
			if _, err := e.Undo(t.Context(), "", plan.Options{}); err != nil && !errors.Is(err, plan.ErrNothing) {
				return err
			}
			return nil
		},
	}
	for name, heal := range next {
		t.Run(name, func(t *testing.T) {
			points, dirty := 1, 0
			for i := 0; i < points; i++ {
				root := plantest.TempDir(t)
				place(t, root)
				if err := os.WriteFile(filepath.Join(root, knobC), []byte("off\n"), 0o644); err != nil { // so that D can be set
					t.Fatal(err)
				}
				before := plantest.Snapshot(t, root)
				e, n := engine(root), 0
				e.Fault = func(string) error {
					if n++; n == i+1 && i > 0 {
						runtime.Goexit() // nothing is put back, and the lock is free
					}
					return nil
				}
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					var log []string
					_, _ = e.Borrow(context.Background(), lent(t, root, engine(root), &log, noError), plan.Options{})
				}()
				<-ended
				if i == 0 {
					points = n
				}
				e = engine(root)
				where := fmt.Sprintf("point %d of %d", i, points)
				if d := plantest.Diff(before, plantest.Snapshot(t, root)); d != "" {
					dirty++
					pending, busy, err := e.Status(t.Context())
					if err != nil || busy != nil || len(pending) != 1 || !pending[0].Borrow {
						t.Errorf("%s: status %+v, %v, %v: %s", where, pending, busy, err, d)
					}
				}
				if err := heal(e); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				if d := plantest.Diff(before, plantest.Snapshot(t, root)); d != "" {
					t.Errorf("%s: %s", where, d)
				}
				if pending, _, err := e.Status(t.Context()); err != nil || len(pending) != 0 && pending[0].State != plan.Empty {
					t.Errorf("%s: status then %+v, %v", where, pending, err)
				}
			}
			if points < 40 || dirty < 10 {
				t.Errorf("%d points, at %d of them the host was not as before", points, dirty)
			}
		})
	}
}
