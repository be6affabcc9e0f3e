// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/check"
)

// column is where the text of a finding begins, after sign and status word.
const column = 12

// printer writes one text.
type printer struct {
	Text
	palette
	b strings.Builder
}

func (t Text) printer() *printer { return &printer{Text: t, palette: newPalette()} }

func (p *printer) line(s string) {
	p.b.WriteString(strings.TrimRight(s, " "))
	p.b.WriteByte('\n')
}

// labelled writes a text after a label, wrapped under itself.
func (p *printer) labelled(indent int, label, text string, style lipgloss.Style) {
	if text == "" {
		return
	}
	const labelWidth = 6
	lead := strings.Repeat(" ", indent) + p.key.Render(label) + strings.Repeat(" ", labelWidth-len(label))
	for i, l := range wrap(text, p.width()-indent-labelWidth) {
		if i > 0 {
			lead = strings.Repeat(" ", indent+labelWidth)
		}
		p.line(lead + style.Render(l))
	}
}

// Report gives a report as text for a person: who was judged and by what, the
// verdict, then what needs attention, the worst first.
func (t Text) Report(r *Report) string {
	p := t.printer()
	r = cleaned(r)
	if t.Quiet {
		p.verdict(r)
		for _, a := range foldAreas(r.Findings) {
			for _, b := range a.blocks {
				p.heading(b)
			}
		}
		return t.finish(&p.b)
	}
	p.header(r)
	p.line("")
	p.verdict(r)
	areas := foldAreas(r.Findings)
	for _, a := range areas {
		if len(a.blocks) > 0 {
			p.area(a)
		}
	}
	p.calm(areas)
	p.footer(r)
	return t.finish(&p.b)
}

func (p *printer) header(r *Report) {
	about := strings.Join(r.Host.about(), " · ")
	if !p.Unnamed {
		name := "unnamed host"
		if r.Host.Name != nil {
			name = *r.Host.Name
		}
		about = p.bold.Render(name) + " · " + about
	}
	p.pair("host", about)
	switch r.Host.Source {
	case "", "live", "root", "bundle":
	default:
		p.pair("from", Clean(r.Host.Source)+": what it does not hold is unknown")
	}
	for i, l := range p.Machine {
		key := "machine"
		if i > 0 {
			key = ""
		}
		p.pair(key, Clean(l))
	}
	p.pair("profile", strings.Join(r.Profile.Layers, " + "))
	switch {
	case r.Profile.Intent == "":
		p.pair("intent", "none stated, none could be assumed: state it with --intent")
	case r.Profile.IntentSource == "assumed":
		p.pair("intent", r.Profile.Intent+" (assumed: it warns at most; state it with --intent)")
	default:
		p.pair("intent", r.Profile.Intent+" (stated)")
	}
}

// about says what is known of the host beside its name.
func (h *Host) about() (words []string) {
	if h.Kernel != nil {
		words = append(words, "Linux "+*h.Kernel)
	}
	if h.Arch != nil {
		words = append(words, *h.Arch)
	}
	if n := h.PageSize; n != nil {
		words = append(words, strconv.Itoa(*n/1024)+" KiB pages")
	}
	if len(words) == 0 {
		words = append(words, "kernel not known")
	}
	return words
}

// pair writes a header line.
func (p *printer) pair(key, value string) {
	const indent = 9
	lead := p.key.Render(key) + strings.Repeat(" ", indent-len(key))
	for i, l := range wrap(value, p.width()-indent) {
		if i > 0 {
			lead = strings.Repeat(" ", indent)
		}
		p.line(lead + l)
	}
}

func (p *printer) verdict(r *Report) {
	s := &r.Summary
	sign, word, how := s.verdict()
	style := map[tone]lipgloss.Style{good: p.green, bad: p.red, uneasy: p.yellow, unsure: p.magenta}[how].Bold(true)
	lines := wrap(p.counts(s, false), p.width()-lipgloss.Width(sign+" "+word)-3)
	if len(lines) > 1 {
		p.line(style.Render(sign + " " + word))
		for _, l := range wrap(p.counts(s, false), p.width()-2) {
			p.line("  " + l)
		}
		return
	}
	p.line(style.Render(sign+" "+word) + "   " + lines[0])
}

// counts gives the counts that are not zero, the worst first.
func (p *printer) counts(s *Summary, colour bool) string {
	return counted(colour, []counting{
		{s.Fail, "fail", p.red},
		{s.Error, "error", p.red},
		{s.Warn, "warn", p.yellow},
		{s.Pending, "pending", p.yellow},
		{s.Unknown, "unknown", p.magenta},
		{s.Waived, "waived", p.plain},
		{s.Pass, "pass", p.green},
		{s.Skip, "skip", p.dim},
	})
}

