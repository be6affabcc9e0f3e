// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// AnsibleSchema names the format of [Ansible].
const AnsibleSchema = "hostcheck.ansible/v1"

// Ansible is the result of a task, as a module of Ansible gives it. The names of
// changed, failed, msg, diff and warnings are Ansible's own, and there is no rc:
// Ansible takes one that is not 0 for a failure.
type Ansible struct {
	Schema   string          `json:"schema" doc:"name and version of this format"`
	Changed  bool            `json:"changed" doc:"something was changed; in check mode, would be"`
	Failed   bool            `json:"failed" doc:"exit is neither 0 nor 10"`
	Msg      string          `json:"msg" doc:"what it came to"`
	Exit     int             `json:"exit" doc:"exit code that hostcheck would give; in check mode, that of the run that would change the host"`
	Summary  *Summary        `json:"summary" doc:"all selected checks as the host stands after the task, in check mode as it should stand then; null when nothing was judged"`
	Profile  *Profile        `json:"profile" doc:"what the host was judged against; null when nothing was judged"`
	Findings []AnsibleEntry  `json:"findings" doc:"those that neither pass nor are skipped, after the task, the worst first; at most 100"`
	Hash     string          `json:"plan_hash" doc:"of the plan; empty when there is nothing to change"`
	Changes  []AnsibleChange `json:"changes" doc:"what was changed, or would be; at most 100"`
	Refused  []plan.Refusal  `json:"refused" doc:"what should be changed and is not, and what a person can do; at most 100"`
	Txn      string          `json:"txn" doc:"ID of the transaction; empty when none was begun"`
	Undo     string          `json:"undo" doc:"command that takes it back; empty when there is nothing to take back"`
	Until    *string         `json:"confirm_by" doc:"RFC 3339: when it is taken back unless it is confirmed; null when it need not be confirmed"`
	Left     []Left          `json:"left" doc:"settings that could not be put back"`
	Reboot   bool            `json:"reboot_required" doc:"something counts from the next boot on"`
	LeftOut  map[string]int  `json:"left_out,omitempty" doc:"how many more entries findings, changes, refused and diff would have had"`

	Diff     []AnsibleDiff `json:"diff,omitempty" doc:"only where differences are asked for; at most 100"`
	Warnings []string      `json:"warnings,omitempty"`
}

// AnsibleEntry is a finding without its evidence.
type AnsibleEntry struct {
	Check    string         `json:"check" doc:"ID of the check, area.name"`
	Subject  string         `json:"subject" doc:"device or pool; empty is the whole host"`
	Status   check.Status   `json:"status" enum:"warn,fail,unknown,error"`
	Severity check.Severity `json:"severity" enum:"info,low,medium,high"`
	Pending  bool           `json:"pending" doc:"right after the next boot"`
	Waived   bool           `json:"waived" doc:"somebody decided to live with it"`
	Want     string         `json:"want"`
	Got      string         `json:"got"`
	Why      string         `json:"why" doc:"why it matters, or why it could not be judged"`
	Next     string         `json:"next" doc:"what to do next"`
}

// AnsibleChange is one change of a plan.
type AnsibleChange struct {
	plan.Setting
	Tier     plan.Tier `json:"tier" enum:"safe,link,boot,firmware" doc:"how disturbing the change is"`
	Why      string    `json:"why" doc:"the check that wants it, and its reason"`
	Disturbs string    `json:"disturbs" doc:"what may notice; empty for nothing"`
	Diff     string    `json:"diff" doc:"new, changed or removed for a file, old → new for the rest"`
}

// AnsibleDiff is one difference, as Ansible shows it with --diff: texts before
// and after, or how large they may be to be shown.
type AnsibleDiff struct {
	BeforeHeader string  `json:"before_header"`
	AfterHeader  string  `json:"after_header"`
	Before       *string `json:"before,omitempty"`
	After        *string `json:"after,omitempty"`
	Larger       int     `json:"dst_larger,omitempty"`
}

// Bounds of a result: it is kept in memory for each host of a play.
const (
	ansibleEntries = 100
	ansibleText    = 104448  // bytes; ansible-core shows no difference of a file above it (MAX_FILE_SIZE_FOR_DIFF)
	ansibleDiffs   = 1 << 20 // bytes of all differences
)

