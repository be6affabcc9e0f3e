// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var cmdlineChecks = []*check.Check{
	cmdlineRequired, cmdlineForbidden, cmdlineIneffective, cmdlineUnknown, cmdlineIsolation, cmdlineHugepages,
	cmdlineNextBoot, cmdlineBootConfig,
}

const cmdlineFile = "/proc/cmdline"

// cmdlineHowTo is how the command line is changed by hand, for all docs here.
const cmdlineHowTo = `By hand, on Debian and Ubuntu: a file of your own that sorts last, since cloud images reassign the variable in 50-cloudimg-settings.cfg:

    echo 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT iommu=pt"' > /etc/default/grub.d/zz-local.cfg
    update-grub

On RHEL and its kin: grubby --update-kernel=ALL --args='iommu=pt' (and --remove-args=…); from 9.3 on grub2-mkconfig leaves the boot
entries alone. On ostree hosts: rpm-ostree kargs --append-if-missing=iommu=pt. With systemd-boot: /etc/kernel/cmdline, then
kernel-install. Afterwards read /proc/cmdline of the booted host: a token in a file is not a token in the kernel.`

var cmdlineRequired = &check.Check{
	ID: "cmdline.required", Title: "The kernel command line has the effects that the profile requires", Severity: check.High, FixTier: plan.Boot,
	Doc: `Each rule of the profile (cmdline.require) names a token. The check asks for its effect where the effect can be
computed from the text, the CPUs and the kernel's configuration: iommu=pt holds as well by iommu.passthrough=1 or a kernel
built with CONFIG_IOMMU_DEFAULT_PASSTHROUGH, and does not hold when iommu=nopt comes later, for both share one state.
intel_iommu=on holds where the kernel is built with it on. A list of CPUs holds when the kernel takes the same CPUs out
of it. Other tokens are compared word by word: any occurrence counts for options that add up (pci=), the last one for the rest.

A token that is there but that the kernel refuses does not count, and the finding says why.

` + cmdlineHowTo + `

Often copied and wrong: grep as proof ("every line looks sensible"): presence is no effect, and a substring is no token
(intel_iommu=on contains iommu=on). Also: a token in /etc/default/grub that
update-grub never rendered, and iommu=pt on 64-bit Arm, where the option is iommu.passthrough=1.`,
	Refs: []string{paramsDoc, "lib/cmdline.c", "drivers/iommu/iommu.c"},
	Run:  runCmdlineRequired,
}

// knownCmdline gives the command line, or reports why it is not known and gives nil.
func knownCmdline(r *check.Run) *facts.Cmdline {
	c := r.Facts.Cmdline()
	if c.Text == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: c.Unknown["text"]})
		return nil
	}
	return c
}

func runCmdlineRequired(_ context.Context, r *check.Run) error {
	rules := r.Profile.Cmdline.Require
	if len(rules) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile requires no token"})
		return nil
	}
	c := knownCmdline(r)
	if c == nil {
		return nil
	}
	for i := range rules {
		rule := &rules[i]
		f := check.Finding{Subject: rule.Token, Want: rule.Token, Source: rule.String()}
		got := effectOf(r.Facts, c, rule.Token)
		f.Got = got.text
		f.Evidence = append([]check.Evidence{cmdlineEvidence(c, tokenName(rule.Token))}, got.evidence...)
		switch got.holds {
		case yes:
			f.Status = check.Pass
		case no:
			f.Status = atMostWarn(check.Fail, rule.Origin)
			f.Why = orText(rule.Why, "the profile requires it")
			f.Next = "put " + rule.Token + " on the kernel command line and boot"
			if got.why != "" {
				f.Why = got.why + "; " + f.Why
			}
			if got.next != "" {
				f.Next = got.next
			}
			f.Fix = offer(rule.Origin, got.fix(c, rule)...)
			inThreeTruths(r, &f, func(c *facts.Cmdline) (bool, string) {
				e := effectOf(r.Facts, c, rule.Token)
				return e.holds == yes, e.text
			})
		case notKnown:
			f.Status, f.Why = check.Unknown, got.why
		}
		r.Report(f)
	}
	return nil
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// tokenName is the name of a rule's token.
func tokenName(token string) string {
	name, _, _ := strings.Cut(token, "=")
	return name
}

