// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// memHost is a two-socket host of 128 GiB a node, with a third node that is
// the memory of a GPU, and an empty pool of 2M and of 1G on each.
func memHost() map[string]string {
	files := map[string]string{
		"/proc/meminfo":                                "MemTotal: 268435456 kB\nMemFree: 200000000 kB\nMemAvailable: 240000000 kB\nHugepagesize: 2048 kB\n",
		"/proc/sys/kernel/osrelease":                   "6.12.107+deb13-amd64\n",
		"/proc/sys/kernel/arch":                        "x86_64\n",
		"/proc/cpuinfo":                                "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: lm pse pdpe1gb\n",
		"/boot/config-6.12.107+deb13-amd64":            "CONFIG_X86_64=y\nCONFIG_CONTIG_ALLOC=y\n",
		"/sys/devices/system/node/has_cpu":             "0-1\n",
		"/sys/devices/system/node/has_normal_memory":   "0-1\n",
		"/sys/devices/system/node/has_memory":          "0-2\n",
		"/.hostcheck/capture.json":                     `{"schema":"hostcheck.capture/v1","whole":["/sys","/proc"]}`,
		"/sys/kernel/mm/hugepages/hugepages-64kB/note": "not a pool that nodes have\n",
	}
	for node := range 3 {
		dir := fmt.Sprintf("/sys/devices/system/node/node%d", node)
		files[dir+"/cpulist"] = []string{"0-7\n", "8-15\n", "\n"}[node]
		files[dir+"/meminfo"] = fmt.Sprintf("Node %[1]d MemTotal: 134217728 kB\nNode %[1]d MemFree: 100000000 kB\nNode %[1]d FilePages: 20000000 kB\n", node)
		pools(files, dir+"/hugepages", "nr_hugepages", "free_hugepages", "surplus_hugepages")
	}
	pools(files, "/sys/kernel/mm/hugepages", "nr_hugepages", "free_hugepages", "surplus_hugepages", "resv_hugepages", "nr_overcommit_hugepages")
	delete(files, "/sys/kernel/mm/hugepages/hugepages-64kB/note")
	return files
}

func pools(files map[string]string, dir string, names ...string) {
	for _, size := range []string{"2048", "1048576"} {
		for _, n := range names {
			files[dir+"/hugepages-"+size+"kB/"+n] = "0\n"
		}
	}
}

// with lays other files over a host.
func with(files, other map[string]string) map[string]string {
	out := maps.Clone(files)
	maps.Copy(out, other)
	return out
}

// used gives a pool that many pages, of which some are free, on the node and
// in the host's totals.
func used(node int, size string, total, free, reserved int) map[string]string {
	out := map[string]string{}
	for _, dir := range []string{fmt.Sprintf("/sys/devices/system/node/node%d/hugepages", node), "/sys/kernel/mm/hugepages"} {
		dir += "/hugepages-" + size + "/"
		out[dir+"nr_hugepages"] = strconv.Itoa(total) + "\n"
		out[dir+"free_hugepages"] = strconv.Itoa(free) + "\n"
	}
	out["/sys/kernel/mm/hugepages/hugepages-"+size+"/resv_hugepages"] = strconv.Itoa(reserved) + "\n"
	return out
}

func setup(files map[string]string) func(testing.TB, string) {
	return func(tb testing.TB, root string) {
		tb.Helper()
		plantest.Files(tb, root, files)
	}
}

