// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var cmdlineNextBoot = &check.Check{
	ID: "cmdline.next_boot", Title: "The next boot uses the kernel command line that the configuration says", Severity: check.High,
	Doc: `A kernel command line exists three times: in the settings of the boot loader, in the boot entry that was made from them, and in
the kernel that runs. The check reads all three and says where they part, before a reboot shows it:

  - configured: the settings (/etc/default/grub and its drop-ins, /etc/kernel/cmdline) name words that the entry lacks, or the entry
    has words that they do not name. Somebody edited and did not run update-grub, or another file wins
  - GRUB_…: a file assigns the variable again, and what an earlier file put into it is lost. Cloud images do that in
    /etc/default/grub.d/50-cloudimg-settings.cfg: an edit of /etc/default/grub then has no effect
  - once: another entry was chosen for the next boot alone (next_entry of GRUB, LoaderEntryOneShot of systemd-boot)
  - live: the next boot has other words than what runs. Where settings and entry agree this is pending, not wrong

The entry is found as the boot loader finds it: grub.cfg is read with its own quoting and conditions and with the
environment block (saved_entry, next_entry), entries of the Boot Loader Specification are sorted as their loader sorts them, and
the command line is read out of a unified kernel image. Nothing is executed; where only a shell or the
machine can tell, the finding is unknown and names file and line.

What boot loaders and generators add by themselves (BOOT_IMAGE=, initrd=, root=, ro) is not compared with the settings.

By hand: update-grub on Debian and Ubuntu; grubby --update-kernel=ALL on RHEL and its kin; kernel-install add-all with systemd-boot. Then run
the check again: it reads what was rendered. hostcheck facts boot shows all of it.

Often copied and wrong: "edit GRUB_CMDLINE_LINUX and run grub-mkconfig", for every host. It does nothing where cloud images assign the variable
again, on ostree hosts and with unified kernel images. Also: an edit without update-grub; grub2-mkconfig on RHEL 9.3 and later, which leaves the
entries alone; a file in /etc/default/grub.d whose name does not end in .cfg.`,
	Refs: []string{"https://www.gnu.org/software/grub/manual/grub/grub.html", "https://uapi-group.org/specifications/specs/boot_loader_specification/", "systemd-boot(7)"},
	Run:  runCmdlineNextBoot,
}

// inThreeTruths adds to a failing finding what the configuration and the next
// boot have; where both hold it is only pending, and nothing is left to fix.
func inThreeTruths(r *check.Run, f *check.Finding, judge func(*facts.Cmdline) (holds bool, text string)) {
	configured, next := r.Facts.ConfiguredCmdline(), r.Facts.NextCmdline()
	if configured == nil && next == nil {
		return
	}
	f.Truth = &check.Truth{Live: f.Got}
	configuredHolds, nextHolds := false, false
	if configured != nil {
		configuredHolds, f.Truth.Configured = judge(configured)
	}
	if next != nil {
		nextHolds, f.Truth.NextBoot = judge(next)
	}
	if nextHolds && (configuredHolds || r.Facts.Boot().Trial() != "") {
		f.Pending, f.Fix = true, nil
		f.Next = "boot the host: the next boot has it"
	}
}

// atNextBoot is inThreeTruths for what the command line brings about and other
// files of the kernel show. Where the running kernel was told so already, a
// boot changes nothing.
func atNextBoot(r *check.Run, f *check.Finding, judge func(*facts.Cmdline) (holds bool, text string)) {
	live := r.Facts.Cmdline()
	if live.Text == nil {
		return
	}
	if holds, _ := judge(live); holds {
		return
	}
	was := f.Truth
	if inThreeTruths(r, f, judge); !f.Pending {
		f.Truth = was
	}
}

// tokenGone is inThreeTruths for a token that must go.
func tokenGone(r *check.Run, f *check.Finding, raw string) {
	got := f.Got
	f.Got = raw
	inThreeTruths(r, f, func(c *facts.Cmdline) (bool, string) {
		if slices.ContainsFunc(c.Tokens, func(t facts.Token) bool { return t.Raw == raw }) {
			return false, raw
		}
		return true, "absent"
	})
	f.Got = got
}

