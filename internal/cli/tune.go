// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/report"
	"github.com/hostcheck/hostcheck/tune"
)

func (a *app) tuneCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tune",
		Short: "policies: several settings at once, by prediction or measurement",
		Long: `A module of "tune" decides several settings that belong together, by a prediction for this host or by a measurement of it, and says
what they save. Its changes go the way of "hostcheck --fix": shown, asked for, journalled, verified, and taken back by "hostcheck undo".`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknown("command of tune", args[0], []string{"list", "plan", "apply"})
			}
			return errors.New("tune does one of three things; name it: hostcheck tune list, hostcheck tune plan MODULE, hostcheck tune apply MODULE")
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "the modules, and the checks that each is paired with", Args: none,
		RunE: func(*cobra.Command, []string) error {
			all := make([]report.TuneModule, 0, len(tune.All()))
			for _, m := range tune.All() {
				all = append(all, report.TuneModule{Name: m.Name, Title: m.Title, Checks: append([]string{}, m.Paired()...)})
			}
			if a.json() {
				return a.writeJSON(all)
			}
			return a.writeText(a.text().TuneModules(all))
		},
	}
	c.AddCommand(list,
		a.tuneModules("plan", "what a module would change, and why; changes nothing; exit 1 when there is something to change", true),
		a.tuneModules("apply", "shows the changes, asks, does them, verifies; the same as --fix for this module", false))
	return c
}

// tuneModules is "tune plan" or "tune apply", with a command for each module:
// they have flags of their own.
func (a *app) tuneModules(verb, short string, dry bool) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " MODULE", Short: short,
		RunE: func(_ *cobra.Command, args []string) error {
			var names []string
			for _, m := range tune.All() {
				names = append(names, m.Name)
			}
			if len(args) > 0 {
				return unknown("module of tune", args[0], names)
			}
			return fmt.Errorf("hostcheck tune %s needs a module; \"hostcheck tune list\" has them", verb)
		},
	}
	for _, m := range tune.All() {
		f := &fixFlags{dryRun: dry}
		sub := &cobra.Command{Use: m.Name, Short: m.Title, Long: m.Doc, Args: none}
		sub.Flags().SortFlags = false
		if m.Flags != nil {
			m.Flags(sub.Flags())
		}
		own := flagNames(sub.Flags())
		if dry {
			f.addPlan(sub.Flags())
		} else {
			f.addRun(sub.Flags())
		}
		sub.RunE = func(c *cobra.Command, _ []string) error {
			return a.tune(&tuning{module: m, words: given(c.Flags(), own)}, *f)
		}
		c.AddCommand(sub)
	}
	return c
}

func flagNames(s *pflag.FlagSet) (names []string) {
	s.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// given are those of the named flags that were given, as words.
func given(s *pflag.FlagSet, names []string) (words []string) {
	for _, name := range names {
		if f := s.Lookup(name); f.Changed {
			words = append(words, "--"+name+"="+f.Value.String())
		}
	}
	return words
}

// tuning is the module that decides in a fix, instead of the failing checks.
type tuning struct {
	module *tune.Module
	words  []string // the flags of its own that were given
	advice tune.Advice
}

// tune is fix, with the changes that a module decides on.
func (a *app) tune(t *tuning, f fixFlags) error {
	paired := t.module.Paired()
	if len(paired) == 0 {
		return fmt.Errorf("no check is paired with the module %s", t.module.Name)
	}
	return a.fixBy(t, paired, nil, f)
}

// decide asks the module what it would change.
func (t *tuning) decide(ctx context.Context, a *app, s *sample) (err error) {
	t.advice, err = t.module.Plan(ctx, tune.Input{
		Facts: s.facts, Profile: s.profile, Results: s.results, Read: a.readNamed, Live: a.live(),
	})
	return err
}

// document is the JSON of "tune plan".
func (t *tuning) document(v report.PlanView) report.TunePlan {
	return report.TunePlan{Schema: report.TuneSchema, Module: t.module.Name, Advice: t.advice.Value, Plan: v.Document()}
}

// maxNamed is how large a file may be that a flag names.
const maxNamed = 16 << 20

// readNamed reads a file that a flag names; "-" is standard input.
func (a *app) readNamed(name string) ([]byte, error) {
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxNamed+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
	case len(b) > maxNamed:
		return nil, fmt.Errorf("cannot read %s: it is larger than %d MiB", name, maxNamed>>20)
	}
	return b, nil
}
