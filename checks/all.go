// SPDX-License-Identifier: Apache-2.0

// Package checks holds what hostcheck judges: one file per area, and the list
// of all of them here.
package checks

//go:generate go run ./gen ../docs/checks.md

import (
	"slices"

	"github.com/hostcheck/hostcheck/internal/check"
)

// All lists every check in the order of the report. A check that is not named
// here does not exist.
func All() []*check.Check {
	return slices.Concat(
		cmdlineChecks,
		iommuChecks,
		acsChecks,
		hugepagesChecks,
		driverChecks,
		dcqcnChecks,
		linkChecks,
		linkQueueChecks,
		linkFECChecks,
		pcieChecks,
		pcieHealthChecks,
		sriovChecks,
		sriovBootChecks,
		numaChecks,
		numaPlaceChecks,
		sysctlChecks,
		irqChecks,
		rdmaChecks,
		vxlanChecks,
		rxfragChecks,
		migrationChecks,
		manaChecks,
		kubeletChecks,
		systemChecks,
		systemVisibilityChecks,
	)
}

// Areas lists the first words of check IDs, in the order of the report.
var Areas = []string{
	"cmdline", "iommu", "acs", "hugepages", "driver", "dcqcn", "link", "pcie", "sriov", "sysctl",
	"numa", "irq", "rdma", "vxlan", "kubelet", "rxfrag", "migration", "mana", "system",
}
