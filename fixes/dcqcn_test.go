// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	ecnDir = "/sys/class/net/ens1np0/ecn/"
	ccDir  = "/sys/kernel/debug/mlx5/0000:18:00.0/cc_params/"
)

// ofedHost has the out-of-tree driver's files, ccHost the in-tree driver's.
func ofedHost() map[string]string {
	files := with(nicHost("mlx5_core", 9000), map[string]string{
		ecnDir + "roce_np/cnp_dscp": "48\n", ecnDir + "roce_np/cnp_802p_prio": "6\n", ecnDir + "roce_rp/rpg_ai_rate": "5\n",
	})
	for prio := range 8 {
		files[fmt.Sprintf("%sroce_np/enable/%d", ecnDir, prio)] = "0\n"
		files[fmt.Sprintf("%sroce_rp/enable/%d", ecnDir, prio)] = "0\n"
	}
	return files
}

func ccHost() map[string]string {
	return with(nicHost("mlx5_core", 9000), map[string]string{
		ccDir + "np_cnp_dscp": "48\n", ccDir + "np_cnp_prio": "6\n", ccDir + "np_cnp_prio_mode": "0\n", ccDir + "rp_ai_rate": "5\n",
		"/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
	})
}

func dcqcnEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.DCQCN{}}, Machine: &plan.Machine{Knob: plantest.Knob(root)}}
}

func cc(name, want string) plan.Wish {
	return plan.Wish{Setting: fixes.DCQCNSetting(nic, name), Want: want, Tier: plan.Safe, Check: "dcqcn.params"}
}

func TestDCQCNLoop(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		holds  func(string) error
		plan   string
	}{
		"out-of-tree": {
			ofedHost(), []plan.Wish{cc("np 3", "on"), cc("rp 3", "on"), cc("np_cnp_dscp", "0x2e"), cc("rp_ai_rate", "10"), cc("np_cnp_prio", "6")},
			both(both(holdsFile(ecnDir+"roce_np/enable/3", "1"), holdsFile(ecnDir+"roce_rp/enable/3", "1")), both(holdsFile(ecnDir+"roce_np/cnp_dscp", "46"), holdsFile(ecnDir+"roce_rp/rpg_ai_rate", "10"))),
			"np 3 off -> on; np_cnp_dscp 48 -> 46; rp 3 off -> on; rp_ai_rate 5 -> 10",
		},
		"in-tree": {
			ccHost(), []plan.Wish{cc("np_cnp_dscp", "46"), cc("np_cnp_prio", "5"), cc("rp_ai_rate", "10")},
			both(both(holdsFile(ccDir+"np_cnp_dscp", "46"), holdsFile(ccDir+"np_cnp_prio", "5")), holdsFile(ccDir+"rp_ai_rate", "10")),
			"np_cnp_dscp 48 -> 46; np_cnp_prio 6 -> 5; rp_ai_rate 5 -> 10",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plantest.ClosedLoop(t, plantest.Case{Setup: links(c.files), Engine: dcqcnEngine, Wishes: c.wishes}, c.holds)
			var got []string
			for _, x := range p.Changes {
				got = append(got, x.Name+" "+x.Diff)
				if x.Tier != plan.Safe || x.Persist || strings.Contains(x.Disturbs, "reboot") {
					t.Errorf("%+v", x)
				}
			}
			if s := strings.Join(got, "; "); s != c.plan || len(p.Refused) > 0 {
				t.Errorf("plan %s\nwant %s\n%+v", s, c.plan, p.Refused)
			}
		})
	}
}

func TestDCQCNCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: links(ofedHost()), Engine: dcqcnEngine, Wishes: []plan.Wish{cc("np 3", "on"), cc("rp 3", "on"), cc("np_cnp_dscp", "46")}})
	if !crashChild() && n < 60 {
		t.Errorf("only %d points tried", n)
	}
}

// The interface has another name since: the PCI address tells which it is.
func TestDCQCNRenamed(t *testing.T) {
	root := plantest.TempDir(t)
	links(with(ofedHost(), map[string]string{"/var/lib/": ""}))(t, root)
	w := cc("np 3", "on")
	w.Target = "0000:18:00.0 rail3"
	e := dcqcnEngine(root)
	if r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{w}), plan.Options{}); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	if b, err := os.ReadFile(filepath.Join(root, ecnDir, "roce_np/enable/3")); err != nil || string(b) != "1\n" {
		t.Errorf("%v %s", err, b)
	}
}

