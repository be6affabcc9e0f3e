// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var irqChecks = []*check.Check{irqLocal, irqSpread, irqIsolated, irqBalance, irqRPS, irqXPS}

const (
	irqDoc      = "https://docs.kernel.org/core-api/irq/irq-affinity.html"
	scalingDoc  = "https://docs.kernel.org/networking/scaling.html"
	procIRQDoc  = "https://docs.kernel.org/filesystems/proc.html"
	balancerDoc = "https://github.com/Irqbalance/irqbalance"
)

// queueIRQs is the interrupts of one function's queues that are in use.
type queueIRQs struct {
	subject string
	rule    *profile.NICRule
	dev     *facts.IRQDevice
	irqs    []*facts.IRQ
	served  []facts.CPUSet // of each, never empty
}

// eachQueueIRQs calls judge for every function of the interfaces that the
// rules are about. What keeps one from being judged becomes its finding.
func eachQueueIRQs(r *check.Run, wants func(*profile.NICRule) bool, judge func(*queueIRQs) check.Finding) {
	reportHidden(r, wants)
	seen := map[string]bool{}
	for _, w := range selected(r) {
		if !wants(&w.Rule) || !w.NIC.Physical() || w.NIC.VF || w.NIC.Representor || seen[*w.NIC.BDF] {
			continue
		}
		seen[*w.NIC.BDF] = true
		q := &queueIRQs{subject: w.NIC.Subject(), rule: &w.Rule, dev: r.Facts.IRQs().Of(*w.NIC.BDF)}
		if w.PCI != nil {
			q.subject = functionSubject(r.Facts, w.PCI)
		}
		f, ok := q.read()
		if ok {
			f = judge(q)
		}
		f.Subject = q.subject
		r.Report(f)
	}
}

func (q *queueIRQs) read() (f check.Finding, ok bool) {
	unknown := func(why string) (check.Finding, bool) {
		return check.Finding{Status: check.Unknown, Why: why}, false
	}
	switch {
	case q.dev == nil:
		return unknown("its PCI function is not known to be a network controller")
	case q.dev.IRQs == nil:
		return unknown(q.dev.Unknown["irqs"])
	case len(q.dev.IRQs) == 0:
		return check.Finding{Status: check.Skip, Why: "it has no message signalled interrupts: no driver, or one that uses none"}, false
	}
	for _, i := range q.dev.IRQs {
		if i.Name == nil {
			return unknown("what its interrupts are for is not known: " + i.Unknown["name"])
		}
		if !i.Queue {
			continue
		}
		cpus, why := i.ServedBy()
		if why != "" {
			return unknown("who serves its interrupts is not known: " + why)
		}
		if cpus.Len() > 0 {
			q.irqs, q.served = append(q.irqs, i), append(q.served, cpus)
		}
	}
	if q.irqs == nil {
		return check.Finding{Status: check.Skip, Why: "no interrupt of its queues is in use: the interface is down"}, false
	}
	return f, true
}

// evidence shows some of the interrupts, the first of those that are chosen.
func (q *queueIRQs) evidence(chosen func(i int) bool) (out []check.Evidence) {
	const most = 4
	var cpus facts.CPUSet
	n := 0
	for i, irq := range q.irqs {
		if !chosen(i) {
			continue
		}
		cpus = cpus.Or(q.served[i])
		if n++; n <= most {
			out = append(out, check.Evidence{Source: irq.Source(), Value: fmt.Sprintf("%s (%s)", q.served[i], *irq.Name)})
		}
	}
	if n > most {
		out = append(out, check.Evidence{Source: "/proc/irq/*/effective_affinity_list", Value: fmt.Sprintf("%s (%d interrupts in all)", cpus, n)})
	}
	return out
}

func all(int) bool { return true }

