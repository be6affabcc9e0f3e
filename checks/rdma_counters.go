// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var rdmaCounters = &check.Check{
	ID: "rdma.counters", Title: "No RDMA port loses packets or is stopped by pauses right now", Severity: check.Medium,
	Doc: `The counters of RDMA ports and of their interfaces are read twice, a second apart (interval_ms of the profile's rdma), and what grew
between is judged. Totals since boot prove little: one bad cable last month fills them for good. So run this while the job runs; a port
that moved nothing in the interval is left out (skip), unless an error counter grew all the same. "--skip rdma.counters" spares the wait.

How to read what grew (names of mlx5, in ports/1/hw_counters and "ethtool -S"):

    local_ack_timeout_err      a sender waited in vain and sends again: packets were lost on the way. A failure
    packet_seq_err, rx_discards_phy, port_xmit_discards
                               packets were lost, here or by the NIC or switch for want of buffer. A failure
    link_downed, tx_pause_storm_error_events
                               the link fell; the NIC stopped pausing because its receiver hung. A failure
    out_of_sequence            loss, or another order than sent, which is normal with adaptive routing. A warning
    out_of_buffer, rnr_nak_retry_err
                               the receiving program posts too few buffers; the network is not to blame. A warning
    rp_cnp_ignored             notifications arrive and this sender does not slow down: DCQCN is off for it. A warning
    rx_prioN_pause, tx_prioN_pause
                               some are normal. Many, with no np_ecn_marked_roce_packets and no rp_cnp_handled: nothing marks
                               or nobody obeys marks, and PFC is doing DCQCN's job, for all flows of the priority. A warning

And over all ports of the host: many np_cnp_sent with no rp_cnp_handled at all, while it sends, since boot: this host tells others to slow
down, and never hears it itself. Either nobody marks its packets, or the notifications are lost on the way (their DSCP; see
dcqcn.cnp_dscp). A warning.

By hand:

    cd /sys/class/infiniband/mlx5_0/ports/1/hw_counters; grep . out_of_sequence local_ack_timeout_err np_cnp_sent rp_cnp_handled
    ethtool -S ens1np0 | grep -E 'prio[0-7]_pause|discards_phy|storm'

Then in the order of likelihood: the ToS that the application really uses (dcqcn.tos), trust and PFC here and on the switch (dcqcn.trust,
dcqcn.pfc), marking on the switch, cable and optics. Without counters, as in some virtual machines, the answer is unknown.`,
	Refs: []string{
		"drivers/infiniband/hw/mlx5/counters.c", infinibandABI,
		"https://docs.kernel.org/networking/device_drivers/ethernet/mellanox/mlx5/counters.html",
	},
	Requires: []string{"rdma.port"},
	Run:      runRDMACounters,
}

// reading is what the growth of a counter means.
type reading struct {
	name   string
	status check.Status
	means  string
	next   string
}

const (
	lossNext   = "find where packets are lost: the ToS of the application (dcqcn.tos), trust and PFC here and on the switch (dcqcn.trust, dcqcn.pfc), its marking, then cable and optics"
	bufferNext = "let the receiving program post more receives, or more often; look at CPU placement (numa) of what polls"
)

