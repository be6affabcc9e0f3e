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
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// carrier is a NIC with the VXLAN interfaces whose packets it carries.
type carrier struct {
	*facts.VXLANNIC
	devices []*facts.VXLANDevice
	sure    bool // of one at least it is known that its packets leave here
}

// subject names the NIC as findings do.
func (c *carrier) subject() string {
	if n := c.Interface(); n != nil {
		return n.Subject()
	}
	return c.NIC
}

// names lists the VXLAN interfaces.
func (c *carrier) names() string {
	var names []string
	for _, d := range c.devices {
		names = append(names, d.Name)
	}
	return listed(names)
}

// carriers gives the NICs below the VXLAN interfaces that are up. Virtual ones
// have no hardware; they are reported as such.
func carriers(r *check.Run) []*carrier {
	v, up := vxlans(r)
	var list []*carrier
	for _, d := range up {
		if len(d.NICs) == 0 {
			r.Report(check.Finding{Subject: d.Name, Status: check.Unknown, Why: "the NIC that carries it is not known: " + orText(d.Unknown["underlay"], "there is none with a route")})
		}
		for _, name := range d.NICs {
			i := slices.IndexFunc(list, func(c *carrier) bool { return c.NIC == name })
			if i < 0 {
				i = len(list)
				list = append(list, &carrier{VXLANNIC: v.On(name)})
			}
			list[i].devices = append(list[i].devices, d)
			list[i].sure = list[i].sure || d.Underlay != nil
		}
	}
	return slices.DeleteFunc(list, func(c *carrier) bool {
		n := c.Interface()
		switch {
		case n == nil || n.BDF == nil:
			r.Report(check.Finding{Subject: c.subject(), Status: check.Unknown, Why: "whether it is a device is not known"})
		case c.BDF == "":
			r.Report(check.Finding{Subject: c.subject(), Status: check.Skip, Why: "it is a virtual interface: no hardware looks into tunnels"})
		default:
			return false
		}
		return true
	})
}

// perhaps makes a warning of a failure about a NIC that may not carry a tunnel.
func (c *carrier) perhaps(f *check.Finding) {
	if f.Status == check.Fail && !c.sure {
		f.Status, f.Fix = check.Warn, nil
		f.Why += "; whether its packets leave here is decided by the route to each endpoint"
	}
}

// wishFeature wants an offload on. Those of the network stack alone no driver
// acts on; others may take the link away.
func wishFeature(n *facts.NIC, name, why string) plan.Wish {
	w := wishNIC("ethtool", n, "feature "+name, "off", "on", why)
	if name == "rx-gro" || strings.HasPrefix(name, "tx-udp_tnl-") {
		w.Tier = plan.Safe
	}
	return w
}

var vxlanOffload = &check.Check{
	ID:       "vxlan.offload",
	Title:    "The NIC knows the UDP ports of the VXLAN interfaces that it carries",
	Severity: check.High,
	FixTier:  plan.Link,
	Doc: `A NIC sees a VXLAN packet as UDP. Only where it was told the port does it look inside: verifies the inner checksum, spreads by inner
addresses, cuts inner segments. The driver keeps a table of such ports, and the kernel fills it when a VXLAN interface comes up. The
table is the truth, not the feature flag: rx-udp_tunnel-port-offload reads on whatever the table holds.

A port that is not in it costs the receiver per byte: the inner checksum is not verified, so the kernel sums each packet before GRO
may join it (net/core/gro.c, __skb_gro_checksum_complete). Ports are missing where the table is full (Geneve and VXLAN share it in
some drivers, and a ConnectX-3 has one entry), where the feature was switched off, or where the driver refused.

mlx5 knows 4789 without being told, as an entry of a table without types. A driver without any table is skipped: whether its
hardware looks into tunnels is then in no place that can be read. Kernels before 5.9 do not tell: unknown. Where the NIC cannot be
known (metadata mode, or no lower device), each one with a route is looked at, and a missing port is a warning.

By hand:

    ethtool --show-tunnels ens1np0
    ethtool -k ens1np0 | grep -E 'udp_tnl|udp_tunnel'
    ethtool -K ens1np0 rx-udp_tunnel-port-offload on
    ip link set vxlan100 down; ip link set vxlan100 up       # asks for the port again
    ethtool -S ens1np0 | grep -iE 'csum|vxlan'

RDMA never passes the VXLAN of the host: RoCE within an overlay needs a NIC that puts the headers on itself (switchdev mode).`,
	Refs: []string{
		"https://docs.kernel.org/networking/ethtool-netlink.html", "https://github.com/torvalds/linux/blob/master/net/ipv4/udp_tunnel_nic.c", "https://github.com/torvalds/linux/blob/master/net/core/gro.c",
	},
	Run: func(_ context.Context, r *check.Run) error {
		for _, c := range carriers(r) {
			for _, port := range ports(c.devices) {
				r.Report(c.knows(port))
			}
		}
		return nil
	},
}

