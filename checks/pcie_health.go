// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var pcieHealthChecks = []*check.Check{pcieErrors, pcieCorrectable, pcieASPM, pcieBAR}

var pcieErrors = &check.Check{
	ID:       "pcie.errors",
	Title:    "No PCI Express transaction of a NIC or GPU was lost since boot",
	Severity: check.High,
	Doc: `Every PCI Express port reports what goes wrong on its link (Advanced Error Reporting), and the kernel counts it. A fatal error
takes the link down. A non-fatal one loses a transaction: a completion that never came, a poisoned packet. Both are counted since
the device was found, and either one is a finding: on a device that works there are none. Unsupported requests alone are a
warning, as firmware and drivers that probe cause them, too.

Correctable errors were repaired by the link itself, by sending again. Some are normal; what counts is how fast they
grow, which one look cannot tell. They are shown here and judged by pcie.correctable; pcie.link judges what a bad link usually ends as.

Looked at are NICs of the profile, GPUs, and all ports above them. Counts of 0 prove little where the firmware keeps the errors to
itself (no "AER" in the _OSC line of the kernel log): then it may report them in the log of the BMC only.

By hand:

    grep . /sys/bus/pci/devices/0000:18:00.0/aer_dev_{fatal,nonfatal,correctable} | grep -v ' 0$'
    dmesg | grep -iE 'AER|PCIe Bus Error'
    watch -d -n 10 cat /sys/bus/pci/devices/0000:18:00.0/aer_dev_correctable

Then reseat card, riser and cable of the slot; update the NIC's and the switch's firmware; try the card in another slot. The
counts start anew at the next boot.`,
	Refs: []string{"https://docs.kernel.org/PCI/pcieaer-howto.html", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats"},
	Run:  runPCIeErrors,
}

func runPCIeErrors(_ context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	eachLinked(r, func(fn *facts.PCIFunction) check.Finding { return judgeErrors(fn, r.Facts.AER().Of(fn.BDF)) })
	return nil
}

// eachLinked reports what judge says of each NIC and GPU and of all ports above
// them, by address.
func eachLinked(r *check.Run, judge func(*facts.PCIFunction) check.Finding) {
	nics, gpus := fastDevices(r)
	var order []*facts.PCIFunction
	below := map[string][]*facts.PCIFunction{}
	for _, fn := range slices.Concat(nics, gpus) {
		above, _ := r.Facts.PCI().Above(fn)
		for _, on := range append([]*facts.PCIFunction{fn}, above...) {
			if below[on.BDF] == nil {
				order = append(order, on)
			}
			below[on.BDF] = append(below[on.BDF], fn)
		}
	}
	slices.SortFunc(order, func(a, b *facts.PCIFunction) int { return strings.Compare(a.BDF, b.BDF) })
	for _, fn := range order {
		subject := functionSubject(r.Facts, fn)
		if fn.Bridge() {
			subject += " (port above " + subjects(r.Facts, below[fn.BDF]) + ")"
		}
		f := judge(fn)
		f.Subject = subject
		r.Report(f)
	}
}

const noAER = "the kernel counts no errors of it: it does not report them, or the kernel was not built to"

func judgeErrors(fn *facts.PCIFunction, c *facts.AERCounts) check.Finding {
	switch {
	case c == nil:
		return check.Finding{Status: check.Skip, Why: noAER}
	case c.Fatal == nil || c.NonFatal == nil:
		return check.Finding{Status: check.Unknown, Why: first(c.Unknown["fatal"], c.Unknown["nonfatal"])}
	}
	f := check.Finding{Want: "no fatal and no non-fatal error"}
	for _, kind := range []struct {
		name   string
		counts map[string]int64
	}{{"fatal", c.Fatal}, {"nonfatal", c.NonFatal}, {"correctable", c.Correctable}} {
		if kind.counts != nil {
			f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("aer_dev_" + kind.name), Value: errorCounts(kind.counts)})
		}
	}
	lost := maps.Clone(c.NonFatal)
	delete(lost, "UnsupReq")
	delete(lost, "Unsupported Request")
	f.Got = fmt.Sprintf("fatal: %s; non-fatal: %s", errorCounts(c.Fatal), errorCounts(c.NonFatal))
	f.Next = fmt.Sprintf("see in \"dmesg | grep -F %s\" when; reseat card, riser and cable, update firmware, try another slot", fn.BDF)
	switch {
	case len(c.Fatal) > 0:
		f.Status, f.Why = check.Fail, "a fatal error took the link down, and with it what was under way"
	case len(lost) > 0:
		f.Status, f.Why = check.Fail, "transactions were lost on this link"
	case len(c.NonFatal) > 0:
		f.Status, f.Why = check.Warn, "somebody asked for what the device does not have; a driver or firmware that probes does that, too"
	default:
		f.Status, f.Got, f.Next = check.Pass, "none", ""
		if len(c.Correctable) > 0 {
			f.Got = "none; correctable: " + errorCounts(c.Correctable)
			f.Why = "correctable errors count by how fast they grow: pcie.correctable"
		}
	}
	return f
}

