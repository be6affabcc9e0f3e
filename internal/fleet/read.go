// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

// raw is a finding as its bytes were seen, and what it came to.
type raw struct {
	text string
	cell uint32 // noCell: forgotten
	next *raw   // the finding that followed it last; nil where none is known
	new  int    // how many variants, one after the other, were none that was seen before
}

// manyNew variants in a row, and a place in reports is one where every host has
// its own: nothing is kept of them.
const manyNew = 32

const noCell = ^uint32(0)

// rawMemory is how many bytes of findings one generation of known ones holds.
const rawMemory = 16 << 20

// known are findings seen before, by their bytes. Hosts are alike, so nearly
// all findings of a report are found here and need not be decoded: the bytes
// were valid JSON once and still are. Two generations bound the memory.
type known struct {
	young, old map[string]*raw
	size       int // bytes in young
}

func (k *known) get(b []byte) *raw {
	if r := k.young[string(b)]; r != nil {
		return r
	}
	r := k.old[string(b)]
	if r != nil {
		k.put(r)
	}
	return r
}

func (k *known) put(r *raw) {
	if k.size > rawMemory || k.young == nil {
		for _, r := range k.old {
			r.next = nil // else chains keep what is forgotten
		}
		k.young, k.old, k.size = map[string]*raw{}, k.young, 0
	}
	k.young[r.text] = r
	k.size += len(r.text) + 100
}

// forget takes a finding out, and off the chains that lead to it.
func (k *known) forget(r *raw) {
	if k.young[r.text] == r {
		delete(k.young, r.text)
		k.size -= len(r.text) + 100
	}
	if k.old[r.text] == r {
		delete(k.old, r.text)
	}
	r.text, r.cell = "", noCell
}

// line is a report that was read: whole, valid, and of the format that is known.
type line struct {
	head  head
	cells []uint32 // its findings, in their order
}

// read decodes a report. What one that turns out to be broken left in the
// dictionaries is for [Merger.undo] to take out.
func (m *Merger) read(p piece) (*line, error) {
	l := &m.last
	l.cells, m.fresh = l.cells[:0], 0
	if err := l.head.read(p, func(b []byte, i int) (int, error) { return m.findings(l, b, i) }); err != nil {
		return l, err
	}
	var n [256]int
	for _, c := range l.cells {
		n[m.cells[c].letter]++
	}
	return l, l.head.Summary.count(&n)
}

// findings reads the list at b[i] and gives the index after it.
func (m *Merger) findings(l *line, b []byte, i int) (int, error) {
	var before *raw
	return elements(b, i, func(i int) (int, error) {
		var r *raw
		if before != nil {
			r = before.next
		} else {
			r = m.first
		}
		// most often the finding that came next last time comes next again; its
		// text is one whole JSON object, so what begins with it is that object
		if r != nil && r.cell != noCell && len(b)-i >= len(r.text) && string(b[i:i+len(r.text)]) == r.text {
			r.new = 0
			l.cells = append(l.cells, r.cell)
			before = r
			return i + len(r.text), nil
		}
		end, err := extent(b, i)
		if err != nil {
			return i, err
		}
		var cell uint32
		expected := r
		switch r = m.known.get(b[i:end]); {
		case r != nil:
			cell = r.cell
		default:
			if cell, err = m.decode(b[i:end]); err != nil {
				return i, err
			}
			if expected != nil && expected.new > manyNew {
				r = expected // as good as any for what follows
				break
			}
			r = &raw{text: string(b[i:end]), cell: cell}
			if expected != nil { // another variant of it: the same will follow
				r.next, r.new = expected.next, expected.new+1
			}
			m.known.put(r)
			m.added = append(m.added, r)
		}
		if before != nil {
			before.next = r
		} else {
			m.first = r
		}
		l.cells = append(l.cells, cell)
		before = r
		return end, nil
	})
}

// decode gives the cell of a finding that was not seen before.
func (m *Merger) decode(b []byte) (uint32, error) {
	f := &m.finding
	if err := f.decode(b); err != nil {
		return 0, err
	}
	switch {
	case !slices.Contains(check.Statuses, f.status):
		return 0, fmt.Errorf("a finding has a status that is not known: %q", clip([]byte(f.status), 30))
	case len(f.check) == 0 || len(f.check) > 100 || bytes.IndexFunc(f.check, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0:
		return 0, fmt.Errorf("a finding has no ID of a check: %q", clip(f.check, 30))
	}
	return m.cell(f)
}

// broken says where a report stops being JSON.
func broken(b []byte, i int) error {
	return fmt.Errorf("it is no valid JSON: byte %d, at %q", i+1, clip(b[i:], 30))
}

// clip is the beginning of b.
func clip(b []byte, n int) string {
	if len(b) <= n {
		return string(b)
	}
	return string(bytes.ToValidUTF8(b[:n], nil)) + "..."
}

// front is the beginning of b, of whole letters.
func front(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	for n > 0 && b[n]&0xc0 == 0x80 {
		n--
	}
	return b[:n]
}
