// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"strings"
)

// optionWord is a word of a comma list. The kernel compares most of them by
// prefix: "ptx" is "pt".
type optionWord struct {
	name   string
	exact  bool
	x86    bool   // exists there only
	note   string // what is wrong with writing it; "" for nothing
	legacy bool   // the kernel knows it and does nothing
}

// iommuWords are those of iommu= on x86 (arch/x86/kernel/pci-dma.c,
// amd_gart_64.c), longer names before their own prefixes.
var iommuWords = []optionWord{
	{name: "off"}, {name: "forcesac", legacy: true}, {name: "force"}, {name: "noforce"}, {name: "biomerge"}, {name: "panic"}, {name: "nopanic"},
	{name: "merge"}, {name: "nomerge"}, {name: "allowdac", legacy: true}, {name: "allowed"}, {name: "nodac", legacy: true}, {name: "usedac"},
	{name: "soft"}, {name: "pt"}, {name: "nopt"}, {name: "fullflush"}, {name: "nofullflush"}, {name: "noagp"}, {name: "noaperture"}, {name: "memaper"},
}

// intelWords are those of intel_iommu= (drivers/iommu/intel/iommu.c).
var intelWords = []optionWord{
	{name: "on"}, {name: "off"}, {name: "igfx_off"}, {name: "intgpu_off"}, {name: "forcedac", note: "deprecated: iommu.forcedac=1"},
	{name: "strict", note: "deprecated: iommu.strict=1"}, {name: "sp_off"}, {name: "sm_on"}, {name: "sm_off"}, {name: "tboot_noforce"},
}

// amdWords are those of amd_iommu= (drivers/iommu/amd/init.c).
var amdWords = []optionWord{
	{name: "fullflush", note: "deprecated: iommu.strict=1"}, {name: "force_enable"}, {name: "off"}, {name: "force_isolation"},
	{name: "pgtbl_v1"}, {name: "pgtbl_v2"}, {name: "irtcachedis"}, {name: "nohugepages"}, {name: "v2_pgsizes_only"},
}

// pciWords are those of pci= (drivers/pci/pci.c, arch/x86/pci/common.c).
var pciWords = []optionWord{
	{name: "nomsi", exact: true}, {name: "noats"}, {name: "noaer", exact: true}, {name: "earlydump", exact: true}, {name: "realloc"},
	{name: "nodomains", exact: true}, {name: "noari"}, {name: "cbiosize="}, {name: "cbmemsize="}, {name: "resource_alignment="}, {name: "ecrc="},
	{name: "hpiosize="}, {name: "hpmmiosize="}, {name: "hpmmioprefsize="}, {name: "hpmemsize="}, {name: "hpbussize="}, {name: "pcie_bus_tune_off"},
	{name: "pcie_bus_safe"}, {name: "pcie_bus_perf"}, {name: "pcie_bus_peer2peer"}, {name: "pcie_scan_all"}, {name: "disable_acs_redir="}, {name: "config_acs="},

	{name: "off", exact: true, x86: true}, {name: "bfsort", exact: true, x86: true}, {name: "nobfsort", exact: true, x86: true},
	{name: "bios", exact: true, x86: true}, {name: "nobios", exact: true, x86: true}, {name: "biosirq", exact: true, x86: true}, {name: "pirqaddr=", x86: true},
	{name: "conf1", exact: true, x86: true}, {name: "conf2", exact: true, x86: true}, {name: "nommconf", exact: true, x86: true},
	{name: "check_enable_amd_mmconf", exact: true, x86: true}, {name: "noacpi", exact: true, x86: true}, {name: "noearly", exact: true, x86: true},
	{name: "usepirqmask", exact: true, x86: true}, {name: "irqmask=", x86: true}, {name: "lastbus=", x86: true}, {name: "rom", exact: true, x86: true},
	{name: "norom", exact: true, x86: true}, {name: "nobar", exact: true, x86: true}, {name: "assign-busses", exact: true, x86: true},
	{name: "use_crs", exact: true, x86: true}, {name: "nocrs", exact: true, x86: true}, {name: "use_e820", exact: true, x86: true}, {name: "no_e820", exact: true, x86: true},
	{name: "big_root_window", exact: true, x86: true}, {name: "routeirq", exact: true, x86: true}, {name: "skip_isa_align", exact: true, x86: true},
	{name: "noioapicquirk", exact: true, x86: true}, {name: "ioapicreroute", exact: true, x86: true}, {name: "noioapicreroute", exact: true, x86: true},
}

