// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

func TestUnmet(t *testing.T) {
	setting := func(name string) plan.Setting { return plan.Setting{Kind: "lab", Name: name} }
	finding := func(subject string, s check.Status, wants ...string) check.Finding {
		f := check.Finding{Check: "lab.queue", Subject: subject, Status: s}
		for _, w := range wants {
			f.Fix = append(f.Fix, plan.Wish{Setting: setting(w), Check: "lab.queue"})
		}
		return f
	}
	all := func(fs ...check.Finding) []check.Result { return []check.Result{{Findings: fs}} }
	failing := all(finding("a", check.Fail, "x"))
	whole := report.PlanView{Plan: plan.Plan{Changes: []plan.Change{{Setting: setting("x")}}}}
	refused := report.PlanView{Plan: plan.Plan{Refused: []plan.Refusal{{Setting: setting("y")}}}}
	held := report.PlanView{Held: []plan.Change{{Setting: plan.Setting{Kind: plan.KindFile, Target: "/etc/y"}, Why: "lab.other, lab.queue: because"}}}
	broken := report.PlanView{Plan: plan.Plan{Refused: []plan.Refusal{{Setting: plan.Setting{Kind: plan.KindFile, Target: "/etc/y"}, Why: "lab.queue: because"}}}}
	pending := finding("a", check.Fail)
	pending.Pending = true
	for name, c := range map[string]struct {
		before, after []check.Result
		view          report.PlanView
		tree          bool
		want          string
	}{
		"passes":                         {failing, all(finding("a", check.Pass)), whole, false, ""},
		"skips":                          {failing, all(finding("", check.Skip)), whole, false, ""},
		"is pending":                     {failing, all(pending), whole, false, ""},
		"warns now":                      {failing, all(finding("a", check.Warn)), whole, false, ""},
		"still fails":                    {failing, all(finding("a", check.Fail)), whole, false, `lab.queue a is still "fail"`},
		"still fails in a tree":          {failing, all(finding("a", check.Fail)), whole, true, `lab.queue a is still "fail"`},
		"not known now":                  {failing, all(finding("a", check.Unknown)), whole, false, `lab.queue a is still "unknown"`},
		"broke":                          {failing, all(finding("a", check.Error)), whole, false, `is still "error"`},
		"still warns":                    {all(finding("a", check.Warn, "x")), all(finding("a", check.Warn)), whole, false, `is still "warn"`},
		"another fails":                  {all(finding("a", check.Fail, "x"), finding("b", check.Pass)), all(finding("a", check.Pass), finding("b", check.Fail)), whole, false, "lab.queue b is still"},
		"another warns":                  {all(finding("a", check.Fail, "x"), finding("b", check.Pass)), all(finding("a", check.Pass), finding("b", check.Warn)), whole, false, ""},
		"another fails in a tree":        {all(finding("a", check.Fail, "x"), finding("b", check.Pass)), all(finding("a", check.Pass), finding("b", check.Fail)), whole, true, ""},
		"other words":                    {failing, all(finding("c", check.Fail)), whole, false, "lab.queue c is still"},
		"one without a fix":              {all(finding("a", check.Fail, "x"), finding("b", check.Fail)), all(finding("a", check.Pass), finding("b", check.Fail)), whole, false, ""},
		"a part was refused":             {all(finding("a", check.Fail, "x", "y"), finding("b", check.Fail, "x")), all(finding("a", check.Fail), finding("b", check.Pass)), refused, false, ""},
		"a part was refused, gets worse": {all(finding("a", check.Warn, "x", "y"), finding("b", check.Fail, "x")), all(finding("a", check.Fail), finding("b", check.Pass)), refused, false, "lab.queue a is still"},
		"its file is held back":          {failing, all(finding("a", check.Fail)), held, false, ""},
		"its file was refused":           {failing, all(finding("a", check.Fail)), broken, false, ""},
		"no check of ours":               {nil, all(finding("a", check.Fail)), whole, false, ""},
		"many fail": {
			all(finding("a", check.Fail, "x"), finding("b", check.Fail, "x"), finding("c", check.Fail, "x"), finding("d", check.Fail, "x"), finding("e", check.Fail, "x")),
			all(finding("a", check.Fail), finding("b", check.Fail), finding("c", check.Fail), finding("d", check.Fail), finding("e", check.Fail)), whole, false, "; and 2 more",
		},
	} {
		err := unmet(c.before, c.after, c.view, !c.tree)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		why, id string
		want    bool
	}{
		{"lab.queue: small", "lab.queue", true},
		{"lab.depth, lab.queue: small", "lab.queue", true},
		{"lab.depth", "lab.depth", true},
		{"lab.queues: small", "lab.queue", false},
		{"small: lab.queue", "lab.queue", false},
		{"", "", false},
		{"lab.depth: x", "lab.queue, lab.depth", true},
	} {
		if got := names(c.why, c.id); got != c.want {
			t.Errorf("%q and %q: %v, want %v", c.why, c.id, got, c.want)
		}
	}
}

