// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// linkTree has links that try to leave the root, and a secret beside it.
func linkTree(t testing.TB) string {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("outside"), 0o644))
	root := tree(t, map[string]string{
		"etc/passwd":    "inside",
		"sys/absolute":  "-> /etc/passwd",
		"sys/relative":  "-> ../../../../../../../../etc/passwd",
		"sys/outside":   "-> " + outside + "/secret",
		"sys/outdir":    "-> " + outside,
		"sys/climb":     "-> ../../" + filepath.Base(filepath.Dir(outside)) + "/" + filepath.Base(outside) + "/secret",
		"sys/loop":      "-> loop",
		"sys/loop1":     "-> loop2",
		"sys/loop2":     "-> ./loop1",
		"sys/self":      "-> .",
		"sys/up":        "-> ..",
		"sys/root":      "-> /",
		"sys/through":   "-> root/etc/passwd",
		"sys/a/b/file":  "deep",
		"sys/a/tob":     "-> b",
		"sys/a/b/toa":   "-> ../../a",
		"sys/chain":     "-> a/tob/toa/b/file",
		"sys/dot":       "-> ./a/./b//file",
		"sys/nowhere":   "-> gone/x",
		"sys/fileslash": "-> a/b/file/x",
	})
	prev := "chain0"
	must(t, os.Symlink("a/b/file", filepath.Join(root, "sys", prev)))
	for i := 1; i <= 41; i++ {
		name := fmt.Sprintf("chain%d", i)
		must(t, os.Symlink(prev, filepath.Join(root, "sys", name)))
		prev = name
	}
	return root
}

// openat2 and the fallback for kernels without it must agree.
func TestLinksStayInside(t *testing.T) {
	h := open(t, linkTree(t))
	read := map[string]func(string, int) (int, error){
		"openat2": func(p string, flags int) (int, error) {
			return unix.Openat2(h.fd, strings.TrimPrefix(p, "/"), &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		},
		"by parts": h.openByParts,
		"host":     h.open,
	}
	for way, open := range read {
		for _, tc := range []struct {
			path, want string
			err        error
		}{
			{"/sys/absolute", "inside", nil},
			{"/sys/relative", "inside", nil},
			{"/sys/through", "inside", nil},
			{"/sys/up/etc/passwd", "inside", nil},
			{"/sys/root/sys/self/self/root/etc/passwd", "inside", nil},
			{"/sys/chain", "deep", nil},
			{"/sys/dot", "deep", nil},
			{"/sys/chain39", "deep", nil},
			{"/sys/chain40", "", syscall.ELOOP},
			{"/sys/outside", "", syscall.ENOENT},
			{"/sys/outdir/secret", "", syscall.ENOENT},
			{"/sys/climb", "", syscall.ENOENT},
			{"/sys/loop", "", syscall.ELOOP},
			{"/sys/loop1", "", syscall.ELOOP},
			{"/sys/loop/x", "", syscall.ELOOP},
			{"/sys/nowhere", "", syscall.ENOENT},
			{"/sys/fileslash", "", syscall.ENOTDIR},
		} {
			fd, err := open(tc.path, openFlags)
			if way == "openat2" && errors.Is(err, unix.ENOSYS) {
				t.Skip("this kernel has no openat2")
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("%s: %s: %v, want %v", way, tc.path, err, tc.err)
			}
			if err != nil {
				continue
			}
			b := make([]byte, 64)
			n, _ := unix.Read(fd, b)
			_ = unix.Close(fd)
			if string(b[:n]) != tc.want {
				t.Errorf("%s: %s: %q, want %q", way, tc.path, b[:n], tc.want)
			}
		}
	}
}

// A batch gives what single reads give.
func TestBatchGivesWhatSingleReadsGive(t *testing.T) {
	root := linkTree(t)
	names := []string{"", "gone", ".", "..", "file", "passwd", "secret"}
	dirs := []string{"/", "/sys", "/etc", "/sys/a", "/sys/a/b", "/sys/a/tob", "/sys/self", "/sys/up", "/sys/root/sys/a", "/sys/outdir", "/sys/gone", "/sys/loop", "/sys/a/b/file"}
	entries, err := os.ReadDir(filepath.Join(root, "sys"))
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var ops []Op
	for _, d := range dirs {
		for _, n := range names {
			for k := ReadFile; k <= ReadLink; k++ {
				ops = append(ops, Op{k, strings.TrimSuffix(d, "/") + "/" + n})
			}
		}
	}
	batch := open(t, root)
	batch.Prefetch(ops)
	single := open(t, root)
	found := 0
	for _, op := range ops {
		got, want := batch.Do(op), single.Do(op)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v %s: the batch gives %v, a single read %v", op.Kind, op.Path, got, want)
		}
		if want.Err == nil {
			found++
		}
	}
	if found < 100 {
		t.Errorf("only %d of %d operations gave something", found, len(ops))
	}
	live := open(t, "/")
	live.Prefetch([]Op{{ReadLink, "/proc/self/exe"}, {ReadFile, "/proc/self/comm"}, {ListDir, "/proc/self/fd"}, {ReadFile, "/proc/self/mounts"}, {ReadFile, "/proc/mounts"}})
	for _, p := range []string{"/proc/self/comm", "/proc/mounts", "/proc/self/mounts"} {
		if b, err := live.Read(p); err != nil || len(b) == 0 {
			t.Errorf("%s: %d bytes, %v", p, len(b), err)
		}
	}
}

