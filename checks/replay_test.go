// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

// replayed is the replay law on a fixture: what was asked of it, with what came
// back, gives the same report; and a report when it is redacted.
func replayed(t *testing.T, path string, f *fixture.Fixture, c *check.Check, first *trial.Outcome) {
	t.Helper()
	if raced {
		return // minutes more, and no other goroutine than in the first run
	}
	s, err := first.Facts.Host().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again := func(s *host.Snapshot) *trial.Outcome {
		out, err := trial.Run(host.Replay(s, "root"), []*check.Check{c}, trial.Options{
			Profile: f.Profile, Set: f.Set, Intent: f.Intent, Dir: filepath.Dir(path),
			OnPanic: func(id string, stack []byte) { t.Errorf("%s panicked:\n%s", id, stack) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if d := cmp.Diff(first.Report, again(s).Report, cmp.AllowUnexported(report.Finding{})); d != "" {
		t.Errorf("the replay differs:\n%s", d)
	}
	if filepath.Base(path) != "fail.txtar" {
		return // what is redacted is the same for the others
	}
	redacted, _, err := bundle.Redact(s, bundle.Strict)
	if err != nil {
		t.Fatal(err)
	}
	got := again(redacted).Report
	if len(got.Findings) != len(first.Report.Findings) || got.Summary != first.Report.Summary {
		t.Errorf("redacted, the verdict is %+v; it was %+v", got.Summary, first.Report.Summary)
	}
}
