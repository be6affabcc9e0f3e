// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// SRIOVDevice is a network function with SR-IOV.
type SRIOVDevice struct {
	BDF       string     `json:"bdf"`
	Autoprobe *bool      `json:"autoprobe"` // whether the host binds a driver to new VFs
	AtBoot    []VFSource `json:"at_boot"`   // what makes VFs at boot, or may; null when /etc is not in the tree
	Unknown   Unknown    `json:"unknown,omitempty"`
}

// VFSource is a place that makes virtual functions at boot.
type VFSource struct {
	Kind    string `json:"kind"`    // "link", a .link file of systemd; "udev"; "unit"; or an owner by name
	Source  string `json:"source"`  // file, with the line where it is one
	VFs     *int   `json:"vfs"`     // null where the number is not legible
	Sure    bool   `json:"sure"`    // names this device; else it may be for it
	Before  string `json:"before"`  // of a unit: what it is ordered before
	Blocked string `json:"blocked"` // why it does not take effect: another .link file comes first, the unit is not enabled; "" when it does
}

// SRIOV gives the network functions of this host that can have VFs.
func (f *Facts) SRIOV() []SRIOVDevice { return f.sriov.get(f, decodeSRIOV) }

// SRIOVOf gives one of them, or nil.
func (f *Facts) SRIOVOf(bdf string) *SRIOVDevice {
	list := f.SRIOV()
	if i := slices.IndexFunc(list, func(d SRIOVDevice) bool { return d.BDF == bdf }); i >= 0 {
		return &list[i]
	}
	return nil
}

func decodeSRIOV(f *Facts) []SRIOVDevice {
	h, list := f.host, []SRIOVDevice{}
	var fns []*PCIFunction
	var ops []host.Op
	for _, fn := range f.PCI().Functions {
		if fn.Network() && !fn.VF() && fn.TotalVFs != nil {
			fns = append(fns, fn)
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: fn.Attr("sriov_drivers_autoprobe")})
		}
	}
	if fns == nil {
		return list
	}
	h.Prefetch(ops)
	b := readBootVFs(f)
	for _, fn := range fns {
		d := SRIOVDevice{BDF: fn.BDF}
		switch v, err := h.Int(fn.Attr("sriov_drivers_autoprobe")); {
		case err != nil:
			d.Unknown.say("autoprobe", whyNot(h, err))
		default:
			d.Autoprobe = new(v != 0)
		}
		if b.why != "" {
			d.Unknown.say("at_boot", b.why)
		} else {
			d.AtBoot = b.of(f, fn)
		}
		list = append(list, d)
	}
	return list
}

// bootVFs is every file that may make virtual functions at boot.
type bootVFs struct {
	why   string     // why it is not known
	links []linkFile // in the order in which systemd looks at them
	rules []vfLine
	units []vfUnit
}

// vfLine is one line that writes to sriov_numvfs.
type vfLine struct{ source, text string }

type vfUnit struct {
	vfLine
	before  string
	enabled bool
}

// linkFile is a .link file of systemd (systemd.link(5)).
type linkFile struct {
	path  string
	match [][2]string // keys and values of [Match]
	vfs   string      // SR-IOVVirtualFunctions=
}

var (
	linkDirs = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}
	ruleDirs = []string{"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"}
)

const unitDir = "/etc/systemd/system"

func readBootVFs(f *Facts) (b bootVFs) {
	h := f.host
	if _, err := h.List("/etc"); err != nil {
		b.why = "what happens at boot is not known: " + host.Reason(err)
		return b
	}
	texts := func(dirs []string, suffix string) (paths []string) {
		var ops []host.Op
		for _, dir := range dirs {
			ops = append(ops, host.Op{Kind: host.ListDir, Path: dir})
		}
		h.Prefetch(ops)
		seen := map[string]bool{}
		for _, dir := range dirs { // the first directory with a name counts
			names, _ := h.List(dir)
			for _, n := range names {
				if strings.HasSuffix(n, suffix) && !seen[n] {
					seen[n] = true
					paths = append(paths, path.Join(dir, n))
				}
			}
		}
		slices.SortFunc(paths, func(x, y string) int { return strings.Compare(path.Base(x), path.Base(y)) })
		ops = ops[:0]
		for _, p := range paths {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
		}
		h.Prefetch(ops)
		return paths
	}
	for _, p := range texts(linkDirs, ".link") {
		if text, err := h.Text(p); err == nil {
			b.links = append(b.links, parseLink(p, text))
		}
	}
	for _, p := range texts(ruleDirs, ".rules") {
		text, _ := h.Text(p)
		b.rules = append(b.rules, vfLines(p, text)...)
	}
	for _, p := range texts([]string{unitDir}, ".service") {
		text, _ := h.Text(p)
		if lines := vfLines(p, text); lines != nil {
			b.unit(h, p, text, lines)
		}
	}
	return b
}

