// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// linkDirs hold the .link files of systemd, the first of a name counting
// (systemd.link(5)). Of all names the first that matches a device is the only
// one that is applied to it.
var linkDirs = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}

// ownLinkFile is where hostcheck says how many functions a device gets.
func ownLinkFile(bdf string) string {
	return linkDirs[0] + "/10-hostcheck-vfs-" + strings.NewReplacer(":", "-", ".", "-").Replace(bdf) + ".link"
}

const vfKey = "SR-IOVVirtualFunctions"

// owner gives the refusal where another program or file says how many
// functions the device has.
func (p *pf) owner() *plan.Refusal {
	if r := ownedBy(p.f, p.wish); r != nil {
		return r
	}
	if o := p.f.Owner(facts.OwnerSRIOVOperator); o != nil && (o.Active == nil || *o.Active) {
		r := refuse(p.wish, fmt.Sprintf("%s is at work here (%s) and makes virtual functions by its policies", owner(*o), o.Source), nativeSteps(*o, facts.Held{Source: o.Source}, p.wish)...)
		return &r
	}
	for _, dir := range linkDirs {
		names, _ := p.h.List(dir)
		for _, n := range names {
			file := path.Join(dir, n)
			if !strings.HasSuffix(n, ".link") || file == ownLinkFile(p.bdf) {
				continue
			}
			text, _ := p.h.Text(file)
			if l := linkSays(text); l.vfs != "" && (l.couldMatch("pci-"+p.bdf) || file == p.udev("ID_NET_LINK_FILE")) {
				r := refuse(p.wish, fmt.Sprintf("%s says %s=%s for this device", file, vfKey, l.vfs),
					fmt.Sprintf("in %s: %s=%s, then udevadm trigger --action=add %s", file, vfKey, p.wish.Want, path.Join(facts.NetClass, p.ifname)))
				return &r
			}
		}
	}
	const rules = "/etc/udev/rules.d"
	names, _ := p.h.List(rules)
	for _, n := range names {
		text, _ := p.h.Text(path.Join(rules, n))
		for i, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); strings.HasSuffix(n, ".rules") && !strings.HasPrefix(line, "#") && strings.Contains(line, "sriov_numvfs") {
				r := refuse(p.wish, fmt.Sprintf("a udev rule makes virtual functions: %s:%d", path.Join(rules, n), i+1), "change the number there, then udevadm control --reload")
				return &r
			}
		}
	}
	return nil
}

// link is what counts here of a .link file.
type link struct {
	paths []string // Path= of [Match]
	vfs   string   // SR-IOVVirtualFunctions= of [Link]
	rest  string   // all sections but [Match], without that key
}

func linkSays(text string) (l link) {
	section := ""
	var rest strings.Builder
	for line := range strings.Lines(text) {
		s := strings.TrimSpace(line)
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			section = s
		}
		key, value, isKey := strings.Cut(s, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		comment := s == "" || s[0] == '#' || s[0] == ';'
		switch {
		case section == "[Match]":
			if !comment && isKey && key == "Path" {
				l.paths = append(l.paths, strings.Fields(value)...)
			}
		case !comment && section == "[Link]" && key == vfKey && isKey:
			l.vfs = value
		case section != "" && !comment:
			rest.WriteString(s + "\n")
		}
	}
	l.rest = rest.String()
	return l
}

// couldMatch reports whether the file may be for the device with that path.
func (l link) couldMatch(idPath string) bool {
	if len(l.paths) == 0 {
		return true
	}
	return slices.ContainsFunc(l.paths, func(glob string) bool {
		ok, err := path.Match(strings.TrimPrefix(glob, "!"), idPath)
		return ok || err != nil || strings.HasPrefix(glob, "!")
	})
}

// udev gives a property of the device's interface, as udev recorded it.
func (p *pf) udev(key string) string {
	index, err := p.h.Text(path.Join(facts.NetClass, p.ifname, "ifindex"))
	if err != nil {
		return ""
	}
	text, _ := p.h.Text("/run/udev/data/n" + index)
	for line := range strings.SplitSeq(text, "\n") {
		if v, ok := strings.CutPrefix(line, "E:"+key+"="); ok {
			return v
		}
	}
	return ""
}

