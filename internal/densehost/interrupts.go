// SPDX-License-Identifier: Apache-2.0

package densehost

import "fmt"

const firstIRQ = 100

// interrupts gives a NIC one interrupt for events and one for each queue, over
// the CPUs of its node in turn.
func (w *writer) interrupts(f function, queues int) {
	for q := range queues {
		irq, name := firstIRQ+w.irq, fmt.Sprintf("mlx5_comp%d@pci:%s", q, f.bdf())
		if q == 0 {
			name = "mlx5_async0@pci:" + f.bdf()
		}
		w.irq++
		w.file(fmt.Sprintf("sys/devices/%s/msi_irqs/%d", f.path, irq), "msix")
		w.file(fmt.Sprintf("sys/kernel/irq/%d/actions", irq), name)
		cpu := fmt.Sprint(f.node*56 + q%56)
		w.files(fmt.Sprintf("proc/irq/%d", irq), "smp_affinity_list", cpu, "effective_affinity_list", cpu)
	}
}
