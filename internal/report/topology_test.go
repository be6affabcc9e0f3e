// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/densehost"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

// wellFormed fails unless s is XML to its end.
func wellFormed(t *testing.T, s string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
}

// Trouble stands in both drawings, at the device that has it.
func TestTopologyTrouble(t *testing.T) {
	for _, tt := range []struct{ fixture, device, trouble string }{
		{"hosts/rdma-intel-sick", "NIC1 0000:18:00.0", "! slow link: 16 of 32 GT/s"},
		{"checks/numa.gpu_nic/fail", "GPU0 0000:19:00.0", "! far: its nearest RDMA NIC is NIC2, SYS"},
	} {
		v := report.NewTopology(facts.New(fixture.Load(t, "../../testdata/"+tt.fixture+".txtar").Host(t)), facts.PXB)
		svg := v.SVG()
		wellFormed(t, svg)
		for what, s := range map[string]string{"text": report.Text{Width: 100}.Topology(v), "svg": svg} {
			_, after, ok := strings.Cut(s, tt.device)
			if at := strings.Index(after, "!"); !ok || at < 0 || !strings.HasPrefix(after[at:], tt.trouble) {
				t.Errorf("%s %s: no %q at %s:\n%s", tt.fixture, what, tt.trouble, tt.device, s)
			}
		}
	}
}

// A dense host has every device once in the tree, and no line is too long.
func TestTopologyDense(t *testing.T) {
	dir := t.TempDir()
	shape := densehost.Shape{Copies: 1, Switches: 4, NICsPerSwitch: 2, GPUsPerSwitch: 2, VFs: 3}
	if err := densehost.Write(dir, shape); err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(dir, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	v := report.NewTopology(facts.New(h), facts.PXB)
	if len(v.GPUs) != 8 || len(v.NICs) != 9 { // one is for management
		t.Fatalf("%d GPUs and %d NICs", len(v.GPUs), len(v.NICs))
	}
	wellFormed(t, v.SVG())
	for _, width := range []int{40, 80, 200} {
		text := report.Text{Width: width}.Topology(v)
		for line := range strings.Lines(text) {
			if n := lipgloss.Width(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d cells at width %d: %s", n, width, line)
			}
		}
		if width < 80 {
			continue // addresses may be broken
		}
		for _, bdf := range append(v.GPUs, v.NICs...) {
			if strings.Count(text, bdf) != 1 {
				t.Errorf("width %d: %s stands %d times", width, bdf, strings.Count(text, bdf))
			}
		}
	}
}

// The limit is the profile's where it has one.
func TestTopologyWithin(t *testing.T) {
	f := facts.New(fixture.Load(t, "../../testdata/checks/numa.gpu_nic/fail.txtar").Host(t))
	for most, far := range map[facts.Distance]bool{facts.PIX: true, facts.NODE: true, facts.SYS: false} {
		v := report.NewTopology(f, most)
		if got := strings.Contains((report.Text{Width: 200}).Topology(v), "far: its nearest"); got != far {
			t.Errorf("a limit of %s: marked %v", most, got)
		}
	}
}
