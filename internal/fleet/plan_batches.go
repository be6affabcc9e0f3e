// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// PlanOptions say what is planned.
type PlanOptions struct {
	Tool        Tool
	MaxHosts    int                          // at once; at least 1
	MaxFraction Fraction                     // of the fleet at once
	Spread      string                       // label of which each group has a cap of its own; "": none
	Labels      map[string]map[string]string // of hosts, by name; see [ReadLabels]
	Allow       []plan.Tier                  // beyond safe
	FailOn      check.Status                 // Fail or Warn: from which status on a host fails
	Selected    func(id string) bool         // checks that may be fixed; nil: all
	Judged      []string                     // flags that make the profile, for the commands
	Now         time.Time                    // reports of later than that are not believed; zero: all are
}

// Planner takes the reports of a fleet and those that came back since, and
// plans. It keeps of each host what it needs, and shares that between hosts that
// are alike.
type Planner struct {
	opts  PlanOptions
	allow []plan.Tier

	seen     planFindings
	hosts    []planHost
	byName   map[string]int32
	repeated map[int32]*namesakes[planHost] // of hosts with several reports
	back     map[int32]sample[verdict]      // of hosts that reported again: their first report
	again    map[int32]*namesakes[verdict]  // of those with several
	ahead    map[int32]verdict              // of hosts with a report of a time to come
	silent   int                            // files of --done without a usable report
	bases    []baseline                     // what was judged before, of hosts that need a fix

	texts   map[string]uint32
	words   []string // by their numbers in texts
	needs   []need
	needIDs map[string]uint32
	kinds   map[string]uint32
	baseIDs map[[sha256.Size]byte]uint32
	seed    maphash.Seed
	used    int   // bytes of these, roughly
	memory  int   // how many there may be
	full    error // why no plan can be made

	problems   []Problem
	lost, more int
}

// NewPlanner gives a planner that knows no host.
func NewPlanner(o PlanOptions) *Planner {
	return &Planner{
		opts: o, memory: planTexts, allow: append([]plan.Tier{plan.Safe}, o.Allow...), byName: map[string]int32{}, repeated: map[int32]*namesakes[planHost]{}, back: map[int32]sample[verdict]{}, again: map[int32]*namesakes[verdict]{}, ahead: map[int32]verdict{},
		texts: map[string]uint32{}, needIDs: map[string]uint32{}, kinds: map[string]uint32{},
		baseIDs: map[[sha256.Size]byte]uint32{}, seed: maphash.MakeSeed(),
	}
}

// Fraction is a part of a fleet: more than 0, at most 1, exact.
type Fraction struct {
	r *big.Rat
	s string
}

// ParseFraction reads "0.05" or "5%".
func ParseFraction(s string) (Fraction, error) {
	bad := fmt.Errorf("%.40q is no part of a fleet: write 0.05 or 5%%, more than 0 and at most 1 (100%%)", s)
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	// digits and one point: no exponent, which would be a number of any length
	if len(number) > 12 || strings.Trim(number, "0123456789.") != "" {
		return Fraction{}, bad
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return Fraction{}, bad
	}
	if percent {
		r.Quo(r, big.NewRat(100, 1))
	}
	if r.Sign() <= 0 || r.Cmp(big.NewRat(1, 1)) > 0 {
		return Fraction{}, bad
	}
	text := strings.TrimRight(r.FloatString(14), "0")
	return Fraction{r, strings.TrimRight(text, ".")}, nil
}

// String is the fraction as a decimal number.
func (f Fraction) String() string { return f.s }

// Of is the part of n, rounded down.
func (f Fraction) Of(n int) int {
	x := new(big.Rat).Mul(f.r, big.NewRat(int64(n), 1))
	return int(new(big.Int).Quo(x.Num(), x.Denom()).Int64())
}

// least is a part of n that is one host, as --max-fraction takes it: the smallest
// with two decimals of a percent, or more where two would make it two hosts.
func least(n int) string {
	whole, places := 10_000, 2
	for whole <= n {
		whole, places = 10*whole, places+1
	}
	part := (whole + n - 1) / n
	return fmt.Sprintf("%d.%0*d%%", part/(whole/100), places, part%(whole/100))
}

// caps says how many hosts may be worked on at once. A fraction of the fleet
// that is less than one host is refused and not rounded up: who wrote it said
// that one host is too many.
func (p *Planner) caps() (Caps, error) {
	o := &p.opts
	n := len(p.hosts)
	c := Caps{MaxHosts: o.MaxHosts, MaxFraction: o.MaxFraction.String(), Hosts: n, Spread: o.Spread}
	if n == 0 {
		return c, p.nothing()
	}
	part := o.MaxFraction.Of(n)
	if part == 0 {
		return c, fmt.Errorf("--max-fraction %s of %d hosts is less than one host, and a cap is never rounded up; for one at a time give --max-fraction %s", o.MaxFraction, n, least(n))
	}
	c.AtOnce = min(o.MaxHosts, part)
	return c, nil
}

