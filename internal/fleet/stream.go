// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// MaxReport is the longest report that is read, in bytes; a host with
// thousands of devices has a tenth of it.
const MaxReport = 32 << 20

var errLong = fmt.Errorf("it is longer than %d MiB", MaxReport>>20)

// stream divides what is read into reports: a line each, or documents that
// are indented, which begin with a line "{" and end with a line "}".
type stream struct {
	r    *bufio.Reader
	buf  []byte
	line int    // number of the last line read
	held []byte // a line that was read too far, nil for none
	err  error  // of the reader

	parts parts // of labelled reports
}

// piece is one report as it was found.
type piece struct {
	b     []byte // valid until the next call
	line  int    // where it begins
	label string // name in front of it, "" for none
	known string // what the host of that label called itself before; "" is not known
	why   string // why it is no report; "" when that is for its content to say
}

func newStream(r io.Reader) (*stream, error) {
	br, err := plain(r)
	if err != nil {
		return nil, err
	}
	return &stream{r: br}, nil
}

// plain gives what r has without its packing and the mark of UTF-8 that some
// editors put before a text.
func plain(r io.Reader) (*bufio.Reader, error) {
	const buffer = 64 << 10
	br := bufio.NewReaderSize(r, buffer)
	if magic, err := br.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("cannot be unpacked: %w", err)
		}
		br = bufio.NewReaderSize(z, buffer)
	}
	if b, err := br.Peek(262); err == nil && string(b[257:]) == "ustar" {
		return nil, errors.New(`it is a tar archive: of a bundle, "hostcheck --from FILE -f jsonl" makes a report`)
	}
	if mark, err := br.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = br.Discard(3) // what was peeked at
	}
	return br, nil
}

// next gives the next report, false at the end or when the reader fails; see
// err then.
func (s *stream) next() (piece, bool) {
	for {
		if p, ok := s.parts.ended(); ok {
			return p, true
		}
		s.buf = s.buf[:0]
		long, ended, ok := s.read()
		if !ok {
			if s.parts.cut() {
				continue
			}
			return piece{}, false
		}
		p := piece{line: s.line}
		b := bytes.TrimSpace(s.buf)
		if long {
			p.why = errLong.Error()
			return p, true
		}
		if label, text := labelled(s.buf); label != "" {
			switch s.parts.take(label, text, s.line) {
			case wholePart:
				p.label, p.b = label, bytes.TrimSpace(text)
				return p, true
			case openPart:
				continue
			case noPart:
			}
		}
		switch {
		case len(b) == 0:
			continue
		case len(b) == 1 && b[0] == '{':
			return s.document(p), true
		case !ended && (b[0] != '{' || b[len(b)-1] != '}'):
			p.why = errCut.Error()
		}
		p.b = b
		return p, true
	}
}

// document reads on to the line that ends an indented report.
func (s *stream) document(p piece) piece {
	for {
		start := len(s.buf)
		long, _, ok := s.read()
		line := bytes.TrimRight(s.buf[start:], " \t\r\n")
		last := len(line) == 1 && line[0] == '}'
		switch {
		case !ok:
			p.why = cmp.Or(p.why, errCut.Error())
			return p
		case !long && begins(line): // the next report
			s.held = bytes.Clone(s.buf[start:])
			p.why = cmp.Or(p.why, errCut.Error())
			return p
		case long || p.why != "" && !last: // to its end, unread
			p.why = errLong.Error()
			s.buf = s.buf[:0]
		case p.why != "":
			return p
		case last:
			p.b = s.buf
			return p
		}
	}
}

// begins reports whether a report begins with a line.
func begins(line []byte) bool {
	_, text := labelled(line)
	return len(text) > 0 && text[0] == '{'
}

// read appends a line to buf. long: the line, or what buf holds with it, is
// too long; the rest of the line is skipped. ended: it ends with a newline.
func (s *stream) read() (long, ended, ok bool) {
	if s.held != nil {
		s.buf, s.held = append(s.buf, s.held...), nil
		return false, bytes.HasSuffix(s.buf, []byte{'\n'}), true
	}
	if s.err != nil {
		return false, false, false
	}
	s.line++
	start := len(s.buf)
	for {
		b, err := s.r.ReadSlice('\n')
		if len(s.buf)+len(b) > MaxReport {
			long = true
		} else if !long {
			s.buf = append(s.buf, b...)
		}
		switch {
		case err == nil:
			return long, true, true
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		}
		s.err = err
		return long, false, long || len(s.buf) > start
	}
}
