// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/ansible"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// isTask reports whether a task of Ansible is to be done: neither flags nor the
// environment count then.
func (a *app) isTask() bool {
	return len(a.args) == 3 && a.args[0] == "ansible" && a.args[1] == "module" && !strings.HasPrefix(a.args[2], "-")
}

func (a *app) ansibleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ansible COMMAND",
		Short: "what Ansible runs: a module, and a local fact",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("hostcheck ansible needs one of module, fact")
			}
			return unknown("command of ansible", args[0], commandNames(c))
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "module ARGSFILE",
		Short: "one run as a module of Ansible: options as JSON in a file, one JSON object as the result",
		Long: "Does what a task of a playbook asks for. ARGSFILE holds the options of the task and what Ansible adds, as one JSON object; the result is one JSON object on stdout, and nothing else is written there or on stderr. " +
			"A file that cannot be read or understood is a failed task with a message. Exit 1 where the task failed, else 0.\n\n" +
			"Options: " + strings.Join(ansible.Options(), ", ") + "; docs/ansible.md says what they do.\n\n" +
			"Ansible starts a binary that stands in a directory \"library\" as AnsiballZ_NAME ARGSFILE: hostcheck, called so, is this command. Neither other flags nor HOSTCHECK_* count.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes the file with the arguments of a task", c.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if !a.isTask() {
				return errors.New("hostcheck ansible module takes all its options from the file")
			}
			return a.module(args[0])
		},
	}, a.factCommand())
	return c
}

// maxTask bounds the arguments of a task; they may hold a profile.
const maxTask = 2 << 20

// module is one task of a playbook. Whatever happens, its result is one JSON
// object on stdout; with ssh's -tt Ansible gets stderr in between, so there is
// none.
func (a *app) module(file string) error {
	var warnings []string
	a.heard = func(s string) { warnings = append(warnings, s) }
	res, err := a.task(file)
	if err != nil {
		res = report.AnsibleFailed(codeOf(err), err.Error())
	}
	res.Warnings = append(warnings, res.Warnings...)
	b, err := report.JSONLine(res)
	if err == nil {
		err = a.write(b)
	}
	a.heard = nil
	switch {
	case err != nil && res.Undo != "": // the host is changed, and nobody was told
		return &failure{report.ExitIncomplete, fmt.Errorf("%w; transaction %s is in force; take it back: %s", err, res.Txn, res.Undo)}
	case err != nil:
		return err
	case res.Failed:
		return exit(1)
	}
	return nil
}

// task reads what is wanted and does it.
func (a *app) task(file string) (*report.Ansible, error) {
	b, err := readGiven(file, maxTask)
	if err != nil {
		return nil, fmt.Errorf("cannot read the arguments of the task in %s: %w", file, err)
	}
	t, err := ansible.Parse(b)
	if err != nil {
		return nil, err
	}
	a.take(t)
	switch t.State {
	case ansible.Fixed:
		return a.fixTask(t)
	case ansible.Confirmed:
		return a.confirmTask(t)
	case ansible.Undone:
		return a.undoTask(t)
	case ansible.Checked:
	}
	return a.checkTask()
}

// take puts the options of a task in the place of all flags.
func (a *app) take(t ansible.Args) {
	f := flags{}
	f.add(pflag.NewFlagSet("", pflag.ContinueOnError)) // for what holds where nothing is given
	f.only, f.skip, f.set, f.intent, f.quiet = t.Only, t.Skip, t.Set, t.Intent, true
	if t.Root != "" {
		f.root = t.Root
	}
	if t.FailOn != "" {
		f.failOn = t.FailOn
	}
	if t.Timeout > 0 {
		f.timeout = t.Timeout
	}
	a.layers = map[string][]byte{}
	for i, l := range t.Profile {
		name := l.Name
		if l.Text != nil {
			name = fmt.Sprintf("task.profile[%d]", i)
			a.layers[name] = l.Text
		}
		f.profile = append(f.profile, name)
	}
	a.flags = f
}

