// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"fmt"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Stage is changes for a while, and what is done while they hold.
type Stage struct {
	Changes []Change // on top of those of the stages before; Before and Diff are filled in
	Use     func(ctx context.Context) error

	end int // of its changes in the plan
}

// Loan is what is borrowed of a host, stage by stage.
type Loan struct {
	Plan   Plan
	Stages []Stage
}

// PlanLoan makes a plan of the changes of all stages. Settings that hold
// already are not part of it. An error names the one that cannot be.
func (e *Engine) PlanLoan(ctx context.Context, h *host.Host, stages []Stage) (Loan, error) {
	l := Loan{Plan: Plan{Tool: e.Tool, Host: hostName(h)}}
	next := map[Setting]Value{}
	for _, s := range stages {
		for _, c := range s.Changes {
			if why := e.complete(ctx, h, &c, next); why != "" {
				return l, fmt.Errorf("cannot borrow %s: %s", c.Setting, why)
			}
			if next[c.Setting] = c.After; c.Before != c.After {
				l.Plan.Changes = append(l.Plan.Changes, c)
			}
		}
		s.end = len(l.Plan.Changes)
		l.Stages = append(l.Stages, s)
	}
	l.Plan.Seal()
	return l, nil
}

// Borrow makes the changes of each stage, has it used, and puts everything back
// at the end, after an error and after a signal. It holds the lock all the
// time. Where the process ends in between, the transaction stands unfinished
// until [Engine.GiveBack], an undo or the next transaction puts it back.
func (e *Engine) Borrow(ctx context.Context, l Loan, opt Options) (Result, error) {
	if len(l.Plan.Changes) > 0 {
		if err := e.accepts(l.Plan, opt.Allow); err != nil {
			return Result{}, err
		}
	}
	w, err := e.lock(false)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	if len(l.Plan.Changes) > 0 {
		return e.transact(ctx, w, l.Plan, opt, l.Stages)
	}
	for _, s := range l.Stages { // nothing to be put back, and so no journal
		if err := use(ctx, s); err != nil {
			r := Result{Outcome: Restored, Cause: err}
			if ctx.Err() != nil {
				r.Outcome, r.Cause = Interrupted, context.Cause(ctx)
			}
			return r, nil
		}
	}
	return Result{Outcome: Returned}, nil
}

func use(ctx context.Context, s Stage) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.Use == nil {
		return nil
	}
	return guard(func() error { return s.Use(ctx) })
}

// lend carries a journalled loan out.
func (e *Engine) lend(ctx context.Context, tx *Tx, p Plan, stages []Stage, opt Options) Result {
	from := 0
	for _, s := range stages {
		err := e.make(ctx, tx, p.Changes, from, s.end, opt)
		if err == nil {
			err = use(ctx, s)
		}
		if err != nil {
			return e.failed(ctx, tx, opt, err)
		}
		from = s.end
	}
	opt.Force = false // what others changed meanwhile stays
	return e.back(context.WithoutCancel(ctx), tx, opt, true, record{Op: opEnd, Result: Returned})
}

// GiveBack puts back what a process borrowed that has ended in between. What
// others changed since stays. It writes nothing where there is no such
// transaction; a [BusyError] is one whose process is still at work.
func (e *Engine) GiveBack(ctx context.Context, opt Options) ([]Result, error) {
	txns, err := e.History()
	if err != nil {
		return nil, err
	}
	for _, t := range txns {
		if t.Borrow && t.State == Unfinished {
			w, err := e.lock(true) // a package manager at work is no reason to leave it so
			if err != nil {
				return nil, err
			}
			defer w.close()
			return e.giveBack(ctx, w, opt)
		}
	}
	return nil, nil
}

func (e *Engine) giveBack(ctx context.Context, w *work, opt Options) (out []Result, err error) {
	opt.Force = false
	for _, t := range w.all {
		if !t.Borrow || t.State != Unfinished {
			continue
		}
		r, err := e.undo(ctx, w, t, opt, true)
		if err != nil {
			return out, err
		}
		if out = append(out, r); r.Outcome != Undone {
			return out, nil // it stays unfinished, and whoever comes next hears of it
		}
	}
	return out, nil
}
