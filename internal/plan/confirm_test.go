// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	self      = "/root/hostcheck"
	installed = "/usr/local/sbin/hostcheck"
	timer     = "/etc/systemd/system/expire.timer"
	settings  = "/etc/hostcheck/settings.d/50.yaml"
)

func sum(text string) plan.Value {
	s := sha256.Sum256([]byte(text))
	return plan.Text("sha256:" + hex.EncodeToString(s[:]))
}

// confirmSetup has an older program in the place of the copy.
func confirmSetup(tb testing.TB, root string) {
	tb.Helper()
	setup(tb, root)
	plantest.Files(tb, root, map[string]string{self: "new program", installed: "old program"})
	if err := os.Chmod(filepath.Join(root, installed), 0o700); err != nil {
		tb.Fatal(err)
	}
}

func confirmEngine(root string) *plan.Engine {
	e := engine(root)
	e.Self = self
	return e
}

func program(before, after plan.Value) plan.Change {
	return plan.Change{Setting: plan.Setting{Kind: plan.KindCopy, Target: installed}, Before: before, After: after, Tier: plan.Safe, Persist: true}
}

func deferred(c plan.Change) plan.Change {
	c.Deferred = true
	return c
}

// awaiting arms, changes, and when it is confirmed makes it last and disarms.
func awaiting() plan.Plan {
	return sealed(
		program(sum("old program"), sum("new program")),
		file(timer, plan.Absent, plan.Text("armed\n")),
		knob("knob", knobA, "1", "2"),
		knob("knob", knobB, "128", "4096"),
		deferred(file(settings, plan.Absent, plan.Text("a: 2\n"))),
		deferred(file(timer, plan.Text("armed\n"), plan.Absent)),
		deferred(program(sum("new program"), sum("old program"))),
	)
}

