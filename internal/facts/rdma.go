// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// RDMADevices is where the kernel lists RDMA devices
// (Documentation/ABI/stable/sysfs-class-infiniband).
const RDMADevices = "/sys/class/infiniband"

// RDMADevice is one RDMA device: the half of an adapter that verbs use, or a
// software device such as rxe or siw.
type RDMADevice struct {
	Device   string      `json:"device"`   // "mlx5_0"
	BDF      *string     `json:"bdf"`      // "" for a device that is not a PCI function
	Driver   *string     `json:"driver"`   // of the PCI function, "mlx5_core"; "" without one
	Firmware *string     `json:"firmware"` // fw_ver
	HCAType  *string     `json:"hca_type"`
	Netdev   *string     `json:"netdev"` // of its first port
	Ports    []*RDMAPort `json:"ports"`
	VF       bool        `json:"vf"` // of a physical function on this host
	Unknown  Unknown     `json:"unknown,omitempty"`
}

// Subject names the device for people: its address where it has one.
func (d *RDMADevice) Subject() string {
	if d.BDF == nil || *d.BDF == "" {
		return d.Device
	}
	return *d.BDF + " " + d.Device
}

// Attr is the path of one of the device's attributes.
func (d *RDMADevice) Attr(name string) string { return RDMADevices + "/" + d.Device + "/" + name }

// RDMAPort is one port of an RDMA device; State and the others are what the
// kernel prints.
type RDMAPort struct {
	Port      int       `json:"port"`       // counts from 1
	State     *string   `json:"state"`      // "4: ACTIVE"
	PhysState *string   `json:"phys_state"` // "5: LinkUp"
	Rate      *string   `json:"rate"`       // "400 Gb/sec (4X NDR)"
	RateGbps  *float64  `json:"rate_gbps"`
	LinkLayer *string   `json:"link_layer"` // "Ethernet", "InfiniBand"
	Netdev    *string   `json:"netdev"`     // "" when it has none
	GIDs      []RDMAGID `json:"gids"`       // the slots in use; of an InfiniBand port slot 0 only
	Unknown   Unknown   `json:"unknown,omitempty"`
}

// RDMAGID is one used slot of a port's GID table.
type RDMAGID struct {
	Index int    `json:"index"`
	GID   string `json:"gid"`
	Type  string `json:"type"` // "RoCE v2", "IB/RoCE v1"; "" from a kernel that does not tell
	Ndev  string `json:"ndev"` // the interface, a VLAN or bond perhaps; "" when not known
}

// IP reports whether the entry stands for an address that was given to the
// interface, as opposed to the default entry made from its MAC (link-local).
func (g RDMAGID) IP() bool {
	w, ok := parseGID(g.GID)
	if !ok || w == [8]uint16{} {
		return false
	}
	if mapped := [6]uint16{5: 0xffff}; [6]uint16(w[:6]) == mapped { // an IPv4 address
		return w[6] != 0xa9fe // 169.254.0.0/16
	}
	return w[0]&0xffc0 != 0xfe80 // fe80::/10
}

// parseGID reads a GID as the kernel writes it: "%pI6", eight groups of four
// hex digits.
func parseGID(s string) (w [8]uint16, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != len(w) {
		return w, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 16)
		if err != nil || len(p) != 4 {
			return w, false
		}
		w[i] = uint16(n)
	}
	return w, true
}

// RDMAHalf is a PCI function whose driver can carry an RDMA device and that
// has none.
type RDMAHalf struct {
	Function *PCIFunction
	Module   string   // the module that makes the device: "mlx5_ib"
	Offered  []string // auxiliary devices that the driver offers for it: "mlx5_core.rdma.0"
	Bound    bool     // one of them has a driver, which then made no device
	Why      string   // why Offered is not known
}

// RDMA is all RDMA devices, sorted by name.
type RDMA struct {
	Devices []*RDMADevice
	Missing []*RDMAHalf // never of VFs
	Why     string      // why Devices is nil
}

// MarshalJSON writes the list, null when it could not be read.
func (r *RDMA) MarshalJSON() ([]byte, error) { return json.Marshal(r.Devices) }

