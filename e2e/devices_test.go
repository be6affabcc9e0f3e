// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// devScenario is the name under which all of this is counted.
const devScenario = "devices that misbehave"

// devDir is where the scenario keeps its files in the guest.
const devDir = "/run/lab-devices"

// What the lab's modules are bound to: an igb on node 0, and one on node 1.
const (
	mlx5Port = "0000:01:00.0"
	manaPort = "0000:41:00.0"
)

// bindScript is "bind FILE DRIVER BDF": it gives a device to a module of the
// lab, which is loaded anew, and prints the interface.
const bindScript = `#!/bin/sh
set -e
file=$1 driver=$2 bdf=$3 dev=/sys/bus/pci/devices/$3
if [ -d /sys/module/$driver ]; then rmmod $driver; fi
if [ -e $dev/driver ]; then echo $bdf > $dev/driver/unbind; fi
echo $driver > $dev/driver_override
insmod ` + lab.ModulesDir + `/$file max_channels=8
if [ ! -e $dev/driver ]; then echo $bdf > /sys/bus/pci/drivers/$driver/bind; fi
udevadm settle
name=$(ls $dev/net)
ip link set $name up
for i in 1 2 3 4 5 6 7 8 9; do
	[ "$(cat /sys/class/net/$name/carrier)" = 1 ] && break
	sleep 0.2
done
echo $name
`

// stateScript prints all that hostcheck can set of an interface, and more.
const stateScript = `#!/bin/sh
export LC_ALL=C
name=$1 dev=$(readlink -f /sys/class/net/$1/device)
for what in -g -l -k -a -c --show-priv-flags --show-fec; do
	ethtool $what $name 2>&1 | sed "s/^/ethtool $what /"
done
for what in pfc app ets dcbx; do
	dcb $what show dev $name 2>&1 | sed "s/^/dcb $what /"
done
cd /sys/class/net/$name
grep -H . mtu flags
grep -rH . ecn qos 2>/dev/null | sort
grep -H . $dev/sriov_numvfs $dev/sriov_drivers_autoprobe
grep -rH . /sys/kernel/debug/mlx5/${dev##*/}/cc_params 2>/dev/null | sort
ls -l /etc/systemd/network
`

// port is a device with a module of the lab.
type port struct{ bdf, name, driver string }

func (p port) subject() string { return p.bdf + " " + p.name }

// parameter is the file of a parameter of its module.
func (p port) parameter(name string) string { return "/sys/module/" + p.driver + "/parameters/" + name }

// bind loads a module and gives it a device.
func bind(t *testing.T, ctx context.Context, g *lab.Guest, file, bdf string) port {
	t.Helper()
	driver := strings.TrimSuffix(filepath.Base(file), ".ko")
	out := must(t, ctx, g, "bind "+file, fmt.Sprintf("sh %s/bind %s %s %s", devDir, file, driver, bdf))
	return port{bdf, strings.TrimSpace(out), driver}
}

// set sets a parameter of the port's module: a mode, an error number.
func (p port) set(t *testing.T, ctx context.Context, g *lab.Guest, name, value string) {
	t.Helper()
	must(t, ctx, g, "set "+name+" to "+value, fmt.Sprintf("echo %s > %s", value, p.parameter(name)))
}

// state is how the port's settings stand.
func (p port) state(t *testing.T, ctx context.Context, g *lab.Guest, step string) []string {
	t.Helper()
	out := must(t, ctx, g, "settings "+step, "sh "+devDir+"/state "+p.name)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) < 70 {
		t.Fatalf("step %q: the settings of %s are %d lines only:\n%s", step, p.name, len(lines), out)
	}
	return lines
}

// changerBinary builds internal/lab/changer, once.
var changerBinary = sync.OnceValues(func() (string, error) {
	out := filepath.Join(filepath.Dir(built["amd64"]), "changer")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./internal/lab/changer")
	c.Dir = theLab.Source()
	c.Env = append(c.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build changer: %w\n%s", err, text)
	}
	return out, nil
})

// done is what changer prints.
type done struct {
	Changes []plan.Change
	Refused []plan.Refusal
	Result  report.Result
}

