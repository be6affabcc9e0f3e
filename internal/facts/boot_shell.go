// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strings"
)

// shellVars holds the assignments of files that a shell would source, such as
// /etc/default/grub. Nothing is executed: a value that only a shell can
// compute is not known, and so is every value after a line that may do
// anything.
type shellVars struct {
	values map[string]shellValue
	set    []BootSetting // all assignments, in order
	broken *BootProblem  // the first line that is not an assignment; what follows from it is not known
}

// shellValue is a variable: its text, or why that is not known.
type shellValue struct {
	text string
	why  string // "FILE:LINE: …" when text is not known
}

// BootSetting is one assignment to a variable of the boot loader's settings.
type BootSetting struct {
	Name    string  `json:"name"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Value   *string `json:"value"`   // after the shell's quoting; nil when only a shell could tell
	Appends bool    `json:"appends"` // the value holds what the variable was before
}

func newShellVars() *shellVars { return &shellVars{values: map[string]shellValue{}} }

// get gives a variable, "" when it was never set, or why it is not known.
func (v *shellVars) get(name string) (text, why string) {
	if v.broken != nil {
		return "", fmt.Sprintf("%s:%d: %s", v.broken.File, v.broken.Line, v.broken.Why)
	}
	x := v.values[name]
	return x.text, x.why
}

// source reads one more file.
func (v *shellVars) source(file, text string) {
	s := &shellReader{vars: v, file: file, text: text, line: 1}
	for s.statement() {
	}
}

// shellReader reads the grammar of POSIX sh as far as assignments need it.
type shellReader struct {
	vars *shellVars
	file string
	text string
	pos  int
	line int
}

// shellWord is one word of a statement: NAME=value when name is set.
type shellWord struct {
	name    string
	raw     string // as far as it was read literally, for naming a command
	text    string
	why     string // why text is not known
	appends bool
}

func (s *shellReader) at(i int) byte {
	if s.pos+i < len(s.text) {
		return s.text[s.pos+i]
	}
	return 0
}

// fail notes the first line that is no assignment.
func (s *shellReader) fail(line int, format string, args ...any) {
	if s.vars.broken == nil {
		s.vars.broken = &BootProblem{Kind: BootBroken, File: s.file, Line: line, Why: jsonText(fmt.Sprintf(format, args...))}
	}
}

// statement reads up to the end of a line or a semicolon, and reports whether
// there is more.
func (s *shellReader) statement() bool {
	var words []shellWord
	start := s.line
	end := func() bool {
		s.run(start, words)
		return true
	}
	for {
		switch c := s.at(0); {
		case s.pos >= len(s.text):
			s.run(start, words)
			return false
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case c == '\\' && s.at(1) == '\n':
			s.pos += 2
			s.line++
		case c == '\n':
			s.pos++
			s.line++
			return end()
		case c == ';' && s.at(1) != ';':
			s.pos++
			return end()
		case c == '#':
			s.skipLine()
		case strings.IndexByte(";&|<>()", c) >= 0:
			s.fail(s.line, "%q is more than an assignment; hostcheck runs no shell", string(c))
			s.skipLine()
		default:
			if len(words) == 0 {
				start = s.line
			}
			w, ok := s.word()
			if !ok {
				return false
			}
			words = append(words, w)
		}
	}
}

func (s *shellReader) skipLine() {
	if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
		s.pos += i
		return
	}
	s.pos = len(s.text)
}

// run takes the assignments of a statement. Of commands only those that
// assign nothing are passed over.
func (s *shellReader) run(line int, words []shellWord) {
	if len(words) == 0 {
		return
	}
	if words[0].name == "" {
		switch words[0].raw {
		case ":", "true":
			return
		case "unset":
			for _, w := range words[1:] {
				delete(s.vars.values, w.raw)
			}
			return
		case "export", "readonly":
			words = words[1:]
			for i, w := range words {
				if w.name == "" && isShellName(w.raw) {
					words[i].name = "-"
				}
			}
		}
	}
	for _, w := range words {
		if w.name == "" {
			s.fail(line, "%.40q is not an assignment; hostcheck runs no shell", w.raw)
			return
		}
	}
	for _, w := range words {
		if w.name == "-" {
			continue
		}
		set := BootSetting{Name: w.name, File: s.file, Line: line, Appends: w.appends}
		if w.why == "" {
			set.Value = new(jsonText(w.text))
		}
		s.vars.values[w.name] = shellValue{w.text, w.why}
		s.vars.set = append(s.vars.set, set)
	}
}

func isShellName(s string) bool { return s != "" && shellNameLen(s) == len(s) }

// shellNameLen is how long the name is that s starts with.
func shellNameLen(s string) int {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || !isDigit(c)) {
			return i
		}
	}
	return len(s)
}

// word reads one word with its quotes; false means that the file ended inside.
func (s *shellReader) word() (w shellWord, ok bool) {
	var b strings.Builder
	first, line, quoted := s.pos, s.line, false
	unknown := func(format string, args ...any) {
		if w.why == "" {
			w.why = jsonText(fmt.Sprintf("%s:%d: ", s.file, s.line) + fmt.Sprintf(format, args...))
		}
	}
	unclosed := func(what string) (shellWord, bool) {
		s.fail(line, "%s is not closed", what)
		return w, false
	}
	for s.pos < len(s.text) {
		c := s.at(0)
		if !quoted && strings.IndexByte(" \t\r\n;&|<>()", c) >= 0 {
			break
		}
		switch {
		case c == '"':
			quoted = !quoted
			s.pos++
		case c == '\'' && !quoted:
			n := strings.IndexByte(s.text[s.pos+1:], '\'')
			if n < 0 {
				return unclosed("a single quote")
			}
			in := s.text[s.pos+1 : s.pos+1+n]
			b.WriteString(in)
			s.line += strings.Count(in, "\n")
			s.pos += n + 2
		case c == '\\':
			e := s.at(1)
			switch {
			case e == '\n':
				s.line++
			case quoted && strings.IndexByte("$`\"\\", e) < 0:
				b.WriteByte('\\')
				if e != 0 {
					b.WriteByte(e)
				}
			case e != 0:
				b.WriteByte(e)
			}
			s.pos = min(s.pos+2, len(s.text))
		case c == '`':
			n := s.backtick()
			if n < 0 {
				return unclosed("a back-tick")
			}
			unknown("the output of a command (`…`) is known to a shell only")
			s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
			s.pos += n
		case c == '$' && s.at(1) == '(':
			n := s.parens()
			if n < 0 {
				return unclosed("$(")
			}
			unknown("the output of a command ($(…)) is known to a shell only")
			s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
			s.pos += n
		case c == '$' && s.at(1) == '{':
			n := s.braces()
			if n < 0 {
				return unclosed("${")
			}
			text, why := s.expand(s.text[s.pos+2:s.pos+n-1], w.name, &w.appends)
			if why != "" {
				unknown("%s", why)
			}
			b.WriteString(text)
			s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
			s.pos += n
		case c == '$' && shellNameLen(s.text[s.pos+1:]) > 0:
			n := shellNameLen(s.text[s.pos+1:])
			text, why := s.expand(s.text[s.pos+1:s.pos+1+n], w.name, &w.appends)
			if why != "" {
				unknown("%s", why)
			}
			b.WriteString(text)
			s.pos += 1 + n
		case c == '$' && strings.IndexByte("0123456789@*#?$!-", s.at(1)) >= 0 && s.at(1) != 0:
			unknown("$%c is known to a shell only", s.at(1))
			s.pos += 2
		case c == '=' && !quoted && w.name == "" && isShellName(s.text[first:s.pos]):
			w.name = s.text[first:s.pos]
			b.Reset()
			s.pos++
		default:
			if c == '\n' {
				s.line++
			}
			b.WriteByte(c)
			s.pos++
		}
	}
	if quoted {
		return unclosed("a double quote")
	}
	w.text, w.raw = b.String(), s.text[first:s.pos]
	return w, true
}