// AnsibleFailed is the result of a task that came to nothing.
func AnsibleFailed(code int, why string) *Ansible {
	lines := strings.Split(why, "\n")
	for i, l := range lines {
		lines[i] = Clean(l)
	}
	return &Ansible{
		Schema: AnsibleSchema, Failed: code != ExitOK && code != ExitPending, Msg: strings.Join(lines, "\n"), Exit: code,
		Findings: []AnsibleEntry{}, Changes: []AnsibleChange{}, Refused: []plan.Refusal{}, Left: []Left{},
	}
}

// AnsibleChecked is the result of a task that judges the host.
func AnsibleChecked(r *Report) *Ansible {
	a := AnsibleFailed(r.Summary.Exit, r.sentence())
	a.judged(r)
	return a
}

// AnsiblePlanned is the result of check mode: what would be changed, and how the
// host should stand after it.
func AnsiblePlanned(v PlanView, after *Report) *Ansible {
	text := "nothing to fix; " + after.sentence()
	if n := len(v.Plan.Changes); n > 0 {
		text = plural(n, "change") + " would be made; expected then: " + after.sentence()
	}
	a := AnsibleFailed(after.Summary.Exit, text)
	a.judged(after)
	a.planned(v)
	a.Changed = len(v.Plan.Changes) > 0
	return a
}

// AnsibleFixed is the result of a task that changes the host; now is how it
// stands, nil where that is not known.
func AnsibleFixed(v PlanView, f Fix, now *Report) *Ansible {
	stands := "how the host stands is not known"
	if now != nil {
		stands = now.sentence()
	}
	text := ""
	switch f.Result.Outcome {
	case OutcomeNothing:
		text = "nothing to fix; " + stands
	case plan.Applied:
		text = plural(len(v.Plan.Changes), "change") + " made, read back and verified; " + stands
	default:
		text = f.Result.sentence()
	}
	a := AnsibleFailed(f.Exit, text)
	if now != nil {
		a.judged(now)
	}
	a.planned(v)
	a.became(f.Result)
	if f.Result.Outcome != plan.Applied && f.Result.Outcome != plan.Incomplete {
		a.Changes, a.Reboot = []AnsibleChange{}, now != nil && now.Summary.Pending > 0
	}
	if u := f.Result.Until; u != nil {
		a.Msg += "; it is taken back at " + *u + " unless it is confirmed"
	}
	return a
}

// AnsibleBack is the result of a task that takes back or confirms a transaction.
func AnsibleBack(r Result, exit int) *Ansible {
	a := AnsibleFailed(exit, r.sentence())
	a.became(r)
	return a
}

// sentence is the verdict and what stands behind it, on one line.
func (r *Report) sentence() string {
	_, word, _ := r.Summary.verdict()
	if counts := (Text{}).printer().counts(&r.Summary, false); counts != "" {
		word += " (" + strings.ReplaceAll(counts, " · ", ", ") + ")"
	}
	var said []string
	for _, f := range r.worst() {
		if f.breaks {
			said = append(said, f.sentence())
		}
	}
	const most = 3
	if n := len(said); n > most {
		said = append(said[:most], fmt.Sprintf("and %d more", n-most))
	}
	if said == nil {
		return word
	}
	return word + ": " + strings.Join(said, "; ")
}

// sentence is a finding in a few words.
func (f *Finding) sentence() string {
	text := f.Check
	if f.Subject != "" {
		text += " " + f.Subject
	}
	switch {
	case f.open():
		return text + " is " + string(f.Status) + ": " + f.Why
	case f.Want != "":
		return text + ": " + quoteEmpty(f.Got) + ", want " + f.Want
	}
	return text + ": " + cmp.Or(f.Got, f.Why)
}

// sentence says what became of a transaction.
func (r Result) sentence() string {
	text := ""
	switch r.Outcome {
	case plan.Applied:
		text = r.Txn + " lasts"
	case plan.Undone, plan.Returned:
		text = r.Txn + " taken back: " + plural(r.Changed, "setting") + " put back and read back"
	case plan.Restored:
		text = "it did not work, and the host is as it was, read back"
	case plan.Incomplete:
		text = "it did not work, and " + plural(len(r.Left), "setting") + " could not be put back"
	case plan.Interrupted:
		text = "interrupted; what was changed was put back"
	default:
		text = string(r.Outcome)
	}
	if r.Cause != "" {
		text += ": " + r.Cause
	}
	for _, l := range r.Left {
		text += "; by hand: " + l.ByHand
	}
	return text
}