// counting is how many there are of something.
type counting struct {
	n     int
	word  string
	style lipgloss.Style
}

// counted gives those that are not zero.
func counted(colour bool, all []counting) string {
	var parts []string
	for _, c := range all {
		if c.n > 0 {
			text := strconv.Itoa(c.n) + " " + c.word
			if colour {
				text = c.style.Render(text)
			}
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, " · ")
}

// rule writes an area's heading over the whole width.
func (p *printer) rule(name, right string) {
	fill := p.width() - lipgloss.Width(name) - lipgloss.Width(right) - 5
	if right != "" && fill < 2 { // too narrow for both
		p.rule(name, "")
		for _, l := range wrap(right, p.width()-2) {
			p.line("  " + l)
		}
		return
	}
	if right == "" {
		fill++
	}
	s := p.dim.Render("──") + " " + p.bold.Render(name) + " " + p.dim.Render(strings.Repeat("─", max(2, fill)))
	if right != "" {
		s += " " + right
	}
	p.line("")
	p.line(s)
}

func (p *printer) area(a *area) {
	p.rule(a.name, p.counts(&a.counts, true))
	for i, b := range a.blocks {
		if i > 0 {
			p.line("")
		}
		p.block(b)
	}
	if !p.Verbose {
		return
	}
	p.passes(a)
	for _, b := range a.skips {
		p.block(b)
	}
}

// short: a block that needs only a line or two.
func (b *block) short() bool { return b.Status == check.Unknown || b.Status == check.Skip }

// heading writes a block's first line: sign, status, check and title, and what
// cannot wait for the lines below in a quiet report.
func (p *printer) heading(b *block) {
	sign, word, style := p.mark(b.Status, b.Pending, b.Waiver != nil)
	lead := "  "
	if p.Quiet {
		lead = ""
	}
	lead += style.Render(sign) + " " + style.Render(word)
	lead = pad(lead, column)
	ids, title := b.checks[0], b.Title
	if n := len(b.checks); n > 1 {
		ids, title = shorten(b.checks, p.width()-column, p.Verbose), ""
	}
	room := p.width() - column
	switch {
	case title == "":
		for i, l := range wrap(ids, room) {
			if i > 0 {
				lead = strings.Repeat(" ", column)
			}
			p.line(lead + p.id.Render(l))
		}
	case lipgloss.Width(ids)+2+lipgloss.Width(title) <= room:
		p.line(lead + p.id.Render(ids) + "  " + p.bold.Render(title))
	default:
		p.line(lead + p.id.Render(ids))
		for _, l := range wrap(title, room) {
			p.line(strings.Repeat(" ", column) + p.bold.Render(l))
		}
	}
	if p.Quiet {
		p.subjects(b.subjects(), "")
	}
}

// subjects writes whom a block is about, on as many lines as it takes when
// verbose and on one otherwise.
func (p *printer) subjects(all []string, label string) {
	if len(all) == 0 || len(all) == 1 && all[0] == "" {
		return
	}
	room := p.width() - column
	for _, l := range wrap(label+shorten(all, room-len(label), p.Verbose), room) {
		p.line(strings.Repeat(" ", column) + l)
	}
}

func (p *printer) block(b *block) {
	p.heading(b)
	all := b.subjects()
	one := len(b.items) == 1
	if one || b.short() {
		p.subjects(all, "")
	}
	why, want, next := b.Why, b.Want, b.Next
	if b.differs {
		why, want = b.neutral.Why, b.neutral.Want
		if b.neutral.Next != b.Next {
			next += " (likewise for the others)"
		}
	}
	if b.short() {
		p.labelled(column, "why", why, p.plain)
		p.labelled(column, "next", next, p.plain)
		p.evidence(b)
		return
	}
	p.labelled(column, "want", want, p.plain)
	for _, it := range b.items {
		got := it.got
		switch {
		case got == "":
		case !one:
			on := got + " on "
			got = on + shorten(it.subjects, p.width()-column-6-lipgloss.Width(on), p.Verbose)
		case len(all) > 1:
			got = neutralText(got, b.Subject)
		}
		p.labelled(column, "got", got, p.bold)
	}
	p.truth(b)
	if w := b.Waiver; w != nil { // what it means and what to do was weighed already
		p.labelled(column, "by", w.Owner+" until "+w.Until+": "+w.Reason, p.plain)
		if !p.Verbose {
			return
		}
	}
	p.labelled(column, "why", why, p.plain)
	p.labelled(column, "next", next, p.plain)
	if p.Verbose {
		p.labelled(column, "from", b.Source, p.dim)
		for _, c := range b.Fix {
			p.labelled(column, "fix", fmt.Sprintf("%s: %s → %s (%s)", strings.Join(nonEmpty(c.Kind, c.Target, c.Name), " "), quoteEmpty(c.Before), quoteEmpty(c.After), c.Tier), p.plain)
		}
	}
	p.evidence(b)
}

func (p *printer) truth(b *block) {
	t := b.Truth
	if t == nil || t.Configured == t.NextBoot && t.NextBoot == t.Live {
		return
	}
	known := func(s string) string {
		if s == "" {
			return "not known"
		}
		return s
	}
	p.labelled(column, "truth", "configured: "+known(t.Configured)+" · next boot: "+known(t.NextBoot)+" · live: "+known(t.Live), p.plain)
}

func (p *printer) evidence(b *block) {
	if !p.Verbose {
		return
	}
	seen := map[check.Evidence]bool{}
	for _, it := range b.items {
		for _, e := range it.evidence {
			if !seen[e] {
				seen[e] = true
				p.seen(e)
			}
		}
	}
}

func (p *printer) seen(e check.Evidence) {
	p.labelled(column, "seen", e.Source+": "+quoteEmpty(e.Value), p.dim)
}

// passes lists what holds, one line each, with its evidence.
func (p *printer) passes(a *area) {
	sign, word, style := p.mark(check.Pass, false, false)
	for _, f := range a.passes {
		lead := pad("  "+style.Render(sign)+" "+style.Render(word), column)
		rest := strings.Join(nonEmpty(f.Subject, f.Got), ": ")
		if rest == "" {
			rest = f.Title
		}
		lead += p.id.Render(f.Check) + "  "
		hang := column
		if room := p.width() - column - len(f.Check) - 2; room >= 24 {
			hang += len(f.Check) + 2
		} else {
			p.line(lead)
			lead = strings.Repeat(" ", column)
		}
		for i, l := range wrap(rest, p.width()-hang) {
			if i > 0 {
				lead = strings.Repeat(" ", hang)
			}
			p.line(lead + l)
		}
		for _, e := range f.Evidence {
			p.seen(e)
		}
	}
}

// calm lists the areas that need no attention, one line each.
func (p *printer) calm(areas []*area) {
	var passed, idle []*area
	for _, a := range areas {
		switch {
		case len(a.blocks) > 0:
		case len(a.passes) > 0:
			passed = append(passed, a)
		default:
			idle = append(idle, a)
		}
	}
	if len(passed) > 0 {
		if p.Verbose {
			for _, a := range passed {
				p.rule(a.name, p.counts(&a.counts, true))
				p.passes(a)
				for _, b := range a.skips {
					p.block(b)
				}
			}
		} else {
			p.rule("in order", "")
			width := 0
			for _, a := range passed {
				width = max(width, len(a.name))
			}
			for _, a := range passed {
				lead := "  " + p.green.Render("✓") + " " + pad(a.name, width+2)
				for i, l := range wrap(p.counts(&a.counts, false), p.width()-width-6) {
					if i > 0 {
						lead = strings.Repeat(" ", width+6)
					}
					p.line(lead + l)
				}
			}
		}
	}
	if len(idle) == 0 {
		return
	}
	p.rule("not applicable here", "")
	if p.Verbose {
		for _, a := range idle {
			for _, b := range a.skips {
				p.block(b)
			}
		}
		return
	}
	names := make([]string, len(idle))
	for i, a := range idle {
		names[i] = a.name
	}
	for _, l := range wrap(strings.Join(names, ", "), p.width()-4) {
		p.line("  " + p.dim.Render("–") + " " + p.dim.Render(l))
	}
}

func (p *printer) footer(r *Report) {
	p.line("")
	p.line(p.dim.Render(strings.Repeat("─", p.width())))
	meaning := fmt.Sprintf("exit %d: %s", r.Summary.Exit, Meaning(r.Summary.Exit))
	counts := p.counts(&r.Summary, true)
	if gap := p.width() - lipgloss.Width(counts) - len(meaning); gap >= 2 {
		p.line(counts + strings.Repeat(" ", gap) + p.dim.Render(meaning))
	} else {
		for _, l := range wrap(counts, p.width()) {
			p.line(l)
		}
		p.line(p.dim.Render(meaning))
	}
	p.pairs(p.hints(r))
}

// pairs writes commands or flags and what they do, aligned; or below each
// other, where that leaves too little room.
func (p *printer) pairs(rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, lipgloss.Width(r[0]))
	}
	room := p.width() - width - 4
	if room < 16 || width > 30 && room < 28 {
		for _, r := range rows {
			for _, l := range wrap(r[0], p.width()-2) {
				p.line("  " + p.id.Render(l))
			}
			if r[1] == "" {
				continue
			}
			for _, l := range wrap(r[1], p.width()-6) {
				p.line("      " + p.plain.Render(l))
			}
		}
		return
	}
	for _, r := range rows {
		lead := "  " + p.id.Render(r[0]) + strings.Repeat(" ", width-lipgloss.Width(r[0])+2)
		for i, l := range wrap(r[1], p.width()-width-4) {
			if i > 0 {
				lead = strings.Repeat(" ", width+4)
			}
			p.line(lead + p.plain.Render(l))
		}
	}
}

