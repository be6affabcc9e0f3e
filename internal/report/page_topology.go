// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

// mark is a verdict on a device, shown where the device stands.
type mark struct {
	Class, Sign, Word string
	Check             string
	Href              string // "#f3": where the finding stands in the page
	N                 int    // how many findings it stands for
	VF                bool   // of virtual functions

	rank int
}

// Text is the mark in words.
func (m mark) Text() string {
	s := m.Sign + " " + m.Word + " " + m.Check
	if m.VF {
		s += " of a VF"
	}
	if m.N > 1 {
		s += fmt.Sprintf(" × %d", m.N)
	}
	return s
}

// vf is one virtual function, drawn as a cell of its physical one.
type vf struct {
	bdf, class string
	rank       int
}

// pageNode is a NUMA node in the page: a picture, and the same as a list.
type pageNode struct {
	Name, Detail string
	SVG          template.HTML // drawn by [TopologyNode.figure], which escapes
	Tree         *TopologyNode
}

// marked puts what attention is needed for at the devices it is about. href
// says where a finding stands.
func (v *Topology) marked(f *facts.Facts, findings []Finding, href func(*Finding) string) {
	p := v.places(f)
	for i := range findings {
		fd := &findings[i]
		n, function := p.find(fd.Subject)
		if n == nil || !attention(fd) {
			continue
		}
		class, sign, word := badge(fd)
		if function != nil && rank(fd) < function.rank {
			function.class, function.rank = class, rank(fd)
		}
		m := mark{Class: class, Sign: sign, Word: word, Check: fd.Check, Href: href(fd), N: 1, VF: function != nil, rank: rank(fd)}
		if k := slices.IndexFunc(n.marks, func(o mark) bool { return o.Check == m.Check && o.Class == m.Class && o.Href == m.Href && o.VF == m.VF }); k >= 0 {
			n.marks[k].N++
			continue
		}
		n.marks = append(n.marks, m)
	}
	for _, n := range p.all {
		slices.SortStableFunc(n.marks, func(a, b mark) int { return cmp.Compare(a.rank, b.rank) })
	}
}

// places leads from what subjects are called to what is drawn.
type places struct {
	named map[string]*TopologyNode // by address, interface, RDMA device, "node1"
	vfs   map[string]*vf
	all   []*TopologyNode
}

// places also adds what the page shows beyond the tree of "hostcheck topo":
// the speed of ports, and each virtual function.
func (v *Topology) places(f *facts.Facts) *places {
	p := &places{named: map[string]*TopologyNode{}, vfs: map[string]*vf{}}
	var walk func(*TopologyNode)
	walk = func(n *TopologyNode) {
		p.all = append(p.all, n)
		p.named[n.bdf] = n
		for _, c := range n.Below {
			walk(c)
		}
	}
	for _, n := range v.Nodes {
		walk(n)
		delete(p.named, n.bdf)
		p.named[n.Label] = n // "node0"
	}
	bus := f.PCI()
	for _, d := range f.Topology().Devices {
		n := v.drawn[d.BDF]
		above, _ := bus.Above(bus.At(d.BDF))
		for _, b := range above { // the lower ports of switches are not drawn
			if p.named[b.BDF] == nil {
				p.named[b.BDF] = n
			}
		}
		for _, name := range slices.Concat(d.Names, d.RDMA) {
			p.named[name] = n
		}
	}
	for _, fn := range bus.Functions {
		if !fn.VF() || p.named[*fn.PhysFn] == nil {
			continue
		}
		n := p.named[*fn.PhysFn]
		c := &vf{bdf: fn.BDF, class: "none", rank: 1 << 20}
		n.functions = append(n.functions, c)
		p.named[fn.BDF], p.vfs[fn.BDF] = n, c
	}
	for _, nic := range f.NICs().List {
		if !nic.Physical() || p.named[*nic.BDF] == nil {
			continue
		}
		n := p.named[*nic.BDF]
		p.named[nic.Name] = n
		if nic.VF {
			p.vfs[nic.Name] = p.vfs[*nic.BDF]
			continue
		}
		switch {
		case nic.Carrier != nil && !*nic.Carrier:
			n.add("no carrier")
		case nic.SpeedMbps != nil && *nic.SpeedMbps > 0:
			n.add(strconv.FormatFloat(float64(*nic.SpeedMbps)/1000, 'g', -1, 64) + " Gb/s")
		}
	}
	return p
}

