// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

const (
	grubDefault    = "/etc/default/grub"
	grubDefaultDir = "/etc/default/grub.d"
	blsDir         = "/boot/loader/entries"
	kernelCmdline  = "/etc/kernel/cmdline"
)

// grubConfig gives the file that GRUB reads, "" when none is seen.
func grubConfig(h *host.Host) string {
	for _, dir := range []string{"/boot/grub", "/boot/grub2"} {
		names, err := h.List(dir)
		if err == nil && slices.Contains(names, "grub.cfg") || err != nil && !host.Absent(err) {
			return dir + "/grub.cfg"
		}
	}
	vendors, _ := h.List("/boot/efi/EFI")
	for _, v := range vendors {
		if p := "/boot/efi/EFI/" + v + "/grub.cfg"; seen(h, p) {
			return p
		}
	}
	return ""
}

// grub decodes GRUB's settings and menu.
func (b *Boot) grub(h *host.Host, loader string) {
	b.readSettings(h, loader)
	if b.Config = grubConfig(h); b.Config == "" {
		b.Unknown.say("next_boot", "no grub.cfg is seen in /boot/grub, /boot/grub2 or the EFI partition")
	} else {
		b.readGrubenv(h)
		b.readMenu(h)
	}
	if loader == LoaderOSTree {
		b.ostree(h)
	}
}

// ostree keeps kernel arguments in the boot entries alone: the one that boots
// next is the configuration.
func (b *Boot) ostree(h *host.Host) {
	b.Settings, b.configured, b.Configured = []BootSetting{}, nil, nil
	delete(b.Unknown, "configured")
	if b.Entry == nil {
		entries, problems, err := readBLS(h, blsDir)
		b.Problems = append(b.Problems, problems...)
		switch {
		case err != nil:
			b.Unknown.set("next_boot", err)
		case len(entries) > 0:
			delete(b.Unknown, "next_boot")
			sortGrubBLS(entries)
			e := entries[0]
			b.Entry = &BootEntry{ID: e.id, Title: e.title, File: e.file, Line: e.optionsLine, Kernel: e.linux, Initrd: e.initrd, By: "the newest deployment",
				Cmdline: new(strings.Join(e.options, " "))}
		}
	}
	if b.Entry == nil || b.Entry.Cmdline == nil {
		b.Unknown.say("configured", "ostree keeps it in the boot entries, and which one boots next is not known")
		return
	}
	b.configured = &lazyText{*b.Entry.Cmdline}
}

// readSettings decodes what the files say from which grub.cfg is rendered.
func (b *Boot) readSettings(h *host.Host, loader string) {
	vars := newShellVars()
	files := []string{grubDefault}
	if names, err := h.List(grubDefaultDir); err == nil && loader == LoaderGrubDebian {
		for _, n := range names {
			if strings.HasSuffix(n, ".cfg") && !strings.HasPrefix(n, ".") {
				files = append(files, path.Join(grubDefaultDir, n))
			}
		}
	} else if loader == LoaderGrubDebian && !host.Absent(err) {
		b.Unknown.set("configured", err)
		return
	}
	for i, p := range files {
		text, err := h.Read(p)
		if i == 0 && host.Absent(err) {
			b.Unknown.set("configured", err)
			return
		}
		if err != nil {
			b.Unknown.set("configured", err)
			return
		}
		vars.source(p, string(text))
		if p == OwnGrubFile {
			noteWas(vars.set, string(text))
		}
	}
	b.vars = vars
	for _, s := range vars.set {
		if s.Name == "GRUB_DEFAULT" || slices.Contains(grubCmdlineVars, s.Name) {
			b.Settings = append(b.Settings, s)
		}
	}
	if vars.broken != nil {
		b.Problems = append(b.Problems, *vars.broken)
	}
	text, file := "", grubDefault
	for _, name := range grubCmdlineVars {
		value, why := vars.get(name)
		if why != "" {
			b.Unknown.say("configured", why)
			return
		}
		if _, _, err := grubLine(value, func(string) grubValue { return grubValue{} }); err != nil {
			at := b.lastSetting(name)
			b.problem(BootBroken, at.File, at.Line, "%s: %v", name, err)
			b.Unknown.say("configured", fmt.Sprintf("%s:%d: %v", at.File, at.Line, err))
			return
		}
		text = strings.TrimSpace(text + " " + value)
	}
	tuned := tunedCmdline(h)
	if loader == LoaderGrubBLS {
		if own, err := h.Read(kernelCmdline); err == nil { // kernel-install prefers it for the entries it writes
			text, file = plainLines(string(own)), kernelCmdline
			b.Settings = append(b.Settings, BootSetting{Name: "cmdline", File: file, Line: 1, Value: new(jsonText(text))})
		}
		if tuned != nil && !strings.Contains(text, "$tuned_params") {
			text += " $tuned_params"
		}
	}
	words, unresolved, err := grubLine(text, func(name string) grubValue {
		if name == "tuned_params" && tuned != nil {
			return grubValue{text: *tuned}
		}
		return grubValue{unknown: true}
	})
	switch {
	case err != nil:
		b.problem(BootBroken, file, 0, "%v", err)
		b.Unknown.say("configured", fmt.Sprintf("%s: %v", file, err))
	case len(unresolved) > 0:
		b.Unknown.say("configured", "only GRUB knows what "+strings.Join(unresolved, ", ")+" will be")
	default:
		b.configured = &lazyText{strings.Join(words, " ")}
	}
}

