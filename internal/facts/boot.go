// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Boot is the kernel command line in its three truths: what the settings of
// the boot loader say, what the next boot will use, and what runs.
type Boot struct {
	Loader      *string       `json:"loader"` // one of the Loader constants; nil when there is none that hostcheck knows
	Configured  []Token       `json:"configured"`
	NextBoot    []Token       `json:"next_boot"` // of Entry, without what the boot loader itself puts first
	Live        []Token       `json:"live"`      // /proc/cmdline as it is
	Drift       []BootDrift   `json:"drift"`
	Config      string        `json:"config"` // the file that the boot loader reads; "" when there is none
	Settings    []BootSetting `json:"settings"`
	Entry       *BootEntry    `json:"entry"`       // what boots next
	Default     *BootEntry    `json:"default"`     // what boots after that
	Once        bool          `json:"once"`        // Entry was chosen for one boot only
	Environment *GrubEnv      `json:"environment"` // of GRUB
	Problems    []BootProblem `json:"problems"`
	Unknown     Unknown       `json:"unknown,omitempty"`

	None bool `json:"-"` // there is no boot loader, as in a container

	CanBootOnce bool `json:"-"` // the boot loader takes the choice for one boot back by itself
	Password    bool `json:"-"` // GRUB's menu asks for one

	configured *lazyText // texts as the kernel would get them, for ParseCmdline
	next       *lazyText
	vars       *shellVars
	menu       *grubMenu
	text       string      // of Config
	bls        []*blsEntry // of systemd-boot, the default first
	choices    []bootChoice
}

type lazyText struct{ text string }

// The boot loaders, by how hosts keep the kernel command line with them.
const (
	LoaderTalos         = "talos"
	LoaderOSTree        = "ostree"
	LoaderFlatcar       = "flatcar"
	LoaderTransactional = "suse-transactional"
	LoaderGrubBLS       = "grub-bls"
	LoaderUKI           = "uki"
	LoaderSystemdBoot   = "systemd-boot"
	LoaderGrubDebian    = "grub-debian" // GRUB of Debian and Ubuntu, with update-grub
	LoaderGrub          = "grub"
)

// BootEntry is an entry of the boot menu.
type BootEntry struct {
	ID         string   `json:"id"` // a path through submenus in GRUB: "advanced>linux-6.12"
	Title      string   `json:"title"`
	File       string   `json:"file"`
	Line       int      `json:"line"`   // of the command line
	Kernel     string   `json:"kernel"` // as the boot loader names it
	Initrd     []string `json:"initrd"`
	Cmdline    *string  `json:"cmdline"`              // nil when it cannot be told
	Unresolved []string `json:"unresolved,omitempty"` // words that only the boot loader can complete, left out of the line
	By         string   `json:"by"`                   // what chose it

	Image   bool `json:"-"` // a unified kernel image or another EFI program
	Counted bool `json:"-"` // its name counts boots

	start, end int // lines of its block in GRUB\'s menu
}

// GrubEnv is GRUB's environment block.
type GrubEnv struct {
	Path     string            `json:"path"`
	State    string            `json:"state"` // "ok", "missing", "malformed", "unreadable"
	Why      string            `json:"why,omitempty"`
	Vars     map[string]string `json:"vars"`
	Writable *bool             `json:"writable"` // whether GRUB itself can write it; nil when not known
	Unknown  Unknown           `json:"unknown,omitempty"`
}

// BootDrift is how two truths differ.
type BootDrift struct {
	From      string   `json:"from"`                // "configured" or "next_boot"
	To        string   `json:"to"`                  // "next_boot" or "live"
	Missing   []string `json:"missing"`             // in the first only
	Extra     []string `json:"extra"`               // in the second only, but for what is the boot loader's own
	Reordered bool     `json:"reordered,omitempty"` // the same words in another order
}

// BootProblem is what is wrong with a file of the boot loader.
type BootProblem struct {
	Kind string `json:"kind"` // one of the kinds below
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Why  string `json:"why"`
}

// The kinds of [BootProblem].
const (
	BootBroken     = "broken"     // the file cannot be read as what it is
	BootMissing    = "missing"    // what it names is not there
	BootIgnored    = "ignored"    // a setting that has no effect
	BootUnresolved = "unresolved" // only the boot loader itself can tell
)

