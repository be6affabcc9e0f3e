// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var hugepagesChecks = []*check.Check{
	hugepagesPool, hugepagesDefaultSize, hugepagesShare, hugepagesSurplus, hugepagesMount, hugepagesBalance, hugepagesMemoryless,
}

const (
	hugetlbDoc = "Documentation/admin-guide/mm/hugetlbpage.rst"
	paramsDoc  = "Documentation/admin-guide/kernel-parameters.txt"
)

var hugepagesPool = &check.Check{
	ID: "hugepages.pool", Title: "Huge page pools hold what the profile wants", Severity: check.High, FixTier: plan.Boot,
	Doc: `Programs that map huge pages (DPDK, SPDK, QEMU guests, RDMA memory pools) get them from a pool of their size on the NUMA
node they run on. A pool that is too small fails them at start, or silently moves them to another node's memory.

The check compares each pool of the profile with the pages the kernel really holds: per node on every node that has
both CPUs and memory, or the total over the host. Surplus pages do not count: they are not reserved and vanish when freed.
It never trusts the request. A shortfall at boot fails nothing ("HugeTLB: allocating 64 of page size 1.00 GiB failed.
Only allocated 57 hugepages." in the kernel log is all one sees), and a write to nr_hugepages succeeds with fewer pages.

By hand, at run time, per node (then read the file again, for it may hold less):

    echo 1024 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages

Pages of 1G need contiguous memory, which only boot has for certain. On the kernel command line, with the count per node:

    hugepagesz=1G hugepages=0:32,1:32

A fix sizes the pools while the host runs. Pages of 1G are left to a trial boot where that is allowed and can be done.

Often copied and wrong: a plain hugepages=64, which the kernel spreads over all nodes with memory, those of a GPU or
CXL expander included; counts before their size; and a repeated hugepagesz=, whose count is ignored. The global
/proc/sys/vm/nr_hugepages spreads likewise and knows the default size alone. Kubelet reads pools when it starts only.`,
	Refs: []string{hugetlbDoc, paramsDoc, "https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/"},
	Run:  runHugepagesPool,
}

func runHugepagesPool(_ context.Context, r *check.Run) error {
	rules := r.Profile.Hugepages.Pools
	if len(rules) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile wants no huge page pool"})
	}
	for i := range rules {
		rule := &rules[i]
		kb, err := profile.ParseSize(rule.Size)
		if err != nil {
			r.Report(check.Finding{Subject: rule.ID, Status: check.Unknown, Why: fmt.Sprintf("the profile's pool %s: %v", rule.ID, err)})
			continue
		}
		if rule.PerNode.Set {
			poolPerNode(r, kb, rule.PerNode)
		}
		if rule.Total.Set {
			poolTotal(r, kb, rule.Total)
		}
	}
	return nil
}

