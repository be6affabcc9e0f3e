// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// file is one profile file. Every key has a tag that says what it takes:
// "range", "enum" or "form"; the JSON schema is made of the same tags.
type file struct {
	Schema  string   `yaml:"schema" form:"schema" doc:"format of the file"`
	Name    string   `yaml:"name" form:"id" doc:"name of the layer"`
	Layer   string   `yaml:"layer" enum:"base,platform,device,role,site" doc:"kind of the layer"`
	Title   string   `yaml:"title" doc:"one line about the layer"`
	Doc     string   `yaml:"doc" doc:"more about the layer"`
	Source  string   `yaml:"source" doc:"source of every value in the file that names none itself"`
	Intent  string   `yaml:"intent" form:"intent" doc:"what the host is for; states the intent"`
	Require []string `yaml:"require" form:"checkglob" doc:"checks that must be judged: if one is unknown or in error, the run is incomplete"`
	Roles   []string `yaml:"roles" form:"role" doc:"layers of hostcheck to merge before this file, whether or not they match the host"`
	Match   match    `yaml:"match" doc:"hosts that the layer is for; all given keys must hold"`
	Values  `yaml:",inline"`

	path string // as the user named it; the name for an embedded layer
}

// label is how the merged profile names the layer.
func (f *file) label() string { return f.path }

// parseFile decodes one file. The file is nil where the text cannot be read as
// a profile at all; otherwise it holds what is right.
func parseFile(name string, data []byte) (*file, Problems) {
	s := &source{name: name}
	root := s.parse(data)
	if root == nil {
		return nil, s.probs
	}
	f := &file{path: name}
	if _, ok := pairs(root); !ok {
		s.failAt(root, "a profile is a mapping that starts with schema: %s", SchemaV1)
		return nil, s.probs
	}
	s.into(root, reflect.ValueOf(f).Elem(), field{})
	if f.Schema == "" && !slices.ContainsFunc(s.probs, func(p Problem) bool { return strings.Contains(p.Msg, "profile/v") }) {
		s.fail(1, 1, "the file does not say its format; it starts with schema: %s", SchemaV1)
	}
	attribute(reflect.ValueOf(&f.Values).Elem(), Origin{Layer: f.label(), Source: f.Source})
	return f, s.probs
}

// field is what the tags of a struct field say about its values.
type field struct {
	key   string
	tag   reflect.StructTag
	index []int
}

func (f field) enum() []string {
	if e := f.tag.Get("enum"); e != "" {
		return strings.Split(e, ",")
	}
	return forms[f.tag.Get("form")].enum
}

// limits gives the range tag of a number.
func (f field) limits() (lo, hi int64, ok bool) {
	a, b, ok := strings.Cut(f.tag.Get("range"), "..")
	lo, errA := strconv.ParseInt(a, 10, 64)
	hi, errB := strconv.ParseInt(b, 10, 64)
	return lo, hi, ok && errA == nil && errB == nil
}

// fieldsOf is what fields found of each type: a profile has few, and many values.
var fieldsOf sync.Map

// fields lists the keys of a struct in order, those of inlined structs too.
func fields(t reflect.Type) []field {
	if fs, ok := fieldsOf.Load(t); ok {
		return fs.([]field)
	}
	fs := listFields(t)
	fieldsOf.Store(t, fs)
	return fs
}

func listFields(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, opt, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case opt == "inline":
			for _, f := range fields(sf.Type) {
				f.index = append([]int{i}, f.index...) // a new array: that of the inner struct stays
				fs = append(fs, f)
			}
		case name != "" && name != "-":
			fs = append(fs, field{name, sf.Tag, []int{i}})
		}
	}
	return fs
}

// pairs gives the entries of a mapping.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// into decodes a node into v, which f describes.
func (s *source) into(n ast.Node, v reflect.Value, f field) {
	if val, ok := v.Addr().Interface().(value); ok {
		s.val(n, val, f)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		s.mapping(n, v, f)
	case reflect.Slice:
		s.list(n, v, f)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		s.into(n, v.Elem(), f)
	default:
		s.scalar(n, v, f)
	}
}

