// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"path"
	"slices"
)

// GRUB's menu is made anew from settings by a program, its environment block by
// GRUB itself as well, and entries of systemd-boot by kernel-install.
const (
	grubMenu  = "/boot/grub/grub.cfg"
	grubBlock = "/boot/grub/grubenv"
)

// renderable reports whether p is such a file.
func renderable(p string) bool { return p == grubMenu || p == grubBlock || isEntry(p) }

// isEntry reports whether p is a boot entry of type 1.
func isEntry(p string) bool {
	dirs := []string{"/efi/loader/entries", "/boot/loader/entries", "/boot/efi/loader/entries"}
	return clean(p) && slices.Contains(dirs, path.Dir(p)) && path.Ext(p) == ".conf"
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

// RenderGrub has grub-mkconfig make GRUB's menu anew, as update-grub does. That
// one writes over the menu in place, which a power cut would leave empty: here
// the program writes a file beside it, which takes its place at once. What the
// menu held is journalled first. Putting back, the menu gets those bytes again,
// unless somebody rendered since: then the files of the plan are put back and
// the program runs again.
func (tx *Tx) RenderGrub() error {
	if err := tx.ready("render " + grubMenu); err != nil {
		return err
	}
	text, m, err := tx.loadFile(grubMenu)
	if err != nil {
		return err
	}
	if tx.back {
		return tx.unrender(text, m)
	}
	if !text.Present {
		return errors.New("cannot render " + grubMenu + ": it is not there")
	}
	if err := tx.log.append(record{Op: opRender, Path: grubMenu, Data: []byte(text.Text), Meta: &m}); err != nil {
		return err
	}
	made, err := tx.mkconfig(m)
	if err != nil {
		return err
	}
	return tx.log.append(record{Op: opRendered, Path: grubMenu, Data: []byte(sum(made))})
}

// mkconfig renders the menu and puts it into its place.
func (tx *Tx) mkconfig(m meta) (string, error) {
	temp := path.Join(path.Dir(grubMenu), tempName(grubMenu, tx.log.txn.ID))
	err := tx.Run("grub-mkconfig", "-o", temp)
	made, _, loadErr := tx.loadFile(temp)
	if err == nil && loadErr == nil && !made.Present {
		err = errors.New("grub-mkconfig made no menu")
	}
	if err = errors.Join(err, loadErr, tx.removeRendering(temp)); err != nil {
		return "", err
	}
	return made.Text, tx.putBytes(grubMenu, &rendering{before: made.Text, meta: m})
}

// removeRendering removes what grub-mkconfig leaves of a file, and of one that
// it did not finish.
func (tx *Tx) removeRendering(temp string) error {
	return errors.Join(tx.tree.removeFile(temp), tx.tree.removeFile(temp+".new"))
}

// SetGrubBlock makes GRUB's environment block hold text, at once.
func (tx *Tx) SetGrubBlock(text string) error { return tx.rewrite(grubBlock, text) }

// SetEntry makes a boot entry of systemd-boot hold text, at once.
func (tx *Tx) SetEntry(p, text string) error {
	if !isEntry(p) {
		return errors.New("cannot write " + p + ": it is not a boot entry")
	}
	return tx.rewrite(p, text)
}

func (tx *Tx) rewrite(p, text string) error {
	if err := tx.ready("write " + p); err != nil {
		return err
	}
	was, m, err := tx.loadFile(p)
	if err != nil {
		return err
	}
	if !was.Present {
		return errors.New("cannot write " + p + ": it is not there")
	}
	if !tx.back {
		if err := tx.log.append(record{Op: opRender, Path: p, Data: []byte(was.Text), Meta: &m}); err != nil {
			return err
		}
	}
	if err := tx.putBytes(p, &rendering{before: text, meta: m}); err != nil || tx.back {
		return err
	}
	return tx.log.append(record{Op: opRendered, Path: p, Data: []byte(sum(text))})
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

func (tx *Tx) unrender(now Value, m meta) error {
	r := tx.log.txn.renders[grubMenu]
	switch {
	case r == nil, now == Text(r.before):
		return nil
	case r.after == "" || sum(now.Text) == r.after:
		return tx.putBytes(grubMenu, r)
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
	_, err := tx.mkconfig(m)
	return err
}

func (tx *Tx) putBytes(p string, r *rendering) error {
	d, _, err := tx.tree.parent(p)
	if err != nil {
		return err
	}
	defer d.Close()
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
