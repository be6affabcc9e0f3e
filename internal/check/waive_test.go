// SPDX-License-Identifier: Apache-2.0

package check

import (
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/profile"
)

func TestWaive(t *testing.T) {
	now := time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)
	until := func(check, subject, day string) profile.Waiver {
		return profile.Waiver{Check: check, Subject: subject, Until: day, Owner: "net", Reason: "cable"}
	}
	waivers := []profile.Waiver{
		until("a.old", "", "2027-01-14"), until("a.old", "eth1", "2027-01-15"),
		until("a.strict", "", "2027-02-01"), until("a.site", "", "2027-02-01"), until("a.all", "", "2027-02-01"),
	}
	const ended = "the waiver of net (cable) ended with 2027-01-14"
	for _, tc := range []struct {
		name   string
		check  Check
		f      Finding
		waived bool
		next   string
	}{
		{"fail", Check{ID: "a.all"}, Finding{Status: Fail}, true, ""},
		{"warn", Check{ID: "a.all"}, Finding{Status: Warn, Subject: "eth9"}, true, ""},
		{"pass", Check{ID: "a.all"}, Finding{Status: Pass}, false, ""},
		{"skip", Check{ID: "a.all"}, Finding{Status: Skip}, false, ""},
		{"not known is nothing to live with", Check{ID: "a.all"}, Finding{Status: Unknown}, false, ""},
		{"error", Check{ID: "a.all"}, Finding{Status: Error}, false, ""},
		{"pending", Check{ID: "a.all"}, Finding{Status: Fail, Pending: true}, false, ""},
		{"expired", Check{ID: "a.old"}, Finding{Status: Fail, Subject: "eth0"}, false, ended},
		{"expired, and a next step", Check{ID: "a.old"}, Finding{Status: Fail, Next: "fix it"}, false, "fix it; " + ended},
		{"another one holds", Check{ID: "a.old"}, Finding{Status: Fail, Subject: "eth1"}, true, ""},
		{"strict check", Check{ID: "a.strict", Strict: true}, Finding{Status: Fail}, false, ""},
		{"strict for the profile", Check{ID: "a.site"}, Finding{Status: Fail}, false, ""},
		{"nobody waived it", Check{ID: "a.other"}, Finding{Status: Fail}, false, ""},
	} {
		rs := []Result{{&tc.check, []Finding{tc.f}}}
		Waive(rs, waivers, now, func(id string) bool { return id == "a.site" })
		if got := rs[0].Findings[0]; (got.Waiver != nil) != tc.waived || got.Next != tc.next || got.Status != tc.f.Status {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}
