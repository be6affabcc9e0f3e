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
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// linkScenario is the name under which changes of tier link are counted.
const linkScenario = "changes that may cut the host off"

// The two ports of these scenarios, both given to the lab's mlx5_core.
const (
	portA = mlx5Port
	portB = "0000:02:00.0"
)

// Where their files are in the guest: on its disk, for they are needed after a
// reboot too.
const (
	nicTool     = lab.ModulesDir + "/nic"
	stuckTool   = lab.ModulesDir + "/stuck"
	placesTool  = lab.ModulesDir + "/places"
	pairProfile = lab.ModulesDir + "/pair.yaml"
)

// nicScript is "nic FILE BDF...": it gives devices to a module of the lab, and
// with "-" to no driver. $MODES is for the module when it is loaded. It prints
// the interfaces, a line each.
const nicScript = `#!/bin/sh
set -e
file=$1 driver=$(basename "$1" .ko)
shift
[ "$file" = - ] && driver=none
for bdf; do
	dev=/sys/bus/pci/devices/$bdf
	if [ -e $dev/driver ]; then echo $bdf > $dev/driver/unbind; fi
	echo $driver > $dev/driver_override
done
[ "$file" = - ] && exit
[ -d /sys/module/$driver ] || insmod ` + lab.ModulesDir + `/$file max_channels=8 $MODES
for bdf; do
	[ -e /sys/bus/pci/devices/$bdf/driver ] || echo $bdf > /sys/bus/pci/drivers/$driver/bind
done
udevadm settle
for bdf; do
	name=$(ls /sys/bus/pci/devices/$bdf/net)
	ip link set $name up
	for i in 1 2 3 4 5 6 7 8 9; do
		[ "$(cat /sys/class/net/$name/carrier)" = 1 ] && break
		sleep 0.2
	done
	echo $name
done
`

// stuckScript waits until a hostcheck waits in the kernel for the lab's NIC, and
// with "kill" kills it with SIGKILL and waits until it is gone.
const stuckScript = `#!/bin/sh
for i in $(seq 600); do
	for p in $(pgrep -x hostcheck); do
		grep -qs mlx5_core /proc/$p/task/*/stack || continue
		[ "$1" = kill ] || exit 0
		kill -9 $p
		while [ -e /proc/$p/exe ]; do sleep 0.05; done
		exit 0
	done
	sleep 0.05
done
exit 1
`

// placesScript prints the places that hostcheck keeps things in, its own
// journal apart, and what systemd has of it.
const placesScript = `#!/bin/sh
export LC_ALL=C
find /etc /usr/local /var/lib -xdev \( -path /var/lib/hostcheck -o -path /var/lib/systemd -o -path /var/lib/dpkg \) -prune -o -printf 'file %p %M %U:%G %l\n' | sort
find /etc /usr/local/sbin -xdev -type f -print0 | sort -z | xargs -0 cksum
systemctl list-unit-files --no-legend --no-pager 'hostcheck*'
# a device that named a unit holds the name, and no file, until it is bound again
systemctl list-units --all --plain --no-legend --no-pager 'hostcheck*' | grep -v ' not-found ' || true
`

// pairRules want PFC on priority 3 of both ports, and of the second the DSCP of
// congestion notifications: that is set last at a boot, and without the lock
// of the kernel's network configuration.
const pairRules = `schema: hostcheck.profile/v1
name: lab-pair
layer: site
source: the VM lab
nics:
  - id: both
    match: {driver: mlx5_core}
    pfc: [3]
  - id: second
    match: {bdf: "` + portB + `"}
    cnp_dscp: 50
`

const (
	pairFlags = " --intent guest --profile " + pairProfile
	fixPFC    = "hostcheck fix --yes --allow link -f json dcqcn.pfc" + pairFlags
)