// bootLoader gives the boot facts of a host that has a boot loader, or
// reports why there are none and gives nil.
func bootLoader(r *check.Run) *facts.Boot {
	b := r.Facts.Boot()
	if b.Loader != nil {
		return b
	}
	status := check.Unknown
	if b.None {
		status = check.Skip
	}
	r.Report(check.Finding{Status: status, Why: b.Unknown["loader"]})
	return nil
}

func runCmdlineNextBoot(_ context.Context, r *check.Run) error {
	b := bootLoader(r)
	if b == nil {
		return nil
	}
	clean := !reportOverrides(r, b)
	if b.NextBoot == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: orText(b.Unknown["next_boot"], "what boots next is not known")})
		return nil
	}
	if b.Once && b.Trial() == "" {
		clean = false
		f := check.Finding{Subject: "once", Status: check.Warn, Want: "the usual entry at the next boot", Got: b.Entry.ID,
			Why:  "it was chosen for the next boot alone, by " + b.Entry.By + "; the boot after that takes the usual one again",
			Next: "boot, if that is meant; else: grub-editenv - unset next_entry, or bootctl set-oneshot ''", Evidence: []check.Evidence{entryEvidence(b)}}
		if b.Default != nil {
			f.Want = "the usual entry, " + b.Default.ID
		}
		r.Report(f)
	}
	drift := b.Between("configured", "next_boot")
	switch {
	case b.Configured == nil:
		clean = false
		r.Report(check.Finding{Subject: "configured", Status: check.Unknown, Why: b.Unknown["configured"]})
	case drift != nil && b.Trial() == "":
		clean = false
		r.Report(notRendered(b, drift))
	}
	d := b.Between("next_boot", "live")
	if d != nil && drift == nil && b.Configured != nil && len(d.Missing) == 0 && !d.Reordered && len(beyondTrial(b, d)) == 0 {
		d = nil // a trial that was confirmed, in the boot that tried it
	}
	if d != nil {
		clean = false
		r.Report(notLive(b, d, drift == nil && b.Configured != nil))
	}
	if clean {
		r.Report(check.Finding{Status: check.Pass, Want: "settings, boot entry and kernel agree", Got: "the same words in all three, entry " + b.Entry.ID,
			Evidence: []check.Evidence{entryEvidence(b), {Source: cmdlineFile, Value: words(b.Live)}}})
	}
	return nil
}

// notLive tells how the next boot differs from what runs. agreed is whether
// settings and entry agree: then it is only pending.
func notLive(b *facts.Boot, d *facts.BootDrift, agreed bool) check.Finding {
	f := check.Finding{Subject: "live", Status: check.Warn, Pending: agreed || b.Trial() != "",
		Want: "what the next boot has: " + words(b.NextBoot), Got: driftText(d, "the next boot adds", "it drops"),
		Why: "the kernel that runs was booted with another command line", Next: "boot the host when that is convenient",
		Truth:    &check.Truth{Configured: words(b.Configured), NextBoot: words(b.NextBoot), Live: words(b.Live)},
		Evidence: []check.Evidence{entryEvidence(b), {Source: cmdlineFile, Value: words(b.Live)}}}
	if b.LiveTrial() != "" && agreed && len(beyondTrial(b, d)) > 0 {
		f.Subject, f.Pending = "trial", false
		f.Why = "a trial of another command line runs and is not confirmed: the next boot is the old one again"
		f.Next = "confirm it when the host is healthy, or boot the host"
	}
	return f
}

// beyondTrial gives the words that only the running kernel has, without those
// that a trial itself adds.
func beyondTrial(b *facts.Boot, d *facts.BootDrift) []string {
	if b.LiveTrial() == "" {
		return d.Extra
	}
	return slices.DeleteFunc(slices.Clone(d.Extra), func(w string) bool {
		name, _, _ := strings.Cut(w, "=")
		return name == facts.TrialParam || name == "panic"
	})
}

// cosmetic words change nothing but the screen: that a cloud image drops them
// is nobody's loss.
var cosmetic = []string{"quiet", "splash", "rhgb", "nosplash"}

