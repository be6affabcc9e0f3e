// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is one table of the result, for text and HTML alike: the first row is
// the head.
type table struct {
	title string
	rows  [][]string
	note  string
}

// near is the share of the best from which more is not worth its price.
const near = 0.95

// unsteady is the standard deviation from which a mean says little, as a share.
const unsteady = 0.15

func (r *MigrationRow) unsteady() bool { return r.GBps > 0 && r.SD/r.GBps > unsteady }

// only gives the rows that f wants.
func (m *Migration) only(f func(r *MigrationRow) bool) (out []*MigrationRow) {
	for i := range m.Rows {
		if f(&m.Rows[i]) {
			out = append(out, &m.Rows[i])
		}
	}
	return out
}

func values(rows []*MigrationRow, f func(r *MigrationRow) int) (out []int) {
	for _, r := range rows {
		out = append(out, f(r))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ways are the directions that were measured.
func (m *Migration) ways() (out [][2]int) {
	for i := range m.Rows {
		if w := [2]int{m.Rows[i].From, m.Rows[i].To}; !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return out
}

// plain are the rows of one thread with everything in one call.
func (m *Migration) plain(way [2]int) []*MigrationRow {
	return m.only(func(r *MigrationRow) bool {
		return r.From == way[0] && r.To == way[1] && r.Workers == 1 && r.CallFolio == 0
	})
}

func find(rows []*MigrationRow, f func(r *MigrationRow) bool) *MigrationRow {
	if i := slices.IndexFunc(rows, f); i >= 0 {
		return rows[i]
	}
	return nil
}

// calls are the rows of one thread with one size and one number of channels,
// by how many folios each call has; all of them in one call comes last.
func (m *Migration) calls(way [2]int, kb, channels int) []*MigrationRow {
	rows := m.only(func(r *MigrationRow) bool {
		return r.From == way[0] && r.To == way[1] && r.Workers == 1 && r.FolioKB == kb && r.Channels == channels
	})
	slices.SortStableFunc(rows, func(a, b *MigrationRow) int { return cmp.Compare(perCall(a), perCall(b)) })
	return rows
}

// perCall is how many folios a call of a row has.
func perCall(r *MigrationRow) int64 {
	if r.CallFolio > 0 {
		return int64(r.CallFolio)
	}
	return r.Bytes >> 10 / int64(max(r.FolioKB, 1))
}

// knee is the row with the fewest folios for each call that is near the best.
func knee(rows []*MigrationRow) *MigrationRow {
	best := 0.0
	for _, r := range rows {
		best = max(best, r.GBps)
	}
	return find(rows, func(r *MigrationRow) bool { return r.GBps >= near*best })
}

func rate(mean, sd float64) string {
	if mean < 1 {
		return fmt.Sprintf("%.3f±%.3f", mean, sd)
	}
	return fmt.Sprintf("%.2f±%.2f", mean, sd)
}

// gbps is a rate within a sentence.
func gbps(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.3f GB/s", v)
	}
	return fmt.Sprintf("%.2f GB/s", v)
}

// micro is a latency as the tables have it.
func micro(us *float64) string {
	switch {
	case us == nil:
		return "-"
	case *us < 10:
		return fmt.Sprintf("%.1f", *us)
	}
	return fmt.Sprintf("%.0f", *us)
}

func (m *Migration) tables() (out []table) {
	for _, way := range m.ways() {
		t := m.sizeTable(way)
		if n := len(out); n > 0 && out[n-1].note == t.note {
			out[n-1].note = "" // once, below the last
		}
		out = append(out, t)
	}
	for _, way := range m.ways() {
		for _, kb := range values(m.all(), func(r *MigrationRow) int { return r.FolioKB }) {
			out = append(out, m.callTable(way, kb)...)
		}
	}
	out = append(out, m.workerTable()...)
	if len(m.Copies) > 0 {
		out = append(out, m.copyTable())
	}
	if len(m.Tools) > 0 {
		t := table{title: "other programs (numactl)", rows: [][]string{{"program", "from", "to", "GB/s", "what it measures"}}}
		for _, x := range m.Tools {
			t.rows = append(t.rows, []string{x.Name, fmt.Sprint(x.From), fmt.Sprint(x.To), strings.TrimSuffix(gbps(x.GBps), " GB/s"), x.Note})
		}
		out = append(out, t)
	}
	return out
}

// all gives pointers to all rows.
func (m *Migration) all() []*MigrationRow { return m.only(func(*MigrationRow) bool { return true }) }

// sizeTable is throughput by channels and sizes, and the first folio's latency
// below it.
func (m *Migration) sizeTable(way [2]int) table {
	rows := m.plain(way)
	kbs := values(rows, func(r *MigrationRow) int { return r.FolioKB })
	t := table{title: fmt.Sprintf("node %d to node %d: GB/s, mean ± standard deviation of %d runs of %d MiB", way[0], way[1], m.Conditions.Runs, m.Conditions.Bytes>>20)}
	head := []string{""}
	for _, kb := range kbs {
		head = append(head, sizeName(kb))
	}
	t.rows = append(t.rows, head)
	by := ""
	var lower [][]string
	for _, n := range values(rows, func(r *MigrationRow) int { return r.Channels }) {
		upper, first, any := []string{copier(n)}, []string{copier(n) + ", first folio µs"}, false
		for _, kb := range kbs {
			r := find(rows, func(r *MigrationRow) bool { return r.FolioKB == kb && r.Channels == n })
			if r == nil {
				upper, first = append(upper, "-"), append(first, "-")
				continue
			}
			upper, first = append(upper, rate(r.GBps, r.SD)), append(first, micro(r.FirstUS))
			if r.FirstUS != nil {
				by, any = r.FirstBy, true
			}
		}
		t.rows = append(t.rows, upper)
		if any {
			lower = append(lower, first)
		}
	}
	t.rows = append(t.rows, lower...)
	switch by {
	case FirstTracepoints:
		t.note = "first folio: median time from the first unmapping of a batch until its first folio is back, from the kernel's tracepoints"
	case FirstBlackout:
		t.note = "first folio: median of the longest time that a reader of it was held up (no tracepoints here)"
	}
	return t
}

// callTable is throughput and latency by folios for each call, of the way
// where that was swept.
func (m *Migration) callTable(way [2]int, kb int) (out []table) {
	channels := values(m.only(func(r *MigrationRow) bool { return r.CallFolio > 0 }), func(r *MigrationRow) int { return r.Channels })
	t := table{title: fmt.Sprintf("node %d to node %d, folios of %s, by folios for each call", way[0], way[1], sizeName(kb))}
	head := []string{"n"}
	var ns []int64
	lists := map[int][]*MigrationRow{}
	for _, c := range channels {
		rows := m.calls(way, kb, c)
		if len(rows) < 2 {
			continue
		}
		lists[c] = rows
		head = append(head, copier(c)+", GB/s", "first µs")
		for _, r := range rows {
			ns = append(ns, perCall(r))
		}
	}
	if len(lists) == 0 {
		return nil
	}
	slices.Sort(ns)
	t.rows = append(t.rows, head)
	for _, n := range slices.Compact(ns) {
		line := []string{fmt.Sprint(n)}
		for _, c := range channels {
			rows := lists[c]
			if rows == nil {
				continue
			}
			r := find(rows, func(r *MigrationRow) bool { return perCall(r) == n })
			if r == nil {
				line = append(line, "-", "-")
				continue
			}
			mark := ""
			if r == knee(rows) {
				mark = " *"
			}
			line = append(line, rate(r.GBps, r.SD)+mark, micro(r.FirstUS))
		}
		t.rows = append(t.rows, line)
	}
	t.note = fmt.Sprintf("*: the fewest folios with %.0f%% of the best", 100*near)
	return []table{t}
}

// workerTable is throughput by threads that move at a time.
func (m *Migration) workerTable() (out []table) {
	for _, way := range m.ways() {
		all := m.only(func(r *MigrationRow) bool { return r.From == way[0] && r.To == way[1] && r.CallFolio == 0 })
		for _, c := range values(all, func(r *MigrationRow) int { return r.Channels }) {
			rows := slices.DeleteFunc(slices.Clone(all), func(r *MigrationRow) bool { return r.Channels != c })
			counts := values(rows, func(r *MigrationRow) int { return r.Workers })
			if len(counts) < 2 {
				continue
			}
			kbs := values(rows, func(r *MigrationRow) int { return r.FolioKB })
			t := table{title: fmt.Sprintf("node %d to node %d, by threads that move at a time, %s: GB/s", way[0], way[1], copier(c)), note: "each thread has its part of the memory and a CPU of its own, as far as possible with a last cache of its own"}
			head := []string{"threads"}
			for _, kb := range kbs {
				head = append(head, sizeName(kb))
			}
			t.rows = append(t.rows, append(head, "CPUs"))
			for _, n := range counts {
				line, cpus := []string{fmt.Sprint(n)}, "-"
				for _, kb := range kbs {
					r := find(rows, func(r *MigrationRow) bool { return r.FolioKB == kb && r.Workers == n })
					if r == nil {
						line = append(line, "-")
						continue
					}
					line, cpus = append(line, rate(r.GBps, r.SD)), joinInts(r.CPUs)
				}
				t.rows = append(t.rows, append(line, cpus))
			}
			out = append(out, t)
		}
	}
	return out
}

func (m *Migration) copyTable() table {
	t := table{title: "the limit: memory copied by a program, GB/s", note: "memcpy from memory of the one node to memory of the other, in huge pages where there are any"}
	var counts []int
	for _, c := range m.Copies {
		counts = append(counts, len(c.CPUs))
	}
	slices.Sort(counts)
	counts = slices.Compact(counts)
	head := []string{"from", "to"}
	for _, n := range counts {
		head = append(head, threadCount(n))
	}
	t.rows = append(t.rows, head)
	done := map[[2]int]bool{}
	for _, c := range m.Copies {
		way := [2]int{c.From, c.To}
		if done[way] {
			continue
		}
		done[way] = true
		line := []string{fmt.Sprint(c.From), fmt.Sprint(c.To)}
		for _, n := range counts {
			cell := "-"
			for _, x := range m.Copies {
				if x.From == c.From && x.To == c.To && len(x.CPUs) == n {
					cell = rate(x.GBps, x.SD)
				}
			}
			line = append(line, cell)
		}
		t.rows = append(t.rows, line)
	}
	return t
}

// limit is the copy of one thread from a node to another.
func (m *Migration) limit(way [2]int) *MigrationCopy {
	for i := range m.Copies {
		if c := &m.Copies[i]; c.From == way[0] && c.To == way[1] && len(c.CPUs) == 1 {
			return c
		}
	}
	return nil
}

// summarise says what the rows tell beside each other.
func (m *Migration) summarise() {
	m.Summary = []string{}
	say := func(format string, args ...any) { m.Summary = append(m.Summary, fmt.Sprintf(format, args...)) }
	if m.Conditions.Background >= noisy {
		say("other programs kept the CPUs %.0f%% busy before the runs: all figures are of what they leave, and vary with them", m.Conditions.Background)
	}
	if g := m.Conditions.Governor; g != "" && g != "performance" {
		say("the governor of the CPUs' frequency is %s: figures of short runs may be of a CPU that was not yet fast", g)
	}
	if len(m.Host.Nodes) == 1 {
		say("this host has one memory node: there is nothing to migrate between, and what was measured is how fast its memory can be copied")
	}
	for _, way := range m.ways() {
		rows := m.plain(way)
		base := slices.DeleteFunc(slices.Clone(rows), func(r *MigrationRow) bool { return r.Channels > 0 })
		if len(base) == 0 {
			continue
		}
		best := slices.MaxFunc(base, func(a, b *MigrationRow) int { return cmp.Compare(a.GBps, b.GBps) })
		text := fmt.Sprintf("node %d to %d: %s is the fastest with one thread, %s", way[0], way[1], sizeName(best.FolioKB), gbps(best.GBps))
		if small := base[0]; small != best && small.GBps > 0 {
			text += fmt.Sprintf(", %.1f times what %s reaches", best.GBps/small.GBps, sizeName(small.FolioKB))
		}
		if c := m.limit(way); c != nil && c.GBps > 0 {
			text += fmt.Sprintf("; a program that copies reaches %s, of which that is %.0f%%", gbps(c.GBps), 100*best.GBps/c.GBps)
		}
		say("%s", text)
		for _, kb := range values(rows, func(r *MigrationRow) int { return r.FolioKB }) {
			m.sayCalls(way, kb, say)
			m.sayWorkers(way, kb, say)
		}
	}
	if n := m.Host.BatchPages; n > 0 {
		say("the kernel moves %d pages of %s in one batch at most", n, sizeName(m.Host.PageKB))
	}
	all := m.all()
	if shaky := slices.DeleteFunc(slices.Clone(all), func(r *MigrationRow) bool { return !r.unsteady() }); len(shaky) > 0 {
		r := slices.MaxFunc(shaky, func(a, b *MigrationRow) int { return cmp.Compare(a.SD/a.GBps, b.SD/b.GBps) })
		say("%d of %d figures vary by more than %.0f%%, and their means say little; the most, by %.0f%%: node %d to %d, %s, %s%s%s",
			len(shaky), len(all), 100*unsteady, 100*r.SD/r.GBps, r.From, r.To, sizeName(r.FolioKB), copier(r.Channels), callWords(r.CallFolio), firstWords("", r.Workers))
	}
	if n := len(m.Discarded); n > 0 {
		say("runs that do not count, and were made again where that helped: %d; the first because %s", n, m.Discarded[0].Why)
	}
}

func (m *Migration) sayCalls(way [2]int, kb int, say func(string, ...any)) {
	rows := m.calls(way, kb, 0)
	if len(rows) < 2 {
		return
	}
	k := knee(rows)
	latency := ""
	if k.FirstUS != nil {
		latency = fmt.Sprintf(", with the first folio back after %s µs", micro(k.FirstUS))
	}
	if k.unsteady() {
		latency += ", unsteady"
	}
	say("node %d to %d, %s: calls with %d folios reach %s%s; one folio for each call reaches %s", way[0], way[1], sizeName(kb), perCall(k), gbps(k.GBps), latency, gbps(rows[0].GBps))
}

func (m *Migration) sayWorkers(way [2]int, kb int, say func(string, ...any)) {
	rows := m.only(func(r *MigrationRow) bool {
		return r.From == way[0] && r.To == way[1] && r.FolioKB == kb && r.CallFolio == 0 && r.Channels == 0
	})
	if len(rows) < 2 {
		return
	}
	slices.SortFunc(rows, func(a, b *MigrationRow) int { return cmp.Compare(a.Workers, b.Workers) })
	worth := rows[0]
	for _, r := range rows[1:] {
		if r.GBps < 1.1*worth.GBps { // the next step is worth less than a tenth
			break
		}
		worth = r
	}
	if worth == rows[0] {
		say("node %d to %d, %s: more threads than one gain less than a tenth here", way[0], way[1], sizeName(kb))
		return
	}
	say("node %d to %d, %s: %d threads reach %s, %.1f times one; more gain less than a tenth or were not tried", way[0], way[1], sizeName(kb), worth.Workers, gbps(worth.GBps), worth.GBps/rows[0].GBps)
}

// conditions in words.
func (m *Migration) conditions() []string {
	or := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	h, c := &m.Host, &m.Conditions
	engine := "no copy offload"
	if h.Revision != "" {
		engine = "copy offload " + h.Revision + ", engine " + or(h.Driver)
	}
	return []string{
		fmt.Sprintf("Linux %s, %s, %s, pages of %s, nodes %s, %s", h.Kernel, h.Arch, or(h.CPU), sizeName(h.PageKB), joinInts(h.Nodes), engine),
		fmt.Sprintf("runs of %d MiB, numa_balancing %s, ksm %s, governor %s, CPUs %.0f%% busy before", c.Bytes>>20, or(c.NUMABalancing), or(c.KSM), or(c.Governor), c.Background),
	}
}

// Text is the result as tables and what they tell.
func (m *Migration) Text() string {
	var b strings.Builder
	b.WriteString("Page migration by move_pages\n")
	for _, s := range m.conditions() {
		b.WriteString(s + "\n")
	}
	for _, t := range m.tables() {
		b.WriteString("\n" + t.title + "\n")
		writeTable(&b, t.rows)
		if t.note != "" {
			b.WriteString(t.note + "\n")
		}
	}
	for _, l := range []struct {
		title string
		list  []string
	}{{"not measured", m.Skipped}, {"runs that do not count", discarded(m.Discarded)}, {"", m.Summary}} {
		if len(l.list) == 0 {
			continue
		}
		b.WriteString("\n")
		if l.title != "" {
			b.WriteString(l.title + "\n")
		}
		for _, s := range l.list {
			b.WriteString("- " + s + "\n")
		}
	}
	return b.String()
}

func discarded(list []MigrationDiscard) (out []string) {
	for _, d := range list {
		out = append(out, fmt.Sprintf("node %d to %d, %s: %s", d.From, d.To, sizeName(d.FolioKB), d.Why))
	}
	return out
}

// writeTable lays a table out with bars between the columns; figures stand to
// the right.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, s := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	line := 0
	for _, w := range widths {
		line += w + 3
	}
	words := len(rows) > 1 && !figure(rows[1][len(widths)-1]) // the last column has them
	rule := strings.Repeat("=", max(line-1, 1)) + "\n"
	for n, r := range rows {
		if n < 2 {
			b.WriteString(rule)
		}
		var cells []string
		for i, s := range r {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s))
			if i == 0 || i == len(r)-1 && words {
				cells = append(cells, s+pad)
			} else {
				cells = append(cells, pad+s)
			}
		}
		b.WriteString(strings.TrimRight(strings.Join(cells, " | "), " ") + "\n")
	}
}

func figure(s string) bool { return s != "" && (s[0] >= '0' && s[0] <= '9' || s == "-") }
