// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// portHost is a NIC with all that a plan may change of it, and systemd.
func portHost(dcb host.DCB, congestion map[string]string) map[string]string {
	files := with(with(completeHost(), vfsHost(2)), congestion)
	if _, intree := congestion[ccDir+"np_cnp_dscp"]; intree {
		delete(files, ecnDir+"roce_np/cnp_dscp")
	}
	files["/.hostcheck/capture.json"] = dcbHost("mlx5_core", dcb)["/.hostcheck/capture.json"]
	delete(files, "/sys/class/net/ens1np0/device/driver") // the device is a link here
	return files
}

func portEngine(root string) *plan.Engine {
	e := completing(root)
	e.Verbs = []plan.Verb{fixes.SRIOV{}, fixes.Ethtool{Set: setAnswer(root)}, fixes.DCB{Send: dcbKernel(root, true)}, fixes.DCQCN{}, fixes.Unit{}, fixes.Deadline{}}
	e.Machine.Knob = vfKernel(root)
	return e
}

const (
	arms    = "hostcheck, hostcheck-expire.service, hostcheck-expire.timer, deadline hostcheck-expire.timer, "
	keeps   = "50-hostcheck.yaml, hostcheck-settings.service, 99-hostcheck-settings.rules, hostcheck-settings.service"
	keepsTo = "later 50-hostcheck.yaml, later hostcheck-settings.service, later 99-hostcheck-settings.rules, later hostcheck-settings.service"
	disarms = "later -deadline hostcheck-expire.timer, later -hostcheck-expire.timer, later -hostcheck-expire.service"
)

var dcbWishes = []plan.Wish{dcbWish("pfc", "3"), dcbWish("trust", "dscp"), dcbWish("dscp-prio 48", "5"), dcbWish("dcbx", "host")}

// dcbHolds is what dcbWishes want.
var dcbHolds = dcbSays(byHost, 8, func(a []host.DCBApp) bool {
	return len(a) == 64 && slices.Contains(a, dscp(26, 3)) && slices.Contains(a, dscp(48, 5))
})

// All verbs of an interface with what Complete puts around them: what takes a
// link down waits to be confirmed, behind a timer, and what a reboot loses is
// kept where it can be.
func TestCompleteVerbs(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		holds  func(string) error
		plan   string
	}{
		"data center bridging": {
			portHost(dcbMode(byFirmware), nil), dcbWishes, dcbHolds,
			arms + "dcb dcbx, dcb app dscp, dcb pfc, " + keepsTo + ", " + disarms,
		},
		"trust has a file": {
			portHost(dcbMode(byHost), map[string]string{"/sys/class/net/ens1np0/qos/trust": "pcp\n"}), []plan.Wish{dcbWish("trust", "dscp")}, holdsFile("/sys/class/net/ens1np0/qos/trust", "dscp"),
			arms + "dcb trust, " + keepsTo + ", " + disarms,
		},
		"congestion control, out-of-tree": {
			portHost(dcbMode(byHost), map[string]string{ecnDir + "roce_np/enable/3": "0\n"}), []plan.Wish{cc("np 3", "on"), cnpWish},
			both(holdsFile(ecnDir+"roce_np/enable/3", "1"), holdsFile(ecnDir+"roce_np/cnp_dscp", "48")),
			"dcqcn np 3, dcqcn np_cnp_dscp, hostcheck, " + keeps,
		},
		"congestion control, in-tree": {
			portHost(dcbMode(byHost), map[string]string{ccDir + "np_cnp_dscp": "0\n"}), []plan.Wish{cnpWish}, holdsFile(ccDir+"np_cnp_dscp", "48"),
			"dcqcn np_cnp_dscp, hostcheck, " + keeps,
		},
		// a .link file keeps the number, and nothing keeps autoprobe
		"virtual functions": {
			portHost(dcbMode(byHost), nil), []plan.Wish{probeWish("off"), vfWish("3")}, vfHolds(3),
			arms + "sriov numvfs, sriov autoprobe, sriov numvfs, 10-hostcheck-vfs-0000-18-00-0.link, " + disarms + ", later -hostcheck",
		},
	} {
		t.Run(name, func(t *testing.T) {
			link := strings.Contains(c.plan, "deadline")
			p := plantest.ClosedLoop(t, plantest.Case{Setup: dcbSetup(c.files), Engine: portEngine, Plan: completed(c.wishes...), Confirm: link}, c.holds)
			if got := brief(p); got != c.plan || len(p.Refused) > 0 {
				t.Errorf("\ngot  %s\nwant %s\n%+v", got, c.plan, p.Refused)
			}
			for _, x := range p.Changes {
				kept := x.Kind == "dcb" || x.Kind == "dcqcn"
				if lost := strings.Contains(x.Disturbs, "lost at a reboot"); x.AtBoot != kept || lost != (x.Kind == "sriov" && x.Name == "autoprobe") {
					t.Errorf("%+v", x)
				}
			}
		})
	}
}

