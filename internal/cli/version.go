// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Set at link time, see the Makefile; a plain "go install" says what the
// module system knows.
var version, commit string

func tool() report.Tool {
	t := report.Tool{Version: version, Commit: commit}
	if t.Version != "" && t.Commit != "" {
		return t
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if t.Version == "" {
		t.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && t.Commit == "" {
			t.Commit = s.Value[:min(12, len(s.Value))]
		}
	}
	if t.Version == "" || t.Version == "(devel)" {
		t.Version = "dev"
	}
	if t.Commit == "" {
		t.Commit = "none"
	}
	return t
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "version, commit and build",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			t := tool()
			if a.json() {
				return a.writeJSON(struct {
					report.Tool
					Go   string `json:"go"`
					OS   string `json:"os"`
					Arch string `json:"arch"`
				}{t, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			return a.writeText(fmt.Sprintf("hostcheck %s (commit %s, %s %s/%s)\n", t.Version, t.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}

func (a *app) schemaCommand() *cobra.Command {
	names := append(append([]string{}, report.Schemas...), "plan", "profile")
	return &cobra.Command{
		Use:       "schema [NAME]",
		Short:     "JSON Schema of what hostcheck writes, and of profiles",
		ValidArgs: names,
		Args:      cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			name := "report"
			if len(args) > 0 {
				name = args[0]
			}
			switch s := report.JSONSchema(name); {
			case len(args) > 1:
				return one("name of a schema")(c, args)
			case name == "profile":
				b, err := profile.Schema()
				if err != nil {
					return err
				}
				return a.write(b)
			case name == "plan":
				return a.write(plan.JSONSchema)
			case s == nil:
				return unknown("schema", name, names)
			default:
				return a.writeJSON(s)
			}
		},
	}
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "completion script for bash, zsh or fish",
		Long: "Prints a completion script. For this session: source <(hostcheck completion bash).\n" +
			"For all: hostcheck completion bash > /etc/bash_completion.d/hostcheck",
		ValidArgs: shells,
		Args:      one("name of a shell: bash, zsh or fish"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.completion(c.Root(), args[0], shells)
		},
	}
}
