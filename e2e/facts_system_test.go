// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// wantKernel asks uname, dpkg, getconf, lscpu and systemd-detect-virt.
func wantKernel(t *testing.T, ctx context.Context, g *lab.Guest) any {
	release := says(t, ctx, g, "uname -r")
	config := jsonObject{}
	for line := range strings.Lines(must(t, ctx, g, "the kernel's configuration", "cat /boot/config-"+release)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			config[name] = strings.Trim(v, `"`)
		}
	}
	cpu := lscpu(t, ctx, g)
	flags := []string{}
	for _, f := range []string{"lm", "pse", "pdpe1gb", "hypervisor", "vmx", "svm", "sme", "sev", "tdx_guest"} {
		if slices.Contains(strings.Fields(cpu["Flags"]), f) {
			flags = append(flags, f)
		}
	}
	hypervisor := says(t, ctx, g, "systemd-detect-virt")
	if hypervisor == "qemu" { // its name for KVM's machine without KVM
		hypervisor = "kvm"
	}
	return jsonObject{
		"release": release, "arch": says(t, ctx, g, "dpkg --print-architecture"), "page_size": numberIn(t, says(t, ctx, g, "getconf PAGESIZE")),
		"config": config, "config_source": "/boot/config-" + release,
		"lockdown":   cutBetween(says(t, ctx, g, "cat /sys/kernel/security/lockdown"), "[", "]"),
		"taint":      64, // as it was written
		"cpu_vendor": cpu["Vendor ID"], "cpu_flags": wordList(flags), "hypervisor": hypervisor,
	}
}

func lscpu(t *testing.T, ctx context.Context, g *lab.Guest) map[string]string {
	said := map[string]string{}
	for line := range strings.Lines(must(t, ctx, g, "lscpu", "lscpu")) {
		name, v, _ := strings.Cut(line, ":")
		said[name] = strings.TrimSpace(v)
	}
	return said
}

// wantCmdline is what the running kernel made of its command line: it tells
// in its log and in sysfs.
func wantCmdline(t *testing.T, ctx context.Context, g *lab.Guest) any {
	text := says(t, ctx, g, "cat /proc/cmdline")
	if strings.ContainsAny(text, `"'`) || strings.Contains(text, " -- ") {
		t.Fatalf("the guest's command line is too hard for this test: %s", text)
	}
	tokens := jsonList{}
	for _, w := range strings.Fields(text) {
		name, v, has := strings.Cut(w, "=")
		token := jsonObject{"name": name, "value": nil, "raw": w}
		if has {
			token["value"] = v
		}
		tokens = append(tokens, token)
	}
	log := must(t, ctx, g, "the kernel's log", "journalctl -k -b -o cat --no-pager")
	if !strings.Contains(log, "Linux version ") {
		t.Fatalf("the journal does not hold the kernel's first words")
	}
	none := func(s string) string {
		if s == "(null)" || s == "(none)." {
			return ""
		}
		return strings.TrimSuffix(s, ".")
	}
	kind := says(t, ctx, g, "sort -u /sys/kernel/iommu_groups/*/type")
	if strings.Contains(kind, "\n") {
		t.Fatalf("the groups differ in their type: %q", kind)
	}
	on := says(t, ctx, g, "ls /sys/class/iommu") != ""
	effects := jsonObject{
		"hugepages":           bootPools(t, ctx, g),
		"default_hugepage_kb": numberIn(t, says(t, ctx, g, "awk '/^Hugepagesize:/ { print $2 }' /proc/meminfo")),
		"isolated":            says(t, ctx, g, "cat /sys/devices/system/cpu/isolated"),
		"managed_irq":         "",
		"nohz_full":           none(says(t, ctx, g, "cat /sys/devices/system/cpu/nohz_full")),
		"rcu_nocbs":           none(cutBetween(log, "Offload RCU callbacks from CPUs:", "\n")),
		"iommu": jsonObject{
			"disabled": !on, "enabled": on, "passthrough": strings.Contains(log, "iommu: Default domain type: Passthrough"),
			"default": kind, "strict": strings.Contains(log, "TLB invalidation policy: strict mode"),
		},
		"acs": "",
	}
	return jsonObject{
		"text": text, "tokens": tokens, "init_args": jsonList{}, "bootconfig": nil,
		"unknown_params": wordList(strings.Fields(cutBetween(log, `Unknown kernel command line parameters "`, `"`))),
		"effects":        effects, "problems": jsonList{},
	}
}

