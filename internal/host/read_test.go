// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadKinds(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/plain":  " 1500\n\x00",
		"sys/empty":  "",
		"sys/hex":    "0x1f\n",
		"sys/word":   "many\n",
		"sys/dir/":   "",
		"sys/dir/b":  "",
		"sys/dir/a":  "",
		"sys/link":   "-> plain",
		"sys/dirln":  "-> dir",
		"sys/broken": "-> nowhere",
	})
	must(t, syscall.Mkfifo(filepath.Join(root, "sys/fifo"), 0o644))
	h := open(t, root)

	for _, tc := range []struct {
		path string
		want string
		err  error
	}{
		{"/sys/plain", " 1500\n\x00", nil},
		{"/sys/link", " 1500\n\x00", nil},
		{"/sys/empty", "", nil},
		{"/sys/dir", "", syscall.EISDIR},
		{"/sys/dirln", "", syscall.EISDIR},
		{"/sys/fifo", "", ErrNotRegular},
		{"/sys/broken", "", syscall.ENOENT},
		{"/sys/nothing", "", syscall.ENOENT},
		{"/sys/plain/below", "", syscall.ENOTDIR},
	} {
		b, err := h.Read(tc.path)
		if string(b) != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %q, %v; want %q, %v", tc.path, b, err, tc.want, tc.err)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Path != tc.path || e.Op != "read") {
			t.Errorf("%s: the error does not name the read: %#v", tc.path, err)
		}
	}
	if s, err := h.Text("/sys/plain"); s != "1500" || err != nil {
		t.Errorf("Text: %q, %v", s, err)
	}
	if n, err := h.Int("/sys/hex"); n != 31 || err != nil {
		t.Errorf("Int: %d, %v", n, err)
	}
	if _, err := h.Int("/sys/word"); err == nil || !strings.Contains(err.Error(), `not a number: "many"`) {
		t.Errorf("Int of a word: %v", err)
	}
	if _, err := h.Int("/sys/nothing"); !Absent(err) {
		t.Errorf("Int of nothing: %v", err)
	}
	for _, p := range []string{"/sys/dir", "/sys/dirln"} {
		if names, err := h.List(p); err != nil || !slices.Equal(names, []string{"a", "b"}) {
			t.Errorf("List %s: %v, %v", p, names, err)
		}
	}
	for p, want := range map[string]error{"/sys/plain": syscall.ENOTDIR, "/sys/fifo": syscall.ENOTDIR, "/sys/nothing": syscall.ENOENT} {
		if _, err := h.List(p); !errors.Is(err, want) {
			t.Errorf("List %s: %v, want %v", p, err, want)
		}
	}
	if l, err := h.Link("/sys/broken"); l != "nowhere" || err != nil {
		t.Errorf("Link: %q, %v", l, err)
	}
	if l, err := h.LinkBase("/sys/dirln"); l != "dir" || err != nil {
		t.Errorf("LinkBase: %q, %v", l, err)
	}
	if _, err := h.Link("/sys/plain"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Link of a file: %v", err)
	}
	if got := h.Follow("/sys/dirln"); got != "/sys/dir" {
		t.Errorf("Follow: %s", got)
	}
	if got := h.Follow("/sys/plain"); got != "/sys/plain" {
		t.Errorf("Follow of a file: %s", got)
	}
}

// To open a device can be to act: a watchdog starts, a tape rewinds. In a tree
// nothing special is opened, which inotify would tell.
func TestDevicesInATreeAreNotOpened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: device nodes need root")
	}
	root := tree(t, map[string]string{"sys/d/plain": "1", "sys/d/more": "2", "sys/d/to-null": "-> null", "sys/d/to-fifo": "-> ./fifo"})
	special := []string{"/sys/d/null", "/sys/d/fifo", "/sys/d/block"}
	must(t, unix.Mkfifo(root+"/sys/d/fifo", 0o644))
	if err := errors.Join(unix.Mknod(root+"/sys/d/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(root+"/sys/d/block", unix.S_IFBLK|0o666, int(unix.Mkdev(7, 250)))); err != nil {
		t.Skipf("skipped: cannot make device nodes: %v", err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	defer unix.Close(watch)
	for _, p := range append(special, "/sys/d/plain") {
		_, err := unix.InotifyAddWatch(watch, root+p, unix.IN_OPEN)
		must(t, err)
	}
	opened := func() int { n, _ := unix.Read(watch, make([]byte, 4096)); return max(0, n) / unix.SizeofInotifyEvent }
	paths := append(special, "/sys/d/to-null", "/sys/d/to-fifo")
	var ops []Op
	for _, p := range paths {
		ops = append(ops, Op{ReadFile, p}, Op{ListDir, p}, Op{ReadLink, p})
	}
	batch, single := open(t, root), open(t, root)
	batch.Prefetch(append(ops, Op{ReadFile, "/sys/d/more"}))
	for _, p := range paths {
		for _, h := range []*Host{batch, single} {
			if _, err := h.Read(p); !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", p, err)
			}
			if _, err := h.List(p); !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("list %s: %v", p, err)
			}
		}
	}
	if n := opened(); n > 0 {
		t.Errorf("%d times something special was opened", n)
	}
	if s, err := single.Text("/sys/d/plain"); s != "1" || err != nil || opened() == 0 {
		t.Errorf("a plain file beside them: %q, %v; want it opened and that told", s, err)
	}
}

