// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

// hundred is the outliers of a fleet of 100 hosts, "n000" and on, ten in each
// of the racks "r0" and on; change makes hosts differ.
func hundred(t *testing.T, change func(i int, m *made)) *fleet.Fleet {
	t.Helper()
	var lines strings.Builder
	labels := map[string]map[string]string{}
	for i := range 100 {
		m := passing(fmt.Sprintf("n%03d", i))
		change(i, m)
		lines.WriteString(m.line(t))
		labels[m.host] = map[string]string{"rack": fmt.Sprintf("r%d", i/10)}
	}
	return merge(fleet.Options{Labels: labels}, lines.String())
}

// said is outliers in short.
func said(f *fleet.Fleet) []string {
	out := []string{}
	for _, o := range f.Outliers {
		s := fmt.Sprintf("%s %s %s: %q, usually %q: %s, %d of %d", o.Check, o.Subject, o.What, o.Value, o.Usual, o.Hosts, o.N, o.Of)
		if o.Group != "" {
			s += " in " + o.Group
		}
		if o.Norm != "" {
			s += " as all of " + o.Norm
		}
		if o.Also > 0 {
			s += fmt.Sprintf(" +%d", o.Also)
		}
		out = append(out, s)
	}
	return out
}

func TestOutliers(t *testing.T) {
	got := func(subject, got string) check.Finding {
		return check.Finding{Subject: subject, Status: check.Pass, Got: got, Evidence: []check.Evidence{{Source: "s", Value: "of " + got}}}
	}
	for name, c := range map[string]struct {
		change func(i int, m *made)
		want   []string
	}{
		"alike": {func(int, *made) {}, []string{}},
		"a status, with its value and evidence": {func(i int, m *made) {
			if i == 17 || i == 42 {
				m.with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G", Evidence: []check.Evidence{{Source: "/sys/class/net/eth0/speed", Value: "100000"}}})
			}
		}, []string{`link.speed eth0 status: "fail: 100G", usually "pass: 400G": n[017,042], 2 of 100 +2`}},
		"a value that passes": {func(i int, m *made) {
			if i == 17 {
				m.with(speed, got("eth0", "200G"))
			} else {
				m.with(speed, got("eth0", "400G"))
			}
		}, []string{`link.speed eth0 got: "200G", usually "400G": n017, 1 of 100 +1`}},
		"a check that is missing": {func(i int, m *made) {
			if i == 3 {
				delete(m.findings, speed)
			}
		}, []string{`link.speed eth0 status: "", usually "pass: 400G": n003, 1 of 100`}},
		"a device more": {func(i int, m *made) {
			if i == 3 {
				m.with(speed, m.findings[speed][0], got("eth1", "400G"))
			}
		}, []string{`link.speed eth1 status: "pass: 400G", usually "": n003, 1 of 100`}},
		"a kernel, amid an upgrade": {func(i int, m *made) {
			switch {
			case i == 77:
				m.kernel = "5.10.0"
			case i%3 == 0:
				m.kernel = "6.12.0"
			}
		}, []string{`  kernel: "5.10.0", usually "6.12.1": n077, 1 of 100`}},
		"what a rack has is said once, and who there has it not": {func(i int, m *made) {
			if i/10 == 4 && i != 45 {
				m.with(speed, got("eth0", "200G"))
			} else {
				m.with(speed, got("eth0", "400G"))
			}
		}, []string{
			`link.speed eth0 got: "400G", usually "200G": n045, 1 of 10 in rack=r4 +1`,
			`link.speed eth0 got: "200G", usually "400G": n[040-044,046-049], 9 of 100 as all of rack=r4 +1`,
		}},
		"racks differ, and one host is not as its rack": {func(i int, m *made) {
			v := fmt.Sprintf("firmware %d", i/10%3)
			if i == 52 {
				v = "firmware 0"
			}
			m.with(speed, got("eth0", v))
		}, []string{`link.speed eth0 got: "firmware 0", usually "firmware 2": n052, 1 of 10 in rack=r5 +1`}},
		// variety
		"a counter":           {func(i int, m *made) { m.with(speed, got("eth0", fmt.Sprint(i))) }, []string{}},
		"a counter, mostly 0": {func(i int, m *made) { m.with(speed, got("eth0", fmt.Sprint(max(0, i-91)))) }, []string{}},
		"sources that are made up": {func(i int, m *made) {
			m.with(speed, check.Finding{Subject: "eth0", Status: check.Pass, Got: "400G", Evidence: []check.Evidence{{Source: fmt.Sprintf("/proc/irq/%d", i/5), Value: fmt.Sprint(i % 5 / 4)}}})
		}, []string{}},
		"two values":              {func(i int, m *made) { m.with(speed, got("eth0", fmt.Sprint(i*7%10/6))) }, []string{}},
		"names that are made up":  {func(i int, m *made) { m.with(speed, got(fmt.Sprintf("veth%d", i), "10G")) }, []string{}},
		"three of four, one each": {func(i int, m *made) { m.with(speed, got("eth0", fmt.Sprint(i*7%4))) }, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			f := hundred(t, c.change)
			if diff := cmp.Diff(c.want, said(f)); diff != "" {
				t.Errorf("outliers (-want +got):\n%s", diff)
			}
			if f.Scattered < 1 { // /proc/meminfo, of which each host has its own
				t.Errorf("scattered %d", f.Scattered)
			}
		})
	}
}

// Few hosts are no majority.
func TestFewHosts(t *testing.T) {
	slow := check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}
	for n, want := range map[int]int{2: 0, 3: 0, 4: 1, 12: 1} {
		lines := passing("odd").with(speed, slow).line(t)
		for i := 1; i < n; i++ {
			lines += passing(fmt.Sprintf("n%d", i)).line(t)
		}
		if f := merge(fleet.Options{}, lines); len(f.Outliers) != want {
			t.Errorf("%d hosts: %q, want %d", n, said(f), want)
		}
	}
}
