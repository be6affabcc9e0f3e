// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
	"github.com/hostcheck/hostcheck/internal/slurm"
)

// slurmFlags are those of "hostcheck slurm health", "prolog" and "epilog".
type slurmFlags struct {
	verdict  string
	node     string
	drainOn  string
	scontrol string
	settle   time.Duration
	dryRun   bool
	maxAge   time.Duration
	unjudged string
	fresh    bool
}

// Slurm kills a health check after 60 s: the checks and two calls of scontrol
// must fit in.
const (
	slurmTime    = 20 * time.Second
	slurmMaxTime = 30 * time.Second
)

func (a *app) slurmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "slurm COMMAND",
		Short: "for Slurm to run: drain this node, let a job start",
		Long:  "What Slurm runs on each node, see docs/slurm.md: health as its HealthCheckProgram, prolog and epilog around jobs.",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck slurm needs one of health, prolog, epilog")
			}
			return unknown("slurm command", args[0], commandNames(c))
		},
	}
	c.AddCommand(a.slurmHealthCommand(), a.slurmGateCommand("prolog"), a.slurmGateCommand("epilog"))
	return c
}

func (a *app) slurmHealthCommand() *cobra.Command {
	var o slurmFlags
	c := &cobra.Command{
		Use:   "health",
		Short: "judge this host; drain its node where it is not fit, resume it where that was ours",
		Long: `Judges this host, keeps the verdict for "hostcheck slurm prolog" and tells Slurm, by scontrol, what follows:

A host with a failure of the severity of --drain-on or above is not fit: its node is drained, with a reason that starts with "hostcheck: ".
Warnings, what is waived and what waits for a reboot never drain. A host that is fit again is resumed, where the drain is ours (reason and
owner) and every check that it names could be judged and holds. A drain of somebody else stays as it is, and so does a node that is down,
failed, rebooting, powered down or not responding. A host that cannot be judged is neither drained nor resumed.

Slurm runs this once before slurmd registers. scontrol may hang then, so it is not asked while slurmd is younger than --settle; the verdict is
kept, and the next run tells it. A host that was fit and is fit costs the controller nothing. The checks have --timeout, here 20s if not
given and 30s at most, and each call of scontrol 10s: Slurm kills what takes a minute.

Exit codes: 0 Slurm knows what follows, or slurmd has just started; 1 Slurm could not be told; 2 usage error; 3 the host could not be judged.`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("timeout") {
				a.flags.timeout = slurmTime
			}
			return a.slurmHealth(o)
		},
	}
	s := c.Flags()
	s.SortFlags = false
	s.BoolVar(&o.dryRun, "dry-run", false, "ask Slurm and say what would follow; tell it nothing, keep no verdict")
	s.StringVar(&o.drainOn, "drain-on", "high", "failures of this `SEVERITY` or above drain: high (if not given), medium or low")
	s.StringVar(&o.node, "node", "", "`NAME` of this node in slurm.conf, if not $SLURMD_NODENAME or the host's name")
	s.StringVar(&o.scontrol, "scontrol", "", "`FILE` of scontrol, if it is not beside slurmd or in a usual place")
	s.DurationVar(&o.settle, "settle", time.Minute, "ask nothing of Slurm for this `TIME` after the start of the slurmd that runs this, 1m if not given")
	s.StringVar(&o.verdict, "verdict", slurm.Path, "keep the verdict in `FILE`, "+slurm.Path+" if not given")
	a.completeSlurm(c)
	return c
}

func (a *app) slurmGateCommand(name string) *cobra.Command {
	var o slurmFlags
	c := &cobra.Command{Use: name, Args: none}
	s := c.Flags()
	s.SortFlags = false
	s.DurationVar(&o.maxAge, "max-age", 30*time.Minute, "a verdict that the host is fit counts for this `TIME`, 30m if not given")
	s.StringVar(&o.unjudged, "unjudged", "allow", "`WHAT` to do where no verdict counts: allow (if not given) or refuse")
	s.StringVar(&o.verdict, "verdict", slurm.Path, "`FILE` of the verdict, "+slurm.Path+" if not given")
	s.StringVar(&o.node, "node", "", "`NAME` of this node in slurm.conf, if not $SLURMD_NODENAME or the host's name")
	o.drainOn = "high"
	const gate = `A host that is fit, by a verdict that is not older than --max-age, gives 0. One that is not fit gives 1, however old that verdict of this
boot is: Slurm then drains the node`
	const unjudged = `Where there is no such verdict, or the host could not be judged, --unjudged decides: allow says so and gives 0, because a file that is
missing on all nodes must not drain a cluster by itself; refuse gives 1.`
	if name == "prolog" {
		c.Short = "let a job start only where the last verdict says that the host is fit"
		c.Long = "Reads the verdict that \"hostcheck slurm health\" kept and judges nothing, so that no job waits.\n\n" +
			gate + ", with the reason \"Prolog error\", and queues the job again, held.\n\n" + unjudged
	} else {
		c.Short = "drain the node after a job that left the host unfit"
		c.Long = "Reads the verdict that \"hostcheck slurm health\" kept, or with --fresh judges the host anew.\n\n" +
			gate + ", with the reason \"Epilog error\".\n\n" + unjudged
		s.BoolVar(&o.fresh, "fresh", false, "judge the host now, within --timeout (20s if not given); that verdict is not kept")
		s.StringVar(&o.drainOn, "drain-on", "high", "with --fresh, failures of this `SEVERITY` or above count: high (if not given), medium or low")
	}
	c.Long += "\n\nExit codes: 0 go on; 1 the host is not fit, or --unjudged refuse; 2 usage error."
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("timeout") {
			a.flags.timeout = slurmTime
		}
		return a.slurmGate(name, o)
	}
	a.completeSlurm(c)
	return c
}

