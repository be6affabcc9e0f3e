// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// OffloadRevision is where one posting of the copy offload for page migration
// ("dcbm") keeps its control files, and how they behave. None is in a released
// kernel; names moved between postings and may move again.
type OffloadRevision struct {
	Name     string   // of the posting: "v6"
	Posted   string   // when, for people
	Dir      string   // its control directory
	Has      []string // files by which it is known, next to "offloading"
	HasAny   []string // one of these as well
	Channels int      // most that nr_dma_chan takes; 0: it has no such file
	Counts   bool     // has folios_migrated and folios_failures
	Reasons  bool     // has reason_mask
	InOrder  bool     // right with engines that finish out of order
}

// offloadRevisions is the table of all, the newest first: the first whose files
// are there counts. Files that it does not name are ignored. Sources: linux-mm,
// "Accelerate page migration with batch copying and hardware offload", RFC v1 (14
// Jun 2024) to v6 (30 Jun 2026); the fork is byrnedj/linux, drivers/mm_offload.
var offloadRevisions = []OffloadRevision{
	{Name: "fork", Posted: "byrnedj/linux, 2026", Dir: "/sys/module/dcbm/parameters", Has: []string{"nr_dma_chan"}, HasAny: []string{"batches_refused", "sg_elems"}, Channels: 16, Counts: true, InOrder: true},
	{Name: "v6", Posted: "RFC v6, 30 Jun 2026", Dir: "/sys/module/dcbm/parameters", Has: []string{"nr_dma_chan"}, Channels: 16, Counts: true, Reasons: true},
	{Name: "v5", Posted: "RFC v5, 28 Apr 2026", Dir: "/sys/module/dcbm", Has: []string{"nr_dma_chan"}, Channels: 16, Counts: true},
	{Name: "v4", Posted: "RFC v4, 9 Mar 2026", Dir: "/sys/kernel/dcbm", Has: []string{"nr_dma_chan", "folios_migrated"}, Channels: 16, Counts: true},
	{Name: "v3", Posted: "RFC v2 or v3, 2025", Dir: "/sys/kernel/dcbm", Has: []string{"nr_dma_chan"}, Channels: 16},
	{Name: "v1", Posted: "RFC v1, 14 Jun 2024", Dir: "/sys/kernel/dcbm"},
}

// PathCPUMT holds the switch of copies by several kernel threads, of the
// postings v2 and v3 alone.
const PathCPUMT = "/sys/kernel/cpu_mt"

// Names of the control files.
const (
	OffloadSwitch   = "offloading"
	OffloadChannels = "nr_dma_chan"
	OffloadReasons  = "reason_mask"
	FoliosMigrated  = "folios_migrated"
	FoliosFailed    = "folios_failures"
	CPUMTThreads    = "threads"
)

// OffloadDirs are the directories of all postings, the newest first.
func OffloadDirs() []string {
	var dirs []string
	for _, r := range offloadRevisions {
		if !slices.Contains(dirs, r.Dir) {
			dirs = append(dirs, r.Dir)
		}
	}
	return dirs
}

// Offload is the control directory of the copy offload.
type Offload struct {
	Revision string   `json:"revision"`        // "v6" down to "v1", or "fork"
	Dir      string   `json:"dir"`             // /sys/module/dcbm/parameters
	On       *bool    `json:"offloading"`      //
	Channels *int64   `json:"nr_dma_chan"`     // channels of one batch at most; null where it has no such file
	Migrated *int64   `json:"folios_migrated"` // folios (not pages) that engines copied since it was last set back; null where it counts none
	Failed   *int64   `json:"folios_failures"` // folios that an engine failed to copy; a batch without any channel is not counted
	Reasons  []string `json:"reason_mask"`     // what is offloaded; null where it cannot be chosen
	Unknown  Unknown  `json:"unknown,omitempty"`

	rev *OffloadRevision
}

// Rev gives the table's entry.
func (o *Offload) Rev() OffloadRevision { return *o.rev }

// Path is one of its files.
func (o *Offload) Path(name string) string { return path.Join(o.Dir, name) }

// CPUMT is the copy by several kernel threads.
type CPUMT struct {
	On      *bool   `json:"offloading"`
	Threads *int64  `json:"threads"` // 1 to 32
	Unknown Unknown `json:"unknown,omitempty"`
}

// FindOffload gives the control directory and its posting, nil where there is
// none. The error is why that is not known.
func FindOffload(h *host.Host) (*OffloadRevision, error) {
	listed := map[string][]string{}
	for _, top := range []string{"/sys/module", "/sys/kernel"} { // what cannot be looked into hides them
		if _, err := h.List(top); err != nil && !kernelLacks(h, err) {
			return nil, err
		}
	}
	for _, dir := range OffloadDirs() {
		names, err := h.List(dir)
		if err != nil && !kernelLacks(h, err) {
			return nil, err
		}
		listed[dir] = names
	}
	for i := range offloadRevisions {
		r := &offloadRevisions[i]
		there := listed[r.Dir]
		has := func(name string) bool { return slices.Contains(there, name) }
		if has(OffloadSwitch) && !slices.ContainsFunc(r.Has, func(n string) bool { return !has(n) }) && (r.HasAny == nil || slices.ContainsFunc(r.HasAny, has)) {
			return r, nil
		}
	}
	return nil, nil //nolint:nilnil // no directory and no error: the normal state
}

