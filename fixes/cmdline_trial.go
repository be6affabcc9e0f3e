// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// A change of the kernel command line is tried before it is made: an entry of
// hostcheck's own in the boot menu has the new line and is booted once. The usual
// entries stay as they are until the trial is confirmed; only then do the
// tokens enter the distribution's configuration. This file is about GRUB and
// what both boot loaders share; sdboot.go is about systemd-boot.

const (
	grubScript  = "/etc/grub.d/42_hostcheck"
	grubEnvFile = "/boot/grub/grubenv"
	scriptHead  = "#!/bin/sh\n" + ownHeader
	maxTries    = 2
	panicToken  = "panic=30" // a kernel that panics boots the usual entry half a minute later
)

// Trial is a command line that waits for its boot, runs, or did not come up.
type Trial struct {
	ID      string // of the settings that are tried; the same settings have the same
	Try     int    // from 1
	Cmdline string // of the entry
	Armed   bool   // the next boot is the trial
	Running bool   // this boot is
	DropIn  string // what a confirmation writes to the file of the settings
	Base    string // of the settings that the trial started from
}

// Name is how the kernel's command line names the trial.
func (t *Trial) Name() string { return t.ID + "." + strconv.Itoa(t.Try) }

// The states of a trial.
const (
	TrialArmed    = "armed"     // the next boot tries it
	TrialRunning  = "running"   // it waits to be confirmed
	TrialFellBack = "fell back" // the host came up with the old command line
	TrialDisarmed = "disarmed"  // it will not be tried
)

// State says how the trial stands, in a word and in a sentence. rebooted is
// whether the host booted since the trial was armed, which the journal knows.
func (t *Trial) State(rebooted bool) (state, says string) {
	switch {
	case t.Running:
		return TrialRunning, "it runs now, and waits to be confirmed"
	case t.Armed:
		return TrialArmed, "the next boot tries it"
	case !rebooted:
		return TrialDisarmed, "somebody took the choice of the next entry back: it will not be tried"
	case t.Try >= maxTries:
		return TrialFellBack, fmt.Sprintf("tried %d times, and each time the host came up with the old command line: it is not tried again", t.Try)
	}
	return TrialFellBack, "tried, and the host came up with the old command line: it did not boot, or was reset"
}

// IsTrial reports whether a change arms this trial.
func (t *Trial) IsTrial(c plan.Change) bool {
	return c.Kind == plan.KindFile && slices.Contains(trialFiles, c.Target) && strings.Contains(c.After.Text, "\n# trial "+t.Name()+"\n")
}

// trialFiles are where a trial is written down: what makes its entry with GRUB,
// or the entry itself.
var trialFiles = []string{grubScript, "/efi" + trialEntryFile, "/boot" + trialEntryFile, "/boot/efi" + trialEntryFile}

// ReadTrial gives the trial of a host, nil when it has none.
func ReadTrial(f *facts.Facts) *Trial {
	var t *Trial
	for _, p := range trialFiles {
		if b, err := f.Host().Read(p); err == nil && t == nil {
			t = parseTrial(string(b))
		}
	}
	if t == nil {
		return nil
	}
	boot := f.Boot()
	if e := boot.MenuEntry(facts.TrialEntry); e != nil && e.Cmdline != nil {
		t.Cmdline = *e.Cmdline
	}
	t.Running = boot.LiveTrial() == t.Name()
	t.Armed = boot.Trial() == t.Name()
	return t
}

// parseTrial reads the comments in which a trial is written down.
func parseTrial(text string) *Trial {
	if !own(strings.TrimPrefix(text, "#!/bin/sh\n")) {
		return nil
	}
	t := &Trial{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "#= "); ok {
			t.DropIn += text + "\n"
		}
		if base, ok := strings.CutPrefix(line, "# base "); ok {
			t.Base = base
		}
		if name, ok := strings.CutPrefix(line, "# trial "); ok {
			id, try, _ := strings.Cut(name, ".")
			n, err := strconv.Atoi(try)
			if err != nil || n < 1 {
				return nil
			}
			t.ID, t.Try = id, n
		}
	}
	if t.ID == "" {
		return nil
	}
	return t
}

