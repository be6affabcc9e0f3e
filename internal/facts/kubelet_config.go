// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Keys of a KubeletConfiguration that are decoded. All others are passed over.
var (
	kubeletScalars = []string{"cpuManagerPolicy", "memoryManagerPolicy", "mergeDefaultEvictionSettings", "reservedSystemCPUs", "topologyManagerPolicy", "topologyManagerScope"}
	kubeletMaps    = []string{"cpuManagerPolicyOptions", "evictionHard", "kubeReserved", "systemReserved", "topologyManagerPolicyOptions"}
)

const kubeletList = "reservedMemory"

// kubeletEntry is one value of a configuration file with its line. A null has
// gone set to false: in a drop-in it takes the value away.
type kubeletEntry struct {
	name, value string
	line        int
	set         bool
}

// kubeletFile is what one file says.
type kubeletFile struct {
	entries  []kubeletEntry
	reserved []KubeletReserved // Source holds the line alone
	hasList  bool
}

// Limits of a configuration file.
const (
	maxKubeletText  = 1 << 20 // bytes
	maxKubeletDepth = 32      // nested lists and mappings
	maxKubeletKeys  = 4000    // the library's time grows with the square of a mapping's keys
	maxKubeletList  = 1024
)

// parseKubeletConfig reads a KubeletConfiguration, YAML or JSON. The error is
// of the line; the kubelet would not start with such a file, or hostcheck
// cannot follow what it says (anchors, tags). It quotes no word of a file that
// is none: any process may call itself a kubelet and name any file.
func parseKubeletConfig(text []byte) (f kubeletFile, line int, err error) {
	root, line, err := kubeletYAML(text)
	if err != nil || root == nil {
		return f, line, err
	}
	top, ok := kubeletPairs(root)
	if !ok {
		return f, nodeLine(root), errors.New("not a mapping of settings")
	}
	for _, e := range top {
		key, at := e.Key.GetToken().Value, e.Key.GetToken().Position.Line
		switch {
		case key == "kind":
			if v, _ := scalar(e.Value); v != "KubeletConfiguration" {
				return f, at, errors.New("its kind is not KubeletConfiguration")
			}
		case slices.Contains(kubeletScalars, key):
			if err = f.scalar(key, at, e.Value); err != nil {
				return f, at, err
			}
		case slices.Contains(kubeletMaps, key):
			if null(e.Value) {
				f.put(kubeletEntry{name: key + ".", line: at})
				continue
			}
			list, ok := kubeletPairs(e.Value)
			if !ok {
				return f, at, fmt.Errorf("%s takes a mapping", key)
			}
			for _, o := range list {
				tk := o.Key.GetToken()
				if err = f.scalar(key+"."+tk.Value, tk.Position.Line, o.Value); err != nil {
					return f, tk.Position.Line, err
				}
			}
		case key == kubeletList:
			if at, err = f.list(e.Value, at); err != nil {
				return f, at, err
			}
		}
	}
	return f, 0, nil
}

func (f *kubeletFile) put(e kubeletEntry) { f.entries = append(f.entries, e) }

func (f *kubeletFile) scalar(name string, line int, n ast.Node) error {
	if null(n) {
		f.put(kubeletEntry{name: name, line: line})
		return nil
	}
	v, ok := scalar(n)
	if !ok {
		return fmt.Errorf("%s takes one value", name)
	}
	f.put(kubeletEntry{name, v, line, true})
	return nil
}

// list reads reservedMemory: "- numaNode: 0" with "limits: {memory: 1Gi}".
func (f *kubeletFile) list(n ast.Node, line int) (int, error) {
	f.hasList, f.reserved = true, nil
	if null(n) {
		return 0, nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) > maxKubeletList {
		return line, fmt.Errorf("%s takes a list of at most %d entries", kubeletList, maxKubeletList)
	}
	for _, item := range seq.Values {
		pairs, ok := kubeletPairs(item)
		if !ok {
			return line, fmt.Errorf("an entry of %s is a mapping with numaNode and limits", kubeletList)
		}
		node, limits := 0, []*ast.MappingValueNode(nil)
		for _, e := range pairs {
			at := e.Key.GetToken().Position.Line
			switch e.Key.GetToken().Value {
			case "numaNode":
				v, _ := scalar(e.Value)
				n, err := strconv.Atoi(v)
				if err != nil || n < 0 || n >= maxNodes {
					return at, fmt.Errorf("numaNode %.40q is no number of a node", v)
				}
				node = n
			case "limits":
				if limits, ok = kubeletPairs(e.Value); !ok && !null(e.Value) {
					return at, errors.New("limits takes a mapping")
				}
			}
		}
		for _, e := range limits {
			tk := e.Key.GetToken()
			v, ok := scalar(e.Value)
			if !ok {
				return tk.Position.Line, fmt.Errorf("the limit of %.40q takes one value", tk.Value)
			}
			f.reserved = append(f.reserved, KubeletReserved{node, tk.Value, v, strconv.Itoa(tk.Position.Line)})
		}
	}
	return 0, nil
}

