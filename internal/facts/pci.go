// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// PCIDevices is where the kernel lists PCI functions.
const PCIDevices = "/sys/bus/pci/devices"

// PCIFunction is one PCI function.
type PCIFunction struct {
	BDF         string   `json:"bdf"`    // "0000:1a:00.0"
	Vendor      *string  `json:"vendor"` // 4 hex digits
	Device      *string  `json:"device"`
	SubVendor   *string  `json:"subsystem_vendor"`
	SubDevice   *string  `json:"subsystem_device"`
	Class       *string  `json:"class"`     // 6 hex digits, "020000"
	Driver      *string  `json:"driver"`    // "" when none is bound
	NUMANode    *int     `json:"numa_node"` // nil when the firmware gave none (-1)
	Parent      *string  `json:"parent"`    // BDF of the bridge above, "" below a root bus
	PhysFn      *string  `json:"physfn"`    // of a VF: its PF; "" otherwise
	VFs         []string `json:"vfs"`       // of a PF: its VFs in virtfn order
	NumVFs      *int     `json:"num_vfs"`   // sriov_numvfs; nil without the capability
	TotalVFs    *int     `json:"total_vfs"`
	Link        PCILink  `json:"link"`
	MPS         *int     `json:"mps"`          // MaxPayload in bytes, from configuration space
	MRRS        *int     `json:"mrrs"`         // MaxReadReq in bytes
	ConfigBytes *int     `json:"config_bytes"` // how many bytes of configuration space could be read: 64 without privilege, 256 or 4096
	Unknown     Unknown  `json:"unknown,omitempty"`

	// Path is the device's directory, "/sys/devices/pci0000:00/…".
	Path string `json:"-"`
	// Config is the configuration space that could be read; nil when none.
	Config []byte `json:"-"`
	// Space is Config decoded; nil when Config is.
	Space *PCISpace `json:"-"`
}

// Attr is the path of one of the function's attributes, under the name by
// which this package reads it.
func (fn *PCIFunction) Attr(name string) string { return PCIDevices + "/" + fn.BDF + "/" + name }

// IsClass reports whether the class code starts with one of the hex prefixes
// ("02" a network controller, "0604" a PCI bridge).
func (fn *PCIFunction) IsClass(prefix ...string) bool {
	return fn.Class != nil && slices.ContainsFunc(prefix, func(p string) bool { return strings.HasPrefix(*fn.Class, p) })
}

// Network reports whether this is a network controller (class 02).
func (fn *PCIFunction) Network() bool { return fn.IsClass("02") }

// Bridge reports whether this is a PCI-to-PCI bridge: a root port, one port
// of a switch, or a bridge to conventional PCI.
func (fn *PCIFunction) Bridge() bool { return fn.IsClass("0604", "0609") }

// GPU reports whether this is a display, 3D or processing accelerator function
// of a maker of compute GPUs. The VGA controllers of a BMC are none.
func (fn *PCIFunction) GPU() bool {
	return fn.Vendor != nil && (*fn.Vendor == "10de" || *fn.Vendor == "1002") && fn.IsClass("03", "12")
}

// VF reports whether this is a virtual function whose physical function is on
// this host. A function that was passed to a virtual machine is none there.
func (fn *PCIFunction) VF() bool { return fn.PhysFn != nil && *fn.PhysFn != "" }

// ID is "vendor:device" in hex, with "????" for what is unknown.
func (fn *PCIFunction) ID() string {
	s := func(p *string) string {
		if p == nil {
			return "????"
		}
		return *p
	}
	return s(fn.Vendor) + ":" + s(fn.Device)
}

// PCIBus is all PCI functions, sorted by address.
type PCIBus struct {
	Functions []*PCIFunction
	Why       string // why Functions is nil

	byBDF map[string]*PCIFunction
}

// MarshalJSON writes the list of functions, null when the bus could not be read.
func (b *PCIBus) MarshalJSON() ([]byte, error) { return json.Marshal(b.Functions) }

// At gives the function at an address, or nil.
func (b *PCIBus) At(bdf string) *PCIFunction { return b.byBDF[bdf] }

// Above gives the bridges above a function, the nearest first, up to the root
// port; known is false when some step of the way is not known, or a bridge is
// listed at another place than the one that the function's own path goes through.
func (b *PCIBus) Above(fn *PCIFunction) (bridges []*PCIFunction, known bool) {
	for range 64 { // deeper than any bus numbering allows in practice
		if fn.Parent == nil {
			return bridges, false
		}
		if *fn.Parent == "" {
			return bridges, true
		}
		up := b.At(*fn.Parent)
		if up == nil || up.Path != path.Dir(fn.Path) {
			return bridges, false
		}
		fn = up
		bridges = append(bridges, fn)
	}
	return bridges, false
}

