// SPDX-License-Identifier: Apache-2.0

package facts

import "math/bits"

// RXLayout is how a driver lays received packets into pages, as its code says
// for these settings.
type RXLayout struct {
	Rule        string `json:"rule"`             // whose rule: "mana", "mana before fragments", "mlx5 striding", "mlx5 legacy", "mlx4"
	Exact       bool   `json:"exact"`            // the driver's own arithmetic; else an estimate of it
	PerPage     int    `json:"buffers_per_page"` // 1: each packet takes a page or more
	Spread      bool   `json:"spread"`           // a packet lies in several pieces, of which others share the pages
	PacketBytes int64  `json:"packet_bytes"`     // memory that a packet holds while it is in the ring or on its way
	RingBytes   int64  `json:"ring_bytes"`       // all rings of the interface, full
	ChangeBytes int64  `json:"change_bytes"`     // taken on top while the rings are made anew, for a change of MTU, rings, queues, flag or XDP
	LargestMTU  int    `json:"largest_mtu"`      // with which several buffers share a page; 0 for none
}

// Whole reports whether each packet takes pages for itself alone.
func (l *RXLayout) Whole() bool { return l.PerPage == 1 && !l.Spread }

// RXParams is what a layout follows from.
type RXParams struct {
	Page   int  // bytes of a page: 4096, 16384 or 65536
	MTU    int  // bytes, of the device that receives
	XDP    bool // a program runs in the driver
	Frags  int  // CONFIG_MAX_SKB_FRAGS: 17 unless the kernel was built otherwise
	Queues int  // receive queues
	Ring   int  // entries of each
}

// usable bounds the parameters to what the kernel can have: arithmetic on
// nonsense would overflow.
func (p RXParams) usable() bool {
	return p.Page >= 4096 && p.Page <= 1<<20 && p.Page&(p.Page-1) == 0 && p.MTU >= 0 && p.MTU <= 1<<17 &&
		p.Frags >= 0 && p.Frags <= 64 && p.Queues >= 0 && p.Queues <= 1<<16 && p.Ring >= 0 && p.Ring <= 1<<20
}

const (
	ethHeader   = 14
	xdpHeadroom = 256 // XDP_PACKET_HEADROOM
	cacheLine   = 64
)

func alignUp(n, to int) int { return (n + to - 1) / to * to }

