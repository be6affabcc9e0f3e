// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var migrationChecks = []*check.Check{migrationOffload, migrationEngine, migrationCounters, migrationTiers, migrationTHP}

const (
	offloadMail = "linux-mm, RFC v1 to v6 of \"Accelerate page migration with batch copying and hardware offload\""
	dmaClassABI = "Documentation/ABI/testing/sysfs-class-dma"
	demotionABI = "Documentation/ABI/testing/sysfs-kernel-mm-numa"
)

// migrationTune is the module of tune that the checks are paired with.
const migrationTune = "migration"

var migrationOffload = &check.Check{
	ID: "migration.offload", Title: "Page migration is copied by engines only where that is wanted and safe", Severity: check.Medium, FixTier: plan.Safe, Tune: migrationTune,
	Doc: `When memory migrates between NUMA nodes or tiers the CPU copies it, page by page. Patches that no released kernel has ("dcbm", RFC v1 of
2024 to v6 of 2026) let DMA engines copy instead. Their control files are not there on a normal kernel, and that is a pass.

Where they are, the check finds the posting by its files, the newest first: /sys/module/dcbm/parameters, /sys/module/dcbm,
/sys/kernel/dcbm. Wanted is "offload" of the profile's migration, with "engine", "channels" and "reasons"; no profile that comes with
hostcheck sets it, since it helps on some hosts and folio sizes and costs on others: measure first (hostcheck bench migration,
then hostcheck tune plan migration). Without a wanted value both on and off pass.

A failure in any case: it is on, and an engine may be taken that finishes out of order (Intel DSA, driver idxd). The postings wait
for the last request of a channel alone, and would take a copy for done that is not: data is lost. A fork of 2026 is right there.

By hand, in this order (another posting may be in the other directories):

    cd /sys/module/dcbm/parameters
    echo 0 > offloading; echo 12 > nr_dma_chan; echo all > reason_mask; echo 1 > offloading
    cat offloading folios_migrated folios_failures

Often said and wrong: that this moves memory of GPUs. It moves pages of the host between its own memory nodes.`,
	Refs: []string{offloadMail, "https://docs.kernel.org/driver-api/dmaengine/index.html"},
	Run:  runMigrationOffload,
}

// migrationEngineName is the driver that the profile wants to copy.
func migrationEngineName(r *check.Run) string {
	if e := r.Profile.Migration.Engine; e.Set {
		return e.V
	}
	return "ptdma"
}

// wishMigration wants one setting of the copy offload.
func wishMigration(engine, name, got, want, why string) plan.Wish {
	return plan.Wish{Setting: fixes.MigrationSetting(engine, name), Got: got, Want: want, Tier: plan.Safe, Why: why}
}

// offloadState reports what keeps the checks from judging the control files:
// false where a finding was made of it.
func offloadState(r *check.Run, m *facts.Migration) (o *facts.Offload, f check.Finding) {
	f.Source = offloadMail
	switch {
	case m.Available == nil:
		f.Status, f.Why = check.Unknown, m.Unknown["available"]
	case !*m.Available:
		f.Status, f.Why = check.Skip, "this kernel has no copy offload for page migration, as all released ones"
	case m.Offload.On == nil:
		f.Status, f.Why = check.Unknown, m.Offload.Unknown[facts.OffloadSwitch]
	default:
		o = m.Offload
	}
	return o, f
}

// offloadEvidence is the control files.
func offloadEvidence(o *facts.Offload) []check.Evidence {
	e := []check.Evidence{{Source: o.Path(facts.OffloadSwitch), Value: onOff(*o.On)}}
	if o.Channels != nil {
		e = append(e, check.Evidence{Source: o.Path(facts.OffloadChannels), Value: fmt.Sprint(*o.Channels)})
	}
	if o.Reasons != nil {
		e = append(e, check.Evidence{Source: o.Path(facts.OffloadReasons), Value: facts.FormatReasons(o.Reasons)})
	}
	return e
}

