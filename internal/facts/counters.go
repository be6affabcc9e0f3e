// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// Counted is the counters of one object, sampled twice.
type Counted struct {
	Object  string            `json:"object"`  // "rdma mlx5_0/1", a port; "ethtool eth0", an interface; "pages eth0", its received packets and its page pools; "aer 0000:18:00.0", a PCI function; "migration"
	Seconds *float64          `json:"seconds"` // between the samples
	First   map[string]uint64 `json:"first"`   // empty: it has none
	Last    map[string]uint64 `json:"last"`
	Unknown Unknown           `json:"unknown,omitempty"`

	counters host.Counters
}

// Grown is by how much a counter grew; false where that is not known.
func (c *Counted) Grown(name string) (uint64, bool) { return c.counters.Grown(name) }

// Source names the query for evidence.
func (c *Counted) Source() string { return "counters " + c.Object }

// Counters is every object whose counters are looked at: the ports of RDMA
// devices and their interfaces, MANA's interfaces and the synthetic ones above
// them, the pages that interfaces receive into, PCI functions on whose links errors
// were corrected, and page migration where engines copy.
type Counters struct{ List []*Counted }

// MarshalJSON writes the list.
func (c *Counters) MarshalJSON() ([]byte, error) { return json.Marshal(c.List) }

// Of gives one object, or nil.
func (c *Counters) Of(object string) *Counted {
	for _, o := range c.List {
		if o.Object == object {
			return o
		}
	}
	return nil
}

// counting takes the samples once.
type counting struct {
	once sync.Once
	c    *Counters
}

// FactsInterval is what "hostcheck facts counters" waits between its samples.
const FactsInterval = time.Second

// Counters samples all counters, which takes as long as the interval on a live
// host that has any. All who ask share one pair of samples, taken with the
// interval of the first.
func (f *Facts) Counters(ctx context.Context, interval time.Duration) *Counters {
	f.counters.once.Do(func() { f.counters.c = decodeCounters(ctx, f, interval) })
	return f.counters.c
}

// CounterObjects names what Counters looks at, without reading it.
func (f *Facts) CounterObjects() []host.CounterSource {
	var sources []host.CounterSource
	seen := map[string]bool{}
	add := func(s host.CounterSource) {
		if !seen[s.Name] {
			seen[s.Name] = true
			sources = append(sources, s)
		}
	}
	nics := f.NICs()
	for _, d := range f.RDMA().Devices {
		if d.VF || d.BDF != nil && *d.BDF == "" {
			continue
		}
		for _, p := range d.Ports {
			add(host.CounterSource{Name: PortCounters(d, p), Dirs: []string{d.PortAttr(p, "hw_counters"), d.PortAttr(p, "counters")}})
			if p.Netdev == nil {
				continue
			}
			if nic := nics.Named(*p.Netdev); nic != nil && nic.Physical() && p.Ethernet() {
				add(host.CounterSource{Name: NICCounters(nic.Name), Interface: nic.Name, Keep: nicStatistics().MatchString})
			}
		}
	}
	for _, n := range nics.List {
		if !n.MANA() {
			continue
		}
		add(host.CounterSource{Name: NICCounters(n.Name), Interface: n.Name, Keep: nicStatistics().MatchString})
		if n.Master != nil && *n.Master != "" {
			add(host.CounterSource{Name: NICCounters(*n.Master), Interface: *n.Master, Keep: netvscStatistics().MatchString})
		}
	}
	for _, n := range nics.List {
		if n.Physical() && !n.VF && !n.Representor && n.Driver != nil && hasRule(*n.Driver) {
			add(pageSource(n))
		}
	}
	if o := f.Migration().Offload; o != nil && o.On != nil && *o.On {
		add(host.CounterSource{Name: MigrationCounters, Dirs: []string{o.Dir}, Keep: migrationCounter, File: VMStat, Parse: migrationCounters})
	}
	for _, c := range f.AER().List {
		if len(c.Correctable) > 0 { // others are known not to grow: they have none since boot
			add(host.CounterSource{Name: AERCounters(c.BDF), File: PCIDevices + "/" + c.BDF + "/aer_dev_correctable", Parse: aerCounters})
		}
	}
	return sources
}

// MigrationCounters is the object of page migration, sampled where engines copy.
const MigrationCounters = "migration"

func migrationCounter(name string) bool {
	return slices.Contains(VMStatMigration, name) || name == FoliosMigrated || name == FoliosFailed
}

// migrationCounters takes those of vmstat.
func migrationCounters(text string) (map[string]uint64, error) {
	n := parseVMStat(text)
	maps.DeleteFunc(n, func(name string, _ uint64) bool { return !migrationCounter(name) })
	return n, nil
}

// PortCounters is the object of an RDMA port.
func PortCounters(d *RDMADevice, p *RDMAPort) string {
	return "rdma " + d.Device + "/" + strconv.Itoa(p.Port)
}

// NICCounters is the object of an interface.
func NICCounters(ifname string) string { return "ethtool " + ifname }

// MANA reports whether the interface is one of Microsoft's adapter.
func (n *NIC) MANA() bool { return n.Driver != nil && *n.Driver == "mana" }

// The statistics that checks look at, of mlx5 (mlx5/core/en_stats.c) and mana
// (mana_ethtool.c), and of hv_netvsc (netvsc_drv.c); of thousands.
var (
	nicStatistics = pattern.Late(`^((rx|tx)_prio[0-7]_(pause|discards)|(rx|tx)_discards_phy|tx_pause_storm_(warning|error)_events|link_down_events_phy|` +
		`hc_.*|(rx|tx)_cqe_unknown_type|tx_cq_err|rx_coalesced_err|tx_[0-9]+_mana_map_err|rx_[0-9]+_pkt_len0_err|(rx|tx)_[0-9]+_packets)$`)
	netvscStatistics = pattern.Late(`^(vf_(rx|tx)_packets|vf_tx_dropped|(rx|tx)_queue_[0-9]+_packets)$`)
)

var errNoInterval = errors.New("the samples are not an interval apart")

func decodeCounters(ctx context.Context, f *Facts, interval time.Duration) *Counters {
	h := f.host
	sources := f.CounterObjects()
	h.SampleCounters(ctx, interval, sources)
	c := &Counters{List: []*Counted{}}
	for _, s := range sources {
		o := &Counted{Object: s.Name}
		got, err := h.Counters(s.Name)
		if err == nil && got.Seconds <= 0 {
			err = errNoInterval
		}
		if err != nil {
			why := strings.TrimPrefix(host.Reason(err), o.Source()+": ")
			if errors.Is(err, host.ErrNotCaptured) {
				why = "a tree shows one moment, and no samples of its counters were recorded with it"
			}
			for _, field := range []string{"seconds", "first", "last"} {
				o.Unknown.say(field, why)
			}
		} else {
			o.counters, o.Seconds, o.First, o.Last = got, &got.Seconds, got.First, got.Last
		}
		c.List = append(c.List, o)
	}
	return c
}
