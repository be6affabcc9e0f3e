// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// RXFrag is how much memory received packets take: predicted by each driver's
// rule, and as the kernel shows it.
type RXFrag struct {
	PageSize  *int       `json:"page_size"`     // bytes
	SkbFrags  *int       `json:"max_skb_frags"` // CONFIG_MAX_SKB_FRAGS
	PoolStats *bool      `json:"pool_stats"`    // CONFIG_PAGE_POOL_STATS: whether the kernel counts where pages come from
	Processor *string    `json:"processor"`     // version of the first processor in the firmware's table, where a MANA interface is; "Cobalt 200"
	NICs      []*RXNIC   `json:"nics"`          // PCI interfaces that are no VFs of this host and whose driver has a rule or a page pool
	Stuck     []PagePool `json:"stuck"`         // pools that their driver gave up and that still have pages out; null when not known
	Uptime    *uint64    `json:"uptime"`        // /proc/uptime in whole seconds, for the age of those
	Unknown   Unknown    `json:"unknown,omitempty"`
}

// PagePool is a pool of pages for received packets.
type PagePool = host.PagePool

// RXNIC is one interface's receive buffers.
type RXNIC struct {
	Name    string `json:"nic"`
	Driver  string `json:"driver"`
	MTU     *int   `json:"mtu"`
	XDP     *bool  `json:"xdp"`   // a program runs in the driver, or on the synthetic interface above, which passes it on
	Above   string `json:"above"` // the synthetic interface whose traffic this carries, "" for none
	Queues  *int   `json:"queues"`
	Ring    *int   `json:"ring"`     // entries of each receive ring
	Shares  *bool  `json:"shares"`   // the driver can put several packets in a page
	HasFlag *bool  `json:"has_flag"` // the driver has a private flag that chooses the layout
	Synced  *bool  `json:"synced"`   // mana: bounce buffers are synchronised for the CPU; null for other drivers
	Flag    string `json:"flag"`     // name of that flag: full-page-rx, rx_striding_rq; "" where the driver never has one
	On      *bool  `json:"flag_on"`  // whether it is on; null where there is none

	Predicted *RXLayout   `json:"predicted"`
	Observed  *RXObserved `json:"observed"`
	Unknown   Unknown     `json:"unknown,omitempty"`

	nic *NIC
}

// NIC is the interface itself.
func (n *RXNIC) NIC() *NIC { return n.nic }

// RXObserved is what the kernel shows of an interface's page pools.
type RXObserved struct {
	Pools    int    `json:"pools"`          // in use
	Pages    uint64 `json:"inflight_pages"` // out of the pools: in rings, on their way up, in sockets
	Bytes    uint64 `json:"inflight_bytes"`
	Detached int    `json:"detached"` // pools of before a change that still have pages out
	// Packets and PagesGiven are of an interval; null without traffic, samples,
	// or statistics in the kernel.
	Packets    *uint64 `json:"packets"`
	PagesGiven *uint64 `json:"pages_given"`
}

// PagesPerPacket is how many pages a packet took in the interval; false where
// there was too little traffic to tell.
func (o *RXObserved) PagesPerPacket() (float64, bool) {
	if o == nil || o.Packets == nil || o.PagesGiven == nil || *o.Packets < enoughPackets {
		return 0, false
	}
	return float64(*o.PagesGiven) / float64(*o.Packets), true
}

// enoughPackets is how many make a ratio: at 35 buffers in a page, some 30
// pages.
const enoughPackets = 1000

// rxFlags are the private flags that choose a layout, by driver. mana's is
// inverted: on means a page for each packet.
var rxFlags = map[string]string{"mana": "full-page-rx", "mlx5_core": "rx_striding_rq"}

// hasRule tells the drivers whose rule is known.
func hasRule(driver string) bool {
	return slices.Contains([]string{"mana", "mlx5_core", "mlx4_core", "mlx4_en"}, driver)
}

