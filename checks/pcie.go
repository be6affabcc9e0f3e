// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var pcieChecks = []*check.Check{pcieLink, pciePayload, pcieMRRS, pcieRelaxed}

// fastDevices gives the functions that PCI Express is judged for: GPUs, and
// network functions that carry RDMA or that a nics rule selects; no VFs, whose
// link and settings are their physical function's.
func fastDevices(r *check.Run) (nics, gpus []*facts.PCIFunction) {
	chosen := map[string]bool{}
	for _, w := range selected(r) {
		if w.PCI != nil {
			chosen[w.PCI.BDF] = true
		}
	}
	for _, fn := range r.Facts.PCI().Functions {
		switch {
		case fn.VF():
		case fn.GPU():
			gpus = append(gpus, fn)
		case kernelDriver(fn) != "" || (chosen[fn.BDF] && fn.Network()):
			nics = append(nics, fn)
		}
	}
	return nics, gpus
}

// noBus reports that it is not known what is on the PCI bus, and then is true;
// of single functions that may be ones to judge it reports the same.
func noBus(r *check.Run) bool {
	if busUnknown(r) {
		return true
	}
	for _, fn := range r.Facts.PCI().Functions {
		if unclassed(fn) && !fn.VF() {
			r.Report(unclassedFinding(fn))
		}
	}
	return false
}

// busUnknown reports that nothing is known of what is on the PCI bus, and then
// is true.
func busUnknown(r *check.Run) bool {
	bus := r.Facts.PCI()
	why := bus.Why
	if len(bus.Functions) > 0 && !slices.ContainsFunc(bus.Functions, func(fn *facts.PCIFunction) bool { return fn.Class != nil }) {
		why = "what the functions are is not known: " + bus.Functions[0].Unknown["class"]
	}
	if why != "" {
		r.Report(check.Finding{Status: check.Unknown, Why: why})
	}
	return why != ""
}

// unclassed is true of a function that may be a NIC, GPU or bridge or not.
func unclassed(fn *facts.PCIFunction) bool {
	return fn.Class == nil || fn.Vendor == nil && fn.IsClass("02", "03", "12")
}

func unclassedFinding(fn *facts.PCIFunction) check.Finding {
	why := first(fn.Unknown["class"], fn.Unknown["vendor"])
	return check.Finding{Subject: fn.BDF, Status: check.Unknown, Why: "which kind of device it is is not known: " + why}
}

const noWayUp = "not all ports above the device are known"

// virtual reports whether the machine is a virtual one, whose PCI topology is
// made up.
func virtual(f *facts.Facts) bool {
	h := f.Kernel().Hypervisor
	return h != nil && *h != ""
}

var pcieLink = &check.Check{
	ID:       "pcie.link",
	Title:    "PCI Express links run at what both of their ends can do",
	Severity: check.High,
	Doc: `A link trains to the best that both ends have in common. Less than that is a fault: a riser, a slot, dirt on the
contacts, a retimer, a firmware setting. Comparing the device with itself alone finds false faults (a Gen5 NIC in a
Gen4 slot is as good as it gets there) and hides others (the link above the switch). So each link on the way up is
judged by the lower of what its two ends can do, and the links that several devices share are named once.

A GPU that idles lowers its speed by itself, and raises it under load: its speed is reported, only its width is
judged. A NIC does not do that.

A link that is as good as the slot allows can still be too slow for the port: 400 Gb/s needs Gen5 x16, Gen4 x16
carries 252. With "speed_mbps" in the nics rule that is a warning.

The source are max_link_speed, max_link_width and their current_ twins of both ends in sysfs. In a virtual machine the
ports above a device are made up: there a device below its own maximum is unknown.

By hand:

    lspci -vvs 18:00.0 | grep -E 'LnkCap:|LnkSta:'          # lspci says "(downgraded)"
    for d in $(readlink -f /sys/bus/pci/devices/0000:18:00.0 | grep -oE '[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]'); do
      echo $d $(cat /sys/bus/pci/devices/$d/{current,max}_link_{speed,width}); done

Then reseat the card or the riser, look at the firmware's bifurcation and speed settings, and count errors:
/sys/bus/pci/devices/BDF/aer_dev_correctable grows on a bad link.`,
	Refs: []string{"https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci", "https://docs.kernel.org/PCI/pcieaer-howto.html"},
	Run:  runPCIeLink,
}

