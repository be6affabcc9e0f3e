// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Hugepages sizes a hugetlb pool while the host runs: kind "hugepages", Target
// the node ("node0"), Name the page size ("2048kB"), the value the pages that
// the pool keeps: its total without the surplus pages, which go by themselves.
// The kernel may give fewer pages than asked without a word, so what it gave
// is read back. The next boot starts from the command line again.
type Hugepages struct{}

// Kind is "hugepages".
func (Hugepages) Kind() string { return "hugepages" }

// HugepagesSetting names the pool of a page size on a node.
func HugepagesSetting(node int, sizeKB int64) plan.Setting {
	return plan.Setting{Kind: "hugepages", Target: fmt.Sprintf("node%d", node), Name: fmt.Sprintf("%dkB", sizeKB)}
}

// The share of a node's memory that pools may take, all sizes together, and
// what must stay outside them of a node larger than that: 16 GiB or a tenth,
// whichever is more.
const (
	poolPercent     = 60
	poolPercentMuch = 50 // said, not refused
	poolLeaveKB     = 16 << 20
	gigantic        = 1 << 20 // kB; from here on only CONFIG_CONTIG_ALLOC makes pages at run time
)

// pool is one pool as a setting names it.
type pool struct {
	node   int
	sizeKB int64
}

func parsePool(s plan.Setting) (p pool, err error) {
	n, ok := strings.CutPrefix(s.Target, "node")
	size, ok2 := strings.CutSuffix(s.Name, "kB")
	node, err1 := strconv.ParseUint(n, 10, 10)
	kb, err2 := strconv.ParseInt(size, 10, 64)
	if !ok || !ok2 || err1 != nil || err2 != nil || kb <= 0 || HugepagesSetting(int(node), kb) != s {
		return p, fmt.Errorf("%s is not a pool: it wants a target such as node0 and a name such as 2048kB", s)
	}
	return pool{int(node), kb}, nil
}

func (p pool) String() string { return fmt.Sprintf("%s on node%d", facts.SizeName(p.sizeKB), p.node) }

// read gives the pool, or an error that says why its numbers are not known.
func (p pool) read(f *facts.Facts) (*facts.NodePool, error) {
	h := f.Hugepages()
	n := h.Pool(p.node, p.sizeKB)
	switch {
	case n == nil && h.Unlisted[p.node] != "":
		return nil, fmt.Errorf("the pools of node%d are not known: %s", p.node, h.Unlisted[p.node])
	case n == nil && h.Pools == nil:
		return nil, fmt.Errorf("the pools are not known: %s", h.Unknown["pools"])
	case n == nil:
		var sizes []string
		for _, kb := range h.Sizes() {
			sizes = append(sizes, facts.SizeName(kb))
		}
		return nil, gone(fmt.Sprintf("node%d has no pool of %s pages; this kernel has pages of %s", p.node, facts.SizeName(p.sizeKB), orNothing(sizes)))
	case n.Total == nil || n.Surplus == nil || n.Free == nil:
		return nil, fmt.Errorf("the pool of %s is not known: %s", p, joined(n.Unknown))
	}
	return n, nil
}

// kept is what of a pool is there for good.
func kept(n *facts.NodePool) int64 { return *n.Total - *n.Surplus }

// Read gives the pages that the pool keeps.
func (Hugepages) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	p, err := parsePool(s)
	if err != nil {
		return plan.Absent, err
	}
	n, err := p.read(facts.New(h))
	if err != nil {
		return plan.Absent, err
	}
	return plan.Text(strconv.FormatInt(kept(n), 10)), nil
}

// poolTime is how long the kernel may take to fill a pool: it moves memory out
// of the way page by page, on a terabyte for minutes.
const poolTime = 15 * time.Minute

// Apply writes each count to its node and reads back what the kernel gave.
func (Hugepages) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		p, err := parsePool(c.Setting)
		if err != nil {
			return err
		}
		want, err := strconv.ParseInt(c.After.Text, 10, 64)
		if err != nil {
			return fmt.Errorf("cannot set %s: %q is not a count", c.Setting, c.After.Text)
		}
		dir, _, err := p.look(tx)
		if err != nil {
			return err
		}
		if err := tx.Patient(poolTime).WriteKnob(path.Join(dir, "nr_hugepages"), c.After.Text); err != nil {
			return err
		}
		_, got, err := p.look(tx)
		switch {
		case err != nil:
			return err
		case got < want:
			return fmt.Errorf("node%d gave %d of the %d pages of %s: it has no more memory in one piece; "+
				"they are had for certain at boot only: hugepagesz=%[4]s hugepages=%[1]d:%[3]d on the kernel command line", p.node, got, want, facts.SizeName(p.sizeKB))
		case got > want:
			return fmt.Errorf("node%d kept %d pages of %s where %d were to stay", p.node, got, facts.SizeName(p.sizeKB), want)
		}
	}
	return nil
}

