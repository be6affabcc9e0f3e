// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/hostcheck/hostcheck/internal/profile"
)

// Waive marks the findings that somebody decided to live with: failures and
// warnings that a waiver covers. One whose last day has passed at the time now
// covers nothing any more, and its finding says so; a finding that is right
// after the next boot needs none. Strict tells the checks beside those that
// are strict themselves; nil: none.
func Waive(results []Result, waivers []profile.Waiver, now time.Time, strict func(id string) bool) {
	for _, r := range results {
		if r.Check.Strict || strict != nil && strict(r.Check.ID) {
			continue
		}
		for i := range r.Findings {
			f := &r.Findings[i]
			if f.Status != Fail && f.Status != Warn || f.Pending {
				continue
			}
			var ended *profile.Waiver
			for j := range waivers {
				w := &waivers[j]
				switch {
				case !w.Covers(r.Check.ID, f.Subject):
				case !w.Expired(now):
					if f.Waiver == nil {
						f.Waiver = w
					}
				case ended == nil || w.Until > ended.Until:
					ended = w
				}
			}
			if f.Waiver == nil && ended != nil {
				if f.Next != "" {
					f.Next += "; "
				}
				f.Next += fmt.Sprintf("the waiver of %s (%s) ended with %s", ended.Owner, ended.Reason, ended.Until)
			}
		}
	}
}
