// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"cmp"
	"slices"
)

// BatchAdvice is what a sweep of the batch limit says for one size and number
// of channels.
type BatchAdvice struct {
	FolioKB  int     `json:"folio_kb"`
	Channels int     `json:"channels"`
	N90      int     `json:"n90"` // smallest limit, base pages, with 90 % of the best throughput
	N95      int     `json:"n95"`
	Gain     float64 `json:"gain"` // best throughput over that of the smallest limit

	points []point
}

// point is one limit of a sweep.
type point struct {
	n     int // base pages
	gbps  float64
	first *float64 // us
}

// BatchChoice is the limit for the size that counts.
type BatchChoice struct {
	BatchAdvice
	N       int      `json:"n"` // to choose
	GBps    float64  `json:"gbps"`
	FirstUS *float64 `json:"first_us"`
	Limit   int      `json:"limit"`   // of the kernel that is advised; 0: not known
	Patched bool     `json:"patched"` // N is beyond it: needs a kernel that is built with another limit
	Keep    bool     `json:"keep"`    // a larger one brings next to nothing
	Over    bool     `json:"over"`    // no limit of the sweep keeps the budget

	page int // KiB of a base page
}

// batches looks at every sweep.
func (f *figures) batches() (all []BatchAdvice) {
	type key struct{ kb, channels int }
	points := map[key][]point{}
	for _, r := range f.m.Rows {
		if r.Channels == 0 || r.BatchPages == 0 || !whole(r) || cellOf(r).noisy() {
			continue
		}
		k := key{r.FolioKB, r.Channels}
		i := slices.IndexFunc(points[k], func(p point) bool { return p.n == r.BatchPages })
		if i < 0 {
			points[k] = append(points[k], point{r.BatchPages, r.GBps, r.FirstUS})
			continue
		}
		p := &points[k][i] // another direction: the worse counts
		p.gbps = min(p.gbps, r.GBps)
		if r.FirstUS != nil && (p.first == nil || *r.FirstUS > *p.first) {
			p.first = r.FirstUS
		}
	}
	for k, list := range points {
		if len(list) < 2 {
			continue
		}
		slices.SortFunc(list, func(a, b point) int { return cmp.Compare(a.n, b.n) })
		b := BatchAdvice{FolioKB: k.kb, Channels: k.channels, points: list}
		best := 0.0
		for _, p := range list {
			best = max(best, p.gbps)
		}
		b.N90, b.N95, b.Gain = reach(list, 0.90*best), reach(list, 0.95*best), best/list[0].gbps
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b BatchAdvice) int {
		return cmp.Or(cmp.Compare(a.FolioKB, b.FolioKB), cmp.Compare(a.Channels, b.Channels))
	})
	return all
}

// reach is the smallest limit with that throughput.
func reach(list []point, gbps float64) int {
	i := slices.IndexFunc(list, func(p point) bool { return p.gbps >= gbps })
	return list[i].n // one has the best
}

// choose takes the sweep of a size with as many channels as are to be used, or
// the next that has more: a limit that suits those suits fewer.
func (f *figures) choose(all []BatchAdvice, kb, channels int) *BatchChoice {
	var best *BatchAdvice
	for i := range all {
		b := &all[i]
		if b.FolioKB == kb && (best == nil || best.Channels < channels) { // they ascend
			best = b
		}
	}
	if best == nil {
		return nil
	}
	c := &BatchChoice{BatchAdvice: *best, Limit: cmp.Or(f.limit, StockBatch(f.m.Host.PageKB)), N: best.N90, page: f.m.Host.PageKB}
	c.Keep = best.Gain < worth || channels == 0
	switch {
	case f.o.Budget > 0:
		c.N = 0
		for _, p := range best.points {
			if p.first != nil && *p.first <= float64(f.o.Budget.Microseconds()) {
				c.N = max(c.N, p.n)
			}
		}
		c.N = min(c.N, best.N95)
		if c.N == 0 {
			c.Over, c.N = true, best.points[0].n
		}
		if c.Keep {
			c.N = best.points[0].n
		}
	case c.Keep:
		c.N = best.points[0].n
	}
	for _, p := range best.points {
		if p.n == c.N {
			c.GBps, c.FirstUS = p.gbps, p.first
		}
	}
	c.Patched = c.N > c.Limit
	return c
}

// StockBatch is the batch limit of an unpatched kernel: as many base pages as a
// PMD maps (HPAGE_PMD_NR), an entry of 8 bytes for each.
func StockBatch(pageKB int) int { return pageKB << 10 / 8 }
