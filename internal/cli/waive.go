// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

// clock is the time at which a host was sampled; where nobody knows it, now.
func clock(h *host.Host) time.Time {
	if t := h.Time(); !t.IsZero() {
		return t
	}
	return time.Now()
}

// readWaivers reads the waivers of a host; nil where there is no file. One that
// cannot be used is an error: judging without it would be silently wrong.
func readWaivers(h *host.Host) (*profile.Waivers, error) {
	data, err := h.Read(profile.WaiverPath)
	if host.Absent(err) {
		return nil, nil
	}
	if err == nil && h.Live() { // of a tree all is as whoever gives it wants
		err = h.Trusted(profile.WaiverPath)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the waivers of the host: %w", err)
	}
	return profile.ParseWaivers(profile.WaiverPath, data)
}

// knownWaivers is readWaivers for a capture that may not have looked.
func (a *app) knownWaivers(h *host.Host) (*profile.Waivers, error) {
	ws, err := readWaivers(h)
	if errors.Is(err, host.ErrNotCaptured) {
		a.warn("whether the host has waivers is not known: %s was not captured", profile.WaiverPath)
		return nil, nil
	}
	return ws, err
}

// loadWaivers gives the waivers of a host, and tells of those that can have no
// effect.
func (a *app) loadWaivers(h *host.Host, p *profile.Profile) ([]profile.Waiver, error) {
	ws, err := a.knownWaivers(h)
	if err != nil || ws == nil {
		return nil, err
	}
	for i := range ws.List {
		w := &ws.List[i]
		if why := a.idleWaiver(w, p); why != "" {
			a.warn("%s: the waiver of %s has no effect: %s", profile.WaiverPath, w, why)
		}
	}
	return ws.List, nil
}

// idleWaiver says why a waiver can have no effect, whenever; "" where it can.
func (a *app) idleWaiver(w *profile.Waiver, p *profile.Profile) string {
	all := a.allChecks()
	i := slices.IndexFunc(all, func(c *check.Check) bool { return c.ID == w.Check })
	switch {
	case i < 0:
		return "this hostcheck has no check of that name"
	case all[i].Strict:
		return "the check is strict"
	case p.IsStrict(w.Check):
		return "the profile says that the check is strict"
	}
	return ""
}

func (a *app) waiveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "waive COMMAND",
		Short: "findings that somebody decided to live with for a time",
		Long: "A waiver says who lives with the findings of one check, until which day and why. Until then they count as waived: they fail no run, and --fix leaves them alone. " +
			"After that day they fail again. What could not be judged cannot be waived, and neither can checks that are strict (\"hostcheck explain ID\"; \"strict\" in a profile).\n\n" +
			"They stand in " + profile.WaiverPath + " of the host that is judged. A copy of a host is judged by the day on which it was made.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck waive needs one of add, list, rm")
			}
			return unknown("waive command", args[0], commandNames(c))
		},
	}
	c.AddCommand(a.waiveAdd(), a.waiveList(), a.waiveRemove())
	return c
}

// shownWaiver is one waiver in "waive list -f json".
type shownWaiver struct {
	Check   string `json:"check"`
	Subject string `json:"subject"`
	Owner   string `json:"owner"`
	Until   string `json:"until"`
	Reason  string `json:"reason"`
	State   string `json:"state"` // in force, expired, no effect
	Why     string `json:"why"`   // it has no effect
}

const (
	inForce  = "in force"
	expired  = "expired"
	noEffect = "no effect"
)

func (a *app) shownWaiver(w *profile.Waiver, p *profile.Profile, now time.Time) shownWaiver {
	s := shownWaiver{w.Check, w.Subject, w.Owner, w.Until, w.Reason, inForce, a.idleWaiver(w, p)}
	switch {
	case s.Why != "":
		s.State = noEffect
	case w.Expired(now):
		s.State = expired
	}
	return s
}

// waiving is the file of waivers of a host as it is.
type waiving struct {
	host    *host.Host
	profile *profile.Profile
	file    *profile.Waivers // nil: there is none
	now     time.Time
}

