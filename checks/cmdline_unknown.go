// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var cmdlineUnknown = &check.Check{
	ID: "cmdline.unknown", Title: "The kernel knows every parameter that is meant for it", Severity: check.Medium,
	Doc: `A name that no part of the kernel takes is passed to init, and the only sign is one line of the boot log:

    Unknown kernel command line parameters "hugepage=64", will be passed to user space.

Where that line can be read it decides. Elsewhere the names are compared with those of Linux 6.12 for this architecture
and configuration. The line also lists known names whose value was refused (isolcpus= with a list beyond the last CPU); it does
not list names with a dot, which belong to modules, nor a bad hugepages= or a malformed early option: cmdline.ineffective
and cmdline.hugepages see those.

Names for user space are expected there and pass: those of systemd, dracut, casper and other initramfs scripts,
installers, Ignition, cloud-init and boot loaders (BOOT_IMAGE). A name that is one or two letters from a known one is
taken for a mistake and fails; any other is a warning, since a program on this host may read /proc/cmdline for it.

` + cmdlineHowTo + `

Often copied and wrong: hugepage= for hugepages=, hugepagesize=1G for hugepagesz=1G, nohz_full without a list, pcie_acs_override= on a
kernel without that patch, options of one architecture on another.`,
	Refs: []string{paramsDoc, "init/main.c"},
	Run:  runCmdlineUnknown,
}

func runCmdlineUnknown(_ context.Context, r *check.Run) error {
	c := knownCmdline(r)
	if c == nil {
		return nil
	}
	unknown, source := c.UnknownParams, cmdlineFile
	logged, err := r.Facts.LoggedUnknownParams()
	switch {
	case err == nil && logged != nil:
		unknown, source = logged, "klog"
	case unknown == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: c.Unknown["unknown_params"]})
		return nil
	}
	reported := false
	for _, u := range unknown {
		name, _, _ := strings.Cut(u, "=")
		if forUserSpace(name) || hasProblem(c, name) {
			continue
		}
		reported = true
		if rule, ok := forbids(r.Profile, c, u); ok {
			r.Report(check.Finding{Status: check.Skip, Subject: u, Why: "the profile forbids " + rule + ": see cmdline.forbidden"})
			continue
		}
		f := check.Finding{Subject: u, Status: check.Warn, Want: "a parameter that the kernel or this host's user space knows", Got: u, Source: paramsDoc,
			Evidence: []check.Evidence{{Source: source, Value: u}}}
		near := nearest(name, facts.KnownParams())
		switch {
		case near == strings.ReplaceAll(name, "-", "_"):
			f.Why = "the kernel of this host was built without it, or for another architecture, or it takes a value"
			f.Next = "remove it, or use a kernel that has it"
		case near != "":
			f.Status = check.Fail
			f.Why = "the kernel does not know it, and it is close to " + near + ", which it knows"
			f.Next = "write " + near + " if that is meant"
		default:
			f.Why = "the kernel passes it to init, and nothing tells who reads it"
			f.Next = "remove it, unless a program of this host reads it"
		}
		tokenGone(r, &f, u)
		r.Report(f)
	}
	if !reported {
		got := "none"
		if len(unknown) > 0 {
			got = "only names for user space: " + strings.Join(unknown, " ")
		}
		r.Report(check.Finding{Status: check.Pass, Want: "no unknown parameter", Got: got, Evidence: []check.Evidence{{Source: cmdlineFile, Value: *c.Text}}})
	}
	return nil
}

// hasProblem reports whether the text has a token of that name that another
// check of this area speaks of.
func hasProblem(c *facts.Cmdline, name string) bool {
	for _, t := range c.Find(name) {
		if slices.ContainsFunc(c.Problems, func(p facts.Problem) bool { return p.Token == t.Raw }) {
			return true
		}
	}
	return false
}

