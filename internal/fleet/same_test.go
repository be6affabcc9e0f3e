// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

var slow = check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}

// A report that came from one host and is of another counts for neither.
func TestLabels(t *testing.T) {
	failing := passing("n01").with(speed, slow).line(t)
	for label, ok := range map[string]bool{
		"n01": true, "N01": true, "n01.example.org": true, "10.0.0.1": true, "fe80::1": true, "7": true, "localhost": true,
		"n99": false, "n0": false, "n011": false, "n01-mgmt": false, "n02.n01": false,
	} {
		green := passing("n01")
		green.at = "2026-11-02T09:00:00Z"
		f := merge(fleet.Options{}, failing+label+": "+green.line(t))
		switch {
		case ok && (verdicts(f)["n01"] != fleet.Compliant || f.Summary.Problems != 0 || f.Summary.Repeated != 1):
			t.Errorf("%s: %v, problems %q", label, verdicts(f), whys(f))
		case !ok && (verdicts(f)["n01"] != fleet.Failing || f.Summary.Problems != 1 || !strings.Contains(f.Problems[0].Why, "it came from "+label+" and says that it is of n01")):
			t.Errorf("%s: %v, problems %q", label, verdicts(f), whys(f))
		}
	}
	// nor is it several hosts, which would make the fleet larger than it is
	many := ""
	for _, name := range []string{"n01", "N01", "n01.a", "n01.b", "n01"} {
		many += "n01: " + passing(name).line(t)
	}
	if f := merge(fleet.Options{}, many); len(f.Hosts) != 1 || f.Summary.Problems != 3 || !strings.Contains(f.Problems[0].Why, "it came from n01, which called itself n01 before, and says that it is of N01") {
		t.Errorf("%v, problems %q", verdicts(f), whys(f))
	}
	full := passing("n01.a.example")
	for label, problems := range map[string]int{"n01": 0, "n01.a.example": 0, "n01.b.example": 1, "n01.a": 1} {
		if f := merge(fleet.Options{}, label+": "+full.line(t)); f.Summary.Problems != problems {
			t.Errorf("%s: problems %q", label, whys(f))
		}
	}
}

// A time to come makes no report the newest, and is a problem.
func TestTimeToCome(t *testing.T) {
	now := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	failing, green := passing("n1").with(speed, slow), passing("n1")
	for at, problems := range map[string]int{"2026-11-02T12:04:00Z": 0, "2026-11-02T12:06:00Z": 2, "2099-01-01T00:00:00Z": 2} {
		green.at = at
		for _, lines := range []string{failing.line(t) + green.line(t), green.line(t) + failing.line(t)} {
			f := merge(fleet.Options{Now: now}, lines)
			want := fleet.Compliant
			if problems > 0 {
				want = fleet.Failing
			}
			if verdicts(f)["n1"] != want || f.Summary.Problems != problems {
				t.Errorf("%s: %v, problems %q", at, verdicts(f), whys(f))
			}
		}
	}
	// by itself it says what it says, and the merge is no whole one
	green.at = "2099-01-01T00:00:00Z"
	f := merge(fleet.Options{Now: now}, green.line(t))
	if verdicts(f)["n1"] != fleet.Compliant || f.Summary.Exit != 3 || !strings.Contains(f.Problems[0].Why, "which is to come: set the clock") {
		t.Errorf("%v, exit %d, problems %q", verdicts(f), f.Summary.Exit, whys(f))
	}
}

