// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Who sets parameters at boot.
const (
	SystemdSysctl = "systemd-sysctl"
	ProcpsSystem  = "sysctl --system"
)

// SysctlKey is one kernel parameter: what runs, and what the files say.
type SysctlKey struct {
	Name    string      `json:"name"`    // "net.core.rmem_max"; a dot within an interface's name is a slash
	Running *string     `json:"running"` // single blanks between its words
	Systemd *Assignment `json:"systemd"` // what systemd-sysctl sets; null for nothing
	Procps  *Assignment `json:"procps"`  // what "sysctl --system" sets
	Unknown Unknown     `json:"unknown,omitempty"`

	// Absent is set where the kernel shows no such parameter here, as opposed
	// to one that cannot be read.
	Absent bool `json:"-"`
}

// Path is the parameter's file.
func (k *SysctlKey) Path() string { return "/proc/sys/" + SysctlPath(k.Name) }

// Known reports whether Systemd and Procps are known.
func (k *SysctlKey) Known() bool { return k.Unknown["configured"] == "" }

// Sysctl is the kernel parameters that the embedded profiles speak of; more
// are there for the asking ([Sysctl.Key]).
type Sysctl struct {
	Boot    string      `json:"boot"`  // SystemdSysctl or ProcpsSystem: which order counts at boot
	Files   []string    `json:"files"` // that systemd-sysctl reads, in order; null when not known
	Keys    []SysctlKey `json:"keys"`
	Unknown Unknown     `json:"unknown,omitempty"`

	Conf *SysctlConf `json:"-"` // nil when not known
	host *host.Host
}

// sysctlShown are the parameters that embedded profiles speak of.
var sysctlShown = []string{
	"net.core.netdev_max_backlog", "net.core.rmem_default", "net.core.rmem_max", "net.core.somaxconn",
	"net.core.wmem_default", "net.core.wmem_max", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter",
	"net.ipv4.tcp_congestion_control", "net.ipv4.tcp_rmem", "net.ipv4.tcp_timestamps", "net.ipv4.tcp_window_scaling", "net.ipv4.tcp_wmem",
}

// Sysctl gives the host's kernel parameters.
func (f *Facts) Sysctl() *Sysctl { return f.sysctl.get(f, decodeSysctl) }

func decodeSysctl(f *Facts) *Sysctl {
	h := f.host
	s := &Sysctl{host: h, Boot: bootOrder(h)}
	if conf, why := readSysctlConf(f); why != "" {
		s.Unknown.say("configured", why)
	} else {
		s.Conf, s.Files = conf, []string{}
		for _, file := range conf.Systemd() {
			s.Files = append(s.Files, file.Path)
		}
	}
	s.Prefetch(sysctlShown)
	for _, name := range sysctlShown {
		s.Keys = append(s.Keys, s.Key(name))
	}
	return s
}

// Prefetch reads parameters at once that are about to be asked for.
func (s *Sysctl) Prefetch(names []string) {
	ops := make([]host.Op, len(names))
	for i, n := range names {
		ops[i] = host.Op{Kind: host.ReadFile, Path: "/proc/sys/" + SysctlPath(n)}
	}
	s.host.Prefetch(ops)
}

// Key gives one parameter by its name, in either spelling.
func (s *Sysctl) Key(name string) SysctlKey {
	k := SysctlKey{Name: SysctlName(SysctlPath(name))}
	if text, err := s.host.Text(k.Path()); err == nil {
		k.Running = new(SysctlText(text))
	} else {
		k.Absent = kernelLacks(s.host, err)
		k.Unknown.say("running", whyNot(s.host, err))
	}
	if s.Conf == nil {
		k.Unknown.say("configured", s.Unknown["configured"])
		return k
	}
	k.Systemd, k.Procps = s.Conf.BySystemd(k.Name), s.Conf.ByProcps(k.Name)
	return k
}

// AtBoot is the line that decides the parameter at the next boot, or nil.
func (s *Sysctl) AtBoot(k *SysctlKey) *Assignment {
	if s.Boot == ProcpsSystem {
		return k.Procps
	}
	return k.Systemd
}

