// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// slurmConf is that of a controller and three nodes without cgroups.
const slurmConf = `ClusterName=test
SlurmctldHost=ctl
SlurmUser=slurm
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=1
SlurmdDebug=debug2
NodeName=n[1-3] CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
HealthCheckProgram=/etc/slurm/hostcheck-health
HealthCheckInterval=2
HealthCheckNodeState=ANY
Prolog=/etc/slurm/hostcheck-prolog
Epilog=/etc/slurm/hostcheck-epilog
`

// judging narrows the checks to what a room has of its own.
const judging = "--only sysctl --drain-on medium"

const (
	sicken = "echo 0 >/proc/sys/net/ipv4/tcp_timestamps"
	heal   = "echo 1 >/proc/sys/net/ipv4/tcp_timestamps"
)

// withFlags is a program of packaging/slurm with flags of its own, which does
// nothing where a condition does not hold.
func withFlags(t *testing.T, name, flags, condition string) string {
	t.Helper()
	b := shipped(t, "slurm/"+name)
	text := strings.Replace(b, `"$@"`, flags, 1)
	text = strings.Replace(text, "\nexec ", "\n"+condition+" || exit 0\nexec ", 1)
	if strings.Count(text, flags+"\n") != 1 || !strings.Contains(text, condition) {
		t.Fatalf("%s is not as expected:\n%s", name, b)
	}
	return text
}

// slurm starts munge everywhere, slurmctld in the first room and slurmd in the
// others.
func slurm(t *testing.T, ctx context.Context, all []*lab.Room) {
	t.Helper()
	for _, r := range all {
		push(t, ctx, r, "/etc/slurm/slurm.conf", slurmConf, 0o644)
		push(t, ctx, r, "/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n", 0o644)
		push(t, ctx, r, "/etc/munge/munge.key", strings.Repeat("no secret here. ", 4), 0o400)
		push(t, ctx, r, "/etc/slurm/hostcheck-health", withFlags(t, "health", judging+" --settle 3s", "[ ! -e /run/pause ]"), 0o755)
		push(t, ctx, r, "/etc/slurm/hostcheck-prolog", withFlags(t, "prolog", "-o /run/prolog", "true"), 0o755)
		push(t, ctx, r, "/etc/slurm/hostcheck-epilog", withFlags(t, "epilog", judging+" -o /run/epilog", "[ -e /run/epilog ]"), 0o755)
		must(t, ctx, r, "directories", "install -d -o munge -g munge /run/munge && chown munge:munge /etc/munge/munge.key && "+
			"install -d -o slurm -g slurm /var/spool/slurmctld && install -d /var/spool/slurmd")
		start(t, ctx, r, "runuser -u munge -- munged --foreground", "/tmp/munged.log")
	}
	ctl, nodes := all[0], all[1:]
	until(t, ctx, ctl, "munge answers", "munge -n | unmunge >/dev/null")
	start(t, ctx, ctl, "runuser -u slurm -- slurmctld -D", "/tmp/slurmctld.log")
	until(t, ctx, ctl, "slurmctld answers", "scontrol ping | grep -q UP")
	for _, r := range nodes {
		start(t, ctx, r, "slurmd -D", "/tmp/slurmd.log")
	}
}

