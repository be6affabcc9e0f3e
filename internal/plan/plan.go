// SPDX-License-Identifier: Apache-2.0

// Package plan changes a host without breaking it. A [Plan] is data: shown,
// hashed, applied, journalled, verified and undone as one value. The [Engine]
// applies it through a [Driver] per kind of setting; every write is announced
// in a journal before it is made, so that a host stopped at any point is in
// the old state, the new state, or one that undo names and restores.
package plan

import (
	"cmp"
	"crypto/sha256"
	_ "embed" // the schema
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Tier is the risk class of a change.
type Tier string

// The tiers, from the least to the most disturbing.
const (
	Safe     Tier = "safe"     // online, reversible at once
	Link     Tier = "link"     // may flap a port, rebind a driver or destroy VFs
	Boot     Tier = "boot"     // takes effect at the next boot
	Firmware Tier = "firmware" // printed, never done
)

// Tiers lists them in that order.
var Tiers = []Tier{Safe, Link, Boot, Firmware}

// Setting names one thing that can be set.
type Setting struct {
	Kind   string `json:"kind"`   // "sysctl", "file", "hugepages", "ethtool", "manual", …
	Target string `json:"target"` // the device or file, "" when the kind has one
	Name   string `json:"name"`
}

func (s Setting) String() string {
	switch {
	case s.Target == "":
		return s.Kind + " " + s.Name
	case s.Name == "":
		return s.Kind + " " + s.Target
	}
	return s.Kind + " " + s.Target + " " + s.Name
}

// Value is what a setting holds: a text, or nothing at all (a file that is not
// there, a unit that is not installed). In JSON a string or null.
type Value struct {
	Text    string
	Present bool
}

// Absent is the value of what is not there.
var Absent = Value{}

// Text is a present value.
func Text(s string) Value { return Value{s, true} }

func (v Value) String() string {
	if !v.Present {
		return "(absent)"
	}
	return v.Text
}

// MarshalJSON writes a string or null.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.Present {
		return []byte("null"), nil
	}
	return json.Marshal(v.Text)
}

// UnmarshalJSON reads a string or null.
func (v *Value) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*v = Absent
		return nil
	}
	v.Present = true
	return json.Unmarshal(b, &v.Text)
}

// Change is one setting with its value before and after.
type Change struct {
	Setting
	Before   Value  `json:"before"`
	After    Value  `json:"after"`
	Tier     Tier   `json:"tier"`
	Persist  bool   `json:"persist"`  // it is still there after a reboot
	Why      string `json:"why"`      // the check that wants it, and its reason
	Disturbs string `json:"disturbs"` // what may notice, "" for nothing
	Diff     string `json:"diff"`     // unified for files, "old -> new" for the rest

	// Deferred changes stand at the end of a plan. They are made when the ones
	// before them are confirmed, and not at all when they are taken back.
	Deferred bool `json:"deferred"`

	// AtBoot says that another change of the plan sets it again at each boot.
	AtBoot bool `json:"at_boot"`
}

// Reverse is the change that takes c back.
func (c Change) Reverse() Change {
	c.Before, c.After, c.Diff = c.After, c.Before, ""
	return c
}

// Refusal is a wanted change that is not part of the plan, and why.
type Refusal struct {
	Setting
	Want   string   `json:"want"`
	Reason string   `json:"reason"`
	Steps  []string `json:"steps"` // what a person can do instead, in order
	Why    string   `json:"-"`     // of the change that was refused, where there was one
}

// Schema names the JSON format of a plan.
const Schema = "hostcheck.plan/v1"

// JSONSchema is the JSON Schema of that format.
//
//go:embed schema.json
var JSONSchema []byte

// Plan is what would be done, in order.
type Plan struct {
	SchemaName  string    `json:"schema"`
	Hash        string    `json:"hash"` // of the changes, the tool version and the profile; "" for an empty plan
	Tool        string    `json:"tool"`
	ProfileHash string    `json:"profile_hash"`
	Host        string    `json:"host"`
	Changes     []Change  `json:"changes"`
	Refused     []Refusal `json:"refused"`
}

// Seal fills in schema and hash. Order matters and is part of the hash; the
// host's name is not, so that alike hosts have alike plans.
func (p *Plan) Seal() {
	p.SchemaName = Schema
	if p.Changes == nil {
		p.Changes = []Change{}
	}
	if p.Refused == nil {
		p.Refused = []Refusal{}
	}
	for i := range p.Refused {
		if p.Refused[i].Steps == nil {
			p.Refused[i].Steps = []string{}
		}
	}
	p.Hash = ""
	if len(p.Changes) > 0 {
		p.Hash = p.digest()
	}
}

