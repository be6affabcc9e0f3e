// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Exit codes, as those of a check run.
const (
	exitOK         = 0
	exitFindings   = 1
	exitIncomplete = 3
	exitPending    = 10
)

// maxCases is how many cases of a check are listed.
const maxCases = 50

// Fleet gives the merge of what was read.
func (m *Merger) Fleet() *Fleet {
	f := &Fleet{
		Schema: Schema, Tool: m.opts.Tool, FailOn: string(m.opts.FailOn), MoreHosts: m.over,
		MoreProblems: m.more,
	}
	counted := m.summary // hosts that are not kept are counted already
	doubts := m.settle()
	m.summary.Problems += len(doubts)
	f.Problems = slices.Concat(m.problems, doubts[:min(len(doubts), maxProblems)], m.notes)
	f.MoreProblems += max(0, len(doubts)-maxProblems)
	f.lists()
	for i := range m.hosts {
		m.count(m.hosts[i].verdict, m.hosts[i].warns, 1)
	}
	f.Summary, m.summary = m.summary, counted
	m.expect(f)
	f.Summary.Exit = f.Summary.exit()

	slices.SortStableFunc(m.hosts, func(a, b host) int { return compareNames(a.name, b.name) })
	for i := range m.hosts {
		m.byName[m.hosts[i].name] = int32(i) //nolint:gosec // at most MaxHosts
	}
	order := m.order()
	v := m.verdicts(order)
	m.hostsOf(f, v)
	var l lists
	m.checksOf(f, order, v, &l)
	m.outliers(f, v)
	if m.opts.Since != nil {
		f.compare(m.opts.Since, m.opts.From, &l)
	}
	if m.over > 0 || m.merged > 0 || l.denied > 0 {
		f.Problems = append(f.Problems, m.bounded(l.denied))
	}
	return f
}

// settle makes the report that counts that of each host with several, and gives
// what is in doubt there.
func (m *Merger) settle() (doubts []Problem) {
	for _, name := range slices.Sorted(maps.Keys(m.repeated)) {
		n := m.repeated[name]
		s, doubt := n.settle(worse)
		m.hosts[m.byName[name]] = s.host
		if doubt != "" {
			doubts = append(doubts, Problem{Source: n.source, Line: n.line, Host: name, Why: doubt, Lost: true})
		}
	}
	if m.unsettled > 0 {
		doubts = append(doubts, Problem{Why: fmt.Sprintf("there is no memory to tell which of several reports of a host is the newest, %d times; the worst one counts for each", m.unsettled), Lost: true})
	}
	return doubts
}

func (s *Summary) exit() int {
	switch {
	case s.Failing > 0:
		return exitFindings
	case s.Incomplete > 0, s.Problems > 0, s.Missing > 0, s.Hosts == 0:
		return exitIncomplete
	case s.Pending > 0:
		return exitPending
	}
	return exitOK
}

// bounded says what the bounds of memory left out.
func (m *Merger) bounded(denied int) Problem {
	var parts []string
	if m.merged > 0 {
		parts = append(parts, fmt.Sprintf("%d values are not told apart, so outliers among them are not seen", m.merged))
	}
	if m.over > 0 {
		parts = append(parts, fmt.Sprintf("%d hosts are counted in the summary only", m.over))
	}
	if denied > 0 {
		parts = append(parts, fmt.Sprintf("%d lists of hosts are too long and only say how many there are", denied))
	}
	return Problem{Why: "there is more than is kept in memory: " + strings.Join(parts, "; ") + "; merge parts of the fleet by themselves"}
}

// order gives the checks that hosts have, in the order of the reports: a check
// that only some have stands where they have it.
func (m *Merger) order() []uint32 {
	var order []uint32
	at := map[uint32]bool{}
	seen := map[uint32]bool{}
	for i := range m.hosts {
		if row := m.hosts[i].row; !seen[row] {
			seen[row] = true
			last := -1
			for id := range m.blocksOf(row) {
				c := m.blocks[id].check
				if at[c] {
					if len(order) > 0 && last+1 < len(order) && order[last+1] == c {
						last++
					} else {
						last = slices.Index(order, c)
					}
					continue
				}
				at[c] = true
				last++
				order = slices.Insert(order, last, c)
			}
		}
	}
	return order
}

// verdictTable is the verdict of every row on every check.
type verdictTable struct {
	at   []int    // by check: its place in the order, -1 for none
	rows []string // by row: letters in that order; "" where no host has it
}

