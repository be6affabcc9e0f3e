// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Errors of undo that are not about the host.
var (
	ErrNothing = errors.New("there is nothing to undo")
	ErrUndone  = errors.New("nothing to do")
)

// DriftError is settings that someone else changed since, or that cannot be
// read any more. Nothing was changed.
type DriftError struct {
	Txn   string
	Drift []Drift // Before is what hostcheck found, After what it set
}

func (e *DriftError) Error() string {
	lines := make([]string, len(e.Drift))
	for i, d := range e.Drift {
		lines[i] = d.describe(d.After)
		switch {
		case d.Err != nil:
		case d.Kind == KindFile && d.Live.Present:
			lines[i] += ": someone else changed it"
		default:
			lines[i] += fmt.Sprintf(" as set nor %s as before: someone else changed it", short(d.Before))
		}
	}
	return fmt.Sprintf("cannot undo %s: not all is as hostcheck left it, and only --force goes on from there: %s", e.Txn, strings.Join(lines, "; "))
}

// StackedError is later transactions that set the same settings.
type StackedError struct {
	Txn   string
	Later []string // the newest first: the order in which to undo
}

func (e *StackedError) Error() string {
	return fmt.Sprintf("cannot undo %s: later transactions set the same; undo them first, in this order: %s (or all: hostcheck undo --all)",
		e.Txn, strings.Join(e.Later, ", "))
}

// Standing is how a setting stands after a transaction touched it.
type Standing string

// The standings. The first two and the last need nothing, the next two are put
// back, the others stop an undo.
const (
	AsBefore Standing = "as it was"
	Reset    Standing = "reset by a reboot"
	AsSet    Standing = "as hostcheck set it"
	Partly   Standing = "half way" // a write that was cut short, or that the kernel took in part
	Drifted  Standing = "changed by someone else"
	Replaced Standing = "replaced since" // the copy of hostcheck, by another one: it stays
	Unread   Standing = "unreadable"
)

func (s Standing) wrong() bool { return s != AsBefore && s != Reset && s != Replaced }

// touched is one setting of a transaction that may have been written.
type touched struct {
	Drift    // Before: what it was; After: the last value that was to be set
	Standing Standing
	changes  []int
}

// survey says how each setting stands, in the order of the plan. What only a
// running kernel holds is gone where there is another: in a tree all of it, and
// after a reboot what was not made to last, or not seen to be, because the
// transaction was stopped.
func (e *Engine) survey(ctx context.Context, h *host.Host, t *Txn) []touched {
	var out []touched
	at := map[Setting]int{}
	for i, c := range t.Plan.Changes {
		if _, touched := t.images[c.Target]; t.last[i] == "" || c.Kind == KindFile && !touched {
			continue // announced at most
		}
		k, ok := at[c.Setting]
		if !ok {
			k = len(out)
			at[c.Setting] = k
			out = append(out, touched{Drift: Drift{Change: c}})
		}
		out[k].After = c.After
		out[k].changes = append(out[k].changes, i)
	}
	rebooted := t.BootID != bootID(h)
	for k := range out {
		s := &out[k]
		kept := e.kept(s.Setting)
		if e.offline() && !kept {
			s.Standing = Reset
			continue
		}
		s.Live, s.Err = e.read(ctx, h, s.Setting)
		ours := func(i int) bool { return t.Plan.Changes[i].After == s.Live }
		open := func(i int) bool { return t.last[i] == opIntent || t.last[i] == opUndoIntent }
		switch lost := rebooted && (!s.Persist || t.stopped && !kept); {
		case s.Err != nil && lost && (host.Absent(s.Err) || errors.Is(s.Err, fs.ErrNotExist)):
			s.Standing = Reset
		case s.Err != nil:
			s.Standing = Unread
		case t.hung && !rebooted && slices.ContainsFunc(s.changes, open): // what it holds now may not be the last of it
			s.Standing = Partly
		case s.Live == s.Before:
			s.Standing = AsBefore
		case slices.ContainsFunc(s.changes, ours):
			s.Standing = AsSet
		case lost:
			s.Standing = Reset
		case s.Kind == KindCopy && s.Live.Present:
			s.Standing = Replaced
		case s.Kind != KindFile && slices.ContainsFunc(s.changes, open):
			s.Standing = Partly
		default:
			s.Standing = Drifted
		}
	}
	return out
}

