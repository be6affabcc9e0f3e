// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
)

// Bounds of what is kept. Past memory, values are no longer told apart, then
// hosts are only counted; both are said in the result.
const (
	MaxHosts    = 1 << 20  // hosts in one document
	maxChecks   = 1 << 12  // different checks that this hostcheck does not know
	maxFresh    = 1 << 10  // of them, new with one report: else a hostile one would leave no room for others
	maxProblems = 1000     // problems listed
	maxMemory   = 96 << 20 // bytes of values, findings and hosts, roughly
	manyValues  = 2048     // of one attribute, before it may count as scattered
)

// Options of a merge.
type Options struct {
	Tool   Tool
	Checks []string                     // IDs that this hostcheck knows: there is always room for them
	FailOn check.Status                 // Fail or Warn: from which status on a host fails
	Labels map[string]map[string]string // of hosts, by name; see [ReadLabels]
	Expect []string                     // hosts that should report; see [ReadHosts]
	List   string                       // what the list of these is called; "" is none
	Since  *Fleet                       // an earlier merge to compare with; nil for none
	From   string                       // what the earlier merge is called
	Memory int                          // bytes to keep, roughly; 0 is 96 MiB
	Now    time.Time                    // no report is believed to be of later than that; zero: any is
}

// Merger takes reports, one after the other, and gives the merge of them.
//
// Everything is kept once: a finding as a cell, the findings of a check as a
// block of cells, a host as a row of blocks. Hosts that are alike share rows.
type Merger struct {
	opts Options
	seed maphash.Seed

	last    line    // the report that is read, its memory used again
	finding finding // likewise
	key     []byte  // likewise
	ids     []uint32
	rowKey  []byte
	fresh   int // checks that are new with it and not own
	added   []*raw
	known   known
	first   *raw

	strings  dictionary[string]
	texts    []string // by their numbers in strings
	values   []value
	valueIDs dictionary[value]
	attrs    []attr
	attrIDs  dictionary[attrKey]
	cases    []caseKey
	caseIDs  dictionary[caseKey]
	cells    []cell
	cellIDs  map[string]uint32
	blocks   []block
	blockIDs map[string]uint32
	rows     []string // block IDs, four bytes each
	rowIDs   map[string]uint32
	checks   []checkInfo
	checkIDs dictionary[string]
	own      map[string]bool // IDs of checks that this hostcheck knows
	foreign  int             // checks that are not own
	used     int             // bytes of all these, roughly

	hosts     []host
	byName    map[string]int32
	repeated  map[string]*namesakes[host] // by name, of hosts with several reports
	summary   Summary
	problems  []Problem // that lost a host
	notes     []Problem // the others
	more      int       // problems that are not listed
	over      int       // hosts that are not kept
	unsettled int       // reports of hosts with several that were not compared by their time
	merged    int       // values that were not told apart for want of memory
}

// dictionary numbers keys from 0 on.
type dictionary[K comparable] map[K]uint32

type checkInfo struct {
	id, title string
	severity  check.Severity
}

// attrKey is something that hosts can differ in: the status, the value got, or
// a source of evidence of a check's subject.
type attrKey struct {
	check   uint32
	subject uint32 // in strings
	what    uint32 // in strings
}

type attr struct {
	attrKey
	values    int // reports that brought one, for one alone may have thousands
	line      int // the last of them, by its number
	scattered bool
}

type value struct{ attr, text uint32 }

// caseKey is the texts of a finding that does not pass, in strings.
type caseKey struct {
	check                         uint32
	letter                        byte
	status                        check.Status
	subject, want, got, why, next uint32
}

const (
	noCase = ^uint32(0)
	noText = ^uint32(0)
)

// cell is a finding, without what is of no matter to any comparison.
type cell struct {
	check, subject uint32
	letter         byte
	cas            uint32   // in cases, or noCase
	values         []uint32 // got and evidence
}

// block is the findings of one check, as they follow each other in a report.
type block struct {
	check  uint32
	letter byte // the worst
	cells  []uint32
}

type host struct {
	name, verdict                  string
	boot, stamp                    *string
	kernel, arch, profile, version uint32 // in strings; noText where it is not known
	exit                           int32
	row                            uint32
	sum                            uint32 // of the bytes of its report: the same in each run, so reports are ordered by it
	id                             uint64 // of these bytes: nobody can make another report that has it
	warns                          bool
}

