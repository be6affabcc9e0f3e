// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/hostcheck/hostcheck/internal/host"
)

// bootDirs are where the EFI system partition and the extended boot partition
// are mounted.
var bootDirs = []string{"/efi", "/boot", "/boot/efi"}

// systemdBootConfig gives the loader.conf of systemd-boot, or the directory of
// its entries, "" when neither is seen.
func systemdBootConfig(h *host.Host) string {
	for _, d := range bootDirs {
		if p := d + "/loader/loader.conf"; seen(h, p) {
			return p
		}
	}
	for _, d := range bootDirs {
		if p := d + "/loader/entries"; seen(h, p) {
			return p
		}
	}
	return ""
}

// efiText decodes a variable of efivarfs that holds a text: four bytes of
// attributes, then UTF-16.
func efiText(b []byte) (string, bool) {
	if len(b) < 4 || len(b)%2 != 0 {
		return "", false
	}
	b = b[4:]
	u := make([]uint16, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		c := binary.LittleEndian.Uint16(b[i:])
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u)), true
}

// efiVar gives a variable of the Boot Loader Interface, "" when it is not set.
func (b *Boot) efiVar(h *host.Host, name string) string {
	p := efiVarPath(name)
	raw, err := h.Read(p)
	if err != nil {
		if !host.Absent(err) {
			b.problem(BootUnresolved, p, 0, "cannot be read: %s", host.Reason(err))
		}
		return ""
	}
	s, ok := efiText(raw)
	if !ok {
		b.problem(BootBroken, p, 0, "not a text of UTF-16")
	}
	return s
}

// systemdBoot decodes systemd-boot, and unified kernel images without it.
func (b *Boot) systemdBoot(h *host.Host) {
	b.readKernelCmdline(h)
	b.Config = systemdBootConfig(h)
	entries, err := b.readEntries(h)
	if err != nil {
		b.Unknown.set("next_boot", err)
		return
	}
	if len(entries) == 0 {
		b.Unknown.say("next_boot", "no boot entry and no unified kernel image is seen in /efi, /boot or /boot/efi")
		return
	}
	direct := b.Config == "" && !seen(h, efiVarPath("LoaderInfo"))
	if direct && len(entries) > 1 {
		b.Unknown.say("next_boot", "the firmware boots one of several unified kernel images, and its boot order is not decoded")
		return
	}
	slices.SortStableFunc(entries, compareBLS)
	b.bls = entries
	b.CanBootOnce = bootsOnce(h)
	choices := []bootChoice{
		{b.efiVar(h, "LoaderEntryOneShot"), "LoaderEntryOneShot", true},
		{b.efiVar(h, "LoaderEntryDefault"), "LoaderEntryDefault", false},
		{b.loaderDefault(h), "default in " + b.Config, false},
	}
	for i := range choices {
		if choices[i].pattern == "@saved" {
			choices[i].pattern = b.efiVar(h, "LoaderEntryLastBooted")
		}
	}
	b.choices = choices
	chosen, by, once := b.choose(entries, choices)
	b.Once = once
	b.Entry = b.entryOf(h, chosen, by)
	if once {
		chosen, by, _ = b.choose(entries, choices[1:])
		b.Default = b.entryOf(h, chosen, by)
	}
	if b.Entry.Cmdline == nil {
		b.Unknown.say("next_boot", chosen.why)
	}
}

// readKernelCmdline decodes the text that kernel-install gives new entries.
func (b *Boot) readKernelCmdline(h *host.Host) {
	for _, p := range []string{kernelCmdline, "/usr/lib/kernel/cmdline"} {
		text, err := h.Read(p)
		switch {
		case err == nil:
			line := plainLines(string(text))
			b.configured = &lazyText{line}
			b.Settings = append(b.Settings, BootSetting{Name: "cmdline", File: p, Line: 1, Value: new(jsonText(line))})
			return
		case !host.Absent(err):
			b.Unknown.set("configured", err)
			return
		}
	}
	b.Unknown.say("configured", "there is no "+kernelCmdline+": kernel-install copies what runs, /proc/cmdline, into new entries")
}

// readEntries reads the entries and images of all boot partitions.
func (b *Boot) readEntries(h *host.Host) (entries []*blsEntry, err error) {
	for _, d := range bootDirs {
		list, problems, e := readBLS(h, d+"/loader/entries")
		b.Problems = append(b.Problems, problems...)
		if e != nil && !host.Absent(e) {
			err = e
		}
		for _, x := range list {
			if x.uki {
				readUKI(h, path.Join(d, x.efi), x)
			}
			entries = append(entries, x)
		}
		names, e := h.List(d + "/EFI/Linux")
		if e != nil && !host.Absent(e) {
			err = e
		}
		for _, n := range names {
			if !strings.EqualFold(path.Ext(n), ".efi") {
				continue
			}
			x := &blsEntry{file: path.Join(d, "EFI/Linux", n), linux: "/EFI/Linux/" + n, uki: true}
			x.id, x.counted, x.triesLeft, x.triesDone = bootCounter(n)
			readUKI(h, x.file, x)
			entries = append(entries, x)
		}
	}
	if len(entries) > 0 {
		err = nil
	}
	return entries, err
}

