// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// junitForm is the elements and attributes that Jenkins' junit-10.xsd knows,
// as far as a report uses them: attributes, then elements.
var junitForm = map[string][2][]string{
	"testsuites": {{"name", "tests", "failures", "errors"}, {"testsuite"}},
	"testsuite":  {{"name", "tests", "failures", "errors", "skipped", "timestamp", "hostname"}, {"properties", "testcase"}},
	"properties": {nil, {"property"}},
	"property":   {{"name", "value"}, nil},
	"testcase":   {{"classname", "name"}, {"failure", "error", "skipped", "system-out"}},
	"failure":    {{"message", "type"}, nil},
	"error":      {{"message", "type"}, nil},
	"skipped":    {{"message", "type"}, nil},
	"system-out": {nil, nil},
}

// junit checks the form and the counts of JUnit XML, and gives what became of
// each case, by its name.
func junit(t *testing.T, r *report.Report) (outcomes map[string]string, elements []string) {
	t.Helper()
	b, err := report.JUnit(r)
	if err != nil {
		t.Fatal(err)
	}
	outcomes = map[string]string{}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	var open []string
	var name string
	counts := []map[string]int{}
	wanted := []map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return outcomes, elements
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, b)
		}
		switch e := token.(type) {
		case xml.StartElement:
			tag := e.Name.Local
			form, known := junitForm[tag]
			if !known || len(open) == 0 && tag != "testsuites" || len(open) > 0 && !slices.Contains(junitForm[open[len(open)-1]][1], tag) {
				t.Fatalf("<%s> stands below %v", tag, open)
			}
			open, elements = append(open, tag), append(elements, tag)
			want := map[string]int{}
			for _, a := range e.Attr {
				if !slices.Contains(form[0], a.Name.Local) {
					t.Errorf("<%s> has an attribute %s", tag, a.Name.Local)
				}
				if n, err := strconv.Atoi(a.Value); err == nil {
					want[a.Name.Local] = n
				}
				if tag == "testcase" && a.Name.Local == "name" {
					name = a.Value
					outcomes[name] = "pass"
				}
			}
			switch tag {
			case "testsuites", "testsuite":
				counts, wanted = append(counts, map[string]int{}), append(wanted, want)
			case "testcase", "failure", "error", "skipped":
				if tag != "testcase" {
					outcomes[name] = tag
				}
				for _, c := range counts {
					c[map[string]string{"testcase": "tests", "failure": "failures", "error": "errors", "skipped": "skipped"}[tag]]++
				}
			}
		case xml.EndElement:
			open = open[:len(open)-1]
			if e.Name.Local == "testsuite" || e.Name.Local == "testsuites" {
				n := len(counts) - 1
				for k, v := range wanted[n] {
					if counts[n][k] != v {
						t.Errorf("<%s> says %d %s, and there are %d", e.Name.Local, v, k, counts[n][k])
					}
				}
				counts, wanted = counts[:n], wanted[:n]
			}
		}
	}
}

// A JUnit file is red where the exit code is 1 or 3, and nowhere else.
func TestJUnitFollowsTheExitCode(t *testing.T) {
	pass := check.Finding{Status: check.Pass, Evidence: []check.Evidence{{Source: "/x", Value: "1"}}}
	is := func(s check.Status) check.Finding { return check.Finding{Status: s, Got: "got", Why: "why"} }
	pending := check.Finding{Status: check.Fail, Pending: true}
	for name, tt := range map[string]struct {
		finding  check.Finding
		alone    bool // nothing passes beside it
		failOn   check.Status
		required bool
		signal   int
		outcome  string
		exit     int
	}{
		"pass":                 {finding: pass, outcome: "pass"},
		"fail":                 {finding: is(check.Fail), outcome: "failure", exit: 1},
		"warn":                 {finding: is(check.Warn), outcome: "pass"},
		"warn counts":          {finding: is(check.Warn), failOn: check.Warn, outcome: "failure", exit: 1},
		"skip":                 {finding: is(check.Skip), outcome: "skipped"},
		"unknown":              {finding: is(check.Unknown), outcome: "skipped"},
		"unknown and required": {finding: is(check.Unknown), required: true, outcome: "error", exit: 3},
		"unknown alone":        {finding: is(check.Unknown), alone: true, outcome: "error", exit: 3},
		"error":                {finding: is(check.Error), outcome: "skipped"},
		"error and required":   {finding: is(check.Error), required: true, outcome: "error", exit: 3},
		"pending":              {finding: pending, outcome: "skipped", exit: 10},
		"interrupted":          {finding: is(check.Unknown), signal: 2, outcome: "error", exit: 130},
	} {
		t.Run(name, func(t *testing.T) {
			results := []check.Result{{Check: &check.Check{ID: "a.it"}, Findings: []check.Finding{tt.finding}}}
			if !tt.alone {
				results = append(results, check.Result{Check: &check.Check{ID: "b.other"}, Findings: []check.Finding{pass}})
			}
			failOn := tt.failOn
			if failOn == "" {
				failOn = check.Fail
			}
			r := report.New(report.Input{Results: results, FailOn: failOn, Signal: tt.signal, Required: func(id string) bool { return tt.required && id == "a.it" }})
			if outcomes, _ := junit(t, r); outcomes["it"] != tt.outcome || r.Summary.Exit != tt.exit {
				t.Errorf("the case is %q and the exit code %d, not %q and %d", outcomes["it"], r.Summary.Exit, tt.outcome, tt.exit)
			}
		})
	}
}

func TestJUnitHostile(t *testing.T) {
	_, calm := junit(t, seeded(harmless).Report)
	_, got := junit(t, seeded(evil).Report)
	if d := cmp.Diff(calm, got); d != "" || len(got) < 10 {
		t.Errorf("a text from the host changes the elements (-harmless +hostile):\n%s", d)
	}
}
