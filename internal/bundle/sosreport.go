// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// KindSOS is a report of sos (github.com/sosreport/sos, "sos report"): an
// archive, or the directory that it unpacks to, with copies of files where they
// lay and the output of commands in sos_commands.
const KindSOS = "sosreport"

// sos reads one; top is the directory that all of the archive lies in.
type sos struct{ top string }

// sosTops are the host's directories that copies are taken from.
var sosTops = []string{"boot", "etc", "lib", "proc", "run", "sys", "usr", "var"}

func isSOS(head []byte) bool {
	z, err := opened(bytes.NewReader(head), head)
	return err == nil && strings.HasPrefix(firstName(z), "sosreport-")
}

func readSOS(r io.Reader) (*Bundle, error) {
	in := &peeked{r: r}
	head, err := in.peek(6)
	if err != nil {
		return nil, err
	}
	z, err := opened(in, head)
	if err != nil {
		return nil, err
	}
	f := newForeign("a sosreport")
	s := &sos{}
	if err := f.readTar(z, s); err != nil {
		return nil, err
	}
	return f.sosreport()
}

// peeked gives back what was looked at.
type peeked struct {
	r    io.Reader
	head []byte
}

func (p *peeked) peek(n int) ([]byte, error) {
	p.head = make([]byte, n)
	n, err := io.ReadFull(p.r, p.head)
	p.head = p.head[:n]
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return slices.Clone(p.head), nil
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.r.Read(b)
}

// inside cuts the archive's own directory off; "" for what lies elsewhere.
func (s *sos) inside(p string) string {
	top, rest, _ := strings.Cut(p, "/")
	if s.top == "" {
		s.top = top
	}
	if top != s.top {
		return ""
	}
	return rest
}

func (s *sos) place(p string) string { return sosPlace(s.inside(p)) }
func (s *sos) extra(p string) bool   { return sosExtra(s.inside(p)) }

func sosPlace(p string) string {
	top, _, _ := strings.Cut(p, "/")
	if p == "var/log" || strings.HasPrefix(p, "var/log/") || !slices.Contains(sosTops, top) {
		return ""
	}
	return "/" + p
}

// sosExtra: the commands whose output says exactly what the kernel answers.
func sosExtra(p string) bool {
	dir, name := path.Split(p)
	switch {
	case p == "version.txt":
		return true
	case !strings.HasPrefix(dir, "sos_commands/"):
		return false
	case strings.HasSuffix(dir, "/networking/"):
		return ethtoolFile().MatchString(name)
	}
	return slices.Contains([]string{"date_--utc", "dmesg", "sysctl_-a", "uname_-a"}, name)
}

// openSOS reads the directory of an unpacked one. Nothing outside of it is
// read, whatever links it has.
func openSOS(name string) (*Bundle, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f := newForeign("a sosreport")
	c := sosDir{}
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil
		case err != nil:
			return err
		case p == ".":
			return nil
		}
		switch kind := d.Type(); {
		case kind.IsDir():
			if sosPlace(p) == "" && !strings.HasPrefix(p+"/", "sos_commands/") {
				return fs.SkipDir
			}
			return f.entry(part{path: p, kind: "dir"}, nil, c)
		case kind&fs.ModeSymlink != 0:
			to, err := root.Readlink(p)
			if err != nil {
				return err
			}
			return f.entry(part{path: p, kind: "link", target: to}, nil, c)
		case !kind.IsRegular() || sosPlace(p) == "" && !sosExtra(p):
			return f.entry(part{path: p, kind: "other"}, nil, c)
		}
		file, err := root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil || !st.Mode().IsRegular() {
			return err
		}
		return f.entry(part{p, "file", "", st.Size(), st.ModTime()}, file, c)
	})
	if err != nil {
		return nil, err
	}
	return f.sosreport()
}

// sosDir is the collector of a directory.
type sosDir struct{}

func (sosDir) place(p string) string { return sosPlace(p) }
func (sosDir) extra(p string) bool   { return sosExtra(p) }

// IsCollected reports whether a directory is what somebody else collected: an
// unpacked sosreport, and not the tree of a host.
func IsCollected(name string) bool {
	st, err := os.Stat(path.Join(name, "sos_commands"))
	return err == nil && st.IsDir()
}

// sosreport makes facts of what the commands printed.
func (f *foreign) sosreport() (*Bundle, error) {
	commands := false
	for p := range f.seen {
		if strings.HasPrefix(p, "sos_commands") || strings.Contains(p, "/sos_commands") {
			commands = true
			break
		}
	}
	if !commands {
		return nil, errors.New("it is no sosreport: it has no sos_commands")
	}
	f.snap.Time = f.written // the last file of all; where it ran "date", that
	for p, b := range f.extras {
		switch name := path.Base(p); name {
		case "sysctl_-a":
			f.sysctl(string(b))
		case "uname_-a":
			f.uname(string(b))
		case "dmesg":
			f.put("klog", host.FilterLog(string(b)))
		case "date_--utc":
			if t, err := time.Parse("Mon Jan 2 15:04:05 MST 2006", strings.Join(strings.Fields(string(b)), " ")); err == nil {
				f.snap.Time = t
			}
		default:
			f.ethtool(name, string(b))
		}
	}
	f.list(f.sosWhole)
	return &Bundle{Kind: KindSOS, Host: f.snap}, nil
}

