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
)

var rxfragChecks = []*check.Check{rxfragBounce, rxfragPacking, rxfragObserved, rxfragMemory, rxfragPools}

const (
	rxfragTune = "rxfrag"
	manaRXDoc  = "drivers/net/ethernet/microsoft/mana/mana_en.c, mana_get_rxbuf_cfg (730ff06d3f5c)"
	manaFlag   = "drivers/net/ethernet/microsoft/mana/mana_ethtool.c, full-page-rx (5b5cb75fb86a)"
	manaTalk   = "Linux Plumbers Conference 2025, Optimizing traffic receive (RX) path in Linux kernel MANA Driver for larger PAGE_SIZE systems"
	mlx5RXDoc  = "drivers/net/ethernet/mellanox/mlx5/core/en/params.c"
	mlx4RXDoc  = "drivers/net/ethernet/mellanox/mlx4/en_rx.c, mlx4_en_calc_rx_buf"
	poolDoc    = "https://docs.kernel.org/networking/page_pool.html"
	netdevDoc  = "https://docs.kernel.org/networking/netlink_spec/netdev.html"
)

// What a packet's memory may be, as a multiple of its bytes. Rules of thumb:
// two buffers in a page of 4K are 1.4; a page of 64K for 1500 bytes is 43.
const (
	packedWell = 4  // beyond is a warning, where pages are large
	packedBad  = 16 // beyond is a failure
	largePage  = 16 << 10
)

// cobalt is the processor on which buffers that share a page cost throughput:
// its cores contend for the page's reference count.
const cobalt = "Cobalt 200"

var rxfragPacking = &check.Check{
	ID: "rxfrag.packing", Title: "Received packets share pages", Severity: check.High, FixTier: plan.Link, Tune: rxfragTune,
	Doc: `A driver that gives each received packet pages of its own wastes what the packet does not fill: of a page of 4K little, of a page of
64K 97 % at MTU 1500. That is memory for rings and sockets, and throughput, as caches and IOTLB hold less. Newer drivers let packets
share a page.

The layout is predicted by the driver's own rule from page size, MTU, XDP, CONFIG_MAX_SKB_FRAGS and private flags: of mana exactly, of
mlx5 and mlx4 by their arithmetic; other drivers' are not known. What the driver can do is read in the kernel's type information
(/sys/kernel/btf), not in its release: distributions port back. The formula for mana, with S = 48 + 16 × MAX_SKB_FRAGS in
cache lines (320) and PAD = S + 14:

    a page each     when full-page-rx is on, an XDP program is attached, or MTU + PAD > page/2
    else            page / (MTU + PAD, rounded up to 64) buffers share a page

    MTU     4K           16K            64K            before (6.17 and older)
    1500    2 × 2048     8 × 2048       35 × 1872      4096     16384    65536
    4000    1 × 8192     3 × 5461       15 × 4369      8192     16384    65536
    9000    1 × 16384    1 × 16384      7 × 9362       16384    16384    65536

The check fails where a packet holds more than 16 times its bytes, and warns beyond 4 times; on pages of 4K neither can be. There it
warns of one thing: on the processor Cobalt 200, buffers that share a page cost 15 to 20 % of throughput with many connections, by the
driver's authors; full-page-rx on avoids it ("hostcheck tune plan rxfrag --full-page-rx").

By hand, on the interface of the driver (enP…, not eth0 above it):

    getconf PAGESIZE; ethtool --show-priv-flags enP30832s1
    ethtool --set-priv-flags enP30832s1 full-page-rx off     # the link is away for a moment; lost at a reboot and when the device comes anew
    ip -d link show enP30832s1 | grep xdp                    # and of eth0: it passes its program on
    bpftool btf dump file /sys/kernel/btf/mana | grep -A40 "STRUCT 'mana_rxq'" | grep frag_count

A change takes a page for each buffer of each queue while the old rings are still held: hostcheck refuses it beyond a quarter of the
available memory. The figures for 64K are of the formula and of fixtures; they were not measured on such a machine.`,
	Refs:     []string{manaTalk, manaRXDoc, manaFlag, mlx5RXDoc, mlx4RXDoc},
	Requires: []string{"driver.bound"},
	Run:      runRXPacking,
}