// At gives the devices of a PCI function; a bond of two functions has one on
// the first of them.
func (r *RDMA) At(bdf string) []*RDMADevice {
	var at []*RDMADevice
	for _, d := range r.Devices {
		if d.BDF != nil && *d.BDF == bdf && bdf != "" {
			at = append(at, d)
		}
	}
	return at
}

// On gives the device and port that stand on a network interface, or nil. The
// ports of a bond share the device that names the bond.
func (r *RDMA) On(nic *NIC) (*RDMADevice, *RDMAPort) {
	if nic == nil {
		return nil, nil
	}
	match := []func(*RDMADevice, *RDMAPort) bool{
		func(_ *RDMADevice, p *RDMAPort) bool { return p.Netdev != nil && *p.Netdev == nic.Name },
		func(_ *RDMADevice, p *RDMAPort) bool {
			return p.Netdev != nil && nic.Master != nil && *nic.Master != "" && *p.Netdev == *nic.Master
		},
		// a tree may lack the names
		func(d *RDMADevice, p *RDMAPort) bool {
			return p.Netdev == nil && d.BDF != nil && nic.Physical() && *d.BDF == *nic.BDF && len(d.Ports) == 1
		},
	}
	for _, m := range match {
		for _, d := range r.Devices {
			for _, p := range d.Ports {
				if m(d, p) {
					return d, p
				}
			}
		}
	}
	return nil, nil
}

// RDMA gives the host's RDMA devices. Of VFs whose physical function is on
// this host, which no check looks at, it only tells where they stand: see
// [Facts.RDMAAll].
func (f *Facts) RDMA() *RDMA {
	return f.rdma.get(f, func(f *Facts) *RDMA { return decodeRDMA(f, false) })
}

// RDMAAll is RDMA with firmware and ports of the VFs, too. A port's state is a
// question to the firmware.
func (f *Facts) RDMAAll() *RDMA {
	return f.rdmaAll.get(f, func(f *Facts) *RDMA { return decodeRDMA(f, true) })
}

func decodeRDMA(f *Facts, all bool) *RDMA {
	h := f.host
	r := &RDMA{Devices: []*RDMADevice{}}
	names, err := h.List(RDMADevices)
	if err != nil && !kernelLacks(h, err) {
		r.Devices, r.Why = nil, whyNot(h, err)
		return r
	}
	var ops []host.Op
	for _, n := range names {
		r.Devices = append(r.Devices, &RDMADevice{Device: n, Ports: []*RDMAPort{}})
		ops = append(ops, host.Op{Kind: host.ReadLink, Path: RDMADevices + "/" + n})
	}
	h.Prefetch(ops)
	ops = ops[:0]
	var read []*RDMADevice
	for _, d := range r.Devices {
		if d.place(f); d.VF && !all {
			d.skipVF()
			continue
		}
		read = append(read, d)
		ops = append(ops, host.Op{Kind: host.ListDir, Path: d.Attr("ports")},
			host.Op{Kind: host.ReadFile, Path: d.Attr("fw_ver")}, host.Op{Kind: host.ReadFile, Path: d.Attr("hca_type")})
	}
	h.Prefetch(ops)
	ops = ops[:0]
	for _, d := range read {
		d.Firmware = d.text(h, "fw_ver", "firmware")
		d.HCAType = d.text(h, "hca_type", "hca_type")
		d.listPorts(h)
		for _, p := range d.Ports {
			for _, name := range portAttrs {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: d.PortAttr(p, name)})
			}
		}
	}
	h.Prefetch(ops)
	for _, d := range read {
		for _, p := range d.Ports {
			d.readPort(h, p)
		}
	}
	readGIDs(h, read)
	for _, d := range read {
		for _, p := range d.Ports {
			d.nameNetdev(f, p)
		}
		d.firstNetdev()
	}
	r.findMissing(f)
	return r
}

// skipVF notes what was not read of a VF.
func (d *RDMADevice) skipVF() {
	d.Ports = nil
	for _, field := range []string{"firmware", "hca_type", "netdev", "ports"} {
		d.Unknown.say(field, "not read of a virtual function whose physical function is on this host")
	}
}