func (a *app) completeSlurm(c *cobra.Command) {
	for flag, words := range map[string][]string{"drain-on": {"high", "medium", "low"}, "unjudged": {"allow", "refuse"}} {
		if c.Flags().Lookup(flag) == nil {
			continue
		}
		if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // a flag that is not there: a mistake here
		}
	}
}

// judgeSlurm refuses what no run could use, and names the node.
func (a *app) judgeSlurm(o *slurmFlags) error {
	if !slices.Contains(slurm.Severities, check.Severity(o.drainOn)) {
		return unknown("value of --drain-on", o.drainOn, []string{"high", "medium", "low"})
	}
	if o.unjudged != "" && !slices.Contains([]string{"allow", "refuse"}, o.unjudged) {
		return unknown("value of --unjudged", o.unjudged, []string{"allow", "refuse"})
	}
	switch {
	case a.flags.timeout > slurmMaxTime:
		return fmt.Errorf("--timeout must be %v at most here, not %v: Slurm kills what takes a minute, and scontrol needs its part of it", slurmMaxTime, a.flags.timeout)
	case o.settle < 0:
		return fmt.Errorf("--settle must not be less than 0, not %v", o.settle)
	case o.maxAge < 0:
		return fmt.Errorf("--max-age must not be less than 0, not %v", o.maxAge)
	case o.verdict == "":
		return errors.New("--verdict needs a file")
	}
	if o.node == "" {
		o.node = a.getenv("SLURMD_NODENAME")
	}
	if o.node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("cannot tell the name of this host: %w; --node says that of its node", err)
		}
		o.node, _, _ = strings.Cut(name, ".")
	}
	return slurm.CheckName(o.node)
}

// slurmVerdict judges the host. That it could not be judged is a verdict too;
// an error is one of usage.
func (a *app) slurmVerdict(o slurmFlags) (*slurm.Verdict, error) {
	selected, err := a.selectChecks(nil, nil)
	if err != nil {
		return nil, err
	}
	ctx, stop := a.inTime(context.Background())
	defer stop()
	drainOn := check.Severity(o.drainOn)
	var v slurm.Verdict
	s, err := a.open(ctx)
	if err != nil {
		v = slurm.NotJudged(drainOn, err)
	} else {
		defer s.host.Close()
		a.judge(ctx, s, selected)
		v = slurm.Judge(s.results, drainOn, func(id string) bool {
			return slices.ContainsFunc(s.profile.Require, func(g string) bool { return matches(g, id) })
		})
		v.Profile = s.profile.Hash
		if ctx.Err() != nil && v.Outcome == slurm.Fit { // what is missing may be what fails
			v.Outcome = slurm.Unknown
		}
		if ctx.Err() != nil && v.Outcome == slurm.Unknown {
			v.Why = context.Cause(ctx).Error()
		}
	}
	v.Version, v.Node = tool().Version, o.node
	return &v, v.Stamp(time.Now())
}

