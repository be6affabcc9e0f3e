// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// What the real systemctl makes of a tree is what Read says of it.
func TestUnitReadAgreesWithSystemctl(t *testing.T) {
	program, err := exec.LookPath("systemctl")
	if err != nil {
		t.Skip("skipped: systemctl is not installed")
	}
	for unit, verbs := range map[string][]string{
		"irqbalance.service":  {"", "enable", "mask", "unmask", "disable", "mask", "unmask"},
		"dev-hugepages.mount": {"", "mask", "unmask"},
		"odd.service":         {"", "add-wants rescue.target", "disable"},
	} {
		root := plantest.TempDir(t)
		plantest.Files(t, root, with(unitHost(), map[string]string{usrUnits + "rescue.target": "[Unit]\nDescription=x\n"}))
		ctl := func(args ...string) string {
			out, err := exec.Command(program, append([]string{"--root=" + root}, args...)...).CombinedOutput()
			if err != nil && args[0] != "is-enabled" { // which fails for "disabled"
				t.Fatalf("systemctl %v: %v: %s", args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		for _, verb := range verbs {
			if f := strings.Fields(verb); len(f) > 0 {
				ctl(append(f, unit)...)
			}
			h, err := host.Open(root, host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := fixes.Unit{}.Read(context.Background(), h, fixes.UnitSetting(unit, fixes.UnitEnabled))
			h.Close()
			if want := ctl("is-enabled", unit); err != nil || got.Text != want {
				t.Errorf("%s after %q: %s, %v; systemctl says %s", unit, verb, got, err, want)
			}
		}
	}
}

// The timer is armed when systemctl says that it is enabled.
func TestDeadlineReadAgreesWithSystemctl(t *testing.T) {
	program, err := exec.LookPath("systemctl")
	if err != nil {
		t.Skip("skipped: systemctl is not installed")
	}
	p, e := completedOn(t, nil, ringWish)
	setting := p.Changes[3].Setting
	for _, c := range p.Changes[1:3] {
		plantest.Files(t, e.Root, map[string]string{c.Target: c.After.Text})
	}
	for _, c := range []struct{ verb, want string }{{"disable", "(absent)"}, {"enable", "armed"}, {"enable", "armed"}, {"disable", "(absent)"}} {
		if out, err := exec.Command(program, "--root="+e.Root, c.verb, setting.Name).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.verb, err, out)
		}
		h, err := host.Open(e.Root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := fixes.Deadline{}.Read(context.Background(), h, setting)
		h.Close()
		if err != nil || got.String() != c.want {
			t.Errorf("after %s: %s, %v", c.verb, got, err)
		}
	}
}
