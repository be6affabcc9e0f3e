// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	mounts    = "/proc/self/mounts"
	etcUnits  = "/etc/systemd/system/"
	usrUnits  = "/usr/lib/systemd/system/"
	hugeMount = "dev-hugepages1G.mount"
)

func unitHost() map[string]string {
	return map[string]string{
		mounts:                           "/dev/sda1 / ext4 rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n",
		etcUnits:                         "",
		usrUnits + "irqbalance.service":  "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nAlias=balance.service\n",
		usrUnits + "dev-hugepages.mount": "[Mount]\nWhat=hugetlbfs\nWhere=/dev/hugepages\n",
		usrUnits + "once.service":        "[Service]\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n",
		usrUnits + "pair.service":        "[Install]\nWantedBy=multi-user.target\nAlso=pair.socket\n",
		usrUnits + "odd.service":         "[Install]\nWantedBy=multi-user.target\n",
	}
}

// running makes irqbalance run and start at boot.
func running(tb testing.TB, root string) {
	tb.Helper()
	for link, to := range map[string]string{
		etcUnits + "multi-user.target.wants/irqbalance.service": usrUnits + "irqbalance.service",
		etcUnits + "balance.service":                            usrUnits + "irqbalance.service",
		etcUnits + "rescue.target.wants/odd.service":            usrUnits + "odd.service",
		"/run/systemd/units/invocation:irqbalance.service":      "0123456789abcdef",
	} {
		p := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.Symlink(to, p); err != nil {
			tb.Fatal(err)
		}
	}
}

func setupUnits(tb testing.TB, root string) {
	tb.Helper()
	plantest.Files(tb, root, unitHost())
	running(tb, root)
}

// systemctl plays the program on the files that systemd would change.
func systemctl(root string) func(context.Context, []string) ([]byte, error) {
	at := func(p string) string { return filepath.Join(root, p) }
	return func(_ context.Context, argv []string) ([]byte, error) {
		if len(argv) != 5 || argv[0] != "systemctl" || argv[1] != "--no-ask-password" || argv[3] != "--" {
			return nil, fmt.Errorf("unexpected command %q", argv)
		}
		verb, unit := argv[2], argv[4]
		text, file := "", ""
		for _, dir := range []string{etcUnits, usrUnits} {
			if b, err := os.ReadFile(at(dir + unit)); err == nil && file == "" {
				text, file = string(b), dir+unit
			}
		}
		if to, err := os.Readlink(at(etcUnits + unit)); err == nil && to == "/dev/null" && (verb == "start" || verb == "enable") {
			return []byte("Unit " + unit + " is masked."), errors.New("exit status 1")
		}
		var links []string
		for line := range strings.Lines(text) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch k {
			case "WantedBy":
				links = append(links, etcUnits+v+".wants/"+unit)
			case "Alias":
				links = append(links, etcUnits+v)
			}
		}
		state := at("/run/systemd/units/invocation:" + unit)
		var err error
		switch verb {
		case "enable":
			for _, l := range links {
				err = errors.Join(err, os.MkdirAll(filepath.Dir(at(l)), 0o755), os.Symlink(file, at(l)))
			}
		case "disable":
			for _, l := range links {
				err = errors.Join(err, os.Remove(at(l)))
				_ = os.Remove(filepath.Dir(at(l))) // when it is empty
			}
		case "mask":
			err = os.Symlink("/dev/null", at(etcUnits+unit))
		case "unmask":
			err = os.Remove(at(etcUnits + unit))
		case "start", "stop":
			if !strings.HasSuffix(unit, ".mount") {
				if verb == "stop" {
					err = os.Remove(state)
				} else {
					err = errors.Join(os.MkdirAll(filepath.Dir(state), 0o755), os.Symlink("0123456789abcdef", state))
				}
				break
			}
			_, where, _ := strings.Cut(text, "Where=")
			where, _, _ = strings.Cut(where, "\n")
			line := "hugetlbfs " + where + " hugetlbfs rw,pagesize=1024M 0 0\n"
			b, e := os.ReadFile(at(mounts))
			now := strings.ReplaceAll(string(b), line, "")
			if verb == "start" {
				now += line
			}
			err = errors.Join(e, os.WriteFile(at(mounts), []byte(now), 0o644))
		default:
			err = fmt.Errorf("unknown verb %q", verb)
		}
		return nil, err
	}
}

func unitEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Unit{}}, Machine: &plan.Machine{Run: systemctl(root)}}
}

func unit(name, side, want string) plan.Wish {
	return plan.Wish{Setting: fixes.UnitSetting(name, side), Want: want, Tier: plan.Safe, Check: "hugepages.mount"}
}

var hugeMountWishes = []plan.Wish{unit(hugeMount, fixes.UnitActive, "active"), unit(hugeMount, fixes.UnitEnabled, "enabled")}

// A mount of huge pages gets a unit of ours, which is enabled and started.
func TestUnitMountLoop(t *testing.T) {
	mounted := func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, mounts))
		if err == nil && !strings.Contains(string(b), " /dev/hugepages1G ") {
			err = errors.New("it is not mounted")
		}
		_, e := os.Lstat(filepath.Join(root, etcUnits+"sysinit.target.wants/"+hugeMount))
		return errors.Join(err, e)
	}
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setupUnits, Engine: unitEngine, Wishes: hugeMountWishes}, mounted)
	want := []string{etcUnits + hugeMount, hugeMount + " enabled", hugeMount + " active"}
	if got := targets(p); !slices.Equal(got, want) {
		t.Fatalf("changes %q, want %q", got, want)
	}
	for _, s := range []string{"# Written by hostcheck", "Where=/dev/hugepages1G\n", "Options=nosuid,nodev,pagesize=1G\n", "hugepages-1048576kB\n", "WantedBy=sysinit.target\n"} {
		if !strings.Contains(p.Changes[0].After.Text, s) {
			t.Errorf("the unit does not say %q:\n%s", s, p.Changes[0].After.Text)
		}
	}
}

// On the disk of a host that does not run, links are all there is of a unit.
func TestUnitUndoTree(t *testing.T) {
	for name, wishes := range map[string][]plan.Wish{"enabled": hugeMountWishes, "disabled": stopWishes} {
		root := plantest.TempDir(t)
		setupUnits(t, root)
		plantest.Files(t, root, map[string]string{"/var/lib/": ""})
		old := plantest.Snapshot(t, root)
		e := unitEngine(root)
		if r, err := e.Apply(context.Background(), plantest.Make(t, e, wishes), plan.Options{}); err != nil || r.Outcome != plan.Applied {
			t.Fatalf("%s: %v %+v", name, err, r)
		}
		e.Machine = nil
		if r, err := e.Undo(context.Background(), "", plan.Options{}); err != nil || r.Outcome != plan.Undone || len(r.Left) > 0 {
			t.Errorf("%s: %v %+v", name, err, r)
		}
		now := plantest.Snapshot(t, root)
		for _, tree := range []plantest.Tree{old, now} { // of the kernel and the manager that ran
			maps.DeleteFunc(tree, func(p, _ string) bool { return strings.HasPrefix(p, "/proc") || strings.HasPrefix(p, "/run") })
		}
		if d := plantest.Diff(old, now); d != "" {
			t.Errorf("%s: undo in the tree:\n%s", name, d)
		}
	}
}

var stopWishes = []plan.Wish{unit("irqbalance.service", fixes.UnitEnabled, "disabled"), unit("irqbalance.service", fixes.UnitActive, "inactive")}

func TestUnitStopLoop(t *testing.T) {
	gone := func(root string) error {
		for _, p := range []string{etcUnits + "multi-user.target.wants/irqbalance.service", "/run/systemd/units/invocation:irqbalance.service"} {
			if _, err := os.Lstat(filepath.Join(root, p)); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is there: %w", p, err)
			}
		}
		return nil
	}
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setupUnits, Engine: unitEngine, Wishes: stopWishes}, gone)
	if len(p.Changes) != 2 || p.Changes[1].Disturbs == "" || !p.Changes[0].Persist || p.Changes[1].Persist {
		t.Errorf("%+v", p.Changes)
	}
}

