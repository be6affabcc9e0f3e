// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
)

// What counts as an outlier. A clear majority is nine of ten, or all but one
// of at least four; rare is one of twenty. Where hosts are of a few kinds, such as
// amid an upgrade, what one of a hundred has is rare. The rest is variety.
const (
	fewCommon     = 4 // values that may be common side by side
	maxOutliers   = 1000
	leastCompared = 4   // hosts that have a value at all
	leastGroup    = 5   // hosts of a group in which a value can be rare
	leastNorm     = 3   // hosts of a group that a value can be the norm of
	manyRare      = 200 // subjects of a check that few hosts have: names that every host makes up
	manyTail      = 8   // rare values of one attribute that are listed one by one
)

func clearly(top, of int) bool {
	return of >= leastCompared && (top*10 >= of*9 || of-top == 1) || of > 0 && top == of
}

func rare(n, of int) bool { return n == 1 || n*20 <= of }

// dimension divides the hosts into groups.
type dimension struct {
	name   string
	groups []string // their values
	of     []int32  // by host: its group, -1 for none
	sizes  []int
}

// group is how the group of a dimension is called.
func (d *dimension) group(g int32) string { return d.name + "=" + d.groups[g] }

// says reports whether an attribute is what the dimension is made of, which
// explains nothing.
func (d *dimension) says(a *attribute) bool {
	return d.name == a.what || a.check == firmwareCheck && strings.HasPrefix(d.name, "firmware ")
}

// firmwareCheck is the check whose value got is the firmware of a kind of NIC.
const firmwareCheck = "driver.firmware"

// newDimension makes one of the hosts' values. Where there are as many values
// as a fifth of the hosts, they divide nothing.
func newDimension(name string, hosts int, valueOf func(i int) (string, bool)) *dimension {
	d := &dimension{name: name, of: make([]int32, hosts)}
	ids := map[string]int32{}
	for i := range hosts {
		v, ok := valueOf(i)
		if !ok {
			d.of[i] = -1
			continue
		}
		id, known := ids[v]
		if !known {
			id = int32(len(d.groups)) //nolint:gosec // at most the number of hosts
			ids[v] = id
			d.groups, d.sizes = append(d.groups, v), append(d.sizes, 0)
		}
		d.of[i] = id
		d.sizes[id]++
	}
	if len(d.groups) < 2 || len(d.groups) > max(2, hosts/3) {
		return nil
	}
	return d
}

// attribute is one thing that hosts may differ in, with what each has.
type attribute struct {
	check, subject, what string
	values               []string
	of                   []int32 // by host: its value, -1 for none
}

// hunt looks for outliers.
type hunt struct {
	m         *Merger
	f         *Fleet
	dims      []*dimension
	found     []found
	scattered int
	seed      maphash.Seed
	lists     lists
	folded    map[uint64]string // by what set has of the hosts
}

type found struct {
	Outlier
	set   uint64 // of its hosts
	order int    // in which it was found
}

// bad ranks outliers of the same hosts: what fails comes first.
func (o *Outlier) bad() int {
	word, _, _ := strings.Cut(o.Value, ":")
	if l := Letter(word); o.What == "status" && l != 0 {
		return min(Rank(l), Rank('o'))
	}
	return Rank('o')
}

// outliers fills in what sets few hosts apart.
func (m *Merger) outliers(f *Fleet, v *verdictTable) {
	h := &hunt{m: m, f: f, seed: maphash.MakeSeed(), folded: map[uint64]string{}}
	u := m.usage(v)
	h.dimensions(u)
	h.hosts()
	for c := range m.checks {
		if v.at[c] >= 0 {
			h.check(u, uint32(c)) //nolint:gosec // at most maxChecks
		}
	}
	f.Scattered = h.scattered
	h.collapse()
}

// hosts compares what is said of the hosts themselves.
func (h *hunt) hosts() {
	for _, d := range h.m.hostAttributes() {
		h.look(d)
	}
}

