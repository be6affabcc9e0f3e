// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fixFlags are the flags of a fix.
type fixFlags struct {
	fix       bool // of the root command only
	dryRun    bool
	yes       bool
	allow     []string
	planHash  hashFlag
	allowMgmt bool
	confirm   string
}

// changeFlags change or loosen something, and have no form in the environment.
var changeFlags = []string{"fix", "dry-run", "yes", "allow", "plan-hash", "allow-mgmt", "confirm", "force", "all"}

// addFix adds the flags of the root command.
func (f *fixFlags) addFix(s *pflag.FlagSet) {
	s.SortFlags = false
	s.BoolVar(&f.fix, "fix", false, "make what fails pass: shows the changes, asks, does them, verifies")
	f.addRun(s)
}

func (f *fixFlags) addRun(s *pflag.FlagSet) {
	s.SortFlags = false
	s.BoolVar(&f.dryRun, "dry-run", false, "only show the changes; exit 1 when there are any")
	s.BoolVar(&f.yes, "yes", false, "do not ask")
	s.StringVar(&f.confirm, "confirm", confirmManual, "`WHO` confirms changes of tier link: manual (as if not given; you do, with \"hostcheck confirm\", or they are taken back) or auto (they count once they are verified)")
	f.addPlan(s)
}

// addPlan adds the flags that shape the plan.
func (f *fixFlags) addPlan(s *pflag.FlagSet) {
	s.SortFlags = false
	s.StringSliceVar(&f.allow, "allow", nil, "also changes of this `TIER`: link (may flap a port) or boot (next boot); separated by commas")
	s.Var(&f.planHash, "plan-hash", "only if the plan is still the one with this `HASH`")
	s.BoolVar(&f.allowMgmt, "allow-mgmt", false, "also the interfaces that this host is managed through: of the default route and of SSH sessions")
}

// given is the first flag that needs --fix and was given, or "".
func (f *fixFlags) given(s *pflag.FlagSet) string {
	i := slices.IndexFunc(changeFlags, func(name string) bool { return s.Lookup(name) != nil && s.Changed(name) && name != "fix" })
	if i < 0 {
		return ""
	}
	return changeFlags[i]
}

// Values of --confirm.
const (
	confirmManual = "manual"
	confirmAuto   = "auto"
)

var hashForm = pattern.Late(`^[0-9a-f]{64}$`)

// hashFlag is --plan-hash. One that was given and is empty, such as an unset
// variable, asks for a plan that there is not, and does not drop the guard.
type hashFlag struct {
	hash  string
	given bool
}

// Set implements [pflag.Value].
func (h *hashFlag) Set(s string) error {
	h.hash, h.given = s, true
	return nil
}

func (h *hashFlag) String() string { return h.hash }

// Type implements [pflag.Value].
func (h *hashFlag) Type() string { return "string" }

// allows reports whether the plan with that hash may be used.
func (h *hashFlag) allows(hash string) bool { return !h.given || h.hash == hash }

// usable refuses values that mean nothing, and flags that would do nothing.
func (f *fixFlags) usable() error {
	for _, t := range f.allow {
		switch plan.Tier(t) {
		case plan.Link, plan.Boot:
		case plan.Safe:
			return errors.New("tier safe needs no --allow")
		case plan.Firmware:
			return errors.New("changes of tier firmware are shown, never done")
		default:
			return unknown("tier in --allow", t, []string{string(plan.Link), string(plan.Boot)})
		}
	}
	switch {
	case f.confirm != "" && f.confirm != confirmManual && f.confirm != confirmAuto:
		return unknown("value of --confirm", f.confirm, []string{confirmManual, confirmAuto})
	case f.planHash.given && !hashForm().MatchString(f.planHash.hash):
		return fmt.Errorf("--plan-hash wants the 64 hexadecimal digits that the plan ends with, not %.80q", f.planHash.hash)
	case f.dryRun && f.yes:
		return errors.New("--dry-run and --yes exclude each other")
	}
	return nil
}

func (f *fixFlags) tiers() []plan.Tier {
	out := []plan.Tier{plan.Safe}
	for _, t := range f.allow {
		out = append(out, plan.Tier(t))
	}
	return out
}

func (a *app) fixCommand() *cobra.Command {
	f := &fixFlags{}
	c := &cobra.Command{
		Use:   "fix AREA|ID ...",
		Short: "the same as --fix, for these checks only",
		Long: "Judges the host, shows what would make the failing checks pass, asks once, and does it. Every change is journalled before " +
			"it is made and read back after it; then the checks run again. When anything goes wrong, all is put back. \"hostcheck undo\" takes it back later.\n\n" +
			"Changes of tier safe need nothing more; others need --allow. Those of tier link are taken back after two minutes, by a timer of systemd, unless \"hostcheck confirm\" comes. Nothing is done without an answer on the terminal, or --yes.",
		ValidArgsFunction: a.completeChecks(true),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck fix needs areas or IDs of checks; \"hostcheck --fix\" takes all")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.fix(args, nil, *f) },
	}
	f.addRun(c.Flags())
	return c
}

