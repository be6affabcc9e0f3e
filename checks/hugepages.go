// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
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
	ID: "hugepages.pool", Title: "Huge page pools hold what the profile wants", Severity: check.High,
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
		case pool == nil && (p.Pools == nil || p.Unknown["pools"] != ""):
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
			judgePool(&f, *pool.Total, pool.Surplus, want, size, "on "+nodeName(node))
			f.Evidence = poolEvidence(pool.Dir, pool.Total, pool.Free)
			if f.Status != check.Pass {
				f.Why = "programs on " + nodeName(node) + " find too few pages and fail, or use memory of another node" + asked(r, kb, node)
				f.Next = growPool(kb, node, want.V, pool.Dir)
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
		judgePool(&f, total, globalSurplus(p, kb), want, size, "in total")
		f.Evidence = []check.Evidence{{Source: source, Value: strconv.FormatInt(total, 10)}}
		if f.Status != check.Pass {
			f.Why = "programs find too few pages and fail" + asked(r, kb, -1)
			f.Next = fmt.Sprintf("give each node with CPUs its share on the kernel command line, such as hugepagesz=%s hugepages=0:N,1:N", size)
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

// judgePool sets status and Got: pages that are there for good against those
// that are wanted.
func judgePool(f *check.Finding, total int64, surplus *int64, want profile.Val[int], size, where string) {
	kept := total
	f.Got = fmt.Sprintf("%d × %s %s", total, size, where)
	if surplus != nil && *surplus > 0 {
		kept -= *surplus
		f.Got += fmt.Sprintf(", %d of them surplus", *surplus)
	}
	f.Status = check.Pass
	if kept < int64(want.V) {
		f.Status = atMostWarn(check.Fail, want.Origin)
	}
}

func globalSurplus(p *facts.Hugepages, kb int64) *int64 {
	for i := range p.Global {
		if p.Global[i].SizeKB == kb {
			return p.Global[i].Surplus
		}
	}
	return nil
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
	ID: "hugepages.default_size", Title: "The default huge page size is the one the profile wants", Severity: check.Medium,
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
				if sizes := p.Sizes(); sizes != nil && !slices.Contains(sizes, kb) {
					f.Next = noSuchSize(r, kb)
				}
			}
		}
		r.Report(f)
		return nil
	},
}

// reserveKB is what must stay outside the pools of a node: 16 GiB or a tenth
// of it, whichever is more.
func reserveKB(memKB int64) int64 { return max(16<<20, memKB/10) }

var hugepagesShare = &check.Check{
	ID: "hugepages.share", Title: "Pools leave each node enough ordinary memory", Severity: check.High,
	Doc: `Pages in a pool serve nothing but huge page mappings: not the page cache, not the kernel, not a process's heap, and never
swap. A pool that takes most of a node brings the out-of-memory killer to a host that seems to have plenty. All sizes
together count, surplus pages included.

Beyond the profile's node_percent_max the check fails; beyond node_percent_warn it warns. Independently, max(16 GiB,
10 %) of a node should stay outside the pools; on a node too small for that it only warns, unless the pools take more than
the warning share.

    numastat -m | grep -E 'MemTotal|HugePages'
    echo 512 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages

Shrinking below what is in use turns the rest into surplus pages rather than freeing them: look at free_hugepages minus
resv_hugepages first. Kubelet's system-reserved and kube-reserved cannot hold back huge pages.`,
	Refs: []string{hugetlbDoc, "https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/"},
	Run:  runHugepagesShare,
}

func runHugepagesShare(_ context.Context, r *check.Run) error {
	limits := r.Profile.Hugepages
	if !limits.NodePercentMax.Set && !limits.NodePercentWarn.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile gives no limit"})
		return nil
	}
	p := r.Facts.Hugepages()
	if p.Pools == nil || p.Unknown["pools"] != "" {
		r.Report(check.Finding{Status: check.Unknown, Why: reasons(p.Unknown, "pools")})
	}
	used := false
	for _, node := range poolNodes(p) {
		used = nodeShare(r, node) || used
	}
	if p.Pools != nil && p.Unknown["pools"] == "" && !used {
		r.Report(check.Finding{Status: check.Skip, Why: "no node has a huge page"})
	}
	return nil
}

