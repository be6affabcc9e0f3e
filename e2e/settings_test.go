// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// setScenario is the name under which settings at boot, and the program that
// sets them, are counted.
const setScenario = "settings at each boot"

// igbPort is a NIC with its real driver, so that every boot has it.
const igbPort = manaPort

// ownSettings is a file of the host's owner, in hostcheck's place for them.
const ownSettings = "/etc/hostcheck/settings.d/60-mine.yaml"

func ringSettings(rx int) string {
	return fmt.Sprintf("schema: hostcheck.settings/v1\nsettings:\n  - {kind: ethtool, target: %q, name: rings rx, value: %q}\n", igbPort, fmt.Sprint(rx))
}

const (
	fixBoth   = "hostcheck fix --yes --allow link -f json dcqcn.pfc dcqcn.cnp_dscp" + pairFlags
	startUnit = "systemctl start hostcheck-settings.service"
	unitLog   = "journalctl -b --no-pager -o cat -u hostcheck-settings.service"
)

// cnpFile is the setting of the second port that [pairRules] want.
const cnpFile = "/sys/kernel/debug/mlx5/" + portB + "/cc_params/np_cnp_dscp"

// hasRing wants so many receive buffers of the igb.
func hasRing(t *testing.T, ctx context.Context, g *lab.Guest, step, rx string) {
	t.Helper()
	got := strings.TrimSpace(must(t, ctx, g, step+": rings", fmt.Sprintf("ethtool -g $(ls /sys/bus/pci/devices/%s/net) | awk '/^RX:/ { n = $2 } END { print n }'", igbPort)))
	if got != rx {
		t.Errorf("step %q: the igb has rings of %s, want %s", step, got, rx)
	}
}

// soonPFC waits until systemd has had PFC set on these ports.
func soonPFC(t *testing.T, ctx context.Context, g *lab.Guest, step string, ports ...port) {
	t.Helper()
	for _, p := range ports {
		must(t, ctx, g, step+": "+p.name, fmt.Sprintf("for i in $(seq 60); do dcb pfc show dev %s prio-pfc | grep -q 3:on && exit; sleep 0.5; done; %s >&2; exit 1", p.name, unitLog))
	}
	must(t, ctx, g, step+": the unit ends", "for i in $(seq 60); do [ \"$(systemctl show -P ActiveState hostcheck-settings.service)\" = activating ] || exit 0; sleep 0.5; done; exit 1")
}

// TestSettings is what a boot sets again: from files that only root could have
// written, by a program that only root could have changed, also on a device
// that comes late, and never again what stopped the host once.
func TestSettings(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	if !testing.Short() {
		ctx = limit(t, 80*time.Minute)
	}
	g := settled(t, ctx, lab.Options{})
	pairFiles(t, ctx, g)
	a, b := bindPair(t, ctx, g)
	if !testing.Short() {
		nicUnit(t, ctx, g, "", portA)
	}
	if !t.Run("program", func(t *testing.T) { untrustedProgram(t, ctx, g, a, b) }) {
		return // what fails leaves the guest in a state that says nothing about the next
	}
	// from here on hostcheck is the copy that this fix makes
	must(t, ctx, g, "move hostcheck to where all can write", toAway)
	was := places(t, ctx, g, "before")
	ok := t.Run("fix", func(t *testing.T) { copied(t, ctx, g, away, strings.Replace(fixBoth, "hostcheck", away, 1)) }) &&
		t.Run("late", func(t *testing.T) { late(t, ctx, g) }) &&
		t.Run("while others are set", func(t *testing.T) { lateMeanwhile(t, ctx, g) }) &&
		t.Run("files", func(t *testing.T) { untrustedFiles(t, ctx, g) }) &&
		t.Run("killed", func(t *testing.T) { attemptKilled(t, ctx, g, a, b) }) &&
		t.Run("switched off", func(t *testing.T) { switchedOff(t, ctx, g, a, b) })
	if ok && !testing.Short() {
		ok = t.Run("boot", func(t *testing.T) { a, b = setAtBoot(t, ctx, g) }) &&
			t.Run("boot that hangs", func(t *testing.T) { attemptReset(t, ctx, g, a) }) &&
			t.Run("switched off by GRUB", func(t *testing.T) { a, b = switchedOffAtBoot(t, ctx, g) })
	}
	if !ok {
		return
	}
	t.Run("undo", func(t *testing.T) {
		began := time.Now()
		must(t, ctx, g, "remove the owner's file", "rm "+ownSettings)
		undoAll(t, ctx, g, "undo", 1)
		hasPFC(t, ctx, g, "undo", false, a, b)
		same(t, "undo", was, places(t, ctx, g, "after the undo"))
		must(t, ctx, g, "bind the ports again", fmt.Sprintf("rmmod mlx5_core && sh %s intree/mlx5_core.ko %s %s && sleep 1", nicTool, portA, portB))
		hasPFC(t, ctx, g, "bound again", false, a, b)
		if err := g.PushFile(ctx, built["amd64"], hostcheck, 0o755); err != nil {
			t.Fatal(err)
		}
		stands(t, ctx, g, "undo", 0)
		count(setScenario, "all of it undone", 1, allHeld(t), time.Since(began))
	})
}

