// SPDX-License-Identifier: Apache-2.0

// Package densehost writes the tree of a large, healthy GPU server whose NICs
// are split into many virtual functions, to measure hostcheck on. The same
// shape always gives the same bytes.
//
// This package is for tests and benchmarks and is not linked into hostcheck.
package densehost

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Shape is how large the host is. A copy is one PCI domain with its switches;
// all copies share two NUMA nodes.
type Shape struct {
	Copies        int
	Switches      int // per copy; at most 4
	NICsPerSwitch int
	GPUsPerSwitch int // NICs and GPUs of a switch: at most 16 together
	VFs           int // per NIC; at most 255
	Groups        int // IOMMU groups per copy, one function each: filled up with processor devices
	Queues        int // interrupts per NIC; 0: the tree does not show them
}

// Dense is the host that the goals are stated for: 8 NICs of 32 VFs and 8 GPUs
// behind 4 PCIe switches, 2 nodes, 512 IOMMU groups.
var Dense = Shape{Copies: 1, Switches: 4, NICsPerSwitch: 2, GPUsPerSwitch: 2, VFs: 32, Groups: 512}

// Small has the same kinds of device, for tests.
var Small = Shape{Copies: 1, Switches: 1, NICsPerSwitch: 1, GPUsPerSwitch: 1, VFs: 2, Groups: 16}

// Times gives a host with n times as many of everything but nodes.
func (s Shape) Times(n int) Shape {
	s.Copies *= n
	return s
}

// Functions is how many PCI functions the host has.
func (s Shape) Functions() int {
	ports := 2 + s.NICsPerSwitch + s.GPUsPerSwitch // root port, upstream port, downstream ports
	n := s.Switches*(ports+s.NICsPerSwitch*(1+s.VFs)+s.GPUsPerSwitch) + 2
	return s.Copies * max(n, s.Groups)
}

const (
	release = "6.12.107+deb13-amd64"
	nodeKB  = 1055686656
	pages1G = 64 // per node
	cpus0   = "0-55"
	cpus1   = "56-111"
)

// Write makes the host's tree below dir, which must exist and should be empty.
func Write(dir string, s Shape) error {
	if s.Switches > 4 || s.NICsPerSwitch+s.GPUsPerSwitch > 16 || s.VFs > 255 || s.Copies > 0xffff {
		return fmt.Errorf("a host of shape %+v has no place for all its buses", s)
	}
	w := &writer{root: dir, made: map[string]bool{}, queries: map[string]any{}}
	w.system()
	for i := range 2 {
		w.file(fmt.Sprintf("sys/devices/virtual/iommu/dmar%d/intel-iommu/version", i), "5:0")
		w.link(fmt.Sprintf("sys/class/iommu/dmar%d", i), fmt.Sprintf("../../devices/virtual/iommu/dmar%d", i))
	}
	w.loopback()
	w.parameters()
	for c := range s.Copies {
		w.domain(s, c)
	}
	w.capture()
	return w.err
}

// writer keeps the first error.
type writer struct {
	root    string
	made    map[string]bool // directories
	queries map[string]any
	group   int // next IOMMU group
	ifindex int
	nic     int // next NIC
	rdma    int // next RDMA device
	irq     int // interrupts so far
	err     error
}

func (w *writer) dir(p string) {
	if w.err == nil && !w.made[p] {
		w.err = os.MkdirAll(filepath.Join(w.root, p), 0o755)
		w.made[p] = true
	}
}

func (w *writer) bytes(p string, b []byte) {
	w.dir(filepath.Dir(p))
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.root, p), b, 0o644)
	}
}

func (w *writer) file(p, text string) { w.bytes(p, []byte(text+"\n")) }

func (w *writer) files(dir string, nameText ...string) {
	for i := 0; i < len(nameText); i += 2 {
		w.file(dir+"/"+nameText[i], nameText[i+1])
	}
}

func (w *writer) link(p, target string) {
	w.dir(filepath.Dir(p))
	if w.err == nil {
		w.err = os.Symlink(target, filepath.Join(w.root, p))
	}
}

