// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const grubTop = `if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
`

// grubTree is a host of Debian's with GRUB; its menu is made by updateGrub.
var grubTree = map[string]string{
	"/etc/os-release":           "ID=debian\n",
	"/etc/default/grub":         "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet hugepages=8 amd_iommu=on\"\nGRUB_CMDLINE_LINUX=\"console=ttyS0 nosmt\"\n",
	"/etc/default/grub.d/":      "",
	"/etc/grub.d/":              "",
	"/usr/sbin/grub-mkconfig":   "#!/bin/sh\n",
	"/usr/bin/grub-editenv":     "",
	"/boot/vmlinuz-6.12":        "",
	"/boot/initrd.img-6.12":     "",
	"/proc/cmdline":             "BOOT_IMAGE=/boot/vmlinuz-6.12 root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on\n",
	"/proc/mounts":              "/dev/sda1 / ext4 rw 0 0\n",
	"/proc/sys/kernel/arch":     "x86_64\n",
	"/sys/devices/system/node/": "",
}

// updateGrub is what update-grub does: a shell reads the settings and runs our
// script, and the result is written over the menu in place.
func updateGrub(root string) ([]byte, error) {
	script := `set -e; cd "$1"; . ./etc/default/grub; for x in etc/default/grub.d/*.cfg; do if [ -e "$x" ]; then . "./$x"; fi; done
entry() { printf "menuentry '%s' --class debian --id '%s' {\n\tinsmod ext2\n\tlinux\t/boot/vmlinuz-6.12 root=UUID=a ro %s\n\tinitrd\t/boot/initrd.img-6.12\n}\n" "$1" "$2" "$3"; }
entry 'Debian GNU/Linux' simple "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
entry 'recovery' recovery "single $GRUB_CMDLINE_LINUX"
if [ -x etc/grub.d/42_hostcheck ]; then sh etc/grub.d/42_hostcheck; fi` // not by itself: a child that another test forks while it is written would make it busy
	out, err := exec.Command("/bin/sh", "-c", script, "sh", root).CombinedOutput()
	if err != nil {
		return out, err
	}
	return nil, os.WriteFile(filepath.Join(root, "boot/grub/grub.cfg"), append([]byte(grubTop), out...), 0o644)
}

// updateGrubFast does the same for files of our making, without a shell: the
// crash tests run it thousands of times.
func updateGrubFast(root string) ([]byte, error) {
	vars := map[string]string{"GRUB_CMDLINE_LINUX": "console=ttyS0 nosmt", "GRUB_CMDLINE_LINUX_DEFAULT": "quiet hugepages=8 amd_iommu=on"}
	dropIn, _ := os.ReadFile(filepath.Join(root, "etc/default/grub.d/zz-hostcheck.cfg"))
	for line := range strings.Lines(string(dropIn)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && line[0] == 'G' {
			vars[name] = strings.Trim(value, "'")
		}
	}
	text := grubTop
	for _, e := range [][3]string{{"Debian GNU/Linux", "simple", vars["GRUB_CMDLINE_LINUX"] + " " + vars["GRUB_CMDLINE_LINUX_DEFAULT"]}, {"recovery", "recovery", "single " + vars["GRUB_CMDLINE_LINUX"]}} {
		text += fmt.Sprintf("menuentry '%s' --class debian --id '%s' {\n\tinsmod ext2\n\tlinux\t/boot/vmlinuz-6.12 root=UUID=a ro %s\n\tinitrd\t/boot/initrd.img-6.12\n}\n", e[0], e[1], e[2])
	}
	script, _ := os.ReadFile(filepath.Join(root, "etc/grub.d/42_hostcheck"))
	if _, entry, ok := strings.Cut(string(script), "cat << 'HOSTCHECK_ENTRY'\n"); ok {
		text += strings.TrimSuffix(entry, "HOSTCHECK_ENTRY\n")
	}
	return nil, os.WriteFile(filepath.Join(root, "boot/grub/grub.cfg"), []byte(text), 0o644)
}

// mkconfig is grub-mkconfig -o FILE.
func mkconfig(root string, argv []string, update func(string) ([]byte, error)) ([]byte, error) {
	menu := filepath.Join(root, "boot/grub/grub.cfg")
	was, err := os.ReadFile(menu)
	if err != nil {
		return nil, err
	}
	out, failed := update(root)
	_ = os.Rename(menu+".new", filepath.Join(root, argv[2]+".new")) // there is one where it was stopped
	made, err := os.ReadFile(menu)
	return out, errors.Join(failed, err, os.WriteFile(filepath.Join(root, argv[2]), made, 0o600), os.WriteFile(menu, was, 0o644))
}

// crashCase is a case for the crash law, set up to a point.
func crashCase(upTo func(tb testing.TB, root string), wishes []plan.Wish) plantest.Case {
	return plantest.Case{Setup: func(tb testing.TB, root string) {
		setupGrub(tb, root)
		upTo(tb, root)
		if err := os.RemoveAll(filepath.Join(root, plan.Dir)); err != nil {
			tb.Fatal(err)
		}
	}, Wishes: wishes, Engine: func(root string) *plan.Engine {
		e := grubEngine(root)
		e.Machine.Run = func(_ context.Context, argv []string) ([]byte, error) {
			if argv[0] == "grub-mkconfig" {
				return mkconfig(root, argv, updateGrubFast)
			}
			return editEnv(root, argv)
		}
		return e
	}}
}

// editEnv is grub-editenv FILE set NAME=VALUE, or unset NAME.
func editEnv(root string, argv []string) ([]byte, error) {
	name, value, set := strings.Cut(argv[3], "=")
	vars := map[string]string{}
	if set {
		vars[name] = value
	}
	b, err := facts.FormatGrubenv(slices.Sorted(maps.Keys(vars)), vars)
	if err != nil {
		return nil, err
	}
	return nil, os.WriteFile(filepath.Join(root, argv[1]), b, 0o644)
}

func grubMachine(root string) *plan.Machine {
	return &plan.Machine{Run: func(_ context.Context, argv []string) ([]byte, error) {
		if argv[0] == "grub-mkconfig" {
			return mkconfig(root, argv, updateGrub)
		}
		return editEnv(root, argv)
	}}
}

func setupGrub(tb testing.TB, root string) {
	plantest.Files(tb, root, grubTree)
	if err := os.MkdirAll(filepath.Join(root, "boot/grub"), 0o755); err != nil {
		tb.Fatal(err)
	}
	if _, err := editEnv(root, []string{"", "/boot/grub/grubenv", "unset", "x"}); err != nil {
		tb.Fatal(err)
	}
	if out, err := updateGrub(root); err != nil {
		tb.Fatal(err, string(out))
	}
}

func grubEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Verbs: fixes.All(), Machine: grubMachine(root)}
}

// someTokens asks for one of everything: a pair of words that stays together, a
// word in the place of another, one that GRUB must see quoted, one gone from
// each of the settings.
var someTokens = []plan.Wish{
	tokenWish("hugepagesz=2M hugepages=16", fixes.TokenPresent),
	tokenWish("amd_iommu=on", fixes.TokenAbsent), tokenWish("amd_iommu=pgtbl_v2", fixes.TokenPresent),
	tokenWish("pci=config_acs=x@0000:01:00.0;x@0000:02:00.0", fixes.TokenPresent),
	tokenWish("nosmt", fixes.TokenAbsent),
}

func tokenWish(token, want string) plan.Wish {
	return plan.Wish{Setting: fixes.CmdlineSetting(token), Want: want, Tier: plan.Boot, Check: "lab.cmdline", Why: "a test wants it"}
}

const wantedLine = "root=UUID=a ro console=ttyS0 quiet hugepages=8 amd_iommu=pgtbl_v2 hugepagesz=2M hugepages=16 pci=config_acs=x@0000:01:00.0;x@0000:02:00.0"

func bootOf(tb testing.TB, root string) (*facts.Facts, *facts.Boot) {
	tb.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	f := facts.New(h)
	return f, f.Boot()
}

// A trial is planned, armed and taken back; the entry that boots by default
// stays as it was.
func TestCmdlineTrial(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setupGrub, Engine: grubEngine, Wishes: someTokens}, func(root string) error {
		_, b := bootOf(t, root)
		if b.Entry == nil || b.Entry.ID != facts.TrialEntry {
			return fmt.Errorf("the next boot is %+v", b.Entry)
		}
		line, trial, ok := strings.Cut(*b.Entry.Cmdline, " panic=30 hostcheck.trial=")
		if line != wantedLine || !ok || !strings.HasSuffix(trial, ".1") || b.Trial() != trial {
			return fmt.Errorf("the trial has %q", *b.Entry.Cmdline)
		}
		if u := b.Usual(); u == nil || *u.Cmdline != "root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on" {
			return fmt.Errorf("the usual entry is %+v", u)
		}
		return nil
	})
	var kinds []string
	for _, c := range p.Changes {
		kinds = append(kinds, c.String())
		if c.Tier != plan.Boot {
			t.Errorf("%s is of tier %s", c.Setting, c.Tier)
		}
	}
	if got := strings.Join(kinds, ", "); got != "file /etc/grub.d/42_hostcheck, grub trial, grub next_entry" {
		t.Errorf("the plan is %s", got)
	}
}

// A rescue system takes an armed trial back on the mounted disk.
func TestCmdlineTrialRescue(t *testing.T) {
	root := plantest.TempDir(t)
	setupGrub(t, root)
	plantest.Files(t, root, map[string]string{"/var/lib/": ""})
	old := plantest.Snapshot(t, root)
	e := grubEngine(root)
	r, err := e.Apply(context.Background(), plantest.Make(t, e, someTokens), plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatal(err, r)
	}
	rescue := &plan.Engine{Root: root, Verbs: fixes.All()}
	if r, err = rescue.Undo(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatal(err, r)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

func TestCmdlineTrialCrash(t *testing.T) {
	plantest.CrashLaw(t, crashCase(func(testing.TB, string) {}, someTokens))
}

// runTrial arms a trial of some tokens and boots it.
func runTrial(tb testing.TB, root string, comesUp bool) plan.Result {
	tb.Helper()
	return bootTrial(tb, root, someTokens, comesUp)
}

// bootTrial arms a trial and boots it, as GRUB and the kernel would.
func bootTrial(tb testing.TB, root string, wishes []plan.Wish, comesUp bool) plan.Result {
	tb.Helper()
	e := grubEngine(root)
	r, err := e.Apply(context.Background(), plantest.Make(tb, e, wishes), plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		tb.Fatal(err, r)
	}
	_, b := bootOf(tb, root)
	if _, err := editEnv(root, []string{"", "/boot/grub/grubenv", "unset", "next_entry"}); err != nil {
		tb.Fatal(err)
	}
	if comesUp {
		plantest.Files(tb, root, map[string]string{"/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.12 " + *b.Entry.Cmdline + "\n"})
	}
	return r
}

var confirmWish = []plan.Wish{{Setting: fixes.TrialSetting(), Want: fixes.TrialConfirmed, Tier: plan.Boot}}

// A trial that runs is confirmed: the tokens enter the settings, the usual
// entry has them, and the trial is gone.
func TestCmdlineConfirm(t *testing.T) {
	c := plantest.Case{Setup: func(tb testing.TB, root string) {
		setupGrub(tb, root)
		runTrial(tb, root, true)
		if err := os.RemoveAll(filepath.Join(root, plan.Dir)); err != nil {
			tb.Fatal(err)
		}
	}, Engine: grubEngine, Wishes: confirmWish}
	root := plantest.TempDir(t)
	c.Setup(t, root)
	old := plantest.Snapshot(t, root)
	e := c.Engine(root)
	p := plantest.Make(t, e, confirmWish)
	if len(p.Refused) > 0 {
		t.Fatal(p.Refused)
	}
	r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatal(err, r)
	}
	f, b := bootOf(t, root)
	if b.Entry.ID != "simple" || *b.Entry.Cmdline != wantedLine || b.Between("configured", "next_boot") != nil || fixes.ReadTrial(f) != nil {
		t.Errorf("confirmed: %+v, %+v", b.Entry, b.Drift)
	}
	text, err := os.ReadFile(filepath.Join(root, "etc/default/grub.d/zz-hostcheck.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# was GRUB_CMDLINE_LINUX='console=ttyS0 nosmt'\nGRUB_CMDLINE_LINUX='console=ttyS0'\n",
		"# was GRUB_CMDLINE_LINUX_DEFAULT='quiet hugepages=8 amd_iommu=on'\n",
		`GRUB_CMDLINE_LINUX_DEFAULT='quiet hugepages=8 amd_iommu=pgtbl_v2 hugepagesz=2M hugepages=16 "pci=config_acs=x@0000:01:00.0;x@0000:02:00.0"'` + "\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the drop-in lacks %q:\n%s", want, text)
		}
	}
	if r, err = e.Undo(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatal(err, r)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

func TestCmdlineConfirmCrash(t *testing.T) {
	plantest.CrashLaw(t, crashCase(func(tb testing.TB, root string) { runTrial(tb, root, true) }, confirmWish))
}

// The state of a trial from one boot to the next.
func TestTrialState(t *testing.T) {
	root := plantest.TempDir(t)
	setupGrub(t, root)
	f, _ := bootOf(t, root)
	if tr := fixes.ReadTrial(f); tr != nil {
		t.Errorf("a trial before there is one: %+v", tr)
	}
	e := grubEngine(root)
	p := plantest.Make(t, e, someTokens)
	if _, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Boot}}); err != nil {
		t.Fatal(err)
	}
	f, b := bootOf(t, root)
	tr := fixes.ReadTrial(f)
	if state, _ := tr.State(false); state != fixes.TrialArmed || !tr.IsTrial(p.Changes[0]) || tr.IsTrial(p.Changes[1]) {
		t.Errorf("armed, it is %s: %+v", state, tr)
	}
	plantest.Files(t, root, map[string]string{"/proc/cmdline": *b.Entry.Cmdline + "\n"})
	f, _ = bootOf(t, root)
	if state, _ := fixes.ReadTrial(f).State(true); state != fixes.TrialRunning {
		t.Errorf("booted, it is %s", state)
	}
}

// Any value and any token: what comes out is what was asked for, or an error.
func FuzzQuoteGrub(f *testing.F) {
	f.Add("pci=config_acs=A;B")
	f.Add(`x="y z"`)
	f.Fuzz(func(t *testing.T, token string) {
		quoted, err := facts.QuoteGrub(token)
		if err != nil {
			return
		}
		words, err := facts.GrubWords("a " + quoted + " b")
		if err != nil || len(words) != 3 || words[1].Text != token {
			t.Errorf("%q is written %q and read %q, %v", token, quoted, words, err)
		}
	})
}

// Both ways of rendering in these tests give the same.
func TestUpdateGrubFast(t *testing.T) {
	for _, with := range []string{"nothing", "a trial", "a confirmed trial"} {
		root := plantest.TempDir(t)
		setupGrub(t, root)
		if with != "nothing" {
			runTrial(t, root, true)
		}
		if e := grubEngine(root); with == "a confirmed trial" {
			if _, err := e.Apply(context.Background(), plantest.Make(t, e, confirmWish), plan.Options{Allow: []plan.Tier{plan.Boot}}); err != nil {
				t.Fatal(err)
			}
		}
		real := plantest.Snapshot(t, root)
		if _, err := updateGrubFast(root); err != nil {
			t.Fatal(err)
		}
		if d := plantest.Diff(real, plantest.Snapshot(t, root)); d != "" {
			t.Errorf("with %s:\n%s", with, d)
		}
	}
}

// A trial that did not come up may be tried once more, and then no more.
func TestCmdlineTries(t *testing.T) {
	root := plantest.TempDir(t)
	setupGrub(t, root)
	runTrial(t, root, false)
	f, _ := bootOf(t, root)
	tr := fixes.ReadTrial(f)
	if tr == nil || tr.Try != 1 {
		t.Fatalf("after the first try: %+v", tr)
	}
	if state, says := tr.State(true); state != fixes.TrialFellBack {
		t.Errorf("after the first try it is %s: %s", state, says)
	}
	if state, says := tr.State(false); state != fixes.TrialDisarmed {
		t.Errorf("in the same boot it is %s: %s", state, says)
	}
	p := plantest.Make(t, grubEngine(root), confirmWish)
	if len(p.Changes) > 0 || !strings.Contains(p.Refused[0].Reason, "does not run") {
		t.Errorf("a trial that fell back is confirmed: %+v", p)
	}
	runTrial(t, root, false)
	p = plantest.Make(t, grubEngine(root), someTokens)
	if len(p.Changes) > 0 || !strings.Contains(p.Refused[0].Reason, "tried 2 times") {
		t.Errorf("tried a third time: %+v", p)
	}
	e := grubEngine(root)
	if _, err := e.UndoAll(context.Background(), plan.Options{}); err != nil {
		t.Fatal(err)
	}
	if p = plantest.Make(t, e, someTokens); len(p.Changes) != 3 {
		t.Errorf("after undo it is not tried anew: %+v", p)
	}
}

// What update-grub does when it fails, and what becomes of the host.
func TestCmdlineRenderFails(t *testing.T) {
	for name, run := range map[string]func(root string) ([]byte, error){
		"half way": func(root string) ([]byte, error) {
			p := filepath.Join(root, "boot/grub/grub.cfg")
			return []byte("No space left on device"), errors.Join(os.WriteFile(p, []byte(grubTop+"menuentry 'x' {\n"), 0o644), os.WriteFile(p+".new", []byte("x"), 0o600), errors.New("exit status 1"))
		},
		"other default": func(root string) ([]byte, error) {
			out, err := updateGrub(root)
			p := filepath.Join(root, "boot/grub/grub.cfg")
			b, _ := os.ReadFile(p)
			return out, errors.Join(err, os.WriteFile(p, []byte(strings.Replace(string(b), `default="0"`, `default="1"`, 1)), 0o644))
		},
		"without the trial": func(root string) ([]byte, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupGrub(t, root)
			if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
				t.Fatal(err)
			}
			old := plantest.Snapshot(t, root)
			e := grubEngine(root)
			e.Machine.Run = func(_ context.Context, argv []string) ([]byte, error) {
				if argv[0] == "grub-mkconfig" {
					return mkconfig(root, argv, run)
				}
				return editEnv(root, argv)
			}
			r, err := e.Apply(context.Background(), plantest.Make(t, e, someTokens), plan.Options{Allow: []plan.Tier{plan.Boot}})
			if err != nil || r.Outcome != plan.Restored || r.Exit() != 4 {
				t.Fatal(err, r)
			}
			if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
				t.Errorf("the host is not as it was:\n%s", d)
			}
		})
	}
}

// Undo of a confirmed change renders anew where the menu was rendered since.
func TestCmdlineUndoAfterKernelUpdate(t *testing.T) {
	root := plantest.TempDir(t)
	setupGrub(t, root)
	runTrial(t, root, true)
	e := grubEngine(root)
	r, err := e.Apply(context.Background(), plantest.Make(t, e, confirmWish), plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatal(err, r)
	}
	p := filepath.Join(root, "boot/grub/grub.cfg")
	b, _ := os.ReadFile(p)
	if err := os.WriteFile(p, append(b, "# rendered by a newer update-grub\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := e.UndoAll(context.Background(), plan.Options{}); err != nil {
		t.Fatal(err)
	}
	_, boot := bootOf(t, root)
	if *boot.Entry.Cmdline != "root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on" || boot.MenuEntry(facts.TrialEntry) != nil {
		t.Errorf("after undo: %+v", boot.Entry)
	}
}

// Where no trial is possible, or tokens cannot be, all is refused with the reason.
func TestCmdlineRefusals(t *testing.T) {
	env := func(text string) map[string]string { return map[string]string{"/boot/grub/grubenv": text} }
	for name, tt := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		reason string
	}{
		"LVM":              {map[string]string{"/proc/mounts": "/dev/mapper/vg-root / ext4 rw 0 0\n"}, nil, "GRUB does not write through LVM"},
		"btrfs":            {map[string]string{"/proc/mounts": "/dev/sda1 / btrfs rw 0 0\n"}, nil, "btrfs, which GRUB does not write"},
		"no block":         {env("x"), nil, "which is malformed"},
		"stale menu":       {map[string]string{"/etc/default/grub.d/60-x.cfg": "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT new\"\n"}, nil, "run update-grub first"},
		"only a shell":     {map[string]string{"/etc/default/grub.d/60-x.cfg": "GRUB_CMDLINE_LINUX=`x`\n"}, nil, "known to a shell only"},
		"no next_entry":    {map[string]string{"/boot/grub/grub.cfg": "menuentry 'Debian GNU/Linux' --id simple {\n\tlinux\t/boot/vmlinuz-6.12 root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on\n}\n"}, nil, "does not take next_entry back"},
		"/boot away":       {map[string]string{"/etc/fstab": "UUID=b /boot ext4 defaults 0 2\n"}, nil, "/boot is in /etc/fstab and not mounted"},
		"somebody's file":  {map[string]string{"/etc/default/grub.d/zz-hostcheck.cfg": "# mine\n"}, nil, "not of hostcheck's making"},
		"console":          {nil, []plan.Wish{tokenWish("console=ttyS0", fixes.TokenAbsent)}, "never takes console= off"},
		"root":             {nil, []plan.Wish{tokenWish("root=UUID=a", fixes.TokenAbsent)}, "never takes root= off"},
		"elsewhere":        {nil, []plan.Wish{tokenWish("ro", fixes.TokenAbsent)}, "stands in neither of GRUB's settings"},
		"too long":         {nil, []plan.Wish{tokenWish("x="+strings.Repeat("y", 2000), fixes.TokenPresent)}, "bytes, and the kernel reads 2047"},
		"boot CPU":         {map[string]string{"/sys/devices/system/cpu/possible": "0-3\n", "/sys/devices/system/cpu/present": "0-3\n", "/sys/devices/system/cpu/online": "0-3\n"}, []plan.Wish{tokenWish("isolcpus=0-2", fixes.TokenPresent)}, "would isolate the boot CPU"},
		"once already":     {env("NEXT"), nil, "the next boot is another entry already"},
		"unknown words":    {nil, []plan.Wish{tokenWish(manyWords(32), fixes.TokenPresent)}, "it panics at more than 31"},
		"nothing to fix":   {nil, []plan.Wish{tokenWish("quiet", fixes.TokenPresent)}, "GRUB's settings say so already"},
		"no update-grub":   {map[string]string{"/usr/sbin/grub-mkconfig": "-"}, nil, "/usr/sbin/grub-mkconfig is not there"},
		"kernel is gone":   {map[string]string{"/boot/vmlinuz-6.12": "-", "/boot/vmlinuz-6.11": ""}, nil, "which is not there"},
		"a shell's quotes": {map[string]string{"/etc/default/grub": "GRUB_CMDLINE_LINUX=\"console=ttyS0 nosmt\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet hugepages=8 amd_iommu=on x='y'\"\n"}, nil, "single quote"},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupGrub(t, root)
			for p, text := range tt.files {
				switch text {
				case "-":
					if err := os.Remove(filepath.Join(root, p)); err != nil {
						t.Fatal(err)
					}
				case "NEXT":
					b, err := facts.FormatGrubenv([]string{"next_entry"}, map[string]string{"next_entry": "recovery"})
					if err != nil {
						t.Fatal(err)
					}
					text = string(b)
					fallthrough
				default:
					plantest.Files(t, root, map[string]string{p: text})
				}
			}
			if name == "a shell's quotes" {
				if out, err := updateGrub(root); err != nil {
					t.Fatal(err, string(out))
				}
			}
			wishes := tt.wishes
			if wishes == nil {
				wishes = someTokens
			}
			p := plantest.Make(t, grubEngine(root), wishes)
			if len(p.Changes) > 0 || len(p.Refused) != len(wishes) || !strings.Contains(p.Refused[0].Reason, tt.reason) || len(p.Refused[0].Steps) == 0 {
				t.Errorf("want the reason %q, got %d changes and %q", tt.reason, len(p.Changes), reasonsOf(p))
			}
		})
	}
}

func reasonsOf(p plan.Plan) (reasons []string) {
	for _, r := range p.Refused {
		reasons = append(reasons, r.Reason)
	}
	return reasons
}

func manyWords(n int) string {
	var w []string
	for i := range n {
		w = append(w, fmt.Sprintf("unheard%d=1", i))
	}
	return strings.Join(w, " ")
}
