// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the process of a job.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		if err := MigrationWorker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func self(t *testing.T) []string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{p, "worker"}
}

// threeNodes is a host of two sockets and a node without CPUs; its files are
// those that a plan reads.
func threeNodes() fstest.MapFS {
	f := fstest.MapFS{}
	put := func(p, text string) { f[p] = &fstest.MapFile{Data: []byte(text)} }
	for p, file := range thpFiles {
		f[p] = file
	}
	put("proc/sys/kernel/osrelease", "6.12.0-test\n")
	put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Test CPU\n")
	put("proc/sys/kernel/numa_balancing", "1\n")
	put("sys/kernel/mm/ksm/run", "1\n")
	put("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-7\nMems_allowed_list:\t0-2\n")
	put(nodeDir+"/has_memory", "0-2\n")
	for i, cpus := range []string{"0-3", "4-7", ""} {
		put(fmt.Sprintf("%s/node%d/cpulist", nodeDir, i), cpus+"\n")
		put(fmt.Sprintf("%s/node%d/meminfo", nodeDir, i), fmt.Sprintf("\nNode %d MemTotal:       4194304 kB\nNode %[1]d MemFree:        3145728 kB\nNode %[1]d Active(anon):  7 kB\n", i))
	}
	for cpu := range 8 {
		put(fmt.Sprintf("%s/cpu%d/cache/index3/shared_cpu_list", cpuDir, cpu), []string{"0-1\n", "2-3\n", "4-7\n", "4-7\n"}[cpu/2])
		put(fmt.Sprintf("%s/cpu%d/topology/thread_siblings_list", cpuDir, cpu), fmt.Sprintf("%d-%d\n", cpu/2*2, cpu/2*2+1))
	}
	for i, e := range firstEvents {
		put(tracefs[0]+"/events/"+e.name+"/id", fmt.Sprintf("%d\n", 500+i))
		put(tracefs[0]+"/events/"+e.name+"/format", "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\tfield:unsigned long addr;\toffset:8;\tsize:8;\tsigned:0;\n")
	}
	return f
}

func options() MigrationOptions {
	return MigrationOptions{Bytes: 1 << 30, Runs: 10, Workers: 16}
}

func watchable([]tracepoint) error { return nil }

func TestPlanMigration(t *testing.T) {
	o := options()
	o.Offload = &CopyOffload{Revision: "v6", Driver: "ptdma", Switch: "/sys/module/dcbm/parameters/offloading", Channels: "/sys/module/dcbm/parameters/nr_dma_chan", Most: 3}
	b, err := planMigration(threeNodes(), 4, watchable, o)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, s := range b.Steps {
		var knobs []string
		for _, k := range s.Knobs {
			p := strings.Split(k.Path, "/")
			knobs = append(knobs, p[len(p)-2][max(0, len(p[len(p)-2])-7):]+"/"+p[len(p)-1]+"="+k.Value)
		}
		steps = append(steps, fmt.Sprintf("%s %d: %s", sizeName(s.FolioKB), s.Channels, strings.Join(knobs, " ")))
	}
	for _, want := range []string{
		"4K 0: ameters/offloading=0",
		"64K 2: es-64kB/enabled=madvise -2048kB/enabled=never ameters/offloading=0 ameters/nr_dma_chan=2 ameters/offloading=1",
		"2M 0: -2048kB/enabled=madvise ameters/offloading=0",
	} {
		if !slices.Contains(steps, want) {
			t.Errorf("no step %q in %q", want, steps)
		}
	}
	if len(steps) != 4*3 { // four sizes; the CPU, one and two channels
		t.Errorf("steps %q", steps)
	}
	m := b.Result()
	if len(b.Fixed) != 2 || m.Conditions.NUMABalancing != "0" || m.Conditions.Bytes != 1<<30 || len(m.Rows) != 0 || b.firstBy != FirstTracepoints || b.OneNode() {
		t.Errorf("%+v %+v %q", b.Fixed, m, b.firstBy)
	}
	if got := strings.Join(m.Skipped, "; "); !strings.Contains(got, "256K: this kernel has none") || !strings.Contains(got, "1M: this kernel has none") {
		t.Errorf("skipped: %s", got)
	}
	calls, threads := map[int]bool{}, map[int]bool{}
	for _, p := range b.Steps[0].jobs {
		if p.Kind != jobMove || p.Folio != 4096 || p.CPUs[0] != 4*p.From || p.cost <= 0 || p.Bytes%4096 != 0 || int64(p.Call)*4096*mostCalls < p.Bytes && p.Call > 0 {
			t.Errorf("%+v", p)
		}
		calls[p.Call], threads[len(p.CPUs)] = true, true
	}
	if len(calls) != len(callSteps)+1 || !threads[1] || !threads[8] || threads[16] {
		t.Errorf("calls %v, threads %v", calls, threads)
	}
	if p := b.Steps[0].jobs[len(b.Steps[0].jobs)-1]; p.From != 1 || p.To != 2 {
		t.Errorf("the last pair is %d, %d", p.From, p.To)
	}
}

