// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Val is one golden value with its provenance. In YAML it is either the bare
// value, which then takes the source of its rule or file, or a mapping:
//
//	mtu_min: {value: 4192, source: "include/rdma/ib_addr.h", why: "…", arch: [amd64], kernel: ">=5.8"}
//
// A value whose scope does not cover the host is left out when layers are
// merged; [Profile.Rows] still shows it.
type Val[T any] struct {
	V      T
	Set    bool // some layer gave a value
	Origin Origin
}

// Origin is where a value comes from and which hosts it is for. In a list of
// alternatives any one suffices; an empty scope covers every host.
type Origin struct {
	Layer    string   `yaml:"-"` // "rdma-400g", "/etc/hostcheck/profile.yaml", "--set"
	Line     int      `yaml:"-"` // in the layer's file; 0 for --set
	Source   string   `yaml:"source" doc:"where the value comes from: document, kernel file, vendor page"`
	Why      string   `yaml:"why" doc:"why the value matters, for people"`
	Arch     []string `yaml:"arch" enum:"amd64,arm64" doc:"architectures that the value is for"`
	CPU      []string `yaml:"cpu" enum:"intel,amd,arm" doc:"processor makers that the value is for"`
	PageSize []string `yaml:"page_size" enum:"4K,16K,64K" doc:"kernel page sizes that the value is for"`
	Kernel   string   `yaml:"kernel" form:"kernel" doc:"kernel releases that the value is for: \">=5.8\", \">=5.8 <6.11\""`
	Intents  []string `yaml:"intent" form:"intent" doc:"intents that the value is for"`

	// Assumed is set when the value applies only because hostcheck assumed the
	// intent: such a value yields at most a warning and never a change.
	Assumed bool `yaml:"-"`
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
	Inventory Inventory    `yaml:"inventory" doc:"what must be there at least"`
	Cmdline   CmdlineVal   `yaml:"cmdline" doc:"what the kernel command line must and must not hold"`
	IOMMU     IOMMUVal     `yaml:"iommu" doc:"the wanted state of the IOMMU"`
	Hugepages HugeVal      `yaml:"hugepages" doc:"the wanted hugetlb pools"`
	Modules   ModuleVal    `yaml:"modules" doc:"the wanted kernel modules"`
	PCIe      PCIeVal      `yaml:"pcie" doc:"the wanted PCI Express settings of RDMA NICs and GPUs"`
	NUMA      NUMAVal      `yaml:"numa" doc:"the wanted place of GPUs and NICs"`
	Sysctl    SysctlVal    `yaml:"sysctl" doc:"the wanted kernel parameters"`
	VXLAN     VXLANVal     `yaml:"vxlan" doc:"the wanted VXLAN interfaces"`
	RDMA      RDMAVal      `yaml:"rdma" doc:"what RDMA needs of the host, beside its NICs"`
	Kubelet   KubeletVal   `yaml:"kubelet" doc:"the wanted configuration of the kubelet, where there is one"`
	System    SystemVal    `yaml:"system" doc:"the wanted state of memory management and CPUs"`
	Migration MigrationVal `yaml:"migration" doc:"how memory is to move between NUMA nodes and tiers"`
	NICs      []NICRule    `yaml:"nics" doc:"rules about network interfaces; for one interface and one key the last rule that gives the key wins"`
}

// Inventory is what must be there at least.
type Inventory struct {
	GPUs  Val[int] `yaml:"gpus" range:"0..1024" doc:"how many GPUs: display, 3D or accelerator functions of NVIDIA or AMD"`
	Rails Val[int] `yaml:"rails" range:"0..1024" doc:"how many physical functions that a nics rule marks as rail"`
}

// CmdlineVal is what the kernel command line must and must not hold.
type CmdlineVal struct {
	Require             []TokenRule `yaml:"require" doc:"tokens that must be there"`
	Forbid              []TokenRule `yaml:"forbid" doc:"tokens that must not be there"`
	IsolatedPercentMax  Val[int]    `yaml:"isolated_percent_max" range:"0..100" doc:"share of the online CPUs that isolcpus= may take, in percent"`
	HousekeepingPerNode Val[int]    `yaml:"housekeeping_per_node" range:"0..4096" doc:"how many CPUs of each node with CPUs must stay unisolated"`
}