// reversal gives the indices of the changes to take back, the last one first:
// all of each setting that stands wrong, and of settings that the plan only
// borrowed (off, something else, on) whenever anything is taken back. What
// others changed needs force; what cannot be read is tried blindly with force
// and by the transaction itself.
func reversal(list []touched, own, force bool) []int {
	var out []int
	for _, s := range list {
		if s.Standing == AsSet || s.Standing == Partly || s.Standing == Drifted && force || s.Standing == Unread && (own || force) {
			out = append(out, s.changes...)
		}
	}
	if len(out) == 0 {
		return nil
	}
	for _, s := range list {
		if s.Standing == AsBefore && len(s.changes) > 1 && s.Before == s.After {
			out = append(out, s.changes...)
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// back puts back what the transaction of tx changed, as far as possible, reads
// everything back, and ends the journal with end when all is as it was. It
// goes on when one setting fails, and when the journal does: the host comes
// first. force is for settings that others changed; own tells that the
// transaction has not ended yet, so that failing means incomplete.
func (e *Engine) back(ctx context.Context, tx *Tx, opt Options, own bool, end record) Result {
	t := tx.log.txn
	tx.ctx, tx.back = ctx, true
	r := Result{Txn: t.ID, Outcome: end.Result}
	note := func(err error) {
		if r.Journal == nil {
			r.Journal = err
		}
	}
	failed := map[Setting]error{}
	stuck := false
	_ = tx.sweepTemps() // a full disk needs the room at once; what fails here is seen below
	h, err := e.open()
	if err != nil {
		r.Outcome, r.Cause = Incomplete, err
		return r
	}
	list := e.survey(ctx, h, t)
	h.Close()
	order := reversal(list, own, opt.Force)
	if len(order) > 0 {
		note(tx.log.append(record{Op: opUndo, Error: end.Error}))
	}
	changes := make([]Change, len(order))
	for k, i := range order {
		changes[k] = t.Plan.Changes[i].Reverse()
	}
	for k, run := range runs(changes) {
		if ctx.Err() != nil {
			r.Outcome, r.Cause = Interrupted, context.Cause(ctx)
			return r
		}
		opt.step("restore", k, len(changes), run[0])
		var todo []Change
		var intents, dones []record
		for n, c := range run {
			if other := neededBy(failed, c); other != nil {
				failed[c.Setting] = fmt.Errorf("it is needed to put %s back first", *other)
				continue
			}
			if stuck && t.Plan.guards(c) {
				failed[c.Setting] = errors.New("it stays, to put the rest back once the kernel answers")
				continue
			}
			todo = append(todo, c)
			intents = append(intents, record{Op: opUndoIntent, I: order[k+n]})
			dones = append(dones, record{Op: opUndoDone, I: order[k+n]})
		}
		if run = todo; len(run) == 0 {
			continue
		}
		note(tx.log.append(intents...))
		apply := func(run []Change) error {
			return guard(func() error { return e.driver(run[0].Kind).Apply(ctx, tx, run) })
		}
		err := apply(run)
		for _, c := range run { // what failed on the way to here counts no more
			delete(failed, c.Setting)
		}
		if _, hung := errors.AsType[*HungError](err); hung { // the others of its kind would wait behind it
			stuck = true
			for _, c := range run {
				failed[c.Setting] = err
			}
			note(tx.log.append(record{Op: opHung, Error: err.Error()}))
		} else if err != nil && len(run) > 1 { // one that fails must not keep the others
			err = nil
			for n := range run {
				if err := apply(run[n : n+1]); err != nil {
					failed[run[n].Setting] = err
				}
			}
		} else if err != nil {
			failed[run[0].Setting] = err
		}
		// what reads otherwise is not done: a later undo must not take it for
		// somebody else's
		if err == nil && e.readBack(ctx, run) == nil {
			note(tx.log.append(dones...))
		}
	}
	r.Cause = errors.Join(tx.mendRenders(), tx.sweep())
	r.Left, r.Stays, err = e.left(ctx, t, failed)
	r.Cause = errors.Join(r.Cause, err)
	r.Changed = len(order)
	switch {
	case r.Cause != nil, len(r.Left) > 0:
		r.Outcome = Incomplete
		if own || !opt.Force || stuck { // what hangs may still be made
			return r
		}
		end.Result = Incomplete // given up
	}
	if len(t.last) > 0 || !own { // else it is empty, and stays so
		note(tx.log.append(end))
	}
	return r
}

// neededBy gives the setting that could not be put back and needs a file as it
// is: systemctl knows nothing of a unit that has no file any more.
func neededBy(failed map[Setting]error, c Change) *Setting {
	if c.Kind != KindFile {
		return nil
	}
	name := path.Base(c.Target)
	for s := range failed {
		if s.Kind != KindFile && (s.Target == name || s.Name == name) {
			return &s
		}
	}
	return nil
}

// left reads every setting again and names what is not as it was, and what may
// stay so.
func (e *Engine) left(ctx context.Context, t *Txn, failed map[Setting]error) (out []Left, stays []string, err error) {
	h, err := e.open()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	for _, s := range e.survey(ctx, h, t) {
		if !s.Standing.wrong() {
			continue
		}
		c := s.Reverse()
		if d, ok := e.driver(c.Kind).(Leaver); ok && s.Err == nil {
			if why := d.Stays(ctx, h, c, s.Live); why != "" {
				stays = append(stays, why)
				continue
			}
		}
		l := Left{Change: c, Live: s.Live, Err: s.Err, ByHand: "set it to " + short(c.After)}
		if l.Err == nil {
			l.Err = failed[s.Setting]
		}
		if d, ok := e.driver(c.Kind).(Hander); ok {
			l.ByHand = d.ByHand(c)
		}
		out = append(out, l)
	}
	return out, stays, nil
}

// sweep removes what writes that were cut short left behind, and the
// directories that were made for the files, when they are empty.
func (tx *Tx) sweep() error {
	err := tx.sweepTemps()
	for _, p := range slices.Backward(tx.log.txn.made) {
		err = errors.Join(err, tx.tree.removeDir(p))
	}
	return errors.Join(err, tx.sweepCopies())
}

func (tx *Tx) sweepTemps() (err error) {
	t := tx.log.txn
	for _, p := range slices.Sorted(maps.Keys(t.images)) {
		err = errors.Join(err, tx.tree.removeFile(path.Join(path.Dir(p), tempName(p, t.ID))))
	}
	for _, p := range slices.Sorted(maps.Keys(t.renders)) {
		err = errors.Join(err, tx.removeRendering(path.Join(path.Dir(p), tempName(p, t.ID))))
	}
	for i, c := range t.Plan.Changes {
		if c.Kind == KindCopy && t.last[i] != "" {
			err = errors.Join(err, tx.tree.removeFile(path.Join(path.Dir(c.Target), tempName(c.Target, t.ID))))
		}
	}
	return err
}

// Undo takes back one transaction, "" the latest that can be. Each setting is
// put back where it holds what hostcheck set, left alone where it is as it
// was, and where someone else changed it nothing at all is done ([DriftError])
// unless forced. It can be repeated after it was stopped anywhere.
func (e *Engine) Undo(ctx context.Context, id string, opt Options) (Result, error) {
	w, err := e.lock(opt.Force)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	for _, t := range slices.Backward(w.all) {
		if t.ID == id || id == "" && (t.needsUndo() || t.State == Unreadable) {
			return e.undo(ctx, w, t, opt, false)
		}
	}
	if id == "" {
		return Result{}, ErrNothing
	}
	return Result{}, fmt.Errorf("there is no transaction %q; hostcheck history lists them", id)
}

// UndoAll takes back every transaction that can be, the newest first, and
// stops at the first that cannot.
func (e *Engine) UndoAll(ctx context.Context, opt Options) ([]Result, error) {
	w, err := e.lock(opt.Force)
	if err != nil {
		return nil, err
	}
	defer w.close()
	var out []Result
	for _, t := range slices.Backward(w.all) {
		if !t.needsUndo() && t.State != Unreadable {
			continue
		}
		r, err := e.undo(ctx, w, t, opt, false)
		if err != nil {
			return out, err
		}
		if out = append(out, r); r.Outcome != Undone {
			return out, nil
		}
	}
	if out == nil {
		return nil, ErrNothing
	}
	return out, nil
}

// undo takes back t. own is for one that was never confirmed: as where an apply
// fails, what others changed since stays, and the rest is put back.
func (e *Engine) undo(ctx context.Context, w *work, t *Txn, opt Options, own bool) (Result, error) {
	switch t.State {
	case Unreadable:
		return Result{}, fmt.Errorf("cannot undo %s: its journal is not to be trusted: %s", t.ID, t.Why)
	case Empty, WasBack, WasReturned, WasUndone, GivenUp, Reapplied:
		return Result{}, fmt.Errorf("%w: transaction %s is %s", ErrUndone, t.ID, t.State)
	default: // unfinished or in force
	}
	if err := w.stacked(t); err != nil && !opt.Force {
		return Result{}, err
	}
	for _, c := range t.Plan.Changes {
		if e.driver(c.Kind) == nil {
			return Result{}, fmt.Errorf("cannot undo %s: this hostcheck knows no settings of kind %q", t.ID, c.Kind)
		}
	}
	h, err := e.open()
	if err != nil {
		return Result{}, err
	}
	var drift []Drift
	for _, s := range e.survey(ctx, h, t) {
		if s.Standing == Drifted || s.Standing == Unread {
			drift = append(drift, s.Drift)
		}
	}
	h.Close()
	if drift != nil && !opt.Force && !own {
		return Result{}, &DriftError{t.ID, drift}
	}
	l, err := w.reopen(t.ID)
	if err != nil {
		return Result{}, err
	}
	defer l.file.Close()
	tx := e.tx(ctx, l)
	r := e.back(ctx, tx, opt, own, record{Op: opUndoEnd, Result: Undone})
	*t = *l.txn // those before it may be undone now
	return r, nil
}

// stacked refuses what would pull a setting from under a later transaction.
func (w *work) stacked(t *Txn) error {
	mine := map[Setting]bool{}
	for _, c := range t.Plan.Changes {
		mine[c.Setting] = true
	}
	var later []string
	for _, o := range slices.Backward(w.all) {
		if o.ID <= t.ID {
			break
		}
		if o.State == Unreadable {
			return fmt.Errorf("cannot undo %s: the journal of the later %s is not to be trusted: %s", t.ID, o.ID, o.Why)
		}
		if o.needsUndo() && slices.ContainsFunc(o.Plan.Changes, func(c Change) bool { return mine[c.Setting] }) {
			later = append(later, o.ID)
		}
	}
	if later != nil {
		return &StackedError{t.ID, later}
	}
	return nil
}

// History lists all transactions, the oldest first. It writes nothing.
func (e *Engine) History() ([]*Txn, error) {
	j, err := openJournal(e.tree(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer j.dir.Close()
	return j.list()
}

// Pending is an unfinished transaction and how its settings stand.
type Pending struct {
	*Txn
	Settings []Stand
}

// Stand is how one setting of a pending transaction stands.
type Stand struct {
	Drift
	Standing Standing
}

// Status lists the unfinished and unreadable transactions, which are to be
// undone, and the one that waits to be confirmed. busy
// is a [BusyError] while a hostcheck is at work, whose own transaction is then
// among them. It writes nothing.
func (e *Engine) Status(ctx context.Context) (pending []Pending, busy error, err error) {
	j, err := openJournal(e.tree(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer j.dir.Close()
	if err := j.busy(); errors.Is(err, ErrBusy) {
		busy = err
	} else if err != nil {
		return nil, nil, err
	}
	all, err := j.list()
	if err != nil {
		return nil, nil, err
	}
	h, err := e.open()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	for _, t := range all {
		if t.State != Unfinished && t.State != Unreadable && t.State != Unconfirmed {
			continue
		}
		p := Pending{Txn: t}
		for _, s := range e.survey(ctx, h, t) {
			p.Settings = append(p.Settings, Stand{s.Drift, s.Standing})
		}
		pending = append(pending, p)
	}
	return pending, busy, nil
}