// bootPools is what the pools hold that the command line filled.
func bootPools(t *testing.T, ctx context.Context, g *lab.Guest) jsonList {
	pools := jsonList{}
	for _, p := range nodePools(t, ctx, g) {
		if p["total"] != 0 {
			pools = append(pools, jsonObject{"size_kb": p["size_kb"], "node": p["node"], "count": p["total"]})
		}
	}
	return pools
}

// wantCPUs asks lscpu and numactl.
func wantCPUs(t *testing.T, ctx context.Context, g *lab.Guest) any {
	var present, online, offline []int
	for line := range strings.Lines(must(t, ctx, g, "lscpu -a", "lscpu -a -p=CPU,ONLINE")) {
		var cpu int
		var on string
		if n, _ := fmt.Sscanf(strings.Replace(line, ",", " ", 1), "%d %s", &cpu, &on); n != 2 {
			continue
		}
		if present = append(present, cpu); on == "Y" {
			online = append(online, cpu)
		} else {
			offline = append(offline, cpu)
		}
	}
	nodes := jsonList{}
	for _, n := range numactl(t, ctx, g) {
		kb := numberIn(t, says(t, ctx, g, fmt.Sprintf("awk '/MemTotal:/ { print $4 }' /sys/devices/system/node/node%d/meminfo", n.node)))
		if kb>>10 != n.mib {
			t.Errorf("node %d: %d kB to the kernel, %d MB to numactl", n.node, kb, n.mib)
		}
		nodes = append(nodes, jsonObject{"node": n.node, "cpus": cpuList(n.cpus), "mem_kb": kb})
	}
	return jsonObject{
		"possible": says(t, ctx, g, "cat /sys/devices/system/cpu/possible"), "present": cpuList(present), "online": cpuList(online), "offline": cpuList(offline),
		"isolated": "", "nohz_full": "", "nodes": nodes,
	}
}

// cpuList writes CPUs as the kernel does.
func cpuList(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		last := i
		for last+1 < len(cpus) && cpus[last+1] == cpus[last]+1 {
			last++
		}
		if part := fmt.Sprint(cpus[i]); last > i {
			parts = append(parts, part+fmt.Sprintf("-%d", cpus[last]))
		} else {
			parts = append(parts, part)
		}
		i = last + 1
	}
	return strings.Join(parts, ",")
}

// memoryNode is what numactl -H tells of a node.
type memoryNode struct {
	node, mib int
	cpus      []int
	distances []int
}

func numactl(t *testing.T, ctx context.Context, g *lab.Guest) []memoryNode {
	var nodes []memoryNode
	matrix := false
	for line := range strings.Lines(must(t, ctx, g, "numactl -H", "numactl -H")) {
		w := strings.Fields(strings.ReplaceAll(line, ":", " "))
		switch {
		case len(w) > 2 && w[0] == "node" && w[2] == "cpus":
			n := memoryNode{node: numberIn(t, w[1])}
			for _, c := range w[3:] {
				n.cpus = append(n.cpus, numberIn(t, c))
			}
			nodes = append(nodes, n)
		case len(w) == 5 && w[0] == "node" && w[2] == "size":
			nodes[len(nodes)-1].mib = numberIn(t, w[3])
		case len(w) > 0 && w[0] == "node":
			matrix = matrix || w[1] == "distances"
		case matrix && len(w) == len(nodes)+1:
			for _, d := range w[1:] {
				n := &nodes[slices.IndexFunc(nodes, func(n memoryNode) bool { return n.node == numberIn(t, w[0]) })]
				n.distances = append(n.distances, numberIn(t, d))
			}
		}
	}
	if len(nodes) != 3 || len(nodes[2].distances) != 3 || len(nodes[2].cpus) != 0 {
		t.Fatalf("the guest has three nodes, the last without a CPU; numactl tells %+v", nodes)
	}
	return nodes
}

