// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"
)

func TestNICs(t *testing.T) {
	nics := base(t, "rdma-intel").NICs()
	n := nics.Named("ens2np0")
	if n == nil {
		t.Fatal("ens2np0 is not listed")
	}
	if *n.BDF != "0000:9a:00.0" || *n.Driver != "mlx5_core" || *n.Flavour != "in-tree" || *n.NUMANode != 1 || *n.Master != "" || n.VF {
		t.Errorf("its place: %+v", n)
	}
	if *n.SpeedMbps != 400000 || *n.MTU < 4192 || !*n.Carrier || *n.OperState != "up" || !*n.AdminUp || *n.Type != TypeEthernet {
		t.Errorf("its state: %+v", n)
	}
	if FirmwareVersion(*n.Firmware) != "28.43.2026" || !n.PrivFlags["rx_striding_rq"] || n.Rings.RX != 8192 || n.Channels.CombinedMax != 16 || !n.Features["rx-checksum"] {
		t.Errorf("what its driver says: %+v", n)
	}
	if vf := nics.Named("ens2v0"); !vf.VF || *vf.Driver != "mlx5_core" || vf.MTU != nil {
		t.Errorf("a VF in a check run: %+v, want its place and no state", vf)
	}
	vf := base(t, "rdma-intel").NICsAll().Named("ens2v0")
	if !vf.VF || vf.Rings != nil || vf.Unknown["rings"] == "" {
		t.Errorf("a VF: %+v, want no questions to its driver", vf)
	}
	if vf.SpeedMbps != nil || vf.Carrier != nil || !strings.Contains(vf.Unknown["carrier"], "while the interface is down") {
		t.Errorf("a VF that is down: %v %q", vf.Carrier, vf.Unknown["carrier"])
	}
	if lo := nics.Named("lo"); *lo.BDF != "" || *lo.Driver != "" || lo.Physical() || *lo.Type != TypeLoopback {
		t.Errorf("lo: %+v", lo)
	}
	if of := nics.Of("0000:9a:00.0"); len(of) != 1 || of[0] != n {
		t.Errorf("of 0000:9a:00.0: %v", of)
	}
	if igb := nics.Named("eno1"); igb.PrivFlags != nil || !strings.Contains(igb.Unknown["priv_flags"], "not applicable") {
		t.Errorf("private flags of igb: %v %q", igb.PrivFlags, igb.Unknown["priv_flags"])
	}
}

// An Azure adapter stands below a synthetic interface, on a bus of its own.
func TestNICsAzure(t *testing.T) {
	nics := base(t, "azure-mana-x86").NICs()
	lower := nics.Lower("eth0")
	if len(lower) != 1 || *lower[0].Driver != "mana" || *lower[0].BDF != "7870:00:00.0" {
		t.Fatalf("below eth0: %+v", lower)
	}
	if eth0 := nics.Named("eth0"); *eth0.Driver != "hv_netvsc" || eth0.Physical() {
		t.Errorf("eth0: %+v", eth0)
	}
}

func TestNICVariants(t *testing.T) {
	f := treeOf(t, `
-- proc/modules --
mlx5_core 1 0 - Live 0x0 (OE)
mlx5_ib 1 0 - Live 0x0
ice 1 0 - Live 0x0 (OE)
-- sys/module/mlx5_core/version --
24.10-1.1.4
-- sys/class/net/bonding_masters --
bond0
-- sys/class/net/eth0/mtu --
1500
-- sys/class/net/eth0/speed --
4294967295
-- sys/class/net/eth0/device -> ../../../devices/pci0000:00/0000:00:03.0 --
-- sys/devices/pci0000:00/0000:00:03.0/driver -> ../../../bus/pci/drivers/ice --
-- sys/class/net/eth1/mtu --
rubbish
-- sys/class/net/eth1/flags --
0x1003
-- sys/class/net/eth1/speed [errno EINVAL] --
-- sys/devices/virtual/net/br0/mtu --
1500
-- sys/class/net/br0 -> ../../devices/virtual/net/br0 --
`)
	nics := f.NICs()
	if len(nics.List) != 3 {
		t.Fatalf("%d interfaces, want 3", len(nics.List))
	}
	eth0, eth1, br0 := nics.Named("eth0"), nics.Named("eth1"), nics.Named("br0")
	if *eth0.BDF != "0000:00:03.0" || *eth0.Driver != "ice" || *eth0.Flavour != "out-of-tree" || *eth0.MTU != 1500 || eth0.SpeedMbps != nil {
		t.Errorf("a real directory with a device link: %+v", eth0)
	}
	if !strings.Contains(eth0.Unknown["speed_mbps"], "does not know") || !strings.Contains(eth0.Unknown["firmware"], "not captured") {
		t.Errorf("its unknowns: %v", eth0.Unknown)
	}
	if eth1.BDF != nil || eth1.MTU != nil || !strings.Contains(eth1.Unknown["bdf"], "not a link") || !strings.Contains(eth1.Unknown["mtu"], "not a number") || !strings.Contains(eth1.Unknown["speed_mbps"], "not told by the driver") {
		t.Errorf("a real directory without one: %+v", eth1)
	}
	if *br0.BDF != "" || *br0.Driver != "" {
		t.Errorf("a virtual interface: %+v", br0)
	}
	for _, c := range []struct{ module, flavour, why string }{
		{"mlx5_core", "ofed", ""}, {"mlx5_ib", "", "may not have captured"}, {"ice", "out-of-tree", ""}, {"ib_core", "", "whether it is built in is not known"},
	} {
		if flavour, why := f.Modules().Flavour(c.module); flavour != c.flavour || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %q %q, want %q %q", c.module, flavour, why, c.flavour, c.why)
		}
	}
}

