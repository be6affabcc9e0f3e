// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// XPSQueue is one transmit queue that somebody, mostly the driver, gave
// senders: the CPUs that send through it, or the receive queues whose
// connections do.
type XPSQueue struct {
	Queue   int     `json:"queue"`
	CPUs    *string `json:"cpus"` // xps_cpus; "" for none
	RXQs    *string `json:"rxqs"` // xps_rxqs, receive queues; "" for none. They come before CPUs
	Unknown Unknown `json:"unknown,omitempty"`
}

// XPSPath is the file of one transmit queue: what is xps_cpus or xps_rxqs.
func (s *Steering) XPSPath(queue int, what string) string {
	return fmt.Sprintf("%s/%s/queues/tx-%d/%s", NetClass, s.NIC, queue, what)
}

// readXPS reads the maps of every transmit queue, which the kernel shows under
// rtnl. An interface with one queue has none (ENOENT, net/core/net-sysfs.c).
func (o *Interrupts) readXPS(h *host.Host) {
	var ops []host.Op
	queues := map[*Steering][]int{}
	for _, s := range o.Steering {
		s.XPS = []XPSQueue{}
		names, err := h.List(path.Join(NetClass, s.NIC, "queues"))
		if err != nil && !kernelLacks(h, err) {
			s.XPS = nil
			s.Unknown.say("tx_queues", whyNot(h, err))
			s.Unknown.say("xps", whyNot(h, err))
			continue
		}
		for _, name := range names {
			if q, ok := numbered(name, "tx-"); ok {
				queues[s] = append(queues[s], q)
			}
		}
		slices.Sort(queues[s])
		s.TXQueues = new(len(queues[s]))
		if *s.TXQueues < 2 {
			continue
		}
		for _, q := range queues[s] {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: s.XPSPath(q, "xps_cpus")}, host.Op{Kind: host.ReadFile, Path: s.XPSPath(q, "xps_rxqs")})
		}
	}
	h.Prefetch(ops)
	for _, s := range o.Steering {
		if s.TXQueues == nil || *s.TXQueues < 2 {
			continue
		}
		for _, q := range queues[s] {
			if x, set := s.xps(h, q); set {
				s.XPS = append(s.XPS, x)
			}
		}
	}
}

// xps reads one queue; set is false where it has no map.
func (s *Steering) xps(h *host.Host, queue int) (x XPSQueue, set bool) {
	x = XPSQueue{Queue: queue, CPUs: new(""), RXQs: new("")}
	for what, to := range map[string]**string{"cpus": &x.CPUs, "rxqs": &x.RXQs} {
		p := s.XPSPath(queue, "xps_"+what)
		text, err := h.Text(p)
		if kernelLacks(h, err) { // a kernel without CONFIG_XPS, or older than 4.18 for xps_rxqs
			continue
		}
		var list CPUSet
		if err == nil {
			list, err = parseCPUMap(text)
		}
		if err != nil {
			*to = nil
			x.Unknown.say(what, p+": "+host.Reason(err))
			set = true
			continue
		}
		*to = new(list.String())
		set = set || list.Len() > 0
	}
	return x, set
}

// SendIRQs gives, for each of that many transmit queues, the interrupt that
// cleans up after it, by the numbers in their names: mlx5_comp3, ice-ens1-TxRx-3,
// virtio2-output.3. It is nil where the names do not number all queues.
func (d *IRQDevice) SendIRQs(queues int) []*IRQ {
	kinds := map[bool][]*IRQ{} // by whether it is for sending alone
	for _, i := range d.IRQs {
		if i.Queue && i.Name != nil && !receivesOnly(*i.Name) {
			kinds[i.SendsOnly()] = append(kinds[i.SendsOnly()], i)
		}
	}
	of := kinds[true]
	if of == nil {
		of = kinds[false]
	}
	out := make([]*IRQ, queues)
	if len(of) != queues {
		return nil
	}
	for _, i := range of {
		n, ok := queueNumber(*i.Name)
		if !ok || n >= queues || out[n] != nil {
			return nil
		}
		out[n] = i
	}
	return out
}

// queueNumber is the number at the end of an interrupt's name, without the
// device that some drivers add: 3 of mlx5_comp3@pci:0000:18:00.0.
func queueNumber(name string) (int, bool) {
	name, _, _ = strings.Cut(name, "@")
	digits := len(name) - len(strings.TrimRight(name, "0123456789"))
	n, err := strconv.Atoi(name[len(name)-digits:])
	return n, err == nil
}

func receivesOnly(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "input.") || strings.Contains(name, "rx") && !strings.Contains(name, "tx")
}
