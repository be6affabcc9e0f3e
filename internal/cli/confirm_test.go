// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

const (
	ring      = "/sys/class/net/eth1/ring"
	timerLink = "/etc/systemd/system/timers.target.wants/hostcheck-expire.timer"
	installed = "/usr/local/sbin/hostcheck"
)

// ringLab has one ring that is too small.
func ringLab(t *testing.T) *lab {
	t.Helper()
	return newLab(t, labCheck("ring.size", "eth1", "ring", "4096", plan.Link))
}

// unarmed wants no trace of the timer.
func (l *lab) unarmed() {
	l.Helper()
	for _, p := range []string{timerLink, "/etc/systemd/system/hostcheck-expire.timer", "/etc/systemd/system/hostcheck-expire.service"} {
		if _, err := os.Lstat(l.path(p)); err == nil {
			l.Errorf("%s is there", p)
		}
	}
	if n := plantest.Runs(l.root); n != nil {
		l.Errorf("%v still run", n)
	}
}

// fixRing makes the change and leaves it unconfirmed.
func (l *lab) fixRing() report.Fix {
	l.Helper()
	out, _ := l.exits(0, "--fix", "--yes", "--allow", "link", "-f", "json")
	var f report.Fix
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		l.Fatal(err)
	}
	return f
}

// later makes the deadline of the transaction that waits pass.
func (l *lab) later() {
	l.Helper()
	l.write("/proc/sys/kernel/random/boot_id", "22222222-2222-4333-8444-555555555555\n") // a reboot is the end of it
}

func TestConfirm(t *testing.T) {
	l := ringLab(t)
	start := plantest.Snapshot(t, l.root)
	// the timer runs before anything is changed
	kernel := l.knob
	l.knob = func(p, text string) error {
		if text == "4096" && !slices.Equal(plantest.Runs(l.root), []string{"hostcheck-expire.timer"}) {
			t.Errorf("changed with %v running", plantest.Runs(l.root))
		}
		return kernel(p, text)
	}
	out, _ := l.exits(0, "--fix", "--yes", "--allow", "link")
	l.wants(out, "! NOT CONFIRMED   taken back in 1m59s, at ", "unless you confirm it", "DONE   5 changes made, read back and verified", "when  it is confirmed",
		"copy "+installed, "ExecStart="+installed+" expire", "deadline hostcheck-expire.timer")
	if l.text(ring)+l.text(installed) != "4096\nthe program\n" {
		t.Error("it is not changed")
	}
	out, _ = l.exits(1, "status")
	l.wants(out, "! NOT CONFIRMED   taken back in 1m5", "unconfirmed", "confirm  hostcheck --root "+l.root+" confirm 20", "undo  hostcheck --root")
	out, _ = l.exits(1, "status", "-f", "json")
	s := document[report.Status](t, out)
	if u := s.Unconfirmed; u == nil || u.Left < 110 || u.Left > 120 || len(s.Pending) != 0 || s.Exit != 1 || u.State != plan.Unconfirmed {
		t.Errorf("%+v", s)
	}
	_, errs := l.exits(2, "--fix", "--yes", "--only", "ring.*")
	l.wants(errs, "waits to be confirmed, until", "hostcheck confirm, or hostcheck undo 20")
	_, errs = l.exits(2, "confirm", "20200101T000000-0000")
	l.wants(errs, "nothing waits to be confirmed")

	out, _ = l.exits(0, "confirm")
	l.wants(out, "✓ CONFIRMED   20", "lasts", "undo   hostcheck")
	if l.text(ring) != "4096\n" {
		t.Error("confirming changes it")
	}
	l.unarmed()
	if _, err := os.Stat(l.path(installed)); err == nil {
		t.Error("nothing needs the copy, and it is there")
	}
	l.exits(0, "status")
	l.exits(2, "confirm")
	l.exits(0, "expire")
	l.knob = kernel
	l.exits(0, "undo")
	l.same(start, "after undo")
	out, _ = l.exits(0, "history")
	l.wants(out, "undone")
}

func TestConfirmAuto(t *testing.T) {
	l := ringLab(t)
	start := plantest.Snapshot(t, l.root)
	var calls []string
	l.ctl = func(argv []string) error { calls = append(calls, argv[2]); return nil }
	out, _ := l.exits(0, "--fix", "--yes", "--allow", "link", "--confirm=auto", "-f", "json")
	f := document[report.Fix](t, out)
	if f.Result.Outcome != plan.Applied || f.Result.Until != nil || f.Result.Confirm != "" || f.Result.Changed != 9 {
		t.Errorf("%+v", f.Result)
	}
	if got := strings.Join(calls, " "); got != "enable restart stop disable" {
		t.Errorf("systemctl was called with %s", got)
	}
	l.unarmed()
	l.exits(0, "status")
	l.exits(0, "undo")
	l.same(start, "after undo")
}

func TestConfirmJSON(t *testing.T) {
	l := ringLab(t)
	f := l.fixRing()
	until, err := time.Parse(time.RFC3339, *f.Result.Until)
	if left := time.Until(until); err != nil || left < time.Minute || left > 2*time.Minute || !strings.HasSuffix(f.Result.Confirm, "confirm "+f.Result.Txn) {
		t.Errorf("%+v", f.Result)
	}
	out, _ := l.exits(0, "confirm", f.Result.Txn, "-f", "json")
	if c := document[report.Confirmed](t, out); c.Schema != report.ConfirmSchema || c.Exit != 0 || c.Result.Txn != f.Result.Txn || c.Result.Outcome != plan.Applied {
		t.Errorf("%+v", c)
	}
}

