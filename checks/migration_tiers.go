// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var migrationTiers = &check.Check{
	ID: "migration.tiers", Title: "Pages move between memory tiers in both directions", Severity: check.Medium, FixTier: plan.Safe, Tune: migrationTune,
	Doc: `A host with slower memory beside its DRAM (CXL, persistent memory) has several tiers: /sys/devices/virtual/memory_tiering/memory_tierN,
the lower N the faster; plain DRAM is 4. Two switches make the kernel use them as such, and one without the other is of little use:

  demotion   /sys/kernel/mm/numa/demotion_enabled: reclaim moves cold pages down instead of dropping or swapping them. Default false
  promotion  kernel.numa_balancing with bit 2 (2, or 3 with the normal balancing): pages that are used below move up. Without
             it, what was demoted stays below however hot it becomes

Wanted is "demotion" of the profile's migration; the role page-migration wants it. On a host with one tier neither does anything: skipped.
A profile that wants numa_balancing off as well (system.numa_balancing) keeps promotion from being offered as a fix.

By hand:

    grep . /sys/devices/virtual/memory_tiering/memory_tier*/nodelist
    echo true > /sys/kernel/mm/numa/demotion_enabled
    sysctl -w kernel.numa_balancing=2
    grep -E 'pgdemote|pgpromote' /proc/vmstat              # do they grow?

kernel.numa_balancing_promote_rate_limit_MBps caps what moves up on each node. Before Linux 6.18 or so demotion did not mind
cpuset.mems of the memory's owner: pages of a job that is bound to DRAM nodes could still end on the slow ones.`,
	Refs: []string{demotionABI, "https://docs.kernel.org/admin-guide/sysctl/kernel.html", "mm/memory-tiers.c"},
	Run:  runMigrationTiers,
}

func runMigrationTiers(_ context.Context, r *check.Run) error {
	m, want, numa := r.Facts.Migration(), r.Profile.Migration.Demotion, r.Facts.NUMA()
	skip := func(status check.Status, why string) error {
		r.Report(check.Finding{Status: status, Why: why})
		return nil
	}
	switch {
	case !want.Set:
		return skip(check.Skip, "the profile does not say whether pages are to move between tiers")
	case len(numa.Nodes) == 1:
		return skip(check.Skip, "there is one NUMA node, so one tier")
	case m.Tiers == nil:
		return skip(check.Unknown, m.Unknown["tiers"])
	case len(m.Tiers) < 2:
		return skip(check.Skip, "all memory is of one tier")
	}
	var tiers []string
	for _, t := range m.Tiers {
		tiers = append(tiers, fmt.Sprintf("tier %d: nodes %s", t.Tier, t.Nodes))
	}
	evidence := check.Evidence{Source: "/sys/devices/virtual/memory_tiering", Value: strings.Join(tiers, ", ")}

	f := check.Finding{Subject: "demotion", Want: fmt.Sprint(want.V), Source: want.Origin.String()}
	if m.Demotion == nil {
		f.Status, f.Why = check.Unknown, m.Unknown["demotion"]
	} else {
		got := fmt.Sprint(*m.Demotion)
		f.Status, f.Got = check.Pass, got
		f.Evidence = []check.Evidence{{Source: facts.DemotionPath, Value: got}, evidence}
		if *m.Demotion != want.V {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = reason(want.Origin, "cold pages stay, or move, against what the profile counts on")
			f.Next = fmt.Sprintf("echo %v > %s, by a unit at boot", want.V, facts.DemotionPath)
			f.Fix = offer(want.Origin, wishFile(facts.DemotionPath, got, f.Want, f.Why))
		}
	}
	r.Report(f)

	f = check.Finding{Subject: "promotion", Want: "bit 2 of kernel.numa_balancing", Source: want.Origin.String()}
	switch {
	case !want.V:
		f.Status, f.Why = check.Skip, "the profile wants no pages demoted, so none has to come back"
	case m.NUMABalancing == nil:
		f.Status, f.Why = check.Unknown, m.Unknown["numa_balancing"]
	default:
		f.Status, f.Got = check.Pass, fmt.Sprint(*m.NUMABalancing)
		f.Evidence = []check.Evidence{{Source: facts.NUMABalancingPath, Value: f.Got}, evidence}
		if *m.NUMABalancing&2 == 0 {
			to := fmt.Sprint(*m.NUMABalancing | 2)
			f.Status, f.Why = atMostWarn(check.Fail, want.Origin), "what was demoted stays on slow memory, however much it is used"
			f.Next = "sysctl -w kernel.numa_balancing=" + to
			if off := r.Profile.System.NUMABalancing; off.Set && !off.V {
				f.Status = check.Warn
				f.Next = "decide: the profile wants kernel.numa_balancing off (" + off.Origin.String() + "), and promotion needs " + to
			} else {
				f.Fix = sysctlWish(want.Origin, "kernel.numa_balancing", f.Got, to, f.Why)
			}
		}
	}
	r.Report(f)
	return nil
}