// val decodes a value with its provenance, in either form.
func (s *source) val(n ast.Node, v value, f field) {
	var o Origin
	if _, long := pairs(n); long {
		var form struct {
			Value  any `yaml:"value"`
			Origin `yaml:",inline"`
		}
		n = s.mapping(n, reflect.ValueOf(&form).Elem(), f)["value"]
		o = form.Origin
		if _, null := n.(*ast.NullNode); null || n == nil {
			return // said by mapping
		}
	}
	before := len(s.probs)
	s.into(n, v.elem(), f)
	if len(s.probs) == before {
		o.Line = place(n).Position.Line
		v.mark(o)
	}
}

// mapping decodes the keys of a struct and gives the node of each. A key whose
// field has type any is left to the caller.
func (s *source) mapping(n ast.Node, v reflect.Value, f field) map[string]ast.Node {
	entries, ok := pairs(n)
	if !ok {
		s.failAt(n, "%s takes a mapping of keys, not %s", first(f.key, "this"), kindOf(n))
		return nil
	}
	known := fields(v.Type())
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = k.key
	}
	nodes := map[string]ast.Node{}
	lines := map[string]int{}
	for _, e := range entries {
		tk := e.Key.GetToken()
		key := tk.Value
		i := slices.Index(names, key)
		switch {
		case lines[key] != 0:
			s.failAt(e.Key, "the key %.60q stands twice; the first is in line %d", key, lines[key])
		case i < 0:
			s.failAt(e.Key, "%s", unknownWord("key", key, names))
		default:
			lines[key] = tk.Position.Line
			nodes[key] = e.Value
			if _, null := e.Value.(*ast.NullNode); null || e.Value == nil {
				s.failAt(e.Key, "%s is empty; give a value or leave the key out", key)
			} else if to := v.FieldByIndex(known[i].index); to.Kind() != reflect.Interface {
				s.into(e.Value, to, known[i])
			}
		}
	}
	if slices.Contains(names, "value") && nodes["value"] == nil {
		s.failAt(n, "%s has no value", first(f.key, "this"))
	}
	return nodes
}

// maxEntries bounds a list, and with it what a run makes of one: rules times
// devices.
const maxEntries = 1000

