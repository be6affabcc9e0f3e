// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// HugepagesPath holds the global pools, a directory per page size.
const HugepagesPath = "/sys/kernel/mm/hugepages"

const (
	pathCPU     = "/sys/devices/system/cpu"
	pathNode    = "/sys/devices/system/node"
	pathMeminfo = "/proc/meminfo"
)

// NodePath is the directory of a NUMA node.
func NodePath(n int) string { return fmt.Sprintf("%s/node%d", pathNode, n) }

// maxNodes bounds node numbers that are believed (CONFIG_NODES_SHIFT is at
// most 10).
const maxNodes = 1024

// nodeNumbers lists the nodes that have a directory, in order: the kernel
// makes one for each online node. A kernel without NUMA has no directory at
// all, and single is true: the whole machine is then node 0.
func nodeNumbers(h *host.Host) (nodes []int, single bool, err error) {
	names, err := h.List(pathNode)
	if err != nil {
		if kernelLacks(h, err) {
			return []int{0}, true, nil
		}
		return nil, false, err
	}
	nodes = []int{}
	for _, name := range names {
		if n, ok := numbered(name, "node"); ok && n < maxNodes {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	return nodes, false, nil
}

// numbered reads names such as "node12".
func numbered(name, prefix string) (n int, ok bool) {
	s, ok := strings.CutPrefix(name, prefix)
	if !ok || s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// parseCPUMap reads a mask as the kernel prints it: hexadecimal words of 32
// bits with commas between them, the highest first ("000000ff,ffffffff").
func parseCPUMap(text string) (s CPUSet, err error) {
	words := strings.Split(strings.TrimSpace(text), ",")
	if len(words) > MaxCPUs/32 {
		return CPUSet{}, fmt.Errorf("not a CPU mask: %d words", len(words))
	}
	for i, w := range words {
		v, err := strconv.ParseUint(w, 16, 32)
		if err != nil {
			return CPUSet{}, fmt.Errorf("not a CPU mask: %.40q", text)
		}
		base := 32 * (len(words) - 1 - i)
		for bit := range 32 {
			if v&(1<<bit) != 0 {
				s.Add(base + bit)
			}
		}
	}
	return s, nil
}