// findWord gives the first option word that s is, or starts with.
func findWord(list []optionWord, s string, x86 bool) (o optionWord, ok bool) {
	for _, o := range list {
		if o.x86 && !x86 {
			continue
		}
		if s == o.name || !o.exact && strings.HasPrefix(s, o.name) {
			return o, true
		}
	}
	return o, false
}

// subWords cuts a comma list, leaving empty words out.
func subWords(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(w string) bool { return w == "" })
}

// iommuParser is the state that the IOMMU options share.
type iommuParser struct {
	p           *cmdlineParser
	off         bool  // iommu=off (no_iommu), which nothing takes back
	passthrough *bool // default domain, by the text
	strict      *bool // by the text
	setBy       *word // who gave passthrough last
	strictBy    *word

	intel  *bool // intel_iommu=on or off, the last of them
	amdOff bool
}

// iommu decodes iommu=, iommu.passthrough=, iommu.strict=, intel_iommu= and
// amd_iommu=. The first three are early options, read before the others
// wherever they stand.
func (p *cmdlineParser) iommu() {
	s := &iommuParser{p: p}
	for i := range p.words {
		w := &p.words[i]
		switch {
		case w.is("iommu"):
			s.early(w, s.generic)
		case w.is("iommu.passthrough"):
			s.early(w, s.passthroughOption)
		case w.is("iommu.strict"):
			s.early(w, s.strictOption)
		}
	}
	for i := range p.words {
		w := &p.words[i]
		if w.value == nil {
			continue
		}
		switch {
		case w.is("intel_iommu"):
			s.intelOption(w)
		case w.is("amd_iommu"):
			s.amdOption(w)
		}
	}
	s.finish()
}

// note tells of a word in both places: with the request and as a problem.
func (s *iommuParser) note(w *word, kind, why string) {
	s.p.problem(w.raw, kind, "iommu", "%s", why)
	e := s.p.c.Effects.IOMMU
	e.Notes = append(e.Notes, jsonText(w.raw+": "+why))
}

func (s *iommuParser) early(w *word, decode func(*word)) {
	if w.bootconfig {
		s.note(w, KindIgnored, "it comes from bootconfig, which is read too late for this option")
		return
	}
	decode(w)
}

// generic is iommu= of x86.
func (s *iommuParser) generic(w *word) {
	switch {
	case s.p.env.Arch == "":
		s.p.assume("iommu= exists, as on x86; the architecture of the host is not known")
	case !s.p.x86():
		why := "iommu= is an option of x86; on " + s.p.env.Arch + " the kernel does not know it"
		if w.value != nil && slices.Contains(subWords(*w.value), "pt") {
			why += "; write iommu.passthrough=1"
		}
		s.note(w, KindIgnored, why)
		return
	}
	if w.value == nil {
		s.note(w, KindIgnored, "it has no value")
		return
	}
	words := subWords(*w.value)
	for i, sub := range words {
		o, ok := findWord(iommuWords, sub, true)
		switch {
		case !ok && isDigit(sub[0]):
			continue // the size of an old aperture
		case !ok && sub == "on":
			s.note(w, KindNotAValue, "iommu= has no word \"on\": the kernel ignores it; intel_iommu=on is the switch on Intel, and AMD needs none")
			continue
		case !ok:
			s.note(w, KindNotAValue, "iommu= has no word "+quoted(sub)+": the kernel ignores it")
			continue
		case o.legacy:
			s.note(w, KindIgnored, quoted(o.name)+" does nothing any more")
		case sub != o.name && o.name != "memaper":
			s.note(w, KindPartial, "the kernel reads "+quoted(sub)+" as "+quoted(o.name))
		}
		switch o.name {
		case "off":
			s.off = true
		case "pt":
			s.setPassthrough(w, true)
		case "nopt":
			s.setPassthrough(w, false)
		case "usedac":
			if rest := words[i+1:]; len(rest) > 0 {
				s.note(w, KindIgnored, "the kernel stops at \"usedac\" and never reads "+quoted(strings.Join(rest, ",")))
			}
			return
		}
	}
}

func quoted(s string) string { return `"` + s + `"` }

func (s *iommuParser) setPassthrough(w *word, on bool) {
	if s.setBy != nil && s.setBy != w {
		if *s.passthrough == on {
			s.note(s.setBy, KindRedundant, w.raw+" says the same")
		} else {
			s.note(s.setBy, KindOverridden, "it shares its state with "+w.raw+", which comes later and wins")
		}
	}
	s.passthrough, s.setBy = &on, w
}

func (s *iommuParser) passthroughOption(w *word) {
	if on, ok := s.boolean(w); ok {
		s.setPassthrough(w, on)
	}
}

