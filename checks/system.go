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

const (
	thpDoc    = "https://docs.kernel.org/admin-guide/mm/transhuge.html"
	pstateDoc = "https://docs.kernel.org/admin-guide/pm/intel_pstate.html"
)

var systemChecks = []*check.Check{systemPageSize, systemTHP, systemBalancing, systemGovernor, systemClock, systemBounce, systemLockdown}

var systemPageSize = &check.Check{
	ID: "system.page_size", Title: "The kernel's page size is one that the profile wants", Severity: check.Medium,
	Doc: `On 64-bit Arm (and POWER) the kernel is built for one base page size: 4K, 16K or 64K. x86 has 4K alone. What hangs on it:

  - the sizes of huge pages: 64K, 2M, 32M and 1G with 4K pages; 2M, 512M and 16G with 64K pages. hugepagesz=1G does nothing there
  - memory of small buffers: a page for a packet or a mapping is 64K at once, sixteen times as much with 64K pages
  - registered memory: sixteen times fewer entries in the tables of the NIC, the IOMMU and the GPU's driver with 64K pages

No profile that comes with hostcheck wants a certain size; say it in the site's, where the programs or the vendor's guide need one:

    system: {page_size: [64K]}

By hand:

    getconf PAGESIZE
    grep PAGES=y /boot/config-$(uname -r)         # CONFIG_ARM64_64K_PAGES=y
    apt install linux-image-generic-64k           # Ubuntu; Red Hat: kernel-64k, then choose it in the boot loader

Another size is another kernel package and a reboot. File systems with blocks larger than a page, and swap made under the other
size, cannot be used then: look before you leave.`,
	Refs: []string{"https://docs.kernel.org/arch/arm64/hugetlbpage.html", "https://docs.kernel.org/arch/arm64/memory.html"},
	Run:  runSystemPageSize,
}

func runSystemPageSize(_ context.Context, r *check.Run) error {
	want, k := r.Profile.System.PageSize, r.Facts.Kernel()
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say which page size it wants"})
		return nil
	case k.PageSize == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: k.Unknown["page_size"]})
		return nil
	}
	got := fmt.Sprintf("%dK", *k.PageSize>>10)
	f := check.Finding{Status: check.Pass, Want: strings.Join(want.V, " or "), Got: got, Source: want.Origin.String(),
		Evidence: []check.Evidence{{Source: "page size of the kernel", Value: fmt.Sprint(*k.PageSize)}}}
	if k.Release != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/proc/sys/kernel/osrelease", Value: *k.Release})
	}
	if !slices.Contains(want.V, got) {
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = reason(want.Origin, "programs, huge pages and tables of devices are laid out for another page size")
		f.Next = "install a kernel that is built for pages of " + want.V[0] + ", and boot it"
		if k.Arch != nil && *k.Arch == "amd64" {
			f.Next = "change the profile: this architecture has pages of 4K alone"
		}
	}
	r.Report(f)
	return nil
}

var systemTHP = &check.Check{
	ID: "system.thp", Title: "Transparent huge pages are in a mode that the profile wants", Severity: check.Low, FixTier: plan.Safe,
	Doc: `With transparent huge pages the kernel backs ordinary memory by pages of 2M where it can: always for all memory, madvise where a program
asks for it, never for none. Larger pages mean fewer entries when memory is registered with a NIC, and fewer pages to move
between nodes. Programs whose memory is sparse (some databases, JVMs) grow under always; madvise is the kernel's compromise.

Wanted is "thp" of the profile. The bracketed word counts:

    cat /sys/kernel/mm/transparent_hugepage/enabled          # always [madvise] never
    echo madvise > /sys/kernel/mm/transparent_hugepage/enabled

It counts for memory that is mapped from then on. At boot: transparent_hugepage=madvise on the command line, TuneD's [vm]
transparent_hugepages=, or hostcheck's own file of settings.

Often copied and wrong: transparent_hugepage=never as a cure for an empty pool of huge pages (HugePages_Total: 0). The two have nothing
to do with each other: the pool is hugetlb's, and is filled by hugepages= or nr_hugepages, whatever the mode of transparent ones is.
Look at the order of hugepagesz= and hugepages=, and in dmesg for "HugeTLB: allocating … failed. Only allocated". never costs what 2M pages
would have saved.`,
	Refs: []string{thpDoc, hugetlbDoc},
	Run:  runSystemTHP,
}

