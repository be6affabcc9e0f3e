// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// A trial with systemd-boot is an entry of type 1 beside the one that boots by
// default. The choice for one boot lies in a variable of the firmware, which
// systemd-boot erases before it boots the entry (src/boot/boot.c,
// config_load_defaults).

const (
	systemdBootName = "systemd-boot"
	trialEntryID    = facts.TrialEntry + ".conf"
	trialEntryFile  = "/loader/entries/" + trialEntryID // below where the boot partition is mounted
	kernelCmdlineIn = "/etc/kernel/cmdline"
	trialTitle      = "hostcheck: trial of another kernel command line"
)

func bySystemdBoot(f *facts.Facts) bool {
	l := f.Boot().Loader
	return l != nil && *l == facts.LoaderSystemdBoot
}

func fileSetting(p string) plan.Setting { return plan.Setting{Kind: plan.KindFile, Target: p} }

// SystemdBoot is what systemd-boot boots: kind "systemd-boot", Name one of the
// names below. Only the verb cmdline makes changes of this kind; nobody wishes
// for them.
type SystemdBoot struct{}

// The names of settings of systemd-boot.
const (
	EntryDefault = "default" // the command line of the entry that boots by default, and of those that have the same
	EntryOneShot = "oneshot" // the entry that is booted once; absent without one
)

func systemdBootSetting(name string) plan.Setting {
	return plan.Setting{Kind: SystemdBoot{}.Kind(), Name: name}
}

// Kind is "systemd-boot".
func (SystemdBoot) Kind() string { return "systemd-boot" }

// Read reads the entries, or the variable.
func (SystemdBoot) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	switch s.Name {
	case EntryDefault:
		b := facts.New(h).Boot()
		return lineOf(b, b.Usual()), nil
	case EntryOneShot:
		id, err := facts.LoaderVar(h, "LoaderEntryOneShot")
		if err != nil || id == "" {
			return plan.Absent, err
		}
		return plan.Text(id), nil
	}
	return plan.Absent, fmt.Errorf("%s is not a setting of systemd-boot that hostcheck knows", s)
}

// Kept: the entries are files, the choice for one boot is the firmware's.
func (SystemdBoot) Kept(s plan.Setting) bool { return s.Name == EntryDefault }

// Apply rewrites entries, and has bootctl choose one. It chooses nothing where
// the entries do not read as they were planned.
func (SystemdBoot) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		if c.Name == EntryDefault {
			if err := rewriteEntries(tx, c.Before.Text, c.After.Text); err != nil {
				return err
			}
			continue
		}
		if c.After.Present {
			if err := asPlanned(tx); err != nil {
				return err
			}
		}
		if err := tx.Run("bootctl", "set-oneshot", c.After.Text); err != nil {
			return err
		}
	}
	return nil
}

// rewriteEntries gives all entries that have one command line another. By hand
// it would be "kernel-install add" for each kernel; that copies kernel and
// initial ramdisk over those that the default entry boots, and a power cut
// meanwhile would leave it unable to. Here one small file after the other takes
// its place at once. Which entries those are is looked up anew each time, so
// that undo reaches kernels that came since, too, and misses none that went.
func rewriteEntries(tx *plan.Tx, from, to string) error {
	h, err := tx.Host()
	if err != nil {
		return err
	}
	b := facts.New(h).Boot()
	h.Close()
	entries := b.InstalledEntries()
	// what boots by default tells how all stand, so it is the first to get the
	// new line, and the last to get the old one back
	usual := func(e facts.InstalledEntry) bool { return b.Usual() != nil && b.Usual().File == e.File }
	if i := slices.IndexFunc(entries, usual); i >= 0 {
		first := entries[i]
		entries = slices.Insert(slices.Delete(entries, i, i+1), 0, first)
	}
	if tx.Undoing() {
		slices.Reverse(entries)
	}
	for _, e := range entries {
		if options, ok := facts.Options(e.Text); !ok || options != from {
			continue
		}
		text, err := facts.SetOptions(e.Text, to)
		if err != nil {
			return fmt.Errorf("cannot rewrite %s: %w", e.File, err)
		}
		if err := tx.SetEntry(e.File, text); err != nil {
			return err
		}
	}
	return nil
}

// asPlanned reads back what a trial must have before it is chosen.
func asPlanned(tx *plan.Tx) error {
	h, err := tx.Host()
	if err != nil {
		return err
	}
	defer h.Close()
	f := facts.New(h)
	t := ReadTrial(f)
	if t == nil {
		return errors.New("the entry of the trial is not there")
	}
	if _, err := t.confirmed(); err != nil {
		return err
	}
	s, err := readKernelSettings(h)
	if err != nil {
		return err
	}
	if usual := f.Boot().Usual(); usual == nil || s.base(usual) != t.Base {
		return errors.New("the entry that boots by default is not the one that it was")
	}
	return nil
}

// ByHand is how a person sets c.After.
func (SystemdBoot) ByHand(c plan.Change) string {
	if c.Name == EntryDefault {
		return "in loader/entries of the boot partition, make the options of the entries: " + c.After.Text
	}
	return "bootctl set-oneshot " + orText(c.After.Text, "''")
}

