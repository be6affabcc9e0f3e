// SPDX-License-Identifier: Apache-2.0

// Package units asks the running systemd about its units, over its own
// interface on D-Bus (org.freedesktop.systemd1(5)): no file tells which of them
// failed.
package units

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Manager is how systemd as a whole stands.
type Manager struct {
	State  string   // running, degraded, starting, maintenance … (is-system-running in systemctl(1))
	Failed []string // units, sorted
}

// Booted reports whether the boot has come to its end.
func (m Manager) Booted() bool { return m.State == "running" || m.State == "degraded" }

const answerTime = 10 * time.Second

// Ask asks the systemd of this machine.
func Ask(ctx context.Context) (m Manager, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c, err := dbus.NewWithContext(ctx)
	if err != nil {
		return m, fmt.Errorf("cannot ask systemd: %w", err)
	}
	defer c.Close()
	state, err := c.SystemStateContext(ctx)
	if err != nil {
		return m, fmt.Errorf("systemd does not tell its state: %w", err)
	}
	var ok bool
	if m.State, ok = state.Value.Value().(string); !ok {
		return m, errors.New("systemd's state is no text")
	}
	list, err := c.ListUnitsFilteredContext(ctx, []string{"failed"})
	if err != nil {
		return m, fmt.Errorf("systemd does not list its failed units: %w", err)
	}
	for _, u := range list {
		m.Failed = append(m.Failed, u.Name)
	}
	slices.Sort(m.Failed)
	return m, nil
}
