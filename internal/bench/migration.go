// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MigrationOptions say what to measure.
type MigrationOptions struct {
	Bytes    int64        // moved by each run; less where a node has not that much free
	Runs     int          // of which a row is the mean
	Folios   []int        // sizes in KiB; nil: [DefaultFolios]
	Pairs    [][2]int     // of nodes, each measured both ways; nil: all
	Workers  int          // most threads at a time
	Offload  *CopyOffload // nil: the kernel has none
	Self     []string     // starts [MigrationWorker] in a process
	Progress func(format string, args ...any)
}

// CopyOffload is the kernel's copy offload for page migration, as it is borrowed.
type CopyOffload struct {
	Revision string // of its control directory
	Driver   string // of the engines
	Switch   string // path of its switch
	Channels string // path of the file with the number of channels; "" where it has none
	Most     int    // channels that there are to be had
	Counter  string // path of the count of folios that it copied, "" where it counts none
}

// DefaultFolios are the sizes that tables of page migration have, in KiB.
var DefaultFolios = []int{4, 16, 64, 256, 1024, 2048}

// channelSteps are the numbers of channels that are tried, as far as they are there.
var channelSteps = []int{1, 2, 4, 8, 12, 16}

// The least and the most of what a run takes.
const (
	MinMigrationBytes = 4 << 20
	MaxMigrationBytes = 64 << 30
	MaxMigrationRuns  = 1000

	firstBytes = 64 << 20 // moved to see first folios: two records for each page of it
	firstRuns  = 3
	sweepRuns  = 5
	mostCalls  = 256 // of one run: each costs about 100 microseconds before it moves anything
	freeShare  = 1.2 // of what is moved must be free on the node that it goes to
)

func (o *MigrationOptions) check() error {
	switch {
	case o.Bytes < MinMigrationBytes || o.Bytes > MaxMigrationBytes:
		return fmt.Errorf("a run moves %d MiB to %d GiB, not %d bytes", MinMigrationBytes>>20, MaxMigrationBytes>>30, o.Bytes)
	case o.Runs < 2 || o.Runs > MaxMigrationRuns:
		return fmt.Errorf("a row is the mean of 2 to %d runs, not of %d", MaxMigrationRuns, o.Runs)
	case o.Workers < 1 || o.Workers > MaxStreams:
		return fmt.Errorf("there are 1 to %d threads at a time, not %d", MaxStreams, o.Workers)
	}
	return nil
}

// MigrationStep is what is measured with one size of folios and one number of
// channels, and what must hold of the host meanwhile.
type MigrationStep struct {
	FolioKB  int
	Channels int // 0: the CPU copies
	Knobs    []Knob

	jobs []planned
}

// planned is one job of a step.
type planned struct {
	job
	row  int     // index of the rows that it is for: this one forth, the next back; -1 for copies
	cost float64 // how long it takes beside others
}

// MigrationBench is a measurement that was planned.
type MigrationBench struct {
	Steps []MigrationStep
	Copy  []planned // what a program reaches; needs no step
	Fixed []Knob    // what must hold all the time

	o       MigrationOptions
	root    fs.FS
	result  Migration
	kbs     []int  // sizes of folios, ascending
	firstBy string // tracepoints, or "" where there are none
	began   time.Time
	done    float64 // cost
	all     float64
	jobs    int
}

// PlanMigration looks at the host, and decides what can be measured. With one
// node that is only how fast memory can be copied.
func PlanMigration(o MigrationOptions) (*MigrationBench, error) {
	return planMigration(live(), os.Getpagesize()>>10, canWatch, o)
}

