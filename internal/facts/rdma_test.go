// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

func base(t testing.TB, name string) *Facts {
	t.Helper()
	return New(fixture.Load(t, "../../testdata/hosts/"+name+".txtar").Host(t))
}

func ptr[T any](v T) *T { return &v }

// gids writes a GID table of 256 slots of which some are in use, as the
// kernel shows it.
func gids(dir string, used map[int]RDMAGID) string {
	var b strings.Builder
	for i := range 256 {
		g, ok := used[i]
		if !ok {
			fmt.Fprintf(&b, "-- %s/gids/%d --\n0000:0000:0000:0000:0000:0000:0000:0000\n", dir, i)
			fmt.Fprintf(&b, "-- %s/gid_attrs/types/%d [errno EINVAL] --\n", dir, i)
			fmt.Fprintf(&b, "-- %s/gid_attrs/ndevs/%d [errno EINVAL] --\n", dir, i)
			continue
		}
		fmt.Fprintf(&b, "-- %s/gids/%d --\n%s\n-- %s/gid_attrs/types/%d --\n%s\n-- %s/gid_attrs/ndevs/%d --\n%s\n", dir, i, g.GID, dir, i, g.Type, dir, i, g.Ndev)
	}
	return b.String()
}

const (
	linkLocal = "fe80:0000:0000:0000:0000:5eff:fe10:0100"
	ipv4      = "0000:0000:0000:0000:0000:ffff:0a64:010a"
)

func TestRDMABase(t *testing.T) {
	f := base(t, "rdma-intel")
	r := f.RDMAAll()
	var got []string
	for _, d := range r.Devices {
		p := d.Ports[0]
		got = append(got, fmt.Sprint(d.Device, " ", *d.BDF, " ", *d.Driver, " ", *d.Firmware, " ", *d.Netdev, " ", *p.State, " ", *p.RateGbps, " ", *p.LinkLayer, " ", len(p.GIDs), " ", d.VF))
	}
	want := []string{
		"mlx5_0 0000:18:00.0 mlx5_core 28.43.2026 ens1np0 4: ACTIVE 400 Ethernet 4 false",
		"mlx5_1 0000:9a:00.0 mlx5_core 28.43.2026 ens2np0 4: ACTIVE 400 Ethernet 4 false",
		"mlx5_2 0000:9a:00.1 mlx5_core 28.43.2026 ens2v0 1: DOWN 400 Ethernet 0 true",
		"mlx5_3 0000:9a:00.2 mlx5_core 28.43.2026 ens2v1 1: DOWN 400 Ethernet 0 true",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(r.Missing) != 0 {
		t.Errorf("nothing is missing, got %+v", r.Missing[0])
	}
	if why := r.Devices[2].Ports[0].Unknown["gids"]; !strings.Contains(why, "virtual function") {
		t.Errorf("why are the GIDs of a VF not known: %q", why)
	}
	checked := f.RDMA()
	for i, d := range checked.Devices {
		want := r.Devices[i]
		if show(d.BDF) != show(want.BDF) || d.VF != want.VF || d.VF != (d.Ports == nil) || d.VF != (d.Unknown["ports"] != "") {
			t.Errorf("for checks: %+v, in full: %+v", d, want)
		}
	}
	d, p := r.On(f.NICs().Named("ens2np0"))
	if d == nil || d.Device != "mlx5_1" || p.Port != 1 {
		t.Errorf("ens2np0 has %+v", d)
	}
	if d, _ := r.On(f.NICs().Named("eno1")); d != nil {
		t.Errorf("eno1 has %s", d.Device)
	}
}

func TestRDMAGIDs(t *testing.T) {
	const dir = "sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0"
	head := "whole: /sys\n-- sys/class/infiniband/mlx5_0 -> ../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0 --\n" +
		"-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --\n" +
		"-- " + dir + "/ports/1/state --\n4: ACTIVE\n-- " + dir + "/ports/1/link_layer --\nEthernet\n"
	v1 := RDMAGID{GID: linkLocal, Type: "IB/RoCE v1", Ndev: "eth0"}
	v2 := RDMAGID{GID: linkLocal, Type: "RoCE v2", Ndev: "eth0"}
	ip := RDMAGID{GID: ipv4, Type: "RoCE v2", Ndev: "eth0.100"}
	tests := []struct {
		name  string
		used  map[int]RDMAGID
		index []int
		asked int // slots whose type is read
	}{
		{"an address in the first step ends the scan at the next", map[int]RDMAGID{0: v1, 1: v2, 3: ip}, []int{0, 1, 3}, 32},
		{"an address after a hole is found", map[int]RDMAGID{0: v1, 1: v2, 200: ip}, []int{0, 1, 200}, 224},
		{"without an address the whole table is read", map[int]RDMAGID{0: v1, 1: v2}, []int{0, 1}, 256},
		{"an empty table", nil, nil, 256},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := treeOf(t, head+gids(dir+"/ports/1", tt.used))
			p := f.RDMA().Devices[0].Ports[0]
			var index []int
			for _, g := range p.GIDs {
				index = append(index, g.Index)
			}
			if !slices.Equal(index, tt.index) {
				t.Errorf("slots %v, want %v (unknown: %v)", index, tt.index, p.Unknown)
			}
			asked := 0
			for _, op := range f.Host().Asked() {
				if strings.Contains(op.Path, "gid_attrs/types/") {
					asked++
				}
			}
			if asked != tt.asked {
				t.Errorf("%d types were read, want %d", asked, tt.asked)
			}
		})
	}
}