func newAwaiting(t *testing.T) *machine {
	t.Helper()
	root := plantest.TempDir(t)
	confirmSetup(t, root)
	if err := os.MkdirAll(filepath.Join(root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &machine{t, root, confirmEngine(root), plantest.Snapshot(t, root)}
}

var within = plan.Options{Within: time.Minute}

func TestConfirm(t *testing.T) {
	m := newAwaiting(t)
	start := time.Now()
	r := m.apply(plan.Applied, awaiting(), within)
	if r.Changed != 4 || r.Until.Before(start.Add(time.Minute)) || r.Until.After(time.Now().Add(time.Minute)) {
		t.Errorf("%+v", r)
	}
	if m.text(timer) != "armed\n" || m.text(knobB) != "4096\n" || m.text(installed) != "new program" {
		t.Error("it is not armed and changed")
	}
	if _, err := os.Stat(m.path(settings)); err == nil {
		t.Error("what was deferred is there already")
	}
	pending, _, err := m.Status(ctx)
	if err != nil || len(pending) != 1 || pending[0].State != plan.Unconfirmed || !pending[0].Until.Equal(r.Until) {
		t.Errorf("%+v, %v", pending, err)
	}
	// nothing else begins meanwhile
	var unconfirmed *plan.UnconfirmedError
	if _, err := m.Apply(ctx, sealed(file("/etc/x", plan.Absent, plan.Text("1"))), plan.Options{}); !errors.As(err, &unconfirmed) || unconfirmed.Txn != r.Txn {
		t.Errorf("%v", err)
	}
	// the timer comes early: it is told to wait
	if out, wait, err := m.Expire(ctx, within); err != nil || out != nil || wait <= 0 || wait > time.Minute {
		t.Errorf("%+v, %v, %v", out, wait, err)
	}
	_, err = m.Confirm(ctx, "20200101T000000-0000", plan.Options{})
	says(t, err, "nothing waits to be confirmed: not 20200101T000000-0000")
	c, err := m.Confirm(ctx, "", plan.Options{})
	if err != nil || c.Outcome != plan.Applied || c.Txn != r.Txn || !c.Until.IsZero() || c.Changed != 7 {
		t.Fatalf("%+v, %v", c, err)
	}
	if m.text(settings) != "a: 2\n" || m.text(installed) != "old program" || m.states() != "applied" {
		t.Errorf("not confirmed: %s", m.states())
	}
	if _, err := os.Stat(m.path(timer)); err == nil {
		t.Error("it is still armed")
	}
	_, err = m.Confirm(ctx, "", plan.Options{})
	if !errors.Is(err, plan.ErrNoneWaits) {
		t.Errorf("%v", err)
	}
	if out, wait, err := m.Expire(ctx, within); out != nil || wait != 0 || err != nil {
		t.Errorf("%+v, %v, %v", out, wait, err)
	}
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

// Without a deadline all is done at once.
func TestConfirmAtOnce(t *testing.T) {
	m := newAwaiting(t)
	if r := m.apply(plan.Applied, awaiting(), plan.Options{}); r.Changed != 7 || !r.Until.IsZero() {
		t.Errorf("%+v", r)
	}
	if m.text(settings) != "a: 2\n" || m.states() != "applied" {
		t.Errorf("%s", m.states())
	}
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

func TestExpire(t *testing.T) {
	for name, c := range map[string]struct {
		opt  plan.Options
		then func(m *machine)
	}{
		"the time is up":  {plan.Options{Within: time.Nanosecond}, func(*machine) {}},
		"after a reboot":  {within, func(m *machine) { m.write("/proc/sys/kernel/random/boot_id", "boot-2\n") }},
		"the clock jumps": {plan.Options{Within: 1000 * time.Hour}, func(*machine) {}},
		"the package manager is at work": {plan.Options{Within: time.Nanosecond}, func(m *machine) {
			plantest.Files(m.T, m.root, map[string]string{"/var/lib/dpkg/lock": ""})
			m.undo(plan.Undone, "", plan.Options{})
			m.old = plantest.Snapshot(m.T, m.root)
			m.apply(plan.Applied, awaiting(), plan.Options{Within: time.Nanosecond})
			f, err := os.OpenFile(m.path("/var/lib/dpkg/lock"), os.O_RDWR, 0)
			if err != nil {
				m.Fatal(err)
			}
			m.Cleanup(func() { f.Close() })
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
				m.Fatal(err)
			}
		}},
	} {
		m := newAwaiting(t)
		m.apply(plan.Applied, awaiting(), c.opt)
		c.then(m)
		out, wait, err := m.Expire(ctx, plan.Options{Within: time.Nanosecond})
		if wait > 0 { // at most as long as the window is
			time.Sleep(wait)
			if out, wait, err = m.Expire(ctx, plan.Options{}); wait > 0 {
				t.Errorf("%s: wait %v", name, wait)
			}
		}
		if err != nil || len(out) != 1 || out[0].Outcome != plan.Undone {
			t.Fatalf("%s: %+v, %v", name, out, err)
		}
		m.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
		m.same()
	}
}

// What others changed meanwhile stays; the rest is put back all the same.
func TestExpireDrift(t *testing.T) {
	m := newAwaiting(t)
	m.apply(plan.Applied, awaiting(), within)
	m.write(knobA, "9\n")
	out, _, err := m.Expire(ctx, plan.Options{})
	if err != nil || len(out) != 1 || out[0].Outcome != plan.Incomplete || len(out[0].Left) != 1 || out[0].Left[0].Name != knobA {
		t.Fatalf("%+v, %v", out, err)
	}
	if m.text(knobB) != "128\n" || m.text(knobA) != "9\n" || m.text(installed) != "old program" || m.states() != "unfinished" {
		t.Errorf("%s", m.states())
	}
}

// Only what had to be confirmed is taken back, whatever else there is.
func TestExpireLeavesOthers(t *testing.T) {
	m := newAwaiting(t)
	m.apply(plan.Applied, sealed(file("/etc/x", plan.Absent, plan.Text("1"))), plan.Options{})
	m.old = plantest.Snapshot(t, m.root)
	m.apply(plan.Applied, awaiting(), plan.Options{Within: time.Nanosecond})
	if out, _, err := m.Expire(ctx, plan.Options{}); err != nil || len(out) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	m.same()
	if m.states() != "applied,undone" {
		t.Error(m.states())
	}
}

// What does not hold any more cannot be confirmed.
func TestConfirmRefused(t *testing.T) {
	m := newAwaiting(t)
	r := m.apply(plan.Applied, awaiting(), within)
	m.write(knobA, "9\n")
	_, err := m.Confirm(ctx, "", plan.Options{})
	says(t, err, "cannot confirm "+r.Txn, `is "9", not "2"`, "hostcheck undo "+r.Txn)
	m.write(knobA, "1\n")
	m.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
	_, err = m.Confirm(ctx, "", plan.Options{})
	says(t, err, "a reboot has reset it")
	if m.states() != "unconfirmed" {
		t.Error(m.states())
	}
	m.undo(plan.Undone, "", plan.Options{})
	m.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
	m.same()
}

// A program that somebody installed since is theirs; the former one is not kept.
func TestCopyReplaced(t *testing.T) {
	m := newAwaiting(t)
	m.apply(plan.Applied, sealed(program(sum("old program"), sum("new program"))), plan.Options{})
	m.write(installed, "their program")
	m.old = plantest.Snapshot(t, m.root)
	for p := range m.old {
		if filepath.Dir(p) == filepath.Dir(installed) && p != installed {
			delete(m.old, p) // what was kept of the former one
		}
	}
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

func TestCopyRefused(t *testing.T) {
	m := newAwaiting(t)
	m.write(self, "another program") // since the plan was made
	r := m.apply(plan.Restored, sealed(program(sum("old program"), sum("new program"))), plan.Options{})
	says(t, r.Cause, "is not the one of the plan any more")
	m.write(self, "new program")
	m.same()
	for _, bad := range []plan.Change{
		program(plan.Text("x"), sum("new program")),
		program(plan.Absent, plan.Text("sha256:12")),
		{Setting: plan.Setting{Kind: plan.KindCopy, Target: "/usr/../x"}, After: sum("new program"), Tier: plan.Safe},
	} {
		_, err := m.Apply(ctx, sealed(bad), plan.Options{})
		says(t, err, "not a clean absolute path, or holds no sums")
	}
	_, err := m.Apply(ctx, sealed(deferred(knob("knob", knobA, "1", "2"))), plan.Options{})
	says(t, err, "nothing to confirm")
	_, err = m.Apply(ctx, sealed(knob("knob", knobB, "128", "4096"), deferred(knob("knob", knobA, "1", "2")), knob("knob", knobC, "on", "off")), plan.Options{})
	says(t, err, "follows one that is made later")
}

// What a boot sets again is journalled, and asks for no undo of its own.
func TestReapply(t *testing.T) {
	m := newAwaiting(t)
	again := plan.Options{Reapply: true}
	one := m.apply(plan.Applied, sealed(knob("knob", knobA, "1", "2")), plan.Options{}).Txn
	for _, boot := range []string{"2", "3", "4"} {
		m.write("/proc/sys/kernel/random/boot_id", "boot-"+boot+"\n")
		m.write(knobA, "1\n")
		m.apply(plan.Applied, sealed(knob("knob", knobA, "1", "2")), again)
	}
	if m.states() != "applied,applied again" { // those of earlier boots are forgotten
		t.Error(m.states())
	}
	m.undo(plan.Undone, one, plan.Options{})
	if m.text(knobA) != "1\n" {
		t.Error("not undone")
	}
	if _, err := m.Undo(ctx, "", plan.Options{}); !errors.Is(err, plan.ErrNothing) {
		t.Errorf("%v", err)
	}
	// one that waits to be confirmed does not keep a boot from setting the others
	m.apply(plan.Applied, awaiting(), within)
	m.apply(plan.Applied, sealed(knob("knob", knobC, "on", "off")), again)
}

func TestConfirmCrashLaw(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{
		Setup: confirmSetup, Engine: confirmEngine, Confirm: true,
		Plan: func(testing.TB, *plan.Engine) plan.Plan { return awaiting() },
	})
	if os.Getenv("HOSTCHECK_CRASH_CHILD") == "" && n < 300 {
		t.Errorf("only %d points tried", n)
	}
}
