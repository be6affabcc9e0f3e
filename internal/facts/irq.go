// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// Where the kernel shows interrupts: what they are called, who serves them,
// and, with CONFIG_GENERIC_IRQ_DEBUGFS and to root, their inner state.
const (
	pathIRQNames = "/sys/kernel/irq"
	pathIRQ      = "/proc/irq"
	pathIRQDebug = "/sys/kernel/debug/irq/irqs"
)

// Interrupts is the interrupts of network functions, and who places them.
type Interrupts struct {
	Devices    []*IRQDevice `json:"devices"`  // network functions that are no VFs of this host, by address
	Managed    []int        `json:"managed"`  // numbers of queue interrupts that the kernel places and nobody can move; null when debugfs does not tell
	Steering   []*Steering  `json:"steering"` // receive packet steering of the interfaces on these functions, by name
	Irqbalance Irqbalance   `json:"irqbalance"`
	Unknown    Unknown      `json:"unknown,omitempty"`
}

// IRQDevice is a function's message signalled interrupts.
type IRQDevice struct {
	BDF       string  `json:"bdf"`
	LocalCPUs *string `json:"local_cpus"` // CPUs of the function's node
	IRQs      []*IRQ  `json:"irqs"`       // by number; none with legacy interrupts
	Unknown   Unknown `json:"unknown,omitempty"`
}

// IRQ is one interrupt; CPU lists as "0-3,8".
type IRQ struct {
	IRQ       int     `json:"irq"`
	Name      *string `json:"name"`      // "mlx5_comp3@pci:0000:18:00.0"; "" when no driver has asked for it
	Queue     bool    `json:"queue"`     // serves queues, by its name: not control, mailbox or health
	Affinity  *string `json:"affinity"`  // where it may be served
	Effective *string `json:"effective"` // where it is served; "" while it is not in use
	Unknown   Unknown `json:"unknown,omitempty"`
}

// Steering is an interface's receive packet steering (RPS).
type Steering struct {
	NIC     string     `json:"nic"`
	Queues  *int       `json:"rx_queues"`
	RPS     []RPSQueue `json:"rps"` // queues whose packets other CPUs process
	Unknown Unknown    `json:"unknown,omitempty"`
}

// RPSQueue is one receive queue.
type RPSQueue struct {
	Queue   int     `json:"queue"`
	CPUs    *string `json:"cpus"` // rps_cpus
	Unknown Unknown `json:"unknown,omitempty"`
}

// Of gives a function's interrupts, or nil.
func (i *Interrupts) Of(bdf string) *IRQDevice {
	for _, d := range i.Devices {
		if d.BDF == bdf {
			return d
		}
	}
	return nil
}

// Named gives the steering of an interface, or nil.
func (i *Interrupts) Named(nic string) *Steering {
	for _, s := range i.Steering {
		if s.NIC == nic {
			return s
		}
	}
	return nil
}

// IRQs is the Interrupts of this host.
func (f *Facts) IRQs() *Interrupts { return f.irqs.get(f, decodeIRQs) }

func decodeIRQs(f *Facts) *Interrupts {
	h, bus := f.host, f.PCI()
	out := &Interrupts{Devices: []*IRQDevice{}, Steering: []*Steering{}}
	if bus.Functions == nil {
		out.Devices = nil
		out.Unknown.say("devices", bus.Why)
	}
	var ops []host.Op
	for _, fn := range bus.Functions {
		if fn.Network() && !fn.VF() {
			d := &IRQDevice{BDF: fn.BDF, IRQs: []*IRQ{}}
			d.readLocal(f.CPUs(), fn)
			out.Devices = append(out.Devices, d)
			ops = append(ops, host.Op{Kind: host.ListDir, Path: fn.Attr("msi_irqs")})
		}
	}
	h.Prefetch(ops)
	ops = ops[:0]
	for _, d := range out.Devices {
		d.readNumbers(h)
		for _, i := range d.IRQs {
			for _, p := range []string{i.names(), i.attr("effective_affinity_list"), i.attr("smp_affinity_list")} {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
			}
		}
	}
	h.Prefetch(ops)
	for _, d := range out.Devices {
		d.read(h)
	}
	out.readManaged(h)
	out.readSteering(f)
	out.Irqbalance = readIrqbalance(h)
	return out
}

