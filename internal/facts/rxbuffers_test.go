// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"testing"
)

// The figures of the driver's own commit: 35 buffers in a page of 64K, 97 % and
// 50 % less memory than a page for each packet.
func TestManaLayout(t *testing.T) {
	for _, tt := range []struct {
		mtu, page, frags int
		packet, before   int64
	}{
		{1500, 4 << 10, 2, 2048, 4096}, {1500, 16 << 10, 8, 2048, 16384}, {1500, 64 << 10, 35, 1872, 65536},
		{4000, 4 << 10, 1, 8192, 8192}, {4000, 16 << 10, 3, 5461, 16384}, {4000, 64 << 10, 15, 4369, 65536},
		{9000, 4 << 10, 1, 16384, 16384}, {9000, 16 << 10, 1, 16384, 16384}, {9000, 64 << 10, 7, 9362, 65536},
	} {
		p := RXParams{Page: tt.page, MTU: tt.mtu, Frags: 17, Queues: 16, Ring: 1024}
		now, before := ManaLayout(p, true, false), ManaLayout(p, false, false)
		if now.PerPage != tt.frags || now.PacketBytes != tt.packet || before.PacketBytes != tt.before {
			t.Errorf("MTU %d on pages of %d: %d in a page, %d bytes, before %d; want %d, %d, %d",
				tt.mtu, tt.page, now.PerPage, now.PacketBytes, before.PacketBytes, tt.frags, tt.packet, tt.before)
		}
		if off := ManaLayout(p, true, true); off.PerPage != 1 || off.PacketBytes < int64(tt.page) {
			t.Errorf("MTU %d on pages of %d with full-page-rx: %+v", tt.mtu, tt.page, off)
		}
		p.XDP = true
		if x := ManaLayout(p, true, false); x.PerPage != 1 || x.PacketBytes != int64(tt.page) || x.LargestMTU != 0 {
			t.Errorf("MTU %d on pages of %d with XDP: %+v", tt.mtu, tt.page, x)
		}
	}
	saved := func(page int) string {
		p := RXParams{Page: page, MTU: 1500, Frags: 17}
		a, b := ManaLayout(p, false, false).PacketBytes, ManaLayout(p, true, false).PacketBytes
		return fmt.Sprintf("%.1f", 100-100*float64(b)/float64(a))
	}
	if a, b, c := saved(64<<10), saved(16<<10), saved(4<<10); a != "97.1" || b != "87.5" || c != "50.0" {
		t.Errorf("saved are %s %%, %s %% and %s %%", a, b, c)
	}
	for page, largest := range map[int]int{4 << 10: 1714, 16 << 10: 7858, 64 << 10: 32434} {
		p := RXParams{Page: page, MTU: largest, Frags: 17}
		l := ManaLayout(p, true, false)
		p.MTU++
		if l.LargestMTU != largest || l.Whole() || !ManaLayout(p, true, false).Whole() {
			t.Errorf("the largest MTU of pages of %d is %d, want %d", page, l.LargestMTU, largest)
		}
	}
	if l := ManaLayout(RXParams{Page: 4096, MTU: 1500, Frags: 45}, true, false); !l.Whole() {
		t.Errorf("with 45 fragments two buffers do not fit into 4K, and the layout is %+v", l)
	}
	for _, tt := range []struct {
		page, queues, ring int
		change             int64
	}{{4 << 10, 64, 1024, 256 << 20}, {64 << 10, 16, 1024, 1 << 30}, {64 << 10, 64, 1024, 4 << 30}, {64 << 10, 64, 8192, 32 << 30}} {
		l := ManaLayout(RXParams{Page: tt.page, MTU: 1500, Frags: 17, Queues: tt.queues, Ring: tt.ring}, true, false)
		if l.ChangeBytes != tt.change {
			t.Errorf("a change of %d queues × %d takes %d bytes, want %d", tt.queues, tt.ring, l.ChangeBytes, tt.change)
		}
	}
}

func TestMellanoxLayouts(t *testing.T) {
	at := func(page, mtu int) RXParams { return RXParams{Page: page, MTU: mtu, Frags: 17, Queues: 1, Ring: 1024} }
	xdp := func(p RXParams) RXParams { p.XDP = true; return p }
	for name, tt := range map[string]struct {
		got    *RXLayout
		frags  int
		packet int64
	}{
		"mlx5 1500 4K":          {Mlx5Layout(at(4<<10, 1500), true), 2, 2048},
		"mlx5 1500 64K":         {Mlx5Layout(at(64<<10, 1500), true), 32, 2048},
		"mlx5 9000 4K":          {Mlx5Layout(at(4<<10, 9000), true), 1, 9216},
		"mlx5 9000 64K":         {Mlx5Layout(at(64<<10, 9000), true), 7, 9216},
		"mlx5 legacy 9000 64K":  {Mlx5Layout(at(64<<10, 9000), false), 4, 16384},
		"mlx5 legacy 1500 4K":   {Mlx5Layout(at(4<<10, 1500), false), 2, 2048},
		"mlx5 XDP 1500 64K":     {Mlx5Layout(xdp(at(64<<10, 1500)), true), 1, 65536},
		"mlx4 1500 4K":          {Mlx4Layout(at(4<<10, 1500)), 2, 2048},
		"mlx4 1500 64K":         {Mlx4Layout(at(64<<10, 1500)), 42, 1536},
		"mlx4 9000 4K":          {Mlx4Layout(at(4<<10, 9000)), 1, 10240},
		"mlx4 XDP 1500 64K":     {Mlx4Layout(xdp(at(64<<10, 1500))), 1, 65536},
		"mana 2 queues of 1024": {ManaLayout(RXParams{Page: 64 << 10, MTU: 1500, Frags: 17, Queues: 2, Ring: 1024}, true, false), 35, 1872},
	} {
		if tt.got == nil || tt.got.PerPage != tt.frags || tt.got.PacketBytes != tt.packet {
			t.Errorf("%s: %+v; want %d in a page and %d bytes", name, tt.got, tt.frags, tt.packet)
		}
	}
	if l := ManaLayout(RXParams{Page: 64 << 10, MTU: 1500, Frags: 17, Queues: 2, Ring: 1024}, true, false); l.RingBytes != 2*30*65536 {
		t.Errorf("two rings of 1024 take %d bytes", l.RingBytes)
	}
}

// Whatever the settings, a packet has the memory that it needs and no layout
// claims less than none.
func FuzzRXLayout(f *testing.F) {
	f.Add(4096, 1500, 17, 16, 1024, false, false)
	f.Add(65536, 9000, 45, 64, 8192, true, true)
	f.Fuzz(func(t *testing.T, page, mtu, frags, queues, ring int, xdp, flag bool) {
		p := RXParams{Page: page, MTU: mtu, XDP: xdp, Frags: frags, Queues: queues, Ring: ring}
		for _, l := range []*RXLayout{ManaLayout(p, true, flag), ManaLayout(p, false, flag), Mlx5Layout(p, flag), Mlx4Layout(p)} {
			if l == nil {
				continue
			}
			// XDP of mana and mlx4 limits the MTU to what a page holds, which is not asked here
			if l.PerPage < 1 || l.RingBytes < 0 || l.ChangeBytes < 0 || !xdp && l.PacketBytes < int64(mtu) {
				t.Errorf("%+v: %+v", p, l)
			}
		}
	})
}