// tunnelPort is a UDP port and its type in a NIC's table.
type tunnelPort struct {
	number int
	kind   string
}

// ports lists what VXLAN interfaces open, each once.
func ports(devices []*facts.VXLANDevice) (all []tunnelPort) {
	for _, d := range devices {
		p := tunnelPort{d.Port, "vxlan"}
		if d.GPE {
			p.kind = "vxlan-gpe"
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// opener names a VXLAN interface that opens the port.
func (c *carrier) opener(port tunnelPort) string {
	i := slices.IndexFunc(c.devices, func(d *facts.VXLANDevice) bool { return slices.Contains(ports([]*facts.VXLANDevice{d}), port) })
	return c.devices[max(i, 0)].Name
}

// knows judges one port of one NIC.
func (c *carrier) knows(port tunnelPort) check.Finding {
	const feature = "rx-udp_tunnel-port-offload"
	f := check.Finding{Subject: fmt.Sprintf("%s port %d", c.subject(), port.number), Want: fmt.Sprintf("%d (%s) in its table of tunnel ports", port.number, port.kind),
		Source: "the kernel: net/ipv4/udp_tunnel_nic.c"}
	switch {
	case c.Tables == nil:
		f.Status, f.Why = check.Unknown, c.Unknown["tables"]
		return f
	case len(c.Tables) == 0:
		f.Status, f.Why = check.Skip, "its driver has no table of tunnel ports"
		return f
	}
	var free, used int
	var held []string
	takes := false
	for _, t := range c.Tables {
		for _, e := range t.Entries {
			held = append(held, fmt.Sprintf("%d (%s)", e.Port, e.Type))
		}
		if slices.Contains(t.Types, port.kind) {
			takes = true
			used += len(t.Entries)
			free += t.Size - len(t.Entries)
		}
	}
	f.Got = orText(listed(held), "no port")
	f.Evidence = []check.Evidence{{Source: host.TunnelsKey(c.NIC), Value: f.Got}}
	on, told := c.Features[feature]
	if told {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "ethtool " + c.NIC + " features", Value: feature + " " + onOff(on)})
	}
	const cost = "the CPU sums every packet before it may join it with others"
	switch {
	case c.Holds(port.number, port.kind) != nil:
		f.Status = check.Pass
	case !takes:
		return check.Finding{Subject: f.Subject, Status: check.Skip, Why: "its tables take no port of " + port.kind}
	case told && !on && slices.Contains(c.Fixed, feature):
		return check.Finding{Subject: f.Subject, Status: check.Skip, Why: "its driver has " + feature + " off and lets nobody change it"}
	case told && !on:
		f.Status, f.Why = check.Fail, feature+" is off: the NIC is told no port, and "+cost
		f.Next = fmt.Sprintf("ethtool -K %s %s on", c.NIC, feature)
		f.Fix = []plan.Wish{wishFeature(c.Interface(), feature, f.Why)}
	case free <= 0:
		f.Status, f.Why = check.Fail, fmt.Sprintf("its table is full (%d), and %s", used, cost)
		f.Next = "let all tunnels of the host use one port, best 4789; ethtool --show-tunnels " + c.NIC + " shows what else holds entries"
	default:
		f.Status, f.Why = check.Fail, "the kernel or the driver did not put it there, and "+cost
		f.Next = fmt.Sprintf("ip link set %s down, then up, asks again; dmesg says when the driver refused. Firmware may take 4789 alone", c.opener(port))
	}
	c.perhaps(&f)
	return f
}

var vxlanSegmentation = &check.Check{
	ID:       "vxlan.segmentation",
	Title:    "The NIC cuts large packets within VXLAN into segments itself",
	Severity: check.Medium,
	FixTier:  plan.Safe,
	Doc: `TCP hands the kernel packets of up to 64 KB, and the NIC cuts them into segments. Within a tunnel it must write two sets of headers
for that: tx-udp_tnl-segmentation, or with checksums in the outer UDP header tx-udp_tnl-csum-segmentation. Which of the two counts
follows from the interface: udpcsum over IPv4, which is the default since Linux 4.7, and IPv6 without udp6zerocsumtx, need the latter.

Without, the kernel cuts them itself just above the driver: the sender's CPU then pays for some forty packets in place of one.

tx-gso-partial is how most NICs do the latter: the kernel writes outer headers that are alike, and tx-udp_tnl-csum-segmentation reads
on. A feature that the driver fixes off is hardware that cannot, and is skipped; where it can do the one without checksums, making the
VXLAN interface with noudpcsum helps (over IPv4).

By hand:

    ethtool -k ens1np0 | grep -E 'tx-udp_tnl|tx-gso-partial'
    ethtool -K ens1np0 tx-udp_tnl-segmentation on tx-udp_tnl-csum-segmentation on

A reboot and a new probe of the driver start with the driver's default, which is on: somebody switched it off, often a script that
meant another interface.`,
	Refs: []string{ethtoolFeatureNames, "https://docs.kernel.org/networking/segmentation-offloads.html"},
	Run: func(_ context.Context, r *check.Run) error {
		for _, c := range carriers(r) {
			for _, need := range segmentation(c.devices) {
				f := c.feature(need, "the kernel cuts each large packet of "+c.names()+" itself, some forty for one")
				if f.Status == check.Skip && need == "tx-udp_tnl-csum-segmentation" && c.Features["tx-udp_tnl-segmentation"] {
					f.Why += "; it can do so without outer checksums: over IPv4, make the VXLAN interface with noudpcsum"
				}
				r.Report(f)
			}
		}
		return nil
	},
}

// segmentation lists the features that VXLAN interfaces need to send.
func segmentation(devices []*facts.VXLANDevice) (need []string) {
	for _, d := range devices {
		name := "tx-udp_tnl-segmentation"
		if d.IPv6() && !d.ZeroCsumTX || !d.IPv6() && d.UDPCsum {
			name = "tx-udp_tnl-csum-segmentation"
		}
		if !slices.Contains(need, name) {
			need = append(need, name)
		}
	}
	return need
}

// feature judges one offload of the NIC that must be on.
func (c *carrier) feature(name, cost string) check.Finding {
	f := check.Finding{Subject: c.subject() + " " + name, Want: "on", Source: "the kernel: net/ethtool/common.c, netdev_features_strings"}
	on, told := c.Features[name]
	switch {
	case c.Features == nil:
		f.Status, f.Why = check.Unknown, c.Unknown["features"]
		return f
	case !told:
		return check.Finding{Subject: f.Subject, Status: check.Skip, Why: "this kernel has no such feature"}
	case !on && c.Fixed == nil:
		f.Status, f.Why = check.Unknown, "it is off, and whether the driver has it at all is not known: "+orText(c.Unknown["fixed"], "it does not say")
		return f
	case !on && slices.Contains(c.Fixed, name):
		return check.Finding{Subject: f.Subject, Status: check.Skip, Why: "its driver does not have it"}
	}
	f.Status, f.Got = check.Pass, onOff(on)
	f.Evidence = []check.Evidence{{Source: "ethtool " + c.NIC + " features", Value: name + " " + f.Got}}
	if !on {
		f.Status, f.Why = check.Fail, "somebody switched it off: "+cost
		f.Next = fmt.Sprintf("ethtool -K %s %s on, and see who switches it off", c.NIC, name)
		f.Fix = []plan.Wish{wishFeature(c.Interface(), name, f.Why)}
		c.perhaps(&f)
	}
	return f
}

var vxlanReceive = &check.Check{
	ID:       "vxlan.receive",
	Title:    "Received packets are verified by the NIC and joined by GRO, outside and inside the tunnel",
	Severity: check.Medium,
	FixTier:  plan.Link,
	Doc: `Generic receive offload joins the packets of one flow to large ones before the stack sees them. In a tunnel it works at the NIC
already (the outer headers are looked through), so rx-gro of the NIC counts, and again at the VXLAN interface for what came without
(gro_cells). With either off, each packet of 1450 bytes takes the whole way alone: IP, UDP, decapsulation, bridge, IP, TCP.

rx-checksum of the NIC goes with it: GRO joins only what is verified, and sums in software what is not, which costs the CPU for every
byte.

The work is done on the CPU of the receiving queue, in softirq. One flow is one queue, and so one CPU: a single stream in a tunnel is
bound by that. Several flows, queues spread by ports (the outer source port differs per inner flow), and a program that runs beside
that CPU and not on it, are what helps after this check passes; "hostcheck bench vxlan" shows where the time goes.

By hand:

    ethtool -k ens1np0 | grep -E 'generic-receive|rx-checksum'
    ethtool -K ens1np0 rx on gro on;  ethtool -K vxlan100 gro on
    mpstat -P ALL 1 3                                # %soft of one CPU near 100: that is the limit

Often copied and wrong: LRO in place of GRO on hosts that forward or bridge (it breaks forwarded packets, and no driver's LRO looks
into VXLAN), and rx-udp-gro-forwarding, which is about forwarding plain UDP.`,
	Refs: []string{ethtoolFeatureNames, "https://github.com/torvalds/linux/blob/master/net/core/gro.c", "https://github.com/torvalds/linux/blob/master/net/core/gro_cells.c"},
	Run: func(_ context.Context, r *check.Run) error {
		list := carriers(r)
		for _, c := range list {
			r.Report(c.feature("rx-gro", "each received packet of "+c.names()+" takes the whole way through the stack alone"))
			r.Report(c.feature("rx-checksum", "the CPU sums every received packet"))
		}
		if len(list) == 0 {
			return nil // no hardware below: what it costs is nothing of a NIC
		}
		v := r.Facts.VXLAN()
		for i := range v.Devices {
			if d := &v.Devices[i]; d.Up {
				r.Report(insideGRO(r, d))
			}
		}
		return nil
	},
}

// insideGRO judges GRO of a VXLAN interface itself.
func insideGRO(r *check.Run, d *facts.VXLANDevice) check.Finding {
	f := check.Finding{Subject: d.Name + " rx-gro", Want: "on", Source: "the kernel: net/core/gro_cells.c"}
	if d.GRO == nil {
		f.Status, f.Why = check.Unknown, d.Unknown["rx_gro"]
		return f
	}
	f.Status, f.Got = check.Pass, onOff(*d.GRO)
	f.Evidence = []check.Evidence{{Source: "ethtool " + d.Name + " features", Value: "rx-gro " + f.Got}}
	if !*d.GRO {
		f.Status, f.Why = check.Fail, "somebody switched it off: packets that the NIC's GRO could not join stay alone"
		f.Next = "ethtool -K " + d.Name + " gro on, and see who switches it off"
		if n := r.Facts.NICs().Named(d.Name); n != nil {
			f.Fix = []plan.Wish{wishFeature(n, "rx-gro", f.Why)}
		}
	}
	return f
}

var vxlanSteering = &check.Check{
	ID:       "vxlan.steering",
	Title:    "A ConnectX-3 Pro steers packets itself, without which it looks into no tunnel",
	Severity: check.High,
	FixTier:  plan.Boot,
	Doc: `The mlx4 driver offloads VXLAN only with device-managed flow steering. The driver of the kernel has that off: the parameter
log_num_mgm_entry_size of mlx4_core is 10, and must be 0 or less, usually -1. MLNX_OFED 4.x comes with it on. Nothing tells that it
is missing: the interfaces work, the feature flags of the tunnel are just not there.

Judged is the parameter of the loaded module, where a ConnectX-3 Pro carries a VXLAN interface that is up. A ConnectX-3 (without Pro)
cannot, and is skipped; so is a virtual function, about which the host of its physical function decides. The card must also have
firmware 2.32.5100 or later (driver.firmware); 2.31.5050, of a well-known report, is too old.

The fix writes a file in /etc/modprobe.d. It counts when the module is loaded next: where the initramfs loads it, that must be made
again first, and a reboot is the safe way, as reloading takes every port of the card down.

By hand:

    cat /sys/module/mlx4_core/parameters/log_num_mgm_entry_size
    echo 'options mlx4_core log_num_mgm_entry_size=-1' > /etc/modprobe.d/mlx4.conf
    update-initramfs -u            # dracut -f elsewhere
    reboot
    ethtool -k enp4s0 | grep udp_tnl

Only packets with an IPv4 header outside are offloaded: over IPv6 the card looks into nothing, whatever is set here.`,
	Refs: []string{
		"https://github.com/torvalds/linux/blob/master/drivers/net/ethernet/mellanox/mlx4/main.c", mlnxOFED4,
	},
	Run: func(_ context.Context, r *check.Run) error {
		for _, c := range mlx4Carriers(r) {
			if card := cardOf(r, c); card != nil {
				r.Report(steering(r, c, card))
			}
		}
		return nil
	},
}

const mlnxOFED4 = "NVIDIA MLNX_OFED 4.9 documentation, VXLAN hardware stateless offloads"

// mlx4Carriers is carriers on a host where a ConnectX-3 is among them.
func mlx4Carriers(r *check.Run) []*carrier {
	v := r.Facts.VXLAN()
	if bus := r.Facts.PCI(); bus.Why == "" && len(bus.Functions) > 0 && !slices.ContainsFunc(bus.Functions, maybeConnectX3) {
		r.Report(check.Finding{Status: check.Skip, Why: "the host has no ConnectX-3"})
		return nil
	}
	if len(v.Devices) == 0 || v.MLX4 != nil {
		return carriers(r)
	}
	known := true
	for i := range v.NICs {
		if n := &v.NICs[i]; n.Driver == nil {
			known = false
			r.Report(check.Finding{Subject: n.NIC, Status: check.Unknown, Why: n.Unknown["driver"]})
		}
	}
	if known {
		r.Report(check.Finding{Status: check.Skip, Why: "no ConnectX-3 is below a VXLAN interface"})
	}
	return nil
}

// maybeConnectX3 reports whether a PCI function is one, or may be.
func maybeConnectX3(fn *facts.PCIFunction) bool {
	return fn.Vendor == nil || fn.Device == nil || *fn.Vendor == "15b3" && strings.HasPrefix(*fn.Device, "100")
}

// cardOf gives the ConnectX-3 Pro of a NIC, or reports why it is none.
func cardOf(r *check.Run, c *carrier) *facts.MLX4Card {
	m := r.Facts.VXLAN().MLX4
	if m == nil {
		return nil
	}
	i := slices.IndexFunc(m.Cards, func(card facts.MLX4Card) bool { return card.BDF == c.BDF })
	switch {
	case i < 0:
		return nil
	case m.Cards[i].Pro == nil:
		r.Report(check.Finding{Subject: c.subject(), Status: check.Skip, Why: m.Cards[i].Unknown["pro"]})
		return nil
	case !*m.Cards[i].Pro:
		r.Report(check.Finding{Subject: c.subject(), Status: check.Skip, Why: "a ConnectX-3 without Pro looks into no tunnel"})
		return nil
	}
	return &m.Cards[i]
}

func steering(r *check.Run, c *carrier, card *facts.MLX4Card) check.Finding {
	m := r.Facts.VXLAN().MLX4
	f := check.Finding{Subject: c.subject(), Want: "0 or less (-1)", Source: "the kernel: drivers/net/ethernet/mellanox/mlx4/main.c, choose_steering_mode"}
	if m.MgmEntrySize == nil {
		f.Status, f.Why = check.Unknown, m.Unknown["log_num_mgm_entry_size"]
		return f
	}
	f.Got = strconv.Itoa(*m.MgmEntrySize)
	f.Evidence = []check.Evidence{{Source: facts.MLX4Path, Value: f.Got}}
	if *m.MgmEntrySize <= 0 {
		f.Status = check.Pass
		return f
	}
	f.Status, f.Why = check.Fail, "the card "+card.BDF+" is not steered by the device, so it looks into no tunnel"
	configured := "nothing in modprobe.d"
	switch {
	case m.Configured != nil:
		configured = strconv.Itoa(*m.Configured)
		f.Evidence = append(f.Evidence, check.Evidence{Source: m.ConfiguredAt, Value: configured})
	case m.Unknown["configured"] != "":
		configured = ""
	}
	f.Truth = &check.Truth{Configured: configured, Live: f.Got}
	switch {
	case m.Configured != nil && *m.Configured <= 0:
		f.Pending, f.Truth.NextBoot = true, configured
		f.Next = "boot the host; where the initramfs loads mlx4_core, make it again first (update-initramfs -u, dracut -f)"
	case m.ConfiguredAt != "" && !strings.HasSuffix(strings.Split(m.ConfiguredAt, ":")[0], "/hostcheck-"+facts.MLX4Module+".conf"):
		f.Next = "make it -1 in " + m.ConfiguredAt + ", make the initramfs again, and boot"
	default:
		f.Next = "options mlx4_core log_num_mgm_entry_size=-1 in a file in /etc/modprobe.d, the initramfs made again, and a boot"
		f.Fix = []plan.Wish{{
			Setting: plan.Setting{Kind: "modprobe", Target: facts.MLX4Module, Name: facts.MLX4Parameter},
			Got:     f.Got, Want: "-1", Tier: plan.Boot, Why: f.Why,
		}}
	}
	return f
}

var vxlanSinglePort = &check.Check{
	ID:       "vxlan.single_port",
	Title:    "All tunnels of a ConnectX-3 Pro use one UDP port, over IPv4",
	Severity: check.Medium,
	Doc: `A ConnectX-3 Pro looks into tunnels of one UDP port only, and both ports of a card share it: the first VXLAN interface that comes up
wins. Packets of any other port, and all with an IPv6 header outside, lose checksum and segmentation offload, and which interface that
is may change with the order of the next boot.

Judged are all VXLAN interfaces that are up on one card, over all its ports.

By hand:

    ip -d link show type vxlan | grep -oE '^[0-9]+: [^:]+|dstport [0-9]+|local [^ ]+|remote [^ ]+'
    dmesg | grep -iE 'mlx4.*vxlan'

Give all interfaces of the card the same dstport, 4789 best, and IPv4 endpoints; the others belong on another NIC. The port of an
interface cannot be changed: make it anew (vxlan.port).`,
	Refs: []string{"https://github.com/torvalds/linux/blob/master/drivers/net/ethernet/mellanox/mlx4/en_netdev.c", mlnxOFED4},
	Run: func(_ context.Context, r *check.Run) error {
		var done []string
		list := mlx4Carriers(r)
		for _, c := range list {
			card := cardOf(r, c)
			if card == nil || slices.Contains(done, card.BDF) {
				continue
			}
			done = append(done, card.BDF)
			r.Report(onePort(r, card, list))
		}
		return nil
	},
}

func onePort(r *check.Run, card *facts.MLX4Card, list []*carrier) check.Finding {
	f := check.Finding{Subject: card.BDF, Status: check.Pass, Want: "one UDP port, over IPv4", Source: "the kernel: drivers/net/ethernet/mellanox/mlx4/en_netdev.c"}
	var devices []*facts.VXLANDevice
	sure := true
	for _, c := range list {
		for _, d := range c.devices {
			if c.BDF == card.BDF && !slices.Contains(devices, d) {
				devices, sure = append(devices, d), sure && d.Underlay != nil
			}
		}
	}
	var used, got, six []string
	for _, d := range devices {
		got = append(got, fmt.Sprintf("%s %d", d.Name, d.Port))
		if port := strconv.Itoa(d.Port); !slices.Contains(used, port) {
			used = append(used, port)
		}
		if d.IPv6() {
			six = append(six, d.Name)
		}
	}
	f.Got = listed(got)
	f.Evidence = []check.Evidence{{Source: r.Facts.VXLAN().Source, Value: f.Got}}
	switch {
	case len(used) > 1:
		f.Status, f.Why = check.Fail, "the card looks into tunnels of one port only, whichever came up first"
		f.Next = "give all of them the same dstport, 4789 best, on every host of their overlays"
	case len(six) > 0:
		f.Status, f.Got = check.Fail, f.Got+"; over IPv6: "+listed(six)
		f.Why = "the card looks into no tunnel over IPv6"
		f.Next = "give them IPv4 endpoints, or another NIC"
	}
	if f.Status == check.Fail && !sure {
		f.Status = check.Warn
	}
	return f
}
