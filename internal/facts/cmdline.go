// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Token is one word of the kernel command line, in order. Name has its dashes
// as written; compare names with [SameParam].
type Token struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"` // without the outer quotes; nil when there was no "="
	Raw    string  `json:"raw"`
	Source string  `json:"source,omitempty"` // "bootconfig" where it came from there, too late for options that are read early
}

// HugepageRequest is one pool that the command line asks for.
type HugepageRequest struct {
	SizeKB int64 `json:"size_kb"`
	Node   int   `json:"node"`  // -1: spread over the nodes by the kernel
	Count  int64 `json:"count"` // pages
}

// IOMMURequest is what the command line does to the IOMMU.
type IOMMURequest struct {
	Disabled    bool     `json:"disabled"`    // iommu=off, intel_iommu=off on Intel, amd_iommu=off on AMD
	Enabled     *bool    `json:"enabled"`     // asked on or off by intel_iommu=; nil when the text and configuration do not say
	Passthrough *bool    `json:"passthrough"` // default domain identity (true) or translated (false); nil when left to the kernel's default and that is not known
	Default     string   `json:"default"`     // "identity", "DMA-FQ", "DMA" or "" (not known): what the default domain type will be, if an IOMMU is active
	Strict      *bool    `json:"strict"`
	Notes       []string `json:"notes,omitempty"` // what the kernel ignores or only half accepts, one sentence each
}

// Effects is what the kernel will do with the text, computed from the text,
// the CPUs and nodes and the kernel configuration alone.
type Effects struct {
	Hugepages         []HugepageRequest `json:"hugepages"`
	DefaultHugepageKB *int64            `json:"default_hugepage_kb"`
	Isolated          *string           `json:"isolated"`    // domain-isolated CPUs as the kernel prints them, "" for none
	ManagedIRQ        *string           `json:"managed_irq"` // CPUs that isolcpus=managed_irq protects
	NohzFull          *string           `json:"nohz_full"`
	RcuNocbs          *string           `json:"rcu_nocbs"`
	IOMMU             *IOMMURequest     `json:"iommu"`             // nil when the command line could not be read
	ACS               *string           `json:"acs"`               // what pci=config_acs= / disable_acs_redir= asks, "" for nothing; nil likewise
	Assumed           []string          `json:"assumed,omitempty"` // what was taken for granted, because the host does not show it
	Unknown           Unknown           `json:"unknown,omitempty"`
}

// Problem is a token that the kernel ignores, refuses or reads otherwise than
// its writer meant.
type Problem struct {
	Token string `json:"token"` // raw
	Kind  string `json:"kind"`  // one of the Kind constants below
	Area  string `json:"area"`  // "hugepages", "isolation", "iommu", "pci", or "" for the text itself
	Why   string `json:"why"`
}

// The kinds of [Problem].
const (
	KindIgnored    = "ignored"     // the kernel passes over it
	KindRefused    = "refused"     // the kernel rejects the value as a whole
	KindPartial    = "partial"     // the kernel takes a part of it, or reads it otherwise than it looks
	KindOverridden = "overridden"  // a later (or earlier) token decides
	KindRedundant  = "redundant"   // without it nothing changes
	KindNotAValue  = "not-a-value" // a word that the option does not have
	KindFatal      = "fatal"       // the host may not boot with this
)

// Cmdline is the kernel command line: what was given and what it does.
type Cmdline struct {
	Text          *string   `json:"text"` // /proc/cmdline, without the final newline
	Tokens        []Token   `json:"tokens"`
	InitArgs      []string  `json:"init_args"`         // words after "--"
	Bootconfig    *string   `json:"bootconfig"`        // /proc/bootconfig when there is one
	Builtin       *string   `json:"builtin,omitempty"` // CONFIG_CMDLINE, which the kernel adds to what the boot loader gives, or uses instead
	UnknownParams []string  `json:"unknown_params"`    // what the kernel passes to init and logs as unknown, in the words and order of that log line
	Effects       Effects   `json:"effects"`
	Problems      []Problem `json:"problems"`
	Unknown       Unknown   `json:"unknown,omitempty"`
}

// CmdlineEnv is what the effects of a command line depend on besides its text.
// The zero value is a host of which nothing is known.
type CmdlineEnv struct {
	Arch     string            // as Go calls it: "amd64", "arm64"; "" is not known
	Vendor   string            // cpu_vendor of [Kernel]: GenuineIntel, AuthenticAMD, …; "" is not known
	Release  string            // of the kernel; "" is not known
	PageSize int               // bytes; 0 is not known
	Config   map[string]string // kernel configuration (CONFIG_X -> y, m, value); nil is not known

	Possible *CPUSet // CPUs the kernel may ever have; nil is not known
	Present  *CPUSet // CPUs that are there; nil is taken as Possible
	Nodes    *CPUSet // NUMA nodes that are online; nil is not known
	GBPages  *bool   // x86: the CPU flag pdpe1gb; nil is not known

	Bootconfig *string // text of /proc/bootconfig; nil when there is none
}

