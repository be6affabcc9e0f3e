// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"cmp"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

// match says which hosts a layer is for. All given keys must hold.
type match struct {
	Arch      []string        `yaml:"arch" enum:"amd64,arm64" doc:"architectures"`
	CPU       []string        `yaml:"cpu" enum:"intel,amd,arm" doc:"processor makers"`
	PageSize  []string        `yaml:"page_size" enum:"4K,16K,64K" doc:"kernel page sizes"`
	Kernel    string          `yaml:"kernel" form:"kernel" doc:"kernel releases"`
	Virtual   *bool           `yaml:"virtual" doc:"true: below a hypervisor; false: on bare metal"`
	Cloud     []string        `yaml:"cloud" enum:"azure" doc:"clouds"`
	Functions []functionMatch `yaml:"functions" doc:"PCI functions that must be there; any one entry suffices"`
}

func (m *match) empty() bool { return reflect.ValueOf(m).Elem().IsZero() }

// functionMatch selects PCI functions. All given keys must hold for one function.
type functionMatch struct {
	PCI     []string `yaml:"pci" form:"pciid" doc:"vendor:device in hex, or a glob such as 15b3:*; any of them"`
	Driver  []string `yaml:"driver" form:"glob" doc:"globs on the bound driver; any of them"`
	Kind    string   `yaml:"kind" enum:"pf,vf,any" doc:"pf: no virtual function of another one here (the default)"`
	Speed   int      `yaml:"speed_mbps" range:"10..1600000" doc:"speed of its interface in Mb/s, at least; one that reports none counts"`
	Min     int      `yaml:"min" range:"1..1024" doc:"how many functions, at least (default 1)"`
	Comment string   `yaml:"comment" doc:"what these are, for people"`
}

func (m *functionMatch) check(key string) string {
	if key == "pci" && len(m.PCI) == 0 && len(m.Driver) == 0 {
		return "the entry needs pci or driver"
	}
	return ""
}

