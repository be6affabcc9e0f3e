// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"fmt"
)

// Sizes of what /sys/bus/pci/devices/BDF/config gives (pci-sysfs.c,
// pci_read_config): the header alone without CAP_SYS_ADMIN, 256 bytes of a
// conventional function or where the machine has no access to the extended
// space, else 4096.
const (
	configHeader   = 64
	configConv     = 256
	configExtended = 4096
)

// Capability IDs (include/uapi/linux/pci_regs.h).
const (
	capPCIX    = 0x07
	capExpress = 0x10

	extAER   = 0x0001
	extACS   = 0x000d
	extATS   = 0x000f
	extSRIOV = 0x0010
)

// Port types of the PCI Express capability that matter here.
const (
	portRoot       = 4
	portUpstream   = 5
	portDownstream = 6
	portRCiEP      = 9
	portRCEC       = 10
)

// portTypes are named as lspci names them.
var portTypes = map[int]string{
	0: "Endpoint", 1: "Legacy Endpoint", portRoot: "Root Port", portUpstream: "Upstream Port", portDownstream: "Downstream Port",
	7: "PCI-Express to PCI/PCI-X Bridge", 8: "PCI/PCI-X to PCI-Express Bridge",
	portRCiEP: "Root Complex Integrated Endpoint", portRCEC: "Root Complex Event Collector",
}

// Capability is one entry of a capability list: its ID and where it starts.
type Capability struct {
	ID, Offset int
}

// Express is the PCI Express capability; sizes in bytes, speeds in GT/s,
// widths in lanes, 0 where the register holds no known code.
type Express struct {
	Port            int // port type code; see [PCISpace.PortType]
	MPSMax          int // DevCap: the largest MaxPayload it can
	MPS, MRRS       int // DevCtl
	RelaxedOrdering bool
	ExtendedTag     bool
	HasLink         bool // false of functions integrated in the root complex
	MaxGTs, GTs     float64
	MaxWidth, Width int
	L0s, L1         bool // LnkCtl: active state power management is on
}

// ACS is the Access Control Services capability: what the port can do and
// what is switched on. Bits as in the specification, [ACSSourceValidation] on.
type ACS struct {
	Offset   int
	Cap, Ctl uint16
	Quirk    string // why the registers were read otherwise; "" as a rule
}

// ATS is the Address Translation Services capability.
type ATS struct {
	Offset  int
	Enabled bool
}

// SRIOV is the Single Root I/O Virtualization capability.
type SRIOV struct {
	Offset                       int
	Enabled                      bool
	InitialVFs, TotalVFs, NumVFs int
	FirstOffset, Stride          int
	VFDevice                     uint16
}

// AER is the Advanced Error Reporting capability's status and masks.
type AER struct {
	Offset                                int
	UncorStatus, UncorMask, UncorSeverity uint32
	CorStatus, CorMask                    uint32
}

// PCISpace is a function's configuration space, decoded.
type PCISpace struct {
	Header int          // layout: 0 device, 1 bridge, 2 CardBus
	Caps   []Capability // nil when not reachable
	Ext    []Capability // extended list; nil when there is none or it is not reachable

	Express *Express
	ACS     *ACS
	ATS     *ATS
	SRIOV   *SRIOV
	AER     *AER

	Resizable []ResizableBAR

	// Gone is true when the function does not answer: every bit reads as one.
	Gone bool
	// Why says why the capability list is not known; "" when it is.
	Why string
	// ExtWhy says why the extended list is not known; "" when it is, and when
	// the function cannot have one.
	ExtWhy string
}

// Reasons for what a short configuration space hides.
const (
	whyPrivilege = "only %d bytes of configuration space could be read; the kernel gives the rest to CAP_SYS_ADMIN in the initial user namespace only (root, outside a container)"
	whyNoExt     = "configuration space ends at %d bytes: a virtual machine or firmware that gives no access to the extended part (no ECAM)"
	whyCut       = "configuration space is cut off at %d bytes"
	whyBroken    = "the capability list is broken: %s"
	whyExtBroken = "the extended capability list is broken: %s"
)