// SameParam reports whether two parameter names are the same to the kernel:
// dashes and underscores are equal (kernel/params.c, parameq).
func SameParam(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if x, y := a[i], b[i]; x != y && (x != '-' && x != '_' || y != '-' && y != '_') {
			return false
		}
	}
	return true
}

func foldName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Find lists the tokens with a name, in order.
func (c *Cmdline) Find(name string) []Token {
	var found []Token
	for _, t := range c.Tokens {
		if SameParam(t.Name, name) {
			found = append(found, t)
		}
	}
	return found
}

// Cmdline gives the kernel command line of the running kernel.
func (f *Facts) Cmdline() *Cmdline { return f.cmdline.get(f, decodeCmdline) }

func decodeCmdline(f *Facts) *Cmdline {
	const file = "/proc/cmdline"
	f.host.Prefetch([]host.Op{{Kind: host.ReadFile, Path: file}, {Kind: host.ReadFile, Path: "/proc/bootconfig"}})
	b, err := f.host.Read(file)
	why := ""
	if err != nil {
		why = whyNot(f.host, err)
	} else if why = notCmdline(b); why != "" {
		why = file + ": " + why
	}
	if why != "" {
		c := &Cmdline{}
		for _, field := range []string{"text", "tokens", "init_args", "unknown_params", "problems"} {
			c.Unknown.say(field, why)
		}
		for _, field := range []string{"hugepages", "default_hugepage_kb", "isolated", "managed_irq", "nohz_full", "rcu_nocbs", "iommu", "acs"} {
			c.Effects.Unknown.say(field, why)
		}
		return c
	}
	env := f.CmdlineEnv()
	bc, err := f.host.Read("/proc/bootconfig")
	if err == nil {
		s := strings.ToValidUTF8(string(bc), "\uFFFD")
		env.Bootconfig = &s
	}
	c := ParseCmdline(strings.TrimSuffix(string(b), "\n"), env)
	if err != nil && !host.Absent(err) {
		c.Unknown.set("bootconfig", err)
	}
	return c
}

// notCmdline says why bytes are not the command line that a kernel prints, or
// "". What ends at a NUL or was cut off would hide what comes after it. A lone
// 0xA0 is white space to the kernel.
func notCmdline(b []byte) string {
	if len(b) > maxCmdline {
		return fmt.Sprintf("%d bytes, more than any kernel keeps (%d)", len(b), maxCmdline)
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == utf8.RuneError && n == 1 && b[i] != 0xa0:
			return fmt.Sprintf("not text: byte 0x%02x at offset %d", b[i], i)
		case (r < ' ' || r == 0x7f) && !isSpace(b[i]):
			return fmt.Sprintf("not text: control character 0x%02x at offset %d", b[i], i)
		}
		i += n
	}
	return ""
}

