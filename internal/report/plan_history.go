// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/plan"
)

// Names of the formats of [History] and [Status].
const (
	HistorySchema = "hostcheck.history/v1"
	StatusSchema  = "hostcheck.status/v1"
)

// History is what "hostcheck history -f json" writes.
type History struct {
	Schema       string `json:"schema" doc:"name and version of this format"`
	Transactions []Txn  `json:"transactions" doc:"the newest first"`
}

// Txn is one transaction of the journal.
type Txn struct {
	ID      string        `json:"id"`
	Started *string       `json:"started" doc:"RFC 3339; null when the journal cannot be read"`
	Ended   *string       `json:"ended" doc:"when it was last written to"`
	State   plan.State    `json:"state" enum:"empty,unfinished,unconfirmed,applied,applied again,undone,restored,returned,partly undone,unreadable" doc:"unfinished: stopped half way, undo it; unconfirmed: made and verified, and taken back unless it is confirmed in time; applied again: set after a boot what earlier transactions set; restored: it failed and took itself back; returned: it was borrowed for a measurement, and is as it was; unreadable: its journal is not to be trusted"`
	Why     string        `json:"why" doc:"why it failed or cannot be read"`
	Tool    string        `json:"tool" doc:"version of the hostcheck that made the plan"`
	Hash    string        `json:"hash" doc:"of the plan"`
	Changes []plan.Change `json:"changes"`
}

// Status is what "hostcheck status -f json" writes.
type Status struct {
	Schema      string       `json:"schema" doc:"name and version of this format"`
	Busy        *Busy        `json:"busy" doc:"the hostcheck that is at work; null when none is"`
	Pending     []Pending    `json:"pending" doc:"transactions that were stopped half way or cannot be read, the oldest first: what to undo"`
	Unconfirmed *Unconfirmed `json:"unconfirmed" doc:"the transaction that waits to be confirmed; null when none does"`
	Settings    Settings     `json:"settings"`
	Trial       *Trial       `json:"trial" doc:"a kernel command line that is tried; null when none is"`
	Applied     []string     `json:"applied" doc:"IDs of the transactions in force, the newest first"`
	Exit        int          `json:"exit" doc:"exit code of the run"`
}

// Unconfirmed is a transaction that is taken back unless it is confirmed.
type Unconfirmed struct {
	Txn
	Until   string `json:"until" doc:"RFC 3339: when it is taken back; after a reboot an estimate, for the time is counted from then"`
	Left    int    `json:"seconds_left" doc:"until then; 0 when it is being taken back"`
	Confirm string `json:"confirm" doc:"command that keeps it"`
	Undo    string `json:"undo" doc:"command that takes it back at once"`
}

// Settings is what is set again at each boot, and why something may not be.
type Settings struct {
	Count   int       `json:"count" doc:"settings that the files say"`
	Off     bool      `json:"off" doc:"whether the kernel parameter hostcheck.settings=off keeps them from being set"`
	Ignored []Ignored `json:"ignored" doc:"files that are not used"`
	Stopped *string   `json:"stopped" doc:"RFC 3339: when an attempt to set them began that did not complete, so that none is made any more; null when there is none"`
	Retry   string    `json:"retry" doc:"command that tries again; empty when there is nothing to try"`
}

// Ignored is a file that is not used.
type Ignored struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// Trial is a kernel command line that waits for its boot, runs, or did not come up.
type Trial struct {
	ID      string `json:"id" doc:"of the settings that are tried"`
	Try     int    `json:"try" doc:"from 1"`
	State   string `json:"state" enum:"armed,running,fell back,disarmed" doc:"armed: the next boot tries it; running: confirm it; fell back: the host came up with the old one; disarmed: somebody took the choice of the next entry back"`
	Says    string `json:"says" doc:"the same as a sentence"`
	Txn     string `json:"txn" doc:"the transaction that armed it; empty when the journal does not have it"`
	Cmdline string `json:"cmdline"`

	Problems []string `json:"problems" doc:"what keeps a running trial from being confirmed by itself, as far as that has been looked at"`
	Confirm  string   `json:"confirm" doc:"command that makes a running trial last; empty otherwise"`
}

