// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/ansible"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

type options map[string]any

// task runs one as Ansible does; the result is the only thing that is written.
func (l *lab) task(o options) report.Ansible {
	l.Helper()
	all := options{"root": l.root, "_ansible_check_mode": false, "_ansible_diff": true, "_ansible_version": "2.19.4", "_ansible_module_name": "hostcheck"}
	maps.Copy(all, o)
	args, err := json.Marshal(all)
	if err != nil {
		l.Fatal(err)
	}
	dir := l.TempDir()
	file := filepath.Join(dir, "args")
	if err := os.WriteFile(file, args, 0o600); err != nil {
		l.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		l.Fatal(err)
	}
	defer out.Close()
	a := l.on(out, out, out)
	a.args, a.env = []string{"ansible", "module", file}, []string{"HOSTCHECK_FORMAT=nonsense", "HOSTCHECK_ONLY=nonsense"}
	code := a.run()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		l.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	var res report.Ansible
	if err := d.Decode(&res); err != nil || d.More() || strings.Count(string(b), "\n") != 1 {
		l.Fatalf("not one JSON object on one line: %v\n%s", err, b)
	}
	if res.Failed != (code == 1) || res.Failed == (code == 0) || res.Failed != (res.Exit != 0 && res.Exit != 10) || res.Msg == "" {
		l.Errorf("exit code %d of %+v", code, res)
	}
	return res
}

// The closed loop as a playbook goes through it: check mode shows what the run
// does, the second run changes nothing, and undo gives back the start.
func TestModuleLoop(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	r := l.task(options{})
	if r.Changed || r.Exit != 1 || len(r.Findings) != 1 || r.Findings[0].Check != "lab.queue" || r.Diff != nil || r.Summary.Fail != 1 {
		t.Errorf("checked: %+v", r)
	}
	l.wants(r.Msg, "NOT FIT (1 fail, 1 pass): lab.queue: 128, want 4096")

	shown := l.task(options{"state": "fixed", "_ansible_check_mode": true})
	l.same(start, "after check mode")
	if _, err := os.Stat(l.path("/var")); err == nil {
		t.Error("check mode made a journal")
	}
	l.wants(shown.Msg, "2 changes would be made; expected then: FIT (2 pass)")
	old, now := "128\n", "4096\n"
	empty, text := "", "queue = 4096\n"
	want := []report.AnsibleDiff{
		{BeforeHeader: labFile + " (absent)", AfterHeader: labFile, Before: &empty, After: &text},
		{BeforeHeader: "lab queue", AfterHeader: "lab queue", Before: &old, After: &now},
	}
	if d := cmp.Diff(want, shown.Diff); d != "" {
		t.Errorf("diff:\n%s", d)
	}

	done := l.task(options{"state": "fixed"})
	l.wants(done.Msg, "2 changes made, read back and verified; FIT (2 pass)")
	if done.Txn == "" || !strings.HasSuffix(done.Undo, " undo "+done.Txn) || l.text(queue) != "4096\n" {
		t.Errorf("fixed: %+v", done)
	}
	done.Txn, done.Undo, done.Msg, shown.Msg = "", "", "", ""
	if d := cmp.Diff(shown, done); d != "" {
		t.Errorf("check mode promised otherwise:\n%s", d)
	}

	fixed := plantest.Snapshot(t, l.root)
	txn := l.only()
	again := l.task(options{"state": "fixed"})
	l.wants(again.Msg, "nothing to fix; FIT")
	if again.Changed || again.Diff != nil || again.Hash != "" || again.Txn != "" {
		t.Errorf("the second run: %+v", again)
	}
	if r := l.task(options{}); r.Failed || r.Changed {
		t.Errorf("checked after it: %+v", r)
	}
	if r := l.task(options{"state": "undone", "txn": txn, "_ansible_check_mode": true}); !r.Changed || len(r.Diff) != 2 || *r.Diff[0].Before != "4096\n" || *r.Diff[0].After != "128\n" {
		t.Errorf("undone in check mode: %+v", r)
	}
	l.same(fixed, "after a second run and check mode of undone")
	if r := l.task(options{"state": "undone", "txn": txn}); !r.Changed || len(r.Diff) != 2 {
		t.Errorf("undone: %+v", r)
	}
	l.same(start, "after undone")
	for _, id := range []string{txn, ""} {
		if r := l.task(options{"state": "undone", "txn": id}); r.Changed || r.Failed {
			t.Errorf("undone %q once more: %+v", id, r)
		}
	}
	if r := l.task(options{"state": "undone", "txn": "../../etc"}); !r.Failed || r.Exit != report.ExitUsage {
		t.Errorf("no such transaction: %+v", r)
	}
}

// only is the ID of the one transaction.
func (l *lab) only() string {
	l.Helper()
	out, _ := l.exits(0, "history", "-f", "json")
	h := document[report.History](l.TB.(*testing.T), out)
	if len(h.Transactions) != 1 {
		l.Fatalf("%d transactions", len(h.Transactions))
	}
	return h.Transactions[0].ID
}

// What a plan cannot cure fails the task, in check mode as well, and says why.
func TestModuleLeft(t *testing.T) {
	l := newLab(t, labCheck("lab.queue", "", "queue", "4096", plan.Safe), labCheck("lab.depth", "", "depth", "!9", plan.Safe), labCheck("lab.ring", "eth1", "ring", "4096", plan.Link))
	shown := l.task(options{"state": "fixed", "_ansible_check_mode": true})
	done := l.task(options{"state": "fixed"})
	for _, r := range []report.Ansible{shown, done} {
		if !r.Failed || !r.Changed || r.Exit != 1 || len(r.Changes) != 2 || len(r.Findings) != 2 || len(r.Refused) != 2 {
			t.Errorf("%+v", r)
			continue
		}
		l.wants(r.Msg, "lab.depth: 128, want 9; lab.ring eth1: 512, want 4096")
		l.wants(r.Refused[0].Reason+r.Refused[1].Reason+r.Refused[1].Steps[0], "it is beyond what this kernel has", "tier link is not allowed", "add link to the option allow")
	}
	if r := l.task(options{"state": "fixed", "only": "lab.queue"}); r.Failed || r.Changed {
		t.Errorf("only what is fixed: %+v", r)
	}
}

