// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

var livedWith = &profile.Waiver{Owner: "ops", Until: "2027-03-31", Reason: "spare part is ordered"}

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// The lines of the text format, version 0.0.4, as far as a textfile may use it:
// no time stamps.
var (
	helpLine   = regexp.MustCompile(`^# HELP ([a-z_]+) (\S.*)$`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-z_]+) gauge$`)
	seriesLine = regexp.MustCompile(`^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\[\\"n])*",?)*)\})? (-?[0-9]+)$`)
	label      = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\[\\"n])*)"`)
)

// textfile reads metrics strictly: each family is announced once, in front of
// its series, and no series stands twice.
func textfile(t *testing.T, b []byte) map[string]int {
	t.Helper()
	if !utf8.Valid(b) || !strings.HasSuffix(string(b), "\n") {
		t.Fatalf("not whole lines of UTF-8: %q", b)
	}
	got := map[string]int{}
	seen := map[string]bool{}
	family := ""
	for i, l := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		help, kind, series := helpLine.FindStringSubmatch(l), typeLine.FindStringSubmatch(l), seriesLine.FindStringSubmatch(l)
		switch {
		case help != nil && !seen[help[1]]:
			family, seen[help[1]] = help[1], true
		case kind != nil && kind[1] == family:
		case series != nil && series[1] == family:
			name := series[1]
			for _, m := range label.FindAllStringSubmatch(series[2], -1) {
				name += " " + m[0]
			}
			n, err := strconv.Atoi(series[3])
			if _, twice := got[name]; twice || err != nil {
				t.Errorf("line %d: %s stands twice, or %v", i+1, name, err)
			}
			got[name] = n
		default:
			t.Errorf("line %d is out of place: %q", i+1, l)
		}
	}
	return got
}

func TestPrometheusGolden(t *testing.T) {
	b := report.Prometheus(report.New(input(results())), at)
	textfile(t, b)
	golden(t, "report/prometheus.prom", string(b))
	b = report.PrometheusUnjudged(report.Tool{Version: "v1.2.3"}, report.ExitUsage, at)
	if got, want := textfile(t, b), map[string]int{
		"hostcheck_exit_code": 2, "hostcheck_last_run_timestamp_seconds": int(at.Unix()),
		`hostcheck_info version="v1.2.3" profile_hash="" intent="" intent_source=""`: 1,
	}; !maps.Equal(got, want) {
		t.Errorf("of a host that was not judged: %s", cmp.Diff(want, got))
	}
}

// A check is as bad as its worst finding, and 0 only where it passed.
func TestPrometheusWorst(t *testing.T) {
	order := []check.Finding{
		{Status: check.Skip}, {Status: check.Pass}, {Status: check.Fail, Waiver: livedWith}, {Status: check.Fail, Pending: true},
		{Status: check.Unknown}, {Status: check.Warn}, {Status: check.Error}, {Status: check.Fail},
	}
	for i, bad := range order {
		for j, better := range order[:i+1] {
			c := &check.Check{ID: "a.it", Severity: check.High}
			for _, fs := range [][]check.Finding{{bad, better}, {better, bad}} {
				r := report.New(report.Input{Results: []check.Result{{Check: c, Findings: fs}}, FailOn: check.Fail})
				got := textfile(t, report.Prometheus(r, at))
				if n, there := got[`hostcheck_check_status id="a.it" severity="high"`]; !there || n != i-1 {
					t.Errorf("findings %d and %d: the status is %d, want %d", i, j, n, i-1)
				}
				if got["hostcheck_exit_code"] != r.Summary.Exit {
					t.Errorf("exit code %d, want %d", got["hostcheck_exit_code"], r.Summary.Exit)
				}
			}
		}
	}
}

// The number of series is that of checks, however many devices there are; and
// what a host calls itself breaks no line.
func TestPrometheusSeries(t *testing.T) {
	c := &check.Check{ID: "a.it", Severity: check.High}
	many := check.Result{Check: c}
	for i := range 5000 {
		many.Findings = append(many.Findings, check.Finding{Status: check.Fail, Subject: fmt.Sprint("eth", i), Got: evil})
	}
	in := input([]check.Result{many})
	in.Tool.Version, in.Profile.Intent, in.Profile.Hash = evil, "a\\b\"c\nd", evil
	in.Host.Name = ptr(evil)
	got := textfile(t, report.Prometheus(report.New(in), at))
	if n := len(got); n != 1+1+1+1+8+1 {
		t.Errorf("%d series of one check: %v", n, slices.Sorted(maps.Keys(got)))
	}
	if got[`hostcheck_findings status="fail"`] != 5000 {
		t.Errorf("the failures are not counted: %v", got)
	}
	textfile(t, report.Prometheus(seeded(evil).Report, at))
}
