// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var irqXPS = &check.Check{
	ID:       "irq.xps",
	Title:    "CPUs send through queues of their own, cleaned up after on their own node",
	Severity: check.Low,
	Doc: `XPS says for each transmit queue which CPUs send through it (xps_cpus), or for which receive queues' connections it is (xps_rxqs, which
comes first). Most drivers of servers set xps_cpus when they start, a queue for each CPU. No map at all (zeros, the kernel's default) is
no fault: a hash of the connection then chooses among all queues, and the same holds for each CPU that no map names. So unset passes.

A CPU of another node in a map is right, too: it must send through some queue, and the NIC is where it is. What is wrong:

  - all CPUs of the maps, or all receive queues, lead to one queue of many: everything that is sent takes turns for one lock. A failure
  - a queue belongs to CPUs of one node, its interrupt is served on another, and there are queues whose interrupt is served on the
    CPUs' own node: every packet that was sent is freed across the link between sockets. A failure
  - one queue has more than twice its share of CPUs: a map from before the number of queues was changed. A warning

Which interrupt belongs to which transmit queue is known only where the names number all of them (mlx5_comp3 is queue 3); the second rule
is left out elsewhere. The kernel shows these files under its lock of all network configuration (rtnl). An interface with
one transmit queue has no maps (ENOENT) and is skipped.

By hand:

    grep . /sys/class/net/ens1np0/queues/tx-*/xps_{cpus,rxqs}
    ethtool -L ens1np0 combined 16                  # most drivers make their maps anew with the queues
    echo 8 > /sys/class/net/ens1np0/queues/tx-3/xps_cpus         # CPU 3 alone, as a mask

Often copied and wrong: one mask of all CPUs of the NIC's node written to every queue. Each packet then chooses among all of them by
hash, which is what no map does, too.`,
	Refs:     []string{scalingDoc + " (XPS)", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-queues", "net/core/dev.c, netdev_pick_tx"},
	Requires: []string{"driver.bound"},
	Run:      runXPS,
}

func runXPS(_ context.Context, r *check.Run) error {
	eachOwnNIC(r, judgeXPS)
	return nil
}

// sender is one transmit queue's map.
type sender struct {
	queue      int
	cpus, rxqs facts.CPUSet
}

func judgeXPS(r *check.Run, n *facts.NIC) (f check.Finding) {
	irqs := r.Facts.IRQs()
	s, d := irqs.Named(n.Name), irqs.Of(*n.BDF)
	unknown := func(why string) check.Finding { return check.Finding{Status: check.Unknown, Why: why} }
	switch {
	case s == nil || d == nil:
		return unknown("its PCI function is not known to be a network controller")
	case s.XPS == nil || s.TXQueues == nil:
		return unknown(s.Unknown["xps"])
	case *s.TXQueues < 2:
		return check.Finding{Status: check.Skip, Why: "it has no choice of transmit queues"}
	case len(s.XPS) == 0:
		return check.Finding{
			Status: check.Pass, Got: fmt.Sprintf("no map on %d queues: a hash of the connection chooses", *s.TXQueues),
			Evidence: []check.Evidence{{Source: fmt.Sprintf("/sys/class/net/%s/queues/tx-*/xps_{cpus,rxqs}", n.Name), Value: "0"}},
		}
	}
	var maps []sender
	for _, q := range s.XPS {
		if q.CPUs == nil || q.RXQs == nil {
			return unknown(first(q.Unknown["cpus"], q.Unknown["rxqs"]))
		}
		m := sender{queue: q.Queue}
		var err error
		if m.cpus, err = facts.ParseCPUSet(*q.CPUs); err == nil {
			m.rxqs, err = facts.ParseCPUSet(*q.RXQs)
		}
		if err != nil {
			return unknown(err.Error())
		}
		maps = append(maps, m)
		if len(f.Evidence) < 4 {
			what, value := "xps_cpus", "CPUs "+*q.CPUs
			if m.rxqs.Len() > 0 {
				what, value = "xps_rxqs", "receive queues "+*q.RXQs
			}
			f.Evidence = append(f.Evidence, check.Evidence{Source: s.XPSPath(q.Queue, what), Value: value})
		}
	}
	if more := len(maps) - len(f.Evidence); more > 0 {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "xps_cpus of the other queues", Value: fmt.Sprintf("%d more with a map", more)})
	}
	f.Want = "CPUs spread over the queues, cleaned up after on their own node; or no map"
	f.Status, f.Got = check.Pass, fmt.Sprintf("maps on %d of %d queues", len(maps), *s.TXQueues)
	if piledUp(maps, *s.TXQueues, &f) || farSenders(r, d, *s.TXQueues, maps, &f) || overfull(maps, *s.TXQueues, &f) {
		f.Next = fmt.Sprintf("ethtool -L %s with the present number makes most drivers set their maps anew (the link may go away for a moment); or no map: for q in /sys/class/net/%s/queues/tx-*/xps_cpus; do echo 0 > $q; done; and find who set it", n.Name, n.Name)
	}
	return f
}

