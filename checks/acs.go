// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var acsChecks = []*check.Check{acsRedirect, acsIsolation}

// acsIntents is what the ports of a GPU-NIC path should hold, by intent, as the
// kernel writes it in pci=config_acs=: bit 6 (DirectTrans) first, bit 0
// (SrcValid) last, x for either. "" is a port that does not matter.
// Sources: rdma-core kernel-boot/rdma_topo; NVIDIA NCCL, GPUDirect Storage and
// AI Enterprise (GPUDirect in virtual machines) guides.
var acsIntents = map[string]struct{ nic, gpu, root, between string }{
	"baremetal-gpudirect": {nic: "xx000x0", gpu: "xx000x0", between: "xx000x0"},
	"sriov-tenant":        {nic: "xx111x1", gpu: "xx111x1", root: "xx111x1", between: "xx111x1"},
	"vm-gpudirect":        {nic: "1x111x1", gpu: "xx111x1", root: "xx111x1", between: "xx111x1"},
	"grace-direct-nic":    {nic: "xx110x1", gpu: "xx101x1", root: "xx111x0"},
}

// acsPort is one port to be judged, and what it should hold.
type acsPort struct {
	fn      *facts.PCIFunction
	pattern string
}

// acsHost is what the ACS checks look at: the devices that matter, and for each
// bridge which of them are below it.
type acsHost struct {
	*check.Run
	nics, gpus []*facts.PCIFunction
	granted    []*facts.PCIFunction // functions that a guest or a program drives
	below      map[*facts.PCIFunction][]*facts.PCIFunction
	lost       []*facts.PCIFunction // devices above which not all ports are known

	// findPathPorts gives the ports on the ways between GPUs and NICs, found once.
	pathPorts func() []*acsPort
}

func acsHostOf(r *check.Run) *acsHost {
	h := &acsHost{Run: r, below: map[*facts.PCIFunction][]*facts.PCIFunction{}}
	h.pathPorts = sync.OnceValue(h.findPathPorts)
	h.nics, h.gpus = fastDevices(r)
	if r.Profile.Intent == "grace-direct-nic" {
		h.nics = nil
		for _, fn := range r.Facts.PCI().Functions {
			if fn.ID() == directNIC {
				h.nics = append(h.nics, fn)
			}
		}
	}
	for _, fn := range r.Facts.PCI().Functions {
		if fn.Driver != nil && slices.Contains(handedOver, *fn.Driver) {
			h.granted = append(h.granted, fn)
		}
	}
	for _, fn := range h.devices() {
		above, whole := r.Facts.PCI().Above(fn)
		if !whole && !slices.Contains(h.lost, fn) {
			h.lost = append(h.lost, fn)
		}
		for _, port := range above {
			if !slices.Contains(h.below[port], fn) {
				h.below[port] = append(h.below[port], fn)
			}
		}
	}
	return h
}

func (h *acsHost) devices() []*facts.PCIFunction { return slices.Concat(h.nics, h.gpus, h.granted) }

// reportLost reports those of the devices above which not all ports are known;
// gap is true when there may be ports to judge that are not known.
func (h *acsHost) reportLost(devices []*facts.PCIFunction) (gap bool) {
	for _, fn := range h.lost {
		if slices.Contains(devices, fn) {
			h.Report(check.Finding{Subject: functionSubject(h.Facts, fn), Status: check.Unknown, Why: noWayUp})
			gap = true
		}
	}
	return gap || slices.ContainsFunc(h.Facts.PCI().Functions, unclassed)
}

// subject names a port by its address and what is below it.
func (h *acsHost) subject(port *facts.PCIFunction) string {
	return port.BDF + " (above " + subjects(h.Facts, h.below[port]) + ")"
}

// grantedBelow gives a function below the port that a guest or a program
// drives, or nil.
func (h *acsHost) grantedBelow(port *facts.PCIFunction) *facts.PCIFunction {
	for _, fn := range h.below[port] {
		if slices.Contains(h.granted, fn) {
			return fn
		}
	}
	return nil
}

