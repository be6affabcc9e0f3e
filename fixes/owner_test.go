// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// An owner is named with the place where it holds the setting and its own way
// to change it; what it does not hold is free.
func TestOwners(t *testing.T) {
	sysctl := func(name, want string) plan.Wish { return plan.Wish{Setting: SysctlSetting(name), Want: want} }
	of := func(kind, target, name string) plan.Wish {
		return plan.Wish{Setting: plan.Setting{Kind: kind, Target: target, Name: name}, Want: "x"}
	}
	const free = ""
	for _, tt := range []struct {
		tree string
		wish plan.Wish
		by   string   // the owner named in the reason; "" for nobody
		says []string // in the reason and the steps
	}{
		{"tuned", sysctl("net.core.rmem_max", "268435456"), facts.OwnerTuned, []string{
			"TuneD (site extra)", "/etc/tuned/site/tuned.conf:6", `"16777216"`,
			`printf '[main]\ninclude=site,extra\n\n[sysctl]\nnet.core.rmem_max=268435456\n' > /etc/tuned/hostcheck/tuned.conf`, "tuned-adm profile hostcheck",
		}},
		{"tuned", sysctl("net.core.wmem_max", "268435456"), free, nil},
		{"tuned", sysctl("net.core.somaxconn", "16384"), free, nil}, // ">2048" leaves it alone
		{"tuned", sysctl("net.core.somaxconn", "1024"), facts.OwnerTuned, []string{`">2048"`}},
		{"tuned", sysctl("vm.dirty_ratio", "20"), facts.OwnerTuned, []string{"/usr/lib/tuned/throughput/tuned.conf:5"}},
		{"tuned", sysctl("kernel.numa_balancing", "1"), facts.OwnerTuned, []string{"/etc/tuned/extra/tuned.conf:2"}},
		{"tuned", of("sysfs", "", "/sys/kernel/mm/ksm/run"), facts.OwnerTuned, nil},
		{"tuned", of("sysfs", "", "/sys/kernel/mm/transparent_hugepage/enabled"), facts.OwnerTuned, []string{`[sysfs]\n`}},
		{"tuned", of("sysfs", "", "/sys/kernel/mm/transparent_hugepage/defrag"), free, nil},
		{"tuned", of("modprobe", "", "tcp_bbr"), facts.OwnerTuned, []string{"[modules]"}},
		{"tuned", of("unit", "irqbalance.service", "enabled"), facts.OwnerTuned, nil},
		{"tuned", of("cmdline", "", "skew_tick=1"), facts.OwnerTuned, []string{"cmdline_hostcheck=+skew_tick=1"}},
		{"tuned", of("cmdline", "", "isolcpus=2-5"), facts.OwnerTuned, []string{"/etc/tuned/bootcmdline:2"}},
		{"tuned", of("cmdline", "", "isolcpus_x=2-5"), free, nil},
		{"tuned", of("ethtool", "0000:18:00.0 ens1np0", "ring rx"), facts.OwnerTuned, nil},
		{"tuned", of("ethtool", "0000:98:00.0 ens2np0", "feature rx-gro"), facts.OwnerTuned, nil},
		{"tuned", of("ethtool", "eno1", "ring rx"), free, nil},
		{"tuned", of("ethtool", "ens1np0", "channels combined"), free, nil},
		{"tuned-stopped", sysctl("net.core.rmem_max", "268435456"), free, nil},

		{"saptune", sysctl("kernel.numa_balancing", "1"), facts.OwnerSaptune, []string{
			"/var/lib/saptune/working/notes/2684254:4", `"0"`, "/etc/saptune/override/2684254", "saptune note apply 2684254",
		}},
		{"saptune", sysctl("net.core.somaxconn", "16384"), free, nil}, // emptied by the override
		{"saptune", sysctl("net.core.rmem_max", "268435456"), facts.OwnerSaptune, []string{"/etc/saptune/extra/site.conf:2", "saptune note apply site"}},
		{"saptune", sysctl("vm.max_map_count", "1"), facts.OwnerSaptune, nil},

		{"machine-config", sysctl("net.core.rmem_max", "268435456"), facts.OwnerMachineConfig, []string{"Node Tuning Operator", "tuned.openshift.io/v1", "net.core.rmem_max=268435456"}},
		{"machine-config", of("modprobe", "mlx4_core", "log_num_mgm_entry_size"), facts.OwnerMachineConfig, []string{"MachineConfig"}},
		{"machine-config", of("hugepages", "node0", "2048kB"), facts.OwnerMachineConfig, []string{"PerformanceProfile"}},
		{"machine-config", of("ethtool", "ens1np0", "ring rx"), free, nil},

		{"sriov-operator", of("sriov", "0000:18:00.0", "vfs"), facts.OwnerSRIOVOperator, []string{"SriovNetworkNodePolicy", "0000:18:00.0"}},
		{"sriov-operator", of("sriov", "0000:98:00.0", "vfs"), free, nil},
		{"sriov-operator", sysctl("net.core.rmem_max", "268435456"), free, nil},

		{"nic-operator", of("dcb", "ens1np0", "trust"), facts.OwnerNICOperator, []string{"NicConfigurationTemplate", "/var/log/pods/network-operator_nic-configuration-daemon"}},
		{"nic-operator", of("sysfs", "", "/sys/class/infiniband/mlx5_0/tc/1/traffic_class"), facts.OwnerNICOperator, nil},
		{"nic-operator", sysctl("net.core.rmem_max", "268435456"), free, nil},

		{"cloud-init", of("mtu", "eth0", ""), facts.OwnerCloudInit, []string{"/etc/netplan/50-cloud-init.yaml:7", "config: disabled"}},
		{"cloud-init", of("file", "/etc/sysctl.d/90-site.conf", ""), facts.OwnerCloudInit, nil},
		{"cloud-init", sysctl("net.core.somaxconn", "16384"), free, nil}, // written once, and not again

		{"netplan", of("mtu", "0000:18:00.0 ens1np0", ""), facts.OwnerNetplan, []string{"/etc/netplan/01-rails.yaml:6", "netplan try"}},
		{"netplan", of("sriov", "ens1np0", "vfs"), facts.OwnerNetplan, nil},
		{"netplan", of("ethtool", "ens1np0", "feature rx-checksum"), facts.OwnerNetplan, nil},
		{"netplan", of("mtu", "ens9", ""), facts.OwnerNetplan, nil}, // by its address
		{"netplan", of("mtu", "ens2np0", ""), free, nil},
		{"netplan", sysctl("net.ipv6.conf.ens2np0.accept_ra", "0"), facts.OwnerNetplan, nil},
		{"netplan", of("ethtool", "ens1np0", "ring rx"), free, nil},

		{"networkmanager", of("mtu", "ens1np0", ""), facts.OwnerNetworkManager, []string{"rail.nmconnection", "nmcli connection modify"}},
		{"networkmanager", of("ethtool", "ens1np0", "ring rx"), facts.OwnerNetworkManager, nil},
		{"networkmanager", of("ethtool", "ens1np0", "coalesce adaptive-rx"), facts.OwnerNetworkManager, nil},
		{"networkmanager", of("ethtool", "ens1np0", "channels combined"), free, nil},
		{"networkmanager", of("ethtool", "ens2np0", "ring rx"), free, nil},
		{"networkmanager", of("sriov", "ens1np0", "vfs"), facts.OwnerNetworkManager, nil},
		{"networkmanager", sysctl("net.ipv6.conf.ens1np0.accept_ra", "0"), facts.OwnerNetworkManager, []string{"nmcli connection modify"}},
		{"networkmanager", sysctl("net.ipv4.conf.ens1np0.rp_filter", "2"), free, nil},

		{"doca", of("hugepages", "node0", "2048kB"), facts.OwnerDOCA, []string{"/etc/mellanox/hugepages.d/dpdk.json", "doca-hugepages config"}},
		{"doca", sysctl("net.core.rmem_max", "268435456"), free, nil},

		{"cilium", sysctl("net.ipv4.conf.all.rp_filter", "2"), facts.OwnerCilium, []string{"99-zzz-override_cilium.conf:5", "sysctlfix.enabled=false"}},
		{"cilium", sysctl("net.ipv4.conf.lxc1a.rp_filter", "2"), facts.OwnerCilium, nil},
		{"cilium", sysctl("net.ipv4.conf.ens1np0.rp_filter", "2"), free, nil},
	} {
		t.Run(tt.tree+" "+tt.wish.String(), func(t *testing.T) {
			f := facts.New(fixture.Load(t, filepath.Join("../testdata/owners", tt.tree+".txtar")).Host(t))
			r := ownedBy(f, tt.wish)
			if r == nil {
				if tt.by != free {
					t.Fatalf("nobody holds it; want %s (owners: %+v)", tt.by, f.Owners())
				}
				return
			}
			all := r.Reason + "\n" + strings.Join(r.Steps, "\n")
			if tt.by == free || !strings.HasPrefix(r.Reason, tt.by) {
				t.Fatalf("got %q, want %q", all, tt.by)
			}
			if len(r.Steps) == 0 || r.Want != tt.wish.Want || r.Setting != tt.wish.Setting {
				t.Errorf("no steps, or another setting: %+v", r)
			}
			for _, s := range tt.says {
				if !strings.Contains(all, s) {
					t.Errorf("%q does not say %q", all, s)
				}
			}
		})
	}
}
