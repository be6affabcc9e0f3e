// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// openHost opens what the flags name: this machine, a tree, or a bundle, which
// is read once.
func (a *app) openHost() (*host.Host, error) {
	if a.flags.from == "" {
		return host.Open(a.flags.root, host.Options{})
	}
	if a.bundle == nil {
		b, err := bundle.Open(a.flags.from, a.stdin)
		if err != nil {
			return nil, err
		}
		a.bundle = b
	}
	return a.bundle.Replay(), nil
}

// machineOnly are commands that are about a host itself. There is nothing in a
// bundle that they could read or change.
var machineOnly = []string{"fix", "undo", "confirm", "history", "status", "bench", "expire", "settings", "trial", "waive", "tune", "slurm", "ansible"}

// judgeFrom refuses --from where it makes no sense, with what to do instead.
func (a *app) judgeFrom(c *cobra.Command, s *pflag.FlagSet) error {
	if a.flags.from == "" {
		return nil
	}
	what := "--from"
	if a.getenv(envName("from")) == a.flags.from {
		what = envName("from")
	}
	if s.Changed("root") {
		return fmt.Errorf("--root and %s exclude each other: a host is read from a tree or from a bundle", what)
	}
	top := c
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	switch {
	case !c.HasParent() && a.changes.fix && a.changes.dryRun:
		return nil
	case !c.HasParent() && a.changes.fix, top.Name() == "fix":
		return fmt.Errorf("a bundle cannot be fixed: %s is for reading; \"hostcheck plan --from %s\" shows the plan and its hash, and on the host itself \"hostcheck --fix --plan-hash HASH\" does exactly that or refuses", what, a.flags.from)
	case slices.Contains(machineOnly, top.Name()) && c.CommandPath() != "hostcheck waive list":
		return fmt.Errorf("%s is about a host itself and knows no %s: run it there", c.CommandPath(), what)
	}
	return nil
}

// replayed shapes an engine that only plans, for the host of a bundle.
func (a *app) replayed(e *plan.Engine) {
	s := a.bundle.Host
	e.Captured, e.Root = true, "/"
	if !s.Exact.Live {
		e.Root = "/a/tree" // so that only files can be changed; nothing is read or written there
	}
	if m := a.bundle.Manifest; m != nil && m.Program != "" {
		e.Self = m.Program
	}
}

var errNoHash = errors.New("the plan has no hash")

// unhashed says why a plan made from a bundle must not be applied by its hash:
// its changes hold what redaction put there.
func unhashed(m *bundle.Manifest, p plan.Plan) error {
	if m == nil {
		return nil
	}
	for _, c := range p.Changes {
		for _, text := range []string{c.Target, c.Name, c.Before.Text, c.After.Text} {
			for _, name := range m.Pseudonyms {
				if strings.Contains(text, name) {
					return fmt.Errorf("%w: %s holds %q, which stands for what the bundle does not show (redaction %s); make the plan on the host", errNoHash, c.Setting, name, m.Redaction)
				}
			}
		}
	}
	return nil
}