// comments are what parseTrial reads; file is what a confirmation makes of it.
func (t *Trial) comments(file string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# trial %s\n# base %s\n#\n# Confirmed, it becomes %s:\n", t.Name(), t.Base, file)
	for l := range strings.Lines(t.DropIn) {
		s.WriteString("#= " + l)
	}
	return s.String()
}

// tokens are what only the trial has on its command line, at its end.
func (t *Trial) tokens() []string {
	return []string{panicToken, facts.TrialParam + "=" + t.Name()}
}

// number counts how often the same settings were tried; armed tells that the
// next boot tries them already.
func (t *Trial) number(f *facts.Facts) (armed bool, err error) {
	t.Try = 1
	last := ReadTrial(f)
	if last == nil || last.ID != t.ID {
		return false, nil
	}
	if t.Try = last.Try + 1; t.Try > maxTries && !last.Armed {
		_, says := last.State(true)
		return false, errors.New("these settings were " + says + "; hostcheck undo takes the trial away, and counts from the start")
	}
	return last.Armed, nil
}

// confirmed is the command line of a trial without what only the trial has.
func (t *Trial) confirmed() ([]string, error) {
	line := rawTokens(t.Cmdline)
	n := len(line) - len(t.tokens())
	if n < 0 || !slices.Equal(line[n:], t.tokens()) {
		return nil, errors.New("the entry of the trial in the boot menu is not the one that was made")
	}
	return line[:n], nil
}

func digestOf(texts ...string) string {
	s := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(s[:6])
}

// cannotTry says why this host's boot loader cannot boot an entry once and
// fall back by itself, "" when it can.
func cannotTry(h *host.Host, f *facts.Facts) string {
	b := f.Boot()
	if bySystemdBoot(f) {
		return cannotTryEntry(h, f)
	}
	env := b.Environment
	usual := b.Usual()
	switch {
	case b.Loader == nil || *b.Loader != facts.LoaderGrubDebian:
		return "it is done only with GRUB of Debian and Ubuntu, and with systemd-boot"
	case b.Configured == nil:
		return "what is configured is not known: " + b.Unknown["configured"]
	case b.NextBoot == nil:
		return "what boots next is not known: " + b.Unknown["next_boot"]
	case b.Config != "/boot/grub/grub.cfg":
		return "update-grub writes /boot/grub/grub.cfg, and this host has " + b.Config
	case usual == nil || usual.Cmdline == nil || usual.Unresolved != nil:
		return "the command line of the entry that boots by default is not known whole"
	case env == nil || env.State != "ok":
		return "GRUB cannot boot an entry once without its environment block, " + grubEnvFile + ", which is " + stateOf(env) + " (grub-editenv " + grubEnvFile + " create)"
	case env.Writable == nil:
		return "whether GRUB can write its environment block is not known: " + env.Unknown["writable"]
	case !*env.Writable:
		return "GRUB could not take the trial back: of " + env.Path + ", " + env.Why
	case !b.CanBootOnce:
		return "grub.cfg does not take next_entry back, so that a trial would be booted for ever"
	case b.Password:
		return "GRUB asks for a password for every entry but some, and would wait for it"
	case b.Once && b.Trial() == "":
		return "the next boot is another entry already: " + b.Entry.ID
	case b.LiveTrial() != "":
		return "a trial runs now: confirm it or boot the host first"
	case !exists(h, "/usr/sbin/grub-mkconfig"):
		return "/usr/sbin/grub-mkconfig is not there"
	}
	if d := b.Between("configured", "next_boot"); d != nil && b.Trial() == "" {
		return "the boot menu was not made from the settings as they are now: run update-grub first, and look at cmdline.next_boot"
	}
	for _, p := range b.Problems {
		if p.Kind == facts.BootBroken || p.Kind == facts.BootMissing {
			return "cmdline.boot_config fails: " + p.Why
		}
	}
	if notMounted(h, "/boot") {
		return "/boot is in /etc/fstab and not mounted: update-grub would write to the wrong disk"
	}
	for _, p := range []string{grubDropIn, grubScript} {
		if text, err := h.Read(p); err == nil && !own(strings.TrimPrefix(string(text), "#!/bin/sh\n")) {
			return p + " is there and is not of hostcheck's making; move it away"
		} else if err != nil && !host.Absent(err) {
			return host.Reason(err)
		}
	}
	return ""
}