// Busy is the holder of the lock.
type Busy struct {
	PID *int `json:"pid" doc:"process; null when not known"`
}

// Pending is a transaction that asks for an undo, and how its settings stand.
type Pending struct {
	Txn
	Settings []Standing `json:"settings"`
	Expires  bool       `json:"expires" doc:"whether a timer is armed that takes it back within minutes"`
}

// Standing is one setting of such a transaction.
type Standing struct {
	Kind     string        `json:"kind"`
	Target   string        `json:"target"`
	Name     string        `json:"name"`
	Before   plan.Value    `json:"before" doc:"what it held; null: nothing, a file that was not there"`
	After    plan.Value    `json:"after" doc:"what it was to hold"`
	Live     plan.Value    `json:"live" doc:"what it holds, where that is known"`
	Standing plan.Standing `json:"standing" enum:"as it was,reset by a reboot,as hostcheck set it,half way,changed by someone else,replaced since,unreadable"`
	Error    string        `json:"error" doc:"why it cannot be read"`
}

// NewTxn tells what the journal says about a transaction.
func NewTxn(t *plan.Txn) Txn {
	out := Txn{
		ID: t.ID, Started: Stamp(t.Started), Ended: Stamp(t.Ended), State: t.State, Why: t.Why,
		Tool: t.Plan.Tool, Hash: t.Plan.Hash, Changes: t.Plan.Changes,
	}
	if out.Changes == nil {
		out.Changes = []plan.Change{}
	}
	return out
}

// NewHistory tells what the journal holds; all is the oldest first.
func NewHistory(all []*plan.Txn) History {
	h := History{Schema: HistorySchema, Transactions: []Txn{}}
	for _, t := range slices.Backward(all) {
		h.Transactions = append(h.Transactions, NewTxn(t))
	}
	return h
}

// NewPending tells how an unfinished transaction stands.
func NewPending(p plan.Pending) Pending {
	out := Pending{Txn: NewTxn(p.Txn), Settings: []Standing{}}
	for _, s := range p.Settings {
		n := Standing{Kind: s.Kind, Target: s.Target, Name: s.Name, Before: s.Before, After: s.After, Live: s.Live, Standing: s.Standing}
		if s.Err != nil {
			n.Error = s.Err.Error()
		}
		out.Settings = append(out.Settings, n)
		out.Expires = out.Expires || s.Kind == "deadline" && s.Live.Present
	}
	return out
}

// state gives a state its sign and style.
func (p *printer) state(s plan.State) (string, lipgloss.Style) {
	switch s {
	case plan.InForce:
		return "✓", p.green
	case plan.Unfinished, plan.Unreadable:
		return "✗", p.red.Bold(true)
	case plan.GivenUp, plan.Unconfirmed:
		return "!", p.yellow
	case plan.WasBack:
		return "✗", p.yellow
	case plan.Empty, plan.WasUndone, plan.WasReturned, plan.Reapplied:
	}
	return "–", p.dim
}

// History lists transactions, the newest first; verbose shows their changes.
// now and zone are for the times.
func (t Text) History(h History, now time.Time, again []string) string {
	p := t.printer()
	if len(h.Transactions) == 0 {
		p.line("hostcheck has changed nothing here")
		return t.finish(&p.b)
	}
	width := 0
	for _, x := range h.Transactions {
		width = max(width, len(x.State))
	}
	ask := false
	for i, x := range h.Transactions {
		if t.Verbose && i > 0 {
			p.line("")
		}
		p.transaction(x, width, now)
		ask = ask || x.State == plan.Unfinished
	}
	if p.Quiet {
		return t.finish(&p.b)
	}
	var rows [][2]string
	base := Clean(ShellWords(again))
	if i := slices.IndexFunc(h.Transactions, func(x Txn) bool { return x.State == plan.Unfinished || x.State == plan.InForce }); i >= 0 {
		what := "takes the latest back"
		if ask {
			what = "finishes taking back what was stopped half way"
		}
		rows = append(rows, [2]string{base + " undo " + Clean(h.Transactions[i].ID), what})
	}
	if !t.Verbose {
		rows = append(rows, [2]string{base + " history -v", "what each changed"})
	}
	if rows != nil {
		p.line("")
		p.pairs(rows)
	}
	return t.finish(&p.b)
}