// nodeShare judges one node, and reports nothing of one without pages or
// without CPUs (which hugepages.memoryless judges).
func nodeShare(r *check.Run, node int) (reported bool) {
	p, limits := r.Facts.Hugepages(), r.Profile.Hugepages
	source := limits.NodePercentMax.Origin
	if !limits.NodePercentMax.Set {
		source = limits.NodePercentWarn.Origin
	}
	f := check.Finding{Subject: nodeName(node), Source: source.String()}
	var poolKB int64
	for i := range p.Pools {
		pool := &p.Pools[i]
		if pool.Node != node {
			continue
		}
		if pool.Total == nil {
			f.Status, f.Why = check.Unknown, pool.Unknown["total"]
			r.Report(f)
			return true
		}
		poolKB += *pool.Total * pool.SizeKB
		if *pool.Total > 0 {
			f.Evidence = append(f.Evidence, check.Evidence{Source: path.Join(pool.Dir, "nr_hugepages"), Value: strconv.FormatInt(*pool.Total, 10)})
		}
	}
	mem := r.Facts.CPUs().Node(node)
	if with := r.Facts.NUMA().WithCPUs; poolKB == 0 || with != nil && !slices.Contains(with, node) {
		return false
	}
	if mem == nil || mem.MemKB == nil || *mem.MemKB == 0 {
		f.Status, f.Why = check.Unknown, "how much memory the node has is not known"
		if mem != nil && mem.Unknown["mem_kb"] != "" {
			f.Why += ": " + mem.Unknown["mem_kb"]
		}
		r.Report(f)
		return true
	}
	total := *mem.MemKB
	f.Evidence = append(f.Evidence, check.Evidence{Source: facts.NodePath(node) + "/meminfo", Value: fmt.Sprintf("MemTotal: %d kB", total)})
	percent := float64(poolKB) * 100 / float64(total)
	f.Got = fmt.Sprintf("%s of %s, %.0f %%", facts.MemName(poolKB), facts.MemName(total), percent)
	over := func(v profile.Val[int]) bool { return v.Set && percent > float64(v.V) }
	short := total-poolKB < reserveKB(total)
	f.Want = shareWant(limits, total)
	switch {
	case over(limits.NodePercentMax), short && over(limits.NodePercentWarn):
		f.Status = atMostWarn(check.Fail, source)
	case over(limits.NodePercentWarn), short:
		f.Status = check.Warn
	default:
		f.Status = check.Pass
	}
	if f.Status != check.Pass {
		f.Why = fmt.Sprintf("%s stays for everything else on the node: kernel, page cache and every process", facts.MemName(max(0, total-poolKB)))
		f.Next = "ask for fewer pages on the kernel command line, or write a smaller count to the node's nr_hugepages once free_hugepages allows it"
	}
	r.Report(f)
	return true
}

func shareWant(limits profile.HugeVal, total int64) string {
	limit := limits.NodePercentMax
	if !limit.Set {
		limit = limits.NodePercentWarn
	}
	return fmt.Sprintf("at most %d %%, and %s left", limit.V, facts.MemName(reserveKB(total)))
}

var hugepagesSurplus = &check.Check{
	ID: "hugepages.surplus", Title: "Pools are fixed, not elastic", Severity: check.Low,
	Doc: `nr_overcommit_hugepages lets a pool grow beyond its size when a program asks, with surplus pages taken from ordinary memory at
that moment, if there are any in one piece. Capacity then looks larger than what is reserved, and programs fail by luck.
Kubernetes does not support it at all: kubelet advertises the pool and nothing else.

Overcommit that is allowed warns; overcommit that is used fails. Surplus pages without overcommit warn: they are the trace of a
pool that was shrunk below its use, and go away as they are freed.

    cat /sys/kernel/mm/hugepages/hugepages-*/{nr_overcommit_hugepages,surplus_hugepages}
    echo 0 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages

/proc/sys/vm/nr_overcommit_hugepages is the same for the default size alone; look in /etc/sysctl.d for who sets it.`,
	Refs: []string{hugetlbDoc, "https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/"},
	Run: func(_ context.Context, r *check.Run) error {
		ok := r.Profile.Hugepages.Overcommit
		p := r.Facts.Hugepages()
		switch {
		case !ok.Set:
			r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say whether surplus pages are acceptable"})
		case ok.V:
			r.Report(check.Finding{Status: check.Skip, Why: "the profile accepts surplus pages", Source: ok.Origin.String()})
		case p.Global == nil:
			r.Report(check.Finding{Status: check.Unknown, Why: p.Unknown["global"]})
		}
		if !ok.Set || ok.V {
			return nil
		}
		for i := range p.Global {
			r.Report(surplusOf(&p.Global[i], ok.Origin))
		}
		return nil
	},
}