// cmdlineEvidence shows the tokens of the given names, or all the text when
// there are none.
func cmdlineEvidence(c *facts.Cmdline, names ...string) check.Evidence {
	return check.Evidence{Source: cmdlineFile, Value: orText(cmdlineText(c, names...), *c.Text)}
}

// cmdlineText gives the tokens of the given names.
func cmdlineText(c *facts.Cmdline, names ...string) string {
	var raw []string
	for _, t := range c.Tokens {
		if slices.ContainsFunc(names, func(n string) bool { return facts.SameParam(n, t.Name) }) {
			raw = append(raw, t.Raw)
		}
	}
	return strings.Join(raw, " ")
}

// verdict says whether a wanted effect holds.
type verdict int

const (
	no verdict = iota
	yes
	notKnown
)

// effect is what became of a wanted token.
type effect struct {
	holds    verdict
	text     string // what there is
	why      string
	next     string // "" for the usual
	undoneBy string // the later token that decides against a wanted one
	evidence []check.Evidence
}

// fix is what would bring a wanted token's effect about: the token, without
// others that keep it from counting. A token that the kernel refuses as it is
// written needs a person.
func (e *effect) fix(c *facts.Cmdline, rule *profile.TokenRule) []plan.Wish {
	why := orText(rule.Why, "the profile requires it")
	switch {
	case e.undoneBy != "":
		return []plan.Wish{wishToken(e.undoneBy, false, "it decides against "+rule.Token)}
	case e.next != "":
		return nil
	case slices.Contains(addUp, strings.ReplaceAll(tokenName(rule.Token), "-", "_")) && tokenName(rule.Token) != "isolcpus":
		return []plan.Wish{wishToken(rule.Token, true, why)}
	}
	return instead(c, rule.Token, why)
}

// instead wants a token in place of all others of its name.
func instead(c *facts.Cmdline, token, why string) []plan.Wish {
	wishes := []plan.Wish{wishToken(token, true, why)}
	for _, t := range c.Find(tokenName(token)) {
		if t.Raw != token {
			wishes = append(wishes, wishToken(t.Raw, false, token+" is wanted in its place"))
		}
	}
	return wishes
}

// effectOf judges a wanted token of a command line by its effect where it has a computed one,
// else by the tokens.
func effectOf(f *facts.Facts, c *facts.Cmdline, token string) effect {
	e := &c.Effects
	name, value, _ := strings.Cut(token, "=")
	name = strings.ReplaceAll(name, "-", "_")
	onOff, isBool := boolValue(value)
	switch {
	case name == "iommu" && (value == "pt" || value == "nopt") || name == "iommu.passthrough" && isBool:
		return boolEffect(f, c, e.IOMMU.Passthrough, value == "pt" || onOff, "iommu.passthrough", "passthrough", "translation", name, value)
	case name == "iommu.strict" && isBool:
		return boolEffect(f, c, e.IOMMU.Strict, onOff, "iommu.strict", "strict invalidation", "lazy invalidation", name, value)
	case name == "intel_iommu" && (value == "on" || value == "off"):
		return boolEffect(f, c, e.IOMMU.Enabled, value == "on", "iommu.enabled", "on", "off", name, value)
	case name == "isolcpus" && value != "" && value[0] >= '0' && value[0] <= '9':
		return listEffect(f, c, e.Isolated, "isolated", value, token)
	case name == "nohz_full" && value != "":
		return listEffect(f, c, e.NohzFull, "nohz_full", value, token)
	case name == "rcu_nocbs" && value != "":
		return listEffect(f, c, e.RcuNocbs, "rcu_nocbs", value, token)
	}
	return tokenEffect(c, name, value, strings.Contains(token, "="))
}

