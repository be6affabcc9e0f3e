// SPDX-License-Identifier: Apache-2.0

package facts

// IOMMUGroup is one isolation group.
type IOMMUGroup struct {
	ID       int      `json:"id"`
	Type     *string  `json:"type"`     // DMA, DMA-FQ, identity, blocked, unmanaged, …
	Devices  []string `json:"devices"`  // BDFs, or platform device names
	Reserved []string `json:"reserved"` // regions of type direct (RMRR) as "0x… 0x… direct"; nil when unreadable
	Unknown  Unknown  `json:"unknown,omitempty"`
}

// IOMMU is what the kernel really does, whatever its command line says.
type IOMMU struct {
	Active  *bool        `json:"active"` // at least one unit is registered
	Units   []string     `json:"units"`  // names in /sys/class/iommu: dmar0, ivhd0, smmu3.…
	Groups  []IOMMUGroup `json:"groups"`
	Unknown Unknown      `json:"unknown,omitempty"`

	byDevice map[string]*IOMMUGroup
}

// Group gives the group of a device, or nil.
func (i *IOMMU) Group(bdf string) *IOMMUGroup { return i.byDevice[bdf] }

// IOMMU gives the host's IOMMU state.
func (f *Facts) IOMMU() *IOMMU { return f.iommu.get(f, decodeIOMMU) }

func decodeIOMMU(f *Facts) *IOMMU { panic("not written yet") }
