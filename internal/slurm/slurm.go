// SPDX-License-Identifier: Apache-2.0

// Package slurm tells Slurm what hostcheck found: whether a node shall be
// drained or resumed, and whether a job may start on it. It judges nothing
// itself, and asks nothing of Slurm while a host is being judged.
package slurm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
)

// VerdictSchema names the format of [Verdict].
const VerdictSchema = "hostcheck.verdict/v1"

// Verdict is what "hostcheck slurm health" made of the host, as its file keeps
// it for prologs and epilogs.
type Verdict struct {
	Schema   string         `json:"schema" doc:"name and version of this format"`
	Version  string         `json:"version" doc:"of the hostcheck that judged"`
	Node     string         `json:"node" doc:"name of the node in slurm.conf"`
	BootID   string         `json:"boot_id" doc:"the boot in which the host was judged: a verdict of another boot counts as none"`
	Uptime   float64        `json:"uptime_s" doc:"seconds from that boot until the host was judged, by CLOCK_BOOTTIME: its age does not depend on the time of day"`
	JudgedAt string         `json:"judged_at" doc:"RFC 3339, for people"`
	Profile  string         `json:"profile_hash" doc:"of the merged profile; empty where there is none"`
	DrainOn  check.Severity `json:"drain_on" enum:"low,medium,high" doc:"the lowest severity whose failures make the host unfit"`
	Outcome  Outcome        `json:"verdict" enum:"fit,unfit,unknown"`
	Why      string         `json:"why" doc:"the first failure, or why nothing is known; empty where the host is fit"`
	Failed   []string       `json:"failed" doc:"IDs of the checks that make it unfit"`
	Open     []string       `json:"open" doc:"IDs of the checks of that severity, and of those that the profile requires, that could not be judged"`
	Held     []string       `json:"held" doc:"IDs of the checks that were judged and do not make it unfit"`
	Counts   Counts         `json:"counts"`
	Told     bool           `json:"told" doc:"there is nothing left to tell Slurm about this verdict"`
}

// Outcome is the verdict in a word.
type Outcome string

// The outcomes. Unknown is never taken for either of the others.
const (
	Fit     Outcome = "fit"
	Unfit   Outcome = "unfit"
	Unknown Outcome = "unknown"
)

func (o Outcome) String() string {
	if o == Unfit {
		return "not fit"
	}
	return string(o)
}

// Counts are findings that count, by status.
type Counts struct {
	Pass    int `json:"pass"`
	Warn    int `json:"warn"`
	Fail    int `json:"fail"`
	Unknown int `json:"unknown" doc:"or in error"`
}

// Severities are those that may drain a node, the least first.
var Severities = []check.Severity{check.Low, check.Medium, check.High}

// Judge says what the results of a run mean for Slurm: failures of severity
// drainOn or above make the host unfit; a required check that could not be
// judged, or none that could, make it unknown. Warnings never do anything.
func Judge(results []check.Result, drainOn check.Severity, required func(id string) bool) Verdict {
	v := Verdict{Schema: VerdictSchema, DrainOn: drainOn, Outcome: Fit, Failed: []string{}, Open: []string{}, Held: []string{}}
	incomplete := ""
	for _, r := range results {
		grave := slices.Index(Severities, r.Check.Severity) >= slices.Index(Severities, drainOn)
		failed, open, judged := false, false, false
		for i := range r.Findings {
			f := &r.Findings[i]
			switch {
			case f.Waiver != nil, f.Pending && (f.Status == check.Fail || f.Status == check.Warn):
				judged = true
			case f.Status == check.Pass:
				v.Counts.Pass++
				judged = true
			case f.Status == check.Warn:
				v.Counts.Warn++
				judged = true
			case f.Status == check.Fail:
				v.Counts.Fail++
				judged = true
				if grave && !failed {
					failed = true
					v.Why = cmp.Or(v.Why, say(f))
				}
			case f.Status == check.Unknown || f.Status == check.Error:
				v.Counts.Unknown++
				open = true
				if required != nil && required(r.Check.ID) {
					incomplete = cmp.Or(incomplete, say(f))
				}
			}
		}
		id := r.Check.ID
		switch {
		case failed:
			v.Failed = append(v.Failed, id)
		case open && (grave || required != nil && required(id)):
			v.Open = append(v.Open, id)
		case judged && !open:
			v.Held = append(v.Held, id)
		}
	}
	switch {
	case len(v.Failed) > 0:
		v.Outcome = Unfit
	case incomplete != "":
		v.Outcome, v.Why = Unknown, "cannot judge what the profile requires: "+incomplete
	case v.Counts.Pass+v.Counts.Warn+v.Counts.Fail == 0:
		v.Outcome, v.Why = Unknown, "nothing could be judged"
	case check.Hardly(v.Counts.Pass, v.Counts.Unknown):
		v.Outcome, v.Why = Unknown, "more could not be judged than passes"
	}
	return v
}

