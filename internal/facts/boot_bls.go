// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"errors"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// blsEntry is a boot entry of the Boot Loader Specification: a file of type 1
// below loader/entries, or a unified kernel image, type 2.
type blsEntry struct {
	id, file    string // the name without a boot counter, and where it lies
	text        string // of a file of type 1
	title       string
	version     string
	machineID   string
	sortKey     string
	linux       string // as written, from the root of the partition
	initrd      []string
	options     []string // each line
	optionsLine int
	efi         string
	uki         bool
	embedded    bool   // options are inside the image
	why         string // the command line cannot be read

	counted              bool // the name has a boot counter
	triesLeft, triesDone int
}

// parseBLS reads an entry of type 1: "key value" lines. The first value of a
// key counts, except that initrd and options add up.
func parseBLS(name, file, text string) *blsEntry {
	e := &blsEntry{file: file, text: text, optionsLine: 1}
	e.id, e.counted, e.triesLeft, e.triesDone = bootCounter(name)
	n := 0
	for line := range strings.Lines(text) {
		n++
		key, value := EntryLine(line)
		if value == "" || key[0] == '#' {
			continue
		}
		set := func(to *string) {
			if *to == "" {
				*to = value
			}
		}
		switch key {
		case "title":
			set(&e.title)
		case "version":
			set(&e.version)
		case "machine-id":
			set(&e.machineID)
		case "sort-key":
			set(&e.sortKey)
		case "linux":
			set(&e.linux)
		case "efi":
			set(&e.efi)
		case "uki":
			set(&e.efi)
			e.uki = true
		case "initrd":
			for w := range strings.FieldsSeq(value) {
				if w[0] != '$' { // $tuned_initrd
					e.initrd = append(e.initrd, w)
				}
			}
		case "options":
			if e.options == nil {
				e.optionsLine = n
			}
			e.options = append(e.options, value)
		}
	}
	if e.title == "" {
		e.title = e.id
	}
	return e
}

// bootCounter takes the counter off the name of an entry: "linux+2-1.conf" has
// two tries left and one done (systemd's automatic boot assessment).
func bootCounter(name string) (id string, counted bool, left, done int) {
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	i := strings.LastIndexByte(stem, '+')
	if i < 0 {
		return name, false, 0, 0
	}
	l, d, hasDone := strings.Cut(stem[i+1:], "-")
	left, ok := decimal(l)
	if hasDone && ok {
		done, ok = decimal(d)
	}
	if !ok {
		return name, false, 0, 0
	}
	return stem[:i] + ext, true, left, done
}

func decimal(s string) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// expand gives the command line as GRUB's blscfg makes it: variables are
// replaced, and the result is read as a GRUB command.
func (e *blsEntry) expand(vars map[string]grubValue) (text string, unresolved []string) {
	get := func(name string) grubValue { return vars[name] }
	words, unresolved, err := grubLine(strings.Join(e.options, " "), get)
	if err != nil {
		return "", []string{err.Error()}
	}
	return strings.Join(words, " "), unresolved
}

// grubLine reads text as the arguments of a GRUB command, and gives the words
// as the kernel gets them, and those that hold a variable whose value is not
// known. An error is text that would not stay one command.
func grubLine(text string, get func(name string) grubValue) (words, unresolved []string, err error) {
	list, err := parseGrubScript("linux " + text)
	var syntax *grubSyntax
	switch {
	case errors.As(err, &syntax):
		return nil, nil, errors.New("GRUB cannot read it as one command: " + syntax.what)
	case err != nil:
		return nil, nil, err
	case len(list) != 1 || list[0].has || list[0].branches != nil || list[0].words == nil:
		return nil, nil, errors.New("GRUB ends the command at a \";\" or a line break outside quotes")
	}
	m := &grubMenu{vars: map[string]grubValue{}, steps: new(int)}
	for _, w := range list[0].words {
		for _, p := range w {
			if p.variable {
				m.vars[p.text] = get(p.text)
			}
		}
	}
	for _, a := range m.expand(list[0].words[1:]) {
		if a.unknown {
			unresolved = append(unresolved, a.text)
			continue
		}
		words = append(words, grubLoaderArg(a.text))
	}
	return words, unresolved, nil
}

// readBLS reads the entries in a directory, unsorted.
func readBLS(h *host.Host, dir string) (entries []*blsEntry, problems []BootProblem, err error) {
	names, err := h.List(dir)
	if err != nil {
		return nil, nil, err
	}
	var ops []host.Op
	for _, n := range names {
		if strings.HasSuffix(n, ".conf") {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(dir, n)})
		}
	}
	h.Prefetch(ops)
	for _, op := range ops {
		b, err := h.Read(op.Path)
		if err != nil {
			problems = append(problems, BootProblem{Kind: BootUnresolved, File: op.Path, Why: "cannot be read: " + host.Reason(err)})
			continue
		}
		entries = append(entries, parseBLS(path.Base(op.Path), op.Path, string(b)))
	}
	return entries, problems, nil
}

// compareBLS orders entries as systemd-boot does, the default first
// (src/boot/boot.c, config_entry_compare).
func compareBLS(a, b *blsEntry) int {
	bad := func(e *blsEntry) bool { return e.counted && e.triesLeft == 0 }
	if c := compareBool(bad(a), bad(b)); c != 0 {
		return c
	}
	if c := compareBool(a.sortKey == "", b.sortKey == ""); c != 0 {
		return c
	}
	if a.sortKey != "" {
		if c := cmp.Or(strings.Compare(a.sortKey, b.sortKey), strings.Compare(a.machineID, b.machineID), -compareVersions(a.version, b.version)); c != 0 {
			return c
		}
	}
	if c := -compareVersions(a.id, b.id); c != 0 {
		return c
	}
	if !a.counted || !b.counted {
		return compareBool(a.counted, b.counted)
	}
	return cmp.Or(-cmp.Compare(a.triesLeft, b.triesLeft), cmp.Compare(a.triesDone, b.triesDone))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compareVersions is the order of the specification's version format: systemd's
// strverscmp_improved().
func compareVersions(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, noVersion), strings.TrimLeftFunc(b, noVersion)
		at := func(s string, c byte) bool { return s != "" && s[0] == c }
		if at(a, '~') || at(b, '~') {
			if c := compareBool(!at(a, '~'), !at(b, '~')); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			return compareBool(a != "", b != "")
		}
		separated := false
		for _, sep := range []byte("-^.") {
			if at(a, sep) || at(b, sep) {
				if c := compareBool(!at(a, sep), !at(b, sep)); c != 0 {
					return c
				}
				a, b, separated = a[1:], b[1:], true
				break
			}
		}
		if separated {
			continue
		}
		if isDigit(a[0]) || isDigit(b[0]) {
			x, y := digits(a), digits(b)
			a, b = a[len(x):], b[len(y):]
			if c := compareBool(x != "", y != ""); c != 0 {
				return c
			}
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			continue
		}
		x, y := letters(a), letters(b)
		a, b = a[len(x):], b[len(y):]
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
}

func noVersion(r rune) bool {
	return r > 127 || !isDigit(byte(r)) && !isLetter(byte(r)) && strings.IndexByte("~-^.", byte(r)) < 0
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func digits(s string) string { return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))] }
func letters(s string) string {
	i := 0
	for i < len(s) && isLetter(s[i]) {
		i++
	}
	return s[:i]
}
