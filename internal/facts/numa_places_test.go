// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"testing"
)

func TestNUMAPlaces(t *testing.T) {
	const package0 = "sys/devices/system/cpu/cpu4/topology/physical_package_id"
	tree := "whole: /sys\n-- sys/devices/system/node/has_cpu --\n0\n-- sys/devices/system/node/has_normal_memory --\n0\n" +
		"-- " + node0 + "/cpulist --\n4-7\n-- " + node0 + "/meminfo --\nNode 0 MemTotal: 900 kB\n" +
		"-- " + node1 + "/cpulist --\n\n-- " + node1 + "/meminfo --\n" +
		"Node 1 MemTotal: 800 kB\nNode 1 FilePages: 70 kB\nNode 1 Shmem: 30 kB\nNode 1 Slab: 4 kB\nNode 1 KernelStack: 2 kB\nNode 1 PageTables: 1 kB\n"
	n := treeOf(t, tree+"-- "+package0+" --\n1\n").NUMA()
	if !slices.Equal(n.Packages, []int{1, -1}) || len(n.MemoryOnly) != 1 {
		t.Fatalf("%+v", n)
	}
	if m := n.MemoryOnly[0]; m.Node != 1 || show(m.MemKB) != int64(800) || *m.Normal || show(m.KernelKB) != int64(7) || show(m.CacheKB) != int64(40) || m.Unknown != nil {
		t.Errorf("%+v", m)
	}
	for name, body := range map[string]string{"a guest's": "-1", "no": "one", "an absurd": "99999"} {
		if n := treeOf(t, tree+"-- "+package0+" --\n"+body+"\n").NUMA(); n.Packages != nil || n.Unknown["packages"] == "" {
			t.Errorf("%s number: %v, %q", name, n.Packages, n.Unknown["packages"])
		}
	}
	m := treeOf(t, tree+"-- "+node1+"/meminfo [errno EIO] --\n").NUMA().MemoryOnly[0]
	for _, field := range []string{"mem_kb", "kernel_kb", "cache_kb"} {
		if m.Unknown[field] == "" {
			t.Errorf("no reason why %s is not known", field)
		}
	}
}
