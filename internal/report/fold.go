// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
)

// area is the findings of one area, folded.
type area struct {
	name   string
	blocks []*block // what needs attention, the worst first
	passes []Finding
	skips  []*block
	counts Summary
}

// block is findings that say the same about several subjects. What differs
// only in the subject's own name counts as the same.
type block struct {
	Finding         // the first
	neutral Finding // its texts with "*" for the subject
	checks  []string
	items   []*item
	differs bool // the texts name their subject

	byGot, byNeutral map[string]int // of items: a host may give thousands
}

// item is the subjects of a block that have the same Got.
type item struct {
	got      string
	subjects []string
	evidence []check.Evidence
	fix      []Change
}

func (b *block) subjects() []string {
	var all []string
	seen := map[string]bool{}
	for _, it := range b.items {
		for _, s := range it.subjects {
			if !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// rank orders findings by how soon a person must see them.
func rank(f *Finding) int {
	r := slices.Index(check.Statuses, f.Status) * 100
	switch {
	case f.Waiver != nil:
		r = 950
	case f.Pending:
		r = 550
	}
	severities := []check.Severity{check.High, check.Medium, check.Low, check.Info}
	return r + slices.Index(severities, f.Severity)
}

func attention(f *Finding) bool {
	return f.Status != check.Pass && f.Status != check.Skip
}

// foldAreas groups a report's findings by area: first those that need
// attention, the worst first, then the others in the order of the report.
func foldAreas(findings []Finding) []*area {
	var areas []*area
	index := map[blockKey]*block{}
	for _, f := range findings {
		name, _, _ := strings.Cut(f.Check, ".")
		i := slices.IndexFunc(areas, func(a *area) bool { return a.name == name })
		if i < 0 {
			areas = append(areas, &area{name: name})
			i = len(areas) - 1
		}
		a := areas[i]
		a.counts.count(&f)
		switch {
		case attention(&f):
			a.blocks = fold(a.blocks, index, f)
		case f.Status == check.Skip:
			a.skips = fold(a.skips, index, f)
		default:
			a.passes = append(a.passes, f)
		}
	}
	for _, a := range areas {
		slices.SortStableFunc(a.blocks, func(x, y *block) int { return cmp.Compare(rank(&x.Finding), rank(&y.Finding)) })
	}
	slices.SortStableFunc(areas, func(x, y *area) int { return cmp.Compare(x.rank(), y.rank()) })
	return areas
}

// rank is that of the worst finding; areas that need no attention come last,
// those where nothing applied after those where something passed.
func (a *area) rank() int {
	switch {
	case len(a.blocks) > 0:
		return rank(&a.blocks[0].Finding)
	case len(a.passes) > 0:
		return 1000
	}
	return 1001
}

// blockKey is what the findings of one block have in common.
type blockKey struct {
	area, check           string
	status                check.Status
	pending, waived       bool
	why, want, next, from string
}

// keyOf gives the block of a finding, g being its neutral text. Unknowns and
// skips fold over all checks of an area with the same reason.
func keyOf(f, g *Finding) blockKey {
	area, _, _ := strings.Cut(f.Check, ".")
	k := blockKey{area: area, status: f.Status, pending: f.Pending, waived: f.Waiver != nil, why: g.Why}
	if f.Status != check.Unknown && f.Status != check.Skip {
		k.check, k.want, k.next, k.from = f.Check, g.Want, g.Next, g.Source
	}
	return k
}

// fold adds a finding to the block that says the same, or to a new one.
func fold(blocks []*block, index map[blockKey]*block, f Finding) []*block {
	g := neutral(f)
	k := keyOf(&f, &g)
	b := index[k]
	if b == nil {
		b = &block{Finding: f, neutral: g, byGot: map[string]int{}, byNeutral: map[string]int{}}
		index[k] = b
		blocks = append(blocks, b)
	}
	b.differs = b.differs || b.Want != f.Want || b.Why != f.Why || b.Next != f.Next
	b.add(f)
	return blocks
}

func (b *block) add(f Finding) {
	if !slices.Contains(b.checks, f.Check) {
		b.checks = append(b.checks, f.Check)
	}
	got := neutralText(f.Got, f.Subject)
	i, known := b.byGot[f.Got]
	if !known {
		i, known = b.byNeutral[got]
	}
	if !known {
		i = len(b.items)
		b.items = append(b.items, &item{got: f.Got})
		b.byGot[f.Got], b.byNeutral[got] = i, i
	}
	it := b.items[i]
	it.subjects = append(it.subjects, f.Subject)
	it.evidence = append(it.evidence, f.Evidence...)
	it.fix = append(it.fix, f.Fix...)
}

// neutral is f with "*" where its texts name its subject.
func neutral(f Finding) Finding {
	f.Want, f.Why, f.Next = neutralText(f.Want, f.Subject), neutralText(f.Why, f.Subject), neutralText(f.Next, f.Subject)
	return f
}

func neutralText(s, subject string) string {
	for word := range strings.FieldsSeq(subject) {
		if len(word) >= 3 {
			s = strings.ReplaceAll(s, word, "*")
		}
	}
	return s
}
