// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	aboveNIC = "0000:99:00.0"
	aboveGPU = "0000:99:01.0"
)

// setupACS is a host with a NIC and a GPU below one switch, the ports above
// them closed by an IOMMU driver, and a command line that sets another port.
func setupACS(tb testing.TB, root string) {
	tb.Helper()
	a, err := fixture.Parse("../testdata/checks/acs.redirect/pass.txtar")
	if err != nil {
		tb.Fatal(err)
	}
	if err := a.Write(root); err != nil {
		tb.Fatal(err)
	}
	setACS(tb, root, aboveNIC, 0x1d)
	setACS(tb, root, aboveGPU, 0x1d)
	setupGrub(tb, root)
	setDefault(tb, root, `quiet pci=realloc,config_acs=\"xx111x1@0000:05:00.0;xx111x1@`+aboveNIC+`\" amd_iommu=on`)
}

// setACS writes the control register of a port.
func setACS(tb testing.TB, root, bdf string, ctl byte) {
	tb.Helper()
	p := filepath.Join(root, "sys/bus/pci/devices", bdf, "config")
	b, err := os.ReadFile(p)
	if err != nil {
		tb.Fatal(err)
	}
	b[0x16e] = ctl
	if err := os.WriteFile(p, b, 0o644); err != nil {
		tb.Fatal(err)
	}
}

// setDefault makes a host that was booted with GRUB_CMDLINE_LINUX_DEFAULT.
func setDefault(tb testing.TB, root, value string) {
	tb.Helper()
	plantest.Files(tb, root, map[string]string{"/etc/default/grub": "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"" + value + "\"\n"})
	if out, err := updateGrub(root); err != nil {
		tb.Fatal(err, string(out))
	}
	_, b := bootOf(tb, root)
	plantest.Files(tb, root, map[string]string{"/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.12 " + *b.Entry.Cmdline + "\n"})
}

// redirect runs the check under an intent that somebody stated.
func redirect(tb testing.TB, root, intent string) []check.Finding {
	tb.Helper()
	return findings(tb, root, "acs.redirect", trial.Options{Intent: intent})
}

func findings(tb testing.TB, root, id string, opt trial.Options) []check.Finding {
	tb.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	defer h.Close()
	i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == id })
	out, err := trial.Run(h, checks.All()[i:i+1], opt)
	if err != nil {
		tb.Fatal(err)
	}
	return out.Results[0].Findings
}

var openPorts = []plan.Wish{port(aboveNIC, "xx000x0"), port(aboveGPU, "xx000x0"), tokenWish("iommu=pt", fixes.TokenPresent), tokenWish("amd_iommu=on", fixes.TokenAbsent)}

const (
	openOption = "pci=config_acs=xx000x0@0000:99:00.0;xx000x0@0000:99:01.0;xx111x1@0000:05:00.0"
	openLine   = "root=UUID=a ro quiet pci=realloc " + openOption + " iommu=pt"
)

// The ports of an intent and tokens are one trial, after which the check is pending.
func TestACSTrial(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setupACS, Engine: grubEngine, Wishes: openPorts}, func(root string) error {
		_, b := bootOf(t, root)
		if line, _, _ := strings.Cut(*b.Entry.Cmdline, " panic=30 "); !sameWords(line, openLine) || b.Trial() == "" {
			return fmt.Errorf("the next boot has %q", line)
		}
		for _, f := range redirect(t, root, "baremetal-gpudirect") {
			if f.Status != check.Pass && !f.Pending || len(f.Fix) > 0 {
				return fmt.Errorf("%s %s: %s", f.Status, f.Subject, f.Why)
			}
		}
		return nil
	})
	if len(p.Changes) != 3 || len(p.Refused) != 0 {
		t.Errorf("%+v", p)
	}
}

// sameWords compares command lines but for the order of their words.
func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// What the check wishes is what the verb takes.
func TestACSWishesOfTheCheck(t *testing.T) {
	root := plantest.TempDir(t)
	setupACS(t, root)
	var wishes []plan.Wish
	for _, f := range redirect(t, root, "baremetal-gpudirect") {
		wishes = append(wishes, f.Fix...)
	}
	if p := plantest.Make(t, grubEngine(root), wishes); len(wishes) != 2 || len(p.Changes) != 3 || len(p.Refused) != 0 {
		t.Errorf("%d wishes: %+v", len(wishes), p)
	}
}

