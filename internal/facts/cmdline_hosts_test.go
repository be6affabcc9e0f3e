// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Command lines of real hosts, with what they ask for. The table is keyed by a
// short id; its tree is the one whose name starts with it.
func TestHostsCmdlines(t *testing.T) {
	hosts, expect := os.Getenv("HOSTCHECK_HOSTS"), os.Getenv("HOSTCHECK_EXPECT")
	if hosts == "" || expect == "" {
		t.Skip("no trees of real hosts: HOSTCHECK_HOSTS and HOSTCHECK_EXPECT are not set")
	}
	b, err := os.ReadFile(filepath.Join(expect, "expect-cmdlines.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) < 2 {
		t.Fatal("the table has no rows")
	}
	columns := strings.Split(lines[0], "\t")
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, cell := range strings.Split(line, "\t") {
			row[columns[i]] = cell
		}
		t.Run(row["id"], func(t *testing.T) {
			trees, err := filepath.Glob(filepath.Join(hosts, row["id"]+"*"))
			if err != nil || len(trees) != 1 {
				t.Fatalf("trees of %s: %v, %v", row["id"], trees, err)
			}
			h, err := host.Open(trees[0], host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			judgeCmdlineRow(t, New(h).Cmdline(), row)
		})
	}
}

func judgeCmdlineRow(t *testing.T, c *Cmdline, row map[string]string) {
	t.Helper()
	if c.Text == nil || *c.Text != row["cmdline"] {
		t.Fatalf("the text is %v, want %q", show(c.Text), row["cmdline"])
	}
	e := c.Effects
	for _, is := range []struct {
		column string
		got    string
	}{
		{"hugepages_requested", strings.ReplaceAll(requests(e.Hugepages), " ", ";")}, {"acs_request", *e.ACS},
		{"isolcpus_domain", listText(e.Isolated)}, {"isolcpus_managed_irq", listText(e.ManagedIRQ)},
		{"nohz_full", listText(e.NohzFull)}, {"rcu_nocbs", listText(e.RcuNocbs)},
	} {
		want, ok := row[is.column]
		if !ok {
			t.Fatalf("the table has no column %s", is.column)
		}
		if want == "-" {
			want = ""
		}
		if is.got != want {
			t.Errorf("%s is %q, want %q", is.column, is.got, want)
		}
	}
	switch row["default_hugepagesz"] {
	case "arch":
		if e.DefaultHugepageKB != nil && *e.DefaultHugepageKB != 2048 {
			t.Errorf("the default size is %d kB, want the architecture's", *e.DefaultHugepageKB)
		}
	default:
		if e.DefaultHugepageKB == nil || SizeName(*e.DefaultHugepageKB) != row["default_hugepagesz"] {
			t.Errorf("the default size is %v kB, want %s", show(e.DefaultHugepageKB), row["default_hugepagesz"])
		}
	}
	if row["iommu_request"] == "default" && (e.IOMMU.Disabled || len(e.IOMMU.Notes) > 0) {
		t.Errorf("IOMMU: %+v, want the default", e.IOMMU)
	}
}

func listText(s *string) string {
	if s == nil {
		return "unknown"
	}
	return *s
}