func surplusOf(g *facts.GlobalPool, origin profile.Origin) check.Finding {
	f := check.Finding{Subject: facts.SizeName(g.SizeKB), Want: "no surplus page, no overcommit", Source: origin.String()}
	if g.Surplus == nil || g.Overcommit == nil {
		f.Status, f.Why = check.Unknown, reasons(g.Unknown, "surplus", "overcommit")
		return f
	}
	f.Got = fmt.Sprintf("%d surplus, overcommit up to %d", *g.Surplus, *g.Overcommit)
	f.Evidence = []check.Evidence{
		{Source: path.Join(g.Dir, "surplus_hugepages"), Value: strconv.FormatInt(*g.Surplus, 10)},
		{Source: path.Join(g.Dir, "nr_overcommit_hugepages"), Value: strconv.FormatInt(*g.Overcommit, 10)},
	}
	f.Status = check.Pass
	switch {
	case *g.Overcommit > 0:
		f.Status, f.Why = check.Warn, "the pool promises pages that are not reserved: whether a program gets them is luck"
		if *g.Surplus > 0 {
			f.Status = atMostWarn(check.Fail, origin)
			f.Why = "programs already live on pages that are not reserved: the pool is too small, and the next one may fail"
		}
		f.Next = fmt.Sprintf("echo 0 > %s/nr_overcommit_hugepages, and remove vm.nr_overcommit_hugepages from /etc/sysctl.d", g.Dir)
	case *g.Surplus > 0:
		f.Status, f.Why = check.Warn, "the pool was shrunk below its use: these pages go away when they are freed"
		f.Next = fmt.Sprintf("raise %s/nr_hugepages if they are meant to stay", g.Dir)
	}
	return f
}

var hugepagesMount = &check.Check{
	ID: "hugepages.mount", Title: "Every wanted page size is mounted", Severity: check.Low,
	Doc: `DPDK, QEMU (memory-backend-file) and libvirt map huge pages through files, so they need a hugetlbfs mount of that page size. systemd's
dev-hugepages.mount gives /dev/hugepages, and that serves the default size only. Programs that use memfd_create or
mmap with MAP_HUGETLB need no mount.

The evidence is the mount table: pagesize=1024M is 1G; a mount without pagesize= has the default size.

    mount -t hugetlbfs -o pagesize=1G none /dev/hugepages1G

For good, as a systemd unit (/etc/systemd/system/dev-hugepages1G.mount) or a line in /etc/fstab:

    hugetlbfs /dev/hugepages1G hugetlbfs pagesize=1G,mode=0775 0 0

A container sees its own mounts: this check reads those of the host's first process where it can.`,
	Refs: []string{hugetlbDoc, "https://www.freedesktop.org/wiki/Software/systemd/APIFileSystems/"},
	Run:  runHugepagesMount,
}

func runHugepagesMount(_ context.Context, r *check.Run) error {
	want, p := r.Profile.Hugepages.Mount, r.Facts.Hugepages()
	switch sizes := wantedSizes(r.Profile); {
	case !want.Set || !want.V:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile wants no hugetlbfs mount"})
	case len(sizes) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile wants no huge page pool"})
	case p.Mounts == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: p.Unknown["mounts"]})
	default:
		for _, kb := range sizes {
			r.Report(mounted(p, kb, want.Origin))
		}
	}
	return nil
}

func mounted(p *facts.Hugepages, kb int64, origin profile.Origin) check.Finding {
	size := facts.SizeName(kb)
	f := check.Finding{Subject: size, Want: "a hugetlbfs mount with pages of " + size, Source: origin.String()}
	var all []string
	unsized := false
	for _, m := range p.Mounts {
		if m.SizeKB == nil {
			unsized = true
			all = append(all, m.Path+" (size not known)")
			continue
		}
		if *m.SizeKB == kb {
			f.Status, f.Got = check.Pass, m.Path
			f.Evidence = []check.Evidence{{Source: p.MountSource, Value: m.Path + " pagesize=" + size}}
			return f
		}
		all = append(all, m.Path+" "+facts.SizeName(*m.SizeKB))
	}
	f.Got = strings.Join(all, ", ")
	if f.Got == "" {
		f.Got = "no hugetlbfs mount"
	}
	f.Evidence = []check.Evidence{{Source: p.MountSource, Value: f.Got}}
	if unsized {
		f.Status, f.Why = check.Unknown, "a mount leaves its page size to a default that is not known"
		return f
	}
	f.Status = atMostWarn(check.Fail, origin)
	f.Why = "DPDK, QEMU and others that map huge pages through files find no file system for this size"
	f.Next = fmt.Sprintf("mount -t hugetlbfs -o pagesize=%s none /dev/hugepages%s, and a mount unit or a line in /etc/fstab for good", size, size)
	return f
}

