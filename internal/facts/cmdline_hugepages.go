// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// hugeSizes are the hugepage sizes of an architecture and page size, the
// default one first; which are gigantic (beyond the buddy allocator) decides
// when the kernel allocates them.
type hugeSizes struct {
	sizes    []uint64
	gigantic uint64 // the smallest gigantic size
	cma      uint64 // what hugetlb_cma= is for
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// hugeSizesOf gives what arch_hugetlb_valid_size() accepts (arch/x86/mm and
// arch/arm64/mm/hugetlbpage.c); why says what is missing to know it.
func (p *cmdlineParser) hugeSizesOf() (s hugeSizes, why string) {
	switch p.env.Arch {
	case "amd64":
		return hugeSizes{[]uint64{2 * mib, gib}, gib, gib}, ""
	case "arm64":
		switch p.env.PageSize {
		case 4 * kib:
			s = hugeSizes{[]uint64{2 * mib, 64 * kib, 32 * mib, gib}, 32 * mib, gib}
		case 16 * kib:
			s = hugeSizes{[]uint64{32 * mib, 2 * mib, gib}, gib, gib}
		case 64 * kib:
			s = hugeSizes{[]uint64{512 * mib, 2 * mib, 16 * gib}, 16 * gib, 16 * gib}
		default:
			return s, "the page size of the host is not known"
		}
		if v, _ := p.config("ARCH_FORCE_MAX_ORDER"); v != "" {
			if order, _, ok := prefixUint(v, 10); ok && order < 32 {
				s.gigantic = uint64(p.env.PageSize) << (order + 1)
			}
		}
		return s, ""
	case "":
		return s, "the architecture of the host is not known"
	}
	return s, "the hugepage sizes of " + p.env.Arch + " are not known to hostcheck"
}

// hstate is the pool of one size as the parser of mm/hugetlb.c fills it.
type hstate struct {
	size  uint64
	count uint64 // max_huge_pages
	nodes map[uint64]uint64
	word  *word // hugepagesz= that made it; nil for others
	given bool  // some hugepages= was for it
}

// hugeParser is the state of that parser.
type hugeParser struct {
	p     *cmdlineParser
	sizes hugeSizes
	cma   bool // hugetlb_cma= switches boot-time gigantic pages off

	states  []*hstate
	parsed  *hstate // the latest valid size
	deflt   *hstate // set by default_hugepagesz=
	defWord *word

	defGuess string // why the default size is not known after all
	misaimed *word  // default_hugepagesz= of a size given before: counts still go to parsed

	early     hstate // a count before any size: for the default size, whatever that will be
	earlyWord *word
	invalid   string  // why the next hugepages= is dropped; "" when it is not
	last      *hstate // who got the latest count: a second one in a row is dropped

	asked   map[HugepageRequest]int64 // size and node -> pages
	unknown string                    // why the outcome is not known
}

// hugepages decodes hugepagesz=, hugepages= and default_hugepagesz=: an
// ordered state machine, never a map.
func (p *cmdlineParser) hugepages() {
	e := &p.c.Effects
	e.Hugepages = []HugepageRequest{}
	if p.off("HUGETLBFS") {
		for _, w := range p.words {
			if w.value != nil && (w.is("hugepages") || w.is("hugepagesz") || w.is("default_hugepagesz")) {
				p.problem(w.raw, KindIgnored, "hugepages", "this kernel was built without CONFIG_HUGETLBFS")
			}
		}
		e.Unknown.say("default_hugepage_kb", "the kernel has no hugetlb pages")
		return
	}
	h := &hugeParser{p: p, early: hstate{nodes: map[uint64]uint64{}}, asked: map[HugepageRequest]int64{}}
	var why string
	if h.sizes, why = p.hugeSizesOf(); why != "" {
		e.Unknown.say("default_hugepage_kb", why)
		for _, w := range p.words {
			if w.value != nil && (w.is("hugepages") || w.is("hugepagesz") || w.is("default_hugepagesz")) {
				e.Hugepages = nil
				e.Unknown.say("hugepages", why)
			}
		}
		return
	}
	h.parseCMA()
	for i := range p.words {
		w := &p.words[i]
		if w.value == nil {
			continue
		}
		switch {
		case w.is("hugepages"):
			h.count(w)
		case w.is("hugepagesz"):
			h.size(w)
		case w.is("default_hugepagesz"):
			h.defaultSize(w)
		}
	}
	h.finish()
	if h.unknown != "" {
		e.Hugepages = nil
		e.Unknown.say("hugepages", h.unknown)
		if h.defGuess != "" {
			e.Unknown.say("default_hugepage_kb", h.defGuess)
			return
		}
	} else {
		for r, n := range h.asked {
			r.Count = n
			e.Hugepages = append(e.Hugepages, r)
		}
		slices.SortFunc(e.Hugepages, func(a, b HugepageRequest) int {
			return cmp.Or(cmp.Compare(a.SizeKB, b.SizeKB), cmp.Compare(a.Node, b.Node))
		})
	}
	def := h.sizes.sizes[0]
	if h.deflt != nil {
		def = h.deflt.size
	}
	e.DefaultHugepageKB = new(int64(def / kib))
}

func (h *hugeParser) gigantic(s *hstate) bool { return s.size >= h.sizes.gigantic }

// valid reports whether the host has a size; on x86 1G needs the CPU flag.
func (h *hugeParser) valid(size uint64) bool {
	if !slices.Contains(h.sizes.sizes, size) {
		return false
	}
	if h.p.x86() && size == gib {
		if h.p.env.GBPages == nil {
			h.unknown = "whether the CPU has 1G pages (flag pdpe1gb) is not known"
			return true
		}
		return *h.p.env.GBPages
	}
	return true
}

// refuseSize says why a size is not one.
func (h *hugeParser) refuseSize(w *word, size uint64) {
	why := "this host has no hugepages of that size"
	switch {
	case size == 0:
		why = "not a size; write a number and K, M or G, such as 1G"
	case h.p.x86() && size == gib:
		why = "the CPU has no 1G pages (no flag pdpe1gb)"
	case size < 64*kib:
		why += "; the number is bytes unless K, M or G follows it"
	}
	h.p.problem(w.raw, KindRefused, "hugepages", "%s", why)
	h.invalid = "it follows " + w.raw + ", which the kernel refuses"
}

func (h *hugeParser) find(size uint64) *hstate {
	for _, s := range h.states {
		if s.size == size {
			return s
		}
	}
	return nil
}

func (h *hugeParser) add(size uint64) *hstate {
	if s := h.find(size); s != nil {
		return s
	}
	s := &hstate{size: size, nodes: map[uint64]uint64{}}
	h.states, h.parsed = append(h.states, s), s
	return s
}

// readSize reads the value of a size option and tells of text after it.
func (h *hugeParser) readSize(w *word) uint64 {
	size, rest := memparse(*w.value)
	if rest != "" && !slices.Contains([]string{"B", "b", "iB", "ib", "i"}, rest) && size != 0 {
		h.p.problem(w.raw, KindPartial, "hugepages", "the kernel stops reading the size at %q", rest)
	}
	return size
}

// size is hugepagesz_setup().
func (h *hugeParser) size(w *word) {
	h.invalid, h.misaimed = "", nil
	size := h.readSize(w)
	if !h.valid(size) {
		h.refuseSize(w, size)
		return
	}
	if s := h.find(size); s != nil {
		if h.deflt == nil || s != h.deflt || s.count > 0 {
			h.p.problem(w.raw, KindIgnored, "hugepages", "the size was given before; the kernel ignores the repeat and the count after it")
			h.invalid = "it follows " + w.raw + ", a size that was given before"
			return
		}
		h.parsed = s
		s.word = w
		return
	}
	h.add(size).word = w
}

// defaultSize is default_hugepagesz_setup().
func (h *hugeParser) defaultSize(w *word) {
	h.invalid = ""
	if h.deflt != nil {
		h.p.problem(w.raw, KindIgnored, "hugepages", "the first valid one, %s, has decided; the kernel ignores this one and the count after it", h.defWord.raw)
		h.invalid = "it follows " + w.raw + ", which the kernel ignores"
		return
	}
	size := h.readSize(w)
	if !h.valid(size) {
		h.refuseSize(w, size)
		return
	}
	if h.p.x86() && size == gib && h.p.env.GBPages == nil {
		h.defGuess = h.unknown
	}
	if old := h.find(size); old != nil && old != h.parsed {
		h.misaimed = w // a size that exists does not become the one that counts are for
	}
	h.deflt, h.defWord = h.add(size), w
	if h.early.count > 0 {
		h.takeEarly(h.deflt)
		if h.gigantic(h.deflt) {
			h.allocate(h.deflt)
		}
		h.early.count = 0
	}
}

// takeEarly gives the count that came before any size to the default size.
func (h *hugeParser) takeEarly(s *hstate) {
	s.count, s.given = h.early.count, true
	s.nodes = map[uint64]uint64{}
	for n, c := range h.early.nodes {
		s.nodes[n] = c
	}
}

// count is hugepages_setup().
func (h *hugeParser) count(w *word) {
	if h.invalid != "" {
		h.p.problem(w.raw, KindIgnored, "hugepages", "lost: %s", h.invalid)
		h.invalid = ""
		return
	}
	target := &h.early
	if len(h.states) > 0 {
		target = h.parsed
	}
	if h.misaimed != nil {
		h.p.problem(w.raw, KindPartial, "hugepages", "the size of %s was given before, so this count is for the size given last, %s", h.misaimed.raw, SizeName(int64(target.size/kib)))
		h.misaimed = nil
	}
	if target == h.last {
		h.p.problem(w.raw, KindIgnored, "hugepages", "lost: the size before it already has its count, and no other size stands between")
		return
	}
	if why := h.readCount(w, target); why != "" {
		h.p.problem(w.raw, KindRefused, "hugepages", "%s; all of it is dropped", why)
		target.count, target.nodes = 0, map[uint64]uint64{}
		return
	}
	target.given = true
	if target == &h.early {
		h.earlyWord = w
	} else if h.gigantic(target) {
		h.allocate(target)
	}
	h.last = target
}

// readCount reads "N" or "NODE:N,NODE:N"; why is set when the kernel finds it
// invalid.
func (h *hugeParser) readCount(w *word, to *hstate) (why string) {
	s := *w.value
	if s == "" {
		h.p.problem(w.raw, KindPartial, "hugepages", "no number: the kernel asks for no pages")
	}
	for first := true; s != ""; first = false {
		n, rest, ok := prefixUint(skipSpaces(s), 10)
		if !ok {
			return fmt.Sprintf("%q is not a number", s)
		}
		if rest == "" || rest[0] != ':' {
			if !first {
				return fmt.Sprintf("%q names no node", s)
			}
			to.count = n
			h.trailing(w, rest)
			return ""
		}
		node := n
		if n, rest, ok = prefixUint(skipSpaces(rest[1:]), 10); !ok {
			// The node is looked at first, but either way all is dropped.
			return fmt.Sprintf("%q gives node %d no number", s, node)
		}
		if h.p.env.Nodes == nil {
			h.unknown = "the NUMA nodes of the host are not known"
		} else if node >= MaxCPUs || !h.p.env.Nodes.Has(int(node)) {
			return fmt.Sprintf("node %d is not online (this host has %s)", node, h.p.env.Nodes)
		}
		if old, ok := to.nodes[node]; ok {
			h.p.problem(w.raw, KindPartial, "hugepages", "node %d stands in it twice: the last count, %d, replaces %d", node, n, old)
		}
		to.nodes[node] = n
		to.count += n
		if rest == "" || rest[0] != ',' {
			h.trailing(w, rest)
			return ""
		}
		s = rest[1:]
	}
	return ""
}

func (h *hugeParser) trailing(w *word, rest string) {
	if rest != "" {
		h.p.problem(w.raw, KindPartial, "hugepages", "the kernel stops reading the count at %q", rest)
	}
}

// allocate is hugetlb_hstate_alloc_pages(): gigantic pages at once, others
// when all is parsed. Counts by node go before the plain one.
func (h *hugeParser) allocate(s *hstate) {
	if h.gigantic(s) && h.cma {
		return
	}
	byNode := false
	for node, n := range s.nodes {
		if n > 0 {
			byNode = true
			h.ask(s.size, int(node), n)
		}
	}
	if !byNode && s.count > 0 {
		h.ask(s.size, -1, s.count)
	}
}

func (h *hugeParser) ask(size uint64, node int, n uint64) {
	r := HugepageRequest{SizeKB: int64(size / kib), Node: node}
	h.asked[r] = int64(min(uint64(h.asked[r])+min(n, math.MaxInt64), math.MaxInt64))
}

// finish is hugetlb_init().
func (h *hugeParser) finish() {
	def := h.deflt
	if def == nil {
		def = h.find(h.sizes.sizes[0])
		if h.early.count > 0 {
			if def == nil {
				def = h.add(h.sizes.sizes[0])
			}
			if def.count > 0 {
				h.p.problem(def.wordRaw(), KindOverridden, "hugepages", "%s stands before any size, so it is for the default size %s and replaces the count given with it", h.earlyWord.raw, SizeName(int64(def.size/kib)))
			}
			h.takeEarly(def)
		}
	}
	for _, s := range h.states {
		if !h.gigantic(s) {
			h.allocate(s)
		} else if h.cma && s.count > 0 {
			h.p.problem(s.wordRaw(), KindIgnored, "hugepages", "hugetlb_cma= is given, so the kernel sets no %s pages aside at boot", SizeName(int64(s.size/kib)))
		}
		if s.word != nil && !s.given && h.earlyWord != nil {
			h.p.problem(s.word.raw, KindPartial, "hugepages", "no count follows it: %s stands before it and went to the default size %s", h.earlyWord.raw, SizeName(int64(def.size/kib)))
		}
	}
}

func (s *hstate) wordRaw() string {
	if s.word == nil {
		return "hugepages="
	}
	return s.word.raw
}

// parseCMA reads hugetlb_cma= (cmdline_parse_hugetlb_cma, hugetlb_cma_reserve):
// any area that the host has room for turns boot-time gigantic pages off.
func (h *hugeParser) parseCMA() {
	var total uint64
	byNode := map[uint64]uint64{}
	var last *word
	for i := range h.p.words {
		w := &h.p.words[i]
		if !w.is("hugetlb_cma") || w.value == nil || w.bootconfig {
			continue
		}
		if h.p.off("CMA") {
			h.p.problem(w.raw, KindIgnored, "hugepages", "this kernel was built without CONFIG_CMA")
			continue
		}
		last = w
		for s := *w.value; s != ""; {
			n, rest, ok := prefixUint(skipSpaces(s), 10)
			if !ok {
				break
			}
			if rest == "" || rest[0] != ':' {
				total, _ = memparse(*w.value)
				break
			}
			if n >= maxNodes {
				break
			}
			size, after := memparse(rest[1:])
			byNode[n] = size
			total += size
			if after == "" || after[0] != ',' {
				break
			}
			s = after[1:]
		}
	}
	if last == nil {
		return
	}
	if _, known := h.p.config("CMA"); !known {
		h.p.assume("the kernel has CONFIG_CMA, which hugetlb_cma= needs")
	}
	for _, n := range slices.Sorted(maps.Keys(byNode)) {
		size := byNode[n]
		if size == 0 {
			continue
		}
		if online := h.p.env.Nodes; size < h.sizes.cma || online != nil && !online.Has(int(n)) {
			total -= size
			h.p.problem(last.raw, KindPartial, "hugepages", "node %d is not online or its area is below %s; the kernel skips it", n, SizeName(int64(h.sizes.cma/kib)))
		}
	}
	if total > 0 && total < h.sizes.cma {
		h.p.problem(last.raw, KindIgnored, "hugepages", "the area is below %s", SizeName(int64(h.sizes.cma/kib)))
	}
	h.cma = total >= h.sizes.cma
}
