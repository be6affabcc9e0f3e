// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// nics takes one rule for each kind of device: physical functions of one id.
func (s *Sample) nics(f *facts.Facts, p *Profile) {
	nics, bus := f.NICsAll(), f.PCI()
	switch {
	case nics.Why != "":
		s.unknown("nics", nics.Why)
		return
	case bus.Why != "":
		s.unknown("nics", bus.Why)
		return
	}
	kinds := map[string][]kindred{}
	rails := p.SelectNICs(f.NICs(), bus)
	for _, n := range nics.List {
		if !n.Physical() || n.Representor || n.VF {
			continue
		}
		fn := bus.At(*n.BDF)
		if fn == nil || fn.Vendor == nil || fn.Device == nil || fn.VF() {
			continue
		}
		k := kindred{n: n, fn: fn, dcb: f.DCB().Of(n.Name)}
		k.dev, k.port = f.RDMA().On(n)
		if w := rails.For(n.Name); w != nil {
			k.rail = w.Rule.Rail.V
		}
		kinds[fn.ID()] = append(kinds[fn.ID()], k)
	}
	for _, id := range slices.Sorted(maps.Keys(kinds)) {
		all := kinds[id]
		entry := fmt.Sprintf("id: captured-%s\nmatch: {pci: [%q], kind: pf}", strings.Replace(id, ":", "-", 1), id)
		s.take("nics", entry, "min", strconv.Itoa(len(all)))
		for _, q := range kindredKeys {
			s.common(entry, q.key, all, q.get)
		}
	}
}

// kindred is one interface and what stands on it.
type kindred struct {
	n    *facts.NIC
	fn   *facts.PCIFunction
	dcb  *facts.DCBNIC
	dev  *facts.RDMADevice
	port *facts.RDMAPort
	rail bool
}

// kindredKeys are the keys of a nics rule that are taken. get gives the value
// in YAML; "" for none that could be wanted.
var kindredKeys = []struct {
	key string
	get func(*kindred) string
}{
	{"rail", func(k *kindred) string { return yesOnly(k.rail) }},
	{"driver", func(k *kindred) string { return formed("module", deref(k.fn.Driver)) }},
	{"rdma", func(k *kindred) string { return yesOnly(k.dev != nil) }},
	{"speed_mbps", func(k *kindred) string { return within(k.n.SpeedMbps, 10, 1600000) }},
	{"carrier", func(k *kindred) string { return yesOnly(deref(k.n.Carrier)) }},
	{"mtu_min", func(k *kindred) string { return within(k.n.MTU, 68, 65535) }},
	{"firmware_min", func(k *kindred) string { return formed("version", facts.FirmwareVersion(deref(k.n.Firmware))) }},
	{"link_layer", func(k *kindred) string {
		if k.port == nil || deref(k.port.LinkLayer) != "Ethernet" && deref(k.port.LinkLayer) != "InfiniBand" {
			return ""
		}
		return *k.port.LinkLayer
	}},
	{"trust", func(k *kindred) string {
		if k.dcb == nil {
			return ""
		}
		return deref(k.dcb.Trust)
	}},
	{"pfc", func(k *kindred) string {
		if k.dcb == nil || k.dcb.PFC == nil {
			return ""
		}
		return numbers(k.dcb.PFC)
	}},
	{"dcqcn", func(k *kindred) string {
		if k.dcb == nil {
			return ""
		}
		both := slices.DeleteFunc(slices.Clone(k.dcb.DCQCN.NP), func(n int) bool { return !slices.Contains(k.dcb.DCQCN.RP, n) })
		if len(both) == 0 {
			return ""
		}
		return numbers(both)
	}},
	{"vfs", func(k *kindred) string {
		if deref(k.fn.NumVFs) == 0 {
			return ""
		}
		return within(k.fn.NumVFs, 1, 65535)
	}},
	{"ring_rx_min", func(k *kindred) string {
		if k.n.Rings == nil {
			return ""
		}
		return within(&k.n.Rings.RX, 1, 65536)
	}},
	{"ring_tx_min", func(k *kindred) string {
		if k.n.Rings == nil {
			return ""
		}
		return within(&k.n.Rings.TX, 1, 65536)
	}},
	{"channels", func(k *kindred) string {
		if k.n.Channels == nil || k.n.Channels.Combined < 1 || k.n.Channels.Combined > 9999 {
			return ""
		}
		return Quoted(strconv.Itoa(k.n.Channels.Combined))
	}},
}

// common takes a value that all interfaces of a kind have.
func (s *Sample) common(entry, key string, all []kindred, get func(*kindred) string) {
	values := map[string][]string{}
	for i := range all {
		v := get(&all[i])
		values[v] = append(values[v], all[i].n.Name)
	}
	if len(values) == 1 {
		for v := range values {
			if v != "" {
				s.take("nics", entry, key, v)
			}
		}
		return
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(values)) {
		parts = append(parts, first(v, "none")+" on "+strings.Join(values[v], " "))
	}
	s.lack("nics", entry, key, "its interfaces differ: "+strings.Join(parts, ", "))
}

func yesOnly(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func within(n *int, lo, hi int) string {
	if n == nil || *n < lo || *n > hi {
		return ""
	}
	return strconv.Itoa(*n)
}

// formed is a text in quotes if the profile takes it.
func formed(form, s string) string {
	if s == "" || forms[form].valid(s) != nil {
		return ""
	}
	return Quoted(s)
}

func numbers(ns []int) string {
	s := make([]string, len(ns))
	for i, n := range ns {
		s[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(s, ", ") + "]"
}
