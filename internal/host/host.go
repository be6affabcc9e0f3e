// SPDX-License-Identifier: Apache-2.0

// Package host is the only reader of the machine.
//
// Everything that decides a verdict comes through a [Host]: files, directory
// listings and links below one root directory, and the kernel's answers to
// ioctl, netlink and log queries. Each source is asked once and remembered,
// so that a run sees one consistent sample and can be captured and replayed.
//
// No read can hold up the others: every one has a size cap and a deadline. A
// sysfs file that blocks, a FIFO in its place or a driver that answers EAGAIN
// for ever ends as an [Error] that names it.
//
// Nothing here writes: files are opened O_RDONLY, and no process is started.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits of reading. A sysfs attribute is at most a page, which is 64 KiB at
// most; the largest files read on purpose are the kernel's configuration and
// the list of its built-in modules.
const (
	MaxFile    = 4 << 20   // bytes of one file
	MaxAttr    = 64 << 10  // of one below /sys
	MaxConfig  = 4 << 10   // of a PCI function's configuration space
	MaxTotal   = 256 << 20 // of all that is kept
	MaxEntries = 64 << 10  // names in one directory
	HeadBytes  = 1 << 20   // of a file of which only the beginning is read
	Deadline   = 2 * time.Second
	maxStuck   = 32 // abandoned reads after which nothing more is started
	maxPerDir  = 3  // abandoned reads in one directory, likewise for that directory
)

// Reasons that are not an errno. They are wrapped in an [Error].
var (
	ErrDeadline    = errors.New("did not answer in time")
	ErrBlocked     = errors.New("not read, because others beside it did not answer")
	ErrTooLarge    = errors.New("larger than the read limit")
	ErrTotal       = errors.New("not kept, because all that was read together is larger than the read limit")
	ErrNotRegular  = errors.New("not a regular file")
	ErrNotCaptured = errors.New("not captured")
)

// Error says which source could not be read and why. Err is a syscall.Errno
// or one of the Err values above.
type Error struct {
	Op   string // "read", "list", "link", "query"
	Path string // path or query key
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("cannot %s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// Is lets fs.ErrNotExist and fs.ErrPermission match through the errno.
func (e *Error) Is(target error) bool { return errors.Is(e.Err, target) }

// Absent reports whether the source does not exist, as opposed to unreadable.
// This does not mean that the kernel lacks it: see [Host.Lacks].
func Absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// Reason is the short form of why err happened, without the path: for the
// "unknown" field of a fact, where the path stands beside it.
func Reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		switch {
		case errors.Is(e.Err, syscall.EACCES), errors.Is(e.Err, syscall.EPERM):
			return fmt.Sprintf("%s: %v (needs root)", e.Path, e.Err)
		default:
			return fmt.Sprintf("%s: %v", e.Path, e.Err)
		}
	}
	return err.Error()
}

// Kind is what an operation reads.
type Kind uint8

// The kinds of operation.
const (
	ReadFile Kind = iota // the bytes of a regular file
	ListDir              // the names in a directory, sorted
	ReadLink             // the target of a symbolic link, as stored
	ReadHead             // the first HeadBytes of a regular file, whatever its size
)

var kindNames = [...]string{"read", "list", "link", "read"}

func (k Kind) String() string { return kindNames[k] }

// Op is one operation on a path.
type Op struct {
	Kind Kind
	Path string // absolute, in the host's root
}

// Answer is what one operation gave. Err is nil or an *Error.
type Answer struct {
	Data  []byte   // ReadFile, ReadHead
	Names []string // ListDir
	Link  string   // ReadLink
	Err   error
}

// entry is one remembered operation. A waiter's channel is made only where
// somebody waits, which in a batch nobody does.
type entry struct {
	resolved atomic.Bool // whoever sets it may write the answer
	ready    atomic.Bool // the answer is written
	answer   Answer
	mu       sync.Mutex
	wait     chan struct{}
}

func (e *entry) resolve(a Answer) bool {
	if !e.resolved.CompareAndSwap(false, true) {
		return false
	}
	e.answer = a
	e.ready.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.wait != nil {
		close(e.wait)
	}
	return true
}

// get waits for the answer: a read in flight elsewhere ends by its own deadline.
func (e *entry) get() Answer {
	if e.ready.Load() {
		return e.answer
	}
	e.mu.Lock()
	if e.ready.Load() { // what resolved it closes a channel that it finds; it must find none made since
		e.mu.Unlock()
		return e.answer
	}
	if e.wait == nil {
		e.wait = make(chan struct{})
	}
	wait := e.wait
	e.mu.Unlock()
	<-wait
	return e.answer
}