// Numbers are what the kernel prints: decimal, or hexadecimal behind 0x.
func TestInt(t *testing.T) {
	for text, want := range map[string]any{
		"0\n": int64(0), "1500\n": int64(1500), "-1\n": int64(-1), "0x1003\n": int64(0x1003), "0x0": int64(0), "010\n": int64(10),
		"9223372036854775807": int64(1<<63 - 1),
		"1_000\n":             nil, "0o17": nil, "0b11": nil, "0X1f": nil, "+5": nil, "-0x1": nil, "0x-1": nil, "0x+1": nil, "0x": nil, "0x1_0": nil, "1f": nil, "": nil, "1 2": nil, "1e3": nil,
		"9223372036854775808": nil, "0x8000000000000000": nil,
	} {
		n, err := open(t, tree(t, map[string]string{"sys/n": text})).Int("/sys/n")
		switch {
		case want == nil && (err == nil || !strings.Contains(err.Error(), "not a number")):
			t.Errorf("%q: %d, %v; want no number", text, n, err)
		case want != nil && (err != nil || n != want):
			t.Errorf("%q: %d, %v; want %d", text, n, err, want)
		}
	}
}

func TestSocketAndDeviceAreRefused(t *testing.T) {
	root := tree(t, nil)
	l, err := net.Listen("unix", filepath.Join(root, "sys/s"))
	must(t, err)
	defer l.Close()
	h := open(t, root)
	if _, err := h.Read("/sys/s"); err == nil {
		t.Error("a socket was read")
	}
	live := open(t, "/")
	for _, p := range []string{"/dev/null", "/dev/zero"} {
		if _, err := live.Read(p); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := unix.Mknod(filepath.Join(root, "sys/zero"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))); err != nil {
		t.Skipf("the device node in a tree needs root: %v", err)
	}
	if b, err := h.Read("/sys/zero"); err == nil || len(b) > 0 {
		t.Errorf("a device node in a tree gave %d bytes", len(b))
	}
}

func TestSizeLimits(t *testing.T) {
	root := tree(t, map[string]string{"sys/d/config": ""})
	limits := map[string]int64{"/etc/f": MaxFile, "/proc/f": MaxFile, "/sys/f": MaxAttr, "/sys/d/config": MaxConfig}
	for p, limit := range limits {
		must(t, os.WriteFile(filepath.Join(root, p), nil, 0o644))
		must(t, os.Truncate(filepath.Join(root, p), limit))
		h := open(t, root)
		if b, err := h.Read(p); err != nil || int64(len(b)) != limit {
			t.Errorf("%s of the limit: %d bytes, %v", p, len(b), err)
		}
		must(t, os.Truncate(filepath.Join(root, p), limit+1))
		if _, err := open(t, root).Read(p); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s beyond the limit: %v", p, err)
		}
		if b, _ := h.Read(p); int64(len(b)) != limit {
			t.Errorf("%s: a known answer changed", p)
		}
	}
	// a kernel file reports size 0 and may still be large
	whole, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return
	}
	b, err := open(t, "/").Read("/proc/kallsyms")
	if len(whole) > MaxFile && !errors.Is(err, ErrTooLarge) {
		t.Errorf("/proc/kallsyms of %d bytes: %v", len(whole), err)
	}
	if len(whole) <= MaxFile && (err != nil || len(b) != len(whole)) {
		t.Errorf("/proc/kallsyms of %d bytes: read %d, %v", len(whole), len(b), err)
	}
}