// reportOverrides reports settings of which a later file lost words.
func reportOverrides(r *check.Run, b *facts.Boot) (reported bool) {
	for i, s := range b.Settings {
		if s.Value == nil || b.Configured == nil || !strings.HasPrefix(s.Name, "GRUB_CMDLINE") {
			continue
		}
		later := slices.IndexFunc(b.Settings[i+1:], func(o facts.BootSetting) bool { return o.Name == s.Name && !o.Appends })
		if later < 0 {
			continue
		}
		var lost []string
		for w := range strings.FieldsSeq(strings.NewReplacer(`"`, "", "'", "").Replace(*s.Value)) {
			if !slices.Contains(cosmetic, w) && !slices.ContainsFunc(b.Configured, func(t facts.Token) bool { return t.Raw == w }) {
				lost = append(lost, w)
			}
		}
		if lost == nil {
			continue
		}
		by := b.Settings[i+1+later]
		if by.Was != nil && valueBefore(b, by) == *by.Was {
			continue // hostcheck took the words out, and nothing changed since
		}
		reported = true
		f := check.Finding{Subject: s.Name, Status: check.Warn, Want: strings.Join(lost, " ") + ", as " + at(s.File, s.Line) + " says",
			Got:      "not in effect: " + at(by.File, by.Line) + " assigns the variable again",
			Why:      "the files are read one after the other, and the later one does not keep what was there",
			Next:     "put the words into a file of your own in /etc/default/grub.d that sorts last, or remove them from " + s.File,
			Evidence: []check.Evidence{{Source: at(s.File, s.Line), Value: s.Name + "=" + *s.Value}}}
		if by.Value != nil {
			f.Evidence = append(f.Evidence, check.Evidence{Source: at(by.File, by.Line), Value: by.Name + "=" + *by.Value})
		}
		r.Report(f)
	}
	return reported
}

// valueBefore is what a variable held before an assignment.
func valueBefore(b *facts.Boot, to facts.BootSetting) (value string) {
	for _, s := range b.Settings {
		if s.File == to.File && s.Line == to.Line {
			break
		}
		if s.Name == to.Name && s.Value != nil {
			value = *s.Value
		}
	}
	return value
}

// notRendered tells how the entry differs from the settings.
func notRendered(b *facts.Boot, d *facts.BootDrift) check.Finding {
	f := check.Finding{Subject: "configured", Status: check.Fail, Want: words(b.Configured), Got: driftText(d, "the entry has besides", "it lacks"),
		Why:   "the entry that boots next, " + b.Entry.ID + ", was not made from these settings as they are now",
		Next:  renderNext(*b.Loader) + ", then run the check again",
		Truth: &check.Truth{Configured: words(b.Configured), NextBoot: words(b.NextBoot), Live: words(b.Live)}}
	for _, s := range b.Settings {
		if s.Value != nil && s.Name != "GRUB_DEFAULT" {
			f.Evidence = append(f.Evidence, check.Evidence{Source: at(s.File, s.Line), Value: *s.Value})
		}
	}
	f.Evidence = append(f.Evidence, entryEvidence(b))
	return f
}

func renderNext(loader string) string {
	switch loader {
	case facts.LoaderGrubDebian:
		return "run update-grub"
	case facts.LoaderGrubBLS:
		return "run grubby --update-kernel=ALL with --args= or --remove-args=, so that entries and settings agree"
	case facts.LoaderSystemdBoot:
		return "run kernel-install add-all"
	case facts.LoaderUKI:
		return "build the unified kernel image again"
	case facts.LoaderTransactional:
		return "run transactional-update grub.cfg"
	}
	return "run grub2-mkconfig -o with the grub.cfg that is shown"
}

func driftText(d *facts.BootDrift, extra, missing string) string {
	if d.Reordered {
		return "the same words in another order"
	}
	var parts []string
	if len(d.Missing) > 0 && d.To == "next_boot" {
		parts = append(parts, missing+" "+strings.Join(d.Missing, " "))
	}
	if len(d.Extra) > 0 && d.To == "next_boot" {
		parts = append(parts, extra+" "+strings.Join(d.Extra, " "))
	}
	if len(d.Missing) > 0 && d.To == "live" {
		parts = append(parts, extra+" "+strings.Join(d.Missing, " "))
	}
	if len(d.Extra) > 0 && d.To == "live" {
		parts = append(parts, missing+" "+strings.Join(d.Extra, " "))
	}
	return strings.Join(parts, "; ")
}

