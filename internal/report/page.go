// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the template and the style sheet
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Page is what the HTML report is made of.
type Page struct {
	Report *Report
	Checks []*check.Check // what the findings' checks are about
	Facts  *facts.Facts   // for the pictures; nil: none
	Near   facts.Distance // up to which a GPU has its NIC at hand; "": PXB
	Plan   *plan.Plan     // what would make the findings pass; nil: none could be made
	NoPlan string         // why
	Again  []string       // hostcheck and the flags that lead to the same host
	Bench  []*bench.Stored
}

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Parse(pageText))
})

// csp is a page's policy: nothing is loaded and nothing runs. The one style
// sheet is named by its hash. Plots of measurements are pictures in the page.
func csp(style string, plots bool) string {
	sum := sha256.Sum256([]byte(style))
	images := ""
	if plots {
		images = "img-src data:; "
	}
	return "default-src 'none'; " + images + "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// pageBench is one measurement. Its plot may be of figures that somebody else
// wrote: as an image it can neither load nor run anything.
type pageBench struct {
	Title   string
	Plot    template.URL
	Summary []string
}

// pageView is what the template shows.
type pageView struct {
	Schema  string
	Style   template.CSS
	CSP     string
	Name    string // of the host
	About   string
	Sign    string
	Word    string
	Tone    tone
	Counts  []pageCount
	Exit    int
	Meaning string
	Groups  []pageGroup
	Passes  []pagePasses
	Skips   []*pageFinding
	Passed  int
	Skipped int
	Fix     pageFix
	Topo    pageTopo
	Pools   pagePools
	IRQs    irqMap
	Bench   []pageBench
	Origin  [][2]string
}

type pageCount struct {
	N     int
	Word  string
	Class string
}

// pageGroup is the findings of one status.
type pageGroup struct {
	ID, Title, Class string
	N                int // findings, each block counting all of its own
	Findings         []*pageFinding
}

// pageFinding is one block of findings that say the same.
type pageFinding struct {
	ID                string
	Class, Sign, Word string
	Severity          check.Severity
	Checks            []string
	Title             string
	Subjects          []string
	Want, Why, Next   string
	Likewise          bool // Next names one subject and means all
	Got               []pageGot
	Truth             *check.Truth
	Source            string
	Evidence          []check.Evidence
	Changes           []pageChange
	Steps             []pageSteps
	Docs              []pageDoc
	Waiver            *Waiver
}

type pageGot struct {
	Got      string
	Subjects []string
}

// pageChange is a change of the plan, or, where there is no plan, what the
// finding wishes.
type pageChange struct {
	Name string
	Tier plan.Tier
	Note string
	Diff []diffLine
}

type diffLine struct{ Class, Text string }

// pageSteps is what is left to a person.
type pageSteps struct {
	Name, Want, Reason string
	Diff               []diffLine
	Steps              []string
}

// pageDoc is what "hostcheck explain" says of a check.
type pageDoc struct {
	ID   string
	Doc  []paragraph
	Refs []string
}

// pagePasses is a check that holds, and for whom.
type pagePasses struct {
	Check, Title string
	Items        []Finding
}

// pageFix is the whole plan in a few words.
type pageFix struct {
	Commands [][2]string  // command, what it does
	Changes  []pageChange // those of no finding by itself, such as files that keep the others
	Left     int          // settings that are left to a person
	Steps    []pageSteps  // of those of no finding
	Why      string       // why there is no plan
}

type pageTopo struct {
	Nodes  []pageNode
	NICs   []string
	Rows   []topoRow
	Legend string
	Why    string
}

type topoRow struct {
	GPU   string
	Cells []topoCell
}

type topoCell struct{ Distance, Class string }

type pagePools struct {
	Rows []poolRow
	Left []string // sizes
	Why  string
}

// HTML gives the report as one file that loads nothing and runs nothing. What
// comes from the host is escaped by its context, and what could hide or reorder
// text is spelled out.
func (p Page) HTML() ([]byte, error) { return rendered(pageTemplate(), p.view()) }

func rendered(t *template.Template, view any) ([]byte, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, view); err != nil {
		return nil, fmt.Errorf("cannot make the page: %w", err)
	}
	return visible(b.Bytes()), nil
}