var acsRedirect = &check.Check{
	ID:       "acs.redirect",
	Title:    "The switch ports between GPUs and NICs route peer-to-peer traffic as the intent needs it",
	Severity: check.High,
	FixTier:  plan.Boot,
	Doc: `Access Control Services decide whether a PCIe switch may pass a GPU's data straight to the NIC beside it, or has to
send it up to the processor and back. Redirection protects guests from each other and costs GPUDirect most of its
bandwidth; no setting is right for every host, so the verdict follows the intent:

    intent               port above NIC   above GPU   root port
    baremetal-gpudirect  xx000x0          xx000x0     (any)
    sriov-tenant         xx111x1          xx111x1     xx111x1
    vm-gpudirect         1x111x1          xx111x1     xx111x1
    grace-direct-nic     xx110x1 (DMA)    xx101x1     xx111x0
    guest                (cannot be seen)

The bits from left to right: DirectTrans, EgressCtrl, UpstreamFwd, CmpltRedir, ReqRedir, TransBlk, SrcValid. Judged are
the ports on the way between each GPU and NIC that share a switch; for sriov-tenant all ports above NICs and GPUs, and
there the redirection itself (acs.isolation looks at the rest). Two devices below different root ports meet in the
processor, where these bits do not decide.

The truth is in configuration space. Any active IOMMU driver switches SrcValid, ReqRedir, CmpltRedir and UpstreamFwd on
for every capable port at boot, and iommu=pt does not undo that. Some Intel chipset ports have the registers twice as
wide; the kernel and this check know them, lspci does not. Reading needs CAP_SYS_ADMIN in the initial user namespace:
in a container without it the answer is unknown.

By hand:

    lspci -vvv -s 17:00.0 | grep -A1 ACSCap
    # at boot, for this port (kernel 6.11 or later):
    pci=config_acs=xx000x0@0000:17:00.0
    # older kernels: pci=disable_acs_redir=0000:17:00.0

A write to the register of the running host (setpci) is lost at the next reset, and leaves IOMMU groups that no longer
tell the truth.

Often copied and wrong: loops that write 0 to every bridge of the host, which also opens the ports above devices that
belong to virtual machines; grepping for SrcValid+ alone; and pcie_acs_override, which pretends. Never open a port while
something below is bound to vfio.`,
	Refs: []string{
		"https://docs.kernel.org/driver-api/pci/p2pdma.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html",
		"https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html", "https://github.com/linux-rdma/rdma-core/blob/master/kernel-boot/rdma_topo",
	},
	Run: runRedirect,
}

func runRedirect(_ context.Context, r *check.Run) error {
	intent := r.Profile.Intent
	if why := noACSIntent(intent); why != "" {
		r.Report(check.Finding{Status: check.Skip, Why: why})
		return nil
	}
	if noBus(r) {
		return nil
	}
	h := acsHostOf(r)
	var ports []*acsPort
	if intent == "sriov-tenant" {
		ports = h.portsAbove(h.devices())
	} else {
		ports = h.pathPorts()
	}
	if gap := h.reportLost(h.devices()); len(ports) == 0 {
		if gap {
			return nil
		}
		r.Report(check.Finding{Status: check.Skip, Why: "no GPU and NIC share a PCIe switch, so these bits decide nothing between them"})
		return nil
	}
	for _, p := range ports {
		r.Report(h.judgeRedirect(p))
	}
	return nil
}

// noACSIntent says why an intent has nothing to judge, or "".
func noACSIntent(intent string) string {
	switch {
	case intent == "guest":
		return "a guest does not see the ports of the machine that it runs on"
	case intent == "":
		return "no intent is stated, and none follows from what runs: --intent says which routing is wanted"
	case acsIntents[intent].nic == "":
		return "the intent " + intent + " says nothing about the routing between devices"
	}
	return ""
}

