// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"strings"
)

// compareSubjects orders subjects as people count: "eth2" before "eth10",
// "node2 2M" before "node10 2M". PCI addresses are hexadecimal and compare as
// such; the whole host ("") comes first.
func compareSubjects(a, b string) int {
	if x, y := address(a), address(b); x != "" && y != "" {
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[len(x):], b[len(y):]
	}
	for a != "" && b != "" {
		x, y := run(a), run(b)
		a, b = a[len(x):], b[len(y):]
		if isDigit(x[0]) && isDigit(y[0]) {
			m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n), cmp.Compare(len(x), len(y))); c != 0 {
				return c
			}
		} else if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// address is the PCI address ("0000:1a:00.0", or a longer domain) that s
// begins with, or "".
func address(s string) string {
	word, _, _ := strings.Cut(s, " ")
	domain, rest, ok := strings.Cut(word, ":")
	if !ok || len(domain) < 4 || !isHex(domain) || len(rest) != len("1a:00.0") ||
		rest[2] != ':' || rest[5] != '.' || !isHex(rest[:2]) || !isHex(rest[3:5]) || !isHex(rest[6:]) {
		return ""
	}
	return word
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// run is the digits, or the other bytes, that s begins with; s is not empty.
func run(s string) string {
	for i := range len(s) {
		if isDigit(s[i]) != isDigit(s[0]) {
			return s[:i]
		}
	}
	return s
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
