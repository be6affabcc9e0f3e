// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/report"
)

// bootDir is where the scenarios of tier boot keep their files: on the disk,
// and outside of what is compared.
const bootDir = "/root/lab"

// wantToken is a profile that requires one token.
func wantToken(token string) string {
	return fmt.Sprintf(`schema: hostcheck.profile/v1
name: lab-boot
layer: site
source: the VM lab
cmdline:
  require:
    - {id: lab, token: %q, source: the VM lab}
`, token)
}

// fixToken tries the token that the profile there is about.
const (
	tokenFlags = " --intent guest --profile " + bootDir + "/boot.yaml"
	fixToken   = "hostcheck fix --yes --allow boot -f json cmdline.required" + tokenFlags
)

// booting is a guest with a network of its own whose kernel command line is
// changed.
type booting struct {
	*testing.T
	ctx context.Context
	g   *lab.Guest
}

// network gives the first NIC an address and the default route, at each boot.
const network = `printf '[Match]\nMACAddress=02:00:00:00:00:10\n\n[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n' > /etc/systemd/network/10-lab.network
systemctl enable -q systemd-networkd.service && systemctl restart systemd-networkd.service
for i in $(seq 50); do grep -q '	00000000	' /proc/net/route && exit; sleep 0.2; done; exit 1`

func newBooting(t *testing.T, ctx context.Context, g *lab.Guest) *booting {
	t.Helper()
	b := &booting{t, ctx, g}
	must(t, ctx, g, "make a place for the scenario's files", "mkdir -p "+bootDir)
	must(t, ctx, g, "set up the network", network)
	must(t, ctx, g, "load what grub-mkconfig loads", "modprobe -a dm_mod")
	return b
}

// wish has the profile require a token.
func (b *booting) wish(token string) {
	b.Helper()
	if err := b.g.Push(b.ctx, bootDir+"/boot.yaml", []byte(wantToken(token)), 0o644); err != nil {
		b.Fatalf("step \"push the profile\": %v", err)
	}
}

// arm has the next boot try what the profile wants; the exit code says that a
// reboot is needed.
func (b *booting) arm(step string) report.Fix {
	b.Helper()
	f := document[report.Fix](b.T, step, exits(b.T, b.ctx, b.g, step, report.ExitPending, fixToken).Out)
	if s := b.status(step, 0); s.Trial == nil || s.Trial.State != "armed" {
		b.Fatalf("step %q: status says %+v", step, s.Trial)
	}
	return f
}

func (b *booting) status(step string, code int) report.Status {
	b.Helper()
	return document[report.Status](b.T, step, exits(b.T, b.ctx, b.g, step+": status", code, "hostcheck status -f json").Out)
}

// reboot waits until the guest is up again, however often its emulator stalls;
// again says that it did, so that this is not the first boot since.
func (b *booting) reboot(step string) (again bool) {
	b.Helper()
	try, cancel := context.WithTimeout(b.ctx, 8*time.Minute)
	err := b.g.Reboot(try)
	cancel()
	if errors.Is(err, lab.ErrStalled) || errors.Is(err, context.DeadlineExceeded) {
		b.g.Cut()
		again, err = true, comeUp(b.ctx, b.g)
	}
	if err != nil {
		b.Fatalf("step %q: reboot: %v", step, err)
	}
	return again
}

// try arms a trial and boots it. What the emulator made of a good one is no
// fallback: it is armed anew.
func (b *booting) try(step string) report.Fix {
	b.Helper()
	was := b.cmdline(step)
	for range 3 {
		f := b.arm(step + ": arm")
		again := b.reboot(step)
		if strings.Contains(b.cmdline(step), " panic=30 hostcheck.trial=") {
			return f
		}
		if !again {
			b.Fatalf("step %q: the command line is %q", step, b.cmdline(step))
		}
		b.Logf("step %q: the emulator stalled in it", step)
		must(b.T, b.ctx, b.g, step+": anew", "hostcheck undo --all")
		if b.cmdline(step) != was { // it stalled after the unit had confirmed
			b.reboot(step + ": anew")
		}
	}
	b.Fatalf("step %q: the emulator stalls each time", step)
	panic("unreachable")
}

