// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var sriovBootChecks = []*check.Check{sriovAutoprobe, sriovDriver, sriovPersistence}

const (
	iovDoc  = "https://docs.kernel.org/PCI/pci-iov-howto.html"
	pciABI  = "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci"
	linkDoc = "https://www.freedesktop.org/software/systemd/man/latest/systemd.link.html"
)

// eachPF calls judge for the physical functions of the rules that want
// something; the others of the rules are skipped.
func eachPF(r *check.Run, wants func(*profile.NICRule) bool, judge func(profile.NICWant) check.Finding) {
	eachNIC(r, wants, func(w profile.NICWant) (f check.Finding) {
		switch n := w.NIC; {
		case n.BDF != nil && (!n.Physical() || n.VF || n.Representor): // of a rule of kind vf or any
			f.Status, f.Why = check.Skip, "it is no physical function"
		case w.PCI == nil:
			f.Status, f.Why = check.Unknown, "its PCI function is not known"
		case w.PCI.TotalVFs == nil && w.PCI.Unknown["total_vfs"] != "":
			f.Status, f.Why = check.Unknown, w.PCI.Unknown["total_vfs"]
		case w.PCI.TotalVFs == nil:
			f.Status, f.Why = check.Skip, "the device shows no SR-IOV"
		default:
			f = judge(w)
		}
		f.Subject = w.NIC.Subject()
		return f
	})
}

var sriovAutoprobe = &check.Check{
	ID:       "sriov.autoprobe",
	Title:    "New virtual functions get a driver of the host, or none, as the profile wants",
	Severity: check.Low,
	FixTier:  plan.Safe,
	Doc: `When virtual functions are made, the host's driver binds to each of them, makes a network interface and, with mlx5, a host of
queues and interrupts. That is right where containers use them. Where they go to guests it is work that is undone at once: each
must be unbound and given to vfio-pci, and in between NetworkManager or a DHCP client may have taken the interface.

Wanted is "vf_autoprobe" of the nics rule; the truth is sriov_drivers_autoprobe of the physical function. It counts for functions
that are made later: those that are there keep their driver (sriov.driver). Set it before sriov_numvfs.

By hand:

    cat /sys/class/net/ens1np0/device/sriov_drivers_autoprobe
    echo 0 > /sys/class/net/ens1np0/device/sriov_drivers_autoprobe

It is 1 again after a reboot. Whatever makes the functions at boot must set it first; a .link file of systemd cannot.`,
	Refs:     []string{pciABI, iovDoc},
	Requires: []string{"driver.bound"},
	Run:      runAutoprobe,
}

func runAutoprobe(_ context.Context, r *check.Run) error {
	eachPF(r, func(n *profile.NICRule) bool { return n.VFAutoprobe.Set }, func(w profile.NICWant) check.Finding {
		want := w.Rule.VFAutoprobe
		bit := func(on bool) string { return map[bool]string{true: "1", false: "0"}[on] }
		f := check.Finding{Want: bit(want.V), Source: want.Origin.String()}
		d := r.Facts.SRIOVOf(w.PCI.BDF)
		if d == nil || d.Autoprobe == nil {
			f.Status, f.Why = check.Unknown, "its PCI function is not known to be a network controller"
			if d != nil {
				f.Why = d.Unknown["autoprobe"]
			}
			return f
		}
		f.Got = bit(*d.Autoprobe)
		p := w.PCI.Attr("sriov_drivers_autoprobe")
		f.Evidence = []check.Evidence{{Source: p, Value: f.Got}}
		if f.Status = check.Pass; *d.Autoprobe != want.V {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = reason(want.Origin, "new virtual functions that are meant for guests get a driver and an interface on the host first")
			if want.V {
				f.Why = reason(want.Origin, "new virtual functions stay without a driver, so nobody on the host can use them")
			}
			f.Next = fmt.Sprintf("echo %s > %s, before the virtual functions are made", f.Want, p)
			f.Fix = offer(want.Origin, wishFile(p, f.Got, f.Want, f.Why))
		}
		return f
	})
	return nil
}