// One device that cannot be read hides no other, and what is not known says why.
func TestRDMABroken(t *testing.T) {
	f := treeOf(t, `whole: /sys
-- sys/class/infiniband/mlx5_0 -> ../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0 --
-- sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0/ports [errno EACCES] --
-- sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0/fw_ver [errno EIO] --
-- sys/class/infiniband/mlx5_1 -> ../../devices/pci0000:00/0000:02:00.0/mlx5_core.rdma.1/infiniband/mlx5_1 --
-- sys/devices/pci0000:00/0000:02:00.0/mlx5_core.rdma.1/infiniband/mlx5_1/ports/1/rate --
garbage
-- sys/devices/pci0000:00/0000:02:00.0/mlx5_core.rdma.1/infiniband/mlx5_1/ports/1/link_layer --
InfiniBand
-- sys/devices/pci0000:00/0000:02:00.0/mlx5_core.rdma.1/infiniband/mlx5_1/ports/1/gids/0 --
fe80:0000:0000:0000:0002:c903:0000:0001
-- sys/class/infiniband/rxe0 -> ../../devices/virtual/infiniband/rxe0 --
-- sys/devices/virtual/infiniband/rxe0/ports/1/state --
4: ACTIVE
-- sys/class/infiniband/scif0 -> ../../devices/scif_dma_0/infiniband/scif0 --
-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --
-- sys/bus/pci/devices/0000:02:00.0 -> ../../../devices/pci0000:00/0000:02:00.0 --
-- sys/bus/pci/devices/0000:02:00.0/driver -> ../../../../bus/pci/drivers/mlx5_core --
-- sys/class/net/lo/mtu --
65536
`)
	r := f.RDMA()
	if len(r.Devices) != 4 {
		t.Fatalf("%d devices", len(r.Devices))
	}
	broken, aux, rxe, scif := r.Devices[0], r.Devices[1], r.Devices[2], r.Devices[3]
	if broken.Ports != nil || !strings.Contains(broken.Unknown["ports"], "permission denied") || !strings.Contains(broken.Unknown["firmware"], "input/output error") {
		t.Errorf("broken device: %+v", broken)
	}
	p := aux.Ports[0]
	if show(aux.BDF) != "0000:02:00.0" || show(aux.Driver) != "mlx5_core" || p.RateGbps != nil || p.Unknown["rate_gbps"] == "" || p.Unknown["state"] == "" {
		t.Errorf("device on the auxiliary bus: %+v, %+v", aux, p)
	}
	if len(p.GIDs) != 1 || p.GIDs[0].Type != "" {
		t.Errorf("GIDs of an InfiniBand port of an old kernel: %+v", p.GIDs)
	}
	for _, d := range []*RDMADevice{rxe, scif} {
		if show(d.BDF) != "" || show(d.Driver) != "" {
			t.Errorf("software device: %+v", d)
		}
	}
	if !rxe.Ports[0].Active() || rxe.Ports[0].LinkUp() {
		t.Errorf("rxe0: %+v", rxe.Ports[0])
	}
	if b, err := json.Marshal(r); err != nil || !strings.HasPrefix(string(b), `[{"device":"mlx5_0"`) {
		t.Errorf("%v %s", err, b)
	}
}

func TestRDMANone(t *testing.T) {
	// the kernel's own word that there are none, and a tree that says nothing
	if r := treeOf(t, "whole: /sys\n-- sys/class/net/lo/mtu --\n65536\n").RDMA(); r.Devices == nil || len(r.Devices) != 0 {
		t.Errorf("got %+v, want an empty list", r)
	}
	r := treeOf(t, "-- sys/class/net/lo/mtu --\n65536\n").RDMA()
	if b, _ := json.Marshal(r); string(b) != "null" || !strings.Contains(r.Why, "may not have captured it") {
		t.Errorf("got %s because %q, want null", b, r.Why)
	}
}

