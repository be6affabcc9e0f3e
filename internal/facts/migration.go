// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bufio"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Migration is how the kernel moves memory between nodes and tiers, and with
// what.
type Migration struct {
	Available *bool         `json:"available"` // the kernel has the copy offload's control files; false is the normal state
	Offload   *Offload      `json:"offload"`   // null without it
	CPUMT     *CPUMT        `json:"cpu_mt"`    // copies by several kernel threads, of two postings; null on all other kernels
	Engines   []*CopyEngine `json:"engines"`   // devices with DMA channels, by address

	NUMABalancing *int64            `json:"numa_balancing"`    // bits: 1 normal, 2 memory tiering
	PromoteLimit  *int64            `json:"promote_rate_mbps"` // most that is promoted, MB/s for each node; acts with bit 2 alone
	Demotion      *bool             `json:"demotion"`          // reclaim moves pages to a slower tier
	Tiers         []MemoryTier      `json:"tiers"`             // the fastest first
	ZoneReclaim   *int64            `json:"zone_reclaim"`      // bits 1, 2, 4
	Compaction    *int64            `json:"compaction"`        // compaction_proactiveness, 0 to 100
	THPSizes      []THPSize         `json:"thp_sizes"`         // by size
	Counters      map[string]uint64 `json:"counters"`          // of /proc/vmstat, since boot; pgmigrate_* count base pages, thp_* count huge ones
	Unknown       Unknown           `json:"unknown,omitempty"`
}

// MemoryTier is nodes whose memory is equally fast.
type MemoryTier struct {
	Tier  int    `json:"tier"`  // the lower the faster; plain DRAM is 4
	Nodes string `json:"nodes"` // list, "0-1"
}

// THPSize is one size of transparent huge pages.
type THPSize struct {
	SizeKB  int64             `json:"size_kb"`
	Enabled *string           `json:"enabled"` // always, inherit, madvise, never
	Stats   map[string]uint64 `json:"stats"`   // since boot
	Unknown Unknown           `json:"unknown,omitempty"`
}

// Files that are read here.
const (
	DemotionPath    = "/sys/kernel/mm/numa/demotion_enabled"
	VMStat          = "/proc/vmstat"
	pathTiers       = "/sys/devices/virtual/memory_tiering"
	pathPromote     = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
	pathZoneReclaim = "/proc/sys/vm/zone_reclaim_mode"
	pathCompaction  = "/proc/sys/vm/compaction_proactiveness"
)

// THPSizePath is the switch of one size of transparent huge pages.
func THPSizePath(sizeKB int64) string {
	return fmt.Sprintf("%s/hugepages-%dkB/enabled", pathTHP, sizeKB)
}

// VMStatMigration are the counters of migration in /proc/vmstat
// (include/linux/vm_event_item.h).
var VMStatMigration = []string{
	"compact_migrate_scanned", "numa_pages_migrated", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_kswapd", "pgdemote_proactive",
	"pgmigrate_fail", "pgmigrate_success", "pgpromote_candidate", "pgpromote_candidate_nrl", "pgpromote_success",
	"thp_migration_fail", "thp_migration_split", "thp_migration_success",
}

// thpStats are the counters of a size that tell whether it is used.
var thpStats = []string{"anon_fault_alloc", "anon_fault_fallback", "nr_anon", "split", "split_failed"}

// Migration gives how this host moves memory.
func (f *Facts) Migration() *Migration { return f.migration.get(f, decodeMigration) }

func decodeMigration(f *Facts) *Migration {
	h := f.host
	var ops []host.Op
	for _, dir := range append(OffloadDirs(), PathCPUMT, DMAClass, pathTiers, pathTHP) {
		ops = append(ops, host.Op{Kind: host.ListDir, Path: dir})
	}
	for _, p := range []string{DemotionPath, VMStat, pathPromote, pathZoneReclaim, pathCompaction} {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
	}
	h.Prefetch(ops)

	m := new(Migration)
	switch rev, err := FindOffload(h); {
	case err != nil:
		m.Unknown.say("available", whyNot(h, err))
		m.Unknown.say("offload", whyNot(h, err))
	case rev == nil:
		m.Available = new(false)
	default:
		m.Available, m.Offload = new(true), readOffload(h, rev)
	}
	var err error
	if m.CPUMT, err = readCPUMT(h); err != nil {
		m.Unknown.say("cpu_mt", whyNot(h, err))
	}
	if m.Engines, err = readEngines(f); err != nil {
		m.Unknown.say("engines", whyNot(h, err))
	}
	s := f.System()
	if m.NUMABalancing = s.NUMABalancing; m.NUMABalancing == nil {
		m.Unknown.say("numa_balancing", s.Unknown["numa_balancing"])
	}
	for _, n := range []struct {
		field, path string
		to          **int64
	}{{"promote_rate_mbps", pathPromote, &m.PromoteLimit}, {"zone_reclaim", pathZoneReclaim, &m.ZoneReclaim}, {"compaction", pathCompaction, &m.Compaction}} {
		v, err := h.Int(n.path)
		if err != nil {
			m.Unknown.say(n.field, whyNot(h, err))
			continue
		}
		*n.to = &v
	}
	m.readDemotion(h)
	m.readTiers(h)
	m.readSizes(h)
	m.readCounters(h)
	return m
}

