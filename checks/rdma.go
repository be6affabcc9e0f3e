// SPDX-License-Identifier: Apache-2.0

package checks

import (
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

var rdmaChecks = []*check.Check{
	rdmaDevice, rdmaPort, rdmaRate, rdmaLinkLayer, rdmaGID, rdmaSubnets, rdmaMemlock, rdmaGPUDirect, rdmaNetns, rdmaCounters,
}

const infinibandABI = "Documentation/ABI/stable/sysfs-class-infiniband"

var rdmaDevice = &check.Check{
	ID: "rdma.device", Title: "The RDMA half of every capable NIC is bound and has made its device", Severity: check.High, FixTier: plan.Safe,
	Doc: `A NIC's driver has two halves: the network half makes the interface, the RDMA half (mlx5_ib, irdma, bnxt_re, mana_ib, …) makes the
device that verbs, NCCL and storage clients open. The interface works without the second, and everything falls back to TCP or fails.

Judged is every physical function whose driver has such a half; driver.rdma judges the profile's wants. The proof is the device
itself, in /sys/class/infiniband, below the function. A loaded module proves nothing: it may be bound to no device, or be built in and
not listed by lsmod. When the device is missing, the function's directory tells why: the network driver offers its RDMA half as
an auxiliary device (mlx5_core.rdma.0, ice.roce.0, mana.rdma.0). Offered and not bound: the module is missing. Bound and no device: its
start failed. Not offered: firmware, devlink or the hypervisor has switched RDMA off for this function.

Without a device it is a failure where a rule of the profile says rdma: true, and left out (skip) elsewhere: a card for management
needs no RDMA. The ports of a bond share the bond's device (mlx5_bond_0).

By hand:

    ls -d /sys/bus/pci/devices/0000:18:00.0/*.rdma.*/driver
    modprobe mlx5_ib                                          # or the module that the finding names
    devlink dev param show pci/0000:18:00.0                   # enable_rdma, enable_roce
    grep -r mlx5_ib /etc/modprobe.d

rdma-core loads the modules at boot, so a host without that package may miss them; a blacklist file is the other usual cause.

Often copied and wrong: apt install mlnx-ofed-kernel-dkms, which no distribution has. The in-tree driver is complete, and mixing
it with parts of MLNX_OFED or DOCA is how the halves come to disagree.`,
	Refs: []string{
		infinibandABI, "https://docs.kernel.org/driver-api/auxiliary_bus.html", "https://docs.kernel.org/networking/devlink/devlink-params.html",
		"rdma-core kernel-boot/rdma-hw-modules.rules",
	},
	Requires: []string{"driver.bound", "driver.rdma"},
	Run:      runRDMADevice,
}

func runRDMADevice(_ context.Context, r *check.Run) error {
	bus, rdma := r.Facts.PCI(), r.Facts.RDMA()
	if bus.Functions == nil {
		return fmt.Errorf("the PCI functions are not known: %s", bus.Why)
	}
	sel := r.Profile.SelectNICs(r.Facts.NICs(), bus)
	for _, fn := range bus.Functions {
		if fn.Driver == nil || fn.VF() || facts.RDMAModule(*fn.Driver) == "" {
			continue
		}
		f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: "an RDMA device made by " + facts.RDMAModule(*fn.Driver)}
		var rule profile.NICRule
		var nic *facts.NIC
		if of := r.Facts.NICs().Of(fn.BDF); len(of) > 0 {
			nic = of[0]
			if w := sel.For(nic.Name); w != nil {
				rule = w.Rule
			}
		}
		if rule.RDMA.Set {
			f.Source = rule.RDMA.Origin.String()
		}
		dev, _ := rdma.On(nic)
		if at := rdma.At(fn.BDF); len(at) > 0 {
			dev = at[0]
		}
		switch {
		case dev != nil:
			f.Status, f.Got = check.Pass, dev.Device
			f.Evidence = []check.Evidence{{Source: facts.RDMADevices + "/" + dev.Device, Value: below(dev)}}
		case rdma.Devices == nil:
			f.Status, f.Why = check.Unknown, "the RDMA devices are not known: "+rdma.Why
		case unplaced(rdma) != "":
			f.Status, f.Why = check.Unknown, "which function has which RDMA device is not known: "+unplaced(rdma)
		default:
			missingRDMA(&f, rdma, fn)
			if f.Status = atMostWarn(check.Fail, rule.RDMA.Origin); !rule.RDMA.V {
				f.Status, f.Next, f.Fix = check.Skip, "", nil
				f.Why += "; no rule of the profile wants RDMA on it"
			}
		}
		r.Report(f)
	}
	return nil
}

