// SPDX-License-Identifier: Apache-2.0

//go:build root

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

const inContainer = "HOSTCHECK_TEST_IN_CONTAINER"

// TestRootContainer judges this machine from a container as the DaemonSet makes
// it: mount, process, IPC and host name namespaces of its own, a root that holds
// the static binary alone, the machine's root read-only at /host, no
// capability. What it can see is judged as on the machine itself; what it
// cannot see is unknown or skipped.
func TestRootContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: making namespaces needs root")
	}
	if dir := os.Getenv(inContainer); dir != "" {
		enterContainer(dir)
		return
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "hostcheck")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %s", out)
	}
	outside := judgedBy(t, exec.Command(bin, "-f", "json"))
	for _, tt := range []struct {
		name     string
		networks uintptr
	}{{"network of the host", 0}, {"network of its own", syscall.CLONE_NEWNET}} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestRootContainer$")
			c.Env = []string{inContainer + "=" + dir}
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tt.networks | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
			inside := judgedBy(t, c)
			if inside.Host.Source != "root" {
				t.Errorf("read from %s", inside.Host.Source)
			}
			if n := inside.Host.Name; n != nil && *n == "pod" {
				t.Error("the host has the name of the pod")
			}
			for _, p := range []struct{ what, in, out *string }{{in: inside.Host.Kernel, out: outside.Host.Kernel}, {in: inside.Host.BootID, out: outside.Host.BootID}} {
				if p.in == nil || p.out == nil || *p.in != *p.out {
					t.Errorf("the container sees another host: %+v, %+v", inside.Host, outside.Host)
				}
			}
			same, hidden := compareReports(t, inside, outside)
			if own := tt.networks != 0; hidden != own {
				t.Errorf("parameters of the host's network are hidden: %v, want %v", hidden, own)
			}
			t.Logf("%d verdicts are those of the host: %+v inside, %+v outside", same, inside.Summary, outside.Summary)
			if same < 3 {
				t.Errorf("only %d verdicts", same)
			}
		})
	}
}

// compareReports wants every verdict from inside to be that from outside, and
// reports whether the reason of a network namespace was given.
func compareReports(t *testing.T, inside, outside *report.Report) (same int, hidden bool) {
	t.Helper()
	is := func(f *report.Finding) bool {
		return slices.Contains([]check.Status{check.Pass, check.Warn, check.Fail}, f.Status)
	}
	host := map[string]*report.Finding{}
	for i := range outside.Findings {
		f := &outside.Findings[i]
		host[f.Check+" "+f.Subject] = f
	}
	for i := range inside.Findings {
		f := &inside.Findings[i]
		hidden = hidden || strings.Contains(f.Why, "shows the network namespace of this process")
		o := host[f.Check+" "+f.Subject]
		switch {
		case f.Check == "system.visibility": // says just that
		case !is(f) && f.Why == "":
			t.Errorf("%s %s is %s without a reason", f.Check, f.Subject, f.Status)
		case !is(f):
		case o == nil || o.Status != f.Status:
			t.Errorf("%s %s: %s inside (%s), outside %+v", f.Check, f.Subject, f.Status, f.Got, o)
		default:
			same++
		}
	}
	return same, hidden
}

func judgedBy(t *testing.T, c *exec.Cmd) *report.Report {
	t.Helper()
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("skipped: cannot make namespaces: %v", err)
	}
	var r report.Report
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		t.Fatalf("%v: %v\n%s%.500s", jerr, err, stderr.String(), out)
	}
	return &r
}

// enterContainer becomes hostcheck in the container; it comes back only where
// that failed.
func enterContainer(dir string) {
	root := filepath.Join(dir, "root")
	step := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "cannot %s: %v\n", what, err)
			os.Exit(1)
		}
	}
	step("keep mounts to ourselves", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	step("make a place", os.MkdirAll(root, 0o755))
	step("mount a root", unix.Mount("none", root, "tmpfs", 0, ""))
	b, err := os.ReadFile(filepath.Join(dir, "hostcheck"))
	step("read the binary", err)
	step("write the binary", os.WriteFile(root+"/hostcheck", b, 0o755))
	for _, d := range []string{"/host", "/proc"} {
		step("make "+d, os.Mkdir(root+d, 0o755))
	}
	step("mount the host", unix.Mount("/", root+"/host", "", unix.MS_BIND|unix.MS_REC, ""))
	step("make the host read-only", unix.MountSetattr(unix.AT_FDCWD, root+"/host", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	step("mount /proc", unix.Mount("proc", root+"/proc", "proc", 0, ""))
	step("name the pod", unix.Sethostname([]byte("pod")))
	step("enter", unix.Chroot(root))
	step("enter", unix.Chdir("/"))
	runtime.LockOSThread() // the bounding set is the thread's, and what is executed from it
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		step("drop capabilities", unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
	}
	step("forbid new privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	step("run hostcheck", unix.Exec("/hostcheck", []string{"hostcheck", "check", "--root", "/host", "-f", "json"}, []string{}))
}
