// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// NetClass is where the kernel lists network interfaces.
const NetClass = "/sys/class/net"

// Rings is a NIC's ring sizes (ETHTOOL_GRINGPARAM); entries.
type Rings = host.Rings

// Channels is a NIC's queue counts (ETHTOOL_GCHANNELS).
type Channels = host.Channels

// Interface types (include/uapi/linux/if_arp.h) that are told apart.
const (
	TypeEthernet   = 1
	TypeInfiniBand = 32
	TypeLoopback   = 772
)

// NIC is one network interface that is a device, or that stacks on one.
// Interfaces without a device (lo, bridges, VLANs) are listed with an empty BDF.
type NIC struct {
	Name      string  `json:"name"`
	BDF       *string `json:"bdf"`      // "" for a virtual interface
	Driver    *string `json:"driver"`   // of the PCI (or bus) device; "" for a virtual interface
	Flavour   *string `json:"flavour"`  // "in-tree"; "ofed", the MLNX_OFED or DOCA build of an mlx driver; "out-of-tree", any other; "" for a virtual interface
	Firmware  *string `json:"firmware"` // ethtool -i
	SpeedMbps *int    `json:"speed_mbps"`
	MTU       *int    `json:"mtu"`
	Carrier   *bool   `json:"carrier"`   // nil while the interface is down
	OperState *string `json:"operstate"` // up, down, unknown, …
	AdminUp   *bool   `json:"admin_up"`  // IFF_UP of flags
	NUMANode  *int    `json:"numa_node"`
	Master    *string `json:"master"` // "" for none
	Type      *int    `json:"type"`   // ARPHRD_*: 1 Ethernet, 32 InfiniBand, 772 loopback
	MAC       *string `json:"mac"`
	VF        bool    `json:"vf"`
	// Representor is true of an interface that stands on a physical function
	// for the switch side of a VF or sub-function (switchdev mode).
	Representor bool `json:"representor"`

	PrivFlags map[string]bool `json:"priv_flags"`
	Rings     *Rings          `json:"rings"`
	Channels  *Channels       `json:"channels"`
	Features  map[string]bool `json:"features"`
	Unknown   Unknown         `json:"unknown,omitempty"`
}

// Attr is the path of one of the interface's attributes, under the name by
// which this package reads it.
func (n *NIC) Attr(name string) string { return NetClass + "/" + n.Name + "/" + name }

// Physical reports whether the interface is a PCI device.
func (n *NIC) Physical() bool { return n.BDF != nil && *n.BDF != "" }

// NICs is all network interfaces, sorted by name.
type NICs struct {
	List []*NIC
	Why  string // why List is nil

	index sync.Once
	byBDF map[string][]*NIC // on the first call of Of
}

// MarshalJSON writes the list, null when it could not be read.
func (n *NICs) MarshalJSON() ([]byte, error) { return json.Marshal(n.List) }

// Named gives the interface of that name, or nil.
func (n *NICs) Named(name string) *NIC {
	for _, nic := range n.List {
		if nic.Name == name {
			return nic
		}
	}
	return nil
}

// Of gives the interfaces of a PCI function: none before its driver is bound,
// several where one function has several ports.
func (n *NICs) Of(bdf string) []*NIC {
	n.index.Do(func() {
		n.byBDF = map[string][]*NIC{}
		for _, nic := range n.List {
			if nic.BDF != nil {
				n.byBDF[*nic.BDF] = append(n.byBDF[*nic.BDF], nic)
			}
		}
	})
	return slices.Clone(n.byBDF[bdf])
}

// Lower gives the interfaces whose master is name: a bond's ports, and the
// VF that a synthetic interface of Hyper-V sends through.
func (n *NICs) Lower(name string) []*NIC {
	var lower []*NIC
	for _, nic := range n.List {
		if nic.Master != nil && *nic.Master == name {
			lower = append(lower, nic)
		}
	}
	return lower
}

// NICs gives the host's network interfaces. Of the VFs of this host, of which
// there may be hundreds, it reads no more than where they are and their
// driver: see [Facts.NICsAll].
func (f *Facts) NICs() *NICs {
	return f.nics.get(f, func(f *Facts) *NICs { return decodeNICs(f, false) })
}

