// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "4K": 4096, "64M": 64 << 20, "2G": 2 << 30, "": 0, "K": 0, "-1": 0, "1.5G": 0, "1T": 0, "0": 0, "9999999999G": 0, "1KK": 0} {
		if n, err := parseSize(s); (err == nil) != (want > 0) || err == nil && n != want {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
}

// What a measurement borrows are settings that the verbs know, whole chains of them.
func TestBorrowed(t *testing.T) {
	o := &bench.CopyOffload{Driver: "ptdma", Switch: "/sys/module/dcbm/parameters/offloading", Channels: "/sys/module/dcbm/parameters/nr_dma_chan"}
	p := plan.Plan{Changes: changes([]bench.Knob{
		{Path: "/proc/sys/kernel/numa_balancing", Value: "0", Why: "w"}, {Path: "/sys/kernel/mm/ksm/run", Value: "0"},
		{Path: o.Switch, Value: "0"}, {Path: o.Channels, Value: "4"}, {Path: o.Switch, Value: "1"}, {Path: o.Switch, Value: "0"},
	}, o)}
	for i := range p.Changes {
		p.Changes[i].Before = plan.Text("x")
		if !strings.HasPrefix(p.Changes[i].Why, "bench migration: ") || p.Changes[i].Tier != plan.Safe || p.Changes[i].Persist {
			t.Errorf("%+v", p.Changes[i])
		}
	}
	want := []string{"sysctl kernel.numa_balancing: x -> 0", "sysfs /sys/kernel/mm/ksm/run: x -> 0", "migration ptdma offloading: x -> off, on", "migration ptdma nr_dma_chan: x -> 4"}
	if got := borrowed(p); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The copy offload is borrowed where its engines finish in order, and as many
// channels as there are.
func TestOffloadOf(t *testing.T) {
	const dir = "/sys/module/dcbm/parameters/"
	for name, c := range map[string]struct {
		driver   string
		channels int
		want     string
	}{
		"none":         {"", 0, "<nil>"},
		"ptdma":        {"ptdma", 3, "v6 ptdma 3 " + dir + "nr_dma_chan " + dir + "folios_migrated"},
		"many":         {"ptdma", 20, "v6 ptdma 16 " + dir + "nr_dma_chan " + dir + "folios_migrated"},
		"out of order": {"idxd", 2, "<nil>"},
	} {
		root := plantest.TempDir(t)
		files := map[string]string{"/.hostcheck/capture.json": `{"schema":"hostcheck.capture/v1","whole":["/sys","/proc"]}`, "/sys/class/dma/": ""}
		for _, f := range []string{"offloading", "nr_dma_chan", "folios_migrated", "folios_failures"} {
			files[dir+f] = "0\n"
		}
		files[dir+"reason_mask"] = "all\n"
		links := map[string]string{}
		for i := range c.channels {
			device := fmt.Sprintf("/sys/devices/pci0000:20/0000:%02x:00.1", 0x20+i)
			channel := fmt.Sprintf("dma%dchan0", i)
			files[device+"/dma/"+channel+"/in_use"] = "0\n"
			files[device+"/numa_node"] = "0\n"
			links["/sys/class/dma/"+channel] = "../.." + strings.TrimPrefix(device, "/sys") + "/dma/" + channel
			links[device+"/dma/"+channel+"/device"] = "../../../" + filepath.Base(device)
			links[device+"/driver"] = "../../../bus/pci/drivers/" + c.driver
		}
		plantest.Files(t, root, files)
		for from, to := range links {
			if err := os.Symlink(to, filepath.Join(root, from)); err != nil {
				t.Fatal(err)
			}
		}
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := "<nil>"
		if o := offloadOf(facts.New(h)); o != nil {
			got = fmt.Sprintf("%s %s %d %s %s", o.Revision, o.Driver, o.Most, o.Channels, o.Counter)
		}
		h.Close()
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
