// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
)

// What runs a command on many hosts says whose a line is: "node7: {...". A
// report may come in several such lines, mixed with those of others: indented
// ones from clush and pdsh do, and all from srun, which takes at most 1024
// bytes from a task at once (SLURM_IO_MAX_MSG_LEN); "srun -l" ends each part
// with a newline and says whose it is:
//
//	2: {"schema":"hostcheck.report/v1",...
//	0: {"schema":"hostcheck.report/v1",...
//	2: e","arch":"amd64",...

// srunPart is what srun takes from a task at once, in bytes.
const srunPart = 1024

// reportStart begins every report of one line, and no other part of one.
const reportStart = `{"schema":"hostcheck.`

// Bounds of what is held of reports that have not ended.
const (
	maxParts      = 1 << 16   // labels
	maxPartsBytes = 128 << 20 // together
)

var errMixed = errors.New("more reports come at a time than can be held, and this is one of the longest or the last: let srun write a file for each host, with -o DIR/%N.jsonl")

// parts puts labelled reports together again.
type parts struct {
	open  map[string]*part // by label
	size  int              // bytes that open takes
	whole []piece          // reports that nobody has taken yet
}

// part is a report that has not ended. Brackets are counted as its lines come:
// each byte is looked at once, however many they are.
type part struct {
	line    int // where it begins
	label   string
	text    []byte
	depth   int  // of brackets
	str     bool // in a string
	escaped bool // behind its backslash
	dropped bool // what still comes of it is skipped
}

// labelled takes the name off a line "node7: {..." or "  7: ...", as clush, pdsh
// and srun write it; label is "" where there is none.
func labelled(b []byte) (label string, text []byte) {
	front := b[:min(len(b), 280)]
	t := bytes.TrimLeft(front, " ")
	n := bytes.IndexByte(t, ' ')
	if n < 2 || t[n-1] != ':' || !hostName(string(t[:n-1])) {
		return "", b
	}
	return string(t[:n-1]), b[len(front)-len(t)+n+1:]
}

// What a labelled line is.
const (
	noPart    = iota // of no report
	wholePart        // a report
	openPart         // part of one
)

// take takes a labelled line.
func (s *parts) take(label string, text []byte, line int) int {
	text = bytes.TrimSuffix(text, []byte{'\n'})
	p := s.open[label]
	begins := bytes.HasPrefix(text, []byte(reportStart)) || len(text) == 1 && text[0] == '{'
	switch {
	case len(text) == 0: // such as the newline after a last part of 1024 bytes
		return openPart
	case p != nil && begins: // what was open is cut off
		s.end(p, errCut)
		p = nil
	case p == nil && text[0] != '{':
		return noPart
	}
	if p == nil {
		if t := bytes.TrimRight(text, " \t\r"); len(text) > srunPart && t[len(t)-1] == '}' {
			return wholePart
		}
		p = &part{line: line, label: label}
		if len(s.open) >= maxParts {
			s.emit(p, errMixed)
			return openPart
		}
		if s.open == nil {
			s.open = map[string]*part{}
		}
		s.open[label] = p
	}
	p.scan(text)
	if !p.dropped {
		before := cap(p.text)
		p.text = append(p.text, text...)
		s.size += cap(p.text) - before
	}
	switch {
	case p.depth <= 0 && !p.str:
		s.end(p, nil)
	case len(p.text) > MaxReport:
		s.drop(p, errLong)
	case s.size > maxPartsBytes:
		s.dropLongest()
	}
	return openPart
}

// scan counts the brackets of a part.
func (p *part) scan(b []byte) {
	for _, c := range b {
		switch {
		case p.escaped:
			p.escaped = false
		case p.str:
			p.escaped = c == '\\'
			p.str = c != '"'
		case c == '"':
			p.str = true
		case c == '{' || c == '[':
			p.depth++
		case c == '}' || c == ']':
			p.depth--
		}
	}
}

// end takes a report off those that are open; why is what is wrong with it.
func (s *parts) end(p *part, why error) {
	delete(s.open, p.label)
	s.size -= cap(p.text)
	if !p.dropped { // else this was said when it was
		s.emit(p, why)
	}
}

func (s *parts) emit(p *part, why error) {
	whole := piece{b: p.text, line: p.line, label: p.label}
	if why != nil {
		whole.b, whole.why = nil, why.Error()
	}
	s.whole = append(s.whole, whole)
}

// drop gives up a report, and takes care that others can go on.
func (s *parts) drop(p *part, why error) {
	s.emit(p, why)
	s.size -= cap(p.text)
	p.text, p.dropped = nil, true
}

// dropLongest gives up the longest reports, so many that it is not to be done
// again soon.
func (s *parts) dropLongest() {
	all := slices.SortedFunc(maps.Values(s.open), func(a, b *part) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.line, b.line))
	})
	for _, p := range all {
		if s.size <= maxPartsBytes/8*7 {
			return
		}
		s.drop(p, errMixed)
	}
}

// ended gives the next report that has ended.
func (s *parts) ended() (p piece, ok bool) {
	if len(s.whole) == 0 {
		return piece{}, false
	}
	p, s.whole = s.whole[0], s.whole[1:]
	return p, true
}

// cut ends all reports at the end of the stream: what is open is cut off. False
// where none is.
func (s *parts) cut() bool {
	for _, p := range slices.SortedFunc(maps.Values(s.open), func(a, b *part) int { return cmp.Compare(a.line, b.line) }) {
		s.end(p, errCut)
	}
	return len(s.whole) > 0
}
