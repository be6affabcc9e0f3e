// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// mount is one line of a mount table (proc(5)).
type mount struct {
	source, path, kind, options string
}

// parseMounts reads a mount table. Blanks, tabs, newlines and backslashes in
// paths are \040, \011, \012 and \134.
func parseMounts(text string) []mount {
	var mounts []mount
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		mounts = append(mounts, mount{unescapeOctal(f[0]), unescapeOctal(f[1]), f[2], f[3]})
	}
	return mounts
}

// mountOf finds the mount that a file lies on, or says why it is not known.
func mountOf(h *host.Host, file string) (at *mount, why string) {
	table, _, err := readMountTable(h)
	if err != nil {
		return nil, whyNot(h, err)
	}
	for _, m := range parseMounts(table) {
		if file == m.path || m.path == "/" || strings.HasPrefix(file, m.path+"/") {
			if at == nil || len(m.path) >= len(at.path) {
				at = &m
			}
		}
	}
	if at == nil {
		return nil, "no mount shows where " + file + " lies"
	}
	return at, ""
}

// CannotWrite says why a file lies where nothing can be written, "" where it can.
func CannotWrite(h *host.Host, file string) string {
	at, why := mountOf(h, file)
	if at != nil && slices.Contains(strings.Split(at.options, ","), "ro") {
		return at.path + " is mounted read-only"
	}
	return why
}

// option gives the value of the last "name=value" among the options.
func (m mount) option(name string) (v string, ok bool) {
	for o := range strings.SplitSeq(m.options, ",") {
		if value, has := strings.CutPrefix(o, name+"="); has {
			v, ok = value, true
		}
	}
	return v, ok
}

// unescapeOctal undoes \ooo; a backslash that three octal digits do not follow
// stays.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && s[i+1] < '4' && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// readMountTable gives the host's mount table. In a mounted host root the
// first process stands for the host: "self" would be hostcheck in its
// container.
func readMountTable(h *host.Host) (text, source string, err error) {
	places := []string{"/proc/self/mounts", "/proc/mounts"}
	if !h.Running() {
		places = []string{"/proc/1/mounts", "/proc/self/mounts", "/proc/mounts"}
	}
	for _, p := range places {
		var b []byte
		if b, err = h.Read(p); !host.Absent(err) {
			return string(b), p, err
		}
	}
	return "", "", err
}

func (p *Hugepages) readMounts(h *host.Host) {
	text, source, err := readMountTable(h)
	if err != nil {
		p.Unknown.say("mounts", whyNot(h, err))
		return
	}
	p.MountSource = source
	p.Mounts = []HugeMount{}
	for _, m := range parseMounts(text) {
		if m.kind != "hugetlbfs" {
			continue
		}
		mount := HugeMount{Path: m.path, SizeKB: p.DefaultKB} // old kernels print no option for the default size
		if s, ok := m.option("pagesize"); ok {
			mount.SizeKB = nil
			if kb, ok := parseMountSize(s); ok {
				mount.SizeKB = &kb
			}
		}
		p.Mounts = append(p.Mounts, mount)
	}
	// the kernel's order is another one in each mount namespace
	slices.SortStableFunc(p.Mounts, func(a, b HugeMount) int { return strings.Compare(a.Path, b.Path) })
}
