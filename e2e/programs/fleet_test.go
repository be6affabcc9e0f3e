// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFleet: what clush and pdsh collect is merged, labels or not; the lists of
// hosts are those that ClusterShell writes and Slurm reads; jq reads the merge.
func TestFleet(t *testing.T) {
	ctx := limit(t, 5*time.Minute)
	r := rooms(t, ctx, "admin")[0]
	push(t, ctx, r, "/tmp/slurm.conf", "ClusterName=c\nSlurmctldHost=admin\nNodeName=admin\nPartitionName=p Nodes=ALL\n", 0o644)
	const scontrol = "SLURM_CONF=/tmp/slurm.conf scontrol "
	t.Log(must(t, ctx, r, "versions", "clush --version; pdsh -V | head -1; jq --version; "+scontrol+"--version"))
	names := "n08 n09 n10 n11 n20 login n1-4 n1-5"
	for name := range strings.FieldsSeq(names) {
		host := "rdma-intel"
		if name == "n10" || name == "n11" || name == "n20" {
			host = "rdma-intel-sick"
		}
		plant(t, ctx, r, host, "/srv/"+name)
		must(t, ctx, r, "its own name and boot", "echo "+name+" | tee /srv/"+name+"/proc/sys/kernel/hostname >/srv/"+name+"/etc/hostname; "+
			"cat /proc/sys/kernel/random/uuid >/srv/"+name+"/proc/sys/kernel/random/boot_id")
	}
	list := strings.ReplaceAll(names, " ", ",")

	clush := "clush -w " + list + " -R exec -f 2 "
	must(t, ctx, r, "clush collects, a name before each line", clush+"hostcheck --root /srv/%h -f jsonl >/tmp/clush.jsonl")
	res := exits(t, ctx, r, "a report of what clush collected", 1, "hostcheck fleet report /tmp/clush.jsonl")
	if !strings.Contains(res.Out, "NOT FIT   3 failing · 5 compliant") && !strings.Contains(res.Out, "NOT FIT   3 failing | 5 compliant") {
		t.Errorf("the verdict is another one:\n%s", res.Out)
	}
	exits(t, ctx, r, "pdsh without names, straight from its pipe", 1, "pdsh -N -R exec -w "+list+" hostcheck --root /srv/%h -f jsonl | hostcheck fleet merge - -o /tmp/pdsh.json")
	exits(t, ctx, r, "clush, as a merge", 1, "hostcheck fleet merge /tmp/clush.jsonl -o /tmp/clush.json")
	must(t, ctx, r, "both merges are the same", "cmp /tmp/clush.json /tmp/pdsh.json")

	// a host that does not answer, and clush that is stopped in the middle of a line
	exits(t, ctx, r, "a host that fails to answer is no host", 3, "clush -w n08,gone -R exec hostcheck --root /srv/%h -f jsonl 2>&1 | hostcheck fleet report -")
	exits(t, ctx, r, "a collection that was cut off", 3, "head -c 300000 /tmp/clush.jsonl | grep -v -e n10: -e n11: -e n20: | head -c 150000 | hostcheck fleet report -")

	folded := strings.TrimSpace(must(t, ctx, r, "jq reads the hosts that fail", `jq -r '.clusters[] | select(.verdict == "failing") | .hosts' /tmp/clush.json`))
	if folded != "n[10-11,20]" {
		t.Errorf("the hosts that fail are %q", folded)
	}
	if got := strings.Fields(must(t, ctx, r, "Slurm reads the list", scontrol+"show hostnames '"+folded+"'")); strings.Join(got, " ") != "n10 n11 n20" {
		t.Errorf("Slurm reads %q as %q", folded, got)
	}
	must(t, ctx, r, "a merge of all as one list", `jq -r '[.clusters[].hosts] | join(",")' /tmp/clush.json >/tmp/list`)
	got := strings.Fields(must(t, ctx, r, "ClusterShell reads it as the same hosts", "nodeset -e $(cat /tmp/list)"))
	want := strings.Fields(names)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("ClusterShell reads %q", got)
	}

	// what changed since: one host is mended
	must(t, ctx, r, "n20 is mended", "rm -rf /srv/n20; cp -a /srv/n08 /srv/n20; echo n20 | tee /srv/n20/proc/sys/kernel/hostname >/srv/n20/etc/hostname")
	out := must(t, ctx, r, "since the merge before", clush+"hostcheck --root /srv/%h -f jsonl | hostcheck fleet merge --since /tmp/clush.json - | jq -r '.changed[] | [.check, .before, .after, .hosts] | join(\" \")'")
	if !strings.Contains(out, "link.speed fail pass n20\n") {
		t.Errorf("the change is not said:\n%s", out)
	}
}
