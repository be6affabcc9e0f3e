// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var sriovChecks = []*check.Check{sriovVFs}

var sriovVFs = &check.Check{
	ID:       "sriov.vfs",
	Title:    "Every NIC has the virtual functions that the profile wants",
	Severity: check.Medium,
	FixTier:  plan.Link,
	Doc: `Wanted is "vfs" of the nics rule, exactly that many; the truth is sriov_numvfs of the physical function, and a device on the
bus for each. A number that the kernel took and devices that are not there are a failure: the firmware gave out no
memory space or no bus numbers for them (dmesg: "not enough MMIO resources for SR-IOV"), or a driver gave up half way.

The driver, and above it the firmware, limit the number: sriov_totalvfs. More than that, and a device that shows no SR-IOV at
all, is a matter of firmware: on ConnectX SRIOV_EN and NUM_OF_VFS, and SR-IOV in the setup of the mainboard.

By hand:

    cat /sys/class/net/ens1np0/device/sriov_{numvfs,totalvfs}
    echo 0 > /sys/class/net/ens1np0/device/sriov_numvfs     # from one number to another only by way of none: all go
    echo 8 > /sys/class/net/ens1np0/device/sriov_numvfs
    mstconfig -d 18:00.0 query SRIOV_EN NUM_OF_VFS          # then set, and a reset of the firmware

For good: SR-IOVVirtualFunctions= in a .link file of systemd 251 or later, a udev rule, netplan's
virtual-function-count, or the SR-IOV operator. A line in rc.local comes too late for those who wait for the devices.`,
	Refs: []string{
		"https://docs.kernel.org/PCI/pci-iov-howto.html", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci",
		"https://www.freedesktop.org/software/systemd/man/latest/systemd.link.html",
	},
	Requires: []string{"driver.bound"},
	Run:      runVFs,
}

func runVFs(_ context.Context, r *check.Run) error {
	reportHidden(r, func(n *profile.NICRule) bool { return n.VFs.Set })
	for _, w := range selected(r) {
		if want := w.Rule.VFs; want.Set {
			r.Report(vfsOf(r.Facts, w, want))
		}
	}
	return nil
}

func vfsOf(host *facts.Facts, w profile.NICWant, want profile.Val[int]) check.Finding {
	n, fn := w.NIC, w.PCI
	f := check.Finding{Subject: n.Subject(), Want: strconv.Itoa(want.V), Source: want.Origin.String()}
	switch {
	case fn == nil:
		f.Status, f.Why = check.Unknown, "its PCI function is not known"
		return f
	case fn.NumVFs == nil && fn.Unknown["num_vfs"] != "":
		f.Status, f.Why = check.Unknown, fn.Unknown["num_vfs"]
		return f
	case fn.NumVFs == nil:
		f.Got = "no SR-IOV"
		f.Evidence = []check.Evidence{{Source: fn.Attr("sriov_numvfs"), Value: "not there"}}
		if f.Status = check.Pass; want.V > 0 {
			f.Status, f.Why = check.Fail, "the device shows no SR-IOV, or its driver does not take part"
			f.Next = "switch SR-IOV on in the firmware of the NIC (ConnectX: mstconfig, SRIOV_EN and NUM_OF_VFS) and of the mainboard"
			f.Fix = offer(want.Origin, wishManual(f.Subject, "NUM_OF_VFS", "0", f.Want, f.Why))
		}
		return f
	}
	got := *fn.NumVFs
	f.Got = strconv.Itoa(got)
	f.Evidence = []check.Evidence{{Source: fn.Attr("sriov_numvfs"), Value: f.Got}}
	if fn.TotalVFs != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("sriov_totalvfs"), Value: strconv.Itoa(*fn.TotalVFs)})
	}
	if vfs := functionsOf(host, fn); vfs != "" {
		f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("virtfn*"), Value: vfs})
	}
	switch {
	case got == want.V && len(fn.VFs) == got:
		f.Status = check.Pass
	case got == want.V:
		f.Status, f.Got = check.Fail, fmt.Sprintf("%d, of which %d are on the bus", got, len(fn.VFs))
		f.Why = "the firmware had no room for the others, or the driver gave up"
		f.Next = "look for SR-IOV in dmesg: without MMIO space it says so; pci=realloc, or a larger window in the setup of the mainboard"
	case fn.TotalVFs != nil && want.V > *fn.TotalVFs:
		f.Status, f.Why = check.Fail, fmt.Sprintf("the device offers %d at most", *fn.TotalVFs)
		f.Next = "raise the limit in the firmware of the NIC (ConnectX: mstconfig, NUM_OF_VFS)"
		f.Fix = offer(want.Origin, wishManual(f.Subject, "NUM_OF_VFS", strconv.Itoa(*fn.TotalVFs), f.Want, f.Why))
	default:
		f.Status, f.Why = check.Fail, reason(want.Origin, "there is another number of virtual functions than who uses them expects")
		f.Next = fmt.Sprintf("echo %d > %s, after echo 0 where there are some: all of them go first", want.V, fn.Attr("sriov_numvfs"))
		f.Fix = offer(want.Origin, wishNIC("sriov", n, "numvfs", f.Got, f.Want, f.Why))
	}
	return f
}

// functionsOf lists the virtual functions of a function with their groups.
func functionsOf(host *facts.Facts, fn *facts.PCIFunction) string {
	const most = 8
	var out []string
	for i, bdf := range fn.VFs {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(fn.VFs)-most))
			break
		}
		if g := host.IOMMU().Group(bdf); g != nil {
			bdf = fmt.Sprintf("%s (group %d)", bdf, g.ID)
		}
		out = append(out, bdf)
	}
	return strings.Join(out, ", ")
}
