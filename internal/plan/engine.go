// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Engine plans, applies and undoes changes below one root.
type Engine struct {
	Root  string // "" or "/" is the live machine; elsewhere only files can be changed
	Verbs []Verb // one per kind; the kind "file" is built in
	Tool  string // version, part of the plan's hash
	Self  string // path of the running hostcheck, to install a copy of

	// Captured says that the host is a recorded one: plans are made, of all that
	// Root has settings for, and nothing can be changed.
	Captured bool

	// For tests. Fault is asked before and after every call that changes
	// something, with its name, and may refuse it. Machine makes the tree play
	// a live machine.
	Fault   func(point string) error
	Machine *Machine
}

// Outcome is how an apply or an undo ended.
type Outcome string

// The outcomes.
const (
	Applied     Outcome = "applied"
	Undone      Outcome = "undone"
	Restored    Outcome = "restored"    // it failed; the host is as it was, read back
	Incomplete  Outcome = "incomplete"  // it failed; Left is not as it was
	Interrupted Outcome = "interrupted" // a signal; apply: the host is as it was; undo: undo again goes on
)

// Signal is the cause of a context that a signal ended; see [Result.Exit].
type Signal struct{ syscall.Signal }

func (s Signal) Error() string { return "signal: " + s.String() }

// Result is what an apply or an undo did to the host. Refusals before the
// first write are errors instead.
type Result struct {
	Txn     string
	Outcome Outcome
	Cause   error     // why it failed
	Changed int       // settings that were written (apply) or put back (undo)
	Left    []Left    // what is not as it should be
	Stays   []string  // what was not put back and may stay, one sentence each: see [Leaver]
	Journal error     // the journal could not be kept up; undo closes it later
	Until   time.Time // by when [Engine.Confirm] must come; zero: nothing waits for it
}

// Left is a setting that could not be put back.
type Left struct {
	Change        // After is what it should be again
	Live   Value  // what it holds, when Err is nil
	Err    error  // why it could not be read or set
	ByHand string // how a person restores it
}

func (l Left) String() string {
	s := fmt.Sprintf("%s should be %s again", l.Setting, short(l.After))
	if l.Err == nil {
		return fmt.Sprintf("%s, and is %s; by hand: %s", s, short(l.Live), l.ByHand)
	}
	return fmt.Sprintf("%s: %v; by hand: %s", s, l.Err, l.ByHand)
}

// Exit is the exit status for a result.
func (r Result) Exit() int {
	switch r.Outcome {
	case Restored:
		return 4
	case Incomplete:
		return 5
	case Interrupted:
		if s, ok := errors.AsType[Signal](r.Cause); ok {
			return 128 + int(s.Signal)
		}
		return 130
	default:
		return 0
	}
}

// Step is one moment of progress.
type Step struct {
	Phase  string // "apply", "verify", "restore"
	I, N   int    // change I of N, from 0
	Change Change
}

// Options of one apply or undo.
type Options struct {
	Allow    []Tier                          // beyond safe
	Verify   func(ctx context.Context) error // after the last change; an error takes everything back
	Progress func(Step)
	Force    bool // undo: overwrite what others changed since, and give up what cannot be put back

	// Within is how long after the verification a confirmation may take:
	// until [Engine.Confirm] the deferred changes are not made. Zero confirms at once.
	Within time.Duration

	// Reapply marks a transaction that only sets again what earlier ones set,
	// after a boot. There is nothing to undo of it once it is complete.
	Reapply bool
}

func (o Options) step(phase string, i, n int, c Change) {
	if o.Progress != nil {
		o.Progress(Step{phase, i, n, c})
	}
}

// ErrEmpty is a plan without changes.
var ErrEmpty = errors.New("the plan has no changes")

// UnfinishedError is an earlier transaction that was stopped half way.
type UnfinishedError struct {
	Txn  string
	Root string
}

func (e *UnfinishedError) Error() string {
	at := ""
	if e.Root != "/" {
		at = " --root " + e.Root
	}
	return fmt.Sprintf("transaction %s was stopped half way; take it back first: hostcheck%s undo %s", e.Txn, at, e.Txn)
}

// UnconfirmedError is an earlier transaction that waits for its confirmation.
type UnconfirmedError struct {
	Txn   string
	Until time.Time
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("transaction %s waits to be confirmed, until %s; first: hostcheck confirm, or hostcheck undo %s", e.Txn, e.Until.UTC().Format("15:04:05 UTC"), e.Txn)
}