// Many files of which none is too large are too much together, and so are
// many long listings.
func TestTotalLimit(t *testing.T) {
	things := map[string]string{"etc/most": "", "etc/list/": "", "sys/small": "1"}
	for i := range MaxTotal/MaxFile + 8 {
		things[fmt.Sprintf("etc/f/%d", i)] = "-> ../most"
		things[fmt.Sprintf("etc/l/%d", i)] = "-> ../list"
	}
	root := tree(t, things)
	must(t, os.Truncate(filepath.Join(root, "etc/most"), MaxFile))
	h := open(t, root)
	h.budget = 10*MaxFile + 100
	got, refused := 0, 0
	for i := range 20 {
		b, err := h.Read(fmt.Sprintf("/etc/f/%d", i))
		switch {
		case err == nil && len(b) == MaxFile:
			got++
		case errors.Is(err, ErrTotal) && b == nil && strings.Contains(err.Error(), fmt.Sprintf("/etc/f/%d", i)):
			refused++
		default:
			t.Errorf("%d: %d bytes, %v", i, len(b), err)
		}
	}
	if got != 10 || refused != 10 {
		t.Errorf("%d files were read and %d refused, want 10 of each", got, refused)
	}
	if b, err := h.Read("/etc/f/0"); err != nil || len(b) != MaxFile {
		t.Errorf("a known answer: %d bytes, %v", len(b), err)
	}
	for i := range 100 {
		must(t, os.WriteFile(filepath.Join(root, "etc/list", strings.Repeat("n", 200)+strconv.Itoa(i)), nil, 0o644))
	}
	h = open(t, root)
	h.budget = 100 << 10
	listed := 0
	for i := range 20 {
		if _, err := h.List(fmt.Sprintf("/etc/l/%d", i)); err == nil {
			listed++
		} else if !errors.Is(err, ErrTotal) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if listed < 2 || listed > 5 {
		t.Errorf("%d listings of about 22 KB fit into 100 KiB", listed)
	}
	if open(t, root).budget != MaxTotal {
		t.Error("the limit of a host is not MaxTotal")
	}
}

func TestListLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 65537 files")
	}
	root := tree(t, map[string]string{"sys/a/x": "", "sys/b/x": ""})
	for i := range MaxEntries {
		dir := filepath.Join(root, "sys", "ab"[i&1:][:1])
		must(t, os.Link(filepath.Join(dir, "x"), filepath.Join(dir, strconv.Itoa(i))))
	}
	must(t, os.WriteFile(filepath.Join(root, "sys/b/0"), nil, 0o644)) // a disk limits how often one file is linked
	h := open(t, root)
	if names, err := h.List("/sys/a"); err != nil || len(names) != MaxEntries/2+1 {
		t.Errorf("half: %d names, %v", len(names), err)
	}
	for i := range MaxEntries / 2 {
		must(t, os.Link(filepath.Join(root, "sys/b/0"), filepath.Join(root, fmt.Sprintf("sys/b/more%d", i))))
	}
	if _, err := h.List("/sys/b"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one name beyond the limit: %v", err)
	}
}

// A driver that answers EAGAIN for ever: an empty pipe does.
func TestEAGAINForEver(t *testing.T) {
	var fds [2]int
	must(t, unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC))
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, err := readRetry(fds[0], make([]byte, 16)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, want EAGAIN after some tries", err)
	}
	// a driver that is busy for a moment only
	go func() {
		time.Sleep(5 * time.Millisecond)
		_, _ = unix.Write(fds[1], []byte("ready"))
	}()
	b := make([]byte, 16)
	n, err := readRetry(fds[0], b)
	if err != nil || string(b[:n]) != "ready" {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

func TestErrorWords(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("x: %w", &Error{"read", "/sys/a", err}) }
	for _, tc := range []struct {
		err    error
		absent bool
		reason string
	}{
		{wrap(syscall.ENOENT), true, "/sys/a: no such file or directory"},
		{wrap(syscall.ENOTDIR), true, "/sys/a: not a directory"},
		{wrap(syscall.EACCES), false, "/sys/a: permission denied (needs root)"},
		{wrap(Errno(syscall.EACCES)), false, "/sys/a: permission denied (needs root)"},
		{wrap(Errno(syscall.ENOENT)), true, "/sys/a: no such file or directory"},
		{wrap(syscall.EPERM), false, "/sys/a: operation not permitted (needs root)"},
		{wrap(syscall.EIO), false, "/sys/a: input/output error"},
		{wrap(ErrDeadline), false, "/sys/a: did not answer in time"},
		{errors.New("other"), false, "other"},
		{nil, false, ""},
	} {
		if got := Absent(tc.err); got != tc.absent {
			t.Errorf("Absent(%v) = %v", tc.err, got)
		}
		if tc.err == nil {
			continue
		}
		if got := Reason(tc.err); got != tc.reason {
			t.Errorf("Reason(%v) = %q, want %q", tc.err, got, tc.reason)
		}
	}
	err := error(&Error{"link", "/sys/a", Errno(syscall.EACCES)})
	if !errors.Is(err, os.ErrPermission) || err.Error() != "cannot link /sys/a: permission denied" {
		t.Errorf("%v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for root, want := range map[string]string{
		filepath.Join(empty, "nowhere"): "no such file or directory",
		file:                            "it is a file",
		empty:                           "holds none of proc, sys and etc",
	} {
		_, err := Open(root, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot use "+root) {
			t.Errorf("%s: %v, want %q", root, err, want)
		}
	}
	for _, root := range []string{"", "/", "//", "/../"} {
		if h := open(t, root); !h.Live() || h.Root() != "/" || h.Source() != "live" {
			t.Errorf("%q is the live machine: %+v", root, h)
		}
	}
	h := open(t, tree(t, nil))
	if h.Live() || h.Source() != "root" || lacks(h, "/sys/gone") || !h.Time().IsZero() {
		t.Error("a bare tree knows neither its time nor that it is whole")
	}
}