// The names are those of drivers/infiniband/hw/mlx5/counters.c, of the port
// counters of the InfiniBand specification, and of ethtool -S of mlx5.
var rdmaReadings = []reading{
	{"local_ack_timeout_err", check.Fail, "senders wait in vain and send again: packets are lost on the way", lossNext},
	{"packet_seq_err", check.Fail, "the peer misses packets that were sent: they are lost on the way", lossNext},
	{"implied_nak_seq_err", check.Fail, "the peer misses packets that were sent: they are lost on the way", lossNext},
	{"port_xmit_discards", check.Fail, "the port drops what it should send", lossNext},
	{"rx_discards_phy", check.Fail, "the NIC drops what it receives for want of buffer: this priority is not protected by PFC", lossNext},
	{"link_downed", check.Fail, "the link fell", "look at the cable, the module and the switch port"},
	{"link_down_events_phy", check.Fail, "the link fell", "look at the cable, the module and the switch port"},
	{"tx_pause_storm_error_events", check.Fail, "the NIC gave up pausing its peer, as nothing took its packets for seconds", "look at the host: a hung program, PCIe errors, too little bandwidth of the slot (pcie.link)"},
	{"out_of_sequence", check.Warn, "packets come in another order than sent, or some are lost; with adaptive routing that is normal", lossNext},
	{"out_of_buffer", check.Warn, "packets find no receive buffer: the program posts too few", bufferNext},
	{"rnr_nak_retry_err", check.Warn, "peers were not ready to receive: their programs post too few buffers", bufferNext},
	{"rp_cnp_ignored", check.Warn, "notifications of congestion arrive, and this sender does not slow down", "switch DCQCN on for the priority (dcqcn.enabled)"},
	{"cnpIgnored", check.Warn, "notifications of congestion arrive, and this sender does not slow down", "switch DCQCN on for the priority (dcqcn.enabled)"},
}

// manyPauses in a second are no burst any more.
const manyPauses = 100

func runRDMACounters(ctx context.Context, r *check.Run) error {
	ports := rdmaPorts(r, nil)
	if len(ports) == 0 {
		return nil
	}
	all := sampled(ctx, r)
	for _, s := range ports {
		c := all.Of(facts.PortCounters(s.dev, s.port))
		f := check.Finding{Subject: s.name(), Want: "no counter of losses grows"}
		switch {
		case s.port.State != nil && !s.port.Active():
			f.Status, f.Why = check.Skip, "the port is not active"
		case c == nil || c.Seconds == nil:
			f.Status, f.Why = check.Unknown, "its counters are not known"
			if c != nil {
				f.Why += ": " + c.Unknown["seconds"]
			}
		case len(c.First) == 0:
			f.Status, f.Why = check.Skip, "its driver shows no counters"
		default:
			var nic *facts.Counted
			if s.port.Netdev != nil {
				nic = all.Of(facts.NICCounters(*s.port.Netdev))
			}
			judgeCounters(&f, c, nic)
		}
		r.Report(f)
	}
	judgeCNPs(r, ports, all)
	return nil
}

// sampled gives the counters, for which a live host is watched a while.
func sampled(ctx context.Context, r *check.Run) *facts.Counters {
	interval := time.Second
	if want := r.Profile.RDMA.IntervalMS; want.Set {
		interval = time.Duration(want.V) * time.Millisecond
	}
	if r.Facts.Host().Live() {
		r.Waiting(fmt.Sprintf("sampling counters for %v", interval))
	}
	return r.Facts.Counters(ctx, interval)
}

// moved are the counters that tell of traffic: of the InfiniBand
// specification, of bnxt_re, of irdma, of efa and mana_ib.
var moved = []string{"port_xmit_data", "port_rcv_data", "port_xmit_packets", "port_rcv_packets", "tx_bytes", "rx_bytes", "ip4InOctets", "ip4OutOctets"}

