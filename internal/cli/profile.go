// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

// loadProfile merges the layers for a host: those detected, the site's, then
// the flags.
func (a *app) loadProfile(f *facts.Facts) (*profile.Profile, error) {
	platform, err := detect(f)
	if err != nil {
		return nil, err
	}
	p, warnings, err := profile.Load(profile.LoadOptions{
		Platform: platform, Names: a.flags.profile, Set: a.flags.set, Intent: a.flags.intent,
		ReadSite: f.Host().Read, ReadFile: a.readLayer,
	})
	for _, w := range warnings {
		a.warn("%s", w)
	}
	return p, err
}

// detect looks at the host. A decoder that fails there leaves nothing to judge
// by.
func detect(f *facts.Facts) (p profile.Platform, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &failure{report.ExitIncomplete, fmt.Errorf("hostcheck failed while it looked at the host: %v", v)}
		}
	}()
	return profile.Detect(f), nil
}

const maxProfile = 1 << 20

// readProfile reads a profile file where hostcheck runs.
func readProfile(name string) ([]byte, error) { return readGiven(name, maxProfile) }

// readLayer is readProfile, also for a profile that is in no file.
func (a *app) readLayer(name string) ([]byte, error) {
	if b, ok := a.layers[name]; ok {
		return b, nil
	}
	return readProfile(name)
}

// readGiven reads a file that a flag names: a regular file of at most so many
// bytes, so that no device or FIFO can hold the run up.
func readGiven(name string, most int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case st.IsDir():
		return nil, errors.New("it is a directory")
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() > most:
		return nil, fmt.Errorf("larger than %d bytes", most)
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, cause(err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("larger than %d bytes", most)
	}
	return b, nil
}

func (a *app) profileCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "profile COMMAND",
		Short: "the values that hosts are judged by",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck profile needs one of list, show, lint, detect, capture, diff")
			}
			return unknown("profile command", args[0], commandNames(c))
		},
	}
	c.AddCommand(a.profileList(), a.profileShow(), a.profileLint(), a.profileDetect(), a.profileCapture(), a.profileDiff())
	return c
}

func (a *app) profileList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "the layers that hostcheck brings, in the order of merging, and the intents",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			all := profile.List()
			if a.json() {
				return a.writeJSON(struct {
					Profiles []profile.Info `json:"profiles"`
					Intents  []string       `json:"intents"`
				}{all, profile.Intents})
			}
			rows := [][]string{{"NAME", "LAYER", "TITLE"}}
			for _, i := range all {
				rows = append(rows, []string{i.Name, i.Layer, i.Title})
			}
			intents := [][]string{{"INTENT"}}
			for _, i := range profile.Intents {
				intents = append(intents, []string{i})
			}
			t := a.text()
			return a.writeText(t.Table(rows) + "\n" + t.Table(intents))
		},
	}
}

// shown is "profile show -f json".
type shown struct {
	Layers       []string   `json:"layers"`
	Intent       string     `json:"intent"`
	IntentSource string     `json:"intent_source"`
	IntentWhy    string     `json:"intent_why"`
	Hash         string     `json:"hash"`
	Require      []string   `json:"require"`
	Strict       []string   `json:"strict"`
	Values       []shownRow `json:"values"`
}

type shownRow struct {
	profile.Row
	Layer  string `json:"layer"`
	Line   int    `json:"line"`
	Source string `json:"source"`
}

func (a *app) profileShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "what this host is judged by, each value with its source; or a layer as it was written",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []string
			for _, i := range profile.List() {
				names = append(names, i.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showLayer(args[0])
			}
			return a.showMerged()
		},
	}
}

func (a *app) showLayer(name string) error {
	text, err := profile.Text(name)
	if err != nil {
		return err
	}
	if !a.json() {
		return a.write(text)
	}
	all := profile.List()
	i := slices.IndexFunc(all, func(i profile.Info) bool { return i.Name == name })
	return a.writeJSON(struct {
		profile.Info
		Text string `json:"text"`
	}{all[i], string(text)})
}

// ownProfile is what this host is judged by.
func (a *app) ownProfile() (*profile.Profile, error) {
	h, err := a.openHost()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return a.loadProfile(facts.New(h))
}

func (a *app) showMerged() error {
	p, err := a.ownProfile()
	if err != nil {
		return err
	}
	s := shown{p.Layers, p.Intent, p.IntentSource, p.IntentWhy, p.Hash, p.Require, p.Strict, []shownRow{}}
	if s.Require == nil {
		s.Require = []string{}
	}
	if s.Strict == nil {
		s.Strict = []string{}
	}
	for _, r := range p.Rows() {
		s.Values = append(s.Values, shownRow{r, r.Origin.Layer, r.Origin.Line, r.Origin.Source})
	}
	if a.json() {
		return a.writeJSON(s)
	}
	v := report.MergedProfile{
		Profile: report.Profile{Layers: s.Layers, Intent: s.Intent, IntentSource: s.IntentSource, Hash: s.Hash},
		Why:     s.IntentWhy, Require: s.Require, Strict: s.Strict,
	}
	for _, r := range s.Values {
		v.Values = append(v.Values, report.MergedValue{Key: r.Key, Value: r.Value, From: r.Origin.String(), Applied: r.Applied, Why: r.Why})
	}
	return a.writeText(a.text().Merged(v))
}

// linted is one mistake in "profile lint -f json".
type linted struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Col     int    `json:"col"`
	Message string `json:"message"`
}

func (a *app) profileLint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint FILE ...",
		Short: "what is wrong with profile files; exits 2 when something is",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck profile lint needs a FILE")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			found := []linted{}
			text := ""
			for _, name := range args {
				data, err := readProfile(name)
				if err != nil {
					return fmt.Errorf("cannot read profile %s: %w", name, err)
				}
				problems := profile.Lint(data, name)
				for _, p := range problems {
					found = append(found, linted{p.File, p.Line, p.Col, p.Msg})
					text += p.Error() + "\n"
				}
				if len(problems) == 0 {
					text += report.Clean(name) + ": no problems\n"
				}
			}
			var err error
			if a.json() {
				err = a.writeJSON(found)
			} else {
				err = a.writeText(text)
			}
			if err == nil && len(found) > 0 {
				err = exit(report.ExitUsage)
			}
			return err
		},
	}
}

func (a *app) profileDetect() *cobra.Command {
	return &cobra.Command{
		Use:   "detect",
		Short: "which layers are for this host, and why",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			h, err := a.openHost()
			if err != nil {
				return err
			}
			defer h.Close()
			p, err := detect(facts.New(h))
			if err != nil {
				return err
			}
			if a.json() {
				return a.writeJSON(p)
			}
			rows := [][]string{{"", "NAME", "LAYER", "WHY"}}
			for _, l := range p.Layers {
				mark := " "
				if l.Matches {
					mark = "✓"
				}
				rows = append(rows, []string{mark, l.Name, l.Layer, l.Why})
			}
			t := a.text()
			intent := p.Intent
			if intent == "" {
				intent = "none"
			}
			return a.writeText(t.Table(rows) + "\n" + t.Table([][]string{{"INTENT", "WHY"}, {intent, p.IntentWhy}}))
		},
	}
}
