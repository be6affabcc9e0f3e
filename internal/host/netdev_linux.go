// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// PagePool is one pool of pages that a driver receives into, as the kernel's
// netlink family "netdev" lists it (Documentation/netlink/specs/netdev.yaml).
type PagePool struct {
	ID       uint64 `json:"id"`
	IfIndex  int    `json:"ifindex"`  // 0 when its interface is gone
	NAPI     int    `json:"napi"`     // 0 for none
	Inflight uint64 `json:"inflight"` // pages that were given out and did not come back
	Bytes    uint64 `json:"bytes"`    // the same in bytes; a page may be of a higher order
	// Detached is when the driver gave it up, in seconds since boot as
	// /proc/uptime counts them; 0 while it is in use.
	Detached uint64 `json:"detached"`
}

// PagePoolsKey is the query key of [Host.PagePools].
const PagePoolsKey = "netdev page-pools"

// PagePools lists the page pools of the network namespace. It needs no
// privilege. The error is ENOENT where the kernel has no such family (before
// 6.3), EOPNOTSUPP where it does not list pools (before 6.8).
func (h *Host) PagePools() ([]PagePool, error) {
	return Ask(h, PagePoolsKey, AskPagePools)
}

// Numbers of include/uapi/linux/netdev.h.
const (
	netdevPagePoolGet   = 5
	netdevPagePoolStats = 9
	netdevVersion       = 1

	poolID, poolIfIndex, poolNAPI, poolInflight, poolBytes, poolDetached = 1, 2, 3, 4, 5, 6

	statsInfo = 1
)

// poolStats are the counters of a pool that tell where its pages came from.
var poolStats = map[uint16]string{8: "alloc_fast", 9: "alloc_slow", 10: "alloc_slow_high_order", 12: "alloc_refill"}

