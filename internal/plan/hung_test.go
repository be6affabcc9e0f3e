// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// A write that never ends is reported in time. Nothing is written after it,
// and the transaction stays open until the kernel answers again.
func TestHungWrite(t *testing.T) {
	m := newMachine(t)
	release, stuck := make(chan struct{}), true
	var after []string
	m.Machine.Limit = 50 * time.Millisecond
	m.Machine.Knob = func(p, s string) error {
		if stuck && p == knobD {
			<-release
			return nil
		}
		after = append(after, p)
		return plantest.Knob(m.root)(p, s)
	}
	start := time.Now()
	r := m.apply(plan.Incomplete, everything(), plan.Options{})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	var hung *plan.HungError
	if !errors.As(r.Cause, &hung) || r.Exit() != 5 || len(r.Left) == 0 || m.states() != "unfinished" {
		t.Fatalf("%+v %s", r, m.states())
	}
	says(t, r.Cause, knobD, "the kernel has not answered for 50ms and may still be at it", "dmesg")
	written := strings.Join(after, " ")

	pending, busy, err := m.Status(ctx)
	if err != nil || busy != nil || len(pending) != 1 || pending[0].ID != r.Txn || !strings.Contains(pending[0].Why, "has not answered") {
		t.Fatalf("%+v %v %v", pending, busy, err)
	}
	if got := strings.Join(after, " "); got != written {
		t.Errorf("written after it: %s", got)
	}
	// still stuck: whatever else can be is put back, and the transaction stays open
	m.undo(plan.Incomplete, "", plan.Options{Force: false})
	if m.states() != "unfinished" {
		t.Errorf("%s", m.states())
	}
	stuck = false
	close(release)
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

// Of undo, too: the kinds that do not hang are put back.
func TestHungUndo(t *testing.T) {
	m := newMachine(t)
	r := m.apply(plan.Applied, everything(), plan.Options{})
	stuck, release := true, make(chan struct{})
	m.Machine.Limit = 50 * time.Millisecond
	m.Machine.Knob = func(p, s string) error {
		if stuck && p == knobA {
			<-release
		}
		return plantest.Knob(m.root)(p, s)
	}
	u := m.undo(plan.Incomplete, r.Txn, plan.Options{})
	var names []string
	for _, l := range u.Left {
		names = append(names, l.Name+l.Target)
	}
	if m.states() != "unfinished" || len(u.Left) == 0 || !strings.Contains(strings.Join(names, " "), knobA) || strings.Contains(strings.Join(names, " "), replaced) {
		t.Errorf("%v %s", names, m.states())
	}
	stuck = false
	close(release)
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}