// OwnGrubFile is the file in which hostcheck keeps what was confirmed.
const OwnGrubFile = grubDefaultDir + "/zz-hostcheck.cfg"

// noteWas reads the comments "# was NAME='VALUE'" of that file.
func noteWas(set []BootSetting, text string) {
	for line := range strings.Lines(text) {
		was, ok := strings.CutPrefix(line, "# was ")
		name, value, ok2 := strings.Cut(strings.TrimSuffix(was, "\n"), "='")
		if !ok || !ok2 || !strings.HasSuffix(value, "'") {
			continue
		}
		for i := range set {
			if set[i].File == OwnGrubFile && set[i].Name == name {
				set[i].Was = new(jsonText(strings.TrimSuffix(value, "'")))
			}
		}
	}
}

// grubCmdlineVars make up the command line of the usual entries, in this order.
var grubCmdlineVars = []string{"GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"}

// lastSetting is the last assignment to a variable.
func (b *Boot) lastSetting(name string) BootSetting {
	for _, s := range slices.Backward(b.Settings) {
		if s.Name == name {
			return s
		}
	}
	return BootSetting{File: grubDefault}
}

// tunedCmdline is what TuneD adds through $tuned_params; nil without TuneD.
func tunedCmdline(h *host.Host) *string {
	b, err := h.Read(pathTuned + "/bootcmdline")
	if err != nil {
		return nil
	}
	vars := newShellVars()
	vars.source(pathTuned+"/bootcmdline", string(b))
	if text, why := vars.get("TUNED_BOOT_CMDLINE"); why == "" {
		return &text
	}
	return nil
}

// plainLines joins the lines of a file without comments.
func plainLines(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return strings.Join(out, " ")
}

func (b *Boot) readGrubenv(h *host.Host) {
	env := &GrubEnv{Path: path.Dir(b.Config) + "/grubenv", State: "ok", Vars: map[string]string{}}
	b.Environment = env
	text, err := h.Read(env.Path)
	switch {
	case host.Absent(err):
		env.State, env.Why = "missing", "GRUB can neither keep a saved entry nor boot one once"
	case err != nil:
		env.State, env.Why = "unreadable", host.Reason(err)
	default:
		vars, err := parseGrubenv(text)
		if vars != nil {
			env.Vars = make(map[string]string, len(vars))
			for k, v := range vars {
				env.Vars[jsonText(k)] = jsonText(v)
			}
		}
		if err != nil {
			env.State, env.Why = "malformed", err.Error()
			b.problem(BootBroken, env.Path, 0, "%v", err)
		}
	}
	can, why := grubCanWrite(h, env.Path)
	if env.Writable = can; can == nil {
		env.Unknown.say("writable", why)
	} else if !*can && env.Why == "" {
		env.Why = why
	}
}

// grubCanWrite tells whether GRUB can write a file of this file system: not
// where it lies on LVM, RAID or an encrypted disk, nor on a file system that
// moves its blocks (the list of grub-mkconfig's 00_header).
func grubCanWrite(h *host.Host, file string) (can *bool, why string) {
	at, why := mountOf(h, file)
	if at == nil {
		return nil, why
	}
	switch at.kind {
	case "btrfs", "zfs", "squashfs", "romfs", "iso9660", "erofs", "bcachefs":
		return new(false), "it lies on " + at.kind + ", which GRUB does not write"
	case "ext2", "ext3", "ext4", "vfat", "xfs", "exfat":
	default:
		return nil, "whether GRUB writes " + at.kind + " is not known"
	}
	for _, kind := range []string{"/dev/mapper/", "/dev/dm-", "/dev/md"} {
		if strings.HasPrefix(at.source, kind) {
			return new(false), "it lies on " + at.source + ", and GRUB does not write through LVM, RAID or encryption"
		}
	}
	if !strings.HasPrefix(at.source, "/dev/") {
		return nil, "the device below " + at.path + " is not known (" + at.source + ")"
	}
	return new(true), ""
}

