// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestPCIFunctions(t *testing.T) {
	bus := base(t, "rdma-intel").PCI()
	nic := bus.At("0000:9a:00.0")
	if nic == nil {
		t.Fatal("the second NIC is not listed")
	}
	if nic.ID() != "15b3:1021" || *nic.Class != "020000" || *nic.Driver != "mlx5_core" || *nic.NUMANode != 1 || *nic.Parent != "0000:99:00.0" {
		t.Errorf("the second NIC: %+v", nic)
	}
	if nic.VF() || *nic.NumVFs != 2 || !slices.Equal(nic.VFs, []string{"0000:9a:00.1", "0000:9a:00.2"}) {
		t.Errorf("its VFs: %v of %v", nic.VFs, *nic.NumVFs)
	}
	if l := nic.Link; *l.SpeedGTs != 32 || *l.Width != 16 || *l.MaxSpeedGTs != 32 || *l.MaxWidth != 16 {
		t.Errorf("its link: %v", l)
	}
	if *nic.MPS != 256 || *nic.MRRS != 4096 || *nic.ConfigBytes != 4096 {
		t.Errorf("its sizes: %d %d %d", *nic.MPS, *nic.MRRS, *nic.ConfigBytes)
	}
	if vf := bus.At("0000:9a:00.1"); !vf.VF() || *vf.PhysFn != "0000:9a:00.0" || vf.Config != nil {
		t.Errorf("a VF: %+v, want its PF and no configuration space", vf)
	}
	above, known := bus.Above(nic)
	var at []string
	for _, fn := range above {
		at = append(at, fn.BDF)
	}
	if !known || !slices.Equal(at, []string{"0000:99:00.0", "0000:98:00.0", "0000:97:01.0"}) {
		t.Errorf("above it: %v (%v)", at, known)
	}
	gpus := 0
	for _, fn := range bus.Functions {
		if fn.GPU() {
			gpus++
		}
	}
	if gpus != 2 {
		t.Errorf("%d GPUs, want 2", gpus)
	}
}

// The facts command reads what a check run leaves out.
func TestPCIAll(t *testing.T) {
	f := base(t, "rdma-intel")
	vf := f.PCIAll().At("0000:9a:00.1")
	if vf.Config == nil || *vf.ConfigBytes != 4096 || vf.TotalVFs != nil {
		t.Errorf("a VF: %+v", vf)
	}
	// its configuration space has all ones where others have their IDs, and no sizes
	if vf.Space.Gone || vf.Space.PortType() != "Endpoint" || vf.MPS != nil || !strings.Contains(vf.Unknown["mrrs"], "0000:9a:00.0") {
		t.Errorf("a VF's configuration space: %+v, %+v", vf.Space, vf.Unknown)
	}
	var ports []string
	for _, p := range f.ACS().List {
		if p.Ctl != nil {
			ports = append(ports, p.BDF+" "+*p.PortType+" "+*p.Ctl)
		}
	}
	want := []string{
		"0000:00:1c.0 Root Port 001d",
		"0000:15:01.0 Root Port 001d", "0000:17:00.0 Downstream Port 0000", "0000:17:01.0 Downstream Port 0000",
		"0000:97:01.0 Root Port 001d", "0000:99:00.0 Downstream Port 0000", "0000:99:01.0 Downstream Port 0000",
	}
	if !slices.Equal(ports, want) {
		t.Errorf("ACS: got %q, want %q", ports, want)
	}
	b, err := json.Marshal(f.ACS())
	if err != nil || !strings.Contains(string(b), `{"bdf":"0000:16:00.0","port_type":"Upstream Port","cap":null,"ctl":null,"redirect":false,"quirk":"","unknown":{}}`) {
		t.Errorf("an upper switch port, which has no ACS: %s, %v", b, err)
	}
}

// Other places say the same in other ways: single attributes without a
// modalias, real directories, virtfn links without physfn, more digits.
func TestPCIVariants(t *testing.T) {
	f := treeOf(t, `
-- sys/devices/pci10000:e0/10000:e0:06.0/vendor --
0x8086
-- sys/devices/pci10000:e0/10000:e0:06.0/device --
0x9a09
-- sys/devices/pci10000:e0/10000:e0:06.0/class --
0x060400
-- sys/devices/pci10000:e0/10000:e0:06.0/current_link_speed --
8.0 GT/s PCIe
-- sys/devices/pci10000:e0/10000:e0:06.0/current_link_width --
0
-- sys/devices/pci10000:e0/10000:e0:06.0/max_link_speed --
16 GT/s
-- sys/devices/pci10000:e0/10000:e0:06.0/max_link_width --
255
-- sys/bus/pci/devices/10000:e0:06.0 -> ../../../devices/pci10000:e0/10000:e0:06.0 --
-- sys/bus/pci/devices/0000:01:00.0/class --
0x020000
-- sys/bus/pci/devices/0000:01:00.0/vendor --
0x15b3
-- sys/bus/pci/devices/0000:01:00.0/numa_node --
-1
-- sys/bus/pci/devices/0000:01:00.0/sriov_numvfs --
1
-- sys/bus/pci/devices/0000:01:00.0/virtfn0 -> ../0000:01:00.1 --
-- sys/bus/pci/devices/0000:01:00.1/class --
rubbish
-- sys/bus/pci/devices/slot0 --
`)
	bus := f.PCI()
	if len(bus.Functions) != 3 {
		t.Fatalf("%d functions, want 3", len(bus.Functions))
	}
	port := bus.At("10000:e0:06.0")
	if *port.Parent != "" || port.ID() != "8086:9a09" || *port.Link.SpeedGTs != 8 || *port.Link.MaxSpeedGTs != 16 || port.Link.Width != nil || port.Link.MaxWidth != nil {
		t.Errorf("a port behind VMD: %+v", port)
	}
	if why := port.Unknown["link.width"]; !strings.Contains(why, "0 lanes, so no link") {
		t.Errorf("a width of 0: %q", why)
	}
	pf := bus.At("0000:01:00.0")
	if pf.Parent != nil || pf.NUMANode != nil || !strings.Contains(pf.Unknown["numa_node"], "the firmware gave none") || !strings.Contains(pf.Unknown["parent"], "not a link") {
		t.Errorf("a real directory: %+v", pf)
	}
	if _, known := bus.Above(pf); known {
		t.Error("what is above a function without a place is known")
	}
	vf := bus.At("0000:01:00.1")
	if !slices.Equal(pf.VFs, []string{"0000:01:00.1"}) || !vf.VF() || vf.Class != nil || vf.Unknown["class"] == "" || vf.Unknown["physfn"] != "" {
		t.Errorf("a VF told by virtfn0 alone: %v, %+v", pf.VFs, vf)
	}
	if pf.Driver != nil || !strings.Contains(pf.Unknown["driver"], "may not have captured") {
		t.Errorf("a driver that was not captured: %v, %q", pf.Driver, pf.Unknown["driver"])
	}
}

