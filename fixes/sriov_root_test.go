// SPDX-License-Identifier: Apache-2.0

//go:build root

package fixes_test

import (
	"os"
	"path"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// changesDevices lets a test change the devices of this machine, which no
// namespace keeps from others. In a throw-away guest.
const changesDevices = "HOSTCHECK_TEST_CHANGES_DEVICES"

// freePF finds a physical function with a driver that has no virtual one.
func freePF(t *testing.T) (target string, total string) {
	t.Helper()
	if os.Getenv(changesDevices) == "" {
		t.Skipf("skipped: it changes devices; in a throw-away guest set %s=1", changesDevices)
	}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	names, err := h.List(facts.PCIDevices)
	if err != nil {
		t.Fatal(err)
	}
	for _, bdf := range names {
		dir := path.Join(facts.PCIDevices, bdf)
		all, err := h.Int(path.Join(dir, "sriov_totalvfs"))
		now, err2 := h.Int(path.Join(dir, "sriov_numvfs"))
		nets, err3 := h.List(path.Join(dir, "net"))
		if err == nil && err2 == nil && err3 == nil && all >= 3 && now == 0 && len(nets) == 1 {
			n, _ := h.Text(path.Join(dir, "sriov_totalvfs"))
			return bdf + " " + nets[0], n
		}
	}
	t.Skip("skipped: no NIC with SR-IOV that has no virtual function")
	return "", ""
}

// Real virtual functions of a real driver: none to all, all to 2 by way of
// none, and back, with the .link file of systemd.
func TestRootSRIOV(t *testing.T) {
	target, total := freePF(t)
	if !ownSpace(t, 0) {
		return
	}
	e := &plan.Engine{Tool: "test", Verbs: []plan.Verb{fixes.SRIOV{}}}
	bdf, _, _ := strings.Cut(target, " ")
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile(path.Join(facts.PCIDevices, bdf, "sriov_numvfs"))
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Fatalf("there are %s virtual functions, want %s: %v", got, want, err)
		}
	}
	var txns []string
	for _, want := range []string{total, "2"} {
		wish := plan.Wish{Setting: fixes.SRIOVSetting(target), Want: want, Tier: plan.Link, Check: "sriov.numvfs"}
		p := plantest.Make(t, e, []plan.Wish{wish})
		if len(p.Refused) > 0 {
			t.Fatalf("refused: %s", p.Refused[0].Reason)
		}
		for _, c := range p.Changes {
			t.Logf("%s: %s (%s)", c.Setting, c.Diff, c.Disturbs)
		}
		r, err := e.Apply(t.Context(), p, plan.Options{Allow: []plan.Tier{plan.Link}})
		if err != nil || r.Outcome != plan.Applied {
			t.Fatalf("%v %+v", err, r)
		}
		txns = append(txns, r.Txn)
		holds(want)
		if again := plantest.Make(t, e, []plan.Wish{wish}); len(again.Changes) > 0 {
			t.Errorf("planned again: %+v", again.Changes)
		}
	}
	for i, want := range []string{total, "0"} {
		u, err := e.Undo(t.Context(), txns[len(txns)-1-i], plan.Options{})
		if err != nil || u.Outcome != plan.Undone {
			t.Fatalf("%v %+v", err, u)
		}
		holds(want)
	}
	if names, err := os.ReadDir("/etc/systemd/network"); err == nil && len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}
