// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Grub is what GRUB's own files hold after Debian's tools made them: kind
// "grub", Name one of the names below. Only the verb cmdline makes changes of
// this kind; nobody wishes for them.
type Grub struct{}

// The names of settings of GRUB.
const (
	GrubTrial   = "trial"      // the command line of hostcheck's own entry in the rendered menu; absent without it
	GrubDefault = "default"    // the command line of the entry that boots by default
	GrubNext    = "next_entry" // the entry that is booted once; absent without one
)

// Kind is "grub".
func (Grub) Kind() string { return "grub" }

func grubSetting(name string) plan.Setting { return plan.Setting{Kind: "grub", Name: name} }

// Read reads the rendered menu, or the environment block. A menu that cannot
// be read has a value as well: it is then neither as before nor as set.
func (Grub) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	return readGrub(facts.New(h).Boot(), s)
}

// lineOf is the command line of an entry.
func lineOf(b *facts.Boot, e *facts.BootEntry) plan.Value {
	switch {
	case e == nil && b.NextBoot == nil:
		return plan.Text("(not readable: " + b.Unknown["next_boot"] + ")")
	case e == nil:
		return plan.Absent
	case e.Cmdline == nil:
		return plan.Text("(not known)")
	}
	return plan.Text(*e.Cmdline)
}

func readGrub(b *facts.Boot, s plan.Setting) (plan.Value, error) {
	switch s.Name {
	case GrubTrial:
		return lineOf(b, b.MenuEntry(facts.TrialEntry)), nil
	case GrubDefault:
		return lineOf(b, b.Usual()), nil
	case GrubNext:
		switch env := b.Environment; {
		case env == nil || env.State == "missing" || env.State == "unreadable":
			return plan.Absent, fmt.Errorf("cannot read %s: GRUB's environment block is not there or unreadable", s)
		case env.Vars[GrubNext] != "":
			return plan.Text(env.Vars[GrubNext]), nil
		}
		return plan.Absent, nil
	}
	return plan.Absent, fmt.Errorf("%s is not a setting of GRUB that hostcheck knows", s)
}

// Kept: files hold all of it.
func (Grub) Kept(plan.Setting) bool { return true }

// Apply has the menu rendered, and chooses an entry in the
// environment block as grub-editenv does. The entry that boots by default must come out as it was, unless
// it is what changes.
func (g Grub) Apply(ctx context.Context, tx *plan.Tx, changes []plan.Change) error {
	rendered, other := false, false
	for _, c := range changes {
		other = other || c.Name == GrubDefault
	}
	for _, c := range changes {
		switch {
		case c.Name == GrubNext:
			if err := chooseNext(tx, c.After.Text); err != nil {
				return err
			}
		case !rendered:
			rendered = true
			before, err := g.usual(ctx, tx)
			if err != nil {
				return err
			}
			if err := tx.RenderGrub(); err != nil {
				return err
			}
			after, err := g.usual(ctx, tx)
			if err != nil {
				return err
			}
			if !other && before != after && !strings.HasPrefix(before.Text, "(") {
				return fmt.Errorf("grub-mkconfig changed the entry that boots by default: it has %q now, and had %q", after.Text, before.Text)
			}
		}
	}
	return nil
}

// chooseNext sets the entry that is booted once, "" for none.
func chooseNext(tx *plan.Tx, id string) error {
	h, err := tx.Host()
	if err != nil {
		return err
	}
	block, err := h.Read(grubEnvFile)
	h.Close()
	if err != nil {
		return err
	}
	if block, err = facts.EditGrubenv(block, GrubNext, id); err != nil {
		return fmt.Errorf("cannot choose the next entry: %w", err)
	}
	return tx.SetGrubBlock(string(block))
}

func (g Grub) usual(ctx context.Context, tx *plan.Tx) (plan.Value, error) {
	h, err := tx.Host()
	if err != nil {
		return plan.Absent, err
	}
	defer h.Close()
	return g.Read(ctx, h, grubSetting(GrubDefault))
}

// ByHand is how a person sets c.After.
func (Grub) ByHand(c plan.Change) string {
	if c.Name != GrubNext {
		return "ls /etc/grub.d/42_hostcheck /etc/default/grub.d, then update-grub"
	}
	if c.After.Present {
		return "grub-reboot " + shellWord(c.After.Text)
	}
	return "grub-editenv - unset " + GrubNext
}

// Expand refuses: the verb cmdline plans these.
func (Grub) Expand(_ context.Context, _ *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	for _, w := range wishes {
		refused = append(refused, refuse(w, "wish for tokens of the kernel command line, not for GRUB's files"))
	}
	return nil, refused, nil
}