// hugetlb plays the kernel's pools: a node gives pages up to a limit, and
// takes back what is free; the rest of what it should take becomes surplus.
func hugetlb(root string, most int64) func(p, text string) error {
	number := func(p string) int64 {
		b, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			return 0
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return n
	}
	return func(p, text string) error {
		if path.Base(p) != "nr_hugepages" {
			return plantest.Knob(root)(p, text)
		}
		want, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return syscall.EINVAL
		}
		dir := path.Dir(p)
		global := "/sys/kernel/mm/hugepages/" + path.Base(dir)
		total, free, surplus := number(p), number(dir+"/free_hugepages"), number(dir+"/surplus_hugepages")
		now := total - surplus
		grow := min(want, max(most, now)) - now
		if want > now { // surplus pages become pages of the pool first
			took := min(grow, surplus)
			surplus, grow = surplus-took, grow-took
		} else {
			gone := max(grow, -free)
			surplus, grow = surplus+gone-grow, gone
		}
		for _, at := range []string{dir, global} {
			set := map[string]int64{"nr_hugepages": number(at+"/nr_hugepages") + grow, "free_hugepages": number(at+"/free_hugepages") + grow}
			set["surplus_hugepages"] = surplus // of this node; the only one with some
			for n, v := range set {
				if err := plantest.Knob(root)(at+"/"+n, strconv.FormatInt(v, 10)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func hugeEngine(most int64) func(root string) *plan.Engine {
	return func(root string) *plan.Engine {
		return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Hugepages{}}, Machine: &plan.Machine{Knob: hugetlb(root, most)}}
	}
}

func pages(node int, sizeKB int64, want string) plan.Wish {
	return plan.Wish{Setting: fixes.HugepagesSetting(node, sizeKB), Want: want, Tier: plan.Safe, Check: "hugepages.pool", Why: "programs find too few pages"}
}

const nr = "/sys/devices/system/node/node%d/hugepages/hugepages-%s/nr_hugepages"

func holdsFile(file, want string) func(root string) error {
	return func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, file))
		if err != nil || strings.TrimSpace(string(b)) != want {
			return fmt.Errorf("%s holds %q, not %q: %w", file, b, want, err)
		}
		return nil
	}
}

func both(a, b func(root string) error) func(root string) error {
	return func(root string) error { return errors.Join(a(root), b(root)) }
}

func TestHugepagesLoop(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{
		Setup: setup(with(memHost(), used(0, "2048kB", 600, 500, 0))), Engine: hugeEngine(1 << 30),
		Wishes: []plan.Wish{pages(0, 2048, "200"), pages(1, 2048, "1024"), pages(1, 1048576, "8")},
	}, both(holdsFile(fmt.Sprintf(nr, 1, "2048kB"), "1024"), holdsFile(fmt.Sprintf(nr, 1, "1048576kB"), "8")))
	if len(p.Changes) != 3 || len(p.Refused) != 0 {
		t.Fatalf("%+v", p)
	}
	// room is made first, and large pages are taken before small ones break up what they need
	for i, name := range []string{"node0 2048kB", "node1 1048576kB", "node1 2048kB"} {
		c := p.Changes[i]
		if c.Target+" "+c.Name != name || c.Tier != plan.Safe || c.Persist {
			t.Errorf("change %d: %+v", i, c)
		}
	}
	c := p.Changes[2]
	if c.Before != plan.Text("0") || c.Diff != "0 -> 1024" || !strings.Contains(c.Why, "certain only when the next boot reserves them: hugepagesz=2M hugepages=0:200,1:1024 on the kernel command line") {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(c.Disturbs, "node1 has 2 GiB less for everything else") {
		t.Errorf("%q", c.Disturbs)
	}
}

// Surplus pages are not the pool's: a pool of 6 with 4 surplus pages that is
// wanted at 10 keeps the 4, and undo lets them go again.
func TestHugepagesSurplus(t *testing.T) {
	files := with(memHost(), used(0, "2048kB", 10, 0, 0))
	for _, dir := range []string{"/sys/devices/system/node/node0/hugepages", "/sys/kernel/mm/hugepages"} {
		files[dir+"/hugepages-2048kB/surplus_hugepages"] = "4\n"
	}
	surplus := "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/surplus_hugepages"
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setup(files), Engine: hugeEngine(1 << 30), Wishes: []plan.Wish{pages(0, 2048, "10")}}, holdsFile(surplus, "0"))
	if p.Changes[0].Diff != "6 -> 10" {
		t.Errorf("%+v", p.Changes)
	}
}

func TestHugepagesCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{
		Setup: setup(with(memHost(), used(0, "2048kB", 600, 500, 0))), Engine: hugeEngine(1 << 30),
		Wishes: []plan.Wish{pages(0, 2048, "200"), pages(1, 2048, "1024")},
	})
	if !crashChild() && n < 50 {
		t.Errorf("only %d points tried", n)
	}
}

func crashChild() bool { return os.Getenv("HOSTCHECK_CRASH_CHILD") != "" }

// A node that gives fewer pages than asked: everything is put back, and the
// sentence says how many there were and where they can be had.
func TestHugepagesShort(t *testing.T) {
	for name, c := range map[string]struct {
		knob func(root string) func(p, s string) error
		says string
	}{
		"short":   {func(root string) func(p, s string) error { return hugetlb(root, 300) }, "node1 gave 300 of the 1024 pages of 2M: it has no more memory in one piece; they are had for certain at boot only: hugepagesz=2M hugepages=1:1024"},
		"ignored": {func(string) func(p, s string) error { return func(string, string) error { return nil } }, "node1 gave 0 of the 1024"},
		"EINVAL":  {func(string) func(p, s string) error { return func(string, string) error { return syscall.EINVAL } }, "invalid argument"},
		"EBUSY":   {func(string) func(p, s string) error { return func(string, string) error { return syscall.EBUSY } }, "device or resource busy"},
		"ERANGE":  {func(string) func(p, s string) error { return func(string, string) error { return syscall.ERANGE } }, "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: setup(memHost()),
				Engine: func(root string) *plan.Engine {
					e := hugeEngine(0)(root)
					e.Machine.Knob = c.knob(root)
					return e
				},
				Wishes: []plan.Wish{pages(1, 2048, "1024")},
			}, c.says)
		})
	}
}

