// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var driverChecks = []*check.Check{driverInventory, driverBound, driverModules, driverFlavour, driverRDMA, driverFirmware}

var driverInventory = &check.Check{
	ID:       "driver.inventory",
	Title:    "The GPUs, rails and network interfaces that belong in this host are there",
	Severity: check.High,
	Doc: `A GPU that fell off the bus and a NIC whose driver did not start are not broken devices that a list shows:
they are missing from it, and every check about them is silently content. This check counts.

It compares the profile's inventory with what the PCI bus and /sys/class/net hold: "inventory.gpus" display,
3D or accelerator functions of NVIDIA or AMD (the VGA controller of a BMC is none); "inventory.rails" physical
functions whose interfaces a nics rule marks with "rail: true"; and for each nics rule its own "min". A rule that
matches nothing is reported here as skipped, never as a pass, and an interface for which a rule cannot be decided,
because its driver, type or id cannot be read, as unknown: no other check judges it by that rule.

A function that is still listed but reads as all ones does not answer any more and is not counted.

By hand:

    lspci -nn -d 10de::0302          # NVIDIA 3D controllers; AMD: -d 1002::1200
    ls -l /sys/class/net             # interfaces and the device of each
    dmesg | grep -iE 'fallen off|link down|AER'

Something missing on the bus is found by the firmware's inventory (BMC), by reseating, and by the port above it:
"lspci -vvv" of that port shows DLActive- in LnkSta. "echo 1 > /sys/bus/pci/rescan" brings back a device that only
came up late. A count taken from "nvidia-smi -L" misses a GPU that the driver gave up on.`,
	Refs: []string{"https://docs.kernel.org/PCI/sysfs-pci.html", "https://docs.nvidia.com/deploy/xid-errors/index.html"},
	Run:  runInventory,
}

func runInventory(_ context.Context, r *check.Run) error {
	bus, sel := r.Facts.PCI(), r.Profile.SelectNICs(interfaces(r), r.Facts.PCI())
	inv := &r.Profile.Inventory
	if inv.GPUs.Set {
		reportGPUs(r, bus, &inv.GPUs)
	}
	rules := withHidden(r, sel.Rules)
	if inv.Rails.Set {
		reportRails(r, sel, undecidedRails(rules), &inv.Rails)
	}
	for i := range rules {
		reportRule(r, &rules[i])
	}
	reportUndecided(r, rules)
	return nil
}

// reportUndecided reports every interface that a rule may be about and that
// could not be judged: what the rule wants is then asked of it by no check.
func reportUndecided(r *check.Run, selections []profile.RuleSelection) {
	rules := map[string][]string{}
	for _, s := range selections {
		for _, u := range s.Undecided {
			rules[u] = append(rules[u], s.Rule.ID)
		}
	}
	for _, u := range slices.Sorted(maps.Keys(rules)) {
		name, why, _ := strings.Cut(u, ": ")
		r.Report(check.Finding{
			Subject: name, Status: check.Unknown, Want: "a known match of nics rules " + strings.Join(rules[u], ", "),
			Why: why,
		})
	}
}

// hiddenWhy is why a function of [hiddenNICs] is not judged.
const hiddenWhy = "its driver is bound and none of its interfaces is in " + facts.NetClass + ": are they in another network namespace?"

// hiddenNICs gives the network functions that have their driver and no
// interface here, each as the interface that it would have and what the rules
// want of that. Left out is what may well have none: virtual functions, efa,
// and InfiniBand without IPoIB.
func hiddenNICs(r *check.Run) []profile.NICWant {
	bus, nics := r.Facts.PCI(), interfaces(r)
	if nics.List == nil {
		return nil // said by who needs the list
	}
	var hidden []profile.NICWant
	for _, fn := range bus.Functions {
		driver := kernelDriver(fn)
		if driver == "" || driver == "efa" || fn.Driver == nil || *fn.Driver != driver || fn.VF() || !fn.IsClass("0200") {
			continue
		}
		if len(nics.Of(fn.BDF)) == 0 {
			hidden = append(hidden, r.Profile.NICRulesFor(&facts.NIC{BDF: &fn.BDF, Driver: &driver, Type: linkType(fn)}, fn))
		}
	}
	return hidden
}

// reportHidden reports the hidden interfaces of which a rule wants something.
func reportHidden(r *check.Run, wants func(*profile.NICRule) bool) {
	for _, w := range hiddenNICs(r) {
		if wants(&w.Rule) {
			r.Report(check.Finding{Subject: *w.NIC.BDF, Status: check.Unknown, Why: hiddenWhy})
		}
	}
}

