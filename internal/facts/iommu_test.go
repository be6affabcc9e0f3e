// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcheck/hostcheck/internal/host"
)

func groupText(id int, kind, regions string, devices ...string) string {
	dir := fmt.Sprintf("sys/kernel/iommu_groups/%d", id)
	s := "-- " + dir + "/type --\n" + kind + "\n-- " + dir + "/reserved_regions --\n" + regions + "\n-- " + dir + "/devices [dir] --\n"
	for _, d := range devices {
		s += "-- " + dir + "/devices/" + d + " -> ../../../../devices/pci0000:00/" + d + " --\n"
	}
	return s
}

const rmrr = "0x000000007ba00000 0x000000007ba3ffff direct\n0x00000000fee00000 0x00000000feefffff msi\n0x1000 0x2000 direct-relaxable"

func TestIOMMU(t *testing.T) {
	f := treeOf(t, "whole: /sys /proc\n-- sys/class/iommu/dmar1 [dir] --\n-- sys/class/iommu/dmar0 [dir] --\n"+
		groupText(10, "identity", rmrr, "0000:9a:00.0", "0000:9a:00.1")+groupText(9, "DMA-FQ", "", "0000:01:00.0")+
		groupText(2, "DMA", "", "0000:02:00.0")+"-- sys/kernel/iommu_groups/2/type [errno EACCES] --\n-- sys/kernel/iommu_groups/2/reserved_regions [errno EACCES] --\n"+
		"-- sys/kernel/iommu_groups/3/devices [errno EACCES] --\n-- sys/kernel/iommu_groups/3/type --\nblocked\n-- sys/kernel/iommu_groups/3/reserved_regions --\n")
	i := f.IOMMU()
	s := func(v string) *string { return &v }
	want := &IOMMU{
		Active: new(true), Units: []string{"dmar0", "dmar1"},
		Groups: []IOMMUGroup{
			{ID: 2, Devices: []string{"0000:02:00.0"}, Unknown: Unknown{
				"type":     "/sys/kernel/iommu_groups/2/type: permission denied (needs root)",
				"reserved": "/sys/kernel/iommu_groups/2/reserved_regions: permission denied (needs root)"}},
			{ID: 3, Type: s("blocked"), Reserved: []string{}, Unknown: Unknown{"devices": "/sys/kernel/iommu_groups/3/devices: permission denied (needs root)"}},
			{ID: 9, Type: s("DMA-FQ"), Devices: []string{"0000:01:00.0"}, Reserved: []string{}},
			{ID: 10, Type: s("identity"), Devices: []string{"0000:9a:00.0", "0000:9a:00.1"}, Reserved: []string{"0x000000007ba00000 0x000000007ba3ffff direct"}},
		},
	}
	if d := cmp.Diff(want, i, cmpopts.IgnoreUnexported(IOMMU{})); d != "" {
		t.Error(d)
	}
	if g := i.Group("0000:9a:00.1"); g == nil || g.ID != 10 || g.Path("type") != "/sys/kernel/iommu_groups/10/type" {
		t.Errorf("the group of a device is %+v", g)
	}
	if i.Group("0000:ff:00.0") != nil {
		t.Error("a device that is not there has a group")
	}
}

// Whether an IOMMU is active is decided by registered units; a group proves it
// only with a type that nothing else gives.
func TestIOMMUActive(t *testing.T) {
	const tables = "-- sys/firmware/acpi/tables/"
	noIOMMU := groupText(0, "unknown", "", "0000:01:00.0") // as vfio makes without an IOMMU
	for _, row := range []struct {
		name, tree       string
		active, firmware any
	}{
		{"units", "-- sys/class/iommu/ivhd0 [dir] --\n", true, "<nil>"},
		{"no units", "whole: /sys\n-- sys/class/iommu [dir] --\n" + tables + "DMAR --\n", false, "DMAR"},
		{"no units, no table", "whole: /sys\n-- sys/class/iommu [dir] --\n" + tables + "FACP --\n", false, ""},
		{"no units, tables not known", "-- sys/class/iommu [dir] --\n", false, "<nil>"},
		{"built without", "whole: /sys\n-- sys/x --\n", false, "<nil>"},
		{"groups of an active one", groupText(0, "DMA", "", "0000:01:00.0"), true, "<nil>"},
		{"groups without one", noIOMMU, "<nil>", "<nil>"},
		{"groups without one, whole", "whole: /sys\n" + noIOMMU, false, "<nil>"},
		{"unreadable", "whole: /sys\n-- sys/class/iommu [errno EACCES] --\n", "<nil>", "<nil>"},
		{"not captured", "-- etc/hostname --\n", "<nil>", "<nil>"},
	} {
		i := treeOf(t, row.tree).IOMMU()
		if show(i.Active) != row.active || show(i.Firmware) != row.firmware {
			t.Errorf("%s: active %v, firmware %v; want %v, %v", row.name, show(i.Active), show(i.Firmware), row.active, row.firmware)
		}
		if (i.Active == nil) != (i.Unknown["active"] != "") {
			t.Errorf("%s: the reason is %q", row.name, i.Unknown["active"])
		}
	}
}

// A dense host is read in two batches, and nothing twice.
func TestIOMMUReadsEachSourceOnce(t *testing.T) {
	var tree strings.Builder
	tree.WriteString("whole: /sys\n-- sys/class/iommu/dmar0 [dir] --\n")
	const groups = 300
	for id := range groups {
		tree.WriteString(groupText(id, "DMA-FQ", "", fmt.Sprintf("0000:%02x:%02x.0", id/32, id%32)))
	}
	f := treeOf(t, tree.String())
	if i := f.IOMMU(); len(i.Groups) != groups || i.Groups[groups-1].ID != groups-1 {
		t.Fatalf("%d groups", len(i.Groups))
	}
	want := host.Stats{Files: 2 * groups, Dirs: 2 + groups}
	if d := cmp.Diff(want, f.Host().Stats(), cmpopts.IgnoreFields(host.Stats{}, "Bytes")); d != "" {
		t.Error(d)
	}
}

func FuzzDirectRegions(f *testing.F) {
	f.Add(rmrr)
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range directRegions(text) {
			if !strings.HasSuffix(r, " direct") || strings.Count(r, " ") != 2 || strings.Contains(r, "\n") {
				t.Errorf("%q gives %q", text, r)
			}
		}
	})
}
