// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/check"
)

// Text says how text is laid out. The output always holds colour sequences (of
// the 16 ANSI colours, which the reader's terminal makes fit its background);
// the writer strips them where they are not wanted.
type Text struct {
	Width   int  // columns; 0 means 100
	ASCII   bool // nothing beyond ASCII: the locale is not UTF-8
	Verbose bool // passes, evidence and every subject
	Quiet   bool // the verdict and one line per finding
	Unnamed bool // without the host's name: what gathers the texts of many hosts adds it, and folds those that are alike

	Machine []string // what the machine is called, for the header
}

func (t Text) width() int {
	if t.Width <= 0 {
		return 100
	}
	return max(t.Width, 40)
}

// palette is the styles of one rendering.
type palette struct {
	plain, bold, dim, id             lipgloss.Style
	red, green, yellow, magenta, key lipgloss.Style
}

func newPalette() palette {
	s := lipgloss.NewStyle()
	colour := func(n string) lipgloss.Style { return s.Foreground(lipgloss.Color(n)) }
	return palette{
		plain: s, bold: s.Bold(true), dim: s.Faint(true), id: colour("6"),
		red: colour("1"), green: colour("2"), yellow: colour("3"), magenta: colour("5"), key: s.Faint(true),
	}
}

// mark is the sign and the style of a status.
func (p *palette) mark(s check.Status, pending, waived bool) (string, string, lipgloss.Style) {
	switch {
	case waived:
		return "~", "waived", p.dim
	case pending:
		return "↻", "pending", p.yellow
	}
	switch s {
	case check.Pass:
		return "✓", "pass", p.green
	case check.Fail:
		return "✗", "FAIL", p.red.Bold(true)
	case check.Error:
		return "✗", "ERROR", p.red.Bold(true)
	case check.Warn:
		return "!", "warn", p.yellow
	case check.Unknown:
		return "?", "unknown", p.magenta
	case check.Skip:
	}
	return "–", "skip", p.dim
}

// ascii spells the signs that hostcheck and its checks use.
var ascii = strings.NewReplacer(
	"✓", "+", "✗", "x", "↻", "~", "–", "-", "—", "-", "·", "|", "─", "-", "…", "...", "×", "x", "→", "->", "↑", "^",
	"≥", ">=", "≤", "<=", "µ", "u", "µ", "u", "“", `"`, "”", `"`, "’", "'", "‘", "'", "•", "*", " ", " ", "±", "+-", "≠", "!=",
)

// finish is the last step of every text: nothing beyond ASCII where asked, and
// no blanks at the ends of lines.
func (t Text) finish(b *strings.Builder) string {
	s := b.String()
	if t.ASCII {
		s = strings.Map(func(r rune) rune {
			if r >= utf8.RuneSelf {
				return '?'
			}
			return r
		}, ascii.Replace(s))
	}
	return s
}

// Clean makes a string from a host safe to print: one line, and no control,
// format or broken characters that could drive a terminal or hide text.
func Clean(s string) string {
	clean := true
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// wrap breaks s into lines of at most width cells: at spaces, and in a word
// that is too long after "/", ",", ";" or "|", else anywhere.
func wrap(s string, width int) []string {
	width = max(width, 8)
	var lines []string
	line := ""
	put := func(word string) {
		switch {
		case line == "":
			line = word
		case lipgloss.Width(line)+1+lipgloss.Width(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	for word := range strings.FieldsSeq(s) {
		for lipgloss.Width(word) > width {
			room, lead := width, ""
			switch used := lipgloss.Width(line) + 1; {
			case line == "":
			case width-used >= width/2:
				room, lead = width-used, line+" "
			default:
				lines = append(lines, line)
			}
			n := breakAt(word, room)
			lines, line = append(lines, lead+word[:n]), ""
			word = word[n:]
		}
		if word != "" {
			put(word)
		}
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// breakAt is the byte length of the part of word that goes on a line.
func breakAt(word string, width int) int {
	fit, after := 0, 0
	cells := 0
	for i, r := range word {
		cells += lipgloss.Width(string(r))
		end := i + utf8.RuneLen(r)
		if cells > width && fit > 0 {
			break
		}
		fit = end
		if strings.ContainsRune("/,;|", r) {
			after = end
		}
	}
	if after > fit/3 {
		return after
	}
	return fit
}

// pad fills s with spaces to width cells.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
