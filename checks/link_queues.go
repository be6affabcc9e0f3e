// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var linkQueueChecks = []*check.Check{linkRings, linkChannels, linkFeatures}

const ethtoolDoc = "https://man7.org/linux/man-pages/man8/ethtool.8.html"

// ethtoolSource names an answer of ethtool, as it is recorded.
func ethtoolSource(n *facts.NIC, topic string) string { return "ethtool " + n.Name + " " + topic }

// notTold says of a question of ethtool that was not answered: the driver has
// no such thing, nobody asks it of this kind of interface, or it is not known.
func notTold(n *facts.NIC, field string) (check.Status, string) {
	why := n.Unknown[field]
	if n.VF || n.Representor || n.BDF != nil && !n.Physical() || strings.HasPrefix(why, "not applicable") {
		return check.Skip, why
	}
	return check.Unknown, why
}

var linkRings = &check.Check{
	ID:       "link.rings",
	Title:    "Rings hold as many packets as the profile wants",
	Severity: check.Low,
	FixTier:  plan.Link,
	Doc: `A ring holds the packets that wait for a CPU. When it is full the NIC drops what comes (rx_missed, rx_out_of_buffer), at bursts
first. A large one costs memory, an MTU or a page for each entry and queue, and hides a CPU that is too slow behind latency:
8192 entries on 64 queues at MTU 9000 are about 8 GB. So look at drops before enlarging it.

Wanted are "ring_rx_min" and "ring_tx_min" of the nics rule, or the driver's maximum where that is less. No profile that comes with
hostcheck gives them: there is no number that is right for every host. RDMA has rings of its own, which these do not touch.

By hand:

    ethtool -g ens1np0                                       # maximum and current
    ethtool -S ens1np0 | grep -E 'out_of_buffer|missed|no_buf' | grep -v ': 0'
    ethtool -G ens1np0 rx 8192                               # most drivers take the link down for a moment

Often copied and wrong: "rx 8192" for every card. mlx4 and many virtual NICs have less, some round to powers of two, and the
command fails without a word in the boot log. It is lost at a reboot.`,
	Refs:     []string{ethtoolDoc, "https://docs.kernel.org/networking/ethtool-netlink.html"},
	Requires: []string{"driver.bound"},
	Run:      runRings,
}

func runRings(_ context.Context, r *check.Run) error {
	eachNIC(r, func(n *profile.NICRule) bool { return n.RingRXMin.Set || n.RingTXMin.Set }, func(w profile.NICWant) check.Finding {
		return judgeRings(w.NIC, &w.Rule)
	})
	return nil
}

func judgeRings(n *facts.NIC, rule *profile.NICRule) check.Finding {
	f := check.Finding{Subject: n.Subject()}
	if n.Rings == nil {
		f.Status, f.Why = notTold(n, "rings")
		return f
	}
	var want, got, limited, set []string
	f.Status = check.Pass
	for _, ring := range []struct {
		word      string
		min       profile.Val[int]
		now, most int
	}{{"rx", rule.RingRXMin, n.Rings.RX, n.Rings.RXMax}, {"tx", rule.RingTXMin, n.Rings.TX, n.Rings.TXMax}} {
		if !ring.min.Set {
			continue
		}
		f.Source = ring.min.Origin.String()
		least := ring.min.V
		if ring.most > 0 && least > ring.most {
			least = ring.most
			limited = append(limited, fmt.Sprintf("the driver has %d at most for %s, and %d are wanted", ring.most, ring.word, ring.min.V))
		}
		want = append(want, fmt.Sprintf("%s at least %d", ring.word, least))
		got = append(got, fmt.Sprintf("%s %d", ring.word, ring.now))
		if ring.now < least {
			f.Status = atMostWarn(check.Fail, ring.min.Origin)
			f.Why = reason(ring.min.Origin, "bursts that do not fit are dropped")
			set = append(set, fmt.Sprintf("%s %d", ring.word, least))
			f.Fix = append(f.Fix, offer(ring.min.Origin, wishNIC("ethtool", n, "rings "+ring.word, strconv.Itoa(ring.now), strconv.Itoa(least), f.Why))...)
		}
	}
	f.Want, f.Got = strings.Join(want, ", "), strings.Join(got, ", ")
	f.Evidence = []check.Evidence{{Source: ethtoolSource(n, "rings"), Value: fmt.Sprintf("rx %d of %d, tx %d of %d", n.Rings.RX, n.Rings.RXMax, n.Rings.TX, n.Rings.TXMax)}}
	if set != nil {
		f.Next = fmt.Sprintf("ethtool -G %s %s", n.Name, strings.Join(set, " "))
	} else {
		f.Why = strings.Join(limited, "; ")
	}
	return f
}