func TestRDMAMissing(t *testing.T) {
	const tree = `whole: /sys
-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --
-- sys/bus/pci/devices/0000:02:00.0 -> ../../../devices/pci0000:00/0000:02:00.0 --
-- sys/bus/pci/devices/0000:03:00.0 -> ../../../devices/pci0000:00/0000:03:00.0 --
-- sys/bus/pci/devices/0000:04:00.0 -> ../../../devices/pci0000:00/0000:04:00.0 --
-- sys/devices/pci0000:00/0000:01:00.0/driver -> ../../../bus/pci/drivers/mlx5_core --
-- sys/devices/pci0000:00/0000:01:00.0/mlx5_core.eth.0/driver -> ../../../../bus/auxiliary/drivers/mlx5_core.eth --
-- sys/devices/pci0000:00/0000:01:00.0/mlx5_core.rdma.0/uevent --
MODALIAS=auxiliary:mlx5_core.rdma
-- sys/devices/pci0000:00/0000:02:00.0/driver -> ../../../bus/pci/drivers/ice --
-- sys/devices/pci0000:00/0000:02:00.0/ice.roce.1/driver -> ../../../../bus/auxiliary/drivers/irdma.roce --
-- sys/devices/pci0000:00/0000:03:00.0/driver -> ../../../bus/pci/drivers/mana --
-- sys/devices/pci0000:00/0000:04:00.0/driver -> ../../../bus/pci/drivers/igb --
`
	var got []string
	for _, m := range treeOf(t, tree).RDMA().Missing {
		got = append(got, fmt.Sprint(m.Function.BDF, " ", m.Module, " ", m.Offered, " ", m.Bound))
	}
	want := []string{
		"0000:01:00.0 mlx5_ib [mlx5_core.rdma.0] false",
		"0000:02:00.0 irdma [ice.roce.1] true",
		"0000:03:00.0 mana_ib [] false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseRate(t *testing.T) {
	tests := []struct {
		in   string
		want float64 // NaN: none
	}{
		{"400 Gb/sec (4X NDR)", 400}, {"2.5 Gb/sec (1X SDR)", 2.5}, {"200 Gb/sec (2X NDR)", 200}, {"56 Gb/sec (4X FDR)", 56}, {"800 Gb/sec", 800},
		{"", math.NaN()}, {"fast", math.NaN()}, {"-1 Gb/sec", math.NaN()}, {"1e9 Gb/sec", math.NaN()}, {"400 Mb/sec", math.NaN()}, {"400Gb/sec", math.NaN()},
	}
	for _, tt := range tests {
		switch got := parseRate(tt.in); {
		case math.IsNaN(tt.want) && got != nil:
			t.Errorf("%q gave %v, want none", tt.in, *got)
		case !math.IsNaN(tt.want) && (got == nil || *got != tt.want):
			t.Errorf("%q gave %v, want %v", tt.in, show(got), tt.want)
		}
	}
}

func TestGIDIP(t *testing.T) {
	for gid, want := range map[string]bool{
		ipv4: true, linkLocal: false, "2001:0db8:0000:0000:0000:0000:0000:0001": true, "0000:0000:0000:0000:0000:ffff:a9fe:0001": false,
		"0000:0000:0000:0000:0000:0000:0000:0000": false, "febf:0000:0000:0000:0000:0000:0000:0001": false, "": false, "x": false,
		"fe80::1": false, "2001:db8::1": false, "0000:0000:0000:0000:0000:ffff:0a64:010a:0000": false, "0000:0000:0000:0000:0000:ffff:0a64:01zz": false,
	} {
		if got := (RDMAGID{GID: gid}).IP(); got != want {
			t.Errorf("%q: %v, want %v", gid, got, want)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("400 Gb/sec (4X NDR)")
	f.Add("2.5 Gb/sec (1X SDR)")
	f.Fuzz(func(t *testing.T, s string) {
		if v := parseRate(s); v != nil && (*v < 0 || *v > 1e6 || math.IsNaN(*v)) {
			t.Errorf("%q gave %v", s, *v)
		}
		if w := StateName(s); len(w) > len(s) {
			t.Errorf("%q gave %q", s, w)
		}
		_ = RDMAGID{GID: s}.IP()
	})
}

func TestRDMAOn(t *testing.T) {
	port := func(netdev *string) []*RDMAPort { return []*RDMAPort{{Port: 1, Netdev: netdev}} }
	r := &RDMA{Devices: []*RDMADevice{
		{Device: "mlx5_0", BDF: ptr("0000:01:00.0"), Ports: port(ptr("eth0"))},
		{Device: "mlx5_bond_0", BDF: ptr("0000:02:00.0"), Ports: port(ptr("bond0"))},
		{Device: "mlx5_3", BDF: ptr("0000:03:00.0"), Ports: port(nil)},
	}}
	for _, tt := range []struct {
		nic  *NIC
		want string
	}{
		{&NIC{Name: "eth0", BDF: ptr("0000:01:00.0")}, "mlx5_0"},
		{&NIC{Name: "eth0rep1", BDF: ptr("0000:01:00.0"), Master: ptr("")}, ""}, // the representor of a VF
		{&NIC{Name: "bond0", BDF: ptr("")}, "mlx5_bond_0"},
		{&NIC{Name: "eth2", BDF: ptr("0000:02:00.0"), Master: ptr("bond0")}, "mlx5_bond_0"},
		{&NIC{Name: "eth2b", BDF: ptr("0000:02:00.1"), Master: ptr("bond0")}, "mlx5_bond_0"}, // its second port
		{&NIC{Name: "eth3", BDF: ptr("0000:03:00.0")}, "mlx5_3"},
		{&NIC{Name: "lo", BDF: ptr("")}, ""},
		{nil, ""},
	} {
		name := ""
		if d, _ := r.On(tt.nic); d != nil {
			name = d.Device
		}
		if name != tt.want {
			t.Errorf("%+v has %q, want %q", tt.nic, name, tt.want)
		}
	}
}
