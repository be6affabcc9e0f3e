// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

func knob(kind, target, name, before, after string, tier plan.Tier, why, disturbs string, persist bool) plan.Change {
	c := plan.Change{
		Setting: plan.Setting{Kind: kind, Target: target, Name: name}, Before: plan.Text(before), After: plan.Text(after),
		Tier: tier, Persist: persist, Why: why, Disturbs: disturbs,
	}
	c.Diff = plan.Diff(c)
	return c
}

func file(p string, before, after plan.Value, why string) plan.Change {
	c := plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: p}, Before: before, After: after, Tier: plan.Safe, Persist: true, Why: why}
	c.Diff = plan.Diff(c)
	return c
}

// samplePlan has every form of change and refusal.
func samplePlan() report.PlanView {
	const backlog = "sysctl.backlog: a burst of a 400 Gb/s port does not fit in the default queues"
	flap := func(n string) string { return n + " is down for about a second, and its flows with it" }
	p := plan.Plan{
		Tool: "v1.0.0", ProfileHash: strings.Repeat("ab", 32), Host: "gpu01",
		Changes: []plan.Change{
			file("/etc/sysctl.d/99-zz-hostcheck.conf", plan.Absent, plan.Text("# written by hostcheck\nnet.core.netdev_max_backlog = 250000\nnet.core.somaxconn = 16384\n"), backlog),
			knob("sysctl", "", "net.core.netdev_max_backlog", "1000", "250000", plan.Safe, backlog, "", true),
			knob("sysctl", "", "net.core.somaxconn", "4096", "16384", plan.Safe, backlog, "", true),
			file("/etc/modprobe.d/hostcheck.conf", plan.Text("options nvidia NVreg_X=1\noptions mlx5_core prof_sel=2\n"), plan.Text("options nvidia NVreg_X=1\noptions mlx5_core prof_sel=3\n"), "driver.options: the profile of the firmware decides on the number of keys"),
			file("/etc/modprobe.d/old.conf", plan.Text("blacklist mlx5_ib\n"), plan.Absent, "driver.modules: RDMA needs it"),
			knob("hugepages", "node0", "2048", "0", "1024", plan.Safe, "hugepages.pool: the pool of the profile", "", false),
			knob("sysfs", "", "/sys/kernel/mm/transparent_hugepage/enabled", "always", strings.Repeat("madvise ", 12), plan.Safe, "hugepages.thp: long values stand below each other", "", false),
			knob("ethtool", "0000:18:00.0 ens1np0", "rings rx", "1024", "8192", plan.Link, "rxfrag.rings: a larger ring rides out a burst", flap("ens1np0"), false),
			knob("ethtool", "0000:3b:00.0 ens2np0", "rings rx", "1024", "8192", plan.Link, "rxfrag.rings: a larger ring rides out a burst", flap("ens2np0"), false),
		},
		Refused: []plan.Refusal{
			{
				Setting: plan.Setting{Kind: "hugepages", Target: "node1", Name: "1048576"}, Want: "400", Reason: "400 pages of 1 GiB are more than the 384 GiB that node1 has",
				Steps: []string{"ask for fewer: --set hugepages.pools.1G.per_node=128"},
			},
			{Setting: plan.Setting{Kind: "manual", Target: "0000:18:00.0 ens1np0", Name: "firmware"}, Want: "28.43.2026", Reason: "firmware is shown, never done", Steps: []string{"mlxfwmanager -u -d 0000:18:00.0", "mlxfwreset -d 0000:18:00.0 reset"}},
			{Setting: plan.Setting{Kind: "manual", Target: "0000:3b:00.0 ens2np0", Name: "firmware"}, Want: "28.43.2026", Reason: "firmware is shown, never done", Steps: []string{"mlxfwmanager -u -d 0000:18:00.0", "mlxfwreset -d 0000:18:00.0 reset"}},
		},
	}
	held := knob("cmdline", "", "iommu", "", "pt", plan.Boot, "cmdline.required: DMA of the NICs goes through the IOMMU", "", true)
	held.Before = plan.Absent
	p.Seal()
	return report.PlanView{Judged: report.New(input(results())), Plan: p, Held: []plan.Change{held}, Command: []string{"hostcheck", "--fix"}, Final: true}
}