func TestPlanMigrationLimits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(fstest.MapFS, *MigrationOptions)
		check  func(t *testing.T, b *MigrationBench, err error)
	}{
		"little memory": {func(f fstest.MapFS, _ *MigrationOptions) {
			f[nodeDir+"/node2/meminfo"].Data = []byte("Node 2 MemFree: 409600 kB\n")
		}, func(t *testing.T, b *MigrationBench, err error) {
			if m := b.Result(); err != nil || m.Conditions.Bytes != 256<<20 || !strings.Contains(strings.Join(m.Skipped, " "), "each run moves 256 MiB") {
				t.Errorf("%v, %d, %q", err, m.Conditions.Bytes, m.Skipped)
			}
		}},
		"no memory": {func(f fstest.MapFS, _ *MigrationOptions) {
			f[nodeDir+"/node2/meminfo"].Data = []byte("Node 2 MemFree: 4096 kB\n")
		}, func(t *testing.T, b *MigrationBench, err error) {
			if m := b.Result(); err != nil || m.Conditions.Bytes != 1<<30 || !strings.Contains(strings.Join(m.Skipped, " "), "node 2: only 4 MiB") {
				t.Errorf("%v, %d, %q", err, m.Conditions.Bytes, m.Skipped)
			}
		}},
		"cpuset": {func(f fstest.MapFS, _ *MigrationOptions) {
			f["proc/self/status"].Data = []byte("Cpus_allowed_list:\t5\nMems_allowed_list:\t1\n")
		}, func(t *testing.T, b *MigrationBench, err error) {
			if err != nil || !b.OneNode() || len(b.Copy) != 1 || b.Copy[0].From != 1 || !slices.Equal(b.Copy[0].CPUs, []int{5}) {
				t.Errorf("%v, %+v", err, b.Copy)
			}
		}},
		"one node": {func(f fstest.MapFS, _ *MigrationOptions) { f[nodeDir+"/has_memory"].Data = []byte("0\n") }, func(t *testing.T, b *MigrationBench, err error) {
			if err != nil || !b.OneNode() || len(b.Copy) != 4 || len(b.Fixed) != 0 || !strings.Contains(strings.Join(b.Result().Summary, " "), "one memory node") {
				t.Errorf("%v, %+v, %+v", err, b.Copy, b.Result())
			}
		}},
		"no tracepoints": {func(f fstest.MapFS, _ *MigrationOptions) {
			delete(f, tracefs[0]+"/events/migrate/set_migration_pte/id")
		}, func(t *testing.T, b *MigrationBench, err error) {
			if err != nil || b.firstBy != "" || b.Steps[0].jobs[1].First != FirstBlackout || b.Steps[0].jobs[1].Watch != 2 {
				t.Errorf("%v, %+v", err, b.Steps[0].jobs[1])
			}
		}},
		"pair": {func(_ fstest.MapFS, o *MigrationOptions) { o.Pairs = [][2]int{{2, 1}, {1, 2}} }, func(t *testing.T, b *MigrationBench, err error) {
			if err != nil || b.Steps[0].jobs[0].From != 1 || b.Steps[0].jobs[0].To != 2 {
				t.Errorf("%v", err)
			}
		}},
		"no such pair": {func(_ fstest.MapFS, o *MigrationOptions) { o.Pairs = [][2]int{{0, 3}} }, refused("usable are 0, 1, 2")},
		"same node":    {func(_ fstest.MapFS, o *MigrationOptions) { o.Pairs = [][2]int{{1, 1}} }, refused("no pair")},
		"no such size": {func(_ fstest.MapFS, o *MigrationOptions) { o.Folios = []int{32} }, refused("no folios of 32K: it has 4K, 16K, 64K, 2M")},
		"no nodes":     {func(f fstest.MapFS, _ *MigrationOptions) { f[nodeDir+"/has_memory"].Data = []byte("\n") }, refused("no node")},
		"odd nodes":    {func(f fstest.MapFS, _ *MigrationOptions) { f[nodeDir+"/has_memory"].Data = []byte("0-x\n") }, refused("cannot list")},
		"bytes":        {func(_ fstest.MapFS, o *MigrationOptions) { o.Bytes = 1 }, refused("4 MiB to 64 GiB")},
		"runs":         {func(_ fstest.MapFS, o *MigrationOptions) { o.Runs = 1 }, refused("2 to 1000 runs")},
		"threads":      {func(_ fstest.MapFS, o *MigrationOptions) { o.Workers = 0 }, refused("threads")},
	} {
		t.Run(name, func(t *testing.T) {
			f, o := threeNodes(), options()
			c.change(f, &o)
			b, err := planMigration(f, 4, watchable, o)
			c.check(t, b, err)
		})
	}
}

