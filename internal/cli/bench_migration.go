// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// migrationFlags are the flags of "bench migration".
type migrationFlags struct {
	size    string
	folios  []string
	pairs   []string
	runs    int
	workers int
	yes     bool
	plot    string
	html    string
}

func (a *app) benchMigrationCommand() *cobra.Command {
	var f migrationFlags
	c := &cobra.Command{
		Use:   "migration",
		Short: "how fast this kernel moves memory between nodes, and what that costs in latency",
		Long: `Moves memory with move_pages(2) between every pair of memory nodes, both ways, in folios of 4K to 2M whose size is proven before and
after each run. Shows throughput by size, by folios for each call, by threads, and where the kernel has the copy offload (dcbm) by channels;
how long the first folio of a batch is away; beside it what a program reaches that copies, and what numactl's programs say where they are
installed.

Needs root, and asks first: it borrows switches of the whole host, such as the sizes of transparent huge pages, and shows which. They are journalled
before they are changed, and put back at the end or when it is interrupted. If it is killed, "hostcheck status" says so, and the next
"bench migration", "--fix" or "undo" puts them back. On a host with one node it says so, and only measures how fast memory is copied: that borrows
nothing and needs no root.`,
		Args: none,
		RunE: func(*cobra.Command, []string) error { return a.benchMigration(f) },
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&f.size, "size", "1G", "what each run moves: `BYTES`, or with K, M or G; less where a node has not that much free")
	c.Flags().StringSliceVar(&f.folios, "folio", nil, "only these `SIZES` of folios, such as 4K,2M")
	c.Flags().StringSliceVar(&f.pairs, "pair", nil, "only these `PAIRS` of nodes, such as 0:1,0:2")
	c.Flags().IntVar(&f.runs, "runs", 10, "`N` runs for each figure")
	c.Flags().IntVar(&f.workers, "threads", 16, "at most `N` threads that move at a time")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().StringVar(&f.plot, "plot", "", "write the plots (SVG) to `FILE`, whole or not at all")
	c.Flags().StringVar(&f.html, "html", "", "write tables and plots as one page to `FILE`, whole or not at all")
	return c
}

// benchWorkerCommand is the process that moves memory for "bench migration".
func (a *app) benchWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "worker", Hidden: true, Args: none,
		Short: "what \"bench migration\" starts to move memory: a job on its input, figures on its output",
		RunE:  func(*cobra.Command, []string) error { return bench.MigrationWorker(a.stdin, a.stdout) },
	}
}

// parseSize reads "64M"; without a letter it is bytes.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	for i, letter := range []string{"K", "M", "G"} {
		if cut, ok := strings.CutSuffix(s, letter); ok {
			digits, shift = cut, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 53-shift)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%.40q is not a size such as 4K, 64M or 1G", s)
	}
	return n << shift, nil
}

func (f *migrationFlags) options() (o bench.MigrationOptions, err error) {
	o.Runs, o.Workers = f.runs, f.workers
	if f.size == "" {
		return o, errors.New("--size needs a size such as 64M or 1G")
	}
	if o.Bytes, err = parseSize(f.size); err != nil {
		return o, fmt.Errorf("--size: %w", err)
	}
	for _, s := range f.folios {
		if s == "" {
			return o, errors.New("--folio needs sizes such as 4K,2M")
		}
		n, err := parseSize(s)
		if err != nil {
			return o, fmt.Errorf("--folio: %w", err)
		}
		if n%1024 != 0 || n > 1<<30 {
			return o, fmt.Errorf("--folio: there are no folios of %s", s)
		}
		o.Folios = append(o.Folios, int(n>>10))
	}
	for _, s := range f.pairs {
		from, to, _ := strings.Cut(s, ":")
		x, err := strconv.ParseUint(from, 10, 10)
		y, err2 := strconv.ParseUint(to, 10, 10)
		if err != nil || err2 != nil {
			return o, fmt.Errorf("--pair: %.40q is not a pair of nodes such as 0:1", s)
		}
		o.Pairs = append(o.Pairs, [2]int{int(x), int(y)})
	}
	return o, nil
}