// late has the driver find the ports anew, with nothing set: systemd is told
// by udev, and has both set again.
func late(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	must(t, ctx, g, "the driver goes", "rmmod mlx5_core")
	a, b := bindPair(t, ctx, g)
	soonPFC(t, ctx, g, "late", a, b)
	must(t, ctx, g, "late: the DSCP of notifications", "grep -qx 50 "+cnpFile)
	idle(t, ctx, g, "late: status", 1)
	if x := latest(t, ctx, g, "late"); x.State != plan.Reapplied {
		t.Errorf("step \"late\": the history begins with %s, which is %s", x.ID, x.State)
	}
	if !testing.Short() { // a driver that is loaded anew brings one interface after another
		must(t, ctx, g, "start it often", "for i in 1 2 3 4 5 6 7 8; do "+startUnit+" || exit 1; done")
	}
	count(setScenario, "devices that come late", 2, 2*allHeld(t), time.Since(began))
}

// lateMeanwhile: the first port comes while the second one is being set, when
// its own turn is over. systemd does not start a unit once more that runs.
func lateMeanwhile(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	must(t, ctx, g, "the first port goes, the second one does not answer", fmt.Sprintf(
		"sh %s - %s && echo 11 > %s && echo block > /sys/module/mlx5_core/parameters/ecn && %s --no-block && sh %s", nicTool, portA, cnpFile, startUnit, stuckTool))
	out := must(t, ctx, g, "the first port comes", fmt.Sprintf("sh %s intree/mlx5_core.ko %s", nicTool, portA))
	a := port{portA, strings.TrimSpace(out), "mlx5_core"}
	must(t, ctx, g, "systemd knows it", fmt.Sprintf("for i in $(seq 50); do systemctl -q is-active sys-subsystem-net-devices-%s.device && break; sleep 0.1; done; "+
		"test \"$(systemctl show -P ActiveState hostcheck-settings.service)\" = activating && grep -qx 11 %s", a.name, cnpFile))
	a.set(t, ctx, g, "ecn", "normal")
	soonPFC(t, ctx, g, "meanwhile", a)
	must(t, ctx, g, "the second one is set, too", "grep -qx 50 "+cnpFile)
	count(setScenario, "devices that come while others are set", 1, allHeld(t), time.Since(began))
}