func runSystemTHP(_ context.Context, r *check.Run) error {
	want, s := r.Profile.System.THP, r.Facts.System()
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say how transparent huge pages are to be"})
		return nil
	case s.THP == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: s.Unknown["thp"]})
		return nil
	}
	f := check.Finding{Status: check.Pass, Want: strings.Join(want.V, " or "), Got: *s.THP, Source: want.Origin.String(), Evidence: []check.Evidence{{Source: facts.THPPath, Value: *s.THP}}}
	if s.THPDefrag != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/kernel/mm/transparent_hugepage/defrag", Value: *s.THPDefrag})
	}
	if !slices.Contains(want.V, *s.THP) {
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = reason(want.Origin, "memory is backed by other pages than the profile counts on")
		f.Next = "echo " + want.V[0] + " > " + facts.THPPath + "; for the next boot, transparent_hugepage=" + want.V[0] + " on the command line"
		f.Fix = offer(want.Origin, wishFile(facts.THPPath, *s.THP, want.V[0], f.Why))
	}
	r.Report(f)
	return nil
}

var systemBalancing = &check.Check{
	ID: "system.numa_balancing", Title: "Automatic NUMA balancing is as the profile says", Severity: check.Low, FixTier: plan.Safe,
	Doc: `With kernel.numa_balancing=1 the kernel takes the mapping of pages away at intervals to learn from the faults which node uses them, and
moves them there. That helps programs that nobody placed. Where ranks are bound to the node of their GPU and NIC the pages are
in place, and what remains are the faults: jitter in each collective. Pages that RDMA has pinned cannot move at all. 2 is another
thing, promotion between memory tiers (CXL), and counts as on.

Wanted is "numa_balancing" of the profile. On a host with one node the kernel never balances, whatever the switch says: skipped.

By hand, at once and for good:

    sysctl -w kernel.numa_balancing=0
    echo 'kernel.numa_balancing = 0' > /etc/sysctl.d/90-numa.conf
    grep -E 'numa_(hint_faults|pages_migrated)' /proc/vmstat      # does it still grow?

The word numa_balancing=disable on the command line does the same at boot.

Often copied and wrong: numa=off for the same purpose. That hides the nodes altogether, and nothing can be placed any more.`,
	Refs: []string{"https://docs.kernel.org/admin-guide/sysctl/kernel.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html"},
	Run:  runSystemBalancing,
}

func runSystemBalancing(_ context.Context, r *check.Run) error {
	want, s, numa := r.Profile.System.NUMABalancing, r.Facts.System(), r.Facts.NUMA()
	evidence := check.Evidence{Source: facts.NUMABalancingPath}
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say whether it is to run"})
		return nil
	case len(numa.Nodes) == 1:
		r.Report(check.Finding{Status: check.Skip, Why: "there is one NUMA node: nothing is balanced"})
		return nil
	case s.NUMABalancing == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: s.Unknown["numa_balancing"]})
		return nil
	}
	names := map[bool]string{false: "0", true: "1"}
	got := fmt.Sprint(*s.NUMABalancing)
	evidence.Value = got
	f := check.Finding{Status: check.Pass, Want: names[want.V], Got: got, Source: want.Origin.String(), Evidence: []check.Evidence{evidence}}
	if (*s.NUMABalancing != 0) != want.V {
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = reason(want.Origin, "pages move, or do not, against what the profile counts on")
		conf := r.Facts.Sysctl()
		k := conf.Key("kernel.numa_balancing")
		f.Truth = sysctlTruth(conf, &k)
		f.Next = setByHand(conf, &k, names[want.V])
		f.Fix = sysctlWish(want.Origin, "kernel.numa_balancing", got, names[want.V], f.Why)
	}
	r.Report(f)
	return nil
}

