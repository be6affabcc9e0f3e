// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// promScenario is the name under which the unit for node_exporter is counted.
const promScenario = "unit for Prometheus"

const (
	promUnit  = "hostcheck-prometheus.service"
	promTimer = "hostcheck-prometheus.timer"
	promState = "/var/lib/hostcheck-prometheus"
	promFile  = promState + "/hostcheck.prom"
	promLink  = "/var/lib/prometheus/node-exporter/hostcheck.prom"
)

// exporterUser is what Debian's package of node_exporter makes.
const exporterUser = "adduser --quiet --system --group --no-create-home --home /var/lib/prometheus prometheus && " +
	"install -d -o prometheus -g prometheus /var/lib/prometheus /var/lib/prometheus/node-exporter"

// promRules want of the guest what a run without root, or behind walls, may
// fail to see, among it huge pages that are mounted below a home.
const promRules = `schema: hostcheck.profile/v1
name: site
layer: site
source: the VM lab
cmdline:
  require:
    - {id: pt, token: iommu=pt, source: the VM lab}
hugepages:
  mount: true
  pools:
    - {size: 1G, per_node: 1}
    - {size: 2M, per_node: 32}
nics:
  - id: igb
    match: {driver: igb, kind: pf}
    speed_mbps: {value: 1000, source: the VM lab}
  - id: both
    match: {driver: mlx5_core}
    trust: dscp
    pfc: [3]
    cnp_dscp: 50
`

// promHost gives the guest what those rules are about.
const promHost = `echo 7 > /sys/class/net/` + nicVFs + `/device/sriov_numvfs
udevadm settle
` + handOver + `
modprobe rdma_rxe
rdma link add rxe0 type rxe netdev ` + nicNode1 + `
mkdir -p /home/huge /tmp/huge
mount -t hugetlbfs -o pagesize=1G none /home/huge
mount -t hugetlbfs -o pagesize=2M none /tmp/huge
ip link add vx0 type vxlan id 100 dstport 4789 dev ` + nicNode1 + ` group 239.1.1.1
ip link set vx0 up
udevadm settle`

// TestPrometheusUnit is the unit and the timer of docs/prometheus.md, as the
// page says it: set up, run by systemd, judged alike inside and outside of the
// unit's walls, killed, and taken away.
func TestPrometheusUnit(t *testing.T) {
	if testing.Short() {
		t.Skip("the unit runs under systemd in make e2e; make test-programs goes from hostcheck to Prometheus")
	}
	ctx := limit(t, 20*time.Minute)
	deb := debOf(t, "0.1")
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "no other hostcheck", "rm "+hostcheck)
	must(t, ctx, g, "the user of node_exporter", exporterUser)
	if err := g.PushFile(ctx, deb, "/root/hostcheck.deb", 0o644); err != nil {
		t.Fatal(err)
	}
	was := promPlaces(t, ctx, g, "before")
	must(t, ctx, g, "install", "dpkg -i /root/hostcheck.deb")

	ok := t.Run("set up", func(t *testing.T) { promSetUp(t, ctx, g) }) &&
		t.Run("timer", func(t *testing.T) { promRuns(t, ctx, g) }) &&
		t.Run("exit codes", func(t *testing.T) { promExits(t, ctx, g) }) &&
		t.Run("killed", func(t *testing.T) { promKilled(t, ctx, g) }) &&
		t.Run("walls", func(t *testing.T) { promWalls(t, ctx, g) })
	if !ok { // what fails leaves the guest in a state that says nothing about the next
		return
	}
	t.Run("taken away", func(t *testing.T) {
		began := time.Now()
		promDrop(t, ctx, g, promUnit, "[Service]\nExecStart=\nExecStart=/usr/bin/hostcheck --bogus\n")
		exits(t, ctx, g, "it fails last", 1, "systemctl start "+promUnit)
		told := must(t, ctx, g, "removal tells of the timer", "dpkg -r hostcheck 2>&1")
		if !strings.Contains(told, promTimer) {
			t.Errorf("removal says nothing of %s:\n%s", promTimer, told)
		}
		must(t, ctx, g, "the page's lines", "set -e\n"+pageBlock(t, "docs/prometheus.md", "systemctl disable"))
		must(t, ctx, g, "purge, and the scenario's own", "rm /etc/hostcheck/profile.yaml && dpkg -P hostcheck && rm -r /run/systemd/system/hostcheck-* && systemctl daemon-reload")
		same(t, "taken away", was, promPlaces(t, ctx, g, "after"))
		count(promScenario, "all of it taken away", 1, allHeld(t), time.Since(began))
	})
}

