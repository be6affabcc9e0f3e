// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// TestArchitectures runs the static binary on kernels of other architectures
// and page sizes, with nothing else in the guest.
func TestArchitectures(t *testing.T) {
	for _, f := range []struct {
		flavour, arch string
		pageSize      int
		huge          string // the default huge page
	}{
		{lab.AMD64, "amd64", 4 << 10, "2048 kB"},
		{lab.ARM64, "arm64", 4 << 10, "2048 kB"},
		{lab.ARM64x16, "arm64", 16 << 10, "32768 kB"},
	} {
		t.Run(f.flavour, func(t *testing.T) {
			began := time.Now()
			ctx := limit(t, 10*time.Minute)
			// no program but hostcheck, no PATH, no /etc: it must judge what it can
			said, err := theLab.RunTiny(ctx, lab.Tiny{Flavour: f.flavour, Program: built[f.arch], Args: []string{"-f", "json"}})
			if err != nil {
				t.Fatalf("step \"boot\": %v", err)
			}
			if said.Kernel.PageSize != f.pageSize || said.Kernel.DefaultHugepage != f.huge {
				t.Fatalf("step \"boot\": page size %d and huge pages of %s, want %d and %s", said.Kernel.PageSize, said.Kernel.DefaultHugepage, f.pageSize, f.huge)
			}
			if said.Run == nil {
				t.Fatal("step \"check\": hostcheck was not run")
			}
			var r struct {
				Schema string
				Host   struct {
					Kernel, Arch string
					PageSize     int `json:"page_size"`
				}
				Summary  map[string]int
				Findings []struct{ Check, Subject, Status, Why string }
			}
			if err := json.Unmarshal([]byte(said.Run.Out), &r); err != nil {
				t.Fatalf("step \"check\": exit code %d, no report: %v\nstdout: %.500s\nstderr: %s", said.Run.Code, err, said.Run.Out, said.Run.Err)
			}
			if r.Schema != "hostcheck.report/v1" || r.Host.Arch != f.arch || r.Host.PageSize != f.pageSize || r.Host.Kernel != said.Kernel.Release {
				t.Errorf("step \"check\": schema %s, host %+v; the kernel is %s", r.Schema, r.Host, said.Kernel.Release)
			}
			for _, find := range r.Findings {
				if find.Status == "error" {
					t.Errorf("step \"check\": %s %s is an error: %s", find.Check, find.Subject, find.Why)
				}
			}
			if r.Summary["exit"] != said.Run.Code || said.Run.Code == 2 || len(r.Findings) < 20 || r.Summary["pass"] == 0 {
				t.Errorf("step \"check\": exit code %d, summary %v, %d findings", said.Run.Code, r.Summary, len(r.Findings))
			}
			held := 0
			if !t.Failed() {
				held = len(r.Findings)
			}
			count("architectures", fmt.Sprintf("findings on %s, %d KiB pages", f.arch, f.pageSize>>10), len(r.Findings), held, time.Since(began))
			if s := strings.TrimSpace(said.Run.Err); strings.Contains(s, "panic") {
				t.Errorf("step \"check\": stderr: %s", s)
			}
		})
	}
}