// Drift is a setting that does not hold what was expected.
type Drift struct {
	Change
	Live Value
	Err  error // it could not be read
}

func (d Drift) describe(want Value) string {
	switch {
	case d.Err != nil:
		return fmt.Sprintf("%s: %v", d.Setting, d.Err)
	case d.Kind == KindFile && d.Live.Present && want.Present:
		return fmt.Sprintf("%s holds another text", d.Setting)
	}
	return fmt.Sprintf("%s is %s, not %s", d.Setting, short(d.Live), short(want))
}

// StaleError is a plan made for another state of the host. Nothing was changed.
type StaleError struct{ Drift []Drift }

func (e *StaleError) Error() string {
	lines := make([]string, len(e.Drift))
	for i, d := range e.Drift {
		lines[i] = d.describe(d.Before)
		if d.Err == nil && d.Live == d.After {
			lines[i] = fmt.Sprintf("%s is %s already", d.Setting, short(d.Live))
		}
	}
	return "the host changed since the plan was made; plan again: " + strings.Join(lines, "; ")
}

// short is a value for a sentence.
func short(v Value) string {
	switch {
	case !v.Present:
		return "absent"
	case strings.Contains(v.Text, "\n"):
		return fmt.Sprintf("a text of %d lines", strings.Count(strings.TrimSuffix(v.Text, "\n"), "\n")+1)
	case len(v.Text) > 60:
		return fmt.Sprintf("%.60q…", v.Text)
	}
	return fmt.Sprintf("%q", v.Text)
}

func (e *Engine) tree() tree {
	root := "/"
	if e.Root != "" {
		root = filepath.Clean(e.Root)
	}
	return tree{root, e.Fault}
}

// offline reports whether only files can be changed.
func (e *Engine) offline() bool { return !e.tree().live() && e.Machine == nil }

// open gives a reader that has read nothing yet.
func (e *Engine) open() (*host.Host, error) { return host.Open(e.tree().root, host.Options{}) }

func (e *Engine) driver(kind string) Driver {
	switch kind {
	case KindFile:
		return files{}
	case KindCopy:
		return copies{}
	}
	for _, v := range e.Verbs {
		if v.Kind() == kind {
			return v
		}
	}
	return nil
}

// kept reports whether files hold a setting, so that it is in a tree too and a
// reboot leaves it.
func (e *Engine) kept(s Setting) bool {
	k, ok := e.driver(s.Kind).(Keeper)
	return s.Kind == KindFile || ok && k.Kept(s)
}

// read reads one setting; a driver that panics is a driver that failed.
func (e *Engine) read(ctx context.Context, h *host.Host, s Setting) (v Value, err error) {
	d := e.driver(s.Kind)
	if d == nil {
		return Absent, fmt.Errorf("this hostcheck knows no settings of kind %q", s.Kind)
	}
	err = guard(func() error { v, err = d.Read(ctx, h, s); return err })
	return v, err
}

func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return f()
}

// work is a locked journal, ready for changes.
type work struct {
	*journal
	all    []*Txn // the oldest first
	unlock func()
}

func (w *work) close() {
	w.unlock()
	w.dir.Close()
}

