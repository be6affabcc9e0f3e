// SPDX-License-Identifier: Apache-2.0

package facts

import "encoding/json"

// PCILink is a PCIe link's state; speeds in GT/s, widths in lanes.
type PCILink struct {
	SpeedGTs    *float64 `json:"speed_gts"`
	Width       *int     `json:"width"`
	MaxSpeedGTs *float64 `json:"max_speed_gts"`
	MaxWidth    *int     `json:"max_width"`
}

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

// PCI gives the host's PCI functions.
func (f *Facts) PCI() *PCIBus { return f.pci.get(f, decodePCI) }

func decodePCI(f *Facts) *PCIBus { panic("not written yet") }
