// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// What nfd-worker reads, and what a label's name and value may be in Kubernetes.
var (
	nfdExpiry = regexp.MustCompile(`^# \+expiry-time=(\S+)$`)
	nfdLabel  = regexp.MustCompile(`^(hostcheck-[a-z0-9]+)=([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)$`)
)

// features reads a feature file strictly.
func features(t *testing.T, b []byte, until time.Time) map[string]string {
	t.Helper()
	all := map[string]string{}
	expiry := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if m := nfdExpiry.FindStringSubmatch(line); m != nil {
			at, err := time.Parse(time.RFC3339, m[1])
			if expiry = err == nil && at.Equal(until); !expiry {
				t.Errorf("%s: %v, want %v", line, err, until)
			}
			continue
		}
		m := nfdLabel.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "# "):
		case m == nil, !expiry, all[m[1]] != "":
			t.Errorf("%q: no label, one without an end, or given twice", line)
		default:
			all[m[1]] = m[2]
		}
	}
	if len(b) > 64<<10 || len(all) == 0 {
		t.Errorf("%d bytes, %d labels", len(b), len(all))
	}
	return all
}

func TestNFD(t *testing.T) {
	until := time.Date(2026, 11, 27, 12, 0, 0, 0, time.FixedZone("", 3600))
	pass := check.Finding{Status: check.Pass, Evidence: seen("/x", "1")}
	is := func(s check.Status) check.Finding { return check.Finding{Status: s, Why: "why"} }
	pending := check.Finding{Status: check.Fail, Pending: true}
	for name, tt := range map[string]struct {
		a, b   check.Finding
		signal int
		want   string // hostcheck-fit, hostcheck-a
	}{
		"fit":          {pass, is(check.Skip), 0, "true pass"},
		"warn":         {is(check.Warn), pass, 0, "true warn"},
		"unfit":        {pass, is(check.Fail), 0, "false fail"},
		"pending":      {pass, pending, 0, "after-reboot pending"},
		"most pending": {is(check.Unknown), pending, 0, "unknown unknown"},
		"nothing":      {is(check.Skip), is(check.Skip), 0, "unknown skip"},
		"unreadable":   {is(check.Unknown), pass, 0, "true unknown"},
		"most":         {is(check.Unknown), is(check.Warn), 0, "unknown warn"},
		"interrupted":  {pass, pass, 15, "unknown pass"},
	} {
		rs := []check.Result{{Check: &check.Check{ID: "a.it"}, Findings: []check.Finding{tt.a}}, {Check: &check.Check{ID: "a.other"}, Findings: []check.Finding{tt.b}}}
		r := report.New(report.Input{Results: rs, FailOn: check.Fail, Signal: tt.signal, Profile: report.Profile{Hash: strings.Repeat("0f", 32), Intent: "guest"}})
		got := features(t, report.NFD(r, until), until)
		if s := got["hostcheck-fit"] + " " + got["hostcheck-a"]; s != tt.want || got["hostcheck-profile"] != "0f0f0f0f0f0f" || got["hostcheck-intent"] != "guest" {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
	if got := features(t, report.NFDUnjudged(until), until); len(got) != 1 || got["hostcheck-fit"] != "unknown" {
		t.Errorf("not judged: %v", got)
	}
	r := report.New(report.Input{Results: []check.Result{{Check: &check.Check{ID: "a.it"}, Findings: []check.Finding{pass}}}, Profile: report.Profile{Intent: "-\nü=" + strings.Repeat("x y", 100) + "."}})
	if got := features(t, report.NFD(r, until), until)["hostcheck-intent"]; got == "" {
		t.Error("a long name left no label")
	}
}
