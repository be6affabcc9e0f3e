// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// softFeatures live in the network stack: no driver acts on them, so a change
// counts from the next packet on (net/core/dev.c, NETIF_F_SOFT_FEATURES, and
// what the stack reads per packet).
var softFeatures = []string{
	"rx-gro", "rx-gro-list", "rx-udp-gro-forwarding", "tx-generic-segmentation", "tx-nocache-copy",
	"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-udp-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-gso-partial", "tx-gso-list",
	"tx-ipxip4-segmentation", "tx-ipxip6-segmentation", "tx-sctp-segmentation", "tx-scatter-gather", "tx-scatter-gather-fraglist",
	"tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-ip-generic", "tx-checksum-sctp", "tx-checksum-fcoe-crc",
}

// onlineDrivers list, per driver, what it changes without taking the link
// away, as "group" or "group word". Whatever is not here (rings, channels,
// private flags, pause, features of the hardware) is taken to restart it, as
// mlx5, mana, ice, bnxt, ena and the Intel drivers do.
var onlineDrivers = map[string][]string{
	"":           {"channels", "rings", "feature"}, // virtual interfaces without a device: veth, dummy, bridge
	"virtio_net": {"channels"},                     // a control command (virtnet_set_queues)
	"hv_netvsc":  {},                               // closes and opens its channel
}

// restartsCoalesce are drivers that rebuild their queues when adaptive
// moderation is switched; plain times and counts they take online.
var restartsCoalesce = []string{"mlx5_core", "mana"}

// roundsRings is true of drivers that round ring sizes up to a power of two.
func roundsRings(driver string) bool {
	return slices.Contains([]string{"mlx5_core", "mlx4_core", "mlx4_en", "mana"}, driver)
}

// ethtoolTier says how much a change disturbs.
func ethtoolTier(driver, group, word string) (plan.Tier, string) {
	online := onlineDrivers[driver]
	switch {
	case group == "feature" && slices.Contains(softFeatures, word):
		return plan.Safe, ""
	case slices.Contains(online, group), slices.Contains(online, group+" "+word):
		return plan.Safe, ""
	case group == "coalesce" && (!strings.HasPrefix(word, "adaptive-") || !slices.Contains(restartsCoalesce, driver)):
		return plan.Safe, "latency and interrupt rate change"
	case group == "pause":
		return plan.Link, "the port may negotiate its link anew"
	}
	return plan.Link, "the driver stops and restarts the interface: its link is away for a moment, and packets are lost"
}

// precondition says what else must be changed first, or "".
func precondition(h *host.Host, ifname, driver, group, word, want string) string {
	if driver == "mlx5_core" && group == "flag" && word == "rx_striding_rq" && want == "off" {
		features, err := h.EthtoolFeatures(ifname)
		for _, f := range []string{"rx-gro-hw", "rx-lro"} {
			if err == nil && features[f] {
				return fmt.Sprintf("mlx5 keeps rx_striding_rq on while %s is on; switch that off first: ethtool -K %s %s off", f, ifname, f)
			}
		}
	}
	return ""
}

// ringShare is how much of the available memory, in percent, a driver may need
// for new rings while it still holds the old ones.
const ringShare = 25

// ringCost estimates the memory that a restart of an interface's queues takes:
// drivers allocate one page, or as many as a packet needs in one piece, for
// each buffer of each queue before they give the old ones back.
type ringCost struct {
	h     *host.Host
	wants map[string]map[string]int // target -> "rings rx", "channels combined" -> count
}

func newRingCost(h *host.Host) *ringCost { return &ringCost{h, map[string]map[string]int{}} }

// note remembers what other wishes make of the same interface's rings.
func (r *ringCost) note(w plan.Wish) {
	n, err := strconv.Atoi(w.Want)
	if err != nil || n < 0 {
		return
	}
	if r.wants[w.Target] == nil {
		r.wants[w.Target] = map[string]int{}
	}
	r.wants[w.Target][w.Name] = n
}

// rxPad is what a receive buffer holds besides the packet: the kernel's
// skb_shared_info (320 bytes with 17 fragments), and 14 of Ethernet header.
const rxPad = 320 + 14

// refuses says why a wish would take too much memory.
func (r *ringCost) refuses(w plan.Wish, ifname string) (why string, steps []string) {
	group, word, _ := strings.Cut(w.Name, " ")
	if group != "rings" && group != "channels" && group != "flag" || word == "tx" {
		return "", nil
	}
	if driver, _ := r.h.LinkBase(path.Join(facts.NetClass, ifname, "device/driver")); driver == "" {
		return "", nil // a virtual interface has no ring of its own
	}
	rings, err := r.h.EthtoolRings(ifname)
	if err != nil {
		return "", nil // no rings, no cost
	}
	want := r.wants[w.Target]
	ring := max(rings.RX, want["rings rx"])
	queues := 0
	if c, err := r.h.EthtoolChannels(ifname); err == nil {
		queues = max(c.Combined, want["channels combined"]) + max(c.RX, want["channels rx"])
	}
	if queues == 0 {
		queues = 1
		names, _ := r.h.List(path.Join(facts.NetClass, ifname, "queues"))
		for _, n := range names {
			if strings.HasPrefix(n, "rx-") {
				queues++
			}
		}
	}
	mtu, err := r.h.Int(path.Join(facts.NetClass, ifname, "mtu"))
	page := facts.New(r.h).Kernel().PageSize
	mem, memErr := facts.Meminfo(r.h, "/proc/meminfo")
	available := mem["MemAvailable"] // kB
	if err != nil || page == nil || memErr != nil || available == 0 {
		return "how much memory the new rings take, or how much there is, is not known", nil
	}
	piece := int64(*page)
	for piece < mtu+rxPad {
		piece *= 2
	}
	need := int64(queues) * int64(ring) * piece / 1024
	if need*100 <= available*ringShare {
		return "", nil
	}
	fits := available * ringShare / 100 * 1024 / piece / int64(queues)
	return fmt.Sprintf("the driver allocates %d queues × %d buffers × %d KiB = %s for new rings while it holds the old ones; "+
			"%d %% of the %s of available memory may be taken", queues, ring, piece/1024, facts.MemName(need), ringShare, facts.MemName(available)),
		[]string{fmt.Sprintf("ask for rings of %d entries or fewer, or for fewer queues first: ethtool -L %s", fits, ifname)}
}
