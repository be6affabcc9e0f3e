// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"strings"
	"testing"
	"time"
)

const waiverHead = "schema: hostcheck.waivers/v1\n"

const twoWaivers = `# ours
schema: hostcheck.waivers/v1
waivers:
  # the cable
  - check: link.speed
    subject: "0000:1a:00.0"
    until: 2027-03-31
    owner: net
    reason: cable on order   # ticket 7

  # the fan
  - {check: pcie.link, until: 2027-01-01, owner: hw, reason: "a: b"}
# end
`

func parsedWaivers(t *testing.T, text string) *Waivers {
	t.Helper()
	ws, err := ParseWaivers("w.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func TestWaiversSayWhatIsWrong(t *testing.T) {
	entry := waiverHead + "waivers:\n  - {check: link.speed, until: 2027-03-31, owner: net, reason: x}\n"
	parsedWaivers(t, entry)
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty; a list of waivers starts with schema: hostcheck.waivers/v1"},
		{"no schema", "waivers: []\n", "1:1: the file does not say its format; it starts with schema: hostcheck.waivers/v1"},
		{"a profile", "schema: hostcheck.profile/v1\n", "not a list of waivers of hostcheck"},
		{"newer", "schema: hostcheck.waivers/v2\n", "version 2 of the format is newer"},
		{"list at the top", "- a\n", "a list of waivers is a mapping"},
		{"no owner", strings.Replace(entry, "owner: net, ", "", 1), "3:5: the waiver needs owner"},
		{"no end", strings.Replace(entry, "until: 2027-03-31, ", "", 1), "3:5: the waiver needs until"},
		{"no such day", strings.Replace(entry, "03-31", "02-30", 1), `until "2027-02-30": there is no such day`},
		{"a time", strings.Replace(entry, "2027-03-31", "tomorrow", 1), `until "tomorrow": a day is written 2027-03-31`},
		{"a glob of checks", strings.Replace(entry, "link.speed", `"link.*"`, 1), `check "link.*": a waiver is for one check`},
		{"an area", strings.Replace(entry, "link.speed", "link", 1), "a waiver is for one check, by its whole ID"},
		{"unknown key", strings.Replace(entry, "owner", "ower", 1), `unknown key "ower"; did you mean "owner"?`},
		{"bad glob", strings.Replace(entry, "owner", `subject: "eth[", owner`, 1), `subject "eth[": not a glob`},
		{"two lines", strings.Replace(entry, "reason: x", `reason: "x\ny"`, 1), "want one line of at most 200 printable characters"},
		{"twice", entry + "  - {check: link.speed, until: 2028-03-31, owner: hw, reason: y}\n", "4:1: link.speed is waived twice, first in line 3"},
		{"anchor", waiverHead + "waivers: &a []\n", "anchors (&) are not accepted"},
		{"too many", waiverHead + "waivers: [" + strings.Repeat("a, ", 1001) + "a]\n", "at most 1000 are taken"},
	} {
		_, err := ParseWaivers("w.yaml", []byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestWaiverHoldsThroughItsLastDay(t *testing.T) {
	w := Waiver{Until: "2027-03-31"}
	for at, want := range map[string]bool{
		"2026-01-01T00:00:00Z": false, "2027-03-31T23:59:59Z": false, "2027-04-01T00:00:00Z": true,
		"2027-04-01T01:00:00+02:00": false, "2027-03-31T23:30:00-02:00": true,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Expired(now); got != want {
			t.Errorf("expired at %s: %v", at, got)
		}
	}
}

func TestWaiverCovers(t *testing.T) {
	for _, tc := range []struct {
		glob, subject string
		want          bool
	}{
		{"", "", true}, {"", "eth0", true}, {"eth*", "", false},
		{"eth0", "0000:1a:00.0 eth0", true}, {"0000:1a:00.0", "0000:1a:00.0 eth0", true},
		{"0000:1a:* eth?", "0000:1a:00.0 eth0", true}, {"eth1", "0000:1a:00.0 eth0", false}, {"eth", "0000:1a:00.0 eth0", false},
	} {
		w := Waiver{Check: "link.speed", Subject: tc.glob}
		if got := w.Covers("link.speed", tc.subject); got != tc.want {
			t.Errorf("%q covers %q: %v", tc.glob, tc.subject, got)
		}
		if w.Covers("link.mtu", tc.subject) {
			t.Errorf("%q covers another check", tc.glob)
		}
	}
}

// What people wrote around an entry stays.
func TestWaiversEdit(t *testing.T) {
	w := Waiver{Check: "link.mtu", Subject: "eth*", Until: "2027-05-01", Owner: "me", Reason: `a "b" #c`}
	const entry = "  - check: link.mtu\n    subject: \"eth*\"\n    until: 2027-05-01\n    owner: \"me\"\n    reason: \"a \\\"b\\\" #c\"\n"

	ws := parsedWaivers(t, twoWaivers)
	added, old, err := ws.Add(w)
	if err != nil || old != nil {
		t.Fatal(err, old)
	}
	if got := string(added.Text()); got != twoWaivers+entry {
		t.Errorf("added:\n%s", got)
	}
	if back, err := added.Remove(2); err != nil || string(back.Text()) != twoWaivers {
		t.Errorf("taken away again: %v\n%s", err, back.Text())
	}
	first, err := ws.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(first.Text()), "# ours\nschema: hostcheck.waivers/v1\nwaivers:\n  # the cable\n\n  # the fan\n"+
		"  - {check: pcie.link, until: 2027-01-01, owner: hw, reason: \"a: b\"}\n# end\n"; got != want {
		t.Errorf("without the first:\n%s", got)
	}
	none, err := first.Remove(0)
	if err != nil || len(none.List) != 0 || !strings.Contains(string(none.Text()), "waivers: []\n") {
		t.Fatalf("without any: %v\n%s", err, none.Text())
	}
	if again, _, err := none.Add(w); err != nil || len(again.List) != 1 {
		t.Errorf("the first one again: %v", err)
	}

	// the same check and subject: a new end
	later := ws.List[0]
	later.Until = "2028-01-01"
	renewed, old, err := ws.Add(later)
	if err != nil || old == nil || old.Until != "2027-03-31" || len(renewed.List) != 2 || renewed.List[1].Until != "2028-01-01" {
		t.Errorf("renewed: %v, %+v", err, old)
	}

	// behind the list
	keyLast := "waivers:\n- {check: pcie.link, until: 2027-01-01, owner: hw, reason: x}\nschema: hostcheck.waivers/v1\n"
	if got, _, err := parsedWaivers(t, keyLast).Add(w); err != nil || len(got.List) != 2 {
		t.Errorf("a key behind the list: %v", err)
	}

	// written so that a line holds several
	flow := waiverHead + "waivers: [{check: pcie.link, until: 2027-01-01, owner: hw, reason: x}]\n"
	if _, _, err := parsedWaivers(t, flow).Add(w); err == nil || !strings.Contains(err.Error(), "edit it by hand") {
		t.Errorf("a flow list: %v", err)
	}
}

func FuzzWaivers(f *testing.F) {
	for _, s := range []string{twoWaivers, emptyWaivers, waiverHead, "waivers: [{check: a.b}]", "{{{{", bomb()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ws, err := ParseWaivers("w", []byte(text))
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		// whatever can be read: editing it gives what was asked for, or an error
		w := Waiver{Check: "zz.zz", Until: "2027-01-01", Owner: "o", Reason: "r"}
		if out, _, err := ws.Add(w); err == nil && !out.List[len(out.List)-1].same(&w) {
			t.Errorf("added to %q: %q", text, out.Text())
		}
		for i := range ws.List {
			if _, err := ws.Remove(i); err != nil && !strings.Contains(err.Error(), "by hand") {
				t.Error(err)
			}
		}
	})
}
