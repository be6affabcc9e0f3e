// SPDX-License-Identifier: Apache-2.0

package facts

// NodeCPUs is one NUMA node's share.
type NodeCPUs struct {
	Node  int    `json:"node"`
	CPUs  string `json:"cpus"`   // CPU list, "" for a memory-only node
	MemKB *int64 `json:"mem_kb"` // MemTotal of the node's meminfo
}

// CPUs is the processors as the kernel numbers them; lists read "0-3,8".
type CPUs struct {
	Possible *string    `json:"possible"`
	Present  *string    `json:"present"`
	Online   *string    `json:"online"`
	Offline  *string    `json:"offline"`
	Isolated *string    `json:"isolated"`  // /sys/devices/system/cpu/isolated: the live truth, not the request
	NohzFull *string    `json:"nohz_full"` // likewise; "(null)" in the file is ""
	Nodes    []NodeCPUs `json:"nodes"`
	Unknown  Unknown    `json:"unknown,omitempty"`
}

// CPUs gives the host's processors.
func (f *Facts) CPUs() *CPUs { return f.cpus.get(f, decodeCPUs) }

func decodeCPUs(f *Facts) *CPUs { panic("not written yet") }
