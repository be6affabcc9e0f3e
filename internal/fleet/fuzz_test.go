// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Whatever stands before a whole report, that one is read and judged by itself,
// and the counts agree with each other.
func FuzzRead(f *testing.F) {
	good := passing("n1").line(f)
	indented, err := report.JSON(passing("n2").report())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"", "{", "{\n", good, good[:300], good + "{\n" + good, string(indented), string(indented[:400]), "[" + good + "]",
		strings.Replace(good, "pass", "fail", 1), strings.Replace(good, `"n1"`, `"mine"`, 1), "\x1f\x8b\x08", `{"schema":"hostcheck.report/v1"}`,
	} {
		f.Add([]byte(s))
	}
	mine := passing("mine")
	mine.at = "9999-01-01T00:00:00Z" // newer than what the fuzzer makes up
	mine.with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "slow"})
	last := mine.line(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := fleet.New(fleet.Options{Memory: 1 << 20})
		packed := bytes.HasPrefix(b, []byte("\x1f\x8b"))
		if packed {
			m.Read("packed", bytes.NewReader(b))
			b = nil
		}
		m.Read("f", strings.NewReader(string(b)+"\n"+last))
		got := m.Fleet()
		s := got.Summary
		if s.Hosts != s.Failing+s.Incomplete+s.Pending+s.Compliant || s.Hosts != len(got.Hosts)+got.MoreHosts {
			t.Errorf("the summary does not add up: %+v with %d and %d hosts", s, len(got.Hosts), got.MoreHosts)
		}
		found := false
		for _, h := range got.Hosts {
			found = found || h.Name == "mine" && h.Verdict == fleet.Failing
		}
		if !found || s.Exit != report.ExitFindings {
			t.Errorf("the whole report at the end is lost: %+v, %q", s, whys(got))
		}
		for _, c := range got.Clusters {
			if len(c.Verdicts) != len(got.Checks) || len(fleet.Unfold(c.Hosts)) != c.N {
				t.Errorf("cluster %+v of %d checks", c, len(got.Checks))
			}
		}
		out, err := report.FleetJSON(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Decode(bytes.NewReader(out)); err != nil {
			t.Errorf("what was written cannot be read back: %v", err)
		}
		_ = report.Text{Verbose: true}.Fleet(got)
	})
}

// A merge that is read is one that every view of it can go through.
func FuzzDecode(f *testing.F) {
	m := merge(fleet.Options{}, passing("n1").line(f)+passing("n2").with(speed, check.Finding{Status: check.Fail, Got: "x"}).line(f)+"rubbish\n")
	b, err := report.FleetJSON(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"hostcheck.fleet/v1"}`))
	now := passing("n1").line(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := fleet.Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		_ = report.Text{}.Fleet(got)
		_ = merge(fleet.Options{Since: got}, now)
		if _, err := report.FleetJSON(got); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzReadLabels(f *testing.F) {
	f.Add("n[01-16] rack=r1 row=2\n# a comment\nlogin rack=r1\n")
	f.Add("n[1-99999999999] a=b")
	f.Add("n[3-1,2]x[4] a=b c")
	f.Fuzz(func(t *testing.T, s string) {
		labels, err := fleet.ReadLabels(strings.NewReader(s))
		if err != nil {
			return
		}
		for host, l := range labels {
			if host == "" || len(l) == 0 || strings.ContainsAny(host, "[], \n") {
				t.Errorf("labels %v of the host %q", l, host)
			}
		}
	})
}