func (b *booting) cmdline(step string) string {
	b.Helper()
	return strings.TrimSpace(must(b.T, b.ctx, b.g, step+": command line", "cat /proc/cmdline"))
}

// confirmed waits until the unit has confirmed the trial that runs.
func (b *booting) confirmed(step string) {
	b.Helper()
	for start := time.Now(); ; time.Sleep(2 * time.Second) {
		r, err := b.g.Run(b.ctx, "hostcheck status -f json")
		if err != nil {
			b.Fatalf("step %q: %v", step, err)
		}
		s := document[report.Status](b.T, step, r.Out)
		if s.Trial == nil && s.Busy == nil {
			return
		}
		if time.Since(start) > 4*time.Minute {
			b.Fatalf("step %q: it is not confirmed: %+v\n%s", step, s.Trial, must(b.T, b.ctx, b.g, step, "journalctl -b -u hostcheck-trial --no-pager"))
		}
	}
}

// TestTrialBoot takes a change of the kernel command line from the finding to
// its end: tried, confirmed by its unit, made the host's, taken back.
func TestTrialBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("three boots: in the whole set only")
	}
	began := time.Now()
	ctx := limit(t, 40*time.Minute)
	g := settled(t, ctx, lab.Options{})
	b := newBooting(t, ctx, g)
	fixLab(t, ctx, g)
	b.wish("transparent_hugepage=madvise")
	start := snapshot(t, ctx, g, "before the fix", "all")
	was := b.cmdline("before the fix")
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck cmdline.required"+tokenFlags)
	b.arm("arm")
	again := document[report.Fix](t, "fix again", exits(t, ctx, g, "fix again", report.ExitPending, fixToken).Out)
	if len(again.Plan.Changes) > 0 {
		t.Errorf("step \"fix again\": %+v", again.Plan.Changes)
	}
	undoAll(t, ctx, g, "undo an armed trial", 1)
	if !same(t, "undo an armed trial", start, snapshot(t, ctx, g, "after the undo of an armed trial", "all")) {
		return
	}
	f := b.try("try")
	if line := b.cmdline("try"); !strings.Contains(line, " transparent_hugepage=madvise panic=30 hostcheck.trial=") {
		t.Fatalf("step \"try\": the command line is %q", line)
	}
	b.confirmed("confirmed by its unit")
	must(t, ctx, g, "judge the trial", "hostcheck --fail-on warn cmdline.required"+tokenFlags)
	b.status("confirmed", 0)

	b.reboot("with the new configuration")
	if line := b.cmdline("with the new configuration"); line != was+" transparent_hugepage=madvise" {
		t.Errorf("step \"with the new configuration\": the command line is %q, and was %q", line, was)
	}
	must(t, ctx, g, "judge the new configuration", "hostcheck --fail-on warn cmdline"+tokenFlags)
	nothing := document[report.Fix](t, "fix a third time", must(t, ctx, g, "fix a third time", fixToken))
	if nothing.Result.Outcome != report.OutcomeNothing {
		t.Errorf("step \"fix a third time\": %+v", nothing.Result)
	}
	undoAll(t, ctx, g, "undo", 2)
	b.reboot("after the undo")
	if line := b.cmdline("after the undo"); line != was {
		t.Errorf("step \"after the undo\": the command line is %q, and was %q", line, was)
	}
	fixLab(t, ctx, g)
	must(t, ctx, g, "load what grub-mkconfig loads", "modprobe -a dm_mod")
	// GRUB leaves a name without a value where it took its choice back
	must(t, ctx, g, "what GRUB left", "test \"$(grub-editenv /boot/grub/grubenv list)\" = next_entry= && grub-editenv /boot/grub/grubenv unset next_entry")
	held := 0
	if same(t, "undo", start, snapshot(t, ctx, g, "after the undo", "all")) {
		held = len(f.Plan.Changes)
	}
	count("trial boot", "changes, confirmed by the unit and taken back", len(f.Plan.Changes), held, time.Since(began))
}

