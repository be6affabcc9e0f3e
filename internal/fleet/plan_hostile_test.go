// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Whatever the hosts are called, the plan does not depend on the order of their
// reports.
func TestPlanAnyNames(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	names := []string{"n9", "n10", "n5-1", "n8", "n70", "n6-2", "n", "n-", "N9", "n09", "n9.a", "n9.b1", "n10.a", "n1x", "n-1", "1", "9", "10", "1-1", "a.9", "a.10", "a.5-1"}
	before := make([]sick, len(names))
	for i, name := range names {
		before[i] = sick{name: name, exit: 1, findings: []string{"fail sysctl.backlog - safe"}}
	}
	first := ""
	for range 200 {
		r.Shuffle(len(before), func(i, j int) { before[i], before[j] = before[j], before[i] })
		p := made(t, PlanOptions{MaxHosts: 2, MaxFraction: fraction(t, "1")}, before, nil)
		if first == "" {
			first = p.Hash
		}
		if p.Hash != first {
			t.Fatalf("another plan in another order: %+v", p.Batches)
		}
	}
	for range 100_000 {
		a, b, c := names[r.IntN(len(names))], names[r.IntN(len(names))], names[r.IntN(len(names))]
		if compareNames(a, b) != -compareNames(b, a) || compareNames(a, b) == 0 && a != b || compareNames(a, b) < 0 && compareNames(b, c) < 0 && compareNames(a, c) >= 0 {
			t.Fatalf("%q, %q and %q are in no order", a, b, c)
		}
	}
}

// Of millions of changes of a finding only their tiers take room.
func TestPlanManyChanges(t *testing.T) {
	const n = 1_000_000
	b := []byte(`{"check":"a.b","status":"fail","fix":[` + strings.Repeat("{},", n) + `{"tier":"boot"},{"tier":"safe"},{"tier":"boot"}]}`)
	var k planFindings
	f, err := k.read(b)
	if err != nil || fmt.Sprint(f.Fix) != "[boot safe]" || cap(f.Fix) > 10 {
		t.Errorf("%d tiers: %v", len(f.Fix), err)
	}
	if _, err := k.read([]byte(`{"check":"a.b","status":"fail","fix":{"tier":"safe"}}`)); err == nil {
		t.Error("a fix that is no list was taken")
	}
}

// Of many subjects little is kept.
func TestPlanManySubjects(t *testing.T) {
	const n = 50_000
	r := &planReport{}
	for i := range n {
		r.findings = append(r.findings, &planFinding{Check: "a.b", Subject: fmt.Sprint(i), Status: "pass"})
	}
	r.findings = append(r.findings, &planFinding{Check: "a.c", Subject: "7", Status: "pass"}, &planFinding{Check: "a.b", Subject: "8", Status: "pass"})
	p := NewPlanner(PlanOptions{})
	var b baseline
	if took := allocated(func() { b = p.baseOf(r) }); took > 250*n {
		t.Errorf("%d bytes for each subject", took/n)
	}
	if len(b.subjects) != 1 || p.words[b.subjects[0]] != "7" {
		t.Errorf("passed by several: %v", b.subjects)
	}
}

// No report names a kernel or a profile that fills the memory, and very many hosts
// with long names are refused.
func TestPlanLongWords(t *testing.T) {
	p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")})
	good := sick{name: "a"}
	long := strings.Repeat("\x7f", 1<<20)
	for _, s := range []sick{{name: "b", kernel: long}, {name: "c", profile: long}, {name: "d", intent: long}} {
		p.Read("r", bytes.NewReader(s.json(t)))
	}
	p.Read("r", bytes.NewReader(good.json(t)))
	if out, err := p.Plan(); err != nil || out.Summary.Hosts != 1 || out.Summary.Problems != 3 {
		t.Errorf("%+v, %v", out, err)
	}
	p = NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1")})
	p.memory = 1 << 20
	for i := range 500 {
		p.Read("r", bytes.NewReader(sick{name: fmt.Sprintf("h%s%d", strings.Repeat("x", 240), i)}.json(t)))
	}
	if _, err := p.Plan(); err == nil || !strings.Contains(err.Error(), "plan for a part of the fleet at a time") {
		t.Errorf("hosts with long names: %v", err)
	}
}

// Where nothing usable came back, a batch may have been run, and its hosts have
// died in it: it is not given again.
func TestPlanNothingCameBack(t *testing.T) {
	before := sick{name: "a", exit: 1, findings: []string{"fail sysctl.backlog - safe"}}.json(t)
	fit := sick{name: "b", at: "2026-11-02T09:00:00Z"}.json(t)
	cut := before[:len(before)/2]
	for _, c := range []struct {
		done [][]byte
		want string
	}{
		{nil, PlanNext},
		{[][]byte{{}}, PlanWaiting},
		{[][]byte{cut}, PlanWaiting},
		{[][]byte{[]byte("a: ssh: no route to host\n")}, PlanWaiting},
		{[][]byte{fit, cut}, PlanWaiting},
		{[][]byte{append(bytes.Clone(fit), cut...)}, PlanNext},
	} {
		p := NewPlanner(PlanOptions{MaxHosts: 1, MaxFraction: fraction(t, "1"), Now: now})
		p.Read("before", bytes.NewReader(before))
		for _, b := range c.done {
			p.Done("done", bytes.NewReader(b))
		}
		out, err := p.Plan()
		if err != nil || out.State != c.want || (out.Next != nil) != (c.want == PlanNext) {
			t.Errorf("%q: %s, %s, %v", c.done, out.State, out.Why, err)
		}
	}
}
