// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// killScript starts hostcheck and kills it: "kill start|log SECONDS COMMAND",
// so long after its start, or after it first wrote to its journal. It prints
// the exit code, 137 where the kill came in time, and after how many
// milliseconds the journal was first written and the command ended, 0 where
// that was never seen.
const killScript = `#!/bin/sh
from=$1 wait=$2 command=$3
now() { read -r up _ < /proc/uptime; echo "${up%.*}${up#*.}0"; }
written() {
	for l in /var/lib/hostcheck/2*/log; do
		[ "$l" -nt /run/lab-fix/mark ] && return
	done
	return 1
}
: > /run/lab-fix/mark
sleep 0.02
begin=$(now) log=$begin
$command > /run/lab-fix/said 2>&1 &
pid=$!
if [ "$from" = log ]; then
	while [ -e /proc/$pid/exe ] && ! written; do sleep 0.01; done # a dead process has no exe
	log=$(now)
fi
[ "$wait" = - ] || { sleep "$wait"; kill -9 $pid 2>/dev/null; }
wait $pid
echo $? $((log - begin)) $(($(now) - begin))
`

// killed is what killScript says.
type killed struct {
	code      int
	log, ends time.Duration // since the start
}

func kill(t *testing.T, ctx context.Context, g *lab.Guest, step, from, wait, command string) killed {
	t.Helper()
	out := must(t, ctx, g, step, fmt.Sprintf("sh %s/kill %s %s '%s'", runDir, from, wait, command))
	var k killed
	var log, ends int64
	if n, err := fmt.Sscan(out, &k.code, &log, &ends); n != 3 {
		t.Fatalf("step %q: %q: %v", step, out, err)
	}
	k.log, k.ends = time.Duration(log)*time.Millisecond, time.Duration(ends)*time.Millisecond
	if k.code != 137 && k.code != 0 && k.code != 1 { // 1: done, and the host has other failures: a slow guest may not answer all
		t.Fatalf("step %q: exit code %d; it said:\n%s", step, k.code, must(t, ctx, g, step, "cat "+runDir+"/said"))
	}
	return k
}

// seed is $HOSTCHECK_E2E_SEED, or one of the clock's.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) % 1_000_000
	if text := os.Getenv("HOSTCHECK_E2E_SEED"); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("HOSTCHECK_E2E_SEED: %v", err)
		}
	}
	t.Logf("HOSTCHECK_E2E_SEED=%d", s)
	return s
}

// TestKill kills hostcheck with SIGKILL at random moments of a fix, and of an
// undo: "hostcheck status" names what was stopped, a new fix is refused, and
// one undo gives the guest as it was before the fix.
func TestKill(t *testing.T) {
	ctx := limit(t, 30*time.Minute)
	random := rand.New(rand.NewPCG(seed(t), 0))
	fixes, undos := 32, 12
	if testing.Short() {
		fixes, undos = 6, 2
	}
	g := settled(t, ctx, lab.Options{})
	fixLab(t, ctx, g)
	must(t, ctx, g, "spoil", spoil)
	all := snapshot(t, ctx, g, "before all", "all")
	k := &killing{T: t, ctx: ctx, g: g, random: random, start: snapshot(t, ctx, g, "before all", "quick")}

	// without a kill, to know how long it takes
	whole := kill(t, ctx, g, "a fix that is not killed", "log", "-", fixSafe)
	idle(t, ctx, g, "status after a fix that is not killed", 1)
	back := kill(t, ctx, g, "an undo that is not killed", "log", "-", undoOne)
	k.same("an undo that is not killed")
	t.Logf("fix: %v, its first record after %v; undo: %v, its first record after %v", whole.ends, whole.log, back.ends, back.log)

	for i := range fixes {
		k.fix(i, whole)
	}
	for i := range undos {
		k.undo(i, back)
	}
	same(t, "all kills", all, snapshot(t, ctx, g, "after all", "all"))
	t.Logf("kills of a fix: %d before its first change, %d between, %d after its end; of an undo: %d, %d, %d",
		k.hits[0], k.hits[1], k.hits[2], k.undoHits[0], k.undoHits[1], k.undoHits[2])
	if k.hits[1] < fixes/4 || k.undoHits[1] < undos/4 {
		t.Errorf("of %d kills of a fix %d hit between its first change and its end, and of %d of an undo %d: too few to prove anything", fixes, k.hits[1], undos, k.undoHits[1])
	}
}

const undoOne = "hostcheck undo -f json"

