// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"strings"
)

// parseKernelCPUList reads a CPU list as a person may write it for the kernel
// (bitmap_parselist of lib/bitmap-str.c): "0-3,8", strides "0-31:2/4" (2 of
// every 4), "N" for the last CPU, "all". One number beyond nbits refuses the
// whole list.
func parseKernelCPUList(s string, nbits int) (set CPUSet, err error) {
	for {
		for s != "" && (isSpace(s[0]) || s[0] == ',') {
			s = s[1:]
		}
		if s == "" || s[0] == '\n' {
			return set, nil
		}
		var r cpuRegion
		if s, err = r.parse(s, nbits); err != nil {
			return CPUSet{}, err
		}
		switch {
		case r.start > r.end:
			return CPUSet{}, fmt.Errorf("%d-%d runs backwards", r.start, r.end)
		case r.group == 0 || r.off > r.group:
			return CPUSet{}, fmt.Errorf("%d/%d is no stride", r.off, r.group)
		case r.end >= uint64(max(0, nbits)):
			return CPUSet{}, fmt.Errorf("CPU %d is beyond the last one, %d", r.end, nbits-1)
		}
		for first := r.start; first <= r.end && r.off > 0; first += r.group {
			set.AddRange(int(first), int(min(r.end, first+r.off-1)))
		}
	}
}

// cpuRegion is one region of a list: of each group CPUs from start to end, the
// first off.
type cpuRegion struct{ start, end, off, group uint64 }

var errNotCPUList = errors.New("not a CPU list")

func (r *cpuRegion) parse(s string, nbits int) (rest string, err error) {
	last := uint64(max(0, nbits-1))
	if len(s) >= 3 && strings.EqualFold(s[:3], "all") {
		r.start, r.end, s = 0, last, s[3:]
	} else {
		if r.start, s, err = cpuNumber(s, last); err != nil {
			return "", err
		}
		if endOfRegion(s) {
			r.end = r.start
			r.off, r.group = r.end+1, r.end+1
			return s, nil
		}
		if s[0] != '-' {
			return "", errNotCPUList
		}
		if r.end, s, err = cpuNumber(s[1:], last); err != nil {
			return "", err
		}
	}
	if endOfRegion(s) {
		r.off, r.group = r.end+1, r.end+1
		return s, nil
	}
	if s[0] != ':' {
		return "", errNotCPUList
	}
	if r.off, s, err = cpuNumber(s[1:], last); err != nil {
		return "", err
	}
	if s == "" || s[0] != '/' {
		return "", errNotCPUList
	}
	r.group, s, err = cpuNumber(s[1:], last)
	return s, err
}

func endOfRegion(s string) bool { return s == "" || isSpace(s[0]) || s[0] == ',' }

func cpuNumber(s string, last uint64) (n uint64, rest string, err error) {
	if s != "" && s[0] == 'N' {
		return last, s[1:], nil
	}
	for rest = s; rest != "" && isDigit(rest[0]); rest = rest[1:] {
		n = n*10 + uint64(rest[0]-'0')
		if n > 1<<32-1 {
			return 0, "", errNotCPUList
		}
	}
	if len(rest) == len(s) {
		return 0, "", errNotCPUList
	}
	return n, rest, nil
}

// cpus decodes what decides over CPUs: how many there are, isolcpus=,
// nohz_full= and rcu_nocbs (kernel/smp.c, kernel/sched/isolation.c,
// kernel/rcu/tree_nocb.h).
func (p *cmdlineParser) cpus() {
	e := &p.c.Effects
	e.Isolated, e.ManagedIRQ, e.NohzFull, e.RcuNocbs = new(""), new(""), new(""), new("")
	limit, maxCPUs := p.cpuLimits()
	iso := isolation{p: p, maxCPUs: maxCPUs}
	iso.setEnv(limit)
	for i, w := range p.words {
		if w.value == nil {
			continue
		}
		switch {
		case w.is("nohz_full"):
			iso.nohzFull(i, w)
		case w.is("isolcpus"):
			iso.isolcpus(i, w)
		}
	}
	iso.finish()
	p.rcuNocbs(&iso)
}