// below says where a device stands, for evidence.
func below(d *facts.RDMADevice) string {
	if d.BDF == nil || *d.BDF == "" {
		return "no PCI device"
	}
	return "on " + *d.BDF
}

// unplaced gives the reason why some device's PCI function is not known.
func unplaced(rdma *facts.RDMA) string {
	for _, d := range rdma.Devices {
		if d.BDF == nil {
			return d.Unknown["bdf"]
		}
	}
	return ""
}

// missingRDMA says why a function has no RDMA device and what to do.
func missingRDMA(f *check.Finding, rdma *facts.RDMA, fn *facts.PCIFunction) {
	f.Got = "none"
	f.Evidence = []check.Evidence{{Source: facts.RDMADevices, Value: deviceNames(rdma)}}
	for _, m := range rdma.Missing {
		if m.Function != fn {
			continue
		}
		switch {
		case m.Why != "":
			f.Why, f.Next = "why is not known: "+m.Why, "modprobe "+m.Module
			return
		case m.Bound:
			f.Why = fmt.Sprintf("%s is bound to %s and made no device of it", m.Module, strings.Join(m.Offered, ", "))
			f.Next = "look for errors of " + m.Module + " in the kernel log"
		case len(m.Offered) > 0:
			f.Why = fmt.Sprintf("%s offers %s and nothing is bound to it: %s is not loaded, or refused", *fn.Driver, strings.Join(m.Offered, ", "), m.Module)
			f.Next = "modprobe " + m.Module + "; to have it after a reboot, install rdma-core and look for a blacklist in /etc/modprobe.d"
			f.Fix = []plan.Wish{wishModule(m.Module, f.Why)}
		default:
			f.Why = fmt.Sprintf("%s offers no RDMA half on this function: switched off by firmware, devlink or the hypervisor", *fn.Driver)
			f.Next = fmt.Sprintf("devlink dev param show pci/%s (enable_rdma, enable_roce); before kernel 5.11 modprobe %s", fn.BDF, m.Module)
		}
		f.Evidence = append(f.Evidence, check.Evidence{Source: facts.PCIDevices + "/" + fn.BDF, Value: "RDMA halves offered: " + spaced(m.Offered, "none")})
		return
	}
}

// spaced joins words; none stands for no word.
func spaced(words []string, none string) string {
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, " ")
}

func deviceNames(rdma *facts.RDMA) string {
	var names []string
	for _, d := range rdma.Devices {
		names = append(names, d.Device)
	}
	return spaced(names, "no devices")
}

// rdmaSubject is one port of an RDMA device with what the profile wants of
// its interface; want is nil when no rule is about it.
type rdmaSubject struct {
	dev  *facts.RDMADevice
	port *facts.RDMAPort
	want *profile.NICWant
}

func (s rdmaSubject) name() string {
	if s.want != nil {
		return s.want.NIC.Subject()
	}
	if len(s.dev.Ports) > 1 {
		return fmt.Sprintf("%s port %d", s.dev.Subject(), s.port.Port)
	}
	return s.dev.Subject()
}

// rule gives the profile's rule, empty when there is none.
func (s rdmaSubject) rule() *profile.NICRule {
	if s.want == nil {
		return &profile.NICRule{}
	}
	return &s.want.Rule
}