// isolatedCPUs gives the CPUs that the kernel keeps work away from.
func isolatedCPUs(r *check.Run) (cpus facts.CPUSet, why string) {
	c := r.Facts.CPUs()
	for _, l := range []struct {
		list  *string
		field string
	}{{c.Isolated, "isolated"}, {c.NohzFull, "nohz_full"}} {
		if l.list == nil {
			return cpus, "which CPUs are isolated is not known: " + c.Unknown[l.field]
		}
		set, err := facts.ParseCPUSet(*l.list)
		if err != nil {
			return cpus, err.Error()
		}
		cpus = cpus.Or(set)
	}
	return cpus, ""
}

// cpuNodes counts the nodes that have CPUs, 0 where that is not known.
func cpuNodes(r *check.Run) (n int) {
	for _, node := range r.Facts.CPUs().Nodes {
		if node.CPUs == nil {
			return 0
		}
		if *node.CPUs != "" {
			n++
		}
	}
	return n
}

// usable gives those CPUs of a list that are online and not isolated.
func usable(r *check.Run, list string) (cpus facts.CPUSet, why string) {
	c := r.Facts.CPUs()
	if c.Online == nil {
		return cpus, "which CPUs are online is not known: " + c.Unknown["online"]
	}
	online, err := facts.ParseCPUSet(*c.Online)
	if err != nil {
		return cpus, err.Error()
	}
	if cpus, err = facts.ParseCPUSet(list); err != nil {
		return cpus, err.Error()
	}
	isolated, why := isolatedCPUs(r)
	return cpus.And(online).Minus(isolated), why
}

// moveByHand says how interrupts get onto CPUs for good, with whoever
// places them on this host.
func moveByHand(r *check.Run, irqs []*facts.IRQ, to string) string {
	all := r.Facts.IRQs()
	var free, managed []string
	for _, i := range irqs {
		if slices.Contains(all.Managed, i.IRQ) {
			managed = append(managed, strconv.Itoa(i.IRQ))
		} else {
			free = append(free, strconv.Itoa(i.IRQ))
		}
	}
	var say []string
	if len(free) > 0 {
		step := fmt.Sprintf("echo CPU > /proc/irq/%s/smp_affinity_list, with one CPU of %s", free[0], to)
		if len(free) > 1 {
			step += ", and another for each of the interrupts " + some(free[1:])
		}
		switch b := all.Irqbalance; {
		case b.Active == nil || *b.Active && !b.OneShot:
			step = fmt.Sprintf("irqbalance would move back within seconds what is set by hand: let it go on for the rest, and take these from it with a --banirq= for each in its arguments; then %s", step)
		default:
			step += ", by a unit at boot, as a reboot and a reload of the driver lose it"
		}
		say = append(say, step)
	}
	if len(managed) > 0 {
		say = append(say, fmt.Sprintf("the kernel itself places %s (managed interrupts) and nobody can move them: isolcpus=managed_irq,LIST keeps them off CPUs, else the number of queues decides", some(managed)))
	}
	return strings.Join(say, "; ")
}

