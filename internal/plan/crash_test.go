// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// knobs is a verb whose settings are files of the kernel, Name is the path. A
// wish for "path=text" in kind "file" terms is not its business.
type knobs struct {
	kind  string
	apply func(tx *plan.Tx, c plan.Change) error // nil: write After
}

func (k knobs) Kind() string { return k.kind }

func (k knobs) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	v, err := h.Text(s.Name)
	return plan.Text(v), err
}

func (k knobs) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		write := k.apply
		if write == nil {
			write = func(tx *plan.Tx, c plan.Change) error { return tx.WriteKnob(c.Name, c.After.Text) }
		}
		if err := write(tx, c); err != nil {
			return err
		}
	}
	return nil
}

func (k knobs) Expand(_ context.Context, _ *host.Host, wishes []plan.Wish) (out []plan.Change, _ []plan.Refusal, _ error) {
	for _, w := range wishes {
		out = append(out, plan.Change{Setting: w.Setting, After: plan.Text(w.Want), Tier: w.Tier, Why: w.Why})
	}
	return out, nil, nil
}

const (
	created  = "/etc/hostcheck.d/deep/new.conf" // with two directories
	replaced = "/etc/sysctl.d/90-old.conf"      // odd mode and owner, extended attribute
	removed  = "/etc/modprobe.d/gone.conf"
	lone     = "/etc/lone.conf"
	knobA    = "/proc/sys/net/a"
	knobB    = "/proc/sys/net/b"
	knobC    = "/sys/devices/c"
	knobD    = "/sys/devices/d"
)

func setup(tb testing.TB, root string) {
	tb.Helper()
	plantest.Files(tb, root, map[string]string{
		replaced: "old = 1\n", removed: "options x y=1\n", lone: "",
		knobA: "1\n", knobB: "128\n", knobC: "on\n", knobD: "5\n",
		"/proc/sys/kernel/random/boot_id": "boot-1\n", "/proc/sys/kernel/hostname": "h1\n",
	})
	must := func(err error) {
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			tb.Fatal(err)
		}
	}
	for _, p := range []string{replaced, removed} {
		p = filepath.Join(root, p)
		must(unix.Setxattr(p, "user.note", []byte("keep\x00me"), 0))
		if os.Geteuid() == 0 {
			must(os.Chown(p, 12, 34))
		}
		must(os.Chmod(p, 0o640))
	}
}

func engine(root string) *plan.Engine {
	return &plan.Engine{
		Root: root, Tool: "test",
		Verbs: []plan.Verb{knobs{kind: "knob"}, knobs{kind: "other"}},
		Machine: &plan.Machine{Knob: func(p, text string) error {
			// like a ring of a NIC: it can be set only while something else is off
			if b, _ := os.ReadFile(filepath.Join(root, knobC)); p == knobD && string(b) == "on\n" {
				return unix.EBUSY
			}
			return plantest.Knob(root)(p, text)
		}},
	}
}

func file(p string, before, after plan.Value) plan.Change {
	return plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: p}, Before: before, After: after, Tier: plan.Safe, Persist: true}
}

func knob(kind, p, before, after string) plan.Change {
	return plan.Change{Setting: plan.Setting{Kind: kind, Name: p}, Before: plan.Text(before), After: plan.Text(after), Tier: plan.Safe}
}

func sealed(changes ...plan.Change) plan.Plan {
	p := plan.Plan{Tool: "test", Changes: changes}
	p.Seal()
	return p
}

// everything has files that come, change and go, knobs between them, and a
// knob that is only borrowed: off, something else, on again.
func everything() plan.Plan {
	return sealed(
		knob("knob", knobA, "1", "2"),
		knob("knob", knobB, "128", "4096"),
		file(created, plan.Absent, plan.Text("new = 1\n")),
		file(replaced, plan.Text("old = 1\n"), plan.Text("old = 2\n")),
		file(removed, plan.Text("options x y=1\n"), plan.Absent),
		knob("knob", knobC, "on", "off"),
		knob("other", knobD, "5", "6"),
		knob("knob", knobC, "off", "on"),
		file(lone, plan.Text(""), plan.Text("x")),
	)
}

func TestCrashLaw(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{
		Setup:  setup,
		Engine: engine,
		Plan:   func(testing.TB, *plan.Engine) plan.Plan { return everything() },
	})
	if os.Getenv("HOSTCHECK_CRASH_CHILD") == "" && n < 300 {
		t.Errorf("only %d points tried", n)
	}
}

func TestClosedLoop(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{
		Setup: setup, Engine: engine,
		Wishes: []plan.Wish{wish("knob", knobB, "256"), wish("knob", knobA, "2")},
	}, func(root string) error {
		if b, _ := os.ReadFile(filepath.Join(root, knobB)); string(b) != "256\n" {
			return errors.New("too small")
		}
		return nil
	})
	if len(p.Changes) != 2 {
		t.Errorf("%+v", p)
	}
}