// Pools that the trial asks for are pending, and nothing is left to fix.
func TestPoolsOfATrial(t *testing.T) {
	root := plantest.TempDir(t)
	setupACS(t, root)
	pools := func() (open, pending int) {
		for _, f := range findings(t, root, "hugepages.pool", trial.Options{Set: []string{"hugepages.pools.2M.per_node=16"}}) {
			switch {
			case f.Pending && f.Fix == nil:
				pending++
			case f.Status == check.Fail:
				open++
			}
		}
		return open, pending
	}
	if open, pending := pools(); open != 2 || pending != 0 {
		t.Errorf("before the trial %d are open and %d pending", open, pending)
	}
	e := grubEngine(root)
	p := plantest.Make(t, e, []plan.Wish{tokenWish("hugepagesz=2M hugepages=0:16,1:16", fixes.TokenPresent)})
	if _, err := e.Apply(t.Context(), p, plan.Options{Allow: []plan.Tier{plan.Boot}}); err != nil {
		t.Fatal(err)
	}
	if open, pending := pools(); open != 0 || pending != 2 {
		t.Errorf("with the trial armed %d are open and %d pending", open, pending)
	}
}

// Confirmed, the option goes through a shell, update-grub and GRUB, and the
// semicolons are still there; undo gives back each byte.
func TestACSConfirm(t *testing.T) {
	root := plantest.TempDir(t)
	setupACS(t, root)
	bootTrial(t, root, openPorts, true)
	if err := os.RemoveAll(filepath.Join(root, plan.Dir)); err != nil {
		t.Fatal(err)
	}
	old := plantest.Snapshot(t, root)
	e := grubEngine(root)
	r, err := e.Apply(t.Context(), plantest.Make(t, e, confirmWish), plan.Options{Allow: []plan.Tier{plan.Boot}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatal(err, r)
	}
	f, b := bootOf(t, root)
	if b.Entry.ID != "simple" || !sameWords(*b.Entry.Cmdline, openLine) || b.Between("configured", "next_boot") != nil || len(b.Problems) > 0 {
		t.Errorf("confirmed: %+v, %+v, %+v", b.Entry, b.Drift, b.Problems)
	}
	if asked := f.ConfiguredCmdline().Effects.ACS; asked == nil || "pci="+*asked != openOption {
		t.Errorf("the settings ask for %v", asked)
	}
	if r, err = e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
		t.Fatal(err, r)
	}
	if d := plantest.Diff(old, plantest.Snapshot(t, root)); d != "" {
		t.Errorf("undo does not give back the tree:\n%s", d)
	}
}

// A token that both a rule and a port change is changed once.
func TestACSBesideOtherWordsOfPCI(t *testing.T) {
	root := plantest.TempDir(t)
	setupACS(t, root)
	raw, rest := "pci=realloc,config_acs=xx111x1@0000:05:00.0;xx111x1@"+aboveNIC, "pci=config_acs=xx111x1@0000:05:00.0;xx111x1@"+aboveNIC
	bootTrial(t, root, []plan.Wish{tokenWish(raw, fixes.TokenAbsent), tokenWish(rest, fixes.TokenPresent), port(aboveGPU, "xx000x0")}, true)
	f, _ := bootOf(t, root)
	if asked := *f.Cmdline().Effects.ACS; asked != "config_acs=xx000x0@"+aboveGPU+";xx111x1@0000:05:00.0;xx111x1@"+aboveNIC || strings.Contains(*f.Cmdline().Text, "realloc") {
		t.Errorf("%s", *f.Cmdline().Text)
	}
}

