// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// poolText is a pool's directory with the given counts.
func poolText(dir string, counts map[string]string) string {
	s := ""
	for _, name := range []string{"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages", "nr_overcommit_hugepages"} {
		if v, ok := counts[name]; ok {
			s += "-- " + dir + "/" + name + " --\n" + v + "\n"
		}
	}
	return s
}

var (
	full = map[string]string{"nr_hugepages": "8", "free_hugepages": "6", "resv_hugepages": "1", "surplus_hugepages": "2", "nr_overcommit_hugepages": "4"}
	node = map[string]string{"nr_hugepages": "4", "free_hugepages": "3", "surplus_hugepages": "1"}
)

const (
	global2M = "sys/kernel/mm/hugepages/hugepages-2048kB"
	node0    = "sys/devices/system/node/node0"
	node1    = "sys/devices/system/node/node1"
	meminfo  = "-- proc/meminfo --\nMemTotal:       32768000 kB\nHugePages_Total:       8\nHugePages_Free:        6\nHugePages_Rsvd:        1\nHugePages_Surp:        2\nHugepagesize:       2048 kB\nHugetlb:           16384 kB\n"
)

func TestHugepages(t *testing.T) {
	f := treeOf(t, "whole: /sys /proc\n"+meminfo+poolText(global2M, full)+poolText(node0+"/hugepages/hugepages-2048kB", node)+
		poolText(node1+"/hugepages/hugepages-2048kB", node)+poolText(node1+"/hugepages/hugepages-1048576kB", map[string]string{"nr_hugepages": "0", "free_hugepages": "0", "surplus_hugepages": "0"})+
		"-- sys/devices/system/node/node2/cpulist --\n\n"+
		"-- proc/self/mounts --\nh /h hugetlbfs rw 0 0\nx / ext4 rw 0 0\nnone /dev/my\\040pages hugetlbfs rw,pagesize=1024M 0 0\n")
	p := f.Hugepages()
	n := func(v int64) *int64 { return &v }
	want := &Hugepages{
		DefaultKB: n(2048), MemTotalKB: n(32768000), HugetlbKB: n(16384),
		Pools: []NodePool{
			{SizeKB: 2048, Node: 0, Total: n(4), Free: n(3), Surplus: n(1), Dir: "/" + node0 + "/hugepages/hugepages-2048kB"},
			{SizeKB: 2048, Node: 1, Total: n(4), Free: n(3), Surplus: n(1), Dir: "/" + node1 + "/hugepages/hugepages-2048kB"},
			{SizeKB: 1048576, Node: 1, Total: n(0), Free: n(0), Surplus: n(0), Dir: "/" + node1 + "/hugepages/hugepages-1048576kB"},
		},
		Global: []GlobalPool{{SizeKB: 2048, Total: n(8), Free: n(6), Reserved: n(1), Surplus: n(2), Overcommit: n(4), Dir: "/" + global2M}},
		Meminfo: &GlobalPool{SizeKB: 2048, Total: n(8), Free: n(6), Reserved: n(1), Surplus: n(2), Dir: "/proc/meminfo",
			Unknown: Unknown{"overcommit": "/proc/meminfo: does not have it"}},
		Mounts:      []HugeMount{{Path: "/dev/my pages", SizeKB: n(1048576)}, {Path: "/h", SizeKB: n(2048)}},
		MountSource: "/proc/self/mounts",
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int64{2048, 1048576}, p.Sizes()); d != "" {
		t.Error(d)
	}
	if p.Pool(1, 1048576) == nil || p.Pool(0, 1048576) != nil || p.Pool(2, 2048) != nil {
		t.Error("Pool finds what is not there, or does not find what is")
	}
}

// A count that cannot be read, or is none, is unknown and never 0; the others stand.
func TestHugepagesUnreadable(t *testing.T) {
	attrs := []struct{ file, field string }{{"nr_hugepages", "total"}, {"free_hugepages", "free"}, {"surplus_hugepages", "surplus"}}
	for _, bad := range []string{"[errno EACCES] --\n", "[errno EIO] --\n", "--\n\n", "--\nmany\n", "--\n-1\n"} {
		for i, a := range attrs {
			dir := node0 + "/hugepages/hugepages-2048kB"
			p := treeOf(t, "whole: /sys /proc\n"+poolText(dir, node)+"-- "+dir+"/"+a.file+" "+bad).Hugepages()
			if len(p.Pools) != 1 {
				t.Fatalf("%d pools", len(p.Pools))
			}
			pool := p.Pools[0]
			for j, v := range []*int64{pool.Total, pool.Free, pool.Surplus} {
				if (v == nil) != (i == j) {
					t.Errorf("%s %s: %s is %v", a.file, bad, attrs[j].field, show(v))
				}
			}
			if !strings.Contains(pool.Unknown[a.field], a.file) {
				t.Errorf("%s %s: the reason is %q", a.file, bad, pool.Unknown[a.field])
			}
		}
	}
}

