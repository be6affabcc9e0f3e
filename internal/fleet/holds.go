// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"strconv"
	"strings"
)

// Holds reports whether a folded list has a name. It never unfolds the list,
// which may be anybody's and stand for more names than fit.
func Holds(list, name string) bool {
	for list != "" {
		end := 0
		for depth := 0; end < len(list) && (list[end] != ',' || depth > 0); end++ {
			switch list[end] {
			case '[':
				depth++
			case ']':
				depth--
			}
		}
		item := list[:end]
		list = strings.TrimPrefix(list[end:], ",")
		prefix, rest, ok := strings.Cut(item, "[")
		if !ok {
			if item == name {
				return true
			}
			continue
		}
		inside, suffix, _ := strings.Cut(rest, "]")
		middle, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if middle, ok = strings.CutSuffix(middle, suffix); !ok {
			continue
		}
		n, err := strconv.ParseUint(middle, 10, 64)
		for r := range strings.SplitSeq(inside, ",") {
			if r == middle {
				return true
			}
			first, last, ok := strings.Cut(r, "-")
			if !ok || err != nil {
				continue
			}
			from, errFirst := strconv.ParseUint(first, 10, 64)
			to, errLast := strconv.ParseUint(last, 10, 64)
			padded := len(middle) == len(first) || len(middle) > len(first) && middle[0] != '0'
			if errFirst == nil && errLast == nil && from <= n && n <= to && padded {
				return true
			}
		}
	}
	return false
}
