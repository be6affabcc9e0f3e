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
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var hugepagesMount = &check.Check{
	ID: "hugepages.mount", Title: "Every wanted page size is mounted", Severity: check.Low, FixTier: plan.Safe,
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
	const why = "programs that map huge pages through files find no file system"
	if p.DefaultKB != nil && *p.DefaultKB == kb { // systemd has a unit for it, which nobody enables
		f.Fix = offer(origin, wishUnit("dev-hugepages.mount", "active", "inactive", "active", why))
	} else {
		unit := "dev-hugepages" + size + ".mount"
		f.Fix = offer(origin, wishUnit(unit, "enabled", "disabled", "enabled", why), wishUnit(unit, "active", "inactive", "active", why))
	}
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
	ID: "hugepages.memoryless", Title: "No huge pages on nodes without CPUs", Severity: check.Medium, FixTier: plan.Safe,
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
		f.Fix = []plan.Wish{wishPages(pool.Node, pool.SizeKB, *pool.Total, 0, "nothing runs beside this memory")}
		f.Next = fmt.Sprintf("echo 0 > %s/nr_hugepages, and ask per node at boot: hugepages=%s", pool.Dir, perNodeText(numa.WithCPUs, "N"))
	}
	return f
}