// pairFiles puts the scenario's files into the guest; those of devDir are gone
// after a reboot.
func pairFiles(t *testing.T, ctx context.Context, g *lab.Guest) {
	t.Helper()
	must(t, ctx, g, "make a place for the scenario's files", "mkdir -p "+devDir)
	for p, text := range map[string]string{
		nicTool: nicScript, stuckTool: stuckScript, placesTool: placesScript, pairProfile: pairRules, devDir + "/state": stateScript,
	} {
		if err := g.Push(ctx, p, []byte(text), 0o644); err != nil {
			t.Fatalf("step \"push %s\": %v", p, err)
		}
	}
}

// bindPair gives both ports to the lab's driver.
func bindPair(t *testing.T, ctx context.Context, g *lab.Guest) (a, b port) {
	t.Helper()
	out := must(t, ctx, g, "bind the ports", fmt.Sprintf("sh %s intree/mlx5_core.ko %s %s", nicTool, portA, portB))
	return pairNames(t, "bind the ports", out)
}

func pairNames(t *testing.T, step, out string) (a, b port) {
	t.Helper()
	names := strings.Fields(out)
	if len(names) != 2 {
		t.Fatalf("step %q: the ports are %q", step, out)
	}
	return port{portA, names[0], "mlx5_core"}, port{portB, names[1], "mlx5_core"}
}

// places is what placesScript tells.
func places(t *testing.T, ctx context.Context, g *lab.Guest, step string) []string {
	t.Helper()
	out := must(t, ctx, g, "places "+step, "sh "+placesTool)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) < 300 {
		t.Fatalf("step \"places %s\": they are %d lines only:\n%s", step, len(lines), out)
	}
	return lines
}

// hasPFC wants PFC on priority 3 of these ports and no other, or on none.
func hasPFC(t *testing.T, ctx context.Context, g *lab.Guest, step string, on bool, ports ...port) {
	t.Helper()
	want := ""
	if on {
		want = "3:on"
	}
	for _, p := range ports {
		out := must(t, ctx, g, step+": PFC", "dcb pfc show dev "+p.name+" prio-pfc | grep -o '[0-7]:on' || true")
		if got := strings.Join(strings.Fields(out), " "); got != want {
			t.Errorf("step %q: PFC of %s is %q, want %q", step, p.name, got, want)
		}
	}
}

// stands gives "hostcheck status", which must exit with that code.
func stands(t *testing.T, ctx context.Context, g *lab.Guest, step string, code int) report.Status {
	t.Helper()
	return document[report.Status](t, step, exits(t, ctx, g, step+": status", code, "hostcheck status -f json").Out)
}

// latest is the first transaction of "hostcheck history".
func latest(t *testing.T, ctx context.Context, g *lab.Guest, step string) report.Txn {
	t.Helper()
	h := document[report.History](t, step, must(t, ctx, g, step+": history", "hostcheck history -f json"))
	if len(h.Transactions) == 0 {
		t.Fatalf("step %q: the history is empty", step)
	}
	return h.Transactions[0]
}

// allHeld is 1 where nothing failed in a test.
func allHeld(t *testing.T) int {
	if t.Failed() {
		return 0
	}
	return 1
}

// deadline is how a scenario reaches the end of the two minutes.
type deadline func(t *testing.T, ctx context.Context, g *lab.Guest, step string)

// expired waits until the timer's run is over and has left nothing.
func expired(t *testing.T, ctx context.Context, g *lab.Guest, step string, within time.Duration) {
	t.Helper()
	must(t, ctx, g, step+": wait for the timer's run", fmt.Sprintf(`for i in $(seq %d); do
	[ -e /etc/systemd/system/hostcheck-expire.service ] || [ "$(systemctl show -P ActiveState hostcheck-expire.service)" = activating ] || exit 0
	sleep 0.5
done
systemctl status --no-pager hostcheck-expire.timer hostcheck-expire.service >&2
exit 1`, int(within.Seconds())*2))
}

