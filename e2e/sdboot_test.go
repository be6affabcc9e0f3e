// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// bootSums prints what systemd-boot and kernel-install keep; systemd-boot
// itself renews the random seed at each boot.
const bootSums = "find /efi /etc/kernel -xdev -type f ! -name random-seed -print0 | sort -z | xargs -0 cksum; find /efi /etc/kernel -xdev -printf '%p %M %U:%G\\n' | sort"

// oneShot is the variable in which the choice for one boot lies.
const oneShot = "/sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// bootingUEFI is a guest with systemd-boot, and the sums of its files.
func bootingUEFI(t *testing.T) (b *booting, sums func(step string) []string) {
	t.Helper()
	if testing.Short() {
		t.Skip("cold boots only: in the whole set only")
	}
	ctx := limit(t, 60*time.Minute)
	b = newBooting(t, ctx, booted(t, ctx, lab.Options{UEFI: true}))
	return b, func(step string) []string {
		t.Helper()
		return strings.Split(must(t, ctx, b.g, step+": sums", bootSums), "\n")
	}
}

const triedToken = "transparent_hugepage=madvise"

// TestSystemdBootTrial is TestTrialBoot with systemd-boot and the firmware's
// variables.
func TestSystemdBootTrial(t *testing.T) {
	began := time.Now()
	b, sums := bootingUEFI(t)
	ctx, g, token := b.ctx, b.g, triedToken
	fixLab(t, ctx, g)
	b.wish(token)
	// the kernel and systemd of a cold boot differ by themselves from one to the next
	written := func(step string) []string {
		t.Helper()
		return slices.DeleteFunc(snapshot(t, ctx, g, step, "all"), func(l string) bool { return !strings.HasPrefix(l, "file ") && !strings.HasPrefix(l, "sum ") })
	}
	start, files, was := written("before the fix"), sums("before the fix"), b.cmdline("before the fix")
	usual := strings.TrimSpace(must(t, ctx, g, "the usual entry", "ls /efi/loader/entries/*.conf"))
	want := strings.Replace(must(t, ctx, g, "read it", "cat "+usual), " systemd.machine_id=", " "+token+" systemd.machine_id=", 1)

	b.arm("arm")
	must(t, ctx, g, "the firmware has it", "test -e "+oneShot+" && test -e /efi/loader/entries/hostcheck-trial.conf")
	undoAll(t, ctx, g, "undo an armed trial", 1)
	must(t, ctx, g, "the firmware has it no more", "test ! -e "+oneShot)
	if !same(t, "undo an armed trial", files, sums("after the undo of an armed trial")) {
		return
	}

	f := b.try("try")
	if line := b.cmdline("try"); !strings.Contains(line, " "+token+" ") {
		t.Fatalf("step \"try\": the command line is %q", line)
	}
	must(t, ctx, g, "the choice was for one boot", "test ! -e "+oneShot)
	b.confirmed("confirmed by its unit")
	if got := must(t, ctx, g, "the confirmed entry", "cat /efi/loader/entries/*.conf"); got != want {
		t.Errorf("step \"confirmed\": the entry is\n%s\nwant\n%s", got, want)
	}
	confirmed := sums("confirmed")
	must(t, ctx, g, "kernel-install", "kernel-install add \"$(uname -r)\" \"/boot/vmlinuz-$(uname -r)\" \"/boot/initrd.img-$(uname -r)\"")
	same(t, "kernel-install makes the same entry", confirmed, sums("after kernel-install"))

	b.reboot("with the new configuration")
	if line := b.cmdline("with the new configuration"); !strings.Contains(line, " "+token) || strings.Contains(line, "hostcheck.trial") {
		t.Errorf("step \"with the new configuration\": the command line is %q, and was %q", line, was)
	}
	must(t, ctx, g, "judge the new configuration", "hostcheck --fail-on warn cmdline"+tokenFlags)
	must(t, ctx, g, "fix a third time", fixToken)
	undoAll(t, ctx, g, "undo", 2)
	same(t, "undo", files, sums("after the undo"))
	b.reboot("after the undo")
	if line := b.cmdline("after the undo"); line != was {
		t.Errorf("step \"after the undo\": the command line is %q, and was %q", line, was)
	}
	fixLab(t, ctx, g)
	held := 0
	if same(t, "undo", start, written("after the undo")) {
		held = len(f.Plan.Changes)
	}
	count("trial boot", "changes with systemd-boot, confirmed by the unit and taken back", len(f.Plan.Changes), held, time.Since(began))
}

// TestSystemdBootTrialByHand has a person confirm, on a host without settings
// for kernel-install.
func TestSystemdBootTrialByHand(t *testing.T) {
	began := time.Now()
	b, sums := bootingUEFI(t)
	ctx, g := b.ctx, b.g
	b.wish(triedToken)
	must(t, ctx, g, "take the settings away", "rm /etc/kernel/cmdline")
	files, was := sums("before the fix"), b.cmdline("before the fix")
	for try := 1; ; try++ { // the unit may be faster than we are
		b.try("try")
		if r, err := g.Run(ctx, "systemctl stop hostcheck-trial.service && hostcheck confirm"); err != nil {
			t.Fatalf("step \"confirm\": %v", err)
		} else if r.Code == 0 || try == 3 {
			break
		}
		must(t, ctx, g, "anew", "hostcheck undo --all")
		b.reboot("anew")
	}
	must(t, ctx, g, "the settings are whole", "grep -q 'root=.* "+triedToken+"' /etc/kernel/cmdline && ! grep -q hostcheck /etc/kernel/cmdline")
	b.status("confirmed", 0)
	b.reboot("with the new configuration")
	if line := b.cmdline("with the new configuration"); !strings.Contains(line, " "+triedToken) || strings.Contains(line, "hostcheck.trial") {
		t.Errorf("step \"with the new configuration\": the command line is %q, and was %q", line, was)
	}
	must(t, ctx, g, "judge the new configuration", "hostcheck --fail-on warn cmdline"+tokenFlags)
	undoAll(t, ctx, g, "undo", 2)
	same(t, "undo", files, sums("after the undo"))
	b.reboot("after the undo")
	if line := b.cmdline("after the undo"); line != was {
		t.Errorf("step \"after the undo\": the command line is %q, and was %q", line, was)
	}
	count("trial boot", "with systemd-boot, confirmed by hand without settings", 1, 1, time.Since(began))
}

// TestSystemdBootTrialFallback tries a command line with which the kernel
// panics: the boot after that has the old one, by itself.
func TestSystemdBootTrialFallback(t *testing.T) {
	began := time.Now()
	b, sums := bootingUEFI(t)
	files, was := sums("before the fix"), b.cmdline("before the fix")
	b.wish("rdinit=/nope")
	b.arm("arm")
	b.leave("try")
	b.settle("after the trial")
	if !strings.Contains(b.g.Console(), "Kernel panic") {
		t.Error("step \"after the trial\": the trial did not panic")
	}
	b.fellBack(was)
	same(t, "undo", files, sums("after the undo"))
	b.status("after the undo", 0)
	count("trial boot", "lines that do not come up with systemd-boot", 1, 1, time.Since(began))
}