// cpuLimits reads the options that bound CPUs. They are early: those from
// bootconfig come too late.
func (p *cmdlineParser) cpuLimits() (limit int, maxCPUs uint32) {
	limit, maxCPUs = MaxCPUs, MaxCPUs
	if v, _ := p.config("NR_CPUS"); v != "" {
		if n, _, ok := prefixUint(v, 10); ok && n > 0 && n <= MaxCPUs {
			limit, maxCPUs = int(n), uint32(n)
		}
	}
	var smallest, last *word
	for i := range p.words {
		w := &p.words[i]
		if w.bootconfig {
			continue
		}
		var n int32
		var set, ok bool
		if w.value != nil {
			n, set, ok = getOption(*w.value)
		}
		switch {
		case w.is("nosmp"):
			maxCPUs = 0
		case w.is("nr_cpus"):
			switch {
			case !ok || n <= 0:
				p.problem(w.raw, KindIgnored, "isolation", "not a number of CPUs")
			case int(n) < limit:
				if smallest != nil {
					p.problem(smallest.raw, KindOverridden, "isolation", "the smallest nr_cpus= wins, which is %s", w.raw)
				}
				limit, smallest = int(n), w
			case smallest != nil:
				p.problem(w.raw, KindOverridden, "isolation", "the smallest nr_cpus= wins, which is %s", smallest.raw)
			}
		case w.is("maxcpus") && set:
			if last != nil {
				p.problem(last.raw, KindOverridden, "isolation", "the last maxcpus= wins, which is %s", w.raw)
			}
			if !ok {
				p.problem(w.raw, KindPartial, "isolation", "not a number: the kernel reads 0, which leaves the boot CPU alone running")
			}
			maxCPUs, last = uint32(n), w
		}
	}
	return limit, maxCPUs
}

// The types of housekeeping that matter here (kernel/sched/isolation.c).
const (
	hkDomain = 1 << iota
	hkManagedIRQ
	hkTick
	hkNohzFull // timers, RCU, workqueues, threads: what nohz_full= has besides the tick
)

var hkTypes = []int{hkDomain, hkManagedIRQ, hkTick, hkNohzFull}

// isolation is the state of housekeeping_setup().
type isolation struct {
	p        *cmdlineParser
	possible CPUSet
	present  CPUSet // as the kernel knows it when it parses
	nbits    int    // nr_cpu_ids
	maxCPUs  uint32
	known    bool   // whether the CPUs are
	unknown  string // why not
	needed   bool   // some option asked for them

	flags   int
	keep    map[int]CPUSet // housekeeping CPUs by type
	from    map[int]*word  // which word set the type
	tick    CPUSet         // nohz_full mask
	ticking bool
}

// bootCPU is the number that the kernel gives to the CPU it starts on.
const bootCPU = 0

func (s *isolation) setEnv(limit int) {
	s.keep, s.from = map[int]CPUSet{}, map[int]*word{}
	env := s.p.env
	if env.Possible == nil || env.Possible.Len() == 0 {
		s.unknown = "how many CPUs the host has is not known"
		return
	}
	s.known = true
	s.possible = *env.Possible
	if s.p.x86() && s.maxCPUs == 0 { // arch/x86/kernel/cpu/topology.c
		limit = 1
	}
	var in CPUSet
	in.AddRange(0, limit-1)
	s.possible = s.possible.And(in)
	all := s.possible.List()
	s.nbits = all[len(all)-1] + 1
	switch {
	case env.Arch == "arm64" || env.Arch == "riscv64":
		// The others become present later, in smp_prepare_cpus().
		s.present.Add(bootCPU)
	case env.Present != nil:
		s.present = env.Present.And(s.possible)
	default:
		s.present = s.possible
	}
}

func (s *isolation) nohzFull(i int, w word) {
	if s.p.off("CPU_ISOLATION") {
		return // not a parameter of this kernel
	}
	s.setup(i, w, *w.value, hkTick|hkNohzFull)
}