func (n *TopologyNode) add(detail string) {
	n.Detail = strings.Join(nonEmpty(n.Detail, detail), " · ")
}

// find gives the place that the first word of a subject names that is drawn,
// and the virtual function where it is one.
func (p *places) find(subject string) (*TopologyNode, *vf) {
	for word := range strings.FieldsSeq(subject) {
		word = strings.Trim(word, "(),;:")
		if port, _, ok := strings.Cut(word, "/"); ok { // "mlx5_0/1"
			word = port
		}
		if n := p.named[word]; n != nil {
			return n, p.vfs[word]
		}
	}
	return nil, nil
}

// badge is how a finding is shown: class of the style sheet, sign and word.
func badge(f *Finding) (class, sign, word string) {
	p := newPalette()
	sign, word, _ = p.mark(f.Status, f.Pending, f.Waiver != nil)
	class = string(f.Status)
	switch {
	case f.Waiver != nil:
		class = "waived"
	case f.Pending && (f.Status == check.Fail || f.Status == check.Warn):
		class = "pending"
	}
	return class, sign, word
}

// pageColumn is the width of a node's picture: narrow, for phones.
const pageColumn = 420

// figures draws each node by itself, so that they stand side by side or below
// each other as there is room.
func (v *Topology) figures() []pageNode {
	var all []pageNode
	for i, n := range v.Nodes {
		all = append(all, pageNode{Name: n.Label, Detail: n.Detail, SVG: n.figure(i), Tree: n})
	}
	return all
}

func (n *TopologyNode) figure(i int) template.HTML {
	var b strings.Builder
	const edge = 2 // room for the line around the box
	h := n.svg(&b, svgPad, svgPad, pageColumn) + 2*edge
	return template.HTML(fmt.Sprintf("<svg class=\"topo\" viewBox=\"%d %d %d %d\" role=\"group\" aria-labelledby=\"topo%d-title topo%d-desc\">"+
		"<title id=\"topo%d-title\">%s</title><desc id=\"topo%d-desc\">Root ports, switches, GPUs and network functions of %s, nested as they are connected; the list below says the same.</desc>\n%s</svg>",
		svgPad-edge, svgPad-edge, pageColumn+2*edge, h, i, i, i, escaped(n.Label), i, escaped(n.Label), b.String()))
}

const (
	svgCellVF = 9   // of a virtual function
	mostVFs   = 256 // more are only counted
	mostMarks = 6
)

// svgMarks draws the verdicts on a device and its virtual functions below its
// text, and gives the height.
func (n *TopologyNode) svgMarks(b *strings.Builder, x, y, width int) int {
	h := 0
	for i, m := range n.marks {
		h += svgRow - 4
		if i == mostMarks && len(n.marks) > mostMarks+1 {
			svgText(b, x, y+h-4, "dim", fmt.Sprintf("and %d more", len(n.marks)-i))
			break
		}
		_, _ = fmt.Fprintf(b, "<a href=\"%s\">", escaped(m.Href))
		svgText(b, x, y+h-4, "mark "+m.Class, m.Text())
		b.WriteString("</a>\n")
	}
	if len(n.functions) == 0 || len(n.functions) > mostVFs {
		return h
	}
	h += 8
	columns := max(1, width/svgCellVF)
	for i, f := range n.functions {
		_, _ = fmt.Fprintf(b, "<rect class=\"vf %s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"><title>VF %s</title></rect>\n",
			f.class, x+i%columns*svgCellVF, y+h+i/columns*svgCellVF, svgCellVF-2, svgCellVF-2, escaped(f.bdf))
	}
	return h + (len(n.functions)+columns-1)/columns*svgCellVF
}

// Marks is for the page's list.
func (n *TopologyNode) Marks() []mark { return n.marks }

// Tone is the class of a box: the worst verdict in it.
func (n *TopologyNode) tone() string {
	switch {
	case len(n.marks) > 0:
		return " has-" + n.marks[0].Class
	case n.Trouble != "":
		return " trouble"
	}
	return ""
}