// untrustedFiles: a file that others could have written is named by "hostcheck
// status", and the unit sets nothing of it.
func untrustedFiles(t *testing.T, ctx context.Context, g *lab.Guest) {
	hasRing(t, ctx, g, "before", "256")
	cases := []struct{ name, do, undo string }{
		{"another owner", "chown 1000 {}", "chown 0 {}"},
		{"writable by its group", "chmod 0664 {}", "chmod 0644 {}"},
		{"writable by all", "chmod 0666 {}", "chmod 0644 {}"},
		{"a directory that others can write", "chmod 0777 /etc/hostcheck", "chmod 0755 /etc/hostcheck"},
		{"a link to where others can write", "mv {} /tmp/mine.yaml && ln -s /tmp/mine.yaml {}", "rm {} && mv /tmp/mine.yaml {}"},
	}
	if testing.Short() {
		cases = cases[:2]
	}
	if err := g.Push(ctx, ownSettings, []byte(ringSettings(512)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		began := time.Now()
		t.Run(c.name, func(t *testing.T) {
			must(t, ctx, g, "spoil", strings.ReplaceAll(c.do, "{}", ownSettings))
			ignored(t, ctx, g)
			must(t, ctx, g, "start the unit", startUnit)
			hasRing(t, ctx, g, "ignored", "256")
			must(t, ctx, g, "mend", strings.ReplaceAll(c.undo, "{}", ownSettings))
			count(setScenario, "files that others could have written, ignored and named", 1, allHeld(t), time.Since(began))
		})
	}
	stands(t, ctx, g, "mended", 0)
	must(t, ctx, g, "start the unit", startUnit)
	hasRing(t, ctx, g, "mended", "512")
	must(t, ctx, g, "put the rings back", fmt.Sprintf("ethtool -G $(ls /sys/bus/pci/devices/%s/net) rx 256", igbPort))
}

// ignored wants "hostcheck status" to name what is not used of the settings.
func ignored(t *testing.T, ctx context.Context, g *lab.Guest) {
	t.Helper()
	s := stands(t, ctx, g, "ignored", 1)
	if len(s.Settings.Ignored) != 1 || !strings.HasPrefix(ownSettings, s.Settings.Ignored[0].File) || s.Settings.Ignored[0].Why == "" || len(s.Pending) > 0 || s.Settings.Stopped != nil {
		t.Errorf("step \"ignored\": %+v", s)
	}
}

// stopped wants "hostcheck status" to say that an attempt did not complete; it
// gives the command that tries again.
func stopped(t *testing.T, ctx context.Context, g *lab.Guest, step string) string {
	t.Helper()
	s := stands(t, ctx, g, step, 1)
	if s.Settings.Stopped == nil || !strings.Contains(s.Settings.Retry, "settings apply --retry") {
		t.Fatalf("step %q: %+v", step, s)
	}
	return s.Settings.Retry
}

// attemptKilled: hostcheck is killed while it sets things. The unit does not
// try again, until somebody says so.
func attemptKilled(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	began := time.Now()
	must(t, ctx, g, "lose the setting", "dcb pfc set dev "+a.name+" prio-pfc all:off")
	a.set(t, ctx, g, "killable", "Y")
	a.set(t, ctx, g, "pfc", "block")
	must(t, ctx, g, "kill it in the middle", startUnit+" --no-block && sh "+stuckTool+" kill")
	a.set(t, ctx, g, "pfc", "normal")
	retry := stopped(t, ctx, g, "killed")
	exits(t, ctx, g, "start the unit again", 1, startUnit)
	must(t, ctx, g, "the log says why", unitLog+" | grep -q 'nothing is set: an earlier attempt did not complete'")
	hasPFC(t, ctx, g, "not tried again", false, a)
	must(t, ctx, g, "try again", retry)
	hasPFC(t, ctx, g, "tried again", true, a, b)
	idle(t, ctx, g, "status after it", 1)
	must(t, ctx, g, "start the unit", startUnit)
	count(setScenario, "attempts that did not complete, not tried again until told", 1, allHeld(t), time.Since(began))
}

// switchedOff has the guest's kernel command line seem to have the word.
func switchedOff(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	began := time.Now()
	must(t, ctx, g, "switch it off", fmt.Sprintf("dcb pfc set dev %s prio-pfc all:off && echo \"$(cat /proc/cmdline) hostcheck.settings=off\" > %s/cmdline && mount --bind %[2]s/cmdline /proc/cmdline", a.name, devDir))
	notSet(t, ctx, g, "switched off", a)
	said := exits(t, ctx, g, "by hand", 0, "hostcheck settings apply")
	if !strings.Contains(said.Out+said.Err, "hostcheck.settings=off") {
		t.Errorf("step \"by hand\": it says %q", said.Out+said.Err)
	}
	hasPFC(t, ctx, g, "by hand", false, a)
	must(t, ctx, g, "switch it on", "umount /proc/cmdline && "+startUnit)
	hasPFC(t, ctx, g, "switched on", true, a, b)
	count(setScenario, "switched off on the command line", 1, allHeld(t), time.Since(began))
}

// notSet wants the unit to do nothing, and "hostcheck status" to say why.
func notSet(t *testing.T, ctx context.Context, g *lab.Guest, step string, p port) {
	t.Helper()
	must(t, ctx, g, step+": start the unit", startUnit+" && test \"$(systemctl show -P ConditionResult hostcheck-settings.service)\" = no")
	hasPFC(t, ctx, g, step, false, p)
	if s := stands(t, ctx, g, step, 0); !s.Settings.Off || s.Settings.Count == 0 {
		t.Errorf("step %q: %+v", step, s.Settings)
	}
}

// away is a hostcheck that others could replace.
const (
	away   = "/tmp/x/hostcheck"
	toAway = "mkdir -p -m 1777 /tmp/x && mv " + hostcheck + " " + away
)

// untrustedProgram starts hostcheck from places where others could replace it.
// What runs later runs a copy, or there is nothing that runs later.
func untrustedProgram(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	const opt = "/opt/x/hostcheck"
	must(t, ctx, g, "move hostcheck to where all can write", toAway)
	for i, c := range []struct {
		name, run, do, undo string
		refused             string // what the refusal names; "": a copy is made
	}{
		{"copies for all to write", away, "chmod 1777 /usr/local/sbin", "chmod 0755 /usr/local/sbin", "/usr/local/sbin (mode 1777)"},
		{"of another user", opt, "mkdir /opt/x && cp " + away + " /opt/x && chown 1000 /opt/x", "rm -r /opt/x", ""},
		{"writable by its group", opt, "mkdir /opt/x && cp " + away + " /opt/x && chmod 0775 " + opt, "rm -r /opt/x", ""},
		{"from somebody's home", "/root/hostcheck", "cp " + away + " /root", "rm /root/hostcheck", ""},
		{"in place of another program", away, "printf '#!/bin/sh\\necho mine\\n' > {} && chown 1000:7 {} && chmod 2750 {}", "rm {}", ""},
		{"a link in the copy's place", away, "ln -s " + away + " {}", "rm {}", hostcheck},
		{"copies for a group to write", away, "chmod 2775 /usr/local/sbin", "chmod 0755 /usr/local/sbin && chmod g-s /usr/local/sbin", "/usr/local/sbin"},
		{"copies of another user", away, "chown 1000 /usr/local/sbin", "chown 0 /usr/local/sbin", "/usr/local/sbin belongs to user 1000"},
		{"copies below what all can write", away, "chmod 0777 /usr/local", "chmod 0755 /usr/local", "/usr/local (mode 0777)"},
		{"the same program, for all to write", away, "cp " + away + " {} && chmod 0777 {}", "rm {}", hostcheck + " (mode 0777)"},
	} {
		if testing.Short() && i > 0 {
			break
		}
		began := time.Now()
		t.Run(c.name, func(t *testing.T) {
			must(t, ctx, g, "prepare", strings.ReplaceAll(c.do, "{}", hostcheck)+"\ntrue")
			was := places(t, ctx, g, "before")
			fix := strings.Replace(fixPFC, "hostcheck", c.run, 1) + " --confirm=auto"
			if c.refused == "" {
				copied(t, ctx, g, c.run, fix)
				must(t, ctx, g, "the copy works", startUnit)
				must(t, ctx, g, "undo", c.run+" undo")
			} else {
				notCopied(t, ctx, g, fix, c.refused)
			}
			hasPFC(t, ctx, g, "undone", false, a, b)
			same(t, "undone", was, places(t, ctx, g, "after"))
			must(t, ctx, g, "clean up", strings.ReplaceAll(c.undo, "{}", hostcheck)+"\ntrue")
			if c.refused != "" {
				count(setScenario, "hostchecks that others could replace: a copy runs later, or nothing", 1, allHeld(t), time.Since(began))
			}
		})
	}
	if !testing.Short() {
		t.Run("what is safe, without a copy", func(t *testing.T) { safeNotKept(t, ctx, g, away) })
	}
	must(t, ctx, g, "move hostcheck back", "mv "+away+" "+hostcheck)
}

// copied makes changes, confirms them, and wants the units to run a copy.
func copied(t *testing.T, ctx context.Context, g *lab.Guest, run, fix string) {
	t.Helper()
	began := time.Now()
	f := document[report.Fix](t, "fix", must(t, ctx, g, "fix", fix))
	copies := 0
	for _, c := range f.Plan.Changes {
		if c.Kind == plan.KindCopy && c.Target == hostcheck {
			copies++
		}
	}
	if f.Result.Outcome != plan.Applied || copies != 1 || len(f.Plan.Refused) > 0 {
		t.Fatalf("step \"fix\": %d copies, %+v\nrefused: %+v", copies, f.Result, f.Plan.Refused)
	}
	if f.Result.Until != nil {
		must(t, ctx, g, "confirm", f.Result.Confirm)
	}
	lasting(t, ctx, g, "confirm")
	must(t, ctx, g, "the units run the copy", fmt.Sprintf("test \"$(stat -c '%%a %%u:%%g' %s)\" = '755 0:0' && cmp %[1]s %s && "+
		"grep -qx 'ExecStart=%[1]s settings apply' /etc/systemd/system/hostcheck-settings.service && ! grep -rE '/(tmp|opt)/x/|/root/' /etc/systemd/system /etc/udev/rules.d", hostcheck, run))
	count(setScenario, "hostchecks that others could replace: a copy runs later, or nothing", 1, allHeld(t), time.Since(began))
}

// notCopied wants the changes refused, with what is to blame.
func notCopied(t *testing.T, ctx context.Context, g *lab.Guest, fix, blamed string) {
	t.Helper()
	r, err := g.Run(ctx, fix)
	if err != nil {
		t.Fatalf("step \"fix\": %v", err)
	}
	if r.Code == 2 { // no plan at all
		if !strings.Contains(r.Err, blamed) {
			t.Errorf("step \"fix\": %s", r.Err)
		}
		return
	}
	f := document[report.Fix](t, "fix", r.Out)
	if r.Code != 1 || f.Result.Outcome != report.OutcomeNothing || len(f.Plan.Changes) > 0 || len(f.Plan.Refused) != 2 {
		t.Fatalf("step \"fix\": exit code %d, %+v, %+v", r.Code, f.Result, f.Plan)
	}
	for _, x := range f.Plan.Refused {
		if x.Kind != "dcb" || !strings.Contains(x.Reason, blamed) {
			t.Errorf("step \"fix\": %s is refused: %s; want %s named", x.Setting, x.Reason, blamed)
		}
	}
}

// safeNotKept: a change that needs no timer is made, and the plan says that no
// boot sets it again.
func safeNotKept(t *testing.T, ctx context.Context, g *lab.Guest, run string) {
	began := time.Now()
	must(t, ctx, g, "prepare", "chmod 0777 /usr/local/sbin")
	was := places(t, ctx, g, "before")
	f := document[report.Fix](t, "fix", must(t, ctx, g, "fix", run+" fix --yes -f json dcqcn.cnp_dscp"+pairFlags))
	if f.Result.Outcome != plan.Applied || len(f.Plan.Changes) != 1 || len(f.Plan.Refused) != 1 || f.Plan.Refused[0].Kind != "settings" ||
		!strings.Contains(f.Plan.Refused[0].Reason, "not at each boot") {
		t.Errorf("step \"fix\": %+v", f.Plan)
	}
	same(t, "fix", was, places(t, ctx, g, "after"))
	must(t, ctx, g, "undo", run+" undo && chmod 0755 /usr/local/sbin")
	count(setScenario, "hostchecks that others could replace: a copy runs later, or nothing", 1, allHeld(t), time.Since(began))
}

// setAtBoot: the boot has the first port and the igb, and sets them; the second
// port comes later. A file that another user owns is not used.
func setAtBoot(t *testing.T, ctx context.Context, g *lab.Guest) (a, b port) {
	began := time.Now()
	const theirs = "/etc/hostcheck/settings.d/70-theirs.yaml"
	if err := g.Push(ctx, theirs, []byte(ringSettings(1024)), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "a file of another user", "chown 1000 "+theirs+" && sync")
	restartPair(t, ctx, g, "reboot", "reboot")
	a = port{portA, strings.TrimSpace(must(t, ctx, g, "name of the first port", "ls /sys/bus/pci/devices/"+portA+"/net")), "mlx5_core"}
	hasPFC(t, ctx, g, "boot", true, a)
	hasRing(t, ctx, g, "boot", "512")
	must(t, ctx, g, "it was set before the network, and nothing was missed", "journalctl -b --no-pager -o cat _PID=1 | grep -E 'Finished hostcheck-settings.service|Reached target network.target' | head -n 1 | grep -q Finished && "+
		"test \"$(systemctl show -P Result hostcheck-settings.service)\" = success")
	s := stands(t, ctx, g, "boot", 1)
	if len(s.Settings.Ignored) != 1 || s.Settings.Ignored[0].File != theirs || s.Settings.Stopped != nil || len(s.Pending) > 0 || len(s.Applied) != 1 {
		t.Errorf("step \"boot\": %+v", s)
	}
	must(t, ctx, g, "remove the file of another user", "rm "+theirs)
	out := must(t, ctx, g, "the second port comes", fmt.Sprintf("sh %s intree/mlx5_core.ko %s", nicTool, portB))
	b = port{portB, strings.TrimSpace(out), "mlx5_core"}
	soonPFC(t, ctx, g, "after the boot", b)
	must(t, ctx, g, "after the boot: the DSCP of notifications", "grep -qx 50 "+cnpFile)
	stands(t, ctx, g, "after the boot", 0)
	count(setScenario, "boots that set all there is", 1, allHeld(t), time.Since(began))
	return a, b
}

// attemptReset: a setting hangs the boot, and the host is reset. The next boot
// does not try.
func attemptReset(t *testing.T, ctx context.Context, g *lab.Guest, a port) {
	began := time.Now()
	nicUnit(t, ctx, g, "pfc=block", portA)
	if err := g.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Await(ctx); err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "the boot hangs", "for i in $(seq 60); do sh "+stuckTool+" && exit; done; exit 1")
	restartPair(t, ctx, g, "reset in the middle", "reset")
	retry := stopped(t, ctx, g, "next boot")
	must(t, ctx, g, "the next boot does not hang", "! pgrep -x hostcheck && "+unitLog+" | grep -q 'nothing is set: an earlier attempt did not complete'")
	a.set(t, ctx, g, "pfc", "normal")
	hasPFC(t, ctx, g, "not tried again", false, a)
	hasRing(t, ctx, g, "not tried again", "256")
	must(t, ctx, g, "try again", retry)
	hasPFC(t, ctx, g, "tried again", true, a)
	hasRing(t, ctx, g, "tried again", "512")
	idle(t, ctx, g, "status after it", 1)
	nicUnit(t, ctx, g, "", portA)
	count(setScenario, "boots that a setting hung, not tried again until told", 1, allHeld(t), time.Since(began))
}

