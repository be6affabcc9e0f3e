// SPDX-License-Identifier: Apache-2.0

// Package lab runs real kernels for tests: a Debian guest under QEMU that can
// be rebooted, killed, cut from power at any recorded write, and started from
// a snapshot in a second or two; and tiny guests, a kernel with one program,
// for amd64 and arm64.
//
// All it needs are Debian's packages. QEMU and the tools that make disks are
// unpacked into a cache of the lab's own and run from there; the machine's own
// packages do not change. The cache has layers, each named after what it was
// made from:
//
//	tools    QEMU, e2fsprogs and the like
//	kbuild   gcc and the headers of the guest's kernel
//	modules  testdata/lab/modules, built there
//	image    the guest's disk, with GRUB installed by the guest itself
//	uefi     the same with systemd-boot
//	settled  the guest as it stands when it has booted: its disk and its memory
//
// Guests have no network but the one between their own interfaces.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Lab is a prepared lab. Its layers are built when they are first needed.
type Lab struct {
	source string // the repository
	cache  string
	log    io.Writer
	began  time.Time
	mu     sync.Mutex
}

// ErrUnavailable is what [Open] returns where the lab cannot be had.
var ErrUnavailable = errors.New("the VM lab is not available here")

// Open finds the repository and the cache ($HOSTCHECK_LAB_CACHE, or a
// directory of the user's). What it does is said on log, a line at a time. An
// error that is [ErrUnavailable] says what the machine lacks.
func Open(log io.Writer) (*Lab, error) {
	l := &Lab{log: log, began: time.Now()}
	switch {
	case runtime.GOOS != "linux" || runtime.GOARCH != "amd64":
		return nil, fmt.Errorf("%w: its tools are those of Linux on amd64, and this is %s on %s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("%w: not root (files of other owners are put into disk images)", ErrUnavailable)
	}
	for _, need := range []string{"apt-get", "dpkg", "perl", "chroot"} {
		if _, err := exec.LookPath(need); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed (the lab is made from Debian's packages)", ErrUnavailable, need)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("%w: %s is not there (package debian-archive-keyring)", ErrUnavailable, keyring)
	}
	var err error
	if l.source, err = repository(); err != nil {
		return nil, err
	}
	l.cache = os.Getenv("HOSTCHECK_LAB_CACHE")
	if l.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("lab: cannot find a place for the cache: %w; set HOSTCHECK_LAB_CACHE", err)
		}
		l.cache = filepath.Join(dir, "hostcheck-lab")
	}
	if err := os.MkdirAll(l.cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: cannot make the cache: %w", err)
	}
	return l, nil
}

// repository is the directory with go.mod, at or above the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "testdata/lab")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("lab: run it inside hostcheck's repository")
		}
	}
}

func (l *Lab) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, "lab: [%3.0f s] %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// Source is the repository's directory.
func (l *Lab) Source() string { return l.source }

// file is a file of testdata/lab.
func (l *Lab) file(name string) string { return filepath.Join(l.source, "testdata/lab", name) }

// Tool is a program of the tools layer with the libraries that came with it.
// It ends when this process does.
func (l *Lab) Tool(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	dir, err := l.tools()
	if err != nil {
		return nil, err
	}
	return tool(ctx, dir, name, args...)
}

func tool(ctx context.Context, dir, name string, args ...string) (*exec.Cmd, error) {
	program := ""
	for _, d := range []string{"usr/bin", "usr/sbin"} {
		if p := filepath.Join(dir, d, name); executable(p) {
			program = p
		}
	}
	if program == "" {
		return nil, fmt.Errorf("lab: there is no %s among the tools", name)
	}
	if strings.HasPrefix(name, "qemu-system-") {
		var where []string
		for _, d := range []string{"usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu", "usr/share/qemu-efi-aarch64"} {
			where = append(where, "-L", filepath.Join(dir, d))
		}
		args = append(where, args...)
	}
	lib := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	c := exec.CommandContext(ctx, filepath.Join(dir, "usr/lib64/ld-linux-x86-64.so.2"), append([]string{"--library-path", lib, program}, args...)...)
	c.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(lib, "qemu"), "MTOOLS_SKIP_CHECK=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, nil
}

func executable(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// output runs a command and gives what it said where it fails.
func output(c *exec.Cmd) (string, error) {
	b, err := c.CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(string(b))
		if len(text) > 2000 {
			text = "…" + text[len(text)-2000:]
		}
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, text)
	}
	return string(b), nil
}

func (l *Lab) toolOutput(name string, args ...string) (string, error) {
	c, err := l.Tool(context.Background(), name, args...)
	if err != nil {
		return "", err
	}
	out, err := output(c)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