func (m *Merger) hostAttributes() []*attribute {
	var out []*attribute
	for _, a := range []struct {
		what string
		of   func(*host) uint32
	}{
		{"kernel", func(h *host) uint32 { return h.kernel }},
		{"profile", func(h *host) uint32 { return h.profile }},
		{"version", func(h *host) uint32 { return h.version }},
		{"arch", func(h *host) uint32 { return h.arch }},
	} {
		at := &attribute{what: a.what, of: make([]int32, len(m.hosts))}
		ids := map[uint32]int32{}
		for i := range m.hosts {
			t := a.of(&m.hosts[i])
			if t == noText {
				at.of[i] = -1
				continue
			}
			id, ok := ids[t]
			if !ok {
				id = int32(len(at.values)) //nolint:gosec // at most the number of hosts
				ids[t] = id
				at.values = append(at.values, m.texts[t])
			}
			at.of[i] = id
		}
		out = append(out, at)
	}
	return out
}

// dimensions are what may explain a value: labels, then names that differ in the
// last number only, the kernel, firmware, profile, version and architecture.
func (h *hunt) dimensions(u *usage) {
	m := h.m
	add := func(d *dimension) {
		if d != nil {
			h.dims = append(h.dims, d)
		}
	}
	keys := map[string]bool{}
	for _, l := range m.opts.Labels {
		for k := range l {
			keys[k] = true
		}
	}
	names := make([]string, 0, len(keys))
	for k := range keys {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		add(newDimension(k, len(m.hosts), func(i int) (string, bool) { v, ok := m.opts.Labels[m.hosts[i].name][k]; return v, ok }))
	}
	// racks are often in the names: all but the last number
	add(newDimension("name", len(m.hosts), func(i int) (string, bool) { p, n, _ := lastNumber(m.hosts[i].name); return p + "*", n != "" }))
	ofAttribute := func(name string, a *attribute, value func(string) string) {
		add(newDimension(name, len(m.hosts), func(i int) (string, bool) {
			if a.of[i] < 0 {
				return "", false
			}
			return value(a.values[a.of[i]]), true
		}))
	}
	whole := func(s string) string { return s }
	of := m.hostAttributes()
	ofAttribute("kernel", of[0], whole)
	if c, ok := m.checkIDs[firmwareCheck]; ok {
		rows := u.rowBlocks(m, c)
		n := 0
		for _, a := range u.attrs[c] {
			if at := &m.attrs[a]; m.texts[at.what] == "got" && u.distinct[a] > 1 && !at.scattered && n < 8 {
				n++
				ofAttribute("firmware of "+m.texts[at.subject], u.attribute(m, a, rows), versions)
			}
		}
	}
	for _, a := range of[1:] {
		ofAttribute(a.what, a, whole)
	}
}

// versions leaves out which devices have a version: of "28.43 on eth0; 28.39 on
// eth1", "28.43; 28.39".
func versions(got string) string {
	var out []string
	for v := range strings.SplitSeq(got, "; ") {
		v, _, _ = strings.Cut(v, " on ")
		out = append(out, v)
	}
	return strings.Join(out, "; ")
}

// usage counts how many hosts have what.
type usage struct {
	hosts    []int      // by row
	blocks   [][]uint32 // by check: those that hosts have
	inBlock  []int      // by block: hosts
	local    []int32    // by block: its place in blocks of its check
	attrs    [][]uint32 // by check: attributes that hosts have
	present  []int      // by attribute: hosts that have it
	distinct []int      // by attribute: values
}

func (m *Merger) usage(v *verdictTable) *usage {
	u := &usage{
		hosts: make([]int, len(m.rows)), inBlock: make([]int, len(m.blocks)), local: make([]int32, len(m.blocks)), blocks: make([][]uint32, len(m.checks)),
		attrs: make([][]uint32, len(m.checks)), present: make([]int, len(m.attrs)), distinct: make([]int, len(m.attrs)),
	}
	for i := range m.hosts {
		u.hosts[m.hosts[i].row]++
	}
	for row, n := range u.hosts {
		if n == 0 {
			continue
		}
		for id := range m.blocksOf(uint32(row)) { //nolint:gosec // an index
			if u.inBlock[id] == 0 {
				c := m.blocks[id].check
				u.local[id] = int32(len(u.blocks[c])) //nolint:gosec // memory bounds it
				u.blocks[c] = append(u.blocks[c], id)
			}
			u.inBlock[id] += n
		}
	}
	seen := make([]bool, len(m.values))
	last := make([]uint32, len(m.attrs)) // the block that counted an attribute last, +1
	for c := range m.checks {
		if v.at[c] < 0 {
			continue
		}
		for _, b := range u.blocks[c] {
			for _, id := range m.blocks[b].cells {
				for _, val := range m.cells[id].values {
					a := m.values[val].attr
					if u.present[a] == 0 {
						u.attrs[c] = append(u.attrs[c], a)
					}
					if last[a] != b+1 {
						last[a] = b + 1
						u.present[a] += u.inBlock[b]
					}
					if !seen[val] {
						seen[val] = true
						u.distinct[a]++
					}
				}
			}
		}
		slices.Sort(u.attrs[c])
	}
	return u
}