// Detect looks at a host and says which embedded layers are for it, and which
// intent its state suggests. It reads no speed unless a layer asks for one.
func Detect(f *facts.Facts) Platform {
	k := f.Kernel()
	p := Platform{
		Arch:       deref(k.Arch),
		Release:    deref(k.Release),
		PageSize:   deref(k.PageSize),
		Hypervisor: k.Hypervisor,
	}
	p.CPU = maker(p.Arch, deref(k.Vendor))
	p.Cloud = cloud(f.Host(), p.Hypervisor)
	bus := f.PCI()
	p.FunctionsWhy = bus.Why
	for _, fn := range bus.Functions {
		if fn.Vendor == nil || fn.Device == nil || fn.Class == nil {
			continue
		}
		g := Function{BDF: fn.BDF, ID: *fn.Vendor + ":" + *fn.Device, Class: *fn.Class, Driver: deref(fn.Driver), VF: deref(fn.PhysFn) != ""}
		if g.isNetwork() || g.isGPU() || g.ID == cx8DMA {
			p.Functions = append(p.Functions, g)
		}
	}
	var speeds map[string]int
	p.choose(func(bdf string) int {
		if speeds == nil {
			speeds = map[string]int{}
			for _, n := range f.NICs().List {
				if n.Physical() && n.SpeedMbps != nil {
					speeds[*n.BDF] = max(speeds[*n.BDF], *n.SpeedMbps)
				}
			}
		}
		return speeds[bdf]
	})
	return p
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// maker gives the processor's maker from the vendor of /proc/cpuinfo. Hygon's
// processors have AMD's IOMMU (drivers/iommu/amd).
func maker(arch, vendor string) string {
	switch {
	case arch == "arm64":
		return "arm"
	case vendor == "GenuineIntel":
		return "intel"
	case vendor == "AuthenticAMD", vendor == "HygonGenuine":
		return "amd"
	case vendor != "":
		return "other"
	}
	return ""
}

// azureTag is the chassis asset tag of every Azure machine; a Hyper-V host
// elsewhere has another (cloud-init, sources/azure/identity.py).
const azureTag = "7783-7084-3265-9085-8269-3286-77"

func cloud(h *host.Host, hypervisor *string) string {
	tag, err := h.Text("/sys/class/dmi/id/chassis_asset_tag")
	if err == nil {
		if strings.TrimSpace(tag) == azureTag {
			return "azure"
		}
		return ""
	}
	if deref(hypervisor) == "hyperv" {
		return "azure" // the tag cannot be read; likely enough to choose a layer by
	}
	return ""
}

// cx8DMA is the DMA function of a ConnectX-8 that sits beside a GPU in its
// own segment on Grace hosts (rdma-core, kernel-boot/rdma_topo).
const cx8DMA = "15b3:2100"

func (f Function) isNetwork() bool { return strings.HasPrefix(f.Class, "02") }

// isGPU: display controllers (class 03) and processing accelerators (12, AMD
// Instinct MI300) of NVIDIA and AMD. Processors' own graphics count too.
func (f Function) isGPU() bool {
	return (strings.HasPrefix(f.Class, "03") || strings.HasPrefix(f.Class, "1200")) &&
		(strings.HasPrefix(f.ID, "10de:") || strings.HasPrefix(f.ID, "1002:"))
}

// choose judges every embedded layer and assumes an intent. speed gives the
// speed of a function's interface in Mb/s, 0 when it reports none.
func (p *Platform) choose(speed func(bdf string) int) {
	p.Layers = nil
	for _, f := range embeddedFiles() {
		var v verdict
		switch {
		case f.Layer == "base":
			v = verdict{ok: true, why: "every host"}
		case f.Match.empty():
			v.why = "no hardware tells it; choose it by name"
		default:
			v = p.matches(&f.Match, speed)
		}
		p.Layers = append(p.Layers, LayerMatch{f.Name, f.Layer, v.ok, v.why})
	}
	p.Intent, p.IntentWhy = p.assume()
}

func (p *Platform) matches(m *match, speed func(string) int) verdict {
	vs := p.scope(m.Arch, m.CPU, m.PageSize, m.Kernel)
	if m.Virtual != nil {
		vs = append(vs, p.virtual(bool(*m.Virtual)))
	}
	if len(m.Cloud) > 0 {
		vs = append(vs, oneOf("the cloud", m.Cloud, first(p.Cloud, "none that is known")))
	}
	if v := all(vs); !v.ok {
		return v // do not read what cannot change it
	}
	if len(m.Functions) > 0 {
		vs = append(vs, p.functions(m.Functions, speed))
	}
	return all(vs)
}

func (p *Platform) virtual(want bool) verdict {
	switch {
	case p.Hypervisor == nil:
		return verdict{unknown: true, why: "whether this is a virtual machine is not known"}
	case *p.Hypervisor == "":
		return verdict{ok: !want, why: "this is bare metal"}
	}
	return verdict{ok: want, why: "this is a virtual machine (" + *p.Hypervisor + ")"}
}

// functions judges the alternatives in order; the first that holds says why.
func (p *Platform) functions(alternatives []functionMatch, speed func(string) int) verdict {
	if p.FunctionsWhy != "" && len(p.Functions) == 0 {
		return verdict{unknown: true, why: "the PCI functions are not known: " + p.FunctionsWhy}
	}
	var no []string
	for i := range alternatives {
		v := p.function(&alternatives[i], speed)
		if v.ok {
			return v
		}
		no = append(no, v.why)
	}
	return verdict{why: strings.Join(slices.Compact(no), "; ")}
}

func (p *Platform) function(m *functionMatch, speed func(string) int) verdict {
	what := m.Comment
	if what == "" {
		what = strings.TrimSpace(strings.Join(m.PCI, "|") + " " + strings.Join(m.Driver, "|"))
	}
	var hit []string
	seen, fastest := 0, 0
	for _, f := range p.Functions {
		if !m.selects(f) {
			continue
		}
		seen++
		if m.Speed > 0 {
			mbps := f.Speed
			if mbps == 0 {
				mbps = speed(f.BDF)
			}
			fastest = max(fastest, mbps)
			if mbps > 0 && mbps < m.Speed {
				continue
			}
		}
		hit = append(hit, f.BDF)
	}
	need := max(1, m.Min)
	switch {
	case len(hit) >= need:
		more := ""
		if len(hit) > 1 {
			more = fmt.Sprintf(" and %d more", len(hit)-1)
		}
		return verdict{ok: true, why: what + ": " + hit[0] + more}
	case seen >= need:
		return verdict{why: fmt.Sprintf("%s: there are %d, but the fastest runs at %d Mb/s, below %d", what, seen, fastest, m.Speed)}
	case seen > 0:
		return verdict{why: fmt.Sprintf("%s: %d of the %d needed", what, seen, need)}
	}
	return verdict{why: "no " + what}
}

func (m *functionMatch) selects(f Function) bool {
	kind := cmp.Or(m.Kind, "pf")
	return (kind == "any" || f.VF == (kind == "vf")) &&
		(len(m.PCI) == 0 || anyGlob(m.PCI, f.ID)) &&
		(len(m.Driver) == 0 || f.Driver != "" && anyGlob(m.Driver, f.Driver))
}

func anyGlob(globs []string, s string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { ok, _ := path.Match(g, s); return ok })
}

