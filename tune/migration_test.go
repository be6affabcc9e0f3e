// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// ownHost is a fixture with two free channels of ptdma and a control directory
// that is on with two channels, and the figures of the published host as if they
// were its own.
func ownHost(t *testing.T, name string, change func(*bench.Migration)) Input {
	t.Helper()
	f := facts.New(fixture.Load(t, "../testdata/checks/"+name+".txtar").Host(t))
	m := measured(t, "v5-ptdma.json")
	m.Host.Kernel, m.Host.Nodes = *f.Kernel().Release, f.NUMA().WithMemory
	if change != nil {
		change(m)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return Input{Facts: f, Profile: &profile.Profile{}, Read: func(p string) ([]byte, error) {
		if p != "figures" {
			return nil, os.ErrNotExist
		}
		return text, nil
	}}
}

func planMigration(t *testing.T, in Input, args ...string) (Advice, error) {
	t.Helper()
	m := migration()
	s := pflag.NewFlagSet("tune", pflag.ContinueOnError)
	m.Flags(s)
	if err := s.Parse(args); err != nil {
		t.Fatal(err)
	}
	return m.Plan(t.Context(), in)
}

// What is wished follows from the host's own figures, and from nothing else.
func TestMigrationModule(t *testing.T) {
	yes, no := profile.Val[bool]{V: true, Set: true}, profile.Val[bool]{Set: true}
	for name, c := range map[string]struct {
		host   string
		change func(*bench.Migration)
		want   profile.MigrationVal
		args   []string
		wishes string
		says   string
	}{
		"no figures":     {host: "migration.engine/pass", says: "Nothing is decided about engines without figures of this host"},
		"a win":          {host: "migration.engine/skip", args: []string{"--folio-size", "2M"}, wishes: "migration ptdma offloading off -> on", says: "Offload: on with 2 channels"},
		"on already":     {host: "migration.engine/pass", args: []string{"--folio-size", "2M"}, says: "Engines copy now, with up to 2 channels (RFC v6"},
		"small":          {host: "migration.engine/pass", args: []string{"--folio-size", "4K"}, wishes: "migration ptdma offloading on -> off", says: "4K do not gain"},
		"not known":      {host: "migration.engine/pass", says: "Offload: left as it is. 2M gain 1.30x"},
		"stock":          {host: "migration.engine/pass", args: []string{"--folio-size", "2M", "--batch-pages", "512"}, wishes: "migration ptdma offloading on -> off", says: "needs a patched batch limit"},
		"another kernel": {host: "migration.engine/skip", change: func(m *bench.Migration) { m.Host.Kernel = "7.1" }, args: []string{"--folio-size", "256K"}, says: "They are not of this host"},
		"other nodes":    {host: "migration.engine/skip", change: func(m *bench.Migration) { m.Host.Nodes = []int{0, 1, 2} }, args: []string{"--folio-size", "2M"}, says: "its nodes with memory are"},
		"the profile":    {host: "migration.engine/pass", want: profile.MigrationVal{Offload: yes}, args: []string{"--folio-size", "4K"}, says: "The profile says otherwise"},
		"so the profile": {host: "migration.engine/pass", want: profile.MigrationVal{Offload: no}, args: []string{"--folio-size", "4K"}, wishes: "migration ptdma offloading on -> off"},
		"no offload":     {host: "migration.offload/pass-none", args: []string{"--folio-size", "2M"}, says: "This kernel has no copy offload"},
		"budget":         {host: "migration.engine/pass", args: []string{"--folio-size", "2M", "--latency-budget", "1ms"}, says: "Batch limit for 2M on 4 channels: 4096 (26.19 GB/s, the first folio is away for 566 us)"},
	} {
		t.Run(name, func(t *testing.T) {
			in := ownHost(t, c.host, c.change)
			in.Profile.Migration = c.want
			args := c.args
			if name != "no figures" {
				args = append(args, "--from-measurement", "figures")
			}
			a, err := planMigration(t, in, args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range a.Wishes {
				got = append(got, fmt.Sprintf("%s %s -> %s", w.Setting, w.Got, w.Want))
				if w.Check != "tune.migration" || w.Why == "" {
					t.Errorf("%+v", w)
				}
			}
			if s := strings.Join(got, "; "); s != c.wishes || !strings.Contains(a.Text, c.says) {
				t.Errorf("wishes %q, want %q; it says\n%s", s, c.wishes, a.Text)
			}
			if _, err := json.Marshal(a.Value); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMigrationFlags(t *testing.T) {
	in := ownHost(t, "migration.engine/pass", nil)
	for args, says := range map[string]string{
		"--latency-budget 1ms":                            "need figures: --from-measurement FILE",
		"--batch-pages 512":                               "need figures",
		"--from-measurement figures --latency-budget -1s": "below 0",
		"--from-measurement figures --latency-budget 5ns": "below a microsecond",
		"--from-measurement figures --batch-pages -1":     "no limit of a kernel",
		"--from-measurement figures --folio-size 3K":      `"3K" is not a size of folios`,
		"--from-measurement nowhere":                      os.ErrNotExist.Error(),
	} {
		if _, err := planMigration(t, in, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", args, err)
		}
	}
	in.Read = func(string) ([]byte, error) { return []byte("{}"), nil }
	if _, err := planMigration(t, in, "--from-measurement", "-"); err == nil || !strings.Contains(err.Error(), "cannot use -: its schema is") {
		t.Error(err)
	}
	in.Read = func(string) ([]byte, error) { return nil, errors.New("broken") }
	if _, err := planMigration(t, in, "--from-measurement", "-"); err == nil || err.Error() != "broken" {
		t.Error(err)
	}
}
