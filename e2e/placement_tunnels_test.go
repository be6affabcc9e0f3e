// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// tunnelPort is the igb that becomes a ConnectX-7, which has a table of tunnel
// ports; the igb themselves have none.
const tunnelPort = "0000:02:00.0"

// tunnelsScript makes VXLAN interfaces of all kinds: bound to the NIC %s, led
// by a route to an igb, over IPv6, and one that is told each endpoint anew.
const tunnelsScript = `set -e
ip addr add 10.9.0.1/24 dev %[1]s
ip addr add 10.11.0.1/24 dev ` + nicNode1 + `
ip link add vx4789 type vxlan id 100 dstport 4789 dev %[1]s group 239.1.1.1 noudpcsum
ip link add vx8472 type vxlan id 101 dstport 8472 local 10.9.0.1 remote 10.9.0.2
ip link add vxroute type vxlan id 102 dstport 8472 remote 10.11.0.2
ip link add vxsix type vxlan id 103 dstport 4790 dev %[1]s remote 2001:db8:9::2 udp6zerocsumrx
ip link add vxgpe type vxlan gpe external dstport 4791
ip link add vxdown type vxlan id 104 dstport 5000 dev %[1]s
for i in vx4789 vx8472 vxroute vxsix vxgpe; do ip link set $i up; done
ethtool -K vx8472 gro off
while ip -6 addr | grep -q tentative; do sleep 0.2; done`

// tunnelsCarried binds the lab's NIC with a table of tunnel ports.
func tunnelsCarried(p placing) {
	t, ctx, g := p.t, p.ctx, p.g
	must(t, ctx, g, "make a place for the script", "mkdir -p "+devDir)
	if err := g.Push(ctx, devDir+"/bind", []byte(bindScript), 0o755); err != nil {
		t.Fatal(err)
	}
	nic := bind(t, ctx, g, "intree/mlx5_core.ko", tunnelPort)
	must(t, ctx, g, "make tunnels", fmt.Sprintf(tunnelsScript, nic.name))
	began := time.Now()
	judgeFacts(t, "vxlan", factsOf(t, ctx, g, "", "vxlan"), wantVXLAN(t, ctx, g), 110, began)
	must(t, ctx, g, "GRO as it was", "ethtool -K vx8472 gro on")
	const offload = "vxlan.offload"
	of := func(port int) string { return fmt.Sprintf("%s %s port %d", nic.bdf, nic.name, port) }
	p.turns("a port that the NIC was told", "ethtool --show-tunnels "+nic.name+" | grep -q 'port 8472, vxlan$'", offload, of(8472), "pass")
	if !testing.Short() {
		p.tableFills(nic)
	}
	p.turns("a port that it knows without", "ethtool --show-tunnels "+nic.name+" | grep -q 'port 4789, vxlan$'", offload, of(4789), "pass")
	p.turns("a NIC without a table", "! ethtool --show-tunnels "+nicNode1, offload, manaPort+" "+nicNode1+" port 8472", "skip: its driver has no table of tunnel ports")

	nic.set(t, ctx, g, "tunnels", "fail")
	again := "ip link set vxsix down && ip link set vxsix up"
	f := p.turns("the driver refuses a port", again, offload, of(4790), "fail: the kernel or the driver did not put it there")
	if !strings.HasPrefix(f.Next, "by hand: ip link set vxsix down, then up, asks again") {
		t.Errorf("what is to be done is not understood: %q", f.Next)
	}
	nic.set(t, ctx, g, "tunnels", "normal")
	p.turns("and takes it when asked again", again, offload, of(4790), "pass")
	if !testing.Short() {
		p.offloadsFixed(nic)
		p.deviceNode(nic)
	}
	countersRead(t, ctx, g)
}

