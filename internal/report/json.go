// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
)

// JSON gives v as every JSON output of hostcheck is written: indented by two
// spaces, "<" and "&" as they are, one newline at the end. A report is one
// line for each of its keys and for each finding: a large host has thousands,
// and a line is what diff and grep show.
func JSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if r, ok := v.(*Report); ok {
		err := r.write(&b, e)
		return b.Bytes(), err
	}
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// write writes the keys in the order of the struct; the findings come last.
func (r *Report) write(b *bytes.Buffer, e *json.Encoder) error {
	b.Grow(512 * (len(r.Findings) + 2))
	value := func(v any) error {
		err := e.Encode(v)
		b.Truncate(b.Len() - 1) // the encoder's newline
		return err
	}
	for i, f := range []struct {
		key string
		v   any
	}{{"schema", r.Schema}, {"tool", r.Tool}, {"host", r.Host}, {"profile", r.Profile}, {"summary", r.Summary}} {
		b.WriteString([]string{"{\n  \"", ",\n  \""}[min(i, 1)] + f.key + "\": ")
		if err := value(f.v); err != nil {
			return err
		}
	}
	b.WriteString(",\n  \"findings\": [")
	for i := range r.Findings {
		b.WriteString([]string{"\n    ", ",\n    "}[min(i, 1)])
		if err := value(&r.Findings[i]); err != nil {
			return err
		}
	}
	if len(r.Findings) > 0 {
		b.WriteString("\n  ")
	}
	b.WriteString("]\n}\n")
	return nil
}