// wantNUMA asks numactl.
func wantNUMA(t *testing.T, ctx context.Context, g *lab.Guest) any {
	var nodes, cpus, memory []int
	distances, packages, alone := jsonList{}, jsonList{}, jsonList{}
	sockets := map[int]int{}
	for line := range strings.Lines(must(t, ctx, g, "lscpu", "lscpu -p=NODE,SOCKET | grep -v '^#'")) {
		node, socket, _ := strings.Cut(strings.TrimSpace(line), ",")
		sockets[numberIn(t, node)] = numberIn(t, socket)
	}
	normal := strings.Fields(must(t, ctx, g, "nodes of the kernel's own", "tr , '\\n' < /sys/devices/system/node/has_normal_memory | while IFS=- read -r a b; do seq $a ${b:-$a}; done"))
	for _, n := range numactl(t, ctx, g) {
		socket, has := sockets[n.node]
		if !has {
			socket = -1
		}
		packages = append(packages, socket)
		if len(n.cpus) == 0 {
			kb := func(sum string) int {
				return numberIn(t, strings.TrimSpace(must(t, ctx, g, "memory of the node", fmt.Sprintf(
					"awk '{ sub(\":\", \"\", $3); v[$3] = $4 } END { print %s }' /sys/devices/system/node/node%d/meminfo", sum, n.node))))
			}
			alone = append(alone, jsonObject{"node": n.node, "mem_kb": kb(`v["MemTotal"]`), "normal": slices.Contains(normal, strconv.Itoa(n.node)),
				"kernel_kb": near(kb(`v["Slab"] + v["KernelStack"] + v["PageTables"]`)), "cache_kb": near(kb(`v["FilePages"] - v["Shmem"]`))})
		}
		nodes = append(nodes, n.node)
		if len(n.cpus) > 0 {
			cpus = append(cpus, n.node)
		}
		if n.mib > 0 {
			memory = append(memory, n.node)
		}
		distances = append(distances, numberList(n.distances))
	}
	return jsonObject{"nodes": numberList(nodes), "with_cpus": numberList(cpus), "with_memory": numberList(memory), "distances": distances, "packages": packages, "memory_only": alone}
}

// nodePools is the pools by node and size.
func nodePools(t *testing.T, ctx context.Context, g *lab.Guest) []jsonObject {
	const read = `for n in 0 1 2; do for s in 2048 1048576; do
		d=/sys/devices/system/node/node$n/hugepages/hugepages-${s}kB
		echo $n $s $(cat $d/nr_hugepages $d/free_hugepages $d/surplus_hugepages)
	done; done`
	var pools []jsonObject
	for line := range strings.Lines(must(t, ctx, g, "the nodes' pools", read)) {
		w := strings.Fields(line)
		pools = append(pools, jsonObject{"node": numberIn(t, w[0]), "size_kb": numberIn(t, w[1]), "total": numberIn(t, w[2]), "free": numberIn(t, w[3]), "surplus": numberIn(t, w[4])})
	}
	return pools
}

