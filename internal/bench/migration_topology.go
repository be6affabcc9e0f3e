// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	nodeDir = "sys/devices/system/node"
	cpuDir  = "sys/devices/system/cpu"
)

// parseList reads a list of the kernel, "0-3,8"; CPUs and nodes have numbers
// below 8192 (NR_CPUS).
func parseList(s string) (out []int, err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err := strconv.ParseUint(from, 10, 13)
		b := a
		if err == nil && ranged {
			b, err = strconv.ParseUint(to, 10, 13)
		}
		if err != nil || b < a {
			return nil, fmt.Errorf("%.40q is not a list of numbers", part)
		}
		for i := a; i <= b; i++ {
			out = append(out, int(i))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func readList(root fs.FS, p string) ([]int, error) {
	b, err := fs.ReadFile(root, p)
	if err != nil {
		return nil, err
	}
	return parseList(string(b))
}

// memNode is a node with memory.
type memNode struct {
	id        int
	cpus      []int
	free, all int64 // bytes
}

// memNodes lists the nodes with memory that this process may use.
func memNodes(root fs.FS) ([]memNode, error) {
	ids, err := readList(root, nodeDir+"/has_memory")
	if err != nil {
		if _, none := fs.Stat(root, nodeDir); none != nil { // a kernel without NUMA has one, without a name
			return nil, fmt.Errorf("this kernel shows no memory nodes: %w", err)
		}
		return nil, fmt.Errorf("cannot list the memory nodes: %w", err)
	}
	var out []memNode
	for _, id := range ids {
		n := memNode{id: id}
		dir := fmt.Sprintf("%s/node%d", nodeDir, id)
		if n.cpus, err = readList(root, dir+"/cpulist"); err != nil {
			return nil, fmt.Errorf("cannot read the CPUs of node %d: %w", id, err)
		}
		b, err := fs.ReadFile(root, dir+"/meminfo")
		if err != nil {
			return nil, fmt.Errorf("cannot read the memory of node %d: %w", id, err)
		}
		n.free, n.all = nodeMemory(b)
		out = append(out, n)
	}
	return out, nil
}

// nodeMemory reads "Node 0 MemFree:   123 kB" and MemTotal.
func nodeMemory(b []byte) (free, all int64) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) != 5 {
			continue
		}
		kb, err := strconv.ParseInt(f[3], 10, 53)
		if err != nil || kb < 0 {
			continue
		}
		switch f[2] {
		case "MemFree:":
			free = kb << 10
		case "MemTotal:":
			all = kb << 10
		}
	}
	return free, all
}

// allowed is what a process may use: of /proc/self/status the line name, such
// as "Mems_allowed_list".
func allowed(root fs.FS, name string) ([]int, error) {
	b, err := fs.ReadFile(root, "proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("cannot tell what this process may use: %w", err)
	}
	for line := range bytes.Lines(b) {
		if list, ok := strings.CutPrefix(string(line), name+":"); ok {
			return parseList(list)
		}
	}
	return nil, fmt.Errorf("/proc/self/status has no %s", name)
}

// core is a CPU with what it shares.
type core struct {
	cpu     int
	l3      string // the CPUs that share its last cache
	sibling bool   // it shares a core with a CPU before it
}

// coresOf tells of these CPUs what they share.
func coresOf(root fs.FS, cpus []int) (out []core) {
	for _, cpu := range cpus {
		c := core{cpu: cpu}
		dir := fmt.Sprintf("%s/cpu%d", cpuDir, cpu)
		for _, p := range []string{"cache/index3/shared_cpu_list", "topology/package_cpus_list", "topology/core_siblings_list"} {
			if b, err := fs.ReadFile(root, path.Join(dir, p)); err == nil {
				c.l3 = strings.TrimSpace(string(b))
				break
			}
		}
		if list, err := readList(root, path.Join(dir, "topology/thread_siblings_list")); err == nil {
			c.sibling = len(list) > 0 && list[0] < cpu && slices.Contains(cpus, list[0])
		}
		out = append(out, c)
	}
	return out
}

// spread gives the CPUs for workers, the best first: in turn one of each last
// cache, and second threads of a core after all first ones.
func spread(list []core) (out []int) {
	var domains []string
	by := map[string][]core{}
	for _, c := range list {
		if by[c.l3] == nil {
			domains = append(domains, c.l3)
		}
		by[c.l3] = append(by[c.l3], c)
	}
	for _, second := range []bool{false, true} {
		for i, more := 0, true; more; i++ {
			more = false
			for _, d := range domains {
				n := 0
				for _, c := range by[d] {
					if c.sibling != second {
						continue
					}
					if n == i {
						out, more = append(out, c.cpu), true
						break
					}
					n++
				}
			}
		}
	}
	return out
}

// pin keeps the calling thread on one CPU.
func pin(cpu int) error {
	set := unix.NewCPUSet(cpu + 1)
	set.Set(cpu)
	if err := unix.SchedSetaffinityDynamic(0, set); err != nil {
		return fmt.Errorf("cannot pin a thread to CPU %d: %w", cpu, err)
	}
	return nil
}

// cpuModel is the CPU's name.
func cpuModel(root fs.FS) string {
	b, err := fs.ReadFile(root, "proc/cpuinfo")
	if err != nil {
		return ""
	}
	parts := map[string]string{}
	for line := range bytes.Lines(b) {
		name, value, ok := strings.Cut(string(line), ":")
		if name = strings.TrimSpace(name); ok && parts[name] == "" {
			parts[name] = strings.TrimSpace(value)
		}
	}
	switch {
	case parts["model name"] != "":
		return parts["model name"]
	case parts["CPU implementer"] != "":
		return "implementer " + parts["CPU implementer"] + " part " + parts["CPU part"]
	}
	return ""
}

// governors of all CPUs, "" where the kernel does not choose frequencies.
func governors(root fs.FS) string {
	all, _ := fs.Glob(root, cpuDir+"/cpufreq/policy*/scaling_governor")
	var out []string
	for _, p := range all {
		if b, err := fs.ReadFile(root, p); err == nil {
			out = append(out, strings.TrimSpace(string(b)))
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

func firstLine(root fs.FS, p string) string {
	b, err := fs.ReadFile(root, p)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

// live is the running host's files.
func live() fs.FS { return os.DirFS("/") }
