// SPDX-License-Identifier: Apache-2.0

package densefleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Kind is what is odd about a host.
type Kind string

// The kinds that single hosts get.
const (
	Firmware  Kind = "firmware"   // one NIC has another one than its rack, or both have: then the check passes
	Sysctl    Kind = "sysctl"     // one kernel parameter is too small; the fix is of tier safe
	PCIe      Kind = "pcie-link"  // one link trained lower; the check fails and has no fix
	Missing   Kind = "missing"    // a NIC, or a GPU, is not there
	Kernel    Kind = "kernel"     // another kernel; every check passes
	Unknown   Kind = "unknown"    // a check could not read what it needs
	HugePages Kind = "huge-pages" // a pool is short
)

// Kinds lists them.
var Kinds = []Kind{Firmware, Sysctl, PCIe, Missing, Kernel, Unknown, HugePages}

// Oddity is what was planted on one host.
type Oddity struct {
	Host    string
	Kind    Kind
	Check   string // whose finding shows it; "" for the kernel
	Subject string // of that finding; "" is the whole host, or many
	Got     string // what the finding has, or the kernel

	which   int
	version string // of its firmware
	both    bool   // NICs have it
}

// Group is what a whole rack has in common and no other: tcp_congestion_control is
// cubic there. The profile allows it, so no check fails.
type Group struct {
	Rack    string // "": the fleet is too small to have one
	Check   string
	Subject string
	Got     string
	Hosts   int
}

// Truth is what was planted: by host, in their order, and the rack.
func (m *Maker) Truth() ([]Oddity, Group) {
	all := make([]Oddity, 0, len(m.odd))
	for i := range m.Hosts {
		if o, ok := m.odd[i]; ok {
			all = append(all, o)
		}
	}
	return all, m.group
}

// plant chooses hosts, their oddities in turn, and the rack.
func (m *Maker) plant() {
	r := rand.New(rand.NewPCG(m.Seed, 1<<42)) //nolint:gosec // the same fleet each time
	if m.racks() >= 3 {
		// not the last rack, which may be of a few hosts
		m.group = Group{Check: "sysctl.congestion", Subject: "net.ipv4.tcp_congestion_control", Got: "cubic", Hosts: perRack, Rack: m.Rack(r.IntN(m.racks()-1) * perRack)}
	}
	m.odd = map[int]Oddity{}
	for n, i := range r.Perm(m.Hosts)[:int(float64(m.Hosts)*m.Odd)] {
		s := m.server(i)
		o := Oddity{Host: s.name, Kind: Kinds[n%len(Kinds)], which: r.IntN(2)}
		nic, node := nics[o.which], nodes[o.which]
		switch o.Kind {
		case Firmware:
			// one that nobody else has, or the usual one of another delivery
			others := slices.DeleteFunc(append(slices.Clone(firmwares), firmwareOdd), func(v string) bool { return v == s.firmware })
			o.version = others[r.IntN(len(others))]
			o.Check, o.Subject, o.Got = "driver.firmware", kindOfNIC, firmwareText(s.firmware, o.version, o.which)
			if o.both = r.IntN(3) == 0; o.both {
				o.Got = o.version + " on ens1np0, ens2np0"
			}
		case Sysctl:
			o.Check, o.Subject, o.Got = "sysctl.backlog", "net.core.netdev_max_backlog", "1000"
		case PCIe:
			o.Check, o.Subject, o.Got = "pcie.link", nic.subject(), "16 GT/s x16"
		case Missing:
			o.Check, o.Subject, o.Got = "driver.inventory", []string{"rails", "GPUs"}[o.which], "1"
		case Kernel:
			o.Got = kernelOdd
		case Unknown:
			o.Check, o.Subject = "acs.redirect", nic.portSubject()
		case HugePages:
			o.Check, o.Subject, o.Got = "hugepages.pool", node+" 2M", fmt.Sprintf("%d × 2M", s.pages()-512)
		}
		m.odd[i] = o
	}
}

// lost reports whether a NIC of the server is not there.
func (s *server) lost(nic int) bool { return s.odd == Missing && s.which == 0 && nic == 1 }

// lostGPU reports whether a GPU of the server is not there.
func (s *server) lostGPU(gpu int) bool { return s.odd == Missing && s.which == 1 && gpu == 1 }
