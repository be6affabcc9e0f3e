// SPDX-License-Identifier: Apache-2.0

//go:build root

package fixes_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// parameters reads all parameters of the network namespace, and the drop-ins.
func parameters(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range []string{"/proc/sys/net", "/etc/sysctl.d"} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				b, _ := os.ReadFile(p) // some can only be written
				out[p] = string(b)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Real parameters of a network namespace of the test's own are planned, set,
// read back by the programs that boots use, and put back.
func TestRootSysctl(t *testing.T) {
	if !ownSpace(t, syscall.CLONE_NEWNET) {
		return
	}
	if err := unix.Mount("tmpfs", "/etc/sysctl.d", "tmpfs", 0, ""); err != nil {
		t.Skipf("skipped: cannot mount on /etc/sysctl.d: %v", err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile("/etc/sysctl.d/99-zzz-later.conf", []byte("net.core.somaxconn = 2048\nnet.ipv4.conf.*.rp_filter = 1\n"), 0o644))
	run(t, "ip link add hc0.1 type veth peer name hc1")
	before := parameters(t)

	wishes := []plan.Wish{
		param("net.core.somaxconn", "16384"), param("net.ipv4.tcp_timestamps", "2"), param("net.ipv4.tcp_congestion_control", "reno"),
		param("net.ipv4.tcp_rmem", "4096 131072 67108864"), param("net.ipv4.conf.hc0/1.rp_filter", "2"), param("net.ipv4.conf.hc1.rp_filter", "2"),
	}
	e := &plan.Engine{Root: "/", Tool: "test", Verbs: []plan.Verb{fixes.Sysctl{}}}
	p := plantest.Make(t, e, append(slices.Clone(wishes), param("net.core.nothing", "1")))
	if len(p.Refused) != 1 || p.Refused[0].Name != "net.core.nothing" || len(p.Changes) != len(wishes)+1 {
		t.Fatalf("%d changes, refused %+v", len(p.Changes), p.Refused)
	}
	if last := p.Changes[len(wishes)]; last.Target != "/etc/sysctl.d/99-zzz-later_hostcheck.conf" {
		t.Errorf("the drop-in is %s", last.Target)
	}
	r, err := e.Apply(t.Context(), p, plan.Options{})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("apply: %v %+v", err, r)
	}
	applied := parameters(t)
	for _, w := range wishes {
		p := "/proc/sys/" + strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(w.Name, "/", "!"), ".", "/"), "!", ".")
		if got := strings.Join(strings.Fields(applied[p]), " "); got != w.Want {
			t.Errorf("%s is %q, not %q", w.Name, got, w.Want)
		}
	}
	if again := plantest.Make(t, e, wishes); len(again.Changes) > 0 {
		t.Errorf("planned again: %+v", again.Changes)
	}

	// what a boot would do: other values, then the programs
	for name, argv := range map[string][]string{
		"systemd": {"/lib/systemd/systemd-sysctl", "--prefix=/net"}, "procps": {"/sbin/sysctl", "--system", "--pattern", "^-?net[./]"},
	} {
		if _, err := os.Stat(argv[0]); err != nil {
			t.Logf("not here: %s", argv[0])
			continue
		}
		for p, text := range before {
			if text != applied[p] && strings.HasPrefix(p, "/proc/") {
				must(os.WriteFile(p, []byte(text), 0))
			}
		}
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		now := parameters(t)
		for p := range applied {
			if applied[p] != before[p] && now[p] != applied[p] {
				t.Errorf("%s makes %s %q, not %q: %v %s", name, p, now[p], applied[p], err, out)
			}
		}
		for p := range now { // a glob of the later file sets other interfaces, as it should
			if now[p] != applied[p] && strings.HasPrefix(p, "/proc/") {
				must(os.WriteFile(p, []byte(applied[p]), 0))
			}
		}
	}

	if r, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatalf("undo: %v %+v", err, r)
	}
	if d := cmp.Diff(before, parameters(t)); d != "" {
		t.Errorf("undo does not give back the parameters (-before +after):\n%s", d)
	}
	t.Logf("%d parameters set and put back, of %d", len(wishes), len(before))
}

// A parameter that the namespace only shows is refused before anything is done.
func TestRootSysctlReadOnly(t *testing.T) {
	if !ownSpace(t, syscall.CLONE_NEWNET) {
		return
	}
	if _, err := os.Stat("/proc/sys/net/core/rmem_max"); err != nil {
		t.Skip("skipped: this kernel does not show net.core.rmem_max here")
	}
	e := &plan.Engine{Root: "/", Tool: "test", Verbs: []plan.Verb{fixes.Sysctl{}}}
	p := plantest.Make(t, e, []plan.Wish{param(rmemMax, "268435456")})
	if len(p.Changes) != 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, "not written") {
		t.Errorf("%+v", p)
	}
}
