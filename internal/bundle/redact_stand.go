// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// pseudonym is the n-th of its kind.
func (r *Redactor) pseudonym(k kindOf, v string, n int) string {
	switch k {
	case macKind:
		return r.mac(v, n)
	case guidKind:
		return r.guid(v, n)
	case ipKind:
		ip, err := netip.ParseAddr(v)
		if err != nil {
			return "0.0.0.0"
		}
		return r.ip(ip).String()
	case uuidKind:
		return fmt.Sprintf("0000000000004000800000%010x", n)
	case hostKind, userKind, secretKind, idKind, textKind:
	}
	return fmt.Sprintf("%s-%d", k, n)
}

// mac keeps whether an address is a group's. The range is for local use.
func (r *Redactor) mac(v string, n int) string {
	first := "02"
	if b, err := hex.DecodeString(v[:2]); err == nil && b[0]&1 != 0 {
		first = "03"
	}
	return fmt.Sprintf("%s0000%06x", first, n&0xffffff)
}

// guid keeps the MAC that is in an EUI-64, with (RFC 4291) or without the bit
// turned that says who gave it.
func (r *Redactor) guid(v string, n int) string {
	plain := v[:6] + v[10:]
	turned := turn(v[:2]) + v[2:6] + v[10:]
	for _, m := range []struct {
		mac  string
		turn bool
	}{{turned, true}, {plain, false}} {
		p := r.found[macKind][m.mac]
		if p == "" {
			continue
		}
		if m.turn {
			p = turn(p[:2]) + p[2:]
		}
		return p[:6] + v[6:10] + p[6:]
	}
	return fmt.Sprintf("0200000000%06x", n&0xffffff)
}

func turn(first string) string {
	b, err := strconv.ParseUint(first, 16, 8)
	if err != nil {
		return first
	}
	return fmt.Sprintf("%02x", b^2)
}

// networks is how addresses are moved: those of one range all by the same bits
// of their network, so that whatever was in one subnet stays so, and what is a
// network's own address too.
type networks struct {
	key      [2]uint64      // bits to move networks and interface identifiers by; kept nowhere
	shortest map[string]int // range -> length of the shortest prefix in use in it
}

// ranges of IPv4 that stay what they are.
var ranges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
}

var prefixForm = pattern.Late(`(\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]+)/(\d{1,3})`)

func (n *networks) learn(s *host.Snapshot) {
	n.shortest = map[string]int{}
	note := func(ip netip.Addr, bits int) {
		in := rangeOf(ip)
		most, least := 24, in.Bits()+4
		if ip.Is6() {
			most, least = 64, in.Bits()+8
		}
		if bits < least {
			return // the range itself: it moves to itself
		}
		if old, ok := n.shortest[in.String()]; !ok || bits < old {
			n.shortest[in.String()] = min(bits, most)
		}
	}
	text := func(t string) {
		for _, m := range prefixForm().FindAllStringSubmatch(t, -1) {
			ip, err := netip.ParseAddr(m[1])
			bits, err2 := strconv.Atoi(m[2])
			if err == nil && err2 == nil && bits <= ip.BitLen() {
				note(ip, bits)
			}
		}
	}
	for p, data := range s.Files {
		if strings.HasSuffix(p, "/net/route") {
			for line := range strings.Lines(string(data)) {
				f := strings.Fields(line)
				if len(f) < 8 {
					continue
				}
				dest, err := strconv.ParseUint(f[1], 16, 32)
				mask, err2 := strconv.ParseUint(f[7], 16, 32)
				if err == nil && err2 == nil {
					var b [4]byte
					binary.LittleEndian.PutUint32(b[:], uint32(dest))
					ones := 0
					for m := mask; m != 0; m &= m - 1 {
						ones++
					}
					note(netip.AddrFrom4(b), ones)
				}
			}
		}
		if len(data) < 1<<20 {
			text(string(data))
		}
	}
	for _, raw := range s.Queries {
		text(string(raw))
	}
}

func rangeOf(ip netip.Addr) netip.Prefix {
	if ip.Is4() {
		for _, p := range ranges {
			if p.Contains(ip) {
				return p
			}
		}
		p, _ := ip.Prefix(8)
		return p
	}
	p, _ := ip.Prefix(16)
	return p
}

// keepIP reports whether an address means the same on every host.
func keepIP(ip netip.Addr) bool {
	if ip.Is4In6() {
		return keepIP(ip.Unmap())
	}
	if ip.Is6() {
		b := ip.As16()
		return ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() && binary.BigEndian.Uint64(b[8:]) < 0x10000
	}
	b := ip.As4()
	switch {
	case ip.IsLoopback(), ip.IsMulticast(), b[0] == 0, b[0] >= 240:
		return true
	case ip == netip.AddrFrom4([4]byte{169, 254, 169, 254}), ip == netip.AddrFrom4([4]byte{168, 63, 129, 16}): // metadata of clouds, Azure's own
		return true
	}
	for _, p := range ranges {
		if ip == p.Addr() {
			return true
		}
	}
	return false
}

// ip moves an address within its range.
func (r *Redactor) ip(ip netip.Addr) netip.Addr {
	if keepIP(ip) {
		return ip
	}
	if ip.Is4In6() {
		return netip.AddrFrom16(r.ip(ip.Unmap()).As16())
	}
	in := rangeOf(ip)
	to, ok := r.nets.shortest[in.String()]
	if ip.Is4() {
		if !ok {
			to = 24
		}
		b := ip.As4()
		v := binary.BigEndian.Uint32(b[:])
		at := bits32(in.Bits(), to)
		move := uint32(r.nets.key[0]) & at
		if move == 0 {
			move = at & -at
		}
		binary.BigEndian.PutUint32(b[:], v^move)
		return netip.AddrFrom4(b)
	}
	if !ok {
		to = 48
	}
	b := ip.As16()
	net, own := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if !ip.IsLinkLocalUnicast() {
		at := ^uint64(0) >> in.Bits() &^ (^uint64(0) >> to)
		move := r.nets.key[0] & at
		if move == 0 {
			move = at & -at
		}
		net ^= move
	}
	if own >= 0x10000 {
		g := hex.EncodeToString(b[8:])
		p := r.guid(g, 0)
		if strings.HasPrefix(p, "0200000000") { // no known MAC in it
			own ^= r.nets.key[1] | 1<<40
		} else if q, err := strconv.ParseUint(p, 16, 64); err == nil {
			own = q
		}
	}
	binary.BigEndian.PutUint64(b[:8], net)
	binary.BigEndian.PutUint64(b[8:], own)
	return netip.AddrFrom16(b)
}

// bits32 has ones from one position to another, from the left.
func bits32(from, to int) uint32 {
	if from >= to {
		return 0
	}
	return ^uint32(0) >> from &^ (uint32(uint64(^uint32(0)) >> to))
}