// TestSlurm: health, prolog and epilog on real Slurm.
func TestSlurm(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	all := rooms(t, ctx, "ctl", "n1", "n2", "n3")
	ctl, n1, n2, n3 := all[0], all[1], all[2], all[3]
	t.Log(strings.TrimSpace(must(t, ctx, ctl, "versions", "slurmctld -V; munged -V | head -n1")))
	// "drained hostcheck: ... [root]"
	state := func(node, want string) {
		t.Helper()
		until(t, ctx, ctl, node+" is "+want, `sinfo -h -N -n `+node+` -O 'StateLong:20,Reason:200,User:20' | grep -Eq '^`+want+`'`)
	}
	must(t, ctx, n1, "n1 is sick before slurmd starts", sicken)
	slurm(t, ctx, all)

	// the run before slurmd registers asks nothing and holds nothing up; a later one drains
	state("n1", "drained +hostcheck: sysctl.tcp_defaults: sysctl.tcp_defaults .*root")
	log := must(t, ctx, n1, "slurmd's log", "grep -A1 'health_check success' /tmp/slurmd.log")
	if !regexp.MustCompile(`(?s)^[^\n]*output:n1: not fit [^\n]*\nn1 in Slurm: not asked: slurmd was started \d+s ago and may not have registered`).MatchString(log) {
		t.Errorf("the first run says:\n%s", log)
	}
	state("n2", "idle")
	state("n3", "idle")

	// an administrator's drain stays, whatever the verdict
	must(t, ctx, ctl, "somebody drains n2", "scontrol update NodeName=n2 State=DRAIN Reason='disk on order'")
	must(t, ctx, n2, "n2 is sick too", sicken)
	until(t, ctx, n2, "which hostcheck leaves to them", "grep -q 'left as it is: drained by root: disk on order' /tmp/slurmd.log")

	// a job runs where the prolog finds a verdict that says fit
	must(t, ctx, ctl, "a job on n3", "[ $(srun -w n3 hostname) = n3 ]")
	if got := must(t, ctx, n3, "what the prolog said", "cat /run/prolog"); !regexp.MustCompile(`^n3: the job may start: fit, judged \d+s ago\n$`).MatchString(got) {
		t.Errorf("the prolog says %q", got)
	}

	// and not where it says that the host is not: between two health checks
	must(t, ctx, n3, "no health check for a while", "touch /run/pause && sleep 1")
	exits(t, ctx, n3, "n3 is sick, and Slurm does not know", 1, sicken+" && hostcheck slurm health --scontrol /nowhere "+judging)
	job := strings.TrimSpace(must(t, ctx, ctl, "a job for n3", "sbatch --parsable -w n3 -D /tmp -o /tmp/out --wrap hostname"))
	state("n3", "drained +Prolog error +slurm")
	until(t, ctx, ctl, "the job waits", "scontrol show job "+job+" | grep -q launch_failed_requeued_held")
	must(t, ctx, n3, "it did not run", "[ ! -e /tmp/out ] && grep -q 'the job must not start: not fit' /run/prolog")
	must(t, ctx, n3, "n3 is healed", heal+" && rm /run/pause")
	until(t, ctx, n3, "Slurm's own drain is not ours", "grep -q 'left as it is: drained by slurm: Prolog error' /tmp/slurmd.log")
	must(t, ctx, ctl, "somebody resumes n3 and the job", "scontrol update NodeName=n3 State=RESUME && scontrol release "+job)
	until(t, ctx, n3, "it runs", "grep -qx n3 /tmp/out")

	// healed: ours is resumed and takes jobs, theirs stays
	must(t, ctx, n1, "n1 is healed", heal)
	must(t, ctx, n2, "n2 is healed", heal)
	state("n1", "idle")
	must(t, ctx, ctl, "a job on n1", "[ $(srun -w n1 hostname) = n1 ]")
	until(t, ctx, n2, "n2 is fit", "hostcheck slurm prolog --unjudged refuse")
	state("n2", "drained +disk on order +root")

	// whole reports as one: srun mixes their lines, and says with -l whose is which
	must(t, ctx, ctl, "a report of many hosts", "srun -l -N2 -w n1,n3 sh -c 'hostcheck -f jsonl; true' >/tmp/all && hostcheck fleet merge - </tmp/all >/tmp/fleet.json; "+
		`jq -e '.summary.hosts == 2 and .summary.problems == 0 and .summary.lines == 2' /tmp/fleet.json >/dev/null && [ $(wc -l </tmp/all) -gt 20 ]`)

	// a job that leaves its host unfit
	must(t, ctx, n1, "n1 has an epilog", "touch /run/epilog /run/pause && sleep 1")
	must(t, ctx, ctl, "a job spoils n1", "srun -w n1 sh -c '"+sicken+"'")
	state("n1", "drained +Epilog error +slurm")
	must(t, ctx, n1, "the epilog said why", "grep -q 'n1: the node must not go on: not fit, judged 0s ago: sysctl.tcp_defaults' /run/epilog")

	// a controller that hangs holds nothing up for long, and the verdict is kept
	must(t, ctx, ctl, "slurmctld hangs", "pkill -STOP slurmctld")
	res := exits(t, ctx, n1, "Slurm cannot be told", 1, "hostcheck slurm health "+judging)
	if !strings.Contains(res.Err, "scontrol show") {
		t.Errorf("it says %q", res.Err)
	}
	exits(t, ctx, n1, "but prologs can", 1, "hostcheck slurm prolog")
	must(t, ctx, ctl, "slurmctld goes on", "pkill -CONT slurmctld")
}
