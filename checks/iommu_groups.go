// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// assigning are the intents under which devices are given to guests, which
// needs each of them alone in its group.
var assigning = []string{"sriov-tenant", "vm-gpudirect"}

// assigns reports whether the intent gives devices to guests.
func assigns(p *profile.Profile) bool { return slices.Contains(assigning, p.Intent) }

// byIntent softens a failure under an assumed intent.
func byIntent(s check.Status, p *profile.Profile) check.Status {
	return atMostWarn(s, profile.Origin{Assumed: p.IntentSource == profile.Assumed})
}

var iommuGroups = &check.Check{
	ID: "iommu.groups", Title: "Devices for guests are alone in their IOMMU group", Severity: check.High, Strict: true,
	Doc: `An IOMMU group is the smallest set of devices that the hardware can keep apart. Devices in one group can reach each other's memory
without the IOMMU seeing it, so vfio gives a group to one guest as a whole or not at all.

Under the intents sriov-tenant and vm-gpudirect a NIC, a virtual function or a GPU that shares its group with another device's
functions fails. Bridges in the group do not count: vfio leaves them with the host. The other functions of the same
card, and a card's own virtual functions, do not count against the card itself; a virtual function must be quite alone.
Under other intents sharing is no fault: with redirect off for GPUDirect a GPU and its NIC are expected in one group.

The cause is hardly ever the card. A VF's group is decided by the ports above it: where a switch or root port lacks
ACS, or has it switched off, everything below is one group. The finding names the ports in the group; the acs checks say what
each of them can do.

    ls /sys/kernel/iommu_groups/*/devices

Often copied and wrong: "each virtual function must have its own group, else look into the BIOS". Look at the upstream switch and root port
first. And pcie_acs_override= makes small groups by pretending. The kernel then reports isolation that the hardware
does not have.`,
	Refs:     []string{groupsDoc, "Documentation/driver-api/vfio.rst", "drivers/iommu/iommu.c"},
	Requires: []string{"iommu.state"},
	Run:      runIOMMUGroups,
}

func runIOMMUGroups(_ context.Context, r *check.Run) error {
	for _, fn := range iommuDevices(r) {
		r.Report(groupOf(r, fn))
	}
	return nil
}

func groupOf(r *check.Run, fn *facts.PCIFunction) check.Finding {
	i := r.Facts.IOMMU()
	g := i.Group(fn.BDF)
	f := check.Finding{Subject: functionName(r.Facts, fn.BDF), Source: groupsDoc}
	isolate := assigns(r.Profile)
	if isolate {
		f.Want = "alone in its group (intent " + r.Profile.Intent + ")"
	}
	if g == nil {
		if why := groupGap(i); why != "" {
			f.Status, f.Why = check.Unknown, why
			return f
		}
		f.Got, f.Status = "in no group", check.Pass
		f.Evidence = []check.Evidence{{Source: "/sys/kernel/iommu_groups", Value: "no group holds " + fn.BDF}}
		if isolate {
			f.Status = byIntent(check.Fail, r.Profile)
			f.Why, f.Next = "no active IOMMU covers this device, so no guest can get it", "look for units that the firmware's table leaves out"
		}
		return f
	}
	others, ports := sharing(r.Facts.PCI(), g, fn)
	f.Evidence = []check.Evidence{{Source: g.Path("devices"), Value: strings.Join(g.Devices, " ")}}
	f.Status = check.Pass
	if len(others) == 0 {
		f.Got = fmt.Sprintf("alone in group %d", g.ID)
		return f
	}
	f.Got = fmt.Sprintf("group %d holds %s too", g.ID, strings.Join(others, ", "))
	if isolate {
		f.Status = byIntent(check.Fail, r.Profile)
		f.Why = "the hardware does not keep them apart: one guest gets all of them, or none"
		f.Next = groupCause(ports)
	}
	return f
}