// stepClock ends the two minutes at once: the timer is told to look also when
// somebody sets the clock, and the clock is set. It never goes back, for
// transactions are named after the time.
func stepClock(t *testing.T, ctx context.Context, g *lab.Guest, step string) {
	t.Helper()
	must(t, ctx, g, step+": set the clock", "date -s '+3 minutes'")
	expired(t, ctx, g, step, time.Minute)
}

// onClock has the timer look also when the clock is set.
func onClock(t *testing.T, ctx context.Context, g *lab.Guest) {
	t.Helper()
	const dir = "/run/systemd/system/hostcheck-expire.timer.d"
	must(t, ctx, g, "let the timer look at the clock", fmt.Sprintf(`mkdir -p %s && printf '[Timer]\nOnClockChange=yes\n' > %[1]s/lab.conf`, dir))
}

// patience waits the two minutes, and until the timer's run is over.
func patience(t *testing.T, ctx context.Context, g *lab.Guest, step string) {
	t.Helper()
	expired(t, ctx, g, step, 5*time.Minute)
}

// TestLink is what becomes of changes that may cut off who made them: they are
// taken back by systemd when hostcheck is dead or nobody confirms, kept when
// somebody does, and never made of what the host is managed through.
func TestLink(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	if !testing.Short() {
		ctx = limit(t, 80*time.Minute)
	}
	g := settled(t, ctx, lab.Options{})
	pairFiles(t, ctx, g)
	a, b := bindPair(t, ctx, g)
	onClock(t, ctx, g)
	ok := t.Run("killed", func(t *testing.T) { killedHalfWay(t, ctx, g, a, b, stepClock) }) &&
		t.Run("unconfirmed", func(t *testing.T) { unconfirmed(t, ctx, g, a, b, stepClock) }) &&
		(testing.Short() || t.Run("confirmed", func(t *testing.T) { confirmed(t, ctx, g, a, b) })) && // TestSettings confirms, too
		t.Run("management", func(t *testing.T) { management(t, ctx, g, a, b) })
	if testing.Short() || !ok { // what fails leaves the guest in a state that says nothing about the next
		return
	}
	must(t, ctx, g, "let the timer count alone", "rm -r /run/systemd/system/hostcheck-expire.timer.d && systemctl daemon-reload")
	_ = t.Run("killed, two minutes", func(t *testing.T) { killedHalfWay(t, ctx, g, a, b, patience) }) &&
		t.Run("unconfirmed, two minutes", func(t *testing.T) { unconfirmed(t, ctx, g, a, b, patience) }) &&
		t.Run("undo killed", func(t *testing.T) { undoKilled(t, ctx, g, a, b) }) &&
		t.Run("cut off", func(t *testing.T) { cutOff(t, ctx, g, a, b) }) &&
		t.Run("reset", func(t *testing.T) { resetWhileUnconfirmed(t, ctx, g, a, b) })
}

// killedHalfWay: the first port has its change, which keeps its link down, the
// second one does not answer, and hostcheck is killed. The timer puts both back.
func killedHalfWay(t *testing.T, ctx context.Context, g *lab.Guest, a, b port, end deadline) {
	began := time.Now()
	was := places(t, ctx, g, "before")
	var wasA, wasB []string
	if !testing.Short() {
		wasA, wasB = a.state(t, ctx, g, "before"), b.state(t, ctx, g, "before")
	}
	halfWay(t, ctx, g, a, b, "kill")
	must(t, ctx, g, "the link is cut", fmt.Sprintf("test \"$(cat /sys/class/net/%s/carrier)\" = 0 && ! pgrep -x hostcheck", a.name))
	hasPFC(t, ctx, g, "killed", true, a)
	hasPFC(t, ctx, g, "killed", false, b)
	s := stands(t, ctx, g, "killed", 1)
	if len(s.Pending) != 1 || !s.Pending[0].Expires || s.Pending[0].State != plan.Unfinished || s.Unconfirmed != nil || s.Busy != nil {
		t.Fatalf("step \"killed\": %+v", s)
	}
	a.set(t, ctx, g, "toggle_ms", "100") // with the old setting its link comes back
	end(t, ctx, g, "killed")
	takenBack(t, ctx, g, "killed", s.Pending[0].ID, was, a, b)
	must(t, ctx, g, "the link is back", fmt.Sprintf("for i in $(seq 50); do [ \"$(cat /sys/class/net/%s/carrier)\" = 1 ] && exit; sleep 0.1; done; exit 1", a.name))
	if !testing.Short() {
		same(t, "killed", wasA, a.state(t, ctx, g, "after"))
		same(t, "killed", wasB, b.state(t, ctx, g, "after"))
	}
	count(linkScenario, "changes killed half way, taken back by the timer", 1, allHeld(t), time.Since(began))
}