func TestPCIAbsent(t *testing.T) {
	if bus := treeOf(t, "whole: /sys\n-- sys/kernel/x --\n").PCI(); bus.Functions == nil || len(bus.Functions) != 0 {
		t.Errorf("a kernel without PCI: %+v, want an empty list", bus)
	}
	f := treeOf(t, "-- etc/hostname --\nx\n")
	if bus := f.PCI(); bus.Functions != nil || bus.Why == "" {
		t.Errorf("a tree without PCI: %+v, want a reason", bus)
	}
	if a := f.ACS(); a.List != nil || a.Why == "" {
		t.Errorf("ACS of a tree without PCI: %+v, want a reason", a)
	}
}

func TestParseModalias(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"pci:v000015B3d00001021sv000015B3sd00000041bc02sc00i00", []string{"15b3", "1021", "15b3", "0041", "020000"}},
		{"pci:v00008086d00009A09sv00001028sd00000A6Dbc06sc04i00", []string{"8086", "9a09", "1028", "0a6d", "060400"}},
		{"pci:v000015B3d00001021", nil},
		{"virtio:d00000001v00001AF4", nil},
		{"pci:v000115B3d00001021sv000015B3sd00000041bc02sc00i00", nil},
		{"pci:v000015B3d00001021sv000015B3sd00000041bc02sc00i0", nil},
		{"", nil},
	} {
		ids, ok := parseModalias(c.in)
		if ok != (c.want != nil) || ok && !slices.Equal(ids[:], c.want) {
			t.Errorf("%q: got %v %v, want %v", c.in, ids, ok, c.want)
		}
	}
}

func TestBDF(t *testing.T) {
	for s, want := range map[string]bool{
		"0000:1a:00.0": true, "10000:e0:06.7": true, "c05b00aa:00:02.0": true, "0000:1a:1f.7": true,
		"000:1a:00.0": false, "0000:1A:00.0": false, "0000:1a:00.8": false, "0000:1a:00": false, "pci0000:00": false,
		"": false, "0000:1a:00.0 ": false, "c05b00aa1:00:02.0": false, "0000;1a:00.0": false, "0000:1a-00.0": false,
	} {
		if got := isBDF(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	for p, want := range map[string]string{
		"/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0/net/eth0":                       "0000:02:00.0",
		"/sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0":                            "0000:00:03.0",
		"/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0/mlx5_core.sf.4/net/en3f0pf0sf1": "0000:02:00.0",
		"/sys/devices/virtual/net/lo":                                                      "",
		"relative":                                                                         "",
	} {
		if got := lastBDF(p); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
}

func TestParseLink(t *testing.T) {
	for s, want := range map[string]float64{"32.0 GT/s PCIe": 32, "2.5 GT/s PCIe": 2.5, "16 GT/s": 16, "64.0 GT/s PCIe": 64, "Unknown": 0, "Unknown speed": 0, "": 0, "-1 GT/s": 0, "8 MT/s": 0} {
		if got, err := parseGTs(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for s, want := range map[string]int{"16": 16, "1": 1, "32": 32, "0": 0, "255": 0, "x": 0, "-4": 0} {
		if got, err := parseLanes(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
}

func FuzzPCIText(f *testing.F) {
	f.Add("pci:v000015B3d00001021sv000015B3sd00000041bc02sc00i00")
	f.Add("32.0 GT/s PCIe")
	f.Add("/sys/devices/pci0000:00/0000:00:01.1")
	f.Fuzz(func(t *testing.T, s string) {
		if ids, ok := parseModalias(s); ok {
			for i, id := range ids {
				if n := map[bool]int{true: 6, false: 4}[i == 4]; len(id) != n || strings.Trim(id, "0123456789abcdef") != "" {
					t.Fatalf("%q gives the id %q", s, id)
				}
			}
		}
		if v, err := parseGTs(s); err == nil && (v <= 0 || v > 1024) {
			t.Fatalf("%q gives %v GT/s", s, v)
		}
		if n, err := parseLanes(s); err == nil && (n < 1 || n > 32) {
			t.Fatalf("%q gives %d lanes", s, n)
		}
		if b := lastBDF(s); b != "" && !isBDF(b) {
			t.Fatalf("%q gives the address %q", s, b)
		}
	})
}