var sriovDriver = &check.Check{
	ID:       "sriov.driver",
	Title:    "Virtual functions have the driver that their users expect",
	Severity: check.Medium,
	Doc: `A virtual function for a container needs the host's driver (mlx5_core, iavf), one for a guest or DPDK needs vfio-pci; in
either case with the wrong one the pod or guest does not start, or finds no device.

Wanted is "vf_driver" of the nics rule, for all its virtual functions; "none" wants no driver, as tools that bind by themselves
do. The truth is the driver link of each. Nothing is offered: to take a driver away from a function ends what runs on it.

By hand, for a function that nobody uses:

    ls -l /sys/bus/pci/devices/0000:18:00.0/virtfn*/driver
    echo vfio-pci > /sys/bus/pci/devices/0000:18:00.2/driver_override
    echo 0000:18:00.2 > /sys/bus/pci/devices/0000:18:00.2/driver/unbind
    echo 0000:18:00.2 > /sys/bus/pci/drivers_probe

Before that see that no guest or pod has it: an interface that is gone from the host (ip link) is in a pod's namespace.

Often copied and wrong: "echo 15b3 101e > /sys/bus/pci/drivers/vfio-pci/new_id". It takes every function of that kind that has no driver,
now and later, on all NICs. driver_override names one.`,
	Refs:     []string{pciABI, "https://docs.kernel.org/driver-api/vfio.html"},
	Requires: []string{"sriov.vfs"},
	Run:      runVFDriver,
}

func runVFDriver(_ context.Context, r *check.Run) error {
	eachPF(r, func(n *profile.NICRule) bool { return n.VFDriver.Set }, func(w profile.NICWant) check.Finding {
		want, fn := w.Rule.VFDriver, w.PCI
		f := check.Finding{Want: want.V, Source: want.Origin.String()}
		if len(fn.VFs) == 0 {
			f.Status, f.Why = check.Skip, "it has no virtual functions"
			return f
		}
		var wrong, got []string
		for _, bdf := range fn.VFs {
			vf := r.Facts.PCI().At(bdf)
			if vf == nil || vf.Driver == nil {
				f.Status, f.Why = check.Unknown, bdf+": it is not on the bus"
				if vf != nil {
					f.Why = vf.Unknown["driver"]
				}
				return f
			}
			driver := orNone(*vf.Driver)
			if !slices.Contains(got, driver) {
				got = append(got, driver)
			}
			if driver != want.V {
				wrong = append(wrong, bdf+" "+driver)
			}
			if len(f.Evidence) < 8 {
				f.Evidence = append(f.Evidence, check.Evidence{Source: vf.Attr("driver"), Value: driver})
			}
		}
		f.Got = fmt.Sprintf("%d with %s", len(fn.VFs), strings.Join(got, " and "))
		if f.Status = check.Pass; wrong != nil {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = reason(want.Origin, "who is given one of these finds another device than expected: "+some(wrong))
			bdf, _, _ := strings.Cut(wrong[0], " ")
			at := facts.PCIDevices + "/" + bdf
			f.Next = fmt.Sprintf("where nobody uses it: echo %s > %s/driver_override, unbind it from its driver, echo %s > /sys/bus/pci/drivers_probe", want.V, at, bdf)
			if want.V == "none" {
				f.Next = fmt.Sprintf("where nobody uses it: echo %s > %s/driver/unbind", bdf, at)
			}
		}
		return f
	})
	return nil
}

var sriovPersistence = &check.Check{
	ID:       "sriov.persistence",
	Title:    "A reboot brings the virtual functions back, before those who need them start",
	Severity: check.Medium,
	Doc: `sriov_numvfs is 0 after every boot. What makes the functions again, where a rule of the profile wants some ("vfs"), is looked for in

  - .link files of systemd (SR-IOVVirtualFunctions=, version 251 or later). Of all files the first by name that matches the device
    counts, alone: one behind another that matches does nothing, and neither does one that was written for a name the NIC no longer has
  - udev rules and units that write to sriov_numvfs
  - netplan, NetworkManager and the SR-IOV network operator

A number other than the wanted one fails: the next boot will not be like today. None at all is a warning, as a script that
a unit calls cannot be seen here. A unit must be ordered before those who look for the functions: with no Before= of network.target,
NetworkManager.service, systemd-networkd.service or kubelet.service it races with them.

By hand, the shortest that lasts (where the number is wrong today, "hostcheck fix sriov.vfs" writes such a file itself):

    # /etc/systemd/network/10-vfs-ens1np0.link
    [Match]
    Path=pci-0000:18:00.0
    [Link]
    NamePolicy=keep kernel database onboard slot path
    SR-IOVVirtualFunctions=8

NamePolicy belongs in it: this file replaces 99-default.link for the device, and without it the name changes. udevadm
test-builtin net_setup_link /sys/class/net/ens1np0 shows which file counts.

Often copied and wrong: a unit with After=network-pre.target and no Before=. It runs beside NetworkManager and the kubelet, and
it starts with the kernel's name of an interface (eth2), which may be another one tomorrow; the PCI address stays. rc.local is later still.`,
	Refs:     []string{linkDoc, iovDoc, "https://www.freedesktop.org/software/systemd/man/latest/systemd.special.html (network.target)"},
	Requires: []string{"driver.bound"},
	Run:      runVFPersistence,
}

