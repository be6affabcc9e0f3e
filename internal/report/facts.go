// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// member is one key of an object, in its written order.
type member struct {
	key   string
	value any // string, json.Number, bool, nil, []any or object
}

type object []member

// Facts gives facts as text, from their JSON: one block per key, "key value"
// lines aligned, and for the entries of a list "key=value" words. Facts that are
// not known are listed with the reason at the end of their object.
func (t Text) Facts(doc []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	v, err := decodeValue(d)
	if err != nil {
		return "", err
	}
	top, ok := v.(object)
	if !ok {
		return "", errors.New("facts are not an object")
	}
	p := t.printer()
	unknown := take(&top, "unknown")
	for i, m := range top {
		if i > 0 {
			p.line("")
		}
		p.factArea(m, unknown)
	}
	return t.finish(&p.b), nil
}

// take removes the member of a key whose value is an object, and gives it.
func take(o *object, key string) object {
	for i, m := range *o {
		if v, ok := m.value.(object); ok && m.key == key {
			*o = slices.Delete(slices.Clone(*o), i, i+1)
			return v
		}
	}
	return nil
}

func (o object) get(key string) (any, bool) {
	for _, m := range o {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

func decodeValue(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	switch delim {
	case '{':
		o := object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeValue(d)
			if err != nil {
				return nil, err
			}
			o = append(o, member{key.(string), v})
		}
		_, err = d.Token()
		return o, err
	case '[':
		list := []any{}
		for d.More() {
			v, err := decodeValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return nil, fmt.Errorf("unexpected %v", delim)
}

func (p *printer) factArea(m member, unknown object) {
	switch v := m.value.(type) {
	case object:
		p.line(p.bold.Render(m.key))
		p.tree(v, 2)
	case []any:
		p.line(p.bold.Render(m.key) + p.dim.Render(fmt.Sprintf("  (%d)", len(v))))
		p.entries(v, 2)
	case nil:
		p.nothing(0, m.key, 0, unknown)
	default:
		p.line(p.bold.Render(m.key) + "  " + scalar(v))
	}
}

// many is how many plain values a text without Verbose lists.
const many = 64

// tree writes an object's members below each other, keys padded to one width.
func (p *printer) tree(o object, indent int) {
	unknown := take(&o, "unknown")
	width := 0
	for _, m := range o {
		if _, nested := m.value.(object); !nested && !isRecords(m.value) {
			width = max(width, len(m.key))
		}
	}
	width = min(width, 24)
	lead := strings.Repeat(" ", indent)
	for _, m := range o {
		switch v := m.value.(type) {
		case object:
			switch {
			case len(v) == 0:
				p.fact(indent, m.key, width, "none", p.plain)
			case flat(v) && len(v) > many && !p.Verbose: // a kernel configuration, for example
				p.fact(indent, m.key, width, fmt.Sprintf("%d values; -v lists them", len(v)), p.dim)
			case flat(v) && len(v) > 12:
				p.fact(indent, m.key, width, words(v, nil, ""), p.plain)
			default:
				p.line(lead + p.id.Render(m.key))
				p.tree(v, indent+2)
			}
		case []any:
			switch {
			case isRecords(v):
				p.line(lead + p.id.Render(m.key) + p.dim.Render(fmt.Sprintf("  (%d)", len(v))))
				p.entries(v, indent+2)
			case len(v) > many && !p.Verbose:
				p.fact(indent, m.key, width, fmt.Sprintf("%d values; -v lists them", len(v)), p.dim)
			default:
				p.fact(indent, m.key, width, list(v), p.plain)
			}
		case nil:
			p.nothing(indent, m.key, width, unknown)
		default:
			p.fact(indent, m.key, width, scalar(v), p.plain)
		}
	}
	p.unknown(o, unknown, indent)
}

// nothing writes a fact that is null: not known, with the reason, or not there.
func (p *printer) nothing(indent int, key string, width int, unknown object) {
	if why, ok := unknown.get(key); ok {
		p.fact(indent, key, width, "unknown: "+scalar(why), p.magenta)
		return
	}
	p.fact(indent, key, width, "none", p.plain) // null without a reason is not there
}

func (p *printer) fact(indent int, key string, width int, text string, style lipgloss.Style) {
	at := indent + max(width, len(key)) + 2
	for i, l := range wrap(text, p.width()-at) {
		lead := strings.Repeat(" ", at)
		if i == 0 {
			lead = strings.Repeat(" ", indent) + p.id.Render(key) + strings.Repeat(" ", at-indent-len(key))
		}
		p.line(lead + style.Render(l))
	}
}

// unknown writes the reasons that stand beside no null member of o.
func (p *printer) unknown(o, unknown object, indent int) {
	for _, m := range unknown {
		if v, ok := o.get(m.key); !ok || v != nil {
			p.fact(indent, m.key, 0, "unknown: "+scalar(m.value), p.magenta)
		}
	}
}

// entries writes each entry of a list: what names it, then the rest as words
// beside it.
func (p *printer) entries(entries []any, indent int) {
	width := 2 // of the names, or of a dash
	for _, e := range entries {
		if name, _ := naming(e); name != "" {
			width = max(width, min(lipgloss.Width(name)+2, 26))
		}
	}
	lead := strings.Repeat(" ", indent)
	at := indent + width
	for _, e := range entries {
		o, ok := e.(object)
		if !ok {
			p.line(lead + value(e))
			continue
		}
		name, o := naming(o)
		first := lead + pad("-", width)
		if name != "" {
			first = lead + p.id.Render(name) + strings.Repeat(" ", max(0, width-lipgloss.Width(name)))
		}
		if lipgloss.Width(name)+2 > width && name != "" {
			p.line(first)
			first = strings.Repeat(" ", at)
		}
		unknown := take(&o, "unknown")
		o = slices.Clone(o)
		for i, m := range o { // what is not known in a nested object is told with the rest
			if in, ok := m.value.(object); ok {
				for _, u := range take(&in, "unknown") {
					unknown = append(unknown, member{m.key + "." + u.key, u.value})
				}
				o[i].value = in
			}
		}
		var nested object // lists of further entries stand below
		o = slices.DeleteFunc(o, func(m member) bool {
			if isRecords(m.value) {
				nested = append(nested, m)
				return true
			}
			_, explained := unknown.get(m.key)
			return m.value == nil && explained
		})
		for i, l := range wrap(words(o, unknown, ""), p.width()-at) {
			if i > 0 {
				first = strings.Repeat(" ", at)
			}
			p.line(first + l)
		}
		for _, m := range nested {
			p.line(strings.Repeat(" ", at) + p.id.Render(m.key))
			p.entries(m.value.([]any), at+2)
		}
		if p.Verbose || len(unknown) == 1 {
			p.unknown(nil, unknown, at)
			continue
		}
		var keys []string
		for _, m := range unknown {
			keys = append(keys, m.key)
		}
		if keys != nil {
			p.fact(at, "unknown", 0, strings.Join(keys, " ")+" (-v says why)", p.magenta)
		}
	}
}

// naming is an entry's name, its first member where that is a text, and the
// rest of it.
func naming(e any) (string, object) {
	o, _ := e.(object)
	if len(o) > 0 {
		if s, ok := o[0].value.(string); ok && s != "" {
			return Clean(s), o[1:]
		}
	}
	return "", o
}

// isRecords reports whether v is a list of objects.
func isRecords(v any) bool {
	l, ok := v.([]any)
	if !ok || len(l) == 0 {
		return false
	}
	_, ok = l[0].(object)
	return ok
}

func flat(o object) bool {
	for _, m := range o {
		switch m.value.(type) {
		case object, []any:
			return false
		}
	}
	return true
}

// words is an object as "key=value" words, nested ones in braces; "?" is a
// null that unknown, whose keys are paths, explains.
func words(o, unknown object, path string) string {
	var b strings.Builder
	for _, m := range o {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(Clean(m.key))
		b.WriteByte('=')
		at := path + m.key
		if in, ok := m.value.(object); ok {
			b.WriteString("{" + words(in, unknown, at+".") + "}")
		} else if _, ok := unknown.get(at); ok && m.value == nil {
			b.WriteByte('?')
		} else {
			b.WriteString(value(m.value))
		}
	}
	return b.String()
}

// list is a list of plain values, or of lists, for a line.
func list(l []any) string {
	if len(l) == 0 {
		return "none"
	}
	ss := make([]string, len(l))
	for i, v := range l {
		ss[i] = value(v)
	}
	return strings.Join(ss, " ")
}

// value is any value as one word where that is possible.
func value(v any) string {
	switch v := v.(type) {
	case object:
		return "{" + words(v, nil, "") + "}"
	case []any:
		ss := make([]string, len(v))
		for i, e := range v {
			ss[i] = value(e)
		}
		return "[" + strings.Join(ss, " ") + "]"
	case string:
		if v == "" || strings.ContainsAny(v, " \"=[]{}") {
			return Clean(fmt.Sprintf("%q", v))
		}
		return Clean(v)
	}
	return scalar(v)
}

// scalar is a plain value for a line of its own.
func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case string:
		return quoteEmpty(Clean(v))
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(v)
}
