// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/report"
)

// placeScenario is the name under which all of this is counted.
const placeScenario = "interrupts, virtual functions, nodes, tunnels"

const placeDir = "/run/lab-placement"

// placeProfile wants everything near: one NIC of node 1 with its interrupts
// and virtual functions, one of no known node, memory as RDMA wants it.
const placeProfile = `schema: hostcheck.profile/v1
name: lab-placement
layer: site
source: the VM lab
nics:
  - id: near
    match: {bdf: "` + manaPort + `"}
    irq_local: true
    vfs: 3
    vf_autoprobe: true
    vf_driver: igbvf
  - id: nowhere
    match: {bdf: "` + mlx5Port + `"}
    irq_local: true
  - id: fast
    match: {driver: mlx5_core}
hugepages:
  pools:
    - {size: 2M, per_node: 4}
system:
  thp: [madvise]
  numa_balancing: false
`

const placeFlags = " --intent baremetal-gpudirect --profile " + placeDir + "/profile.yaml"

// placing is a guest with that profile.
type placing struct {
	t   *testing.T
	ctx context.Context
	g   *lab.Guest
}

// status is the finding of a check about a subject, by the beginning of it.
func (p placing) status(check, subject string) finding {
	p.t.Helper()
	all := judged(p.t, p.ctx, p.g, check+placeFlags)
	i := slices.IndexFunc(all, func(f finding) bool { return f.Check == check && strings.HasPrefix(f.Subject, subject) })
	if i < 0 {
		p.t.Fatalf("%s says nothing of %q: %+v", check, subject, all)
	}
	return all[i]
}

// turns makes a change and wants the check to say this of it from then on.
func (p placing) turns(what, change, check, subject, want string) finding {
	p.t.Helper()
	began, held := time.Now(), 0
	must(p.t, p.ctx, p.g, what, change)
	f := p.status(check, subject)
	if said := f.Status + ": " + f.Got + " " + f.Why; strings.HasPrefix(said, want) || strings.HasPrefix(f.Status+": "+f.Why, want) {
		held = 1
	} else {
		p.t.Errorf("step %q: %s of %s is %q, want %q", what, check, f.Subject, said, want)
	}
	count(placeScenario, "verdicts that follow what was changed by hand", 1, held, time.Since(began))
	return f
}

// TestPlacement changes where interrupts, virtual functions, memory and tunnels
// go: checks must see it, as the kernel and the guest's tools do, and pass
// again after hostcheck's fix, or after what it says to do by hand.
func TestPlacement(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "make a place for the scenario's files", "mkdir -p "+placeDir)
	if err := g.Push(ctx, placeDir+"/profile.yaml", []byte(placeProfile), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "links up", fmt.Sprintf("for i in %s %s; do ip link set $i up; done; for i in %[1]s %[2]s; do until [ \"$(cat /sys/class/net/$i/operstate)\" = up ]; do sleep 0.2; done; done", nicVFs, nicNode1))
	run := func(name string, f func(placing)) {
		t.Run(name, func(t *testing.T) { f(placing{t, ctx, g}) })
	}
	run("interrupts", interruptsMove)
	run("nodes", nodesKnown)
	run("fix", placementFixed)
	if !testing.Short() {
		run("functions", functionDrivers)
	}
	run("tunnels", tunnelsCarried)
}

// queues gives the interrupts of a device's queues, of one kind or all.
func (p placing) queues(device, kind string) (of []interrupt) {
	p.t.Helper()
	for _, i := range interruptsOf(p.t, p.ctx, p.g)[device] {
		if strings.Contains(strings.ToLower(i.name), kind+"-") {
			of = append(of, i)
		}
	}
	return of
}

// moved is the command that has a CPU serve interrupts.
func moved(cpu int, irqs ...interrupt) string {
	commands := []string{}
	for _, i := range irqs {
		commands = append(commands, fmt.Sprintf("echo %d > /proc/irq/%d/smp_affinity_list", cpu, i.irq))
	}
	return strings.Join(commands, " && ")
}

// arrives waits until an interrupt was served by a CPU once more: igb's watchdog
// raises those of all its queues every two seconds.
func (p placing) arrives(i interrupt, cpu int) {
	p.t.Helper()
	began := time.Now()
	r, err := p.g.Run(p.ctx, fmt.Sprintf("n() { awk '$1 == \"%d:\" { print $%d }' /proc/interrupts; }; was=$(n); for i in $(seq 40); do sleep 0.2; [ $(n) -gt $was ] && exit 0; done; cat /proc/interrupts; exit 1", i.irq, cpu+2))
	held := 1
	if err != nil || r.Code != 0 {
		held = 0
		p.t.Errorf("CPU %d does not serve %s: %v\n%s", cpu, i.name, err, r.Out)
	}
	count(placeScenario, "interrupts that arrive where the check says", 1, held, time.Since(began))
}

