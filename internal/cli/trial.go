// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// trial tells how the trial of a kernel command line stands, nil when the host
// has none. Whether the host booted since it was armed, the journal knows.
func (a *app) trial(txns []*plan.Txn) *report.Trial {
	h, err := host.Open(a.flags.root, host.Options{})
	if err != nil {
		return nil
	}
	defer h.Close()
	t := fixes.ReadTrial(facts.New(h))
	if t == nil {
		return nil
	}
	out := &report.Trial{ID: t.ID, Try: t.Try, Cmdline: t.Cmdline}
	rebooted := true
	for _, x := range slices.Backward(txns) {
		if x.State == plan.InForce && slices.ContainsFunc(x.Plan.Changes, t.IsTrial) {
			out.Txn = x.ID
			boot, _ := h.Text("/proc/sys/kernel/random/boot_id") // a tree may have none
			rebooted = boot != x.BootID
			break
		}
	}
	out.State, out.Says = t.State(rebooted)
	return out
}
