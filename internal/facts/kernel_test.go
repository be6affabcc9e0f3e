// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/host"
)

// kernelRow is one tree and what its kernel facts are; "<nil>" is unknown.
type kernelRow struct {
	name, tree string
	want       map[string]any
}

func (k *Kernel) fields() map[string]any {
	return map[string]any{
		"release": show(k.Release), "arch": show(k.Arch), "page_size": show(k.PageSize), "lockdown": show(k.Lockdown),
		"taint": show(k.Taint), "cpu_vendor": show(k.Vendor), "hypervisor": show(k.Hypervisor),
	}
}

const x86CPU = "-- proc/cpuinfo --\nprocessor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu lm pdpe1gb %s\n\nprocessor\t: 1\nvendor_id\t: Nonsense\n"

func TestKernel(t *testing.T) {
	guest, metal := strings.Replace(x86CPU, "%s", "hypervisor", 1), strings.Replace(x86CPU, "%s", "vmx", 1)
	dmi := func(vendor, product string) string {
		return "-- sys/class/dmi/id/sys_vendor --\n" + vendor + "\n-- sys/class/dmi/id/product_name --\n" + product + "\n"
	}
	armCPU := "-- proc/cpuinfo --\nprocessor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x4e\nCPU architecture: 8\n"
	rows := []kernelRow{
		{"modern", "whole: /sys /proc\n-- proc/sys/kernel/osrelease --\n6.12.1-amd64\n-- proc/sys/kernel/arch --\nx86_64\n-- proc/sys/kernel/tainted --\n4097\n" +
			"-- sys/kernel/security/lockdown --\nnone [integrity] confidentiality\n" + metal + dmi("Dell Inc.", "PowerEdge"),
			map[string]any{"release": "6.12.1-amd64", "arch": "amd64", "page_size": 4096, "lockdown": "integrity", "taint": int64(4097), "cpu_vendor": "GenuineIntel", "hypervisor": ""}},
		{"banner instead of osrelease", "-- proc/version --\nLinux version 4.14.0-49.el7a.ppc64le (root@x) (gcc) #1 SMP\n",
			map[string]any{"release": "4.14.0-49.el7a.ppc64le", "arch": "ppc64le"}},
		{"recorded uname", "-- query: uname --\n{\"release\": \"5.10.0\", \"machine\": \"aarch64\"}\n-- query: pagesize --\n65536\n-- proc/version [errno EACCES] --\n",
			map[string]any{"release": "5.10.0", "arch": "arm64", "page_size": 65536}},
		{"a release that is a path", "-- proc/sys/kernel/osrelease --\n../../etc/passwd\n", map[string]any{"release": "<nil>"}},
		{"unreadable", "-- proc/sys/kernel/osrelease [errno EACCES] --\n-- proc/sys/kernel/tainted [errno EACCES] --\n-- proc/cpuinfo [errno EACCES] --\n" +
			"-- sys/kernel/security/lockdown [errno EPERM] --\n-- sys/class/dmi/id/sys_vendor [errno EACCES] --\n",
			map[string]any{"release": "<nil>", "arch": "<nil>", "page_size": "<nil>", "lockdown": "<nil>", "taint": "<nil>", "cpu_vendor": "<nil>", "hypervisor": "<nil>"}},
		{"no lockdown built in", "-- proc/sys/kernel/osrelease --\n6.1\n-- boot/config-6.1 --\nCONFIG_X86_64=y\n# CONFIG_SECURITY_LOCKDOWN_LSM is not set\n",
			map[string]any{"lockdown": "none", "arch": "amd64", "page_size": 4096}},
		{"lockdown built in, securityfs not mounted", "whole: /sys /proc\n-- proc/sys/kernel/osrelease --\n6.1\n-- boot/config-6.1 --\nCONFIG_SECURITY_LOCKDOWN_LSM=y\n",
			map[string]any{"lockdown": "<nil>"}},
		{"KVM guest by name", guest + dmi("QEMU", "Standard PC (Q35 + ICH9, 2009)"), map[string]any{"hypervisor": "kvm"}},
		{"Azure", guest + dmi("Microsoft Corporation", "Virtual Machine"), map[string]any{"hypervisor": "hyperv"}},
		{"guest without DMI", guest, map[string]any{"hypervisor": "unnamed", "arch": "amd64"}},
		{"cloud guest", guest + dmi("Amazon EC2", "m7i.large"), map[string]any{"hypervisor": "kvm"}},
		{"cloud metal", metal + dmi("Amazon EC2", "m7i.metal-24xl"), map[string]any{"hypervisor": ""}},
		{"cloud metal that DMI does not name", metal + dmi("Google", "Google Compute Engine"), map[string]any{"hypervisor": ""}},
		{"guest that hides the flag", metal + dmi("QEMU", "Standard PC (i440FX + PIIX, 1996)"), map[string]any{"hypervisor": "kvm"}},
		{"Xen", guest + "-- sys/hypervisor/type --\nxen\n", map[string]any{"hypervisor": "xen"}},
		{"arm server", armCPU + dmi("NVIDIA", "Grace"), map[string]any{"arch": "arm64", "cpu_vendor": "NVIDIA", "hypervisor": "", "page_size": "<nil>"}},
		{"arm guest", armCPU + dmi("QEMU", "KVM Virtual Machine"), map[string]any{"hypervisor": "kvm"}},
		{"arm without DMI", armCPU, map[string]any{"hypervisor": "<nil>"}},
		{"POWER", "-- proc/cpuinfo --\nprocessor\t: 0\ncpu\t\t: POWER9, altivec supported\n\ntimebase\t: 1\nplatform\t: PowerNV\nmodel\t\t: x\n",
			map[string]any{"cpu_vendor": "IBM", "hypervisor": "", "arch": "<nil>"}},
		{"unknown machine", "-- proc/sys/kernel/arch --\nalpha\n", map[string]any{"arch": "alpha"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			tree := row.tree
			if !strings.Contains(tree, "-- etc/") {
				tree += "-- etc/hostname --\nx\n"
			}
			k := treeOf(t, tree).Kernel()
			got := k.fields()
			for field, want := range row.want {
				if got[field] != want {
					t.Errorf("%s is %v, want %v", field, got[field], want)
				}
			}
			for field, v := range got {
				if (v == "<nil>") != (k.Unknown[field] != "") {
					t.Errorf("%s is %v with the reason %q", field, v, k.Unknown[field])
				}
			}
		})
	}
}

