// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fleet"
)

// Who is missing, by names with and without their domain; a broken report is none.
func TestExpect(t *testing.T) {
	hosts, err := fleet.ReadHosts(strings.NewReader("# all\nn[1-3] rack=r1\nn2\nN4.example # by its domain\nn5\nn6.example\nn7.b\n"))
	if err != nil || len(hosts) != 7 {
		t.Fatalf("%v, %v", hosts, err)
	}
	text := passing("n2").line(t) + passing("n4.example").line(t) + passing("n5.example").line(t) + passing("n6").line(t) + passing("n7.a").line(t) + passing("other").line(t)
	for extra, want := range map[string]fleet.Expected{
		"":                                 {Source: "all.txt", Hosts: 7, Missing: "n[1,3],n7.b"},
		passing("n1").line(t)[:100] + "\n": {Source: "all.txt", Hosts: 7, Missing: "n[1,3],n7.b"},
		passing("n1").line(t) + passing("n3").line(t) + passing("n7.b").line(t): {Source: "all.txt", Hosts: 7},
	} {
		f := merge(fleet.Options{Expect: hosts, List: "all.txt"}, text+extra)
		if diff := cmp.Diff(&want, f.Expected); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := len(fleet.Unfold(want.Missing)); f.Summary.Missing != n || (f.Summary.Exit == 3) != (n > 0) {
			t.Errorf("missing %d, exit %d, want %d", f.Summary.Missing, f.Summary.Exit, n)
		}
	}
	if f := merge(fleet.Options{}, text); f.Expected != nil || f.Summary.Missing != 0 || f.Summary.Exit != 0 {
		t.Errorf("nobody is expected: %+v, %+v", f.Expected, f.Summary)
	}
	if f := merge(fleet.Options{Expect: hosts, List: "all.txt"}, passing("n1").with(speed, slow).line(t)); f.Summary.Exit != 1 || f.Summary.Missing != 6 {
		t.Errorf("one fails: %+v", f.Summary)
	}
	// where not every name is kept, nobody is called missing, and all is not well
	few := fleet.Options{Expect: hosts, List: "all.txt", Memory: 1}
	if f := merge(few, text); f.MoreHosts == 0 || f.Summary.Missing != 0 || f.Summary.Exit != 3 {
		t.Errorf("only counted: %d, %+v, %q", f.MoreHosts, f.Summary, whys(f))
	}
	if _, err := fleet.ReadHosts(strings.NewReader("n1\nn;2\n")); err == nil || !strings.Contains(err.Error(), `line 2: "n;2" is no name of a host`) {
		t.Error(err)
	}
}

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
