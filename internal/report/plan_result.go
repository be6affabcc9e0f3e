// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Names of the formats of [Fix], [Undo] and [Confirmed].
const (
	FixSchema     = "hostcheck.fix/v1"
	UndoSchema    = "hostcheck.undo/v1"
	ConfirmSchema = "hostcheck.confirm/v1"
)

// Fix is what "hostcheck --fix -f json" writes once it had consent: what was to
// be done, what became of it, and how the host stands.
type Fix struct {
	Schema       string    `json:"schema" doc:"name and version of this format"`
	Plan         plan.Plan `json:"plan"`
	Result       Result    `json:"result"`
	Guards       []Guard   `json:"guards" doc:"what must stand as it did, whatever was changed"`
	Verification []Finding `json:"verification" doc:"the checks behind the changes, judged again on a fresh reading after the changes"`
	Summary      *Summary  `json:"summary" doc:"all selected checks as the host stands now; null when that is not known"`
	Exit         int       `json:"exit" doc:"exit code of the run"`
}

// Undo is what "hostcheck undo -f json" writes.
type Undo struct {
	Schema  string   `json:"schema" doc:"name and version of this format"`
	Results []Result `json:"results" doc:"one per transaction, in the order in which they were taken back"`
	Exit    int      `json:"exit" doc:"exit code of the run"`
}

// Confirmed is what "hostcheck confirm -f json" writes.
type Confirmed struct {
	Schema string `json:"schema" doc:"name and version of this format"`
	Result Result `json:"result" doc:"applied: it is confirmed and lasts; restored: that failed, and the host is as it was before the transaction"`
	Exit   int    `json:"exit" doc:"exit code of the run"`
}

// OutcomeNothing is the outcome of a plan without changes.
const OutcomeNothing plan.Outcome = "nothing"

// Result is what became of one transaction.
type Result struct {
	Txn     string       `json:"txn" doc:"ID of the transaction; empty when none was begun"`
	Outcome plan.Outcome `json:"outcome" enum:"nothing,applied,undone,restored,incomplete,interrupted" doc:"restored: it failed, and the host is as it was, read back; incomplete: it failed, and what is left is not as it was; interrupted: by a signal, and an apply put everything back"`
	Changed int          `json:"changed" doc:"settings that were written, or put back by an undo"`
	Cause   string       `json:"cause" doc:"why it did not succeed"`
	Left    []Left       `json:"left" doc:"settings that are not as they should be"`
	Stays   []string     `json:"stays" doc:"what was not put back and does no harm, one sentence each: a module that something uses by now"`
	Journal string       `json:"journal" doc:"why the journal could not be kept up"`
	Undo    string       `json:"undo" doc:"command that takes it back; empty when there is nothing to take back"`
	Until   *string      `json:"confirm_by" doc:"RFC 3339: when it is taken back unless it is confirmed; null when it need not be confirmed"`
	Confirm string       `json:"confirm" doc:"command that confirms it; empty when it need not be"`
}

// Left is a setting that could not be put back.
type Left struct {
	Kind   string     `json:"kind"`
	Target string     `json:"target"`
	Name   string     `json:"name"`
	Want   plan.Value `json:"want" doc:"what it should be again; null: nothing, a file that is not there"`
	Live   plan.Value `json:"live" doc:"what it holds, where that is known"`
	Error  string     `json:"error" doc:"why it could not be read or set"`
	ByHand string     `json:"by_hand" doc:"how a person restores it"`
}

// Guard is something that no change may break.
type Guard struct {
	Name string `json:"name"`
	Held bool   `json:"held"`
	Got  string `json:"got" doc:"how it stands"`
}

