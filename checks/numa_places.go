// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var numaPlaceChecks = []*check.Check{numaMemoryOnly, numaSpread}

var numaMemoryOnly = &check.Check{
	ID: "numa.memory_only", Title: "The kernel keeps its own memory off nodes without CPUs", Severity: check.Medium,
	Doc: `A node without CPUs is the memory of a GPU (NVLink-attached on Grace and POWER9), a CXL expander or high-bandwidth memory. GB200 shows
some 30 nodes, most of them empty: placeholders for the partitions (MIG) of its GPUs. No advice of hostcheck places threads, interrupts
or pools there; this check names them, and looks at what the kernel put there.

    Slab, KernelStack, PageTables      the kernel's own memory. It cannot move: the driver can no longer take the memory away, and each use
                                       of it crosses the link to the device. On a host of Arm or POWER with GPUs, where such a node
                                       is GPU memory, a failure; a warning elsewhere (CXL and HBM may be meant for it)
    FilePages without Shmem            the page cache of files. It filled the GPU's memory because the CPUs' was full: a warning on those
                                       hosts, and no matter elsewhere

Huge pages there are judged by hugepages.memoryless, devices by numa.device_node. What programs put there on purpose is theirs.

By hand:

    cat /sys/devices/system/node/has_cpu /sys/devices/system/node/has_normal_memory
    grep -E 'Slab|KernelStack|PageTables|FilePages|Shmem:' /sys/devices/system/node/node2/meminfo
    cat /sys/devices/system/memory/auto_online_blocks            # online_movable keeps the kernel out

The memory of a device must come online as movable (online_movable; the NVIDIA driver does so by itself where it brings it online). A node that
is in has_normal_memory came online otherwise: a rule of udev, memhp_default_state=online, or a kernel built to do so. After a change: reboot.

Often copied and wrong: counting GPU nodes as NUMA nodes of the host, in "numactl --interleave=all", in pools and in per-node quotas.`,
	Refs: []string{nodeABI, "https://docs.kernel.org/admin-guide/mm/memory-hotplug.html"},
	Run:  runMemoryOnly,
}

func runMemoryOnly(_ context.Context, r *check.Run) error {
	n := r.Facts.NUMA()
	switch {
	case n.Nodes == nil || n.WithCPUs == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: "which nodes have CPUs is not known: " + reasons(n.Unknown, "nodes", "with_cpus")})
		return nil
	case len(n.MemoryOnly) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "every node has CPUs"})
		return nil
	}
	var empty []facts.MemoryNode
	for i := range n.MemoryOnly {
		if m := &n.MemoryOnly[i]; m.MemKB != nil && *m.MemKB == 0 {
			empty = append(empty, *m)
		} else {
			r.Report(judgeMemoryOnly(m, gpuMemory(r)))
		}
	}
	if empty != nil {
		var set facts.CPUSet
		for _, m := range empty {
			set.Add(m.Node)
		}
		r.Report(check.Finding{
			Subject: "nodes " + set.String(), Status: check.Pass, Got: "without CPUs and without memory: placeholders",
			Evidence: []check.Evidence{{Source: empty[0].Meminfo(), Value: "MemTotal 0 kB"}},
		})
	}
	return nil
}

// gpuMemory is true of a host whose memory nodes are those of GPUs: of the
// processors to which GPUs are attached coherently.
func gpuMemory(r *check.Run) bool {
	arch := text(r.Facts.Kernel().Arch)
	return (arch == "arm64" || arch == "ppc64le") && slices.ContainsFunc(r.Facts.PCI().Functions, (*facts.PCIFunction).GPU)
}

func judgeMemoryOnly(m *facts.MemoryNode, gpu bool) check.Finding {
	f := check.Finding{Subject: nodeName(m.Node), Want: "no memory of the kernel on a node without CPUs", Source: nodeABI}
	if m.MemKB == nil || m.KernelKB == nil || m.CacheKB == nil {
		return check.Finding{Subject: f.Subject, Status: check.Unknown, Why: reasons(m.Unknown, "mem_kb", "kernel_kb", "cache_kb")}
	}
	f.Got = fmt.Sprintf("%s without CPUs; kernel %s, page cache %s", facts.SizeName(*m.MemKB), kilobytes(*m.KernelKB), kilobytes(*m.CacheKB))
	f.Evidence = []check.Evidence{
		{Source: "/sys/devices/system/node/has_cpu", Value: "not " + strconv.Itoa(m.Node)},
		{Source: m.Meminfo(), Value: fmt.Sprintf("MemTotal %d kB; Slab, KernelStack and PageTables %d kB; FilePages without Shmem %d kB", *m.MemKB, *m.KernelKB, *m.CacheKB)},
	}
	if m.Normal != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/devices/system/node/has_normal_memory", Value: map[bool]string{true: "has ", false: "not "}[*m.Normal] + strconv.Itoa(m.Node)})
	}
	f.Status = check.Pass
	const movable = "have this memory brought online as movable (online_movable in /sys/devices/system/memory/auto_online_blocks, memhp_default_state=online_movable), and reboot"
	switch {
	case *m.KernelKB > 0:
		f.Status, f.Next = check.Warn, movable
		f.Why = "the kernel's own memory cannot move: this memory can no longer be taken offline, and it is far from every CPU"
		if gpu {
			f.Status = check.Fail
			f.Why = "this is a GPU's memory, and the kernel's own in it cannot move: the driver cannot take it back, and each use crosses the link to the GPU"
		}
	case *m.CacheKB > 0 && gpu:
		f.Status = check.Warn
		f.Why = "files are cached in a GPU's memory, where the GPU's programs miss it"
		f.Next = "sync; echo 1 > /proc/sys/vm/drop_caches frees it once; bind what reads the files to the nodes with CPUs (numactl --membind), so that it does not come back"
	}
	return f
}

