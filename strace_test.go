// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// The static binary as it is shipped.
func TestProduct(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH: nothing was built")
	}
	dir, err := os.MkdirTemp("", "hostcheck-product-") // not t.TempDir, which only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	bin := filepath.Join(dir, "hostcheck")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %s", out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("reads only", func(t *testing.T) { readsOnly(t, bin) })
	t.Run("ordinary user", func(t *testing.T) { ordinaryUser(t, bin) })
}

// sharedTree is a base host that every user may read.
func sharedTree(t *testing.T, name string) string {
	t.Helper()
	root := fixture.Load(t, "testdata/hosts/"+name).Root
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// A check run opens nothing for writing, starts no process, talks to no other
// machine and changes nothing, on a tree and on this machine.
func readsOnly(t *testing.T, bin string) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: what the binary does was not watched")
	}
	if out, err := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "/bin/true").CombinedOutput(); err != nil {
		t.Skipf("strace is not allowed here: %s", bytes.TrimSpace(out))
	}
	for name, args := range map[string][]string{
		"tree":      {"check", "--root", sharedTree(t, "rdma-intel.txtar"), "-f", "json"},
		"tree text": {"--root", sharedTree(t, "azure-mana-x86.txtar"), "-v"},
		"live":      {"check", "-f", "json"},
		"live text": {"-v"},
		"tree page": {"--root", sharedTree(t, "rdma-intel-sick.txtar"), "-f", "html"},
		"live page": {"-f", "html"},
		"facts":     {"facts", "-f", "json"},
		"plan tree": {"plan", "--root", sharedTree(t, "rdma-intel.txtar")},
		"plan":      {"plan", "-f", "json"},
		"dry run":   {"--fix", "--dry-run"},
	} {
		t.Run(name, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			cmd := exec.Command(strace, append([]string{"-f", "-qq", "-y", "-s", "0", "-o", trace, bin}, args...)...)
			cmd.Env = []string{}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			code := exitCode(t, cmd.Run())
			if !slices.Contains([]int{0, 1, 3}, code) || stdout.Len() == 0 {
				t.Fatalf("exit %d\n%s", code, stderr.String())
			}
			b, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for line := range strings.Lines(string(b)) {
				if why := forbidden(line, seen); why != "" {
					t.Errorf("%s: %s", why, strings.TrimSpace(line))
				}
			}
			if seen["execve"] != 1 || seen["openat"]+seen["openat2"]+seen["open"] < 20 {
				t.Errorf("the trace is not that of a check run: %v", seen)
			}
		})
	}
}

var call = regexp.MustCompile(`^(?:\d+ +)?(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)(.*)`)

// changing are system calls that a reader has no use for.
var changing = strings.Fields(`creat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir link linkat symlink symlinkat
	mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate fallocate utimensat futimesat
	setxattr lsetxattr fsetxattr removexattr mount umount2 move_mount fsopen open_tree pivot_root chroot setns unshare
	ptrace process_vm_writev init_module finit_module delete_module kexec_load kexec_file_load bpf reboot swapon swapoff
	sethostname setdomainname settimeofday clock_settime adjtimex setuid setgid setresuid setresgid capset
	fork vfork kill tkill rt_sigqueueinfo pwrite64 pwritev pwritev2 sendfile copy_file_range splice io_uring_setup
	connect accept accept4 listen add_key keyctl quotactl ioperm iopl migrate_pages move_pages mbind set_mempolicy`)

var (
	writeFlags = regexp.MustCompile(`O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)`)
	writesTo   = regexp.MustCompile(`^(\d+)<([^>]*)>`)
	ioctlName  = regexp.MustCompile(`^\d+<[^>]*>+, ([A-Z0-9_]+|0x[0-9a-f]+)`)
	socketKind = regexp.MustCompile(`^(AF_[A-Z0-9]+), `)
)

