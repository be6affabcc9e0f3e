// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const procModules = `nvidia 11591680 1 nvidia_uvm, Live 0x0000000000000000 (POE)
mlx5_core 2879488 1 mlx5_ib, Live 0x0000000000000000
nvme-core 1 0 - Loading 0x0000000000000000 (+)
i2c_dev 1 0 - Live 0x0000000000000000
short line
`

func TestModules(t *testing.T) {
	const release = "-- proc/sys/kernel/osrelease --\n6.1-x\n"
	f := treeOf(t, "whole: /sys /proc\n"+release+"-- proc/modules --\n"+procModules+
		"-- usr/lib/modules/6.1-x/modules.builtin --\nkernel/net/ipv6/ipv6.ko\nkernel/drivers/x-y.ko\n\nkernel/broken\n-- lib -> usr/lib --\n"+
		"-- sys/module/nvidia/version --\n570.1\n-- sys/module/i2c_dev/version --\n1\n")
	m := f.Modules()
	s := func(v string) *string { return &v }
	want := &Modules{
		Loaded: []Module{
			{Name: "i2c_dev", State: "Live", Taint: s("")}, // no network driver: its version is not read
			{Name: "mlx5_core", State: "Live", Version: s(""), Taint: s("")},
			{Name: "nvidia", State: "Live", Version: s("570.1"), Taint: s("POE")},
			{Name: "nvme_core", State: "Loading", Taint: s("")},
		},
		BuiltIn: []string{"ipv6", "x_y"},
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{"nvme-core": "Loading", "x-y": "built-in", "absent": ""} {
		mod, known := m.Find(name)
		got := ""
		if mod != nil {
			got = mod.State
		}
		if got != want || !known {
			t.Errorf("%s is %q (known: %t), want %q", name, got, known, want)
		}
	}
}

func TestModulesUnknown(t *testing.T) {
	const release = "-- proc/sys/kernel/osrelease --\n6.1-x\n"
	for _, row := range []struct {
		name, tree         string
		loaded, built      bool
		reason, notBuiltIn string
	}{
		{"unreadable", "whole: /sys /proc\n" + release + "-- proc/modules [errno EACCES] --\n", false, false, "permission denied", "no such file"},
		{"not captured", release, false, false, "may not have captured it", "no such file"},
		{"no release", "-- proc/modules --\n", true, false, "", "the kernel release is not known"},
		{"a kernel without modules", "whole: /sys /proc\n" + release + "-- lib/modules/6.1-x/modules.builtin --\n\n", true, true, "", ""},
	} {
		m := treeOf(t, row.tree).Modules()
		if (m.Loaded != nil) != row.loaded || (m.BuiltIn != nil) != row.built {
			t.Errorf("%s: loaded %v, built in %v", row.name, m.Loaded, m.BuiltIn)
		}
		if !strings.Contains(m.Unknown["loaded"], row.reason) || !strings.Contains(m.Unknown["built_in"], row.notBuiltIn) {
			t.Errorf("%s: unknown %v", row.name, m.Unknown)
		}
		if mod, known := m.Find("mlx5_core"); mod != nil || known != (row.loaded && row.built) {
			t.Errorf("%s: mlx5_core is %v (known: %t)", row.name, mod, known)
		}
	}
}

func TestModuleVersionUnreadable(t *testing.T) {
	m := treeOf(t, "whole: /sys /proc\n-- proc/modules --\n"+procModules+"-- sys/module/mlx5_core/version [errno EIO] --\n").Modules()
	mod, _ := m.Find("mlx5_core")
	if mod.Version != nil || !strings.Contains(mod.Unknown["version"], "input/output error") {
		t.Errorf("version %v, unknown %v", show(mod.Version), mod.Unknown)
	}
	// in a tree that is not whole a missing version may just not have been captured
	m = treeOf(t, "-- proc/modules --\n"+procModules).Modules()
	if mod, _ = m.Find("mlx5_core"); mod.Version != nil || mod.Unknown["version"] == "" {
		t.Errorf("version %v, unknown %v", show(mod.Version), mod.Unknown)
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add(procModules)
	f.Fuzz(func(t *testing.T, text string) {
		mods := parseModules(text)
		for _, m := range mods {
			if m.Name == "" || m.State == "" || m.Taint == nil || strings.Contains(m.Name, "-") {
				t.Errorf("%q gives %+v", text, m)
			}
		}
		if !slices.IsSortedFunc(mods, func(a, b Module) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%q: not sorted", text)
		}
	})
}

func FuzzParseBuiltIn(f *testing.F) {
	f.Add("kernel/net/ipv6/ipv6.ko\n")
	f.Fuzz(func(t *testing.T, text string) {
		names := parseBuiltIn(text)
		for _, n := range names {
			if n == "" || strings.ContainsAny(n, "/\n-") {
				t.Errorf("%q gives %q", text, n)
			}
		}
		if !slices.IsSorted(names) {
			t.Errorf("%q: not sorted", text)
		}
	})
}

func FuzzParseModulesDep(f *testing.F) {
	f.Add("kernel/net/ipv4/tcp_bbr.ko.xz: kernel/a/b-c.ko\nkernel/a/b-c.ko:\n\nx\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, n := range parseModulesDep(text) {
			if n == "" || strings.ContainsAny(n, "/-\n") {
				t.Errorf("%q", n)
			}
		}
	})
}

func TestModuleFile(t *testing.T) {
	f := treeOf(t, `whole: /sys /proc
-- proc/sys/kernel/osrelease --
6.12.1
-- usr/lib/modules/6.12.1/modules.dep --
kernel/net/ipv4/tcp_bbr.ko.xz:
kernel/net/sched/act-x.ko: kernel/lib/y.ko
`)
	for name, want := range map[string]bool{"tcp_bbr": true, "act_x": true, "act-x": true, "y": false, "tcp_vegas": false} {
		if got, why := f.ModuleFile(name); got != want || why != "" {
			t.Errorf("%s: %v, %q", name, got, why)
		}
	}
	if _, why := treeOf(t, "whole: /sys /proc\n-- proc/sys/kernel/osrelease --\n6.12.1\n").ModuleFile("x"); why == "" {
		t.Error("a tree without modules.dep is sure")
	}
}