// halfWay starts a change of both ports that stays in the second; how is what
// becomes of it: "kill", or "" when it goes on being stuck.
func halfWay(t *testing.T, ctx context.Context, g *lab.Guest, a, b port, how string) {
	t.Helper()
	a.set(t, ctx, g, "toggle_ms", "3600000")
	a.set(t, ctx, g, "killable", "Y")
	a.set(t, ctx, g, "only", b.bdf)
	a.set(t, ctx, g, "pfc", "block")
	start(t, ctx, g, "half-way", fixPFC)
	must(t, ctx, g, "the second port does not answer", "sh "+stuckTool+" "+how)
	if how == "" {
		return
	}
	a.set(t, ctx, g, "pfc", "normal")
	a.set(t, ctx, g, "only", "")
}

// takenBack wants the transaction undone, and nothing left of it.
func takenBack(t *testing.T, ctx context.Context, g *lab.Guest, step, id string, was []string, ports ...port) {
	t.Helper()
	hasPFC(t, ctx, g, step+", taken back", false, ports...)
	same(t, step, was, places(t, ctx, g, "after"))
	if x := latest(t, ctx, g, step); x.ID != id || x.State != plan.WasUndone {
		t.Errorf("step %q: the history begins with %s, which is %s; want %s, undone", step, x.ID, x.State, id)
	}
	if s := stands(t, ctx, g, step+", taken back", 0); len(s.Pending)+len(s.Applied) > 0 || s.Unconfirmed != nil {
		t.Errorf("step %q: %+v", step, s)
	}
	no := exits(t, ctx, g, step+": confirm too late", 2, "hostcheck confirm")
	if !strings.Contains(no.Err, "nothing waits to be confirmed") {
		t.Errorf("step %q: a confirmation that comes too late is told %q", step, no.Err)
	}
}

// waiting makes the change of both ports and wants it to wait.
func waiting(t *testing.T, ctx context.Context, g *lab.Guest, step string, a, b port) report.Fix {
	t.Helper()
	f := document[report.Fix](t, step, must(t, ctx, g, step, fixPFC))
	if f.Result.Outcome != plan.Applied || f.Result.Until == nil || f.Result.Confirm == "" || len(f.Plan.Refused) > 0 {
		t.Fatalf("step %q: %+v\nrefused: %+v", step, f.Result, f.Plan.Refused)
	}
	hasPFC(t, ctx, g, step, true, a, b)
	s := stands(t, ctx, g, step, 1)
	if u := s.Unconfirmed; u == nil || u.ID != f.Result.Txn || u.Left < 1 || u.Left > 120 || len(s.Pending) > 0 || len(s.Applied) > 0 {
		t.Fatalf("step %q: %+v", step, s)
	}
	must(t, ctx, g, step+": the timer runs, and what lasts is not there yet",
		"systemctl -q is-active hostcheck-expire.timer && systemctl -q is-enabled hostcheck-expire.timer && ! ls -d /etc/hostcheck /etc/systemd/system/hostcheck-settings.service 2> /dev/null")
	return f
}

