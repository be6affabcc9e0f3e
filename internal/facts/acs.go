// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// Bits of the ACS capability and control registers (pci_regs.h, PCI_ACS_*).
const (
	ACSSourceValidation uint16 = 1 << iota // SrcValid
	ACSTranslationBlock                    // TransBlk
	ACSRequestRedirect                     // ReqRedir
	ACSCompletionRedir                     // CmpltRedir
	ACSUpstreamForward                     // UpstreamFwd
	ACSEgressControl                       // EgressCtrl
	ACSDirectTranslated                    // DirectTrans
)

// Sets of them.
const (
	// ACSRedirecting are the bits of which any one keeps peers apart (drivers/pci/p2pdma.c).
	ACSRedirecting = ACSRequestRedirect | ACSCompletionRedir | ACSEgressControl
	// ACSIsolation is what a port needs so that what is below gets groups of its own (drivers/iommu/iommu.c, REQ_ACS_FLAGS).
	ACSIsolation = ACSSourceValidation | ACSRequestRedirect | ACSCompletionRedir | ACSUpstreamForward
)

var acsNames = [...]string{"SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans"}

// ACSString writes a register as lspci does: "SrcValid+ TransBlk- …".
func ACSString(v uint16) string {
	parts := make([]string, len(acsNames))
	for i, n := range acsNames {
		parts[i] = n + "-"
		if v&(1<<i) != 0 {
			parts[i] = n + "+"
		}
	}
	return strings.Join(parts, " ")
}

// ACSBitNames names the bits that are set: "ReqRedir, UpstreamFwd".
func ACSBitNames(v uint16) string {
	var parts []string
	for i, n := range acsNames {
		if v&(1<<i) != 0 {
			parts = append(parts, n)
		}
	}
	return strings.Join(parts, ", ")
}

// Redirects reports whether peer-to-peer requests that reach this port are
// sent up to the root complex rather than to the peer: request or completion
// redirect, or egress control, is on.
func (a *ACS) Redirects() bool { return a.Ctl&ACSRedirecting != 0 }

// Missing gives the bits of want that are neither on nor hard-wired. The
// kernel takes a bit that the capability lacks as being so by construction
// (drivers/pci/pci.c, pci_acs_flags_enabled); egress control is the exception.
func (a *ACS) Missing(want uint16) uint16 { return want & (a.Cap | ACSEgressControl) &^ a.Ctl }

// quirkIntelPCH is the root ports of the Intel 100 and 200 series chipsets,
// which have the ACS capability and control registers as 32-bit words
// (drivers/pci/quirks.c, pci_quirk_intel_spt_pch_acs).
const quirkIntelPCH = "intel-spt-pch: registers are 32 bits wide, control at +8"

func intelPCH(vendor, device uint16) bool {
	in := func(lo, hi uint16) bool { return device >= lo && device <= hi }
	return vendor == 0x8086 && (in(0xa110, 0xa11f) || in(0xa167, 0xa16a) || // Sunrise Point
		in(0xa290, 0xa29f) || in(0xa2e7, 0xa2ee) || // Union Point
		in(0x9d10, 0x9d1b)) // their mobile twins
}

func (s *PCISpace) acs(b []byte) {
	at := s.find(s.Ext, extACS)
	if at == 0 {
		return
	}
	cut := fmt.Sprintf(whyExtBroken, fmt.Sprintf("ACS at %#x does not fit", at))
	if at+8 > len(b) {
		s.ExtWhy = cmp.Or(s.ExtWhy, cut)
		return
	}
	a := &ACS{Offset: at, Cap: u16(b, at+4), Ctl: u16(b, at+6)}
	if s.Express != nil && s.Express.Port == portRoot && intelPCH(u16(b, 0), u16(b, 2)) {
		if at+12 > len(b) {
			s.ExtWhy = cmp.Or(s.ExtWhy, cut)
			return
		}
		a.Quirk = quirkIntelPCH
		a.Cap, a.Ctl = uint16(u32(b, at+4)), uint16(u32(b, at+8))
	}
	s.ACS = a
}

// ACSPort is one line of the "acs" facts: a bridge port, or a function that
// has the capability.
type ACSPort struct {
	BDF      string  `json:"bdf"`
	PortType *string `json:"port_type"` // as lspci names it; "" for a conventional bridge
	Cap      *string `json:"cap"`       // 4 hex digits; nil when absent or unreadable (then Unknown says why)
	Ctl      *string `json:"ctl"`
	Redirect *bool   `json:"redirect"` // peer-to-peer requests are sent up; false where a port has no ACS, as the kernel's p2pdma takes it
	Quirk    string  `json:"quirk"`    // why the registers were read otherwise, or ""
	Unknown  Unknown `json:"unknown"`  // always there, which tells an unreadable register from an absent one
}

// ACSPorts is the "acs" facts, sorted by address.
type ACSPorts struct {
	List []ACSPort
	Why  string // why List is nil
}

// MarshalJSON writes the list, null when the bus could not be read.
func (a *ACSPorts) MarshalJSON() ([]byte, error) { return json.Marshal(a.List) }

// ACS gives the access control services of all bridge ports, and of the
// functions that have the capability.
func (f *Facts) ACS() *ACSPorts { return f.acs.get(f, decodeACS) }

func decodeACS(f *Facts) *ACSPorts {
	bus := f.PCIAll()
	if bus.Functions == nil {
		return &ACSPorts{Why: bus.Why}
	}
	ports := []ACSPort{}
	for _, fn := range bus.Functions {
		if p, ok := acsPort(fn); ok {
			ports = append(ports, p)
		}
	}
	return &ACSPorts{List: ports}
}

// acsPort describes fn; ok is false of what is neither a bridge port nor has
// the capability.
func acsPort(fn *PCIFunction) (p ACSPort, ok bool) {
	p.BDF, p.Unknown = fn.BDF, Unknown{}
	s := fn.Space
	if s == nil {
		why := fn.Unknown["config_bytes"]
		for _, field := range []string{"port_type", "cap", "ctl", "redirect"} {
			p.Unknown.say(field, why)
		}
		return p, fn.Bridge()
	}
	if s.Express != nil || s.Why == "" {
		t := s.PortType()
		p.PortType = &t
	} else {
		p.Unknown.say("port_type", s.Why)
	}
	if s.ExtWhy != "" {
		for _, field := range []string{"cap", "ctl", "redirect"} {
			p.Unknown.say(field, fmt.Sprintf("%s: %s", fn.Attr("config"), s.ExtWhy))
		}
		return p, fn.Bridge() || s.Forwards()
	}
	redirect := false
	if a := s.ACS; a != nil {
		c, ctl := fmt.Sprintf("%04x", a.Cap), fmt.Sprintf("%04x", a.Ctl)
		p.Cap, p.Ctl, p.Quirk = &c, &ctl, a.Quirk
		redirect = a.Redirects()
	}
	p.Redirect = &redirect
	return p, fn.Bridge() || s.Forwards() || s.ACS != nil
}
