// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var iommuChecks = []*check.Check{iommuState, iommuDefault, iommuDomain, iommuGroups, iommuReserved}

const groupsDoc = "Documentation/ABI/testing/sysfs-kernel-iommu_groups"

var iommuState = &check.Check{
	ID: "iommu.state", Title: "The IOMMU is on or off as the profile wants", Severity: check.High, FixTier: plan.Boot,
	Doc: `An active IOMMU is needed to give devices or virtual functions to guests, and for interrupt remapping on hosts with many CPUs.
Without one every device can write to all memory. With one, DMA may be translated (and cost something) or pass
through: iommu.domain judges that.

Only registered units prove anything: /sys/class/iommu holds dmarN on Intel, ivhdN on AMD, smmu3.* on Arm, and is empty when no
IOMMU is active. "DMAR: IOMMU enabled" in the kernel log proves nothing: the kernel prints it while it parses
intel_iommu=on, with VT-d switched off in the firmware too, and does not print it when the kernel was built with
CONFIG_INTEL_IOMMU_DEFAULT_ON. "Default domain type: …" is printed with the IOMMU off as well.

When no unit is active, /sys/firmware/acpi/tables says who to ask: without DMAR (Intel), IVRS (AMD) or IORT (Arm) it is off
in the firmware setup or not given to the guest. With the table it is the kernel command line:

    Intel   intel_iommu=on
    AMD     nothing: it is on unless amd_iommu=off or iommu=off is there
    Arm     nothing

Often copied and wrong: amd_iommu=on ("AMD-Vi: Unknown option"), iommu=on (ignored without a word), intel_iommu=on on AMD.`,
	Refs: []string{groupsDoc, paramsDoc, "Documentation/arch/x86/iommu.rst"},
	Run:  runIOMMUState,
}

func runIOMMUState(_ context.Context, r *check.Run) error {
	want, i := r.Profile.IOMMU.State, r.Facts.IOMMU()
	if !want.Set || want.V == "any" {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile accepts an IOMMU that is on or off"})
		return nil
	}
	f := check.Finding{Want: want.V, Source: want.Origin.String()}
	if i.Active == nil {
		f.Status, f.Why = check.Unknown, i.Unknown["active"]
		r.Report(f)
		return nil
	}
	f.Got, f.Evidence = "off", []check.Evidence{{Source: facts.IOMMUUnits, Value: "no units"}}
	if *i.Active {
		f.Got = "on"
		if i.Units != nil {
			f.Evidence[0].Value = strings.Join(i.Units, " ")
		} else {
			f.Evidence[0] = check.Evidence{Source: "/sys/kernel/iommu_groups/*/type", Value: "domain types that only an active IOMMU gives"}
		}
	}
	f.Status = check.Pass
	if f.Got != want.V {
		f.Status = atMostWarn(check.Fail, want.Origin)
		if *i.Active {
			f.Why = "DMA of every device goes through the IOMMU, and peer-to-peer traffic through the root complex"
			f.Next = iommuOffNext(r.Facts)
			f.Fix = offer(want.Origin, iommuOff(r.Facts)...)
		} else {
			f.Why = "devices cannot be given to guests, and each of them can write to all memory; a kernel log line \"IOMMU enabled\" proves nothing"
			f.Next = iommuOnNext(r.Facts, i)
			f.Fix = offer(want.Origin, iommuOn(r.Facts, i)...)
			if i.Firmware != nil {
				f.Evidence = append(f.Evidence, check.Evidence{Source: facts.ACPITables, Value: orNone(*i.Firmware)})
			}
		}
		if *i.Active || i.Firmware != nil && *i.Firmware != "" { // else no boot of this kernel switches it on
			atNextBoot(r, &f, func(c *facts.Cmdline) (bool, string) {
				on := asksIOMMU(r.Facts, c)
				return on != "" && on == want.V, on
			})
		}
	}
	r.Report(f)
	return nil
}

