// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// steered has other CPUs process what these receive queues take, and gives
// irqbalance a configuration.
const steered = `
echo 3 > /sys/class/net/` + nicVFs + `/queues/rx-1/rps_cpus
echo 1 > /sys/class/net/` + nicNode1 + `/queues/rx-0/rps_cpus
printf '# IRQBALANCE_BANNED_CPULIST=0\nIRQBALANCE_BANNED_CPULIST="1"\nIRQBALANCE_ONESHOT=yes\n' > /etc/default/irqbalance`

// physicalNICs are the network functions that are no VFs, by lspci, and their
// interfaces, by ip.
func physicalNICs(t *testing.T, ctx context.Context, g *lab.Guest) (told []*pciTold, names map[string]string) {
	t.Helper()
	all, names, vfs := lspci(t, ctx, g, ""), map[string]string{}, map[string]bool{}
	for _, p := range all {
		for _, vf := range virtualFunctions(t, p) {
			vfs[vf] = true
		}
	}
	for _, l := range ipLinks(t, ctx, g) {
		if l.Bus == "pci" {
			names[l.Parent] = l.Name
		}
	}
	for _, p := range all {
		if strings.HasPrefix(p.fields["Class"], "02") && !vfs[p.bdf] {
			told = append(told, p)
		}
	}
	if len(told) != 5 {
		t.Fatalf("lspci tells of %d NICs, and not 5", len(told))
	}
	return told, names
}

// interrupt is one as the kernel tells it elsewhere than hostcheck reads:
// masks, and the table of counts.
type interrupt struct {
	irq                 int
	affinity, effective any
	name                string
	counts              []int // by CPU
}

// interruptsOf gives the message signalled interrupts by device. The chip of
// each has the device's address in its name; /proc/interrupts has who asked for it.
func interruptsOf(t *testing.T, ctx context.Context, g *lab.Guest) map[string][]interrupt {
	t.Helper()
	said := map[int]interrupt{}
	for line := range strings.Lines(must(t, ctx, g, "/proc/interrupts", "sed 1d /proc/interrupts")) {
		head, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, err := strconv.Atoi(head)
		if err != nil {
			continue
		}
		var i interrupt
		w := strings.Fields(rest)
		for len(w) > 0 {
			c, err := strconv.Atoi(w[0])
			if err != nil {
				break
			}
			i.counts, w = append(i.counts, c), w[1:]
		}
		if len(w) > 2 { // the chip, its number there and the edge
			i.name = strings.Join(w[2:], " ")
		}
		said[n] = i
	}
	const read = `cd /sys/kernel/irq && grep -H . */chip_name; cd /proc/irq && grep -H . */smp_affinity */effective_affinity`
	files := map[string]string{}
	for line := range strings.Lines(must(t, ctx, g, "chips and masks of interrupts", read)) {
		file, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		files[file] = v
	}
	list := func(file string) any {
		if mask, has := files[file]; has {
			return cpusOf(t, mask)
		}
		return reasoned{}
	}
	all := map[string][]interrupt{}
	for file, chip := range files { // "IR-PCI-MSIX-0000:01:00.0"
		n, is := strings.CutSuffix(file, "/chip_name")
		if device := pciAddress.FindString(chip); is && device != "" {
			i := said[numberIn(t, n)]
			i.irq, i.affinity, i.effective = numberIn(t, n), list(n+"/smp_affinity"), list(n+"/effective_affinity")
			all[device] = append(all[device], i)
		}
	}
	for _, of := range all {
		slices.SortFunc(of, func(a, b interrupt) int { return a.irq - b.irq })
	}
	return all
}

// cpusOf writes a mask of the kernel, which has one word of hex here, as a list.
func cpusOf(t *testing.T, mask string) string {
	t.Helper()
	m, err := strconv.ParseUint(mask, 16, 32)
	if err != nil {
		t.Fatalf("a mask of CPUs was not understood: %v", err)
	}
	var cpus []int
	for c := range 32 {
		if m&(1<<c) != 0 {
			cpus = append(cpus, c)
		}
	}
	return cpuList(cpus)
}