func (a *app) openWaivers() (*waiving, error) {
	h, err := a.openHost()
	if err != nil {
		return nil, err
	}
	w := &waiving{host: h, now: clock(h)}
	if w.file, err = a.knownWaivers(h); err == nil {
		w.profile, err = a.loadProfile(facts.New(h))
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return w, nil
}

func (a *app) waiveList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "the waivers of this host, and which of them hold",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			w, err := a.openWaivers()
			if err != nil {
				return err
			}
			defer w.host.Close()
			all := []shownWaiver{}
			if w.file != nil {
				for i := range w.file.List {
					all = append(all, a.shownWaiver(&w.file.List[i], w.profile, w.now))
				}
			}
			if a.json() {
				return a.writeJSON(all)
			}
			if len(all) == 0 {
				return a.writeText("no waivers\n")
			}
			rows := [][]string{{"CHECK", "SUBJECT", "UNTIL", "STATE", "OWNER", "REASON"}}
			for _, s := range all {
				state := s.State
				if s.Why != "" {
					state += ": " + s.Why
				}
				rows = append(rows, []string{s.Check, cmp.Or(s.Subject, "every"), s.Until, state, s.Owner, s.Reason})
			}
			return a.writeText(a.text().Table(rows))
		},
	}
}

func (a *app) waiveAdd() *cobra.Command {
	var w profile.Waiver
	c := &cobra.Command{
		Use:   "add ID --until DAY --owner NAME --reason TEXT",
		Short: "live with the findings of a check until a day",
		Long: "Adds a waiver to " + profile.WaiverPath + ". One for the same check and subject is replaced. The change is journalled, and \"hostcheck undo\" takes it back; " +
			"other lines of the file stay as they are.",
		Args:              one("ID of a check; \"hostcheck list\" has them"),
		ValidArgsFunction: a.completeChecks(false),
		RunE: func(_ *cobra.Command, args []string) error {
			w.Check = args[0]
			return a.addWaiver(w)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&w.Until, "until", "", "last `DAY` on which it holds: 2027-03-31, or 30d from today on")
	c.Flags().StringVar(&w.Owner, "owner", "", "`NAME` of who answers for it")
	c.Flags().StringVar(&w.Reason, "reason", "", "`TEXT` for those who read the report")
	c.Flags().StringVar(&w.Subject, "subject", "", "only findings about this: a `GLOB` on the subject or on one word of it, such as an interface or a PCI address")
	return c
}

func (a *app) addWaiver(w profile.Waiver) error {
	ids := make([]string, 0, 100)
	for _, c := range a.allChecks() {
		ids = append(ids, c.ID)
	}
	if !slices.Contains(ids, w.Check) {
		return unknown("check", w.Check, ids)
	}
	for _, f := range [][2]string{{"--until", w.Until}, {"--owner", w.Owner}, {"--reason", w.Reason}} {
		if f[1] == "" {
			return fmt.Errorf("hostcheck waive add needs %s: a waiver has an end, an owner and a reason", f[0])
		}
	}
	at, err := a.openWaivers()
	if err != nil {
		return err
	}
	defer at.host.Close()
	now := time.Now() // also for a copy of a host: it is today that somebody decides
	if days, ok := strings.CutSuffix(w.Until, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("--until %.40q: a number of days is written 30d", w.Until)
		}
		w.Until = now.UTC().AddDate(0, 0, int(n)).Format("2006-01-02")
	}
	if w, err = profile.NewWaiver(w); err != nil {
		return err
	}
	if w.Expired(now) {
		return fmt.Errorf("--until %s: that day has passed", w.Until)
	}
	if why := a.idleWaiver(&w, at.profile); why != "" {
		return fmt.Errorf("%s cannot be waived: %s", w.Check, why)
	}
	file := at.file
	if file == nil {
		file = profile.NoWaivers()
	}
	file, old, err := file.Add(w)
	if err != nil {
		return fmt.Errorf("cannot add to %s: %w; the entry:\n%s", profile.WaiverPath, err, w.YAML())
	}
	verb := "waived"
	if old != nil {
		verb = "waived again"
	}
	return a.writeWaivers(at, file, verb, []profile.Waiver{w})
}