var systemBounce = &check.Check{
	ID: "system.swiotlb", Title: "Devices reach memory without bounce buffers that are forced or full", Severity: check.High,
	Doc: `swiotlb is a small pool of memory that the kernel copies DMA through, for devices that cannot reach the rest. Copying costs the CPU a
pass over each byte, and no GPUDirect or zero copy survives it.

  - swiotlb=force on the command line sends all DMA through it: a switch for tests of the kernel. On a host that is no confidential guest
    it is a failure
  - in confidential guests (SEV-SNP, TDX) the host must not see memory, so devices are bounced by design: 6 % of memory, 64M to 1G
    (arch/x86/mm/mem_encrypt.c). Only devices that take part in the protection (TDISP) would do without
  - "swiotlb buffer is full" in the kernel log: a transfer failed or was repeated. That is a failure everywhere

The kernel log needs root on most hosts; without it the last one is unknown. An old message may have left the log.

By hand:

    dmesg | grep -iE 'swiotlb|Memory Encryption Features'
    grep . /sys/kernel/debug/swiotlb/io_tlb_{nslabs,used}        # slots of 2K, as root
    swiotlb=262144 on the command line                           # 512M, for a guest that runs full

On bare metal a full pool means devices with 32 bits of address, or an IOMMU that is off: the pool is the symptom.`,
	Refs: []string{"https://docs.kernel.org/core-api/swiotlb.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html"},
	Run:  runSystemBounce,
}

func runSystemBounce(_ context.Context, r *check.Run) error {
	s, c := r.Facts.System(), r.Facts.Cmdline()
	guest := text(s.Confidential)
	if c.Text == nil {
		r.Report(check.Finding{Subject: "forced", Status: check.Unknown, Why: c.Unknown["text"]})
	} else {
		f := check.Finding{Subject: "forced", Status: check.Pass, Want: "no swiotlb=force", Got: "not forced", Source: "kernel kernel/dma/swiotlb.c, setup_io_tlb_npages",
			Evidence: []check.Evidence{{Source: cmdlineFile, Value: "no swiotlb=force"}}}
		for _, t := range c.Tokens {
			if t.Name != "swiotlb" || t.Value == nil || !slices.Contains(strings.Split(*t.Value, ","), "force") {
				continue
			}
			f.Status, f.Got = check.Fail, t.Raw
			f.Evidence = []check.Evidence{{Source: cmdlineFile, Value: t.Raw}}
			f.Why, f.Next = "all DMA is copied through a small buffer by the CPU", "take "+t.Raw+" off the command line"
		}
		if f.Status == check.Fail && s.Confidential == nil && text(r.Facts.Kernel().Hypervisor) != "" {
			f = check.Finding{Subject: "forced", Status: check.Unknown, Got: f.Got, Why: "whether this is a confidential guest, where that changes nothing, is not known: " + s.Unknown["confidential"]}
		}
		if guest != "" && f.Status == check.Fail {
			f = check.Finding{Subject: "forced", Status: check.Skip, Got: f.Got, Evidence: f.Evidence, Why: "devices of a confidential guest (" + guest + ") are bounced anyway"}
		}
		r.Report(f)
	}
	f := check.Finding{Subject: "full", Want: "no transfer that found the buffer full", Source: "kernel kernel/dma/swiotlb.c, swiotlb_tbl_map_single"}
	switch {
	case s.BounceFull == nil:
		f = check.Finding{Subject: "full", Status: check.Unknown, Why: s.Unknown["bounce_full"]}
	case *s.BounceFull != "":
		f.Status, f.Got = check.Fail, *s.BounceFull
		f.Evidence = []check.Evidence{{Source: "klog", Value: *s.BounceFull}}
		f.Why = "transfers of a device fail or wait for room"
		f.Next = "see in the line which device it is; give the pool more slots with swiotlb=N, or on bare metal switch the IOMMU on"
	default:
		f.Status, f.Got = check.Pass, "none in the kernel log"
		f.Evidence = []check.Evidence{{Source: "klog", Value: "no \"swiotlb buffer is full\""}}
	}
	r.Report(f)
	return nil
}

