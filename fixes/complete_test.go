// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	savedFile   = fixes.SettingsDir + "/50-hostcheck.yaml"
	bootUnit    = etcUnits + "hostcheck-settings.service"
	bootLink    = etcUnits + "multi-user.target.wants/hostcheck-settings.service"
	udevRule    = "/etc/udev/rules.d/99-hostcheck-settings.rules"
	expireTimer = etcUnits + "hostcheck-expire.timer"
)

var (
	softWish = set(nic, "feature", "rx-gro", "on")
	ringWish = set(nic, "rings", "rx", "8192")
	vethWish = set("veth0", "feature", "tx-tcp-segmentation", "off")
	cnpWish  = plan.Wish{Setting: fixes.DCQCNSetting(nic, "np_cnp_dscp"), Want: "48", Tier: plan.Safe, Check: "dcqcn.cnp_dscp", Why: "CNPs have a class of their own"}
	tosWish  = plan.Wish{Setting: fixes.SysfsSetting(tclass), Want: "106", Tier: plan.Safe, Check: "dcqcn.tclass", Why: "all RoCE traffic is in one class"}
)

func completeSetup(tb testing.TB, root string) {
	tb.Helper()
	nicSetup(completeHost())(tb, root)
}

func brief(p plan.Plan) string {
	var out []string
	for _, c := range p.Changes {
		s := strings.TrimSpace(c.Kind + " " + c.Name)
		if c.Target != "" && (c.Kind == plan.KindFile || c.Kind == plan.KindCopy || c.Kind == "unit") {
			s = filepath.Base(c.Target)
		}
		if !c.After.Present {
			s = "-" + s
		}
		if c.Deferred {
			s = "later " + s
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func completedOn(t *testing.T, change func(root string), wishes ...plan.Wish) (plan.Plan, *plan.Engine) {
	t.Helper()
	root := plantest.TempDir(t)
	completeSetup(t, root)
	if err := os.MkdirAll(filepath.Join(root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(root)
	}
	e := completing(root)
	return completed(wishes...)(t, e), e
}

func TestComplete(t *testing.T) {
	for name, c := range map[string]struct {
		wishes []plan.Wish
		want   string
	}{
		"safe": {[]plan.Wish{softWish, cnpWish, tosWish}, "sysfs " + tclass + ", ethtool feature rx-gro, dcqcn np_cnp_dscp" +
			", hostcheck, 50-hostcheck.yaml, hostcheck-settings.service, 99-hostcheck-settings.rules, hostcheck-settings.service"},
		"link": {[]plan.Wish{ringWish}, "hostcheck, hostcheck-expire.service, hostcheck-expire.timer, deadline hostcheck-expire.timer, ethtool rings rx, " +
			"later 50-hostcheck.yaml, later hostcheck-settings.service, later 99-hostcheck-settings.rules, later hostcheck-settings.service, " +
			"later -deadline hostcheck-expire.timer, later -hostcheck-expire.timer, later -hostcheck-expire.service"},
		"nothing can be kept": {[]plan.Wish{vethWish}, "ethtool feature tx-tcp-segmentation"},
	} {
		p, _ := completedOn(t, nil, c.wishes...)
		if got := brief(p); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
		for _, ch := range p.Changes {
			if keeps := slices.Contains([]string{"ethtool", "sysfs", "dcqcn"}, ch.Kind); ch.Why == "" || ch.AtBoot != (keeps && name != "nothing can be kept") {
				t.Errorf("%s: %+v", name, ch)
			}
		}
		if n := len(p.Refused); (n > 0) != (name == "nothing can be kept") {
			t.Errorf("%s: %+v", name, p.Refused)
		}
	}
}

// The running program is run by the units where it may be, and copied else.
func TestCompleteProgram(t *testing.T) {
	_, e := completedOn(t, nil, softWish)
	e.Self = "/opt/hostcheck/bin/hostcheck"
	plantest.Files(t, e.Root, map[string]string{e.Self: "the program\n"})
	p := completed(softWish)(t, e)
	if strings.Contains(brief(p), "hostcheck,") || !strings.Contains(p.Changes[2].After.Text, "ExecStart=/opt/hostcheck/bin/hostcheck settings apply\n") {
		t.Errorf("%s\n%s", brief(p), p.Changes[2].After)
	}
	if err := os.Chmod(filepath.Join(e.Root, "/opt/hostcheck"), 0o777); err != nil {
		t.Fatal(err)
	}
	if p = completed(softWish)(t, e); !strings.Contains(brief(p), "hostcheck, 50") {
		t.Errorf("a program that others can replace is run: %s", brief(p))
	}
	// one in somebody's home, and one with odd signs in its name
	for _, self := range []string{"/root/hostcheck", "/opt/a b/hostcheck"} {
		e.Self = self
		plantest.Files(t, e.Root, map[string]string{self: "the program\n"})
		if p = completed(softWish)(t, e); !strings.Contains(brief(p), "hostcheck, 50") {
			t.Errorf("%s is run by units: %s", self, brief(p))
		}
	}
}

// A driver that is loaded anew brings one device after another, and each starts
// the unit.
func TestCompleteStartsOften(t *testing.T) {
	p, _ := completedOn(t, nil, softWish)
	i := slices.IndexFunc(p.Changes, func(c plan.Change) bool { return c.Target == bootUnit })
	if i < 0 || !strings.Contains(p.Changes[i].After.Text, "\nStartLimitIntervalSec=0\n") {
		t.Errorf("%+v", p.Changes)
	}
}

// Where no unit can be relied on, tier link is refused and the rest is set
// until the next boot, which is said.
func TestCompleteRefuses(t *testing.T) {
	for why, change := range map[string]func(root string) error{
		"systemd does not run this host":       func(root string) error { return os.RemoveAll(filepath.Join(root, "/run/systemd")) },
		"others than root may write to /usr":   func(root string) error { return os.Chmod(filepath.Join(root, "/usr"), 0o775) },
		"cannot stat /usr/local/sbin":          func(root string) error { return os.RemoveAll(filepath.Join(root, "/usr/local/sbin")) },
		"is a symbolic link to /tmp/x":         func(root string) error { return os.Symlink("/tmp/x", filepath.Join(root, "/usr/local/sbin/hostcheck")) },
		"/root/hostcheck is gone":              func(root string) error { return os.Remove(filepath.Join(root, "/root/hostcheck")) },
		"no transaction of hostcheck needs it": func(root string) error { return arm(root) },
	} {
		p, _ := completedOn(t, func(root string) {
			if err := change(root); err != nil {
				t.Fatal(err)
			}
		}, ringWish, softWish)
		if brief(p) != "ethtool feature rx-gro" || len(p.Refused) != 2 || p.Refused[0].Setting != ringWish.Setting ||
			!strings.Contains(p.Refused[0].Reason, why) || !strings.Contains(p.Refused[1].Reason, "until the next boot, and not at each boot: ") {
			t.Errorf("%s: %s %+v", why, brief(p), p.Refused)
		}
	}
}

func arm(root string) error {
	dir := filepath.Join(root, etcUnits, "timers.target.wants")
	return errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("/x", filepath.Join(dir, "hostcheck-expire.timer")))
}

// A file of somebody else that says another value, later, is named.
func TestCompleteOthers(t *testing.T) {
	p, _ := completedOn(t, func(root string) {
		plantest.Files(t, root, map[string]string{fixes.SettingsDir + "/60-mine.yaml": settingsText(`  - {kind: ethtool, target: "0000:18:00.0", name: feature rx-gro, value: "off"}`)})
	}, softWish)
	if brief(p) != "ethtool feature rx-gro" || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, "60-mine.yaml says off, and counts more") {
		t.Errorf("%s %+v", brief(p), p.Refused)
	}
	root := plantest.TempDir(t)
	completeSetup(t, root)
	plantest.Files(t, root, map[string]string{savedFile: "theirs\n"})
	e := completing(root)
	p = plantest.Make(t, e, []plan.Wish{softWish})
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := fixes.Complete(context.Background(), e, h, p, func() []string { return nil }); err == nil || !strings.Contains(err.Error(), "not of hostcheck's making") {
		t.Errorf("%v", err)
	}
}

// Two transactions share the file and the unit: the last one out removes them,
// and what stands below one cannot be pulled away.
func TestCompleteShared(t *testing.T) {
	p, e := completedOn(t, nil, softWish)
	start := plantest.Snapshot(t, e.Root)
	apply := func(p plan.Plan) string {
		t.Helper()
		r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Link}})
		if err != nil || r.Outcome != plan.Applied {
			t.Fatalf("%v %+v", err, r)
		}
		return r.Txn
	}
	one := apply(p)
	p = completed(cnpWish)(t, e)
	if got := brief(p); got != "dcqcn np_cnp_dscp, 50-hostcheck.yaml" {
		t.Errorf("%s", got)
	}
	two := apply(p)
	three := apply(completed(ringWish)(t, e))
	text, err := os.ReadFile(filepath.Join(e.Root, savedFile))
	if err != nil || strings.Count(string(text), "- kind:") != 3 {
		t.Errorf("%s, %v", text, err)
	}
	var stacked *plan.StackedError
	if _, err := e.Undo(context.Background(), one, plan.Options{}); !errors.As(err, &stacked) {
		t.Errorf("%v", err)
	}
	for _, id := range []string{three, two, one} {
		if _, err := os.Lstat(filepath.Join(e.Root, bootLink)); err != nil {
			t.Errorf("before the undo of %s: %v", id, err)
		}
		if r, err := e.Undo(context.Background(), id, plan.Options{}); err != nil || r.Outcome != plan.Undone {
			t.Fatalf("%v %+v", err, r)
		}
	}
	if d := plantest.Diff(start, plantest.Snapshot(t, e.Root)); d != "" {
		t.Error(d)
	}
}