func (a *app) planCommand() *cobra.Command {
	f := &fixFlags{dryRun: true}
	c := &cobra.Command{
		Use:               "plan [AREA|ID ...]",
		Short:             "what --fix would change; changes nothing; the same as --fix --dry-run",
		Long:              "Shows what \"hostcheck --fix\" would do, with the difference that each change makes. Exit 1 when there is something to do, else 0.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeChecks(true),
		RunE:              func(_ *cobra.Command, args []string) error { return a.fix(args, nil, *f) },
	}
	f.addPlan(c.Flags())
	return c
}

// engine changes the host or tree that the flags name; mgmt is --allow-mgmt.
func (a *app) engine(mgmt bool) *plan.Engine {
	verbs := a.verbs
	if verbs == nil {
		verbs = fixes.All()
	}
	e := &plan.Engine{Root: a.flags.root, Verbs: fixes.AllowMgmt(verbs, mgmt), Tool: tool().Version, Self: a.program(), Machine: a.machine}
	if a.bundle != nil {
		a.replayed(e)
	}
	return e
}

// program is the path of the running hostcheck.
func (a *app) program() string {
	if a.self != "" {
		return a.self
	}
	p, err := os.Executable()
	if err != nil {
		return "/proc/self/exe" // is in no place of the system, so a copy is made
	}
	return p
}

// fixing is one "hostcheck --fix".
type fixing struct {
	*app
	fixFlags
	engine   *plan.Engine
	selected []*check.Check
	before   *sample
	view     report.PlanView
	page     page
	by       *tuning // the module that decides what to change; nil: the failing checks

	guards guards // just before the first change

	// of the last verification
	after *report.Report
	stood []report.Guard
}

// fix plans, shows, asks, applies and verifies. commands are what a wrong word
// among args may have been meant to be.
func (a *app) fix(args, commands []string, f fixFlags) error { return a.fixBy(nil, args, commands, f) }

// fixBy is fix, with the changes that a module decides on where by is one.
func (a *app) fixBy(by *tuning, args, commands []string, f fixFlags) error {
	r, err := a.prepare(by, args, commands, f)
	if err != nil {
		return err
	}
	defer r.before.host.Close()
	switch {
	case f.dryRun:
		return r.show(true)
	case len(r.view.Plan.Changes) == 0:
		return r.nothing()
	case a.powerless():
		if err := r.show(false); err != nil {
			return err
		}
		return fmt.Errorf("changing this host needs root; nothing was changed: %s", report.ShellWords(r.view.Command))
	}
	if err := r.consent(); err != nil {
		return err
	}
	return r.apply()
}

// prepare judges the host and makes the plan; whoever gets it closes its host.
func (a *app) prepare(by *tuning, args, commands []string, f fixFlags) (*fixing, error) {
	if err := f.usable(); err != nil {
		return nil, err
	}
	r := &fixing{app: a, fixFlags: f, engine: a.engine(f.allowMgmt), page: page{app: a}, by: by}
	var err error
	if r.selected, err = a.selectChecks(args, commands); err != nil {
		return nil, err
	}
	switch err := r.idle(); {
	case err == nil:
	case f.dryRun:
		r.warn("%v", err)
	default:
		return nil, err
	}
	if r.before, err = a.open(context.Background()); err != nil {
		return nil, err
	}
	if a.bundle != nil {
		r.engine = a.engine(f.allowMgmt)
	}
	a.judge(context.Background(), r.before, r.selected)
	if err := r.plan(args); err != nil {
		r.before.host.Close()
		return nil, err
	}
	return r, nil
}

// powerless reports whether only root may change the host that is meant.
func (a *app) powerless() bool { return a.live() && a.machine == nil && os.Geteuid() != 0 }

// idle refuses to begin while another hostcheck is at work, or with what an
// earlier one left half way. The engine looks again, under its lock; this is
// before anybody is asked.
func (r *fixing) idle() error {
	if r.flags.from != "" || r.live() && os.Geteuid() != 0 {
		return nil // cannot look, and will not change anything
	}
	if !r.dryRun {
		if err := r.giveBack(); err != nil {
			return err
		}
	}
	pending, busy, err := r.engine.Status(context.Background())
	switch {
	case err != nil:
		return err
	case busy != nil:
		return &failure{report.ExitBusy, busy}
	}
	if len(pending) == 0 {
		return nil
	}
	p := pending[0]
	switch p.State {
	case plan.Unconfirmed:
		return &plan.UnconfirmedError{Txn: p.ID, Until: p.Until}
	case plan.Unreadable:
		return fmt.Errorf("cannot tell whether transaction %s is finished: %s; look into %s/%s and move it away", p.ID, p.Why, plan.Dir, p.ID)
	default:
		return &plan.UnfinishedError{Txn: p.ID, Root: r.flags.root}
	}
}

