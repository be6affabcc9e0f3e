// SPDX-License-Identifier: Apache-2.0

// Package plantest puts plans through the crash law: stopped or failing at any
// point, a host is in the old state, the new state, or one that undo restores
// byte for byte. Every verb is tested with it.
package plantest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Case is a host tree, an engine over it, and what is wished for. All state of
// a fake kernel must lie in files of the tree, because it has to survive a
// killed process.
type Case struct {
	Setup  func(tb testing.TB, root string) // makes the tree, the same each time
	Engine func(root string) *plan.Engine   // a new one each time
	Wishes []plan.Wish
	Plan   func(tb testing.TB, e *plan.Engine) plan.Plan // instead of Wishes

	// Confirm has the apply wait for its confirmation, which then comes at once.
	Confirm bool
}

func (c Case) plan(tb testing.TB, e *plan.Engine) plan.Plan {
	tb.Helper()
	if c.Plan != nil {
		return c.Plan(tb, e)
	}
	return Make(tb, e, c.Wishes)
}

// Knob is a kernel whose knobs are the files of the tree: writing one replaces
// its text. It can be wrapped to refuse, ignore or alter values.
func Knob(root string) func(path, text string) error {
	return func(p, text string) error {
		p = filepath.Join(root, p)
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		temp := p + ".knob"
		if err := os.WriteFile(temp, []byte(strings.TrimSuffix(text, "\n")+"\n"), st.Mode()); err != nil {
			return err
		}
		return os.Rename(temp, p) // at once, as write(2) to a knob is
	}
}

