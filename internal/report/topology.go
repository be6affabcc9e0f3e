// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// Topology is the places of a host's GPUs and network functions, to be drawn.
type Topology struct {
	Nodes []*TopologyNode
	GPUs  []string // BDFs; "GPU0" in drawings is the first
	NICs  []string
	Why   string // why nothing is known

	max      facts.Distance // how far the nearest RDMA NIC of a GPU may be
	distance map[[2]string]*facts.Distance
	drawn    map[string]*TopologyNode // devices, by BDF
	unknown  []string                 // why distances are not known, each once
}

// TopologyNode is a NUMA node, a bridge or a device in the drawing.
type TopologyNode struct {
	Label   string // "NIC0 0000:18:00.0 ens1np0"
	Detail  string // "mlx5_core · 32 GT/s x16"
	Trouble string // "16 of 32 GT/s"; "" when all is well
	Device  bool
	Below   []*TopologyNode

	bdf       string
	marks     []mark // of the page, the worst first
	functions []*vf
}

// NewTopology arranges what the facts know: nodes, then root ports, switches
// and devices. The lower ports of a switch are not drawn, as each leads to one
// device. A GPU whose nearest RDMA NIC is farther than most is in trouble; on a
// virtual machine distances are made up, and are none.
func NewTopology(f *facts.Facts, most facts.Distance) *Topology {
	t := f.Topology()
	v := &Topology{max: most, GPUs: t.GPUs, NICs: t.NICs, distance: map[[2]string]*facts.Distance{}, drawn: map[string]*TopologyNode{}}
	if t.Devices == nil {
		v.Why = t.Unknown["devices"]
		return v
	}
	for _, p := range t.Pairs {
		v.distance[[2]string{p.GPU, p.NIC}] = p.Distance
		if why := p.Unknown["distance"]; why != "" && !slices.Contains(v.unknown, why) {
			v.unknown = append(v.unknown, why)
		}
	}
	byNode := map[int]*TopologyNode{}
	for _, d := range t.Devices {
		n := -1
		switch nodes := f.NUMA().Nodes; {
		case d.NUMANode != nil:
			n = *d.NUMANode
		case len(nodes) == 1:
			n = nodes[0]
		}
		if byNode[n] == nil {
			byNode[n] = nodeOf(f, n)
		}
		v.place(f, byNode[n], d)
	}
	if h := f.Kernel().Hypervisor; h == nil || *h == "" {
		v.markFar(t)
	}
	for _, n := range byNode {
		v.Nodes = append(v.Nodes, n)
	}
	slices.SortFunc(v.Nodes, func(a, b *TopologyNode) int {
		return cmp.Or(cmp.Compare(len(a.bdf), len(b.bdf)), cmp.Compare(a.bdf, b.bdf))
	})
	return v
}

func nodeOf(f *facts.Facts, node int) *TopologyNode {
	if node < 0 {
		return &TopologyNode{Label: "NUMA node not known", bdf: "~~~~~~~~~~~~"}
	}
	n := &TopologyNode{Label: "node" + strconv.Itoa(node), bdf: strconv.Itoa(node)}
	for _, c := range f.CPUs().Nodes {
		if c.Node != node {
			continue
		}
		if c.CPUs != nil && *c.CPUs != "" {
			n.Detail = "CPUs " + *c.CPUs
		} else if c.CPUs != nil {
			n.Detail = "no CPUs"
		}
		if c.MemKB != nil {
			n.Detail = strings.TrimPrefix(fmt.Sprintf("%s · %.0f GiB", n.Detail, float64(*c.MemKB)/(1<<20)), " · ")
		}
	}
	return n
}

