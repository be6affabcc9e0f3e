// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// A write that never ends is reported in time. Nothing is written after it,
// and the transaction stays open until the kernel answers again.
func TestHungWrite(t *testing.T) {
	m := newMachine(t)
	var stuck atomic.Bool // calls that were left behind still read it
	stuck.Store(true)
	release := make(chan struct{})
	var mu sync.Mutex
	var after []string
	m.Machine.Limit = 50 * time.Millisecond
	m.Machine.Knob = func(p, s string) error {
		if stuck.Load() && p == knobD {
			<-release
			return nil
		}
		mu.Lock()
		after = append(after, p)
		mu.Unlock()
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
	so := func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(after, " ")
	}
	written := so()

	pending, busy, err := m.Status(ctx)
	if err != nil || busy != nil || len(pending) != 1 || pending[0].ID != r.Txn || !strings.Contains(pending[0].Why, "has not answered") {
		t.Fatalf("%+v %v %v", pending, busy, err)
	}
	if got := so(); got != written {
		t.Errorf("written after it: %s", got)
	}
	// still stuck: whatever else can be is put back, and the transaction stays open
	m.undo(plan.Incomplete, "", plan.Options{Force: false})
	if m.states() != "unfinished" {
		t.Errorf("%s", m.states())
	}
	stuck.Store(false)
	close(release)
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

// Of undo, too: the kinds that do not hang are put back.
func TestHungUndo(t *testing.T) {
	m := newMachine(t)
	r := m.apply(plan.Applied, everything(), plan.Options{})
	var stuck atomic.Bool
	stuck.Store(true)
	release := make(chan struct{})
	m.Machine.Limit = 50 * time.Millisecond
	m.Machine.Knob = func(p, s string) error {
		if stuck.Load() && p == knobA {
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
	stuck.Store(false)
	close(release)
	m.undo(plan.Undone, "", plan.Options{})
	m.same()
}

// hang has the kernel not answer for one knob until it is released.
func (m *machine) hang(knob string) (release func()) {
	answer := make(chan struct{})
	m.Machine.Limit = 50 * time.Millisecond
	m.Machine.Knob = func(p, s string) error {
		if p == knob {
			<-answer
		}
		return plantest.Knob(m.root)(p, s)
	}
	return func() {
		close(answer)
		time.Sleep(50 * time.Millisecond) // what waited is made now
	}
}

// expireStuck wants the timer's run to report a hang and to stay armed, with the
// program that it runs; what it can put back, it does.
func (m *machine) expireStuck(knob string) {
	m.Helper()
	out, wait, err := m.Expire(ctx, plan.Options{})
	if err != nil || wait != 0 || len(out) != 1 || out[0].Outcome != plan.Incomplete || out[0].Exit() != 5 {
		m.Fatalf("%+v %v %v", out, wait, err)
	}
	left := map[string]string{}
	for _, l := range out[0].Left {
		left[l.Name+l.Target] = l.String()
	}
	if !strings.Contains(left[knob], "has not answered") || !strings.Contains(left[timer], "it stays, to put the rest back once the kernel answers") || left[installed] == "" {
		m.Errorf("%v", left)
	}
	if m.text(timer) != "armed\n" || m.text(installed) != "new program" || m.text(knobB) != "128\n" {
		m.Error("the timer is gone, or what could be put back is not")
	}
	pending, busy, err := m.Status(ctx)
	if err != nil || busy != nil || len(pending) != 1 || pending[0].State != plan.Unfinished || !strings.Contains(pending[0].Why, "has not answered") {
		m.Errorf("%+v %v %v", pending, busy, err)
	}
	var unfinished *plan.UnfinishedError
	if _, err := m.Apply(ctx, sealed(file("/etc/x", plan.Absent, plan.Text("1"))), plan.Options{}); !errors.As(err, &unfinished) {
		m.Errorf("%v", err)
	}
}

// expired wants the timer's next run to put back all the rest.
func (m *machine) expired() {
	m.Helper()
	out, _, err := m.Expire(ctx, plan.Options{})
	if err != nil || len(out) != 1 || out[0].Outcome != plan.Undone || m.states() != "undone" {
		m.Errorf("%+v %v %s", out, err, m.states())
	}
	m.same()
}

func TestHungExpire(t *testing.T) {
	m := newAwaiting(t)
	m.apply(plan.Applied, awaiting(), plan.Options{Within: time.Nanosecond})
	release := m.hang(knobA)
	m.expireStuck(knobA)
	m.expireStuck(knobA) // and again
	release()
	m.expired()
}

// The change itself hangs, and nobody is left to say so: the timer takes it back.
func TestHungApplyExpires(t *testing.T) {
	m := newAwaiting(t)
	release := m.hang(knobA)
	r := m.apply(plan.Incomplete, awaiting(), within)
	if m.text(timer) != "armed\n" || m.states() != "unfinished" || !r.Until.IsZero() {
		t.Errorf("%+v %s", r, m.states())
	}
	m.expireStuck(knobA)
	release()
	m.expired()
}

// A confirmation that hangs is none.
func TestHungConfirm(t *testing.T) {
	m := newAwaiting(t)
	p := awaiting()
	p.Changes[4] = deferred(knob("other", knobD, "5", "6"))
	p.Seal()
	m.write(knobC, "off\n")
	m.old = plantest.Snapshot(t, m.root)
	m.apply(plan.Applied, p, within)
	release := m.hang(knobD)
	r, err := m.Confirm(ctx, "", plan.Options{})
	var hung *plan.HungError
	if err != nil || r.Outcome != plan.Incomplete || r.Exit() != 5 || !errors.As(r.Cause, &hung) || m.states() != "unfinished" {
		t.Fatalf("%+v %v %s", r, err, m.states())
	}
	if m.text(timer) != "armed\n" || m.text(knobA) != "2\n" {
		t.Error("something was put back, or the timer is not armed")
	}
	if _, err := m.Confirm(ctx, "", plan.Options{}); !errors.Is(err, plan.ErrNoneWaits) {
		t.Errorf("%v", err)
	}
	m.expireStuck(knobD)
	release()
	m.expired()
}

// The undo of a confirmed change arms the timer again, which goes on with it;
// force gives up nothing that hangs.
func TestHungUndoConfirmed(t *testing.T) {
	m := newAwaiting(t)
	m.apply(plan.Applied, awaiting(), plan.Options{})
	release := m.hang(knobA)
	for _, force := range []bool{false, true} {
		m.undo(plan.Incomplete, "", plan.Options{Force: force})
		if m.text(timer) != "armed\n" || m.states() != "unfinished" {
			t.Error(m.states())
		}
	}
	m.expireStuck(knobA)
	release()
	m.expired()
}