// rdmaPorts lists the ports about which a rule says something in wants; with
// nil it lists all. VFs of this host and software devices (rxe, siw) are left
// out. What of it cannot be listed is reported.
func rdmaPorts(r *check.Run, wants func(*profile.NICRule) bool) []rdmaSubject {
	nics, rdma := r.Facts.NICs(), r.Facts.RDMA()
	sel := r.Profile.SelectNICs(nics, r.Facts.PCI())
	wanted := func(w *profile.NICWant) bool { return wants == nil || w != nil && wants(&w.Rule) }
	if rdma.Devices == nil {
		if wants == nil || slices.ContainsFunc(sel.Wants, func(w profile.NICWant) bool { return wants(&w.Rule) }) {
			r.Report(check.Finding{Status: check.Unknown, Why: "the RDMA devices are not known: " + rdma.Why})
		}
		return nil
	}
	var all []rdmaSubject
	for _, d := range rdma.Devices {
		if d.VF || d.BDF != nil && *d.BDF == "" {
			continue
		}
		var own *profile.NICWant
		if nic := ownNIC(r, d); nic != nil {
			own = sel.For(nic.Name)
		}
		if d.Ports == nil && wanted(own) {
			r.Report(check.Finding{Subject: rdmaSubject{dev: d, want: own}.name(), Status: check.Unknown, Why: d.Unknown["ports"]})
		}
		for _, p := range d.Ports {
			s := rdmaSubject{dev: d, port: p, want: own}
			if p.Netdev != nil && sel.For(*p.Netdev) != nil {
				s.want = sel.For(*p.Netdev)
			}
			if wanted(s.want) {
				all = append(all, s)
			}
		}
	}
	return all
}

// ownNIC gives the only interface of the device's function: a bond's device
// names the bond, the rules are about its ports.
func ownNIC(r *check.Run, d *facts.RDMADevice) *facts.NIC {
	if d.BDF == nil || len(d.Ports) > 1 {
		return nil
	}
	if of := r.Facts.NICs().Of(*d.BDF); len(of) == 1 {
		return of[0]
	}
	return nil
}

var rdmaPort = &check.Check{
	ID: "rdma.port", Title: "RDMA ports are ACTIVE and LinkUp", Severity: check.High,
	Doc: `An RDMA port has two states. phys_state is the link: "5: LinkUp" after training, "2: Polling" without a partner, "3: Disabled" when
the interface is down. state is what may use it: "4: ACTIVE"; on InfiniBand "2: INIT" means that the link is up and no
subnet manager has configured the port, on Ethernet "1: DOWN" with LinkUp means that the interface itself is down.

Every port of a physical function is judged; one that no rule of the profile wants and that is not active is left out (skip), for many
cards have a port that is not cabled.

    cat /sys/class/infiniband/mlx5_0/ports/1/{state,phys_state}
    ip link set ens1np0 up          # Ethernet
    ibstat; sminfo                  # InfiniBand: is there a subnet manager?
    ethtool ens1np0; mlxlink -d 0000:18:00.0 -m     # cable and module

Often copied and wrong: grepping ibstat for "Active" over all devices, which is satisfied by the one port that works.`,
	Refs: []string{infinibandABI}, Requires: []string{"rdma.device", "link.carrier"},
	Run: runRDMAPort,
}

func runRDMAPort(_ context.Context, r *check.Run) error {
	for _, s := range rdmaPorts(r, nil) {
		rule, p := s.rule(), s.port
		wanted := rule.RDMA.Set && rule.RDMA.V || rule.Carrier.Set && rule.Carrier.V
		f := check.Finding{Subject: s.name(), Want: "ACTIVE and LinkUp"}
		origin := rule.RDMA.Origin
		if rule.Carrier.Set && rule.Carrier.V {
			origin = rule.Carrier.Origin
		}
		if wanted {
			f.Source = origin.String()
		}
		if p.State == nil || p.PhysState == nil {
			f.Status, f.Why = check.Unknown, reasons(p.Unknown, "state", "phys_state")
			r.Report(f)
			continue
		}
		f.Got = fmt.Sprintf("%s, %s", *p.State, *p.PhysState)
		f.Evidence = []check.Evidence{
			{Source: s.dev.PortAttr(p, "state"), Value: *p.State},
			{Source: s.dev.PortAttr(p, "phys_state"), Value: *p.PhysState},
		}
		switch {
		case p.Active() && p.LinkUp():
			f.Status = check.Pass
		case !wanted:
			f.Status, f.Why = check.Skip, "the port is not active, and no rule of the profile wants it to be"
		default:
			f.Status = atMostWarn(check.Fail, origin)
			whyDown(&f, s)
		}
		r.Report(f)
	}
	return nil
}

