// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/profile"
)

func result(id string, s check.Severity, fs ...check.Finding) check.Result {
	for i := range fs {
		fs[i].Check = id
	}
	return check.Result{Check: &check.Check{ID: id, Severity: s}, Findings: fs}
}

func finding(s check.Status) check.Finding { return check.Finding{Status: s, Got: "x", Why: "why"} }

func TestJudge(t *testing.T) {
	waived, pending := finding(check.Fail), finding(check.Fail)
	waived.Waiver, pending.Pending = &profile.Waiver{}, true
	required := func(id string) bool { return id == "a.required" }
	for name, c := range map[string]struct {
		results []check.Result
		want    Outcome
		failed  string
		open    string
		held    string
	}{
		"nothing":               {nil, Unknown, "", "", ""},
		"skips alone":           {[]check.Result{result("a.x", check.High, finding(check.Skip))}, Unknown, "", "", ""},
		"unknown alone":         {[]check.Result{result("a.x", check.High, finding(check.Unknown))}, Unknown, "", "a.x", ""},
		"a pass":                {[]check.Result{result("a.x", check.High, finding(check.Pass))}, Fit, "", "", "a.x"},
		"a warning":             {[]check.Result{result("a.x", check.High, finding(check.Warn))}, Fit, "", "", "a.x"},
		"a grave failure":       {[]check.Result{result("a.x", check.High, finding(check.Pass), finding(check.Fail))}, Unfit, "a.x", "", ""},
		"a lesser failure":      {[]check.Result{result("a.x", check.Medium, finding(check.Fail))}, Fit, "", "", "a.x"},
		"waived and pending":    {[]check.Result{result("a.x", check.High, waived), result("a.y", check.High, pending), result("a.z", check.Low, finding(check.Pass))}, Fit, "", "", "a.x a.y a.z"},
		"required, unknown":     {[]check.Result{result("a.required", check.Low, finding(check.Unknown)), result("a.x", check.High, finding(check.Pass))}, Unknown, "", "a.required", "a.x"},
		"failing and required":  {[]check.Result{result("a.required", check.Low, finding(check.Error)), result("a.x", check.High, finding(check.Fail))}, Unfit, "a.x", "a.required", ""},
		"partly open":           {[]check.Result{result("a.x", check.High, finding(check.Pass), finding(check.Unknown))}, Fit, "", "a.x", ""},
		"hardly judged":         {[]check.Result{result("a.x", check.Low, finding(check.Unknown), finding(check.Error)), result("a.y", check.High, finding(check.Pass))}, Unknown, "", "", "a.y"},
		"open, of low severity": {[]check.Result{result("a.x", check.Low, finding(check.Unknown)), result("a.y", check.High, finding(check.Pass))}, Fit, "", "", "a.y"},
	} {
		v := Judge(c.results, check.High, required)
		if v.Outcome != c.want || strings.Join(v.Failed, " ") != c.failed || strings.Join(v.Open, " ") != c.open || strings.Join(v.Held, " ") != c.held {
			t.Errorf("%s: %s, failed %v, open %v, held %v", name, v.Outcome, v.Failed, v.Open, v.Held)
		}
		if (v.Why == "") != (v.Outcome == Fit) {
			t.Errorf("%s: %s because %q", name, v.Outcome, v.Why)
		}
	}
}

func TestReason(t *testing.T) {
	v := Verdict{Failed: []string{"link.speed", "pcie.link"}, Why: "link.speed \"ens1\": 200G ≥\n100G"}
	if got, want := v.Reason(), "hostcheck: link.speed pcie.link: link.speed ?ens1?: 200G ??100G"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 40 {
		v.Failed = append(v.Failed, "area.check"+string(rune('a'+i%26)))
	}
	v.Why = strings.Repeat("long ", 100)
	r := v.Reason()
	ids, more, ok := because(r)
	if len(r) > maxReason || !more || !ok || len(ids) < 5 || !slices.Equal(ids, v.Failed[:len(ids)]) {
		t.Errorf("%d characters %q: %v, more: %v, ours: %v", len(r), r, ids, more, ok)
	}
	for _, other := range []string{"", "disk", "hostcheck", "hostcheck:", "hostcheck: ", "Hostcheck: a.b: c", " hostcheck: a.b: c", resumed} {
		if ids, _, ok := because(other); ok {
			t.Errorf("%q is taken for ours: %v", other, ids)
		}
	}
}

// shown is what scontrol of Slurm 24.11.5 prints, less what is not read.
func shown(state, started, more string) string {
	return "NodeName=n1 Arch=x86_64 CoresPerSocket=1 \n   NodeAddr=n1 NodeHostName=n1 Version=24.11.5\n   OS=Linux 6.12.48 #1 SMP \n" +
		"   State=" + state + " ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A\n   Partitions=all \n" +
		"   BootTime=2026-11-27T06:38:04 SlurmdStartTime=" + started + "\n   AllocTRES=\n   \n" + more + "\n\n"
}

