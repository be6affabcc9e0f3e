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

// What this kernel does not have is wished by nobody, and the finding says it.
func TestCongestionWithoutModule(t *testing.T) {
	for name, want := range map[string]int{"warn-no-module": 0, "warn-not-taken": 1} {
		path := filepath.Join(fixtures, "sysctl.congestion", name+".txtar")
		i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == "sysctl.congestion" })
		f := judge(t, path, fixture.Load(t, path), checks.All()[i:i+1]).Results[0].Findings[0]
		if len(f.Fix) != want || strings.Contains(f.Why, "has no module tcp_bbr") != (want == 0) {
			t.Errorf("%s: %d wishes, %s", name, len(f.Fix), f.Why)
		}
	}
}