// changer is the command that makes changes of a port: kinds, names and
// values, each as "ethtool|rings rx|4096".
func (p port) changer(flags string, wishes ...string) string {
	c := devDir + "/changer " + flags
	for _, w := range wishes {
		kind, rest, _ := strings.Cut(w, "|")
		c += fmt.Sprintf(" '%s|%s|%s'", kind, p.subject(), rest)
	}
	return c
}

// devices puts the scenario's files into a guest.
func devices(t *testing.T, ctx context.Context) *lab.Guest {
	t.Helper()
	g := settled(t, ctx, lab.Options{})
	bin, err := changerBinary()
	if err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "make a place for the scenario's files", "mkdir -p "+devDir+" && mount -t tmpfs -o exec none "+devDir)
	if err := g.PushFile(ctx, bin, devDir+"/changer", 0o755); err != nil {
		t.Fatalf("step \"push changer\": %v", err)
	}
	for name, text := range map[string]string{"bind": bindScript, "state": stateScript, "profile.yaml": devProfile} {
		if err := g.Push(ctx, devDir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatalf("step \"push %s\": %v", name, err)
		}
	}
	return g
}

// devProfile wants of a ConnectX-7 what a fabric with DSCP 26 in priority 3 wants.
const devProfile = `schema: hostcheck.profile/v1
name: lab-devices
layer: site
source: the VM lab
nics:
  - id: lab
    match: {bdf: "` + mlx5Port + `"}
    dcbx: host
    trust: dscp
    pfc: [3]
    dcqcn: [3]
    cnp_dscp: 50
    cc_params: [rp_ai_rate=10, np_min_time_between_cnps=8]
`

const devFlags = " --intent guest --profile " + devDir + "/profile.yaml"

// The checks that devProfile is about; only the out-of-tree driver tells
// whether DCQCN is enabled.
const (
	inTreeChecks = "dcqcn.cnp_dscp dcqcn.params dcqcn.trust dcqcn.pfc dcqcn.pause dcqcn.owner"
	ofedChecks   = inTreeChecks + " dcqcn.enabled"
)

// honestWishes is what no check asks for.
var honestWishes = []string{
	"ethtool|rings rx|4096", "ethtool|rings tx|2048", "ethtool|channels combined|3",
	"ethtool|flag rx_cqe_compress|on", "ethtool|feature rx-fcs|on", "ethtool|coalesce rx-usecs|32", "sriov|numvfs|2",
}

// TestDevices binds the lab's fake NICs to PCI devices of the guest: what
// hostcheck tells of them, what it changes, and what it does when they lie,
// refuse, do half, or never answer.
func TestDevices(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	if !testing.Short() {
		ctx = limit(t, 90*time.Minute)
	}
	g := devices(t, ctx)
	mana := bind(t, ctx, g, "mana.ko", manaPort)
	for _, flavour := range []string{"ofed", "in-tree"} {
		t.Run(flavour, func(t *testing.T) {
			p := bind(t, ctx, g, strings.ReplaceAll(flavour, "-", "")+"/mlx5_core.ko", mlx5Port)
			t.Run("facts", func(t *testing.T) { sameFacts(t, ctx, g, flavour, p, mana) })
			// what fails leaves the guest in a state that says nothing about the next
			ok := t.Run("honest", func(t *testing.T) { honest(t, ctx, g, flavour, p) }) &&
				t.Run("modes", func(t *testing.T) { modes(t, ctx, g, flavour, p, mana) })
			if ok && flavour == "ofed" {
				_ = t.Run("slow", func(t *testing.T) { slow(t, ctx, g, p) }) && t.Run("blocked", func(t *testing.T) { blocked(t, ctx, g, p) })
			}
		})
		if testing.Short() {
			break
		}
	}
	t.Run("dma", func(t *testing.T) { dma(t, ctx, g) })
}

