// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) bundleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bundle",
		Short: "one file that replays to the same verdict elsewhere: create, inspect, diff",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do with bundles: hostcheck bundle create, inspect or diff")
		},
	}
	c.AddCommand(a.bundleCreate(), a.bundleInspect(), a.bundleDiff())
	return c
}

func (a *app) bundleCreate() *cobra.Command {
	var redaction, mapping string
	c := &cobra.Command{
		Use:   "create",
		Short: "write what hostcheck sees of this host into one file (tar.gz)",
		Long: `Writes a bundle: every file, link and answer of the kernel that any check looks at, with the report and the plan of this
moment. "hostcheck --from FILE" then gives the same verdict anywhere, and "hostcheck plan --from FILE" the same plan.

It works as an ordinary user; what only root may read is then unknown in the bundle too. Nothing on the host is changed.
With --redact standard, addresses, names of hosts and users, serial numbers, identifiers and secrets are replaced by
pseudonyms before anything is written; strict also takes what might be one. Look at a bundle before you pass it on: any tool
opens it.`,
		Args: none,
		RunE: func(*cobra.Command, []string) error { return a.createBundle(redaction, mapping) },
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&redaction, "redact", string(bundle.Standard), "`HOW` much to replace by pseudonyms: none, standard (as if not given) or strict")
	c.Flags().StringVar(&mapping, "redact-map", "", "also write what stands for what to `FILE`, which only its owner may read; never pass it on")
	return c
}

func (a *app) createBundle(redaction, mapping string) error {
	level := bundle.Redaction(redaction)
	switch {
	case !slices.Contains(bundle.Redactions, level):
		return unknown("value of --redact", redaction, []string{"none", "standard", "strict"})
	case mapping != "" && level == bundle.None:
		return errors.New("--redact-map goes with --redact standard or strict")
	case a.flags.output == "-" && term.IsTerminal(int(a.stdout.Fd())):
		return errors.New("a bundle is no text for a terminal; give a file with -o, or pass the output on")
	}
	ctx, stop := context.WithTimeoutCause(context.Background(), a.flags.timeout, fmt.Errorf("the bundle was not done within %v", a.flags.timeout))
	defer stop()
	h, err := a.openHost()
	if err != nil {
		return err
	}
	defer h.Close()
	s, err := a.capture(ctx, h)
	if err != nil {
		return err
	}
	m := bundle.Manifest{
		Tool: bundle.Tool(tool()), Time: s.Time, UID: os.Geteuid(), Source: h.Source(), Redaction: string(level), Program: a.program(),
	}
	if b := a.bundle; b != nil && b.Manifest != nil { // of a bundle: what it says of itself stays true
		m.UID, m.Source, m.Program, m.Pseudonyms = b.Manifest.UID, b.Manifest.Source, b.Manifest.Program, b.Manifest.Pseudonyms
		if level == bundle.None {
			m.Redaction = b.Manifest.Redaction
		}
	}
	var named []bundle.Pseudonym
	if level != bundle.None {
		if s, named, err = bundle.Redact(s, level); err != nil {
			return fmt.Errorf("cannot redact: %w", err)
		}
		if !strings.HasPrefix(m.Program, "/usr/") && !strings.HasPrefix(m.Program, "/opt/") {
			m.Program = "" // may lie in somebody's home
		}
		for _, n := range named {
			m.Pseudonyms = append(m.Pseudonyms, n.Stands)
		}
		slices.Sort(m.Pseudonyms)
		m.Pseudonyms = slices.Compact(m.Pseudonyms)
	}
	b := &bundle.Bundle{Kind: bundle.Kind, Host: s, Manifest: &m}
	if err := a.judgeBundle(ctx, b); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := bundle.Write(&out, b); err != nil {
		return fmt.Errorf("cannot write the bundle: %w", err)
	}
	if mapping != "" {
		if err := a.writeMapping(mapping, named); err != nil {
			return err
		}
	}
	if a.flags.output == "" {
		a.flags.output = bundleName(m)
	}
	if err := a.write(out.Bytes()); err != nil || !a.toFile() {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", report.Clean(a.flags.output))
	if !a.flags.quiet {
		a.say("%s; %d KiB, redaction %s\nreplay: hostcheck --from %s", s, (out.Len()+1023)>>10, m.Redaction, a.flags.output)
	}
	return err
}

// bundleName is a file in the working directory.
func bundleName(m bundle.Manifest) string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, m.Host), ".-")
	if name == "" {
		name = "host"
	}
	at := m.Time
	if at.IsZero() {
		at = time.Now()
	}
	return "hostcheck-" + name + "-" + at.UTC().Format("20060102T150405Z") + ".tar.gz"
}

func (a *app) writeMapping(name string, named []bundle.Pseudonym) error {
	b, err := report.JSON(named)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("cannot write %s: it is there; what stands for what is written to a new file only", name)
	}
	if err := writeFile(name, b); err != nil { // a new one is 0600
		return fmt.Errorf("cannot write %s: %w", name, cause(err))
	}
	return nil
}

