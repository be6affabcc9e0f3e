// SPDX-License-Identifier: Apache-2.0

package facts

import "strings"

// ACSKernel says how much of pci=config_acs= and disable_acs_redir= a kernel does.
type ACSKernel int

// The kinds of kernels, oldest first.
const (
	ACSNotKnown  ACSKernel = iota
	ACSRedirOnly           // before 6.11: disable_acs_redir= alone
	ACSFirstPort           // config_acs= reaches the first port of its list, clears no bit, and disable_acs_redir= is broken
	ACSWhole               // with 9cf8a952d57b ("PCI/ACS: Fix 'pci=config_acs=' parameter")
)

// ACSKernelOf tells it by the release: a distribution that took a commit back
// to an older one is not seen.
func ACSKernelOf(release string) ACSKernel {
	v := ReleaseNumbers(release)
	before := func(other string) bool { return CompareVersions(v, other) < 0 }
	switch {
	case v == "":
		return ACSNotKnown
	case before("6.11"):
		return ACSRedirOnly
	case before("6.12.23"), !before("6.13") && before("6.13.11"), !before("6.14") && before("6.14.2"):
		return ACSFirstPort
	}
	return ACSWhole
}

// ACSPattern takes a pattern such as "xx000x0" apart into the bits that must be
// on and off; the last letter is bit 0.
func ACSPattern(pattern string) (on, off uint16) {
	for i, c := range pattern {
		bit := uint16(1) << (len(pattern) - 1 - i)
		switch c {
		case '1':
			on |= bit
		case '0':
			off |= bit
		}
	}
	return on, off
}

// ACSDevice takes an entry of such a list apart: "xx000x0@0000:17:00.0". An
// entry of disable_acs_redir= has no pattern.
func ACSDevice(entry string) (pattern, device string) {
	pattern, device, ok := strings.Cut(entry, "@")
	if !ok {
		return "", entry
	}
	return pattern, device
}

// SameBDF reports whether two addresses are one; the domain 0000 may be left out.
func SameBDF(a, b string) bool {
	return strings.TrimPrefix(a, "0000:") == strings.TrimPrefix(b, "0000:")
}

// ACSAfter gives the control bits that a port has after a boot with command
// line c: those that it has now, but for what the kernel is told (pci_enable_acs,
// __pci_config_acs; devices that are not named by their address are not seen).
func (f *Facts) ACSAfter(c *Cmdline, bdf string, a *ACS) uint16 {
	ctl := a.Ctl
	if c.Effects.ACS == nil {
		return ctl
	}
	kernel := ACSNotKnown
	if r := f.Kernel().Release; r != nil {
		kernel = ACSKernelOf(*r)
	}
	for option := range strings.FieldsSeq(*c.Effects.ACS) {
		name, list, _ := strings.Cut(option, "=")
		works := map[string]bool{"config_acs": kernel == ACSFirstPort, "disable_acs_redir": kernel == ACSRedirOnly}[name] || kernel == ACSWhole
		for i, entry := range strings.Split(list, ";") {
			pattern, device := ACSDevice(entry)
			if !works || !SameBDF(device, bdf) || i > 0 && kernel == ACSFirstPort {
				continue
			}
			on, off := ACSPattern(pattern)
			switch {
			case name == "disable_acs_redir" || a.Quirk != "": // such a port has its redirection taken away, whatever the pattern says
				on, off = 0, ACSRedirecting
			case kernel == ACSFirstPort:
				off = 0
			}
			ctl = (ctl&^off | on) & a.Cap
			break
		}
	}
	return ctl
}

// As reports whether control bits are as a pattern has them. A bit that the
// capability lacks counts as on, as the kernel takes it; DirectTrans does not.
func (a *ACS) As(ctl uint16, pattern string) bool {
	on, off := ACSPattern(pattern)
	must := on & (a.Cap | ACSEgressControl | ACSDirectTranslated)
	return ctl&must == must && ctl&off == 0
}
