// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fleet"
)

func TestFold(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"", ""},
		{"login", "login"},
		{"node7", "node7"},
		{"node01 node02 node03 node12", "node[01-03,12]"},
		{"node12 node03 node01 node02 node03", "node[01-03,12]"},
		{"n8 n9 n10 n11", "n[8-11]"},
		{"n08 n09 n10 n11", "n[08-11]"},
		{"n1 n01 n001", "n001,n01,n1"},
		{"n098 n099 n100 n1000", "n[098-100],n1000"},
		{"a1.dc1 a2.dc1 a3.dc2", "a[1-2].dc1,a3.dc2"},
		{"r1-n1 r1-n2 r2-n1", "r1-n[1-2],r2-n1"},
		{"10 11 x", "[10-11],x"},
		{"n99999999999999999999", "n99999999999999999999"},
		{"ip-10-0-0-1 ip-10-0-0-2", "ip-10-0-0-[1-2]"},
	} {
		names := strings.Fields(c.names)
		got := fleet.Fold(slices.Clone(names))
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.names, got, c.want)
		}
		slices.Sort(names)
		back := fleet.Unfold(got)
		if slices.Sort(back); !slices.Equal(back, slices.Compact(names)) {
			t.Errorf("%q unfolds to %q", got, back)
		}
	}
}

// Whatever the names are and in whatever order, the list has each of them once.
func TestFoldAny(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same names each time
	const letters = "a0019-."
	for range 3000 {
		var names []string
		for range 1 + r.IntN(12) {
			name := "h"
			for range r.IntN(5) {
				name += string(letters[r.IntN(len(letters))])
			}
			names = append(names, name)
		}
		folded := fleet.Fold(slices.Clone(names))
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if again := fleet.Fold(slices.Clone(names)); again != folded {
			t.Fatalf("%q folds to %q and to %q", names, folded, again)
		}
		slices.Sort(names)
		back := fleet.Unfold(folded)
		if slices.Sort(back); !slices.Equal(back, slices.Compact(names)) {
			t.Fatalf("%q folds to %q, which is %q", names, folded, back)
		}
	}
}
