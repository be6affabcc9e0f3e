// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wholeTree = "A host.\n\nwhole: /sys /proc\n-- etc/hostname --\na\n"

// Each posting is known by its files, the newest first; files that nobody knows
// do not matter.
func TestOffloadRevisions(t *testing.T) {
	files := func(dir string, names ...string) string {
		var b strings.Builder
		for _, n := range names {
			v := "0"
			if n == "nr_dma_chan" {
				v = "12"
			}
			b.WriteString("-- " + dir + "/" + n + " --\n" + v + "\n")
		}
		return b.String()
	}
	const v1, v5, v6 = "sys/kernel/dcbm", "sys/module/dcbm", "sys/module/dcbm/parameters"
	for name, c := range map[string]struct{ tree, revision, dir string }{
		"none":             {"", "", ""},
		"module without":   {files(v5, "initstate"), "", ""},
		"v1":               {files(v1, "offloading"), "v1", "/" + v1},
		"v2, v3":           {files(v1, "offloading", "nr_dma_chan", "pages_migrated"), "v3", "/" + v1},
		"v4":               {files(v1, "offloading", "nr_dma_chan", "folios_migrated", "folios_failures"), "v4", "/" + v1},
		"v5":               {files(v5, "offloading", "nr_dma_chan", "folios_migrated", "folios_failures"), "v5", "/" + v5},
		"v6":               {files(v6, "offloading", "nr_dma_chan", "folios_migrated", "folios_failures", "reason_mask"), "v6", "/" + v6},
		"fork":             {files(v6, "offloading", "nr_dma_chan", "folios_migrated", "sg_elems", "min_bytes"), "fork", "/" + v6},
		"the newest wins":  {files(v1, "offloading") + files(v6, "offloading", "nr_dma_chan"), "v6", "/" + v6},
		"parameters alone": {files(v6, "rev") + files(v5, "offloading", "nr_dma_chan"), "v5", "/" + v5},
	} {
		t.Run(name, func(t *testing.T) {
			m := treeOf(t, wholeTree+c.tree).Migration()
			got, dir := "", ""
			if m.Offload != nil {
				got, dir = m.Offload.Revision, m.Offload.Dir
				if c.revision != "v1" && show(m.Offload.Channels) != int64(12) {
					t.Errorf("channels %v", show(m.Offload.Channels))
				}
			}
			if got != c.revision || dir != c.dir || show(m.Available) != (c.revision != "") {
				t.Errorf("%q in %q, available %v; want %q in %q", got, dir, show(m.Available), c.revision, c.dir)
			}
		})
	}
	m := treeOf(t, wholeTree+"-- sys/module [errno EACCES] --\n").Migration()
	if m.Available != nil || !strings.Contains(m.Unknown["available"], "/sys/module: permission denied") {
		t.Errorf("what is hidden is absent: %v %v", show(m.Available), m.Unknown)
	}
	m = treeOf(t, "A tree that is not whole.\n\n-- etc/hostname --\na\n").Migration()
	if m.Available != nil || !strings.Contains(m.Unknown["available"], "may not have captured") {
		t.Errorf("a tree proves absence: %v %v", show(m.Available), m.Unknown)
	}
}