func applied() report.FixedView {
	v := samplePlan()
	r := report.New(input(results()))
	return report.FixedView{
		Fix: report.Fix{
			Schema: report.FixSchema, Plan: v.Document(), Exit: 1,
			Result:       report.NewResult(plan.Result{Txn: "20261121T080000-ab12", Outcome: plan.Applied, Changed: 9}, []string{"hostcheck"}),
			Guards:       []report.Guard{{Name: "default route", Held: true, Got: "as before, over bond0"}, {Name: "boot entries", Held: true, Got: "untouched"}},
			Verification: r.Findings[:6], Summary: &r.Summary,
		},
		Judged: r,
	}
}

func failed(o plan.Outcome, left ...plan.Left) report.FixedView {
	v := applied()
	v.Judged = nil
	v.Result = report.NewResult(plan.Result{
		Txn: "20261121T080000-ab12", Outcome: o, Left: left,
		Cause: errors.New(`cannot write "250000" to /proc/sys/net/core/netdev_max_backlog: the kernel refuses this value (invalid argument)`),
	}, []string{"hostcheck", "--root", "/mnt/a b"})
	return v
}

func sampleHistory() report.History {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	return report.NewHistory([]*plan.Txn{
		{ID: "20261001T080000-0001", Started: at.AddDate(0, 0, -51), State: plan.WasUndone, Plan: samplePlan().Plan},
		{ID: "20261119T080000-0002", Started: at.AddDate(0, 0, -2), State: plan.WasBack, Why: "sysctl net.core.somaxconn was set without an error, but still reads 4096: the write was ignored", Plan: samplePlan().Plan},
		{ID: "20261121T070000-0003", Started: at.Add(-time.Hour), State: plan.InForce, Plan: samplePlan().Plan},
		{ID: "20261121T075500-0004", Started: at.Add(-5 * time.Minute), State: plan.Unfinished, Plan: samplePlan().Plan},
		{ID: "20261121T075959-0005", State: plan.Unreadable, Why: "cannot decode its plan: \x1b]0;x\x07"},
	})
}

func sampleStatus() report.Status {
	p := report.NewPending(plan.Pending{
		Txn: &plan.Txn{ID: "20261121T075500-0004", Started: time.Date(2026, 11, 21, 7, 55, 0, 0, time.UTC), State: plan.Unfinished, Plan: samplePlan().Plan},
		Settings: []plan.Stand{
			{Drift: plan.Drift{Change: samplePlan().Plan.Changes[0], Live: plan.Absent}, Standing: plan.AsBefore},
			{Drift: plan.Drift{Change: samplePlan().Plan.Changes[1], Live: plan.Text("250000")}, Standing: plan.AsSet},
			{Drift: plan.Drift{Change: samplePlan().Plan.Changes[2], Live: plan.Text("777")}, Standing: plan.Drifted},
			{Drift: plan.Drift{Change: plan.Change{Setting: plan.Setting{Kind: "deadline", Name: "hostcheck-expire.timer"}, After: plan.Text("armed")}, Live: plan.Text("armed")}, Standing: plan.AsSet},
			{Drift: plan.Drift{Change: samplePlan().Plan.Changes[7], Err: errors.New("no such device")}, Standing: plan.Unread},
		},
	})
	none := report.Settings{Ignored: []report.Ignored{}}
	return report.Status{Schema: report.StatusSchema, Pending: []report.Pending{p}, Settings: none, Applied: []string{"20261121T070000-0003"}, Exit: 1}
}

