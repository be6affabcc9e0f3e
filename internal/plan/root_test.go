// SPDX-License-Identifier: Apache-2.0

//go:build root

package plan_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const inNamespace = "HOSTCHECK_IN_NAMESPACE"

// inOwnMounts runs the calling test again, in a process with a mount namespace
// of its own, and reports whether this is that process.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func mount(t *testing.T, what, dir string, flags uintptr, opt string) {
	t.Helper()
	if err := unix.Mount(what, dir, what, flags, opt); err != nil {
		t.Fatal(err)
	}
}

// A full disk, a read-only /etc and an immutable file, all real.
func TestRootDisks(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	big := plan.Text(strings.Repeat("x", 200<<10))
	for name, c := range map[string]struct {
		before func(m *machine)
		err    error
	}{
		"full": {func(m *machine) {
			mount(t, "tmpfs", m.path("/etc"), 0, "size=64k")
		}, syscall.ENOSPC},
		"full with the journal": {func(m *machine) {
			mount(t, "tmpfs", m.root, 0, "size=500k") // the journal takes the text twice: after and diff
		}, syscall.ENOSPC},
		"read-only": {func(m *machine) {
			mount(t, "tmpfs", m.path("/etc"), 0, "")
		}, syscall.EROFS},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.before(m)
			t.Cleanup(func() {
				_ = unix.Unmount(m.path("/etc"), 0)
				_ = unix.Unmount(m.root, 0)
			})
			setup(t, m.root)
			if err := os.MkdirAll(m.path("/var/lib"), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.err == syscall.EROFS {
				mount(t, "tmpfs", m.path("/etc"), unix.MS_REMOUNT|unix.MS_RDONLY, "")
			}
			m.old = plantest.Snapshot(t, m.root)
			p := sealed(knob("knob", knobA, "1", "2"), file(replaced, plan.Text("old = 1\n"), plan.Text("1")), file(lone, plan.Text(""), big))
			if name == "full with the journal" {
				p.Changes[2].Diff = strings.Repeat("+", 200<<10)
			}
			r := m.apply(plan.Restored, p, plan.Options{})
			if !errors.Is(r.Cause, c.err) || r.Journal != nil || m.states() != "restored" {
				t.Errorf("%+v %s", r, m.states())
			}
			t.Log(r.Cause)
			m.same()
		})
	}
}
