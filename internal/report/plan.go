// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/plan"
)

// PlanView is a plan as a person sees it before anything is done.
type PlanView struct {
	Judged  *Report       // the host as it was judged
	Advice  string        // what a tune module says of it, "" for none
	Plan    plan.Plan     // what would be done
	Held    []plan.Change // what --allow would add
	Command []string      // hostcheck and the arguments that give this plan again, without those that only change
	Base    []string      // hostcheck and the flags that lead to the same host
	Within  time.Duration // how long changes that must be confirmed may wait for it
	Final   bool          // nothing follows: say how to go on
}

// Document is the plan with what is held back among the refused: the JSON of
// "hostcheck plan". Steps for a person are prose there ([plan.Prose]).
func (v PlanView) Document() plan.Plan {
	p := v.Plan
	p.Refused = slices.Clone(p.Refused)
	for i, r := range p.Refused {
		p.Refused[i].Steps = make([]string, len(r.Steps))
		for j, s := range r.Steps {
			p.Refused[i].Steps[j] = plan.Prose(s)
		}
	}
	for _, c := range v.Held {
		p.Refused = append(p.Refused, plan.Refusal{
			Setting: c.Setting, Want: c.After.String(),
			Reason: "tier " + string(c.Tier) + " is not allowed",
			Steps:  []string{ShellWords(v.Command) + " --allow " + string(c.Tier)},
		})
	}
	if p.Refused == nil {
		p.Refused = []plan.Refusal{}
	}
	return p
}

// Plan gives a plan as text: what would be done by tier, each change with its
// difference and reason, then what --allow would add and what is refused.
func (t Text) Plan(v PlanView) string {
	p := t.printer()
	if !t.Quiet {
		p.header(cleaned(v.Judged))
		p.line("")
		p.advice(v.Advice)
	}
	p.planHeadline(v)
	if t.Quiet {
		for _, c := range v.Plan.Changes {
			for i, l := range wrap(Clean(string(c.Tier)+": "+c.String()+": "+inline(c)), p.width()-4) {
				p.line(strings.Repeat(" ", 4*min(i, 1)) + l)
			}
		}
		return t.finish(&p.b)
	}
	for _, tier := range plan.Tiers {
		p.changes(tiers[tier], ofTier(v.Plan.Changes, tier), false)
	}
	for _, tier := range plan.Tiers {
		p.changes("only with --allow "+string(tier)+": "+strings.TrimPrefix(tiers[tier], string(tier)+": "), ofTier(v.Held, tier), true)
	}
	p.refusals(v.Plan.Refused)
	p.planFooter(v)
	return t.finish(&p.b)
}

func ofTier(all []plan.Change, tier plan.Tier) []plan.Change {
	var out []plan.Change
	for _, c := range all {
		if c.Tier == tier {
			out = append(out, c)
		}
	}
	return out
}

func (p *printer) planHeadline(v PlanView) {
	n := len(v.Plan.Changes)
	sign, word, style := "→", "PLAN: "+plural(n, "change"), p.yellow.Bold(true)
	var rest []string
	for _, tier := range plan.Tiers {
		if k := len(ofTier(v.Plan.Changes, tier)); k > 0 && k < n {
			rest = append(rest, fmt.Sprintf("%d %s", k, tier))
		}
	}
	for _, tier := range plan.Tiers {
		if k := len(ofTier(v.Held, tier)); k > 0 {
			rest = append(rest, fmt.Sprintf("%d more with --allow %s", k, tier))
		}
	}
	if k := len(v.Plan.Refused); k > 0 {
		rest = append(rest, fmt.Sprintf("%d refused", k))
	}
	if n == 0 {
		sign, word, style = "✓", "nothing to fix", p.green.Bold(true)
		if v.Judged.Summary.Exit != ExitOK {
			sign, style = "–", p.yellow.Bold(true)
			rest = append(rest, "the host has "+p.counts(&v.Judged.Summary, false))
		}
	}
	head := style.Render(sign + " " + word)
	text := strings.Join(rest, " · ")
	if lipgloss.Width(head)+3+lipgloss.Width(text) <= p.width() {
		p.line(head + "   " + text)
		return
	}
	p.line(head)
	for _, l := range wrap(text, p.width()-2) {
		p.line("  " + l)
	}
}

