// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"math/rand/v2"
	"testing"
)

// Whatever the hosts are called, the plan does not depend on the order of their
// reports.
func TestPlanAnyNames(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	names := []string{"n9", "n10", "n5-1", "n8", "n70", "n6-2", "n", "n-", "N9", "n09", "n9.a", "n9.b1", "n10.a", "n1x", "n-1", "1", "9", "10", "1-1", "a.9", "a.10", "a.5-1"}
	before := make([]sick, len(names))
	for i, name := range names {
		before[i] = sick{name: name, exit: 1, findings: []string{"fail sysctl.backlog - safe"}}
	}
	first := ""
	for range 200 {
		r.Shuffle(len(before), func(i, j int) { before[i], before[j] = before[j], before[i] })
		p := made(t, PlanOptions{MaxHosts: 2, MaxFraction: fraction(t, "1")}, before, nil)
		if first == "" {
			first = p.Hash
		}
		if p.Hash != first {
			t.Fatalf("another plan in another order: %+v", p.Batches)
		}
	}
	for range 100_000 {
		a, b, c := names[r.IntN(len(names))], names[r.IntN(len(names))], names[r.IntN(len(names))]
		if compareNames(a, b) != -compareNames(b, a) || compareNames(a, b) == 0 && a != b || compareNames(a, b) < 0 && compareNames(b, c) < 0 && compareNames(a, c) >= 0 {
			t.Fatalf("%q, %q and %q are in no order", a, b, c)
		}
	}
}
