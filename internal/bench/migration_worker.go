// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kinds of job.
const (
	jobMove = "move" // forth and back by move_pages
	jobCopy = "copy" // by a program
	jobHold = "hold" // only keep memory, for another program to move
)

// job is what one process measures: it is started for it, so that its memory
// is fresh, goes with it in any case, and nothing else in its address space
// slows the kernel down.
type job struct {
	Kind  string `json:"kind"`
	From  int    `json:"from"`
	To    int    `json:"to"`
	Folio int    `json:"folio"` // bytes
	Bytes int64  `json:"bytes"`
	CPUs  []int  `json:"cpus"` // a thread pinned to each, with its part of the memory
	Call  int    `json:"call"` // folios for each call; 0: all
	Warm  int    `json:"warm"` // runs before those that count
	Runs  int    `json:"runs"`
	First string `json:"first"` // how the first folio is watched, "" for not
	Watch int    `json:"watch"` // the CPU of the thread that reads, for a blackout
	Check bool   `json:"check"` // the content after each run, not only at the end
}

// answer is one line of the process.
type answer struct {
	Ready bool   `json:"ready,omitempty"` // of jobHold
	Run   *run   `json:"run,omitempty"`
	Error string `json:"error,omitempty"`
}

// run is one measurement.
type run struct {
	To      int       `json:"to"` // the node that memory came to
	Seconds float64   `json:"seconds"`
	First   []float64 `json:"first,omitempty"` // microseconds, of each batch
	Batch   int       `json:"batch,omitempty"` // the most folios in one batch of the kernel
	Warm    bool      `json:"warm,omitempty"`
	Discard string    `json:"discard,omitempty"` // why it does not count
}

// maxDiscards is how many runs of a job may fail before it is given up.
const maxDiscards = 3

// MigrationWorker is the process of one job: it reads the job from in and
// writes a line for each run.
func MigrationWorker(in io.Reader, out io.Writer) error {
	d := json.NewDecoder(io.LimitReader(in, 64<<10))
	d.DisallowUnknownFields()
	var j job
	if err := d.Decode(&j); err != nil {
		return fmt.Errorf("a worker of the benchmark needs a job on its input: %w", err)
	}
	gone := make(chan struct{})
	go func() { // the one who wants to know is gone when the input ends
		_, _ = io.Copy(io.Discard, in)
		close(gone)
	}()
	e := json.NewEncoder(out)
	tell := func(a answer) error {
		select {
		case <-gone:
			return io.ErrClosedPipe
		default:
			return e.Encode(a)
		}
	}
	var err error
	switch j.Kind {
	case jobMove:
		err = j.move(tell)
	case jobCopy:
		err = j.copy(tell)
	case jobHold:
		err = j.hold(tell, gone)
	default:
		err = fmt.Errorf("there is no job %q", j.Kind)
	}
	if err != nil {
		return tell(answer{Error: err.Error()})
	}
	return nil
}

