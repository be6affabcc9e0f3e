// SPDX-License-Identifier: Apache-2.0

package profile

// Val is one golden value with its provenance. In YAML it is either the bare
// value, which then takes the source of its section or file, or a mapping:
//
//	mtu_min: {value: 4200, source: "include/rdma/ib_addr.h", why: "…", arch: [amd64], kernel: ">=5.8"}
//
// A value whose scope (arch, cpu, kernel) does not cover the host is left out
// when layers are merged.
type Val[T any] struct {
	V      T
	Set    bool // some layer gave a value
	Origin Origin
}

// Origin is where a value comes from.
type Origin struct {
	Layer  string // "rdma-400g", "/etc/hostcheck/profile.yaml", "--set"
	Line   int    // in the layer's file; 0 for --set
	Source string // document, kernel file, vendor page
	Why    string
	Arch   []string // amd64, arm64; empty: any
	CPU    []string // intel, amd, arm; empty: any
	Kernel string   // ">=5.8", ">=5.8 <6.11"; empty: any
}

// String is the finding's source: layer and reference.
func (o Origin) String() string {
	if o.Source == "" {
		return o.Layer
	}
	return o.Layer + ": " + o.Source
}

// Values are the golden values of all areas. Lists with an id are merged by
// it: a later layer replaces the entry, or drops it with "drop: true". Other
// lists are replaced whole.
type Values struct {
	Inventory Inventory  `yaml:"inventory"`
	Cmdline   CmdlineVal `yaml:"cmdline"`
	IOMMU     IOMMUVal   `yaml:"iommu"`
	Hugepages HugeVal    `yaml:"hugepages"`
	Modules   ModuleVal  `yaml:"modules"`
	NICs      []NICRule  `yaml:"nics"`
}

// Inventory is what must be there at least.
type Inventory struct {
	GPUs  Val[int] `yaml:"gpus"`  // display or 3D controllers of NVIDIA or AMD
	Rails Val[int] `yaml:"rails"` // physical functions that a nics rule marks as rail
}

// CmdlineVal is what the kernel command line must and must not hold.
type CmdlineVal struct {
	Require []TokenRule `yaml:"require"`
	Forbid  []TokenRule `yaml:"forbid"`
	// IsolatedPercentMax bounds the share of online CPUs that isolcpus= takes.
	IsolatedPercentMax Val[int] `yaml:"isolated_percent_max"`
	// HousekeepingPerNode is how many CPUs of each node with CPUs must stay unisolated.
	HousekeepingPerNode Val[int] `yaml:"housekeeping_per_node"`
}

// TokenRule is about one token. Token is "name", "name=value", or for options
// that take a comma list "name=word" (has the word, whichever occurrence).
type TokenRule struct {
	ID      string           `yaml:"id"`
	Token   string           `yaml:"token"`
	Drop    bool             `yaml:"drop"`
	Severe  bool             `yaml:"severe"`  // of a forbidden token: fail rather than warn
	Instead string           `yaml:"instead"` // what to write instead, for people
	Origin  `yaml:",inline"` // source, why, arch, cpu, kernel
}

// IOMMUVal is the wanted state of the IOMMU.
type IOMMUVal struct {
	State       Val[string]   `yaml:"state"`        // "on", "off" or "any"
	DomainTypes Val[[]string] `yaml:"domain_types"` // allowed group types of the host's own devices
}

// HugeVal is the wanted hugetlb pools.
type HugeVal struct {
	DefaultSize     Val[string] `yaml:"default_size"` // "2M", "1G", …
	Pools           []PoolRule  `yaml:"pools"`
	NodePercentMax  Val[int]    `yaml:"node_percent_max"` // share of a node's memory that all pools may take together: beyond is a failure
	NodePercentWarn Val[int]    `yaml:"node_percent_warn"`
	Overcommit      Val[bool]   `yaml:"overcommit"` // whether surplus pages are acceptable
	Mount           Val[bool]   `yaml:"mount"`      // every wanted size is mounted
}

// PoolRule is one wanted pool: PerNode pages on every node with CPUs and
// memory, or Total over the host. Minimums.
type PoolRule struct {
	ID      string   `yaml:"id"`
	Size    string   `yaml:"size"` // "2M", "1G"
	PerNode Val[int] `yaml:"per_node"`
	Total   Val[int] `yaml:"total"`
	Drop    bool     `yaml:"drop"`
	Origin  `yaml:",inline"`
}

// ModuleVal is the wanted kernel modules.
type ModuleVal struct {
	Require Val[[]string] `yaml:"require"` // loaded or built in
}

// NICRule applies to the interfaces that Match selects. For one interface and
// one key the last rule that gives the key wins.
type NICRule struct {
	ID          string        `yaml:"id"`
	Match       NICMatch      `yaml:"match"`
	Min         Val[int]      `yaml:"min"`        // how many interfaces the selector must match at least
	Rail        Val[bool]     `yaml:"rail"`       // counts towards inventory.rails
	Driver      Val[string]   `yaml:"driver"`     // kernel driver that must be bound
	RDMA        Val[bool]     `yaml:"rdma"`       // an RDMA device must stand on it
	Modules     Val[[]string] `yaml:"modules"`    // modules that must be there for it: mlx5_ib, …
	SpeedMbps   Val[int]      `yaml:"speed_mbps"` // at least
	Carrier     Val[bool]     `yaml:"carrier"`
	MTUMin      Val[int]      `yaml:"mtu_min"`
	MTUMax      Val[int]      `yaml:"mtu_max"`
	FirmwareMin Val[string]   `yaml:"firmware_min"`
	Drop        bool          `yaml:"drop"`
	Origin      `yaml:",inline"`
}

// NICMatch selects interfaces; all given fields must match. Globs are those
// of path.Match.
type NICMatch struct {
	Driver string   `yaml:"driver"` // glob on the bound driver
	PCI    []string `yaml:"pci"`    // "15b3:1021" or globs "15b3:*"; any of them
	BDF    string   `yaml:"bdf"`    // glob
	Name   string   `yaml:"name"`   // glob
	Kind   string   `yaml:"kind"`   // "pf" (physical function, the default), "vf", "any"
	Link   string   `yaml:"link"`   // "ethernet", "infiniband"
}