// visible spells out what could hide text in a page, or is no text: controls,
// format characters such as those that reverse the order of letters, and broken
// UTF-8. All of it can only come from a host.
func visible(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, b[0])
		case r == '\n':
			out = append(out, '\n')
		case r < ' ' || r >= 0x7f && r <= 0x9f:
			out = fmt.Appendf(out, `\x%02x`, r)
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

func (p Page) view() *pageView {
	r := p.Report
	v := &pageView{
		Schema: r.Schema, Style: template.CSS(pageStyle), CSP: csp(pageStyle, len(p.Bench) > 0), Name: "unnamed host",
		Exit: r.Summary.Exit, Meaning: Meaning(r.Summary.Exit),
		Passed: r.Summary.Pass, Skipped: r.Summary.Skip,
	}
	if r.Host.Name != nil {
		v.Name = *r.Host.Name
	}
	v.About = strings.Join(r.Host.about(), " · ")
	v.Sign, v.Word, v.Tone = r.Summary.verdict()
	for _, c := range r.Summary.list() {
		if c.N > 0 {
			v.Counts = append(v.Counts, c)
		}
	}
	shown := map[plan.Setting]bool{}
	anchors := v.findings(p, shown)
	href := func(f *Finding) string { return "#" + anchors[anchorOf(f)] }
	v.Fix = p.fix(shown)
	v.Origin = p.origin()
	for _, m := range p.Bench {
		plot := "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(m.SVG))
		var lines []string
		for _, l := range m.Summary[:min(len(m.Summary), 64)] {
			lines = append(lines, Clean(l))
		}
		v.Bench = append(v.Bench, pageBench{m.Title, template.URL(plot), lines})
	}
	names := map[string]string{}
	if p.Facts == nil {
		const why = "the facts of the host are not at hand"
		v.Topo.Why, v.Pools.Why, v.IRQs.Why = why, why, why
		return v
	}
	v.Topo = section(func() pageTopo { return p.topology(names, href) }, func(why string) pageTopo { return pageTopo{Why: why} })
	v.Pools = section(func() pagePools { return pools(p.Facts, r.Findings, href) }, func(why string) pagePools { return pagePools{Why: why} })
	v.IRQs = section(func() irqMap { return irqs(p.Facts, names, r.Findings, href) }, func(why string) irqMap { return irqMap{Why: why} })
	return v
}

// section makes a part of the page. One that fails leaves the others.
func section[T any](part func() T, broken func(why string) T) (out T) {
	defer func() {
		if v := recover(); v != nil {
			out = broken(fmt.Sprintf("hostcheck failed here: %v", v))
		}
	}()
	return part()
}

// anchor is what a finding is found by.
type anchor struct {
	check, subject string
	status         check.Status
}

func anchorOf(f *Finding) anchor { return anchor{f.Check, f.Subject, f.Status} }