// Expand refuses: the verb cmdline plans these.
func (SystemdBoot) Expand(_ context.Context, _ *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	for _, w := range wishes {
		refused = append(refused, refuse(w, "wish for tokens of the kernel command line, not for entries of systemd-boot"))
	}
	return nil, refused, nil
}

// kernelSettings is what kernel-install gives new entries.
type kernelSettings struct {
	file   string // "" where there is none, and it takes what runs
	text   string
	tokens []string
}

// base is by what a confirmation sees that nothing changed since the trial was
// planned.
func (s kernelSettings) base(usual *facts.BootEntry) string {
	line := ""
	if usual.Cmdline != nil {
		line = *usual.Cmdline
	}
	return digestOf(line, s.text)
}

func readKernelSettings(h *host.Host) (s kernelSettings, err error) {
	if to, err := h.Link(kernelCmdlineIn); err == nil {
		return s, fmt.Errorf("%s is a link to %s, which hostcheck does not replace", kernelCmdlineIn, to)
	}
	for _, p := range []string{kernelCmdlineIn, "/usr/lib/kernel/cmdline"} {
		b, err := h.Read(p)
		if host.Absent(err) {
			continue
		}
		if err != nil {
			return s, err
		}
		s.file, s.text = p, string(b)
		line := strings.TrimSpace(s.text)
		s.tokens = rawTokens(line)
		if strings.ContainsAny(line, "\n#") || !slices.Equal(s.tokens, strings.Fields(line)) {
			return s, fmt.Errorf("%s has more than one line, comments, quotes or arguments for init, which hostcheck does not rewrite", p)
		}
		return s, nil
	}
	return s, nil
}

// cannotTryEntry is cannotTry for systemd-boot.
func cannotTryEntry(h *host.Host, f *facts.Facts) string {
	b := f.Boot()
	usual := b.Usual()
	const efivars = "/sys/firmware/efi/efivars"
	switch {
	case !efiVar(h, "LoaderInfo"):
		return "no variable of systemd-boot is seen in " + efivars + ": it did not boot this host, or they are not mounted"
	case !b.CanBootOnce:
		return "this systemd-boot cannot boot an entry once, as its LoaderFeatures say: update it (bootctl update)"
	case facts.CannotWrite(h, efivars) != "":
		return "the choice of the next entry cannot be kept: " + facts.CannotWrite(h, efivars)
	case !exists(h, "/usr/bin/bootctl"):
		return "/usr/bin/bootctl is not there"
	case b.LiveTrial() != "":
		return "a trial runs now: confirm it or boot the host first"
	case usual == nil:
		return "what boots next is not known: " + b.Unknown["next_boot"]
	case usual.Image:
		return "the entry that boots by default, " + usual.ID + ", is a unified kernel image or another EFI program, and no file beside it has its command line"
	case usual.Counted:
		return "boots of the entry " + usual.ID + " are still counted (" + path.Base(usual.File) + "): wait until one counts as good, or see systemctl status systemd-bless-boot"
	case b.NextBoot == nil || usual.Cmdline == nil:
		return "the command line of the entry that boots by default is not known"
	}
	if id, err := facts.LoaderVar(h, "LoaderEntryOneShot"); err != nil {
		return host.Reason(err)
	} else if id != "" && !strings.EqualFold(id, trialEntryID) {
		return "the next boot is another entry already: " + id
	}
	// with a saved choice the trial itself would become the default; a preferred
	// entry comes before what boots by default, and a default in a variable is
	// somebody's own choice, maybe for another system
	for _, name := range []string{"LoaderEntryPreferred", "LoaderEntryDefault"} {
		if id, err := facts.LoaderVar(h, name); err != nil {
			return host.Reason(err)
		} else if id != "" {
			return "the default was chosen by bootctl or in the menu (" + name + " is " + id + "): take that back first (bootctl set-default '')"
		}
	}
	if id := b.LoaderConf(h, "default"); strings.HasPrefix(id, "@") || b.LoaderConf(h, "preferred") != "" {
		return b.Config + " chooses the default by other means than an entry's name"
	}
	if d := b.Between("configured", "next_boot"); d != nil && b.Trial() == "" {
		return "the entry that boots by default was not made from the settings as they are now: look at cmdline.next_boot first"
	}
	for _, p := range b.Problems {
		if p.Kind == facts.BootBroken || p.Kind == facts.BootMissing {
			return "cmdline.boot_config fails: " + p.Why
		}
	}
	return placeTaken(h, b, usual)
}

