// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// background is a command of the guest that may not be able to end: the kernel
// keeps a process until its last system call returns. What it says goes to files.
type background struct {
	t    *testing.T
	ctx  context.Context
	g    *lab.Guest
	name string
	from time.Time
}

func start(t *testing.T, ctx context.Context, g *lab.Guest, name, command string) *background {
	t.Helper()
	must(t, ctx, g, "start "+name, fmt.Sprintf("cd %s && rm -f %s.* && (setsid sh -c '%s > %[2]s.out 2> %[2]s.err; echo $? > %[2]s.code' > /dev/null 2>&1 < /dev/null &)", devDir, name, command))
	return &background{t, ctx, g, name, time.Now()}
}

// said waits until the command has printed a whole JSON document.
func (b *background) said(within time.Duration) string {
	b.t.Helper()
	for {
		out := must(b.t, b.ctx, b.g, "what "+b.name+" says", "cat "+devDir+"/"+b.name+".out 2>/dev/null || true")
		if json.Valid([]byte(out)) {
			return out
		}
		if time.Since(b.from) > within {
			b.t.Fatalf("step %q: after %v it has not told all: %q\n%s", b.name, within, out, must(b.t, b.ctx, b.g, "errors of "+b.name, "cat "+devDir+"/"+b.name+".err"))
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// ended waits for the command's exit code.
func (b *background) ended(code int, within time.Duration) {
	b.t.Helper()
	for from := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		out := strings.TrimSpace(must(b.t, b.ctx, b.g, "whether "+b.name+" has ended", "cat "+devDir+"/"+b.name+".code 2>/dev/null || true"))
		if out != "" {
			if out != fmt.Sprint(code) {
				b.t.Errorf("step %q: exit code %s, want %d", b.name, out, code)
			}
			return
		}
		if time.Since(from) > within {
			b.t.Fatalf("step %q: it has not ended within %v", b.name, within)
		}
	}
}

// running reports whether the command has not ended yet.
func (b *background) running() bool {
	b.t.Helper()
	r, err := b.g.Run(b.ctx, "test ! -e "+devDir+"/"+b.name+".code")
	if err != nil {
		b.t.Fatalf("step %q: %v", b.name, err)
	}
	return r.Code == 0
}

// slow is a device that takes two seconds to answer: nothing is wrong with that.
func slow(t *testing.T, ctx context.Context, g *lab.Guest, p port) {
	began, held := time.Now(), 0
	before := p.state(t, ctx, g, "before")
	p.set(t, ctx, g, "block_ms", "2000")
	p.set(t, ctx, g, "rings", "block")
	d := document[done](t, "change", must(t, ctx, g, "change", p.changer("", "ethtool|rings rx|4096", "ethtool|rings tx|2048")))
	if d.Result.Outcome != plan.Applied {
		t.Errorf("step \"change\": %+v", d.Result)
	}
	undoAll(t, ctx, g, "undo", 1)
	p.set(t, ctx, g, "rings", "normal")
	p.set(t, ctx, g, "block_ms", "0")
	if same(t, "undo", before, p.state(t, ctx, g, "after the undo")) && time.Since(began) > 8*time.Second {
		held = 1
	}
	count(devScenario, "changes that take seconds", 1, held, time.Since(began))
}

// How long what waits for the kernel may take, with room for an emulated CPU.
const (
	setterTime = 90 * time.Second // 30 s for a file, 60 s for ethtool and dcb
	readerTime = 45 * time.Second // a few reads of 2 s, one after the other
)

// blocked is a device that never answers: hostcheck says so in time, with the
// setting, and takes it back once the device answers.
func blocked(t *testing.T, ctx context.Context, g *lab.Guest, p port) {
	readBlocked(t, ctx, g, p, "facts", "hostcheck facts nics -f json", 0)
	if testing.Short() {
		return
	}
	readBlocked(t, ctx, g, p, "check", "hostcheck -f json"+devFlags, -1)
	ecn := "/sys/class/net/" + p.name + "/ecn/roce_np/enable/3"
	must(t, ctx, g, "spoil", "echo 0 > "+ecn)
	setBlocked(t, ctx, g, p, "ecn", "dcqcn np 3", "hostcheck fix --yes -f json dcqcn.enabled"+devFlags)
	must(t, ctx, g, "clean up", "echo 1 > "+ecn)
	setBlocked(t, ctx, g, p, "pfc", "dcb pfc", "hostcheck fix --yes --allow link --confirm=auto -f json dcqcn.pfc"+devFlags)
	setBlocked(t, ctx, g, p, "rings", "ethtool rings rx", p.changer("", "ethtool|rings rx|4096"))
	setBlocked(t, ctx, g, p, "sriov", "sriov numvfs", p.changer("", "sriov|numvfs|2"))
}

// setBlocked makes a change that the kernel never answers.
func setBlocked(t *testing.T, ctx context.Context, g *lab.Guest, p port, class, setting, command string) {
	began, failed := time.Now(), false
	wrong := func(format string, args ...any) {
		t.Helper()
		failed = true
		t.Errorf("%s blocked: %s", class, fmt.Sprintf(format, args...))
	}
	within := setterTime
	if class == "sriov" {
		within = 150 * time.Second // drivers set functions up one by one
	}
	before := p.state(t, ctx, g, "before")
	p.set(t, ctx, g, class, "block")
	b := start(t, ctx, g, "blocked-"+class, strings.ReplaceAll(command, "'", `"`))
	// report.Fix and what changer prints have the result at the same place
	d := document[done](t, "report", b.said(within))
	t.Logf("%s blocked: reported after %.0f s", class, time.Since(b.from).Seconds())
	switch r := d.Result; {
	case r.Outcome != plan.Incomplete || len(r.Left) == 0:
		wrong("%+v", r)
	case !slices.ContainsFunc(r.Left, func(l report.Left) bool { return l.Kind+" "+l.Name == setting && l.Target == p.subject() }):
		wrong("left is %+v, want %s of %s", r.Left, setting, p.subject())
	case !strings.Contains(r.Cause, "the kernel has not answered") || !strings.Contains(r.Cause, p.name) && !strings.Contains(r.Cause, p.bdf):
		wrong("the cause is %q", r.Cause)
	}
	if !b.running() {
		wrong("the process ended while the kernel holds it")
	}
	status := start(t, ctx, g, "status-"+class, "hostcheck status -f json")
	s := document[report.Status](t, "status", status.said(readerTime))
	t.Logf("%s blocked: status after %.0f s", class, time.Since(status.from).Seconds())
	if len(s.Pending) != 1 || s.Pending[0].ID != d.Result.Txn || len(s.Pending[0].Settings) == 0 || !strings.Contains(s.Pending[0].Why, "the kernel has not answered") {
		wrong("the status is %+v", s)
	}
	if s.Busy != nil { // it has told all and left the journal; an undo may begin
		wrong("the status tells of a hostcheck at work: %+v", s)
	}
	p.set(t, ctx, g, class, "normal")
	status.ended(1, time.Minute)
	b.ended(5, time.Minute)
	undoAll(t, ctx, g, class+" blocked: undo", 1)
	idle(t, ctx, g, class+" blocked: status after the undo", 0)
	if !same(t, class+" blocked: undo", before, p.state(t, ctx, g, "after the undo")) {
		failed = true
	}
	held := 1
	if failed {
		held = 0
	}
	count(devScenario, "changes that a device never answers", 1, held, time.Since(began))
}

// readBlocked runs a command while one NIC answers no question: the rest is
// told, and who is to blame.
func readBlocked(t *testing.T, ctx context.Context, g *lab.Guest, p port, name, command string, code int) {
	began, failed := time.Now(), false
	wrong := func(format string, args ...any) {
		t.Helper()
		failed = true
		t.Errorf("reads blocked, %s: %s", name, fmt.Sprintf(format, args...))
	}
	must(t, ctx, g, "block the reads", fmt.Sprintf("echo %s > %s && echo block > %s", p.bdf, p.parameter("only"), p.parameter("reads")))
	b := start(t, ctx, g, "reads-"+name, command)
	out := b.said(readerTime)
	t.Logf("reads blocked, %s: told after %.0f s", name, time.Since(b.from).Seconds())
	if code < 0 {
		r := document[report.Report](t, name, out)
		judged := r.Summary.Pass + r.Summary.Fail + r.Summary.Warn
		blamed := slices.ContainsFunc(r.Findings, func(f report.Finding) bool { return strings.Contains(f.Why, "did not answer") })
		if code = r.Summary.Exit; judged < 20 || len(r.Findings) < judged || !blamed {
			wrong("%+v, somebody blamed: %v\n%s", r.Summary, blamed, out)
		}
	} else {
		v := document[told](t, name, out)
		if n := v.nic(p.name); n == nil || n.Rings != nil || n.Firmware != nil || !strings.Contains(n.Unknown["speed_mbps"], "did not answer in time") || n.MTU == nil || n.Driver == nil {
			wrong("the NIC that is stuck: %+v", n)
		}
		others := 0
		for _, n := range v.NICs {
			if why := n.Unknown["rings"]; n.Name != p.name && n.Physical() && n.Rings == nil {
				if others++; !strings.Contains(why, "the first that did not was ") || !strings.Contains(why, p.name) {
					wrong("%s does not say who holds it up: %q", n.Name, why)
				}
			}
		}
		t.Logf("reads blocked: %d other NICs are held up", others)
		if len(v.NICs) < 6 {
			wrong("%d interfaces are told", len(v.NICs))
		}
	}
	if !b.running() {
		t.Logf("reads blocked, %s: the process has ended already", name)
	}
	must(t, ctx, g, "unblock the reads", fmt.Sprintf("echo normal > %s && echo > %s", p.parameter("reads"), p.parameter("only")))
	b.ended(code, time.Minute)
	held := 1
	if failed {
		held = 0
	}
	count(devScenario, "reports while a NIC answers no question", 1, held, time.Since(began))
}