// New gives an empty merge.
func New(o Options) *Merger {
	if o.FailOn == "" {
		o.FailOn = check.Fail
	}
	if o.Memory == 0 {
		o.Memory = maxMemory
	}
	m := &Merger{
		opts: o, seed: maphash.MakeSeed(), own: map[string]bool{}, strings: dictionary[string]{}, valueIDs: dictionary[value]{}, attrIDs: dictionary[attrKey]{}, caseIDs: dictionary[caseKey]{},
		cellIDs: map[string]uint32{}, blockIDs: map[string]uint32{}, rowIDs: map[string]uint32{}, checkIDs: dictionary[string]{}, byName: map[string]int32{}, repeated: map[string]*namesakes[host]{},
	}
	for _, id := range o.Checks {
		m.own[id] = true
	}
	return m
}

// Read takes all reports of a file; name is what problems call it.
func (m *Merger) Read(name string, r io.Reader) {
	reports(name, r, func(p piece) (*head, error) { return m.take(name, p) }, m.problem)
}

// Lost takes note of a report that never came, such as of a file that cannot
// be opened.
func (m *Merger) Lost(name, why string) {
	m.problem(Problem{Source: name, Why: why, Lost: true})
}

// problem takes note of one. Those that lost a host and the others are listed
// up to a bound each: reports that were repeated leave room for what is broken.
func (m *Merger) problem(p Problem) {
	list := &m.notes
	if p.Lost {
		m.summary.Problems++
		list = &m.problems
	}
	if len(*list) < maxProblems {
		*list = append(*list, p)
	} else {
		m.more++
	}
}

func (m *Merger) take(source string, p piece) (*head, error) {
	m.summary.Lines++
	before := m.mark()
	l, err := m.read(p)
	if err != nil {
		m.undo(before)
		return &l.head, err
	}
	m.add(source, p, l)
	return &l.head, nil
}

// add takes a whole report of a host.
func (m *Merger) add(source string, p piece, l *line) {
	h := m.host(l)
	name := h.name
	h.sum, h.id = crc32.ChecksumIEEE(p.b), maphash.Bytes(m.seed, p.b)
	if why := toCome(stamp(h.stamp), m.opts.Now); why != "" {
		h.stamp = nil
		m.problem(Problem{Source: source, Line: p.line, Host: name, Why: why, Lost: true})
	}
	i, twice := m.byName[name]
	if !twice {
		if m.used > m.opts.Memory || len(m.hosts) >= MaxHosts {
			m.over++
			m.count(h.verdict, h.warns, 1)
			return
		}
		h.row = m.row(l.cells)
		m.byName[name] = int32(len(m.hosts)) //nolint:gosec // at most MaxHosts
		m.hosts = append(m.hosts, h)
		// a name, a boot and a time of usual length are in the 200; longer ones stand
		// in lists and in what is written as well
		m.used += 200 + len(name) + 4*max(0, len(name)-64) + 2*max(0, len(text(h.boot))+len(text(h.stamp))-64)
		return
	}
	m.summary.Repeated++
	h.name, h.row = m.hosts[i].name, m.row(l.cells)
	n := m.repeated[name]
	if n == nil && m.used > m.opts.Memory {
		if m.unsettled++; worse(&h, &m.hosts[i]) > 0 {
			m.hosts[i] = h
		}
		return
	}
	if n == nil {
		n = namesakesOf(m.hosts[i].sample(), worse)
		m.repeated[name] = n
		m.used += 400
	}
	n.source, n.line = source, p.line
	if m.used > m.opts.Memory {
		n.drop(h, worse)
		return
	}
	boots := len(n.boots)
	if note := n.add(h.sample(), worse); note != "" {
		m.problem(Problem{Source: source, Line: p.line, Host: name, Why: note})
	}
	m.used += 250 * (len(n.boots) - boots)
}

// sample gives a host as one of several reports.
func (h *host) sample() sample[host] {
	s := sample[host]{host: *h, at: stamp(h.stamp)}
	if h.boot != nil {
		s.boot = *h.boot
	}
	return s
}