// persistence finds the file that makes the number last, or why there is none.
func (p *pf) persistence() {
	own := ownLinkFile(p.bdf)
	_, err := p.h.Read(own)
	there := err == nil
	if p.want == 0 {
		if there {
			p.linkFile = own // which then goes
		}
		return
	}
	rest, why := p.winner(own, there)
	if p.notLasting = why; why != "" {
		if there {
			p.linkFile = own // it says another number
		}
		return
	}
	p.linkFile = own
	p.linkText = fmt.Sprintf("# Written by hostcheck, which takes it back with \"hostcheck undo\".\n"+
		"# Of all .link files only the first that matches a device counts: besides the\n# number this one repeats what the one before it said.\n\n"+
		"[Match]\nPath=%s\n\n%s", p.udev("ID_PATH"), insertVFs(rest, p.want))
}

// insertVFs puts the number into the section [Link].
func insertVFs(rest string, n int64) string {
	line := vfKey + "=" + strconv.FormatInt(n, 10) + "\n"
	if before, after, ok := strings.Cut("\n"+rest, "\n[Link]\n"); ok { // a whole line, not the end of one
		return strings.TrimPrefix(before+"\n[Link]\n", "\n") + line + after
	}
	return "[Link]\n" + line + rest
}

// winner gives what the .link file says that applies to the device without
// ours, or why that cannot be said.
func (p *pf) winner(own string, there bool) (rest, why string) {
	if v := systemdVersion(p.h); v == 0 {
		return "", "the version of systemd is not known"
	} else if v < 251 {
		return "", fmt.Sprintf("systemd %d does not know %s; 251 does", v, vfKey)
	}
	switch names, err := p.h.List(path.Join(facts.PCIDevices, p.bdf, "net")); {
	case err != nil || len(names) != 1:
		return "", "the function has several interfaces, or none"
	case p.udev("ID_PATH") == "":
		return "", "udev knows no path of the interface"
	}
	file := p.udev("ID_NET_LINK_FILE")
	switch {
	case file == "":
		return "", "udev does not say which .link file applies to the interface"
	case file == own && !there:
		return "", "the .link file that applied to the interface is gone: run udevadm trigger --action=add first"
	case p.udev("ID_NET_LINK_FILE_DROPINS") != "" || p.dropIns(path.Base(file)):
		return "", "the .link file that applies to the interface has drop-ins: " + file + ".d"
	case file != own && path.Base(file) <= path.Base(own):
		return "", fmt.Sprintf("%s applies to the interface: add %s=%d to its section [Link]", file, vfKey, p.want)
	case file != own && !strings.HasPrefix(file, "/usr/") && !strings.HasPrefix(file, "/lib/"):
		return "", fmt.Sprintf("%s applies to the interface, which somebody else keeps: add %s=%d to its section [Link], or have what writes it say so", file, vfKey, p.want)
	}
	b, err := p.h.Read(file)
	if err != nil {
		return "", "the .link file that applies cannot be read: " + host.Reason(err)
	}
	l := linkSays(string(b))
	if !strings.Contains(l.rest, "[Link]") || strings.Contains(string(b), "\\\n") {
		return "", "the .link file that applies is not as expected: " + file
	}
	return l.rest, ""
}

func (p *pf) dropIns(base string) bool {
	return slices.ContainsFunc(linkDirs, func(dir string) bool {
		names, _ := p.h.List(path.Join(dir, base+".d"))
		return len(names) > 0
	})
}

// systemdVersion reads it off the name of its library; 0 when that is not
// found. No program is started for it.
func systemdVersion(h *host.Host) int {
	for _, dir := range []string{"/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd"} {
		names, _ := h.List(dir)
		for _, n := range names {
			if v, ok := strings.CutPrefix(n, "libsystemd-shared-"); ok {
				digits := v[:len(v)-len(strings.TrimLeft(v, "0123456789"))]
				if n, err := strconv.Atoi(digits); err == nil {
					return n
				}
			}
		}
	}
	return 0
}