// pair is one PCI Express link: the lower end, which is a device or the upper
// port of a switch, and the port above it, nil where that is not shown.
type pair struct {
	low, up *facts.PCIFunction
	below   []*facts.PCIFunction // the devices that use it
}

func runPCIeLink(_ context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	nics, gpus := fastDevices(r)
	var pairs []*pair
	byLow := map[string]*pair{}
	for _, fn := range slices.Concat(nics, gpus) {
		links, whole := linksAbove(r.Facts.PCI(), fn)
		if !whole {
			r.Report(check.Finding{Subject: functionSubject(r.Facts, fn), Status: check.Unknown, Why: noWayUp})
		}
		for _, p := range links {
			if known := byLow[p.low.BDF]; known != nil {
				known.below = append(known.below, fn)
				continue
			}
			p.below = []*facts.PCIFunction{fn}
			byLow[p.low.BDF] = p
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b *pair) int { return strings.Compare(a.low.BDF, b.low.BDF) })
	for _, p := range pairs {
		r.Report(judgeLink(r, p))
	}
	return nil
}

// linksAbove gives the links between a device and the root complex. Inside a
// switch there is none: the way goes from a lower port to the upper one.
// whole is false when not all ports above are known.
func linksAbove(bus *facts.PCIBus, fn *facts.PCIFunction) (pairs []*pair, whole bool) {
	above, whole := bus.Above(fn)
	pairs = []*pair{{low: fn}}
	for _, port := range above {
		last := pairs[len(pairs)-1]
		if last.up == nil && !upperPort(port) {
			last.up = port
			continue
		}
		pairs = append(pairs, &pair{low: port})
	}
	return pairs, whole
}

// upperPort is true of the port of a switch that looks to the processor.
func upperPort(fn *facts.PCIFunction) bool {
	return fn.Space != nil && fn.Space.PortType() == "Upstream Port"
}

// noLinkWhy is for a function of a class of which the link is not read.
const noLinkWhy = "the state of its link is not known"

func judgeLink(r *check.Run, p *pair) check.Finding {
	l := p.low.Link
	f := check.Finding{Subject: functionSubject(r.Facts, p.low)}
	if p.low.Bridge() {
		f.Subject += " (switch above " + subjects(r.Facts, p.below) + ")"
	}
	if l.SpeedGTs == nil || l.Width == nil {
		f.Status, f.Why = check.Unknown, first(p.low.Unknown["link.speed_gts"], p.low.Unknown["link.width"], noLinkWhy)
		return f
	}
	if l.MaxSpeedGTs == nil || l.MaxWidth == nil {
		f.Status, f.Why = check.Unknown, first(p.low.Unknown["link.max_speed_gts"], p.low.Unknown["link.max_width"], noLinkWhy)
		return f
	}
	f.Got = link(*l.SpeedGTs, *l.Width)
	f.Evidence = []check.Evidence{
		{Source: l.SpeedSource, Value: fmt.Sprintf("%g GT/s", *l.SpeedGTs)},
		{Source: l.WidthSource, Value: fmt.Sprint(*l.Width)},
		{Source: p.low.BDF, Value: "can do " + link(*l.MaxSpeedGTs, *l.MaxWidth)},
	}
	speed, width, upKnown := *l.MaxSpeedGTs, *l.MaxWidth, false
	if p.up != nil && !virtual(r.Facts) {
		if u := p.up.Link; u.MaxSpeedGTs != nil && u.MaxWidth != nil {
			upKnown = true
			speed, width = min(speed, *u.MaxSpeedGTs), min(width, *u.MaxWidth)
			f.Evidence = append(f.Evidence, check.Evidence{Source: p.up.BDF, Value: "can do " + link(*u.MaxSpeedGTs, *u.MaxWidth)})
		}
	}
	f.Want = link(speed, width)
	slow, narrow := *l.SpeedGTs < speed, *l.Width < width
	switch {
	case !slow && !narrow:
		f.Status = check.Pass
		judgeSlot(r, p, &f)
	case slow && !narrow && p.low.GPU():
		f.Status = check.Pass
		f.Why = "a GPU lowers its link speed while it idles; under load it should be " + link(speed, width)
	case !upKnown:
		f.Status, f.Why = check.Unknown, "less than the device can do; what the port above it can do is not known"
		if virtual(r.Facts) {
			f.Why = "less than the device can do; a virtual machine does not show the slot that it is in"
		}
	default:
		f.Status, f.Why = check.Fail, "the link trained lower than both of its ends can do, and everything below it is slower by as much"
		f.Next = fmt.Sprintf("reseat the card or riser, look at the slot's settings in the firmware setup and at %s", p.low.Attr("aer_dev_correctable"))
	}
	return f
}

