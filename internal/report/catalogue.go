// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Listed is one check in "hostcheck list -f json".
type Listed struct {
	ID       string         `json:"id"`
	Area     string         `json:"area"`
	Title    string         `json:"title" doc:"what holds when the check passes"`
	Severity check.Severity `json:"severity" enum:"info,low,medium,high"`
	Fixable  bool           `json:"fixable"`
	Tier     *plan.Tier     `json:"tier" enum:"safe,link,boot,firmware" doc:"the most disturbing change that a fix makes; null when there is no fix"`
	Strict   bool           `json:"strict" doc:"no waiver covers it"`
	Tune     *string        `json:"tune" doc:"name of the tune module about the same subject"`
}

// List makes the catalogue of checks, in their order.
func List(checks []*check.Check) []Listed {
	all := make([]Listed, 0, len(checks))
	for _, c := range checks {
		l := Listed{ID: c.ID, Area: c.Area(), Title: c.Title, Severity: c.Severity, Strict: c.Strict}
		if c.FixTier != "" {
			l.Fixable, l.Tier = c.FixTier != plan.Firmware, &c.FixTier
		}
		if c.Tune != "" {
			l.Tune = &c.Tune
		}
		all = append(all, l)
	}
	return all
}

// Explained is one check in "hostcheck explain ID -f json".
type Explained struct {
	Listed
	Doc      string   `json:"doc"`
	Refs     []string `json:"refs"`
	Requires []string `json:"requires" doc:"checks whose failure makes this one noise"`
}

// Explain makes the full description of a check.
func Explain(c *check.Check) Explained {
	e := Explained{Listed: List([]*check.Check{c})[0], Doc: c.Doc, Refs: c.Refs, Requires: c.Requires}
	if e.Refs == nil {
		e.Refs = []string{}
	}
	if e.Requires == nil {
		e.Requires = []string{}
	}
	return e
}

// List gives the catalogue as a table.
func (t Text) List(all []Listed) string {
	rows := [][]string{{"ID", "SEVERITY", "FIX", "TITLE"}}
	for _, l := range all {
		tier := "-"
		if l.Tier != nil {
			tier = string(*l.Tier)
		}
		rows = append(rows, []string{l.ID, string(l.Severity), tier, l.Title})
	}
	return t.Table(rows)
}

// tiers says what each tier of a fix means for the person who runs it.
var tiers = map[plan.Tier]string{
	plan.Safe:     "safe: online, and reversible at once",
	plan.Link:     "link: may flap a port, rebind a driver or destroy VFs",
	plan.Boot:     "boot: takes effect at the next boot",
	plan.Firmware: "firmware: printed, never done",
}

// Explain gives a check's description: what it is about, why, how to read its
// evidence and how to fix by hand.
func (t Text) Explain(e Explained) string {
	p := t.printer()
	p.line(p.id.Render(e.ID) + "  " + p.bold.Render(e.Title))
	p.line("")
	p.pair("severity", string(e.Severity))
	if e.Tier != nil {
		p.pair("fix", tiers[*e.Tier])
	} else {
		p.pair("fix", "by hand only")
	}
	if e.Strict {
		p.pair("strict", "no waiver covers it")
	}
	if len(e.Requires) > 0 {
		p.pair("requires", strings.Join(e.Requires, ", "))
	}
	if e.Tune != nil {
		p.pair("tune", *e.Tune)
	}
	p.line("")
	p.prose(e.Doc)
	if len(e.Refs) > 0 {
		p.line("")
		p.line(p.bold.Render("References"))
		for _, r := range e.Refs {
			if !strings.Contains(r, " ") { // an address stays whole, to be copied
				p.line("  - " + r)
				continue
			}
			for i, l := range wrap(r, p.width()-4) {
				p.line([]string{"  - ", "    "}[min(i, 1)] + l)
			}
		}
	}
	return t.finish(&p.b)
}

// prose writes markdown-like text: paragraphs and list items are wrapped,
// indented and fenced lines stay as they are.
func (p *printer) prose(doc string) {
	paragraph := []string{}
	flush := func() {
		if len(paragraph) == 0 {
			return
		}
		first, hang := paragraph[0], ""
		if m := bullet(first); m != "" {
			hang = strings.Repeat(" ", len(m))
		}
		indent := first[:len(first)-len(strings.TrimLeft(first, " "))]
		for i, l := range wrap(strings.Join(paragraph, " "), min(p.width(), 100)-len(indent)-len(hang)) {
			if i > 0 {
				l = hang + l
			}
			p.line(indent + l)
		}
		paragraph = nil
	}
	fenced := false
	for line := range strings.SplitSeq(strings.Trim(doc, "\n"), "\n") {
		line = strings.ReplaceAll(strings.TrimRight(line, " \t\r"), "\t", "    ")
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case strings.HasPrefix(trimmed, "```"):
			flush()
			fenced = !fenced
		case fenced:
			p.line("    " + p.id.Render(line))
		case trimmed == "":
			flush()
			p.line("")
		case len(paragraph) == 0 && strings.HasPrefix(line, "    "):
			p.line(strings.TrimSuffix(line, trimmed) + p.id.Render(trimmed))
		case strings.HasPrefix(line, "#"):
			flush()
			p.line(p.bold.Render(strings.TrimLeft(line, "# ")))
		case bullet(trimmed) != "":
			flush()
			paragraph = append(paragraph, line)
		default:
			paragraph = append(paragraph, line)
		}
	}
	flush()
}

// bullet is the mark of a list item ("- ", "2. ") that s begins with, or "".
func bullet(s string) string {
	s = strings.TrimLeft(s, " ")
	if strings.HasPrefix(s, "- ") || strings.HasPrefix(s, "* ") {
		return s[:2]
	}
	n := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if n > 0 && strings.HasPrefix(s[n:], ". ") {
		return s[:n+2]
	}
	return ""
}
