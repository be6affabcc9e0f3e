// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mlx5 is a host with one in-tree mlx5 interface and one of another driver.
const mlx5 = `whole: /sys
-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --
-- sys/bus/pci/devices/0000:02:00.0 -> ../../../devices/pci0000:00/0000:02:00.0 --
-- sys/devices/pci0000:00/0000:01:00.0/driver -> ../../../bus/pci/drivers/mlx5_core --
-- sys/devices/pci0000:00/0000:02:00.0/driver -> ../../../bus/pci/drivers/ice --
-- sys/devices/pci0000:00/0000:01:00.0/net/rail0/type --
1
-- sys/devices/pci0000:00/0000:01:00.0/net/rail0/device -> ../../../0000:01:00.0 --
-- sys/devices/pci0000:00/0000:02:00.0/net/eth1/type --
1
-- sys/devices/pci0000:00/0000:02:00.0/net/eth1/device -> ../../../0000:02:00.0 --
-- sys/class/net/rail0 -> ../../devices/pci0000:00/0000:01:00.0/net/rail0 --
-- sys/class/net/eth1 -> ../../devices/pci0000:00/0000:02:00.0/net/eth1 --
-- sys/class/infiniband/mlx5_0 -> ../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0 --
-- sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0/ports/1/link_layer --
Ethernet
-- query: ethtool rail0 pause --
{"autoneg": false, "rx": true, "tx": false}
-- query: ethtool eth1 pause [errno EOPNOTSUPP] --
-- query: dcb rail0 ieee --
{"dcbx": 9, "pfc": {"cap": 8, "enable": 40, "mbc": 0, "delay": 7},
 "ets": {"willing": 1, "cap": 8, "bw": [10, 0, 0, 50, 0, 0, 0, 40], "tsa": [2, 0, 0, 2, 0, 0, 255, 1], "prio_tc": [0, 1, 2, 3, 4, 5, 6, 7]},
 "app": [{"selector": 5, "priority": 3, "protocol": 26}, {"selector": 5, "priority": 4, "protocol": 26}, {"selector": 1, "priority": 2, "protocol": 0}]}
-- query: dcb eth1 ieee [errno EOPNOTSUPP] --
`

const ccParams = `-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params/np_cnp_dscp --
48
-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params/rp_ai_rate --
5
-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params/np_cnp_prio [errno EIO] --
-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params/other --
1
`

const ofed = `-- sys/class/net/rail0/qos/trust --
dscp
-- sys/class/net/rail0/ecn/roce_np/enable/0 --
0
-- sys/class/net/rail0/ecn/roce_np/cnp_dscp --
48
-- sys/class/net/rail0/ecn/roce_np/cnp_802p_prio --
6
-- sys/class/net/rail0/ecn/roce_rp/rpg_ai_rate --
5
-- sys/class/infiniband/mlx5_0/tc/1/traffic_class --
Global tclass=106
`

func enable(role string, on ...int) string {
	var b strings.Builder
	for i := range 8 {
		v := "0"
		if slices.Contains(on, i) {
			v = "1"
		}
		b.WriteString("-- sys/class/net/rail0/ecn/" + role + "/enable/" + string(rune('0'+i)) + " --\n" + v + "\n")
	}
	return b.String()
}