// rowBlocks gives for every row the place of its block of a check, -1 for none.
func (u *usage) rowBlocks(m *Merger, c uint32) []int32 {
	out := make([]int32, len(m.rows))
	for row, n := range u.hosts {
		out[row] = -1
		if n == 0 {
			continue
		}
		for id := range m.blocksOf(uint32(row)) { //nolint:gosec // an index
			if m.blocks[id].check == c {
				out[row] = u.local[id]
				break
			}
		}
	}
	return out
}

// attribute gives what each host has of an attribute.
func (u *usage) attribute(m *Merger, a uint32, rows []int32) *attribute {
	at := &m.attrs[a]
	out := &attribute{check: m.checks[at.check].id, subject: m.texts[at.subject], what: m.texts[at.what]}
	byBlock := make([]int32, len(u.blocks[at.check]))
	ids := map[uint32]int32{}
	for i, b := range u.blocks[at.check] {
		byBlock[i] = -1
	cells:
		for _, id := range m.blocks[b].cells {
			if m.cells[id].subject != at.subject {
				continue
			}
			for _, v := range m.cells[id].values {
				if m.values[v].attr != a {
					continue
				}
				local, ok := ids[v]
				if !ok {
					local = int32(len(out.values)) //nolint:gosec // memory bounds it
					ids[v] = local
					out.values = append(out.values, m.texts[m.values[v].text])
				}
				byBlock[i] = local
				break cells
			}
		}
	}
	out.spread(m, rows, byBlock, -1)
	return out
}

// spread gives every host the value of its block; missing is that of hosts
// without the check.
func (a *attribute) spread(m *Merger, rows, byBlock []int32, missing int32) {
	ofRow := make([]int32, len(rows))
	for r, b := range rows {
		ofRow[r] = missing
		if b >= 0 {
			ofRow[r] = byBlock[b]
		}
	}
	a.of = make([]int32, len(m.hosts))
	for i := range m.hosts {
		a.of[i] = ofRow[m.hosts[i].row]
	}
}

// check looks at all that one check says.
func (h *hunt) check(u *usage, c uint32) {
	m := h.m
	var rows []int32
	need := func() []int32 {
		if rows == nil {
			rows = u.rowBlocks(m, c)
		}
		return rows
	}
	for _, a := range h.statuses(u, c, need) {
		h.look(a)
	}
	for _, a := range u.attrs[c] {
		switch {
		case m.attrs[a].scattered:
			h.scattered++
		case u.distinct[a] < 2 || u.present[a] < leastCompared:
		case m.texts[m.attrs[a].what] != "got" && rare(u.present[a], len(m.hosts)): // a source that few hosts have, such as of an interrupt
			h.scattered++
		default:
			h.look(u.attribute(m, a, need()))
		}
	}
}