func runMigrationOffload(_ context.Context, r *check.Run) error {
	m, want := r.Facts.Migration(), r.Profile.Migration
	o, f := offloadState(r, m)
	engine := migrationEngineName(r)
	if want.Offload.Set {
		f.Want, f.Source = onOff(want.Offload.V), want.Offload.Origin.String()
	}
	switch {
	case o == nil && f.Status == check.Skip && want.Offload.Set && want.Offload.V:
		f.Status, f.Got = atMostWarn(check.Fail, want.Offload.Origin), "not available"
		f.Evidence = noOffload()
		f.Why = reason(want.Offload.Origin, "the CPU copies what the profile wants engines to copy")
		f.Next = "boot a kernel with the patches, or load its module: modprobe dcbm"
	case o == nil && f.Status == check.Skip:
		f.Status, f.Got, f.Evidence = check.Pass, "not available", noOffload()
		f.Why = "no released kernel has it"
	case o == nil:
	default:
		f.Got = onOff(*o.On) + ", " + o.Rev().Posted
		f.Evidence = offloadEvidence(o)
		f.Status = check.Pass
		if bad := outOfOrder(m); *o.On && bad != nil {
			f.Status, f.Want = check.Fail, "off with engines that finish out of order"
			f.Source = offloadMail
			f.Evidence = append(f.Evidence, check.Evidence{Source: facts.DMAClass + "/" + bad.Channels[0].Name + "/device/driver", Value: *bad.Driver})
			f.Why = fmt.Sprintf("%s, driver %s, may finish out of order, and this posting then takes a copy for done that is not: data is lost", bad.Device, *bad.Driver)
			f.Next = "echo 0 > " + o.Path(facts.OffloadSwitch)
			f.Fix = []plan.Wish{wishMigration(*bad.Driver, facts.OffloadSwitch, "on", "off", f.Why)}
			break
		}
		if !want.Offload.Set {
			break
		}
		f.Fix = offloadWishes(r, o, engine)
		if len(f.Fix) == 0 {
			break
		}
		var differs, orders []string
		for _, w := range f.Fix {
			if w.Kind != "migration" {
				continue
			}
			differs = append(differs, fmt.Sprintf("%s %s, not %s", w.Name, w.Got, w.Want))
		}
		for _, w := range migrationSteps(f.Fix) {
			orders = append(orders, fmt.Sprintf("echo %s > %s", w[1], o.Path(w[0])))
		}
		f.Status, f.Got = atMostWarn(check.Fail, want.Offload.Origin), strings.Join(differs, "; ")
		f.Why = reason(want.Offload.Origin, "what migrates is copied by others than the profile wants")
		f.Next = strings.Join(orders, "; ")
		f.Fix = offer(want.Offload.Origin, f.Fix...)
	}
	r.Report(f)
	return nil
}

func noOffload() (e []check.Evidence) {
	for _, dir := range facts.OffloadDirs() {
		e = append(e, check.Evidence{Source: dir + "/" + facts.OffloadSwitch, Value: "absent"})
	}
	return e
}

// outOfOrder gives an engine that the posting must not use, or nil.
func outOfOrder(m *facts.Migration) *facts.CopyEngine {
	if m.Offload.Rev().InOrder {
		return nil
	}
	for _, e := range m.Engines {
		if e.Driver == nil || e.Copies == nil || !*e.Copies {
			continue
		}
		if d := facts.EngineDriverOf(*e.Driver); d != nil && !d.InOrder {
			return e
		}
	}
	return nil
}

// offloadWishes are the settings that differ from the profile.
func offloadWishes(r *check.Run, o *facts.Offload, engine string) (wishes []plan.Wish) {
	want := r.Profile.Migration
	const why = "the profile's decision who copies what migrates"
	add := func(name, got, value string) {
		if got != value {
			wishes = append(wishes, wishMigration(engine, name, got, value, why))
		}
	}
	if want.Offload.V {
		if want.Channels.Set && o.Channels != nil {
			add(facts.OffloadChannels, fmt.Sprint(*o.Channels), fmt.Sprint(want.Channels.V))
		}
		if want.Reasons.Set && o.Reasons != nil {
			set, err := facts.ParseReasons(strings.Join(want.Reasons.V, ","))
			if err == nil {
				add(facts.OffloadReasons, facts.FormatReasons(o.Reasons), facts.FormatReasons(set))
			}
		}
	}
	add(facts.OffloadSwitch, onOff(*o.On), onOff(want.Offload.V))
	if module, is := fixes.MigrationModule(r.Facts); is && len(wishes) > 0 && want.Offload.V {
		module.Got = "loaded by hand"
		wishes = append(wishes, module)
	}
	return wishes
}

// migrationSteps are the writes by hand: off, what differs, on.
func migrationSteps(wishes []plan.Wish) (steps [][2]string) {
	steps = append(steps, [2]string{facts.OffloadSwitch, "0"})
	for _, w := range wishes {
		if w.Kind != "migration" {
			continue
		}
		if w.Name != facts.OffloadSwitch {
			steps = append(steps, [2]string{w.Name, w.Want})
		} else if w.Want == "off" {
			return steps
		}
	}
	return append(steps, [2]string{facts.OffloadSwitch, "1"})
}