// look reads the pool afresh.
func (p pool) look(tx *plan.Tx) (dir string, pages int64, err error) {
	h, err := tx.Host()
	if err != nil {
		return "", 0, err
	}
	defer h.Close()
	n, err := p.read(facts.New(h))
	if err != nil {
		return "", 0, err
	}
	return n.Dir, kept(n), nil
}

// ByHand is the line that sets it.
func (Hugepages) ByHand(c plan.Change) string {
	return fmt.Sprintf("echo %s > %s/hugepages/hugepages-%s/nr_hugepages", c.After.Text, "/sys/devices/system/node/"+c.Target, c.Name)
}

// Expand makes room first and takes it then, the large pages before the small,
// which would break up what the large ones need in one piece.
func (v Hugepages) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	r := newRoom(facts.New(h))
	type step struct {
		plan.Wish
		pool
		now  *facts.NodePool
		want int64
	}
	var steps []step
	for _, w := range wishes {
		p, err := parsePool(w.Setting)
		var n *facts.NodePool
		if err == nil {
			n, err = p.read(r.f)
		}
		want, perr := strconv.ParseInt(w.Want, 10, 64)
		if err == nil && (perr != nil || want < 0 || want > 1<<40) {
			err = fmt.Errorf("%q is not a count of pages", w.Want)
		}
		if err != nil {
			refused = append(refused, refuse(w, err.Error()))
			continue
		}
		steps = append(steps, step{w, p, n, want})
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		down := func(s step) int {
			if s.want <= kept(s.now) {
				return 0
			}
			return 1
		}
		if d := down(a) - down(b); d != 0 {
			return d
		}
		return int(b.sizeKB/1024 - a.sizeKB/1024)
	})
	for _, s := range steps {
		var no *plan.Refusal
		switch owned := ownedBy(r.f, s.Wish); {
		case s.want == kept(s.now):
		case owned != nil:
			no = owned
		case s.want < kept(s.now):
			no = r.shrink(s.Wish, s.pool, s.now, s.want)
		default:
			no = r.grow(s.Wish, s.pool, s.now, s.want)
		}
		if no != nil {
			refused = append(refused, *no)
			continue
		}
		r.poolKB[s.node] += (s.want - kept(s.now)) * s.sizeKB
		r.freedKB[s.node] += max(0, kept(s.now)-s.want) * s.sizeKB
		r.pages[s.pool] = s.want
		changes = append(changes, plan.Change{Setting: s.Setting, After: plan.Text(strconv.FormatInt(s.want, 10)), Tier: plan.Safe, Disturbs: r.disturbs(s.pool, s.want-kept(s.now))})
	}
	k := 0
	for _, s := range steps { // with all counts known, how they survive a boot
		if k < len(changes) && changes[k].Setting == s.Setting {
			changes[k].Why = because(s.Wish) + "; certain only when the next boot reserves them: " + r.bootTokens(s.sizeKB) + " on the kernel command line"
			k++
		}
	}
	return changes, refused, nil
}

// LeaveToBoot takes pages of 1G and more out of a plan whose trial boot reserves
// them: while the host runs they may not be had, and all would be put back.
func LeaveToBoot(p plan.Plan, wishes []plan.Wish) plan.Plan {
	if !slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Tier == plan.Boot }) {
		return p // a trial is of all tokens that are wanted, or there is none
	}
	var sizes []string
	for _, w := range wishes {
		refused := slices.ContainsFunc(p.Refused, func(r plan.Refusal) bool { return r.Setting == w.Setting })
		if size, _, ok := strings.Cut(strings.TrimPrefix(w.Name, "hugepagesz="), " "); ok && !refused && w.Setting == CmdlineSetting(w.Name) && w.Want == TokenPresent {
			sizes = append(sizes, size)
		}
	}
	left := func(s plan.Setting) bool {
		pool, err := parsePool(s)
		return err == nil && s.Kind == Hugepages{}.Kind() && pool.sizeKB >= gigantic && slices.Contains(sizes, facts.SizeName(pool.sizeKB))
	}
	p.Changes = slices.DeleteFunc(p.Changes, func(c plan.Change) bool { return left(c.Setting) })
	p.Refused = slices.DeleteFunc(p.Refused, func(r plan.Refusal) bool { return left(r.Setting) })
	p.Seal()
	return p
}