// A number that the kernel cannot have printed is not judged.
func TestNICNumbersOutOfRange(t *testing.T) {
	for _, c := range []struct {
		attr, text string
		want       any // nil: unknown
	}{
		{"carrier", "0", false}, {"carrier", "1", true}, {"carrier", "-1", nil}, {"carrier", "2", nil}, {"carrier", "9223372036854775807", nil},
		{"speed", "400000", 400000}, {"speed", "2147483647", 2147483647}, {"speed", "2147483648", nil}, {"speed", "-1", nil}, {"speed", "0", nil}, {"speed", "65535", nil}, {"speed", "4294967295", nil},
		{"mtu", "68", 68}, {"mtu", "65536", 65536}, {"mtu", "2147483647", 2147483647}, {"mtu", "2147483648", nil}, {"mtu", "-1", nil},
		{"type", "32", 32}, {"type", "65535", 65535}, {"type", "65536", nil}, {"type", "-1", nil},
		{"flags", "0x1003", true}, {"flags", "0x1002", false}, {"flags", "0x100000001", nil}, {"flags", "-1", nil},
	} {
		n := treeOf(t, "whole: /sys\n-- sys/class/net/eth0/"+c.attr+" --\n"+c.text+"\n").NICs().Named("eth0")
		field := map[string]string{"speed": "speed_mbps", "flags": "admin_up"}[c.attr]
		if field == "" {
			field = c.attr
		}
		got := map[string]any{"carrier": show(n.Carrier), "speed": show(n.SpeedMbps), "mtu": show(n.MTU), "type": show(n.Type), "flags": show(n.AdminUp)}[c.attr]
		why := n.Unknown[field]
		if (got != c.want && (got != "<nil>" || c.want != nil)) || (c.want == nil) != strings.Contains(why, n.Attr(c.attr)+": ") {
			t.Errorf("%s %s: %v %q, want %v", c.attr, c.text, got, why, c.want)
		}
	}
}

// In switchdev mode a physical function has an interface for each VF, too.
func TestRepresentors(t *testing.T) {
	f := treeOf(t, `
whole: /sys
-- sys/devices/pci0000:00/0000:00:03.0/class --
0x020000
-- sys/bus/pci/devices/0000:00:03.0 -> ../../../devices/pci0000:00/0000:00:03.0 --
-- sys/devices/pci0000:00/0000:00:03.0/net/eth0/phys_port_name --
p0
-- sys/devices/pci0000:00/0000:00:03.0/net/eth1/phys_port_name --
pf0vf1
-- sys/devices/pci0000:00/0000:00:03.0/net/eth2/phys_port_name --
c1pf0
-- sys/devices/pci0000:00/0000:00:03.0/net/eth3/phys_port_name [errno EOPNOTSUPP] --
-- sys/class/net/eth0 -> ../../devices/pci0000:00/0000:00:03.0/net/eth0 --
-- sys/class/net/eth1 -> ../../devices/pci0000:00/0000:00:03.0/net/eth1 --
-- sys/class/net/eth2 -> ../../devices/pci0000:00/0000:00:03.0/net/eth2 --
-- sys/class/net/eth3 -> ../../devices/pci0000:00/0000:00:03.0/net/eth3 --
`)
	for name, want := range map[string]bool{"eth0": false, "eth1": true, "eth2": true, "eth3": false} {
		if n := f.NICs().Named(name); n.Representor != want || *n.BDF != "0000:00:03.0" {
			t.Errorf("%s: representor %v, want %v", name, n.Representor, want)
		}
	}
}

func TestRoCEMTU(t *testing.T) {
	for mtu, want := range map[int]int{68: 0, 351: 0, 352: 256, 1500: 1024, 2143: 1024, 2144: 2048, 4191: 2048, 4192: 4096, 9000: 4096} {
		if got := RoCEMTU(mtu); got != want {
			t.Errorf("%d: %d, want %d", mtu, got, want)
		}
	}
}

func TestFirmwareVersion(t *testing.T) {
	for s, want := range map[string]string{"28.43.2026 (MT_0000000838)": "28.43.2026", "20.31.2354": "20.31.2354", "4.40 0x8001c967 1.3534.0": "4.40", "1.63, 0x800009fa": "1.63", "": "", "n/a": ""} {
		if got := FirmwareVersion(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"28.9.1002", "28.39.1002", -1}, {"28.39.1002", "28.39.1002", 0}, {"28.39", "28.39.0", 0}, {"28.39.1", "28.39", 1},
		{"30", "28.39.1002", 1}, {"rc", "1", -1}, {"1", "rc", 1}, {"a", "b", -1},
	} {
		if got := CompareVersions(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
