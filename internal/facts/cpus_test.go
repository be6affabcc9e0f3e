// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCPUs(t *testing.T) {
	const cpu = "sys/devices/system/cpu/"
	f := treeOf(t, "whole: /sys /proc\n-- "+cpu+"possible --\n0-7\n-- "+cpu+"present --\n0-3\n-- "+cpu+"online --\n0-3\n-- "+cpu+"offline --\n4-7\n"+
		"-- "+cpu+"isolated --\n\n-- "+cpu+"nohz_full --\n   (null)\n"+
		"-- "+node0+"/cpulist --\n0,2\n-- "+node0+"/meminfo --\nNode 0 MemTotal:  100 kB\n"+
		"-- "+node1+"/cpumap --\n00000000,0000000a\n-- "+node1+"/meminfo [errno EACCES] --\n"+
		"-- sys/devices/system/node/node2/cpu5/online --\n1\n-- sys/devices/system/node/node2/meminfo --\nnothing\n"+
		"-- sys/devices/system/node/node252/cpulist --\n\n-- sys/devices/system/node/node252/meminfo --\nNode 252 MemTotal: 15728640 kB\n"+
		"-- sys/devices/system/node/nodes --\nno node\n")
	c := f.CPUs()
	for field, got := range map[string]*string{"0-7": c.Possible, "0-3": c.Present, "4-7": c.Offline} {
		if got == nil || *got != field {
			t.Errorf("got %v, want %s", show(got), field)
		}
	}
	if show(c.Isolated) != "" || show(c.NohzFull) != "" {
		t.Errorf("isolated %v, nohz_full %v; want none", show(c.Isolated), show(c.NohzFull))
	}
	var got []string
	for _, n := range c.Nodes {
		got = append(got, fmt.Sprintf("%d %v %v", n.Node, show(n.CPUs), show(n.MemKB)))
		if (n.MemKB == nil) != (n.Unknown["mem_kb"] != "") {
			t.Errorf("node %d: mem_kb %v with the reason %q", n.Node, show(n.MemKB), n.Unknown["mem_kb"])
		}
	}
	if d := cmp.Diff([]string{"0 0,2 100", "1 1,3 <nil>", "2 5 <nil>", "252  15728640"}, got); d != "" {
		t.Error(d)
	}
	if c.Node(252) == nil || c.Node(3) != nil {
		t.Error("Node finds what is not there, or does not find what is")
	}
}

func TestCPUsNohzFullForms(t *testing.T) {
	const isolated = "-- sys/devices/system/cpu/isolated --\n\n"
	nohz := func(s string) string { return "-- sys/devices/system/cpu/nohz_full " + s }
	for _, row := range []struct {
		name, tree string
		want       any
	}{
		{"list", nohz("--\n2-7\n"), "2-7"},
		{"empty", nohz("--\n\n"), ""},
		{"null", nohz("--\n (null)\n"), ""},
		{"not built in", "whole: /sys\n" + isolated, ""},
		{"older than both files", "whole: /sys\n-- sys/devices/system/cpu/online --\n0\n", "<nil>"},
		{"not captured", isolated, "<nil>"},
		{"garbage", nohz("--\nall of them\n"), "<nil>"},
		{"unreadable", isolated + nohz("[errno EACCES] --\n"), "<nil>"},
	} {
		c := treeOf(t, row.tree).CPUs()
		if got := show(c.NohzFull); got != row.want {
			t.Errorf("%s: nohz_full is %v, want %v", row.name, got, row.want)
		}
		if (c.NohzFull == nil) != (c.Unknown["nohz_full"] != "") {
			t.Errorf("%s: the reason is %q", row.name, c.Unknown["nohz_full"])
		}
	}
}

func TestCPUsWithoutNUMA(t *testing.T) {
	f := treeOf(t, "whole: /sys /proc\n-- sys/devices/system/cpu/online --\n0-1\n-- proc/meminfo --\nMemTotal: 4096 kB\n")
	c, n := f.CPUs(), f.NUMA()
	if len(c.Nodes) != 1 || show(c.Nodes[0].CPUs) != "0-1" || show(c.Nodes[0].MemKB) != int64(4096) {
		t.Errorf("nodes %+v", c.Nodes)
	}
	if d := cmp.Diff(&NUMA{Nodes: []int{0}, WithCPUs: []int{0}, WithMemory: []int{0}, Distances: [][]int{{10}}, Packages: []int{0}}, n); d != "" {
		t.Error(d)
	}
}