// RXFrag gives the receive buffers. It samples no counters: see
// [Facts.RXTraffic].
func (f *Facts) RXFrag() *RXFrag { return f.rxfrag.get(f, decodeRXFrag) }

func decodeRXFrag(f *Facts) *RXFrag {
	r := &RXFrag{NICs: []*RXNIC{}}
	pools, poolsErr := []PagePool(nil), error(nil)
	var xdp map[string]host.XDPLink
	var xdpErr error
	asked := false
	for _, n := range f.NICs().List {
		if !n.Physical() || n.VF || n.Representor || n.Driver == nil {
			continue
		}
		if !asked {
			asked = true
			pools, poolsErr = f.host.PagePools()
		}
		if !hasRule(*n.Driver) && !slices.ContainsFunc(pools, func(p PagePool) bool { return p.IfIndex != 0 && p.IfIndex == indexOf(f.host, n) }) {
			continue
		}
		if len(r.NICs) == 0 {
			xdp, xdpErr = f.host.XDP()
		}
		r.NICs = append(r.NICs, &RXNIC{Name: n.Name, Driver: *n.Driver, nic: n})
	}
	r.readKernel(f)
	for _, n := range r.NICs {
		n.readState(f.NICs(), xdp, xdpErr)
		n.readDriver(f)
		n.predict(r)
		n.observe(f, pools, poolsErr)
	}
	r.readStuck(f, asked, pools, poolsErr)
	r.readProcessor(f)
	return r
}

func indexOf(h *host.Host, n *NIC) int {
	i, err := h.Int(n.Attr("ifindex"))
	if err != nil {
		return -1
	}
	return int(i)
}

func (r *RXFrag) readKernel(f *Facts) {
	k := f.Kernel()
	if r.PageSize = k.PageSize; r.PageSize == nil {
		r.Unknown.say("page_size", k.Unknown["page_size"])
	}
	if k.Config == nil {
		for _, field := range []string{"max_skb_frags", "pool_stats"} {
			r.Unknown.say(field, k.Unknown["config"])
		}
		return
	}
	r.PoolStats = new(k.Config["CONFIG_PAGE_POOL_STATS"] == "y")
	frags, has := k.Config["CONFIG_MAX_SKB_FRAGS"]
	if !has { // before 6.4 it was no option
		r.SkbFrags = new(17)
		return
	}
	n, err := strconv.Atoi(frags)
	if err != nil || n < 17 || n > 45 {
		r.Unknown.say("max_skb_frags", k.ConfigSource+": CONFIG_MAX_SKB_FRAGS is "+strconv.Quote(frags)+", and 17 to 45 are possible")
		return
	}
	r.SkbFrags = &n
}

func (n *RXNIC) readState(nics *NICs, xdp map[string]host.XDPLink, xdpErr error) {
	nic := n.nic
	if n.MTU = nic.MTU; n.MTU == nil {
		n.Unknown.say("mtu", nic.Unknown["mtu"])
	}
	if nic.Master != nil && *nic.Master != "" {
		if up := nics.Named(*nic.Master); up != nil && up.Driver != nil && *up.Driver == "hv_netvsc" {
			n.Above = up.Name
		}
	}
	if xdpErr != nil {
		n.Unknown.say("xdp", host.Reason(xdpErr))
	} else {
		inDriver := func(name string) bool { x, on := xdp[name]; return on && x.Mode != "generic" && x.Mode != "offload" }
		n.XDP = new(inDriver(n.Name) || n.Above != "" && inDriver(n.Above))
	}
	if nic.Channels == nil {
		n.Unknown.say("queues", nic.Unknown["channels"])
	} else {
		n.Queues = new(nic.Channels.Combined + nic.Channels.RX)
	}
	if nic.Rings == nil {
		n.Unknown.say("ring", nic.Unknown["rings"])
	} else {
		n.Ring = &nic.Rings.RX
	}
}

