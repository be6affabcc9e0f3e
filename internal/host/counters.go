// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/safchain/ethtool"
)

// Counters is what the counters of one object held at two moments; empty for
// an object that has none.
type Counters struct {
	Seconds float64           `json:"seconds"` // from one to the other
	First   map[string]uint64 `json:"first"`
	Last    map[string]uint64 `json:"last"`
}

// Grown is by how much a counter grew; false where it is not in both samples,
// or was set back between them.
func (c *Counters) Grown(name string) (uint64, bool) {
	a, inFirst := c.First[name]
	b, inLast := c.Last[name]
	return b - a, inFirst && inLast && b >= a
}

// CounterSource is an object with counters. Dirs, File or Interface are given; File
// and Pools may stand beside Dirs.
type CounterSource struct {
	Name      string   // "rdma mlx5_0/1", "ethtool eth0"; its two samples are recorded as "counters " + Name
	Dirs      []string // directories of files with one number each
	File      string   // that Parse reads
	Parse     func(text string) (map[string]uint64, error)
	Interface string                 // that is asked for its statistics (ETHTOOL_GSTATS)
	Keep      func(name string) bool // which of its statistics, or files of Dirs; there may be thousands
	Pools     string                 // an interface whose page pools are counted, too: "pool_alloc_fast", …
}

// path is one of the source's files or directories, "" where it has none.
func (s CounterSource) path() string {
	if len(s.Dirs) > 0 {
		return s.Dirs[0]
	}
	return s.File
}

// ErrNotSampled is the answer for counters that nobody sampled.
var ErrNotSampled = errors.New("not sampled")

// SampleCounters reads the counters of all sources, waits, and reads them
// again; [Host.Counters] then gives them. A tree's are those that were
// recorded: only where its files are the running kernel's own are they read,
// and those of interfaces never. When ctx ends first nothing is known.
func (h *Host) SampleCounters(ctx context.Context, interval time.Duration, sources []CounterSource) {
	var live []CounterSource
	for _, s := range sources {
		if p := s.path(); h.live || p != "" && h.capture == nil && h.onKernelFS(p) {
			live = append(live, s)
		}
	}
	if len(live) == 0 {
		return
	}
	start := time.Now()
	first := h.readCounters(live)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		for _, s := range live {
			h.sampled(s, Counters{}, context.Cause(ctx))
		}
		return
	}
	seconds := time.Since(start).Round(time.Millisecond).Seconds()
	last := h.readCounters(live)
	for i, s := range live {
		err := errors.Join(first[i].err, last[i].err)
		if first[i].err != nil {
			err = first[i].err
		}
		h.sampled(s, Counters{seconds, first[i].n, last[i].n}, err)
	}
}

// Counters gives the two samples of an object, by the name of its source.
func (h *Host) Counters(name string) (Counters, error) {
	return Ask(h, countersKey(name), func() (Counters, error) { return Counters{}, ErrNotSampled })
}

func countersKey(name string) string { return "counters " + name }

// sampled keeps the samples of a source as the answer to a query.
func (h *Host) sampled(s CounterSource, c Counters, err error) {
	q := &query{done: make(chan struct{}), answer: c}
	if err != nil {
		q.answer, q.err = Counters{}, &Error{"query", countersKey(s.Name), err}
	}
	close(q.done)
	h.queryMu.Lock()
	defer h.queryMu.Unlock()
	h.queries[countersKey(s.Name)] = q
}

type counterReading struct {
	n   map[string]uint64
	err error
}

// readCounters reads all sources once. What is read is not remembered, for it
// is read again; the deadlines hold.
func (h *Host) readCounters(sources []CounterSource) []counterReading {
	out := make([]counterReading, len(sources))
	pools := make([]counterReading, len(sources))
	var jobs []job
	var questions []func()
	type place struct{ source, job int }
	names := map[place]string{}
	for i, s := range sources {
		out[i].n = map[string]uint64{}
		for _, dir := range s.Dirs {
			files, err := h.List(dir)
			if err != nil {
				if !Absent(err) {
					out[i].err = err
				}
				continue
			}
			for _, f := range files {
				if s.Keep != nil && !s.Keep(f) {
					continue
				}
				names[place{i, len(jobs)}] = f
				jobs = append(jobs, job{Op{ReadFile, dir + "/" + f}, new(entry)})
			}
		}
		if s.Pools != "" {
			questions = append(questions, func() {
				stats, err := h.readPoolStats(s.Pools)
				pools[i] = counterReading{stats, err}
			})
		}
		if s.File != "" {
			names[place{i, len(jobs)}] = "" // no file of Dirs
			jobs = append(jobs, job{Op{ReadFile, s.File}, new(entry)})
		}
		if s.Interface != "" {
			questions = append(questions, func() { out[i].n, out[i].err = h.readStatistics(s) })
		}
	}
	if len(jobs) > 0 {
		h.run(jobs)
	}
	for at, name := range names {
		a := jobs[at.job].e.get()
		if name == "" {
			n, err := map[string]uint64(nil), a.Err
			if err == nil {
				n, err = sources[at.source].Parse(string(a.Data))
			}
			maps.Copy(out[at.source].n, n)
			out[at.source].err = cmp.Or(out[at.source].err, err)
			continue
		}
		// a driver may refuse one of its counters, and "lifespan" is none
		if n, err := strconv.ParseUint(strings.TrimSpace(string(a.Data)), 10, 64); a.Err == nil && err == nil && name != "lifespan" {
			out[at.source].n[name] = n
		}
	}
	Together(questions)
	for i, p := range pools { // a kernel without these statistics still has the rest
		maps.Copy(out[i].n, p.n)
		if p.err != nil && !NotOffered(p.err) && !errors.Is(p.err, syscall.ENOENT) {
			out[i].err = p.err
		}
	}
	return out
}

func (h *Host) readStatistics(s CounterSource) (map[string]uint64, error) {
	all, err := answer(h, "ethtool "+s.Interface+" stats", func() (map[string]uint64, error) {
		return Ethtool(func(e *ethtool.Ethtool) (map[string]uint64, error) { return e.Stats(s.Interface) })
	})
	if err != nil {
		return nil, err
	}
	kept := map[string]uint64{}
	for name, n := range all {
		if s.Keep == nil || s.Keep(name) {
			kept[name] = n
		}
	}
	return kept, nil
}
