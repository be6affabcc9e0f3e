// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Driver reads and sets one kind of setting. A driver writes only through tx,
// which counts, syncs and can be interrupted anywhere.
type Driver interface {
	Kind() string

	// Read gives what s holds, in the one spelling that Before and After of
	// its changes use. It reads through h, which is fresh each time. Absent is
	// a setting that holds nothing; what cannot be read is an error.
	Read(ctx context.Context, h *host.Host, s Setting) (Value, error)

	// Apply gets neighbouring changes of its kind at once, in order, and sets
	// each to After or returns an error; the engine reads back by itself. Undo
	// calls it with Before and After swapped and the order reversed, so it must
	// not rely on Before being live.
	Apply(ctx context.Context, tx *Tx, changes []Change) error
}

// Verb is a driver that knows how checks' wishes become changes: of its own
// kind, of kind "file", or both. Expand sets Setting, After, Tier, Persist,
// Why and Disturbs; the engine reads Before, drops what holds already and
// makes the diffs. Changes come in the order in which they must be made. What
// must not be done is a Refusal with the reason and the steps for a person.
type Verb interface {
	Driver
	Expand(ctx context.Context, h *host.Host, wishes []Wish) ([]Change, []Refusal, error)
}

// Hander is a driver that can say how a person sets c.After: a command line.
type Hander interface{ ByHand(c Change) string }

// Leaver is a driver with settings that cannot always be put back and do no
// harm where they are: a loaded module that something uses by now. Stays says
// why live may stay in place of c.After, "" when it may not.
type Leaver interface {
	Stays(ctx context.Context, h *host.Host, c Change, live Value) string
}

// Wholer is a verb whose changes make sense only together: where one of them
// cannot be, none is made.
type Wholer interface{ Whole() bool }

// Taker is a verb that makes its changes of wishes of other kinds as well, since
// they can only be made together.
type Taker interface{ Takes() []string }

// Keeper is a driver with settings that files hold and no kernel has to run for,
// as links enable a unit: Kept says which. They are put back in a directory
// tree too.
type Keeper interface{ Kept(s Setting) bool }

// Plan turns wishes into a plan for the host that h reads. Wishes that
// contradict each other are a [ConflictError]; one broken verb or setting
// becomes a refusal and does not hide the others.
func (e *Engine) Plan(ctx context.Context, h *host.Host, profileHash string, wishes []Wish) (Plan, error) {
	p := Plan{Tool: e.Tool, ProfileHash: profileHash, Host: hostName(h)}
	wishes, err := Unite(wishes)
	if err != nil {
		return p, err
	}
	byKind := map[string][]Wish{}
	for _, w := range wishes {
		byKind[w.Kind] = append(byKind[w.Kind], w)
	}
	next := map[Setting]Value{} // what a setting holds after the changes so far
	for _, v := range e.Verbs {
		kinds := []string{v.Kind()}
		if t, ok := v.(Taker); ok {
			kinds = append(kinds, t.Takes()...)
		}
		var mine []Wish
		for _, kind := range kinds {
			mine = append(mine, byKind[kind]...)
			delete(byKind, kind)
		}
		if len(mine) == 0 {
			continue
		}
		var changes []Change
		var refused []Refusal
		err := guard(func() (err error) { changes, refused, err = v.Expand(ctx, h, mine); return err })
		if err != nil {
			for _, w := range mine {
				refused = append(refused, w.refuse(err.Error()))
			}
			changes = nil
		}
		p.Refused = append(p.Refused, refused...)
		wholer, _ := v.(Wholer)
		start := len(p.Changes)
		for _, c := range changes {
			_, again := next[c.Setting]
			if again && c.Kind == KindFile {
				return p, fmt.Errorf("cannot plan: two verbs write %s", c.Target)
			}
			if why := e.complete(ctx, h, &c, next); why != "" {
				p.Refused = append(p.Refused, Refusal{Setting: c.Setting, Want: c.After.String(), Reason: why, Why: c.Why})
				if wholer != nil && wholer.Whole() {
					p.Changes = p.Changes[:start]
					break
				}
				continue
			}
			if next[c.Setting] = c.After; c.Before != c.After {
				p.Changes = append(p.Changes, c)
			}
		}
	}
	for _, w := range wishes {
		if byKind[w.Kind] != nil {
			p.Refused = append(p.Refused, w.refuse(fmt.Sprintf("this hostcheck knows no settings of kind %q", w.Kind)))
		}
	}
	p.Seal()
	return p, nil
}

