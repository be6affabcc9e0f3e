// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

// four hosts: two that are alike, one that fails, one that waits for its boot.
func four(t testing.TB) *fleet.Fleet {
	return merge(fleet.Options{Labels: map[string]map[string]string{"n1": {"rack": "r1"}, "n2": {"rack": "r1"}, "n4": {"rack": "r2"}}},
		passing("n1").line(t)+passing("n2").line(t)+passing("n3").with(speed, slow).line(t)+"rubbish\n"+
			passing("n4").with(memory, check.Finding{Status: check.Fail, Pending: true}).line(t))
}

// Every merge that hostcheck writes can be read back, whatever was found and
// however little memory there was.
func TestReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for round := range 400 {
		o := fleet.Options{FailOn: []check.Status{check.Fail, check.Warn}[r.IntN(2)], Memory: []int{0, 2000, 20_000, 60_000}[r.IntN(4)]}
		var text strings.Builder
		for i := range 1 + r.IntN(30) {
			m := passing(fmt.Sprintf("n%d", r.IntN(i+1)))
			m.at = fmt.Sprintf("2026-11-02T08:0%d:00Z", r.IntN(10))
			m.failOn = o.FailOn
			if r.IntN(20) == 0 {
				m.signal = 15
			}
			for _, c := range []*check.Check{speed, memory} {
				var fs []check.Finding
				for k := range r.IntN(4) {
					f := check.Finding{Subject: []string{"", "eth0", "eth1"}[r.IntN(3)], Status: check.Statuses[r.IntN(len(check.Statuses))], Got: fmt.Sprint(r.IntN(3 + round%50*k))}
					f.Pending = r.IntN(4) == 0
					if r.IntN(4) == 0 {
						f.Waiver = &profile.Waiver{Owner: "ops", Reason: "known"}
					}
					fs = append(fs, f)
				}
				if fs != nil {
					m = m.with(c, fs...)
				}
			}
			text.WriteString(m.line(t))
			if r.IntN(10) == 0 {
				text.WriteString("rubbish\n")
			}
		}
		f := merge(o, text.String())
		if o.Since = f; r.IntN(2) == 0 {
			o.From = "before"
			f = merge(o, text.String()[len(text.String())/2:])
		}
		b, err := report.FleetJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		back, err := fleet.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("round %d, memory %d: %v", round, o.Memory, err)
		}
		if diff := cmp.Diff(f, back); diff != "" {
			t.Fatalf("round %d (-written +read):\n%s", round, diff)
		}
	}
}

