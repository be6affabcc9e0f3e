// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

// snapshot DIR FILE lists all of a tree but the journal in a file: type, mode,
// owner, content, attributes.
func snapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: snapshot DIR FILE")
	}
	tree := plantest.Snapshot(tb{ts: ts}, ts.MkAbs(args[0]))
	for _, p := range []string{"/", "/var", "/var/lib"} { // the journal's own parents stay
		delete(tree, p)
	}
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(&b, "%s %s\n", p, tree[p])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o644))
}

// tb is as much of testing.TB as snapshots need.
type tb struct {
	testing.TB
	ts *testscript.TestScript
}

func (t tb) Helper()           {}
func (t tb) Fatal(args ...any) { t.ts.Fatalf("%s", fmt.Sprint(args...)) }

// answer CODE TEXT [ARG ...] runs hostcheck on a terminal, types TEXT and
// enter when it asks, and wants that exit code. What was shown is the stdout
// of the command.
func answer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: answer CODE TEXT [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	master, slave := openTerminal(ts, 80)
	defer master.Close()
	c := exec.Command(hostcheckPath(ts), args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.Env, c.Dir = environ(ts), ts.Getenv("WORK")
	shown := make(chan string)
	asked := make(chan bool, 1)
	go func() {
		var all strings.Builder
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			all.Write(b[:n])
			if strings.Contains(all.String(), "[y/N] ") {
				select {
				case asked <- true:
				default:
				}
			}
			if err != nil { // EIO when the last slave is closed
				shown <- strings.ReplaceAll(all.String(), "\r\n", "\n")
				return
			}
		}
	}()
	ts.Check(c.Start())
	ts.Check(slave.Close())
	select {
	case <-asked:
		_, err := io.WriteString(master, args[1]+"\n")
		ts.Check(err)
	case <-time.After(30 * time.Second):
		ts.Fatalf("nobody was asked")
	}
	_ = c.Wait()
	_, err = io.WriteString(ts.Stdout(), <-shown)
	ts.Check(err)
	if code := c.ProcessState.ExitCode(); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// openTerminal gives both ends of a pseudo-terminal.
func openTerminal(ts *testscript.TestScript, columns uint16) (master, slave *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	ts.Check(err)
	fd := int(master.Fd())
	ts.Check(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	ts.Check(err)
	ts.Check(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns}))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	return master, slave
}

// locked DIR ARG ... runs hostcheck while another process holds the lock of
// the journal in DIR, and wants exit code 11.
func locked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: locked DIR ARG ...")
	}
	dir := filepath.Join(ts.MkAbs(args[0]), plan.Dir)
	ts.Check(os.MkdirAll(dir, 0o700))
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(0))
	_, err = f.WriteString("4711\n")
	ts.Check(err)
	ts.Check(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	code := run(ts, args[1:])
	// by itself, because a process just being started still has the file open
	ts.Check(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
	if code != 11 {
		ts.Fatalf("exit code %d, want 11", code)
	}
}

// change FILE TEXT gives a file one line of text.
func change(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: change FILE TEXT")
	}
	p := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(p), 0o755))
	ts.Check(os.WriteFile(p, []byte(args[1]+"\n"), 0o644))
}

// hash DIR puts the hash of the plan for a tree in $HASH.
func planHash(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hash DIR")
	}
	run(ts, []string{"plan", "-f", "json", "--root", args[0]})
	var p plan.Plan
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &p))
	ts.Setenv("HASH", p.Hash)
}

// TestFixSignals: a signal to a hostcheck at work makes it put everything back.
// It is held up by a stderr that nobody reads, so that the signal finds it there.
func TestFixSignals(t *testing.T) {
	for s, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		if signal.Ignored(s) { // hostcheck inherits that, as under nohup
			t.Logf("%v is ignored in this session: not tested", s)
			continue
		}
		root := fixture.Load(t, "testdata/hosts/rdma-intel.txtar").Root
		if err := os.WriteFile(filepath.Join(root, "etc/sysctl.d/95-guide.conf"), []byte("net.core.rmem_max = 16777216\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
			t.Fatal(err)
		}
		start := plantest.Snapshot(t, root)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		c := command(t, nil, "fix", "sysctl", "--yes", "-f", "json", "--root", root)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, w
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		for range 1000 { // it has begun once there is a transaction
			if found, _ := filepath.Glob(filepath.Join(root, plan.Dir, "2*")); len(found) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		for range 3 {
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		said, err := io.ReadAll(r)
		r.Close()
		_ = c.Wait()
		var f report.Fix
		if err := errors.Join(err, json.Unmarshal(out.Bytes(), &f)); err != nil {
			t.Fatalf("%v: %v\n%s%s", s, err, out.Bytes(), bytes.Trim(said, "\x00"))
		}
		if code := c.ProcessState.ExitCode(); code != want || f.Exit != want || f.Result.Outcome != plan.Interrupted {
			t.Errorf("%v: exit %d, want %d: %+v", s, code, want, f.Result)
		}
		if !strings.Contains(string(said), "stopping after the change at hand") {
			t.Errorf("%v: nobody was told: %s", s, bytes.Trim(said, "\x00"))
		}
		if d := plantest.Diff(start, plantest.Snapshot(t, root)); d != "" {
			t.Errorf("%v: the tree differs:\n%s", s, d)
		}
		if _, errs, code := hostcheck(t, nil, "status", "--root", root); code != 0 {
			t.Errorf("%v: status: exit %d %s", s, code, errs)
		}
	}
}
