// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// Shares of a node's memory that receive rings may take, in percent.
const (
	ringsWarn = 2
	ringsFail = 10
)

var rxfragMemory = &check.Check{
	ID: "rxfrag.memory", Title: "Receive rings take little of their node's memory", Severity: check.Medium, FixTier: plan.Link, Tune: rxfragTune,
	Doc: `Receive rings are queues × entries × what a packet holds, on the NIC's own node: 16 queues of 1024 with a page of 64K for each packet
are 1 GiB, 64 queues of 8192 are 32 GiB. That memory is not there for hugepages, page cache or GPUs' staging buffers.

Judged is the larger of what the driver's rule predicts and what the page pools have out, added up for each node that has CPUs: beyond 2 %
of the node's memory is a warning, beyond 10 % a failure. Which makes it small again: packets that share pages (rxfrag.packing), fewer
queues, smaller rings. With a failure that packing does not explain, --fix halves the rings until they fit, down to 512, where no rule of
the profile wants them larger. Smaller rings drop packets at bursts that larger ones hold.

    ethtool -g enP30832s1; ethtool -l enP30832s1
    ethtool -G enP30832s1 rx 512            # the link is away for a moment
    cat /sys/devices/system/node/node*/meminfo | grep MemTotal

Each ring is counted as full: a driver fills it as soon as the interface is up. sysctl net.ipv4.tcp_mem counts in pages too: a value
that was copied from a host with pages of 4K is 16 times too large on 64K.`,
	Refs:     []string{manaRXDoc, ethtoolDoc, poolDoc},
	Requires: []string{"driver.bound"},
	Run:      runRXMemory,
}

// ringShare is the rings of one node.
type ringShare struct {
	nics  []*facts.RXNIC
	bytes int64
	why   []string // what is not known of some
}

func runRXMemory(_ context.Context, r *check.Run) error {
	all := r.Facts.RXFrag()
	nodes := map[int]*ringShare{}
	for _, n := range all.NICs {
		node, why := nodeOfRings(r, n.NIC())
		if why != "" {
			r.Report(check.Finding{Subject: n.NIC().Subject(), Status: check.Unknown, Why: why})
			continue
		}
		if nodes[node] == nil {
			nodes[node] = new(ringShare)
		}
		s := nodes[node]
		s.nics = append(s.nics, n)
		bytes, known := ringBytes(n)
		if s.bytes += bytes; !known {
			s.why = append(s.why, n.Name+": "+n.Unknown["predicted"])
		}
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		f := check.Finding{Subject: nodeName(node), Want: fmt.Sprintf("at most %d %% of the node's memory", ringsWarn)}
		judgeRingMemory(r, all, node, nodes[node], &f)
		r.Report(f)
	}
	return nil
}

// ringBytes is what an interface's rings take; false where neither rule nor
// pools tell.
func ringBytes(n *facts.RXNIC) (bytes int64, known bool) {
	if n.Predicted != nil {
		bytes, known = n.Predicted.RingBytes, true
	}
	if o := n.Observed; o != nil && o.Pools > 0 && o.Bytes < 1<<50 {
		bytes, known = max(bytes, int64(o.Bytes)), true
	}
	return bytes, known
}

// nodeOfRings is the node on which an interface's rings are: its own, or the
// only one.
func nodeOfRings(r *check.Run, n *facts.NIC) (int, string) {
	withCPUs := r.Facts.NUMA().WithCPUs
	switch {
	case n.NUMANode != nil && *n.NUMANode >= 0:
		return *n.NUMANode, ""
	case len(withCPUs) == 1:
		return withCPUs[0], ""
	case n.NUMANode != nil:
		return 0, "the firmware does not say on which node it is"
	}
	return 0, n.Unknown["numa_node"]
}