const started = "2026-11-27T23:53:32"

func TestParseNode(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Node
	}{
		"idle":     {shown("IDLE", started, ""), Node{"n1", "IDLE", "", "", true}},
		"new":      {shown("UNKNOWN", "None", ""), Node{"n1", "UNKNOWN", "", "", false}},
		"ours":     {shown("IDLE+DRAIN", started, "   Reason=hostcheck: a.b: c [d] e=f [root@2026-11-27T23:53:45]"), Node{"n1", "IDLE+DRAIN", "hostcheck: a.b: c [d] e=f", "root", true}},
		"no owner": {shown("IDLE+DRAIN", started, "   Reason=hostcheck: a.b: c"), Node{"n1", "IDLE+DRAIN", "hostcheck: a.b: c", "", true}},
		"other lines": {shown("IDLE+DRAIN", started, "   Reason=disk [ops@2026-11-27T23:53:45]\n             Reason=hostcheck: a.b: c [root@2026-11-27T23:53:45]\n   State=IDLE x"),
			Node{"n1", "IDLE+DRAIN", "disk", "ops", true}},
		"a comment that looks like a reason": {shown("IDLE+DRAIN", started, "   Comment=x\n   Reason=hostcheck: a.b: c [root@2026-11-27T23:53:45]\n   Reason=disk [ops@2026-11-27T23:53:45]"),
			Node{"n1", "IDLE+DRAIN", "hostcheck: a.b: c", "", true}},
	} {
		got, err := ParseNode(c.text, "n1")
		if err != nil || *got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "not found": "Node n1 not found\n", "no state": "NodeName=n1 \n   OS=x\n",
		"another": strings.ReplaceAll(shown("IDLE", started, ""), "n1", "n2"), "two": shown("IDLE", started, "") + shown("IDLE", started, ""),
	} {
		if n, err := ParseNode(text, "n1"); err == nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

func TestDecide(t *testing.T) {
	fit := &Verdict{Outcome: Fit, Held: []string{"a.b"}}
	unfit := &Verdict{Outcome: Unfit, Failed: []string{"a.b"}, Why: "a.b: c"}
	unknown := &Verdict{Outcome: Unknown, Why: "x"}
	const ours, more = "hostcheck: a.b: x", "hostcheck: a.b +2: x"
	for _, c := range []struct {
		v                    *Verdict
		state, reason, owner string
		want                 Action
	}{
		{fit, "IDLE", "", "", Nothing},
		{unfit, "IDLE", "", "", Drain},
		{unknown, "IDLE", "", "", Nothing},
		{unfit, "ALLOCATED", "", "", Drain},
		{unfit, "MIXED+PLANNED", "", "", Drain},
		{unfit, "IDLE+MAINTENANCE+RESERVED", "", "", Drain},
		{unfit, "IDLE+CLOUD+DYNAMIC_NORM", "", "", Drain},
		{unfit, "IDLE", ours, "root", Drain}, // a reason that a resume left
		{unfit, "IDLE+DRAIN", ours, "root", Nothing},
		{unfit, "IDLE+DRAIN", "hostcheck: a.c: x", "root", Drain},
		{fit, "IDLE+DRAIN", ours, "root", Resume},
		{fit, "ALLOCATED+DRAIN", ours, "root", Resume},
		{unknown, "IDLE+DRAIN", ours, "root", Nothing},
		{&Verdict{Outcome: Fit, Held: []string{"a.c"}}, "IDLE+DRAIN", ours, "root", Nothing}, // not judged this time
		{fit, "IDLE+DRAIN", more, "root", Resume},
		{&Verdict{Outcome: Fit, Held: []string{"a.b"}, Open: []string{"a.d"}}, "IDLE+DRAIN", more, "root", Nothing},
		{fit, "IDLE+DRAIN", ours, "ops", Nothing},
		{fit, "IDLE+DRAIN", ours, "", Nothing},
		{fit, "IDLE+DRAIN", "disk on order", "root", Nothing},
		{unfit, "IDLE+DRAIN", "disk on order", "root", Nothing},
		{unfit, "IDLE+DRAIN", "", "", Nothing},
		{fit, "IDLE+DRAIN", "Prolog error", "slurm", Nothing},
		{unfit, "DOWN", "", "", Nothing},
		{unfit, "DOWN*", "", "", Nothing},
		{fit, "DOWN+DRAIN", ours, "root", Nothing},
		{fit, "DOWN+DRAIN+NOT_RESPONDING", ours, "root", Nothing},
		{unfit, "IDLE*", "", "", Nothing},
		{unfit, "IDLE+NOT_RESPONDING", "", "", Nothing},
		{unfit, "IDLE@", "", "", Nothing},
		{fit, "REBOOT*+DRAIN", ours, "root", Nothing},
		{fit, "IDLE+DRAIN+REBOOT_ISSUED", ours, "root", Nothing},
		{unfit, "IDLE+POWERED_DOWN", "", "", Nothing},
		{unfit, "IDLE~", "", "", Nothing},
		{unfit, "IDLE+FAIL", "", "", Nothing},
		{fit, "IDLE+DRAIN+INVALID_REG", "gres/gpu count", "slurm", Nothing},
		{unfit, "UNKNOWN", "", "", Nothing},
		{unfit, "FUTURE", "", "", Nothing},
		{unfit, "TELEPORTED", "", "", Nothing},
	} {
		n := &Node{Name: "n1", State: c.state, Reason: c.reason, Owner: c.owner, Known: true}
		got := Decide(c.v, n, "root")
		if got.Action != c.want || got.Why == "" || (got.Action == Nothing) != (got.Reason == "") {
			t.Errorf("%s %s %q [%s]: %+v, want %s", c.v.Outcome, c.state, c.reason, c.owner, got, c.want)
		}
		n.Known = false
		if got := Decide(c.v, n, "root"); got.Action != Nothing {
			t.Errorf("%s %s, not registered: %+v", c.v.Outcome, c.state, got)
		}
	}
}

// fake writes a scontrol that is a script.
func fake(t *testing.T, script string) *Scontrol {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "scontrol")
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Scontrol{Program: p, Limit: time.Minute}
}

