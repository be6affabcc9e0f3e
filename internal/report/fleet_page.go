// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	_ "embed" // the template and the style sheet
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

//go:embed fleet_page.html
var fleetText string

//go:embed fleet_page.css
var fleetStyle string

var fleetTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("fleet").Funcs(template.FuncMap{"count": thousands}).Parse(fleetText))
})

// What a page shows at most, so that it opens at once whatever the number of
// hosts. What is left out is counted, and named as being in the JSON.
const (
	mostCases    = 12   // of a check
	mostClusters = 300  // as articles
	mostDiffers  = 12   // of a cluster
	mostColumns  = 40   // of the heat map, each a cluster
	mostHosts    = 1000 // in the table
	everyHost    = 100  // a fleet up to this is listed whole
	mostRows     = 300  // of outliers, changes and problems
	fewRows      = 25   // of outliers before they are folded
	mostOptions  = 1000 // of labels to choose hosts by
	mostText     = 600  // bytes of one text of a host,
	lessText     = 80   // after
	allTexts     = 1 << 20
	mostNames    = 4000 // bytes of one folded list, as long as there is room in
	allNames     = 1 << 20
	mostWord     = 64 // bytes of a name or a label
)

// fleetView is what the template shows.
type fleetView struct {
	Schema, CSP, Title, About string
	Style                     template.CSS
	Sign, Word                string
	Tone                      tone
	Counts                    []pageCount
	Notes                     []string // what the counts do not say

	Marks      []fleetMark // of the filter
	Severities []fleetMark
	Areas      []fleetOption
	Labels     []fleetLabel  // of the hosts in the table
	Picks      []fleetOption // where the labels lead to

	Heat     heatMap
	Checks   []*fleetCheck // what needs attention
	Calm     []*fleetCheck
	Odd      []fleetOutlier
	Odder    []fleetOutlier // those after the first few
	Norms    []fleetOutlier // of a group, and explained by it
	Changes  []fleetChange
	Hosts    []fleetHost
	Listed   string // which hosts the table has
	Blocks   []hostBlock
	Key      []pageCount // of the map of hosts
	BlockBy  string
	Clusters []fleetCluster
	Problems []fleet.Problem
	Since    *fleet.Since
	Gone     [2]fleetNames // new, gone
	Missing  fleetNames    // of those that --expect names

	MoreClusters, MoreOutliers, MoreChanges, MoreProblems, Scattered int

	Origin  [][2]string
	Exit    int
	Meaning string
}

// fleetMark is a box of the filter.
type fleetMark struct {
	ID, Sign, Word, Class string
}

type fleetOption struct {
	ID, Word, Class string
	N               int // hosts in the table
}

type fleetLabel struct {
	Key    string
	Values []fleetOption
}

// fleetCheck is a check over all hosts.
type fleetCheck struct {
	fleet.Check
	Anchor            string
	Class, Sign, Word string // the worst verdict
	Filter            string
	Counted           []pageCount
	Want, Why, Next   string // where all cases say the same
	First, More       []fleetCase
	Left              int // cases that are not shown
	rank, trouble     int
}

// fleetCase is what some hosts have of a check.
type fleetCase struct {
	fleet.Case
	ID string
	fleetVerdict
	Subjects, Names fleetNames
}

// fleetNames is a folded list of hosts.
type fleetNames struct {
	Text string
	More string // all of it, where Text is its beginning
	Cut  bool   // the page does not have all of it
	N    int
}

type fleetOutlier struct {
	fleet.Outlier
	Href, Rare string
	Names      fleetNames
}

type fleetChange struct {
	Check         string
	N             int
	Href          string
	Before, After fleetVerdict
	Names         fleetNames
}

type fleetVerdict struct{ Class, Sign, Word string }

type fleetHost struct {
	Name, Anchor, Filter, About string
	fleetVerdict
	Cluster string // its anchor
	Others  int    // in its cluster
	Trouble []fleetTrouble
	More    int
}

// fleetTrouble is a check that does not pass somewhere.
type fleetTrouble struct {
	fleetVerdict
	Check, Href, Usual string
}

// fleetCluster is hosts that are alike.
type fleetCluster struct {
	Anchor, Filter string
	fleetVerdict
	N       int
	Names   fleetNames
	Members string // every name in full, for the search of the browser
	Differs []fleetTrouble
	More    int
}

