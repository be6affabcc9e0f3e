// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
)

const (
	topologyDoc  = "https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/"
	cpuPolicyDoc = "https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/"
	memPolicyDoc = "https://kubernetes.io/docs/tasks/administer-cluster/memory-manager/"
	kubeletDoc   = "https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/"
	mergingDoc   = "https://kubernetes.io/docs/reference/node/kubelet-config-directory-merging/"
)

// kubeletStart is what goes before any restart with another configuration.
const kubeletStart = "drain the node, then restart the kubelet"

var kubeletChecks = []*check.Check{
	kubeletTopology, kubeletNUMANodes, kubeletCPUs, kubeletIsolated, kubeletMemory, kubeletState, kubeletHugepages,
}

// kubeletOf gives the kubelet where its settings are known, and reports where
// there is none, or they are not.
func kubeletOf(r *check.Run) *facts.Kubelet {
	k := r.Facts.Kubelet()
	switch {
	case !k.Present:
		r.Report(check.Finding{Status: check.Skip, Why: "no kubelet is seen on this host: no unit, no process, nothing in /var/lib/kubelet"})
	case k.Settings == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: "the configuration of the kubelet is not known: " + k.Unknown["settings"]})
	default:
		return k
	}
	return nil
}

// setting gives a value with its evidence.
func setting(k *facts.Kubelet, name string) (string, check.Evidence) {
	s, ok := k.Get(name)
	if !ok {
		return "", check.Evidence{Source: facts.KubeletDefault, Value: name + " is not set"}
	}
	return s.Value, check.Evidence{Source: s.Source, Value: name + ": " + s.Value}
}

// reportPolicy compares the policy of a manager with the profile's, where that
// names one, and gives it with its evidence. state is the file that must go
// when it changes.
func reportPolicy(r *check.Run, k *facts.Kubelet, name string, want profile.Val[string], why, state string) (policy string, from check.Evidence) {
	policy, from = setting(k, name)
	if want.Set {
		f := check.Finding{Subject: "policy", Status: check.Pass, Want: want.V, Got: policy, Source: want.Origin.String(), Evidence: []check.Evidence{from}}
		if policy != want.V {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = reason(want.Origin, why)
			f.Next = "set " + name + ": " + want.V + " " + where(from) + "; drain the node, stop the kubelet, remove " + state + ", start it"
		}
		r.Report(f)
	}
	return policy, from
}

// where is the place to change a setting at.
func where(e check.Evidence) string {
	if e.Source == facts.KubeletDefault {
		return "in the kubelet's configuration"
	}
	return "in " + e.Source
}

var kubeletTopology = &check.Check{
	ID: "kubelet.topology", Title: "The kubelet aligns pods with NUMA nodes and rejects none that fit the host", Severity: check.High,
	Doc: `topologyManagerPolicy says what the kubelet does with the hints of its CPU, memory and device managers: which NUMA nodes a GPU, a NIC
and whole CPUs of a pod could come from.

  - none             nothing is aligned; a GPU may get CPUs and a NIC of the other socket
  - best-effort      aligned where it can be, admitted anyhow
  - restricted       rejected where it could be had on fewer nodes on an empty host, but is not now
  - single-numa-node rejected unless all of it comes from one node

A rejected pod does not wait: it ends with TopologyAffinityError, and its controller makes the next one, without end.

topologyManagerScope says what is aligned: each container by itself (container, the default), or all of a pod (pod).
Only containers with whole CPUs in pods of class Guaranteed are aligned in CPUs, which needs cpuManagerPolicy: static.

The evidence names the place of each value: the file and line, or the flag, which wins over all files. Wanted is "topology_policy"
and "topology_scope" of the profile. On a host whose GPUs are on several nodes single-numa-node is a warning without any profile.

By hand, in the file that --config names (kubeadm: /var/lib/kubelet/config.yaml), then drain and restart the kubelet:

    topologyManagerPolicy: restricted
    kubectl get --raw /api/v1/nodes/NODE/proxy/configz    # what it runs with

Often copied and wrong: single-numa-node "for the best locality". On a host with two sockets and four GPUs on each, a pod that asks
for all eight never runs. restricted gives the same locality to every pod that fits a node, and lets the large one in.`,
	Refs: []string{topologyDoc, kubeletDoc, mergingDoc, "https://github.com/kubernetes/kubernetes/tree/master/pkg/kubelet/cm/topologymanager"},
	Run:  runKubeletTopology,
}

