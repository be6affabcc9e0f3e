// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/profile"
)

// MergedProfile is what "hostcheck profile show" says.
type MergedProfile struct {
	Profile
	Why     string   // of the intent
	Require []string // globs of the checks that must be judged
	Strict  []string // globs of the checks that cannot be waived
	Values  []MergedValue
}

// MergedValue is one value of one layer.
type MergedValue struct {
	Key, Value, From string
	Applied          bool
	Why              string // why it is not applied, or what could not be judged about its scope
}

// Merged gives a merged profile as text: the values that apply by area, each
// with its source; with Verbose those that do not, and why.
func (t Text) Merged(m MergedProfile) string {
	p := t.printer()
	p.pair("layers", Clean(strings.Join(m.Layers, " + ")))
	intent := m.Intent
	if intent == "" {
		intent = "none"
	}
	p.pair("intent", Clean(intent+" ("+strings.Join(nonEmpty(m.IntentSource, m.Why), ": ")+")"))
	if len(m.Require) > 0 {
		p.pair("require", Clean(strings.Join(m.Require, ", ")))
	}
	if len(m.Strict) > 0 {
		p.pair("strict", Clean(strings.Join(m.Strict, ", ")))
	}
	p.pair("hash", Clean(m.Hash))
	var areas []string
	for _, v := range m.Values {
		if a := areaOf(v.Key); !slices.Contains(areas, a) && (v.Applied || t.Verbose) {
			areas = append(areas, a)
		}
	}
	left := 0
	for _, a := range areas {
		p.rule(Clean(a), "")
		for _, v := range m.Values {
			if areaOf(v.Key) == a && (v.Applied || t.Verbose) {
				p.value(v)
			}
		}
	}
	for _, v := range m.Values {
		if !v.Applied {
			left++
		}
	}
	if left > 0 && !t.Verbose {
		p.line("")
		p.line(p.dim.Render(plural(left, "value") + " left out by scope or replaced by a later layer; -v lists them"))
	}
	return t.finish(&p.b)
}

func areaOf(key string) string {
	a, _, _ := strings.Cut(key, ".")
	return a
}

func (p *printer) value(v MergedValue) {
	style := p.plain
	if !v.Applied {
		style = p.dim
	}
	key := "  " + Clean(v.Key)
	for i, l := range wrap(Clean(v.Value), p.width()-lipgloss.Width(key)-2) {
		if i == 0 {
			p.line(p.id.Render(key) + "  " + style.Render(l))
			continue
		}
		p.line(strings.Repeat(" ", lipgloss.Width(key)+2) + style.Render(l))
	}
	from := Clean(v.From)
	for _, l := range wrap(from, p.width()-6) {
		p.line("      " + p.dim.Render(l))
	}
	if v.Why != "" {
		note := "note: "
		if !v.Applied {
			note = "not applied: "
		}
		for _, l := range wrap(note+Clean(v.Why), p.width()-6) {
			p.line("      " + p.yellow.Render(l))
		}
	}
}

// Table gives rows under a heading, the last column wrapped.
func (t Text) Table(rows [][]string) string {
	p := t.printer()
	if len(rows) == 0 {
		return ""
	}
	last := len(rows[0]) - 1
	widths := make([]int, last)
	at := 0
	for i := range widths {
		for _, r := range rows {
			widths[i] = max(widths[i], lipgloss.Width(Clean(r[i])))
		}
		at += widths[i] + 2
	}
	for n, r := range rows {
		lead := ""
		for i, w := range widths {
			style := p.plain
			switch {
			case n == 0:
				style = p.bold
			case i == 0:
				style = p.id
			}
			cell := Clean(r[i])
			lead += style.Render(cell) + strings.Repeat(" ", w-lipgloss.Width(cell)+2)
		}
		for i, l := range wrap(Clean(r[last]), p.width()-at) {
			if i > 0 {
				lead = strings.Repeat(" ", at)
			}
			if n == 0 {
				l = p.bold.Render(l)
			}
			p.line(lead + l)
		}
	}
	return t.finish(&p.b)
}

// ProfileDiff tells what two profiles want differently, key by key.
func (t Text) ProfileDiff(a, b string, found []profile.Difference) string {
	p := t.printer()
	p.line(p.red.Render("-") + " " + p.bold.Render(Clean(a)))
	p.line(p.green.Render("+") + " " + p.bold.Render(Clean(b)))
	for _, d := range found {
		p.line("")
		p.line(p.id.Render(Clean(d.Key)))
		if d.A != nil {
			p.said("-", *d.A, p.red)
		}
		if d.B != nil {
			p.said("+", *d.B, p.green)
		}
	}
	return t.finish(&p.b)
}

func (p *printer) said(sign, text string, style lipgloss.Style) {
	for _, l := range wrap(Clean(text), p.width()-4) {
		p.line("  " + style.Render(sign+" "+l))
		sign = " "
	}
}