// isolcpus reads the flags before the list. A last flag without a comma makes
// the kernel step over the end of the word and go on in the next one.
func (s *isolation) isolcpus(i int, w word) {
	if s.p.off("CPU_ISOLATION") {
		return
	}
	str := *w.value
	ended := false // str is already what follows the word
	flags := 0
	for str != "" && isAlpha(str[0]) {
		if rest, ok := strings.CutPrefix(str, "nohz,"); ok {
			flags, str = flags|hkTick, rest
			continue
		}
		if rest, ok := strings.CutPrefix(str, "domain,"); ok {
			flags, str = flags|hkDomain, rest
			continue
		}
		if rest, ok := strings.CutPrefix(str, "managed_irq,"); ok {
			flags, str = flags|hkManagedIRQ, rest
			continue
		}
		flag, rest, comma := strings.Cut(str, ",")
		if !isFlag(flag) {
			if ended {
				break
			}
			s.p.refused[i] = true
			why := "%q is read as a flag, and a flag has letters only; the option is refused"
			if strings.EqualFold(flag, "all") || strings.HasPrefix(flag, "N") {
				why = "%q is read as a flag, not as CPUs; write a list that starts with a number, such as 1-N"
			}
			s.p.problem(w.raw, KindRefused, "isolation", why, flag)
			return
		}
		if !comma {
			if ended {
				str = ""
				break
			}
			// the kernel skips the flag, then the NUL after it
			ended, str = true, w.rest
			if str == "" {
				break
			}
			continue
		}
		s.p.problem(w.raw, KindPartial, "isolation", "isolcpus= has no flag %q; the kernel skips it", flag)
		str = rest
	}
	if ended {
		// What the kernel reads now is the rest of the text. A list of CPUs
		// there would be taken; anything else refuses the option.
		if set, err := parseKernelCPUList(str, s.nbits); err != nil || set.Len() == 0 {
			s.p.refused[i] = true
			s.p.problem(w.raw, KindRefused, "isolation", "no list of CPUs: all of %q is read as flags; write a list that starts with a number, such as 1-N", *w.value)
			return
		}
	}
	if flags == 0 {
		flags = hkDomain
	}
	s.setup(i, w, str, flags)
}

func isFlag(s string) bool {
	for i := range len(s) {
		if s[i] != '_' && !isAlpha(s[i]) {
			return false
		}
	}
	return true
}

// setup is housekeeping_setup().
func (s *isolation) setup(i int, w word, list string, flags int) {
	refuse := func(kind, format string, args ...any) {
		s.p.refused[i] = true
		s.p.problem(w.raw, kind, "isolation", format, args...)
	}
	if flags&hkTick != 0 && s.flags&hkTick == 0 {
		if s.p.off("NO_HZ_FULL") {
			refuse(KindRefused, "this kernel was built without CONFIG_NO_HZ_FULL")
			return
		}
		if _, known := s.p.config("NO_HZ_FULL"); !known {
			s.p.assume("the kernel has CONFIG_NO_HZ_FULL, as distributions do")
		}
	}
	s.needed = true
	if !s.known {
		return
	}
	cpus, err := parseKernelCPUList(list, s.nbits)
	if err != nil {
		refuse(KindRefused, "%v; the kernel refuses the whole list (this host has CPUs %s)", err, s.possible)
		return
	}
	keep := s.possible.Minus(cpus)
	if first := keep.And(s.present).List(); len(first) == 0 || uint64(first[0]) >= uint64(s.maxCPUs) {
		if cpus.Has(bootCPU) {
			s.p.problem(w.raw, KindPartial, "isolation", "no CPU that is present at boot is left over, so the kernel takes the boot CPU %d back", bootCPU)
		}
		keep.Add(bootCPU)
		var boot CPUSet
		boot.Add(bootCPU)
		cpus = cpus.Minus(boot)
	}
	if cpus.Len() == 0 {
		refuse(KindIgnored, "the list leaves no CPU to isolate")
		return
	}
	for _, t := range hkTypes {
		if flags&s.flags&t != 0 && !keep.Equal(s.keep[t]) {
			refuse(KindRefused, "the list differs from the one of %s, which came first: for one purpose the lists must match", s.from[t].raw)
			return
		}
	}
	if flags&^s.flags == 0 {
		s.p.problem(w.raw, KindRedundant, "isolation", "%s already says the same", s.from[flags&-flags].raw)
	}
	for _, t := range hkTypes {
		if flags&t != 0 && s.flags&t == 0 {
			s.keep[t], s.from[t] = keep, &s.p.words[i]
		}
	}
	if flags&hkTick != 0 && s.flags&hkTick == 0 {
		s.tick, s.ticking = cpus, true
		s.dropTimekeeper(w)
	}
	s.flags |= flags
}

