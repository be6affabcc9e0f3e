// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/hostcheck/hostcheck/internal/host"
)

// TunnelTable is a table of UDP ports whose tunnels a NIC looks into.
type TunnelTable = host.TunnelTable

// VXLAN is the tunnel interfaces of the network namespace, and the NICs that
// carry their packets.
type VXLAN struct {
	Devices []VXLANDevice `json:"devices"` // nil when not known
	NICs    []VXLANNIC    `json:"nics"`    // each once, by name
	MLX4    *MLX4         `json:"mlx4"`    // nil where none of the NICs is a ConnectX-3
	Source  string        `json:"-"`       // where Devices was read, for evidence
	Unknown Unknown       `json:"unknown,omitempty"`
}

// VXLANDevice is one VXLAN interface (ip -d link show type vxlan).
type VXLANDevice struct {
	Name     string `json:"name"`
	Up       bool   `json:"up"` // while it is down its UDP port is not open
	MTU      int    `json:"mtu"`
	VNI      int    `json:"vni"`    // 0 where each packet brings its own
	Port     int    `json:"port"`   // UDP
	Lower    string `json:"lower"`  // the interface that it was bound to; "" for none
	Local    string `json:"local"`  // "" for none
	Remote   string `json:"remote"` // an endpoint or a multicast group; "" for none
	External bool   `json:"external"`
	GPE      bool   `json:"gpe"`
	// Underlay is the interface through which the packets leave: Lower, else
	// that of the route to Remote in the main table; nil when no one interface
	// is known.
	Underlay    *string `json:"underlay"`
	UnderlayMTU *int    `json:"underlay_mtu"`
	// NICs are the interfaces at the bottom of Underlay (the ports of a bond).
	// Where Underlay is not known, each physical interface with a route may
	// carry the packets.
	NICs       []string `json:"nics"`
	UDPCsum    bool     `json:"udp_csum"`          // sends UDP checksums over IPv4
	ZeroCsumTX bool     `json:"udp6_zero_csum_tx"` // sends none over IPv6
	ZeroCsumRX bool     `json:"udp6_zero_csum_rx"` // takes packets without over IPv6
	GRO        *bool    `json:"rx_gro"`            // of the VXLAN interface itself
	Unknown    Unknown  `json:"unknown,omitempty"`
}

// VXLANNIC is an interface at the bottom of one or more VXLAN interfaces.
type VXLANNIC struct {
	NIC      string          `json:"nic"`
	BDF      string          `json:"bdf"`      // "" for a virtual interface
	Driver   *string         `json:"driver"`   // "" for a virtual interface
	Tables   []TunnelTable   `json:"tables"`   // ethtool --show-tunnels; empty where the driver has none
	Features map[string]bool `json:"features"` // those of [VXLANFeatures] that the kernel knows
	// Fixed are those that the driver lets nobody change; nil, without a reason,
	// where it was not asked because the judged ones are on.
	Fixed   []string `json:"fixed"`
	Unknown Unknown  `json:"unknown,omitempty"`

	nic *NIC
}

// VXLANFeatures are the offloads that tunnels need of a NIC, as ethtool -k
// names them (net/ethtool/common.c).
var VXLANFeatures = []string{
	"rx-checksum", "rx-gro", "rx-gro-hw", "rx-udp-gro-forwarding", "rx-udp_tunnel-port-offload",
	"tx-gso-partial", "tx-udp_tnl-csum-segmentation", "tx-udp_tnl-segmentation",
}

// VXLANJudged are those of them without which tunnels cost the CPU more.
var VXLANJudged = []string{"rx-checksum", "rx-gro", "rx-udp_tunnel-port-offload", "tx-udp_tnl-csum-segmentation", "tx-udp_tnl-segmentation"}

// IPv6 reports whether the outer packets are IPv6; of an interface with
// neither address they are IPv4, and in metadata mode they may be both.
func (d *VXLANDevice) IPv6() bool {
	return strings.Contains(d.Local, ":") || strings.Contains(d.Remote, ":")
}

// Overhead is what the tunnel adds to an inner packet: outer IP, UDP, VXLAN
// and, but for VXLAN-GPE, the inner Ethernet header; bytes.
func (d *VXLANDevice) Overhead() int {
	n := 20 + 8 + 8 + 14
	if d.IPv6() {
		n += 20
	}
	if d.GPE {
		n -= 14
	}
	return n
}

// Interface gives the interface itself; nil where sysfs does not list it.
func (n *VXLANNIC) Interface() *NIC { return n.nic }

