// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
)

// reportSchema is the format of the reports that are merged.
const reportSchema = "hostcheck.report/v1"

// head is a report without its findings.
type head struct {
	Schema string
	Tool   Tool
	Host   struct {
		Name, Kernel, Arch *string
		BootID             *string `json:"boot_id"`
		CapturedAt         *string `json:"captured_at"`
	}
	Profile struct{ Hash string }
	Summary struct {
		Pass, Warn, Fail, Skip, Unknown, Error, Waived, Pending int
		Exit                                                    *int
	}
}

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
func (m *Merger) read(b []byte) (*line, error) {
	l := &m.last
	l.head, l.cells, m.fresh = head{}, l.cells[:0], 0
	i := space(b, 0)
	if i == len(b) || b[i] != '{' {
		return l, fmt.Errorf("it is no report: it begins with %q", clip(b, 30))
	}
	seen := 0
	i = space(b, i+1)
	for first := true; ; first = false {
		if i >= len(b) {
			return l, errCut
		}
		if b[i] == '}' {
			break
		}
		if !first {
			if b[i] != ',' {
				return l, broken(b, i)
			}
			i = space(b, i+1)
		}
		if i >= len(b) {
			return l, errCut
		}
		if b[i] != '"' {
			return l, broken(b, i)
		}
		end, err := stringEnd(b, i)
		if err != nil {
			return l, err
		}
		key := b[i:end]
		i = space(b, end)
		if i >= len(b) {
			return l, errCut
		}
		if b[i] != ':' {
			return l, broken(b, i)
		}
		i = space(b, i+1)
		if n := slices.Index(topKeys, string(key)); n >= 0 {
			if seen&(1<<n) != 0 {
				return l, fmt.Errorf("it has %s twice", key)
			}
			seen |= 1 << n
		}
		if string(key) == `"findings"` {
			if i, err = m.findings(l, b, i); err != nil {
				return l, err
			}
		} else {
			end, err := extent(b, i)
			if err != nil {
				return l, err
			}
			if err := l.head.set(string(key), b[i:end]); err != nil {
				return l, err
			}
			i = end
		}
		i = space(b, i)
	}
	if i = space(b, i+1); i < len(b) {
		return l, fmt.Errorf("more follows after its end: %q", clip(b[i:], 30))
	}
	return l, l.judge(seen, m)
}

var topKeys = []string{`"schema"`, `"tool"`, `"host"`, `"profile"`, `"summary"`, `"findings"`}

// set decodes one key of a report; keys that are not known only have to be
// valid, for later versions may have more.
func (h *head) set(key string, b []byte) error {
	var into any
	switch key {
	case `"schema"`:
		into = &h.Schema
	case `"tool"`:
		into = &h.Tool
	case `"host"`:
		into = &h.Host
	case `"profile"`:
		into = &h.Profile
	case `"summary"`:
		into = &h.Summary
	default:
		if !json.Valid(b) {
			return fmt.Errorf("its key %s is no valid JSON", clip([]byte(key), 40))
		}
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("its %s cannot be decoded: %w", strings.Trim(key, `"`), err)
	}
	return nil
}

// judge refuses what is no usable report.
func (l *line) judge(seen int, m *Merger) error {
	h := &l.head
	switch {
	case h.Schema == Schema:
		return errors.New(`it is a merge, not a report: give it alone to "hostcheck fleet report", or to --since`)
	case h.Schema == "":
		return errors.New("it is no report: it has no schema")
	case h.Schema != reportSchema:
		return fmt.Errorf("its format %q is not known: this hostcheck reads %s", clip([]byte(h.Schema), 60), reportSchema)
	case seen != 1<<len(topKeys)-1:
		for n, key := range topKeys {
			if seen&(1<<n) == 0 {
				return fmt.Errorf("it has no %s", strings.Trim(key, `"`))
			}
		}
	case h.Host.Name == nil || *h.Host.Name == "":
		return errors.New("it does not name its host")
	case !hostName(*h.Host.Name):
		return fmt.Errorf("its host has a name that no host can have: %q", clip([]byte(*h.Host.Name), 60))
	case h.Summary.Exit == nil:
		return errors.New("its summary has no exit code")
	}
	var n [256]int
	for _, c := range l.cells {
		n[m.cells[c].letter]++
	}
	s := &h.Summary
	if n['o'] != s.Pass || n['w'] != s.Warn || n['f'] != s.Fail || n['s'] != s.Skip || n['u'] != s.Unknown || n['e'] != s.Error || n['v'] != s.Waived || n['p'] != s.Pending {
		return errors.New("its summary does not count what its findings say: it was changed after it was written")
	}
	return nil
}

// hostName: at most 253 letters, digits, and "-", "_", ".", ":"; what is more
// would break lists of hosts.
func hostName(s string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r)
	}
	return s != "" && len(s) <= 253 && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0
}

// findings reads the list at b[i] and gives the index after it.
func (m *Merger) findings(l *line, b []byte, i int) (int, error) {
	if i >= len(b) {
		return i, errCut
	}
	if b[i] != '[' {
		return i, errors.New("its findings are no list")
	}
	var before *raw
	i = space(b, i+1)
	for first := true; ; first = false {
		if i >= len(b) {
			return i, errCut
		}
		if b[i] == ']' {
			return i + 1, nil
		}
		if !first {
			if b[i] != ',' {
				return i, broken(b, i)
			}
			i = space(b, i+1)
		}
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
			i = space(b, i+len(r.text))
			before = r
			continue
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
		i = space(b, end)
		before = r
	}
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

// stamp is a time as reports have it; zero where there is none.
func stamp(s *string) time.Time {
	if s == nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *s)
	if err != nil {
		return time.Time{}
	}
	return t
}
