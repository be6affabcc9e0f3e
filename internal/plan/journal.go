// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hostcheck/hostcheck/internal/pattern"
	"golang.org/x/sys/unix"
)

// Dir is where the journal lives: a directory per transaction, with plan.json
// (what is to be done, written whole before anything else) and log (what was
// done, one JSON record a line, each synced before the step it announces).
const Dir = "/var/lib/hostcheck"

const (
	txnSchema  = "hostcheck.txn/v1"
	maxJournal = 32 << 20 // bytes of one journal file
	idLayout   = "20060102T150405"
)

var idForm = pattern.Late(`^[0-9]{8}T[0-9]{6}-[0-9a-f]{4}$`)

// header is plan.json.
type header struct {
	Schema  string    `json:"schema"`
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	BootID  string    `json:"boot_id"`
	Reapply bool      `json:"reapply,omitempty"` // it only sets again what earlier ones set
	Borrow  bool      `json:"borrow,omitempty"`  // it was to be put back by itself: see [Engine.Borrow]
	Plan    Plan      `json:"plan"`
}

// txn is the transaction before its first record.
func (h *header) txn() *Txn {
	return &Txn{
		ID: h.ID, Started: h.Started, BootID: h.BootID, Reapply: h.Reapply, Borrow: h.Borrow, Plan: h.Plan,
		last: map[int]op{}, images: map[string]*meta{}, renders: map[string]*rendering{},
	}
}

// op is what a record says.
type op string

const (
	opBegin      op = "begin"
	opIntent     op = "intent"   // change I is about to be made
	opMkdir      op = "mkdir"    // directory Path is about to be made
	opImage      op = "image"    // file Path is about to be touched; it has Meta, or is not there
	opRun        op = "run"      // Argv was run
	opHung       op = "hung"     // the kernel did not answer: Error; all was left as it was at that moment
	opDone       op = "done"     // change I was made and read back
	opVerify     op = "verify"   // the checks hold
	opAwait      op = "await"    // all but the deferred changes are made; Until: the deadline to confirm them
	opRender     op = "render"   // a program is about to make Path anew; it held Data, with Meta
	opRendered   op = "rendered" // it did; Data is the SHA-256 of what Path holds now
	opConfirm    op = "confirm"
	opUndo       op = "undo-begin"
	opUndoIntent op = "undo-intent"
	opOverwrite  op = "overwrite" // undo by force is about to replace Data of Path
	opUndoDone   op = "undo-done"
	opUndoEnd    op = "undo-end" // Result: undone, or incomplete (given up by force)
	opEnd        op = "end"      // Result: applied, or restored, or of what was borrowed returned
)

