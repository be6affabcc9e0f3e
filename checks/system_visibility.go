// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

var systemVisibilityChecks = []*check.Check{systemVisibility}

var systemVisibility = &check.Check{
	ID: "system.visibility", Title: "hostcheck sees what it judges: nothing is closed to it", Severity: check.Info,
	Doc: `What cannot be read is unknown, never good. Mostly one cause stands behind many unknowns; this check names it, the areas that it closes,
and what opens them. It looks at:

    PCI configuration space     beyond 64 bytes for root in the first user namespace only: acs, pcie (all but link), sriov
    kernel log                  kernel.dmesg_restrict: iommu, hugepages and system.swiotlb lose their evidence
    debugfs                     for root, where it is mounted: parameters of DCQCN of mlx5_core; looked at where there is such a NIC
    lockdown                    integrity closes most of debugfs even to root, confidentiality all of it
    container                   its own network, mounts, services and boot files are shown for the host's
    virtual machine             switches, root ports and the IOMMU are made up or not shown: numa.gpu_nic, pcie.link, acs, iommu

Something closed is unknown, with the list as the reason. A virtual machine alone is a skip: from inside nothing can be done, and its host
is to be judged by itself. With "full_view: true" in the profile's system, what is closed is a failure: for runs that are to prove
something, such as an acceptance test, where a missing sudo must not look like a pass.

By hand:

    sudo hostcheck system.visibility
    sysctl kernel.dmesg_restrict;  cat /sys/kernel/security/lockdown;  mountpoint /sys/kernel/debug
    systemd-detect-virt; systemd-detect-virt --container

In Kubernetes: privileged, hostNetwork and hostPID, the host's root mounted, and "hostcheck --root /host"; or better, run on the node.`,
	Refs: []string{"drivers/pci/pci-sysfs.c", "fs/debugfs/file.c", "https://man7.org/linux/man-pages/man7/kernel_lockdown.7.html", "https://docs.kernel.org/admin-guide/sysctl/kernel.html"},
	Run:  runVisibility,
}

// veil is one cause of unknowns.
type veil struct {
	source, areas, why, open string
}

func runVisibility(_ context.Context, r *check.Run) error {
	var seen []check.Evidence
	var closed []veil
	for _, look := range []func(*check.Run) (check.Evidence, *veil){seesConfigSpace, seesKernelLog, seesDebugfs, seesPastLockdown, seesTheHost} {
		e, v := look(r)
		if v != nil {
			closed = append(closed, *v)
		} else if e.Source != "" {
			seen = append(seen, e)
		}
	}
	want := r.Profile.System.FullView
	f := check.Finding{Subject: "this run", Status: check.Pass, Want: "nothing closed", Got: "nothing closed", Evidence: seen}
	vm := text(r.Facts.Kernel().Hypervisor)
	switch {
	case len(closed) > 0:
		var got, why, next []string
		f.Status, f.Evidence = check.Unknown, nil
		for _, v := range closed {
			got = append(got, v.areas)
			why = append(why, fmt.Sprintf("%s: %s", v.areas, v.why))
			next = append(next, v.open)
			f.Evidence = append(f.Evidence, check.Evidence{Source: v.source, Value: v.why})
		}
		f.Got, f.Why, f.Next = "closed: "+strings.Join(got, "; "), strings.Join(why, "; "), strings.Join(next, "; ")
		if want.V {
			f.Status, f.Source = check.Fail, want.Origin.String()
		}
	case vm != "":
		f = check.Finding{Subject: f.Subject, Status: check.Skip, Why: "a virtual machine (" + vm + "): numa.gpu_nic, pcie.link, acs and iommu see what the hypervisor makes up; judge its host by itself. Nothing else is closed"}
	case r.Facts.Kernel().Hypervisor == nil:
		f.Status, f.Evidence, f.Why = check.Unknown, nil, "whether this is a virtual machine is not known: "+r.Facts.Kernel().Unknown["hypervisor"]
	}
	r.Report(f)
	return nil
}

