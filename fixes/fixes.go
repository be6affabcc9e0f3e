// SPDX-License-Identifier: Apache-2.0

// Package fixes holds the verbs: for each kind of setting how it is read, set
// and made to last, what of it is refused, and who else may own it.
package fixes

import "github.com/hostcheck/hostcheck/internal/plan"

// All lists the verbs in the order in which their changes are made: a module
// is loaded before a parameter of it is set, and units come last.
func All() []plan.Verb {
	return []plan.Verb{
		Modprobe{},
		Sysctl{},
		Sysfs{},
		Hugepages{},
		Migration{},
		SRIOV{},
		Ethtool{},
		DCB{},
		DCQCN{},
		Unit{},
		Grub{},
		SystemdBoot{},
		Cmdline{},
		Deadline{},
		// shown with their steps, not done
		Manual{},
	}
}