func (a *app) checkTask() (*report.Ansible, error) {
	rep, err := a.judgedReport()
	if err != nil {
		return nil, err
	}
	return report.AnsibleChecked(rep), nil
}

// judgedReport judges the host within the time for the whole run.
func (a *app) judgedReport() (*report.Report, error) {
	selected, err := a.selectChecks(nil, nil)
	if err != nil {
		return nil, err
	}
	ctx, stop := a.inTime(context.Background())
	defer stop()
	s, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.host.Close()
	a.judge(ctx, s, selected)
	return a.report(s), nil
}

// fixTask is "hostcheck --fix --yes"; in check mode, "hostcheck plan".
func (a *app) fixTask(t ansible.Args) (*report.Ansible, error) {
	f := fixFlags{fix: true, yes: !t.Check, dryRun: t.Check, allow: t.Allow, allowMgmt: t.AllowMgmt, confirm: t.Confirm, planHash: hashFlag{t.PlanHash, t.PlanHash != ""}}
	r, err := a.prepare(nil, nil, nil, f)
	if err != nil {
		return nil, err
	}
	defer r.before.host.Close()
	changes := r.view.Plan.Changes
	var res *report.Ansible
	switch {
	case t.Check:
		res = report.AnsiblePlanned(r.view, r.expected())
	case len(changes) == 0:
		judged := r.view.Judged
		res = report.AnsibleFixed(r.view, r.document(plan.Result{Outcome: report.OutcomeNothing}, judged.Summary.Exit), judged)
	case a.powerless():
		return nil, errors.New("changing this host needs root; nothing was changed: run the task with become: true")
	default:
		doc, err := r.carryOut()
		if err != nil {
			return nil, err
		}
		res = report.AnsibleFixed(r.view, doc, r.stands(doc.Result.Outcome))
	}
	if t.Diff && res.Changed {
		res.Show(changes)
	}
	return res, nil
}

// stands is the report of the host as it is after the changes, nil where that is
// not known.
func (r *fixing) stands(o plan.Outcome) *report.Report {
	switch o {
	case plan.Applied:
		return r.after
	case plan.Restored, plan.Interrupted:
		return r.view.Judged
	case plan.Incomplete, plan.Undone, plan.Returned:
	}
	return nil
}

// expected is the report of the host as it should stand after the plan: a
// finding whose changes are all in it passes, or counts from the next boot on.
func (r *fixing) expected() *report.Report {
	after := *r.before
	after.results = slices.Clone(after.results)
	for i := range after.results {
		fs := slices.Clone(after.results[i].Findings)
		for j := range fs {
			if f := &fs[j]; badness(f) > 0 && r.cures(f) {
				if f.Pending = r.atBoot(f); !f.Pending {
					f.Status = check.Pass
				}
			}
		}
		after.results[i].Findings = fs
	}
	return r.report(&after)
}

// cures reports whether the plan has all that a finding wishes.
func (r *fixing) cures(f *check.Finding) bool {
	return len(r.view.Plan.Changes) > 0 && len(f.Fix) > 0 &&
		!slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return blocked(w, r.view) })
}

// atBoot reports whether what a finding wishes comes with the next boot.
func (r *fixing) atBoot(f *check.Finding) bool {
	return slices.ContainsFunc(f.Fix, func(w plan.Wish) bool { return w.Tier == plan.Boot }) ||
		slices.ContainsFunc(r.view.Plan.Changes, func(c plan.Change) bool { return c.Tier == plan.Boot && names(c.Why, f.Check) })
}

