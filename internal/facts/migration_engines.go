// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// EngineDriver is a driver of copy engines, as page migration may use it.
type EngineDriver struct {
	Name    string
	Tested  bool   // figures of page migration with it are published
	InOrder bool   // one channel finishes in the order of its requests
	Note    string // for people
}

// engineDrivers are the drivers that are known to copy memory. The kernel shows
// no attribute that tells (drivers/dma/dmaengine.c).
var engineDrivers = []EngineDriver{
	{"ptdma", true, true, "AMD's engine for bridges between hosts (NTB); one channel for each device"},
	{"ae4dma", false, true, "AMD; no figures of page migration with it are published"},
	{"idxd", false, false, "Intel DSA; it finishes out of order"},
	{"ioatdma", false, true, "Intel, before DSA; no figures of page migration with it are published"},
	{"sdxi", false, false, "whether it finishes in order is not known"},
	{"plx_dma", false, true, "of a PCIe switch; not for this"},
}

// EngineDriverOf gives the table's entry, or nil.
func EngineDriverOf(name string) *EngineDriver {
	for i := range engineDrivers {
		if engineDrivers[i].Name == name {
			return &engineDrivers[i]
		}
	}
	return nil
}

// slaveOnly are drivers whose channels only serve a device's own FIFO: they copy
// no memory (their dma_cap_mask has no DMA_MEMCPY).
var slaveOnly = []string{"idma64", "dw-edma", "hsu_dma", "hsu_dma_pci", "xilinx-xdma", "xdma"}

// CopyEngine is one device with channels of dmaengine.
type CopyEngine struct {
	Device   string        `json:"device"`    // PCI address, or the name of another device
	Driver   *string       `json:"driver"`    // "ptdma"; "" for none
	Copies   *bool         `json:"copies"`    // it can copy memory, by its driver; null where that is not known
	NUMANode *int          `json:"numa_node"` // null where the firmware names none
	IOMMU    *string       `json:"iommu"`     // type of its group: identity, DMA, DMA-FQ; "" without a group
	Channels []CopyChannel `json:"channels"`  // in the order of their names
	Unknown  Unknown       `json:"unknown,omitempty"`
}

// CopyChannel is one channel of an engine.
type CopyChannel struct {
	Name    string  `json:"name"`    // dma0chan0
	Clients *int64  `json:"clients"` // 0: free
	Unknown Unknown `json:"unknown,omitempty"`
}

// Free counts the channels that nobody holds.
func (e *CopyEngine) Free() (n int) {
	for _, c := range e.Channels {
		if c.Clients != nil && *c.Clients == 0 {
			n++
		}
	}
	return n
}

// DMAClass is where the kernel lists channels.
const DMAClass = "/sys/class/dma"

// readEngines lists the engines by address; none on a kernel without dmaengine.
func readEngines(f *Facts) ([]*CopyEngine, error) {
	h := f.host
	names, err := h.List(DMAClass)
	if err != nil {
		if kernelLacks(h, err) {
			return []*CopyEngine{}, nil
		}
		return nil, err
	}
	var ops []host.Op
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !channelName(n) })
	for _, n := range names {
		dir := path.Join(DMAClass, n)
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: dir + "/in_use"}, host.Op{Kind: host.ReadLink, Path: dir + "/device"},
			host.Op{Kind: host.ReadLink, Path: dir + "/device/driver"}, host.Op{Kind: host.ReadFile, Path: dir + "/device/numa_node"})
	}
	h.Prefetch(ops)
	engines := []*CopyEngine{}
	for _, n := range names {
		dir := path.Join(DMAClass, n)
		dev, err := h.LinkBase(dir + "/device")
		if err != nil {
			dev = n // a channel without a parent is a device of its own
		}
		i := slices.IndexFunc(engines, func(e *CopyEngine) bool { return e.Device == dev })
		if i < 0 {
			i = len(engines)
			engines = append(engines, readEngine(f, dev, dir+"/device", err))
		}
		c := CopyChannel{Name: n}
		if used, err := h.Int(dir + "/in_use"); err != nil {
			c.Unknown.say("clients", whyNot(h, err))
		} else {
			c.Clients = &used
		}
		engines[i].Channels = append(engines[i].Channels, c)
	}
	slices.SortFunc(engines, func(a, b *CopyEngine) int { return strings.Compare(a.Device, b.Device) })
	for _, e := range engines {
		slices.SortFunc(e.Channels, func(a, b CopyChannel) int {
			return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
		})
	}
	return engines, nil
}

func readEngine(f *Facts, device, dir string, linkErr error) *CopyEngine {
	h := f.host
	e := &CopyEngine{Device: device}
	if linkErr != nil {
		for _, field := range []string{"driver", "copies", "numa_node", "iommu"} {
			e.Unknown.say(field, whyNot(h, linkErr))
		}
		return e
	}
	switch driver, err := h.LinkBase(dir + "/driver"); {
	case err == nil:
		e.Driver = &driver
	case kernelLacks(h, err):
		e.Driver = new("")
	default:
		e.Unknown.say("driver", whyNot(h, err))
	}
	switch name := text(e.Driver); {
	case e.Driver == nil:
		e.Unknown.say("copies", e.Unknown["driver"])
	case name == "ioatdma": // the one driver that tells, in the directory of the channel
		e.readIOAT(h, path.Dir(dir))
	case EngineDriverOf(name) != nil:
		e.Copies = new(true)
	case slices.Contains(slaveOnly, name):
		e.Copies = new(false)
	default:
		e.Unknown.say("copies", "whether "+orNone(name)+" copies memory is not known here, and the kernel does not show it")
	}
	switch node, err := h.Int(dir + "/numa_node"); {
	case err == nil && node >= 0 && node < maxNodes:
		e.NUMANode = new(int(node))
	case err == nil, kernelLacks(h, err):
		e.Unknown.say("numa_node", "the firmware names none (-1)")
	default:
		e.Unknown.say("numa_node", whyNot(h, err))
	}
	switch kind, err := h.Text(dir + "/iommu_group/type"); {
	case err == nil:
		e.IOMMU = &kind
	case kernelLacks(h, err):
		e.IOMMU = new("")
	default:
		e.Unknown.say("iommu", whyNot(h, err))
	}
	return e
}

// readIOAT reads quickdata/cap, "copy pq xor intr".
func (e *CopyEngine) readIOAT(h *host.Host, channel string) {
	caps, err := h.Text(channel + "/quickdata/cap")
	if err != nil {
		e.Unknown.say("copies", whyNot(h, err))
		return
	}
	e.Copies = new(slices.Contains(strings.Fields(caps), "copy"))
}

func orNone(s string) string {
	if s == "" {
		return "a device without a driver"
	}
	return s
}

// channelName reports whether a name is one of dmaengine's, "dma0chan0".
func channelName(s string) bool {
	rest, ok := strings.CutPrefix(s, "dma")
	dev, ch, found := strings.Cut(rest, "chan")
	_, devOK := numbered(dev, "")
	_, chOK := numbered(ch, "")
	return ok && found && devOK && chOK
}
