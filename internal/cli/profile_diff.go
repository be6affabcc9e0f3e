// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) profileDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff A [B]",
		Short: "what two profiles want differently; exits 1 when something is",
		Long: "Compares two profiles key by key: layers of hostcheck by name, or files with their path. Without B, A is compared with what this host is judged by. " +
			"Sources and reasons are no part of it; a value for certain hosts only is shown with them.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return errors.New("hostcheck profile diff needs one or two profiles")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.diffProfiles(args) },
	}
}

func (a *app) diffProfiles(names []string) error {
	var sides []*profile.Side
	for _, name := range names {
		data, err := profile.Text(name)
		if err != nil {
			if data, err = a.profileFile(name, err); err != nil {
				return err
			}
		}
		s, err := profile.LayerSide(name, data)
		if err != nil {
			return err
		}
		sides = append(sides, s)
	}
	if len(sides) == 1 {
		p, err := a.ownProfile()
		if err != nil {
			return err
		}
		sides, names = append(sides, profile.MergedSide(p)), append(names, "this host")
	}
	found := profile.Diff(sides[0], sides[1])
	var err error
	switch {
	case a.json():
		err = a.writeJSON(found)
	case len(found) == 0:
		err = a.writeText("no differences\n")
	default:
		err = a.writeText(a.text().ProfileDiff(names[0], names[1], found))
	}
	if err == nil && len(found) > 0 {
		return exit(report.ExitFindings)
	}
	return err
}

// profileFile reads a profile that is none of hostcheck's own; why is what a
// name without a path then is.
func (a *app) profileFile(name string, why error) ([]byte, error) {
	if !hasPath(name) {
		return nil, fmt.Errorf("%w; a file is named with its path, ./%s", why, report.Clean(name))
	}
	data, err := readProfile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read profile %s: %w", name, err)
	}
	return data, nil
}

func hasPath(name string) bool { return strings.ContainsAny(name, "/.") }
