// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// portOfSwitch is the root port, with ACS, that the switch is below.
const portOfSwitch = "0000:00:0b.0"

// pciTold is one function as lspci tells it.
type pciTold struct {
	bdf    string
	fields map[string]string // of "lspci -vmm -n -k", by its tags
	text   string            // of "lspci -vvv"
	bytes  int               // of configuration space that "lspci -xxxx" printed
	parent string            // of "lspci -PP"
}

// lspci asks it in four ways: for the bytes as another user perhaps.
func lspci(t *testing.T, ctx context.Context, g *lab.Guest, as string) []*pciTold {
	var told []*pciTold
	at := map[string]*pciTold{}
	for block := range strings.SplitSeq(says(t, ctx, g, "lspci -D -n -vmm -k"), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(block) {
			tag, v, _ := strings.Cut(line, ":")
			fields[tag] = strings.TrimSpace(v)
		}
		p := &pciTold{bdf: fields["Slot"], fields: fields}
		told, at[p.bdf] = append(told, p), p
	}
	for block := range strings.SplitSeq(says(t, ctx, g, "lspci -D -n -vvv"), "\n\n") {
		bdf, _, _ := strings.Cut(block, " ")
		at[bdf].text = block
	}
	bdf := ""
	for line := range strings.Lines(says(t, ctx, g, as+"lspci -D -n -xxxx")) {
		w := strings.Fields(line)
		switch {
		case len(w) == 0:
		case strings.HasSuffix(w[0], ":") && len(w) == 17: // "00: 86 80 …"
			at[bdf].bytes += len(w) - 1
		default:
			bdf = w[0]
		}
	}
	for line := range strings.Lines(says(t, ctx, g, "lspci -D -n -PP")) {
		where, _, _ := strings.Cut(line, " ") // "0000:00:0b.0/03:00.0/04:00.0/05:00.0"
		steps := strings.Split(where, "/")
		full := func(s string) string {
			if strings.Count(s, ":") == 1 {
				return steps[0][:5] + s
			}
			return s
		}
		if p := at[full(steps[len(steps)-1])]; len(steps) > 1 {
			p.parent = full(steps[len(steps)-2])
		}
	}
	const all = 30 // 18 of the machine, the 5 NICs, 7 VFs
	if len(told) != all {
		t.Fatalf("lspci sees %d functions, and not %d", len(told), all)
	}
	slices.SortFunc(told, func(a, b *pciTold) int { return strings.Compare(a.bdf, b.bdf) })
	return told
}

var (
	lspciExpress = regexp.MustCompile(`(?m)^\tCapabilities: \[[0-9a-f]+\] Express \(v\d\) ([^,\n]+?)(?: \(Slot[+-]\))?,`)
	lspciSizes   = regexp.MustCompile(`(?m)^\t+MaxPayload (\d+) bytes, MaxReadReq (\d+) bytes`)
	lspciLinkCap = regexp.MustCompile(`(?m)^\t+LnkCap:\t.*Speed ([\d.]+)GT/s, Width x([1-9]\d*)`)
	lspciLinkSta = regexp.MustCompile(`(?m)^\t+LnkSta:\tSpeed ([\d.]+)GT/s(?: \(\w+\))?, Width x(\d+)`)
	lspciVFs     = regexp.MustCompile(`Total VFs: (\d+), Number of VFs: (\d+)`)
	lspciVFPlace = regexp.MustCompile(`VF offset: (\d+), stride: (\d+)`)
	lspciACS     = regexp.MustCompile(`(?m)^\t+ACS(Cap|Ctl):\t(.*[+-])$`)
)

// virtualFunctions computes the addresses of a function's VFs from its
// SR-IOV capability, as the specification has it.
func virtualFunctions(t *testing.T, p *pciTold) []string {
	vfs, place := lspciVFs.FindStringSubmatch(p.text), lspciVFPlace.FindStringSubmatch(p.text)
	if vfs == nil || place == nil {
		return nil
	}
	id := func(s string, base int) int {
		n, err := strconv.ParseInt(s, base, 32)
		if err != nil {
			t.Fatalf("lspci's output was not understood: %v", err)
		}
		return int(n)
	}
	domain, bus, dev, fn := p.bdf[:4], id(p.bdf[5:7], 16), id(p.bdf[8:10], 16), id(p.bdf[11:], 10)
	var addresses []string
	for i := range id(vfs[2], 10) {
		rid := bus<<8 | dev<<3 | fn + id(place[1], 10) + i*id(place[2], 10)
		addresses = append(addresses, fmt.Sprintf("%s:%02x:%02x.%d", domain, rid>>8, rid>>3&31, rid&7))
	}
	return addresses
}

func wantPCI(t *testing.T, ctx context.Context, g *lab.Guest) any { return pciSeenBy(t, ctx, g, "") }