func whyDown(f *check.Finding, s rdmaSubject) {
	p := s.port
	nic := s.dev.Device
	if p.Netdev != nil && *p.Netdev != "" {
		nic = *p.Netdev
	}
	switch state := facts.StateName(*p.State); {
	case p.LinkUp() && !p.Ethernet() && (state == "INIT" || state == "ARMED"):
		f.Why = "the link is up and no subnet manager has made the port active"
		f.Next = "see whether a subnet manager runs on this fabric: sminfo"
	case p.LinkUp() && p.Ethernet():
		f.Why = "the link is up and the interface is not"
		f.Next = "ip link set " + nic + " up"
	case facts.StateName(*p.PhysState) == "Disabled":
		f.Why = "the port is switched off, as it is while its interface is down"
		f.Next = "ip link set " + nic + " up; then look at the cable and the switch port"
	default:
		f.Why = "the link did not train, so nothing can be sent"
		f.Next = "look at the cable, the module and the switch port: ethtool " + nic + ", ethtool -m " + nic
	}
}

var rdmaRate = &check.Check{
	ID: "rdma.rate", Title: "RDMA ports run at the wanted rate, and at that of their interface", Severity: check.High,
	Doc: `The rate of a port ("400 Gb/sec (4X NDR)") is its active width times its active speed. The check compares it with the speed that
the profile wants of the interface, and with the speed that the interface itself reports: RDMA and network half share one link.

A rate below the wanted one is a cable, module or switch port of a smaller kind, a port split in two, or lost lanes (2X instead of 4X).
A rate that differs from the interface's speed (a warning) is mostly a kernel that is older than the link speed: it
then reports a fixed default rate, and programs that read it (NCCL, UCX) plan with the wrong number.

    cat /sys/class/infiniband/mlx5_0/ports/1/rate /sys/class/net/ens1np0/speed

Often copied and wrong: to compare the text. "200 Gb/sec (2X NDR)" and "200 Gb/sec (4X HDR)" are the same rate.`,
	Refs: []string{infinibandABI, "drivers/infiniband/core/sysfs.c, rate_show"}, Requires: []string{"rdma.device", "rdma.port", "link.speed"},
	Run: runRDMARate,
}