// judgeSlot warns where a link that is as good as its ends allow cannot carry
// what the NIC below is wanted for.
func judgeSlot(r *check.Run, p *pair, f *check.Finding) {
	l := p.low.Link
	limited := *l.SpeedGTs < *l.MaxSpeedGTs || *l.Width < *l.MaxWidth
	if limited {
		f.Why = "the slot limits it: the device could do " + link(*l.MaxSpeedGTs, *l.MaxWidth)
	}
	if p.low.Bridge() {
		return
	}
	for _, n := range r.Facts.NICs().Of(p.low.BDF) {
		w := r.Profile.NICRulesFor(n, p.low)
		gbps := gbps(*l.SpeedGTs, *l.Width)
		if want := float64(w.Rule.SpeedMbps.V) / 1000; w.Rule.SpeedMbps.Set && gbps < want {
			f.Status = check.Warn
			f.Why = fmt.Sprintf("the slot carries %.0f Gb/s at most, and the port is wanted for %g", math.Floor(gbps), want)
			f.Next = "put the card into a slot of " + link(*l.MaxSpeedGTs, *l.MaxWidth)
			f.Source = w.Rule.SpeedMbps.Origin.String()
		}
	}
}

// gbps is what a link carries each way before packet headers, in Gb/s: the
// line code takes 2 bits in 10 up to 5 GT/s, 2 in 130 up to 32, and the flits of
// 64 GT/s take 20 bytes in 256.
func gbps(gts float64, width int) float64 {
	rate := gts * float64(width)
	switch {
	case gts <= 5:
		return rate * 8 / 10
	case gts <= 32:
		return rate * 128 / 130
	}
	return rate * 236 / 256
}

func link(gts float64, width int) string { return fmt.Sprintf("%g GT/s x%d", gts, width) }

// subjects names several functions, the first three in full.
func subjects(f *facts.Facts, fns []*facts.PCIFunction) string {
	var names []string
	for _, fn := range fns {
		names = append(names, functionSubject(f, fn))
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("%d more", len(fns)-3))
	}
	return strings.Join(names, ", ")
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

var pciePayload = &check.Check{
	ID:       "pcie.payload",
	Title:    "All ports between a NIC or GPU and the processor agree on the payload size",
	Severity: check.High,
	FixTier:  plan.Boot,
	Doc: `A PCI Express port that receives a packet longer than its MaxPayload treats it as malformed, which is a fatal error:
the link goes down, or the machine. So the size (MPS, in the Device Control register) must not grow on the way up,
and a device with a smaller one than the port above it is safe only as long as it asks for no more than that at once
(MaxReadReq), which is what the kernel's pci=pcie_bus_perf arranges.

Mismatches come from hot plug, from a device that was reset or bound again after the firmware had set the sizes, and
from setpci lines in guides.

By hand, all of the path:

    lspci -vvs 18:00.0 | grep -A2 DevCtl:
    dmesg | grep 'Max Payload Size'

pci=pcie_bus_safe on the kernel command line makes the kernel set one size for each path. A size of 128 where the path
could do 256 or 512 costs bandwidth and is reported, not judged: firmware often chooses it on purpose.`,
	Refs: []string{"https://docs.kernel.org/admin-guide/kernel-parameters.html", "https://docs.kernel.org/PCI/index.html"},
	Run:  runPayload,
}

func runPayload(_ context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	nics, gpus := fastDevices(r)
	for _, fn := range slices.Concat(nics, gpus) {
		above, known := r.Facts.PCI().Above(fn)
		if f, ok := judgePayload(functionSubject(r.Facts, fn), append([]*facts.PCIFunction{fn}, above...), known); ok {
			if f.Fix != nil {
				atNextBoot(r, &f, func(c *facts.Cmdline) (bool, string) {
					e := tokenEffect(c, "pci", "pcie_bus_safe", true)
					return e.holds == yes, e.text
				})
			}
			r.Report(f)
		}
	}
	return nil
}

