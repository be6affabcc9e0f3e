// SPDX-License-Identifier: Apache-2.0

package facts

//go:generate go run ./gen/params -source "$LINUX_SOURCE" -o cmdline_params.txt

import (
	_ "embed"
	"slices"
	"strings"
	"sync"
)

//go:embed cmdline_params.txt
var kernelParamsText string

// kernelParam is one line of the embedded list; its header says what the
// fields are.
type kernelParam struct {
	name, kind, arch string
	cond             []string // configuration symbols, all of which must hold
}

// kernelParams holds the list by the first letter of the folded name, as
// __setup() names are prefixes.
var kernelParams = sync.OnceValue(func() map[byte][]kernelParam {
	m := map[byte][]kernelParam{}
	for line := range strings.Lines(kernelParamsText) {
		f := strings.Fields(line)
		if len(f) != 4 || f[0] == "#" {
			continue
		}
		p := kernelParam{name: foldName(f[0]), kind: f[1], arch: f[2]}
		if f[3] != "-" {
			p.cond = strings.Split(f[3], "&")
		}
		m[p.name[0]] = append(m[p.name[0]], p)
	}
	return m
})

// KnownParams lists the names without a dot that Linux 6.12 knows on some
// architecture and configuration, sorted, with dashes as underscores.
func KnownParams() []string {
	var names []string
	for _, list := range kernelParams() {
		for _, p := range list {
			names = append(names, strings.TrimSuffix(p.name, "="))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sysctlAliases are names that stand for a sysctl (fs/proc/proc_sysctl.c).
var sysctlAliases = []string{"hardlockup_all_cpu_backtrace", "hung_task_panic", "numa_zonelist_order", "softlockup_all_cpu_backtrace"}

// choices are options whose handlers refuse any other value, so that the
// kernel logs them as unknown: mm/huge_memory.c, mm/mempolicy.c.
var choices = map[string][]string{
	"transparent_hugepage": {"always", "madvise", "never"},
	"numa_balancing":       {"enable", "disable"},
}

// The limits of init/main.c: argv_init and envp_init have room for
// CONFIG_INIT_ENV_ARG_LIMIT (32) entries, and envp_init starts with HOME and
// TERM. One more panics.
const initLimit = 32

// unknownParams decodes what the kernel does not take: words without a value
// become arguments of init, the others its environment (unknown_bootoption).
func (p *cmdlineParser) unknownParams() {
	if p.env.Arch != "amd64" && p.env.Arch != "arm64" {
		p.c.UnknownParams = nil
		why := "the names that a kernel of " + p.env.Arch + " knows are not known to hostcheck"
		if p.env.Arch == "" {
			why = "the architecture of the host is not known"
		}
		p.c.Unknown.say("unknown_params", why)
		return
	}
	var args []string
	env := []string{"HOME=/", "TERM=linux"}
	at := map[string]int{"HOME": 0, "TERM": 1} // by name: the last value takes the place of the first
	for i, w := range p.words {
		if slices.Contains(sysctlAliases, w.name) || p.bootloaderID(w) {
			continue
		}
		if p.takes(i, w) || strings.Contains(w.name, ".") {
			// init= and rdinit= forget the arguments before them
			if w.value != nil && (w.is("init") || w.is("rdinit")) {
				args = nil
			}
			continue
		}
		if w.value == nil {
			args = append(args, w.name)
			continue
		}
		i, ok := at[w.name]
		if !ok {
			i = len(env)
			at[w.name] = i
			env = append(env, "")
		}
		env[i] = w.name + w.tail()
	}
	for _, u := range slices.Concat(args, env[2:]) {
		p.c.UnknownParams = append(p.c.UnknownParams, jsonText(u))
	}
	if n := len(env) - 2; n > initLimit-1 {
		p.problem("", KindFatal, "", "%d options with a value are unknown to the kernel, and more than %d make it panic (\"Too many boot env vars\")", n, initLimit-1)
	}
	if n := len(args) + len(p.init); n > initLimit {
		p.problem("", KindFatal, "", "%d words are for init (unknown ones, and those after \"--\"), and more than %d make the kernel panic (\"Too many boot init vars\")", n, initLimit)
	}
}

// bootloaderID reports whether the kernel passes over a boot loader's mark
// without a word: since 6.18 and 6.12.54; before, it logged it as unknown.
func (p *cmdlineParser) bootloaderID(w word) bool {
	if !strings.HasPrefix(w.name+w.tail(), "BOOT_IMAGE=") && !strings.HasPrefix(w.name, "kexec") {
		return false
	}
	v := releaseNumbers(p.env.Release)
	return v == [3]int{} || slices.Compare(v[:], []int{6, 18, 0}) >= 0 || v[0] == 6 && v[1] == 12 && v[2] >= 54
}

// releaseNumbers reads "6.12.107-amd64"; zeros where there are none.
func releaseNumbers(release string) (v [3]int) {
	for i := range v {
		n, rest, ok := prefixUint(release, 10)
		if !ok || n > 1<<20 {
			break
		}
		v[i] = int(n)
		var dot bool
		if release, dot = strings.CutPrefix(rest, "."); !dot {
			break
		}
	}
	return v
}

// takes reports whether the kernel takes a word: some handler of its name does
// (obsolete_checksetup), or it is a parameter of the core (parse_one).
func (p *cmdlineParser) takes(i int, w word) bool {
	if p.refused[i] || w.name == "" {
		return false
	}
	name := foldName(w.name)
	line := name + w.tail()
	for _, k := range kernelParams()[name[0]] {
		if k.arch != "any" && k.arch != map[string]string{"amd64": "x86", "arm64": "arm64"}[p.env.Arch] || !p.holds(k.cond) {
			continue
		}
		switch k.kind {
		case "early", "core":
			if name == k.name {
				p.tooLate(k, w)
				return true
			}
		case "never":
		default:
			if p.setupTakes(k, line, w) {
				return true
			}
		}
	}
	return false
}

// tooLate tells of an option that is read before bootconfig is. Options that
// have a decoder of their own have told it already.
func (p *cmdlineParser) tooLate(k kernelParam, w word) {
	told := func(t Problem) bool { return t.Token == jsonText(w.raw) && t.Kind == KindIgnored }
	if k.kind == "early" && w.bootconfig && !slices.ContainsFunc(p.c.Problems, told) {
		p.problem(w.raw, KindIgnored, "", "it comes from bootconfig, which is read too late for this option")
	}
}

func (p *cmdlineParser) setupTakes(k kernelParam, line string, w word) bool {
	rest, ok := strings.CutPrefix(line, k.name)
	if !ok {
		return false
	}
	switch k.kind {
	case "word":
		return rest == ""
	case "bool":
		_, ok := kstrtobool(rest)
		if !ok {
			p.problem(w.raw, KindRefused, "", "not a boolean; write 0 or 1")
		}
		return ok
	}
	if list := choices[strings.TrimSuffix(k.name, "=")]; list != nil && !slices.Contains(list, rest) {
		p.problem(w.raw, KindRefused, "", "%q is none of %s", rest, strings.Join(list, ", "))
		return false
	}
	return true
}

// holds reports whether a condition holds, or may: where the configuration is
// not known, everything is taken to be built in.
func (p *cmdlineParser) holds(cond []string) bool {
	for _, c := range cond {
		symbol, not := strings.CutPrefix(c, "!")
		symbol, module := strings.CutSuffix(symbol, "?")
		v, known := p.config(symbol)
		if !known {
			continue
		}
		if on := v == "y" || module && v == "m" || v != "" && v != "m"; on == not {
			return false
		}
	}
	return true
}

// scalars are options of which the last one decides, so that an earlier one
// with another value is a trap. Those decoded elsewhere are not here.
var scalars = []string{
	"root", "rootfstype", "init", "rdinit", "transparent_hugepage", "numa_balancing", "selinux", "enforcing", "apparmor", "audit", "lsm", "security",
	"mitigations", "spectre_v2", "nmi_watchdog", "nosoftlockup", "skew_tick", "clocksource", "tsc", "idle", "intel_pstate", "amd_pstate",
	"panic", "loglevel", "pcie_aspm", "pcie_ports", "preempt", "elevator", "psi", "nohz", "highres", "swapaccount", "processor.max_cstate",
	"intel_idle.max_cstate", "workqueue.unbound_cpus", "irqaffinity", "kthread_cpus", "hugetlb_free_vmemmap", "ib_core.netns_mode", "systemd.unified_cgroup_hierarchy",
}

// repeated tells of scalar options that are given more than once.
func (p *cmdlineParser) repeated() {
	last := map[string]int{}
	for i, w := range p.words {
		name := foldName(w.name)
		if !slices.Contains(scalars, name) {
			continue
		}
		if old, ok := last[name]; ok {
			was, now := p.words[old], w
			if was.tail() == now.tail() {
				p.problem(was.raw, KindRedundant, "", "it is given again later")
			} else {
				p.problem(was.raw, KindOverridden, "", "%s comes later and wins", now.raw)
			}
		}
		last[name] = i
	}
}

// LoggedUnknownParams gives what the running kernel itself logged as unknown at
// boot, in its words; nil when its log no longer holds the line or never did.
// The error says why the log cannot be read.
func (f *Facts) LoggedUnknownParams() ([]string, error) {
	lines, err := f.host.KernelLog()
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		_, rest, ok := strings.Cut(line, `Unknown kernel command line parameters "`)
		if i := strings.LastIndex(rest, `", will be passed`); ok && i >= 0 {
			return strings.Fields(rest[:i]), nil
		}
	}
	return nil, nil
}
