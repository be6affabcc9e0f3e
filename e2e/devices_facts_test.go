// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/lab"
)

// told is what "hostcheck facts" tells of NICs.
type told struct {
	NICs []facts.NIC        `json:"nics"`
	DCB  []facts.DCBNIC     `json:"dcb"`
	RDMA []facts.RDMADevice `json:"rdma"`
}

func (v *told) nic(name string) *facts.NIC {
	i := slices.IndexFunc(v.NICs, func(n facts.NIC) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &v.NICs[i]
}

// comparison counts values of hostcheck that the guest's own tools tell too.
type comparison struct {
	t           *testing.T
	port        string
	tried, held int
}

// equal compares what hostcheck tells with what a tool or a file tells.
func (c *comparison) equal(what string, hostcheck, tool any) {
	c.t.Helper()
	c.tried++
	if got, want := fmt.Sprint(deref(hostcheck)), fmt.Sprint(tool); got != want {
		c.t.Errorf("%s %s: hostcheck tells %q, the guest %q", c.port, what, got, want)
		return
	}
	c.held++
}

func deref(v any) any {
	switch p := v.(type) {
	case *int:
		if p != nil {
			return *p
		}
	case *string:
		if p != nil {
			return *p
		}
	case *bool:
		if p != nil {
			return *p
		}
	}
	return v
}

// kernelFeature has the names of the kernel for those that ethtool -k renames
// (ethtool, common.c, off_flag_def).
var kernelFeature = map[string]string{
	"rx-checksumming": "rx-checksum", "generic-receive-offload": "rx-gro", "generic-segmentation-offload": "tx-generic-segmentation",
	"large-receive-offload": "rx-lro", "rx-vlan-offload": "rx-vlan-hw-parse", "tx-vlan-offload": "tx-vlan-hw-insert",
	"ntuple-filters": "rx-ntuple-filter", "receive-hashing": "rx-hashing",
}

// together are lines of ethtool -k that sum up several features.
var together = []string{"tx-checksumming", "scatter-gather", "tcp-segmentation-offload"}

// sameFacts compares all that hostcheck tells of the ports with what ethtool,
// dcb and sysfs tell in the guest.
func sameFacts(t *testing.T, ctx context.Context, g *lab.Guest, flavour string, mlx5, mana port) {
	began := time.Now()
	must(t, ctx, g, "two virtual functions", fmt.Sprintf("set -e; cd /sys/bus/pci/devices/%s; echo 2 > sriov_numvfs; for v in virtfn*; do "+
		"bdf=$(basename $(readlink $v)); if [ -e $v/driver ]; then echo $bdf > $v/driver/unbind; fi; echo %s > $v/driver_override; echo $bdf > /sys/bus/pci/drivers/%[2]s/bind; done; udevadm settle", mlx5.bdf, mlx5.driver))
	must(t, ctx, g, "an RDMA device", "modprobe rdma_rxe && rdma link add lab0 type rxe netdev "+mlx5.name+" && udevadm settle")
	v := document[told](t, "facts", must(t, ctx, g, "facts", "hostcheck facts nics dcb rdma -f json"))
	c := &comparison{t: t}
	firmware, build := "28.39.1002 (MT_0000000838)", flavour
	c.identity(ctx, g, &v, mlx5, build, &firmware, 400000)
	c.ethtool(ctx, g, &v, mlx5)
	c.dcb(ctx, g, &v, mlx5, flavour)
	c.identity(ctx, g, &v, mana, "in-tree", nil, 200000)
	c.ethtool(ctx, g, &v, mana)
	vfs := 0
	for _, n := range v.NICs {
		if n.VF {
			vfs++
		}
	}
	c.port = mlx5.name
	c.equal("virtual functions", vfs, strings.TrimSpace(must(t, ctx, g, "virtual functions", "ls -d /sys/bus/pci/devices/"+mlx5.bdf+"/virtfn* | wc -l")))
	rdma := ""
	for _, d := range v.RDMA {
		rdma += fmt.Sprintf("%s on %s;", d.Device, deref(d.Netdev))
	}
	c.equal("RDMA", rdma, "lab0 on "+mlx5.name+";")
	must(t, ctx, g, "clean up", "rdma link delete lab0 && echo 0 > /sys/bus/pci/devices/"+mlx5.bdf+"/sriov_numvfs && udevadm settle")
	if c.tried < 180 {
		t.Errorf("only %d values were compared", c.tried)
	}
	count(devScenario, "facts of NICs that ethtool, dcb or sysfs tell too", c.tried, c.held, time.Since(began))
}

// identity compares driver, addresses, link and MTU.
func (c *comparison) identity(ctx context.Context, g *lab.Guest, v *told, p port, flavour string, firmware *string, speed int) {
	c.t.Helper()
	c.port = p.name
	n := v.nic(p.name)
	if n == nil {
		c.t.Fatalf("%s is not among the NICs", p.name)
	}
	c.equal("bdf", n.BDF, p.bdf)
	c.equal("driver", n.Driver, p.driver)
	c.equal("flavour", n.Flavour, flavour)
	c.equal("speed", n.SpeedMbps, speed)
	if firmware != nil {
		c.equal("firmware", n.Firmware, *firmware)
	}
	out := must(c.t, ctx, g, "sysfs of "+p.name, "cd /sys/class/net/"+p.name+" && cat speed mtu carrier operstate address device/numa_node && basename $(readlink device/driver) && ethtool -i "+p.name+" | sed -n 's/^firmware-version: //p'")
	f := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(f) != 8 {
		c.t.Fatalf("sysfs of %s: %q", p.name, out)
	}
	c.equal("speed", n.SpeedMbps, f[0])
	c.equal("MTU", n.MTU, f[1])
	c.equal("carrier", n.Carrier != nil && *n.Carrier, f[2] == "1")
	c.equal("operstate", n.OperState, f[3])
	c.equal("address", n.MAC, f[4])
	if f[5] == "-1" { // the firmware gave none
		f[5] = "<nil>"
	}
	c.equal("node", n.NUMANode, f[5])
	c.equal("driver", n.Driver, f[6])
	c.equal("firmware", n.Firmware, f[7])
}

// ethtool compares rings, channels, private flags and features.
func (c *comparison) ethtool(ctx context.Context, g *lab.Guest, v *told, p port) {
	c.t.Helper()
	n := v.nic(p.name)
	if n.Rings == nil || n.Channels == nil || n.PrivFlags == nil || n.Features == nil {
		c.t.Fatalf("%s: not all is told: %v", p.name, n.Unknown)
	}
	lines := p.state(c.t, ctx, g, "for facts")
	var numbers []string // of -g and -l, the maxima first
	flags, features := 0, 0
	for _, l := range lines {
		what, rest, _ := strings.Cut(strings.TrimPrefix(l, "ethtool "), " ")
		name, value, ok := strings.Cut(strings.TrimSpace(rest), ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || value == "":
		case what == "-g" && (name == "RX" || name == "TX"), what == "-l" && name == "Combined":
			numbers = append(numbers, value)
		case what == "--show-priv-flags":
			flags++
			c.equal("flag "+name, n.PrivFlags[name], value == "on")
		case what == "-k" && !slices.Contains(together, name):
			features++
			if k := kernelFeature[name]; k != "" {
				name = k
			}
			on, known := n.Features[name]
			c.equal("feature "+name, fmt.Sprint(on, known), fmt.Sprint(strings.HasPrefix(value, "on"), true))
		}
	}
	c.equal("number of flags", len(n.PrivFlags), flags)
	c.equal("number of features", len(n.Features), features)
	r, ch := n.Rings, n.Channels
	c.equal("rings and channels", []int{r.RXMax, r.TXMax, r.RX, r.TX, ch.CombinedMax, ch.Combined}, numbers)
}

var enabledFile = regexp.MustCompile(`^ecn/roce_(np|rp)/enable/(\d):1$`)

// dcb compares data center bridging, pause and congestion control.
func (c *comparison) dcb(ctx context.Context, g *lab.Guest, v *told, p port, flavour string) {
	c.t.Helper()
	i := slices.IndexFunc(v.DCB, func(d facts.DCBNIC) bool { return d.NIC == p.name })
	if i < 0 {
		c.t.Fatalf("%s has no data center bridging", p.name)
	}
	d := v.DCB[i]
	c.equal("pfc", d.PFC, "[]")
	c.equal("trust", d.Trust, "pcp")
	c.equal("source of DCQCN", d.DCQCN.Source, map[string]string{"ofed": facts.FromOFED, "in-tree": facts.FromCCParams}[flavour])
	on := map[string][]int{"np": {}, "rp": {}}
	params, pause := 0, []string{}
	for _, l := range p.state(c.t, ctx, g, "for dcb") {
		_, value, _ := strings.Cut(l, ":")
		switch f := strings.Fields(l); {
		case strings.HasPrefix(l, "dcb pfc pfc-cap"):
			c.equal("PFC classes and delay", fmt.Sprintf("%v %v", deref(d.PFCCap), deref(d.PFCDelay)), f[3]+" "+f[7])
		case strings.HasPrefix(l, "dcb dcbx"):
			c.equal("DCBX", strings.Join(d.DCBX, " "), strings.Join(f[2:], " "))
		case strings.HasPrefix(l, "dcb ets tc-tsa"):
			c.equal("ETS", d.ETS != nil && len(d.ETS.TSA) == len(f)-3, true)
		case strings.HasPrefix(l, "dcb ets prio-tc") && d.ETS != nil:
			for prio, tc := range d.ETS.PrioTC {
				c.equal(fmt.Sprintf("class of priority %d", prio), fmt.Sprintf("%d:%d", prio, tc), f[3+prio])
			}
		case strings.HasPrefix(l, "ethtool -a RX:"), strings.HasPrefix(l, "ethtool -a TX:"):
			pause = append(pause, f[len(f)-1])
		case strings.HasPrefix(l, "qos/trust:"):
			c.equal("trust", d.Trust, value)
		case enabledFile.MatchString(l):
			m := enabledFile.FindStringSubmatch(l)
			prio, _ := strconv.Atoi(m[2])
			on[m[1]] = append(on[m[1]], prio)
		case strings.HasPrefix(l, facts.DebugMLX5):
			name, value, _ := strings.Cut(path.Base(l), ":") // the path has colons too
			got, known := d.DCQCN.Params[name]
			if flavour == "ofed" && !known { // three of them have no file there
				continue
			}
			params++
			c.equal("parameter "+name, got, value)
		}
	}
	c.equal("number of parameters", len(d.DCQCN.Params), params)
	if d.Pause == nil {
		c.t.Fatalf("%s: pause is not told: %v", p.name, d.Unknown)
	}
	word := map[bool]string{true: "on", false: "off"}
	c.equal("pause", []string{word[d.Pause.RX], word[d.Pause.TX]}, pause)
	if flavour == "ofed" {
		c.equal("NP", d.DCQCN.NP, on["np"])
		c.equal("RP", d.DCQCN.RP, on["rp"])
	} else { // the in-tree driver does not tell, which is not "off"
		c.equal("NP and RP known", d.DCQCN.NP != nil || d.DCQCN.RP != nil, false)
	}
}
