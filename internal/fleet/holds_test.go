// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"slices"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fleet"
)

// Holds finds what Unfold gives, and nothing beside it.
func TestHolds(t *testing.T) {
	names := []string{"node1", "node01", "node001", "node9", "node10", "node11", "node12", "node099", "node100", "node101", "node1000", "node", "node8x", "gpu-a08.rack", "gpu-a09.rack", "gpu-a10.rack", "gpu-a11", "login", "", "[", "1", "-1"}
	for _, list := range []string{
		"", "node", "login,node[9-11]", "node[09-11]", "node[099-101]", "node[1,9,11-12],login", "gpu-a[08-10].rack", "gpu-a[8-10].rack",
		"node[098-101],node[998-1001]", "node[", "node[1-", "node[1-2", "]", ",", "node[-1]", "node[1-99999999999999999999]", "[0-1]",
	} {
		all := fleet.Unfold(list)
		for _, name := range slices.Concat(names, all) {
			if got, want := fleet.Holds(list, name), slices.Contains(all, name); got != want {
				t.Errorf("Holds(%q, %q) = %v, and Unfold gives %q", list, name, got, all)
			}
		}
	}
}

// A list may stand for more names than there is memory.
func TestHoldsMany(t *testing.T) {
	const list = "a[0-999999],a[0-9999999999999],b[5-18446744073709551615]"
	for name, want := range map[string]bool{"a7": true, "a9999999999999": true, "a10000000000000": false, "b18446744073709551615": true, "b4": false} {
		if fleet.Holds(list, name) != want {
			t.Errorf("Holds(%q) = %v", name, !want)
		}
	}
}