var migrationTHP = &check.Check{
	ID: "migration.thp", Title: "Programs that ask for 2M pages get them, so that memory moves in large folios", Severity: check.Low, FixTier: plan.Safe, Tune: migrationTune,
	Doc: `Memory migrates in the pieces that it was given in. On a published host 2M folios move at 11 GB/s by the CPU and 65 GB/s by
engines, 4K pages at 3.3 and 3.5: what the pages are decides more than anything else. Since Linux 6.8 each size of transparent huge
pages has a switch of its own, in hugepages-<size>kB/enabled below /sys/kernel/mm/transparent_hugepage, next to the one for all
("enabled", see system.thp):

  inherit   the switch for all counts; the kernel's default for the size of a PMD (2M with 4K pages)
  always, madvise, never   of this size alone, whatever the switch for all says

So never there, or inherit below "enabled: never", means 4K pages. A benchmark that forces smaller folios sets it to never and may
have been killed before it put it back. Wanted is "huge_folios" of the profile's migration; the role page-migration sets it.

By hand:

    grep . /sys/kernel/mm/transparent_hugepage/{enabled,hugepages-*/enabled}
    echo inherit > /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled
    grep . /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/{anon_fault_alloc,anon_fault_fallback,split}

Smaller sizes (16K to 1M) are never by default, and hold nothing back. On a kernel with pages of 64K the size of a PMD is 512M, and
nobody wants folios that large to move: skipped.`,
	Refs: []string{thpDoc, offloadMail},
	Run:  runMigrationTHP,
}

const hugeFolioKB = 2048

func runMigrationTHP(_ context.Context, r *check.Run) error {
	m, want, k := r.Facts.Migration(), r.Profile.Migration.HugeFolios, r.Facts.Kernel()
	skip := func(status check.Status, why string) error {
		r.Report(check.Finding{Status: status, Why: why})
		return nil
	}
	switch {
	case !want.Set || !want.V:
		return skip(check.Skip, "the profile does not want memory to move in large folios")
	case k.PageSize == nil:
		return skip(check.Unknown, k.Unknown["page_size"])
	case *k.PageSize != 4096:
		return skip(check.Skip, fmt.Sprintf("with pages of %dK a PMD maps more than 2M", *k.PageSize>>10))
	case m.THPSizes == nil:
		return skip(check.Unknown, m.Unknown["thp_sizes"])
	}
	p := facts.THPSizePath(hugeFolioKB)
	for _, s := range m.THPSizes {
		if s.SizeKB != hugeFolioKB {
			continue
		}
		if s.Enabled == nil {
			return skip(check.Unknown, s.Unknown["enabled"])
		}
		f := check.Finding{Subject: "2M", Status: check.Pass, Want: "inherit, madvise or always", Got: *s.Enabled, Source: want.Origin.String()}
		f.Evidence = []check.Evidence{{Source: p, Value: *s.Enabled}}
		for _, name := range []string{"anon_fault_alloc", "anon_fault_fallback", "split"} {
			if n, ok := s.Stats[name]; ok {
				f.Evidence = append(f.Evidence, check.Evidence{Source: strings.TrimSuffix(p, "enabled") + "stats/" + name, Value: fmt.Sprint(n)})
			}
		}
		if *s.Enabled == "never" {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = reason(want.Origin, "memory is given, and moves, in smaller pieces")
			f.Next = "echo inherit > " + p
			f.Fix = offer(want.Origin, wishFile(p, "never", "inherit", "programs that ask for 2M pages get them again"))
		}
		r.Report(f)
		return nil
	}
	return skip(check.Skip, "this kernel has no switch for each size; system.thp has the one for all")
}