// wantedSizes are the sizes of the pools that the profile wants, in its order.
func wantedSizes(p *profile.Profile) []int64 {
	var sizes []int64
	for _, rule := range p.Hugepages.Pools {
		if rule.PerNode.V == 0 && rule.Total.V == 0 {
			continue // asks for nothing
		}
		if kb, err := profile.ParseSize(rule.Size); err == nil && !slices.Contains(sizes, kb) {
			sizes = append(sizes, kb)
		}
	}
	return sizes
}

var hugepagesBalance = &check.Check{
	ID: "hugepages.balance", Title: "Pools are alike on all nodes", Severity: check.Low,
	Doc: `On a host with two sockets, ranks and queues run on both, each beside its own GPU and NIC. A pool that is smaller on one node
starves that half, or makes it use memory across the socket link. Uneven pools are mostly an accident: the kernel
spreads a plain hugepages=N over the nodes and takes from another node what one cannot give, without a word, and a write to
the global nr_hugepages does the same later, when memory is fragmented unevenly.

Uneven pools warn. A node with no page at all of a size that the profile wants fails. Nodes without CPUs do not count. A difference
of one page is the remainder of an odd count and passes.

    cat /sys/devices/system/node/node*/hugepages/hugepages-1048576kB/nr_hugepages

Ask per node instead: hugepagesz=1G hugepages=0:32,1:32. A pool on one node only can be meant, for a
DPDK switch on that node's NIC: waive it then.`,
	Refs:     []string{hugetlbDoc, paramsDoc},
	Requires: []string{"hugepages.pool"},
	Run:      runHugepagesBalance,
}

func runHugepagesBalance(_ context.Context, r *check.Run) error {
	p, nodes := r.Facts.Hugepages(), r.Facts.NUMA().Usable()
	switch {
	case nodes == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: "which nodes have CPUs and memory is not known: " + reasons(r.Facts.NUMA().Unknown, "nodes", "with_cpus", "with_memory")})
		return nil
	case p.Pools == nil || p.Unknown["pools"] != "":
		r.Report(check.Finding{Status: check.Unknown, Why: reasons(p.Unknown, "pools")})
		return nil
	case len(nodes) < 2:
		r.Report(check.Finding{Status: check.Skip, Why: "only one node has CPUs and memory"})
		return nil
	}
	used := false
	for _, kb := range p.Sizes() {
		used = balance(r, nodes, kb) || used
	}
	if !used {
		r.Report(check.Finding{Status: check.Skip, Why: "no node has a huge page"})
	}
	return nil
}

// balance judges one size, and reports nothing when no node has pages of it.
func balance(r *check.Run, nodes []int, kb int64) (reported bool) {
	p, size := r.Facts.Hugepages(), facts.SizeName(kb)
	counts := make([]int64, len(nodes))
	var most int64
	var got []string
	var ev []check.Evidence
	for i, node := range nodes {
		pool := p.Pool(node, kb)
		if pool != nil && pool.Total == nil {
			r.Report(check.Finding{Subject: poolSubject(node, kb), Status: check.Unknown, Why: pool.Unknown["total"]})
			return true
		}
		if pool != nil {
			counts[i] = *pool.Total
			ev = append(ev, check.Evidence{Source: path.Join(pool.Dir, "nr_hugepages"), Value: strconv.FormatInt(*pool.Total, 10)})
		}
		most = max(most, counts[i])
		got = append(got, fmt.Sprintf("%s %d", nodeName(node), counts[i]))
	}
	if most == 0 {
		return false
	}
	f := check.Finding{Want: "as many pages on each node with CPUs and memory", Got: strings.Join(got, ", "), Evidence: ev, Source: hugetlbDoc}
	even := true
	for i, node := range nodes {
		if most-counts[i] <= 1 {
			continue
		}
		even = false
		if f.Subject, f.Status = poolSubject(node, kb), check.Warn; counts[i] == 0 && slices.Contains(wantedSizes(r.Profile), kb) {
			f.Status = check.Fail
		}
		f.Why = fmt.Sprintf("%s has %d pages of %s fewer than the fullest node: what runs there is starved or uses remote memory", nodeName(node), most-counts[i], size)
		f.Next = fmt.Sprintf("ask per node on the kernel command line: hugepagesz=%s hugepages=%s", size, perNodeText(nodes, strconv.FormatInt(most, 10)))
		r.Report(f)
	}
	if even {
		f.Subject, f.Status = size, check.Pass
		r.Report(f)
	}
	return true
}