func seesConfigSpace(r *check.Run) (e check.Evidence, v *veil) {
	bus, n := r.Facts.PCI(), 0
	v = &veil{source: facts.PCIDevices, areas: "acs, pcie (payload, mrrs, relaxed_ordering, aspm, bar), sriov", open: "run as root, outside of user namespaces (sudo hostcheck)"}
	if v.why = bus.Why; bus.Functions == nil {
		return e, v
	}
	for _, fn := range bus.Functions {
		if fn.VF() || !fn.Bridge() && !fn.Network() && !fn.GPU() { // of others it is not read
			continue
		}
		v.source = fn.Attr("config")
		if v.why = fn.Unknown["config_bytes"]; fn.ConfigBytes == nil {
			return e, v
		}
		if *fn.ConfigBytes <= 64 {
			v.why = "64 bytes of configuration space are shown, as to everybody but root in the first user namespace"
			return e, v
		}
		e, n = check.Evidence{Source: fn.Attr("config")}, n+1
	}
	if n == 0 {
		return e, nil // no device that is looked into
	}
	e.Value = fmt.Sprintf("more than 64 bytes, as of all %d functions", n)
	return e, nil
}

func seesKernelLog(r *check.Run) (check.Evidence, *veil) {
	if _, err := r.Facts.Host().KernelLog(); err != nil {
		return check.Evidence{}, &veil{"klog", "system.swiotlb, system.clocksource, evidence of iommu and hugepages", "the kernel log: " + strings.TrimPrefix(host.Reason(err), "klog: "), "run as root, or with CAP_SYSLOG (kernel.dmesg_restrict)"}
	}
	return check.Evidence{Source: "klog", Value: "readable"}, nil
}

const debugfs = "/sys/kernel/debug"

func seesDebugfs(r *check.Run) (check.Evidence, *veil) {
	v := &veil{debugfs, "dcqcn (parameters of mlx5_core), irq (managed interrupts)", "", "run as root where debugfs is mounted: mount -t debugfs debugfs " + debugfs}
	if !slices.ContainsFunc(r.Facts.PCI().Functions, func(fn *facts.PCIFunction) bool { return text(fn.Driver) == "mlx5_core" }) {
		return check.Evidence{}, nil // nobody else's files are needed
	}
	names, err := r.Facts.Host().List(debugfs)
	switch {
	case err != nil:
		v.why = host.Reason(err)
	case len(names) == 0:
		v.why = debugfs + ": empty, debugfs is not mounted"
	default:
		return check.Evidence{Source: debugfs, Value: fmt.Sprintf("%d entries", len(names))}, nil
	}
	return check.Evidence{}, v
}

func seesPastLockdown(r *check.Run) (check.Evidence, *veil) {
	k := r.Facts.Kernel()
	const file = "/sys/kernel/security/lockdown"
	switch mode := text(k.Lockdown); {
	case k.Lockdown == nil: // to those who see the rest it would be plain
		return check.Evidence{}, nil
	case mode != "none":
		return check.Evidence{}, &veil{file, "dcqcn (parameters of the in-tree driver), debugfs at large", "lockdown is " + mode + ": " + orText(lockdownHides[mode], "what it hides is not known"), "accept it, or see system.lockdown"}
	default:
		return check.Evidence{Source: file, Value: mode}, nil
	}
}

func seesTheHost(r *check.Run) (check.Evidence, *veil) {
	s := r.Facts.System()
	v := &veil{"/run", "link, rdma, vxlan, sysctl, irq (of its own network), cmdline.boot_config, kubelet, rdma.memlock", "", "run on the host; or in a privileged container with hostNetwork and hostPID, on the host's root: hostcheck --root /host"}
	switch {
	case s.Container == nil:
		v.why = "whether this is a container is not known: " + s.Unknown["container"]
	case *s.Container != "":
		v.why = "a container (" + *s.Container + ") shows its own network, mounts, services and boot files"
	default:
		return check.Evidence{Source: "/run/systemd/container, /.dockerenv", Value: "no container"}, nil
	}
	return check.Evidence{}, v
}