// killing is the state of [TestKill].
type killing struct {
	*testing.T
	ctx      context.Context
	g        *lab.Guest
	random   *rand.Rand
	start    []string
	hits     [3]int // kills of a fix before its first change, between, after its end
	undoHits [3]int
	refused  bool // a fix after a stopped one was tried
}

func (k *killing) same(step string) bool {
	k.Helper()
	return same(k.T, step, k.start, snapshot(k.T, k.ctx, k.g, "after "+step, "quick"))
}

// moment gives when to kill: one in four at any time of the whole run, the
// others between the first record of the journal and the end.
func (k *killing) moment(i int, whole killed) (from, wait string) {
	from, span := "log", whole.ends-whole.log
	if i%4 == 3 {
		from, span = "start", whole.ends
	}
	return from, fmt.Sprintf("%.3f", (time.Duration(k.random.Int64N(int64(span) + 1))).Seconds())
}

func (k *killing) fix(i int, whole killed) {
	k.Helper()
	began := time.Now()
	from, wait := k.moment(i, whole)
	step := fmt.Sprintf("kill %d of a fix, %s s after its %s", i, wait, from)
	r := kill(k.T, k.ctx, k.g, step, from, wait, fixSafe)
	s := k.status(step)
	switch {
	case len(s.Pending) > 0:
		k.hits[1]++
		if r.code != 137 {
			k.Errorf("step %q: it ended by itself, and is unfinished all the same: %+v", step, s.Pending)
		}
		if !k.refused {
			k.refused = true
			no := exits(k.T, k.ctx, k.g, step+": fix again", 2, fixSafe)
			if !strings.Contains(no.Err, s.Pending[0].ID) {
				k.Errorf("step %q: the refusal of a new fix does not name %s: %s", step, s.Pending[0].ID, no.Err)
			}
		}
	case len(s.Applied) > 0:
		k.hits[2]++
	default:
		k.hits[0]++
		if r.code != 137 {
			k.Errorf("step %q: it ended by itself, and nothing is in force", step)
		}
		k.done("kill -9 of a fix", k.same(step), began)
		return
	}
	k.undone(step + ": undo")
	k.done("kill -9 of a fix", k.same(step+": undo"), began)
}

func (k *killing) undo(i int, whole killed) {
	k.Helper()
	began := time.Now()
	step := fmt.Sprintf("fix before kill %d of an undo", i)
	kill(k.T, k.ctx, k.g, step, "start", "-", fixSafe)
	idle(k.T, k.ctx, k.g, step+": status", 1)
	from, wait := k.moment(i, whole)
	step = fmt.Sprintf("kill %d of an undo, %s s after its %s", i, wait, from)
	kill(k.T, k.ctx, k.g, step, from, wait, undoOne)
	s := k.status(step)
	switch {
	case len(s.Pending) > 0:
		k.undoHits[1]++
	case len(s.Applied) > 0:
		k.undoHits[0]++
	default:
		k.undoHits[2]++
		k.done("kill -9 of an undo", k.same(step), began)
		return
	}
	k.undone(step + ": undo again")
	k.done("kill -9 of an undo", k.same(step+": undo again"), began)
}

func (k *killing) done(what string, held bool, began time.Time) {
	n := 0
	if held {
		n = 1
	}
	count("kill", what, 1, n, time.Since(began))
}

// status wants what "hostcheck status" promises: at most one transaction, exit
// code 1 where it asks for an undo, else 0.
func (k *killing) status(step string) report.Status {
	k.Helper()
	step += ": status"
	r, err := k.g.Run(k.ctx, "hostcheck status -f json")
	if err != nil {
		k.Fatalf("step %q: %v", step, err)
	}
	s := document[report.Status](k.T, step, r.Out)
	if r.Code != min(1, len(s.Pending)) || len(s.Pending)+len(s.Applied) > 1 || s.Busy != nil {
		k.Fatalf("step %q: exit code %d, %+v %s", step, r.Code, s, r.Err)
	}
	for _, p := range s.Pending {
		if p.State != plan.Unfinished {
			k.Errorf("step %q: %+v", step, p)
		}
	}
	return s
}

// undone takes the one transaction back.
func (k *killing) undone(step string) {
	k.Helper()
	u := document[report.Undo](k.T, step, must(k.T, k.ctx, k.g, step, undoOne))
	if len(u.Results) != 1 || u.Results[0].Outcome != plan.Undone || len(u.Results[0].Left) > 0 || len(u.Results[0].Stays) > 0 {
		k.Errorf("step %q: %+v", step, u)
	}
	idle(k.T, k.ctx, k.g, step+": status", 0)
}