// make gives the memory of a job on a node, proven.
func (j *job) make(node int) (*Folios, error) {
	dir := sizeDir(j.Folio)
	made, fell := thpCount(dir, "anon_fault_alloc"), thpCount(dir, "anon_fault_fallback")
	f, err := NewFolios(node, j.Folio, j.Bytes)
	if err != nil {
		return nil, err
	}
	if err = f.On(node, 0, f.N()); err == nil {
		if err = f.Prove(); err != nil && j.Folio > os.Getpagesize() {
			err = fmt.Errorf("%w; of that size the kernel made %d meanwhile, and took smaller ones %d times (enabled: %s)",
				err, thpCount(dir, "anon_fault_alloc")-made, thpCount(dir, "anon_fault_fallback")-fell, firstLine(live(), dir+"/enabled"))
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sizeDir is where the kernel has the knob and the counters of a size.
func sizeDir(folio int) string { return fmt.Sprintf("%s/hugepages-%dkB", thpDir, folio>>10) }

// thpCount is a counter of one size of huge pages, 0 where the kernel has none.
func thpCount(dir, name string) int64 {
	n, _ := strconv.ParseInt(firstLine(live(), dir+"/stats/"+name), 10, 64)
	return n
}

// move moves forth and back, time after time. A run that does not count has
// left folios behind or in pieces: the memory is made anew.
func (j *job) move(tell func(answer) error) (err error) {
	var points []tracepoint
	if j.First == FirstTracepoints {
		if points, err = tracepoints(live()); err != nil {
			return err
		}
	}
	var f *Folios
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	discards := 0
	discard := func(to int, err error) error {
		discards++
		if err := tell(answer{Run: &run{To: to, Discard: err.Error()}}); err != nil {
			return err
		}
		if discards >= maxDiscards || errors.Is(err, ErrNoFrames) || errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("given up after %d runs that do not count: %w", discards, err)
		}
		if f != nil {
			f.Close()
			f = nil
		}
		return nil
	}
	// Kernels such as 6.12 split a folio below 2M that was moved before: then each
	// way gets memory of its own.
	fresh := false
	dir := sizeDir(j.Folio)
	for n := -j.Warm; n < j.Runs; {
		done := true
		for _, way := range [][2]int{{j.From, j.To}, {j.To, j.From}} {
			to := way[1]
			if f == nil {
				if f, err = j.make(way[0]); err != nil {
					if err := discard(way[0], err); err != nil {
						return err
					}
					done = false
					break
				}
			}
			splits := thpCount(dir, "split")
			r, err := j.once(f, to, points)
			if err == nil && (j.Folio > os.Getpagesize() || n == j.Runs-1) { // a page cannot be split
				err = f.Prove()
			}
			if err == nil && (j.Check || n == j.Runs-1) {
				err = f.Intact()
			}
			if err != nil {
				if n := thpCount(dir, "split") - splits; n > 0 {
					fresh, err = true, fmt.Errorf("the kernel split %d folios that had been moved before; from here on each way has new memory", n)
				}
				if err := discard(to, err); err != nil {
					return err
				}
				done = false
				break
			}
			r.Warm = n < 0
			if err := tell(answer{Run: r}); err != nil {
				return err
			}
			if fresh {
				f.Close()
				f = nil
			}
		}
		if done {
			n++
		}
	}
	return nil
}

// once moves all memory one way.
func (j *job) once(f *Folios, to int, points []tracepoint) (r *run, err error) {
	splits := vmstat("thp_migration_split")
	ends := make([]time.Time, len(j.CPUs))
	fails := make([]error, len(j.CPUs))
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	r = &run{To: to}
	for k, cpu := range j.CPUs {
		i, end := f.N()*k/len(j.CPUs), f.N()*(k+1)/len(j.CPUs)
		if i == end {
			return nil, fmt.Errorf("%d folios are too few for %d threads", f.N(), len(j.CPUs))
		}
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // never unlocked: it stays pinned
			err := pin(cpu)
			f.aim(to, i, end)
			var w *watch
			if err == nil && k == 0 && points != nil {
				w, err = newWatch(points)
			}
			ready.Done()
			<-start
			if err != nil {
				fails[k] = err
				return
			}
			failed := f.call(i, end, j.Call)
			ends[k] = time.Now()
			fails[k] = f.moved(to, i, end, failed)
			if w == nil {
				return
			}
			list, err := w.stop()
			w.close()
			fails[k] = errors.Join(fails[k], err)
			for _, b := range batches(list, f.Size) {
				r.First = append(r.First, float64(b.first)/1e3)
				r.Batch = max(r.Batch, b.folios)
			}
		})
	}
	ready.Wait()
	var read sync.WaitGroup
	if j.First == FirstBlackout {
		end := make(chan struct{})
		reading := make(chan struct{})
		read.Go(func() {
			runtime.LockOSThread()
			if pin(j.Watch) != nil {
				close(reading)
				return
			}
			close(reading)
			if d, err := blackout(f.mem, end); err == nil {
				r.First = []float64{float64(d) / 1e3}
			}
		})
		<-reading
		defer read.Wait()
		defer close(end)
	}
	began := time.Now()
	close(start)
	done.Wait()
	r.Seconds = slices.MaxFunc(ends, time.Time.Compare).Sub(began).Seconds()
	if err := errors.Join(fails...); err != nil {
		return nil, err
	}
	if n := vmstat("thp_migration_split") - splits; n > 0 {
		return nil, fmt.Errorf("the kernel split %d folios to move them", n)
	}
	return r, nil
}

// vmstat is one counter of the kernel, 0 where it has none.
func vmstat(name string) int64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return n
		}
	}
	return 0
}

// copy has programs copy memory of one node to another: what migration could
// reach at best.
func (j *job) copy(tell func(answer) error) error {
	from, err := NewFolios(j.From, j.Folio, j.Bytes)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := NewFolios(j.To, j.Folio, j.Bytes)
	if err != nil {
		return err
	}
	defer to.Close()
	for n := -j.Warm; n < j.Runs; n++ {
		ends := make([]time.Time, len(j.CPUs))
		fails := make([]error, len(j.CPUs))
		var ready, done sync.WaitGroup
		start := make(chan struct{})
		for k, cpu := range j.CPUs {
			i, end := len(from.mem)/len(j.CPUs)*k, len(from.mem)/len(j.CPUs)*(k+1)
			ready.Add(1)
			done.Go(func() {
				runtime.LockOSThread()
				fails[k] = pin(cpu)
				ready.Done()
				<-start
				copy(to.mem[i:end], from.mem[i:end])
				ends[k] = time.Now()
			})
		}
		ready.Wait()
		began := time.Now()
		close(start)
		done.Wait()
		if err := errors.Join(fails...); err != nil {
			return err
		}
		seconds := slices.MaxFunc(ends, time.Time.Compare).Sub(began).Seconds()
		if err := tell(answer{Run: &run{To: j.To, Seconds: seconds, Warm: n < 0}}); err != nil {
			return err
		}
	}
	return nil
}

// hold keeps memory until nobody wants it any more.
func (j *job) hold(tell func(answer) error, gone <-chan struct{}) error {
	f, err := NewFolios(j.From, j.Folio, j.Bytes)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tell(answer{Ready: true}); err != nil {
		return err
	}
	<-gone
	return nil
}
