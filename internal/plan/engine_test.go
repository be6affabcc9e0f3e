// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

var ctx = context.Background()

// machine is a tree with an engine over it and its first snapshot.
type machine struct {
	*testing.T
	root string
	*plan.Engine
	old plantest.Tree
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := plantest.TempDir(t)
	setup(t, root)
	if err := os.MkdirAll(filepath.Join(root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &machine{t, root, engine(root), plantest.Snapshot(t, root)}
}

func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

func (m *machine) write(p, text string) {
	m.Helper()
	if err := os.WriteFile(m.path(p), []byte(text), 0o644); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) text(p string) string {
	m.Helper()
	b, err := os.ReadFile(m.path(p))
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

func (m *machine) same() {
	m.Helper()
	if d := plantest.Diff(m.old, plantest.Snapshot(m.T, m.root)); d != "" {
		m.Errorf("the tree is not as it was:\n%s", d)
	}
}

// apply expects the outcome.
func (m *machine) apply(want plan.Outcome, p plan.Plan, opt plan.Options) plan.Result {
	m.Helper()
	r, err := m.Apply(ctx, p, opt)
	if err != nil || r.Outcome != want {
		m.Fatalf("apply: %v %+v, want %s", err, r, want)
	}
	return r
}

func (m *machine) undo(want plan.Outcome, id string, opt plan.Options) plan.Result {
	m.Helper()
	r, err := m.Undo(ctx, id, opt)
	if err != nil || r.Outcome != want {
		m.Fatalf("undo: %v %+v, want %s", err, r, want)
	}
	return r
}

func (m *machine) states() string {
	m.Helper()
	list, err := m.History()
	if err != nil {
		m.Fatal(err)
	}
	var s []string
	for _, t := range list {
		s = append(s, string(t.State))
	}
	return strings.Join(s, ",")
}

func says(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v does not say %q", err, p)
		}
	}
}

func TestApplyUndo(t *testing.T) {
	m := newMachine(t)
	var steps []string
	verified := false
	r := m.apply(plan.Applied, everything(), plan.Options{
		Verify: func(context.Context) error {
			verified = m.text(knobA) == "2\n" && m.text(knobC) == "on\n" && m.text(lone) == "x"
			return nil
		},
		Progress: func(s plan.Step) { steps = append(steps, fmt.Sprint(s.Phase, s.I, "/", s.N)) },
	})
	if !verified || r.Changed != 9 || r.Exit() != 0 {
		t.Errorf("verified %v, %+v", verified, r)
	}
	if got, want := strings.Join(steps, " "), "apply0/9 apply2/9 apply5/9 apply6/9 apply7/9 apply8/9 verify9/9"; got != want {
		t.Errorf("progress %s, want %s", got, want)
	}
	now := plantest.Snapshot(t, m.root)
	if !strings.Contains(now[replaced], `"old = 2\n"`) || strings.Replace(now[replaced], "= 2", "= 1", 1) != m.old[replaced] {
		t.Errorf("owner, mode and attributes do not stay: %s, was %s", now[replaced], m.old[replaced])
	}
	if !strings.HasPrefix(now[created], "-rw-r--r--") || !strings.HasPrefix(now["/etc/hostcheck.d"], "drwxr-xr-x") {
		t.Errorf("%s %s", now[created], now["/etc/hostcheck.d"])
	}

	// a second time it is refused, and nothing is written
	_, err := m.Apply(ctx, everything(), plan.Options{})
	var stale *plan.StaleError
	if !errors.As(err, &stale) || len(stale.Drift) != 7 {
		t.Errorf("second apply: %v", err)
	}
	says(t, err, `knob /proc/sys/net/a is "2" already`, "file /etc/modprobe.d/gone.conf is absent already")
	if d := plantest.Diff(now, plantest.Snapshot(t, m.root)); d != "" || m.states() != "applied" {
		t.Errorf("%s %s", d, m.states())
	}

	u := m.undo(plan.Undone, r.Txn, plan.Options{})
	if u.Txn != r.Txn || m.states() != "undone" {
		t.Errorf("%+v %s", u, m.states())
	}
	m.same()
	if _, err := m.Undo(ctx, r.Txn, plan.Options{}); !errors.Is(err, plan.ErrUndone) {
		t.Errorf("undo again: %v", err)
	}
	if _, err := m.Undo(ctx, "", plan.Options{}); !errors.Is(err, plan.ErrNothing) {
		t.Errorf("undo latest again: %v", err)
	}
	_, err = m.Undo(ctx, "20990101T000000-0000", plan.Options{})
	says(t, err, "no transaction")
	m.same()
}

func TestPlanThatIsRefused(t *testing.T) {
	changed := everything()
	changed.Changes[0].After = plan.Text("7")
	loose := everything()
	loose.Changes[7].Before = plan.Text("other")
	loose.Seal()
	firmware := knob("knob", knobA, "1", "2")
	firmware.Tier = plan.Firmware
	link := knob("knob", knobA, "1", "2")
	link.Tier = plan.Link
	for name, c := range map[string]struct {
		plan plan.Plan
		opt  plan.Options
		says string
	}{
		"empty":        {sealed(), plan.Options{}, "no changes"},
		"tampered":     {changed, plan.Options{}, "hash"},
		"not a chain":  {loose, plan.Options{}, "does not start where"},
		"unknown kind": {sealed(knob("magic", knobA, "1", "2")), plan.Options{}, `kind "magic"`},
		"escape":       {sealed(file("/etc/../../x", plan.Absent, plan.Text(""))), plan.Options{}, "clean absolute path"},
		"relative":     {sealed(file("etc/x", plan.Absent, plan.Text(""))), plan.Options{}, "clean absolute path"},
		"link":         {sealed(link), plan.Options{}, "tier link is not allowed"},
		"firmware":     {sealed(firmware), plan.Options{Allow: plan.Tiers}, "tier firmware is not allowed"},
		"bytes":        {sealed(file("/etc/x", plan.Absent, plan.Text("\xff"))), plan.Options{}, "UTF-8"},
		"schema":       {plan.Plan{SchemaName: "v9", Changes: everything().Changes}, plan.Options{}, "schema"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, err := m.Apply(ctx, c.plan, c.opt)
			says(t, err, c.says)
			m.same()
			if list, _ := m.History(); list != nil {
				t.Errorf("journalled: %v", list)
			}
		})
	}
}