func TestDCQCNUnwilling(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"EINVAL":  {syscall.EINVAL, `cannot write "46" to ` + ccDir + `np_cnp_dscp: invalid argument`},
		"EREMOTE": {syscall.EREMOTEIO, "remote I/O error"}, // what the firmware's refusal becomes
		"ignored": {nil, `was set to "46" without an error, but still reads "48": the write was ignored`},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: links(ccHost()),
				Engine: func(root string) *plan.Engine {
					e := dcqcnEngine(root)
					e.Machine.Knob = func(string, string) error { return c.err }
					return e
				},
				Wishes: []plan.Wish{cc("np_cnp_dscp", "46")},
			}, c.says)
		})
	}
}

func TestDCQCNRefused(t *testing.T) {
	on := func(target string, w plan.Wish) plan.Wish { w.Target = target; return w }
	operator := with(ofedHost(), map[string]string{"/var/log/pods/nvidia_nic-configuration-daemon-x_1/": ""})
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"no such device":        {ofedHost(), on("0000:99:00.0 x", cc("np 3", "on")), []string{"has no network interface"}},
		"another driver":        {nicHost("ice", 1500), cc("np_cnp_dscp", "46"), []string{"driven by ice"}},
		"switch in-tree":        {ccHost(), cc("np 3", "on"), []string{"the in-tree driver has no switch for it", "mlxconfig -d 0000:18:00.0 query ROCE_CC_PRIO_MASK_P1"}},
		"switch maybe":          {ofedHost(), cc("np 3", "1"), []string{"np 3 is on or off"}},
		"no such priority":      {ofedHost(), cc("np 8", "on"), []string{`no congestion control setting "np 8"`}},
		"no such role":          {ofedHost(), cc("rp ../1", "on"), []string{"no congestion control setting"}},
		"beyond the field":      {ofedHost(), cc("np_cnp_dscp", "64"), []string{"np_cnp_dscp takes a number from 0 to 63", "64 is beyond"}},
		"priority beyond":       {ccHost(), cc("np_cnp_prio", "8"), []string{"from 0 to 7"}},
		"no number":             {ccHost(), cc("rp_ai_rate", "fast"), []string{`"fast" is not a number`}},
		"not a parameter":       {ccHost(), cc("../mtu", "1"), []string{`no congestion control setting "../mtu"`}},
		"climbs out":            {ccHost(), cc("np_/../../x", "1"), []string{"no congestion control setting"}},
		"lockdown":              {with(ccHost(), map[string]string{"/sys/kernel/security/lockdown": "none [integrity] confidentiality\n"}), cc("np_cnp_dscp", "46"), []string{"kernel lockdown is integrity, which closes debugfs even to root", "echo 46 > " + ccDir + "np_cnp_dscp"}},
		"not there, in-tree":    {nicHost("mlx5_core", 1500), cc("np_cnp_dscp", "46"), []string{"debugfs is not mounted, mlx5_ib is not bound", "modprobe mlx5_ib"}},
		"not there, OFED":       {ofedHost(), cc("rp_gd", "46"), []string{"this version of the driver has no such parameter"}},
		"writes another":        {with(ccHost(), map[string]string{ccDir + "np_cnp_prio_mode": "1\n"}), cc("np_cnp_prio", "5"), []string{"writes 0 to np_cnp_prio_mode along with it, which holds 1", "echo 5 > "}},
		"writes another, too":   {ccHost(), cc("np_cnp_prio_mode", "1"), []string{"writes 0 to np_cnp_prio along with it, which holds 6"}},
		"writes what is hidden": {with(ccHost(), map[string]string{ccDir + "rtt_resp_dscp": "26\n"}), cc("rtt_resp_dscp", "27"), []string{"writes rtt_resp_dscp_valid along with it, and what that holds is not known"}},
		"operator":              {operator, cc("np 3", "on"), []string{"NIC Configuration Operator holds this setting"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, dcqcnEngine, c.wish, c.says...) })
	}
	// the operator leaves the parameters alone
	root := plantest.TempDir(t)
	links(operator)(t, root)
	if p := plantest.Make(t, dcqcnEngine(root), []plan.Wish{cc("rp_ai_rate", "10")}); len(p.Changes) != 1 {
		t.Errorf("%+v", p)
	}
}
