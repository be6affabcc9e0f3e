// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// someBatches is how many batches are listed without -v, beside those that are
// under way.
const someBatches = 8

// FleetPlan gives a plan over a fleet as text for a person: how far it has come,
// what to run now and where, what comes later, who is left out.
func (t Text) FleetPlan(f *fleet.Plan) string {
	p := fleetPrinter{t.printer(), 0}
	if t.Quiet {
		p.planState(f)
		p.planNow(f)
		return t.finish(&p.b)
	}
	s := &f.Summary
	p.pair("fleet", p.bold.Render(plural(s.Hosts, "host"))+p.hostCounts(
		hostCount{s.Planned, "to be fixed"}, hostCount{s.Fit, "with nothing to fix"}, hostCount{s.LeftOut, "left out"}, hostCount{s.Problems, "unusable"}))
	p.pair("caps", p.capsText(&f.Caps))
	if len(f.Allow) > 0 {
		p.pair("allowed", "changes of tier "+join(f.Allow))
	}
	p.line("")
	p.planState(f)
	p.planNow(f)
	p.planHolding(f)
	p.planBatches(f)
	p.planLeftOut(f)
	p.problems(&fleet.Fleet{Problems: f.Problems, MoreProblems: f.MoreProblems})
	p.line("")
	p.line(p.dim.Render(strings.Repeat("─", p.width())))
	p.pair("plan", f.Hash)
	switch f.State {
	case fleet.PlanNext, fleet.PlanWaiting:
		p.pair("then", "collect their reports, \"hostcheck -f jsonl\", and give them with --done")
	case fleet.PlanStopped:
		p.pair("then", "mend these hosts, and plan anew from new reports of all; or take back what was done there: hostcheck undo")
	}
	return t.finish(&p.b)
}

// hostCount is a number of hosts and what they are.
type hostCount struct {
	n    int
	what string
}

// hostCounts gives the counts that are not zero.
func (p fleetPrinter) hostCounts(all ...hostCount) string {
	text := ""
	for _, c := range all {
		if c.n > 0 {
			text += " · " + strconv.Itoa(c.n) + " " + c.what
		}
	}
	return text
}

// capsText says how many hosts at once, and why so many.
func (p fleetPrinter) capsText(c *fleet.Caps) string {
	text := fmt.Sprintf("%s at once: at most %d, and at most %s of %d", plural(c.AtOnce, "host"), c.MaxHosts, c.MaxFraction, c.Hosts)
	if c.Spread == "" {
		return text
	}
	text += fmt.Sprintf("; of each %s at most %s, and at least one", Clean(c.Spread), c.MaxFraction)
	if c.Unlabelled > 0 {
		text += fmt.Sprintf(", %s without the label together", plural(c.Unlabelled, "host"))
	}
	return text
}

func join(tiers []plan.Tier) string {
	words := make([]string, len(tiers))
	for i, t := range tiers {
		words[i] = string(t)
	}
	return strings.Join(words, ", ")
}

func (p fleetPrinter) planState(f *fleet.Plan) {
	sign, word, style := "✓", "DONE", p.green
	switch f.State {
	case fleet.PlanNext:
		sign, word, style = "→", "BATCH "+strconv.Itoa(*f.Next)+" OF "+strconv.Itoa(len(f.Batches)), p.yellow
	case fleet.PlanWaiting:
		sign, word, style = "?", "WAITING", p.magenta
	case fleet.PlanStopped:
		sign, word, style = "✗", "STOPPED", p.red
	default:
		switch {
		case len(f.Batches) == 0:
			word = "NOTHING TO FIX"
		case f.Summary.Pending > 0:
			sign, word, style = "↻", "DONE BUT FOR THE NEXT BOOT", p.yellow
		}
		switch {
		case f.Summary.Exit == ExitIncomplete:
			sign, style = "?", p.magenta
		case f.Summary.Failing > 0:
			sign, style = "!", p.yellow
		}
	}
	text := f.Why
	switch {
	case f.State == fleet.PlanComplete && f.Summary.Exit == ExitIncomplete:
		text += "; not every host could be judged"
	case f.State == fleet.PlanComplete && f.Summary.Pending > 0:
		text += "; " + plural(f.Summary.Pending, "host") + " to be booted"
	case f.Next != nil:
		b := &f.Batches[*f.Next-1]
		text = plural(b.N, "host")
		if b.Canary {
			text += ", one of each kind before all others"
		}
		if f.Summary.Done > 0 {
			text += fmt.Sprintf("; %d of %d done", f.Summary.Done, f.Summary.Planned)
		}
	}
	p.hang(style.Bold(true).Render(sign+" "+word)+"   ", Clean(text))
}