// NewResult tells what the engine did. again is hostcheck and the flags that
// find the same journal.
func NewResult(r plan.Result, again []string) Result {
	out := Result{Txn: r.Txn, Outcome: r.Outcome, Changed: r.Changed, Left: []Left{}, Stays: append([]string{}, r.Stays...)}
	if r.Cause != nil {
		out.Cause = r.Cause.Error()
	}
	if r.Journal != nil {
		out.Journal = r.Journal.Error()
	}
	for _, l := range r.Left {
		n := Left{Kind: l.Kind, Target: l.Target, Name: l.Name, Want: l.After, Live: l.Live, ByHand: plan.Prose(l.ByHand)}
		if l.Err != nil {
			n.Error = l.Err.Error()
		}
		out.Left = append(out.Left, n)
	}
	if !r.Until.IsZero() {
		out.Until, out.Confirm = Stamp(r.Until), ShellWords(append(slices.Clone(again), "confirm", r.Txn))
	}
	unfinished := r.Journal != nil || r.Outcome == plan.Incomplete
	if r.Txn != "" && (r.Outcome == plan.Applied || unfinished) {
		out.Undo = ShellWords(append(slices.Clone(again), "undo", r.Txn))
	}
	return out
}

// FixedView is the end of a fix as a person sees it.
type FixedView struct {
	Fix
	Now    time.Time
	Judged *Report // the host after it; nil when that is not known
	Tree   bool    // it was a directory tree
}

// Fixed gives the end of a fix as text; the undo comes last.
func (t Text) Fixed(v FixedView) string {
	p := t.printer()
	p.outcome(v.Result, v.Result.Changed, v.Tree)
	if v.Result.Outcome == plan.Applied {
		p.verified(v)
	}
	if v.Judged != nil && v.Result.Outcome == plan.Applied {
		p.remaining(v.Judged)
	}
	if u := v.Result.Until; u != nil {
		p.line("")
		left := 0
		if at, err := time.Parse(time.RFC3339, *u); err == nil {
			left = max(0, int(at.Sub(v.Now).Seconds()))
		}
		p.unconfirmed(*u, left, v.Result.Confirm)
	}
	p.undo(v.Result)
	return t.finish(&p.b)
}

// outcome writes what happened and, where it went wrong, what to do.
func (p *printer) outcome(r Result, n int, tree bool) {
	where := "the host"
	if tree {
		where = "the tree"
	}
	var sign, word, rest string
	style := p.green.Bold(true)
	switch r.Outcome {
	case plan.Applied:
		sign, word, rest = "✓", "DONE", plural(n, "change")+" made, read back and verified"
	case plan.Undone:
		sign, word, rest = "✓", "UNDONE", r.Txn+": "+plural(r.Changed, "setting")+" put back and read back"
		if r.Changed == 0 {
			rest = r.Txn + ": everything was as before already"
		}
	case plan.Returned:
		sign, word, rest = "✓", "RETURNED", "what was borrowed is as it was, read back"
	case plan.Restored:
		sign, word, rest, style = "✗", "RESTORED", "it did not work; "+where+" is as it was, read back", p.yellow.Bold(true)
	case plan.Incomplete:
		sign, word, rest, style = "✗", "NOT RESTORED", "it did not work, and "+plural(len(r.Left), "setting")+" could not be put back", p.red.Bold(true)
		if len(r.Left) == 0 {
			rest = "it did not work, and putting back did not end well"
		}
	case plan.Interrupted:
		sign, word, rest, style = "?", "INTERRUPTED", "what was changed was put back; "+where+" is as it was", p.magenta.Bold(true)
		if r.Changed == 0 && r.Txn == "" {
			rest = "nothing was changed"
		}
	}
	head := style.Render(sign + " " + word)
	if lipgloss.Width(head)+3+lipgloss.Width(rest) <= p.width() {
		p.line(head + "   " + rest)
	} else {
		p.line(head)
		for _, l := range wrap(rest, p.width()-2) {
			p.line("  " + l)
		}
	}
	p.labelled(2, "why", Clean(r.Cause), p.plain)
	for _, l := range r.Left {
		p.left(l)
	}
	for _, why := range r.Stays {
		p.labelled(2, "note", Clean(why), p.plain)
	}
	p.labelled(2, "note", Clean(nonEmptyPrefix("the journal could not be kept up: ", r.Journal)), p.yellow)
}