// place finds the PCI function that the device's directory lies below. An
// auxiliary device may stand between the two.
func (d *RDMADevice) place(f *Facts) {
	h := f.host
	at := RDMADevices + "/" + d.Device
	dir := h.Follow(at)
	bdf := lastBDF(dir)
	if bdf == "" && dir == at { // a real directory, as some captures have
		target, err := h.Link(d.Attr("device"))
		if bdf = lastBDF(target); err != nil || bdf == "" {
			d.Unknown.say("bdf", at+": not a link, so the device below it is not known")
			d.Unknown.say("driver", "the device below it is not known")
			return
		}
	}
	d.BDF = &bdf
	fn := f.PCI().At(bdf)
	switch {
	case bdf == "":
		d.Driver = &bdf // scif, rxe, siw: software
	case fn == nil:
		d.Unknown.say("driver", bdf+": not among the PCI functions")
	default:
		d.Driver, d.VF = fn.Driver, fn.VF()
		if why, ok := fn.Unknown["driver"]; ok && fn.Driver == nil {
			d.Unknown.say("driver", why)
		}
	}
}

func (d *RDMADevice) text(h *host.Host, attr, field string) *string {
	s, err := h.Text(d.Attr(attr))
	if err != nil {
		d.Unknown.say(field, whyNot(h, err))
		return nil
	}
	return &s
}

func (d *RDMADevice) listPorts(h *host.Host) {
	names, err := h.List(d.Attr("ports"))
	if err != nil {
		d.Ports = nil
		d.Unknown.say("ports", whyNot(h, err))
		return
	}
	for _, n := range names {
		if i, err := strconv.Atoi(n); err == nil && i > 0 {
			d.Ports = append(d.Ports, &RDMAPort{Port: i, GIDs: []RDMAGID{}})
		}
	}
	slices.SortFunc(d.Ports, func(a, b *RDMAPort) int { return a.Port - b.Port })
}

var portAttrs = []string{"state", "phys_state", "rate", "link_layer"}

// PortAttr is the path of one of a port's attributes.
func (d *RDMADevice) PortAttr(p *RDMAPort, name string) string {
	return d.Attr("ports/" + strconv.Itoa(p.Port) + "/" + name)
}

func (d *RDMADevice) readPort(h *host.Host, p *RDMAPort) {
	for i, into := range []**string{&p.State, &p.PhysState, &p.Rate, &p.LinkLayer} {
		s, err := h.Text(d.PortAttr(p, portAttrs[i]))
		if err != nil {
			p.Unknown.say(portAttrs[i], whyNot(h, err))
			continue
		}
		*into = &s
	}
	if l := p.LinkLayer; l != nil && *l != "Ethernet" && *l != "InfiniBand" { // "Unknown" of a driver that does not tell
		p.LinkLayer = nil
		p.Unknown.say("link_layer", fmt.Sprintf("%s: %q is neither Ethernet nor InfiniBand", d.PortAttr(p, "link_layer"), *l))
	}
	if p.Rate == nil {
		p.Unknown.say("rate_gbps", p.Unknown["rate"])
	} else if p.RateGbps = parseRate(*p.Rate); p.RateGbps == nil {
		p.Unknown.say("rate_gbps", d.PortAttr(p, "rate")+": not a rate in Gb/sec")
	}
}

var rateText = pattern.Late(`^([0-9]{1,6}(?:\.[0-9]{1,3})?) Gb/sec\b`)

// parseRate reads "400 Gb/sec (4X NDR)" (rate_show in drivers/infiniband/core/sysfs.c).
func parseRate(s string) *float64 {
	m := rateText().FindStringSubmatch(s)
	if m == nil {
		return nil
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return nil
	}
	return &v
}

// StateName is the word of "4: ACTIVE".
func StateName(s string) string {
	if _, word, ok := strings.Cut(s, ": "); ok {
		return word
	}
	return s
}