func (s *iommuParser) strictOption(w *word) {
	on, ok := s.boolean(w)
	if !ok {
		return
	}
	if s.strictBy != nil {
		kind, why := KindOverridden, w.raw+" comes later and wins"
		if *s.strict == on {
			kind, why = KindRedundant, w.raw+" says the same"
		}
		s.note(s.strictBy, kind, why)
	}
	s.strict, s.strictBy = &on, w
}

func (s *iommuParser) boolean(w *word) (on, ok bool) {
	if w.value != nil {
		on, ok = kstrtobool(*w.value)
	}
	if !ok {
		s.note(w, KindRefused, "not a boolean; write 0 or 1")
	}
	return on, ok
}

// vendor names the maker of an x86 CPU.
func (s *iommuParser) vendor() string {
	switch s.p.env.Vendor {
	case "GenuineIntel":
		return "Intel"
	case "AuthenticAMD", "HygonGenuine":
		return "AMD"
	}
	return ""
}

// elsewhere tells that an option of one maker stands on another's machine.
func (s *iommuParser) elsewhere(w *word, maker string) bool {
	switch {
	case s.p.env.Arch != "" && !s.p.x86():
		s.note(w, KindIgnored, "it is an option of x86; on "+s.p.env.Arch+" the kernel does not know it")
		return true
	case s.p.off(map[string]string{"Intel": "INTEL_IOMMU", "AMD": "AMD_IOMMU"}[maker]):
		s.note(w, KindIgnored, "this kernel was built without the "+maker+" IOMMU driver")
		return true
	case s.vendor() != "" && s.vendor() != maker:
		s.note(w, KindRedundant, "it is for "+maker+" CPUs, and this one is from "+s.vendor())
	}
	return false
}

func (s *iommuParser) words(w *word, list []optionWord) (known []string) {
	for _, sub := range subWords(*w.value) {
		o, ok := findWord(list, sub, true)
		switch {
		case !ok && foldName(w.name) == "amd_iommu" && sub == "on":
			s.note(w, KindNotAValue, "amd_iommu= has no word \"on\": the kernel logs \"Unknown option\", and the AMD IOMMU is on by itself")
			continue
		case !ok:
			s.note(w, KindNotAValue, w.name+"= has no word "+quoted(sub)+": the kernel logs \"Unknown option\" and goes on")
			continue
		case o.note != "":
			s.note(w, KindPartial, quoted(o.name)+" is "+o.note)
		case sub != o.name:
			s.note(w, KindPartial, "the kernel reads "+quoted(sub)+" as "+quoted(o.name))
		}
		known = append(known, o.name)
	}
	return known
}

func (s *iommuParser) intelOption(w *word) {
	if s.elsewhere(w, "Intel") {
		return
	}
	for _, o := range s.words(w, intelWords) {
		switch o {
		case "on", "off":
			on := o == "on"
			if s.intel != nil && *s.intel != on {
				s.note(w, KindOverridden, "intel_iommu= is given on and off; the last one, "+o+", wins")
			}
			s.intel = &on
		case "strict":
			s.strict = new(true)
		}
	}
}

func (s *iommuParser) amdOption(w *word) {
	if s.elsewhere(w, "AMD") {
		return
	}
	for _, o := range s.words(w, amdWords) {
		switch o {
		case "off":
			s.amdOff = true
		case "fullflush":
			s.strict = new(true)
		}
	}
}

// finish adds the kernel's defaults (iommu_subsys_init) to what was asked.
func (s *iommuParser) finish() {
	p, e := s.p, s.p.c.Effects.IOMMU
	e.Passthrough, e.Strict = s.passthrough, s.strict
	is := func(symbol string) bool { v, _ := p.config(symbol); return v == "y" }
	switch {
	case is("IOMMU_DEFAULT_PASSTHROUGH"):
		e.Passthrough, e.Strict = orElse(e.Passthrough, true), orElse(e.Strict, false)
	case is("IOMMU_DEFAULT_DMA_STRICT"):
		e.Passthrough, e.Strict = orElse(e.Passthrough, false), orElse(e.Strict, true)
	case is("IOMMU_DEFAULT_DMA_LAZY"):
		e.Passthrough, e.Strict = orElse(e.Passthrough, false), orElse(e.Strict, false)
	default:
		if e.Passthrough == nil {
			p.c.Effects.Unknown.say("iommu.passthrough", "the text does not say, and the kernel's default (CONFIG_IOMMU_DEFAULT_…) is not known")
		}
		if e.Strict == nil {
			p.c.Effects.Unknown.say("iommu.strict", "the text does not say, and the kernel's default (CONFIG_IOMMU_DEFAULT_…) is not known")
		}
	}
	switch {
	case e.Passthrough == nil:
	case *e.Passthrough:
		e.Default = "identity"
	case e.Strict == nil:
	case *e.Strict:
		e.Default = "DMA"
	default:
		e.Default = "DMA-FQ"
	}
	e.Enabled = s.enabled()
	e.Disabled = s.off || s.vendor() != "AMD" && s.intel != nil && !*s.intel || s.vendor() != "Intel" && s.amdOff
	if e.Enabled == nil {
		p.c.Effects.Unknown.say("iommu.enabled", "neither the text nor the kernel configuration says it; the firmware decides")
	}
	if e.Disabled && s.setBy != nil && *s.passthrough {
		s.note(s.setBy, KindRedundant, "the IOMMU is switched off, so there is nothing to pass through")
	}
}