// room is what the nodes have and what is planned of it.
type room struct {
	f *facts.Facts

	// after the changes so far:
	poolKB  map[int]int64   // of a node, all sizes together, surplus included
	pages   map[pool]int64  // that a pool keeps
	freed   map[int64]int64 // pages given back, by size in kB
	freedKB map[int]int64   // memory given back, by node
}

func newRoom(f *facts.Facts) *room {
	r := &room{f: f, poolKB: map[int]int64{}, pages: map[pool]int64{}, freed: map[int64]int64{}, freedKB: map[int]int64{}}
	for i := range f.Hugepages().Pools {
		n := &f.Hugepages().Pools[i]
		if n.Total != nil && n.Surplus != nil {
			r.poolKB[n.Node] += *n.Total * n.SizeKB
			r.pages[pool{n.Node, n.SizeKB}] = kept(n)
		}
	}
	return r
}

// shrink refuses to go below what is in use: the kernel would turn the rest
// into surplus pages and free nothing.
func (r *room) shrink(w plan.Wish, p pool, n *facts.NodePool, want int64) *plan.Refusal {
	free := *n.Free
	reserved := ""
	for _, g := range r.f.Hugepages().Global {
		if g.SizeKB != p.sizeKB {
			continue
		}
		if g.Free == nil || g.Reserved == nil {
			return new(refuse(w, "how many pages are reserved is not known: "+joined(g.Unknown)))
		}
		// a reservation has no node yet: any free page may be the one
		if left := max(0, *g.Free-*g.Reserved-r.freed[p.sizeKB]); left < free {
			free, reserved = left, fmt.Sprintf(" (%d of the %d free pages of the host are reserved)", *g.Reserved, *g.Free)
		}
	}
	give := kept(n) - want
	if give <= free {
		r.freed[p.sizeKB] += give
		return nil
	}
	return new(refuse(w, fmt.Sprintf("%d pages of %s are to go and %d can%s: the others are in use, and would stay as surplus pages", give, p, free, reserved),
		"stop the programs that hold them: grep -l huge /proc/[0-9]*/numa_maps", "then run hostcheck again"))
}

// grow refuses what would leave the node too little memory, and what cannot be
// had while the host runs.
func (r *room) grow(w plan.Wish, p pool, n *facts.NodePool, want int64) *plan.Refusal {
	boot := func() string {
		return fmt.Sprintf("reserve them at boot: hugepagesz=%s hugepages=%d:%d on the kernel command line", facts.SizeName(p.sizeKB), p.node, want)
	}
	usable := r.f.NUMA().Usable()
	switch {
	case usable == nil:
		return new(refuse(w, "which nodes have CPUs and memory is not known: "+joined(r.f.NUMA().Unknown)))
	case !slices.Contains(usable, p.node):
		return new(refuse(w, fmt.Sprintf("node%d has no CPUs or no ordinary memory: pages there serve no program, and take the memory of a device", p.node)))
	}
	node := r.f.CPUs().Node(p.node)
	if node == nil || node.MemKB == nil || *node.MemKB == 0 {
		return new(refuse(w, fmt.Sprintf("how much memory node%d has is not known", p.node)))
	}
	total := *node.MemKB
	others := r.poolKB[p.node] - kept(n)*p.sizeKB
	after := others + want*p.sizeKB
	leave := leaveKB(total)
	fits := max(0, mostKB(total)-others) / p.sizeKB
	fewer := fmt.Sprintf("ask for %d pages or fewer in the profile (hugepages.pools), if that is enough", fits)
	if kept(n) > fits {
		fewer = "the pools of the node are too large as they are: ask for fewer in the profile (hugepages.pools)"
	}
	switch {
	case after*100 > total*poolPercent:
		return new(refuse(w, fmt.Sprintf("%d × %s would make the pools of node%d %s of its %s, %d %%; all sizes together may take %d %%, so %d pages fit",
			want, facts.SizeName(p.sizeKB), p.node, facts.MemName(after), facts.MemName(total), after*100/total, poolPercent, fits), fewer))
	case total-after < leave:
		return new(refuse(w, fmt.Sprintf("%d × %s would leave %s of node%d outside the pools; of its %s at least %s must stay (16 GiB or a tenth), so %d pages fit",
			want, facts.SizeName(p.sizeKB), facts.MemName(total-after), p.node, facts.MemName(total), facts.MemName(leave), fits), fewer))
	}
	if why := r.noRuntime(p); why != "" {
		return new(refuse(w, why, boot()))
	}
	if have, ok := r.reclaimable(p.node); ok && (want-kept(n))*p.sizeKB > have {
		return new(refuse(w, fmt.Sprintf("%d more pages of %s are %s, and %s at most is free or can be freed", want-kept(n), p, facts.MemName((want-kept(n))*p.sizeKB), facts.MemName(have)), boot()))
	}
	return nil
}

