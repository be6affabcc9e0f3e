// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Directories of kernel parameters, the first one wins where names are equal
// (sysctl.d(5), sysctl(8)). /lib counts only where it is not a link to /usr/lib.
var sysctlDirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// SysctlMain is the one file that only procps reads, the last of all.
const SysctlMain = "/etc/sysctl.conf"

// SysctlPath gives the path below /proc/sys of a parameter, in whichever of
// the two spellings it is named: when the first separator is a dot, dots and
// slashes are interchanged, else all stays (sysctl.d(5)).
func SysctlPath(name string) string {
	if i := strings.IndexAny(name, "/."); i >= 0 && name[i] == '.' {
		name = swapDots(name)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// SysctlName gives the name with dots of a path below /proc/sys:
// "net.ipv4.conf.eth0/100.rp_filter".
func SysctlName(p string) string { return swapDots(p) }

func swapDots(s string) string { return strings.NewReplacer(".", "/", "/", ".").Replace(s) }

// SysctlText gives a value with single blanks between its words.
func SysctlText(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\x00", " ")), " ")
}

// SysctlDecimal gives a value as the kernel will print it: single blanks, and
// hexadecimal numbers in decimal digits. A leading zero stays: what it means
// differs between parameters.
func SysctlDecimal(s string) string {
	words := strings.Fields(strings.ReplaceAll(s, "\x00", " "))
	for i, w := range words {
		if digits, ok := strings.CutPrefix(strings.ToLower(w), "0x"); ok {
			if n, err := strconv.ParseUint(digits, 16, 64); err == nil {
				words[i] = strconv.FormatUint(n, 10)
			}
		}
	}
	return strings.Join(words, " ")
}

// sysctlLine is one line that says something.
type sysctlLine struct {
	path  string // below /proc/sys; may be a glob
	value string
	set   bool // false: "-key" alone, which keeps globs away from the key
	line  int
}

func (l *sysctlLine) glob() bool { return strings.ContainsAny(l.path, "*?[") }

// parseSysctl reads a file of parameters. A line that is no assignment, no
// exclusion and no comment is skipped, as both programs do.
func parseSysctl(text string) []sysctlLine {
	var out []sysctlLine
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.Trim(line, " \t\r\f\v")
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, set := strings.Cut(line, "=")
		key, exclude := strings.CutPrefix(key, "-")
		if !set && !exclude {
			continue
		}
		if p := SysctlPath(strings.TrimSpace(key)); p != "" {
			out = append(out, sysctlLine{p, strings.TrimSpace(value), set, n})
		}
	}
	return out
}

// SysctlFile is one file of parameters.
type SysctlFile struct {
	Path   string
	Masked bool // a link to /dev/null, or to nothing: it only takes the name
	lines  []sysctlLine
}

// SysctlConf is the files of parameters of a host, by directory. With Set and
// Drop one can ask what would be.
type SysctlConf struct {
	dirs map[string][]SysctlFile // by directory, in the order of names
	main *SysctlFile             // /etc/sysctl.conf
	boot []sysctlLine            // sysctl.NAME=VALUE on the kernel command line; set before any file
}

// Assignment is the line that gives a parameter its value.
type Assignment struct {
	Value string `json:"value"`
	File  string `json:"file"`
	Line  int    `json:"line"` // 0 for the kernel command line
	Glob  string `json:"glob,omitempty"`
}

// At is "/etc/sysctl.d/90-x.conf:3".
func (a *Assignment) At() string {
	if a.Line == 0 {
		return a.File
	}
	return a.File + ":" + strconv.Itoa(a.Line)
}

// Set gives the configuration with one more file, or with another text in it.
func (c *SysctlConf) Set(p, text string) *SysctlConf {
	out := c.Drop(p)
	f := SysctlFile{Path: p, lines: parseSysctl(text)}
	if p == SysctlMain {
		out.main = &f
		return out
	}
	dir := path.Dir(p)
	out.dirs[dir] = append(slices.Clone(out.dirs[dir]), f)
	slices.SortFunc(out.dirs[dir], func(a, b SysctlFile) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// Drop gives the configuration without a file.
func (c *SysctlConf) Drop(p string) *SysctlConf {
	out := &SysctlConf{dirs: map[string][]SysctlFile{}, main: c.main, boot: c.boot}
	for dir, files := range c.dirs {
		out.dirs[dir] = slices.DeleteFunc(slices.Clone(files), func(f SysctlFile) bool { return f.Path == p })
	}
	if c.main != nil && p == SysctlMain {
		out.main = nil
	}
	return out
}

// files gives what is read, in order: of files of one name the one of the
// first directory, then by name.
func (c *SysctlConf) files(hidden bool) []SysctlFile {
	seen := map[string]bool{}
	var out []SysctlFile
	for _, dir := range sysctlDirs {
		for _, f := range c.dirs[dir] {
			name := path.Base(f.Path)
			if seen[name] || !hidden && name[0] == '.' {
				continue
			}
			seen[name] = true
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b SysctlFile) int { return cmp.Compare(path.Base(a.Path), path.Base(b.Path)) })
	return out
}

// Systemd lists the files as systemd-sysctl reads them at boot, the last wins.
func (c *SysctlConf) Systemd() []SysctlFile { return c.files(false) }

// Procps lists the files as "sysctl --system" reads them, the last wins.
func (c *SysctlConf) Procps() []SysctlFile {
	out := c.files(true)
	if c.main != nil {
		out = append(out, *c.main)
	}
	return out
}

// placed is a line and its file.
type placed struct {
	*sysctlLine
	file string
}

func (p placed) assignment() *Assignment {
	a := &Assignment{Value: SysctlDecimal(p.value), File: p.file, Line: p.line}
	if p.glob() {
		a.Glob = SysctlName(p.path)
	}
	return a
}

// BySystemd gives the line that decides a parameter when systemd-sysctl runs,
// or nil. It keeps one entry per key, a later one replaces it, and an equal
// one leaves it where it is (src/sysctl/sysctl.c, parse_file); an entry for
// the key itself beats all globs, and "-key" counts as one that sets nothing.
func (c *SysctlConf) BySystemd(name string) *Assignment {
	want := SysctlPath(name)
	at := map[string]int{}
	var entries []placed
	for _, f := range c.Systemd() {
		for i := range f.lines {
			l := &f.lines[i]
			if k, ok := at[l.path]; ok {
				if old := entries[k]; old.set == l.set && old.value == l.value {
					continue
				}
				entries[k].sysctlLine = nil
			}
			at[l.path] = len(entries)
			entries = append(entries, placed{l, f.Path})
		}
	}
	if k, ok := at[want]; ok {
		if !entries[k].set {
			return c.byBoot(want)
		}
		return entries[k].assignment()
	}
	for _, e := range slices.Backward(entries) {
		if e.sysctlLine != nil && e.set && e.glob() && globMatch(e.path, want) {
			return e.assignment()
		}
	}
	return c.byBoot(want)
}

// ByProcps gives the line that decides a parameter when "sysctl --system"
// runs, or nil. All lines are carried out in order; globs skip a key that any
// line names by itself (procps sysctl.c, write_setting_list).
func (c *SysctlConf) ByProcps(name string) *Assignment {
	want := SysctlPath(name)
	var last *Assignment
	named := false
	for _, f := range c.Procps() {
		for i := range f.lines {
			l := &f.lines[i]
			switch {
			case l.path == want:
				named = true
				if l.set {
					last = placed{l, f.Path}.assignment()
				}
			case !named && l.set && l.glob() && globMatch(l.path, want):
				last = placed{l, f.Path}.assignment()
			}
		}
	}
	if named && last != nil && last.Glob != "" { // the name came later
		last = nil
	}
	if last == nil {
		return c.byBoot(want)
	}
	return last
}

func (c *SysctlConf) byBoot(want string) *Assignment {
	for _, l := range slices.Backward(c.boot) {
		if l.path == want {
			return &Assignment{Value: SysctlDecimal(l.value), File: "/proc/cmdline"}
		}
	}
	return nil
}

// Named lists the parameters that some file names without a glob, sorted.
func (c *SysctlConf) Named() []string {
	seen := map[string]bool{}
	for _, f := range c.Procps() {
		for _, l := range f.lines {
			if l.set && !l.glob() {
				seen[SysctlName(l.path)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// globMatch is glob(3) on a path: no wildcard matches a slash.
func globMatch(pattern, p string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), p)
	return ok && err == nil
}

// Touches reports whether a line of the file is about one of the parameters.
func (f *SysctlFile) Touches(names []string) bool {
	for _, l := range f.lines {
		for _, n := range names {
			if p := SysctlPath(n); l.path == p || l.glob() && globMatch(l.path, p) {
				return true
			}
		}
	}
	return false
}
