// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

const pathTuned = "/etc/tuned"

// tunedDirs hold profiles, the first one wins (tuned-profiles(7); those below
// "profiles" since 2.23).
var tunedDirs = []string{pathTuned + "/profiles", pathTuned, "/usr/lib/tuned/profiles", "/usr/lib/tuned"}

// iniLine is one "key=value" of a section.
type iniLine struct {
	section, key, value string
	line                int
}

// parseINI reads a file of sections; comments start a line with # or ;. The
// key of a line without "=" is the line.
func parseINI(text string) []iniLine {
	var out []iniLine
	section, n := "", 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = strings.TrimSpace(strings.Trim(line, "[]"))
			out = append(out, iniLine{section: section, line: n})
		default:
			k, v, _ := strings.Cut(line, "=")
			out = append(out, iniLine{section, strings.TrimSpace(k), strings.TrimSpace(v), n})
		}
	}
	return out
}

// tunedProfile is the options of a profile and of those that it includes, the
// later winning, each with its place.
type tunedProfile struct {
	options map[[2]string]tunedOption // by section and key
	order   [][2]string
	unknown []string // what could not be read
}

type tunedOption struct{ value, source string }

// load merges a profile; what it includes comes first.
func (t *tunedProfile) load(h *host.Host, name string, on []string) {
	if slices.Contains(on, name) || len(on) > 16 || strings.ContainsAny(name, "/$") {
		if strings.Contains(name, "$") {
			t.unknown = append(t.unknown, "the included profile "+name+" depends on a variable")
		}
		return
	}
	p, text := "", ""
	for _, dir := range tunedDirs {
		b, err := h.Read(path.Join(dir, name, "tuned.conf"))
		if err == nil {
			p, text = path.Join(dir, name, "tuned.conf"), string(b)
			break
		}
		if !host.Absent(err) {
			t.unknown = append(t.unknown, whyNot(h, err))
			return
		}
	}
	if p == "" {
		t.unknown = append(t.unknown, "there is no profile "+name)
		return
	}
	lines := parseINI(text)
	for _, l := range lines {
		if l.section == "main" && l.key == "include" {
			for parent := range strings.FieldsFuncSeq(l.value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
				t.load(h, strings.TrimPrefix(parent, "-"), append(on, name)) // "-": may be missing
			}
		}
	}
	for _, l := range lines {
		switch {
		case l.section == "main" || l.section == "variables" || l.key == "":
			continue
		case l.key == "replace" && truth(l.value), l.key == "enabled" && !truth(l.value):
			t.forget(l.section)
			continue
		}
		k := [2]string{l.section, l.key}
		if _, ok := t.options[k]; !ok {
			t.order = append(t.order, k)
		}
		t.options[k] = tunedOption{strings.Trim(l.value, `"`), fmt.Sprintf("%s:%d", p, l.line)}
	}
}

func (t *tunedProfile) forget(section string) {
	t.order = slices.DeleteFunc(t.order, func(k [2]string) bool { return k[0] == section })
	for k := range t.options {
		if k[0] == section {
			delete(t.options, k)
		}
	}
}

func truth(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on", "y", "t":
		return true
	}
	return false
}

// findTuned gives TuneD where it has an active profile.
func findTuned(f *Facts, pods []string) *Owner {
	h := f.host
	active := pathTuned + "/active_profile"
	text, err := h.Text(active)
	post, _ := h.Text(pathTuned + "/post_loaded_profile")
	names := append(strings.Fields(text), strings.Fields(post)...)
	if err != nil && host.Absent(err) && post == "" || err == nil && len(names) == 0 {
		return nil
	}
	o := &Owner{Name: OwnerTuned, Detail: strings.Join(names, " "), Source: active, Active: unitActive(h, "tuned.service")}
	if podOf(pods, "tuned-") != "" {
		o.Active = new(true)
	}
	if err != nil && !host.Absent(err) {
		o.Unknown.say("detail", whyNot(h, err))
		return o
	}
	t := &tunedProfile{options: map[[2]string]tunedOption{}}
	for _, n := range names {
		t.load(h, n, nil)
	}
	if t.unknown != nil {
		o.Unknown.say("holds", strings.Join(t.unknown, "; "))
	}
	for _, k := range t.order {
		o.Holds = append(o.Holds, t.held(k)...)
	}
	if b, err := h.Text(pathTuned + "/bootcmdline"); err == nil {
		for _, l := range parseINI(b) {
			if l.key == "TUNED_BOOT_CMDLINE" {
				for token := range strings.FieldsSeq(strings.Trim(l.value, `"`)) {
					o.Holds = append(o.Holds, heldToken(token, token, fmt.Sprintf("%s/bootcmdline:%d", pathTuned, l.line))...)
				}
			}
		}
	}
	return o
}