func TestStale(t *testing.T) {
	m := newMachine(t)
	m.write(knobB, "200\n")
	m.write(replaced, "old = 1\n# by hand\n")
	if err := os.Remove(m.path(knobD)); err != nil {
		t.Fatal(err)
	}
	now := plantest.Snapshot(t, m.root)
	_, err := m.Apply(ctx, everything(), plan.Options{})
	var stale *plan.StaleError
	if !errors.As(err, &stale) || len(stale.Drift) != 3 {
		t.Fatalf("%v", err)
	}
	says(t, err, `knob /proc/sys/net/b is "200", not "128"`, "file "+replaced+" holds another text", "other /sys/devices/d: cannot read /sys/devices/d")
	if d := plantest.Diff(now, plantest.Snapshot(t, m.root)); d != "" || m.states() != "" {
		t.Errorf("%s %s", d, m.states())
	}
}

// A knob that does not do what it is told: everything is put back, and one
// sentence says why.
func TestUnwillingKnob(t *testing.T) {
	for name, c := range map[string]struct {
		write func(real func(p, s string) error, p, s string) error
		says  string
	}{
		"EINVAL":  {func(_ func(p, s string) error, _, _ string) error { return syscall.EINVAL }, "invalid argument"},
		"EBUSY":   {func(_ func(p, s string) error, _, _ string) error { return syscall.EBUSY }, "device or resource busy"},
		"ERANGE":  {func(_ func(p, s string) error, _, _ string) error { return syscall.ERANGE }, "out of range"},
		"ignored": {func(_ func(p, s string) error, _, _ string) error { return nil }, `other /sys/devices/d was set to "6" without an error, but still reads "5": the write was ignored`},
		"rounded": {func(f func(p, s string) error, p, s string) error { return f(p, strings.Replace(s, "6", "4", 1)) }, `was set to "6" without an error, but reads "4"`},
		"panics":  {func(_ func(p, s string) error, _, _ string) error { panic("verb is broken") }, "internal error: verb is broken"},
		"half": {func(f func(p, s string) error, p, s string) error {
			return errors.Join(f(p, strings.Replace(s, "6", "4", 1)), syscall.ENOMEM)
		}, "cannot allocate memory"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			sets := 0
			m.Machine.Knob = func(p, s string) error {
				if p == knobD && s == "6" {
					sets++
					return c.write(plantest.Knob(m.root), p, s)
				}
				return plantest.Knob(m.root)(p, s)
			}
			r := m.apply(plan.Restored, everything(), plan.Options{})
			says(t, r.Cause, c.says)
			if r.Exit() != 4 || sets != 1 || m.states() != "restored" || len(r.Left) != 0 {
				t.Errorf("%+v, set %d times, %s", r, sets, m.states())
			}
			m.same()
			if list, _ := m.History(); list[0].Why != r.Cause.Error() {
				t.Errorf("history says %q", list[0].Why)
			}
			if _, err := m.Undo(ctx, r.Txn, plan.Options{}); !errors.Is(err, plan.ErrUndone) {
				t.Errorf("undo: %v", err)
			}
		})
	}
}