// readDriver finds out what the driver can do, from the kernel's own types:
// releases do not tell, as distributions port changes back.
func (n *RXNIC) readDriver(f *Facts) {
	n.Flag = rxFlags[n.Driver]
	switch on, has := n.nic.PrivFlags[n.Flag]; {
	case n.Flag == "":
		n.HasFlag = new(false)
	case n.nic.PrivFlags != nil:
		if n.HasFlag = &has; has {
			n.On = &on
		}
	case notOffered(n.nic.Unknown["priv_flags"]):
		n.HasFlag = new(false)
	default:
		n.Unknown.say("has_flag", n.nic.Unknown["priv_flags"])
		n.Unknown.say("flag_on", n.nic.Unknown["priv_flags"])
	}
	if n.Driver != "mana" {
		if hasRule(n.Driver) {
			n.Shares = new(true)
		} else {
			n.Unknown.say("shares", "hostcheck does not know how "+n.Driver+" lays out its buffers")
		}
		return
	}
	types, err := f.host.BTF("mana")
	if err == nil {
		switched := n.HasFlag != nil && *n.HasFlag // who can switch it off can do it
		n.Shares, n.Synced = new(types["mana_rxq.frag_count"] || switched), new(types["mana_recv_buf_oob.dma_sync_offset"])
		return
	}
	why := "the kernel's type information does not tell: " + host.Reason(err)
	if host.Absent(err) {
		why = "the kernel has no type information of mana (CONFIG_DEBUG_INFO_BTF_MODULES), and its release does not tell what was ported back"
	}
	n.Unknown.say("synced", why)
	if n.HasFlag != nil && *n.HasFlag {
		n.Shares = new(true)
		return
	}
	n.Unknown.say("shares", why)
}

// notOffered recognises the reason that [NIC.told] gives.
func notOffered(why string) bool { return why == "not applicable: the driver does not offer it" }

// Layout is the rule of the interface's driver for other settings; nil where
// something that it follows from is not known.
func (n *RXNIC) Layout(r *RXFrag, change func(p *RXParams, flag *bool)) *RXLayout {
	if r.PageSize == nil || n.MTU == nil || n.XDP == nil || n.Queues == nil || n.Ring == nil || n.Shares == nil || r.SkbFrags == nil {
		return nil
	}
	p := RXParams{Page: *r.PageSize, MTU: *n.MTU, XDP: *n.XDP, Frags: *r.SkbFrags, Queues: *n.Queues, Ring: *n.Ring}
	flag := n.On != nil && *n.On
	if n.Flag != "" && n.HasFlag == nil {
		return nil
	}
	if change != nil {
		change(&p, &flag)
	}
	switch n.Driver {
	case "mana":
		return ManaLayout(p, *n.Shares, flag)
	case "mlx5_core":
		return Mlx5Layout(p, flag)
	case "mlx4_core", "mlx4_en":
		return Mlx4Layout(p)
	}
	return nil
}

func (n *RXNIC) predict(r *RXFrag) {
	if n.Predicted = n.Layout(r, nil); n.Predicted != nil {
		return
	}
	for _, field := range []string{"shares", "mtu", "xdp", "queues", "ring", "has_flag"} {
		if why := n.Unknown[field]; why != "" {
			n.Unknown.say("predicted", why)
			return
		}
	}
	for _, field := range []string{"page_size", "max_skb_frags"} {
		if why := r.Unknown[field]; why != "" {
			n.Unknown.say("predicted", why)
			return
		}
	}
	n.Unknown.say("predicted", "its settings are none that the driver's rule has an answer for")
}

func (n *RXNIC) observe(f *Facts, pools []PagePool, err error) {
	index, indexErr := f.host.Int(n.nic.Attr("ifindex"))
	switch {
	case err != nil:
		n.Unknown.say("observed", poolsWhy(err))
		return
	case indexErr != nil:
		n.Unknown.say("observed", whyNot(f.host, indexErr))
		return
	}
	n.Observed = new(RXObserved)
	for _, p := range pools {
		if int64(p.IfIndex) != index || p.IfIndex == 0 {
			continue
		}
		if p.Detached != 0 {
			n.Observed.Detached++
			continue
		}
		n.Observed.Pools++
		n.Observed.Pages += p.Inflight
		n.Observed.Bytes += p.Bytes
	}
	if n.Observed.Pools == 0 {
		n.Unknown.say("observed", "the driver has no page pool that the kernel lists")
		if n.Observed.Detached == 0 {
			n.Observed = nil
		}
	}
}