// worst is the findings that need attention, the worst first.
func (r *Report) worst() []*Finding {
	var all []*Finding
	for i := range r.Findings {
		if f := &r.Findings[i]; attention(f) {
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b *Finding) int { return rank(a) - rank(b) })
	return all
}

// judged takes in how the host stands.
func (a *Ansible) judged(r *Report) {
	summary, profile := r.Summary, r.Profile
	a.Summary, a.Profile, a.Reboot = &summary, &profile, r.Summary.Pending > 0
	for _, f := range clip(a, "findings", r.worst()) {
		a.Findings = append(a.Findings, AnsibleEntry{
			Check: f.Check, Subject: f.Subject, Status: f.Status, Severity: f.Severity, Pending: f.Pending, Waived: f.Waiver != nil,
			Want: f.Want, Got: f.Got, Why: f.Why, Next: f.Next,
		})
	}
}

// planned takes in what was to be done.
func (a *Ansible) planned(v PlanView) {
	if len(v.Plan.Changes) > 0 {
		a.Hash = v.Plan.Hash
	}
	for _, c := range v.Plan.Changes {
		a.Reboot = a.Reboot || c.Tier == plan.Boot
	}
	for _, c := range clip(a, "changes", v.Plan.Changes) {
		a.Changes = append(a.Changes, AnsibleChange{Setting: c.Setting, Tier: c.Tier, Why: c.Why, Disturbs: c.Disturbs, Diff: inline(c)})
	}
	refused := slices.Clone(v.Plan.Refused)
	for _, c := range v.Held {
		refused = append(refused, plan.Refusal{
			Setting: c.Setting, Want: inline(c), Reason: "tier " + string(c.Tier) + " is not allowed",
			Steps: []string{"add " + string(c.Tier) + " to the option allow of the task"},
		})
	}
	a.Refused = append(a.Refused, clip(a, "refused", refused)...)
}

// became takes in what became of a transaction.
func (a *Ansible) became(r Result) {
	a.Txn, a.Undo, a.Until, a.Left = r.Txn, r.Undo, r.Until, r.Left
	switch r.Outcome {
	case plan.Applied, plan.Undone, plan.Returned:
		a.Changed = r.Changed > 0
	case plan.Incomplete:
		a.Changed = true // the host is not as it was
	case plan.Restored, plan.Interrupted:
	}
	if r.Journal != "" {
		a.Warnings = append(a.Warnings, "the journal could not be kept up: "+r.Journal)
	}
	a.Warnings = append(a.Warnings, r.Stays...)
}

// Show adds the differences that changes make, with --diff.
func (a *Ansible) Show(changes []plan.Change) {
	left := ansibleDiffs
	for _, c := range clip(a, "diff", changes) {
		d := ansibleDiff(c, min(left, ansibleText))
		if d.Before != nil {
			left -= len(*d.Before) + len(*d.After)
		}
		a.Diff = append(a.Diff, d)
	}
}

// ansibleDiff gives the difference of one change; a file of more than so many
// bytes is not shown.
func ansibleDiff(c plan.Change, most int) AnsibleDiff {
	if c.Kind != plan.KindFile {
		before, after := shown(c.Before.String())+"\n", shown(c.After.String())+"\n"
		return AnsibleDiff{BeforeHeader: settingName(c.Setting), AfterHeader: settingName(c.Setting), Before: &before, After: &after}
	}
	header := func(v plan.Value) string {
		if !v.Present {
			return Clean(c.Target) + " (absent)"
		}
		return Clean(c.Target)
	}
	d := AnsibleDiff{BeforeHeader: header(c.Before), AfterHeader: header(c.After)}
	if max(len(c.Before.Text), len(c.After.Text)) > most {
		d.Larger = max(most, 1) // 0 would say that it is not
		return d
	}
	before, after := shown(c.Before.Text), shown(c.After.Text)
	d.Before, d.After = &before, &after
	return d
}

// shown is a text of several lines as a terminal may have it: Ansible prints
// differences as they come.
func shown(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		case r == '\n', r == '\t', unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// clip gives the first of many, and counts the others.
func clip[T any](a *Ansible, name string, all []T) []T {
	n := len(all) - ansibleEntries
	if n <= 0 {
		return all
	}
	if a.LeftOut == nil {
		a.LeftOut = map[string]int{}
	}
	a.LeftOut[name] = n
	return all[:ansibleEntries]
}