// some names up to eight words.
func some(words []string) string {
	if n := len(words) - 8; n > 0 {
		words = append(slices.Clone(words[:8]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(words, ", ")
}

var irqLocal = &check.Check{
	ID:       "irq.local",
	Title:    "The queues of NICs are served by CPUs of the NIC's own NUMA node",
	Severity: check.Medium,
	Doc: `A received packet lies in the memory of the node that the NIC is on. A CPU of another node that serves the interrupt reads
every descriptor and header across the link between sockets: more latency and less throughput for TCP, and later wake-ups for RDMA
programs that wait for completions. RDMA data itself passes no CPU.

Judged are the interfaces for which a nics rule says "irq_local: true". The interrupts are those in msi_irqs of the PCI function
whose names (/sys/kernel/irq/N/actions) say that they serve queues: mlx5_comp3, not mlx5_async. The truth is
/proc/irq/N/effective_affinity_list; smp_affinity_list is only what was asked for. More queues than the node has CPUs
cannot all be served there: then that many may be elsewhere, and link.channels judges their number.

A NIC whose numa_node is -1 is unknown, never good: the firmware gave no node, and local_cpulist then lists all CPUs.

By hand:

    cat /sys/class/net/ens1np0/device/{numa_node,local_cpulist}
    for i in $(ls /sys/class/net/ens1np0/device/msi_irqs); do
      echo $i $(cat /sys/kernel/irq/$i/actions) $(cat /proc/irq/$i/effective_affinity_list); done
    echo 3 > /proc/irq/88/smp_affinity_list

Often copied and wrong: "systemctl stop irqbalance" first. It serves every other device of the host, too. It keeps what
its --banirq= names as it is, and by itself it already prefers the device's node. Writing to affinity files while it runs
and without that lasts ten seconds. Managed interrupts (many NVMe drives, few NICs) refuse the write with EIO: the kernel places them.`,
	Refs:     []string{irqDoc, scalingDoc, "https://github.com/Mellanox/mlnx-tools (set_irq_affinity_bynode.sh)"},
	Requires: []string{"driver.bound"},
	Run:      runIRQLocal,
}

func runIRQLocal(_ context.Context, r *check.Run) error {
	eachQueueIRQs(r, func(n *profile.NICRule) bool { return n.IRQLocal.V }, func(q *queueIRQs) check.Finding {
		f := check.Finding{Source: q.rule.IRQLocal.Origin.String()}
		if cpuNodes(r) == 1 {
			f.Status, f.Why = check.Skip, "the host has one node, so every CPU is near"
			return f
		}
		if q.dev.LocalCPUs == nil {
			f.Status, f.Why = check.Unknown, "which CPUs are near is not known: "+q.dev.Unknown["local_cpus"]
			return f
		}
		local, err := facts.ParseCPUSet(*q.dev.LocalCPUs)
		room, why := usable(r, *q.dev.LocalCPUs)
		if err != nil || why != "" || local.Len() == 0 {
			f.Status, f.Why = check.Unknown, first(why, "the NIC's node has no CPUs")
			return f
		}
		f.Want = fmt.Sprintf("served by CPUs %s", local)
		away := func(i int) bool { return q.served[i].Minus(local).Len() > 0 }
		var far []*facts.IRQ
		var cpus facts.CPUSet
		for i := range q.irqs {
			if away(i) {
				far, cpus = append(far, q.irqs[i]), cpus.Or(q.served[i].Minus(local))
			}
		}
		excess := max(0, len(q.irqs)-room.Len())
		f.Got = fmt.Sprintf("%d queue interrupts, all on CPUs of its node", len(q.irqs))
		if len(far) > 0 {
			f.Got = fmt.Sprintf("%d of %d queue interrupts on CPUs %s of another node", len(far), len(q.irqs), cpus)
		}
		switch {
		case len(far) == 0:
			f.Status, f.Evidence = check.Pass, q.evidence(all)
		case len(far) <= excess:
			f.Status, f.Evidence = check.Pass, q.evidence(away)
			f.Why = fmt.Sprintf("it has %d queues, and its node %d CPUs for them", len(q.irqs), room.Len())
		default:
			f.Status, f.Evidence = check.Fail, q.evidence(away)
			f.Why = reason(q.rule.IRQLocal.Origin, "these CPUs read what the NIC received across the link between sockets")
			f.Next = moveByHand(r, far, room.String())
		}
		return f
	})
	return nil
}

var irqSpread = &check.Check{
	ID:       "irq.spread",
	Title:    "The receive queues of a NIC are spread over CPUs",
	Severity: check.Medium,
	Doc: `A NIC has many queues so that many CPUs share the work. When the interrupts of several queues end on one CPU, that CPU is
the limit: it is full while the others idle, and packets are dropped with no sign but the NIC's own counters (rx_missed, out_of_buffer).

The kernel spreads interrupts as they are set up. They pile up when a script or irqbalance with a wrong ban list puts them
together, when default_smp_affinity or irqaffinity= names few CPUs, or when CPUs went offline.

Counted are the interrupts of queues that receive (an interrupt for sending alone may share a CPU with its pair), in
/proc/irq/N/effective_affinity_list. All on one CPU fails; more than twice the fair share on one is a warning. Fair is
what each CPU would get of those in the NIC's node that are not isolated, or of all where the node is not known.

By hand:

    grep . /proc/irq/*/effective_affinity_list | grep -f <(ls /sys/class/net/ens1np0/device/msi_irqs | sed 's|.*|/&/|')
    cat /proc/irq/default_smp_affinity
    mpstat -P ALL 1 3 | awk '$NF < 20'              # a CPU that is full of %soft

Then see irq.local for how to move them. Fewer queues than CPUs is no fault here: link.channels.`,
	Refs:     []string{scalingDoc, irqDoc},
	Requires: []string{"driver.bound"},
	Run:      runIRQSpread,
}

func runIRQSpread(_ context.Context, r *check.Run) error {
	eachQueueIRQs(r, func(*profile.NICRule) bool { return true }, func(q *queueIRQs) (f check.Finding) {
		c := r.Facts.CPUs()
		near := q.dev.LocalCPUs
		if near == nil || *near == "" {
			near = c.Online
		}
		if near == nil {
			f.Status, f.Why = check.Unknown, "which CPUs are online is not known: "+c.Unknown["online"]
			return f
		}
		cpus, why := usable(r, *near)
		if why != "" || cpus.Len() == 0 {
			f.Status, f.Why = check.Unknown, first(why, "no CPU near it is left that is not isolated")
			return f
		}
		count, n, most := map[int]int{}, 0, 0
		for i, irq := range q.irqs {
			if irq.SendsOnly() {
				continue
			}
			if q.served[i].Len() > 1 {
				f.Status, f.Why = check.Unknown, fmt.Sprintf("%s: which of these CPUs serves it is not told by the kernel", irq.Source())
				return f
			}
			cpu := q.served[i].List()[0]
			count[cpu]++
			n++
			if count[cpu] > count[most] {
				most = cpu
			}
		}
		if n < 2 || cpus.Len() == 1 {
			f.Status, f.Why = check.Skip, "it has one queue that receives, or one CPU for them"
			return f
		}
		share := min(n, cpus.Len())
		fair := (n + share - 1) / share
		f.Want = fmt.Sprintf("about %d on each CPU of %s", fair, cpus)
		f.Got = fmt.Sprintf("%d receive queues on %d CPUs", n, len(count))
		f.Evidence = q.evidence(all)
		piled := func(i int) bool { return q.served[i].Has(most) }
		switch {
		case len(count) == 1:
			f.Status, f.Got = check.Fail, fmt.Sprintf("%d receive queues on CPU %d alone", n, most)
			f.Why = "one CPU does the work of all queues, and is the limit of what the NIC receives"
		case count[most] > 2*fair:
			f.Status, f.Got = check.Warn, f.Got+fmt.Sprintf(", %d of them on CPU %d", count[most], most)
			f.Why = "that CPU is full first, while others have little to do"
			f.Evidence = q.evidence(piled)
		default:
			f.Status = check.Pass
			return f
		}
		var move []*facts.IRQ
		for i, irq := range q.irqs {
			if piled(i) {
				move = append(move, irq)
			}
		}
		f.Next = moveByHand(r, move, cpus.String())
		return f
	})
	return nil
}

var irqIsolated = &check.Check{
	ID:       "irq.isolated",
	Title:    "No queue of a NIC is served by an isolated CPU",
	Severity: check.Medium,
	Doc: `A CPU is isolated (isolcpus=, nohz_full=, an isolated cpuset partition) for a program that must not be interrupted. A NIC's
queue that is served there interrupts it with every burst of packets, and takes the data of others through its caches.

isolcpus=LIST takes CPUs from the scheduler only: interrupts do not care. isolcpus=managed_irq,LIST keeps managed interrupts
away, which the kernel places itself, as long as another CPU of their mask is online. irqaffinity= sets where all others start.

The truth is /proc/irq/N/effective_affinity_list against /sys/devices/system/cpu/isolated and nohz_full.

By hand, with 8-15 isolated:

    grep -l . /proc/irq/*/effective_affinity_list | xargs grep -HE '^(8|9|1[0-5])$'
    echo 2 > /proc/irq/88/smp_affinity_list                  # a CPU of the NIC's node that is not isolated

Where the NIC has more queues than CPUs are left on its node, lower the number: ethtool -L ens1np0 combined 8. A program that
serves its own queue on its own CPU on purpose (busy polling) is the one case where this finding is to be waived.`,
	Refs:     []string{paramsDoc, irqDoc, "kernel/sched/isolation.c", "kernel/irq/cpuhotplug.c"},
	Requires: []string{"driver.bound"},
	Run:      runIRQIsolated,
}

func runIRQIsolated(_ context.Context, r *check.Run) error {
	isolated, why := isolatedCPUs(r)
	if why == "" && isolated.Len() == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "no CPU is isolated"})
		return nil
	}
	eachQueueIRQs(r, func(*profile.NICRule) bool { return true }, func(q *queueIRQs) (f check.Finding) {
		if why != "" {
			f.Status, f.Why = check.Unknown, why
			return f
		}
		f.Want = fmt.Sprintf("no queue served by CPUs %s", isolated)
		hit := func(i int) bool {
			on := q.served[i].And(isolated).Len()
			return on > 0 && (q.irqs[i].Effective != nil || on == q.served[i].Len()) // a wide mask alone proves nothing
		}
		var on []*facts.IRQ
		var cpus facts.CPUSet
		for i, irq := range q.irqs {
			if hit(i) {
				on, cpus = append(on, irq), cpus.Or(q.served[i].And(isolated))
			}
		}
		if len(on) == 0 {
			f.Status, f.Got, f.Evidence = check.Pass, fmt.Sprintf("%d queue interrupts, none there", len(q.irqs)), q.evidence(all)
			return f
		}
		f.Status, f.Evidence = check.Fail, q.evidence(hit)
		f.Got = fmt.Sprintf("%d of %d queue interrupts on the isolated CPUs %s", len(on), len(q.irqs), cpus)
		f.Why = "the programs for which these CPUs were set aside are interrupted by every packet of these queues"
		to := "those that are not isolated"
		if c := r.Facts.CPUs(); c.Online != nil {
			near := q.dev.LocalCPUs
			if near == nil {
				near = c.Online
			}
			if left, why := usable(r, *near); why == "" && left.Len() > 0 {
				to = left.String()
			}
		}
		f.Next = moveByHand(r, on, to)
		return f
	})
	return nil
}

