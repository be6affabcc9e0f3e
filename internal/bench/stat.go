// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
)

// ticks is where a CPU's time went, in ticks of the kernel (USER_HZ) since
// boot.
type ticks struct {
	user, system, softirq, irq, idle, steal uint64
}

func (t ticks) total() uint64 { return t.user + t.system + t.softirq + t.irq + t.idle + t.steal }

// cpuTimes reads /proc/stat, which is the same in every network namespace.
func cpuTimes() (map[int]ticks, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, fmt.Errorf("cannot tell where the CPUs' time goes: %w", err)
	}
	return parseStat(b), nil
}

// parseStat reads the lines "cpuN user nice system idle iowait irq softirq
// steal …" (proc_stat(5)).
func parseStat(b []byte) map[int]ticks {
	times := map[int]ticks{}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 9 || !bytes.HasPrefix(f[0], []byte("cpu")) {
			continue
		}
		cpu, err := strconv.ParseUint(string(f[0][3:]), 10, 16)
		if err != nil {
			continue // the sum of all
		}
		var n [8]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(string(f[i+1]), 10, 63); err != nil {
				break
			}
		}
		if err == nil {
			times[int(cpu)] = ticks{user: n[0] + n[1], system: n[2], idle: n[3] + n[4], irq: n[5], softirq: n[6], steal: n[7]}
		}
	}
	return times
}

// Core is where the time of one CPU went during a run; percent.
type Core struct {
	CPU     int     `json:"cpu"`
	Busy    float64 `json:"busy"` // all but idle
	SoftIRQ float64 `json:"softirq"`
	System  float64 `json:"system"`
	User    float64 `json:"user"`
	Steal   float64 `json:"steal"` // taken by the hypervisor
}

// cores compares two readings. A CPU that came or went between them, or whose
// counters stood still, is left out.
func cores(before, after map[int]ticks) []Core {
	list := []Core{}
	for _, cpu := range slices.Sorted(maps.Keys(after)) {
		a, ok := before[cpu]
		b := after[cpu]
		if !ok || b.total() <= a.total() {
			continue
		}
		all := float64(b.total() - a.total())
		share := func(from, to uint64) float64 {
			if to <= from { // idle may run backwards a little
				return 0
			}
			return min(100, 100*float64(to-from)/all)
		}
		c := Core{CPU: cpu, SoftIRQ: share(a.softirq, b.softirq), System: share(a.system, b.system), User: share(a.user, b.user), Steal: share(a.steal, b.steal)}
		c.Busy = 100 - share(a.idle, b.idle)
		list = append(list, c)
	}
	return list
}

// busyNanoseconds is the time that all CPUs together were busy.
func busyNanoseconds(list []Core, seconds float64) (ns float64) {
	for _, c := range list {
		ns += c.Busy / 100 * seconds * 1e9
	}
	return ns
}