// FleetHTML gives a fleet as one file that loads nothing and runs nothing, as
// [Page.HTML] does with a host. Its filters and its drill-down are style and
// links. It stays small: hosts that are alike stand together, and what is left
// out for its size is counted.
func FleetHTML(f *fleet.Fleet) ([]byte, error) {
	return rendered(fleetTemplate(), (&fleetPage{Fleet: f, room: allNames, texts: allTexts}).view())
}

// fleetPage is the making of a page.
type fleetPage struct {
	*fleet.Fleet
	checks  []*fleetCheck // as Fleet.Checks
	byID    map[string]*fleetCheck
	members [][]*fleet.Host // of each cluster
	areas   map[string]int
	labels  map[[2]string]*fleetOption // by key and value
	rows    map[*fleet.Host]string     // anchors of those in the table
	usual   map[fleetTrouble]bool      // what ails the largest cluster
	room    int                        // bytes left for folded lists
	texts   int                        // and for texts of hosts
}

func (p *fleetPage) view() *fleetView {
	v := &fleetView{
		Schema: p.Schema, Title: "Fleet of " + hostsOf(p.Summary.Hosts), Exit: p.Summary.Exit, Meaning: Meaning(p.Summary.Exit),
		MoreOutliers: p.MoreOutliers, MoreProblems: p.MoreProblems, Scattered: p.Scattered, Since: p.Since,
	}
	v.Sign, v.Word, v.Tone = fleetVerdictOf(&p.Summary)
	v.Counts = fleetCounts(&p.Summary)
	v.Notes = p.notes()
	p.members = make([][]*fleet.Host, len(p.Clusters))
	for i := range p.Hosts {
		if h := &p.Hosts[i]; h.Cluster >= 0 && h.Cluster < len(p.members) {
			p.members[h.Cluster] = append(p.members[h.Cluster], h)
		}
	}
	p.makeChecks(v)
	p.makeHosts(v)
	p.makeClusters(v)
	v.Heat = p.heatMap(v.Checks)
	p.makeBlocks(v)
	p.makeRest(v)
	style := "@layer page{" + pageStyle + fleetStyle + "}\n" + p.filters(v)
	v.Style, v.CSP = template.CSS(style), csp(style, false)
	return v
}

// fleetVerdictOf says what the whole comes to.
func fleetVerdictOf(s *fleet.Summary) (sign, word string, how tone) {
	some := func(n int, one, many string) string {
		if n == 1 && s.Hosts == 1 {
			return "THE HOST " + one
		}
		if n == 1 {
			return "1 OF " + thousands(s.Hosts) + " HOSTS " + one
		}
		return thousands(n) + " OF " + thousands(s.Hosts) + " HOSTS " + many
	}
	switch {
	case s.Hosts == 0:
		return "?", "NO HOST: there is no usable report", unsure
	case s.Failing > 0:
		return "✗", some(s.Failing, "IS NOT FIT", "ARE NOT FIT"), bad
	case s.Incomplete > 0:
		return "?", some(s.Incomplete, "COULD NOT BE JUDGED", "COULD NOT BE JUDGED"), unsure
	case s.Missing > 0 && s.Problems == 0:
		return "?", "INCOMPLETE: not every expected host has reported", unsure
	case s.Exit == ExitIncomplete:
		return "?", "INCOMPLETE: not every report could be used", unsure
	case s.Pending > 0:
		return "↻", some(s.Pending, "IS FIT AFTER THE NEXT BOOT", "ARE FIT AFTER THE NEXT BOOT"), uneasy
	case s.Exit != ExitOK:
		return "?", "INCOMPLETE", unsure
	case s.Warning > 0:
		return "!", "ALL FIT, " + some(s.Warning, "with warnings", "with warnings"), uneasy
	}
	return "✓", "ALL " + thousands(s.Hosts) + " FIT", good
}

func fleetCounts(s *fleet.Summary) (out []pageCount) {
	for _, c := range []pageCount{
		{s.Failing, "failing", "fail"}, {s.Incomplete, "incomplete", "unknown"}, {s.Pending, "pending", "pending"},
		{s.Compliant, "compliant", "pass"}, {s.Warning, "of them with warnings", "warn"},
		{s.Missing, "missing", "unknown"}, {s.Problems, "unusable " + one(s.Problems, "report"), "unknown"}, {s.Repeated, "older " + one(s.Repeated, "report") + " left out", "skip"},
	} {
		if c.N > 0 {
			out = append(out, c)
		}
	}
	return out
}