// kubeletYAML gives the root node of one document of plain YAML, nil for an
// empty one.
func kubeletYAML(text []byte) (root ast.Node, line int, err error) {
	defer func() { // whatever the library makes of a text
		if v := recover(); v != nil {
			root, err = nil, fmt.Errorf("the YAML library failed on it: %v", v)
		}
	}()
	switch {
	case len(text) > maxKubeletText:
		return nil, 1, fmt.Errorf("it is larger than %d bytes", maxKubeletText)
	case !utf8.Valid(text):
		return nil, 1, errors.New("not UTF-8")
	}
	tokens := lexer.Tokenize(strings.ReplaceAll(string(text), "\r\n", "\n"))
	if line, err = plainYAML(tokens); err != nil {
		return nil, line, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // the kubelet warns of them, and takes the last
	var at yaml.Error
	switch {
	case errors.As(err, &at) && at.GetToken() != nil:
		return nil, at.GetToken().Position.Line, errors.New("not valid YAML")
	case err != nil:
		return nil, 1, errors.New("not valid YAML")
	case len(file.Docs) == 0:
		return nil, 0, nil
	case len(file.Docs) > 1:
		return nil, 1, errors.New("it holds more than one document")
	}
	return file.Docs[0].Body, 0, nil
}

// plainYAML refuses what hides or multiplies content, and nesting that would
// exhaust the parser.
func plainYAML(tokens token.Tokens) (line int, err error) {
	depth, keys, entries, entryLine := 0, 0, 0, 0
	const far = 4*maxKubeletDepth + 64
	for _, tk := range tokens {
		line, col := tk.Position.Line, tk.Position.Column
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.TagType, token.DirectiveType, token.MergeKeyType, token.MappingKeyType:
			return line, errors.New("an anchor, alias, tag, directive, merge or complex key, which is not followed")
		case token.InvalidType:
			return line, errors.New("not valid YAML")
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			if line != entryLine {
				entryLine, entries = line, 0
			}
			entries++
		case token.MappingValueType:
			keys++
		default:
		}
		if depth > maxKubeletDepth || entries > 2 || keys > maxKubeletKeys || depth <= 0 && tk.Type == token.MappingValueType && col > far ||
			tk.Type == token.SequenceEntryType && col > far {
			return line, errors.New("nested too deep, or too many keys")
		}
	}
	return 0, nil
}

func kubeletPairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func null(n ast.Node) bool {
	_, is := n.(*ast.NullNode)
	return n == nil || is
}

// scalar gives the text of a value that is no list and no mapping.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func nodeLine(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 1
}

// kubeletValues is the configuration while it is merged.
type kubeletValues struct {
	set      map[string]KubeletSetting
	reserved []KubeletReserved
}

func newKubeletValues() *kubeletValues {
	return &kubeletValues{set: map[string]KubeletSetting{}, reserved: []KubeletReserved{}}
}

// merge lays a file over what is there, as a JSON merge patch: a mapping by
// its keys, a list as a whole.
func (v *kubeletValues) merge(f kubeletFile, file string) {
	for _, e := range f.entries {
		switch {
		case strings.HasSuffix(e.name, "."):
			v.dropAll(e.name)
		case !e.set:
			delete(v.set, e.name)
		default:
			v.set[e.name] = KubeletSetting{e.name, e.value, fmt.Sprintf("%s:%d", file, e.line)}
		}
	}
	if f.hasList {
		v.reserved = []KubeletReserved{}
		for _, r := range f.reserved {
			r.Source = file + ":" + r.Source
			v.reserved = append(v.reserved, r)
		}
	}
}

func (v *kubeletValues) dropAll(prefix string) {
	maps.DeleteFunc(v.set, func(name string, _ KubeletSetting) bool { return strings.HasPrefix(name, prefix) })
}

// defaults fills in what the file of --config leaves out, before the drop-ins
// come. A mapping evictionHard that says nothing of memory leaves no reserve,
// unless the file asks for the defaults.
func (v *kubeletValues) defaults() {
	evicts := false
	for name := range v.set {
		evicts = evicts || strings.HasPrefix(name, "evictionHard.")
	}
	for _, d := range kubeletDefaults {
		if strings.HasPrefix(d[0], "evictionHard.") && evicts && v.set["mergeDefaultEvictionSettings"].Value != "true" {
			continue
		}
		if v.set[d[0]].Value == "" {
			v.set[d[0]] = KubeletSetting{d[0], d[1], KubeletDefault}
		}
	}
}

func (v *kubeletValues) sorted() []KubeletSetting {
	out := slices.Collect(maps.Values(v.set))
	slices.SortFunc(out, func(a, b KubeletSetting) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
