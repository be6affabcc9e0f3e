// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

// heatMap is checks x clusters.
type heatMap struct {
	Columns []heatColumn
	Rows    []heatRow
	Rest    string // what the last column stands for, where there are too many clusters
}

// heatColumn is hosts that are alike.
type heatColumn struct {
	fleetVerdict
	Text, Href string
}

type heatRow struct {
	*fleetCheck
	Bar, Cells template.HTML
	Hosts      int // that need attention
}

func (p *fleetPage) heatMap(shown []*fleetCheck) (m heatMap) {
	clusters := p.Clusters[:min(len(p.Clusters), mostColumns)]
	rest := p.Clusters[len(clusters):]
	for i := range clusters {
		k := &clusters[i]
		text := k.Hosts
		if len(text) > 24 {
			text = hostsOf(k.N)
		}
		m.Columns = append(m.Columns, heatColumn{hostVerdict(k.Verdict), text, "#alike" + strconv.Itoa(i)})
	}
	if len(rest) > 0 {
		n := 0
		for i := range rest {
			n += rest[i].N
		}
		m.Rest = fmt.Sprintf("%s others, %s", thousands(len(rest)), hostsOf(n))
	}
	at := map[*fleetCheck]int{}
	for i, c := range p.checks {
		at[c] = i
	}
	for _, c := range shown {
		var b strings.Builder
		for i := range clusters {
			letter := letterAt(&clusters[i], at[c])
			heatCell(&b, letter, p.found(c, letter, i))
		}
		if m.Rest != "" {
			worst := byte('.')
			for i := range rest {
				if l := letterAt(&rest[i], at[c]); fleet.Rank(l) < fleet.Rank(worst) {
					worst = l
				}
			}
			heatCell(&b, worst, c.Anchor)
		}
		m.Rows = append(m.Rows, heatRow{c, c.bar(), template.HTML(b.String()), c.trouble})
	}
	return m
}

func letterAt(k *fleet.Cluster, i int) byte {
	if i < len(k.Verdicts) && fleet.Word(k.Verdicts[i]) != "" {
		return k.Verdicts[i]
	}
	return '.'
}

// found is where the page says what a cluster has of a check: its hosts are
// alike in the verdict, so that its first host tells for most of them.
func (p *fleetPage) found(c *fleetCheck, letter byte, cluster int) string {
	if !shows(letter) || len(p.members[cluster]) == 0 {
		return c.Anchor
	}
	name := p.members[cluster][0].Name
	for _, all := range [][]fleetCase{c.First, c.More} {
		for i := range all {
			k := &all[i]
			if wordOf(&k.Case) == fleet.Word(letter) && len(k.Hosts) < 4*mostNames && fleet.Holds(k.Hosts, name) {
				return k.ID
			}
		}
	}
	return c.Anchor
}

// heatCell writes a cell. The style sheet has the signs of what is in order.
func heatCell(b *strings.Builder, letter byte, anchor string) {
	v := verdictOf(fleet.Word(letter))
	if !shows(letter) {
		if letter == '.' {
			v.Class = "absent"
		}
		_, _ = fmt.Fprintf(b, "<td class=%q></td>", v.Class)
		return
	}
	_, _ = fmt.Fprintf(b, "<td class=%q><a href=\"#%s\" tabindex=\"-1\" aria-label=%q>%s</a></td>", v.Class, escaped(anchor), v.Word, v.Sign)
}

// bar is how the hosts divide. What is rare is seen as well.
func (c *fleetCheck) bar() template.HTML {
	const width, least = 120, 2.5
	total := 0
	for _, n := range c.Counted {
		total += n.N
	}
	var b strings.Builder
	var label []string
	free := width - least*float64(len(c.Counted))
	x := 0.0
	for _, n := range c.Counted {
		w := least + free*float64(n.N)/float64(max(1, total))
		_, _ = fmt.Fprintf(&b, "<rect class=%q x=\"%.1f\" width=\"%.1f\" height=\"10\"/>", n.Class, x, w)
		x += w
		label = append(label, thousands(n.N)+" "+n.Word)
	}
	return template.HTML(fmt.Sprintf("<svg class=\"share\" viewBox=\"0 0 %d 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s\">%s</svg>", width, escaped(strings.Join(label, ", ")), b.String()))
}

// hostBlock is neighbours in the map of hosts: a rack, or hosts in the order
// of their names.
type hostBlock struct {
	Name, Text   string
	Href         string // to its hosts in the table
	fleetVerdict        // the worst
	SVG          template.HTML
}

const (
	fewHosts  = 25  // of which a map shows nothing
	blockSize = 100 // hosts of a block that is no rack
)