// sosWhole: plugins copy these by a glob over everything in them. Interfaces
// count when as many are there as the kernel listed besides.
func (f *foreign) sosWhole(dir string) bool {
	switch {
	case dir == "/sys/class/net":
		return f.interfaces()
	case dir == "/sys/devices/system/node", dir == "/sys/kernel/mm/hugepages":
		return true
	case dir == "/sys/devices/system/cpu":
		return f.names[dir]["cpu0"] && f.names[dir]["online"]
	case dir == "/sys/devices/system/cpu/cpufreq":
		return f.names[dir]["policy0"]
	case path.Base(dir) == "hugepages" && strings.HasPrefix(dir, "/sys/devices/system/node/node"):
		return true
	case strings.HasPrefix(dir, "/etc/"), strings.HasPrefix(dir, "/usr/lib/"), strings.HasPrefix(dir, "/lib/"), strings.HasPrefix(dir, "/run/"):
		return strings.HasSuffix(dir, ".d")
	}
	return dir == "/boot/loader/entries"
}

// interfaces compares /sys/class/net with /proc/net/dev.
func (f *foreign) interfaces() bool {
	for p, b := range f.snap.Files {
		if !strings.HasPrefix(p, "/proc/") || !strings.HasSuffix(p, "/net/dev") {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !f.names["/sys/class/net"][name] {
				return false
			}
		}
		return true
	}
	return false
}

// put records a kernel's answer.
func (f *foreign) put(key string, v any) {
	answer, err := json.Marshal(v)
	if err == nil {
		answer, err = json.Marshal(host.Recorded{Answer: answer})
	}
	if err == nil {
		f.answer(key, answer)
	}
}

// sysctlLine is a line of "sysctl -a": dots stand for slashes and the other way.
var sysctlLine = pattern.Late(`^([A-Za-z0-9_@:,+~/-]+(?:\.[A-Za-z0-9_@:,+~/-]+)+) = (.*)$`)

// sysctl gives the files of /proc/sys. A value of several lines is left out.
func (f *foreign) sysctl(text string) {
	values := map[string]string{}
	twice := map[string]bool{}
	for line := range strings.Lines(text) {
		m := sysctlLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		p := "/proc/sys/" + strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, m[1])
		if _, ok := values[p]; ok || p != path.Clean(p) {
			twice[p] = true
		}
		values[p] = m[2] + "\n"
	}
	for p, v := range values {
		if _, inPlace := f.snap.Files[p]; !inPlace && !twice[p] {
			f.file(p, []byte(v))
		}
	}
}

// uname reads "Linux NAME RELEASE VERSION … MACHINE GNU/Linux".
func (f *foreign) uname(text string) {
	w := strings.Fields(text)
	if len(w) < 6 || w[0] != "Linux" || w[len(w)-1] != "GNU/Linux" {
		return
	}
	f.put("uname", host.Uname{Release: w[2], Machine: w[len(w)-2]})
	for p, v := range map[string]string{"/proc/sys/kernel/hostname": w[1], "/proc/sys/kernel/osrelease": w[2]} {
		if _, inPlace := f.snap.Files[p]; !inPlace {
			f.file(p, []byte(v+"\n"))
		}
	}
}

var (
	ethtoolFile = pattern.Late(`^ethtool_-([gil])_([A-Za-z0-9_.-]{1,15})$`)
	ethtoolLine = pattern.Late(`^([A-Za-z-]+(?: [A-Za-z-]+)*):\s*(.*)$`)
)

// ethtool reads what "ethtool -i", -g and -l print.
func (f *foreign) ethtool(name, text string) {
	m := ethtoolFile().FindStringSubmatch(name)
	if m == nil {
		return
	}
	now := map[string]string{}
	most := map[string]string{}
	to := now
	for line := range strings.Lines(text) {
		l := ethtoolLine().FindStringSubmatch(strings.TrimSpace(line))
		switch {
		case l == nil:
		case l[1] == "Pre-set maximums":
			to = most
		case l[1] == "Current hardware settings":
			to = now
		default:
			to[l[1]] = l[2]
		}
	}
	number := func(in map[string]string, key string, ok *bool) int {
		if in[key] == "n/a" { // the driver says 0
			return 0
		}
		n, err := strconv.Atoi(in[key])
		*ok = *ok && err == nil
		return n
	}
	ok := true
	switch m[1] {
	case "i":
		if now["driver"] != "" {
			f.put("ethtool "+m[2]+" drvinfo", host.DriverInfo{Driver: now["driver"], Version: now["version"], Firmware: now["firmware-version"], Bus: now["bus-info"]})
		}
	case "g":
		r := host.Rings{RX: number(now, "RX", &ok), TX: number(now, "TX", &ok), RXMax: number(most, "RX", &ok), TXMax: number(most, "TX", &ok)}
		if ok {
			f.put("ethtool "+m[2]+" rings", r)
		}
	case "l":
		c := host.Channels{
			RX: number(now, "RX", &ok), TX: number(now, "TX", &ok), Combined: number(now, "Combined", &ok), Other: number(now, "Other", &ok),
			RXMax: number(most, "RX", &ok), TXMax: number(most, "TX", &ok), CombinedMax: number(most, "Combined", &ok), OtherMax: number(most, "Other", &ok),
		}
		if ok {
			f.put("ethtool "+m[2]+" channels", c)
		}
	}
}
