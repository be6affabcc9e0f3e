// SPDX-License-Identifier: Apache-2.0

// Package ansible reads what Ansible hands to a module: one JSON object, in a
// file whose name is the module's only argument. Keys that begin with
// "_ansible_" are Ansible's own (ansible-core, ActionBase._update_module_args in
// plugins/action/__init__.py); all others are the options of the task.
package ansible

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Called reports whether a process with these arguments, its own name first, is
// a module that Ansible started: since 2.8 it copies a binary module to the host
// as AnsiballZ_NAME and gives it the file of the arguments.
func Called(argv []string) bool {
	return len(argv) == 2 && strings.HasPrefix(filepath.Base(argv[0]), "AnsiballZ_") && !strings.HasPrefix(argv[1], "-")
}

// State is what a task wants to be true when it is over.
type State string

// The states.
const (
	Checked   State = "checked"   // the host is judged; nothing is changed
	Fixed     State = "fixed"     // what fails and may be changed is changed
	Confirmed State = "confirmed" // a transaction that waited to be confirmed lasts
	Undone    State = "undone"    // a transaction is taken back
)

// States lists them.
var States = []State{Checked, Fixed, Confirmed, Undone}

// Layer is a profile on top of those detected.
type Layer struct {
	Name string // of a profile that hostcheck brings or of a file on the host; "" where Text is it
	Text []byte // a profile that the task holds, as JSON, which YAML includes
}

// Args are the options of a task; what was not given is zero.
type Args struct {
	State      State
	Only, Skip []string
	Profile    []Layer
	Set        []string // KEY=VALUE
	Intent     string
	FailOn     string // fail, warn
	Timeout    time.Duration
	Allow      []string // link, boot
	AllowMgmt  bool
	Confirm    string // manual, auto
	PlanHash   string
	Txn        string
	Root       string

	Check bool // check mode: nothing may be changed
	Diff  bool // differences are shown
}

// option is one option of a task.
type option struct {
	states []State // with which it means something; nil: all
	take   func(*Args, json.RawMessage) error
}

var judging = []State{Checked, Fixed}

func options() map[string]option {
	return map[string]option{
		"state":      {nil, func(a *Args, v json.RawMessage) error { return word(&a.State, v, States...) }},
		"only":       {judging, func(a *Args, v json.RawMessage) error { return list(&a.Only, v) }},
		"skip":       {judging, func(a *Args, v json.RawMessage) error { return list(&a.Skip, v) }},
		"profile":    {judging, func(a *Args, v json.RawMessage) error { return layers(&a.Profile, v) }},
		"set":        {judging, func(a *Args, v json.RawMessage) error { return settings(&a.Set, v) }},
		"intent":     {judging, func(a *Args, v json.RawMessage) error { return text(&a.Intent, v) }},
		"fail_on":    {judging, func(a *Args, v json.RawMessage) error { return word(&a.FailOn, v, "fail", "warn") }},
		"timeout":    {judging, func(a *Args, v json.RawMessage) error { return duration(&a.Timeout, v) }},
		"allow":      {[]State{Fixed}, func(a *Args, v json.RawMessage) error { return words(&a.Allow, v, "link", "boot") }},
		"allow_mgmt": {[]State{Fixed}, func(a *Args, v json.RawMessage) error { return boolean(&a.AllowMgmt, v) }},
		"confirm":    {[]State{Fixed}, func(a *Args, v json.RawMessage) error { return word(&a.Confirm, v, "manual", "auto") }},
		"plan_hash":  {[]State{Fixed}, func(a *Args, v json.RawMessage) error { return hash(&a.PlanHash, v) }},
		"txn":        {[]State{Confirmed, Undone}, func(a *Args, v json.RawMessage) error { return text(&a.Txn, v) }},
		"root":       {nil, func(a *Args, v json.RawMessage) error { return text(&a.Root, v) }},
	}
}

// Options lists the names of the options, sorted.
func Options() []string { return slices.Sorted(maps.Keys(options())) }

// Parse reads the arguments of one module run. An option that is not known, is
// of the wrong type or means nothing with the state is an error. One that is
// null or empty counts as not given, as "default(omit)" leaves it.
func Parse(b []byte) (Args, error) {
	a := Args{State: Checked}
	var all map[string]json.RawMessage
	switch err := json.Unmarshal(b, &all); {
	case err != nil && len(bytes.TrimSpace(b)) == 0:
		return a, errors.New("the arguments of the task are not there: their file is empty")
	case err != nil:
		return a, fmt.Errorf("cannot read the arguments of the task: want one JSON object: %w", err)
	case all == nil:
		return a, errors.New("cannot read the arguments of the task: want one JSON object, not null")
	}
	// the mode first: a mistake elsewhere must not leave it unknown
	for name, to := range map[string]*bool{"_ansible_check_mode": &a.Check, "_ansible_diff": &a.Diff} {
		if v, ok := all[name]; ok {
			if err := json.Unmarshal(v, to); err != nil || string(v) == "null" {
				return a, fmt.Errorf("cannot read the arguments of the task: %s must be true or false, not %s", name, clipped(v))
			}
		}
	}
	known := options()
	var given []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, "_ansible_") {
			continue
		}
		o, ok := known[name]
		switch {
		case !ok:
			return a, fmt.Errorf("unknown option %.60q; known: %s", name, strings.Join(Options(), ", "))
		case empty(all[name]):
			continue
		}
		if err := o.take(&a, all[name]); err != nil {
			return a, fmt.Errorf("option %s: %w", name, err)
		}
		given = append(given, name)
	}
	for _, name := range given {
		if o := known[name]; o.states != nil && !slices.Contains(o.states, a.State) {
			return a, fmt.Errorf("option %s goes with state %s, not with %s", name, join(o.states, " or "), a.State)
		}
	}
	return a, nil
}

