// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Owner is another program that configures this host. That it is there says
// nothing yet: what it holds are the settings that it really sets.
type Owner struct {
	Name    string  `json:"name"`   // one of the Owner constants
	Detail  string  `json:"detail"` // its profile, notes or version; "" when it has none
	Source  string  `json:"source"` // the file that shows it
	Active  *bool   `json:"active"` // whether it runs or will at boot; nil when not known
	Holds   []Held  `json:"holds"`
	Unknown Unknown `json:"unknown,omitempty"`
}

// Owners by name.
const (
	OwnerTuned          = "TuneD"
	OwnerSaptune        = "saptune"
	OwnerMachineConfig  = "Machine Config Operator"
	OwnerSRIOVOperator  = "SR-IOV Network Operator"
	OwnerNICOperator    = "NIC Configuration Operator"
	OwnerCloudInit      = "cloud-init"
	OwnerNetplan        = "netplan"
	OwnerNetworkManager = "NetworkManager"
	OwnerDOCA           = "DOCA"
	OwnerCilium         = "Cilium"
)

// Held is settings that an owner sets, named as a plan names them. Target and
// Name are globs of path.Match in which "*" also stands for slashes when it is
// the whole.
type Held struct {
	Kind   string `json:"kind"`
	Target string `json:"target"`
	Name   string `json:"name"`
	Value  string `json:"value"` // as its owner writes it; "" when that is not known
	Source string `json:"source"`
}

// Covers reports whether a setting is among them.
func (h Held) Covers(kind, target, name string) bool {
	return h.Kind == kind && covers(h.Target, target) && covers(h.Name, name)
}

func covers(pattern, s string) bool {
	if pattern == "*" || pattern == s {
		return true
	}
	for word := range strings.FieldsSeq(s) { // "0000:18:00.0 ens1np0"
		if ok, err := path.Match(pattern, word); ok && err == nil {
			return true
		}
	}
	return false
}

// Owners lists the programs that configure this host besides people.
func (f *Facts) Owners() []Owner { return f.owners.get(f, decodeOwners) }

func decodeOwners(f *Facts) []Owner {
	h := f.host
	var ops []host.Op
	for _, p := range []string{pathTuned + "/active_profile", pathTuned + "/post_loaded_profile", pathTuned + "/bootcmdline", pathTuned + "/tuned-main.conf",
		pathSaptune, pathCilium, pathNICOperator} {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
	}
	for _, p := range []string{pathPods, pathMachineConfig, pathSRIOVOperator + "/pci", "/etc/netplan", "/run/netplan", "/lib/netplan", pathDOCA} {
		ops = append(ops, host.Op{Kind: host.ListDir, Path: p})
	}
	h.Prefetch(ops)
	pods, _ := h.List(pathPods) // absent where no kubelet runs
	owners := []Owner{}
	for _, find := range []func(*Facts, []string) *Owner{
		findTuned, findSaptune, findMachineConfig, findSRIOVOperator, findNICOperator, findCloudInit, findNetplan, findNetworkManager, findDOCA, findCilium,
	} {
		if o := find(f, pods); o != nil {
			if o.Holds == nil {
				o.Holds = []Held{}
			}
			owners = append(owners, *o)
		}
	}
	return owners
}

// Owner gives an owner by name, or nil.
func (f *Facts) Owner(name string) *Owner {
	owners := f.Owners()
	if i := slices.IndexFunc(owners, func(o Owner) bool { return o.Name == name }); i >= 0 {
		return &owners[i]
	}
	return nil
}

// podOf gives the directory of a pod whose name starts so. The kubelet makes
// one for each: NAMESPACE_NAME_UID.
func podOf(pods []string, name string) string {
	for _, p := range pods {
		if _, rest, ok := strings.Cut(p, "_"); ok && strings.HasPrefix(rest, name) {
			return path.Join(pathPods, p)
		}
	}
	return ""
}

const (
	pathPods          = "/var/log/pods"
	pathMachineConfig = "/etc/machine-config-daemon"
	pathSRIOVOperator = "/etc/sriov-operator"
	pathNICOperator   = "/etc/udev/rules.d/10-nic-net-interface-naming.rules"
	pathDOCA          = "/etc/mellanox/hugepages.d"
	pathCilium        = "/etc/sysctl.d/99-zzz-override_cilium.conf"
	pathSaptune       = "/etc/sysconfig/saptune"
)

// unitActive reports whether a unit will be started at boot or runs now; nil
// when the tree does not tell.
func unitActive(h *host.Host, unit string) *bool {
	if to, err := h.Link("/etc/systemd/system/" + unit); err == nil && path.Clean(to) == "/dev/null" {
		return new(false)
	}
	if there(h, "/run/systemd/units/invocation:"+unit) || there(h, "/sys/fs/cgroup/system.slice/"+unit) ||
		there(h, "/etc/systemd/system/multi-user.target.wants/"+unit) {
		return new(true)
	}
	if h.Running() || there(h, "/etc/systemd/system") {
		return new(false)
	}
	return nil
}

