// SPDX-License-Identifier: Apache-2.0

// Package facts decodes what a host shows into typed values. Each area is
// decoded once, on first use, and never fails as a whole: what could not be
// read is nil, with the reason in the Unknown map of the same object, and one
// broken device hides no other.
//
// Nothing here judges. Shapes are the JSON of "hostcheck facts".
package facts

import (
	"context"
	"sync"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Unknown says for each field of an object that is nil why it is not known.
type Unknown map[string]string

// set notes why field is not known; it makes the map on first use.
func (u *Unknown) set(field string, err error) { u.say(field, host.Reason(err)) }

func (u *Unknown) say(field, why string) {
	if *u == nil {
		*u = Unknown{}
	}
	(*u)[field] = why
}

// Facts gives the facts of one host. It is safe for concurrent use.
type Facts struct {
	host *host.Host

	kernel    lazy[*Kernel]
	cmdline   lazy[*Cmdline]
	cpus      lazy[*CPUs]
	numa      lazy[*NUMA]
	hugepages lazy[*Hugepages]
	modules   lazy[*Modules]
	iommu     lazy[*IOMMU]
	pci       lazy[*PCIBus]
	pciAll    lazy[*PCIBus]
	acs       lazy[*ACSPorts]
	nics      lazy[*NICs]
	nicsAll   lazy[*NICs]
	rdma      lazy[*RDMA]
	rdmaAll   lazy[*RDMA]
	dcb       lazy[*DCB]
	irqs      lazy[*Interrupts]
	aer       lazy[*AERStats]
	sriov     lazy[[]SRIOVDevice]
	memlock   lazy[*Memlock]
	sysctl    lazy[*Sysctl]
	owners    lazy[[]Owner]
	vxlan     lazy[*VXLAN]
	boot      lazy[*Boot]
	topology  lazy[*Topology]
	rxfrag    lazy[*RXFrag]
	rxtraffic sync.Once

	migration lazy[*Migration]

	counters counting
	kubelet  lazy[*Kubelet]
	system   lazy[*System]

	bootConfigured, bootNext lazy[*Cmdline]
}

// New gives the facts of h. Nothing is read yet.
func New(h *host.Host) *Facts { return &Facts{host: h} }

// Host is what the facts are read from, for the few callers that name sources.
func (f *Facts) Host() *host.Host { return f.host }

// lazy is a value computed once.
type lazy[T any] struct {
	once sync.Once
	v    T
}

func (l *lazy[T]) get(f *Facts, make func(*Facts) T) T {
	l.once.Do(func() { l.v = make(f) })
	return l.v
}

// Areas maps each key of "hostcheck facts" to its decoder.
var Areas = []Area{
	{"kernel", func(f *Facts) any { return f.Kernel() }},
	{"cmdline", func(f *Facts) any { return f.Cmdline() }},
	{"boot", func(f *Facts) any { return f.Boot() }},
	{"hugepages", func(f *Facts) any { return f.Hugepages() }},
	{"cpus", func(f *Facts) any { return f.CPUs() }},
	{"numa", func(f *Facts) any { return f.NUMA() }},
	{"modules", func(f *Facts) any { return f.Modules() }},
	{"iommu", func(f *Facts) any { return f.IOMMU() }},
	{"pci", func(f *Facts) any { return f.PCIAll() }},
	{"acs", func(f *Facts) any { return f.ACS() }},
	{"nics", func(f *Facts) any { return f.NICsAll() }},
	{"rdma", func(f *Facts) any { return f.RDMAAll() }},
	{"dcb", func(f *Facts) any { return f.DCB() }},
	{"aer", func(f *Facts) any { return f.AER() }},
	{"sriov", func(f *Facts) any { return f.SRIOV() }},
	{"irq", func(f *Facts) any { return f.IRQs() }},
	{"topology", func(f *Facts) any { return f.Topology() }},
	{"sysctl", func(f *Facts) any { return f.Sysctl() }},
	{"vxlan", func(f *Facts) any { return f.VXLAN() }},
	{"counters", func(f *Facts) any { return f.Counters(context.Background(), FactsInterval) }},
	{"rxfrag", func(f *Facts) any { return f.RXTraffic(context.Background(), FactsInterval) }},
	{"memlock", func(f *Facts) any { return f.Memlock() }},
	{"owners", func(f *Facts) any { return f.Owners() }},
	{"kubelet", func(f *Facts) any { return f.Kubelet() }},
	{"migration", func(f *Facts) any { return f.Migration() }},
	{"system", func(f *Facts) any { return f.System() }},
}

// Area is one key of "hostcheck facts".
type Area struct {
	Name string
	Get  func(*Facts) any
}
