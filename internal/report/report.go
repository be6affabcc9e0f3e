// SPDX-License-Identifier: Apache-2.0

// Package report turns the results of a run into what people and programs
// read: the JSON report, and the text that is a view of it. Order is stable and
// the body holds no time, so two hosts alike give reports alike.
package report

import (
	"slices"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Schema names the format of [Report].
const Schema = "hostcheck.report/v1"

// Report is the outcome of one run, as "hostcheck -f json" writes it.
type Report struct {
	Schema   string    `json:"schema" doc:"name and version of this format"`
	Tool     Tool      `json:"tool"`
	Host     Host      `json:"host"`
	Profile  Profile   `json:"profile"`
	Summary  Summary   `json:"summary"`
	Findings []Finding `json:"findings" doc:"in the order of the check list, then by subject"`
}

// Tool is the hostcheck that wrote the report.
type Tool struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
}

// Host is the machine that was judged; what is not known is nil.
type Host struct {
	Name       *string `json:"name" doc:"host name"`
	Kernel     *string `json:"kernel" doc:"kernel release, as uname -r prints it"`
	Arch       *string `json:"arch" doc:"amd64, arm64, ..."`
	PageSize   *int    `json:"page_size" doc:"bytes"`
	BootID     *string `json:"boot_id"`
	CapturedAt *string `json:"captured_at" doc:"when the host was sampled, RFC 3339; null when nobody knows"`
	Source     string  `json:"source" doc:"live, root (a directory), or where else the host was read from"`
}

// Profile is what the host was judged against.
type Profile struct {
	Layers       []string `json:"layers" doc:"in the order of merging: a later layer wins"`
	Intent       string   `json:"intent" doc:"what the host is for"`
	IntentSource string   `json:"intent_source" enum:"stated,assumed" doc:"assumed: nobody stated the intent, so it yields at most a warning"`
	Hash         string   `json:"hash" doc:"of the merged values"`
}

// Summary counts findings. Each finding is counted once: as waived or pending
// where it is, else under its status.
type Summary struct {
	Pass    int `json:"pass"`
	Warn    int `json:"warn"`
	Fail    int `json:"fail"`
	Skip    int `json:"skip"`
	Unknown int `json:"unknown"`
	Error   int `json:"error"`
	Waived  int `json:"waived"`
	Pending int `json:"pending" doc:"configured, and right after the next boot"`
	Exit    int `json:"exit" doc:"exit code of the run"`
}

// Finding is one verdict about one subject.
type Finding struct {
	Check    string           `json:"check" doc:"ID of the check, area.name"`
	Title    string           `json:"title" doc:"what holds when the check passes"`
	Subject  string           `json:"subject" doc:"device or pool; empty is the whole host"`
	Status   check.Status     `json:"status" enum:"pass,warn,fail,skip,unknown,error"`
	Severity check.Severity   `json:"severity" enum:"info,low,medium,high"`
	Pending  bool             `json:"pending" doc:"right after the next boot"`
	Truth    *check.Truth     `json:"truth" doc:"what the files say, what the next boot will use, what the kernel has now"`
	Want     string           `json:"want"`
	Got      string           `json:"got"`
	Why      string           `json:"why" doc:"why it matters, or why it could not be judged"`
	Next     string           `json:"next" doc:"what to do next; prose, but for commands of hostcheck itself"`
	Source   string           `json:"source" doc:"where the wanted value comes from"`
	Evidence []check.Evidence `json:"evidence"`
	Fix      []Change         `json:"fix"`
	Waiver   *Waiver          `json:"waiver"`

	breaks bool // it is why the exit code is 1 or 3
}

// Change is one setting that would make the finding pass.
type Change struct {
	Kind   string    `json:"kind"`
	Target string    `json:"target" doc:"device or file, empty where the kind has only one"`
	Name   string    `json:"name"`
	Before string    `json:"before"`
	After  string    `json:"after"`
	Tier   plan.Tier `json:"tier" enum:"safe,link,boot,firmware" doc:"how disturbing the change is"`
}

// Waiver is somebody's decision to live with a finding for a time.
type Waiver struct {
	Owner  string `json:"owner" doc:"who answers for it"`
	Until  string `json:"until" doc:"last day on which it holds, UTC"`
	Reason string `json:"reason"`
}

// Input is what a report is made from.
type Input struct {
	Tool    Tool
	Host    Host
	Profile Profile
	Results []check.Result // in the order of the check list
	FailOn  check.Status   // Fail or Warn: the threshold of exit code 1
	// Required says which checks must be judged: one of them that is unknown or
	// in error makes the run incomplete. nil: none.
	Required func(id string) bool
	Signal   int // number of the signal that interrupted the run; 0: none
}

// New makes the report of a run.
func New(in Input) *Report {
	r := &Report{Schema: Schema, Tool: in.Tool, Host: in.Host, Profile: in.Profile, Findings: []Finding{}}
	if r.Profile.Layers == nil {
		r.Profile.Layers = []string{}
	}
	n := 0
	for i := range in.Results {
		n += len(in.Results[i].Findings)
	}
	r.Findings = slices.Grow(r.Findings, n)
	incomplete := false
	for _, res := range in.Results {
		first := len(r.Findings)
		for _, f := range res.Findings {
			r.Findings = append(r.Findings, finding(res.Check, f))
		}
		fs := r.Findings[first:]
		slices.SortStableFunc(fs, func(a, b Finding) int { return compareSubjects(a.Subject, b.Subject) })
		for i := range fs {
			r.Summary.count(&fs[i])
			if fs[i].open() && in.Required != nil && in.Required(res.Check.ID) {
				incomplete, fs[i].breaks = true, true
			}
			if !fs[i].Pending && fs[i].Waiver == nil && (fs[i].Status == check.Fail || fs[i].Status == check.Warn && in.FailOn == check.Warn) {
				fs[i].breaks = true
			}
		}
	}
	r.Summary.Exit = r.Summary.exit(in.FailOn, incomplete, in.Signal)
	if r.Summary.judged() == 0 || in.Signal != 0 {
		for i := range r.Findings {
			r.Findings[i].breaks = r.Findings[i].breaks || r.Findings[i].open()
		}
	}
	return r
}

// open: it could not be judged.
func (f *Finding) open() bool { return f.Status == check.Unknown || f.Status == check.Error }

func finding(c *check.Check, f check.Finding) Finding {
	out := Finding{
		Check: c.ID, Title: c.Title, Subject: f.Subject, Status: f.Status, Severity: c.Severity, Pending: f.Pending,
		Truth: f.Truth, Want: f.Want, Got: f.Got, Why: f.Why, Next: plan.Prose(f.Next), Source: f.Source,
		Evidence: f.Evidence, Fix: []Change{},
	}
	if out.Evidence == nil {
		out.Evidence = []check.Evidence{}
	}
	if w := f.Waiver; w != nil {
		out.Waiver = &Waiver{w.Owner, w.Until, w.Reason}
	}
	for _, c := range f.Fix {
		out.Fix = append(out.Fix, Change{c.Kind, c.Target, c.Name, c.Got, c.Want, c.Tier})
	}
	return out
}

// Stamp is a time as reports write it, nil for the zero time.
func Stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}
