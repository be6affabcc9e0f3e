// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// npdLine reads what node-problem-detector would: one line, of bytes that may
// be cut anywhere.
func npdLine(t *testing.T, b []byte) string {
	t.Helper()
	line, rest, ok := strings.Cut(string(b), "\n")
	if !ok || rest != "" || line == "" || len(line) > 1000 {
		t.Errorf("%d bytes, not one line: %.200q", len(b), b)
	}
	if i := bytes.IndexFunc(b[:len(b)-1], func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		t.Errorf("byte %d is not printable ASCII: %.200q", i, b)
	}
	return line
}

func TestNPDState(t *testing.T) {
	pass := check.Finding{Status: check.Pass, Evidence: seen("/x", "1")}
	is := func(s check.Status) check.Finding {
		return check.Finding{Status: s, Subject: "eth0", Got: "100G", Want: "400G", Why: "it may not be read"}
	}
	pending := is(check.Fail)
	pending.Pending = true
	waived := is(check.Fail)
	waived.Waiver = livedWith
	for name, tt := range map[string]struct {
		finding  check.Finding
		alone    bool
		failOn   check.Status
		required bool
		late     bool
		signal   int
		state    int
		line     string // that the output begins with
	}{
		"pass":               {finding: pass, state: report.NPDOK, line: "FIT: 2 pass"},
		"fail":               {finding: is(check.Fail), state: report.NPDProblem, line: "FAIL a.it eth0: 100G, want 400G"},
		"fail, cut short":    {finding: is(check.Fail), late: true, state: report.NPDProblem, line: "FAIL a.it eth0"},
		"warn":               {finding: is(check.Warn), state: report.NPDOK, line: "FIT, with warnings: 1 warn, 1 pass; warn a.it"},
		"warn counts":        {finding: is(check.Warn), failOn: check.Warn, state: report.NPDProblem, line: "warn a.it eth0"},
		"skip alone":         {finding: is(check.Skip), alone: true, state: report.NPDUnknown, line: "INCOMPLETE: nothing could be judged: 1 skip"},
		"unknown":            {finding: is(check.Unknown), state: report.NPDOK, line: "FIT, as far as it could be judged"},
		"unknown, required":  {finding: is(check.Unknown), required: true, state: report.NPDUnknown, line: "unknown a.it eth0: it may not be read"},
		"unknown alone":      {finding: is(check.Unknown), alone: true, state: report.NPDUnknown, line: "unknown a.it eth0: it may"},
		"error, required":    {finding: is(check.Error), required: true, state: report.NPDUnknown, line: "ERROR a.it eth0: it may"},
		"pending":            {finding: pending, state: report.NPDProblem, line: "pending a.it eth0: 100G, want 400G"},
		"waived":             {finding: waived, state: report.NPDOK, line: "FIT but for what is waived"},
		"interrupted":        {finding: pass, signal: 15, state: report.NPDUnknown, line: "interrupted"},
		"fail and interrupt": {finding: is(check.Fail), signal: 15, state: report.NPDUnknown, line: "interrupted; FAIL a.it"},
		"cut short":          {finding: pass, late: true, state: report.NPDUnknown, line: "the run took too long"},
		"pending, cut short": {finding: pending, late: true, state: report.NPDUnknown, line: "the run took too long; pending a.it"},
	} {
		t.Run(name, func(t *testing.T) {
			results := []check.Result{{Check: &check.Check{ID: "a.it", Title: "It"}, Findings: []check.Finding{tt.finding}}}
			if !tt.alone {
				results = append(results, check.Result{Check: &check.Check{ID: "b.other"}, Findings: []check.Finding{pass}})
			}
			failOn := tt.failOn
			if failOn == "" {
				failOn = check.Fail
			}
			r := report.New(report.Input{Results: results, FailOn: failOn, Signal: tt.signal, Required: func(id string) bool { return tt.required && id == "a.it" }})
			line := npdLine(t, report.NPD(r, tt.late))
			if got := r.NPDState(tt.late); got != tt.state || !strings.HasPrefix(line, tt.line) {
				t.Errorf("state %d: %q; want %d: %q", got, line, tt.state, tt.line)
			}
		})
	}
	mostUnknown := check.Result{Check: &check.Check{ID: "a.it"}, Findings: []check.Finding{is(check.Unknown), is(check.Error), pass}}
	if r := report.New(report.Input{Results: []check.Result{mostUnknown}, FailOn: check.Fail}); r.Summary.Exit != 0 || r.NPDState(false) != report.NPDUnknown {
		t.Errorf("most could not be judged: exit %d, state %d", r.Summary.Exit, r.NPDState(false))
	}
}

// Whatever a host calls its parts: one line, and cut where it is too long.
func TestNPDHostile(t *testing.T) {
	npdLine(t, report.NPD(seeded(evil).Report, false))
	var rs []check.Result
	for i := range 300 {
		long := fmt.Sprintf("%d\n%s\xff", i, strings.Repeat("ü→\x1b[2J", 400))
		rs = append(rs, check.Result{Check: &check.Check{ID: fmt.Sprintf("a.it%d", i)}, Findings: []check.Finding{{Status: check.Fail, Subject: long, Want: long, Got: long}}})
	}
	if line := npdLine(t, report.NPD(report.New(report.Input{Results: rs, FailOn: check.Fail}), false)); !strings.HasSuffix(line, "...") {
		t.Errorf("it does not say that it is cut: %q", line)
	}
	if line := npdLine(t, report.NPDUnjudged("cannot read it:\n  \x1b[2J"+strings.Repeat("x", 5000))); !strings.HasPrefix(line, "hostcheck did not judge: cannot read it:") {
		t.Error(line)
	}
}