func (p *printer) transaction(x Txn, width int, now time.Time) {
	sign, style := p.state(x.State)
	when := ago(x.Started, now)
	lead := style.Render(sign) + " " + p.id.Render(Clean(x.ID)) + "  " + style.Render(pad(string(x.State), width)) + "  "
	text := when
	if x.Hash != "" {
		text += " · " + plural(len(x.Changes), "change") + ": " + kinds(x.Changes)
	}
	at := lipgloss.Width(lead)
	for i, l := range wrap(Clean(text), p.width()-at) {
		if i > 0 {
			lead = strings.Repeat(" ", at)
		}
		p.line(lead + l)
	}
	if p.Quiet {
		return
	}
	if x.Why != "" {
		p.labelled(4, "why", Clean(x.Why), p.plain)
	}
	if !p.Verbose {
		return
	}
	for _, c := range x.Changes {
		name := 0
		if c.Kind == plan.KindFile {
			p.file(c)
			continue
		}
		p.knob(c, max(name, lipgloss.Width(settingName(c.Setting))))
	}
}

// kinds counts changes by kind: "2 files, 1 sysctl".
func kinds(changes []plan.Change) string {
	var order []string
	n := map[string]int{}
	for _, c := range changes {
		if n[c.Kind]++; n[c.Kind] == 1 {
			order = append(order, c.Kind)
		}
	}
	for i, k := range order {
		if n[k] > 1 && k == plan.KindFile {
			k = "files"
		}
		order[i] = fmt.Sprintf("%d %s", n[order[i]], k)
	}
	return strings.Join(order, ", ")
}

// ago is how long ago a stamp was, for a person.
func ago(stamp *string, now time.Time) string {
	if stamp == nil {
		return "time not known"
	}
	at, err := time.Parse(time.RFC3339, *stamp)
	if err != nil {
		return *stamp
	}
	switch d := now.Sub(at); {
	case d < -time.Minute:
		return at.UTC().Format("2006-01-02 15:04") + " UTC"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute") + " ago"
	case d < 24*time.Hour:
		return plural(int(d.Hours()), "hour") + " ago"
	case d < 14*24*time.Hour:
		return plural(int(d.Hours()/24), "day") + " ago"
	}
	return at.UTC().Format("2006-01-02")
}

// Status gives what is pending as text.
func (t Text) Status(s Status, now time.Time, again []string) string {
	p := t.printer()
	base := Clean(ShellWords(again))
	switch {
	case s.Busy != nil && s.Busy.PID != nil:
		p.line(p.yellow.Bold(true).Render("… AT WORK") + fmt.Sprintf("   another hostcheck (process %d) is changing this host", *s.Busy.PID))
	case s.Busy != nil:
		p.line(p.yellow.Bold(true).Render("… AT WORK") + "   another hostcheck is changing this host")
	case len(s.Pending) > 0:
		p.line(p.red.Bold(true).Render("✗ UNFINISHED") + "   " + plural(len(s.Pending), "transaction") + " to look at")
	case s.Trial != nil:
		p.line(p.yellow.Bold(true).Render("↻ TRIAL") + "   of another kernel command line: " + s.Trial.State)
	case s.Unconfirmed != nil:
	case s.Settings.Stopped != nil, len(s.Settings.Ignored) > 0:
		p.line(p.yellow.Bold(true).Render("! SETTINGS") + "   what should be set at each boot is not")
	default:
		p.line(p.green.Bold(true).Render("✓ NOTHING PENDING"))
	}
	if s.Trial != nil {
		p.trial(s.Trial, base)
	}
	for _, x := range s.Pending {
		p.line("")
		p.transaction(x.Txn, 0, now)
		for _, y := range x.Settings {
			p.standing(y)
		}
		if x.Expires && s.Busy == nil {
			p.labelled(4, "note", "a timer takes it back by itself, within minutes", p.yellow)
		}
		if x.State == plan.Unfinished && s.Busy == nil {
			p.line("    " + p.key.Render("undo") + "  " + p.bold.Render(base+" undo "+Clean(x.ID)))
		}
	}
	if u := s.Unconfirmed; u != nil {
		p.unconfirmed(u.Until, u.Left, u.Confirm)
		p.transaction(u.Txn, 0, now)
		p.line("    " + p.key.Render("undo") + "  " + p.bold.Render(Clean(u.Undo)))
	}
	p.settings(s.Settings)
	if n := len(s.Applied); n > 0 {
		p.line("")
		p.line(plural(n, "transaction") + " in force, the latest " + p.id.Render(Clean(s.Applied[0])))
		if !p.Quiet {
			p.pairs([][2]string{{base + " undo", "takes the latest back"}, {base + " history", "all of them"}})
		}
	}
	return t.finish(&p.b)
}

