// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hostcheck/hostcheck/internal/bench"
)

// The rules of advice on copy engines. Each was found on published tables and is
// the same for every host; what comes out is what the host's own figures say.
const (
	noisy     = 0.15 // a deviation beyond this share of the mean: the figure is dropped
	assumedSD = 0.03 // of figures without a deviation; what published tables have
	nearBest  = 0.95 // of settings that win, the smallest within this share of the best is taken
	worth     = 1.10 // below this gain nothing is switched on
)

// MigrationOptions are what advice depends on beside the figures.
type MigrationOptions struct {
	Budget      time.Duration // longest time that the first folio of a batch may be away; 0: no limit
	BatchPages  int           // NR_MAX_BATCHED_MIGRATION of the kernel that is advised, base pages; 0: that of the measured one
	MaxChannels int           // channels that there are; 0: as many as were measured
	FolioKB     int           // size of most of what migrates on the host; 0: not known
}

// MigrationAdvice is what figures of page migration say.
type MigrationAdvice struct {
	Sizes    []SizeAdvice  `json:"sizes"`    // by folio size
	Batches  []BatchAdvice `json:"batches"`  // by folio size and channels, where batch limits were swept
	Callers  []Knee        `json:"callers"`  // by folio size, where several calls at a time were measured
	Decided  bool          `json:"decided"`  // the figures decide; else it is left as it is
	Offload  bool          `json:"offload"`  // switch it on
	Channels int           `json:"channels"` // nr_dma_chan, where Offload
	Because  string        `json:"because"`  // of Offload
	Batch    *BatchChoice  `json:"batch"`    // of the size that counts; nil where no limits were swept
	Notes    []string      `json:"notes"`
}

// SizeAdvice is the verdict on one folio size: the worst of all directions.
type SizeAdvice struct {
	FolioKB  int     `json:"folio_kb"`
	BaseGBps float64 `json:"base_gbps"` // the CPU copies; 1e9 bytes a second
	Above    int     `json:"above"`     // fewest channels whose mean is above the CPU's; 0: none
	Wins     []int   `json:"wins"`      // channels that win beyond the noise
	Noisy    []int   `json:"noisy"`     // channels whose figure was dropped
	Offload  bool    `json:"offload"`
	Channels int     `json:"channels"` // to use; 0: none
	GBps     float64 `json:"gbps"`     // with them
	Speedup  float64 `json:"speedup"`  // GBps / BaseGBps
	Capped   bool    `json:"capped"`   // the batch limit keeps a batch from using more channels
}

// cell is the mean and deviation of one setting.
type cell struct {
	channels int
	gbps, sd float64
}

func cellOf(r bench.MigrationRow) cell {
	c := cell{r.Channels, r.GBps, r.SD}
	if c.sd == 0 {
		c.sd = assumedSD * c.gbps
	}
	return c
}

// noisy figures decide nothing.
func (c cell) noisy() bool { return c.sd > noisy*c.gbps }

// beats is a win beyond the noise of both.
func (c cell) beats(base cell) bool { return c.gbps-c.sd > base.gbps+base.sd }

// direction is from one node to another.
type direction struct{ from, to int }

// AdviseMigration draws advice from figures. The error says what is missing for
// any.
func AdviseMigration(m *bench.Migration, o MigrationOptions) (*MigrationAdvice, error) {
	if len(m.Rows) == 0 {
		return nil, fmt.Errorf("cannot advise: the measurement has no figures, and %d discarded runs", len(m.Discarded))
	}
	f := &figures{m: m, o: o, limit: cmp.Or(o.BatchPages, m.Host.BatchPages)}
	a := &MigrationAdvice{Batches: f.batches(), Callers: f.callers()}
	for _, kb := range f.sizes() {
		if s, ok := f.size(kb); ok {
			a.Sizes = append(a.Sizes, s)
		}
	}
	if len(a.Sizes) == 0 && len(a.Callers) == 0 && len(a.Batches) == 0 {
		return nil, fmt.Errorf("cannot advise: no folio size has a figure of the CPU's own copy to compare with")
	}
	f.decide(a)
	a.Notes = append(a.Notes, f.plausible()...)
	return a, nil
}

// figures is one measurement that advice is drawn from.
type figures struct {
	m     *bench.Migration
	o     MigrationOptions
	limit int // batch limit of the kernel that is advised, base pages; 0: not known
}

func (f *figures) sizes() (kb []int) {
	for _, r := range f.m.Rows {
		if !slices.Contains(kb, r.FolioKB) {
			kb = append(kb, r.FolioKB)
		}
	}
	slices.Sort(kb)
	return kb
}

