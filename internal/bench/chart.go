// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// chart is one plot. Its colours are attributes, which a style sheet of the page
// around it overrides by the classes ink, dim, grid, paper and s0 to s5.
type chart struct {
	title, x, y string
	ticks       []string // names of the places 0, 1, 2 of x; nil: x is a number, in powers of ten
	series      []series
	limits      []limit
}

type series struct {
	name   string
	points []point
}

type point struct {
	x, y, sd float64
	label    string
	best     bool
}

// limit is a value that nothing exceeds, drawn across.
type limit struct {
	name  string
	value float64
}

const (
	chartWidth, chartHeight                      = 860, 380
	chartLeft, chartRight, chartTop, chartBottom = 64, 190, 44, 52
)

// palette is told apart by people with any kind of colour vision (Okabe, Ito).
var palette = []string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"}

// nice rounds a maximum up to what axes have.
func nice(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if f*base >= v*0.9999 {
			return f * base
		}
	}
	return 10 * base
}

// span is the least and the most of x, as powers of ten.
func (c *chart) span() (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, s := range c.series {
		for _, p := range s.points {
			if p.x > 0 {
				lo, hi = min(lo, math.Log10(p.x)), max(hi, math.Log10(p.x))
			}
		}
	}
	if lo > hi {
		return 0, 1
	}
	lo, hi = lo-0.1, hi+0.2
	if hi-lo < 1 {
		hi = lo + 1
	}
	return lo, hi
}

func (c *chart) top() float64 {
	most := 0.0
	for _, s := range c.series {
		for _, p := range s.points {
			most = max(most, p.y+p.sd)
		}
	}
	shown := most
	for _, l := range c.limits {
		if l.value < 4*most { // one far above would press the rest down
			shown = max(shown, l.value)
		}
	}
	return nice(shown * 1.04)
}

