// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Distance is how far two PCI functions are from each other, in the words of
// nvidia-smi topo -m and NCCL (src/graph/topo.h), computed from sysfs alone.
type Distance string

// The distances, the nearest first.
const (
	PIX  Distance = "PIX"  // one switch between, or one device
	PXB  Distance = "PXB"  // several switches, no host bridge
	PHB  Distance = "PHB"  // one host bridge
	NODE Distance = "NODE" // several host bridges of one NUMA node
	SYS  Distance = "SYS"  // the link between NUMA nodes
)

// Distances lists all, the nearest first.
var Distances = []Distance{PIX, PXB, PHB, NODE, SYS}

// Farther reports whether d is farther than other.
func (d Distance) Farther(other Distance) bool {
	return slices.Index(Distances, d) > slices.Index(Distances, other)
}

// Pair is a GPU and a network function.
type Pair struct {
	GPU      string    `json:"gpu"` // BDF
	NIC      string    `json:"nic"`
	Distance *Distance `json:"distance"`
	Unknown  Unknown   `json:"unknown,omitempty"`
}

// Topology is which GPUs and network functions the host has, and how far from
// each other they are. Virtual functions stand where their physical one does
// and are left out.
type Topology struct {
	GPUs    []string `json:"gpus"` // BDFs, in order
	NICs    []string `json:"nics"`
	Pairs   []Pair   `json:"pairs"` // every GPU with every NIC, by GPU
	Devices []Placed `json:"devices"`
	Unknown Unknown  `json:"unknown,omitempty"`
}

// Placed is a GPU or a network function, and where it stands.
type Placed struct {
	BDF      string   `json:"bdf"`
	GPU      bool     `json:"gpu"`
	Driver   *string  `json:"driver"`    // "" when none is bound
	Names    []string `json:"names"`     // network interfaces
	RDMA     []string `json:"rdma"`      // RDMA devices
	NUMANode *int     `json:"numa_node"` // nil when the firmware gave none
	Bridges  []string `json:"bridges"`   // BDFs of those above, the nearest first; nil when not all are known
	VFs      int      `json:"vfs"`       // how many virtual functions it has
	Unknown  Unknown  `json:"unknown,omitempty"`
}

// Topology gives the distances between GPUs and NICs.
func (f *Facts) Topology() *Topology { return f.topology.get(f, decodeTopology) }

func decodeTopology(f *Facts) *Topology {
	bus, t := f.PCI(), new(Topology)
	if bus.Functions == nil {
		for _, field := range []string{"gpus", "nics", "pairs", "devices"} {
			t.Unknown.say(field, bus.Why)
		}
		return t
	}
	t.GPUs, t.NICs, t.Pairs = []string{}, []string{}, []Pair{}
	t.Devices = []Placed{}
	for _, fn := range bus.Functions {
		switch {
		case fn.VF():
		case fn.GPU():
			t.GPUs = append(t.GPUs, fn.BDF)
			t.Devices = append(t.Devices, standing(f, fn))
		case fn.Network():
			t.NICs = append(t.NICs, fn.BDF)
			t.Devices = append(t.Devices, standing(f, fn))
		}
	}
	for _, gpu := range t.GPUs {
		for _, nic := range t.NICs {
			p := Pair{GPU: gpu, NIC: nic}
			if d, why := f.Distance(bus.At(gpu), bus.At(nic)); why != "" {
				p.Unknown.say("distance", why)
			} else {
				p.Distance = &d
			}
			t.Pairs = append(t.Pairs, p)
		}
	}
	return t
}

func standing(f *Facts, fn *PCIFunction) Placed {
	p := Placed{
		BDF: fn.BDF, GPU: fn.GPU(), Driver: fn.Driver, NUMANode: fn.NUMANode, VFs: len(fn.VFs),
		Names: []string{}, RDMA: []string{},
	}
	for _, field := range []string{"driver", "numa_node"} {
		if why := fn.Unknown[field]; why != "" {
			p.Unknown.say(field, why)
		}
	}
	if above, known := f.PCI().Above(fn); known {
		p.Bridges = []string{}
		for _, port := range above {
			p.Bridges = append(p.Bridges, port.BDF)
		}
	} else {
		p.Unknown.say("bridges", "the bridges above "+fn.BDF+" are not all known")
	}
	if p.GPU {
		return p
	}
	for _, n := range f.NICs().Of(fn.BDF) {
		p.Names = append(p.Names, n.Name)
	}
	for _, d := range f.RDMA().At(fn.BDF) {
		p.RDMA = append(p.RDMA, d.Device)
	}
	return p
}

// Distance tells how far two functions are from each other, or why that is not
// known. On a host with one NUMA node all host bridges are of that node,
// whatever the firmware says.
func (f *Facts) Distance(x, y *PCIFunction) (d Distance, why string) {
	b := f.PCI()
	above, known := b.Above(x)
	other, known2 := b.Above(y)
	switch {
	case !known:
		return "", "the bridges above " + x.BDF + " are not all known"
	case !known2:
		return "", "the bridges above " + y.BDF + " are not all known"
	}
	for i, port := range above {
		k := slices.Index(other, port)
		if k < 0 {
			continue
		}
		n := 0 // switches that the way goes through
		for _, is := range [][]bool{Switches(above)[:i+1], Switches(other)[:k]} {
			for _, s := range is {
				if s {
					n++
				}
			}
		}
		if n > 1 {
			return PXB, ""
		}
		return PIX, ""
	}
	if samePlace(x.BDF, y.BDF) { // functions of one device on a root bus
		return PIX, ""
	}
	if a, b := rootBus(x), rootBus(y); a != "" && a == b {
		return PHB, ""
	}
	if len(f.NUMA().Nodes) == 1 {
		return NODE, ""
	}
	for _, fn := range []*PCIFunction{x, y} {
		if fn.NUMANode == nil {
			return "", fmt.Sprintf("%s and %s are below different host bridges, and the NUMA node of %s is not known", x.BDF, y.BDF, fn.BDF)
		}
	}
	if *x.NUMANode == *y.NUMANode {
		return NODE, ""
	}
	return SYS, ""
}

// Switches tells for each bridge above a function, the nearest first, whether it
// is the upper port of a switch and so counts as one. An unprivileged reader is
// not told the type of a port: then a lower and an upper port take turns up to
// the root port. A way of an even number of bridges has switches that are one
// entry each, as topology files for NCCL have them.
func Switches(above []*PCIFunction) []bool {
	is, typed := make([]bool, len(above)), true
	for i, port := range above {
		typed = typed && port.Space != nil && port.Space.Express != nil
		is[i] = i%2 == 1 || len(above)%2 == 0
	}
	for i, port := range above {
		if typed {
			is[i] = port.Space.PortType() == portTypes[portUpstream]
		}
	}
	return is
}

func samePlace(a, b string) bool {
	return a[:strings.LastIndex(a, ".")] == b[:strings.LastIndex(b, ".")]
}

// rootBus is the directory of the host bridge above a function: "pci0000:16".
func rootBus(fn *PCIFunction) string {
	for dir := fn.Path; len(dir) > 1; dir = path.Dir(dir) {
		if name := path.Base(dir); strings.HasPrefix(name, "pci") && strings.Contains(name, ":") {
			return name
		}
	}
	return ""
}