func TestKernelCPUFlags(t *testing.T) {
	k := treeOf(t, strings.Replace(x86CPU, "%s", "vmx", 1)).Kernel()
	if d := cmp.Diff([]string{"lm", "pdpe1gb", "vmx"}, k.CPUFlags); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]any{"pdpe1gb": true, "hypervisor": false} {
		if got := show(k.HasCPUFlag(name)); got != want {
			t.Errorf("flag %s is %v, want %v", name, got, want)
		}
	}
	if k = treeOf(t, "-- proc/version --\n\n").Kernel(); k.HasCPUFlag("lm") != nil || k.Unknown["cpu_flags"] == "" {
		t.Error("flags without /proc/cpuinfo, or no reason why not")
	}
}

func TestPageSizeOfArm(t *testing.T) {
	pools := func(kb ...int) string {
		s := ""
		for _, n := range kb {
			s += fmt.Sprintf("-- sys/kernel/mm/hugepages/hugepages-%dkB [dir] --\n", n)
		}
		return s
	}
	config := func(s string) string { return "-- boot/config-6.1 --\n" + s + "=y\n" }
	for _, row := range []struct {
		name, tree string
		want       any
	}{
		{"4K by sizes", pools(64, 2048, 32768, 1048576), 4096},
		{"16K by sizes", pools(2048, 32768, 1048576), 16384},
		{"64K by sizes", pools(2048, 524288, 16777216), 65536},
		{"one size that two granules have", pools(2048), "<nil>"},
		{"64K by the default", "-- proc/cmdline --\nquiet\n-- proc/meminfo --\nHugepagesize:     524288 kB\n", 65536},
		{"a default that somebody chose", "-- proc/cmdline --\ndefault-hugepagesz=2M\n-- proc/meminfo --\nHugepagesize:     2048 kB\n", "<nil>"},
		{"configuration", config("CONFIG_ARM64_64K_PAGES"), 65536},
		{"configuration of 6.9 and later", config("CONFIG_PAGE_SIZE_16KB"), 16384},
		{"nothing", "", "<nil>"},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := treeOf(t, "-- proc/sys/kernel/arch --\naarch64\n-- proc/sys/kernel/osrelease --\n6.1\n"+row.tree).Kernel()
			if got := show(k.PageSize); got != row.want {
				t.Errorf("page size is %v, want %v", got, row.want)
			}
		})
	}
}

