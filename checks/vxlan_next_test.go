// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
)

// What is to be taken down and up is the interface whose port is missing.
func TestVXLANAsksForItsOwnPort(t *testing.T) {
	all := checks.All()
	c := all[slices.IndexFunc(all, func(c *check.Check) bool { return c.ID == "vxlan.offload" })]
	for file, name := range map[string]string{"fail-missing": "flannel.1", "fail-second": "vxlan6"} {
		path := filepath.Join(fixtures, c.ID, file+".txtar")
		got := judge(t, path, fixture.Load(t, path), []*check.Check{c}).Results[0].Findings
		i := slices.IndexFunc(got, func(f check.Finding) bool { return f.Status == check.Fail })
		if i < 0 || !strings.HasPrefix(got[i].Next, "ip link set "+name+" down, then up,") {
			t.Errorf("%s: %+v", file, got)
		}
	}
}
