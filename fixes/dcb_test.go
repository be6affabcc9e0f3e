// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// dcbMode is a recorded answer with a DCBX mode and some DSCP entries.
func dcbMode(mode uint8, apps ...host.DCBApp) host.DCB {
	return host.DCB{
		DCBX: &mode, PFC: &host.DCBPFC{Cap: 8, Delay: 7}, ETS: &host.DCBETS{Cap: 8, PrioTC: [8]uint8{0, 1, 2, 3, 4, 5, 6, 7}},
		Apps: append([]host.DCBApp{}, apps...),
	}
}

func dscp(code uint16, prio uint8) host.DCBApp {
	return host.DCBApp{Selector: host.DCBSelDSCP, Priority: prio, Protocol: code}
}

const (
	byHost     = host.DCBXHost | host.DCBXCEE | host.DCBXIEEE
	byFirmware = host.DCBXCEE | host.DCBXIEEE
)

// dcbHost is nicHost with data center bridging on ens1np0 and eno1.
func dcbHost(driver string, d host.DCB) map[string]string {
	a := nicAnswers("ens1np0")
	a[host.DCBKey("ens1np0")] = d
	a[host.DCBKey("eno1")] = d
	a[host.DCBKey("veth0")] = syscall.EOPNOTSUPP
	return with(nicHost(driver, 9000), map[string]string{
		"/.hostcheck/capture.json":                    a.String(),
		"/sys/class/net/ens1np0/carrier_down_count":   "0\n",
		"/sys/bus/pci/devices/0000:01:00.0/net/eno1/": "",
	})
}

// dcbKernel plays dcbnl and a driver over the recorded answers: mlx5's rules
// (net/dcb/dcbnl.c, en_dcbnl.c) or those of a driver that keeps the table to
// the kernel.
func dcbKernel(root string, mlx5 bool) func(string, host.DCBRequest) error {
	return func(ifname string, r host.DCBRequest) error {
		if b, err := r.Encode(ifname, 1); err != nil || len(b) == 0 {
			return fmt.Errorf("%w: %+v", err, r)
		}
		p := filepath.Join(root, host.CaptureFile)
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var c struct {
			Queries map[string]json.RawMessage `json:"queries"`
		}
		var all map[string]any
		if err := errors.Join(json.Unmarshal(b, &c), json.Unmarshal(b, &all)); err != nil {
			return err
		}
		var q struct{ Answer host.DCB }
		if err := json.Unmarshal(c.Queries[host.DCBKey(ifname)], &q); err != nil {
			return err
		}
		d := &q.Answer
		switch {
		case r.DCBX != nil && mlx5 && *r.DCBX == 0:
			*d.DCBX &^= host.DCBXHost
		case r.DCBX != nil && mlx5 && *r.DCBX&host.DCBXHost == 0, r.DCBX != nil && *r.DCBX&host.DCBXLLD != 0:
			return errors.New("the driver turned it down (it answers 1)")
		case r.DCBX != nil:
			*d.DCBX = *r.DCBX
		case *d.DCBX&host.DCBXHost == 0 && !mlx5:
			return syscall.EINVAL
		case r.PFC != nil:
			if r.PFC.Cap != d.PFC.Cap || r.PFC.Delay != d.PFC.Delay || r.PFC.MBC != d.PFC.MBC {
				return fmt.Errorf("what was not to change did: %+v", *r.PFC)
			}
			if r.PFC.Enable == d.PFC.Enable {
				return errors.New("written without a difference")
			}
			d.PFC = r.PFC
		}
		for _, a := range r.Add {
			if slices.Contains(d.Apps, a) {
				return syscall.EEXIST
			}
			if mlx5 {
				d.Apps = slices.DeleteFunc(d.Apps, func(o host.DCBApp) bool { return o.Selector == a.Selector && o.Protocol == a.Protocol })
			}
			d.Apps = append(d.Apps, a)
		}
		for _, a := range r.Del {
			n := len(d.Apps)
			if d.Apps = slices.DeleteFunc(d.Apps, func(o host.DCBApp) bool { return o == a }); len(d.Apps) == n {
				return syscall.ENOENT
			}
		}
		slices.SortFunc(d.Apps, func(a, b host.DCBApp) int {
			return cmp.Or(cmp.Compare(a.Selector, b.Selector), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Priority, b.Priority))
		})
		var plain any // the keys in one order, as when the tree was made
		if b, err = json.Marshal(d); err == nil {
			err = json.Unmarshal(b, &plain)
		}
		if err != nil {
			return err
		}
		all["queries"].(map[string]any)[host.DCBKey(ifname)] = map[string]any{"answer": plain}
		if b, err = json.Marshal(all); err != nil {
			return err
		}
		if err := os.WriteFile(p+".new", b, 0o644); err != nil {
			return err
		}
		return os.Rename(p+".new", p)
	}
}

