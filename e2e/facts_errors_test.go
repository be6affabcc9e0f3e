// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// errored is PCI Express errors that QEMU made a device report.
type errored struct {
	device      string // its name to QEMU
	bdf         string
	correctable bool
	status      int    // the bit of the status register
	name        string // the kernel's
}

// pciErrors are of ports: QEMU's NICs do not let themselves be told to report any.
var pciErrors = []errored{
	{"rp2", "0000:40:00.0", true, 1 << 0, "RxErr"},
	{"dn0", "0000:04:00.0", true, 1 << 6, "BadTLP"},
	{"up", "0000:03:00.0", true, 1 << 7, "BadDLLP"},
	{"dn0", "0000:04:00.0", true, 1 << 6, "BadTLP"},
	{"dn1", "0000:04:01.0", false, 1 << 20, "UnsupReq"},
	{"dn1", "0000:04:01.0", false, 1 << 14, "CmpltTO"},
}

// inject has a device report an error, and waits until the kernel took it.
func inject(t *testing.T, ctx context.Context, g *lab.Guest, e errored) {
	t.Helper()
	step := fmt.Sprintf("inject %s into %s", e.name, e.device)
	const counted = "cat /sys/bus/pci/devices/*/aer_rootport_total_err_* | awk '{ n += $1 } END { print n }'"
	before := numberIn(t, says(t, ctx, g, counted))
	correctable := ""
	if e.correctable {
		correctable = "-c "
	}
	raw, err := g.QMP(ctx, "human-monitor-command", map[string]any{"command-line": fmt.Sprintf("pcie_aer_inject_error %s%s %#x", correctable, e.device, e.status)})
	var answer string
	if err != nil || json.Unmarshal(raw, &answer) != nil || !strings.HasPrefix(answer, "OK") {
		t.Fatalf("step %q: %v %s", step, err, raw)
	}
	for range 50 {
		if numberIn(t, says(t, ctx, g, counted)) > before {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("step %q: the kernel counted no error", step)
}

// wantAER is what QEMU was told to break, of the functions that report errors
// to lspci.
func wantAER(t *testing.T, ctx context.Context, g *lab.Guest) any {
	counts := map[string]jsonObject{}
	for _, e := range pciErrors {
		inject(t, ctx, g, e)
		if counts[e.bdf] == nil {
			counts[e.bdf] = jsonObject{"correctable": jsonObject{}, "nonfatal": jsonObject{}}
		}
		kind := counts[e.bdf]["nonfatal"].(jsonObject)
		if e.correctable {
			kind = counts[e.bdf]["correctable"].(jsonObject)
		}
		n, _ := kind[e.name].(int)
		kind[e.name] = n + 1
	}
	vfs, _ := virtualNICs(t, ctx, g)
	list := jsonList{}
	for _, p := range lspci(t, ctx, g, "") {
		looked := p.fields["Class"] == "0604" || strings.HasPrefix(p.fields["Class"], "02") && !vfs[p.bdf]
		if !looked || !strings.Contains(p.text, "Advanced Error Reporting") {
			continue
		}
		c := jsonObject{"bdf": p.bdf, "fatal": jsonObject{}, "nonfatal": jsonObject{}, "correctable": jsonObject{}}
		for kind, of := range counts[p.bdf] {
			c[kind] = of
		}
		list = append(list, c)
	}
	if len(list) != 13 {
		t.Fatalf("lspci tells error reporting of %d functions, and not 13", len(list))
	}
	return list
}

// errorsJudged: a port above one NIC lost a transaction, one above the other
// only had to receive again, and a third nothing.
func errorsJudged(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	const profile = `schema: hostcheck.profile/v1
name: lab-errors
nics:
  - {id: all, match: {kind: pf}, source: the lab}
`
	if err := g.Push(ctx, "/etc/lab-errors.yaml", []byte(profile), 0o644); err != nil {
		t.Fatalf("step %q: %v", "push the profile", err)
	}
	r := judged(t, ctx, g, "pcie.errors --intent baremetal-gpudirect --profile /etc/lab-errors.yaml")
	tried, held := 0, 0
	for bdf, want := range map[string]string{
		"0000:00:08.0": "pass none", "0000:40:00.0": "pass none; correctable: RxErr 1", "0000:03:00.0": "pass none; correctable: BadDLLP 1",
		"0000:04:00.0": "pass none; correctable: BadTLP 2", "0000:04:01.0": "fail fatal: none; non-fatal: CmpltTO 1, UnsupReq 1",
	} {
		tried++
		i := slices.IndexFunc(r, func(f finding) bool { return strings.HasPrefix(f.Subject, bdf+" ") })
		if i < 0 || r[i].Status+" "+r[i].Got != want {
			t.Errorf("pcie.errors of %s: %+v, want %q", bdf, r, want)
			continue
		}
		held++
	}
	count("facts", "pcie.errors of errors that QEMU made", tried, held, time.Since(began))
}

// wantSystem asks the kernel's log, sysctl, lscpu and systemd-detect-virt.
func wantSystem(t *testing.T, ctx context.Context, g *lab.Guest) any {
	const huge = "/sys/kernel/mm/transparent_hugepage/"
	chosen := func(file string) string { return cutBetween(says(t, ctx, g, "cat "+huge+file), "[", "]") }
	log := must(t, ctx, g, "the kernel's log", "journalctl -k -b -o cat --no-pager")
	clock := ""
	for line := range strings.Lines(log) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "clocksource: Switched to clocksource "); ok {
			clock = name
		}
	}
	const unstable = "tsc: Marking TSC unstable due to "
	line := ""
	if _, why, ok := strings.Cut(log, unstable); ok {
		why, _, _ = strings.Cut(why, "\n")
		line = unstable + why
	}
	if clock == "" || strings.Contains(log, "swiotlb buffer is full") {
		t.Fatalf("the kernel's log is not as this test wants it: the clock is %q", clock)
	}
	if cpu := lscpu(t, ctx, g); cpu["CPU max MHz"] != "" {
		t.Fatalf("a driver sets the CPUs' frequency in the guest: %v", cpu)
	}
	detected := func(what string) string {
		return strings.TrimPrefix(says(t, ctx, g, "systemd-detect-virt "+what+" || true"), "none")
	}
	return jsonObject{
		"thp": chosen("enabled"), "thp_defrag": chosen("defrag"), "numa_balancing": numberIn(t, says(t, ctx, g, "sysctl -n kernel.numa_balancing")),
		"clocksource": clock, "clocksources": wordList(strings.Fields(says(t, ctx, g, "cat /sys/devices/system/clocksource/clocksource0/available_clocksource"))),
		"unstable_tsc": line, "frequency": jsonList{}, "confidential": detected("--cvm"), "bounce_full": "", "container": detected("--container"),
	}
}