// promPlaces is all that an installed unit could leave.
func promPlaces(t *testing.T, ctx context.Context, g *lab.Guest, step string) []string {
	t.Helper()
	out := must(t, ctx, g, "places "+step, `find /etc /usr /var/lib /run/systemd/system -xdev \( -path /var/lib/dpkg -o -path /usr/share/mime -o -name '*cache*' -o -path '/var/lib/systemd/*' -o -path `+lab.ModulesDir+` \) -prune -o -printf '%p %y %m %U:%G %l\n' | sort
systemctl list-unit-files --no-legend --no-pager 'hostcheck*'
systemctl list-units --all --plain --no-legend --no-pager 'hostcheck*'`)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// pageBlock gives the block of a page of the documentation that has that text.
func pageBlock(t *testing.T, page, has string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(theLab.Source(), page))
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(text), "```\n") {
		if i%2 == 1 && strings.Contains(block, has) {
			return block
		}
	}
	t.Fatalf("%s has no block with %q", page, has)
	return ""
}

// promDrop gives a unit a drop-in for this boot, in place of the one before.
func promDrop(t *testing.T, ctx context.Context, g *lab.Guest, unit, text string) {
	t.Helper()
	if err := g.Push(ctx, "/run/systemd/system/"+unit+".d/lab.conf", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, ctx, g, "systemd reads "+unit, "systemctl daemon-reload")
}

// promSetUp follows the page, and has systemd read the units as it would.
func promSetUp(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	must(t, ctx, g, "the page's lines", "set -e\n"+pageBlock(t, "docs/prometheus.md", "systemctl enable"))
	out := exits(t, ctx, g, "systemd finds no fault", 0, "cd /etc/systemd/system && systemd-analyze verify --man=no "+promUnit+" "+promTimer+" /usr/lib/systemd/system/hostcheck-settings.service")
	if out.Out+out.Err != "" {
		t.Errorf("systemd-analyze verify says\n%s%s", out.Out, out.Err)
	}
	// 5 and less is "OK": the capabilities that the page names are all that is left
	must(t, ctx, g, "its walls", "systemd-analyze security --no-pager --threshold=40 "+promUnit)
	must(t, ctx, g, "the timer waits", "systemctl is-enabled "+promTimer+" && systemctl is-active "+promTimer)
	count(promScenario, "units as the page and systemd want them", 3, 3*allHeld(t), time.Since(began))
}

// promRuns waits for the timer, which comes again.
func promRuns(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	wait := 240 // seconds: two minutes, the random one, and the run
	if testing.Short() {
		promDrop(t, ctx, g, promTimer, "[Timer]\nOnBootSec=\nOnBootSec=1\nOnUnitActiveSec=4\nRandomizedDelaySec=0\nAccuracySec=1ms\n")
		must(t, ctx, g, "nobody waits two minutes", "systemctl restart "+promTimer)
		wait = 60
	}
	must(t, ctx, g, "the first run", fmt.Sprintf("for i in $(seq %d); do test -e %s && exit; sleep 1; done; systemctl status --no-pager %s %s >&2; exit 1", wait, promFile, promTimer, promUnit))
	must(t, ctx, g, "the file gets old", "touch -d '1 hour ago' "+promFile+"; sync")
	if !testing.Short() {
		if err := g.Reboot(ctx); err != nil {
			t.Fatalf("step \"reboot\": %v", err)
		}
	}
	must(t, ctx, g, "another run", fmt.Sprintf("for i in $(seq %d); do test -z \"$(find %s -mmin +30)\" && exit; sleep 1; done; exit 1", wait, promFile))
	// the rest starts it when it likes
	promDrop(t, ctx, g, promTimer, "[Timer]\nOnBootSec=\nOnActiveSec=1d\n")
	must(t, ctx, g, "the timer waits", "systemctl restart "+promTimer+" && until [ \"$(systemctl show -P ActiveState "+promUnit+")\" = inactive ]; do sleep 0.2; done")
	if got := must(t, ctx, g, "the file", "stat -c '%U %G %a' "+promFile+"; ls -A "+promState+"; stat -c '%U %a' "+promState); got != "prometheus prometheus 644\nhostcheck.prom\nprometheus 755\n" {
		t.Errorf("the file and its directory are %q", got)
	}
	must(t, ctx, g, "others read it where node_exporter looks", ordinary+"grep -q '^hostcheck_exit_code ' "+promLink)
	count(promScenario, "runs by the timer, and the file of them", 2, 2*allHeld(t), time.Since(began))
}

