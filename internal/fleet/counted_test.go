// SPDX-License-Identifier: Apache-2.0

package fleet

import "testing"

func TestForgedSummary(t *testing.T) {
	hosts := []Host{{Verdict: Failing}, {Verdict: Compliant}}
	for s, want := range map[Summary]bool{
		{Hosts: 2, Failing: 1, Compliant: 1}:               true,
		{Hosts: 2, Compliant: 2}:                           false,
		{Hosts: 2, Failing: 3, Compliant: -1}:              false,
		{Hosts: 2, Failing: 1, Compliant: 1, Problems: -1}: false,
	} {
		f := Fleet{Summary: s, Hosts: hosts}
		if f.counted() != want {
			t.Errorf("%+v: counted %v, want %v", s, !want, want)
		}
	}
}