// TokenRule is about one token. Token is "name", "name=value", or for options
// that take a comma list "name=word" (has the word, whichever occurrence).
type TokenRule struct {
	ID      string           `yaml:"id" form:"id" doc:"name of the rule; the token in letters, digits, _ and - when left out"`
	Token   string           `yaml:"token" form:"token" doc:"name, name=value, or name=word for options that take a comma list"`
	Drop    bool             `yaml:"drop" doc:"drop the rule that an earlier layer gave"`
	Severe  bool             `yaml:"severe" doc:"of a forbidden token: a failure rather than a warning"`
	Instead string           `yaml:"instead" doc:"what to write instead, for people"`
	Origin  `yaml:",inline"` // source, why and scope
}

// IOMMUVal is the wanted state of the IOMMU.
type IOMMUVal struct {
	State       Val[string]   `yaml:"state" enum:"on,off,any" doc:"whether an IOMMU must be active"`
	DomainTypes Val[[]string] `yaml:"domain_types" enum:"DMA,DMA-FQ,identity,blocked,unmanaged" doc:"allowed group types of the devices that the host itself drives"`
}

// HugeVal is the wanted hugetlb pools.
type HugeVal struct {
	DefaultSize     Val[string] `yaml:"default_size" form:"pagesize" doc:"default hugepage size: 2M, 1G, …"`
	Pools           []PoolRule  `yaml:"pools" doc:"pools that must be there at least"`
	NodePercentMax  Val[int]    `yaml:"node_percent_max" range:"0..100" doc:"share of a node's memory that all pools may take together, in percent; beyond is a failure"`
	NodePercentWarn Val[int]    `yaml:"node_percent_warn" range:"0..100" doc:"likewise; beyond is a warning"`
	Overcommit      Val[bool]   `yaml:"overcommit" doc:"whether surplus pages are acceptable"`
	Mount           Val[bool]   `yaml:"mount" doc:"whether every wanted size must be mounted"`
}

// PoolRule is one wanted pool: PerNode pages on every node with CPUs and
// memory, or Total over the host. Minimums.
type PoolRule struct {
	ID      string   `yaml:"id" form:"id" doc:"name of the rule; the size when left out"`
	Size    string   `yaml:"size" form:"pagesize" doc:"hugepage size: 2M, 1G, …"`
	PerNode Val[int] `yaml:"per_node" range:"0..67108864" doc:"pages on every node that has CPUs and memory"`
	Total   Val[int] `yaml:"total" range:"0..67108864" doc:"pages over the whole host"`
	Drop    bool     `yaml:"drop" doc:"drop the rule that an earlier layer gave"`
	Origin  `yaml:",inline"`
}

// ModuleVal is the wanted kernel modules.
type ModuleVal struct {
	Require Val[[]string] `yaml:"require" form:"module" doc:"modules that must be loaded or built in"`
}

// PCIeVal is the wanted PCI Express settings. What a link should run at needs
// no value: it follows from the two ends.
type PCIeVal struct {
	MRRSMin         Val[int]  `yaml:"mrrs_min" range:"128..4096" doc:"MaxReadReq of RDMA NICs in bytes, at least"`
	RelaxedOrdering Val[bool] `yaml:"relaxed_ordering" doc:"whether RDMA NICs must be allowed relaxed ordering"`
	ASPM            Val[bool] `yaml:"aspm" doc:"whether links of RDMA NICs and GPUs may sleep while idle (active state power management)"`
}

// NUMAVal is the wanted place of GPUs and NICs.
type NUMAVal struct {
	GPUNICMax Val[string] `yaml:"gpu_nic_max" enum:"PIX,PXB,PHB,NODE,SYS" doc:"how far the nearest RDMA NIC of a GPU may be, in the words of nvidia-smi topo -m"`
}

// SysctlVal is the wanted kernel parameters.
type SysctlVal struct {
	Keys         []SysctlRule `yaml:"keys" doc:"rules about kernel parameters; all rules of one parameter must hold"`
	RailRPFilter Val[[]int]   `yaml:"rail_rp_filter" range:"0..2" doc:"allowed effective rp_filter of rails: the larger of conf.all and the interface's own"`
}