// withHidden gives the rules with the hidden interfaces that they match as
// undecided.
func withHidden(r *check.Run, rules []profile.RuleSelection) []profile.RuleSelection {
	rules = slices.Clone(rules)
	for _, w := range hiddenNICs(r) {
		for i := range rules {
			if slices.Contains(w.Rules, rules[i].Rule.ID) {
				rules[i].Undecided = append(slices.Clip(rules[i].Undecided), *w.NIC.BDF+": "+hiddenWhy)
			}
		}
	}
	return rules
}

func reportGPUs(r *check.Run, bus *facts.PCIBus, want *profile.Val[int]) {
	f := check.Finding{Subject: "GPUs", Want: fmt.Sprintf("at least %d", want.V), Source: want.Origin.String()}
	if bus.Functions == nil {
		f.Status, f.Why = check.Unknown, bus.Why
		r.Report(f)
		return
	}
	var found, dead []string
	undecided := 0
	for _, fn := range bus.Functions {
		switch {
		case fn.Class == nil || (fn.Vendor == nil && fn.IsClass("03", "12")):
			undecided++
		case !fn.GPU() || fn.VF():
		case fn.Space != nil && fn.Space.Gone:
			dead = append(dead, fn.BDF)
		default:
			found = append(found, fn.BDF)
		}
	}
	f.Got = strconv.Itoa(len(found))
	f.Evidence = []check.Evidence{{Source: facts.PCIDevices, Value: listOr(found, "no NVIDIA or AMD GPU")}}
	switch {
	case len(found) >= want.V:
		f.Status = check.Pass
	case undecided > 0:
		f.Status, f.Why = check.Unknown, fmt.Sprintf("the maker or class of %d functions is not known", undecided)
	default:
		f.Status, f.Why = check.Fail, "a GPU that is not on the bus cannot be used, and no other check can see it"
		f.Next = "look for the missing device in the BMC's inventory and in dmesg (AER, fallen off the bus); reseat it"
	}
	if len(dead) > 0 {
		f.Got += fmt.Sprintf(" (%s do not answer)", strings.Join(dead, ", "))
	}
	r.Report(f)
}

func reportRails(r *check.Run, sel *profile.Selection, undecided []string, want *profile.Val[int]) {
	nics := r.Facts.NICs()
	f := check.Finding{Subject: "rails", Want: fmt.Sprintf("at least %d", want.V), Source: want.Origin.String()}
	if nics.List == nil {
		f.Status, f.Why = check.Unknown, nics.Why
		r.Report(f)
		return
	}
	functions := map[string]bool{}
	var names []string
	for _, w := range sel.Wants {
		if w.Rule.Rail.V && w.NIC.Physical() && !w.NIC.VF && !functions[*w.NIC.BDF] {
			functions[*w.NIC.BDF] = true
			names = append(names, w.NIC.Name)
		}
	}
	f.Got = strconv.Itoa(len(names))
	f.Evidence = []check.Evidence{{Source: facts.NetClass, Value: listOr(names, "no interface that a rule marks as rail")}}
	switch {
	case len(names) >= want.V:
		f.Status = check.Pass
	case len(undecided) > 0:
		f.Status, f.Why = check.Unknown, "whether these are rails is not known: "+strings.Join(undecided, "; ")
	default:
		f.Status, f.Why = check.Fail, "jobs that expect all rails fail or run on fewer"
		f.Next = "compare \"lspci -nn -d ::0200\" and \"-d ::0207\" with the rails listed; a function without an interface has no driver (driver.bound)"
	}
	r.Report(f)
}

// undecidedRails lists the interfaces that a rail rule could not be judged for.
func undecidedRails(rules []profile.RuleSelection) []string {
	var u []string
	for _, rule := range rules {
		if rule.Rule.Rail.V {
			u = append(u, rule.Undecided...)
		}
	}
	return u
}