// record is one line of the log.
type record struct {
	Op     op        `json:"op"`
	At     time.Time `json:"at"`
	I      int       `json:"i"`
	Path   string    `json:"path,omitempty"`
	Meta   *meta     `json:"meta,omitempty"`
	Data   []byte    `json:"data,omitempty"`
	Argv   []string  `json:"argv,omitempty"`
	Output string    `json:"output,omitempty"`
	Result Outcome   `json:"result,omitempty"`
	Error  string    `json:"error,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

// State is what became of a transaction.
type State string

// The states. An unfinished one asks for an undo, an unconfirmed one for a
// confirmation.
const (
	Empty       State = "empty"         // stopped before the first change
	Unfinished  State = "unfinished"    // stopped half way, or could not be restored
	Unconfirmed State = "unconfirmed"   // made and verified; taken back unless it is confirmed in time
	Reapplied   State = "applied again" // set after a boot what earlier transactions set; undo those
	InForce     State = "applied"       //
	WasUndone   State = "undone"        //
	WasBack     State = "restored"      // it failed, and took itself back
	WasReturned State = "returned"      // it was borrowed for a while, and is as it was
	GivenUp     State = "partly undone" // undone by force, except for what could not be
	Unreadable  State = "unreadable"    // its journal is not to be trusted
)

// Txn is one transaction as its journal tells it.
type Txn struct {
	ID      string
	Started time.Time
	Ended   time.Time // last record
	BootID  string    // of the boot that it ran in
	Reapply bool      // it only sets again what earlier ones set
	Borrow  bool      // it was to be put back by itself: whoever finds it unfinished may do so
	Until   time.Time // an unconfirmed one: the deadline
	Plan    Plan
	State   State
	Why     string // why it failed or is unreadable

	stopped bool // it was unfinished when it was read

	last    map[int]op            // change -> the latest of intent, done, undo-intent, undo-done
	images  map[string]*meta      // file -> what it was; nil: it was not there
	made    []string              // directories, parents first
	renders map[string]*rendering // file -> what a program made of it
	hung    bool                  // the kernel may still be at a change that was begun
}

// add takes one record into account. It refuses what no run of hostcheck
// writes; a journal is input like any other.
func (t *Txn) add(r record) error {
	changes := t.Plan.Changes
	first := t.State == ""
	switch r.Op {
	case opBegin:
		if !first {
			return errors.New("it begins twice")
		}
		t.State = Empty
	case opIntent, opDone, opUndoIntent, opUndoDone:
		if r.I < 0 || r.I >= len(changes) {
			return fmt.Errorf("change %d is not in the plan", r.I)
		}
		t.last[r.I] = r.Op
		t.State = Unfinished
	case opImage:
		if _, twice := t.images[r.Path]; twice || !t.mine(r.Path) {
			return fmt.Errorf("%q is not a file of the plan, or comes twice", r.Path)
		}
		if r.Meta != nil && r.Meta.Mode&^0o1777 != 0 {
			return fmt.Errorf("%q has mode %o", r.Path, r.Meta.Mode)
		}
		t.images[r.Path] = r.Meta
	case opMkdir:
		above := func(c Change) bool { return c.Kind == KindFile && strings.HasPrefix(c.Target, r.Path+"/") }
		if !clean(r.Path) || !slices.ContainsFunc(changes, above) {
			return fmt.Errorf("%q is not above a file of the plan", r.Path)
		}
		t.made = append(t.made, r.Path)
	case opOverwrite:
		if !t.mine(r.Path) {
			return fmt.Errorf("%q is not a file of the plan", r.Path)
		}
	case opRender:
		if !renderable(r.Path) || r.Meta == nil || r.Meta.Mode&^0o1777 != 0 {
			return fmt.Errorf("%q is not a file that is made anew", r.Path)
		}
		if was := t.renders[r.Path]; was != nil { // once more: the first is what it was
			was.after = ""
			break
		}
		t.renders[r.Path] = &rendering{before: string(r.Data), meta: *r.Meta}
	case opRendered:
		if t.renders[r.Path] == nil || len(r.Data) != 2*sha256.Size {
			return fmt.Errorf("%q was not about to be rendered", r.Path)
		}
		t.renders[r.Path].after = string(r.Data)
	case opVerify, opRun:
	case opHung:
		t.hung = true
	case opAwait:
		if t.State != Unfinished || t.Plan.awaited() == len(changes) || r.Until.IsZero() {
			return errors.New("it has nothing to confirm")
		}
		t.State, t.Until = Unconfirmed, r.Until
	case opConfirm:
		if t.State != Unconfirmed {
			return errors.New("it is confirmed and does not wait for it")
		}
		t.State = Unfinished
	case opUndo:
		if t.State != Empty {
			t.State = Unfinished
		}
	case opEnd, opUndoEnd:
		states := map[Outcome]State{Applied: InForce, Restored: WasBack, Returned: WasReturned, Undone: WasUndone, Incomplete: GivenUp}
		s, ok := states[r.Result]
		if !ok || (s == WasReturned || s == InForce) && t.Borrow != (s == WasReturned) || (r.Op == opUndoEnd) != (s == WasUndone || s == GivenUp) {
			return fmt.Errorf("%s cannot be %q", r.Op, r.Result)
		}
		if t.State = s; s == InForce && t.Reapply {
			t.State = Reapplied
		}
	default:
		return fmt.Errorf("record %q is not known to this hostcheck", r.Op)
	}
	if first && r.Op != opBegin {
		return fmt.Errorf("it starts with %q", r.Op)
	}
	if r.Error != "" && t.Why == "" {
		t.Why = r.Error
	}
	t.Ended = r.At
	return nil
}

func (t *Txn) mine(p string) bool {
	return slices.ContainsFunc(t.Plan.Changes, func(c Change) bool { return c.Kind == KindFile && c.Target == p })
}

// wrote reports whether file p holding v is of our making, or as it was.
func (t *Txn) wrote(p string, v Value) bool {
	return slices.ContainsFunc(t.Plan.Changes, func(c Change) bool {
		return c.Kind == KindFile && c.Target == p && (v == c.After || v == c.Before)
	})
}

// needsUndo reports whether the host may differ from what it was because of t.
func (t *Txn) needsUndo() bool {
	return t.State == Unfinished || t.State == InForce || t.State == Unconfirmed
}

// awaits reports whether t is to be taken back unless somebody confirms it:
// it has to be confirmed, and was not, or was stopped half way.
func (t *Txn) awaits() bool {
	return (t.State == Unconfirmed || t.State == Unfinished) && t.Plan.awaited() < len(t.Plan.Changes)
}

// parse decodes a transaction and checks everything that undo relies on. whole
// is the length of the log without a torn last line.
func parse(id string, planJSON, logLines []byte) (t *Txn, whole int64, err error) {
	var h header
	if err := strict(planJSON, &h); err != nil {
		return nil, 0, fmt.Errorf("cannot decode its plan: %w", err)
	}
	if h.Schema != txnSchema || h.ID != id {
		return nil, 0, fmt.Errorf("its plan is %.40q of %.40q", h.Schema, h.ID)
	}
	if err := h.Plan.check(); err != nil {
		return nil, 0, err
	}
	t = h.txn()
	n := 0
	for line := range bytes.Lines(logLines) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // torn: the step it announces was not begun
		}
		n++
		var r record
		if err := strict(line, &r); err != nil {
			return nil, 0, fmt.Errorf("cannot decode line %d of its log: %w", n, err)
		}
		if err := t.add(r); err != nil {
			return nil, 0, fmt.Errorf("line %d of its log: %w", n, err)
		}
		whole += int64(len(line))
	}
	if t.State == "" {
		return nil, 0, errors.New("its log is empty")
	}
	t.stopped = t.State == Unfinished
	return t, whole, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// journal is Dir, opened.
type journal struct {
	tree tree
	dir  *os.Root
}

// openJournal opens Dir; with create it is made when it is not there, else
// the error is fs.ErrNotExist.
func openJournal(t tree, create bool) (*journal, error) {
	if create {
		if err := t.makeDir(Dir, 0o700, func(string) error { return nil }); err != nil {
			return nil, err
		}
	}
	d, base, err := t.parent(Dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	sub, err := trustedDir(d, base)
	if err != nil {
		return nil, fmt.Errorf("cannot use the journal %s: %w", Dir, err)
	}
	return &journal{t, sub}, nil
}

// trusted refuses what others could have written.
func trusted(fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) != os.Geteuid():
		return errors.New("it belongs to another user")
	case fi.Mode().Perm()&0o022 != 0:
		return errors.New("others may write to it")
	}
	return nil
}

func trustedDir(d *os.Root, name string) (*os.Root, error) {
	fi, err := d.Lstat(name)
	if err != nil {
		return nil, cause(err)
	}
	if !fi.IsDir() {
		return nil, errors.New("it is not a directory")
	}
	if err := trusted(fi); err != nil {
		return nil, err
	}
	return d.OpenRoot(name)
}

func trustedFile(d *os.Root, name string) ([]byte, error) {
	fi, err := d.Lstat(name)
	if err != nil {
		return nil, cause(err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxJournal {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", name, maxJournal)
	}
	if err := trusted(fi); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxJournal))
}

// list gives all transactions, the oldest first. One that cannot be trusted is
// there as Unreadable.
func (j *journal) list() ([]*Txn, error) {
	all, err := names(j.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", Dir, err)
	}
	var out []*Txn
	for _, id := range all {
		if !idForm().MatchString(id) {
			continue
		}
		t, _, err := j.read(id)
		if err != nil {
			t = &Txn{ID: id, State: Unreadable, Why: err.Error()}
		}
		out = append(out, t)
	}
	return out, nil
}

func (j *journal) read(id string) (*Txn, int64, error) {
	d, err := trustedDir(j.dir, id)
	if err != nil {
		return nil, 0, err
	}
	defer d.Close()
	planJSON, err := trustedFile(d, "plan.json")
	if err != nil {
		return nil, 0, err
	}
	lines, err := trustedFile(d, "log")
	if err != nil {
		return nil, 0, err
	}
	return parse(id, planJSON, lines)
}

// log is the open log of one transaction.
type log struct {
	txn    *Txn
	tree   tree
	file   *os.File
	name   string
	size   int64
	broken error // why nothing can be added any more
}

// begin journals a plan; h lacks schema, ID and time. Nothing of it is visible before all of it is: the
// directory is made under another name, synced and renamed. after is the
// newest transaction there is; IDs sort by time even when the clock steps back.
func (j *journal) begin(h header, after []*Txn) (*log, error) {
	all, err := names(j.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", Dir, err)
	}
	for _, n := range all { // what a run left that was killed right here
		if strings.HasPrefix(n, "tmp-") {
			if err := j.tree.do("remove "+path.Join(Dir, n), func() error { return j.dir.RemoveAll(n) }); err != nil {
				return nil, err
			}
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	if n := len(after); n > 0 {
		if t, err := time.Parse(idLayout, after[n-1].ID[:len(idLayout)]); err == nil && !now.After(t) {
			now = t.Add(time.Second)
		}
	}
	var salt [2]byte
	_, _ = rand.Read(salt[:]) // never fails
	h.Schema, h.ID, h.Started = txnSchema, now.Format(idLayout)+"-"+hex.EncodeToString(salt[:]), now
	b, err := json.MarshalIndent(h, "", " ")
	if err != nil {
		return nil, err
	}
	if len(b) > maxJournal/2 {
		return nil, errors.New("the plan is too large to journal")
	}
	t := h.txn()
	temp := "tmp-" + h.ID
	if err := j.tree.do("mkdir "+path.Join(Dir, temp), func() error { return j.dir.Mkdir(temp, 0o700) }); err != nil {
		return nil, err
	}
	d, err := j.dir.OpenRoot(temp)
	if err != nil {
		return nil, cause(err)
	}
	defer d.Close()
	pf, err := j.tree.create(d, "plan.json")
	if err != nil {
		return nil, err
	}
	defer pf.Close()
	if err := j.tree.do("write plan.json", func() error { _, err := pf.Write(append(b, '\n')); return err }); err != nil {
		return nil, err
	}
	if err := j.tree.do("fsync plan.json", pf.Sync); err != nil {
		return nil, err
	}
	lf, err := j.tree.create(d, "log")
	if err != nil {
		return nil, err
	}
	l := &log{txn: t, tree: j.tree, file: lf, name: path.Join(Dir, h.ID, "log")}
	err = l.append(record{Op: opBegin})
	if err == nil {
		err = j.tree.syncDir(d, temp)
	}
	if err == nil {
		err = j.tree.do("rename "+temp, func() error { return j.dir.Rename(temp, h.ID) })
	}
	if err == nil {
		err = j.tree.syncDir(j.dir, Dir)
	}
	if err != nil {
		lf.Close()
		return nil, err
	}
	return l, nil
}

// forget removes what was journalled to set things again after earlier boots:
// each boot makes such a transaction, and nobody needs more than the last.
func (w *work) forget(bootID string) error {
	for _, t := range w.all {
		if t.State != Reapplied || t.BootID == bootID {
			continue
		}
		err := w.tree.do("rename "+path.Join(Dir, t.ID), func() error { return w.dir.Rename(t.ID, "tmp-"+t.ID) }) // begin removes it
		if err != nil {
			return err
		}
	}
	return nil
}

func (t tree) create(d *os.Root, name string) (f *os.File, err error) {
	err = t.do("create "+name, func() (err error) {
		f, err = d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		return err
	})
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

// reopen goes on with the log of an earlier run, without its torn last line.
func (j *journal) reopen(id string) (*log, error) {
	t, whole, err := j.read(id)
	if err != nil {
		return nil, err
	}
	f, err := j.dir.OpenFile(path.Join(id, "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, cause(err)
	}
	l := &log{txn: t, tree: j.tree, file: f, name: path.Join(Dir, id, "log"), size: whole}
	if fi, err := f.Stat(); err != nil || fi.Size() != whole {
		if err := l.cut(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return l, nil
}

func (l *log) cut() error {
	return l.tree.do("truncate "+l.name, func() error { return l.file.Truncate(l.size) })
}

// append adds records and syncs them. What could not be added whole is cut off
// again, so that the log stays readable; where even that fails it is closed.
func (l *log) append(records ...record) error {
	var b bytes.Buffer
	for i := range records {
		records[i].At = time.Now().UTC()
		if err := l.txn.add(records[i]); err != nil {
			return fmt.Errorf("cannot journal: %w", err)
		}
		if err := json.NewEncoder(&b).Encode(records[i]); err != nil {
			return fmt.Errorf("cannot journal: %w", err)
		}
	}
	if l.broken != nil {
		return l.broken
	}
	err := l.tree.do("write "+l.name, func() error { _, err := l.file.Write(b.Bytes()); return err })
	if err == nil {
		err = l.tree.do("fsync "+l.name, l.file.Sync)
	}
	if err != nil {
		if cut := l.cut(); cut != nil {
			l.broken = err
		}
		return err
	}
	l.size += int64(b.Len())
	return nil
}
