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
)

var vxlanChecks = []*check.Check{
	vxlanDevice, vxlanPort, vxlanMTU, vxlanChecksum, vxlanOffload, vxlanSegmentation, vxlanReceive, vxlanSteering, vxlanSinglePort,
}

const (
	ethtoolFeatureNames = "https://github.com/torvalds/linux/blob/master/net/ethtool/common.c"
	vxlanDriver         = "https://github.com/torvalds/linux/blob/master/drivers/net/vxlan/vxlan_core.c"
	vxlanKernelDoc      = "https://docs.kernel.org/networking/vxlan.html"
)

// vxlans gives the VXLAN interfaces that are up, or reports why there are none
// to judge.
func vxlans(r *check.Run) (v *facts.VXLAN, up []*facts.VXLANDevice) {
	v = r.Facts.VXLAN()
	switch {
	case v.Devices == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: v.Unknown["devices"]})
	case len(v.Devices) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "there is no VXLAN interface in this network namespace"})
	}
	for i := range v.Devices {
		d := &v.Devices[i]
		if !d.Up {
			r.Report(check.Finding{Subject: d.Name, Status: check.Skip, Why: "it is down: it sends nothing, and its UDP port is not open"})
			continue
		}
		up = append(up, d)
	}
	return v, up
}

// vxlanEvidence is what the kernel said of an interface.
func vxlanEvidence(v *facts.VXLAN, d *facts.VXLANDevice, value string) check.Evidence {
	return check.Evidence{Source: v.Source, Value: d.Name + ": " + value}
}

var vxlanDevice = &check.Check{
	ID:       "vxlan.device",
	Title:    "The host has the VXLAN interfaces that the profile expects",
	Severity: check.High,
	Doc: `Wanted is "vxlan.devices" of the profile, at least that many interfaces that are up; the role vxlan-overlay expects one. The truth
is what the kernel lists (ip -d link show type vxlan) in the network namespace that hostcheck runs in.

Such an interface is made by whoever runs the overlay: a CNI plugin (flannel.1, vxlan.calico, cilium_vxlan), Open vSwitch
(vxlan_sys_4789, one for all tunnels), systemd-networkd, netplan or FRR's host. Where it is missing or down, that program has not
started, or has failed, and the host is cut off from its overlay.

By hand:

    ip -br -d link show type vxlan
    journalctl -b -u openvswitch-switch -u systemd-networkd -u kubelet | grep -i vxlan
    ip link add vxlan100 type vxlan id 100 dev ens1np0 local 192.0.2.1 remote 192.0.2.2 dstport 4789

Often copied and wrong: the last line without dstport. The kernel then takes 8472; see vxlan.port.`,
	Refs: []string{vxlanKernelDoc, "https://man7.org/linux/man-pages/man8/ip-link.8.html"},
	Run: func(_ context.Context, r *check.Run) error {
		v, want := r.Facts.VXLAN(), r.Profile.VXLAN.Devices
		switch {
		case !want.Set || want.V == 0:
			r.Report(check.Finding{Status: check.Skip, Why: "the profile expects none"})
			return nil
		case v.Devices == nil:
			r.Report(check.Finding{Status: check.Unknown, Why: v.Unknown["devices"]})
			return nil
		}
		var up, down []string
		for i := range v.Devices {
			if d := &v.Devices[i]; d.Up {
				up = append(up, d.Name)
			} else {
				down = append(down, d.Name)
			}
		}
		f := check.Finding{Status: check.Pass, Want: fmt.Sprintf("%d at least, up", want.V), Got: fmt.Sprintf("%d up", len(up)), Source: want.Origin.String(),
			Evidence: []check.Evidence{{Source: v.Source, Value: orText(listed(up), "none is up")}}}
		if len(down) > 0 {
			f.Got += fmt.Sprintf(", %d down", len(down))
			f.Evidence[0].Value += "; down: " + listed(down)
		}
		if len(up) < want.V {
			f.Status, f.Why = check.Fail, reason(want.Origin, "what makes the overlay has not done its work")
			f.Next = "see why what makes them has not: the CNI plugin, Open vSwitch, or the host's network configuration"
			if len(down) > 0 {
				f.Next = "ip link set dev " + down[0] + " up; and see who took it down"
			}
		}
		r.Report(f)
		return nil
	},
}