func reportRule(r *check.Run, rule *profile.RuleSelection) {
	min := rule.Rule.Min
	f := check.Finding{
		Subject: "nics rule " + rule.Rule.ID, Source: cmp.Or(min.Origin.String(), rule.Rule.String()),
		Got:      fmt.Sprintf("%d", len(rule.Names)),
		Evidence: []check.Evidence{{Source: facts.NetClass, Value: listOr(rule.Names, "no interface matches "+rule.Rule.Match.String())}},
	}
	if min.Set {
		f.Want = fmt.Sprintf("at least %d", min.V)
	}
	switch {
	case r.Facts.NICs().List == nil:
		f.Status, f.Why = check.Unknown, r.Facts.NICs().Why
	case min.Set && len(rule.Names) >= min.V && min.V > 0:
		f.Status = check.Pass
	case len(rule.Undecided) > 0 && (min.Set || len(rule.Names) == 0):
		f.Status, f.Why = check.Unknown, strings.Join(rule.Undecided, "; ")
	case min.Set && len(rule.Names) < min.V:
		f.Status, f.Why = check.Fail, "the rule selects fewer interfaces than belong here, so what it wants is judged for too few"
		f.Next = "see whether the device is there (lspci -nn) and has its driver (driver.bound), and whether the selector is right: " + rule.Rule.Match.String()
	case len(rule.Names) == 0:
		f.Status, f.Why = check.Skip, "no interface matches "+rule.Rule.Match.String()+", so nothing the rule wants was judged"
	default:
		return // it matches, and no count is asked for
	}
	r.Report(f)
}

// listOr joins names, or gives a text for none.
func listOr(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return strings.Join(names, ", ")
}

var driverBound = &check.Check{
	ID:       "driver.bound",
	Title:    "Every RDMA-capable network function has its kernel driver",
	Severity: check.High,
	FixTier:  plan.Safe,
	Doc: `A network function without a driver has no interface, so that nothing else about it can be judged. The truth is the
"driver" link in the function's PCI directory. lsmod is no proof: a loaded module may have bound to nothing (wrong
firmware, a failed probe, a driver override), and a built-in driver does not appear in it.

Judged are the physical functions (in a virtual machine: all functions) that a known RDMA-capable driver of the
kernel is for, by PCI id, or for which a nics rule of the profile names a driver. Virtual functions without a driver
are left alone, they may be kept for virtual machines, unless a rule of kind vf names one.

vfio-pci, uio_pci_generic and their like hand the function to a program or a virtual machine. That is right where the
intent is sriov-tenant or vm-gpudirect, and wrong on a bare-metal GPUDirect host or inside a guest.

By hand:

    lspci -nnk -s 18:00.0
    readlink /sys/bus/pci/devices/0000:18:00.0/driver
    cat /sys/bus/pci/devices/0000:18:00.0/driver_override    # "(null)": none
    dmesg | grep -F 0000:18:00.0

To bind: clear the override (echo > driver_override), load the module, then
"echo 0000:18:00.0 > /sys/bus/pci/drivers_probe". A probe that fails says why in dmesg; on ConnectX often a firmware
that is too old for the driver, or a device in recovery (flash) mode, which shows another PCI id.`,
	Refs: []string{"https://docs.kernel.org/driver-api/driver-model/binding.html", "https://docs.kernel.org/driver-api/vfio.html"},
	Run:  runBound,
}

// handedOver are drivers that give a function to a program or a guest.
var handedOver = []string{"vfio-pci", "mlx5_vfio_pci", "vfio-platform", "uio_pci_generic", "igb_uio", "pci-stub", "pciback", "xen-pciback"}

func runBound(_ context.Context, r *check.Run) error {
	bus, nics := r.Facts.PCI(), interfaces(r)
	if noBus(r) {
		return nil
	}
	ofVFs := slices.ContainsFunc(r.Profile.NICs, func(rule profile.NICRule) bool {
		return rule.Driver.Set && (rule.Match.Kind == "vf" || rule.Match.Kind == "any")
	})
	for _, fn := range bus.Functions {
		if fn.VF() && !ofVFs {
			continue
		}
		if want, source := wantedDriver(r.Profile, nics, fn); want != "" {
			r.Report(judgeDriver(r, fn, want, source))
		}
	}
	return nil
}

// wantedDriver gives the driver that a function should have, and who says so:
// a rule of the profile, or the kernel's id tables for physical functions.
func wantedDriver(p *profile.Profile, nics *facts.NICs, fn *facts.PCIFunction) (want, source string) {
	known := kernelDriver(fn)
	of := nics.Of(fn.BDF)
	if len(of) == 0 && fn.Network() { // as it would be, bound
		of = []*facts.NIC{{BDF: &fn.BDF, Driver: &known, VF: fn.VF(), Type: linkType(fn)}}
	}
	for _, n := range of {
		if w := p.NICRulesFor(n, fn); w.Rule.Driver.Set {
			want, source = w.Rule.Driver.V, w.Rule.Driver.Origin.String()
		}
	}
	if want == "" && known != "" && !fn.VF() {
		want, source = known, "the kernel's PCI id table of "+known
	}
	return want, source
}

