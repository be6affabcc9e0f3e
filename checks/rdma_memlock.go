// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var rdmaMemlock = &check.Check{
	ID: "rdma.memlock", Title: "What starts jobs and containers may lock the memory that RDMA registers", Severity: check.High,
	Doc: `Registering memory for RDMA pins its pages, and the kernel counts them against RLIMIT_MEMLOCK of the process, unless that has
CAP_IPC_LOCK. A limit of 8 MB (the kernel's default; 64 KB before 5.16) lets small tests run, and the first real buffer fails:
"ibv_reg_mr failed: Cannot allocate memory", ibv_create_qp with ENOMEM, or NCCL's "Call to ibv_reg_mr failed".

A limit is inherited, so what counts is who starts the program. A container gets the limit of the container runtime, a Slurm job that of
slurmd, a program started in a login shell what pam_limits sets. Judged are the runtimes and slurmd where they run or start at boot,
from the file that systemd obeys (the unit with its drop-ins, sorted by name, the last LimitMEMLOCK= wins; then DefaultLimitMEMLOCK= of
system.conf), and the process that runs, from /proc/PID/limits. For logins the line about "*" of limits.conf is judged, or of a group
or user where only those have enough; a small limit there is a warning, for not every host has logins that use RDMA.

By hand:

    systemctl show containerd -p LimitMEMLOCK -p MainPID
    grep 'locked memory' /proc/$(pidof -s containerd)/limits
    systemctl edit containerd        # [Service], LimitMEMLOCK=infinity; then systemctl restart containerd
    echo '* - memlock unlimited' > /etc/security/limits.d/90-rdma.conf      # for logins

A restart of the runtime is enough for new containers; those that run keep what they got. A pod may have the capability instead
(securityContext, capabilities, add: IPC_LOCK); then the limit does not matter for it.

Often copied and wrong: a line in limits.conf as cure for containers and services. PAM reads that file for logins alone; systemd
does not. Also wrong: LimitMEMLOCK for the kubelet, which starts no container itself.`,
	Refs: []string{
		"https://man7.org/linux/man-pages/man2/getrlimit.2.html", "https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html",
		"https://man7.org/linux/man-pages/man5/limits.conf.5.html", "drivers/infiniband/core/umem.c, ib_umem_get",
	},
	Run: runMemlock,
}

func runMemlock(_ context.Context, r *check.Run) error {
	want := r.Profile.RDMA.Memlock
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile names no limit (rdma.memlock)"})
		return nil
	case !hasRDMA(r):
		return nil
	}
	m := r.Facts.Memlock()
	bytes := memlockBytes(want.V)
	if m.Services == nil {
		r.Report(check.Finding{Subject: "services", Status: check.Unknown, Why: m.Unknown["services"]})
	}
	for i := range m.Services {
		// dockerd leaves containers to the containerd of the host where there is one
		if s := &m.Services[i]; s.Unit != "docker.service" || !slices.ContainsFunc(m.Services, func(o facts.ServiceLimit) bool { return o.Unit == "containerd.service" }) {
			r.Report(judgeServiceLimit(s, want, bytes))
		}
	}
	r.Report(judgeLoginLimit(m, want, bytes))
	return nil
}

// hasRDMA reports whether an RDMA device of a PCI function is here, and
// reports a list that is not known.
func hasRDMA(r *check.Run) bool {
	rdma := r.Facts.RDMA()
	if rdma.Devices == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: "the RDMA devices are not known: " + rdma.Why})
	}
	return slices.ContainsFunc(rdma.Devices, func(d *facts.RDMADevice) bool { return d.BDF == nil || *d.BDF != "" })
}

// memlockBytes reads a limit as profiles write it.
func memlockBytes(s string) int64 {
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil {
		return facts.Unlimited
	}
	return n << (10 * (1 + strings.IndexByte("KMGT", s[len(s)-1])))
}