// worse orders what reports say of a host; see [compare].
func worse(a, b *host) int {
	same := a.row == b.row && a.verdict == b.verdict && a.exit == b.exit && a.kernel == b.kernel && a.arch == b.arch && a.profile == b.profile && a.version == b.version
	if same || a.id == b.id {
		return 0
	}
	return cmp.Or(cmp.Compare(slices.Index(byWorst, b.verdict), slices.Index(byWorst, a.verdict)), cmp.Compare(a.sum, b.sum), cmp.Compare(a.id, b.id))
}

// host gives the host of a report.
func (m *Merger) host(l *line) host {
	r := &l.head
	h := host{name: *r.Host.Name, exit: int32(min(max(*r.Summary.Exit, -1), 255)), //nolint:gosec // bounded
		kernel: m.maybe(r.Host.Kernel), arch: m.maybe(r.Host.Arch), boot: r.Host.BootID, stamp: r.Host.CapturedAt,
		profile: m.maybe(&r.Profile.Hash), version: m.maybe(&r.Tool.Version)}
	if stamp(h.stamp).IsZero() {
		h.stamp = nil // a time that nobody can read
	}
	h.verdict, h.warns = r.Summary.verdict(m.opts.FailOn), r.Summary.Warn > 0
	return h
}

// count counts n hosts of a verdict.
func (m *Merger) count(verdict string, warns bool, n int) {
	s := &m.summary
	s.Hosts += n
	switch verdict {
	case Failing:
		s.Failing += n
	case Incomplete:
		s.Incomplete += n
	case Pending:
		s.Pending += n
	case Compliant:
		s.Compliant += n
		if warns {
			s.Warning += n
		}
	}
}

// maybe numbers a text that a report may lack.
func (m *Merger) maybe(s *string) uint32 {
	if s == nil {
		return noText
	}
	return m.text(front([]byte(*s), 200))
}

// text numbers a string.
func (m *Merger) text(b []byte) uint32 {
	if id, ok := m.strings[string(b)]; ok {
		return id
	}
	s := string(b)
	id := uint32(len(m.strings)) //nolint:gosec // memory bounds it
	m.strings[s] = id
	m.texts = append(m.texts, s)
	m.used += len(s) + 60
	return id
}

// unknown: a text that has no number yet.
func (m *Merger) unknown(b []byte) bool {
	_, ok := m.strings[string(b)]
	return !ok
}

// cell numbers a finding.
func (m *Merger) cell(f *finding) (uint32, error) {
	c, ok := m.checkIDs[string(f.check)]
	if !ok {
		id := string(f.check)
		if !m.own[id] {
			if m.fresh++; m.foreign >= maxChecks || m.fresh > maxFresh {
				return 0, fmt.Errorf("it has too many checks that this hostcheck does not know: %q is beyond the %d of a report or the %d of all", f.check, maxFresh, maxChecks)
			}
			m.foreign++
		}
		c = uint32(len(m.checks)) //nolint:gosec // at most maxChecks and those that are known
		m.checkIDs[id] = c
		m.checks = append(m.checks, checkInfo{id, clip(f.title, 200), f.severity})
	}
	full := m.used > m.opts.Memory
	n := cell{check: c, letter: f.letter(), cas: noCase}
	subject := front(f.subject, 400)
	if full && m.unknown(subject) { // subjects are kept apart as long as anything is
		subject = nil
	}
	n.subject = m.text(subject)
	if f.status != check.Pass && f.status != check.Skip {
		n.cas = m.caseOf(f, &n, full)
	}
	n.values = m.valuesOf(f, &n, full)
	key := m.cellKey(&n)
	if id, ok := m.cellIDs[string(key)]; ok {
		return id, nil
	}
	id := uint32(len(m.cells)) //nolint:gosec // memory bounds it
	n.values = slices.Clone(n.values)
	m.cells = append(m.cells, n)
	m.cellIDs[string(key)] = id
	m.used += 2*len(key) + 120
	return id, nil
}

// cellKey is a cell as the key of its number, valid until the next call.
func (m *Merger) cellKey(n *cell) []byte {
	key := binary.LittleEndian.AppendUint32(m.key[:0], n.check)
	key = binary.LittleEndian.AppendUint32(key, n.subject)
	key = append(binary.LittleEndian.AppendUint32(key, n.cas), n.letter)
	for _, v := range n.values {
		key = binary.LittleEndian.AppendUint32(key, v)
	}
	m.key = key
	return key
}