// nothing says that no report is usable, and why the first one is not.
func (p *Planner) nothing() error {
	const why = "there is no usable report to plan from"
	if len(p.problems) == 0 {
		return errors.New(why)
	}
	q := p.problems[0]
	where := q.Source
	if where == "-" {
		where = "standard input"
	}
	if q.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, q.Line)
	}
	return fmt.Errorf("%s; %s: %s", why, where, q.Why)
}

// groups divides the hosts by the label of --spread; without, all are one.
// caps are how many of each may be worked on at once: its part, but at least one,
// else no host of a small group could ever be.
func (p *Planner) groups(c *Caps) (caps []int) {
	ids := map[string]uint32{}
	var sizes []int
	for i := range p.hosts {
		h := &p.hosts[i]
		value := ""
		if p.opts.Spread != "" {
			if value = p.opts.Labels[h.name][p.opts.Spread]; value == "" {
				c.Unlabelled++
			}
		}
		id, ok := ids[value]
		if !ok {
			id = uint32(len(sizes)) //nolint:gosec // at most MaxHosts
			ids[value], sizes = id, append(sizes, 0)
		}
		h.group = id
		sizes[id]++
	}
	for _, n := range sizes {
		if p.opts.Spread == "" {
			n = c.AtOnce
		} else {
			n = max(1, p.opts.MaxFraction.Of(n))
		}
		caps = append(caps, n)
	}
	if p.opts.Spread != "" {
		c.Groups = len(sizes)
	}
	return caps
}

// Plan makes the plan.
func (p *Planner) Plan() (*Plan, error) {
	if p.full != nil {
		return nil, p.full
	}
	p.settle()
	c, err := p.caps()
	if err != nil {
		return nil, err
	}
	groupCaps := p.groups(&c)
	if c.Unlabelled == len(p.hosts) { // nothing would be spread, and nobody would know
		return nil, fmt.Errorf("none of %d hosts has the label %.40q of --spread: the file of --labels has other labels, or names its hosts otherwise than the reports do", len(p.hosts), c.Spread)
	}
	out := &Plan{Schema: PlanSchema, Tool: p.opts.Tool, Caps: c, Allow: p.allow, Batches: []Batch{}, Holding: []Holding{}, LeftOut: []LeftOut{}, Problems: p.problems, MoreProblems: p.more}
	if out.Problems == nil {
		out.Problems = []Problem{}
	}
	out.Summary.Hosts, out.Summary.Problems = len(p.hosts), p.lost
	todo := p.sort(out)
	if n := p.unset(todo); n > 0 {
		out.Problems = append(slices.Clip(out.Problems), Problem{Why: fmt.Sprintf("the reports of %d of %d hosts to be fixed were made with --set, which no command here has: "+
			"give the same --set to \"hostcheck fleet plan\", or they are fixed by other values than they were judged by", n, len(todo))})
	}
	canaries := p.canaries(todo, len(groupCaps))
	batches := p.fill(canaries, groupCaps, c.AtOnce, c.AtOnce)
	n := len(batches)
	chosen := map[int32]bool{}
	for _, i := range canaries {
		chosen[i] = true
	}
	rest := slices.DeleteFunc(todo, func(i int32) bool { return chosen[i] })
	first := min(c.AtOnce, 2*len(canaries))
	batches = append(batches, p.fill(rest, groupCaps, first, c.AtOnce)...)
	for k, hosts := range batches {
		out.Batches = append(out.Batches, p.batch(k+1, k < n, hosts))
	}
	out.seal()
	p.progress(out, batches)
	return out, nil
}

// unset counts the hosts that were judged with --set, where no command has it. What
// was set no report says.
func (p *Planner) unset(todo []int32) (n int) {
	if slices.Contains(p.opts.Judged, "--set") {
		return 0
	}
	for _, i := range todo {
		if p.hosts[i].set {
			n++
		}
	}
	return n
}

