// SPDX-License-Identifier: Apache-2.0

package profile

// KubeletVal is the wanted configuration of the kubelet. What must hold for it
// to start at all needs no value.
type KubeletVal struct {
	TopologyPolicy Val[[]string] `yaml:"topology_policy" enum:"none,best-effort,restricted,single-numa-node" doc:"acceptable topologyManagerPolicy, the preferred one first"`
	TopologyScope  Val[string]   `yaml:"topology_scope" enum:"container,pod" doc:"topologyManagerScope: each container by itself, or all of a pod together"`
	CPUPolicy      Val[string]   `yaml:"cpu_policy" enum:"none,static" doc:"cpuManagerPolicy"`
	MemoryPolicy   Val[string]   `yaml:"memory_policy" enum:"None,Static" doc:"memoryManagerPolicy"`
}
