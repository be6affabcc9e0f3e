// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"
)

// WaiverPath is where a host's waivers are, on the host that is judged.
const WaiverPath = "/etc/hostcheck/waivers.yaml"

// WaiverSchema is the format of that file that this version reads.
const WaiverSchema = "hostcheck.waivers/v1"

// Waiver is somebody's decision to live with the findings of one check for a time.
type Waiver struct {
	Check   string `yaml:"check" form:"checkid" doc:"ID of the check"`
	Subject string `yaml:"subject" form:"glob" doc:"glob on a finding's subject or on one word of it; every subject when left out"`
	Until   string `yaml:"until" form:"day" doc:"last day on which it holds, UTC: 2027-03-31"`
	Owner   string `yaml:"owner" form:"line" doc:"who answers for it"`
	Reason  string `yaml:"reason" form:"line" doc:"why, for those who read the report"`

	line int // where it begins
	next int // where the next one begins, or what follows the list; 0: at the end of the text
	list int // column of its dash; 0 in a flow list
}

// Waivers is a file of them.
type Waivers struct {
	List []Waiver
	text string
}

// waiverFile is what stands in the file.
type waiverFile struct {
	Schema  string   `yaml:"schema" form:"waivers" doc:"format of the file"`
	Waivers []Waiver `yaml:"waivers" doc:"one entry per decision"`
}

// check makes every key but the subject needed.
func (w *Waiver) check(key string) string {
	v := map[string]string{"check": w.Check, "until": w.Until, "owner": w.Owner, "reason": w.Reason}
	if text, needed := v[key]; needed && text == "" {
		return "the waiver needs " + key
	}
	return ""
}

const dayForm = "2006-01-02"

func checkDay(s string) error {
	if _, err := time.Parse(dayForm, s); err != nil {
		return errors.New("there is no such day")
	}
	return nil
}

// Expired reports whether the last day has passed at that time.
func (w *Waiver) Expired(now time.Time) bool {
	day, err := time.Parse(dayForm, w.Until)
	return err != nil || !now.Before(day.AddDate(0, 0, 1))
}

// Covers reports whether the waiver is for a finding, whenever.
func (w *Waiver) Covers(check, subject string) bool {
	if w.Check != check {
		return false
	}
	if w.Subject == "" {
		return true
	}
	for _, s := range append(strings.Fields(subject), subject) {
		if ok, _ := path.Match(w.Subject, s); ok {
			return true
		}
	}
	return false
}

func (w *Waiver) same(o *Waiver) bool { return w.Check == o.Check && w.Subject == o.Subject }

// String names it for people: "link.speed on eth0".
func (w *Waiver) String() string {
	if w.Subject == "" {
		return w.Check
	}
	return w.Check + " on " + w.Subject
}

// ParseWaivers decodes a file of waivers, as strictly as a profile: what is
// not understood is a mistake, never left out.
func ParseWaivers(name string, data []byte) (*Waivers, error) {
	s := &source{name: name, what: waiverFormat}
	root := s.parse(data)
	if root == nil {
		return nil, s.probs.err()
	}
	entries, ok := pairs(root)
	if !ok {
		s.failAt(root, "%s is a mapping that starts with schema: %s", s.what.noun, s.what.schema)
		return nil, s.probs
	}
	var f waiverFile
	s.into(root, reflect.ValueOf(&f).Elem(), field{})
	s.named(f.Schema)
	if err := s.probs.err(); err != nil {
		return nil, err
	}
	ws := &Waivers{f.Waivers, string(data)}
	s.places(entries, ws.List)
	for i := range ws.List {
		if j := slices.IndexFunc(ws.List[:i], func(o Waiver) bool { return o.same(&ws.List[i]) }); j >= 0 {
			s.fail(ws.List[i].line, 1, "%s is waived twice, first in line %d", &ws.List[i], ws.List[j].line)
		}
	}
	if err := s.probs.err(); err != nil {
		return nil, err
	}
	return ws, nil
}

// NewWaiver judges a waiver that somebody gives.
func NewWaiver(w Waiver) (Waiver, error) {
	v := reflect.ValueOf(&w).Elem()
	for _, f := range fields(v.Type()) {
		text := v.FieldByIndex(f.index).String()
		if msg := w.check(f.key); msg != "" {
			return w, errors.New(msg)
		}
		if text == "" {
			continue
		}
		if err := f.valid(text); err != nil {
			return w, fmt.Errorf("%s %.60q: %w", f.key, text, err)
		}
	}
	return w, nil
}