// Which of several reports of a host counts, and what is in doubt.
func TestSeveral(t *testing.T) {
	report := func(text string) string { // "TIME BOOT VERDICT"
		w := strings.Fields(text)
		m := passing("n1")
		m.boot = w[1]
		m.at = ""
		if w[0] != "never" {
			m.at = "2026-11-02T08:" + w[0] + "Z"
		}
		switch w[2] {
		case "fail":
			m.with(speed, slow)
		case "fail2":
			m.with(speed, slow, check.Finding{Subject: "eth1", Status: check.Fail, Got: "10G"})
		case "other":
			m.with(speed, check.Finding{Subject: "eth0", Status: check.Pass, Got: "800G"})
		}
		return m.line(t)
	}
	for _, c := range []struct {
		reports []string
		want    string
		doubt   string
	}{
		{[]string{"00:00 a fail", "01:00 a pass"}, fleet.Compliant, ""},
		{[]string{"00:00 a fail", "01:00 b pass"}, fleet.Compliant, ""},
		{[]string{"00:00 a pass", "00:00 a pass", "00:00 a pass"}, fleet.Compliant, ""},
		{[]string{"00:00 a pass", "00:00 a fail"}, fleet.Failing, "sampled at the same time, says something else"},
		{[]string{"00:00 a pass", "00:00 a other", "00:00 a pass"}, fleet.Compliant, "sampled at the same time, says something else"},
		{[]string{"00:00 a pass", "00:00 a fail", "01:00 a pass"}, fleet.Compliant, ""},
		{[]string{"00:00 a pass", "00:00 b pass"}, fleet.Compliant, "two hosts have this name"},
		{[]string{"00:00 a fail", "00:00 b pass", "01:00 a pass"}, fleet.Compliant, "two hosts have this name"},
		{[]string{"00:00 a fail", "00:05 b pass"}, fleet.Failing, "two hosts have this name"},
		{[]string{"00:00 a pass", "01:00 b fail", "02:00 a pass"}, fleet.Failing, "two hosts have this name"},
		{[]string{"00:00 a pass", "00:20 b fail2", "00:40 c fail", "01:00 d pass"}, fleet.Compliant, ""},
		{[]string{"00:00 00000000-0000-4000-8000-000000000002 fail", "01:00 00000000-0000-4000-8000-000000000002 pass"}, fleet.Failing, "redacted bundles, whose hosts all have this name"},
		{[]string{"00:00 00000000-0000-4000-8000-000000000002 pass", "01:00 00000000-0000-4000-8000-000000000001 fail", "02:00 00000000-0000-4000-8000-000000000001 pass"}, fleet.Failing, "redacted bundles, whose hosts all have this name"},
		{[]string{"00:00 00000000-0000-4000-8000-000000000002 fail", "00:00 00000000-0000-4000-8000-000000000002 fail"}, fleet.Failing, ""},
		{[]string{"never a fail", "00:00 a pass"}, fleet.Failing, "nobody knows which is newer"},
		{[]string{"never a pass", "00:00 a fail"}, fleet.Failing, "nobody knows which is newer"},
		{[]string{"never a pass", "00:00 a pass"}, fleet.Compliant, ""},
		{[]string{"never b pass", "00:00 a pass"}, fleet.Compliant, "nobody knows which is newer"},
		{[]string{"never a pass", "never a pass"}, fleet.Compliant, ""},
		{[]string{"never a pass", "never a fail", "never a pass"}, fleet.Failing, "do not say when they were sampled, and differ"},
		{[]string{"never a pass", "never b pass"}, fleet.Compliant, "do not say when they were sampled, and differ"},
	} {
		var first *fleet.Fleet
		for order := range permutations(len(c.reports)) {
			lines := passing("n0").line(t)
			for _, i := range order {
				lines += report(c.reports[i])
			}
			f := merge(fleet.Options{}, lines+passing("n2").line(t))
			doubts := []string{}
			for _, p := range f.Problems {
				if p.Lost {
					doubts = append(doubts, p.Why)
				}
			}
			if verdicts(f)["n1"] != c.want || len(doubts) > 1 || (c.doubt == "") != (len(doubts) == 0) || !strings.Contains(strings.Join(doubts, ""), c.doubt) {
				t.Errorf("%q in order %v: %v, doubts %q", c.reports, order, verdicts(f), doubts)
			}
			if first == nil {
				first = f
			}
			if diff := cmp.Diff(first, f, cmpopts.IgnoreFields(fleet.Fleet{}, "Problems")); diff != "" {
				t.Errorf("%q in order %v (-first +this):\n%s", c.reports, order, diff)
			}
		}
	}
}

// permutations gives every order of n things.
func permutations(n int) func(func([]int) bool) {
	return func(yield func([]int) bool) {
		var rec func(head, rest []int) bool
		rec = func(head, rest []int) bool {
			if len(rest) == 0 {
				return yield(head)
			}
			for i := range rest {
				next := append(append([]int{}, rest[:i]...), rest[i+1:]...)
				if !rec(append(head[:len(head):len(head)], rest[i]), next) {
					return false
				}
			}
			return true
		}
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		rec(nil, all)
	}
}