func TestHugepagesAbsence(t *testing.T) {
	t.Run("a tree that holds nothing", func(t *testing.T) {
		p := treeOf(t, "-- etc/hostname --\nx\n").Hugepages()
		for _, field := range []string{"default_kb", "pools", "global", "meminfo", "mounts", "mem_total_kb", "hugetlb_kb"} {
			if !strings.Contains(p.Unknown[field], "may not have captured it") {
				t.Errorf("%s: the reason is %q", field, p.Unknown[field])
			}
		}
		if p.Pools != nil || p.Global != nil || p.Mounts != nil || p.DefaultKB != nil {
			t.Errorf("facts from nothing: %+v", p)
		}
		if _, _, ok := p.Total(2048); ok {
			t.Error("a total from nothing")
		}
	})
	t.Run("a kernel without hugetlb", func(t *testing.T) {
		p := treeOf(t, "whole: /sys /proc\n-- proc/meminfo --\nMemTotal: 1024 kB\n-- "+node0+"/cpulist --\n0\n-- proc/self/mounts --\n\n").Hugepages()
		if p.Pools == nil || len(p.Pools) != 0 || p.Global == nil || len(p.Global) != 0 {
			t.Errorf("pools %v, global %v; want none, and that known", p.Pools, p.Global)
		}
		if p.DefaultKB != nil || p.Unknown["default_kb"] == "" || p.Mounts == nil {
			t.Errorf("default %v (%q), mounts %v", show(p.DefaultKB), p.Unknown["default_kb"], p.Mounts)
		}
	})
	t.Run("a kernel without NUMA", func(t *testing.T) {
		p := treeOf(t, "whole: /sys /proc\n"+meminfo+poolText(global2M, full)).Hugepages()
		if len(p.Pools) != 1 || p.Pools[0].Node != 0 || show(p.Pools[0].Total) != int64(8) {
			t.Errorf("pools %+v", p.Pools)
		}
	})
	t.Run("no node at all", func(t *testing.T) {
		p := treeOf(t, "-- sys/devices/system/node/online --\n0\n").Hugepages()
		if p.Pools != nil || p.Unknown["pools"] == "" {
			t.Errorf("pools %v, unknown %v", p.Pools, p.Unknown)
		}
	})
	t.Run("one node that cannot be listed", func(t *testing.T) {
		p := treeOf(t, "whole: /sys /proc\n"+poolText(node0+"/hugepages/hugepages-2048kB", node)+"-- "+node1+"/hugepages [errno EACCES] --\n").Hugepages()
		if len(p.Pools) != 1 || p.Unlisted[1] == "" || p.Unlisted[0] != "" || p.Unknown["pools"] == "" {
			t.Errorf("pools %+v, unlisted %v, unknown %v", p.Pools, p.Unlisted, p.Unknown)
		}
	})
}

func TestHugepagesTotal(t *testing.T) {
	nodes := poolText(node0+"/hugepages/hugepages-2048kB", node) + poolText(node1+"/hugepages/hugepages-2048kB", node)
	for _, row := range []struct {
		name, tree string
		want       int64
		source     string
	}{
		{"global", meminfo + poolText(global2M, full) + nodes, 8, "/" + global2M + "/nr_hugepages"},
		{"nodes", nodes, 8, "/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages"},
		{"meminfo", meminfo, 8, "/proc/meminfo"},
		{"one node of two", nodes + "-- " + node1 + "/hugepages/hugepages-2048kB/nr_hugepages [errno EIO] --\n", -1, ""},
	} {
		p := treeOf(t, row.tree).Hugepages()
		got, source, ok := p.Total(2048)
		if !ok {
			got = -1
		}
		if got != row.want || source != row.source {
			t.Errorf("%s: %d from %q, want %d from %q", row.name, got, source, row.want, row.source)
		}
	}
}