// place hangs a device below its bridges.
func (v *Topology) place(f *facts.Facts, at *TopologyNode, d facts.Placed) {
	bus := f.PCI()
	fn := bus.At(d.BDF)
	above, known := bus.Above(fn)
	if known {
		upper := facts.Switches(above)
		for i := len(above) - 1; i >= 0; i-- {
			kind := "switch"
			switch {
			case upper[i]:
			case i == len(above)-1:
				kind = "root port"
			default:
				continue
			}
			next := child(at, above[i].BDF)
			if next == nil {
				next = &TopologyNode{bdf: above[i].BDF, Label: kind + " " + above[i].BDF}
				if kind == "switch" { // the link above it, which its devices share
					next.Detail, next.Trouble = link(bus, above[i])
				}
				at.Below = append(at.Below, next)
			}
			at = next
		}
	}
	v.drawn[d.BDF] = v.device(bus, fn, d, known)
	at.Below = append(at.Below, v.drawn[d.BDF])
}

// markFar marks the GPUs whose nearest RDMA NIC is beyond the limit; not those of which some distance is not known.
func (v *Topology) markFar(t *facts.Topology) {
	for _, gpu := range t.GPUs {
		var best facts.Distance
		nearest, known := "", true
		for _, d := range t.Devices {
			if d.GPU || len(d.RDMA) == 0 || d.Driver != nil && *d.Driver == "" {
				continue
			}
			switch far := v.distance[[2]string{gpu, d.BDF}]; {
			case far == nil:
				known = false
			case best == "" || best.Farther(*far):
				best, nearest = *far, v.name(d.BDF)
			}
		}
		if n := v.drawn[gpu]; known && best.Farther(v.max) {
			far := fmt.Sprintf("far: its nearest RDMA NIC is %s, %s", nearest, best)
			n.Trouble = strings.TrimPrefix(n.Trouble+", "+far, ", ")
		}
	}
}

func child(n *TopologyNode, bdf string) *TopologyNode {
	for _, c := range n.Below {
		if c.bdf == bdf {
			return c
		}
	}
	return nil
}

func (v *Topology) device(bus *facts.PCIBus, fn *facts.PCIFunction, d facts.Placed, known bool) *TopologyNode {
	label := []string{v.name(d.BDF), d.BDF}
	for _, name := range slices.Concat(d.Names, d.RDMA) {
		label = append(label, Clean(name))
	}
	var detail, trouble []string
	if d.Driver != nil {
		detail = append(detail, cmp.Or(Clean(*d.Driver), "no driver"))
	}
	speed, slow := link(bus, fn)
	detail = append(detail, speed)
	trouble = append(trouble, slow)
	if d.VFs > 0 {
		detail = append(detail, plural(d.VFs, "VF"))
	}
	if !known {
		detail = append(detail, "place in the tree not known")
	}
	empty := func(s string) bool { return s == "" }
	return &TopologyNode{
		bdf: d.BDF, Device: true, Label: strings.Join(label, " "),
		Detail:  strings.Join(slices.DeleteFunc(detail, empty), " · "),
		Trouble: strings.Join(slices.DeleteFunc(trouble, empty), ", "),
	}
}

// name is the short name of a device: "GPU0", "NIC3".
func (v *Topology) name(bdf string) string {
	if i := slices.Index(v.GPUs, bdf); i >= 0 {
		return "GPU" + strconv.Itoa(i)
	}
	return "NIC" + strconv.Itoa(slices.Index(v.NICs, bdf))
}

// link is the link above a function, and what it lacks of what both of its
// ends can do. GPUs lower their speed when idle: only their width is compared.
func link(bus *facts.PCIBus, fn *facts.PCIFunction) (state, trouble string) {
	l := fn.Link
	var state2, trouble2 []string
	var up facts.PCILink
	if fn.Parent != nil {
		if p := bus.At(*fn.Parent); p != nil {
			up = p.Link
		}
	}
	if l.SpeedGTs != nil {
		state2 = append(state2, fmt.Sprintf("%g GT/s", *l.SpeedGTs))
		if l.MaxSpeedGTs != nil && up.MaxSpeedGTs != nil && !fn.GPU() {
			if best := min(*l.MaxSpeedGTs, *up.MaxSpeedGTs); *l.SpeedGTs < best {
				trouble2 = append(trouble2, fmt.Sprintf("slow link: %g of %g GT/s", *l.SpeedGTs, best))
			}
		}
	}
	if l.Width != nil {
		state2 = append(state2, fmt.Sprintf("x%d", *l.Width))
		if l.MaxWidth != nil && up.MaxWidth != nil {
			if best := min(*l.MaxWidth, *up.MaxWidth); *l.Width < best {
				trouble2 = append(trouble2, fmt.Sprintf("narrow link: x%d of x%d", *l.Width, best))
			}
		}
	}
	return strings.Join(state2, " "), strings.Join(trouble2, ", ")
}

