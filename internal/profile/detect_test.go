// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/profile"
)

func TestDetectOnHosts(t *testing.T) {
	for _, tc := range []struct {
		host     string
		layers   []string
		intent   string
		arch     string
		cpu      string
		pageSize int
	}{
		{"rdma-intel", []string{"base", "intel", "mlx5", "rdma-400g"}, "baremetal-gpudirect", "amd64", "intel", 4096},
		{"rdma-amd", []string{"base", "amd", "mlx5", "rdma-400g"}, "baremetal-gpudirect", "amd64", "amd", 4096},
		{"azure-mana-x86", nil, "guest", "amd64", "", 4096},
		{"azure-mana-arm64-64k", []string{"base", "arm64", "arm64-64k", "azure", "mana", "azure-mana"}, "guest", "arm64", "arm", 65536},
		{"vm-plain", nil, "guest", "amd64", "", 4096},
	} {
		t.Run(tc.host, func(t *testing.T) {
			fx := fixture.Load(t, filepath.Join("..", "..", "testdata", "hosts", tc.host+".txtar"))
			p := profile.Detect(facts.New(fx.Host(t)))
			if p.Arch != tc.arch || p.PageSize != tc.pageSize || tc.cpu != "" && p.CPU != tc.cpu || p.Release == "" {
				t.Errorf("the platform is %s %s %d %q", p.Arch, p.CPU, p.PageSize, p.Release)
			}
			if p.Intent != tc.intent || p.IntentWhy == "" {
				t.Errorf("the assumed intent is %q (%s), want %q", p.Intent, p.IntentWhy, tc.intent)
			}
			var got []string
			for _, l := range p.Layers {
				if l.Why == "" {
					t.Errorf("%s: no reason", l.Name)
				}
				if l.Matches {
					got = append(got, l.Name)
				}
			}
			want := tc.layers
			if want == nil { // whose processor it is does not matter here
				want = []string{"base", p.CPU}
				if tc.host == "azure-mana-x86" {
					want = append(want, "azure", "mana", "azure-mana")
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("layers are %v, want %v", got, want)
			}
			if _, _, err := profile.Load(profile.LoadOptions{Platform: p}); err != nil {
				t.Error(err)
			}
		})
	}
}