// notes is what must be known beside the verdict.
func (p *fleetPage) notes() (out []string) {
	if p.Summary.Problems > 0 {
		out = append(out, plural(p.Summary.Problems, "report")+" could not be used: a host may be missing for each. See Problems.")
	}
	if p.MoreHosts > 0 {
		out = append(out, thousands(p.MoreHosts)+" more "+one(p.MoreHosts, "host")+" counted in the verdict and, for want of memory, nowhere else.")
	}
	return out
}

func hostsOf(n int) string { return thousands(n) + " " + one(n, "host") }

// one is a word for one, or more, of something.
func one(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// thousands writes a number as people read it: 10,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// verdictOf is how a word of [fleet.Word] is shown.
func verdictOf(word string) fleetVerdict {
	f := Finding{Status: check.Status(word)}
	switch word {
	case "waived":
		f.Status, f.Waiver = check.Fail, &Waiver{}
	case "pending":
		f.Status, f.Pending = check.Fail, true
	}
	if word == "absent" || fleet.Letter(word) == 0 {
		return fleetVerdict{"skip", "·", "absent"}
	}
	var v fleetVerdict
	v.Class, v.Sign, v.Word = badge(&f)
	return v
}

// hostVerdict is how a verdict of a host is shown.
func hostVerdict(verdict string) fleetVerdict {
	switch verdict {
	case fleet.Failing:
		return fleetVerdict{"fail", "✗", "failing"}
	case fleet.Pending:
		return fleetVerdict{"pending", "↻", "pending"}
	case fleet.Compliant:
		return fleetVerdict{"pass", "✓", "compliant"}
	}
	return fleetVerdict{"unknown", "?", "incomplete"}
}

// shows reports whether a letter needs attention.
func shows(letter byte) bool { return fleet.Rank(letter) < fleet.Rank('o') }

var anchorForm = pattern.Late(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// anchors gives a stable name for what people link to from elsewhere.
func anchorFor(kind, name string, i int, taken map[string]bool) string {
	a := kind + "-" + name
	if !anchorForm().MatchString(name) || taken[a] {
		a = kind + ":" + strconv.Itoa(i)
	}
	taken[a] = true
	return a
}

func (p *fleetPage) makeChecks(v *fleetView) {
	p.byID, p.areas = map[string]*fleetCheck{}, map[string]int{}
	taken := map[string]bool{}
	for i := range p.Checks {
		c := &fleetCheck{Check: p.Checks[i]}
		c.Anchor, c.Title = anchorFor("check", c.ID, i, taken), p.short(c.Title)
		p.checks = append(p.checks, c)
		p.byID[c.ID] = c
		n := c.Counts
		worst := byte('s')
		for _, k := range []struct {
			n      int
			letter byte
		}{{n.Absent, '.'}, {n.Skip, 's'}, {n.Pass, 'o'}, {n.Waived, 'v'}, {n.Unknown, 'u'}, {n.Pending, 'p'}, {n.Warn, 'w'}, {n.Error, 'e'}, {n.Fail, 'f'}} {
			if k.n <= 0 {
				continue
			}
			s := verdictOf(fleet.Word(k.letter))
			c.Counted = append(c.Counted, pageCount{k.n, fleet.Word(k.letter), s.Class})
			worst = k.letter
			if shows(k.letter) {
				c.trouble += k.n
			}
		}
		slices.Reverse(c.Counted)
		s := verdictOf(fleet.Word(worst))
		c.Class, c.Sign, c.Word, c.rank = s.Class, s.Sign, s.Word, fleet.Rank(worst)
		if !shows(worst) {
			v.Calm = append(v.Calm, c)
			continue
		}
		area, _, _ := strings.Cut(c.ID, ".")
		if _, ok := p.areas[area]; !ok {
			p.areas[area] = len(p.areas)
			v.Areas = append(v.Areas, fleetOption{ID: "a" + strconv.Itoa(p.areas[area]), Word: p.short(area)})
		}
		v.Checks = append(v.Checks, c)
	}
	slices.SortStableFunc(v.Checks, func(a, b *fleetCheck) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(severityIndex(a.Severity), severityIndex(b.Severity)), cmp.Compare(b.trouble, a.trouble))
	})
	for i, c := range v.Checks {
		var f filter
		for _, n := range c.Counted {
			f.add(n.Word, c, p)
		}
		c.Filter = f.class()
		c.cases(i, p)
	}
}