// RDMAVal is what RDMA needs of the host, beside its NICs.
type RDMAVal struct {
	Memlock    Val[string] `yaml:"memlock" form:"memlock" doc:"memory that a process may lock, at least: unlimited, or a number with K, M, G or T"`
	Netns      Val[string] `yaml:"netns" enum:"shared,exclusive" doc:"whether RDMA devices are seen in every network namespace or in one"`
	IntervalMS Val[int]    `yaml:"interval_ms" range:"100..8000" doc:"time between the two samples of counters, in milliseconds"`
}

// SysctlRule is about one kernel parameter: limits of a number in it, or the
// values that it may have.
type SysctlRule struct {
	ID     string        `yaml:"id" form:"id" doc:"name of the rule; the key in letters, digits, _ and - when left out"`
	Key    string        `yaml:"key" form:"sysctl" doc:"the parameter with dots: net.core.rmem_max"`
	Field  Val[int]      `yaml:"field" range:"1..16" doc:"of a parameter with several numbers, the one that min and max are about; the first when left out"`
	Min    Val[int]      `yaml:"min" range:"-2147483648..9223372036854775807" doc:"the number, at least"`
	Max    Val[int]      `yaml:"max" range:"-2147483648..9223372036854775807" doc:"the number, at most"`
	OneOf  Val[[]string] `yaml:"one_of" form:"sysctlvalue" doc:"values that it may have, the preferred one first"`
	Advice bool          `yaml:"advice" doc:"a warning rather than a failure"`
	Drop   bool          `yaml:"drop" doc:"drop the rule that an earlier layer gave"`
	Origin `yaml:",inline"`
}

// VXLANVal is the wanted VXLAN interfaces. What MTU they may have needs no
// value: it follows from the interface below.
type VXLANVal struct {
	Devices Val[int]   `yaml:"devices" range:"0..65536" doc:"VXLAN interfaces that are up, at least"`
	Ports   Val[[]int] `yaml:"ports" range:"1..65535" doc:"UDP ports that VXLAN interfaces may use"`
}