// switchedOffAtBoot has GRUB give the kernel the word.
func switchedOffAtBoot(t *testing.T, ctx context.Context, g *lab.Guest) (a, b port) {
	began := time.Now()
	must(t, ctx, g, "give GRUB the word", `cp -a /etc/default/grub /root/grub.was && echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX hostcheck.settings=off"' >> /etc/default/grub && update-grub && sync`)
	restartPair(t, ctx, g, "reboot", "reboot")
	must(t, ctx, g, "the kernel has it", "grep -q hostcheck.settings=off /proc/cmdline")
	must(t, ctx, g, "bind the second port", fmt.Sprintf("sh %s intree/mlx5_core.ko %s", nicTool, portB))
	a, b = pairNames(t, "names of the ports", must(t, ctx, g, "names of the ports", fmt.Sprintf("ls /sys/bus/pci/devices/%s/net; ls /sys/bus/pci/devices/%s/net", portA, portB)))
	notSet(t, ctx, g, "boot", a)
	hasPFC(t, ctx, g, "boot", false, b)
	hasRing(t, ctx, g, "boot", "256")
	must(t, ctx, g, "take the word away", "cp -a /root/grub.was /etc/default/grub && update-grub && sync")
	count(setScenario, "switched off on the command line", 1, allHeld(t), time.Since(began))
	return a, b
}
