// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fixOne is a fix of one check.
func fixOne(check string) string { return "hostcheck fix --yes -f json " + check + safeFlags }

// recorded are the plans whose writes are cut, one after another in one guest;
// each leaves the guest as it was. The other verbs write nothing but the
// journal.
var recorded = []struct{ name, fix string }{
	{"all at once", fixSafe},
	{"sysctl", fixOne("sysctl")},
	{"modprobe", fixOne("driver.modules")},
	{"unit", fixMount},
}

// stretch is the writes of one fix and of its undo: the marks before and after
// each, and after what followed was written out.
type stretch struct {
	name                  string
	began, fixed, settled int
	undo, undone, ended   int
}

// TestPowerCut rebuilds the disk as a power cut at each recorded write of a fix
// and of its undo would have left it, and looks at it as a rescue system does:
// the file system is whole, /etc is as before, as after, or "hostcheck undo
// --root" makes it as before; what hostcheck said was done is done. In the full
// run two of the disks boot, and hostcheck undoes there.
func TestPowerCut(t *testing.T) {
	ctx := limit(t, 30*time.Minute)
	plans, points := recorded, 60 // of a fix, and as many of its undo
	if testing.Short() {
		plans, points = recorded[:1], 12
	}
	g := settled(t, ctx, lab.Options{Record: true})
	fixLab(t, ctx, g)
	must(t, ctx, g, "spoil", spoil)
	var stretches []stretch
	for _, p := range plans {
		mark := func() int {
			n, err := g.Mark()
			if err != nil {
				t.Fatalf("step \"mark\": %v", err)
			}
			return n
		}
		s := stretch{name: p.name}
		must(t, ctx, g, "write out", "sync")
		s.began = mark()
		applied(t, ctx, g, "fix "+p.name, p.fix)
		s.fixed = mark()
		must(t, ctx, g, "write out", "sync")
		s.settled = mark()
		s.undo = s.settled
		undoAll(t, ctx, g, "undo "+p.name, 1)
		s.undone = mark()
		must(t, ctx, g, "write out", "sync")
		s.ended = mark()
		stretches = append(stretches, s)
	}
	g.Cut()
	r, err := g.Recording()
	if err != nil {
		t.Fatalf("step \"read the recording\": %v", err)
	}
	c := &cutting{T: t, ctx: ctx, r: r, dir: t.TempDir()}
	for _, s := range stretches {
		c.stretch(s, points)
	}
	if !testing.Short() {
		c.boots(g, stretches[0])
	}
}

// cutting is the state of [TestPowerCut].
type cutting struct {
	*testing.T
	ctx context.Context
	r   *lab.Recording
	dir string

	files []string // that matter beside /etc
	base  int      // transactions in force before the first write, which stay
}