// promExits has each kind of run end: a verdict is no failure of the unit, and
// what is none is one.
func promExits(t *testing.T, ctx context.Context, g *lab.Guest) {
	const (
		profile = "/etc/hostcheck/profile.yaml"
		start   = "systemctl start " + promUnit
	)
	if err := g.Push(ctx, profile, []byte(promRules), 0o600); err != nil {
		t.Fatal(err)
	}
	only := func(id string) string { return "[Service]\nEnvironment=HOSTCHECK_ONLY=" + id + "\n" }
	for _, tc := range []struct {
		name, drop, before string
		starts, writes     int
		result             string
	}{
		{"compliant", only("cmdline.unknown"), "true", 0, 0, "success"},
		{"findings", only("cmdline.required"), "true", 0, 1, "success"},
		{"incomplete", only("mana.errors"), "true", 0, 3, "success"},
		{"pending", only("cmdline.required"), `sed -i '/^GRUB_CMDLINE_LINUX_DEFAULT/ s/"$/ iommu=pt"/' /etc/default/grub && sed -i '/vmlinuz/ s/$/ iommu=pt/' /boot/grub/grub.cfg`, 0, 10, "success"},
		{"a slip in the command line", "[Service]\nExecStart=\nExecStart=/usr/bin/hostcheck -f prometheus -o " + promFile + " --bogus\n", "true", 1, 10, "exit-code"},
		{"a slip in the profile", only("cmdline.unknown"), "echo 'nonsense: 1' >> " + profile, 1, 2, "exit-code"},
		{"mended", only("cmdline.unknown"), "sed -i '$d' " + profile, 0, 0, "success"},
		{"too slow", only("cmdline.unknown") + "TimeoutStartSec=1ms\n", "true", 1, 0, "timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			defer func() {
				count(promScenario, "ends of a run, as systemd and the file tell them", 1, allHeld(t), time.Since(began))
			}()
			must(t, ctx, g, "before", tc.before)
			promDrop(t, ctx, g, promUnit, tc.drop)
			exits(t, ctx, g, "start", tc.starts, start)
			must(t, ctx, g, "what is written", fmt.Sprintf("grep '^hostcheck_exit_code %d$' %s", tc.writes, promFile))
			if got := strings.TrimSpace(must(t, ctx, g, "what systemd holds of it", "systemctl show -P Result "+promUnit)); got != tc.result {
				t.Errorf("the unit's result is %q, want %q", got, tc.result)
			}
			failed := strings.Contains(must(t, ctx, g, "failed units", "systemctl --failed --no-legend --no-pager"), promUnit)
			if failed != (tc.result != "success") {
				t.Errorf("failed: %v, with the result %s", failed, tc.result)
			}
		})
	}
}

