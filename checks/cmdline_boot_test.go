// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
)

// A failure that settings and boot entry have mended is pending: its three
// truths are told, and nothing is left to fix.
func TestPendingUntilBoot(t *testing.T) {
	const settings = "-- etc/default/grub --\nGRUB_CMDLINE_LINUX_DEFAULT=\"intel_iommu=on\"\n"
	for _, tt := range []struct {
		name, id, base, change, subject string
		pending                         bool
		truth                           check.Truth
	}{
		{"mended", "cmdline.required", "cmdline.required/fail.txtar", "", "iommu=pt", true,
			check.Truth{Configured: "passthrough, by iommu=pt", NextBoot: "passthrough, by iommu=pt", Live: "translation, by the kernel's configuration"}},
		{"rendered alone", "cmdline.required", "cmdline.required/fail.txtar", settings, "iommu=pt", false,
			check.Truth{Configured: "translation, by the kernel's configuration", NextBoot: "passthrough, by iommu=pt", Live: "translation, by the kernel's configuration"}},
		{"menu unreadable", "cmdline.required", "cmdline.required/fail.txtar", "-- boot/grub/grub.cfg [errno EACCES] --\n", "iommu=pt", false,
			check.Truth{Configured: "passthrough, by iommu=pt", Live: "translation, by the kernel's configuration"}},
		{"not mended", "cmdline.unknown", "cmdline.unknown/fail.txtar", "", "", true, check.Truth{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			at, err := filepath.Abs(filepath.Join(fixtures, tt.base))
			if err != nil {
				t.Fatal(err)
			}
			base, err := filepath.Rel(dir, at)
			if err != nil {
				t.Fatal(err)
			}
			p := filepath.Join(dir, "host.txtar")
			if err := os.WriteFile(p, []byte("base: "+base+"\n"+tt.change), 0o600); err != nil {
				t.Fatal(err)
			}
			f := fixture.Load(t, p)
			var found *check.Finding
			for _, c := range checks.All() {
				if c.ID != tt.id {
					continue
				}
				for _, g := range judge(t, p, f, []*check.Check{c}).Results[0].Findings {
					if g.Status == check.Fail && (tt.subject == "" || g.Subject == tt.subject) {
						found = &g
					}
				}
			}
			if found == nil || found.Truth == nil {
				t.Fatalf("no failure with three truths: %+v", found)
			}
			if found.Pending != tt.pending || found.Pending && found.Fix != nil || !found.Pending && found.Fix == nil {
				t.Errorf("pending is %v, fix %v", found.Pending, found.Fix)
			}
			if tt.truth != (check.Truth{}) && *found.Truth != tt.truth {
				t.Errorf("truth is %+v, want %+v", *found.Truth, tt.truth)
			}
		})
	}
}

// The same for what the command line brings about: it is pending where the next
// boot is told more than the last one was, and only there.
func TestPendingUntilNextBoot(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(fixtures, "*", "*-pending.txtar"))
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d fixtures: %v", len(paths), err)
	}
	told := len(paths)
	for _, id := range []string{"hugepages.pool", "cmdline.hugepages", "hugepages.default_size", "iommu.state", "iommu.domain", "acs.redirect", "acs.isolation", "pcie.payload"} {
		paths = append(paths, filepath.Join(fixtures, id, "fail.txtar"))
	}
	for i, p := range paths {
		f := fixture.Load(t, p)
		id := filepath.Base(filepath.Dir(p))
		c := checks.All()[slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == id })]
		found := false
		for _, g := range judge(t, p, f, []*check.Check{c}).Results[0].Findings {
			if g.Status != check.Fail || !strings.Contains(g.Subject, f.Subject) {
				continue
			}
			found = true
			if pending := i < told; g.Pending != pending || pending && (g.Fix != nil || g.Truth == nil || g.Truth.NextBoot == "" || g.Truth.NextBoot == g.Truth.Live) {
				t.Errorf("%s: %s is pending: %v, %+v, fix %v", p, g.Subject, g.Pending, g.Truth, g.Fix)
			}
		}
		if !found {
			t.Errorf("%s: no failure", p)
		}
	}
}