// PCI gives the host's PCI functions. Of those that no check looks at (not a
// bridge, network controller, GPU or NVMe drive, or a VF) it does not read
// the link and the configuration space: see [Facts.PCIAll].
func (f *Facts) PCI() *PCIBus {
	return f.pci.get(f, func(f *Facts) *PCIBus { return decodePCI(f, false) })
}

// PCIAll is PCI with link, SR-IOV and configuration space of every function,
// which takes the machine about a millisecond each.
func (f *Facts) PCIAll() *PCIBus {
	return f.pciAll.get(f, func(f *Facts) *PCIBus { return decodePCI(f, true) })
}

func decodePCI(f *Facts, all bool) *PCIBus {
	h := f.host
	b := &PCIBus{byBDF: map[string]*PCIFunction{}}
	names, err := h.List(PCIDevices)
	if err != nil && kernelLacks(h, err) {
		b.Functions = []*PCIFunction{}
		return b
	}
	if err != nil {
		b.Why = host.Reason(err)
		return b
	}
	b.Functions = make([]*PCIFunction, 0, len(names))
	for _, name := range names {
		if isBDF(name) {
			fn := &PCIFunction{BDF: name, VFs: []string{}}
			b.Functions = append(b.Functions, fn)
			b.byBDF[name] = fn
		}
	}

	// what every function has, in one batch; modalias holds all its IDs
	ops := make([]host.Op, 0, 4*len(b.Functions))
	for _, fn := range b.Functions {
		ops = append(ops, host.Op{Kind: host.ReadLink, Path: path.Join(PCIDevices, fn.BDF)},
			host.Op{Kind: host.ReadFile, Path: fn.Attr("modalias")},
			host.Op{Kind: host.ReadFile, Path: fn.Attr("numa_node")},
			host.Op{Kind: host.ReadLink, Path: fn.Attr("driver")})
	}
	h.Prefetch(ops)
	prefetchIDs(h, b.Functions)
	for _, fn := range b.Functions {
		fn.readPlace(h)
		fn.readIDs(h)
		fn.readNode(h)
		fn.readDriver(h)
	}

	// whether it is a VF, for the kinds of device that have them
	ops = ops[:0]
	for _, fn := range b.Functions {
		if all || fn.mayHaveVFs() {
			ops = append(ops, host.Op{Kind: host.ReadLink, Path: fn.Attr("physfn")})
		}
	}
	h.Prefetch(ops)
	for _, op := range ops {
		b.At(path.Base(path.Dir(op.Path))).readPhysFn(h)
	}

	// the rest, for those that are looked at
	ops = ops[:0]
	for _, fn := range b.Functions {
		for _, name := range fn.wanted(all) {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: fn.Attr(name)})
		}
	}
	h.Prefetch(ops)
	for _, fn := range b.Functions {
		names := fn.wanted(all)
		if names == nil {
			continue
		}
		fn.readLink(h)
		fn.readConfig(h)
		if slices.Contains(names, "sriov_totalvfs") {
			fn.readSRIOV(h)
		}
	}
	b.joinVFs(h)
	return b
}

var linkAttrs = []string{"current_link_speed", "current_link_width", "max_link_speed", "max_link_width"}

// wanted lists the attributes beyond the common ones that are read of fn.
func (fn *PCIFunction) wanted(all bool) []string {
	link := append(slices.Clone(linkAttrs), "config")
	switch {
	case all && fn.VF():
		return link
	case all, fn.mayHaveVFs() && !fn.VF():
		return append(link, "sriov_totalvfs", "sriov_numvfs")
	case fn.Bridge(), fn.Class == nil: // which may be a bridge
		return link
	}
	return nil
}

// mayHaveVFs is true of the kinds of device of which checks look at VFs.
func (fn *PCIFunction) mayHaveVFs() bool { return fn.IsClass("02", "03", "12", "0108") }

func (fn *PCIFunction) readPlace(h *host.Host) {
	at := path.Join(PCIDevices, fn.BDF)
	fn.Path = h.Follow(at)
	if fn.Path == at { // a real directory, as some captures have
		fn.Unknown.say("parent", at+": not a link, so its place in the tree is not known")
		return
	}
	up := path.Base(path.Dir(fn.Path))
	if !isBDF(up) {
		up = "" // "pci0000:00", a root bus
	}
	fn.Parent = &up
}

// prefetchIDs reads the single attributes of functions without a modalias.
func prefetchIDs(h *host.Host, fns []*PCIFunction) {
	var ops []host.Op
	for _, fn := range fns {
		if _, err := h.Read(fn.Attr("modalias")); err != nil {
			for _, name := range idAttrs {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: fn.Attr(name)})
			}
		}
	}
	h.Prefetch(ops)
}

