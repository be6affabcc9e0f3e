// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// runDir is where scenarios keep their own files in the guest: in memory, and
// outside of what is compared.
const runDir = "/run/lab-fix"

// safeProfile wants of the guest what all verbs of tier safe together can give
// a running host without a special device.
const safeProfile = `schema: hostcheck.profile/v1
name: lab
layer: site
source: the VM lab
hugepages:
  mount: true
  pools:
    - {size: 2M, per_node: 16}
modules:
  require: [vxlan]
sysctl:
  keys:
    - {id: somaxconn, key: net.core.somaxconn, min: 16384}
    - {id: rmem_max, key: net.core.rmem_max, min: 4194304}
`

// mountProfile wants a mount of pages of 1G, so that a unit of hostcheck's own
// making is enabled and started.
const mountProfile = `schema: hostcheck.profile/v1
name: lab-mount
layer: site
source: the VM lab
hugepages:
  mount: true
  pools:
    - {size: 1G, per_node: 1}
`

// The checks that each profile is about, and how hostcheck is told so.
const (
	safeChecks  = "sysctl hugepages.pool hugepages.surplus hugepages.mount driver.modules"
	mountChecks = "hugepages.mount"
	safeFlags   = " --intent guest --profile " + runDir + "/safe.yaml"
	mountFlags  = " --intent guest --profile " + runDir + "/mount.yaml"
	fixSafe     = "hostcheck fix --yes -f json " + safeChecks + safeFlags
	fixMount    = "hostcheck fix --yes -f json " + mountChecks + mountFlags
)

// spoil makes the checks of safeProfile fail, until the next boot.
const spoil = "sysctl -qw net.core.somaxconn=128 net.ipv4.tcp_timestamps=0 vm.nr_overcommit_hugepages=8 && systemctl stop dev-hugepages.mount"

// snapshotScript prints how the guest stands: every file of the places that
// hostcheck writes to, and the running kernel and systemd. With "quick" it
// reads no file outside /etc. Left out is what moves by itself.
const snapshotScript = `#!/bin/sh
export LC_ALL=C
set -e
# hostcheck's journal, systemd's clocks and random seed
places() {
	find /etc /boot /usr/local /var/lib -xdev \( -path /var/lib/hostcheck -o -path /var/lib/systemd \) -prune -o "$@"
}
places -printf 'file %p %M %U:%G %l\n' | sort
[ "$1" = quick ] && places() { find /etc "$@"; }
places -type f -print0 | sort -z | xargs -0 cksum | sed 's/^/sum /'
for key in $(sysctl -aN 2>/dev/null | grep -Ev '^(fs\.(file-nr|inode|dentry|aio-nr|quota)|net\.core\.netdev_rss_key|kernel\.(ns_last_pid|pty\.nr|random\.|tainted|sched_)|net\.netfilter\.nf_conntrack_count|vm\.(stat_refresh|compact_memory))'); do
	printf '%s\n' "$key"
done | xargs sysctl 2>/dev/null | sed 's/^/sysctl /' | sort
grep -H . /sys/devices/system/node/node*/hugepages/*/nr_hugepages /sys/kernel/mm/hugepages/*/nr_overcommit_hugepages /sys/kernel/mm/transparent_hugepage/[de][en]*
cut -d' ' -f1 /proc/modules | sort | sed 's/^/module /'
# automount's pipe and the size of /dev are other ones at each boot
cut -d' ' -f1-4 /proc/self/mounts | sed 's/,fd=.*//; s/size=[0-9]*k,nr_inodes=[0-9]*//' | sort | sed 's/^/mount /'
for n in /sys/class/net/*; do
	n=${n##*/}
	echo "net $n"
	for what in g k l a c; do ethtool -$what "$n" 2>&1 || true; done
done
systemctl list-unit-files --no-legend --no-pager | sed 's/^/unit file /'
# what others pull in at boot and nothing stops
systemctl list-units --all --plain --no-legend --no-pager -t service,socket,mount,target,swap | awk '$1 !~ /^(systemd-udev-settle|systemd-network-generator|network-pre)/ { print "unit", $1, $2, $3, $4 }'
`