var migrationEngine = &check.Check{
	ID: "migration.engine", Title: "Engines that are to copy have as many channels as they are told to use", Severity: check.Medium, FixTier: plan.Safe, Tune: migrationTune,
	Doc: `The copy offload for page migration takes channels of dmaengine for each batch. It can be switched on without any: then the batch
finds none, the CPU copies as before, and no counter says so. With fewer channels than nr_dma_chan a batch uses those that are there.

The check counts the channels in /sys/class/dma whose driver is known to copy memory (ptdma, ae4dma, idxd, ioatdma with "copy" in
quickdata/cap); the kernel itself shows no attribute that tells. in_use other than 0 means that somebody else holds a channel: a
bridge between hosts (NTB) for ptdma. memcpy_count and bytes_transferred stay 0 on new kernels even when an engine is busy, and are
not looked at. Evidence also shows each engine's NUMA node and the type of its IOMMU group: translation (DMA, DMA-FQ) costs engines
part of their speed over time, identity does not. That is to know, not to change: it is a matter of isolation.

Where the offload is off or not available, which is normal, the check is skipped.

By hand:

    for c in /sys/class/dma/*; do echo $c $(cat $c/in_use) $(basename $(readlink $c/device/driver)); done
    cat /sys/kernel/debug/dmaengine/summary            # who holds what, as root
    modprobe ptdma                                     # ptdma has one channel for each device

Then nr_dma_chan is set while offloading is 0.`,
	Refs: []string{dmaClassABI, "drivers/dma/dmaengine.c", offloadMail},
	Run:  runMigrationEngine,
}

func runMigrationEngine(_ context.Context, r *check.Run) error {
	m := r.Facts.Migration()
	o, f := offloadState(r, m)
	switch {
	case o == nil:
		r.Report(f)
		return nil
	case !*o.On:
		f.Status, f.Why = check.Skip, "engines do not copy: it is off"
		r.Report(f)
		return nil
	case m.Engines == nil:
		f.Status, f.Why = check.Unknown, m.Unknown["engines"]
		r.Report(f)
		return nil
	}
	channels, free := 0, 0
	var words []string
	for _, e := range m.Engines {
		if e.Copies == nil || !*e.Copies {
			continue
		}
		channels, free = channels+len(e.Channels), free+e.Free()
		node, iommu := "unknown node", orText(text(e.IOMMU), "no IOMMU group")
		if e.NUMANode != nil {
			node = nodeName(*e.NUMANode)
		}
		words = append(words, fmt.Sprintf("%s %s: %d of %d free, %s, %s", e.Device, text(e.Driver), e.Free(), len(e.Channels), node, iommu))
	}
	wanted := 1
	if o.Channels != nil {
		wanted = int(*o.Channels)
	}
	f.Want, f.Source = fmt.Sprintf("%d free channels that can copy", wanted), dmaClassABI
	f.Got = fmt.Sprintf("%d of %d channels are free", free, channels)
	f.Evidence = offloadEvidence(o)
	for i, w := range words {
		if i == 8 {
			f.Evidence = append(f.Evidence, check.Evidence{Source: facts.DMAClass, Value: fmt.Sprintf("and %d engines more", len(words)-i)})
			break
		}
		f.Evidence = append(f.Evidence, check.Evidence{Source: facts.DMAClass, Value: w})
	}
	switch {
	case free >= wanted:
		f.Status = check.Pass
	case free == 0:
		f.Status = check.Fail
		f.Why = "no channel can be taken, so the CPU copies every batch, and no counter says so"
		f.Next = "modprobe ptdma (or the engines' driver), and see who holds them: cat /sys/kernel/debug/dmaengine/summary; else echo 0 > " + o.Path(facts.OffloadSwitch)
		if on := r.Profile.Migration.Offload; !on.Set || !on.V {
			f.Fix = []plan.Wish{wishMigration(migrationEngineName(r), facts.OffloadSwitch, "on", "off", "no engine copies")}
		}
	default:
		f.Status = check.Warn
		f.Why = "a batch uses fewer channels than were meant, and is slower than what was measured"
		f.Next = fmt.Sprintf("free the others (cat /sys/kernel/debug/dmaengine/summary), or set %s to %d while %s is 0", facts.OffloadChannels, free, facts.OffloadSwitch)
	}
	r.Report(f)
	return nil
}