// findPathPorts gives the ports on the ways between GPUs and NICs below one switch,
// with what the intent wants of each, and the root ports above.
func (h *acsHost) findPathPorts() []*acsPort {
	bus := h.Facts.PCI()
	want := acsIntents[h.Profile.Intent]
	set := &portSet{by: map[string]*acsPort{}}
	aboveGPUs := make([][]*facts.PCIFunction, len(h.gpus))
	for i, gpu := range h.gpus {
		aboveGPUs[i], _ = bus.Above(gpu)
	}
	for _, nic := range h.nics {
		aboveNIC, _ := bus.Above(nic)
		for _, aboveGPU := range aboveGPUs {
			common := commonBridge(aboveNIC, aboveGPU)
			if common == nil || rootPort(common) && len(aboveNIC) == 1 && len(aboveGPU) == 1 {
				continue
			}
			set.way(aboveNIC, common, want.nic, want.between)
			set.way(aboveGPU, common, want.gpu, want.between)
			if root := aboveNIC[len(aboveNIC)-1]; want.root != "" && rootPort(root) {
				set.add(root, want.root)
			}
		}
	}
	return set.list
}

// directNIC is the function of a ConnectX-8 that moves data for a GPU of its
// own on Grace (rdma-core kernel-boot/rdma_topo).
const directNIC = "15b3:2100"

// portSet collects ports, each once, in order.
type portSet struct {
	list []*acsPort
	by   map[string]*acsPort
}

func (s *portSet) add(port *facts.PCIFunction, pattern string) {
	if pattern == "" || s.by[port.BDF] != nil {
		return
	}
	p := &acsPort{fn: port, pattern: pattern}
	s.by[port.BDF] = p
	at, _ := slices.BinarySearchFunc(s.list, port.BDF, func(p *acsPort, bdf string) int { return strings.Compare(p.fn.BDF, bdf) })
	s.list = slices.Insert(s.list, at, p)
}

// way adds the ports from a device up to where its way meets another's: the
// one right above the device, and those between. Upper ports of a switch have
// no ACS as a rule and count only where they have.
func (s *portSet) way(above []*facts.PCIFunction, common *facts.PCIFunction, first, between string) {
	for i, port := range above {
		if port == common {
			return
		}
		if upperPort(port) && port.Space.ACS == nil && port.Space.ExtWhy == "" {
			continue
		}
		if i == 0 {
			s.add(port, first)
		} else {
			s.add(port, between)
		}
	}
}

func rootPort(fn *facts.PCIFunction) bool {
	if fn.Space != nil && fn.Space.Express != nil {
		return fn.Space.PortType() == "Root Port"
	}
	return fn.Parent != nil && *fn.Parent == ""
}

// commonBridge gives the nearest bridge that is above both, or nil.
func commonBridge(a, b []*facts.PCIFunction) *facts.PCIFunction {
	for _, port := range a {
		if slices.Contains(b, port) {
			return port
		}
	}
	return nil
}

// portsAbove gives the root ports and lower switch ports above devices.
func (h *acsHost) portsAbove(devices []*facts.PCIFunction) []*acsPort {
	set := &portSet{by: map[string]*acsPort{}}
	for _, fn := range devices {
		ports, _ := h.Facts.PCI().Above(fn)
		for _, port := range ports {
			if !upperPort(port) {
				set.add(port, isolating)
			}
		}
	}
	return set.list
}

// isolating is the pattern of a port that keeps what is below it apart.
const isolating = "xx111x1"