// fixLab puts profiles and scripts into the guest.
func fixLab(t *testing.T, ctx context.Context, g *lab.Guest) {
	t.Helper()
	must(t, ctx, g, "make a place for the scenario's files", "mkdir -p "+runDir)
	for name, text := range map[string]string{"safe.yaml": safeProfile, "mount.yaml": mountProfile, "snapshot": snapshotScript, "kill": killScript} {
		if err := g.Push(ctx, runDir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatalf("step \"push %s\": %v", name, err)
		}
	}
}

// snapshot is how the guest stands, "all" of it or the "quick" part.
func snapshot(t *testing.T, ctx context.Context, g *lab.Guest, step, what string) []string {
	t.Helper()
	out := must(t, ctx, g, "snapshot "+step, "sh "+runDir+"/snapshot "+what)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) < 500 {
		t.Fatalf("step \"snapshot %s\": it has %d lines only:\n%s", step, len(lines), out)
	}
	return lines
}

// same compares two snapshots and reports whether they are equal.
func same(t *testing.T, step string, want, got []string) bool {
	t.Helper()
	d := difference(want, got)
	if len(d) == 0 {
		return true
	}
	const most = 40
	more := ""
	if len(d) > most {
		d, more = d[:most], "\n…"
	}
	t.Errorf("step %q: the guest is not as before:\n%s%s", step, strings.Join(d, "\n"), more)
	return false
}

// difference gives the lines that only one of the two has, in order.
func difference(want, got []string) (d []string) {
	count := map[string]int{}
	for _, l := range got {
		count[l]++
	}
	for _, l := range want {
		if count[l]--; count[l] < 0 {
			d = append(d, "- "+l)
		}
	}
	for _, l := range got {
		if count[l] > 0 {
			count[l]--
			d = append(d, "+ "+l)
		}
	}
	return d
}

// document decodes what a command printed.
func document[T any](t *testing.T, step, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("step %q: it is no JSON: %v\n%s", step, err, text)
	}
	return v
}

// applied runs a fix and wants it done; it gives what was done.
func applied(t *testing.T, ctx context.Context, g *lab.Guest, step, command string) report.Fix {
	t.Helper()
	f := document[report.Fix](t, step, must(t, ctx, g, step, command))
	if f.Result.Outcome != plan.Applied || f.Result.Changed != len(f.Plan.Changes) || len(f.Plan.Refused) > 0 || len(f.Verification) == 0 {
		t.Fatalf("step %q: %+v\nrefused: %+v", step, f.Result, f.Plan.Refused)
	}
	return f
}

// kinds wants changes of all these kinds and no other in a fix.
func kinds(t *testing.T, step string, f report.Fix, want ...string) {
	t.Helper()
	var got []string
	for _, c := range f.Plan.Changes {
		got = append(got, c.Kind)
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Fatalf("step %q: changes of kinds %v, want %v", step, got, want)
	}
}

// idle wants a status without anything that asks for an undo, and so many
// transactions in force.
func idle(t *testing.T, ctx context.Context, g *lab.Guest, step string, inForce int) {
	t.Helper()
	s := document[report.Status](t, step, must(t, ctx, g, step, "hostcheck status -f json"))
	if len(s.Pending) != 0 || len(s.Applied) != inForce || s.Busy != nil {
		t.Fatalf("step %q: %+v, want %d in force", step, s, inForce)
	}
}

// TestFixUndo takes all verbs that can act in the guest through the closed
// loop: fail, fix, pass, nothing left to fix, undo, everything as before. The
// full run does it over a reboot too.
func TestFixUndo(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	g := settled(t, ctx, lab.Options{})
	fixLab(t, ctx, g)

	began := time.Now()
	must(t, ctx, g, "spoil", spoil)
	start := snapshot(t, ctx, g, "before the fix", "all")
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck "+safeChecks+safeFlags)
	f := applied(t, ctx, g, "fix", fixSafe)
	kinds(t, "fix", f, "file", "hugepages", "modprobe", "sysctl", "unit")
	m := applied(t, ctx, g, "fix the mount", fixMount)
	kinds(t, "fix the mount", m, "file", "unit")
	changes := f.Result.Changed + m.Result.Changed
	if d := difference(start, snapshot(t, ctx, g, "after the fix", "all")); len(d) < changes {
		t.Errorf("step \"fix\": %d changes are %d lines of difference only:\n%s", changes, len(d), strings.Join(d, "\n"))
	}
	must(t, ctx, g, "judge after the fix", "hostcheck --fail-on warn "+safeChecks+safeFlags)
	must(t, ctx, g, "judge the mount after the fix", "hostcheck --fail-on warn "+mountChecks+mountFlags)
	for step, command := range map[string]string{"fix again": fixSafe, "fix the mount again": fixMount} {
		again := document[report.Fix](t, step, must(t, ctx, g, step, command))
		if again.Result.Outcome != report.OutcomeNothing || again.Result.Txn != "" || len(again.Plan.Changes) > 0 {
			t.Errorf("step %q: %+v %+v", step, again.Result, again.Plan.Changes)
		}
	}
	idle(t, ctx, g, "status after the fix", 2)
	undoAll(t, ctx, g, "undo", 2)
	idle(t, ctx, g, "status after the undo", 0)
	held := 0
	if same(t, "undo", start, snapshot(t, ctx, g, "after the undo", "all")) {
		held = changes
	}
	exits(t, ctx, g, "judge after the undo", 1, "hostcheck "+safeChecks+safeFlags)
	count("fix and undo", "changes, running host", changes, held, time.Since(began))
	if testing.Short() {
		return
	}
	overReboot(t, ctx, g)
}