func TestNUMA(t *testing.T) {
	const sys = "sys/devices/system/node/"
	two := "-- " + node0 + "/distance --\n10 21\n-- " + node1 + "/distance --\n21 10\n"
	lists := "-- " + node0 + "/cpulist --\n0-3\n-- " + node1 + "/cpulist --\n\n-- " + node0 + "/meminfo --\nNode 0 MemTotal: 1 kB\n-- " + node1 + "/meminfo --\nNode 1 MemTotal: 1 kB\n"
	far := [][]int{{10, 21}, {21, 10}}
	for _, row := range []struct {
		name, tree string
		want       NUMA
		unknown    string
	}{
		{"masks", two + "-- " + sys + "has_cpu --\n0\n-- " + sys + "has_normal_memory --\n0-1\n-- " + sys + "has_memory --\n0\n", NUMA{WithCPUs: []int{0}, WithMemory: []int{0, 1}, Distances: far}, ""},
		{"has_memory alone", two + "-- " + sys + "has_cpu --\n0\n-- " + sys + "has_memory --\n1\n", NUMA{WithCPUs: []int{0}, WithMemory: []int{1}, Distances: far}, ""},
		{"an empty has_cpu", two + lists + "-- " + sys + "has_cpu --\n\n-- " + sys + "has_memory --\n0-1\n", NUMA{WithCPUs: []int{0}, WithMemory: []int{0, 1}, Distances: far}, ""},
		{"no masks", two + lists, NUMA{WithCPUs: []int{0}, WithMemory: []int{0, 1}, Distances: far}, ""},
		{"unreadable mask", two + lists + "-- " + sys + "has_cpu [errno EACCES] --\n", NUMA{WithMemory: []int{0, 1}, Distances: far}, "with_cpus"},
		{"no masks and unreadable lists", two, NUMA{Distances: far}, "with_cpus with_memory"},
		{"short row", two + lists + "-- " + node1 + "/distance --\n21\n", NUMA{WithCPUs: []int{0}, WithMemory: []int{0, 1}}, "distances"},
		{"text in a row", two + lists + "-- " + node1 + "/distance --\n21 near\n", NUMA{WithCPUs: []int{0}, WithMemory: []int{0, 1}}, "distances"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := treeOf(t, "whole: /sys\n"+row.tree).NUMA()
			n.Packages, n.MemoryOnly = nil, nil // TestNUMAPlaces
			if delete(n.Unknown, "packages"); len(n.Unknown) == 0 {
				n.Unknown = nil
			}
			for field := range strings.FieldsSeq(row.unknown) {
				if n.Unknown[field] == "" {
					t.Errorf("no reason why %s is not known", field)
				}
			}
			if row.unknown == "" && n.Unknown != nil {
				t.Errorf("unknown: %v", n.Unknown)
			}
			n.Unknown = nil
			row.want.Nodes = []int{0, 1}
			if d := cmp.Diff(&row.want, n); d != "" {
				t.Error(d)
			}
		})
	}
	if n := treeOf(t, "-- etc/hostname --\nx\n").NUMA(); n.Nodes != nil || n.Usable() != nil || n.Unknown["nodes"] == "" {
		t.Errorf("facts from nothing: %+v", n)
	}
}

func TestParseCPUMap(t *testing.T) {
	for text, want := range map[string]string{"ff": "0-7", "00000000,000000ff\n": "0-7", "00000001,00000000": "32", "8000,00000000,00000001": "0,79", "0": ""} {
		s, err := parseCPUMap(text)
		if err != nil || s.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, s, err, want)
		}
	}
	for _, text := range []string{"", "x", "1ffffffff", "ff,,ff", strings.Repeat("0,", MaxCPUs) + "0"} {
		if s, err := parseCPUMap(text); err == nil {
			t.Errorf("%.40q is %q, want an error", text, s)
		}
	}
}

func FuzzParseCPUMap(f *testing.F) {
	f.Add("00000000,0000ff00")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseCPUMap(text)
		if err != nil && s.Len() != 0 {
			t.Errorf("%q: an error and %d CPUs", text, s.Len())
		}
		if back, err := ParseCPUSet(s.String()); err != nil || !back.Equal(s) {
			t.Errorf("%q: %q does not come back", text, s)
		}
	})
}

func FuzzParseCPUSet(f *testing.F) {
	f.Add("0-3,8")
	f.Add(" (null)\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseCPUSet(text)
		if err != nil {
			return
		}
		if back, err := ParseCPUSet(s.String()); err != nil || !back.Equal(s) || back.Len() != len(s.List()) {
			t.Errorf("%q: %q does not come back", text, s)
		}
	})
}

func FuzzParseDistances(f *testing.F) {
	f.Add("10 21 80")
	f.Fuzz(func(t *testing.T, text string) {
		row, err := parseDistances(text)
		if err == nil && len(row) != len(strings.Fields(text)) {
			t.Errorf("%q gives %v", text, row)
		}
	})
}