// A masked unit is unmasked before it is started again.
func TestUnitMaskLoop(t *testing.T) {
	masked := func(root string) error {
		to, err := os.Readlink(filepath.Join(root, etcUnits+"irqbalance.service"))
		if err == nil && to != "/dev/null" {
			err = errors.New(to)
		}
		return err
	}
	plantest.ClosedLoop(t, plantest.Case{Setup: setupUnits, Engine: unitEngine, Wishes: []plan.Wish{
		unit("irqbalance.service", fixes.UnitEnabled, "masked"), unit("irqbalance.service", fixes.UnitActive, "inactive"),
	}}, masked)
}

func TestUnitCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: setupUnits, Engine: unitEngine, Wishes: append(slices.Clone(hugeMountWishes), stopWishes...)})
	if os.Getenv("HOSTCHECK_CRASH_CHILD") == "" && n < 100 {
		t.Errorf("only %d points tried", n)
	}
}

// A unit that stops at once after its start is not active: all is put back.
func TestUnitFails(t *testing.T) {
	root := plantest.TempDir(t)
	setupUnits(t, root)
	plantest.Files(t, root, map[string]string{"/var/lib/": "", usrUnits + "bad.service": "[Service]\nExecStart=/bin/false\n"})
	old := plantest.Snapshot(t, root)
	e := unitEngine(root)
	e.Machine.Run = func(context.Context, []string) ([]byte, error) { return nil, nil }
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{unit("bad.service", fixes.UnitActive, "active")}), plan.Options{})
	if err != nil || r.Outcome != plan.Restored || !strings.Contains(r.Cause.Error(), "still reads \"inactive\"") {
		t.Errorf("%v %+v", err, r)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Error(d)
	}
}

func TestUnitRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		wish plan.Wish
		says []string
	}{
		"no unit":     {unit("nothing.service", fixes.UnitActive, "active"), []string{"there is no unit nothing.service"}},
		"static":      {unit("dev-hugepages.mount", fixes.UnitEnabled, "enabled"), []string{"static"}},
		"oneshot":     {unit("once.service", fixes.UnitActive, "active"), []string{"ends by itself"}},
		"also":        {unit("pair.service", fixes.UnitEnabled, "enabled"), []string{"Also=pair.socket", "systemctl enable pair.service"}},
		"other links": {unit("odd.service", fixes.UnitEnabled, "disabled"), []string{"rescue.target.wants/odd.service"}},
		"alias":       {unit("balance.service", fixes.UnitEnabled, "masked"), []string{"another name of irqbalance.service"}},
		"masked":      {unit("hidden.service", fixes.UnitEnabled, "enabled"), []string{"somebody masked hidden.service", "systemctl unmask"}},
		"a timer":     {unit("x.timer", fixes.UnitActive, "active"), []string{"shows in no file"}},
		"an instance": {unit("x@y.service", fixes.UnitEnabled, "enabled"), []string{"not the name of a unit"}},
		"an option":   {unit("--now.service", fixes.UnitEnabled, "enabled"), []string{"not the name of a unit"}},
		"a path":      {unit("../x.service", fixes.UnitEnabled, "enabled"), []string{"not the name of a unit"}},
		"a side":      {unit("once.service", "loaded", "yes"), []string{"not \"loaded\""}},
		"a value":     {unit("once.service", fixes.UnitEnabled, "active"), []string{"not one of"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupUnits(t, root)
			if err := os.Symlink("/dev/null", filepath.Join(root, etcUnits+"hidden.service")); err != nil {
				t.Fatal(err)
			}
			p := plantest.Make(t, unitEngine(root), []plan.Wish{tt.wish})
			if len(p.Changes) != 0 || len(p.Refused) != 1 {
				t.Fatalf("%+v", p)
			}
			all := p.Refused[0].Reason + "\n" + strings.Join(p.Refused[0].Steps, "\n")
			for _, s := range tt.says {
				if !strings.Contains(all, s) {
					t.Errorf("the refusal does not say %q:\n%s", s, all)
				}
			}
		})
	}
}
