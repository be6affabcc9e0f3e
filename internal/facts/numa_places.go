// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"

	"github.com/hostcheck/hostcheck/internal/host"
)

// MemoryNode is a node without CPUs: the memory of a GPU, CXL, high-bandwidth
// memory, or a placeholder without any.
type MemoryNode struct {
	Node     int     `json:"node"`
	MemKB    *int64  `json:"mem_kb"`    // 0: a placeholder
	Normal   *bool   `json:"normal"`    // the kernel may put memory of its own there (has_normal_memory)
	KernelKB *int64  `json:"kernel_kb"` // Slab, KernelStack and PageTables of its meminfo
	CacheKB  *int64  `json:"cache_kb"`  // FilePages without Shmem
	Unknown  Unknown `json:"unknown,omitempty"`
}

// readMemoryNodes describes the nodes without CPUs.
func (n *NUMA) readMemoryNodes(f *Facts) {
	if n.WithCPUs == nil {
		return
	}
	for _, c := range f.CPUs().Nodes {
		if slices.Contains(n.WithCPUs, c.Node) {
			continue
		}
		m := MemoryNode{Node: c.Node, MemKB: c.MemKB}
		if c.MemKB == nil {
			m.Unknown.say("mem_kb", c.Unknown["mem_kb"])
		}
		if n.WithMemory == nil {
			m.Unknown.say("normal", n.Unknown["with_memory"])
		} else {
			m.Normal = new(slices.Contains(n.WithMemory, c.Node))
		}
		m.readUse(f.host)
		n.MemoryOnly = append(n.MemoryOnly, m)
	}
}

// Meminfo is the file that tells what a node's memory is used for.
func (m *MemoryNode) Meminfo() string { return NodePath(m.Node) + "/meminfo" }

func (m *MemoryNode) readUse(h *host.Host) {
	unknown := func(why string) {
		m.Unknown.say("kernel_kb", why)
		m.Unknown.say("cache_kb", why)
	}
	b, err := h.Read(m.Meminfo())
	if err != nil {
		unknown(whyNot(h, err))
		return
	}
	info := parseMeminfo(string(b))
	for _, name := range []string{"Slab", "KernelStack", "PageTables", "FilePages", "Shmem"} {
		if _, ok := info[name]; !ok {
			unknown(fmt.Sprintf("%s: has no %s", m.Meminfo(), name))
			return
		}
	}
	m.KernelKB = new(info["Slab"] + info["KernelStack"] + info["PageTables"])
	m.CacheKB = new(max(0, info["FilePages"]-info["Shmem"]))
}

// readPackages finds the socket of each node with CPUs, by its first CPU.
func (n *NUMA) readPackages(f *Facts) {
	paths := make([]string, len(n.Nodes))
	var ops []host.Op
	for i, node := range n.Nodes {
		c := f.CPUs().Node(node)
		if c == nil || c.CPUs == nil {
			n.Unknown.say("packages", fmt.Sprintf("the CPUs of node %d are not known", node))
			return
		}
		if set, err := ParseCPUSet(*c.CPUs); err == nil && set.Len() > 0 {
			paths[i] = fmt.Sprintf("%s/cpu%d/topology/physical_package_id", pathCPU, set.List()[0])
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: paths[i]})
		}
	}
	f.host.Prefetch(ops)
	packages := make([]int, len(n.Nodes))
	for i, p := range paths {
		if packages[i] = -1; p == "" {
			continue
		}
		v, err := f.host.Int(p)
		if err != nil {
			n.Unknown.say("packages", whyNot(f.host, err))
			return
		}
		if v < 0 || v >= MaxCPUs { // some guests and boards say -1
			n.Unknown.say("packages", fmt.Sprintf("%s: %d, which is no socket", p, v))
			return
		}
		packages[i] = int(v)
	}
	n.Packages = packages
}
