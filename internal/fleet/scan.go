// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"errors"
)

var errCut = errors.New("it is cut off")

// space gives the index of the first byte of b, from i on, that is no blank.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// extent gives the end of the JSON value that begins at b[i]. It only counts
// brackets and skips strings: whether the value is valid is for the decoder of
// b[i:end] to say, and a value that is valid ends where its brackets close.
func extent(b []byte, i int) (int, error) {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			end, err := stringEnd(b, i)
			if err != nil {
				return 0, err
			}
			i = end
			if depth == 0 {
				return i, nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1, nil
			}
			if depth < 0 {
				return 0, errors.New("a bracket closes that was not open")
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i, nil
			}
		default:
			if depth == 0 { // a number or a word: to the next mark
				n := bytes.IndexAny(b[i:], ",]} \n\r\t")
				if n < 0 {
					return 0, errCut
				}
				return i + n, nil
			}
		}
		i++
	}
	return 0, errCut
}

// each calls entry for each entry of a list, as elements does, and for none of null.
func each(b []byte, entry func(i int) (int, error)) error {
	switch b[0] {
	case 'n':
		return nil
	case '[':
		_, err := elements(b, 0, entry)
		return err
	}
	return errors.New("is no list")
}

// elements calls entry for each entry of the list at b[i], which gives the index
// after it, and gives the index after the list.
func elements(b []byte, i int, entry func(i int) (int, error)) (int, error) {
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
		end, err := entry(i)
		if err != nil {
			return i, err
		}
		i = space(b, end)
	}
}

// stringEnd gives the index after the closing quote of the string at b[i].
func stringEnd(b []byte, i int) (int, error) {
	from := i + 1
	for at := from; ; {
		n := bytes.IndexByte(b[at:], '"')
		if n < 0 {
			return 0, errCut
		}
		at += n
		slashes := 0
		for at-1-slashes >= from && b[at-1-slashes] == '\\' {
			slashes++
		}
		at++
		if slashes%2 == 0 {
			return at, nil
		}
	}
}