// bootOrder: a service script of procps counts only where systemd is not there.
func bootOrder(h *host.Host) string {
	for _, p := range []string{"/run/systemd/system", "/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"} {
		if there(h, p) {
			return SystemdSysctl
		}
	}
	for _, p := range []string{"/etc/init.d/procps", "/etc/init.d/sysctl"} {
		if there(h, p) {
			return ProcpsSystem
		}
	}
	return SystemdSysctl
}

// there reports whether a path exists, without reading what it holds: of what
// is no link, reading the link fails with another error than absence.
func there(h *host.Host, p string) bool {
	_, err := h.Link(p)
	return !host.Absent(err)
}

// readSysctlConf reads all files, or says why it is not known what they say.
func readSysctlConf(f *Facts) (*SysctlConf, string) {
	h := f.host
	if _, err := h.Link("/etc"); host.Absent(err) {
		return nil, whyNot(h, err)
	}
	dirs := sysctlDirs
	if _, err := h.Link("/lib"); err == nil {
		dirs = dirs[:len(dirs)-1]
	}
	var ops []host.Op
	for _, d := range dirs {
		ops = append(ops, host.Op{Kind: host.ListDir, Path: d})
	}
	h.Prefetch(ops)
	ops = []host.Op{{Kind: host.ReadFile, Path: SysctlMain}}
	paths := map[string][]string{}
	for _, d := range dirs {
		names, err := h.List(d)
		if err != nil && !host.Absent(err) {
			return nil, whyNot(h, err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, ".conf") {
				paths[d] = append(paths[d], path.Join(d, n))
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(d, n)})
			}
		}
	}
	h.Prefetch(ops)
	c := &SysctlConf{dirs: map[string][]SysctlFile{}}
	for _, t := range f.Cmdline().Tokens {
		if key, ok := strings.CutPrefix(t.Name, "sysctl"); ok && t.Value != nil && len(key) > 1 && (key[0] == '.' || key[0] == '/') {
			// the kernel makes every dot a slash (fs/proc/proc_sysctl.c)
			c.boot = append(c.boot, sysctlLine{path: strings.ReplaceAll(key[1:], ".", "/"), value: *t.Value, set: true})
		}
	}
	for _, d := range dirs {
		for _, p := range paths[d] {
			file, why := readSysctlFile(h, p)
			if why != "" {
				return nil, why
			}
			c.dirs[d] = append(c.dirs[d], *file)
		}
	}
	if _, err := h.Read(SysctlMain); !host.Absent(err) {
		file, why := readSysctlFile(h, SysctlMain)
		if why != "" {
			return nil, why
		}
		c.main = file
	}
	return c, ""
}

// readSysctlFile reads one listed file. One that cannot be opened as a file,
// because its link leads to /dev/null or nowhere, or it is a directory, says
// nothing and still hides those of its name.
func readSysctlFile(h *host.Host, p string) (*SysctlFile, string) {
	b, err := h.Read(p)
	if err == nil {
		return &SysctlFile{Path: p, lines: parseSysctl(string(b))}, ""
	}
	if to, e := h.Link(p); e == nil && (host.Absent(err) || path.Clean(to) == "/dev/null") {
		return &SysctlFile{Path: p, Masked: true}, ""
	}
	if _, e := h.List(p); e == nil {
		return &SysctlFile{Path: p, Masked: true}, ""
	}
	return nil, whyNot(h, err)
}

// PathSoftnet is where each CPU counts the packets that it was handed.
const PathSoftnet = "/proc/net/softnet_stat"

// BacklogDrops gives how many packets were dropped since boot because the
// queue of a CPU (net.core.netdev_max_backlog) was full, or why that is not
// known.
func (f *Facts) BacklogDrops() (n int64, why string) {
	b, err := f.host.Read(PathSoftnet)
	if err != nil {
		return 0, whyNot(f.host, err)
	}
	n, ok := parseSoftnet(string(b))
	if !ok {
		return 0, PathSoftnet + ": not lines of hexadecimal numbers"
	}
	return n, ""
}

// parseSoftnet adds up the second column, hexadecimal (net/core/net-procfs.c).
func parseSoftnet(text string) (drops int64, ok bool) {
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if len(w) < 2 {
			return 0, false
		}
		n, err := strconv.ParseUint(w[1], 16, 32)
		if err != nil {
			return 0, false
		}
		drops, ok = drops+int64(n), true
	}
	return drops, ok
}