// placeTaken says why no entry can be made beside the usual one, or none with
// the trial's name.
func placeTaken(h *host.Host, b *facts.Boot, usual *facts.BootEntry) string {
	for _, dir := range []string{"/efi", "/boot", "/boot/efi"} {
		if notMounted(h, dir) {
			return dir + " is in /etc/fstab and not mounted: the entries that are seen may not be those of the boot loader"
		}
	}
	if why := facts.CannotWrite(h, usual.File); why != "" {
		return "no boot entry can be written: " + why
	}
	ids := map[string]string{}
	for _, e := range b.InstalledEntries() {
		id := strings.ToLower(e.ID) // as systemd-boot and FAT see it
		if other := ids[id]; other != "" {
			return e.File + " and " + other + " are one entry for systemd-boot"
		}
		ids[id] = e.File
	}
	file := path.Join(path.Dir(usual.File), trialEntryID)
	if at := ids[trialEntryID]; at != "" && at != file {
		return at + " is in the way of a trial; move it away"
	}
	if text, err := h.Read(file); err == nil && !own(string(text)) {
		return file + " is there and is not of hostcheck's making; move it away"
	} else if err != nil && !host.Absent(err) {
		return host.Reason(err)
	}
	return ""
}

// planEntryTrial is planTrial for systemd-boot.
func planEntryTrial(f *facts.Facts, add, remove []string, why string) ([]plan.Change, error) {
	b := f.Boot()
	usual := b.Usual()
	s, err := readKernelSettings(f.Host())
	if err != nil {
		return nil, err
	}
	before := rawTokens(*usual.Cmdline)
	text := ""
	for _, e := range b.InstalledEntries() {
		if e.File == usual.File {
			text = e.Text
		}
	}
	if options, ok := facts.Options(text); !ok || options != strings.Join(before, " ") || strings.Contains(options, "$") {
		return nil, fmt.Errorf("%s has not one plain line of options: several, none, quotes, a variable or arguments for init, which hostcheck does not rewrite", usual.File)
	}
	old, missing := before, "does not stand in the entry "+usual.ID
	if s.file != "" {
		old, missing = s.tokens, "does not stand in "+s.file
	}
	wanted, err := editLine(old, add, remove, missing)
	if err != nil {
		return nil, err
	}
	if slices.Equal(old, wanted) {
		return nil, errors.New("the settings say so already; the next boot brings it")
	}
	after, err := swapRun(before, old, wanted)
	if err != nil {
		return nil, err
	}
	// kernel-install would take what runs where there is no such file, the
	// trial's own tokens included: a confirmation makes it
	t := &Trial{ID: digestOf(strings.Join(after, " ")), Base: s.base(usual), DropIn: strings.Join(wanted, " ") + "\n"}
	if armed, err := t.number(f); armed || err != nil {
		return nil, err
	}
	line := slices.Concat(after, t.tokens())
	// systemd-boot puts the initial ramdisks on the command line, too
	images := strings.Join(slices.Concat([]string{usual.Kernel}, usual.Initrd), " initrd=")
	if err := sane(f, images, before, line, remove); err != nil {
		return nil, err
	}
	entry, err := trialEntryText(text, t, line)
	if err != nil {
		return nil, err
	}
	file := path.Join(path.Dir(usual.File), trialEntryID)
	now, added := b.With(trialEntryID, file, entry)
	if now.File != usual.File {
		return nil, errors.New("the trial's entry would come before " + usual.ID + " and boot by default: name that one as default in loader.conf, or give it a sort-key")
	}
	if added.Cmdline == nil || *added.Cmdline != strings.Join(line, " ") {
		return nil, errors.New("the entry " + usual.ID + " cannot be copied")
	}
	return []plan.Change{
		{Setting: fileSetting(file), After: plan.Text(entry), Tier: plan.Boot, Persist: true, Why: why},
		chooseTrial(systemdBootSetting(EntryOneShot), trialEntryID),
	}, nil
}

// trialEntryText is the entry that boots by default, but for its title, its
// command line and its sort-key: without that it comes behind all that have one.
func trialEntryText(text string, t *Trial, line []string) (string, error) {
	text, err := facts.SetOptions(text, strings.Join(line, " "))
	if err != nil {
		return "", err
	}
	var s strings.Builder
	s.WriteString(ownHeader + "# It tries another kernel command line once.\n" + t.comments(kernelCmdlineIn))
	s.WriteString("title      " + trialTitle + "\n")
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if key, _ := facts.EntryLine(l); l != "" && l[0] != '#' && key != "title" && key != "sort-key" {
			s.WriteString(l + "\n")
		}
	}
	return s.String(), nil
}

// confirmEntry makes the changes that turn a running trial, whose command line
// is line without its own tokens, into the host's configuration.
func confirmEntry(f *facts.Facts, t *Trial, line []string) ([]plan.Change, error) {
	b := f.Boot()
	usual, trial := b.Usual(), b.MenuEntry(facts.TrialEntry)
	s, err := readKernelSettings(f.Host())
	switch {
	case err != nil:
		return nil, err
	case usual == nil || s.base(usual) != t.Base:
		return nil, errors.New("the entry that boots by default or " + kernelCmdlineIn + " was changed since the trial was planned; plan again: hostcheck undo, then hostcheck --fix --allow boot")
	case usual.Image || trial == nil:
		return nil, errors.New("the entry that boots by default cannot be rewritten")
	}
	return []plan.Change{
		healthy(fileSetting(kernelCmdlineIn), plan.Text(t.DropIn)),
		healthy(systemdBootSetting(EntryDefault), plan.Text(strings.Join(line, " "))),
		healthy(fileSetting(trial.File), plan.Absent),
	}, nil
}