// unwilling applies wishes that the host does not take: it ends as it was, with
// exit 4 and one sentence.
func unwilling(t *testing.T, c plantest.Case, says string) {
	t.Helper()
	root := plantest.TempDir(t)
	c.Setup(t, root)
	if err := os.MkdirAll(filepath.Join(root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := plantest.Snapshot(t, root)
	e := c.Engine(root)
	r, err := e.Apply(t.Context(), plantest.Make(t, e, c.Wishes), plan.Options{Allow: []plan.Tier{plan.Link}})
	if err != nil || r.Outcome != plan.Restored || r.Exit() != 4 || len(r.Left) != 0 {
		t.Fatalf("%v %+v", err, r)
	}
	if !strings.Contains(r.Cause.Error(), says) || strings.Contains(r.Cause.Error(), "\n") {
		t.Errorf("cause %q does not say %q", r.Cause, says)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("the tree is not as it was:\n%s", d)
	}
}

// refusals plans wishes over a tree and expects each to be refused with a text.
func refusals(t *testing.T, files map[string]string, engine func(string) *plan.Engine, wish plan.Wish, says ...string) plan.Refusal {
	t.Helper()
	root := plantest.TempDir(t)
	links(files)(t, root)
	p := plantest.Make(t, engine(root), []plan.Wish{wish})
	if len(p.Changes) != 0 || len(p.Refused) != 1 || p.Refused[0].Setting != wish.Setting || p.Refused[0].Want != wish.Want {
		t.Fatalf("%+v", p)
	}
	all := p.Refused[0].Reason + "\n" + strings.Join(p.Refused[0].Steps, "\n")
	for _, s := range says {
		if !strings.Contains(all, s) {
			t.Errorf("the refusal does not say %q:\n%s", s, all)
		}
	}
	return p.Refused[0]
}

func TestHugepagesRefused(t *testing.T) {
	small := with(memHost(), map[string]string{"/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 65748992 kB\nNode 0 MemFree: 60000000 kB\nNode 0 FilePages: 1000000 kB\n"})
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"64 of 1G on 64 GB":    {small, pages(0, 1048576, "64"), []string{"64 × 1G would make the pools of node0 64 GiB of its 62.7 GiB, 102 %; all sizes together may take 60 %, so 37 pages fit", "ask for 37 pages or fewer"}},
		"leaves too little":    {with(small, map[string]string{"/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 33554432 kB\nNode 0 MemFree: 32000000 kB\nNode 0 FilePages: 1000000 kB\n"}), pages(0, 1048576, "18"), []string{"18 × 1G would leave 14 GiB of node0 outside the pools; of its 32 GiB at least 16 GiB must stay", "so 16 pages fit"}},
		"sizes together":       {with(memHost(), used(0, "1048576kB", 60, 60, 0)), pages(0, 2048, "10240"), []string{"10240 × 2M would make the pools of node0 80 GiB of its 128 GiB, 62 %", "so 8601 pages fit"}},
		"more than free":       {with(memHost(), map[string]string{"/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 134217728 kB\nNode 0 MemFree: 40000000 kB\nNode 0 FilePages: 20000000 kB\n"}), pages(0, 1048576, "70"), []string{"70 more pages of 1G on node0 are 70 GiB, and 57.2 GiB at most is free or can be freed", "hugepagesz=1G hugepages=0:70"}},
		"in use":               {with(memHost(), used(0, "2048kB", 600, 500, 450)), pages(0, 2048, "100"), []string{"500 pages of 2M on node0 are to go and 50 can (450 of the 500 free pages of the host are reserved)", "numa_maps"}},
		"no CPUs":              {memHost(), pages(2, 2048, "8"), []string{"node2 has no CPUs or no ordinary memory"}},
		"no such node":         {memHost(), pages(7, 2048, "8"), []string{"node7 has no pool of 2M pages"}},
		"no such size":         {memHost(), pages(0, 65536, "8"), []string{"node0 has no pool of 64M pages; this kernel has pages of 2M, 1G"}},
		"not a count":          {memHost(), pages(0, 2048, "-4"), []string{`"-4" is not a count of pages`}},
		"not a pool":           {memHost(), plan.Wish{Setting: plan.Setting{Kind: "hugepages", Target: "node00", Name: "2048kB"}, Want: "1"}, []string{"is not a pool"}},
		"1G without a build":   {with(memHost(), map[string]string{"/boot/config-6.12.107+deb13-amd64": "CONFIG_X86_64=y\n"}), pages(0, 1048576, "8"), []string{"makes pages of 1G at boot only", "CONFIG_CONTIG_ALLOC", "hugepagesz=1G hugepages=0:8"}},
		"1G without the CPU":   {with(memHost(), map[string]string{"/proc/cpuinfo": "processor\t: 0\nflags\t\t: lm pse\n"}), pages(0, 1048576, "8"), []string{"pdpe1gb"}},
		"DOCA":                 {with(memHost(), map[string]string{"/etc/mellanox/hugepages.d/flexio.json": "{}"}), pages(0, 2048, "8"), []string{"DOCA", "/etc/mellanox/hugepages.d"}},
		"pools are unreadable": {map[string]string{"/sys/devices/x": ""}, pages(0, 2048, "8"), []string{"not known"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, hugeEngine(1<<30), c.wish, c.says...) })
	}
}

// What is planned for one size counts for the next, on the same node.
func TestHugepagesShare(t *testing.T) {
	root := plantest.TempDir(t)
	plantest.Files(t, root, memHost())
	p := plantest.Make(t, hugeEngine(1<<30)(root), []plan.Wish{pages(0, 1048576, "60"), pages(0, 2048, "10240"), pages(1, 2048, "10240")})
	if len(p.Changes) != 2 || len(p.Refused) != 1 || p.Refused[0].Setting != fixes.HugepagesSetting(0, 2048) {
		t.Errorf("%+v", p)
	}
}

// A node without CPUs may only lose pages.
func TestHugepagesMemoryless(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{
		Setup: setup(with(memHost(), used(2, "2048kB", 64, 64, 0))), Engine: hugeEngine(1 << 30),
		Wishes: []plan.Wish{pages(2, 2048, "0")},
	}, holdsFile(fmt.Sprintf(nr, 2, "2048kB"), "0"))
	if len(p.Changes) != 1 || p.Changes[0].Disturbs != "" {
		t.Errorf("%+v", p.Changes)
	}
}