// wantHugepages reads the pools, and asks numastat and findmnt.
func wantHugepages(t *testing.T, ctx context.Context, g *lab.Guest) any {
	pools := jsonList{}
	mib := 0
	for _, p := range nodePools(t, ctx, g) {
		pools = append(pools, p)
		mib += p["total"].(int) * p["size_kb"].(int) >> 10
	}
	// in MB, node 0 to 2 and all of them: 6, 11 and 3 pages of 2 MB
	if w := strings.Fields(says(t, ctx, g, "numastat -m | grep HugePages_Total")); !slices.Equal(w[1:], []string{"12.00", "22.00", "6.00", "40.00"}) || mib != 40 {
		t.Fatalf("the pools are not as they were set: numastat has %q MB, sysfs %d", w, mib)
	}
	meminfo := map[string]int{}
	for line := range strings.Lines(must(t, ctx, g, "meminfo", "cat /proc/meminfo")) {
		w := strings.Fields(line)
		meminfo[strings.TrimSuffix(w[0], ":")] = numberIn(t, w[1])
	}
	var found struct {
		Filesystems []struct{ Target, Options string }
	}
	if err := json.Unmarshal([]byte(must(t, ctx, g, "findmnt", "findmnt -J -t hugetlbfs -o TARGET,OPTIONS")), &found); err != nil {
		t.Fatalf("step %q: %v", "findmnt", err)
	}
	if len(found.Filesystems) != 3 {
		t.Fatalf("findmnt has %d mounts of huge pages, and not 3", len(found.Filesystems))
	}
	mounts := jsonList{}
	for _, m := range found.Filesystems {
		mounts = append(mounts, jsonObject{"path": m.Target, "size_kb": numberIn(t, cutBetween(m.Options, "pagesize=", "M")) << 10})
	}
	global := jsonList{}
	for _, kb := range []int{2048, 1048576} {
		v := map[string]int{}
		for _, name := range []string{"nr", "free", "resv", "surplus", "nr_overcommit"} {
			v[name] = numberIn(t, says(t, ctx, g, fmt.Sprintf("cat /sys/kernel/mm/hugepages/hugepages-%dkB/%s_hugepages", kb, name)))
		}
		global = append(global, jsonObject{"size_kb": kb, "total": v["nr"], "free": v["free"], "reserved": v["resv"], "surplus": v["surplus"], "overcommit": v["nr_overcommit"]})
	}
	return jsonObject{
		"default_kb": meminfo["Hugepagesize"], "pools": pools, "global": global,
		"meminfo": jsonObject{"size_kb": meminfo["Hugepagesize"], "total": meminfo["HugePages_Total"], "free": meminfo["HugePages_Free"],
			"reserved": meminfo["HugePages_Rsvd"], "surplus": meminfo["HugePages_Surp"], "overcommit": reasoned{}},
		"mounts": mounts, "mem_total_kb": meminfo["MemTotal"], "hugetlb_kb": meminfo["Hugetlb"],
	}
}

// wantModules asks what each module shows of itself, in sysfs or in what the
// kernel's build kept of those built in.
func wantModules(t *testing.T, ctx context.Context, g *lab.Guest) any {
	const read = `cd /sys/module; for m in */initstate; do m=${m%/*}; echo "$m,$(cat $m/initstate),$(cat $m/taint),$(cat $m/version 2>/dev/null)"; done`
	states := map[string]string{"live": "Live", "coming": "Loading", "going": "Unloading"}
	// the version is told of the drivers that vendors build anew
	versioned := []string{"ib_core"}
	loaded := jsonList{}
	for line := range strings.Lines(must(t, ctx, g, "loaded modules", "export LC_ALL=C; "+read)) {
		w := strings.SplitN(strings.TrimSpace(line), ",", 4)
		m := jsonObject{"name": w[0], "state": states[w[1]], "taint": w[2]}
		if slices.Contains(versioned, w[0]) {
			m["version"] = w[3]
		}
		loaded = append(loaded, m)
	}
	if n := numberIn(t, says(t, ctx, g, "lsmod | sed 1d | wc -l")); n != len(loaded) {
		t.Errorf("lsmod has %d modules, /sys/module %d", n, len(loaded))
	}
	// not by modinfo, to which crc32 is an alias of another
	names := strings.Fields(must(t, ctx, g, "built-in modules", `tr '\0' '\n' < /lib/modules/$(uname -r)/modules.builtin.modinfo | sed -n 's/\.file=.*//p' | LC_ALL=C sort -u`))
	return jsonObject{"loaded": loaded, "built_in": wordList(names)}
}

// wantOwners makes a TuneD that is there and not active.
func wantOwners(t *testing.T, ctx context.Context, g *lab.Guest) any {
	if r, err := g.Run(ctx, "dpkg -s tuned saptune netplan.io network-manager cloud-init"); err != nil || strings.Contains(r.Out, "Status: install ok installed") {
		t.Fatalf("the guest is to have none of the programs that configure hosts: %v\n%s", err, r.Out)
	}
	must(t, ctx, g, "make a profile of TuneD", `mkdir -p /etc/tuned/lab; echo lab > /etc/tuned/active_profile
		printf '[main]\nsummary=lab\n\n[sysctl]\nnet.core.somaxconn=2048\n' > /etc/tuned/lab/tuned.conf`)
	t.Cleanup(func() { must(t, ctx, g, "remove TuneD's profile", "rm -r /etc/tuned") })
	return jsonList{jsonObject{
		"name": "TuneD", "detail": "lab", "source": "/etc/tuned/active_profile", "active": says(t, ctx, g, "systemctl is-active tuned || true") == "active",
		"holds": jsonList{jsonObject{"kind": "sysctl", "target": "", "name": "net.core.somaxconn", "value": "2048", "source": "/etc/tuned/lab/tuned.conf:5"}},
	}}
}

