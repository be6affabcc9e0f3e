// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang makes reads of the paths that stuck selects wait until the test ends,
// as a driver does that never answers.
func hang(t *testing.T, h *Host, stuck func(path string) bool) *atomic.Int64 {
	t.Helper()
	gate := make(chan struct{})
	var waiting atomic.Int64
	h.do = func(op Op, at *place) Answer {
		if stuck(op.Path) {
			waiting.Add(1)
			<-gate
			return Answer{Data: []byte("too late")}
		}
		return h.perform(op, at)
	}
	t.Cleanup(func() { close(gate) })
	return &waiting
}

func TestStuckReadEndsAndIsNamed(t *testing.T) {
	h := openQuick(t, tree(t, map[string]string{"sys/a/stuck": "x", "sys/a/fine": "1", "sys/b/fine": "2"}))
	hang(t, h, func(p string) bool { return p == "/sys/a/stuck" })
	_, err := h.Read("/sys/a/stuck")
	if !errors.Is(err, ErrDeadline) || !strings.Contains(err.Error(), "/sys/a/stuck") {
		t.Fatalf("got %v", err)
	}
	for p, want := range map[string]string{"/sys/a/fine": "1", "/sys/b/fine": "2"} {
		if s, err := h.Text(p); s != want || err != nil {
			t.Errorf("%s: %q, %v", p, s, err)
		}
	}
	if _, again := h.Read("/sys/a/stuck"); !errors.Is(again, ErrDeadline) {
		t.Errorf("asked again: %v; the first answer is remembered", again)
	}
}

func TestStuckReadsInABatch(t *testing.T) {
	files := map[string]string{}
	var ops []Op
	for d := range 20 {
		for f := range 10 {
			p := fmt.Sprintf("sys/dev%02d/file%d", d, f)
			files[p] = p
			ops = append(ops, Op{ReadFile, "/" + p})
		}
	}
	h := openQuick(t, tree(t, files))
	stuck := func(p string) bool { return strings.HasPrefix(p, "/sys/dev07/") || p == "/sys/dev03/file4" }
	waiting := hang(t, h, stuck)
	h.Prefetch(ops)
	blocked := 0
	for _, op := range ops {
		b, err := h.Read(op.Path)
		switch {
		case !stuck(op.Path):
			if err != nil || "/"+string(b) != op.Path {
				t.Errorf("%s: %q, %v", op.Path, b, err)
			}
		case errors.Is(err, ErrBlocked):
			blocked++
		case !errors.Is(err, ErrDeadline):
			t.Errorf("%s: %v", op.Path, err)
		}
	}
	// those under way when the directory was closed are stuck as well
	if n := int(waiting.Load()); n > maxPerDir+1+Workers() || n+blocked != 11 {
		t.Errorf("%d reads were left behind and %d refused, of 11", n, blocked)
	}
}

func TestLeftBehindWorkersAreBounded(t *testing.T) {
	files := map[string]string{"sys/fine/file": "1", "proc/other/file": "2"}
	var ops []Op
	for d := range 200 {
		p := fmt.Sprintf("sys/dev%03d/file", d)
		files[p] = "x"
		ops = append(ops, Op{ReadFile, "/" + p})
	}
	root := tree(t, files)
	h := openQuick(t, root)
	if _, err := h.Read("/sys/fine/file"); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	waiting := hang(t, h, func(p string) bool { return strings.HasPrefix(p, "/sys/dev") })
	h.Prefetch(ops)
	for _, op := range ops {
		if _, err := h.Read(op.Path); !errors.Is(err, ErrDeadline) && !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %v", op.Path, err)
		}
	}
	if n := int(waiting.Load()); n < maxStuck || n >= maxStuck+Workers() {
		t.Errorf("%d workers were left behind, want about %d", n, maxStuck)
	}
	if n := runtime.NumGoroutine() - before; n > maxStuck+2*Workers() {
		t.Errorf("%d goroutines are left", n)
	}
	// nothing new is started, what is known stays
	if _, err := h.Read("/proc/other/file"); !errors.Is(err, ErrBlocked) {
		t.Errorf("a new read after too many stuck ones: %v", err)
	}
	if s, err := h.Text("/sys/fine/file"); s != "1" || err != nil {
		t.Errorf("a known answer: %q, %v", s, err)
	}
}

