// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

const queue = "/proc/sys/lab/queue"

// document is one JSON document and nothing after it.
func document[T any](t *testing.T, s string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || d.More() {
		t.Fatalf("not one JSON document: %v\n%s", err, s)
	}
	return v
}

// The closed loop: fails, plan, fix, passes, nothing to fix, undo, as before.
func TestFixLoop(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	l.exits(1)
	l.exits(0, "undo")
	l.exits(0, "undo", "--all")
	l.exits(0, "history")
	l.exits(0, "status")
	out, _ := l.exits(1, "plan")
	l.wants(out, "PLAN: 2 changes", "+queue = 4096", "lab queue  128 → 4096", "lab.queue: small ones overflow")
	again, _ := l.exits(1, "--fix", "--dry-run")
	if out != again {
		t.Errorf("plan and --fix --dry-run differ:\n%s\n%s", out, again)
	}
	l.same(start, "after a dry run")
	if _, err := os.Stat(l.path("/var")); err == nil {
		t.Error("what only looks made a journal")
	}

	out, errs := l.exits(0, "--fix", "--yes")
	l.wants(out, "DONE   2 changes made, read back and verified", "✓ lab.queue", "default route  as before, over bond0", "boot entries   untouched", "FIT")
	l.wants(errs, "1 of 2: file "+labFile, "2 of 2: lab queue", "verifying")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := strings.Fields(lines[len(lines)-1])
	id := last[len(last)-1]
	if last[0] != "undo" || !strings.HasPrefix(id, "20") {
		t.Fatalf("the last line is %q, want the undo", last)
	}
	if got := l.text(queue) + l.text(labFile); got != "4096\nqueue = 4096\n" {
		t.Errorf("got %q", got)
	}
	l.exits(0)

	fixed := plantest.Snapshot(t, l.root)
	journal := plantest.Snapshot(t, l.path(plan.Dir))
	l.exits(0, "plan")
	out, _ = l.exits(0, "--fix", "--yes")
	l.wants(out, "nothing to fix")
	l.same(fixed, "after a second fix")
	if d := plantest.Diff(journal, plantest.Snapshot(t, l.path(plan.Dir))); d != "" {
		t.Errorf("a second fix writes to the journal:\n%s", d)
	}

	out, _ = l.exits(0, "history")
	l.wants(out, id, "applied", "2 changes: 1 file, 1 lab")
	out, _ = l.exits(0, "status")
	l.wants(out, "NOTHING PENDING", id)
	out, _ = l.exits(0, "undo")
	l.wants(out, "UNDONE   "+id+": 2 settings put back and read back")
	l.same(start, "after undo")
	l.exits(1)
	out, _ = l.exits(0, "undo")
	l.wants(out, "there is nothing to undo")
	out, _ = l.exits(0, "undo", id)
	l.wants(out, "transaction "+id+" is undone")
	l.exits(2, "undo", "20200101T000000-0000")
	out, _ = l.exits(0, "history", "-v")
	l.wants(out, id, "undone", "+queue = 4096")
}