// sampleAwaiting is a plan that waits to be confirmed.
func sampleAwaiting() report.PlanView {
	v := samplePlan()
	v.Base, v.Within = []string{"hostcheck"}, 2*time.Minute
	text := plan.Text("[Timer]\nOnActiveSec=120\n")
	const timer = "/etc/systemd/system/hostcheck-expire.timer"
	arm, last, disarm := file(timer, plan.Absent, text, "takes it back"), file("/etc/hostcheck/settings.d/50-hostcheck.yaml", plan.Absent, plan.Text("schema: x\n"), "sets it again"), file(timer, text, plan.Absent, "confirmed")
	last.Deferred, disarm.Deferred = true, true
	ring := v.Plan.Changes[7]
	ring.AtBoot = true
	v.Plan.Changes, v.Plan.Refused, v.Held = []plan.Change{arm, ring, last, disarm}, nil, nil
	for i := range v.Plan.Changes {
		v.Plan.Changes[i].Tier = plan.Link
	}
	v.Plan.Seal()
	return v
}

func sampleUnconfirmed(left int) report.Status {
	s := sampleStatus()
	s.Unconfirmed = &report.Unconfirmed{
		Txn:   report.NewTxn(&plan.Txn{ID: "20261121T075900-0005", Started: time.Date(2026, 11, 21, 7, 59, 0, 0, time.UTC), State: plan.Unconfirmed, Plan: sampleAwaiting().Plan}),
		Until: "2026-11-21T08:01:05Z", Left: left, Confirm: "hostcheck confirm 20261121T075900-0005", Undo: "hostcheck undo 20261121T075900-0005",
	}
	s.Pending = []report.Pending{}
	s.Settings.Count = 3
	return s
}

func sampleSettings() report.Status {
	at := "2026-11-21T06:00:00Z"
	return report.Status{
		Schema: report.StatusSchema, Pending: []report.Pending{}, Applied: []string{}, Exit: 1,
		Settings: report.Settings{
			Count: 2, Stopped: &at, Retry: "hostcheck settings apply --retry",
			Ignored: []report.Ignored{{File: "/etc/hostcheck/settings.d/60-mine.yaml", Why: "others than root may write to it (mode 0666)"}},
		},
	}
}

