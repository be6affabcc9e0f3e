// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
)

// srun takes at most 1024 bytes from a task at once (SLURM_IO_MAX_MSG_LEN). Of
// a longer line the parts of all tasks come mixed; "srun -l" ends each with a
// newline and says whose it is:
//
//	2: {"schema":"hostcheck.report/v1",...
//	0: {"schema":"hostcheck.report/v1",...
//	2: e","arch":"amd64",...

// reportStart begins every report of one line, and no other part of one.
const reportStart = `{"schema":"hostcheck.`

// srunOpen bounds what is held of reports that have not ended, in bytes.
const srunOpen = 128 << 20

var errOpen = errors.New("more than 128 MiB of reports come at a time: let srun write a file for each host, with -o DIR/%N.jsonl")

// srun puts the lines of tasks together again.
type srun struct {
	r    *bufio.Reader
	open map[string][]byte // by label
	size int               // bytes in open
	out  []byte            // whole lines that nobody has read yet
	err  error             // of r
}

// fromSrun reports whether the output is labelled by srun -l.
func fromSrun(r *bufio.Reader) bool {
	b, _ := r.Peek(64)
	label, rest := srunLabel(b)
	return label != "" && len(rest) > 0 && rest[0] == '{'
}

// srunLabel divides a line "  7: text"; label is "" where there is none.
func srunLabel(b []byte) (label string, text []byte) {
	t := bytes.TrimLeft(b, " ")
	n := 0
	for n < len(t) && t[n] >= '0' && t[n] <= '9' {
		n++
	}
	if n == 0 || n > 10 || !bytes.HasPrefix(t[n:], []byte(": ")) {
		return "", b
	}
	return string(t[:n]), t[n+2:]
}

// Read gives whole lines, without labels.
func (s *srun) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.out = s.line(s.out[:0])
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// line reads one line and adds to out what is whole with it. A line that does
// not fit in the buffer is none of srun's, and is handed on as it is.
func (s *srun) line(out []byte) []byte {
	b, err := s.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			out = append(out, b...)
			if len(out) > MaxReport {
				break // to be refused by who reads
			}
			b, err = s.r.ReadSlice('\n')
		}
		if s.err = err; errors.Is(err, bufio.ErrBufferFull) {
			s.err = nil
		}
		return append(out, b...)
	}
	s.err = err
	label, text := srunLabel(b)
	text = bytes.TrimSuffix(text, []byte{'\n'})
	switch {
	case label != "" && len(text) == 0: // the newline after a last part of 1024 bytes
	case label == "" || len(s.open[label]) == 0 && text[0] != '{':
		out = append(out, b...)
	default:
		if bytes.HasPrefix(text, []byte(reportStart)) {
			out = s.end(out, label) // what was open is cut off
		}
		s.open[label] = append(s.open[label], text...)
		s.size += len(text)
		switch {
		case bytes.HasSuffix(text, []byte{'}'}) && json.Valid(s.open[label]):
			out = s.end(out, label)
		case s.size > srunOpen:
			s.err = errOpen
		}
	}
	if s.err != nil { // what has not ended is cut off, and is said to be
		for _, label := range slices.Sorted(maps.Keys(s.open)) {
			out = s.end(out, label)
		}
	}
	return out
}

// end adds to out what came with a label.
func (s *srun) end(out []byte, label string) []byte {
	if text, ok := s.open[label]; ok {
		out = append(append(out, text...), '\n')
		s.size -= len(text)
		delete(s.open, label)
	}
	return out
}

// unmixed is r with the lines of tasks put together where srun -l wrote them.
func unmixed(r *bufio.Reader) io.Reader {
	if !fromSrun(r) {
		return r
	}
	return &srun{r: r, open: map[string][]byte{}}
}
