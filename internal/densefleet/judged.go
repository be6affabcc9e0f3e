// SPDX-License-Identifier: Apache-2.0

package densefleet

import (
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// nic is one NIC of a server, with the GPU and the node that it belongs to.
type nic struct{ bdf, name, port, upper, root, gpu, node, rdma string }

func (n nic) subject() string     { return n.bdf + " " + n.name }
func (n nic) portSubject() string { return n.port + " (above " + n.subject() + ")" }

var (
	nics = []nic{
		{"0000:18:00.0", "ens1np0", "0000:17:00.0", "0000:16:00.0", "0000:15:01.0", "0000:19:00.0", "0", "mlx5_0"},
		{"0000:9a:00.0", "ens2np0", "0000:99:00.0", "0000:98:00.0", "0000:97:01.0", "0000:9b:00.0", "1", "mlx5_1"},
	}
	nodes = []string{"node0", "node1"}
)

const (
	kindOfNIC = "15b3:1021"
	psid      = "MT_0000000838"
)

// firmwareText is what driver.firmware has where one NIC differs from the other.
func firmwareText(usual, odd string, which int) string {
	if which == 0 {
		return odd + " on ens1np0; " + usual + " on ens2np0"
	}
	return usual + " on ens1np0; " + odd + " on ens2np0"
}

// pages is how many pages of 2M each node holds.
func (s *server) pages() int {
	if s.storage {
		return 16384
	}
	return 1024
}

func (s *server) cmdline() string {
	return "root=UUID=" + s.uuid + " ro intel_iommu=on iommu=pt pci=config_acs=xx000x0@0000:17:00.0;xx000x0@0000:99:00.0"
}

func (s *server) bootline() string { return "BOOT_IMAGE=/boot/vmlinuz-" + s.kernel + " " + s.cmdline() }

type findings = []check.Finding

// pass is a verdict with its evidence: source, value, source, value.
func pass(subject, want, got, source string, evidence ...string) check.Finding {
	f := check.Finding{Subject: subject, Status: check.Pass, Want: want, Got: got, Source: source}
	for i := 0; i+1 < len(evidence); i += 2 {
		f.Evidence = append(f.Evidence, check.Evidence{Source: evidence[i], Value: evidence[i+1]})
	}
	return f
}

// failed makes another verdict of what would be a pass.
func failed(f check.Finding, status check.Status, got, why, next string, fix ...plan.Wish) check.Finding {
	f.Status, f.Got, f.Why, f.Next, f.Fix = status, got, why, next, fix
	if len(f.Evidence) > 0 {
		f.Evidence[0].Value = got
	}
	return f
}

func one(f check.Finding) func(*server) findings {
	return func(*server) findings { return findings{f} }
}

func skip(why string) func(*server) findings {
	return one(check.Finding{Status: check.Skip, Why: why})
}

// perNIC is one finding for each NIC that is there.
func perNIC(f func(*server, nic) check.Finding) func(*server) findings {
	return func(s *server) (all findings) {
		for i, n := range nics {
			if !s.lost(i) {
				all = append(all, f(s, n))
			}
		}
		return all
	}
}

// perDevice is one finding for each NIC and GPU that is there.
func perDevice(f func(s *server, bdf, subject string) check.Finding) func(*server) findings {
	return func(s *server) (all findings) {
		for i, n := range nics {
			if !s.lost(i) {
				all = append(all, f(s, n.bdf, n.subject()))
			}
			if !s.lostGPU(i) {
				all = append(all, f(s, n.gpu, n.gpu))
			}
		}
		return all
	}
}

// file is a finding about one file of the kernel, the same on all hosts.
func file(subject, want, got, source, path string) check.Finding {
	return pass(subject, want, got, source, path, got)
}

func sysctl(name, want, got, source string) check.Finding {
	return file(name, want, got, source, "/proc/sys/"+strings.ReplaceAll(name, ".", "/"))
}

// counterText is traffic as evidence shows it: another number on every host.
func (s *server) counterText() string {
	return fmt.Sprintf("port_xmit_data +%d, port_rcv_data +%d in 1.0 s; of 15 counters none of losses", s.rng.IntN(12_000_000_000), s.rng.IntN(12_000_000_000))
}

const (
	fromRDMA   = "rdma-400g: "
	tokens     = "kernel Documentation/admin-guide/kernel-parameters.txt"
	operator   = fromRDMA + "Mellanox/nic-configuration-operator, defaults of roceOptimized.qos"
	pagesPath  = "/sys/devices/system/node/%s/hugepages/hugepages-2048kB/nr_hugepages"
	nothing    = "nothing on this host is a subject of this check"
	noKubelet  = "no kubelet is seen on this host: no unit, no process, nothing in /var/lib/kubelet"
	noFirmware = "the in-tree driver has no switch for it: the firmware's ROCE_CC_PRIO_MASK_P1 decides (mlxconfig or mstconfig shows it)"
)

// judged is the 60 checks of a report, in the order of the list, and what each
// says of a server.
var judged = []struct {
	id    string
	judge func(*server) findings
}{
	{"cmdline.required", one(pass("iommu=pt", "iommu=pt", "passthrough, by iommu=pt", fromRDMA+tokens+", iommu=pt (x86); the SR-IOV network operator sets it too", "/proc/cmdline", "intel_iommu=on iommu=pt"))},
	{"cmdline.forbidden", func(s *server) findings {
		return findings{
			pass("amd_iommu=on", "no amd_iommu=on", "absent", "base: kernel drivers/iommu/amd/init.c, parse_amd_iommu_options", "/proc/cmdline", s.bootline()),
			pass("iommu=on", "no iommu=on", "absent", "base: kernel arch/x86/kernel/pci-dma.c, iommu_setup", "/proc/cmdline", s.bootline()),
		}
	}},
	{"cmdline.ineffective", func(s *server) findings {
		return findings{pass("", "every token has its effect", "6 tokens, none lost", "", "/proc/cmdline", s.bootline())}
	}},
	{"cmdline.unknown", func(s *server) findings {
		return findings{pass("", "no unknown parameter", "none", "", "/proc/cmdline", s.bootline())}
	}},
	{"cmdline.isolation", skip("no CPU is isolated")},
	{"cmdline.next_boot", func(s *server) findings {
		return findings{pass("", "settings, boot entry and kernel agree", "the same words in all three, entry gnulinux-simple-"+s.uuid, "", "/boot/grub/grub.cfg:94", s.cmdline(), "/proc/cmdline", s.bootline())}
	}},
	{"cmdline.boot_config", func(s *server) findings {
		return findings{pass("", "files that the boot loader can read, and a kernel to boot", "gnulinux-simple-"+s.uuid+", chosen by default=0 in /boot/grub/grub.cfg", "", "/boot/grub/grub.cfg:94", "/boot/vmlinuz-"+s.kernel)}
	}},
	{"iommu.default", perNIC(func(_ *server, n nic) check.Finding {
		return file(n.subject(), "identity", "identity", "Documentation/admin-guide/kernel-parameters.txt", "/sys/bus/pci/devices/"+n.bdf+"/iommu_group/type")
	})},
	{"iommu.groups", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "", "alone in group "+n.bdf[5:6], "Documentation/ABI/testing/sysfs-kernel-iommu_groups", "/sys/kernel/iommu_groups/"+n.bdf[5:6]+"/devices", n.bdf)
	})},
	{"acs.redirect", func(s *server) (all findings) {
		for i, n := range nics {
			if s.lost(i) {
				continue
			}
			f := pass(n.portSubject(), "xx000x0 (SrcValid, ReqRedir, CmpltRedir, UpstreamFwd off)", "0000000 (all off)", "intent baremetal-gpudirect (stated)",
				"/sys/bus/pci/devices/"+n.port+"/config ACS at 0x168", "capability 005f, control 0000")
			if s.odd == Unknown && s.which == i {
				f.Status, f.Got, f.Evidence = check.Unknown, "", nil
				f.Why = "cannot read /sys/bus/pci/devices/" + n.port + "/config: input/output error"
			}
			all = append(all, f)
		}
		return all
	}},
	{"acs.isolation", skip("the intent gives no device to guests, and nothing below a port is bound to vfio")},
	{"hugepages.pool", func(s *server) (all findings) {
		for i, node := range nodes {
			n := s.pages()
			want := fmt.Sprintf("%d × 2M", n)
			f := pass(node+" 2M", want+" on "+node, want, "site", fmt.Sprintf(pagesPath, node), fmt.Sprint(n))
			if s.odd == HugePages && s.which == i {
				short := n - 512
				f = failed(f, check.Fail, fmt.Sprintf("%d × 2M", short), "programs that map more pages than the pool holds fail at their start", "",
					plan.Wish{Setting: plan.Setting{Kind: "hugepages", Target: node, Name: "2048kB"}, Got: fmt.Sprint(short), Want: fmt.Sprint(n), Tier: plan.Safe})
			}
			all = append(all, f)
		}
		return all
	}},
	{"hugepages.share", func(s *server) (all findings) {
		for _, node := range nodes {
			total, kb := s.memKB, s.pages()*2048
			all = append(all, pass(node, "at most 60 % in pools, and 25.2 GiB outside", fmt.Sprintf("%d GiB of %.1f GiB, %.1f %%", kb>>20, float64(total)/(1<<20), 100*float64(kb)/float64(total)),
				"base: limit of hostcheck, from kernel Documentation/admin-guide/mm/hugetlbpage.rst: pages of the pool serve nothing else", "/sys/devices/system/node/"+node+"/meminfo", fmt.Sprintf("MemTotal: %d kB", total)))
		}
		return all
	}},
	{"hugepages.surplus", one(pass("2M", "no surplus page, no overcommit", "0 surplus, overcommit up to 0", "base: kernel Documentation/admin-guide/mm/hugetlbpage.rst, nr_overcommit_hugepages and surplus_hugepages",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", "0"))},
	{"driver.inventory", func(s *server) findings {
		gpus := pass("GPUs", "at least 2", "2", "site", "/sys/bus/pci/devices", "0000:19:00.0, 0000:9b:00.0")
		rails := pass("rails", "at least 2", "2", "site", "/sys/class/net", "ens1np0, ens2np0")
		if s.odd == Missing && s.which == 1 {
			gpus = failed(gpus, check.Fail, "1", "a device that the profile expects is not there", "look for it in lspci, in the slot and in the firmware setup")
		}
		if s.odd == Missing && s.which == 0 {
			rails = failed(rails, check.Fail, "1", "a device that the profile expects is not there", "look for it in lspci, in the slot and in the firmware setup")
		}
		return findings{gpus, rails}
	}},
	{"driver.bound", perNIC(func(_ *server, n nic) check.Finding {
		return file(n.subject(), "mlx5_core", "mlx5_core", "mlx5: kernel drivers/net/ethernet/mellanox/mlx5/core/main.c, mlx5_core_pci_table", "/sys/bus/pci/devices/"+n.bdf+"/driver")
	})},
	{"driver.modules", one(pass("ib_uverbs", "loaded or built in, for ens1np0, ens2np0", "loaded", fromRDMA+"rdma-core kernel-boot/modules/rdma.conf; kernel drivers/infiniband/hw/mlx5", "/proc/modules", "ib_uverbs Live"))},
	{"driver.flavour", one(pass("mlx5_core", "one build", "the kernel's: mlx5_core, mlx5_ib, ib_core, ib_uverbs", "", "/proc/modules mlx5_core", "in-tree"))},
	{"driver.rdma", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "an RDMA device", n.rdma, fromRDMA+"kernel Documentation/ABI/stable/sysfs-class-infiniband", "/sys/class/infiniband", n.rdma+" at "+n.bdf)
	})},
	{"driver.firmware", func(s *server) findings {
		got, evidence := s.firmware+" on ens1np0, ens2np0", []string{}
		for i, n := range nics {
			version := s.firmware
			if s.odd == Firmware && (s.which == i || s.both) {
				version = s.version
			}
			if !s.lost(i) {
				evidence = append(evidence, "ethtool "+n.name+" drvinfo", version+" ("+psid+")")
			}
		}
		if s.lost(1) {
			got = s.firmware + " on ens1np0"
		}
		f := pass(kindOfNIC, "one version on all interfaces of this kind", got, "", evidence...)
		switch {
		case s.both:
			f.Got = s.version + " on ens1np0, ens2np0"
		case s.odd == Firmware:
			f.Status, f.Got, f.Why = check.Warn, firmwareText(s.firmware, s.version, s.which), "one of them missed an update, or was replaced"
			f.Next = "bring all to one version"
		}
		return findings{f}
	}},
	{"dcqcn.enabled", perNIC(func(_ *server, n nic) check.Finding {
		return check.Finding{Subject: n.subject(), Status: check.Unknown, Want: "NP and RP on 3", Why: noFirmware, Next: "mlxconfig -d " + n.bdf + " query ROCE_CC_PRIO_MASK_P1",
			Source: fromRDMA + "NVIDIA DOCA-OFED documentation, Explicit Congestion Notification: ecn/roce_np and ecn/roce_rp"}
	})},
	{"dcqcn.cnp_dscp", skip(nothing)},
	{"dcqcn.params", skip(nothing)},
	{"dcqcn.trust", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "dscp", "dscp", operator, "dcb "+n.name+" ieee", "2 DSCP entries in the application table")
	})},
	{"dcqcn.pfc", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "PFC on 3", "PFC on 3", operator, "dcb "+n.name+" ieee", "pfc 3")
	})},
	{"dcqcn.pause", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "global pause off, as PFC is on 3", "rx off, tx off", "IEEE 802.1Q clause 36", "ethtool "+n.name+" pause", "rx off, tx off")
	})},
	{"link.carrier", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "link up", "up", fromRDMA+"kernel Documentation/ABI/testing/sysfs-class-net, carrier", "/sys/class/net/"+n.name+"/carrier", "1")
	})},
	{"link.speed", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "at least 400G", "400G", fromRDMA+"the class of these devices: 400 Gb/s per port", "/sys/class/net/"+n.name+"/speed", "400000")
	})},
	{"link.mtu", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "at least 4192", "9000 (RDMA packets of 4096)", fromRDMA+"kernel include/rdma/ib_addr.h, iboe_get_mtu", "/sys/class/net/"+n.name+"/mtu", "9000")
	})},
	{"link.rings", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "rx at least 4096, tx at least 4096", "rx 8192, tx 8192", "site", "ethtool "+n.name+" rings", "rx 8192 of 8192, tx 8192 of 8192")
	})},
	{"link.fec", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "auto, as configured", "rs", "", "ethtool "+n.name+" fec", "configured auto; active rs")
	})},
	{"pcie.link", func(s *server) findings {
		all := perDevice(func(_ *server, bdf, subject string) check.Finding {
			return pass(subject, "32 GT/s x16", "32 GT/s x16", "", "/sys/bus/pci/devices/"+bdf+"/current_link_speed", "32 GT/s", "/sys/bus/pci/devices/"+bdf+"/current_link_width", "16")
		})(s)
		for i := range all {
			if s.odd == PCIe && all[i].Subject == nics[s.which].subject() {
				all[i] = failed(all[i], check.Fail, "16 GT/s x16", "the link trained lower than both of its ends can do, and everything below it is slower by as much",
					"reseat the card or riser, look at the slot's settings in the firmware setup")
				all[i].Evidence[0].Value = "16 GT/s"
			}
		}
		return all
	}},
	{"pcie.payload", perNIC(func(_ *server, n nic) check.Finding {
		f := pass(n.subject(), "one size on the whole path", "256 - 256 - 256 - 256 bytes (the path could do 512)", "")
		for _, bdf := range []string{n.bdf, n.port, n.upper, n.root} {
			f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/bus/pci/devices/" + bdf + "/config DevCtl", Value: "MaxPayload 256, MaxReadReq 4096"})
		}
		return f
	})},
	{"pcie.mrrs", skip("the profile has no pcie.mrrs_min")},
	{"pcie.correctable", perNIC(func(s *server, n nic) check.Finding {
		errors := max(0, s.rng.IntN(200)-160) // since boot: most have none, and a few are normal
		return pass(n.subject(), "at most 10 corrected errors in an hour", fmt.Sprintf("%.1f an hour", float64(errors)/24), "base: limit of hostcheck",
			"/sys/bus/pci/devices/"+n.bdf+"/aer_dev_correctable", fmt.Sprintf("TOTAL_ERR_COR %d", errors))
	})},
	{"sriov.vfs", skip(nothing)},
	{"sriov.autoprobe", skip(nothing)},
	{"numa.gpu_nic", func(s *server) (all findings) {
		for i, n := range nics {
			if s.lostGPU(i) {
				continue
			}
			f := pass(n.gpu, "PXB or nearer", "PIX to "+n.subject(), fromRDMA+"NVIDIA/nccl src/graph/paths.cc, default of NCCL_NET_GDR_LEVEL", "/sys/bus/pci/devices/"+n.gpu, "/sys/devices/pci"+n.root[:7]+"/"+n.root+"/"+n.upper+"/"+n.gpu)
			if s.lost(i) {
				f = failed(f, check.Fail, "SYS to "+nics[0].subject(), "no NIC is nearer: what it sends crosses the link between the processors", "")
			}
			all = append(all, f)
		}
		return all
	}},
	{"numa.device_node", perDevice(func(_ *server, bdf, subject string) check.Finding {
		node := "0"
		if bdf >= nics[1].root {
			node = "1"
		}
		return pass(subject, "a node with CPUs", "node"+node, "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci", "/sys/bus/pci/devices/"+bdf+"/numa_node", node)
	})},
	{"numa.distances", one(file("node0", "10 to itself, more to others, the same both ways", "10 21", "Documentation/ABI/stable/sysfs-devices-node", "/sys/devices/system/node/node0/distance"))},
	{"sysctl.socket_buffers", func(*server) findings {
		return findings{
			sysctl("net.core.rmem_max", "at least 67108864", "134217728", fromRDMA+"kernel Documentation/networking/ip-sysctl.rst, tcp_rmem"),
			sysctl("net.core.wmem_max", "at least 67108864", "134217728", fromRDMA+"kernel Documentation/networking/ip-sysctl.rst, tcp_wmem"),
		}
	}},
	{"sysctl.backlog", func(s *server) findings {
		f := sysctl("net.core.netdev_max_backlog", "at least 250000", "250000", fromRDMA+"kernel Documentation/admin-guide/sysctl/net.rst, netdev_max_backlog; net/core/dev.c, enqueue_to_backlog")
		if s.odd == Sysctl {
			f = failed(f, check.Fail, "1000", "packets that the CPU does not take in time are dropped", "",
				plan.Wish{Setting: plan.Setting{Kind: "sysctl", Name: "net.core.netdev_max_backlog"}, Got: "1000", Want: "250000", Tier: plan.Safe})
		}
		return findings{f}
	}},
	{"sysctl.somaxconn", one(sysctl("net.core.somaxconn", "at least 16384", "65535", fromRDMA+"kernel Documentation/networking/ip-sysctl.rst, somaxconn; NVIDIA/nccl src/misc/socket.cc, listen(fd, 16384)"))},
	{"sysctl.tcp_defaults", one(sysctl("net.ipv4.tcp_timestamps", "1 or 2", "1", "base: kernel Documentation/networking/ip-sysctl.rst, tcp_timestamps (default 1); RFC 7323"))},
	{"sysctl.congestion", func(s *server) findings {
		got := "bbr"
		if s.cubic {
			got = "cubic"
		}
		return findings{sysctl("net.ipv4.tcp_congestion_control", "bbr or cubic", got, fromRDMA+"kernel net/ipv4/Kconfig, DEFAULT_TCP_CONG; net/ipv4/tcp_cong.c")}
	}},
	{"sysctl.rp_filter", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "effective rp_filter 0 (off) or 2 (loose)", "effective 2: all 2, own 2", fromRDMA+"kernel Documentation/networking/ip-sysctl.rst, rp_filter", "/proc/sys/net/ipv4/conf/"+n.name+"/rp_filter", "2")
	})},
	{"sysctl.persistence", one(pass("net.core.netdev_max_backlog", "at least 250000, at the next boot too", "set by /etc/sysctl.d/90-rdma.conf:4", fromRDMA+"kernel Documentation/admin-guide/sysctl/net.rst", "/etc/sysctl.d/90-rdma.conf:4", "250000"))},
	{"irq.local", perNIC(func(s *server, n nic) check.Finding {
		cpu := s.rng.IntN(28) // the driver begins somewhere
		return pass(n.subject(), "on the CPUs of node"+n.node, "32 of 32 queues", "", "/proc/irq/"+fmt.Sprint(80+s.rng.IntN(60))+"/smp_affinity_list", fmt.Sprint(cpu))
	})},
	{"irq.irqbalance", skip("no CPU is isolated")},
	{"rdma.port", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "ACTIVE and LinkUp", "4: ACTIVE, 5: LinkUp", fromRDMA+"kernel Documentation/ABI/testing/sysfs-class-net, carrier", "/sys/class/infiniband/"+n.rdma+"/ports/1/state", "4: ACTIVE")
	})},
	{"rdma.rate", perNIC(func(_ *server, n nic) check.Finding {
		return pass(n.subject(), "at least 400 Gb/s", "400 Gb/sec (4X NDR)", fromRDMA+"the class of these devices: 400 Gb/s per port", "/sys/class/infiniband/"+n.rdma+"/ports/1/rate", "400 Gb/sec (4X NDR)")
	})},
	{"rdma.gid", perNIC(func(s *server, n nic) check.Finding {
		slot := fmt.Sprint(3 + 2*s.rng.IntN(2)) // with or without an IPv6 address of its own before it
		return pass(n.subject(), "RoCE v2 for an address", "RoCE v2 in slot "+slot, fromRDMA+"kernel Documentation/ABI/stable/sysfs-class-infiniband, gid_attrs/types", "/sys/class/infiniband/"+n.rdma+"/ports/1/gids/"+slot,
			fmt.Sprintf("0000:0000:0000:0000:0000:ffff:0a64:%02x%02x", n.node[0], s.octet))
	})},
	{"rdma.subnets", perNIC(func(s *server, n nic) check.Finding {
		subnet := "10.100." + fmt.Sprint(s.rackNumber()%250) + "." + map[string]string{"0": "0", "1": "128"}[n.node] + "/25"
		return pass(n.subject(), "a subnet of its own, or arp_ignore, arp_announce and a rule of policy routing", subnet+" is of this rail alone", "", "/proc/net/route", n.name+" "+subnet)
	})},
	{"rdma.memlock", one(pass("logins", "a limit of locked memory: unlimited", "unlimited", fromRDMA+"kernel drivers/infiniband/core/umem.c, ib_umem_get: pages are counted against RLIMIT_MEMLOCK", "/etc/security/limits.d/90-rdma.conf:1", "* - memlock unlimited"))},
	{"rdma.gpudirect", func(s *server) findings {
		return findings{pass("GPUDirect RDMA", "nvidia_peermem, or DMA-BUF of the open kernel modules", "DMA-BUF: open kernel modules on kernel "+s.kernel, "", "/proc/modules", "no nvidia_peermem; nvidia (OE)", "/proc/sys/kernel/osrelease", s.kernel)}
	}},
	{"rdma.counters", perNIC(func(s *server, n nic) check.Finding {
		return pass(n.subject(), "no counter of losses grows", "none in 1.0 s", "", "counters rdma "+n.rdma+"/1", s.counterText())
	})},
	{"kubelet.topology", skip(noKubelet)},
	{"kubelet.numa_nodes", skip(noKubelet)},
	{"system.numa_balancing", one(file("", "0", "0", fromRDMA+"kernel Documentation/admin-guide/sysctl/kernel.rst, numa_balancing: to be disabled where the workload is bound to nodes", "/proc/sys/kernel/numa_balancing"))},
	{"system.clocksource", one(file("", "tsc", "tsc", "kernel Documentation/timers/timekeeping.rst; arch/x86/kernel/tsc.c", "/sys/devices/system/clocksource/clocksource0/current_clocksource"))},
}

// rackNumber is the number in the label of the server's rack.
func (s *server) rackNumber() int {
	n := 0
	_, _ = fmt.Sscanf(s.rack, "r%d", &n) // made by [Fleet.Rack]
	return n
}
