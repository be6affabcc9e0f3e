// SPDX-License-Identifier: Apache-2.0

//go:build root

package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inMountNamespace is set where a test runs once more in mounts of its own.
const inMountNamespace = "HOSTCHECK_TEST_IN_MNTNS"

// ownMounts runs the test again in a mount namespace and reports whether this
// is that run: what it mounts, nobody else sees.
func ownMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inMountNamespace) != "" {
		must(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: making a mount namespace needs root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inMountNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("skipped: cannot make a mount namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip("skipped in the namespace")
	}
	return false
}

func mount(t *testing.T, fstype, at string) {
	t.Helper()
	if err := unix.Mount("none", at, fstype, 0, ""); err != nil {
		t.Skipf("skipped: cannot mount %s: %v", fstype, err)
	}
	// before t.TempDir is removed, with all that is below it
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

// A mask over a part of /sys hides what the kernel has there, and only there.
func TestRootMaskIsNoProof(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	isMounted(t, "/sys", unix.SYSFS_MAGIC)
	mount(t, "tmpfs", "/sys/class")
	must(t, os.Symlink("../kernel/gone", "/sys/class/gone-link"))
	for _, root := range []string{"/", "/proc/self/root"} {
		h := open(t, root)
		for p, want := range map[string]bool{
			"/sys/class/iommu":       false,
			"/sys/class/iommu/x/y":   false,
			"/sys/class/gone-link":   false,
			"/sys/class/gone-link/x": false,
			"/sys/kernel/gone":       true,
			"/sys/gone":              true,
		} {
			if got := lacks(h, p); got != want {
				t.Errorf("root %s, %s: %v, want %v", root, p, got, want)
			}
		}
	}
	// a link on sysfs to below a mask
	mount(t, "tmpfs", "/sys/devices")
	if links, _ := filepath.Glob("/sys/bus/*/devices/*"); len(links) > 0 {
		if h := open(t, "/"); lacks(h, links[0]) || lacks(h, links[0]+"/class") {
			t.Errorf("%s leads to below a mask, and is taken for proof", links[0])
		}
	}
	mount(t, "tmpfs", "/sys")
	if h := open(t, "/"); lacks(h, "/sys/class/iommu") || lacks(h, "/sys/gone") {
		t.Error("a /sys that is not sysfs is taken for the kernel's word")
	}
}

// A tree with real mounts tells each of its parts apart.
func TestRootMountedTree(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	root := tree(t, nil)
	mount(t, "sysfs", root+"/sys")
	h := open(t, root)
	if !lacks(h, "/sys/gone/x") || lacks(h, "/proc/gone") || !h.Time().IsZero() {
		t.Error("with sysfs mounted: want absence proven in /sys only, and no time")
	}
	mount(t, "proc", root+"/proc")
	if h := open(t, root); !lacks(h, "/proc/gone") || h.Time().IsZero() {
		t.Error("with procfs mounted: want absence proven, and the time")
	}
}
