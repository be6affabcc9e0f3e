// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Row is one value of one layer, for people: see [Profile.Rows].
type Row struct {
	Key     string `json:"key"`   // "hugepages.default_size", "nics.rdma.speed_mbps"
	Value   string `json:"value"` // as in YAML
	Origin  Origin `json:"-"`
	Applied bool   `json:"applied"`
	Why     string `json:"why"` // why it is not applied, or what could not be judged about its scope
}

// merger lays layers over each other.
type merger struct {
	to       *Values
	platform *Platform
	intent   string
	assumed  bool
	rows     []Row
	now      map[string]int // key to the row that applies
}

func (m *merger) layer(f *file) {
	m.merge("", reflect.ValueOf(m.to).Elem(), reflect.ValueOf(&f.Values).Elem())
}

func (m *merger) merge(key string, to, from reflect.Value) {
	if v, ok := from.Addr().Interface().(value); ok {
		if !v.isSet() {
			return
		}
		own := reflect.New(from.Type()).Elem() // the layer is shared by all loads
		own.Set(from)
		if m.applies(key, own.Addr().Interface().(value)) {
			to.Set(own)
		}
		return
	}
	switch from.Kind() {
	case reflect.Slice:
		for i := range from.Len() {
			m.rule(key, to, from.Index(i))
		}
	case reflect.Struct:
		for _, f := range fields(from.Type()) {
			m.merge(join(key, f.key), to.FieldByIndex(f.index), from.FieldByIndex(f.index))
		}
	default: // every leaf of Values is a value or within a rule
	}
}

// applies judges a value's scope and notes it as a row.
func (m *merger) applies(key string, v value) bool {
	o := v.origin()
	ok, assumed, why := m.platform.covers(*o, m.intent, m.assumed)
	o.Assumed = assumed
	m.note(Row{key, text(v.elem()), *o, ok, why})
	return ok
}

func (m *merger) note(r Row) {
	if r.Applied {
		m.replaced(r.Key, "replaced by "+r.Origin.Layer)
		m.now[r.Key] = len(m.rows)
	}
	m.rows = append(m.rows, r)
}

// replaced marks the row of a key, and those below it, as no longer applied.
func (m *merger) replaced(key, why string) {
	for k, i := range m.now {
		if k == key || strings.HasPrefix(k, key+".") {
			m.rows[i].Applied, m.rows[i].Why = false, why
			delete(m.now, k)
		}
	}
}

// rule merges one entry of a list with ids. A replaced entry moves to the end,
// since of several rules the last one wins.
func (m *merger) rule(key string, to, from reflect.Value) {
	entry := reflect.New(from.Type()).Elem()
	entry.Set(from)
	r := entry.Addr().Interface().(rule)
	key = join(key, r.ruleID())
	o := r.origin()
	ok, assumed, why := m.platform.covers(*o, m.intent, m.assumed)
	o.Assumed = assumed
	if r.dropped() {
		row := Row{key, "drop", *o, ok, why}
		if ok {
			row.Applied = false
			row.Why = "there is no such rule to drop"
			if remove(to, r.ruleID()) {
				m.replaced(key, "dropped by "+o.Layer)
				row.Applied, row.Why = true, why
			}
		}
		m.rows = append(m.rows, row)
		return
	}
	m.note(Row{key, r.headline(), *o, ok, why})
	if !ok {
		return
	}
	for _, f := range fields(entry.Type()) {
		if v, is := entry.FieldByIndex(f.index).Addr().Interface().(value); is && v.isSet() {
			// A value of a rule that applies by assumption does so too.
			if !m.applies(join(key, f.key), v) {
				v.clear()
			} else if assumed {
				v.origin().Assumed = true
			}
		}
	}
	remove(to, r.ruleID())
	to.Set(reflect.Append(to, entry))
}

func remove(list reflect.Value, id string) bool {
	for i := range list.Len() {
		if list.Index(i).Addr().Interface().(rule).ruleID() == id {
			// A copy: layers share no memory with the merged values.
			rest := reflect.MakeSlice(list.Type(), 0, list.Len())
			rest = reflect.AppendSlice(rest, list.Slice(0, i))
			list.Set(reflect.AppendSlice(rest, list.Slice(i+1, list.Len())))
			return true
		}
	}
	return false
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}

// text writes a leaf as YAML would in flow style.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		var s []string
		for i := range v.Len() {
			s = append(s, fmt.Sprint(v.Index(i)))
		}
		return "[" + strings.Join(s, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// canonical gives the merged values as plain data: what decides verdicts, and
// nothing about where it was written.
func canonical(v reflect.Value) any {
	if x, ok := v.Addr().Interface().(value); ok {
		if !x.isSet() {
			return nil
		}
		d := map[string]any{"value": x.elem().Interface()}
		if x.origin().Assumed {
			d["assumed"] = true
		}
		return d
	}
	switch v.Kind() {
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = canonical(v.Index(i))
		}
		if len(list) == 0 {
			return nil
		}
		return list
	case reflect.Struct:
		m := map[string]any{}
		for _, f := range fields(v.Type()) {
			switch f.key {
			case "source", "why", "instead", "arch", "cpu", "page_size", "kernel", "intent":
				continue // said already by what was merged, or for people only
			}
			if c := canonical(v.FieldByIndex(f.index)); c != nil {
				m[f.key] = c
			}
		}
		if r, ok := v.Addr().Interface().(rule); ok && r.origin().Assumed {
			m["assumed"] = true
		}
		if len(m) == 0 {
			return nil
		}
		return m
	case reflect.String:
		if v.Len() == 0 {
			return nil
		}
	case reflect.Bool:
		if !v.Bool() {
			return nil
		}
	default:
	}
	return v.Interface()
}

// canonicalJSON is the text that the hash is over; keys are sorted.
func (p *Profile) canonicalJSON() []byte {
	all := map[string]any{
		"schema": SchemaV1, "intent": p.Intent, "require": p.Require,
		"values": canonical(reflect.ValueOf(&p.Values).Elem()),
	}
	if len(p.Strict) > 0 {
		all["strict"] = p.Strict
	}
	data, err := json.Marshal(all)
	if err != nil {
		panic(err) // maps of strings, numbers and lists always have a JSON form
	}
	return data
}
