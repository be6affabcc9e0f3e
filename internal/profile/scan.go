// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// Limits of a profile file: it is written by people, and may be hostile.
const (
	maxSize     = 1 << 20 // bytes
	maxDepth    = 32      // nested lists and mappings
	maxKeys     = 4000    // in the whole file: the library's time grows with the square of a mapping's keys
	maxProblems = 50      // reported for one file
)

// source is one YAML text with the mistakes found in it so far.
type source struct {
	name  string
	what  format
	ours  bool // messages may quote it: it says that it is hostcheck's, or stands on the command line
	lines []string
	probs Problems
}

// format is the kind of file that a text should be.
type format struct{ noun, schema string }

var (
	profileFormat = format{"a profile", SchemaV1}
	waiverFormat  = format{"a list of waivers", WaiverSchema}
)

func (s *source) fail(line, col int, format string, args ...any) {
	p := Problem{File: s.name, Line: line, Col: col, Msg: fmt.Sprintf(format, args...)}
	if s.ours && line > 0 && line <= len(s.lines) {
		p.Text = s.lines[line-1]
	}
	switch {
	case len(s.probs) < maxProblems:
		s.probs = append(s.probs, p)
	case len(s.probs) == maxProblems:
		s.probs = append(s.probs, Problem{File: s.name, Msg: "and more"})
	}
}

func (s *source) failAt(n ast.Node, format string, args ...any) {
	tk := place(n)
	if tk == nil || tk.Position == nil {
		s.fail(0, 0, format, args...)
		return
	}
	s.fail(tk.Position.Line, tk.Position.Column, format, args...)
}