func runRDMARate(_ context.Context, r *check.Run) error {
	for _, s := range rdmaPorts(r, nil) {
		p, rule := s.port, s.rule()
		netSpeed, netSource := netdevSpeed(r, s)
		f := check.Finding{Subject: s.name()}
		wanted := rule.SpeedMbps.Set
		switch {
		case wanted:
			f.Want = fmt.Sprintf("at least %g Gb/s", float64(rule.SpeedMbps.V)/1000)
			f.Source = rule.SpeedMbps.Origin.String()
		case netSpeed > 0:
			f.Want = fmt.Sprintf("%g Gb/s as %s", float64(netSpeed)/1000, *p.Netdev)
		default:
			continue // nothing to compare with
		}
		switch {
		case p.State != nil && !p.Active():
			if wanted {
				f.Status, f.Why = check.Skip, "the port is not active; see rdma.port"
				r.Report(f)
			}
			continue
		case p.RateGbps == nil:
			f.Status, f.Why = check.Unknown, p.Unknown["rate_gbps"]
			r.Report(f)
			continue
		}
		f.Status, f.Got = check.Pass, *p.Rate
		f.Evidence = []check.Evidence{{Source: s.dev.PortAttr(p, "rate"), Value: *p.Rate}}
		if netSpeed > 0 {
			f.Evidence = append(f.Evidence, check.Evidence{Source: netSource, Value: strconv.Itoa(netSpeed)})
		}
		mbps := *p.RateGbps * 1000
		switch {
		case netSpeed > 0 && mbps != float64(netSpeed) && (!wanted || netSpeed >= rule.SpeedMbps.V):
			f.Status = check.Warn
			f.Want = fmt.Sprintf("%g Gb/s as %s", float64(netSpeed)/1000, *p.Netdev)
			f.Why = fmt.Sprintf("the interface runs at %g Gb/s: the RDMA driver does not know this link speed, and programs plan with its number", float64(netSpeed)/1000)
			f.Next = "use a kernel or driver that knows the speed"
		case wanted && mbps < float64(rule.SpeedMbps.V):
			f.Status = atMostWarn(check.Fail, rule.SpeedMbps.Origin)
			f.Why = "the port trained below the wanted rate"
			f.Next = "look at the cable, the module, the switch port and its split; if this port is meant to be slower, change the profile's speed_mbps"
		}
		r.Report(f)
	}
	return nil
}

// netdevSpeed gives the speed of the port's own interface, 0 when it is not
// known or when the port stands on a bond, whose speed is a sum.
func netdevSpeed(r *check.Run, s rdmaSubject) (mbps int, source string) {
	if s.port.Netdev == nil || !s.port.Ethernet() {
		return 0, ""
	}
	nic := r.Facts.NICs().Named(*s.port.Netdev)
	// below 10G RDMA drivers have no rate of their own to report
	if nic == nil || !nic.Physical() || nic.SpeedMbps == nil || *nic.SpeedMbps < 10000 {
		return 0, ""
	}
	return *nic.SpeedMbps, nic.Attr("speed")
}

var rdmaLinkLayer = &check.Check{
	ID: "rdma.link_layer", Title: "RDMA ports have the wanted link layer", Severity: check.High, FixTier: plan.Firmware,
	Doc: `ConnectX VPI cards run a port as InfiniBand or as Ethernet; firmware decides at boot. A card that comes up in the other mode
has link, may even be ACTIVE after auto-negotiation, and reaches nobody. The check compares link_layer with the profile.

    cat /sys/class/infiniband/mlx5_0/ports/1/link_layer
    mlxconfig -d 0000:18:00.0 set LINK_TYPE_P1=2     # 1 InfiniBand, 2 Ethernet; takes effect after a firmware reset or reboot

hostcheck never writes firmware.`,
	Refs: []string{infinibandABI}, Requires: []string{"rdma.device"},
	Run: runRDMALinkLayer,
}

func runRDMALinkLayer(_ context.Context, r *check.Run) error {
	for _, s := range rdmaPorts(r, func(n *profile.NICRule) bool { return n.LinkLayer.Set }) {
		want := s.rule().LinkLayer
		f := check.Finding{Subject: s.name(), Want: want.V, Source: want.Origin.String()}
		got := s.port.LinkLayer
		switch {
		case got == nil:
			f.Status, f.Why = check.Unknown, s.port.Unknown["link_layer"]
		case *got == want.V:
			f.Status = check.Pass
		default:
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = "the firmware runs the port in the other mode"
			f.Next = "mlxconfig -d " + bdfOf(s.dev) + " query LINK_TYPE_P1 LINK_TYPE_P2; a change needs a firmware reset or a reboot"
			f.Fix = offer(want.Origin, wishManual(s.name(), fmt.Sprintf("LINK_TYPE_P%d", s.port.Port), *got, want.V, f.Why))
		}
		if got != nil {
			f.Got = *got
			f.Evidence = []check.Evidence{{Source: s.dev.PortAttr(s.port, "link_layer"), Value: *got}}
		}
		r.Report(f)
	}
	return nil
}

