// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what one run took.
type cost struct {
	Wall   time.Duration
	CPU    time.Duration // of all threads, in user and kernel mode
	PeakKB int64         // largest resident set of a process
}

type costs []cost

// median is the median of each part for itself; of memory, the largest.
func (c costs) median() cost {
	middle := func(part func(cost) time.Duration) time.Duration {
		d := make([]time.Duration, len(c))
		for i := range c {
			d[i] = part(c[i])
		}
		slices.Sort(d)
		return d[len(d)/2]
	}
	m := cost{Wall: middle(func(c cost) time.Duration { return c.Wall }), CPU: middle(func(c cost) time.Duration { return c.CPU })}
	for _, c := range c {
		m.PeakKB = max(m.PeakKB, c.PeakKB)
	}
	return m
}

// measure takes what f costs in this process, without the garbage of what ran
// before it.
func measure(f func() error) (cost, error) {
	runtime.GC()
	before, start := cpuTime(), time.Now()
	err := f()
	return cost{Wall: time.Since(start), CPU: cpuTime() - before}, err
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakKB is the largest resident set of a process that has ended.
func peakKB(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss
	}
	return 0
}
