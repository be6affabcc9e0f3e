// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var numaChecks = []*check.Check{numaGPUNIC, numaDeviceNode, numaDistances}

const (
	nodeABI = "Documentation/ABI/stable/sysfs-devices-node"
)

var numaGPUNIC = &check.Check{
	ID: "numa.gpu_nic", Title: "Every GPU has an RDMA NIC near enough", Severity: check.High,
	Doc: `GPUDirect RDMA moves data from a NIC to a GPU without a stop in memory, and is only fast where both are below one PCIe switch. By
default NCCL uses it up to the distance PXB. From PHB on the way leads through the processor, SYS goes over the link between sockets,
and both cost a large part of the bandwidth of a 400G port.

  PIX   one switch between them (or one device)     NODE  several host bridges of one NUMA node
  PXB   several switches, no host bridge            SYS   different NUMA nodes
  PHB   one host bridge

The check takes the nearest of the host's RDMA NICs for each GPU (virtual functions count as where their physical one is). It
computes the distance from the device tree in sysfs alone, so that it needs neither nvidia-smi nor a driver. Without privilege the
kernel does not show which port of a switch is which; the place in the tree tells then.

In a virtual machine the ports above a device are made up: what looks far there is unknown, not a failure.

By hand: hostcheck facts topology, or

    nvidia-smi topo -m
    readlink -f /sys/bus/pci/devices/0000:19:00.0 /sys/bus/pci/devices/0000:18:00.0

A card in another slot is what helps. Until then, tell NCCL which NIC belongs to which GPU by nothing but its topology file, and look
at acs.redirect: a redirect makes the near way as long as the far one.

Often copied and wrong: a NIC on the same NUMA node is "local". Two devices of one node can still be below different host
bridges, and the way between them leads through the processor.`,
	Refs: []string{"https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html", "https://docs.nvidia.com/cuda/gpudirect-rdma/", pciABI},
	Run:  runGPUNIC,
}

func runGPUNIC(_ context.Context, r *check.Run) error {
	want := r.Profile.NUMA.GPUNICMax
	if noBus(r) {
		return nil
	}
	nics, gpus := fastDevices(r)
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile gives no largest distance between a GPU and its NIC"})
		return nil
	case len(gpus) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "the host has no GPU"})
		return nil
	case len(nics) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "the host has no RDMA NIC"})
		return nil
	}
	for _, gpu := range gpus {
		f := check.Finding{Subject: gpu.BDF, Status: check.Fail, Want: want.V + " or nearer", Source: want.Origin.String()}
		var best facts.Distance
		var near, unknown []string
		for _, nic := range nics {
			d, why := r.Facts.Distance(gpu, nic)
			switch {
			case why != "":
				unknown = append(unknown, why)
				continue
			case best == "" || best.Farther(d):
				best, near = d, nil
			case d.Farther(best):
				continue
			}
			near = append(near, functionSubject(r.Facts, nic))
		}
		if best != "" {
			f.Got = string(best) + " to " + strings.Join(near, ", ")
			f.Evidence = []check.Evidence{{Source: facts.PCIDevices + "/" + gpu.BDF, Value: gpu.Path}}
		}
		switch {
		case best != "" && !best.Farther(facts.Distance(want.V)):
			f.Status = check.Pass
		case len(unknown) > 0:
			f.Status, f.Why = check.Unknown, unknown[0]
		case virtual(r.Facts):
			f.Status, f.Why = check.Unknown, "the ports of a virtual machine are made up, so how far it really is is not known"
		default:
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = "what a NIC brings for this GPU goes through the processor"
			f.Next = "put the NIC into a slot below the switch of the GPU, or the GPU into one below that of a NIC; hostcheck facts topology lists all distances"
		}
		r.Report(f)
	}
	return nil
}

var numaDeviceNode = &check.Check{
	ID: "numa.device_node", Title: "GPUs and RDMA NICs are on a known NUMA node that has CPUs", Severity: check.Medium,
	Doc: `Threads, interrupts and buffers belong on the node of the device that they serve. The kernel knows the node from the firmware (_PXM of
the host bridge). Where that is missing, numa_node is -1 and local_cpulist lists all CPUs, which looks healthy: tools that bind by it
bind to nothing, and half of the work crosses the link between sockets. So -1 on a host with several nodes is unknown, not local.

A node without CPUs (the memory of a GPU or of CXL) or one that is not online has nobody who could serve the device.

By hand:

    grep . /sys/bus/pci/devices/*/numa_node
    cat /sys/devices/system/node/has_cpu

Look for a newer firmware, and for settings such as "NUMA nodes per socket" and "PCIe proximity". In a virtual machine the host
decides (virtual NUMA, and a root complex for each node).

Often copied and harmful: echo 0 > numa_node. It taints the kernel, lasts until the next boot and tells the kernel a thing that may be wrong.`,
	Refs: []string{pciABI, "drivers/pci/pci-sysfs.c"},
	Run:  runDeviceNode,
}

