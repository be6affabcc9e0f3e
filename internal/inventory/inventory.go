// SPDX-License-Identifier: Apache-2.0

// Package inventory names the machine for people: product, processors, memory
// and what its PCI devices are called. It asks ghw, which reads the machine by
// itself, so nothing here decides a verdict, and only a trusted root is asked.
package inventory

import (
	"fmt"
	"strings"

	"github.com/jaypipes/ghw"
)

// Lines describes the machine below root ("/" is the live one), a line a
// subject; what ghw cannot tell is left out. Names of PCI devices need the
// pci.ids file that distributions install with pciutils.
func Lines(root string) []string {
	opts := []any{ghw.WithChroot(root), ghw.WithDisableTools(), ghw.WithDisableWarnings(), ghw.WithDisableTopology()}
	var lines []string
	if p, err := ghw.Product(opts...); err == nil {
		if name := strings.TrimSpace(known(p.Vendor) + " " + known(p.Name)); name != "" {
			lines = append(lines, name)
		}
	}
	if c, err := ghw.CPU(opts...); err == nil && len(c.Processors) > 0 {
		lines = append(lines, fmt.Sprintf("%d × %s (%d cores, %d threads)",
			len(c.Processors), strings.TrimSpace(c.Processors[0].Model), c.TotalCores, c.TotalHardwareThreads))
	}
	if m, err := ghw.Memory(opts...); err == nil && m.TotalUsableBytes > 0 {
		lines = append(lines, fmt.Sprintf("%.0f GiB of memory", float64(m.TotalUsableBytes)/(1<<30)))
	}
	if bus, err := ghw.PCI(opts...); err == nil {
		lines = append(lines, devices(bus)...)
	}
	return lines
}

// devices counts the network and GPU functions by their names.
func devices(bus *ghw.PCIInfo) []string {
	counts := map[string]int{}
	var order []string
	for _, d := range bus.Devices {
		if d.Class == nil || d.Vendor == nil || d.Product == nil || (d.Class.ID != "02" && d.Class.ID != "03") {
			continue
		}
		name := known(d.Vendor.Name) + " " + known(d.Product.Name)
		if strings.TrimSpace(name) == "" {
			continue
		}
		if counts[name]++; counts[name] == 1 {
			order = append(order, name)
		}
	}
	lines := make([]string, len(order))
	for i, name := range order {
		lines[i] = fmt.Sprintf("%d × %s", counts[name], name)
	}
	return lines
}

// known drops the word that ghw uses for what it does not know.
func known(s string) string {
	if strings.EqualFold(s, "unknown") {
		return ""
	}
	return s
}
