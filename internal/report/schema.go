// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/slurm"
)

// schemaBase is the address under which the schemas are known.
const schemaBase = "https://hostcheck.github.io/schema/"

// node is one JSON Schema object, its keys in the order that reads best.
type node struct {
	Schema      string           `json:"$schema,omitempty"`
	ID          string           `json:"$id,omitempty"`
	Title       string           `json:"title,omitempty"`
	Description string           `json:"description,omitempty"`
	Ref         string           `json:"$ref,omitempty"`
	Type        any              `json:"type,omitempty"` // a name, or a list with "null"
	Const       any              `json:"const,omitempty"`
	Enum        []any            `json:"enum,omitempty"`
	AnyOf       []*node          `json:"anyOf,omitempty"`
	Items       *node            `json:"items,omitempty"`
	Properties  properties       `json:"properties,omitempty"`
	Additional  *node            `json:"additionalProperties,omitempty"`
	Required    []string         `json:"required,omitempty"`
	Defs        map[string]*node `json:"$defs,omitempty"`
}

type property struct {
	name string
	node *node
}

// properties keep the order of the Go fields.
type properties []property

// MarshalJSON writes the properties as an object.
func (ps properties) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(p.name)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(p.node)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// Schemas are the names of the JSON Schemas made here, from the very types that
// are written; those of plans and profiles are made by their packages.
var Schemas = []string{"report", "facts", "list", "fix", "undo", "confirm", "history", "status", "fleet", "fleet-plan", "verdict", "slurm", "gate", "ansible", "fact"}

// JSONSchema gives a JSON Schema (draft 2020-12) by name, nil for an unknown
// one. Objects are open: later versions may have more keys beside these.
func JSONSchema(name string) any {
	g := &generator{defs: map[string]*node{}, names: map[reflect.Type]string{}}
	var root *node
	switch name {
	case "report":
		root = g.document(reflect.TypeFor[Report](), Schema)
	case "fix":
		root = g.document(reflect.TypeFor[Fix](), FixSchema)
	case "undo":
		root = g.document(reflect.TypeFor[Undo](), UndoSchema)
	case "confirm":
		root = g.document(reflect.TypeFor[Confirmed](), ConfirmSchema)
	case "history":
		root = g.document(reflect.TypeFor[History](), HistorySchema)
	case "status":
		root = g.document(reflect.TypeFor[Status](), StatusSchema)
	case "fleet":
		root = g.document(reflect.TypeFor[fleet.Fleet](), fleet.Schema)
	case "verdict":
		root = g.document(reflect.TypeFor[slurm.Verdict](), slurm.VerdictSchema)
	case "slurm":
		root = g.document(reflect.TypeFor[slurm.Health](), slurm.HealthSchema)
	case "gate":
		root = g.document(reflect.TypeFor[slurm.Gate](), slurm.GateSchema)
	case "fleet-plan":
		root = g.document(reflect.TypeFor[fleet.Plan](), fleet.PlanSchema)
	case "ansible":
		root = g.document(reflect.TypeFor[Ansible](), AnsibleSchema)
	case "fact":
		root = g.document(reflect.TypeFor[AnsibleFact](), AnsibleFactSchema)
	case "list":
		root = &node{Title: "hostcheck list, version 1", Type: "array", Items: g.value(reflect.TypeFor[Listed]())}
	case "facts":
		root = g.facts()
	default:
		return nil
	}
	root.Schema, root.ID, root.Defs = "https://json-schema.org/draft/2020-12/schema", schemaBase+name+"-v1.json", g.defs
	return root
}

type generator struct {
	defs  map[string]*node
	names map[reflect.Type]string
}

// document is an object whose first key names its format: "hostcheck.fix/v1".
func (g *generator) document(t reflect.Type, schema string) *node {
	root := g.object(t)
	name, version, _ := strings.Cut(strings.TrimPrefix(schema, "hostcheck."), "/v")
	root.Title = "hostcheck " + name + ", version " + version
	root.Properties[0].node.Const = schema
	return root
}

