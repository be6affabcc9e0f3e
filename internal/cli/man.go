// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) manCommand() *cobra.Command {
	var dir string
	var markdown bool
	c := &cobra.Command{
		Use:   "man [COMMAND ...]",
		Short: "manual page of hostcheck or of one command",
		Long: `Prints a manual page, made of the same text as --help. To read it:

  hostcheck man plan | man -l -

With --dir all pages are written into a directory, as hostcheck.1, hostcheck-plan.1 and so on, for a package to install.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			pages := a.manual(c.Root())
			switch {
			case dir != "":
				return writePages(dir, pages)
			case markdown:
				return a.write([]byte(report.Reference(pages)))
			}
			want := strings.Join(append([]string{"hostcheck"}, args...), " ")
			for _, m := range pages {
				if m.Command == want {
					return a.write([]byte(m.Roff(tool().Version)))
				}
			}
			return unknown("command", strings.Join(args, " "), commandNames(c.Root()))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&dir, "dir", "", "write all pages into `DIR`")
	c.Flags().BoolVar(&markdown, "markdown", false, "all of them as one document in Markdown")
	return c
}

// manual is the pages of hostcheck and of every command that a person runs.
func (a *app) manual(root *cobra.Command) []report.ManPage {
	main := report.ManPage{Command: root.Name(), Short: root.Short, Sections: append(append(a.about(root), a.flagsOfAll(root)...), exitCodes, filesOf)}
	var pages []report.ManPage
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		m := report.ManPage{Command: c.CommandPath(), Short: c.Short, See: []string{"hostcheck(1)"},
			Sections: append(a.about(c), report.Section{Text: "The flags that every command has, and exit codes, are in hostcheck(1)."})}
		main.See = append(main.See, m.Name()+"(1)")
		pages = append(pages, m)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				walk(sub)
			}
		}
	}
	for _, c := range a.commands {
		walk(c)
	}
	return append([]report.ManPage{main}, pages...)
}

var filesOf = report.Section{Title: "Files", Rows: [][2]string{
	{"/etc/hostcheck/profile.yaml", "golden values of this site"},
	{"/etc/hostcheck/settings.d/*.yaml", "what a reboot loses, and a unit of systemd sets again"},
	{"/var/lib/hostcheck", "the journal: what was changed, and what was there before"},
}}

func writePages(dir string, pages []report.ManPage) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, cause(err))
	}
	for _, m := range pages {
		name := filepath.Join(dir, m.Name()+".1")
		if err := writeFile(name, []byte(m.Roff(tool().Version))); err != nil {
			return fmt.Errorf("cannot write %s: %w", name, cause(err))
		}
	}
	return nil
}