var irqBalance = &check.Check{
	ID:       "irq.irqbalance",
	Title:    "irqbalance leaves isolated CPUs alone",
	Severity: check.Medium,
	Doc: `irqbalance moves interrupts between CPUs every ten seconds, by load and by the device's node. On its own it leaves the CPUs in
/sys/devices/system/cpu/isolated and nohz_full alone. A ban list in its configuration replaces that rule, it does not add to it:
a list that was written for another purpose, or for other CPUs than are isolated today, sends interrupts to isolated CPUs.

The configuration is /etc/default/irqbalance (Debian, Ubuntu) or /etc/sysconfig/irqbalance (Red Hat, SUSE):
IRQBALANCE_BANNED_CPULIST=8-15 (1.8 and later), or IRQBALANCE_BANNED_CPUS, a mask in hex. The daemon warns that the mask "is discarded",
and yet it counts, before the list. A list in a drop-in of the unit is not seen here.

By hand: leave both out, or name all isolated CPUs:

    cat /sys/devices/system/cpu/{isolated,nohz_full}
    grep -v '^#' /etc/default/irqbalance
    systemctl restart irqbalance

Often copied and wrong: switching irqbalance off. Every device that nobody placed by hand then stays where it happened to start, and
after a CPU went offline and came back all of it sits together. Affinities set by hand live beside it: --banirq=N for each.`,
	Refs: []string{balancerDoc + " (cputree.c, setup_banned_cpus)", "https://man7.org/linux/man-pages/man1/irqbalance.1.html"},
	Run:  runIRQBalance,
}

