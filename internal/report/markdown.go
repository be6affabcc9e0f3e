// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hostcheck/hostcheck/internal/check"
)

// Markdown gives the report as a page to paste into an issue, in the dialect of
// GitHub and GitLab: the verdict, who was judged and by what, then what needs
// attention, the worst first. What comes from the host is no markup there: it
// makes no link, mentions nobody and breaks no table.
func Markdown(r *Report) string {
	r = cleaned(r)
	m := &markdown{}
	name := "unnamed host"
	if r.Host.Name != nil {
		name = *r.Host.Name
	}
	sign, word, _ := r.Summary.verdict()
	m.line("## %s %s: %s", sign, inert(name), word)
	m.line("")
	m.line("%s (exit %d: %s)", (&printer{}).counts(&r.Summary, false), r.Summary.Exit, Meaning(r.Summary.Exit))
	m.line("")
	m.line("| | |")
	m.line("| --- | --- |")
	m.row("host", strings.Join(r.Host.about(), " · "))
	m.row("profile", strings.Join(r.Profile.Layers, " + "))
	intent := r.Profile.Intent
	if intent != "" {
		intent += " (" + r.Profile.IntentSource + ")"
	}
	m.row("intent", intent)
	m.row("hostcheck", r.Tool.Version)
	if at := r.Host.CapturedAt; at != nil {
		m.row("captured", *at)
	}
	var passed, idle []string
	for _, a := range foldAreas(r.Findings) {
		if len(a.blocks) == 0 {
			if len(a.passes) > 0 {
				passed = append(passed, a.name+" ("+(&printer{}).counts(&a.counts, false)+")")
			} else {
				idle = append(idle, a.name)
			}
			continue
		}
		m.line("")
		m.line("### %s: %s", inert(a.name), (&printer{}).counts(&a.counts, false))
		for _, b := range a.blocks {
			m.block(b)
		}
	}
	if passed != nil || idle != nil {
		m.line("")
		m.line("<details><summary>In order, or not applicable</summary>")
		m.line("")
		for _, p := range passed {
			m.line("- ✓ %s", inert(p))
		}
		if idle != nil {
			m.line("- – not applicable: %s", inert(strings.Join(idle, ", ")))
		}
		m.line("")
		m.line("</details>")
	}
	return string(visible([]byte(m.b.String())))
}

// markdown writes one page.
type markdown struct{ b strings.Builder }

func (m *markdown) line(format string, args ...any) {
	_, _ = fmt.Fprintf(&m.b, format+"\n", args...)
}

func (m *markdown) row(key, value string) {
	if value != "" {
		m.line("| %s | %s |", key, inert(value))
	}
}

func (m *markdown) item(key, value string) {
	if value != "" {
		m.line("- **%s** %s", key, inert(value))
	}
}

func (m *markdown) block(b *block) {
	f := pageFindingOf(b)
	m.line("")
	ids := make([]string, len(f.Checks))
	for i, id := range f.Checks {
		ids[i] = code(id)
	}
	m.line("#### %s", strings.Join(nonEmpty(f.Sign, f.Word, strings.Join(ids, ", "), inert(f.Title)), " "))
	m.line("")
	const most = 160 // characters of a list of subjects
	if len(f.Subjects) > 0 {
		m.item("on", shorten(f.Subjects, most, false))
	}
	m.item("want", f.Want)
	for _, g := range f.Got {
		if g.Subjects != nil {
			g.Got += " on " + shorten(g.Subjects, most, false)
		}
		m.item("got", g.Got)
	}
	if t := f.Truth; t != nil {
		m.item("truth", "configured: "+quoteEmpty(t.Configured)+" · next boot: "+quoteEmpty(t.NextBoot)+" · live: "+quoteEmpty(t.Live))
	}
	m.item("why", f.Why)
	if f.Likewise {
		f.Next += " (likewise for the others)"
	}
	m.item("next", f.Next)
	m.item("from", f.Source)
	if w := f.Waiver; w != nil {
		m.item("waived", "by "+w.Owner+" until "+w.Until+": "+w.Reason)
	}
	var text strings.Builder
	for _, c := range uniqueFixes(b) {
		_, _ = fmt.Fprintf(&text, "  %s (%s)\n- %s\n+ %s\n", settingName(c.setting()), c.Tier, quoteEmpty(c.Before), quoteEmpty(c.After))
	}
	if b.Status == check.Fail || b.Status == check.Warn {
		m.fenced("fix", "diff", text.String())
	}
	text.Reset()
	const lines = 20 // an issue has 65536 characters at most
	for i, e := range f.Evidence {
		if i == lines && len(f.Evidence) > lines+1 {
			_, _ = fmt.Fprintf(&text, "and %d more\n", len(f.Evidence)-i)
			break
		}
		_, _ = fmt.Fprintf(&text, "%s: %s\n", e.Source, quoteEmpty(e.Value))
	}
	m.fenced("evidence", "text", text.String())
}

// uniqueFixes is what the findings of a block wish, each setting once.
func uniqueFixes(b *block) (out []Change) {
	seen := map[Change]bool{}
	for _, it := range b.items {
		for _, c := range it.fix {
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// fenced writes a text as it is, in a fence that it cannot end.
func (m *markdown) fenced(title, language, text string) {
	if text == "" {
		return
	}
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	m.line("")
	m.line("<details><summary>%s</summary>", title)
	m.line("")
	m.line("%s%s", fence, language)
	m.b.WriteString(text)
	m.line("%s", fence)
	m.line("")
	m.line("</details>")
}

// markup is what means something within a line; no text of a host begins one.
// An empty comment keeps "@name", "#1" and "https://" from becoming links.
var markup = sync.OnceValue(func() *strings.Replacer {
	pairs := []string{"&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@<!-- -->", "#", "#<!-- -->", "://", ":<!-- -->//", "www.", "www<!-- -->."}
	for _, c := range "\\`*_[]|~$" {
		pairs = append(pairs, string(c), `\`+string(c))
	}
	return strings.NewReplacer(pairs...)
})

// inert is a text that stands for itself within a line of markdown.
func inert(s string) string { return markup().Replace(Clean(s)) }

// code is a text as a code span, which nothing in it can end.
func code(s string) string { return "`" + strings.ReplaceAll(Clean(s), "`", "'") + "`" }