// findings fills in groups, passes and skips, and gives where each finding
// that needs attention stands. shown becomes what the plan does for them.
func (v *pageView) findings(p Page, shown map[plan.Setting]bool) map[anchor]string {
	docs := map[string]*check.Check{}
	for _, c := range p.Checks {
		docs[c.ID] = c
	}
	own := map[plan.Setting]bool{} // what some finding wishes
	for i := range p.Report.Findings {
		for _, c := range p.Report.Findings[i].Fix {
			own[c.setting()] = true
		}
	}
	var blocks []*block
	for _, a := range foldAreas(p.Report.Findings) {
		blocks = append(blocks, a.blocks...)
		v.Skips = append(v.Skips, pageFindings(a.skips)...)
	}
	slices.SortStableFunc(blocks, func(a, b *block) int { return cmp.Compare(rank(&a.Finding), rank(&b.Finding)) })
	anchors := map[anchor]string{}
	for i, b := range blocks {
		f := pageFindingOf(b)
		f.ID = "f" + strconv.Itoa(i+1)
		f.fixes(b, p.Plan, own, shown)
		for _, id := range b.checks {
			if c := docs[id]; c != nil {
				f.Docs = append(f.Docs, pageDoc{id, paragraphs(c.Doc), c.Refs})
			}
			for _, s := range f.Subjects {
				anchors[anchor{id, s, b.Status}] = f.ID
			}
			if f.Subjects == nil {
				anchors[anchor{id, "", b.Status}] = f.ID
			}
		}
		title := pageTitles[f.Class]
		if n := len(v.Groups); n == 0 || v.Groups[n-1].Title != title {
			v.Groups = append(v.Groups, pageGroup{ID: f.Class, Title: title, Class: f.Class})
		}
		g := &v.Groups[len(v.Groups)-1]
		g.Findings = append(g.Findings, f)
		for _, it := range b.items {
			g.N += len(it.subjects)
		}
	}
	for _, f := range p.Report.Findings {
		if f.Status != check.Pass {
			continue
		}
		if n := len(v.Passes); n == 0 || v.Passes[n-1].Check != f.Check {
			v.Passes = append(v.Passes, pagePasses{Check: f.Check, Title: f.Title})
		}
		k := &v.Passes[len(v.Passes)-1]
		k.Items = append(k.Items, f)
	}
	return anchors
}

var pageTitles = map[string]string{
	"fail": "Failures", "error": "Errors of hostcheck", "warn": "Warnings", "pending": "Waiting for a reboot",
	"unknown": "Could not be judged", "waived": "Waived",
}

func pageFindings(blocks []*block) (out []*pageFinding) {
	for _, b := range blocks {
		out = append(out, pageFindingOf(b))
	}
	return out
}

func pageFindingOf(b *block) *pageFinding {
	f := &pageFinding{
		Severity: b.Severity, Checks: b.checks, Title: b.Title, Want: b.Want, Why: b.Why, Next: b.Next,
		Source: b.Source, Waiver: b.Waiver,
	}
	f.Class, f.Sign, f.Word = badge(&b.Finding)
	if len(b.checks) > 1 {
		f.Title = ""
	}
	if b.differs {
		f.Want, f.Why = b.neutral.Want, b.neutral.Why
		f.Likewise = b.neutral.Next != b.Next
	}
	f.Subjects = nonEmpty(b.subjects()...)
	if t := b.Truth; t != nil && (t.Configured != t.NextBoot || t.NextBoot != t.Live) {
		f.Truth = t
	}
	seen := map[check.Evidence]bool{}
	for _, it := range b.items {
		if it.got != "" {
			g := pageGot{Got: it.got}
			if len(b.items) > 1 {
				g.Subjects = nonEmpty(it.subjects...)
			} else if len(f.Subjects) > 1 {
				g.Got = neutralText(it.got, b.Subject)
			}
			f.Got = append(f.Got, g)
		}
		for _, e := range it.evidence {
			if !seen[e] {
				seen[e] = true
				f.Evidence = append(f.Evidence, e)
			}
		}
	}
	return f
}

func (c Change) setting() plan.Setting {
	return plan.Setting{Kind: c.Kind, Target: c.Target, Name: c.Name}
}