// planMigration is it for the host below root; watchable says whether its
// tracepoints can be recorded.
func planMigration(root fs.FS, pageKB int, watchable func([]tracepoint) error, o MigrationOptions) (*MigrationBench, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &MigrationBench{o: o, root: root, result: Migration{
		Schema: MigrationSchema, Rows: []MigrationRow{}, Copies: []MigrationCopy{}, Tools: []MigrationTool{},
		Discarded: []MigrationDiscard{}, Skipped: []string{}, Summary: []string{},
	}}
	nodes, err := memNodes(root)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, errors.New("the kernel names no node with memory")
	}
	cpus, err := allowed(root, "Cpus_allowed_list")
	if err != nil {
		return nil, err
	}
	h := &b.result.Host
	*h = MigrationHost{Kernel: firstLine(root, "proc/sys/kernel/osrelease"), Arch: runtime.GOARCH, CPU: cpuModel(root), PageKB: pageKB, Nodes: []int{}}
	for _, n := range nodes {
		h.Nodes = append(h.Nodes, n.id)
	}
	c := &b.result.Conditions
	c.Runs, c.Governor = o.Runs, governors(root)
	c.NUMABalancing, c.KSM = firstLine(root, "proc/sys/kernel/numa_balancing"), firstLine(root, "sys/kernel/mm/ksm/run")

	usable, err := b.usable(nodes)
	if err != nil {
		return nil, err
	}
	pairs, err := b.pairs(usable)
	if err != nil {
		return nil, err
	}
	if b.kbs, err = b.folios(pageKB); err != nil {
		return nil, err
	}
	c.Bytes = b.size(usable, pairs)
	if len(pairs) == 0 {
		if len(nodes) > 1 {
			b.skip("migration: of %d nodes fewer than two can be used", len(nodes))
		}
		at := append(usable, nodes...)[:1]
		b.planCopies(at, [][2]int{{at[0].id, at[0].id}}, cpus)
		b.cost()
		return b, nil
	}
	b.planCopies(usable, pairs, cpus)
	b.fixed()
	points, err := tracepoints(root)
	if err == nil {
		err = watchable(points)
	}
	if err == nil {
		b.firstBy = FirstTracepoints
	} else {
		b.skip("what happens within a batch is not seen: %v; instead a thread reads the first folio all the time", err)
	}
	channels := []int{0}
	if o.Offload != nil {
		h.Driver, h.Revision = o.Offload.Driver, o.Offload.Revision
		for _, n := range channelSteps {
			if n <= o.Offload.Most && (n == 1 || o.Offload.Channels != "") {
				channels = append(channels, n)
			}
		}
	}
	for _, kb := range b.kbs {
		for _, n := range channels {
			if err := b.step(pageKB, kb, n, pairs, usable, cpus); err != nil {
				return nil, err
			}
		}
	}
	b.cost()
	return b, nil
}

func (b *MigrationBench) skip(format string, args ...any) {
	b.result.Skipped = append(b.result.Skipped, fmt.Sprintf(format, args...))
}

// usable are the nodes that this process may use and that have memory to spare.
func (b *MigrationBench) usable(nodes []memNode) (out []memNode, err error) {
	may, err := allowed(b.root, "Mems_allowed_list")
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		least := min(b.o.Bytes, 64<<20)
		switch {
		case !slices.Contains(may, n.id):
			b.skip("node %d: this process may not use it (cpuset)", n.id)
		case float64(n.free) < freeShare*float64(least):
			b.skip("node %d: only %d MiB of %d are free", n.id, n.free>>20, n.all>>20)
		default:
			out = append(out, n)
		}
	}
	return out, nil
}

// pairs of nodes that are measured, the lower number first.
func (b *MigrationBench) pairs(nodes []memNode) (out [][2]int, err error) {
	has := func(id int) bool { return slices.ContainsFunc(nodes, func(n memNode) bool { return n.id == id }) }
	for _, p := range b.o.Pairs {
		switch p = [2]int{min(p[0], p[1]), max(p[0], p[1])}; {
		case p[0] == p[1]:
			return nil, fmt.Errorf("node %d with itself is no pair", p[0])
		case !has(p[0]) || !has(p[1]):
			return nil, fmt.Errorf("nodes %d and %d cannot be measured: usable are %s%s", p[0], p[1], nodeNames(nodes), because(b.result.Skipped))
		case !slices.Contains(out, p):
			out = append(out, p)
		}
	}
	if b.o.Pairs != nil {
		return out, nil
	}
	for i, from := range nodes {
		for _, to := range nodes[i+1:] {
			out = append(out, [2]int{from.id, to.id})
		}
	}
	return out, nil
}