// acsOf begins the finding about a port; known is false when its registers
// could not be read, which the finding then says.
func (h *acsHost) acsOf(p *acsPort) (f check.Finding, a *facts.ACS, known bool) {
	f = check.Finding{Subject: h.subject(p.fn), Source: "intent " + h.Profile.Intent + " (" + h.Profile.IntentSource + ")"}
	s := p.fn.Space
	switch {
	case s == nil:
		f.Status, f.Why = check.Unknown, cmp.Or(p.fn.Unknown["config_bytes"], "its configuration space is not known")
		return f, nil, false
	case s.ExtWhy != "":
		f.Status, f.Why = check.Unknown, p.fn.Attr("config")+": "+s.ExtWhy
		return f, nil, false
	case s.ACS == nil:
		f.Got = "no ACS capability"
		f.Evidence = []check.Evidence{{Source: p.fn.Attr("config"), Value: fmt.Sprintf("no ACS capability (%s)", cmp.Or(s.PortType(), "conventional PCI"))}}
		return f, nil, true
	}
	a = s.ACS
	f.Got = acsText(a.Ctl)
	f.Evidence = []check.Evidence{{
		Source: fmt.Sprintf("%s ACS at %#x", p.fn.Attr("config"), a.Offset), Value: fmt.Sprintf("capability %04x, control %04x", a.Cap, a.Ctl),
	}}
	if a.Quirk != "" {
		f.Evidence[0].Value += " (" + a.Quirk + ")"
	}
	return f, a, true
}

func acsText(v uint16) string { return fmt.Sprintf("%07b (%s)", v, onBits(v)) }

func onBits(v uint16) string { return cmp.Or(facts.ACSBitNames(v), "all off") }

// wantBits explains a pattern: "xx000x0 (SrcValid, ReqRedir off)".
func wantBits(pattern string) string {
	on, off := facts.ACSPattern(pattern)
	var parts []string
	if on != 0 {
		parts = append(parts, facts.ACSBitNames(on)+" on")
	}
	if off != 0 {
		parts = append(parts, facts.ACSBitNames(off)+" off")
	}
	return pattern + " (" + strings.Join(parts, "; ") + ")"
}

func (h *acsHost) judgeRedirect(p *acsPort) check.Finding {
	f, a, known := h.acsOf(p)
	f.Want = wantBits(p.pattern)
	if !known {
		return f
	}
	if a == nil {
		a = &facts.ACS{}
		if on, _ := facts.ACSPattern(p.pattern); on != 0 {
			f.Status, f.Why = worst(h.Profile), "the port cannot redirect: what is below reaches its neighbours"+assumed(h.Profile)
			f.Next = "isolation needs a switch or slot whose ports have ACS; acs.isolation and the IOMMU groups tell what follows"
			return f
		}
	}
	missing, excess := h.redirectBits(p, a)
	switch {
	case missing == 0 && excess == 0:
		f.Status = check.Pass
		return f
	case missing == 0 && excess&facts.ACSRedirecting == 0:
		f.Status, f.Why = check.Warn, facts.ACSBitNames(excess)+" alone redirects nothing, and is more than this intent needs"+assumed(h.Profile)
	default:
		f.Status, f.Why = worst(h.Profile), whyRedirect(missing, excess)+assumed(h.Profile)
	}
	want := p.pattern
	if excess&facts.ACSEgressControl != 0 {
		want = want[:1] + "0" + want[2:]
	}
	f.Next = acsNext(p.fn.BDF, want, missing, excess)
	f.Fix = offerByIntent(h.Profile, wishACS(p, a, want, f.Why))
	h.atNextBoot(&f, p, a, func(after *facts.ACS) bool {
		missing, excess := h.redirectBits(p, after)
		return missing == 0 && excess == 0
	})
	if fn := h.grantedBelow(p.fn); fn != nil && excess != 0 {
		f.Status, f.Fix, f.Pending = check.Warn, nil, false
		f.Why = fmt.Sprintf("%s, but %s is bound to %s: opening this port would take its isolation away", f.Why, fn.BDF, *fn.Driver)
		f.Next = "take " + fn.BDF + " back from its guest first, or state an intent that keeps guests apart (sriov-tenant, vm-gpudirect)"
	}
	return f
}

