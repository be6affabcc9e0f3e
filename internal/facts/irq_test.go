// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// The names are those that drivers really give.
func TestQueueNames(t *testing.T) {
	for name, want := range map[string]bool{
		"mlx5_comp38@pci:0000:19:00.0": true, "mlx5_async0@pci:0000:19:00.0": false, "mlx5_async@pci:0000:19:00.0": false,
		"mlx4-3@0000:05:00.0": true, "mlx4-async@pci:0000:05:00.0": false,
		"ice-ens1f0-TxRx-3": true, "ice-0000:3b:00.0:misc": false, "i40e-eno1-TxRx-0": true, "eno1-TxRx-0": true, "eno1": false,
		"eth0-Tx-Rx-0": true, "ena-mgmnt@pci:0000:00:05.0": false, "mana_q0@pci:7870:00:00.0": true, "mana_hwc@pci:7870:00:00.0": false,
		"virtio2-input.0": true, "virtio2-output.0": true, "virtio2-config": false, "eth0-tx-0": true, "eth0-rx-1": true,
		"bnxt_re-nq-1@pci:0000:18:00.0": true, "irdma-ens1f0-CEQ-1": true, "eth0-fp-3": true, "": false,
	} {
		if got := queueName().MatchString(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

const irqTree = `whole: /sys /proc
-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --
-- sys/devices/pci0000:00/0000:01:00.0/class --
0x020000
-- sys/devices/pci0000:00/0000:01:00.0/numa_node --
0
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/device -> ../../../0000:01:00.0 --
-- sys/class/net/eth1 -> ../../devices/pci0000:00/0000:01:00.0/net/eth1 --
-- sys/devices/system/node/node0/cpulist --
0-3
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/queues/rx-0/rps_cpus --
00000000,00000006
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/queues/rx-10/rps_cpus --
0
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/queues/tx-0/xps_cpus --
1
-- sys/devices/pci0000:00/0000:01:00.0/msi_irqs/9 --
msix
-- sys/devices/pci0000:00/0000:01:00.0/msi_irqs/10 --
msix
-- sys/kernel/irq/9/actions --
own-names-a
-- sys/kernel/irq/10/actions [errno EACCES] --
-- proc/irq/9/smp_affinity_list --
0-3
-- proc/irq/10/smp_affinity_list --
x
-- proc/irq/9/effective_affinity_list --
2
`

func TestInterrupts(t *testing.T) {
	got := treeOf(t, irqTree).IRQs()
	d := got.Of("0000:01:00.0")
	if d == nil || show(d.LocalCPUs) != "0-3" || len(d.IRQs) != 2 {
		t.Fatalf("%+v", d)
	}
	nine, ten := d.IRQs[0], d.IRQs[1]
	if diff := cmp.Diff(&IRQ{IRQ: 9, Name: ptr("own-names-a"), Queue: true, Affinity: ptr("0-3"), Effective: ptr("2")}, nine); diff != "" {
		t.Error(diff)
	}
	if ten.Name != nil || ten.Queue || ten.Affinity != nil || ten.Effective != nil ||
		!strings.Contains(ten.Unknown["name"], "permission denied") || !strings.Contains(ten.Unknown["affinity"], "CPU list") || ten.Unknown["effective"] == "" {
		t.Errorf("%+v", ten)
	}
	if _, why := ten.ServedBy(); why == "" {
		t.Error("nobody is known to serve 10, and that is no reason")
	}
	if got.Managed != nil || got.Unknown["managed"] == "" {
		t.Errorf("managed %v, %q", got.Managed, got.Unknown["managed"])
	}
	s := got.Named("eth1")
	if s == nil || show(s.Queues) != 2 || len(s.RPS) != 1 || s.RPS[0].Queue != 0 || show(s.RPS[0].CPUs) != "1-2" {
		t.Errorf("%+v", s)
	}
	if got.Of("0000:02:00.0") != nil || got.Named("eth2") != nil {
		t.Error("what is not there has an entry")
	}
}

func TestIrqbalance(t *testing.T) {
	for _, tt := range []struct {
		text, banned string
		oneshot, bad bool
	}{
		{"", "", false, false},
		{"#IRQBALANCE_BANNED_CPULIST=1\nIRQBALANCE_ONESHOT=yes\n", "", true, false},
		{"IRQBALANCE_BANNED_CPULIST=\"2-3,8\"\n", "2-3,8", false, false},
		{"IRQBALANCE_BANNED_CPUS=0xff00\nIRQBALANCE_BANNED_CPULIST=1\n", "8-15", false, false},
		{"IRQBALANCE_BANNED_CPUS=1,00000000\n", "32", false, false},
		{"IRQBALANCE_BANNED_CPUS=100000001\n", "0,32", false, false},
		{"IRQBALANCE_BANNED_CPUS=1,123456789\n", "", false, true},
		{"IRQBALANCE_BANNED_CPULIST=all\n", "", false, true},
		{"IRQBALANCE_ARGS=\"--banirq=7 --oneshot\"\n", "", true, false},
	} {
		got, oneshot, err := parseIrqbalance(tt.text)
		if got.String() != tt.banned || oneshot != tt.oneshot || (err != nil) != tt.bad {
			t.Errorf("%q: %s, %t, %v", tt.text, got, oneshot, err)
		}
	}
	b := New(fixture.Load(t, "../../testdata/checks/irq.irqbalance/fail-mask.txtar").Host(t)).IRQs().Irqbalance
	if show(b.Active) != true || show(b.Banned) != "8-11" || b.Source != "/etc/default/irqbalance" {
		t.Errorf("%+v", b)
	}
}

func FuzzParseIrqbalance(f *testing.F) {
	f.Add("IRQBALANCE_BANNED_CPUS=ffffffff,00000000\nIRQBALANCE_ARGS=-o")
	f.Add("IRQBALANCE_BANNED_CPULIST='0-3,8'")
	f.Fuzz(func(t *testing.T, text string) {
		set, _, err := parseIrqbalance(text)
		if err != nil && set.Len() > 0 {
			t.Errorf("%q: an error, and the CPUs %s", text, set)
		}
		if again, err := ParseCPUSet(set.String()); err != nil || !again.Equal(set) {
			t.Errorf("%q: %s reads back as %s (%v)", text, set, again, err)
		}
	})
}

func TestCPUMask(t *testing.T) {
	for list, want := range map[string]string{"": "0", "0-3": "f", "0-31": "ffffffff", "32": "1,00000000", "64,3": "1,00000000,00000008"} {
		set, err := ParseCPUSet(list)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Mask(); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
		if back, err := parseCPUMap(set.Mask()); err != nil || !back.Equal(set) {
			t.Errorf("%s reads back as %s (%v)", list, back, err)
		}
	}
}
