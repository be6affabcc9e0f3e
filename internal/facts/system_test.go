// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSystemFrequency(t *testing.T) {
	policy := func(dir, driver, governor, epp, cpus string) string {
		s := "-- sys/devices/system/cpu/" + dir + "/scaling_driver --\n" + driver + "\n-- sys/devices/system/cpu/" + dir + "/scaling_governor --\n" + governor +
			"\n-- sys/devices/system/cpu/" + dir + "/affected_cpus --\n" + cpus + "\n"
		if epp != "" {
			s += "-- sys/devices/system/cpu/" + dir + "/energy_performance_preference --\n" + epp + "\n"
		}
		return s
	}
	const cpu = "/sys/devices/system/cpu/"
	for name, tt := range map[string]struct {
		tree string
		want []CPUFreq
	}{
		"policies": {
			policy("cpufreq/policy0", "intel_pstate", "powersave", "power", "0 1") + policy("cpufreq/policy10", "intel_pstate", "powersave", "power", "10") +
				policy("cpufreq/policy2", "intel_pstate", "performance", "performance", "2") + policy("cpufreq/policy3", "intel_pstate", "powersave", "", ""),
			[]CPUFreq{
				{"intel_pstate", "powersave", new("power"), "0-1,10", cpu + "cpufreq/policy0"},
				{"intel_pstate", "performance", new("performance"), "2", cpu + "cpufreq/policy2"},
			},
		},
		"old kernel": {policy("cpu1/cpufreq", "acpi-cpufreq", "ondemand", "", "1"), []CPUFreq{{"acpi-cpufreq", "ondemand", nil, "1", cpu + "cpu1/cpufreq"}}},
		"guest":      {"-- sys/devices/system/cpu/cpufreq [dir] --\n", []CPUFreq{}},
		"broken":     {policy("cpufreq/policy0", "x", "y", "", "zero"), nil},
	} {
		s := treeOf(t, tt.tree).System()
		if d := cmp.Diff(tt.want, s.Frequency); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
		if (s.Frequency == nil) != (s.Unknown["frequency"] != "") {
			t.Errorf("%s: %v with the reason %q", name, s.Frequency, s.Unknown["frequency"])
		}
	}
}

func TestSystemLog(t *testing.T) {
	s := treeOf(t, `-- etc/hostname --
x
-- proc/version --
Linux version 6.12
-- query: klog --
["Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP", "tsc: Marking TSC unstable due to check_tsc_sync_source failed"]
`).System()
	if show(s.Confidential) != "sev-snp" || !strings.Contains(text(s.UnstableTSC), "Marking TSC") || show(s.BounceFull) != "" {
		t.Errorf("confidential %v, tsc %v, bounce %v", show(s.Confidential), show(s.UnstableTSC), show(s.BounceFull))
	}
	s = treeOf(t, "-- etc/hostname --\nx\n-- run/systemd/container --\npodman\n-- query: klog [errno EPERM] --\n").System()
	if s.BounceFull != nil || s.Confidential != nil || s.Unknown["bounce_full"] == "" || show(s.Container) != "podman" {
		t.Errorf("without the log: %+v", s)
	}
}

func TestEncryption(t *testing.T) {
	for line, want := range map[string]string{
		"": "",
		"Memory Encryption Features active: AMD SME":        "",
		"Memory Encryption Features active: AMD SEV":        "sev",
		"Memory Encryption Features active: Intel TDX":      "tdx",
		"Memory Encryption Features active: AMD SEV SEV-ES": "sev-es",
	} {
		if got := encryption(line); got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

func FuzzEncryption(f *testing.F) {
	f.Add("Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP")
	f.Fuzz(func(t *testing.T, line string) {
		if got := encryption(line); got != "" && !strings.Contains(line, "active:") {
			t.Errorf("%q is %q", line, got)
		}
	})
}