var (
	byHand = regexp.MustCompile(`^by hand: echo CPU > /proc/irq/(\d+)/smp_affinity_list, with one CPU of (\d+), and another for each of the interrupts ([0-9, ]+), by a unit at boot`)
	words  = regexp.MustCompile(`\d+`)
)

// interruptsMove moves the interrupts of queues between CPUs.
func interruptsMove(p placing) {
	p.turns("leave all where the kernel put it", "true", "irq.local", manaPort, "pass: 4 queue interrupts, all on CPUs of its node")
	queues := p.queues(manaPort, "x")
	if !testing.Short() { // more queues than CPUs near the NIC may be elsewhere, and it has one
		p.turns("three of four to the other node", moved(0, queues[1:]...), "irq.local", manaPort, "pass: 3 of 4 queue interrupts on CPUs 0 of another node")
	}
	f := p.turns("all to the other node", moved(0, queues...), "irq.local", manaPort, "fail: 4 of 4 queue interrupts on CPUs 0 of another node")
	p.arrives(queues[0], 0)
	m := byHand.FindStringSubmatch(f.Next)
	if m == nil {
		p.t.Fatalf("what is to be done is not understood: %q", f.Next)
	}
	back := ""
	for _, irq := range append(words.FindAllString(m[3], -1), m[1]) {
		back += "echo " + m[2] + " > /proc/irq/" + irq + "/smp_affinity_list; "
	}
	p.turns("do what the finding says", back, "irq.local", manaPort, "pass: 4 queue interrupts, all on CPUs of its node")
	p.arrives(queues[0], 1)
	rx := p.queues(mlx5Port, "rx")
	if len(rx) != 2 {
		p.t.Fatalf("%s has the receive queues %+v, and not two", nicVFs, rx)
	}
	p.turns("all receive queues to one CPU", moved(0, rx...), "irq.spread", mlx5Port, "fail: 2 receive queues on CPU 0 alone")
	p.turns("one of them to the other", moved(1, rx[1]), "irq.spread", mlx5Port, "pass: 2 receive queues on 2 CPUs")
	if testing.Short() {
		return
	}
	const rps = "/sys/class/net/" + nicNode1 + "/queues/rx-0/rps_cpus"
	p.turns("hand packets to the other node", "echo 1 > "+rps, "irq.rps", manaPort, "fail: CPUs 0, on 1 of 2 queues")
	p.turns("no more", "echo 0 > "+rps, "irq.rps", manaPort, "pass")
}

// nodesKnown has the kernel take another node of a NIC for true: the one with
// memory only has nobody to serve it, and none at all is not known.
func nodesKnown(p placing) {
	const node = "/sys/bus/pci/devices/" + mlx5Port + "/numa_node"
	if !testing.Short() {
		p.turns("leave it without a node", "grep -qx -- -1 "+node, "irq.local", mlx5Port, "unknown: which CPUs are near is not known: ")
		p.turns("node 0", "echo 0 > "+node, "irq.local", mlx5Port, "pass: 2 of 4 queue interrupts on CPUs 1 of another node")
	}
	p.turns("node 2, which has memory only", "echo 2 > "+node, "irq.local", mlx5Port, "unknown: the NIC's node has no CPUs")
	p.turns("none", "echo -1 > "+node, "irq.local", mlx5Port, "unknown: which CPUs are near is not known: ")
	// pools belong on nodes with CPUs
	began, held := time.Now(), 0
	var nodes []string
	for _, f := range judged(p.t, p.ctx, p.g, "hugepages.pool"+placeFlags) {
		nodes = append(nodes, f.Subject)
	}
	slices.Sort(nodes)
	if got := fmt.Sprint(nodes); got == "[node0 2M node1 2M]" {
		held++
	} else {
		p.t.Errorf("pools of 2M are judged on %s, and node 2 has no CPU", got)
	}
	distances := judged(p.t, p.ctx, p.g, "numa.distances"+placeFlags)
	told := numactl(p.t, p.ctx, p.g)
	for i, n := range told {
		want := strings.Trim(fmt.Sprint(n.distances), "[]")
		if i < len(distances) && distances[i].Status == "pass" && distances[i].Got == want {
			held++
		} else {
			p.t.Errorf("numa.distances of node %d: %+v, numactl has %s", n.node, distances, want)
		}
	}
	count(placeScenario, "nodes as numactl has them, in checks", 1+len(told), held, time.Since(began))
}

// placeState prints what placementFixed changes, and more.
const placeState = `cd /sys/bus/pci/devices/` + manaPort + ` && grep -H . sriov_numvfs sriov_drivers_autoprobe net/*/queues/rx-*/rps_cpus
for v in virtfn*; do echo $v $(basename $(readlink $v)) $(basename $(readlink $v/driver)); done
grep -H . /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/transparent_hugepage/defrag; sysctl kernel.numa_balancing
find /etc/systemd/network /etc/sysctl.d /etc/tmpfiles.d /etc/hostcheck -type f 2>/dev/null | sort | xargs -r cksum`