// draw writes the plot as a group whose upper end is at y.
func (c *chart) draw(b *strings.Builder, at int) {
	w, h := float64(chartWidth-chartLeft-chartRight), float64(chartHeight-chartTop-chartBottom)
	top := c.top()
	lo, hi := c.span()
	px := func(x float64) float64 {
		if c.ticks != nil {
			return chartLeft + w*(x+0.5)/float64(len(c.ticks))
		}
		return chartLeft + w*(math.Log10(max(x, 1e-9))-lo)/(hi-lo)
	}
	py := func(y float64) float64 { return chartTop + h*(1-y/top) }
	fmt.Fprintf(b, `<g transform="translate(0,%d)">`+"\n", at)
	fmt.Fprintf(b, `<text class="ink" x="16" y="24" font-size="16" fill="#1a1a1a">%s</text>`+"\n", html.EscapeString(c.title))
	for i := range 6 { // five parts
		v := top * float64(i) / 5
		fmt.Fprintf(b, `<line class="grid" x1="%d" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`+"\n", chartLeft, py(v), chartLeft+w, py(v))
		fmt.Fprintf(b, `<text class="dim" x="%d" y="%.1f" text-anchor="end" fill="#555555">%.3g</text>`+"\n", chartLeft-8, py(v)+4, v)
	}
	if c.ticks != nil {
		for i, t := range c.ticks {
			fmt.Fprintf(b, `<text class="dim" x="%.1f" y="%.1f" text-anchor="middle" fill="#555555">%s</text>`+"\n", px(float64(i)), chartTop+h+18, html.EscapeString(t))
		}
	} else {
		for e := math.Floor(lo); e <= hi; e++ {
			for _, f := range []float64{1, 2, 5} {
				v := f * math.Pow(10, e)
				if x := px(v); x >= chartLeft && x <= chartLeft+w {
					fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`+"\n", x, chartTop, x, chartTop+h)
					fmt.Fprintf(b, `<text class="dim" x="%.1f" y="%.1f" text-anchor="middle" fill="#555555">%s</text>`+"\n", x, chartTop+h+18, plainNumber(v))
				}
			}
		}
	}
	fmt.Fprintf(b, `<text class="dim" x="%.1f" y="%.1f" text-anchor="middle" fill="#555555">%s</text>`+"\n", chartLeft+w/2, chartTop+h+40, html.EscapeString(c.x))
	fmt.Fprintf(b, `<text class="dim" x="16" y="%d" transform="rotate(-90 16 %[1]d)" text-anchor="middle" fill="#555555">%s</text>`+"\n", chartTop+int(h/2), html.EscapeString(c.y))
	for _, l := range c.limits {
		if l.value > top {
			continue
		}
		fmt.Fprintf(b, `<line class="dim line" x1="%d" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#555555" stroke-dasharray="6 4"/>`+"\n", chartLeft, py(l.value), chartLeft+w, py(l.value))
		fmt.Fprintf(b, `<text class="dim" x="%.1f" y="%.1f" text-anchor="end" font-size="11" fill="#555555">%s</text>`+"\n", chartLeft+w-4, py(l.value)-5, html.EscapeString(l.name))
	}
	for i, s := range c.series {
		c.line(b, i, s, px, py)
	}
	b.WriteString("</g>\n")
}

// line draws a series and its entry in the legend.
func (c *chart) line(b *strings.Builder, i int, s series, px, py func(float64) float64) {
	colour, class := palette[i%len(palette)], fmt.Sprintf("s%d", i%len(palette))
	var path []string
	for _, p := range s.points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", px(p.x), py(p.y)))
	}
	fmt.Fprintf(b, `<polyline class="%s line" points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", class, strings.Join(path, " "), colour)
	for _, p := range s.points {
		x, y := px(p.x), py(p.y)
		if p.sd > 0 {
			fmt.Fprintf(b, `<line class="%s line" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", class, x, py(p.y+p.sd), x, py(max(0, p.y-p.sd)), colour)
		}
		marker(b, i, class, colour, x, y)
		if p.best {
			fmt.Fprintf(b, `<circle class="ink line" cx="%.1f" cy="%.1f" r="9" fill="none" stroke="#1a1a1a" stroke-width="2"/>`+"\n", x, y)
		}
		if p.label != "" {
			place, weight := y-13, ""
			if p.best { // below, out of the way of its neighbours
				place, weight = y+24, ` font-weight="bold"`
			}
			fmt.Fprintf(b, `<text class="ink" x="%.1f" y="%.1f" text-anchor="middle" font-size="11"%s fill="#1a1a1a">%s</text>`+"\n", x, place, weight, html.EscapeString(p.label))
		}
	}
	x, y := float64(chartWidth-chartRight+20), float64(chartTop+8+20*i)
	marker(b, i, class, colour, x, y)
	fmt.Fprintf(b, `<text class="ink" x="%.1f" y="%.1f" fill="#1a1a1a">%s</text>`+"\n", x+12, y+4, html.EscapeString(s.name))
}

// marker is a shape for each series, so that colour is not all that tells them apart.
func marker(b *strings.Builder, i int, class, colour string, x, y float64) {
	switch i % 3 {
	case 0:
		fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="4.5" fill="%s"/>`+"\n", class, x, y, colour)
	case 1:
		fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="9" height="9" fill="%s"/>`+"\n", class, x-4.5, y-4.5, colour)
	default:
		fmt.Fprintf(b, `<polygon class="%s" points="%.1f,%.1f %.1f,%.1f %.1f,%.1f" fill="%s"/>`+"\n", class, x, y-6, x-5.5, y+4.5, x+5.5, y+4.5, colour)
	}
}

// plainNumber is a tick without an exponent.
func plainNumber(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1000:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}

// drawing is charts below each other, as one SVG.
func drawing(charts []chart, label string) string {
	var b strings.Builder
	height := chartHeight * max(len(charts), 1)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="13" role="img" aria-label="%s">`+"\n", chartWidth, height, html.EscapeString(label))
	b.WriteString(`<rect class="paper" width="100%" height="100%" fill="white"/>` + "\n")
	for i := range charts {
		charts[i].draw(&b, i*chartHeight)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
