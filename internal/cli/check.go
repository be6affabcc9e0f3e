// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/inventory"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) checkCommand(use string) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Long:              "Judges this host, or the tree of --root, by the profile. Nothing is written, no process is started.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeChecks(true),
		RunE: func(c *cobra.Command, args []string) error {
			var commands []string
			if !c.HasParent() {
				commands = commandNames(c)
			}
			if f := a.changes; !c.HasParent() && f.fix {
				return a.fix(args, commands, f)
			}
			if name := a.changes.given(c.Flags()); name != "" {
				return fmt.Errorf("--%s goes with --fix", name)
			}
			selected, err := a.selectChecks(args, commands)
			if err != nil {
				return err
			}
			if c.Flags().Changed("every") {
				return a.checkEvery(selected)
			}
			return a.check(selected)
		},
	}
}

// sample is one reading of the host, and what the checks make of it.
type sample struct {
	host    *host.Host
	facts   *facts.Facts
	profile *profile.Profile
	waivers []profile.Waiver
	about   report.Host
	results []check.Result
	signal  int  // that interrupted the checks; 0: none
	late    bool // the time for the whole run was up before the checks were done
}

// open starts reading the host, and merges the profile to judge it by. Both may
// hang as a check may: when ctx ends first, the sample has no profile.
func (a *app) open(ctx context.Context) (*sample, error) {
	h, err := a.openHost()
	if err != nil {
		return nil, err
	}
	return a.sample(ctx, h)
}

// sample is open for a host that is open; it closes one that cannot be judged.
func (a *app) sample(ctx context.Context, h *host.Host) (*sample, error) {
	s := &sample{host: h, facts: facts.New(h)}
	if err := a.look(ctx, s); err != nil {
		h.Close()
		return nil, err
	}
	return s, nil
}

// inTime ends when the time for the whole run is over, and says so.
func (a *app) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.flags.timeout, fmt.Errorf("the run did not end within %v", a.flags.timeout))
}

// judge runs checks on a sample. A signal ends them early; what was judged by
// then counts.
func (a *app) judge(ctx context.Context, s *sample, selected []*check.Check) {
	ctx, stop := a.inTime(ctx)
	defer stop()
	if s.profile == nil {
		s.profile = &profile.Profile{IntentSource: profile.Assumed}
		s.results = unjudged(selected, context.Cause(ctx))
		s.late = errors.Is(ctx.Err(), context.DeadlineExceeded)
		return
	}
	progress := a.progress()
	r := check.Runner{PerCheck: a.flags.checkTimeout, Progress: progress.show}
	s.results = r.Run(ctx, selected, check.Run{Facts: s.facts, Profile: s.profile, Note: progress.note})
	progress.end()
	s.late = errors.Is(ctx.Err(), context.DeadlineExceeded)
	check.Waive(s.results, s.waivers, clock(s.host), s.profile.IsStrict)
}

// report makes the report of a judged sample.
func (a *app) report(s *sample) *report.Report {
	p := s.profile
	return report.New(report.Input{
		Tool: tool(), Host: s.about, Results: s.results, FailOn: check.Status(a.flags.failOn), Signal: s.signal,
		Profile: report.Profile{Layers: p.Layers, Intent: p.Intent, IntentSource: p.IntentSource, Hash: p.Hash},
		Required: func(id string) bool {
			return slices.ContainsFunc(p.Require, func(g string) bool { return matches(g, id) })
		},
	})
}

// check runs checks on the host and writes their report.
func (a *app) check(selected []*check.Check) error {
	measured, err := a.measurements()
	if err != nil {
		return err
	}
	ctx, stop := a.inTime(context.Background())
	defer stop()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	h, err := a.openHost() // a signal ends the process: a bundle may come slowly, or never
	if err != nil {
		return err
	}
	got := make(chan syscall.Signal, 1)
	onSignal := func(s syscall.Signal) {
		got <- s
		interrupt(errors.New("interrupted"))
	}
	a.onSignal.Store(&onSignal)
	s, err := a.sample(ctx, h)
	if err != nil {
		a.onSignal.Store(nil)
		return err
	}
	defer s.host.Close()
	defer func() { a.left += s.host.Stuck() }()
	a.judge(ctx, s, selected)
	a.onSignal.Store(nil) // from here on a signal ends the process
	select {
	case n := <-got:
		s.signal = int(n)
	default:
	}

	rep := a.report(s)
	doc, err := a.document(ctx, s, rep, measured)
	switch {
	case err != nil:
	case doc != nil:
		err = a.write(doc)
	default:
		t := a.text()
		if s.host.Live() && t.Verbose {
			t.Machine = inventory.Lines("/")
		}
		err = a.writeText(t.Report(rep))
	}
	if err != nil {
		return err
	}
	a.judged = true
	if code := a.exitCode(s, rep); code != report.ExitOK {
		return exit(code)
	}
	return nil
}

