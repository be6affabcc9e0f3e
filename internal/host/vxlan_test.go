// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func u32(v uint32) []byte  { return binary.NativeEndian.AppendUint32(nil, v) }
func port(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func ip(s string) []byte   { return netip.MustParseAddr(s).AsSlice() }
func text(s string) []byte { return append([]byte(s), 0) }
func flagged(b []byte, flags uint16) []byte {
	binary.NativeEndian.PutUint16(b[6:], flags)
	return b
}

func ifinfo(index, flags uint32) []byte {
	return cat([]byte{0, 0, 1, 0}, u32(index), u32(flags), u32(0))
}

// vxlanMessage is the body of RTM_NEWLINK about one VXLAN interface.
func vxlanMessage(data ...[]byte) []byte {
	return cat(ifinfo(7, unix.IFF_UP|unix.IFF_BROADCAST),
		attr(unix.IFLA_IFNAME, text("vxlan0")...), attr(unix.IFLA_MTU, u32(1450)...), attr(200, 1, 2, 3),
		attr(unix.IFLA_LINKINFO|nested, cat(attr(unix.IFLA_INFO_KIND, text("vxlan")...), attr(unix.IFLA_INFO_DATA|nested, cat(data...)...))...))
}

func TestParseVXLAN(t *testing.T) {
	for name, tt := range map[string]struct {
		body []byte
		want VXLANLink
	}{
		"group": {
			vxlanMessage(attr(vxlanID, u32(17)...), attr(vxlanGroup, ip("239.1.1.1")...), attr(vxlanLink, u32(4)...), attr(vxlanPort, port(8472)...), attr(vxlanCsum, 1)),
			VXLANLink{VNI: 17, Remote: netip.MustParseAddr("239.1.1.1"), LowerID: 4, Port: 8472, Csum: true},
		},
		"IPv6": {
			vxlanMessage(attr(vxlanID, u32(1<<24-1)...), attr(vxlanLocal6, ip("fd00::1")...), attr(vxlanGroup6, ip("fd00::2")...), attr(vxlanPort, port(4789)...), attr(vxlanZeroTX6, 1), attr(vxlanZeroRX6, 0)),
			VXLANLink{VNI: 1<<24 - 1, Local: netip.MustParseAddr("fd00::1"), Remote: netip.MustParseAddr("fd00::2"), Port: 4789, ZeroTX6: true},
		},
		"metadata, GPE": {
			vxlanMessage(attr(vxlanMetadata, 1), attr(vxlanGPE), attr(vxlanLocal, 0, 0, 0, 0), attr(vxlanPort, port(4790)...)),
			VXLANLink{External: true, GPE: true, Port: 4790},
		},
		"in another namespace": {
			cat(vxlanMessage(attr(vxlanLink, u32(4)...)), attr(unix.IFLA_LINK_NETNSID, u32(0)...)),
			VXLANLink{LowerID: 4, Elsewhere: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.want.Name, tt.want.Index, tt.want.Up, tt.want.MTU = "vxlan0", 7, true, 1450
			got, ok, err := parseVXLAN(unix.RTM_NEWLINK, tt.body)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Error(d)
			}
			b, err := json.Marshal(got)
			var back VXLANLink
			if err != nil || json.Unmarshal(b, &back) != nil || back != got {
				t.Errorf("it does not survive JSON: %s, %v, %+v", b, err, back)
			}
		})
	}
	other := cat(ifinfo(1, 0), attr(unix.IFLA_LINKINFO|nested, attr(unix.IFLA_INFO_KIND, text("bridge")...)...))
	if _, ok, err := parseVXLAN(unix.RTM_NEWLINK, other); ok || err != nil {
		t.Errorf("a bridge: %v %v", ok, err)
	}
	if _, _, err := parseVXLAN(unix.RTM_NEWLINK, other[:10]); err == nil {
		t.Error("a message cut short has no error")
	}
}

// tunnelsReply is what a driver with a table of seven ports and the port that
// its hardware always knows answers.
func tunnelsReply() []byte {
	table := func(size uint32, types uint32, entries ...[]byte) []byte {
		return attr(tunnelTable|nested, cat(append([][]byte{
			attr(tableSize, u32(size)...),
			attr(tableTypes|nested, cat(attr(1), attr(2, u32(3)...), attr(bitsetValue, u32(types)...))...),
		}, entries...)...)...)
	}
	entry := func(number uint16, kind uint32) []byte {
		return attr(tableEntry|nested, cat(attr(entryPort, port(number)...), attr(entryType, u32(kind)...))...)
	}
	return cat([]byte{28, 1, 0, 0},
		attr(tunnelHeader|nested, attr(1, u32(4)...)...),
		attr(tunnelUDPPorts|nested, cat(table(7, 1, entry(8472, 0)), table(4, 6, entry(6081, 1), entry(4790, 2), entry(1, 9)), table(1, 0, entry(4789, 0)))...))
}