func poolsWhy(err error) string {
	switch {
	case errors.Is(err, host.ErrNotCaptured):
		return "the page pools are not in this tree"
	case host.Absent(err), host.NotOffered(err):
		return "this kernel does not list page pools (it does from 6.8 on, with CONFIG_PAGE_POOL)"
	}
	return host.Reason(err)
}

// readStuck keeps the pools that were given up: those of interfaces that are
// gone, too.
func (r *RXFrag) readStuck(f *Facts, asked bool, pools []PagePool, err error) {
	r.Stuck = []PagePool{}
	if !asked {
		return
	}
	if err != nil {
		r.Stuck = nil
		r.Unknown.say("stuck", poolsWhy(err))
		return
	}
	for _, p := range pools {
		if p.Detached != 0 {
			r.Stuck = append(r.Stuck, p)
		}
	}
	text, upErr := f.host.Text("/proc/uptime")
	up, parseErr := parseUptime(text)
	switch {
	case upErr != nil:
		r.Unknown.say("uptime", whyNot(f.host, upErr))
	case parseErr != nil:
		r.Unknown.say("uptime", "/proc/uptime: "+parseErr.Error())
	default:
		r.Uptime = &up
	}
}

// parseUptime reads the whole seconds of /proc/uptime: "350735.47 234388.90".
func parseUptime(text string) (uint64, error) {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(text[:n], 10, 40)
	if err != nil {
		return 0, errors.New("not a number of seconds")
	}
	return v, nil
}

// Of gives an interface's buffers, or nil.
func (r *RXFrag) Of(name string) *RXNIC {
	for _, n := range r.NICs {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// PageCounters is the object of an interface's packets and the pages that they
// took.
func PageCounters(ifname string) string { return "pages " + ifname }

// pageStatistics are the files of an interface's statistics that are sampled.
func pageStatistics(name string) bool { return name == "rx_packets" || name == "rx_bytes" }

// pageSource is where the counters of [PageCounters] are.
func pageSource(n *NIC) host.CounterSource {
	return host.CounterSource{Name: PageCounters(n.Name), Dirs: []string{n.Attr("statistics")}, Keep: pageStatistics, Pools: n.Name}
}

// Traffic fills in what the interval of the counters says: packets, and pages
// that the pools gave out for them. Fragments count as none
// (since ef04d290c013, 6.13).
func (o *RXObserved) Traffic(c *Counted) {
	if o == nil || c == nil || c.Seconds == nil {
		return
	}
	if n, ok := c.Grown("rx_packets"); ok {
		o.Packets = &n
	}
	var pages uint64
	known := false
	for _, name := range []string{"pool_alloc_fast", "pool_alloc_slow", "pool_alloc_slow_high_order", "pool_alloc_refill"} {
		n, ok := c.Grown(name)
		known = known || ok
		if !ok && c.Last[name] != 0 { // set back, as a change of the rings does
			return
		}
		pages += n
	}
	if known {
		o.PagesGiven = &pages
	}
}

// RXTraffic is RXFrag with what the interval of the counters says of each
// interface. All who ask share one pair of samples: see [Facts.Counters].
func (f *Facts) RXTraffic(ctx context.Context, interval time.Duration) *RXFrag {
	r := f.RXFrag()
	if len(r.NICs) == 0 {
		return r
	}
	all := f.Counters(ctx, interval)
	f.rxtraffic.Do(func() {
		for _, n := range r.NICs {
			n.Observed.Traffic(all.Of(PageCounters(n.Name)))
		}
	})
	return r
}