func stateOf(env *facts.GrubEnv) string {
	if env == nil {
		return "not known"
	}
	return env.State
}

// notMounted reports whether fstab has a file system for a directory on which
// none is mounted.
func notMounted(h *host.Host, dir string) bool {
	has := func(p string) bool {
		text, _ := h.Read(p)
		for line := range strings.Lines(string(text)) {
			if w := strings.Fields(line); len(w) > 2 && w[0][0] != '#' && w[1] == dir {
				return true
			}
		}
		return false
	}
	return has("/etc/fstab") && !has("/proc/self/mounts") && !has("/proc/mounts") && !has("/proc/1/mounts")
}

// planTrial makes the changes that try tokens at the next boot, all of them
// together; an error is why not.
func planTrial(f *facts.Facts, add, remove []string, why string) ([]plan.Change, error) {
	if bySystemdBoot(f) {
		return planEntryTrial(f, add, remove, why)
	}
	b := f.Boot()
	usual := b.Usual()
	values, unknown := b.CmdlineValues("")
	if unknown != "" {
		return nil, errors.New(unknown)
	}
	wanted, err := editGrub(values, add, remove)
	if err != nil {
		return nil, err
	}
	if wanted[grubLinux] == values[grubLinux] && wanted[grubNormal] == values[grubNormal] {
		return nil, errors.New("GRUB's settings say so already; the next boot brings it")
	}
	old, err := configuredText(values)
	if err != nil {
		return nil, err
	}
	now, err := configuredText(wanted)
	if err != nil {
		return nil, err
	}
	before := rawTokens(*usual.Cmdline)
	if strings.Join(before, " ") != *usual.Cmdline {
		return nil, errors.New("the command line of the entry that boots by default has arguments for init, or quotes, which hostcheck does not rewrite")
	}
	after, err := swapRun(before, old, now)
	if err != nil {
		return nil, err
	}
	t := &Trial{ID: digestOf(wanted[grubLinux], wanted[grubNormal]), Base: digestOf(values[grubLinux], values[grubNormal])}
	if armed, err := t.number(f); armed || err != nil {
		return nil, err
	}
	line := slices.Concat(after, t.tokens())
	if err := sane(f, usual.Kernel, before, line, remove); err != nil {
		return nil, err
	}
	if t.DropIn, err = grubSettings(b, values, wanted); err != nil {
		return nil, err
	}
	script, err := trialScript(b, usual, t, line)
	if err != nil {
		return nil, err
	}
	file := plan.Change{Setting: fileSetting(grubScript), After: plan.Text(script), Tier: plan.Boot, Persist: true, Why: why}
	menu := plan.Change{Setting: grubSetting(GrubTrial), After: plan.Text(strings.Join(line, " ")), Tier: plan.Boot, Persist: true, Why: "grub-mkconfig makes the entry"}
	return []plan.Change{file, menu, chooseTrial(grubSetting(GrubNext), facts.TrialEntry)}, nil
}

// chooseTrial has the next boot be the trial.
func chooseTrial(s plan.Setting, entry string) plan.Change {
	return plan.Change{Setting: s, After: plan.Text(entry), Tier: plan.Boot, Why: "the next boot tries it, once",
		Disturbs: "the next boot has the new command line; where it does not come up, the boot after that has the old one"}
}

// rawTokens cuts a command line into words with their quotes.
func rawTokens(text string) []string {
	var out []string
	for _, t := range facts.ParseCmdline(text, facts.CmdlineEnv{}).Tokens {
		out = append(out, t.Raw)
	}
	return out
}