func runIRQBalance(_ context.Context, r *check.Run) error {
	b := r.Facts.IRQs().Irqbalance
	f := check.Finding{Subject: "irqbalance"}
	isolated, why := isolatedCPUs(r)
	switch {
	case b.Active != nil && !*b.Active:
		f.Status, f.Why = check.Skip, "irqbalance does not run"
	case why == "" && isolated.Len() == 0:
		f.Status, f.Why = check.Skip, "no CPU is isolated"
	case b.Active == nil:
		f.Status, f.Why = check.Unknown, b.Unknown["active"]
	case why != "":
		f.Status, f.Why = check.Unknown, why
	case b.Banned == nil:
		f.Status, f.Why = check.Unknown, b.Unknown["banned"]
	default:
		f.Want = fmt.Sprintf("no interrupts on CPUs %s", isolated)
		f.Evidence = []check.Evidence{{Source: "/sys/devices/system/cpu/isolated, nohz_full", Value: isolated.String()}}
		if b.Source != "" {
			f.Evidence = append(f.Evidence, check.Evidence{Source: b.Source, Value: "banned: " + orNone(*b.Banned)})
		}
		banned, err := facts.ParseCPUSet(*b.Banned)
		open := isolated.Minus(banned)
		switch {
		case err != nil:
			f.Status, f.Why = check.Unknown, err.Error()
		case banned.Len() == 0:
			f.Status, f.Got = check.Pass, "no ban list, so isolated CPUs are left alone"
		case open.Len() == 0:
			f.Status, f.Got = check.Pass, "banned from CPUs "+banned.String()
		default:
			f.Status, f.Got = check.Fail, fmt.Sprintf("banned from CPUs %s, free to use the isolated %s", banned, open)
			f.Why = "a ban list replaces irqbalance's own rule to leave isolated CPUs alone"
			f.Next = fmt.Sprintf("in %s: IRQBALANCE_BANNED_CPULIST=%s, or no list at all; then systemctl restart irqbalance", b.Source, banned.Or(isolated))
		}
	}
	r.Report(f)
	return nil
}

