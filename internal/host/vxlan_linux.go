// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// VXLANLink is one VXLAN interface as rtnetlink tells it.
type VXLANLink struct {
	Name      string     `json:"name"`
	Index     int        `json:"index"`
	Up        bool       `json:"up"` // IFF_UP; while it is down its UDP port is not open
	MTU       int        `json:"mtu"`
	VNI       int        `json:"vni"`  // 0 where each packet brings its own
	Port      int        `json:"port"` // UDP, of the packets that it sends and receives
	Lower     string     `json:"lower"`
	LowerID   int        `json:"lower_index"`  // 0 for none
	Elsewhere bool       `json:"elsewhere"`    // its packets go through another network namespace
	Local     netip.Addr `json:"local"`        // "" for none
	Remote    netip.Addr `json:"remote"`       // an endpoint or a multicast group; "" for none
	External  bool       `json:"external"`     // metadata mode: routes or flows give the endpoint
	GPE       bool       `json:"gpe"`          // VXLAN-GPE
	Csum      bool       `json:"udp_csum"`     // UDP checksums over IPv4
	ZeroTX6   bool       `json:"udp6_zero_tx"` // sends none over IPv6
	ZeroRX6   bool       `json:"udp6_zero_rx"` // takes packets without over IPv6
}

// VXLANLinksKey is the query key of [Host.VXLANLinks].
const VXLANLinksKey = "rtnetlink vxlan links"

// VXLANLinks asks for the VXLAN interfaces of this network namespace, in the
// kernel's order. It needs no privilege.
func (h *Host) VXLANLinks() ([]VXLANLink, error) {
	return Ask(h, VXLANLinksKey, askVXLAN)
}

// Numbers of include/uapi/linux/if_link.h.
const (
	vxlanID       = 1
	vxlanGroup    = 2
	vxlanLink     = 3
	vxlanLocal    = 4
	vxlanPort     = 15
	vxlanGroup6   = 16
	vxlanLocal6   = 17
	vxlanCsum     = 18
	vxlanZeroTX6  = 19
	vxlanZeroRX6  = 20
	vxlanMetadata = 25
	vxlanGPE      = 27

	rtextSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS, rtnetlink.h
)