// cases fills in what was found. What all of them say stands once.
func (c *fleetCheck) cases(n int, p *fleetPage) {
	all := sameCases(c.Cases)
	shown := all[:min(len(all), mostCases)]
	c.Left = len(all) - len(shown) + max(0, c.MoreCases)
	same := func(text func(*fleet.Case) string) string {
		for _, k := range shown {
			if text(&k.Case) != text(&shown[0].Case) {
				return ""
			}
		}
		if len(shown) == 0 {
			return ""
		}
		return p.short(text(&shown[0].Case))
	}
	c.Want = same(func(k *fleet.Case) string { return k.Want })
	c.Why = same(func(k *fleet.Case) string { return k.Why })
	c.Next = same(func(k *fleet.Case) string { return k.Next })
	for i, k := range shown {
		out := fleetCase{Case: k.Case, ID: fmt.Sprintf("case%d-%d", n, i), fleetVerdict: verdictOf(wordOf(&k.Case)), Names: p.names(k.Hosts, k.N)}
		out.Subjects = p.names(strings.Join(k.subjects, ", "), len(k.subjects))
		out.Want, out.Got, out.Why, out.Next = p.short(k.Want), p.short(k.Got), p.short(k.Why), p.short(k.Next)
		if c.Want != "" {
			out.Want = ""
		}
		if c.Why != "" {
			out.Why = ""
		}
		if c.Next != "" {
			out.Next = ""
		}
		if i < 3 {
			c.First = append(c.First, out)
		} else {
			c.More = append(c.More, out)
		}
	}
}

// wordOf is the verdict of a case, as [fleet.Word] names it.
func wordOf(k *fleet.Case) string {
	switch {
	case k.Waived:
		return "waived"
	case k.Pending:
		return "pending"
	}
	return string(k.Status)
}

// names makes a folded list fit for the page.
func (p *fleetPage) names(list string, n int) fleetNames {
	const line = 160
	if list == "" && n > 0 { // too long to be kept
		list = hostsOf(n)
	}
	out := fleetNames{Text: list, N: n}
	if len(list) <= line {
		return out
	}
	limit := min(len(list), mostNames, max(p.room, 0))
	p.room -= limit
	out.Text, out.Cut = strings.TrimRight(cut(list, line/2), ", "), limit < len(list)
	if limit > line {
		out.More = cut(list, limit)
	}
	return out
}

// cut shortens a text to at most n bytes, at the end of a name or a letter.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	if i := strings.LastIndexByte(s[:n], ','); i > n/2 {
		n = i + 1
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// short keeps the texts of hosts from filling the page.
func (p *fleetPage) short(s string) string {
	limit := mostText
	if p.texts <= 0 {
		limit = lessText
	}
	if len(s) > limit {
		k := cut(s, limit)
		s = fmt.Sprintf("%s … (%s bytes more)", k, thousands(len(s)-len(k)))
	}
	p.texts -= len(s)
	return s
}

func (p *fleetPage) makeHosts(v *fleetView) {
	p.rows = map[*fleet.Host]string{}
	var all []*fleet.Host
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if len(p.Hosts) <= everyHost || h.Verdict != fleet.Compliant {
			all = append(all, h)
		}
	}
	slices.SortStableFunc(all, func(a, b *fleet.Host) int { return cmp.Compare(verdictRank(a.Verdict), verdictRank(b.Verdict)) })
	shown := all[:min(len(all), mostHosts)]
	p.makeLabels(v, shown)
	switch {
	case len(p.Hosts) == 0:
	case len(p.Hosts) <= everyHost:
		v.Listed = "All hosts, the worst first."
	case len(all) == 0:
		v.Listed = "No host needs attention; which hosts are alike stands below."
	case len(shown) < len(all):
		v.Listed = fmt.Sprintf("The first %s of the %s hosts that are not compliant, the worst first; -f json has them all.", thousands(len(shown)), thousands(len(all)))
	default:
		v.Listed = "The hosts that are not compliant, the worst first; all others stand below, with those they are alike to."
	}
	taken := map[string]bool{}
	for i, h := range shown {
		row := fleetHost{Name: cut(h.Name, 4*mostWord), Anchor: anchorFor("host", h.Name, i, taken), fleetVerdict: hostVerdict(h.Verdict)}
		p.rows[h] = row.Anchor
		var f filter
		if h.Cluster >= 0 && h.Cluster < len(p.Clusters) {
			k := &p.Clusters[h.Cluster]
			if h.Cluster < mostClusters && k.N > 1 {
				row.Cluster, row.Others = "alike"+strconv.Itoa(h.Cluster), k.N-1
			}
			row.Trouble, row.More = p.special(p.trouble(k.Verdicts, &f))
		}
		row.Filter = strings.Join(nonEmpty(f.class(), p.labelClass(h)), " ")
		row.About = knownOf(h)
		v.Hosts = append(v.Hosts, row)
	}
}