// NICRule applies to the interfaces that Match selects. For one interface and
// one key the last rule that gives the key wins: see [Profile.SelectNICs].
type NICRule struct {
	ID          string        `yaml:"id" form:"id" doc:"name of the rule"`
	Match       NICMatch      `yaml:"match" doc:"which interfaces; all given keys must hold"`
	Min         Val[int]      `yaml:"min" range:"0..1024" doc:"how many interfaces the rule must match at least"`
	Rail        Val[bool]     `yaml:"rail" doc:"counts towards inventory.rails"`
	Driver      Val[string]   `yaml:"driver" form:"module" doc:"kernel driver that must be bound"`
	RDMA        Val[bool]     `yaml:"rdma" doc:"an RDMA device must stand on it"`
	Modules     Val[[]string] `yaml:"modules" form:"module" doc:"modules that must be loaded or built in for it"`
	SpeedMbps   Val[int]      `yaml:"speed_mbps" range:"10..1600000" doc:"speed in Mb/s, at least"`
	Carrier     Val[bool]     `yaml:"carrier" doc:"the link must be up"`
	MTUMin      Val[int]      `yaml:"mtu_min" range:"68..65535" doc:"MTU in bytes, at least"`
	MTUMax      Val[int]      `yaml:"mtu_max" range:"68..65535" doc:"MTU in bytes, at most"`
	FirmwareMin Val[string]   `yaml:"firmware_min" form:"version" doc:"firmware version, at least: 28.39.1002"`
	LinkLayer   Val[string]   `yaml:"link_layer" enum:"Ethernet,InfiniBand" doc:"link layer of its RDMA port"`
	GID         Val[string]   `yaml:"gid" enum:"RoCE v2,IB/RoCE v1" doc:"a GID of this type must stand for an address of the interface"`
	Trust       Val[string]   `yaml:"trust" enum:"dscp,pcp" doc:"header field that gives a received packet its priority"`
	DCBX        Val[string]   `yaml:"dcbx" enum:"host,firmware" doc:"who owns the DCBX negotiation"`
	PFC         Val[[]int]    `yaml:"pfc" range:"0..7" doc:"priorities with priority flow control, exactly these"`
	DCQCN       Val[[]int]    `yaml:"dcqcn" range:"0..7" doc:"priorities on which DCQCN must be enabled"`
	CNPDSCP     Val[int]      `yaml:"cnp_dscp" range:"0..63" doc:"DSCP of congestion notification packets, as the switches expect it"`
	CCParams    Val[[]string] `yaml:"cc_params" form:"ccparam" doc:"DCQCN parameters by their debugfs names: np_min_time_between_cnps=4"`
	ToS         Val[int]      `yaml:"tos" range:"0..255" doc:"ToS byte of RoCE traffic, the whole byte: 106 is DSCP 26 and the ECN bits 10"`
	VFs         Val[int]      `yaml:"vfs" range:"0..65535" doc:"virtual functions of it, exactly that many"`
	VFAutoprobe Val[bool]     `yaml:"vf_autoprobe" doc:"whether the host may bind a driver to new virtual functions of it; false where they go to guests"`
	VFDriver    Val[string]   `yaml:"vf_driver" form:"module" doc:"driver that its virtual functions must have: vfio-pci, mlx5_core; none for no driver"`
	RingRXMin   Val[int]      `yaml:"ring_rx_min" range:"1..65536" doc:"entries of each receive ring, at least, or the driver's maximum"`
	RingTXMin   Val[int]      `yaml:"ring_tx_min" range:"1..65536" doc:"entries of each transmit ring, at least, or the driver's maximum"`
	Channels    Val[string]   `yaml:"channels" form:"channels" doc:"combined channels: a number, or local: one for each usable CPU of its node; the driver's maximum where that is less"`
	Features    Val[[]string] `yaml:"features" form:"feature" doc:"offloads: rx-gro=on, rx-lro=off"`
	FEC         Val[[]string] `yaml:"fec" enum:"off,rs,baser,llrs" doc:"acceptable forward error correction of the link; off for optics that need none"`
	IRQLocal    Val[bool]     `yaml:"irq_local" doc:"the interrupts of its queues must be served by CPUs of its own NUMA node"`
	Drop        bool          `yaml:"drop" doc:"drop the rule that an earlier layer gave"`
	Origin      `yaml:",inline"`
}

// NICMatch selects interfaces; all given keys must hold. Globs are those of
// path.Match.
type NICMatch struct {
	Driver string   `yaml:"driver" form:"glob" doc:"glob on the bound driver"`
	PCI    []string `yaml:"pci" form:"pciid" doc:"vendor:device in hex, or a glob such as 15b3:*; any of them"`
	BDF    string   `yaml:"bdf" form:"glob" doc:"glob on the PCI address"`
	Name   string   `yaml:"name" form:"glob" doc:"glob on the interface name"`
	Kind   string   `yaml:"kind" enum:"pf,vf,any" doc:"pf: a device that is no virtual function of another one here (the default); vf; any: virtual interfaces too"`
	Link   string   `yaml:"link" enum:"ethernet,infiniband" doc:"link layer"`
}

func (m NICMatch) empty() bool {
	return m.Driver == "" && len(m.PCI) == 0 && m.BDF == "" && m.Name == "" && m.Kind == "" && m.Link == ""
}

// String is the selector for people: "driver mlx5_core, kind pf".
func (m NICMatch) String() string {
	var s []string
	for _, f := range [...][2]string{{"driver", m.Driver}, {"pci", strings.Join(m.PCI, "|")}, {"bdf", m.BDF}, {"name", m.Name}, {"kind", m.Kind}, {"link", m.Link}} {
		if f[1] != "" {
			s = append(s, f[0]+" "+f[1])
		}
	}
	return strings.Join(s, ", ")
}

// value is what the decoder, the merge and the schema see of a Val of any type.
type value interface {
	isSet() bool
	clear()
	mark(Origin) // set, from there
	origin() *Origin
	elem() reflect.Value // of V, settable
}

func (v *Val[T]) isSet() bool         { return v.Set }
func (v *Val[T]) clear()              { *v = Val[T]{} }
func (v *Val[T]) mark(o Origin)       { v.Set, v.Origin = true, o }
func (v *Val[T]) origin() *Origin     { return &v.Origin }
func (v *Val[T]) elem() reflect.Value { return reflect.ValueOf(&v.V).Elem() }

