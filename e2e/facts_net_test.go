// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// ipLink is an interface as "ip -j link" tells it.
type ipLink struct {
	Name      string   `json:"ifname"`
	Flags     []string `json:"flags"`
	MTU       int      `json:"mtu"`
	Master    string   `json:"master"`
	OperState string   `json:"operstate"`
	Type      string   `json:"link_type"`
	Address   string   `json:"address"`
	Bus       string   `json:"parentbus"`
	Parent    string   `json:"parentdev"`
}

func (l ipLink) has(flag string) bool { return slices.Contains(l.Flags, flag) }

// ipLinks gives the interfaces by name.
func ipLinks(t *testing.T, ctx context.Context, g *lab.Guest) []ipLink {
	var l []ipLink
	fromJSON(t, must(t, ctx, g, "ip link", "ip -j -d link"), &l)
	slices.SortFunc(l, func(a, b ipLink) int { return strings.Compare(a.Name, b.Name) })
	if len(l) != 18 { // lo, 5 NICs, 7 VFs, VLAN, bond, bridge, 2 veth
		t.Fatalf("ip knows %d interfaces, and not 18", len(l))
	}
	return l
}

func fromJSON(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("a tool's JSON was not understood: %v\n%.300s", err, text)
	}
}

// pairsOf reads "Name: value" lines into a map; those of a section are named
// "section/Name".
func pairsOf(text string, sections ...string) map[string]string {
	m := map[string]string{}
	section := ""
	for line := range strings.Lines(text) {
		name, v, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); slices.Contains(sections, name) {
			section = name + "/"
			continue
		}
		m[section+name] = strings.TrimSpace(v)
	}
	return m
}

// virtualNICs are the functions that lspci tells to be VFs, and every
// function's node.
func virtualNICs(t *testing.T, ctx context.Context, g *lab.Guest) (vfs map[string]bool, nodes map[string]any) {
	vfs, nodes = map[string]bool{}, map[string]any{}
	for _, p := range lspci(t, ctx, g, "") {
		for _, vf := range virtualFunctions(t, p) {
			vfs[vf] = true
		}
		nodes[p.bdf] = reasoned{}
		if v := p.fields["NUMANode"]; v != "" {
			nodes[p.bdf] = numberIn(t, v)
		}
	}
	return vfs, nodes
}

// wantNICs asks ip, ethtool and modinfo.
func wantNICs(t *testing.T, ctx context.Context, g *lab.Guest) any {
	vfs, nodes := virtualNICs(t, ctx, g)
	nics := jsonList{}
	for _, l := range ipLinks(t, ctx, g) {
		pci := l.Bus == "pci"
		n := jsonObject{
			"name": l.Name, "bdf": "", "driver": "", "flavour": "", "firmware": reasoned{}, "speed_mbps": reasoned{}, "mtu": l.MTU, "carrier": reasoned{},
			"operstate": strings.ToLower(l.OperState), "admin_up": l.has("UP"), "numa_node": reasoned{}, "master": l.Master,
			"type": map[string]int{"ether": 1, "loopback": 772}[l.Type], "mac": l.Address, "vf": vfs[l.Parent], "representor": false,
			"priv_flags": reasoned{}, "rings": reasoned{}, "channels": reasoned{}, "features": reasoned{}, "fec": reasoned{}, // of none of them: no driver here has it
		}
		if l.has("UP") {
			n["carrier"] = l.has("LOWER_UP")
			if speed := cutBetween(must(t, ctx, g, "ethtool", "ethtool "+l.Name), "Speed: ", "Mb/s"); speed != "" && !strings.Contains(speed, "\n") {
				n["speed_mbps"] = numberIn(t, speed)
			}
		}
		if pci {
			info := pairsOf(must(t, ctx, g, "ethtool -i", "ethtool -i "+l.Name))
			n["bdf"], n["driver"], n["numa_node"] = info["bus-info"], info["driver"], nodes[l.Parent]
			n["flavour"] = map[string]string{"Y": "in-tree", "": "out-of-tree"}[says(t, ctx, g, "modinfo -F intree "+info["driver"])]
			if info["bus-info"] != l.Parent {
				t.Errorf("%s stands on %s to ip, on %s to ethtool", l.Name, l.Parent, info["bus-info"])
			}
			if !vfs[l.Parent] {
				n["firmware"] = info["firmware-version"]
				asked(t, ctx, g, n)
			}
		}
		nics = append(nics, n)
	}
	changed(t, nics)
	return nics
}

