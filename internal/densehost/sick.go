// SPDX-License-Identifier: Apache-2.0

package densehost

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Sicken gives a host that [Write] made a bad night. It needs a shape with four
// NICs and two GPUs at least:
//
//   - the second NIC's link trained at half its speed, the first GPU's at half its width
//   - the third NIC has a small MTU, the fourth no carrier
//   - the last VF of the first NIC has a translated DMA domain
//   - node1 lacks huge pages, and programs use most of the others
//   - the queues of the second NIC are served on the other node, where it has any
func Sicken(dir string, s Shape) error {
	w := &writer{root: dir, made: map[string]bool{}}
	nic := func(n int) string { return fmt.Sprintf("sys/class/net/ens%dnp0", n) }
	w.file(nic(2)+"/device/current_link_speed", "16.0 GT/s PCIe")
	gpu, err := filepath.Glob(filepath.Join(dir, "sys/bus/pci/drivers/nvidia/*/current_link_width"))
	if err != nil || len(gpu) == 0 {
		return errors.Join(errors.New("the host has no GPU"), err)
	}
	rel, err := filepath.Rel(dir, gpu[0])
	if err != nil {
		return err
	}
	w.file(rel, "8")
	w.file(nic(3)+"/mtu", "1500")
	w.files(nic(4), "carrier", "0", "operstate", "down", "speed", "-1")
	if s.VFs > 0 {
		w.file(fmt.Sprintf("%s/device/virtfn%d/iommu_group/type", nic(1), s.VFs-1), "DMA-FQ")
	}
	w.files("sys/devices/system/node/node1/hugepages/hugepages-1048576kB", "nr_hugepages", "40", "free_hugepages", "12")
	w.files("sys/kernel/mm/hugepages/hugepages-1048576kB", "nr_hugepages", "104", "free_hugepages", "76")
	for q := range s.Queues {
		cpu := fmt.Sprint(60 + q%4)
		w.files(fmt.Sprintf("proc/irq/%d", firstIRQ+s.Queues+q), "smp_affinity_list", cpu, "effective_affinity_list", cpu)
	}
	return w.err
}