// TestTrialFallback tries command lines with which the guest does not come up,
// or not as it should: the boot after that has the old one, and status says
// what happened.
func TestTrialFallback(t *testing.T) {
	if testing.Short() {
		t.Skip("ten boots: in the whole set only")
	}
	ctx := limit(t, 90*time.Minute)
	g := settled(t, ctx, lab.Options{})
	b := newBooting(t, ctx, g)
	cases := []struct {
		name, token string
		reset       bool   // it hangs, and is reset by us
		up          bool   // it comes up, and is not healthy
		setup       string // of GRUB
	}{
		{name: "panics", token: "rdinit=/nope"},
		{name: "hangs before systemd", token: "rdinit=/usr/bin/cat", reset: true},
		{name: "starves memory", token: "mem=128M"},
		{name: "loses the NIC", token: "module_blacklist=igb", up: true},
		{name: "panics, GRUB_DEFAULT=saved", token: "rdinit=/nope", setup: "sed -i s/^GRUB_DEFAULT=.*/GRUB_DEFAULT=saved/ /etc/default/grub && update-grub && grub-set-default 0"},
	}
	was := b.cmdline("before all")
	for _, c := range cases {
		ok := t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			b.T = t
			if c.setup != "" {
				must(t, ctx, g, "set up GRUB", c.setup)
			}
			b.wish(c.token)
			if !c.up {
				b.arm("arm")
			}
			switch {
			case c.up:
				b.try("try")
				b.unhealthy("unhealthy")
				b.reboot("after the trial")
			case c.reset:
				b.leave("try")
				time.Sleep(90 * time.Second)
				try, cancel := context.WithTimeout(ctx, 5*time.Second)
				if _, err := g.Run(try, "true"); err == nil {
					t.Fatal("step \"try\": it does not hang")
				}
				cancel()
				if err := g.Reset(ctx); err != nil {
					t.Fatalf("step \"reset the hung guest\": %v", err)
				}
				b.settle("after the trial")
			default: // it comes back by itself
				b.leave("try")
				b.settle("after the trial")
			}
			b.fellBack(was)
			b.status("after the undo", 0)
			count("trial boot", "lines that do not come up, or not as they should", 1, 1, time.Since(began))
		})
		if b.T = t; !ok {
			break // the guest may be anywhere
		}
	}
}

// fellBack wants the old command line again and a status that says so, and takes
// the trial away.
func (b *booting) fellBack(was string) {
	b.Helper()
	if line := b.cmdline("after the trial"); line != was {
		b.Fatalf("step \"after the trial\": the command line is %q, and was %q", line, was)
	}
	if s := b.status("after the trial", 1); s.Trial == nil || s.Trial.State != "fell back" {
		b.Errorf("step \"after the trial\": status says %+v", s.Trial)
	}
	undoAll(b.T, b.ctx, b.g, "undo", 1)
}

// leave has the guest reboot into what may never come up.
func (b *booting) leave(step string) {
	b.Helper()
	must(b.T, b.ctx, b.g, step, "systemctl reboot --no-block")
	time.Sleep(5 * time.Second)
}

func (b *booting) settle(step string) {
	b.Helper()
	try, cancel := context.WithTimeout(b.ctx, 8*time.Minute)
	defer cancel()
	if err := b.g.Settle(try); err != nil {
		b.Fatalf("step %q: %v", step, err)
	}
}

// unhealthy waits until the unit has said why the trial is not confirmed.
func (b *booting) unhealthy(step string) {
	b.Helper()
	for start := time.Now(); time.Since(start) < 3*time.Minute; time.Sleep(2 * time.Second) {
		r, err := b.g.Run(b.ctx, "hostcheck status -f json")
		if err != nil {
			b.Fatalf("step %q: %v", step, err)
		}
		s := document[report.Status](b.T, step, r.Out)
		if s.Trial == nil || s.Trial.State != "running" {
			b.Fatalf("step %q: status says %+v", step, s.Trial)
		}
		if strings.Contains(strings.Join(s.Trial.Problems, "\n"), "has no default route any more") {
			return
		}
	}
	b.Fatalf("step %q: nothing says so: %s", step, must(b.T, b.ctx, b.g, step, "journalctl -b -u hostcheck-trial --no-pager"))
}