// The same in JSON: each command writes one document of its schema.
func TestFixJSON(t *testing.T) {
	l := newLab(t)
	out, _ := l.exits(1, "plan", "-f", "json")
	p := document[plan.Plan](t, out)
	if p.SchemaName != plan.Schema || len(p.Changes) != 2 || p.Changes[1].Diff != "128 -> 4096" {
		t.Errorf("%+v", p)
	}
	out, _ = l.exits(2, "--fix", "-f", "json")
	if q := document[plan.Plan](t, out); q.Hash != p.Hash {
		t.Errorf("without consent: hash %s, want the plan's %s", q.Hash, p.Hash)
	}
	out, _ = l.exits(0, "--fix", "--yes", "--plan-hash", p.Hash, "-f", "json")
	f := document[report.Fix](t, out)
	if f.Schema != report.FixSchema || f.Plan.Hash != p.Hash || f.Exit != 0 {
		t.Errorf("%+v", f)
	}
	if r := f.Result; r.Outcome != plan.Applied || r.Changed != 2 || r.Txn == "" || !strings.HasSuffix(r.Undo, "undo "+r.Txn) {
		t.Errorf("%+v", r)
	}
	if v := f.Verification; len(v) != 1 || v[0].Check != "lab.queue" || v[0].Status != check.Pass {
		t.Errorf("%+v", v)
	}
	if len(f.Guards) != 2 || !f.Guards[0].Held || f.Summary == nil || f.Summary.Pass != 2 {
		t.Errorf("%+v %+v", f.Guards, f.Summary)
	}
	id := f.Result.Txn

	out, _ = l.exits(0, "--fix", "--yes", "-f", "json")
	if f := document[report.Fix](t, out); f.Result.Outcome != report.OutcomeNothing || f.Result.Txn != "" || len(f.Plan.Changes) != 0 {
		t.Errorf("%+v", f)
	}
	out, _ = l.exits(0, "history", "-f", "json")
	if h := document[report.History](t, out); len(h.Transactions) != 1 || h.Transactions[0].ID != id || h.Transactions[0].State != plan.InForce {
		t.Errorf("%+v", h)
	}
	out, _ = l.exits(0, "undo", "-f", "json")
	if u := document[report.Undo](t, out); len(u.Results) != 1 || u.Results[0].Outcome != plan.Undone || u.Results[0].Txn != id {
		t.Errorf("%+v", u)
	}
	out, _ = l.exits(0, "undo", "--all", "-f", "json")
	if u := document[report.Undo](t, out); len(u.Results) != 0 {
		t.Errorf("%+v", u)
	}
	out, _ = l.exits(0, "status", "-f", "json")
	if s := document[report.Status](t, out); s.Busy != nil || len(s.Pending)+len(s.Applied)+s.Exit != 0 {
		t.Errorf("%+v", s)
	}
}

func TestPlanHash(t *testing.T) {
	l := newLab(t)
	out, _ := l.exits(1, "plan", "-f", "json")
	hash := document[plan.Plan](t, out).Hash
	for _, bad := range []string{"abc", strings.Repeat("g", 64), hash[:63]} {
		_, errs := l.exits(2, "--fix", "--yes", "--plan-hash", bad)
		l.wants(errs, "64 hexadecimal digits")
	}
	l.exits(1, "plan", "--plan-hash", hash)
	before := plantest.Snapshot(t, l.root)
	_, errs := l.exits(2, "--fix", "--yes", "--plan-hash", strings.Repeat("0", 64))
	l.wants(errs, "the plan is not the one of --plan-hash any more")
	l.same(before, "after another hash")
	l.write(queue, "129\n") // the host moves
	_, errs = l.exits(2, "--fix", "--yes", "--plan-hash", hash)
	l.wants(errs, "the plan is not the one of --plan-hash any more")
	if l.text(queue) != "129\n" {
		t.Error("something was changed")
	}
}

// Nobody to ask and no --yes: the plan is shown, nothing is changed.
func TestNoTerminal(t *testing.T) {
	l := newLab(t)
	before := plantest.Snapshot(t, l.root)
	out, errs := l.exits(2, "--fix")
	l.wants(out, "PLAN: 2 changes", "+queue = 4096")
	l.wants(errs, "nothing was changed", "--yes")
	l.same(before, "without consent")
	if _, err := os.Stat(l.path(plan.Dir)); err == nil {
		t.Error("there is a journal")
	}
}

func TestFixFlags(t *testing.T) {
	l := newLab(t)
	for args, want := range map[string]string{
		"--yes":                        "--yes goes with --fix",
		"--dry-run":                    "--dry-run goes with --fix",
		"--allow link":                 "--allow goes with --fix",
		"--fix --yes --dry-run":        "exclude each other",
		"--confirm=auto":               "--confirm goes with --fix",
		"--fix --yes --confirm=atuo":   `did you mean "auto"?`,
		"confirm a b":                  "takes one transaction",
		"confirm":                      "nothing waits to be confirmed",
		"--fix --yes --allow safe":     "needs no --allow",
		"--fix --yes --allow firmware": "never done",
		"--fix --yes --allow lnik":     `did you mean "link"?`,
		"--fix --yes lab.queu":         `did you mean "lab.queue"?`,
		"fix":                          "needs areas or IDs",
		"undo a b":                     "takes one transaction",
		"undo a --all":                 "--all needs no transaction",
		"history x":                    "takes no argument",
		"status --force":               "unknown flag --force",
		"plan --yes":                   "unknown flag --yes",
		"--fix --yes --skip lab.*":     "no check is left to run",
	} {
		_, errs := l.exits(2, strings.Fields(args)...)
		l.wants(errs, want)
	}
	if l.text(queue) != "128\n" {
		t.Error("something was changed")
	}
	// what changes or loosens has no form in the environment
	for _, name := range []string{"FIX", "YES", "ALLOW", "ALLOW_MGMT", "FORCE", "PLAN_HASH", "DRY_RUN", "CONFIRM"} {
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		a := l.on(out, out, out, "--fix")
		a.env = append(a.env, "HOSTCHECK_"+name+"=1")
		if code := a.run(); code != 2 {
			t.Errorf("%s: exit %d", name, code)
		}
		b, _ := os.ReadFile(out.Name())
		l.wants(string(b), "HOSTCHECK_"+name+" is ignored: --")
	}
	if l.text(queue) != "128\n" {
		t.Error("something was changed")
	}
}