func (d *IRQDevice) readLocal(c *CPUs, fn *PCIFunction) {
	if fn.NUMANode == nil {
		d.Unknown.say("local_cpus", fn.Unknown["numa_node"])
		return
	}
	switch n := c.Node(*fn.NUMANode); {
	case n == nil && c.Nodes == nil:
		d.Unknown.say("local_cpus", c.Unknown["nodes"])
	case n == nil:
		d.Unknown.say("local_cpus", fmt.Sprintf("%s: node %d, which the host does not have", fn.Attr("numa_node"), *fn.NUMANode))
	case n.CPUs == nil:
		d.Unknown.say("local_cpus", n.Unknown["cpus"])
	default:
		d.LocalCPUs = n.CPUs
	}
}

func (d *IRQDevice) readNumbers(h *host.Host) {
	dir := PCIDevices + "/" + d.BDF + "/msi_irqs"
	names, err := h.List(dir)
	switch {
	case kernelLacks(h, err): // the driver uses none, or there is no driver
		return
	case err != nil:
		d.IRQs = nil
		d.Unknown.say("irqs", whyNot(h, err))
		return
	}
	for _, name := range names {
		if n, ok := numbered(name, ""); ok {
			d.IRQs = append(d.IRQs, &IRQ{IRQ: n})
		}
	}
	slices.SortFunc(d.IRQs, func(a, b *IRQ) int { return a.IRQ - b.IRQ })
}

func (i *IRQ) attr(name string) string { return path.Join(pathIRQ, strconv.Itoa(i.IRQ), name) }

// Source is the file that says where it is served.
func (i *IRQ) Source() string {
	if i.Effective == nil {
		return i.attr("smp_affinity_list")
	}
	return i.attr("effective_affinity_list")
}

func (i *IRQ) names() string { return path.Join(pathIRQNames, strconv.Itoa(i.IRQ), "actions") }

// ServedBy gives the CPUs that serve it: where the kernel does not tell, those
// that may. It is empty while the interrupt is not in use; why is set where
// neither is known.
func (i *IRQ) ServedBy() (cpus CPUSet, why string) {
	list := i.Effective
	if list == nil {
		if list = i.Affinity; list == nil {
			return cpus, i.Unknown["affinity"]
		}
	}
	cpus, err := ParseCPUSet(*list)
	if err != nil {
		return cpus, err.Error()
	}
	return cpus, ""
}

func (d *IRQDevice) read(h *host.Host) {
	matched := false
	for _, i := range d.IRQs {
		if s, err := h.Text(i.names()); err != nil {
			i.Unknown.say("name", whyNot(h, err))
		} else {
			i.Name = &s
			i.Queue = queueName().MatchString(s)
			matched = matched || i.Queue
		}
		i.readList(h, "effective_affinity_list", "effective", &i.Effective)
		i.readList(h, "smp_affinity_list", "affinity", &i.Affinity)
	}
	if !matched { // a driver with other names, or with one interrupt for all
		for _, i := range d.IRQs {
			i.Queue = i.Name != nil && *i.Name != ""
		}
	}
}

func (i *IRQ) readList(h *host.Host, name, field string, to **string) {
	list, err := readCPUList(h, i.attr(name))
	if err != nil {
		i.Unknown.say(field, whyNot(h, err))
		return
	}
	*to = &list
}

// queueName is the names that drivers give the interrupts of queues:
// mlx5_comp3@…, mlx4-3@…, ice-ens1-TxRx-3, eth0-Tx-Rx-3, eno1-rx-0,
// virtio2-input.0, mana_q3@…, eth0-fp-3, bnxt_re-nq-1@…, irdma-ens1-CEQ-1.
var queueName = pattern.Late(`(?i)comp\d|^mlx4-\d|tx-?rx|[-_.](rx|tx)([-._]|\d|$)|(in|out)put\.\d|[_-]n?q-?\d|-fp-\d|ceq|ntfy|queue`)

