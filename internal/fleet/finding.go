// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

// finding is what is read of a finding; its texts are parts of the report's
// bytes where they hold no escapes.
type finding struct {
	check, title, subject, want, got, why, next []byte
	status                                      check.Status
	severity                                    check.Severity
	pending, waived                             bool
	evidence                                    []evidence
}

type evidence struct{ source, value []byte }

// maxSources of a finding are compared: of one about many devices its Got sums
// them up.
const maxSources = 16

// letter is the finding's verdict.
func (f *finding) letter() byte { return letterOf(f.status, f.pending, f.waived) }

// decode takes a finding apart: after a check of the whole, which the loops
// below rely on. encoding/json would copy every text of it, and hosts have the
// same ones over and over.
func (f *finding) decode(b []byte) error {
	if !json.Valid(b) {
		return errors.New("a finding is no valid JSON")
	}
	if b[0] != '{' {
		return errors.New("a finding is no object")
	}
	*f = finding{evidence: f.evidence[:0]}
	return object(b, func(key, v []byte) error {
		var err error
		var text []byte
		switch string(key) {
		case "check":
			f.check, err = words(v)
		case "title":
			f.title, err = words(v)
		case "subject":
			f.subject, err = words(v)
		case "want":
			f.want, err = words(v)
		case "got":
			f.got, err = words(v)
		case "why":
			f.why, err = words(v)
		case "next":
			f.next, err = words(v)
		case "status":
			text, err = words(v)
			f.status = status(text)
		case "severity":
			text, err = words(v)
			f.severity = severity(text)
		case "pending":
			f.pending = v[0] == 't'
			if v[0] != 't' && v[0] != 'f' {
				err = errors.New("is neither true nor false")
			}
		case "waiver":
			f.waived = v[0] == '{'
			if v[0] != '{' && v[0] != 'n' {
				err = errors.New("is no object")
			}
		case "evidence":
			err = f.seen(v)
		}
		if err != nil {
			return fmt.Errorf("a finding cannot be decoded: its %s %w", clip(key, 30), err)
		}
		return nil
	})
}

// seen takes the evidence apart, and keeps the first of each source.
func (f *finding) seen(b []byte) error {
	return each(b, func(i int) (int, error) {
		end, err := extent(b, i)
		if err != nil {
			return i, err
		}
		if b[i] != '{' {
			return i, errors.New("is no list of objects")
		}
		var e evidence
		err = object(b[i:end], func(key, v []byte) (err error) {
			switch string(key) {
			case "source":
				e.source, err = words(v)
			case "value":
				e.value, err = words(v)
			}
			return err
		})
		if err != nil {
			return i, err
		}
		known := func(k evidence) bool { return bytes.Equal(k.source, e.source) }
		if len(e.source) > 0 && len(f.evidence) < maxSources && !slices.ContainsFunc(f.evidence, known) {
			f.evidence = append(f.evidence, e)
		}
		return end, nil
	})
}

// object calls f for each key and value of a valid JSON object.
func object(b []byte, f func(key, value []byte) error) error {
	for i := space(b, 1); b[i] != '}'; {
		end, err := stringEnd(b, i)
		if err != nil {
			return err
		}
		key, err := words(b[i:end])
		if err != nil {
			return err
		}
		i = space(b, space(b, end)+1) // behind the colon
		if end, err = extent(b, i); err != nil {
			return err
		}
		if err := f(key, b[i:end]); err != nil {
			return err
		}
		if i = space(b, end); b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return nil
}

// words gives the text of a valid JSON string, nil of null.
func words(b []byte) ([]byte, error) {
	switch {
	case b[0] == 'n':
		return nil, nil
	case b[0] != '"':
		return nil, errors.New("is no text")
	case slices.Contains(b, '\\'):
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, err
		}
		return []byte(s), nil
	}
	return b[1 : len(b)-1], nil
}

// status is the constant of a status that is known, else a copy.
func status(b []byte) check.Status {
	for _, s := range check.Statuses {
		if string(b) == string(s) {
			return s
		}
	}
	return check.Status(clip(b, 30))
}

// severity is one that is known, else "".
func severity(b []byte) check.Severity {
	for _, s := range []check.Severity{check.High, check.Medium, check.Low, check.Info} {
		if string(b) == string(s) {
			return s
		}
	}
	return ""
}