// PortType names the PCI Express port type as lspci does; "" for a
// conventional function.
func (s *PCISpace) PortType() string {
	if s.Express == nil {
		return ""
	}
	if n := portTypes[s.Express.Port]; n != "" {
		return n
	}
	return fmt.Sprintf("port type %d", s.Express.Port)
}

// Forwards reports whether it is a port through which others' requests pass:
// a root port or either side of a switch.
func (s *PCISpace) Forwards() bool {
	return s.Express != nil && s.Express.Port >= portRoot && s.Express.Port <= portDownstream
}

// DecodePCISpace decodes the bytes of a config file. It never fails: lists
// that loop or point out of the bytes end there, and that, or what was cut off
// by a short read, is said in Why and ExtWhy.
func DecodePCISpace(b []byte) *PCISpace {
	s := &PCISpace{}
	if len(b) < configHeader {
		s.Why = fmt.Sprintf(whyPrivilege, len(b))
		s.ExtWhy = s.Why
		return s
	}
	// a VF's IDs read as all ones; that its command and status do, too, would be death
	if u32(b, 0) == 0xffffffff && u32(b, 4) == 0xffffffff {
		s.Gone = true
		s.Why = "the function does not answer (all bits set): powered down, or lost"
		s.ExtWhy = s.Why
		return s
	}
	if u32(b, 0) == 0 {
		s.Why = "configuration space holds no vendor and device ID"
		s.ExtWhy = s.Why
		return s
	}
	s.Header = int(b[0x0e] & 0x7f)
	s.walk(b)
	if x := s.find(s.Caps, capExpress); x != 0 {
		s.express(b, x)
	}
	s.walkExtended(b)
	s.acs(b)
	if at := s.find(s.Ext, extATS); at != 0 && at+8 <= len(b) {
		s.ATS = &ATS{Offset: at, Enabled: u16(b, at+6)&0x8000 != 0}
	}
	if at := s.find(s.Ext, extSRIOV); at != 0 && at+0x40 <= len(b) {
		s.SRIOV = &SRIOV{
			Offset: at, Enabled: u16(b, at+8)&1 != 0,
			InitialVFs: int(u16(b, at+0xc)), TotalVFs: int(u16(b, at+0xe)), NumVFs: int(u16(b, at+0x10)),
			FirstOffset: int(u16(b, at+0x14)), Stride: int(u16(b, at+0x16)), VFDevice: u16(b, at+0x1a),
		}
	}
	if at := s.find(s.Ext, extAER); at != 0 && at+0x18 <= len(b) {
		s.AER = &AER{
			Offset: at, UncorStatus: u32(b, at+4), UncorMask: u32(b, at+8), UncorSeverity: u32(b, at+0xc),
			CorStatus: u32(b, at+0x10), CorMask: u32(b, at+0x14),
		}
	}
	s.rebar(b)
	return s
}

func u16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

// find gives the offset of the first capability with an ID, 0 for none.
func (s *PCISpace) find(list []Capability, id int) int {
	for _, c := range list {
		if c.ID == id {
			return c.Offset
		}
	}
	return 0
}

// walk follows the capability list in the first 256 bytes.
func (s *PCISpace) walk(b []byte) {
	s.Caps = []Capability{}
	const hasList = 1 << 4 // of the status register
	if u16(b, 6)&hasList == 0 {
		return
	}
	first := 0x34
	if s.Header == 2 {
		first = 0x14
	}
	from, seen := first, [64]bool{}
	for at := int(b[first] &^ 3); at != 0 || from == first; at = int(b[from] &^ 3) {
		switch {
		case at < configHeader:
			s.Why = fmt.Sprintf(whyBroken, fmt.Sprintf("%#x leads to %#x, in the header or before", from, b[from]))
		case at+2 > len(b):
			s.Why = fmt.Sprintf(whyPrivilege, len(b))
			if len(s.Caps) == 0 {
				s.Caps = nil
			}
		case seen[at/4]:
			s.Why = fmt.Sprintf(whyBroken, fmt.Sprintf("it comes to %#x twice", at))
		case b[at] == 0xff: // an unimplemented register
			s.Why = fmt.Sprintf(whyBroken, fmt.Sprintf("nothing answers at %#x", at))
		}
		if s.Why != "" {
			return
		}
		seen[at/4] = true
		s.Caps = append(s.Caps, Capability{int(b[at]), at})
		from = at + 1
	}
}