// parseLink reads a .link file; an empty value takes back what came before.
func parseLink(p, text string) linkFile {
	l := linkFile{path: p}
	for _, i := range parseINI(text) {
		switch {
		case i.section == "Match" && i.key != "" && i.value != "":
			l.match = append(l.match, [2]string{i.key, i.value})
		case i.section == "Link" && i.key == "SR-IOVVirtualFunctions":
			l.vfs = i.value
		}
	}
	return l
}

// vfLines gives the lines of a text that write to sriov_numvfs.
func vfLines(p, text string) (lines []vfLine) {
	text = strings.ReplaceAll(text, "\\\n", "  ")
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "sriov_numvfs") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			lines = append(lines, vfLine{p + ":" + strconv.Itoa(n+1), line})
		}
	}
	return lines
}

func (b *bootVFs) unit(h *host.Host, p, text string, lines []vfLine) {
	var before []string
	for _, i := range parseINI(text) {
		if i.section == "Unit" && i.key == "Before" {
			before = append(before, strings.Fields(i.value)...)
		}
	}
	name, enabled := path.Base(p), false
	dirs, _ := h.List(unitDir)
	for _, dir := range dirs {
		if strings.HasSuffix(dir, ".wants") || strings.HasSuffix(dir, ".requires") {
			enabled = enabled || there(h, path.Join(unitDir, dir, name))
		}
	}
	for _, l := range lines {
		b.units = append(b.units, vfUnit{l, strings.Join(before, " "), enabled})
	}
}

// of lists what is for a device.
func (b *bootVFs) of(f *Facts, fn *PCIFunction) []VFSource {
	out := []VFSource{}
	nics := f.NICs().Of(fn.BDF)
	out = append(out, b.linksOf(f.host, fn, nics)...)
	for _, l := range b.rules {
		if sure, may := l.names(fn.BDF, nics); may {
			out = append(out, VFSource{Kind: "udev", Source: l.source, VFs: l.number(), Sure: sure})
		}
	}
	for _, u := range b.units {
		if sure, may := u.names(fn.BDF, nics); may {
			s := VFSource{Kind: "unit", Source: u.source, VFs: u.number(), Sure: sure, Before: u.before}
			if n := s.VFs; n != nil && *n == 0 { // the step before the real number
				continue
			}
			if !u.enabled {
				s.Blocked = "the unit is not enabled"
			}
			out = append(out, s)
		}
	}
	subject := fn.BDF
	for _, n := range nics {
		subject += " " + n.Name
	}
	for _, o := range f.Owners() {
		if o.Name == OwnerSRIOVOperator && len(o.Holds) == 0 { // its policies are in the cluster
			out = append(out, VFSource{Kind: o.Name, Source: o.Source})
		}
		for _, held := range o.Holds {
			if o.Name == OwnerNICOperator || !held.Covers("sriov", subject, "numvfs") {
				continue // which sets firmware
			}
			s := VFSource{Kind: o.Name, Source: held.Source, Sure: true}
			n, err := strconv.Atoi(held.Value)
			switch {
			case err == nil:
				s.VFs = &n
			case held.Value != "": // another of its words about SR-IOV
				continue
			}
			out = append(out, s)
		}
	}
	return out
}

