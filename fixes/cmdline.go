// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Cmdline is about tokens of the kernel command line: kind "cmdline", Name one
// token, or several that belong together in this order ("hugepagesz=2M
// hugepages=0:1024"), the value "present" or "absent". Tier boot. With GRUB of
// Debian and Ubuntu, and with systemd-boot, the next boot tries them; elsewhere
// they are shown with the commands of this host's boot loader, and not done.
// Wishes of kind "acs" become tokens of the same trial.
type Cmdline struct{ byHand }

// Kind is "cmdline".
func (Cmdline) Kind() string { return "cmdline" }

// Whole tells that the changes make sense only together.
func (Cmdline) Whole() bool { return true }

// Takes are the ports whose ACS bits the kernel sets at boot.
func (Cmdline) Takes() []string { return []string{kindACS} }

// The two values of a token.
const (
	TokenPresent = "present"
	TokenAbsent  = "absent"
)

// CmdlineSetting names a token of the kernel command line.
func CmdlineSetting(token string) plan.Setting { return plan.Setting{Kind: "cmdline", Name: token} }

// Expand plans one trial for all wishes. Where the boot loader cannot try, or
// the tokens cannot be, all are refused; the first refusal has the steps for
// all of them, since a boot loader is asked once.
func (Cmdline) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	f := facts.New(h)
	if i := slices.IndexFunc(wishes, func(w plan.Wish) bool { return w.Setting == TrialSetting() }); i >= 0 {
		return confirmation(f, wishes, i)
	}
	var add, remove, why []string
	var mine, ports []plan.Wish
	for _, w := range wishes {
		switch owned := ownedBy(f, w); {
		case w.Kind == kindACS:
			ports = append(ports, w)
			continue
		case owned != nil:
			refused = append(refused, *owned)
			continue
		case w.Name == "" || strings.ContainsAny(w.Name, "\n\"'\\$`"):
			refused = append(refused, refuse(w, fmt.Sprintf("%.60q is not a token that hostcheck hands to a shell", w.Name)))
			continue
		case w.Want == TokenPresent:
			add = append(add, w.Name)
		case w.Want == TokenAbsent:
			remove = append(remove, w.Name)
		default:
			refused = append(refused, refuse(w, fmt.Sprintf("a token is %s or %s, not %q", TokenPresent, TokenAbsent, w.Want)))
			continue
		}
		mine = append(mine, w)
	}
	l := loaderOf(f)
	ports, cannot := settable(f, l, ports)
	refused = append(refused, cannot...)
	var note []string
	if ports != nil {
		add, remove, note = acsTokens(f, ports, add, remove)
		mine = append(mine, ports...)
	}
	if mine == nil {
		return nil, refused, nil
	}
	for _, w := range mine {
		if b := because(w); !slices.Contains(why, b) {
			why = append(why, b)
		}
	}
	reason := bootReason(l)
	if no := cannotTry(h, f); no == "" {
		changes, err := planTrial(f, add, remove, strings.Join(why, "; "))
		if err == nil {
			return changes, refused, nil
		}
		reason = "tier boot: hostcheck does not try it: " + err.Error() + "; by hand, here (" + l.name + "):"
	} else if l.name == debianName || l.name == systemdBootName {
		reason = "tier boot: hostcheck cannot try it here: " + no + "; by hand (" + l.name + "):"
	}
	steps := append(bootSteps(h, l, add, remove), note...)
	for _, w := range mine {
		refused = append(refused, refuse(w, reason, steps...))
		steps = []string{"see the steps above: they are for all tokens together"}
	}
	return nil, refused, nil
}

// confirmation plans what makes a running trial last; wish i asks for it.
func confirmation(f *facts.Facts, wishes []plan.Wish, i int) (changes []plan.Change, refused []plan.Refusal, _ error) {
	for k, w := range wishes {
		switch {
		case k != i:
			refused = append(refused, refuse(w, "confirm the trial first, or take it back"))
		case w.Want != TrialConfirmed:
			refused = append(refused, refuse(w, fmt.Sprintf("a trial is %s, not %q; hostcheck undo takes it away", TrialConfirmed, w.Want)))
		default:
			var err error
			if changes, err = planConfirmation(f); err != nil {
				refused = append(refused, refuse(w, err.Error()))
			}
		}
	}
	return changes, refused, nil
}

func bootReason(l loader) string {
	return "tier boot: hostcheck does not change the kernel command line; by hand, here (" + l.name + "):"
}

// loader is one way in which hosts keep their kernel command line.
type loader struct {
	name string
	edit func(h *host.Host, add, remove []string) []string
}