func TestScontrol(t *testing.T) {
	ctx := t.Context()
	t.Setenv("SLURM_TIME_FORMAT", "relative") // never handed on
	s := fake(t, `[ -z "$SLURM_TIME_FORMAT" ] || exit 7
case "$1" in
show) printf 'NodeName=n1 \n   State=%s x\n   BootTime=x SlurmdStartTime=x\n' "${SLURM_CONF:-IDLE}" ;;
*) printf '%s|' "$@" >&2; exit 3 ;;
esac
`)
	if n, err := s.Show(ctx, "n1"); err != nil || n.State != "IDLE" {
		t.Errorf("%+v, %v", n, err)
	}
	s.Conf = "DOWN"
	if n, err := s.Show(ctx, "n1"); err != nil || n.State != "DOWN" {
		t.Errorf("SLURM_CONF is not handed on: %+v, %v", n, err)
	}
	err := s.Tell(ctx, "n1", Step{Action: Drain, Reason: "hostcheck: a.b: c d"})
	if want := "scontrol update: exit status 3; it says: update|NodeName=n1|State=DRAIN|Reason=hostcheck: a.b: c d|"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	for _, name := range []string{"", "ALL", "all", "n1,n2", "n[1-2]", "-o", "n1 n2", "../n"} {
		if _, err := s.Show(ctx, name); err == nil || strings.Contains(err.Error(), "scontrol ") {
			t.Errorf("asked for node %q: %v", name, err)
		}
		if err := s.Tell(ctx, name, Step{Action: Drain, Reason: "x"}); err == nil || strings.Contains(err.Error(), "scontrol ") {
			t.Errorf("told of node %q: %v", name, err)
		}
	}
	if err := s.Tell(ctx, "n1", Step{Action: Nothing}); err != nil {
		t.Errorf("nothing to tell: %v", err)
	}
}

// A scontrol that hangs, with a child that holds its pipes, is killed.
func TestScontrolHangs(t *testing.T) {
	s := fake(t, "echo NodeName=n1; sleep 1000 & sleep 1000\n")
	s.Limit = 300 * time.Millisecond
	_, err := s.Show(context.Background(), "n1")
	if want := "scontrol show did not answer within 300ms"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestScontrolFloods(t *testing.T) {
	s := fake(t, "head -c 1000000 /dev/zero | tr '\\0' x\n")
	if _, err := s.Show(t.Context(), "n1"); err == nil || !strings.Contains(err.Error(), "it says more than") {
		t.Errorf("%v", err)
	}
}

func TestScontrolTrusted(t *testing.T) {
	s := fake(t, "exit 0\n")
	if p, err := Find(s.Program, nil); err != nil || p != s.Program {
		t.Errorf("%s, %v", p, err)
	}
	dir := filepath.Dir(s.Program)
	bin := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o755), os.Symlink("../scontrol", filepath.Join(bin, "scontrol")), os.Mkdir(filepath.Join(dir, "sbin"), 0o755)); err != nil {
		t.Fatal(err)
	}
	d := &Slurmd{Program: filepath.Join(dir, "sbin/slurmd")}
	if p, err := Find("", d); err != nil || p != filepath.Join(bin, "scontrol") {
		t.Errorf("beside slurmd: %s, %v", p, err)
	}
	for _, open := range []string{s.Program, bin, dir} {
		st, err := os.Stat(open)
		if err == nil {
			err = os.Chmod(open, 0o777)
		}
		if err != nil {
			t.Fatal(err)
		}
		if p, err := Find("", d); err == nil || !strings.Contains(err.Error(), "not to be trusted") {
			t.Errorf("%s may be written by all: %s, %v", open, p, err)
		}
		if err := os.Chmod(open, st.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"scontrol", filepath.Join(dir, "none"), filepath.Join(dir, "loop"), s.Program + "/x"} {
		if _, err := Find(p, nil); err == nil {
			t.Errorf("%s is trusted", p)
		}
	}
}

