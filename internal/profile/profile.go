// SPDX-License-Identifier: Apache-2.0

// Package profile holds golden profiles: the values that a host is judged by,
// each with its source and scope, merged from layers.
//
// Layers are strict YAML. Those that hostcheck brings are embedded and chosen
// by hardware ([Detect]); the site's file, --profile and --set lie above them
// ([Load]).
package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Profile is the merged golden values for one host. Checks read the values
// directly: p.Cmdline.Require, p.Hugepages.Pools, ….
type Profile struct {
	Layers       []string // names of the merged layers, in order: "base", "intel", "rdma-400g", "--set"
	Intent       string   // one of [Intents], or "" when none is stated and none could be assumed
	IntentSource string   // [Stated] or [Assumed]
	IntentWhy    string   // of an assumed intent: what it was assumed from, or why none was; of a stated one: where
	Hash         string   // SHA-256, hex, over the merged values, the intent and Require
	Require      []string // globs of check IDs that must be judged: unknown or error there makes the run incomplete
	Strict       []string // globs of check IDs whose findings no waiver covers
	Values

	rows      []Row
	selection selection
}

// Who the intent comes from. An assumed intent yields at most a warning and
// never a change: see [Origin].
const (
	Stated  = "stated"
	Assumed = "assumed"
)

// Intents are the purposes that no hardware can tell.
var Intents = []string{"baremetal-gpudirect", "sriov-tenant", "vm-gpudirect", "grace-direct-nic", "guest"}

// SitePath is the site's own profile, on the host that is judged.
const SitePath = "/etc/hostcheck/profile.yaml"

// LoadOptions say which layers to merge.
type LoadOptions struct {
	Platform Platform // from [Detect]
	Names    []string // --profile: names of embedded layers, or files; later wins
	Set      []string // --set: key=value; later wins
	Intent   string   // --intent; "" when not given

	ReadSite func(path string) ([]byte, error) // reads [SitePath] on the host; nil: there is none
	ReadFile func(path string) ([]byte, error) // reads the files of Names, where hostcheck runs
}

// IsStrict reports whether a check is one of those that the layers call strict.
func (p *Profile) IsStrict(id string) bool {
	return slices.ContainsFunc(p.Strict, func(g string) bool { return MatchCheck(g, id) })
}

// MatchCheck reports whether a glob (path.Match) or an area means a check.
func MatchCheck(glob, id string) bool {
	area, _, _ := strings.Cut(id, ".")
	if !strings.Contains(glob, ".") {
		if ok, _ := path.Match(glob, area); ok {
			return true
		}
	}
	ok, _ := path.Match(glob, id)
	return ok
}

// Warning is something about the profile that does not stop a run.
type Warning string

// Load merges the layers: base, platform, device and role layers that match
// the host, [SitePath], the Names in their order, and Set. The error, with
// places in the files, is the user's to fix; no profile comes with it.
func Load(opts LoadOptions) (*Profile, []Warning, error) {
	l := &loading{opts: &opts}
	for _, m := range opts.Platform.Layers {
		if m.Matches && !slices.Contains(opts.Names, m.Name) {
			l.files = append(l.files, embeddedFile(m.Name))
		}
	}
	if err := l.site(); err != nil {
		return nil, l.warnings, err
	}
	for _, name := range opts.Names {
		if err := l.named(name); err != nil {
			return nil, l.warnings, err
		}
	}
	p, err := l.merge()
	return p, l.warnings, err
}

// loading is one call of Load.
type loading struct {
	opts     *LoadOptions
	files    []*file
	warnings []Warning
}

func (l *loading) warn(format string, args ...any) {
	l.warnings = append(l.warnings, Warning(fmt.Sprintf(format, args...)))
}

func (l *loading) site() error {
	if l.opts.ReadSite == nil {
		return nil
	}
	data, err := l.opts.ReadSite(SitePath)
	switch {
	case err == nil:
		return l.file(SitePath, data)
	case host.Absent(err):
		return nil
	case errors.Is(err, host.ErrNotCaptured):
		l.warn("whether the host has a %s is not known: it was not captured", SitePath)
		return nil
	}
	// Judging by other values than the site's would be silently wrong.
	return fmt.Errorf("cannot use the site's profile: %w", err)
}

