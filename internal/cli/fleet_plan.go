// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fleetPlanFlags are those of "hostcheck fleet plan".
type fleetPlanFlags struct {
	maxHosts    int
	maxFraction string
	spread      string
	labels      string
	allow       []string
	done        []string
	planHash    hashFlag
}

func (a *app) fleetPlan() *cobra.Command {
	var own fleetPlanFlags
	c := &cobra.Command{
		Use:   "plan FILE|DIR|- ...",
		Short: "which hosts to fix in which order, a few at a time; runs nothing",
		Long: strings.TrimSpace(fleetInput) + `

Says which hosts need which fix, and divides them into batches: first one host of each kind, then batches that double, none with more hosts
than both caps allow. Run the command of a batch on its hosts with the engine that you have, collect their reports, and give them with --done:
the next batch is given only when every host of those before it has reported since the plan and is fit, or will be after its next boot. One
that is not fit, or is silent, holds everything. Nothing is remembered: the same reports and caps give the same plan.

Hosts that could not be judged, that nothing can be done for, and those whose findings are waived are left out and named. With --only and
--skip a plan is about some checks only; --profile, --intent and --set become part of the commands.

Exit 1 where a batch is to be run, 4 where a host is not fit after its batch, 3 where one has not reported or could not be judged,
10 where all is done and one is pending a reboot, else 0.`,
		Args: someFiles,
		RunE: func(_ *cobra.Command, args []string) error { return a.planFleet(args, own) },
	}
	s := c.Flags()
	s.SortFlags = false
	s.IntVar(&own.maxHosts, "max-hosts", 0, "never more than `N` hosts at once")
	s.StringVar(&own.maxFraction, "max-fraction", "", "never more than the part `P` of all hosts at once, such as 0.05 or 5%; rounded down")
	s.StringVar(&own.spread, "spread", "", "nor more than that part of the hosts that have the same value of `LABEL`, such as rack, and at least one; see --labels")
	s.StringVar(&own.labels, "labels", "", "labels of hosts, from the lines \"HOST KEY=VALUE ...\" of `FILE`; HOST may be a list such as node[01-16]")
	s.StringSliceVar(&own.allow, "allow", nil, "also changes of this `TIER`: link (may flap a port) or boot (next boot); separated by commas")
	s.StringArrayVar(&own.done, "done", nil, "`FILE` or directory of the reports that came back from the batches that were run; repeatable")
	s.Var(&own.planHash, "plan-hash", "only if the plan is still the one with this `HASH`")
	return c
}

// options reads what the flags say.
func (a *app) planFleetOptions(own fleetPlanFlags) (o fleet.PlanOptions, err error) {
	fix := fixFlags{allow: own.allow, planHash: own.planHash}
	if err := fix.usable(); err != nil {
		return o, err
	}
	switch {
	case own.maxHosts == 0 && own.maxFraction == "":
		return o, errors.New("hostcheck fleet plan needs --max-hosts and --max-fraction: how many hosts may be worked on at once")
	case own.maxHosts == 0:
		return o, errors.New("hostcheck fleet plan needs --max-hosts too: of a large fleet a fraction alone is many hosts")
	case own.maxFraction == "":
		return o, errors.New("hostcheck fleet plan needs --max-fraction too: of a small fleet a number alone may be all hosts")
	case own.maxHosts < 0:
		return o, fmt.Errorf("--max-hosts %d: it must be at least 1", own.maxHosts)
	case own.spread != "" && own.labels == "":
		return o, fmt.Errorf("--spread %.40s needs --labels: a file that says which host has which %.40s", own.spread, own.spread)
	case own.spread == "" && own.labels != "":
		return o, errors.New("--labels goes with --spread")
	}
	selected, err := a.selectChecks(nil, nil)
	if err != nil {
		return o, err
	}
	o = fleet.PlanOptions{
		Tool: fleet.Tool(tool()), MaxHosts: own.maxHosts, Spread: own.spread, FailOn: check.Status(a.flags.failOn), Judged: a.judgedBy(),
		Now: time.Now(),
	}
	for _, t := range plan.Tiers { // in their order, each once
		if slices.Contains(own.allow, string(t)) {
			o.Allow = append(o.Allow, t)
		}
	}
	if len(a.flags.only)+len(a.flags.skip) > 0 { // else those of another version of hostcheck too
		ids := map[string]bool{}
		for _, c := range selected {
			ids[c.ID] = true
		}
		o.Selected = func(id string) bool { return ids[id] }
	}
	if o.MaxFraction, err = fleet.ParseFraction(own.maxFraction); err != nil {
		return o, fmt.Errorf("--max-fraction: %w", err)
	}
	if own.labels != "" {
		o.Labels, err = readHosts("labels", own.labels, fleet.ReadLabels)
	}
	return o, err
}

func (a *app) planFleet(args []string, own fleetPlanFlags) error {
	o, err := a.planFleetOptions(own)
	if err != nil {
		return err
	}
	if len(own.done) > 0 {
		if err := someFiles(nil, append(slices.Clone(args), own.done...)); err != nil {
			return err
		}
	}
	collectOften()
	p := fleet.NewPlanner(o)
	if err := a.readReports(args, p, p.Read); err != nil {
		return err
	}
	if err := a.readReports(slices.DeleteFunc(slices.Clone(own.done), emptyDir), p, p.Done); err != nil {
		return err
	}
	out, err := p.Plan()
	if err != nil {
		return fmt.Errorf("cannot plan: %w", err)
	}
	if !own.planHash.allows(out.Hash) {
		return fmt.Errorf("the plan is another one than %.12s...: other reports, caps or version; it is now %s", own.planHash.hash, out.Hash)
	}
	if a.json() {
		err = a.writeJSON(out)
	} else {
		err = a.writeText(a.text().FleetPlan(out))
	}
	if err == nil && out.Summary.Exit != report.ExitOK {
		err = exit(out.Summary.Exit)
	}
	return err
}

// emptyDir reports whether that is a directory to which nothing has come yet.
func emptyDir(name string) bool {
	if st, err := os.Stat(name); err != nil || !st.IsDir() {
		return false
	}
	list, err := os.ReadDir(name)
	return err == nil && !slices.ContainsFunc(list, func(d os.DirEntry) bool { return !strings.HasPrefix(d.Name(), ".") })
}

// readReports gives every file that the arguments mean to read.
func (a *app) readReports(args []string, p *fleet.Planner, read func(string, io.Reader)) error {
	files, err := reportFiles(args, p)
	if err != nil {
		return err
	}
	for _, file := range files {
		name := file.name
		f, err := a.openReports(file)
		if err != nil {
			p.Lost(name, "it cannot be read: "+cause(err).Error())
			continue
		}
		read(name, f)
		_ = f.Close()
	}
	return nil
}