// poolPerNode judges one size on every node that has CPUs and memory.
func poolPerNode(r *check.Run, kb int64, want profile.Val[int]) {
	p, size := r.Facts.Hugepages(), facts.SizeName(kb)
	nodes := r.Facts.NUMA().Usable()
	if nodes == nil {
		r.Report(check.Finding{Subject: size, Status: check.Unknown, Source: want.Origin.String(),
			Why: "which nodes have CPUs and memory is not known: " + reasons(r.Facts.NUMA().Unknown, "nodes", "with_cpus", "with_memory")})
		return
	}
	for _, node := range nodes {
		f := check.Finding{Subject: poolSubject(node, kb), Want: fmt.Sprintf("%d × %s on node%d", want.V, size, node), Source: want.Origin.String()}
		pool := p.Pool(node, kb)
		switch {
		case pool == nil && p.Unlisted[node] != "":
			f.Status, f.Why = check.Unknown, p.Unlisted[node]
		case pool == nil && p.Pools == nil:
			f.Status, f.Why = check.Unknown, p.Unknown["pools"]
		case pool == nil && want.V == 0:
			f.Status, f.Got = check.Pass, "no pool of this size"
			f.Evidence = []check.Evidence{{Source: path.Join(facts.NodePath(node), "hugepages"), Value: sizeNames(p)}}
		case pool == nil:
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Got, f.Why, f.Next = "no pool of this size", "this kernel has no huge pages of "+size, noSuchSize(r, kb)
			f.Evidence = []check.Evidence{{Source: path.Join(facts.NodePath(node), "hugepages"), Value: sizeNames(p)}}
		case pool.Total == nil:
			f.Status, f.Why = check.Unknown, pool.Unknown["total"]
		default:
			judgePool(&f, *pool.Total, pool.Surplus, pool.Unknown["surplus"], want, size, "on "+nodeName(node))
			f.Evidence = poolEvidence(pool.Dir, pool.Total, pool.Free)
			if f.Status != check.Pass && f.Status != check.Unknown {
				f.Why = "programs on " + nodeName(node) + " find too few pages and fail, or use memory of another node" + asked(r, kb, node)
				f.Next = growPool(kb, node, want.V, pool.Dir)
				if pool.Surplus != nil {
					more := wishPages(node, kb, *pool.Total-*pool.Surplus, int64(want.V), "programs on "+nodeName(node)+" find too few pages")
					f.Fix = offer(want.Origin, append([]plan.Wish{more}, bootPages(r, kb, pagesWith(r.Facts, kb, nil, int64(want.V)))...)...)
				}
				poolAtNextBoot(r, &f, kb, node, want.V)
			}
		}
		r.Report(f)
	}
}

// poolTotal judges one size over the whole host.
func poolTotal(r *check.Run, kb int64, want profile.Val[int]) {
	p, size := r.Facts.Hugepages(), facts.SizeName(kb)
	f := check.Finding{Subject: size, Want: fmt.Sprintf("%d × %s in total", want.V, size), Source: want.Origin.String()}
	total, source, ok := p.Total(kb)
	switch {
	case ok:
		surplus, why := p.Surplus(kb)
		judgePool(&f, total, surplus, why, want, size, "in total")
		f.Evidence = []check.Evidence{{Source: source, Value: strconv.FormatInt(total, 10)}}
		if f.Status != check.Pass && f.Status != check.Unknown {
			f.Why = "programs find too few pages and fail" + asked(r, kb, -1)
			f.Next = fmt.Sprintf("give each node with CPUs its share on the kernel command line, such as hugepagesz=%s hugepages=0:N,1:N", size)
			more := spread(r.Facts, kb, int64(want.V))
			f.Fix = offer(want.Origin, append(more, bootPages(r, kb, pagesWith(r.Facts, kb, more, 0))...)...)
			poolAtNextBoot(r, &f, kb, -1, want.V)
		}
	case p.Global != nil && p.Unknown["pools"] == "":
		f.Status = atMostWarn(check.Fail, want.Origin)
		if f.Got = "no pool of this size"; want.V == 0 {
			f.Status = check.Pass
		}
		f.Why, f.Next = "this kernel has no huge pages of "+size, noSuchSize(r, kb)
		f.Evidence = []check.Evidence{{Source: facts.HugepagesPath, Value: sizeNames(p)}}
	default:
		f.Status, f.Why = check.Unknown, reasons(p.Unknown, "global", "pools")
	}
	r.Report(f)
}

// poolAtNextBoot makes a finding pending when the next boot asks for enough
// pages, and the last one did not.
func poolAtNextBoot(r *check.Run, f *check.Finding, kb int64, node, want int) {
	atNextBoot(r, f, func(c *facts.Cmdline) (bool, string) {
		n, text := pagesAsked(r.Facts, c, kb, node)
		return n >= int64(want), text
	})
}

