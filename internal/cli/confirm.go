// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm [TXN]",
		Short: "keep a change of tier link or boot, which is taken back otherwise",
		Long: "Says that the host is well with a change of tier link. The timer that would take it back is stopped, and what a reboot would lose is set again at each boot from now on. " +
			"In a boot that tries a kernel command line, says the same of that: it becomes the host's. " +
			"Exit 2 when nothing waits to be confirmed, as after the time is up.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s takes one transaction, not %d", c.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.keep(strings.Join(args, "")) },
	}
}

func (a *app) keep(id string) error {
	r, err := a.confirmed(id)
	if err != nil {
		return err
	}
	doc := report.Confirmed{Schema: report.ConfirmSchema, Result: report.NewResult(r, a.again()), Exit: r.Exit()}
	if a.json() {
		err = a.writeJSON(doc)
	} else {
		err = a.writeText(a.text().Kept(doc))
	}
	if err == nil && doc.Exit != report.ExitOK {
		return exit(doc.Exit)
	}
	return err
}

// confirmed keeps the transaction that waits for it, "" whichever it is.
func (a *app) confirmed(id string) (plan.Result, error) {
	e := a.engine(false)
	switch txns, err := e.History(); {
	case err != nil:
		return plan.Result{}, a.rooted(err)
	case len(txns) == 0: // no journal is made to say so
		return plan.Result{}, plan.ErrNoneWaits
	}
	s := a.steps()
	ctx, stop := a.interruptible(s)
	r, err := e.Confirm(ctx, id, plan.Options{Progress: s.show})
	stop()
	s.end()
	if errors.Is(err, plan.ErrNoneWaits) {
		txns, _ := e.History()
		if t := a.trial(txns); t != nil && t.State == fixes.TrialRunning && (id == "" || id == t.Txn) {
			for _, p := range t.Problems {
				a.warn("%s", p)
			}
			r, err = a.confirmTrial()
		}
	}
	switch {
	case errors.Is(err, plan.ErrBusy):
		return r, &failure{report.ExitBusy, err}
	case err != nil:
		return r, a.rooted(err)
	}
	return r, nil
}

// expireCommand is what the timer runs.
func (a *app) expireCommand() *cobra.Command {
	return &cobra.Command{
		Use: "expire", Hidden: true, Args: none,
		Short: "take back what was not confirmed in time; a timer of systemd runs it",
		Long:  "Waits until the time to confirm is up and no other hostcheck is at work, then takes back the change that was not confirmed. Does nothing when there is none.",
		RunE:  func(*cobra.Command, []string) error { return a.expire() },
	}
}

const lookAgain = time.Second

func (a *app) expire() error {
	e := a.engine(false)
	s := a.steps()
	doc := report.Undo{Schema: report.UndoSchema, Results: []report.Result{}}
	for {
		ctx, stop := a.interruptible(s)
		results, wait, err := e.Expire(ctx, plan.Options{Within: fixes.ConfirmWithin, Progress: s.show})
		stop()
		s.end()
		for _, r := range results {
			doc.Results = append(doc.Results, report.NewResult(r, a.again()))
			doc.Exit = max(doc.Exit, r.Exit())
		}
		switch {
		case errors.Is(err, plan.ErrBusy):
			wait = lookAgain // it may be the one that is to be taken back
		case err != nil:
			return a.rooted(err)
		}
		if wait == 0 {
			break
		}
		time.Sleep(wait)
	}
	if err := a.writeText(a.text().Undone(doc, "", !a.live())); err != nil {
		return err
	}
	if doc.Exit != report.ExitOK {
		return exit(doc.Exit)
	}
	return nil
}