// fixes adds what the plan does for a block: the changes of the settings that
// it wishes, and those that a verb made of its wishes, such as files that keep
// them. What no plan holds is shown as it is wished.
func (f *pageFinding) fixes(b *block, p *plan.Plan, own, shown map[plan.Setting]bool) {
	mine := map[plan.Setting]bool{}
	var wishes []Change
	for _, it := range b.items {
		for _, c := range it.fix {
			if !mine[c.setting()] {
				mine[c.setting()] = true
				wishes = append(wishes, c)
			}
		}
	}
	if len(wishes) == 0 || b.Status != check.Fail && b.Status != check.Warn {
		return
	}
	if p != nil {
		meant := func(s plan.Setting, why string) bool {
			return mine[s] || !own[s] && slices.ContainsFunc(b.checks, func(id string) bool { return wantedBy(why, id) })
		}
		for _, c := range p.Changes {
			if meant(c.Setting, c.Why) {
				shown[c.Setting] = true
				f.Changes = append(f.Changes, pageChangeOf(c))
			}
		}
		for _, r := range p.Refused {
			if meant(r.Setting, r.Why) {
				shown[r.Setting] = true
				left := pageStepsOf(r)
				if i := slices.IndexFunc(wishes, func(c Change) bool { return c.setting() == r.Setting }); i >= 0 {
					left.Diff = oldNew(wishes[i].Before, wishes[i].After)
				}
				f.Steps = append(f.Steps, left)
			}
		}
	}
	if len(f.Changes) > 0 { // verbs may say the same in other settings
		return
	}
	for _, c := range wishes {
		if !shown[c.setting()] || p == nil {
			f.Changes = append(f.Changes, pageChange{settingName(c.setting()), c.Tier, "as the check wishes it", oldNew(c.Before, c.After)})
		}
	}
}

func pageChangeOf(c plan.Change) pageChange {
	return pageChange{settingName(c.Setting), c.Tier, c.Disturbs, diffLines(c.Diff)}
}

func pageStepsOf(r plan.Refusal) pageSteps {
	return pageSteps{Name: settingName(r.Setting), Want: r.Want, Reason: r.Reason, Steps: r.Steps}
}

// wantedBy reports whether the reason of a change names a check: "ID: reason"
// or "ID, ID: reason".
func wantedBy(why, id string) bool {
	ids, _, _ := strings.Cut(why, ": ")
	return slices.Contains(strings.Split(ids, ", "), id)
}

// diffLines colours a unified diff, or "old -> new".
func diffLines(diff string) []diffLine {
	if before, after, ok := strings.Cut(diff, " -> "); ok && !strings.Contains(diff, "\n") {
		return oldNew(before, after)
	}
	var out []diffLine
	for l := range strings.Lines(diff) {
		l = strings.TrimSuffix(l, "\n")
		class := ""
		switch {
		case strings.HasPrefix(l, "--- "), strings.HasPrefix(l, "+++ "), strings.HasPrefix(l, "@@"):
			class = "hunk"
		case strings.HasPrefix(l, "+"):
			class = "add"
		case strings.HasPrefix(l, "-"):
			class = "del"
		}
		out = append(out, diffLine{class, l})
	}
	return out
}

func oldNew(before, after string) []diffLine {
	return []diffLine{{"del", "- " + quoteEmpty(before)}, {"add", "+ " + quoteEmpty(after)}}
}

// fix says what the whole plan comes to, and has what no finding shows.
func (p Page) fix(shown map[plan.Setting]bool) pageFix {
	if p.Plan == nil {
		return pageFix{Why: p.NoPlan}
	}
	f := pageFix{Left: len(p.Plan.Refused)}
	for _, c := range p.Plan.Changes {
		if !shown[c.Setting] {
			f.Changes = append(f.Changes, pageChangeOf(c))
		}
	}
	for _, r := range p.Plan.Refused {
		if !shown[r.Setting] {
			f.Steps = append(f.Steps, pageStepsOf(r))
		}
	}
	words := append(slices.Clone(p.Again), "--fix")
	var allow []string
	for _, t := range plan.Tiers {
		n := len(ofTier(p.Plan.Changes, t))
		if n == 0 || t == plan.Firmware {
			continue
		}
		what := plural(n, "change")
		command := words
		if t != plan.Safe {
			what = plural(n, "more change")
			allow = append(allow, string(t))
			command = append(slices.Clone(words), "--allow", strings.Join(allow, ","))
		}
		_, means, _ := strings.Cut(tiers[t], ": ")
		f.Commands = append(f.Commands, [2]string{ShellWords(command), what + " of tier " + string(t) + ": " + means})
	}
	return f
}

