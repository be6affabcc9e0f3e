// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

// FleetJSON gives a merge as JSON, a line for each entry of its lists.
func FleetJSON(f *fleet.Fleet) ([]byte, error) {
	var b bytes.Buffer
	err := f.WriteJSON(&b)
	return printable(b.Bytes()), err
}

// How much of a merge is shown without -v.
const (
	someCases    = 3
	someClusters = 10
	someOutliers = 20
	someProblems = 10
)

// fleetPrinter writes the text of a merge.
type fleetPrinter struct {
	*printer
	all int // hosts
}

// Fleet gives a merge as text for a person: the verdict, the checks that do
// not pass everywhere, the hosts that are alike, what sets some apart.
func (t Text) Fleet(f *fleet.Fleet) string {
	p := fleetPrinter{t.printer(), len(f.Hosts)}
	if t.Quiet {
		p.fleetVerdict(f)
		p.fleetChecks(f)
		return t.finish(&p.b)
	}
	p.pair("fleet", p.bold.Render(plural(f.Summary.Hosts, "host"))+" · "+plural(len(f.Checks), "check")+" · "+plural(len(f.Clusters), "kind")+" of hosts by their verdicts")
	if s := f.Since; s != nil {
		p.pair("since", Clean(s.Source)+": "+plural(s.Hosts, "host")+p.moved("new", s.New, s.NewHosts)+p.moved("gone", s.Gone, s.GoneHosts))
	}
	p.age(f)
	if e := f.Expected; e != nil {
		p.pair("expected", Clean(e.Source)+": "+plural(e.Hosts, "host")+p.moved("missing", f.Summary.Missing, e.Missing))
	}
	p.line("")
	p.fleetVerdict(f)
	p.fleetChecks(f)
	p.changed(f)
	p.clusters(f)
	p.outliers(f)
	p.problems(f)
	p.line("")
	p.line(p.dim.Render(strings.Repeat("─", p.width())))
	p.line(p.dim.Render(fmt.Sprintf("exit %d: %s", f.Summary.Exit, Meaning(f.Summary.Exit))))
	if !p.Verbose {
		p.pairs([][2]string{{"hostcheck fleet report -v", "every check, case, host and outlier"}})
	}
	return t.finish(&p.b)
}

// longAgo is how much older than the newest report one is that may tell of a host
// that has not reported since, such as a file of the day before.
const longAgo = 24 * time.Hour

// age says which hosts were sampled long before the newest one.
func (p fleetPrinter) age(f *fleet.Fleet) {
	first, last, _ := captured(f.Hosts)
	if last.Sub(first) <= longAgo {
		return
	}
	var old []string
	for i := range f.Hosts {
		if at, err := time.Parse(time.RFC3339, orEmpty(f.Hosts[i].CapturedAt)); err == nil && last.Sub(at) > longAgo {
			old = append(old, f.Hosts[i].Name)
		}
	}
	p.pair("sampled", first.Format(time.RFC3339)+" to "+last.Format(time.RFC3339)+"; over a day before the last: "+p.some(fleet.Fold(old), len(old), p.width()/2))
}