func boolValue(s string) (on, ok bool) {
	switch strings.ToLower(s) {
	case "1", "y", "yes", "on", "true":
		return true, true
	case "0", "n", "no", "off", "false":
		return false, true
	}
	return false, false
}

// boolEffect compares a computed state of the IOMMU.
func boolEffect(f *facts.Facts, c *facts.Cmdline, is *bool, want bool, field, yesText, noText, name, value string) effect {
	if is == nil {
		why := c.Effects.Unknown[field]
		if more := reasons(f.Kernel().Unknown, "config", "arch"); more != "" {
			why += ": " + more
		}
		return effect{holds: notKnown, why: why}
	}
	got := effect{text: noText}
	if *is {
		got.text = yesText
	}
	if *is == want {
		got.holds = yes
	}
	by := iommuSetters(c, field)
	if len(by) > 0 {
		got.text += ", by " + by[len(by)-1]
		got.evidence = []check.Evidence{cmdlineEvidence(c, "iommu", "iommu.passthrough", "iommu.strict", "intel_iommu", "amd_iommu")}
	} else {
		got.text += ", by the kernel's configuration"
		if k := f.Kernel(); k.ConfigSource != "" {
			got.evidence = []check.Evidence{{Source: k.ConfigSource, Value: configDefaults(k.Config)}}
		}
	}
	if literal := tokenEffect(c, name, value, true); got.holds == no {
		got.why = literal.why
		if literal.holds == yes && len(by) > 0 {
			got.why = "the token is there, but " + by[len(by)-1] + " comes after it and decides"
			got.next = "remove " + by[len(by)-1] + " from the kernel command line and boot"
			got.undoneBy = by[len(by)-1]
		}
	}
	return got
}

// iommuSetters are the tokens that set a state of the IOMMU, in the order in
// which the kernel obeys them.
func iommuSetters(c *facts.Cmdline, field string) []string {
	sets := map[string]map[string][]string{ // option -> its words, none for a boolean
		"iommu.passthrough": {"iommu": {"pt", "nopt"}, "iommu.passthrough": nil},
		"iommu.strict":      {"iommu.strict": nil, "intel_iommu": {"strict"}, "amd_iommu": {"fullflush"}},
		"iommu.enabled":     {"iommu": {"off"}, "intel_iommu": {"on", "off"}, "amd_iommu": {"off"}},
	}[field]
	var early, late []string
	for _, t := range c.Tokens {
		name := strings.ReplaceAll(t.Name, "-", "_")
		words, ok := sets[name]
		if !ok || t.Value == nil || lostToken(c, t.Raw) != "" {
			continue
		}
		if words != nil && !slices.ContainsFunc(words, func(w string) bool { return hasWord(t, w) }) {
			continue
		}
		if name == "intel_iommu" || name == "amd_iommu" {
			late = append(late, t.Raw)
		} else {
			early = append(early, t.Raw)
		}
	}
	return append(early, late...)
}

// configDefaults are the set symbols that decide over the IOMMU.
func configDefaults(config map[string]string) string {
	var set []string
	for name, v := range config {
		if strings.HasPrefix(name, "CONFIG_IOMMU_DEFAULT_") || strings.HasPrefix(name, "CONFIG_INTEL_IOMMU_DEFAULT_") {
			set = append(set, name+"="+v)
		}
	}
	slices.Sort(set)
	return listOr(set, "no CONFIG_IOMMU_DEFAULT_…")
}

