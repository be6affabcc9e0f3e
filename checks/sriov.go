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
bus for each. Rules that say no number are not judged, and no profile that comes with hostcheck says one.

Where the firmware of the host left too little memory space, the kernel makes none at all: the write fails with ENOMEM,
sriov_numvfs stays 0, and dmesg says "not enough MMIO resources for SR-IOV". Then no fix is offered, as it would fail, too.
To who may not read the kernel log that is a 0 like any other. A number that the kernel took and devices that are not there
are a failure as well: the kernel takes the number once all are there, so they have gone from the bus since.

The evidence names the IOMMU group of each, and who shares it where devices go to guests; iommu.groups judges that.

The driver, and above it the firmware, limit the number: sriov_totalvfs. More than that, and a device that shows no SR-IOV at
all, is a matter of firmware: on ConnectX SRIOV_EN and NUM_OF_VFS, and SR-IOV in the setup of the mainboard.

By hand:

    cat /sys/class/net/ens1np0/device/sriov_{numvfs,totalvfs}
    echo 0 > /sys/class/net/ens1np0/device/sriov_numvfs     # from one number to another only by way of none: all go
    echo 8 > /sys/class/net/ens1np0/device/sriov_numvfs
    mstconfig -d 18:00.0 query SRIOV_EN NUM_OF_VFS          # then set, and a reset of the firmware

For good: SR-IOVVirtualFunctions= in a .link file of systemd 251 or later, a udev rule, netplan's
virtual-function-count, or the SR-IOV operator. A line in rc.local comes too late for those who wait for the devices.

Often copied and wrong: a unit with nothing but After=network-pre.target. It orders itself before nobody, so NetworkManager and
the kubelet start while the devices come; it writes a number without the 0 before it, which fails (EBUSY) where there are some; and it
names interfaces, whose names change. Also wrong: that SR-IOV "does not work" without ACS. Virtual functions work,
for containers for example; what is lacking is isolation, for guests (acs.isolation).`,
	Refs: []string{
		"https://docs.kernel.org/PCI/pci-iov-howto.html", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci",
		"https://www.freedesktop.org/software/systemd/man/latest/systemd.link.html",
	},
	Requires: []string{"driver.bound"},
	Run:      runVFs,
}

func runVFs(_ context.Context, r *check.Run) error {
	eachNIC(r, func(n *profile.NICRule) bool { return n.VFs.Set }, func(w profile.NICWant) check.Finding { return vfsOf(r, w, w.Rule.VFs) })
	return nil
}

func vfsOf(r *check.Run, w profile.NICWant, want profile.Val[int]) check.Finding {
	n, fn := w.NIC, w.PCI
	f := check.Finding{Subject: n.Subject(), Want: strconv.Itoa(want.V), Source: want.Origin.String()}
	switch {
	case n.BDF != nil && (!n.Physical() || n.VF || n.Representor): // of a rule of kind vf or any
		f.Status, f.Why = check.Skip, "it is no physical function"
		return f
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
	if vfs := functionsOf(r, fn); vfs != "" {
		f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("virtfn*"), Value: vfs})
	}
	switch {
	case got == want.V && len(fn.VFs) == got:
		f.Status = check.Pass
	case got == want.V:
		f.Status, f.Got = check.Fail, fmt.Sprintf("%d, of which %d are on the bus", got, len(fn.VFs))
		f.Why = "the kernel took the number once all were there, so some have gone from the bus since"
		f.Next = fmt.Sprintf("see in \"dmesg | grep -F %s\" what became of them; echo 0 > %s, then %d, makes them anew", fn.BDF, fn.Attr("sriov_numvfs"), want.V)
	case fn.TotalVFs != nil && want.V > *fn.TotalVFs:
		f.Status, f.Why = check.Fail, fmt.Sprintf("the device offers %d at most", *fn.TotalVFs)
		f.Next = "raise the limit in the firmware of the NIC (ConnectX: mstconfig, NUM_OF_VFS)"
		f.Fix = offer(want.Origin, wishManual(f.Subject, "NUM_OF_VFS", strconv.Itoa(*fn.TotalVFs), f.Want, f.Why))
	case got == 0 && r.Facts.NoRoomForVFs(fn.BDF) != "": // no wish: the kernel would refuse again until the next boot
		f.Status, f.Why = check.Fail, "the host's firmware left too little memory space for them, and the kernel makes none"
		f.Evidence = append(f.Evidence, check.Evidence{Source: "klog", Value: r.Facts.NoRoomForVFs(fn.BDF)})
		f.Next = "in the firmware setup of the mainboard: SR-IOV and Above 4G Decoding on, or a larger MMIO window; else boot with pci=realloc"
	default:
		f.Status, f.Why = check.Fail, reason(want.Origin, "there is another number of virtual functions than who uses them expects")
		f.Next = fmt.Sprintf("echo %d > %s, after echo 0 where there are some: all of them go first", want.V, fn.Attr("sriov_numvfs"))
		f.Fix = offer(want.Origin, wishNIC("sriov", n, "numvfs", f.Got, f.Want, f.Why))
	}
	return f
}

// functionsOf lists the virtual functions of a function with their groups and,
// where devices are given to guests, what else is in those. iommu.groups
// judges it.
func functionsOf(r *check.Run, fn *facts.PCIFunction) string {
	const most = 8
	var out []string
	for i, bdf := range fn.VFs {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(fn.VFs)-most))
			break
		}
		out = append(out, bdf+groupNote(r, bdf))
	}
	return strings.Join(out, "; ")
}

// groupNote is " (group 8)", or " (group 8 with 0000:9a:00.0)".
func groupNote(r *check.Run, bdf string) string {
	g, bus := r.Facts.IOMMU().Group(bdf), r.Facts.PCI()
	if g == nil {
		return ""
	}
	if vf := bus.At(bdf); vf != nil && assigns(r.Profile) {
		if others, _ := sharing(bus, g, vf); len(others) > 0 {
			if n := len(others) - 3; n > 0 {
				others = append(others[:3], fmt.Sprintf("and %d more", n))
			}
			return fmt.Sprintf(" (group %d with %s)", g.ID, strings.Join(others, ", "))
		}
	}
	return fmt.Sprintf(" (group %d)", g.ID)
}