// forbidden says what is wrong with one line of the trace, and counts calls.
func forbidden(line string, seen map[string]int) string {
	m := call.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	name, args := m[1], m[2]
	if strings.Contains(line, "resumed>") {
		return "" // its arguments stood in the line where it began
	}
	seen[name]++
	switch name {
	case "open", "openat", "openat2":
		if writeFlags.MatchString(args) && !strings.Contains(args, "/sys/kernel/mm/transparent_hugepage/") {
			return "opened for writing"
		}
	case "execve", "execveat":
		if seen[name] > 1 || name == "execveat" {
			return "a process was started"
		}
	case "clone", "clone3":
		if !strings.Contains(args, "CLONE_THREAD") {
			return "a process was started"
		}
	case "write", "writev":
		w := writesTo.FindStringSubmatch(args)
		if w == nil || w[1] != "1" && w[1] != "2" && !strings.Contains(w[2], "eventfd") {
			return "written to"
		}
	case "ioctl":
		w := ioctlName.FindStringSubmatch(args)
		if w == nil || !slices.Contains([]string{"SIOCETHTOOL", "TCGETS", "TCGETS2", "TIOCGWINSZ"}, w[1]) {
			return "an ioctl that is not for asking"
		}
	case "socket":
		w := socketKind.FindStringSubmatch(args)
		if w == nil || !slices.Contains([]string{"AF_INET", "AF_NETLINK"}, w[1]) {
			return "a socket of another kind than ethtool's and netlink's"
		}
	case "sendto", "sendmsg":
		if !strings.Contains(args, "NETLINK") && !strings.Contains(args, "nl_pid") {
			return "sent to somebody"
		}
	default:
		if slices.Contains(changing, name) {
			return "a call that changes something"
		}
	}
	return ""
}

func TestForbidden(t *testing.T) {
	for line, want := range map[string]string{
		`12 openat(AT_FDCWD</>, "/proc/cmdline", O_RDONLY|O_NONBLOCK|O_CLOEXEC) = 3</proc/cmdline>`: "",
		`12 openat(AT_FDCWD</>, "/proc/x", O_RDWR|O_CLOEXEC) = 3`:                                   "opened for writing",
		`12 openat2(3</t>, "sys/x", {flags=O_WRONLY, resolve=RESOLVE_IN_ROOT}, 24) = 4`:             "opened for writing",
		`12 unlinkat(AT_FDCWD</>, "/x", 0) = 0`:                                                     "a call that changes something",
		`12 write(1<pipe:[1]>, ""..., 5) = 5`:                                                       "",
		`12 write(4<anon_inode:[eventfd]>, ""..., 8) = 8`:                                           "",
		`12 write(5</sys/x>, ""..., 8) = 8`:                                                         "written to",
		`12 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 13`:                               "",
		`12 clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD) = 13`:                       "a process was started",
		`12 ioctl(5<socket:[1]>, SIOCETHTOOL, 0xc0) = 0`:                                            "",
		`12 ioctl(5<UDP:[0.0.0.0:0]>, SIOCSIFFLAGS, 0xc0) = 0`:                                      "an ioctl that is not for asking",
		`12 socket(AF_UNIX, SOCK_STREAM, 0) = 5`:                                                    "a socket of another kind than ethtool's and netlink's",
		`12 sendto(5<UDP:[1]>, ""..., 9, 0, {sa_family=AF_INET}, 16) = 9`:                           "sent to somebody",
		`12 <... openat resumed>) = 3`:                                                              "",
	} {
		if got := forbidden(line, map[string]int{}); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	seen := map[string]int{}
	forbidden(`1 execve("/x/hostcheck", ["hostcheck"], 0x7 /* 0 vars */) = 0`, seen)
	if forbidden(`1 execve("/bin/sh", ["sh"], 0x7 /* 0 vars */) = 0`, seen) == "" {
		t.Error("a second process went unnoticed")
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// The verdict of a tree is the same for root and for an ordinary user without
// any environment, twice over.
func ordinaryUser(t *testing.T, bin string) {
	root := sharedTree(t, "rdma-intel.txtar")
	run := func(attr *syscall.SysProcAttr, env []string, args ...string) ([]byte, int) {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Env, cmd.SysProcAttr, cmd.Dir = env, attr, "/"
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("no other user may run a program here: %v", err)
		}
		code := exitCode(t, err)
		if stderr.Len() > 0 {
			t.Errorf("%v says on stderr: %s", args, stderr.String())
		}
		return stdout.Bytes(), code
	}
	judge := []string{"check", "--root", root, "-f", "json"}
	environ := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HOSTCHECK_") })
	first, code := run(nil, environ, judge...)
	if !json.Valid(first) {
		t.Fatalf("exit %d, not JSON: %.200s", code, first)
	}
	if again, c := run(nil, []string{"PATH="}, judge...); !bytes.Equal(first, again) || c != code {
		t.Errorf("without an environment the report differs (exit %d, %d)", code, c)
	}
	var nobody *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: false}}
	}
	if other, c := run(nobody, []string{}, judge...); !bytes.Equal(first, other) || c != code {
		t.Errorf("for an ordinary user the report differs (exit %d, %d)", code, c)
	}
	live, c := run(nobody, []string{}, "check", "-f", "json")
	if !json.Valid(live) || !slices.Contains([]int{0, 1, 3}, c) {
		t.Errorf("on this machine, as an ordinary user: exit %d, %.200s", c, live)
	}
}