// lockers are services that start containers and jobs, each with its limit in
// another place, and users with limits of their own. The programs only sleep.
const lockers = `set -e
mkdir -p /usr/local/lib/lab /etc/systemd/system/containerd.service.d /etc/systemd/system.conf.d
for p in containerd slurmd dockerd; do cp /bin/sleep /usr/local/lib/lab/$p; done
unit() { printf '[Service]\nExecStart=/usr/local/lib/lab/%s 3600\n%s\n[Install]\nWantedBy=multi-user.target\n' "$2" "$3"; }
unit containerd containerd LimitMEMLOCK=64K > /etc/systemd/system/containerd.service
printf '[Service]\nLimitMEMLOCK=1M:2G\n' > /etc/systemd/system/containerd.service.d/rdma.conf
unit slurmd slurmd LimitMEMLOCK=infinity > /usr/lib/systemd/system/slurmd.service
unit docker dockerd > /etc/systemd/system/docker.service
printf '[Manager]\nDefaultLimitMEMLOCK=256M\n' > /etc/systemd/system.conf.d/lab.conf
printf '# a comment\nnobody soft memlock 1024\nnobody\thard memlock 4096\n* - memlock 512\nroot - nofile 1024\n' > /etc/security/limits.d/90-lab.conf
systemctl daemon-reload
systemctl start containerd slurmd`

const unlock = `systemctl stop containerd slurmd; rm -r /usr/local/lib/lab /etc/systemd/system/containerd.service* /usr/lib/systemd/system/slurmd.service
	rm -r /etc/systemd/system/docker.service /etc/systemd/system.conf.d /etc/security/limits.d/90-lab.conf; systemctl daemon-reload`

// wantMemlock asks systemd, prlimit, and a shell of each user.
func wantMemlock(t *testing.T, ctx context.Context, g *lab.Guest) any {
	must(t, ctx, g, "make services and limits", lockers)
	t.Cleanup(func() { must(t, ctx, g, "remove services and limits", unlock) })
	bytes := func(s string) int {
		if s == "infinity" || s == "unlimited" {
			return -1
		}
		return numberIn(t, s)
	}
	services := jsonList{}
	for _, s := range []struct{ unit, comm, from string }{
		{"containerd.service", "containerd", "/etc/systemd/system/containerd.service.d/rdma.conf:2"},
		{"docker.service", "dockerd", "/etc/systemd/system.conf.d/lab.conf:2"},
		{"slurmd.service", "slurmd", "/usr/lib/systemd/system/slurmd.service:3"},
	} {
		said := map[string]string{}
		for line := range strings.Lines(must(t, ctx, g, "systemctl show", "systemctl show "+s.unit+" -p FragmentPath,ActiveState,MainPID,LimitMEMLOCK,LimitMEMLOCKSoft")) {
			key, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			said[key] = v
		}
		l := jsonObject{
			"unit": s.unit, "file": said["FragmentPath"], "active": said["ActiveState"] == "active", "from": s.from, "running": nil,
			"configured": jsonObject{"soft": bytes(said["LimitMEMLOCKSoft"]), "hard": bytes(said["LimitMEMLOCK"])},
		}
		if said["ActiveState"] == "active" {
			w := strings.Fields(says(t, ctx, g, "prlimit --pid "+said["MainPID"]+" --memlock --noheadings --raw -o SOFT,HARD"))
			l["running"] = jsonObject{"pid": numberIn(t, said["MainPID"]), "comm": s.comm, "soft": bytes(w[0]), "hard": bytes(w[1])}
		}
		services = append(services, l)
	}
	// in KiB, soft and hard, of a user with limits and of one without
	limits := func(user string) (soft, hard int) {
		w := strings.Fields(says(t, ctx, g, "su -s /bin/sh "+user+" -c 'ulimit -S -l; ulimit -H -l'"))
		return bytes(w[0]) << 10, bytes(w[1]) << 10
	}
	soft, hard := limits("nobody")
	all, same := limits("daemon")
	if all != same || soft == all || hard == all {
		t.Fatalf("the users' limits are not as they were set: %d and %d, %d and %d", soft, hard, all, same)
	}
	const file = "/etc/security/limits.d/90-lab.conf"
	rule := func(domain, kind string, limit, line int) jsonObject {
		return jsonObject{"domain": domain, "type": kind, "limit": limit, "from": fmt.Sprintf("%s:%d", file, line)}
	}
	return jsonObject{
		"services": services, "login_files": wordList(strings.Fields(says(t, ctx, g, "ls /etc/security/limits.conf; ls /etc/security/limits.d/*.conf"))),
		"logins": jsonList{rule("nobody", "soft", soft, 2), rule("nobody", "hard", hard, 3), rule("*", "-", all, 4)},
	}
}