// wantIRQ asks /proc/interrupts, the masks, ethtool -x and systemd.
func wantIRQ(t *testing.T, ctx context.Context, g *lab.Guest) any {
	told, names := physicalNICs(t, ctx, g)
	of := interruptsOf(t, ctx, g)
	near := map[int]string{}
	for _, n := range numactl(t, ctx, g) {
		near[n.node] = cpuList(n.cpus)
	}
	devices, queues, unused := jsonList{}, 0, 0
	for _, p := range told {
		d := jsonObject{"bdf": p.bdf, "local_cpus": reasoned{}}
		if v := p.fields["NUMANode"]; v != "" {
			d["local_cpus"] = near[numberIn(t, v)]
			if list := says(t, ctx, g, "cat /sys/bus/pci/devices/"+p.bdf+"/local_cpulist"); list != d["local_cpus"] {
				t.Errorf("%s: the CPUs %v to numactl, %s to the device", p.bdf, d["local_cpus"], list)
			}
		}
		irqs := jsonList{}
		for _, i := range of[p.bdf] {
			// igb and e1000e call the interrupts of queues NAME-rx-0, NAME-TxRx-0, the other one NAME
			queue := strings.HasPrefix(i.name, names[p.bdf]+"-")
			if queue {
				queues++
			}
			if i.name == "" {
				unused++
			}
			irqs = append(irqs, jsonObject{"irq": i.irq, "name": i.name, "queue": queue, "affinity": i.affinity, "effective": i.effective})
		}
		d["irqs"] = irqs
		devices = append(devices, d)
	}
	if queues < 8 || unused < 3 {
		t.Fatalf("%d interrupts of queues, 8 at least must be; %d that nobody asked for, 3 at least must be", queues, unused)
	}
	steering := jsonList{}
	for _, nic := range slices.Sorted(maps.Values(names)) {
		if strings.Contains(nic, "v") { // a VF
			continue
		}
		dir := "/sys/class/net/" + nic + "/queues"
		// e1000e has no table of queues to tell
		n := numberIn(t, says(t, ctx, g, "ethtool -x "+nic+" 2>/dev/null | sed -n 's/.* with \\([0-9]*\\) RX ring.*/\\1/p' | grep . || ls -d "+dir+"/rx-* | wc -l"))
		rps := jsonList{}
		for q := range n {
			if cpus := cpusOf(t, says(t, ctx, g, fmt.Sprintf("cat %s/rx-%d/rps_cpus", dir, q))); cpus != "" {
				rps = append(rps, jsonObject{"queue": q, "cpus": cpus})
			}
		}
		if want := map[string]string{nicVFs: "[map[cpus:0-1 queue:1]]", nicNode1: "[map[cpus:0 queue:0]]"}[nic]; want != "" && fmt.Sprint(rps) != want {
			t.Fatalf("%s is not steered as it was set: %v", nic, rps)
		}
		senders := numberIn(t, says(t, ctx, g, "ls -d "+dir+"/tx-* | wc -l"))
		xps := jsonList{}
		for q := range senders {
			if cpus := cpusOf(t, says(t, ctx, g, fmt.Sprintf("cat %s/tx-%d/xps_cpus 2>/dev/null || echo 0", dir, q))); cpus != "" { // one queue alone has no such map
				xps = append(xps, jsonObject{"queue": q, "cpus": cpus, "rxqs": ""})
			}
		}
		steering = append(steering, jsonObject{"nic": nic, "rx_queues": n, "rps": rps, "tx_queues": senders, "xps": xps})
	}
	if config := says(t, ctx, g, "grep GENERIC_IRQ_DEBUGFS /boot/config-$(uname -r)"); config != "# CONFIG_GENERIC_IRQ_DEBUGFS is not set" {
		t.Fatalf("the guest's kernel is to tell of no managed interrupts: %s", config)
	}
	// systemd reads the daemon's environment
	env := strings.Fields(says(t, ctx, g, `systemd-run --wait --quiet --pipe -p EnvironmentFile=/etc/default/irqbalance sh -c 'echo "$IRQBALANCE_BANNED_CPULIST" "$IRQBALANCE_ONESHOT"'`))
	if !slices.Equal(env, []string{"1", "yes"}) {
		t.Fatalf("systemd reads %q from irqbalance's configuration", env)
	}
	return jsonObject{"devices": devices, "managed": reasoned{}, "steering": steering, "irqbalance": jsonObject{
		"active": says(t, ctx, g, "systemctl is-active irqbalance || true") == "active", "banned": env[0], "source": "/etc/default/irqbalance", "oneshot": true,
	}}
}

