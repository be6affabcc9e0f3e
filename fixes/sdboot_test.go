// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	oldOptions  = "root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on systemd.machine_id=m"
	newOptions  = "root=UUID=a ro console=ttyS0 quiet hugepages=8 amd_iommu=pgtbl_v2 hugepagesz=2M hugepages=16 pci=config_acs=x@0000:01:00.0;x@0000:02:00.0 systemd.machine_id=m"
	newSettings = "root=UUID=a ro console=ttyS0 quiet hugepages=8 amd_iommu=pgtbl_v2 hugepagesz=2M hugepages=16 pci=config_acs=x@0000:01:00.0;x@0000:02:00.0\n"
	trialFile   = "/efi/loader/entries/hostcheck-trial.conf"
	entry612    = "/efi/loader/entries/m-6.12.conf"
	entry611    = "/efi/loader/entries/m-6.11.conf"
)

func type1(version, options string) string {
	return "# Boot Loader Specification type#1 entry\ntitle      Debian GNU/Linux 13\nversion    " + version + "\nmachine-id m\nsort-key   debian\noptions    " + options +
		"\nlinux      /m/" + version + "/linux\ninitrd     /m/" + version + "/initrd\n"
}

func efiVarFile(name string) string {
	return "/sys/firmware/efi/efivars/" + name + "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
}

// efiText is a variable as efivarfs shows it: attributes, then UTF-16.
func efiText(text string) string {
	b := []byte{7, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(text + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

func efiFeatures(bits uint64) string {
	return string(binary.LittleEndian.AppendUint64([]byte{6, 0, 0, 0}, bits))
}

// sdbootTree is a host of Debian's with systemd-boot: two kernels with the same
// command line, and an entry of the owner's own with another.
var sdbootTree = map[string]string{
	"/etc/os-release":                 "ID=debian\n",
	"/etc/kernel/cmdline":             "root=UUID=a ro console=ttyS0 nosmt quiet hugepages=8 amd_iommu=on\n",
	"/usr/bin/bootctl":                "",
	"/efi/loader/loader.conf":         "timeout 0\n",
	entry612:                          type1("6.12", oldOptions),
	entry611:                          type1("6.11", oldOptions),
	"/efi/loader/entries/rescue.conf": "title rescue\nlinux /m/6.11/linux\noptions root=UUID=a ro single\n",
	"/efi/m/6.12/linux":               "", "/efi/m/6.12/initrd": "",
	"/efi/m/6.11/linux": "", "/efi/m/6.11/initrd": "",
	efiVarFile("LoaderInfo"):     efiText("systemd-boot 257.9-1"),
	efiVarFile("LoaderFeatures"): efiFeatures(0x1fffff),
	"/proc/cmdline":              `initrd=\m\6.12\initrd ` + oldOptions + "\n",
	"/proc/mounts":               "/dev/sda2 / ext4 rw 0 0\n/dev/sda1 /efi vfat rw,umask=0077 0 0\nefivarfs /sys/firmware/efi/efivars efivarfs rw 0 0\n",
	"/proc/sys/kernel/arch":      "x86_64\n",
	"/sys/devices/system/node/":  "",
}

func setupSystemdBoot(tb testing.TB, root string) {
	plantest.Files(tb, root, sdbootTree)
}

// bootctl is "bootctl set-oneshot ID".
func bootctl(root string, argv []string) ([]byte, error) {
	if len(argv) != 3 || argv[0] != "bootctl" || argv[1] != "set-oneshot" {
		return nil, fmt.Errorf("unexpected %q", argv)
	}
	p := filepath.Join(root, efiVarFile("LoaderEntryOneShot"))
	if argv[2] == "" {
		if err := os.Remove(p); !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return nil, nil
	}
	temp := filepath.Join(root, "new-variable")
	if err := os.WriteFile(temp, []byte(efiText(argv[2])), 0o644); err != nil {
		return nil, err
	}
	return nil, os.Rename(temp, p)
}

func sdbootEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Verbs: fixes.All(), Machine: &plan.Machine{Run: func(_ context.Context, argv []string) ([]byte, error) { return bootctl(root, argv) }}}
}

func sdbootCase(upTo func(tb testing.TB, root string), wishes []plan.Wish) plantest.Case {
	return plantest.Case{Setup: func(tb testing.TB, root string) {
		setupSystemdBoot(tb, root)
		upTo(tb, root)
		if err := os.RemoveAll(filepath.Join(root, plan.Dir)); err != nil {
			tb.Fatal(err)
		}
	}, Engine: sdbootEngine, Wishes: wishes}
}

func applyBoot(tb testing.TB, e *plan.Engine, wishes []plan.Wish) plan.Result {
	tb.Helper()
	p := plantest.Make(tb, e, wishes)
	if len(p.Refused) > 0 {
		tb.Fatal(reasonsOf(p))
	}
	r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		tb.Fatal(err, r)
	}
	return r
}