// sort gives the hosts to be planned in the order of their names, and counts
// the others.
func (p *Planner) sort(out *Plan) (todo []int32) {
	order := make([]int32, len(p.hosts))
	for i := range order {
		order[i] = int32(i) //nolint:gosec // at most MaxHosts
	}
	slices.SortFunc(order, func(a, b int32) int { return compareNames(p.hosts[a].name, p.hosts[b].name) })
	left := map[string][]string{}
	for _, i := range order {
		h := &p.hosts[i]
		why := p.needs[h.need].out
		if h.doubt != "" {
			why = "several reports of it contradict each other, or two hosts have this name: which one a command would reach is not known"
		}
		switch {
		case why != "":
			left[why] = append(left[why], h.name)
			out.Summary.LeftOut++
			switch {
			case h.doubt != "" || p.needs[h.need].blind:
				out.Summary.Unjudged++
			case p.needs[h.need].boot:
				out.Summary.Pending++
			case p.needs[h.need].unfit:
				out.Summary.Failing++
			}
		case len(p.needs[h.need].checks) == 0:
			out.Summary.Fit++
		default:
			todo = append(todo, i)
		}
	}
	for why, names := range left {
		out.LeftOut = append(out.LeftOut, LeftOut{why, len(names), Fold(names)})
	}
	slices.SortFunc(out.LeftOut, func(a, b LeftOut) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Why, b.Why)) })
	out.Summary.Planned = len(todo)
	return todo
}

// canaries is one host of each kind, the kinds with most hosts first. Of a kind
// it is a host of the group that has fewest canaries yet.
func (p *Planner) canaries(todo []int32, groups int) (chosen []int32) {
	kinds := map[uint32][]int32{}
	for _, i := range todo {
		kinds[p.hosts[i].kind] = append(kinds[p.hosts[i].kind], i)
	}
	all := make([][]int32, 0, len(kinds))
	for _, hosts := range kinds {
		all = append(all, hosts)
	}
	slices.SortFunc(all, func(a, b []int32) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), compareNames(p.hosts[a[0]].name, p.hosts[b[0]].name))
	})
	taken := make([]int, groups)
	for _, hosts := range all {
		best := hosts[0]
		for _, i := range hosts {
			if taken[p.hosts[i].group] < taken[p.hosts[best].group] {
				best = i
			}
		}
		taken[p.hosts[best].group]++
		chosen = append(chosen, best)
	}
	return chosen
}

// fill divides hosts into batches: the first of at most size, each of the
// following of at most twice as many as the one before, none of more than most,
// and of each group none with more than its cap. Groups take turns.
func (p *Planner) fill(hosts []int32, caps []int, size, most int) (batches [][]int32) {
	queues := make([][]int32, len(caps))
	for _, i := range hosts {
		g := p.hosts[i].group
		queues[g] = append(queues[g], i)
	}
	var turn []uint32 // groups with hosts, in the order in which they are asked
	seen := make([]bool, len(caps))
	for _, i := range hosts {
		if g := p.hosts[i].group; !seen[g] {
			seen[g], turn = true, append(turn, g)
		}
	}
	for len(turn) > 0 {
		var b []int32
		taken := map[uint32]int{}
		var full []uint32
		for len(b) < size && len(turn) > 0 {
			g := turn[0]
			turn = turn[1:]
			b, queues[g] = append(b, queues[g][0]), queues[g][1:]
			taken[g]++
			switch {
			case len(queues[g]) == 0:
			case taken[g] == caps[g]:
				full = append(full, g)
			default:
				turn = append(turn, g)
			}
		}
		turn = append(turn, full...)
		slices.SortFunc(b, func(x, y int32) int { return compareNames(p.hosts[x].name, p.hosts[y].name) })
		batches = append(batches, b)
		size = min(most, 2*size)
	}
	return batches
}

// batch gives a batch with its commands, in the order of their first hosts.
func (p *Planner) batch(number int, canary bool, hosts []int32) Batch {
	b := Batch{Number: number, Canary: canary, State: batchLater, N: len(hosts)}
	names := make([]string, len(hosts))
	byNeed := map[uint32][]string{}
	var order []uint32
	for k, i := range hosts {
		h := &p.hosts[i]
		names[k] = h.name
		if byNeed[h.need] == nil {
			order = append(order, h.need)
		}
		byNeed[h.need] = append(byNeed[h.need], h.name)
	}
	b.Hosts = Fold(names)
	for _, id := range order {
		n := &p.needs[id]
		s := Step{Command: p.command(n), Checks: n.checks, Tiers: n.tiers, Stays: n.stays, Hosts: Fold(byNeed[id]), Names: byNeed[id]}
		if s.Stays == nil {
			s.Stays = []string{}
		}
		b.Steps = append(b.Steps, s)
	}
	return b
}

// command is what mends a need: the checks by name, so that nothing is changed
// that this plan does not show, and no tier that is not needed.
func (p *Planner) command(n *need) []string {
	words := []string{"hostcheck", "--fix", "--yes"}
	var allow []string
	for _, t := range n.tiers {
		if t != plan.Safe {
			allow = append(allow, string(t))
		}
	}
	if allow != nil {
		words = append(words, "--allow", strings.Join(allow, ","))
	}
	if slices.Contains(n.tiers, plan.Link) {
		words = append(words, "--confirm", "auto") // nobody is there to confirm within two minutes
	}
	words = append(words, p.opts.Judged...)
	return append(words, n.checks...)
}