// Holds gives the table with a port of VXLAN, or nil.
func (n *VXLANNIC) Holds(port int, kind string) *TunnelTable {
	for i := range n.Tables {
		if slices.Contains(n.Tables[i].Entries, host.TunnelEntry{Port: port, Type: kind}) {
			return &n.Tables[i]
		}
	}
	return nil
}

// On gives a NIC's entry, or nil.
func (v *VXLAN) On(nic string) *VXLANNIC {
	for i := range v.NICs {
		if v.NICs[i].NIC == nic {
			return &v.NICs[i]
		}
	}
	return nil
}

// VXLAN gives the host's VXLAN interfaces.
func (f *Facts) VXLAN() *VXLAN { return f.vxlan.get(f, decodeVXLAN) }

func decodeVXLAN(f *Facts) *VXLAN {
	h := f.host
	v := &VXLAN{Source: host.VXLANLinksKey}
	links, err := h.VXLANLinks()
	if err != nil {
		none, source := noVXLAN(f)
		if !none {
			v.Unknown.set("devices", err)
			v.Unknown.set("nics", err)
			v.Unknown.set("mlx4", err)
			return v
		}
		v.Source = source
	}
	v.Devices, v.NICs = []VXLANDevice{}, []VXLANNIC{}
	if len(links) == 0 {
		return v
	}
	u := &underlays{f: f, h: h, vxlan: map[string]bool{}}
	for i := range links {
		u.vxlan[links[i].Name] = true
	}
	seen := map[string]bool{}
	for i := range links {
		d := u.device(&links[i])
		v.Devices = append(v.Devices, d)
		for _, n := range d.NICs {
			seen[n] = true
		}
	}
	slices.SortFunc(v.Devices, func(a, b VXLANDevice) int { return cmp.Compare(a.Name, b.Name) })
	for n := range seen {
		v.NICs = append(v.NICs, VXLANNIC{NIC: n})
	}
	slices.SortFunc(v.NICs, func(a, b VXLANNIC) int { return cmp.Compare(a.NIC, b.NIC) })
	var questions []func()
	for i := range v.NICs {
		questions = append(questions, func() { v.NICs[i].ask(f) })
	}
	for i := range v.Devices {
		questions = append(questions, func() { v.Devices[i].ask(h) })
	}
	host.Together(questions)
	v.MLX4 = decodeMLX4(f, v.NICs)
	return v
}

// noVXLAN proves that there is no VXLAN interface where the kernel cannot be
// asked: its module is not there, or every interface says of what kind it is.
func noVXLAN(f *Facts) (none bool, source string) {
	if mod, known := f.Modules().Find("vxlan"); mod == nil && known {
		return true, pathModules
	}
	nics := f.NICs()
	if nics.List == nil {
		return false, ""
	}
	var ops []host.Op
	for _, n := range nics.List {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: n.Attr("uevent")})
	}
	f.host.Prefetch(ops)
	for _, n := range nics.List {
		text, err := f.host.Text(n.Attr("uevent"))
		if err != nil || slices.Contains(strings.Fields(text), "DEVTYPE=vxlan") {
			return false, ""
		}
	}
	return true, NetClass + "/*/uevent"
}

// underlays finds the interfaces that carry tunnels.
type underlays struct {
	f     *Facts
	h     *host.Host
	vxlan map[string]bool // names of VXLAN interfaces

	routed bool
	routes []Route
	why    string // why routes is not known
}