// listEffect compares a set of CPUs: what the profile's text gives on this
// host, and what the command line gives.
func listEffect(f *facts.Facts, c *facts.Cmdline, is *string, field, value, token string) effect {
	if is == nil {
		return effect{holds: notKnown, why: c.Effects.Unknown[field]}
	}
	asked := facts.ParseCmdline(token, f.CmdlineEnv())
	want := map[string]*string{"isolated": asked.Effects.Isolated, "nohz_full": asked.Effects.NohzFull, "rcu_nocbs": asked.Effects.RcuNocbs}[field]
	if want == nil {
		return effect{holds: notKnown, why: asked.Effects.Unknown[field]}
	}
	got := effect{text: "CPUs " + orNone(*is)}
	switch {
	case *want == "" && len(asked.Problems) > 0:
		got.holds = notKnown
		got.why = "the kernel would refuse what the profile requires, " + token + ": " + asked.Problems[0].Why
	case *is == *want:
		got.holds = yes
	default:
		got.why = tokenEffect(c, tokenName(token), value, true).why
	}
	return got
}

// addUp are options of which every occurrence counts; of others the last does.
var addUp = []string{
	"iommu", "intel_iommu", "amd_iommu", "pci", "console", "earlycon", "cgroup_disable", "cgroup.memory", "module_blacklist", "modprobe.blacklist",
	"initcall_blacklist", "rd.driver.blacklist", "rd.driver.pre", "rd.lvm.lv", "rd.luks.uuid", "isolcpus", "hugepages", "hugepagesz", "crashkernel", "systemd.setenv", "video",
}

// tokenEffect looks for name, name=value or name=word among the tokens.
func tokenEffect(c *facts.Cmdline, name, value string, hasValue bool) effect {
	found := c.Find(name)
	if len(found) == 0 {
		return effect{text: "absent"}
	}
	raw := make([]string, len(found))
	for i, t := range found {
		raw[i] = t.Raw
	}
	got := effect{text: strings.Join(raw, " ")}
	if !slices.Contains(addUp, strings.ReplaceAll(name, "-", "_")) {
		found = found[len(found)-1:]
	}
	for _, t := range found {
		if hasValue && !hasWord(t, value) {
			continue
		}
		if why := lostToken(c, t.Raw); why != "" {
			got.why = t.Raw + " is there, but the kernel does not take it: " + why
			got.next = "correct " + t.Raw + " on the kernel command line, as the reason says, and boot"
			continue
		}
		got.holds, got.why, got.next = yes, "", ""
		return got
	}
	return got
}

// hasWord reports whether a token has a value, as a whole or as a word of its
// comma list; booleans may be spelled otherwise.
func hasWord(t facts.Token, value string) bool {
	if t.Value == nil {
		return false
	}
	if *t.Value == value || slices.Contains(strings.Split(*t.Value, ","), value) {
		return true
	}
	a, ok := boolValue(*t.Value)
	b, ok2 := boolValue(value)
	return ok && ok2 && a == b && t.Name != "iommu" && t.Name != "amd_iommu"
}

// lostToken is why the kernel does not take a token, or "".
func lostToken(c *facts.Cmdline, raw string) string {
	for _, p := range c.Problems {
		if p.Token == raw && slices.Contains([]string{facts.KindIgnored, facts.KindRefused, facts.KindNotAValue}, p.Kind) {
			return p.Why
		}
	}
	return ""
}

var cmdlineForbidden = &check.Check{
	ID: "cmdline.forbidden", Title: "The kernel command line holds no token that the profile forbids", Severity: check.Medium, FixTier: plan.Boot,
	Doc: `Each rule of the profile (cmdline.forbid) names a token that does harm, or that does nothing and makes its reader believe it
does. Harmful ones (severe: true) fail, the others warn.

Often copied and wrong, with what the kernel makes of it:

    amd_iommu=on                no value of it: "AMD-Vi: Unknown option". AMD's IOMMU is on by itself; iommu=pt alone sets the domain type
    iommu=on                    ignored without a word
    intel_iommu=on on AMD       does nothing
    iommu=pt on 64-bit Arm      not an option there: iommu.passthrough=1
    pcie_acs_override=…         an out-of-tree patch that claims isolation which the hardware does not have; other kernels ignore it
    transparent_hugepage=never  to get a hugetlb pool: the two have nothing to do with each other
    isolcpus=… on Kubernetes    the kubelet does not look at it; use the static CPU manager with reserved CPUs

` + cmdlineHowTo,
	Refs: []string{paramsDoc, "drivers/iommu/amd/init.c", "arch/x86/kernel/pci-dma.c"},
	Run:  runCmdlineForbidden,
}

