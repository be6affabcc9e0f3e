// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"maps"
	"testing"

	"golang.org/x/sys/unix"
)

func native64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

func TestParsePool(t *testing.T) {
	b := join(NetlinkAttr(poolID, native32(7)...), NetlinkAttr(poolIfIndex, native32(3)...), NetlinkAttr(poolNAPI, native32(801)...),
		NetlinkAttr(poolInflight, native32(64)...), NetlinkAttr(poolBytes, native64(5<<32)...))
	want := PagePool{ID: 7, IfIndex: 3, NAPI: 801, Inflight: 64, Bytes: 5 << 32}
	if p, err := parsePool(b); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	want.Detached = 1234
	if p, err := parsePool(join(b, NetlinkAttr(poolDetached, native32(1234)...))); err != nil || p != want {
		t.Errorf("given up: %+v, %v", p, err)
	}
	info := join(NetlinkAttr(poolID, native32(7)...), NetlinkAttr(poolIfIndex, native32(3)...))
	at, stats, err := parsePoolStats(join(NetlinkAttr(statsInfo|unix.NLA_F_NESTED, info...), NetlinkAttr(8, native32(10)...), NetlinkAttr(9, native64(20)...),
		NetlinkAttr(10, native32(0)...), NetlinkAttr(11, native32(99)...), NetlinkAttr(12, native32(40)...), NetlinkAttr(14, native32(7)...)))
	if err != nil || at != 3 || !maps.Equal(stats, map[string]uint64{"alloc_fast": 10, "alloc_slow": 20, "alloc_slow_high_order": 0, "alloc_refill": 40}) {
		t.Errorf("interface %d, %v, %v", at, stats, err)
	}
}

func TestParseXDP(t *testing.T) {
	link := func(x ...byte) []byte {
		return join(make([]byte, unix.SizeofIfInfomsg), NetlinkAttr(unix.IFLA_IFNAME, []byte("eth0\x00")...), NetlinkAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, x...))
	}
	for want, b := range map[XDPLink][]byte{
		{}:                         link(NetlinkAttr(xdpAttached, 0)...),
		{Mode: "driver", ID: 71}:   link(join(NetlinkAttr(xdpAttached, 1), NetlinkAttr(xdpProgID, native32(71)...), NetlinkAttr(xdpDriverID, native32(71)...))...),
		{Mode: "generic", ID: 5}:   link(join(NetlinkAttr(xdpAttached, 2), NetlinkAttr(xdpSKBID, native32(5)...))...),
		{Mode: "several", ID: 1}:   link(join(NetlinkAttr(xdpAttached, 4), NetlinkAttr(xdpDriverID, native32(1)...), NetlinkAttr(xdpSKBID, native32(2)...))...),
		{Mode: "offload", ID: 300}: link(join(NetlinkAttr(xdpAttached, 3), NetlinkAttr(xdpHardwareID, native32(300)...))...),
	} {
		if name, x, err := parseXDP(unix.RTM_NEWLINK, b); err != nil || name != "eth0" || x != want {
			t.Errorf("%s %+v, %v; want %+v", name, x, err, want)
		}
	}
	if _, _, err := parseXDP(unix.RTM_NEWLINK, []byte{1}); err == nil {
		t.Error("a message that is too short was decoded")
	}
}

// The kernel answers, or says that it has no such thing.
func TestPagePoolsOfThisKernel(t *testing.T) {
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.PagePools(); err != nil && !Absent(err) && !NotOffered(err) {
		t.Errorf("page pools: %v", err)
	}
	if _, err := AskPoolStats(1); err != nil && !Absent(err) && !NotOffered(err) {
		t.Errorf("their statistics: %v", err)
	}
	if _, err := h.XDP(); err != nil {
		t.Errorf("XDP: %v", err)
	}
}

func FuzzNetdev(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 7, 0, 0, 0})
	f.Add(join(make([]byte, unix.SizeofIfInfomsg), NetlinkAttr(unix.IFLA_XDP, NetlinkAttr(xdpAttached, 1)...)))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parsePool(b)
		_, _, _ = parsePoolStats(b)
		_, _, _ = parseXDP(unix.RTM_NEWLINK, b)
	})
}