// asksIOMMU says whether a command line has the IOMMU "on" or "off", "" when
// neither it nor the kernel's configuration tells. AMD's needs no word.
func asksIOMMU(f *facts.Facts, c *facts.Cmdline) string {
	e, vendor := c.Effects.IOMMU, f.Kernel().Vendor
	switch {
	case e == nil:
		return ""
	case e.Disabled, e.Enabled != nil && !*e.Enabled:
		return "off"
	case e.Enabled != nil, vendor != nil && *vendor == "AuthenticAMD":
		return "on"
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// iommuOnNext says who can switch the IOMMU on: firmware, hypervisor or the
// kernel command line.
func iommuOnNext(f *facts.Facts, i *facts.IOMMU) string {
	k := f.Kernel()
	if asked := f.Cmdline().Effects.IOMMU; asked != nil && asked.Disabled {
		return "remove iommu=off, intel_iommu=off or amd_iommu=off from the kernel command line"
	}
	if k.Hypervisor != nil && *k.Hypervisor != "" && i.Firmware != nil && *i.Firmware == "" {
		return "this is a virtual machine: its hypervisor must give it a virtual IOMMU"
	}
	if i.Firmware != nil && *i.Firmware == "" {
		return "switch it on in the firmware setup (VT-d on Intel, IOMMU on AMD, SMMU on Arm)"
	}
	if k.Vendor != nil && *k.Vendor == "GenuineIntel" {
		return "put intel_iommu=on on the kernel command line, and switch VT-d on in the firmware setup"
	}
	return "switch it on in the firmware setup"
}

func iommuOffNext(f *facts.Facts) string {
	switch k := f.Kernel(); {
	case k.Vendor != nil && *k.Vendor == "GenuineIntel":
		return "remove intel_iommu=on or put intel_iommu=off on the kernel command line, or switch VT-d off in the firmware setup"
	case k.Vendor != nil && *k.Vendor == "AuthenticAMD":
		return "put amd_iommu=off on the kernel command line, or switch the IOMMU off in the firmware setup"
	}
	return "switch it off in the firmware setup; to let DMA pass through an active one use iommu.passthrough=1"
}

// iommuOn is what of that a plan can say: tokens, or the firmware setup.
func iommuOn(f *facts.Facts, i *facts.IOMMU) (wishes []plan.Wish) {
	c, k := f.Cmdline(), f.Kernel()
	const why = "without it devices cannot be given to guests"
	setup := []plan.Wish{wishManual("", "IOMMU", "off", "on", why)}
	switch {
	case i.Firmware == nil, *i.Firmware == "" && virtual(f): // the hypervisor has to give it
		return nil
	case *i.Firmware == "":
		return setup
	}
	for _, t := range c.Tokens {
		name := strings.ReplaceAll(t.Name, "-", "_")
		if slices.Contains([]string{"iommu", "intel_iommu", "amd_iommu"}, name) && t.Value != nil && *t.Value == "off" {
			wishes = append(wishes, wishToken(t.Raw, false, "it switches the IOMMU off"))
		}
	}
	if k.Vendor != nil && *k.Vendor == "GenuineIntel" && tokenEffect(c, "intel_iommu", "on", true).holds != yes {
		wishes = append(wishes, wishToken("intel_iommu=on", true, why))
	}
	if wishes == nil {
		return setup
	}
	return wishes
}

func iommuOff(f *facts.Facts) []plan.Wish {
	const why = "DMA of every device goes through the IOMMU"
	switch k := f.Kernel(); {
	case k.Vendor != nil && *k.Vendor == "GenuineIntel":
		return instead(f.Cmdline(), "intel_iommu=off", why)
	case k.Vendor != nil && *k.Vendor == "AuthenticAMD":
		return []plan.Wish{wishToken("amd_iommu=off", true, why)}
	}
	return []plan.Wish{wishManual("", "IOMMU", "on", "off", why)}
}

// passThrough is what makes DMA pass through the IOMMU, or not any more.
func passThrough(f *facts.Facts, on bool, why string) (wishes []plan.Wish) {
	c := f.Cmdline()
	if on {
		token := "iommu.passthrough=1"
		if arch := f.Kernel().Arch; arch != nil && *arch == "amd64" {
			token = "iommu=pt"
		}
		return []plan.Wish{wishToken(token, true, why)}
	}
	for _, raw := range iommuSetters(c, "iommu.passthrough") {
		if _, v, _ := strings.Cut(raw, "="); v == "pt" || isOn(v) {
			wishes = append(wishes, wishToken(raw, false, why))
		}
	}
	if wishes == nil {
		wishes = []plan.Wish{wishToken("iommu.passthrough=0", true, why)}
	}
	return wishes
}

func isOn(v string) bool { on, ok := boolValue(v); return on && ok }

// iommuDevices are the functions that the area judges: network controllers and
// GPUs. When the bus or the IOMMU is not known, it reports that and gives nil;
// a host without an active IOMMU, or without such functions, is a skip.
func iommuDevices(r *check.Run) []*facts.PCIFunction {
	i, bus := r.Facts.IOMMU(), r.Facts.PCI()
	skip := func(s check.Status, why string) []*facts.PCIFunction {
		r.Report(check.Finding{Status: s, Why: why})
		return nil
	}
	switch {
	case i.Active == nil:
		return skip(check.Unknown, i.Unknown["active"])
	case !*i.Active:
		return skip(check.Skip, "no IOMMU is active: "+facts.IOMMUUnits+" is empty")
	case i.Groups == nil:
		return skip(check.Unknown, i.Unknown["groups"])
	case busUnknown(r):
		return nil
	}
	var fns []*facts.PCIFunction
	gap := false
	for _, fn := range bus.Functions {
		switch {
		case fn.Network() || fn.GPU():
			fns = append(fns, fn)
		case unclassed(fn):
			r.Report(unclassedFinding(fn))
			gap = true
		}
	}
	if fns == nil && !gap {
		return skip(check.Skip, "the host has no PCI network controller and no GPU")
	}
	return fns
}

// guestDrivers hold a device for a guest or for user space.
var guestDrivers = []string{"vfio-pci", "vfio-pci-core", "mlx5_vfio_pci", "nvgrace_gpu_vfio_pci", "pci-stub", "pciback", "uio_pci_generic", "igb_uio"}

// hostDriven reports whether a driver of the host's own is bound; nil is not
// known.
func hostDriven(fn *facts.PCIFunction) *bool {
	if fn.Driver == nil {
		return nil
	}
	return new(*fn.Driver != "" && !slices.Contains(guestDrivers, *fn.Driver))
}

// functionName is a function with the interfaces on it: "0000:1a:00.0 enp26s0np0".
func functionName(f *facts.Facts, bdf string) string {
	for _, nic := range f.NICs().Of(bdf) {
		bdf += " " + nic.Name
	}
	return bdf
}

var iommuDomain = &check.Check{
	ID: "iommu.domain", Title: "Host-driven devices have an allowed IOMMU domain type", Severity: check.Medium, FixTier: plan.Boot,
	Doc: `The type of a device's default domain says what its DMA costs and what protects memory from it:

    identity   no translation (iommu=pt): fastest, no protection from the device
    DMA-FQ     translated, unmapped lazily in batches
    DMA        translated, unmapped at once (strict): safest and slowest

Translation costs a mapping per packet. At 200 Gb/s and above, with small pages, that is the bottleneck, and RDMA on
host memory suffers from misses in the IOMMU's cache. So hosts that keep their devices use identity; hosts that must
not trust them use DMA or DMA-FQ. Devices held for guests (vfio) are not judged: their guest's mappings count.

The evidence is the group's type file, not the command line. The kernel takes another type than asked for a device that it does
not trust, and memory encryption cancels a default passthrough.

    cat /sys/kernel/iommu_groups/*/type
    iommu=pt (x86), iommu.passthrough=1 (any)      on the kernel command line, for all devices

At run time the type of one group can be changed while all its devices have no driver bound. iommu=pt does not undo access
control: peer-to-peer traffic still goes up to the root complex.

Often copied and wrong: that with iommu=pt "virtual functions keep their mappings and physical ones go direct". It sets the default domain
of every device that the host drives, virtual functions included; only what vfio gives to a guest gets mappings. Not for Grace with
GPUDirect Storage, where translation stays on, and not how 64-bit Arm spells it.`,
	Refs:     []string{groupsDoc, paramsDoc},
	Requires: []string{"iommu.state"},
	Run:      runIOMMUDomain,
}

func runIOMMUDomain(_ context.Context, r *check.Run) error {
	want := r.Profile.IOMMU.DomainTypes
	if !want.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile accepts any domain type"})
		return nil
	}
	fns := iommuDevices(r)
	judged := false
	for _, fn := range fns {
		driven := hostDriven(fn)
		if driven != nil && !*driven {
			continue
		}
		judged = true
		d := domainOf(r.Facts, fn, driven, want)
		if (d.Status == check.Fail || d.Status == check.Warn) && d.Fix != nil {
			atNextBoot(r, &d, func(c *facts.Cmdline) (bool, string) {
				asked := ""
				if e := c.Effects.IOMMU; e != nil {
					asked = e.Default
				}
				return slices.Contains(want.V, asked), asked
			})
		}
		r.Report(d)
	}
	if fns != nil && !judged {
		r.Report(check.Finding{Status: check.Skip, Why: "no network controller and no GPU has a driver of the host bound"})
	}
	return nil
}

func domainOf(f *facts.Facts, fn *facts.PCIFunction, driven *bool, want profile.Val[[]string]) check.Finding {
	g := f.IOMMU().Group(fn.BDF)
	d := check.Finding{Subject: functionName(f, fn.BDF), Want: strings.Join(want.V, " or "), Source: want.Origin.String()}
	switch {
	case driven == nil:
		d.Status, d.Why = check.Unknown, "which driver is bound is not known: "+fn.Unknown["driver"]
		return d
	case g == nil:
		if why := groupGap(f.IOMMU()); why != "" {
			d.Status, d.Why = check.Unknown, why
			return d
		}
		d.Got = "in no IOMMU group: its DMA is not translated"
		d.Evidence = []check.Evidence{{Source: "/sys/kernel/iommu_groups", Value: "no group holds " + fn.BDF}}
		if d.Status = check.Pass; !slices.Contains(want.V, "identity") {
			d.Status = atMostWarn(check.Fail, want.Origin)
			d.Why, d.Next = "no active IOMMU covers this device", "look for units that the firmware's table leaves out"
		}
		return d
	case g.Type == nil:
		d.Status, d.Why = check.Unknown, g.Unknown["type"]
		return d
	}
	d.Got = *g.Type
	d.Evidence = []check.Evidence{{Source: g.Path("type"), Value: *g.Type}}
	if d.Status = check.Pass; !slices.Contains(want.V, *g.Type) {
		d.Status = atMostWarn(check.Fail, want.Origin)
		d.Why, d.Next = domainWhy(*g.Type)
		switch *g.Type {
		case "DMA", "DMA-FQ":
			if slices.Contains(want.V, "identity") {
				d.Fix = offer(want.Origin, passThrough(f, true, d.Why)...)
			}
		case "identity":
			d.Fix = offer(want.Origin, passThrough(f, false, d.Why)...)
		}
		if asked := f.Cmdline().Effects.IOMMU; asked != nil && asked.Default != *g.Type && slices.Contains(want.V, asked.Default) {
			d.Next, d.Fix = "the command line asks for "+asked.Default+" already: iommu.default says more", nil
		}
	}
	return d
}

// groupGap says why a device that no group lists may yet be in one.
func groupGap(i *facts.IOMMU) string {
	for n := range i.Groups {
		if i.Groups[n].Devices == nil {
			return i.Groups[n].Unknown["devices"]
		}
	}
	return ""
}

func domainWhy(kind string) (why, next string) {
	switch kind {
	case "DMA", "DMA-FQ":
		return "each DMA buffer is mapped and unmapped, which costs throughput and latency at high packet rates",
			"put iommu=pt (x86) or iommu.passthrough=1 on the kernel command line"
	case "identity":
		return "nothing keeps the device from writing to all memory",
			"remove iommu=pt and iommu.passthrough=1 from the kernel command line, or put iommu.passthrough=0 last"
	}
	return "the host's driver cannot use the device in such a domain", "find out who holds the group, such as a vfio user"
}

var iommuDefault = &check.Check{
	ID: "iommu.default", Title: "IOMMU domains are as the command line asks", Severity: check.Low,
	Doc: `The command line and the kernel's configuration give the default domain type (iommu=pt, iommu.passthrough=, iommu.strict=); the groups
show what came of it. They differ when the kernel distrusts a device (an external port), when memory encryption cancels a
default passthrough, when a driver or quirk needs another type, when someone wrote to a group's type file, or when the
option was not understood at all. This check compares the two for the groups of network controllers and GPUs,
so that nobody tunes a host by its command line alone. A difference warns; a device that passes through although
translation was asked for fails.

iommu=pt|nopt and iommu.passthrough= are one state; the last one wins. The kernel log says "Default domain type: …", with no
IOMMU active too.

    cat /proc/cmdline; grep . /sys/kernel/iommu_groups/*/type`,
	Refs:     []string{groupsDoc, paramsDoc},
	Requires: []string{"iommu.state"},
	Run:      runIOMMUDefault,
}

func runIOMMUDefault(_ context.Context, r *check.Run) error {
	fns := iommuDevices(r)
	if fns == nil {
		return nil
	}
	cmdline := r.Facts.Cmdline()
	if cmdline.Effects.IOMMU == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: cmdline.Effects.Unknown["iommu"]})
		return nil
	}
	want := cmdline.Effects.IOMMU.Default
	if want == "" {
		why := "what the command line and the kernel configuration ask for is not known"
		if more := reasons(r.Facts.Kernel().Unknown, "config", "arch"); more != "" {
			why += ": " + more
		}
		r.Report(check.Finding{Status: check.Unknown, Why: why})
		return nil
	}
	asked := check.Evidence{Source: "/proc/cmdline", Value: "asks for " + want}
	if cmdline.Text != nil {
		asked.Value = iommuTokens(cmdline)
	}
	for _, fn := range fns {
		g := r.Facts.IOMMU().Group(fn.BDF)
		if g == nil {
			continue
		}
		f := check.Finding{Subject: functionName(r.Facts, fn.BDF), Want: want, Source: paramsDoc}
		if g.Type == nil {
			f.Status, f.Why = check.Unknown, g.Unknown["type"]
			r.Report(f)
			continue
		}
		f.Got, f.Status = *g.Type, check.Pass
		f.Evidence = []check.Evidence{asked, {Source: g.Path("type"), Value: *g.Type}}
		if *g.Type != want {
			f.Status = check.Warn
			f.Truth = &check.Truth{Configured: want, Live: *g.Type}
			f.Why = "the kernel gave the device another domain than the command line asks for"
			if *g.Type == "identity" {
				f.Status = check.Fail
				f.Why = "the command line asks for translation, and nothing keeps this device from writing to all memory"
			}
			f.Next = "look in the kernel log for the device and for \"Default domain type\"; undo a write to " + g.Path("type")
		}
		r.Report(f)
	}
	return nil
}

// iommuTokens are the tokens that bear on the default domain type.
func iommuTokens(c *facts.Cmdline) string {
	var raw []string
	for _, t := range c.Tokens {
		switch strings.ReplaceAll(t.Name, "-", "_") {
		case "iommu", "iommu.passthrough", "iommu.strict", "intel_iommu", "amd_iommu":
			raw = append(raw, t.Raw)
		}
	}
	if raw == nil {
		return "no IOMMU option: the kernel's default"
	}
	return strings.Join(raw, " ")
}
