// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
)

// Colours that people with any kind of colour vision tell apart (Okabe, Ito).
var svgColours = map[string]string{Bare: "#0072B2", Tunnel: "#E69F00"}

const softirqColour = "#D55E00"

// SVG draws a bar of each run's throughput, and below it what the busiest CPU
// did: softirq within busy.
func (v *VXLAN) SVG() string {
	const (
		width, left, right = 860, 230, 150
		row, head          = 46, 64
	)
	most := 0.0
	for i := range v.Runs {
		most = max(most, v.Runs[i].Gbps)
	}
	scale := func(x, of float64) float64 {
		if of <= 0 {
			return 0
		}
		return min(1, x/of) * (width - left - right)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13" role="img">`+"\n", width, head+row*len(v.Runs)+40)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="16" y="24" font-size="16">TCP with and without VXLAN, between two network namespaces of one host</text>`+"\n")
	fmt.Fprintf(&b, `<text x="16" y="44" fill="#555">%d CPUs, %.3g s each, MTU %d (%d within the tunnel)</text>`+"\n", v.CPUs, v.Seconds, v.MTU, v.InnerMTU)
	for i := range v.Runs {
		r := &v.Runs[i]
		y := head + row*i
		c, _ := busiest(r.Cores)
		fmt.Fprintf(&b, `<text x="16" y="%d">%s, %s, %s</text>`+"\n", y+17, r.Path, r.Segmentation, streamCount(r.Streams))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="18" fill="%s"/>`+"\n", left, y+4, scale(r.Gbps, most), svgColours[r.Path])
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f Gb/s</text>`+"\n", left+scale(r.Gbps, most)+8, y+18, r.Gbps)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="8" fill="#cccccc"/>`+"\n", left, y+25, scale(c.Busy, 100))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="8" fill="%s"/>`+"\n", left, y+25, scale(c.SoftIRQ, 100), softirqColour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="11" fill="#555">CPU %d: %.0f%% softirq</text>`+"\n", width-right+8, y+33, c.CPU, c.SoftIRQ)
	}
	y := head + row*len(v.Runs) + 22
	fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="11" fill="#555">thin bar: the busiest CPU, busy (grey) and of that softirq (red); its full length is 100%%</text>`+"\n", left, y)
	b.WriteString("</svg>\n")
	return b.String()
}