// empty is what a template leaves of an option that is not wanted.
func empty(v json.RawMessage) bool {
	switch string(v) {
	case "null", `""`, "[]", "{}":
		return true
	}
	return false
}

func clipped(v []byte) string { return fmt.Sprintf("%.60q", v) }

func join[T ~string](all []T, with string) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = string(v)
	}
	return strings.Join(s, with)
}

// scalar is a text, a number or a truth value as text: a template may give any
// of them.
func scalar(v json.RawMessage) (string, error) {
	var s string
	var n json.Number
	var b bool
	switch {
	case string(v) == "null":
	case json.Unmarshal(v, &b) == nil:
		return strconv.FormatBool(b), nil
	case v[0] != '"' && json.Unmarshal(v, &n) == nil:
		return n.String(), nil
	case json.Unmarshal(v, &s) == nil:
		if strings.ContainsRune(s, 0) {
			return "", errors.New("it holds a NUL byte")
		}
		return s, nil
	}
	return "", fmt.Errorf("want a text, not %s", clipped(v))
}

func text(to *string, v json.RawMessage) (err error) {
	*to, err = scalar(v)
	return err
}

func word[T ~string](to *T, v json.RawMessage, known ...T) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	if !slices.Contains(known, T(s)) {
		return fmt.Errorf("want %s, not %.60q", join(known, " or "), s)
	}
	*to = T(s)
	return nil
}

// boolean takes what Ansible takes for one.
func boolean(to *bool, v json.RawMessage) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	switch strings.ToLower(s) {
	case "true", "yes", "on", "y", "t", "1":
		*to = true
	case "false", "no", "off", "n", "f", "0":
		*to = false
	default:
		return fmt.Errorf("want true or false, not %.60q", s)
	}
	return nil
}

// list takes a list, or a text with commas between the parts.
func list(to *[]string, v json.RawMessage) error {
	var all []json.RawMessage
	if json.Unmarshal(v, &all) != nil {
		s, err := scalar(v)
		if err != nil {
			return fmt.Errorf("want a list of texts, not %s", clipped(v))
		}
		for part := range strings.SplitSeq(s, ",") {
			*to = append(*to, strings.TrimSpace(part))
		}
		return nil
	}
	for _, v := range all {
		s, err := scalar(v)
		if err != nil {
			return err
		}
		*to = append(*to, s)
	}
	return nil
}

func words(to *[]string, v json.RawMessage, known ...string) error {
	if err := list(to, v); err != nil {
		return err
	}
	for _, s := range *to {
		if !slices.Contains(known, s) {
			return fmt.Errorf("want %s, not %.60q", strings.Join(known, " or "), s)
		}
	}
	return nil
}

// profileSchema is what a profile begins with; a task need not say so.
const profileSchema = "hostcheck.profile/v1"

// layers takes names of profiles, and mappings, which are profiles.
func layers(to *[]Layer, v json.RawMessage) error {
	var all []json.RawMessage
	if json.Unmarshal(v, &all) != nil {
		all = []json.RawMessage{v}
	}
	for _, v := range all {
		if v[0] != '{' {
			var names []string
			if err := list(&names, v); err != nil {
				return fmt.Errorf("want names of profiles, or mappings with their values: %w", err)
			}
			for _, n := range names {
				*to = append(*to, Layer{Name: n})
			}
			continue
		}
		// written anew: JSON may spell a character as two escapes, which YAML may not
		var values map[string]any
		d := json.NewDecoder(bytes.NewReader(v))
		d.UseNumber()
		if err := d.Decode(&values); err != nil {
			return err
		}
		if _, ok := values["schema"]; !ok {
			values["schema"] = profileSchema
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ") // a mistake is shown with its line
		if err := e.Encode(values); err != nil {
			return err
		}
		*to = append(*to, Layer{Text: b.Bytes()})
	}
	return nil
}

// settings takes a mapping of keys to values, or a list of KEY=VALUE.
func settings(to *[]string, v json.RawMessage) error {
	var all map[string]json.RawMessage
	switch {
	case v[0] == '[':
		return list(to, v)
	case json.Unmarshal(v, &all) != nil: // one setting, commas and all
		s, err := scalar(v)
		*to = append(*to, s)
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		v := all[key]
		if v[0] == '[' {
			*to = append(*to, key+"="+string(v)) // a list in YAML as in JSON
			continue
		}
		s, err := scalar(v)
		if err != nil {
			return fmt.Errorf("%s: want a value or a list of them; what is deeper goes into profile: %w", key, err)
		}
		*to = append(*to, key+"="+s)
	}
	return nil
}

// duration takes "90s" or "2m", or a number of seconds.
func duration(to *time.Duration, v json.RawMessage) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(n, 'f', -1, 64) + "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("want a time such as 90s or 2m, or a number of seconds, not %.60q", s)
	}
	*to = d
	return nil
}

func hash(to *string, v json.RawMessage) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("want the 64 hexadecimal digits that a plan ends with, not %.80q", s)
	}
	*to = s
	return nil
}
