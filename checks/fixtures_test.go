// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

const fixtures = "../testdata/checks"

// judge runs checks on a fixture as the product would.
func judge(t *testing.T, path string, f *fixture.Fixture, list []*check.Check) *trial.Outcome {
	t.Helper()
	out, err := trial.Run(f.Host(t), list, trial.Options{
		Profile: f.Profile, Set: f.Set, Intent: f.Intent, Dir: filepath.Dir(path),
		OnPanic: func(id string, stack []byte) { t.Errorf("%s panicked:\n%s", id, stack) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wanted is the status that a fixture expects: what its header says, else what
// its name starts with ("unknown-no-root.txtar").
func wanted(t *testing.T, path string, f *fixture.Fixture) check.Status {
	t.Helper()
	word := f.Want
	if word == "" {
		word, _, _ = strings.Cut(strings.TrimSuffix(filepath.Base(path), ".txtar"), "-")
	}
	if !slices.Contains(check.Statuses, check.Status(word)) {
		t.Fatalf("%s: neither the name nor a want: line says a status (%v)", path, check.Statuses)
	}
	return check.Status(word)
}

// Each fixture of a check gives the verdict that it is there for.
func TestFixtures(t *testing.T) {
	for _, c := range checks.All() {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			paths, err := filepath.Glob(filepath.Join(fixtures, c.ID, "*.txtar"))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range paths {
				t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) { oneFixture(t, c, p) })
			}
		})
	}
}

func oneFixture(t *testing.T, c *check.Check, path string) {
	f := fixture.Load(t, path)
	want := wanted(t, path, f)
	first := judge(t, path, f, []*check.Check{c})
	replayed(t, path, f, c, first)
	got := first.Results[0].Findings
	show := func() string {
		var b strings.Builder
		for _, g := range got {
			b.WriteString("\n  " + string(g.Status) + " " + g.Subject + ": want " + g.Want + "; got " + g.Got + "; " + g.Why)
		}
		return b.String()
	}

	found := false
	for _, g := range got {
		complete(t, &g)
		found = found || g.Status == want && strings.Contains(g.Subject, f.Subject)
		if want == check.Pass && g.Status != check.Pass && g.Status != check.Skip {
			t.Errorf("a passing host has the finding %s %s", g.Status, g.Subject)
		}
	}
	if !found {
		t.Errorf("no finding is %s of %q", want, f.Subject)
	}
	if t.Failed() {
		t.Logf("findings of %s:%s", path, show())
	}
	if d := cmp.Diff(first.Report, judge(t, path, f, []*check.Check{c}).Report, cmp.AllowUnexported(report.Finding{})); d != "" {
		t.Errorf("two runs differ:\n%s", d)
	}
}

// complete judges what every finding must say.
func complete(t *testing.T, g *check.Finding) {
	t.Helper()
	missing := func(what string, s string) {
		if s == "" {
			t.Errorf("the finding %s %q does not say %s", g.Status, g.Subject, what)
		}
	}
	switch g.Status {
	case check.Fail, check.Warn:
		missing("what is wanted", g.Want)
		missing("what there is", g.Got)
		missing("why it matters", g.Why)
		missing("what to do next", g.Next)
		if said := plan.Prose(g.Next); !plan.IsProse(said) {
			t.Errorf("a program could run what to do next about %q: %s", g.Subject, said)
		}
		if len(g.Evidence) == 0 {
			t.Errorf("the finding %s %q names no evidence", g.Status, g.Subject)
		}
	case check.Pass:
		if len(g.Evidence) == 0 {
			t.Errorf("the pass of %q names no evidence", g.Subject)
		}
	case check.Unknown, check.Skip:
		missing("why", g.Why)
	case check.Error:
		t.Errorf("error: %s", g.Why)
	}
	for _, e := range g.Evidence {
		if e.Source == "" {
			t.Errorf("the finding %s %q has evidence without a source: %q", g.Status, g.Subject, e.Value)
		}
	}
}

// Every check can pass and can fail, and it fails on a mutation of the host
// that it passes on.
func TestEveryCheckCanFail(t *testing.T) {
	for _, c := range checks.All() {
		dir := filepath.Join(fixtures, c.ID)
		pass, fail := filepath.Join(dir, "pass.txtar"), filepath.Join(dir, "fail.txtar")
		if _, err := os.Stat(pass); err != nil {
			t.Errorf("%s has no pass.txtar", c.ID)
			continue
		}
		a, err := fixture.Parse(fail)
		if err != nil {
			t.Errorf("%s: %v", c.ID, err)
			continue
		}
		if a.Base != pass {
			t.Errorf("%s: fail.txtar is layered on %q, not on pass.txtar", c.ID, a.Base)
		}
		if a.Want != "" && a.Want != string(check.Fail) {
			t.Errorf("%s: fail.txtar wants %s", c.ID, a.Want)
		}
		if p, err := fixture.Parse(pass); err != nil || p.Want != "" && p.Want != string(check.Pass) {
			t.Errorf("%s: pass.txtar: %v, wants %s", c.ID, err, p.Want)
		}
	}
}

// Every directory of fixtures belongs to a check.
func TestNoStrayFixtures(t *testing.T) {
	known := map[string]bool{}
	for _, c := range checks.All() {
		known[c.ID] = true
	}
	dirs, err := os.ReadDir(fixtures)
	if err != nil && len(known) > 0 {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !known[d.Name()] {
			t.Errorf("testdata/checks/%s: there is no such check", d.Name())
		}
	}
}

// The base hosts are healthy: no check fails or warns on them as they are.
func TestBaseHostsAreHealthy(t *testing.T) {
	hosts, err := filepath.Glob("../testdata/hosts/*.txtar")
	if err != nil || len(hosts) < 5 {
		t.Fatalf("base hosts: %v, %v", hosts, err)
	}
	for _, p := range hosts {
		if strings.HasSuffix(p, "-sick.txtar") {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) {
			t.Parallel()
			f := fixture.Load(t, p)
			for _, r := range judge(t, p, f, checks.All()).Results {
				for _, g := range r.Findings {
					complete(t, &g)
					if g.Status == check.Fail || g.Status == check.Warn {
						t.Errorf("%s %s %s: want %s; got %s; %s", g.Status, g.Check, g.Subject, g.Want, g.Got, g.Why)
					}
				}
			}
		})
	}
}
