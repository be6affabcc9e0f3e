// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var kubeletMemory = &check.Check{
	ID: "kubelet.memory_manager", Title: "The kubelet's memory manager is the wanted one and can start", Severity: check.High,
	Doc: `With memoryManagerPolicy: Static, Guaranteed pods get their memory and huge pages from the nodes that their CPUs and devices are of. It
needs reservedMemory, which splits what the host keeps for itself over the NUMA nodes. The sum must be exact, for memory:

    Σ reservedMemory = kubeReserved.memory + systemReserved.memory + evictionHard memory.available

or the kubelet does not start ("the total amount … is not equal to the value … determined by Node Allocatable feature"). The last
term is easily forgotten: it is 100Mi when nobody sets it, and 0 when evictionHard is set without it. Each node
that is named must exist. Reserved huge pages of a size must be what kubeReserved and systemReserved say of that size.

"policy" compares with "memory_policy" of the profile; "memory" and each other type are the sums; "nodes" are the nodes named.

By hand, two nodes, in the kubelet's configuration (1024Mi + 512Mi + 100Mi = 818Mi + 818Mi):

    memoryManagerPolicy: Static
    kubeReserved: {memory: 1024Mi}
    systemReserved: {memory: 512Mi}
    reservedMemory:
      - {numaNode: 0, limits: {memory: 818Mi}}
      - {numaNode: 1, limits: {memory: 818Mi}}

Another policy or other sums take a drained node, the kubelet stopped, /var/lib/kubelet/memory_manager_state removed, and the
kubelet started. A share in percent in evictionHard depends on the memory that the kubelet counts, and is not judged here.`,
	Refs: []string{memPolicyDoc, "https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/", "https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/memorymanager/memory_manager.go"},
	Run:  runKubeletMemory,
}

func runKubeletMemory(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	want := r.Profile.Kubelet.MemoryPolicy
	policy, from := reportPolicy(r, k, "memoryManagerPolicy", want, "it decides whether pods get memory of certain nodes", "memory_manager_state")
	switch policy {
	case "Static":
		reserveSums(r, k)
		reserveNodes(r, k)
	case "None":
		if !want.Set {
			r.Report(check.Finding{Subject: "policy", Status: check.Skip, Got: policy, Evidence: []check.Evidence{from}, Why: "no pod is bound to memory of a node, and the profile does not say whether any must be"})
		}
	default:
		r.Report(check.Finding{Subject: "memory", Status: check.Fail, Want: "None or Static", Got: policy, Evidence: []check.Evidence{from}, Source: memPolicyDoc,
			Why: "the kubelet does not start with a policy that it does not know", Next: "correct memoryManagerPolicy " + where(from)})
	}
	return nil
}

// reserveSums compares the sum over the nodes of each type with what the host
// keeps of it.
func reserveSums(r *check.Run, k *facts.Kubelet) {
	types := map[string]bool{"memory": true}
	for _, res := range k.Reserved {
		types[res.Type] = true
	}
	for _, s := range k.Settings {
		for _, prefix := range []string{"kubeReserved.", "systemReserved."} {
			if t, ok := strings.CutPrefix(s.Name, prefix); ok && strings.HasPrefix(t, "hugepages-") {
				types[t] = true
			}
		}
	}
	for _, t := range slices.Sorted(maps.Keys(types)) {
		r.Report(reserveSum(k, t))
	}
}

func reserveSum(k *facts.Kubelet, kind string) check.Finding {
	f := check.Finding{Subject: kind, Status: check.Pass, Source: memPolicyDoc}
	fail := func(s check.Status, why, next string) check.Finding {
		f.Status, f.Why, f.Next = s, why, next
		return f
	}
	names := []string{"kubeReserved." + kind, "systemReserved." + kind}
	if kind == "memory" {
		names = append(names, "evictionHard.memory.available")
	}
	var kept, given int64
	var parts []string
	add := func(name, v string, to *int64) (bad string) {
		m, err := facts.ParseQuantity(v)
		if err != nil {
			return name + ": " + err.Error()
		}
		*to += m
		return ""
	}
	for _, name := range names {
		v, e := setting(k, name)
		f.Evidence = append(f.Evidence, e)
		switch {
		case v == "":
			continue
		case strings.HasSuffix(v, "%"):
			return fail(check.Unknown, name+" is "+v+" of the memory that the kubelet counts, which is not known to the byte here", "")
		}
		parts = append(parts, v)
		if bad := add(name, v, &kept); bad != "" {
			f.Want, f.Got = "a quantity", bad
			return fail(check.Fail, "the kubelet does not start with a value that it cannot read", "correct it "+where(e))
		}
	}
	place := "in the kubelet's configuration"
	var nodes []string
	for _, res := range k.Reserved {
		if res.Type != kind {
			continue
		}
		e := check.Evidence{Source: res.Source, Value: fmt.Sprintf("reservedMemory of node %d: %s %s", res.Node, kind, res.Value)}
		f.Evidence, place = append(f.Evidence, e), where(e)
		nodes = append(nodes, res.Value)
		if bad := add("reservedMemory", res.Value, &given); bad != "" {
			f.Want, f.Got = "a quantity", bad
			return fail(check.Fail, "the kubelet does not start with a value that it cannot read", "correct it "+place)
		}
	}
	f.Want = "reserved over the nodes: " + sumOf(parts, kept)
	f.Got = sumOf(nodes, given)
	if kept != given {
		return fail(check.Fail, "the kubelet does not start: the memory manager wants the sum over the nodes to be what the host keeps for itself",
			fmt.Sprintf("make the limits of %s in reservedMemory sum up to %s %s; %s without memory_manager_state", kind, mebi(kept), place, kubeletStart))
	}
	return f
}

