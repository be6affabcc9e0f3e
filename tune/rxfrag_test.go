// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
)

// advised is what the module makes of a fixture of the checks, with the words
// as its flags.
func advised(t *testing.T, name string, words ...string) (Advice, error) {
	t.Helper()
	path := filepath.Join("../testdata/checks", name+".txtar")
	f := fixture.Load(t, path)
	m := rxfrag()
	var list []*check.Check
	for _, c := range checks.All() {
		if c.Tune == m.Name {
			list = append(list, c)
		}
	}
	if len(list) < 5 || len(list) != len(m.Paired()) {
		t.Fatalf("%d checks are paired with the module, and it names %v", len(list), m.Paired())
	}
	h := f.Host(t)
	out, err := trial.Run(h, list, trial.Options{Profile: f.Profile, Set: f.Set, Intent: f.Intent, Dir: filepath.Dir(path)})
	if err != nil {
		t.Fatal(err)
	}
	s := pflag.NewFlagSet("tune", pflag.ContinueOnError)
	m.Flags(s)
	if err := s.Parse(words); err != nil {
		t.Fatal(err)
	}
	return m.Plan(context.Background(), Input{Facts: facts.New(h), Results: out.Results})
}

// Each row of the policy, and what it saves in bytes.
func TestRXFragPolicy(t *testing.T) {
	const nic = "7870:00:00.0 enP30832s1 "
	rings := func(perQueue int64) int64 { return 8 * perQueue }
	for _, tt := range []struct {
		fixture string
		wishes  []string
		saved   int64
		says    string
	}{
		{"rxfrag.packing/pass", nil, 0, "1872 bytes for each packet, 35 in a page"},
		{"rxfrag.packing/fail", []string{nic + "flag full-page-rx off"}, rings(1024*65536) - rings(30*65536), "497 MiB of the rings (521142272 bytes)"},
		{"rxfrag.packing/fail-old", nil, 0, "a kernel whose driver has fragments"},
		{"rxfrag.packing/fail-xdp", nil, 0, "without its XDP program a packet takes 1872 bytes"},
		{"rxfrag.packing/unknown", nil, 0, "not known: the kernel has no type information of mana"},
		{"rxfrag.memory/fail", []string{nic + "rings rx 4096"}, rings(4096 * 65536), "2 GiB of the rings"},
		{"rxfrag.bounce/fail", []string{nic + "flag full-page-rx on"}, rings(30*65536) - rings(1024*65536), "costs     63664 bytes of each packet"},
		{"rxfrag.packing/skip", nil, 0, "not known"},
	} {
		a, err := advised(t, tt.fixture)
		if err != nil {
			t.Errorf("%s: %v", tt.fixture, err)
			continue
		}
		var got []string
		for _, w := range a.Wishes {
			got = append(got, w.Target+" "+w.Name+" "+w.Want)
			if w.Check == "" || w.Why == "" {
				t.Errorf("%s: the wish %s does not say who has it and why", tt.fixture, w.Setting)
			}
		}
		if strings.Join(got, "; ") != strings.Join(tt.wishes, "; ") {
			t.Errorf("%s: %q, want %q", tt.fixture, got, tt.wishes)
		}
		if v := a.Value.(RXFragAdvice); v.Saved != tt.saved {
			t.Errorf("%s saves %d bytes, want %d", tt.fixture, v.Saved, tt.saved)
		}
		if !strings.Contains(a.Text, tt.says) {
			t.Errorf("%s does not say %q:\n%s", tt.fixture, tt.says, a.Text)
		}
	}
}

// full-page-rx is asked for where pages are small, and nowhere else.
func TestRXFragFullPage(t *testing.T) {
	if _, err := advised(t, "rxfrag.packing/pass", "--full-page-rx"); err == nil || !strings.Contains(err.Error(), "64K") {
		t.Errorf("on pages of 64K: %v", err)
	}
	if _, err := advised(t, "rxfrag.packing/skip", "--full-page-rx"); err == nil || !strings.Contains(err.Error(), "no interface") {
		t.Errorf("without the flag: %v", err)
	}
	a, err := advised(t, "rxfrag.packing/warn-cobalt", "--full-page-rx")
	if err != nil || len(a.Wishes) != 1 || a.Wishes[0].Want != "on" {
		t.Fatalf("on Cobalt 200: %+v, %v", a.Wishes, err)
	}
	a, err = advised(t, "rxfrag.packing/warn-cobalt")
	if err != nil || len(a.Wishes) != 0 {
		t.Errorf("without being asked: %+v, %v", a.Wishes, err)
	}
}

// mlx5's striding queue is switched on where it saves a quarter of the rings.
func TestRXFragStriding(t *testing.T) {
	for name, want := range map[string]int{"rxfrag.packing/pass-striding-off": 1, "rxfrag.packing/pass-striding-even": 0} {
		a, err := advised(t, name)
		if err != nil || len(a.Wishes) != want {
			t.Errorf("%s: %+v, %v", name, a.Wishes, err)
		}
		for _, w := range a.Wishes {
			if w.Name != "flag rx_striding_rq" || w.Want != "on" {
				t.Errorf("%s: %+v", name, w)
			}
		}
	}
}