// plan turns what the failing checks wish into the plan to show.
func (r *fixing) plan(args []string) error {
	wanted := wishes(r.before.results)
	if r.by != nil {
		if err := r.by.decide(context.Background(), r.app, r.before); err != nil {
			return err
		}
		wanted = r.by.advice.Wishes
	}
	p, err := r.engine.Plan(context.Background(), r.before.host, r.before.profile.Hash, wanted)
	if err != nil {
		return err
	}
	r.view = report.PlanView{Judged: r.report(r.before), Command: r.command(args)}
	r.view.Base, r.view.Within = r.again(), fixes.ConfirmWithin
	if r.by != nil {
		r.view.Advice = r.by.advice.Text
	}
	r.view.Plan, r.view.Held = hold(p, r.tiers())
	r.view.Plan = fixes.LeaveToBoot(r.view.Plan, wanted)
	if r.running() {
		if r.view.Plan, err = fixes.Complete(context.Background(), r.engine, r.before.host, r.view.Plan, r.judging); err != nil {
			return err
		}
	}
	if r.bundle != nil {
		if err := unhashed(r.bundle.Manifest, r.view.Plan); err != nil {
			r.view.Plan.Hash = ""
			r.warn("%v", err)
		}
	}
	if !r.planHash.allows(r.view.Plan.Hash) {
		return fmt.Errorf("the plan is not the one of --plan-hash any more: the host, the profile, the flags or hostcheck changed since; look again: %s --dry-run", report.ShellWords(r.view.Command))
	}
	return nil
}

// wishes are what the findings that need attention would have changed. Nothing
// is changed where somebody decided to live with a finding.
func wishes(results []check.Result) []plan.Wish {
	var out []plan.Wish
	for _, r := range results {
		for _, f := range r.Findings {
			if (f.Status == check.Fail || f.Status == check.Warn) && f.Waiver == nil {
				out = append(out, f.Fix...)
			}
		}
	}
	return out
}

// hold takes the changes of tiers that are not allowed out of a plan, and
// gives them. A setting that several changes lead through several values goes
// as a whole.
func hold(p plan.Plan, allowed []plan.Tier) (plan.Plan, []plan.Change) {
	out := map[plan.Setting]bool{}
	for _, c := range p.Changes {
		if !slices.Contains(allowed, c.Tier) {
			out[c.Setting] = true
		}
	}
	var in, held []plan.Change
	for _, c := range p.Changes {
		if out[c.Setting] {
			held = append(held, c)
		} else {
			in = append(in, c)
		}
	}
	p.Changes = in
	p.Seal()
	return p, held
}

// command is what gives the same plan again.
func (r *fixing) command(args []string) []string {
	words := r.again()
	if r.flags.from != "" {
		words = []string{"sudo", "hostcheck"} // on the host that the bundle is of
	}
	flag := func(name string, values ...string) {
		for _, v := range values {
			words = append(words, "--"+name, v)
		}
	}
	if r.by != nil {
		words = append(append(words, "tune", "apply", r.by.module.Name), r.by.words...)
	} else if len(args) > 0 && !r.fixFlags.fix {
		words = append(append(words, "fix"), args...)
	} else {
		words = append(append(words, "--fix"), args...)
	}
	f := &r.flags
	words = append(words, r.judgedBy()...)
	flag("only", f.only...)
	flag("skip", f.skip...)
	flag("allow", r.allow...)
	if r.allowMgmt {
		words = append(words, "--allow-mgmt")
	}
	if r.confirm == confirmAuto {
		words = append(words, "--confirm=auto")
	}
	return words
}

// judgedBy is the flags that make the profile.
func (a *app) judgedBy() (words []string) {
	f := &a.flags
	for _, p := range f.profile {
		words = append(words, "--profile", p)
	}
	if f.intent != "" {
		words = append(words, "--intent", f.intent)
	}
	for _, s := range f.set {
		words = append(words, "--set", s)
	}
	return words
}

// show ends a run that changes nothing.
func (r *fixing) show(asked bool) error {
	r.view.Final = true
	var err error
	switch {
	case r.json() && r.by != nil:
		err = r.writeJSON(r.by.document(r.view))
	case r.json():
		err = r.writeJSON(r.view.Document())
	default:
		err = r.writeText(r.text().Plan(r.view))
	}
	if err == nil && asked && len(r.view.Plan.Changes) > 0 {
		return exit(report.ExitFindings)
	}
	return err
}