// AskPagePools asks the kernel of the thread's network namespace. What decides
// a verdict is asked by [Host.PagePools] instead.
func AskPagePools() ([]PagePool, error) {
	pools := []PagePool{}
	err := dumpNetdev(netdevPagePoolGet, func(b []byte) error {
		if len(pools) >= maxPools {
			return ErrTooLarge
		}
		p, err := parsePool(b)
		pools = append(pools, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return pools, nil
}

// maxPools bounds what is believed: one for each queue of each interface.
const maxPools = 1 << 16

func dumpNetdev(cmd byte, each func(attrs []byte) error) error {
	family, err := genericFamily("netdev")
	if err != nil {
		return err
	}
	return NetlinkAsk(unix.NETLINK_GENERIC, NetlinkMessage(family, unix.NLM_F_DUMP, cmd, netdevVersion, 0, 0), func(kind uint16, body []byte) error {
		if kind != family || len(body) < unix.GENL_HDRLEN {
			return errors.New("the netlink reply is not of the family that was asked")
		}
		return each(body[unix.GENL_HDRLEN:])
	})
}

// uintOf reads a number that netlink writes in 4 bytes, or 8 where it must.
func uintOf(v []byte) uint64 {
	switch {
	case len(v) >= 8:
		return binary.NativeEndian.Uint64(v)
	case len(v) >= 4:
		return uint64(binary.NativeEndian.Uint32(v))
	}
	return 0
}

func parsePool(b []byte) (p PagePool, err error) {
	err = eachAttr(b, func(kind uint16, v []byte) error {
		switch kind {
		case poolID:
			p.ID = uintOf(v)
		case poolIfIndex:
			p.IfIndex = int(int32(uintOf(v)))
		case poolNAPI:
			p.NAPI = int(int32(uintOf(v)))
		case poolInflight:
			p.Inflight = uintOf(v)
		case poolBytes:
			p.Bytes = uintOf(v)
		case poolDetached:
			p.Detached = uintOf(v)
		}
		return nil
	})
	return p, err
}

// AskPoolStats asks for the statistics of the page pools of an interface of
// the thread's network namespace, added up, by name. The error is EOPNOTSUPP
// where the kernel has none (CONFIG_PAGE_POOL_STATS).
func AskPoolStats(ifindex int) (map[string]uint64, error) {
	sum := map[string]uint64{}
	err := dumpNetdev(netdevPagePoolStats, func(b []byte) error {
		at, stats, err := parsePoolStats(b)
		if at == ifindex {
			for name, n := range stats {
				sum[name] += n
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return sum, nil
}

func parsePoolStats(b []byte) (ifindex int, stats map[string]uint64, err error) {
	stats = map[string]uint64{}
	err = eachAttr(b, func(kind uint16, v []byte) error {
		if kind == statsInfo {
			p, err := parsePool(v) // an id and an ifindex under the same numbers
			ifindex = p.IfIndex
			return err
		}
		if name, ok := poolStats[kind]; ok {
			stats[name] = uintOf(v)
		}
		return nil
	})
	return ifindex, stats, err
}

// readPoolStats samples the page pools of an interface, for the counters of a
// source: "pool_alloc_fast", ….
func (h *Host) readPoolStats(ifname string) (map[string]uint64, error) {
	index, err := h.Int("/sys/class/net/" + ifname + "/ifindex")
	if err != nil {
		return nil, err
	}
	all, err := answer(h, "netdev page-pool-stats "+strconv.FormatInt(index, 10), func() (map[string]uint64, error) { return AskPoolStats(int(index)) })
	out := map[string]uint64{}
	for name, n := range all {
		out["pool_"+name] = n
	}
	return out, err
}

// XDPLink is an XDP program on an interface.
type XDPLink struct {
	Mode string `json:"mode"` // driver, generic, offload, or several
	ID   uint32 `json:"id"`   // of the program
}

// XDPKey is the query key of [Host.XDP].
const XDPKey = "link xdp"

// XDP tells which interfaces have an XDP program, by name. It needs no
// privilege.
func (h *Host) XDP() (map[string]XDPLink, error) {
	return Ask(h, XDPKey, func() (map[string]XDPLink, error) {
		request := NetlinkMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, join(
			make([]byte, unix.SizeofIfInfomsg), NetlinkAttr(unix.IFLA_EXT_MASK, native32(rtextSkipStats)...))...)
		var all map[string]XDPLink
		var err error
		for range 3 {
			all = map[string]XDPLink{}
			err = NetlinkAsk(unix.NETLINK_ROUTE, request, func(kind uint16, body []byte) error {
				name, x, err := parseXDP(kind, body)
				if x.Mode != "" {
					all[name] = x
				}
				return err
			})
			if !errors.Is(err, errInterrupted) {
				break
			}
		}
		if err != nil {
			return nil, err
		}
		return all, nil
	})
}

// Numbers of include/uapi/linux/if_link.h.
const (
	xdpAttached   = 2
	xdpProgID     = 4
	xdpDriverID   = 5
	xdpSKBID      = 6
	xdpHardwareID = 7
)

var xdpModes = map[byte]string{1: "driver", 2: "generic", 3: "offload", 4: "several"}

// parseXDP decodes an RTM_NEWLINK message; the mode is "" where there is no program.
func parseXDP(kind uint16, body []byte) (name string, x XDPLink, err error) {
	if kind != unix.RTM_NEWLINK {
		return "", x, nil
	}
	if len(body) < unix.SizeofIfInfomsg {
		return "", x, errors.New("the netlink reply is damaged: it is too short")
	}
	err = eachAttr(body[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			name = unix.ByteSliceToString(v)
		case unix.IFLA_XDP:
			return eachAttr(v, func(kind uint16, v []byte) error {
				switch {
				case kind == xdpAttached && len(v) >= 1:
					x.Mode = xdpModes[v[0]]
				case kind == xdpProgID, kind == xdpDriverID, kind == xdpHardwareID, kind == xdpSKBID && x.ID == 0:
					x.ID = uint32(uintOf(v))
				}
				return nil
			})
		}
		return nil
	})
	return name, x, err
}