func linkType(fn *facts.PCIFunction) *int {
	switch {
	case fn.IsClass("0200"):
		return new(facts.TypeEthernet)
	case fn.IsClass("0207"):
		return new(facts.TypeInfiniBand)
	}
	return nil
}

func judgeDriver(r *check.Run, fn *facts.PCIFunction, want, source string) check.Finding {
	f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: want, Source: source}
	if fn.Driver == nil {
		f.Status, f.Why = check.Unknown, fn.Unknown["driver"]
		return f
	}
	got := *fn.Driver
	f.Got = cmp.Or(got, "no driver")
	f.Evidence = []check.Evidence{{Source: fn.Attr("driver"), Value: cmp.Or(got, "absent")}}
	switch {
	case got == want:
		f.Status = check.Pass
	case got == "":
		f.Status, f.Why = check.Fail, "without a driver the function has no interface and no RDMA device"
		f.Next = fmt.Sprintf("see why in \"dmesg | grep -F %s\"; then \"modprobe %s\" and \"echo %s > /sys/bus/pci/drivers_probe\"", fn.BDF, want, fn.BDF)
		if over, err := r.Facts.Host().Text(fn.Attr("driver_override")); err == nil && over != "" && over != "(null)" {
			f.Why += "; a driver override reserves it for " + over
			f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("driver_override"), Value: over})
		}
		if mod, known := r.Facts.Modules().Find(want); mod == nil && known {
			f.Why += "; the module is not loaded"
			if len(f.Evidence) == 1 { // nothing reserves the function
				f.Fix = []plan.Wish{wishModule(want, "without it "+fn.BDF+" has no driver")}
			}
		}
	case slices.Contains(handedOver, got):
		judgeHandedOver(r, &f, fn, got)
	default:
		f.Status, f.Why = check.Fail, "another driver than the one for this device is bound"
		f.Next = fmt.Sprintf("unbind it (echo %s > /sys/bus/pci/drivers/%s/unbind) and probe again with %s", fn.BDF, got, want)
	}
	return f
}

// judgeHandedOver judges a function that a program or a guest drives: only the
// intent tells whether that is meant.
func judgeHandedOver(r *check.Run, f *check.Finding, fn *facts.PCIFunction, driver string) {
	intent := r.Profile.Intent
	switch intent {
	case "sriov-tenant", "vm-gpudirect":
		f.Status, f.Want = check.Pass, f.Want+", or "+driver+" for a guest"
		f.Why = "the intent " + intent + " hands functions to virtual machines"
		return
	case "":
		f.Status, f.Why = check.Warn, driver+" hands the function to a program or a virtual machine; whether that is meant needs an intent"
		f.Next = "state the intent with --intent sriov-tenant, vm-gpudirect or baremetal-gpudirect"
		return
	}
	f.Status = worst(r.Profile)
	f.Why = driver + " hands the function to a program or a virtual machine, which the intent " + intent + " does not need" + assumed(r.Profile)
	f.Next = fmt.Sprintf("if no guest uses it: echo > %s; echo %s > /sys/bus/pci/drivers/%s/unbind; echo %s > /sys/bus/pci/drivers_probe",
		fn.Attr("driver_override"), fn.BDF, driver, fn.BDF)
}

// worst is the worst status that a verdict by intent may have: an assumed one
// yields at most a warning.
func worst(p *profile.Profile) check.Status {
	if p.IntentSource == profile.Assumed {
		return check.Warn
	}
	return check.Fail
}

// assumed adds to a reason that the intent is a guess, and from what.
func assumed(p *profile.Profile) string {
	if p.IntentSource != profile.Assumed {
		return ""
	}
	return fmt.Sprintf(" (the intent is assumed: %s)", p.IntentWhy)
}

// functionSubject names a PCI function: address, and its interfaces if any.
func functionSubject(f *facts.Facts, fn *facts.PCIFunction) string {
	s := fn.BDF
	for _, n := range f.NICs().Of(fn.BDF) {
		s += " " + n.Name
	}
	return s
}

// idRange is a range of device ids of one maker that one driver is for.
type idRange struct {
	vendor string
	lo, hi uint64
	driver string
}