func refused(says string) func(*testing.T, *MigrationBench, error) {
	return func(t *testing.T, _ *MigrationBench, err error) {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// Threads go to one CPU of each last cache first, and to second threads of a
// core last.
func TestSpread(t *testing.T) {
	f := threeNodes()
	if got := spread(coresOf(f, []int{0, 1, 2, 3, 4, 5, 6, 7})); !slices.Equal(got, []int{0, 2, 4, 6, 1, 3, 5, 7}) {
		t.Errorf("%v", got)
	}
	nodes, err := memNodes(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := workers(f, nodes, [2]int{1, 2}, []int{1, 2, 5, 7}); !slices.Equal(got, []int{5, 7, 1, 2}) {
		t.Errorf("%v", got)
	}
}

// sample is one record of perf.
func sample(kind uint32, at uint64, id uint16, address uint64) (b []byte) {
	raw := binary.NativeEndian.AppendUint16(nil, id)
	raw = append(raw, 0, 0, 0, 0, 0, 0)
	raw = binary.NativeEndian.AppendUint64(raw, address)
	raw = append(raw, make([]byte, 12)...)
	b = binary.NativeEndian.AppendUint32(b, kind)
	b = append(b, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(8+8+4+len(raw)))
	b = binary.NativeEndian.AppendUint64(b, at)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(raw)))
	return append(b, raw...)
}

func TestBatches(t *testing.T) {
	points := []tracepoint{{500, true, 8}, {501, false, 8}}
	var b []byte
	add := func(at uint64, id uint16, address uint64) {
		b = append(b, sample(unix.PERF_RECORD_SAMPLE, at, id, address)...)
	}
	// a batch of two folios of 16K, of which each page is told; then one of one; then one that ends untold
	for i, a := range []uint64{0x10000, 0x11000, 0x12000, 0x13000, 0x14000, 0x15000} {
		add(1000+uint64(i), 500, a)
	}
	add(3500, 501, 0x10000)
	add(3600, 501, 0x14000)
	add(4000, 777, 0x10000) // of no interest
	add(5000, 500, 0x18000)
	add(5700, 501, 0x18000)
	add(6000, 500, 0x1c000)
	got := batches(parseTraced(b, points), 16<<10)
	if want := []batch{{2, 2500}, {1, 700}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	lost := append(sample(unix.PERF_RECORD_LOST, 0, 0, 0), b...)
	if got := parseTraced(lost, points); len(got) != 0 {
		t.Errorf("after a loss: %v", got)
	}
}

func FuzzMigrationText(f *testing.F) {
	f.Add(sample(unix.PERF_RECORD_SAMPLE, 1, 500, 0x1000), 8)
	f.Add([]byte("0-3,8"), 0)
	f.Add([]byte("\tfield:unsigned long addr;\toffset:8;\tsize:8;\tsigned:0;\n"), 8)
	f.Add([]byte("Node 0 MemFree:  12 kB\n256.0 Mbyte migrated in 0.12 secs. 2133.3 Mbytes/second\n"), 0)
	f.Fuzz(func(t *testing.T, b []byte, offset int) {
		if offset < 0 || offset > 4096 {
			return
		}
		list := parseTraced(b, []tracepoint{{500, true, offset}, {501, false, offset}})
		for _, x := range batches(list, 4096) {
			if x.folios < 1 || x.first < 0 {
				t.Errorf("%+v", x)
			}
		}
		if l, err := parseList(string(b)); err == nil && !slices.IsSorted(l) || len(l) > 8192 {
			t.Errorf("%v", l)
		}
		if n, err := fieldOffset(b, "addr"); err == nil && (n < 0 || n >= 4096) {
			t.Errorf("offset %d", n)
		}
		if free, all := nodeMemory(b); free < 0 || all < 0 {
			t.Errorf("%d of %d", free, all)
		}
		if v, err := parseMigspeed(b); err == nil && (v < 0 || math.IsNaN(v)) {
			t.Errorf("%v", v)
		}
		_ = answers(bytes.NewReader(b), func(answer) error { return nil })
	})
}

func TestParseMigspeed(t *testing.T) {
	got, err := parseMigspeed([]byte("0x7f bind:0 anon=1\n64.0 Mbyte migrated in 0.03 secs. 2500.0 Mbytes/second\n"))
	if err != nil || math.Abs(got-2.62144) > 1e-9 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseMigspeed([]byte("mbind: Invalid argument")); err == nil {
		t.Error("no speed is no error")
	}
}

// A job in a process of its own: what it finds comes line by line, it ends with
// its context, and what it cannot do is said.
func TestWorker(t *testing.T) {
	cpus, err := allowed(live(), "Cpus_allowed_list")
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	runs := 0
	j := job{Kind: jobCopy, Folio: page, Bytes: 4 << 20, CPUs: cpus[:1], Warm: 1, Runs: 2}
	err = child(t.Context(), self(t), j, func(_ int, a answer, _ func()) error {
		if a.Run == nil || a.Run.Seconds <= 0 || a.Run.Warm != (runs == 0) {
			t.Errorf("%+v", a)
		}
		runs++
		return nil
	})
	if errors.Is(err, unix.EPERM) || err != nil && strings.Contains(err.Error(), "not permitted") {
		t.Skipf("skipped: %v", err)
	}
	if err != nil || runs != 3 {
		t.Errorf("%d runs, %v", runs, err)
	}
	for want, j := range map[string]job{
		"there is no job":    {Kind: "other"},
		"cannot bind memory": {Kind: jobCopy, From: maxNodes - 1, Folio: page, Bytes: 4 << 20, CPUs: cpus[:1]},
		"there is no node":   {Kind: jobHold, From: maxNodes, Folio: page, Bytes: 4 << 20},
		"cannot pin":         {Kind: jobCopy, Folio: page, Bytes: 4 << 20, CPUs: []int{8000}, Runs: 1},
	} {
		if err := child(t.Context(), self(t), j, func(int, answer, func()) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	held := 0
	err = child(ctx, self(t), job{Kind: jobHold, Folio: page, Bytes: 4 << 20}, func(pid int, a answer, _ func()) error {
		held = pid
		cancel(errors.New("enough"))
		return nil
	})
	if err == nil || err.Error() != "enough" || held == 0 || !errors.Is(unix.Kill(held, 0), unix.ESRCH) {
		t.Errorf("%v, process %d", err, held)
	}
	ended := false
	err = child(t.Context(), self(t), job{Kind: jobHold, Folio: page, Bytes: 4 << 20}, func(_ int, _ answer, end func()) error { ended = true; end(); return nil })
	if err != nil || !ended {
		t.Errorf("%v, %v", err, ended)
	}
	if err := child(t.Context(), []string{"/nowhere"}, j, nil); err == nil {
		t.Error("a program that is not there is no error")
	}
	if err := MigrationWorker(strings.NewReader("{]"), &bytes.Buffer{}); err == nil {
		t.Error("no job is no error")
	}
}

// A host with one node gets a useful answer, without root.
func TestOneNode(t *testing.T) {
	told := 0
	b, err := PlanMigration(MigrationOptions{Bytes: MinMigrationBytes, Runs: 2, Workers: 2, Self: self(t), Progress: func(string, ...any) { told++ }})
	if err != nil || !b.OneNode() {
		t.Skipf("skipped: this host has not one node: %v", err)
	}
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := b.Result()
	if len(m.Skipped) > 0 && strings.Contains(m.Skipped[0], "not permitted") {
		t.Skipf("skipped: %s", m.Skipped)
	}
	if len(m.Copies) == 0 || m.Copies[0].GBps <= 0 || m.Copies[0].Runs != 2 || told != len(b.Copy) || !strings.Contains(m.Text(), "one memory node") {
		t.Errorf("%+v, told %d times", m, told)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := b.Begin(ctx); err == nil || err.Error() != "enough" {
		t.Errorf("ended before: %v", err)
	}
}

func TestBlackout(t *testing.T) {
	end := make(chan struct{})
	time.AfterFunc(5*time.Millisecond, func() { close(end) })
	if d, err := blackout(make([]byte, 4096), end); err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
}

// published are figures of the first table of [tables of AMD], and of the one
// with calls of n folios.
func published() *Migration {
	us := func(v float64) *float64 { return &v }
	m := &Migration{
		Schema: MigrationSchema, Host: MigrationHost{Kernel: "7.1.0-rc1", Arch: "amd64", CPU: "EPYC <Zen 3>", PageKB: 4, Nodes: []int{0, 1}, Driver: "ptdma", Revision: "v5", BatchPages: 512},
		Conditions: MigrationConditions{Bytes: 1 << 30, Runs: 10, NUMABalancing: "0", Governor: "performance", Background: 12},
		Copies:     []MigrationCopy{{0, 1, []int{0}, 5, 12, 0.1}, {0, 1, []int{0, 8}, 5, 21, 0.2}},
		Tools:      []MigrationTool{{"migspeed", 0, 1, 2.5, "one mbind"}},
		Discarded:  []MigrationDiscard{{0, 1, 2048, "3 of 512 folios were not moved: 3 busy"}},
		Skipped:    []string{"folios of 32K: this kernel has none (n/a)"},
	}
	kbs := []int{4, 16, 64, 256, 1024, 2048}
	row := func(kb, channels int, gbps, sd float64) MigrationRow {
		return MigrationRow{From: 0, To: 1, FolioKB: kb, Channels: channels, Workers: 1, CPUs: []int{0}, Bytes: 1 << 30, Runs: 10, GBps: gbps, SD: sd}
	}
	for i, v := range []float64{3.31, 5.61, 6.66, 7.01, 7.13, 11.02} {
		m.Rows = append(m.Rows, row(kbs[i], 0, v, []float64{0.18, 0.07, 0.03, 0.03, 0.08, 0.17}[i]))
	}
	m.Rows[0].FirstUS, m.Rows[0].FirstBy = us(167), FirstTracepoints
	m.Rows[5].FirstUS, m.Rows[5].FirstBy = us(173), FirstTracepoints
	for i, v := range []float64{3.54, 5.79, 8.50, 12.59, 17.21, 65.23} {
		m.Rows = append(m.Rows, row(kbs[i], 16, v, []float64{0.12, 0.13, 0.14, 0.15, 6.40, 1.70}[i]))
	}
	for i, n := range []int{1, 4, 16, 64, 256, 2048, 65536} {
		r := row(4, 0, []float64{0.04, 0.16, 0.54, 1.15, 1.86, 2.62, 3.28}[i], 0.01)
		r.CallFolio, r.FirstUS, r.FirstBy = n, us([]float64{24, 25, 27, 68, 162, 208, 166}[i]), FirstTracepoints
		m.Rows = append(m.Rows, r)
	}
	for i, n := range []int{2, 4, 8} {
		r := row(2048, 0, []float64{19, 30, 31}[i], 0.3)
		r.Workers, r.CPUs = n, []int{0, 8, 16, 24, 32, 40, 48, 56}[:n]
		m.Rows = append(m.Rows, r)
	}
	m.summarise()
	return m
}

func TestMigrationText(t *testing.T) {
	m := published()
	text := m.Text()
	for _, want := range []string{
		"             |      4K |  ", // the head
		"| 3.31±0.18 | 5.61±0.07 |", "16 channels", "| 65.23±1.70\n",
		"first folio µs |", "167 |", "runs of 1024 MiB, numa_balancing 0, ksm none, governor performance",
		"3.28±0.01 * |      166", "*: the fewest folios with 95% of the best",
		"threads |", "21.00±0.20", "migspeed | ", "3 busy", "folios of 32K",
		"2M is the fastest with one thread, 11.02 GB/s, 3.3 times what 4K reaches; a program that copies reaches 12.00 GB/s, of which that is 92%",
		"calls with 65536 folios reach 3.28 GB/s, with the first folio back after 166 µs; one folio for each call reaches 0.040 GB/s",
		"2M: 4 threads reach 30.00 GB/s, 2.7 times one", "moves 512 pages of 4K in one batch",
		"2 of 22 figures vary by more than 15%, and their means say little; the most, by 37%: node 0 to 1, 1M, 16 channels", "CPUs 12% busy before the runs",
	} {
		if !strings.Contains(text, want) && want[0] != ' ' {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if (&Migration{}).Text() == "" || (&Migration{}).SVG() == "" {
		t.Error("nothing measured cannot be shown")
	}
}

func TestMigrationPage(t *testing.T) {
	m := published()
	svg := m.SVG()
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil || strings.Count(svg, "optimum: 65536") != 1 || strings.Count(svg, "<polyline") != 1+6+1+6+1 {
		t.Errorf("%v, %d lines:\n%.2000s", err, strings.Count(svg, "<polyline"), svg)
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("a place is no number")
	}
	page := m.HTML()
	if strings.Contains(page, "<Zen") || !strings.Contains(page, "EPYC &lt;Zen 3&gt;") {
		t.Error("a name is not escaped")
	}
	if m := regexp.MustCompile(`(?i)<script|javascript:|\bon[a-z]+=|(?:src|href)=|url\(|@import| style="`).FindString(strings.ReplaceAll(page, "style-src", "")); m != "" {
		t.Errorf("the page has %q", m)
	}
	if strings.Count(page, "<svg") != 5 || strings.Count(page, "<table>") != 5 {
		t.Errorf("%d plots, %d tables", strings.Count(page, "<svg"), strings.Count(page, "<table>"))
	}
	b, err := json.Marshal(m)
	var back Migration
	if err != nil || json.Unmarshal(b, &back) != nil || back.HTML() != page {
		t.Errorf("the page of the JSON is another: %v", err)
	}
}