// assume guesses the intent from what runs, and says from what.
func (p *Platform) assume() (intent, why string) {
	if p.Hypervisor == nil {
		return "", "whether this is a virtual machine is not known"
	}
	if *p.Hypervisor != "" {
		return "guest", "this is a virtual machine (" + *p.Hypervisor + ")"
	}
	if p.FunctionsWhy != "" && len(p.Functions) == 0 {
		return "", "the PCI functions are not known: " + p.FunctionsWhy
	}
	var gpus, vfioGPUs, vfioNICs, vfioVFs, dma []string
	for _, f := range p.Functions {
		vfio := f.Driver == "vfio-pci"
		switch {
		case f.ID == cx8DMA:
			dma = append(dma, f.BDF)
		case f.isGPU() && vfio:
			vfioGPUs = append(vfioGPUs, f.BDF)
		case f.isGPU():
			gpus = append(gpus, f.BDF)
		case vfio && f.VF:
			vfioVFs = append(vfioVFs, f.BDF)
		case vfio:
			vfioNICs = append(vfioNICs, f.BDF)
		}
	}
	rails := slices.ContainsFunc(p.Layers, func(l LayerMatch) bool { return l.Name == "rdma-400g" && l.Matches })
	nics := append(slices.Clone(vfioVFs), vfioNICs...)
	switch {
	case len(vfioGPUs) > 0 && len(nics) > 0:
		return "vm-gpudirect", fmt.Sprintf("GPU %s and NIC %s are bound to vfio-pci", vfioGPUs[0], nics[0])
	case len(vfioVFs) > 0:
		return "sriov-tenant", fmt.Sprintf("the virtual function %s is bound to vfio-pci", vfioVFs[0])
	case len(dma) > 0 && p.Arch == "arm64" && len(gpus) > 0:
		return "grace-direct-nic", fmt.Sprintf("an arm64 host with the ConnectX-8 DMA function %s beside GPU %s", dma[0], gpus[0])
	case len(gpus) > 0 && rails:
		return "baremetal-gpudirect", fmt.Sprintf("bare metal with GPU %s and NICs of the 400G class", gpus[0])
	}
	return "", "bare metal without functions bound to vfio-pci, and without GPUs beside NICs of the 400G class: the hardware suggests none"
}