// findMachineConfig: on such a node every file below /etc and every kernel
// argument comes from the cluster; what is written here is drift.
func findMachineConfig(f *Facts, _ []string) *Owner {
	h := f.host
	if names, err := h.List(pathMachineConfig); err != nil || len(names) == 0 {
		return nil
	}
	o := &Owner{Name: OwnerMachineConfig, Source: pathMachineConfig, Active: new(true)}
	if podOf, err := h.List("/var/lib/ocp-tuned"); err == nil && len(podOf) > 0 {
		o.Detail = "with the Node Tuning Operator"
	}
	for _, kind := range []string{"sysctl", "modprobe", "unit", "cmdline", "hugepages"} {
		o.Holds = append(o.Holds, Held{Kind: kind, Target: "*", Name: "*", Source: pathMachineConfig})
	}
	return o
}

// findSRIOVOperator: it keeps a file for each physical function that a policy
// of the cluster selects.
func findSRIOVOperator(f *Facts, pods []string) *Owner {
	h := f.host
	dir := pathSRIOVOperator + "/pci"
	names, err := h.List(dir)
	pod := podOf(pods, "sriov-network-config-daemon")
	unit := "/etc/systemd/system/sriov-config.service"
	switch {
	case err == nil || there(h, pathSRIOVOperator):
		o := &Owner{Name: OwnerSRIOVOperator, Source: pathSRIOVOperator, Active: new(pod != "" || there(h, unit))}
		if !*o.Active {
			o.Active = nil // its files stay when it goes
		}
		for _, bdf := range names {
			for _, kind := range []string{"sriov", "mtu"} {
				o.Holds = append(o.Holds, Held{Kind: kind, Target: bdf, Name: "*", Source: path.Join(dir, bdf)})
			}
		}
		return o
	case there(h, unit):
		return &Owner{Name: OwnerSRIOVOperator, Source: unit, Active: new(true)}
	case pod != "":
		return &Owner{Name: OwnerSRIOVOperator, Source: pod, Active: new(true)}
	}
	return nil
}

// findNICOperator: it sets trust, PFC, ToS and read request size of the NVIDIA
// NICs that a template of the cluster selects. Which ones cannot be seen here,
// so it holds those settings of all of them.
func findNICOperator(f *Facts, pods []string) *Owner {
	h := f.host
	o := &Owner{Name: OwnerNICOperator, Active: new(true)}
	if o.Source = podOf(pods, "nic-configuration-daemon"); o.Source == "" {
		text, err := h.Text(pathNICOperator)
		if err != nil || !strings.Contains(text, "nic-configuration-operator") {
			return nil
		}
		o.Source, o.Active = pathNICOperator, nil
	}
	for _, kind := range []string{"dcb", "firmware", "sriov"} {
		o.Holds = append(o.Holds, Held{Kind: kind, Target: "*", Name: "*", Source: o.Source})
	}
	o.Holds = append(o.Holds,
		Held{Kind: "sysfs", Name: "/sys/class/infiniband/*/tc/1/traffic_class", Source: o.Source},
		Held{Kind: "dcqcn", Target: "*", Name: "np", Source: o.Source},
		Held{Kind: "dcqcn", Target: "*", Name: "rp", Source: o.Source})
	return o
}

// findDOCA: doca-hugepages has one file for each program that asks for pages.
func findDOCA(f *Facts, _ []string) *Owner {
	names, err := f.host.List(pathDOCA)
	if err != nil {
		return nil
	}
	o := &Owner{Name: OwnerDOCA, Source: pathDOCA}
	for _, n := range names {
		if strings.HasSuffix(n, ".json") {
			o.Active = new(true)
			o.Holds = append(o.Holds, Held{Kind: "hugepages", Target: "*", Name: "*", Source: path.Join(pathDOCA, n)})
		}
	}
	return o
}

// findCilium: its file holds what the lines in it name.
func findCilium(f *Facts, pods []string) *Owner {
	pod := podOf(pods, "cilium-")
	b, err := f.host.Read(pathCilium)
	switch {
	case err == nil:
		o := &Owner{Name: OwnerCilium, Source: pathCilium}
		if pod != "" {
			o.Active = new(true)
		}
		for _, l := range parseSysctl(string(b)) {
			if l.set {
				o.Holds = append(o.Holds, Held{Kind: "sysctl", Name: SysctlName(l.path), Value: l.value, Source: fmt.Sprintf("%s:%d", pathCilium, l.line)})
			}
		}
		return o
	case pod != "":
		return &Owner{Name: OwnerCilium, Source: pod, Active: new(true)}
	}
	return nil
}
