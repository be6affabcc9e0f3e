// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// tunnelKernel plays what the kernel does besides when the table of tunnel
// ports is switched: it puts the ports of all VXLAN interfaces there, or takes
// them away (net/ipv4/udp_tunnel_nic.c). One that is built in stays.
func tunnelKernel(root string, set func(ifname, group, word, value string) error) func(ifname, group, word, value string) error {
	return func(ifname, group, word, value string) error {
		if err := set(ifname, group, word, value); err != nil || word != "rx-udp_tunnel-port-offload" {
			return err
		}
		p := filepath.Join(root, host.CaptureFile)
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var c map[string]any
		if err := json.Unmarshal(b, &c); err != nil {
			return err
		}
		answer := func(key string) []any { return c["queries"].(map[string]any)[key].(map[string]any)["answer"].([]any) }
		entries := []any{}
		for _, l := range answer(host.VXLANLinksKey) {
			if port := l.(map[string]any)["port"]; value == "on" && port != 4789.0 {
				entries = append(entries, map[string]any{"port": port, "type": "vxlan"})
			}
		}
		answer(host.TunnelsKey(ifname))[0].(map[string]any)["entries"] = entries
		if b, err = json.Marshal(c); err != nil {
			return err
		}
		return os.WriteFile(p, b, 0o644)
	}
}

// The parameter of mlx4_core counts from the next boot: the check fails, the
// file is written, then it is pending and nothing more is planned, and undo
// gives back the tree.
func TestSteeringLoop(t *testing.T) {
	const p = "../testdata/checks/vxlan.steering/fail.txtar"
	i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == "vxlan.steering" })
	h := trialHost{t, fixture.Load(t, p), p, checks.All()[i]}
	if err := os.MkdirAll(filepath.Join(h.Root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	pending := func() (n int) {
		for _, f := range h.findings(h.Root) {
			if f.Status == check.Fail && f.Pending && f.Fix == nil {
				n++
			}
		}
		return n
	}
	old := plantest.Snapshot(t, h.Root)
	e := &plan.Engine{Root: h.Root, Tool: "test", Verbs: []plan.Verb{fixes.Modprobe{}}, Machine: &plan.Machine{}}
	made := plantest.Make(t, e, h.wishes(h.Root))
	if len(made.Changes) != 1 || len(made.Refused) > 0 || made.Changes[0].Tier != plan.Boot || pending() != 0 {
		t.Fatalf("%+v", made)
	}
	if text := made.Changes[0].After.Text; !strings.HasSuffix(text, "options mlx4_core log_num_mgm_entry_size=-1\n") {
		t.Errorf("it would write %q", text)
	}
	r, err := e.Apply(t.Context(), made, plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("apply: %v %+v", err, r)
	}
	if n := pending(); n != 2 { // one for each interface of the card
		t.Errorf("%d findings are pending", n)
	}
	if again := h.wishes(h.Root); len(again) > 0 {
		t.Errorf("wished again: %+v", again)
	}
	if u, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
		t.Fatalf("undo: %v %+v", err, u)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, h.Root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}