type shard struct {
	mu sync.Mutex
	m  map[Op]*entry
}

// Host reads one machine: the live one, or a directory that holds its tree.
// It is safe for concurrent use.
type Host struct {
	root     string
	live     bool
	fd       int  // of root, for openat2; -1 on the live machine
	special  bool // the tree may hold device nodes that would open
	deadline time.Duration
	capture  *Capture // recorded answers of a directory; nil on the live machine
	source   string
	replay   *Snapshot // that answers everything; else nil

	notesMu sync.Mutex
	notes   map[Name]Note // see noted

	do func(Op, *place) Answer // perform; tests put a source that never answers here

	shards [64]shard

	stuck    atomic.Int32
	stuckMu  sync.Mutex
	stuckDir map[string]int
	rtnl     rtnl

	kernelMu   sync.Mutex
	kernelDirs map[string]bool // see onKernelFS
	shared     map[string]bool // kind of namespace -> whether it is the host's, see ofHost

	queryMu sync.Mutex
	queries map[string]*query

	bytes  atomic.Int64 // of files, for Stats
	held   atomic.Int64 // bytes of all answers
	budget int64        // MaxTotal
}

// Options change how a host is read. The zero value is right for users.
type Options struct {
	Deadline time.Duration // of one read; 0 means [Deadline]
}

// Open opens the machine below root. "/" is the live machine; any other
// directory is a tree (a mounted host root or a capture), and is never mixed
// with answers of the running kernel. The error names root when it is missing,
// not a directory, or holds neither /proc nor /sys nor /etc.
func Open(root string, opt Options) (*Host, error) {
	h := newHost(root, opt)
	if root == "" || path.Clean(root) == "/" {
		h.root, h.live, h.source = "/", true, "live"
		return h, nil
	}
	st, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s as a host root: %w", root, pathCause(err))
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("cannot use %s as a host root: it is a file; give the directory that holds the host's /proc and /sys", root)
	}
	found := false
	for _, d := range []string{"proc", "sys", "etc"} {
		if _, err := os.Lstat(path.Join(root, d)); err == nil {
			found = true
		}
	}
	if !found {
		return nil, fmt.Errorf("cannot use %s as a host root: it holds none of proc, sys and etc", root)
	}
	if h.fd, err = openRoot(root); err != nil {
		return nil, fmt.Errorf("cannot use %s as a host root: %w", root, err)
	}
	h.special = os.Geteuid() == 0 && !noDevices(h.fd)
	if h.capture, err = h.loadCapture(); err != nil {
		return nil, fmt.Errorf("cannot use %s as a host root: %w", root, err)
	}
	return h, nil
}

func newHost(root string, opt Options) *Host {
	h := &Host{
		root: root, source: "root", fd: -1, deadline: opt.Deadline, budget: MaxTotal,
		stuckDir: map[string]int{}, kernelDirs: map[string]bool{}, shared: map[string]bool{}, queries: map[string]*query{},
	}
	h.do = h.perform
	if h.deadline <= 0 {
		h.deadline = Deadline
	}
	for i := range h.shards {
		h.shards[i].m = map[Op]*entry{}
	}
	return h
}

func pathCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Close releases the root. Reads that never returned keep their own files.
func (h *Host) Close() { closeRoot(h.fd) }

// Stuck is how many reads did not answer in time. Each may hold a thread for good.
func (h *Host) Stuck() int { return int(h.stuck.Load()) }

// Live reports whether this is the running machine.
func (h *Host) Live() bool { return h.live }

// Root is the directory that the host is read from, "/" when live.
func (h *Host) Root() string { return h.root }

// Source is the report's host.source: "live", "root", or what [Replay] was told.
func (h *Host) Source() string { return h.source }

// Time is when the host was sampled: now for a live machine or a mounted real
// procfs, the recorded time for a capture, the zero time when nobody knows.
func (h *Host) Time() time.Time {
	switch {
	case h.capture != nil && !h.capture.Time.IsZero():
		return h.capture.Time
	case h.live || h.replay == nil && h.onKernelFS("/proc"):
		return time.Now()
	}
	return time.Time{}
}