// Errors of the file system, wherever they come.
func TestFileErrors(t *testing.T) {
	for _, c := range []struct {
		point string
		err   error
	}{
		{"before create /etc/sysctl.d/", syscall.EROFS},
		{"before write /etc/sysctl.d/", syscall.ENOSPC},
		{"before fsync /etc/sysctl.d/", syscall.EIO},
		{"before rename /etc/sysctl.d/", syscall.EPERM},
		{"after rename /etc/sysctl.d/", syscall.EIO},
		{"before mkdir /etc/hostcheck.d/deep", syscall.ENOSPC},
		{"before unlink /etc/modprobe.d", syscall.EPERM},
	} {
		t.Run(c.point, func(t *testing.T) {
			m := newMachine(t)
			hit := false
			m.Fault = func(point string) error {
				if strings.HasPrefix(point, c.point) {
					hit = true
					return c.err
				}
				return nil
			}
			r := m.apply(plan.Restored, everything(), plan.Options{})
			if !hit || !errors.Is(r.Cause, c.err) {
				t.Errorf("%v %+v", hit, r)
			}
			m.same()
		})
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	m := newMachine(t)
	if err := os.Chmod(m.path("/etc/sysctl.d"), 0o555); err != nil {
		t.Fatal(err)
	}
	m.old = plantest.Snapshot(t, m.root)
	r := m.apply(plan.Restored, everything(), plan.Options{})
	if !errors.Is(r.Cause, syscall.EACCES) {
		t.Errorf("%+v", r)
	}
	m.same()
}

func TestVerifyFails(t *testing.T) {
	for name, verify := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errors.New("link.up fails") },
		"panic": func(context.Context) error { panic("link.up fails") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			r := m.apply(plan.Restored, everything(), plan.Options{Verify: verify})
			says(t, r.Cause, "do not help", "link.up fails")
			m.same()
		})
	}
}

// A file that someone writes between the check and the replacement stays theirs.
func TestFileChangedAMomentAgo(t *testing.T) {
	m := newMachine(t)
	m.Fault = func(point string) error {
		if strings.HasPrefix(point, "before mkdir /etc") { // all settings were checked
			m.write(replaced, "theirs\n")
		}
		return nil
	}
	r := m.apply(plan.Restored, sealed(knob("knob", knobA, "1", "2"), file(created, plan.Absent, plan.Text("1")), file(replaced, plan.Text("old = 1\n"), plan.Text("2"))), plan.Options{})
	says(t, r.Cause, "changed a moment ago")
	if m.text(replaced) != "theirs\n" || m.text(knobA) != "1\n" {
		t.Errorf("%q %q", m.text(replaced), m.text(knobA))
	}
}

// unread is a verb that cannot read its knob for a while.
type unread struct {
	knobs
	failing *bool
}

func (u unread) Read(ctx context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	if *u.failing {
		return plan.Absent, syscall.EIO
	}
	return u.knobs.Read(ctx, h, s)
}

// A setting that cannot be read back is put back all the same, and when it can
// be read again everything is as it was.
func TestUnreadableWhilePuttingBack(t *testing.T) {
	m := newMachine(t)
	failing := false
	m.Verbs = []plan.Verb{unread{knobs{kind: "knob"}, &failing}}
	m.Machine.Knob = func(p, s string) error {
		failing = s == "2"
		return plantest.Knob(m.root)(p, s)
	}
	r := m.apply(plan.Restored, sealed(knob("knob", knobA, "1", "2")), plan.Options{})
	says(t, r.Cause, "cannot read knob /proc/sys/net/a back")
	m.same()
}

