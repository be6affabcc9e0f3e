// SPDX-License-Identifier: Apache-2.0

// Package check defines what a check is and runs a list of them. A check is a
// value with a function, as in golang.org/x/tools/go/analysis: it sees facts
// and a profile, reports findings, and never touches the machine.
package check

import (
	"context"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// Status is the verdict of one finding.
type Status string

// The statuses. Unknown means that the truth could not be read; absent is not
// off. Skip means that the check does not apply here. Error means that
// hostcheck itself failed.
const (
	Pass    Status = "pass"
	Warn    Status = "warn"
	Fail    Status = "fail"
	Skip    Status = "skip"
	Unknown Status = "unknown"
	Error   Status = "error"
)

// Statuses lists them, the worst first.
var Statuses = []Status{Fail, Error, Warn, Unknown, Skip, Pass}

// Hardly reports whether so many findings that pass, and so many that are unknown
// or in error, are hardly a verdict: less is known to be well than is not known.
// The profile may require none of that, but a fit host it is not.
func Hardly(pass, open int) bool { return open > pass }

// Severity is how much a failure of a check matters.
type Severity string

// The severities.
const (
	Info   Severity = "info"
	Low    Severity = "low"
	Medium Severity = "medium"
	High   Severity = "high"
)

// Check judges one thing. ID is "area.name" and permanent.
type Check struct {
	ID       string
	Title    string // what holds when it passes, as a short noun phrase
	Doc      string // what, why, how to read the evidence, how to fix by hand; shown by "explain"
	Severity Severity
	Refs     []string  // kernel document, vendor page
	Requires []string  // IDs of checks whose failure makes this one noise
	FixTier  plan.Tier // highest tier of what it offers to fix, firmware only when there is nothing else; "" for nothing
	Tune     string    // name of the tune module it is paired with, or ""
	Strict   bool      // no waiver covers it: what fails harms others than those who decide
	Run      func(context.Context, *Run) error
}

// Area is the first word of the ID.
func (c *Check) Area() string {
	area, _, _ := strings.Cut(c.ID, ".")
	return area
}

// Evidence is one source and what it held.
type Evidence struct {
	Source string `json:"source"` // path or query key
	Value  string `json:"value"`
}

// Finding is one verdict about one subject.
type Finding struct {
	Check   string // filled in by the runner
	Subject string // "0000:1a:00.0 enp26s0np0"; "" is the whole host
	Status  Status
	Pending bool   // right after the next boot: configured and next boot hold, live does not
	Want    string // what the profile expects
	Got     string // what the host has
	Why     string // why it matters, or why it could not be judged
	Next    string // what to do next, for the person who must act
	Source  string // where the wanted value comes from: profile layer and reference

	Truth    *Truth
	Evidence []Evidence
	Fix      []plan.Wish // what would make it pass, as data

	Waiver *profile.Waiver // the decision to live with it; see [Waive]
}

// Truth tells the three truths of a setting apart; "" is not known.
type Truth struct {
	Configured string `json:"configured"`
	NextBoot   string `json:"next_boot"`
	Live       string `json:"live"`
}

// Run is what a check sees and reports to. Report may be called any number of
// times; a check that reports nothing had no subject and becomes a skip.
type Run struct {
	Facts   *facts.Facts
	Profile *profile.Profile
	Report  func(Finding)
	Note    func(string) // tells the person who waits what a slow check is doing; may be nil
}

// Waiting tells the person who waits what the check is doing.
func (r *Run) Waiting(what string) {
	if r.Note != nil {
		r.Note(what)
	}
}

// Result is one check with its findings, in the order of reporting.
type Result struct {
	Check    *Check
	Findings []Finding
}