var idAttrs = []string{"vendor", "device", "subsystem_vendor", "subsystem_device", "class"}

func (fn *PCIFunction) readIDs(h *host.Host) {
	into := []**string{&fn.Vendor, &fn.Device, &fn.SubVendor, &fn.SubDevice, &fn.Class}
	if s, err := h.Text(fn.Attr("modalias")); err == nil {
		if ids, ok := parseModalias(s); ok {
			for i := range into {
				*into[i] = &ids[i]
			}
			return
		}
	}
	for i, name := range idAttrs {
		s, err := h.Text(fn.Attr(name))
		if err != nil {
			fn.Unknown.say(name, whyNot(h, err))
			continue
		}
		digits := 4
		if name == "class" {
			digits = 6
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 4*digits)
		if err != nil {
			fn.Unknown.say(name, fmt.Sprintf("%s: not a hex number of %d digits", fn.Attr(name), digits))
			continue
		}
		v := fmt.Sprintf("%0*x", digits, n)
		*into[i] = &v
	}
}

// parseModalias takes apart "pci:v000015B3d00001021sv000015B3sd00000023bc02sc00i00"
// (file2alias.c) into vendor, device, their subsystem twins and the class.
func parseModalias(s string) (ids [5]string, ok bool) {
	s, ok = strings.CutPrefix(s, "pci:v")
	var part [7]string
	for i, sep := range []string{"d", "sv", "sd", "bc", "sc", "i", ""} {
		if sep == "" {
			part[i] = s
			break
		}
		var found bool
		// the numbers are written with capitals, so that no separator is a digit
		part[i], s, found = strings.Cut(s, sep)
		ok = ok && found
	}
	if !ok {
		return ids, false
	}
	for i, p := range part {
		want := 2
		if i < 4 {
			if want = 8; !strings.HasPrefix(p, "0000") {
				return ids, false
			}
		}
		if _, err := strconv.ParseUint(p, 16, 32); err != nil || len(p) != want {
			return ids, false
		}
	}
	for i := range 4 {
		ids[i] = strings.ToLower(part[i][4:])
	}
	ids[4] = strings.ToLower(part[4] + part[5] + part[6])
	return ids, true
}

func (fn *PCIFunction) readNode(h *host.Host) {
	n, err := h.Int(fn.Attr("numa_node"))
	switch {
	case kernelLacks(h, err): // a kernel without CONFIG_NUMA
		fn.Unknown.say("numa_node", fn.Attr("numa_node")+": absent, the kernel has no NUMA support")
	case err != nil:
		fn.Unknown.say("numa_node", whyNot(h, err))
	case n < 0:
		fn.Unknown.say("numa_node", fn.Attr("numa_node")+": -1, the firmware gave none")
	default:
		v := int(n)
		fn.NUMANode = &v
	}
}

func (fn *PCIFunction) readDriver(h *host.Host) {
	fn.Driver = optionalLink(h, fn.Attr("driver"), "driver", &fn.Unknown)
}

func (fn *PCIFunction) readPhysFn(h *host.Host) {
	fn.PhysFn = optionalLink(h, fn.Attr("physfn"), "physfn", &fn.Unknown)
}

// optionalLink gives the base name a link leads to, "" when the kernel has no
// such link, and nil with the reason in u when that cannot be told.
func optionalLink(h *host.Host, p, field string, u *Unknown) *string {
	base, err := h.LinkBase(p)
	switch {
	case err == nil:
	case kernelLacks(h, err):
		base = ""
	default:
		u.say(field, whyNot(h, err))
		return nil
	}
	return &base
}

func (fn *PCIFunction) readSRIOV(h *host.Host) {
	fn.TotalVFs = fn.optionalInt(h, "sriov_totalvfs", "total_vfs")
	fn.NumVFs = fn.optionalInt(h, "sriov_numvfs", "num_vfs")
}

// optionalInt reads a number that only some functions have.
func (fn *PCIFunction) optionalInt(h *host.Host, name, field string) *int {
	n, err := h.Int(fn.Attr(name))
	if err != nil {
		if !kernelLacks(h, err) {
			fn.Unknown.say(field, whyNot(h, err))
		}
		return nil
	}
	v := int(n)
	return &v
}

