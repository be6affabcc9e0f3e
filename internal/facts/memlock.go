// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Unlimited is a limit that is none.
const Unlimited int64 = -1

// Memlock is how much memory processes may lock (RLIMIT_MEMLOCK). RDMA counts
// every registered page against it, unless the process has CAP_IPC_LOCK
// (drivers/infiniband/core/umem.c, ib_umem_get).
type Memlock struct {
	Services   []ServiceLimit `json:"services"`    // that start jobs and containers
	LoginFiles []string       `json:"login_files"` // that pam_limits reads, in order
	Logins     []LoginRule    `json:"logins"`      // their lines about memlock, in order
	Unknown    Unknown        `json:"unknown,omitempty"`
}

// Limit is a soft and a hard limit in bytes, -1 for none.
type Limit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// ServiceLimit is one unit of systemd.
type ServiceLimit struct {
	Unit       string        `json:"unit"`
	File       string        `json:"file"`       // that defines it
	Active     *bool         `json:"active"`     // runs, or is started at boot
	Configured *Limit        `json:"configured"` // null where no file says one, which leaves the built-in default of systemd
	From       string        `json:"from"`       // "/etc/systemd/system/containerd.service.d/rdma.conf:3"; "" without
	Running    *ProcessLimit `json:"running"`    // null where it does not run
	Unknown    Unknown       `json:"unknown,omitempty"`
}

// ProcessLimit is what a process has.
type ProcessLimit struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
	Limit
}

// LimitsPath is where a process shows its limits.
func (p *ProcessLimit) LimitsPath() string { return "/proc/" + strconv.Itoa(p.PID) + "/limits" }

// LoginRule is one line of limits.conf(5) about memlock.
type LoginRule struct {
	Domain string `json:"domain"` // "*", a user, "@group"
	Type   string `json:"type"`   // "soft", "hard", "-" for both
	Limit  int64  `json:"limit"`  // bytes, -1 for none
	From   string `json:"from"`   // file:line
}

// Memlock gives the host's limits of locked memory.
func (f *Facts) Memlock() *Memlock { return f.memlock.get(f, decodeMemlock) }

// starter is a service whose children are jobs or containers, and the name of
// the process that starts them: they get its limits. The kubelet is none.
type starter struct{ unit, comm string }

var starters = []starter{
	{"containerd.service", "containerd"}, {"crio.service", "crio"}, {"docker.service", "dockerd"},
	{"k3s.service", "containerd"}, {"k3s-agent.service", "containerd"}, {"rke2-server.service", "containerd"}, {"rke2-agent.service", "containerd"},
	{"slurmd.service", "slurmd"},
}

// managerDirs is where systemd looks for system.conf (systemd-system.conf(5)).
var managerDirs = []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"}

func decodeMemlock(f *Facts) *Memlock {
	h := f.host
	m := &Memlock{Services: []ServiceLimit{}, LoginFiles: []string{}, Logins: []LoginRule{}}
	if _, err := h.Link("/etc"); host.Absent(err) {
		m.Services, m.LoginFiles, m.Logins = nil, nil, nil
		m.Unknown.say("services", whyNot(h, err))
		m.Unknown.say("login_files", whyNot(h, err))
		m.Unknown.say("logins", whyNot(h, err))
		return m
	}
	m.readServices(h)
	m.readLogins(h)
	return m
}

func (m *Memlock) readServices(h *host.Host) {
	var ops []host.Op
	for _, dir := range unitDirs {
		ops = append(ops, host.Op{Kind: host.ListDir, Path: dir + "/service.d"})
		for _, s := range starters {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: dir + "/" + s.unit}, host.Op{Kind: host.ListDir, Path: dir + "/" + s.unit + ".d"})
		}
	}
	for _, s := range starters {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: cgroupProcs(s.unit)})
	}
	h.Prefetch(ops)
	var manager *unitSetting
	for _, s := range starters {
		l := ServiceLimit{Unit: s.unit}
		files, why := unitFiles(h, s.unit)
		switch {
		case why != "":
			l.Unknown.say("file", why)
			l.Unknown.say("configured", why)
		case len(files) == 0:
			continue // not installed
		default:
			l.File = files[0]
			set := lastSetting(h, files, "Service", "LimitMEMLOCK")
			if set.limit == nil && set.why == "" {
				if manager == nil {
					manager = new(managerDefault(h))
				}
				set = *manager
			}
			l.Configured, l.From = set.limit, set.from
			if set.why != "" {
				l.Configured = nil
				l.Unknown.say("configured", set.why)
			}
		}
		l.Active = unitActive(h, s.unit)
		if l.Active == nil {
			l.Unknown.say("active", "the tree does not tell whether it is started")
		}
		l.readRunning(h, s)
		m.Services = append(m.Services, l)
	}
}