// leaveKB is what must stay outside the pools of a node with so much memory. A
// small node has not that much; its share counts alone, as in hugepages.share.
func leaveKB(total int64) int64 {
	if leave := max(int64(poolLeaveKB), total/10); total > leave {
		return leave
	}
	return 0
}

// mostKB is what the pools of such a node may take, all sizes together.
func mostKB(total int64) int64 { return min(total*poolPercent/100, total-leaveKB(total)) }

// noRuntime says why pages of a size cannot be had while the host runs. Below
// 1G the kernel always tries; a configuration that is not known lets it try.
func (r *room) noRuntime(p pool) string {
	k := r.f.Kernel()
	if p.sizeKB < gigantic {
		return ""
	}
	if has := k.HasCPUFlag("pdpe1gb"); k.Arch != nil && *k.Arch == "amd64" && p.sizeKB == gigantic && has != nil && !*has {
		return "the processor has no pages of 1G (no pdpe1gb in /proc/cpuinfo)"
	}
	if k.Config != nil && k.Config["CONFIG_CONTIG_ALLOC"] != "y" {
		return fmt.Sprintf("this kernel makes pages of %s at boot only: %s has no CONFIG_CONTIG_ALLOC", facts.SizeName(p.sizeKB), k.ConfigSource)
	}
	return ""
}

// reclaimable is an upper bound of what the kernel can clear on a node, in kB.
func (r *room) reclaimable(node int) (int64, bool) {
	src := facts.NodePath(node) + "/meminfo"
	if n := r.f.NUMA().Nodes; len(n) == 1 {
		src = "/proc/meminfo"
	}
	m, err := facts.Meminfo(r.f.Host(), src)
	if err != nil {
		return 0, false
	}
	free, ok := m["MemFree"]
	cache := m["FilePages"] // of a node
	if cache == 0 {
		cache = m["Cached"] + m["Buffers"]
	}
	if cache == 0 {
		return 0, false
	}
	return free + cache + m["SReclaimable"] + r.freedKB[node], ok
}

func (r *room) disturbs(p pool, more int64) string {
	if more <= 0 {
		return ""
	}
	s := fmt.Sprintf("node%d has %s less for everything else", p.node, facts.MemName(more*p.sizeKB))
	if node := r.f.CPUs().Node(p.node); node != nil && node.MemKB != nil && r.poolKB[p.node]*100 > *node.MemKB*poolPercentMuch {
		s += fmt.Sprintf(", and %d %% of it are in pools", r.poolKB[p.node]*100 / *node.MemKB)
	}
	if p.sizeKB >= gigantic {
		s += "; memory is moved to make room, which takes seconds and may not succeed"
	}
	if _, err := r.f.Host().List("/var/lib/kubelet"); err == nil {
		s += "; kubelet counts huge pages only when it starts"
	}
	return s
}

// bootTokens is what the command line would have to say for the pools of a
// size to be there after every boot.
func (r *room) bootTokens(sizeKB int64) string {
	var per []string
	var sum int64
	for _, node := range r.f.NUMA().Usable() {
		if n := r.pages[pool{node, sizeKB}]; n > 0 {
			per = append(per, fmt.Sprintf("%d:%d", node, n))
			sum += n
		}
	}
	counts := strings.Join(per, ",")
	switch {
	case len(per) == 0:
		counts = "0"
	case kernelBefore(r.f, "5.16"): // knows no counts per node
		counts = strconv.FormatInt(sum, 10)
	}
	return fmt.Sprintf("hugepagesz=%s hugepages=%s", facts.SizeName(sizeKB), counts)
}
