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
)

// igbProfile makes the guest's igb NICs subjects of the checks.
const igbProfile = `schema: hostcheck.profile/v1
name: lab
nics:
  - id: igb
    match: {driver: igb, kind: pf}
    source: the lab
    speed_mbps: {value: 1000, source: the lab}
pcie:
  mrrs_min: {value: 512, source: the lab}
`

// handOver gives one VF to vfio-pci, so that the ports above it matter.
const handOver = `set -e
modprobe vfio-pci
d=/sys/bus/pci/devices/0000:01:10.4
echo vfio-pci > $d/driver_override
echo 0000:01:10.4 > $d/driver/unbind
echo 0000:01:10.4 > /sys/bus/pci/drivers_probe
test "$(basename $(readlink $d/driver))" = vfio-pci`

// checkReport is what is looked at of a report.
type checkReport struct {
	Summary  struct{ Exit int }
	Findings []struct{ Check, Subject, Status, Why string }
	text     string // without the time of capture
}

// statuses gives the status of each finding by check and subject.
func (r checkReport) statuses() map[string]string {
	m := map[string]string{}
	for _, f := range r.Findings {
		m[f.Check+" of "+f.Subject] = f.Status
	}
	return m
}

// checkRun runs a whole check: it must end with a verdict, and no check in
// error.
func checkRun(t *testing.T, ctx context.Context, g *lab.Guest, as, flags string) checkReport {
	t.Helper()
	return readCheck(t, ctx, g, as+"hostcheck "+flags+" -f json")
}

// readCheck runs a command that ends as a check does, with its report on stdout.
func readCheck(t *testing.T, ctx context.Context, g *lab.Guest, command string) checkReport {
	t.Helper()
	r, err := g.Run(ctx, command)
	if err != nil {
		t.Fatalf("step %q: %v", command, err)
	}
	if r.Late || !slices.Contains([]int{0, 1, 3, 10}, r.Code) {
		t.Fatalf("step %q: exit code %d (late: %v), which is no verdict\n%s", command, r.Code, r.Late, r.Err)
	}
	var report checkReport
	fromJSON(t, r.Out, &report)
	if report.Summary.Exit != r.Code {
		t.Errorf("step %q: exit code %d, and the report says %d", command, r.Code, report.Summary.Exit)
	}
	judged := 0
	for _, f := range report.Findings {
		switch f.Status {
		case "pass", "warn", "fail":
			judged++
		case "skip", "unknown":
			if f.Why == "" {
				t.Errorf("step %q: %s of %s is %s, and nothing says why", command, f.Check, f.Subject, f.Status)
			}
		default:
			t.Errorf("step %q: %s of %s is %q: %s", command, f.Check, f.Subject, f.Status, f.Why)
		}
	}
	if judged < 20 {
		t.Errorf("step %q: %d findings are a judgement, and 20 at least must be", command, judged)
	}
	at := cutBetween(r.Out, `"captured_at":"`, `"`)
	if _, err := time.Parse(time.RFC3339, at); err != nil {
		t.Errorf("step %q: no time of capture: %v", command, err)
	}
	report.text = strings.Replace(r.Out, at, "", 1)
	return report
}

// checkRuns runs the whole check as root twice and as an ordinary user, for
// each intent that the guest can be judged by.
func checkRuns(t *testing.T, ctx context.Context, g *lab.Guest) {
	must(t, ctx, g, "hand a VF over", handOver)
	if err := g.Push(ctx, "/etc/lab.yaml", []byte(igbProfile), 0o644); err != nil {
		t.Fatalf("step %q: %v", "push the profile", err)
	}
	intents := []string{"", "--intent sriov-tenant", "--intent baremetal-gpudirect", "--intent vm-gpudirect"}
	if testing.Short() {
		intents = intents[:2]
	}
	hidden := map[string]bool{} // checks that root can judge and others cannot
	for _, intent := range intents {
		began := time.Now()
		flags := strings.TrimSpace(intent + " --profile /etc/lab.yaml")
		root, again, user := checkRun(t, ctx, g, "", flags), checkRun(t, ctx, g, "", flags), checkRun(t, ctx, g, ordinary, flags)
		wrong := 0
		fault := func(format string, args ...any) { wrong++; t.Errorf("%q: %s", flags, fmt.Sprintf(format, args...)) }
		if root.text != again.text {
			fault("two runs in a row differ: %s", firstDifference(root.text, again.text))
		}
		seen, told := root.statuses(), user.statuses()
		for finding, status := range seen {
			switch got, has := told[finding]; {
			case !has && status != "skip":
				fault("%s is %s to root, and an ordinary user is told nothing", finding, status)
			case got == "unknown" && status != "unknown":
				id, _, _ := strings.Cut(finding, " ")
				hidden[id] = true
			case has && got != status:
				fault("%s is %s to root and %s to an ordinary user", finding, status, got)
			}
		}
		for finding, status := range told {
			if _, has := seen[finding]; !has && status != "unknown" {
				fault("%s is %s to an ordinary user, and root is told nothing", finding, status)
			}
		}
		count("facts", "check: findings alike", len(seen), len(seen)-wrong, time.Since(began))
	}
	// what stands behind the first 64 bytes of configuration space
	for _, id := range []string{"acs.redirect", "acs.isolation", "pcie.mrrs", "pcie.payload"} {
		if !hidden[id] {
			t.Errorf("%s needs root, and is not unknown to an ordinary user", id)
		}
	}
}

// firstDifference is the first line that differs.
func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d\n%s\n%s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines and %d", len(x), len(y))
}

// finding is what is looked at of one finding.
type finding struct{ Check, Subject, Status, Got, Why, Next string }

// judged gives the findings of a check run, whatever its verdict.
func judged(t *testing.T, ctx context.Context, g *lab.Guest, args string) []finding {
	t.Helper()
	command := "hostcheck " + args + " -f json"
	r, err := g.Run(ctx, command)
	if err != nil || r.Late || !slices.Contains([]int{0, 1, 3, 10}, r.Code) {
		t.Fatalf("step %q: %v %+v", command, err, r)
	}
	var report struct{ Findings []finding }
	fromJSON(t, r.Out, &report)
	return report.Findings
}