// honest takes a device that does what it is told through the closed loop.
func honest(t *testing.T, ctx context.Context, g *lab.Guest, flavour string, p port) {
	began := time.Now()
	checks := inTreeChecks
	must(t, ctx, g, "spoil", "dcb pfc set dev "+p.name+" prio-pfc 4:on")
	changes := 0
	if flavour == "ofed" {
		checks = ofedChecks
		must(t, ctx, g, "spoil", fmt.Sprintf("echo 0 | tee /sys/class/net/%s/ecn/roce_np/enable/3 /sys/class/net/%[1]s/ecn/roce_rp/enable/3", p.name))
	}
	start := p.state(t, ctx, g, "before the fix")
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck "+checks+devFlags)
	exits(t, ctx, g, "plan", 1, "hostcheck plan "+checks+devFlags+" --allow link")
	fix := "hostcheck fix --yes --allow link --confirm=auto -f json " + checks + devFlags
	f := applied(t, ctx, g, "fix", fix)
	// the device's, the timer that guards them, and what sets them again at each boot
	kinds(t, "fix", f, "dcb", "dcqcn", "deadline", "ethtool", "file", "unit")
	for _, c := range f.Plan.Changes {
		if slices.Contains([]string{"dcb", "dcqcn", "ethtool"}, c.Kind) {
			changes++
		}
	}
	must(t, ctx, g, "judge after the fix", "hostcheck --fail-on warn "+checks+devFlags)
	agree := fmt.Sprintf("set -e; dcb pfc show dev %s prio-pfc | grep -q '2:off 3:on 4:off'; test \"$(dcb app show dev %[1]s dscp-prio | grep -o '[^ ]*:[0-7]' | wc -l)\" = 64; "+
		"ethtool -a %[1]s | grep -qx 'RX:.*off'; grep -qx 10 /sys/kernel/debug/mlx5/%[2]s/cc_params/rp_ai_rate; grep -qx 50 /sys/kernel/debug/mlx5/%[2]s/cc_params/np_cnp_dscp", p.name, p.bdf)
	if flavour == "ofed" {
		agree += fmt.Sprintf("; cd /sys/class/net/%s; grep -qx dscp qos/trust; grep -qx 1 ecn/roce_np/enable/3; grep -qx 1 ecn/roce_rp/enable/3; grep -qx 8 ecn/roce_np/min_time_between_cnps", p.name)
	}
	must(t, ctx, g, "ethtool, dcb and sysfs agree", agree)
	again := document[report.Fix](t, "fix again", must(t, ctx, g, "fix again", fix))
	if again.Result.Outcome != report.OutcomeNothing {
		t.Errorf("step \"fix again\": %+v", again.Result)
	}
	d := document[done](t, "change the rest", must(t, ctx, g, "change the rest", p.changer("", honestWishes...)))
	if d.Result.Outcome != plan.Applied || len(d.Refused) > 0 || len(d.Changes) < len(honestWishes) {
		t.Fatalf("step \"change the rest\": %+v\n%+v", d.Result, d.Refused)
	}
	changes += len(d.Changes)
	must(t, ctx, g, "ethtool and sysfs agree", fmt.Sprintf("set -e; ethtool -g %s | grep -qx 'RX:[[:space:]]*4096'; ethtool -g %[1]s | grep -qx 'TX:[[:space:]]*2048'; ethtool -l %[1]s | grep -qx 'Combined:[[:space:]]*3'; "+
		"ethtool --show-priv-flags %[1]s | grep -q 'rx_cqe_compress *: on'; ethtool -k %[1]s | grep -qx 'rx-fcs: on'; ethtool -c %[1]s | grep -qx 'rx-usecs:[[:space:]]*32'; grep -qx 2 /sys/bus/pci/devices/%[2]s/sriov_numvfs", p.name, p.bdf))
	idle(t, ctx, g, "status after the fix", 2)
	if n := len(difference(start, p.state(t, ctx, g, "after the fix"))); n < changes {
		t.Errorf("step \"fix\": %d changes are %d lines of difference only", changes, n)
	}
	undoAll(t, ctx, g, "undo", 2)
	idle(t, ctx, g, "status after the undo", 0)
	held := 0
	if same(t, "undo", start, p.state(t, ctx, g, "after the undo")) {
		held = changes
	}
	must(t, ctx, g, "clean up", "dcb pfc set dev "+p.name+" prio-pfc all:off")
	if flavour == "ofed" {
		must(t, ctx, g, "clean up", fmt.Sprintf("echo 1 | tee /sys/class/net/%s/ecn/roce_np/enable/3 /sys/class/net/%[1]s/ecn/roce_rp/enable/3", p.name))
	}
	count(devScenario, "changes of an honest NIC, undone", changes, held, time.Since(began))
}