// judgePayload compares the sizes along a path, the device first; ok is false
// for a path with nothing to compare.
func judgePayload(subject string, path []*facts.PCIFunction, whole bool) (f check.Finding, ok bool) {
	f = check.Finding{Subject: subject, Want: "one size on the whole path"}
	var steps []string
	most := math.MaxInt
	for _, fn := range path {
		if fn.MPS == nil {
			f.Status, f.Why = check.Unknown, fn.BDF+": "+fn.Unknown["mps"]
			return f, true
		}
		steps = append(steps, fmt.Sprint(*fn.MPS))
		most = min(most, fn.Space.Express.MPSMax)
		f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("config") + " DevCtl", Value: fmt.Sprintf("MaxPayload %d, MaxReadReq %d", *fn.MPS, *fn.MRRS)})
	}
	f.Got = strings.Join(steps, " - ")
	if !whole {
		f.Status, f.Why = check.Unknown, noWayUp
		return f, true
	}
	if len(path) == 1 {
		return f, false
	}
	f.Status = check.Pass
	if least := *path[0].MPS; most > least {
		f.Got += fmt.Sprintf(" bytes (the path could do %d)", most)
	} else {
		f.Got += " bytes"
	}
	for i := range path[:len(path)-1] {
		low, up := path[i], path[i+1]
		switch {
		case *low.MPS > *up.MPS:
			f.Status = check.Fail
			f.Why = fmt.Sprintf("%s may send packets of %d bytes, and %s takes %d: longer ones are a fatal error", low.BDF, *low.MPS, up.BDF, *up.MPS)
			f.Next = "boot with pci=pcie_bus_safe, or set the smaller size in the firmware setup"
			f.Fix = []plan.Wish{wishToken("pci=pcie_bus_safe", true, "packets longer than a port takes are a fatal error")}
			return f, true
		case *low.MPS < *up.MPS && *path[0].MRRS > *low.MPS && f.Status == check.Pass:
			f.Status = check.Warn
			f.Why = fmt.Sprintf("%s takes packets of %d bytes, %s may send %d, and the device asks for %d at once", low.BDF, *low.MPS, up.BDF, *up.MPS, *path[0].MRRS)
			f.Next = "boot with pci=pcie_bus_safe (one size) or pci=pcie_bus_perf (read requests no larger than the payload)"
		}
	}
	return f, true
}

var pcieMRRS = &check.Check{
	ID:       "pcie.mrrs",
	Title:    "RDMA NICs may read enough at once",
	Severity: check.Low,
	FixTier:  plan.Firmware,
	Doc: `MaxReadReq (Device Control, bits 14:12) is how much a device may ask for in one read of memory. A NIC that sends reads
all it sends; with small requests the read requests themselves and their tags become the limit. The firmware's 512 is
enough for 100G on most machines. NVIDIA's NIC configuration operator sets 4096 for its performance profiles.

Judged only where the profile has "pcie.mrrs_min"; without it this check is skipped.

By hand, for one NIC (4096 is 5, 512 is 2):

    lspci -vvs 18:00.0 | grep -oE 'MaxReadReq [0-9]+'
    setpci -s 18:00.0 CAP_EXP+08.w=5000:f000

The mask after the colon matters: bit 15 of this register resets the function. The setting is lost at a reboot and
when the device is reset, and kernel lockdown (Secure Boot) refuses it. Do not raise it where pci=pcie_bus_perf keeps it
down: there a larger request gets completions that the device does not take (pcie.payload).`,
	Refs: []string{"https://github.com/Mellanox/nic-configuration-operator", "https://man7.org/linux/man-pages/man8/setpci.8.html"},
	Run:  runMRRS,
}

func runMRRS(_ context.Context, r *check.Run) error {
	want := r.Profile.PCIe.MRRSMin
	if !want.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile has no pcie.mrrs_min"})
		return nil
	}
	if noBus(r) {
		return nil
	}
	nics, _ := fastDevices(r)
	for _, fn := range nics {
		f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: fmt.Sprintf("at least %d bytes", want.V), Source: want.Origin.String()}
		if fn.MRRS == nil {
			f.Status, f.Why = check.Unknown, fn.Unknown["mrrs"]
			r.Report(f)
			continue
		}
		f.Status, f.Got = check.Pass, fmt.Sprintf("%d bytes", *fn.MRRS)
		f.Evidence = []check.Evidence{{Source: fn.Attr("config") + " DevCtl", Value: fmt.Sprintf("MaxReadReq %d", *fn.MRRS)}}
		if *fn.MRRS < want.V {
			f.Status, f.Why = check.Fail, reason(want.Origin, "small read requests hold up what the NIC sends")
			f.Next = fmt.Sprintf("setpci -s %s CAP_EXP+08.w=%x000:f000, until the next reboot or reset", fn.BDF, mrrsCode(want.V))
			f.Fix = offer(want.Origin, wishManual(f.Subject, "MaxReadReq", strconv.Itoa(*fn.MRRS), strconv.Itoa(want.V), f.Why))
		}
		r.Report(f)
	}
	return nil
}