// bootEntryTrial is what systemd-boot and the kernel do with an armed trial.
func bootEntryTrial(tb testing.TB, root string, comesUp bool) {
	tb.Helper()
	_, b := bootOf(tb, root)
	if b.Entry == nil || b.Entry.ID != "hostcheck-trial.conf" {
		tb.Fatalf("the next boot is %+v", b.Entry)
	}
	if _, err := bootctl(root, []string{"bootctl", "set-oneshot", ""}); err != nil {
		tb.Fatal(err)
	}
	if comesUp {
		plantest.Files(tb, root, map[string]string{"/proc/cmdline": `initrd=\m\6.12\initrd ` + *b.Entry.Cmdline + "\n"})
	}
}

func runEntryTrial(tb testing.TB, root string) {
	tb.Helper()
	applyBoot(tb, sdbootEngine(root), someTokens)
	bootEntryTrial(tb, root, true)
}

func readTree(tb testing.TB, root, p string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(root, p))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// A trial is planned, armed and taken back; the entry that boots by default
// stays as it was.
func TestSystemdBootTrial(t *testing.T) {
	p := plantest.ClosedLoop(t, sdbootCase(func(testing.TB, string) {}, someTokens), func(root string) error {
		_, b := bootOf(t, root)
		if b.Entry == nil || b.Entry.ID != "hostcheck-trial.conf" || !b.Once {
			return fmt.Errorf("the next boot is %+v", b.Entry)
		}
		line, trial, ok := strings.Cut(*b.Entry.Cmdline, " panic=30 hostcheck.trial=")
		if line != newOptions || !ok || !strings.HasSuffix(trial, ".1") || b.Trial() != trial {
			return fmt.Errorf("the trial has %q", *b.Entry.Cmdline)
		}
		if b.Entry.Kernel != "/m/6.12/linux" || strings.Join(b.Entry.Initrd, " ") != "/m/6.12/initrd" {
			return fmt.Errorf("the trial boots %s %s", b.Entry.Kernel, b.Entry.Initrd)
		}
		if u := b.Usual(); u == nil || u.ID != "m-6.12.conf" || *u.Cmdline != oldOptions {
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
	if got := strings.Join(kinds, ", "); got != "file "+trialFile+", systemd-boot oneshot" {
		t.Errorf("the plan is %s", got)
	}
}

func TestSystemdBootTrialCrash(t *testing.T) {
	plantest.CrashLaw(t, sdbootCase(func(testing.TB, string) {}, someTokens))
}

func TestSystemdBootConfirmCrash(t *testing.T) {
	plantest.CrashLaw(t, sdbootCase(runEntryTrial, confirmWish))
}

// A rescue system takes an armed trial back on the mounted disk; the firmware's
// choice of an entry that is not there has no effect.
func TestSystemdBootRescue(t *testing.T) {
	root := plantest.TempDir(t)
	setupSystemdBoot(t, root)
	plantest.Files(t, root, map[string]string{"/var/lib/": ""})
	old := plantest.Snapshot(t, root)
	r := applyBoot(t, sdbootEngine(root), someTokens)
	rescue := &plan.Engine{Root: root, Verbs: fixes.All()}
	if r, err := rescue.Undo(context.Background(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatal(err, r)
	}
	if _, err := bootctl(root, []string{"bootctl", "set-oneshot", ""}); err != nil { // as the next boot does
		t.Fatal(err)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

// A trial that runs is confirmed: the tokens enter the settings and the entries
// that had the old line, and the trial is gone.
func TestSystemdBootConfirm(t *testing.T) {
	// without settings the whole line is them, and what is new comes last
	const machine = " systemd.machine_id=m"
	whole := strings.Replace(strings.TrimSuffix(newOptions, machine), "pgtbl_v2", "pgtbl_v2"+machine, 1)
	for name, want := range map[string][2]string{"with settings": {newSettings, newOptions}, "without": {whole + "\n", whole}} {
		t.Run(name, func(t *testing.T) {
			settings, options := want[0], want[1]
			root := plantest.TempDir(t)
			setupSystemdBoot(t, root)
			if name == "without" {
				if err := os.Remove(filepath.Join(root, "etc/kernel/cmdline")); err != nil {
					t.Fatal(err)
				}
			}
			plantest.Files(t, root, map[string]string{"/var/lib/": ""})
			old := plantest.Snapshot(t, root)
			runEntryTrial(t, root)
			e := sdbootEngine(root)
			applyBoot(t, e, confirmWish)
			f, b := bootOf(t, root)
			if b.Entry.ID != "m-6.12.conf" || *b.Entry.Cmdline != options || b.Once || b.Between("configured", "next_boot") != nil || fixes.ReadTrial(f) != nil {
				t.Errorf("confirmed: %+v, %+v", b.Entry, b.Drift)
			}
			for p, want := range map[string]string{
				"/etc/kernel/cmdline": settings, entry612: type1("6.12", options), entry611: type1("6.11", options),
				"/efi/loader/entries/rescue.conf": sdbootTree["/efi/loader/entries/rescue.conf"],
			} {
				if got := readTree(t, root, p); got != want {
					t.Errorf("%s is\n%s\nwant\n%s", p, got, want)
				}
			}
			if rs, err := e.UndoAll(context.Background(), plan.Options{}); err != nil || len(rs) != 2 {
				t.Fatal(err, rs)
			}
			plantest.Files(t, root, map[string]string{"/proc/cmdline": sdbootTree["/proc/cmdline"]})
			if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
				t.Errorf("undo does not give back the tree:\n%s", d)
			}
		})
	}
}

// Undo of a confirmed change reaches the kernel that came since, and does not
// bring back the entry of one that went.
func TestSystemdBootUndoAfterKernelUpdate(t *testing.T) {
	root := plantest.TempDir(t)
	setupSystemdBoot(t, root)
	runEntryTrial(t, root)
	e := sdbootEngine(root)
	applyBoot(t, e, confirmWish)
	plantest.Files(t, root, map[string]string{"/efi/loader/entries/m-6.13.conf": type1("6.13", newOptions), "/efi/m/6.13/linux": "", "/efi/m/6.13/initrd": ""})
	if err := os.Remove(filepath.Join(root, entry611)); err != nil {
		t.Fatal(err)
	}
	if rs, err := e.UndoAll(context.Background(), plan.Options{}); err != nil || len(rs) != 2 || rs[0].Outcome != plan.Undone || rs[1].Outcome != plan.Undone {
		t.Fatal(err, rs)
	}
	_, b := bootOf(t, root)
	if b.Entry.ID != "m-6.13.conf" || *b.Entry.Cmdline != oldOptions || b.MenuEntry(facts.TrialEntry) != nil {
		t.Errorf("after undo: %+v", b.Entry)
	}
	if _, err := os.Lstat(filepath.Join(root, entry611)); err == nil {
		t.Error("the entry of a kernel that is gone came back")
	}
}

// The state of a trial from one boot to the next, and how often it is tried.
func TestSystemdBootTrialState(t *testing.T) {
	root := plantest.TempDir(t)
	setupSystemdBoot(t, root)
	e := sdbootEngine(root)
	state := func(rebooted bool) string {
		t.Helper()
		f, _ := bootOf(t, root)
		tr := fixes.ReadTrial(f)
		if tr == nil {
			return "none"
		}
		s, _ := tr.State(rebooted)
		return s
	}
	want := func(step, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: it is %s, want %s", step, got, want)
		}
	}
	want("at first", state(true), "none")
	p := plantest.Make(t, e, someTokens)
	applyBoot(t, e, someTokens)
	want("armed", state(false), fixes.TrialArmed)
	f, _ := bootOf(t, root)
	if tr := fixes.ReadTrial(f); !tr.IsTrial(p.Changes[0]) || tr.IsTrial(p.Changes[1]) || !strings.HasPrefix(tr.Cmdline, newOptions+" panic=30 ") || tr.DropIn != newSettings {
		t.Errorf("armed: %+v", tr)
	}
	if p := plantest.Make(t, e, someTokens); len(p.Changes)+len(p.Refused) > 0 {
		t.Errorf("armed, it is planned again: %+v", p)
	}
	bootEntryTrial(t, root, false)
	want("taken back by hand", state(false), fixes.TrialDisarmed)
	want("after the first try", state(true), fixes.TrialFellBack)
	if p := plantest.Make(t, e, confirmWish); len(p.Changes) > 0 || !strings.Contains(p.Refused[0].Reason, "does not run") {
		t.Errorf("a trial that fell back is confirmed: %+v", p)
	}
	applyBoot(t, e, someTokens)
	f, _ = bootOf(t, root)
	if tr := fixes.ReadTrial(f); tr.Try != 2 || !tr.Armed {
		t.Errorf("the second try: %+v", tr)
	}
	bootEntryTrial(t, root, false)
	if p := plantest.Make(t, e, someTokens); len(p.Changes) > 0 || !strings.Contains(p.Refused[0].Reason, "tried 2 times") {
		t.Errorf("tried a third time: %+v", p)
	}
	if _, err := e.UndoAll(context.Background(), plan.Options{}); err != nil {
		t.Fatal(err)
	}
	want("after the undo", state(true), "none")
	runEntryTrial(t, root)
	want("booted", state(true), fixes.TrialRunning)
	plantest.Files(t, root, map[string]string{"/etc/kernel/cmdline": "root=UUID=b\n"})
	if p := plantest.Make(t, e, confirmWish); len(p.Changes) > 0 || !strings.Contains(p.Refused[0].Reason, "changed since the trial was planned") {
		t.Errorf("confirmed with other settings: %+v", p)
	}
}

// The unit that judges a trial comes with it and goes with the confirmation.
func TestSystemdBootTrialUnit(t *testing.T) {
	root := plantest.TempDir(t)
	setupSystemdBoot(t, root)
	plantest.Files(t, root, map[string]string{
		"/run/systemd/system/": "", "/etc/systemd/system/": "", "/usr/local/sbin/": "", "/var/lib/": "", "/root/hostcheck": "the program\n",
	})
	old := plantest.Snapshot(t, root)
	e := sdbootEngine(root)
	e.Self = "/root/hostcheck"
	systemctl := plantest.Systemctl(root, nil)
	e.Machine.Run = func(ctx context.Context, argv []string) ([]byte, error) {
		if argv[0] == "systemctl" {
			return systemctl(ctx, argv)
		}
		return bootctl(root, argv)
	}
	for _, wishes := range [][]plan.Wish{someTokens, confirmWish} {
		r, err := e.Apply(context.Background(), completeWith(t, e, wishes, func() []string { return judgingArgs }), plan.Options{Allow: []plan.Tier{plan.Boot}})
		if err != nil || r.Outcome != plan.Applied {
			t.Fatal(err, r)
		}
		_, err = os.Lstat(filepath.Join(root, trialUnit))
		if there := err == nil; there != (&wishes[0] == &someTokens[0]) {
			t.Errorf("the unit is there: %v", there)
		}
		if len(wishes) > 1 {
			bootEntryTrial(t, root, true)
		}
	}
	if _, err := e.UndoAll(context.Background(), plan.Options{}); err != nil {
		t.Fatal(err)
	}
	plantest.Files(t, root, map[string]string{"/proc/cmdline": sdbootTree["/proc/cmdline"]})
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

// Nothing is chosen where the entries are not those of the plan any more, and a
// bootctl that fails leaves nothing behind.
func TestSystemdBootArmFails(t *testing.T) {
	for name, tt := range map[string]struct {
		files  map[string]string
		run    func(root string) ([]byte, error)
		reason string
	}{
		"another default": {files: map[string]string{"/efi/loader/entries/m-6.13.conf": type1("6.13", "root=UUID=b")}, reason: "not the one that it was"},
		"bootctl fails":   {run: func(string) ([]byte, error) { return []byte("no space"), errors.New("exit status 1") }, reason: "no space"},
		"not set":         {run: func(string) ([]byte, error) { return nil, nil }, reason: "still reads absent"},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupSystemdBoot(t, root)
			e := sdbootEngine(root)
			p := plantest.Make(t, e, someTokens)
			plantest.Files(t, root, map[string]string{"/var/lib/": ""})
			plantest.Files(t, root, tt.files)
			old := plantest.Snapshot(t, root)
			if tt.run != nil {
				e.Machine.Run = func(_ context.Context, argv []string) ([]byte, error) { return tt.run(root) }
			}
			r, err := e.Apply(context.Background(), p, plan.Options{Allow: []plan.Tier{plan.Boot}})
			if err != nil || r.Outcome != plan.Restored || !strings.Contains(r.Cause.Error(), tt.reason) {
				t.Fatal(err, r)
			}
			if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
				t.Errorf("the host is not as it was:\n%s", d)
			}
		})
	}
}

// Where no trial is possible, or tokens cannot be, all is refused with the reason.
func TestSystemdBootRefusals(t *testing.T) {
	mounts := sdbootTree["/proc/mounts"]
	for name, tt := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		reason string
	}{
		"no variables":       {map[string]string{efiVarFile("LoaderInfo"): "-", efiVarFile("LoaderFeatures"): "-"}, nil, "no variable of systemd-boot is seen"},
		"no one-shot":        {map[string]string{efiVarFile("LoaderFeatures"): efiFeatures(0x1fffff &^ 8)}, nil, "cannot boot an entry once"},
		"variables kept out": {map[string]string{"/proc/mounts": strings.Replace(mounts, "efivarfs rw", "efivarfs ro", 1)}, nil, "efivars is mounted read-only"},
		"once already":       {map[string]string{efiVarFile("LoaderEntryOneShot"): efiText("rescue.conf")}, nil, "the next boot is another entry already: rescue.conf"},
		"chosen default":     {map[string]string{efiVarFile("LoaderEntryDefault"): efiText("m-6.11.conf")}, nil, "LoaderEntryDefault is m-6.11.conf"},
		"preferred":          {map[string]string{efiVarFile("LoaderEntryPreferred"): efiText("m-6.11.conf")}, nil, "LoaderEntryPreferred is m-6.11.conf"},
		"saved default":      {map[string]string{"/efi/loader/loader.conf": "default @saved\n"}, nil, "by other means than an entry's name"},
		"unified image":      {map[string]string{entry612: "title x\nuki /EFI/x.efi\nsort-key a\n", "/efi/EFI/x.efi": ""}, nil, "is a unified kernel image"},
		"EFI program":        {map[string]string{entry612: strings.Replace(type1("6.12", oldOptions), "linux ", "efi ", 1)}, nil, "another EFI program"},
		"boots are counted":  {map[string]string{entry612: "-", "/efi/loader/entries/m-6.12+3.conf": type1("6.12", oldOptions)}, nil, "are still counted (m-6.12+3.conf)"},
		"read-only":          {map[string]string{"/proc/mounts": strings.Replace(mounts, "vfat rw", "vfat ro", 1)}, nil, "/efi is mounted read-only"},
		"/boot away":         {map[string]string{"/etc/fstab": "UUID=b /boot vfat defaults 0 2\n"}, nil, "/boot is in /etc/fstab and not mounted"},
		"no bootctl":         {map[string]string{"/usr/bin/bootctl": "-"}, nil, "/usr/bin/bootctl is not there"},
		"seen twice":         {map[string]string{"/boot/loader/entries/M-6.11.conf": type1("6.11", oldOptions), "/boot/m/6.11/linux": "", "/boot/m/6.11/initrd": ""}, nil, "are one entry for systemd-boot"},
		"somebody's file":    {map[string]string{trialFile: "title mine\nlinux /m/6.11/linux\n"}, nil, "not of hostcheck's making"},
		"in the way":         {map[string]string{"/boot/loader/entries/hostcheck-trial.conf": "title mine\nlinux /x\n", "/boot/x": ""}, nil, "is in the way"},
		"stale entries":      {map[string]string{"/etc/kernel/cmdline": sdbootTree["/etc/kernel/cmdline"][:12] + " new\n"}, nil, "was not made from the settings"},
		"several lines":      {map[string]string{"/etc/kernel/cmdline": strings.Replace(sdbootTree["/etc/kernel/cmdline"], " quiet", "\nquiet", 1)}, nil, "more than one line"},
		"two options lines":  {map[string]string{entry612: strings.Replace(type1("6.12", oldOptions), " quiet", "\noptions quiet", 1)}, nil, "not one plain line of options"},
		"a variable":         {map[string]string{"/etc/kernel/cmdline": "root=UUID=a $tuned\n", entry612: type1("6.12", "root=UUID=a $tuned")}, []plan.Wish{tokenWish("iommu=pt", fixes.TokenPresent)}, "not one plain line of options"},
		"quotes":             {map[string]string{"/etc/kernel/cmdline": "-", entry612: type1("6.12", "\"root=UUID=a ro\"")}, []plan.Wish{tokenWish("iommu=pt", fixes.TokenPresent)}, "not one plain line of options"},
		"sorted first":       {map[string]string{entry612: "-", entry611: "-", "/efi/loader/entries/debian.conf": strings.Replace(type1("6.12", oldOptions), "sort-key   debian\n", "", 1), "/efi/loader/entries/rescue.conf": "-"}, nil, "would come before debian.conf"},
		"named default":      {map[string]string{"/efi/loader/loader.conf": "default *-trial.conf\n"}, nil, "would come before m-6.12.conf"},
		"kernel is gone":     {map[string]string{"/efi/m/6.12/linux": "-"}, nil, "which is not there"},
		"console":            {nil, []plan.Wish{tokenWish("console=ttyS0", fixes.TokenAbsent)}, "never takes console= off"},
		"elsewhere":          {nil, []plan.Wish{tokenWish("systemd.machine_id=m", fixes.TokenAbsent)}, "does not stand in /etc/kernel/cmdline"},
		"too long":           {nil, []plan.Wish{tokenWish("x="+strings.Repeat("y", 1880), fixes.TokenPresent)}, "bytes, and the kernel reads 2047"},
		"nothing to fix":     {nil, []plan.Wish{tokenWish("quiet", fixes.TokenPresent)}, "the settings say so already"},
		"unknown words":      {nil, []plan.Wish{tokenWish(manyWords(32), fixes.TokenPresent)}, "it panics at more than 31"},
		"boot CPU":           {map[string]string{"/sys/devices/system/cpu/possible": "0-3\n", "/sys/devices/system/cpu/present": "0-3\n", "/sys/devices/system/cpu/online": "0-3\n"}, []plan.Wish{tokenWish("isolcpus=0-2", fixes.TokenPresent)}, "would isolate the boot CPU"},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupSystemdBoot(t, root)
			for p, text := range tt.files {
				if text == "-" {
					if err := os.Remove(filepath.Join(root, p)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				plantest.Files(t, root, map[string]string{p: text})
			}
			wishes := tt.wishes
			if wishes == nil {
				wishes = someTokens
			}
			p := plantest.Make(t, sdbootEngine(root), wishes)
			if len(p.Changes) > 0 || len(p.Refused) != len(wishes) || tt.reason == "" || !strings.Contains(p.Refused[0].Reason, tt.reason) || len(p.Refused[0].Steps) == 0 {
				t.Errorf("want the reason %q, got %d changes and %q", tt.reason, len(p.Changes), reasonsOf(p))
			}
		})
	}
}

// The trial never boots by default, whatever else is installed.
func TestSystemdBootNeverDefault(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a default by name":  {"/efi/loader/loader.conf": "default m-6.11*\n"},
		"no sort-key, named": {"/efi/loader/loader.conf": "default m-6.12.conf\n", entry612: strings.Replace(type1("6.12", oldOptions), "sort-key   debian\n", "", 1)},
		"tabs and comments":  {entry612: "#x\n\n" + strings.ReplaceAll(type1("6.12", oldOptions), "    ", "\t")},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupSystemdBoot(t, root)
			plantest.Files(t, root, maps.Clone(files))
			_, b := bootOf(t, root)
			usual := *b.Entry
			applyBoot(t, sdbootEngine(root), someTokens)
			if _, b = bootOf(t, root); b.Usual().ID != usual.ID || *b.Usual().Cmdline != *usual.Cmdline || b.Trial() == "" {
				t.Errorf("armed, the default is %+v", b.Usual())
			}
			runs := sdbootEngine(root)
			bootEntryTrial(t, root, true)
			applyBoot(t, runs, confirmWish)
			if _, b = bootOf(t, root); b.Entry.ID != usual.ID || *b.Entry.Cmdline != newOptions {
				t.Errorf("confirmed, the default is %+v", b.Entry)
			}
		})
	}
}
