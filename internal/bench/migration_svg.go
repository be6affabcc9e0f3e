// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"slices"
	"strings"
)

// mostSeries is how many lines one plot has at most; the tables have all.
const mostSeries = 6

// charts are the plots of a measurement.
func (m *Migration) charts() (out []chart) {
	all := append([]chart{m.sizeChart()}, m.channelCharts()...)
	all = append(all, m.latencyCharts()...)
	all = append(all, m.threadCharts()...)
	for _, c := range append(all, m.copyChart()) {
		if len(c.series) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// sizeChart is throughput by size, a line for each direction while the CPU
// copies.
func (m *Migration) sizeChart() chart {
	c := chart{title: "Throughput by size of folios, one thread, the CPU copies", x: "size of a folio", y: "GB/s"}
	base := m.only(func(r *MigrationRow) bool { return r.Workers == 1 && r.CallFolio == 0 && r.Channels == 0 })
	kbs := values(base, func(r *MigrationRow) int { return r.FolioKB })
	for _, kb := range kbs {
		c.ticks = append(c.ticks, sizeName(kb))
	}
	for _, way := range m.ways() {
		s := series{name: fmt.Sprintf("node %d to %d", way[0], way[1])}
		for _, r := range m.plain(way) {
			if r.Channels == 0 {
				s.points = append(s.points, point{x: float64(slices.Index(kbs, r.FolioKB)), y: r.GBps, sd: r.SD})
			}
		}
		if len(s.points) == 0 {
			continue
		}
		slices.SortFunc(s.points, func(a, b point) int { return int(a.x - b.x) })
		if len(c.series) == mostSeries {
			c.title += fmt.Sprintf(" (%d of %d directions)", mostSeries, len(m.ways()))
			break
		}
		c.series = append(c.series, s)
	}
	if ways := m.ways(); len(ways) > 0 {
		if l := m.limit(ways[0]); l != nil {
			c.limits = append(c.limits, limit{fmt.Sprintf("a program copies node %d to %d: %.1f GB/s", ways[0][0], ways[0][1], l.GBps), l.GBps})
		}
	}
	return c
}

// channelCharts are throughput by channels of the copy engine, a line for each
// size; 0 channels is the CPU.
func (m *Migration) channelCharts() (out []chart) {
	for _, way := range m.ways() {
		rows := m.plain(way)
		channels := values(rows, func(r *MigrationRow) int { return r.Channels })
		if len(channels) < 2 || len(out) == 2 {
			continue
		}
		c := chart{title: fmt.Sprintf("Throughput by channels of the copy engine, node %d to %d", way[0], way[1]), x: "channels; CPU: without the engine", y: "GB/s"}
		for _, n := range channels {
			name := fmt.Sprint(n)
			if n == 0 {
				name = "CPU"
			}
			c.ticks = append(c.ticks, name)
		}
		for _, kb := range values(rows, func(r *MigrationRow) int { return r.FolioKB }) {
			s := series{name: sizeName(kb)}
			for i, n := range channels {
				if r := find(rows, func(r *MigrationRow) bool { return r.FolioKB == kb && r.Channels == n }); r != nil {
					s.points = append(s.points, point{x: float64(i), y: r.GBps, sd: r.SD})
				}
			}
			if len(c.series) < mostSeries {
				c.series = append(c.series, s)
			}
		}
		if l := m.limit(way); l != nil {
			c.limits = append(c.limits, limit{fmt.Sprintf("a program copies: %.1f GB/s", l.GBps), l.GBps})
		}
		out = append(out, c)
	}
	return out
}

// latencyCharts are throughput against the latency of the first folio, by
// folios for each call, for each size that was swept so.
func (m *Migration) latencyCharts() (out []chart) {
	swept := m.only(func(r *MigrationRow) bool { return r.CallFolio > 0 })
	for _, kb := range values(swept, func(r *MigrationRow) int { return r.FolioKB }) {
		c := chart{title: fmt.Sprintf("Throughput against latency, folios of %s, by folios for each call", sizeName(kb)), x: "first folio is back after, µs", y: "GB/s"}
		for _, way := range m.ways() {
			for _, n := range values(swept, func(r *MigrationRow) int { return r.Channels }) {
				rows := slices.DeleteFunc(m.calls(way, kb, n), func(r *MigrationRow) bool { return r.FirstUS == nil || *r.FirstUS <= 0 })
				if len(rows) < 2 || len(c.series) == mostSeries {
					continue
				}
				s := series{name: fmt.Sprintf("node %d to %d", way[0], way[1])}
				if n > 0 {
					s.name += ", " + copier(n)
				}
				for _, r := range rows {
					p := point{x: *r.FirstUS, y: r.GBps, sd: r.SD, best: r == knee(rows)}
					if p.best {
						p.label = fmt.Sprintf("optimum: %d", perCall(r))
					} else if len(c.series) == 0 {
						p.label = fmt.Sprint(perCall(r))
					}
					s.points = append(s.points, p)
				}
				c.series = append(c.series, s)
			}
		}
		out = append(out, c)
	}
	return out
}

// threadCharts are throughput by threads, a line for each size.
func (m *Migration) threadCharts() (out []chart) {
	for _, way := range m.ways() {
		rows := m.only(func(r *MigrationRow) bool {
			return r.From == way[0] && r.To == way[1] && r.CallFolio == 0 && r.Channels == 0
		})
		counts := values(rows, func(r *MigrationRow) int { return r.Workers })
		if len(counts) < 2 || len(out) == 2 {
			continue
		}
		c := chart{title: fmt.Sprintf("Throughput by threads, node %d to %d, the CPU copies", way[0], way[1]), x: "threads that move at a time", y: "GB/s"}
		for _, n := range counts {
			c.ticks = append(c.ticks, fmt.Sprint(n))
		}
		for _, kb := range values(rows, func(r *MigrationRow) int { return r.FolioKB }) {
			s := series{name: sizeName(kb)}
			for i, n := range counts {
				if r := find(rows, func(r *MigrationRow) bool { return r.FolioKB == kb && r.Workers == n }); r != nil {
					s.points = append(s.points, point{x: float64(i), y: r.GBps, sd: r.SD})
				}
			}
			if len(c.series) < mostSeries {
				c.series = append(c.series, s)
			}
		}
		out = append(out, c)
	}
	return out
}

// copyChart is how fast programs copy, by threads.
func (m *Migration) copyChart() chart {
	c := chart{title: "The limit: memory copied by a program, by threads", x: "threads that copy at a time", y: "GB/s"}
	var counts []int
	for _, x := range m.Copies {
		counts = append(counts, len(x.CPUs))
	}
	slices.Sort(counts)
	counts = slices.Compact(counts)
	for _, n := range counts {
		c.ticks = append(c.ticks, fmt.Sprint(n))
	}
	for _, x := range m.Copies {
		name := fmt.Sprintf("node %d to %d", x.From, x.To)
		p := point{x: float64(slices.Index(counts, len(x.CPUs))), y: x.GBps, sd: x.SD}
		if i := slices.IndexFunc(c.series, func(s series) bool { return s.name == name }); i >= 0 {
			c.series[i].points = append(c.series[i].points, p)
		} else if len(c.series) < mostSeries {
			c.series = append(c.series, series{name, []point{p}})
		}
	}
	return c
}

// SVG draws the plots.
func (m *Migration) SVG() string {
	return drawing(m.charts(), "throughput and latency of page migration")
}

// pageStyle is the style sheet of the page; nothing else of it is taken from
// anywhere.
const pageStyle = `:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--dim:#555;--grid:#ddd;--head:#f3f4f6;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b4508c;--s4:#b87a00;--s5:#2a8fc9}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e8e8e8;--dim:#a8adb4;--grid:#343a42;--head:#20252b;--s0:#56b4e9;--s1:#ff8a3d;--s2:#2fc79b;--s3:#e79ac6;--s4:#f0b429;--s5:#9ad7ff}}
body{margin:0 auto;max-width:60rem;padding:1.5rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}p.dim,figcaption{color:var(--dim);margin:.25rem 0}
ul{padding-left:1.2rem}div.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap}th{background:var(--head);font-weight:600}
th:first-child,td:first-child{text-align:left}td.words{text-align:left;white-space:normal}svg{max-width:100%;height:auto}
svg text.ink{fill:var(--ink)}svg text.dim{fill:var(--dim)}svg .paper{fill:var(--paper)}svg .grid{stroke:var(--grid)}svg .dim.line{stroke:var(--dim);fill:none}svg .ink.line{stroke:var(--ink);fill:none}
svg .s0{fill:var(--s0)}svg .s1{fill:var(--s1)}svg .s2{fill:var(--s2)}svg .s3{fill:var(--s3)}svg .s4{fill:var(--s4)}svg .s5{fill:var(--s5)}
svg .s0.line{stroke:var(--s0);fill:none}svg .s1.line{stroke:var(--s1);fill:none}svg .s2.line{stroke:var(--s2);fill:none}svg .s3.line{stroke:var(--s3);fill:none}svg .s4.line{stroke:var(--s4);fill:none}svg .s5.line{stroke:var(--s5);fill:none}
@media print{body{max-width:none}}
`

// HTML is the result as one page: it loads nothing and runs nothing.
func (m *Migration) HTML() string {
	var b strings.Builder
	sum := sha256.Sum256([]byte(pageStyle))
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
	fmt.Fprintf(&b, "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n", base64.StdEncoding.EncodeToString(sum[:]))
	b.WriteString("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>Page migration</title>\n<style>" + pageStyle + "</style>\n</head>\n<body>\n<h1>Page migration by move_pages</h1>\n")
	for _, s := range m.conditions() {
		b.WriteString("<p class=\"dim\">" + html.EscapeString(s) + "</p>\n")
	}
	list := func(title string, list []string) {
		if len(list) == 0 {
			return
		}
		b.WriteString("<h2>" + html.EscapeString(title) + "</h2>\n<ul>\n")
		for _, s := range list {
			b.WriteString("<li>" + html.EscapeString(s) + "</li>\n")
		}
		b.WriteString("</ul>\n")
	}
	list("What the figures tell", m.Summary)
	for _, c := range m.charts() {
		b.WriteString("<figure>" + drawing([]chart{c}, c.title) + "</figure>\n")
	}
	for _, t := range m.tables() {
		b.WriteString("<h2>" + html.EscapeString(t.title) + "</h2>\n<div class=\"wide\"><table>\n")
		for i, r := range t.rows {
			b.WriteString("<tr>")
			for k, s := range r {
				switch {
				case i == 0:
					b.WriteString("<th scope=\"col\">" + html.EscapeString(s) + "</th>")
				case k > 0 && !figure(s):
					b.WriteString("<td class=\"words\">" + html.EscapeString(s) + "</td>")
				default:
					b.WriteString("<td>" + html.EscapeString(s) + "</td>")
				}
			}
			b.WriteString("</tr>\n")
		}
		b.WriteString("</table></div>\n")
		if t.note != "" {
			b.WriteString("<p class=\"dim\">" + html.EscapeString(t.note) + "</p>\n")
		}
	}
	list("Not measured", m.Skipped)
	list("Runs that do not count", discarded(m.Discarded))
	b.WriteString("</body>\n</html>\n")
	return b.String()
}