// readMenu runs grub.cfg and finds the entry that boots next.
func (b *Boot) readMenu(h *host.Host) {
	text, err := h.Read(b.Config)
	if err != nil {
		b.Unknown.set("next_boot", err)
		return
	}
	list, err := parseGrubScript(string(text))
	if err != nil {
		p := grubBroken(b.Config, err)
		b.Problems = append(b.Problems, p)
		b.Unknown.say("next_boot", fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Why))
		return
	}
	m := b.runMenu(h, list, nil)
	b.menu, b.text = m, string(text)
	b.Problems = append(b.Problems, m.problems...)
	once := m.vars["boot_once"].text == "true" && !m.vars["boot_once"].unknown
	b.CanBootOnce = b.takesBack(h, list)
	b.Password = m.vars["superusers"] != grubValue{}
	entry, why := m.pick(b.Config, b.by(m, once))
	if entry == nil {
		b.Unknown.say("next_boot", why)
		return
	}
	if why != "" {
		b.problem(BootMissing, b.Config, 0, "%s", why)
	}
	b.Entry, b.Once = entry, once
	if entry.Cmdline == nil {
		b.Unknown.say("next_boot", "the entry "+entry.ID+" does not say what it boots, or only under conditions that the machine alone knows")
	}
	if once {
		vars := maps.Clone(b.Environment.Vars)
		if prev := vars["prev_saved_entry"]; prev != "" {
			vars["saved_entry"] = prev
		}
		for _, n := range []string{"next_entry", "prev_saved_entry", "boot_once"} {
			delete(vars, n)
		}
		after := b.runMenu(h, list, vars)
		b.Default, _ = after.pick(b.Config, b.by(after, false))
	}
	b.bootable(h, b.Entry)
	if b.Default != nil {
		b.bootable(h, b.Default)
	}
}

// takesBack reports whether the menu boots the entry in next_entry and clears
// it: what it does is seen with one in the environment block.
func (b *Boot) takesBack(h *host.Host, list []grubCommand) bool {
	m := b.runMenu(h, list, map[string]string{"next_entry": TrialEntry})
	return m.saves["next_entry"] && m.vars["next_entry"] == grubValue{} && m.vars["default"] == grubValue{text: TrialEntry}
}

// by names what decides over the entry.
func (b *Boot) by(m *grubMenu, once bool) string {
	spec, env := m.vars["default"].text, b.Environment
	switch {
	case once && env.Vars["next_entry"] != "":
		return "next_entry=" + spec + " in " + env.Path
	case once:
		return "a saved entry for one boot in " + env.Path
	case spec != "" && spec == env.Vars["saved_entry"]:
		return "saved_entry=" + spec + " in " + env.Path
	case spec == "":
		return "the first entry"
	}
	return "default=" + spec + " in " + b.Config
}

// runMenu runs grub.cfg; env stands for the environment block when it is not nil.
func (b *Boot) runMenu(h *host.Host, list []grubCommand, env map[string]string) *grubMenu {
	m := newGrubMenu(b.Config)
	m.env = env
	m.read = func(p string) (string, bool, error) {
		var last error
		for _, c := range grubPaths(p) {
			text, err := h.Read(c)
			if err == nil || !host.Absent(err) {
				return string(text), false, err
			}
			last = err
		}
		return "", last != nil, last
	}
	m.isset = func(op, p string) grubStatus {
		for _, c := range grubPaths(p) {
			if !seen(h, c) {
				continue
			}
			text, err := h.Read(c)
			_, listErr := h.List(c)
			switch {
			case op == "-e":
				return grubTrue
			case op == "-d":
				return grubBool(listErr == nil, false)
			case listErr == nil:
				return grubFalse
			case op == "-s":
				return grubBool(len(text) > 0, err != nil)
			}
			return grubTrue
		}
		return grubFalse
	}
	m.bls = func() []*blsEntry {
		entries, problems, err := readBLS(h, blsDir)
		b.Problems = mergeProblems(b.Problems, problems)
		if err != nil {
			b.problem(BootUnresolved, blsDir, 0, "cannot be read: %s", host.Reason(err))
		}
		sortGrubBLS(entries)
		return entries
	}
	m.run(list)
	return m
}

// sortGrubBLS orders entries as GRUB's blscfg does, the newest first, and
// names them as it does.
func sortGrubBLS(entries []*blsEntry) {
	for _, e := range entries {
		e.id = strings.TrimSuffix(e.id, ".conf")
	}
	slices.SortStableFunc(entries, func(a, b *blsEntry) int { return -compareVersions(a.id, b.id) })
}