// Around gives p with changes before and behind its own: what its changes need
// to be made, and to last. As in Plan, the engine reads Before and drops what
// holds already.
func (e *Engine) Around(ctx context.Context, h *host.Host, p Plan, first, last []Change) (Plan, error) {
	next := map[Setting]Value{}
	all := p.Changes
	p.Changes = nil
	for i, list := range [][]Change{first, all, last} {
		for _, c := range list {
			if i != 1 {
				if why := e.complete(ctx, h, &c, next); why != "" {
					return p, fmt.Errorf("%s: %s", c.Setting, why)
				}
			}
			if next[c.Setting] = c.After; c.Before != c.After {
				p.Changes = append(p.Changes, c)
			}
		}
	}
	p.Seal()
	return p, p.check()
}

func (w Wish) refuse(why string) Refusal {
	return Refusal{Setting: w.Setting, Want: w.Want, Reason: why}
}

// complete fills in what the engine knows better, or says why c cannot be.
func (e *Engine) complete(ctx context.Context, h *host.Host, c *Change, next map[Setting]Value) string {
	if e.offline() && c.Kind != KindFile {
		if v, err := e.read(ctx, h, c.Setting); err == nil && v == c.After {
			c.Before = v // the kernel that the tree was taken from held it already
			return ""
		}
		return ErrOffline.Error()
	}
	before, ok := next[c.Setting]
	if !ok {
		var err error
		if before, err = e.read(ctx, h, c.Setting); err != nil {
			return err.Error()
		}
	}
	c.Before = before
	if err := c.check(); err != nil {
		return err.Error()
	}
	if c.Kind == KindFile {
		c.Persist = !strings.HasPrefix(c.Target, "/run/")
	}
	c.Diff = Diff(*c)
	return ""
}

func hostName(h *host.Host) string {
	for _, p := range []string{"/proc/sys/kernel/hostname", "/etc/hostname"} {
		if s, err := h.Text(p); err == nil && utf8.ValidString(s) {
			return s
		}
	}
	return ""
}

// Diff shows a change: a unified diff for a file, "old -> new" for the rest.
func Diff(c Change) string {
	if c.Kind != KindFile {
		return c.Before.String() + " -> " + c.After.String()
	}
	from, to := "a"+c.Target, "b"+c.Target
	if !c.Before.Present {
		from = "/dev/null"
	}
	if !c.After.Present {
		to = "/dev/null"
	}
	return udiff.Unified(from, to, c.Before.Text, c.After.Text)
}

// KindFile is the built-in kind: Target is the path of a whole text file that
// hostcheck owns, or of one that it removes. New ones are mode 0644, scripts 0755.
const KindFile = "file"

type files struct{}

func (files) Kind() string { return KindFile }

func (files) Read(_ context.Context, h *host.Host, s Setting) (Value, error) {
	if to, err := h.Link(s.Target); err == nil {
		return Absent, fmt.Errorf("%s is a symbolic link to %s; hostcheck replaces only files", s.Target, to)
	}
	b, err := h.Read(s.Target)
	switch {
	case host.Absent(err):
		return Absent, nil
	case err != nil:
		return Absent, err
	case !utf8.Valid(b):
		return Absent, fmt.Errorf("%s is not a text file", s.Target)
	}
	return Text(string(b)), nil
}

func (files) Apply(_ context.Context, tx *Tx, changes []Change) error {
	for _, c := range changes {
		if err := tx.ReplaceFile(c.Target, c.After, modeOf(c.After)); err != nil {
			return err
		}
	}
	return nil
}

// modeOf is the mode of a new file: a script can be run.
func modeOf(v Value) fs.FileMode {
	if strings.HasPrefix(v.Text, "#!") {
		return 0o755
	}
	return 0o644
}

// ByHand names the journal for long texts: it has them whole.
func (files) ByHand(c Change) string {
	switch {
	case !c.After.Present:
		return "rm " + c.Target
	case strings.Contains(strings.TrimSuffix(c.After.Text, "\n"), "\n"), len(c.After.Text) > 200:
		return "write to " + c.Target + ` the "before" that plan.json of this transaction in ` + Dir + " holds for it"
	}
	return fmt.Sprintf("printf %%s %s > %s", quote(c.After.Text), c.Target)
}

// quote is for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
