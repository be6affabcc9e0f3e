// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// rxScenario is the name under which receive buffers are counted.
const rxScenario = "receive buffers"

// tuned is what "tune plan -f json" writes of rxfrag.
type tuned struct {
	Module string
	Advice struct {
		Saved int64 `json:"saved_bytes"`
		NICs  []struct {
			NIC       string
			Now, Then *facts.RXLayout
		}
	}
	Plan plan.Plan
}

// TestRXFrag tunes receive buffers on the lab's mana and mlx5: predicted as
// the guest's own tools show the settings, changed, kept over a reboot, undone.
func TestRXFrag(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes for each change and its undo; the verb itself is in TestLink")
	}
	ctx := limit(t, 30*time.Minute)
	g := settled(t, ctx, lab.Options{})
	pairFiles(t, ctx, g)
	mana := rxPort(t, ctx, g, "mana.ko", manaPort)
	ok := t.Run("facts", func(t *testing.T) { rxFacts(t, ctx, g, mana) }) &&
		t.Run("mana", func(t *testing.T) {
			rxTuned(t, ctx, g, mana, "full-page-rx", "--full-page-rx", func(saved int64) bool { return saved < 0 })
		})
	if ok {
		ok = t.Run("boot", func(t *testing.T) { rxBoot(t, ctx, g, &mana) })
	}
	ok = ok && t.Run("mlx5", func(t *testing.T) {
		mlx5 := rxPort(t, ctx, g, "intree/mlx5_core.ko", mlx5Port)
		// 6144 bytes of the legacy queue, 4352 of the striding one
		must(t, ctx, g, "legacy queue", fmt.Sprintf("ip link set %[1]s mtu 4100 && ethtool --set-priv-flags %[1]s rx_striding_rq off && sleep 1", mlx5.name))
		rxTuned(t, ctx, g, mlx5, "rx_striding_rq", "", func(saved int64) bool { return saved > 0 })
	})
	if ok {
		t.Run("undo", func(t *testing.T) {
			began := time.Now()
			undoAll(t, ctx, g, "undo", 2)
			hasFlag(t, ctx, g, "undo", mana, "full-page-rx", "off")
			must(t, ctx, g, "nothing is set at the next boot", "! ls /etc/hostcheck/settings.d/50-hostcheck.yaml")
			count(rxScenario, "tuned and undone", 2, 2, time.Since(began))
		})
	}
}

// rxPort gives a device to a module of the lab.
func rxPort(t *testing.T, ctx context.Context, g *lab.Guest, file, bdf string) port {
	t.Helper()
	out := must(t, ctx, g, "bind "+file, fmt.Sprintf("sh %s %s %s", nicTool, file, bdf))
	return port{bdf, strings.TrimSpace(out), strings.TrimSuffix(path.Base(file), ".ko")}
}

// hasFlag wants a private flag so, as ethtool shows it.
func hasFlag(t *testing.T, ctx context.Context, g *lab.Guest, step string, p port, flag, want string) {
	t.Helper()
	got := strings.TrimSpace(must(t, ctx, g, step+": "+flag, fmt.Sprintf("ethtool --show-priv-flags %s | awk '$1 ~ /^%s:?$/ { print $NF }'", p.name, flag)))
	if got != want {
		t.Errorf("step %q: %s of %s is %q, want %q", step, flag, p.name, got, want)
	}
}

