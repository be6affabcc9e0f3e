// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
)

// corrections is what guides to RDMA hosts often say and what is wrong with
// it: the check whose "explain" says so, and words that stand there.
var corrections = []struct{ advice, id, words string }{
	{"amd_iommu=on", "cmdline.forbidden", `no value of it: "AMD-Vi: Unknown option"`},
	{"iommu=on", "cmdline.forbidden", "ignored without a word"},
	{"iommu=pt leaves virtual functions their mappings", "iommu.domain", "virtual functions included; only what vfio gives to a guest gets mappings"},
	{"dmesg says that the IOMMU is enabled", "iommu.state", "proves nothing: the kernel prints it while it parses"},
	{"RDMA needs the IOMMU and ACS", "rdma.gpudirect", "that the IOMMU must be on, with ACS, for RDMA"},
	{"SR-IOV does not work without ACS", "sriov.vfs", `that SR-IOV "does not work" without ACS`},
	{"isolcpus=0-31 with nohz_full", "cmdline.isolation", "this is a whole socket with CPU 0 in it"},
	{"rcu_nocbs with nohz_full", "cmdline.isolation", "rcu_nocbs= adds nothing to it"},
	{"64 pages of 1G on every host", "cmdline.hugepages", "64 × 1G on every host whatever its memory"},
	{"transparent_hugepage=never for an empty pool", "cmdline.forbidden", "to get a hugetlb pool: the two have nothing to do with each other"},
	{"HugePages_Total = 64 as proof", "cmdline.hugepages", "HugePages_Total of /proc/meminfo as proof, which is the default size only"},
	{"1 GB is 250,000 mappings", "hugepages.share", "ordinary pages register fine"},
	{"edit GRUB_CMDLINE_LINUX and run grub-mkconfig", "cmdline.next_boot", "It does nothing where cloud images assign the variable again"},
	{"apt install mlnx-ofed-kernel-dkms", "rdma.device", "apt install mlnx-ofed-kernel-dkms, which no distribution has"},
	{"no ecn/roce_np files: DCQCN is off", "dcqcn.enabled", "The files' absence does not mean that DCQCN is off"},
	{"enable DCQCN on priority 3, and done", "dcqcn.enabled", "to enable priority 3 here and stop"},
	{"a unit for virtual functions with After=network-pre.target", "sriov.vfs", "a unit with nothing but After=network-pre.target"},
	{"sysctl -p", "sysctl.socket_buffers", "It reads /etc/sysctl.conf alone"},
	{"rp_filter 2 for all interfaces", "sysctl.rp_filter", `"all = 2" loosens every interface`},
	{"rmem_default of 16 MB", "sysctl.socket_buffers", "TCP replaces them by tcp_rmem"},
	{"each virtual function in its own group, else the BIOS", "iommu.groups", "Look at the upstream switch and root port first"},
	{"a ring size from a guide", "sysctl.backlog", `A ring has its own maximum, which "ethtool -g" tells`},
	{"single-numa-node for GPU nodes", "kubelet.topology", `single-numa-node "for the best locality"`},
	{"grep as proof", "cmdline.required", "presence is no effect, and a substring is no token"},
}

// Every correction is said by "explain" of a check.
func TestCorrections(t *testing.T) {
	docs := map[string]string{}
	for _, c := range checks.All() {
		docs[c.ID] = strings.Join(strings.Fields(c.Doc), " ")
	}
	if len(corrections) != 24 {
		t.Errorf("%d corrections; 24 are known", len(corrections))
	}
	for _, c := range corrections {
		switch doc, ok := docs[c.id]; {
		case !ok:
			t.Errorf("%s: there is no check %s", c.advice, c.id)
		case !strings.Contains(doc, c.words):
			t.Errorf("%s: explain %s does not say %q", c.advice, c.id, c.words)
		}
	}
}
