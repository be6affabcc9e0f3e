// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// bootFiles prints what of the boot loader's files there is.
const bootFiles = "find /boot/grub /etc/default /etc/grub.d /etc/tuned -maxdepth 2 -type f 2>/dev/null | sort | xargs cksum; find /boot /etc/grub.d -maxdepth 2 -name '*hostcheck*'"

// TestBootOthers has others at work on the boot loader's settings: what
// hostcheck does with their part, and what it does when the tools fail. The
// guest is not rebooted.
func TestBootOthers(t *testing.T) {
	ctx := limit(t, 30*time.Minute)
	g := settled(t, ctx, lab.Options{})
	b := newBooting(t, ctx, g)
	const token = "transparent_hugepage=madvise"
	b.wish(token)
	must(t, ctx, g, "keep what will be changed", "mkdir /root/keep && cp -a /etc/default /etc/grub.d /boot/grub/grub.cfg /boot/grub/grubenv /etc/fstab /usr/sbin/grub-mkconfig /root/keep/")
	const cleanUp = "systemctl stop -q tuned.service 2>/dev/null; rm -rf /etc/default /etc/grub.d /etc/tuned && cp -a /root/keep/default /root/keep/grub.d /root/keep/fstab /etc/ && cp -a /root/keep/grub.cfg /root/keep/grubenv /boot/grub/ && cp -a /root/keep/grub-mkconfig /usr/sbin/"

	cases := []struct {
		name, setup string
		armed       string // the end of the line that is tried, "" where nothing may be
		code        int
		says        string // in the report
	}{
		{name: "a cloud image's override", setup: `mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=ttyS0"' > /etc/default/grub.d/50-cloudimg-settings.cfg && update-grub`,
			armed: "console=tty1 console=ttyS0 " + token},
		{name: "an override that was not rendered", setup: `mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1"' > /etc/default/grub.d/50-cloudimg-settings.cfg`,
			code: 1, says: "run update-grub first"},
		{name: "TuneD holds the token", setup: `mkdir -p /etc/tuned/lab && echo lab > /etc/tuned/active_profile && echo manual > /etc/tuned/profile_mode && printf '[bootloader]\ncmdline_lab=+transparent_hugepage=always\n' > /etc/tuned/lab/tuned.conf &&
			echo 'TUNED_BOOT_CMDLINE="transparent_hugepage=always"' > /etc/tuned/bootcmdline && echo 'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT:+$GRUB_CMDLINE_LINUX_DEFAULT }\$tuned_params"' >> /etc/default/grub &&
			printf '#!/bin/sh\necho "set tuned_params=\\"transparent_hugepage=always\\""\n' > /etc/grub.d/00_tuned && chmod 755 /etc/grub.d/00_tuned && update-grub &&
			mkdir -p /run/systemd/system && printf '[Service]\nExecStart=/bin/sleep infinity\n' > /run/systemd/system/tuned.service && systemctl daemon-reload && systemctl start tuned.service`,
			code: 1, says: "TuneD"},
		{name: "grub-mkconfig is missing", setup: "rm /usr/sbin/grub-mkconfig", code: 1, says: "grub-mkconfig is not there"},
		{name: "grub-mkconfig fails half way", setup: `printf '#!/bin/sh\nhead -c 300 /boot/grub/grub.cfg > "$2.new"; head -c 300 /boot/grub/grub.cfg > "$2"; exit 1\n' > /usr/sbin/grub-mkconfig`, code: 4},
		{name: "grub-mkconfig drops the default entry", setup: `printf '#!/bin/sh\ngrep -v "linux.*/vmlinuz" /boot/grub/grub.cfg > "$2"\n' > /usr/sbin/grub-mkconfig`, code: 4},
		{name: "no environment block", setup: "rm /boot/grub/grubenv", code: 1, says: "environment block"},
		{name: "a broken environment block", setup: "head -c 500 /root/keep/grubenv > /boot/grub/grubenv", code: 1, says: "environment block"},
		{name: "/boot is not mounted", setup: "echo 'LABEL=nosuchboot /boot ext4 defaults,noauto 0 2' >> /etc/fstab", code: 1, says: "/boot is in /etc/fstab and not mounted"},
		{name: "an unclosed quote", setup: `echo 'GRUB_CMDLINE_LINUX="x' >> /etc/default/grub`, code: 1, says: "quote"},
		{name: "another entry is chosen for the next boot", setup: "grub-reboot 1", code: 1, says: "the next boot is another entry already"},
		{name: "the disk is full", setup: "fallocate -l $(($(stat -f -c '%f*%S' /)-4096)) /root/full 2>/dev/null; dd if=/dev/zero of=/root/full2 bs=64k 2>/dev/null; cat /dev/zero > /root/full3 2>/dev/null; sync; true", code: 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			b.T = t
			must(t, ctx, g, "set up", c.setup)
			before := must(t, ctx, g, "before", bootFiles)
			r, err := g.Run(ctx, fixToken)
			if err != nil {
				t.Fatalf("step \"fix\": %v", err)
			}
			want := c.code
			if c.armed != "" {
				want = report.ExitPending
			}
			if r.Code != want || !strings.Contains(r.Out+r.Err, c.says) {
				t.Errorf("step \"fix\": exit code %d, want %d and %q:\n%s%s", r.Code, want, c.says, r.Out, r.Err)
			}
			if c.armed != "" {
				if s := b.status("armed", 0); s.Trial == nil || !strings.Contains(s.Trial.Cmdline, c.armed+" panic=30 ") {
					t.Errorf("step \"armed\": %+v", s.Trial)
				}
				undoAll(t, ctx, g, "undo", 1)
			}
			must(t, ctx, g, "make room", "rm -f /root/full*")
			held := 1
			if after := must(t, ctx, g, "after", bootFiles); after != before {
				held = 0
				t.Errorf("the boot loader's files are not as before:\n%s\nnow:\n%s", before, after)
			}
			idle(t, ctx, g, "status", 0)
			must(t, ctx, g, "clean up", cleanUp)
			if t.Failed() {
				held = 0
			}
			count("trial boot", "others at work, tools that fail", 1, held, time.Since(began))
		})
	}
	b.T = t

	began := time.Now()
	t.Run("a second admin between plan and fix", func(t *testing.T) {
		b.T = t
		r := exits(t, ctx, g, "plan", 1, "hostcheck plan --allow boot -f json cmdline.required"+tokenFlags)
		p := document[plan.Plan](t, "plan", r.Out)
		must(t, ctx, g, "the other admin", `sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=.*/GRUB_CMDLINE_LINUX_DEFAULT="quiet nosoftlockup"/' /etc/default/grub && update-grub`)
		before := must(t, ctx, g, "before", bootFiles)
		no := exits(t, ctx, g, "fix by the plan", 2, fixToken+" --plan-hash "+p.Hash)
		if !strings.Contains(no.Err, "changed since") {
			t.Errorf("step \"fix by the plan\": %s", no.Err)
		}
		if after := must(t, ctx, g, "after", bootFiles); after != before {
			t.Errorf("the boot loader's files changed:\n%s\nnow:\n%s", before, after)
		}
		must(t, ctx, g, "clean up", cleanUp)
	})
	t.Run("a second admin between fix and undo", func(t *testing.T) {
		b.T = t
		f := b.arm("arm")
		must(t, ctx, g, "the other admin", `sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=.*/GRUB_CMDLINE_LINUX_DEFAULT="quiet nosoftlockup"/' /etc/default/grub && update-grub`)
		u := document[report.Undo](t, "undo", must(t, ctx, g, "undo", "hostcheck undo -f json"))
		if len(u.Results) != 1 || u.Results[0].Txn != f.Result.Txn || u.Results[0].Outcome != plan.Undone {
			t.Errorf("step \"undo\": %+v", u)
		}
		must(t, ctx, g, "theirs is there and ours is gone", "grep -q 'quiet nosoftlockup$' /boot/grub/grub.cfg && ! grep -q hostcheck /boot/grub/grub.cfg && test ! -e /etc/grub.d/42_hostcheck && grep -q nosoftlockup /etc/default/grub")
		must(t, ctx, g, "clean up", cleanUp)
	})
	b.T = t
	held := 2
	if t.Failed() {
		held = 0
	}
	count("trial boot", "a second admin before the fix and before the undo", 2, held, time.Since(began))
}
