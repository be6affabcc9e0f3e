// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

const migrationName = "migration"

// migration is the policy of page migration: who copies, in what pieces.
func migration() *Module {
	w := new(migrationFlags)
	return &Module{
		Name:  migrationName,
		Title: "page migration: who copies, and in what pieces",
		Doc: `Decides from a measurement of this host whether DMA engines shall copy what the kernel migrates between memory nodes, and with how many
channels; which batch limit would suit them; and how many calls at a time programs should use. Then it sets what its checks want and
what was decided, in the order that is safe, moves some memory to see that engines really copy, and takes everything back if they do not.

    sudo hostcheck bench migration -f json -o migration.json
    hostcheck tune plan migration --from-measurement migration.json --folio-size 2M --latency-budget 500us

That the kernel has no such engines' offload is normal: no released kernel has it. Figures of another host or kernel are shown with
what they say, and switch nothing.`,
		Flags: w.add,
		Plan:  w.plan,
	}
}

// migrationFlags are the module's own flags.
type migrationFlags struct {
	from   string
	budget time.Duration
	folio  string
	batch  int
}

func (w *migrationFlags) add(s *pflag.FlagSet) {
	s.StringVar(&w.from, "from-measurement", "", "decide by this `FILE` of \"hostcheck bench migration -f json -o FILE\"; - is standard input")
	s.DurationVar(&w.budget, "latency-budget", 0, "longest `TIME` that the first folio of a batch may be away, such as 500us; 0: no limit")
	s.StringVar(&w.folio, "folio-size", "", "`SIZE` of most of what migrates here, such as 4K or 2M; without it /proc/vmstat tells, as far as it can")
	s.IntVar(&w.batch, "batch-pages", 0, "the kernel's NR_MAX_BATCHED_MIGRATION in `PAGES`, where it was not measured; 0: as measured, or that of an unpatched kernel")
}

// MigrationPlan is the module's advice for a program.
type MigrationPlan struct {
	State    string               `json:"state"`    // of the offload on this host
	Measured *bench.MigrationHost `json:"measured"` // what the figures hold for; null without figures
	Own      bool                 `json:"own"`      // the figures are of this host and its kernel
	FolioKB  int                  `json:"folio_kb"` // of most of what migrates; 0: not known
	FolioBy  string               `json:"folio_by"` // who says so
	Advice   *MigrationAdvice     `json:"advice"`   // null without figures
}

// huge is the share of migrated memory in 2M folios from which on they are most
// of it.
const huge = 0.5

func (w *migrationFlags) plan(_ context.Context, in Input) (Advice, error) {
	m := in.Facts.Migration()
	p := &MigrationPlan{State: offloadState(m)}
	lines := []string{p.State + "."}
	if err := w.usable(); err != nil {
		return Advice{}, err
	}
	if err := w.traffic(in, p); err != nil {
		return Advice{}, err
	}
	wishes := in.Wishes()
	if w.from == "" {
		lines = append(lines, "Nothing is decided about engines without figures of this host: hostcheck bench migration -f json -o FILE, then --from-measurement FILE.")
		return Advice{Wishes: wishes, Text: strings.Join(lines, "\n"), Value: p}, nil
	}
	figures, err := w.read(in)
	if err != nil {
		return Advice{}, err
	}
	p.Measured = &figures.Host
	foreign := differs(figures, in)
	p.Own = foreign == ""
	o := MigrationOptions{Budget: w.budget, FolioKB: p.FolioKB, BatchPages: w.batch}
	if o.BatchPages == 0 && !p.Own {
		o.BatchPages = StockBatch(figures.Host.PageKB)
		if k := in.Facts.Kernel(); k.PageSize != nil {
			o.BatchPages = StockBatch(int(*k.PageSize >> 10))
		}
	}
	engine := "ptdma"
	if e := in.Profile.Migration.Engine; e.Set {
		engine = e.V
	}
	o.MaxChannels = freeChannels(m, engine)
	if p.Advice, err = AdviseMigration(figures, o); err != nil {
		return Advice{}, fmt.Errorf("%s: %w", w.from, err)
	}
	lines = append(lines, fmt.Sprintf("Figures of %s, kernel %s, engine %s.", orText(figures.Host.CPU, "an unnamed CPU"), figures.Host.Kernel, orText(figures.Host.Driver, "none")))
	if !p.Own {
		lines = append(lines, fmt.Sprintf("They are not of this host (%s), so they switch nothing.", foreign))
	}
	if p.FolioKB > 0 {
		lines = append(lines, fmt.Sprintf("Most of what migrates here is %s: %s.", sizeName(p.FolioKB), p.FolioBy))
	} else {
		lines = append(lines, "What mostly migrates here is not known: "+p.FolioBy+"; --folio-size says it.")
	}
	lines = append(lines, p.Advice.Lines()...)
	decided, note := decided(in, p, m, engine)
	if note != "" {
		lines = append(lines, note)
	}
	return Advice{Wishes: merged(wishes, decided), Text: strings.Join(lines, "\n"), Value: p}, nil
}

func (w *migrationFlags) usable() error {
	switch {
	case w.budget < 0:
		return fmt.Errorf("--latency-budget %v is below 0", w.budget)
	case w.budget > 0 && w.budget < time.Microsecond:
		return fmt.Errorf("--latency-budget %v is below a microsecond; say 500us or 1ms", w.budget)
	case w.batch < 0 || w.batch > 1<<30:
		return fmt.Errorf("--batch-pages %d is no limit of a kernel", w.batch)
	case w.from == "" && (w.budget > 0 || w.batch > 0):
		return errors.New("--latency-budget and --batch-pages need figures: --from-measurement FILE")
	}
	return nil
}