func dcbEngine(mlx5 bool) func(root string) *plan.Engine {
	return func(root string) *plan.Engine {
		return &plan.Engine{
			Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Ethtool{Set: setAnswer(root)}, fixes.DCB{Send: dcbKernel(root, mlx5)}},
			Machine: &plan.Machine{Knob: plantest.Knob(root)},
		}
	}
}

func dcbWish(name, want string) plan.Wish {
	return plan.Wish{Setting: fixes.DCBSetting(nic, name), Want: want, Tier: plan.Link, Check: "dcqcn." + strings.Fields(name)[0]}
}

// dcbSays asks as a check does, and wants the mode, the PFC mask and the table.
func dcbSays(mode, pfc uint8, apps func([]host.DCBApp) bool) func(root string) error {
	return func(root string) error {
		h, err := host.Open(root, host.Options{})
		if err != nil {
			return err
		}
		defer h.Close()
		d, err := h.DCB("ens1np0")
		if err != nil {
			return err
		}
		if *d.DCBX != mode || d.PFC.Enable != pfc || !apps(d.Apps) {
			return fmt.Errorf("mode %d, PFC %d, table %v", *d.DCBX, d.PFC.Enable, d.Apps)
		}
		return nil
	}
}

// dcbSetup writes the answers as the fake driver does.
func dcbSetup(files map[string]string) func(testing.TB, string) { return nicSetup(files) }