func runDeviceNode(_ context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	nics, gpus := fastDevices(r)
	n := r.Facts.NUMA()
	switch {
	case len(nics)+len(gpus) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "the host has no GPU and no RDMA NIC"})
		return nil
	case n.Nodes == nil || n.WithCPUs == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: reasons(n.Unknown, "nodes", "with_cpus")})
		return nil
	case len(n.Nodes) == 1:
		r.Report(check.Finding{Status: check.Skip, Why: "the host has one NUMA node"})
		return nil
	}
	for _, fn := range slices.Concat(nics, gpus) {
		f := check.Finding{Subject: functionSubject(r.Facts, fn), Want: "a node with CPUs", Source: pciABI}
		switch node := fn.NUMANode; {
		case node == nil:
			f.Status, f.Why = check.Unknown, "on which node it is is not known: "+orText(fn.Unknown["numa_node"], "the firmware names none (-1)")
		case !slices.Contains(n.Nodes, *node):
			f.Status, f.Got = check.Fail, nodeName(*node)+", which is not online"
			f.Why = "its memory and interrupts are served from wherever there is room"
			f.Next = "look for memory that is missing on that socket: ls -d /sys/devices/system/node/node*"
		case !slices.Contains(n.WithCPUs, *node):
			f.Status, f.Got = check.Fail, nodeName(*node)+", which has no CPUs"
			f.Why = "whatever serves it runs on another node"
			f.Next = "bind its threads and interrupts to the nearest node with CPUs (hostcheck facts numa: distances)"
		default:
			f.Status, f.Got = check.Pass, nodeName(*node)
		}
		if fn.NUMANode != nil {
			f.Evidence = []check.Evidence{{Source: fn.Attr("numa_node"), Value: strconv.Itoa(*fn.NUMANode)}}
		}
		r.Report(f)
	}
	return nil
}

var numaDistances = &check.Check{
	ID: "numa.distances", Title: "The firmware's table of NUMA distances makes sense", Severity: check.Low,
	Doc: `The scheduler, the page allocator and tools that place work go by the distances that the firmware gives (ACPI SLIT): 10 is the node
itself, 20 is twice as long. A table in which another node is as near as the own one (all 10), or the way there
and back differ, sends memory to the wrong place, and nothing else shows it.

The evidence are the rows as the kernel took them over. A table that it found broken it replaces by 10 and 20.

By hand:

    cat /sys/devices/system/node/node*/distance     # or numactl --hardware

The way out is a firmware update, or the virtual machine's configuration (in QEMU: -numa dist).`,
	Refs: []string{nodeABI, "drivers/acpi/numa/srat.c"},
	Run:  runDistances,
}

func runDistances(_ context.Context, r *check.Run) error {
	n := r.Facts.NUMA()
	switch {
	case n.Distances == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: reasons(n.Unknown, "nodes", "distances")})
		return nil
	case len(n.Nodes) == 1:
		r.Report(check.Finding{Status: check.Skip, Why: "the host has one NUMA node"})
		return nil
	}
	for i, row := range n.Distances {
		f := check.Finding{Subject: nodeName(n.Nodes[i]), Status: check.Pass, Want: "10 to itself, more to others, the same both ways", Source: nodeABI}
		var words []string
		for k, d := range row {
			words = append(words, strconv.Itoa(d))
			switch {
			case i == k && d != 10:
				f.Why = fmt.Sprintf("%d to itself", d)
			case i != k && d <= 10:
				f.Why = fmt.Sprintf("%s is said to be as near as the node itself", nodeName(n.Nodes[k]))
			case d != n.Distances[k][i]:
				f.Why = fmt.Sprintf("%d to %s, and %d back", d, nodeName(n.Nodes[k]), n.Distances[k][i])
			default:
				continue
			}
			f.Status = check.Fail
			f.Next = "look for a firmware update; until then bind memory by hand (numactl --membind), as the kernel's choice goes by this table"
		}
		f.Got = strings.Join(words, " ")
		f.Evidence = []check.Evidence{{Source: facts.NodePath(n.Nodes[i]) + "/distance", Value: f.Got}}
		r.Report(f)
	}
	return nil
}
