// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Sysctl sets kernel parameters: kind "sysctl", Name the parameter with dots
// ("net.ipv4.conf.eth0/100.rp_filter"), no Target; the value is the running
// one with single blanks. A drop-in of ours that sorts after whoever sets the
// parameter now makes it last: see [dropIn].
type Sysctl struct{}

// Kind is "sysctl".
func (Sysctl) Kind() string { return "sysctl" }

// SysctlSetting names a parameter, given in either spelling.
func SysctlSetting(name string) plan.Setting {
	return plan.Setting{Kind: "sysctl", Name: facts.SysctlName(facts.SysctlPath(name))}
}

var (
	sysctlForm = pattern.Late(`^[A-Za-z0-9_.@:,+~-]+(/[A-Za-z0-9_.@:,+~-]+)+$`)
	valueForm  = pattern.Late(`^[!-~]+( [!-~]+)*$`)
)

// sysctlRefused are parameters that hostcheck never sets, and why.
var sysctlRefused = []struct{ prefix, why string }{
	{"fs/binfmt_misc/", "it makes the kernel start programs"},
	{"kernel/core_pattern", "it makes the kernel start programs"},
	{"kernel/hotplug", "it makes the kernel start programs"},
	{"kernel/modprobe", "it makes the kernel start programs"},
	{"kernel/poweroff_cmd", "it makes the kernel start programs"},
	{"kernel/random/", "it belongs to the kernel's random numbers"},
	{"kernel/usermodehelper/", "it makes the kernel start programs"},
	{"vm/nr_hugepages", "huge pages are set for each node, not spread over all; the kind is hugepages"},
	{"vm/compact_memory", "it is an order to the kernel and holds no value"},
	{"vm/drop_caches", "it is an order to the kernel and holds no value"},
}

// sysctlFile gives the file of a setting, or says why there is none.
func sysctlFile(s plan.Setting) (string, error) {
	p := facts.SysctlPath(s.Name)
	if s.Target != "" || SysctlSetting(s.Name) != s || !sysctlForm().MatchString(p) || slices.Contains(strings.Split(p, "/"), "..") {
		return "", fmt.Errorf("%q is not the name of a kernel parameter", s.Name)
	}
	for _, r := range sysctlRefused {
		if strings.HasPrefix(p, r.prefix) {
			return "", fmt.Errorf("hostcheck does not set %s: %s", s.Name, r.why)
		}
	}
	return "/proc/sys/" + p, nil
}

// Read gives the running value.
func (Sysctl) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	p, err := sysctlFile(s)
	if err != nil {
		return plan.Absent, err
	}
	text, err := h.Text(p)
	return plan.Text(facts.SysctlText(text)), err
}

// Apply writes each value. The engine reads it back.
func (Sysctl) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		p, err := sysctlFile(c.Setting)
		if err != nil {
			return err
		}
		if !c.After.Present {
			return fmt.Errorf("cannot remove the kernel parameter %s", c.Name)
		}
		if err := tx.WriteKnob(p, c.After.Text); err != nil {
			return err
		}
	}
	return nil
}

// ByHand is how a person sets c.After.
func (Sysctl) ByHand(c plan.Change) string {
	return fmt.Sprintf("sysctl -w '%s=%s'", c.Name, c.After.Text)
}

// Expand sets each parameter now and, where nothing does it yet, at each boot.
func (Sysctl) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) ([]plan.Change, []plan.Refusal, error) {
	f := facts.New(h)
	s := f.Sysctl()
	if s.Conf == nil {
		return nil, nil, fmt.Errorf("what sets kernel parameters at boot is not known: %s", s.Unknown["configured"])
	}
	var refused []plan.Refusal
	var todo []plan.Wish
	for _, w := range wishes {
		if r := refuseSysctl(h, f, &w); r != nil {
			refused = append(refused, *r)
			continue
		}
		todo = append(todo, w)
	}
	todo, files, no, err := dropIn(h, s, todo)
	if err != nil {
		return nil, nil, err
	}
	var changes []plan.Change
	for _, w := range todo {
		changes = append(changes, plan.Change{
			Setting: w.Setting, After: plan.Text(w.Want), Tier: w.Tier, Persist: true, Why: because(w), Disturbs: sysctlDisturbs[w.Name],
		})
	}
	return append(changes, files...), append(refused, no...), nil
}

// sysctlDisturbs says who may notice a parameter.
var sysctlDisturbs = map[string]string{
	"net.ipv4.tcp_congestion_control": "TCP connections that are made from now on use it; the kernel loads its module",
	"net.core.default_qdisc":          "interfaces that come up from now on use it; the kernel loads its module",
	"net.ipv4.tcp_timestamps":         "TCP connections that are made from now on use it",
	"net.ipv4.tcp_window_scaling":     "TCP connections that are made from now on use it",
}

// refuseSysctl says why a wish is not carried out; else it brings the wanted
// value into the spelling that the kernel prints.
func refuseSysctl(h *host.Host, f *facts.Facts, w *plan.Wish) *plan.Refusal {
	no := func(format string, args ...any) *plan.Refusal {
		r := refuse(*w, fmt.Sprintf(format, args...))
		return &r
	}
	p, err := sysctlFile(w.Setting)
	want := facts.SysctlDecimal(w.Want)
	switch {
	case err != nil:
		return no("%v", err)
	case !valueForm().MatchString(want) || strings.ContainsAny(w.Want, "\n\r\x00"):
		return no("%.80q is not a value of one line", w.Want)
	}
	w.Want = want
	k := f.Sysctl().Key(w.Name)
	if _, err := h.Text(p); k.Running == nil && (k.Absent || host.Absent(err) && exists(h, "/proc/sys/kernel")) {
		return no("%s is not there: this kernel, or the network namespace that hostcheck runs in, has no such parameter", p)
	}
	if err := h.ReadOnly(p); err != nil {
		r := no("%s can be read here and not written (%v): it belongs to the host and not to this namespace or container", p, reasonOf(err))
		r.Steps = []string{"run hostcheck on the host itself, in its first network namespace"}
		return r
	}
	if w.Name == "net.ipv4.tcp_congestion_control" && !hasCongestion(h, f, want) {
		return no("this kernel has no congestion control %s: it is neither among those that are there nor a module tcp_%s", want, want)
	}
	return ownedBy(f, *w)
}

// hasCongestion reports whether an algorithm is there or can be loaded; the
// list of the kernel has only those that are loaded. What is not known counts
// as there: the kernel will say.
func hasCongestion(h *host.Host, f *facts.Facts, name string) bool {
	list, err := h.Text("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil || slices.Contains(strings.Fields(list), name) {
		return true
	}
	if mod, known := f.Modules().Find("tcp_" + name); mod != nil || !known {
		return true
	}
	_, text, why := moduleList(h, f)
	_, found := needed(text, facts.ModuleName("tcp_"+name))
	return found || why != ""
}

func reasonOf(err error) error {
	if e, ok := errors.AsType[*host.Error](err); ok {
		return e.Err
	}
	return err
}