func errorCounts(counts map[string]int64) string {
	var s []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		s = append(s, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return orNone(strings.Join(s, ", "))
}

var pcieASPM = &check.Check{
	ID:       "pcie.aspm",
	Title:    "Links of RDMA NICs and GPUs do not sleep while idle",
	Severity: check.Low,
	Doc: `Active State Power Management puts a link to sleep (L0s, L1) when nothing was sent for microseconds. To wake it takes
microseconds, too, and the first packets of a small message pay for them: latency that comes and goes, worst on a quiet host.

Judged only where the profile has "pcie.aspm: false". The truth is the device's end of the link, bits 1:0 of Link Control in
configuration space, which takes root to read.

By hand:

    lspci -vvs 18:00.0 | grep LnkCtl:                                    # "ASPM Disabled"
    cat /sys/module/pcie_aspm/parameters/policy
    echo performance > /sys/module/pcie_aspm/parameters/policy           # at once, until the next boot

For good: pcie_aspm.policy=performance on the kernel command line, or off in the firmware setup.

Often copied and wrong: pcie_aspm=off. It does not switch ASPM off. It tells the kernel to leave everything as the firmware
set it, so a link that the firmware lets sleep goes on sleeping, and the policy file refuses to be written.`,
	Refs: []string{paramsDoc + " (pcie_aspm=)", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci"},
	Run:  runASPM,
}

const aspmPolicy = "/sys/module/pcie_aspm/parameters/policy"

func runASPM(_ context.Context, r *check.Run) error {
	want := r.Profile.PCIe.ASPM
	if !want.Set || want.V {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say pcie.aspm: false"})
		return nil
	}
	if noBus(r) {
		return nil
	}
	policy, err := r.Facts.Host().Text(aspmPolicy)
	nics, gpus := fastDevices(r)
	for _, fn := range slices.Concat(nics, gpus) {
		f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: "off", Source: want.Origin.String()}
		switch x := express(fn); {
		case x == nil && fn.Space != nil && fn.Space.Why == "":
			f.Status, f.Why = check.Skip, "not a PCI Express function"
		case x == nil:
			f.Status, f.Why = check.Unknown, fn.Unknown["mps"]
		case !x.HasLink:
			f.Status, f.Why = check.Skip, "it has no PCI Express link"
		default:
			var on []string
			if x.L0s {
				on = append(on, "L0s")
			}
			if x.L1 {
				on = append(on, "L1")
			}
			f.Status, f.Got = check.Pass, "off"
			f.Evidence = []check.Evidence{{Source: fn.Attr("config") + " LnkCtl", Value: "ASPM " + orNone(strings.Join(on, " "))}}
			if err == nil {
				f.Evidence = append(f.Evidence, check.Evidence{Source: aspmPolicy, Value: policy})
			}
			if on != nil {
				f.Status, f.Got = atMostWarn(check.Fail, want.Origin), strings.Join(on, " and ")+" on"
				f.Why = reason(want.Origin, "the link sleeps while it is idle, and the next message waits until it is awake")
				f.Next = "echo performance > " + aspmPolicy + ", and pcie_aspm.policy=performance on the kernel command line (not pcie_aspm=off, which leaves it as it is)"
			}
		}
		r.Report(f)
	}
	return nil
}

func express(fn *facts.PCIFunction) *facts.Express {
	if fn.Space == nil {
		return nil
	}
	return fn.Space.Express
}

var pcieBAR = &check.Check{
	ID:       "pcie.bar",
	Title:    "GPUs show as much of their memory on PCI Express as they can",
	Severity: check.Medium,
	Doc: `What others reach of a GPU's memory directly, a NIC with GPUDirect RDMA above all, lies behind one base address register (BAR 1
of NVIDIA's, BAR 0 of AMD's). Its size is chosen by the firmware at boot, from those that the device offers. With 256 MB of 80 GB
registrations fail or go through a copy, and the larger one is offered right beside it.

Read is the Resizable BAR capability in configuration space, which takes root: the largest such register of each GPU. A GPU
without the capability has one size, and is skipped. A virtual machine usually does not show it: unknown.

By hand:

    lspci -vvs 19:00.0 | grep -A3 'Resizable BAR'            # "current size: 128GB, supported: 64MB … 128GB"
    nvidia-smi -q -d MEMORY | grep -A3 BAR1

Then in the firmware setup: Above 4G Decoding and Resizable BAR on, and a large enough MMIO window ("MMIO High Size"). The
kernel says in its log where a window was too small: "BAR 1: no space for". pci=realloc helps some hosts.`,
	Refs: []string{"https://docs.nvidia.com/cuda/gpudirect-rdma/", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci"},
	Run:  runBAR,
}

func runBAR(_ context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	_, gpus := fastDevices(r)
	for _, fn := range gpus {
		f := check.Finding{Subject: functionSubject(r.Facts, fn)}
		s := fn.Space
		switch {
		case s == nil:
			f.Status, f.Why = check.Unknown, fn.Unknown["config_bytes"]
		case s.Resizable == nil && s.ExtWhy != "":
			f.Status, f.Why = check.Unknown, fn.Attr("config")+": "+s.ExtWhy
		case s.Resizable == nil:
			f.Status, f.Why = check.Skip, "the size of its registers is fixed"
		default:
			judgeBAR(r, fn, &f)
		}
		r.Report(f)
	}
	return nil
}

func judgeBAR(r *check.Run, fn *facts.PCIFunction, f *check.Finding) {
	bar := fn.Space.Resizable[0]
	for _, b := range fn.Space.Resizable { // the others are doorbells and the like
		if b.LargestMB > bar.LargestMB {
			bar = b
		}
	}
	f.Want, f.Got = facts.SizeName(bar.LargestMB<<10), facts.SizeName(bar.SizeMB<<10)
	f.Evidence = []check.Evidence{{Source: fn.Attr("config") + " Resizable BAR", Value: fmt.Sprintf("BAR %d: %s, offered up to %s", bar.BAR, f.Got, f.Want)}}
	if f.Status = check.Pass; bar.SizeMB < bar.LargestMB {
		f.Status = check.Warn
		if slices.Contains([]string{"baremetal-gpudirect", "vm-gpudirect", "grace-direct-nic"}, r.Profile.Intent) {
			f.Status = byIntent(check.Fail, r.Profile)
		}
		f.Why = "a NIC reaches only this much of the GPU's memory, and the rest by a copy or not at all"
		f.Next = "in the firmware setup: Above 4G Decoding and Resizable BAR on, a larger MMIO window; then look for \"no space for\" in the kernel log"
	}
}