func runKubeletTopology(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	want, scope := r.Profile.Kubelet.TopologyPolicy, r.Profile.Kubelet.TopologyScope
	nodes := r.Facts.NUMA().WithCPUs
	policy, from := setting(k, "topologyManagerPolicy")
	f := check.Finding{Subject: "policy", Status: check.Pass, Got: policy, Evidence: []check.Evidence{from}}
	if want.Set {
		f.Want, f.Source = strings.Join(want.V, " or "), want.Origin.String()
	}
	gpus := gpuNodes(r)
	switch {
	case nodes == nil:
		f.Status, f.Why = check.Unknown, "which nodes have CPUs is not known: "+r.Facts.NUMA().Unknown["with_cpus"]
	case len(nodes) < 2:
		f = check.Finding{Subject: "policy", Status: check.Skip, Why: "the CPUs are all on one NUMA node: there is nothing to align", Evidence: f.Evidence}
	case !slices.Contains([]string{"none", "best-effort", "restricted", "single-numa-node"}, policy):
		f.Status, f.Want = check.Fail, "none, best-effort, restricted or single-numa-node"
		f.Why, f.Next = "the kubelet does not start with a policy that it does not know", "correct topologyManagerPolicy "+where(from)
	case policy == "single-numa-node" && len(gpus) > 1 && (!want.Set || !slices.Contains(want.V, policy)):
		f.Status = check.Warn
		if want.Set {
			f.Status = atMostWarn(check.Fail, want.Origin)
		}
		f.Want = orText(f.Want, "restricted or best-effort")
		f.Source = orText(f.Source, topologyDoc)
		f.Why = fmt.Sprintf("the GPUs are on %d nodes: each pod that asks for more than those of one node is rejected, and never runs", len(gpus))
		f.Evidence = append(f.Evidence, check.Evidence{Source: "numa_node of the GPUs", Value: gpuCount(gpus)})
		f.Next = "set topologyManagerPolicy: restricted " + where(from) + "; " + kubeletStart
	case want.Set && !slices.Contains(want.V, policy):
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Why = reason(want.Origin, "pods get CPUs, GPUs and NICs of different nodes")
		f.Next = "set topologyManagerPolicy: " + want.V[0] + " " + where(from) + "; " + kubeletStart
	case !want.Set && policy == "none":
		f = check.Finding{Subject: "policy", Status: check.Skip, Got: policy, Evidence: f.Evidence, Why: "nothing is aligned, and the profile does not say whether it must be"}
	}
	r.Report(f)
	if scope.Set && f.Status != check.Skip && f.Status != check.Unknown {
		got, from := setting(k, "topologyManagerScope")
		f := check.Finding{Subject: "scope", Status: check.Pass, Want: scope.V, Got: got, Source: scope.Origin.String(), Evidence: []check.Evidence{from}}
		if got != scope.V {
			f.Status = atMostWarn(check.Fail, scope.Origin)
			f.Why = reason(scope.Origin, "it decides whether containers of one pod may be on different nodes")
			f.Next = "set topologyManagerScope: " + scope.V + " " + where(from) + "; " + kubeletStart
		}
		r.Report(f)
	}
	return nil
}

// gpuNodes counts the GPUs of NVIDIA and AMD by NUMA node; one that firmware
// gives no node is left out.
func gpuNodes(r *check.Run) map[int]int {
	count := map[int]int{}
	for _, fn := range r.Facts.PCI().Functions {
		if fn.GPU() && !fn.VF() && fn.NUMANode != nil && *fn.NUMANode >= 0 {
			count[*fn.NUMANode]++
		}
	}
	return count
}

func gpuCount(nodes map[int]int) string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(nodes)) {
		out = append(out, fmt.Sprintf("%d on node %d", nodes[n], n))
	}
	return strings.Join(out, ", ")
}

const numaCap = "max-allowable-numa-nodes"

var kubeletNUMANodes = &check.Check{
	ID: "kubelet.numa_nodes", Title: "The kubelet's topology manager takes as many NUMA nodes as there are", Severity: check.High,
	Doc: `With any topologyManagerPolicy but none, the kubelet refuses to start on a host with more than 8 NUMA nodes: "unsupported on machines
with more than 8 NUMA Nodes". The reason is time: it tries all combinations of nodes for each pod, and they double with each node.

All nodes count, those without CPUs too: memory of GPUs (GB200 shows some 34 nodes, of which 2 have CPUs), CXL and persistent
memory. The evidence tells them apart. A host whose nodes are parts of sockets (NPS4, SNC) reaches 8 with CPUs alone.

The option max-allowable-numa-nodes of topologyManagerPolicyOptions (since 1.31, at first behind a feature gate) raises the limit; it
takes whole numbers from 8. It makes the kubelet start. It does not make admission faster: watch kubelet_topology_manager_admission_duration_ms.

By hand, in the kubelet's configuration, then drain and restart the kubelet:

    topologyManagerPolicyOptions:
      max-allowable-numa-nodes: "34"

Else set fewer nodes per socket in the firmware (NPS1, SNC off), or give up the alignment with topologyManagerPolicy: none.`,
	Refs: []string{topologyDoc, "https://github.com/kubernetes/enhancements/issues/4622", "https://github.com/kubernetes/enhancements/issues/5726"},
	Run:  runKubeletNUMANodes,
}