func TestDCB(t *testing.T) {
	d := treeOf(t, mlx5).DCB()
	n := d.Of("rail0")
	want := &DCBNIC{
		NIC: "rail0", BDF: "0000:01:00.0", DCBNL: DCBAnswered, Trust: ptr("dscp"),
		PFC: []int{3, 5}, PFCCap: ptr(8), PFCDelay: ptr(7),
		ETS: &ETS{
			Willing: true, TCs: 8, TSA: []string{"ets", "strict", "strict", "ets", "strict", "strict", "vendor", "cbs"},
			BW: []int{10, 0, 0, 50, 0, 0, 0, 40}, PrioTC: []int{0, 1, 2, 3, 4, 5, 6, 7},
		},
		App:  []DCBApp{{"dscp", 26, 3}, {"dscp", 26, 4}, {"ethertype", 0, 2}},
		DCBX: []string{"host", "ieee"}, Pause: &Pause{RX: true}, Unforced: true,
	}
	got := *n
	got.DCQCN, got.Unknown, got.Sources = DCQCN{}, nil, nil
	if diff := cmp.Diff(want, &got, cmp.AllowUnexported(DCQCN{})); diff != "" {
		t.Error(diff)
	}
	for dscp, want := range map[int]int{26: 4, 48: 6, 0: 0} {
		if got, _ := n.PriorityOf(dscp); got != want {
			t.Errorf("DSCP %d goes to priority %d, want %d", dscp, got, want)
		}
	}
	e := d.Of("eth1")
	if e.DCBNL != DCBAbsent || e.PFC != nil || e.Trust != nil || !strings.Contains(e.Unknown["pfc"], "no data center bridging") {
		t.Errorf("a driver without DCB: %+v", e)
	}
	if e.DCQCN.Source != DCBAbsent || !strings.Contains(e.DCQCN.Unknown["np"], "ice") {
		t.Errorf("a driver without DCQCN: %+v", e.DCQCN)
	}
	if d.Of("none") != nil {
		t.Error("an interface that is not there has an entry")
	}
}

// Absent, unreadable and off are three different things.
func TestDCQCN(t *testing.T) {
	tests := []struct {
		name, add string
		source    string
		np, rp    []int
		params    map[string]int
		why       map[string]string // part of the reason of a field
	}{
		{
			"in-tree driver: parameters only", ccParams, FromCCParams, nil, nil, map[string]int{"np_cnp_dscp": 48, "rp_ai_rate": 5},
			map[string]string{"np": "ROCE_CC_PRIO_MASK", "rp": "ROCE_CC_PRIO_MASK", "params.np_cnp_prio": "input/output error"},
		},
		{
			"not root", "-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params [errno EACCES] --\n", DCBUnknown, nil, nil, nil,
			map[string]string{"params": "needs root", "np": "ROCE_CC_PRIO_MASK"},
		},
		{
			"lockdown closes debugfs to root", "-- sys/kernel/security/lockdown --\nnone [integrity] confidentiality\n-- sys/kernel/debug/mlx5/0000:01:00.0/cc_params/np_cnp_dscp [errno EPERM] --\n",
			DCBUnknown, nil, nil, nil, map[string]string{"params": `lockdown is "integrity"`},
		},
		{"debugfs is not mounted", "-- sys/kernel/debug [dir] --\n", DCBUnknown, nil, nil, nil, map[string]string{"params": "not mounted"}},
		{
			"the firmware does not permit it", "-- sys/kernel/debug/mlx5/0000:01:00.0/commands/x --\n1\n", DCBAbsent, nil, nil, nil,
			map[string]string{"params": "cc_params: absent", "np": "ROCE_CC_PRIO_MASK"},
		},
		{
			"out-of-tree driver", ofed + enable("roce_np", 3) + enable("roce_rp", 3, 5), FromOFED, []int{3}, []int{3, 5},
			map[string]int{"np_cnp_dscp": 48, "np_cnp_prio": 6, "rp_ai_rate": 5}, nil,
		},
		{
			"out-of-tree driver, off", ofed + enable("roce_np") + enable("roce_rp"), FromOFED, []int{}, []int{},
			map[string]int{"np_cnp_dscp": 48, "np_cnp_prio": 6, "rp_ai_rate": 5}, nil,
		},
		{
			"one priority cannot be read", ofed + enable("roce_np", 3) + enable("roce_rp", 3) + "-- sys/class/net/rail0/ecn/roce_rp/enable/4 [errno EIO] --\n",
			FromOFED, []int{3}, nil, map[string]int{"np_cnp_dscp": 48, "np_cnp_prio": 6, "rp_ai_rate": 5}, map[string]string{"rp": "input/output error"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := treeOf(t, mlx5+tt.add).DCB().Of("rail0").DCQCN
			if d.Source != tt.source {
				t.Errorf("source %q, want %q", d.Source, tt.source)
			}
			for _, c := range []struct {
				name      string
				got, want any
			}{{"np", d.NP, tt.np}, {"rp", d.RP, tt.rp}, {"params", d.Params, tt.params}} {
				if diff := cmp.Diff(c.want, c.got); diff != "" {
					t.Errorf("%s: %s", c.name, diff)
				}
			}
			for field, part := range tt.why {
				if !strings.Contains(d.Unknown[field], part) {
					t.Errorf("%s is not known because %q, want %q", field, d.Unknown[field], part)
				}
			}
			if tt.why == nil && d.Unknown != nil {
				t.Errorf("not known: %v", d.Unknown)
			}
		})
	}
}