func (a *app) benchMigration(f migrationFlags) error {
	if !a.live() {
		return errors.New("a measurement is of the running host: it cannot be made with --root")
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	s := a.steps()
	o.Progress = s.say
	o.Self = []string{a.program(), "bench", "worker"}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	root := os.Geteuid() == 0
	if root {
		if err := a.giveBack(); err != nil {
			return err
		}
	}
	o.Offload = offloadOf(facts.New(h))
	b, err := bench.PlanMigration(o)
	if err != nil {
		return err
	}
	if b.OneNode() {
		return a.copyOnly(b, f, s)
	}
	if !root {
		return errors.New("it changes host-wide settings for a while, and proves the sizes of folios; this needs root: sudo hostcheck bench migration")
	}
	if err := b.CanProve(); err != nil {
		return fmt.Errorf("%w; in a container, run it on the host itself", err)
	}
	e := a.engine(false)
	loan, err := e.PlanLoan(context.Background(), h, stages(b, o.Offload))
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if err := a.consentToLoan(b, loan, f.yes); err != nil {
		return err
	}
	ctx, stop := a.interruptible(s)
	r, err := e.Borrow(ctx, loan, plan.Options{Allow: []plan.Tier{plan.Safe}, Progress: func(step plan.Step) {
		if step.Phase == "restore" {
			s.show(step)
		}
	}})
	stop()
	s.end()
	switch {
	case errors.Is(err, plan.ErrBusy):
		return &failure{report.ExitBusy, err}
	case err != nil:
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return a.ended(b, f, r)
}

// copyOnly measures what one node allows.
func (a *app) copyOnly(b *bench.MigrationBench, f migrationFlags, s *steps) error {
	ctx, stop := a.interruptible(s)
	err := b.Begin(ctx)
	stop()
	s.end()
	r := plan.Result{Outcome: plan.Returned, Cause: err}
	if err != nil {
		r.Outcome = plan.Interrupted
		if ctx.Err() == nil {
			return err
		}
	}
	return a.ended(b, f, r)
}

// stages turn the steps of a measurement into a loan: what must hold all the
// time first, then a stage for each step.
func stages(b *bench.MigrationBench, o *bench.CopyOffload) []plan.Stage {
	out := []plan.Stage{{Changes: changes(b.Fixed, o), Use: func(ctx context.Context) error {
		if err := b.Begin(ctx); err != nil {
			return err
		}
		return b.MeasureTools(ctx)
	}}}
	for i := range b.Steps {
		out = append(out, plan.Stage{Changes: changes(b.Steps[i].Knobs, o), Use: func(ctx context.Context) error { return b.Measure(ctx, i) }})
	}
	return out
}

func changes(knobs []bench.Knob, o *bench.CopyOffload) (out []plan.Change) {
	for _, k := range knobs {
		setting, value := fixes.SysfsSetting(k.Path), k.Value
		switch name, ok := strings.CutPrefix(k.Path, "/proc/sys/"); {
		case ok:
			setting = fixes.SysctlSetting(name)
		case o != nil && k.Path == o.Switch:
			setting, value = fixes.MigrationSetting(o.Driver, facts.OffloadSwitch), map[string]string{"0": "off", "1": "on"}[value]
		case o != nil && k.Path == o.Channels:
			setting = fixes.MigrationSetting(o.Driver, facts.OffloadChannels)
		}
		out = append(out, plan.Change{Setting: setting, After: plan.Text(value), Tier: plan.Safe, Why: "bench migration: " + k.Why})
	}
	return out
}

// offloadOf is the copy offload as a measurement borrows it, nil where this
// kernel has none or its engines finish out of order: their copies may not be
// whole when the kernel uses them.
func offloadOf(f *facts.Facts) *bench.CopyOffload {
	m := f.Migration()
	if m.Offload == nil {
		return nil
	}
	rev := m.Offload.Rev()
	o := &bench.CopyOffload{Revision: rev.Name, Switch: m.Offload.Path(facts.OffloadSwitch), Most: 1}
	for _, e := range m.Engines {
		if e.Driver == nil || e.Copies == nil || !*e.Copies || len(e.Channels) == 0 {
			continue
		}
		if d := facts.EngineDriverOf(*e.Driver); d == nil || !d.InOrder && !rev.InOrder {
			return nil
		}
		if o.Driver == "" {
			o.Driver = *e.Driver
		}
		o.Most += len(e.Channels)
	}
	if o.Driver == "" {
		return nil // the CPU would copy, whatever the switch says
	}
	o.Most = min(o.Most-1, max(rev.Channels, 1))
	if rev.Channels > 0 {
		o.Channels = m.Offload.Path(facts.OffloadChannels)
	}
	if rev.Counts {
		o.Counter = m.Offload.Path(facts.FoliosMigrated)
	}
	return o
}

// consentToLoan shows what is borrowed, and asks once.
func (a *app) consentToLoan(b *bench.MigrationBench, l plan.Loan, yes bool) error {
	var text strings.Builder
	fmt.Fprintf(&text, "bench migration moves %s", b.Needed())
	if len(l.Plan.Changes) == 0 {
		text.WriteString(", and changes no setting of this host")
	} else {
		text.WriteString(", and borrows of this host:")
		for _, line := range borrowed(l.Plan) {
			text.WriteString("\n  " + line)
		}
		text.WriteString("\nAll is put back at the end, or when it is interrupted; if it is killed, by the next hostcheck --fix, bench migration or undo.")
	}
	a.say("%s", text.String())
	switch {
	case yes:
		return nil
	case !a.canAsk():
		return errors.New("nothing was changed: there is no terminal to ask on; --yes begins without asking")
	}
	yes, err := a.ask("measure this host so")
	if err == nil && !yes {
		err = errDeclined
	}
	return err
}

// borrowed are the settings of a loan with all values that they take.
func borrowed(p plan.Plan) (out []string) {
	var order []plan.Setting
	holds := map[plan.Setting][]string{}
	for _, c := range p.Changes {
		if holds[c.Setting] == nil {
			order = append(order, c.Setting)
			holds[c.Setting] = []string{c.Before.String()}
		}
		if !slices.Contains(holds[c.Setting][1:], c.After.String()) {
			holds[c.Setting] = append(holds[c.Setting], c.After.String())
		}
	}
	for _, s := range order {
		out = append(out, s.String()+": "+holds[s][0]+" -> "+strings.Join(holds[s][1:], ", "))
	}
	return out
}

// giveBack puts back what a benchmark had borrowed that was killed.
func (a *app) giveBack() error {
	results, err := a.engine(false).GiveBack(context.Background(), plan.Options{})
	switch {
	case errors.Is(err, plan.ErrBusy):
		return &failure{report.ExitBusy, err}
	case err != nil:
		return err
	}
	for _, r := range results {
		if r.Outcome == plan.Undone {
			a.say("a benchmark was stopped half way; what it had borrowed is put back (transaction %s)", r.Txn)
		}
	}
	return nil
}

// ended shows what was measured, and says how it ended.
func (a *app) ended(b *bench.MigrationBench, f migrationFlags, r plan.Result) error {
	m := b.Result()
	var shown error
	if len(m.Rows)+len(m.Copies) > 0 {
		shown = a.showMigration(m, f)
	}
	for _, l := range r.Left {
		a.say("not put back: %s", l)
	}
	if r.Journal != nil {
		a.say("%v", r.Journal)
	}
	switch r.Outcome {
	case plan.Returned:
		return shown
	case plan.Interrupted:
		a.say("interrupted; what was borrowed is put back")
	case plan.Restored:
		a.say("it failed, and what was borrowed is put back: %v", r.Cause)
	default:
		a.say("%v", r.Cause)
		a.say("not all that was borrowed could be put back; try: hostcheck undo %s", r.Txn)
	}
	if shown != nil {
		a.say("%v", shown)
	}
	return exit(r.Exit())
}

func (a *app) showMigration(m *bench.Migration, f migrationFlags) error {
	for _, w := range []struct {
		name string
		text func() string
	}{{f.plot, m.SVG}, {f.html, m.HTML}} {
		if w.name == "" {
			continue
		}
		if err := writeFile(w.name, []byte(w.text())); err != nil {
			return fmt.Errorf("cannot write %s: %w", w.name, cause(err))
		}
	}
	if a.json() {
		return a.writeJSON(m)
	}
	return a.writeText(m.Text())
}
