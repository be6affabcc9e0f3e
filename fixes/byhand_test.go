// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

func shown(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Cmdline{}, fixes.Manual{}}, Machine: &plan.Machine{}}
}

func token(name, want string) plan.Wish {
	return plan.Wish{Setting: fixes.CmdlineSetting(name), Want: want, Tier: plan.Boot, Check: "cmdline.required"}
}

// steps gives the steps of the wishes' refusals, one a line. Nothing is planned.
func steps(t *testing.T, files map[string]string, wishes ...plan.Wish) string {
	t.Helper()
	root := plantest.TempDir(t)
	links(files)(t, root)
	old := plantest.Snapshot(t, root)
	p := plantest.Make(t, shown(root), wishes)
	if len(p.Changes) != 0 || len(p.Refused) != len(wishes) || p.Hash != "" {
		t.Fatalf("%+v", p)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("planning wrote:\n%s", d)
	}
	var all []string
	for _, r := range p.Refused {
		if r.Reason == "" || strings.HasSuffix(r.Reason, ":") && len(r.Steps) == 0 {
			t.Errorf("%+v", r)
		}
		all = append(all, r.Reason)
		all = append(all, r.Steps...)
	}
	return strings.Join(all, "\n")
}

func contains(t *testing.T, all string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(all, p) {
			t.Errorf("no %q in:\n%s", p, all)
		}
	}
}

