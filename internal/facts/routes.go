// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// PathRoutes is the main IPv4 routing table.
const PathRoutes = "/proc/net/route"

// OnLink is one network that is reached without a gateway.
type OnLink struct {
	Interface string
	Prefix    netip.Prefix
}

// OnLink gives the networks of the main IPv4 routing table that are reached
// without a gateway, in the order of the table: of one network the first
// interface gets the packets. why says why they are not known.
func (f *Facts) OnLink() (links []OnLink, why string) {
	b, err := f.host.Read(PathRoutes)
	if err != nil {
		return nil, whyNot(f.host, err)
	}
	if links, err = parseOnLink(string(b)); err != nil {
		return nil, PathRoutes + ": " + err.Error()
	}
	return links, ""
}

const (
	routeUp     = 1 // RTF_UP of include/uapi/linux/route.h
	routeReject = 0x200
)

// parseOnLink reads /proc/net/route: interface, destination, gateway, flags,
// …, mask in the eighth column. Addresses are the bytes of the packet, printed
// as a number of a little-endian machine.
func parseOnLink(text string) (links []OnLink, err error) {
	links = []OnLink{}
	for i, line := range strings.Split(text, "\n") {
		w := strings.Fields(line)
		if i == 0 || len(w) == 0 {
			continue // the heading
		}
		if len(w) < 8 {
			return nil, fmt.Errorf("line %d has %d columns", i+1, len(w))
		}
		var n [4]uint64 // destination, gateway, flags, mask
		for j, col := range []int{1, 2, 3, 7} {
			if n[j], err = strconv.ParseUint(w[col], 16, 32); err != nil {
				return nil, fmt.Errorf("line %d: %q is not a number", i+1, w[col])
			}
		}
		if n[0] == 0 || n[1] != 0 || n[2]&routeUp == 0 || n[2]&routeReject != 0 {
			continue
		}
		var addr, mask [4]byte
		binary.LittleEndian.PutUint32(addr[:], uint32(n[0]))
		binary.LittleEndian.PutUint32(mask[:], uint32(n[3]))
		bits := 0
		for m := binary.BigEndian.Uint32(mask[:]); m&(1<<31) != 0; m <<= 1 {
			bits++
		}
		links = append(links, OnLink{w[0], netip.PrefixFrom(netip.AddrFrom4(addr), bits).Masked()})
	}
	return links, nil
}

// IPv4 gives the address that a GID stands for.
func (g RDMAGID) IPv4() (a netip.Addr, ok bool) {
	w, ok := parseGID(g.GID)
	if !ok || [6]uint16(w[:6]) != [6]uint16{5: 0xffff} {
		return a, false
	}
	return netip.AddrFrom4([4]byte{byte(w[6] >> 8), byte(w[6]), byte(w[7] >> 8), byte(w[7])}), true
}