// Renames elsewhere on the machine make openat2 answer EAGAIN for paths with "..".
func TestRenamesElsewhereDoNotShow(t *testing.T) {
	h := open(t, linkTree(t))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	dir := t.TempDir()
	for i := range 2 {
		a, b := filepath.Join(dir, fmt.Sprint("a", i)), filepath.Join(dir, fmt.Sprint("b", i))
		must(t, os.Mkdir(a, 0o755))
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = os.Rename(a, b)
					a, b = b, a
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for range 3000 {
		fd, err := h.open("/sys/a/b/../../../sys/a/../a/b/file", openFlags)
		if err != nil {
			t.Fatal(err)
		}
		closeFD(fd)
	}
}

// What a batch opened is closed when it has ended.
func TestBatchLeavesNothingOpen(t *testing.T) {
	root := linkTree(t)
	h := open(t, root)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(names)
	}
	before := count()
	for i := range 50 {
		var ops []Op
		for _, d := range []string{"/sys/a", "/sys/a/b", "/etc", "/sys"} {
			for k := range 9 {
				ops = append(ops, Op{ReadFile, fmt.Sprintf("%s/x%d-%d", d, i, k)})
			}
		}
		h.Prefetch(ops)
	}
	// the workers end just after the last answer
	for range 100 {
		if count() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors, %d before", count(), before)
}

// Whatever a link says, what is opened lies below the root, and the fallback
// opens what openat2 opens.
func FuzzResolve(f *testing.F) {
	for _, s := range [][2]string{
		{"/sys/x", "/etc/passwd"},
		{"/sys/x", "../../../../etc/passwd"},
		{"/sys/x/b/file", "a"},
		{"/sys/x", "x"},
		{"/sys/up/../sys/x/..", "root/sys/x"},
		{"/sys/a/tob/../x", "..//./"},
		{"", "a"},
		{"/sys/x/", "a/b/file/.."},
	} {
		f.Add(s[0], s[1])
	}
	root := linkTree(f)
	h := open(f, root)
	real, err := filepath.EvalSymlinks(root)
	must(f, err)
	f.Fuzz(func(t *testing.T, p, target string) {
		at := filepath.Join(root, "sys/x")
		_ = os.Remove(at)
		if os.Symlink(target, at) != nil {
			return
		}
		where := func(fd int) string {
			defer unix.Close(fd)
			s, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			must(t, err)
			if s != real && !strings.HasPrefix(s, real+"/") {
				t.Fatalf("%q with the link %q opened %s, outside of the root", p, target, s)
			}
			return s
		}
		parts := ""
		if fd, err := h.openByParts(p, openFlags); err == nil {
			parts = where(fd)
		}
		fd, err := unix.Openat2(h.fd, strings.TrimPrefix(p, "/"), &unix.OpenHow{Flags: openFlags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return // the fallback is more forgiving about ".." after what is no directory
		}
		if got := where(fd); got != parts && p == filepath.Clean("/"+p) {
			t.Fatalf("%q with the link %q: openat2 opened %s, the fallback %q", p, target, got, parts)
		}
	})
}