func judgeRingMemory(r *check.Run, all *facts.RXFrag, node int, s *ringShare, f *check.Finding) {
	var total int64
	why := "how much memory the node has is not known"
	for _, c := range r.Facts.CPUs().Nodes {
		if c.Node == node {
			if c.MemKB != nil {
				total = *c.MemKB
			} else {
				why = c.Unknown["mem_kb"]
			}
		}
	}
	if total == 0 {
		f.Status, f.Why, f.Want = check.Unknown, why, ""
		return
	}
	percent := float64(s.bytes) / 1024 / float64(total) * 100
	f.Got = fmt.Sprintf("%s, %.1f %% of %s", facts.MemName(s.bytes/1024), percent, facts.MemName(total))
	f.Evidence = []check.Evidence{{Source: facts.NodePath(node) + "/meminfo", Value: fmt.Sprintf("MemTotal %d kB", total)}}
	for _, n := range s.nics {
		if bytes, known := ringBytes(n); known && n.Queues != nil && n.Ring != nil {
			f.Evidence = append(f.Evidence, check.Evidence{Source: ethtoolSource(n.NIC(), "rings"), Value: fmt.Sprintf("%d queues of %d entries, %s", *n.Queues, *n.Ring, facts.MemName(bytes/1024))})
		}
	}
	switch {
	case percent > ringsFail:
		f.Status = check.Fail
	case percent > ringsWarn:
		f.Status = check.Warn
	case s.why != nil:
		f.Status, f.Why, f.Evidence = check.Unknown, strings.Join(s.why, "; "), nil
		return
	default:
		f.Status = check.Pass
		return
	}
	f.Why = "memory of the node that nothing else can use"
	f.Next = "let packets share pages (rxfrag.packing), or fewer queues, or smaller rings: ethtool -G"
	if percent > ringsFail {
		f.Fix = ringWishes(r, all, s, percent)
	}
}

// leastRing is how small --fix makes a ring.
const leastRing = 512

// ringWishes halves the rings until they fit; nothing where packing is to be
// mended first, or the profile wants them as large.
func ringWishes(r *check.Run, all *facts.RXFrag, s *ringShare, percent float64) (wishes []plan.Wish) {
	wanted := map[string]bool{}
	for _, w := range selected(r) {
		wanted[w.NIC.Name] = wanted[w.NIC.Name] || ringRule(&w.Rule)
	}
	for _, n := range s.nics {
		if n.Predicted != nil && len(packingWishes(r, all, n)) > 0 {
			return nil
		}
	}
	for _, n := range s.nics {
		if n.Ring == nil || wanted[n.Name] || n.Predicted == nil {
			continue
		}
		ring := *n.Ring
		for share := percent; share > ringsFail && ring/2 >= leastRing; share /= 2 {
			ring /= 2
		}
		if ring < *n.Ring {
			why := fmt.Sprintf("the rings of its node take %.0f %% of the memory there", percent)
			wishes = append(wishes, wishNIC("ethtool", n.NIC(), "rings rx", strconv.Itoa(*n.Ring), strconv.Itoa(ring), why))
		}
	}
	return wishes
}

func ringRule(n *profile.NICRule) bool { return n.RingRXMin.Set }

var rxfragBounce = &check.Check{
	ID: "rxfrag.bounce", Title: "Packets that share pages survive bounce buffers", Severity: check.High, FixTier: plan.Link, Tune: rxfragTune,
	Doc: `Where devices reach memory through bounce buffers only (a confidential guest, or swiotlb=force), what a device wrote must be copied
before the CPU reads it. mana's first version with several packets in a page (6.18 to 7.1.4, and what distributions ported back) leaves
that out: packets arrive broken or not at all. c72a0f09c57f mends it (7.1.5, 6.18.56).

Whether this driver has the fix is read in the kernel's type information: mana_recv_buf_oob has dma_sync_offset. The check fails where
there are bounce buffers, packets share pages, and the fix is absent. It passes where one of the three is not so.

Ways out, the best first:

  - a kernel with the fix
  - ethtool --set-priv-flags enP30832s1 full-page-rx on, where the driver has that flag: --fix does it
  - on pages of 4K an MTU above 1714, with which each packet has its own pages: ip link set eth0 mtu 1800, on the synthetic interface

    dmesg | grep -E 'Memory Encryption Features|software IO TLB'
    bpftool btf dump file /sys/kernel/btf/mana | grep dma_sync_offset`,
	Refs:     []string{"drivers/net/ethernet/microsoft/mana/mana_en.c (c72a0f09c57f)", "https://docs.kernel.org/core-api/swiotlb.html", manaFlag},
	Requires: []string{"driver.bound"},
	Run:      runRXBounce,
}

