// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// set applies the --set settings in order: "hugepages.default_size=1G",
// "nics.rdma.speed_mbps=200000" (entries of lists by id), "inventory.gpus=8".
// The value is YAML of one line; a list may also be written a,b. An id that
// does not exist makes a new rule, which must be complete in the end.
func (m *merger) set(settings []string) error {
	var probs Problems
	touched := &touchedRules{made: map[string]bool{}}
	for _, text := range settings {
		s := &source{name: "--set " + clipped(text), what: profileFormat, ours: true}
		key, val, ok := strings.Cut(text, "=")
		if !ok {
			s.fail(0, 0, "want key=value, as in hugepages.default_size=1G")
		} else {
			m.setOne(s, strings.Split(key, "."), val, touched)
		}
		probs = append(probs, s.probs...)
	}
	if len(probs) > 0 {
		return probs
	}
	for _, key := range touched.keys {
		list, id := key[:strings.LastIndexByte(key, '.')], key[strings.LastIndexByte(key, '.')+1:]
		r := m.find(list, id)
		if r == nil {
			continue // dropped
		}
		msg := ""
		for _, f := range fields(reflect.TypeOf(r).Elem()) {
			msg = first(msg, r.check(f.key))
		}
		switch {
		case msg == "":
		case touched.made[key]:
			probs = append(probs, Problem{File: "--set " + key, Msg: fmt.Sprintf("there is no rule %q in %s (there are: %s), and as a new one it is not complete: %s",
				id, list, strings.Join(m.ids(list, id), ", "), msg)})
		default:
			probs = append(probs, Problem{File: "--set " + key, Msg: msg})
		}
	}
	return probs.err()
}

// touchedRules are the rules that --set changed, in order, by key.
type touchedRules struct {
	keys []string
	made map[string]bool // those that were not there
}

func (t *touchedRules) add(key string, made bool) {
	if !slices.Contains(t.keys, key) {
		t.keys = append(t.keys, key)
		t.made[key] = made
	}
}

func (m *merger) setOne(s *source, keys []string, val string, touched *touchedRules) {
	v, f, done := reflect.ValueOf(m.to).Elem(), field{}, ""
	var in rule
	for _, key := range keys {
		switch {
		case v.Kind() == reflect.Struct && !isValue(v):
			fs := fields(v.Type())
			i := slices.IndexFunc(fs, func(f field) bool { return f.key == key })
			if i < 0 || isScope(key) {
				s.fail(0, 0, "%s", unknownWord("key", join(done, key), under(done, fs)))
				return
			}
			v, f = v.FieldByIndex(fs[i].index), fs[i]
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
			if err := forms["id"].valid(key); err != nil {
				s.fail(0, 0, "%s %.60q: %v", done, key, err)
				return
			}
			v = m.entry(v, key)
			in = v.Addr().Interface().(rule)
			made := in.origin().Layer == ""
			if made {
				in.origin().Layer = setLayer
				in.named(key)
			}
			touched.add(join(done, key), made)
		default:
			s.fail(0, 0, "%s has no key %.60q: it is a value", done, key)
			return
		}
		done = join(done, key)
	}
	if v.Kind() == reflect.Struct && !isValue(v) || v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
		s.fail(0, 0, "%s is not a value; name one of its keys", done)
		return
	}
	n := s.oneLine(val, v)
	if n == nil {
		return
	}
	before := len(s.probs)
	s.into(n, v, f)
	if len(s.probs) > before {
		return
	}
	o := Origin{Layer: setLayer}
	leaf := v
	x, isVal := v.Addr().Interface().(value)
	if isVal {
		x.mark(o)
		leaf = x.elem()
	}
	m.note(Row{Key: done, Value: text(leaf), Origin: o, Applied: true})
	switch {
	case in == nil || isVal:
	case f.key == "id":
		s.fail(0, 0, "an id cannot be changed")
	case f.key == "drop" && in.dropped():
		list := keys[:len(keys)-2]
		remove(m.at(list), in.ruleID())
		m.replaced(strings.Join(keys[:len(keys)-1], "."), "dropped by "+setLayer)
	default:
		*in.origin() = o // what the layer's source says is no longer what the rule says
	}
}

const setLayer = "--set"

func isValue(v reflect.Value) bool { _, ok := v.Addr().Interface().(value); return ok }

// isScope: provenance and scope belong to files; --set is for this host, now.
func isScope(key string) bool {
	switch key {
	case "source", "why", "arch", "cpu", "page_size", "kernel", "intent":
		return true
	}
	return false
}

// oneLine gives the node of a value; a list of texts may be written a,b.
func (s *source) oneLine(val string, v reflect.Value) ast.Node {
	elem := v
	if x, ok := v.Addr().Interface().(value); ok {
		elem = x.elem()
	}
	if strings.TrimSpace(val) == "" {
		s.fail(0, 0, "no value is given")
		return nil
	}
	pos := &token.Position{Line: 1, Column: 1}
	switch {
	case elem.Kind() == reflect.String:
		return ast.String(token.New(val, val, pos)) // as it is: no quoting on top of the shell's
	case elem.Kind() == reflect.Slice && !strings.HasPrefix(strings.TrimSpace(val), "["):
		if elem.Type().Elem().Kind() != reflect.String {
			return s.parse([]byte("[" + val + "]"))
		}
		seq := ast.Sequence(token.New("[", "[", pos), true)
		for part := range strings.SplitSeq(val, ",") {
			seq.Values = append(seq.Values, ast.String(token.New(part, part, pos)))
		}
		return seq
	}
	return s.parse([]byte(val))
}

// entry gives the entry of a list by id, and makes it when there is none.
func (m *merger) entry(list reflect.Value, id string) reflect.Value {
	for i := range list.Len() {
		if list.Index(i).Addr().Interface().(rule).ruleID() == id {
			return list.Index(i)
		}
	}
	list.Set(reflect.Append(list, reflect.New(list.Type().Elem()).Elem()))
	return list.Index(list.Len() - 1)
}

// find gives a rule by id, or nil.
func (m *merger) find(list, id string) rule {
	v := m.at(strings.Split(list, "."))
	for i := range v.Len() {
		if r := v.Index(i).Addr().Interface().(rule); r.ruleID() == id {
			return r
		}
	}
	return nil
}

// at follows keys that name structs and lists.
func (m *merger) at(keys []string) reflect.Value {
	v := reflect.ValueOf(m.to).Elem()
	for _, key := range keys {
		for _, f := range fields(v.Type()) {
			if f.key == key {
				v = v.FieldByIndex(f.index)
				break
			}
		}
	}
	return v
}

func (m *merger) ids(list, except string) (ids []string) {
	v := m.at(strings.Split(list, "."))
	for i := range v.Len() {
		if id := v.Index(i).Addr().Interface().(rule).ruleID(); id != except {
			ids = append(ids, id)
		}
	}
	if ids == nil {
		return []string{"none"}
	}
	return ids
}

func under(prefix string, fs []field) (keys []string) {
	for _, f := range fs {
		if !isScope(f.key) {
			keys = append(keys, join(prefix, f.key))
		}
	}
	return keys
}