// planNow writes what is to be run, and where: as lines that can be copied.
func (p fleetPrinter) planNow(f *fleet.Plan) {
	if f.Next == nil {
		return
	}
	for _, s := range f.Batches[*f.Next-1].Steps {
		if !p.Quiet {
			p.line("")
		}
		p.line("  " + p.key.Render("run") + "   " + p.id.Render(ShellWords(s.Command))) // not wrapped: to be copied
		p.line("  " + p.key.Render("on") + "    " + p.bold.Render(Clean(s.Hosts)))
		if len(s.Stays) > 0 && !p.Quiet {
			p.labelled(2, "stays", shorten(s.Stays, p.width()-8, p.Verbose)+" fails there, and this does not mend it", p.yellow)
		}
	}
}

func (p fleetPrinter) planHolding(f *fleet.Plan) {
	if len(f.Holding) == 0 {
		return
	}
	p.rule("holding the next batch back", plural(len(f.Holding), "host"))
	// of those that only have not reported, the names say enough
	silent := map[string][]string{}
	var reasons []string
	list := slices.Clone(f.Holding)
	slices.SortStableFunc(list, func(a, b fleet.Holding) int { return holdRank(a.State) - holdRank(b.State) })
	n := 0
	for _, h := range list {
		if holdRank(h.State) > 1 {
			if silent[h.Why] == nil {
				reasons = append(reasons, h.Why)
			}
			silent[h.Why] = append(silent[h.Why], h.Host)
			continue
		}
		if n++; n > someProblems && !p.Verbose {
			continue
		}
		sign, style := "✗", p.red
		if holdRank(h.State) == 1 {
			sign, style = "?", p.magenta
		}
		p.hang("  "+style.Render(sign)+" "+p.bold.Render(Clean(h.Host))+"  ", Clean(h.Why))
	}
	if n > someProblems && !p.Verbose {
		p.line("  " + p.dim.Render("and "+strconv.Itoa(n-someProblems)+" more"))
	}
	for _, why := range reasons {
		p.line("  " + p.magenta.Render("?") + " " + Clean(why))
		p.hang("    ", p.some(fleet.Fold(silent[why]), len(silent[why]), p.width()-4))
	}
}

// holdRank orders what holds a batch back, the worst first.
func holdRank(state string) int {
	return slices.Index([]string{"failed", "unjudged", "stale", "missing"}, state)
}

// planBatches lists the batches: all when verbose, else those around the one
// under way.
func (p fleetPrinter) planBatches(f *fleet.Plan) {
	if len(f.Batches) == 0 {
		return
	}
	p.rule("batches", strconv.Itoa(f.Summary.Done)+" of "+plural(f.Summary.Planned, "host")+" done")
	first := slices.IndexFunc(f.Batches, func(b fleet.Batch) bool { return b.State != "done" })
	if first < 0 {
		first = len(f.Batches)
	}
	from, to := max(0, first-1), min(len(f.Batches), first+someBatches)
	if p.Verbose {
		from, to = 0, len(f.Batches)
	}
	if from > 0 {
		p.line("  " + p.dim.Render(strconv.Itoa(from)+" before, all done"))
	}
	width := len(strconv.Itoa(len(f.Batches)))
	for i := from; i < to; i++ {
		b := &f.Batches[i]
		sign, style := " ", p.plain
		switch b.State {
		case "done":
			sign, style = "✓", p.green
		case fleet.PlanNext:
			sign, style = "→", p.yellow
		case fleet.PlanWaiting:
			sign, style = "?", p.magenta
		case fleet.PlanStopped:
			sign, style = "✗", p.red
		}
		number := strconv.Itoa(b.Number)
		lead := "  " + style.Render(sign) + " " + strings.Repeat(" ", width-len(number)) + p.bold.Render(number) + "  "
		p.hang(lead, p.some(b.Hosts, b.N, p.width()-lipgloss.Width(lead)))
		if p.Verbose {
			for _, s := range b.Steps {
				p.labelled(width+6, "run", ShellWords(s.Command), p.id)
				p.labelled(width+6, "on", Clean(s.Hosts), p.plain)
			}
		}
	}
	if rest := f.Batches[to:]; len(rest) > 0 {
		n := 0
		for i := range rest {
			n += rest[i].N
		}
		p.line("  " + p.dim.Render("and "+strconv.Itoa(len(rest))+" more with "+plural(n, "host")))
	}
}

func (p fleetPrinter) planLeftOut(f *fleet.Plan) {
	if len(f.LeftOut) == 0 {
		return
	}
	p.rule("left out", plural(f.Summary.LeftOut, "host"))
	for i, l := range f.LeftOut {
		if i == someCases*3 && !p.Verbose {
			p.line("  " + p.dim.Render("and "+plural(len(f.LeftOut)-i, "more reason")))
			return
		}
		p.hang("  ", Clean(l.Why))
		p.hang("      ", p.some(l.Hosts, l.N, p.width()-6))
	}
}