func (fn *PCIFunction) readConfig(h *host.Host) {
	c, err := h.Read(fn.Attr("config"))
	if err != nil {
		why := whyNot(h, err)
		for _, field := range []string{"config_bytes", "mps", "mrrs"} {
			fn.Unknown.say(field, why)
		}
		return
	}
	n := len(c)
	fn.Config, fn.ConfigBytes = c, &n
	fn.Space = DecodePCISpace(c)
	if why := fn.contradicts(h); why != "" {
		fn.Space = &PCISpace{Why: why, ExtWhy: why}
	}
	switch x, why := fn.Space.Express, fn.Space.Why; {
	case x != nil && fn.VF(): // its fields are reserved, and read as the smallest sizes
		fn.Unknown.say("mps", "a virtual function has none of its own: that of "+*fn.PhysFn+" counts")
		fn.Unknown.say("mrrs", fn.Unknown["mps"])
		fn.linkFromConfig(x)
	case x != nil:
		fn.MPS, fn.MRRS = &x.MPS, &x.MRRS
		fn.linkFromConfig(x)
	case why != "":
		fn.Unknown.say("mps", fn.Attr("config")+": "+why)
		fn.Unknown.say("mrrs", fn.Attr("config")+": "+why)
	default:
		fn.Unknown.say("mps", "not a PCI Express function")
		fn.Unknown.say("mrrs", "not a PCI Express function")
	}
}

// contradicts says why the bytes of config cannot be the function's own: they
// name another device than the kernel does, or have no PCI Express capability
// while the kernel shows a PCI Express link. "" when nothing speaks against them.
func (fn *PCIFunction) contradicts(h *host.Host) string {
	s := fn.Space
	if s.Gone || len(fn.Config) < configHeader || u32(fn.Config, 0) == 0 {
		return "" // Why says it
	}
	// a VF has no IDs of its own there; whether it is one may be unknown
	ids := u32(fn.Config, 0)
	vf := fn.VF() || ids == 0xffffffff && fn.PhysFn == nil
	if got := fmt.Sprintf("%04x:%04x", ids&0xffff, ids>>16); !vf && fn.Vendor != nil && fn.Device != nil && got != fn.ID() {
		return "configuration space is of " + got + ", and the kernel lists " + fn.ID()
	}
	if s.Express != nil || s.Why != "" {
		return ""
	}
	for _, name := range linkAttrs {
		if _, err := h.Text(fn.Attr(name)); err == nil {
			return "configuration space has no PCI Express capability, and the kernel shows " + fn.Attr(name)
		}
	}
	return ""
}

// joinVFs lists the VFs of each PF. A VF's address grows with its number, so
// the order of addresses is that of virtfnN.
func (b *PCIBus) joinVFs(h *host.Host) {
	for _, fn := range b.Functions {
		if fn.VF() {
			if pf := b.At(*fn.PhysFn); pf != nil {
				pf.VFs = append(pf.VFs, fn.BDF)
			}
		}
	}
	for _, fn := range b.Functions {
		if fn.NumVFs == nil || len(fn.VFs) > 0 {
			continue
		}
		for i := range min(*fn.NumVFs, 1<<16) { // a tree without physfn links
			vf, err := h.LinkBase(fn.Attr("virtfn" + strconv.Itoa(i)))
			if err != nil {
				break
			}
			fn.VFs = append(fn.VFs, vf)
			if v := b.At(vf); v != nil {
				v.PhysFn = &fn.BDF
				delete(v.Unknown, "physfn")
			}
		}
	}
}

// NoRoomForVFs gives the line of the kernel log that says that a function's
// virtual functions got no memory space (drivers/pci/iov.c). "" proves nothing:
// nobody may have asked for any yet, and the log may be closed or cut.
func (f *Facts) NoRoomForVFs(bdf string) string {
	lines, _ := f.host.KernelLog()
	for _, line := range lines {
		if strings.Contains(line, " "+bdf+": not enough MMIO resources for SR-IOV") {
			return line
		}
	}
	return ""
}

// isBDF reports whether s is a PCI address in the kernel's form; the domain
// has four digits, or more where a driver (VMD, Hyper-V) makes domains.
func isBDF(s string) bool {
	domain, rest, ok := strings.Cut(s, ":")
	if !ok || len(domain) < 4 || len(domain) > 8 || len(rest) != len("1a:00.0") || rest[2] != ':' || rest[5] != '.' {
		return false
	}
	hex := func(s string) bool {
		return strings.Trim(s, "0123456789abcdef") == ""
	}
	return hex(domain) && hex(rest[:2]) && hex(rest[3:5]) && rest[6] >= '0' && rest[6] <= '7'
}

// lastBDF gives the last PCI address among the elements of a path, or "".
func lastBDF(p string) string {
	for ; p != "/" && p != "." && p != ""; p = path.Dir(p) {
		if base := path.Base(p); isBDF(base) {
			return base
		}
	}
	return ""
}