// Taking back what was confirmed arms the timer again; that this fails is no
// reason to leave the change.
func TestUndoConfirmed(t *testing.T) {
	l := ringLab(t)
	start := plantest.Snapshot(t, l.root)
	l.exits(0, "--fix", "--yes", "--allow", "link", "--confirm=auto")
	kernel := l.knob
	l.knob = func(p, text string) error {
		if !slices.Equal(plantest.Runs(l.root), []string{"hostcheck-expire.timer"}) {
			t.Error("taken back without a timer")
		}
		return kernel(p, text)
	}
	l.exits(0, "undo")
	l.same(start, "after undo")

	l.knob = kernel
	for _, verb := range []string{"enable", "restart"} {
		l.exits(0, "--fix", "--yes", "--allow", "link", "--confirm=auto")
		l.ctl = func(argv []string) error {
			if argv[2] == verb {
				return errors.New("exit status 1")
			}
			return nil
		}
		l.exits(0, "undo")
		l.ctl = nil
		l.same(start, "after undo without "+verb)
		l.unarmed()
	}
}

// Nobody confirms: the timer's run takes back this transaction and no other.
func TestExpire(t *testing.T) {
	l := ringLab(t)
	l.checks = append(l.checks, labCheck("lab.queue", "", "queue", "4096", plan.Safe))
	l.exits(0, "fix", "lab.queue", "--yes")
	start := plantest.Snapshot(t, l.root)
	l.fixRing()
	l.later()
	out, _ := l.exits(0, "expire")
	l.wants(out, "UNDONE   20", "5 settings put back and read back")
	l.write("/proc/sys/kernel/random/boot_id", labTree()["/proc/sys/kernel/random/boot_id"])
	l.same(start, "after the time was up")
	l.unarmed()
	_, errs := l.exits(2, "confirm")
	l.wants(errs, "nothing waits to be confirmed", "hostcheck history")
	l.exits(0, "status")
}

// The confirmation cannot be carried out: the host is as it was before.
func TestConfirmFails(t *testing.T) {
	l := ringLab(t)
	start := plantest.Snapshot(t, l.root)
	l.fixRing()
	failed := false
	l.ctl = func(argv []string) error {
		if argv[2] == "disable" && !failed {
			failed = true
			return errors.New("exit status 1")
		}
		return nil
	}
	out, _ := l.exits(4, "confirm")
	l.wants(out, "RESTORED", "exit status 1")
	l.same(start, "after a confirmation that failed")
	l.unarmed()
}

// Without a timer outside there is no change of tier link, whoever confirms.
func TestNoTimer(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l *lab)
		want  string
	}{
		"no systemd":            {func(l *lab) { l.remove("/run/systemd") }, "systemd does not run this host"},
		"others may write":      {func(l *lab) { l.chmod("/usr/local", 0o777) }, "others than root may write to /usr/local"},
		"others wrote the copy": {func(l *lab) { l.write(installed, "the program\n"); l.chmod(installed, 0o775) }, "/usr/local/sbin/hostcheck cannot be relied on"},
		"it is armed already":   {func(l *lab) { l.link(timerLink, "/x") }, "systemctl disable --now hostcheck-expire.timer"},
	} {
		for _, confirm := range []string{"auto", "manual"} {
			l := ringLab(t)
			c.spoil(l)
			start := plantest.Snapshot(t, l.root)
			out, _ := l.exits(1, "--fix", "--yes", "--allow", "link", "--confirm", confirm)
			l.wants(strings.Join(strings.Fields(out), " "), "nothing to fix", "nothing outside hostcheck could take it back if this host were cut off", c.want)
			l.same(start, name)
		}
	}
	for _, verb := range []string{"enable", "restart"} {
		l := ringLab(t)
		start := plantest.Snapshot(t, l.root)
		l.ctl = func(argv []string) error {
			if argv[2] == verb {
				return errors.New("exit status 1")
			}
			return nil
		}
		l.knob = func(string, string) error { t.Error("changed without a timer"); return nil }
		l.exits(4, "--fix", "--yes", "--allow", "link")
		l.same(start, "without a timer")
		l.unarmed()
	}
}

func (l *lab) remove(p string) {
	l.Helper()
	if err := os.RemoveAll(l.path(p)); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) chmod(p string, mode os.FileMode) {
	l.Helper()
	if err := os.Chmod(l.path(p), mode); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) link(p, to string) {
	l.Helper()
	if err := os.MkdirAll(l.path(p[:strings.LastIndexByte(p, '/')]), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.Symlink(to, l.path(p)); err != nil {
		l.Fatal(err)
	}
}

// A kernel that does not answer the timer's run: it is said, and tried again.
func TestExpireHung(t *testing.T) {
	l := ringLab(t)
	start := plantest.Snapshot(t, l.root)
	l.fixRing()
	l.later()
	kernel, answer := l.knob, make(chan struct{})
	l.limit = 50 * time.Millisecond
	l.knob = func(p, text string) error {
		<-answer
		return kernel(p, text)
	}
	out, _ := l.exits(5, "expire")
	l.wants(strings.Join(strings.Fields(out), " "), "the kernel has not answered for 50ms", "it stays, to put the rest back once the kernel answers")
	if n := plantest.Runs(l.root); !slices.Equal(n, []string{"hostcheck-expire.timer"}) {
		t.Errorf("%v run", n)
	}
	out, _ = l.exits(1, "status")
	l.wants(strings.Join(strings.Fields(out), " "), "the kernel has not answered for 50ms")
	_, errs := l.exits(2, "confirm")
	l.wants(errs, "nothing waits to be confirmed")
	close(answer)
	time.Sleep(50 * time.Millisecond) // what waited is made now
	l.exits(0, "expire")
	l.unarmed()
	l.write("/proc/sys/kernel/random/boot_id", labTree()["/proc/sys/kernel/random/boot_id"])
	l.same(start, "after it")
}