// tableFills: there is room for seven ports, of which two are taken.
func (p placing) tableFills(nic port) {
	last := fmt.Sprintf("%s %s port 9006", nic.bdf, nic.name)
	p.turns("more ports than fit", fmt.Sprintf("for i in 1 2 3 4 5 6; do ip link add vxf$i type vxlan id 20$i dstport 900$i dev %s && ip link set vxf$i up || exit 1; done", nic.name),
		"vxlan.offload", last, "fail: its table is full (7)")
	p.turns("one of them goes", "ip link del vxf1", "vxlan.offload", last, "pass")
	must(p.t, p.ctx, p.g, "the rest of them", "for i in 2 3 4 5 6; do ip link del vxf$i; done")
}

// offloadsFixed switches what tunnels need of the NIC off, and has hostcheck
// switch it on.
func (p placing) offloadsFixed(nic port) {
	t, ctx, g := p.t, p.ctx, p.g
	began := time.Now()
	const checks = "vxlan.offload vxlan.segmentation vxlan.receive"
	features := []string{"rx-udp_tunnel-port-offload", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "rx-gro"}
	off := "ethtool -K " + nic.name
	for _, f := range features {
		off += " " + strings.ReplaceAll(f, "rx-gro", "gro") + " off"
	}
	state := "ethtool -k " + nic.name + "; ethtool -k vx8472; ethtool --show-tunnels " + nic.name
	must(t, ctx, g, "switch offloads off", off)
	start := must(t, ctx, g, "state before the fix", state)
	if strings.Contains(start, "port 8472") {
		t.Errorf("the NIC knows a port although it is to be told none: %s", start)
	}
	exits(t, ctx, g, "judge before the fix", 1, "hostcheck "+checks+placeFlags)
	f := applied(t, ctx, g, "fix", "hostcheck fix --yes --allow link --confirm=auto -f json "+checks+placeFlags)
	changes := 0
	for _, c := range f.Plan.Changes {
		if c.Kind == "ethtool" {
			changes++
		}
	}
	if changes != len(features) {
		t.Errorf("step %q: %d offloads, want %d: %+v", "fix", changes, len(features), f.Plan.Changes)
	}
	must(t, ctx, g, "judge after the fix", "hostcheck --fail-on warn "+checks+placeFlags)
	on := fmt.Sprintf("set -e; ethtool --show-tunnels %[1]s | grep -q 'port 8472, vxlan$'; ethtool -k %[1]s > /run/features; grep -qx 'generic-receive-offload: on' /run/features", nic.name)
	for _, feature := range features[:3] {
		on += "; grep -qx '" + feature + ": on' /run/features"
	}
	must(t, ctx, g, "ethtool agrees", on)
	undoAll(t, ctx, g, "undo", 1)
	held := 0
	if same(t, "undo", strings.Split(start, "\n"), strings.Split(must(t, ctx, g, "state after the undo", state), "\n")) {
		held = changes
	}
	count(placeScenario, "changes, undone", changes, held, time.Since(began))
	must(t, ctx, g, "switch offloads on", strings.ReplaceAll(off, " off", " on"))
}

// deviceNode puts a NIC for RDMA on nodes that are fit for it, and not.
func (p placing) deviceNode(nic port) {
	node := "/sys/bus/pci/devices/" + nic.bdf + "/numa_node"
	p.turns("a NIC without a node", "grep -qx -- -1 "+node, "numa.device_node", nic.bdf, "unknown: on which node it is is not known")
	p.turns("on the node with memory only", "echo 2 > "+node, "numa.device_node", nic.bdf, "fail: node2, which has no CPUs")
	p.turns("on a node with a CPU", "echo 1 > "+node, "numa.device_node", nic.bdf, "pass: node1")
}

// vxlanLink is an interface as "ip -j -d link" tells it.
type vxlanLink struct {
	Name  string   `json:"ifname"`
	Flags []string `json:"flags"`
	MTU   int      `json:"mtu"`
	Info  struct {
		Kind string `json:"info_kind"`
		Data struct {
			ID       int             `json:"id"`
			Link     string          `json:"link"`
			Port     int             `json:"port"`
			Local    string          `json:"local"`
			Remote   string          `json:"remote"`
			Remote6  string          `json:"remote6"`
			Group    string          `json:"group"`
			External bool            `json:"external"`
			GPE      json.RawMessage `json:"gpe"` // null where it is one
			Csum     bool            `json:"udp_csum"`
			ZeroTX   bool            `json:"udp_zero_csum6_tx"`
			ZeroRX   bool            `json:"udp_zero_csum6_rx"`
		} `json:"info_data"`
	} `json:"linkinfo"`
	Bus string `json:"parentbus"`
}