// asked adds what ethtool tells of a physical NIC.
func asked(t *testing.T, ctx context.Context, g *lab.Guest, n jsonObject) {
	name := n["name"].(string)
	const most, now = "Pre-set maximums", "Current hardware settings"
	count := func(s string) int {
		if s == "n/a" {
			return 0
		}
		return numberIn(t, s)
	}
	rings := pairsOf(must(t, ctx, g, "ethtool -g", "ethtool -g "+name), most, now)
	n["rings"] = jsonObject{"rx": count(rings[now+"/RX"]), "tx": count(rings[now+"/TX"]), "rx_max": count(rings[most+"/RX"]), "tx_max": count(rings[most+"/TX"])}

	r, err := g.Run(ctx, "ethtool -l "+name)
	if err != nil {
		t.Fatalf("step %q: %v", "ethtool -l", err)
	}
	if r.Code == 0 { // else its driver has none
		c, all := pairsOf(r.Out, most, now), jsonObject{}
		for field, tag := range map[string]string{"rx": "RX", "tx": "TX", "combined": "Combined", "other": "Other"} {
			all[field], all[field+"_max"] = count(c[now+"/"+tag]), count(c[most+"/"+tag])
		}
		n["channels"] = all
	}
	flags := jsonObject{}
	for flag, v := range pairsOf(must(t, ctx, g, "ethtool --show-priv-flags", "ethtool --show-priv-flags "+name+" | sed 1d")) {
		flags[flag] = v == "on"
	}
	n["priv_flags"] = flags
	// the features under ethtool's old names, and those that are sums of others
	renamed := map[string]string{
		"rx-checksumming": "rx-checksum", "generic-segmentation-offload": "tx-generic-segmentation", "generic-receive-offload": "rx-gro",
		"large-receive-offload": "rx-lro", "rx-vlan-offload": "rx-vlan-hw-parse", "tx-vlan-offload": "tx-vlan-hw-insert",
		"ntuple-filters": "rx-ntuple-filter", "receive-hashing": "rx-hashing",
		"tx-checksumming": "", "scatter-gather": "", "tcp-segmentation-offload": "",
	}
	features := jsonObject{}
	for f, v := range pairsOf(must(t, ctx, g, "ethtool -k", "ethtool -k "+name+" | sed 1d")) {
		if to, has := renamed[f]; has {
			f = to
		}
		if f != "" {
			features[f] = strings.HasPrefix(v, "on")
		}
	}
	n["features"] = features
}

// changed makes sure that what was set otherwise is so to the guest's tools,
// too.
func changed(t *testing.T, nics jsonList) {
	physical := 0
	for _, n := range nics {
		n := n.(jsonObject)
		if _, asked := n["rings"].(jsonObject); asked {
			physical++
		}
		if n["name"] != nicNode1 {
			continue
		}
		rings, channels := n["rings"].(jsonObject), n["channels"].(jsonObject)
		if rings["rx"] != 512 || rings["tx"] != 1024 || channels["combined"] != 1 || n["features"].(jsonObject)["rx-gro"] != false ||
			n["priv_flags"].(jsonObject)["legacy-rx"] != true || n["numa_node"] != 1 {
			t.Fatalf("%s is not as it was set: %v", nicNode1, n)
		}
	}
	if physical != 5 {
		t.Fatalf("%d NICs were asked about, and not 5", physical)
	}
}