// held names what one option sets. A section is a plugin; one with another
// name says which by "type".
func (t *tunedProfile) held(k [2]string) []Held {
	o := t.options[k]
	plugin, key := k[0], k[1]
	if typ, ok := t.options[[2]string{plugin, "type"}]; ok {
		plugin = typ.value
	}
	devices := t.options[[2]string{k[0], "devices"}].value
	one := func(kind, target, name string) []Held { return []Held{{kind, target, name, o.value, o.source}} }
	switch plugin {
	case "sysctl":
		switch key {
		case "type", "priority", "devices", "devices_udev_regex":
			return nil
		}
		return one("sysctl", "", SysctlName(SysctlPath(key)))
	case "sysfs":
		if strings.HasPrefix(key, "/") {
			return one("sysfs", "", key)
		}
	case "vm":
		if key == "transparent_hugepages" || key == "transparent_hugepage" {
			return one("sysfs", "", "/sys/kernel/mm/transparent_hugepage/enabled")
		}
	case "modules":
		return append(one("modprobe", key, "*"), one("modprobe", "", key)...)
	case "bootloader":
		if strings.HasPrefix(key, "cmdline") {
			var all []Held
			for token := range strings.FieldsSeq(o.value) {
				all = append(all, heldToken(strings.TrimLeft(token, "+-"), o.value, o.source)...)
			}
			return all
		}
	case "irqbalance":
		return one("unit", "irqbalance.service", "*")
	case "service":
		if unit, ok := strings.CutPrefix(key, "service."); ok {
			if !strings.Contains(unit, ".") {
				unit += ".service"
			}
			return one("unit", unit, "*")
		}
	case "net":
		names := map[string]string{"coalesce": "coalesc*", "features": "feature*", "ring": "ring*", "channels": "channel*", "pause": "pause*"}
		if n, ok := names[key]; ok {
			if devices == "" {
				return one("ethtool", "*", n)
			}
			var all []Held
			for d := range strings.FieldsFuncSeq(devices, func(r rune) bool { return r == ',' || r == ' ' }) {
				if d[0] != '!' {
					all = append(all, one("ethtool", d, n)...)
				}
			}
			return all
		}
	}
	return nil
}

// heldToken: whoever writes a parameter of the command line holds it with any
// value.
func heldToken(token, value, source string) []Held {
	name, _, _ := strings.Cut(token, "=")
	return []Held{{"cmdline", "", name, value, source}, {"cmdline", "", name + "=*", value, source}}
}

// TunedReapplies reports whether TuneD sets the files of /run and /etc over
// its own parameters again (reapply_sysctl, on unless switched off), so that
// they win over its profile.
func (f *Facts) TunedReapplies() bool {
	text, _ := f.host.Text(pathTuned + "/tuned-main.conf")
	on := true
	for _, l := range parseINI(text) {
		if l.key == "reapply_sysctl" {
			on = truth(l.value)
		}
	}
	return on
}

// findSaptune gives saptune where it has notes to apply (saptune(8)).
func findSaptune(f *Facts, _ []string) *Owner {
	h := f.host
	text, err := h.Text(pathSaptune)
	if err != nil {
		return nil
	}
	var notes []string
	for _, l := range parseINI(text) {
		if l.key == "NOTE_APPLY_ORDER" {
			notes = strings.Fields(strings.Trim(l.value, `"`))
		}
	}
	if len(notes) == 0 {
		return nil
	}
	o := &Owner{Name: OwnerSaptune, Detail: strings.Join(notes, " "), Source: pathSaptune, Active: unitActive(h, "saptune.service")}
	holds := map[string]Held{}
	var order, unknown []string
	for _, note := range notes {
		if strings.ContainsRune(note, '/') {
			continue
		}
		found := false
		base := "" // its definition: the working copy, or the one it was made from, or one of the site's own
		for _, p := range []string{"/var/lib/saptune/working/notes/" + note, "/usr/share/saptune/notes/" + note, "/etc/saptune/extra/" + note + ".conf"} {
			if _, err := h.Read(p); err == nil {
				base = p
				break
			} else if !host.Absent(err) {
				unknown = append(unknown, whyNot(h, err))
			}
		}
		for _, p := range []string{base, "/etc/saptune/override/" + note} {
			b, err := h.Read(p)
			if p == "" || err != nil {
				continue
			}
			found = true
			for _, l := range parseINI(string(b)) {
				if section, _, _ := strings.Cut(l.section, ":"); section != "sysctl" || l.key == "" {
					continue
				}
				name := SysctlName(SysctlPath(strings.TrimRight(l.key, " <>")))
				if _, ok := holds[name]; !ok {
					order = append(order, name)
				}
				holds[name] = Held{"sysctl", "", name, strings.Trim(l.value, `"`), fmt.Sprintf("%s:%d", p, l.line)}
			}
		}
		if !found {
			unknown = append(unknown, "the note "+note+" is not there")
		}
	}
	for _, name := range order {
		if holds[name].Value != "" { // an empty override leaves it alone
			o.Holds = append(o.Holds, holds[name])
		}
	}
	if unknown != nil {
		o.Unknown.say("holds", strings.Join(unknown, "; "))
	}
	return o
}