const (
	loaderInfo = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	stubInfo   = "/sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// Each platform has its native commands; the first that fits counts.
func TestCmdlinePlatforms(t *testing.T) {
	wishes := []plan.Wish{token("hugepagesz=2M hugepages=0:8,1:8", fixes.TokenPresent), token("iommu=pt", fixes.TokenPresent), token("amd_iommu=on", fixes.TokenAbsent)}
	os := func(id string) map[string]string {
		return map[string]string{"/etc/os-release": "NAME=X\nID=\"" + id + "\"\n", "/proc/cmdline": "root=/dev/sda1\n"}
	}
	grub := map[string]string{"/etc/default/grub": "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet amd_iommu=on\"\n"}
	for name, c := range map[string]struct {
		files map[string]string
		says  []string
	}{
		"debian": {with(with(os("debian"), grub), map[string]string{"/usr/sbin/update-grub": "#!/bin/sh\n", "/etc/default/grub.d/50-cloudimg-settings.cfg": "GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"console=ttyS0 amd_iommu=on\"\n"}), []string{
			"tier boot", "GRUB of Debian and Ubuntu",
			"remove amd_iommu=on from /etc/default/grub:1, /etc/default/grub.d/50-cloudimg-settings.cfg:2",
			`echo 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT hugepagesz=2M hugepages=0:8,1:8"' >> /etc/default/grub.d/zz-local.cfg`,
			`echo 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT iommu=pt"' >>`, "update-grub\n", "reboot, then look at /proc/cmdline",
		}},
		"rhel": {with(with(os("rhel"), map[string]string{"/etc/default/grub": "GRUB_ENABLE_BLSCFG=true\n"}), map[string]string{"/boot/loader/entries/a.conf": "options ro\n"}), []string{
			"grubby --update-kernel=ALL --remove-args='amd_iommu=on'", "grubby --update-kernel=ALL --args='hugepagesz=2M hugepages=0:8,1:8 iommu=pt'",
		}},
		"fedora without the variable": {with(os("fedora"), map[string]string{"/etc/default/grub": "\n", "/boot/loader/entries/a.conf": "options ro\n", "/usr/sbin/grubby": ""}), []string{"(grubby)"}},
		"ostree": {with(with(os("fedora"), grub), map[string]string{"/run/ostree-booted": ""}), []string{
			"rpm-ostree kargs --delete-if-present='amd_iommu=on' --append='hugepagesz=2M' --append='hugepages=0:8,1:8' --append-if-missing='iommu=pt'", "/usr/lib/bootc/kargs.d",
		}},
		"talos":              {os("talos"), []string{"Image Factory", "talosctl upgrade"}},
		"flatcar":            {os("flatcar"), []string{"kernel_arguments.should_exist", "/oem/grub.cfg"}},
		"sles":               {with(with(os("sles"), grub), map[string]string{"/usr/bin/x": ""}), []string{"(GRUB)", "grub2-mkconfig -o /boot/grub2/grub.cfg", "in /etc/default/grub add iommu=pt"}},
		"suse transactional": {with(with(os("sl-micro"), grub), map[string]string{"/usr/sbin/transactional-update": ""}), []string{"transactional-update shell", "transactional-update --continue grub.cfg"}},
		"suse, systemd-boot": {with(os("sl-micro"), map[string]string{"/usr/sbin/transactional-update": "", "/etc/kernel/cmdline": "ro\n"}), []string{"sdbootutil update-all-entries"}},
		"systemd-boot":       {with(os("arch"), map[string]string{loaderInfo: "x"}), []string{"in /etc/kernel/cmdline", "add hugepagesz=2M hugepages=0:8,1:8 iommu=pt; remove amd_iommu=on", "kernel-install"}},
		"uki":                {with(os("arch"), map[string]string{loaderInfo: "x", stubInfo: "x"}), []string{"unified kernel image", "sign it"}},
		"openshift":          {with(os("rhcos"), map[string]string{"/etc/machine-config-daemon/currentconfig": "{}", "/run/ostree-booted": ""}), []string{"Machine Config Operator holds this setting", "spec.kernelArguments of a MachineConfig"}},
		"unknown":            {os("plan9"), []string{"a boot loader that hostcheck does not know", "where your boot loader keeps"}},
	} {
		t.Run(name, func(t *testing.T) { contains(t, steps(t, c.files, wishes...), c.says...) })
	}
}

func TestCmdlineSteps(t *testing.T) {
	debian := map[string]string{
		"/etc/os-release": "ID=debian\n", "/usr/sbin/update-grub": "", "/proc/cmdline": "root=/dev/sda1\n",
		"/etc/default/grub": "GRUB_CMDLINE_LINUX=\"iommu=pt \\\"pci=realloc\\\"\"\n",
	}
	// what is configured and not live only waits
	contains(t, steps(t, debian, token("iommu=pt", fixes.TokenPresent)), "iommu=pt stands in /etc/default/grub:1 already; it waits for update-grub or a reboot", "update-grub")
	// a semicolon ends a command of GRUB's
	contains(t, steps(t, debian, token("pci=config_acs=xx000x0@0000:17:00.0;xx000x0@0000:18:00.0", fixes.TokenPresent)),
		`$GRUB_CMDLINE_LINUX_DEFAULT pci=config_acs=\"xx000x0@0000:17:00.0;xx000x0@0000:18:00.0\""' >> `)
	// nothing that a shell would take apart
	for _, bad := range []string{"", "x=$(reboot)", "x='y", "x=`id`", "a\nb"} {
		if s := steps(t, debian, token(bad, fixes.TokenPresent)); strings.Contains(s, "echo") {
			t.Errorf("%q gives %s", bad, s)
		}
	}
	contains(t, steps(t, debian, token("iommu=pt", "maybe")), `present or absent, not "maybe"`)
	long := with(debian, map[string]string{"/proc/cmdline": strings.Repeat("x", 2040) + "\n"})
	contains(t, steps(t, long, token("iommu=nopt", fixes.TokenPresent)), "the command line would be 2051 bytes, and the kernel reads 2047")
	// the second one points at the first
	contains(t, steps(t, debian, token("a=1", fixes.TokenPresent), token("b=2", fixes.TokenPresent)), "see the steps above")
}

func port(bdf, want string) plan.Wish {
	return plan.Wish{Setting: fixes.ACSSetting(bdf), Want: want, Tier: plan.Boot, Check: "acs.redirect"}
}

// All ports go into one option, with those that were set before.
func TestACSSteps(t *testing.T) {
	host := map[string]string{
		"/etc/os-release": "ID=debian\n", "/usr/sbin/update-grub": "", "/etc/default/grub": "\n", "/proc/sys/kernel/osrelease": "6.12.107+deb13-amd64\n",
		"/proc/cmdline": "ro pci=realloc,config_acs=xx111x1@0000:05:00.0;xx111x1@0000:17:00.0 quiet\n",
	}
	wishes := []plan.Wish{port("0000:17:00.0", "xx000x0"), port("0000:18:00.0", "xx000x0")}
	contains(t, steps(t, host, wishes...),
		`DEFAULT pci=config_acs=\"xx000x0@0000:17:00.0;xx000x0@0000:18:00.0;xx111x1@0000:05:00.0\""'`, `DEFAULT pci=realloc"'`,
		"find what puts pci=realloc,config_acs=xx111x1@0000:05:00.0;xx111x1@0000:17:00.0 there", "ACS registers of 0000:17:00.0 are not known", "for port in 0000:17:00.0 0000:18:00.0;")
	old := with(host, map[string]string{"/proc/sys/kernel/osrelease": "6.8.0-1014-azure\n", "/proc/cmdline": "ro pci=disable_acs_redir=0000:05:00.0\n"})
	s := steps(t, old, append(wishes, port("0000:19:00.0", "xx111x1"))...)
	contains(t, s, `pci=disable_acs_redir=\"0000:17:00.0;0000:18:00.0;0000:05:00.0\"`, "older than 6.11", "1 ports are to be closed")
	contains(t, steps(t, host, port("0000:17:00.0", "open")), `"open" is not seven of 0, 1 and x`)
}

func TestManualSteps(t *testing.T) {
	manual := func(target, name, want string) plan.Wish {
		return plan.Wish{Setting: fixes.ManualSetting(target, name), Want: want, Tier: plan.Firmware}
	}
	none := map[string]string{"/proc/x": ""}
	for _, c := range []struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		{none, manual(nic, fixes.ManualLinkType+"2", "Ethernet"), []string{"shown, never done", "mlxconfig -d 0000:18:00.0 set LINK_TYPE_P2=2"}},
		{none, manual(nic, fixes.ManualFirmware, "28.39.1002"), []string{"28.39.1002 or later", "devlink dev flash pci/0000:18:00.0"}},
		{none, manual("", fixes.ManualIOMMU, "on"), []string{"VT-d (Intel)"}},
		{none, manual("0000:18:00.0", fixes.ManualMRRS, "4096"), []string{"setpci -s 0000:18:00.0 CAP_EXP+08.w=5000:f000"}},
		{none, manual("0000:18:00.0", fixes.ManualMRRS, "512"), []string{"CAP_EXP+08.w=2000:f000"}},
		{none, manual("0000:18:00.0", fixes.ManualRelaxed, "on"), []string{"PCI_WR_ORDERING=1"}},
		{map[string]string{"/etc/netplan/50-x.yaml": ""}, manual(nic, fixes.ManualMTU, "4200"), []string{"first on every switch port", "ip link set dev ens1np0 mtu 4200", "netplan"}},
		{map[string]string{"/etc/NetworkManager/system-connections/a.nmconnection": ""}, manual(nic, fixes.ManualMTU, "4200"), []string{"nmcli"}},
		{map[string]string{"/etc/systemd/network/a.network": ""}, manual(nic, fixes.ManualMTU, "4200"), []string{"MTUBytes=4200"}},
		{map[string]string{"/etc/network/interfaces": ""}, manual(nic, fixes.ManualMTU, "4200"), []string{"/etc/network/interfaces"}},
		{none, manual("0000:18:00.0", "lucky number", "7"), []string{"set lucky number of 0000:18:00.0 to 7"}},
	} {
		contains(t, steps(t, c.files, c.wish), c.says...)
	}
}

// What is shown is never done, not even when somebody hands in a change.
func TestShownIsNotDone(t *testing.T) {
	for _, v := range shown("/").Verbs {
		s := plan.Setting{Kind: v.Kind(), Target: "0000:18:00.0", Name: "x"}
		if _, err := v.Read(t.Context(), nil, s); err == nil {
			t.Errorf("%s reads", v.Kind())
		}
		if err := v.Apply(t.Context(), nil, []plan.Change{{Setting: s}}); err == nil || !strings.Contains(err.Error(), "does not make them") {
			t.Errorf("%s applies: %v", v.Kind(), err)
		}
	}
}
