// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

func TestHostsRDMA(t *testing.T) {
	eachHost(t, "expect-rdma.tsv", func(t *testing.T, f *Facts, row map[string]string) {
		for _, d := range f.RDMA().Devices {
			if d.Device != row["device"] {
				continue
			}
			for _, p := range d.Ports {
				if fmt.Sprint(p.Port) == row["port"] {
					comparePort(t, f, d, p, row)
					return
				}
			}
		}
		t.Errorf("no port %s of %s", row["port"], row["device"])
	})
}

func comparePort(t *testing.T, f *Facts, d *RDMADevice, p *RDMAPort, row map[string]string) {
	t.Helper()
	var operstate *string
	if p.Netdev != nil {
		if n := f.NICs().Named(*p.Netdev); n != nil {
			operstate = n.OperState
		}
	}
	for column, got := range map[string]*string{
		"bdf": d.BDF, "state": p.State, "phys_state": p.PhysState, "rate": p.Rate, "link_layer": p.LinkLayer,
		"fw": d.Firmware, "hca_type": d.HCAType, "netdev": d.Netdev, "operstate": operstate,
	} {
		want, ok := row[column]
		if !ok {
			t.Fatalf("the table has no column %s", column)
		}
		if want == "-" {
			want = "<nil>"
		}
		if fmt.Sprint(show(got)) != want {
			t.Errorf("%s %s: %v, want %s", d.Device, column, show(got), want)
		}
	}
	if p.RateGbps == nil || !strings.HasPrefix(row["rate"], fmt.Sprintf("%g Gb/sec", *p.RateGbps)) {
		t.Errorf("%s rate is %v, want %s", d.Device, show(p.RateGbps), row["rate"])
	}
}

// TestHostsRDMAConclusions holds the sentences of the table as code: a row of
// which nothing is known here fails.
func TestHostsRDMAConclusions(t *testing.T) {
	hosts, expect := os.Getenv("HOSTCHECK_HOSTS"), os.Getenv("HOSTCHECK_EXPECT")
	if hosts == "" || expect == "" {
		t.Skip("no trees of real hosts: HOSTCHECK_HOSTS and HOSTCHECK_EXPECT are not set")
	}
	b, err := os.ReadFile(filepath.Join(expect, "expect-rdma-conclusions.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	conclusions := map[string]func(*testing.T, *Facts){
		"hwloc-mlx4-mic-nvme": micHost, "hwloc-qib-2n": qibHost, "gpud-h100.0": gpudHost, "gcm-learn_good": gcmHost,
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for _, line := range lines[1:] {
		file, _, _ := strings.Cut(line, "\t")
		file, _, _ = strings.Cut(strings.TrimPrefix(file, "trees/"), " ")
		t.Run(file, func(t *testing.T) {
			conclude := conclusions[file]
			if conclude == nil {
				t.Fatalf("nothing is known here about %s", file)
			}
			h, err := host.Open(filepath.Join(hosts, file), host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			conclude(t, New(h))
		})
	}
	if len(lines) < 2 {
		t.Error("the table has no rows")
	}
}

// up counts the InfiniBand ports that are ACTIVE and LinkUp at a rate.
func up(f *Facts, gbps float64) (n int) {
	for _, d := range f.RDMA().Devices {
		for _, p := range d.Ports {
			if p.Active() && p.LinkUp() && !p.Ethernet() && p.RateGbps != nil && *p.RateGbps == gbps {
				n++
			}
		}
	}
	return n
}

func device(t *testing.T, f *Facts, name string) *RDMADevice {
	t.Helper()
	for _, d := range f.RDMA().Devices {
		if d.Device == name {
			return d
		}
	}
	t.Fatalf("no device %s", name)
	return nil
}

func micHost(t *testing.T, f *Facts) {
	if up(f, 56) != 1 || len(f.RDMA().Devices) != 2 {
		t.Errorf("%d devices, %d ports up at 56 Gb/s", len(f.RDMA().Devices), up(f, 56))
	}
	fn := f.PCI().At(*device(t, f, "mlx4_0").BDF)
	if fn == nil || show(fn.NUMANode) != 1 || !strings.HasPrefix(fn.Path, "/sys/devices/pci0000:80/") || show(fn.ConfigBytes) != 64 {
		t.Errorf("mlx4_0 stands on %+v", fn)
	}
	scif := device(t, f, "scif0")
	if show(scif.BDF) != "" || show(scif.Driver) != "" || scif.VF {
		t.Errorf("scif0, which has no PCI parent: %+v", scif)
	}
}

func qibHost(t *testing.T, f *Facts) {
	d := device(t, f, "qib0")
	fn := f.PCI().At(*d.BDF)
	if up(f, 40) != 1 || *d.BDF != "0000:43:00.0" || fn == nil || show(fn.NUMANode) != 2 {
		t.Errorf("qib0 %+v stands on %+v", d, fn)
	}
	for _, other := range f.PCI().Functions {
		if other != fn && other.NUMANode != nil {
			t.Errorf("%s has node %d, which its firmware did not give", other.BDF, *other.NUMANode)
		}
	}
	if n := len(f.NUMA().Nodes); n != 4 {
		t.Errorf("%d nodes, want 4", n)
	}
}

func gpudHost(t *testing.T, f *Facts) {
	if up(f, 400) != 8 {
		t.Errorf("%d InfiniBand ports up at 400 Gb/s, want 8", up(f, 400))
	}
	var names []string
	for _, d := range f.RDMA().Devices {
		names = append(names, d.Device)
		if d.BDF != nil || d.Unknown["bdf"] == "" {
			t.Errorf("%s: the tree has no links, and yet its address is %v", d.Device, show(d.BDF))
		}
	}
	if s := strings.Join(names, " "); s != "mlx5_0 mlx5_1 mlx5_4 mlx5_5 mlx5_6 mlx5_7 mlx5_8 mlx5_9 mlx5_bond_0" {
		t.Errorf("devices %s", s)
	}
	if bond := device(t, f, "mlx5_bond_0"); !bond.Ports[0].Ethernet() || show(bond.HCAType) != "MT41692" {
		t.Errorf("the bond is %+v", bond)
	}
}

func gcmHost(t *testing.T, f *Facts) {
	if up(f, 200) != 8 || len(f.RDMA().Devices) != 8 {
		t.Errorf("%d of %d InfiniBand ports up at 200 Gb/s, want 8 of 8", up(f, 200), len(f.RDMA().Devices))
	}
	for _, d := range f.RDMA().Devices {
		if show(d.Firmware) != "20.31.2354" {
			t.Errorf("%s has firmware %v", d.Device, show(d.Firmware))
		}
	}
}