// linksOf follows systemd: of all .link files the first that matches applies.
// Where a match cannot be judged here, what udev recorded of this boot decides.
func (b *bootVFs) linksOf(h *host.Host, fn *PCIFunction, nics []*NIC) (out []VFSource) {
	applied := ""
	for _, n := range nics {
		index, err := h.Text(n.Attr("ifindex"))
		if err != nil {
			continue
		}
		text, _ := h.Text("/run/udev/data/n" + index)
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "E:ID_NET_LINK_FILE="); ok {
				applied = v
			}
		}
	}
	first := ""
	for _, l := range b.links {
		yes, may := l.matches(fn, nics)
		if l.path == applied {
			yes = true
		} else if applied != "" && may && !yes {
			may = false // it did not match at this boot
		}
		if !may && !yes {
			continue
		}
		if l.vfs != "" {
			s := VFSource{Kind: "link", Source: l.path, Sure: yes}
			if n, err := strconv.Atoi(l.vfs); err == nil {
				s.VFs = &n
			}
			if first != "" {
				s.Blocked = first + " matches the device first, and only one file counts"
			}
			out = append(out, s)
		}
		if yes && first == "" {
			first = l.path
		}
	}
	return out
}

// matches reports whether a .link file is for a device; may is true where that
// hangs on what is not known here.
func (l linkFile) matches(fn *PCIFunction, nics []*NIC) (yes, may bool) {
	yes, may = true, true
	for _, m := range l.match {
		values := strings.Fields(m[1])
		y, known := false, true
		switch m[0] {
		case "Path":
			y = globOf(values, "pci-"+fn.BDF)
			for _, v := range values { // the path of a port may go on behind the address
				known = known && !strings.HasPrefix(v, "!")
			}
		case "Driver":
			known = fn.Driver != nil
			y = known && globOf(values, *fn.Driver)
		case "OriginalName":
			y = slices.Contains(values, "*")
			known = y
		case "MACAddress", "PermanentMACAddress":
			known = len(nics) > 0
			for _, n := range nics {
				known = known && n.MAC != nil
				y = y || n.MAC != nil && slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, *n.MAC) })
			}
			known = known && (y || m[0] == "MACAddress") // the permanent one may differ from today's
		default:
			known = false
		}
		if known && !y {
			return false, false
		}
		yes = yes && y && known
	}
	return yes, may
}

func globOf(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(g string) bool {
		ok, err := path.Match(g, s)
		return ok && err == nil
	})
}

var (
	anyBDF    = pattern.Late(`\b[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b`)
	netPath   = pattern.Late(`/sys/class/net/([^/\s"]+)/`)
	vfAssign  = pattern.Late(`sriov_numvfs\}\s*=\s*"(\d{1,5})"`)
	vfEcho    = pattern.Late(`\b(?:echo|printf)\s+(?:-\w+\s+)?["']?(\d{1,5})["']?\s*>\s*\S*sriov_numvfs`)
	ruleNames = pattern.Late(`(?:KERNEL|NAME|ENV\{INTERFACE\})=="([^"*?\[]+)"`)
)

// names reports whether a line names the device, or none at all, so that it
// may be for it.
func (l vfLine) names(bdf string, nics []*NIC) (sure, may bool) {
	var named []string
	named = append(named, anyBDF().FindAllString(l.text, -1)...)
	for _, re := range []*regexp.Regexp{netPath(), ruleNames()} {
		for _, m := range re.FindAllStringSubmatch(l.text, -1) {
			named = append(named, m[1])
		}
	}
	is := func(name string) bool {
		return name == bdf || slices.ContainsFunc(nics, func(n *NIC) bool { return n.Name == name })
	}
	sure = slices.ContainsFunc(named, is)
	return sure, sure || len(named) == 0 || slices.ContainsFunc(named, func(n string) bool { return strings.ContainsAny(n, "$%") })
}

// number is what the line writes, where it says so.
func (l vfLine) number() *int {
	for _, re := range []*regexp.Regexp{vfAssign(), vfEcho()} {
		if all := re.FindAllStringSubmatch(l.text, -1); all != nil {
			if n, err := strconv.Atoi(all[len(all)-1][1]); err == nil {
				return &n
			}
		}
	}
	return nil
}
