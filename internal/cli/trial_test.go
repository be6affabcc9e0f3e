// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/units"
)

// A host is healthy when it is as it was before the trial, and the checks hold.
func TestUnhealthy(t *testing.T) {
	want := health{checks: []string{"lab.queue"}, routes: []string{"bond0"}, up: []string{"bond0", "eth0"}, failed: []string{"old.service"}}
	for name, c := range map[string]struct {
		manager units.Manager
		err     error
		change  map[string]string
		want    []string
	}{
		"healthy":          {manager: units.Manager{State: "degraded", Failed: []string{"old.service"}}},
		"a new failure":    {manager: units.Manager{State: "degraded", Failed: []string{"new.service", "old.service"}}, want: []string{"new.service failed"}},
		"still booting":    {manager: units.Manager{State: "starting"}, want: []string{"the boot is not over: systemd is starting"}},
		"rescue":           {manager: units.Manager{State: "maintenance"}, want: []string{"the boot is not over: systemd is maintenance"}},
		"no answer":        {err: errors.New("cannot ask systemd"), want: []string{"cannot ask systemd"}},
		"no default route": {manager: units.Manager{State: "running"}, change: map[string]string{"/proc/net/route": "Iface\tDestination\n"}, want: []string{"bond0 has no default route any more"}},
		"a link is down":   {manager: units.Manager{State: "running"}, change: map[string]string{"/sys/class/net/eth0/operstate": "down\n"}, want: []string{"eth0 was up and is down"}},
		"a check":          {manager: units.Manager{State: "running"}, change: map[string]string{"/proc/sys/lab/queue": "128\n"}, want: []string{"lab.queue is fail: 128"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, labCheck("lab.queue", "", "queue", "4096", plan.Boot))
			l.write("/proc/sys/lab/queue", "4096\n")
			for p, text := range c.change {
				l.write(p, text)
			}
			l.run("lab.queue")
			l.app.systemd = func(context.Context) (units.Manager, error) { return c.manager, c.err }
			if got := l.app.unhealthy(context.Background(), want); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A trial is judged by the checks of which it mends something, when nothing
// stays wrong with them.
func TestTried(t *testing.T) {
	wish := func(kind string) []plan.Wish {
		return []plan.Wish{{Setting: plan.Setting{Kind: kind, Name: "x"}, Check: "lab." + kind}}
	}
	boot, saved := wish("cmdline"), wish("hugepages")
	for name, c := range map[string]struct {
		findings []check.Finding
		refused  []plan.Refusal
		want     bool
	}{
		"mended by the boot":           {findings: []check.Finding{{Status: check.Fail, Fix: boot}, {Status: check.Pass}}, want: true},
		"and before it, for good":      {findings: []check.Finding{{Status: check.Fail, Fix: append(boot, saved...)}, {Status: check.Warn, Fix: saved}}, want: true},
		"without the boot":             {findings: []check.Finding{{Status: check.Fail, Fix: saved}}},
		"lost at the boot":             {findings: []check.Finding{{Status: check.Fail, Fix: boot}, {Status: check.Fail, Fix: wish("sriov")}}},
		"wrong all the same":           {findings: []check.Finding{{Status: check.Fail, Fix: boot}, {Status: check.Unknown}}},
		"refused":                      {findings: []check.Finding{{Status: check.Fail, Fix: boot}, {Status: check.Fail, Fix: saved}}, refused: []plan.Refusal{{Setting: saved[0].Setting}}},
		"pending from an earlier boot": {findings: []check.Finding{{Status: check.Fail, Pending: true, Fix: boot}}},
	} {
		r := &fixing{before: &sample{results: []check.Result{{Check: &check.Check{ID: "lab.pool"}, Findings: c.findings}}}}
		r.view.Plan.Refused = c.refused
		if got := slices.Equal(r.tried(), []string{"lab.pool"}); got != c.want {
			t.Errorf("%s: %v", name, r.tried())
		}
	}
}
