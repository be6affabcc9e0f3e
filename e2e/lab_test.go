// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// TestLab is the lab itself: what the scenarios take for granted.
func TestLab(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	began, held := time.Now(), 0
	g := settled(t, ctx, lab.Options{})
	step := func(name string, f func(t *testing.T)) {
		if t.Run(name, f) {
			held++
		}
		count("the lab itself", "what scenarios rely on", 1, 0, 0)
	}
	defer func() { count("the lab itself", "what scenarios rely on", 0, held, time.Since(began)) }()

	step("exit codes", func(t *testing.T) {
		for code, command := range map[int]string{0: "true", 7: "exit 7", 127: "no-such-program", 137: "kill -9 $$"} {
			r := exits(t, ctx, g, command, code, "echo out; echo err >&2; "+command)
			if r.Out != "out\n" || !strings.HasPrefix(r.Err, "err\n") {
				t.Errorf("%s: stdout %q, stderr %q", command, r.Out, r.Err)
			}
		}
	})
	step("a command that does not end", func(t *testing.T) {
		c, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		r, err := g.Run(c, "echo begun; sleep 1000")
		if err != nil || !r.Late || r.Out != "begun\n" {
			t.Fatalf("%+v, %v", r, err)
		}
		must(t, ctx, g, "another command after it", "! pgrep -x sleep")
	})
	step("files in and out", func(t *testing.T) {
		b := make([]byte, 3<<20)
		rand.Read(b)
		if err := g.Push(ctx, "/var/tmp/lab/file", b, 0o600); err != nil {
			t.Fatal(err)
		}
		back, err := g.Pull(ctx, "/var/tmp/lab/file")
		if err != nil || !bytes.Equal(b, back) {
			t.Fatalf("%d bytes came back, %v", len(back), err)
		}
		if _, err := g.Pull(ctx, "/var/tmp/lab/none"); err == nil {
			t.Error("a file that is not there was read")
		}
	})
	step("the machine", func(t *testing.T) {
		for what, command := range map[string]string{
			"three nodes, one without CPUs":   `test "$(cat /sys/devices/system/node/online)" = 0-2 && test "$(cat /sys/devices/system/node/node2/cpulist)" = ""`,
			"VT-d at work":                    `test -e /sys/class/iommu/dmar0 && test "$(ls /sys/kernel/iommu_groups | wc -l)" -ge 15`,
			"igb with SR-IOV":                 `test "$(lspci -d 8086:10c9 | wc -l)" = 3 && test "$(cat /sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs)" = 7`,
			"a NIC on node 1":                 `test "$(cat /sys/bus/pci/devices/0000:41:00.0/numa_node)" = 1`,
			"root ports with and without ACS": `lspci -vvv -s 00:08.0 | grep -q 'Access Control Services' && ! lspci -vvv -s 00:0a.0 | grep -q 'Access Control Services'`,
			"the lab's modules":               "find " + lab.ModulesDir + " -name '*.ko' | grep -q .",
			"nothing failed in systemd":       `test "$(systemctl --failed --no-legend | wc -l)" = 0`,
			"no network but its own":          `! ip route show default | grep -q .`,
		} {
			if r, err := g.Run(ctx, command); err != nil || r.Code != 0 {
				t.Errorf("%s: exit code %d, %v: %s%s", what, r.Code, err, r.Out, r.Err)
			}
		}
	})
	if testing.Short() {
		return
	}
	step("reboot", func(t *testing.T) {
		must(t, ctx, g, "leave a file", "echo kept > /var/tmp/reboot")
		before := must(t, ctx, g, "boot id", "cat /proc/sys/kernel/random/boot_id")
		if err := g.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		after := must(t, ctx, g, "boot id", "cat /proc/sys/kernel/random/boot_id; cat /var/tmp/reboot")
		if !strings.HasSuffix(after, "\nkept\n") || strings.HasPrefix(after, before) {
			t.Errorf("before %q, after %q", before, after)
		}
	})
	step("reset", func(t *testing.T) {
		must(t, ctx, g, "leave a file", "echo lost > /var/tmp/reset; echo kept > /var/tmp/synced; sync /var/tmp/synced")
		if err := g.Reset(ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Settle(ctx); err != nil {
			t.Fatal(err)
		}
		must(t, ctx, g, "what was synced is there", "test \"$(cat /var/tmp/synced)\" = kept")
	})
	step("power cut and power-off", func(t *testing.T) {
		g.Cut()
		if _, err := g.Run(ctx, "true"); err == nil {
			t.Error("a guest without power answered")
		}
		if err := g.On(ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Settle(ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Off(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWatchdog arms the guest's watchdog and hangs the guest: it must be reset
// by itself.
func TestWatchdog(t *testing.T) {
	if testing.Short() {
		t.Skip("two boots: in the whole set only")
	}
	began := time.Now()
	ctx := limit(t, 20*time.Minute)
	g := booted(t, ctx, lab.Options{Watchdog: true})
	fired, err := g.Event("WATCHDOG")
	if err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "arm the watchdog", "modprobe i6300esb heartbeat=10; nohup sh -c 'exec 3> /dev/watchdog0; sleep 1000' > /dev/null 2>&1 &")
	select {
	case <-fired:
	case <-ctx.Done():
		t.Fatal("step \"wait for the watchdog\": it did not fire")
	}
	if err := g.Settle(ctx); err != nil {
		t.Fatalf("step \"come up after the reset\": %v", err)
	}
	count("the lab itself", "watchdog resets a hung guest", 1, 1, time.Since(began))
}

// TestSystemdBoot boots the guest with UEFI and systemd-boot.
func TestSystemdBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("an image and boots of its own: in the whole set only")
	}
	began := time.Now()
	ctx := limit(t, 40*time.Minute)
	g := booted(t, ctx, lab.Options{UEFI: true})
	must(t, ctx, g, "booted by systemd-boot", "bootctl status | grep -q 'Product: systemd-boot' && test -d /sys/firmware/efi && test -s /efi/loader/entries/*.conf")
	must(t, ctx, g, "the command line is the entry's", "grep -q root=LABEL=labroot /proc/cmdline")
	exits(t, ctx, g, "the check runs", 0, "hostcheck -f json > /dev/null")
	if err := g.Reboot(ctx); err != nil {
		t.Fatalf("step \"reboot\": %v", err)
	}
	count("the lab itself", "boots with systemd-boot", 2, 2, time.Since(began))
}
