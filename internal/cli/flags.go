// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flags are the global flags.
type flags struct {
	profile      []string
	intent       string
	set          []string
	root         string
	from         string
	only, skip   []string
	failOn       string
	format       string
	output       string
	timeout      time.Duration
	checkTimeout time.Duration
	quiet        bool
	verbose      bool
	color        string

	formats []string // of the command, beyond text and json
}

func (f *flags) add(s *pflag.FlagSet) {
	s.SortFlags = false
	s.StringArrayVar(&f.profile, "profile", nil, "layer on top of those detected, by `NAME` or as a file; repeatable, later wins")
	s.StringVar(&f.intent, "intent", "", "what the host is for, by `NAME`; see \"hostcheck profile list\"")
	s.StringArrayVar(&f.set, "set", nil, "one value of the profile: `KEY=VALUE`; repeatable, later wins")
	s.StringVar(&f.root, "root", "/", "read the host whose tree is in `DIR` instead of this one")
	s.StringVar(&f.from, "from", "", "read the host that is in `BUNDLE`, a file of \"hostcheck bundle create\", a sosreport, a snapshot of ghw or a dump of rdma_topo; - is standard input")
	s.StringSliceVar(&f.only, "only", nil, "only these checks: `GLOB`s of IDs or areas, separated by commas; repeatable")
	s.StringSliceVar(&f.skip, "skip", nil, "not these checks: `GLOB`s, as for --only")
	s.StringVar(&f.failOn, "fail-on", "fail", "exit 1 from this `STATUS` on: fail (as if not given) or warn")
	s.StringVarP(&f.format, "format", "f", "text", "`FORMAT` of the result: text or json; html, md, junit, jsonl, prometheus, nagios, npd or nfd of a check; html of fleet report; svg of topo")
	s.StringVarP(&f.output, "output", "o", "", "write the result to `FILE`, whole or not at all")
	s.DurationVar(&f.timeout, "timeout", 2*time.Minute, "`TIME` for the whole run, 2m if not given; what is not judged by then is unknown")
	s.DurationVar(&f.checkTimeout, "check-timeout", 10*time.Second, "`TIME` for one check, 10s if not given")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "the verdict and one line per finding; no progress, no warnings")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "evidence, passes and every subject")
	s.StringVar(&f.color, "color", "auto", "`WHEN` to colour: auto, always or never")
}

// envFlags are the flags that the environment may give: those that only shape
// what is read and shown. Flags that change or loosen anything, and those that
// say where to read or write, have no such form. The separator divides the
// values of a repeatable flag.
var envFlags = []struct{ flag, separator string }{
	{"profile", ","},
	{"intent", ""},
	{"set", ";"},
	{"from", ""},
	{"only", ","},
	{"skip", ","},
	{"fail-on", ""},
	{"format", ""},
	{"timeout", ""},
	{"check-timeout", ""},
	{"quiet", ""},
	{"verbose", ""},
	{"color", ""},
}

func envName(flag string) string {
	return "HOSTCHECK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnv takes flags that were not given from the environment, and then
// judges all values.
func (a *app) readEnv(s *pflag.FlagSet) error {
	known := map[string]string{}
	for _, e := range envFlags {
		known[envName(e.flag)] = e.flag
	}
	var stray, taken []string
	for _, kv := range a.env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "HOSTCHECK_") || value == "" {
			continue
		}
		i := slices.IndexFunc(envFlags, func(e struct{ flag, separator string }) bool { return envName(e.flag) == name })
		if i < 0 {
			stray = append(stray, name)
			continue
		}
		e := envFlags[i]
		if s.Changed(e.flag) {
			continue
		}
		taken = append(taken, e.flag)
		values := []string{value}
		if e.separator != "" {
			values = strings.Split(value, e.separator)
		}
		for _, v := range values {
			if err := s.Set(e.flag, v); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if err := a.flags.judge(taken); err != nil {
		return err
	}
	slices.Sort(stray)
	for _, name := range stray {
		a.strayEnv(name, s)
	}
	return nil
}

func (a *app) strayEnv(name string, s *pflag.FlagSet) {
	flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "HOSTCHECK_"), "_", "-"))
	if s.Lookup(flag) != nil || slices.Contains(changeFlags, flag) {
		a.warn("%s is ignored: --%s must be given as a flag", name, flag)
		return
	}
	names := make([]string, len(envFlags))
	for i, e := range envFlags {
		names[i] = envName(e.flag)
	}
	a.warn("%s is ignored: there is no such setting%s", name, didYouMean(name, names))
}

// judge refuses values that no command could use; those of the flags in env came
// from the environment.
func (f *flags) judge(env []string) error {
	formats := append([]string{"text", "json"}, f.formats...)
	for _, c := range []struct {
		flag, what, value string
		known             []string
	}{
		{"format", "format", f.format, formats},
		{"fail-on", "value of --fail-on", f.failOn, []string{"fail", "warn"}},
		{"color", "value of --color", f.color, []string{"auto", "always", "never"}},
	} {
		if slices.Contains(c.known, c.value) {
			continue
		}
		err := unknown(c.what, c.value, c.known)
		if slices.Contains(env, c.flag) {
			return fmt.Errorf("%s: %w", envName(c.flag), err)
		}
		return err
	}
	switch {
	case f.timeout <= 0:
		return fmt.Errorf("--timeout must be more than 0, not %v", f.timeout)
	case f.checkTimeout <= 0:
		return fmt.Errorf("--check-timeout must be more than 0, not %v", f.checkTimeout)
	case f.quiet && f.verbose:
		return errors.New("--quiet and --verbose exclude each other")
	case f.root == "":
		return errors.New("--root needs a directory")
	}
	return nil
}

// flagError words what pflag found wrong, with a suggestion where a flag is
// misspelt.
func flagError(c *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	if !errors.As(err, &missing) {
		return err
	}
	name := missing.GetSpecifiedName()
	if len(name) == 1 {
		return fmt.Errorf("unknown flag -%s; see \"%s --help\"", name, c.CommandPath())
	}
	var names []string
	add := func(f *pflag.Flag) { names = append(names, "--"+f.Name) }
	c.Flags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	if s := didYouMean("--"+name, names); s != "" {
		return fmt.Errorf("unknown flag --%s%s", name, s)
	}
	return fmt.Errorf("unknown flag --%s; see \"%s --help\"", name, c.CommandPath())
}
