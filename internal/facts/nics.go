// SPDX-License-Identifier: Apache-2.0

package facts

import "encoding/json"

// Rings is a NIC's ring sizes (ETHTOOL_GRINGPARAM); entries.
type Rings struct {
	RX    int `json:"rx"`
	TX    int `json:"tx"`
	RXMax int `json:"rx_max"`
	TXMax int `json:"tx_max"`
}

// Channels is a NIC's queue counts (ETHTOOL_GCHANNELS).
type Channels struct {
	RX, TX, Combined, Other             int
	RXMax, TXMax, CombinedMax, OtherMax int
}

// NIC is one network interface that is a device, or that stacks on one.
// Interfaces without a device (lo, bridges, VLANs) are listed with an empty BDF.
type NIC struct {
	Name      string          `json:"name"`
	BDF       *string         `json:"bdf"`      // "" for a virtual interface
	Driver    *string         `json:"driver"`   // of the PCI (or bus) device
	Flavour   *string         `json:"flavour"`  // "in-tree", "ofed" (an out-of-tree build with a version), "" when it cannot be told
	Firmware  *string         `json:"firmware"` // ethtool -i
	SpeedMbps *int            `json:"speed_mbps"`
	MTU       *int            `json:"mtu"`
	Carrier   *bool           `json:"carrier"`   // nil while the interface is down
	OperState *string         `json:"operstate"` // up, down, unknown, …
	AdminUp   *bool           `json:"admin_up"`  // IFF_UP of flags
	NUMANode  *int            `json:"numa_node"`
	Master    *string         `json:"master"` // "" for none
	Type      *int            `json:"type"`   // ARPHRD_*: 1 Ethernet, 32 InfiniBand, 772 loopback
	MAC       *string         `json:"mac"`
	VF        bool            `json:"vf"`
	PrivFlags map[string]bool `json:"priv_flags"`
	Rings     *Rings          `json:"rings"`
	Channels  *Channels       `json:"channels"`
	Features  map[string]bool `json:"features"`
	Unknown   Unknown         `json:"unknown,omitempty"`
}

// Physical reports whether the interface is a device of a bus.
func (n *NIC) Physical() bool { return n.BDF != nil && *n.BDF != "" }

// NICs is all network interfaces, sorted by name.
type NICs struct {
	List []*NIC
	Why  string // why List is nil
}

// MarshalJSON writes the list, null when it could not be read.
func (n *NICs) MarshalJSON() ([]byte, error) { return json.Marshal(n.List) }

// NICs gives the host's network interfaces.
func (f *Facts) NICs() *NICs { return f.nics.get(f, decodeNICs) }

func decodeNICs(f *Facts) *NICs { panic("not written yet") }