func because(why []string) string {
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, "; ") + ")"
}

func nodeNames(nodes []memNode) string {
	if len(nodes) == 0 {
		return "none"
	}
	var out []string
	for _, n := range nodes {
		out = append(out, fmt.Sprint(n.id))
	}
	return strings.Join(out, ", ")
}

// folios are the sizes that are measured, ascending.
func (b *MigrationBench) folios(pageKB int) (out []int, err error) {
	there := FolioSizes(b.root, pageKB)
	list := b.o.Folios
	if list == nil {
		list = DefaultFolios
	}
	for _, kb := range list {
		switch {
		case slices.Contains(there, kb):
			out = append(out, kb)
		case b.o.Folios != nil:
			return nil, fmt.Errorf("this kernel has no folios of %s: it has %s", sizeName(kb), sizeNames(there))
		default:
			b.skip("folios of %s: this kernel has none (n/a)", sizeName(kb))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// size is what each run moves: as much as was asked for, or as every node of a
// pair has room for.
func (b *MigrationBench) size(nodes []memNode, pairs [][2]int) int64 {
	size := b.o.Bytes
	var low memNode
	for _, n := range nodes {
		if !slices.ContainsFunc(pairs, func(p [2]int) bool { return p[0] == n.id || p[1] == n.id }) {
			continue
		}
		if room := int64(float64(n.free) / freeShare); room < size {
			size, low = 1<<(bits.Len64(uint64(room))-1), n
		}
	}
	if size < b.o.Bytes {
		b.skip("runs of %d MiB: node %d has only %d MiB free, so that each run moves %d MiB", b.o.Bytes>>20, low.id, low.free>>20, size>>20)
	}
	if len(b.kbs) > 0 {
		most := int64(b.kbs[len(b.kbs)-1]) << 10
		size = max(size/most, 1) * most
	}
	return size
}

// fixed is what disturbs figures, and is off while they are taken.
func (b *MigrationBench) fixed() {
	c := &b.result.Conditions
	if c.NUMABalancing != "" && c.NUMABalancing != "0" {
		b.Fixed = append(b.Fixed, Knob{"/proc/sys/kernel/numa_balancing", "0", "it would move pages by itself"})
		c.NUMABalancing = "0"
	}
	if c.KSM == "1" {
		b.Fixed = append(b.Fixed, Knob{"/sys/kernel/mm/ksm/run", "0", "it would share pages, which move_pages then leaves where they are"})
		c.KSM = "0"
	}
}

// workers gives the CPUs for threads that move memory of a pair of nodes:
// those of the one, then of the other, then the rest.
func workers(root fs.FS, nodes []memNode, p [2]int, may []int) (out []int) {
	for _, id := range []int{p[0], p[1], -1} {
		var near []int
		for _, cpu := range may {
			if id == -1 || slices.ContainsFunc(nodes, func(n memNode) bool { return n.id == id && slices.Contains(n.cpus, cpu) }) {
				near = append(near, cpu)
			}
		}
		for _, cpu := range spread(coresOf(root, near)) {
			if !slices.Contains(out, cpu) {
				out = append(out, cpu)
			}
		}
	}
	return out
}

// counts are the numbers of threads that are tried: 1, 2, 4 and so on, as far
// as there are CPUs, and each has a share worth a call.
func (b *MigrationBench) counts(cpus int) []int {
	var out []int
	for n := 2; n <= min(cpus, b.o.Workers); n *= 2 {
		out = append(out, n)
	}
	return out
}

// callSteps are the numbers of folios for each call that are tried.
var callSteps = []int{1, 4, 16, 64, 256, 512, 2048, 4096, 16384, 65536}

// planCopies plans copies by programs, with one thread and with all there is
// to be had.
func (b *MigrationBench) planCopies(nodes []memNode, pairs [][2]int, may []int) {
	folio := os.Getpagesize()
	if kb := pmdKB(b.root); kb > 0 && kb <= 4096 {
		folio = kb << 10
	}
	// both ends are in use at a time
	bytes := b.result.Conditions.Bytes
	for _, n := range nodes {
		for bytes > MinMigrationBytes && 2*freeShare*float64(bytes) > float64(n.free) {
			bytes /= 2
		}
	}
	bytes = max(bytes, int64(folio))
	for _, p := range pairs {
		cpus := workers(b.root, nodes, p, may)
		for _, n := range append([]int{1}, b.counts(len(cpus))...) {
			for _, d := range directions(p) {
				j := job{Kind: jobCopy, From: d[0], To: d[1], Folio: folio, Bytes: bytes, CPUs: cpus[:n], Warm: 1, Runs: min(b.o.Runs, sweepRuns)}
				b.Copy = append(b.Copy, planned{j, -1, 0})
			}
		}
	}
}

func directions(p [2]int) [][2]int {
	if p[0] == p[1] {
		return [][2]int{p}
	}
	return [][2]int{p, {p[1], p[0]}}
}

// step plans one size with one number of channels.
func (b *MigrationBench) step(pageKB, kb, channels int, pairs [][2]int, nodes []memNode, may []int) error {
	s := MigrationStep{FolioKB: kb, Channels: channels}
	var err error
	if s.Knobs, err = FolioKnobs(b.root, pageKB, kb); err != nil {
		return err
	}
	if o := b.o.Offload; o != nil {
		// the number of channels is only taken while it is off
		s.Knobs = append(s.Knobs, Knob{o.Switch, "0", "the CPU copies"})
		if channels > 0 && o.Channels != "" {
			s.Knobs = append(s.Knobs, Knob{o.Channels, fmt.Sprint(channels), "channels of the copy engine"})
		}
		if channels > 0 {
			s.Knobs = append(s.Knobs, Knob{o.Switch, "1", "the engine copies"})
		}
	}
	bytes := b.result.Conditions.Bytes
	folio := kb << 10
	for i, p := range pairs {
		cpus := workers(b.root, nodes, p, may)
		if len(cpus) == 0 {
			return errors.New("this process may use no CPU")
		}
		base := job{Kind: jobMove, From: p[0], To: p[1], Folio: folio, Bytes: bytes, CPUs: cpus[:1], Warm: 1, Runs: b.o.Runs, Check: channels > 0}
		b.plan(&s, base, cpus)
		if i > 0 {
			continue // the sweeps take long, and one pair tells how they go
		}
		if kb == b.kbs[0] || kb == b.kbs[len(b.kbs)-1] {
			for _, n := range callSteps {
				j := base
				j.Call, j.Runs = n, min(b.o.Runs, sweepRuns)
				j.Bytes = min(bytes, int64(n)*int64(folio)*mostCalls)
				if int64(n)*int64(folio) < bytes {
					b.plan(&s, j, cpus)
				}
			}
		}
		for _, n := range b.counts(len(cpus)) {
			j := base
			j.CPUs, j.Runs = cpus[:n], min(b.o.Runs, sweepRuns)
			if bytes/int64(n) >= int64(folio) {
				b.plan(&s, j, nil)
			}
		}
	}
	b.Steps = append(b.Steps, s)
	return nil
}

// plan adds a job for two rows, forth and back, and where watchers is given one
// that sees first folios.
func (b *MigrationBench) plan(s *MigrationStep, j job, watchers []int) {
	at := len(b.result.Rows)
	for _, d := range directions([2]int{j.From, j.To}) {
		b.result.Rows = append(b.result.Rows, MigrationRow{
			From: d[0], To: d[1], FolioKB: j.Folio >> 10, Channels: s.Channels, Workers: len(j.CPUs), CallFolio: j.Call, CPUs: j.CPUs, Bytes: j.Bytes,
		})
	}
	s.jobs = append(s.jobs, planned{j, at, 0})
	if watchers == nil {
		return
	}
	j.First, j.Warm, j.Runs, j.Bytes = b.firstBy, 0, firstRuns, min(j.Bytes, max(firstBytes, int64(j.Folio)))
	if j.First == "" {
		if len(watchers) < 2 {
			return // no CPU to read on
		}
		j.First, j.Watch = FirstBlackout, watchers[1]
	}
	s.jobs = append(s.jobs, planned{j, at, 0})
}

// cost weighs the jobs, for an estimate of how long the rest takes: small
// folios take longer, and making and proving the memory as long as moving it.
func (b *MigrationBench) cost() {
	weigh := func(list []planned) {
		for i := range list {
			p := &list[i]
			runs := float64(2 * (p.Warm + p.Runs + 1))
			if p.Kind == jobCopy {
				runs = float64(p.Warm+p.Runs) / 2
			}
			slow := 1 + 3*math.Sqrt(4096/float64(p.Folio))
			if p.Call > 0 { // about 100 microseconds for each call
				runs += runs * 300e3 / (float64(p.Call) * float64(p.Folio))
			}
			p.cost = float64(p.Bytes)*runs*slow + 100e6
			b.all += p.cost
			b.jobs++
		}
	}
	weigh(b.Copy)
	for i := range b.Steps {
		weigh(b.Steps[i].jobs)
	}
}

// OneNode reports whether there is nothing to be moved between.
func (b *MigrationBench) OneNode() bool { return len(b.Steps) == 0 }

// CanProve tells whether sizes of folios can be proven here: else there is
// nothing to be measured.
func (b *MigrationBench) CanProve() error {
	f, err := NewFolios(b.Steps[0].jobs[0].From, os.Getpagesize(), int64(os.Getpagesize()))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Prove()
}

// Needed says in words what the measurement takes of the host.
func (b *MigrationBench) Needed() string {
	return fmt.Sprintf("%d MiB on each of nodes %s, for %d jobs", b.result.Conditions.Bytes>>20, joinInts(b.result.Host.Nodes), b.jobs)
}

func joinInts(list []int) string {
	var out []string
	for _, n := range list {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}

// Begin measures what does not depend on a step: how busy the host is, and how
// fast programs copy.
func (b *MigrationBench) Begin(ctx context.Context) error {
	busy, err := background(ctx, time.Second/2)
	if err != nil {
		return err
	}
	b.result.Conditions.Background = busy
	b.began = time.Now()
	n := 0
	for _, p := range b.Copy {
		n++
		b.progress("memory copied from node %d to %d, %s", p.From, p.To, threadCount(len(p.CPUs)))
		c := MigrationCopy{From: p.From, To: p.To, CPUs: p.CPUs}
		var rates []float64
		err := child(ctx, b.o.Self, p.job, func(_ int, a answer, _ func()) error {
			if a.Run != nil && !a.Run.Warm {
				rates = append(rates, float64(p.Bytes)/1e9/a.Run.Seconds)
			}
			return nil
		})
		b.done += p.cost
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			b.skip("memory copied from node %d to %d by %s: %v", p.From, p.To, threadCount(len(p.CPUs)), err)
			continue
		}
		c.Runs = len(rates)
		c.GBps, c.SD = meanSD(rates)
		b.result.Copies = append(b.result.Copies, c)
	}
	return nil
}

// Measure does what was planned for a step. Rows that were not reached or gave
// nothing are missing in the result; only the end of ctx is an error, and a
// host on which nothing works.
func (b *MigrationBench) Measure(ctx context.Context, step int) error {
	s := &b.Steps[step]
	for i := range s.jobs {
		p := &s.jobs[i]
		row := &b.result.Rows[p.row]
		b.progress("node %d and %d, folios of %s, %s%s%s", p.From, p.To, sizeName(row.FolioKB), copier(s.Channels), callWords(p.Call), firstWords(p.First, len(p.CPUs)))
		before := b.copied()
		rates := map[int][]float64{}
		first := map[int][]float64{}
		folios := 0
		err := child(ctx, b.o.Self, p.job, func(_ int, a answer, _ func()) error {
			r := a.Run
			switch {
			case r == nil || r.Warm:
			case r.Discard != "":
				from := p.From
				if r.To == from {
					from = p.To
				}
				b.result.Discarded = append(b.result.Discarded, MigrationDiscard{From: from, To: r.To, FolioKB: row.FolioKB, Why: r.Discard})
			default:
				rates[r.To] = append(rates[r.To], float64(p.Bytes)/1e9/r.Seconds)
				first[r.To] = append(first[r.To], r.First...)
				if r.Batch > folios {
					folios = r.Batch
				}
			}
			return nil
		})
		b.done += p.cost
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrPermission) {
				return err
			}
			if p.First == "" {
				b.skip("nodes %d and %d, folios of %s, %s%s, %s: %v", p.From, p.To, sizeName(row.FolioKB), copier(s.Channels), callWords(p.Call), threadCount(len(p.CPUs)), err)
			} else {
				b.skip("first folios of %s between nodes %d and %d: %v", sizeName(row.FolioKB), p.From, p.To, err)
			}
			continue
		}
		if after := b.copied(); s.Channels > 0 && before >= 0 && after <= before {
			b.skip("nodes %d and %d, folios of %s, %s: the engine copied nothing, so that these would be the CPU's figures", p.From, p.To, sizeName(row.FolioKB), copier(s.Channels))
			continue
		}
		for k := range 2 {
			r := &b.result.Rows[p.row+k]
			if p.First != "" {
				if v := first[r.To]; len(v) > 0 {
					m := median(v)
					r.FirstUS, r.FirstBy = &m, p.First
				}
				continue
			}
			r.Runs = len(rates[r.To])
			r.GBps, r.SD = meanSD(rates[r.To])
		}
		if pages := folios * row.FolioKB / b.result.Host.PageKB; pages > b.result.Host.BatchPages && p.Call == 0 {
			b.result.Host.BatchPages = pages
		}
	}
	return nil
}

// copied is how many folios the engine has copied; -1: it does not count them.
func (b *MigrationBench) copied() int64 {
	if b.o.Offload == nil || b.o.Offload.Counter == "" {
		return -1
	}
	var n int64
	if _, err := fmt.Sscan(firstLine(b.root, strings.TrimPrefix(b.o.Offload.Counter, "/")), &n); err != nil {
		return -1
	}
	return n
}

func (b *MigrationBench) progress(format string, args ...any) {
	if b.o.Progress == nil {
		return
	}
	left := ""
	if share := b.done / b.all; share > 0.02 {
		rest := time.Duration(float64(time.Since(b.began)) * (1 - share) / share)
		left = fmt.Sprintf(", about %s left", roundTime(rest))
	}
	b.o.Progress("%.0f%%%s: %s", 100*b.done/b.all, left, fmt.Sprintf(format, args...))
}

func roundTime(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Minute:
		return d.Round(time.Minute)
	case d > time.Minute:
		return d.Round(10 * time.Second)
	}
	return max(d.Round(time.Second), time.Second)
}