// cell is how a pair stands in the matrix.
func (v *Topology) cell(gpu, nic string) string {
	if d := v.distance[[2]string{gpu, nic}]; d != nil {
		return string(*d)
	}
	return "?"
}

const legend = "PIX one switch · PXB several switches · PHB one host bridge · NODE one NUMA node · SYS different nodes · ? not known"

// Topology draws the tree and the matrix of distances as text.
func (t Text) Topology(v *Topology) string {
	p := t.printer()
	if len(v.Nodes) == 0 {
		p.line(cmp.Or(v.Why, "no GPU and no network function on the PCI bus"))
		return t.finish(&p.b)
	}
	for i, n := range v.Nodes {
		if i > 0 {
			p.line("")
		}
		if n.Detail == "" {
			p.line(p.bold.Render(n.Label))
		} else {
			p.line(p.bold.Render(n.Label) + "  " + p.dim.Render(n.Detail))
		}
		p.branches(n, "")
	}
	p.matrix(v)
	return t.finish(&p.b)
}

func (p *printer) branches(n *TopologyNode, lead string) {
	for i, c := range n.Below {
		mark, next := "├─ ", "│  "
		if i == len(n.Below)-1 {
			mark, next = "└─ ", "   "
		}
		if p.ASCII {
			mark, next = strings.NewReplacer("├─", "|-", "└─", "`-").Replace(mark), strings.Replace(next, "│", "|", 1)
		}
		style := p.dim
		if c.Device {
			style = p.plain
		}
		var rest []string
		for _, s := range []string{c.Label, c.Detail} {
			if s != "" {
				rest = append(rest, s)
			}
		}
		room := p.width() - lipgloss.Width(lead+mark)
		for k, l := range wrap(strings.Join(rest, " · "), room) {
			if k > 0 {
				mark = next
			}
			p.line(lead + mark + style.Render(l))
		}
		if c.Trouble != "" {
			for _, l := range wrap("! "+c.Trouble, room) {
				p.line(lead + next + p.red.Render(l))
			}
		}
		p.branches(c, lead+next)
	}
}

// matrix prints as many columns side by side as there is room for.
func (p *printer) matrix(v *Topology) {
	if len(v.GPUs) == 0 || len(v.NICs) == 0 {
		return
	}
	const cell = 7
	head := len(v.name(v.GPUs[len(v.GPUs)-1])) + 2
	for nics := range slices.Chunk(v.NICs, max(1, (p.width()-head)/cell)) {
		p.line("")
		row := pad("", head)
		for _, nic := range nics {
			row += pad(v.name(nic), cell)
		}
		p.line(p.bold.Render(strings.TrimRight(row, " ")))
		for _, gpu := range v.GPUs {
			row := p.bold.Render(pad(v.name(gpu), head))
			for _, nic := range nics {
				d := v.cell(gpu, nic)
				row += p.near(v, d).Render(d) + pad("", cell-len(d))
			}
			p.line(row)
		}
	}
	p.line("")
	for _, l := range wrap(legend, p.width()) {
		p.line(p.dim.Render(l))
	}
	for _, why := range v.unknown {
		p.labelled(0, "?", why, p.dim)
	}
}

// near is true of a distance within the limit.
func (v *Topology) near(d string) bool {
	return slices.Contains(facts.Distances, facts.Distance(d)) && !facts.Distance(d).Farther(v.max)
}

// near is the style of a distance.
func (p *printer) near(v *Topology, d string) lipgloss.Style {
	switch {
	case v.near(d):
		return p.green
	case slices.Contains(facts.Distances, facts.Distance(d)):
		return p.dim
	}
	return p.magenta
}
