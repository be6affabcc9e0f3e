// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

// AnsibleFactSchema names the format of [AnsibleFact].
const AnsibleFactSchema = "hostcheck.fact/v1"

// AnsibleFact is a report in a few words: what "hostcheck ansible fact" writes
// for /etc/ansible/facts.d.
type AnsibleFact struct {
	Schema  string   `json:"schema" doc:"name and version of this format"`
	Version string   `json:"version" doc:"of hostcheck"`
	Fit     bool     `json:"fit" doc:"exit is 0: all was judged that must be, nothing fails, and nothing waits for a reboot"`
	Verdict string   `json:"verdict" doc:"exit in words"`
	Exit    int      `json:"exit" doc:"exit code of a check run"`
	Reboot  bool     `json:"reboot_required" doc:"something counts from the next boot on"`
	Error   string   `json:"error" doc:"why nothing was judged"`
	At      *string  `json:"captured_at" doc:"when the host was sampled, RFC 3339"`
	Intent  string   `json:"intent" doc:"what the host is for"`
	Layers  []string `json:"layers" doc:"of the profile, in the order of merging"`
	Summary Summary  `json:"summary"`
	Fail    []string `json:"fail" doc:"IDs of the checks that fail"`
	Warn    []string `json:"warn" doc:"IDs of the checks that warn"`
	Unknown []string `json:"unknown" doc:"IDs of the checks that could not be judged"`
}

// NewAnsibleFact makes the fact of a judged host.
func NewAnsibleFact(r *Report) AnsibleFact {
	f := AnsibleFactFailed(r.Tool, r.Summary.Exit, "")
	f.Fit, f.Reboot = r.Summary.Exit == ExitOK, r.Summary.Pending > 0
	f.At, f.Intent, f.Layers, f.Summary = r.Host.CapturedAt, r.Profile.Intent, r.Profile.Layers, r.Summary
	for i := range r.Findings {
		x := &r.Findings[i]
		to := &f.Unknown
		switch {
		case x.Pending, x.Waiver != nil:
			continue
		case x.Status == check.Fail:
			to = &f.Fail
		case x.Status == check.Warn:
			to = &f.Warn
		case !x.open():
			continue
		}
		if !slices.Contains(*to, x.Check) {
			*to = append(*to, x.Check)
		}
	}
	return f
}

// AnsibleFactFailed is the fact where nothing was judged, and why.
func AnsibleFactFailed(t Tool, exit int, why string) AnsibleFact {
	return AnsibleFact{
		Schema: AnsibleFactSchema, Version: t.Version, Verdict: Meaning(exit), Exit: exit, Error: Clean(why),
		Layers: []string{}, Fail: []string{}, Warn: []string{}, Unknown: []string{},
	}
}