// rdmaIDs are the RDMA-capable network functions that are told by PCI id, from
// the id tables of the kernel's drivers (mlx4/main.c, mlx5/core/main.c,
// ice_devids.h, bnxt.c, gdma_main.c, ena_netdev.c, efa_main.c).
var rdmaIDs = []idRange{
	{"15b3", 0x1002, 0x1010, "mlx4_core"}, // ConnectX-3 and 3 Pro
	{"15b3", 0x1011, 0x10ff, "mlx5_core"}, // Connect-IB, ConnectX-4 and later
	{"15b3", 0xa2d2, 0xa2ff, "mlx5_core"}, // BlueField
	{"8086", 0x1591, 0x1593, "ice"},       // E810-C
	{"8086", 0x1599, 0x159b, "ice"},       // E810-XXV
	{"8086", 0x12d1, 0x12d4, "ice"},       // E830
	{"1414", 0x00b9, 0x00ba, "mana"},
	{"1414", 0x00c1, 0x00c1, "mana"},
	{"14e4", 0x1750, 0x1752, "bnxt_en"}, // BCM5750x
	{"14e4", 0x1760, 0x1760, "bnxt_en"}, // BCM5760x
	{"14e4", 0x16d6, 0x16dc, "bnxt_en"}, // BCM574xx
	{"1d0f", 0xec20, 0xec21, "ena"},
	{"1d0f", 0xefa0, 0xefa3, "efa"},
}

// kernelDriver gives the driver that the kernel has for an RDMA-capable
// network function, or "".
func kernelDriver(fn *facts.PCIFunction) string {
	if !fn.Network() || fn.Vendor == nil || fn.Device == nil {
		return ""
	}
	device, err := strconv.ParseUint(*fn.Device, 16, 16)
	if err != nil {
		return ""
	}
	for _, r := range rdmaIDs {
		if r.vendor == *fn.Vendor && device >= r.lo && device <= r.hi {
			return r.driver
		}
	}
	return ""
}

var driverModules = &check.Check{
	ID:       "driver.modules",
	Title:    "The kernel modules that this host needs are loaded or built in",
	Severity: check.Medium,
	FixTier:  plan.Safe,
	Doc: `The RDMA half of a NIC is a module of its own (mlx5_ib beside mlx5_core, irdma beside ice), and so are the devices
that programs open (ib_uverbs, rdma_ucm). A missing one shows late, as "no RDMA devices found" in the job.

Wanted are "modules.require" of the profile and the "modules" of each nics rule that selects an interface of this
host. A module counts when /proc/modules lists it in state Live, or /lib/modules/RELEASE/modules.builtin names it.

That a module is loaded does not prove that it drives a device: driver.bound and driver.rdma look at that. lsmod
shows no built-in module, so its silence proves nothing either.

By hand:

    grep -w mlx5_ib /proc/modules || grep /mlx5_ib.ko /lib/modules/$(uname -r)/modules.builtin
    modprobe mlx5_ib

To have it at every boot: a file in /etc/modules-load.d/, or /etc/rdma/modules/*.conf of rdma-core. In a container
/lib/modules is often missing: mount it, or the answer for an absent module is unknown.`,
	Refs:     []string{"https://docs.kernel.org/admin-guide/sysfs-rules.html", "https://man7.org/linux/man-pages/man5/modules-load.d.5.html"},
	Requires: []string{"driver.bound"},
	Run:      runModules,
}

// moduleWant is who wants a module.
type moduleWant struct {
	source string
	nics   []string
}