// listed joins names, the first few of many.
func listed(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

var vxlanPort = &check.Check{
	ID:       "vxlan.port",
	Title:    "VXLAN uses a UDP port that the profile allows",
	Severity: check.Medium,
	Doc: `Wanted is one of "vxlan.ports" of the profile; the role vxlan-overlay allows 4789 alone, which IANA assigned. Linux is older than
that: without dstport it takes 8472, and the kernel logs nothing about it.

A wrong port is silent. Both ends must have the same, else packets arrive and nobody opens them: the other kernel answers with an
ICMP error at best. Firewalls and security groups let one of the two pass. A NIC looks into the tunnel only where it knows the
port: mlx5 knows 4789 without being told, a ConnectX-3 has room for one port, older firmware for 4789 alone (vxlan.offload).

8472 is right where flannel or Cilium runs, whose default it is: --set vxlan.ports=8472, or in the site's profile.

By hand, the port of an interface cannot be changed; make it anew, on both ends:

    ip -d link show dev vxlan100 | grep -o 'dstport [0-9]*'
    ip link del vxlan100
    ip link add vxlan100 type vxlan id 100 dev ens1np0 remote 192.0.2.2 dstport 4789
    ss -uln 'sport = :4789 or sport = :8472'       # a socket of the kernel: without a program

VXLAN-GPE has a port of its own, 4790, and is not judged.

Often copied and wrong: "ip link add vxlan0 type vxlan id 17 group 239.1.1.1 dev eth1" in guides to offloads, which speak of 4789 a
page later. It uses 8472.`,
	Refs: []string{"https://www.rfc-editor.org/rfc/rfc7348#section-5", "https://www.iana.org/assignments/service-names-port-numbers", vxlanDriver},
	Run: func(_ context.Context, r *check.Run) error {
		want := r.Profile.VXLAN.Ports
		if !want.Set || len(want.V) == 0 {
			r.Report(check.Finding{Status: check.Skip, Why: "the profile names no port"})
			return nil
		}
		var words []string
		for _, p := range want.V {
			words = append(words, strconv.Itoa(p))
		}
		v, up := vxlans(r)
		for _, d := range up {
			got := strconv.Itoa(d.Port)
			f := check.Finding{Subject: d.Name, Status: check.Pass, Want: strings.Join(words, " or "), Got: got, Source: want.Origin.String(),
				Evidence: []check.Evidence{vxlanEvidence(v, d, "dstport "+got)}}
			switch {
			case d.GPE:
				f = check.Finding{Subject: d.Name, Status: check.Skip, Why: "VXLAN-GPE has a port of its own"}
			case !slices.Contains(want.V, d.Port):
				f.Status, f.Why = check.Fail, reason(want.Origin, "the other ends, firewalls and the NIC expect another port")
				f.Next = fmt.Sprintf("make %s anew with dstport %s, on every host of the overlay; if %d is meant: --set vxlan.ports=%d", d.Name, words[0], d.Port, d.Port)
			}
			r.Report(f)
		}
		return nil
	},
}

var vxlanMTU = &check.Check{
	ID:       "vxlan.mtu",
	Title:    "Packets of a VXLAN interface fit into those of the interface below",
	Severity: check.High,
	FixTier:  plan.Firmware,
	Doc: `The tunnel puts 50 bytes before each inner packet over IPv4, 70 over IPv6: outer IP (20 or 40), UDP (8), VXLAN (8) and the inner
Ethernet header (14). So the MTU of a VXLAN interface may be that of the interface below less 50 or 70. The same holds for every
hop of the path between the hosts, which no host can see.

A larger one fails in the worst way: pings and logins work, and everything large hangs, or crawls. The kernel fragments the outer
packet, if nobody forbade it, and no NIC puts fragments of tunnels together: the receiver's CPU does, and one lost fragment loses
all; firewalls and many switches drop fragments.

The kernel computes the MTU itself only where the interface was bound to one below ("dev ens1np0"), and refuses a larger one there;
it does not look again when the MTU below shrinks. Without a lower device it stays 1500 on an underlay of 1500, which is 50 too
many. Then the check takes the interface of the route to the remote.

Room that is not used is a warning where less than half of it is: an overlay of 1450 on a fabric of 9000 needs six times the packets
that it could have. It passes where the overlay must fit elsewhere too, as a little less does.

Not judged is metadata mode (Open vSwitch, Cilium): there the interface has no MTU that means anything (vxlan_sys_4789: 65000), and
those of the inner ports and routes count.

By hand:

    ip -d link show dev vxlan100
    ip link set dev vxlan100 mtu 8950                          # on every host of the overlay
    ping -M do -s 8922 INNER-ADDRESS-OF-PEER                   # 8950 less 28; must arrive

For good it belongs where the interface is made; inner interfaces (bridges, VMs, pods) have to follow.

Often copied and wrong: MTU 9000 below as the cure for a slow tunnel. In the report that guides quote, one TCP flow gained on the bare
path (34 to 38 Gb/s) and lost in the tunnel (28 to 24): it was bound by one CPU of the receiver. "hostcheck bench vxlan" shows that.`,
	Refs: []string{vxlanDriver, "https://www.rfc-editor.org/rfc/rfc7348#section-4.3"},
	Run: func(_ context.Context, r *check.Run) error {
		v, up := vxlans(r)
		for _, d := range up {
			r.Report(mtuOfVXLAN(r, v, d))
		}
		return nil
	},
}

func mtuOfVXLAN(r *check.Run, v *facts.VXLAN, d *facts.VXLANDevice) check.Finding {
	f := check.Finding{Subject: d.Name, Got: strconv.Itoa(d.MTU), Source: "the kernel: drivers/net/vxlan, vxlan_config_apply",
		Evidence: []check.Evidence{vxlanEvidence(v, d, "mtu "+strconv.Itoa(d.MTU))}}
	switch {
	case d.External:
		return check.Finding{Subject: d.Name, Status: check.Skip, Why: "in metadata mode the MTUs of inner interfaces and routes count, not this one"}
	case d.Underlay == nil:
		return check.Finding{Subject: d.Name, Status: check.Unknown, Why: d.Unknown["underlay"]}
	case d.UnderlayMTU == nil:
		return check.Finding{Subject: d.Name, Status: check.Unknown, Why: d.Unknown["underlay_mtu"]}
	}
	below, room := *d.UnderlayMTU, *d.UnderlayMTU-d.Overhead()
	by := "its lower device"
	if d.Lower == "" {
		by = "by the route to " + d.Remote
	}
	f.Want = fmt.Sprintf("at most %d: %s (%s) has %d, the tunnel takes %d", room, *d.Underlay, by, below, d.Overhead())
	f.Evidence = append(f.Evidence, check.Evidence{Source: facts.NetClass + "/" + *d.Underlay + "/mtu", Value: strconv.Itoa(below)})
	set := func(mtu int) string {
		return fmt.Sprintf("ip link set dev %s mtu %d, and where the interface is made; inner interfaces and the other hosts likewise", d.Name, mtu)
	}
	switch {
	case room < 68: // ETH_MIN_MTU: nothing fits
		f.Status, f.Why = check.Fail, "the interface below carries no tunnel with so small an MTU"
		f.Next = fmt.Sprintf("raise the MTU of %s and of the fabric; 1600 and more carry an inner 1500", *d.Underlay)
	case d.MTU > room:
		f.Status, f.Why = check.Fail, "packets that are too long are fragmented or dropped without a word: small ones work, large ones hang"
		f.Next = set(room) + fmt.Sprintf("; or give %s and the fabric %d", *d.Underlay, d.MTU+d.Overhead())
		f.Fix = []plan.Wish{wishManual(d.Name, "mtu", strconv.Itoa(d.MTU), strconv.Itoa(room), f.Why)}
	case d.MTU*2 < room:
		f.Status, f.Why = check.Warn, fmt.Sprintf("less than half of the room is used: the same bytes take %d times the packets", room/max(1, d.MTU))
		f.Next = "if every host and hop of the overlay has it: " + set(room)
	default:
		f.Status = check.Pass
	}
	return f
}

var vxlanChecksum = &check.Check{
	ID:       "vxlan.checksum",
	Title:    "Hosts with the same settings take each other's packets over IPv6",
	Severity: check.High,
	Doc: `Over IPv6 UDP must have a checksum, unless both ends agree otherwise (RFC 6935). The kernel has a switch for each direction:
udp6zerocsumtx sends packets without one, udp6zerocsumrx takes them. With the first and not the second, a peer that was set up like
this host drops all that it is sent, and counts it under UDP's checksum errors. That fails here.

Over IPv4 a receiver takes both, and the check has nothing to judge. There udpcsum is on since Linux 4.7, and off is no remedy for
a slow tunnel by itself: a NIC that has verified the outer checksum has summed the whole packet, and the kernel derives the sum of
the inner one from that (net/ipv4/udp_offload.c, skb_gro_checksum_try_convert). Off helps only senders whose NIC cannot compute the
outer checksum of segments that it cuts itself: see vxlan.segmentation. In metadata mode each packet says for itself.

By hand, what an interface does, and what was dropped for its sum:

    ip -d link show dev vxlan100 | grep -oE '(no)?udp(6zero)?csum[a-z]*'
    nstat -az Udp6InCsumErrors UdpInCsumErrors
    ip link add vxlan100 type vxlan … udp6zerocsumtx udp6zerocsumrx      # both, on all hosts, or none

Often copied and wrong: udp6zerocsumtx alone, "for speed". It cannot be changed on an interface that is there: make it anew.`,
	Refs: []string{"https://www.rfc-editor.org/rfc/rfc6935", "https://www.rfc-editor.org/rfc/rfc6936", "https://man7.org/linux/man-pages/man8/ip-link.8.html"},
	Run: func(_ context.Context, r *check.Run) error {
		v, up := vxlans(r)
		for _, d := range up {
			if d.External {
				r.Report(check.Finding{Subject: d.Name, Status: check.Skip, Why: "in metadata mode each packet says whether it has a checksum"})
				continue
			}
			if !d.IPv6() {
				r.Report(check.Finding{Subject: d.Name, Status: check.Skip, Why: "its packets are IPv4, whose receivers take them with a UDP checksum and without"})
				continue
			}
			words := onOffWord("udp6zerocsumtx", d.ZeroCsumTX) + ", " + onOffWord("udp6zerocsumrx", d.ZeroCsumRX)
			f := check.Finding{Subject: d.Name, Status: check.Pass, Want: "what it sends without a checksum it also takes", Got: words, Source: "RFC 6935 and 6936",
				Evidence: []check.Evidence{vxlanEvidence(v, d, words)}}
			if d.ZeroCsumTX && !d.ZeroCsumRX {
				f.Status, f.Why = check.Fail, "a peer that was set up like this host drops all of its packets"
				f.Next = "make " + d.Name + " anew with udp6zerocsumrx too, or without udp6zerocsumtx, on all hosts of the overlay"
			}
			r.Report(f)
		}
		return nil
	},
}

// onOffWord writes a switch as ip(8) does: with "no" before it where it is off.
func onOffWord(name string, on bool) string {
	if on {
		return name
	}
	return "no" + name
}
