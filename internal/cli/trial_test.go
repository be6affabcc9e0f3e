// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"testing"

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