// perNodeText is the per-node form of hugepages=: "0:32,1:32".
func perNodeText(nodes []int, count string) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = fmt.Sprintf("%d:%s", n, count)
	}
	return strings.Join(parts, ",")
}

var hugepagesMemoryless = &check.Check{
	ID: "hugepages.memoryless", Title: "No huge pages on nodes without CPUs", Severity: check.Medium,
	Doc: `A node without CPUs is the memory of a GPU (NVLink-attached on POWER9 and Grace), a CXL expander or high-bandwidth memory. The
kernel spreads a plain hugepages=N, and every write to the global nr_hugepages, over all nodes with memory, these
included. Such pages take the device's own memory away from it, keep its driver from unplugging the node, and nothing that runs on
a CPU finds them near. They also make the pools of the real nodes smaller than they should be.

Pages on a node that has no ordinary kernel memory either (not in has_normal_memory: device memory) fail; on another
node without CPUs they warn.

    cat /sys/devices/system/node/has_cpu /sys/devices/system/node/has_normal_memory
    echo 0 > /sys/devices/system/node/node252/hugepages/hugepages-2048kB/nr_hugepages

Ask per node at boot: hugepages=0:32,8:32.`,
	Refs: []string{hugetlbDoc, "Documentation/ABI/stable/sysfs-devices-node"},
	Run:  runHugepagesMemoryless,
}

func runHugepagesMemoryless(_ context.Context, r *check.Run) error {
	p, numa := r.Facts.Hugepages(), r.Facts.NUMA()
	switch {
	case numa.Nodes == nil || numa.WithCPUs == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: "which nodes have CPUs is not known: " + reasons(numa.Unknown, "nodes", "with_cpus")})
		return nil
	case len(numa.WithCPUs) == len(numa.Nodes):
		r.Report(check.Finding{Status: check.Skip, Why: "every node has CPUs"})
		return nil
	case p.Pools == nil || p.Unknown["pools"] != "":
		r.Report(check.Finding{Status: check.Unknown, Why: reasons(p.Unknown, "pools")})
		return nil
	}
	for i := range p.Pools {
		if pool := &p.Pools[i]; !slices.Contains(numa.WithCPUs, pool.Node) {
			r.Report(memoryless(pool, numa))
		}
	}
	return nil
}

func memoryless(pool *facts.NodePool, numa *facts.NUMA) check.Finding {
	f := check.Finding{Subject: poolSubject(pool.Node, pool.SizeKB), Want: "no pages on a node without CPUs", Source: hugetlbDoc}
	if pool.Total == nil {
		f.Status, f.Why = check.Unknown, pool.Unknown["total"]
		return f
	}
	f.Got = fmt.Sprintf("%d × %s", *pool.Total, facts.SizeName(pool.SizeKB))
	f.Evidence = poolEvidence(pool.Dir, pool.Total, pool.Free)
	f.Status = check.Pass
	if *pool.Total > 0 {
		f.Status, f.Why = check.Warn, "nothing runs beside this memory; the pages are missing on the nodes that need them"
		if numa.WithMemory != nil && !slices.Contains(numa.WithMemory, pool.Node) {
			f.Status, f.Why = check.Fail, "this is device memory (no has_normal_memory), such as a GPU's: the pages take it away from the device"
		}
		f.Next = fmt.Sprintf("echo 0 > %s/nr_hugepages, and ask per node at boot: hugepages=%s", pool.Dir, perNodeText(numa.WithCPUs, "N"))
	}
	return f
}

// poolNodes lists the nodes that have pools, in order.
func poolNodes(p *facts.Hugepages) []int {
	var nodes []int
	for i := range p.Pools {
		if n := p.Pools[i].Node; !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	return nodes
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