func kilobytes(kb int64) string {
	if kb == 0 {
		return "none"
	}
	return strconv.FormatInt(kb, 10) + " kB"
}

var numaSpread = &check.Check{
	ID: "numa.spread", Title: "GPUs and rails are spread evenly over the sockets", Severity: check.Medium,
	Doc: `On a host with two sockets half of the GPUs and half of the rails belong to each. When a card was put into a slot of the other socket,
everything works, and its traffic crosses the link between the sockets. When one is missing this tells of which socket.

Wanted are the numbers of the profile's inventory (gpus, rails), in equal parts for each socket; where they do not divide, one more or
less is right. Without an inventory nobody knows what the host should have: then the check is skipped, and so is what is fewer than
sockets. A device whose numa_node is -1 is unknown.

The socket is that of the CPUs of the device's node (physical_package_id), so that several nodes of one socket (NPS, SNC) count as
one. Where sockets are not told, as in some virtual machines, it is unknown.

By hand:

    hostcheck topo
    grep . /sys/bus/pci/devices/*/numa_node | grep -v -e '-1$'
    grep . /sys/devices/system/cpu/cpu*/topology/physical_package_id | sort -u -t: -k2

The way out is another slot; the board's manual says which slots are of which socket. A host that is built otherwise on purpose says so: no
inventory, or a waiver.`,
	Refs:     []string{nodeABI, pciABI, "https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-devices-system-cpu"},
	Requires: []string{"numa.device_node"},
	Run:      runSpread,
}

func runSpread(_ context.Context, r *check.Run) error {
	inv := r.Profile.Inventory
	if !inv.GPUs.Set && !inv.Rails.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say how many GPUs and rails there should be (inventory)"})
		return nil
	}
	if noBus(r) {
		return nil
	}
	n := r.Facts.NUMA()
	if n.Packages == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: "the sockets are not known: " + reasons(n.Unknown, "nodes", "packages")})
		return nil
	}
	sockets := map[int]bool{}
	for _, p := range n.Packages {
		if p >= 0 {
			sockets[p] = true
		}
	}
	_, gpus := fastDevices(r)
	for _, kind := range []struct {
		subject string
		want    profile.Val[int]
		fns     []*facts.PCIFunction
	}{{"GPUs", inv.GPUs, gpus}, {"rails", inv.Rails, rails(r)}} {
		if !kind.want.Set {
			continue
		}
		f := check.Finding{Subject: kind.subject, Status: check.Skip}
		switch {
		case len(sockets) < 2:
			f.Why = "the host has one socket"
		case kind.want.V < len(sockets):
			f.Why = fmt.Sprintf("%d cannot be spread over %d sockets", kind.want.V, len(sockets))
		case len(kind.fns) == 0:
			f.Why = "none is there: driver.inventory"
		default:
			f = judgeSpread(n, slices.Sorted(maps.Keys(sockets)), kind.fns, kind.want)
			f.Subject = kind.subject
		}
		r.Report(f)
	}
	return nil
}

// rails gives the functions whose interfaces a nics rule marks as rails.
func rails(r *check.Run) (fns []*facts.PCIFunction) {
	for _, w := range selected(r) {
		if w.Rule.Rail.V && w.PCI != nil && !w.NIC.VF && !slices.Contains(fns, w.PCI) {
			fns = append(fns, w.PCI)
		}
	}
	return fns
}

func judgeSpread(n *facts.NUMA, sockets []int, fns []*facts.PCIFunction, want profile.Val[int]) check.Finding {
	count := map[int]int{}
	f := check.Finding{Source: want.Origin.String()}
	for _, fn := range fns {
		at := -1
		if fn.NUMANode != nil {
			at = slices.Index(n.Nodes, *fn.NUMANode)
		}
		if at < 0 || n.Packages[at] < 0 {
			return check.Finding{Status: check.Unknown, Why: fmt.Sprintf("the socket of %s is not known: %s", fn.BDF, orText(fn.Unknown["numa_node"], fn.Attr("numa_node")+" names no node with CPUs"))}
		}
		count[n.Packages[at]]++
		f.Evidence = append(f.Evidence, check.Evidence{Source: fn.Attr("numa_node"), Value: fmt.Sprintf("%d, of socket %d", *fn.NUMANode, n.Packages[at])})
	}
	low, high := want.V/len(sockets), (want.V+len(sockets)-1)/len(sockets)
	f.Want = fmt.Sprintf("%d on each socket", low)
	if high > low {
		f.Want = fmt.Sprintf("%d or %d on each socket", low, high)
	}
	var got, wrong []string
	for _, s := range sockets {
		got = append(got, fmt.Sprintf("socket %d: %d", s, count[s]))
		switch {
		case count[s] < low:
			wrong = append(wrong, fmt.Sprintf("socket %d has %d too few", s, low-count[s]))
		case count[s] > high:
			wrong = append(wrong, fmt.Sprintf("socket %d has %d too many", s, count[s]-high))
		}
	}
	f.Status, f.Got = check.Pass, strings.Join(got, ", ")
	if wrong != nil {
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = strings.Join(wrong, ", ") + ": what runs there reaches its devices across the link between the sockets"
		f.Next = "move cards to slots of the other socket, by the board's manual; or look for the one that is missing there (driver.inventory)"
	}
	return f
}
