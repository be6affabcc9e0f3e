// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strings"
)

// grubCommand is one command of a GRUB script.
type grubCommand struct {
	line  int
	words []grubWord // of a simple command
	block []grubCommand
	has   bool // block is there: of menuentry, submenu and function

	branches []grubBranch // of if, with one whose cond is nil for else; of a loop one
	loop     string       // "while", "until", "for"
	name     string       // of a function, or the variable of for
}

// grubBranch is what runs when a condition holds.
type grubBranch struct {
	cond, body []grubCommand
	isElse     bool
}

// grubWord is the parts of a word: text, and variables.
type grubWord []grubPart

type grubPart struct {
	text     string
	variable bool // text is a variable's name
	quoted   bool // literal text in quotes, or a variable in double quotes, which is not split
}

// plain is a word without variables, "" otherwise.
func (w grubWord) plain() string {
	if len(w) == 1 && !w[0].variable && !w[0].quoted {
		return w[0].text
	}
	return ""
}

// grubSyntax is an error in a GRUB script.
type grubSyntax struct {
	line int
	what string
}

func (e *grubSyntax) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.what) }

// maxGrubDepth bounds how deep commands may nest: generated files have five levels.
const maxGrubDepth = 40

// parseGrubScript reads a GRUB script (grub-core/script/parser.y, yylex.l):
// its own quoting, if, loops, functions and menu entries. Nothing is run.
func parseGrubScript(text string) ([]grubCommand, error) {
	p := &grubParser{text: text, line: 1}
	p.next()
	list := p.list(0)
	if p.err == nil && p.tok != grubEOF {
		p.fail("unexpected %s", p.show())
	}
	if p.err != nil {
		return nil, p.err
	}
	return list, nil
}

type grubToken int

const (
	grubEOF grubToken = iota
	grubNewline
	grubOpen
	grubClose
	grubOther // a metacharacter that no command takes
	grubText
)

// grubParser looks one token ahead.
type grubParser struct {
	text string
	pos  int
	line int

	tok     grubToken
	word    grubWord
	char    byte
	tokLine int
	err     error
}

func (p *grubParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &grubSyntax{p.tokLine, jsonText(fmt.Sprintf(format, args...))}
	}
	p.tok = grubEOF
}

func (p *grubParser) show() string {
	if p.tok == grubText {
		return fmt.Sprintf("%.40q", p.word.plain())
	}
	return fmt.Sprintf("%q", string(p.char))
}

// next reads one token.
func (p *grubParser) next() {
	if p.err != nil {
		p.tok = grubEOF
		return
	}
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			p.pos++
		case c == '\\' && strings.HasPrefix(p.text[p.pos+1:], "\n"):
			p.pos += 2
			p.line++
		case c == '#':
			n := strings.IndexByte(p.text[p.pos:], '\n')
			if n < 0 {
				n = len(p.text) - p.pos
			}
			p.pos += n
		default:
			p.tokLine, p.char = p.line, c
			switch c {
			case '\n':
				p.tok = grubNewline
				p.line++
				p.pos++
			case ';':
				p.tok = grubNewline
				p.pos++
			case '{':
				p.tok = grubOpen
				p.pos++
			case '}':
				p.tok = grubClose
				p.pos++
			case '|', '&', '<', '>':
				p.tok = grubOther
				p.pos++
			default:
				p.tok = grubText
				p.word = p.readWord()
			}
			return
		}
	}
	p.tokLine = p.line
	p.tok = grubEOF
}

// readWord reads one word with its quotes and variables.
func (p *grubParser) readWord() (w grubWord) {
	var b strings.Builder
	quoted := false
	flush := func() {
		if b.Len() > 0 || quoted {
			w = append(w, grubPart{text: b.String(), quoted: quoted})
		}
		b.Reset()
		quoted = false
	}
	double := false
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		if !double && strings.IndexByte(" \t\r\n;{}|&<>", c) >= 0 {
			break
		}
		switch {
		case c == '"':
			double = !double
			quoted = true
			p.pos++
		case c == '\'' && !double:
			n := strings.IndexByte(p.text[p.pos+1:], '\'')
			if n < 0 {
				p.fail("a single quote is not closed")
				return nil
			}
			in := p.text[p.pos+1 : p.pos+1+n]
			p.line += strings.Count(in, "\n")
			b.WriteString(in)
			quoted = true
			p.pos += n + 2
		case c == '\\':
			if p.pos+1 >= len(p.text) {
				p.pos++
				continue
			}
			e := p.text[p.pos+1]
			switch {
			case e == '\n':
				p.line++
			case double && strings.IndexByte("$\"\\", e) < 0:
				b.WriteByte('\\')
				b.WriteByte(e)
			default:
				b.WriteByte(e)
				quoted = true
			}
			p.pos += 2
		case c == '$':
			name, n := grubVariable(p.text[p.pos:])
			if n == 0 { // a lone dollar is itself
				b.WriteByte(c)
				p.pos++
				continue
			}
			flush()
			w = append(w, grubPart{text: name, variable: true, quoted: double})
			quoted = false
			p.pos += n
		default:
			if c == '\n' {
				p.line++
			}
			b.WriteByte(c)
			p.pos++
		}
	}
	if double {
		p.fail("a double quote is not closed")
		return nil
	}
	flush()
	return w
}