func TestCompleteCrash(t *testing.T) {
	wishes := []plan.Wish{ringWish, cnpWish, vfWish("0"), dcbWish("pfc", "3")} // one change of each kind
	n := plantest.CrashLaw(t, plantest.Case{Setup: dcbSetup(portHost(dcbMode(byHost), nil)), Engine: portEngine, Confirm: true, Plan: completed(wishes...)})
	if !crashChild() && n < 300 {
		t.Errorf("only %d points tried", n)
	}
}

// What a reboot lost is wished again and made, in the order that the driver
// needs, and then holds.
func TestVerbsAtBoot(t *testing.T) {
	files := portHost(dcbMode(byFirmware), map[string]string{ecnDir + "roce_rp/enable/3": "0\n", "/var/lib/": ""})
	root := plantest.TempDir(t)
	dcbSetup(files)(t, root)
	e := portEngine(root)
	allow := plan.Options{Allow: []plan.Tier{plan.Link}}
	p := completed(append([]plan.Wish{cc("rp 3", "on"), cnpWish, set(nic, "pause", "rx", "off")}, dcbWishes...)...)(t, e)
	if r, err := e.Apply(context.Background(), p, allow); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	for _, f := range []string{"/.hostcheck/capture.json", ecnDir + "roce_rp/enable/3", ecnDir + "roce_np/cnp_dscp"} { // the reboot
		if err := os.WriteFile(filepath.Join(root, f), []byte(files[f]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	saved := fixes.ReadSettings(h)
	var wishes []plan.Wish
	var names []string
	for _, s := range saved.All {
		w, err := s.Wish(h)
		if err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		wishes = append(wishes, w)
		names = append(names, s.Kind+" "+s.Name+"="+s.Value)
	}
	want := []string{
		"ethtool pause rx=off", "dcb app dscp=0-7:0 8-15:1 16-23:2 24-31:3 32-39:4 40-48:5 49-55:6 56-63:7", "dcb dcbx=host", "dcb pfc=3",
		"dcqcn np_cnp_dscp=48", "dcqcn rp 3=on",
	}
	if !slices.Equal(names, want) || saved.Ignored != nil {
		t.Errorf("%q %+v", names, saved.Ignored)
	}
	p = plantest.Make(t, e, wishes)
	if got := brief(p); got != "ethtool pause rx, dcb dcbx, dcb app dscp, dcb pfc, dcqcn np_cnp_dscp, dcqcn rp 3" || len(p.Refused) > 0 {
		t.Errorf("%s %+v", got, p.Refused)
	}
	allow.Reapply = true
	if r, err := e.Apply(context.Background(), p, allow); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	if err := both(dcbHolds, both(holdsFile(ecnDir+"roce_rp/enable/3", "1"), holdsFile(ecnDir+"roce_np/cnp_dscp", "48")))(root); err != nil {
		t.Error(err)
	}
	if again := plantest.Make(t, e, wishes); len(again.Changes)+len(again.Refused) > 0 {
		t.Errorf("%s %+v", brief(again), again.Refused)
	}
}

// A port whose address says nothing after a reboot is set until then.
func TestCompleteVerbsNotKept(t *testing.T) {
	files := with(portHost(dcbMode(byHost), nil), map[string]string{"/sys/bus/pci/devices/0000:18:00.0/net/ens1np1/": ""})
	root := plantest.TempDir(t)
	dcbSetup(files)(t, root)
	p := completed(dcbWish("pfc", "3"), cnpWish)(t, portEngine(root))
	if got := brief(p); got != arms+"dcb pfc, dcqcn np_cnp_dscp, "+disarms+", later -hostcheck" || len(p.Refused) != 2 {
		t.Errorf("%s %+v", got, p.Refused)
	}
	for _, r := range p.Refused {
		if !strings.Contains(r.Reason, "it is set until the next boot, and not at each boot: 0000:18:00.0 has the interfaces ens1np0, ens1np1") {
			t.Errorf("%+v", r)
		}
	}
}
