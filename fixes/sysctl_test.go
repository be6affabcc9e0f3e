// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	procSys = "/proc/sys/"
	dropIn  = "/etc/sysctl.d/99-zz-hostcheck.conf"
	rmemMax = "net.core.rmem_max"
	rpOwn   = "net.ipv4.conf.eth0/100.rp_filter"
)

func sysctlHost() map[string]string {
	return map[string]string{
		procSys + "net/core/rmem_max":                         "212992\n",
		procSys + "net/ipv4/tcp_rmem":                         "4096\t131072\t6291456\n",
		procSys + "net/ipv4/tcp_congestion_control":           "cubic\n",
		procSys + "net/ipv4/tcp_available_congestion_control": "reno cubic\n",
		procSys + "net/ipv4/conf/eth0.100/rp_filter":          "1\n",
		procSys + "kernel/hostname":                           "h\n",
		"/usr/lib/sysctl.d/50-default.conf":                   "net.ipv4.conf.*.rp_filter = 1\n-net.ipv4.conf.all.rp_filter\n",
		"/etc/sysctl.d/99-sysctl.conf":                        "net.core.rmem_max = 212992\n",
	}
}

func sysctlEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Sysctl{}}, Machine: &plan.Machine{Knob: sysctlKnob(root)}}
}

// sysctlKnob prints numbers with tabs between them, and knows two algorithms.
func sysctlKnob(root string) func(p, s string) error { return sysctlKnobWith(root) }

func sysctlKnobWith(root string, algorithms ...string) func(p, s string) error {
	return func(p, s string) error {
		if strings.HasSuffix(p, "tcp_congestion_control") && !slices.Contains(append(algorithms, "cubic", "reno"), s) {
			return syscall.ENOENT
		}
		return plantest.Knob(root)(p, strings.ReplaceAll(s, " ", "\t"))
	}
}

func param(name, want string) plan.Wish {
	return plan.Wish{Setting: fixes.SysctlSetting(name), Want: want, Tier: plan.Safe, Check: "sysctl.keys"}
}

var sysctlWishes = []plan.Wish{param(rmemMax, "0x10000000"), param("net.ipv4.tcp_rmem", "4096 131072 67108864"), param(rpOwn, "2")}

// holdsAtBoot reports whether the files set a parameter, whoever reads them.
func holdsAtBoot(name, want string) func(root string) error {
	return func(root string) error {
		h, err := host.Open(root, host.Options{})
		if err != nil {
			return err
		}
		defer h.Close()
		k := facts.New(h).Sysctl().Key(name)
		for _, a := range []*facts.Assignment{k.Systemd, k.Procps} {
			if a == nil || a.Value != want {
				return errors.New(name + " is not set so at boot")
			}
		}
		return nil
	}
}

func TestSysctlLoop(t *testing.T) {
	root := ""
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setup(sysctlHost()), Wishes: sysctlWishes, Engine: func(r string) *plan.Engine {
		root = r
		return sysctlEngine(r)
	}}, both(both(holdsFile(procSys+"net/core/rmem_max", "268435456"), holdsFile(procSys+"net/ipv4/tcp_rmem", "4096\t131072\t67108864")),
		both(both(holdsAtBoot(rmemMax, "268435456"), holdsAtBoot(rpOwn, "2")), holdsFile(procSys+"net/ipv4/conf/eth0.100/rp_filter", "2"))))
	if root == "" || len(p.Changes) != 4 || len(p.Refused) != 0 {
		t.Fatalf("%+v", p)
	}
	c := p.Changes[3]
	want := `# Written by hostcheck, which takes it back with "hostcheck undo".
# hostcheck writes this file as a whole: put your own settings elsewhere.

# wanted by sysctl.keys
net.core.rmem_max = 268435456

# wanted by sysctl.keys
-net.ipv4.conf.eth0/100.rp_filter = 2

# wanted by sysctl.keys
net.ipv4.tcp_rmem = 4096 131072 67108864
`
	if c.Target != dropIn || c.After.Text != want || !c.Persist || c.Tier != plan.Safe {
		t.Errorf("%s:\n%s", c.Target, c.After.Text)
	}
	if d := p.Changes[0].Diff; d != "212992 -> 268435456" || !p.Changes[0].Persist {
		t.Errorf("%+v", p.Changes[0])
	}
}

func TestSysctlCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: setup(with(sysctlHost(), map[string]string{
		// our drop-in of an earlier time, which has to move behind a later file
		dropIn:                          ownDropIn + "net.ipv4.tcp_rmem = 4096 131072 6291456\n",
		"/etc/sysctl.d/99-zzz-net.conf": "net/core/rmem_max=212992\n",
	})), Engine: sysctlEngine, Wishes: sysctlWishes})
	if os.Getenv("HOSTCHECK_CRASH_CHILD") == "" && n < 100 {
		t.Errorf("only %d points tried", n)
	}
}

const ownDropIn = "# Written by hostcheck, which takes it back with \"hostcheck undo\".\n# hostcheck writes this file as a whole: put your own settings elsewhere.\n\n"

// planned gives the plan for some files.
func planned(t *testing.T, files map[string]string, engine func(string) *plan.Engine, wishes ...plan.Wish) plan.Plan {
	t.Helper()
	root := plantest.TempDir(t)
	plantest.Files(t, root, files)
	return plantest.Make(t, engine(root), wishes)
}

func targets(p plan.Plan) (names []string) {
	for _, c := range p.Changes {
		names = append(names, strings.TrimSpace(c.Target+" "+c.Name))
	}
	return names
}

// The drop-in is where it wins in both orders, and there is none where the
// files say it already.
func TestSysctlDropIn(t *testing.T) {
	const key = rmemMax
	set := func(v string) string { return key + " = " + v + "\n" }
	for name, tt := range map[string]struct {
		files   map[string]string
		targets []string
		text    []string // in the last change
	}{
		"nobody sets it":    {map[string]string{"/etc/sysctl.d/99-sysctl.conf": ""}, []string{key, dropIn}, []string{set("7")}},
		"an earlier file":   {nil, []string{key, dropIn}, nil},
		"a later file":      {map[string]string{"/usr/lib/sysctl.d/99-zzz-a.conf": set("1")}, []string{key, "/etc/sysctl.d/99-zzz-a_hostcheck.conf"}, nil},
		"a file set to it":  {map[string]string{"/etc/sysctl.d/99-sysctl.conf": set("7")}, []string{key}, nil},
		"a later exclusion": {map[string]string{"/etc/sysctl.d/99-zzz-a.conf": "-" + key}, []string{key, "/etc/sysctl.d/99-zzz-a_hostcheck.conf"}, nil},
		"our own file": {map[string]string{dropIn: ownDropIn + "# why\nvm.swappiness = 1\n"},
			[]string{key, dropIn}, []string{"# why\nvm.swappiness = 1\n", set("7")}},
		"our own file with it": {map[string]string{dropIn: ownDropIn + set("5")}, []string{key, dropIn}, []string{set("7")}},
		"our own file too early": {map[string]string{dropIn: ownDropIn + "vm.swappiness = 1\n", "/etc/sysctl.d/99-zzz-a.conf": set("1")},
			[]string{key, "/etc/sysctl.d/99-zzz-a_hostcheck.conf", dropIn}, nil},
		"somebody else's of our name": {map[string]string{dropIn: "vm.swappiness = 1\n"}, []string{key, "/etc/sysctl.d/99-sysctl_hostcheck.conf"}, nil},
		"sysctl.conf says the same":   {map[string]string{"/etc/sysctl.conf": set("7")}, []string{key, dropIn}, nil},
		"hidden, for procps alone":    {map[string]string{"/etc/sysctl.d/.a.conf": set("3")}, []string{key, dropIn}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, with(sysctlHost(), tt.files), sysctlEngine, param(key, "7"))
			if got := targets(p); !slices.Equal(got, tt.targets) || len(p.Refused) != 0 {
				t.Fatalf("changes %q, want %q; refused %+v", got, tt.targets, p.Refused)
			}
			for _, s := range tt.text {
				if last := p.Changes[len(p.Changes)-1].After.Text; !strings.Contains(last, s) {
					t.Errorf("%q is not in\n%s", s, last)
				}
			}
		})
	}
}

