// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var rdmaGPUDirect = &check.Check{
	ID: "rdma.gpudirect", Title: "RDMA NICs can reach the memory of NVIDIA GPUs", Severity: check.High, FixTier: plan.Safe,
	Doc: `GPUDirect RDMA lets a NIC read and write GPU memory. Without it every transfer is copied through host memory: NCCL says so in one line
("GDR 0" or no /GDRDMA behind the network) and goes on at a fraction of the bandwidth.

There are two ways, and one must be open. The older: the module nvidia_peermem (formerly nv_peer_mem), which registers with an RDMA
core that takes such clients, that of MLNX_OFED or DOCA, or of a distribution that carries the patch; the kernel's own does not. The newer: DMA-BUF. It
needs kernel 5.12, an RDMA driver that takes such buffers (mlx5_ib), and NVIDIA's open kernel modules; the proprietary ones export none. Which
modules run is told by the taint letter P, which the proprietary ones carry, in /proc/modules.

Judged are hosts where a GPU is bound to the nvidia driver and an RDMA device of a PCI function is there. Whether the path between
the two is short and not redirected is told by the areas acs and numa.

By hand:

    grep -E '^(nvidia_peermem|nv_peer_mem|nvidia) ' /proc/modules    # (POE): proprietary, (OE): open
    cat /proc/driver/nvidia/version                                  # "Open Kernel Module"
    modprobe nvidia-peermem          # "Invalid argument": this RDMA core takes no clients
    NCCL_DEBUG=INFO …                # look for GDRDMA

To have it at every boot: echo nvidia-peermem > /etc/modules-load.d/nvidia-peermem.conf, which must come after the nvidia driver. With
the open modules nothing need be loaded.

Often copied and wrong: that the IOMMU must be on, with ACS, for RDMA or GPUDirect. Those isolate guests; on bare metal ACS redirection
sends the GPU's traffic through the root complex, and the hugetlb pool plays no part in it either.`,
	Refs: []string{
		"https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html", "https://docs.nvidia.com/cuda/gpudirect-rdma/index.html",
		"https://docs.kernel.org/driver-api/dma-buf.html",
	},
	Requires: []string{"driver.bound", "driver.rdma"},
	Run:      runGPUDirect,
}

// dmaBufKernel is the first kernel whose RDMA core takes DMA-BUFs
// (drivers/infiniband/core/umem_dmabuf.c, with mlx5_ib as its first user).
const dmaBufKernel = "5.12"

func runGPUDirect(_ context.Context, r *check.Run) error {
	var gpus []string
	for _, fn := range r.Facts.PCI().Functions {
		if fn.GPU() && fn.Driver != nil && *fn.Driver == "nvidia" {
			gpus = append(gpus, fn.BDF)
		}
	}
	if len(gpus) == 0 || !hasRDMA(r) {
		return nil
	}
	f := check.Finding{Subject: "GPUDirect RDMA", Want: "nvidia_peermem, or DMA-BUF of the open kernel modules"}
	mods := r.Facts.Modules()
	sure := true
	for _, name := range []string{"nvidia_peermem", "nv_peer_mem"} {
		mod, known := mods.Find(name)
		sure = sure && known
		if mod != nil && mod.State == "Live" {
			f.Status, f.Got = check.Pass, name
			f.Evidence = []check.Evidence{{Source: "/proc/modules", Value: name + " " + mod.State}}
			r.Report(f)
			return nil
		}
	}
	judgeDMABuf(r, &f, gpus)
	if f.Status == check.Fail && !sure {
		f.Status, f.Next, f.Fix = check.Unknown, "", nil
		f.Why = "whether nvidia_peermem is there is not known: " + reasons(mods.Unknown, "loaded", "built_in")
	}
	r.Report(f)
	return nil
}

// judgeDMABuf judges the way without a module of its own.
func judgeDMABuf(r *check.Run, f *check.Finding, gpus []string) {
	k := r.Facts.Kernel()
	nvidia, _ := r.Facts.Modules().Find("nvidia")
	taint := ""
	switch {
	case nvidia == nil:
		f.Status, f.Why = check.Unknown, "which modules of NVIDIA run is not known: "+reasons(r.Facts.Modules().Unknown, "loaded", "built_in")
		return
	case nvidia.Taint == nil:
		f.Status, f.Why = check.Unknown, nvidia.Unknown["taint"]
		return
	case k.Release == nil:
		f.Status, f.Why = check.Unknown, k.Unknown["release"]
		return
	default:
		taint = *nvidia.Taint
	}
	f.Evidence = []check.Evidence{
		{Source: "/proc/modules", Value: "no nvidia_peermem; nvidia (" + taint + ")"},
		{Source: "/proc/sys/kernel/osrelease", Value: *k.Release},
	}
	open := !strings.Contains(taint, "P")
	fromKernel := facts.CompareVersions(facts.ReleaseNumbers(*k.Release), dmaBufKernel) >= 0
	vendor := strings.Contains(*k.Release, ".el") // whose 4.18 and 5.14 hold much of later kernels
	flavour, _ := r.Facts.Modules().Flavour("ib_core")
	stack := flavour == "ofed" || flavour == "out-of-tree" // which takes peer memory clients
	takes := slices.ContainsFunc(r.Facts.RDMA().Devices, func(d *facts.RDMADevice) bool { return d.Driver != nil && *d.Driver == "mlx5_core" })
	switch {
	case open && fromKernel && takes:
		f.Status, f.Got = check.Pass, "DMA-BUF: open kernel modules on kernel "+*k.Release
		return
	case open && (vendor || stack) && takes:
		f.Status, f.Got, f.Why = check.Unknown, "open kernel modules", "kernel "+*k.Release+" is older than "+dmaBufKernel+", and may hold DMA-BUF for RDMA as its vendor's addition"
		return
	case open && fromKernel:
		f.Status, f.Got, f.Why = check.Unknown, "open kernel modules", "whether the driver of these RDMA devices takes DMA-BUF is not known to hostcheck"
		return
	case open:
		f.Got = "open kernel modules, and kernel " + *k.Release + " is older than " + dmaBufKernel
	default:
		f.Got = "neither: proprietary kernel modules"
	}
	f.Status = gpuDirectStatus(r)
	f.Why = fmt.Sprintf("traffic of %d GPUs is copied through host memory, at a fraction of the bandwidth", len(gpus))
	f.Next = "install NVIDIA's open kernel modules (from kernel 5.12 nothing else is needed), or use the RDMA stack of DOCA and modprobe nvidia-peermem"
	if stack {
		f.Next = "modprobe nvidia-peermem; for every boot: echo nvidia-peermem > /etc/modules-load.d/nvidia-peermem.conf"
		if f.Status == check.Fail {
			f.Fix = []plan.Wish{wishModule("nvidia_peermem", f.Why)}
		}
	}
}

// gpuDirectStatus: a host that is not said to be for GPUDirect may do without.
func gpuDirectStatus(r *check.Run) check.Status {
	switch r.Profile.Intent {
	case "baremetal-gpudirect", "vm-gpudirect", "grace-direct-nic":
		return worst(r.Profile)
	}
	return check.Warn
}