// Active reports whether the port's logical state is ACTIVE.
func (p *RDMAPort) Active() bool { return p.State != nil && StateName(*p.State) == "ACTIVE" }

// LinkUp reports whether the port's physical state is LinkUp.
func (p *RDMAPort) LinkUp() bool { return p.PhysState != nil && StateName(*p.PhysState) == "LinkUp" }

func (p *RDMAPort) infiniBand() bool { return p.LinkLayer != nil && *p.LinkLayer == "InfiniBand" }

// Ethernet reports whether the port's link layer is known to be Ethernet.
func (p *RDMAPort) Ethernet() bool { return p.LinkLayer != nil && *p.LinkLayer == "Ethernet" }

// nameNetdev finds the interface of a port: the one of its GIDs, else the
// only or uplink interface of the same function.
func (d *RDMADevice) nameNetdev(f *Facts, p *RDMAPort) {
	for _, g := range p.GIDs {
		if g.Ndev != "" {
			p.Netdev = &g.Ndev // slot 0 is the default entry of the port itself
			return
		}
	}
	if d.BDF == nil {
		p.Unknown.say("netdev", d.Unknown["bdf"])
		return
	}
	nics := f.NICs()
	if nics.List == nil {
		p.Unknown.say("netdev", nics.Why)
		return
	}
	var names []string
	if *d.BDF != "" {
		for _, n := range nics.Of(*d.BDF) {
			names = append(names, n.Name)
		}
	}
	if len(names) > 1 {
		names = ofPort(f.host, names, p.Port)
	}
	switch {
	case len(names) > 0:
		p.Netdev = &names[0]
	case *d.BDF == "":
		p.Unknown.say("netdev", d.Device+" is not a PCI function, and no GID names its interface")
	default:
		none := ""
		p.Netdev = &none
	}
}

// ofPort picks from several interfaces of one function: not the representors
// of its VFs ("pf0vf1"), and the one with the port's number (dev_port counts
// from 0).
func ofPort(h *host.Host, names []string, port int) []string {
	var uplinks []string
	for _, n := range names {
		s, err := h.Text(NetClass + "/" + n + "/phys_port_name")
		if err != nil || !strings.Contains(s, "vf") && !strings.Contains(s, "sf") {
			uplinks = append(uplinks, n)
		}
	}
	for _, n := range uplinks {
		if i, err := h.Int(NetClass + "/" + n + "/dev_port"); err == nil && int(i) == port-1 {
			return []string{n}
		}
	}
	return uplinks
}

func (d *RDMADevice) firstNetdev() {
	if len(d.Ports) == 0 {
		d.Unknown.say("netdev", "it has no port that could be read")
		return
	}
	if d.Netdev = d.Ports[0].Netdev; d.Netdev == nil {
		d.Unknown.say("netdev", d.Ports[0].Unknown["netdev"])
	}
}

// gidStep is how many slots of a GID table are read at a time. A table has up
// to 256 slots, of which a few at its start are in use; an empty slot's type
// answers EINVAL.
const gidStep = 16