var linkChannels = &check.Check{
	ID:       "link.channels",
	Title:    "A NIC has as many queues as the profile wants",
	Severity: check.Low,
	FixTier:  plan.Link,
	Doc: `A channel is a queue with its interrupt. Fewer than CPUs leave CPUs idle on a host that lives on TCP; more than the NIC's node
has CPUs put the rest on the other node (irq.local), and each takes its ring of memory. RDMA data does not pass them.

Wanted is "channels" of the nics rule: a number, or "local", one for each CPU of the NIC's node that is online and not
isolated. More than the driver can have is not wanted: then its maximum counts. No profile that comes with hostcheck says one,
as the right number depends on what the host does.

By hand:

    ethtool -l ens1np0
    lscpu -e=CPU,NODE | awk -v n=$(cat /sys/class/net/ens1np0/device/numa_node) '$2 == n' | wc -l
    ethtool -L ens1np0 combined 16                           # the link may go away for a moment

RSS then spreads packets over all of them, unless somebody set an indirection table by hand (ethtool -x): the kernel refuses to
go below what that names. It is lost at a reboot.`,
	Refs:     []string{ethtoolDoc, scalingDoc},
	Requires: []string{"driver.bound"},
	Run:      runChannels,
}

func runChannels(_ context.Context, r *check.Run) error {
	eachNIC(r, func(n *profile.NICRule) bool { return n.Channels.Set }, func(w profile.NICWant) check.Finding {
		return judgeChannels(r, w.NIC, w.Rule.Channels)
	})
	return nil
}

func judgeChannels(r *check.Run, n *facts.NIC, rule profile.Val[string]) check.Finding {
	f := check.Finding{Subject: n.Subject(), Source: rule.Origin.String()}
	c := n.Channels
	if c == nil {
		f.Status, f.Why = notTold(n, "channels")
		return f
	}
	word, now, most := "combined", c.Combined, c.CombinedMax
	if most == 0 { // a driver with queues for one direction each
		word, now, most = "rx", c.RX, c.RXMax
	}
	why := ""
	want, err := strconv.Atoi(rule.V)
	if err != nil { // "local"
		var cpus facts.CPUSet
		d, online := r.Facts.IRQs().Of(*n.BDF), r.Facts.CPUs().Online
		switch {
		case d == nil:
			why = "its PCI function is not known to be a network controller"
		case d.LocalCPUs != nil:
			cpus, why = usable(r, *d.LocalCPUs)
		case cpuNodes(r) == 1 && online != nil: // every CPU is near
			cpus, why = usable(r, *online)
		default:
			why = "which CPUs are near is not known: " + d.Unknown["local_cpus"]
		}
		if want = cpus.Len(); why == "" && want == 0 {
			why = "no CPU of its node is left that is not isolated"
		}
		f.Evidence = []check.Evidence{{Source: "CPUs of its node", Value: cpus.String()}}
	}
	if why != "" {
		f.Status, f.Why, f.Evidence = check.Unknown, why, nil
		return f
	}
	f.Evidence = append([]check.Evidence{{Source: ethtoolSource(n, "channels"), Value: fmt.Sprintf("%s %d of %d", word, now, most)}}, f.Evidence...)
	limited := ""
	if want > most {
		limited = fmt.Sprintf("the driver has %d at most, and %d are wanted", most, want)
		want = most
	}
	f.Want, f.Got = fmt.Sprintf("%s %d", word, want), strconv.Itoa(now)
	if f.Status, f.Why = check.Pass, limited; now != want {
		f.Status = atMostWarn(check.Fail, rule.Origin)
		f.Why = reason(rule.Origin, "fewer queues leave CPUs of its node idle")
		if now > want {
			f.Why = reason(rule.Origin, "queues beyond that are served elsewhere, and cost memory")
		}
		f.Next = fmt.Sprintf("ethtool -L %s %s %d", n.Name, word, want)
		f.Fix = offer(rule.Origin, wishNIC("ethtool", n, "channels "+word, strconv.Itoa(now), strconv.Itoa(want), f.Why))
	}
	return f
}

