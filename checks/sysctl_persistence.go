// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var sysctlPersistence = &check.Check{
	ID: "sysctl.persistence", Title: "Kernel parameters run as the files set them, whoever reads the files", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `A parameter has a value that runs, and lines in files that set it at boot. For each parameter that the profile speaks of the check
finds the line that wins, by file and line number, and compares it with what runs. It fails when the next boot would not hold what
the profile wants, and warns when running and configured differ otherwise.

Two programs read the files, and not alike. systemd-sysctl does at boot: *.conf of /etc/sysctl.d, /run/sysctl.d,
/usr/local/lib/sysctl.d and /usr/lib/sysctl.d, sorted by file name across directories; of one name the first directory counts; the
last assignment wins; a key that stands by itself beats every glob. "sysctl --system" does when people run it: the same, and
/etc/sysctl.conf after all, which systemd does not read (a link /etc/sysctl.d/99-sysctl.conf made it, until Debian 13 dropped it).
So the same files can give two results, and the check says for which parameters they do.

By hand:

    /usr/lib/systemd/systemd-sysctl --cat-config      # all lines in systemd's order
    sysctl --system --dry-run                         # all in procps' order
    sysctl net.core.rmem_max                          # what runs

A line that loses is overruled by a file that sorts after it: /etc/sysctl.d/99-zz-….conf. Never edit files in /usr/lib.

When something else runs than the files say, something wrote it later: TuneD (with reapply_sysctl, its default, the files of /etc
and /run win over its profile, those of /usr/lib lose), Cilium (99-zzz-override_cilium.conf, then a restart of systemd-sysctl,
which sets everything again), kube-proxy, NetworkManager, or a person.`,
	Refs:     []string{sysctlDMan, "https://man7.org/linux/man-pages/man8/sysctl.8.html"},
	Requires: []string{sysctlSocketBuffersID, sysctlBacklogID, sysctlSomaxconnID, sysctlTCPDefaultsID, sysctlCongestionID, sysctlKeysID},
	Run:      runPersistence,
}

func runPersistence(_ context.Context, r *check.Run) error {
	s := r.Facts.Sysctl()
	list := sysctlRules(r, "")
	prefetchRules(r, list)
	judged := map[string]bool{}
	for i := range list {
		p := &list[i]
		judged[p.name] = true
		k := s.Key(p.name)
		f := check.Finding{Subject: p.name, Want: p.want() + ", at the next boot too", Source: ruleOrigin(p.rules[0]).String()}
		switch {
		case !k.Known():
			f.Status, f.Why = check.Unknown, "what the files say is not known: "+k.Unknown["configured"]
		case k.Running == nil:
			f.Status, f.Why = check.Unknown, k.Unknown["running"]
		default:
			judgePersistence(r, p, &k, &f)
		}
		r.Report(f)
	}
	if s.Conf == nil {
		return nil
	}
	for _, name := range s.Conf.Named() {
		k := facts.SysctlKey{Name: name, Systemd: s.Conf.BySystemd(name), Procps: s.Conf.ByProcps(name)}
		if judged[name] || sameAssignment(k.Systemd, k.Procps) {
			continue
		}
		f := check.Finding{Subject: name, Status: check.Warn, Want: "one value, whichever program reads the files"}
		disagree(s, &k, &f)
		r.Report(f)
	}
	return nil
}

func sameAssignment(a, b *facts.Assignment) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Value == b.Value
}

// disagree says that the two programs set a parameter differently.
func disagree(s *facts.Sysctl, k *facts.SysctlKey, f *check.Finding) {
	show := func(program string, a *facts.Assignment) string {
		if a == nil {
			return program + " does not set it"
		}
		return fmt.Sprintf("%s sets %s (%s)", program, a.Value, a.At())
	}
	f.Got = show(facts.SystemdSysctl, k.Systemd) + "; " + show(facts.ProcpsSystem, k.Procps)
	f.Why = fmt.Sprintf("the boot runs %s, and whoever runs the other program changes the value", s.Boot)
	f.Evidence = nil
	for _, a := range []*facts.Assignment{k.Systemd, k.Procps} {
		if a != nil {
			f.Evidence = append(f.Evidence, check.Evidence{Source: a.At(), Value: a.Value})
		}
	}
	f.Next = "remove the line that is not meant"
	if a := k.Procps; a != nil && a.File == facts.SysctlMain {
		f.Next = fmt.Sprintf("move line %d of %s to a file in /etc/sysctl.d, or remove it", a.Line, a.File)
	}
}

