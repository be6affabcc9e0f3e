// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"html"
	"strings"
)

const (
	svgRow    = 22  // height of a line of text
	svgPad    = 10  // around what is in a box
	svgColumn = 560 // width of the box of a node
	svgCell   = 56
	svgChar   = 7.3 // width of a character of the text, in the widest of the usual fonts
)

const svgStyle = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2128;--dim:#59636e;--line:#c8ced6;--box:#f4f6f8;--gpu:#d5f0d8;--nic:#d6e6fb;--bad:#c4161c;--near:#d5f0d8}
@media (prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e4e8ee;--dim:#a9b3be;--line:#3d4650;--box:#1d2229;--gpu:#163a1f;--nic:#193253;--bad:#ff958e;--near:#163a1f}}
text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:var(--fg)}
.dim{fill:var(--dim)}.bad{fill:var(--bad);font-weight:bold}.head{font-weight:bold}
.bg{fill:var(--bg)}.box{fill:var(--box);stroke:var(--line)}.gpu{fill:var(--gpu)}.nic{fill:var(--nic)}.near{fill:var(--near)}.far{fill:var(--box)}
.trouble{stroke:var(--bad);stroke-width:2}
`

// SVG draws the tree and the matrix as one picture that needs nothing else;
// its colours follow the reader's light or dark scheme.
func (v *Topology) SVG() string {
	var b strings.Builder
	y, width := svgPad, 2*svgPad+svgColumn
	if len(v.Nodes) == 0 {
		svgText(&b, svgPad, y+16, "", cmp.Or(v.Why, "no GPU and no network function on the PCI bus"))
		y += svgRow
	}
	for i := 0; i < len(v.Nodes); i += 2 { // two nodes side by side
		tall := 0
		for k, n := range v.Nodes[i:min(i+2, len(v.Nodes))] {
			x := svgPad + k*(svgColumn+svgPad)
			width = max(width, x+svgColumn+svgPad)
			tall = max(tall, n.svg(&b, x, y, svgColumn))
		}
		y += tall + svgPad
	}
	if len(v.GPUs) > 0 && len(v.NICs) > 0 {
		y += svgRow
		width = max(width, svgPad*2+(len(v.NICs)+1)*svgCell)
		for c, nic := range v.NICs {
			svgText(&b, svgPad+(c+1)*svgCell+6, y, "head", v.name(nic))
		}
		for r, gpu := range v.GPUs {
			top := y + 8 + r*svgRow
			svgText(&b, svgPad, top+15, "head", v.name(gpu))
			for c, nic := range v.NICs {
				d, class := v.cell(gpu, nic), "far"
				if d == "PIX" || d == "PXB" {
					class = "near"
				}
				x := svgPad + (c+1)*svgCell
				_, _ = fmt.Fprintf(&b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"3\"/>\n", class, x, top, svgCell-3, svgRow-3)
				svgText(&b, x+6, top+14, "", d)
			}
		}
		y += 8 + len(v.GPUs)*svgRow
		for _, l := range wrap(legend, int(float64(width-2*svgPad)/svgChar)) {
			y += svgRow
			svgText(&b, svgPad, y, "dim", l)
		}
		y += svgPad
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n"+
		"<title>GPUs and network functions by NUMA node</title>\n<style>%s</style>\n<rect class=\"bg\" width=\"100%%\" height=\"100%%\"/>\n%s</svg>\n",
		width, y, width, y, svgStyle, b.String())
}

// svg draws a box with what is below in it, and gives its height.
func (n *TopologyNode) svg(b *strings.Builder, x, y, width int) int {
	var in strings.Builder
	room := int(float64(width-2*svgPad) / svgChar)
	h := 6
	put := func(class, text string) {
		if text == "" {
			return
		}
		for _, l := range wrap(text, room) {
			svgText(&in, x+svgPad, y+h+14, class, l)
			h += svgRow - 4
		}
	}
	head := "dim"
	if n.Device || y == svgPad {
		head = "head"
	}
	put(head, n.Label)
	put("dim", n.Detail)
	if n.Trouble != "" {
		put("bad", "! "+n.Trouble)
	}
	h += n.svgMarks(&in, x+svgPad, y+h, width-2*svgPad) + 6
	for _, c := range n.Below {
		h += c.svg(&in, x+svgPad, y+h, width-2*svgPad) + 6
	}
	class := "box"
	switch {
	case strings.HasPrefix(n.Label, "GPU"):
		class = "gpu"
	case n.Device:
		class = "nic"
	}
	class += n.tone()
	_, _ = fmt.Fprintf(b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"5\"/>\n%s", class, x, y, width, h, in.String())
	return h
}

func svgText(b *strings.Builder, x, y int, class, s string) {
	_, _ = fmt.Fprintf(b, "<text class=%q x=\"%d\" y=\"%d\">%s</text>\n", class, x, y, escaped(s))
}

// escaped is s for the text or a quoted attribute of a picture.
func escaped(s string) string { return html.EscapeString(Clean(s)) }