var linkFeatures = &check.Check{
	ID:       "link.features",
	Title:    "The offloads of a NIC are switched as the profile wants",
	Severity: check.Medium,
	FixTier:  plan.Link,
	Doc: `Offloads let the NIC or the stack handle many packets at once: without GRO, TSO or checksums in hardware, one CPU does a few Gb/s.
Some are wrong for some hosts: LRO breaks routing and bridging (the kernel switches it off there), hardware GRO and tunnel
offloads have had driver bugs.

Wanted is "features" of the nics rule, a list such as [rx-gro=on, rx-lro=off]. The names are the kernel's; ethtool -k prints some
under older ones (rx-gro is generic-receive-offload) and -K takes both. A feature that this kernel does not know is unknown.

By hand:

    ethtool -k ens1np0 | grep -v fixed
    ethtool -K ens1np0 rx-gro on

"[fixed]" means that the driver or the hardware decides, and nobody can switch it. "[requested on]" waits for another feature
that it needs: rx-gro-hw for rx-gro and rx-checksum. What is set is lost at a reboot.

Often copied and wrong: switching off tx-checksums, TSO and GRO "for stability" or to see real packets in a capture, and leaving
them off.`,
	Refs:     []string{ethtoolDoc, "https://docs.kernel.org/networking/netdev-features.html"},
	Requires: []string{"driver.bound"},
	Run:      runFeatures,
}

func runFeatures(_ context.Context, r *check.Run) error {
	eachNIC(r, func(n *profile.NICRule) bool { return n.Features.Set }, func(w profile.NICWant) check.Finding {
		return judgeFeatures(w.NIC, w.Rule.Features)
	})
	return nil
}

func judgeFeatures(n *facts.NIC, rule profile.Val[[]string]) check.Finding {
	f := check.Finding{Subject: n.Subject(), Want: strings.Join(rule.V, ", "), Source: rule.Origin.String()}
	if n.Features == nil {
		f.Status, f.Why = notTold(n, "features")
		return f
	}
	var got, wrong, missing []string
	for _, feature := range rule.V {
		name, want, _ := strings.Cut(feature, "=")
		on, known := n.Features[name]
		now := map[bool]string{true: "on", false: "off"}[on]
		switch {
		case !known:
			missing = append(missing, name)
		case now != want:
			wrong = append(wrong, name+" "+want)
			f.Fix = append(f.Fix, offer(rule.Origin, wishNIC("ethtool", n, "feature "+name, now, want, reason(rule.Origin, "the profile wants it "+want)))...)
			fallthrough
		default:
			got = append(got, name+"="+now)
		}
	}
	f.Got = strings.Join(got, ", ")
	f.Evidence = []check.Evidence{{Source: ethtoolSource(n, "features"), Value: f.Got}}
	switch {
	case wrong != nil:
		f.Status = atMostWarn(check.Fail, rule.Origin)
		f.Why = reason(rule.Origin, "the profile wants it otherwise")
		f.Next = fmt.Sprintf("ethtool -K %s %s", n.Name, strings.Join(wrong, " "))
	case missing != nil:
		f.Status, f.Why = check.Unknown, "this kernel has no "+strings.Join(missing, ", ")
	case got == nil: // the list is empty
		f.Status, f.Why = check.Skip, "the rule names no feature"
	default:
		f.Status = check.Pass
	}
	return f
}