// loaderOf gives the way of this host.
func loaderOf(f *facts.Facts) loader {
	id := ""
	if l := f.Boot().Loader; l != nil {
		id = *l
	}
	switch id {
	case facts.LoaderTalos:
		return loader{"Talos", talosSteps}
	case facts.LoaderOSTree:
		return loader{"ostree", ostreeSteps}
	case facts.LoaderFlatcar:
		return loader{"Flatcar", flatcarSteps}
	case facts.LoaderTransactional:
		return loader{"SUSE, transactional", suseSteps}
	case facts.LoaderGrubBLS:
		return loader{"grubby", grubbySteps}
	case facts.LoaderUKI:
		return loader{"unified kernel image", ukiSteps}
	case facts.LoaderSystemdBoot:
		return loader{systemdBootName, systemdBootSteps}
	case facts.LoaderGrubDebian:
		return loader{debianName, debianSteps}
	case facts.LoaderGrub:
		return loader{"GRUB", grubSteps}
	}
	return loader{"a boot loader that hostcheck does not know", unknownSteps}
}

// efiVar reports whether a boot loader with the interface of systemd-boot left
// a variable.
func efiVar(h *host.Host, name string) bool {
	return exists(h, "/sys/firmware/efi/efivars/"+name+"-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
}

// bootSteps is what a person types to have tokens added and removed at the next boot.
func bootSteps(h *host.Host, l loader, add, remove []string) []string {
	var steps []string
	if len(add)+len(remove) == 0 {
		return nil
	}
	if text, err := h.Text("/proc/cmdline"); err == nil {
		if n := len(text) + len(strings.Join(add, " ")) + 1; n > 2047 {
			steps = append(steps, fmt.Sprintf("make room first: the command line would be %d bytes, and the kernel reads 2047", n))
		}
	}
	steps = append(steps, l.edit(h, add, remove)...)
	return append(steps, "reboot, then look at /proc/cmdline")
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// shellWord quotes a word for a shell where it must be.
func shellWord(s string) string {
	if strings.ContainsAny(s, " ;&|<>()*?[]#~=") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// grubQuoted writes a token as it must stand inside double quotes in
// /etc/default/grub: GRUB ends a command at a semicolon.
func grubQuoted(token string) string {
	words := strings.Fields(token)
	for i, w := range words {
		if name, v, ok := strings.Cut(w, "="); ok && strings.ContainsAny(v, ";&|<>") {
			// pci=realloc,config_acs=A;B: the quotes go around the last value
			if k := strings.LastIndex(v[:strings.IndexAny(v, ";&|<>")], "="); k >= 0 {
				name, v = name+"="+v[:k], v[k+1:]
			}
			words[i] = name + `=\"` + v + `\"`
		}
	}
	return strings.Join(words, " ")
}

const debianName = "GRUB of Debian and Ubuntu"

const grubDropIn = facts.OwnGrubFile

// localDropIn is a person's own file; it sorts after hostcheck's.
const localDropIn = "/etc/default/grub.d/zz-local.cfg"

// debianSteps use a file of their own that sorts last: cloud images reassign
// the variable in 50-cloudimg-settings.cfg.
func debianSteps(h *host.Host, add, remove []string) []string {
	var steps []string
	for _, t := range remove {
		steps = append(steps, removeStep(h, t))
	}
	for _, t := range add {
		if at := mentions(h, t); len(at) > 0 {
			steps = append(steps, fmt.Sprintf("%s stands in %s already; it waits for update-grub or a reboot", t, strings.Join(at, ", ")))
			continue
		}
		line := fmt.Sprintf(`GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT %s"`, grubQuoted(t))
		steps = append(steps, fmt.Sprintf("echo '%s' >> %s", line, localDropIn))
	}
	return append(steps, "update-grub", "grep -n 'linux.*/vmlinuz' /boot/grub/grub.cfg")
}

func grubSteps(h *host.Host, add, remove []string) []string {
	var steps []string
	for _, t := range remove {
		steps = append(steps, removeStep(h, t))
	}
	for _, t := range add {
		steps = append(steps, fmt.Sprintf("in /etc/default/grub add %s inside the quotes of GRUB_CMDLINE_LINUX_DEFAULT", grubQuoted(t)))
	}
	cfg := "/boot/grub2/grub.cfg"
	if !exists(h, "/boot/grub2") && exists(h, "/boot/grub") {
		cfg = "/boot/grub/grub.cfg"
	}
	return append(steps, "grub2-mkconfig -o "+cfg)
}

func removeStep(h *host.Host, token string) string {
	if at := mentions(h, token); len(at) > 0 {
		return fmt.Sprintf("remove %s from %s", token, strings.Join(at, ", "))
	}
	return fmt.Sprintf("find what puts %s there, as none of GRUB's settings does: grep -rn -e %[2]s /etc/default /etc/grub.d /boot/grub*/grub.cfg", token, shellWord(token))
}

// mentions gives where GRUB's settings name a token: file and line.
func mentions(h *host.Host, token string) []string {
	files := []string{"/etc/default/grub"}
	names, _ := h.List("/etc/default/grub.d")
	for _, n := range names {
		if strings.HasSuffix(n, ".cfg") {
			files = append(files, path.Join("/etc/default/grub.d", n))
		}
	}
	var at []string
	for _, p := range files {
		b, err := h.Read(p)
		if err != nil {
			continue
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			line = strings.TrimSpace(line)
			if _, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(line, "GRUB_CMDLINE_LINUX") && hasTokens(value, token) {
				at = append(at, fmt.Sprintf("%s:%d", p, n))
			}
		}
	}
	return at
}

// hasTokens reports whether the words of token stand in a row in text.
func hasTokens(text, token string) bool {
	text = strings.NewReplacer(`\"`, "", `"`, "", "'", "").Replace(text)
	return strings.Contains(" "+strings.Join(strings.Fields(text), " ")+" ", " "+strings.Join(strings.Fields(token), " ")+" ")
}

func grubbySteps(_ *host.Host, add, remove []string) []string {
	var steps []string
	if len(remove) > 0 {
		steps = append(steps, "grubby --update-kernel=ALL --remove-args="+shellWord(strings.Join(remove, " ")))
	}
	if len(add) > 0 {
		steps = append(steps, "grubby --update-kernel=ALL --args="+shellWord(strings.Join(add, " ")))
	}
	return append(steps, "grep ^options /boot/loader/entries/*.conf, and compare token by token: some builds of grubby match a name inside another, and take two hugepagesz= for one")
}

func ostreeSteps(_ *host.Host, add, remove []string) []string {
	cmd := "rpm-ostree kargs"
	for _, t := range remove {
		for w := range strings.FieldsSeq(t) {
			cmd += " --delete-if-present=" + shellWord(w)
		}
	}
	for _, t := range add {
		for w := range strings.FieldsSeq(t) {
			option := " --append-if-missing="
			if strings.Contains(t, " ") { // a group whose words may repeat
				option = " --append="
			}
			cmd += option + shellWord(w)
		}
	}
	return []string{cmd, "in an image instead: /usr/lib/bootc/kargs.d/50-hostcheck.toml with kargs = [...]"}
}

func talosSteps(_ *host.Host, add, remove []string) []string {
	return []string{
		"make a schematic at the Image Factory whose customization.extraKernelArgs has " + listTokens(add, remove),
		"talosctl upgrade --image factory.talos.dev/installer/SCHEMATIC:VERSION (machine.install.extraKernelArgs is ignored where a unified kernel image boots)",
	}
}

func flatcarSteps(_ *host.Host, add, remove []string) []string {
	return []string{
		"in Butane: kernel_arguments.should_exist and should_not_exist: " + listTokens(add, remove) + "; then provision the host again",
		"on this installation: set linux_append=\"$linux_append " + strings.Join(add, " ") + "\" in /oem/grub.cfg",
	}
}

func suseSteps(h *host.Host, add, remove []string) []string {
	if exists(h, "/etc/kernel/cmdline") || efiVar(h, "LoaderInfo") {
		return []string{"transactional-update shell, and in it: " + strings.Join(kernelCmdline(add, remove), ", "), "sdbootutil update-all-entries"}
	}
	return []string{
		"transactional-update shell, and in it: in /etc/default/grub, GRUB_CMDLINE_LINUX_DEFAULT: " + listTokens(add, remove),
		"transactional-update --continue grub.cfg",
	}
}

func systemdBootSteps(_ *host.Host, add, remove []string) []string {
	return append(kernelCmdline(add, remove), "kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r) (for every kernel: kernel-install add-all)", "grep ^options /boot/loader/entries/*.conf /efi/loader/entries/*.conf")
}

func ukiSteps(_ *host.Host, add, remove []string) []string {
	return append(kernelCmdline(add, remove), "build the unified kernel image again and sign it, as your distribution does: the command line is inside it, and with Secure Boot no other counts")
}

func kernelCmdline(add, remove []string) []string {
	return []string{"in /etc/kernel/cmdline (without one: a copy of /proc/cmdline without initrd= and BOOT_IMAGE=): " + listTokens(add, remove)}
}

func unknownSteps(_ *host.Host, add, remove []string) []string {
	return []string{"where your boot loader keeps the kernel command line: " + listTokens(add, remove)}
}

func listTokens(add, remove []string) string {
	var s []string
	if len(add) > 0 {
		s = append(s, "add "+strings.Join(add, " "))
	}
	if len(remove) > 0 {
		s = append(s, "remove "+strings.Join(remove, " "))
	}
	return strings.Join(s, "; ")
}