func (f *figures) directions(kb int) (all []direction) {
	for _, r := range f.m.Rows {
		if d := (direction{r.From, r.To}); r.FolioKB == kb && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// pages of one folio.
func (f *figures) pages(kb int) int { return max(1, kb/f.m.Host.PageKB) }

// usable is how many channels a batch can use at most: each folio of it goes to
// one. 0: as many as there are.
func (f *figures) usable(kb int) int {
	if f.limit == 0 {
		return 0
	}
	return max(1, f.limit/f.pages(kb))
}

// whole reports whether a row is of one caller that gives all at once.
func whole(r bench.MigrationRow) bool { return r.Workers <= 1 && r.CallFolio == 0 }

// cells gives the figures of one size and direction that hold for the kernel
// that is advised: the CPU's own, and those of the engine by channels. Where the
// batches of that kernel are smaller than those of the measured one, figures that
// were taken with its limit count, or else those of as many channels as such a
// batch can use.
func (f *figures) cells(kb int, d direction) (base cell, engine []cell, capped, ok bool) {
	usable := f.usable(kb)
	smaller := f.limit > 0 && f.limit < f.m.Host.BatchPages
	var own, swept []cell
	for _, r := range f.m.Rows {
		if r.FolioKB != kb || (direction{r.From, r.To}) != d || !whole(r) {
			continue
		}
		if r.Channels == 0 {
			if r.BatchPages == 0 && (!ok || r.GBps > base.gbps) { // pinned in several ways: the best is to be beaten
				base, ok = cellOf(r), true
			}
			continue
		}
		capped = capped || smaller && r.Channels > usable
		switch {
		case f.o.MaxChannels > 0 && r.Channels > f.o.MaxChannels:
		case r.BatchPages == 0 && (!smaller || r.Channels <= usable):
			own = append(own, cellOf(r))
		case r.BatchPages != 0 && r.BatchPages == f.limit:
			swept = append(swept, cellOf(r))
		}
	}
	if engine = own; smaller && len(swept) > 0 || len(own) == 0 {
		engine = swept
	}
	slices.SortStableFunc(engine, func(a, b cell) int { return cmp.Compare(a.channels, b.channels) })
	return base, engine, capped, ok
}

// size judges one folio size. Several directions must agree: the knobs are of
// the whole host.
func (f *figures) size(kb int) (worst SizeAdvice, ok bool) {
	for _, d := range f.directions(kb) {
		base, engine, capped, found := f.cells(kb, d)
		if !found || len(engine) == 0 {
			continue
		}
		s := judgeSize(kb, base, engine)
		s.Capped = capped
		if !ok || worse(s, worst) {
			s.Channels = max(s.Channels, worst.Channels)
			if !s.Offload {
				s.Channels = 0
			}
			worst = s
		} else if worst.Offload {
			worst.Channels = max(s.Channels, worst.Channels)
		}
		ok = true
	}
	return worst, ok
}

func worse(a, b SizeAdvice) bool {
	if a.Offload != b.Offload {
		return !a.Offload
	}
	return a.Speedup < b.Speedup
}

func judgeSize(kb int, base cell, engine []cell) SizeAdvice {
	s := SizeAdvice{FolioKB: kb, BaseGBps: base.gbps, Wins: []int{}, Noisy: []int{}}
	var wins []cell
	best := 0.0
	for _, c := range engine {
		if s.Above == 0 && c.gbps > base.gbps {
			s.Above = c.channels
		}
		switch {
		case c.noisy():
			s.Noisy = append(s.Noisy, c.channels)
		case c.beats(base) && !base.noisy():
			wins = append(wins, c)
			s.Wins = append(s.Wins, c.channels)
			best = max(best, c.gbps)
		}
	}
	for _, c := range wins {
		if c.gbps >= nearBest*best {
			s.Offload, s.Channels, s.GBps, s.Speedup = true, c.channels, c.gbps, c.gbps/base.gbps
			return s
		}
	}
	// the best that there is, to show how far it is from a win
	for _, c := range engine {
		if !c.noisy() && c.gbps > s.GBps {
			s.GBps, s.Speedup = c.gbps, c.gbps/base.gbps
		}
	}
	return s
}

// Knee is how many calls at a time are worth it.
type Knee struct {
	FolioKB int     `json:"folio_kb"`
	Workers int     `json:"workers"`
	GBps    float64 `json:"gbps"`
	Speedup float64 `json:"speedup"` // over one
}

// callers finds for each size where more threads stop to pay: at a gain below a
// tenth.
func (f *figures) callers() (all []Knee) {
	for _, kb := range f.sizes() {
		for _, d := range f.directions(kb) {
			var rows []bench.MigrationRow
			for _, r := range f.m.Rows {
				if r.FolioKB != kb || (direction{r.From, r.To}) != d || r.Channels != 0 || r.CallFolio != 0 || r.Workers < 1 || cellOf(r).noisy() {
					continue
				}
				i := slices.IndexFunc(rows, func(o bench.MigrationRow) bool { return o.Workers == r.Workers })
				switch {
				case i < 0:
					rows = append(rows, r)
				case r.GBps > rows[i].GBps: // pinned in several ways
					rows[i] = r
				}
			}
			slices.SortFunc(rows, func(a, b bench.MigrationRow) int { return cmp.Compare(a.Workers, b.Workers) })
			if len(rows) < 2 {
				continue
			}
			at := 0
			for at+1 < len(rows) && rows[at+1].GBps >= worth*rows[at].GBps {
				at++
			}
			k := Knee{kb, rows[at].Workers, rows[at].GBps, rows[at].GBps / rows[0].GBps}
			if i := slices.IndexFunc(all, func(o Knee) bool { return o.FolioKB == kb }); i < 0 {
				all = append(all, k)
			} else if k.Speedup < all[i].Speedup {
				all[i] = k
			}
		}
	}
	return all
}

// Amdahl is the speedup of a whole of which a share f is done s times as fast.
func Amdahl(f, s float64) float64 { return 1 / (1 - f + f/s) }

// copyShare is the least share of the time that copying took, for what was
// gained by copying faster alone.
func copyShare(speedup float64) float64 {
	if speedup <= 1 {
		return 0
	}
	return 1 - 1/speedup
}

// decide draws the one conclusion for the host: its knobs know no sizes.
func (f *figures) decide(a *MigrationAdvice) {
	if len(a.Sizes) == 0 {
		a.Because = "no copy engine was measured: there is nothing to switch on"
		return
	}
	kb := f.o.FolioKB
	i := len(a.Sizes) - 1 // the largest, where nothing is said
	if kb != 0 {
		i = slices.IndexFunc(a.Sizes, func(s SizeAdvice) bool { return s.FolioKB == kb })
	}
	if i < 0 {
		a.Because = fmt.Sprintf("folios of %s are most of what migrates, and were not measured", sizeName(kb))
		return
	}
	s := &a.Sizes[i]
	free := *f // as if the kernel took batches of any size
	free.limit = 0
	if best, ok := free.size(s.FolioKB); ok {
		a.Batch = f.choose(a.Batches, s.FolioKB, best.Channels)
	}
	few := ""
	if s.Capped {
		few = fmt.Sprintf("; this kernel's batches of %d pages hold %s, and no more channels work at a time", f.limit, folios(f.usable(s.FolioKB)))
	}
	gain := fmt.Sprintf("gain %.2fx with %s", s.Speedup, channels(s.Channels))
	losers := f.losers(a)
	a.Decided = true
	switch late := f.late(s); {
	case !s.Offload:
		a.Because = fmt.Sprintf("%s do not gain beyond the noise: %.2fx at best%s", sizeName(s.FolioKB), s.Speedup, few)
	case s.Speedup < worth:
		a.Because = fmt.Sprintf("%s gain %s, too little to switch engines on for%s", sizeName(s.FolioKB), percent(s.Speedup), few)
	case late > 0:
		a.Because = fmt.Sprintf("with this kernel's batches of %d pages the first folio is away for %s, beyond the budget of %s", f.limit, micros(late), f.o.Budget)
	case kb != 0:
		a.Offload, a.Because = true, fmt.Sprintf("%s are most of what migrates, and %s", sizeName(s.FolioKB), gain)
	case losers == "":
		a.Offload, a.Because = true, fmt.Sprintf("every size gains; %s %s", sizeName(s.FolioKB), gain)
	default:
		a.Decided = false
		a.Because = fmt.Sprintf("%s %s, and %s do not; what mostly migrates on this host is not known, and there is no switch for each size", sizeName(s.FolioKB), gain, losers)
	}
	if a.Offload {
		a.Channels = s.Channels
	}
}

// losers names the sizes that do not gain.
func (f *figures) losers(a *MigrationAdvice) string {
	var names []string
	for _, s := range a.Sizes {
		if !s.Offload {
			names = append(names, sizeName(s.FolioKB))
		}
	}
	return listed(names)
}

// late gives the time of the first folio, microseconds, where the batches of
// the kernel that is advised break the budget.
func (f *figures) late(s *SizeAdvice) float64 {
	if f.o.Budget == 0 {
		return 0
	}
	for _, r := range f.m.Rows {
		n := cmp.Or(r.BatchPages, f.m.Host.BatchPages)
		if r.FolioKB == s.FolioKB && r.Channels == s.Channels && whole(r) && n == f.limit && r.FirstUS != nil && *r.FirstUS > float64(f.o.Budget.Microseconds()) {
			return *r.FirstUS
		}
	}
	return 0
}

// plausible warns of times of the first folio that do not fit the throughput:
// it is away for about the time that its batch takes to be copied.
func (f *figures) plausible() (notes []string) {
	odd, all := 0, 0
	for _, r := range f.m.Rows {
		if r.FirstUS == nil || r.Channels == 0 || r.BatchPages == 0 || !whole(r) || r.FirstBy == "blackout" {
			continue
		}
		all++
		k := *r.FirstUS * r.GBps * 1e3 / (float64(r.BatchPages) * float64(f.m.Host.PageKB) * 1024)
		if k < 0.3 || k > 1.2 || math.IsNaN(k) {
			odd++
		}
	}
	if odd > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d times of the first folio do not fit the throughput: 0.3 to 1.2 of the time that a batch takes is usual; measure again", odd, all))
	}
	return notes
}
