// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"strings"
)

// GrubWord is one word of a GRUB command line as it is written, and the word
// that the kernel gets; "" when a variable decides.
type GrubWord struct{ Raw, Text string }

// GrubWords cuts the value of GRUB_CMDLINE_LINUX into words.
func GrubWords(value string) ([]GrubWord, error) {
	if _, _, err := grubLine(value, func(string) grubValue { return grubValue{} }); err != nil {
		return nil, err
	}
	list, err := parseGrubScript("linux " + value)
	if err != nil {
		return nil, err
	}
	m := &grubMenu{vars: map[string]grubValue{}, steps: new(int)}
	var out []GrubWord
	for i, w := range list[0].words[1:] {
		word := GrubWord{Raw: list[0].raws[i+1]}
		fixed := true
		for _, p := range w {
			fixed = fixed && !p.variable
		}
		if args := m.expand([]grubWord{w}); fixed && len(args) == 1 {
			word.Text = grubLoaderArg(args[0].text)
		}
		out = append(out, word)
	}
	return out, nil
}

// QuoteGrub writes a word of the kernel command line so that GRUB hands over
// exactly that.
func QuoteGrub(token string) (string, error) {
	bare := token
	if in, ok := strings.CutPrefix(bare, `"`); ok && strings.HasSuffix(in, `"`) && in != "" && strings.Contains(in, " ") {
		bare = strings.TrimSuffix(in, `"`) // GRUB puts the quotes there by itself
	}
	out := bare
	switch {
	case strings.ContainsAny(bare, "\"'\\$`\n\t") || bare == "":
		return "", errors.New("GRUB has no safe way to write " + token)
	case strings.ContainsAny(bare, " ;&|<>{}#"):
		out = `"` + bare + `"`
	}
	words, err := GrubWords(out)
	if err != nil || len(words) != 1 || words[0].Text != token {
		return "", errors.New("GRUB has no safe way to write " + token)
	}
	return out, nil
}

// CmdlineValues gives GRUB_CMDLINE_LINUX and GRUB_CMDLINE_LINUX_DEFAULT as the
// settings leave them; why says why they are not known. Files in without are
// passed over.
func (b *Boot) CmdlineValues(without string) (values map[string]string, why string) {
	if b.vars == nil {
		return nil, b.Unknown["configured"]
	}
	values = map[string]string{}
	for _, name := range grubCmdlineVars {
		if _, why := b.vars.get(name); why != "" {
			return nil, why
		}
		for _, s := range b.Settings {
			if s.Name != name || s.File == without {
				continue
			}
			if s.Value == nil {
				return nil, s.File + " assigns " + name + " a value that only a shell could tell"
			}
			values[name] = *s.Value
		}
	}
	return values, ""
}

// Usual is the entry that boots when nothing is chosen for one boot.
func (b *Boot) Usual() *BootEntry {
	if b.Once {
		return b.Default
	}
	return b.Entry
}

// MenuEntry finds an entry of the boot menu by its id, without ".conf" in
// systemd-boot; nil when there is none.
func (b *Boot) MenuEntry(id string) *BootEntry {
	for _, e := range b.bls {
		if e.id == id+".conf" {
			return e.shown("")
		}
	}
	if b.menu == nil {
		return nil
	}
	m := b.menu.clone()
	m.vars["default"] = grubValue{text: id}
	if e, _ := m.pick(b.Config, ""); e != nil && e.ID == id {
		return e
	}
	return nil
}

// EntryBody gives the commands of an entry in GRUB's menu, one a line as they
// are rendered, and which of them is the command line's.
func (b *Boot) EntryBody(e *BootEntry) (lines []string, linux int, err error) {
	all := strings.Split(b.text, "\n")
	at := e.Line - e.start - 1
	if e.File != b.Config || e.end <= e.start+1 || e.end > len(all) || at < 0 || strings.TrimSpace(all[e.end-1]) != "}" {
		return nil, 0, errors.New("the entry " + e.ID + " is not written one command a line")
	}
	lines = all[e.start : e.end-1]
	if at >= len(lines) {
		return nil, 0, errors.New("the entry " + e.ID + " has no command line of its own")
	}
	command, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(lines[at], "\t", " ")), " ")
	if command != "linux" && command != "linuxefi" && command != "linux16" {
		return nil, 0, errors.New("the command line of " + e.ID + " is not on a line of its own")
	}
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return lines, at, nil
}
