// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Difference is a key for which two profiles say different things.
type Difference struct {
	Key string  `json:"key"`
	A   *string `json:"a"` // YAML in flow style; nil: it says nothing
	B   *string `json:"b"`
}

// Side is one of two profiles to compare, key by key.
type Side struct {
	keys   []string
	values map[string]string
}

func (s *Side) say(key, value string) {
	if value == "" {
		return
	}
	if _, twice := s.values[key]; twice { // one rule for several scopes
		s.values[key] += " | " + value
		return
	}
	s.keys = append(s.keys, key)
	s.values[key] = value
}

// LayerSide is a profile as one file says it, its scopes not judged.
func LayerSide(name string, data []byte) (*Side, error) {
	f, probs := parseFile(name, data)
	if len(probs) > 0 {
		return nil, probs
	}
	s := &Side{values: map[string]string{}}
	s.say("intent", f.Intent)
	s.list("roles", f.Roles)
	s.list("require", f.Require)
	s.list("strict", f.Strict)
	s.flatten("match", reflect.ValueOf(&f.Match).Elem())
	s.flatten("", reflect.ValueOf(&f.Values).Elem())
	return s, nil
}

// MergedSide is what a host is judged by.
func MergedSide(p *Profile) *Side {
	s := &Side{values: map[string]string{}}
	s.say("intent", p.Intent)
	s.list("require", p.Require)
	s.list("strict", p.Strict)
	s.flatten("", reflect.ValueOf(&p.Values).Elem())
	return s
}

func (s *Side) list(key string, words []string) {
	if len(words) > 0 {
		s.say(key, "["+strings.Join(words, ", ")+"]")
	}
}

// flatten says every leaf below v; where a value comes from and why is no part of it.
func (s *Side) flatten(key string, v reflect.Value) {
	if x, ok := v.Addr().Interface().(value); ok {
		if x.isSet() {
			s.say(key, text(x.elem())+scopeText(x.origin()))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fields(v.Type()) {
			if f.key == "source" || f.key == "why" || f.key == "instead" || f.key == "comment" || isRule(v) && (isScope(f.key) || f.key == "id") {
				continue
			}
			s.flatten(join(key, f.key), v.FieldByIndex(f.index))
		}
		if isRule(v) {
			s.say(key, strings.TrimSpace(scopeText(v.Addr().Interface().(rule).origin())))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Struct {
			if v.Len() > 0 {
				s.say(key, text(v))
			}
			return
		}
		for i := range v.Len() {
			id := fmt.Sprint(i + 1)
			if r, ok := v.Index(i).Addr().Interface().(rule); ok {
				id = r.ruleID()
			}
			s.flatten(join(key, id), v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			s.flatten(key, v.Elem())
		}
	default:
		if !v.IsZero() {
			s.say(key, fmt.Sprint(v))
		}
	}
}

func isRule(v reflect.Value) bool { _, ok := v.Addr().Interface().(rule); return ok }

// scopeText is which hosts a value is for, " (arch [amd64])".
func scopeText(o *Origin) string {
	var parts []string
	for _, l := range [...]struct {
		key   string
		words []string
	}{{"arch", o.Arch}, {"cpu", o.CPU}, {"page_size", o.PageSize}, {"intent", o.Intents}} {
		if len(l.words) > 0 {
			parts = append(parts, l.key+" ["+strings.Join(l.words, ", ")+"]")
		}
	}
	if o.Kernel != "" {
		parts = append(parts, "kernel "+o.Kernel)
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// Diff lists what two profiles say differently, in the order of a's keys and
// then of b's.
func Diff(a, b *Side) []Difference {
	out := []Difference{}
	keys := slices.Clone(a.keys)
	for _, k := range b.keys {
		if _, both := a.values[k]; !both {
			keys = append(keys, k)
		}
	}
	get := func(s *Side, k string) *string {
		if v, ok := s.values[k]; ok {
			return &v
		}
		return nil
	}
	for _, k := range keys {
		d := Difference{k, get(a, k), get(b, k)}
		if d.A == nil || d.B == nil || *d.A != *d.B {
			out = append(out, d)
		}
	}
	return out
}