// makeBlocks draws each host as a square.
func (p *fleetPage) makeBlocks(v *fleetView) {
	if len(p.Hosts) < fewHosts {
		return
	}
	type group struct {
		name  string
		hosts []*fleet.Host
	}
	var groups []*group
	if key := p.blockKey(); key != "" {
		v.BlockBy = key
		byValue := map[string]*group{}
		for i := range p.Hosts {
			h := &p.Hosts[i]
			value := cmp.Or(h.Labels[key], "no "+key)
			if byValue[value] == nil {
				byValue[value] = &group{name: value}
				groups = append(groups, byValue[value])
			}
			byValue[value].hosts = append(byValue[value].hosts, h)
		}
		slices.SortStableFunc(groups, func(a, b *group) int { return compareSubjects(a.name, b.name) })
	} else {
		size := max(blockSize, (len(p.Hosts)/400+blockSize-1)/blockSize*blockSize)
		for first := 0; first < len(p.Hosts); first += size {
			g := &group{}
			for i := first; i < min(first+size, len(p.Hosts)); i++ {
				g.hosts = append(g.hosts, &p.Hosts[i])
			}
			g.name = cut(g.hosts[0].Name, 40)
			if n := len(g.hosts); n > 1 {
				g.name += " to " + cut(g.hosts[n-1].Name, 40)
			}
			groups = append(groups, g)
		}
	}
	most := 0
	for _, g := range groups {
		most = max(most, len(g.hosts))
	}
	columns := 10
	for columns < 40 && most > columns*columns {
		columns += 10
	}
	counts := map[string]int{}
	for _, g := range groups {
		b := p.block(g.hosts, cut(g.name, mostWord), columns, counts)
		if o := p.labels[[2]string{v.BlockBy, g.name}]; v.BlockBy != "" && o != nil {
			b.Href = "#" + o.ID
		}
		v.Blocks = append(v.Blocks, b)
	}
	for _, class := range []string{"fail", "unknown", "pending", "warn", "pass"} {
		if n := counts[class]; n > 0 {
			v.Key = append(v.Key, pageCount{n, map[string]string{"fail": "failing", "unknown": "incomplete", "pending": "pending", "warn": "compliant, with warnings", "pass": "compliant"}[class], class})
		}
	}
}

// blockKey is the label that says where a host stands; "" for none.
func (p *fleetPage) blockKey() string {
	values := map[string]map[string]int{}
	for i := range p.Hosts {
		for k, value := range p.Hosts[i].Labels {
			if values[k] == nil {
				values[k] = map[string]int{}
			}
			values[k][value]++
		}
	}
	best, most := "", 0
	for _, k := range slices.Sorted(maps.Keys(values)) {
		n := 0
		for _, hosts := range values[k] {
			n += hosts
		}
		if k == "rack" {
			n *= 2 // rather than what as many have
		}
		if len(values[k]) > 1 && len(values[k]) <= 1000 && n > most {
			best, most = k, n
		}
	}
	return best
}

// squares is how the verdicts of hosts are drawn: as dashes of a line, so that
// neighbours with the same one cost nothing. Each differs in form as well.
var squares = map[string]float64{"pass": 8, "warn": 5, "fail": 9.4, "pending": 8, "unknown": 3}

func (p *fleetPage) block(hosts []*fleet.Host, name string, columns int, counts map[string]int) hostBlock {
	const cell = 10
	var runs, links strings.Builder
	inBlock := map[string]int{}
	class := func(h *fleet.Host) string {
		if h.Verdict == fleet.Compliant && h.Cluster >= 0 && h.Cluster < len(p.Clusters) && strings.Contains(p.Clusters[h.Cluster].Verdicts, "w") {
			return "warn"
		}
		return hostVerdict(h.Verdict).Class
	}
	linked := func(h *fleet.Host) bool { return p.rows[h] != "" && h.Verdict != fleet.Compliant }
	for i := 0; i < len(hosts); {
		h := hosts[i]
		k := class(h)
		n := 1
		for !linked(h) && i+n < len(hosts) && (i+n)%columns != 0 && !linked(hosts[i+n]) && class(hosts[i+n]) == k {
			n++
		}
		counts[k] += n
		inBlock[k] += n
		dash := squares[k]
		line := fmt.Sprintf("<path class=%q d=\"M%g %dh%g\"/>", k, float64(i%columns*cell)+(cell-dash)/2, i/columns*cell+cell/2, float64((n-1)*cell)+dash)
		if linked(h) {
			_, _ = fmt.Fprintf(&links, "<a href=\"#%s\" tabindex=\"-1\"><title>%s: %s</title>%s</a>", escaped(p.rows[h]), escaped(cut(h.Name, mostWord)), hostVerdict(h.Verdict).Word, line)
		} else {
			runs.WriteString(line)
		}
		i += n
	}
	out := hostBlock{Name: name, fleetVerdict: fleetVerdict{"pass", "✓", "compliant"}}
	text := hostsOf(len(hosts))
	for _, verdict := range []string{fleet.Pending, fleet.Incomplete, fleet.Failing} {
		s := hostVerdict(verdict)
		if n := inBlock[s.Class]; n > 0 {
			out.fleetVerdict = s
			out.Text = strings.Join(nonEmpty(thousands(n)+" "+s.Word, out.Text), ", ")
		}
	}
	out.SVG = template.HTML(fmt.Sprintf("<svg class=\"hosts\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"group\" aria-label=\"%s\">%s%s</svg>",
		columns*cell, (len(hosts)+columns-1)/columns*cell, columns*cell, escaped(strings.Join(nonEmpty(name+": "+text, out.Text), ", ")), runs.String(), links.String()))
	return out
}

