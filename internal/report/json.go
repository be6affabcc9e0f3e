// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
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
		return printable(b.Bytes()), err
	}
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return printable(b.Bytes()), nil
}

// printable escapes in JSON what could drive a terminal or hide text: DEL, the
// C1 controls, and format characters such as those that reverse the order of
// letters. All of them can only stand in strings.
func printable(b []byte) []byte {
	hides := func(r rune) bool { return r >= 0x7f && (r <= 0x9f || unicode.Is(unicode.Cf, r)) }
	if bytes.IndexFunc(b, hides) < 0 {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/8)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if hides(r) {
			for _, u := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, u)
			}
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
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