// readGIDs reads the used slots of every port's GID table, all ports at once.
// A table is left at the first step that is empty once an address was seen:
// deleted addresses leave holes. VFs of this host are left out, of an
// InfiniBand port slot 0 says all.
func readGIDs(h *host.Host, devices []*RDMADevice) {
	type table struct {
		d     *RDMADevice
		p     *RDMAPort
		slots []int
	}
	var todo []*table
	var ops []host.Op
	for _, d := range devices {
		for _, p := range d.Ports {
			if d.VF {
				p.GIDs = nil
				p.Unknown.say("gids", "not read of a virtual function whose physical function is on this host")
				continue
			}
			if !p.infiniBand() {
				ops = append(ops, host.Op{Kind: host.ListDir, Path: d.PortAttr(p, "gid_attrs/types")})
			}
		}
	}
	h.Prefetch(ops)
	for _, d := range devices {
		for _, p := range d.Ports {
			switch {
			case d.VF:
				continue
			case p.infiniBand():
				todo = append(todo, &table{d: d, p: p, slots: []int{0}})
				continue
			}
			names, err := h.List(d.PortAttr(p, "gid_attrs/types"))
			if err != nil {
				p.GIDs = nil
				p.Unknown.say("gids", whyNot(h, err))
				continue
			}
			t := &table{d: d, p: p}
			for _, n := range names {
				if i, err := strconv.Atoi(n); err == nil && i >= 0 {
					t.slots = append(t.slots, i)
				}
			}
			slices.Sort(t.slots)
			todo = append(todo, t)
		}
	}
	for len(todo) > 0 {
		ops = ops[:0]
		for _, t := range todo {
			for _, i := range t.slots[:min(gidStep, len(t.slots))] {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: t.d.gidAttr(t.p, "gid_attrs/types", i)})
			}
		}
		h.Prefetch(ops)
		ops = ops[:0]
		for _, t := range todo {
			for _, i := range t.slots[:min(gidStep, len(t.slots))] {
				if _, err := h.Text(t.d.gidAttr(t.p, "gid_attrs/types", i)); err == nil || t.p.infiniBand() {
					ops = append(ops, host.Op{Kind: host.ReadFile, Path: t.d.gidAttr(t.p, "gids", i)},
						host.Op{Kind: host.ReadFile, Path: t.d.gidAttr(t.p, "gid_attrs/ndevs", i)})
				}
			}
		}
		h.Prefetch(ops)
		todo = slices.DeleteFunc(todo, func(t *table) bool {
			n := min(gidStep, len(t.slots))
			before := len(t.p.GIDs)
			for _, i := range t.slots[:n] {
				t.d.readGID(h, t.p, i)
			}
			t.slots = t.slots[n:]
			return len(t.slots) == 0 || len(t.p.GIDs) == before && slices.ContainsFunc(t.p.GIDs, RDMAGID.IP)
		})
	}
}

func (d *RDMADevice) gidAttr(p *RDMAPort, dir string, i int) string {
	return d.PortAttr(p, dir+"/"+strconv.Itoa(i))
}

// GIDPath is where the type of a GID was read.
func (d *RDMADevice) GIDPath(p *RDMAPort, g RDMAGID) string {
	return d.gidAttr(p, "gid_attrs/types", g.Index)
}

func (d *RDMADevice) readGID(h *host.Host, p *RDMAPort, i int) {
	kind, err := h.Text(d.gidAttr(p, "gid_attrs/types", i))
	switch {
	case err == nil:
	case host.Absent(err) && p.infiniBand():
		kind = "" // a kernel before 4.5
	case errors.Is(err, syscall.EINVAL):
		return // an empty slot
	default:
		p.Unknown.say(fmt.Sprintf("gids[%d]", i), whyNot(h, err))
		return
	}
	gid, err := h.Text(d.gidAttr(p, "gids", i))
	if err != nil {
		p.Unknown.say(fmt.Sprintf("gids[%d]", i), whyNot(h, err))
		return
	}
	if w, ok := parseGID(gid); !ok || w == [8]uint16{} {
		return // emptied between the two reads
	}
	ndev, err := h.Text(d.gidAttr(p, "gid_attrs/ndevs", i))
	if err != nil {
		ndev = "" // an InfiniBand port's entries have none
	}
	p.GIDs = append(p.GIDs, RDMAGID{Index: i, GID: gid, Type: kind, Ndev: ndev})
}

// PathRDMANetns is the mode of the RDMA subsystem: Y or N.
const PathRDMANetns = "/sys/module/ib_core/parameters/netns_mode"

// RDMANetns tells whether RDMA devices are "shared" by all network namespaces
// or "exclusive" to one (drivers/infiniband/core/device.c, since 5.2); ""
// without the RDMA core.
func (f *Facts) RDMANetns() (mode, why string) {
	s, err := f.host.Text(PathRDMANetns)
	switch {
	case err == nil && s == "Y":
		return "shared", ""
	case err == nil && s == "N":
		return "exclusive", ""
	case err == nil:
		return "", PathRDMANetns + ": neither Y nor N"
	case kernelLacks(f.host, err):
		return "", ""
	}
	return "", whyNot(f.host, err)
}