func TestDCBLoop(t *testing.T) {
	iboe := host.DCBApp{Selector: host.DCBSelEthertype, Priority: 3, Protocol: 0x8915}
	for name, c := range map[string]struct {
		driver string
		before host.DCB
		wishes []plan.Wish
		holds  func(string) error
		plan   string
	}{
		"from nothing": {
			"mlx5_core", dcbMode(byFirmware),
			[]plan.Wish{dcbWish("pfc", "3"), dcbWish("trust", "dscp"), dcbWish("dscp-prio 48", "5"), dcbWish("dcbx", "host")},
			dcbSays(byHost, 8, func(a []host.DCBApp) bool {
				return len(a) == 64 && slices.Contains(a, dscp(26, 3)) && slices.Contains(a, dscp(63, 7)) && slices.Contains(a, dscp(48, 5))
			}),
			"dcbx: cee,ieee -> host,cee,ieee; app dscp: none -> 0-7:0 8-15:1 16-23:2 24-31:3 32-39:4 40-48:5 49-55:6 56-63:7; pfc: none -> 3",
		},
		"one entry replaced, another driver": {
			"bnxt_en", dcbMode(host.DCBXHost|host.DCBXIEEE, iboe, dscp(26, 0), dscp(48, 6)), []plan.Wish{dcbWish("dscp-prio 26", "3"), dcbWish("pfc", "5,3")},
			dcbSays(host.DCBXHost|host.DCBXIEEE, 40, func(a []host.DCBApp) bool {
				return len(a) == 3 && slices.Contains(a, dscp(26, 3)) && slices.Contains(a, iboe)
			}),
			"app dscp: 26:0 48:6 -> 26:3 48:6; pfc: none -> 3,5",
		},
		"one entry replaced, mlx5": {
			"mlx5_core", dcbMode(byHost, dscp(26, 0)), []plan.Wish{dcbWish("dscp-prio 26", "3")},
			dcbSays(byHost, 0, func(a []host.DCBApp) bool { return slices.Equal(a, []host.DCBApp{dscp(26, 3)}) }),
			"app dscp: 26:0 -> 26:3",
		},
		"a whole table, as a boot sets it": {
			"mlx5_core", dcbMode(byFirmware, dscp(10, 1)), []plan.Wish{dcbWish("app dscp", "26:3 48:6"), dcbWish("dcbx", "host"), dcbWish("pfc", "3")},
			dcbSays(byHost, 8, func(a []host.DCBApp) bool { return slices.Equal(a, []host.DCBApp{dscp(26, 3), dscp(48, 6)}) }),
			"dcbx: cee,ieee -> host,cee,ieee; app dscp: 10:1 -> 26:3 48:6; pfc: none -> 3",
		},
		"back to 802.1p": {
			"mlx5_core", dcbMode(byHost, dscp(26, 3), dscp(48, 6)), []plan.Wish{dcbWish("trust", "pcp")},
			dcbSays(byHost, 0, func(a []host.DCBApp) bool { return len(a) == 0 }),
			"app dscp: 26:3 48:6 -> none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plantest.ClosedLoop(t, plantest.Case{Setup: dcbSetup(dcbHost(c.driver, c.before)), Engine: dcbEngine(c.driver == "mlx5_core"), Wishes: c.wishes}, c.holds)
			var got []string
			for _, x := range p.Changes {
				got = append(got, x.Name+": "+x.Diff)
				if x.Tier != plan.Link || x.Persist || strings.Contains(x.Disturbs, "reboot") || !strings.HasPrefix(x.Why, "dcqcn.") {
					t.Errorf("%+v", x)
				}
			}
			if s := strings.Join(got, "; "); s != c.plan || len(p.Refused) > 0 {
				t.Errorf("plan %s\nwant %s\n%+v", s, c.plan, p.Refused)
			}
		})
	}
}

// With the out-of-tree driver trust is its file, and the table stays.
func TestDCBTrustFile(t *testing.T) {
	files := with(dcbHost("mlx5_core", dcbMode(byHost)), map[string]string{"/sys/class/net/ens1np0/qos/trust": "pcp\n"})
	holds := func(root string) error {
		if b, err := os.ReadFile(filepath.Join(root, "/sys/class/net/ens1np0/qos/trust")); err != nil || string(b) != "dscp\n" {
			return fmt.Errorf("%w %s", err, b)
		}
		return nil
	}
	p := plantest.ClosedLoop(t, plantest.Case{Setup: dcbSetup(files), Engine: dcbEngine(true), Wishes: []plan.Wish{dcbWish("trust", "dscp"), dcbWish("dscp-prio 26", "4")}}, holds)
	if len(p.Changes) != 2 || p.Changes[0].Diff != "pcp -> dscp" || p.Changes[1].Diff != "none -> 26:4" {
		t.Errorf("%+v", p)
	}
}

func TestDCBCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{
		Setup: dcbSetup(dcbHost("mlx5_core", dcbMode(byFirmware, dscp(10, 1), dscp(26, 0)))), Engine: dcbEngine(true),
		Wishes: []plan.Wish{dcbWish("pfc", "3"), dcbWish("dscp-prio 26", "3"), dcbWish("dcbx", "host")},
	})
	if !crashChild() && n < 60 {
		t.Errorf("only %d points tried", n)
	}
}