func (m *Merger) verdicts(order []uint32) *verdictTable {
	v := &verdictTable{at: make([]int, len(m.checks)), rows: make([]string, len(m.rows))}
	for i := range v.at {
		v.at[i] = -1
	}
	for i, c := range order {
		v.at[c] = i
	}
	same := map[string]string{}
	letters := make([]byte, len(order))
	for i := range m.hosts {
		row := m.hosts[i].row
		if v.rows[row] != "" {
			continue
		}
		for j := range letters {
			letters[j] = '.'
		}
		for id := range m.blocksOf(row) {
			b := &m.blocks[id]
			if l := &letters[v.at[b.check]]; Rank(b.letter) < Rank(*l) {
				*l = b.letter
			}
		}
		s, ok := same[string(letters)]
		if !ok {
			s = string(letters)
			same[s] = s
		}
		v.rows[row] = s
	}
	return v
}

// names gives the names of hosts, by their places.
func (m *Merger) names(places []int32) []string {
	out := make([]string, len(places))
	for i, h := range places {
		out[i] = m.hosts[h].name
	}
	return out
}

// hostsOf fills in the hosts and the clusters.
func (m *Merger) hostsOf(f *Fleet, v *verdictTable) {
	texts := map[uint32]*string{}
	shared := func(id uint32) *string {
		if id == noText {
			return nil
		}
		if texts[id] == nil {
			texts[id] = &m.texts[id]
		}
		return texts[id]
	}
	clusters := map[string][]int32{}
	f.Hosts = make([]Host, len(m.hosts))
	for i := range m.hosts {
		h := &m.hosts[i]
		f.Hosts[i] = Host{
			Name: h.name, Verdict: h.verdict, Exit: int(h.exit), Kernel: shared(h.kernel), Arch: shared(h.arch), BootID: h.boot, CapturedAt: h.stamp,
			Profile: m.texts[h.profile], Version: m.texts[h.version], Labels: m.opts.Labels[h.name],
		}
		letters := v.rows[h.row]
		clusters[letters] = append(clusters[letters], int32(i)) //nolint:gosec // at most MaxHosts
	}
	keys := make([]string, 0, len(clusters))
	for k := range clusters {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(clusters[b]), len(clusters[a])), cmp.Compare(clusters[a][0], clusters[b][0]))
	})
	for n, k := range keys {
		c := Cluster{N: len(clusters[k]), Hosts: Fold(m.names(clusters[k])), Verdict: Compliant, Verdicts: k, Differs: []Differs{}}
		for _, i := range clusters[k] {
			f.Hosts[i].Cluster = n
			c.Verdict = worstOf(c.Verdict, f.Hosts[i].Verdict)
		}
		f.Clusters = append(f.Clusters, c)
	}
}

// checksOf fills in the checks with their counts and cases, and where clusters
// differ.
func (m *Merger) checksOf(f *Fleet, order []uint32, v *verdictTable, l *lists) {
	for _, c := range order {
		i := m.checks[c]
		f.Checks = append(f.Checks, Check{ID: i.id, Title: i.title, Severity: i.severity, Cases: []Case{}})
	}
	for n := range f.Clusters {
		c := &f.Clusters[n]
		for i := range f.Checks {
			f.Checks[i].Counts.add(c.Verdicts[i], c.N)
		}
		c.Differs = f.differs(c)
	}
	hosts := make(map[uint32][]int32) // by case
	withCase := make([][]uint32, len(m.blocks))
	for b := range m.blocks {
		for _, id := range m.blocks[b].cells {
			if c := m.cells[id].cas; c != noCase && !slices.Contains(withCase[b], c) {
				withCase[b] = append(withCase[b], c)
			}
		}
	}
	for i := range m.hosts {
		for id := range m.blocksOf(m.hosts[i].row) {
			for _, c := range withCase[id] {
				hs := hosts[c]
				if len(hs) == 0 || hs[len(hs)-1] != int32(i) { //nolint:gosec // at most MaxHosts
					hosts[c] = append(hs, int32(i)) //nolint:gosec // at most MaxHosts
				}
			}
		}
	}
	byCheck := make([][]uint32, len(order))
	for c := range hosts {
		at := v.at[m.cases[c].check]
		byCheck[at] = append(byCheck[at], c)
	}
	for i, cs := range byCheck {
		slices.SortFunc(cs, func(a, b uint32) int {
			x, y := &m.cases[a], &m.cases[b]
			return cmp.Or(cmp.Compare(Rank(x.letter), Rank(y.letter)), cmp.Compare(len(hosts[b]), len(hosts[a])), cmp.Compare(a, b))
		})
		out := &f.Checks[i]
		out.MoreCases = max(0, len(cs)-maxCases)
		for _, c := range cs[:min(len(cs), maxCases)] {
			k := &m.cases[c]
			out.Cases = append(out.Cases, Case{
				Status: k.status, Pending: k.letter == 'p', Waived: k.letter == 'v', Subject: m.texts[k.subject], Want: m.texts[k.want],
				Got: m.texts[k.got], Why: m.texts[k.why], Next: m.texts[k.next], N: len(hosts[c]), Hosts: l.fold(m.names(hosts[c])),
			})
		}
	}
}