// userSpaceNames are parameters without a dot that programs read from
// /proc/cmdline: systemd (kernel-command-line(7)), dracut.cmdline(7),
// initramfs-tools(7), casper, live-boot, Anaconda, cloud-init, Ignition,
// Plymouth, and the boot loaders' own.
var userSpaceNames = []string{
	"BOOT_IMAGE", "BOOTIF", "auto", "kexec", "ostree", "boot",
	// systemd and its predecessors
	"emergency", "rescue", "single", "s", "S", "1", "2", "3", "4", "5", "-b", "b", "fastboot", "forcefsck", "noresume", "modules_load", "vconsole",
	"LANG", "LANGUAGE", "KEYTABLE", "KEYBOARDTYPE", "SYSFONT", "SYSFONTACM", "UNIMAP", "HOSTNAME", "ONLYROOT", "TERM",
	"fsck", "quotacheck", "mount", "nofail", "machine_id", "hostname",
	// splash screens and recovery
	"splash", "nosplash", "rhgb", "recovery", "text", "nofb", "xforcevesa", "vga", "video", "nomodeset", "console_setup",
	// initramfs
	"ip", "ifname", "vlan", "bond", "bridge", "team", "nameserver", "netroot", "nfsroot", "nfsaddrs", "iscsi_initiator", "iscsi_firmware", "biosdevname",
	"rdinit", "break", "noluks", "luks", "cryptdevice", "cryptkey", "cryptopts", "crypto", "dolvm", "domdadm", "dozfs", "zfs", "bootfs", "rootovl", "overlayroot",
	"rd_NO_LUKS", "rd_NO_LVM", "rd_NO_MD", "rd_NO_DM", "rd_LVM_LV", "rd_MD_UUID", "resumedelay", "rootdelay", "rootdev", "real_root", "uuid", "persistent", "toram", "union",
	"components", "noprompt", "maybe_ubiquity", "noautologin", "username", "live_media", "findiso", "fetch", "loop", "loopfstype", "squashfs", "copytoram",
	"autorelabel", "enforcing", "selinux", "apparmor", "fips", "panic_on_oops", "bootchart", "bootchartd", "initcall",
	// installers and provisioning
	"ks", "ksdevice", "kickstart", "repo", "method", "autoinstall", "autoyast", "install", "preseed", "url", "priority", "interface", "locale", "keymap", "DEBIAN_FRONTEND",
	"ds", "cloud_init", "cloud_config_url", "network_config", "cc", "seedfrom", "flatcar", "coreos", "platform", "ignition",
}

var userSpacePrefixes = []string{"systemd_", "rd_", "inst_", "live_", "casper_", "archiso", "img_", "cow_", "debian-", "debian_", "netcfg/", "locale_", "plymouth_", "cloud_"}

// forUserSpace reports whether a name is one that programs read.
func forUserSpace(name string) bool {
	folded := strings.ReplaceAll(name, "-", "_")
	if slices.Contains(userSpaceNames, name) || slices.Contains(userSpaceNames, folded) {
		return true
	}
	return strings.ContainsAny(name, "./:") || slices.ContainsFunc(userSpacePrefixes, func(p string) bool { return strings.HasPrefix(folded, p) })
}

// nearest gives the known name that a name is most likely a misspelling of, or
// "": one edit for short names, two from eight letters on, or the known name
// with more letters after it (hugepagesize for hugepagesz is both).
func nearest(name string, known []string) string {
	name = strings.ReplaceAll(name, "-", "_")
	most := 1
	switch n := len(name); {
	case n < 4:
		most = 0
	case n >= 8:
		most = 2
	}
	best, found := most+1, ""
	for _, k := range known {
		if strings.ContainsRune(k, '.') {
			continue
		}
		if d := editDistance(name, k, most); d < best {
			best, found = d, k
		}
	}
	return found
}

// editDistance counts the letters to insert, delete, replace or swap with a
// neighbour to make b of a; anything beyond most is most+1.
func editDistance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	two, one, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(one[j]+1, now[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], two[j-2]+1)
			}
		}
		two, one, now = one, now, two
	}
	return min(one[len(b)], most+1)
}
