// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// KindCopy is the built-in kind of the installed hostcheck: Target is its path,
// the value "sha256:" and the sum of the program there. Setting it to the sum of
// the running program copies that there; what was there before is kept beside
// it under a hidden name until the transaction is undone, and is put back by a
// rename, with all that it was.
const KindCopy = "copy"

const sumPrefix = "sha256:"

var sumForm = pattern.Late(`^sha256:[0-9a-f]{64}$`)

func isSum(v Value) bool { return v == Absent || v.Present && sumForm().MatchString(v.Text) }

// Sum is the value of the kind "copy" for the program at p.
func Sum(h *host.Host, p string) (Value, error) {
	sum, err := h.Sum(p)
	switch {
	case host.Absent(err):
		return Absent, nil
	case err != nil:
		return Absent, err
	}
	return Text(sumPrefix + sum), nil
}

type copies struct{}

func (copies) Kind() string { return KindCopy }

func (copies) Read(_ context.Context, h *host.Host, s Setting) (Value, error) {
	if to, err := h.Link(s.Target); err == nil {
		return Absent, fmt.Errorf("%s is a symbolic link to %s; hostcheck replaces only files", s.Target, to)
	}
	return Sum(h, s.Target)
}

func (copies) Apply(_ context.Context, tx *Tx, changes []Change) error {
	for _, c := range changes {
		if err := tx.setCopy(c.Target, c.After); err != nil {
			return err
		}
	}
	return nil
}

// ByHand says what to put back; no command can make a program of its sum.
func (copies) ByHand(c Change) string {
	if !c.After.Present {
		return "rm " + c.Target
	}
	return "install the program with " + c.After.Text + " as " + c.Target
}

// formerName is where the program that a transaction replaced is kept.
func formerName(p, id string) string { return "." + path.Base(p) + ".former-" + id }

// setCopy makes p the program with the sum want: nothing, the one that was
// there before the transaction, or the running one.
func (tx *Tx) setCopy(p string, want Value) error {
	if err := tx.kernel("install " + p); err != nil {
		return err
	}
	if !clean(p) || !isSum(want) {
		return fmt.Errorf("cannot install %s: it is not a program of the plan", p)
	}
	d, base, err := tx.tree.parent(p)
	if err != nil {
		return err
	}
	defer d.Close()
	temp, former := tempName(p, tx.log.txn.ID), formerName(p, tx.log.txn.ID)
	if err := tx.tree.removeFile(path.Join(path.Dir(p), temp)); err != nil {
		return err
	}
	now, err := sumOf(d, base)
	if err != nil {
		return fmt.Errorf("cannot replace %s: %w", p, err)
	}
	if now == want {
		return nil
	}
	if !want.Present {
		return tx.tree.removeFile(p)
	}
	if kept, err := sumOf(d, former); err == nil && kept == want {
		if err := tx.tree.do("rename "+former+" to "+p, func() error { return d.Rename(former, base) }); err != nil {
			return err
		}
		return tx.tree.syncDir(d, path.Dir(p))
	}
	if err := tx.install(d, p, temp, want); err != nil {
		return err
	}
	if _, err := d.Lstat(former); now.Present && errors.Is(err, fs.ErrNotExist) {
		if err := tx.tree.do("link "+p+" to "+former, func() error { return d.Link(base, former) }); err != nil {
			return err
		}
	}
	if err := tx.tree.do("rename "+temp+" to "+p, func() error { return d.Rename(temp, base) }); err != nil {
		return err
	}
	return tx.tree.syncDir(d, path.Dir(p))
}

// install writes the running program beside its place.
func (tx *Tx) install(d *os.Root, p, temp string, want Value) error {
	from, err := tx.running()
	if err != nil {
		return fmt.Errorf("cannot read the running hostcheck: %w", cause(err))
	}
	defer from.Close()
	tp := path.Join(path.Dir(p), temp)
	var f *os.File
	err = tx.tree.do("create "+tp, func() (err error) {
		f, err = d.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := tx.tree.do("write "+tp, func() error { _, err := io.Copy(io.MultiWriter(f, sum), from); return err }); err != nil {
		return err
	}
	if got := Text(sumPrefix + hex.EncodeToString(sum.Sum(nil))); got != want {
		return errors.Join(fmt.Errorf("cannot install %s: the running hostcheck is not the one of the plan any more", p), tx.tree.removeFile(tp))
	}
	if err := tx.tree.dress(f, tp, meta{Mode: 0o755, UID: os.Geteuid(), GID: os.Getegid()}); err != nil {
		return err
	}
	return tx.tree.do("fsync "+tp, f.Sync)
}

// running opens the program of this process: by the kernel's own link, which
// holds also where the file was replaced or removed since.
func (tx *Tx) running() (*os.File, error) {
	if tx.machine == nil {
		return os.Open("/proc/self/exe")
	}
	d, base, err := tx.tree.parent(tx.self)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Open(base)
}

// sumOf gives the sum of a regular file, Absent where there is none.
func sumOf(d *os.Root, name string) (Value, error) {
	fi, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	if err != nil {
		return Absent, cause(err)
	}
	if !fi.Mode().IsRegular() {
		return Absent, errors.New("it is not a regular file")
	}
	f, err := d.Open(name)
	if err != nil {
		return Absent, cause(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return Absent, cause(err)
	}
	return Text(sumPrefix + hex.EncodeToString(sum.Sum(nil))), nil
}

// sweepCopies removes what was kept of a former program once that is back in
// its place, or somebody else's program is there.
func (tx *Tx) sweepCopies() (err error) {
	t := tx.log.txn
	seen := map[string]bool{}
	for i, c := range t.Plan.Changes {
		if c.Kind != KindCopy || t.last[i] == "" || seen[c.Target] {
			continue
		}
		seen[c.Target] = true
		d, base, e := tx.tree.parent(c.Target)
		if e != nil {
			continue // nothing can be kept there
		}
		now, e := sumOf(d, base)
		d.Close()
		ours := slices.ContainsFunc(t.Plan.Changes, func(o Change) bool { return o.Setting == c.Setting && o.After == now })
		if e == nil && (now == c.Before || !ours) {
			err = errors.Join(err, tx.tree.removeFile(path.Join(path.Dir(c.Target), formerName(c.Target, t.ID))))
		}
	}
	return err
}