// readManaged reads debugfs, where it is there and open.
func (o *Interrupts) readManaged(h *host.Host) {
	var queues []*IRQ
	for _, d := range o.Devices {
		for _, i := range d.IRQs {
			if i.Queue {
				queues = append(queues, i)
			}
		}
	}
	o.Managed = []int{}
	if len(queues) == 0 {
		return
	}
	unknown := func(err error) {
		o.Managed = nil
		o.Unknown.say("managed", host.Reason(err)+"; only debugfs tells, to root, of a kernel with CONFIG_GENERIC_IRQ_DEBUGFS")
	}
	if _, err := h.List(pathIRQDebug); err != nil {
		unknown(err)
		return
	}
	var ops []host.Op
	for _, i := range queues {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(pathIRQDebug, strconv.Itoa(i.IRQ))})
	}
	h.Prefetch(ops)
	for n, op := range ops {
		text, err := h.Text(op.Path)
		if err != nil {
			unknown(err)
			return
		}
		if slices.Contains(strings.Fields(text), "IRQD_AFFINITY_MANAGED") { // kernel/irq/debugfs.c
			o.Managed = append(o.Managed, queues[n].IRQ)
		}
	}
}

// readSteering reads rps_cpus of every receive queue. xps_cpus is left alone:
// the kernel shows it under the lock of all network configuration, and a map
// from every CPU that may send to a queue names remote CPUs rightly.
func (o *Interrupts) readSteering(f *Facts) {
	h := f.host
	var ops []host.Op
	for _, n := range f.NICs().List {
		if n.Physical() && !n.VF && !n.Representor && o.Of(*n.BDF) != nil {
			o.Steering = append(o.Steering, &Steering{NIC: n.Name, RPS: []RPSQueue{}})
			ops = append(ops, host.Op{Kind: host.ListDir, Path: n.Attr("queues")})
		}
	}
	h.Prefetch(ops)
	ops = ops[:0]
	for _, s := range o.Steering {
		queues, err := s.queues(h)
		if err != nil && !kernelLacks(h, err) {
			s.RPS = nil
			s.Unknown.say("rx_queues", whyNot(h, err))
			s.Unknown.say("rps", whyNot(h, err))
			continue
		}
		s.Queues = new(len(queues))
		for _, q := range queues {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: s.RPSPath(q)})
		}
	}
	h.Prefetch(ops)
	for _, s := range o.Steering {
		s.read(h)
	}
}

func (s *Steering) queues(h *host.Host) (queues []int, _ error) {
	names, err := h.List(path.Join(NetClass, s.NIC, "queues"))
	for _, name := range names {
		if q, ok := numbered(name, "rx-"); ok {
			queues = append(queues, q)
		}
	}
	slices.Sort(queues)
	return queues, err
}

// RPSPath is the file of one receive queue.
func (s *Steering) RPSPath(queue int) string {
	return fmt.Sprintf("%s/%s/queues/rx-%d/rps_cpus", NetClass, s.NIC, queue)
}

func (s *Steering) read(h *host.Host) {
	if s.Queues == nil {
		return
	}
	queues, _ := s.queues(h)
	for _, q := range queues {
		text, err := h.Text(s.RPSPath(q))
		if kernelLacks(h, err) { // a kernel without CONFIG_RPS
			continue
		}
		var set CPUSet
		if err == nil {
			set, err = parseCPUMap(text)
		}
		switch {
		case err != nil:
			r := RPSQueue{Queue: q}
			r.Unknown.say("cpus", fmt.Sprintf("%s: %s", s.RPSPath(q), host.Reason(err)))
			s.RPS = append(s.RPS, r)
		case set.Len() > 0:
			s.RPS = append(s.RPS, RPSQueue{Queue: q, CPUs: new(set.String())})
		}
	}
}
