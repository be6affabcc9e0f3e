// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
)

// TestHostsRDMAPorts judges the ports of trees of real hosts, which are not
// part of this repository: HOSTCHECK_HOSTS is a directory with one unpacked
// tree per name.
func TestHostsRDMAPorts(t *testing.T) {
	hosts := os.Getenv("HOSTCHECK_HOSTS")
	if hosts == "" {
		t.Skip("no trees of real hosts: HOSTCHECK_HOSTS is not set")
	}
	for tree, want := range map[string]string{
		"gcm-learn_good":      "0000:0c:00.0 0000:12:00.0 0000:4b:00.0 0000:54:00.0 0000:8d:00.0 0000:94:00.0 0000:ba:00.0 0000:cc:00.0",
		"gpud-h100.0":         "mlx5_0 mlx5_1 mlx5_4 mlx5_5 mlx5_6 mlx5_7 mlx5_8 mlx5_9 mlx5_bond_0",
		"hwloc-mlx4-mic-nvme": "0000:82:00.0", // and nothing about scif0, which is software
		"hwloc-qib-2n":        "0000:43:00.0",
	} {
		t.Run(tree, func(t *testing.T) {
			var got []string
			for _, f := range judgeTree(t, filepath.Join(hosts, tree), "rdma.port") {
				if f.Status != check.Pass {
					t.Errorf("%s %s: %s %s", f.Status, f.Subject, f.Got, f.Why)
				}
				first, _, _ := strings.Cut(f.Subject, " ")
				got = append(got, first)
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("judged %s, want %s", s, want)
			}
		})
	}
}

func judgeTree(t *testing.T, root, id string) []check.Finding {
	t.Helper()
	for _, c := range checks.All() {
		if c.ID == id {
			return judge(t, root, &fixture.Fixture{Root: root}, []*check.Check{c}).Results[0].Findings
		}
	}
	t.Fatalf("there is no check %s", id)
	return nil
}
