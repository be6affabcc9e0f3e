// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

// crowd is a report of n checks that nobody else has.
func crowd(host string, n, pass int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"schema":"hostcheck.report/v1","tool":{},"host":{"name":%q},"profile":{},"summary":{"pass":%d,"exit":0},"findings":[`, host, pass)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"check":"%s.c%d","status":"pass","got":"%d"}`, host, i, i)
	}
	b.WriteString("]}\n")
	return b.String()
}

// However many checks others invent, reports of the checks that are known, and
// after broken ones those of any, are judged.
func TestInventedChecks(t *testing.T) {
	fail := passing("n1").with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}).line(t)
	var broken, whole strings.Builder
	for i := range 5 {
		broken.WriteString(crowd(fmt.Sprintf("evil%d", i), 1024, 1))
		whole.WriteString(crowd(fmt.Sprintf("evil%d", i), 1024, 1024))
	}
	f := merge(fleet.Options{}, broken.String()+broken.String()+fail+passing("n2").line(t)+crowd("evil0", 1024, 1)+passing("n2").line(t))
	if v := verdicts(f); len(v) != 2 || v["n1"] != fleet.Failing || v["n2"] != fleet.Compliant || f.Summary.Problems != 11 || len(f.Checks) != 2 {
		t.Errorf("after broken reports: hosts %v, %d problems, %d checks", v, f.Summary.Problems, len(f.Checks))
	}
	f = merge(fleet.Options{Checks: []string{speed.ID, memory.ID}}, whole.String()+fail+passing("n2").line(t))
	if v := verdicts(f); len(v) != 6 || v["n1"] != fleet.Failing || v["n2"] != fleet.Compliant || f.Summary.Problems != 1 || f.Problems[0].Host != "evil4" {
		t.Errorf("after whole reports: hosts %v, problems %.300q", v, whys(f))
	}
}

// Broken reports take no memory from others.
func TestBrokenMemory(t *testing.T) {
	m := fleet.New(fleet.Options{Memory: 100_000})
	for i := range 40 {
		m.Read("broken", strings.NewReader(crowd(fmt.Sprintf("evil%d", i), 200, 1)))
	}
	m.Read("whole", strings.NewReader(passing("n1").line(t)))
	if f := m.Fleet(); len(f.Hosts) != 1 || f.MoreHosts != 0 || len(f.Problems) != 40 {
		t.Errorf("%d hosts and %d more, %d problems", len(f.Hosts), f.MoreHosts, len(f.Problems))
	}
}

// The time that evidence takes grows with its length alone.
func TestManyEvidence(t *testing.T) {
	const n = 400_000
	list := strings.Repeat("{},", n) + strings.Repeat(`{"source":"a"},`, n) + `{"source":"b"}`
	line := strings.Replace(passing("n1").line(t), `"evidence":[`, `"evidence":[`+list+`,`, 1)
	start := time.Now()
	f := merge(fleet.Options{}, line)
	if took := time.Since(start); len(f.Hosts) != 1 || took > 20*time.Second {
		t.Errorf("%d hosts after %s: %.200q", len(f.Hosts), took, whys(f))
	}
}

// A host with thousands of values for one thing hides nobody else's odd one.
func TestManyValuesOfOne(t *testing.T) {
	var lines []string
	for i := range 100 {
		m := passing(fmt.Sprintf("n%03d", i))
		if i == 7 {
			m.with(speed, check.Finding{Subject: "eth0", Status: check.Pass, Got: "200G"})
		}
		lines = append(lines, m.line(t))
	}
	var many []check.Finding
	for i := range 2100 {
		many = append(many, check.Finding{Subject: "eth0", Status: check.Pass, Got: fmt.Sprint(i)})
	}
	evil := passing("evil").with(speed, many...).line(t)
	for _, order := range [][]string{append([]string{evil}, lines...), append(lines[:50:50], append([]string{evil}, lines[50:]...)...)} {
		f := merge(fleet.Options{}, strings.Join(order, ""))
		if !slices.ContainsFunc(f.Outliers, func(o fleet.Outlier) bool { return o.Hosts == "n007" && strings.Contains(o.Value, "200G") }) {
			t.Errorf("outliers %+v, %d scattered", f.Outliers, f.Scattered)
		}
	}
}