// digest is the SHA-256 of the compact JSON array [schema, tool, profile_hash,
// changes], each change an object with the keys below in this order; "deferred"
// is there when it is true.
func (p *Plan) digest() string {
	type canonical struct {
		Setting
		Before   Value `json:"before"`
		After    Value `json:"after"`
		Tier     Tier  `json:"tier"`
		Persist  bool  `json:"persist"`
		Deferred bool  `json:"deferred,omitempty"`
	}
	list := make([]canonical, len(p.Changes))
	for i, c := range p.Changes {
		list[i] = canonical{c.Setting, c.Before, c.After, c.Tier, c.Persist, c.Deferred}
	}
	b, err := json.Marshal([]any{Schema, p.Tool, p.ProfileHash, list})
	if err != nil {
		panic(err) // strings and booleans always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// check refuses a plan that was tampered with or that could not be undone.
func (p *Plan) check() error {
	if p.SchemaName != Schema {
		return fmt.Errorf("the plan's schema is %.40q; this hostcheck knows %s", p.SchemaName, Schema)
	}
	holds := map[Setting]Value{}
	for i, c := range p.Changes {
		if err := c.check(); err != nil {
			return fmt.Errorf("change %d of the plan (%s): %w", i, c.Setting, err)
		}
		if v, ok := holds[c.Setting]; ok && v != c.Before {
			return fmt.Errorf("change %d of the plan (%s) does not start where the one before it ends", i, c.Setting)
		}
		holds[c.Setting] = c.After
		if i > 0 && p.Changes[i-1].Deferred && !c.Deferred {
			return fmt.Errorf("change %d of the plan (%s) follows one that is made later", i, c.Setting)
		}
	}
	if len(p.Changes) > 0 && p.Changes[0].Deferred {
		return errors.New("the plan has nothing to confirm")
	}
	if len(p.Changes) > 0 && p.Hash != p.digest() {
		return errors.New("the plan's hash is not that of its changes")
	}
	return nil
}

func (c Change) check() error {
	for _, s := range []string{c.Kind, c.Target, c.Name, c.Before.Text, c.After.Text} {
		if !utf8.ValidString(s) {
			return errors.New("it is not valid UTF-8")
		}
	}
	switch {
	case c.Kind == "" || !slices.Contains(Tiers, c.Tier):
		return fmt.Errorf("it has kind %q and tier %q", c.Kind, c.Tier)
	case c.Kind == KindFile && (!clean(c.Target) || c.Name != ""):
		return fmt.Errorf("%q is not a clean absolute path, or has a name besides", c.Target)
	case c.Kind == KindCopy && (!clean(c.Target) || c.Name != "" || !isSum(c.Before) || !isSum(c.After)):
		return fmt.Errorf("%q is not a clean absolute path, or holds no sums", c.Target)
	case c.Kind == KindFile && max(len(c.Before.Text), len(c.After.Text)) > maxFile:
		return fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return nil
}

// awaited gives the index of the first change that is made only when those
// before it are confirmed; len(p.Changes) where none is.
func (p *Plan) awaited() int {
	if i := slices.IndexFunc(p.Changes, func(c Change) bool { return c.Deferred }); i >= 0 {
		return i
	}
	return len(p.Changes)
}

// guards reports whether c is of what takes a plan back that nobody confirms:
// what the confirmation ends again, such as a timer, and the program it runs.
func (p *Plan) guards(c Change) bool {
	if i := p.awaited(); i < len(p.Changes) {
		ends := func(o Change) bool { return o.Setting == c.Setting }
		return c.Kind == KindCopy || slices.ContainsFunc(p.Changes[:i], ends) && slices.ContainsFunc(p.Changes[i:], ends)
	}
	return false
}

// Wish is what a check wants a setting to be; a verb turns wishes into changes.
type Wish struct {
	Setting
	Got   string // what the check saw, for the report; the engine reads again
	Want  string
	Tier  Tier
	Check string // who wants it; the runner fills it in
	Why   string
}

// ConflictError is two different wants for one setting.
type ConflictError struct{ A, B Wish }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("cannot plan: %s is wanted as %q by %s and as %q by %s; skip one of them or change the profile",
		e.A.Setting, e.A.Want, e.A.Check, e.B.Want, e.B.Check)
}

// Unite joins equal wishes, keeps a stable order (kind, target, name), and
// reports the first setting that two checks want to differ.
func Unite(wishes []Wish) ([]Wish, error) {
	wishes = slices.Clone(wishes)
	slices.SortStableFunc(wishes, func(a, b Wish) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Name, b.Name))
	})
	out := wishes[:0]
	for _, w := range wishes {
		if n := len(out); n > 0 && out[n-1].Setting == w.Setting {
			if out[n-1].Want != w.Want {
				return nil, &ConflictError{out[n-1], w}
			}
			if out[n-1].Check != w.Check {
				out[n-1].Check += ", " + w.Check
			}
			continue
		}
		out = append(out, w)
	}
	return out, nil
}