// system is everything that is not a device.
func (w *writer) system() {
	cmdline := "BOOT_IMAGE=/boot/vmlinuz-" + release + " root=UUID=3b5f1c1e-6d0e-4c57-9a51-2f2f8f0f6a0d ro" +
		" intel_iommu=on iommu=pt default_hugepagesz=1G hugepagesz=1G hugepages=0:64,1:64"
	w.file("etc/os-release", "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"13\"")
	w.file("boot/config-"+release, config)
	w.file("lib/modules/"+release+"/modules.builtin", "kernel/net/ipv6/ipv6.ko")
	w.file("proc/cmdline", cmdline)
	w.file("proc/cpuinfo", cpuinfo(0, 0)+"\n"+cpuinfo(56, 1))
	w.file("proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\n"+
		"HugePages_Total:     %d\nHugePages_Free:      %d\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n"+
		"Hugepagesize:    1048576 kB\nHugetlb:        %d kB", 2*nodeKB, nodeKB, nodeKB, 2*pages1G, 2*pages1G, 2*pages1G<<20))
	w.file("proc/modules", modules)
	w.file("proc/1/mounts", mounts)
	w.link("proc/self", "1")
	w.link("proc/mounts", "self/mounts")
	w.file("proc/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neno1\t00000000\t0100640A\t0003\t0\t0\t0\t00000000\t0\t0\t0")
	w.files("proc/sys/kernel", "osrelease", release, "arch", "x86_64", "tainted", "12288", "hostname", "dense-01",
		"random/boot_id", "5a1d6a70-51f4-4c8e-9a6e-0c6d3a2f1b1d", "numa_balancing", "0")
	w.files("proc/sys/vm", "nr_overcommit_hugepages", "0")
	w.files("sys/devices/system/cpu", "possible", "0-111", "present", "0-111", "online", "0-111", "offline", "", "isolated", "", "nohz_full", "(null)")
	w.files("sys/devices/system/node", "possible", "0-1", "online", "0-1", "has_cpu", "0-1", "has_memory", "0-1", "has_normal_memory", "0-1")
	for n, cpus := range []string{cpus0, cpus1} {
		d := fmt.Sprintf("sys/devices/system/node/node%d", n)
		w.files(d, "cpulist", cpus, "distance", []string{"10 21", "21 10"}[n], "meminfo",
			fmt.Sprintf("Node %d MemTotal:       %d kB\nNode %d MemFree:        %d kB", n, nodeKB, n, nodeKB/2))
		w.files(d+"/hugepages/hugepages-2048kB", "nr_hugepages", "0", "free_hugepages", "0", "surplus_hugepages", "0")
		w.files(d+"/hugepages/hugepages-1048576kB", "nr_hugepages", fmt.Sprint(pages1G), "free_hugepages", fmt.Sprint(pages1G), "surplus_hugepages", "0")
	}
	for kb, n := range map[int]int{2048: 0, 1048576: 2 * pages1G} {
		w.files(fmt.Sprintf("sys/kernel/mm/hugepages/hugepages-%dkB", kb), "nr_hugepages", fmt.Sprint(n), "nr_hugepages_mempolicy", fmt.Sprint(n),
			"free_hugepages", fmt.Sprint(n), "resv_hugepages", "0", "surplus_hugepages", "0", "nr_overcommit_hugepages", "0")
	}
	w.file("sys/kernel/security/lockdown", "[none] integrity confidentiality")
	w.files("sys/class/dmi/id", "sys_vendor", "Example Systems", "product_name", "GX-8")
	for line := range strings.Lines(modules) {
		name, _, _ := strings.Cut(line, " ")
		taint := ""
		if strings.Contains(line, "(OE)") {
			taint = "OE"
		}
		w.files("sys/module/"+name, "initstate", "live", "taint", taint)
	}
	w.file("sys/module/ib_core/parameters/netns_mode", "Y")
	w.queries["uname"] = host.Uname{Release: release, Machine: "x86_64"}
	w.queries["pagesize"] = 4096
	w.queries["klog"] = []string{
		"HugeTLB: registered 1.00 GiB page size, pre-allocated 128 pages",
		"DMAR: IOMMU enabled",
		"iommu: Default domain type: Passthrough (set via kernel command line)",
	}
}

func (w *writer) capture() {
	c := host.Capture{
		Schema: host.CaptureSchema, Time: time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC), Whole: []string{"/sys", "/proc"},
		Queries: map[string]json.RawMessage{},
	}
	for key, v := range w.queries {
		answer, err := json.Marshal(v)
		if err == nil {
			c.Queries[key], err = json.Marshal(host.Recorded{Answer: answer})
		}
		if err != nil && w.err == nil {
			w.err = err
		}
	}
	b, err := json.Marshal(c)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.bytes(host.CaptureFile, b)
}

func cpuinfo(cpu, socket int) string {
	return fmt.Sprintf("processor\t: %d\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C\n"+
		"physical id\t: %d\nflags\t\t: fpu vme de pse tsc msr pae mce cx8 apic syscall nx pdpe1gb rdtscp lm vmx\n", cpu, socket)
}

const config = `CONFIG_64BIT=y
CONFIG_X86_64=y
CONFIG_X86=y
CONFIG_NR_CPUS=8192
CONFIG_NUMA=y
CONFIG_NO_HZ_FULL=y
CONFIG_RCU_NOCB_CPU=y
CONFIG_CPU_ISOLATION=y
CONFIG_HUGETLBFS=y
CONFIG_HUGETLB_PAGE=y
CONFIG_CONTIG_ALLOC=y
# CONFIG_CMDLINE_BOOL is not set
CONFIG_INTEL_IOMMU=y
# CONFIG_INTEL_IOMMU_DEFAULT_ON is not set
CONFIG_AMD_IOMMU=y
CONFIG_IOMMU_DEFAULT_DMA_LAZY=y
CONFIG_PCI_IOV=y
CONFIG_MLX5_CORE=m
CONFIG_MLX5_CORE_EN_DCB=y
CONFIG_MLX5_INFINIBAND=m`

const modules = `nvidia 11591680 0 - Live 0x0000000000000000 (OE)
rdma_ucm 36864 0 - Live 0x0000000000000000
rdma_cm 151552 1 rdma_ucm, Live 0x0000000000000000
iw_cm 61440 1 rdma_cm, Live 0x0000000000000000
ib_cm 155648 1 rdma_cm, Live 0x0000000000000000
mlx5_ib 540672 0 - Live 0x0000000000000000
ib_uverbs 200704 2 rdma_ucm,mlx5_ib, Live 0x0000000000000000
ib_core 544768 6 rdma_cm,iw_cm,ib_cm,rdma_ucm,ib_uverbs,mlx5_ib, Live 0x0000000000000000
mlx5_core 2879488 1 mlx5_ib, Live 0x0000000000000000
igb 323584 0 - Live 0x0000000000000000`

const mounts = `sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
/dev/nvme0n1p2 / ext4 rw,relatime 0 0
hugetlbfs /dev/hugepages hugetlbfs rw,nosuid,nodev,relatime,pagesize=1024M 0 0
debugfs /sys/kernel/debug debugfs rw,nosuid,nodev,noexec,relatime 0 0`