func words(tokens []facts.Token) string {
	raw := make([]string, len(tokens))
	for i, t := range tokens {
		raw[i] = t.Raw
	}
	return strings.Join(raw, " ")
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

func entryEvidence(b *facts.Boot) check.Evidence {
	return check.Evidence{Source: at(b.Entry.File, b.Entry.Line), Value: words(b.NextBoot)}
}

var cmdlineBootConfig = &check.Check{
	ID: "cmdline.boot_config", Title: "The files of the boot loader are whole, and the next boot finds its kernel", Severity: check.High, Strict: true,
	Doc: `A boot loader does not complain to anybody: it boots something else, or stops. The check reads its files as it does and fails for

  - a file that is not what it must be: a quote that is not closed in /etc/default/grub (update-grub then stops, and the next kernel
    update with it), a grub.cfg that is cut off, an environment block that is not one
  - a semicolon in a command line without quotes that GRUB sees, which ends the command there: pci=config_acs=A;B must be
    pci=config_acs=\"A;B\" in /etc/default/grub
  - an entry whose kernel or initial ramdisk is not there
  - a default that names no entry: GRUB then boots the first one
  - an entry for one boot in an environment block that GRUB cannot write (LVM, RAID, encryption, btrfs, zfs): it would be booted
    for ever

and warns about settings that have no effect. What cannot be read, or what only a shell could tell, is unknown.

By hand: correct the line that is named, run update-grub (or what the distribution has), and run the check again. An environment
block is made anew by grub-editenv /boot/grub/grubenv create.`,
	Refs: []string{"https://www.gnu.org/software/grub/manual/grub/grub.html", "https://uapi-group.org/specifications/specs/boot_loader_specification/"},
	Run:  runCmdlineBootConfig,
}

func runCmdlineBootConfig(_ context.Context, r *check.Run) error {
	b := bootLoader(r)
	if b == nil {
		return nil
	}
	clean := true
	for _, p := range b.Problems {
		clean = false
		f := check.Finding{Subject: at(p.File, p.Line), Got: p.Kind, Why: p.Why, Evidence: []check.Evidence{{Source: at(p.File, p.Line), Value: p.Why}}}
		switch p.Kind {
		case facts.BootBroken:
			f.Status, f.Want, f.Next = check.Fail, "a file that the boot loader and its tools can read", "correct it before the next boot"
		case facts.BootMissing:
			f.Status, f.Want, f.Next = check.Fail, "what the boot menu names is there", "render the boot entries again, or bring back what is missing, before the next boot"
		case facts.BootIgnored:
			f.Status, f.Want, f.Next = check.Warn, "a setting with an effect", "correct the name or remove the setting"
		default:
			f.Status = check.Unknown
		}
		r.Report(f)
	}
	if env := b.Environment; env != nil && b.Once && env.Writable != nil && !*env.Writable {
		clean = false
		r.Report(check.Finding{Subject: env.Path, Status: check.Fail, Want: "an entry for one boot that is taken back by GRUB", Got: b.Entry.By, Why: env.Why + ": the entry would be booted again and again",
			Next: "grub-editenv - unset next_entry", Evidence: []check.Evidence{{Source: env.Path, Value: "next_entry=" + env.Vars["next_entry"]}}})
	}
	switch {
	case !clean:
	case b.Entry == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: orText(b.Unknown["next_boot"], "what boots next is not known")})
	default:
		r.Report(check.Finding{Status: check.Pass, Want: "files that the boot loader can read, and a kernel to boot", Got: b.Entry.ID + ", chosen by " + b.Entry.By,
			Evidence: []check.Evidence{{Source: at(b.Entry.File, b.Entry.Line), Value: orText(b.Entry.Kernel, b.Entry.ID)}}})
	}
	return nil
}