// changes writes the changes of one tier. Neighbours with the same reason
// stand together and say it once.
func (p *printer) changes(title string, all []plan.Change, held bool) {
	if len(all) == 0 {
		return
	}
	p.rule(title, plural(len(all), "change"))
	for i := 0; i < len(all); {
		n := i + 1
		for n < len(all) && alike(all[i], all[n]) {
			n++
		}
		if i > 0 {
			p.line("")
		}
		p.group(all[i:n], held)
		i = n
	}
}

// alike reports whether two changes have the same reason and the same effect,
// each on its own device.
func alike(a, b plan.Change) bool {
	return a.Persist == b.Persist && a.AtBoot == b.AtBoot && a.Deferred == b.Deferred && impersonal(a, a.Why) == impersonal(b, b.Why) && impersonal(a, a.Disturbs) == impersonal(b, b.Disturbs)
}

// impersonal is a text about a change with "it" for its device.
func impersonal(c plan.Change, text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if bare := strings.Trim(w, ",.;:"); bare != "" && slices.Contains(strings.Fields(c.Target), bare) {
			words[i] = strings.Replace(w, bare, "it", 1)
		}
	}
	return strings.Join(words, " ")
}

// detail is where the lines below a setting begin.
const detail = 6

func (p *printer) group(all []plan.Change, held bool) {
	name := 0
	for _, c := range all {
		if c.Kind != plan.KindFile {
			name = max(name, lipgloss.Width(settingName(c.Setting)))
		}
	}
	for _, c := range all {
		if c.Kind == plan.KindFile {
			p.file(c)
		} else {
			p.knob(c, name)
		}
	}
	c := all[0]
	why, note := c.Why, c.Disturbs
	if len(all) > 1 {
		why, note = impersonal(c, why), impersonal(c, note)
	}
	p.labelled(detail, "why", Clean(why), p.plain)
	p.labelled(detail, "note", Clean(note), p.yellow)
	switch {
	case c.Deferred:
		p.labelled(detail, "when", "it is confirmed", p.plain)
	case c.Tier == plan.Boot:
	case c.AtBoot:
		p.labelled(detail, "boot", "set again at each", p.plain)
	case !c.Persist && !held:
		p.labelled(detail, "until", "the next boot", p.plain)
	}
}

// settingName is a setting as the text shows it.
func settingName(s plan.Setting) string { return Clean(s.String()) }

// inline is a change on one line.
func inline(c plan.Change) string {
	if c.Kind == plan.KindFile {
		switch {
		case !c.Before.Present:
			return "new"
		case !c.After.Present:
			return "removed"
		}
		return "changed"
	}
	return c.Before.String() + " → " + c.After.String()
}

// knob writes a setting that is one value: name and "old → new", side by side
// where there is room.
func (p *printer) knob(c plan.Change, name int) {
	s := settingName(c.Setting)
	before, after := Clean(c.Before.String()), Clean(c.After.String())
	values := p.red.Render(before) + " → " + p.green.Render(after)
	if at := 2 + name + 2; at+lipgloss.Width(values) <= p.width() {
		p.line("  " + p.id.Render(s) + strings.Repeat(" ", name-lipgloss.Width(s)+2) + values)
		return
	}
	for _, l := range wrap(s, p.width()-2) {
		p.line("  " + p.id.Render(l))
	}
	if detail+lipgloss.Width(values) <= p.width() {
		p.line(strings.Repeat(" ", detail) + values)
		return
	}
	p.marked("-", before, p.red)
	p.marked("+", after, p.green)
}

// marked writes a long value behind a sign.
func (p *printer) marked(sign, text string, style lipgloss.Style) {
	for i, l := range wrap(text, p.width()-detail-2) {
		if i > 0 {
			sign = " "
		}
		p.line(strings.Repeat(" ", detail) + style.Render(sign+" "+l))
	}
}