// readUKI takes what a unified kernel image and its add-ons say.
func readUKI(h *host.Host, file string, e *blsEntry) {
	e.embedded = true
	if e.title == "" {
		e.title = e.id
	}
	head, err := h.Head(file)
	if err != nil {
		e.why = host.Reason(err)
		return
	}
	s, err := parseUKI(head)
	switch {
	case err != nil:
		e.why = file + ": " + err.Error()
		return
	case !s.hasCmdline && len(e.options) == 0:
		e.why = file + " holds no command line: its boot loader gives one"
		return
	case s.hasCmdline:
		e.options = []string{s.cmdline}
	}
	if name := osReleaseValue(s.osrel, "PRETTY_NAME"); name != "" {
		e.title = name
	}
	for _, key := range []string{"IMAGE_ID", "ID"} {
		if e.sortKey == "" {
			e.sortKey = osReleaseValue(s.osrel, key)
		}
	}
	for _, key := range []string{"IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"} {
		if e.version == "" {
			e.version = osReleaseValue(s.osrel, key)
		}
	}
	dir := file + ".extra.d"
	names, _ := h.List(dir) // most images have none
	for _, n := range names {
		if !strings.HasSuffix(n, ".addon.efi") {
			continue
		}
		head, err := h.Head(path.Join(dir, n))
		if err != nil {
			e.why = host.Reason(err)
			return
		}
		if a, err := parseUKI(head); err == nil && a.cmdline != "" {
			e.options = append(e.options, a.cmdline)
		}
	}
}

// loaderDefault is the "default" of loader.conf, a glob.
func (b *Boot) loaderDefault(h *host.Host) string {
	if !strings.HasSuffix(b.Config, "/loader.conf") {
		return ""
	}
	text, err := h.Read(b.Config)
	if err != nil {
		b.problem(BootUnresolved, b.Config, 0, "cannot be read: %s", host.Reason(err))
		return ""
	}
	return loaderConf(string(text), "default")
}

// loaderConf gives a value of loader.conf; the last one counts.
func loaderConf(text, key string) (value string) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			value = f[1]
		}
	}
	return value
}

// bootChoice is one of the places that choose an entry, by a glob.
type bootChoice struct {
	pattern, from string
	once          bool
}

// choose finds the entry as systemd-boot does: what was asked for once, the
// default that was chosen in the menu or by bootctl, loader.conf's, else the
// first that has tries left.
func (b *Boot) choose(entries []*blsEntry, choices []bootChoice) (e *blsEntry, by string, once bool) {
	for _, c := range choices {
		if c.pattern == "" {
			continue
		}
		pattern := c.pattern
		i := slices.IndexFunc(entries, func(e *blsEntry) bool { return matchEntry(pattern, e.id) })
		if i >= 0 {
			return entries[i], c.from + ": " + c.pattern, c.once
		}
		if !strings.HasPrefix(c.pattern, "auto-") {
			b.problem(BootIgnored, b.Config, 0, "%s is %q, which names no entry; it is passed over", c.from, c.pattern)
		}
	}
	if i := slices.IndexFunc(entries, func(e *blsEntry) bool { return !e.counted || e.triesLeft > 0 }); i >= 0 {
		return entries[i], "the first entry in the order of systemd-boot", false
	}
	b.problem(BootIgnored, entries[0].file, 0, "no entry has a try left, and systemd-boot takes the first one")
	return entries[0], "the first entry, as none has a try left", false
}

// matchEntry is fnmatch() of systemd-boot on an entry's id.
func matchEntry(pattern, id string) bool {
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(id))
	return err == nil && ok
}

func (b *Boot) entryOf(h *host.Host, e *blsEntry, by string) *BootEntry {
	out := e.shown(by)
	if e.why != "" {
		b.problem(BootUnresolved, e.file, 0, "%s", e.why)
	} else if !e.embedded {
		top := strings.TrimSuffix(path.Dir(e.file), "/loader/entries")
		for _, p := range append([]string{out.Kernel}, e.initrd...) {
			if p != "" && isMissing(h, []string{path.Join(top, strings.ReplaceAll(p, `\`, "/"))}) {
				b.problem(BootMissing, e.file, 0, "the entry %q boots %s, which is not there", e.title, p)
			}
		}
	}
	return out
}

// flatcar decodes the file that a Flatcar host adds to its command line. Which
// of its two systems boots next, the boot partition decides.
func (b *Boot) flatcar(h *host.Host) {
	b.Unknown.say("next_boot", "Flatcar's grub.cfg chooses one of two systems by attributes of the disk, which no file shows")
	for _, p := range []string{"/oem/grub.cfg", "/usr/share/oem/grub.cfg"} {
		text, err := h.Read(p)
		if host.Absent(err) {
			continue
		}
		b.Config = p
		if err != nil {
			b.Unknown.set("configured", err)
			return
		}
		list, err := parseGrubScript(string(text))
		if err != nil {
			b.Problems = append(b.Problems, grubBroken(p, err))
			b.Unknown.say("configured", p+": "+err.Error())
			return
		}
		m := newGrubMenu(p)
		m.read = func(string) (string, bool, error) { return "", true, nil }
		m.run(list)
		v := m.vars["linux_append"]
		if v.unknown {
			b.Unknown.say("configured", p+" sets linux_append under a condition that the machine alone knows")
			return
		}
		b.configured = &lazyText{v.text}
		return
	}
	b.Unknown.say("configured", "neither /oem/grub.cfg nor /usr/share/oem/grub.cfg is here: Ignition's kernel arguments stand in the boot partition alone")
}