// transaction gives the one that a task names.
func (a *app) transaction(id string) (*plan.Txn, error) {
	txns, err := a.engine(false).History()
	if err != nil {
		return nil, a.rooted(err)
	}
	i := slices.IndexFunc(txns, func(t *plan.Txn) bool { return t.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("there is no transaction %.60q; \"hostcheck history\" lists them", id)
	}
	return txns[i], nil
}

// idleTask is the result of a task that finds nothing to do.
func idleTask(txn, why string) *report.Ansible {
	res := report.AnsibleFailed(report.ExitOK, why)
	res.Txn = txn
	return res
}

// confirmTask keeps a transaction. Without one there is nothing to keep: so the
// txn of an earlier task may be handed on, whether that changed something or not.
func (a *app) confirmTask(t ansible.Args) (*report.Ansible, error) {
	if t.Txn == "" {
		return idleTask("", "no transaction is named: nothing to confirm"), nil
	}
	x, err := a.transaction(t.Txn)
	switch {
	case err != nil:
		return nil, err
	case x.State == plan.InForce && a.trialOf(x) == nil:
		return idleTask(x.ID, x.ID+" lasts already"), nil
	case x.State != plan.InForce && x.State != plan.Unconfirmed:
		return nil, fmt.Errorf("cannot confirm %s: it is %s", x.ID, x.State)
	case t.Check:
		res := idleTask(x.ID, x.ID+" would be confirmed")
		res.Changed = true
		return res, nil
	}
	r, err := a.confirmed(x.ID)
	if err != nil {
		return nil, err
	}
	res := report.AnsibleBack(report.NewResult(r, a.again()), r.Exit())
	res.Changed = res.Changed || r.Outcome == plan.Applied
	return res, nil
}

// trialOf is the kernel command line that is tried with a transaction, nil where
// none is.
func (a *app) trialOf(x *plan.Txn) *report.Trial {
	if t := a.trial([]*plan.Txn{x}); t != nil && t.Txn == x.ID {
		return t
	}
	return nil
}

// undoTask takes a transaction back; without one there is nothing to take back.
func (a *app) undoTask(t ansible.Args) (*report.Ansible, error) {
	if t.Txn == "" {
		return idleTask("", "no transaction is named: nothing to take back"), nil
	}
	x, err := a.transaction(t.Txn)
	if err != nil {
		return nil, err
	}
	switch x.State {
	case plan.InForce, plan.Unfinished, plan.Unconfirmed:
	case plan.Empty, plan.WasUndone, plan.WasBack, plan.WasReturned:
		return idleTask(x.ID, x.ID+" is "+string(x.State)+": nothing to take back"), nil
	default:
		return nil, fmt.Errorf("cannot take back %s: it is %s", x.ID, x.State)
	}
	var back []plan.Change
	for _, c := range slices.Backward(x.Plan.Changes) {
		back = append(back, c.Reverse())
	}
	var res *report.Ansible
	if t.Check {
		res = idleTask(x.ID, x.ID+" would be taken back")
		res.Changed = true
	} else {
		s := a.steps()
		ctx, stop := a.interruptible(s)
		r, err := a.engine(false).Undo(ctx, x.ID, plan.Options{Progress: s.show})
		stop()
		s.end()
		switch {
		case errors.Is(err, plan.ErrBusy):
			return nil, &failure{report.ExitBusy, err}
		case err != nil:
			return nil, a.rooted(err)
		}
		res = report.AnsibleBack(report.NewResult(r, a.again()), r.Exit())
	}
	if t.Diff && res.Changed {
		res.Show(back)
	}
	return res, nil
}

// factTime is how long a local fact may take: each play waits for it.
const factTime = 5 * time.Second

func (a *app) factCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fact",
		Short: "the verdict in a few words, as JSON: for a script in /etc/ansible/facts.d",
		Long: "Judges the host and writes one JSON object with the verdict, for Ansible's local facts (ansible_local). It takes at most 5 seconds, or the time of --timeout; what is not judged by then is unknown. " +
			"The exit code is 0 whatever the verdict is, since Ansible drops the fact otherwise; what went wrong is in its \"error\".",
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("timeout") {
				a.flags.timeout = factTime
			}
			a.flags.quiet = true
			rep, err := a.judgedReport()
			if err != nil {
				return a.writeJSON(report.AnsibleFactFailed(tool(), codeOf(err), err.Error()))
			}
			return a.writeJSON(report.NewAnsibleFact(rep))
		},
	}
}