// trialScript is a file for /etc/grub.d that prints an entry as the default one
// was rendered, but for its title and its command line.
func trialScript(b *facts.Boot, usual *facts.BootEntry, t *Trial, line []string) (string, error) {
	body, linux, err := b.EntryBody(usual)
	if err != nil {
		return "", err
	}
	command, _, _ := strings.Cut(strings.ReplaceAll(body[linux], "\t", " "), " ")
	words := []string{command + "\t" + usual.Kernel}
	for _, token := range line {
		q, err := facts.QuoteGrub(token)
		if err != nil {
			return "", err
		}
		words = append(words, q)
	}
	var s strings.Builder
	s.WriteString(scriptHead)
	s.WriteString("# It prints a boot entry that tries another kernel command line once.\n")
	s.WriteString(t.comments(grubDropIn))
	const end = "HOSTCHECK_ENTRY"
	fmt.Fprintf(&s, "cat << '%s'\nmenuentry 'hostcheck: trial of another kernel command line' --id '%s' {\n", end, facts.TrialEntry)
	for i, l := range body {
		if i == linux {
			l = strings.Join(words, " ")
		}
		if l == end {
			return "", errors.New("the entry " + usual.ID + " cannot be copied")
		}
		s.WriteString("\t" + l + "\n")
	}
	s.WriteString("}\n" + end + "\n")
	return s.String(), nil
}

// grubSettings is the text that makes settings last: it assigns each variable that
// changes as a whole, for a file that only appends can neither take a word away
// nor come before one. What the other files say is noted, so that it is seen
// when they change.
func grubSettings(b *facts.Boot, values, wanted map[string]string) (string, error) {
	others, why := b.CmdlineValues(grubDropIn)
	if why != "" {
		return "", errors.New(why)
	}
	var s strings.Builder
	s.WriteString(ownHeader + ownNote)
	s.WriteString("# Each variable is assigned as a whole. \"was\" is what the other files say.\n")
	for _, name := range []string{grubLinux, grubNormal} {
		ours := slices.ContainsFunc(b.Settings, func(x facts.BootSetting) bool { return x.Name == name && x.File == grubDropIn })
		if wanted[name] == values[name] && !ours {
			continue
		}
		for _, v := range []string{others[name], wanted[name]} {
			if strings.ContainsAny(v, "'\n") {
				return "", fmt.Errorf("%s holds a single quote or a line break, which hostcheck does not rewrite", name)
			}
		}
		fmt.Fprintf(&s, "# was %s='%s'\n%s='%s'\n", name, others[name], name, wanted[name])
	}
	return s.String(), nil
}

// TrialSetting names hostcheck's trial; its wish is [TrialConfirmed].
func TrialSetting() plan.Setting { return plan.Setting{Kind: "cmdline", Name: "trial"} }

// TrialConfirmed is the wish that a trial which runs becomes the host's
// configuration.
const TrialConfirmed = "confirmed"

// planConfirmation makes the changes that turn a running trial into the host's
// configuration; an error is why not.
func planConfirmation(f *facts.Facts) ([]plan.Change, error) {
	t := ReadTrial(f)
	b := f.Boot()
	switch {
	case t == nil:
		return nil, errors.New("this host has no trial of a kernel command line")
	case !t.Running:
		_, says := t.State(true)
		return nil, errors.New("the trial does not run: " + says)
	case b.Once:
		return nil, errors.New("the next boot is another entry already: " + b.Entry.ID)
	}
	line, err := t.confirmed()
	if err != nil {
		return nil, err
	}
	if bySystemdBoot(f) {
		return confirmEntry(f, t, line)
	}
	values, why := b.CmdlineValues("")
	if why != "" {
		return nil, errors.New(why)
	}
	if digestOf(values[grubLinux], values[grubNormal]) != t.Base {
		return nil, errors.New("GRUB's settings were changed since the trial was planned; plan again: hostcheck undo, then hostcheck --fix --allow boot")
	}
	return []plan.Change{
		healthy(fileSetting(grubDropIn), plan.Text(t.DropIn)), healthy(fileSetting(grubScript), plan.Absent),
		healthy(grubSetting(GrubDefault), plan.Text(strings.Join(line, " "))), healthy(grubSetting(GrubTrial), plan.Absent),
	}, nil
}

// healthy is a change of a confirmation.
func healthy(s plan.Setting, v plan.Value) plan.Change {
	return plan.Change{Setting: s, After: v, Tier: plan.Boot, Persist: true, Why: "the trial runs and the host is healthy"}
}