// slurmHealth is one run of Slurm's HealthCheckProgram.
func (a *app) slurmHealth(o slurmFlags) error {
	if err := a.judgeSlurm(&o); err != nil {
		return err
	}
	v, err := a.slurmVerdict(o)
	if err != nil {
		return err
	}
	before, _ := slurm.Read(o.verdict) // a missing or broken one only means that Slurm is asked
	h := slurm.Health{Schema: slurm.HealthSchema, Verdict: v, DryRun: o.dryRun}
	stays := v.Outcome == slurm.Unknown && before.Shuts(o.node)
	if !o.dryRun && !stays {
		// first, so that a prolog has it whatever becomes of us
		if err := keepVerdict(o.verdict, v); err != nil {
			h.Error = err.Error()
		}
	}
	parent := slurm.Parent()
	starting := parent != nil && parent.Age < o.settle
	switch {
	case starting:
		h.Step = slurm.Step{Action: slurm.Nothing, Why: fmt.Sprintf("not asked: slurmd was started %s ago and may not have registered; the next run tells it", slurm.Age(parent.Age))}
	case stays:
		h.Step = slurm.Step{Action: slurm.Nothing, Why: "not asked: what cannot be judged is neither drained nor resumed; it was not fit before, and prologs go by that"}
	case v.Outcome == slurm.Unknown:
		h.Step = slurm.Step{Action: slurm.Nothing, Why: "not asked: what cannot be judged is neither drained nor resumed"}
	case !o.dryRun && v.Same(before):
		v.Told = true
		h.Step = slurm.Step{Action: slurm.Nothing, Why: "not asked: it knows"}
	default:
		a.tellSlurm(&h, o, parent)
	}
	if v.Told && !o.dryRun {
		if err := keepVerdict(o.verdict, v); err != nil && h.Error == "" {
			h.Error = err.Error()
		}
	}
	return a.showHealth(&h, o, starting)
}

// tellSlurm asks for the node and makes what follows from the verdict.
func (a *app) tellSlurm(h *slurm.Health, o slurmFlags, parent *slurm.Slurmd) {
	fail := func(err error) { h.Error = err.Error() }
	program, err := slurm.Find(o.scontrol, parent)
	if err != nil {
		fail(err)
		return
	}
	s := slurm.Scontrol{Program: program, Conf: a.getenv("SLURM_CONF"), Limit: slurm.CallTime}
	ctx := context.Background()
	if h.Node, err = s.Show(ctx, o.node); err != nil {
		fail(err)
		return
	}
	h.Step = slurm.Decide(h.Verdict, h.Node, slurm.Me())
	if o.dryRun || h.Step.Action == slurm.Nothing {
		h.Verdict.Told = h.Verdict.Outcome == slurm.Fit && h.Node.Known && !h.Node.Drained()
		return
	}
	if err = s.Tell(ctx, o.node, h.Step); err != nil {
		fail(err)
		return
	}
	h.Done, h.Verdict.Told = true, true
}

// keepVerdict replaces the file of the verdict, for root alone.
func keepVerdict(name string, v *slurm.Verdict) error {
	b, err := report.JSON(v)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = slurm.Usable(name)
	}
	if err == nil {
		err = writeFile(name, b)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the verdict in %s: %w", name, cause(err))
	}
	return nil
}

// showHealth writes what was found and done, and gives the exit code.
func (a *app) showHealth(h *slurm.Health, o slurmFlags, starting bool) error {
	var err error
	if a.json() {
		err = a.writeJSON(h)
	} else {
		err = a.writeText(report.Clean(fmt.Sprintf("%s: %s", o.node, h.Verdict.Line())) + "\n" + report.Clean(h.Told()) + "\n")
	}
	if err != nil {
		return err
	}
	switch {
	case starting:
		// a version of Slurm that runs this until it gives 0 would never let slurmd register
		return nil
	case h.Error != "":
		a.say("%s", h.Error)
		return exit(report.ExitFindings)
	case h.Verdict.Outcome == slurm.Unknown:
		return exit(report.ExitIncomplete)
	}
	return nil
}

// slurmGate is one run of a prolog or epilog.
func (a *app) slurmGate(name string, o slurmFlags) error {
	if err := a.judgeSlurm(&o); err != nil {
		return err
	}
	var v *slurm.Verdict
	var err error
	if o.fresh {
		if v, err = a.slurmVerdict(o); err != nil {
			return err
		}
	} else if v, err = slurm.Read(o.verdict); err != nil {
		err = fmt.Errorf("there is no verdict that counts in %s: %w", o.verdict, cause(err))
	} else if v.Node != o.node {
		v, err = nil, fmt.Errorf("the verdict in %s is of the node %s", o.verdict, v.Node)
	}
	var g slurm.Gate
	g.Decide(v, err, o.maxAge, o.unjudged == "allow")
	if a.json() {
		err = a.writeJSON(g)
	} else {
		words := map[string][2]string{"prolog": {"the job must not start", "the job may start"}, "epilog": {"the node must not go on", "the node goes on"}}[name]
		word := words[0]
		if g.Open {
			word = words[1]
		}
		err = a.writeText(report.Clean(fmt.Sprintf("%s: %s: %s", o.node, word, g.Why)) + "\n")
	}
	if err != nil { // what Slurm goes by is the exit code
		a.say("%v", err)
	}
	if !g.Open {
		return exit(report.ExitFindings)
	}
	return nil
}
