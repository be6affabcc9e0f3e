// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// class is one class of settings of the lab's NICs, with changes of it.
type class struct {
	name    string
	flavour string       // in-tree, mana; "" the out-of-tree mlx5_core
	wishes  []string     // for changer
	checks  string       // checks of hostcheck that want such a change; "" none
	half    plan.Outcome // what the changes come to when the device does half: words of ethtool are set one by one
	quick   []string     // modes of the quick part
}

var classes = []class{
	{name: "rings", wishes: []string{"ethtool|rings rx|4096", "ethtool|rings tx|2048"}, half: plan.Restored},
	{name: "rings", flavour: "mana", wishes: []string{"ethtool|rings rx|512", "ethtool|rings tx|1024"}, half: plan.Restored, quick: []string{"lie"}},
	// half of the way back is not the way back
	{name: "channels", wishes: []string{"ethtool|channels combined|4"}, half: plan.Incomplete, quick: []string{"half"}},
	{name: "channels", flavour: "mana", wishes: []string{"ethtool|channels combined|2"}, half: plan.Incomplete},
	{name: "flags", wishes: []string{"ethtool|flag rx_cqe_compress|on", "ethtool|flag tx_port_ts|on"}, half: plan.Applied},
	{name: "flags", flavour: "mana", wishes: []string{"ethtool|flag full-page-rx|on"}, half: plan.Applied},
	{name: "features", wishes: []string{"ethtool|feature rx-fcs|on", "ethtool|feature rx-all|on"}, half: plan.Applied},
	{name: "coalesce", wishes: []string{"ethtool|coalesce rx-usecs|32", "ethtool|coalesce tx-usecs|64"}, half: plan.Restored},
	{name: "pause", wishes: []string{"ethtool|pause rx|off", "ethtool|pause tx|off"}, half: plan.Restored},
	{name: "pfc", wishes: []string{"dcb|pfc|3,5"}, checks: "dcqcn.pfc", half: plan.Restored, quick: []string{"EIO"}},
	{name: "app", wishes: []string{"dcb|trust|dscp", "dcb|dscp-prio 26|5"}, flavour: "in-tree", checks: "dcqcn.trust", half: plan.Restored},
	{name: "trust", wishes: []string{"dcb|trust|dscp"}, checks: "dcqcn.trust", half: plan.Applied},
	{name: "ecn", wishes: []string{"dcqcn|np 3|off", "dcqcn|rp 3|off", "dcqcn|np_cnp_dscp|50"}, checks: "dcqcn.cnp_dscp dcqcn.params", half: plan.Restored},
	{name: "ecn", wishes: []string{"dcqcn|np_cnp_dscp|50", "dcqcn|rp_ai_rate|10"}, flavour: "in-tree", checks: "dcqcn.cnp_dscp dcqcn.params", half: plan.Restored},
	{name: "sriov", wishes: []string{"sriov|numvfs|4"}, half: plan.Restored},
	{name: "sriov", flavour: "mana", wishes: []string{"sriov|numvfs|3"}, half: plan.Restored},
}

// misbehaviours are the modes of a class; the name of an error is mode fail
// with it.
var misbehaviours = []string{"lie", "EOPNOTSUPP", "EIO", "half"}

// modes takes every class through every mode: what hostcheck is told is done,
// and is not, it notices; it restores the device, or names what it cannot
// restore; and once the device is honest again, undo leads to the start.
func modes(t *testing.T, ctx context.Context, g *lab.Guest, flavour string, mlx5, mana port) {
	for _, c := range classes {
		p := mlx5
		if c.flavour == "mana" {
			p = mana
		}
		if (c.flavour == "in-tree") != (flavour == "in-tree") || testing.Short() && c.quick == nil {
			continue
		}
		start := p.state(t, ctx, g, "before "+c.name)
		for _, mode := range misbehaviours {
			if testing.Short() && !slices.Contains(c.quick, mode) {
				continue
			}
			m := misbehaving{t: t, ctx: ctx, g: g, p: p, c: c, mode: mode, start: start}
			want := plan.Restored
			if mode == "half" {
				want = c.half
			}
			m.change(want)
			if c.checks != "" && want != plan.Applied {
				m.fix()
			}
			if !testing.Short() && mode != "half" {
				m.changeThenBreak()
			}
		}
	}
}

// misbehaving is one class in one mode.
type misbehaving struct {
	t     *testing.T
	ctx   context.Context
	g     *lab.Guest
	p     port
	c     class
	mode  string
	start []string
}

func (m *misbehaving) step(what string) string {
	return fmt.Sprintf("%s of %s: %s, %s", m.c.name, m.p.name, m.mode, what)
}

// word is the text of the class's parameter for the mode.
func (m *misbehaving) word() string {
	if strings.HasPrefix(m.mode, "E") {
		return "fail"
	}
	return m.mode
}

func (m *misbehaving) spoil() {
	m.t.Helper()
	if m.word() == "fail" {
		m.p.set(m.t, m.ctx, m.g, "errno", m.mode)
	}
	m.p.set(m.t, m.ctx, m.g, m.c.name, m.word())
}

func (m *misbehaving) heal() {
	m.t.Helper()
	m.p.set(m.t, m.ctx, m.g, m.c.name, "normal")
}

// change has the class's changes made while the device misbehaves.
func (m *misbehaving) change(want plan.Outcome) {
	m.t.Helper()
	began, held := time.Now(), 0
	m.spoil()
	if m.run(m.step("change"), m.p.changer("", m.c.wishes...), want) {
		held = 1
	}
	count(devScenario, "changes that a device lies about, refuses or does by half", 1, held, time.Since(began))
}

