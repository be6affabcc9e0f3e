// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// These tests read trees of real hosts that are not part of this repository:
// HOSTCHECK_HOSTS is a directory with one unpacked tree per name, and
// HOSTCHECK_EXPECT holds tables (expect-*.tsv) of what a correct tool finds in
// them. Without the variables they are skipped.

// eachHost runs test for every row of a table, keyed by the column names.
func eachHost(t *testing.T, table string, test func(*testing.T, *Facts, map[string]string)) {
	t.Helper()
	hosts, expect := os.Getenv("HOSTCHECK_HOSTS"), os.Getenv("HOSTCHECK_EXPECT")
	if hosts == "" || expect == "" {
		t.Skip("no trees of real hosts: HOSTCHECK_HOSTS and HOSTCHECK_EXPECT are not set")
	}
	b, err := os.ReadFile(filepath.Join(expect, table))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	columns := strings.Split(lines[0], "\t")
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, cell := range strings.Split(line, "\t") {
			row[columns[i]] = cell
		}
		t.Run(row["tree"], func(t *testing.T) {
			h, err := host.Open(filepath.Join(hosts, row["tree"]), host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			test(t, New(h), row)
		})
	}
	if len(lines) < 2 {
		t.Errorf("%s has no rows", table)
	}
}

func TestHostsHugepages(t *testing.T) {
	eachHost(t, "expect-hugepages.tsv", func(t *testing.T, f *Facts, row map[string]string) {
		p := f.Hugepages()
		var global, perNode []string
		zero := true
		for _, g := range p.Global {
			global = append(global, fmt.Sprintf("%dkB=%v", g.SizeKB, show(g.Total)))
			zero = zero && g.Total != nil && *g.Total == 0
		}
		for _, n := range p.Pools {
			perNode = append(perNode, fmt.Sprintf("node%d:%dkB=%v", n.Node, n.SizeKB, show(n.Total)))
			zero = zero && n.Total != nil && *n.Total == 0
		}
		sameSet(t, "global pools", global, row["global_pools"])
		sameSet(t, "pools per node", perNode, row["per_node_pools"])
		for _, want := range cells(row["meminfo"]) {
			name, v, _ := strings.Cut(want, "=")
			var got *int64
			switch {
			case name == "MemTotal":
				got = p.MemTotalKB
			case name == "Hugepagesize":
				got = p.DefaultKB
			case name == "Hugetlb":
				got = p.HugetlbKB
			case p.Meminfo == nil:
				t.Errorf("no %s of /proc/meminfo", name)
				continue
			case name == "HugePages_Total":
				got = p.Meminfo.Total
				zero = zero && got != nil && *got == 0
			case name == "HugePages_Free":
				got = p.Meminfo.Free
			default:
				t.Fatalf("the table has %s, of which this test knows nothing", name)
			}
			if fmt.Sprint(show(got)) != v {
				t.Errorf("%s is %v, want %s", name, show(got), v)
			}
		}
		if row["meminfo"] == "-" && p.Unknown["meminfo"] == "" {
			t.Error("no reason why /proc/meminfo is not known")
		}
		concludes(t, p, zero, row["expected_conclusion"])
	})
}

var (
	totalConclusion = regexp.MustCompile(`^(\d+)M=(\d+)\b`)
	sumConclusion   = regexp.MustCompile(`on each of (\d+) nodes = (\d+) total`)
)

func concludes(t *testing.T, p *Hugepages, zero bool, want string) {
	t.Helper()
	if want == "all zero" {
		if !zero {
			t.Error("some pool holds pages, or none is known; want all zero")
		}
		return
	}
	m := totalConclusion.FindStringSubmatch(want)
	if m == nil {
		t.Fatalf("the table concludes %q, which this test cannot read", want)
	}
	mb, _ := strconv.ParseInt(m[1], 10, 64)
	total := m[2]
	if s := sumConclusion.FindStringSubmatch(want); s != nil {
		total = s[2]
	}
	got, source, ok := p.Total(mb << 10)
	if !ok || strconv.FormatInt(got, 10) != total {
		t.Errorf("total is %d (known: %t, %s), want %s", got, ok, source, total)
	}
}

func TestHostsCPUs(t *testing.T) {
	eachHost(t, "expect-cpus.tsv", func(t *testing.T, f *Facts, row map[string]string) {
		c := f.CPUs()
		for _, l := range []struct {
			field, column string
			got           *string
		}{{"online", "online", c.Online}, {"offline", "offline", c.Offline}, {"isolated", "isolated", c.Isolated}, {"nohz_full", "nohz_full_raw", c.NohzFull}} {
			raw, ok := row[l.column]
			if !ok {
				t.Fatalf("the table has no column %s", l.column)
			}
			if raw == "(file absent)" {
				if l.got != nil || c.Unknown[l.field] == "" {
					t.Errorf("%s is %v (reason %q) although the file is absent", l.field, show(l.got), c.Unknown[l.field])
				}
				continue
			}
			want := strings.TrimSpace(strings.Trim(raw, `"`))
			if want == "(null)" {
				want = ""
			}
			if l.got == nil || *l.got != want {
				t.Errorf("%s is %v, want %q", l.field, show(l.got), want)
			}
		}
		var got, want []string
		for _, n := range c.Nodes {
			got = append(got, fmt.Sprintf("%d=%v", n.Node, show(n.CPUs)))
		}
		for _, cell := range cells(row["nodes(cpulist or cpumap)"]) {
			node, cpus, _ := strings.Cut(cell, "=")
			set, err := ParseCPUSet(cpus)
			if strings.Contains(cpus, "00000000") {
				set, err = parseCPUMap(cpus)
			}
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, node+"="+set.String())
		}
		sameSet(t, "nodes", got, strings.Join(want, ";"))
	})
}

// cells splits "a;b"; "-" is none.
func cells(s string) []string {
	if s == "-" || s == "" {
		return nil
	}
	return strings.Split(s, ";")
}

func sameSet(t *testing.T, what string, got []string, want string) {
	t.Helper()
	in := map[string]int{}
	for _, w := range cells(want) {
		in[w]++
	}
	for _, g := range got {
		in[g]--
	}
	for k, n := range in {
		if n > 0 {
			t.Errorf("%s: no %s", what, k)
		} else if n < 0 {
			t.Errorf("%s: %s is not wanted", what, k)
		}
	}
}
