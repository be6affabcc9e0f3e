// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const thpDir = "sys/kernel/mm/transparent_hugepage"

// Knob is a file of the kernel and the value that it must have for a while.
type Knob struct {
	Path  string // "/sys/…"
	Value string
	Why   string
}

// FolioSizes gives the sizes of anonymous folios that a kernel can be asked
// for, in KiB, ascending: its page, those with a directory below
// transparent_hugepage (since 6.8), and the size of a PMD.
func FolioSizes(root fs.FS, pageKB int) []int {
	out := append(thpSizes(root), pageKB)
	if kb := pmdKB(root); kb > 0 {
		out = append(out, kb)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func thpSizes(root fs.FS) (out []int) {
	list, _ := fs.ReadDir(root, thpDir)
	for _, e := range list {
		name, ok := strings.CutPrefix(e.Name(), "hugepages-")
		kb, err := strconv.Atoi(strings.TrimSuffix(name, "kB"))
		if !ok || err != nil || kb <= 0 {
			continue
		}
		if _, err := fs.Stat(root, path.Join(thpDir, e.Name(), "enabled")); err == nil {
			out = append(out, kb)
		}
	}
	slices.Sort(out)
	return out
}

func pmdKB(root fs.FS) int {
	b, err := fs.ReadFile(root, path.Join(thpDir, "hpage_pmd_size"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 {
		return 0
	}
	return n >> 10
}

// FolioKnobs gives what must hold so that memory with MADV_HUGEPAGE is in
// folios of this size: the kernel takes the largest that is enabled. A page of
// its own needs nothing.
func FolioKnobs(root fs.FS, pageKB, folioKB int) ([]Knob, error) {
	if !slices.Contains(FolioSizes(root, pageKB), folioKB) {
		return nil, fmt.Errorf("this kernel has no folios of %d KiB", folioKB)
	}
	if folioKB == pageKB {
		return nil, nil
	}
	sizes := thpSizes(root)
	if !slices.Contains(sizes, folioKB) { // before 6.8: the PMD's is the only size
		return []Knob{{"/" + thpDir + "/enabled", "madvise", "huge pages where a program asks for them"}}, nil
	}
	var out []Knob
	for _, kb := range sizes {
		p := fmt.Sprintf("/%s/hugepages-%dkB/enabled", thpDir, kb)
		switch {
		case kb == folioKB:
			out = append(out, Knob{p, "madvise", fmt.Sprintf("folios of %d KiB where a program asks for them", kb)})
		case kb > folioKB:
			out = append(out, Knob{p, "never", fmt.Sprintf("else the kernel takes %d KiB in place of smaller folios", kb)})
		}
	}
	return out, nil
}
