// SPDX-License-Identifier: Apache-2.0

package facts

// NUMA is the memory topology.
type NUMA struct {
	Nodes      []int   `json:"nodes"`       // online nodes
	WithCPUs   []int   `json:"with_cpus"`   // has_cpu
	WithMemory []int   `json:"with_memory"` // has_normal_memory, or has_memory where that is all there is
	Distances  [][]int `json:"distances"`   // [i][j] in the order of Nodes; ACPI SLIT units, 10 = local
	Unknown    Unknown `json:"unknown,omitempty"`
}

// NUMA gives the host's memory nodes.
func (f *Facts) NUMA() *NUMA { return f.numa.get(f, decodeNUMA) }

func decodeNUMA(f *Facts) *NUMA { panic("not written yet") }
