// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var kubeletCPUs = &check.Check{
	ID: "kubelet.cpu_manager", Title: "The kubelet's CPU manager is the wanted one and can start", Severity: check.High,
	Doc: `With cpuManagerPolicy: static, a container of a Guaranteed pod that asks for whole CPUs gets them alone. With none, the default, all
containers share all CPUs by their weights, and the topology manager has nothing of CPUs to align with GPUs and NICs.

The static policy needs CPUs that are never given away, or the kubelet does not start ("the static policy requires
systemreserved.cpu + kubereserved.cpu to be greater than zero"):

  - reservedSystemCPUs names them. All must be online. kubeReserved.cpu and systemReserved.cpu then no longer count
  - else kubeReserved.cpu + systemReserved.cpu, rounded up, says how many; the kubelet takes the lowest cores

"policy" compares with "cpu_policy" of the profile, "reserved" judges what must hold for the kubelet to start.

By hand, in the kubelet's configuration; take whole cores with both threads, some on each node (lscpu -e=CPU,NODE,CORE):

    cpuManagerPolicy: static
    reservedSystemCPUs: "0-1,32-33,64-65,96-97"

Another policy or other reserved CPUs take a drained node, the kubelet stopped, /var/lib/kubelet/cpu_manager_state removed, and
the kubelet started.

Often copied and wrong: reservedSystemCPUs alone keeps nothing off these CPUs. Pods without CPUs of their own still run there, unless
cpuManagerPolicyOptions has strict-cpu-reservation: "true", and the system's own daemons run everywhere, unless
AllowedCPUs= of system.slice keeps them there.`,
	Refs: []string{cpuPolicyDoc, "https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/", "https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/cpumanager/cpu_manager.go"},
	Run:  runKubeletCPUs,
}

func runKubeletCPUs(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	want := r.Profile.Kubelet.CPUPolicy
	policy, from := reportPolicy(r, k, "cpuManagerPolicy", want, "it decides whether containers own whole CPUs", "cpu_manager_state")
	switch policy {
	case "static":
		r.Report(reservedFinding(r, k, from))
	case "none":
		if !want.Set {
			r.Report(check.Finding{Subject: "policy", Status: check.Skip, Got: policy, Evidence: []check.Evidence{from}, Why: "no container owns a CPU, and the profile does not say whether any must"})
		}
	default:
		r.Report(check.Finding{Subject: "reserved", Status: check.Fail, Want: "none or static", Got: policy, Evidence: []check.Evidence{from}, Source: cpuPolicyDoc,
			Why: "the kubelet does not start with a policy that it does not know", Next: "correct cpuManagerPolicy " + where(from)})
	}
	return nil
}

// reservedFinding judges what the static policy needs.
func reservedFinding(r *check.Run, k *facts.Kubelet, from check.Evidence) check.Finding {
	f := check.Finding{Subject: "reserved", Status: check.Pass, Want: "CPUs that are never given to a container", Source: cpuPolicyDoc}
	reserved, count, evidence, err := reservedCPUs(k)
	f.Evidence = append([]check.Evidence{from}, evidence...)
	place := where(evidence[0])
	switch {
	case err != nil:
		f.Status, f.Got = check.Fail, err.Error()
		f.Why, f.Next = "the kubelet does not start with a value that it cannot read", "correct it "+place
	case reserved.Len() > 0:
		f.Got = "CPUs " + reserved.String()
		cpus := r.Facts.CPUs()
		if cpus.Online == nil {
			f.Status, f.Got, f.Why = check.Unknown, "", "whether CPUs "+reserved.String()+" are online is not known: "+cpus.Unknown["online"]
			break
		}
		online, err := facts.ParseCPUSet(*cpus.Online)
		if off := reserved.Minus(online); err == nil && off.Len() > 0 {
			f.Status, f.Want, f.Got = check.Fail, "reserved CPUs that are online", "CPUs "+off.String()+" of reservedSystemCPUs are not online"
			f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/devices/system/cpu/online", Value: *cpus.Online})
			f.Why, f.Next = "the kubelet does not start: its reserved CPUs must all be there", "take "+off.String()+" out of reservedSystemCPUs "+place
		}
	case count > 0:
		f.Got = fmt.Sprintf("%d CPUs, those of the lowest cores", count)
	default:
		f.Status, f.Got = check.Fail, "none: neither reservedSystemCPUs nor cpu of kubeReserved and systemReserved"
		f.Why = "the kubelet does not start: its static policy needs CPUs for the system and itself"
		f.Next = "set reservedSystemCPUs, whole cores of each node, " + where(from)
	}
	return f
}

// reservedCPUs gives the CPUs that are named, or how many are asked for.
func reservedCPUs(k *facts.Kubelet) (set facts.CPUSet, count int, evidence []check.Evidence, err error) {
	list, e := setting(k, "reservedSystemCPUs")
	if list != "" {
		set, err = facts.ParseCPUSet(list)
		if err != nil {
			err = fmt.Errorf("reservedSystemCPUs: %w", err)
		}
		return set, set.Len(), []check.Evidence{e}, err
	}
	var milli int64
	for _, name := range []string{"kubeReserved.cpu", "systemReserved.cpu"} {
		v, e := setting(k, name)
		evidence = append(evidence, e)
		if v == "" {
			continue
		}
		m, err := facts.ParseQuantity(v)
		if err != nil {
			return set, 0, evidence, fmt.Errorf("%s: %w", name, err)
		}
		milli += m
	}
	return set, int((max(milli, 0) + 999) / 1000), evidence, nil
}