// redirectBits gives the bits that a port lacks, and those that it has too many.
func (h *acsHost) redirectBits(p *acsPort, a *facts.ACS) (missing, excess uint16) {
	on, off := facts.ACSPattern(p.pattern)
	if h.Profile.Intent == "sriov-tenant" { // the rest is for acs.isolation
		on &= facts.ACSRequestRedirect | facts.ACSCompletionRedir
	}
	missing = a.Missing(on&^facts.ACSDirectTranslated) | on&facts.ACSDirectTranslated&^a.Ctl
	excess = a.Ctl & off
	// redirection by egress control has no place in a pattern that opens the way
	if off&facts.ACSRequestRedirect != 0 && off&facts.ACSCompletionRedir != 0 {
		excess |= a.Ctl & facts.ACSEgressControl
	}
	return missing, excess
}

// atNextBoot makes a finding pending when the next boot's command line sets
// the port as holds wants it.
func (h *acsHost) atNextBoot(f *check.Finding, p *acsPort, a *facts.ACS, holds func(*facts.ACS) bool) {
	atNextBoot(h.Run, f, func(c *facts.Cmdline) (bool, string) {
		after := *a
		after.Ctl = h.Facts.ACSAfter(c, p.fn.BDF, a)
		return holds(&after), acsText(after.Ctl)
	})
}

// wishACS wants a port's control bits as a pattern has them, at the next boot.
func wishACS(p *acsPort, a *facts.ACS, want, why string) plan.Wish {
	return plan.Wish{
		Setting: plan.Setting{Kind: "acs", Target: p.fn.BDF, Name: "control"},
		Got:     fmt.Sprintf("%07b", a.Ctl&0x7f), Want: want, Tier: plan.Boot, Why: why,
	}
}

func whyRedirect(missing, excess uint16) string {
	var why []string
	if excess&facts.ACSRedirecting != 0 {
		why = append(why, facts.ACSBitNames(excess&facts.ACSRedirecting)+" sends peer-to-peer traffic up to the processor and back, which costs GPUDirect most of its bandwidth")
	}
	switch {
	case missing&facts.ACSRedirecting != 0:
		why = append(why, facts.ACSBitNames(missing)+" is off: devices below reach each other past the IOMMU")
	case missing == facts.ACSDirectTranslated:
		why = append(why, "DirectTrans is off: requests that the NIC has translated (ATS) take the way through the processor too")
	case missing != 0:
		why = append(why, facts.ACSBitNames(missing)+" is off")
	case len(why) == 0:
		why = append(why, facts.ACSBitNames(excess)+" is on")
	}
	return strings.Join(why, "; ")
}

// acsNext says how to set a port: at boot, which is the only time that the
// IOMMU groups follow it.
func acsNext(bdf, pattern string, missing, excess uint16) string {
	boot := fmt.Sprintf("at boot: pci=config_acs=%s@%s (kernel 6.11 or later", pattern, bdf)
	if missing == 0 && excess&facts.ACSRedirecting != 0 {
		boot += "; before: pci=disable_acs_redir=" + bdf
	}
	return boot + ")"
}

var acsIsolation = &check.Check{
	ID:       "acs.isolation",
	Title:    "Every port above devices for guests keeps them apart",
	Severity: check.High,
	Strict:   true,
	FixTier:  plan.Boot,
	Doc: `A device given to a guest must not reach its neighbours past the IOMMU. For that every root port and every lower port
of a switch above it needs SrcValid, ReqRedir, CmpltRedir and UpstreamFwd (0x1d). The kernel takes a bit that the port's
capability lacks as true by construction, and groups together whatever is left open: "all VFs in one group" is a
finding about a port above the NIC, not about the NIC. This check names the port.

Judged where the intent is sriov-tenant or vm-gpudirect, for the ports above GPUs, RDMA NICs and whatever is bound to
vfio; under any other intent only above what is bound to vfio, as somebody has given that away. A port without
the capability may still be known to the kernel as isolating (vendor quirks): there the IOMMU groups decide, which
hold the port itself when it does not isolate.

By hand:

    lspci -vvv -s 17:00.0 | grep -A1 ACSCap
    for g in /sys/kernel/iommu_groups/*; do echo ${g##*/}: $(ls $g/devices); done
    # at boot: an active IOMMU switches the bits on by itself, unless
    # pci=disable_acs_redir= or pci=config_acs= on the command line says otherwise
    grep -o 'pci=[^ ]*' /proc/cmdline

Bits set later with setpci do not change groups that exist. pcie_acs_override= changes the groups and not the hardware:
guests then look separate and are not.`,
	Refs:     []string{"https://docs.kernel.org/driver-api/vfio.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html"},
	Requires: []string{"acs.redirect"},
	Run:      runIsolation,
}

