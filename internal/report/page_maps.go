// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// poolRow is the huge pages of one size on one node.
type poolRow struct {
	Node, Size           string // "node0", "1G"
	Total, Free, Surplus string // pages; "?" where not known
	Memory               string // of all pages
	Bar                  template.HTML
	Marks                []mark
}

// barWidth is the length of the bar of the largest pool.
const barWidth = 240

// pools is the map of huge pages: a bar is as long as the pool is large beside
// the largest one, its stronger part
// is in use. Sizes without pages anywhere and
// without a finding are left out: Left says which.
func pools(f *facts.Facts, findings []Finding, href func(*Finding) string) (out pagePools) {
	h := f.Hugepages()
	if h.Pools == nil {
		return pagePools{Why: h.Unknown["pools"]}
	}
	var largest int64
	used := map[int64]bool{}
	for _, p := range h.Pools {
		if p.Total == nil || *p.Total > 0 {
			used[p.SizeKB] = true
		}
		if p.Total != nil {
			largest = max(largest, *p.Total*p.SizeKB)
		}
	}
	marks := map[string][]mark{}
	for i := range findings {
		fd := &findings[i]
		if attention(fd) {
			class, sign, word := badge(fd)
			marks[fd.Subject] = append(marks[fd.Subject], mark{Class: class, Sign: sign, Word: word, Check: fd.Check, Href: href(fd), N: 1})
		}
	}
	for _, p := range h.Pools {
		r := poolRow{Node: fmt.Sprintf("node%d", p.Node), Size: facts.SizeName(p.SizeKB), Total: count(p.Total), Free: count(p.Free), Surplus: count(p.Surplus), Memory: "?"}
		r.Marks = marks[r.Node+" "+r.Size]
		if !used[p.SizeKB] && r.Marks == nil {
			if !slices.Contains(out.Left, r.Size) {
				out.Left = append(out.Left, r.Size)
			}
			continue
		}
		if p.Total != nil {
			r.Memory = facts.MemName(*p.Total * p.SizeKB)
			r.Bar = poolBar(&p, largest)
		}
		out.Rows = append(out.Rows, r)
	}
	return out
}

func poolBar(p *facts.NodePool, largest int64) template.HTML {
	long := func(pages int64) float64 {
		if largest <= 0 {
			return 0
		}
		return barWidth * float64(max(0, pages)) * float64(p.SizeKB) / float64(largest)
	}
	total, label := long(*p.Total), count(p.Total)+" pages"
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "<rect class=\"track\" width=\"%d\" height=\"12\" rx=\"2\"/><rect class=\"free\" width=\"%.1f\" height=\"12\" rx=\"2\"/>", barWidth, total)
	if p.Free != nil {
		_, _ = fmt.Fprintf(&b, "<rect class=\"used\" width=\"%.1f\" height=\"12\" rx=\"2\"/>", min(total, long(*p.Total-*p.Free)))
		label = fmt.Sprintf("%d of %d pages in use", *p.Total-*p.Free, *p.Total)
	}
	return template.HTML(fmt.Sprintf("<svg class=\"bar\" viewBox=\"0 0 %d 12\" role=\"img\" aria-label=\"%s\">%s</svg>", barWidth, escaped(label), b.String()))
}