// Two callers of the same stuck source both get the answer.
func TestStuckReadSharedByCallers(t *testing.T) {
	h := openQuick(t, tree(t, map[string]string{"sys/stuck": ""}))
	hang(t, h, func(p string) bool { return p == "/sys/stuck" })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.Read("/sys/stuck"); !errors.Is(err, ErrDeadline) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

func TestStuckQuery(t *testing.T) {
	h, err := Open("/", Options{Deadline: quick})
	must(t, err)
	gate := make(chan struct{})
	defer close(gate)
	_, err = Ask(h, "ethtool eth0 rings", func() (int, error) { <-gate; return 1, nil })
	var e *Error
	if !errors.Is(err, ErrDeadline) || !errors.As(err, &e) || e.Path != "ethtool eth0 rings" || e.Op != "query" {
		t.Errorf("got %v", err)
	}
	if n, err := Ask(h, "ethtool eth1 rings", func() (int, error) { return 2, nil }); n != 2 || err != nil {
		t.Errorf("another query: %d, %v", n, err)
	}
	for i := range maxStuck {
		_, _ = Ask(h, fmt.Sprintf("stuck %d", i), func() (int, error) {
			if i < maxStuck-1 { // one is left behind already
				<-gate
			}
			return 0, nil
		})
		if h.stuck.Load() >= maxStuck {
			break
		}
	}
	if _, err := Ask(h, "one more", func() (int, error) { t.Error("asked"); return 0, nil }); !errors.Is(err, ErrBlocked) {
		t.Errorf("after too many stuck ones: %v", err)
	}
}

// A driver that keeps the lock of the network configuration keeps all that
// wait for it: the first is named, and few wait.
func TestStuckRTNL(t *testing.T) {
	files := map[string]string{}
	var ops []Op
	for i := range 20 {
		for _, f := range []string{"carrier", "mtu", "speed"} {
			p := fmt.Sprintf("/sys/class/net/eth%02d/%s", i, f)
			files[p[1:]] = "1"
			ops = append(ops, Op{ReadFile, p})
		}
	}
	h, err := Open(tree(t, files), Options{Deadline: 10 * quick}) // on a busy machine those that answer must
	must(t, err)
	const culprit = "/sys/class/net/eth05/speed"
	var mu sync.Mutex
	taken, threads := false, []int{}
	waiting := hang(t, h, func(p string) bool { // those before the culprit answer
		mu.Lock()
		defer mu.Unlock()
		taken = taken || p == culprit
		if !taken || p < "/sys/class/net/eth05/" || strings.HasSuffix(p, "mtu") {
			return false
		}
		threads = append(threads, threadID())
		return true
	})
	h.Prefetch(ops)
	// the first is the one whose read began first: as a rule the culprit's, but
	// another worker may have begun just before it and come to the lock after it
	var first []string
	for _, op := range ops {
		if _, err := h.Read(op.Path); errors.Is(err, ErrDeadline) && !strings.Contains(err.Error(), "the first") {
			first = append(first, op.Path)
		}
	}
	if len(first) != 1 {
		t.Fatalf("the first: %v", first)
	}
	held := 0
	for _, op := range ops {
		_, err := h.Read(op.Path)
		switch {
		case op.Path == first[0], err == nil:
		case strings.HasSuffix(op.Path, "mtu"), !strings.HasSuffix(err.Error(), "; the first that did not was "+first[0]):
			t.Errorf("%s: %v", op.Path, err)
		default:
			held++
		}
	}
	if held < 20 {
		t.Errorf("only %d others were held up", held)
	}
	if n := int(waiting.Load()); n > maxRTNL+Workers() {
		t.Errorf("%d reads wait", n)
	}
	for _, id := range threads {
		if a, err := unix.SchedGetAttr(id, 0); err != nil || a.Policy != unix.SCHED_IDLE {
			t.Errorf("thread %d of a read that is left behind: %+v, %v", id, a, err)
		}
	}
}

// The same among queries. What needs no such lock is asked.
func TestStuckRTNLQuery(t *testing.T) {
	h, err := Open("/", Options{Deadline: quick})
	must(t, err)
	gate := make(chan struct{})
	ask := func(key string) error {
		_, err := Ask(h, key, func() (int, error) { <-gate; return 0, nil })
		return err
	}
	if err := ask("ethtool eth0 rings"); !errors.Is(err, ErrDeadline) || strings.Contains(err.Error(), "the first") {
		t.Errorf("the first: %v", err)
	}
	const first = "; the first that did not was ethtool eth0 rings"
	for i := 1; i < maxRTNL; i++ {
		if err := ask(fmt.Sprintf("dcb eth%d ieee", i)); !errors.Is(err, ErrDeadline) || !strings.HasSuffix(err.Error(), first) {
			t.Errorf("another: %v", err)
		}
	}
	for _, key := range []string{"ethtool eth0 channels", "ethtool eth9 rings", "dcb eth9 ieee"} {
		if _, err := Ask(h, key, func() (int, error) { t.Error("asked"); return 0, nil }); !errors.Is(err, ErrBlocked) || !strings.HasSuffix(err.Error(), first) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if n, err := Ask(h, "klog", func() (int, error) { return 3, nil }); n != 3 || err != nil {
		t.Errorf("another kind: %d, %v", n, err)
	}
	close(gate) // late answers
	for i := 0; ; i++ {
		h.rtnl.mu.Lock()
		n := len(h.rtnl.waiting)
		h.rtnl.mu.Unlock()
		if n == 0 {
			break
		}
		if i > 1000 {
			t.Fatalf("%d are still taken to be waiting", n)
		}
		time.Sleep(time.Millisecond)
	}
	if n, err := Ask(h, "ethtool eth9 features", func() (int, error) { return 4, nil }); n != 4 || err != nil {
		t.Errorf("after the late answers: %d, %v", n, err)
	}
}

// A read that ends just after the deadline leaves nothing broken.
func TestSlowReads(t *testing.T) {
	files := map[string]string{}
	var ops []Op
	for i := range 60 {
		p := fmt.Sprintf("sys/d%d/file", i)
		files[p] = "v"
		ops = append(ops, Op{ReadFile, "/" + p})
	}
	h, err := Open(tree(t, files), Options{Deadline: 8 * time.Millisecond})
	must(t, err)
	defer h.Close()
	var running atomic.Int64
	h.do = func(op Op, at *place) Answer {
		running.Add(1)
		defer running.Add(-1)
		time.Sleep(time.Duration(len(op.Path)%3) * 5 * time.Millisecond)
		return h.perform(op, at)
	}
	h.Prefetch(ops)
	for _, op := range ops {
		b, err := h.Read(op.Path)
		if err == nil && string(b) != "v" || err != nil && !errors.Is(err, ErrDeadline) && !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %q, %v", op.Path, b, err)
		}
	}
	for running.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestEachSourceIsReadOnce(t *testing.T) {
	files := map[string]string{"sys/link": "-> f0"}
	for i := range 50 {
		files[fmt.Sprintf("sys/f%d", i)] = fmt.Sprint(i)
	}
	root := tree(t, files)
	h := open(t, root)
	var mu sync.Mutex
	count := map[Op]int{}
	h.do = func(op Op, at *place) Answer {
		mu.Lock()
		count[op]++
		mu.Unlock()
		return h.perform(op, at)
	}
	ops := []Op{{ListDir, "/sys"}, {ReadLink, "/sys/link"}, {ReadFile, "/sys/link"}, {ReadFile, "/sys/nothing"}}
	for i := range 50 {
		ops = append(ops, Op{ReadFile, fmt.Sprintf("/sys/f%d", i)})
	}
	queries := atomic.Int64{}
	live := open(t, "/")
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			if g%2 == 0 {
				h.Prefetch(ops)
			}
			for i := range ops {
				op := ops[(i*7+g)%len(ops)]
				a := h.Do(op)
				if op.Path == "/sys/nothing" {
					if !Absent(a.Err) {
						t.Errorf("%v", a.Err)
					}
				} else if a.Err != nil {
					t.Errorf("%v", a.Err)
				}
			}
			n, err := Ask(live, "counted", func() (int, error) { return int(queries.Add(1)), nil })
			if n != 1 || err != nil {
				t.Errorf("query: %d, %v", n, err)
			}
		})
	}
	wg.Wait()
	for _, op := range ops {
		if count[op] != 1 {
			t.Errorf("%v was performed %d times", op, count[op])
		}
	}
	st := h.Stats()
	if st.Files != 52 || st.Dirs != 1 || st.Links != 1 || len(h.Asked()) != 54 || st.Bytes != 10+2*40+1 {
		t.Errorf("stats %+v", st)
	}
	if live.Stats().Queries != 1 {
		t.Errorf("queries %d", live.Stats().Queries)
	}
	// the answer is a sample: what changes later is not seen
	must(t, os.WriteFile(filepath.Join(root, "sys/f1"), []byte("changed"), 0o644))
	if s, _ := h.Text("/sys/f1"); s != "1" {
		t.Errorf("read again: %q", s)
	}
}

func TestAnswersAreNotShared(t *testing.T) {
	h := open(t, tree(t, map[string]string{"sys/a": "first", "sys/b": "other"}))
	a, _ := h.Read("/sys/a")
	_, _ = h.Read("/sys/b")
	if string(a) != "first" {
		t.Errorf("a later read wrote over an earlier answer: %q", a)
	}
}

func TestErrnoIsKept(t *testing.T) {
	h := open(t, tree(t, map[string]string{"sys/a": ""}))
	h.do = func(op Op, _ *place) Answer { return Answer{Err: &Error{"read", op.Path, syscall.EIO}} }
	for range 2 {
		if _, err := h.Read("/sys/a"); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v", err)
		}
	}
}