// In a mounted host root the mounts are those of the host's first process.
func TestMountTableOfFirstProcess(t *testing.T) {
	const first, self = "-- proc/1/mounts --\nh /first hugetlbfs rw 0 0\n", "-- proc/self/mounts --\nh /self hugetlbfs rw 0 0\n"
	for tree, want := range map[string]string{first + self: "/first", self: "/self", "-- proc/mounts --\nh /plain hugetlbfs rw 0 0\n": "/plain"} {
		p := treeOf(t, tree).Hugepages()
		if len(p.Mounts) != 1 || p.Mounts[0].Path != want || p.Mounts[0].SizeKB != nil {
			t.Errorf("mounts %+v, want %s of a size that is not known", p.Mounts, want)
		}
	}
	p := treeOf(t, "-- proc/1/mounts [errno EACCES] --\n"+self).Hugepages()
	if p.Mounts != nil || !strings.Contains(p.Unknown["mounts"], "/proc/1/mounts") {
		t.Errorf("mounts %+v, unknown %v", p.Mounts, p.Unknown)
	}
}

func TestSizes(t *testing.T) {
	for kb, want := range map[int64]string{64: "64K", 2048: "2M", 32768: "32M", 524288: "512M", 1048576: "1G", 16777216: "16G", 1536: "1536K"} {
		if got := SizeName(kb); got != want {
			t.Errorf("SizeName(%d) = %s, want %s", kb, got, want)
		}
	}
	for kb, want := range map[int64]string{0: "0 KiB", 1023: "1023 KiB", 1024: "1 MiB", 33554432: "32 GiB", 33018776: "31.5 GiB", 3 << 30: "3 TiB"} {
		if got := MemName(kb); got != want {
			t.Errorf("MemName(%d) = %s, want %s", kb, got, want)
		}
	}
	for s, want := range map[string]int64{"2M": 2048, "1024M": 1048576, "1G": 1048576, "1GB": 1048576, "2048K": 2048, "2097152": 2048, "64k": 64,
		"": -1, "M": -1, "1T": -1, "-1M": -1, "0": -1, "1000": -1, "99999999999999G": -1} {
		got, ok := parseMountSize(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("parseMountSize(%q) = %d, want %d", s, got, want)
		}
	}
	for s, want := range map[string]int64{"hugepages-2048kB": 2048, "hugepages-kB": -1, "hugepages-0kB": -1, "hugepages-2048": -1, "x-2048kB": -1} {
		got, ok := poolDirKB(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("poolDirKB(%q) = %d, want %d", s, got, want)
		}
		if ok && poolDir(got) != s {
			t.Errorf("poolDir(%d) = %s", got, poolDir(got))
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	got := parseMeminfo("MemTotal:       32836008 kB\nHugePages_Total:       0\nNode 12 MemTotal:  5 kB\nbroken\nNeg: -1 kB\nText: x\nEmpty:\n")
	want := map[string]int64{"MemTotal": 5, "HugePages_Total": 0} // the node's line is the later one
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestUnescapeOctal(t *testing.T) {
	for s, want := range map[string]string{`/a\040b`: "/a b", `\134`: `\`, `\011\012`: "\t\n", `/x\`: `/x\`, `/x\04`: `/x\04`, `\999`: `\999`, `\777`: `\777`, `\1234`: "S4"} {
		if got := unescapeOctal(s); got != want {
			t.Errorf("unescapeOctal(%q) = %q, want %q", s, got, want)
		}
	}
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add(meminfo)
	f.Add("Node 0 HugePages_Free: 18446744073709551615\n")
	f.Fuzz(func(t *testing.T, text string) {
		for name, n := range parseMeminfo(text) {
			if n < 0 || strings.ContainsAny(name, ":\n") {
				t.Errorf("%q gives %q = %d", text, name, n)
			}
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add("hugetlbfs /dev/huge\\040pages hugetlbfs rw,pagesize=2M 0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if m.kind == "" || len(m.path) > len(text) {
				t.Errorf("%q gives %+v", text, m)
			}
			if s, ok := m.option("pagesize"); ok {
				if kb, ok := parseMountSize(s); ok && kb <= 0 {
					t.Errorf("pagesize=%s is %d kB", s, kb)
				}
			}
		}
	})
}

// What the kernel escapes comes back as it was.
func FuzzUnescapeOctal(f *testing.F) {
	f.Add("/a b\\c\td")
	f.Fuzz(func(t *testing.T, s string) {
		var b strings.Builder
		for i := range len(s) {
			if strings.IndexByte(" \t\n\\", s[i]) >= 0 {
				fmt.Fprintf(&b, `\%03o`, s[i])
			} else {
				b.WriteByte(s[i])
			}
		}
		if got := unescapeOctal(b.String()); got != s {
			t.Errorf("%q comes back as %q", s, got)
		}
	})
}