func (e *Engine) lock(force bool) (*work, error) {
	if e.Captured {
		return nil, errors.New("a recorded host cannot be changed")
	}
	j, err := openJournal(e.tree(), true)
	if err != nil {
		return nil, err
	}
	unlock, err := j.lock()
	if err != nil {
		j.dir.Close()
		return nil, err
	}
	w := &work{journal: j, unlock: unlock}
	w.all, err = j.list()
	if err == nil && !force {
		err = e.tree().packages()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// Apply carries out p, or leaves the host as it was. An error says why nothing
// was changed: [BusyError], [PackagesError], [UnfinishedError], [StaleError],
// [ErrEmpty] or another. When anything fails later, what was done is put back
// and read back at once, and the result tells which.
func (e *Engine) Apply(ctx context.Context, p Plan, opt Options) (Result, error) {
	if err := e.accepts(p, opt.Allow); err != nil {
		return Result{}, err
	}
	w, err := e.lock(false)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	for _, t := range w.all {
		switch t.State {
		case Unfinished:
			return Result{}, &UnfinishedError{t.ID, e.tree().root}
		case Unconfirmed:
			if !opt.Reapply { // else it does not touch what the earlier one set: the boot did
				return Result{}, &UnconfirmedError{t.ID, t.Until}
			}
		case Unreadable:
			return Result{}, fmt.Errorf("cannot tell whether transaction %s is finished: %s; look into %s/%s and move it away", t.ID, t.Why, Dir, t.ID)
		default:
		}
	}
	h, err := e.open()
	if err != nil {
		return Result{}, err
	}
	defer h.Close()
	err = e.stale(ctx, h, p)
	if ctx.Err() != nil {
		return Result{Outcome: Interrupted, Cause: context.Cause(ctx)}, nil
	}
	if err != nil {
		return Result{}, err
	}
	if opt.Reapply {
		if err := w.forget(bootID(h)); err != nil {
			return Result{}, err
		}
	}
	l, err := w.begin(p, bootID(h), w.all, opt.Reapply)
	if err != nil {
		return Result{}, err
	}
	defer l.file.Close()
	tx := e.tx(ctx, l)
	err = e.forward(ctx, tx, p, opt)
	if err == nil {
		return e.applied(l.txn), nil
	}
	return e.failed(ctx, tx, opt, err), nil
}

func (e *Engine) tx(ctx context.Context, l *log) *Tx {
	return &Tx{ctx: ctx, tree: e.tree(), log: l, machine: e.Machine, self: e.Self}
}

func (e *Engine) applied(t *Txn) Result {
	r := Result{Txn: t.ID, Outcome: Applied, Changed: len(t.Plan.Changes)}
	if t.State == Unconfirmed {
		r.Changed, r.Until = t.Plan.awaited(), t.Until
	}
	return r
}

// failed takes back what a transaction did before err.
func (e *Engine) failed(ctx context.Context, tx *Tx, opt Options, err error) Result {
	if _, ok := errors.AsType[*HungError](err); ok {
		return e.leave(context.WithoutCancel(ctx), tx, err)
	}
	opt.Force = false // what others changed meanwhile stays
	r := e.back(context.WithoutCancel(ctx), tx, opt, true, record{Op: opEnd, Result: Restored, Error: err.Error()})
	r.Cause = err
	if r.Outcome == Restored && ctx.Err() != nil {
		r.Outcome, r.Cause = Interrupted, context.Cause(ctx)
	}
	return r
}

// leave ends an apply that the kernel holds up, and puts nothing back: a second
// write would wait behind the first, and what was changed before may be what
// the first one needs. The transaction stays unfinished.
func (e *Engine) leave(ctx context.Context, tx *Tx, cause error) Result {
	r := Result{Txn: tx.log.txn.ID, Outcome: Incomplete, Cause: cause}
	r.Journal = tx.log.append(record{Op: opHung, Error: cause.Error()})
	failed := map[Setting]error{}
	for i, c := range tx.log.txn.Plan.Changes {
		if tx.log.txn.last[i] == opIntent {
			failed[c.Setting] = cause
		}
	}
	var err error
	r.Left, r.Stays, err = e.left(ctx, tx.log.txn, failed)
	r.Cause = errors.Join(cause, err)
	return r
}

// accepts refuses a plan that is not whole, or has what may not be applied.
func (e *Engine) accepts(p Plan, allow []Tier) error {
	if len(p.Changes) == 0 {
		return ErrEmpty
	}
	if err := p.check(); err != nil {
		return err
	}
	for _, c := range p.Changes {
		switch {
		case e.driver(c.Kind) == nil:
			return fmt.Errorf("cannot apply %s: this hostcheck knows no settings of kind %q", c.Setting, c.Kind)
		case c.Tier != Safe && (c.Tier == Firmware || !slices.Contains(allow, c.Tier)):
			return fmt.Errorf("cannot apply %s: tier %s is not allowed", c.Setting, c.Tier)
		case e.offline() && c.Kind != KindFile:
			return fmt.Errorf("cannot apply %s: %w", c.Setting, ErrOffline)
		}
	}
	return nil
}

// stale compares the host with every Before; of a setting that the plan takes
// through several values, the first counts.
func (e *Engine) stale(ctx context.Context, h *host.Host, p Plan) error {
	var drift []Drift
	seen := map[Setting]bool{}
	for _, c := range p.Changes {
		if seen[c.Setting] {
			continue
		}
		seen[c.Setting] = true
		if live, err := e.read(ctx, h, c.Setting); err != nil || live != c.Before {
			drift = append(drift, Drift{c, live, err})
		}
	}
	if drift != nil {
		return &StaleError{drift}
	}
	return nil
}

func bootID(h *host.Host) string {
	s, _ := h.Text("/proc/sys/kernel/random/boot_id") // a tree may have none
	return s
}

// forward makes all changes and verifies them; those that wait for a
// confirmation are made last, or later. On an error the caller puts back.
func (e *Engine) forward(ctx context.Context, tx *Tx, p Plan, opt Options) error {
	wait := p.awaited()
	if err := e.make(ctx, tx, p.Changes, 0, wait, opt); err != nil {
		return err
	}
	if opt.Verify != nil {
		if err := tx.ready("verify"); err != nil {
			return err
		}
		opt.step("verify", len(p.Changes), len(p.Changes), Change{})
		if err := guard(func() error { return opt.Verify(ctx) }); err != nil {
			return fmt.Errorf("the changes were made, but do not help: %w", err)
		}
		if err := tx.log.append(record{Op: opVerify}); err != nil {
			return err
		}
	}
	if wait < len(p.Changes) && opt.Within > 0 {
		if err := tx.ready("finish"); err != nil {
			return err
		}
		return tx.log.append(record{Op: opAwait, Until: time.Now().Add(opt.Within).UTC()})
	}
	return e.finish(ctx, tx, p, wait, opt)
}

// finish makes what was deferred, and closes the journal.
func (e *Engine) finish(ctx context.Context, tx *Tx, p Plan, from int, opt Options) error {
	if err := e.make(ctx, tx, p.Changes, from, len(p.Changes), opt); err != nil {
		return err
	}
	if err := tx.ready("finish"); err != nil { // a signal during the last step counts
		return err
	}
	return tx.log.append(record{Op: opEnd, Result: Applied})
}

// make makes the changes from index from to before to, each announced first
// and read back after.
func (e *Engine) make(ctx context.Context, tx *Tx, changes []Change, from, to int, opt Options) error {
	for i, run := range runs(changes[from:to]) {
		i += from
		if err := tx.ready("apply " + run[0].String()); err != nil {
			return err
		}
		opt.step("apply", i, len(changes), run[0])
		if err := tx.log.append(span(opIntent, i, len(run))...); err != nil {
			return err
		}
		if err := guard(func() error { return e.driver(run[0].Kind).Apply(ctx, tx, run) }); err != nil {
			return err
		}
		if err := e.readBack(ctx, run); err != nil {
			return err
		}
		if err := tx.log.append(span(opDone, i, len(run))...); err != nil {
			return err
		}
	}
	return nil
}

// runs yields neighbouring changes of one kind, with the index of the first.
func runs(changes []Change) iter.Seq2[int, []Change] {
	return func(yield func(int, []Change) bool) {
		for i := 0; i < len(changes); {
			n := i + 1
			for n < len(changes) && changes[n].Kind == changes[i].Kind {
				n++
			}
			if !yield(i, changes[i:n]) {
				return
			}
			i = n
		}
	}
}

// span is one record for each of n changes from i on.
func span(o op, i, n int) []record {
	out := make([]record, n)
	for k := range out {
		out[k] = record{Op: o, I: i + k}
	}
	return out
}

// readBack compares the host with every After; the last one of a setting counts.
func (e *Engine) readBack(ctx context.Context, run []Change) error {
	h, err := e.open()
	if err != nil {
		return err
	}
	defer h.Close()
	last := map[Setting]Change{}
	for _, c := range run {
		last[c.Setting] = c
	}
	for _, c := range run {
		c = last[c.Setting]
		live, err := e.read(ctx, h, c.Setting)
		switch {
		case err != nil:
			return fmt.Errorf("cannot read %s back: %w", c.Setting, err)
		case live == c.Before && live != c.After:
			return fmt.Errorf("%s was set to %s without an error, but still reads %s: the write was ignored", c.Setting, short(c.After), short(live))
		case live != c.After:
			return fmt.Errorf("%s was set to %s without an error, but reads %s", c.Setting, short(c.After), short(live))
		}
	}
	return nil
}