// functionsAtBoot are files that make virtual functions, or seem to: of two
// .link files the first counts, a unit that is not enabled does nothing.
const functionsAtBoot = `
mkdir -p /etc/systemd/network
printf '[Match]\nPath=pci-0000:41:00.0\n[Link]\nNamePolicy=keep kernel database onboard slot path\nSR-IOVVirtualFunctions=2\n' > /etc/systemd/network/10-lab.link
printf '[Match]\nDriver=igb\n[Link]\nNamePolicy=keep kernel database onboard slot path\nSR-IOVVirtualFunctions=4\n' > /etc/systemd/network/20-lab.link
printf '# a comment\nACTION=="add", SUBSYSTEM=="net", KERNEL=="` + nicNoACS + `", ATTR{device/sriov_numvfs}="3"\n' > /etc/udev/rules.d/70-lab.rules
printf '[Unit]\nBefore=network.target\n[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo 5 > /sys/class/net/` + nicVFs + `/device/sriov_numvfs"\n' > /etc/systemd/system/lab-vfs.service
systemctl daemon-reload`

// wantSRIOV asks lspci who can have virtual functions, udev which .link file
// counts, and systemd whether the unit does.
func wantSRIOV(t *testing.T, ctx context.Context, g *lab.Guest) any {
	told, names := physicalNICs(t, ctx, g)
	const first, second = "/etc/systemd/network/10-lab.link", "/etc/systemd/network/20-lab.link"
	devices := jsonList{}
	for _, p := range told {
		if lspciVFs.FindString(p.text) == "" {
			continue
		}
		applied := says(t, ctx, g, "udevadm test-builtin net_setup_link /sys/class/net/"+names[p.bdf]+" 2>/dev/null | sed -n 's/^ID_NET_LINK_FILE=//p'")
		source := func(kind, file string, vfs int, before, blocked string) jsonObject {
			return jsonObject{"kind": kind, "source": file, "vfs": vfs, "sure": true, "before": before, "blocked": blocked}
		}
		blocked := func(file string) string {
			if file == applied {
				return ""
			}
			return applied + " matches the device first, and only one file counts"
		}
		at := jsonList{}
		if p.bdf == manaPort {
			at = append(at, source("link", first, 2, "", blocked(first)))
		}
		at = append(at, source("link", second, 4, "", blocked(second)))
		if names[p.bdf] == nicNoACS {
			at = append(at, source("udev", says(t, ctx, g, "grep -nH ATTR /etc/udev/rules.d/70-lab.rules | cut -d: -f1,2"), 3, "", ""))
		}
		if names[p.bdf] == nicVFs {
			if state := says(t, ctx, g, "systemctl is-enabled lab-vfs || true"); state != "static" { // it has no [Install]
				t.Fatalf("the unit is %s", state)
			}
			at = append(at, source("unit", says(t, ctx, g, "grep -nH ExecStart /etc/systemd/system/lab-vfs.service | cut -d: -f1,2"), 5, "network.target", "the unit is not enabled"))
		}
		devices = append(devices, jsonObject{
			"bdf": p.bdf, "autoprobe": says(t, ctx, g, "cat /sys/bus/pci/devices/"+p.bdf+"/sriov_drivers_autoprobe") == "1", "at_boot": at,
		})
	}
	if len(devices) != 3 {
		t.Fatalf("lspci tells SR-IOV of %d NICs, and not 3", len(devices))
	}
	return devices
}