// sysctlFiles set parameters in every way that decides between them: order,
// directories, masks, globs, and sysctl.conf, which procps alone reads.
const sysctlFiles = `set -e
mkdir -p /etc/sysctl.d /run/sysctl.d /usr/local/lib/sysctl.d
printf 'net.core.rmem_max = 1000001\nnet.core.somaxconn=1001\n' > /etc/sysctl.d/10-lab.conf
printf '# a comment\nnet/core/rmem_max=1000002\nnet.ipv4.tcp_rmem = 4096\t87380  1000002\n' > /usr/lib/sysctl.d/50-lab.conf
printf 'net.core.wmem_max = 1000003\n' > /usr/lib/sysctl.d/60-lab.conf
ln -sf /dev/null /etc/sysctl.d/60-lab.conf
printf 'net.core.wmem_default = 1000004\n' > /usr/local/lib/sysctl.d/70-lab.conf
printf 'net.core.wmem_default = 1000005\n' > /run/sysctl.d/70-lab.conf
printf 'net.ipv4.conf.*.rp_filter = 2\nnet.ipv4.conf.all.rp_filter = 1\n' > /etc/sysctl.d/80-lab.conf
printf -- '-net.core.nothing = 1\n-net.ipv4.tcp_timestamps = 0\n' > /etc/sysctl.d/90-lab.conf
printf 'net.core.rmem_max = 1000006\nnet.core.netdev_max_backlog = 1006\n' > /etc/sysctl.conf
`

// sysctlStart gives parameters values that no file sets.
const sysctlStart = `sysctl -q -w net.core.rmem_max=999424 net.core.somaxconn=999 net.ipv4.tcp_rmem='4096 65536 999424' net.core.wmem_max=999424 \
	net.core.wmem_default=99840 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.tcp_timestamps=2 \
	net.core.netdev_max_backlog=999 net.core.rmem_default=99840 net.ipv4.tcp_wmem='4096 16384 999424'`

// sysctlFacts has the guest's own systemd-sysctl and sysctl --system apply the
// files: what they set is what hostcheck must have said that they would.
func sysctlFacts(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	must(t, ctx, g, "write sysctl.d", sysctlFiles)
	must(t, ctx, g, "set parameters otherwise", sysctlStart)
	facts, _ := factsOf(t, ctx, g, "", "sysctl").(jsonObject)
	keys, _ := facts["keys"].(jsonList)
	const least = 13
	if len(keys) < least {
		t.Fatalf("hostcheck has %d parameters, and not %d", len(keys), least)
	}
	var names []string
	for _, k := range keys {
		name, _ := k.(jsonObject)["name"].(string)
		names = append(names, name)
	}
	values := func() map[string]string {
		v := map[string]string{}
		for i, line := range strings.Split(says(t, ctx, g, "sysctl -n "+strings.Join(names, " ")), "\n") {
			v[names[i]] = strings.Join(strings.Fields(line), " ")
		}
		return v
	}
	before := values()
	must(t, ctx, g, "systemd-sysctl", "/usr/lib/systemd/systemd-sysctl")
	bySystemd := values()
	must(t, ctx, g, "set parameters otherwise", sysctlStart)
	if now := values(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Fatalf("the parameters do not go back: %v, %v", before, now)
	}
	must(t, ctx, g, "sysctl --system", "sysctl --system")
	byProcps := values()

	want := jsonObject{"boot": "systemd-sysctl", "files": wordList(sysctlOrder(t, ctx, g))}
	set := map[string]int{}
	var wanted jsonList
	for _, k := range keys {
		k, name := k.(jsonObject), k.(jsonObject)["name"].(string)
		w := jsonObject{"name": name, "running": before[name], "systemd": nil, "procps": nil}
		for who, after := range map[string]string{"systemd": bySystemd[name], "procps": byProcps[name]} {
			if after != before[name] {
				set[who]++
				w[who] = assigned(t, ctx, g, name, after, k[who])
			}
		}
		wanted = append(wanted, w)
	}
	want["keys"] = wanted
	// of the 13 parameters files set 7 in systemd's eyes; sysctl.conf one more
	if set["systemd"] != 7 || set["procps"] < 7 {
		t.Errorf("systemd-sysctl set %d parameters, sysctl --system %d: before %v, then %v and %v", set["systemd"], set["procps"], before, bySystemd, byProcps)
	}
	judgeFacts(t, "sysctl", facts, want, 60, began)
}

