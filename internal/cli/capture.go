// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// captureName is how a captured profile is called while it is tried.
const captureName = "./captured.yaml"

func (a *app) profileCapture() *cobra.Command {
	return &cobra.Command{
		Use:   "capture [HOST ...]",
		Short: "a profile from hosts that are good: what they have in common",
		Long: "Reads this host, or each HOST (a directory with the tree of one, a bundle, or what --from takes), and writes a profile of what all of them have in common: GPUs, NICs and their settings, the command line, " +
			"pools, modules, kernel parameters. In what they differ stands there as a comment, with who has what. Every host is then judged by it: what a host does not pass is left out or told.\n\n" +
			"Read it before you use it: it says what these hosts are, and not what is right.",
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error { return a.captureProfile(args) },
	}
}

// captured is "profile capture -f json".
type captured struct {
	Profile string           `json:"profile"` // the text of the file
	Hosts   []string         `json:"hosts"`
	Values  int              `json:"values"`
	Spread  []profile.Spread `json:"spread"`
}

// source is one good host.
type source struct {
	facts    *facts.Facts
	platform profile.Platform
	sample   *profile.Sample
}

func (a *app) captureProfile(roots []string) error {
	if len(roots) > 0 && !a.live() {
		return errors.New("--root and --from exclude HOST: name all hosts behind \"capture\"")
	}
	open := a.openNamed
	if len(roots) == 0 {
		roots = []string{cmp.Or(a.flags.from, a.flags.root)}
		open = func(string) (*host.Host, error) { return a.openHost() }
	}
	var all []*source
	var samples []*profile.Sample
	doc := captured{Spread: []profile.Spread{}}
	for _, root := range roots {
		h, err := open(root)
		if err != nil {
			return err
		}
		defer h.Close()
		s := &source{facts: facts.New(h)}
		p, err := a.loadProfile(s.facts)
		if err != nil {
			return fmt.Errorf("%s: %w", root, err)
		}
		if s.platform, err = detect(s.facts); err != nil {
			return err
		}
		name := root
		if d := describe(h, s.facts); d.Name != nil {
			name = *d.Name
		}
		if slices.Contains(doc.Hosts, name) { // one image, many hosts
			name = fmt.Sprintf("%s (%s)", name, root)
		}
		doc.Hosts = append(doc.Hosts, name)
		s.sample = profile.Take(name, s.facts, s.platform, p)
		all, samples = append(all, s), append(samples, s.sample)
	}

	// A token may be on the command line and without effect: then no host passes.
	void := map[string]bool{}
	drop := func(section, entry string) bool { return section == "cmdline.require" && void[entry] }
	c, err := profile.Compose(samples, tool().Version, drop)
	if err != nil {
		return err
	}
	found, err := a.tryOut(all, c.Text)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Check == "cmdline.required" {
			void["token: "+profile.Quoted(f.Subject)] = true
		}
	}
	if len(void) > 0 {
		if c, err = profile.Compose(samples, tool().Version, drop); err != nil {
			return err
		}
		if found, err = a.tryOut(all, c.Text); err != nil {
			return err
		}
	}
	for _, f := range found {
		a.warn("%s does not pass what was captured: %s", f.host, strings.TrimSpace(f.Check+" "+f.Subject+": "+cmp.Or(f.Got, f.Why)))
	}
	if a.json() {
		doc.Profile, doc.Values = c.Text, c.Values
		if c.Spread != nil {
			doc.Spread = c.Spread
		}
		return a.writeJSON(doc)
	}
	return a.write([]byte(c.Text))
}

// openNamed opens the tree or the bundle of a host.
func (a *app) openNamed(name string) (*host.Host, error) {
	if st, err := os.Stat(name); (err != nil || st.IsDir()) && !bundle.IsCollected(name) {
		return host.Open(name, host.Options{})
	}
	b, err := bundle.Open(name, a.stdin)
	if err != nil {
		return nil, err
	}
	return b.Replay(), nil
}

// failed is a value that a host of the capture does not meet.
type failed struct {
	check.Finding
	host string
}

// tryOut judges every host by the captured profile, and gives what fails for its sake.
func (a *app) tryOut(all []*source, text string) ([]failed, error) {
	var out []failed
	for _, s := range all {
		p, _, err := profile.Load(profile.LoadOptions{
			Platform: s.platform, Names: append(slices.Clone(a.flags.profile), captureName), Set: a.flags.set, Intent: a.flags.intent,
			ReadSite: s.facts.Host().Read,
			ReadFile: func(name string) ([]byte, error) {
				if name == captureName {
					return []byte(text), nil
				}
				return readProfile(name)
			},
		})
		if err != nil {
			return nil, fmt.Errorf("what was captured contradicts what %s is judged by: %w", s.sample.Name, err)
		}
		progress := a.progress()
		r := check.Runner{PerCheck: a.flags.checkTimeout, Progress: progress.show}
		for _, res := range r.Run(context.Background(), a.allChecks(), check.Run{Facts: s.facts, Profile: p, Note: progress.note}) {
			for _, f := range res.Findings {
				if (f.Status == check.Fail || f.Status == check.Warn) && strings.HasPrefix(f.Source, captureName) {
					out = append(out, failed{f, s.sample.Name})
				}
			}
		}
		progress.end()
	}
	return out, nil
}
