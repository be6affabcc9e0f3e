// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one mistake in a profile, with its place.
type Problem struct {
	File string // as the user named it
	Line int    // from 1; 0 when the whole file is meant
	Col  int    // from 1, in characters
	Msg  string
	Text string // the line
}

// clip bounds the shown part of a line.
const clip = 100

// Error is the message with its place, the line and a caret below the column:
//
//	site.yaml:4:3: unknown key "hugepage"; did you mean "hugepages"?
//	    hugepage: {}
//	    ^
func (p Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Msg
	}
	at := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Msg)
	line := []rune(p.Text)
	if len(line) == 0 {
		return at
	}
	col := min(max(p.Col-1, 0), len(line))
	from := 0
	if col > clip*3/4 {
		from = col - clip/2
	}
	var text, caret strings.Builder
	for i, r := range line[from:min(len(line), from+clip)] {
		// What could move the cursor or colour the terminal is not passed on.
		if !unicode.IsPrint(r) && r != '\t' {
			r = utf8.RuneError
		}
		text.WriteRune(r)
		if from+i < col {
			if r != '\t' {
				r = ' '
			}
			caret.WriteRune(r)
		}
	}
	return at + "\n    " + text.String() + "\n    " + caret.String() + "^"
}

// Problems is all mistakes of the files that were read, in their order.
type Problems []Problem

func (ps Problems) Error() string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.Error()
	}
	return strings.Join(s, "\n")
}

// err is nil when there are none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// nearest gives the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	best, bestD := "", max(1, min(3, len(word)/2))+1
	for _, k := range known {
		if d := distance(word, k); d < bestD {
			best, bestD = k, d
		}
	}
	return best
}

// distance counts inserted, dropped, changed and swapped letters (optimal
// string alignment), for words of a sane length.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

func unknownWord(what, word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf("unknown %s %.60q; did you mean %q?", what, word, n)
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return fmt.Sprintf("unknown %s %.60q; known here: %s", what, word, strings.Join(known, ", "))
}