// Whether devices go through bounce buffers.
const (
	bouncedNot     = "no"
	bouncedYes     = "yes"
	bouncedUnknown = ""
)

// bounced reports whether all DMA goes through bounce buffers.
func bounced(r *check.Run) string {
	s, c := r.Facts.System(), r.Facts.Cmdline()
	for _, t := range c.Tokens {
		if t.Name == "swiotlb" && t.Value != nil && slices.Contains(strings.Split(*t.Value, ","), "force") {
			return bouncedYes
		}
	}
	switch {
	case text(s.Confidential) != "":
		return bouncedYes
	case s.Confidential == nil || c.Text == nil:
		return bouncedUnknown
	}
	return bouncedNot
}

func runRXBounce(_ context.Context, r *check.Run) error {
	for _, n := range r.Facts.RXFrag().NICs {
		if n.Driver != "mana" {
			continue
		}
		f := check.Finding{Subject: n.NIC().Subject(), Want: "no bounce buffers, or a driver that synchronises them, or a page for each packet"}
		judgeBounce(r, n, &f)
		r.Report(f)
	}
	return nil
}

func judgeBounce(r *check.Run, n *facts.RXNIC, f *check.Finding) {
	s := r.Facts.System()
	via := bounced(r)
	guest := "swiotlb=force"
	if text(s.Confidential) != "" {
		guest = "a confidential guest (" + *s.Confidential + ")"
	}
	switch {
	case n.Synced != nil && *n.Synced:
		f.Status, f.Got = check.Pass, "the driver synchronises what it receives"
		f.Evidence = []check.Evidence{{Source: "btf mana", Value: "mana_recv_buf_oob.dma_sync_offset there"}}
	case n.Shares != nil && !*n.Shares:
		f.Status, f.Got = check.Pass, "the driver gives each packet a page"
		f.Evidence = []check.Evidence{{Source: "btf mana", Value: "mana_rxq.frag_count absent"}}
	case via == bouncedNot:
		f.Status, f.Got = check.Pass, "no bounce buffers"
		f.Evidence = []check.Evidence{{Source: cmdlineFile, Value: "no swiotlb=force"}, {Source: "klog", Value: "no memory encryption"}}
	case n.Predicted != nil && n.Predicted.Whole():
		f.Status, f.Got = check.Pass, "a page for each packet: "+layoutText(n.Predicted)
		f.Evidence = layoutEvidence(r.Facts.RXFrag(), n)
	case via == bouncedUnknown:
		f.Status, f.Why = check.Unknown, "whether this is a confidential guest is not known: "+s.Unknown["confidential"]
	case n.Synced == nil || n.Predicted == nil:
		f.Status, f.Why = check.Unknown, cmp.Or(n.Unknown["synced"], n.Unknown["predicted"])
	default:
		f.Status, f.Got = check.Fail, guest+", packets that share pages, and a driver without the fix"
		f.Why = "received packets are broken, or do not arrive"
		f.Next = "a kernel with c72a0f09c57f (7.1.5, 6.18.56)"
		f.Evidence = append(layoutEvidence(r.Facts.RXFrag(), n), check.Evidence{Source: "btf mana", Value: "mana_recv_buf_oob.dma_sync_offset absent"})
		if n.HasFlag != nil && *n.HasFlag {
			f.Next += "; until then ethtool --set-priv-flags " + n.Name + " full-page-rx on"
			f.Fix = []plan.Wish{wishNIC("ethtool", n.NIC(), "flag full-page-rx", "off", "on", "bounce buffers and a driver without the fix break packets that share pages")}
		} else if n.Predicted.LargestMTU > 0 {
			f.Next += fmt.Sprintf("; until then an MTU above %d, set on the synthetic interface", n.Predicted.LargestMTU)
		}
	}
}

