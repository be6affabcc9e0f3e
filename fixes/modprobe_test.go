// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

func sysctlChecks() []*check.Check {
	return slices.DeleteFunc(checks.All(), func(c *check.Check) bool { return c.Area() != "sysctl" })
}

const moduleDep = "/lib/modules/6.12.1/modules.dep"

func moduleHost() map[string]string {
	return map[string]string{
		procSys + "kernel/osrelease":          "6.12.1\n",
		"/proc/modules":                       "ib_core 1 0 - Live 0x0\n",
		"/sys/module/ib_core/initstate":       "live\n",
		"/sys/module/ib_core/refcnt":          "0\n",
		"/lib/modules/6.12.1/modules.builtin": "kernel/net/ipv4/tcp_cubic.ko\n",
		"/etc/modprobe.d/mine.conf":           "options ib_core netns_mode=0\n",
		moduleDep: "kernel/net/ipv4/tcp_bbr.ko.xz:\n" +
			"kernel/drivers/infiniband/core/ib_core.ko.xz:\n" +
			"kernel/drivers/infiniband/core/rdma_cm.ko.xz: kernel/drivers/infiniband/core/iw_cm.ko.xz kernel/drivers/infiniband/core/ib_core.ko.xz\n" +
			"kernel/drivers/infiniband/core/iw_cm.ko.xz: kernel/drivers/infiniband/core/ib_core.ko.xz\n" +
			"kernel/drivers/infiniband/core/rdma_ucm.ko.xz: kernel/drivers/infiniband/core/rdma_cm.ko.xz kernel/drivers/infiniband/core/iw_cm.ko.xz kernel/drivers/infiniband/core/ib_core.ko.xz\n",
	}
}

// modprobe plays the program: it loads one module.
func modprobe(root string) func(context.Context, []string) ([]byte, error) {
	return func(_ context.Context, argv []string) ([]byte, error) {
		if len(argv) != 4 || argv[0] != "modprobe" || argv[1] != "-q" || argv[2] != "--" {
			return nil, fmt.Errorf("unexpected command %q", argv)
		}
		dir := filepath.Join(root, "/sys/module/"+argv[3])
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "refcnt"), []byte("0\n"), 0o644); err != nil {
			return nil, err
		}
		return nil, os.WriteFile(filepath.Join(dir, "initstate"), []byte("live\n"), 0o644)
	}
}

// modules is the verb over a tree whose modules can be unloaded when nothing
// uses them.
func modules(root string) fixes.Modprobe {
	return fixes.Modprobe{Unload: func(module string) error {
		dir := filepath.Join(root, "/sys/module/"+module)
		if b, err := os.ReadFile(filepath.Join(dir, "refcnt")); err != nil || string(b) != "0\n" {
			return syscall.EWOULDBLOCK
		}
		return os.RemoveAll(dir)
	}}
}

func moduleEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{modules(root)}, Machine: &plan.Machine{Knob: plantest.Knob(root), Run: modprobe(root)}}
}

func moduleLoad(name string) plan.Wish {
	return plan.Wish{Setting: fixes.ModuleSetting(name), Want: fixes.Loaded, Tier: plan.Safe, Check: "driver.modules"}
}

// The module is loaded with what it needs, each for itself, and at each boot.
func TestModprobeLoop(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setup(moduleHost()), Engine: moduleEngine, Wishes: []plan.Wish{moduleLoad("rdma-ucm")}},
		both(holdsFile("/sys/module/rdma_ucm/initstate", "live"), holdsFile("/etc/modules-load.d/hostcheck-rdma_ucm.conf",
			"# Written by hostcheck, which takes it back with \"hostcheck undo\".\nrdma_ucm")))
	want := []string{"iw_cm", "rdma_cm", "rdma_ucm", "/etc/modules-load.d/hostcheck-rdma_ucm.conf"}
	if got := targets(p); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

func TestModprobeCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: setup(moduleHost()), Engine: moduleEngine, Wishes: []plan.Wish{
		moduleLoad("rdma_ucm"), {Setting: fixes.ModuleParameter("mlx4_core", "log_num_mgm_entry_size"), Want: "-1", Tier: plan.Safe, Check: "vxlan.offload"},
	}})
	if os.Getenv("HOSTCHECK_CRASH_CHILD") == "" && n < 100 {
		t.Errorf("only %d points tried", n)
	}
}