// A knob that cannot be put back: said, with what to do, and undo finishes it.
func TestIncomplete(t *testing.T) {
	m := newMachine(t)
	broken := true
	m.Machine.Knob = func(p, s string) error {
		if broken && (p == knobD || p == knobA && s == "1") {
			return syscall.EBUSY
		}
		return plantest.Knob(m.root)(p, s)
	}
	r := m.apply(plan.Incomplete, everything(), plan.Options{})
	if r.Exit() != 5 || len(r.Left) != 1 || r.Left[0].Name != knobA || m.states() != "unfinished" {
		t.Fatalf("%+v %s", r, m.states())
	}
	says(t, errors.New(r.Left[0].String()), `knob /proc/sys/net/a should be "1" again`, "device or resource busy", `by hand: set it to "1"`)

	pending, busy, err := m.Status(ctx)
	if err != nil || busy != nil || len(pending) != 1 || pending[0].ID != r.Txn {
		t.Fatalf("%v %v %v", pending, busy, err)
	}
	for _, s := range pending[0].Settings {
		want := plan.AsBefore
		if s.Name == knobA {
			want = plan.AsSet
		}
		if s.Standing != want {
			t.Errorf("%s stands %s", s.Setting, s.Standing)
		}
	}
	_, err = m.Apply(ctx, everything(), plan.Options{})
	var unfinished *plan.UnfinishedError
	if !errors.As(err, &unfinished) || unfinished.Txn != r.Txn {
		t.Errorf("%v", err)
	}
	says(t, err, "hostcheck --root "+m.root+" undo "+r.Txn)

	m.undo(plan.Incomplete, "", plan.Options{})
	broken = false
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

// What can never be put back is given up by force, and named; the next apply
// is not held up by it.
func TestGiveUp(t *testing.T) {
	m := newMachine(t)
	r := m.apply(plan.Applied, everything(), plan.Options{})
	if err := os.Remove(m.path(knobD)); err != nil {
		t.Fatal(err)
	}
	_, err := m.Undo(ctx, r.Txn, plan.Options{})
	var drift *plan.DriftError
	if !errors.As(err, &drift) || len(drift.Drift) != 1 {
		t.Fatalf("%v", err)
	}
	u := m.undo(plan.Incomplete, r.Txn, plan.Options{Force: true})
	if len(u.Left) != 1 || u.Left[0].Name != knobD || u.Exit() != 5 || m.states() != "partly undone" {
		t.Errorf("%+v %s", u, m.states())
	}
	delete(m.old, knobD)
	m.same()
	m.apply(plan.Applied, sealed(file("/etc/x", plan.Absent, plan.Text("y"))), plan.Options{})
}

// A signal at any point: as it was, and the exit says which signal.
func TestSignal(t *testing.T) {
	points := 0
	m := newMachine(t)
	m.Fault = func(string) error { points++; return nil }
	m.apply(plan.Applied, everything(), plan.Options{})
	for i := range points {
		m := newMachine(t)
		ctx, cancel := context.WithCancelCause(ctx)
		k := -1
		m.Fault = func(string) error {
			if k++; k == i {
				cancel(plan.Signal{Signal: syscall.SIGTERM})
			}
			return nil
		}
		r, err := m.Apply(ctx, everything(), plan.Options{})
		cancel(nil)
		switch {
		case err == nil && r.Outcome == plan.Applied && i >= points-4: // the last record is being written
			continue
		case err != nil || r.Outcome != plan.Interrupted || r.Exit() != 143 || r.Changed > 0 && m.states() != "restored":
			t.Fatalf("point %d of %d: %v %+v %s", i, points, err, r, m.states())
		}
		m.same()
	}
}

func TestSignalInUndo(t *testing.T) {
	m := newMachine(t)
	m.apply(plan.Applied, everything(), plan.Options{})
	c, cancel := context.WithCancelCause(ctx)
	m.Fault = func(point string) error {
		if strings.HasPrefix(point, "after write \"on") {
			cancel(plan.Signal{Signal: syscall.SIGINT})
		}
		return nil
	}
	cancelled := func() {
		r, err := m.Undo(c, "", plan.Options{})
		if err != nil || r.Outcome != plan.Interrupted || r.Exit() != 130 || m.states() != "unfinished" {
			t.Errorf("%v %+v %s", err, r, m.states())
		}
	}
	m.Fault = func(point string) error {
		if strings.HasPrefix(point, "after rename /etc") {
			cancel(plan.Signal{Signal: syscall.SIGINT})
		}
		return nil
	}
	cancelled()
	m.Fault = nil
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

func TestBusy(t *testing.T) {
	m := newMachine(t)
	r := m.apply(plan.Applied, everything(), plan.Options{Verify: func(context.Context) error {
		other := engine(m.root)
		_, err := other.Apply(ctx, everything(), plan.Options{})
		if !errors.Is(err, plan.ErrBusy) {
			t.Errorf("apply: %v", err)
		}
		says(t, err, fmt.Sprintf("process %d", os.Getpid()))
		if _, err := other.Undo(ctx, "", plan.Options{}); !errors.Is(err, plan.ErrBusy) {
			t.Errorf("undo: %v", err)
		}
		pending, busy, err := other.Status(ctx)
		if err != nil || !errors.Is(busy, plan.ErrBusy) || len(pending) != 1 {
			t.Errorf("status: %v %v %v", pending, busy, err)
		}
		return nil
	}})
	if _, busy, err := m.Status(ctx); busy != nil || err != nil {
		t.Errorf("%v %v", busy, err)
	}
	m.undo(plan.Undone, r.Txn, plan.Options{})
}

func TestPackageManager(t *testing.T) {
	m := newMachine(t)
	plantest.Files(t, m.root, map[string]string{"/var/lib/dpkg/lock-frontend": "", "/var/lib/dpkg/lock": ""})
	m.old = plantest.Snapshot(t, m.root)
	f, err := os.OpenFile(m.path("/var/lib/dpkg/lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// a lock of the open file: one of the process would not stand in our own way
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	_, err = m.Apply(ctx, everything(), plan.Options{})
	var packages *plan.PackagesError
	if !errors.As(err, &packages) || packages.Lock != "/var/lib/dpkg/lock" {
		t.Errorf("%v", err)
	}
	m.same()
	f.Close()
	m.apply(plan.Applied, everything(), plan.Options{})
}

func TestDrift(t *testing.T) {
	m := newMachine(t)
	m.apply(plan.Applied, everything(), plan.Options{})
	m.write(replaced, "theirs\n")
	m.write(knobB, "77\n")
	m.write(knobA, "1\n") // put back by hand: nothing to do
	now := plantest.Snapshot(t, m.root)
	_, err := m.Undo(ctx, "", plan.Options{})
	var drift *plan.DriftError
	if !errors.As(err, &drift) || len(drift.Drift) != 2 {
		t.Fatalf("%v", err)
	}
	says(t, err, `knob /proc/sys/net/b is "77", not "4096" as set nor "128" as before`, "file "+replaced+" holds another text: someone else")
	if d := plantest.Diff(now, plantest.Snapshot(t, m.root)); d != "" || m.states() != "applied" {
		t.Errorf("%s %s", d, m.states())
	}
	r := m.undo(plan.Undone, "", plan.Options{Force: true})
	m.same()
	log := m.text(filepath.Join(plan.Dir, r.Txn, "log"))
	if !strings.Contains(log, `"overwrite"`) || !strings.Contains(log, "dGhlaXJzCg==") {
		t.Error("what force overwrote is not kept")
	}
}

// After a reboot a knob that is neither old nor new was reset; a file is not.
func TestReboot(t *testing.T) {
	m := newMachine(t)
	m.apply(plan.Applied, everything(), plan.Options{})
	m.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
	m.write(knobA, "9\n")
	if err := os.Remove(m.path(knobD)); err != nil {
		t.Fatal(err)
	}
	m.undo(plan.Undone, "", plan.Options{})
	now := plantest.Snapshot(t, m.root)
	if m.text(knobA) != "9\n" || m.text(knobB) != "128\n" || now[replaced] != m.old[replaced] || now[removed] != m.old[removed] {
		t.Error(plantest.Diff(m.old, now))
	}

	m = newMachine(t)
	m.apply(plan.Applied, everything(), plan.Options{})
	m.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
	m.write(replaced, "theirs\n")
	var drift *plan.DriftError
	if _, err := m.Undo(ctx, "", plan.Options{}); !errors.As(err, &drift) {
		t.Errorf("%v", err)
	}
}

// A knob that is to last is made to last by a later change, which a power cut
// may have kept away: the reboot reset it. Once all was done it is drift.
func TestPowerCut(t *testing.T) {
	last := knob("knob", knobA, "1", "2")
	last.Persist = true
	p := sealed(last, file("/etc/x", plan.Absent, plan.Text("1")))
	for stopped, records := range map[bool]int{true: 2, false: 100} {
		m := newMachine(t)
		id := m.apply(plan.Applied, p, plan.Options{}).Txn
		log := filepath.Join(plan.Dir, id, "log")
		lines := strings.SplitAfter(m.text(log), "\n")
		m.write(log, strings.Join(lines[:min(records, len(lines))], ""))
		m.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
		m.write(knobA, "9\n")
		var drift *plan.DriftError
		if !stopped {
			if _, err := m.Undo(ctx, "", plan.Options{}); !errors.As(err, &drift) {
				t.Errorf("%v", err)
			}
			continue
		}
		if err := os.Remove(m.path("/etc/x")); err != nil {
			t.Fatal(err)
		}
		pending, _, err := m.Status(ctx)
		if err != nil || len(pending) != 1 || len(pending[0].Settings) != 1 || pending[0].Settings[0].Standing != plan.Reset {
			t.Errorf("%v %+v", err, pending)
		}
		m.undo(plan.Undone, "", plan.Options{})
		if m.text(knobA) != "9\n" {
			t.Errorf("the undo set a knob that a reboot had reset: %q", m.text(knobA))
		}
	}
}

// What a running host changed is taken back on its disk alone: a kernel that
// does not run holds nothing.
func TestUndoOffline(t *testing.T) {
	m := newMachine(t)
	m.apply(plan.Applied, everything(), plan.Options{})
	m.Machine = nil
	if err := os.RemoveAll(m.path("/proc")); err != nil {
		t.Fatal(err)
	}
	m.undo(plan.Undone, "", plan.Options{})
	now := plantest.Snapshot(t, m.root)
	for p := range m.old {
		if !strings.HasPrefix(p, "/proc") && !strings.HasPrefix(p, "/sys") && now[p] != m.old[p] {
			t.Errorf("%s: %s, want %s", p, now[p], m.old[p])
		}
	}
}

// A device that does half of what it is told, on the way back too, leaves a
// value that is nobody's: the transaction's own, for a later undo.
func TestUndoHalf(t *testing.T) {
	m := newMachine(t)
	m.write(knobA, "8\n")
	honest := m.Machine.Knob
	m.Machine.Knob = func(p, s string) error {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			return err
		}
		return honest(p, strconv.Itoa((n+1)/2))
	}
	r := m.apply(plan.Incomplete, sealed(knob("knob", knobA, "8", "2")), plan.Options{})
	if len(r.Left) != 1 || m.text(knobA) != "4\n" {
		t.Errorf("%+v, and it holds %q", r, m.text(knobA))
	}
	m.Machine.Knob = honest
	if r := m.undo(plan.Undone, "", plan.Options{}); r.Changed != 1 || m.text(knobA) != "8\n" {
		t.Errorf("%+v, and it holds %q", r, m.text(knobA))
	}
}

func TestStacked(t *testing.T) {
	m := newMachine(t)
	one := m.apply(plan.Applied, sealed(knob("knob", knobA, "1", "2"), file("/etc/x", plan.Absent, plan.Text("1"))), plan.Options{}).Txn
	apart := m.apply(plan.Applied, sealed(knob("knob", knobB, "128", "256")), plan.Options{}).Txn
	two := m.apply(plan.Applied, sealed(file("/etc/x", plan.Text("1"), plan.Text("2"))), plan.Options{}).Txn
	three := m.apply(plan.Applied, sealed(knob("knob", knobA, "2", "3")), plan.Options{}).Txn
	if !slices.IsSorted([]string{one, apart, two, three}) {
		t.Errorf("not in order: %s %s %s %s", one, apart, two, three)
	}
	_, err := m.Undo(ctx, one, plan.Options{})
	var stacked *plan.StackedError
	if !errors.As(err, &stacked) || !slices.Equal(stacked.Later, []string{three, two}) {
		t.Errorf("%v", err)
	}
	m.undo(plan.Undone, apart, plan.Options{}) // touches nothing of the others
	m.undo(plan.Undone, three, plan.Options{})
	list, err := m.UndoAll(ctx, plan.Options{})
	if err != nil || len(list) != 2 || list[0].Txn != two || list[1].Txn != one {
		t.Errorf("%v %+v", err, list)
	}
	m.same()
	if _, err := m.UndoAll(ctx, plan.Options{}); !errors.Is(err, plan.ErrNothing) {
		t.Errorf("%v", err)
	}
}

// The clock may have been years ahead: the next transaction still sorts last.
func TestClockStepsBack(t *testing.T) {
	m := newMachine(t)
	id := m.apply(plan.Applied, sealed(knob("knob", knobA, "1", "2")), plan.Options{}).Txn
	old, late := m.path(filepath.Join(plan.Dir, id)), "20991231T235959-abcd"
	for _, f := range []string{"plan.json"} {
		s := m.text(filepath.Join(plan.Dir, id, f))
		m.write(filepath.Join(plan.Dir, id, f), strings.ReplaceAll(s, id, late))
	}
	if err := os.Rename(old, filepath.Join(filepath.Dir(old), late)); err != nil {
		t.Fatal(err)
	}
	if next := m.apply(plan.Applied, sealed(knob("knob", knobA, "2", "3")), plan.Options{}).Txn; next <= late || next[:15] != "21000101T000000" {
		t.Errorf("%s", next)
	}
}

func TestOffline(t *testing.T) {
	m := newMachine(t)
	m.Machine = nil
	p := sealed(file("/etc/x", plan.Absent, plan.Text("1")))
	r := m.apply(plan.Applied, p, plan.Options{})
	m.undo(plan.Undone, r.Txn, plan.Options{})
	m.same()
	if _, err := m.Apply(ctx, sealed(knob("knob", knobA, "1", "2")), plan.Options{}); !errors.Is(err, plan.ErrOffline) {
		t.Errorf("%v", err)
	}
	made := plantest.Make(t, m.Engine, []plan.Wish{wish("knob", knobA, "2")})
	if len(made.Changes) != 0 || len(made.Refused) != 1 || !strings.Contains(made.Refused[0].Reason, "no running kernel") {
		t.Errorf("%+v", made)
	}
	// a driver that tries all the same is stopped by the transaction
	for name, write := range map[string]func(tx *plan.Tx) error{
		"knob": func(tx *plan.Tx) error { return tx.WriteKnob(knobA, "2") },
		"call": func(tx *plan.Tx) error { return tx.Call("set rings", func() error { t.Error("called"); return nil }) },
		"run":  func(tx *plan.Tx) error { return tx.Run("systemctl", "daemon-reload") },
	} {
		if err := inTx(t, m, write); !errors.Is(err, plan.ErrOffline) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// inTx runs write as part of a transaction and gives its error.
func inTx(t *testing.T, m *machine, write func(tx *plan.Tx) error) (err error) {
	t.Helper()
	machine := m.Machine
	if m.Machine == nil {
		m.Machine = &plan.Machine{}
	}
	m.Verbs = append(m.Verbs, knobs{kind: "try", apply: func(tx *plan.Tx, c plan.Change) error {
		if c.After.Text == "1" {
			return nil // putting back
		}
		err = plan.WithMachine(tx, machine, write)
		return errors.New("tried")
	}})
	m.apply(plan.Restored, sealed(knob("try", knobA, "1", "2")), plan.Options{})
	m.Verbs = m.Verbs[:len(m.Verbs)-1]
	m.Machine = machine
	return err
}

func TestTxRefuses(t *testing.T) {
	m := newMachine(t)
	var ran [][]string
	m.Machine.Run = func(_ context.Context, argv []string) ([]byte, error) {
		ran = append(ran, argv)
		return []byte("unit is masked\n"), errors.New("exit status 1")
	}
	for name, c := range map[string]struct {
		write func(tx *plan.Tx) error
		says  string
	}{
		"file that is not planned": {func(tx *plan.Tx) error { return tx.ReplaceFile("/etc/passwd", plan.Text(""), 0o644) }, "not a file of the plan"},
		"knob elsewhere":           {func(tx *plan.Tx) error { return tx.WriteKnob("/etc/passwd", "") }, "not below /proc or /sys"},
		"knob by a detour":         {func(tx *plan.Tx) error { return tx.WriteKnob("/proc/../etc/passwd", "") }, "not below /proc or /sys"},
		"some program":             {func(tx *plan.Tx) error { return tx.Run("sh", "-c", "true") }, "not one of the programs"},
		"program that fails":       {func(tx *plan.Tx) error { return tx.Run("systemctl", "start", "x") }, "exit status 1; it says: unit is masked"},
	} {
		err := inTx(t, m, c.write)
		if err == nil {
			t.Errorf("%s: allowed", name)
		}
		says(t, err, c.says)
	}
	if len(ran) != 1 || ran[0][0] != "systemctl" {
		t.Errorf("%v", ran)
	}
	list, _ := m.History()
	found := false
	for _, l := range list {
		found = found || strings.Contains(m.text(filepath.Join(plan.Dir, l.ID, "log")), `"argv":["systemctl","start","x"],"output":"unit is masked`)
	}
	if !found {
		t.Error("the command is not in a journal")
	}
	m.same()
}

// Files that could not be put back as they were are not touched.
func TestFileRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		make func(m *machine) error
		says string
	}{
		"link":       {func(m *machine) error { return os.Symlink("lone.conf", m.path("/etc/x")) }, "symbolic link"},
		"hard link":  {func(m *machine) error { return os.Link(m.path(lone), m.path("/etc/x")) }, "2 hard links"},
		"fifo":       {func(m *machine) error { return unix.Mkfifo(m.path("/etc/x"), 0o600) }, "regular file"},
		"directory":  {func(m *machine) error { return os.Mkdir(m.path("/etc/x"), 0o755) }, "directory"},
		"set-id":     {func(m *machine) error { m.write("/etc/x", ""); return os.Chmod(m.path("/etc/x"), 0o755|os.ModeSetuid) }, "set-id"},
		"not a text": {func(m *machine) error { m.write("/etc/x", "\xff\xfe"); return nil }, "not a text file"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if err := c.make(m); err != nil {
				t.Fatal(err)
			}
			m.old = plantest.Snapshot(t, m.root)
			r, err := m.Apply(ctx, sealed(knob("knob", knobA, "1", "2"), file("/etc/x", plan.Text(""), plan.Text("new"))), plan.Options{})
			if err == nil {
				err = r.Cause
				if r.Outcome != plan.Restored {
					t.Errorf("%+v", r)
				}
			}
			says(t, err, c.says)
			m.same()
		})
	}
}

// No link of a tree leads out of it.
func TestLinksStayInside(t *testing.T) {
	outside := t.TempDir()
	for _, to := range []string{outside, "../../../../../../../../../.." + outside} {
		m := newMachine(t)
		if err := os.Symlink(to, m.path("/etc/out")); err != nil {
			t.Fatal(err)
		}
		m.old = plantest.Snapshot(t, m.root)
		r := m.apply(plan.Restored, sealed(file("/etc/out/x", plan.Absent, plan.Text("1"))), plan.Options{})
		says(t, r.Cause, "escapes")
		m.same()
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func wish(kind, name, want string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: kind, Name: name}, Want: want, Tier: plan.Safe, Check: "a.b", Why: "because"}
}

func TestPlan(t *testing.T) {
	m := newMachine(t)
	m.Machine.Knob = plantest.Knob(m.root)
	p := plantest.Make(t, m.Engine, []plan.Wish{
		wish("other", knobD, "6"), wish("knob", knobB, "256"), wish("knob", knobA, "1"),
		wish("knob", "/proc/sys/none", "1"), wish("magic", "x", "1"),
	})
	var got []string
	for _, c := range p.Changes {
		got = append(got, c.Name+": "+c.Diff)
	}
	if want := []string{knobB + ": 128 -> 256", knobD + ": 5 -> 6"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	got = nil
	for _, r := range p.Refused {
		got = append(got, r.String()+": "+r.Reason)
	}
	if want := []string{"knob /proc/sys/none: cannot read /proc/sys/none: no such file or directory", `magic x: this hostcheck knows no settings of kind "magic"`}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if p.Host != "h1" || p.ProfileHash != "profile" || p.Tool != "test" {
		t.Errorf("%+v", p)
	}
	m.apply(plan.Applied, p, plan.Options{})
	if p = plantest.Make(t, m.Engine, []plan.Wish{wish("other", knobD, "6"), wish("knob", knobB, "256")}); len(p.Changes) != 0 || p.Hash != "" {
		t.Errorf("the second plan is not empty: %+v", p)
	}
}

func TestUnite(t *testing.T) {
	same := wish("knob", knobA, "2")
	same.Check = "c.d"
	list, err := plan.Unite([]plan.Wish{wish("z", "", "1"), wish("knob", knobA, "2"), same})
	if err != nil || len(list) != 2 || list[0].Check != "a.b, c.d" || list[1].Kind != "z" {
		t.Errorf("%v %+v", err, list)
	}
	same.Want = "3"
	_, err = plan.Unite([]plan.Wish{wish("knob", knobA, "2"), same})
	var conflict *plan.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("%v", err)
	}
	says(t, err, `wanted as "2" by a.b and as "3" by c.d`)
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		change plan.Change
		want   string
	}{
		{knob("knob", knobA, "1", "2"), "1 -> 2"},
		{file("/etc/x", plan.Absent, plan.Text("a\n")), "--- /dev/null\n+++ b/etc/x\n@@ -0,0 +1 @@\n+a\n"},
		{file("/etc/x", plan.Text("a\n"), plan.Absent), "--- a/etc/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"},
		{file("/etc/x", plan.Text("a\nb\n"), plan.Text("a\nc")), "--- a/etc/x\n+++ b/etc/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n"},
	} {
		if got := plan.Diff(c.change); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.change.Setting, got, c.want)
		}
	}
}