func TestAge(t *testing.T) {
	v := &Verdict{}
	if err := v.Stamp(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Age(); err != nil || v.BootID == "" || v.Uptime <= 0 {
		t.Errorf("%+v, %v", v, err)
	}
	v.Uptime = 100
	if d, err := v.age(v.BootID, 130*time.Second); err != nil || d != 30*time.Second {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := v.age(v.BootID, 90*time.Second); err == nil {
		t.Error("of the future, but counts")
	}
	if _, err := v.age("another", 130*time.Second); err == nil {
		t.Error("of another boot, but counts")
	}
}

func TestGate(t *testing.T) {
	for _, c := range []struct {
		outcome  Outcome
		ago      time.Duration
		unjudged bool
		open     bool
		why      string
	}{
		{Fit, time.Second, false, true, "fit, judged "},
		{Fit, 2 * time.Hour, false, false, "not judged: the last verdict, fit, is 2h0m"},
		{Fit, 2 * time.Hour, true, true, "not judged: "},
		{Unfit, time.Second, true, false, "not fit, judged "},
		{Unfit, 2 * time.Hour, true, false, "not fit, judged "}, // it was not judged better since
		{Unknown, time.Second, true, true, "unknown, judged "},
		{Unknown, time.Second, false, false, "unknown, judged "},
		{"", 0, true, true, "not judged: no file"},
		{"", 0, false, false, "not judged: no file"},
	} {
		var v *Verdict
		err := errors.New("no file")
		if c.outcome != "" {
			v, err = &Verdict{Outcome: c.outcome, Why: "why"}, nil
			if err := v.Stamp(time.Now()); err != nil {
				t.Fatal(err)
			}
			if v.Uptime -= c.ago.Seconds(); v.Uptime < 0 {
				t.Skip("this machine has just booted")
			}
		}
		var g Gate
		g.Decide(v, err, time.Hour, c.unjudged)
		if g.Open != c.open || !strings.HasPrefix(g.Why, c.why) {
			t.Errorf("%s %v ago, allow %v: %v, %q, want %v, %q", c.outcome, c.ago, c.unjudged, g.Open, g.Why, c.open, c.why)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("77 (slurmd (x) ) S 76 76 76 0 -1 4194560 938 0 1 0 2 5 0 0 20 0 12 0 6212707 295317504 2357\n"))
	if want := (stat{"slurmd (x) ", 76, 62127070 * time.Millisecond}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, s := range []string{"", ")(", "1 (x)", "1 (x) S a 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23"} {
		if got, err := parseStat([]byte(s)); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add(shown("IDLE", started, ""))
	f.Add(shown("DOWN*+DRAIN", "None", "   Reason=hostcheck: a.b: c [root@2026-11-27T23:53:45]\n   Comment=x"))
	v := &Verdict{Outcome: Fit, Held: []string{"a.b"}}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNode(text, "n1")
		if err != nil {
			return
		}
		if n.Name != "n1" || n.State == "" {
			t.Errorf("%q: %+v", text, n)
		}
		if s := Decide(v, n, "root"); s.Action == Resume && (n.Owner != "root" || !strings.HasPrefix(n.Reason, prefix)) {
			t.Errorf("%q: resumed: %+v", text, n)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":"hostcheck.verdict/v1","verdict":"unfit","failed":["a.b"],"uptime_s":1e3,"boot_id":"x"}`))
	f.Add([]byte(`{"schema":"hostcheck.verdict/v1","verdict":"fit"}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Parse(b)
		if err != nil {
			return
		}
		var g Gate
		g.Decide(v, nil, time.Hour, false)
		if g.Open && v.Outcome != Fit {
			t.Errorf("%q: open", b)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("77 (slurmd) S 76 76 76 0 -1 4194560 938 0 1 0 2 5 0 0 20 0 12 0 6212707 295317504 2357\n"))
	f.Add([]byte("1 (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 10000000000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && s.start < 0 {
			t.Errorf("%q: started %v after boot", b, s.start)
		}
	})
}
