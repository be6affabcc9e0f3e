// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
)

// unknown is the error for a word that is not one of the known ones.
func unknown(what, word string, known []string) error {
	if s := didYouMean(word, known); s != "" {
		return fmt.Errorf("unknown %s %.80q%s", what, word, s)
	}
	if len(known) <= 12 {
		return fmt.Errorf("unknown %s %.80q; known: %s", what, word, strings.Join(known, ", "))
	}
	return fmt.Errorf("unknown %s %.80q", what, word)
}

// didYouMean is "; did you mean X?" for the known word nearest to what was
// written, "" when none is near.
func didYouMean(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", 1+max(1, min(3, len(word)/3))
	for _, name := range known {
		k := strings.ToLower(name)
		d := distance(word, k)
		// the last part of an ID alone, or the first letters of a word
		if _, name, ok := strings.Cut(k, "."); ok {
			d = min(d, distance(word, name))
		}
		if len(word) >= 3 && strings.HasPrefix(k, word) {
			d = min(d, 1)
		}
		if d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance counts the edits between two words, a swap of neighbours as one
// (optimal string alignment). Words too long to be a slip are far apart.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range cur {
		cur[j] = j
	}
	for i := range len(a) {
		before, prev, cur = prev, cur, before
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j+1]+1, cur[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
	}
	return cur[len(b)]
}