func orElse(p *bool, v bool) *bool {
	if p != nil {
		return p
	}
	return &v
}

// enabled is whether the IOMMU is asked to be on, as far as text and
// configuration tell.
func (s *iommuParser) enabled() *bool {
	p := s.p
	is := func(symbol string) bool { v, _ := p.config(symbol); return v == "y" }
	if s.off {
		return new(false)
	}
	vendor := s.vendor()
	switch {
	case vendor == "AMD" && s.amdOff:
		return new(false)
	case vendor == "AMD" && is("AMD_IOMMU"):
		return new(true)
	case vendor == "AMD":
		return nil
	case s.intel != nil:
		return s.intel
	case vendor != "Intel" || p.env.Config == nil:
		return nil
	case is("INTEL_IOMMU_DEFAULT_ON"), is("INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF"):
		return new(true)
	case is("INTEL_IOMMU_DEFAULT_OFF"), p.off("INTEL_IOMMU"), p.off("INTEL_IOMMU_DEFAULT_ON") && p.off("INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF"):
		return new(false) // nobody asks; the firmware's opt-in flag may still
	}
	return nil
}

// pci decodes pci=, an early option whose words accumulate; of the two that
// configure ACS the last one counts.
func (p *cmdlineParser) pci() {
	acs := map[string]string{}
	by := map[string]*word{}
	for i := range p.words {
		w := &p.words[i]
		if !w.is("pci") || w.value == nil {
			continue
		}
		if w.bootconfig {
			p.problem(w.raw, KindIgnored, "pci", "it comes from bootconfig, which is read too late for this option")
			continue
		}
		inACS := false
		for _, sub := range subWords(*w.value) {
			o, ok := findWord(pciWords, sub, p.env.Arch == "" || p.x86())
			switch {
			case !ok && inACS:
				p.problem(w.raw, KindNotAValue, "pci", "a comma ends the device list, so %q is read as an option of its own and not known; separate devices with a semicolon", sub)
			case !ok:
				p.problem(w.raw, KindNotAValue, "pci", "pci= has no word %q: the kernel logs \"Unknown option\" and goes on", sub)
			}
			inACS = ok && (o.name == "config_acs=" || o.name == "disable_acs_redir=")
			if !inACS {
				continue
			}
			key := strings.TrimSuffix(o.name, "=")
			value := sub[len(o.name):]
			if old := by[key]; old != nil {
				p.problem(old.raw, KindOverridden, "pci", "the last %s= wins, which is in %s", key, w.raw)
			}
			by[key], acs[key] = w, value
			if why := badACS(key, value); why != "" {
				p.problem(w.raw, KindRefused, "pci", "%s", why)
			}
		}
	}
	var asked []string
	for _, key := range []string{"disable_acs_redir", "config_acs"} { // the order in which the kernel applies them
		if v, ok := acs[key]; ok {
			asked = append(asked, key+"="+v)
		}
	}
	p.c.Effects.ACS = new(jsonText(strings.Join(asked, " ")))
}

// badACS says what is wrong with a config_acs= list (__pci_config_acs): flags
// before "@", one letter a bit, the last for bit 0.
func badACS(key, value string) string {
	if value == "" {
		return key + "= names no device"
	}
	if key != "config_acs" {
		return ""
	}
	for entry := range strings.SplitSeq(value, ";") {
		flags, _, ok := strings.Cut(entry, "@")
		if !ok {
			return quoted(entry) + " has no flags before an @"
		}
		if strings.Trim(flags, "01xX") != "" {
			return "the flags " + quoted(flags) + " may hold 0, 1 and x only"
		}
		for i := range max(0, len(flags)-7) {
			if flags[i]|0x20 != 'x' {
				return "the flags " + quoted(flags) + " set bits beyond the seven that there are"
			}
		}
	}
	return ""
}