// origin is where the page comes from.
func (p Page) origin() [][2]string {
	r := p.Report
	text := func(s *string) string {
		if s == nil {
			return "not known"
		}
		return *s
	}
	intent := r.Profile.Intent
	switch {
	case intent == "":
		intent = "none stated, and none could be assumed"
	case r.Profile.IntentSource == "assumed":
		intent += " (assumed)"
	default:
		intent += " (stated)"
	}
	return [][2]string{
		{"tool", "hostcheck " + r.Tool.Version + " (" + r.Tool.Commit + ")"},
		{"read from", r.Host.Source},
		{"captured at", text(r.Host.CapturedAt)},
		{"boot ID", text(r.Host.BootID)},
		{"profile", strings.Join(r.Profile.Layers, " + ")},
		{"intent", intent},
		{"profile hash", r.Profile.Hash},
		{"format", r.Schema + ", as a page"},
	}
}

// topology makes the pictures and the table of distances, and notes what the
// devices are called in them.
func (p Page) topology(names map[string]string, href func(*Finding) string) pageTopo {
	v := NewTopology(p.Facts, cmp.Or(p.Near, facts.PXB))
	t := pageTopo{Why: v.Why, Legend: legend}
	for _, d := range slices.Concat(v.GPUs, v.NICs) {
		names[d] = v.drawn[d].Label
	}
	if len(v.Nodes) == 0 {
		t.Why = cmp.Or(v.Why, "no GPU and no network function on the PCI bus")
		return t
	}
	v.marked(p.Facts, p.Report.Findings, href)
	t.Nodes = v.figures()
	if len(v.GPUs) == 0 {
		return t
	}
	for _, nic := range v.NICs {
		t.NICs = append(t.NICs, v.name(nic))
	}
	for _, gpu := range v.GPUs {
		row := topoRow{GPU: v.name(gpu)}
		for _, nic := range v.NICs {
			d, class := v.cell(gpu, nic), "far"
			if d == "PIX" || d == "PXB" {
				class = "near"
			}
			row.Cells = append(row.Cells, topoCell{d, class})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// paragraph is a part of a description: a paragraph, an item of a list, a
// heading, or lines as they are.
type paragraph struct{ Kind, Text string }

// paragraphs takes a check's description apart, as [printer.prose] does.
func paragraphs(doc string) (out []paragraph) {
	add := func(kind, text, glue string) {
		if n := len(out); n > 0 && out[n-1].Kind == kind && glue != "" {
			out[n-1].Text += glue + text
			return
		}
		out = append(out, paragraph{kind, text})
	}
	fenced, fresh := false, true
	for line := range strings.SplitSeq(strings.Trim(doc, "\n"), "\n") {
		line = strings.ReplaceAll(strings.TrimRight(line, " \t\r"), "\t", "    ")
		trimmed := strings.TrimLeft(line, " ")
		last := ""
		if n := len(out); n > 0 {
			last = out[n-1].Kind
		}
		switch mark := bullet(trimmed); {
		case strings.HasPrefix(trimmed, "```"):
			fenced, fresh = !fenced, true
			continue
		case fenced:
			add("pre", line, map[bool]string{true: "", false: "\n"}[fresh])
		case trimmed == "":
			fresh = true
			continue
		case fresh && strings.HasPrefix(line, "    "), last == "pre" && strings.HasPrefix(line, "    "):
			add("pre", strings.TrimPrefix(line, "    "), "\n")
		case strings.HasPrefix(line, "#"):
			add("h", strings.TrimLeft(line, "# "), "")
		case mark != "":
			add("li", strings.TrimPrefix(trimmed, mark), "")
		case !fresh && (last == "p" || last == "li"):
			add(last, trimmed, " ")
		default:
			add("p", trimmed, "")
		}
		fresh = false
	}
	return out
}

// list gives all counts, the worst first.
func (s *Summary) list() []pageCount {
	return []pageCount{
		{s.Fail, "fail", "fail"}, {s.Error, "error", "error"}, {s.Warn, "warn", "warn"}, {s.Pending, "pending", "pending"},
		{s.Unknown, "unknown", "unknown"}, {s.Waived, "waived", "waived"}, {s.Pass, "pass", "pass"}, {s.Skip, "skip", "skip"},
	}
}
