// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"fmt"
	"strconv"
	"strings"
)

// Lines is the advice for people.
func (a *MigrationAdvice) Lines() (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	word := "off"
	switch {
	case a.Offload:
		word = "on with " + channels(a.Channels)
	case !a.Decided:
		word = "left as it is"
	}
	add("Offload: %s. %s.", word, capital(a.Because))
	if len(a.Sizes) > 0 {
		add("Copy by engine or by CPU, for each folio size:")
		for _, s := range a.Sizes {
			add("  %-5s %s", sizeName(s.FolioKB), s.verdict())
		}
	}
	if len(a.Batches) > 0 {
		add("Batch limit N (base pages) with 90 to 95 %% of the best throughput:")
		for _, b := range a.Batches {
			add("  %-5s %-11s %s", sizeName(b.FolioKB), channels(b.Channels), b.span())
		}
	}
	for _, k := range a.Callers {
		add("Calls of move_pages at a time, %s: %d (%.1f GB/s, %.2fx of one)", sizeName(k.FolioKB), k.Workers, k.GBps, k.Speedup)
	}
	if a.Batch != nil {
		out = append(out, a.Batch.lines()...)
	}
	out = append(out, a.explain()...)
	for _, n := range a.Notes {
		add("Note: %s", n)
	}
	return out
}

func (s *SizeAdvice) verdict() string {
	var b strings.Builder
	if s.Offload {
		fmt.Fprintf(&b, "engine: %s, %.2f GB/s, %.2fx of the CPU's %.2f", channels(s.Channels), s.GBps, s.Speedup, s.BaseGBps)
		fmt.Fprintf(&b, "; clear wins: %s", numbers(s.Wins))
	} else {
		fmt.Fprintf(&b, "CPU: %.2f GB/s", s.BaseGBps)
		if s.GBps > 0 {
			fmt.Fprintf(&b, "; the best of the engine is %.2fx", s.Speedup)
		}
		if s.Above > 0 && s.GBps > 0 {
			fmt.Fprintf(&b, ", from %s on above the CPU but within the noise", channels(s.Above))
		}
	}
	if len(s.Noisy) > 0 {
		fmt.Fprintf(&b, "; dropped as noisy: %s", numbers(s.Noisy))
	}
	if s.Capped {
		b.WriteString("; with more channels a larger batch limit would be needed")
	}
	return b.String()
}

func (b *BatchAdvice) span() string {
	s := fmt.Sprintf("%d..%d", b.N90, b.N95)
	if b.Gain < worth {
		s += fmt.Sprintf(" (next to nothing: %s over %d)", percent(b.Gain), b.points[0].n)
	}
	return s
}

func (c *BatchChoice) lines() (out []string) {
	line := fmt.Sprintf("Batch limit for %s on %s: %d", sizeName(c.FolioKB), channels(c.Channels), c.N)
	if c.Keep {
		line += ", the smallest: a larger one brings nothing"
	} else if c.FirstUS != nil {
		line += fmt.Sprintf(" (%.2f GB/s, the first folio is away for %s)", c.GBps, micros(*c.FirstUS))
	}
	out = append(out, line+".")
	switch {
	case c.Over:
		out = append(out, "  No limit that was measured keeps the budget.")
	case c.Patched:
		out = append(out, fmt.Sprintf("  That needs a patched batch limit: the kernel is built with %d, and no file or parameter changes it.", c.Limit),
			fmt.Sprintf("  With %d a batch holds %s, so no more channels work at a time: do not expect the figures above.", c.Limit, folios(max(1, c.Limit*c.page/c.FolioKB))))
	case c.N < c.Limit && !c.Keep:
		out = append(out, fmt.Sprintf("  The kernel takes %d. A program keeps to %d with at most %s in a call of move_pages, and pays for each call (about 100 us).", c.Limit, c.N, folios(max(1, c.N*c.page/c.FolioKB))))
	}
	return out
}

// explain says why no engine helps beyond the share of copying.
func (a *MigrationAdvice) explain() (out []string) {
	if len(a.Sizes) == 0 {
		return nil
	}
	out = append(out, "Why: only the copy becomes faster. With a share F of the time and an engine S times as fast the whole is 1/((1-F)+F/S) as fast.")
	out = append(out, fmt.Sprintf("  Published for 512 folios: F = 35 %% at 4K, at most %.2fx with any engine; F = 97 %% at 2M, %.1fx with S = 7.5.", 1/(1-0.35), Amdahl(0.97, 7.5)))
	if s := a.Sizes[len(a.Sizes)-1]; s.Offload && s.Speedup > 1 {
		out = append(out, fmt.Sprintf("  Measured: %.2fx at %s, so copying was at least %.0f %% of the time.", s.Speedup, sizeName(s.FolioKB), 100*copyShare(s.Speedup)))
	}
	return out
}

// sizeName writes 4K, 2M, 1G.
func sizeName(kb int) string {
	switch {
	case kb >= 1<<20 && kb%(1<<20) == 0:
		return strconv.Itoa(kb>>20) + "G"
	case kb >= 1<<10 && kb%(1<<10) == 0:
		return strconv.Itoa(kb>>10) + "M"
	}
	return strconv.Itoa(kb) + "K"
}

// ParseFolioSize reads what sizeName writes; it gives KiB.
func ParseFolioSize(s string) (kb int, err error) {
	bad := fmt.Errorf("%.20q is not a size of folios such as 4K, 64K or 2M", s)
	if s == "" {
		return 0, bad
	}
	shift := map[byte]int{'K': 0, 'k': 0, 'M': 10, 'm': 10}
	by, ok := shift[s[len(s)-1]]
	n, err := strconv.Atoi(s[:len(s)-1])
	if !ok || err != nil || n < 1 || n > 1<<20>>by || n&(n-1) != 0 {
		return 0, bad
	}
	return n << by, nil
}

func channels(n int) string {
	if n == 1 {
		return "1 channel"
	}
	return fmt.Sprintf("%d channels", n)
}

func folios(n int) string {
	if n == 1 {
		return "1 folio"
	}
	return fmt.Sprintf("%d folios", n)
}

func percent(ratio float64) string { return fmt.Sprintf("%+.0f %%", 100*(ratio-1)) }

func micros(us float64) string { return fmt.Sprintf("%.0f us", us) }

func numbers(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}

func listed(words []string) string { return strings.Join(words, ", ") }

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