func runRXPacking(_ context.Context, r *check.Run) error {
	all := r.Facts.RXFrag()
	for _, n := range all.NICs {
		f := check.Finding{Subject: n.NIC().Subject(), Want: "memory of at most 4 times a packet's bytes", Source: layoutSource(n)}
		judgePacking(r, all, n, &f)
		r.Report(f)
	}
	return nil
}

func layoutSource(n *facts.RXNIC) string {
	switch n.Driver {
	case "mana":
		return manaRXDoc
	case "mlx5_core":
		return mlx5RXDoc
	case "mlx4_core", "mlx4_en":
		return mlx4RXDoc
	}
	return ""
}

func judgePacking(r *check.Run, all *facts.RXFrag, n *facts.RXNIC, f *check.Finding) {
	l := n.Predicted
	if l == nil {
		f.Status, f.Why = check.Unknown, n.Unknown["predicted"]
		if n.Shares == nil && n.Driver != "mana" {
			f.Status = check.Skip
		}
		return
	}
	frame := float64(*n.MTU + 14)
	ratio := float64(l.PacketBytes) / frame
	f.Got = layoutText(l)
	f.Evidence = layoutEvidence(all, n)
	causes := wholeCauses(all, n)
	switch {
	case *all.PageSize >= largePage && ratio > packedBad:
		f.Status = check.Fail
	case *all.PageSize >= largePage && ratio > packedWell:
		f.Status = check.Warn
	case all.Processor != nil && *all.Processor == cobalt && *all.PageSize == 4096 && !l.Whole() && n.HasFlag != nil && *n.HasFlag:
		f.Status, f.Want = check.Warn, "a page for each packet on "+cobalt+" with pages of 4K"
		f.Why = "its cores contend for the reference count of pages that packets share: 15 to 20 % of throughput with many connections, by the driver's authors"
		f.Next = "yours to decide: hostcheck tune apply rxfrag --full-page-rx --allow link"
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/firmware/dmi/tables/DMI", Value: *all.Processor})
		return
	default:
		f.Status = check.Pass
		if l.Whole() && l.PacketBytes > int64(*all.PageSize) {
			f.Why = fmt.Sprintf("each packet needs %d pages in one piece, which are hard to get when memory is fragmented; that is no fault", l.PacketBytes/int64(*all.PageSize))
		}
		return
	}
	f.Why = fmt.Sprintf("a packet of %.0f bytes holds %.0f times that", frame, ratio)
	var next []string
	for _, c := range causes {
		f.Why += "; " + c.why
		next = append(next, c.next)
	}
	f.Next = strings.Join(next, "; ")
	if f.Next == "" {
		f.Next = "a kernel or driver in which packets share pages"
	}
	f.Fix = packingWishes(r, all, n)
}

// layoutText says a layout in a few words.
func layoutText(l *facts.RXLayout) string {
	about := ""
	if !l.Exact {
		about = "about "
	}
	switch {
	case l.Whole():
		return fmt.Sprintf("%s%d bytes for each packet", about, l.PacketBytes)
	case l.Spread:
		return fmt.Sprintf("%s%d bytes for each packet, in pieces", about, l.PacketBytes)
	}
	return fmt.Sprintf("%s%d bytes for each packet, %d in a page", about, l.PacketBytes, l.PerPage)
}

func layoutEvidence(all *facts.RXFrag, n *facts.RXNIC) []check.Evidence {
	on := map[bool]string{true: "on", false: "off"}
	e := []check.Evidence{
		{Source: "pagesize", Value: strconv.Itoa(*all.PageSize)},
		{Source: n.NIC().Attr("mtu"), Value: strconv.Itoa(*n.MTU)},
		{Source: "link xdp", Value: on[*n.XDP]},
	}
	if n.On != nil {
		e = append(e, check.Evidence{Source: ethtoolSource(n.NIC(), "privflags"), Value: n.Flag + " " + on[*n.On]})
	}
	if n.Driver == "mana" {
		e = append(e, check.Evidence{Source: "btf mana", Value: "mana_rxq.frag_count " + map[bool]string{true: "there", false: "absent"}[*n.Shares]})
	}
	return e
}