// What was kept is what a boot wishes.
func TestSettingsRoundTrip(t *testing.T) {
	p, e := completedOn(t, nil, softWish, cnpWish, tosWish, set(nic, "coalesce", "rx-usecs", "3"))
	if r, err := e.Apply(context.Background(), p, plan.Options{}); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	h, err := host.Open(e.Root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := fixes.ReadSettings(h)
	var got []string
	for _, x := range s.All {
		w, err := x.Wish(h)
		if err != nil {
			t.Errorf("%+v: %v", x, err)
		}
		v, err := map[string]plan.Verb{"ethtool": fixes.Ethtool{}, "sysfs": fixes.Sysfs{}, "dcqcn": fixes.DCQCN{}}[w.Kind].Read(context.Background(), h, w.Setting)
		if err != nil || v.Text != w.Want {
			t.Errorf("%+v reads %s, %v", w, v, err)
		}
		got = append(got, x.Target+" "+x.Name+" "+x.Value)
	}
	want := []string{"0000:18:00.0 /sys/class/infiniband/@/tc/1/traffic_class 106", "0000:18:00.0 coalesce rx-usecs 3", "0000:18:00.0 feature rx-gro on", "0000:18:00.0 np_cnp_dscp 48"}
	if !slices.Equal(got, want) || s.Ignored != nil {
		t.Errorf("%q, %+v", got, s.Ignored)
	}
	rule, err := os.ReadFile(filepath.Join(e.Root, udevRule))
	if err != nil || !strings.Contains(string(rule), `ACTION!="remove", SUBSYSTEM=="net|infiniband", KERNELS=="0000:18:00.0", TAG+="systemd", ENV{SYSTEMD_WANTS}+="hostcheck-settings.service"`) || strings.Contains(string(rule), "RUN") {
		t.Errorf("%s, %v", rule, err)
	}
	// the device has another name after the reboot, or is not there at all
	for _, x := range s.All {
		if _, err := x.Wish(gonehost(t)); err == nil {
			t.Errorf("%+v is wished for a device that is not there", x)
		}
	}
}

func gonehost(t *testing.T) *host.Host {
	t.Helper()
	root := plantest.TempDir(t)
	plantest.Files(t, root, map[string]string{"/proc/cmdline": "quiet\n"})
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestCompleteLoop(t *testing.T) {
	holds := func(root string) error {
		h, err := host.Open(root, host.Options{})
		if err != nil {
			return err
		}
		defer h.Close()
		if r, err := h.EthtoolRings("ens1np0"); err != nil || r.RX != 8192 {
			return fmt.Errorf("%+v %w", r, err)
		}
		return nil
	}
	p, e := completedOn(t, nil, ringWish, softWish)
	old := plantest.Snapshot(t, e.Root)
	r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Link}, Within: time.Minute})
	if err != nil || r.Until.IsZero() || holds(e.Root) != nil || !slices.Equal(plantest.Runs(e.Root), []string{"hostcheck-expire.timer"}) {
		t.Fatalf("%v %+v %v", err, r, plantest.Runs(e.Root))
	}
	if r, err = e.Confirm(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Applied || plantest.Runs(e.Root) != nil {
		t.Fatalf("%v %+v", err, r)
	}
	if again := completed(ringWish, softWish)(t, e); len(again.Changes) > 0 {
		t.Errorf("planned again: %s", brief(again))
	}
	if r, err = e.Undo(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatalf("%v %+v", err, r)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, e.Root)); d != "" {
		t.Error(d)
	}
}