func runCmdlineForbidden(_ context.Context, r *check.Run) error {
	rules := r.Profile.Cmdline.Forbid
	if len(rules) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile forbids no token"})
		return nil
	}
	c := knownCmdline(r)
	if c == nil {
		return nil
	}
	for i := range rules {
		rule := &rules[i]
		f := check.Finding{Subject: rule.Token, Want: "no " + rule.Token, Source: rule.String(), Status: check.Pass, Got: "absent",
			Evidence: []check.Evidence{cmdlineEvidence(c, tokenName(rule.Token))}}
		if raw := forbiddenTokens(c, rule.Token); len(raw) > 0 {
			f.Status = check.Warn
			if rule.Severe {
				f.Status = atMostWarn(check.Fail, rule.Origin)
			}
			f.Got = strings.Join(raw, " ")
			f.Why = orText(rule.Why, "the profile forbids it")
			for _, t := range raw {
				f.Fix = append(f.Fix, offer(rule.Origin, without(t, rule.Token, f.Why)...)...)
			}
			f.Next = "remove " + f.Got + " from the kernel command line"
			if rule.Instead != "" {
				f.Next += "; instead: " + rule.Instead
			}
			inThreeTruths(r, &f, func(c *facts.Cmdline) (bool, string) {
				raw := forbiddenTokens(c, rule.Token)
				return raw == nil, orText(strings.Join(raw, " "), "absent")
			})
		}
		r.Report(f)
	}
	return nil
}

// without wants a token gone; of one with several words the others stay.
func without(raw, token, why string) []plan.Wish {
	wishes := []plan.Wish{wishToken(raw, false, why)}
	name, value, _ := strings.Cut(raw, "=")
	_, word, _ := strings.Cut(token, "=")
	words := strings.Split(value, ",")
	if rest := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == word }); len(rest) > 0 && len(rest) < len(words) {
		wishes = append(wishes, wishToken(name+"="+strings.Join(rest, ","), true, "the other words of "+raw+" stay"))
	}
	return wishes
}

// forbiddenTokens lists the tokens that a rule is about.
func forbiddenTokens(c *facts.Cmdline, token string) []string {
	name, value, hasValue := strings.Cut(token, "=")
	var raw []string
	for _, t := range c.Find(name) {
		if (!hasValue || hasWord(t, value)) && !slices.Contains(raw, t.Raw) {
			raw = append(raw, t.Raw)
		}
	}
	return raw
}

// forbids reports whether some rule of the profile is about a token.
func forbids(p *profile.Profile, c *facts.Cmdline, raw string) (rule string, ok bool) {
	for i := range p.Cmdline.Forbid {
		if t := p.Cmdline.Forbid[i].Token; slices.Contains(forbiddenTokens(c, t), raw) {
			return t, true
		}
	}
	return "", false
}

