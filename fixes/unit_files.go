// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Where unit files are, the first place wins (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitFile is what the files say of a unit.
type unitFile struct {
	name    string
	path    string // "" when there is none
	masked  bool
	alias   string   // the unit that it is another name of
	linked  []string // links that start it, below the places where systemctl makes them; sorted
	install [][2]string
	also    string
	oneshot bool
	remains bool
}

func readUnit(h *host.Host, name string) (*unitFile, error) {
	u := &unitFile{name: name}
	for _, dir := range unitDirs {
		p := path.Join(dir, name)
		if to, err := h.Link(p); err == nil {
			u.path = p
			if path.Clean(to) == "/dev/null" {
				u.masked = true
				break
			}
			if base := path.Base(to); base != name {
				u.alias = base
				break
			}
		}
		b, err := h.Read(p)
		if host.Absent(err) && u.path == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the unit %s is not known: %s", name, host.Reason(err))
		}
		u.path = p
		u.parse(string(b))
		break
	}
	if u.masked { // what is below the mask comes back with "unmask"
		for _, dir := range unitDirs[1:] {
			if b, err := h.Read(path.Join(dir, name)); err == nil {
				u.parse(string(b))
				break
			}
		}
	}
	return u, u.findLinks(h)
}

// parse takes from a unit's text what deciding needs; an empty value resets a
// list (systemd.syntax(7)).
func (u *unitFile) parse(text string) {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		k, v, _ := strings.Cut(line, "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		switch section + "." + k {
		case "Service.Type":
			u.oneshot = v == "oneshot"
		case "Service.RemainAfterExit":
			u.remains = v == "yes" || v == "true" || v == "on" || v == "1"
		case "Install.Also":
			u.also = strings.TrimSpace(u.also + " " + v)
		case "Install.WantedBy", "Install.RequiredBy", "Install.UpheldBy", "Install.Alias":
			if v == "" {
				u.install = slices.DeleteFunc(u.install, func(i [2]string) bool { return i[0] == k })
			}
			for other := range strings.FieldsSeq(v) {
				u.install = append(u.install, [2]string{k, other})
			}
		}
	}
}

// links are the names below /etc/systemd/system that enabling makes, sorted.
func (u *unitFile) links() []string {
	var out []string
	for _, i := range u.install {
		switch i[0] {
		case "WantedBy":
			out = append(out, i[1]+".wants/"+u.name)
		case "RequiredBy":
			out = append(out, i[1]+".requires/"+u.name)
		case "UpheldBy":
			out = append(out, i[1]+".upholds/"+u.name)
		case "Alias":
			if i[1] != u.name {
				out = append(out, i[1])
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// findLinks finds the links that start the unit or are other names of it.
func (u *unitFile) findLinks(h *host.Host) error {
	for _, dir := range unitDirs[:2] {
		names, err := h.List(dir)
		if err != nil {
			if host.Absent(err) {
				continue
			}
			return fmt.Errorf("what starts %s is not known: %s", u.name, host.Reason(err))
		}
		for _, n := range names {
			switch path.Ext(n) {
			case ".wants", ".requires", ".upholds":
				if _, err := h.Link(path.Join(dir, n, u.name)); err == nil {
					u.linked = append(u.linked, n+"/"+u.name)
				}
				continue
			}
			if slices.Contains(u.links(), n) {
				if to, err := h.Link(path.Join(dir, n)); err == nil && path.Base(to) == u.name {
					u.linked = append(u.linked, n)
				}
			}
		}
	}
	slices.Sort(u.linked)
	u.linked = slices.Compact(u.linked)
	return nil
}

func (u *unitFile) state() string {
	switch {
	case u.masked:
		return masked
	case len(u.linked) > 0:
		return enabled
	case u.path != "" && len(u.links()) == 0:
		return static
	}
	return disabled
}

// unitActive tells whether a unit is active: a mount by the mount table, the
// others by the link that systemd keeps while they are (src/core/unit.c,
// unit_export_invocation_id; removed when a unit becomes inactive or fails).
func unitActive(h *host.Host, unit string) (bool, error) {
	name, isMount := strings.CutSuffix(unit, ".mount")
	if !isMount {
		_, err := h.Link("/run/systemd/units/invocation:" + unit)
		if err != nil && !host.Absent(err) {
			return false, err
		}
		return err == nil, nil
	}
	where := unescapeUnit(name)
	text, err := h.Read("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[1]) == where {
			return true, nil
		}
	}
	return false, nil
}

// unescapeUnit gives the path that a mount unit is named after
// (systemd-escape(1)).
func unescapeUnit(name string) string {
	if name == "-" {
		return "/"
	}
	var b strings.Builder
	b.WriteByte('/')
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] == '-':
			b.WriteByte('/')
		case name[i] == '\\' && i+3 < len(name) && name[i+1] == 'x':
			if c, err := strconv.ParseUint(name[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
			b.WriteByte(name[i])
		default:
			b.WriteByte(name[i])
		}
	}
	return b.String()
}