// A merge that contradicts itself is refused, however small the lie; nothing of
// it is ever better than what it says of its hosts.
func TestContradictions(t *testing.T) {
	b, err := report.FleetJSON(four(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.Decode(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		`"hosts":4,"failing":1 "hosts":4,"failing":0`:                                "its summary does not count its hosts",
		`"hosts":4,"failing":1,"incomplete":0 "hosts":4,"failing":-1,"incomplete":2`: "its summary does not count its hosts",
		`"hosts":4, "hosts":5,`:                         "its summary does not count its hosts",
		`"problems":1 "problems":0`:                     "its summary does not count its problems",
		`"problems":1 "problems":-1`:                    "its summary does not count its hosts",
		`"warning":0 "warning":-1`:                      "less than nothing",
		`"fail":1,"error":0 "fail":0,"error":1`:         `its check "link.speed" does not count its hosts`,
		`"n":2,"hosts":"n[1-2]" "n":3,"hosts":"n[1-2]"`: "its cluster 0 does not say what its hosts do",
		`"n":1,"hosts":"n3","verdict":"failing" "n":1,"hosts":"n3","verdict":"compliant"`:       "does not say what its hosts do",
		`"name":"n3","verdict":"failing","exit":1 "name":"n3","verdict":"compliant","exit":0`:   "its host n3 is compliant, and its checks say otherwise",
		`"name":"n3","verdict":"failing" "name":"n3","verdict":"pending"`:                       "its host n3 is pending, and its checks say otherwise",
		`"name":"n4","verdict":"pending" "name":"n4","verdict":"compliant"`:                     "its host n4 is compliant, and its checks say otherwise",
		`"name":"n1","verdict":"compliant","exit":0 "name":"n1","verdict":"compliant","exit":3`: "its host n1 is compliant, and its checks say otherwise",
		`"fail_on":"fail" "fail_on":"fail","fail_on":"warn"`:                                    `it has "fail_on" twice`,
		`"name":"n2" "name":"n1"`:                                         "it has the host n1 twice",
		`"name":"n2" "name":"n\u0000"`:                                    "has no name or verdict",
		`"check":"system.memory","title" "check":"link.speed","title"`:    `it has the check "link.speed" twice`,
		`"verdicts":"oo" "verdicts":"fo"`:                                 "its checks say otherwise",
		`"verdicts":"oo" "verdicts":"os"`:                                 "does not count its hosts",
		`"verdicts":"oo" "verdicts":"ox"`:                                 "has a verdict 'x'",
		`"more_hosts":0 "more_hosts":-1`:                                  "less than nothing",
		`"exit":1}, "exit":1}],`:                                          "invalid character",
		`"warning":0 "warning":3`:                                         "its summary does not count its hosts",
		`"lines":5 "lines":3`:                                             "its summary does not count its hosts",
		`"fail_on":"fail" "fail_on":"never"`:                              `fail from "never" on`,
		`"status":"fail","pending":false "status":"pass","pending":false`: `its check "link.speed" has a case that is "pass"`,
		`"status":"fail","pending":false "status":"gone","pending":false`: `its check "link.speed" has a case that is "gone"`,
		`"status":"fail","pending":false "status":"warn","pending":false`: `its check "link.speed" has fewer cases than hosts`,
		`"n":1,"hosts":"n3"} "n":2,"hosts":"n3"}`:                         `its check "link.speed" has a case that does not count its hosts`,
		`"n":1,"hosts":"n3"} "n":-1,"hosts":"n3"}`:                        `its check "link.speed" has a case that does not count its hosts`,
		`"more_cases":0 "more_cases":-1`:                                  "has a number of cases or a severity that none has",
		`"severity":"high" "severity":"dire"`:                             "has a number of cases or a severity that none has",
		`"changed":[] "changed":[{"before":"pass","after":"fail","n":1}]`: "of an earlier merge",
		`"since":null "since":{"hosts":-1}`:                               "of an earlier merge",
		`"n":1,"of":4 "n":5,"of":4`:                                       "its outlier 0 does not count its hosts",
		`"line":4 "line":-4`:                                              "less than nothing",
	} {
		old, now, _ := strings.Cut(change, ` "`)
		now = `"` + now
		text := strings.ReplaceAll(strings.ReplaceAll(string(b), `": "`, `":"`), `": `, `":`) // as if all stood in one line
		if !strings.Contains(text, old) {
			t.Errorf("the merge has no %s:\n%s", old, text)
			continue
		}
		_, err := fleet.Decode(strings.NewReader(strings.Replace(text, old, now, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s for %s: %v, want %q", now, old, err, want)
		}
	}
	for _, text := range []string{"", "[]", "7", `{"schema":"hostcheck.fleet/v1"`, string(b) + "{}", strings.Replace(string(b), "[", "{", 1)} {
		if _, err := fleet.Decode(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "no merge") {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	since := merge(fleet.Options{Since: four(t)}, passing("n3").line(t))
	if b, err = report.FleetJSON(since); err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(b), `"before":"fail"`, `"before":"\u001b[31m"`, 1)
	if _, err := fleet.Decode(strings.NewReader(forged)); forged == string(b) || err == nil || !strings.Contains(err.Error(), "a verdict that is not known") {
		t.Errorf("%v", err)
	}
	// a host of which nothing was judged
	f := merge(fleet.Options{}, passing("n1").with(speed).with(memory, check.Finding{Status: check.Skip}).line(t))
	if b, err = report.FleetJSON(f); err != nil || f.Summary.Incomplete != 1 {
		t.Fatal(err, f.Summary)
	}
	lie := strings.NewReplacer(`"verdict":"incomplete"`, `"verdict":"compliant"`, `"incomplete":1`, `"incomplete":0`, `"compliant":0`, `"compliant":1`, `"exit":3`, `"exit":0`).Replace(string(b))
	if _, err := fleet.Decode(strings.NewReader(lie)); err == nil || !strings.Contains(err.Error(), "its host n1 is compliant") {
		t.Errorf("%v", err)
	}
}

// What is told anew is as it was written.
func TestToldAnew(t *testing.T) {
	f := four(t)
	b, err := report.FleetJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(`"hosts":"n[1-2]"`, `"hosts":"n9"`, `"here":"fail"`, `"here":"pass"`, `"exit":1},`, `"exit":0},`).Replace(string(b))
	got, err := fleet.Decode(strings.NewReader(changed))
	if err != nil {
		t.Fatal(err)
	}
	f.Hosts[2].Exit = 0 // the last of these, of the host itself
	got.Hosts[2].Exit = 0
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

// To compare with, a merge is as good as the whole of it.
func TestEarlier(t *testing.T) {
	b, err := report.FleetJSON(four(t))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := fleet.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	slim, err := fleet.Earlier(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	now := passing("n1").with(speed, slow).line(t) + passing("n3").line(t) + passing("n5").line(t)
	if diff := cmp.Diff(merge(fleet.Options{Since: whole}, now), merge(fleet.Options{Since: slim}, now)); diff != "" {
		t.Errorf("(-whole +slim):\n%s", diff)
	}
}

// wide is a merge of n hosts, each a cluster of its own with the letters that
// verdicts gives, of as many checks; counts are of all checks alike.
func wide(n int, counts fleet.Counts, verdicts func(i int) string) string {
	f := fleet.Fleet{Schema: fleet.Schema, FailOn: "fail", Summary: fleet.Summary{Hosts: n, Failing: n, Lines: n}}
	for i := range n {
		f.Clusters = append(f.Clusters, fleet.Cluster{N: 1, Verdict: fleet.Failing, Verdicts: verdicts(i)})
		f.Hosts = append(f.Hosts, fleet.Host{Name: fmt.Sprint("n", i), Verdict: fleet.Failing, Exit: 1, Cluster: i})
	}
	for i := range len(verdicts(0)) {
		f.Checks = append(f.Checks, fleet.Check{ID: fmt.Sprint("c", i), Counts: counts, MoreCases: 1})
	}
	var b bytes.Buffer
	if err := f.WriteJSON(&b); err != nil {
		panic(err)
	}
	return b.String()
}

// Whatever a document says, it is refused before it takes much memory.
func TestMergeBombs(t *testing.T) {
	const n = 1_000_000
	all := func(letter string) string { return strings.Repeat(letter, 4000) }
	if _, err := fleet.Decode(strings.NewReader(wide(1000, fleet.Counts{Fail: 1000}, func(int) string { return all("f") }))); err != nil {
		t.Errorf("many clusters that are alike: %v", err)
	}
	differ := wide(1000, fleet.Counts{Fail: 1, Pass: 999}, func(i int) string { return all("fo"[min(i, 1) : min(i, 1)+1]) })
	if _, err := fleet.Earlier(strings.NewReader(differ)); err != nil {
		t.Errorf("to compare with: %v", err)
	}
	many := func(key, entry string) string {
		return `{"schema":"hostcheck.fleet/v1","` + key + `":[` + strings.Repeat(entry+",", n) + entry + "]}"
	}
	var labels strings.Builder
	for i := range 250_000 {
		fmt.Fprintf(&labels, `{"name":"n%d","verdict":"failing","labels":{"a":"%d"}},`, i, i)
	}
	for name, c := range map[string]struct{ text, whole, slim string }{
		"outliers": {many("outliers", "{}"), "more than 1000 entries", ""},
		"problems": {many("problems", "{}"), "more than 3010 entries", ""},
		"changed":  {many("changed", `{"before":"fail","after":"pass"}`), "more than 65536 entries", ""},
		"checks":   {many("checks", "{}"), "more than 8192 entries", ""},
		"clusters": {many("clusters", "{}"), "more memory than a merge may", ""},
		"cases":    {`{"schema":"hostcheck.fleet/v1","checks":[{"cases":[` + strings.Repeat("{},", n) + `{}]}]}`, "its entry 1 has too many parts", ""},
		"a case":   {`{"schema":"hostcheck.fleet/v1","checks":[{"cases":[` + strings.Repeat("{},", 50) + `{}]}]}`, "more than 50 cases", ""},
		"differs":  {`{"schema":"hostcheck.fleet/v1","clusters":[{"DIFFERS":[` + strings.Repeat("{},", n) + `{}]}]}`, "its entry 1 has too many parts", ""},
		"labels":   {`{"schema":"hostcheck.fleet/v1","hosts":[` + labels.String() + `{}]}`, "more memory than a merge may", ""},
		"long":     {`{"schema":"hostcheck.fleet/v1","more":"` + strings.Repeat("x", 2*fleet.MaxReport) + `"}`, "larger than 32 MiB", ""},
		"differ":   {differ, "more memory than a merge may", "none"},
	} {
		if c.slim == "" {
			c.slim = c.whole
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := fleet.Decode(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.whole) {
			t.Errorf("%s: %v, want %q", name, err, c.whole)
		}
		if _, err := fleet.Earlier(strings.NewReader(c.text)); c.slim != "none" && (err == nil || !strings.Contains(err.Error(), c.slim)) {
			t.Errorf("%s, to compare with: %v, want %q", name, err, c.slim)
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 700 {
			t.Errorf("%s, of %d MiB: %d MiB were allocated", name, len(c.text)>>20, used)
		}
	}
}