func judgeCounters(f *check.Finding, c, nic *facts.Counted) {
	over := " in " + seconds(*c.Seconds)
	var worst reading
	var got []string
	for _, from := range []*facts.Counted{c, nic} {
		if from == nil || from.Seconds == nil {
			continue
		}
		for _, rd := range rdmaReadings {
			n, ok := from.Grown(rd.name)
			if !ok || n == 0 {
				continue
			}
			got = append(got, fmt.Sprintf("%s +%d", rd.name, n))
			f.Evidence = append(f.Evidence, check.Evidence{Source: from.Source(), Value: fmt.Sprintf("%s %d to %d%s", rd.name, from.First[rd.name], from.Last[rd.name], over)})
			if worst.status == "" || rd.status == check.Fail && worst.status != check.Fail {
				worst = rd
			}
		}
	}
	if pauses, which := grownPauses(nic); float64(pauses) > manyPauses*(*c.Seconds) && worst.status != check.Fail {
		marks, known := c.Grown("np_ecn_marked_roce_packets")
		handled, _ := c.Grown("rp_cnp_handled")
		if known && marks == 0 && handled == 0 {
			got = append(got, which)
			f.Evidence = append(f.Evidence, check.Evidence{Source: nic.Source(), Value: which + over},
				check.Evidence{Source: c.Source(), Value: "np_ecn_marked_roce_packets +0, rp_cnp_handled +0" + over})
			worst = reading{status: check.Warn, means: "whole priorities are paused and no packet is marked: PFC is doing DCQCN's job",
				next: "let the switch mark packets (ECN) well below the depth at which PFC starts, and see dcqcn.enabled and dcqcn.tos"}
		}
	}
	if worst.status != "" {
		f.Status, f.Got, f.Why, f.Next = worst.status, strings.Join(got, ", ")+over, worst.means, worst.next
		return
	}
	traffic := trafficOf(c)
	if traffic == "" {
		f.Status, f.Why = check.Skip, "no RDMA traffic passed"+over+", so nothing could be lost: run it while the job runs"
		return
	}
	f.Status, f.Got = check.Pass, "none"+over
	f.Evidence = []check.Evidence{{Source: c.Source(), Value: traffic + over + "; of " + strconv.Itoa(len(c.Last)) + " counters none of losses"}}
}

// grownPauses adds up the pauses of all priorities, of both directions.
func grownPauses(nic *facts.Counted) (n uint64, which string) {
	var most uint64
	if nic == nil {
		return 0, ""
	}
	for prio := range 8 {
		for _, dir := range []string{"rx", "tx"} {
			name := fmt.Sprintf("%s_prio%d_pause", dir, prio)
			grown, ok := nic.Grown(name)
			if !ok {
				continue
			}
			if n += grown; grown > most {
				most, which = grown, fmt.Sprintf("%s +%d", name, grown)
			}
		}
	}
	return n, which
}

func trafficOf(c *facts.Counted) string {
	var got []string
	for _, name := range moved {
		if n, ok := c.Grown(name); ok && n > 0 {
			got = append(got, fmt.Sprintf("%s +%d", name, n))
		}
	}
	return strings.Join(got, ", ")
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) + " s" }

// manyCNPs since boot are no accident.
const manyCNPs = 10000

// judgeCNPs looks at all ports of the host together, since boot: a host that
// sends notifications and never gets one.
func judgeCNPs(r *check.Run, ports []rdmaSubject, all *facts.Counters) {
	var sent, handled uint64
	var known []string
	for _, s := range ports {
		c := all.Of(facts.PortCounters(s.dev, s.port))
		if c == nil || c.Seconds == nil || !s.port.Active() {
			continue
		}
		a, ok1 := c.Last["np_cnp_sent"]
		b, ok2 := c.Last["rp_cnp_handled"]
		if !ok1 || !ok2 || !slices.ContainsFunc([]string{"port_xmit_data", "port_xmit_packets"}, func(n string) bool { return c.Last[n] > 0 }) {
			continue
		}
		sent, handled, known = sent+a, handled+b, append(known, c.Source())
	}
	if len(known) == 0 || sent < manyCNPs {
		return // nothing to tell
	}
	f := check.Finding{
		Subject: "CNPs", Want: "notifications of congestion are sent and received", Got: fmt.Sprintf("np_cnp_sent %d, rp_cnp_handled %d since boot", sent, handled),
		Evidence: []check.Evidence{{Source: strings.Join(known, ", "), Value: fmt.Sprintf("np_cnp_sent %d, rp_cnp_handled %d", sent, handled)}},
	}
	if f.Status = check.Pass; handled == 0 {
		f.Status = check.Warn
		f.Why = "this host tells others to slow down and never hears it itself: nobody marks what it sends, or the notifications are lost"
		f.Next = "look at the ToS that its programs use (dcqcn.tos), at rp enabled (dcqcn.enabled), and at the switches' queue for CNPs (dcqcn.cnp_dscp)"
	}
	r.Report(f)
}