// waitForVFs are units that look for virtual functions as they start.
var waitForVFs = []string{"network-pre.target", "network.target", "NetworkManager.service", "systemd-networkd.service", "networking.service", "kubelet.service"}

func runVFPersistence(_ context.Context, r *check.Run) error {
	eachPF(r, func(n *profile.NICRule) bool { return n.VFs.Set }, func(w profile.NICWant) check.Finding {
		want := w.Rule.VFs
		f := check.Finding{Want: fmt.Sprintf("%d at boot", want.V), Source: want.Origin.String()}
		d := r.Facts.SRIOVOf(w.PCI.BDF)
		if d == nil || d.AtBoot == nil {
			f.Status, f.Why = check.Unknown, "its PCI function is not known to be a network controller"
			if d != nil {
				f.Why = d.Unknown["at_boot"]
			}
			return f
		}
		judgeBootVFs(&f, d, want)
		return f
	})
	return nil
}

func judgeBootVFs(f *check.Finding, d *facts.SRIOVDevice, want profile.Val[int]) {
	var sure, may, blocked []facts.VFSource
	for _, s := range d.AtBoot {
		f.Evidence = append(f.Evidence, check.Evidence{Source: s.Source, Value: vfSource(s)})
		switch {
		case s.Blocked != "":
			blocked = append(blocked, s)
		case s.Sure:
			sure = append(sure, s)
		default:
			may = append(may, s)
		}
	}
	if len(f.Evidence) == 0 {
		f.Evidence = []check.Evidence{{Source: "/etc/systemd/network, /etc/udev/rules.d, /etc/systemd/system", Value: "nothing that makes virtual functions"}}
	}
	f.Next = fmt.Sprintf("a .link file with Path=pci-%s and SR-IOVVirtualFunctions=%d (hostcheck explain sriov.persistence)", d.BDF, want.V)
	for _, s := range sure {
		if s.VFs == nil {
			f.Status, f.Why = check.Unknown, s.Source+" makes them, and its number is not legible"
			return
		}
		if *s.VFs != want.V {
			f.Status, f.Got = atMostWarn(check.Fail, want.Origin), fmt.Sprintf("%d by %s", *s.VFs, s.Source)
			f.Why = "the next boot makes another number than is wanted"
			f.Next = fmt.Sprintf("change the number in %s to %d", s.Source, want.V)
			return
		}
	}
	switch {
	case sure == nil && want.V == 0 && may == nil:
		f.Status, f.Got, f.Next = check.Pass, "nothing makes any", ""
	case sure == nil && may != nil:
		f.Status, f.Why = check.Unknown, may[0].Source+" may be for this device, and says so nowhere"
	case sure == nil && blocked != nil:
		f.Status, f.Got = atMostWarn(check.Fail, want.Origin), "none: "+blocked[0].Source+" does not take effect"
		f.Why = blocked[0].Blocked
	case sure == nil:
		f.Status, f.Got = check.Warn, "nothing that can be seen makes any"
		f.Why = "after a reboot they are gone, unless a script makes them that cannot be seen here"
	default:
		f.Status, f.Got = check.Pass, f.Want+" by "+sure[0].Source
		if unit := sure[0]; unit.Kind == "unit" && !slices.ContainsFunc(strings.Fields(unit.Before), func(u string) bool { return slices.Contains(waitForVFs, u) }) {
			f.Status = check.Warn
			f.Why = "the unit is ordered before none of those who look for the functions, and races with them"
			f.Next = "in [Unit]: Before=network.target NetworkManager.service systemd-networkd.service kubelet.service; better a .link file"
		}
	}
	if f.Status == check.Pass {
		f.Next = ""
	}
}

// vfSource says what a source makes, and whether.
func vfSource(s facts.VFSource) string {
	n := "a number that is not legible"
	if s.VFs != nil {
		n = strconv.Itoa(*s.VFs)
	}
	switch {
	case s.Blocked != "":
		return n + ", without effect: " + s.Blocked
	case !s.Sure:
		return n + ", perhaps for this device"
	}
	return n
}