func (m *Merger) caseOf(f *finding, n *cell, full bool) uint32 {
	k := caseKey{n.check, n.letter, f.status, n.subject, m.short(f.want, full), m.short(f.got, full), m.short(f.why, full), m.short(f.next, full)}
	if id, ok := m.caseIDs[k]; ok {
		return id
	}
	id := uint32(len(m.cases)) //nolint:gosec // memory bounds it
	m.cases = append(m.cases, k)
	m.caseIDs[k] = id
	m.used += 120
	return id
}

// short numbers a text, of which the beginning is enough.
func (m *Merger) short(b []byte, full bool) uint32 {
	b = front(b, 400)
	if full && m.unknown(b) {
		m.merged++
		return m.text([]byte("(one of many)"))
	}
	return m.text(b)
}

// valuesOf numbers what a finding says that hosts can differ in. What it gives
// is valid until the next call.
func (m *Merger) valuesOf(f *finding, n *cell, full bool) []uint32 {
	ids := m.ids[:0]
	if len(f.got) > 0 {
		ids = m.value(ids, n, []byte("got"), f.got, full)
	}
	for i := range f.evidence {
		e := &f.evidence[i]
		source := front(e.source, 200)
		if full && m.unknown(source) {
			m.merged++
			continue
		}
		ids = m.value(ids, n, source, e.value, full)
	}
	m.ids = ids
	return ids
}

// value appends the number of a value, where it is one that is told apart.
func (m *Merger) value(ids []uint32, n *cell, what, text []byte, full bool) []uint32 {
	text = front(text, 400)
	a := m.attr(attrKey{n.check, n.subject, m.text(what)})
	at := &m.attrs[a]
	if at.scattered {
		return ids
	}
	if (full || at.values >= manyValues && at.values > m.summary.Lines/2) && m.unknown(text) {
		at.scattered = true
		if full {
			m.merged++
		}
		return ids
	}
	v := value{a, m.text(text)}
	id, ok := m.valueIDs[v]
	if !ok {
		id = uint32(len(m.values)) //nolint:gosec // memory bounds it
		m.values = append(m.values, v)
		m.valueIDs[v] = id
		if at.line != m.summary.Lines {
			at.line = m.summary.Lines
			at.values++
		}
		m.used += 60
	}
	return append(ids, id)
}

func (m *Merger) attr(k attrKey) uint32 {
	if id, ok := m.attrIDs[k]; ok {
		return id
	}
	id := uint32(len(m.attrs)) //nolint:gosec // memory bounds it
	m.attrs = append(m.attrs, attr{attrKey: k})
	m.attrIDs[k] = id
	m.used += 80
	return id
}

// row numbers the findings of a host.
func (m *Merger) row(cells []uint32) uint32 {
	row, key := m.rowKey[:0], m.key
	for i := 0; i < len(cells); {
		c := m.cells[cells[i]].check
		j := i
		for j < len(cells) && m.cells[cells[j]].check == c {
			j++
		}
		key = key[:0]
		for _, id := range cells[i:j] {
			key = binary.LittleEndian.AppendUint32(key, id)
		}
		id, ok := m.blockIDs[string(key)]
		if !ok {
			id = uint32(len(m.blocks)) //nolint:gosec // memory bounds it
			b := block{check: c, letter: '.', cells: slices.Clone(cells[i:j])}
			for _, id := range b.cells {
				if l := m.cells[id].letter; Rank(l) < Rank(b.letter) {
					b.letter = l
				}
			}
			m.blocks = append(m.blocks, b)
			m.blockIDs[string(key)] = id
			m.used += 2*len(key) + 120
		}
		row = binary.LittleEndian.AppendUint32(row, id)
		i = j
	}
	m.rowKey, m.key = row, key
	id, ok := m.rowIDs[string(row)]
	if !ok {
		id = uint32(len(m.rows)) //nolint:gosec // at most a row per host
		s := string(row)
		m.rows = append(m.rows, s)
		m.rowIDs[s] = id
		m.used += len(s) + 80
	}
	return id
}

// blocksOf gives the blocks of a row.
func (m *Merger) blocksOf(row uint32) iter.Seq[uint32] {
	s := m.rows[row]
	return func(yield func(uint32) bool) {
		for i := 0; i+4 <= len(s); i += 4 {
			id := uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16 | uint32(s[i+3])<<24
			if !yield(id) {
				return
			}
		}
	}
}