// unitSetting is the assignment that counts.
type unitSetting struct {
	limit *Limit
	from  string
	why   string // why it is not known
}

// lastSetting gives the last assignment of a limit in files that are read in
// this order; one that is not a limit is passed over, as systemd does.
func lastSetting(h *host.Host, files []string, section, key string) (s unitSetting) {
	for _, p := range files {
		b, err := h.Read(p)
		if err != nil {
			return unitSetting{why: whyNot(h, err)}
		}
		for _, line := range parseINI(string(b)) {
			if line.section != section || line.key != key {
				continue
			}
			if l, ok := parseUnitLimit(line.value); ok {
				s = unitSetting{limit: &l, from: p + ":" + strconv.Itoa(line.line)}
			}
		}
	}
	return s
}

// managerDefault is what services get whose files say nothing.
func managerDefault(h *host.Host) unitSetting {
	var files []string
	for _, dir := range managerDirs {
		if _, err := h.Read(dir + "/system.conf"); !host.Absent(err) {
			files = append(files, dir+"/system.conf")
			break
		}
	}
	drops, why := dropIns(h, managerDirs, "system.conf.d")
	if why != "" {
		return unitSetting{why: why}
	}
	return lastSetting(h, append(files, drops...), "Manager", "DefaultLimitMEMLOCK")
}

// parseUnitLimit reads what systemd takes as a limit of bytes: "infinity",
// a number with a unit to the base 1024, or two of them, soft and hard
// (systemd.exec(5)).
func parseUnitLimit(s string) (l Limit, ok bool) {
	soft, hard, both := strings.Cut(s, ":")
	if !both {
		hard = soft
	}
	if l.Soft, ok = parseBytes(soft); !ok {
		return Limit{}, false
	}
	if l.Hard, ok = parseBytes(hard); !ok || !enough(l.Hard, l.Soft) {
		return Limit{}, false
	}
	return l, true
}

// enough reports whether a limit allows as much as another.
func enough(limit, want int64) bool { return limit == Unlimited || want != Unlimited && limit >= want }

func parseBytes(s string) (int64, bool) {
	if s = strings.TrimSpace(s); s == "infinity" {
		return Unlimited, true
	}
	shift := 0
	if i := strings.IndexByte("KMGTPE", lastByte(s)); i >= 0 {
		shift, s = 10*(i+1), s[:len(s)-1]
	} else if lastByte(s) == 'B' {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil || int64(n)<<shift>>shift != int64(n) || int64(n)<<shift < 0 {
		return 0, false
	}
	return int64(n) << shift, true
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

func cgroupProcs(unit string) string { return "/sys/fs/cgroup/system.slice/" + unit + "/cgroup.procs" }

// allCgroups reports whether this host's tree of control groups is seen from
// its root on: the top that a namespace shows has a type, the root has none
// (Documentation/admin-guide/cgroup-v2.rst, cgroup.type).
func allCgroups(h *host.Host) bool {
	const top = "/sys/fs/cgroup"
	_, err := h.Link(top + "/cgroup.type")
	return h.Live() && there(h, top+"/cgroup.controllers") && host.Absent(err)
}

// mostPIDs of a service are looked at for its main process.
const mostPIDs = 2048

// readRunning finds the process that starts others, and its limit.
func (l *ServiceLimit) readRunning(h *host.Host, s starter) {
	text, err := h.Text(cgroupProcs(s.unit))
	if err != nil {
		if !kernelLacks(h, err) && (!host.Absent(err) || !allCgroups(h)) {
			l.Unknown.say("running", whyNot(h, err))
		}
		return
	}
	var ops []host.Op
	var pids []int
	for word := range strings.FieldsSeq(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 && len(pids) < mostPIDs {
			pids = append(pids, pid)
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: "/proc/" + word + "/comm"})
		}
	}
	h.Prefetch(ops)
	for _, pid := range pids {
		if comm, err := h.Text("/proc/" + strconv.Itoa(pid) + "/comm"); err != nil || comm != s.comm {
			continue
		}
		p := &ProcessLimit{PID: pid, Comm: s.comm}
		b, err := h.Read(p.LimitsPath())
		if err != nil {
			l.Unknown.say("running", whyNot(h, err))
			return
		}
		limit, ok := parseProcessLimit(string(b), "Max locked memory")
		if !ok {
			l.Unknown.say("running", p.LimitsPath()+": no line \"Max locked memory\"")
			return
		}
		p.Limit, l.Running = limit, p
		return
	}
	if len(pids) > 0 {
		l.Unknown.say("running", cgroupProcs(s.unit)+": none of its processes is seen as "+s.comm)
	}
}