// The hash is a contract: scripts compare it across versions and hosts.
func TestHash(t *testing.T) {
	p := sealed(knob("knob", knobA, "1", "2"), file(created, plan.Absent, plan.Text("<é>\n")))
	const want = "7578aeb8ec6a72a34f5ede7135631fdc073a39588d390e3f5e1c4975e5086752"
	if p.Hash != want {
		t.Errorf("hash %s, want %s", p.Hash, want)
	}
	alike := p
	alike.Changes = slices.Clone(p.Changes)
	alike.Host, alike.Changes[0].Why, alike.Changes[0].Diff = "other", "why", "diff"
	if alike.Seal(); alike.Hash != want {
		t.Error("host, reasons or diffs are part of the hash")
	}
	for name, change := range map[string]func(p *plan.Plan){
		"order":   func(p *plan.Plan) { slices.Reverse(p.Changes) },
		"tool":    func(p *plan.Plan) { p.Tool = "other" },
		"profile": func(p *plan.Plan) { p.ProfileHash = "other" },
		"before":  func(p *plan.Plan) { p.Changes[0].Before = plan.Absent },
		"after":   func(p *plan.Plan) { p.Changes[0].After = plan.Text("") },
		"absent":  func(p *plan.Plan) { p.Changes[1].Before = plan.Text("") },
		"tier":    func(p *plan.Plan) { p.Changes[0].Tier = plan.Link },
		"persist": func(p *plan.Plan) { p.Changes[0].Persist = true },
		"name":    func(p *plan.Plan) { p.Changes[0].Name += "x" },
	} {
		q := p
		q.Changes = slices.Clone(p.Changes)
		change(&q)
		if q.Seal(); q.Hash == want {
			t.Errorf("%s is not part of the hash", name)
		}
	}
}

func TestJSON(t *testing.T) {
	p := everything()
	p.Refused = []plan.Refusal{{Setting: plan.Setting{Kind: "manual", Name: "VT-d"}, Want: "on", Reason: "firmware"}}
	p.Seal()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back plan.Plan
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(back); string(again) != string(b) {
		t.Errorf("got %s, want %s", again, b)
	}
	validate(t, b)
	empty := sealed()
	b, _ = json.Marshal(empty)
	validate(t, b)
}