var kubeletIsolated = &check.Check{
	ID: "kubelet.isolated", Title: "No pod that shares CPUs is placed on isolated ones", Severity: check.Medium,
	Doc: `The kubelet's CPU manager does not look at isolcpus=. With the static policy it writes the CPUs that pods share into their cpusets, and
isolated ones are among them. The kernel does not balance load on these: threads of such a pod pile up on the first CPU that they
are put on while the others idle, and disturb what the isolation was made for.

The shared CPUs are what cpu_manager_state lists (root reads it); else all that are online, without the reserved ones where
cpuManagerPolicyOptions has strict-cpu-reservation: "true". Isolated is what the kernel says in /sys/devices/system/cpu/isolated.

With cpuManagerPolicy: none the kubelet writes no CPUs, and pods stay off isolated ones as every process does; it is not judged.

By hand, one of:

    take isolcpus= off the command line: containers with whole CPUs get them alone anyway
    reservedSystemCPUs: "…all isolated CPUs among them…" with cpuManagerPolicyOptions: {strict-cpu-reservation: "true"}

The second keeps pods off the isolated CPUs; they are then for programs outside Kubernetes. For quiet CPUs within a pod, use the static
policy alone, with irqbalance or the container runtime keeping interrupts away.

Often copied and wrong: isolcpus= with the list that Kubernetes is to give to latency-critical pods.`,
	Refs: []string{"https://github.com/kubernetes/kubernetes/issues/87532", cpuPolicyDoc, "https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/cpumanager/policy_static.go", paramsDoc},
	Run:  runKubeletIsolated,
}

func runKubeletIsolated(_ context.Context, r *check.Run) error {
	k := kubeletOf(r)
	if k == nil {
		return nil
	}
	cpus := r.Facts.CPUs()
	policy, from := setting(k, "cpuManagerPolicy")
	skip := func(s check.Status, why string, e ...check.Evidence) error {
		r.Report(check.Finding{Status: s, Why: why, Evidence: e})
		return nil
	}
	switch {
	case policy != "static":
		return skip(check.Skip, "cpuManagerPolicy is "+policy+": the kubelet places no pod on certain CPUs", from)
	case cpus.Isolated == nil:
		return skip(check.Unknown, "which CPUs are isolated is not known: "+cpus.Unknown["isolated"])
	case *cpus.Isolated == "":
		return skip(check.Skip, "no CPU is isolated", check.Evidence{Source: "/sys/devices/system/cpu/isolated", Value: "none"})
	}
	isolated, err := facts.ParseCPUSet(*cpus.Isolated)
	if err != nil {
		return skip(check.Unknown, err.Error())
	}
	shared, evidence, why := sharedCPUs(r, k)
	if why != "" {
		return skip(check.Unknown, "which CPUs pods share is not known: "+why)
	}
	f := check.Finding{Status: check.Pass, Want: "no isolated CPU among those that pods share", Source: "kubernetes issue 87532; kernel/sched/isolation.c",
		Got:      "pods share CPUs " + orNone(shared.String()),
		Evidence: append(evidence, check.Evidence{Source: "/sys/devices/system/cpu/isolated", Value: *cpus.Isolated})}
	if both := shared.And(isolated); both.Len() > 0 {
		f.Status, f.Got = check.Fail, "pods share CPUs "+shared.String()+", of which "+both.String()+" are isolated"
		f.Why = "the kernel does not balance load on isolated CPUs: threads of pods pile up there"
		f.Next = "take isolcpus= off the command line, or put " + both.String() + " into reservedSystemCPUs with strict-cpu-reservation, then drain the node and restart the kubelet without cpu_manager_state"
	}
	r.Report(f)
	return nil
}

// sharedCPUs are those of pods that own none.
func sharedCPUs(r *check.Run, k *facts.Kubelet) (set facts.CPUSet, evidence []check.Evidence, why string) {
	if s := k.CPUState; s != nil && s.Shared != nil && *s.Policy == "static" {
		set, _ = facts.ParseCPUSet(*s.Shared)
		return set, []check.Evidence{{Source: s.Source, Value: "defaultCpuSet: " + *s.Shared}}, ""
	}
	online := r.Facts.CPUs().Online
	if online == nil {
		return set, nil, r.Facts.CPUs().Unknown["online"]
	}
	set, err := facts.ParseCPUSet(*online)
	if err != nil {
		return set, nil, err.Error()
	}
	evidence = []check.Evidence{{Source: "/sys/devices/system/cpu/online", Value: *online}}
	strict, from := setting(k, "cpuManagerPolicyOptions.strict-cpu-reservation")
	if evidence = append(evidence, from); strings.ToLower(strict) != "true" {
		return set, evidence, ""
	}
	reserved, count, more, err := reservedCPUs(k)
	switch evidence = append(evidence, more...); {
	case err != nil:
		return set, nil, err.Error()
	case reserved.Len() == 0 && count > 0:
		return set, nil, "the kubelet chooses its reserved CPUs by itself, and " + facts.KubeletRootDir + "/cpu_manager_state, which lists the others, is not known"
	}
	return set.Minus(reserved), evidence, ""
}
