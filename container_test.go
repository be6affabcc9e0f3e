// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

// What a container without capabilities does not see of a host with RDMA
// devices: answers of the kernel beyond files, configuration space beyond 64
// bytes, debugfs; in a network of its own also the parameters of the host's. The
// checks that need them are unknown or skipped, as docs/kubernetes.md says, and
// no other verdict differs.
func TestContainerView(t *testing.T) {
	self, err := exec.LookPath("hostcheck")
	if err != nil {
		t.Fatal(err)
	}
	judge := func(root string) map[string][]report.Finding {
		out, _ := exec.Command(self, "check", "--root", root, "-f", "json").Output() // exits 3
		var r report.Report
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		all := map[string][]report.Finding{}
		for _, f := range r.Findings {
			all[f.Check] = append(all[f.Check], f)
		}
		return all
	}
	verdict := func(f report.Finding) bool {
		return slices.Contains([]check.Status{check.Pass, check.Warn, check.Fail}, f.Status)
	}
	whole := judge(fixture.Load(t, "testdata/hosts/rdma-intel.txtar").Root)
	doc, err := os.ReadFile("docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		own  bool
		lost string
	}{
		{"network of the host", false, "acs.redirect dcqcn.owner dcqcn.pause dcqcn.pfc dcqcn.trust driver.firmware link.fec pcie.payload rdma.counters system.visibility"},
		{"network of its own", true, "sysctl.backlog sysctl.congestion sysctl.persistence sysctl.rp_filter sysctl.socket_buffers sysctl.somaxconn sysctl.tcp_defaults"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fixture.Load(t, "testdata/hosts/rdma-intel.txtar").Root
			hide(t, root, tt.own)
			var lost []string
			seen := judge(root)
			for id, findings := range whole {
				if slices.ContainsFunc(findings, verdict) && !slices.ContainsFunc(seen[id], verdict) {
					lost = append(lost, id)
				}
				for _, f := range seen[id] {
					i := slices.IndexFunc(findings, func(o report.Finding) bool { return o.Subject == f.Subject })
					if verdict(f) && (i < 0 || findings[i].Status != f.Status) {
						t.Errorf("%s %s is %s here alone", id, f.Subject, f.Status)
					}
				}
			}
			slices.Sort(lost)
			want := strings.Fields(tt.lost)
			if tt.own {
				want = append(want, "acs.redirect", "dcqcn.owner", "dcqcn.pause", "dcqcn.pfc", "dcqcn.trust", "driver.firmware", "link.fec", "pcie.payload", "rdma.counters", "system.visibility")
				slices.Sort(want)
			}
			if !slices.Equal(lost, want) {
				t.Errorf("not judged: %v, want %v", lost, want)
			}
			for _, id := range lost {
				if !strings.Contains(string(doc), "`"+id+"`") {
					t.Errorf("docs/kubernetes.md does not say that %s is not judged", id)
				}
			}
		})
	}
}

// hide takes from a tree what a container does not see.
func hide(t *testing.T, root string, network bool) {
	t.Helper()
	name := filepath.Join(root, host.CaptureFile)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := host.DecodeCapture(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Queries) == 0 {
		t.Fatal("the tree has no answers of the kernel")
	}
	c.Queries = nil
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		in, _ := filepath.Rel(root, p)
		switch {
		case network && d.Type().IsRegular() && strings.HasPrefix(in, "proc/sys/net/"):
			c.Errno["/"+in] = host.Errno(13)
		case d.Type().IsRegular() && d.Name() == "config" && strings.HasPrefix(in, "sys/"):
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return os.WriteFile(p, b[:min(len(b), 64)], 0o644)
		}
		return nil
	})
	if err == nil {
		err = os.RemoveAll(filepath.Join(root, "sys/kernel/debug"))
	}
	if err == nil {
		b, err = json.Marshal(c)
	}
	if err == nil {
		err = os.WriteFile(name, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