// mrrsCode is the register code of the smallest size that holds n bytes.
func mrrsCode(n int) int { return max(0, bits.Len(uint(n-1))-7) }

var pcieRelaxed = &check.Check{
	ID:       "pcie.relaxed_ordering",
	Title:    "RDMA NICs are allowed relaxed ordering",
	Severity: check.Low,
	FixTier:  plan.Firmware,
	Doc: `Relaxed ordering lets a write pass an earlier one that is held up. Above 100G many processors (AMD EPYC foremost) need
it for full speed. Bit 4 of Device Control is the permission: without it no driver and no program can use it, whatever
NCCL_IB_PCI_RELAXED_ORDERING or IBV_ACCESS_RELAXED_ORDERING say.

Judged only where the profile has "pcie.relaxed_ordering". The kernel itself takes the permission away below root ports
that do it wrong (Intel Haswell and Broadwell servers, AMD A1100; drivers/pci/quirks.c): such a NIC is skipped.

By hand:

    lspci -vvs 18:00.0 | grep -oE 'RlxdOrd[+-]'
    setpci -s 18:00.0 CAP_EXP+08.w=0010:0010

The permission is usually lost to a firmware setting (PCIe relaxed ordering) or to mlxconfig PCI_WR_ORDERING.`,
	Refs: []string{"https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html", "https://docs.kernel.org/infiniband/index.html"},
	Run:  runRelaxed,
}

func runRelaxed(_ context.Context, r *check.Run) error {
	want := r.Profile.PCIe.RelaxedOrdering
	if !want.Set || !want.V {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not ask for pcie.relaxed_ordering"})
		return nil
	}
	if noBus(r) {
		return nil
	}
	nics, _ := fastDevices(r)
	for _, fn := range nics {
		f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: "allowed", Source: want.Origin.String()}
		if fn.Space == nil || fn.Space.Express == nil {
			f.Status, f.Why = check.Unknown, fn.Unknown["mps"]
			r.Report(f)
			continue
		}
		above, whole := r.Facts.PCI().Above(fn)
		on := fn.Space.Express.RelaxedOrdering
		f.Evidence = []check.Evidence{{Source: fn.Attr("config") + " DevCtl", Value: "RlxdOrd" + map[bool]string{true: "+", false: "-"}[on]}}
		switch {
		case on:
			f.Status, f.Got = check.Pass, "allowed"
		case !whole:
			f.Status, f.Why = check.Unknown, noWayUp+", and the kernel forbids it below some of them"
		case len(above) > 0 && noRelaxedOrdering(above[len(above)-1]):
			f.Status, f.Got = check.Skip, "not allowed"
			f.Why = "the kernel forbids it below the root port " + above[len(above)-1].BDF + ", which does it wrong"
		default:
			f.Status, f.Got = check.Fail, "not allowed"
			f.Why = reason(want.Origin, "writes wait for each other, which costs bandwidth above 100G")
			f.Fix = offer(want.Origin, wishManual(f.Subject, "relaxed ordering", "off", "on", f.Why))
			f.Next = fmt.Sprintf("look for a relaxed-ordering setting in the firmware setup; until the next reboot: setpci -s %s CAP_EXP+08.w=0010:0010", fn.BDF)
		}
		r.Report(f)
	}
	return nil
}

// noRelaxedOrdering is true of root ports with the erratum that the kernel
// works around (drivers/pci/quirks.c, quirk_relaxedordering_disable).
func noRelaxedOrdering(port *facts.PCIFunction) bool {
	if port.Vendor == nil || port.Device == nil {
		return false
	}
	in := func(lo, hi string) bool { return *port.Device >= lo && *port.Device <= hi }
	switch *port.Vendor {
	case "8086":
		return in("6f01", "6f0e") || in("2f01", "2f0e")
	case "1022":
		return in("1a00", "1a02")
	}
	return false
}