// A setting that goes through several values is held back as a whole, so that
// what is left of the plan still begins where the host stands.
func TestHold(t *testing.T) {
	change := func(name string, tier plan.Tier) plan.Change {
		return plan.Change{Setting: plan.Setting{Kind: "lab", Name: name}, Tier: tier}
	}
	p := plan.Plan{Changes: []plan.Change{change("a", plan.Safe), change("b", plan.Link), change("c", plan.Safe), change("a", plan.Link), change("d", plan.Boot)}}
	got, held := hold(p, []plan.Tier{plan.Safe})
	if len(got.Changes) != 1 || got.Changes[0].Name != "c" || len(held) != 4 || got.Hash == "" || len(p.Changes) != 5 {
		t.Errorf("%+v %+v", got, held)
	}
	got, held = hold(p, []plan.Tier{plan.Safe, plan.Link, plan.Boot})
	if len(got.Changes) != 5 || held != nil {
		t.Errorf("%+v %+v", got, held)
	}
	got, _ = hold(p, nil)
	if len(got.Changes) != 0 || got.Hash != "" {
		t.Errorf("%+v", got)
	}
}

func TestGuards(t *testing.T) {
	root := t.TempDir()
	plantest.Files(t, root, labTree())
	plantest.Files(t, root, map[string]string{"/boot/loader/entries/a.conf": "title a\n"})
	read := func() guards {
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		return readGuards(h)
	}
	before := read()
	if got, err := before.compare(read(), plan.Plan{}); err != nil || len(got) != 2 || !got[0].Held || !got[1].Held {
		t.Errorf("%+v %v", got, err)
	}
	plantest.Files(t, root, map[string]string{"/boot/loader/entries/b.conf": "title b\n", "/boot/loader/entries/a.conf": "title c\n"})
	got, err := before.compare(read(), plan.Plan{})
	if err == nil || got[1].Held || !strings.Contains(err.Error(), "a.conf changed; /boot/loader/entries/b.conf changed") {
		t.Errorf("%+v %v", got, err)
	}
	boot := plan.Plan{Changes: []plan.Change{{Tier: plan.Boot}}}
	if _, err := before.compare(read(), boot); err != nil {
		t.Errorf("a plan for the next boot may change it: %v", err)
	}
}

// --allow-mgmt reaches the verb that asks for it.
func TestAllowMgmt(t *testing.T) {
	for _, want := range []bool{false, true} {
		l := newLab(t)
		a := l.on(nil, nil, nil)
		a.verbs = []plan.Verb{labVerb{}, fixes.Ethtool{}}
		got := false
		for _, v := range a.engine(want).Verbs {
			if e, ok := v.(fixes.Ethtool); ok {
				got = e.AllowMgmt
			}
		}
		if got != want {
			t.Errorf("AllowMgmt is %v, want %v", got, want)
		}
	}
}