var cmdlineIneffective = &check.Check{
	ID: "cmdline.ineffective", Title: "The kernel does with every token what its writer meant", Severity: check.Medium, FixTier: plan.Boot,
	Doc: `The kernel boots on with a command line that is partly nonsense, and says so in a line of its log at most. This check runs the text
through the kernel's own rules and reports each token that is refused or ignored (a failure: an effect somebody wanted
is missing), and each that is overridden, only partly read, redundant or not a value at all (a warning).

What the rules are, where they surprise:

  - Every occurrence of an option runs its handler in order. There is no general "last wins": isolcpus= and nohz_full= keep the
    first list and refuse a second that differs, nr_cpus= keeps the smallest, iommu= adds up, and iommu=pt and iommu.passthrough=
    share one state.
  - isolcpus=all and isolcpus=N are read as flags and refused; 1-N works. A list that names one CPU too many is refused as a whole.
  - rcu_nocbs= next to nohz_full= with the same CPUs adds nothing; a bad list in rcu_nocbs= means all CPUs.
  - nohz_full= drops the boot CPU.
  - In pci=config_acs=… devices are separated by semicolons: a comma ends the list.
  - Quotes are taken off a value only as a pair around the whole of it, "--" ends the kernel's part, and a no-break space splits.
  - More than 31 unknown options with a value, or more than 32 words for init, make the kernel panic at boot. On x86 and arm64 the
    text ends after 2047 bytes.

Huge pages have a check of their own, cmdline.hugepages; tokens that the profile forbids are left to cmdline.forbidden.

` + cmdlineHowTo,
	Refs: []string{paramsDoc, "lib/cmdline.c", "init/main.c", "kernel/sched/isolation.c", "drivers/pci/pci.c"},
	Run:  runCmdlineIneffective,
}

func runCmdlineIneffective(_ context.Context, r *check.Run) error {
	c := knownCmdline(r)
	if c == nil {
		return nil
	}
	clean := true
	left := map[string]bool{} // tokens left to the other check
	for _, p := range c.Problems {
		if p.Area == "hugepages" {
			continue
		}
		clean = false
		if rule, ok := forbids(r.Profile, c, p.Token); ok {
			if !left[p.Token] {
				left[p.Token] = true
				r.Report(check.Finding{Status: check.Skip, Subject: p.Token, Why: "the profile forbids " + rule + ": see cmdline.forbidden"})
			}
			continue
		}
		f := problemFinding(c, p)
		if useless(c, p) && !slices.ContainsFunc(r.Profile.Cmdline.Require, func(t profile.TokenRule) bool { return facts.SameParam(tokenName(t.Token), tokenName(p.Token)) }) {
			f.Fix = []plan.Wish{wishToken(p.Token, false, p.Why)}
		}
		if p.Token != "" {
			tokenGone(r, &f, p.Token)
		}
		r.Report(f)
	}
	if clean {
		r.Report(check.Finding{Status: check.Pass, Want: "every token has its effect", Got: fmt.Sprintf("%d tokens, none lost", len(c.Tokens)),
			Evidence: []check.Evidence{{Source: cmdlineFile, Value: *c.Text}}})
	}
	return nil
}

// useless reports whether a token can go without changing anything, and there
// is no doubt which one is meant.
func useless(c *facts.Cmdline, p facts.Problem) bool {
	times := 0
	for _, t := range c.Tokens {
		if t.Raw == p.Token {
			times++
		}
	}
	return times == 1 && (p.Kind == facts.KindRedundant || p.Kind == facts.KindNotAValue)
}

// problemFinding turns a problem of the text into a finding.
func problemFinding(c *facts.Cmdline, p facts.Problem) check.Finding {
	f := check.Finding{Status: check.Warn, Subject: p.Token, Want: "its effect", Got: p.Kind, Why: p.Why, Source: paramsDoc,
		Evidence: []check.Evidence{{Source: cmdlineFile, Value: p.Token}}}
	if p.Token == "" {
		f.Subject, f.Want = "text", "a text that the kernel takes whole"
		f.Evidence[0].Value = *c.Text
	}
	switch p.Kind {
	case facts.KindRefused, facts.KindIgnored:
		f.Status = check.Fail
		f.Next = "correct or remove it; as it stands the kernel boots without it"
	case facts.KindFatal:
		f.Status = check.Fail
		f.Next = "shorten the command line before the next boot"
	case facts.KindOverridden:
		f.Next = "keep the one that is meant and remove the other"
	case facts.KindRedundant, facts.KindNotAValue:
		f.Next = "remove it; nothing changes"
	default:
		f.Next = "write what is meant, so that text and effect agree"
	}
	return f
}