// A tree that nobody captured whole proves nothing by what it lacks.
func TestDCQCNNotCaptured(t *testing.T) {
	n := treeOf(t, strings.Replace(mlx5, "whole: /sys\n", "", 1)).DCB().Of("rail0")
	if n.DCQCN.Source != DCBUnknown || !strings.Contains(n.DCQCN.Unknown["np"], "may not have captured it") {
		t.Errorf("got %+v", n.DCQCN)
	}
	if n.TrafficClass != nil || n.Unforced {
		t.Errorf("traffic class %v, certainly none: %v", show(n.TrafficClass), n.Unforced)
	}
}

func TestTrustAndToS(t *testing.T) {
	n := treeOf(t, mlx5+ofed+enable("roce_np")+enable("roce_rp")+
		"-- sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos --\n26\n").DCB().Of("rail0")
	if show(n.TrafficClass) != 106 || show(n.DefaultToS) != 26 || n.Sources["trust"] != "/sys/class/net/rail0/qos/trust" {
		t.Errorf("traffic class %v, ToS %v, trust from %q", show(n.TrafficClass), show(n.DefaultToS), n.Sources["trust"])
	}
	n = treeOf(t, mlx5+"-- sys/class/net/rail0/qos/trust [errno EIO] --\n").DCB().Of("rail0")
	if n.Trust != nil || !strings.Contains(n.Unknown["trust"], "input/output error") {
		t.Errorf("trust is %v although its file cannot be read", show(n.Trust))
	}
	n = treeOf(t, strings.ReplaceAll(mlx5, `"selector": 5`, `"selector": 3`)).DCB().Of("rail0")
	if show(n.Trust) != "pcp" || n.Sources["trust"] != "dcb rail0 ieee" {
		t.Errorf("without a DSCP entry trust is %v", show(n.Trust))
	}
}

func TestParseTrafficClass(t *testing.T) {
	for in, want := range map[string]int{
		"Global tclass=106": 106, "Global tclass=106\nsrc_ip=1.2.3.4 tclass=5": 106, "Global tclass=0": 0,
		"": -1, "tclass=106": -1, "Global tclass=-1": -1, "Global tclass=256": -1, "Global tclass=1066": -1,
	} {
		got, ok := parseTrafficClass(in)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q gave %d, %v; want %d", in, got, ok, want)
		}
	}
}

func TestOFEDParamsAreParams(t *testing.T) {
	seen := map[string]bool{}
	for file, name := range ofedParams {
		if !ccParam(name) || seen[name] {
			t.Errorf("%s is called %s, which is no parameter or one twice", file, name)
		}
		seen[name] = true
	}
}

func FuzzParseTrafficClass(f *testing.F) {
	f.Add("Global tclass=106\n")
	f.Add("Global tclass=-1")
	f.Fuzz(func(t *testing.T, s string) {
		if v, ok := parseTrafficClass(s); ok && (v < 0 || v > 255) {
			t.Errorf("%q gave %d", s, v)
		}
	})
}
