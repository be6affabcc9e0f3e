// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"runtime"
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
		// names that none has are not counted up
		"n[" + strings.Repeat("0", 10_000) + "1-2000] a=b":                        "is no name of a host",
		strings.Repeat("n", 10_000) + "[1-2000] a=b":                              "is no name of a host",
		strings.Repeat("n", 10_000) + "[" + strings.Repeat("1,", 2000) + "1] a=b": "is no name of a host",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := fleet.ReadLabels(strings.NewReader(text))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60q: %v, want %q", text, err, why)
		}
		if used := after.TotalAlloc - before.TotalAlloc; len(text) > 1000 && used > 5<<20 {
			t.Errorf("%.60q: %d bytes were allocated", text, used)
		}
	}
}