// Problem finds the first problem of a kind.
func (b *Boot) problem(kind, file string, line int, format string, args ...any) {
	p := BootProblem{Kind: kind, File: file, Line: line, Why: jsonText(fmt.Sprintf(format, args...))}
	if !slices.Contains(b.Problems, p) {
		b.Problems = append(b.Problems, p)
	}
}

func grubBroken(file string, err error) BootProblem {
	p := BootProblem{Kind: BootBroken, File: file, Why: err.Error()}
	var e *grubSyntax
	if errors.As(err, &e) {
		p.Line, p.Why = e.line, "GRUB cannot read it: "+e.what
	}
	return p
}

// Boot gives the three truths of the kernel command line.
func (f *Facts) Boot() *Boot { return f.boot.get(f, decodeBoot) }

func decodeBoot(f *Facts) *Boot {
	b := &Boot{Drift: []BootDrift{}, Settings: []BootSetting{}, Problems: []BootProblem{}}
	c := f.Cmdline()
	if c.Text == nil {
		b.Unknown.say("live", c.Unknown["text"])
	} else {
		b.Live = slices.DeleteFunc(slices.Clone(c.Tokens), func(t Token) bool { return t.Source != "" })
	}
	loader, why := findLoader(f.host)
	b.None = loader == "" && why == noLoader
	if loader == "" {
		b.Unknown.say("loader", why)
	} else {
		b.Loader = &loader
	}
	switch loader {
	case LoaderGrubDebian, LoaderGrub, LoaderTransactional, LoaderGrubBLS, LoaderOSTree:
		b.grub(f.host, loader)
	case LoaderSystemdBoot, LoaderUKI:
		b.systemdBoot(f.host)
	case LoaderFlatcar:
		b.flatcar(f.host)
	case LoaderTalos:
		b.Unknown.say("configured", "Talos keeps it in its machine configuration and installer image, which no file here shows")
		b.Unknown.say("next_boot", "the boot partition of Talos is not mounted while it runs")
	default:
		b.Unknown.say("configured", why)
		b.Unknown.say("next_boot", why)
	}
	if b.Entry != nil && b.Entry.Cmdline != nil && b.next == nil {
		b.next = &lazyText{*b.Entry.Cmdline}
	}
	if b.configured != nil {
		b.Configured = tokensOf(b.configured.text)
	}
	if b.next != nil {
		b.NextBoot = tokensOf(b.next.text)
	}
	b.compare()
	return b
}

// tokensOf cuts a text as the kernel does.
func tokensOf(text string) []Token {
	words, _ := splitCmdline(text)
	tokens := make([]Token, 0, len(words))
	for _, w := range words {
		t := Token{Name: jsonText(w.name), Raw: jsonText(w.raw)}
		if w.value != nil {
			t.Value = new(jsonText(*w.value))
		}
		tokens = append(tokens, t)
	}
	return tokens
}

// ConfiguredCmdline says what the kernel would do with the configured text
// alone; nil when that is not known.
func (f *Facts) ConfiguredCmdline() *Cmdline {
	return f.bootConfigured.get(f, func(f *Facts) *Cmdline { return f.parsed(f.Boot().configured) })
}

// NextCmdline says what the kernel will do with the command line of the next
// boot; nil when that is not known.
func (f *Facts) NextCmdline() *Cmdline {
	return f.bootNext.get(f, func(f *Facts) *Cmdline { return f.parsed(f.Boot().next) })
}

func (f *Facts) parsed(t *lazyText) *Cmdline {
	if t == nil {
		return nil
	}
	return ParseCmdline(t.text, f.CmdlineEnv())
}

// findLoader finds the way of this host, or says why none is found. The order
// matters: an ostree host has /etc/default/grub too, and a Fedora one has
// grubby beside it.
func findLoader(h *host.Host) (loader, why string) {
	id := osID(h)
	grub, grubErr := h.Text(grubDefault)
	entries, _ := h.List(blsDir)
	hasEntries := slices.ContainsFunc(entries, func(n string) bool { return strings.HasSuffix(n, ".conf") })
	cfg := grubConfig(h)
	switch {
	case id == "talos":
		return LoaderTalos, ""
	case seen(h, "/run/ostree-booted"):
		return LoaderOSTree, ""
	case id == "flatcar":
		return LoaderFlatcar, ""
	case seen(h, "/usr/sbin/transactional-update"):
		return LoaderTransactional, ""
	case strings.Contains(grub, "GRUB_ENABLE_BLSCFG=true") || hasEntries && seen(h, "/usr/sbin/grubby"):
		return LoaderGrubBLS, ""
	case seen(h, efiVarPath("StubInfo")):
		return LoaderUKI, ""
	case seen(h, efiVarPath("LoaderInfo")) || hasEntries && grub == "" || cfg == "" && grubErr != nil && systemdBootConfig(h) != "":
		return LoaderSystemdBoot, ""
	case seen(h, "/usr/sbin/update-grub") || (id == "debian" || id == "ubuntu") && grubErr == nil:
		return LoaderGrubDebian, ""
	case grubErr == nil || cfg != "":
		return LoaderGrub, ""
	case !host.Absent(grubErr):
		return "", "which boot loader this host has is not known: " + host.Reason(grubErr)
	}
	return "", noLoader
}