// wholeCause is why packets share no page, and what changes that.
type wholeCause struct{ why, next string }

func wholeCauses(all *facts.RXFrag, n *facts.RXNIC) (list []wholeCause) {
	if n.Driver == "mana" && !*n.Shares {
		list = append(list, wholeCause{"this kernel's driver gives each packet a page", "a kernel whose driver has fragments (6.18, or a distribution's that has them); until then fewer queues, rings of 512, and MTU 9000 for more payload in a page"})
	}
	if *n.XDP {
		where := n.Name
		if n.Above != "" {
			where += " or " + n.Above + ", which passes it on"
		}
		list = append(list, wholeCause{"an XDP program is attached to " + where, "detach the XDP program (ip link set dev " + n.Name + " xdp off), or run it on a host with pages of 4K"})
	}
	if n.Driver == "mana" && *n.Shares && n.On != nil && *n.On {
		list = append(list, wholeCause{"full-page-rx is on", "ethtool --set-priv-flags " + n.Name + " full-page-rx off"})
	}
	if l := n.Predicted; len(list) == 0 && l.Whole() && l.LargestMTU > 0 && *n.MTU > l.LargestMTU {
		list = append(list, wholeCause{fmt.Sprintf("the MTU is larger than %d", l.LargestMTU), fmt.Sprintf("an MTU of at most %d", l.LargestMTU)})
	}
	return list
}

// packingWishes switches full-page-rx off where that alone lets packets share
// pages, and no bounce buffers forbid it.
func packingWishes(r *check.Run, all *facts.RXFrag, n *facts.RXNIC) []plan.Wish {
	if n.Driver != "mana" || n.On == nil || !*n.On || bounced(r) != bouncedNot && (n.Synced == nil || !*n.Synced) {
		return nil
	}
	off := n.Layout(all, func(_ *facts.RXParams, flag *bool) { *flag = false })
	if off == nil || off.PacketBytes >= n.Predicted.PacketBytes {
		return nil
	}
	why := fmt.Sprintf("packets share pages: %d bytes for each instead of %d", off.PacketBytes, n.Predicted.PacketBytes)
	return []plan.Wish{wishNIC("ethtool", n.NIC(), "flag full-page-rx", "on", "off", why)}
}

var rxfragObserved = &check.Check{
	ID: "rxfrag.observed", Title: "Received packets take the memory that the driver's rule says", Severity: check.Medium, Tune: rxfragTune,
	Doc: `The kernel lists the pools of pages that drivers receive into (netlink family netdev, from 6.8 on), with the pages that are out of them;
with CONFIG_PAGE_POOL_STATS it counts the pages that it gave out. Both are set against what rxfrag.packing predicts:

  - with statistics: pages given out for each packet, over an interval (interval_ms of the profile's rdma). Where packets share pages
    it is 1 / buffers in a page: 0.5 on 4K, 0.03 on 64K; else 1
  - without: pages out of the pools against entries of the rings. 1024 entries of 1500 bytes on 64K are 30 pages, or 1024

They differ where hostcheck's idea of the driver is wrong (please report it, with "hostcheck facts rxfrag"), where rings
still hold the pages of before a change of settings (they are replaced as packets come in: look again under load), or where pages do not
come back, as packets wait in sockets.

    ynl --family netdev --dump page-pool-get          # of the kernel's tools/net/ynl; inflight-mem
    ynl --family netdev --dump page-pool-stats-get    # alloc-fast + alloc-slow + alloc-slow-high-order + alloc-refill

An interface with too little traffic, or without such a pool, is a skip.`,
	Refs:     []string{netdevDoc, poolDoc, "net/core/page_pool.c (ef04d290c013)"},
	Requires: []string{"driver.bound"},
	Run:      runRXObserved,
}