// spread shares what a total lacks among the nodes that have CPUs and memory,
// the emptiest first. nil when not all pools are known.
func spread(f *facts.Facts, kb, want int64) (wishes []plan.Wish) {
	p, usable := f.Hugepages(), f.NUMA().Usable()
	if p.Pools == nil || p.Unknown["pools"] != "" {
		return nil
	}
	nodes, now := []int{}, map[int]int64{}
	for i := range p.Pools {
		n := &p.Pools[i]
		switch {
		case n.SizeKB != kb:
		case n.Total == nil || n.Surplus == nil:
			return nil
		default:
			want -= *n.Total - *n.Surplus
			if slices.Contains(usable, n.Node) {
				nodes, now[n.Node] = append(nodes, n.Node), *n.Total-*n.Surplus
			}
		}
	}
	slices.SortStableFunc(nodes, func(a, b int) int { return cmp.Compare(now[a], now[b]) })
	for i, node := range nodes { // the first i+1 nodes stand at level once filled
		level := now[node]
		if i+1 < len(nodes) {
			level = now[nodes[i+1]]
		}
		k := int64(i + 1)
		if room := (level - now[node]) * k; i+1 < len(nodes) && room < want {
			want -= room
			continue
		}
		for j, n := range nodes[:i+1] {
			goal := now[node] + want/k
			if int64(j) < want%k {
				goal++
			}
			wishes = append(wishes, wishPages(n, kb, now[n], goal, "programs find too few pages"))
		}
		break
	}
	return wishes
}

// judgePool sets status and Got: pages that are there for good against those
// that are wanted. Where it is not known how many are surplus, enough pages may
// be too few, and Why says why it is not known.
func judgePool(f *check.Finding, total int64, surplus *int64, unknown string, want profile.Val[int], size, where string) {
	kept := total
	f.Got = fmt.Sprintf("%d × %s %s", total, size, where)
	if surplus != nil && *surplus > 0 {
		kept -= *surplus
		f.Got += fmt.Sprintf(", %d of them surplus", *surplus)
	}
	f.Status = check.Pass
	switch {
	case kept < int64(want.V):
		f.Status = atMostWarn(check.Fail, want.Origin)
	case surplus == nil && want.V > 0:
		f.Status, f.Why = check.Unknown, "how many of them are surplus is not known: "+unknown
	}
}