const placeChecks = "irq.rps sriov.vfs sriov.autoprobe system.thp system.numa_balancing"

// placementFixed takes what hostcheck can fix of it through the closed loop,
// and has udev do what a boot would.
func placementFixed(p placing) {
	t, ctx, g := p.t, p.ctx, p.g
	began := time.Now()
	const device = "/sys/bus/pci/devices/" + manaPort
	must(t, ctx, g, "spoil", "set -e; cd "+device+"; echo 1 > sriov_numvfs; udevadm settle; echo 0 > sriov_drivers_autoprobe; echo 1 > net/"+nicNode1+"/queues/rx-0/rps_cpus; "+
		"echo always > /sys/kernel/mm/transparent_hugepage/enabled; sysctl -q kernel.numa_balancing=1")
	start := must(t, ctx, g, "state before the fix", placeState)
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck "+placeChecks+placeFlags)
	if f := p.status("sriov.vfs", manaPort); f.Status != "fail" || f.Got != "1" {
		t.Errorf("step %q: %+v", "judge before the fix", f)
	}
	fix := "hostcheck fix --yes --allow link --confirm=auto -f json " + placeChecks + placeFlags
	f := applied(t, ctx, g, "fix", fix)
	changes := 0
	for _, c := range f.Plan.Changes {
		if slices.Contains([]string{"sriov", "sysctl", "sysfs"}, c.Kind) {
			changes++
		}
	}
	if changes != 6 { // from one number of functions to another by way of none
		t.Errorf("step %q: %d settings, want 6: %+v", "fix", changes, f.Plan.Changes)
	}
	must(t, ctx, g, "judge after the fix", "udevadm settle; hostcheck --fail-on warn "+placeChecks+" sriov.driver sriov.persistence"+placeFlags)
	const agree = "set -e; cd " + device + "; test \"$(lspci -d 8086:10ca -s 41: | wc -l)\" = 3; " +
		"test \"$(ip -j -d link show " + nicNode1 + " | grep -o '\"vf\":' | wc -l)\" = 3; test \"$(lspci -k -d 8086:10ca | grep -c 'in use: igbvf')\" = 3; " +
		"test \"$(for v in virtfn*; do ls $v/iommu_group/devices | wc -l; done | sort -u)\" = 1; grep -qx 0 net/" + nicNode1 + "/queues/rx-0/rps_cpus; " +
		"grep -q '\\[madvise\\]' /sys/kernel/mm/transparent_hugepage/enabled; test \"$(sysctl -n kernel.numa_balancing)\" = 0"
	must(t, ctx, g, "lspci, ip and sysctl agree", agree)
	// what a boot does with the file: no functions, then udev finds the device
	must(t, ctx, g, "udev makes them again", "set -e; cd "+device+"; echo 0 > sriov_numvfs; udevadm settle; udevadm trigger -c add --settle /sys/class/net/"+nicNode1+"; udevadm settle; grep -qx 3 sriov_numvfs")
	if !testing.Short() {
		if again := document[report.Fix](t, "fix again", must(t, ctx, g, "fix again", fix)); again.Result.Outcome != report.OutcomeNothing {
			t.Errorf("step \"fix again\": %+v", again.Result)
		}
	}
	undoAll(t, ctx, g, "undo", 1)
	held := 0
	if same(t, "undo", strings.Split(start, "\n"), strings.Split(must(t, ctx, g, "state after the undo", "udevadm settle; "+placeState), "\n")) {
		held = changes
	}
	count(placeScenario, "changes, undone", changes, held, time.Since(began))
}

var overrideHint = regexp.MustCompile(`echo igbvf > (\S+/driver_override), unbind it from its driver, echo (\S+) > (/sys/bus/pci/drivers_probe)`)

// functionDrivers makes functions that get no driver, and gives them one as
// the finding says.
func functionDrivers(p placing) {
	const device = "/sys/bus/pci/devices/" + manaPort
	anew := func(probe int) string {
		return fmt.Sprintf("cd %s && echo 0 > sriov_numvfs && echo %d > sriov_drivers_autoprobe && echo 3 > sriov_numvfs && udevadm settle", device, probe)
	}
	const check = "sriov.driver"
	f := p.turns("make functions without a driver", anew(0), check, manaPort, "fail: 3 with none")
	for range 3 {
		m := overrideHint.FindStringSubmatch(f.Next)
		if m == nil {
			break
		}
		must(p.t, p.ctx, p.g, "give one a driver", fmt.Sprintf("echo igbvf > %s && echo %s > %s && udevadm settle", m[1], m[2], m[3]))
		f = p.status(check, manaPort)
	}
	if f.Status != "pass" {
		p.t.Errorf("after what the findings said, %s is %+v", check, f)
	}
	p.turns("make functions with a driver", anew(1), check, manaPort, "pass: 3 with igbvf")
	p.turns("no functions", "echo 0 > "+device+"/sriov_numvfs", check, manaPort, "skip")
}
