// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Fold writes names of hosts as one list: "gpu-a[01-07,12],login1". Numbers
// keep their zeros, and only the last number of a name is folded, as Slurm,
// clush and pdsh read it. The order of the names does not matter.
func Fold(names []string) string {
	type number struct {
		text string
		n    uint64
	}
	type family struct {
		prefix, suffix string
		width          int // digits, where there are leading zeros; else 0
	}
	numbers := map[family][]number{}
	var families []family
	var plain []string
	for _, name := range names {
		prefix, digits, suffix := lastNumber(name)
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || len(digits) > 18 { // no number, or one too long to count with
			plain = append(plain, name)
			continue
		}
		f := family{prefix, suffix, len(digits)}
		if digits[0] != '0' || len(digits) == 1 {
			f.width = 0
		}
		if _, ok := numbers[f]; !ok {
			families = append(families, f)
		}
		numbers[f] = append(numbers[f], number{digits, n})
	}
	// "08" and "10" are of one family where all have two digits
	for i, f := range families {
		z := family{f.prefix, f.suffix, 0}
		if f.width == 0 || numbers[f] == nil {
			continue
		}
		var rest []number
		for _, n := range numbers[z] {
			if len(n.text) == f.width {
				numbers[f] = append(numbers[f], n)
			} else {
				rest = append(rest, n)
			}
		}
		if _, ok := numbers[z]; ok {
			numbers[z] = rest
		}
		families[i] = f
	}
	type part struct {
		key  string
		n    uint64
		text string
	}
	var parts []part
	slices.Sort(plain)
	for _, p := range slices.Compact(plain) {
		parts = append(parts, part{p, 0, p})
	}
	for _, f := range families {
		ns := numbers[f]
		if len(ns) == 0 {
			continue
		}
		slices.SortFunc(ns, func(a, b number) int { return cmp.Compare(a.n, b.n) })
		ns = slices.CompactFunc(ns, func(a, b number) bool { return a.text == b.text })
		var ranges []string
		for i := 0; i < len(ns); {
			j := i
			for j+1 < len(ns) && ns[j+1].n == ns[j].n+1 {
				j++
			}
			if j == i {
				ranges = append(ranges, ns[i].text)
			} else {
				ranges = append(ranges, ns[i].text+"-"+ns[j].text)
			}
			i = j + 1
		}
		text := f.prefix + "[" + strings.Join(ranges, ",") + "]" + f.suffix
		if len(ns) == 1 {
			text = f.prefix + ns[0].text + f.suffix
		}
		parts = append(parts, part{f.prefix, ns[0].n, text})
	}
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.n, b.n), cmp.Compare(a.text, b.text))
	})
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = p.text
	}
	return strings.Join(out, ",")
}

// Unfold gives the names of a folded list, and no more than one beyond
// [MaxHosts] of them.
func Unfold(list string) []string {
	var names []string
	for list != "" && len(names) <= MaxHosts {
		end := 0
		for depth := 0; end < len(list) && (list[end] != ',' || depth > 0); end++ {
			switch list[end] {
			case '[':
				depth++
			case ']':
				depth--
			}
		}
		item := list[:end]
		list = strings.TrimPrefix(list[end:], ",")
		prefix, rest, ok := strings.Cut(item, "[")
		if !ok {
			names = append(names, item)
			continue
		}
		inside, suffix, _ := strings.Cut(rest, "]")
		if len(prefix)+len(suffix) > maxName { // no names of hosts, and a great deal of them
			names = append(names, item)
			continue
		}
		for r := range strings.SplitSeq(inside, ",") {
			first, last, ok := strings.Cut(r, "-")
			from, err := strconv.ParseUint(first, 10, 64)
			to, errLast := strconv.ParseUint(last, 10, 64)
			if !ok || err != nil || errLast != nil || to < from || len(first) > maxName {
				names = append(names, prefix+r+suffix)
				continue
			}
			for n := from; n <= to && len(names) <= MaxHosts; n++ {
				digits := strconv.FormatUint(n, 10)
				digits = strings.Repeat("0", max(0, len(first)-len(digits))) + digits
				names = append(names, prefix+digits+suffix)
			}
		}
	}
	return names
}

// lastNumber divides a name around its last digits; of a name with a domain,
// around those before the first dot.
func lastNumber(name string) (prefix, digits, suffix string) {
	end := strings.IndexByte(name, '.')
	if end < 0 {
		end = len(name)
	}
	for end > 0 && (name[end-1] < '0' || name[end-1] > '9') {
		end--
	}
	start := end
	for start > 0 && name[start-1] >= '0' && name[start-1] <= '9' {
		start--
	}
	return name[:start], name[start:end], name[end:]
}

// compareNames orders hosts as people count: "node9" before "node10". Names are
// taken apart and compared part by part, for what compares some names otherwise
// than the rest is no order: the plan would depend on that of the reports.
func compareNames(a, b string) int {
	x, m, s := lastNumber(a)
	y, n, t := lastNumber(b)
	if m == "" {
		x, s = s, ""
	}
	if n == "" {
		y, t = t, ""
	}
	p, q := strings.TrimLeft(m, "0"), strings.TrimLeft(n, "0")
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(min(len(m), 1), min(len(n), 1)), cmp.Compare(len(p), len(q)), cmp.Compare(p, q),
		cmp.Compare(len(m), len(n)), cmp.Compare(s, t))
}

// maxLists is how many bytes folded lists of hosts take together, beside those of
// the clusters, which have each host once: a host may stand in many lists, and
// names that do not fold are as long as they are.
const maxLists = 24 << 20

// lists folds lists until they take too much. What one of them may take is a part
// of what is left, so that after long ones there is room for many short ones.
type lists struct {
	used   int
	most   int // names in a list: none as long as one that had no room; 0: any
	denied int // lists that had no room
}

// fold gives the folded list, or "" where there is no room for it.
func (l *lists) fold(names []string) string {
	if l.most == 0 || len(names) < l.most {
		s := Fold(names)
		if len(s) <= (maxLists-l.used)/8 {
			l.used += len(s)
			return s
		}
		l.most = len(names)
	}
	l.denied++
	return ""
}
