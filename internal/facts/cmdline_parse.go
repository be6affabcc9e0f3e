// SPDX-License-Identifier: Apache-2.0

package facts

import "strings"

// word is one word as the kernel's next_arg() hands it to a handler.
type word struct {
	name       string
	value      *string // nil when there was no "="
	raw        string
	rest       string // what follows in the text, from the byte after the one that ended the word
	bootconfig bool
}

// tail is the value with its "=", or "" without one: what the kernel puts back
// together before it looks for __setup() names (init/main.c, repair_env_string).
func (w word) tail() string {
	if w.value == nil {
		return ""
	}
	return "=" + *w.value
}

// is reports whether the word has a name, with or without a value.
func (w word) is(name string) bool { return SameParam(w.name, name) }

// splitCmdline splits a command line as lib/cmdline.c and kernel/params.c do:
// at white space outside quotes; a quote toggles and cannot be escaped. The
// first word that reads "--" and has no "=" ends the kernel's part.
func splitCmdline(text string) (words, init []word) {
	text = skipSpaces(text)
	dashes := false
	for text != "" && text[0] != 0 {
		var w word
		w, text = nextArg(text)
		switch {
		case dashes:
			init = append(init, w)
		case w.name == "--" && w.value == nil:
			dashes = true
		default:
			words = append(words, w)
		}
	}
	return words, init
}

// nextArg is next_arg() of lib/cmdline.c. Its quirks are kept: a leading "="
// is part of the name, and quotes are taken off a value only as a pair around
// the whole of it.
func nextArg(text string) (w word, rest string) {
	args := text
	inQuote, quoted := false, false
	if args[0] == '"' {
		args = args[1:]
		inQuote, quoted = true, true
	}
	equals := 0
	i := 0
	for ; i < len(args) && args[i] != 0; i++ {
		c := args[i]
		if isSpace(c) && !inQuote {
			break
		}
		if c == '=' && equals == 0 {
			equals = i
		}
		if c == '"' {
			inQuote = !inQuote
		}
	}
	w.raw = text[:len(text)-len(args)+i]
	body := args[:i]
	end := i // of the last string in body, moved by quotes that are taken off
	if equals > 0 {
		start := equals + 1
		if start < i && body[start] == '"' {
			start++
			if body[i-1] == '"' {
				end = i - 1
			}
		}
		if quoted && i > 0 && body[i-1] == '"' {
			end = i - 1
		}
		value := ""
		if start < end {
			value = body[start:end]
		}
		w.name, w.value = body[:equals], &value
	} else {
		if quoted && i > 0 && body[i-1] == '"' {
			end = i - 1
		}
		w.name = body[:end]
	}
	if i < len(args) && args[i] != 0 { // at a NUL the text ends
		rest = args[i+1:]
	}
	w.rest = rest
	return w, skipSpaces(rest)
}

// isSpace is the kernel's isspace() (lib/ctype.c): its table is Latin-1, so
// the no-break space 0xA0 counts, also inside a UTF-8 letter such as "à".
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0xa0 }

// isAlpha is the kernel's isalpha(), Latin-1 likewise.
func isAlpha(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0xc0 && c != 0xd7 && c != 0xf7
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func skipSpaces(s string) string {
	i := 0
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return s[i:]
}

// prefixUint reads the digits at the start of s in a base (10, 16, or 0 for
// the C prefixes), wrapping as simple_strtoull() does. ok is whether there
// were any.
func prefixUint(s string, base uint64) (n uint64, rest string, ok bool) {
	if base == 0 {
		base = 10
		if s != "" && s[0] == '0' {
			base = 8
			if len(s) > 2 && s[1]|0x20 == 'x' && digitOf(s[2]) < 16 {
				base, s = 16, s[2:]
			}
		}
	}
	i := 0
	for ; i < len(s) && digitOf(s[i]) < base; i++ {
		n = n*base + digitOf(s[i])
	}
	return n, s[i:], i > 0
}

func digitOf(c byte) uint64 {
	switch c |= 0x20; { // lower case; digits have the bit already
	case c >= '0' && c <= '9':
		return uint64(c - '0')
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10
	}
	return 99
}

// memparse reads a size with its suffix as lib/cmdline.c does: whatever
// follows is ignored, so "2MB" and "2M,1G" are 2M.
func memparse(s string) (n uint64, rest string) {
	n, rest, _ = prefixUint(s, 0)
	if rest == "" {
		return n, rest
	}
	i := strings.IndexByte("KMGTPE", rest[0]&^0x20)
	if i < 0 {
		return n, rest
	}
	return n << (10 * (i + 1)), rest[1:]
}

// getOption is get_option(): an int, and whether there was one. An option
// that has text but no number sets 0 all the same.
func getOption(s string) (n int32, set, ok bool) {
	if s == "" {
		return 0, false, false
	}
	digits, negative := strings.CutPrefix(s, "-")
	v, _, ok := prefixUint(digits, 0)
	n = int32(uint32(v))
	if negative {
		n = -n
	}
	return n, true, ok
}

// kstrtobool reads a boolean by its first one or two letters (lib/kstrtox.c).
func kstrtobool(s string) (v, ok bool) {
	if s == "" {
		return false, false
	}
	switch s[0] {
	case 'y', 'Y', 't', 'T', '1':
		return true, true
	case 'n', 'N', 'f', 'F', '0':
		return false, true
	case 'o', 'O':
		if len(s) > 1 {
			switch s[1] | 0x20 {
			case 'n':
				return true, true
			case 'f':
				return false, true
			}
		}
	}
	return false, false
}