// Changes of a tier that is not allowed are shown and left.
func TestTiers(t *testing.T) {
	l := newLab(t, labCheck("lab.queue", "", "queue", "4096", plan.Safe), labCheck("ring.size", "eth1", "ring", "4096", plan.Link),
		labCheck("lab.window", "", "depth", "!9", plan.Safe))
	out, _ := l.exits(1, "plan")
	l.wants(out, "1 more with --allow link · 1 refused", "only with --allow link", "512 → 4096", "eth1 drops packets", "it is beyond what this kernel has", "lab-tool --set depth")
	out, _ = l.exits(1, "plan", "-f", "json")
	p := document[plan.Plan](t, out)
	if len(p.Changes) != 2 || len(p.Refused) != 2 || p.Refused[1].Reason != "tier link is not allowed" {
		t.Errorf("%+v", p)
	}
	out, _ = l.exits(1, "--fix", "--yes")
	l.wants(out, "DONE   2 changes", "2 fail")
	if l.text("/sys/class/net/eth1/ring") != "512\n" {
		t.Error("a change of tier link was made")
	}
	out, _ = l.exits(0, "plan") // nothing more without --allow
	l.wants(out, "nothing to fix", "1 more with --allow link")
	out, _ = l.exits(0, "fix", "ring", "lab.queue", "--yes", "--allow", "link,boot", "--skip", "lab.window", "--confirm=auto")
	l.wants(out, "── link: may flap", "until the next boot", "DONE   9 changes made")
	if l.text("/sys/class/net/eth1/ring") != "4096\n" {
		t.Error("a change of tier link was not made")
	}
}

