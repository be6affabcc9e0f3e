// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

const offloadScenario = "page migration by engines"

// fixOffload has what a site wants: engines copy, with three channels.
const fixOffload = "hostcheck fix --yes -f json migration.offload --set migration.offload=true"

// dcbmDir is where a posting has its control files.
func dcbmDir(rev int) string {
	switch rev {
	case 5:
		return "/sys/module/dcbm/"
	case 6:
		return "/sys/module/dcbm/parameters/"
	}
	return "/sys/kernel/dcbm/"
}

// TestOffload switches the copy offload on in the lab's fake postings: real
// memory moves between the guest's nodes, and its counter must rise. What is
// refused, ignored or not proven leaves all as it was.
func TestOffload(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	revs := []int{6}
	if !testing.Short() {
		ctx = limit(t, 30*time.Minute)
		revs = []int{6, 5, 4, 3, 2, 1}
	}
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "load fakedma", "insmod "+lab.ModulesDir+"/fakedma.ko channels=4 numa_node=0")
	for _, rev := range revs {
		if !t.Run(fmt.Sprintf("rev %d", rev), func(t *testing.T) { offload(t, ctx, g, rev) }) {
			return // what fails leaves the guest in a state that says nothing about the next
		}
	}
}

func offload(t *testing.T, ctx context.Context, g *lab.Guest, rev int) {
	began := time.Now()
	dir := dcbmDir(rev)
	load := fmt.Sprintf("insmod %s/dcbm.ko rev=%d", lab.ModulesDir, rev)
	fix := fixOffload
	if rev > 1 {
		fix += " --set migration.channels=3"
	}
	must(t, ctx, g, "load dcbm", load)
	state := func(step string) string {
		return must(t, ctx, g, step+": the control files", "cd "+dir+" && grep -s . offloading nr_dma_chan reason_mask; ls /etc/hostcheck/settings.d 2>/dev/null; true")
	}
	was := state("before")
	on := func(step string) {
		t.Helper()
		must(t, ctx, g, step, "grep -qx 1 "+dir+"offloading")
		if rev > 1 {
			must(t, ctx, g, step, "grep -qx 3 "+dir+"nr_dma_chan")
		}
	}
	mode := func(name, value string) {
		t.Helper()
		must(t, ctx, g, name+": "+value, fmt.Sprintf("echo %s > /sys/module/fakedma/parameters/%s", value, name))
	}
	undone := func(step, says string) {
		t.Helper()
		f := document[report.Fix](t, step, exits(t, ctx, g, step, 4, fix).Out)
		if f.Result.Outcome != plan.Restored || !strings.Contains(f.Result.Cause, says) {
			t.Errorf("step %q: %+v", step, f.Result)
		}
		if now := state(step); now != was {
			t.Errorf("step %q: it was\n%sand is\n%s", step, was, now)
		}
		idle(t, ctx, g, step+": status", 0)
	}
	tried := 0
	if rev >= 4 {
		mode("busy", "1")
		undone("another migrator", "device or resource busy")
		mode("busy", "0")
		tried++
	}
	for _, name := range []string{"offloading", "nr_dma_chan"} {
		if name == "nr_dma_chan" && rev == 1 {
			continue
		}
		mode(name, "lie")
		undone(name+" lies", "the write was ignored")
		mode(name, "normal")
		tried++
	}
	f := document[report.Fix](t, "fix", must(t, ctx, g, "fix", fix))
	if f.Result.Outcome != plan.Applied {
		t.Fatalf("fix: %+v", f.Result)
	}
	on("fix")
	if rev >= 4 {
		must(t, ctx, g, "engines copied", "test $(cat "+dir+"folios_migrated) -gt 0")
	}
	must(t, ctx, g, "judged", "hostcheck migration.offload migration.engine -f json --set migration.offload=true")

	// as after a boot: the module comes with what it has at first
	must(t, ctx, g, "the module goes and comes", "rmmod dcbm && "+load+" && grep -qx 0 "+dir+"offloading")
	must(t, ctx, g, "the unit", startUnit+" || { "+unitLog+" >&2; exit 1; }")
	on("set again")

	undoAll(t, ctx, g, "undo", 1)
	if now := state("undo"); now != was {
		t.Errorf("undo: it was\n%sand is\n%s", was, now)
	}
	must(t, ctx, g, "unload dcbm", "rmmod dcbm")
	count(offloadScenario, fmt.Sprintf("posting %d: refused, ignored, on, set again, undone", rev), tried+3, (tried+3)*allHeld(t), time.Since(began))
}
