// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// Taken is one value of a host in the words of a profile.
type Taken struct {
	Section string // "system", "cmdline.require", "nics", …
	Entry   string // of a list: the YAML that begins the entry, "token: iommu=pt"; "" elsewhere
	Key     string // "" where the entry itself is the value
	Value   string // YAML in flow style; "" when Why says why there is none
	Why     string
}

// Sample is what a profile could want of one good host.
type Sample struct {
	Name     string // of the host
	Platform Platform
	Intent   string            // as stated; "" for none
	Unknown  map[string]string // section -> why nothing of it is known
	Taken    []Taken
}

func (s *Sample) take(section, entry, key, value string) {
	s.Taken = append(s.Taken, Taken{Section: section, Entry: entry, Key: key, Value: value})
}

// lack notes that a value has no one answer on this host.
func (s *Sample) lack(section, entry, key, why string) {
	s.Taken = append(s.Taken, Taken{Section: section, Entry: entry, Key: key, Why: why})
}

func (s *Sample) unknown(section, why string) { s.Unknown[section] = first(why, "not known") }

// Take reads from a host what a profile can want. p is what the host is judged
// by now: which interfaces are rails, and which kernel parameters matter.
func Take(name string, f *facts.Facts, platform Platform, p *Profile) *Sample {
	s := &Sample{Name: name, Platform: platform, Unknown: map[string]string{}}
	if p.IntentSource == Stated {
		s.Intent = p.Intent
	}
	s.inventory(f, p)
	s.cmdline(f, p)
	s.iommu(f)
	s.hugepages(f)
	s.modules(f)
	s.system(f)
	s.sysctl(f, p)
	s.nics(f, p)
	s.sayable()
	return s
}

func (s *Sample) inventory(f *facts.Facts, p *Profile) {
	bus := f.PCI()
	if bus.Why != "" {
		s.unknown("inventory", bus.Why)
		return
	}
	gpus := 0
	for _, fn := range bus.Functions {
		if fn.Class == nil || fn.Vendor == nil {
			s.unknown("inventory", fn.BDF+": its kind is not known")
			return
		}
		if fn.GPU() && !fn.VF() {
			gpus++
		}
	}
	if gpus > 0 {
		s.take("inventory", "", "gpus", strconv.Itoa(gpus))
	}
	rails := 0
	for _, w := range p.SelectNICs(f.NICs(), bus).Wants {
		if w.Rule.Rail.V && !w.NIC.VF {
			rails++
		}
	}
	if rails > 0 {
		s.take("inventory", "", "rails", strconv.Itoa(rails))
	}
}

// tuningTokens are the kernel parameters that say how a host is tuned, as
// opposed to where its disks and consoles are.
var tuningTokens = []string{
	"amd_iommu", "amd_pstate", "idle", "intel_idle.max_cstate", "intel_iommu", "intel_pstate", "iommu", "iommu.passthrough", "iommu.strict",
	"irqaffinity", "isolcpus", "mitigations", "nohz_full", "numa_balancing", "pci", "pcie_aspm", "processor.max_cstate", "rcu_nocbs",
	"skew_tick", "transparent_hugepage", "tsc",
}

func (s *Sample) cmdline(f *facts.Facts, p *Profile) {
	const section = "cmdline.require"
	c := f.Cmdline()
	if c.Text == nil {
		s.unknown(section, c.Unknown["text"])
		return
	}
	for _, t := range c.Tokens {
		forbidden := slices.ContainsFunc(p.Cmdline.Forbid, func(r TokenRule) bool { return r.Token == t.Raw })
		if slices.Contains(tuningTokens, t.Name) && !forbidden && forms["token"].valid(t.Raw) == nil {
			s.take(section, "token: "+Quoted(t.Raw), "", "there")
		}
	}
}

func (s *Sample) iommu(f *facts.Facts) {
	switch i := f.IOMMU(); {
	case i.Active == nil:
		s.unknown("iommu", i.Unknown["active"])
	case *i.Active:
		s.take("iommu", "", "state", "on")
	default:
		s.take("iommu", "", "state", "off")
	}
}