// Section is a part of a help text.
type Section struct {
	Title string // "" for none
	Text  string // paragraphs, wrapped; indented lines as they are
	Rows  [][2]string
}

// Help gives the help of a command.
func (t Text) Help(sections []Section) string {
	p := t.printer()
	for i, s := range sections {
		if i > 0 {
			p.line("")
		}
		if s.Title != "" {
			p.line(p.bold.Render(s.Title))
		}
		if s.Text != "" {
			p.prose(s.Text)
		}
		p.pairs(s.Rows)
	}
	return t.finish(&p.b)
}

// hints are the commands that help next, and what each gives.
func (p *printer) hints(r *Report) [][2]string {
	var hints [][2]string
	var worst *Finding
	root := 0
	for i := range r.Findings {
		f := &r.Findings[i]
		if attention(f) && f.Waiver == nil && (worst == nil || rank(f) < rank(worst)) {
			worst = f
		}
		if f.Status == check.Unknown && strings.Contains(f.Why, "(needs root)") {
			root++
		}
	}
	if worst != nil {
		hints = append(hints, [2]string{"hostcheck explain " + worst.Check, "what it means and how to fix it by hand"})
	}
	if root > 0 && r.Host.Source == "live" {
		verb := "needs"
		if root > 1 {
			verb = "need"
		}
		hints = append(hints, [2]string{"sudo hostcheck", plural(root, "finding") + " " + verb + " root to be judged"})
	}
	if !p.Verbose {
		hints = append(hints, [2]string{"hostcheck -v", "evidence, passes and every subject"})
	}
	return hints
}