// A change of tier link waits, and another task confirms it.
func TestModuleConfirm(t *testing.T) {
	l := ringLab(t)
	r := l.task(options{"state": "fixed", "allow": []string{"link"}})
	if r.Failed || r.Until == nil || r.Txn == "" || !strings.Contains(r.Msg, "it is taken back at "+*r.Until+" unless it is confirmed") {
		t.Fatalf("%+v", r)
	}
	if r := l.task(options{"state": "fixed", "allow": "link"}); !r.Failed || !strings.Contains(r.Msg, "waits to be confirmed") {
		t.Errorf("a fix beside it: %+v", r)
	}
	if r := l.task(options{"state": "confirmed", "txn": r.Txn, "_ansible_check_mode": true}); !r.Changed {
		t.Errorf("check mode: %+v", r)
	}
	l.exits(1, "status") // it waits still
	if r := l.task(options{"state": "confirmed", "txn": r.Txn}); r.Failed || !r.Changed || r.Undo == "" {
		t.Errorf("confirmed: %+v", r)
	}
	for _, id := range []string{r.Txn, ""} {
		if r := l.task(options{"state": "confirmed", "txn": id}); r.Failed || r.Changed {
			t.Errorf("%q once more: %+v", id, r)
		}
	}
	l.exits(0, "undo")
	if r := l.task(options{"state": "confirmed", "txn": r.Txn}); !r.Failed || !strings.Contains(r.Msg, "it is undone") {
		t.Errorf("what was taken back: %+v", r)
	}
	if r := l.task(options{"state": "fixed", "allow": "link", "confirm": "auto"}); r.Failed || r.Until != nil {
		t.Errorf("confirmed by itself: %+v", r)
	}
}

// A fix that does not work is never green, and what it leaves is told.
func TestModuleFails(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	l.knob = func(string, string) error { return errors.New("the kernel says no") }
	r := l.task(options{"state": "fixed"})
	if !r.Failed || r.Changed || r.Exit != report.ExitRestored || len(r.Changes) != 0 || r.Diff != nil || !strings.Contains(r.Msg, "the kernel says no") {
		t.Errorf("restored: %+v", r)
	}
	l.same(start, "after a fix that failed")
	n := 0
	kernel := plantest.Knob(l.root)
	l.knob = func(p, text string) error { // takes another value, and keeps it
		if n++; n == 1 {
			return kernel(p, "7")
		}
		return errors.New("the kernel says no")
	}
	r = l.task(options{"state": "fixed"})
	if !r.Failed || !r.Changed || r.Exit != report.ExitBroken || len(r.Left) != 1 || !strings.Contains(r.Msg, "by hand: echo 128 > "+queue) {
		t.Errorf("broken: %+v", r)
	}
	if r := l.task(options{"state": "fixed"}); !r.Failed || r.Exit != report.ExitUsage || !strings.Contains(r.Msg, "undo") {
		t.Errorf("a fix after it: %+v", r)
	}
}

// A host that cannot be judged fails.
func TestModuleUnjudged(t *testing.T) {
	l := newLab(t)
	if err := os.Remove(l.path(queue)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []options{{}, {"state": "fixed"}, {"state": "fixed", "_ansible_check_mode": true}} {
		o["only"] = "lab.queue"
		if r := l.task(o); !r.Failed || r.Changed || r.Exit != report.ExitIncomplete || !strings.Contains(r.Msg, "nothing could be judged") {
			t.Errorf("%v: %+v", o, r)
		}
	}
	for o, want := range map[string]string{"only": "unknown area or check", "profile": "unknown profile", "set": "unknown key", "intent": "intent"} {
		if r := l.task(options{o: []string{"nonsense=1"}}); !r.Failed || r.Exit != report.ExitUsage || !strings.Contains(r.Msg, want) {
			t.Errorf("%s: %+v", o, r)
		}
	}
	r := l.task(options{"profile": options{"sysctl": options{"kyes": 1}}})
	if !r.Failed || !strings.Contains(r.Msg, `task.profile[0]:`) || !strings.Contains(r.Msg, `did you mean "keys"?`) {
		t.Errorf("a profile in the task: %+v", r)
	}
}

// What the next boot brings is no failure, and said.
func TestModulePending(t *testing.T) {
	pending := &check.Check{ID: "lab.boot", Title: "pending", Severity: check.Medium}
	pending.Run = func(_ context.Context, r *check.Run) error {
		r.Report(check.Finding{Status: check.Fail, Pending: true, Want: "1", Got: "0"})
		return nil
	}
	l := newLab(t, pending)
	if r := l.task(options{}); r.Failed || r.Exit != report.ExitPending || !r.Reboot {
		t.Errorf("%+v", r)
	}
}

// docs/ansible.md names every option, and every key of the result.
func TestModuleDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/ansible.md")
	if err != nil {
		t.Fatal(err)
	}
	names := ansible.Options()
	for f := range reflect.TypeFor[report.Ansible]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, key)
	}
	for _, name := range names {
		row := false
		for line := range strings.Lines(string(b)) {
			first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			row = row || strings.HasPrefix(line, "| ") && strings.Contains(first, "`"+name+"`")
		}
		if !row {
			t.Errorf("docs/ansible.md has no row for %s", name)
		}
	}
}
