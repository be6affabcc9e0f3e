// SPDX-License-Identifier: Apache-2.0

package facts

import "testing"

func TestSendIRQs(t *testing.T) {
	for _, tt := range []struct {
		names  []string
		queues int
		want   []int // the interrupt of each queue, nil where that is not known
	}{
		{[]string{"mlx5_async0@pci:0000:18:00.0", "mlx5_comp1@pci:0000:18:00.0", "mlx5_comp0@pci:0000:18:00.0"}, 2, []int{2, 1}},
		{[]string{"ice-ens1-TxRx-0", "ice-ens1-TxRx-1"}, 2, []int{0, 1}},
		{[]string{"virtio2-config", "virtio2-input.0", "virtio2-output.0", "virtio2-input.1", "virtio2-output.1"}, 2, []int{2, 4}},
		{[]string{"eth0-rx-0", "eth0-tx-0", "eth0-rx-1", "eth0-tx-1"}, 2, []int{1, 3}},
		{[]string{"mlx5_comp0", "mlx5_comp1"}, 16, nil}, // traffic classes
		{[]string{"mlx5_comp0", "mlx5_comp0"}, 2, nil},
		{[]string{"eth0-TxRx", "eth0-TxRx-1"}, 2, nil},
		{[]string{"eth0-TxRx-1", "eth0-TxRx-99999999999999999999"}, 2, nil},
	} {
		d := &IRQDevice{}
		for i, name := range tt.names {
			d.IRQs = append(d.IRQs, &IRQ{IRQ: i, Name: &name, Queue: queueName().MatchString(name)})
		}
		got := d.SendIRQs(tt.queues)
		if (got == nil) != (tt.want == nil) {
			t.Errorf("%v for %d queues: %v", tt.names, tt.queues, got)
			continue
		}
		for q, want := range tt.want {
			if got[q].IRQ != want {
				t.Errorf("%v: queue %d has interrupt %d, not %d", tt.names, q, got[q].IRQ, want)
			}
		}
	}
}