func runKubeletNUMANodes(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	numa := r.Facts.NUMA()
	policy, from := setting(k, "topologyManagerPolicy")
	asked, option := setting(k, "topologyManagerPolicyOptions."+numaCap)
	f := check.Finding{Status: check.Pass, Evidence: []check.Evidence{from, option}, Source: "kubernetes KEP-4622: 8 nodes, or as many as max-allowable-numa-nodes says"}
	if policy == "none" {
		r.Report(check.Finding{Status: check.Skip, Why: "topologyManagerPolicy is none, which takes any number of nodes", Evidence: f.Evidence[:1]})
		return nil
	}
	if numa.Nodes == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: "how many nodes there are is not known: " + numa.Unknown["nodes"]})
		return nil
	}
	most := 8
	if asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < 8 {
			f.Status, f.Want, f.Got = check.Fail, "a whole number from 8", asked
			f.Why, f.Next = "the kubelet does not start with such a limit", "correct "+numaCap+" "+where(option)
			r.Report(f)
			return nil
		}
		most = n
	}
	f.Want = fmt.Sprintf("at most %d nodes", most)
	f.Got = fmt.Sprintf("%d nodes", len(numa.Nodes))
	if numa.WithCPUs != nil {
		f.Got += fmt.Sprintf(", %d of them with CPUs", len(numa.WithCPUs))
	}
	f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/devices/system/node", Value: f.Got})
	if len(numa.Nodes) > most {
		f.Status = check.Fail
		f.Why = "the kubelet does not start: its topology manager refuses hosts with more nodes than that"
		f.Next = fmt.Sprintf("set topologyManagerPolicyOptions: {%s: \"%d\"}, or topologyManagerPolicy: none %s; with so many nodes the admission of pods takes long", numaCap, len(numa.Nodes), where(from))
	}
	r.Report(f)
	return nil
}

var kubeletHugepages = &check.Check{
	ID: "kubelet.hugepages", Title: "The kubelet counts as many huge pages as there are", Severity: check.Medium,
	Doc: `The kubelet counts the pools when it starts and never again. What is added later no pod can ask for; what is taken away the scheduler
still gives out, and the program that maps it gets SIGBUS or ENOMEM.

What it counted it also told the kernel, as the limit of all pods together: hugetlb.SIZE.max of the cgroup kubepods. The check
compares that with the pool of the size, so it sees exactly what the running kubelet believes. Where the kubelet does not enforce the
allocatable of pods (enforceNodeAllocatable without pods), or the hugetlb controller is off, there is no such limit, and it is unknown.

With memoryManagerPolicy: Static a changed pool also keeps the kubelet from starting again ("the expected machine state is different
from the real one") until memory_manager_state is gone.

By hand:

    grep -H . /sys/fs/cgroup/kubepods.slice/hugetlb.*.max /sys/kernel/mm/hugepages/*/nr_hugepages
    kubectl drain NODE && systemctl restart kubelet        # Static: rm /var/lib/kubelet/memory_manager_state in between

Better, make the pools at boot, before the kubelet: on the command line, or in a unit with Before=kubelet.service.
systemReserved and kubeReserved cannot hold back huge pages.`,
	Refs: []string{"https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/", "https://github.com/kubernetes/kubernetes/issues/111757", hugetlbDoc},
	Run:  runKubeletHugepages,
}

func runKubeletHugepages(_ context.Context, r *check.Run) error {
	k, pools := r.Facts.Kubelet(), r.Facts.Hugepages()
	switch {
	case !k.Present:
		r.Report(check.Finding{Status: check.Skip, Why: "no kubelet is seen on this host: no unit, no process, nothing in /var/lib/kubelet"})
		return nil
	case pools.Global == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: pools.Unknown["global"]})
		return nil
	case k.Limits == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: "what the kubelet counted at its start is not known: " + k.Unknown["pod_hugepages"]})
		return nil
	}
	for _, l := range k.Limits {
		i := slices.IndexFunc(pools.Global, func(p facts.GlobalPool) bool { return p.SizeKB == l.SizeKB })
		f := check.Finding{Subject: facts.SizeName(l.SizeKB), Source: "kubernetes.io, Manage HugePages: pages are counted when the kubelet starts"}
		if i < 0 || pools.Global[i].Total == nil {
			f.Status, f.Why = check.Unknown, "the pool of this size is not known"
			r.Report(f)
			continue
		}
		counted, now := l.Bytes/(l.SizeKB<<10), *pools.Global[i].Total
		f.Want, f.Got = fmt.Sprintf("%d pages, as the pool has now", now), fmt.Sprintf("%d pages", counted)
		f.Evidence = []check.Evidence{{Source: l.Source, Value: strconv.FormatInt(l.Bytes, 10)}, {Source: facts.HugepagesPath + fmt.Sprintf("/hugepages-%dkB/nr_hugepages", l.SizeKB), Value: strconv.FormatInt(now, 10)}}
		f.Next = "drain the node and restart the kubelet; where memoryManagerPolicy is Static, remove memory_manager_state before it starts"
		switch {
		case counted == now:
			f.Status, f.Next = check.Pass, ""
		case counted > now:
			f.Status, f.Why = check.Fail, "the scheduler places pods on pages that have gone since the kubelet started"
		default:
			f.Status, f.Why = check.Warn, "no pod can ask for the pages that came after the kubelet started"
		}
		r.Report(f)
	}
	return nil
}