func (p *printer) trial(t *Trial, base string) {
	p.line("")
	p.fact(2, "trial", 8, Clean(t.ID)+fmt.Sprintf(", try %d: ", t.Try)+Clean(t.Says), p.plain)
	p.fact(2, "cmdline", 8, Clean(t.Cmdline), p.plain)
	for _, w := range t.Problems {
		p.fact(2, "but", 8, Clean(w), p.yellow)
	}
	if t.Confirm != "" {
		p.fact(2, "confirm", 8, Clean(t.Confirm), p.plain)
	}
	if t.Txn != "" {
		p.fact(2, "undo", 8, base+" undo "+Clean(t.Txn), p.plain)
	}
}

// unconfirmed says what happens when, unless somebody does something.
func (p *printer) unconfirmed(until string, left int, confirm string) {
	text := "taken back now"
	if left > 0 {
		text = fmt.Sprintf("taken back in %v", time.Duration(left)*time.Second)
		if at, err := time.Parse(time.RFC3339, until); err == nil {
			text += at.UTC().Format(", at 15:04:05 UTC,")
		}
		text += " unless you confirm it"
	}
	lead := p.yellow.Bold(true).Render("! NOT CONFIRMED") + "   "
	if p.width() < lipgloss.Width(lead)+len(text) {
		p.line(strings.TrimRight(lead, " "))
		lead = "  "
	}
	for _, l := range wrap(text, p.width()-lipgloss.Width(lead)) {
		p.line(lead + l)
		lead = "  "
	}
	p.line(p.key.Render("confirm") + "  " + p.bold.Render(Clean(confirm)))
}

func (p *printer) settings(s Settings) {
	for _, i := range s.Ignored {
		p.labelled(0, "file", Clean(i.File+" is ignored: "+i.Why), p.yellow)
	}
	if s.Stopped != nil {
		p.labelled(0, "boot", Clean("setting them was begun at "+*s.Stopped+" and did not complete, so no boot tries it again until: "+s.Retry), p.yellow)
	}
	switch {
	case s.Count == 0 || p.Quiet:
	case s.Off:
		p.line(plural(s.Count, "setting") + " not set at boot: the kernel has hostcheck.settings=off")
	case s.Stopped == nil:
		p.line(plural(s.Count, "setting") + " set again at each boot")
	}
}

func (p *printer) standing(s Standing) {
	style := p.plain
	switch s.Standing {
	case plan.AsSet, plan.Partly:
		style = p.yellow
	case plan.Drifted, plan.Unread:
		style = p.red
	case plan.AsBefore, plan.Reset, plan.Replaced:
		style = p.dim
	}
	name := settingName(plan.Setting{Kind: s.Kind, Target: s.Target, Name: s.Name})
	text := string(s.Standing)
	if s.Standing == plan.Drifted && s.Kind != plan.KindFile {
		text += ": " + Clean(s.Live.String())
	}
	if s.Error != "" {
		text += ": " + Clean(s.Error)
	}
	p.line("    " + p.id.Render(name) + "  " + style.Render(text))
}