// asked says what the running kernel's command line asked for, when that is
// more than nothing: a shortfall at boot is then memory that was not there.
func asked(r *check.Run, kb int64, node int) string {
	var n int64
	for _, q := range r.Facts.Cmdline().Effects.Hugepages {
		if q.SizeKB == kb && (q.Node == node || node < 0) {
			n += q.Count
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; the kernel command line asked for %d", n)
}

// growPool is how to get the pages by hand.
func growPool(kb int64, node, want int, dir string) string {
	size := facts.SizeName(kb)
	boot := fmt.Sprintf("hugepagesz=%s hugepages=%d:%d (one node:count per node, joined by commas) on the kernel command line", size, node, want)
	if kb >= 1<<20 {
		return "at boot, while memory is not fragmented: " + boot
	}
	return fmt.Sprintf("echo %d > %s/nr_hugepages, then read it back; for good: %s", want, dir, boot)
}

// noSuchSize says why a kernel may lack a page size.
func noSuchSize(r *check.Run, kb int64) string {
	k := r.Facts.Kernel()
	if has := k.HasCPUFlag("pdpe1gb"); kb == 1<<20 && has != nil && !*has {
		return "the processor (or the virtual machine's CPU model) lacks pdpe1gb: expose it to the guest, or use 2M pages"
	}
	if k.PageSize != nil && *k.PageSize != 4096 {
		return fmt.Sprintf("a kernel with pages of %s has other huge page sizes: use one that %s lists", facts.SizeName(int64(*k.PageSize)/1024), facts.HugepagesPath)
	}
	return "use a size that " + facts.HugepagesPath + " lists"
}

var hugepagesDefaultSize = &check.Check{
	ID: "hugepages.default_size", Title: "The default huge page size is the one the profile wants", Severity: check.Medium, FixTier: plan.Boot,
	Doc: `The default size is what a program gets that asks for huge pages without naming a size: mmap with MAP_HUGETLB alone, a hugetlbfs
mount without pagesize=, /proc/sys/vm/nr_hugepages. HugePages_Total and its neighbours in /proc/meminfo count this size alone,
so a dashboard that reads them shows 0 on a host whose pool is of another size; the Hugetlb: line covers all sizes.

The evidence is Hugepagesize of /proc/meminfo. It is fixed at boot:

    default_hugepagesz=1G

The first valid default_hugepagesz= counts, and repeating it drops the count after it. On old x86 kernels (before about 5.8)
default_hugepagesz=1G removed the 2M pool; adding hugepagesz=2M hugepages=0 brought it back. Changing the default once
left old hugepages-* resources blocking a Kubernetes node's status until they were removed (kubernetes#80452).`,
	Refs: []string{hugetlbDoc, paramsDoc},
	Run: func(_ context.Context, r *check.Run) error {
		want := r.Profile.Hugepages.DefaultSize
		if !want.Set {
			r.Report(check.Finding{Status: check.Skip, Why: "the profile wants no particular default size"})
			return nil
		}
		p := r.Facts.Hugepages()
		f := check.Finding{Want: want.V, Source: want.Origin.String()}
		kb, err := profile.ParseSize(want.V)
		switch {
		case err != nil:
			return fmt.Errorf("the profile's hugepages.default_size: %w", err)
		case p.DefaultKB == nil:
			f.Status, f.Why = check.Unknown, p.Unknown["default_kb"]
		default:
			f.Status, f.Got = check.Pass, facts.SizeName(*p.DefaultKB)
			f.Evidence = []check.Evidence{{Source: "/proc/meminfo", Value: fmt.Sprintf("Hugepagesize: %d kB", *p.DefaultKB)}}
			if *p.DefaultKB != kb {
				f.Status = atMostWarn(check.Fail, want.Origin)
				f.Why = "programs and mounts that name no size get the wrong one, and /proc/meminfo counts it alone"
				f.Next = "put default_hugepagesz=" + want.V + " on the kernel command line"
				f.Fix = offer(want.Origin, instead(r.Facts.Cmdline(), "default_hugepagesz="+want.V, "programs that name no page size get the wrong one")...)
				if sizes := p.Sizes(); sizes != nil && !slices.Contains(sizes, kb) {
					f.Next, f.Fix = noSuchSize(r, kb), nil
				}
				atNextBoot(r, &f, func(c *facts.Cmdline) (bool, string) {
					size := c.Effects.DefaultHugepageKB
					if size == nil {
						return false, ""
					}
					return *size == kb, facts.SizeName(*size)
				})
			}
		}
		r.Report(f)
		return nil
	},
}

func nodeName(node int) string { return "node" + strconv.Itoa(node) }

func poolSubject(node int, kb int64) string { return nodeName(node) + " " + facts.SizeName(kb) }

func sizeNames(p *facts.Hugepages) string {
	var names []string
	for _, kb := range p.Sizes() {
		names = append(names, facts.SizeName(kb))
	}
	if names == nil {
		return "no sizes"
	}
	return strings.Join(names, " ")
}

func poolEvidence(dir string, total, free *int64) []check.Evidence {
	ev := []check.Evidence{{Source: path.Join(dir, "nr_hugepages"), Value: strconv.FormatInt(*total, 10)}}
	if free != nil {
		ev = append(ev, check.Evidence{Source: path.Join(dir, "free_hugepages"), Value: strconv.FormatInt(*free, 10)})
	}
	return ev
}

// reasons joins why the fields are not known.
func reasons(u facts.Unknown, fields ...string) string {
	var why []string
	for _, f := range fields {
		if u[f] != "" && !slices.Contains(why, u[f]) {
			why = append(why, u[f])
		}
	}
	return strings.Join(why, "; ")
}

// atMostWarn softens a failure whose wanted value applies only because
// hostcheck assumed the intent.
func atMostWarn(s check.Status, o profile.Origin) check.Status {
	if s == check.Fail && o.Assumed {
		return check.Warn
	}
	return s
}
