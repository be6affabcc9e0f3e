// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNoneWaits is a confirmation that nothing waits for.
var ErrNoneWaits = errors.New("nothing waits to be confirmed")

// Confirm keeps the transaction that waits for it, "" whichever it is: it makes
// the changes that were deferred until then. Where a setting does not hold any
// more what was set, nothing is done. A failure takes the whole transaction back.
func (e *Engine) Confirm(ctx context.Context, id string, opt Options) (Result, error) {
	w, err := e.lock(true) // a package manager at work is no reason to miss the deadline
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	i := slices.IndexFunc(w.all, func(t *Txn) bool { return t.State == Unconfirmed && (id == "" || t.ID == id) })
	if i < 0 {
		return Result{}, fmt.Errorf("%w%s; \"hostcheck history\" says what became of it", ErrNoneWaits, named(id))
	}
	t := w.all[i]
	if err := e.holds(ctx, t); err != nil {
		return Result{}, err
	}
	l, err := w.reopen(t.ID)
	if err != nil {
		return Result{}, err
	}
	defer l.file.Close()
	tx := e.tx(ctx, l)
	if err := l.append(record{Op: opConfirm}); err != nil {
		return Result{}, err // it waits on, and may be confirmed again
	}
	if err := e.finish(ctx, tx, t.Plan, t.Plan.awaited(), opt); err != nil {
		return e.failed(ctx, tx, opt, err), nil
	}
	return e.applied(l.txn), nil
}

func named(id string) string {
	if id == "" {
		return ""
	}
	return ": not " + id
}

// holds refuses a transaction of which a setting is not as it was set.
func (e *Engine) holds(ctx context.Context, t *Txn) error {
	h, err := e.open()
	if err != nil {
		return err
	}
	defer h.Close()
	var lines []string
	for _, s := range e.survey(ctx, h, t) {
		switch {
		case s.Err == nil && s.Live == s.After:
		case t.BootID != bootID(h) && !s.Persist && s.Err == nil:
			lines = append(lines, s.describe(s.After)+": a reboot has reset it")
		default:
			lines = append(lines, s.describe(s.After))
		}
	}
	if lines != nil {
		return fmt.Errorf("cannot confirm %s: not all is as it was set: %s; take it back: hostcheck undo %s", t.ID, strings.Join(lines, "; "), t.ID)
	}
	return nil
}

// Expire takes back the transactions that had to be confirmed and were not,
// also one that was stopped half way. It is what the timer outside this process
// runs. wait says how long one may still be confirmed: then nothing was done.
// What others changed since stays; the rest is put back all the same.
func (e *Engine) Expire(ctx context.Context, opt Options) (out []Result, wait time.Duration, err error) {
	w, err := e.lock(true)
	if err != nil {
		return nil, 0, err
	}
	defer w.close()
	h, err := e.open()
	if err != nil {
		return nil, 0, err
	}
	boot := bootID(h)
	h.Close()
	for _, t := range slices.Backward(w.all) {
		if !t.awaits() {
			continue
		}
		// a clock that was set meanwhile must not stretch it
		if left := min(time.Until(t.Until), opt.Within); t.State == Unconfirmed && t.BootID == boot && left > 0 {
			return out, left, nil
		}
		r, err := e.undo(ctx, w, t, opt, true)
		if err != nil {
			return out, 0, err
		}
		out = append(out, r)
	}
	return out, 0, nil
}
