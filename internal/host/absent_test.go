// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// lacks reads p and asks whether its absence is the kernel's own word.
func lacks(h *Host, p string) bool {
	_, err := h.Read(p)
	return h.Lacks(err)
}

// isMounted skips a test where dir is no file system of that type.
func isMounted(t *testing.T, dir string, magic int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Type) != magic {
		t.Skipf("skipped: %s is not the kernel's here", dir)
	}
}

// Absence is the kernel's word below what it fills itself, on the live machine
// and in a tree alike: here the tree is this machine again.
func TestLacksOnKernelFileSystems(t *testing.T) {
	isMounted(t, "/proc", unix.PROC_SUPER_MAGIC)
	isMounted(t, "/sys", unix.SYSFS_MAGIC)
	for _, root := range []string{"/", "/proc/self/root"} {
		h := open(t, root)
		for p, want := range map[string]bool{
			"/sys/gone":              true,
			"/sys/gone/far/below":    true,
			"/sys/kernel/gone":       true,
			"/proc/gone":             true,
			"/proc/sys/kernel/gone":  true,
			"/proc/version":          false, // is there
			"/proc/version/below":    false, // ENOTDIR: not what the kernel has
			"/etc/gone":              false,
			"/sysgone":               false,
			"/proc/sys/../../gone/x": false,
		} {
			if got := lacks(h, p); got != want {
				t.Errorf("root %s, %s: %v, want %v", root, p, got, want)
			}
		}
		if _, err := h.Link("/sys/kernel/gone"); !h.Lacks(err) {
			t.Errorf("root %s: a link that is absent: %v", root, err)
		}
		if _, err := h.List("/sys/kernel/gone"); !h.Lacks(err) {
			t.Errorf("root %s: a directory that is absent: %v", root, err)
		}
		if h.Lacks(nil) || h.Lacks(os.ErrNotExist) {
			t.Error("what names no file of the kernel is no word of it")
		}
	}
}

// What is not captured proves nothing, nor does a link out of the tree to the
// machine that runs the test.
func TestLacksNothingInATree(t *testing.T) {
	root := tree(t, map[string]string{"sys/link": "-> gone", "sys/class/": "", "sys/away": "-> /proc/self/root/sys"})
	must(t, os.Remove(root+"/proc"))
	must(t, os.Symlink("/proc/self/root/proc", root+"/proc"))
	h := open(t, root)
	for _, p := range []string{"/sys/gone", "/sys/class/gone/x", "/sys/link", "/sys/link/x", "/sys/away/gone", "/proc/gone"} {
		if lacks(h, p) {
			t.Errorf("%s: the tree's silence is taken for the kernel's word", p)
		}
	}
	if !h.Time().IsZero() {
		t.Error("a link to this machine's /proc dates the tree")
	}
}