// nothing ends a fix that has nothing to do: the code is the host's.
func (r *fixing) nothing() error {
	r.view.Final = true
	code := r.view.Judged.Summary.Exit
	var err error
	if r.json() {
		err = r.writeJSON(r.document(plan.Result{Outcome: report.OutcomeNothing}, code))
	} else {
		err = r.writeText(r.text().Plan(r.view))
	}
	if err == nil && code != report.ExitOK {
		return exit(code)
	}
	return err
}

// apply carries the plan out and says what became of it.
func (r *fixing) apply() error {
	doc, err := r.carryOut()
	if err != nil {
		return err
	}
	code := doc.Exit
	if r.json() {
		err = r.writeJSON(doc)
	} else {
		r.page.add(r.text().Fixed(report.FixedView{Fix: doc, Now: time.Now(), Judged: r.after, Tree: !r.live()}))
		err = r.page.end()
	}
	if err != nil { // the host is as the code says, and nobody was told
		r.say("%v", err)
		if doc.Result.Undo != "" {
			r.say("transaction %s is %s; take it back: %s", doc.Result.Txn, doc.Result.Outcome, doc.Result.Undo)
		}
		if code == report.ExitOK {
			code = report.ExitIncomplete
		}
	}
	if code != report.ExitOK {
		return exit(code)
	}
	return nil
}

// carryOut does what the plan says, and verifies it. An error means that nothing
// was changed.
func (r *fixing) carryOut() (report.Fix, error) {
	h, err := host.Open(r.flags.root, host.Options{}) // the plan may have waited long for its answer
	if err != nil {
		return report.Fix{}, err
	}
	r.guards = readGuards(h)
	h.Close()
	steps := r.steps()
	ctx, stop := r.interruptible(steps)
	opt := plan.Options{Allow: r.tiers(), Verify: r.verify, Progress: steps.show}
	if r.confirm != confirmAuto {
		opt.Within = fixes.ConfirmWithin
	}
	result, err := r.engine.Apply(ctx, r.view.Plan, opt)
	stop()
	steps.end()
	switch {
	case errors.Is(err, plan.ErrBusy):
		return report.Fix{}, &failure{report.ExitBusy, err}
	case err != nil:
		return report.Fix{}, fmt.Errorf("nothing was changed: %w", err)
	}
	code := result.Exit()
	if code == 0 {
		code = r.after.Summary.Exit
	}
	return r.document(result, code), nil
}

// document is the JSON of a fix.
func (r *fixing) document(result plan.Result, code int) report.Fix {
	d := report.Fix{
		Schema: report.FixSchema, Plan: r.view.Document(), Result: report.NewResult(result, r.again()),
		Guards: r.stood, Verification: []report.Finding{}, Exit: code,
	}
	if d.Guards == nil {
		d.Guards = []report.Guard{}
	}
	judged := r.after
	switch result.Outcome {
	case plan.Restored, plan.Interrupted, report.OutcomeNothing:
		judged = r.view.Judged // the host is as it was
	case plan.Incomplete:
		judged = nil
	case plan.Applied, plan.Undone, plan.Returned:
	}
	if judged != nil {
		s := judged.Summary
		d.Summary = &s
	}
	if r.after != nil {
		ids := behind(r.before.results, r.view)
		for _, f := range r.after.Findings {
			if ids[f.Check] {
				d.Verification = append(d.Verification, f)
			}
		}
	}
	return d
}

// running reports whether a kernel takes what is set, as opposed to a tree that
// has files only.
func (r *fixing) running() bool {
	return r.live() || r.machine != nil || r.bundle != nil && r.bundle.Host.Exact.Live
}

// settle is how long a link may take to come back before a fix that touched it
// counts as failed.
const settle = 30 * time.Second

// verify judges the host again, on a fresh reading. It is called by the engine
// after the last change; its error takes everything back.
func (r *fixing) verify(ctx context.Context) error {
	patient := slices.ContainsFunc(r.view.Plan.Changes, func(c plan.Change) bool { return c.Tier == plan.Link })
	for start := time.Now(); ; {
		err := r.verifyOnce(ctx)
		if err == nil || !patient || time.Since(start) > settle {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func (r *fixing) verifyOnce(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.host.Close()
	s.profile = r.before.profile // judged by the same
	r.judge(ctx, s, r.selected)
	r.after = r.report(s)
	var broken error
	r.stood, broken = r.guards.compare(readGuards(s.host), r.view.Plan)
	return errors.Join(broken, unmet(r.before.results, s.results, r.view, r.running()))
}
