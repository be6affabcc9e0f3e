// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var rdmaNetns = &check.Check{
	ID: "rdma.netns", Title: "RDMA devices belong to network namespaces as the profile says", Severity: check.Medium,
	Doc: `The RDMA subsystem has two modes for the whole host. Shared, the default: every network namespace sees every RDMA device, and a container that has
the device file can use any of them. Exclusive: a device belongs to one namespace, as an interface does, and a container sees what was moved
into it ("rdma dev set … netns").

They exclude each other. A pod that gets a VF by the RDMA CNI plugin needs exclusive mode; the shared device plugin needs shared. In
the wrong one the pod finds no device, or devices of others. No profile that comes with hostcheck says one; a site says
rdma: {netns: exclusive}. The truth is netns_mode of ib_core, which "rdma system set" changes, too: Y is shared, N exclusive.

By hand:

    rdma system
    rdma system set netns exclusive             # refused (EBUSY) while there are other network namespaces: do it early
    echo 'options ib_core netns_mode=0' > /etc/modprobe.d/ib_core.conf    # at every boot; then rebuild the initramfs

Where ib_core is built in it is a kernel parameter: ib_core.netns_mode=0. In exclusive mode a check in a container sees the
container's devices alone.`,
	Refs: []string{
		"https://man7.org/linux/man-pages/man8/rdma-system.8.html", "drivers/infiniband/core/device.c, netns_mode",
		"https://github.com/k8snetworkplumbingwg/rdma-cni",
	},
	Run: runNetns,
}

func runNetns(_ context.Context, r *check.Run) error {
	want := r.Profile.RDMA.Netns
	if !want.Set {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say which mode (rdma.netns)"})
		return nil
	}
	mode, why := r.Facts.RDMANetns()
	f := check.Finding{Want: want.V, Source: want.Origin.String()}
	switch {
	case why != "":
		f.Status, f.Why = check.Unknown, why
	case mode == "":
		f.Status, f.Why = check.Skip, "the RDMA core (ib_core) is not loaded, or older than kernel 5.2, which has only the shared mode"
	case mode == want.V:
		f.Status = check.Pass
	default:
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = reason(want.Origin, "pods that are given RDMA devices the other way find none, or those of others")
		f.Next = "rdma system set netns " + want.V + " while no other network namespace exists; for every boot, options ib_core netns_mode=" + netnsParameter(want.V) + " in /etc/modprobe.d"
	}
	if mode != "" {
		f.Got = mode
		f.Evidence = []check.Evidence{{Source: facts.PathRDMANetns, Value: mode}}
	}
	r.Report(f)
	return nil
}

func netnsParameter(mode string) string {
	if mode == "exclusive" {
		return "0"
	}
	return "1"
}