// grubVariable reads $name, ${name}, $1, $@, $*, $# and $?; n is 0 when s does
// not start with a variable.
func grubVariable(s string) (name string, n int) {
	if len(s) < 2 {
		return "", 0
	}
	if s[1] == '{' {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return "", 0
		}
		name = s[2:end]
		if isShellName(name) || len(name) == 1 && strings.Contains("0123456789@*#?", name) {
			return name, end + 1
		}
		return "", 0
	}
	if strings.IndexByte("0123456789@*#?", s[1]) >= 0 {
		return s[1:2], 2
	}
	if n := shellNameLen(s[1:]); n > 0 {
		return s[1 : 1+n], 1 + n
	}
	return "", 0
}

func (p *grubParser) skipNewlines() {
	for p.tok == grubNewline {
		p.next()
	}
}

// reserved is the reserved word at hand, "" otherwise.
func (p *grubParser) reserved() string {
	if p.tok != grubText {
		return ""
	}
	switch s := p.word.plain(); s {
	case "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "for", "in", "function", "case", "esac", "select", "time":
		return s
	}
	return ""
}

// list reads commands up to what ends a block.
func (p *grubParser) list(depth int) []grubCommand {
	var list []grubCommand
	if depth > maxGrubDepth {
		p.fail("nested deeper than %d levels", maxGrubDepth)
		return nil
	}
	for {
		p.skipNewlines()
		if p.err != nil || p.tok == grubEOF || p.tok == grubClose {
			return list
		}
		switch p.reserved() {
		case "then", "elif", "else", "fi", "do", "done":
			return list
		}
		list = append(list, p.command(depth))
	}
}

// want takes a reserved word.
func (p *grubParser) want(word string) {
	p.skipNewlines()
	if p.reserved() != word {
		if p.tok == grubEOF {
			p.fail("the file ends where %q is expected", word)
			return
		}
		p.fail("%s where %q is expected", p.show(), word)
		return
	}
	p.next()
}

func (p *grubParser) command(depth int) grubCommand {
	c := grubCommand{line: p.tokLine}
	switch word := p.reserved(); word {
	case "if":
		p.next()
		p.ifCommand(&c, depth)
	case "while", "until":
		p.next()
		c.loop = word
		cond := p.list(depth + 1)
		p.want("do")
		body := p.list(depth + 1)
		p.want("done")
		c.branches = []grubBranch{{cond: cond, body: body}}
	case "for":
		p.next()
		c.loop = word
		c.name = p.takeName()
		p.want("in")
		for p.tok == grubText {
			c.words = append(c.words, p.word)
			p.next()
		}
		p.want("do")
		body := p.list(depth + 1)
		p.want("done")
		c.branches = []grubBranch{{body: body}}
	case "function":
		p.next()
		c.name = p.takeName()
		p.skipNewlines()
		c.block, c.has = p.braces(depth), true
	case "":
		p.simple(&c, depth)
	default:
		p.fail("unexpected %q", word)
	}
	return c
}

func (p *grubParser) takeName() string {
	name := ""
	if p.tok == grubText {
		name = p.word.plain()
	}
	if name == "" {
		p.fail("a name is expected")
		return ""
	}
	p.next()
	return name
}

func (p *grubParser) ifCommand(c *grubCommand, depth int) {
	for {
		cond := p.list(depth + 1)
		p.want("then")
		body := p.list(depth + 1)
		c.branches = append(c.branches, grubBranch{cond: cond, body: body})
		switch p.reserved() {
		case "elif":
			p.next()
			continue
		case "else":
			p.next()
			c.branches = append(c.branches, grubBranch{body: p.list(depth + 1), isElse: true})
		}
		p.want("fi")
		return
	}
}

func (p *grubParser) braces(depth int) []grubCommand {
	if p.tok != grubOpen {
		p.fail("%s where \"{\" is expected", p.show())
		return nil
	}
	p.next()
	list := p.list(depth + 1)
	if p.tok != grubClose {
		p.fail("a block is not closed")
		return nil
	}
	p.next()
	return list
}

func (p *grubParser) simple(c *grubCommand, depth int) {
	for p.err == nil {
		switch p.tok {
		case grubText:
			c.words = append(c.words, p.word)
			p.next()
			continue
		case grubOpen:
			if len(c.words) == 0 || c.has {
				p.fail("unexpected \"{\"")
				return
			}
			c.block, c.has = p.braces(depth), true
			continue
		case grubOther:
			p.fail("unexpected %q", string(p.char))
			return
		default:
		}
		return
	}
}
