// SPDX-License-Identifier: Apache-2.0

//go:build root

package fixes_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// A virtual interface has no data center bridging: the kernel says so, and it
// is a refusal.
func TestRootDCBNotOffered(t *testing.T) {
	if !ownSpace(t, syscall.CLONE_NEWNET) {
		return
	}
	if out, err := exec.Command("ip", "link", "add", "dummy7", "type", "dummy").CombinedOutput(); err != nil {
		t.Skipf("skipped: no dummy interface: %v %s", err, out)
	}
	e := &plan.Engine{Tool: "test", Verbs: []plan.Verb{fixes.DCB{AllowMgmt: true}}}
	for _, name := range []string{"pfc", "trust", "dcbx"} {
		want := map[string]string{"pfc": "3", "trust": "dscp", "dcbx": "host"}[name]
		p := plantest.Make(t, e, []plan.Wish{{Setting: fixes.DCBSetting("dummy7", name), Want: want, Tier: plan.Link}})
		if len(p.Changes) != 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, "the driver of dummy7 has no data center bridging") {
			t.Errorf("%+v", p)
		}
	}
}

// dcbPorts are the interfaces of mlx5 that answer dcbnl questions.
func dcbPorts(t *testing.T) (targets []string) {
	t.Helper()
	if os.Getenv(changesDevices) == "" {
		t.Skipf("skipped: it changes devices; in a throw-away guest set %s=1", changesDevices)
	}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, d := range facts.New(h).DCB().List {
		if d.DCBNL == facts.DCBAnswered && d.App != nil && d.PFC != nil {
			targets = append(targets, d.BDF+" "+d.NIC)
		}
	}
	if len(targets) == 0 {
		t.Skip("skipped: no interface has data center bridging")
	}
	return targets
}

// dcbState is what the kernel tells of an interface.
func dcbState(t *testing.T, target string) string {
	t.Helper()
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var all []string
	for _, name := range []string{"dcbx", "trust", "app dscp", "pfc"} {
		v, err := fixes.DCB{}.Read(t.Context(), h, fixes.DCBSetting(target, name))
		if name == "trust" && host.Absent(err) {
			continue // the in-tree driver
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+" "+v.Text)
	}
	return strings.Join(all, "; ")
}

func cnpFile(t *testing.T, nic, bdf string) string {
	t.Helper()
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p, _ := facts.DCQCNFile(h, nic, bdf, "np_cnp_dscp")
	return p
}

// Through a real kernel's dcbnl, and back to the table that was there.
func TestRootDCB(t *testing.T) {
	targets := dcbPorts(t)
	if !ownSpace(t, 0) {
		return
	}
	e := &plan.Engine{Tool: "test", Verbs: []plan.Verb{fixes.DCB{AllowMgmt: true}, fixes.DCQCN{}}}
	for _, target := range targets {
		before := dcbState(t, target)
		t.Logf("%s: %s", target, before)
		pfc, trust := "3,5", "dscp"
		if strings.Contains(before, "pfc 3,5") {
			pfc = "4"
		}
		if !strings.Contains(before, "app dscp none") {
			trust = "pcp"
		}
		wish := func(name, want string) plan.Wish {
			return plan.Wish{Setting: fixes.DCBSetting(target, name), Want: want, Tier: plan.Link, Check: "dcqcn.test"}
		}
		wishes := []plan.Wish{wish("dcbx", "host"), wish("pfc", pfc), wish("trust", trust)}
		if trust == "dscp" {
			wishes = append(wishes, wish("dscp-prio 26", "4"))
		}
		bdf, nic, _ := strings.Cut(target, " ")
		if _, err := os.Stat(cnpFile(t, nic, bdf)); err == nil {
			wishes = append(wishes, plan.Wish{Setting: fixes.DCQCNSetting(target, "np_cnp_dscp"), Want: "17", Tier: plan.Safe, Check: "dcqcn.test"})
		}
		p := plantest.Make(t, e, wishes)
		if len(p.Refused) > 0 || len(p.Changes) < 2 {
			t.Fatalf("%+v %+v", p.Changes, p.Refused)
		}
		for _, c := range p.Changes {
			t.Logf("%s: %s", c.Setting, c.Diff)
		}
		r, err := e.Apply(t.Context(), p, plan.Options{Allow: []plan.Tier{plan.Link}})
		if err != nil || r.Outcome != plan.Applied {
			t.Fatalf("%v %+v", err, r)
		}
		t.Logf("%s: %s", target, dcbState(t, target))
		if again := plantest.Make(t, e, wishes); len(again.Changes) > 0 {
			t.Errorf("planned again: %+v", again.Changes)
		}
		if u, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
			t.Fatalf("%v %+v", err, u)
		}
		if after := dcbState(t, target); after != before {
			t.Errorf("it was %s and is %s", before, after)
		}
	}
}