func (s *source) list(n ast.Node, v reflect.Value, f field) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		hint := ""
		if _, scalar := n.(ast.ScalarNode); scalar && v.Type().Elem().Kind() == reflect.String {
			hint = fmt.Sprintf("; write [%s]", clipped(n.GetToken().Value))
		}
		s.failAt(n, "%s takes a list, not %s%s", f.key, kindOf(n), hint)
		return
	}
	if n := len(seq.Values); n > maxEntries {
		s.failAt(seq, "%s has %d entries; at most %d are taken", f.key, n, maxEntries)
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(seq.Values))
	ids := map[string][]*Origin{}
	for _, item := range seq.Values {
		e := reflect.New(v.Type().Elem()).Elem()
		if _, null := item.(*ast.NullNode); null || item == nil {
			s.failAt(cmp.Or(item, n), "%s has an empty entry", f.key)
			continue
		}
		before := len(s.probs)
		s.into(item, e, f)
		if len(s.probs) == before {
			switch x := e.Addr().Interface().(type) {
			case rule:
				s.rule(item, e, x, ids)
			case checker:
				s.check(item, e, x)
			}
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

// rule completes and checks an entry of a list that is merged by id.
func (s *source) rule(n ast.Node, v reflect.Value, r rule, ids map[string][]*Origin) {
	r.named("")
	o := r.origin()
	o.Line = place(n).Position.Line
	if r.dropped() {
		if r.ruleID() == "" {
			s.failAt(n, "drop needs the id of the rule to drop")
		}
		return
	}
	if !s.check(n, v, r) {
		return
	}
	for _, twin := range ids[r.ruleID()] {
		if sameScope(*twin, *o) {
			s.failAt(n, "the id %q is given twice, first in line %d; each rule of a list has its own", r.ruleID(), twin.Line)
			return
		}
	}
	ids[r.ruleID()] = append(ids[r.ruleID()], o)
}

// checker is a struct that can tell what is wrong with one of its keys once
// all are there: see [rule].
type checker interface{ check(key string) string }

// check reports the first mistake at its key, or at the entry where the key is missing.
func (s *source) check(n ast.Node, v reflect.Value, c checker) bool {
	for _, f := range fields(v.Type()) {
		msg := c.check(f.key)
		if msg == "" {
			continue
		}
		entries, _ := pairs(n)
		for _, e := range entries {
			if e.Key.GetToken().Value == f.key {
				n = e.Key
			}
		}
		s.failAt(n, "%s", msg)
		return false
	}
	return true
}

func sameScope(a, b Origin) bool {
	return a.Kernel == b.Kernel && slices.Equal(a.Arch, b.Arch) && slices.Equal(a.CPU, b.CPU) &&
		slices.Equal(a.PageSize, b.PageSize) && slices.Equal(a.Intents, b.Intents)
}

func (s *source) scalar(n ast.Node, v reflect.Value, f field) {
	tk := n.GetToken()
	switch v.Kind() {
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok && (tk.Value == "true" || tk.Value == "false") {
			v.SetBool(b.Value)
			return
		}
		s.failAt(n, "%s takes true or false, not %s", f.key, kindOf(n))
	case reflect.Int:
		if tk.Type != token.IntegerType || !isDecimal(tk.Value) {
			s.failAt(n, "%s takes a whole number in decimal digits, not %s", f.key, kindOf(n))
			return
		}
		i, err := strconv.ParseInt(tk.Value, 10, 64)
		if lo, hi, ok := f.limits(); err != nil || ok && (i < lo || i > hi) {
			s.failAt(n, "%s is out of range: %s is not within %d to %d", f.key, clipped(tk.Value), lo, hi)
			return
		}
		v.SetInt(i)
	case reflect.String:
		var text string
		switch n := n.(type) {
		case *ast.StringNode:
			text = n.Value
		case *ast.LiteralNode:
			text = n.Value.Value
		default:
			hint := ""
			if _, scalar := n.(ast.ScalarNode); scalar {
				hint = fmt.Sprintf(`; write "%s" in quotes if that is meant`, clipped(tk.Value))
			}
			s.failAt(n, "%s takes a text, not %s%s", f.key, kindOf(n), hint)
			return
		}
		if err := f.valid(text); err != nil {
			s.failAt(n, "%s %.60q: %v", f.key, text, err)
			return
		}
		v.SetString(text)
	default:
		s.failAt(n, "%s cannot be given here", f.key)
	}
}

// valid checks a text against the field's enum or form.
func (f field) valid(text string) error {
	if enum := f.enum(); enum != nil {
		return form{enum: enum}.valid(text)
	}
	if name := f.tag.Get("form"); name != "" {
		return forms[name].valid(text)
	}
	return nil
}

// isDecimal also refuses leading zeros and underscores, which YAML versions read differently.
func isDecimal(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits == "0" || digits != "" && digits[0] != '0' && strings.Trim(digits, "0123456789") == ""
}

// clipped is a piece of the file in a message: short, and without what could
// drive a terminal.
func clipped(s string) string {
	q := strconv.Quote(s)
	q = q[1 : len(q)-1]
	if len(q) > 40 {
		return q[:40] + "…"
	}
	return q
}

// kindOf names what stands there, for a message.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return fmt.Sprintf("the text %q", clipped(n.GetToken().Value))
	}
	return clipped(n.GetToken().Value)
}

// attribute gives every value and rule its layer, and the source of what
// stands around it where it names none.
func attribute(v reflect.Value, from Origin) {
	own := func(o *Origin) {
		o.Layer = from.Layer
		o.Source = first(o.Source, from.Source)
	}
	switch x := v.Addr().Interface().(type) {
	case value:
		if x.isSet() {
			own(x.origin())
		}
		return
	case rule:
		own(x.origin())
		from = Origin{Layer: from.Layer, Source: x.origin().Source}
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fields(v.Type()) {
			attribute(v.FieldByIndex(f.index), from)
		}
	case reflect.Slice:
		for i := range v.Len() {
			attribute(v.Index(i), from)
		}
	default: // a leaf has no provenance
	}
}
