// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) undoCommand() *cobra.Command {
	var all, force bool
	c := &cobra.Command{
		Use:   "undo [TXN | --all]",
		Short: "take back a transaction, the latest if none is named",
		Long: "Puts back what a transaction changed, and reads it back. A setting that somebody else changed since is left alone, and so is then " +
			"everything: --force overwrites it. An undo that was stopped is finished by another one.",
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return fmt.Errorf("%s takes one transaction, not %d; --all takes all back", c.CommandPath(), len(args))
			case len(args) == 1 && all:
				return errors.New("--all needs no transaction")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var ids []string
			txns, _ := a.engine(false).History()
			for _, t := range txns {
				if t.State == plan.InForce || t.State == plan.Unfinished || t.State == plan.Unconfirmed {
					ids = append(ids, t.ID)
				}
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			return a.undo(id, all, force)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&all, "all", false, "every transaction in force, the newest first")
	c.Flags().BoolVar(&force, "force", false, "also where somebody else changed a setting since, and where not all can be put back")
	return c
}

func (a *app) undo(id string, all, force bool) error {
	e := a.engine(false)
	s := a.steps()
	ctx, stop := a.interruptible(s)
	opt := plan.Options{Force: force, Progress: s.show}
	var results []plan.Result
	var err error
	switch txns, herr := e.History(); {
	case herr != nil:
		err = herr
	case len(txns) == 0 && id == "": // no journal is made to say so
		err = plan.ErrNothing
	case all:
		results, err = e.UndoAll(ctx, opt)
	default:
		var r plan.Result
		if r, err = e.Undo(ctx, id, opt); err == nil {
			results = []plan.Result{r}
		}
	}
	stop()
	s.end()

	doc := report.Undo{Schema: report.UndoSchema, Results: []report.Result{}}
	for _, r := range results {
		doc.Results = append(doc.Results, report.NewResult(r, a.again()))
		doc.Exit = max(doc.Exit, r.Exit())
	}
	nothing := errors.Is(err, plan.ErrNothing) || errors.Is(err, plan.ErrUndone)
	if err != nil && !nothing {
		doc.Exit = report.ExitUsage
		if errors.Is(err, plan.ErrBusy) {
			doc.Exit = report.ExitBusy
		}
		err = &failure{doc.Exit, a.rooted(err)}
		if len(results) == 0 {
			return err
		}
	}
	var writeErr error
	switch {
	case a.json():
		writeErr = a.writeJSON(doc)
	default:
		why := ""
		if nothing {
			why = err.Error()
		}
		writeErr = a.writeText(a.text().Undone(doc, why, !a.live()))
	}
	switch {
	case err != nil && !nothing:
		return err // those before it were taken back, and the output says so
	case writeErr != nil:
		return writeErr
	case doc.Exit != report.ExitOK:
		return exit(doc.Exit)
	}
	return nil
}

// rooted adds what helps where only root may look.
func (a *app) rooted(err error) error {
	if a.live() && os.Geteuid() != 0 {
		return fmt.Errorf("%w (this needs root)", err)
	}
	return err
}

func (a *app) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "what hostcheck changed here, the newest first",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			txns, err := a.engine(false).History()
			if err != nil {
				return a.rooted(err)
			}
			h := report.NewHistory(txns)
			if a.json() {
				return a.writeJSON(h)
			}
			return a.writeText(a.text().History(h, time.Now(), a.again()))
		},
	}
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "whether a change is under way, waits to be confirmed, or was stopped half way",
		Long: "Says what asks for an undo or a confirmation, and what is set again at each boot. Exit 1 when a transaction was stopped half way, cannot be read or is not confirmed, " +
			"when a kernel command line was tried and is not confirmed, or when what should be set at each boot is not; 11 while another hostcheck is at work; else 0.",
		Args: none,
		RunE: func(*cobra.Command, []string) error { return a.status() },
	}
}

func (a *app) status() error {
	e := a.engine(false)
	pending, busy, err := e.Status(context.Background())
	if err != nil {
		return a.rooted(err)
	}
	txns, err := e.History()
	if err != nil {
		return a.rooted(err)
	}
	s := report.Status{Schema: report.StatusSchema, Pending: []report.Pending{}, Applied: []string{}}
	for _, p := range pending {
		s.Exit = report.ExitFindings
		if p.State == plan.Unconfirmed {
			s.Unconfirmed = a.unconfirmed(p.Txn)
			continue
		}
		s.Pending = append(s.Pending, report.NewPending(p))
	}
	if s.Settings, err = a.kept(e); err != nil {
		return a.rooted(err)
	}
	if s.Settings.Stopped != nil || len(s.Settings.Ignored) > 0 {
		s.Exit = report.ExitFindings
	}
	if b, ok := errors.AsType[*plan.BusyError](busy); ok {
		s.Busy, s.Exit = &report.Busy{}, report.ExitBusy
		if b.PID > 0 {
			s.Busy.PID = &b.PID
		}
	}
	for i := len(txns) - 1; i >= 0; i-- {
		if txns[i].State == plan.InForce {
			s.Applied = append(s.Applied, txns[i].ID)
		}
	}
	if s.Trial = a.trial(txns); s.Trial != nil && s.Trial.State != fixes.TrialArmed {
		s.Exit = max(s.Exit, report.ExitFindings)
	}
	if a.json() {
		err = a.writeJSON(s)
	} else {
		err = a.writeText(a.text().Status(s, time.Now(), a.again()))
	}
	if err == nil && s.Exit != report.ExitOK {
		return exit(s.Exit)
	}
	return err
}
