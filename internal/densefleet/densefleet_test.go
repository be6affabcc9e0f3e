// SPDX-License-Identifier: Apache-2.0

package densefleet

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

func maker(t *testing.T, f Fleet) *Maker {
	t.Helper()
	m, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSameFleetSameBytes(t *testing.T) {
	var a, b, other bytes.Buffer
	n, err := maker(t, Usual(120)).Write(&a)
	if err != nil || n != int64(a.Len()) {
		t.Fatalf("%d of %d bytes: %v", n, a.Len(), err)
	}
	if _, err := maker(t, Usual(120)).Write(&b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("a second time it is another fleet (%v)", err)
	}
	if _, err := maker(t, Fleet{Hosts: 120, Seed: 2, Odd: 0.02}).Write(&other); err != nil || bytes.Equal(a.Bytes(), other.Bytes()) {
		t.Errorf("another seed is the same fleet (%v)", err)
	}
	// a report is what hostcheck writes, and each host has its own
	names := map[string]bool{}
	for line := range bytes.Lines(a.Bytes()) {
		var r report.Report
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		back, err := report.JSONLine(&r)
		if err != nil || !bytes.Equal(back, line) {
			t.Fatalf("it came back changed: %v\n%s\n%s", err, back, line)
		}
		names[*r.Host.Name] = true
		ids := map[string]bool{}
		for _, f := range r.Findings {
			ids[f.Check] = true
		}
		if len(ids) != 60 || r.Schema != report.Schema {
			t.Errorf("%s has %d checks, schema %s", *r.Host.Name, len(ids), r.Schema)
		}
	}
	if len(names) != 120 || strings.Count(Usual(120).Labels(), "\n") != 120 {
		t.Errorf("%d names", len(names))
	}
}

// What was planted is in the reports, and nothing else is: all other hosts have
// the same verdicts, and one of two kernels, three firmwares and two profiles.
func TestTruth(t *testing.T) {
	m := maker(t, Usual(2000))
	odd, group := m.Truth()
	if len(odd) != 40 || group.Hosts != perRack {
		t.Fatalf("%d odd hosts, group %+v", len(odd), group)
	}
	planted := map[string]Oddity{}
	seen := map[Kind]bool{}
	for _, o := range odd {
		planted[o.Host], seen[o.Kind] = o, true
	}
	if len(planted) != 40 || len(seen) != len(Kinds) {
		t.Errorf("%d hosts of %d kinds", len(planted), len(seen))
	}
	var usual report.Summary
	groups := map[string]int{}
	cubic := 0
	for i := range m.Hosts {
		r := m.Report(i)
		name := *r.Host.Name
		o, isOdd := planted[name]
		found := false
		for _, f := range r.Findings {
			found = found || isOdd && f.Check == o.Check && f.Subject == o.Subject && f.Got == o.Got && (f.Status != check.Pass || o.both)
			if f.Check == group.Check && f.Got == group.Got {
				cubic++
				if m.Rack(i) != group.Rack {
					t.Errorf("%s is not of rack %s", name, group.Rack)
				}
			}
		}
		if o.Kind == Kernel {
			found = *r.Host.Kernel == o.Got
		}
		switch {
		case isOdd && !found:
			t.Errorf("%s: nothing shows %+v", name, o)
		case isOdd:
			continue
		case usual == report.Summary{}:
			usual = r.Summary
		case usual != r.Summary:
			t.Errorf("%s: %+v, others %+v", name, r.Summary, usual)
		}
		groups["kernel "+*r.Host.Kernel]++
		groups["profile "+r.Profile.Hash]++
		i := slices.IndexFunc(r.Findings, func(f report.Finding) bool { return f.Check == "driver.firmware" })
		groups["firmware "+r.Findings[i].Got]++
	}
	if cubic != group.Hosts || usual.Exit != report.ExitOK {
		t.Errorf("%d hosts have %s; usual %+v", cubic, group.Got, usual)
	}
	for g, n := range groups {
		if n < m.Hosts/20 {
			t.Errorf("%s: only %d hosts, which is an oddity too", g, n)
		}
	}
	if len(groups) != 2+2+3 {
		t.Errorf("groups: %v", groups)
	}
}