// wantVXLAN asks ip and ethtool.
func wantVXLAN(t *testing.T, ctx context.Context, g *lab.Guest) any {
	var all []vxlanLink
	fromJSON(t, must(t, ctx, g, "ip link", "ip -j -d link"), &all)
	mtu, physical := map[string]int{}, map[string]bool{}
	for _, l := range all {
		mtu[l.Name], physical[l.Name] = l.MTU, l.Bus == "pci"
	}
	var routed []string // physical interfaces that a route leads out of
	for _, family := range []string{"-4", "-6"} {
		var routes []struct {
			Dev string `json:"dev"`
		}
		fromJSON(t, must(t, ctx, g, "ip route", "ip "+family+" -j route show table main"), &routes)
		for _, r := range routes {
			if physical[r.Dev] && !slices.Contains(routed, r.Dev) {
				routed = append(routed, r.Dev)
			}
		}
	}
	slices.Sort(routed)
	devices, carry := jsonList{}, map[string]bool{}
	slices.SortFunc(all, func(a, b vxlanLink) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range all {
		v := l.Info.Data
		if l.Info.Kind != "vxlan" {
			continue
		}
		remote := cmp.Or(v.Remote, v.Remote6, v.Group)
		d := jsonObject{
			"name": l.Name, "up": slices.Contains(l.Flags, "UP"), "mtu": l.MTU, "vni": v.ID, "port": v.Port, "lower": v.Link, "local": v.Local,
			"remote": remote, "external": v.External, "gpe": v.GPE != nil, "underlay": reasoned{}, "underlay_mtu": reasoned{}, "nics": wordList(routed),
			"udp_csum": v.Csum, "udp6_zero_csum_tx": v.ZeroTX, "udp6_zero_csum_rx": v.ZeroRX,
			"rx_gro": pairsOf(must(t, ctx, g, "ethtool -k", "ethtool -k "+l.Name))["generic-receive-offload"] == "on",
		}
		out := v.Link
		if out == "" && remote != "" {
			out = cutBetween(says(t, ctx, g, "ip route get "+remote)+" ", " dev ", " ")
		}
		if out != "" {
			d["underlay"], d["underlay_mtu"], d["nics"] = out, mtu[out], jsonList{out}
		}
		for _, n := range d["nics"].(jsonList) {
			carry[n.(string)] = true
		}
		devices = append(devices, d)
	}
	if len(devices) != 6 || len(routed) < 2 {
		t.Fatalf("ip tells of %d VXLAN interfaces, and not 6; routes lead out of %q", len(devices), routed)
	}
	nics := jsonList{}
	for _, l := range all {
		if carry[l.Name] {
			nics = append(nics, carrierTold(t, ctx, g, l.Name))
		}
	}
	return jsonObject{"devices": devices, "nics": nics, "mlx4": nil}
}

var (
	tableSize  = regexp.MustCompile(`^Size: (\d+)$`)
	tableTypes = regexp.MustCompile(`^Types: (.*)$`)
	tableEntry = regexp.MustCompile(`^port (\d+), (\S+)$`)
)

// carrierTold is a NIC below tunnels as ethtool tells it.
func carrierTold(t *testing.T, ctx context.Context, g *lab.Guest, name string) jsonObject {
	info := pairsOf(must(t, ctx, g, "ethtool -i", "ethtool -i "+name))
	r, err := g.Run(ctx, "ethtool --show-tunnels "+name)
	if err != nil || r.Code != 0 && !strings.Contains(r.Err, "Operation not supported") {
		t.Fatalf("step %q: %v %+v", "ethtool --show-tunnels", err, r)
	}
	tables := jsonList{}
	for line := range strings.Lines(r.Out) {
		line = strings.TrimSpace(line)
		if m := tableSize.FindStringSubmatch(line); m != nil {
			tables = append(tables, jsonObject{"size": numberIn(t, m[1]), "types": jsonList{}, "entries": jsonList{}})
			continue
		}
		if len(tables) == 0 {
			continue
		}
		table := tables[len(tables)-1].(jsonObject)
		if m := tableTypes.FindStringSubmatch(line); m != nil && !strings.HasPrefix(m[1], "none") {
			table["types"] = wordList(strings.Split(m[1], ", "))
		}
		if m := tableEntry.FindStringSubmatch(line); m != nil {
			table["entries"] = append(table["entries"].(jsonList), jsonObject{"port": numberIn(t, m[1]), "type": m[2]})
		}
	}
	if r.Code == 0 && len(tables) != 2 {
		t.Fatalf("the tables of %s were not understood: %s", name, r.Out)
	}
	said := pairsOf(must(t, ctx, g, "ethtool -k", "ethtool -k "+name))
	features, fixed, missing := jsonObject{}, jsonList{}, false
	for _, f := range []struct {
		kernel, ethtool string
		judged          bool // without it tunnels cost more
	}{
		{"rx-checksum", "rx-checksumming", true}, {"rx-gro", "generic-receive-offload", true}, {"rx-gro-hw", "", false}, {"rx-udp-gro-forwarding", "", false},
		{"rx-udp_tunnel-port-offload", "", true}, {"tx-gso-partial", "", false}, {"tx-udp_tnl-csum-segmentation", "", true}, {"tx-udp_tnl-segmentation", "", true},
	} {
		v := said[cmp.Or(f.ethtool, f.kernel)]
		features[f.kernel] = strings.HasPrefix(v, "on")
		missing = missing || f.judged && strings.HasPrefix(v, "off")
		if strings.HasSuffix(v, "[fixed]") {
			fixed = append(fixed, f.kernel)
		}
	}
	n := jsonObject{"nic": name, "bdf": info["bus-info"], "driver": info["driver"], "tables": tables, "features": features, "fixed": nil}
	if missing { // who has all of them on is not asked
		n["fixed"] = fixed
	}
	return n
}

// countersRead compares the counters of a MANA with ethtool -S.
func countersRead(t *testing.T, ctx context.Context, g *lab.Guest) {
	began := time.Now()
	mana := bind(t, ctx, g, "mana.ko", mlx5Port)
	for i, name := range []string{"rx_coalesced_err", "rx_cqe_unknown_type", "tx_cq_err"} {
		mana.set(t, ctx, g, "stat", fmt.Sprintf("%s=%d", name, 7+i))
	}
	counted := regexp.MustCompile(`^(hc_.*|(rx|tx)_cqe_unknown_type|tx_cq_err|rx_coalesced_err|(rx|tx)_\d+_packets|tx_\d+_mana_map_err|rx_\d+_pkt_len0_err)$`)
	now := jsonObject{}
	for name, v := range pairsOf(must(t, ctx, g, "ethtool -S", "ethtool -S "+mana.name+" | sed 1d")) {
		if counted.MatchString(name) {
			now[name] = numberIn(t, v)
		}
	}
	if now["rx_coalesced_err"] != 7 || now["tx_cq_err"] != 9 {
		t.Fatalf("the counters are not as they were set: %v", now)
	}
	got, _ := factsOf(t, ctx, g, "", "counters").(jsonList)
	got = slices.DeleteFunc(got, func(o any) bool { // pages that interfaces receive into: TestRXFrag
		name, _ := o.(jsonObject)["object"].(string)
		return strings.HasPrefix(name, "pages ")
	})
	if len(got) != 1 {
		t.Fatalf("hostcheck counts %v", got)
	}
	o := got[0].(jsonObject)
	seconds := o["seconds"]
	judgeFacts(t, "counters", o, jsonObject{"object": "ethtool " + mana.name, "seconds": seconds, "first": now, "last": now}, 10, began)
	if v, err := seconds.(interface{ Float64() (float64, error) }).Float64(); err != nil || v < 0.9 {
		t.Errorf("the samples are %v s apart", seconds)
	}
}
