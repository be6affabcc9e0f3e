// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
)

// renderers are the programs that make a file anew from settings, and that
// file. The block is one that boot loaders write, too.
var renderers = map[string]string{"update-grub": "/boot/grub/grub.cfg"}

const grubBlock = "/boot/grub/grubenv"

// renderable reports whether p is such a file.
func renderable(p string) bool {
	return p == grubBlock || slices.Contains(slices.Collect(maps.Values(renderers)), p)
}

// rendering is what the journal knows of a rendered file.
type rendering struct {
	before string // what it held
	meta   meta
	after  string // SHA-256 of what was made of it; "" when that did not end well
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// Render runs a program that makes a file anew from settings. What the file
// held is journalled first, and comes back byte for byte when the program
// fails or was stopped half way. Putting back a rendering, it gives back those
// bytes too, unless somebody rendered since: then the files of the plan are
// put back and the program runs again.
func (tx *Tx) Render(program string) error {
	p := renderers[program]
	if p == "" {
		return errors.New("cannot run " + program + ": hostcheck does not know what it renders")
	}
	if err := tx.ready("render " + p); err != nil {
		return err
	}
	text, m, err := tx.loadFile(p)
	if err != nil {
		return err
	}
	if tx.back {
		return tx.unrender(program, p, text)
	}
	if err := tx.kernel("run " + program); err != nil {
		return err
	}
	if !text.Present {
		return errors.New("cannot run " + program + ": " + p + " is not there")
	}
	if err := tx.log.append(record{Op: opRender, Path: p, Data: []byte(text.Text), Meta: &m}); err != nil {
		return err
	}
	if err := tx.Run(program); err != nil {
		return err
	}
	if text, _, err = tx.loadFile(p); err != nil {
		return err
	}
	return tx.log.append(record{Op: opRendered, Path: p, Data: []byte(sum(text.Text))})
}

// SetGrubBlock makes GRUB's environment block hold text, at once.
func (tx *Tx) SetGrubBlock(text string) error {
	if err := tx.ready("write " + grubBlock); err != nil {
		return err
	}
	was, m, err := tx.loadFile(grubBlock)
	if err != nil {
		return err
	}
	if !was.Present {
		return errors.New("cannot write " + grubBlock + ": it is not there")
	}
	if !tx.back {
		if err := tx.log.append(record{Op: opRender, Path: grubBlock, Data: []byte(was.Text), Meta: &m}); err != nil {
			return err
		}
	}
	if err := tx.putBytes(grubBlock, &rendering{before: text, meta: m}); err != nil || tx.back {
		return err
	}
	return tx.log.append(record{Op: opRendered, Path: grubBlock, Data: []byte(sum(text))})
}

func (tx *Tx) loadFile(p string) (Value, meta, error) {
	d, base, err := tx.tree.parent(p)
	if err != nil {
		return Absent, meta{}, err
	}
	defer d.Close()
	v, m, err := load(d, base)
	if err != nil {
		err = errors.Join(errors.New("cannot read "+p), err)
	}
	return v, m, err
}

func (tx *Tx) unrender(program, p string, now Value) error {
	r := tx.log.txn.renders[p]
	switch {
	case r == nil, now == Text(r.before):
		return nil
	case r.after == "" || sum(now.Text) == r.after:
		return tx.putBytes(p, r)
	}
	for _, c := range tx.log.txn.Plan.Changes {
		if _, touched := tx.log.txn.images[c.Target]; c.Kind != KindFile || !touched {
			continue
		}
		if v, _, err := tx.loadFile(c.Target); err == nil && v == c.After {
			if err := tx.ReplaceFile(c.Target, c.Before, modeOf(c.Before)); err != nil {
				return err
			}
		}
	}
	return tx.Run(program)
}

func (tx *Tx) putBytes(p string, r *rendering) error {
	d, base, err := tx.tree.parent(p)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Lstat(base + ".new"); err == nil { // what a program left that was stopped
		if err := tx.tree.removeFile(p + ".new"); err != nil {
			return err
		}
	}
	return tx.tree.store(d, p, tempName(p, tx.log.txn.ID), r.before, r.meta)
}

// mendRenders puts back what a program left half way.
func (tx *Tx) mendRenders() (err error) {
	renders := tx.log.txn.renders
	for _, p := range slices.Sorted(maps.Keys(renders)) {
		r := renders[p]
		if r.after != "" {
			continue
		}
		now, _, e := tx.loadFile(p)
		if e == nil && now != Text(r.before) {
			e = tx.putBytes(p, r)
		}
		err = errors.Join(err, e)
	}
	return err
}