var migrationCounters = &check.Check{
	ID: "migration.counters", Title: "Engines that are on copy what migrates, without failures", Severity: check.Medium, Tune: migrationTune,
	Doc: `While the copy offload is on, folios_migrated grows with what engines copied and folios_failures with what they failed to copy, which
the CPU then copied. The check reads both twice, a second apart, beside pgmigrate_success of /proc/vmstat, and judges what grew:

  - folios_failures grew: a failure. An engine that hangs holds a batch for up to 10 s before the CPU takes over
  - pages migrated, and folios_migrated stayed: a warning. Either no channel could be taken (which counts as no failure), or the
    reasons that pages migrated for are not in reason_mask
  - thp_migration_split grew: a warning. The target node had no 2M page free, so the kernel split folios and copied 4K pages

folios_migrated counts folios and pgmigrate_success base pages: the two are not compared as numbers. If nothing migrated meanwhile
there is nothing to judge (skip); run it while the workload moves memory. Postings before v4 count nothing, and are skipped.

By hand, twice:

    cat /sys/module/dcbm/parameters/folios_{migrated,failures}
    grep -E 'pgmigrate_success|thp_migration_split' /proc/vmstat

Any write to one of the two counters of the offload sets it back to 0.`,
	Refs:     []string{offloadMail, "include/linux/vm_event_item.h", "mm/migrate.c"},
	Requires: []string{"migration.engine"},
	Run:      runMigrationCounters,
}

func runMigrationCounters(ctx context.Context, r *check.Run) error {
	o, f := offloadState(r, r.Facts.Migration())
	f.Want = "what migrates is copied by engines, and none fails"
	switch {
	case o == nil:
	case !*o.On:
		f.Status, f.Why = check.Skip, "engines do not copy: it is off"
	case !o.Rev().Counts:
		f.Status, f.Why = check.Skip, "this posting ("+o.Rev().Posted+") counts nothing"
	default:
		f = judgeMigrated(sampled(ctx, r).Of(facts.MigrationCounters), o, f)
	}
	r.Report(f)
	return nil
}

func judgeMigrated(c *facts.Counted, o *facts.Offload, f check.Finding) check.Finding {
	if c == nil || c.Seconds == nil {
		f.Status, f.Why = check.Unknown, "its counters are not known"
		if c != nil {
			f.Why += ": " + c.Unknown["seconds"]
		}
		return f
	}
	grown := map[string]uint64{}
	for _, name := range []string{facts.FoliosMigrated, facts.FoliosFailed, "pgmigrate_success", "thp_migration_split"} {
		n, ok := c.Grown(name)
		if !ok && name != facts.FoliosFailed && name != "thp_migration_split" {
			f.Status, f.Why = check.Unknown, name+" is not there, or was set back meanwhile"
			return f
		}
		if grown[name] = n; n > 0 {
			f.Evidence = append(f.Evidence, check.Evidence{Source: c.Source(), Value: fmt.Sprintf("%s +%d in %.1f s", name, n, *c.Seconds)})
		}
	}
	f.Got = fmt.Sprintf("%d pages migrated, %d folios by engines, %d failed", grown["pgmigrate_success"], grown[facts.FoliosMigrated], grown[facts.FoliosFailed])
	switch {
	case grown[facts.FoliosFailed] > 0:
		f.Status, f.Why = check.Fail, "engines fail, and a batch waits up to 10 s for one before the CPU copies it"
		f.Next = "look into dmesg for dcbm and the engines' driver; until it is clear: echo 0 > " + o.Path(facts.OffloadSwitch)
	case grown["pgmigrate_success"] == 0:
		f.Status, f.Why = check.Skip, "nothing migrated meanwhile"
	case grown[facts.FoliosMigrated] == 0:
		f.Status, f.Why = check.Warn, "the CPU copies all the same: no channel can be taken, or the reasons of these migrations are not offloaded"
		f.Next = "hostcheck migration.engine; cat " + o.Path(facts.OffloadReasons)
	case grown["thp_migration_split"] > 0:
		f.Status, f.Why = check.Warn, "the target node had no free 2M page, so large folios were split and are copied 4K at a time"
		f.Next = "make room on the target node: echo 1 > /proc/sys/vm/compact_memory, or fewer programs there"
	default:
		f.Status = check.Pass
	}
	return f
}
