// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
	"github.com/hostcheck/hostcheck/internal/units"
)

// trial tells how the trial of a kernel command line stands, nil when the host
// has none. Whether the host booted since it was armed, the journal knows.
func (a *app) trial(txns []*plan.Txn) *report.Trial {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return nil
	}
	defer h.Close()
	t := fixes.ReadTrial(facts.New(h))
	if t == nil {
		return nil
	}
	out := &report.Trial{ID: t.ID, Try: t.Try, Cmdline: t.Cmdline, Problems: []string{}}
	rebooted := true
	for _, x := range slices.Backward(txns) {
		if x.State == plan.InForce && slices.ContainsFunc(x.Plan.Changes, t.IsTrial) {
			out.Txn = x.ID
			boot, _ := h.Text("/proc/sys/kernel/random/boot_id") // a tree may have none
			rebooted = boot != x.BootID
			break
		}
	}
	out.State, out.Says = t.State(rebooted)
	if t.Running {
		text, _ := h.Text(verdictFile) // there is none before the unit has looked
		for line := range strings.Lines(text) {
			out.Problems = append(out.Problems, strings.TrimSpace(line))
		}
		out.Confirm = report.ShellWords(append(a.again(), "confirm"))
	}
	return out
}

// health is how the host stood before a trial, as flags of "hostcheck trial".
type health struct {
	checks, routes, up, failed []string
}

// judging is what the unit of a trial is told: what should be better with it,
// and what should be as it is now.
func (r *fixing) judging() []string {
	var args []string
	flag := func(name string, values []string) {
		for _, v := range values {
			args = append(args, "--"+name+"="+v)
		}
	}
	flag("check", r.tried())
	g := readGuards(r.before.host)
	flag("route", g.routes)
	for _, dev := range slices.Sorted(maps.Keys(g.state)) {
		if g.state[dev] == "up" {
			flag("up", []string{dev})
		}
	}
	if m, err := r.manager(context.Background()); err == nil { // else every unit that fails counts
		flag("failed", m.Failed)
	}
	by := r.judgedBy()
	for i := 1; i < len(by); i += 2 {
		if by[i-1] == "--profile" && strings.Contains(by[i], "/") {
			if abs, err := filepath.Abs(by[i]); err == nil {
				by[i] = abs
			}
		}
	}
	return append(args, by...)
}

// tried is the checks that must hold with the new command line: those of which
// it mends something, and the rest is mended for good before.
func (r *fixing) tried() (ids []string) {
	for _, c := range r.before.results {
		boot, other := false, false
		for i := range c.Findings {
			f := &c.Findings[i]
			if badness(f) == 0 {
				continue
			}
			mends := slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return w.Kind == "cmdline" || w.Kind == "acs" })
			boot = boot || mends
			lasts := len(f.Fix) > 0 && !slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return !fixes.Lasts(w.Kind) })
			other = other || !lasts || slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return blocked(w, r.view) })
		}
		if boot && !other {
			ids = append(ids, c.Check.ID)
		}
	}
	return ids
}

// manager is how systemd stands.
func (a *app) manager(ctx context.Context) (units.Manager, error) {
	if a.systemd != nil {
		return a.systemd(ctx)
	}
	if !a.live() {
		return units.Manager{}, errors.New("no systemd runs in a tree")
	}
	return units.Ask(ctx)
}

const (
	verdictFile = "/run/hostcheck-trial" // what keeps a trial from being confirmed, a line each; gone with this boot
	healthyIn   = 5 * time.Minute        // after the unit starts
	lookEvery   = 10 * time.Second
)

// trialCommand is what the unit of a trial runs.
func (a *app) trialCommand() *cobra.Command {
	var want health
	c := &cobra.Command{
		Use: "trial", Hidden: true, Args: none,
		Short: "confirm the kernel command line that is tried, when the host is healthy with it; a unit of systemd runs it",
		Long: "Waits until the boot is over, the default route and the interfaces that the host is managed through are as before, no other unit failed and the checks that wanted the change hold. " +
			"Then the new command line becomes the host's. Where that does not come within five minutes, nothing is done, and the next boot has the old one.",
		RunE: func(*cobra.Command, []string) error { return a.judgeTrial(want) },
	}
	f := c.Flags()
	f.StringArrayVar(&want.checks, "check", nil, "`ID` of a check that must hold")
	f.StringArrayVar(&want.routes, "route", nil, "`INTERFACE` that must have a default route")
	f.StringArrayVar(&want.up, "up", nil, "`INTERFACE` that must be up")
	f.StringArrayVar(&want.failed, "failed", nil, "`UNIT` that had failed before")
	return c
}