// NICsAll is NICs with the state of VFs.
func (f *Facts) NICsAll() *NICs {
	return f.nicsAll.get(f, func(f *Facts) *NICs { return decodeNICs(f, true) })
}

var nicAttrs = []string{"mtu", "operstate", "flags", "type", "address", "speed", "carrier"}

func decodeNICs(f *Facts, all bool) *NICs {
	h := f.host
	names, err := h.List(NetClass)
	if err != nil {
		if kernelLacks(h, err) {
			return &NICs{List: []*NIC{}}
		}
		return &NICs{Why: host.Reason(err)}
	}
	nics := &NICs{List: []*NIC{}}
	var ops []host.Op
	for _, name := range names {
		if name == "bonding_masters" { // a file of the bonding driver
			continue
		}
		nics.List = append(nics.List, &NIC{Name: name})
		ops = append(ops, host.Op{Kind: host.ReadLink, Path: NetClass + "/" + name})
	}
	h.Prefetch(ops)
	bus := f.PCI()
	ops = ops[:0]
	for _, n := range nics.List {
		n.readPlace(h, bus)
		ops = append(ops, n.wanted(all)...)
	}
	h.Prefetch(ops)
	for _, n := range nics.List {
		n.readDriver(h)
		if all || !n.VF {
			n.readState(h)
			n.readFlavour(f.Modules())
		}
	}
	nics.findRepresentors(h)
	nics.ask(h)
	return nics
}

// findRepresentors tells them by the port name, which is asked where several
// interfaces stand on one function: the port itself is "p0".
func (n *NICs) findRepresentors(h *host.Host) {
	for _, nic := range n.List {
		if !nic.Physical() || len(n.Of(*nic.BDF)) < 2 {
			continue
		}
		if name, err := h.Text(nic.Attr("phys_port_name")); err == nil {
			nic.Representor = representorName().MatchString(name)
		}
	}
}

// representorName is the name of a port of a VF, a sub-function or a host's
// physical function, the latter two with a controller's number on a DPU
// (net/devlink/port.c, __devlink_port_phys_port_name_get).
var representorName = pattern.Late(`^(c\d+)?pf\d+((vf|sf)\d+)?$`)

// wanted lists what is read of an interface once its place is known.
func (n *NIC) wanted(all bool) (ops []host.Op) {
	if n.Driver == nil {
		ops = append(ops, host.Op{Kind: host.ReadLink, Path: n.Attr("device/driver")})
	}
	if n.VF && !all {
		return ops
	}
	ops = append(ops, host.Op{Kind: host.ReadLink, Path: n.Attr("master")})
	for _, a := range nicAttrs {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: n.Attr(a)})
	}
	return ops
}

// readPlace finds the PCI function that the interface stands on: the last
// address in its path, which is also right for what stands on it through
// another bus (virtio, auxiliary devices of mlx5).
func (n *NIC) readPlace(h *host.Host, bus *PCIBus) {
	at := NetClass + "/" + n.Name
	p := h.Follow(at)
	bdf := lastBDF(p)
	if p == at { // a real directory, as some captures have
		p = h.Follow(n.Attr("device"))
		if bdf = lastBDF(p); p == n.Attr("device") {
			n.Unknown.say("bdf", at+": not a link, so its device is not known")
			n.Unknown.say("numa_node", n.Unknown["bdf"])
			return
		}
	}
	n.BDF = &bdf
	fn := bus.At(bdf)
	switch {
	case bdf == "":
		n.Unknown.say("numa_node", "not a PCI device")
	case fn == nil:
		n.Unknown.say("numa_node", PCIDevices+"/"+bdf+": absent")
	default:
		n.VF = fn.VF()
		if path.Base(path.Dir(path.Dir(p))) == bdf { // …/BDF/net/NAME: the function is the device itself
			n.Driver = fn.Driver
		}
		if n.NUMANode = fn.NUMANode; n.NUMANode == nil {
			n.Unknown.say("numa_node", fn.Unknown["numa_node"])
		}
	}
}

