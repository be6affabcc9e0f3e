// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

// completion writes a shell's completion script.
func (a *app) completion(root *cobra.Command, shell string, shells []string) error {
	var b bytes.Buffer
	var err error
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(&b, true)
	case "zsh":
		err = root.GenZshCompletion(&b)
	case "fish":
		err = root.GenFishCompletion(&b, true)
	default:
		return unknown("shell", shell, shells)
	}
	if err != nil {
		return err
	}
	return a.write(b.Bytes())
}

// completeFlags says what the flags of every command take.
func (a *app) completeFlags(root *cobra.Command) {
	words := func(list ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, f := range map[string]cobra.CompletionFunc{
		"profile": func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var out []cobra.Completion
			for _, l := range profile.List() {
				out = append(out, cobra.CompletionWithDesc(l.Name, l.Title))
			}
			return out, cobra.ShellCompDirectiveDefault // or a file
		},
		"intent": words(profile.Intents...),
		"only":   a.completeChecks(true),
		"skip":   a.completeChecks(true),
		"format": func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return append([]string{"text", "json"}, a.formatsOf(c)...), cobra.ShellCompDirectiveNoFileComp
		},
		"fail-on": words("fail", "warn"),
		"color":   words("auto", "always", "never"),
		"root": func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	} {
		if err := root.RegisterFlagCompletionFunc(flag, f); err != nil {
			panic(err) // a flag that is not there: a mistake here
		}
	}
}

// help writes what a command does; it goes to stdout, because it was asked for.
func (a *app) help(c *cobra.Command, _ []string) {
	sections := append(a.about(c), a.flagsOfAll(c)...)
	if !c.HasParent() {
		sections = append(sections, exitCodes)
	}
	if err := a.writeText(a.text().Help(sections)); err != nil {
		a.failed = err
	}
}

// flagsOfAll is the flags that every command has.
func (a *app) flagsOfAll(c *cobra.Command) []report.Section {
	s := []report.Section{{Title: "Flags, for every command", Rows: flagRows(c.Root().PersistentFlags())}}
	if !c.HasParent() {
		s = append(s, report.Section{Text: "Flags that shape what is read and shown may also stand in the environment as HOSTCHECK_NAME, such as HOSTCHECK_FORMAT=json."})
	}
	return s
}

var exitCodes = report.Section{Title: "Exit codes", Rows: [][2]string{
	{"0", "compliant"},
	{"1", "findings at or above --fail-on remain; for \"hostcheck plan\", there is something to change"},
	{"2", "usage, profile, plan or consent error; nothing was changed"},
	{"3", "incomplete: what the profile requires could not be judged, or nothing could"},
	{"4", "a fix failed, and the host was restored and read back"},
	{"5", "a fix failed, and restoring is incomplete"},
	{"10", "nothing fails, but something is pending a reboot"},
	{"11", "another hostcheck is at work"},
	{"130, 143", "interrupted; what was changed was put back"},
}}

// about says what a command does and takes of its own.
func (a *app) about(c *cobra.Command) []report.Section {
	if !c.HasParent() {
		rows := [][2]string{
			{"hostcheck [AREA|ID ...]", "diagnose; reads only, changes nothing"},
			{"hostcheck --fix [AREA|ID ...]", "make what fails pass: shows the changes, asks, does them, verifies"},
		}
		for _, sub := range a.commands {
			if sub.Name() != "check" {
				rows = append(rows, [2]string{"hostcheck " + sub.Use, sub.Short})
			}
		}
		return []report.Section{
			{Text: "hostcheck: " + c.Short},
			{Title: "Usage", Rows: rows},
			{Title: "Flags of --fix", Rows: flagRows(c.LocalNonPersistentFlags())},
			{Text: "\"hostcheck fix\" and \"hostcheck plan\" have them too. None can stand in the environment."},
		}
	}
	text := c.Short
	if c.Long != "" {
		text = c.Long
	}
	var rows [][2]string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			rows = append(rows, [2]string{c.CommandPath() + " " + sub.Use, sub.Short})
		}
	}
	if rows == nil {
		rows = [][2]string{{c.UseLine(), ""}}
	}
	sections := []report.Section{{Text: text}, {Title: "Usage", Rows: rows}}
	if own := flagRows(c.LocalNonPersistentFlags()); own != nil {
		sections = append(sections, report.Section{Title: "Flags of " + c.CommandPath(), Rows: own})
	}
	return sections
}

func flagRows(s *pflag.FlagSet) [][2]string {
	var rows [][2]string
	s.SortFlags = false // in the order in which they were added
	s.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flag := "    --" + f.Name
		if f.Shorthand != "" {
			flag = "-" + f.Shorthand + ", --" + f.Name
		}
		if name != "" {
			flag += " " + name
		}
		rows = append(rows, [2]string{flag, usage})
	})
	return rows
}