// A module that something uses by now stays, and undo says so and is done.
func TestModprobeInUse(t *testing.T) {
	root := plantest.TempDir(t)
	plantest.Files(t, root, with(moduleHost(), map[string]string{"/var/lib/": ""}))
	e := moduleEngine(root)
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{moduleLoad("tcp_bbr")}), plan.Options{})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	plantest.Files(t, root, map[string]string{"/sys/module/tcp_bbr/refcnt": "3\n"})
	r, err = e.Undo(t.Context(), "", plan.Options{})
	if err != nil || r.Outcome != plan.Undone || len(r.Left) != 0 || len(r.Stays) != 1 || !strings.Contains(r.Stays[0], "tcp_bbr is in use (3)") {
		t.Fatalf("%v %+v", err, r)
	}
	if _, err := os.Stat(filepath.Join(root, "/etc/modules-load.d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file for the boot is still there: %v", err)
	}
	if _, err := e.Undo(t.Context(), "", plan.Options{}); !errors.Is(err, plan.ErrNothing) {
		t.Errorf("undo again: %v", err)
	}
}

func TestModprobePlans(t *testing.T) {
	for name, tt := range map[string]struct {
		files   map[string]string
		wish    plan.Wish
		targets []string
		text    string
		tier    plan.Tier
	}{
		"built in":            {nil, moduleLoad("tcp_cubic"), nil, "", ""},
		"loaded, not at boot": {nil, moduleLoad("ib_core"), []string{"/etc/modules-load.d/hostcheck-ib_core.conf"}, "ib_core\n", plan.Safe},
		"somebody loads it": {map[string]string{"/usr/lib/modules-load.d/net.conf": "tcp-bbr\n"}, moduleLoad("tcp_bbr"),
			[]string{"tcp_bbr"}, "loaded", plan.Safe},
		"a parameter of a loaded module": {nil, plan.Wish{Setting: fixes.ModuleParameter("ib_core", "netns_mode"), Want: "1", Tier: plan.Safe},
			[]string{"/etc/modprobe.d/hostcheck-ib_core.conf"}, "options ib_core netns_mode=1\n", plan.Boot},
		"beside another parameter of ours": {
			map[string]string{"/etc/modprobe.d/hostcheck-mlx4_core.conf": "# Written by hostcheck, which takes it back with \"hostcheck undo\".\noptions mlx4_core a=1 b=2\n"},
			plan.Wish{Setting: fixes.ModuleParameter("mlx4_core", "b"), Want: "3", Tier: plan.Safe},
			[]string{"/etc/modprobe.d/hostcheck-mlx4_core.conf"}, "options mlx4_core a=1\noptions mlx4_core b=3\n", plan.Safe,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, with(moduleHost(), tt.files), moduleEngine, tt.wish)
			if got := targets(p); !slices.Equal(got, tt.targets) || len(p.Refused) != 0 {
				t.Fatalf("changes %q, want %q; refused %+v", got, tt.targets, p.Refused)
			}
			if n := len(p.Changes); n > 0 && (!strings.HasSuffix(p.Changes[n-1].After.Text, tt.text) || p.Changes[n-1].Tier != tt.tier) {
				t.Errorf("%+v", p.Changes[n-1])
			}
			for _, c := range p.Changes {
				if strings.HasPrefix(c.Target, "/etc/modprobe.d/") && !strings.Contains(c.Disturbs, "initramfs") {
					t.Errorf("%s does not speak of the initramfs: %q", c.Target, c.Disturbs)
				}
			}
		})
	}
}

func TestModprobeRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"forbidden":           {map[string]string{"/etc/modprobe.d/no.conf": "# x\ninstall tcp-bbr \\\n  /bin/false\n"}, moduleLoad("tcp_bbr"), []string{"/etc/modprobe.d/no.conf:2", "/bin/false"}},
		"blacklisted":         {map[string]string{"/usr/lib/modprobe.d/no.conf": "blacklist tcp_bbr\n"}, moduleLoad("tcp_bbr"), []string{"/usr/lib/modprobe.d/no.conf:1"}},
		"not of this kernel":  {nil, moduleLoad("nothing"), []string{"this kernel has no module nothing", moduleDep}},
		"unload":              {nil, plan.Wish{Setting: fixes.ModuleSetting("ib_core"), Want: "absent"}, []string{"only what it loaded"}},
		"no name":             {nil, plan.Wish{Setting: plan.Setting{Kind: "modprobe", Name: "-r x"}, Want: fixes.Loaded}, []string{"not the name of a kernel module"}},
		"a parameter's value": {nil, plan.Wish{Setting: fixes.ModuleParameter("ib_core", "x"), Want: "1 install=/bin/sh"}, []string{"one word"}},
		"a built-in parameter": {nil, plan.Wish{Setting: fixes.ModuleParameter("tcp_cubic", "beta"), Want: "1"},
			[]string{"built into the kernel", "tcp_cubic.beta=1"}},
		"somebody else's file": {map[string]string{"/etc/modprobe.d/hostcheck-ib_core.conf": "options ib_core netns_mode=0\n"},
			plan.Wish{Setting: fixes.ModuleParameter("ib_core", "netns_mode"), Want: "1"}, []string{"not of hostcheck's making"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, with(moduleHost(), tt.files), moduleEngine, tt.wish, tt.says...) })
	}
}
