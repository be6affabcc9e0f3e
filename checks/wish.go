// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"fmt"
	"strconv"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// offer gives a finding's fix. A value that applies only because hostcheck
// assumed the intent never changes a host.
func offer(o profile.Origin, wishes ...plan.Wish) []plan.Wish {
	if o.Assumed {
		return nil
	}
	return wishes
}

// offerByIntent is offer for a verdict that follows from the intent alone.
func offerByIntent(p *profile.Profile, wishes ...plan.Wish) []plan.Wish {
	return offer(profile.Origin{Assumed: p.IntentSource == profile.Assumed}, wishes...)
}

// The settings below are named as the verbs in fixes name them.

// wishPages wants a node to keep that many pages of a size.
func wishPages(node int, sizeKB, got, want int64, why string) plan.Wish {
	return plan.Wish{
		Setting: plan.Setting{Kind: "hugepages", Target: nodeName(node), Name: fmt.Sprintf("%dkB", sizeKB)},
		Got:     strconv.FormatInt(got, 10), Want: strconv.FormatInt(want, 10), Tier: plan.Safe, Why: why,
	}
}

// wishToken wants tokens on the kernel command line, or gone from it.
func wishToken(token string, present bool, why string) plan.Wish {
	w := plan.Wish{Setting: plan.Setting{Kind: "cmdline", Name: token}, Got: "absent", Want: "present", Tier: plan.Boot, Why: why}
	if !present {
		w.Got, w.Want = w.Want, w.Got
	}
	return w
}

// wishFile wants a text in a file of the kernel.
func wishFile(path, got, want, why string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: "sysfs", Name: path}, Got: got, Want: want, Tier: plan.Safe, Why: why}
}

// wishNIC wants one word of ethtool or of data center bridging.
func wishNIC(kind string, nic *facts.NIC, name, got, want, why string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: kind, Target: nic.Subject(), Name: name}, Got: got, Want: want, Tier: plan.Link, Why: why}
}

// wishDCQCN wants one setting of RoCE congestion control, which the NIC takes
// while it runs.
func wishDCQCN(nic *facts.NIC, name, got, want, why string) plan.Wish {
	w := wishNIC("dcqcn", nic, name, got, want, why)
	w.Tier = plan.Safe
	return w
}

// wishModule wants a module loaded.
func wishModule(name, why string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: "modprobe", Name: facts.ModuleName(name)}, Got: "absent", Want: "loaded", Tier: plan.Safe, Why: why}
}

// wishUnit wants one side of a unit: enabled or active.
func wishUnit(unit, side, got, want, why string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: "unit", Target: unit, Name: side}, Got: got, Want: want, Tier: plan.Safe, Why: why}
}

// wishManual wants what only a person changes.
func wishManual(target, name, got, want, why string) plan.Wish {
	return plan.Wish{Setting: plan.Setting{Kind: "manual", Target: target, Name: name}, Got: got, Want: want, Tier: plan.Firmware, Why: why}
}