// wantTopology is lspci's tree.
func wantTopology(t *testing.T, ctx context.Context, g *lab.Guest) any {
	told, names := physicalNICs(t, ctx, g)
	parent := map[string]string{}
	for _, p := range lspci(t, ctx, g, "") {
		parent[p.bdf] = p.parent
	}
	nics, devices := jsonList{}, jsonList{}
	for _, p := range told {
		d := jsonObject{
			"bdf": p.bdf, "gpu": false, "driver": p.fields["Driver"], "names": jsonList{names[p.bdf]}, "rdma": jsonList{},
			"numa_node": reasoned{}, "vfs": len(virtualFunctions(t, p)),
		}
		if v := p.fields["NUMANode"]; v != "" {
			d["numa_node"] = numberIn(t, v)
		}
		bridges := jsonList{}
		for up := p.parent; up != ""; up = parent[up] {
			bridges = append(bridges, up)
		}
		d["bridges"] = bridges
		nics, devices = append(nics, p.bdf), append(devices, d)
	}
	return jsonObject{"gpus": jsonList{}, "nics": nics, "pairs": jsonList{}, "devices": devices}
}

var pciAddress = regexp.MustCompile(`[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`)

// topoTree compares the picture of "hostcheck topo" with lspci: what stands
// below what, and on which node. Of a switch it shows the upper port alone.
func topoTree(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	const unknownNode = "NUMA node not known"
	drawn := map[string]string{}
	var section string
	var path []string
	for line := range strings.Lines(must(t, ctx, g, "topo", "hostcheck topo")) {
		at := strings.Index(line, "─ ")
		bdf := pciAddress.FindString(line)
		switch {
		case at < 0 && strings.TrimSpace(line) != "":
			section, path = strings.TrimSpace(line), nil
			if node, _, ok := strings.Cut(section, " "); ok && section != unknownNode {
				section = node
			}
		case bdf != "":
			depth := len([]rune(line[:at])) / 3
			if depth > len(path) {
				t.Fatalf("a line of the picture stands deeper than its port: %q", line)
			}
			path = append(path[:depth], bdf)
			drawn[bdf] = section + ": " + strings.Join(path, " ")
		}
	}
	lower, parent := map[string]bool{}, map[string]string{}
	for _, p := range lspci(t, ctx, g, "") {
		parent[p.bdf] = p.parent
		if m := lspciExpress.FindStringSubmatch(p.text); m != nil {
			lower[p.bdf] = m[1] == "Downstream Port"
		}
	}
	told, names := physicalNICs(t, ctx, g)
	tried, held := 0, 0
	for _, p := range told {
		way := []string{p.bdf}
		for up := p.parent; up != ""; up = parent[up] {
			if !lower[up] {
				way = append([]string{up}, way...)
			}
		}
		where := unknownNode
		if v := p.fields["NUMANode"]; v != "" {
			where = "node" + v
		}
		if tried++; drawn[p.bdf] == where+": "+strings.Join(way, " ") {
			held++
		} else {
			t.Errorf("topo has %s at %q, lspci at %q of %s", names[p.bdf], drawn[p.bdf], way, where)
		}
	}
	if !strings.HasPrefix(drawn[manaPort], "node1: 0000:40:00.0 ") {
		t.Errorf("the NIC behind the expander bus stands at %q", drawn[manaPort])
	}
	count("facts", "topo: NICs below their ports, on their nodes", tried, held, time.Since(began))
}