func judgePersistence(r *check.Run, p *paramRules, k *facts.SysctlKey, f *check.Finding) {
	s := r.Facts.Sysctl()
	o := ruleOrigin(p.rules[0])
	a, who := setAtBoot(r, k)
	f.Evidence = []check.Evidence{{Source: k.Path(), Value: *k.Running}}
	f.Truth = sysctlTruth(s, k)
	right := p.fine(*k.Running)
	fix := func() {
		if value, ok := p.target(s, k); ok {
			f.Next = setByHand(s, k, value)
			f.Fix = sysctlWish(o, p.name, *k.Running, value, "the next boot must set "+p.name+" as it runs")
		}
	}
	bad := ruleStatus(p.rules[0])
	switch {
	case a == nil:
		judgeDefault(r, p, k, f, right, bad, fix)
	case a.Value == *k.Running && !sameAssignment(k.Systemd, k.Procps):
		f.Status = check.Warn
		disagree(s, k, f)
		next := f.Next
		if fix(); !strings.HasPrefix(next, "remove") {
			f.Next = next
		}
	case a.Value == *k.Running:
		f.Status, f.Got, f.Truth = check.Pass, "set by "+who+a.At(), nil
		f.Evidence = append(f.Evidence, check.Evidence{Source: a.At(), Value: a.Value})
	default:
		f.Evidence = append(f.Evidence, check.Evidence{Source: a.At(), Value: a.Value})
		f.Got = fmt.Sprintf("%s runs, %s%s says %s", *k.Running, who, a.At(), a.Value)
		f.Status, f.Why = check.Warn, "something set it after boot, or the kernel refused the line: "+writers(r, k)
		f.Next = fmt.Sprintf("find who sets it; sysctl -w '%s=%s' brings back what the file says", p.name, a.Value)
		if right && !p.fine(a.Value) {
			f.Status, f.Why = bad, "the next boot sets a value that the profile does not want"
			fix()
		} else if !right && p.fine(a.Value) {
			f.Status = bad
			fix()
		}
	}
}

// judgeDefault is for a parameter that nothing sets at boot: the kernel's
// default comes back.
func judgeDefault(r *check.Run, p *paramRules, k *facts.SysctlKey, f *check.Finding, right bool, bad check.Status, fix func()) {
	defaults := kernelDefaults(r, p.name)
	kept := len(defaults) > 0
	for _, d := range defaults {
		kept = kept && p.fine(d)
	}
	says := "the kernel's default is not known"
	if len(defaults) > 0 {
		says = "the kernel's default is " + strings.Join(defaults, " or ")
	}
	switch {
	case kept || !right && len(defaults) == 1 && defaults[0] == *k.Running:
		f.Status, f.Got, f.Truth = check.Pass, "no file sets it, and "+says, nil
	case !right:
		f.Status, f.Why, f.Truth = check.Skip, "no file sets it, and what runs is not what the profile wants either", nil
	default:
		f.Status = bad
		f.Got = *k.Running + " runs, and no file sets it; " + says
		f.Why = "it was set at run time alone, and the next boot loses it"
		fix()
	}
}

// kernelDefaults gives what a parameter can be when nobody sets it; none where
// that is not known.
func kernelDefaults(r *check.Run, name string) []string {
	switch name {
	case "net.ipv4.tcp_window_scaling", "net.ipv4.tcp_timestamps":
		return []string{"1"}
	case "net.core.somaxconn":
		if k := r.Facts.Kernel().Release; k == nil {
			return []string{"128", "4096"}
		} else if facts.CompareVersions(facts.ReleaseNumbers(*k), "5.4") < 0 {
			return []string{"128"}
		}
		return []string{"4096"}
	case "net.core.netdev_max_backlog":
		return []string{"1000"}
	case "net.core.rmem_default", "net.core.wmem_default":
		return []string{"212992"}
	case "net.core.rmem_max", "net.core.wmem_max":
		return []string{"212992", "4194304"} // 4 MiB since 6.18
	case congestionKey:
		if c := r.Facts.Kernel().Config["CONFIG_DEFAULT_TCP_CONG"]; c != "" {
			return []string{c}
		}
	}
	return nil
}

// setAtBoot is the line that decides at boot, with TuneD's profile among the
// files: it comes after them, and sets those of /run and /etc again if told to.
func setAtBoot(r *check.Run, k *facts.SysctlKey) (a *facts.Assignment, who string) {
	a = r.Facts.Sysctl().AtBoot(k)
	t := r.Facts.Owner(facts.OwnerTuned)
	if t == nil || t.Active != nil && !*t.Active {
		return a, ""
	}
	if a != nil && (strings.HasPrefix(a.File, "/etc/") || strings.HasPrefix(a.File, "/run/")) && r.Facts.TunedReapplies() {
		return a, ""
	}
	for _, h := range t.Holds {
		if h.Covers("sysctl", "", k.Name) && h.Value != "" && !strings.ContainsAny(h.Value[:1], "<>$") {
			file, line, _ := strings.Cut(h.Source, ":")
			out := &facts.Assignment{Value: facts.SysctlDecimal(h.Value), File: file}
			_, _ = fmt.Sscanf(line, "%d", &out.Line)
			return out, "TuneD: "
		}
	}
	return a, ""
}

// writers names who is likely to have set a parameter after boot.
func writers(r *check.Run, k *facts.SysctlKey) string {
	var who []string
	for _, o := range r.Facts.Owners() {
		for _, h := range o.Holds {
			if h.Covers("sysctl", "", k.Name) {
				who = append(who, fmt.Sprintf("%s (%s)", o.Name, h.Source))
				break
			}
		}
	}
	if who == nil {
		return "nothing that hostcheck knows here does so; a script, a container with privileges or a person did"
	}
	return "most likely " + strings.Join(who, ", ")
}