// The driver moves trust with the first entry and the last of the table. Where
// trust has a file, what that says stays, forth and back.
func TestDCBTrustStays(t *testing.T) {
	const trust = "/sys/class/net/ens1np0/qos/trust"
	for _, said := range []string{"dscp", "pcp"} {
		engine := func(root string) *plan.Engine {
			e := dcbEngine(true)(root)
			kernel := dcbKernel(root, true)
			e.Verbs = []plan.Verb{fixes.DCB{Send: func(ifname string, r host.DCBRequest) error {
				err := kernel(ifname, r)
				if err == nil && len(r.Add) > 0 {
					err = plantest.Knob(root)(trust, "dscp")
				}
				if err == nil && len(r.Del) > 0 {
					err = plantest.Knob(root)(trust, "pcp")
				}
				return err
			}}}
			return e
		}
		files := with(dcbHost("mlx5_core", dcbMode(byHost)), map[string]string{trust: said + "\n"})
		holds := both(holdsFile(trust, said), dcbSays(byHost, 0, func(a []host.DCBApp) bool { return slices.Equal(a, []host.DCBApp{dscp(26, 4)}) }))
		plantest.ClosedLoop(t, plantest.Case{Setup: dcbSetup(files), Engine: engine, Wishes: []plan.Wish{dcbWish("dscp-prio 26", "4")}}, holds)
	}
}

// A wish that holds is no change, and PFC above all is not written again.
func TestDCBHolds(t *testing.T) {
	root := plantest.TempDir(t)
	d := dcbMode(byHost, dscp(26, 3))
	d.PFC.Enable = 8
	dcbSetup(dcbHost("mlx5_core", d))(t, root)
	p := plantest.Make(t, dcbEngine(true)(root), []plan.Wish{dcbWish("pfc", "3"), dcbWish("trust", "dscp"), dcbWish("dscp-prio 26", "3"), dcbWish("dcbx", "host")})
	if len(p.Changes)+len(p.Refused) > 0 {
		t.Errorf("%+v", p)
	}
}

func TestDCBUnwilling(t *testing.T) {
	for name, c := range map[string]struct {
		send error
		says string
	}{
		"EINVAL":  {syscall.EINVAL, "cannot set pfc of ens1np0 to 3: invalid argument"},
		"refused": {errors.New("the driver turned it down (it answers 1)"), "the driver turned it down"},
		"ignored": {nil, `pfc was set to "3" without an error, but still reads "none": the write was ignored`},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: dcbSetup(dcbHost("mlx5_core", dcbMode(byHost))),
				Engine: func(root string) *plan.Engine {
					e := dcbEngine(true)(root)
					e.Verbs = []plan.Verb{fixes.DCB{Send: func(string, host.DCBRequest) error { return c.send }}}
					return e
				},
				Wishes: []plan.Wish{dcbWish("pfc", "3")},
			}, c.says)
		})
	}
}

