// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"strings"
	"testing"
)

func sampleOf(name string, taken ...Taken) *Sample {
	s := &Sample{Name: name, Unknown: map[string]string{}, Taken: taken}
	s.sayable()
	return s
}

func composed(t *testing.T, samples ...*Sample) string {
	t.Helper()
	c, err := Compose(samples, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Text
}

func TestCompose(t *testing.T) {
	gov := func(v string) Taken { return Taken{Section: "system", Key: "governor", Value: "[" + v + "]"} }
	token := func(v string) Taken {
		return Taken{Section: "cmdline.require", Entry: "token: " + Quoted(v), Value: "there"}
	}
	one := composed(t, sampleOf("a", gov("performance"), token("iommu=pt")))
	for _, want := range []string{"# Captured by hostcheck test from a.\n", "\nsystem:\n  governor: [performance]\n", "\ncmdline:\n  require:\n    - token: \"iommu=pt\"\n"} {
		if !strings.Contains(one, want) {
			t.Errorf("%q is not in:\n%s", want, one)
		}
	}
	two := composed(t, sampleOf("a", gov("performance"), token("iommu=pt")), sampleOf("b", gov("powersave")))
	for _, want := range []string{"# system:\n  # governor: [performance] on a; [powersave] on b\n", "# cmdline:\n  # require:\n    # token: \"iommu=pt\": none on b; there on a\n"} {
		if !strings.Contains(two, want) {
			t.Errorf("%q is not in:\n%s", want, two)
		}
	}
	// what a profile cannot say is a comment, and nothing a host says ends one
	for _, bad := range []string{"vendors_own", "x], y: [z", "a\nb: c", `"`, "&a"} {
		text := composed(t, sampleOf("a\nintent: guest", gov(bad)))
		if !strings.Contains(text, "# governor: not taken (a profile has no word for ") || strings.Contains(text, "\nintent") {
			t.Errorf("%q gives:\n%s", bad, text)
		}
	}
	// an unreadable section is not an absence
	b := sampleOf("b")
	b.unknown("system", "/sys/x: permission denied")
	if text := composed(t, sampleOf("a", gov("performance")), b); !strings.Contains(text, "not known (/sys/x: permission denied) on b") {
		t.Error(text)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("host", "iommu=pt", "[madvise]", "why")
	f.Add("a\nb", "x\"", "x]\nz: 1", "# x\n")
	f.Fuzz(func(t *testing.T, name, token, value, why string) {
		a := sampleOf(name, Taken{Section: "cmdline.require", Entry: "token: " + Quoted(token), Value: "there"},
			Taken{Section: "system", Key: "thp", Value: value}, Taken{Section: "nics", Entry: "id: x\nmatch: {name: \"*\"}", Key: "carrier", Why: why})
		for _, with := range [][]*Sample{{a}, {a, sampleOf("other")}} {
			if _, err := Compose(with, "test", nil); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDiff(t *testing.T) {
	side := func(text string) *Side {
		s, err := LayerSide("x", []byte(head+text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := side("intent: guest\nsystem: {thp: [madvise]}\nnics: [{id: r, match: {name: x}, mtu_min: {value: 9000, why: y, arch: [amd64]}}]\n")
	if d := Diff(a, a); len(d) != 0 {
		t.Errorf("a profile and itself differ: %v", d)
	}
	b := side("system: {thp: {value: [madvise], source: elsewhere}, numa_balancing: false}\nnics: [{id: r, match: {name: x}, mtu_min: 9000}]\n")
	got := map[string][2]string{}
	for _, d := range Diff(a, b) {
		got[d.Key] = [2]string{deref(d.A), deref(d.B)}
	}
	want := map[string][2]string{"intent": {"guest", ""}, "nics.r.mtu_min": {"9000 (arch [amd64])", "9000"}, "system.numa_balancing": {"", "false"}}
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	for name := range embeddedNames() {
		if _, err := LayerSide(name, mustText(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func embeddedNames() map[string]bool {
	all := map[string]bool{}
	for _, i := range List() {
		all[i.Name] = true
	}
	return all
}

func mustText(t *testing.T, name string) []byte {
	t.Helper()
	b, err := Text(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