// changeThenBreak has the class's changes made by an honest device, which then
// misbehaves while they are put back.
func (m *misbehaving) changeThenBreak() {
	m.t.Helper()
	began, held := time.Now(), 0
	if m.word() == "fail" {
		m.p.set(m.t, m.ctx, m.g, "errno", m.mode)
	}
	flags := fmt.Sprintf("-break %s=%s", m.p.parameter(m.c.name), m.word())
	if m.run(m.step("put back"), m.p.changer(flags, m.c.wishes...), plan.Incomplete) {
		held = 1
	}
	count(devScenario, "changes that a device does not let be put back", 1, held, time.Since(began))
}

// fix has hostcheck's own command fix the checks that want such a change.
func (m *misbehaving) fix() {
	m.t.Helper()
	began, held := time.Now(), 0
	m.spoil()
	step := m.step("fix")
	want := 4
	if m.mode == "half" && m.c.name == "pfc" {
		want = 0 // one priority is the first of one
	}
	f := document[report.Fix](m.t, step, exits(m.t, m.ctx, m.g, step, want, "hostcheck fix --yes --allow link --confirm=auto -f json "+m.c.checks+devFlags).Out)
	switch {
	case want == 0:
		undoAll(m.t, m.ctx, m.g, step, 1)
		held = 1
	case f.Result.Outcome != plan.Restored || f.Exit != 4 || len(f.Result.Left) > 0 || !m.names(f.Result.Cause, f.Plan.Changes):
		m.t.Errorf("step %q: %+v", step, f.Result)
	default:
		held = 1
	}
	if !same(m.t, step, m.start, m.p.state(m.t, m.ctx, m.g, step)) {
		held = 0
	}
	idle(m.t, m.ctx, m.g, step, 0)
	m.heal()
	count(devScenario, "fixes that a device lies about, refuses or does by half", 1, held, time.Since(began))
}

// names reports whether a cause names one of the settings, or what was done to it.
func (m *misbehaving) names(cause string, changes []plan.Change) bool {
	return slices.ContainsFunc(changes, func(c plan.Change) bool {
		return strings.Contains(cause, c.Name) || strings.Contains(cause, "/sys/") && strings.Contains(cause, m.p.name) || strings.Contains(cause, m.p.bdf)
	})
}

// run runs changer and holds what it says against the guest; in the end the
// device is honest and as it was.
func (m *misbehaving) run(step, command string, want plan.Outcome) bool {
	t, ctx, g := m.t, m.ctx, m.g
	t.Helper()
	failed := false
	wrong := func(format string, args ...any) {
		t.Helper()
		failed = true
		t.Errorf("step %q: %s", step, fmt.Sprintf(format, args...))
	}
	code := map[plan.Outcome]int{plan.Applied: 0, plan.Restored: 4, plan.Incomplete: 5}[want]
	d := document[done](t, step, exits(t, ctx, g, step, code, command).Out)
	if d.Result.Outcome != want || len(d.Refused) > 0 || len(d.Changes) == 0 {
		wrong("%+v, refused %+v", d.Result, d.Refused)
	}
	if want != plan.Applied && !strings.Contains(d.Result.Cause, "the lab broke it") && !m.names(d.Result.Cause, d.Changes) {
		wrong("the cause names no setting: %s", d.Result.Cause)
	}
	history := document[report.History](t, step, must(t, ctx, g, step+", history", "hostcheck history -f json"))
	state := map[plan.Outcome]plan.State{plan.Applied: plan.InForce, plan.Restored: plan.WasBack, plan.Incomplete: plan.Unfinished}[want]
	if len(history.Transactions) == 0 || history.Transactions[0].ID != d.Result.Txn || history.Transactions[0].State != state {
		wrong("the history begins with %+v, want %s %s", history.Transactions[:min(1, len(history.Transactions))], d.Result.Txn, state)
	}
	switch now := m.p.state(t, ctx, g, step); want {
	case plan.Restored:
		idle(t, ctx, g, step+", status", 0)
		failed = !same(t, step, m.start, now) || failed
	case plan.Incomplete:
		m.left(step, d, wrong)
		if len(difference(m.start, now)) == 0 {
			wrong("it says that settings are left, and none is")
		}
	case plan.Applied:
		idle(t, ctx, g, step+", status", 1)
		if len(difference(m.start, now)) == 0 {
			wrong("it says that all was done, and nothing was")
		}
	case plan.Undone, plan.Interrupted: // no change ends so here
	}
	m.heal()
	if want != plan.Restored {
		undoAll(t, ctx, g, step+", undo", 1)
		idle(t, ctx, g, step+", status after the undo", 0)
		failed = !same(t, step+", undo", m.start, m.p.state(t, ctx, g, step)) || failed
	}
	return !failed
}

// left wants exactly those settings named that were changed, by the result and
// by "hostcheck status", each with what to do by hand.
func (m *misbehaving) left(step string, d done, wrong func(string, ...any)) {
	m.t.Helper()
	want := settings(d.Changes)
	var got []string
	for _, l := range d.Result.Left {
		if got = append(got, l.Kind+" "+l.Name); l.ByHand == "" || l.Want == l.Live {
			wrong("%+v does not say what to do", l)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		wrong("left are %q, want %q", got, want)
	}
	s := document[report.Status](m.t, step, exits(m.t, m.ctx, m.g, step+", status", 1, "hostcheck status -f json").Out)
	if len(s.Pending) != 1 || s.Pending[0].ID != d.Result.Txn || len(s.Pending[0].Settings) < len(want) || s.Busy != nil {
		wrong("the status is %+v", s)
	}
}