func powerOfTwo(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

// sharedInfo is what the kernel keeps behind a packet's bytes (struct
// skb_shared_info): 48 bytes and 16 for each fragment, in cache lines. 320 with
// 17 fragments, 768 with 45.
func sharedInfo(frags int) int { return alignUp(48+16*frags, cacheLine) }

// pages is the bytes of the pages, in one piece, that hold n bytes.
func pages(page, n int) int { return max(page, powerOfTwo(alignUp(n, page)/page)*page) }

// ManaLayout is mana's rule (mana_get_rxbuf_cfg since 730ff06d3f5c): buffers
// share a page unless fullPage is set, a program runs, or half a page does
// not hold one. shares is whether the driver can at all; before it could,
// each took a page.
func ManaLayout(p RXParams, shares, fullPage bool) *RXLayout {
	if !p.usable() {
		return nil
	}
	pad := sharedInfo(p.Frags) + ethHeader // MANA_RXBUF_PAD
	if !shares {
		headroom := 0
		if p.MTU <= p.Page-pad-xdpHeadroom {
			headroom = xdpHeadroom
		}
		l := &RXLayout{Rule: "mana before fragments", Exact: true}
		return l.whole(p, pages(p.Page, max(p.Page, alignUp(p.MTU+pad+headroom, cacheLine))))
	}
	l := &RXLayout{Rule: "mana", Exact: true}
	if !fullPage && !p.XDP {
		l.LargestMTU = p.Page/2 - pad
	}
	buffer := alignUp(p.MTU+pad, cacheLine) // MANA_RX_FRAG_ALIGNMENT
	if fullPage || p.XDP || p.MTU+pad > p.Page/2 {
		if p.XDP {
			buffer = p.Page
		}
		return l.whole(p, pages(p.Page, buffer))
	}
	l.PerPage = p.Page / buffer
	l.PacketBytes = int64(p.Page / l.PerPage)
	l.RingBytes = int64(p.Queues) * int64(p.Ring/l.PerPage+1) * int64(p.Page) // pool_size of mana_create_page_pool
	l.ChangeBytes = int64(p.Queues) * int64(p.Ring) * int64(p.Page)           // mana_pre_alloc_rxbufs: a page for each buffer, whatever the layout
	return l
}

// whole is the layout in which a packet has bytes, of whole pages, for itself.
func (l *RXLayout) whole(p RXParams, bytes int) *RXLayout {
	l.PerPage, l.PacketBytes = 1, int64(bytes)
	l.RingBytes = int64(p.Queues) * int64(p.Ring) * l.PacketBytes
	l.ChangeBytes = l.RingBytes
	return l
}

// strides is the layout in which a packet takes bytes of pages that others
// share.
func (l *RXLayout) strides(p RXParams, bytes int) *RXLayout {
	l.PerPage, l.PacketBytes = max(1, p.Page/bytes), int64(bytes)
	l.RingBytes = int64(p.Queues) * int64(p.Ring) * l.PacketBytes
	l.ChangeBytes = l.RingBytes // the new channels are opened beside the old
	return l
}

// Numbers of mlx5 (en/params.c, en.h).
const (
	mlx5Overhead   = ethHeader + 4 + 4 // MLX5E_SW2HW_MTU: header, VLAN tag, checksum
	mlx5Headroom   = 64                // MLX5_RX_HEADROOM: NET_SKB_PAD
	mlx5StrideMax  = 8192              // the largest stride of the hardware
	mlx5StrideMin  = 256               // of packets that do not fit into one
	mlx5Fragment   = 2048              // DEFAULT_FRAG_SIZE of the legacy queue
	mlx4Fragment   = 2048              // FRAG_SZ0 and its like
	mlx4Fragments  = 4                 // MLX4_EN_MAX_RX_FRAGS
	mlx4VLANHeader = 4
)

// Mlx5Layout is mlx5's rule: a packet takes one stride, a power of two that
// holds headroom, packet and shared info, where page and hardware allow; else
// it is spread, over strides of 256 bytes or fragments of 2048. With XDP it
// takes a page (kernels from 7.1 on need less where the page is larger than 4K).
func Mlx5Layout(p RXParams, striding bool) *RXLayout {
	if !p.usable() {
		return nil
	}
	l := &RXLayout{Rule: "mlx5 legacy", Exact: true}
	if striding {
		l.Rule = "mlx5 striding"
	}
	packet := p.MTU + mlx5Overhead
	if p.XDP {
		l.Exact = p.Page == 4096
		return l.whole(p, pages(p.Page, packet+xdpHeadroom+sharedInfo(p.Frags)))
	}
	stride := powerOfTwo(alignUp(mlx5Headroom+packet, cacheLine) + sharedInfo(p.Frags))
	most := p.Page
	if striding {
		most = min(p.Page, mlx5StrideMax)
	}
	l.LargestMTU = min(most, p.Page/2) - sharedInfo(p.Frags) - mlx5Headroom - mlx5Overhead
	switch {
	case stride <= most:
		return l.strides(p, stride)
	case striding:
		l.Spread = true
		return l.strides(p, alignUp(packet, mlx5StrideMin))
	}
	l.Exact, l.Spread = false, true
	return l.strides(p, alignUp(packet, mlx5Fragment))
}

// Mlx4Layout is mlx4's rule (mlx4_en_calc_rx_buf): fragments of up to 2048
// bytes, each widened until they fill the page; with XDP a page.
func Mlx4Layout(p RXParams) *RXLayout {
	if !p.usable() {
		return nil
	}
	l := &RXLayout{Rule: "mlx4", Exact: true}
	packet := p.MTU + ethHeader + 2*mlx4VLANHeader
	if p.XDP {
		return l.whole(p, p.Page)
	}
	l.LargestMTU = mlx4Fragments*mlx4Fragment - ethHeader - 2*mlx4VLANHeader
	most := mlx4Fragment
	if packet > p.Page+(mlx4Fragments-1)*mlx4Fragment {
		most = p.Page
	}
	l.Spread = packet > most
	total := 0
	for i, left := 0, packet; left > 0 && i < mlx4Fragments; i++ {
		n := left
		if i < mlx4Fragments-1 {
			n = min(n, most)
		}
		left -= n
		stride := alignUp(n, cacheLine)
		if stride > p.Page { // no MTU that the driver takes
			return nil
		}
		each := p.Page / stride
		stride += (p.Page - each*stride) / each / cacheLine * cacheLine
		total += stride
	}
	return l.strides(p, max(total, cacheLine))
}