func askVXLAN() ([]VXLANLink, error) {
	// the kernel sends the links of this kind alone since 4.6, else all
	request := NetlinkMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, join(
		make([]byte, unix.SizeofIfInfomsg),
		NetlinkAttr(unix.IFLA_EXT_MASK, native32(rtextSkipStats)...),
		NetlinkAttr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, NetlinkAttr(unix.IFLA_INFO_KIND, []byte("vxlan")...)...),
	)...)
	links := []VXLANLink{}
	var err error
	for range 3 {
		links = links[:0]
		err = NetlinkAsk(unix.NETLINK_ROUTE, request, func(kind uint16, body []byte) error {
			l, ok, err := parseVXLAN(kind, body)
			if ok {
				links = append(links, l)
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
	names := map[int]string{}
	for i := range links {
		l := &links[i]
		if l.LowerID == 0 || l.Elsewhere {
			continue
		}
		if _, asked := names[l.LowerID]; !asked {
			if names[l.LowerID], err = linkName(l.LowerID); err != nil && !errors.Is(err, unix.ENODEV) {
				return nil, err
			}
		}
		l.Lower = names[l.LowerID]
	}
	return links, nil
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// linkName asks for the name of the interface of a number.
func linkName(index int) (name string, err error) {
	info := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(info[4:], uint32(index))
	info = append(info, NetlinkAttr(unix.IFLA_EXT_MASK, native32(rtextSkipStats)...)...)
	err = NetlinkAsk(unix.NETLINK_ROUTE, NetlinkMessage(unix.RTM_GETLINK, 0, info...), func(kind uint16, body []byte) error {
		if kind != unix.RTM_NEWLINK || len(body) < unix.SizeofIfInfomsg {
			return errors.New("the netlink reply is not about an interface")
		}
		return eachAttr(body[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
			if kind == unix.IFLA_IFNAME {
				name = unix.ByteSliceToString(v)
			}
			return nil
		})
	})
	return name, err
}

// parseVXLAN decodes an RTM_NEWLINK message: ifinfomsg and attributes. ok is
// whether it is about a VXLAN interface.
func parseVXLAN(kind uint16, body []byte) (l VXLANLink, ok bool, err error) {
	ne := binary.NativeEndian
	if kind != unix.RTM_NEWLINK {
		return l, false, nil
	}
	if len(body) < unix.SizeofIfInfomsg {
		return l, false, errors.New("the netlink reply is damaged: it is too short")
	}
	l.Index, l.Up = int(int32(ne.Uint32(body[4:]))), ne.Uint32(body[8:])&unix.IFF_UP != 0
	var data []byte
	err = eachAttr(body[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(v)
		case kind == unix.IFLA_MTU && len(v) >= 4:
			l.MTU = int(int32(ne.Uint32(v)))
		case kind == unix.IFLA_LINK_NETNSID:
			l.Elsewhere = true
		case kind == unix.IFLA_LINKINFO:
			return eachAttr(v, func(kind uint16, v []byte) error {
				switch kind {
				case unix.IFLA_INFO_KIND:
					ok = unix.ByteSliceToString(v) == "vxlan"
				case unix.IFLA_INFO_DATA:
					data = v
				}
				return nil
			})
		}
		return nil
	})
	if err != nil || !ok {
		return l, false, err
	}
	return l, true, eachAttr(data, func(kind uint16, v []byte) error {
		l.parse(kind, v)
		return nil
	})
}

// parse takes one attribute of IFLA_INFO_DATA.
func (l *VXLANLink) parse(kind uint16, v []byte) {
	set := len(v) > 0 && v[0] != 0
	switch {
	case kind == vxlanID && len(v) >= 4:
		l.VNI = int(binary.NativeEndian.Uint32(v))
	case kind == vxlanLink && len(v) >= 4:
		l.LowerID = int(int32(binary.NativeEndian.Uint32(v)))
	case kind == vxlanPort && len(v) >= 2:
		l.Port = int(binary.BigEndian.Uint16(v))
	case kind == vxlanGroup, kind == vxlanGroup6:
		l.Remote = address(v)
	case kind == vxlanLocal, kind == vxlanLocal6:
		l.Local = address(v)
	case kind == vxlanCsum:
		l.Csum = set
	case kind == vxlanZeroTX6:
		l.ZeroTX6 = set
	case kind == vxlanZeroRX6:
		l.ZeroRX6 = set
	case kind == vxlanMetadata:
		l.External = set
	case kind == vxlanGPE: // a flag: there without a value
		l.GPE = true
	}
}

// address reads the bytes of an address; the unspecified one is none.
func address(v []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(v)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// TunnelTable is one table of UDP ports whose tunnels a NIC looks into.
type TunnelTable struct {
	Size    int           `json:"size"`    // how many ports it holds at most
	Types   []string      `json:"types"`   // vxlan, geneve, vxlan-gpe; none for ports that the hardware always knows
	Entries []TunnelEntry `json:"entries"` // in use
}

// TunnelEntry is one port of a table.
type TunnelEntry struct {
	Port int    `json:"port"`
	Type string `json:"type"`
}

// EthtoolTunnels asks for the tables of UDP tunnel ports of a NIC, as "ethtool
// --show-tunnels" does. The error is EOPNOTSUPP where the driver has none, or
// the kernel is older than 5.9; ENOENT where it is older than 5.6. It needs no
// privilege.
func (h *Host) EthtoolTunnels(ifname string) ([]TunnelTable, error) {
	return Ask(h, TunnelsKey(ifname), func() ([]TunnelTable, error) {
		family, err := genericFamily("ethtool")
		if err != nil {
			return nil, err
		}
		tables := []TunnelTable{}
		err = NetlinkAsk(unix.NETLINK_GENERIC, tunnelsRequest(family, ifname), func(kind uint16, body []byte) error {
			if kind != family {
				return errors.New("the netlink reply is not of the family that was asked")
			}
			tables, err = parseTunnels(body)
			return err
		})
		if err != nil {
			return nil, err
		}
		return tables, nil
	})
}

// TunnelsKey is the query key of [Host.EthtoolTunnels].
func TunnelsKey(ifname string) string { return "ethtool " + ifname + " tunnels" }

// Numbers of include/uapi/linux/ethtool_netlink.h and ethtool.h.
const (
	ethtoolTunnelInfoGet = 28
	ethtoolVersion       = 1
	headerName           = 2 // of ETHTOOL_A_HEADER_*
	headerFlags          = 3
	compactBitsets       = 1
	tunnelHeader         = 1
	tunnelUDPPorts       = 2
	tunnelTable          = 1
	tableSize            = 1
	tableTypes           = 2
	tableEntry           = 3
	entryPort            = 1
	entryType            = 2
	bitsetValue          = 4
)

var tunnelTypes = []string{"vxlan", "geneve", "vxlan-gpe"}

func tunnelsRequest(family uint16, ifname string) []byte {
	header := join(NetlinkAttr(headerName, append([]byte(ifname), 0)...), NetlinkAttr(headerFlags, native32(compactBitsets)...))
	return NetlinkMessage(family, 0, join([]byte{ethtoolTunnelInfoGet, ethtoolVersion, 0, 0}, NetlinkAttr(tunnelHeader|unix.NLA_F_NESTED, header...))...)
}

// parseTunnels decodes ETHTOOL_MSG_TUNNEL_INFO_GET_REPLY.
func parseTunnels(b []byte) ([]TunnelTable, error) {
	if len(b) < unix.GENL_HDRLEN {
		return nil, errors.New("the netlink reply is damaged: it is too short")
	}
	tables := []TunnelTable{}
	err := eachAttr(b[unix.GENL_HDRLEN:], func(kind uint16, v []byte) error {
		if kind != tunnelUDPPorts {
			return nil
		}
		return eachAttr(v, func(kind uint16, v []byte) error {
			if kind != tunnelTable {
				return nil
			}
			t, err := parseTable(v)
			tables = append(tables, t)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return tables, nil
}

func parseTable(b []byte) (TunnelTable, error) {
	ne := binary.NativeEndian
	t := TunnelTable{Types: []string{}, Entries: []TunnelEntry{}}
	err := eachAttr(b, func(kind uint16, v []byte) error {
		switch {
		case kind == tableSize && len(v) >= 4:
			t.Size = int(int32(ne.Uint32(v)))
		case kind == tableTypes:
			return eachAttr(v, func(kind uint16, v []byte) error {
				if kind == bitsetValue && len(v) >= 4 {
					for i, name := range tunnelTypes {
						if ne.Uint32(v)&(1<<i) != 0 {
							t.Types = append(t.Types, name)
						}
					}
				}
				return nil
			})
		case kind == tableEntry:
			e := TunnelEntry{Type: "unknown"}
			t.Entries = append(t.Entries, e)
			at := &t.Entries[len(t.Entries)-1]
			return eachAttr(v, func(kind uint16, v []byte) error {
				switch {
				case kind == entryPort && len(v) >= 2:
					at.Port = int(binary.BigEndian.Uint16(v))
				case kind == entryType && len(v) >= 4:
					if n := ne.Uint32(v); n < uint32(len(tunnelTypes)) {
						at.Type = tunnelTypes[n]
					}
				}
				return nil
			})
		}
		return nil
	})
	return t, err
}