func (u *underlays) device(l *host.VXLANLink) VXLANDevice {
	d := VXLANDevice{
		Name: l.Name, Up: l.Up, MTU: l.MTU, VNI: l.VNI, Port: l.Port, Lower: l.Lower, Local: addressText(l.Local), Remote: addressText(l.Remote),
		External: l.External, GPE: l.GPE, UDPCsum: l.Csum, ZeroCsumTX: l.ZeroTX6, ZeroCsumRX: l.ZeroRX6,
	}
	d.Underlay = u.of(l, &d)
	if d.Underlay != nil {
		d.NICs = u.bottom(*d.Underlay, 0)
		if n := u.f.NICs().Named(*d.Underlay); n == nil {
			d.Unknown.say("underlay_mtu", NetClass+" does not list "+*d.Underlay)
		} else if d.UnderlayMTU = n.MTU; n.MTU == nil {
			d.Unknown.say("underlay_mtu", cmp.Or(n.Unknown["mtu"], n.Attr("mtu")+": not read of a virtual function"))
			if v, err := u.h.Int(n.Attr("mtu")); err == nil && v > 0 && v <= 1<<20 { // of a VF
				d.UnderlayMTU = new(int(v))
				delete(d.Unknown, "underlay_mtu")
			}
		}
		return d
	}
	d.Unknown.say("underlay_mtu", d.Unknown["underlay"])
	if d.NICs = []string{}; !l.Elsewhere {
		d.NICs = u.candidates()
	}
	return d
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// of gives the interface through which a tunnel's packets leave.
func (u *underlays) of(l *host.VXLANLink, d *VXLANDevice) *string {
	switch {
	case l.Elsewhere:
		d.Unknown.say("underlay", "its packets leave through another network namespace")
	case l.Lower != "":
		return &d.Lower
	case l.LowerID != 0:
		d.Unknown.say("underlay", "the interface that it was bound to is gone")
	case l.External:
		d.Unknown.say("underlay", "in metadata mode each packet brings its endpoint, and the route to that decides")
	case !l.Remote.IsValid():
		d.Unknown.say("underlay", "it has no lower device and no remote: the route to each endpoint in its forwarding table decides")
	default:
		u.readRoutes()
		if u.why != "" {
			d.Unknown.say("underlay", u.why)
			return nil
		}
		out := OutOf(u.routes, l.Remote)
		if out == "" || u.vxlan[out] {
			d.Unknown.say("underlay", "no route of the main table leads to "+d.Remote)
			return nil
		}
		return &out
	}
	return nil
}

func (u *underlays) readRoutes() {
	if !u.routed {
		u.routed = true
		u.routes, u.why = MainRoutes(u.h)
	}
}

// bottom lists the interfaces below name that stand on no other.
func (u *underlays) bottom(name string, depth int) []string {
	names, _ := u.h.List(NetClass + "/" + name) // what cannot be listed has nothing below that is known
	var out []string
	for _, n := range names {
		below, ok := strings.CutPrefix(n, "lower_")
		if ok && depth < 8 {
			out = append(out, u.bottom(below, depth+1)...)
		}
	}
	if out == nil {
		return []string{name}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// candidates lists the physical interfaces that a route leads out of.
func (u *underlays) candidates() []string {
	u.readRoutes()
	out := []string{}
	for _, r := range u.routes {
		if u.vxlan[r.IfName] {
			continue
		}
		for _, name := range u.bottom(r.IfName, 0) {
			if n := u.f.NICs().Named(name); n != nil && n.Physical() && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// ask puts the questions of ethtool to a NIC, to a VF of this host too: there
// are few below tunnels.
func (n *VXLANNIC) ask(f *Facts) {
	h := f.host
	if n.nic = f.NICs().Named(n.NIC); n.nic == nil {
		n.Unknown.say("driver", NetClass+" does not list it")
	} else {
		n.Driver = n.nic.Driver
		if n.nic.BDF != nil {
			n.BDF = *n.nic.BDF
		}
		if n.Driver == nil {
			n.Unknown.say("driver", n.nic.Unknown["driver"])
		}
	}
	features, err := h.EthtoolFeatures(n.NIC)
	if err != nil {
		n.Unknown.set("features", err)
	} else {
		n.Features = map[string]bool{}
		for _, name := range VXLANFeatures {
			if on, ok := features[name]; ok {
				n.Features[name] = on
			}
		}
		n.askFixed(h)
	}
	tables, err := h.EthtoolTunnels(n.NIC)
	release := f.Kernel().Release
	switch {
	case err == nil:
		n.Tables = tables
	case errors.Is(err, syscall.EOPNOTSUPP) && release != nil && CompareVersions(ReleaseNumbers(*release), "5.9") >= 0:
		n.Tables = []TunnelTable{}
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOENT):
		n.Unknown.say("tables", host.TunnelsKey(n.NIC)+": kernels before 5.9 do not tell the table")
	default:
		n.Unknown.set("tables", err)
	}
}

// askFixed asks which offloads nobody can switch, where one that is judged is
// off.
func (n *VXLANNIC) askFixed(h *host.Host) {
	off := func(name string) bool { on, known := n.Features[name]; return known && !on }
	if !slices.ContainsFunc(VXLANJudged, off) {
		return
	}
	fixed, err := h.EthtoolFixed(n.NIC)
	if err != nil {
		n.Unknown.set("fixed", err)
		return
	}
	n.Fixed = []string{}
	for _, name := range VXLANFeatures {
		if fixed[name] {
			n.Fixed = append(n.Fixed, name)
		}
	}
}

func (d *VXLANDevice) ask(h *host.Host) {
	features, err := h.EthtoolFeatures(d.Name)
	on, ok := features["rx-gro"]
	switch {
	case err != nil:
		d.Unknown.set("rx_gro", err)
	case !ok:
		d.Unknown.say("rx_gro", "ethtool "+d.Name+" features: the kernel does not tell it")
	default:
		d.GRO = &on
	}
}