// unconfirmed: hostcheck has done all, and nobody comes.
func unconfirmed(t *testing.T, ctx context.Context, g *lab.Guest, a, b port, end deadline) {
	began := time.Now()
	was := places(t, ctx, g, "before")
	f := waiting(t, ctx, g, "fix", a, b)
	made := time.Now()
	end(t, ctx, g, "fix")
	t.Logf("taken back %.0f s after it was made", time.Since(made).Seconds())
	takenBack(t, ctx, g, "fix", f.Result.Txn, was, a, b)
	count(linkScenario, "changes that nobody confirms, taken back by the timer", 1, allHeld(t), time.Since(began))
}

// confirmed: it lasts, the timer is gone, and an undo leaves nothing.
func confirmed(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	began := time.Now()
	was := places(t, ctx, g, "before")
	f := waiting(t, ctx, g, "fix", a, b)
	no := exits(t, ctx, g, "fix while one waits", 2, fixPFC)
	if !strings.Contains(no.Err, f.Result.Txn) {
		t.Errorf("step \"fix while one waits\": the refusal does not name %s: %s", f.Result.Txn, no.Err)
	}
	c := document[report.Confirmed](t, "confirm", must(t, ctx, g, "confirm", f.Result.Confirm+" -f json"))
	if c.Result.Outcome != plan.Applied || c.Result.Txn != f.Result.Txn {
		t.Errorf("step \"confirm\": %+v", c)
	}
	lasting(t, ctx, g, "confirm")
	time.Sleep(130 * time.Second) // the time passes, and nothing happens
	hasPFC(t, ctx, g, "confirmed", true, a, b)
	idle(t, ctx, g, "status after the confirmation", 1)
	undoAll(t, ctx, g, "undo", 1)
	hasPFC(t, ctx, g, "undo", false, a, b)
	same(t, "undo", was, places(t, ctx, g, "after the undo"))
	count(linkScenario, "changes that are confirmed, and undone later", 1, allHeld(t), time.Since(began))
}

// lasting wants no timer, and the unit of each boot.
func lasting(t *testing.T, ctx context.Context, g *lab.Guest, step string) {
	t.Helper()
	must(t, ctx, g, step+": the timer is gone, and the unit of each boot is there", `
! systemctl -q is-active hostcheck-expire.timer && ! ls /etc/systemd/system/hostcheck-expire.* /etc/systemd/system/timers.target.wants/hostcheck-expire.timer 2> /dev/null &&
systemctl -q is-enabled hostcheck-settings.service && test -s /etc/hostcheck/settings.d/50-hostcheck.yaml -a -s /etc/udev/rules.d/99-hostcheck-settings.rules`)
}

// managements are ways to manage a host through the first port: what is made
// of it, and taken away again; {} is its name.
var managements = []struct{ name, up, down string }{
	{"the port itself", "ip addr add 192.0.2.2/24 dev {} && ip route add default via 192.0.2.1", "ip addr flush dev {}"},
	{"a VLAN on a bond", "ip link set {} down && ip link add bond0 type bond mode active-backup && ip link set {} master bond0 && ip link set {} up && ip link set bond0 up && " +
		"ip link add link bond0 name bond0.7 type vlan id 7 && ip link set bond0.7 up && ip addr add 192.0.2.2/24 dev bond0.7 && ip route add default via 192.0.2.1",
		"ip link del bond0.7; ip link set {} nomaster; ip link del bond0; ip link set {} up"},
	{"a bridge", "ip link add br0 type bridge && ip link set {} master br0 && ip link set br0 up && ip addr add 192.0.2.2/24 dev br0 && ip route add default via 192.0.2.1",
		"ip link del br0"},
	{"a VLAN, by IPv6", "ip link add link {} name vlan7 type vlan id 7 && ip link set vlan7 up && ip -6 addr add 2001:db8::2/64 nodad dev vlan7 && ip -6 route add default via 2001:db8::1 dev vlan7",
		"ip link del vlan7"},
	{"an SSH session", sshUp + " && ip route replace 203.0.113.2/32 dev {}", "ip route del 203.0.113.2/32; " + sshDown},
	{"an SSH session that rules send out", sshUp + " && ip route del 203.0.113.2/32 && ip addr del 198.51.100.1/24 dev near && ip addr add 198.51.100.1/24 dev {} && " +
		"ip rule add from 198.51.100.1 table 7 && ip route add default via 198.51.100.254 dev {} table 7 && ip addr add 192.0.2.2/24 dev near && ip route add default via 192.0.2.1",
		"ip rule del table 7; ip addr flush dev {}; " + sshDown},
}

