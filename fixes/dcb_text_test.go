// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"slices"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// FuzzDCBText: what is read back from a journal never panics, and what a value
// says is said in one spelling.
func FuzzDCBText(f *testing.F) {
	for _, s := range []string{"none", "26:3", "0-7:0 8-15:1", "26:3 26:4", "65535-0:1", "0-65535:7", "3,5", "host,cee,ieee", "64", "", "-", "1:", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if apps, err := parseApps(s); err == nil {
			again, err := parseApps(appText(apps))
			same := func(list []host.DCBApp) bool {
				return !slices.ContainsFunc(list, func(a host.DCBApp) bool { return !slices.Contains(apps, a) })
			}
			if err != nil || !same(again) || appText(again) != appText(apps) {
				t.Fatalf("%q is %q: %v", s, appText(apps), err)
			}
		}
		if mask, err := parsePrios(s); err == nil {
			if again, err := parsePrios(prioText(mask)); err != nil || again != mask {
				t.Fatalf("%q is %q: %v", s, prioText(mask), err)
			}
		}
		if mode, err := parseMode(s); err == nil {
			if again, err := parseMode(modeText(mode)); err != nil || again != mode {
				t.Fatalf("%q is %q: %v", s, modeText(mode), err)
			}
		}
	})
}

func TestDCBText(t *testing.T) {
	app := func(dscp uint16, prio uint8) host.DCBApp {
		return host.DCBApp{Selector: host.DCBSelDSCP, Priority: prio, Protocol: dscp}
	}
	for want, apps := range map[string][]host.DCBApp{
		"none":                {{Selector: host.DCBSelEthertype, Priority: 3, Protocol: 26}},
		"26:3 48:6":           {app(48, 6), app(26, 3)},
		"24-26:3 25:4":        {app(25, 4), app(26, 3), app(24, 3), app(25, 3)},
		"0:0 65534-65535:255": {app(65535, 255), app(65534, 255), app(0, 0), app(0, 0)},
	} {
		if got := appText(apps); got != want {
			t.Errorf("%v is %q, want %q", apps, got, want)
		}
	}
	for mode := range 256 {
		if got, err := parseMode(modeText(uint8(mode))); err != nil || got != uint8(mode) {
			t.Errorf("%d is %q: %d %v", mode, modeText(uint8(mode)), got, err)
		}
	}
}
