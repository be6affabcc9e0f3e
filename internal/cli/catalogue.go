// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "list [AREA|ID ...]",
		Short:             "the checks",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeChecks(true),
		RunE: func(_ *cobra.Command, args []string) error {
			selected, err := a.selectChecks(args, nil)
			if err != nil {
				return err
			}
			all := report.List(selected)
			if a.json() {
				return a.writeJSON(all)
			}
			return a.writeText(a.text().List(all))
		},
	}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "explain ID",
		Short:             "what a check is about and how to fix by hand",
		Args:              one("ID of a check; \"hostcheck list\" has them"),
		ValidArgsFunction: a.completeChecks(false),
		RunE: func(_ *cobra.Command, args []string) error {
			var ids, inArea []string
			for _, c := range a.allChecks() {
				if c.ID == args[0] {
					return a.explain(c)
				}
				if c.Area() == args[0] {
					inArea = append(inArea, c.ID)
				}
				ids = append(ids, c.ID)
			}
			if inArea != nil {
				return fmt.Errorf("%s is an area; its checks: %s", args[0], strings.Join(inArea, ", "))
			}
			return unknown("check", args[0], ids)
		},
	}
}

func (a *app) explain(c *check.Check) error {
	e := report.Explain(c)
	if a.json() {
		return a.writeJSON(e)
	}
	return a.writeText(a.text().Explain(e))
}

// one wants exactly one argument and says which.
func one(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch len(args) {
		case 1:
			return nil
		case 0:
			return fmt.Errorf("%s needs the %s", c.CommandPath(), what)
		}
		return fmt.Errorf("%s takes one argument, not %d", c.CommandPath(), len(args))
	}
}

// none wants no argument.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, got %.80q", c.CommandPath(), args[0])
	}
	return nil
}