func runIsolation(_ context.Context, r *check.Run) error {
	intent := r.Profile.Intent
	if intent == "guest" {
		r.Report(check.Finding{Status: check.Skip, Why: noACSIntent(intent)})
		return nil
	}
	if noBus(r) {
		return nil
	}
	h := acsHostOf(r)
	gives := intent == "sriov-tenant" || intent == "vm-gpudirect"
	devices := h.granted
	if gives {
		devices = h.devices()
	}
	ports := h.portsAbove(devices)
	if gap := h.reportLost(devices); len(ports) == 0 {
		if gap {
			return nil
		}
		r.Report(check.Finding{Status: check.Skip, Why: "the intent gives no device to guests, and nothing below a port is bound to vfio"})
		return nil
	}
	for _, p := range ports {
		r.Report(h.judgeIsolation(p, gives))
	}
	return nil
}

func (h *acsHost) judgeIsolation(p *acsPort, gives bool) check.Finding {
	f, a, known := h.acsOf(p)
	f.Want = facts.ACSBitNames(facts.ACSIsolation)
	if !known {
		return f
	}
	bad := worst(h.Profile)
	if !gives {
		bad = check.Warn
	}
	group, inside := h.groupWithPort(p.fn)
	switch {
	case a == nil && group == nil:
		f.Status, f.Why = check.Unknown, "the port has no ACS, and there is no IOMMU group to tell whether the kernel knows it to isolate"
		return f
	case a == nil && !inside:
		f.Status = check.Pass
		f.Why = "the port has no ACS, and the kernel knows it to isolate: it is not in the group of what is below"
		f.Evidence = append(f.Evidence, check.Evidence{Source: group.Path("devices"), Value: strings.Join(group.Devices, ", ")})
		return f
	case a == nil:
		f.Status, f.Why = bad, "the port has no ACS, so what is below it shares one IOMMU group"+assumed(h.Profile)
		f.Next = "use another slot, or a switch whose ports have ACS; the whole group can only go to one guest"
	case a.Missing(facts.ACSIsolation) == 0:
		f.Status = check.Pass
		return f
	default:
		missing := a.Missing(facts.ACSIsolation)
		f.Status, f.Why = bad, facts.ACSBitNames(missing)+" is off: devices below can reach each other past the IOMMU"+assumed(h.Profile)
		if !slices.ContainsFunc(h.pathPorts(), func(other *acsPort) bool { return other.fn == p.fn && other.pattern != p.pattern }) { // else acs.redirect says how
			f.Fix = offerByIntent(h.Profile, wishACS(p, a, p.pattern, f.Why))
		}
		f.Next = acsNext(p.fn.BDF, isolating, missing, 0) + "; an active IOMMU switches them on at boot, unless pci=disable_acs_redir= or pci=config_acs= is on the command line"
		h.atNextBoot(&f, p, a, func(after *facts.ACS) bool { return after.Missing(facts.ACSIsolation) == 0 })
	}
	if group != nil && inside {
		f.Evidence = append(f.Evidence, check.Evidence{Source: group.Path("devices"), Value: strings.Join(group.Devices, ", ")})
	}
	return f
}

// groupWithPort gives the IOMMU group of what is below a port, and whether the
// port is in it, which it is when the kernel does not take it to isolate.
func (h *acsHost) groupWithPort(port *facts.PCIFunction) (g *facts.IOMMUGroup, inside bool) {
	g = h.Facts.IOMMU().Group(h.below[port][0].BDF)
	return g, g != nil && slices.Contains(g.Devices, port.BDF)
}