// rxFacts compares what is predicted with the guest's own tools.
func rxFacts(t *testing.T, ctx context.Context, g *lab.Guest, p port) {
	got := document[struct{ RXFrag facts.RXFrag }](t, "facts", must(t, ctx, g, "facts", "hostcheck facts rxfrag -f json")).RXFrag
	n := got.Of(p.name)
	if n == nil || n.Predicted == nil || n.Ring == nil || n.Queues == nil || n.On == nil {
		t.Fatalf("%+v", got)
	}
	page := strings.TrimSpace(must(t, ctx, g, "page size", "getconf PAGESIZE"))
	ring := strings.TrimSpace(must(t, ctx, g, "ring", "ethtool -g "+p.name+" | awk '/^RX:/ { n = $2 } END { print n }'"))
	queues := strings.TrimSpace(must(t, ctx, g, "queues", "ethtool -l "+p.name+" | awk '/^Combined:/ { n = $2 } END { print n }'"))
	if fmt.Sprint(*got.PageSize) != page || fmt.Sprint(*n.Ring) != ring || fmt.Sprint(*n.Queues) != queues {
		t.Errorf("pages of %d, %d queues of %d; the guest says %s, %s of %s", *got.PageSize, *n.Queues, *n.Ring, page, queues, ring)
	}
	if l := n.Predicted; l.Rule != "mana" || l.PerPage != 2 || l.PacketBytes != 2048 || *n.On {
		t.Errorf("MTU 1500 on pages of 4K: %+v", l)
	}
	count(rxScenario, "predicted for the settings that the guest's tools show", 1, 1, 0)
}

// rxTuned plans, applies and looks.
func rxTuned(t *testing.T, ctx context.Context, g *lab.Guest, p port, flag, flags string, fits func(saved int64) bool) {
	began := time.Now()
	hasFlag(t, ctx, g, "before", p, flag, "off")
	d := document[tuned](t, "plan", exits(t, ctx, g, "plan", 1, "hostcheck tune plan rxfrag "+flags+" --allow link -f json").Out)
	i := -1
	for j, n := range d.Advice.NICs {
		if n.NIC == p.name {
			i = j
		}
	}
	if i < 0 || d.Advice.NICs[i].Then == nil || !fits(d.Advice.Saved) {
		t.Fatalf("step \"plan\": %+v", d)
	}
	f := document[report.Fix](t, "apply", must(t, ctx, g, "apply", "hostcheck tune apply rxfrag "+flags+" --allow link --confirm auto --yes -f json"))
	if f.Result.Outcome != plan.Applied || len(f.Plan.Refused) > 0 {
		t.Fatalf("step \"apply\": %+v", f)
	}
	hasFlag(t, ctx, g, "after", p, flag, "on")
	must(t, ctx, g, "kept for the next boot", fmt.Sprintf("grep -A1 -F '%s' /etc/hostcheck/settings.d/50-hostcheck.yaml | grep -F 'flag %s'", p.bdf, flag))
	if again := exits(t, ctx, g, "plan again", 0, "hostcheck tune plan rxfrag "+flags+" --allow link"); strings.Contains(again.Out, "PLAN") {
		t.Errorf("step \"plan again\": %s", again.Out)
	}
	count(rxScenario, "tuned and undone", 0, 0, time.Since(began))
}

// rxBoot has a boot bind mana where the real driver would, and wants the flag
// that a new probe resets.
func rxBoot(t *testing.T, ctx context.Context, g *lab.Guest, p *port) {
	began := time.Now()
	unit := fmt.Sprintf(`[Unit]
Description=The lab's MANA, in place of the real one
DefaultDependencies=no
Wants=systemd-udev-settle.service
After=local-fs.target systemd-udev-settle.service
Before=network.target hostcheck-settings.service

[Service]
Type=oneshot
ExecStart=/bin/sh %s mana.ko %s

[Install]
WantedBy=multi-user.target
`, nicTool, p.bdf)
	if err := g.Push(ctx, "/etc/systemd/system/lab-mana.service", []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "have boots bind mana", "systemctl -q enable lab-mana.service && sync")
	restartPair(t, ctx, g, "reboot", "reboot")
	must(t, ctx, g, "the unit that sets ends", "for i in $(seq 60); do [ \"$(systemctl show -P ActiveState hostcheck-settings.service)\" = activating ] || exit 0; sleep 0.5; done; exit 1")
	p.name = strings.TrimSpace(must(t, ctx, g, "interface after the boot", "ls /sys/bus/pci/devices/"+p.bdf+"/net"))
	hasFlag(t, ctx, g, "after the boot", *p, "full-page-rx", "on")
	count(rxScenario, "kept over a reboot", 1, 1, time.Since(began))
}
