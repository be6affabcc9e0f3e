// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

func settingsText(lines ...string) string {
	return "schema: hostcheck.settings/v1\nsettings:\n" + strings.Join(lines, "\n") + "\n"
}

const ringLine = `  - {kind: ethtool, target: "0000:18:00.0", name: rings rx, value: "4096"}`

func TestParseSettings(t *testing.T) {
	for text, want := range map[string]string{
		settingsText(ringLine): "",
		settingsText(`  - {kind: hugepages, target: node0, name: 2048kB, value: "512", why: "a reason"}`):                           "",
		settingsText(`  - {kind: sysfs, name: "/sys/kernel/mm/transparent_hugepage/enabled", value: "madvise"}`):                    "",
		settingsText(`  - {kind: sysfs, target: "0000:18:00.0", name: "/sys/class/infiniband/@/tc/1/traffic_class", value: "106"}`): "",
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np_cnp_dscp, value: "48"}`):                                   "",
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: rp 3, value: "on"}`):                                          "",
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: dcbx, value: host}`, `  - {kind: dcb, target: "0000:18:00.0", name: trust, value: dscp}`,
			`  - {kind: dcb, target: "0000:18:00.0", name: app dscp, value: "0-25:0 26:3"}`, `  - {kind: dcb, target: "0000:18:00.0", name: pfc, value: "3,5"}`): "",
		"schema: hostcheck.settings/v1\n":      "",
		"":                                     "it is empty",
		"schema: hostcheck.settings/v2\n":      `its schema is "hostcheck.settings/v2"`,
		settingsText(ringLine) + "more: 1\n":   `unknown field "more"`,
		settingsText(ringLine) + "---\nx: 1\n": "something follows",
		settingsText(ringLine, ringLine):       "is there twice",
		settingsText(`  - {kind: ethtool, target: ens1np0, name: rings rx, value: "4096"}`):                                            "not a PCI address",
		settingsText(`  - {kind: ethtool, target: "0000:18:00.0 ens1np0", name: rings rx, value: "4096"}`):                             "not a PCI address",
		settingsText(`  - {kind: ethtool, target: "0000:18:00.0", name: mac address, value: "1"}`):                                     "not a setting of ethtool",
		settingsText(`  - {kind: ethtool, target: "0000:18:00.0", name: rings rx}`):                                                    "has no value",
		settingsText(`  - {kind: hugepages, target: nod0, name: 2048kB, value: "512"}`):                                                "is not a pool",
		settingsText(`  - {kind: sysfs, name: "/sys/power/state", value: "mem"}`):                                                      "not one of the files that hostcheck writes",
		settingsText(`  - {kind: sysfs, name: "/sys/class/infiniband/mlx5_0/tc/1/traffic_class", value: "48"}`):                        "may have another name after a reboot",
		settingsText(`  - {kind: sysfs, target: "0000:18:00.0", name: "/sys/class/infiniband/@/tc/1/traffic_class", value: "300"}`):    "beyond 0 to 255",
		settingsText(`  - {kind: sysfs, target: "0000:18:00.0", name: "/sys/class/net/@/ecn/roce_np/cnp_dscp", value: "48"}`):          "not one of the files that hostcheck writes",
		settingsText(`  - {kind: hugepages, target: node0, name: 2048kB, value: many}`):                                                `"many" is not a number`,
		settingsText(`  - {kind: ethtool, target: "0000:18:00.0", name: feature rx-gro, value: "1"}`):                                  "feature rx-gro is on or off",
		settingsText(`  - {kind: ethtool, target: "0000:18:00.0", name: rings rx, value: "big"}`):                                      `"big" is not a number`,
		settingsText(`  - {kind: dcqcn, target: ens1np0, name: np_cnp_dscp, value: "48"}`):                                             "not a PCI address",
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np_cnp_dscp, value: "64"}`):                                      "64 is beyond",
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np_secret, value: "1"}`):                                         `no setting "np_secret"`,
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np_/../../x, value: "1"}`):                                       "no setting",
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np 8, value: "on"}`):                                             `no setting "np 8"`,
		settingsText(`  - {kind: dcqcn, target: "0000:18:00.0", name: np 3, value: "1"}`):                                              "np 3 is on or off",
		settingsText(`  - {kind: dcb, target: veth0, name: pfc, value: "3"}`):                                                          "not a PCI address",
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: pfc, value: "8"}`):                                                 "not a list of priorities",
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: dcbx, value: firmware}`):                                           `has no "dcbx" that can be "firmware"`,
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: trust, value: both}`):                                              `has no "trust" that can be "both"`,
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: app dscp, value: "64:3"}`):                                         "a DSCP is 0 to 63",
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: app dscp, value: "26:8"}`):                                         "a priority 0 to 7",
		settingsText(`  - {kind: dcb, target: "0000:18:00.0", name: dscp-prio 26, value: "3"}`):                                        `has no "dscp-prio 26"`,
		settingsText(`  - {kind: sriov, target: "0000:18:00.0", name: numvfs, value: "8"}`):                                            `settings of kind "sriov" are not set at boot`,
		settingsText(`  - {kind: sysfs, target: "0000:18:00.0", name: "/sys/kernel/mm/transparent_hugepage/enabled", value: "never"}`): "the target",
		settingsText(`  - {kind: sysfs, target: "0000:18:00.0", name: "/sys/kernel/mm/@/transparent_hugepage", value: "never"}`):       `"@" stands for the device`,
		settingsText(`  - {kind: file, target: "/etc/passwd", value: "x"}`):                                                            `settings of kind "file" are not set at boot`,
		settingsText(`  - {kind: sysctl, name: "kernel.core_pattern", value: "x"}`):                                                    "are not set at boot",
		settingsText(`  - {kind: hugepages, target: node0, name: 2048kB, value: "512", why: "` + strings.Repeat("x", 500) + `"}`):      "not a short text of one line",
		settingsText(`  - &a {kind: hugepages, target: node0, name: 2048kB, value: 1}`, "  - *a"):                                      "an anchor or an alias",
		"schema: [\n": "not valid",
		settingsText(ringLine) + strings.Repeat("# x\n", 70000): "larger than 262144 bytes",
	} {
		_, err := fixes.ParseSettings([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.200q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(settingsText(ringLine)))
	f.Add([]byte(settingsText("  - &a {kind: x}", "  - *a")))
	f.Add([]byte("schema: [\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := fixes.ParseSettings(text)
		if err != nil || len(all) == 0 {
			return
		}
		// what was understood is written so that it is understood alike
		again, err := fixes.ParseSettings([]byte(fixes.RenderSettings(all).Text))
		if err != nil || len(again) != len(all) {
			t.Fatalf("%v\n%s", err, fixes.RenderSettings(all))
		}
		for i := range all {
			if all[i] != again[i] {
				t.Errorf("%+v became %+v", all[i], again[i])
			}
		}
	})
}

// A file that others could have written, or that is not right, is named and
// nothing of it counts; the last of those that say the same does.
func TestReadSettings(t *testing.T) {
	root := plantest.TempDir(t)
	plantest.Files(t, root, map[string]string{
		"/proc/cmdline":                     "quiet\n",
		fixes.SettingsDir + "/10-a.yaml":    settingsText(ringLine, `  - {kind: hugepages, target: node0, name: 2048kB, value: "1"}`),
		fixes.SettingsDir + "/20-b.yaml":    settingsText(`  - {kind: hugepages, target: node0, name: 2048kB, value: "2"}`),
		fixes.SettingsDir + "/30-open.yaml": settingsText(`  - {kind: hugepages, target: node0, name: 2048kB, value: "3"}`),
		fixes.SettingsDir + "/40-bad.yaml":  "x",
		fixes.SettingsDir + "/notes.txt":    "x",
	})
	open := filepath.Join(root, fixes.SettingsDir, "30-open.yaml")
	if err := os.Chmod(open, 0o664); err != nil {
		t.Fatal(err)
	}
	read := func() fixes.Settings {
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		return fixes.ReadSettings(h)
	}
	s := read()
	if len(s.All) != 2 || s.All[1].Kind != "ethtool" || s.All[0].Value != "2" || s.All[0].File != fixes.SettingsDir+"/20-b.yaml" {
		t.Errorf("%+v", s.All)
	}
	if len(s.Ignored) != 2 || !strings.Contains(s.Ignored[0].Why, "may write to "+fixes.SettingsDir+"/30-open.yaml") || s.Ignored[1].File != fixes.SettingsDir+"/40-bad.yaml" {
		t.Errorf("%+v", s.Ignored)
	}
	if err := os.Chmod(filepath.Join(root, "/etc/hostcheck"), 0o777); err != nil {
		t.Fatal(err)
	}
	if s = read(); s.All != nil || len(s.Ignored) != 1 || s.Ignored[0].File != fixes.SettingsDir {
		t.Errorf("%+v", s)
	}
	if err := os.RemoveAll(filepath.Join(root, "/etc/hostcheck")); err != nil {
		t.Fatal(err)
	}
	if s = read(); s.All != nil || s.Ignored != nil {
		t.Errorf("%+v", s)
	}
}

func TestSettingsOff(t *testing.T) {
	for cmdline, want := range map[string]bool{
		"quiet": false, "hostcheck.settings=off quiet": true, "hostcheck.settings=off hostcheck.settings=on": false, "xhostcheck.settings=off": false,
	} {
		root := plantest.TempDir(t)
		plantest.Files(t, root, map[string]string{"/proc/cmdline": cmdline + "\n"})
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fixes.SettingsOff(h); err != nil || got != want {
			t.Errorf("%s: %v, %v", cmdline, got, err)
		}
		h.Close()
	}
}

// completing is an engine whose plans are completed, over a NIC and systemd.
func completing(root string) *plan.Engine {
	e := nicEngine(root)
	e.Self = "/root/hostcheck"
	e.Verbs = append(e.Verbs, fixes.DCQCN{}, fixes.Unit{}, fixes.Deadline{})
	e.Verbs = slices.Insert(e.Verbs, 0, plan.Verb(fixes.Sysfs{}))
	e.Machine = &plan.Machine{Knob: sysfsKnob(root), Run: plantest.Systemctl(root, nil)}
	return e
}

func completeHost() map[string]string {
	files := with(nicHost("mlx5_core", 1500), map[string]string{
		"/root/hostcheck": "the program\n", "/usr/local/sbin/": "", "/run/systemd/system/": "", "/etc/systemd/system/": "", "/run/lab/": "",
		"/proc/cmdline": "quiet\n", "/sys/bus/pci/devices/0000:18:00.0/vendor": "0x15b3\n",
		"/sys/class/net/ens1np0/device":            "-> ../../../bus/pci/devices/0000:18:00.0",
		"/sys/bus/pci/devices/0000:18:00.0/driver": "-> ../../drivers/mlx5_core",
		ecnDir + "roce_np/cnp_dscp":                "0\n",
		tclass:                                     "Global tclass=26\n", "/sys/class/infiniband/mlx5_0/device": "-> ../../../bus/pci/devices/0000:18:00.0", "/sys/bus/pci/devices/0000:18:00.0/infiniband/mlx5_0/": "",
		"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
		"/proc/sys/kernel/random/boot_id":             "boot-1\n",
	})
	delete(files, "/sys/class/net/ens1np0/device/driver") // the device is a link here
	return files
}

func completed(wishes ...plan.Wish) func(testing.TB, *plan.Engine) plan.Plan {
	return func(tb testing.TB, e *plan.Engine) plan.Plan {
		tb.Helper()
		p := plantest.Make(tb, e, wishes)
		h, err := host.Open(e.Root, host.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		defer h.Close()
		if p, err = fixes.Complete(context.Background(), e, h, p, func() []string { return nil }); err != nil {
			tb.Fatal(err)
		}
		return p
	}
}