// What a person sees of plans and what became of them.
func TestPlanText(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	root := []string{"hostcheck", "--root", "/mnt/a b"}
	nothing := samplePlan()
	nothing.Plan.Changes, nothing.Plan.Refused, nothing.Held = nil, nil, nil
	nothing.Judged = report.New(input(results()[1:2]))
	short := samplePlan()
	short.Plan.Changes, short.Plan.Refused = nil, short.Plan.Refused[:1]
	left := plan.Left{Change: samplePlan().Plan.Changes[1].Reverse(), Live: plan.Text("250000"), ByHand: "sysctl -w net.core.netdev_max_backlog=1000"}
	pid := 4711
	for name, f := range map[string]func(t report.Text) string{
		"plan":        func(t report.Text) string { return t.Plan(samplePlan()) },
		"nothing":     func(t report.Text) string { return t.Plan(nothing) },
		"refused":     func(t report.Text) string { return t.Plan(short) },
		"applied":     func(t report.Text) string { return t.Fixed(applied()) },
		"restored":    func(t report.Text) string { return t.Fixed(failed(plan.Restored)) },
		"incomplete":  func(t report.Text) string { return t.Fixed(failed(plan.Incomplete, left)) },
		"interrupted": func(t report.Text) string { return t.Fixed(failed(plan.Interrupted)) },
		"undone": func(t report.Text) string {
			r := report.NewResult(plan.Result{Txn: "20261121T080000-ab12", Outcome: plan.Undone, Changed: 9}, nil)
			return t.Undone(report.Undo{Results: []report.Result{r, failed(plan.Incomplete, left).Result}}, "", true)
		},
		"history":      func(t report.Text) string { return t.History(sampleHistory(), now, root) },
		"history-none": func(t report.Text) string { return t.History(report.NewHistory(nil), now, root) },
		"status":       func(t report.Text) string { return t.Status(sampleStatus(), now, root) },
		"status-busy": func(t report.Text) string {
			return t.Status(report.Status{Busy: &report.Busy{PID: &pid}, Applied: []string{"20261121T070000-0003"}}, now, root)
		},
		"status-unconfirmed": func(t report.Text) string { return t.Status(sampleUnconfirmed(65), now, root) },
		"status-expiring":    func(t report.Text) string { return t.Status(sampleUnconfirmed(0), now, root) },
		"status-settings":    func(t report.Text) string { return t.Status(sampleSettings(), now, root) },
		"awaiting":           func(t report.Text) string { return t.Plan(sampleAwaiting()) },
		"unconfirmed": func(t report.Text) string {
			f := applied()
			f.Result = report.NewResult(plan.Result{Txn: "20261121T080000-ab12", Outcome: plan.Applied, Changed: 2, Until: now.Add(2 * time.Minute)}, root)
			f.Now = now
			return t.Fixed(f)
		},
		"confirmed": func(t report.Text) string {
			return t.Kept(report.Confirmed{Result: report.NewResult(plan.Result{Txn: "20261121T080000-ab12", Outcome: plan.Applied, Changed: 4}, root)})
		},
		"status-none": func(t report.Text) string { return t.Status(report.Status{}, now, root) },
	} {
		for form, text := range map[string]report.Text{
			"80": {Width: 80}, "120": {Width: 120}, "80-ascii": {Width: 80, ASCII: true}, "80-quiet": {Width: 80, Quiet: true},
			"80-verbose": {Width: 80, Verbose: true}, "40": {Width: 40}, "80-colour": {Width: 80},
		} {
			keep := form == "80" || form == "80-quiet" || name == "plan" && form != "40" || name == "history" && form == "80-verbose"
			if !keep {
				f(text) // must not panic
				continue
			}
			t.Run(name+"-"+form, func(t *testing.T) {
				s := f(text)
				for l := range strings.Lines(s) {
					// a diff and a command to copy stay whole
					if w := lipgloss.Width(strings.TrimSuffix(l, "\n")); w > text.Width && !strings.Contains(l, "+") && !strings.Contains(l, "hostcheck ") {
						t.Errorf("a line of %d cells in %d columns: %q", w, text.Width, l)
					}
				}
				if form != "80-colour" {
					s = plain(t, s)
				}
				if text.ASCII && strings.ContainsFunc(s, func(r rune) bool { return r > 126 }) {
					t.Errorf("not ASCII: %q", s)
				}
				golden(t, "plan/"+name+"-"+form+".txt", s)
			})
		}
	}
}

// Nothing from a host or a journal drives a terminal.
func TestPlanTextIsClean(t *testing.T) {
	const evil = "x\x1b]0;owned\x07\r\n\u202ey\x1b[2J"
	v := samplePlan()
	c := file("/etc/x"+evil, plan.Text(evil), plan.Text(evil+"2"), evil)
	c.Disturbs = evil
	v.Plan.Changes = []plan.Change{c, knob(evil, evil, evil, evil, evil+"2", plan.Safe, evil, evil, false)}
	v.Plan.Refused = []plan.Refusal{{Setting: plan.Setting{Kind: evil, Target: evil, Name: evil}, Want: evil, Reason: evil, Steps: []string{evil}}}
	f := failed(plan.Incomplete, plan.Left{Change: v.Plan.Changes[1], Err: errors.New(evil), ByHand: evil})
	f.Guards = []report.Guard{{Name: evil, Got: evil}}
	s := sampleStatus()
	s.Pending[0].Why, s.Pending[0].ID = evil, evil
	s.Pending[0].Settings[0].Name, s.Pending[0].Settings[0].Error = evil, evil
	h := report.NewHistory([]*plan.Txn{{ID: evil, State: plan.InForce, Why: evil, Plan: v.Plan}})
	text := report.Text{Width: 80, Verbose: true}
	for name, out := range map[string]string{
		"plan": text.Plan(v), "fixed": text.Fixed(f), "status": text.Status(s, time.Now(), nil), "history": text.History(h, time.Now(), nil),
	} {
		out = plain(t, out)
		for _, r := range []string{"\x1b", "\x07", "\r", "\u202e"} {
			if strings.Contains(out, r) {
				t.Errorf("%s: %q gets through:\n%q", name, r, out)
			}
		}
	}
}