// knownOf is what tells a host from others.
func knownOf(h *fleet.Host) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		words = append(words, cut(k, mostWord)+"="+cut(h.Labels[k], mostWord))
	}
	return strings.Join(nonEmpty(append(words, cut(orEmpty(h.Kernel), mostWord), cut(orEmpty(h.CapturedAt), mostWord))...), " · ")
}

// trouble is what needs attention in the verdicts of a cluster, the worst first.
func (p *fleetPage) trouble(verdicts string, f *filter) (out []fleetTrouble) {
	type at struct {
		c      *fleetCheck
		letter byte
	}
	var all []at
	for i, c := range p.checks[:min(len(p.checks), len(verdicts))] {
		if shows(verdicts[i]) {
			all = append(all, at{c, verdicts[i]})
			f.add(fleet.Word(verdicts[i]), c, p)
		}
	}
	slices.SortStableFunc(all, func(a, b at) int {
		return cmp.Or(cmp.Compare(fleet.Rank(a.letter), fleet.Rank(b.letter)), cmp.Compare(severityIndex(a.c.Severity), severityIndex(b.c.Severity)))
	})
	for _, a := range all {
		out = append(out, fleetTrouble{fleetVerdict: verdictOf(fleet.Word(a.letter)), Check: a.c.ID, Href: p.href(a.c.ID)})
	}
	return out
}

// special leaves a few of what ails a host: rather what the largest cluster
// does not have as well.
func (p *fleetPage) special(all []fleetTrouble) (few []fleetTrouble, more int) {
	const most = 5
	if p.usual == nil {
		p.usual = map[fleetTrouble]bool{}
		for _, t := range p.trouble(p.Clusters[0].Verdicts, &filter{}) {
			p.usual[t] = true
		}
	}
	few = slices.DeleteFunc(slices.Clone(all), func(t fleetTrouble) bool { return p.usual[t] })
	if len(few) == 0 {
		few = all
	}
	if len(few) > most+1 {
		few = few[:most]
	}
	return few, len(all) - len(few)
}

// href leads to a check; "" where the page has nothing of it.
func (p *fleetPage) href(id string) string {
	if c := p.byID[id]; c != nil && c.rank < fleet.Rank('o') {
		return "#" + c.Anchor
	}
	return ""
}

func verdictRank(verdict string) int {
	return slices.Index([]string{fleet.Failing, fleet.Incomplete, fleet.Pending, fleet.Compliant}, verdict)
}

func (p *fleetPage) makeClusters(v *fleetView) {
	v.MoreClusters = max(0, len(p.Clusters)-mostClusters)
	for i := range p.Clusters[:min(len(p.Clusters), mostClusters)] {
		k := &p.Clusters[i]
		out := fleetCluster{Anchor: "alike" + strconv.Itoa(i), fleetVerdict: hostVerdict(k.Verdict), N: k.N, Names: p.names(k.Hosts, k.N)}
		var f filter
		here := p.trouble(k.Verdicts, &f)
		out.Filter = f.class()
		if i == 0 {
			out.Differs = here
		}
		for _, d := range k.Differs {
			t := fleetTrouble{fleetVerdict: verdictOf(d.Here), Check: cut(d.Check, 2*mostWord), Href: p.href(d.Check)}
			u := verdictOf(d.Usual)
			t.Usual = u.Sign + " " + u.Word
			out.Differs = append(out.Differs, t)
		}
		if n := len(out.Differs); n > mostDiffers {
			out.Differs, out.More = out.Differs[:mostDiffers-1], n-mostDiffers+1
		}
		if strings.Contains(k.Hosts, "[") {
			var b strings.Builder
			for _, h := range p.members[i] {
				b.WriteString(h.Name + " ")
			}
			out.Members = strings.TrimSpace(b.String())
		}
		v.Clusters = append(v.Clusters, out)
	}
}