// Files writes a tree of files; a path that ends in "/" is a directory.
func Files(tb testing.TB, root string, files map[string]string) {
	tb.Helper()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		full := filepath.Join(root, p)
		dir := filepath.Dir(full)
		if strings.HasSuffix(p, "/") {
			dir = full
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		if dir == full {
			continue
		}
		if err := os.WriteFile(full, []byte(files[p]), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// Make plans the wishes for the engine's tree.
func Make(tb testing.TB, e *plan.Engine, wishes []plan.Wish) plan.Plan {
	tb.Helper()
	h, err := host.Open(e.Root, host.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	defer h.Close()
	p, err := e.Plan(context.Background(), h, "profile", wishes)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Tree is everything below a root except the journal: path to type, mode,
// owner, link target, content and extended attributes.
type Tree map[string]string

// Snapshot reads the tree below root.
func Snapshot(tb testing.TB, root string) Tree {
	tb.Helper()
	out := Tree{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == filepath.Join(root, plan.Dir) {
			return fs.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, _ := fi.Sys().(*syscall.Stat_t)
		s := fmt.Sprintf("%v %d:%d", fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			s += " -> " + to
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += " " + strconv.Quote(string(b))
		}
		rel, _ := filepath.Rel(root, p)
		out["/"+rel] = s + attributes(p)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func attributes(p string) string {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return ""
	}
	list := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(list)
	var s strings.Builder
	for _, name := range list {
		if n, err := unix.Lgetxattr(p, name, buf); err == nil {
			fmt.Fprintf(&s, " %s=%q", name, buf[:n])
		}
	}
	return s.String()
}

// Diff names what differs between two trees, "" when nothing does.
func Diff(want, got Tree) string {
	var lines []string
	for p := range want {
		if _, ok := got[p]; !ok {
			lines = append(lines, "missing "+p)
		} else if want[p] != got[p] {
			lines = append(lines, fmt.Sprintf("%s: want %s, got %s", p, want[p], got[p]))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			lines = append(lines, "stray "+p+" "+got[p])
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// ClosedLoop takes a wish all the way: it does not hold, is planned, applied
// and verified, then holds; planning again gives nothing; undo gives back the
// tree. holds is what the check behind the wish says. It gives the plan.
func ClosedLoop(t *testing.T, c Case, holds func(root string) error) plan.Plan {
	t.Helper()
	root := TempDir(t)
	c.Setup(t, root)
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(plan.Dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	old := Snapshot(t, root)
	if holds(root) == nil {
		t.Fatal("it holds before anything is done")
	}
	e := c.Engine(root)
	p := c.plan(t, e)
	opt := plan.Options{Allow: []plan.Tier{plan.Link, plan.Boot}, Verify: func(context.Context) error { return holds(root) }}
	if c.Confirm {
		opt.Within = time.Minute
	}
	r, err := e.Apply(context.Background(), p, opt)
	if err != nil || r.Outcome != plan.Applied || r.Until.IsZero() == c.Confirm {
		t.Fatalf("apply: %v %+v", err, r)
	}
	if c.Confirm {
		if r, err = e.Confirm(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Applied || holds(root) != nil {
			t.Fatalf("confirm: %v %+v", err, r)
		}
	}
	now := Snapshot(t, root)
	if again := c.plan(t, e); len(again.Changes) > 0 {
		t.Errorf("planned again: %+v", again.Changes)
	}
	if d := Diff(now, Snapshot(t, root)); d != "" {
		t.Errorf("planning wrote:\n%s", d)
	}
	if r, err = e.Undo(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatalf("undo: %v %+v", err, r)
	}
	if d := Diff(old, Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
	return p
}

const childEnv = "HOSTCHECK_CRASH_CHILD" // "apply|undo N ROOT"

var errInjected = fmt.Errorf("injected: %w", syscall.EIO)

// CrashLaw counts the points of an apply and of its undo, then fails at each,
// fails at each and ever after, and kills a real process at each. It gives the
// number of points tried.
func CrashLaw(t *testing.T, c Case) int {
	t.Helper()
	if v := os.Getenv(childEnv); v != "" {
		child(t, c, v)
		return 0
	}
	l := &law{T: t, Case: c, base: TempDir(t)}
	root := l.fresh("count")
	l.old = Snapshot(t, root)
	applyPoints, res, err := l.run("apply", root, never)
	if err != nil || res.Outcome != plan.Applied {
		t.Fatalf("apply: %v %+v", err, res)
	}
	l.new = Snapshot(t, root)
	if Diff(l.old, l.new) == "" {
		t.Fatal("the plan changes nothing")
	}
	undoPoints, res, err := l.run("undo", root, never)
	if err != nil || res.Outcome != plan.Undone {
		t.Fatalf("undo: %v %+v", err, res)
	}
	if d := Diff(l.old, Snapshot(t, root)); d != "" {
		t.Fatalf("apply and undo do not give back the tree:\n%s", d)
	}
	n, m := len(applyPoints), len(undoPoints)

	var tried atomic.Int32
	var wg sync.WaitGroup
	gate := make(chan struct{}, runtime.GOMAXPROCS(0))
	each := func(points []string, f func(i int, where string)) {
		for i, where := range points {
			wg.Add(1)
			gate <- struct{}{}
			go func() {
				defer func() { <-gate; wg.Done() }()
				tried.Add(1)
				f(i, where)
			}()
		}
	}
	each(applyPoints, l.failOnce)
	each(applyPoints, l.failEver)
	each(applyPoints, l.killApply)
	each(undoPoints, l.failUndo)
	each(undoPoints, l.killUndo)
	for i := 0; i < n; i += 5 { // killed, and killed again while undoing
		each(applyPoints[i:i+1], func(_ int, where string) { l.killTwice(i, i*7%m, where) })
	}
	wg.Wait()
	t.Logf("crash law: %d points of apply, %d of undo; %d runs failed or stopped, %d processes killed", n, m, tried.Load(), l.killed.Load())
	return int(tried.Load())
}

// TempDir is in memory where it can be: a killed process loses nothing that it
// did not sync, so syncing to a disk only costs time here.
func TempDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "hostcheck-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if unix.Setxattr(dir, "user.test", nil, 0) != nil || unix.Removexattr(dir, "user.test") != nil {
		return tb.TempDir()
	}
	return dir
}

type law struct {
	*testing.T
	Case
	base     string
	old, new Tree
	killed   atomic.Int32
}

func (l *law) fresh(name string) string {
	root := filepath.Join(l.base, name)
	if err := os.Mkdir(root, 0o755); err != nil {
		l.Error(err)
	}
	l.Setup(l.T, root)
	// not part of what a plan does
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(plan.Dir)), 0o755); err != nil {
		l.Error(err)
	}
	return root
}

func never(int) error { return nil }

// run applies or undoes with a fault for each point, and gives the points.
func (c Case) do(tb testing.TB, what, root string, fault func(i int) error) (points []string, r plan.Result, err error) {
	e := c.Engine(root)
	var p plan.Plan
	if what == "apply" {
		p = c.plan(tb, e)
	}
	e.Fault = func(point string) error {
		points = append(points, point)
		return fault(len(points) - 1)
	}
	if what == "apply" {
		opt := plan.Options{Allow: []plan.Tier{plan.Link, plan.Boot}}
		if c.Confirm {
			opt.Within = time.Minute
		}
		r, err = e.Apply(context.Background(), p, opt)
		if err == nil && !r.Until.IsZero() {
			if r, err = e.Confirm(context.Background(), r.Txn, plan.Options{}); err != nil {
				r = giveUp(e, err)
				err = nil
			}
		}
	} else {
		r, err = e.Undo(context.Background(), "", plan.Options{})
	}
	return points, r, err
}

// giveUp takes back what cannot be confirmed, as the timer would.
func giveUp(e *plan.Engine, cause error) plan.Result {
	r, err := e.Undo(context.Background(), "", plan.Options{})
	switch {
	case err != nil:
		return plan.Result{Outcome: plan.Incomplete, Cause: err}
	case r.Outcome == plan.Undone:
		r.Outcome = plan.Restored
	}
	if r.Cause == nil {
		r.Cause = cause
	}
	return r
}

func (l *law) run(what, root string, fault func(i int) error) ([]string, plan.Result, error) {
	return l.do(l.T, what, root, fault)
}

func (l *law) want(tree Tree, root, format string, args ...any) {
	if d := Diff(tree, Snapshot(l.T, root)); d != "" {
		l.Errorf("%s: the tree differs:\n%s", fmt.Sprintf(format, args...), d)
	}
}

// heal undoes without faults whatever is to be undone, and expects the old tree.
func (l *law) heal(root, where string) {
	_, r, err := l.run("undo", root, never)
	if !errors.Is(err, plan.ErrNothing) && (err != nil || r.Outcome != plan.Undone || r.Journal != nil) {
		l.Errorf("%s: undo afterwards: %v %+v", where, err, r)
	}
	l.want(l.old, root, "%s, then undo", where)
}

func (l *law) failOnce(i int, where string) {
	root := l.fresh(fmt.Sprintf("once%d", i))
	defer os.RemoveAll(root)
	_, r, err := l.run("apply", root, func(k int) error {
		if k == i {
			return errInjected
		}
		return nil
	})
	where = fmt.Sprintf("error once %s", where)
	if err == nil && (r.Outcome != plan.Restored || !errors.Is(r.Cause, syscall.EIO)) {
		l.Errorf("%s: %+v", where, r)
	}
	l.want(l.old, root, "%s: %v %+v", where, err, r)
	l.heal(root, where)
	if _, r, err = l.run("apply", root, never); err != nil || r.Outcome != plan.Applied {
		l.Errorf("%s: apply afterwards: %v %+v", where, err, r)
	}
	l.want(l.new, root, "%s, then apply", where)
}

func (l *law) failEver(i int, where string) {
	root := l.fresh(fmt.Sprintf("ever%d", i))
	defer os.RemoveAll(root)
	_, r, err := l.run("apply", root, func(k int) error {
		if k >= i {
			return errInjected
		}
		return nil
	})
	where = fmt.Sprintf("errors from %s on", where)
	switch {
	case err != nil || r.Outcome == plan.Restored:
		l.want(l.old, root, "%s: %v %+v", where, err, r)
	case r.Outcome != plan.Incomplete || r.Cause == nil:
		l.Errorf("%s: %+v", where, r)
	}
	l.heal(root, where)
}

func (l *law) failUndo(i int, where string) {
	root := l.fresh(fmt.Sprintf("undo%d", i))
	defer os.RemoveAll(root)
	if _, r, err := l.run("apply", root, never); err != nil || r.Outcome != plan.Applied {
		l.Errorf("apply: %v %+v", err, r)
	}
	_, r, err := l.run("undo", root, func(k int) error {
		if k == i {
			return errInjected
		}
		return nil
	})
	where = fmt.Sprintf("error in undo %s", where)
	switch {
	case err == nil && r.Outcome == plan.Undone:
		l.want(l.old, root, "%s: %+v", where, r)
	case err == nil && r.Outcome != plan.Incomplete:
		l.Errorf("%s: %+v", where, r)
	}
	l.heal(root, where)
}

func (l *law) killApply(i int, where string) {
	root := l.fresh(fmt.Sprintf("kill%d", i))
	defer os.RemoveAll(root)
	l.kill("apply", i, root)
	where = fmt.Sprintf("killed %s", where)
	e := l.Engine(root)
	pending, busy, err := e.Status(context.Background())
	if err != nil || busy != nil {
		l.Errorf("%s: status: %v %v", where, err, busy)
	}
	now := Snapshot(l.T, root)
	if len(pending) == 0 && Diff(l.old, now) != "" && Diff(l.new, now) != "" {
		l.Errorf("%s: neither old nor new, and status names nothing:\n%s", where, Diff(l.old, now))
	}
	if len(pending) > 0 {
		// the plan itself may be stale by now: what must be named is the stop
		var unfinished *plan.UnfinishedError
		var unconfirmed *plan.UnconfirmedError
		_, _, err := l.run("apply", root, never)
		if !errors.As(err, &unfinished) && !errors.As(err, &unconfirmed) && !errors.Is(err, plan.ErrEmpty) {
			l.Errorf("%s: apply afterwards: %v", where, err)
		}
	}
	l.heal(root, where)
}

func (l *law) killUndo(i int, where string) {
	root := l.fresh(fmt.Sprintf("killundo%d", i))
	defer os.RemoveAll(root)
	if _, r, err := l.run("apply", root, never); err != nil || r.Outcome != plan.Applied {
		l.Errorf("apply: %v %+v", err, r)
	}
	l.kill("undo", i, root)
	l.heal(root, "killed in undo "+where)
}

func (l *law) killTwice(i, k int, where string) {
	root := l.fresh(fmt.Sprintf("twice%d", i))
	defer os.RemoveAll(root)
	l.kill("apply", i, root)
	l.kill("undo", k, root)
	l.heal(root, fmt.Sprintf("killed %s, and again at point %d of undo", where, k))
}

// kill runs what in a process of its own, which kills itself at point i, or
// ends by itself when it does not get there.
func (l *law) kill(what string, i int, root string) {
	parts := strings.Split(l.Name(), "/")
	for k, p := range parts {
		parts[k] = "^" + regexp.QuoteMeta(p) + "$"
	}
	cmd := exec.Command(os.Args[0], "-test.run="+strings.Join(parts, "/"), "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", childEnv, what, i, root))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
			l.killed.Add(1)
			return
		}
	}
	if err != nil || what == "apply" {
		l.Errorf("%s in a process to be killed at point %d: %v\n%s", what, i, err, out)
	}
}

func child(t *testing.T, c Case, spec string) {
	f := strings.SplitN(spec, " ", 3)
	at, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = c.do(t, f[0], f[2], func(k int) error {
		if k == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it comes at once, but not at this very instruction
		}
		return nil
	})
}
