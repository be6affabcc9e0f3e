// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/densefleet"
)

// perStatus is the least that somebody counts in reports, in jq: findings by
// check and status. It keeps no report.
const perStatus = `reduce (inputs | .findings[]) as $f ({}; .[$f.check][$f.status] += 1)`

// fleetOf is one measured fleet.
type fleetOf struct {
	hosts       int
	bytes       int64
	merge, plan cost
}

// sizes reads the sizes of fleets: "1000,10000".
func sizes(s string) (all []int, err error) {
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 1_000_000 {
			return nil, fmt.Errorf("-fleets %q: numbers of hosts, with commas between them", s)
		}
		all = append(all, n)
	}
	return all, nil
}

// fleet measures what many reports of 60 checks each cost to merge and to plan
// from, beside jq counting in the same file. It lies on a disk, for the largest
// is of several GB, and has just been written.
func (b *bench) fleet() error {
	if len(b.fleets) == 0 {
		return nil
	}
	fmt.Fprintln(b.out, "\nreports of a fleet, 60 checks each\ttime\tof a file\thosts a second\tof a CPU second\tpeak memory\tgoal")
	jq, missing := exec.LookPath("jq")
	var all []fleetOf
	for _, n := range b.fleets {
		f, err := b.fleetOf(n, jq)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	if missing != nil {
		fmt.Fprintln(b.out, "not compared: jq is not installed")
	}
	if len(all) < 2 {
		return nil
	}
	fmt.Fprintln(b.out, "\ngrowth with the number of hosts, as its power\tmerge, time\tmerge, memory\tplan, time\tplan, memory\tgoal")
	for i := 1; i < len(all); i++ {
		x, y := all[i-1], all[i]
		power := func(before, after float64) float64 {
			return math.Log(after/before) / math.Log(float64(y.hosts)/float64(x.hosts))
		}
		fmt.Fprintf(b.out, "  %d to %d hosts\t%.2f\t%.2f\t%.2f\t%.2f\ttime ≤ 1.1\n", x.hosts, y.hosts,
			power(float64(x.merge.Wall), float64(y.merge.Wall)), power(float64(x.merge.PeakKB), float64(y.merge.PeakKB)),
			power(float64(x.plan.Wall), float64(y.plan.Wall)), power(float64(x.plan.PeakKB), float64(y.plan.PeakKB)))
	}
	return nil
}

func (b *bench) fleetOf(hosts int, jq string) (fleetOf, error) {
	f := fleetOf{hosts: hosts}
	dir, err := os.MkdirTemp("", "hostcheck-bench-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "fleet.jsonl")
	if f.bytes, err = writeFleet(name, hosts); err != nil {
		return f, err
	}
	rounds := max(1, min(b.rounds, 5, 20_000/hosts)) // the largest takes its time
	var merge, plan, count costs
	for range rounds {
		m, err := b.spawn([]string{b.hostcheck, "fleet", "merge", name, "-o", "/dev/null"})
		if err != nil {
			return f, err
		}
		p, err := b.spawn([]string{b.hostcheck, "fleet", "plan", name, "--max-hosts", "10", "--max-fraction", "5%", "-f", "json", "-o", "/dev/null"})
		if err != nil {
			return f, err
		}
		merge, plan = append(merge, m.cost), append(plan, p.cost)
		if jq != "" {
			c, err := b.spawn([]string{jq, "-n", perStatus, name})
			if err != nil {
				return f, err
			}
			count = append(count, c.cost)
		}
	}
	f.merge, f.plan = merge.median(), plan.median()
	fmt.Fprintf(b.out, "%d hosts: %.1f MB, %d bytes a line, medians of %d\t\t\t\t\t\t\n", hosts, float64(f.bytes)/1e6, f.bytes/int64(hosts), rounds)
	row := func(what string, c cost, goal string) {
		// a clock that is too coarse is no division by zero
		wall, cpu := cmp.Or(c.Wall, time.Microsecond).Seconds(), cmp.Or(c.CPU, time.Microsecond).Seconds()
		fmt.Fprintf(b.out, "  %s\t%s\t%.0f MB/s\t%.0f\t%.0f MB\t%.1f MiB\t%s\n", what, ms(c.Wall), float64(f.bytes)/1e6/wall,
			float64(hosts)/wall, float64(f.bytes)/1e6/cpu, float64(c.PeakKB)/1024, goal)
	}
	row("hostcheck fleet merge", f.merge, "≥ 100 MB of a CPU second, ≤ 256 MiB")
	row("hostcheck fleet plan", f.plan, "≤ 256 MiB")
	if jq != "" {
		c := count.median()
		row("jq, findings by check and status", c, "")
		fmt.Fprintf(b.out, "  merge is so many times as fast as jq\t%.1f\tby CPU time\t%.1f\t\t\t≥ 5\n",
			float64(c.Wall)/float64(max(f.merge.Wall, 1)), float64(c.CPU)/float64(max(f.merge.CPU, 1)))
	}
	return f, nil
}

func writeFleet(name string, hosts int) (int64, error) {
	m, err := densefleet.New(densefleet.Usual(hosts))
	if err != nil {
		return 0, err
	}
	file, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	n, err := m.Write(file)
	if err != nil {
		_ = file.Close()
		return n, err
	}
	return n, file.Close()
}