// statuses gives the status of each subject of a check as an attribute, where
// hosts differ in it. That a host has no such subject is a value, too.
func (h *hunt) statuses(u *usage, c uint32, need func() []int32) []*attribute {
	m := h.m
	type verdict struct {
		letter byte
		got    string
	}
	type subject struct {
		id      uint32
		blocks  map[uint32]byte // its worst letter in the blocks that have it
		hosts   int
		letters map[byte]string // with the value got, where it is always the same
	}
	var all []*subject
	byID := map[uint32]*subject{}
	for _, b := range u.blocks[c] {
		for _, id := range m.blocks[b].cells {
			cl := &m.cells[id]
			s := byID[cl.subject]
			if s == nil {
				s = &subject{id: cl.subject, blocks: map[uint32]byte{}, letters: map[byte]string{}}
				byID[cl.subject] = s
				all = append(all, s)
			}
			l, twice := s.blocks[b]
			if !twice {
				s.hosts += u.inBlock[b]
			}
			if !twice || Rank(cl.letter) < Rank(l) {
				s.blocks[b] = cl.letter
			}
			v := verdict{cl.letter, m.got(cl)}
			if got, ok := s.letters[v.letter]; !ok {
				s.letters[v.letter] = v.got
			} else if got != v.got {
				s.letters[v.letter] = ""
			}
		}
	}
	total := len(m.hosts)
	few, hosts := 0, 0
	for _, s := range all {
		if rare(s.hosts, total) && s.hosts < total {
			few++
			hosts += s.hosts
		}
	}
	madeUp := few > manyRare || few > fewCommon && hosts*10 > total
	if madeUp {
		h.scattered++
	}
	var out []*attribute
	for _, s := range all {
		if s.hosts == total && len(s.letters) < 2 || madeUp && rare(s.hosts, total) {
			continue
		}
		a := &attribute{check: m.checks[c].id, subject: m.texts[s.id], what: "status"}
		ids := map[byte]int32{}
		byBlock := make([]int32, len(u.blocks[c]))
		absent := int32(-1)
		for i, b := range u.blocks[c] {
			l, ok := s.blocks[b]
			if !ok {
				byBlock[i] = -1
				continue
			}
			id, known := ids[l]
			if !known {
				id = int32(len(a.values)) //nolint:gosec // at most as many as there are letters
				ids[l] = id
				text := Word(l)
				if got := s.letters[l]; got != "" {
					text += ": " + got
				}
				a.values = append(a.values, text)
			}
			byBlock[i] = id
		}
		if s.hosts < total {
			absent = int32(len(a.values)) //nolint:gosec // at most as many as there are letters
			a.values = append(a.values, "")
		}
		for i := range byBlock {
			if byBlock[i] < 0 {
				byBlock[i] = absent
			}
		}
		a.spread(m, need(), byBlock, absent)
		out = append(out, a)
	}
	return out
}

// got is the value got of a cell, "" where it has none.
func (m *Merger) got(c *cell) string {
	for _, v := range c.values {
		if m.texts[m.attrs[m.values[v].attr].what] == "got" {
			return m.texts[m.values[v].text]
		}
	}
	return ""
}

// look finds the outliers of one attribute: among all hosts where there is a
// clear majority, else within the groups of the dimension that explains it.
func (h *hunt) look(a *attribute) {
	counts := make([]int, len(a.values))
	present := 0
	for _, v := range a.of {
		if v >= 0 {
			counts[v]++
			present++
		}
	}
	top, used := 0, 0
	for v, n := range counts {
		if n > counts[top] {
			top = v
		}
		if n > 0 {
			used++
		}
	}
	switch {
	case used < 2:
	case clearly(counts[top], present):
		h.among(a, counts, int32(top), present) //nolint:gosec // an index
	case used > max(20, present/10):
		h.scattered++
	default:
		if d := h.explains(a); d != nil {
			h.within(a, d)
		} else if !h.beside(a, counts, int32(top), present) { //nolint:gosec // an index
			h.scattered++
		}
	}
}

// among reports what is rare among all hosts.
func (h *hunt) among(a *attribute, counts []int, top int32, present int) {
	var tail []int32
	for v, n := range counts {
		v := int32(v) //nolint:gosec // an index
		if v == top || n == 0 {
			continue
		}
		d, groups := h.norm(a, v, n)
		if d == nil {
			if rare(n, present) {
				tail = append(tail, v)
			}
			continue
		}
		names := make([]string, len(groups))
		for i, g := range groups {
			names[i] = d.groups[g]
		}
		h.report(a, []int32{v}, top, present, "", d.name+"="+list(names))
		for _, g := range groups { // and who is not as its group is
			h.group(a, d, g, v)
		}
	}
	n := 0
	for _, v := range tail {
		n += counts[v]
	}
	switch {
	case len(tail) > fewCommon && !rare(n, present): // a counter that is mostly 0
		h.scattered++
	case len(tail) > manyTail:
		h.report(a, tail, top, present, "", "")
	default:
		for _, v := range tail {
			h.report(a, []int32{v}, top, present, "", "")
		}
	}
}