func (c *cutting) stretch(s stretch, points int) {
	began := time.Now()
	was := c.tree(c.state(s.began, 0))
	is := c.tree(c.state(s.settled, 0))
	if d := plantest.Diff(was, c.tree(c.state(s.ended, 0))); d != "" {
		c.Fatalf("%s: the undo does not give back the disk:\n%s", s.name, d)
	}
	j := judge{cutting: c, was: was, is: is, what: s.name}
	tried, held := 0, 0
	for _, part := range []struct {
		name     string
		from, to int
		last     func(v view) string // what the last state, with all promises made, must be
	}{
		{"fix", s.began, s.fixed, func(v view) string {
			if len(v.status.Applied) != 1+c.base || plantest.Diff(is, v.tree) != "" {
				return "hostcheck said that the fix is done, and the disk does not have it"
			}
			return ""
		}},
		{"undo", s.undo, s.undone, func(v view) string {
			if len(v.status.Applied)+len(v.status.Pending) > c.base || plantest.Diff(was, v.tree) != "" {
				return "hostcheck said that the undo is done, and the disk does not have it"
			}
			return ""
		}},
	} {
		cuts := lab.Points(part.from, part.to, min(points, part.to-part.from))
		if len(cuts) == 0 {
			c.Fatalf("%s: the %s wrote nothing", s.name, part.name)
		}
		before := tried
		for i, n := range cuts {
			for _, seed := range []uint64{0, 7} {
				if seed == 0 && i > 0 && n != part.to && c.r.Alike(cuts[i-1], n) {
					continue // the same disk as one write earlier
				}
				if testing.Short() && seed == 0 && i%2 == 1 && n != part.to {
					continue
				}
				v := c.look(n, seed)
				why := j.law(v)
				if why == "" && n == part.to {
					why = part.last(v)
				}
				if why == "" {
					why = j.undo(v)
				}
				if tried++; why == "" {
					held++
				} else {
					c.Errorf("%s, %s: power cut after write %d of %d (%d of the recording), seed %d: %s\nagainst the disk before:\n%s",
						s.name, part.name, n-part.from, part.to-part.from, n, seed, why, plantest.Diff(was, v.tree))
				}
				os.RemoveAll(v.dir)
				if c.ctx.Err() != nil {
					c.Fatalf("%s: out of time after %d states", s.name, tried)
				}
			}
		}
		c.Logf("%s, %s: %d writes, %d of them cut at, %d states", s.name, part.name, part.to-part.from, len(cuts), tried-before)
	}
	count("power cut", s.name, tried, held, time.Since(began))
}

// state rebuilds one disk and gives the directory with what of it matters.
func (c *cutting) state(n int, seed uint64) string {
	c.Helper()
	part := filepath.Join(c.dir, "partition")
	if err := c.r.State(part, n, seed); err != nil {
		c.Fatalf("step \"rebuild\": %v", err)
	}
	dir := filepath.Join(c.dir, fmt.Sprintf("%d-%d", n, seed))
	for _, p := range append([]string{"/etc", plan.Dir}, c.files...) {
		if err := theLab.Extract(part, p, dir); err != nil {
			c.Fatalf("step \"extract %s after write %d, seed %d\": %v", p, n, seed, err)
		}
	}
	return dir
}

// tree is the files of a rebuilt disk without the journal.
func (c *cutting) tree(dir string) plantest.Tree {
	c.Helper()
	t := plantest.Snapshot(c.T, filepath.Join(dir, "etc"))
	for _, p := range c.files {
		b, err := os.ReadFile(filepath.Join(dir, p))
		t[p] = fmt.Sprintf("%q, %v", b, errors.Is(err, os.ErrNotExist))
	}
	return t
}

// view is a rebuilt disk as hostcheck sees it.
type view struct {
	dir     string
	tree    plantest.Tree
	status  report.Status
	history report.History
	err     error // a command failed that must not
}

func (c *cutting) look(n int, seed uint64) view {
	c.Helper()
	v := view{dir: c.state(n, seed)}
	v.tree = c.tree(v.dir)
	v.err = errors.Join(
		c.run(v.dir, &v.status, 1, "status", "-f", "json"),
		c.run(v.dir, &v.history, 0, "history", "-f", "json"))
	return v
}