// One parameter that no drop-in can carry does not keep the others.
func TestSysctlMainFile(t *testing.T) {
	p := planned(t, with(sysctlHost(), map[string]string{"/etc/sysctl.conf": "# mine\nnet.core.rmem_max=1\n"}), sysctlEngine, sysctlWishes...)
	if len(p.Refused) != 1 || p.Refused[0].Name != rmemMax || !strings.Contains(p.Refused[0].Reason, "/etc/sysctl.conf:2") || len(p.Refused[0].Steps) == 0 {
		t.Fatalf("refused %+v", p.Refused)
	}
	if got, want := targets(p), []string{rpOwn, "net.ipv4.tcp_rmem", dropIn}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

func TestSysctlRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"absent":     {nil, param("net.core.nothing", "1"), []string{"/proc/sys/net/core/nothing is not there", "network namespace"}},
		"programs":   {map[string]string{procSys + "kernel/core_pattern": "core\n"}, param("kernel.core_pattern", "|/bin/sh"), []string{"start programs"}},
		"huge pages": {map[string]string{procSys + "vm/nr_hugepages": "0\n"}, param("vm.nr_hugepages", "1"), []string{"kind is hugepages"}},
		"an order":   {nil, param("vm.drop_caches", "3"), []string{"holds no value"}},
		"no name":    {nil, plan.Wish{Setting: plan.Setting{Kind: "sysctl", Name: "net.ipv4.conf.*.rp_filter"}, Want: "1"}, []string{"not the name of a kernel parameter"}},
		"upwards":    {nil, plan.Wish{Setting: plan.Setting{Kind: "sysctl", Name: "net//.//.etc.passwd"}, Want: "1"}, []string{"not the name of a kernel parameter"}},
		"two lines":  {nil, param(rmemMax, "1\nkernel.core_pattern=|x"), []string{"not"}},
		"no value":   {nil, param(rmemMax, ""), []string{"not a value"}},
		"no module": {map[string]string{procSys + "kernel/osrelease": "6.12.1\n", "/proc/modules": "", "/lib/modules/6.12.1/modules.builtin": "", moduleDep: "kernel/x.ko:\n"},
			param("net.ipv4.tcp_congestion_control", "bbr"), []string{"no congestion control bbr", "tcp_bbr"}},
		"TuneD":      {map[string]string{"/etc/tuned/active_profile": "a\n", "/etc/tuned/a/tuned.conf": "[sysctl]\nnet.core.rmem_max=1\n", "/run/systemd/units/invocation:tuned.service": ""}, param(rmemMax, "7"), []string{"TuneD (a)", "/etc/tuned/a/tuned.conf:2", "tuned-adm profile hostcheck"}},
		"unreadable": {map[string]string{"/etc/sysctl.d/60-a.conf": "", "/.hostcheck/capture.json": `{"schema":"hostcheck.capture/v1","errno":{"/etc/sysctl.d/60-a.conf":"EACCES"}}`}, param(rmemMax, "7"), []string{"/etc/sysctl.d/60-a.conf", "not known"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, with(sysctlHost(), tt.files), sysctlEngine, tt.wish, tt.says...) })
	}
}

// In a tree without a kernel only the file is made.
func TestSysctlOffline(t *testing.T) {
	engine := func(root string) *plan.Engine {
		return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Sysctl{}}}
	}
	p := planned(t, map[string]string{"/etc/sysctl.d/10-a.conf": rmemMax + " = 1\n"}, engine, param(rmemMax, "7"))
	if got := targets(p); !slices.Equal(got, []string{dropIn}) || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, "no running kernel") {
		t.Errorf("changes %q, refused %+v", got, p.Refused)
	}
}

