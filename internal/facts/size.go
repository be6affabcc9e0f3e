// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// SizeName writes a page size as people and the kernel command line do:
// 2048 is "2M", 1048576 is "1G", 64 is "64K".
func SizeName(kb int64) string {
	units := "KMGT"
	i := 0
	for i < len(units)-1 && kb >= 1024 && kb%1024 == 0 {
		kb /= 1024
		i++
	}
	return strconv.FormatInt(kb, 10) + units[i:i+1]
}

// MemName writes an amount of memory for people, rounded to one decimal:
// "31.4 GiB".
func MemName(kb int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(kb), 0
	for i < len(units)-1 && v >= 1024 {
		v /= 1024
		i++
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + units[i]
}

// poolDirKB reads the page size in the name of a pool's directory,
// "hugepages-2048kB": a power of two.
func poolDirKB(name string) (kb int64, ok bool) {
	s, ok := strings.CutPrefix(name, "hugepages-")
	if !ok {
		return 0, false
	}
	if s, ok = strings.CutSuffix(s, "kB"); !ok {
		return 0, false
	}
	kb, err := strconv.ParseInt(s, 10, 64)
	return kb, err == nil && kb > 0 && kb <= maxPageKB && kb&(kb-1) == 0
}

// Bounds of what is believed: pages of 16 GiB are the largest of any
// architecture, and no machine addresses more than 16 PiB of memory.
const (
	maxPageKB = 16 << 20
	maxMemKB  = 1 << 44
)

// poolDir is the name of the directory of a page size.
func poolDir(kb int64) string { return fmt.Sprintf("hugepages-%dkB", kb) }

// parseMountSize reads the pagesize= option of a hugetlbfs mount: "2M",
// "1024M" or, as a person wrote it, "1G", "1GB" or a number of bytes.
func parseMountSize(s string) (kb int64, ok bool) {
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil || n <= 0 {
		return 0, false
	}
	var unit int64
	switch rest := s[digits:]; {
	case rest == "":
		return n / 1024, n%1024 == 0
	case strings.HasPrefix(rest, "K"), strings.HasPrefix(rest, "k"):
		unit = 1
	case strings.HasPrefix(rest, "M"), strings.HasPrefix(rest, "m"):
		unit = 1 << 10
	case strings.HasPrefix(rest, "G"), strings.HasPrefix(rest, "g"):
		unit = 1 << 20
	default:
		return 0, false
	}
	if n > 1<<40/unit {
		return 0, false
	}
	return n * unit, true
}

// Meminfo reads /proc/meminfo or the meminfo of a node: numbers by name, in kB
// except those without a unit.
func Meminfo(h *host.Host, path string) (map[string]int64, error) {
	b, err := h.Read(path)
	if err != nil {
		return nil, err
	}
	return parseMeminfo(string(b)), nil
}

// parseMeminfo reads /proc/meminfo, or a node's, whose lines start with
// "Node N ": the numbers by name, in kB except those without a unit. Numbers that no machine
// can have are left out.
func parseMeminfo(text string) map[string]int64 {
	m := map[string]int64{}
	for line := range strings.SplitSeq(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "Node "); ok {
			_, line, _ = strings.Cut(rest, " ")
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil && n >= 0 && n <= maxMemKB {
			m[strings.TrimSpace(name)] = n
		}
	}
	return m
}