// Whatever goes wrong, the host is as it was, and exit 4 says so.
func TestFixRestores(t *testing.T) {
	for name, c := range map[string]struct {
		knob func(l *lab) func(p, text string) error
		want string
	}{
		"the kernel refuses": {
			knob: func(*lab) func(p, text string) error {
				return func(string, string) error { return errors.New("the kernel refuses this value (invalid argument)") }
			},
			want: "the kernel refuses this value",
		},
		"the kernel ignores it": {
			knob: func(*lab) func(p, text string) error { return func(string, string) error { return nil } },
			want: "the write was ignored",
		},
		"the checks do not hold": {
			knob: func(l *lab) func(p, text string) error {
				judge := l.checks[0].Run
				l.checks[0].Run = func(ctx context.Context, r *check.Run) error {
					if l.text(queue) == "4096\n" { // it has the value, which does not help
						r.Report(check.Finding{Status: check.Fail, Got: "still too small"})
						return nil
					}
					return judge(ctx, r)
				}
				return l.knob
			},
			want: "do not help: lab.queue is still \"fail\": still too small",
		},
		"the default route goes": {
			knob: func(l *lab) func(p, text string) error {
				return func(p, text string) error {
					routes := labTree()["/proc/net/route"]
					if text == "4096" {
						routes = strings.ReplaceAll(routes, "bond0", "eth1")
					}
					l.write("/proc/net/route", routes)
					return plantest.Knob(l.root)(p, text)
				}
			},
			want: "default route: bond0 has lost it",
		},
		"the management link goes down": {
			knob: func(l *lab) func(p, text string) error {
				return func(p, text string) error {
					l.write("/sys/class/net/eth0/operstate", map[bool]string{true: "down\n", false: "up\n"}[text == "4096"])
					return plantest.Knob(l.root)(p, text)
				}
			},
			want: "default route: eth0 was up and is down",
		},
		"the boot entry changes": {
			knob: func(l *lab) func(p, text string) error {
				return func(p, text string) error {
					l.write("/boot/grub/grub.cfg", map[bool]string{true: "set default=1\n", false: "set default=0\n"}[text == "4096"])
					return plantest.Knob(l.root)(p, text)
				}
			},
			want: "boot entries: /boot/grub/grub.cfg changed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			start := plantest.Snapshot(t, l.root)
			l.knob = c.knob(l)
			out, _ := l.exits(4, "--fix", "--yes")
			l.wants(strings.Join(strings.Fields(out), " "), "RESTORED it did not work; the tree is as it was, read back", c.want)
			if strings.Contains(out, "undo ") {
				t.Errorf("an undo is offered:\n%s", out)
			}
			l.same(start, name)
			out, _ = l.exits(0, "history", "-q")
			l.wants(out, "restored")
			l.exits(0, "status")
			out, _ = l.exits(4, "--fix", "--yes", "-f", "json", "--only", "lab.queue")
			f := document[report.Fix](t, out)
			if f.Exit != 4 || f.Result.Outcome != plan.Restored || f.Result.Cause == "" || f.Summary == nil || f.Result.Undo != "" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// What cannot be put back is named, with what to do; undo goes on later.
func TestFixIncomplete(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	kernel := l.knob
	l.knob = func(p, text string) error {
		if text == "4096" {
			return errors.Join(errors.New("input/output error"), kernel(p, text))
		}
		return errors.New("input/output error")
	}
	out, _ := l.exits(5, "--fix", "--yes")
	l.wants(out, "NOT RESTORED", "1 setting could not be put back", "lab queue", "echo 128 > "+queue, "undo 20")
	out, _ = l.exits(1, "status")
	l.wants(out, "UNFINISHED   1 transaction", "lab queue  as hostcheck set it", "undo 20")
	out, _ = l.exits(1, "status", "-f", "json")
	s := document[report.Status](t, out)
	if len(s.Pending) != 1 || s.Exit != 1 || len(s.Pending[0].Settings) == 0 {
		t.Errorf("%+v", s)
	}
	_, errs := l.exits(2, "--fix", "--yes")
	l.wants(errs, "was stopped half way; take it back first")
	_, errs = l.exits(0, "plan")
	l.wants(errs, "warning:", "was stopped half way")
	out, _ = l.exits(5, "undo", "-f", "json")
	if u := document[report.Undo](t, out); u.Exit != 5 || len(u.Results[0].Left) != 1 || u.Results[0].Left[0].ByHand != "by hand: echo 128 > "+queue {
		t.Errorf("%+v", u)
	}
	l.knob = kernel
	l.exits(0, "undo", s.Pending[0].ID)
	l.same(start, "after undo")
	l.exits(0, "status")
}

// A signal stops after the change at hand and puts everything back; more
// signals do not cut that short.
func TestFixSignals(t *testing.T) {
	for s, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		l := newLab(t)
		start := plantest.Snapshot(t, l.root)
		kernel := l.knob
		l.knob = func(p, text string) error {
			(*l.app.onSignal.Swap(nil))(s)
			return kernel(p, text)
		}
		out, errs := l.exits(want, "--fix", "--yes")
		l.wants(out, "INTERRUPTED", "what was changed was put back")
		l.wants(errs, "stopping after the change at hand", "still putting back")
		l.same(start, s.String())
		l.exits(0, "status")
	}
}

// busy takes the lock of the journal as another hostcheck would.
func busy(t *testing.T, l *lab) (release func()) {
	t.Helper()
	f, err := os.OpenFile(l.path(plan.Dir+"/lock"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("4711\n"); err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

func TestBusy(t *testing.T) {
	l := newLab(t)
	l.exits(0, "--fix", "--yes")
	l.write(queue, "128\n")
	release := busy(t, l)
	before := plantest.Snapshot(t, l.root)
	for _, args := range []string{"--fix --yes", "fix lab.queue", "undo", "undo --all"} {
		_, errs := l.exits(11, strings.Fields(args)...)
		l.wants(errs, "another hostcheck (process 4711) is at work")
	}
	out, _ := l.exits(11, "status")
	l.wants(out, "AT WORK", "4711")
	l.exits(1, "plan")
	l.exits(0, "history")
	l.same(before, "while another is at work")
	release()
	l.exits(0, "--fix", "--yes")
}

// A journal that is not to be trusted stops every change, and is named.
func TestHostileJournal(t *testing.T) {
	const id = "20260101T000000-abcd"
	dir := plan.Dir + "/" + id
	for name, files := range map[string]map[string]string{
		"garbage": {dir + "/plan.json": "\x00\x1b]0;x\x07", dir + "/log": "x\n"},
		"other":   {dir + "/plan.json": `{"schema":"hostcheck.txn/v1","id":"` + id + `","plan":{"schema":"hostcheck.plan/v1","changes":[{"kind":"file","target":"/etc/../../x","after":"x","tier":"safe"}]}}`, dir + "/log": `{"op":"begin"}` + "\n"},
		"empty":   {dir + "/": ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			plantest.Files(t, l.root, files)
			for _, p := range []string{plan.Dir, dir} {
				if err := os.Chmod(l.path(p), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			before := plantest.Snapshot(t, l.root)
			out, _ := l.exits(0, "history")
			l.wants(out, id, "unreadable")
			if strings.Contains(out, "\x1b]") {
				t.Error("the journal drives the terminal")
			}
			out, _ = l.exits(1, "status")
			l.wants(out, "UNFINISHED", id)
			_, errs := l.exits(2, "--fix", "--yes")
			l.wants(errs, id, "move it away")
			_, errs = l.exits(2, "undo")
			l.wants(errs, "is not to be trusted")
			l.exits(1, "plan")
			l.same(before, "with a hostile journal")
		})
	}
	t.Run("others may write", func(t *testing.T) {
		l := newLab(t)
		if err := os.MkdirAll(l.path(plan.Dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(l.path(plan.Dir), 0o777); err != nil {
			t.Fatal(err)
		}
		for _, args := range []string{"--fix --yes", "undo", "history", "status"} {
			_, errs := l.exits(2, strings.Fields(args)...)
			l.wants(errs, "others may write to it")
		}
	})
}

// What somebody else changed since is left alone, unless forced.
func TestUndoDrift(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	l.exits(0, "--fix", "--yes")
	l.write(queue, "777\n")
	_, errs := l.exits(2, "undo")
	l.wants(errs, "lab queue is \"777\"", "someone else changed it", "--force")
	if l.text(queue)+l.text(labFile) != "777\nqueue = 4096\n" {
		t.Error("something was changed")
	}
	l.exits(0, "undo", "--force")
	l.same(start, "after a forced undo")
}

func TestUndoAll(t *testing.T) {
	l := newLab(t)
	start := plantest.Snapshot(t, l.root)
	l.exits(0, "--fix", "--yes")
	l.checks = append(l.checks, labCheck("ring.eth0", "eth0", "ring", "1024", plan.Link), labCheck("ring.eth1", "eth1", "ring", "1024", plan.Link))
	l.exits(1, "fix", "ring.eth0", "ring.eth1", "--yes") // nothing is allowed
	l.exits(0, "fix", "ring.eth0", "--yes", "--allow", "link", "--confirm=auto")
	l.exits(0, "fix", "ring.eth1", "--yes", "--allow", "link", "--confirm", "auto")
	out, _ := l.exits(0, "undo", "--all")
	if strings.Count(out, "UNDONE") != 3 {
		t.Errorf("want three:\n%s", out)
	}
	l.same(start, "after undo --all")
}

// Two checks that want the same setting to differ are a plan error.
func TestConflict(t *testing.T) {
	l := newLab(t, labCheck("lab.queue", "", "queue", "4096", plan.Safe), labCheck("lab.other", "", "queue", "8192", plan.Safe))
	_, errs := l.exits(2, "plan")
	l.wants(errs, "4096", "8192", "lab.queue", "lab.other")
}

// An output that cannot be written: before the change nothing is done, after
// it the message names the transaction.
func TestFixOutput(t *testing.T) {
	l := newLab(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	errs, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if code := l.on(full, full, errs, "--fix", "--yes").run(); code != 2 || l.text(queue) != "128\n" {
		t.Errorf("exit %d, queue %q", code, l.text(queue))
	}
	if code := l.on(full, full, errs, "--fix", "--yes", "-f", "json").run(); code != 3 || l.text(queue) != "4096\n" {
		t.Errorf("exit %d, queue %q", code, l.text(queue))
	}
	b, _ := os.ReadFile(errs.Name())
	l.wants(string(b), "cannot write the result: no space left on device", "is applied; take it back: hostcheck --root")
	// a file has the plan and the result
	l.exits(0, "undo")
	name := filepath.Join(t.TempDir(), "out")
	out, _ := l.exits(0, "--fix", "--yes", "-o", name)
	b, err = os.ReadFile(name)
	if err != nil || out != "" {
		t.Errorf("%q %v", out, err)
	}
	l.wants(string(b), "PLAN: 2 changes", "DONE", "undo ")
}