// CmdlineEnv gives what this host has that decides over the effects of a
// command line, for any text: the running one, or the one of the next boot.
func (f *Facts) CmdlineEnv() CmdlineEnv {
	k, cpus, numa := f.Kernel(), f.CPUs(), f.NUMA()
	env := CmdlineEnv{
		Arch: deref(k.Arch), Vendor: deref(k.Vendor), Release: deref(k.Release), PageSize: deref(k.PageSize),
		Config: k.Config, Possible: cpuSetOf(cpus.Possible), Present: cpuSetOf(cpus.Present),
	}
	if numa.Nodes != nil {
		env.Nodes = &CPUSet{}
		for _, n := range numa.Nodes {
			env.Nodes.Add(n)
		}
	}
	if k.CPUFlags != nil {
		env.GBPages = new(slices.Contains(k.CPUFlags, "pdpe1gb"))
	}
	return env
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func cpuSetOf(list *string) *CPUSet {
	if list == nil {
		return nil
	}
	s, err := ParseCPUSet(*list)
	if err != nil || s.Len() == 0 {
		return nil
	}
	return &s
}

// ParseCmdline says what a Linux 6.12 kernel does with a command line on a
// host. It is a function of its arguments alone and follows the kernel's own
// code, named at each step; real kernels are the judge of it.
func ParseCmdline(text string, env CmdlineEnv) *Cmdline {
	text = text[:min(len(text), maxCmdline)]
	words, init := splitCmdline(text)
	c := &Cmdline{
		Text: new(jsonText(text)), InitArgs: make([]string, 0, len(init)), Bootconfig: env.Bootconfig,
		Tokens: make([]Token, 0, len(words)), UnknownParams: []string{}, Problems: []Problem{},
	}
	p := &cmdlineParser{text: text, env: env, words: words, init: init, c: c, refused: map[int]bool{}, told: map[Problem]bool{}}
	c.Effects.IOMMU = new(IOMMURequest)
	p.markBootconfig()
	for _, w := range words {
		t := Token{Name: jsonText(w.name), Raw: jsonText(w.raw)}
		if w.bootconfig {
			t.Source = "bootconfig"
		}
		if w.value != nil {
			t.Value = new(jsonText(*w.value))
		}
		c.Tokens = append(c.Tokens, t)
	}
	for _, w := range init {
		c.InitArgs = append(c.InitArgs, jsonText(w.name+w.tail()))
	}
	p.builtin()
	p.cpus()
	p.hugepages()
	p.iommu()
	p.pci()
	p.unknownParams()
	p.repeated()
	p.length()
	return c
}

// cmdlineParser carries one command line through the decoders of its subjects.
type cmdlineParser struct {
	text        string
	env         CmdlineEnv
	words, init []word
	c           *Cmdline
	refused     map[int]bool // words whose __setup handler answered "not mine"
	told        map[Problem]bool
}

func (p *cmdlineParser) problem(raw, kind, area, format string, args ...any) {
	is := Problem{Token: jsonText(raw), Kind: kind, Area: area, Why: jsonText(fmt.Sprintf(format, args...))}
	if !p.told[is] {
		p.told[is] = true
		p.c.Problems = append(p.c.Problems, is)
	}
}

func (p *cmdlineParser) assume(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.Contains(p.c.Effects.Assumed, s) {
		p.c.Effects.Assumed = append(p.c.Effects.Assumed, s)
	}
}

// x86 reports whether the host is an x86 one.
func (p *cmdlineParser) x86() bool { return p.env.Arch == "amd64" || p.env.Arch == "386" }

// config answers what a configuration symbol is: on ("y" or a value), and
// whether that is known. A fragment of a configuration cannot say that a
// symbol is off: real ones hold thousands of lines.
func (p *cmdlineParser) config(symbol string) (value string, known bool) {
	if v, ok := p.env.Config["CONFIG_"+symbol]; ok {
		return v, true
	}
	return "", len(p.env.Config) >= wholeConfig
}

// wholeConfig is how many set symbols make a configuration that is believed
// to be whole; the smallest bootable ones ("make tinyconfig") have about 300.
const wholeConfig = 250

// off reports whether a symbol is known not to be built in.
func (p *cmdlineParser) off(symbol string) bool {
	v, known := p.config(symbol)
	return known && v != "y"
}

// builtin tells of text that the kernel itself brings along.
func (p *cmdlineParser) builtin() {
	v, _ := p.config("CMDLINE")
	if v == "" {
		return
	}
	p.c.Builtin = &v
	for _, symbol := range []string{"CMDLINE_OVERRIDE", "CMDLINE_FORCE"} {
		if on, _ := p.config(symbol); on == "y" {
			p.problem("", KindIgnored, "", "the kernel was built with CONFIG_%s=y: it uses its built-in text alone, and what the boot loader passes is ignored", symbol)
		}
	}
}

// markBootconfig finds the words that the kernel put before the boot loader's
// text from "kernel.*" keys of its boot configuration (init/main.c,
// setup_command_line). They come too late for early options.
func (p *cmdlineParser) markBootconfig() {
	if p.env.Bootconfig == nil {
		return
	}
	names := bootconfigNames(*p.env.Bootconfig)
	if len(names) > len(p.words) {
		return
	}
	for i, n := range names {
		if !SameParam(p.words[i].name, n) {
			return
		}
	}
	for i := range names {
		p.words[i].bootconfig = true
	}
}

// bootconfigNames lists the parameters in /proc/bootconfig in their order, one
// for each value of an array.
func bootconfigNames(text string) (names []string) {
	for line := range strings.Lines(text) {
		key, values, ok := strings.Cut(strings.TrimRight(line, "\n"), " = ")
		name, kernel := strings.CutPrefix(key, "kernel.")
		if !ok || !kernel || strings.HasPrefix(line, "#") {
			continue
		}
		n, quote := 0, byte(0)
		for i := range len(values) {
			switch ch := values[i]; {
			case quote == 0 && (ch == '"' || ch == '\''):
				quote, n = ch, n+1
			case ch == quote:
				quote = 0
			}
		}
		for range max(1, n) {
			names = append(names, name)
		}
	}
	return names
}

// maxCmdline is more than any kernel keeps: 4 KiB from the boot loader, and
// what 32 KiB of bootconfig may add.
const maxCmdline = 40 << 10

// lineMax is the longest command line of an architecture in bytes
// (COMMAND_LINE_SIZE less the final NUL); 0 is not known.
func lineMax(arch string) int {
	switch arch {
	case "amd64", "386", "arm64", "ppc64le":
		return 2047
	case "s390x":
		return 4095
	}
	return 0
}

func (p *cmdlineParser) length() {
	most := lineMax(p.env.Arch)
	n := len(p.text)
	for _, w := range p.words { // what bootconfig adds does not count
		if w.bootconfig {
			n -= len(w.raw) + 1
		}
	}
	switch {
	case most == 0 || n < most-128:
	case n >= most:
		p.problem("", KindFatal, "", "the text has %d bytes, and %s takes %d: what came after is cut off", n, p.env.Arch, most)
	default:
		p.problem("", KindPartial, "", "the text has %d bytes, and %s takes %d: what is added next may be cut off", n, p.env.Arch, most)
	}
}

// jsonText keeps what JSON can hold; the kernel's bytes may be any.
func jsonText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