// Whatever the reports, the order in which they are read does not matter: not
// for the verdicts, nor for how many are in doubt.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		var lines []string
		for range 2 + r.IntN(12) {
			m := passing(fmt.Sprintf("n%d", r.IntN(3)))
			m.boot = fmt.Sprintf("b%d", r.IntN(3))
			m.at = fmt.Sprintf("2026-11-02T08:0%d:00Z", r.IntN(4))
			switch r.IntN(6) {
			case 0:
				m.with(speed, slow)
			case 1:
				m.at = ""
			case 2:
				m.at = "2099-01-01T00:00:00Z"
			case 3:
				m.with(memory, check.Finding{Status: check.Fail, Pending: true})
			}
			lines = append(lines, m.line(t))
		}
		var first *fleet.Fleet
		for range 8 {
			r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			f := merge(fleet.Options{Now: time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)}, strings.Join(lines, ""))
			if first == nil {
				first = f
			}
			if diff := cmp.Diff(first, f, cmpopts.IgnoreFields(fleet.Fleet{}, "Problems"), cmpopts.IgnoreFields(fleet.Case{}, "Next")); diff != "" {
				t.Fatalf("(-one order +another):\n%s\n%s", diff, strings.Join(lines, ""))
			}
		}
	}
}

// A name that very many boots have is in doubt, and no memory is spent on them.
func TestManyBoots(t *testing.T) {
	var lines strings.Builder
	for i := range 500 {
		m := passing("localhost")
		m.boot = fmt.Sprint("boot", i)
		m.at = time.Date(2026, 11, 2, 8, i, 0, 0, time.UTC).Format(time.RFC3339)
		if i == 400 {
			m.with(speed, slow)
		}
		lines.WriteString(m.line(t))
	}
	f := merge(fleet.Options{}, lines.String())
	if v := verdicts(f); v["localhost"] != fleet.Failing || f.Summary.Problems != 1 || !strings.Contains(f.Problems[0].Why, "several hosts may have this name") || f.Summary.Repeated != 499 {
		t.Errorf("%v, %+v, problems %.300q", v, f.Summary, whys(f))
	}
	all := strings.SplitAfter(lines.String(), "\n")
	for _, order := range [][]string{append(all[400:500:500], all[:400]...), append(all[401:500:500], all[:401]...)} {
		if f := merge(fleet.Options{}, strings.Join(order, "")); verdicts(f)["localhost"] != fleet.Failing || f.Summary.Problems != 1 {
			t.Errorf("in another order: %v, %+v", verdicts(f), f.Summary)
		}
	}
	// whatever the memory, the worst of all counts
	kept := 0
	for memory := 200; memory < 6000; memory += 100 {
		f := merge(fleet.Options{Memory: memory}, passing("n1").line(t)+passing("n1").line(t)+passing("n1").with(speed, slow).line(t)+passing("n1").line(t))
		if f.Summary.Exit != 1 || len(f.Hosts) > 0 && f.Hosts[0].Verdict != fleet.Failing {
			t.Errorf("%d bytes: exit %d, %v, problems %q", memory, f.Summary.Exit, verdicts(f), whys(f))
		}
		kept += len(f.Hosts)
	}
	if kept == 0 {
		t.Error("no host was kept")
	}
}

// A report that was made to have the CRC of another one is not taken for it.
func TestForgedSum(t *testing.T) {
	fails := strings.TrimSuffix(passing("n1").with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}).line(t), "\n")
	forged := []byte(strings.TrimSuffix(passing("n1").line(t), "}\n") + `,"x":"` + strings.Repeat("a", 64) + `"}`)
	at := len(forged) - 2 - 64
	// each "c" for an "a" changes the sum by what it does alone: solve for those that make the difference
	zero := crc32.ChecksumIEEE(forged)
	type row struct {
		sum uint32
		set uint64
	}
	var rows []row
	reduce := func(r row) row {
		for _, have := range rows {
			if r.sum^have.sum < r.sum {
				r = row{r.sum ^ have.sum, r.set ^ have.set}
			}
		}
		return r
	}
	for i := range 64 {
		forged[at+i] = 'c'
		if r := reduce(row{crc32.ChecksumIEEE(forged) ^ zero, 1 << i}); r.sum != 0 {
			rows = append(rows, r)
			slices.SortFunc(rows, func(a, b row) int { return int(b.sum) - int(a.sum) })
		}
		forged[at+i] = 'a'
	}
	for i, set := 0, reduce(row{crc32.ChecksumIEEE([]byte(fails)) ^ zero, 0}).set; i < 64; i++ {
		if set&(1<<i) != 0 {
			forged[at+i] = 'c'
		}
	}
	if crc32.ChecksumIEEE(forged) != crc32.ChecksumIEEE([]byte(fails)) {
		t.Fatal("the sums differ")
	}
	for _, text := range []string{fails + "\n" + string(forged) + "\n", string(forged) + "\n" + fails + "\n"} {
		if f := merge(fleet.Options{}, text); verdicts(f)["n1"] != fleet.Failing || f.Summary.Problems != 1 {
			t.Errorf("%v, problems %q", verdicts(f), whys(f))
		}
	}
}