func (w *migrationFlags) read(in Input) (*bench.Migration, error) {
	text, err := in.Read(w.from)
	if err != nil {
		return nil, err
	}
	figures, err := bench.ParseMigration(text)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", w.from, err)
	}
	return figures, nil
}

// traffic finds out in which folios memory mostly migrates.
func (w *migrationFlags) traffic(in Input, p *MigrationPlan) (err error) {
	if w.folio != "" {
		p.FolioKB, err = ParseFolioSize(w.folio)
		p.FolioBy = "--folio-size"
		if err != nil {
			err = fmt.Errorf("--folio-size: %w", err)
		}
		return err
	}
	k := in.Facts.Kernel()
	if k.PageSize == nil || *k.PageSize != 4096 {
		p.FolioBy = "the counters tell 2M folios apart only on a kernel with pages of 4K"
		return nil
	}
	share, ok := in.Facts.Migration().HugeShare(2048, 4)
	switch {
	case !ok:
		p.FolioBy = "nothing has migrated since boot, or " + facts.VMStat + " does not say"
	case share >= huge:
		p.FolioKB, p.FolioBy = 2048, fmt.Sprintf("%.0f %% of it since boot, by thp_migration_success of %s", 100*share, facts.VMStat)
	default:
		p.FolioKB, p.FolioBy = 4, fmt.Sprintf("2M folios are %.0f %% of it since boot, by thp_migration_success of %s", 100*share, facts.VMStat)
	}
	return nil
}

func offloadState(m *facts.Migration) string {
	switch o := m.Offload; {
	case m.Available == nil:
		return "Whether this kernel can have engines copy is not known: " + m.Unknown["available"]
	case o == nil:
		return "This kernel has no copy offload for page migration, as all released ones: the CPU copies"
	case o.On == nil:
		return "Whether engines copy is not known: " + o.Unknown[facts.OffloadSwitch]
	case *o.On && o.Channels != nil:
		return fmt.Sprintf("Engines copy now, with up to %s (%s)", channels(int(*o.Channels)), o.Rev().Posted)
	case *o.On:
		return "Engines copy now (" + o.Rev().Posted + ")"
	}
	return "The CPU copies now; engines could (" + m.Offload.Rev().Posted + ")"
}

// differs says why figures are not of this host as it runs, "" where they are.
func differs(f *bench.Migration, in Input) string {
	k, n := in.Facts.Kernel(), in.Facts.NUMA()
	switch {
	case k.Release == nil || k.PageSize == nil || n.WithMemory == nil:
		return "its kernel or nodes are not known"
	case f.Host.Kernel != *k.Release:
		return fmt.Sprintf("it runs kernel %s", *k.Release)
	case f.Host.PageKB != int(*k.PageSize>>10):
		return fmt.Sprintf("it has pages of %dK", *k.PageSize>>10)
	case !slices.Equal(f.Host.Nodes, n.WithMemory):
		return fmt.Sprintf("its nodes with memory are %v", n.WithMemory)
	}
	return ""
}

// freeChannels counts what a driver's engines have free, 0 where there are none
// or nothing is known: then the figures alone count.
func freeChannels(m *facts.Migration, engine string) (n int) {
	for _, e := range m.Engines {
		if e.Driver != nil && *e.Driver == engine {
			n += e.Free()
		}
	}
	return n
}

// decided are the wishes that follow from the advice. The profile's own word on
// the offload counts more.
func decided(in Input, p *MigrationPlan, m *facts.Migration, engine string) (wishes []plan.Wish, note string) {
	a, want := p.Advice, in.Profile.Migration.Offload
	switch {
	case m.Offload == nil || m.Offload.On == nil || !a.Decided || !p.Own:
		return nil, ""
	case want.Set && want.V != a.Offload:
		return nil, fmt.Sprintf("The profile says otherwise (%s), and counts more: offload: %v.", want.Origin, want.V)
	}
	add := func(name, got, to string) {
		if got != to {
			wishes = append(wishes, plan.Wish{
				Setting: fixes.MigrationSetting(engine, name), Got: got, Want: to, Tier: plan.Safe, Check: "tune." + migrationName, Why: a.Because,
			})
		}
	}
	if a.Offload && m.Offload.Channels != nil {
		add(facts.OffloadChannels, fmt.Sprint(*m.Offload.Channels), fmt.Sprint(a.Channels))
	}
	onOff := map[bool]string{false: "off", true: "on"}
	add(facts.OffloadSwitch, onOff[*m.Offload.On], onOff[a.Offload])
	if module, is := fixes.MigrationModule(in.Facts); is && len(wishes) > 0 && a.Offload {
		module.Check = "tune." + migrationName
		wishes = append(wishes, module)
	}
	return wishes, ""
}

// merged are the checks' wishes and those that were decided, which replace them
// for the same setting.
func merged(wishes, decided []plan.Wish) []plan.Wish {
	wishes = slices.DeleteFunc(slices.Clone(wishes), func(w plan.Wish) bool {
		return slices.ContainsFunc(decided, func(d plan.Wish) bool { return d.Setting == w.Setting })
	})
	return append(wishes, decided...)
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