// look loads the profile and the waivers for a sample and describes the host.
// All of it reads the host, so it may hang as a check may: when ctx ends first,
// there is no profile, and the goroutine is left behind.
func (a *app) look(ctx context.Context, s *sample) error {
	type seen struct {
		p   *profile.Profile
		w   []profile.Waiver
		d   report.Host
		err error
	}
	done := make(chan seen, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil { // not the end of the process: its exit code would be that of a usage error
				done <- seen{err: &failure{report.ExitIncomplete, fmt.Errorf("hostcheck failed here: %v; please report this with a bundle of the host", v)}}
			}
		}()
		p, err := a.loadProfile(s.facts)
		if err != nil {
			done <- seen{err: err}
			return
		}
		w, err := a.loadWaivers(s.host, p)
		if err != nil {
			done <- seen{err: err}
			return
		}
		done <- seen{p: p, w: w, d: describe(s.host, s.facts)}
	}()
	select {
	case g := <-done:
		s.profile, s.waivers, s.about = g.p, g.w, g.d
		return g.err
	case <-ctx.Done():
		s.about = report.Host{Source: s.host.Source()}
		return nil
	}
}

// unjudged is the result of checks that could not be run at all.
func unjudged(selected []*check.Check, cause error) []check.Result {
	var rs []check.Result
	for _, c := range selected {
		rs = append(rs, check.Result{Check: c, Findings: []check.Finding{{Check: c.ID, Status: check.Unknown, Why: cause.Error()}}})
	}
	return rs
}

// selectChecks gives the checks that the arguments (areas and IDs; none means
// all), --only and --skip leave, in the order of the list. A word that selects
// nothing is an error; commands are what else it may have been meant to be.
func (a *app) selectChecks(args, commands []string) ([]*check.Check, error) {
	all := a.allChecks()
	named := func(words []string, what string, others []string) (map[string]bool, error) {
		ids := map[string]bool{}
		for _, w := range words {
			n := len(ids)
			found := false
			for _, c := range all {
				if matches(w, c.ID) {
					ids[c.ID], found = true, true
				}
			}
			if found || len(ids) > n {
				continue
			}
			known := append(a.checkNames(), others...)
			return nil, unknown(what, w, known)
		}
		return ids, nil
	}
	what := "area or check"
	if commands != nil {
		what = "command, area or check"
	}
	wanted, err := named(args, what, commands)
	if err != nil {
		return nil, err
	}
	only, err := named(a.flags.only, "area or check in --only", nil)
	if err != nil {
		return nil, err
	}
	skip, err := named(a.flags.skip, "area or check in --skip", nil)
	if err != nil {
		return nil, err
	}
	selected := slices.DeleteFunc(all, func(c *check.Check) bool {
		return len(args) > 0 && !wanted[c.ID] || len(a.flags.only) > 0 && !only[c.ID] || skip[c.ID]
	})
	if len(selected) == 0 {
		return nil, errors.New("no check is left to run: the arguments, --only and --skip exclude all of them")
	}
	return selected, nil
}

// matches reports whether a glob (path.Match) or an area means a check.
func matches(glob, id string) bool { return profile.MatchCheck(glob, id) }

// checkNames is the areas that have checks, and all IDs.
func (a *app) checkNames() []string {
	var areas, ids []string
	for _, c := range a.allChecks() {
		if area := c.Area(); !slices.Contains(areas, area) {
			areas = append(areas, area)
		}
		ids = append(ids, c.ID)
	}
	return append(areas, ids...)
}

func (a *app) completeChecks(areas bool) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var out []cobra.Completion
		seen := map[string]bool{}
		for _, c := range a.allChecks() {
			if area := c.Area(); areas && !seen[area] {
				seen[area] = true
				out = append(out, area)
			}
			out = append(out, cobra.CompletionWithDesc(c.ID, c.Title))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// describe is the report's host. A decoder that fails leaves the rest.
func describe(h *host.Host, f *facts.Facts) report.Host {
	d := report.Host{CapturedAt: report.Stamp(h.Time()), Source: h.Source()}
	for _, p := range []string{"/proc/sys/kernel/hostname", "/etc/hostname"} {
		if s, err := h.Text(p); err == nil && s != "" {
			d.Name = &s
			break
		}
	}
	if s, err := h.Text("/proc/sys/kernel/random/boot_id"); err == nil && s != "" {
		d.BootID = &s
	}
	func() {
		defer func() { _ = recover() }() // the checks that need it say so
		if k := f.Kernel(); k != nil {
			d.Kernel, d.Arch, d.PageSize = k.Release, k.Arch, k.PageSize
		}
	}()
	return d
}

// progress shows on a terminal's stderr what a slow run is doing.
type progress struct {
	mu    sync.Mutex
	a     *app
	start time.Time
	on    bool
	shown bool
}

func (a *app) progress() *progress {
	return &progress{a: a, start: time.Now(), on: !a.flags.quiet && term.IsTerminal(int(a.stderr.Fd()))}
}

func (p *progress) show(done, total int, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || time.Since(p.start) < 400*time.Millisecond {
		return
	}
	p.shown = true
	_, _ = fmt.Fprintf(p.a.stderr, "\r\x1b[K%d of %d checks: %s", done, total, id)
}

// note shows at once what takes a while on purpose.
func (p *progress) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		p.shown = true
		_, _ = fmt.Fprintf(p.a.stderr, "\r\x1b[K%s", what)
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		_, _ = fmt.Fprint(p.a.stderr, "\r\x1b[K")
	}
	p.on = false
}