// undoAll takes so many transactions back.
func undoAll(t *testing.T, ctx context.Context, g *lab.Guest, step string, n int) {
	t.Helper()
	u := document[report.Undo](t, step, must(t, ctx, g, step, "hostcheck undo --all -f json"))
	if len(u.Results) != n {
		t.Fatalf("step %q: %d transactions were taken back, want %d: %+v", step, len(u.Results), n, u)
	}
	for _, r := range u.Results {
		if r.Outcome != plan.Undone || len(r.Left) > 0 || len(r.Stays) > 0 || r.Journal != "" {
			t.Errorf("step %q: %+v", step, r)
		}
	}
}

// overReboot: what says that it lasts holds after a reboot, and the undo then
// gives the guest that never had the fix.
func overReboot(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	// somebody's file, so that the value is a bad one after each boot
	must(t, ctx, g, "spoil for good", "printf 'net.core.somaxconn = 128\nnet.ipv4.tcp_timestamps = 0\nvm.nr_overcommit_hugepages = 0\n' > /etc/sysctl.d/10-guide.conf && sysctl -q -p /etc/sysctl.d/10-guide.conf && systemctl start dev-hugepages.mount")
	start := snapshot(t, ctx, g, "before the fix over a reboot", "all")
	f := applied(t, ctx, g, "fix before the reboot", fixSafe)
	m := applied(t, ctx, g, "fix the mount before the reboot", fixMount)
	try, cancel := context.WithTimeout(ctx, 8*time.Minute)
	err := g.Reboot(try)
	cancel()
	if errors.Is(err, lab.ErrStalled) || errors.Is(err, context.DeadlineExceeded) {
		g.Cut()
		err = comeUp(ctx, g)
	}
	if err != nil {
		t.Fatalf("step \"reboot\": %v", err)
	}
	fixLab(t, ctx, g)
	idle(t, ctx, g, "status after the reboot", 2)
	lasting := map[string]bool{} // checks behind the changes that say that they last
	n := 0
	for _, c := range append(f.Plan.Changes, m.Plan.Changes...) {
		if c.Persist {
			n++
			ids, _, _ := strings.Cut(c.Why, ": ")
			for id := range strings.SplitSeq(ids, ", ") {
				if strings.Contains(id, ".") && !strings.Contains(id, " ") {
					lasting[id] = true
				}
			}
		}
	}
	for _, id := range []string{"sysctl.somaxconn", "sysctl.tcp_defaults", "driver.modules", "hugepages.mount"} {
		if !lasting[id] {
			t.Errorf("step \"fix before the reboot\": no change for %s says that it lasts; those that do: %v", id, lasting)
		}
	}
	for id := range lasting {
		flags := safeFlags
		if id == mountChecks {
			flags = mountFlags
		}
		must(t, ctx, g, "judge "+id+" after the reboot", "hostcheck --fail-on warn "+id+flags)
	}
	undoAll(t, ctx, g, "undo after the reboot", 2)
	held := 0
	if same(t, "undo after the reboot", start, snapshot(t, ctx, g, "after the undo after the reboot", "all")) {
		held = n
	}
	count("fix and undo", "lasting changes, over a reboot", n, held, time.Since(began))
}
