// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strconv"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var linkChecks = []*check.Check{linkCarrier, linkSpeed, linkMTU}

// interfaces gives the host's interfaces, with the state of VFs where a rule
// of the profile is about them.
func interfaces(r *check.Run) *facts.NICs {
	for i := range r.Profile.NICs {
		if kind := r.Profile.NICs[i].Match.Kind; kind == "vf" || kind == "any" {
			return r.Facts.NICsAll()
		}
	}
	return r.Facts.NICs()
}

// selected gives the interfaces that the profile's rules are about.
func selected(r *check.Run) []profile.NICWant {
	return r.Profile.SelectNICs(interfaces(r), r.Facts.PCI()).Wants
}

// eachNIC reports what judge says of each interface of whose rule something is
// wanted; of a hidden one, that it is not known.
func eachNIC(r *check.Run, wants func(*profile.NICRule) bool, judge func(profile.NICWant) check.Finding) {
	reportHidden(r, wants)
	for _, w := range selected(r) {
		if wants(&w.Rule) {
			r.Report(judge(w))
		}
	}
}

var linkCarrier = &check.Check{
	ID:       "link.carrier",
	Title:    "The link is up on every interface that should have one",
	Severity: check.High,
	Doc: `Judged are the interfaces for which a nics rule says "carrier: true"; the truth is /sys/class/net/IF/carrier.

"0" is an interface that is up and hears nothing: cable, module, switch port, or a forward error correction that the
two ends do not share. While the interface is administratively down the kernel does not tell (reading the file gives
EINVAL): then the finding says so, as the remedy is another one. A VF follows its physical function.

By hand:

    ip -br link show dev ens1np0
    ethtool ens1np0 | grep -iE 'link detected|speed'
    ethtool --show-fec ens1np0;  ethtool -m ens1np0        # module, light levels
    mlxlink -d 18:00.0 -m

"ip link set ens1np0 up" brings an interface up until the next boot; whoever configures the host (netplan,
NetworkManager, systemd-networkd) has to do it for good. operstate is no proof: many drivers leave it "unknown".`,
	Refs:     []string{"https://docs.kernel.org/networking/operstates.html", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net"},
	Requires: []string{"driver.bound"},
	Run:      runCarrier,
}

func runCarrier(_ context.Context, r *check.Run) error {
	reportHidden(r, func(n *profile.NICRule) bool { return n.Carrier.V })
	for _, w := range selected(r) {
		if !w.Rule.Carrier.V {
			continue
		}
		n := w.NIC
		f := check.Finding{Subject: n.Subject(), Want: "link up", Source: w.Rule.Carrier.Origin.String()}
		switch {
		case n.Carrier != nil && *n.Carrier:
			f.Status, f.Got = check.Pass, "up"
			f.Evidence = []check.Evidence{{Source: n.Attr("carrier"), Value: "1"}}
		case n.Carrier != nil:
			f.Status, f.Got = check.Fail, "no carrier"
			f.Why = "the interface is up and hears nothing from the other end"
			f.Evidence = []check.Evidence{{Source: n.Attr("carrier"), Value: "0"}}
			f.Next = fmt.Sprintf("check cable, module and switch port; ethtool -m %s shows the light, ethtool --show-fec %s the error correction", n.Name, n.Name)
		case n.AdminUp != nil && !*n.AdminUp:
			f.Status, f.Got = check.Fail, "interface down"
			f.Why = "nobody has brought the interface up, so its link is not known either"
			f.Evidence = []check.Evidence{{Source: n.Attr("flags"), Value: "IFF_UP is off"}}
			f.Next = "ip link set dev " + n.Name + " up, and have the host's network configuration do it at boot"
		default:
			f.Status, f.Why = check.Unknown, n.Unknown["carrier"]
		}
		r.Report(f)
	}
	return nil
}

var linkSpeed = &check.Check{
	ID:       "link.speed",
	Title:    "Every port runs at the speed that it was bought for",
	Severity: check.High,
	Doc: `A 400G port that trained at 200G works, and halves every collective that this host takes part in. Wanted is the
"speed_mbps" of the nics rule, at least; the truth is /sys/class/net/IF/speed in Mb/s. InfiniBand interfaces whose
driver does not fill that file in are judged by the rate of their RDMA port.

The kernel does not tell a speed while the interface is down (EINVAL), and -1 is a driver that does not know it, as
with older Azure adapters: both are unknown here, not failures. link.carrier judges whether the link is up.

Usual causes of a low speed: a cable or module of a lower class, a breakout (one 400G cage split in 2x200G), a switch
port set to a fixed speed, a lane lost to dirt ("mlxlink" shows the width), or firmware that was told to.

By hand:

    cat /sys/class/net/ens1np0/speed
    cat /sys/class/infiniband/mlx5_0/ports/1/rate          # "400 Gb/sec (4X NDR)"
    ethtool ens1np0 | sed -n '/Supported link modes/,/Auto/p'

A card of the same id that was bought for less belongs in the profile: --set nics.RULE.speed_mbps=200000.`,
	Refs:     []string{"https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net", "https://docs.kernel.org/networking/ethtool-netlink.html"},
	Requires: []string{"link.carrier"},
	Run:      runSpeed,
}

func runSpeed(_ context.Context, r *check.Run) error {
	reportHidden(r, func(n *profile.NICRule) bool { return n.SpeedMbps.Set })
	for _, w := range selected(r) {
		want := w.Rule.SpeedMbps
		if !want.Set {
			continue
		}
		n := w.NIC
		f := check.Finding{Subject: n.Subject(), Want: "at least " + speed(want.V), Source: want.Origin.String()}
		got, from, value := n.SpeedMbps, n.Attr("speed"), ""
		if got == nil {
			got, from, value = rateOf(r.Facts, n)
		} else {
			value = strconv.Itoa(*got)
		}
		switch {
		case got == nil && n.Carrier != nil && !*n.Carrier:
			f.Status, f.Why = check.Unknown, "without a link there is no speed"
		case got == nil:
			f.Status, f.Why = check.Unknown, n.Unknown["speed_mbps"]
		default:
			f.Got = speed(*got)
			f.Evidence = []check.Evidence{{Source: from, Value: value}}
			f.Status = check.Pass
			if *got < want.V {
				f.Status, f.Why = check.Fail, reason(want.Origin, "the port trained lower than it should")
				f.Next = "compare with the port at the other end; look at cable, module and breakout (ethtool -m " + n.Name + ", mlxlink)"
			}
		}
		r.Report(f)
	}
	return nil
}

// rateOf gives the rate of the RDMA port on an interface, in Mb/s, for drivers
// that tell the interface's speed nowhere else.
func rateOf(f *facts.Facts, n *facts.NIC) (mbps *int, source, value string) {
	if n.Type == nil || *n.Type != facts.TypeInfiniBand {
		return nil, "", ""
	}
	d, p := f.RDMA().On(n)
	if p == nil || p.RateGbps == nil || p.Rate == nil {
		return nil, "", ""
	}
	return new(int(*p.RateGbps * 1000)), d.Attr(fmt.Sprintf("ports/%d/rate", p.Port)), *p.Rate
}

// speed writes Mb/s for people: 400G, 2.5G, 100M.
func speed(mbps int) string {
	if mbps < 1000 {
		return strconv.Itoa(mbps) + "M"
	}
	return strconv.FormatFloat(float64(mbps)/1000, 'f', -1, 64) + "G"
}

// reason is why a value is wanted, in the profile's words where it has some.
func reason(o profile.Origin, otherwise string) string {
	if o.Why != "" {
		return o.Why
	}
	return otherwise
}

var linkMTU = &check.Check{
	ID:       "link.mtu",
	Title:    "The MTU is large enough for RDMA and fits the fabric",
	Severity: check.Medium,
	FixTier:  plan.Firmware,
	Doc: `RoCE packets have sizes of 256, 512, 1024, 2048 or 4096 bytes, and 96 bytes of headers come on top. The kernel takes
the interface's MTU less 96 and rounds down: 1500 gives 1024, 4200 gives 4096, and 4191 only 2048. Half the packet
size is twice the packets, acknowledgements and interrupts for the same bytes.

Wanted are "mtu_min" and "mtu_max" of the nics rule. A larger MTU than the switches carry is worse than a small one:
packets that are too long are dropped without a word, so raise it on every switch port, then on the hosts.

By hand:

    cat /sys/class/net/ens1np0/mtu
    ibv_devinfo -d mlx5_0 | grep active_mtu
    ping -M do -s 8972 PEER                 # 9000 less 28 bytes of headers; must not fragment
    ip link set dev ens1np0 mtu 9000        # until the next boot

For good it belongs in the host's network configuration. On a bond set it on the bond, in Azure on the synthetic
interface: the kernel passes it on to what is below. An RDMA program that is running keeps the size it started with.
InfiniBand interfaces are different: there the MTU of IPoIB says nothing about RDMA.`,
	Refs:     []string{"https://github.com/torvalds/linux/blob/master/include/rdma/ib_addr.h"},
	Requires: []string{"driver.bound"},
	Run:      runMTU,
}

func runMTU(_ context.Context, r *check.Run) error {
	reportHidden(r, func(n *profile.NICRule) bool { return n.MTUMin.Set || n.MTUMax.Set })
	for _, w := range selected(r) {
		lo, hi := w.Rule.MTUMin, w.Rule.MTUMax
		if !lo.Set && !hi.Set {
			continue
		}
		n := w.NIC
		f := check.Finding{Subject: n.Subject(), Source: lo.Origin.String()}
		switch {
		case lo.Set && hi.Set:
			f.Want = fmt.Sprintf("%d to %d", lo.V, hi.V)
		case lo.Set:
			f.Want = fmt.Sprintf("at least %d", lo.V)
		default:
			f.Want, f.Source = fmt.Sprintf("at most %d", hi.V), hi.Origin.String()
		}
		if n.MTU == nil {
			f.Status, f.Why = check.Unknown, n.Unknown["mtu"]
			r.Report(f)
			continue
		}
		mtu := *n.MTU
		f.Got = strconv.Itoa(mtu)
		if n.Type != nil && *n.Type == facts.TypeEthernet && w.Rule.RDMA.V {
			f.Got += fmt.Sprintf(" (RDMA packets of %d)", facts.RoCEMTU(mtu))
		}
		f.Evidence = []check.Evidence{{Source: n.Attr("mtu"), Value: strconv.Itoa(mtu)}}
		switch {
		case lo.Set && mtu < lo.V:
			f.Status, f.Why = check.Fail, reason(lo.Origin, "smaller than this host should have")
			f.Next = fmt.Sprintf("first on the switches, then: ip link set dev %s mtu %d, and in the host's network configuration", master(n), lo.V)
			f.Fix = offer(lo.Origin, wishManual(masterSubject(n), "mtu", f.Evidence[0].Value, strconv.Itoa(lo.V), f.Why))
		case hi.Set && mtu > hi.V:
			f.Status, f.Source, f.Why = check.Fail, hi.Origin.String(), reason(hi.Origin, "larger than the fabric carries: long packets are dropped without a word")
			f.Next = fmt.Sprintf("ip link set dev %s mtu %d, and in the host's network configuration", master(n), hi.V)
			f.Fix = offer(hi.Origin, wishManual(masterSubject(n), "mtu", f.Evidence[0].Value, strconv.Itoa(hi.V), f.Why))
		default:
			f.Status = check.Pass
		}
		r.Report(f)
	}
	return nil
}

// master is the interface on which settings are made for n: its bond or its
// synthetic twin, else itself.
func master(n *facts.NIC) string {
	if n.Master != nil && *n.Master != "" {
		return *n.Master
	}
	return n.Name
}

// masterSubject names that interface as findings do.
func masterSubject(n *facts.NIC) string {
	if m := master(n); m != n.Name {
		return m
	}
	return n.Subject()
}