// grubPaths gives where a path of GRUB may lie here: it starts at the root of
// the file system that /boot is on, which may be /boot itself or a subvolume.
func grubPaths(p string) []string {
	if strings.HasPrefix(p, "(") {
		_, p, _ = strings.Cut(p, ")")
	}
	if !strings.HasPrefix(p, "/") || strings.Contains(p, "${") {
		return nil
	}
	p = path.Clean(p)
	paths := []string{p, path.Join("/boot", p)}
	if sub, rest, ok := strings.Cut(p[1:], "/"); ok && strings.HasPrefix(sub, "@") {
		paths = append(paths, "/"+rest, path.Join("/boot", rest))
	}
	return paths
}

// bootable notes files of an entry that are not there.
func (b *Boot) bootable(h *host.Host, e *BootEntry) {
	for _, p := range append([]string{e.Kernel}, e.Initrd...) {
		if paths := grubPaths(p); paths != nil && isMissing(h, paths) {
			b.problem(BootMissing, e.File, e.Line, "the entry %q boots %s, which is not there", e.Title, p)
		}
	}
}

// isMissing reports whether none of the paths is there, though a directory of
// theirs shows other kernels: an empty one proves nothing.
func isMissing(h *host.Host, paths []string) bool {
	shown := false
	for _, p := range paths {
		names, err := h.List(path.Dir(p))
		if err != nil {
			if !host.Absent(err) {
				return false
			}
			continue
		}
		if slices.Contains(names, path.Base(p)) {
			return false
		}
		shown = shown || slices.ContainsFunc(names, func(n string) bool {
			return strings.HasPrefix(n, "vmlinu") || strings.HasPrefix(n, "initrd") || strings.HasPrefix(n, "initramfs") || strings.HasPrefix(n, "Image") || n == "linux"
		})
	}
	return shown
}

// pick finds the entry that $default names, through submenus; why says what is
// wrong with the choice, or why there is none.
func (m *grubMenu) pick(file, by string) (entry *BootEntry, why string) {
	spec := m.vars["default"]
	if spec.unknown {
		return nil, "what $default will be is not known: only GRUB can tell, or its environment block cannot be read"
	}
	id := ""
	rest := spec.text
	for range maxGrubDepth {
		if len(m.entries) == 0 {
			return nil, file + " has no menu entry"
		}
		at, more, exact := m.find(rest)
		_, numbered := decimal(strings.SplitN(rest, ">", 2)[0])
		if rest = more; !exact && why == "" {
			why = fmt.Sprintf("the default %q names no entry, and GRUB boots the first one", spec.text)
		}
		e := m.entries[at]
		first := at // a number counts those before it, a name does not
		if numbered {
			first = 0
		}
		if slices.ContainsFunc(m.entries[first:at+1], func(e *grubEntry) bool { return e.maybe }) {
			return nil, "an entry of the menu is there only under a condition that the machine alone knows"
		}
		id = joinEntry(id, e.id)
		boot, sub := m.of(e)
		if sub != nil {
			m = sub
			continue
		}
		out := &BootEntry{ID: jsonText(id), Title: jsonText(e.title), File: e.file, Line: e.line, Kernel: jsonText(boot.kernel), Initrd: boot.initrd, By: jsonText(by)}
		if boot.line > 0 {
			out.Line = boot.line
		}
		out.start, out.end = e.line, e.end
		for i, s := range out.Initrd {
			out.Initrd[i] = jsonText(s)
		}
		if boot.found && !boot.ambiguous {
			out.Cmdline = new(jsonText(boot.cmdline))
			for _, u := range boot.unresolved {
				out.Unresolved = append(out.Unresolved, jsonText(u))
			}
		}
		return out, why
	}
	return nil, "submenus nest too deep"
}

func joinEntry(above, id string) string {
	id = strings.ReplaceAll(id, ">", ">>")
	if above == "" {
		return id
	}
	return above + ">" + id
}

// find gives the index of the entry that the first part of a choice names, by
// number, title or id (grub-core/normal/menu.c, get_entry_number), and the
// part for the submenu.
func (m *grubMenu) find(spec string) (at int, rest string, exact bool) {
	first := ""
	for i := 0; ; i++ {
		if i >= len(spec) {
			first = spec
			break
		}
		if spec[i] == '>' && strings.HasPrefix(spec[i+1:], ">") {
			i++
			continue
		}
		if spec[i] == '>' {
			first, rest = spec[:i], spec[i+1:]
			break
		}
	}
	first = strings.ReplaceAll(first, ">>", ">")
	if first == "" {
		return 0, rest, true
	}
	if n, ok := decimal(first); ok {
		if n < len(m.entries) {
			return n, rest, true
		}
		return 0, rest, false
	}
	for i, e := range m.entries {
		if e.id == first || e.title == first {
			return i, rest, true
		}
	}
	return 0, rest, false
}