func readOffload(h *host.Host, r *OffloadRevision) *Offload {
	o := &Offload{Revision: r.Name, Dir: r.Dir, rev: r}
	o.On = readSwitch(h, o.Path(OffloadSwitch), &o.Unknown)
	number := func(name string, to **int64) {
		n, err := h.Int(o.Path(name))
		switch {
		case err == nil:
			*to = &n
		case !kernelLacks(h, err): // a tree of development may lack one that its posting has
			o.Unknown.say(name, whyNot(h, err))
		}
	}
	if r.Channels > 0 {
		number(OffloadChannels, &o.Channels)
	}
	if r.Counts {
		number(FoliosMigrated, &o.Migrated)
		number(FoliosFailed, &o.Failed)
	}
	if r.Reasons {
		text, err := h.Text(o.Path(OffloadReasons))
		if err == nil {
			o.Reasons, err = ParseReasons(text)
			if err != nil {
				err = fmt.Errorf("%s: %w", o.Path(OffloadReasons), err)
			}
		}
		if err != nil && !kernelLacks(h, err) {
			o.Unknown.say(OffloadReasons, whyNot(h, err))
		}
	}
	return o
}

// readCPUMT gives nil where the kernel has none.
func readCPUMT(h *host.Host) (*CPUMT, error) {
	if _, err := h.List(PathCPUMT); err != nil {
		if kernelLacks(h, err) {
			err = nil
		}
		return nil, err
	}
	c := new(CPUMT)
	c.On = readSwitch(h, path.Join(PathCPUMT, OffloadSwitch), &c.Unknown)
	if n, err := h.Int(path.Join(PathCPUMT, CPUMTThreads)); err != nil {
		c.Unknown.say(CPUMTThreads, whyNot(h, err))
	} else {
		c.Threads = &n
	}
	return c, nil
}

func readSwitch(h *host.Host, p string, u *Unknown) *bool {
	text, err := h.Text(p)
	if err == nil {
		if on, ok := ParseKernelBool(text); ok {
			return &on
		}
		err = fmt.Errorf("%s: %.20q is neither on nor off", p, text)
	}
	u.say(OffloadSwitch, whyNot(h, err))
	return nil
}

// ParseKernelBool reads what kstrtobool takes and what the kernel prints for it
// (lib/kstrtox.c): the first letter counts, of "on" and "off" the second.
func ParseKernelBool(s string) (on, ok bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	switch {
	case s == "":
		return false, false
	case strings.HasPrefix(s, "on"), s[0] == 'y', s[0] == 't', s[0] == '1':
		return true, true
	case strings.HasPrefix(s, "off"), s[0] == 'n', s[0] == 'f', s[0] == '0':
		return false, true
	}
	return false, false
}

// Reasons are why the kernel migrates, in the order of the bits of reason_mask
// (enum migrate_reason).
var Reasons = []string{
	"compaction", "memory_failure", "memory_hotplug", "syscall_or_cpuset", "mempolicy_mbind",
	"numa_misplaced", "contig_range", "longterm_pin", "demotion", "damon",
}

// maxReasons bounds what is believed of a mask with names that are not known
// here.
const maxReasons = 32

// ParseReasons reads a mask of reasons as it is written or read back: a number,
// a list with commas, "all", "none". Known names come in the order of their
// bits, each once; those that this table lacks come behind, as they are.
func ParseReasons(text string) ([]string, error) {
	text = strings.TrimSpace(text)
	bad := fmt.Errorf("%.60q is not a mask of reasons", text)
	set := uint64(0)
	var others []string
	switch n, err := strconv.ParseUint(text, 0, 64); {
	case err == nil && bits.Len64(n) > len(Reasons):
		return nil, fmt.Errorf("%.60q has bits that no reason is known for", text)
	case err == nil:
		set = n
	case text == "all":
		set = 1<<len(Reasons) - 1
	case text == "none":
	default:
		for w := range strings.SplitSeq(text, ",") {
			w = strings.TrimSpace(w)
			i := slices.Index(Reasons, w)
			switch {
			case i >= 0:
				set |= 1 << i
			case !reasonForm(w) || len(others) == maxReasons:
				return nil, bad
			case !slices.Contains(others, w):
				others = append(others, w)
			}
		}
	}
	out := []string{}
	for i, name := range Reasons {
		if set&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	slices.Sort(others)
	return append(out, others...), nil
}

func reasonForm(w string) bool {
	return w != "" && len(w) <= 40 && w != "all" && w != "none" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && w[0] > '9'
}

// FormatReasons is a set of reasons in one spelling, which the kernel takes.
func FormatReasons(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case slices.Equal(names, Reasons):
		return "all"
	}
	return strings.Join(names, ",")
}
