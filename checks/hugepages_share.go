// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// reserveKB is what must stay outside the pools of a node: 16 GiB or a tenth
// of it, whichever is more.
func reserveKB(memKB int64) int64 { return max(16<<20, memKB/10) }

var hugepagesShare = &check.Check{
	ID: "hugepages.share", Title: "Pools leave each node enough ordinary memory", Severity: check.High,
	Doc: `Pages in a pool serve nothing but huge page mappings: not the page cache, not the kernel, not a process's heap, and never
swap. A pool that takes most of a node brings the out-of-memory killer to a host that seems to have plenty. All sizes
together count, surplus pages included.

Beyond the profile's node_percent_max the check fails; beyond node_percent_warn it warns. Independently, max(16 GiB,
10 %) of a node larger than that should stay outside the pools: less warns, and fails when the pools take more than the
warning share too.

    numastat -m | grep -E 'MemTotal|HugePages'
    echo 512 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages

Shrinking below what is in use turns the rest into surplus pages rather than freeing them: look at free_hugepages minus
resv_hugepages first. Kubelet's system-reserved and kube-reserved cannot hold back huge pages.

Often copied and wrong: that RDMA needs pages of 1G, since a gigabyte is "250,000 mappings" otherwise. NICs have a table of
translations, and larger pages make it smaller, but ordinary pages register fine, and transparent or 2M pages are mostly enough; buffers
of GPUDirect and NCCL do not come from the pool at all.`,
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
	f.Got = fmt.Sprintf("%s of %s, %.1f %%", facts.MemName(poolKB), facts.MemName(total), percent)
	over := func(v profile.Val[int]) bool { return v.Set && percent > float64(v.V) }
	short := total > reserveKB(total) && total-poolKB < reserveKB(total)
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
	want := fmt.Sprintf("at most %d %% in pools", limit.V)
	if reserve := reserveKB(total); total > reserve {
		want += fmt.Sprintf(", and %s outside", facts.MemName(reserve))
	}
	return want
}

var hugepagesSurplus = &check.Check{
	ID: "hugepages.surplus", Title: "Pools are fixed, not elastic", Severity: check.Low, FixTier: plan.Safe,
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
			f := surplusOf(&p.Global[i], ok.Origin)
			if n := p.Global[i].Overcommit; n != nil && *n > 0 {
				f.Fix = offer(ok.Origin, noOvercommit(p, &p.Global[i]))
			}
			r.Report(f)
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

// noOvercommit wants a pool not to grow by itself. That of the default size is
// a kernel parameter too, which lasts.
func noOvercommit(p *facts.Hugepages, g *facts.GlobalPool) plan.Wish {
	w := wishFile(path.Join(g.Dir, "nr_overcommit_hugepages"), strconv.FormatInt(*g.Overcommit, 10), "0", "the pool promises pages that are not reserved")
	if p.DefaultKB != nil && *p.DefaultKB == g.SizeKB {
		w.Setting = plan.Setting{Kind: "sysctl", Name: "vm.nr_overcommit_hugepages"}
	}
	return w
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
