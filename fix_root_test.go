// SPDX-License-Identifier: Apache-2.0

//go:build root

package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

const inNamespaces = "HOSTCHECK_TEST_IN_NAMESPACES"

// TestRootFix fixes real kernel parameters through the command: planned,
// applied, judged again, undone, and all as before. It runs in network and
// mount namespaces of its own, with an /etc and a /var/lib of its own; the
// parameters are those that each network namespace has for itself.
func TestRootFix(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: making namespaces needs root")
	}
	if os.Getenv(inNamespaces) != "" {
		makeLab(t)
		t.Run("loop", rootLoop)
		t.Run("refused by the kernel", rootRefused)
		t.Run("somebody else", rootDrift)
		t.Run("ordinary user", rootUser)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRootFix$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespaces+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("skipped: cannot make namespaces: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// makeLab gives the namespaces what the test changes, and nothing of the machine.
func makeLab(t *testing.T) {
	mount := func(kind, at string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount("none", at, kind, flags, ""); err != nil {
			t.Fatalf("cannot mount %s on %s: %v", kind, at, err)
		}
	}
	mount("", "/", syscall.MS_REC|syscall.MS_PRIVATE)
	mount("tmpfs", "/etc", 0)
	mount("tmpfs", "/var/lib", 0)
	mount("sysfs", "/sys", 0) // of this network namespace
	for p, text := range map[string]string{"/etc/hostname": "lab\n", "/etc/os-release": "ID=debian\nVERSION_ID=13\n", "/etc/sysctl.d/60-guide.conf": "# somebody's guide\nnet.core.somaxconn = 128\n"} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for p, text := range bad {
		if err := os.WriteFile(p, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Log("no ip (iproute2): without a default route")
		return
	}
	ip := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Logf("ip %s: %v: %s", args, err, out)
		}
		return err
	}
	for _, kind := range []string{"dummy", "veth peer name hc1", "bridge"} { // a kernel need not have all
		if ip("link add hc0 type "+kind) == nil {
			if err := errors.Join(ip("addr add 192.0.2.2/24 dev hc0"), ip("link set hc0 up"), ip("route add default via 192.0.2.1")); err != nil {
				t.Fatal(err)
			}
			routed = true
			break
		}
	}
}

// routed tells whether the namespace has a default route.
var routed bool

// bad is how the parameters stand at first.
var bad = map[string]string{
	"/proc/sys/net/core/somaxconn":          "128",
	"/proc/sys/net/ipv4/tcp_window_scaling": "0",
	"/proc/sys/net/ipv4/tcp_timestamps":     "0",
}

type state struct {
	tree  plantest.Tree
	knobs map[string]string
}

func stateNow(t *testing.T) state {
	t.Helper()
	s := state{plantest.Snapshot(t, "/etc"), map[string]string{}}
	for p := range bad {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		s.knobs[p] = strings.TrimSpace(string(b))
	}
	return s
}

func (s state) same(t *testing.T, when string) {
	t.Helper()
	now := stateNow(t)
	if d := plantest.Diff(s.tree, now.tree); d != "" {
		t.Errorf("%s: /etc differs:\n%s", when, d)
	}
	if !maps.Equal(s.knobs, now.knobs) {
		t.Errorf("%s: %v, want %v", when, now.knobs, s.knobs)
	}
}

// judgeBy is a profile that wants more of this host than its own would.
const judgeBy = `schema: hostcheck.profile/v1
name: lab
layer: site
sysctl:
  keys:
    - id: somaxconn
      key: net.core.somaxconn
      min: 16384
      source: "a test"
`

func rootRun(t *testing.T, want int, args ...string) string {
	t.Helper()
	out, errs, code := hostcheck(t, []string{"LANG=C.UTF-8", "COLUMNS=80", "PATH=" + os.Getenv("PATH")}, append(args, "--profile", profileFile(t, judgeBy))...)
	if code != want {
		t.Fatalf("hostcheck %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out
}

func profileFile(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func rootLoop(t *testing.T) {
	start := stateNow(t)
	checks := []string{"sysctl.somaxconn", "sysctl.tcp_defaults", "sysctl.persistence"}
	rootRun(t, 1, append(checks, "--fail-on", "warn")...)
	var p plan.Plan
	if err := json.Unmarshal([]byte(rootRun(t, 1, append([]string{"plan", "-f", "json"}, checks...)...)), &p); err != nil {
		t.Fatal(err)
	}
	want := []string{"file /etc/sysctl.d", "sysctl net.core.somaxconn", "sysctl net.ipv4.tcp_timestamps", "sysctl net.ipv4.tcp_window_scaling"}
	for _, w := range want {
		if !slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return strings.HasPrefix(c.Setting.String(), w) }) {
			t.Errorf("the plan has no change of %s: %+v", w, p.Changes)
		}
	}
	start.same(t, "after the plan")

	out := rootRun(t, 0, append([]string{"fix", "--yes", "--plan-hash", p.Hash, "-f", "json"}, checks...)...)
	var f report.Fix
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatal(err)
	}
	if f.Result.Outcome != plan.Applied || f.Result.Changed != len(p.Changes) || len(f.Verification) == 0 {
		t.Errorf("%+v", f.Result)
	}
	if routed && (len(f.Guards) == 0 || !f.Guards[0].Held || !strings.Contains(f.Guards[0].Got, "hc0")) {
		t.Errorf("the default route is not guarded: %+v", f.Guards)
	}
	for p, want := range map[string]string{"/proc/sys/net/core/somaxconn": "16384", "/proc/sys/net/ipv4/tcp_window_scaling": "1", "/proc/sys/net/ipv4/tcp_timestamps": "1"} {
		if got := stateNow(t).knobs[p]; got != want {
			t.Errorf("%s is %s, want %s", p, got, want)
		}
	}
	rootRun(t, 0, append(checks, "--fail-on", "warn")...)

	fixed := stateNow(t)
	journal := plantest.Snapshot(t, plan.Dir)
	rootRun(t, 0, append([]string{"plan"}, checks...)...)
	if out := rootRun(t, 0, append([]string{"fix", "--yes"}, checks...)...); !strings.Contains(out, "nothing to fix") {
		t.Errorf("a second fix:\n%s", out)
	}
	fixed.same(t, "after a second fix")
	if d := plantest.Diff(journal, plantest.Snapshot(t, plan.Dir)); d != "" {
		t.Errorf("a second fix writes to the journal:\n%s", d)
	}
	if out := rootRun(t, 0, "history"); !strings.Contains(out, f.Result.Txn) {
		t.Errorf("no %s in the history:\n%s", f.Result.Txn, out)
	}
	rootRun(t, 0, "status")
	rootRun(t, 0, "undo", f.Result.Txn)
	start.same(t, "after undo")
	rootRun(t, 1, append(checks, "--fail-on", "warn")...)
}

// What the kernel refuses is put back, the changes before it too.
func rootRefused(t *testing.T) {
	start := stateNow(t)
	over := "schema: hostcheck.profile/v1\nname: over\nlayer: site\nsysctl:\n  keys:\n    - id: somaxconn\n      key: net.core.somaxconn\n      min: 99999999999\n      source: \"a test\"\n"
	out, errs, code := hostcheck(t, []string{"LANG=C.UTF-8"}, "fix", "sysctl", "--yes", "--profile", profileFile(t, over))
	if code != 4 || !strings.Contains(out, "RESTORED") || !strings.Contains(out, "/proc/sys/net/core/somaxconn") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	start.same(t, "after a refusal")
	rootRun(t, 0, "status")
}

// What somebody else set since is theirs.
func rootDrift(t *testing.T) {
	start := stateNow(t)
	rootRun(t, 0, "fix", "sysctl.somaxconn", "--yes")
	const p = "/proc/sys/net/core/somaxconn"
	if err := os.WriteFile(p, []byte("777"), 0); err != nil {
		t.Fatal(err)
	}
	_, errs, code := hostcheck(t, nil, "undo")
	if code != 2 || !strings.Contains(errs, `sysctl net.core.somaxconn is "777"`) || stateNow(t).knobs[p] != "777" {
		t.Errorf("exit %d: %s", code, errs)
	}
	rootRun(t, 0, "undo", "--force")
	start.same(t, "after a forced undo")
}

// An ordinary user sees the plan and changes nothing.
func rootUser(t *testing.T) {
	start := stateNow(t)
	dir, err := os.MkdirTemp("", "hostcheck-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "hostcheck")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(bin, self, 0o755)); err != nil { //nolint:gosec // to be run by all
		t.Fatal(err)
	}
	run := func(want int, text string, args ...string) {
		t.Helper()
		c := exec.Command(bin, args...)
		c.Env, c.Dir = []string{"LANG=C.UTF-8"}, "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		if c.ProcessState == nil {
			t.Skipf("no other user may run a program here: %v", err)
		}
		if code := c.ProcessState.ExitCode(); code != want || !strings.Contains(string(out), text) {
			t.Errorf("%v: exit %d, want %d, and %q in:\n%s", args, code, want, text, out)
		}
	}
	run(1, "sudo hostcheck fix sysctl", "plan", "sysctl")
	run(2, "changing this host needs root; nothing was changed: sudo hostcheck fix sysctl", "fix", "sysctl", "--yes")
	run(2, "needs root", "undo")
	run(2, "needs root", "history")
	start.same(t, "after an ordinary user")
}