func limitText(n int64) string {
	if n == facts.Unlimited {
		return "unlimited"
	}
	for _, u := range []struct {
		shift int
		unit  string
	}{{40, "TB"}, {30, "GB"}, {20, "MB"}, {10, "KB"}} {
		if n >= 1<<u.shift && n&(1<<u.shift-1) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.unit)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

const smallMemlock = "programs that it starts cannot register the memory that RDMA needs, unless they have CAP_IPC_LOCK"

func judgeServiceLimit(s *facts.ServiceLimit, want profile.Val[string], bytes int64) check.Finding {
	f := check.Finding{Subject: s.Unit, Want: "a limit of locked memory: " + want.V, Source: want.Origin.String(), Why: smallMemlock}
	f.Next = fmt.Sprintf("systemctl edit %s: under [Service] LimitMEMLOCK=infinity; then systemctl restart %s", s.Unit, s.Unit)
	why := reasons(s.Unknown, "active", "configured", "running")
	if s.Active != nil && !*s.Active && s.Running == nil {
		f.Status, f.Why, f.Next = check.Skip, "it does not run, and is not started at boot", ""
		return f
	}
	configured := "systemd's default of 8 MB or less"
	enough := false
	switch {
	case s.Configured != nil:
		configured, enough = limitText(s.Configured.Soft), s.Configured.Allows(bytes)
		f.Evidence = append(f.Evidence, check.Evidence{Source: s.From, Value: configured})
	case s.Unknown["configured"] == "":
		f.Evidence = append(f.Evidence, check.Evidence{Source: s.File, Value: "no LimitMEMLOCK=, nor one in its drop-ins, nor DefaultLimitMEMLOCK= in system.conf"})
	}
	if s.Running == nil {
		switch f.Got = configured; {
		case s.Unknown["configured"] != "":
			f.Status, f.Why, f.Next = check.Unknown, why, ""
		case enough:
			f.Status, f.Why, f.Next = check.Pass, "", ""
		default:
			f.Status = atMostWarn(check.Fail, want.Origin)
		}
		return f
	}
	live := limitText(s.Running.Soft)
	f.Got = "runs with " + live
	f.Evidence = append(f.Evidence, check.Evidence{Source: s.Running.LimitsPath(), Value: s.Running.Comm + ", Max locked memory " + live})
	if s.Unknown["configured"] != "" {
		configured = ""
	}
	f.Truth = &check.Truth{Configured: configured, NextBoot: configured, Live: live}
	running := s.Running.Allows(bytes)
	switch {
	case running && (enough || configured == ""):
		f.Status, f.Why, f.Next, f.Truth = check.Pass, "", "", nil
	case running:
		f.Status = atMostWarn(check.Fail, want.Origin)
		f.Got += "; the next start gets " + configured
	case enough:
		f.Status, f.Pending = atMostWarn(check.Fail, want.Origin), true
		f.Got += "; the next start gets " + configured
		f.Next = "systemctl restart " + s.Unit + "; the file is right, and the process is older"
	default:
		f.Status = atMostWarn(check.Fail, want.Origin)
	}
	return f
}

func judgeLoginLimit(m *facts.Memlock, want profile.Val[string], bytes int64) check.Finding {
	f := check.Finding{Subject: "logins", Want: "a limit of locked memory: " + want.V, Source: want.Origin.String()}
	switch {
	case m.Logins == nil:
		f.Status, f.Why = check.Unknown, m.Unknown["logins"]
		return f
	case len(m.LoginFiles) == 0:
		f.Status, f.Why = check.Skip, "there is no file of pam_limits in /etc/security"
		return f
	}
	var domains []string
	for _, rule := range m.Logins {
		if !slices.Contains(domains, rule.Domain) {
			domains = append(domains, rule.Domain)
		}
	}
	slices.SortStableFunc(domains, func(a, b string) int { // everybody first
		switch {
		case a == "*" && b != "*":
			return -1
		case b == "*" && a != "*":
			return 1
		}
		return 0
	})
	for _, d := range domains {
		soft, hard, from := m.Login(d)
		if d == "root" || soft == nil || hard == nil || !(facts.Limit{Soft: *soft, Hard: *hard}).Allows(bytes) {
			continue
		}
		f.Status, f.Got = check.Pass, fmt.Sprintf("%s for %s", limitText(*soft), d)
		f.Evidence = []check.Evidence{{Source: from, Value: "memlock " + limitText(*soft)}}
		return f
	}
	f.Status, f.Got = check.Warn, "no rule"
	f.Evidence = []check.Evidence{{Source: strings.Join(m.LoginFiles, ", "), Value: "no line gives everybody, a group or a user that much memlock"}}
	if soft, _, from := m.Login("*"); soft != nil {
		f.Got = limitText(*soft) + " for *, as far as the hard limit allows"
		f.Evidence = []check.Evidence{{Source: from, Value: "memlock " + limitText(*soft)}}
	}
	f.Why = "RDMA programs that are started from a login get the kernel's default of 8 MB (64 KB before 5.16), or this"
	f.Next = "echo '* - memlock unlimited' > /etc/security/limits.d/90-rdma.conf, and log in again"
	return f
}