// dma loads the fake DMA engine and each posting of dcbm: hostcheck judges the
// host as before, and the control files take what they are given.
func dma(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	tried, held := 0, 0
	verdict := func(step string) report.Report {
		r, err := g.Run(ctx, "hostcheck -f json")
		if err != nil || r.Late {
			t.Fatalf("step %q: %v %+v", step, err, r)
		}
		return document[report.Report](t, step, r.Out)
	}
	before := verdict("judge before")
	must(t, ctx, g, "load fakedma", "insmod "+lab.ModulesDir+"/fakedma.ko channels=4 && test \"$(ls /sys/class/dma | wc -l)\" -ge 4")
	revs := []int{1, 2, 3, 4, 5, 6}
	if testing.Short() {
		revs = []int{6}
	}
	for _, rev := range revs {
		must(t, ctx, g, fmt.Sprintf("load dcbm rev %d", rev), fmt.Sprintf("insmod %s/dcbm.ko rev=%d", lab.ModulesDir, rev))
		for _, f := range dcbmFiles(rev) {
			tried++
			step := fmt.Sprintf("rev %d, %s", rev, f.path)
			// the first posting answers 4 whatever it was given, at which printf would go on writing
			r, err := g.Run(ctx, fmt.Sprintf("was=$(cat %s) && printf %s | dd of=%[1]s bs=4 2>/dev/null; cat %[1]s; printf %%s \"$was\" | dd of=%[1]s bs=64 2>/dev/null; cat %[1]s; echo \"$was\"", f.path, f.value))
			lines := strings.Split(strings.TrimSpace(r.Out), "\n")
			if err != nil || len(lines) != 3 || lines[0] != f.shows || !f.resets && lines[1] != lines[2] {
				t.Errorf("step %q: %v %+v", step, err, r)
				continue
			}
			held++
		}
		after := verdict(fmt.Sprintf("judge with rev %d", rev))
		if after.Summary != before.Summary {
			t.Errorf("rev %d: the verdict is %+v, and was %+v", rev, after.Summary, before.Summary)
		}
		must(t, ctx, g, "facts", "hostcheck facts -f json > /dev/null")
		must(t, ctx, g, "unload dcbm", "rmmod dcbm")
	}
	must(t, ctx, g, "unload fakedma", "rmmod fakedma")
	count(devScenario, "files of dcbm written and read back", tried, held, time.Since(began))
}

// dcbmFile is a control file: what is written, and what it shows then.
type dcbmFile struct {
	path, value, shows string
	resets             bool // a counter: it does not come back
}

func dcbmFiles(rev int) (all []dcbmFile) {
	dir := "/sys/kernel/dcbm/"
	switch rev {
	case 5:
		dir = "/sys/module/dcbm/"
	case 6:
		dir = "/sys/module/dcbm/parameters/"
	}
	all = append(all, dcbmFile{dir + "offloading", "1", "1", false})
	if rev >= 2 {
		all = append(all, dcbmFile{dir + "nr_dma_chan", "3", "3", false})
	}
	if rev == 2 || rev == 3 {
		for _, n := range []string{"offloading", "threads", "cpuselect"} {
			all = append(all, dcbmFile{"/sys/kernel/cpu_mt/" + n, "1", "1", false})
		}
	}
	if rev >= 4 {
		for _, n := range []string{"folios_migrated", "folios_failures"} {
			all = append(all, dcbmFile{dir + n, "7", "0", true})
		}
	}
	return all
}

// settings are the names of changes without those of files, each once.
func settings(changes []plan.Change) (names []string) {
	for _, c := range changes {
		if c.Kind != plan.KindFile && !slices.Contains(names, c.Kind+" "+c.Name) {
			names = append(names, c.Kind+" "+c.Name)
		}
	}
	slices.Sort(names)
	return names
}
