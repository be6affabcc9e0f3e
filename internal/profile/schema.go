// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
)

// Schema gives the JSON Schema (draft 2020-12) of a profile file, made of the
// same tags that the decoder obeys. Editors take it for YAML.
func Schema() ([]byte, error) {
	d := defs{}
	root := d.object(reflect.TypeFor[file]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = SchemaV1
	root["title"] = "hostcheck profile"
	root["required"] = []string{"schema"}
	root["properties"].(schema)["schema"].(schema)["const"] = SchemaV1
	root["$defs"] = d
	data, err := json.MarshalIndent(root, "", "  ")
	return append(data, '\n'), err
}

// defs are the schemas that others refer to, by name.
type defs map[string]any

type schema = map[string]any

func (d defs) object(t reflect.Type) schema {
	props := schema{}
	for _, f := range fields(t) {
		s := d.of(t.FieldByIndex(f.index).Type, f)
		if doc := f.tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		props[f.key] = s
	}
	return schema{"type": "object", "properties": props, "additionalProperties": false}
}

func (d defs) of(t reflect.Type, f field) schema {
	if v, ok := reflect.New(t).Interface().(value); ok {
		return d.val(v.elem().Type(), f)
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.object(t)
	case reflect.Pointer:
		return d.of(t.Elem(), f)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			name := t.Elem().Name()
			d[name] = d.entry(t.Elem())
			return schema{"type": "array", "items": schema{"$ref": "#/$defs/" + name}}
		}
		return schema{"type": "array", "items": d.of(t.Elem(), f)}
	case reflect.Int:
		s := schema{"type": "integer"}
		if lo, hi, ok := f.limits(); ok {
			s["minimum"], s["maximum"] = lo, hi
		}
		return s
	case reflect.Bool:
		return schema{"type": "boolean"}
	default:
	}
	s := schema{"type": "string"}
	if enum := f.enum(); enum != nil {
		s["enum"] = enum
	}
	if p := forms[f.tag.Get("form")].pattern; p != nil {
		s["pattern"] = p().String()
	}
	return s
}

// entry is one rule; what it must hold, unless it drops another.
func (d defs) entry(t reflect.Type) schema {
	s := d.object(t)
	need := map[reflect.Type][]string{
		reflect.TypeFor[TokenRule]():  {"token"},
		reflect.TypeFor[PoolRule]():   {"size"},
		reflect.TypeFor[SysctlRule](): {"key"},
		reflect.TypeFor[NICRule]():    {"id", "match"},
	}[t]
	if need != nil {
		s["anyOf"] = []schema{
			{"required": need},
			{"required": []string{"id", "drop"}, "properties": schema{"drop": schema{"const": true}}},
		}
	}
	return s
}

// val is a bare value, or a mapping of the value and its provenance.
func (d defs) val(t reflect.Type, f field) schema {
	long := d.object(reflect.TypeFor[Origin]())
	props := maps.Clone(long["properties"].(schema))
	props["value"] = d.of(t, f)
	long["properties"], long["required"] = props, []string{"value"}
	return schema{"anyOf": []schema{d.of(t, f), long}}
}

// Keys lists every key that a profile can set, dotted, in the order of the
// format: for completion of --set and for documents.
func Keys() []string {
	keys := keysOf("", reflect.TypeFor[Values]())
	return slices.Clip(keys)
}

func keysOf(prefix string, t reflect.Type) (keys []string) {
	for _, f := range fields(t) {
		ft := t.FieldByIndex(f.index).Type
		key := join(prefix, f.key)
		_, leaf := reflect.New(ft).Interface().(value)
		switch {
		case isScope(f.key) || f.key == "id":
		case leaf:
			keys = append(keys, key)
		case ft.Kind() == reflect.Struct:
			keys = append(keys, keysOf(key, ft)...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			keys = append(keys, keysOf(key+".ID", ft.Elem())...)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}