// makeRest fills in what stands in tables.
func (p *fleetPage) makeRest(v *fleetView) {
	for i, o := range p.Outliers {
		if i == mostRows {
			v.MoreOutliers += len(p.Outliers) - i
			break
		}
		out := fleetOutlier{Outlier: o, Href: p.href(o.Check), Rare: percent(o.N, o.Of), Names: p.names(o.Hosts, o.N)}
		out.Subject, out.What, out.Value, out.Usual = p.short(o.Subject), p.short(o.What), p.short(o.Value), p.short(o.Usual)
		if o.Norm == "" {
			v.Odd = append(v.Odd, out)
		} else {
			v.Norms = append(v.Norms, out)
		}
	}
	if len(v.Odd) > fewRows {
		v.Odd, v.Odder = v.Odd[:fewRows], v.Odd[fewRows:]
	}
	for i, c := range p.Changed {
		if i == mostRows {
			v.MoreChanges = len(p.Changed) - i
			break
		}
		v.Changes = append(v.Changes, fleetChange{Check: cut(c.Check, 2*mostWord), N: c.N, Href: p.href(c.Check), Before: verdictOf(c.Before), After: verdictOf(c.After), Names: p.names(c.Hosts, c.N)})
	}
	if s := p.Since; s != nil {
		v.Gone = [2]fleetNames{p.names(s.NewHosts, s.New), p.names(s.GoneHosts, s.Gone)}
	}
	if e := p.Expected; e != nil {
		v.Missing = p.names(e.Missing, p.Summary.Missing)
	}
	for i, r := range p.Problems {
		if i == mostRows {
			v.MoreProblems += len(p.Problems) - i
			break
		}
		r.Source, r.Host, r.Why = p.short(r.Source), p.short(r.Host), p.short(r.Why)
		v.Problems = append(v.Problems, r)
	}
	kernels, arches, profiles, versions := mix{}, mix{}, mix{}, mix{}
	first, last, undated := captured(p.Hosts)
	for i := range p.Hosts {
		h := &p.Hosts[i]
		kernels.add(h.Kernel)
		arches.add(h.Arch)
		profiles.add(&h.Profile)
		versions.add(&h.Version)
	}
	about := []string{kernels.text(3), arches.text(3)}
	if len(p.Hosts) > 0 {
		v.About = strings.Join(about, " · ")
	}
	when := "not known"
	if !first.IsZero() {
		when = "from " + first.Format(time.RFC3339) + " to " + last.Format(time.RFC3339)
		if undated > 0 {
			when += "; of " + hostsOf(undated) + " not known"
		}
	}
	v.Origin = [][2]string{
		{"merged by", "hostcheck " + p.Tool.Version + " (" + p.Tool.Commit + ")"},
		{"from", thousands(p.Summary.Lines) + " " + one(p.Summary.Lines, "report")},
		{"captured", when},
		{"kernels", kernels.text(20)},
		{"architectures", arches.text(20)},
		{"profile hashes", profiles.text(20)},
		{"judged by", versions.text(20)},
		{"a host fails at", p.FailOn},
		{"format", p.Schema + ", as a page"},
	}
}

// mix counts hosts by something of theirs.
type mix map[string]int

func (m mix) add(value *string) { m[orEmpty(value)]++ }

// text gives the most common values, as many as asked for.
func (m mix) text(most int) string {
	values := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), strings.Compare(a, b)) })
	var parts []string
	for i, s := range values {
		if i == most && len(values) > most+1 {
			parts = append(parts, fmt.Sprintf("%d others", len(values)-i))
			break
		}
		name := cmp.Or(cut(s, 2*mostWord), "not known")
		if len(values) > 1 {
			name += " (" + thousands(m[s]) + ")"
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, ", ")
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// percent of a whole, so that what is rare is not none.
func percent(n, of int) string {
	if of <= 0 {
		return "?"
	}
	share := 100 * float64(n) / float64(of)
	switch {
	case n > 0 && share < 0.01:
		return "< 0.01 %"
	case share < 1:
		return fmt.Sprintf("%.2f %%", share)
	case share < 10:
		return fmt.Sprintf("%.1f %%", share)
	}
	return fmt.Sprintf("%.0f %%", share)
}
