// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Every result of a task is of its schema, and so is the fact.
func TestAnsibleSchemas(t *testing.T) {
	view, done := samplePlan(), applied()
	planned := report.AnsiblePlanned(view, view.Judged)
	planned.Show(view.Plan.Changes)
	bad := failed(plan.Incomplete, plan.Left{Change: view.Plan.Changes[0], ByHand: "by hand"})
	tool := report.Tool{Version: "dev"}
	for name, docs := range map[string][]any{
		"ansible": {
			report.AnsibleFailed(report.ExitBusy, "busy"), report.AnsibleChecked(view.Judged), planned,
			report.AnsibleFixed(view, done.Fix, done.Judged), report.AnsibleFixed(view, bad.Fix, nil), report.AnsibleBack(done.Result, 0),
		},
		"fact": {report.NewAnsibleFact(view.Judged), report.AnsibleFactFailed(tool, report.ExitUsage, "no such profile")},
	} {
		for _, doc := range docs {
			b, err := report.JSONLine(doc)
			if err != nil {
				t.Fatal(err)
			}
			validate(t, name, b)
		}
		schema, err := report.JSON(report.JSONSchema(name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "schema/"+name+".json", string(schema))
	}
}

// Nothing of a host drives the terminal that Ansible shows a difference on,
// and all that can be told apart is.
func TestAnsibleDiff(t *testing.T) {
	const evil = "x\x1b]0;owned\x07\r\u202ey\xff\ufffd"
	const clean = `x\x1b]0;owned\a\r\u202ey\xff` + "\ufffd"
	a := report.AnsibleFailed(0, "a\x1b[2J\nb")
	if a.Msg != `a\x1b[2J`+"\nb" {
		t.Errorf("msg %q", a.Msg)
	}
	a.Show([]plan.Change{
		file("/etc/"+evil, plan.Text("a\tb \n"+evil+"\n"), plan.Absent, ""),
		knob("k", "t", evil, "1", "2"+evil, plan.Safe, "", "", false),
		file("/etc/large", plan.Text("x"), plan.Text(strings.Repeat("x", 104449)), ""),
	})
	want := []string{
		"/etc/" + clean + " | /etc/" + clean + " (absent) | a\tb \n" + clean + "\n | ",
		"k t " + clean + " | k t " + clean + " | 1\n | 2" + clean + "\n",
		"/etc/large | /etc/large | 104448",
	}
	for i, d := range a.Diff {
		got := d.BeforeHeader + " | " + d.AfterHeader + " | "
		if d.Larger > 0 {
			got += fmt.Sprint(d.Larger)
			if d.Before != nil || d.After != nil {
				t.Error("a large text is there")
			}
		} else {
			got += *d.Before + " | " + *d.After
		}
		if got != want[i] {
			t.Errorf("%q, want %q", got, want[i])
		}
	}
}

// A host with thousands of findings and changes gives a small result: the worst
// first, and how many are left out.
func TestAnsibleBounds(t *testing.T) {
	var fs []check.Finding
	var changes []plan.Change
	for i := range 5000 {
		fs = append(fs, check.Finding{Subject: fmt.Sprint("dev", i), Status: check.Warn, Want: "1", Got: "0"})
		changes = append(changes, knob("k", "t", fmt.Sprint(i), "1", "2", plan.Safe, "", "", false))
	}
	fs = append(fs, check.Finding{Subject: "last", Status: check.Fail, Want: "1", Got: ""}, check.Finding{Status: check.Pass})
	r := report.New(report.Input{FailOn: check.Fail, Results: []check.Result{{Check: &check.Check{ID: "a.b"}, Findings: fs}}})
	a := report.AnsiblePlanned(report.PlanView{Judged: r, Plan: plan.Plan{Changes: changes}}, r)
	a.Show(changes)
	var files []plan.Change
	for range 100 {
		files = append(files, file("/etc/x", plan.Text(strings.Repeat("x", 90000)), plan.Text(strings.Repeat("y", 90000)), ""))
	}
	many := report.AnsibleFailed(0, "")
	many.Show(files)
	if b, err := report.JSONLine(many); err != nil || len(b) < 1<<20-200000 || len(b) > 1<<20+100000 || many.Diff[99].Larger == 0 {
		t.Errorf("%d bytes of differences, %v", len(b), err)
	}
	b, err := report.JSONLine(a)
	if err != nil || len(b) > 100<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if len(a.Findings) != 100 || a.Findings[0].Subject != "last" || len(a.Changes) != 100 || len(a.Diff) != 100 {
		t.Errorf("%d findings, the first of %q, %d changes, %d differences", len(a.Findings), a.Findings[0].Subject, len(a.Changes), len(a.Diff))
	}
	if a.LeftOut["findings"] != 4901 || a.LeftOut["changes"] != 4900 || a.LeftOut["diff"] != 4900 || len(a.LeftOut) != 3 {
		t.Errorf("left out: %v", a.LeftOut)
	}
	if !strings.HasPrefix(a.Msg, "5000 changes would be made; expected then: NOT FIT (1 fail, 5000 warn, 1 pass): a.b last: ") || !strings.HasSuffix(a.Msg, ", want 1") {
		t.Errorf("msg %q", a.Msg)
	}
}

// The fact names each check once, and only what is judged without a doubt is fit.
func TestAnsibleFact(t *testing.T) {
	result := func(id string, fs ...check.Finding) check.Result {
		return check.Result{Check: &check.Check{ID: id}, Findings: fs}
	}
	pass := result("a.pass", check.Finding{Status: check.Pass})
	for name, c := range map[string]struct {
		results []check.Result
		require bool
		fit     bool
		fail    string
		unknown string
	}{
		"fit":        {[]check.Result{pass, result("a.warn", check.Finding{Status: check.Warn})}, false, true, "", ""},
		"fails":      {[]check.Result{pass, result("a.fail", check.Finding{Status: check.Fail, Subject: "x"}, check.Finding{Status: check.Fail, Subject: "y"})}, false, false, "a.fail", ""},
		"pending":    {[]check.Result{pass, result("a.boot", check.Finding{Status: check.Fail, Pending: true})}, false, false, "", ""},
		"required":   {[]check.Result{pass, result("a.err", check.Finding{Status: check.Error})}, true, false, "", "a.err"},
		"not judged": {[]check.Result{result("a.unk", check.Finding{Status: check.Unknown})}, false, false, "", "a.unk"},
		"nothing":    {nil, false, false, "", ""},
	} {
		f := report.NewAnsibleFact(report.New(report.Input{FailOn: check.Fail, Results: c.results, Required: func(string) bool { return c.require }}))
		if f.Fit != c.fit || strings.Join(f.Fail, " ") != c.fail || strings.Join(f.Unknown, " ") != c.unknown || f.Fit != (f.Exit == 0) || f.Reboot != (name == "pending") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