// promKilled ends a run while it writes, on a disk that takes seconds for the
// file: the old one stays whole, and the next run leaves nothing but its own.
func promKilled(t *testing.T, ctx context.Context, g *lab.Guest) {
	ends := []struct{ end, state, result string }{
		{"systemctl kill -s KILL " + promUnit, "failed", "signal"},
		{"systemctl stop --no-block " + promUnit, "inactive", "success"},
	}
	if testing.Short() {
		ends = ends[:1]
	}
	for _, tc := range ends {
		began := time.Now()
		promDrop(t, ctx, g, promUnit, "[Service]\nEnvironment=HOSTCHECK_ONLY=cmdline.*\n")
		must(t, ctx, g, "a run", "systemctl start "+promUnit)
		old := must(t, ctx, g, "the file", "cat "+promFile)
		promDrop(t, ctx, g, promUnit, "[Service]\nIOWriteBandwidthMax=/dev/vda 2K\n")
		must(t, ctx, g, "it writes", "systemctl start --no-block "+promUnit+fmt.Sprintf("; for i in $(seq 300); do ls -A %s | grep -q '^[.]hostcheck' && exit; sleep 0.1; done; exit 1", promState))
		if got := must(t, ctx, g, "the file meanwhile", "cat "+promFile); got != old {
			t.Errorf("%s: while it writes the file is\n%s\nand before it was\n%s", tc.end, got, old)
		}
		must(t, ctx, g, "end it", tc.end)
		promDrop(t, ctx, g, promUnit, "[Service]\n")
		must(t, ctx, g, "it has ended", fmt.Sprintf("for i in $(seq 300); do [ \"$(systemctl show -P ActiveState %s)\" = %s ] && exit; sleep 0.1; done; systemctl status --no-pager %[1]s >&2; exit 1", promUnit, tc.state))
		if got := strings.TrimSpace(must(t, ctx, g, "what systemd holds of it", "systemctl show -P Result "+promUnit)); got != tc.result {
			t.Errorf("%s: the unit's result is %q, want %q", tc.end, got, tc.result)
		}
		if got := must(t, ctx, g, "the file afterwards", "cat "+promFile); got != old {
			t.Errorf("%s: the file is\n%s\nand before it was\n%s", tc.end, got, old)
		}
		must(t, ctx, g, "the next run", "systemctl start "+promUnit)
		if got := must(t, ctx, g, "what lies there", "ls -A "+promState); got != "hostcheck.prom\n" {
			t.Errorf("%s: after the next run there are %q", tc.end, got)
		}
		count(promScenario, "runs ended while they write", 1, allHeld(t), time.Since(began))
	}
}

// promWalls has the unit write its report as JSON: it must be that of root, to
// the last byte, and of more than an ordinary user sees.
func promWalls(t *testing.T, ctx context.Context, g *lab.Guest) {
	pairFiles(t, ctx, g)
	must(t, ctx, g, "something to see", promHost)
	must(t, ctx, g, "the lab's ConnectX", "sh "+nicTool+" intree/mlx5_core.ko "+portB)
	must(t, ctx, g, "a profile that all may read", "chmod 0644 /etc/hostcheck/profile.yaml")
	const unitJSON = promState + "/unit.json"
	intents := []string{"sriov-tenant", "baremetal-gpudirect", "vm-gpudirect"}
	if testing.Short() {
		intents = intents[:1]
	}
	for _, intent := range intents {
		began := time.Now()
		flags := "--intent " + intent
		promDrop(t, ctx, g, promUnit, "[Service]\nExecStart=\nExecStart=/usr/bin/hostcheck check -f json -o "+unitJSON+" "+flags+"\n")
		root, user := checkRun(t, ctx, g, "", flags), checkRun(t, ctx, g, ordinary, flags)
		unit := readCheck(t, ctx, g, fmt.Sprintf("systemctl start %s && cat %s && rm %[2]s; exit $(systemctl show -P ExecMainStatus %[1]s)", promUnit, unitJSON))
		if unit.text != root.text {
			t.Errorf("%s: what the unit tells is not what root is told: %s", intent, firstDifference(root.text, unit.text))
		}
		unknown := func(r checkReport) (n int) {
			for _, f := range r.Findings {
				if f.Status == "unknown" {
					n++
				}
			}
			return n
		}
		if unknown(user) <= unknown(unit) {
			t.Errorf("%s: %d findings are unknown to the unit, and %d to an ordinary user: nothing here takes a capability", intent, unknown(unit), unknown(user))
		}
		count(promScenario, "findings as root has them", len(root.Findings), len(root.Findings)*allHeld(t), time.Since(began))
	}
}