// readDriver reads the driver of the device itself: virtio_net rather than
// virtio-pci, hv_netvsc of a synthetic interface.
func (n *NIC) readDriver(h *host.Host) {
	if n.Driver != nil {
		return
	}
	drv, err := h.LinkBase(n.Attr("device/driver"))
	switch {
	case err == nil:
		n.Driver = &drv
	case kernelLacks(h, err) || (host.Absent(err) && strings.HasPrefix(h.Follow(NetClass+"/"+n.Name), "/sys/devices/virtual/")):
		n.Driver = new("")
	default:
		n.Unknown.say("driver", whyNot(h, err))
	}
}

const iffUp = 1 // include/uapi/linux/if.h

func (n *NIC) readState(h *host.Host) {
	if flags, ok := n.number(h, "flags", "admin_up", math.MaxUint32); ok {
		up := flags&iffUp != 0
		n.AdminUp = &up
	}
	if v, ok := n.number(h, "mtu", "mtu", math.MaxInt32); ok {
		n.MTU = &v
	}
	if v, ok := n.number(h, "type", "type", math.MaxUint16); ok {
		n.Type = &v
	}
	n.OperState = n.text(h, "operstate", "operstate")
	n.MAC = n.text(h, "address", "mac")
	n.Master = optionalLink(h, n.Attr("master"), "master", &n.Unknown)

	// both give EINVAL while the interface is down (net/core/net-sysfs.c)
	switch v, err := h.Int(n.Attr("speed")); {
	case err != nil:
		n.notRead(h, "speed_mbps", err)
	case unknownSpeed(v):
		n.Unknown.say("speed_mbps", fmt.Sprintf("%s: %d, the driver does not know it", n.Attr("speed"), v))
	default:
		n.SpeedMbps = new(int(v))
	}
	if v, ok := n.number(h, "carrier", "carrier", 1); ok {
		c := v != 0
		n.Carrier = &c
	}
}

// unknownSpeed is true of SPEED_UNKNOWN as the kernel's versions print it, and
// of what is no speed (include/uapi/linux/ethtool.h, ethtool_validate_speed).
func unknownSpeed(v int64) bool { return v <= 0 || v == 65535 || v > math.MaxInt32 }

// number reads an attribute that the kernel keeps in 0 to limit.
func (n *NIC) number(h *host.Host, name, field string, limit int64) (int, bool) {
	v, err := h.Int(n.Attr(name))
	if err != nil {
		n.notRead(h, field, err)
		return 0, false
	}
	if v < 0 || v > limit {
		n.Unknown.say(field, fmt.Sprintf("%s: %d, which is no value of it", n.Attr(name), v))
		return 0, false
	}
	return int(v), true
}

func (n *NIC) text(h *host.Host, name, field string) *string {
	s, err := h.Text(n.Attr(name))
	if err != nil {
		n.notRead(h, field, err)
		return nil
	}
	return &s
}

func (n *NIC) notRead(h *host.Host, field string, err error) {
	why := whyNot(h, err)
	if host.NotOffered(err) {
		name := strings.TrimSuffix(field, "_mbps")
		why = n.Attr(name) + ": not told by the driver"
		if n.AdminUp != nil && !*n.AdminUp {
			why = n.Attr(name) + ": not told while the interface is down"
		}
	}
	n.Unknown.say(field, why)
}

// readFlavour tells which build of its driver runs an interface.
func (n *NIC) readFlavour(m *Modules) {
	switch {
	case n.Driver == nil:
		n.Unknown.say("flavour", n.Unknown["driver"])
	case *n.Driver == "":
		n.Flavour = new("")
	default:
		flavour, why := m.Flavour(*n.Driver)
		if why != "" {
			n.Unknown.say("flavour", why)
			return
		}
		n.Flavour = &flavour
	}
}

// Flavour tells which build of a module is loaded: "in-tree", "ofed" or
// "out-of-tree"; why says why that is not known. MLNX_OFED and DOCA give their
// modules a version, which the kernel's own mlx ones have not; any module from
// outside the kernel's tree taints it with O.
func (m *Modules) Flavour(module string) (flavour, why string) {
	mod, known := m.Find(module)
	switch {
	case mod == nil && known: // a driver name that is not the module's
		return "", "no module " + ModuleName(module) + " is loaded or built in"
	case mod == nil:
		return "", "/proc/modules does not list " + ModuleName(module) + ", and whether it is built in is not known"
	}
	if mod.Version != nil && *mod.Version != "" && strings.HasPrefix(mod.Name, "mlx") {
		return "ofed", ""
	}
	switch {
	case mod.Taint == nil:
		return "", mod.Unknown["taint"]
	case strings.Contains(*mod.Taint, "O"):
		return "out-of-tree", ""
	case mod.Version == nil && mod.Unknown["version"] != "":
		return "", mod.Unknown["version"]
	}
	return "in-tree", ""
}