func TestKernelConfigPlaces(t *testing.T) {
	const release = "-- proc/sys/kernel/osrelease --\n6.1-x\n"
	for _, row := range []struct{ name, tree, source, value string }{
		{"boot", "-- boot/config-6.1-x --\nCONFIG_A=m\n", "/boot/config-6.1-x", "m"},
		{"modules", "-- lib/modules/6.1-x/config --\nCONFIG_A=y\n", "/lib/modules/6.1-x/config", "y"},
		{"usr-merged with the link", "-- lib -> usr/lib --\n-- usr/lib/modules/6.1-x/config --\nCONFIG_A=y\n", "/lib/modules/6.1-x/config", "y"},
		{"usr-merged without the link", "-- usr/lib/modules/6.1-x/config --\nCONFIG_A=y\n", "/usr/lib/modules/6.1-x/config", "y"},
		{"of another release", "-- boot/config-6.2 --\nCONFIG_A=y\n", "", ""},
		{"unreadable", "-- boot/config-6.1-x [errno EACCES] --\n", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := treeOf(t, release+row.tree).Kernel()
			if k.ConfigSource != row.source || k.Config["CONFIG_A"] != row.value {
				t.Errorf("got %q from %q, want %q from %q", k.Config["CONFIG_A"], k.ConfigSource, row.value, row.source)
			}
			if (k.Config == nil) != (k.Unknown["config"] != "") {
				t.Errorf("config is %v with the reason %q", k.Config, k.Unknown["config"])
			}
			if row.name == "unreadable" && !strings.Contains(k.Unknown["config"], "permission denied") {
				t.Errorf("the reason is %q", k.Unknown["config"])
			}
		})
	}
}

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestKernelConfigGz(t *testing.T) {
	b := gzipped(t, "CONFIG_IKCONFIG_PROC=y\n")
	tree := fmt.Sprintf("-- proc/config.gz [hex %d] --\n0: % x\n", len(b), b)
	if k := treeOf(t, tree).Kernel(); k.Config["CONFIG_IKCONFIG_PROC"] != "y" || k.ConfigSource != "/proc/config.gz" {
		t.Errorf("got %v from %q (%s)", k.Config, k.ConfigSource, k.Unknown["config"])
	}
	broken := fmt.Sprintf("-- proc/config.gz [hex %d] --\n0: % x\n", len(b)-6, b[:len(b)-6])
	if k := treeOf(t, broken).Kernel(); k.Config != nil || !strings.Contains(k.Unknown["config"], "gzip") {
		t.Errorf("a broken file gave %v, %q", k.Config, k.Unknown["config"])
	}
}

func TestGunzipIsBounded(t *testing.T) {
	_, err := gunzip(gzipped(t, strings.Repeat("\x00", maxConfig+1)))
	if err == nil || !strings.Contains(err.Error(), host.ErrTooLarge.Error()) {
		t.Errorf("got %v, want %v", err, host.ErrTooLarge)
	}
	if s, err := gunzip(gzipped(t, strings.Repeat("x", maxConfig))); err != nil || len(s) != maxConfig {
		t.Errorf("the largest that is allowed: %d bytes, %v", len(s), err)
	}
}

func TestParseKconfig(t *testing.T) {
	got := parseKconfig("# CONFIG_OFF is not set\nCONFIG_Y=y\r\nCONFIG_M=m\nCONFIG_N=n\nCONFIG_HEX=0x10\nCONFIG_S=\"a \\\"b\\\" \\\\c\"\nCONFIG_E=\"\"\nOTHER=y\nCONFIG_BAD\n")
	want := map[string]string{"CONFIG_Y": "y", "CONFIG_M": "m", "CONFIG_HEX": "0x10", "CONFIG_S": `a "b" \c`, "CONFIG_E": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseBracketed(t *testing.T) {
	for text, want := range map[string]string{
		"[none] integrity confidentiality": "none", "none [integrity] confidentiality": "integrity", "none integrity": "", "[] x": "", "": "",
	} {
		if got, ok := parseBracketed(text); got != want || ok != (want != "") {
			t.Errorf("%q gives %q, %t; want %q", text, got, ok, want)
		}
	}
}

func FuzzParseKconfig(f *testing.F) {
	f.Add("CONFIG_A=y\nCONFIG_B=\"x\\\"\"\n# CONFIG_C is not set\n")
	f.Fuzz(func(t *testing.T, text string) {
		for name, v := range parseKconfig(text) {
			if !strings.HasPrefix(name, "CONFIG_") || !strings.Contains(text, name+"=") || strings.Contains(v, "\n") {
				t.Errorf("%q gives %q=%q", text, name, v)
			}
		}
	})
}

func FuzzGunzip(f *testing.F) {
	f.Add(gzipped(f, "CONFIG_A=y\n"))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := gunzip(b); len(s) > maxConfig || err != nil && s != "" {
			t.Errorf("%d bytes with %v", len(s), err)
		}
	})
}

func FuzzParseCPUInfo(f *testing.F) {
	f.Add(strings.Replace(x86CPU, "%s", "svm", 1))
	f.Add("CPU implementer\t: 0xc0\nFeatures: fp asimd\n")
	f.Add("cpu\t: POWER10\n\nplatform\t: pSeries")
	f.Fuzz(func(t *testing.T, text string) {
		c := parseCPUInfo(text)
		if c.flags["hypervisor"] && !strings.Contains(text, "hypervisor") {
			t.Errorf("%q has no such flag", text)
		}
		if (c.arch == "amd64") != (c.flags != nil && c.flags["lm"]) {
			t.Errorf("%q gives %s", text, c.arch)
		}
		// the blocks after the first change nothing
		first, _, _ := strings.Cut(text, "\n\n")
		if alone := parseCPUInfo(first); alone.vendor != c.vendor || alone.arch != c.arch {
			t.Errorf("%q: a later block changed %q, %q to %q, %q", text, alone.vendor, alone.arch, c.vendor, c.arch)
		}
	})
}