// sshUp makes a session from 203.0.113.2, over a pair of interfaces. It stays
// established wherever its peer and its address are moved then.
const (
	sshUp = "ip netns add far && ip link add near type veth peer name far netns far && ip addr add 198.51.100.1/24 dev near && ip link set near up && ip route add 203.0.113.2/32 dev near && " +
		"ip -n far addr add 203.0.113.2/32 dev far && ip -n far link set far up && ip -n far route add 198.51.100.0/24 dev far && " +
		"(perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalPort => 22, ReuseAddr => 1) or die; $c = $s->accept; sleep 600' > /dev/null 2>&1 & echo $! > /run/sshd.lab) && sleep 1 && " +
		"(ip netns exec far perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"198.51.100.1:22\") or die; sleep 600' > /dev/null 2>&1 & echo $! > /run/ssh.lab) && " +
		"for i in $(seq 50); do grep -q ':0016 .* 01 ' /proc/net/tcp && break; sleep 0.1; done && grep -q ':0016 .* 01 ' /proc/net/tcp"
	sshDown = "kill $(cat /run/sshd.lab /run/ssh.lab); ip link del near; ip netns del far"
)

// management: the host is managed through the first port. It is refused by
// name, the other port gets its change, which --confirm=auto keeps.
func management(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	ways := managements
	if testing.Short() {
		ways = ways[:2]
	}
	for _, m := range ways {
		began := time.Now()
		t.Run(m.name, func(t *testing.T) {
			shell := func(what, command string) {
				t.Helper()
				must(t, ctx, g, what, strings.ReplaceAll(command, "{}", a.name))
			}
			shell("make "+m.name, m.up)
			p := document[plan.Plan](t, "plan", exits(t, ctx, g, "plan", 1, "hostcheck plan --allow link -f json dcqcn.pfc"+pairFlags).Out)
			refusesManagement(t, "plan", p, a, b)
			if !testing.Short() {
				was := places(t, ctx, g, "before")
				managed(t, ctx, g, a, b)
				same(t, "undo", was, places(t, ctx, g, "after the undo"))
			}
			shell("take away "+m.name, m.down)
		})
		count(linkScenario, "what the host is managed through, refused by name", 1, allHeld(t), time.Since(began))
	}
}

func managed(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	// the port that is left alone still fails its check
	f := document[report.Fix](t, "fix", exits(t, ctx, g, "fix", 1, fixPFC+" --confirm=auto").Out)
	if f.Result.Outcome != plan.Applied || f.Result.Until != nil || f.Result.Confirm != "" {
		t.Fatalf("step \"fix\": %+v", f.Result)
	}
	refusesManagement(t, "fix", f.Plan, a, b)
	hasPFC(t, ctx, g, "fix", false, a)
	hasPFC(t, ctx, g, "fix", true, b)
	lasting(t, ctx, g, "fix")
	idle(t, ctx, g, "status after the fix", 1)
	must(t, ctx, g, "the timer was armed all the same", "journalctl -b --no-pager -o cat _PID=1 + UNIT=hostcheck-expire.timer | grep -q 'Started hostcheck-expire.timer'")
	undoAll(t, ctx, g, "undo", 1)
	hasPFC(t, ctx, g, "undo", false, a, b)
}