// dropTimekeeper is tick_nohz_init(): where the machine can sleep, the boot
// CPU keeps its tick.
func (s *isolation) dropTimekeeper(w word) {
	if !s.tick.Has(bootCPU) {
		return
	}
	if sleep, known := s.p.config("PM_SLEEP_SMP"); known && sleep != "y" {
		return
	}
	if v, _ := s.p.config("PM_SLEEP_SMP_NONZERO_CPU"); v == "y" {
		return
	}
	var boot CPUSet
	boot.Add(bootCPU)
	s.tick = s.tick.Minus(boot)
	s.p.problem(w.raw, KindPartial, "isolation", "the boot CPU %d keeps the time and is dropped from the list", bootCPU)
}

func (s *isolation) finish() {
	e := &s.p.c.Effects
	if !s.known && s.needed {
		e.Isolated, e.ManagedIRQ, e.NohzFull = nil, nil, nil
		for _, field := range []string{"isolated", "managed_irq", "nohz_full"} {
			e.Unknown.say(field, s.unknown)
		}
		return
	}
	lost := func(t int) string {
		if s.flags&t == 0 {
			return ""
		}
		return s.possible.Minus(s.keep[t]).String()
	}
	e.Isolated, e.ManagedIRQ = new(lost(hkDomain)), new(lost(hkManagedIRQ))
	e.NohzFull = new(s.tick.String())
}

// rcuNocbs decodes rcu_nocbs, which stands alone or has a list; the last one
// wins, and nohz_full adds its own CPUs (rcu_init_nohz).
func (p *cmdlineParser) rcuNocbs(s *isolation) {
	e := &p.c.Effects
	var last *word
	var asked CPUSet
	setup := false
	for i := range p.words {
		w := &p.words[i]
		const name = "rcu_nocbs"
		if !strings.HasPrefix(foldName(w.name), name) || foldName(w.name) == "rcu_nocb_poll" {
			continue
		}
		if p.off("RCU_NOCB_CPU") {
			p.problem(w.raw, KindIgnored, "isolation", "this kernel was built without CONFIG_RCU_NOCB_CPU")
			continue
		}
		if _, known := p.config("RCU_NOCB_CPU"); !known {
			p.assume("the kernel has CONFIG_RCU_NOCB_CPU, as distributions do")
		}
		if last != nil {
			p.problem(last.raw, KindOverridden, "isolation", "the last rcu_nocbs wins, which is %s", w.raw)
		}
		last, setup, asked = w, true, CPUSet{}
		if !w.is(name) || w.value == nil {
			continue
		}
		if !s.known {
			if e.RcuNocbs != nil {
				e.RcuNocbs = nil
				e.Unknown.say("rcu_nocbs", s.unknown)
			}
			continue
		}
		var err error
		if asked, err = parseKernelCPUList(*w.value, s.nbits); err != nil {
			p.problem(w.raw, KindPartial, "isolation", "%v; the kernel then takes all CPUs (this host has %s)", err, s.possible)
			asked = s.possible
		}
	}
	if all, _ := p.config("RCU_NOCB_CPU_DEFAULT_ALL"); all == "y" && !setup && s.tick.Len() == 0 {
		if !s.known {
			e.RcuNocbs = nil
			e.Unknown.say("rcu_nocbs", s.unknown)
			return
		}
		asked = s.possible
	}
	if e.RcuNocbs == nil || !s.known && s.needed {
		if e.RcuNocbs != nil {
			e.RcuNocbs = nil
			e.Unknown.say("rcu_nocbs", s.unknown)
		}
		return
	}
	if last != nil && asked.Len() > 0 && asked.Minus(s.tick).Len() == 0 {
		p.problem(last.raw, KindRedundant, "isolation", "nohz_full= already takes RCU callbacks off its CPUs %s", s.tick)
	}
	e.RcuNocbs = new(asked.Or(s.tick).And(s.possible).String())
}
