// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fleet"
)

func TestReadLabels(t *testing.T) {
	got, err := fleet.ReadLabels(strings.NewReader("n[1-2] rack=r1 row=a # the first\n\nn2 rack=r2\n#n3 rack=r3\n"))
	want := map[string]map[string]string{"n1": {"rack": "r1", "row": "a"}, "n2": {"rack": "r2", "row": "a"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for text, why := range map[string]string{
		"n1":                      `line 1: "n1" has no label`,
		"n1 rack=r1\nn2 rack":     `line 2: "rack" is no label`,
		"n1 rack=":                "is no label",
		"n;1 rack=r1":             `"n;1" is no name of a host`,
		"n[1-99999999999999] a=b": "line 1: more than 1048576 hosts",
	} {
		if _, err := fleet.ReadLabels(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
	}
}