// ask puts the ethtool questions to the PCI interfaces that are no VFs of this
// host: hundreds of VFs would queue up behind one lock of the kernel.
func (n *NICs) ask(h *host.Host) {
	var questions []func()
	for _, nic := range n.List {
		switch {
		case !nic.Physical():
			nic.notAsked("not a PCI device")
		case nic.VF, nic.Representor:
			nic.notAsked("not asked for a virtual function of this host")
		default:
			questions = append(questions, func() { nic.ask(h) })
		}
	}
	host.Together(questions)
}

func (n *NIC) notAsked(why string) {
	for _, field := range []string{"firmware", "priv_flags", "rings", "channels", "features"} {
		n.Unknown.say(field, why)
	}
}

func (n *NIC) ask(h *host.Host) {
	if d, err := h.EthtoolDriver(n.Name); n.told(err, "firmware") {
		n.Firmware = &d.Firmware
	}
	if flags, err := h.EthtoolPrivFlags(n.Name); n.told(err, "priv_flags") {
		n.PrivFlags = flags
	}
	if r, err := h.EthtoolRings(n.Name); n.told(err, "rings") {
		n.Rings = &r
	}
	if c, err := h.EthtoolChannels(n.Name); n.told(err, "channels") {
		n.Channels = &c
	}
	if features, err := h.EthtoolFeatures(n.Name); n.told(err, "features") {
		n.Features = features
	}
}

func (n *NIC) told(err error, field string) bool {
	switch {
	case err == nil:
		return true
	case host.NotOffered(err):
		n.Unknown.say(field, "not applicable: the driver does not offer it")
	default:
		n.Unknown.say(field, host.Reason(err))
	}
	return false
}

// RoCEMTU is the InfiniBand MTU that RoCE gets out of an Ethernet MTU: what is
// left after 96 bytes of headers, rounded down to a size that the protocol has
// (include/rdma/ib_addr.h, iboe_get_mtu); 0 when not even the smallest fits.
func RoCEMTU(mtu int) int {
	for _, ib := range []int{4096, 2048, 1024, 512, 256} {
		if mtu-roceHeaders >= ib {
			return ib
		}
	}
	return 0
}

const roceHeaders = 96

// FirmwareVersion is the dotted number at the start of what ethtool -i says:
// "28.41.1000" of "28.41.1000 (MT_0000000838)"; "" when there is none.
func FirmwareVersion(s string) string {
	v, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	v = strings.TrimSuffix(v, ",")
	for part := range strings.SplitSeq(v, ".") {
		if _, err := strconv.ParseUint(part, 10, 64); err != nil {
			return ""
		}
	}
	return v
}

// ReleaseNumbers is 6.12.107 of the kernel release 6.12.107+deb13-amd64.
func ReleaseNumbers(release string) string {
	return strings.TrimRight(release[:len(release)-len(strings.TrimLeft(release, "0123456789."))], ".")
}

// CompareVersions orders dotted numbers, number by number: 28.9 is before
// 28.39. What is no number is ordered as text, before any number.
func CompareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		if c := compareParts(part(x, i), part(y, i)); c != 0 {
			return c
		}
	}
	return 0
}

// part gives the i-th number of a version; what is not written is 0.
func part(v []string, i int) string {
	if i < len(v) {
		return v[i]
	}
	return "0"
}

func compareParts(a, b string) int {
	m, errM := strconv.ParseUint(a, 10, 64)
	n, errN := strconv.ParseUint(b, 10, 64)
	switch {
	case errM == nil && errN == nil:
		return cmp.Compare(m, n)
	case errM == nil:
		return 1
	case errN == nil:
		return -1
	}
	return strings.Compare(a, b)
}

// Subject names an interface in findings: "0000:18:00.0 enp24s0np0".
func (n *NIC) Subject() string {
	if n.Physical() {
		return *n.BDF + " " + n.Name
	}
	return n.Name
}