// wantRDMA asks rdma and ibv_devinfo.
func wantRDMA(t *testing.T, ctx context.Context, g *lab.Guest) any {
	var told []struct {
		Device string `json:"ifname"`
		Port   int    `json:"port"`
		Netdev string `json:"netdev"`
	}
	fromJSON(t, must(t, ctx, g, "rdma link", "rdma -j link"), &told)
	if len(told) != 2 {
		t.Fatalf("rdma knows %d links, and not 2", len(told))
	}
	var firmware []struct {
		Device   string `json:"ifname"`
		Firmware string `json:"fw"`
	}
	fromJSON(t, must(t, ctx, g, "rdma dev", "rdma -j dev"), &firmware)
	states := map[string]string{"PORT_ACTIVE": "ACTIVE", "PORT_DOWN": "DOWN", "LINK_UP": "LinkUp", "DISABLED": "Disabled", "POLLING": "Polling"}
	state := func(s string) string { // "PORT_ACTIVE (4)"
		word, n, _ := strings.Cut(s, " (")
		return strings.TrimSuffix(n, ")") + ": " + states[word]
	}
	devices := jsonList{}
	inUse := 0
	for _, d := range told {
		text := must(t, ctx, g, "ibv_devinfo", "ibv_devinfo -v -d "+d.Device)
		info := pairsOf(text)
		width, speed, generation := 0, 0.0, 0
		fmt.Sscanf(info["active_width"], "%dX", &width)
		fmt.Sscanf(info["active_speed"], "%f Gbps (%d)", &speed, &generation)
		gids := jsonList{}
		for line := range strings.Lines(text) {
			var i int
			line = strings.TrimSpace(line)
			if n, _ := fmt.Sscanf(line, "GID[%d]:", &i); n != 1 {
				continue
			}
			address, kind, _ := strings.Cut(strings.TrimSpace(line[strings.Index(line, "]:")+2:]), ", ")
			a, err := netip.ParseAddr(address)
			if err != nil {
				t.Fatalf("ibv_devinfo's output was not understood: %v", err)
			}
			ndev := says(t, ctx, g, fmt.Sprintf("cat /sys/class/infiniband/%s/ports/%d/gid_attrs/ndevs/%d", d.Device, d.Port, i))
			b := a.As16()
			parts := make([]string, 8)
			for w := range parts {
				parts[w] = fmt.Sprintf("%02x%02x", b[2*w], b[2*w+1])
			}
			gids = append(gids, jsonObject{"index": i, "gid": strings.Join(parts, ":"), "type": kind, "ndev": ndev})
		}
		inUse += len(gids)
		fw := ""
		for _, f := range firmware {
			if f.Device == d.Device {
				fw = f.Firmware
			}
		}
		rate := speed * float64(width)
		devices = append(devices, jsonObject{
			"device": d.Device, "bdf": "", "driver": "", "firmware": fw, "hca_type": reasoned{}, "netdev": d.Netdev, "vf": false,
			"ports": jsonList{jsonObject{
				"port": d.Port, "state": state(info["state"]), "phys_state": state(info["phys_state"]), "link_layer": info["link_layer"],
				"rate": fmt.Sprintf("%g Gb/sec (%dX %s)", rate, width, map[int]string{1: "SDR", 2: "DDR", 4: "QDR", 32: "EDR"}[generation]), "rate_gbps": rate,
				"netdev": d.Netdev, "gids": gids,
			}},
		})
	}
	// link-local, IPv4 and IPv6 of one interface, link-local and IPv4 of its VLAN
	if inUse < 5 {
		t.Fatalf("ibv_devinfo knows %d GIDs, and there are 5 at least", inUse)
	}
	return devices
}

// wantDCB asks dcb and ethtool -a.
func wantDCB(t *testing.T, ctx context.Context, g *lab.Guest) any {
	vfs, _ := virtualNICs(t, ctx, g)
	nics := jsonList{}
	for _, l := range ipLinks(t, ctx, g) {
		if l.Bus != "pci" || vfs[l.Parent] {
			continue
		}
		if r, err := g.Run(ctx, "dcb pfc show dev "+l.Name); err != nil || !strings.Contains(r.Err, "Operation not supported") {
			t.Fatalf("the drivers of the guest are to have no DCB: %v %+v", err, r)
		}
		pause := pairsOf(must(t, ctx, g, "ethtool -a", "ethtool -a "+l.Name))
		n := jsonObject{"nic": l.Name, "bdf": l.Parent, "dcbnl": "absent", "pause": jsonObject{"rx": pause["RX"] == "on", "tx": pause["TX"] == "on"}}
		for _, field := range []string{"trust", "pfc", "pfc_cap", "pfc_delay", "ets", "app", "dcbx", "traffic_class", "default_roce_tos"} {
			n[field] = reasoned{}
		}
		n["dcqcn"] = jsonObject{"source": "absent", "np": reasoned{}, "rp": reasoned{}, "params": reasoned{}}
		if nics = append(nics, n); l.Name == nicSwitch && (pause["RX"] != "on" || pause["TX"] != "off") {
			t.Fatalf("%s is not as it was set: %v", l.Name, pause)
		}
	}
	if len(nics) != 5 {
		t.Fatalf("there are %d NICs, and not 5", len(nics))
	}
	return nics
}
