// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// The nearest RDMA devices of each GPU, and how near they are.
func TestHostsTopology(t *testing.T) {
	hosts, expect := os.Getenv("HOSTCHECK_HOSTS"), os.Getenv("HOSTCHECK_EXPECT")
	if hosts == "" || expect == "" {
		t.Skip("no trees of real hosts: HOSTCHECK_HOSTS and HOSTCHECK_EXPECT are not set")
	}
	b, err := os.ReadFile(filepath.Join(expect, "expect-topo.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) < 2 {
		t.Fatal("expect-topo.tsv has no rows")
	}
	columns := strings.Split(lines[0], "\t")
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, cell := range strings.Split(line, "\t") {
			row[columns[i]] = cell
		}
		t.Run(row["case"]+"/"+row["gpu"], func(t *testing.T) {
			h, err := host.Open(filepath.Join(hosts, "topo-"+row["case"]), host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			compareNearest(t, New(h), row)
		})
	}
}

func compareNearest(t *testing.T, f *Facts, row map[string]string) {
	t.Helper()
	var want, got []string // "mlx5_0@0000:0c:00.0"
	for cell := range strings.SplitSeq(row["nearest_nics"], ",") {
		want = append(want, cell[:strings.LastIndex(cell, ":")])
	}
	var best Distance
	for _, p := range f.Topology().Pairs {
		if p.GPU != row["gpu_bdf"] || p.Distance == nil {
			continue
		}
		if best == "" || best.Farther(*p.Distance) {
			best, got = *p.Distance, nil
		}
		if *p.Distance != best {
			continue
		}
		for _, d := range f.RDMA().At(p.NIC) {
			got = append(got, d.Device+"@"+p.NIC)
		}
	}
	if string(best) != row["best_relation"] {
		t.Errorf("the nearest is at %q, want %s", best, row["best_relation"])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("nearest are %v, want %v", got, want)
	}
	if fn := f.PCI().At(row["gpu_bdf"]); fn == nil || fmt.Sprint(show(fn.NUMANode)) != row["numa"] {
		t.Errorf("its node is not %s", row["numa"])
	}
}