// run gives a rebuilt disk to this machine's hostcheck; an exit code up to most
// is good.
func (c *cutting) run(dir string, doc any, most int, args ...string) error {
	cmd := exec.CommandContext(c.ctx, built["amd64"], append([]string{"--root", dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code < 0 || code > most {
		said := ""
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			said = string(e.Stderr)
		}
		return fmt.Errorf("hostcheck %v: exit code %d: %s%s", args, code, out, said)
	}
	if err := json.Unmarshal(out, doc); err != nil {
		return fmt.Errorf("hostcheck %v: %w: %s", args, err, out)
	}
	return nil
}

// judge knows the two trees between which a stretch leads.
type judge struct {
	*cutting
	what    string
	was, is plantest.Tree
}

// law says what is wrong with a disk before anything is done about it.
func (j judge) law(v view) string {
	old, now := plantest.Diff(j.was, v.tree) == "", plantest.Diff(j.is, v.tree) == ""
	switch {
	case v.err != nil:
		return v.err.Error()
	case len(v.status.Pending)+len(v.status.Applied) > 1+j.base:
		return fmt.Sprintf("one fix is several: %+v", v.status)
	case len(v.status.Pending) > 0 && (v.status.Exit != 1 || v.status.Pending[0].State != plan.Unfinished):
		return fmt.Sprintf("its journal is not whole: %+v", v.status)
	case len(v.status.Applied) > j.base && !now:
		return "status says that the fix is in force, and it is not"
	case len(v.status.Pending) == 0 && len(v.status.Applied) == j.base && !old:
		return "not as before, and status names nothing"
	}
	return ""
}

// undo takes back what there is, and says what is wrong then.
func (j judge) undo(v view) string {
	n := len(v.status.Pending) + len(v.status.Applied)
	for range n - j.base {
		var u report.Undo
		if err := j.run(v.dir, &u, 0, "undo", "-f", "json"); err != nil {
			return err.Error()
		}
		if len(u.Results) != 1 {
			return fmt.Sprintf("undo took %d transactions back", len(u.Results))
		}
	}
	if d := plantest.Diff(j.was, j.tree(v.dir)); d != "" {
		return "undo does not give back the disk:\n" + d
	}
	var s report.Status
	if err := j.run(v.dir, &s, min(j.base, 1), "status", "-f", "json"); err != nil { // a trial asks for a look
		return "after the undo: " + err.Error()
	}
	if len(s.Applied) != j.base {
		return fmt.Sprintf("after the undo: %+v", s)
	}
	return ""
}

// boots starts the guest on two of the disks, one of the middle of the fix and
// one of the middle of the undo, and undoes there.
func (c *cutting) boots(g *lab.Guest, s stretch) {
	parts := map[string]int{"fix": (s.began + s.fixed) / 2, "undo": (s.undo + s.undone) / 2}
	for what, n := range parts { // all before the first boot, which begins another recording
		if err := c.r.State(filepath.Join(c.dir, what), n, 7); err != nil {
			c.Fatalf("step \"rebuild the middle of the %s\": %v", what, err)
		}
	}
	for what := range parts {
		began := time.Now()
		step := "boot after a power cut in the middle of the " + what
		err := g.BootState(filepath.Join(c.dir, what))
		if err == nil {
			err = comeUp(c.ctx, g)
		}
		if err != nil {
			c.Fatalf("step %q: %v", step, err)
		}
		fixLab(c.T, c.ctx, g)
		r, err := g.Run(c.ctx, "hostcheck status -f json")
		if err != nil {
			c.Fatalf("step %q: %v", step, err)
		}
		st := document[report.Status](c.T, step, r.Out)
		c.Logf("%s: %d to undo, %d in force", step, len(st.Pending), len(st.Applied))
		must(c.T, c.ctx, g, step+": undo", "hostcheck undo")
		idle(c.T, c.ctx, g, step+": status after the undo", 0)
		out := must(c.T, c.ctx, g, step+": what is left", "ls -A /etc/sysctl.d /etc/modules-load.d /etc/modprobe.d | grep hostcheck | grep -v hostcheck-lab.conf || true; systemctl is-system-running")
		held := 1
		if out != "running\n" {
			held = 0
			c.Errorf("step %q: %s", step, out)
		}
		count("power cut", "boots after a cut, and undo there", 1, held, time.Since(began))
		g.Cut()
	}
}

// comeUp starts a guest that is off and waits until it is settled. One that
// the emulator lets stall, or panic because its timer does not tick, is started
// again.
func comeUp(ctx context.Context, g *lab.Guest) (err error) {
	for range 3 {
		if err = g.On(ctx); err != nil {
			return err
		}
		try, cancel := context.WithTimeout(ctx, 8*time.Minute)
		err = g.Settle(try)
		cancel()
		if err == nil || !errors.Is(err, lab.ErrStalled) && !strings.Contains(g.Console(), "panic - not syncing: timer doesn't work") {
			return err
		}
		g.Cut()
	}
	return err
}
