// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
)

// vfsFinding gives what sriov.vfs says of a fixture's one function.
func vfsFinding(t *testing.T, name, intent string) check.Finding {
	t.Helper()
	path := filepath.Join(fixtures, "sriov.vfs", name+".txtar")
	f := fixture.Load(t, path)
	f.Intent = intent
	i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == "sriov.vfs" })
	got := judge(t, path, f, checks.All()[i:i+1]).Results[0].Findings
	if len(got) != 1 {
		t.Fatalf("%s: %+v", name, got)
	}
	return got[0]
}

// Only a number that the kernel may take is wished at tier link.
func TestVFsWishes(t *testing.T) {
	for name, want := range map[string]string{
		"fail": "sriov numvfs link", "fail-limit": "manual NUM_OF_VFS firmware", "fail-none": "manual NUM_OF_VFS firmware", "fail-mmio": "", "fail-missing": "",
	} {
		var got []string
		for _, w := range vfsFinding(t, name, "").Fix {
			got = append(got, strings.Join([]string{w.Kind, w.Name, string(w.Tier)}, " "))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s wishes %q, want %q", name, s, want)
		}
	}
}

// What shares a group is evidence where devices go to guests, and never a
// verdict here.
func TestVFsSharing(t *testing.T) {
	const shared = "0000:9a:00.1 (group 8 with 0000:9a:00.0, 0000:9a:00.2, 0000:9b:00.0); 0000:9a:00.2 (group 8 with 0000:9a:00.0, 0000:9a:00.1, 0000:9b:00.0)"
	for intent, want := range map[string]string{
		"sriov-tenant":        shared,
		"vm-gpudirect":        shared,
		"baremetal-gpudirect": "0000:9a:00.1 (group 8); 0000:9a:00.2 (group 8)",
	} {
		f := vfsFinding(t, "pass", intent)
		if got := f.Evidence[len(f.Evidence)-1].Value; f.Status != check.Pass || got != want {
			t.Errorf("%s: %s, %q, want %q", intent, f.Status, got, want)
		}
	}
}

// The kernel's word on one function says nothing of another.
func TestVFsNoRoomIsOfOneFunction(t *testing.T) {
	for line, want := range map[string]bool{
		"mlx5_core 0000:9a:00.0: not enough MMIO resources for SR-IOV":  true,
		"pci 0000:9a:00.0: not enough MMIO resources for SR-IOV":        true,
		"mlx5_core 0000:1a:00.0: not enough MMIO resources for SR-IOV":  false,
		"mlx5_core 0001:9a:00.0: not enough MMIO resources for SR-IOV":  false,
		"mlx5_core 10000:9a:00.0: not enough MMIO resources for SR-IOV": false,
	} {
		w := fixture.Load(t, filepath.Join(fixtures, "sriov.vfs", "fail.txtar"))
		logLine(t, w.Root, line)
		live, err := host.Open(w.Root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer live.Close()
		if got := facts.New(live).NoRoomForVFs("0000:9a:00.0"); (got == line) != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// logLine lets a tree's kernel log be that one line.
func logLine(t *testing.T, root, line string) {
	t.Helper()
	p := filepath.Join(root, host.CaptureFile)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	q, _ := c["queries"].(map[string]any)
	if q == nil {
		t.Fatal("the tree has no recorded queries")
	}
	q["klog"] = map[string]any{"answer": []string{line}}
	if b, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