var irqRPS = &check.Check{
	ID:       "irq.rps",
	Title:    "Packet steering does no work that hardware queues do",
	Severity: check.Low,
	FixTier:  plan.Safe,
	Doc: `RPS lets the CPU that took a packet from the NIC hand it to another one. It helps NICs with one queue, or few, and virtual machines.
Where the NIC has a queue for each CPU near it, it hands over what is already spread: an interrupt between CPUs and a cold cache for
every packet. CPUs of another node in the mask make it worse, for they fetch packet and socket across the link between sockets.

The truth is /sys/class/net/IF/queues/rx-N/rps_cpus, a mask; zeros are off, the kernel's default. Judged are the physical interfaces
of the nics rules: a mask with CPUs of another node fails, one beside as many queues as the node has CPUs is a warning.
Since 5.9 the kernel drops isolated CPUs from what is written there.

By hand:

    grep . /sys/class/net/ens1np0/queues/rx-*/rps_cpus
    for q in /sys/class/net/ens1np0/queues/rx-*/rps_cpus; do echo 0 > $q; done

and find who sets it, or it is back at the next boot: a udev rule, a line in rc.local, TuneD, cloud images that "tune" their NIC.
XPS (xps_cpus) is another matter, with other rules: irq.xps.`,
	Refs:     []string{scalingDoc, "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-queues"},
	Requires: []string{"driver.bound"},
	Run:      runRPS,
}

func runRPS(_ context.Context, r *check.Run) error {
	eachOwnNIC(r, judgeRPS)
	return nil
}

// eachOwnNIC reports what judge says of the queues of each physical interface of
// the rules that is this host's own.
func eachOwnNIC(r *check.Run, judge func(*check.Run, *facts.NIC) check.Finding) {
	reportHidden(r, func(*profile.NICRule) bool { return true })
	for _, w := range selected(r) {
		if !w.NIC.Physical() || w.NIC.VF || w.NIC.Representor {
			continue
		}
		f := judge(r, w.NIC)
		f.Subject = w.NIC.Subject()
		r.Report(f)
	}
}