// facts is an object with a key per area, each as its getter's type says.
func (g *generator) facts() *node {
	root := &node{Title: "hostcheck facts, version 1", Type: "object"}
	t := reflect.TypeFor[*facts.Facts]()
	for _, a := range facts.Areas {
		for i := range t.NumMethod() {
			if m := t.Method(i); strings.EqualFold(m.Name, strings.ReplaceAll(a.Name, "_", "")) && m.Type.NumOut() == 1 {
				root.Properties = append(root.Properties, property{a.Name, nullable(g.value(m.Type.Out(0)))})
			}
		}
	}
	root.Properties = append(root.Properties, property{"unknown", &node{
		Description: "areas that could not be decoded, and why",
		Type:        "object", Additional: &node{Type: "string"},
	}})
	return root
}

var marshaler = reflect.TypeFor[json.Marshaler]()

// value is the schema of what encoding/json writes for a t.
func (g *generator) value(t reflect.Type) *node {
	if t == reflect.TypeFor[plan.Value]() {
		return &node{Type: []string{"string", "null"}}
	}
	if t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		// the lists of facts are objects with helpers that write their first field
		if t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Type.Kind() == reflect.Slice {
			return g.value(t.Field(0).Type)
		}
		return &node{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return nullable(g.value(t.Elem()))
	case reflect.Struct:
		return g.reference(t)
	case reflect.Slice, reflect.Array:
		return nullable(&node{Type: "array", Items: g.value(t.Elem())})
	case reflect.Map:
		return nullable(&node{Type: "object", Additional: g.value(t.Elem())})
	case reflect.String:
		return &node{Type: "string"}
	case reflect.Bool:
		return &node{Type: "boolean"}
	case reflect.Float32, reflect.Float64:
		return &node{Type: "number"}
	case reflect.Interface:
		return &node{}
	default:
		return &node{Type: "integer"}
	}
}

func (g *generator) reference(t reflect.Type) *node {
	name, ok := g.names[t]
	if !ok {
		name = t.Name()
		if _, taken := g.defs[name]; taken {
			name = t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:] + name
		}
		g.names[t] = name
		g.defs[name] = nil // taken while its fields are looked at
		g.defs[name] = g.object(t)
	}
	return &node{Ref: "#/$defs/" + name}
}

func (g *generator) object(t reflect.Type) *node {
	o := &node{Type: "object"}
	for f := range t.Fields() {
		tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && tag == "" {
			in := g.object(f.Type)
			o.Properties = append(o.Properties, in.Properties...)
			o.Required = append(o.Required, in.Required...)
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		n := g.value(f.Type)
		// the lists of reports, plans and merges are written even when empty
		own := t.PkgPath() == reflect.TypeFor[Report]().PkgPath() || t.PkgPath() == reflect.TypeFor[plan.Plan]().PkgPath() || t.PkgPath() == reflect.TypeFor[fleet.Fleet]().PkgPath()
		if own && f.Type.Kind() == reflect.Slice {
			n.Type = "array"
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			for v := range strings.SplitSeq(enum, ",") {
				n.Enum = append(n.Enum, v)
			}
			if f.Type.Kind() == reflect.Pointer {
				n.Enum = append(n.Enum, nil)
			}
		}
		n.Description = f.Tag.Get("doc")
		o.Properties = append(o.Properties, property{tag, n})
		if !strings.Contains(opts, "omit") {
			o.Required = append(o.Required, tag)
		}
	}
	return o
}

// nullable is n or null.
func nullable(n *node) *node {
	switch t := n.Type.(type) {
	case string:
		n.Type = []string{t, "null"}
	case nil:
		if n.Ref != "" {
			return &node{AnyOf: []*node{n, {Type: "null"}}}
		}
	}
	return n
}