var rxfragPools = &check.Check{
	ID: "rxfrag.pools", Title: "Page pools that were given up get their pages back", Severity: check.Low, Tune: rxfragTune,
	Doc: `When an interface goes away or its rings are made anew, its page pools wait until the last of their pages is back. Those are in sockets
that nobody reads, in a queue of another interface, or lost: a leak in a driver or program. The kernel then logs "page_pool_release_retry()
stalled pool shutdown" every minute, and the memory stays taken until a reboot.

The check reads when each was given up (detach-time of the netlink family netdev, from 6.8 on) and warns after 5 minutes, fails after
an hour. By hand:

    ynl --family netdev --dump page-pool-get | grep -B5 detach-time
    journalctl -k | grep page_pool_release_retry
    ss -tm | grep -B1 'skmem:(r[1-9]'          # sockets that hold received data

A socket with unread data is found and its program mended or restarted; a leak wants a report to the driver's maintainers, with the kernel's
release and what was done to the interface before.`,
	Refs: []string{netdevDoc, poolDoc, "net/core/page_pool.c, page_pool_release_retry"},
	Run:  runRXPools,
}

// Ages of a pool that was given up, in seconds.
const (
	poolWarn = 5 * 60
	poolFail = 3600
)

func runRXPools(_ context.Context, r *check.Run) error {
	all := r.Facts.RXFrag()
	if len(all.NICs) == 0 && len(all.Stuck) == 0 && all.Unknown["stuck"] == "" {
		return nil
	}
	f := check.Finding{Want: "no pool that was given up more than 5 minutes ago"}
	switch {
	case all.Stuck == nil:
		f.Status, f.Why = check.Unknown, "which pools were given up is not known: "+all.Unknown["stuck"]
		if strings.HasPrefix(all.Unknown["stuck"], "this kernel does not list") {
			f.Status, f.Why = check.Skip, all.Unknown["stuck"]
		}
	case len(all.Stuck) == 0:
		f.Status, f.Got = check.Pass, "none"
		f.Evidence = []check.Evidence{{Source: "netdev page-pools", Value: "no pool has a detach-time"}}
	case all.Uptime == nil:
		f.Status, f.Why = check.Unknown, all.Unknown["uptime"]
	default:
		judgeStuck(all, &f)
	}
	r.Report(f)
	return nil
}

func judgeStuck(all *facts.RXFrag, f *check.Finding) {
	var oldest, pages, bytes uint64
	f.Status = check.Pass
	for _, p := range all.Stuck {
		if p.Detached > *all.Uptime { // of another clock
			f.Status, f.Why, f.Got, f.Evidence = check.Unknown, "a pool was given up after the moment at which the uptime was read", "", nil
			return
		}
		age := *all.Uptime - p.Detached
		oldest, pages, bytes = max(oldest, age), pages+p.Inflight, bytes+p.Bytes
		where := "an interface that is gone"
		if p.IfIndex != 0 {
			where = fmt.Sprintf("interface number %d", p.IfIndex)
		}
		if len(f.Evidence) < 10 {
			f.Evidence = append(f.Evidence, check.Evidence{Source: "netdev page-pools", Value: fmt.Sprintf("pool %d of %s: %d pages out, given up %d s ago", p.ID, where, p.Inflight, age)})
		}
	}
	f.Got = fmt.Sprintf("%d pools with %d pages out, the oldest given up %d s ago", len(all.Stuck), pages, oldest)
	if oldest <= poolWarn {
		return
	}
	if f.Status = check.Warn; oldest > poolFail {
		f.Status = check.Fail
	}
	f.Why = facts.MemName(int64(min(bytes, 1<<50)/1024)) + " do not come back: sockets hold them, or they leak"
	f.Next = "find sockets with unread data (ss -tm), and see \"journalctl -k | grep page_pool\"; a leak lasts until the next boot"
}
