// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// The programs of numactl that move memory.
var toolDirs = []string{"/usr/bin/", "/bin/", "/usr/local/bin/"}

// MeasureTools has numactl's programs move as much between the first pair of
// nodes, where they are installed: figures to compare with.
func (b *MigrationBench) MeasureTools(ctx context.Context) error {
	if len(b.Steps) == 0 || len(b.Steps[0].jobs) == 0 {
		return nil
	}
	j := b.Steps[0].jobs[0].job
	for _, d := range directions([2]int{j.From, j.To}) {
		for _, t := range []struct {
			name string
			run  func(ctx context.Context, program string, from, to int, bytes int64) (MigrationTool, error)
		}{{"migspeed", b.migspeed}, {"migratepages", b.migratepages}} {
			program := ""
			for _, dir := range toolDirs {
				if _, err := os.Stat(dir + t.name); err == nil {
					program = dir + t.name
					break
				}
			}
			if program == "" {
				continue
			}
			b.progress("%s from node %d to %d", t.name, d[0], d[1])
			r, err := t.run(ctx, program, d[0], d[1], j.Bytes)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				b.skip("%s from node %d to %d: %v", t.name, d[0], d[1], err)
				continue
			}
			r.Name, r.From, r.To = t.name, d[0], d[1]
			b.result.Tools = append(b.result.Tools, r)
		}
	}
	return nil
}

// migspeed moves memory of its own with mbind, and says how fast.
func (b *MigrationBench) migspeed(ctx context.Context, program string, from, to int, size int64) (r MigrationTool, err error) {
	pages := size / int64(os.Getpagesize())
	out, err := tool(ctx, program, "-p", strconv.FormatInt(pages, 10), strconv.Itoa(from), strconv.Itoa(to))
	if err != nil {
		return r, err
	}
	if r.GBps, err = parseMigspeed(out); err != nil {
		return r, err
	}
	r.Note = fmt.Sprintf("what it says of one mbind of %d MiB; the size of its folios is what the host makes of them", size>>20)
	return r, nil
}

var migspeedLine = pattern.Late(`(?m)^([0-9]+\.[0-9]+) Mbyte migrated in ([0-9]+\.[0-9]+) secs\. ([0-9]+\.[0-9]+) Mbytes/second$`)

// parseMigspeed reads "256.0 Mbyte migrated in 0.12 secs. 2133.3
// Mbytes/second"; its megabytes have 2^20 bytes (migspeed.c).
func parseMigspeed(out []byte) (gbps float64, err error) {
	m := migspeedLine().FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("it says nothing of a speed: %.80q", bytes.TrimSpace(out))
	}
	v, err := strconv.ParseFloat(string(m[3]), 64)
	if err != nil {
		return 0, fmt.Errorf("it says %.40q", m[3])
	}
	return v * (1 << 20) / 1e9, nil
}

// migratepages moves all memory of a process: of one that holds as much. How
// long it takes is measured from outside, its start included.
func (b *MigrationBench) migratepages(ctx context.Context, program string, from, to int, size int64) (r MigrationTool, err error) {
	page := os.Getpagesize()
	err = child(ctx, b.o.Self, job{Kind: jobHold, From: from, To: to, Folio: page, Bytes: size}, func(pid int, a answer, end func()) error {
		if !a.Ready {
			return nil
		}
		defer end()
		start := time.Now()
		if _, err := tool(ctx, program, strconv.Itoa(pid), strconv.Itoa(from), strconv.Itoa(to)); err != nil {
			return err
		}
		r.GBps = float64(size) / 1e9 / time.Since(start).Seconds()
		return nil
	})
	r.Note = fmt.Sprintf("from its start to its end, for a process with %d MiB in pages of %s", size>>20, sizeName(page>>10))
	return r, err
}

// tool runs one of them to its end, at most a minute.
func tool(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	runtime.LockOSThread() // as in [child]
	defer runtime.UnlockOSThread()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %.200s", err, bytes.TrimSpace(out))
	}
	return out, nil
}