func count(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

// irqMap is where the queues of each network function are served.
type irqMap struct {
	Nodes []irqNode // the columns
	Rows  []irqRow
	Idle  []string // functions without interrupts of queues
	Note  string
	Why   string // why there is none
}

type irqNode struct{ Name, CPUs string }

// grid is the columns of the map, each of a CPU.
type grid struct {
	at    map[int]int // the column of a CPU
	width int
	seams []int // where a node's columns begin
	nodes []facts.CPUSet
}

const gridCell = 4 // width of a column and height of a queue's row

// runs draws the columns of CPUs, neighbours as one.
func (g *grid) runs(b *strings.Builder, set facts.CPUSet, class string, y int) {
	var columns []int
	for _, c := range set.List() {
		if x, ok := g.at[c]; ok {
			columns = append(columns, x)
		}
	}
	slices.Sort(columns)
	for len(columns) > 0 {
		n := 1
		for n < len(columns) && columns[n] == columns[0]+n {
			n++
		}
		_, _ = fmt.Fprintf(b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>", class, columns[0]*gridCell, y, n*gridCell-1, gridCell-1)
		columns = columns[n:]
	}
}

// picture frames what was drawn.
func (g *grid) picture(class, label string, height int, in string) template.HTML {
	w := max(1, g.width*gridCell)
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "<svg class=%q viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s\"><rect class=\"track\" width=\"%d\" height=\"%d\"/>%s",
		class, w, height, escaped(label), w, height, in)
	for _, s := range g.seams {
		if s > 0 {
			_, _ = fmt.Fprintf(&b, "<rect class=\"seam\" x=\"%d\" width=\"1\" height=\"%d\"/>", s*gridCell-1, height)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// irqRow is one function.
type irqRow struct {
	Name, BDF, Node string
	Text            string // the row in words
	Far             bool   // some queue is served on another node
	Strip           template.HTML
	Queues          template.HTML
	Marks           []mark
}

// irqs is the map of interrupts: a column for each CPU, by node.
func irqs(f *facts.Facts, names map[string]string, findings []Finding, href func(*Finding) string) irqMap {
	var m irqMap
	all, cpus := f.IRQs(), f.CPUs()
	if all.Devices == nil || cpus.Nodes == nil {
		m.Why = cmp.Or(all.Unknown["devices"], cpus.Unknown["nodes"], "not known")
		return m
	}
	g := grid{at: map[int]int{}}
	for _, n := range cpus.Nodes {
		if n.CPUs == nil {
			continue
		}
		set, err := facts.ParseCPUSet(*n.CPUs)
		if err != nil || set.Len() == 0 {
			continue
		}
		g.seams = append(g.seams, g.width)
		for _, c := range set.List() {
			g.at[c] = g.width
			g.width++
		}
		g.nodes = append(g.nodes, set)
		m.Nodes = append(m.Nodes, irqNode{Name: fmt.Sprintf("node%d", n.Node), CPUs: *n.CPUs})
	}
	for _, d := range all.Devices {
		if r, ok := m.row(d, &g); ok {
			r.Name = cmp.Or(names[d.BDF], d.BDF)
			for i := range findings {
				if fd := &findings[i]; strings.HasPrefix(fd.Check, "irq.") && attention(fd) && strings.HasPrefix(fd.Subject+" ", d.BDF+" ") {
					class, sign, word := badge(fd)
					r.Marks = append(r.Marks, mark{Class: class, Sign: sign, Word: word, Check: fd.Check, Href: href(fd), N: 1})
				}
			}
			m.Rows = append(m.Rows, r)
		} else {
			m.Idle = append(m.Idle, cmp.Or(names[d.BDF], d.BDF))
		}
	}
	if b := all.Irqbalance; b.Active != nil && *b.Active && !b.OneShot {
		m.Note = "irqbalance is active and may move what nothing holds in place"
	}
	if len(m.Rows) == 0 && len(m.Idle) == 0 {
		m.Why = "no network function on the PCI bus"
	}
	return m
}

// row draws a function's queues; without any it is not ok.
func (m *irqMap) row(d *facts.IRQDevice, g *grid) (r irqRow, ok bool) {
	r.BDF = d.BDF
	var local facts.CPUSet
	if d.LocalCPUs != nil {
		local, _ = facts.ParseCPUSet(*d.LocalCPUs) // was decoded once
	}
	served := map[int]int{} // queues of a CPU
	var queues, strip strings.Builder
	n, far, unknown, idle, most := 0, 0, 0, 0, 1
	for _, i := range d.IRQs {
		if !i.Queue {
			continue
		}
		set, why := i.ServedBy()
		class := "near"
		switch {
		case why != "":
			unknown++
		case set.Len() == 0:
			idle++
		case d.LocalCPUs != nil && set.Minus(local).Len() > 0:
			class = "away"
			far++
		}
		for _, c := range set.List() {
			served[c]++
			most = max(most, served[c])
		}
		g.runs(&queues, set, class, n*gridCell)
		n++
	}
	if n == 0 {
		return r, false
	}
	const height = 14
	for _, c := range slices.Sorted(maps.Keys(served)) {
		x, ok := g.at[c]
		if !ok {
			continue
		}
		class := "near"
		if d.LocalCPUs != nil && !local.Has(c) {
			class = "away"
		}
		_, _ = fmt.Fprintf(&strip, "<rect class=%q x=\"%d\" width=\"%d\" height=\"%d\" opacity=\"%.2f\"/>",
			class, x*gridCell, gridCell-1, height, 0.45+0.55*float64(served[c])/float64(most))
	}
	r.Text = plural(n, "queue") + " on " + plural(len(served), "CPU")
	for _, also := range []struct {
		n    int
		text string
	}{{far, "served on another node"}, {idle, "not in use"}, {unknown, "served nobody knows where"}} {
		if also.n > 0 {
			r.Text += fmt.Sprintf("; %d %s", also.n, also.text)
		}
	}
	if d.LocalCPUs == nil {
		r.Text += "; its node is not known"
	}
	for i, set := range g.nodes {
		if d.LocalCPUs != nil && set.And(local).Len() > 0 {
			r.Node = strings.Join(nonEmpty(r.Node, m.Nodes[i].Name), ", ")
		}
	}
	r.Far = far > 0
	r.Strip = g.picture("strip", r.Text, height, strip.String())
	r.Queues = g.picture("queues", "a row for each queue, a column for each CPU", n*gridCell, queues.String())
	return r, true
}
