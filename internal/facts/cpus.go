// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"

	"github.com/hostcheck/hostcheck/internal/host"
)

// NodeCPUs is one NUMA node's share.
type NodeCPUs struct {
	Node    int     `json:"node"`
	CPUs    *string `json:"cpus"`   // CPU list, "" for a memory-only node
	MemKB   *int64  `json:"mem_kb"` // MemTotal of the node's meminfo
	Unknown Unknown `json:"unknown,omitempty"`
}

// CPUs is the processors as the kernel numbers them; lists read "0-3,8".
type CPUs struct {
	Possible *string    `json:"possible"`
	Present  *string    `json:"present"`
	Online   *string    `json:"online"`
	Offline  *string    `json:"offline"`
	Isolated *string    `json:"isolated"`  // /sys/devices/system/cpu/isolated: the live truth, not the request
	NohzFull *string    `json:"nohz_full"` // likewise; "(null)" in the file is ""
	Nodes    []NodeCPUs `json:"nodes"`     // in order; one node 0 on a kernel without NUMA
	Unknown  Unknown    `json:"unknown,omitempty"`
}

// Node gives the entry of a node, or nil.
func (c *CPUs) Node(n int) *NodeCPUs {
	for i := range c.Nodes {
		if c.Nodes[i].Node == n {
			return &c.Nodes[i]
		}
	}
	return nil
}

// CPUs gives the host's processors.
func (f *Facts) CPUs() *CPUs { return f.cpus.get(f, decodeCPUs) }

func decodeCPUs(f *Facts) *CPUs {
	h := f.host
	c := new(CPUs)
	lists := [...]struct {
		name string
		to   **string
	}{
		{"possible", &c.Possible}, {"present", &c.Present}, {"online", &c.Online}, {"offline", &c.Offline},
		{"isolated", &c.Isolated}, {"nohz_full", &c.NohzFull},
	}
	nodes, single, nodeErr := nodeNumbers(h)
	var ops []host.Op
	for _, l := range lists {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(pathCPU, l.name)})
	}
	if !single {
		for _, n := range nodes {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: NodePath(n) + "/cpulist"}, host.Op{Kind: host.ReadFile, Path: NodePath(n) + "/meminfo"})
		}
	}
	h.Prefetch(ops)

	for _, l := range lists {
		p := path.Join(pathCPU, l.name)
		list, err := readCPUList(h, p)
		switch {
		case err == nil:
			*l.to = &list
		case l.name == "nohz_full" && kernelLacks(h, err) && c.Isolated != nil:
			// both files are as old (4.2); this one needs CONFIG_NO_HZ_FULL
			c.NohzFull = new("")
		default:
			c.Unknown.say(l.name, whyNot(h, err))
		}
	}
	switch {
	case nodeErr != nil:
		c.Unknown.say("nodes", whyNot(h, nodeErr))
	case single:
		c.Nodes = []NodeCPUs{wholeMachine(h, c)}
	default:
		c.Nodes = make([]NodeCPUs, len(nodes))
		for i, n := range nodes {
			c.Nodes[i] = readNode(h, n)
		}
	}
	return c
}

func readCPUList(h *host.Host, p string) (string, error) {
	text, err := h.Text(p)
	if err != nil {
		return "", err
	}
	set, err := ParseCPUSet(text)
	if err != nil {
		return "", &host.Error{Op: "read", Path: p, Err: err}
	}
	return set.String(), nil
}

// wholeMachine is node 0 of a kernel without NUMA.
func wholeMachine(h *host.Host, c *CPUs) (n NodeCPUs) {
	if n.CPUs = c.Online; n.CPUs == nil {
		n.Unknown.say("cpus", c.Unknown["online"])
	}
	n.MemKB = memTotal(h, pathMeminfo, &n.Unknown)
	return n
}

func readNode(h *host.Host, node int) NodeCPUs {
	n := NodeCPUs{Node: node}
	if list, err := nodeCPUs(h, node); err != nil {
		n.Unknown.say("cpus", whyNot(h, err))
	} else {
		n.CPUs = &list
	}
	n.MemKB = memTotal(h, NodePath(node)+"/meminfo", &n.Unknown)
	return n
}

// nodeCPUs reads the node's cpulist, or where a tree lacks it the mask, or the
// links to the node's CPUs.
func nodeCPUs(h *host.Host, node int) (string, error) {
	dir := NodePath(node)
	list, err := readCPUList(h, dir+"/cpulist")
	if !host.Absent(err) {
		return list, err
	}
	if text, e := h.Text(dir + "/cpumap"); e == nil {
		set, e := parseCPUMap(text)
		if e != nil {
			return "", &host.Error{Op: "read", Path: dir + "/cpumap", Err: e}
		}
		return set.String(), nil
	}
	names, e := h.List(dir)
	if e != nil {
		return "", err
	}
	var set CPUSet
	for _, name := range names {
		if n, ok := numbered(name, "cpu"); ok {
			set.Add(n)
		}
	}
	if set.Len() == 0 { // no links prove nothing in a tree
		return "", err
	}
	return set.String(), nil
}

func memTotal(h *host.Host, p string, u *Unknown) *int64 {
	b, err := h.Read(p)
	if err != nil {
		u.say("mem_kb", whyNot(h, err))
		return nil
	}
	n, ok := parseMeminfo(string(b))["MemTotal"]
	if !ok {
		u.say("mem_kb", fmt.Sprintf("%s: has no MemTotal", p))
		return nil
	}
	return &n
}