// beside reports what very few hosts have where a few values are common: each
// of a tenth of the hosts, and together nearly all. False: it is not so.
func (h *hunt) beside(a *attribute, counts []int, top int32, present int) bool {
	common, covered := 0, 0
	var odd []int32
	for v, n := range counts {
		switch {
		case n*10 >= present:
			common++
			covered += n
		case n > 0 && n*100 <= present:
			odd = append(odd, int32(v)) //nolint:gosec // an index
		}
	}
	if common > fewCommon || covered*20 < present*19 || len(odd) > manyTail {
		return false
	}
	for _, v := range odd {
		h.report(a, []int32{v}, top, present, "", "")
	}
	return true
}

// list joins a few names.
func list(names []string) string {
	if len(names) > 4 {
		return strings.Join(names[:3], ",") + " and " + strconv.Itoa(len(names)-3) + " more"
	}
	return strings.Join(names, ",")
}

// group reports the hosts of a group that differ from its norm.
func (h *hunt) group(a *attribute, d *dimension, g, norm int32) {
	counts := map[int32]int{}
	present := 0
	for i, v := range a.of {
		if d.of[i] == g && v >= 0 {
			counts[v]++
			present++
		}
	}
	if !clearly(counts[norm], present) || present < leastGroup {
		return
	}
	var others []int32
	for v, n := range counts {
		if v != norm && rare(n, present) {
			others = append(others, v)
		}
	}
	slices.Sort(others)
	for _, v := range others {
		h.reportIn(a, []int32{v}, norm, present, d, g)
	}
}

// norm gives the groups that explain a value: nearly all of their hosts have
// it, and nearly all that have it are of them. Of several dimensions it is the
// one that needs fewest groups: a profile rather than each rack that has it.
func (h *hunt) norm(a *attribute, v int32, n int) (best *dimension, bestGroups []int32) {
	if n < leastNorm {
		return nil, nil
	}
	for _, d := range h.dims {
		if d.says(a) {
			continue
		}
		counts := make([]int, len(d.groups))
		for i, x := range a.of {
			if x == v && d.of[i] >= 0 {
				counts[d.of[i]]++
			}
		}
		var groups []int32
		covered := 0
		for g, c := range counts {
			if d.sizes[g] >= leastNorm && c*10 >= d.sizes[g]*9 {
				groups = append(groups, int32(g)) //nolint:gosec // an index
				covered += c
			}
		}
		if covered*10 >= n*9 && (best == nil || len(groups) < len(bestGroups)) {
			best, bestGroups = d, groups
		}
	}
	return best, bestGroups
}

// explains gives the dimension in whose groups nearly all hosts agree; nil for
// none.
func (h *hunt) explains(a *attribute) *dimension {
	var best *dimension
	bestShare := 0.9
	for _, d := range h.dims {
		if d.says(a) || len(d.groups)*len(a.values) > 4<<20 {
			continue
		}
		counts := make([]int32, len(d.groups)*len(a.values))
		present := 0
		for i, v := range a.of {
			if v < 0 {
				continue
			}
			present++
			if g := d.of[i]; g >= 0 {
				counts[int(g)*len(a.values)+int(v)]++
			}
		}
		explained := 0
		for g := range d.groups {
			top, of := 0, 0
			for _, n := range counts[g*len(a.values) : (g+1)*len(a.values)] {
				top, of = max(top, int(n)), of+int(n)
			}
			if of >= leastGroup && clearly(top, of) {
				explained += of
			}
		}
		if share := float64(explained) / float64(present); share > bestShare || share == bestShare && best == nil {
			best, bestShare = d, share
		}
	}
	return best
}