// file writes a file's name and its unified diff. Lines of the diff are never
// broken: what is consented to is shown as it is.
func (p *printer) file(c plan.Change) {
	what := ""
	switch {
	case !c.Before.Present:
		what = "  " + p.dim.Render("new file")
	case c.Deferred && !c.After.Present: // what it holds stands above
		p.line("  " + p.id.Render(settingName(c.Setting)) + "  " + p.dim.Render("removed again"))
		return
	case !c.After.Present:
		what = "  " + p.dim.Render("removed")
	}
	p.line("  " + p.id.Render(settingName(c.Setting)) + what)
	for l := range strings.Lines(c.Diff) {
		l = strings.TrimSuffix(l, "\n")
		style := p.plain
		switch {
		case strings.HasPrefix(l, "--- "), strings.HasPrefix(l, "+++ "), strings.HasPrefix(l, "@@"):
			style = p.dim
		case strings.HasPrefix(l, "+"):
			style = p.green
		case strings.HasPrefix(l, "-"):
			style = p.red
		}
		p.line(strings.Repeat(" ", detail) + style.Render(Clean(l)))
	}
}

// refusals writes what is wanted and will not be done. Those with the same
// reason and steps stand together.
func (p *printer) refusals(all []plan.Refusal) {
	if len(all) == 0 {
		return
	}
	p.rule("refused: yours to decide or to do", plural(len(all), "setting"))
	var groups [][]plan.Refusal
	for _, r := range all {
		i := slices.IndexFunc(groups, func(g []plan.Refusal) bool {
			return g[0].Kind == r.Kind && g[0].Reason == r.Reason && slices.Equal(g[0].Steps, r.Steps)
		})
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], r)
	}
	for i, g := range groups {
		if i > 0 {
			p.line("")
		}
		for _, r := range g {
			p.refusal(r)
		}
		p.labelled(detail, "why", Clean(g[0].Reason), p.plain)
		p.steps(g[0].Steps)
	}
}

func (p *printer) refusal(r plan.Refusal) {
	s := settingName(r.Setting)
	lead := "  " + p.yellow.Render("–") + " "
	room := p.width() - 4
	want := Clean(r.Want)
	if lipgloss.Width(s)+3+lipgloss.Width(want) > room {
		for i, l := range wrap(s, room) {
			if i > 0 {
				lead = "    "
			}
			p.line(lead + p.id.Render(l))
		}
		p.labelled(detail, "want", want, p.plain)
		return
	}
	if want != "" {
		want = " → " + want
	}
	p.line(lead + p.id.Render(s) + want)
}

func (p *printer) steps(all []string) {
	for i, s := range all {
		label, n := "", ""
		if i == 0 {
			label = "steps"
		}
		if len(all) > 1 {
			n = strconv.Itoa(i+1) + ". "
		}
		p.labelled(detail, label, n+Clean(s), p.id)
	}
}

func (p *printer) planFooter(v PlanView) {
	again := Clean(ShellWords(v.Command))
	var rows [][2]string
	if len(v.Plan.Changes) > 0 {
		rows = append(rows, [2]string{again, "shows this, asks, and does it"})
		if v.Plan.Hash != "" {
			rows = append(rows, [2]string{again + " --plan-hash HASH", "only if the plan is still this one"})
		}
	}
	for _, tier := range plan.Tiers {
		if k := len(ofTier(v.Held, tier)); k > 0 {
			rows = append(rows, [2]string{again + " --allow " + string(tier), plural(k, "more change")})
		}
	}
	if len(v.Plan.Changes) > 0 && v.Plan.Changes[len(v.Plan.Changes)-1].Deferred {
		rows = append(rows, [2]string{Clean(ShellWords(v.Base)) + " confirm", "keeps it, once made: else all of it is taken back after " + v.Within.String()})
	}
	if !v.Final {
		rows = nil
	}
	if len(v.Plan.Changes) == 0 && rows == nil {
		return
	}
	p.line("")
	p.line(p.dim.Render(strings.Repeat("─", p.width())))
	if v.Plan.Hash != "" {
		p.pair("plan", v.Plan.Hash)
	}
	p.pairs(rows)
}

// ShellWords joins words so that a POSIX shell reads them back.
func ShellWords(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=@%+") != "" {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
