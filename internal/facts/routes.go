// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Route is one route of a main table.
type Route struct {
	Net    netip.Prefix
	IfName string
	Metric uint64
}

const (
	pathRoute4 = "/proc/net/route"
	pathRoute6 = "/proc/net/ipv6_route"
)

const (
	routeUp     = 0x1   // RTF_UP
	routeReject = 0x200 // RTF_REJECT: leads nowhere
)

// MainRoutes reads the main tables of IPv4 and IPv6, without those over lo; why
// says why they are not known. A kernel without IPv6 has no file of it.
func MainRoutes(h *host.Host) (routes []Route, why string) {
	for _, p := range []string{pathRoute4, pathRoute6} {
		b, err := h.Read(p)
		if err != nil {
			if kernelLacks(h, err) && p == pathRoute6 {
				continue
			}
			return nil, whyNot(h, err)
		}
		parse := parseRoute4
		if p == pathRoute6 {
			parse = parseRoute6
		}
		for line := range strings.Lines(string(b)) {
			if r, ok := parse(strings.Fields(line)); ok && r.IfName != "lo" {
				routes = append(routes, r)
			}
		}
	}
	return routes, ""
}

// OutOf gives the interface of the route to an address: the longest, and of
// several the one with the lowest metric; "" for none.
func OutOf(routes []Route, to netip.Addr) string {
	var best *Route
	for i := range routes {
		r := &routes[i]
		if r.Net.Contains(to) && (best == nil || r.Net.Bits() > best.Net.Bits() || r.Net.Bits() == best.Net.Bits() && r.Metric < best.Metric) {
			best = r
		}
	}
	if best == nil {
		return ""
	}
	return best.IfName
}

// parseRoute4 reads "Iface Destination Gateway Flags RefCnt Use Metric Mask …";
// addresses are hexadecimal, the lowest byte first, the metric is decimal.
func parseRoute4(f []string) (r Route, ok bool) {
	if len(f) < 8 {
		return r, false
	}
	dst, mask := routeAddress4(f[1]), routeAddress4(f[7])
	flags, err := strconv.ParseUint(f[3], 16, 32)
	metric, err2 := strconv.ParseUint(f[6], 10, 32)
	if err != nil || err2 != nil || !dst.IsValid() || !mask.IsValid() || flags&routeUp == 0 || flags&routeReject != 0 {
		return r, false
	}
	bits := 0
	for _, b := range mask.As4() {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return Route{netip.PrefixFrom(dst, bits), f[0], metric}, true
}

func routeAddress4(s string) netip.Addr {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return netip.Addr{}
	}
	slices.Reverse(b)
	return netip.AddrFrom4([4]byte(b))
}

// parseRoute6 reads "dst plen src plen gateway metric refcnt use flags iface",
// all hexadecimal.
func parseRoute6(f []string) (r Route, ok bool) {
	if len(f) < 10 {
		return r, false
	}
	b, err := hex.DecodeString(f[0])
	bits, err1 := strconv.ParseUint(f[1], 16, 8)
	metric, err2 := strconv.ParseUint(f[5], 16, 32)
	flags, err3 := strconv.ParseUint(f[8], 16, 32)
	if err != nil || err1 != nil || err2 != nil || err3 != nil || len(b) != 16 || bits > 128 || flags&routeUp == 0 || flags&routeReject != 0 {
		return r, false
	}
	return Route{netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), int(bits)), f[9], metric}, true
}