// filter is what a row is found by: its verdicts with their severities, and
// its areas.
type filter struct{ marks map[string]bool }

func (f *filter) add(word string, c *fleetCheck, p *fleetPage) {
	letter := fleet.Letter(strings.ToLower(word))
	if letter == 0 || !shows(letter) {
		return
	}
	if f.marks == nil {
		f.marks = map[string]bool{}
	}
	f.marks[string(letter)+strconv.Itoa(severityIndex(c.Severity))] = true
	area, _, _ := strings.Cut(c.ID, ".")
	f.marks["a"+strconv.Itoa(p.areas[area])] = true
}

// class is for the row's element; "" where no filter is about it.
func (f *filter) class() string {
	if len(f.marks) == 0 {
		return ""
	}
	return "row " + strings.Join(slices.Sorted(maps.Keys(f.marks)), " ")
}

var severities = []check.Severity{check.High, check.Medium, check.Low, check.Info}

func severityIndex(s check.Severity) int {
	if i := slices.Index(severities, s); i >= 0 {
		return i
	}
	return len(severities) - 1
}

// makeLabels offers the labels that divide the hosts of the table, to choose
// them by.
func (p *fleetPage) makeLabels(v *fleetView, hosts []*fleet.Host) {
	values := map[string]map[string]int{}
	for _, h := range hosts {
		for k, value := range h.Labels {
			if values[k] == nil {
				values[k] = map[string]int{}
			}
			values[k][value]++
		}
	}
	p.labels = map[[2]string]*fleetOption{}
	taken := map[string]bool{}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if len(values[k]) < 2 || len(p.labels)+len(values[k]) > mostOptions {
			continue
		}
		l := fleetLabel{Key: cut(k, mostWord)}
		for _, value := range slices.SortedFunc(maps.Keys(values[k]), compareSubjects) {
			n := len(p.labels)
			o := fleetOption{anchorFor("label-"+cut(k, mostWord), value, n, taken), cut(value, mostWord), "l" + strconv.Itoa(n), values[k][value]}
			if !anchorForm().MatchString(k) {
				o.ID = "label:" + strconv.Itoa(n)
			}
			p.labels[[2]string{k, value}] = &o
			l.Values = append(l.Values, o)
			v.Picks = append(v.Picks, o)
		}
		v.Labels = append(v.Labels, l)
	}
}

// labelClass is for the row of a host.
func (p *fleetPage) labelClass(h *fleet.Host) string {
	if len(p.labels) == 0 {
		return ""
	}
	all := []string{"lab"}
	for k, value := range h.Labels {
		if o := p.labels[[2]string{k, value}]; o != nil {
			all = append(all, o.Class)
		}
	}
	slices.Sort(all[1:])
	return strings.Join(all, " ")
}

// filters is the style that makes the filter work without any script: boxes
// and a list that hide rows, and labels as the target of a link. There is
// nothing of a host in it but numbers.
func (p *fleetPage) filters(v *fleetView) string {
	present := map[byte]bool{}
	level := map[int]bool{}
	for _, c := range v.Checks {
		level[severityIndex(c.Severity)] = true
		for _, n := range c.Counted {
			if l := fleet.Letter(strings.ToLower(n.Word)); l != 0 && shows(l) {
				present[l] = true
			}
		}
	}
	var b strings.Builder
	b.WriteString("@supports selector(:has(*)){\n.row{display:none}\n")
	for _, letter := range []byte("fewpuv") {
		if !present[letter] {
			continue
		}
		s := verdictOf(fleet.Word(letter))
		v.Marks = append(v.Marks, fleetMark{"q-" + string(rune(letter)), s.Sign, fleet.Word(letter), s.Class})
		for i := range severities {
			if level[i] {
				_, _ = fmt.Fprintf(&b, "body:has(#q-%c:checked):has(#q-%d:checked) .row.%c%d{display:revert-layer}\n", letter, i, letter, i)
			}
		}
	}
	for i, s := range severities {
		if level[i] {
			v.Severities = append(v.Severities, fleetMark{ID: "q-" + strconv.Itoa(i), Word: string(s)})
		}
	}
	for _, a := range v.Areas {
		_, _ = fmt.Fprintf(&b, "body:has(#%s:checked) .row:not(.%s){display:none!important}\n", a.ID, a.ID)
	}
	b.WriteString("}\n")
	for _, o := range v.Picks {
		_, _ = fmt.Fprintf(&b, ".%s:target~.hostlist .lab:not(.%s){display:none!important}\n", o.Class, o.Class)
	}
	return b.String()
}