func (m *Migration) readDemotion(h *host.Host) {
	text, err := h.Text(DemotionPath)
	if err == nil {
		if on, ok := ParseKernelBool(text); ok {
			m.Demotion = &on
			return
		}
		err = fmt.Errorf("%s: %.20q is neither true nor false", DemotionPath, text)
	}
	m.Unknown.say("demotion", whyNot(h, err))
}

func (m *Migration) readTiers(h *host.Host) {
	names, err := h.List(pathTiers)
	if err != nil {
		m.Unknown.say("tiers", whyNot(h, err))
		return
	}
	m.Tiers = []MemoryTier{}
	for _, name := range names {
		tier, ok := numbered(name, "memory_tier")
		if !ok {
			continue
		}
		p := path.Join(pathTiers, name, "nodelist")
		list, err := readCPUList(h, p)
		if err != nil {
			m.Tiers = nil
			m.Unknown.say("tiers", whyNot(h, err))
			return
		}
		if list != "" {
			m.Tiers = append(m.Tiers, MemoryTier{tier, list})
		}
	}
	slices.SortFunc(m.Tiers, func(a, b MemoryTier) int { return cmp.Compare(a.Tier, b.Tier) })
}

// readSizes reads hugepages-<kB>kB of transparent huge pages: since 6.8 there
// is one for each size that a page can have.
func (m *Migration) readSizes(h *host.Host) {
	names, err := h.List(pathTHP)
	if err != nil {
		m.Unknown.say("thp_sizes", whyNot(h, err))
		return
	}
	m.THPSizes = []THPSize{}
	var ops []host.Op
	for _, name := range names {
		kb, ok := numbered(strings.TrimSuffix(name, "kB"), "hugepages-")
		if !ok || !strings.HasSuffix(name, "kB") {
			continue
		}
		m.THPSizes = append(m.THPSizes, THPSize{SizeKB: int64(kb)})
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: THPSizePath(int64(kb))})
		for _, stat := range thpStats {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(pathTHP, name, "stats", stat)})
		}
	}
	h.Prefetch(ops)
	slices.SortFunc(m.THPSizes, func(a, b THPSize) int { return cmp.Compare(a.SizeKB, b.SizeKB) })
	for i := range m.THPSizes {
		m.THPSizes[i].read(h)
	}
}

func (s *THPSize) read(h *host.Host) {
	p := THPSizePath(s.SizeKB)
	text, err := h.Text(p)
	if err == nil {
		if word, ok := parseBracketed(text); ok {
			s.Enabled = &word
		} else {
			err = fmt.Errorf("%s: no mode is marked in it", p)
		}
	}
	if err != nil {
		s.Unknown.say("enabled", whyNot(h, err))
	}
	s.Stats = map[string]uint64{}
	for _, stat := range thpStats {
		n, err := h.Int(path.Join(path.Dir(p), "stats", stat))
		switch {
		case err == nil && n >= 0:
			s.Stats[stat] = uint64(n)
		case !kernelLacks(h, err):
			s.Unknown.say("stats", whyNot(h, err))
		}
	}
}

func (m *Migration) readCounters(h *host.Host) {
	b, err := h.Read(VMStat)
	if err != nil {
		m.Unknown.say("counters", whyNot(h, err))
		return
	}
	m.Counters = map[string]uint64{}
	for name, n := range parseVMStat(string(b)) {
		if slices.Contains(VMStatMigration, name) {
			m.Counters[name] = n
		}
	}
}

// parseVMStat reads lines "name number"; others are left out.
func parseVMStat(text string) map[string]uint64 {
	out := map[string]uint64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, number, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64); ok && err == nil && name != "" {
			out[name] = n
		}
	}
	return out
}

// HugeShare is which share of the memory that was migrated since boot went as
// huge pages of a size, 0 to 1; false where nothing was, or it is not known.
// pgmigrate_success counts their base pages too (mm/migrate.c).
func (m *Migration) HugeShare(hugeKB, pageKB int64) (float64, bool) {
	all, huge := m.Counters["pgmigrate_success"], m.Counters["thp_migration_success"]
	if m.Counters == nil || all == 0 || pageKB <= 0 {
		return 0, false
	}
	return min(1, float64(huge)*float64(hugeKB/pageKB)/float64(all)), true
}
