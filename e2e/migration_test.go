// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

const benchScenario = "measuring page migration"

// benchKnobs are what a measurement borrows.
const benchKnobs = "cd /sys/kernel/mm && grep . transparent_hugepage/enabled transparent_hugepage/hugepages-*/enabled ksm/run /proc/sys/kernel/numa_balancing"

// benchBegun waits until the measurement in the background has borrowed.
const benchBegun = "for i in $(seq 300); do grep -qx 0 /proc/sys/kernel/numa_balancing && grep -q '\\[never\\]' /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled && exit; sleep 0.1; done; cat /run/bench.err >&2; exit 1"

// TestBenchMigration moves memory between the three nodes of the guest, in
// folios of every size, and is stopped in every way: what it borrowed is put
// back by itself, or by whoever comes next.
func TestBenchMigration(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	nodes := 2
	size, folios, runs, more := "4M", []int{4, 2048}, 2, " --pair 0:1 --threads 1" // each process takes a second or so in QEMU
	if !testing.Short() {
		ctx = limit(t, 40*time.Minute)
		nodes = 3
		size, folios, runs, more = "64M", bench.DefaultFolios, 3, " --threads 2"
	}
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "what will be borrowed", "echo 1 > /sys/kernel/mm/ksm/run; sysctl -qw kernel.numa_balancing=1")
	was := borrowed(t, ctx, g, "before")

	began := time.Now()
	if r := exits(t, ctx, g, "without consent", 2, "hostcheck bench migration --size "+size+" </dev/null"); !strings.Contains(r.Err, "kernel.numa_balancing: 1 -> 0") || !strings.Contains(r.Err, "--yes begins without asking") {
		t.Errorf("it says: %s", r.Err)
	}
	var names []string
	for _, kb := range folios {
		names = append(names, fmt.Sprintf("%dK", kb)) // as in the flag
	}
	command := fmt.Sprintf("hostcheck bench migration --yes --size %s --folio %s --runs %d%s", size, strings.Join(names, ","), runs, more)
	m := document[bench.Migration](t, "measure", must(t, ctx, g, "measure", command+" -q -f json --html /run/bench.html --plot /run/bench.svg"))
	measured(t, &m, folios, runs, nodes)
	t.Logf("\n%s", m.Text())
	must(t, ctx, g, "the page", "grep -q '<svg' /run/bench.html && grep -q '<svg' /run/bench.svg")
	same(t, "measure", was, borrowed(t, ctx, g, "measured"))
	if x := latest(t, ctx, g, "measure"); x.State != plan.WasReturned {
		t.Errorf("the history begins with %s, which is %s", x.ID, x.State)
	}
	idle(t, ctx, g, "measured: status", 0)
	count(benchScenario, "measured, and put back", 1, allHeld(t), time.Since(began))

	background := strings.Replace(command, "--runs "+fmt.Sprint(runs), "--runs 200", 1) + " >/run/bench.out 2>/run/bench.err & echo $! >/run/bench.pid"
	background = strings.NewReplacer(" 4K,16K,", " 16K,", " 4K,2048K", " 16K,2048K").Replace(background) // for 4K nothing is borrowed
	for signal, code := range map[string]int{"INT": 130, "TERM": 143} {
		began := time.Now()
		must(t, ctx, g, signal, fmt.Sprintf("sh -c '%s; wait $!; echo $? >/run/bench.code' </dev/null >/dev/null 2>&1 &\n%s", background, benchBegun))
		must(t, ctx, g, signal, fmt.Sprintf("kill -%s $(cat /run/bench.pid); for i in $(seq 300); do grep -qx %d /run/bench.code && exit; sleep 0.1; done; cat /run/bench.code /run/bench.err >&2; exit 1", signal, code))
		must(t, ctx, g, signal, "rm /run/bench.code; ! pgrep -f '[b]ench worker'")
		same(t, signal, was, borrowed(t, ctx, g, signal))
		idle(t, ctx, g, signal+": status", 0)
		count(benchScenario, "interrupted, and put back by itself", 1, allHeld(t), time.Since(began))
	}
	for who, next := range map[string]string{
		"the next measurement": command + " -q",
		"a fix":                "hostcheck fix --yes sysctl; [ $? -lt 4 ] && hostcheck undo --all; true",
		"undo":                 "hostcheck undo",
	} {
		if testing.Short() && who != "undo" {
			continue
		}
		began := time.Now()
		must(t, ctx, g, who, fmt.Sprintf("(%s) </dev/null\n%s", background, benchBegun))
		must(t, ctx, g, who+": killed", "kill -9 $(cat /run/bench.pid); for i in $(seq 100); do pgrep -f '[b]ench worker' || exit 0; sleep 0.1; done; exit 1")
		if now := borrowed(t, ctx, g, who); len(difference(was, now)) == 0 {
			t.Errorf("step %q: killed, and all is as before", who)
		}
		s := document[report.Status](t, who, exits(t, ctx, g, who+": status", 1, "hostcheck status -f json").Out)
		if len(s.Pending) != 1 || len(s.Pending[0].Settings) < 3 {
			t.Errorf("step %q: status shows %+v", who, s.Pending)
		}
		must(t, ctx, g, who, next)
		same(t, who, was, borrowed(t, ctx, g, who))
		idle(t, ctx, g, who+": status then", 0)
		count(benchScenario, "killed, and put back by "+who, 1, allHeld(t), time.Since(began))
	}
}

// borrowed is how they stand.
func borrowed(t *testing.T, ctx context.Context, g *lab.Guest, step string) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(must(t, ctx, g, step+": what is borrowed", benchKnobs)), "\n")
}

// measured wants figures of every size for every pair of the first nodes, both
// ways.
func measured(t *testing.T, m *bench.Migration, folios []int, runs, nodes int) {
	t.Helper()
	for from := range nodes {
		for to := range nodes {
			for _, kb := range folios {
				if from == to {
					continue
				}
				n := 0
				for _, r := range m.Rows {
					if r.From == from && r.To == to && r.FolioKB == kb && r.Workers == 1 && r.CallFolio == 0 {
						n++
						if r.GBps <= 0 || r.Runs != runs || r.FirstUS == nil || *r.FirstUS <= 0 || r.FirstBy != bench.FirstTracepoints {
							t.Errorf("%+v", r)
						}
					}
				}
				if n != 1 {
					t.Errorf("%d rows from %d to %d with folios of %d KiB", n, from, to, kb)
				}
			}
		}
	}
	tools := map[string]int{}
	for _, x := range m.Tools {
		if tools[x.Name]++; x.GBps <= 0 {
			t.Errorf("%+v", x)
		}
	}
	other := slices.DeleteFunc(slices.Clone(m.Discarded), func(d bench.MigrationDiscard) bool { // as this kernel does below 2M
		return d.FolioKB > 4 && d.FolioKB < 2048 && strings.Contains(d.Why, "that had been moved before")
	})
	if tools["migspeed"] != 2 || tools["migratepages"] != 2 || m.Host.BatchPages != 512 || len(m.Copies) < nodes || len(other) > 0 || m.Conditions.NUMABalancing != "0" {
		t.Errorf("tools %v, batch %d, %d copies, discarded %+v, %+v; not measured: %q", tools, m.Host.BatchPages, len(m.Copies), m.Discarded, m.Conditions, m.Skipped)
	}
}
