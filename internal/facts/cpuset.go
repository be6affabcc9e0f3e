// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// MaxCPUs bounds CPU numbers that are believed (the kernel's own limit is
// CONFIG_NR_CPUS, 8192 at most in any distribution).
const MaxCPUs = 8192

// CPUSet is a set of CPU (or node) numbers. The zero value is empty.
type CPUSet struct{ w []uint64 }

// Add puts n in the set; numbers outside 0..MaxCPUs-1 are left out.
func (s *CPUSet) Add(n int) {
	if n < 0 || n >= MaxCPUs {
		return
	}
	for len(s.w) <= n/64 {
		s.w = append(s.w, 0)
	}
	s.w[n/64] |= 1 << (n % 64)
}

// AddRange puts from..to (both included) in the set.
func (s *CPUSet) AddRange(from, to int) {
	for n := max(0, from); n <= min(to, MaxCPUs-1); n++ {
		s.Add(n)
	}
}

// Has reports whether n is in the set.
func (s CPUSet) Has(n int) bool { return n >= 0 && n/64 < len(s.w) && s.w[n/64]&(1<<(n%64)) != 0 }

// Len is how many numbers the set holds.
func (s CPUSet) Len() (n int) {
	for _, w := range s.w {
		n += bits.OnesCount64(w)
	}
	return n
}

// List gives the numbers in order.
func (s CPUSet) List() []int {
	l := make([]int, 0, s.Len())
	for i, w := range s.w {
		for ; w != 0; w &= w - 1 {
			l = append(l, i*64+bits.TrailingZeros64(w))
		}
	}
	return l
}

// And gives what is in both sets.
func (s CPUSet) And(o CPUSet) (r CPUSet) {
	for i := range min(len(s.w), len(o.w)) {
		r.w = append(r.w, s.w[i]&o.w[i])
	}
	return r
}

// Minus gives what is in s and not in o.
func (s CPUSet) Minus(o CPUSet) (r CPUSet) {
	for i, w := range s.w {
		if i < len(o.w) {
			w &^= o.w[i]
		}
		r.w = append(r.w, w)
	}
	return r
}

// Or gives what is in either set.
func (s CPUSet) Or(o CPUSet) (r CPUSet) {
	for i := range max(len(s.w), len(o.w)) {
		var w uint64
		if i < len(s.w) {
			w = s.w[i]
		}
		if i < len(o.w) {
			w |= o.w[i]
		}
		r.w = append(r.w, w)
	}
	return r
}

// Equal reports whether both hold the same numbers.
func (s CPUSet) Equal(o CPUSet) bool { return s.Minus(o).Len() == 0 && o.Minus(s).Len() == 0 }

// String writes the set as the kernel prints CPU lists (%*pbl): "0-3,8".
func (s CPUSet) String() string {
	var b strings.Builder
	l := s.List()
	for i := 0; i < len(l); {
		j := i
		for j+1 < len(l) && l[j+1] == l[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(l[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(l[j]))
		}
		i = j + 1
	}
	return b.String()
}

// Mask writes the set as the kernel takes masks: hex in groups of 8 digits,
// without leading zeros; "0" for none.
func (s CPUSet) Mask() string {
	var b strings.Builder
	for i := 2*len(s.w) - 1; i >= 0; i-- {
		switch v := uint32(s.w[i/2] >> (32 * (i % 2))); {
		case b.Len() > 0:
			fmt.Fprintf(&b, ",%08x", v)
		case v > 0:
			fmt.Fprintf(&b, "%x", v)
		}
	}
	if b.Len() == 0 {
		return "0"
	}
	return b.String()
}

// ParseCPUSet reads a list that the kernel printed: "0-3,8", "" or, in
// nohz_full of some kernels, "(null)" with blanks around it, which is empty.
// What a person writes on a command line has more forms: see the cmdline decoder.
func ParseCPUSet(text string) (s CPUSet, err error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "(null)" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		a, b, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(a)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(b)
		}
		if err != nil || from < 0 || to < from || to >= MaxCPUs {
			return CPUSet{}, fmt.Errorf("not a CPU list: %.40q", text)
		}
		s.AddRange(from, to)
	}
	return s, nil
}
