// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	trialUnit = "/etc/systemd/system/hostcheck-trial.service"
	trialLink = "/etc/systemd/system/multi-user.target.wants/hostcheck-trial.service"
)

var judgingArgs = []string{"--check=lab.cmdline", `--failed=dev-disk-by\x2dlabel.device`, "--set", "kernel.x=50% $HOME \"a\""}

// grubSystemd is a host with GRUB that systemd runs, and a program that must be
// copied before a unit may run it.
func grubSystemd(tb testing.TB, root string) {
	setupGrub(tb, root)
	plantest.Files(tb, root, map[string]string{
		"/run/systemd/system/": "", "/etc/systemd/system/": "", "/usr/local/sbin/": "", "/var/lib/": "", "/root/hostcheck": "the program\n",
	})
}

func grubSystemdEngine(root string) *plan.Engine {
	e := grubEngine(root)
	e.Self = "/root/hostcheck"
	grub, systemctl := e.Machine.Run, plantest.Systemctl(root, nil)
	e.Machine.Run = func(ctx context.Context, argv []string) ([]byte, error) {
		if argv[0] == "systemctl" {
			return systemctl(ctx, argv)
		}
		return grub(ctx, argv)
	}
	return e
}

func completeWith(tb testing.TB, e *plan.Engine, wishes []plan.Wish, j fixes.Judging) plan.Plan {
	tb.Helper()
	p := plantest.Make(tb, e, wishes)
	h, err := host.Open(e.Root, host.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	defer h.Close()
	if p, err = fixes.Complete(context.Background(), e, h, p, j); err != nil {
		tb.Fatal(err)
	}
	return p
}

// The unit that judges a trial comes with it and goes with the confirmation;
// taking back both leaves nothing.
func TestTrialUnit(t *testing.T) {
	root := plantest.TempDir(t)
	grubSystemd(t, root)
	old := plantest.Snapshot(t, root)
	e := grubSystemdEngine(root)
	apply := func(p plan.Plan) {
		t.Helper()
		r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Boot}})
		if err != nil || r.Outcome != plan.Applied {
			t.Fatal(err, r.Cause)
		}
	}
	p := completeWith(t, e, someTokens, func() []string { return judgingArgs })
	if p.Changes[0].Kind != plan.KindCopy || p.Changes[1].Target != trialUnit {
		t.Errorf("the plan begins with %s, %s", p.Changes[0].Setting, p.Changes[1].Setting)
	}
	for _, c := range p.Changes[1:] {
		if c.Tier != plan.Boot {
			t.Errorf("%s is of tier %s", c.Setting, c.Tier)
		}
	}
	apply(p)
	text, err := os.ReadFile(filepath.Join(root, trialUnit))
	if err != nil {
		t.Fatal(err)
	}
	want := `ExecStart=/usr/local/sbin/hostcheck trial "--check=lab.cmdline" "--failed=dev-disk-by\\x2dlabel.device" --set "kernel.x=50%% $$HOME \"a\""` + "\n"
	if !strings.Contains(string(text), want) {
		t.Errorf("the unit lacks %q:\n%s", want, text)
	}
	if _, err := os.Lstat(filepath.Join(root, trialLink)); err != nil {
		t.Error(err)
	}
	_, b := bootOf(t, root)
	if _, err := editEnv(root, []string{"", "/boot/grub/grubenv", "unset", "next_entry"}); err != nil {
		t.Fatal(err)
	}
	plantest.Files(t, root, map[string]string{"/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.12 " + *b.Entry.Cmdline + "\n"})
	apply(completeWith(t, e, confirmWish, func() []string { return nil }))
	for _, p := range []string{trialUnit, trialLink} {
		if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
			t.Errorf("%s is there after the confirmation", p)
		}
	}
	if _, err := e.UndoAll(context.Background(), plan.Options{}); err != nil {
		t.Fatal(err)
	}
	plantest.Files(t, root, map[string]string{"/proc/cmdline": grubTree["/proc/cmdline"]})
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

// Where others could change what a unit would run, a person confirms.
func TestTrialUnitUntrusted(t *testing.T) {
	root := plantest.TempDir(t)
	grubSystemd(t, root)
	if err := os.Chmod(filepath.Join(root, "usr/local/sbin"), 0o777); err != nil {
		t.Fatal(err)
	}
	p := completeWith(t, grubSystemdEngine(root), someTokens, func() []string { return nil })
	for _, c := range p.Changes {
		if c.Target == trialUnit {
			t.Errorf("the plan has %s", c.Setting)
		}
	}
	if n := len(p.Refused); n != 1 || !strings.Contains(p.Refused[0].Reason, "others can write") && !strings.Contains(p.Refused[0].Reason, "by itself") || len(p.Changes) != 3 {
		t.Errorf("%d refused: %+v", n, p.Refused)
	}
}