func runModules(_ context.Context, r *check.Run) error {
	wants := map[string]*moduleWant{}
	add := func(names []string, source, nic string) {
		for _, name := range names {
			name = facts.ModuleName(name)
			w := wants[name]
			if w == nil {
				w = &moduleWant{source: source}
				wants[name] = w
			}
			if nic != "" {
				w.nics = append(w.nics, nic)
			}
		}
	}
	req := r.Profile.Modules.Require
	add(req.V, req.Origin.String(), "")
	for _, w := range selected(r) {
		add(w.Rule.Modules.V, w.Rule.Modules.Origin.String(), w.NIC.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(wants)) {
		r.Report(judgeModule(r, name, wants[name]))
	}
	return nil
}

func judgeModule(r *check.Run, name string, want *moduleWant) check.Finding {
	f := check.Finding{Subject: name, Want: "loaded or built in", Source: want.source}
	if len(want.nics) > 0 {
		f.Want += ", for " + strings.Join(want.nics, ", ")
	}
	mod, known := r.Facts.Modules().Find(name)
	switch {
	case mod == nil && !known:
		u := r.Facts.Modules().Unknown
		f.Status, f.Why = check.Unknown, cmp.Or(u["loaded"], u["built_in"], "the list of modules is not known")
	case mod == nil:
		f.Status, f.Got = check.Fail, "neither"
		f.Why = "what needs the module does not work without it"
		f.Evidence = []check.Evidence{{Source: "/proc/modules", Value: "does not list " + name}, {Source: "modules.builtin", Value: "does not list " + name}}
		f.Next = fmt.Sprintf("modprobe %s; to have it at every boot: echo %s > /etc/modules-load.d/%s.conf", name, name, name)
		f.Fix = []plan.Wish{wishModule(name, f.Why)}
	case mod.State == "built-in":
		f.Status, f.Got = check.Pass, "built in"
		f.Evidence = []check.Evidence{{Source: "modules.builtin", Value: name}}
	case mod.State != "Live":
		f.Status, f.Got = check.Warn, "in state "+mod.State
		f.Why = "the module is not ready"
		f.Evidence = []check.Evidence{{Source: "/proc/modules", Value: name + " " + mod.State}}
		f.Next = "look for its messages in dmesg; a module that stays so hangs in its start or its end"
	default:
		f.Status, f.Got = check.Pass, "loaded"
		f.Evidence = []check.Evidence{{Source: "/proc/modules", Value: name + " Live"}}
	}
	return f
}

var driverFlavour = &check.Check{
	ID:       "driver.flavour",
	Title:    "The modules of one driver stack come from one build",
	Severity: check.High,
	Doc: `MLNX_OFED and DOCA bring their own mlx5_core, mlx5_ib and RDMA core (ib_core, ib_uverbs). A kernel update without a
rebuild of those packages, or a half-removed one, leaves a mix: modules refuse to load ("disagrees about version of
symbol"), or load and behave as neither documentation says, and files such as /sys/class/net/IF/ecn come and go.

The vendor's modules have a version (/sys/module/mlx5_core/version), the kernel's own mlx ones have none; any module
from outside the kernel's tree carries the letter O among the taints in /proc/modules. Compared are the modules that
are loaded: the network driver, its RDMA half, and for mlx4 and mlx5 the RDMA core. For other makers a network driver
and its RDMA half (ice and irdma, bnxt_en and bnxt_re) have to match each other.

By hand:

    cat /sys/module/{mlx5_core,mlx5_ib,ib_core}/version
    modinfo -F filename mlx5_core mlx5_ib ib_core         # kernel/… or updates/dkms/…
    ofed_info -s

To repair: install the vendor packages for the running kernel again (dkms autoinstall), or remove them all, then
update the initramfs and reboot. Do not mix single modules of both.`,
	Refs: []string{"https://docs.nvidia.com/doca/sdk/doca-host+installation+and+upgrade/index.html"},
	Run:  runFlavour,
}

func runFlavour(_ context.Context, r *check.Run) error {
	seen := map[string]bool{}
	for _, fn := range r.Facts.PCI().Functions {
		if fn.Driver == nil || seen[*fn.Driver] || !fn.Network() {
			continue
		}
		seen[*fn.Driver] = true
		if half := facts.RDMAModule(*fn.Driver); half != "" && half != *fn.Driver {
			judgeFlavour(r, *fn.Driver, half)
		}
	}
	return nil
}

func judgeFlavour(r *check.Run, driver, half string) {
	stack := []string{driver, half}
	if strings.HasPrefix(driver, "mlx") {
		stack = append(stack, "ib_core", "ib_uverbs")
	}
	f := check.Finding{Subject: driver, Want: "one build"}
	mods := r.Facts.Modules()
	builds := map[string][]string{}
	for _, name := range stack {
		mod, known := mods.Find(name)
		if mod == nil && known {
			continue // not loaded: driver.modules says whether it should be
		}
		flavour, why := mods.Flavour(name)
		if why != "" {
			f.Status, f.Why = check.Unknown, why
			r.Report(f)
			return
		}
		vendor := "the kernel's"
		if flavour != "in-tree" {
			vendor = "out of tree"
		}
		builds[vendor] = append(builds[vendor], name)
		value := flavour
		if mod.Version != nil && *mod.Version != "" {
			value += " " + *mod.Version
		}
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/proc/modules " + name, Value: value})
	}
	var got []string
	for _, b := range slices.Sorted(maps.Keys(builds)) {
		got = append(got, b+": "+strings.Join(builds[b], ", "))
	}
	f.Got = strings.Join(got, "; ")
	switch len(builds) {
	case 0:
		return
	case 1:
		f.Status = check.Pass
	default:
		f.Status = check.Fail
		f.Why = "modules of two builds do not fit each other: they refuse to load, or behave as neither documentation says"
		f.Next = "install the vendor's packages for this kernel again or remove them all; then update the initramfs and reboot"
	}
	r.Report(f)
}

var driverRDMA = &check.Check{
	ID:       "driver.rdma",
	Title:    "An RDMA device stands on each NIC that should have one",
	Severity: check.High,
	FixTier:  plan.Safe,
	Doc: `An interface that is up and pings may still have no RDMA device: the RDMA half of its driver is a module of its own,
and firmware or devlink can withhold it. Judged are the interfaces for which a nics rule says "rdma: true"; the truth
is a device in /sys/class/infiniband that belongs to the same PCI function.

The evidence tells three causes apart. The driver offers an RDMA part on the auxiliary bus and nothing is bound to
it: the module (mlx5_ib, irdma, bnxt_re, mana_ib) is missing. Something is bound and there is no device: its start
failed, see dmesg. The driver offers none: switched off by firmware or by devlink.

By hand:

    rdma link
    ls /sys/bus/pci/devices/0000:18:00.0/infiniband
    ls -d /sys/bus/auxiliary/devices/mlx5_core.rdma.*
    devlink dev param show pci/0000:18:00.0 name enable_roce

A container sees RDMA devices of its own network namespace only when the RDMA subsystem is in exclusive mode
("rdma system").`,
	Refs:     []string{"https://docs.kernel.org/networking/devlink/mlx5.html", "https://docs.kernel.org/driver-api/auxiliary_bus.html"},
	Requires: []string{"driver.bound", "driver.modules"},
	Run:      runDriverRDMA,
}

func runDriverRDMA(_ context.Context, r *check.Run) error {
	rdma := r.Facts.RDMA()
	for _, w := range selected(r) {
		if !w.Rule.RDMA.V || !w.NIC.Physical() {
			continue
		}
		f := check.Finding{Subject: w.NIC.Subject(), Want: "an RDMA device", Source: w.Rule.RDMA.Origin.String()}
		bdf := *w.NIC.BDF
		dir := facts.PCIDevices + "/" + bdf + "/infiniband"
		switch devices := rdma.At(bdf); {
		case len(devices) > 0:
			var names []string
			for _, d := range devices {
				names = append(names, d.Device)
			}
			f.Status, f.Got = check.Pass, strings.Join(names, ", ")
			f.Evidence = []check.Evidence{{Source: facts.RDMADevices, Value: f.Got + " at " + bdf}}
		case rdma.Devices == nil:
			f.Status, f.Why = check.Unknown, rdma.Why
		case homeless(rdma) != "":
			f.Status, f.Why = check.Unknown, "the PCI function of these RDMA devices is not known: "+homeless(rdma)
		default:
			f.Status, f.Got = check.Fail, "none"
			f.Evidence = []check.Evidence{{Source: dir, Value: "absent"}}
			whyNoRDMA(&f, rdma, bdf)
		}
		r.Report(f)
	}
	return nil
}

// homeless lists RDMA devices of which it is not known where they stand.
func homeless(rdma *facts.RDMA) string {
	var names []string
	for _, d := range rdma.Devices {
		if d.BDF == nil {
			names = append(names, d.Device)
		}
	}
	return strings.Join(names, ", ")
}

func whyNoRDMA(f *check.Finding, rdma *facts.RDMA, bdf string) {
	for _, m := range rdma.Missing {
		if m.Function.BDF != bdf {
			continue
		}
		switch {
		case m.Bound:
			f.Why = fmt.Sprintf("%s is bound to %s, and made no device", m.Module, strings.Join(m.Offered, ", "))
			f.Next = "dmesg | grep -F " + bdf + " tells why its start failed"
		case len(m.Offered) > 0:
			f.Why = fmt.Sprintf("the driver offers %s, and nothing is bound to it", strings.Join(m.Offered, ", "))
			f.Fix = []plan.Wish{wishModule(m.Module, f.Why)}
			f.Next = "modprobe " + m.Module
		case m.Why != "":
			f.Why = "why there is none is not known: " + m.Why
			f.Next = "modprobe " + m.Module
		default:
			f.Why = "the driver offers no RDMA part: firmware or devlink withholds it"
			f.Next = fmt.Sprintf("devlink dev param show pci/%s; enable_roce and enable_rdma want true, and a reload (devlink dev reload pci/%s)", bdf, bdf)
		}
		return
	}
	f.Why = "the function's driver has no RDMA part"
	f.Next = "see driver.bound"
}

var driverFirmware = &check.Check{
	ID:       "driver.firmware",
	Title:    "NIC firmware is recent enough, and the same on all rails",
	Severity: check.Medium,
	FixTier:  plan.Firmware,
	Doc: `Two things are judged. The firmware of an interface against the "firmware_min" of its nics rule, number by number
(28.9 is older than 28.39). And the firmware of all selected physical interfaces of one device id against each
other: rails that differ give one slow or odd rail per job, which is hard to find from above. A difference is a
warning, as a rolling update is one too.

The source is the driver's answer to ETHTOOL_GDRVINFO, what "ethtool -i" prints as firmware-version. The text in
parentheses is the board's PSID: firmware images are per PSID, so boards of one id and several PSIDs cannot take the
same image file, yet should still be of the same release.

By hand:

    for i in /sys/class/net/*; do echo -n "${i##*/} "; ethtool -i ${i##*/} | grep firmware; done
    mlxfwmanager --query            # or: flint -d 18:00.0 q, devlink dev info

An update needs a reset of the card (mlxfwreset) or a reboot to run: until then "flint q" shows two versions.
hostcheck never changes firmware.`,
	Refs: []string{"https://docs.kernel.org/networking/devlink/devlink-info.html"},
	Run:  runFirmware,
}

func runFirmware(_ context.Context, r *check.Run) error {
	kinds := map[string][]profile.NICWant{}
	for _, w := range selected(r) {
		if w.Rule.FirmwareMin.Set {
			r.Report(judgeFirmware(&w))
		}
		if w.PCI != nil && w.PCI.Vendor != nil && w.PCI.Device != nil && !w.NIC.VF && (w.Rule.Rail.V || w.Rule.RDMA.V) {
			kinds[w.PCI.ID()] = append(kinds[w.PCI.ID()], w)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(kinds)) {
		if len(kinds[id]) > 1 {
			r.Report(judgeFirmwareSpread(id, kinds[id]))
		}
	}
	return nil
}

func drvinfo(n *facts.NIC) string { return "ethtool " + n.Name + " drvinfo" }

func judgeFirmware(w *profile.NICWant) check.Finding {
	min := w.Rule.FirmwareMin
	f := check.Finding{Subject: w.NIC.Subject(), Want: "at least " + min.V, Source: min.Origin.String()}
	if w.NIC.Firmware == nil {
		f.Status, f.Why = check.Unknown, w.NIC.Unknown["firmware"]
		return f
	}
	f.Got = *w.NIC.Firmware
	f.Evidence = []check.Evidence{{Source: drvinfo(w.NIC), Value: *w.NIC.Firmware}}
	got := facts.FirmwareVersion(*w.NIC.Firmware)
	switch {
	case got == "":
		f.Status, f.Why = check.Unknown, fmt.Sprintf("the driver's text %q holds no version", *w.NIC.Firmware)
	case facts.CompareVersions(got, min.V) >= 0:
		f.Status = check.Pass
	default:
		f.Status, f.Why = check.Fail, cmp.Or(min.Origin.Why, "older than what this host is qualified with")
		f.Next = "update it with the vendor's tool (mlxfwmanager, devlink dev flash), then reset the card"
		f.Fix = offer(min.Origin, wishManual(w.NIC.Subject(), "firmware version", got, min.V, f.Why))
	}
	return f
}

// judgeFirmwareSpread compares the firmware of all interfaces of a device id.
func judgeFirmwareSpread(id string, wants []profile.NICWant) check.Finding {
	f := check.Finding{Subject: id, Want: "one version on all interfaces of this kind"}
	versions := map[string][]string{}
	for _, w := range wants {
		if w.NIC.Firmware == nil {
			f.Status, f.Why = check.Unknown, w.NIC.Name+": "+w.NIC.Unknown["firmware"]
			continue
		}
		v := cmp.Or(facts.FirmwareVersion(*w.NIC.Firmware), *w.NIC.Firmware)
		versions[v] = append(versions[v], w.NIC.Name)
		f.Evidence = append(f.Evidence, check.Evidence{Source: drvinfo(w.NIC), Value: *w.NIC.Firmware})
	}
	var got []string
	for _, v := range slices.SortedFunc(maps.Keys(versions), facts.CompareVersions) {
		got = append(got, v+" on "+strings.Join(versions[v], ", "))
	}
	f.Got = strings.Join(got, "; ")
	switch {
	case len(versions) > 1:
		f.Status, f.Why = check.Warn, "rails whose firmware differs behave differently, and the slowest decides for the job"
		f.Next = "bring all of them to one release, then reset the cards"
	case f.Status == "":
		f.Status = check.Pass
	}
	return f
}