// refusesManagement wants the first port refused, and a change of the second.
func refusesManagement(t *testing.T, step string, p plan.Plan, a, b port) {
	t.Helper()
	if len(p.Refused) != 1 || p.Refused[0].Target != a.subject() || !strings.Contains(p.Refused[0].Reason, a.name+" is not touched without --allow-mgmt: ") || len(p.Refused[0].Steps) == 0 {
		t.Errorf("step %q: refused is %+v", step, p.Refused)
	}
	for _, c := range p.Changes {
		if c.Kind == "dcb" && c.Target != b.subject() {
			t.Errorf("step %q: %s is to be changed", step, c.Setting)
		}
	}
}

// undoKilled: an undo of what was confirmed is killed half way, and the timer
// finishes it.
func undoKilled(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	began := time.Now()
	was := places(t, ctx, g, "before")
	f := applied(t, ctx, g, "fix", fixPFC+" --confirm=auto")
	a.set(t, ctx, g, "only", a.bdf) // an undo begins at the end
	a.set(t, ctx, g, "pfc", "block")
	start(t, ctx, g, "undo", "hostcheck undo")
	must(t, ctx, g, "kill the undo", "sh "+stuckTool+" kill")
	a.set(t, ctx, g, "pfc", "normal")
	a.set(t, ctx, g, "only", "")
	hasPFC(t, ctx, g, "killed", true, a)
	hasPFC(t, ctx, g, "killed", false, b)
	s := stands(t, ctx, g, "killed", 1)
	if len(s.Pending) != 1 || !s.Pending[0].Expires || s.Pending[0].ID != f.Result.Txn {
		t.Fatalf("step \"killed\": %+v", s)
	}
	patience(t, ctx, g, "killed")
	takenBack(t, ctx, g, "killed", f.Result.Txn, was, a, b)
	count(linkScenario, "undos killed half way, finished by the timer", 1, allHeld(t), time.Since(began))
}

// cutOff: with --allow-mgmt the change of the management link is made, and
// taken back at once when the link does not come back.
func cutOff(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	began := time.Now()
	was := places(t, ctx, g, "before")
	shell := func(what, command string) {
		t.Helper()
		must(t, ctx, g, what, strings.ReplaceAll(command, "{}", a.name))
	}
	shell("make the default route", managements[0].up)
	a.set(t, ctx, g, "toggle_ms", "3600000")
	f := document[report.Fix](t, "fix", exits(t, ctx, g, "fix", 4, fixPFC+" --allow-mgmt").Out)
	if f.Result.Outcome != plan.Restored || len(f.Result.Left) > 0 || !strings.Contains(f.Result.Cause, a.name+" was up and is down") {
		t.Errorf("step \"fix\": %+v", f.Result)
	}
	hasPFC(t, ctx, g, "restored", false, a, b)
	same(t, "restored", was, places(t, ctx, g, "after"))
	a.set(t, ctx, g, "toggle_ms", "100")
	must(t, ctx, g, "mend the link", fmt.Sprintf("dcb pfc set dev %[1]s prio-pfc 5:on && dcb pfc set dev %[1]s prio-pfc all:off && sleep 1", a.name))
	f = document[report.Fix](t, "fix a link that comes back", must(t, ctx, g, "fix a link that comes back", fixPFC+" --allow-mgmt --confirm=auto"))
	if f.Result.Outcome != plan.Applied || len(f.Plan.Refused) > 0 {
		t.Errorf("step \"fix a link that comes back\": %+v", f.Result)
	}
	hasPFC(t, ctx, g, "fix a link that comes back", true, a, b)
	undoAll(t, ctx, g, "undo", 1)
	shell("take the default route away", managements[0].down)
	same(t, "undo", was, places(t, ctx, g, "after the undo"))
	count(linkScenario, "management links that stay down, put back at once", 1, allHeld(t), time.Since(began))
}