// captured gives the times of the oldest and the newest report, and how many have
// none.
func captured(hosts []fleet.Host) (first, last time.Time, undated int) {
	for i := range hosts {
		at, err := time.Parse(time.RFC3339, orEmpty(hosts[i].CapturedAt))
		if err != nil {
			undated++
			continue
		}
		if at = at.UTC(); first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last, undated
}

func (p fleetPrinter) moved(word string, n int, hosts string) string {
	if n == 0 {
		return ""
	}
	return ", " + strconv.Itoa(n) + " " + word + " (" + p.some(hosts, 1, p.width()/2) + ")"
}

func (p fleetPrinter) fleetVerdict(f *fleet.Fleet) {
	s := &f.Summary
	sign, word, style := "✓", "FIT", p.green
	switch {
	case s.Hosts == 0:
		sign, word, style = "?", "INCOMPLETE: there is no usable report", p.magenta
	case s.Failing > 0:
		sign, word, style = "✗", "NOT FIT", p.red
	case s.Exit == ExitIncomplete:
		sign, word, style = "?", "INCOMPLETE", p.magenta
	case s.Pending > 0:
		sign, word, style = "↻", "FIT AFTER THE NEXT BOOT", p.yellow
	case s.Warning > 0:
		sign, word, style = "!", "FIT, with warnings", p.yellow
	}
	var parts []string
	for _, c := range []struct {
		n    int
		word string
	}{
		{s.Failing, "failing"}, {s.Incomplete, "incomplete"}, {s.Pending, "pending"}, {s.Compliant, "compliant"},
		{s.Warning, "of them with warnings"}, {s.Missing, "missing"}, {s.Problems, "unusable"}, {s.Repeated, "repeated"},
	} {
		if c.n > 0 {
			parts = append(parts, strconv.Itoa(c.n)+" "+c.word)
		}
	}
	lead := sign + " " + word
	for i, l := range wrap(strings.Join(parts, " · "), p.width()-lipgloss.Width(lead)-3) {
		if i == 0 {
			p.line(style.Bold(true).Render(lead) + "   " + l)
			continue
		}
		p.line(strings.Repeat(" ", lipgloss.Width(lead)+3) + l)
	}
}

// fleetCounts gives the counts of a check that are not zero, the worst first.
func (p fleetPrinter) fleetCounts(c *fleet.Counts, colour bool) string {
	return counted(colour, []counting{
		{c.Fail, "fail", p.red},
		{c.Error, "error", p.red},
		{c.Warn, "warn", p.yellow},
		{c.Pending, "pending", p.yellow},
		{c.Unknown, "unknown", p.magenta},
		{c.Waived, "waived", p.plain},
		{c.Pass, "pass", p.green},
		{c.Skip, "skip", p.dim},
		{c.Absent, "absent", p.dim},
	})
}

// worst is the status of a check's worst host, as a mark shows it.
func worst(c *fleet.Counts) (s check.Status, pending, waived bool) {
	switch {
	case c.Fail > 0:
		return check.Fail, false, false
	case c.Error > 0:
		return check.Error, false, false
	case c.Warn > 0:
		return check.Warn, false, false
	case c.Pending > 0:
		return check.Fail, true, false
	case c.Unknown > 0:
		return check.Unknown, false, false
	case c.Waived > 0:
		return check.Fail, false, true
	case c.Pass > 0:
		return check.Pass, false, false
	}
	return check.Skip, false, false
}

// fleetChecks writes the checks that need attention, the worst first; with
// Verbose all of them.
func (p fleetPrinter) fleetChecks(f *fleet.Fleet) {
	place := func(c *fleet.Check) int {
		s, pending, waived := worst(&c.Counts)
		return rank(&Finding{Status: s, Severity: c.Severity, Pending: pending, Waiver: map[bool]*Waiver{true: {}}[waived]})
	}
	var shown []*fleet.Check
	calm := 0
	for i := range f.Checks {
		c := &f.Checks[i]
		if s, _, _ := worst(&c.Counts); s == check.Pass || s == check.Skip {
			calm++
			if !p.Verbose {
				continue
			}
		}
		shown = append(shown, c)
	}
	slices.SortStableFunc(shown, func(a, b *fleet.Check) int { return place(a) - place(b) })
	if !p.Quiet {
		p.rule("checks", strconv.Itoa(calm)+" of "+strconv.Itoa(len(f.Checks))+" pass or do not apply everywhere")
	}
	for i, c := range shown {
		s, pending, waived := worst(&c.Counts)
		sign, word, style := p.mark(s, pending, waived)
		if !p.Quiet && i > 0 && len(c.Cases) > 0 {
			p.line("")
		}
		lead := pad("  "+style.Render(sign)+" "+style.Render(word), column)
		id := p.id.Render(Clean(c.ID))
		counts := p.fleetCounts(&c.Counts, true)
		if lipgloss.Width(lead+id)+2+lipgloss.Width(counts) <= p.width() {
			p.line(lead + id + "  " + counts)
		} else {
			p.line(lead + id)
			for _, l := range wrap(p.fleetCounts(&c.Counts, false), p.width()-column) {
				p.line(strings.Repeat(" ", column) + l)
			}
		}
		if p.Quiet {
			continue
		}
		p.cases(c)
	}
}

// sameCase is cases that differ in the subject only, on the same hosts.
type sameCase struct {
	fleet.Case
	subjects []string
}

func sameCases(cases []fleet.Case) []*sameCase {
	var out []*sameCase
	at := map[fleet.Case]*sameCase{}
	for _, c := range cases {
		key := c
		key.Subject, key.Want = "", ""
		key.Got, key.Why, key.Next = neutralText(c.Got, c.Subject), neutralText(c.Why, c.Subject), ""
		s := at[key]
		if s == nil {
			s = &sameCase{Case: c}
			at[key] = s
			out = append(out, s)
		}
		if c.Subject != "" {
			s.subjects = append(s.subjects, Clean(c.Subject))
		}
	}
	return out
}

func (p fleetPrinter) cases(c *fleet.Check) {
	if len(c.Cases) > 0 && c.Title != "" {
		for _, l := range wrap(Clean(c.Title), p.width()-column) {
			p.line(strings.Repeat(" ", column) + p.bold.Render(l))
		}
	}
	all := sameCases(c.Cases)
	worst, _, _ := worst(&c.Counts)
	for i, k := range all {
		if i == someCases && !p.Verbose {
			p.line(strings.Repeat(" ", column) + p.dim.Render("and "+plural(len(all)-i+c.MoreCases, "more case")))
			return
		}
		label, text := "got", k.Got
		if text == "" || k.Status == check.Unknown || k.Status == check.Error {
			label, text = "why", k.Why
		}
		if k.Status != worst {
			text = string(k.Status) + ": " + text
		}
		if k.Waived {
			text += " (waived)"
		}
		p.labelled(column, label, Clean(text), p.plain)
		if len(k.subjects) > 0 {
			p.labelled(column, "of", shorten(k.subjects, p.width()-column-6, p.Verbose), p.plain)
		}
		p.labelled(column, "on", p.some(k.Hosts, k.N, p.width()-column-6), p.bold)
		if p.Verbose {
			p.labelled(column, "want", Clean(k.Want), p.plain)
			if label == "got" {
				p.labelled(column, "why", Clean(k.Why), p.plain)
			}
			p.labelled(column, "next", Clean(k.Next), p.plain)
		}
	}
	if c.MoreCases > 0 {
		p.line(strings.Repeat(" ", column) + p.dim.Render("and "+plural(c.MoreCases, "more case")))
	}
}

// some is a folded list of n hosts, cut where it is long unless Verbose.
func (p fleetPrinter) some(hosts string, n, room int) string {
	hosts = Clean(hosts)
	count := ""
	switch {
	case n > 1 && n == p.all && !p.Verbose:
		return "all hosts"
	case hosts == "":
		return plural(n, "host")
	case n > 1:
		count = " (" + plural(n, "host") + ")"
	}
	if p.Verbose || len(hosts)+len(count) <= room {
		return hosts + count
	}
	cut := strings.LastIndexByte(hosts[:max(1, room-len(count)-4)], ',')
	if cut < 1 {
		cut = max(1, room-len(count)-4)
	}
	return hosts[:cut] + ",..." + count
}

func (p fleetPrinter) changed(f *fleet.Fleet) {
	if f.Since == nil {
		return
	}
	p.rule("changed since "+Clean(f.Since.Source), "")
	if len(f.Changed) == 0 {
		p.line("  no verdict of a host that was there")
	}
	for i := range f.Changed {
		c := &f.Changed[i]
		if i == someOutliers && !p.Verbose {
			p.line("  " + p.dim.Render("and "+strconv.Itoa(len(f.Changed)-i)+" more"))
			return
		}
		lead := "  " + p.id.Render(Clean(c.Check)) + "  " + c.Before + " → " + p.word(c.After) + "  "
		p.hang(lead, p.some(c.Hosts, c.N, p.width()-lipgloss.Width(lead)))
	}
}

// hang writes a text after a lead, wrapped under itself.
func (p fleetPrinter) hang(lead, text string) {
	at := lipgloss.Width(lead)
	if at > p.width()/2 {
		p.line(lead)
		lead, at = strings.Repeat(" ", 6), 6
	}
	for i, l := range wrap(text, p.width()-at) {
		if i > 0 {
			lead = strings.Repeat(" ", at)
		}
		p.line(lead + l)
	}
}

// word is a verdict in its colour.
func (p fleetPrinter) word(w string) string {
	switch w {
	case "fail", "error":
		return p.red.Render(w)
	case "warn", "pending":
		return p.yellow.Render(w)
	case "unknown":
		return p.magenta.Render(w)
	case "pass":
		return p.green.Render(w)
	}
	return w
}

func (p fleetPrinter) clusters(f *fleet.Fleet) {
	if len(f.Clusters) == 0 {
		return
	}
	p.rule("hosts that are alike", "by their verdicts, against the largest kind")
	for i := range f.Clusters {
		c := &f.Clusters[i]
		if i == someClusters && !p.Verbose {
			n := 0
			for _, c := range f.Clusters[i:] {
				n += c.N
			}
			p.line("  " + p.dim.Render("and "+plural(len(f.Clusters)-i, "more kind")+" with "+plural(n, "host")))
			return
		}
		n := strconv.Itoa(c.N)
		lead := strings.Repeat(" ", max(0, 7-len(n))) + p.bold.Render(n) + "  "
		p.hang(lead, p.some(c.Hosts, 1, p.width()-lipgloss.Width(lead)))
		var parts []string
		for _, d := range c.Differs {
			parts = append(parts, Clean(d.Check)+" "+d.Here)
		}
		if len(parts) > 0 {
			for _, l := range wrap(shorten(parts, 2*(p.width()-column), p.Verbose), p.width()-column) {
				p.line(strings.Repeat(" ", column) + p.dim.Render(l))
			}
		}
	}
}

func (p fleetPrinter) outliers(f *fleet.Fleet) {
	if f.Summary.Hosts < 2 {
		return
	}
	right := ""
	if f.Scattered > 0 {
		right = plural(f.Scattered, "value") + " too varied to compare"
	}
	p.rule("what few hosts have", right)
	if len(f.Outliers) == 0 {
		p.line("  nothing that a clear majority has otherwise")
	}
	hosts := ""
	for i := range f.Outliers {
		o := &f.Outliers[i]
		if i == someOutliers && !p.Verbose {
			p.line("  " + p.dim.Render("and "+strconv.Itoa(len(f.Outliers)-i+f.MoreOutliers)+" more"))
			return
		}
		if key := o.Hosts + "\x00" + o.Group + o.Norm; key != hosts {
			hosts = key
			among := fmt.Sprintf(" (%d of %d", o.N, o.Of)
			switch {
			case o.Norm != "":
				among += ": " + Clean(o.Norm)
			case o.Group != "":
				among += " with " + Clean(o.Group)
			}
			p.hang("  ", p.bold.Render(p.some(o.Hosts, 1, p.width()-2-min(len(among)+1, p.width()/2)))+among+")")
		}
		what := strings.Join(nonEmpty(Clean(o.Check), Clean(o.Subject)), " ")
		switch {
		case o.Check == "":
			what = Clean(o.What)
		case o.What != "status" && o.What != "got": // a source of evidence
			what = Clean(o.What) + " (" + what + ")"
		}
		text := absentOr(o.Value) + ", usually " + absentOr(o.Usual)
		if o.Also > 0 {
			text += fmt.Sprintf(" (and %d more with it)", o.Also)
		}
		for j, l := range wrap(what+": "+text, p.width()-6) {
			if j > 0 {
				l = "  " + l
			}
			p.line("    " + l)
		}
	}
	if f.MoreOutliers > 0 {
		p.line("  " + p.dim.Render("and "+strconv.Itoa(f.MoreOutliers)+" more"))
	}
}

func absentOr(s string) string {
	if s == "" {
		return "absent"
	}
	return Clean(s)
}

func (p fleetPrinter) problems(f *fleet.Fleet) {
	if len(f.Problems)+f.MoreProblems == 0 {
		return
	}
	p.rule("problems", "")
	list := slices.Clone(f.Problems)
	slices.SortStableFunc(list, func(a, b fleet.Problem) int { // those that lost a host first
		switch {
		case a.Lost == b.Lost:
			return 0
		case a.Lost:
			return -1
		}
		return 1
	})
	for i := range list {
		r := &list[i]
		if i == someProblems && !p.Verbose {
			p.line("  " + p.dim.Render("and "+strconv.Itoa(len(list)-i+f.MoreProblems)+" more"))
			return
		}
		where := Clean(r.Source)
		if where == "-" {
			where = "standard input"
		}
		if r.Line > 0 {
			where += ":" + strconv.Itoa(r.Line)
		}
		if r.Host != "" {
			where += " (" + Clean(r.Host) + ")"
		}
		sign, style := "?", p.magenta
		if !r.Lost {
			sign, style = "!", p.yellow
		}
		if where != "" {
			where += ": "
		}
		p.hang("  "+style.Render(sign)+" ", where+Clean(r.Why))
	}
	if f.MoreProblems > 0 {
		p.line("  " + p.dim.Render("and "+strconv.Itoa(f.MoreProblems)+" more"))
	}
}