// within reports what is rare in the groups of a dimension.
func (h *hunt) within(a *attribute, d *dimension) {
	tops := make([]map[int32]int, len(d.groups))
	for i, v := range a.of {
		if g := d.of[i]; g >= 0 && v >= 0 {
			if tops[g] == nil {
				tops[g] = map[int32]int{}
			}
			tops[g][v]++
		}
	}
	for g, counts := range tops {
		if len(counts) < 2 {
			continue
		}
		norm := int32(-1)
		for v, n := range counts {
			if norm < 0 || n > counts[norm] || n == counts[norm] && v < norm {
				norm = v
			}
		}
		h.group(a, d, int32(g), norm) //nolint:gosec // an index
	}
}

func (h *hunt) report(a *attribute, values []int32, usual int32, of int, group, norm string) {
	h.add(a, values, usual, of, group, norm, func(int) bool { return true })
}

func (h *hunt) reportIn(a *attribute, values []int32, usual int32, of int, d *dimension, g int32) {
	h.add(a, values, usual, of, d.group(g), "", func(i int) bool { return d.of[i] == g })
}

// add notes an outlier: the hosts among those meant that have one of values.
func (h *hunt) add(a *attribute, values []int32, usual int32, of int, group, norm string, meant func(int) bool) {
	var hosts []int32
	var hash maphash.Hash
	hash.SetSeed(h.seed)
	for i, v := range a.of {
		if v >= 0 && slices.Contains(values, v) && meant(i) {
			hosts = append(hosts, int32(i)) //nolint:gosec // at most MaxHosts
			_, _ = hash.WriteString(h.m.hosts[i].name)
			_ = hash.WriteByte(0)
		}
	}
	if len(hosts) == 0 || len(h.found) > 100*maxOutliers {
		return
	}
	value := a.values[values[0]]
	if n := len(values); n > 1 {
		value += " and " + strconv.Itoa(n-1) + " other values"
	}
	set := hash.Sum64()
	list, known := h.folded[set]
	if !known {
		list = h.lists.fold(h.m.names(hosts))
		h.folded[set] = list
	}
	h.found = append(h.found, found{Outlier{
		Check: a.check, Subject: a.subject, What: a.what, Value: value, Usual: a.values[usual], N: len(hosts), Of: of,
		Share: share(len(hosts), of), Group: group, Norm: norm, Hosts: list,
	}, set, len(h.found)})
}

// collapse drops outliers that follow from another one of the same hosts, and
// ranks the rest.
func (h *hunt) collapse() {
	type key struct {
		set       uint64
		group     string
		a, b, c   string
		statement byte
	}
	first := map[key]int{}
	var out []found
	for _, o := range h.found {
		keys := []key{{o.set, o.Group, o.Check, o.Subject, "", 's'}} // of the same finding: the status comes first
		switch {
		case o.Value == "" || o.Usual == "": // what hosts have or lack
			keys = append(keys, key{set: o.set, group: o.Group, statement: 'h', a: strconv.FormatBool(o.Value == "")})
		case o.What != "status" && o.What != "got" && o.Check != "":
			keys = append(keys, key{set: o.set, group: o.Group, statement: 'e', a: o.What})
		}
		if o.Check == "" {
			keys = nil
		}
		at := -1
		for _, k := range keys {
			if i, ok := first[k]; ok {
				at = i
				break
			}
		}
		if at >= 0 {
			out[at].Also++
		} else {
			at = len(out)
			out = append(out, o)
		}
		for _, k := range keys {
			if _, ok := first[k]; !ok {
				first[k] = at
			}
		}
	}
	slices.SortStableFunc(out, func(a, b found) int {
		return cmp.Or(cmp.Compare(min(len(a.Norm), 1), min(len(b.Norm), 1)), cmp.Compare(a.Share, b.Share), compareNames(a.Hosts, b.Hosts), cmp.Compare(a.bad(), b.bad()), cmp.Compare(a.order, b.order))
	})
	n := len(out)
	out = slices.DeleteFunc(out, func(o found) bool { return o.Hosts == "" }) // there was no room
	h.f.MoreOutliers = n - min(len(out), maxOutliers)
	for _, o := range out[:min(len(out), maxOutliers)] {
		h.f.Outliers = append(h.f.Outliers, o.Outlier)
	}
}
