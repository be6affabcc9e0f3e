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
)

var cmdlineHugepages = &check.Check{
	ID: "cmdline.hugepages", Title: "Huge pages asked for at boot are there", Severity: check.High, FixTier: plan.Safe,
	Doc: `The kernel reads huge page options in order, as a machine with a memory, and never stops a boot for them:

  - hugepages=N before any size is for the default size; after one, for the latest valid size.
  - A second count without a size between is lost. Repeating a size loses the repeat and the count after it (except the default size
    that has no count yet, so default_hugepagesz=1G hugepagesz=1G hugepages=N is right).
  - An invalid size loses the next count: 1G without the CPU flag pdpe1gb, a size that the page size of an Arm kernel does not have.
  - hugepages=0:32,1:32 is per node. A node that is not online voids all of it; a node that stands in it twice keeps the last count.
  - Numbers are read as far as they go: 5abc is 5, 0x10 is 0, 2MB is 2M.
  - hugetlb_cma= switches gigantic pages at boot off.

The check runs the text through these rules, reports every lost count, and then compares what is left over with the
pages that the kernel holds. A shortfall is logged at most ("HugeTLB: allocating 64 of page size 1.00 GiB failed. Only allocated 57
hugepages."). A page of 1G that finds no room on its node may be taken from another one, and then nothing is logged.
Counts without a node are compared in total only: how the kernel spreads them is not fixed. Pools that were changed after boot
show here as well.

By hand: write each size once, its count right after it, with a node for each part, and put 1G before 2M:

    default_hugepagesz=1G hugepagesz=1G hugepages=0:32,1:32 hugepagesz=2M hugepages=0:1024,1:1024

Often copied and wrong: tools that sort the options or keep them in a map, so that counts meet other sizes;
64 × 1G on every host whatever its memory; HugePages_Total of /proc/meminfo as proof, which is the default size only.`,
	Refs: []string{hugetlbDoc, paramsDoc, "mm/hugetlb.c"},
	Run:  runCmdlineHugepages,
}

func runCmdlineHugepages(_ context.Context, r *check.Run) error {
	c := knownCmdline(r)
	if c == nil {
		return nil
	}
	reported := false
	for _, p := range c.Problems {
		if p.Area == "hugepages" {
			reported = true
			f := problemFinding(c, p)
			atNextBoot(r, &f, func(c *facts.Cmdline) (bool, string) {
				i := slices.IndexFunc(c.Problems, func(o facts.Problem) bool { return o.Area == p.Area && o.Token == p.Token })
				if i >= 0 {
					return false, c.Problems[i].Kind
				}
				return true, cmdlineText(c, "hugepages", "hugepagesz", "default_hugepagesz")
			})
			r.Report(f)
		}
	}
	if c.Effects.Hugepages == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: c.Effects.Unknown["hugepages"]})
		return nil
	}
	for _, q := range c.Effects.Hugepages {
		r.Report(poolGranted(r, q))
	}
	if !reported && len(c.Effects.Hugepages) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "the command line asks for no huge pages"})
	}
	return nil
}

// pagesAsked is how many pages a command line asks for, on one node or (-1) in
// total, in number and in words; -1 when that is not known.
func pagesAsked(f *facts.Facts, c *facts.Cmdline, kb int64, node int) (n int64, text string) {
	if c.Effects.Hugepages == nil {
		return -1, ""
	}
	for _, q := range c.Effects.Hugepages {
		alone := q.Node < 0 && len(f.NUMA().Nodes) == 1 // all that is spread goes to this node
		if q.SizeKB == kb && (q.Node == node || node < 0 || alone) {
			n += q.Count
		}
	}
	return n, fmt.Sprintf("asks for %d × %s", n, facts.SizeName(kb))
}

// poolGranted compares one request with the pool as it is.
func poolGranted(r *check.Run, q facts.HugepageRequest) check.Finding {
	p, size := r.Facts.Hugepages(), facts.SizeName(q.SizeKB)
	f := check.Finding{Subject: size, Want: fmt.Sprintf("%d × %s", q.Count, size), Source: paramsDoc}
	asked := cmdlineEvidence(r.Facts.Cmdline(), "hugepages", "hugepagesz", "default_hugepagesz")
	var total int64
	var source string
	switch {
	case q.Node >= 0:
		f.Subject = poolSubject(q.Node, q.SizeKB)
		pool := p.Pool(q.Node, q.SizeKB)
		switch {
		case pool != nil && pool.Total != nil:
			total, source = *pool.Total, path.Join(pool.Dir, "nr_hugepages")
		case pool != nil:
			f.Status, f.Why = check.Unknown, pool.Unknown["total"]
			return f
		default:
			f.Status, f.Why = check.Unknown, orText(orText(p.Unlisted[q.Node], p.Unknown["pools"]), "the node has no pool of that size")
			return f
		}
	default:
		var ok bool
		if total, source, ok = p.Total(q.SizeKB); !ok {
			f.Status, f.Why = check.Unknown, orText(reasons(p.Unknown, "global", "pools"), "the kernel shows no pool of that size")
			return f
		}
	}
	f.Got = fmt.Sprintf("%d × %s", total, size)
	f.Evidence = []check.Evidence{asked, {Source: source, Value: strconv.FormatInt(total, 10)}}
	f.Status = check.Pass
	if total < q.Count {
		f.Status = check.Fail
		f.Truth = &check.Truth{Configured: f.Want, Live: f.Got}
		f.Why = "the kernel found no more memory in one piece at boot, or the pool was made smaller since; nothing else reports it"
		if pool := p.Pool(q.Node, q.SizeKB); pool != nil && pool.Surplus != nil && !slices.Contains(wantedSizes(r.Profile), q.SizeKB) {
			// else hugepages.pool says how many
			f.Fix = []plan.Wish{wishPages(q.Node, q.SizeKB, total-*pool.Surplus, q.Count, "the kernel command line asks for them")}
		}
		f.Next = "look in the kernel log for \"Only allocated\"; ask for less, on a node that has the memory, or free the memory that firmware and crashkernel= take"
		atNextBoot(r, &f, func(c *facts.Cmdline) (bool, string) {
			n, text := pagesAsked(r.Facts, c, q.SizeKB, q.Node)
			return n >= 0 && n <= total, text
		})
	}
	return f
}