func (a *app) judgeTrial(want health) error {
	if t, err := a.openTrial(); err != nil {
		return err
	} else if t == nil || !t.Running {
		a.say("this boot tries no kernel command line")
		return nil
	}
	every, most := lookEvery, healthyIn
	if a.machine != nil {
		every, most = time.Millisecond, 20*time.Millisecond
	}
	well := 0 // looks in a row: a unit may be about to fail
	said := ""
	for start := time.Now(); ; time.Sleep(every) {
		problems := a.unhealthy(context.Background(), want)
		if len(problems) == 0 {
			well++
		} else {
			well = 0
		}
		if text := strings.Join(problems, "\n"); text != said {
			said = text
			a.say("%s", orWord(strings.Join(problems, "; "), "all is as before"))
		}
		if err := a.writeVerdict(said); err != nil {
			a.warn("%v", err)
		}
		late := time.Since(start) > most
		if well >= 2 {
			r, err := a.confirmTrial()
			switch {
			case err == nil && r.Outcome == plan.Applied:
				a.say("confirmed: %s", r.Txn)
				return a.writeVerdict("")
			case err == nil:
				err = fmt.Errorf("cannot confirm: %w", r.Cause)
				late = true
			}
			if said = err.Error(); late {
				return errors.Join(err, a.writeVerdict(said))
			}
		}
		if late {
			return &failure{report.ExitFindings, errors.New("not confirmed, the next boot has the old command line: " + strings.Join(problems, "; "))}
		}
	}
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (a *app) openTrial() (*fixes.Trial, error) {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return fixes.ReadTrial(facts.New(h)), nil
}

// writeVerdict keeps what is wrong for "hostcheck status".
func (a *app) writeVerdict(text string) error {
	file := filepath.Join(a.flags.root, verdictFile)
	temp := file + ".new"
	err := os.WriteFile(temp, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(temp, file)
	}
	if err != nil {
		return fmt.Errorf("cannot tell hostcheck status how the trial stands: %w", err)
	}
	return nil
}

// unhealthy says what is not as it was before the trial, or should be better
// with it.
func (a *app) unhealthy(ctx context.Context, want health) (problems []string) {
	m, err := a.manager(ctx)
	switch {
	case err != nil:
		return []string{err.Error()}
	case !m.Booted():
		return []string{"the boot is not over: systemd is " + m.State}
	}
	for _, u := range m.Failed {
		if !slices.Contains(want.failed, u) {
			problems = append(problems, u+" failed")
		}
	}
	s, err := a.open(ctx)
	if err != nil {
		return append(problems, err.Error())
	}
	defer s.host.Close()
	g := readGuards(s.host)
	for _, dev := range want.routes {
		if !slices.Contains(g.routes, dev) {
			problems = append(problems, dev+" has no default route any more")
		}
	}
	for _, dev := range want.up {
		if state, err := s.host.Text("/sys/class/net/" + dev + "/operstate"); err != nil || state != "up" {
			problems = append(problems, dev+" was up and is "+orWord(state, "gone"))
		}
	}
	if len(want.checks) == 0 {
		return problems
	}
	selected, err := a.selectChecks(want.checks, nil)
	if err != nil {
		return append(problems, err.Error())
	}
	a.judge(ctx, s, selected)
	for _, r := range s.results {
		for i := range r.Findings {
			if f := &r.Findings[i]; badness(f) > 0 {
				problems = append(problems, f.Check+" is "+string(f.Status)+": "+orWord(f.Got, f.Why))
			}
		}
	}
	return problems
}

// confirmTrial makes the command line that is tried the host's.
func (a *app) confirmTrial() (plan.Result, error) {
	e := a.engine(false)
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return plan.Result{}, err
	}
	defer h.Close()
	p, err := e.Plan(context.Background(), h, "", []plan.Wish{{Setting: fixes.TrialSetting(), Want: fixes.TrialConfirmed, Check: "cmdline.next_boot"}})
	if err == nil && len(p.Refused) > 0 {
		err = errors.New(p.Refused[0].Reason)
	}
	if err == nil && (a.live() || a.machine != nil) {
		p, err = fixes.Complete(context.Background(), e, h, p, nil)
	}
	if err != nil {
		return plan.Result{}, fmt.Errorf("cannot confirm the trial: %w", err)
	}
	s := a.steps()
	ctx, stop := a.interruptible(s)
	defer s.end()
	defer stop()
	return e.Apply(ctx, p, plan.Options{Allow: []plan.Tier{plan.Boot}, Progress: s.show})
}