// piledUp finds that all senders share one queue of many.
func piledUp(maps []sender, queues int, f *check.Finding) bool {
	var cpus, rxqs facts.CPUSet
	byCPU, byRXQ, only := 0, 0, 0
	for _, m := range maps {
		if m.cpus.Len() > 0 {
			byCPU++
			only = m.queue
		}
		if m.rxqs.Len() > 0 {
			byRXQ++
		}
		cpus, rxqs = cpus.Or(m.cpus), rxqs.Or(m.rxqs)
	}
	what := "CPUs " + cpus.String()
	switch {
	case byRXQ == 1 && rxqs.Len() > 1:
		what = "receive queues " + rxqs.String()
		for _, m := range maps {
			if m.rxqs.Len() > 0 {
				only = m.queue
			}
		}
	case byRXQ > 0 || byCPU != 1 || cpus.Len() < 2:
		return false
	}
	f.Status, f.Got = check.Fail, fmt.Sprintf("%s all send through queue %d, of %d", what, only, queues)
	f.Why = "whatever they send takes turns for the lock of one queue, and the others idle"
	return true
}

// farSenders finds queues of CPUs of one node whose interrupt is served on
// another, while other queues are served on that node.
func farSenders(r *check.Run, d *facts.IRQDevice, queues int, maps []sender, f *check.Finding) bool {
	nodes := nodeCPUs(r)
	irqs := d.SendIRQs(queues)
	if len(nodes) < 2 || irqs == nil {
		return false
	}
	served := make([]facts.CPUSet, queues)
	var all facts.CPUSet
	for i, irq := range irqs {
		cpus, why := irq.ServedBy()
		if why != "" {
			return false
		}
		served[i], all = cpus, all.Or(cpus)
	}
	var far []string
	for _, m := range maps {
		if m.queue >= queues || m.cpus.Len() == 0 || served[m.queue].Len() == 0 {
			continue
		}
		for _, node := range nodes {
			if m.cpus.Minus(node).Len() == 0 && served[m.queue].And(node).Len() == 0 && all.And(node).Len() > 0 {
				if far == nil {
					f.Evidence = append(f.Evidence, check.Evidence{Source: irqs[m.queue].Source(), Value: fmt.Sprintf("%s (%s), queue %d of CPUs %s", served[m.queue], *irqs[m.queue].Name, m.queue, m.cpus)})
				}
				far = append(far, fmt.Sprint(m.queue))
			}
		}
	}
	if far == nil {
		return false
	}
	f.Status, f.Got = check.Fail, fmt.Sprintf("%s, and those of queue %s are cleaned up after on another node", f.Got, some(far))
	f.Why = "every packet that these CPUs sent is freed across the link between sockets, and queues of their own node are there"
	return true
}

// overfull finds a queue with more than twice its share of senders.
func overfull(maps []sender, queues int, f *check.Finding) bool {
	total, most := 0, maps[0]
	for _, m := range maps {
		total += m.cpus.Len()
		if m.cpus.Len() > most.cpus.Len() {
			most = m
		}
	}
	fair := (total + queues - 1) / queues
	if most.cpus.Len() <= 2*fair {
		return false
	}
	f.Status, f.Got = check.Warn, fmt.Sprintf("%s, %d CPUs on queue %d, where %d is its share", f.Got, most.cpus.Len(), most.queue, fair)
	f.Why = "the map is older than the number of queues, or made for another NIC: these CPUs wait for each other"
	return true
}

// nodeCPUs gives the CPUs of each node that has some; nil where that is not
// known.
func nodeCPUs(r *check.Run) (nodes []facts.CPUSet) {
	for _, n := range r.Facts.CPUs().Nodes {
		if n.CPUs == nil {
			return nil
		}
		cpus, err := facts.ParseCPUSet(*n.CPUs)
		if err != nil {
			return nil
		}
		if cpus.Len() > 0 {
			nodes = append(nodes, cpus)
		}
	}
	return nodes
}