// capture asks a host all that any check, any profile or any plan would, and
// gives what came back.
func (a *app) capture(ctx context.Context, h *host.Host) (*host.Snapshot, error) {
	f := facts.New(h)
	p := a.progress()
	defer p.end()
	done := make(chan error, 1)
	go func() {
		err := a.askAll(ctx, h, f, p)
		select {
		case done <- err:
		default:
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return h.Snapshot()
}

func (a *app) askAll(ctx context.Context, h *host.Host, f *facts.Facts, p *progress) error {
	p.note("reading the host")
	own, err := a.loadProfile(f)
	if err != nil {
		return err
	}
	if _, err := a.knownWaivers(h); err != nil {
		return err
	}
	describe(h, f)
	run := func(q *profile.Profile) error {
		r := check.Runner{PerCheck: a.flags.checkTimeout, Progress: p.show}
		results := r.Run(ctx, a.allChecks(), check.Run{Facts: f, Profile: q, Note: p.note})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, err := a.planned(ctx, h, q, results)
		return err
	}
	if err := run(own); err != nil {
		return err
	}
	for _, area := range facts.Areas {
		p.note("facts: " + area.Name)
		decode(f, area)
	}
	askSysctls(h)
	platform, err := detect(f)
	if err != nil {
		return err
	}
	for _, l := range profile.List() { // what another role or intent would look at
		for _, intent := range profile.Intents {
			if l.Layer != "role" && l.Layer != "device" {
				continue
			}
			q, _, err := profile.Load(profile.LoadOptions{Platform: platform, Names: []string{l.Name}, Intent: intent, ReadSite: h.Read, ReadFile: readProfile})
			if err != nil {
				continue // it is not for this host
			}
			p.note("profile " + l.Name + ", " + intent)
			if err := run(q); err != nil && ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

// sysctlDirs hold parameters that a profile may name; what is below them is
// not looked at.
var sysctlDirs = []string{"kernel", "vm", "net/core", "net/ipv4", "net/ipv4/conf/all", "net/ipv4/conf/default", "net/ipv6/conf/all", "net/ipv6/conf/default"}

// sysctlSkipped do something when they are read, or hold what no check needs.
var sysctlSkipped = []string{"stat_refresh", "ns_last_pid", "domainname"}

func askSysctls(h *host.Host) {
	var ops []host.Op
	for _, d := range sysctlDirs {
		dir := path.Join("/proc/sys", d)
		names, _ := h.List(dir)
		for _, n := range names {
			if !slices.Contains(sysctlSkipped, n) && !strings.Contains(n, "secret") && !strings.Contains(n, "key") {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(dir, n)})
			}
		}
	}
	h.Prefetch(ops)
}

// planned is the plan for what checks found, with all tiers: what fewer need is
// among it.
func (a *app) planned(ctx context.Context, h *host.Host, q *profile.Profile, results []check.Result) (plan.Plan, error) {
	e := a.engine(false)
	p, err := e.Plan(ctx, h, q.Hash, wishes(results))
	if err != nil {
		return p, err
	}
	readGuards(h)
	if h.Running() {
		r := &fixing{app: a, engine: e, before: &sample{host: h, profile: q, results: results}, selected: a.allChecks(), view: report.PlanView{Plan: p}}
		safe, _ := hold(p, []plan.Tier{plan.Safe})
		for _, v := range []plan.Plan{safe, p} {
			if _, err := fixes.Complete(ctx, e, h, v, r.judging); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// judgeBundle puts the report and the plan of a bundle into it, made from what
// it holds: what is in the file is what a replay gives.
func (a *app) judgeBundle(ctx context.Context, b *bundle.Bundle) error {
	of := &app{env: a.env, stdin: a.stdin, stdout: a.stdout, stderr: a.stderr, flags: a.flags, checks: a.checks, verbs: a.verbs, self: a.self}
	of.bundle, of.flags.from, of.flags.quiet = b, "-", true // warnings have been given
	of.flags.root = "/"
	s, err := of.open(ctx)
	if err != nil {
		return err
	}
	of.judge(ctx, s, of.allChecks())
	rep := of.report(s)
	if rep.Host.Name != nil {
		b.Manifest.Host = *rep.Host.Name
	}
	if rep.Host.Arch != nil {
		b.Manifest.Arch = *rep.Host.Arch
	}
	if b.Report, err = report.JSON(rep); err != nil {
		return err
	}
	r := &fixing{app: of, fixFlags: fixFlags{dryRun: true}, engine: of.engine(false), selected: of.allChecks(), before: s}
	if err := r.plan(nil); err != nil {
		return fmt.Errorf("cannot make the plan of the bundle: %w", err)
	}
	b.Plan, err = report.JSON(r.view.Document())
	return err
}