// named adds an embedded layer by name, or a file by path.
func (l *loading) named(name string) error {
	if f := embeddedFile(name); f != nil {
		for _, m := range l.opts.Platform.Layers {
			if m.Name == name && !m.Matches && !f.Match.empty() {
				l.warn("profile %s is not for this host: %s", name, m.Why)
			}
		}
		l.add(f)
		return nil
	}
	if !strings.ContainsAny(name, "/.") {
		return fmt.Errorf("%s; a file is named with its path, ./%s", unknownWord("profile", name, order), clipped(name))
	}
	if l.opts.ReadFile == nil {
		return fmt.Errorf("cannot read profile %s: no files can be read here", clipped(name))
	}
	data, err := l.opts.ReadFile(name)
	if err != nil {
		return fmt.Errorf("cannot read profile %s: %w", clipped(name), err)
	}
	return l.file(name, data)
}

// file adds a file that the user or the site wrote, below it the roles that it names.
func (l *loading) file(path string, data []byte) error {
	f, probs := parseFile(path, data)
	if len(probs) > 0 {
		return probs
	}
	for _, role := range f.Roles {
		if r := embeddedFile(role); !slices.Contains(l.files, r) {
			l.files = append(l.files, r)
		}
	}
	none := func(string) int { return 0 }
	if v := l.opts.Platform.matches(&f.Match, none); !v.ok {
		l.warn("profile %s says that it is not for this host: %s", path, v.why)
	}
	l.add(f)
	return nil
}

// add puts a layer on top; a layer named twice counts where it is named last.
func (l *loading) add(f *file) {
	l.files = slices.DeleteFunc(l.files, func(g *file) bool { return g == f })
	l.files = append(l.files, f)
}

func (l *loading) merge() (*Profile, error) {
	p := &Profile{}
	if err := l.intent(p); err != nil {
		return nil, err
	}
	m := &merger{to: &p.Values, platform: &l.opts.Platform, intent: p.Intent, assumed: p.IntentSource == Assumed, now: map[string]int{}}
	for _, f := range l.files {
		m.layer(f)
		p.Layers = append(p.Layers, f.label())
		for _, id := range f.Require {
			if !slices.Contains(p.Require, id) {
				p.Require = append(p.Require, id)
			}
		}
		for _, id := range f.Strict {
			if !slices.Contains(p.Strict, id) {
				p.Strict = append(p.Strict, id)
			}
		}
	}
	if len(l.opts.Set) > 0 {
		if err := m.set(l.opts.Set); err != nil {
			return nil, err
		}
		p.Layers = append(p.Layers, setLayer)
	}
	if err := p.contradiction(); err != nil {
		return nil, err
	}
	p.rows = m.rows
	sum := sha256.Sum256(p.canonicalJSON())
	p.Hash = hex.EncodeToString(sum[:])
	return p, nil
}

// intent takes the stated intent of the highest layer, or the platform's guess.
func (l *loading) intent(p *Profile) error {
	p.Intent, p.IntentSource, p.IntentWhy = l.opts.Platform.Intent, Assumed, l.opts.Platform.IntentWhy
	for _, f := range l.files {
		if f.Intent != "" {
			p.Intent, p.IntentSource, p.IntentWhy = f.Intent, Stated, f.label()
		}
	}
	if i := l.opts.Intent; i != "" {
		if !slices.Contains(Intents, i) {
			return errors.New(unknownWord("intent", i, Intents))
		}
		p.Intent, p.IntentSource, p.IntentWhy = i, Stated, "--intent"
	}
	return nil
}

// contradiction names two wants that no host can meet together.
func (p *Profile) contradiction() error {
	for _, r := range p.Cmdline.Require {
		for _, f := range p.Cmdline.Forbid {
			if r.Token == f.Token {
				return fmt.Errorf("the profile both requires and forbids %q on the command line: required by %s (%s), forbidden by %s (%s); drop one of the two",
					r.Token, r.Layer, r.ID, f.Layer, f.ID)
			}
		}
	}
	warn, most := p.Hugepages.NodePercentWarn, p.Hugepages.NodePercentMax
	if warn.Set && most.Set && warn.V > most.V {
		return fmt.Errorf("the profile warns about hugepages only beyond its limit: node_percent_warn %d (%s), node_percent_max %d (%s)",
			warn.V, warn.Origin.Layer, most.V, most.Origin.Layer)
	}
	return nil
}

// Rows lists every value that a layer gives, in the order of merging, with
// those that a scope left out or that a later layer replaced, and why.
func (p *Profile) Rows() []Row { return slices.Clone(p.rows) }

// Lint gives all problems of a profile's text. Name is how messages call it.
func Lint(data []byte, name string) []Problem {
	_, probs := parseFile(name, data)
	return probs
}