const noLoader = "this host shows no boot loader that hostcheck knows: no " + grubDefault + ", no grub.cfg, no entries of systemd-boot"

// seen reports whether a path exists, as far as can be seen.
func seen(h *host.Host, p string) bool {
	names, err := h.List(path.Dir(p))
	return err == nil && slices.Contains(names, path.Base(p))
}

func osID(h *host.Host) string {
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if text, err := h.Text(p); err == nil {
			return osReleaseValue(text, "ID")
		}
	}
	return ""
}

// efiVarPath is where efivarfs shows a variable of the Boot Loader Interface.
func efiVarPath(name string) string {
	return "/sys/firmware/efi/efivars/" + name + "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
}

// bootOwn are parameters that a boot loader or a generator of entries adds by
// itself.
var bootOwn = []string{"BOOT_IMAGE", "initrd", "root", "rootflags", "rootfstype", "ro", "rw", "vt.handoff", "systemd.machine_id", "ostree", "recovery", "mount.usr", "mount.usrflags", "verity.usr"}

// strip leaves out what a boot loader puts there by itself.
func strip(tokens []Token, names ...string) []string {
	var raw []string
	for _, t := range tokens {
		if !slices.ContainsFunc(names, func(n string) bool { return SameParam(t.Name, n) }) {
			raw = append(raw, t.Raw)
		}
	}
	return raw
}

// compare fills in the drift.
func (b *Boot) compare() {
	if b.Configured != nil && b.NextBoot != nil {
		// what the configuration names itself counts
		var own []string
		for _, n := range bootOwn {
			if !slices.ContainsFunc(b.Configured, func(t Token) bool { return SameParam(t.Name, n) }) {
				own = append(own, n)
			}
		}
		b.differ("configured", "next_boot", strip(b.Configured), strip(b.NextBoot, own...))
	}
	if b.NextBoot != nil && b.Live != nil {
		b.differ("next_boot", "live", strip(b.NextBoot, "BOOT_IMAGE", "initrd"), strip(b.Live, "BOOT_IMAGE", "initrd"))
	}
}

func (b *Boot) differ(from, to string, x, y []string) {
	d := BootDrift{From: from, To: to, Missing: minus(x, y), Extra: minus(y, x)}
	d.Reordered = len(d.Missing)+len(d.Extra) == 0 && !slices.Equal(x, y)
	if len(d.Missing)+len(d.Extra) > 0 || d.Reordered {
		b.Drift = append(b.Drift, d)
	}
}

// minus gives the words of x that y does not have, each as often as it lacks them.
func minus(x, y []string) []string {
	left := map[string]int{}
	for _, s := range y {
		left[s]++
	}
	out := []string{}
	for _, s := range x {
		if left[s]--; left[s] < 0 {
			out = append(out, s)
		}
	}
	return out
}

// TrialEntry is the id of the entry that hostcheck boots once to try a command
// line, and TrialParam the parameter by which a kernel tells that it was.
const (
	TrialEntry = "hostcheck-trial"
	TrialParam = "hostcheck.trial"
)

// Trial is the transaction whose trial the next boot is, "" for none.
func (b *Boot) Trial() string { return trialOf(b.NextBoot) }

// LiveTrial is the transaction whose trial runs, "" for none.
func (b *Boot) LiveTrial() string { return trialOf(b.Live) }

func trialOf(tokens []Token) string {
	for _, t := range tokens {
		if t.Name == TrialParam && t.Value != nil {
			return *t.Value
		}
	}
	return ""
}

// Between gives the drift between two truths, or nil.
func (b *Boot) Between(from, to string) *BootDrift {
	for i := range b.Drift {
		if b.Drift[i].From == from && b.Drift[i].To == to {
			return &b.Drift[i]
		}
	}
	return nil
}