// NotJudged is the verdict where the run itself failed.
func NotJudged(drainOn check.Severity, err error) Verdict {
	v := Judge(nil, drainOn, nil)
	v.Why = err.Error()
	return v
}

// say is a finding on a line: "link.speed 0000:1a:00.0: 100 Gb/s, want 400 Gb/s".
func say(f *check.Finding) string {
	var b strings.Builder
	b.WriteString(f.Check)
	if f.Subject != "" {
		b.WriteString(" " + f.Subject)
	}
	switch {
	case f.Status == check.Fail && f.Got != "":
		b.WriteString(": " + f.Got)
		if f.Want != "" {
			b.WriteString(", want " + f.Want)
		}
	case f.Why != "":
		b.WriteString(": " + f.Why)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// Line is the verdict for a person.
func (v *Verdict) Line() string {
	counts := fmt.Sprintf("%d pass, %d warn, %d fail, %d unknown", v.Counts.Pass, v.Counts.Warn, v.Counts.Fail, v.Counts.Unknown)
	if v.Why == "" {
		return fmt.Sprintf("%s (%s)", v.Outcome, counts)
	}
	return fmt.Sprintf("%s (%s): %s", v.Outcome, counts, v.Why)
}

// prefix starts every reason that hostcheck gives: what has none is not ours.
const prefix = "hostcheck: "

// Reasons are shown in tables and travel through shells.
const (
	maxReason    = 200
	maxReasonIDs = 120
)

// Reason is what a node is drained with: "hostcheck: link.speed pcie.mps +2:
// link.speed 0000:1a:00.0: 100 Gb/s, want 400 Gb/s". Which checks failed comes
// first, because sinfo -R shows the first 20 characters.
func (v *Verdict) Reason() string {
	text := prefix + shortened(v.Failed) + ": " + plain(v.Why)
	if len(text) > maxReason {
		text = text[:maxReason-3] + "..."
	}
	return text
}

// shortened is a list of IDs and how many more there are.
func shortened(ids []string) string {
	text := ""
	for i, id := range ids {
		if text != "" && len(text)+1+len(id) > maxReasonIDs {
			return fmt.Sprintf("%s +%d", text, len(ids)-i)
		}
		text = strings.TrimPrefix(text+" "+id, " ")
	}
	return text
}

// plain leaves what no shell, table or parser of Slurm takes for its own.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"'\[]`+"`", r) {
			return '?'
		}
		return r
	}, s)
}

// because gives the checks that a reason of ours names, and whether there were
// more. ok is false where the reason is not ours.
func because(reason string) (ids []string, more, ok bool) {
	rest, ok := strings.CutPrefix(reason, prefix)
	if !ok {
		return nil, false, false
	}
	list, _, _ := strings.Cut(rest, ": ")
	for w := range strings.FieldsSeq(list) {
		if strings.HasPrefix(w, "+") {
			more = true
			continue
		}
		ids = append(ids, w)
	}
	return ids, more, len(ids) > 0
}

// Age is a time for people, in seconds at least.
func Age(d time.Duration) string { return d.Truncate(time.Second).String() }