// nicUnit has the guest's boots give the ports to the lab's driver, before
// hostcheck looks: with these modes, and these ports.
func nicUnit(t *testing.T, ctx context.Context, g *lab.Guest, modes string, ports ...string) {
	t.Helper()
	unit := fmt.Sprintf(`[Unit]
Description=The lab's NIC, in place of the real one
DefaultDependencies=no
Wants=systemd-udev-settle.service
After=local-fs.target systemd-udev-settle.service
Before=network.target hostcheck-settings.service

[Service]
Type=oneshot
Environment="MODES=%s"
ExecStart=/bin/sh %s - %s %s
ExecStart=/bin/sh %[2]s intree/mlx5_core.ko %[5]s

[Install]
WantedBy=multi-user.target
`, modes, nicTool, portA, portB, strings.Join(ports, " "))
	if err := g.Push(ctx, "/etc/systemd/system/lab-nic.service", []byte(unit), 0o644); err != nil {
		t.Fatalf("step \"push lab-nic.service\": %v", err)
	}
	must(t, ctx, g, "have boots bind the ports", "systemctl -q enable lab-nic.service && sync")
}

// restartPair makes the guest come up anew, by its reset button or, with "reboot",
// in order.
func restartPair(t *testing.T, ctx context.Context, g *lab.Guest, step, how string) {
	t.Helper()
	try, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	var err error
	if how == "reboot" {
		err = g.Reboot(try)
	} else if err = g.Reset(try); err == nil {
		err = g.Settle(try)
	}
	if errors.Is(err, lab.ErrStalled) || errors.Is(err, context.DeadlineExceeded) {
		g.Cut()
		err = comeUp(ctx, g)
	}
	if err != nil {
		t.Fatalf("step %q: %v", step, err)
	}
	pairFiles(t, ctx, g)
}

// resetWhileUnconfirmed presses the reset button while a change waits, and
// while one is half way: the timer counts again from the boot, nothing is set
// again, and it takes back what the disk has.
func resetWhileUnconfirmed(t *testing.T, ctx context.Context, g *lab.Guest, a, b port) {
	nicUnit(t, ctx, g, "", portA, portB)
	was := places(t, ctx, g, "before")
	for _, when := range []string{"waits", "half way"} {
		began := time.Now()
		t.Run(when, func(t *testing.T) {
			id := ""
			if when == "waits" {
				id = waiting(t, ctx, g, "fix", a, b).Result.Txn
			} else {
				halfWay(t, ctx, g, a, b, "")
			}
			restartPair(t, ctx, g, "reset", "reset")
			hasPFC(t, ctx, g, "boot", false, a, b)
			s, up := stands(t, ctx, g, "boot", 1), must(t, ctx, g, "how long it is up", "cut -d. -f1 /proc/uptime")
			t.Logf("looked %s s after the boot", strings.TrimSpace(up))
			switch {
			case when == "waits" && (s.Unconfirmed == nil || s.Unconfirmed.ID != id || s.Unconfirmed.Left > 120):
				t.Fatalf("step \"boot\": %+v", s)
			case when == "half way" && (len(s.Pending) != 1 || !s.Pending[0].Expires):
				t.Fatalf("step \"boot\": %+v", s)
			case when == "half way":
				id = s.Pending[0].ID
			default:
				no := exits(t, ctx, g, "confirm what the reset undid", 2, "hostcheck confirm")
				if !strings.Contains(no.Err, "a reboot has reset it") {
					t.Errorf("step \"confirm what the reset undid\": %s", no.Err)
				}
			}
			patience(t, ctx, g, "boot")
			takenBack(t, ctx, g, "boot", id, was, a, b)
		})
		count(linkScenario, "changes that a reset comes between, taken back by the timer", 1, allHeld(t), time.Since(began))
	}
}
