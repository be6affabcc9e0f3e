// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// What a plugin may write (nagios-plugins.org/doc/guidelines.html): one line
// with the state, performance data behind the only "|", then more lines.
var (
	nagiosFirst = regexp.MustCompile(`^HOSTCHECK (OK|WARNING|CRITICAL|UNKNOWN) - [^|]+?( \| ([^|]+))?$`)
	perfdata    = regexp.MustCompile(`^[a-z]+=\d+;\d*;\d*;\d*$`)
)

// plugin reads the output of a plugin strictly, and gives its state's word and
// the lines below the first.
func plugin(t *testing.T, b []byte) (state string, lines []string) {
	t.Helper()
	s := string(b)
	lines = strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	m := nagiosFirst.FindStringSubmatch(lines[0])
	if m == nil || !strings.HasSuffix(s, "\n") {
		t.Fatalf("the first line is %q", lines[0])
	}
	for datum := range strings.FieldsSeq(m[3]) {
		if !perfdata.MatchString(datum) {
			t.Errorf("performance data %q", datum)
		}
	}
	if strings.Count(s, "|") > 1 || len(b) > 4000 || len(lines[0]) > 700 || !utf8.ValidString(s) || report.Clean(strings.ReplaceAll(s, "\n", "")) != strings.ReplaceAll(s, "\n", "") {
		t.Errorf("%d bytes, the first line %d, or not clean: %q", len(b), len(lines[0]), s)
	}
	return m[1], lines[1:]
}

func TestNagiosGolden(t *testing.T) {
	b := report.Nagios(report.New(input(results())), false)
	plugin(t, b)
	golden(t, "report/nagios.txt", string(b))
}

// The states are ordered otherwise than the exit codes, and nothing that was
// not judged is OK.
func TestNagiosState(t *testing.T) {
	pass := check.Finding{Status: check.Pass, Evidence: seen("/x", "1")}
	is := func(s check.Status) check.Finding { return check.Finding{Status: s, Got: "got", Why: "why"} }
	pending := check.Finding{Status: check.Fail, Pending: true}
	for name, tt := range map[string]struct {
		finding  check.Finding
		alone    bool // nothing passes beside it
		failOn   check.Status
		required bool
		late     bool
		signal   int
		state    int
	}{
		"pass":               {finding: pass, state: report.NagiosOK},
		"fail":               {finding: is(check.Fail), state: report.NagiosCritical},
		"fail, cut short":    {finding: is(check.Fail), late: true, state: report.NagiosCritical},
		"warn":               {finding: is(check.Warn), state: report.NagiosWarning},
		"warn counts":        {finding: is(check.Warn), failOn: check.Warn, state: report.NagiosCritical},
		"warn, required":     {finding: is(check.Warn), required: true, state: report.NagiosWarning},
		"skip":               {finding: is(check.Skip), state: report.NagiosOK},
		"skip alone":         {finding: is(check.Skip), alone: true, state: report.NagiosUnknown},
		"unknown":            {finding: is(check.Unknown), state: report.NagiosOK},
		"unknown, required":  {finding: is(check.Unknown), required: true, state: report.NagiosUnknown},
		"unknown alone":      {finding: is(check.Unknown), alone: true, state: report.NagiosUnknown},
		"error, required":    {finding: is(check.Error), required: true, state: report.NagiosUnknown},
		"pending":            {finding: pending, state: report.NagiosWarning},
		"waived":             {finding: check.Finding{Status: check.Fail, Waiver: livedWith}, state: report.NagiosOK},
		"interrupted":        {finding: pass, signal: 15, state: report.NagiosUnknown},
		"cut short":          {finding: pass, late: true, state: report.NagiosUnknown},
		"pending, cut short": {finding: pending, late: true, state: report.NagiosUnknown},
		"fail and interrupt": {finding: is(check.Fail), signal: 15, state: report.NagiosUnknown},
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
			word, _ := plugin(t, report.Nagios(r, tt.late))
			if got := r.NagiosState(tt.late); got != tt.state || word != []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[tt.state] {
				t.Errorf("state %d, and the line says %s; want %d", got, word, tt.state)
			}
		})
	}
	mostUnknown := check.Result{Check: &check.Check{ID: "a.it"}, Findings: []check.Finding{is(check.Unknown), is(check.Error), pass}}
	if r := report.New(report.Input{Results: []check.Result{mostUnknown}, FailOn: check.Fail}); r.Summary.Exit != 0 || r.NagiosState(false) != report.NagiosUnknown {
		t.Errorf("most could not be judged: exit %d, state %d", r.Summary.Exit, r.NagiosState(false))
	}
}

// However much there is to say, and whatever a host calls itself, it fits what
// the engine reads.
func TestNagiosHostile(t *testing.T) {
	_, lines := plugin(t, report.Nagios(seeded(evil).Report, false))
	if _, calm := plugin(t, report.Nagios(seeded(harmless).Report, false)); len(lines) != len(calm) {
		t.Errorf("%d lines where the harmless text has %d", len(lines), len(calm))
	}
	var rs []check.Result
	for i := range 300 {
		c := &check.Check{ID: fmt.Sprintf("a.it%d", i), Title: "It"}
		long := fmt.Sprintf("%d|%s\n", i, strings.Repeat("ü→|", 400))
		rs = append(rs, check.Result{Check: c, Findings: []check.Finding{{Status: check.Fail, Subject: long, Want: long, Got: long}}})
	}
	_, lines = plugin(t, report.Nagios(report.New(report.Input{Results: rs, FailOn: check.Fail}), false))
	if last := lines[len(lines)-1]; last != fmt.Sprintf("and %d more", 300-len(lines)+1) {
		t.Errorf("it does not say how much is left out: %q below %d lines", last, len(lines)-1)
	}
	word, lines := plugin(t, report.NagiosUnjudged("cannot read it: |\x1b[2J\n  line 3\r\n"+strings.Repeat("x", 5000)))
	if word != "UNKNOWN" || len(lines) != 2 {
		t.Errorf("%s, and %q", word, lines)
	}
}