// Every document is of its schema, and the schema refuses others.
func TestPlanSchemas(t *testing.T) {
	for name, doc := range map[string]any{
		"fix": applied().Fix, "undo": report.Undo{Schema: report.UndoSchema, Results: []report.Result{failed(plan.Incomplete).Result}},
		"history": sampleHistory(), "status": sampleUnconfirmed(65),
		"confirm": report.Confirmed{Schema: report.ConfirmSchema, Result: failed(plan.Restored).Result, Exit: 4},
	} {
		b, err := report.JSON(doc)
		if err != nil {
			t.Fatal(err)
		}
		validate(t, name, b)
		schema, err := report.JSON(report.JSONSchema(name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "schema/"+name+".json", string(schema))
	}
}

// What is held back is among the refused of the JSON, with the way to allow it.
func TestPlanDocument(t *testing.T) {
	v := samplePlan()
	d := v.Document()
	if n := len(d.Refused); n != len(v.Plan.Refused)+1 || len(v.Plan.Refused) != 3 {
		t.Fatalf("%d refused", n)
	}
	last := d.Refused[3]
	if last.Setting != v.Held[0].Setting || last.Want != "pt" || last.Reason != "tier boot is not allowed" || last.Steps[0] != "hostcheck --fix --allow boot" {
		t.Errorf("%+v", last)
	}
	if d.Hash != v.Plan.Hash {
		t.Error("the hash is not the plan's")
	}
}

func TestShellWords(t *testing.T) {
	for want, words := range map[string][]string{
		`hostcheck --fix`:           {"hostcheck", "--fix"},
		`--root '/mnt/a b'`:         {"--root", "/mnt/a b"},
		`'it'\''s' '' '$(x)' k=v,w`: {"it's", "", "$(x)", "k=v,w"},
	} {
		if got := report.ShellWords(words); got != want {
			t.Errorf("%q: got %s, want %s", words, got, want)
		}
	}
}

// What a program reads holds no command of another program to run.
func TestAdviceIsProse(t *testing.T) {
	v := samplePlan()
	v.Plan.Refused = []plan.Refusal{{Setting: v.Held[0].Setting, Steps: []string{"setpci -s 1a:00.0 68.w=5000:f000", "drain the host; reboot"}}}
	for _, r := range v.Document().Refused {
		for _, s := range r.Steps {
			if !plan.IsProse(s) {
				t.Errorf("step: %s", s)
			}
		}
	}
	if s := v.Plan.Refused[0].Steps[0]; s != "setpci -s 1a:00.0 68.w=5000:f000" {
		t.Errorf("what people are shown became %q", s)
	}
	f := report.NewResult(plan.Result{Outcome: plan.Incomplete, Left: []plan.Left{{Change: v.Plan.Changes[1], ByHand: "echo 1 > /sys/x"}}}, nil)
	if len(f.Left) != 1 || !plan.IsProse(f.Left[0].ByHand) {
		t.Errorf("left: %+v", f.Left)
	}
	for _, f := range report.New(input(results())).Findings {
		if !plan.IsProse(f.Next) {
			t.Errorf("next: %s", f.Next)
		}
	}
}