func (a *app) waiveRemove() *cobra.Command {
	var subject string
	var past bool
	c := &cobra.Command{
		Use:   "rm ID | --expired",
		Short: "no longer live with the findings of a check",
		Long:  "Removes a waiver from " + profile.WaiverPath + ". The change is journalled, and \"hostcheck undo\" takes it back; other lines of the file stay as they are.",
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case past && (len(args) > 0 || c.Flags().Changed("subject")):
				return errors.New("--expired needs no ID and no subject")
			case past:
				return nil
			}
			return one("ID of a check; \"hostcheck waive list\" has those that are waived")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.removeWaiver(strings.Join(args, ""), subject, c.Flags().Changed("subject"), past)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&subject, "subject", "", "of several waivers of a check the one with this `GLOB`, as \"hostcheck waive list\" shows it; empty: the one for every subject")
	c.Flags().BoolVar(&past, "expired", false, "all of which the last day has passed")
	return c
}

func (a *app) removeWaiver(id, subject string, chosen, past bool) error {
	at, err := a.openWaivers()
	if err != nil {
		return err
	}
	defer at.host.Close()
	var gone []profile.Waiver
	var known []string
	file := at.file
	for i := 0; file != nil && i < len(file.List); {
		w := file.List[i]
		if !slices.Contains(known, w.Check) {
			known = append(known, w.Check)
		}
		if past && !w.Expired(time.Now()) || !past && (w.Check != id || chosen && w.Subject != subject) {
			i++
			continue
		}
		if file, err = file.Remove(i); err != nil {
			return fmt.Errorf("cannot change %s: %w", profile.WaiverPath, err)
		}
		gone = append(gone, w)
	}
	switch {
	case len(gone) == 0 && past:
		return a.writeText("no waiver has expired\n")
	case len(gone) == 0 && slices.Contains(known, id):
		return fmt.Errorf("%s is waived, but not for the subject %.80q; see \"hostcheck waive list\"", id, subject)
	case len(gone) == 0:
		return fmt.Errorf("%.80q is not waived%s", id, didYouMean(id, known))
	case len(gone) > 1 && !past:
		var subjects []string
		for _, w := range gone {
			subjects = append(subjects, cmp.Or(w.Subject, `"" (every)`))
		}
		return fmt.Errorf("%s is waived for several subjects: say which one with --subject: %s", id, strings.Join(subjects, ", "))
	}
	return a.writeWaivers(at, file, "no longer waived", gone)
}

// waived is what "waive add" and "waive rm" write with -f json.
type waived struct {
	File    string        `json:"file"`
	Waivers []shownWaiver `json:"waivers"` // that were added or removed
	Result  report.Result `json:"result"`
}

// writeWaivers makes a file the host's, as every other change is made.
func (a *app) writeWaivers(at *waiving, file *profile.Waivers, verb string, about []profile.Waiver) error {
	if a.live() && a.machine == nil && os.Geteuid() != 0 {
		return fmt.Errorf("changing %s needs root; nothing was changed", profile.WaiverPath)
	}
	e := a.engine(false)
	var names []string
	doc := waived{File: profile.WaiverPath}
	for i := range about {
		names = append(names, about[i].String())
		doc.Waivers = append(doc.Waivers, a.shownWaiver(&about[i], at.profile, time.Now()))
	}
	change := plan.Change{
		Setting: plan.Setting{Kind: plan.KindFile, Target: profile.WaiverPath}, After: plan.Text(string(file.Text())),
		Tier: plan.Safe, Persist: true, Why: verb + ": " + strings.Join(names, ", "),
	}
	ctx, stop := a.interruptible(a.steps())
	result := plan.Result{Outcome: report.OutcomeNothing}
	p, err := e.Around(ctx, at.host, plan.Plan{Tool: e.Tool, ProfileHash: at.profile.Hash}, []plan.Change{change}, nil)
	if err == nil && len(p.Changes) > 0 {
		result, err = e.Apply(ctx, p, plan.Options{})
	}
	stop()
	switch {
	case errors.Is(err, plan.ErrBusy):
		return &failure{report.ExitBusy, err}
	case err != nil:
		return fmt.Errorf("nothing was changed: %w", err)
	}
	doc.Result = report.NewResult(result, a.again())
	if a.json() {
		err = a.writeJSON(doc)
	} else {
		err = a.writeText(a.text().Waived(verb, names, doc.Result))
	}
	if err == nil && result.Exit() != report.ExitOK {
		err = exit(result.Exit())
	}
	return err
}