func (s *Sample) hugepages(f *facts.Facts) {
	h := f.Hugepages()
	if h.Global == nil {
		s.unknown("hugepages.pools", h.Unknown["global"])
		return
	}
	for _, g := range h.Global {
		entry := "size: " + sizeText(g.SizeKB)
		if g.Total == nil {
			s.lack("hugepages.pools", entry, "total", g.Unknown["total"])
			continue
		}
		if *g.Total == 0 {
			continue
		}
		var nodes []int64
		for _, n := range h.Pools {
			if n.SizeKB == g.SizeKB && n.Total != nil {
				nodes = append(nodes, *n.Total)
			}
		}
		if len(nodes) > 0 && nodes[0] > 0 && !slices.ContainsFunc(nodes, func(n int64) bool { return n != nodes[0] }) {
			s.take("hugepages.pools", entry, "per_node", strconv.FormatInt(nodes[0], 10))
		} else {
			s.take("hugepages.pools", entry, "total", strconv.FormatInt(*g.Total, 10))
		}
	}
	if h.DefaultKB != nil {
		s.take("hugepages", "", "default_size", sizeText(*h.DefaultKB))
	}
}

// sizeText writes a hugepage size as profiles do.
func sizeText(kb int64) string {
	switch {
	case kb >= 1<<20 && kb%(1<<20) == 0:
		return fmt.Sprintf("%dG", kb>>20)
	case kb >= 1<<10 && kb%(1<<10) == 0:
		return fmt.Sprintf("%dM", kb>>10)
	}
	return fmt.Sprintf("%dK", kb)
}

// wantedModules are those that RDMA and GPUs need beside the NICs' own drivers.
var wantedModules = []string{"bnxt_re", "gdrdrv", "ib_umad", "ib_uverbs", "irdma", "mana_ib", "mlx4_ib", "mlx5_ib", "nvidia", "nvidia_peermem", "rdma_ucm"}

func (s *Sample) modules(f *facts.Facts) {
	m := f.Modules()
	var there []string
	for _, name := range wantedModules {
		switch mod, known := m.Find(name); {
		case mod != nil:
			there = append(there, Quoted(name))
		case !known:
			s.unknown("modules", first(m.Unknown["loaded"], m.Unknown["built_in"]))
			return
		}
	}
	if there != nil {
		s.take("modules", "", "require", "["+strings.Join(there, ", ")+"]")
	}
}

func (s *Sample) system(f *facts.Facts) {
	y, k := f.System(), f.Kernel()
	list := func(key string, v *string, why string) {
		if v == nil {
			s.lack("system", "", key, first(why, "not known"))
		} else if *v != "" {
			s.take("system", "", key, "["+*v+"]")
		}
	}
	size := ""
	if k.PageSize != nil {
		size = sizeName(*k.PageSize)
		if _, ok := pageSizes[size]; !ok {
			size = ""
		}
	}
	list("page_size", &size, "")
	list("thp", y.THP, y.Unknown["thp"])
	list("lockdown", k.Lockdown, k.Unknown["lockdown"])
	if n := y.NUMABalancing; n != nil {
		s.take("system", "", "numa_balancing", strconv.FormatBool(*n == 1))
	} else {
		s.lack("system", "", "numa_balancing", first(y.Unknown["numa_balancing"], "not known"))
	}
	governors := []string{}
	for _, c := range y.Frequency {
		if !slices.Contains(governors, c.Governor) {
			governors = append(governors, c.Governor)
		}
	}
	switch {
	case y.Frequency == nil:
		s.lack("system", "", "governor", first(y.Unknown["frequency"], "not known"))
	case len(governors) > 1:
		s.lack("system", "", "governor", "CPUs differ: "+strings.Join(governors, ", "))
	case len(governors) == 1:
		s.take("system", "", "governor", "["+governors[0]+"]")
	}
}

// sysctl takes the parameters that the layers of this host speak of.
func (s *Sample) sysctl(f *facts.Facts, p *Profile) {
	var keys []string
	for i := range p.Sysctl.Keys {
		if k := p.Sysctl.Keys[i].Key; !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	y := f.Sysctl()
	y.Prefetch(keys)
	for _, name := range keys {
		entry := "key: " + name
		switch k := y.Key(name); {
		case k.Running != nil && forms["sysctlvalue"].valid(*k.Running) == nil:
			s.take("sysctl.keys", entry, "one_of", "["+Quoted(*k.Running)+"]")
		case !k.Absent:
			s.lack("sysctl.keys", entry, "one_of", first(k.Unknown["running"], "not known"))
		}
	}
}