// Of ports that a boot of this kernel would not bring to what is wished none is
// tried; the others are, and so are the tokens.
func TestACSKernels(t *testing.T) {
	open, closed := port(aboveNIC, "xx000x0"), port(aboveGPU, "xx111x1")
	for name, tt := range map[string]struct {
		release string
		nic     byte // what the ports hold
		gpu     byte
		line    string
		wishes  []plan.Wish
		option  string // of the trial
		reason  string // of the refusal
	}{
		"to close, old kernel":            {"6.8.0-60-generic", 0x1d, 0, "quiet", []plan.Wish{closed}, "", "older than 6.11"},
		"SrcValid stays, old kernel":      {"6.8.0-60-generic", 0x1d, 0, "quiet", []plan.Wish{open}, "", "older than 6.11"},
		"redirection, old kernel":         {"6.8.0-60-generic", 0x0c, 0, "quiet pci=disable_acs_redir=0000:05:00.0", []plan.Wish{open}, "disable_acs_redir=0000:99:00.0;0000:05:00.0", ""},
		"one opens, one closes":           {"6.8.0-60-generic", 0x0c, 0, "quiet", []plan.Wish{open, closed}, "disable_acs_redir=0000:99:00.0", "older than 6.11"},
		"two ports, without the fix":      {"6.12.22-amd64", 0, 0, "quiet", []plan.Wish{port(aboveNIC, "xx111x1"), closed}, "", "takes the first port"},
		"another port, without the fix":   {"6.13.4", 0, 0, `quiet pci=config_acs=\"xx111x1@0000:05:00.0\"`, []plan.Wish{closed}, "", "takes the first port"},
		"one to close, without the fix":   {"6.14.0-27-generic", 0, 0, "quiet", []plan.Wish{closed}, "config_acs=xx111x1@0000:99:01.0", ""},
		"one to open, without the fix":    {"6.11.9", 0x1d, 0, "quiet", []plan.Wish{open}, "", "as the firmware had it"},
		"two ports, with the fix":         {"6.14.2", 0x1d, 0, "quiet", []plan.Wish{open, closed}, "config_acs=xx000x0@0000:99:00.0;xx111x1@0000:99:01.0", ""},
		"redirection of others, new":      {"6.15.0", 0x1d, 0, "quiet pci=disable_acs_redir=0000:05:00.0", []plan.Wish{open}, "disable_acs_redir=0000:05:00.0 config_acs=xx000x0@0000:99:00.0", ""},
		"closed already, old kernel":      {"6.8.0-60-generic", 0, 0x1d, "quiet", []plan.Wish{closed}, "", "older than 6.11"},
		"a port that is not there":        {"6.15.0", 0x1d, 0, "quiet", []plan.Wish{port("0000:ff:00.0", "xx000x0")}, "", "not known"},
		"an unknown kernel":               {"custom", 0x1d, 0, "quiet", []plan.Wish{open}, "", "release of the kernel is not known"},
		"nobody can tell what that means": {"6.15.0", 0x1d, 0, "quiet", []plan.Wish{port(aboveNIC, "open")}, "", "is not seven of"},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			setupACS(t, root)
			plantest.Files(t, root, map[string]string{"/proc/sys/kernel/osrelease": tt.release + "\n"})
			setACS(t, root, aboveNIC, tt.nic)
			setACS(t, root, aboveGPU, tt.gpu)
			setDefault(t, root, tt.line)
			p := plantest.Make(t, grubEngine(root), append(tt.wishes, tokenWish("iommu=pt", fixes.TokenPresent)))
			if got := strings.Join(reasonsOf(p), "\n"); !strings.Contains(got, tt.reason) || (got == "") != (tt.reason == "") {
				t.Errorf("refused: %q", got)
			}
			for _, r := range p.Refused {
				if r.Kind != "acs" || len(r.Steps) == 0 && !strings.Contains(r.Reason, "seven of") {
					t.Errorf("%+v", r)
				}
			}
			bootTrial(t, root, append(tt.wishes, tokenWish("iommu=pt", fixes.TokenPresent)), true)
			f, b := bootOf(t, root)
			want := tt.option
			if i := strings.Index(tt.line, "pci="); want == "" && i >= 0 {
				want = strings.ReplaceAll(tt.line[i+len("pci="):], `\"`, "")
			}
			if got := *f.Cmdline().Effects.ACS; got != want || len(f.Cmdline().Find("iommu")) == 0 || b.LiveTrial() == "" {
				t.Errorf("the trial has %q, want %q", got, want)
			}
		})
	}
}