// entry gives what is remembered of op, or puts spare there; spare is nil or unused.
func (h *Host) entry(op Op, spare *entry) (e *entry, fresh bool) {
	s := &h.shards[hash(op.Path)%uint32(len(h.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.m[op]; e != nil {
		return e, false
	}
	if e = spare; e == nil {
		e = new(entry)
	}
	s.m[op] = e
	return e, true
}

func hash(s string) uint32 { // FNV-1a
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// Do performs one operation, or gives the remembered answer.
func (h *Host) Do(op Op) Answer {
	e, fresh := h.entry(op, nil)
	if fresh {
		h.run([]job{{op, e}})
	}
	return e.get()
}

// Prefetch performs many operations at once with a few workers, so that a
// decoder can then ask for them one by one. Answers already known cost nothing.
func (h *Host) Prefetch(ops []Op) {
	jobs := make([]job, 0, len(ops))
	spare := make([]entry, len(ops)) // one allocation rather than thousands
	for i, op := range ops {
		if e, fresh := h.entry(op, &spare[i]); fresh {
			jobs = append(jobs, job{op, e})
		}
	}
	if len(jobs) > 0 {
		h.run(jobs)
	}
}

type job struct {
	op Op
	e  *entry
}

// group is neighbours of a batch: jobs in one directory, which is walked to
// once. A worker that gets stuck leaves the rest to its replacement.
type group struct {
	jobs []job
	next atomic.Int32
}

// maxGroup keeps a large directory from being one worker's alone.
const maxGroup = 128

// groups sorts jobs by directory, in the order of their first appearance.
func groups(jobs []job) []*group {
	if len(jobs) == 1 {
		return []*group{{jobs: jobs}}
	}
	var all []*group
	of := map[string]*group{}
	for _, j := range jobs {
		dir := path.Dir(j.op.Path)
		g := of[dir]
		if g == nil || len(g.jobs) == maxGroup {
			g = new(group)
			of[dir] = g
			all = append(all, g)
		}
		g.jobs = append(g.jobs, j)
	}
	return all
}

// worker is one goroutine of a batch; since is 0 while it is not in a read.
type worker struct {
	since  atomic.Int64
	thread atomic.Int64 // that the read is locked to, 0 for none
	job    atomic.Pointer[job]
	group  atomic.Pointer[group]
}

// Workers is how many reads of a batch are under way at once.
func Workers() int { return min(8, 2*runtime.GOMAXPROCS(0)) }

// run performs all jobs and returns when each is resolved, by its worker or,
// past the deadline, by the watchdog here; a worker stuck in the kernel is
// left behind and replaced.
func (h *Host) run(jobs []job) {
	var next, open atomic.Int64
	open.Store(int64(len(jobs)))
	finished := make(chan struct{})
	resolved := func(j *job, a Answer) bool {
		if !j.e.resolve(a) {
			return false
		}
		if open.Add(-1) == 0 {
			close(finished)
		}
		return true
	}
	all := groups(jobs)
	// inGroup does what is left of a group; false means that the worker was given up on.
	inGroup := func(w *worker, g *group, at *place) bool {
		w.group.Store(g)
		defer at.leave()
		for {
			i := int(g.next.Add(1)) - 1
			if i >= len(g.jobs) {
				return true
			}
			j := &g.jobs[i]
			if err := h.refused(j.op.Path); err != nil {
				resolved(j, Answer{Err: &Error{j.op.Kind.String(), j.op.Path, err}})
				continue
			}
			at.left = len(g.jobs) - i
			w.job.Store(j)
			spins := rtnlNIC(j.op.Path) != ""
			if spins {
				runtime.LockOSThread()
				w.thread.Store(int64(threadID()))
			}
			w.since.Store(time.Now().UnixNano())
			a := h.do(j.op, at)
			w.since.Store(0)
			if !resolved(j, a) {
				h.rtnl.end(j.op.Path)
				return false // and a thread that is locked ends with this goroutine
			}
			if spins {
				w.thread.Store(0)
				runtime.UnlockOSThread()
			}
		}
	}
	work := func(w *worker, g *group) {
		at := placePool.Get().(*place)
		defer at.put()
		for {
			if g != nil && !inGroup(w, g, at) {
				return
			}
			i := next.Add(1) - 1
			if i >= int64(len(all)) {
				return
			}
			g = all[i]
		}
	}
	workers := make([]*worker, 0, Workers())
	start := func(g *group) {
		w := new(worker)
		workers = append(workers, w)
		go work(w, g)
	}
	for range min(cap(workers), len(all)) {
		start(nil)
	}
	tick := time.NewTimer(h.deadline)
	defer tick.Stop()
	for {
		select {
		case <-finished:
			return
		case <-tick.C:
		}
		now := time.Now().UnixNano()
		type late struct {
			w *worker
			j *job
		}
		var overdue []late
		for _, w := range workers {
			j := w.job.Load() // before since: a job seen with a stale time is then already resolved
			if since := w.since.Load(); since != 0 && now-since >= int64(h.deadline) {
				overdue = append(overdue, late{w, j})
				h.rtnl.begin(j.op.Path, time.Unix(0, since)) // all of them, before one is blamed
			}
		}
		for _, o := range overdue {
			p := o.j.op.Path
			if !resolved(o.j, Answer{Err: &Error{o.j.op.Kind.String(), p, h.rtnl.late(p)}}) {
				h.rtnl.end(p)
				continue
			}
			h.leftBehind(p)
			if t := o.w.thread.Load(); t != 0 {
				idle(int(t))
			}
			workers = slices.DeleteFunc(workers, func(w *worker) bool { return w == o.w })
			start(o.w.group.Load())
		}
		tick.Reset(h.deadline / 8)
	}
}

func (h *Host) leftBehind(p string) {
	h.stuck.Add(1)
	h.stuckMu.Lock()
	h.stuckDir[path.Dir(p)]++
	h.stuckMu.Unlock()
}

func (h *Host) refused(p string) error {
	n := h.stuck.Load()
	if n == 0 {
		return nil
	}
	if n >= maxStuck {
		return ErrBlocked
	}
	if err := h.rtnl.refuses(p); err != nil {
		return err
	}
	h.stuckMu.Lock()
	defer h.stuckMu.Unlock()
	if h.stuckDir[path.Dir(p)] >= maxPerDir {
		return ErrBlocked
	}
	return nil
}

// Read gives the bytes of a file.
func (h *Host) Read(p string) ([]byte, error) {
	a := h.Do(Op{ReadFile, p})
	return a.Data, a.Err
}

// Head gives the first [HeadBytes] bytes of a file that may be large, such as
// a boot image.
func (h *Host) Head(p string) ([]byte, error) {
	a := h.Do(Op{ReadHead, p})
	return a.Data, a.Err
}

// Text gives a file's text without surrounding white space and NUL bytes.
func (h *Host) Text(p string) (string, error) {
	b, err := h.Read(p)
	return strings.Trim(string(b), " \t\r\n\x00"), err
}

// Int gives the number in a one-number file, as the kernel prints it: decimal,
// or hexadecimal behind 0x.
func (h *Host) Int(p string) (int64, error) {
	s, err := h.Text(p)
	if err != nil {
		return 0, err
	}
	digits, hex := strings.CutPrefix(s, "0x")
	base := 10
	if hex {
		base = 16
	}
	n, err := strconv.ParseInt(digits, base, 64)
	if err != nil || strings.HasPrefix(digits, "+") || hex && digits[0] == '-' {
		return 0, &Error{"read", p, fmt.Errorf("not a number: %s", quoteShort(s))}
	}
	return n, nil
}

// List gives the sorted names in a directory.
func (h *Host) List(p string) ([]string, error) {
	a := h.Do(Op{ListDir, p})
	return a.Names, a.Err
}

// Link gives a symbolic link's target as it is stored.
func (h *Host) Link(p string) (string, error) {
	a := h.Do(Op{ReadLink, p})
	return a.Link, a.Err
}

// LinkBase gives the last element of a link's target: the name of a device's
// driver, for example.
func (h *Host) LinkBase(p string) (string, error) {
	t, err := h.Link(p)
	if err != nil {
		return "", err
	}
	return path.Base(t), nil
}

// Follow gives the path that p leads to when p itself is a link (one step, as
// sysfs needs), else p.
func (h *Host) Follow(p string) string {
	t, err := h.Link(p)
	switch {
	case err != nil:
		return p
	case path.IsAbs(t):
		return path.Clean(t)
	}
	return path.Join(path.Dir(p), t)
}

func quoteShort(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}

// Stats is what a run cost.
type Stats struct {
	Files, Dirs, Links, Queries int
	Bytes                       int64
}

// Stats counts the distinct sources asked so far.
func (h *Host) Stats() Stats {
	var s Stats
	for _, op := range h.Asked() {
		switch op.Kind {
		case ReadFile, ReadHead:
			s.Files++
		case ListDir:
			s.Dirs++
		case ReadLink:
			s.Links++
		}
	}
	h.queryMu.Lock()
	s.Queries = len(h.queries)
	h.queryMu.Unlock()
	s.Bytes = h.bytes.Load()
	return s
}

// Asked lists the operations performed so far, sorted by path.
func (h *Host) Asked() []Op {
	var ops []Op
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		for op := range s.m {
			ops = append(ops, op)
		}
		s.mu.Unlock()
	}
	slices.SortFunc(ops, func(a, b Op) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return int(a.Kind) - int(b.Kind)
	})
	return ops
}
