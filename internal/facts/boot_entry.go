// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// EntryLine cuts a line of an entry of type 1 into key and value.
func EntryLine(line string) (key, value string) {
	line = strings.TrimSpace(line)
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimSpace(line[i:])
}

// InstalledEntry is an entry of type 1 of systemd-boot, as its file has it.
type InstalledEntry struct{ ID, File, Text string }

// InstalledEntries gives the entries of type 1 that boot a kernel, in
// systemd-boot's own order.
func (b *Boot) InstalledEntries() []InstalledEntry {
	var out []InstalledEntry
	for _, e := range b.bls {
		if e.text != "" && e.linux != "" && !e.embedded {
			out = append(out, InstalledEntry{e.id, e.file, e.text})
		}
	}
	return out
}

// Options gives the one line of options of an entry; false where it has none or
// several, or one whose quotes systemd-boot would take off.
func Options(text string) (options string, ok bool) {
	n := 0
	for line := range strings.Lines(text) {
		if key, value := EntryLine(line); key == "options" && value != "" {
			n, options = n+1, value
		}
	}
	return options, n == 1 && options[0] != '"' && options[0] != '\''
}

// SetOptions gives the text of an entry with other options, and all else as it is.
func SetOptions(text, options string) (string, error) {
	old, ok := Options(text)
	if !ok {
		return "", errors.New("it has not one line of options that can be rewritten")
	}
	var s strings.Builder
	for line := range strings.Lines(text) {
		if key, value := EntryLine(line); key == "options" && value != "" {
			at := strings.Index(line, "options") + len("options")
			line = line[:at] + strings.Replace(line[at:], old, options, 1)
		}
		s.WriteString(line)
	}
	out := s.String()
	if now, ok := Options(out); !ok || now != options {
		return "", errors.New("it would not have the options " + options)
	}
	return out, nil
}

// With gives the entry that boots by default where one more of type 1 is
// installed, and that one as systemd-boot reads it.
func (b *Boot) With(name, file, text string) (usual, added *BootEntry) {
	e := parseBLS(name, file, text)
	entries := slices.DeleteFunc(slices.Clone(b.bls), func(o *blsEntry) bool { return o.file == file })
	entries = append(entries, e)
	slices.SortStableFunc(entries, compareBLS)
	choices := slices.DeleteFunc(slices.Clone(b.choices), func(c bootChoice) bool { return c.once })
	chosen, by, _ := (&Boot{}).choose(entries, choices)
	return chosen.shown(by), e.shown("")
}

// shown is an entry without what its file may lack.
func (e *blsEntry) shown(by string) *BootEntry {
	out := &BootEntry{ID: jsonText(e.id), Title: jsonText(e.title), File: e.file, Line: e.optionsLine, Kernel: jsonText(e.linux), Initrd: e.initrd, By: jsonText(by),
		Image: e.uki || e.embedded || e.efi != "", Counted: e.counted}
	if e.linux == "" {
		out.Kernel = jsonText(e.efi)
	}
	if e.why == "" {
		out.Cmdline = new(jsonText(strings.Join(e.options, " ")))
	}
	return out
}

// LoaderVar gives a text that the boot loader or the host left in a variable of
// the Boot Loader Interface, "" when it is not set.
func LoaderVar(h *host.Host, name string) (string, error) {
	raw, err := h.Read(efiVarPath(name))
	if host.Absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text, ok := efiText(raw)
	if !ok {
		return "", errors.New(efiVarPath(name) + " is not a text of UTF-16")
	}
	return text, nil
}

// entryOneShot is the bit of LoaderFeatures of a boot loader that heeds
// LoaderEntryOneShot, and erases it before it boots
// (EFI_LOADER_FEATURE_ENTRY_ONESHOT).
const entryOneShot = 1 << 3

func bootsOnce(h *host.Host) bool {
	b, err := h.Read(efiVarPath("LoaderFeatures"))
	return err == nil && len(b) == 4+8 && binary.LittleEndian.Uint64(b[4:])&entryOneShot != 0
}

// LoaderConf gives a value of loader.conf, "" when it is not there.
func (b *Boot) LoaderConf(h *host.Host, key string) string {
	if !strings.HasSuffix(b.Config, "/loader.conf") {
		return ""
	}
	text, err := h.Text(b.Config)
	if err != nil {
		return ""
	}
	return loaderConf(text, key)
}