func runRXObserved(ctx context.Context, r *check.Run) error {
	if len(r.Facts.RXFrag().NICs) == 0 {
		return nil
	}
	sampled(ctx, r) // the interval that all share
	all := r.Facts.RXTraffic(ctx, 0)
	for _, n := range all.NICs {
		f := check.Finding{Subject: n.NIC().Subject(), Source: layoutSource(n)}
		judgeObserved(all, n, &f)
		r.Report(f)
	}
	return nil
}

// cached is how many pages a pool may hold back beside those in its ring
// (net/core/page_pool.c, PP_ALLOC_CACHE_SIZE and a refill).
const cached = 256

func judgeObserved(all *facts.RXFrag, n *facts.RXNIC, f *check.Finding) {
	l, o := n.Predicted, n.Observed
	switch {
	case o == nil || o.Pools == 0:
		f.Status, f.Why = check.Skip, n.Unknown["observed"]
		if strings.HasSuffix(f.Why, "not in this tree") {
			f.Status = check.Unknown
		}
		return
	case l == nil:
		f.Status, f.Why = check.Skip, "nothing is predicted: "+n.Unknown["predicted"]
		return
	case l.PacketBytes > int64(*all.PageSize):
		f.Status, f.Why = check.Skip, "a packet takes several pages, and the pools count pieces"
		return
	}
	f.Want = fmt.Sprintf("%s: %.2f pages for each", layoutText(l), 1/float64(l.PerPage))
	f.Evidence = []check.Evidence{{Source: "netdev page-pools", Value: fmt.Sprintf("%d pools, %d pages, %d bytes in flight", o.Pools, o.Pages, o.Bytes)}}
	if o.Detached > 0 {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "netdev page-pools", Value: fmt.Sprintf("%d pools of before a change still have pages out", o.Detached)})
	}
	if per, ok := o.PagesPerPacket(); ok {
		f.Got = fmt.Sprintf("%.2f pages for each of %d packets", per, *o.Packets)
		f.Evidence = append(f.Evidence, check.Evidence{Source: "counters " + facts.PageCounters(n.Name), Value: fmt.Sprintf("rx_packets +%d, pages given out +%d", *o.Packets, *o.PagesGiven)})
		differs(f, l, per > threeQuarters && !l.Whole(), per < threeQuarters && l.Whole())
		return
	}
	slots, queues := uint64(*n.Queues)*uint64(*n.Ring), uint64(*n.Queues)
	most := slots/uint64(l.PerPage) + queues*(1+cached) // when packets share pages
	full := slots - slots/10                            // when they do not
	f.Got = fmt.Sprintf("%d pages in flight for %d entries of the rings", o.Pages, slots)
	f.Evidence = append(f.Evidence, check.Evidence{Source: ethtoolSource(n.NIC(), "rings"), Value: fmt.Sprintf("%d queues of %d", *n.Queues, *n.Ring)})
	switch {
	case l.Whole() && o.Pages < full, !l.Whole() && (most >= full || o.Pages > most && o.Pages < full):
		f.Status, f.Evidence = check.Skip, nil
		f.Why = "without traffic, or statistics of page pools in the kernel (CONFIG_PAGE_POOL_STATS), the pages in flight do not tell"
	default:
		differs(f, l, !l.Whole() && o.Pages >= full, false)
	}
}

// threeQuarters of a page for each packet lie between packets that share pages
// and packets that do not.
const threeQuarters = 0.75

func differs(f *check.Finding, l *facts.RXLayout, more, less bool) {
	switch {
	case more:
		f.Status = check.Fail
		f.Why = fmt.Sprintf("packets take pages of their own, although %d should share one", l.PerPage)
		f.Next = "look again under load: after a change the rings hold the pages of before until each was used once; else report it with \"hostcheck facts rxfrag\""
	case less:
		f.Status = check.Fail
		f.Why = "packets share pages, although each should have its own: the driver does otherwise than hostcheck knows"
		f.Next = "report it with \"hostcheck facts rxfrag\", and take the predictions of rxfrag.memory as an upper bound"
	default:
		f.Status = check.Pass
	}
}