func TestParseTunnels(t *testing.T) {
	got, err := parseTunnels(tunnelsReply())
	if err != nil {
		t.Fatal(err)
	}
	want := []TunnelTable{
		{7, []string{"vxlan"}, []TunnelEntry{{8472, "vxlan"}}},
		{4, []string{"geneve", "vxlan-gpe"}, []TunnelEntry{{6081, "geneve"}, {4790, "vxlan-gpe"}, {1, "unknown"}}},
		{1, []string{}, []TunnelEntry{{4789, "vxlan"}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for n := range len(tunnelsReply()) { // never a panic, and no table that is not there
		if got, err := parseTunnels(tunnelsReply()[:n]); err == nil && len(got) > len(want) {
			t.Errorf("cut to %d bytes: %v", n, got)
		}
	}
}

func TestNetlinkMessages(t *testing.T) {
	multi := func(kind uint16, body ...byte) []byte {
		return flagged(message(kind, netlinkSeq, body), unix.NLM_F_MULTI)
	}
	for name, tt := range map[string]struct {
		b    []byte
		n    int
		done bool
		err  error
	}{
		"one":           {message(16, netlinkSeq, u32(0)), 1, true, nil},
		"part of many":  {cat(multi(16, 1, 2, 3, 4), multi(16)), 2, false, nil},
		"the last part": {cat(multi(16), multi(unix.NLMSG_DONE, u32(0)...)), 1, true, nil},
		"refused":       {message(unix.NLMSG_ERROR, netlinkSeq, u32(uint32(0xffffffff-uint32(syscall.EOPNOTSUPP)+1))), 0, true, syscall.EOPNOTSUPP},
		"dump refused":  {multi(unix.NLMSG_DONE, u32(uint32(0xffffffff-uint32(syscall.EPERM)+1))...), 0, true, syscall.EPERM},
		"changed":       {flagged(message(16, netlinkSeq, nil), unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR), 0, true, errInterrupted},
	} {
		n := 0
		done, err := netlinkMessages(tt.b, func(uint16, []byte) error { n++; return nil })
		if n != tt.n || done != tt.done || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d messages, done %v, %v", name, n, done, err)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "cut": message(16, netlinkSeq, u32(0))[:18], "of another request": message(16, 7, nil), "no length": make([]byte, 16),
	} {
		if _, err := netlinkMessages(b, func(uint16, []byte) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The request is what iproute2 and ethtool send.
func TestTunnelsRequest(t *testing.T) {
	got := tunnelsRequest(21, "ens1np0")
	header := cat(attr(2, text("ens1np0")...), attr(3, u32(1)...))
	want := flagged(message(21, netlinkSeq, cat([]byte{28, 1, 0, 0}, attr(1|nested, header...))), unix.NLM_F_REQUEST)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzVXLAN(f *testing.F) {
	f.Add(flagged(message(unix.RTM_NEWLINK, netlinkSeq, vxlanMessage(attr(vxlanID, u32(17)...), attr(vxlanGroup6, ip("fd00::2")...))), unix.NLM_F_MULTI))
	f.Add(message(unix.NLMSG_DONE, netlinkSeq, u32(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = netlinkMessages(b, func(kind uint16, body []byte) error {
			l, ok, err := parseVXLAN(kind, body)
			if ok && (l.Port < 0 || l.Port > 65535 || l.VNI < 0) {
				t.Errorf("%+v, %v", l, err)
			}
			return nil
		})
	})
}

func FuzzTunnels(f *testing.F) {
	f.Add(tunnelsReply())
	f.Fuzz(func(t *testing.T, b []byte) {
		tables, err := parseTunnels(b)
		if err != nil && tables != nil {
			t.Errorf("tables with an error: %v", err)
		}
		for _, table := range tables {
			for _, e := range table.Entries {
				if e.Type == "" || e.Port < 0 || e.Port > 65535 {
					t.Errorf("%+v", e)
				}
			}
		}
	})
}