// sumOf writes "1Gi + 100Mi = 1124Mi".
func sumOf(parts []string, milli int64) string {
	switch len(parts) {
	case 0:
		return "nothing"
	case 1:
		return parts[0]
	}
	return strings.Join(parts, " + ") + " = " + mebi(milli)
}

// mebi writes thousandths of bytes in Mi where they are whole.
func mebi(milli int64) string {
	if bytes := milli / 1000; bytes%(1<<20) == 0 {
		return fmt.Sprintf("%dMi", bytes>>20)
	}
	return fmt.Sprint(milli / 1000)
}

// reserveNodes finds entries of nodes that do not exist.
func reserveNodes(r *check.Run, k *facts.Kubelet) {
	numa := r.Facts.NUMA()
	if len(k.Reserved) == 0 {
		return // the sum says so
	}
	f := check.Finding{Subject: "nodes", Status: check.Pass, Want: "reservedMemory of nodes that exist", Source: memPolicyDoc}
	if numa.Nodes == nil {
		f.Status, f.Why = check.Unknown, numa.Unknown["nodes"]
		r.Report(f)
		return
	}
	var got []string
	for _, res := range k.Reserved {
		name := nodeName(res.Node)
		if !slices.Contains(numa.Nodes, res.Node) {
			name += " (not there)"
			f.Status, f.Why = check.Fail, "the kubelet does not start: the reserved memory is of a NUMA node that does not exist"
			f.Next = fmt.Sprintf("take node %d out of reservedMemory %s", res.Node, where(check.Evidence{Source: res.Source}))
			f.Evidence = append(f.Evidence, check.Evidence{Source: res.Source, Value: fmt.Sprintf("numaNode: %d", res.Node)})
		}
		if !slices.Contains(got, name) {
			got = append(got, name)
		}
	}
	f.Got = strings.Join(got, ", ")
	f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/devices/system/node", Value: fmt.Sprintf("%d nodes", len(numa.Nodes))})
	r.Report(f)
}

var kubeletState = &check.Check{
	ID: "kubelet.state", Title: "The kubelet's state files are of the policies that are configured", Severity: check.High,
	Doc: `The CPU manager and the memory manager keep who owns what in cpu_manager_state and memory_manager_state of /var/lib/kubelet, together with
the name of their policy. A kubelet that finds another policy in its file than in its configuration does not start ("configured policy
… differs from state checkpoint policy …"). Somebody changed the configuration and not yet restarted it, or it is in a crash loop.

Root alone can read these files; to others it is unknown. A file that is not there is made at the next start and skipped.

By hand, with no pod left that owns CPUs:

    kubectl drain NODE --ignore-daemonsets
    systemctl stop kubelet
    rm /var/lib/kubelet/cpu_manager_state /var/lib/kubelet/memory_manager_state
    systemctl start kubelet && kubectl uncordon NODE

Often copied and wrong: to remove the files and restart the kubelet under running pods. Containers keep the CPUs that they had,
the new state knows nothing of it, and two containers own one CPU.`,
	Refs: []string{cpuPolicyDoc, memPolicyDoc, "https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/cpumanager/state/state_checkpoint.go"},
	Run:  runKubeletState,
}

func runKubeletState(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	for _, m := range []struct {
		subject, name, unknown string
		state                  *facts.KubeletState
	}{
		{"cpu_manager_state", "cpuManagerPolicy", k.Unknown["cpu_state"], k.CPUState},
		{"memory_manager_state", "memoryManagerPolicy", k.Unknown["memory_state"], k.MemState},
	} {
		policy, from := setting(k, m.name)
		f := check.Finding{Subject: m.subject, Status: check.Pass, Want: policy, Source: cpuPolicyDoc}
		switch {
		case m.state == nil && m.unknown != "":
			f = check.Finding{Subject: m.subject, Status: check.Unknown, Why: m.unknown}
		case m.state == nil:
			f = check.Finding{Subject: m.subject, Status: check.Skip, Why: "there is no such file; the kubelet makes it when it starts"}
		default:
			f.Got = *m.state.Policy
			f.Evidence = []check.Evidence{{Source: m.state.Source, Value: "policyName: " + f.Got}, from}
			if f.Got != policy {
				f.Status = check.Fail
				f.Why = "the kubelet does not start again: the policy that is configured is not the one of its state"
				f.Next = "drain the node, stop the kubelet, remove " + m.state.Source + ", and start it"
			}
		}
		r.Report(f)
	}
	return nil
}
