// SPDX-License-Identifier: Apache-2.0

// Package tune holds policies: several changes that belong together, in an
// order, judged by a prediction or a measurement. What a policy wishes goes
// the way of every other wish: verbs make changes of it, the engine plans,
// applies, verifies and undoes them.
package tune

import (
	"context"
	"slices"

	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// Module is one policy. Its paired checks are those whose Tune is its name:
// they are judged before, so that the module sees their findings, and again
// after the changes.
type Module struct {
	Name  string // "rxfrag": what stands behind "hostcheck tune plan"
	Title string // what it does, as a short phrase
	Doc   string // for the help: what it looks at, what it may change

	// Flags adds the module's own flags; nil for none. They are flags of "tune
	// plan" and "tune apply".
	Flags func(*pflag.FlagSet)

	// Plan decides. Its error ends the command before anything is changed.
	Plan func(context.Context, Input) (Advice, error)
}

// Input is what a module decides by.
type Input struct {
	Facts   *facts.Facts
	Profile *profile.Profile
	Results []check.Result                    // of the paired checks, each wish with the check that has it
	Read    func(name string) ([]byte, error) // a file that a flag names, within bounds; "-" is standard input
	Live    bool                              // a running host, not a directory tree
}

// Wishes are what the paired checks would have changed: what "hostcheck --fix"
// does by itself.
func (in Input) Wishes() []plan.Wish {
	var out []plan.Wish
	for _, r := range in.Results {
		for _, f := range r.Findings {
			if f.Status == check.Fail || f.Status == check.Warn {
				out = append(out, f.Fix...)
			}
		}
	}
	return out
}

// Advice is what a module makes of a host.
type Advice struct {
	Wishes []plan.Wish // become changes or refusals; each names a check or "tune.NAME"
	Text   string      // what a person reads before the changes: why these, what they save
	Value  any         // the same for a program; marshals to JSON
}

// All lists the modules, in the order of "hostcheck tune list". Each call
// makes new ones: a module holds the values of its flags.
func All() []*Module { return []*Module{rxfrag(), migration()} }

// Paired gives the IDs of the checks that a module is about.
func (m *Module) Paired() []string {
	var ids []string
	for _, c := range checks.All() {
		if c.Tune == m.Name {
			ids = append(ids, c.ID)
		}
	}
	return slices.Clip(ids)
}