// A kernel that refuses, or takes the value and forgets it, gets all put back.
func TestSysctlUnwilling(t *testing.T) {
	for name, tt := range map[string]struct {
		knob func(write func(p, s string) error) func(p, s string) error
		says string
	}{
		"refuses": {func(func(p, s string) error) func(p, s string) error {
			return func(string, string) error { return syscall.EINVAL }
		}, "net/core/rmem_max"},
		"ignores": {func(func(p, s string) error) func(p, s string) error {
			return func(string, string) error { return nil }
		}, "the write was ignored"},
		"clamps": {func(write func(p, s string) error) func(p, s string) error {
			return func(p, s string) error {
				if s == "7" {
					s = "2304"
				}
				return write(p, s)
			}
		}, `but reads "2304"`},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			plantest.Files(t, root, with(sysctlHost(), map[string]string{"/var/lib/": ""}))
			old := plantest.Snapshot(t, root)
			e := sysctlEngine(root)
			e.Machine.Knob = tt.knob(sysctlKnob(root))
			r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{param(rmemMax, "7")}), plan.Options{})
			if err != nil || r.Outcome != plan.Restored || !strings.Contains(r.Cause.Error(), tt.says) {
				t.Errorf("%v %+v", err, r)
			}
			if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
				t.Error(d)
			}
		})
	}
}

// The checks of the area, and others that wish parameters, taken through the
// loop on their own fixtures.
func TestSysctlChecksClosedLoop(t *testing.T) {
	done := map[string]bool{}
	wishing := func(c *check.Check) bool {
		return c.Area() == "sysctl" || c.ID == "rdma.subnets" || c.ID == "system.numa_balancing"
	}
	eachFailing(t, wishing, func(h trialHost) {
		wishes := h.wishes(h.Root)
		if len(wishes) == 0 {
			return
		}
		plantest.Files(h.T, h.Root, map[string]string{
			"/var/lib/": "", "/lib/modules/6.12.107+deb13-amd64/modules.dep": "kernel/net/ipv4/tcp_bbr.ko.xz:\n",
			procSys + "net/ipv4/tcp_available_congestion_control": "reno cubic bbr\n",
		})
		e := &plan.Engine{Root: h.Root, Tool: "test", Verbs: []plan.Verb{modules(h.Root), fixes.Sysctl{}}, Machine: &plan.Machine{Knob: sysctlKnobWith(h.Root, "bbr"), Run: modprobe(h.Root)}}
		old := plantest.Snapshot(h.T, h.Root)
		was := worst(h.findings(h.Root))
		p := plantest.Make(h.T, e, wishes)
		if len(p.Refused) > 0 {
			if h.check.ID != "sysctl.persistence" || !strings.Contains(p.Refused[0].Reason, "/etc/sysctl.conf") {
				h.Fatalf("refused: %+v", p.Refused)
			}
			return
		}
		r, err := e.Apply(h.Context(), p, plan.Options{Verify: func(context.Context) error {
			if now := worst(h.findings(h.Root)); slices.Index(check.Statuses, now) <= slices.Index(check.Statuses, was) {
				return errors.New("it is still " + string(now))
			}
			return nil
		}})
		if err != nil || r.Outcome != plan.Applied {
			h.Fatalf("apply: %v %+v", err, r)
		}
		if again := plantest.Make(h.T, e, h.wishes(h.Root)); len(again.Changes) > 0 {
			h.Errorf("planned again: %+v", again.Changes)
		}
		if u, err := e.Undo(h.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
			h.Fatalf("undo: %v %+v", err, u)
		}
		if d := plantest.Diff(old, plantest.Snapshot(h.T, h.Root)); d != "" {
			h.Errorf("undo does not give back the tree:\n%s", d)
		}
		done[h.check.ID] = true
	})
	for _, id := range []string{
		"sysctl.socket_buffers", "sysctl.backlog", "sysctl.somaxconn", "sysctl.tcp_defaults", "sysctl.congestion", "sysctl.keys", "sysctl.rp_filter", "sysctl.persistence",
		"rdma.subnets", "system.numa_balancing",
	} {
		if !done[id] {
			t.Errorf("%s was not taken through its loop", id)
		}
	}
}

// What every check of the area wants together can be planned at once.
func TestSysctlWishesAgree(t *testing.T) {
	all := map[string][]plan.Wish{}
	eachFailing(t, func(c *check.Check) bool { return c.Area() == "sysctl" }, func(h trialHost) {
		for _, c := range sysctlChecks() {
			other := h
			other.check = c
			all[h.path] = append(all[h.path], other.wishes(h.Root)...)
		}
		if _, err := plan.Unite(all[h.path]); err != nil {
			h.Error(err)
		}
	})
	if len(all) < 10 {
		t.Errorf("only %d fixtures", len(all))
	}
}