func nonEmptyPrefix(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (p *printer) left(l Left) {
	p.line("")
	p.line("  " + p.red.Render("✗") + " " + p.id.Render(settingName(plan.Setting{Kind: l.Kind, Target: l.Target, Name: l.Name})))
	p.labelled(detail, "want", Clean(l.Want.String()), p.plain)
	if l.Error == "" {
		p.labelled(detail, "got", Clean(l.Live.String()), p.bold)
	}
	p.labelled(detail, "why", Clean(l.Error), p.plain)
	p.labelled(detail, "hand", Clean(strings.TrimPrefix(l.ByHand, plan.ByHand)), p.id)
}

// verified lists the checks behind the changes and the guards, one line each.
func (p *printer) verified(v FixedView) {
	type row struct {
		id, title string
		n         int
		pending   bool
		open      bool
	}
	var rows []*row
	width := 0
	for _, f := range v.Verification {
		if len(rows) == 0 || rows[len(rows)-1].id != f.Check {
			rows = append(rows, &row{id: f.Check, title: Clean(f.Title)})
			width = max(width, lipgloss.Width(f.Check))
		}
		r := rows[len(rows)-1]
		r.n++
		r.pending = r.pending || f.Pending
		r.open = r.open || !f.Pending && f.Status != check.Pass && f.Status != check.Skip
	}
	for _, g := range v.Guards {
		width = max(width, lipgloss.Width(g.Name))
	}
	write := func(sign, name, text string) {
		at := width + 6
		lead := "  " + sign + " " + name + strings.Repeat(" ", width-lipgloss.Width(name)+2)
		for i, l := range wrap(text, p.width()-at) {
			if i > 0 {
				lead = strings.Repeat(" ", at)
			}
			p.line(lead + l)
		}
	}
	for _, r := range rows {
		sign, title := p.green.Render("✓"), r.title
		switch {
		case r.open:
			sign, title = p.yellow.Render("!"), title+": not all of it"
		case r.pending:
			sign, title = p.yellow.Render("↻"), title+": after the next boot"
		}
		write(sign, p.id.Render(r.id), title)
	}
	for _, g := range v.Guards {
		sign := p.green.Render("✓")
		if !g.Held {
			sign = p.red.Render("✗")
		}
		write(sign, Clean(g.Name), Clean(g.Got))
	}
}

// remaining writes what still needs attention.
func (p *printer) remaining(r *Report) {
	r = cleaned(r)
	p.line("")
	p.verdict(r)
	quiet := *p
	quiet.Quiet = true
	quiet.b = strings.Builder{}
	n := 0
	for _, a := range foldAreas(r.Findings) {
		for _, b := range a.blocks {
			if b.Status == check.Unknown && !p.Verbose {
				continue
			}
			n++
			quiet.heading(b)
		}
	}
	const most = 12
	lines := strings.SplitAfter(quiet.b.String(), "\n")
	if n > most && !p.Verbose {
		lines = append(lines[:most], fmt.Sprintf("%s… \"hostcheck\" shows all\n", strings.Repeat(" ", column)))
	}
	p.b.WriteString(strings.Join(lines, ""))
}

func (p *printer) undo(r Result) {
	if r.Undo == "" {
		return
	}
	p.line("")
	label := "undo"
	if r.Outcome != plan.Applied {
		label = "again"
	}
	p.line(p.key.Render(label) + strings.Repeat(" ", 7-len(label)) + p.bold.Render(Clean(r.Undo)))
}

// Kept gives the end of a confirmation as text.
func (t Text) Kept(c Confirmed) string {
	p := t.printer()
	if c.Result.Outcome == plan.Applied {
		p.line(p.green.Bold(true).Render("✓ CONFIRMED") + "   " + Clean(c.Result.Txn) + " lasts")
	} else {
		p.outcome(c.Result, c.Result.Changed, false)
	}
	p.undo(c.Result)
	return t.finish(&p.b)
}

// Undone gives the end of an undo as text; nothing is why there was nothing to
// do, where that is so.
func (t Text) Undone(u Undo, nothing string, tree bool) string {
	p := t.printer()
	for i, r := range u.Results {
		if i > 0 && !p.Quiet {
			p.line("")
		}
		p.outcome(r, r.Changed, tree)
		p.undo(r)
	}
	if nothing != "" {
		p.line(p.green.Bold(true).Render("✓") + " " + Clean(nothing))
	}
	return t.finish(&p.b)
}