var systemLockdown = &check.Check{
	ID: "system.lockdown", Title: "Kernel lockdown is in a mode that the profile accepts", Severity: check.Info,
	Doc: `Lockdown keeps even root from changing the running kernel. Distributions switch it to integrity where Secure Boot is on. It cannot be
lowered while the kernel runs. What this means for the other areas:

  - integrity: the configuration space of PCI devices can be read and not written, so ACS bits and MaxReadReq cannot be set while
    the host runs (setpci fails with "Operation not permitted"), and unsigned modules do not load (out-of-tree NIC and GPU drivers)
  - integrity, too: files of debugfs that root alone may open give EPERM, those of DCQCN (cc_params) and of swiotlb among them; what
    hostcheck would read there is unknown
  - confidentiality: debugfs, perf, kprobes and BPF no longer read kernel memory, and nothing of debugfs opens at all

This is protection and no fault: without "lockdown" in the profile the check only says what is hidden, and skips. A site that needs
one or the other mode says so:

    system: {lockdown: [none, integrity]}

By hand:

    cat /sys/kernel/security/lockdown            # none [integrity] confidentiality
    mokutil --sb-state
    lockdown=integrity on the command line       # raises it at boot

To lower it, Secure Boot goes off in the firmware, or the distribution's kernel is one that does not tie the two together.
Settings that need a write to PCI configuration space can go to the command line instead: pci=config_acs=, pci=disable_acs_redir=.`,
	Refs: []string{"https://man7.org/linux/man-pages/man7/kernel_lockdown.7.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html"},
	Run:  runSystemLockdown,
}

// lockdownHides is what each mode takes away from this program
// (drivers/pci/pci-sysfs.c, fs/debugfs/file.c, include/linux/security.h).
var lockdownHides = map[string]string{
	"none":            "nothing is hidden",
	"integrity":       "PCI configuration space cannot be written, and debugfs files of root alone (cc_params of DCQCN) give EPERM",
	"confidentiality": "PCI configuration space cannot be written, and debugfs cannot be read",
}

func runSystemLockdown(_ context.Context, r *check.Run) error {
	want, k := r.Profile.System.Lockdown, r.Facts.Kernel()
	if k.Lockdown == nil {
		f := check.Finding{Status: check.Unknown, Why: k.Unknown["lockdown"]}
		if !want.Set {
			f.Status, f.Why = check.Skip, "the profile does not say which mode it accepts, and which one holds is not known: "+f.Why
		}
		r.Report(f)
		return nil
	}
	f := check.Finding{Status: check.Pass, Want: strings.Join(want.V, " or "), Got: *k.Lockdown, Why: lockdownHides[*k.Lockdown],
		Evidence: []check.Evidence{{Source: "/sys/kernel/security/lockdown", Value: *k.Lockdown}}}
	switch {
	case !want.Set:
		f.Status, f.Want = check.Skip, ""
		f.Why = "the profile does not say which mode it accepts; in this one: " + orText(f.Why, "what it hides is not known here")
	case !slices.Contains(want.V, *k.Lockdown):
		f.Status, f.Source = atMostWarn(check.Fail, want.Origin), want.Origin.String()
		f.Why = orText(want.Origin.Why, orText(f.Why, "the profile accepts other modes"))
		f.Next = "raise it with lockdown=" + want.V[0] + " on the command line; it is lowered with Secure Boot off in the firmware alone"
	default:
		f.Source = want.Origin.String()
	}
	r.Report(f)
	return nil
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
