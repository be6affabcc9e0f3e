// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
	for i, m := range top {
		if i > 0 {
			p.line("")
		}
		p.factArea(m)
	}
	return t.finish(&p.b), nil
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

func (p *printer) factArea(m member) {
	switch v := m.value.(type) {
	case object:
		p.line(p.bold.Render(m.key))
		p.tree(v, 2)
	case []any:
		p.line(p.bold.Render(m.key) + p.dim.Render(fmt.Sprintf("  (%d)", len(v))))
		p.entries(v, 2)
	default:
		p.line(p.bold.Render(m.key) + "  " + scalar(v))
	}
}

// tree writes an object's members below each other, keys padded to one width.
func (p *printer) tree(o object, indent int) {
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
			if m.key == "unknown" {
				p.unknown(v, indent)
				continue
			}
			if len(v) == 0 {
				p.fact(indent, m.key, width, "none")
				continue
			}
			if flat(v) && len(v) > 12 { // a kernel configuration, for example
				p.fact(indent, m.key, width, words(v))
				continue
			}
			p.line(lead + p.id.Render(m.key))
			p.tree(v, indent+2)
		case []any:
			if !isRecords(v) {
				p.fact(indent, m.key, width, list(v))
				continue
			}
			p.line(lead + p.id.Render(m.key) + p.dim.Render(fmt.Sprintf("  (%d)", len(v))))
			p.entries(v, indent+2)
		default:
			p.fact(indent, m.key, width, scalar(v))
		}
	}
}

func (p *printer) fact(indent int, key string, width int, text string) {
	at := indent + max(width, len(key)) + 2
	for i, l := range wrap(text, p.width()-at) {
		lead := strings.Repeat(" ", at)
		if i == 0 {
			lead = strings.Repeat(" ", indent) + p.id.Render(key) + strings.Repeat(" ", at-indent-len(key))
		}
		p.line(lead + l)
	}
}

func (p *printer) unknown(o object, indent int) {
	for _, m := range o {
		p.labelled(indent, "?", m.key+": "+scalar(m.value), p.magenta)
	}
}

// entries writes each entry of a list: what names it, then the rest as words.
func (p *printer) entries(entries []any, indent int) {
	lead := strings.Repeat(" ", indent)
	for _, e := range entries {
		o, ok := e.(object)
		if !ok {
			p.line(lead + value(e))
			continue
		}
		name := ""
		if len(o) > 0 {
			if s, ok := o[0].value.(string); ok {
				name, o = Clean(s), o[1:]
			}
		}
		var unknown object
		if n := len(o); n > 0 && o[n-1].key == "unknown" {
			unknown, _ = o[n-1].value.(object)
			o = o[:n-1]
		}
		at := indent
		if name != "" {
			p.line(lead + p.id.Render(name))
			at += 2
		}
		for i, l := range wrap(words(o), p.width()-at-2) {
			hang := at
			if i > 0 && name == "" {
				hang += 2
			}
			if l != "" {
				p.line(strings.Repeat(" ", hang) + l)
			}
		}
		p.unknown(unknown, at)
	}
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

// words is an object as "key=value" words, nested ones in braces.
func words(o object) string {
	var b strings.Builder
	for _, m := range o {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(Clean(m.key))
		b.WriteByte('=')
		b.WriteString(value(m.value))
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
		return "{" + words(v) + "}"
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
		return "unknown"
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