// shorten lists names in at most width cells: the first ones and how many more
// there are. full lists all.
func shorten(names []string, width int, full bool) string {
	all := strings.Join(names, ", ")
	if full || lipgloss.Width(all) <= width {
		return all
	}
	if len(names) == 1 {
		return names[0]
	}
	best := fmt.Sprintf("%s and %d more", names[0], len(names)-1)
	for n := 2; n < len(names); n++ {
		listed := strings.Join(names[:n], ", ")
		if lipgloss.Width(listed) > width {
			break
		}
		if s := fmt.Sprintf("%s and %d more", listed, len(names)-n); lipgloss.Width(s) <= width {
			best = s
		}
	}
	return best
}

func nonEmpty(ss ...string) []string {
	return slices.DeleteFunc(ss, func(s string) bool { return s == "" })
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// cleaned is r with every string that came from a host or a profile made safe
// to print.
func cleaned(r *Report) *Report {
	c := *r
	for _, s := range []**string{&c.Host.Name, &c.Host.Kernel, &c.Host.Arch} {
		if *s != nil {
			v := Clean(**s)
			*s = &v
		}
	}
	c.Profile.Layers = slices.Clone(c.Profile.Layers)
	for i, l := range c.Profile.Layers {
		c.Profile.Layers[i] = Clean(l)
	}
	c.Profile.Intent = Clean(c.Profile.Intent)
	c.Findings = slices.Clone(c.Findings)
	for i := range c.Findings {
		f := &c.Findings[i]
		for _, s := range []*string{&f.Subject, &f.Want, &f.Got, &f.Why, &f.Next, &f.Source} {
			*s = Clean(*s)
		}
		if w := f.Waiver; w != nil {
			f.Waiver = &Waiver{Clean(w.Owner), Clean(w.Until), Clean(w.Reason)}
		}
		if f.Truth != nil {
			f.Truth = &check.Truth{Configured: Clean(f.Truth.Configured), NextBoot: Clean(f.Truth.NextBoot), Live: Clean(f.Truth.Live)}
		}
		f.Evidence = slices.Clone(f.Evidence)
		for j, e := range f.Evidence {
			f.Evidence[j] = check.Evidence{Source: Clean(e.Source), Value: Clean(e.Value)}
		}
		f.Fix = slices.Clone(f.Fix)
		for j := range f.Fix {
			x := &f.Fix[j]
			for _, s := range []*string{&x.Target, &x.Name, &x.Before, &x.After} {
				*s = Clean(*s)
			}
		}
	}
	return &c
}