// parseProcessLimit reads one line of /proc/PID/limits: its name, soft and
// hard limit, unit (fs/proc/base.c, proc_pid_limits).
func parseProcessLimit(text, name string) (l Limit, ok bool) {
	for line := range strings.SplitSeq(text, "\n") {
		rest, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		w := strings.Fields(rest)
		if len(w) < 2 {
			return Limit{}, false
		}
		for i, into := range []*int64{&l.Soft, &l.Hard} {
			if w[i] == "unlimited" {
				*into = Unlimited
				continue
			}
			n, err := strconv.ParseInt(w[i], 10, 64)
			if err != nil || n < 0 {
				return Limit{}, false
			}
			*into = n
		}
		return l, true
	}
	return Limit{}, false
}

// limitsConf and limitsDir are what pam_limits reads, in this order
// (limits.conf(5)).
const (
	limitsConf = "/etc/security/limits.conf"
	limitsDir  = "/etc/security/limits.d"
)

func (m *Memlock) readLogins(h *host.Host) {
	files := []string{limitsConf}
	names, err := h.List(limitsDir)
	if err != nil && !host.Absent(err) {
		m.Logins = nil
		m.Unknown.say("logins", whyNot(h, err))
		return
	}
	ops := []host.Op{{Kind: host.ReadFile, Path: limitsConf}}
	for _, n := range names {
		if strings.HasSuffix(n, ".conf") {
			files = append(files, limitsDir+"/"+n)
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: limitsDir + "/" + n})
		}
	}
	h.Prefetch(ops)
	for _, p := range files {
		b, err := h.Read(p)
		switch {
		case err == nil:
			m.LoginFiles = append(m.LoginFiles, p)
			m.Logins = append(m.Logins, parseLimits(string(b), p)...)
		case !host.Absent(err):
			m.Logins = nil
			m.Unknown.say("logins", whyNot(h, err))
			return
		}
	}
}

// parseLimits reads the memlock lines of a file of limits.conf(5): domain,
// type, item, value in KB; "unlimited", "infinity" and -1 are none.
func parseLimits(text, file string) (rules []LoginRule) {
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) != 4 || !strings.EqualFold(w[2], "memlock") {
			continue
		}
		r := LoginRule{Domain: w[0], Type: strings.ToLower(w[1]), From: file + ":" + strconv.Itoa(n)}
		if r.Type != "soft" && r.Type != "hard" && r.Type != "-" {
			continue
		}
		switch v := strings.ToLower(w[3]); v {
		case "-1", "unlimited", "infinity":
			r.Limit = Unlimited
		default:
			kb, err := strconv.ParseInt(v, 10, 64)
			if err != nil || kb < 0 || kb > 1<<52 {
				continue
			}
			r.Limit = kb << 10
		}
		rules = append(rules, r)
	}
	return rules
}

// Login gives the limit that pam_limits sets for one domain, from the rules
// about it alone; the later one wins. What no rule says is nil. from names the
// line of the soft limit, or of the hard one where that is lower.
func (m *Memlock) Login(domain string) (soft, hard *int64, from string) {
	hardFrom := ""
	for i := range m.Logins {
		r := &m.Logins[i]
		if r.Domain != domain {
			continue
		}
		if r.Type != "hard" {
			soft, from = &r.Limit, r.From
		}
		if r.Type != "soft" {
			hard, hardFrom = &r.Limit, r.From
		}
	}
	if soft != nil && hard != nil && !enough(*hard, *soft) {
		return hard, hard, hardFrom
	}
	return soft, hard, cmp.Or(from, hardFrom)
}

// Allows reports whether a limit is at least want, in bytes or [Unlimited].
func (l Limit) Allows(want int64) bool { return enough(l.Soft, want) }