func judgeRPS(r *check.Run, n *facts.NIC) (f check.Finding) {
	irqs := r.Facts.IRQs()
	s, d := irqs.Named(n.Name), irqs.Of(*n.BDF)
	unknown := func(why string) check.Finding { return check.Finding{Status: check.Unknown, Why: why} }
	switch {
	case s == nil || d == nil:
		return unknown("its PCI function is not known to be a network controller")
	case s.RPS == nil || s.Queues == nil:
		return unknown(s.Unknown["rps"])
	case *s.Queues == 0:
		return check.Finding{Status: check.Skip, Why: "it has no receive queues"}
	}
	c := r.Facts.CPUs()
	near, far := c.Online, facts.CPUSet{}
	if d.LocalCPUs != nil {
		near = d.LocalCPUs
	}
	if near == nil {
		return unknown("which CPUs are online is not known: " + c.Unknown["online"])
	}
	cpus, err := facts.ParseCPUSet(*near)
	if err != nil {
		return unknown(err.Error())
	}
	masks := facts.CPUSet{}
	for _, q := range s.RPS {
		if q.CPUs == nil {
			return unknown(q.Unknown["cpus"])
		}
		mask, err := facts.ParseCPUSet(*q.CPUs)
		if err != nil {
			return unknown(err.Error())
		}
		masks = masks.Or(mask)
		f.Evidence = append(f.Evidence, check.Evidence{Source: s.RPSPath(q.Queue), Value: "CPUs " + *q.CPUs})
	}
	if d.LocalCPUs != nil {
		far = masks.Minus(cpus)
	}
	if n := len(f.Evidence) - 4; n > 0 {
		f.Evidence = append(f.Evidence[:4], check.Evidence{Source: "rps_cpus of the other queues", Value: fmt.Sprintf("%d more with a mask", n)})
	}
	f.Want = "off, or CPUs of its node where queues are few"
	f.Got = fmt.Sprintf("CPUs %s, on %d of %d queues", masks, len(s.RPS), *s.Queues)
	f.Next = fmt.Sprintf("for q in /sys/class/net/%s/queues/rx-*/rps_cpus; do echo 0 > $q; done, and find who sets it at boot", n.Name)
	switch {
	case len(s.RPS) == 0:
		f.Status, f.Got, f.Next = check.Pass, fmt.Sprintf("off on all %d queues", *s.Queues), ""
		f.Evidence = []check.Evidence{{Source: fmt.Sprintf("/sys/class/net/%s/queues/rx-*/rps_cpus", n.Name), Value: "0"}}
	case far.Len() > 0:
		f.Status, f.Why = check.Fail, fmt.Sprintf("the CPUs %s are of another node: they fetch each packet across the link between sockets", far)
	case *s.Queues >= cpus.Len():
		f.Status, f.Why = check.Warn, fmt.Sprintf("%d queues for %d CPUs spread packets already; handing them over again costs an interrupt between CPUs", *s.Queues, cpus.Len())
	default:
		f.Status, f.Next = check.Pass, ""
	}
	if f.Status == check.Fail || f.Status == check.Warn {
		for _, q := range s.RPS {
			if mask, _ := facts.ParseCPUSet(*q.CPUs); *s.Queues >= cpus.Len() {
				f.Fix = append(f.Fix, wishFile(s.RPSPath(q.Queue), "CPUs "+*q.CPUs, "0", "the NIC has a queue for each CPU near it"))
			} else if mask.Minus(cpus).Len() > 0 {
				f.Fix = append(f.Fix, wishFile(s.RPSPath(q.Queue), "CPUs "+*q.CPUs, mask.And(cpus).Mask(), "CPUs of another node fetch each packet across the link between sockets"))
			}
		}
	}
	return f
}