// expand gives the value of what stands in ${…}, when it is a name, or a name
// with - or + and text that holds no other, as TuneD writes it.
func (s *shellReader) expand(inside, self string, appends *bool) (text, why string) {
	name := inside[:shellNameLen(inside)]
	rest := inside[len(name):]
	tooMuch := "${" + inside + "} is known to a shell only"
	if name == "" {
		return "", tooMuch
	}
	if name == self {
		*appends = true
	}
	v, isSet := s.vars.values[name]
	if rest == "" || v.why != "" {
		return v.text, v.why
	}
	op, alt, ok := "", "", false
	for _, op = range []string{":-", ":+", "-", "+"} {
		if alt, ok = strings.CutPrefix(rest, op); ok {
			break
		}
	}
	before, after, self2 := strings.Cut(alt, "$"+name)
	if !ok || strings.ContainsAny(before+after, "$`\\\"'{}") || shellNameLen("_"+after) > 1 {
		return "", tooMuch
	}
	if self2 {
		alt = before + v.text + after
	}
	if has := v.text != "" || isSet && op[0] != ':'; has != strings.HasSuffix(op, "+") {
		return v.text, "" // "" where + finds nothing
	}
	return alt, ""
}

// braces gives how many bytes ${…} has, -1 when it does not end.
func (s *shellReader) braces() int {
	depth := 0
	for i := 1; s.pos+i < len(s.text); i++ {
		switch s.text[s.pos+i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// backtick gives how many bytes a command in back-ticks has, -1 when it does
// not end.
func (s *shellReader) backtick() int {
	for i := 1; s.pos+i < len(s.text); i++ {
		switch s.text[s.pos+i] {
		case '\\':
			i++
		case '`':
			return i + 1
		}
	}
	return -1
}

// parens gives how many bytes $(…) has, -1 when it does not end.
func (s *shellReader) parens() int {
	depth, quote := 0, byte(0)
	for i := 1; s.pos+i < len(s.text); i++ {
		switch c := s.text[s.pos+i]; {
		case c == '\\' && quote != '\'':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
