// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// NUMA is the memory topology.
type NUMA struct {
	Nodes      []int   `json:"nodes"`       // online nodes
	WithCPUs   []int   `json:"with_cpus"`   // has_cpu, or the nodes' own lists
	WithMemory []int   `json:"with_memory"` // has_normal_memory, or has_memory where that is all there is
	Distances  [][]int `json:"distances"`   // [i][j] in the order of Nodes; ACPI SLIT units, 10 = local
	// Packages is the socket of each node, in the order of Nodes; -1 for a node without CPUs.
	Packages   []int        `json:"packages"`
	MemoryOnly []MemoryNode `json:"memory_only,omitempty"` // nodes without CPUs
	Unknown    Unknown      `json:"unknown,omitempty"`
}

// Usable gives the nodes that have CPUs and memory of the kernel's own: those
// on which pools belong. nil when not known.
func (n *NUMA) Usable() []int {
	if n.WithCPUs == nil || n.WithMemory == nil {
		return nil
	}
	both := []int{}
	for _, node := range n.WithCPUs {
		if slices.Contains(n.WithMemory, node) {
			both = append(both, node)
		}
	}
	return both
}

// NUMA gives the host's memory nodes.
func (f *Facts) NUMA() *NUMA { return f.numa.get(f, decodeNUMA) }

func decodeNUMA(f *Facts) *NUMA {
	h := f.host
	n := new(NUMA)
	nodes, single, err := nodeNumbers(h)
	if err != nil {
		for _, field := range []string{"nodes", "with_cpus", "with_memory", "distances", "packages"} {
			n.Unknown.say(field, whyNot(h, err))
		}
		return n
	}
	n.Nodes = nodes
	if single {
		n.WithCPUs, n.WithMemory, n.Distances = []int{0}, []int{0}, [][]int{{10}}
		n.Packages = []int{0}
		return n
	}
	ops := []host.Op{
		{Kind: host.ReadFile, Path: pathNode + "/has_cpu"},
		{Kind: host.ReadFile, Path: pathNode + "/has_normal_memory"},
	}
	for _, node := range nodes {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: NodePath(node) + "/distance"})
	}
	h.Prefetch(ops)

	if n.WithCPUs, err = nodeList(h, "has_cpu"); unusable(err) {
		n.WithCPUs, err = nodesWhere(f, err, func(c NodeCPUs) (bool, bool) { return c.CPUs != nil && *c.CPUs != "", c.CPUs != nil })
	}
	if err != nil {
		n.Unknown.say("with_cpus", whyNot(h, err))
	}
	if n.WithMemory, err = nodeList(h, "has_normal_memory"); unusable(err) {
		n.WithMemory, err = nodeList(h, "has_memory")
	}
	if unusable(err) {
		n.WithMemory, err = nodesWhere(f, err, func(c NodeCPUs) (bool, bool) { return c.MemKB != nil && *c.MemKB > 0, c.MemKB != nil })
	}
	if err != nil {
		n.Unknown.say("with_memory", whyNot(h, err))
	}
	n.readDistances(h)
	n.readPackages(f)
	n.readMemoryNodes(f)
	return n
}

// errNoNodes is of a mask that no running kernel can have; has_cpu is empty on
// some of 2.6.32.
var errNoNodes = errors.New("empty")

func unusable(err error) bool { return host.Absent(err) || errors.Is(err, errNoNodes) }

// nodeList reads one of the node masks, in which the kernel writes lists.
func nodeList(h *host.Host, name string) ([]int, error) {
	text, err := h.Text(pathNode + "/" + name)
	if err != nil {
		return nil, err
	}
	set, err := ParseCPUSet(text)
	nodes := set.List()
	if err != nil || len(nodes) > 0 && nodes[len(nodes)-1] >= maxNodes {
		return nil, &host.Error{Op: "read", Path: pathNode + "/" + name, Err: errors.New("not a list of nodes")}
	}
	if len(nodes) == 0 {
		return nil, &host.Error{Op: "read", Path: pathNode + "/" + name, Err: errNoNodes}
	}
	return nodes, nil
}

// nodesWhere selects nodes by what their own files say; when one of them is
// not known, the answer is missing, the reason why the list was needed.
func nodesWhere(f *Facts, missing error, is func(NodeCPUs) (yes, known bool)) ([]int, error) {
	nodes := []int{}
	for _, c := range f.CPUs().Nodes {
		yes, known := is(c)
		if !known {
			return nil, missing
		}
		if yes {
			nodes = append(nodes, c.Node)
		}
	}
	return nodes, nil
}

func (n *NUMA) readDistances(h *host.Host) {
	d := make([][]int, len(n.Nodes))
	for i, node := range n.Nodes {
		p := NodePath(node) + "/distance"
		text, err := h.Text(p)
		if err != nil {
			n.Unknown.say("distances", whyNot(h, err))
			return
		}
		row, err := parseDistances(text)
		if err == nil && len(row) != len(n.Nodes) {
			err = fmt.Errorf("%d distances for %d nodes", len(row), len(n.Nodes))
		}
		if err != nil {
			n.Unknown.say("distances", p+": "+err.Error())
			return
		}
		d[i] = row
	}
	n.Distances = d
}

// parseDistances reads a node's row: "10 21".
func parseDistances(text string) ([]int, error) {
	row := []int{}
	for w := range strings.FieldsSeq(text) {
		v, err := strconv.ParseUint(w, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("not a distance: %.20q", w)
		}
		row = append(row, int(v))
	}
	return row, nil
}