// assigned is an assignment of the value; its place is where hostcheck has it
// when that line of that file does hold the value.
func assigned(t *testing.T, ctx context.Context, g *lab.Guest, name, value string, got any) jsonObject {
	o, _ := got.(jsonObject)
	file, _ := o["file"].(string)
	line, _ := o["line"].(json.Number)
	w := jsonObject{"value": value, "file": o["file"], "line": o["line"]}
	text := says(t, ctx, g, fmt.Sprintf("sed -n '%sp' '%s'", line, file))
	key, v, _ := strings.Cut(text, "=")
	key = strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(key), "/", "."), "-")
	if strings.Join(strings.Fields(v), " ") != value {
		w["line"] = fmt.Sprintf("the line of %s with %s", name, value)
	}
	if key != name {
		w["glob"] = key
	}
	return w
}

// sysctlOrder is the files that systemd reads, by systemd.
func sysctlOrder(t *testing.T, ctx context.Context, g *lab.Guest) []string {
	var files []string
	for line := range strings.Lines(must(t, ctx, g, "cat-config", "systemd-analyze cat-config sysctl.d")) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), "# /"); ok && strings.HasSuffix(file, ".conf") && !strings.Contains(file, " ") {
			files = append(files, "/"+file)
		}
	}
	return files
}

// bootFacts compares the three truths of the command line with what a shell
// makes of the settings, what stands in the first entry of grub.cfg, and what
// runs. The rest of the area is what led there.
func bootFacts(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	raws := func(v any) (words []string) {
		list, ok := v.(jsonList)
		if !ok {
			t.Fatalf("%v is no list of tokens", v)
		}
		for _, token := range list {
			words = append(words, fmt.Sprint(token.(jsonObject)["raw"]))
		}
		return words
	}
	tried, held := 0, 0
	same := func(what string, got, want any) {
		t.Helper()
		tried++
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w || w == "[]" {
			t.Errorf("boot.%s: %s to hostcheck, %s to the guest's own tools", what, g, w)
			return
		}
		held++
	}
	entry := strings.Fields(says(t, ctx, g, `grep -m1 -oP '^\tlinux\t\K.*' /boot/grub/grub.cfg`))
	if len(entry) < 3 {
		t.Fatalf("the first entry of grub.cfg is %q", entry)
	}
	settings := strings.Fields(says(t, ctx, g, `. /etc/default/grub; for f in /etc/default/grub.d/*.cfg; do test -e "$f" && . "$f"; done; echo "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"`))
	b, ok := factsOf(t, ctx, g, "", "boot").(jsonObject)
	if !ok {
		t.Fatal("hostcheck has no facts of area boot")
	}
	same("loader", b["loader"], "grub-debian")
	same("config", b["config"], "/boot/grub/grub.cfg")
	same("live", raws(b["live"]), strings.Fields(says(t, ctx, g, "cat /proc/cmdline")))
	same("next_boot", raws(b["next_boot"]), entry[1:])
	same("configured", raws(b["configured"]), settings)
	e, _ := b["entry"].(jsonObject)
	same("entry.kernel", e["kernel"], entry[0])
	same("entry.line", e["line"], says(t, ctx, g, `grep -m1 -nP '^\tlinux\t' /boot/grub/grub.cfg | cut -d: -f1`))
	same("entry.title", e["title"], says(t, ctx, g, `grep -m1 -oP "^menuentry '\K[^']*" /boot/grub/grub.cfg`))
	same("once", b["once"], false)
	env, _ := b["environment"].(jsonObject)
	same("environment.path", env["path"], says(t, ctx, g, "ls /boot/grub/grubenv"))
	vars := says(t, ctx, g, "grub-editenv list | wc -l")
	same("environment.vars", len(env["vars"].(jsonObject)), vars)
	if d, _ := b["drift"].(jsonList); len(d) != 0 {
		t.Errorf("boot.drift: %v, and nothing was changed", d)
	}
	count("facts", "boot", tried, held, time.Since(began))
}