// TestBootPowerCut cuts the power at each recorded write of a change of tier
// boot: when a trial is armed and taken back, and when one that runs is
// confirmed and that is taken back.
func TestBootPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("a boot and hundreds of disks: in the whole set only")
	}
	ctx := limit(t, 60*time.Minute)
	g := settled(t, ctx, lab.Options{Record: true})
	b := newBooting(t, ctx, g)
	b.wish("transparent_hugepage=madvise")
	mark := func() int {
		t.Helper()
		n, err := g.Mark()
		if err != nil {
			t.Fatalf("step \"mark\": %v", err)
		}
		return n
	}
	record := func(name string, do func()) stretch {
		t.Helper()
		s := stretch{name: name}
		must(t, ctx, g, "write out", "sync")
		s.began = mark()
		do()
		s.fixed = mark()
		must(t, ctx, g, "write out", "sync")
		s.settled = mark()
		s.undo = s.settled
		must(t, ctx, g, name+": undo", "hostcheck undo")
		s.undone = mark()
		must(t, ctx, g, "write out", "sync")
		s.ended = mark()
		return s
	}
	armed := record("trial boot: armed", func() { b.arm("arm") })
	// a new failure keeps the unit from confirming; a person may
	must(t, ctx, g, "have a unit fail at boot", `printf '[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/lab-fails.service && systemctl enable -q lab-fails.service`)
	b.try("try")
	if s := b.status("not confirmed yet", 1); s.Trial == nil || s.Trial.State != "running" {
		t.Fatalf("step \"try\": %+v", s.Trial)
	}
	confirmed := record("trial boot: confirmed", func() { must(t, ctx, g, "confirm", "hostcheck confirm") })
	g.Cut()
	r, err := g.Recording()
	if err != nil {
		t.Fatalf("step \"read the recording\": %v", err)
	}
	c := &cutting{T: t, ctx: ctx, r: r, dir: t.TempDir(), files: []string{"/boot/grub/grub.cfg", "/boot/grub/grubenv"}}
	const points = 60
	c.stretch(armed, points)
	c.base = 1 // the trial itself
	c.stretch(confirmed, points)
}

// armEarly has the guest's initramfs start the watchdog, as firmware does on
// some hosts; systemd feeds it afterwards.
const armEarly = `printf '#!/bin/sh\n[ "$1" = prereqs ] && exit 0\nmodprobe i6300esb heartbeat=120\necho > /dev/watchdog0\n' > /etc/initramfs-tools/scripts/init-top/lab-watchdog
chmod 755 /etc/initramfs-tools/scripts/init-top/lab-watchdog
echo i6300esb >> /etc/initramfs-tools/modules
mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\nRuntimeWatchdogSec=60\n' > /etc/systemd/system.conf.d/lab.conf
update-initramfs -u > /dev/null`

// TestTrialWatchdog tries a command line that hangs on a host whose watchdog is
// armed before systemd: it comes back by itself.
func TestTrialWatchdog(t *testing.T) {
	if testing.Short() {
		t.Skip("four boots: in the whole set only")
	}
	began := time.Now()
	ctx := limit(t, 40*time.Minute)
	g := booted(t, ctx, lab.Options{Watchdog: true})
	b := newBooting(t, ctx, g)
	must(t, ctx, g, "arm the watchdog at boot", armEarly)
	b.reboot("with the watchdog")
	if fed := must(t, ctx, g, "systemd feeds it", "systemctl show -P RuntimeWatchdogUSec; wdctl 2>&1 | head -5"); !strings.HasPrefix(fed, "1min") {
		t.Fatalf("step \"with the watchdog\": %s", fed)
	}
	was := b.cmdline("before all")
	b.wish("init=/usr/bin/cat")
	b.arm("arm")
	fired, err := g.Event("WATCHDOG")
	if err != nil {
		t.Fatal(err)
	}
	b.leave("try")
	select {
	case <-fired:
	case <-time.After(8 * time.Minute):
		t.Fatal("step \"try\": the watchdog did not fire")
	}
	b.settle("after the trial")
	b.fellBack(was)
	count("trial boot", "hangs that a watchdog ends", 1, 1, time.Since(began))
}
