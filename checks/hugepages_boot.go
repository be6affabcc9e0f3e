// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// gigantic pages (kB) need memory in one piece, which only a boot has for certain.
const gigantic = 1 << 20

// bootPages wants the command line to reserve so many pages of a gigantic size
// on each node, in place of what it asks for now. nil where the kernel would not
// make of it what is wanted, or other pools would change: that is for a person.
func bootPages(r *check.Run, kb int64, pages map[int]int64) []plan.Wish {
	c, k := r.Facts.Cmdline(), r.Facts.Kernel().Release
	if kb < gigantic || c.Text == nil || c.Effects.Hugepages == nil || k == nil || len(pages) == 0 {
		return nil
	}
	if facts.CompareVersions(facts.ReleaseNumbers(*k), "5.16") < 0 { // no counts per node
		return nil
	}
	if slices.ContainsFunc(r.Profile.Cmdline.Require, func(t profile.TokenRule) bool { return strings.HasPrefix(t.Token, "hugepages") }) {
		return nil // the profile says itself what the command line is to hold
	}
	var counts []string
	for _, node := range slices.Sorted(maps.Keys(pages)) {
		counts = append(counts, fmt.Sprintf("%d:%d", node, pages[node]))
	}
	size := facts.SizeName(kb)
	add := "hugepagesz=" + size + " hugepages=" + strings.Join(counts, ",")
	wishes := []plan.Wish{wishToken(add, true, "pages of "+size+" are had for certain at boot only")}
	var left []string // of the command line, with the pairs of this size gone
	for i := 0; i < len(c.Tokens); i++ {
		if i+1 < len(c.Tokens) && isPair(c.Tokens[i], c.Tokens[i+1], kb) {
			if pair := c.Tokens[i].Raw + " " + c.Tokens[i+1].Raw; pair != add {
				wishes = append(wishes, wishToken(pair, false, add+" is wanted in its place"))
			}
			i++
			continue
		}
		left = append(left, c.Tokens[i].Raw)
	}
	want, live := map[facts.HugepageRequest]bool{}, map[facts.HugepageRequest]bool{}
	for _, q := range c.Effects.Hugepages {
		live[q] = true
		if q.SizeKB != kb {
			want[q] = true
		}
	}
	for node, n := range pages {
		if n > 0 {
			want[facts.HugepageRequest{SizeKB: kb, Node: node, Count: n}] = true
		}
	}
	if maps.Equal(want, live) {
		return nil // it was asked for, and the boot could not give it
	}
	got := map[facts.HugepageRequest]bool{}
	for _, q := range facts.ParseCmdline(strings.Join(append(left, add), " "), r.Facts.CmdlineEnv()).Effects.Hugepages {
		if q.Count > 0 {
			got[q] = true
		}
	}
	if !maps.Equal(want, got) {
		return nil
	}
	return wishes
}

// isPair reports whether two tokens in a row ask for pages of a size.
func isPair(size, count facts.Token, kb int64) bool {
	if size.Name != "hugepagesz" || count.Name != "hugepages" || size.Value == nil {
		return false
	}
	is, err := profile.ParseSize(*size.Value)
	return err == nil && is == kb
}

// pagesWith is what each node that has CPUs and memory keeps of a size now, or
// has with the wishes for more, and least at the least.
func pagesWith(f *facts.Facts, kb int64, more []plan.Wish, least int64) map[int]int64 {
	pages := map[int]int64{}
	for _, node := range f.NUMA().Usable() {
		pages[node] = least
		if p := f.Hugepages().Pool(node, kb); p != nil && p.Total != nil && p.Surplus != nil {
			pages[node] = max(least, *p.Total-*p.Surplus)
		}
		for _, w := range more {
			if n, err := strconv.ParseInt(w.Want, 10, 64); err == nil && w.Target == nodeName(node) {
				pages[node] = n
			}
		}
	}
	return pages
}