// unconfirmed tells what becomes of a transaction that waits. After a reboot
// the timer counts again, from about when the host came up.
func (a *app) unconfirmed(t *plan.Txn) *report.Unconfirmed {
	now := time.Now()
	left := min(t.Until.Sub(now), fixes.ConfirmWithin)
	if h, err := host.Open(a.flags.root, host.Options{}); err == nil {
		defer h.Close()
		boot, err := h.Text("/proc/sys/kernel/random/boot_id")
		if err == nil && boot != t.BootID {
			left = fixes.ConfirmWithin - uptime(h)
		}
	}
	left = max(0, left).Truncate(time.Second)
	base := report.ShellWords(a.again())
	return &report.Unconfirmed{
		Txn: report.NewTxn(t), Until: now.Add(left).UTC().Format(time.RFC3339), Left: int(left.Seconds()),
		Confirm: base + " confirm " + t.ID, Undo: base + " undo " + t.ID,
	}
}

// uptime is how long ago the host came up; 0 when that is not known.
func uptime(h *host.Host) time.Duration {
	text, err := h.Text("/proc/uptime")
	f := strings.Fields(text)
	if err != nil || len(f) == 0 {
		return 0
	}
	s, err := strconv.ParseFloat(f[0], 64)
	if err != nil || s < 0 || s > 1e9 {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// kept tells what is set again at each boot.
func (a *app) kept(e *plan.Engine) (report.Settings, error) {
	out := report.Settings{Ignored: []report.Ignored{}}
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return out, err
	}
	defer h.Close()
	s := fixes.ReadSettings(h)
	out.Count = len(s.All)
	out.Off, _ = fixes.SettingsOff(h) // a tree may have no command line
	for _, i := range s.Ignored {
		out.Ignored = append(out.Ignored, report.Ignored{File: i.File, Why: i.Why})
	}
	attempt, err := e.Attempt()
	if attempt != nil && out.Count > 0 {
		at := "an unknown time"
		if stamp := report.Stamp(attempt.Started); stamp != nil {
			at = *stamp
		}
		out.Stopped, out.Retry = &at, report.ShellWords(append(a.again(), "settings", "apply", "--retry"))
	}
	return out, err
}

// settingsCommand is what the unit at boot runs.
func (a *app) settingsCommand() *cobra.Command {
	c := &cobra.Command{Use: "settings", Hidden: true, Short: "what is set again at each boot", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	var retry bool
	apply := &cobra.Command{
		Use: "apply", Args: none,
		Short: "set what the files in " + fixes.SettingsDir + " say; a unit of systemd runs it at boot",
		Long: "Sets what the files in " + fixes.SettingsDir + " say. After an attempt that did not complete nothing is tried any more, until --retry. " +
			"The kernel parameter hostcheck.settings=off switches it off.",
		RunE: func(*cobra.Command, []string) error { return a.setAgain(retry) },
	}
	apply.Flags().BoolVar(&retry, "retry", false, "also after an attempt that did not complete")
	c.AddCommand(apply)
	return c
}

// settingsWait is how long the boot waits for another hostcheck.
const settingsWait = time.Minute

// setAgain sets what the files say, a transaction per device: one that refuses
// must not keep the others.
func (a *app) setAgain(retry bool) error {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	if off, err := fixes.SettingsOff(h); err != nil {
		return err
	} else if off {
		a.say("nothing is set: the kernel has hostcheck.settings=off")
		return nil
	}
	all := fixes.ReadSettings(h)
	for _, i := range all.Ignored {
		a.warn("%s is ignored: %s", i.File, i.Why)
	}
	if len(all.All) == 0 {
		return nil
	}
	e := a.engine(true) // who wrote the files was asked then
	if err := idleWithin(e, settingsWait); err != nil {
		return &failure{report.ExitBusy, err}
	}
	switch attempt, err := e.Attempt(); {
	case err != nil:
		return a.rooted(err)
	case attempt != nil && !retry:
		return fmt.Errorf("nothing is set: an earlier attempt did not complete, so it may be what stopped the host; try again: %s settings apply --retry", report.ShellWords(a.again()))
	}
	if err := a.takeBackAttempt(e); err != nil {
		return err
	}
	end, err := e.BeginAttempt()
	if err != nil {
		return a.rooted(err)
	}
	code := 0
	for todo := all.All; len(todo) > 0; {
		var away []fixes.Saved
		for i := 0; i < len(todo); {
			n := i + 1
			for n < len(todo) && todo[n].Kind == todo[i].Kind && todo[n].Target == todo[i].Target {
				n++
			}
			c, gone := a.setGroup(e, todo[i:n])
			code, away = max(code, c), append(away, gone...)
			if i = n; code == report.ExitBroken || code > report.ExitSignal { // the latter by the time limit of the unit, it may be: the next boot does not try
				return exit(code)
			}
		}
		todo = a.came(away)
	}
	if err := end(); err != nil {
		return err
	}
	if code != report.ExitOK {
		return exit(code)
	}
	return nil
}

// takeBackAttempt undoes what an attempt that did not complete left half way:
// nothing can be set beside it.
func (a *app) takeBackAttempt(e *plan.Engine) error {
	txns, err := e.History()
	if err != nil {
		return a.rooted(err)
	}
	for _, t := range txns {
		if !t.Reapply || t.State != plan.Unfinished {
			continue
		}
		s := a.steps()
		ctx, stop := a.interruptible(s)
		r, err := e.Undo(ctx, t.ID, plan.Options{Progress: s.show})
		stop()
		s.end()
		if err != nil {
			return a.rooted(err)
		}
		for _, l := range r.Left {
			a.say("%v", l)
		}
		if r.Exit() != report.ExitOK {
			return exit(r.Exit())
		}
	}
	return nil
}

// came gives the settings whose device came while others were being set: the
// unit was running then, and systemd does not start it once more.
func (a *app) came(away []fixes.Saved) []fixes.Saved {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return nil
	}
	defer h.Close()
	return slices.DeleteFunc(away, func(s fixes.Saved) bool {
		_, err := s.Wish(h)
		return err != nil
	})
}

// idleWithin waits for another hostcheck to end.
func idleWithin(e *plan.Engine, most time.Duration) error {
	for start := time.Now(); ; time.Sleep(lookAgain) {
		_, busy, err := e.Status(context.Background())
		if err != nil || busy == nil || time.Since(start) > most {
			return errors.Join(err, busy)
		}
	}
}

// setGroup sets the settings of one device, and says what it could not. away
// are those whose device is not there.
func (a *app) setGroup(e *plan.Engine, group []fixes.Saved) (code int, away []fixes.Saved) {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		a.say("%v", err)
		return report.ExitFindings, nil
	}
	defer h.Close()
	var wishes []plan.Wish
	for _, s := range group {
		w, err := s.Wish(h)
		if err != nil {
			a.say("%s: %s %s is not set: %v", s.File, s.Kind, s.Name, err) // it may come later
			away = append(away, s)
			continue
		}
		wishes = append(wishes, w)
	}
	p, err := e.Plan(context.Background(), h, "", wishes)
	if err != nil {
		a.say("%v", err)
		return report.ExitFindings, away
	}
	for _, r := range p.Refused {
		a.say("%s is not set to %s: %s", r.Setting, r.Want, r.Reason)
		code = report.ExitFindings
	}
	if len(p.Changes) == 0 {
		return code, away
	}
	s := a.steps()
	ctx, stop := a.interruptible(s)
	opt := plan.Options{Allow: []plan.Tier{plan.Link}, Reapply: true, Progress: s.show}
	r, err := e.Apply(ctx, p, opt)
	for start := time.Now(); errors.Is(err, plan.ErrBusy) && time.Since(start) < settingsWait; {
		time.Sleep(lookAgain)
		r, err = e.Apply(ctx, p, opt)
	}
	stop()
	s.end()
	switch {
	case err != nil:
		a.say("nothing of %s %s is set: %v", group[0].Kind, group[0].Target, err)
		return report.ExitFindings, away
	case r.Outcome != plan.Applied:
		a.say("%s %s is as it was: %v", group[0].Kind, group[0].Target, r.Cause)
		for _, l := range r.Left {
			a.say("%v", l)
		}
	}
	return max(code, r.Exit()), away
}