// pciSeenBy is what lspci tells; a user sees as much of configuration space as
// lspci run by that user.
func pciSeenBy(t *testing.T, ctx context.Context, g *lab.Guest, as string) any {
	told := lspci(t, ctx, g, as)
	physical := map[string]string{} // of each VF
	for _, p := range told {
		for _, vf := range virtualFunctions(t, p) {
			physical[vf] = p.bdf
		}
	}
	if len(physical) != 7 {
		t.Fatalf("lspci tells of %d VFs, and not 7", len(physical))
	}
	functions := jsonList{}
	for _, p := range told {
		f := jsonObject{
			"bdf": p.bdf, "vendor": p.fields["Vendor"], "device": p.fields["Device"], "subsystem_vendor": "0000", "subsystem_device": "0000",
			"class": p.fields["Class"] + "00", "driver": p.fields["Driver"], "numa_node": reasoned{}, "parent": p.parent,
			"physfn": physical[p.bdf], "vfs": wordList(virtualFunctions(t, p)), "num_vfs": nil, "total_vfs": nil,
			"link": jsonObject{"speed_gts": reasoned{}, "width": reasoned{}, "max_speed_gts": reasoned{}, "max_width": reasoned{}},
			"mps":  reasoned{}, "mrrs": reasoned{}, "config_bytes": p.bytes,
		}
		if v := p.fields["ProgIf"]; v != "" {
			f["class"] = p.fields["Class"] + v
		}
		if v := p.fields["SVendor"]; v != "" {
			f["subsystem_vendor"], f["subsystem_device"] = v, p.fields["SDevice"]
		}
		if v := p.fields["NUMANode"]; v != "" {
			f["numa_node"] = numberIn(t, v)
		}
		if m := lspciVFs.FindStringSubmatch(p.text); m != nil {
			f["num_vfs"] = numberIn(t, m[2])
			// a driver may offer less than the device: igb keeps one for itself
			total := numberIn(t, says(t, ctx, g, "cat /sys/bus/pci/devices/"+p.bdf+"/sriov_totalvfs"))
			if f["total_vfs"] = total; total > numberIn(t, m[1]) {
				t.Errorf("%s: %d VFs to the kernel, %s to lspci", p.bdf, total, m[1])
			}
		}
		if m := lspciSizes.FindStringSubmatch(p.text); m != nil && physical[p.bdf] == "" && p.bytes > 64 {
			f["mps"], f["mrrs"] = numberIn(t, m[1]), numberIn(t, m[2])
		}
		link := f["link"].(jsonObject)
		for re, names := range map[*regexp.Regexp][2]string{lspciLinkCap: {"max_speed_gts", "max_width"}, lspciLinkSta: {"speed_gts", "width"}} {
			m := re.FindStringSubmatch(p.text)
			if m == nil || m[2] == "0" {
				continue
			}
			speed, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatalf("lspci's output was not understood: %v", err)
			}
			link[names[0]], link[names[1]] = speed, numberIn(t, m[2])
		}
		functions = append(functions, f)
	}
	return functions
}

// wantACS is lspci's ACSCap and ACSCtl of each bridge.
func wantACS(t *testing.T, ctx context.Context, g *lab.Guest) any {
	ports := jsonList{}
	var with []string
	for _, p := range lspci(t, ctx, g, "") {
		registers := map[string]int{}
		for _, m := range lspciACS.FindAllStringSubmatch(p.text, -1) {
			for i, name := range []string{"SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans"} {
				switch {
				case strings.Contains(m[2], name+"+"):
					registers[m[1]] |= 1 << i
				case !strings.Contains(m[2], name+"-"):
					t.Fatalf("%s: lspci does not tell %s: %s", p.bdf, name, m[2])
				}
			}
			registers["told"]++
		}
		if p.fields["Class"] != "0604" && registers["told"] == 0 {
			continue
		}
		port := jsonObject{"bdf": p.bdf, "port_type": "", "cap": nil, "ctl": nil, "redirect": false, "quirk": ""}
		if m := lspciExpress.FindStringSubmatch(p.text); m != nil {
			port["port_type"] = m[1]
		}
		if registers["told"] == 2 {
			with = append(with, p.bdf)
			port["cap"], port["ctl"] = fmt.Sprintf("%04x", registers["Cap"]), fmt.Sprintf("%04x", registers["Ctl"])
			port["redirect"] = registers["Ctl"]&(1<<2|1<<3|1<<5) != 0
		}
		ports = append(ports, port)
	}
	if len(ports) != 8 || !slices.Equal(with, []string{"0000:00:08.0", portOfSwitch, "0000:40:00.0"}) {
		t.Fatalf("lspci tells ACS of %q among %d bridges", with, len(ports))
	}
	return ports
}

// wantIOMMU is lspci's groups, with the types that sysfs shows.
func wantIOMMU(t *testing.T, ctx context.Context, g *lab.Guest) any {
	members := map[int][]string{}
	group := map[string]int{}
	for _, p := range lspci(t, ctx, g, "") {
		n := numberIn(t, p.fields["IOMMUGroup"])
		members[n], group[p.bdf] = append(members[n], p.bdf), n
	}
	for _, together := range [][]string{
		{"0000:00:0c.0", "0000:07:01.0", "0000:07:02.0"},                                                                             // behind the bridge
		{"0000:00:0a.0", "0000:02:00.0"},                                                                                             // a port without ACS and its NIC
		{"0000:01:10.0"}, {"0000:01:10.2"}, {"0000:01:10.4"}, {"0000:01:10.6"}, {"0000:01:11.0"}, {"0000:01:11.2"}, {"0000:01:11.4"}, // each VF
	} {
		if got := members[group[together[0]]]; !slices.Equal(got, together) {
			t.Fatalf("the group of %s holds %q, and not %q", together[0], got, together)
		}
	}
	groups := jsonList{}
	for n := range len(members) {
		dir := fmt.Sprintf("/sys/kernel/iommu_groups/%d", n)
		direct := []string{}
		for line := range strings.Lines(must(t, ctx, g, "reserved regions", "cat "+dir+"/reserved_regions")) {
			if line = strings.TrimSpace(line); strings.HasSuffix(line, " direct") {
				direct = append(direct, line)
			}
		}
		groups = append(groups, jsonObject{"id": n, "type": says(t, ctx, g, "cat "+dir+"/type"), "devices": wordList(members[n]), "reserved": wordList(direct)})
	}
	units := strings.Fields(says(t, ctx, g, `journalctl -k -b -o cat --no-pager | sed -n 's/^DMAR: \(dmar[0-9]*\): reg_base_addr.*/\1/p'`))
	return jsonObject{"active": len(units) > 0, "units": wordList(units), "groups": groups}
}