// place is the first token of a node: of a block mapping its first key, where
// the library gives the colon.
func place(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return place(n.Values[0])
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

// ourLine is the line that makes a file hostcheck's, also where the rest is no YAML.
var ourLine = pattern.Late(`(?m)^["']?schema["']?[ \t]*:[ \t]*["']?hostcheck\.`)

// parse gives the root node of a text. It is nil where probs says why. Any file
// may be named where a profile is wanted, with root's eyes and in front of those
// who may not read it (a log): of one whose schema is not hostcheck's, a message
// says where and what kind of mistake, and quotes nothing.
func (s *source) parse(data []byte) ast.Node {
	s.ours = s.ours || ourLine().Match(data)
	root := s.document(data)
	if root != nil && !s.ours {
		s.ours = declared(root)
	}
	if s.ours {
		return root
	}
	if _, ok := pairs(root); ok {
		s.named("")
		return nil
	}
	if len(s.probs) > 0 {
		s.probs = s.probs[:1]
		if p := &s.probs[0]; !strings.Contains(p.Msg, s.what.schema) {
			p.Msg += fmt.Sprintf("; nothing of the file is quoted, for it has no line schema: %s", s.what.schema)
		}
	}
	return root
}

// declared reports whether a mapping says that it is a format of hostcheck.
func declared(root ast.Node) bool {
	entries, _ := pairs(root)
	return slices.ContainsFunc(entries, func(e *ast.MappingValueNode) bool {
		text, ok := e.Value.(*ast.StringNode)
		return ok && e.Key.GetToken().Value == "schema" && strings.HasPrefix(text.Value, "hostcheck.")
	})
}

// detail is the part of a message that comes from the text.
func (s *source) detail(format string, args ...any) string {
	if !s.ours {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// document gives the root node of a text that holds one document of plain YAML:
// no anchors, aliases, tags, directives, merge keys or complex keys, since
// those can hide or multiply content.
func (s *source) document(data []byte) ast.Node {
	text, ok := s.text(data)
	if !ok {
		return nil
	}
	tokens := lexer.Tokenize(text)
	if !s.plain(tokens) {
		return nil
	}
	file, err := s.library(tokens)
	var at yaml.Error
	switch {
	case errors.As(err, &at) && at.GetToken() != nil:
		s.fail(at.GetToken().Position.Line, at.GetToken().Position.Column, "not valid YAML%s", s.detail(": %s", plainer(at.GetMessage())))
	case err != nil:
		s.fail(0, 0, "not valid YAML%s", s.detail(": %v", err))
	case len(file.Docs) == 0 || file.Docs[0].Body == nil:
		s.fail(1, 1, "the file is empty; %s starts with schema: %s", s.what.noun, s.what.schema)
	case len(file.Docs) > 1:
		line := 1
		if tk := file.Docs[1].Start; tk != nil {
			line = tk.Position.Line
		}
		s.fail(line, 1, "the file holds %d documents; %s is one", len(file.Docs), s.what.noun)
	default:
		return file.Docs[0].Body
	}
	return nil
}

// plainer says what the writer of kernel: >=5.8 has to do.
func plainer(msg string) string {
	if strings.Contains(msg, "header option") {
		return `a text that starts with ">" or "|" needs quotes`
	}
	return msg
}

// library calls the parser. A panic of it is an error as any other: no text
// may end the program.
func (s *source) library(tokens token.Tokens) (f *ast.File, err error) {
	defer func() {
		if v := recover(); v != nil {
			f, err = nil, fmt.Errorf("the YAML library failed on it: %v", v)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are reported by decode, all of them
}

// text checks what can be said without a parser and gives the text with plain
// line ends.
func (s *source) text(data []byte) (string, bool) {
	if len(data) > maxSize {
		s.fail(1, 1, "the file has %d bytes; %s has at most %d", len(data), s.what.noun, maxSize)
		return "", false
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	s.lines = strings.Split(strings.ToValidUTF8(text, "\uFFFD"), "\n")
	for i, line := range strings.Split(text, "\n") {
		indent := true
		col := 0
		for off, r := range line {
			col++
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(line[off:], "\uFFFD"):
				s.fail(i+1, col, "not UTF-8%s", s.detail(": byte 0x%02x", line[off]))
				return "", false // one is enough: the file is of another kind
			case r == '\t' && indent:
				s.fail(i+1, col, "a tab indents this line; YAML wants blanks")
				indent = false
			case r != '\t' && unicode.IsControl(r), r == '\u2028', r == '\u2029', r == '\uFEFF':
				s.fail(i+1, col, "the control character%s cannot stand here", s.detail(" U+%04X", r))
			case r != ' ':
				indent = false
			}
		}
	}
	return text, len(s.probs) == 0
}

// plain refuses what makes YAML more than text, and nesting that would exhaust
// the parser.
func (s *source) plain(tokens token.Tokens) bool {
	depth, entryLine, entries, keys := 0, 0, 0, 0
	said := map[string]bool{}
	for _, tk := range tokens {
		line, col := tk.Position.Line, tk.Position.Column
		bad := ""
		switch tk.Type {
		case token.AnchorType:
			bad = "anchors (&) are not accepted: write the value where it is used"
		case token.AliasType:
			bad = "aliases (*) are not accepted: write the value where it is used; a glob needs quotes"
		case token.TagType:
			bad = "tags (!) are not accepted"
		case token.DirectiveType:
			bad = "directives (%) are not accepted"
		case token.MergeKeyType:
			bad = "merge keys (<<) are not accepted"
		case token.MappingKeyType:
			bad = `complex keys (?) are not accepted`
		case token.InvalidType:
			bad = "not valid YAML" + s.detail(": %s", plainer(first(tk.Error, "cannot read this")))
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxDepth {
				bad = fmt.Sprintf("nested deeper than %d levels", maxDepth)
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			if line != entryLine {
				entryLine, entries = line, 0
			}
			if entries++; entries > 2 || col > 4*maxDepth+64 {
				bad = "nested too deep"
			}
		case token.MappingValueType:
			// Block nesting needs indentation, so the column bounds it.
			if depth == 0 && col > 4*maxDepth+64 {
				bad = "indented too far"
			}
			if keys++; keys > maxKeys {
				bad = fmt.Sprintf("the file has more than %d keys", maxKeys)
			}
		default: // scalars, comments and what the parser judges
		}
		if bad != "" {
			if !said[bad] { // once: a file made of aliases is one mistake
				s.fail(line, col, "%s", bad)
			}
			said[bad] = true
			if tk.Type == token.InvalidType || depth > maxDepth || keys > maxKeys || len(s.probs) > maxProblems {
				return false
			}
		}
	}
	return len(s.probs) == 0
}