func (s *PCISpace) express(b []byte, at int) {
	// DevSta ends the part that every version and port has
	switch {
	case at+0x0c > configConv:
		s.Why = fmt.Sprintf(whyBroken, fmt.Sprintf("PCI Express at %#x does not fit", at))
		return
	case at+0x0c > len(b):
		s.Why = fmt.Sprintf(whyPrivilege, len(b))
		return
	}
	ctl := u16(b, at+8)
	x := &Express{
		Port:            int(u16(b, at+2) >> 4 & 0xf),
		MPSMax:          128 << (u32(b, at+4) & 7),
		MPS:             128 << (ctl >> 5 & 7),
		MRRS:            128 << (ctl >> 12 & 7),
		RelaxedOrdering: ctl&(1<<4) != 0,
		ExtendedTag:     ctl&(1<<8) != 0,
	}
	s.Express = x
	if x.Port == portRCiEP || x.Port == portRCEC || at+0x14 > min(len(b), configConv) {
		return
	}
	x.HasLink = true
	lnkcap, sta := u32(b, at+0x0c), u16(b, at+0x12)
	x.MaxGTs, x.MaxWidth = linkGTs(int(lnkcap&0xf)), int(lnkcap>>4&0x3f)
	x.L0s, x.L1 = u16(b, at+0x10)&1 != 0, u16(b, at+0x10)&2 != 0
	x.GTs, x.Width = linkGTs(int(sta&0xf)), int(sta>>4&0x3f)
}

// linkGTs turns a link speed code into GT/s.
func linkGTs(code int) float64 {
	speeds := [...]float64{0, 2.5, 5, 8, 16, 32, 64}
	if code >= len(speeds) {
		return 0
	}
	return speeds[code]
}

// walkExtended follows the list from 0x100. Only PCI Express and PCI-X 2.0
// functions have one.
func (s *PCISpace) walkExtended(b []byte) {
	express := s.find(s.Caps, capExpress) != 0
	switch {
	case s.Why != "":
		s.ExtWhy = s.Why
		return
	case len(b) < configConv:
		if len(s.Caps) > 0 {
			s.ExtWhy = fmt.Sprintf(whyPrivilege, len(b))
		}
		return
	case len(b) < configConv+4:
		switch {
		case express && len(b) == configConv:
			s.ExtWhy = fmt.Sprintf(whyNoExt, len(b))
		case express:
			s.ExtWhy = fmt.Sprintf(whyCut, len(b))
		}
		return
	case !express && s.find(s.Caps, capPCIX) == 0:
		return
	}
	s.Ext = []Capability{}
	if len(b) < configExtended {
		s.ExtWhy = fmt.Sprintf(whyCut, len(b))
	}
	end := min(len(b), configExtended)
	broken := func(format string, at int) {
		if s.ExtWhy == "" {
			s.ExtWhy = fmt.Sprintf(whyExtBroken, fmt.Sprintf(format, at))
		}
	}
	seen := make([]bool, configExtended/4)
	for at := configConv; at != 0; {
		switch {
		case at < configConv:
			broken("it leads to %#x, before its start", at)
			return
		case at+4 > end:
			broken("it leads to %#x, beyond the end", at)
			return
		case seen[at/4]:
			broken("it comes to %#x twice", at)
			return
		}
		seen[at/4] = true
		head := u32(b, at)
		switch {
		case head == 0 && at == configConv: // the function has none
			return
		case head == 0 || head == 0xffffffff:
			broken("nothing answers at %#x", at)
			return
		}
		s.Ext = append(s.Ext, Capability{int(head & 0xffff), at})
		at = int(head >> 20 &^ 3)
	}
}
