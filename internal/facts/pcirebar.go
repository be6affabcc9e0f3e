// SPDX-License-Identifier: Apache-2.0

package facts

// extRebar is the Resizable BAR capability.
const extRebar = 0x0015

// ResizableBAR is one base address register whose size the firmware or the
// kernel chooses.
type ResizableBAR struct {
	BAR       int
	SizeMB    int64 // as it is
	LargestMB int64 // of the sizes that the device offers
}

// rebar decodes the Resizable BAR capability (PCI_REBAR_* of
// include/uapi/linux/pci_regs.h): pairs of what is offered, bit 4 for 1 MB and
// on, and what is chosen. A pair that contradicts itself is left out.
func (s *PCISpace) rebar(b []byte) {
	at := s.find(s.Ext, extRebar)
	if at == 0 || at+0xc > len(b) {
		return
	}
	n := int(u32(b, at+8) >> 5 & 7)
	for i := range n {
		offered, ctl := at+4+8*i, at+8+8*i
		if ctl+4 > len(b) {
			return
		}
		sizes, c := u32(b, offered)>>4, u32(b, ctl)
		bar := ResizableBAR{BAR: int(c & 7), SizeMB: 1 << (c >> 8 & 0x3f)}
		for code := range 28 {
			if sizes&(1<<code) != 0 {
				bar.LargestMB = 1 << code
			}
		}
		if bar.BAR < 6 && c>>8&0x3f < 28 && bar.LargestMB > 0 {
			s.Resizable = append(s.Resizable, bar)
		}
	}
}