// rule is an entry of a list that is merged by id.
type rule interface {
	ruleID() string
	dropped() bool
	origin() *Origin
	headline() string        // what it is about, without its values
	check(key string) string // what is wrong with the key once all are there, or ""
	named(id string)         // takes the id, or makes one up when it is ""
}

func (r *TokenRule) ruleID() string  { return r.ID }
func (r *TokenRule) dropped() bool   { return r.Drop }
func (r *TokenRule) origin() *Origin { return &r.Origin }
func (r *TokenRule) headline() string {
	if r.Severe {
		return r.Token + " (severe)"
	}
	return r.Token
}

func (r *TokenRule) check(key string) string {
	if key == "token" && r.Token == "" {
		return "the rule needs a token"
	}
	return ""
}

func (r *TokenRule) named(id string) { r.ID = first(id, r.ID, slug(r.Token)) }

func (r *PoolRule) ruleID() string   { return r.ID }
func (r *PoolRule) dropped() bool    { return r.Drop }
func (r *PoolRule) origin() *Origin  { return &r.Origin }
func (r *PoolRule) headline() string { return "size " + r.Size }

func (r *PoolRule) check(key string) string {
	switch {
	case key == "size" && r.Size == "":
		return "the pool needs a size"
	case key == "per_node" && !r.PerNode.Set && !r.Total.Set:
		return "the pool needs per_node or total"
	}
	return ""
}

func (r *PoolRule) named(id string) {
	r.ID = first(id, r.ID, slug(r.Size))
	if _, err := ParseSize(r.ID); err == nil && r.Size == "" {
		r.Size = r.ID
	}
}

func (r *SysctlRule) ruleID() string   { return r.ID }
func (r *SysctlRule) dropped() bool    { return r.Drop }
func (r *SysctlRule) origin() *Origin  { return &r.Origin }
func (r *SysctlRule) headline() string { return r.Key }

func (r *SysctlRule) check(key string) string {
	switch {
	case key == "key" && r.Key == "":
		return "the rule needs a key"
	case key == "one_of" && !r.Min.Set && !r.Max.Set && !r.OneOf.Set:
		return "the rule needs min, max or one_of"
	case key == "one_of" && r.OneOf.Set && (len(r.OneOf.V) == 0 || r.Min.Set || r.Max.Set):
		return "one_of lists at least one value and stands without min and max"
	case key == "max" && r.Min.Set && r.Max.Set && r.Max.V < r.Min.V:
		return fmt.Sprintf("max %d is below min %d", r.Max.V, r.Min.V)
	}
	return ""
}

func (r *SysctlRule) named(id string) { r.ID = first(id, r.ID, slug(r.Key)) }

func (r *NICRule) ruleID() string   { return r.ID }
func (r *NICRule) dropped() bool    { return r.Drop }
func (r *NICRule) origin() *Origin  { return &r.Origin }
func (r *NICRule) headline() string { return r.Match.String() }

func (r *NICRule) check(key string) string {
	switch {
	case key == "id" && r.ID == "":
		return "the rule needs an id"
	case key == "match" && r.Match.empty():
		return `the rule needs a match, such as {driver: mlx5_core} or {name: "*"}; to change one value of an earlier rule, give a new rule with the same match, for the last one wins`
	case key == "mtu_max" && r.MTUMin.Set && r.MTUMax.Set && r.MTUMax.V < r.MTUMin.V:
		return fmt.Sprintf("mtu_max %d is below mtu_min %d", r.MTUMax.V, r.MTUMin.V)
	}
	return ""
}

func (r *NICRule) named(id string) { r.ID = first(id, r.ID) }

func first(s ...string) string {
	if i := slices.IndexFunc(s, func(s string) bool { return s != "" }); i >= 0 {
		return s[i]
	}
	return ""
}

// slug makes an id of a token: "iommu.passthrough=1" is "iommu_passthrough_1".
func slug(s string) string {
	return strings.Map(func(r rune) rune {
		if isIDRune(r) {
			return r
		}
		return '_'
	}, s)
}

func isIDRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}
