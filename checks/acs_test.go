// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// acsVerdicts runs one check on a fixture's tree under an intent, and gives the
// status of each port.
func acsVerdicts(t *testing.T, c *check.Check, path, intent, source string) map[string]check.Finding {
	t.Helper()
	got := map[string]check.Finding{}
	r := &check.Run{
		Facts:   facts.New(fixture.Load(t, path).Host(t)),
		Profile: &profile.Profile{Intent: intent, IntentSource: source, IntentWhy: "because"},
		Report: func(f check.Finding) {
			bdf, _, _ := strings.Cut(f.Subject, " ")
			got[bdf] = f
		},
	}
	if err := c.Run(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return got
}

const openHost = "../testdata/hosts/rdma-intel.txtar" // redirection is off on its switch ports, on at its root ports

func TestSameTreeThreeIntents(t *testing.T) {
	const nic, gpu, root = "0000:99:00.0", "0000:99:01.0", "0000:97:01.0"
	for _, c := range []struct {
		intent         string
		nic, gpu, root check.Status // "" for no finding
	}{
		{"baremetal-gpudirect", check.Pass, check.Pass, ""},
		{"sriov-tenant", check.Fail, check.Fail, check.Pass},
		{"vm-gpudirect", check.Fail, check.Fail, check.Pass},
	} {
		got := acsVerdicts(t, acsRedirect, openHost, c.intent, profile.Stated)
		for bdf, want := range map[string]check.Status{nic: c.nic, gpu: c.gpu, root: c.root} {
			if got[bdf].Status != want {
				t.Errorf("%s: %s is %q, want %q (%s)", c.intent, bdf, got[bdf].Status, want, got[bdf].Why)
			}
		}
	}
	for _, intent := range []string{"guest", ""} {
		if f := acsVerdicts(t, acsRedirect, openHost, intent, profile.Stated)[""]; f.Status != check.Skip || f.Why == "" {
			t.Errorf("intent %q: %+v, want a skip with a reason", intent, f)
		}
	}
}

func TestAssumedIntentOnlyWarns(t *testing.T) {
	for _, c := range []*check.Check{acsRedirect, acsIsolation} {
		stated := acsVerdicts(t, c, openHost, "sriov-tenant", profile.Stated)
		guessed := acsVerdicts(t, c, openHost, "sriov-tenant", profile.Assumed)
		fails := 0
		for bdf, f := range stated {
			if f.Status != check.Fail {
				continue
			}
			fails++
			if g := guessed[bdf]; g.Status != check.Warn || !strings.Contains(g.Why, "the intent is assumed: because") {
				t.Errorf("%s %s: %s %q, want a warning that names the guess", c.ID, bdf, g.Status, g.Why)
			}
			if len(guessed[bdf].Fix) > 0 {
				t.Errorf("%s %s: a guess is a reason to change the host: %+v", c.ID, bdf, guessed[bdf].Fix)
			}
		}
		if fails == 0 {
			t.Errorf("%s: nothing fails on a stated intent", c.ID)
		}
	}
	handed := "../testdata/checks/driver.bound/fail-vfio.txtar"
	if f := acsVerdicts(t, driverBound, handed, "baremetal-gpudirect", profile.Assumed)["0000:9a:00.0"]; f.Status != check.Warn {
		t.Errorf("a function handed over under an assumed intent: %s, want warn", f.Status)
	}
	if f := acsVerdicts(t, driverBound, handed, "", profile.Assumed)["0000:9a:00.0"]; f.Status != check.Warn || !strings.Contains(f.Next, "--intent") {
		t.Errorf("a function handed over without an intent: %+v, want a warning that asks for one", f)
	}
}

// An isolation failure that is a routing failure already has the same subject.
func TestACSSubjectsAgree(t *testing.T) {
	redirect := acsVerdicts(t, acsRedirect, openHost, "sriov-tenant", profile.Stated)
	for bdf, f := range acsVerdicts(t, acsIsolation, openHost, "sriov-tenant", profile.Stated) {
		if redirect[bdf].Subject != f.Subject {
			t.Errorf("%s: %q and %q", bdf, redirect[bdf].Subject, f.Subject)
		}
	}
}

func TestACSMask(t *testing.T) {
	for _, c := range []struct {
		pattern string
		on, off uint16
	}{
		{"xx000x0", 0, 0x1d}, {"xx111x1", 0x1d, 0}, {"1x111x1", 0x5d, 0}, {"xx110x1", 0x19, 0x04}, {"xx101x1", 0x15, 0x08}, {"xx111x0", 0x1c, 0x01}, {"", 0, 0},
	} {
		if on, off := facts.ACSPattern(c.pattern); on != c.on || off != c.off {
			t.Errorf("%s: %02x %02x, want %02x %02x", c.pattern, on, off, c.on, c.off)
		}
	}
	if got := acsNext("0000:17:00.0", "xx000x0", 0, 0x1d); !strings.Contains(got, "config_acs=xx000x0@0000:17:00.0") || strings.Contains(got, "setpci") || !strings.Contains(got, "disable_acs_redir=0000:17:00.0") {
		t.Errorf("to open a port: %s", got)
	}
	if got := acsNext("0000:17:00.0", "xx111x1", 0x0d, 0); !strings.Contains(got, "config_acs=xx111x1@0000:17:00.0") || strings.Contains(got, "setpci") || strings.Contains(got, "disable_acs_redir") {
		t.Errorf("to close a port: %s", got)
	}
}

func TestPCIeNumbers(t *testing.T) {
	for _, c := range []struct {
		gts   float64
		width int
		want  float64
	}{{2.5, 1, 2}, {5, 8, 32}, {8, 8, 63}, {16, 16, 252}, {32, 16, 504}, {64, 16, 944}} {
		if got := gbps(c.gts, c.width); got < c.want-0.1 || got > c.want+0.2 {
			t.Errorf("%g GT/s x%d carries %.1f Gb/s, want %g", c.gts, c.width, got, c.want)
		}
	}
	for n, want := range map[int]int{128: 0, 256: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5, 3000: 5} {
		if got := mrrsCode(n); got != want {
			t.Errorf("code of %d bytes: %d, want %d", n, got, want)
		}
	}
	for mbps, want := range map[int]string{100: "100M", 2500: "2.5G", 400000: "400G"} {
		if got := speed(mbps); got != want {
			t.Errorf("%d: %s, want %s", mbps, got, want)
		}
	}
}

// The evidence of a link is the file that it was read from.
func TestLinkEvidence(t *testing.T) {
	got := acsVerdicts(t, pcieLink, "../testdata/checks/pcie.link/pass-from-config.txtar", "", "")["0000:18:00.0"]
	want := facts.PCIDevices + "/0000:18:00.0/config LnkSta"
	if len(got.Evidence) < 2 || got.Evidence[0].Source != want || got.Evidence[1].Source != want {
		t.Errorf("got %v, want %s twice", got.Evidence, want)
	}
}