func TestDCBRefused(t *testing.T) {
	mlx5, ice := dcbHost("mlx5_core", dcbMode(byHost, dscp(26, 3))), dcbHost("ice", dcbMode(host.DCBXHost|host.DCBXIEEE))
	on := func(target string, w plan.Wish) plan.Wish { w.Target = target; return w }
	small := dcbMode(byHost)
	small.PFC.Cap = 2
	silent := host.DCB{}
	noTable := dcbMode(byHost)
	noTable.Apps = nil
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"no such device":     {mlx5, on("0000:99:00.0 x", dcbWish("pfc", "3")), []string{"has no network interface"}},
		"no DCB":             {mlx5, on("veth0", dcbWish("pfc", "3")), []string{"the driver of veth0 has no data center bridging"}},
		"not captured":       {nicHost("mlx5_core", 1500), dcbWish("pfc", "3"), []string{"is not in this tree"}},
		"management":         {mlx5, on("0000:01:00.0 eno1", dcbWish("pfc", "3")), []string{"eno1 is not touched without --allow-mgmt: bond0 stands on it", "dcb pfc set dev eno1"}},
		"bad priorities":     {mlx5, dcbWish("pfc", "9"), []string{"not a list of priorities"}},
		"too many":           {dcbHost("mlx5_core", small), dcbWish("pfc", "3,4,5"), []string{"PFC on 2 priorities at a time, and 3 are wanted"}},
		"firmware, mlx5":     {dcbHost("mlx5_core", dcbMode(byFirmware)), dcbWish("pfc", "3"), []string{"the firmware runs DCBX", "mlnx_qos -i ens1np0 -d os", "dcbx: host", "-f 0,0,0,1,0,0,0,0"}},
		"firmware, ice":      {dcbHost("ice", dcbMode(host.DCBXLLD|host.DCBXIEEE)), dcbWish("pfc", "3"), []string{"the firmware runs DCBX", "fw-lldp-agent off"}},
		"hand over, ice":     {dcbHost("ice", dcbMode(host.DCBXLLD|host.DCBXIEEE)), dcbWish("dcbx", "host"), []string{"does not hand them over", "fw-lldp-agent off"}},
		"hand over, i40e":    {dcbHost("i40e", dcbMode(host.DCBXLLD)), dcbWish("dcbx", "host"), []string{"disable-fw-lldp on"}},
		"to the firmware":    {mlx5, dcbWish("dcbx", "firmware"), []string{"undo could not bring back", "mlnx_qos -i ens1np0 -d fw"}},
		"bond, ice":          {with(ice, map[string]string{"/sys/class/net/ens1np0/bonding_slave/state": "active\n"}), dcbWish("pfc", "3"), []string{"of a port in a bond"}},
		"mode untold":        {dcbHost("mlx5_core", silent), dcbWish("dcbx", "host"), []string{"does not tell its DCBX mode"}},
		"PFC untold":         {dcbHost("mlx5_core", silent), dcbWish("pfc", "3"), []string{"does not tell its PFC"}},
		"table untold":       {dcbHost("mlx5_core", noTable), dcbWish("trust", "dscp"), []string{"does not tell its application table"}},
		"DSCP beyond":        {mlx5, dcbWish("dscp-prio 64", "3"), []string{"a DSCP is 0 to 63"}},
		"first entry":        {dcbHost("mlx5_core", dcbMode(byHost)), dcbWish("dscp-prio 26", "3"), []string{"switches ens1np0 to trusting DSCP, which nobody asked for"}},
		"table beyond":       {mlx5, dcbWish("app dscp", "26:9"), []string{"a priority 0 to 7"}},
		"no such thing":      {mlx5, dcbWish("magic", "3"), []string{`no magic "3"`}},
		"operator":           {with(mlx5, map[string]string{"/var/log/pods/nvidia_nic-configuration-daemon-x_1/": ""}), dcbWish("pfc", "3"), []string{"NIC Configuration Operator holds this setting"}},
		"unreadable trust":   {with(mlx5, map[string]string{"/sys/class/net/ens1np0/qos/trust/": ""}), dcbWish("trust", "pcp"), []string{"directory"}},
		"steps, bnxt to pcp": {dcbHost("bnxt_en", dcbMode(host.DCBXIEEE, dscp(1, 1))), dcbWish("trust", "pcp"), []string{"dcb app flush dev ens1np0 dscp-prio", "dcb dcbx set dev ens1np0 host ieee"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, dcbEngine(true), c.wish, c.says...) })
	}
}

// Both cannot be: the table is empty while 802.1p is trusted.
func TestDCBContradiction(t *testing.T) {
	root := plantest.TempDir(t)
	dcbSetup(dcbHost("mlx5_core", dcbMode(byHost, dscp(26, 0))))(t, root)
	for _, c := range []struct{ other, want, says string }{{"dscp-prio 26", "3", "without DSCP entries"}, {"app dscp", "26:3", "trust is to be pcp, which the table decides"}} {
		p := plantest.Make(t, dcbEngine(true)(root), []plan.Wish{dcbWish("trust", "pcp"), dcbWish(c.other, c.want)})
		if len(p.Changes) != 1 || p.Changes[0].After.Text != "none" || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, c.says) {
			t.Errorf("%+v", p)
		}
	}
}