// Result is what was measured so far.
func (b *MigrationBench) Result() *Migration {
	m := b.result
	m.Rows = slices.DeleteFunc(slices.Clone(m.Rows), func(r MigrationRow) bool { return r.Runs == 0 })
	m.summarise()
	return &m
}

// meanSD gives the mean and the standard deviation of a sample.
func meanSD(list []float64) (mean, sd float64) {
	if len(list) == 0 {
		return 0, 0
	}
	for _, v := range list {
		mean += v / float64(len(list))
	}
	if len(list) == 1 {
		return mean, 0
	}
	for _, v := range list {
		sd += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sd / float64(len(list)-1))
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	if n%2 == 1 {
		return list[n/2]
	}
	return (list[n/2-1] + list[n/2]) / 2
}

func copier(channels int) string {
	switch channels {
	case 0:
		return "the CPU copies"
	case 1:
		return "1 channel"
	}
	return fmt.Sprintf("%d channels", channels)
}

func callWords(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 folio for each call"
	}
	return fmt.Sprintf(", %d folios for each call", n)
}

func firstWords(first string, threads int) string {
	switch {
	case first != "":
		return ", first folios"
	case threads > 1:
		return ", " + threadCount(threads)
	}
	return ""
}

func threadCount(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

func sizeName(kb int) string {
	if kb >= 1024 && kb%1024 == 0 {
		return fmt.Sprintf("%dM", kb>>10)
	}
	return fmt.Sprintf("%dK", kb)
}

func sizeNames(list []int) string {
	var out []string
	for _, kb := range list {
		out = append(out, sizeName(kb))
	}
	return strings.Join(out, ", ")
}