func bdfOf(d *facts.RDMADevice) string {
	if d.BDF != nil {
		return *d.BDF
	}
	return "BDF"
}

var rdmaGID = &check.Check{
	ID: "rdma.gid", Title: "RoCE ports have a GID of the wanted type for an address", Severity: check.Medium,
	Doc: `A RoCE port sends from an entry of its GID table. The kernel fills the table from the interface's addresses: for each address one
entry of type "IB/RoCE v1" (Ethernet only, no routing, no ECN) and one of type "RoCE v2" (UDP over IP). The first two
entries come from the MAC (fe80::…) and are there without any address; a fabric that routes cannot deliver to them.

The check wants an entry of the profile's type for an address that is not link-local. Without one the connection setup
fails, or NCCL takes a link-local entry that only reaches the same subnet.

    for i in /sys/class/infiniband/mlx5_0/ports/1/gid_attrs/types/*; do echo "$i $(cat $i 2>/dev/null)"; done
    ip -br addr show ens1np0          # no address: give it one
    rdma link show mlx5_0/1

Empty slots answer "Invalid argument"; they are not errors. Do not count on an index (NCCL_IB_GID_INDEX=3): it depends on the
order in which addresses were added and differs between hosts and after a restart of the network.`,
	Refs: []string{infinibandABI, "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"}, Requires: []string{"rdma.device", "rdma.port"},
	Run: runRDMAGID,
}

func runRDMAGID(_ context.Context, r *check.Run) error {
	for _, s := range rdmaPorts(r, func(n *profile.NICRule) bool { return n.GID.Set }) {
		want, p := s.rule().GID, s.port
		if p.LinkLayer != nil && !p.Ethernet() {
			continue
		}
		f := check.Finding{Subject: s.name(), Want: want.V + " for an address", Source: want.Origin.String()}
		if p.LinkLayer == nil || p.GIDs == nil {
			f.Status, f.Why = check.Unknown, reasons(p.Unknown, "link_layer", "gids")
			r.Report(f)
			continue
		}
		judgeGIDs(&f, s, want)
		r.Report(f)
	}
	return nil
}

func judgeGIDs(f *check.Finding, s rdmaSubject, want profile.Val[string]) {
	d, p := s.dev, s.port
	sameType, addresses := 0, 0
	for _, g := range p.GIDs {
		if g.IP() {
			addresses++
		}
		if g.Type != want.V {
			continue
		}
		sameType++
		f.Evidence = append(f.Evidence, check.Evidence{Source: d.GIDPath(p, g), Value: g.Type})
		if g.IP() {
			f.Status, f.Got = check.Pass, fmt.Sprintf("%s in slot %d", g.Type, g.Index)
			f.Evidence = f.Evidence[len(f.Evidence)-1:]
			return
		}
	}
	for _, field := range slices.Sorted(maps.Keys(p.Unknown)) {
		if strings.HasPrefix(field, "gids[") {
			f.Status, f.Why = check.Unknown, "some slots could not be read: "+p.Unknown[field]
			return
		}
	}
	f.Status = atMostWarn(check.Fail, want.Origin)
	f.Got = fmt.Sprintf("%d entries, %d of type %s, %d for an address", len(p.GIDs), sameType, want.V, addresses)
	if len(f.Evidence) == 0 {
		f.Evidence = []check.Evidence{{Source: d.PortAttr(p, "gid_attrs/types"), Value: fmt.Sprintf("%d slots in use", len(p.GIDs))}}
	}
	if addresses == 0 {
		f.Why = "the interface has no address that is not link-local, so routed RoCE traffic has no source"
		f.Next = "give the interface its address; a VLAN's or bond's address counts where it stands on this port"
		return
	}
	f.Why = "the addresses have entries of another type only"
	f.Next = fmt.Sprintf("see whether the firmware allows RoCE v2: mlxconfig -d %s query ROCE_CONTROL; devlink dev param show pci/%s name enable_roce", bdfOf(d), bdfOf(d))
}