// sharing lists what else is in fn's group: functions of other devices, and
// the bridge ports. To a physical function the rest of its own card is no
// other device; to a virtual function everything is.
func sharing(bus *facts.PCIBus, g *facts.IOMMUGroup, fn *facts.PCIFunction) (others, ports []string) {
	for _, d := range g.Devices {
		other := bus.At(d)
		switch {
		case d == fn.BDF:
		case other != nil && other.Bridge():
			ports = append(ports, d)
		case fn.VF() || other == nil:
			others = append(others, d)
		case other.VF():
			if *other.PhysFn != fn.BDF {
				others = append(others, d)
			}
		case slot(d) != slot(fn.BDF):
			others = append(others, d)
		}
	}
	return others, ports
}

// slot is an address without its function: "0000:1a:00".
func slot(bdf string) string {
	s, _, _ := strings.Cut(bdf, ".")
	return s
}

// groupCause says where to look for why a group is shared: the ports that are
// in it do not isolate what is below them. What each of them lacks is the
// subject of the acs checks.
func groupCause(ports []string) string {
	if len(ports) == 0 {
		return "look at the ports above them: one lacks ACS or has it off (hostcheck acs)"
	}
	return "look at " + strings.Join(ports, ", ") + ": a port in the group does not isolate what is below it (hostcheck acs)"
}

var iommuReserved = &check.Check{
	ID: "iommu.reserved", Title: "No firmware region ties devices for guests to the host", Severity: check.Low,
	Doc: `Firmware can demand that a range of memory stays mapped one to one for a device for good (RMRR on Intel, IVMD on AMD): for a management
controller that shares memory with it, for example. Such a region has the type direct, and the kernel refuses to
give a device that has one to a guest: "Device is ineligible for IOMMU domain attach due to platform RMRR requirement", or
in newer kernels "Firmware has requested this device have a 1:1 IOMMU mapping".
Regions of type direct-relaxable, msi and reserved block nothing.

Under the intents that give devices to guests such a device warns, and fails once it is bound to a vfio driver: somebody means
to give it away. Under the other intents the check skips.

    cat /sys/kernel/iommu_groups/*/reserved_regions

Only the firmware's maker can take a region back, by an update or by a setup option (on HPE servers: "HP Shared Memory features"
per slot). Out-of-tree kernels that relax the rule give the guest memory that the firmware goes on writing to.`,
	Refs:     []string{groupsDoc, "drivers/iommu/intel/iommu.c"},
	Requires: []string{"iommu.state"},
	Run: func(_ context.Context, r *check.Run) error {
		if !assigns(r.Profile) {
			r.Report(check.Finding{Status: check.Skip, Why: "the intent gives no device to a guest"})
			return nil
		}
		for _, fn := range iommuDevices(r) {
			if g := r.Facts.IOMMU().Group(fn.BDF); g != nil {
				r.Report(reservedOf(r, fn, g))
			}
		}
		return nil
	},
}

func reservedOf(r *check.Run, fn *facts.PCIFunction, g *facts.IOMMUGroup) check.Finding {
	d := check.Finding{Subject: functionName(r.Facts, fn.BDF), Want: "no region of type direct", Source: groupsDoc}
	if g.Reserved == nil {
		d.Status, d.Why = check.Unknown, g.Unknown["reserved"]
		return d
	}
	d.Status, d.Got = check.Pass, "none"
	d.Evidence = []check.Evidence{{Source: g.Path("reserved_regions"), Value: "no line of type direct"}}
	if len(g.Reserved) > 0 {
		d.Status, d.Got = check.Warn, strings.Join(g.Reserved, "; ")
		if driven := hostDriven(fn); driven != nil && !*driven && *fn.Driver != "" {
			d.Status = byIntent(check.Fail, r.Profile)
		}
		d.Evidence[0].Value = d.Got
		d.Why = "the kernel refuses to give the device to a guest"
		d.Next = "look for a firmware update or setup option of the server that takes the region back"
	}
	return d
}