func TestMigrationFiles(t *testing.T) {
	m := treeOf(t, wholeTree+`-- sys/module/dcbm/parameters/offloading --
1
-- sys/module/dcbm/parameters/nr_dma_chan --
16
-- sys/module/dcbm/parameters/folios_migrated --
77
-- sys/module/dcbm/parameters/folios_failures [errno EACCES] --
-- sys/module/dcbm/parameters/reason_mask --
demotion,syscall_or_cpuset,promotion_of_tomorrow
-- sys/kernel/cpu_mt/offloading --
0
-- sys/kernel/cpu_mt/threads --
4
-- sys/class/dma/dma10chan0 -> ../../devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma10chan0 --
-- sys/class/dma/dma2chan0 -> ../../devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma2chan0 --
-- sys/class/dma/notachannel --
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma10chan0/device -> ../../../0000:22:00.1 --
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma10chan0/in_use --
0
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma2chan0/device -> ../../../0000:22:00.1 --
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/dma/dma2chan0/in_use --
1
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/driver -> ../../../../bus/pci/drivers/ae4dma --
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/numa_node --
-1
-- sys/devices/pci0000:20/0000:20:08.1/0000:22:00.1/iommu_group/type --
DMA-FQ
-- sys/kernel/mm/numa/demotion_enabled --
true
-- sys/devices/virtual/memory_tiering/memory_tier22/nodelist --
2
-- sys/devices/virtual/memory_tiering/memory_tier4/nodelist --
0-1
-- sys/devices/virtual/memory_tiering/uevent --
-- proc/vmstat --
nr_free_pages 100
pgmigrate_success 1024
thp_migration_success 1
thp_migration_split x
-- sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled --
always [inherit] madvise never
-- sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/split --
3
-- sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled --
always inherit madvise [never]
`).Migration()
	o := m.Offload
	if !*o.On || *o.Channels != 16 || *o.Migrated != 77 || o.Failed != nil || !strings.Contains(o.Unknown["folios_failures"], "needs root") {
		t.Errorf("%+v", o)
	}
	if d := cmp.Diff([]string{"syscall_or_cpuset", "demotion", "promotion_of_tomorrow"}, o.Reasons); d != "" {
		t.Error(d)
	}
	if m.CPUMT == nil || *m.CPUMT.On || *m.CPUMT.Threads != 4 {
		t.Errorf("%+v", m.CPUMT)
	}
	if len(m.Engines) != 1 {
		t.Fatalf("%d engines", len(m.Engines))
	}
	e := m.Engines[0]
	if e.Device != "0000:22:00.1" || *e.Driver != "ae4dma" || !*e.Copies || e.NUMANode != nil || *e.IOMMU != "DMA-FQ" || e.Free() != 1 ||
		len(e.Channels) != 2 || e.Channels[0].Name != "dma2chan0" {
		t.Errorf("%+v", e)
	}
	if d := cmp.Diff([]MemoryTier{{4, "0-1"}, {22, "2"}}, m.Tiers); d != "" || !*m.Demotion {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]uint64{"pgmigrate_success": 1024, "thp_migration_success": 1}, m.Counters); d != "" {
		t.Error(d)
	}
	if share, ok := m.HugeShare(2048, 4); !ok || share != 0.5 {
		t.Errorf("share %v %v", share, ok)
	}
	if len(m.THPSizes) != 2 || *m.THPSizes[0].Enabled != "never" || *m.THPSizes[1].Enabled != "inherit" || m.THPSizes[1].Stats["split"] != 3 {
		t.Errorf("%+v", m.THPSizes)
	}
}

func TestReasons(t *testing.T) {
	for text, want := range map[string]string{
		"all": "all", "none": "none", "0": "none", "0x3ff": "all", "1023": "all", "0x108": "syscall_or_cpuset,demotion",
		"demotion,syscall_or_cpuset,demotion": "syscall_or_cpuset,demotion", "demotion, new_one": "demotion,new_one", strings.Join(Reasons, ","): "all",
	} {
		got, err := ParseReasons(text)
		if err != nil || FormatReasons(got) != want {
			t.Errorf("%q: %q, %v; want %q", text, FormatReasons(got), err, want)
		}
	}
	for _, text := range []string{"", "-1", "0x400", "a b", "demotion,,damon", "demotion,all", "../x", strings.Repeat("a", 41), "Demotion"} {
		if got, err := ParseReasons(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

func FuzzMigrationText(f *testing.F) {
	for _, s := range []string{"all", "0x108", "demotion,damon\n", "pgmigrate_success 1\n", "Y\n", "off"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if on, ok := ParseKernelBool(s); on && !ok {
			t.Errorf("%q is on, and no boolean", s)
		}
		parseVMStat(s)
		set, err := ParseReasons(s)
		if err != nil {
			return
		}
		again, err := ParseReasons(FormatReasons(set))
		if err != nil || !slices.Equal(set, again) {
			t.Errorf("%q: %v, then %v, %v", s, set, again, err)
		}
	})
}