// differs says on which checks a cluster differs from the first.
func (f *Fleet) differs(c *Cluster) []Differs {
	list := []Differs{}
	for i := range f.Checks {
		if here, usual := c.Verdicts[i], f.Clusters[0].Verdicts[i]; here != usual {
			list = append(list, Differs{f.Checks[i].ID, Word(here), Word(usual)})
		}
	}
	return list
}

// add counts n hosts with a verdict.
func (c *Counts) add(letter byte, n int) {
	switch letter {
	case 'f':
		c.Fail += n
	case 'e':
		c.Error += n
	case 'w':
		c.Warn += n
	case 'p':
		c.Pending += n
	case 'u':
		c.Unknown += n
	case 'v':
		c.Waived += n
	case 'o':
		c.Pass += n
	case 's':
		c.Skip += n
	case '.':
		c.Absent += n
	}
}

// compare fills in what changed since an earlier merge.
func (f *Fleet) compare(old *Fleet, source string, l *lists) {
	since := &Since{Source: source, Hosts: len(old.Hosts)}
	f.Since = since
	before := make(map[string]int, len(old.Hosts)) // cluster
	for i := range old.Hosts {
		before[old.Hosts[i].Name] = old.Hosts[i].Cluster
	}
	at := map[string]int{}
	for i := range old.Checks {
		at[old.Checks[i].ID] = i
	}
	here := map[string]bool{}
	for i := range f.Checks {
		here[f.Checks[i].ID] = true
	}
	type change struct {
		check  string
		letter [2]byte
	}
	hosts := map[change][]int32{}
	type pair struct{ before, after int }
	changes := map[pair][]change{} // of clusters
	between := func(p pair) []change {
		list, ok := changes[p]
		if ok {
			return list
		}
		a, b := old.Clusters[p.before].Verdicts, f.Clusters[p.after].Verdicts
		for i := range f.Checks {
			was := byte('.')
			if n, ok := at[f.Checks[i].ID]; ok {
				was = a[n]
			}
			if was != b[i] {
				list = append(list, change{f.Checks[i].ID, [2]byte{was, b[i]}})
			}
		}
		for i := range old.Checks {
			if id := old.Checks[i].ID; !here[id] && a[i] != '.' {
				list = append(list, change{id, [2]byte{a[i], '.'}})
			}
		}
		changes[p] = list
		return list
	}
	var added, gone []string
	for i := range f.Hosts {
		h := &f.Hosts[i]
		was, ok := before[h.Name]
		if !ok {
			added = append(added, h.Name)
			continue
		}
		delete(before, h.Name)
		for _, c := range between(pair{was, h.Cluster}) {
			hosts[c] = append(hosts[c], int32(i)) //nolint:gosec // at most MaxHosts
		}
	}
	for name := range before {
		gone = append(gone, name)
	}
	since.New, since.NewHosts, since.Gone, since.GoneHosts = len(added), Fold(added), len(gone), Fold(gone)
	keys := make([]change, 0, len(hosts))
	for c := range hosts {
		keys = append(keys, c)
	}
	slices.SortFunc(keys, func(a, b change) int {
		return cmp.Or(cmp.Compare(Rank(a.letter[1]), Rank(b.letter[1])), cmp.Compare(len(hosts[b]), len(hosts[a])),
			cmp.Compare(a.check, b.check), cmp.Compare(a.letter[0], b.letter[0]))
	})
	for _, c := range keys {
		names := make([]string, len(hosts[c]))
		for i, h := range hosts[c] {
			names[i] = f.Hosts[h].Name
		}
		f.Changed = append(f.Changed, Changed{c.check, Word(c.letter[0]), Word(c.letter[1]), len(names), l.fold(names)})
	}
}
