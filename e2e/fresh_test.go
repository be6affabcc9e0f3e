// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/report"
)

// freshRules want of the guest all that it can have: of the command line, the
// IOMMU, huge pages of 1G and 2M, kernel parameters, virtual functions of a
// real driver, and RoCE on the lab's NICs.
const freshRules = `schema: hostcheck.profile/v1
name: lab-fresh
layer: site
source: the VM lab
cmdline:
  require:
    - {id: pt, token: iommu=pt, source: the VM lab}
    # else the kernel may lie in the one piece of a node that has room for a page of 1G
    - {id: nokaslr, token: nokaslr, source: the VM lab}
hugepages:
  mount: true
  pools:
    - {size: 1G, per_node: 1}
    - {size: 2M, per_node: 32}
modules:
  require: [vxlan]
sysctl:
  keys:
    - {id: somaxconn, key: net.core.somaxconn, min: 16384}
nics:
  - id: both
    match: {driver: mlx5_core}
    trust: dscp
    pfc: [3]
    cnp_dscp: 50
  - id: functions
    match: {bdf: "` + manaPort + `"}
    vfs: 2
`

const (
	freshProfile = bootDir + "/fresh.yaml"
	freshChecks  = "cmdline.required cmdline.hugepages cmdline.next_boot iommu.domain hugepages.pool hugepages.mount driver.modules sysctl.somaxconn dcqcn.trust dcqcn.pfc dcqcn.cnp_dscp sriov.vfs"
	freshFlags   = " --intent guest --profile " + freshProfile
	fixFresh     = "hostcheck fix --yes --allow link,boot --confirm=auto -f json " + freshChecks + freshFlags
)

// TestFreshHost takes a guest from its first findings to none, over a reboot
// that tries its command line, and back to what it was.
func TestFreshHost(t *testing.T) {
	if testing.Short() {
		t.Skip("three boots: in the whole set only")
	}
	began := time.Now()
	ctx := limit(t, 50*time.Minute)
	g := settled(t, ctx, lab.Options{})
	b := newBooting(t, ctx, g)
	pairFiles(t, ctx, g)
	bindPair(t, ctx, g)
	nicUnit(t, ctx, g, "", portA, portB)
	if err := g.Push(ctx, freshProfile, []byte(freshRules), 0o644); err != nil {
		t.Fatal(err)
	}
	fixLab(t, ctx, g)
	start := snapshot(t, ctx, g, "before the fix", "all")
	was := b.cmdline("before the fix")
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck "+freshChecks+freshFlags)

	f := document[report.Fix](t, "fix", exits(t, ctx, g, "fix", report.ExitPending, fixFresh).Out)
	kinds(t, "fix", f, "dcb", "dcqcn", "deadline", "file", "grub", "hugepages", "modprobe", "sriov", "sysctl", "unit")
	b.reboot("try")
	b.confirmed("confirmed by its unit")
	must(t, ctx, g, "judge after the reboot", "hostcheck --fail-on warn "+freshChecks+freshFlags)
	nothing := document[report.Fix](t, "fix again", must(t, ctx, g, "fix again", fixFresh))
	if nothing.Result.Outcome != report.OutcomeNothing || len(nothing.Plan.Changes) > 0 {
		t.Errorf("step \"fix again\": %+v", nothing.Plan.Changes)
	}
	b.reboot("with the new configuration")
	must(t, ctx, g, "judge the new configuration", "hostcheck --fail-on warn "+freshChecks+freshFlags)

	must(t, ctx, g, "undo", "hostcheck undo --all -f json")
	b.reboot("after the undo")
	if line := b.cmdline("after the undo"); line != was {
		t.Errorf("step \"after the undo\": the command line is %q, and was %q", line, was)
	}
	fixLab(t, ctx, g)
	must(t, ctx, g, "what GRUB left", "! grub-editenv /boot/grub/grubenv list | grep -v '^next_entry=$' && grub-editenv /boot/grub/grubenv unset next_entry; modprobe -a dm_mod")
	held := 0
	if same(t, "undo", start, snapshot(t, ctx, g, "after the undo", "all")) {
		held = len(f.Plan.Changes)
	}
	count("fresh host", "changes of all tiers, verified after a reboot and taken back", len(f.Plan.Changes), held, time.Since(began))
	if strings.Contains(b.cmdline("at the end"), "hostcheck") {
		t.Error("a trial is left")
	}
}
