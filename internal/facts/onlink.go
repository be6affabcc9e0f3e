// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// PathRoutes is the main IPv4 routing table.
const PathRoutes = "/proc/net/route"

// IPv4 is an address.
type IPv4 uint32

func (a IPv4) String() string {
	return fmt.Sprintf("%d.%d.%d.%d", a>>24, a>>16&0xff, a>>8&0xff, a&0xff)
}

// IPv4Net is a network: its address and the length of its prefix.
type IPv4Net struct {
	Addr IPv4
	Bits int
}

func (n IPv4Net) String() string { return fmt.Sprintf("%v/%d", n.Addr, n.Bits) }

// Contains reports whether an address is in the network.
func (n IPv4Net) Contains(a IPv4) bool { return n.Bits == 0 || (n.Addr^a)>>(32-n.Bits) == 0 }

// Overlaps reports whether one of the networks is in the other.
func (n IPv4Net) Overlaps(o IPv4Net) bool {
	if n.Bits > o.Bits {
		n, o = o, n
	}
	return n.Contains(o.Addr)
}

// ParseIPv4Net reads "10.0.0.0/24".
func ParseIPv4Net(s string) (n IPv4Net, ok bool) {
	addr, bits, slash := strings.Cut(s, "/")
	parts := strings.Split(addr, ".")
	length, err := strconv.ParseUint(bits, 10, 8)
	if !slash || len(parts) != 4 || err != nil || length > 32 {
		return n, false
	}
	for _, p := range parts {
		b, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return n, false
		}
		n.Addr = n.Addr<<8 | IPv4(b)
	}
	n.Bits = int(length)
	return n, true
}

// OnLink is one network that is reached without a gateway.
type OnLink struct {
	Interface string
	Network   IPv4Net
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
		bits := 0
		for m := ofPacket(n[3]); m&(1<<31) != 0; m <<= 1 {
			bits++
		}
		net := IPv4Net{ofPacket(n[0]), bits}
		net.Addr &^= IPv4(uint64(1)<<(32-bits) - 1)
		links = append(links, OnLink{w[0], net})
	}
	return links, nil
}

// ofPacket turns what a little-endian machine prints into an address.
func ofPacket(n uint64) IPv4 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(n))
	return IPv4(binary.BigEndian.Uint32(b[:]))
}

// IPv4 gives the address that a GID stands for.
func (g RDMAGID) IPv4() (a IPv4, ok bool) {
	w, ok := parseGID(g.GID)
	if !ok || [6]uint16(w[:6]) != [6]uint16{5: 0xffff} {
		return a, false
	}
	return IPv4(w[6])<<16 | IPv4(w[7]), true
}
