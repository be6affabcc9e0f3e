// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// words is 8 bytes for each page.
func words(list ...uint64) (b []byte) {
	for _, v := range list {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func TestProvePages(t *testing.T) {
	const there = uint64(pagemapPresent)
	// frames 8 to 11 are a folio of 4, 12 and 13 pages of their own, 16 to 23 a folio of 8
	flags := map[uint64]uint64{8: flagHead, 9: flagTail, 10: flagTail, 11: flagTail, 16: flagHead}
	for f := uint64(17); f < 24; f++ {
		flags[f] = flagTail
	}
	read := func(frame uint64, b []byte) (int, error) {
		for i := range len(b) / 8 {
			if frame+uint64(i) >= 24 {
				return i * 8, nil
			}
			binary.NativeEndian.PutUint64(b[i*8:], flags[frame+uint64(i)])
		}
		return len(b), nil
	}
	for name, c := range map[string]struct {
		pages int
		map_  []byte
		want  string // "": proven
	}{
		"four":           {4, words(there|8, there|9, there|10, there|11), ""},
		"one":            {1, words(there|12, there|13), ""},
		"eight, the end": {8, words(there|16, there|17, there|18, there|19, there|20, there|21, there|22, there|23), ""},
		"one of four":    {1, words(there | 8), "begins a larger folio"},
		"tail":           {1, words(there | 9), "within a larger"},
		"four of ones":   {4, words(there|12, there|13, there|14, there|15), "a page of its own"},
		"four of eight":  {4, words(there|16, there|17, there|18, there|19), "begins a larger folio"},
		"inner four":     {4, words(there|20, there|21, there|22, there|23), "within a larger"},
		"eight of four":  {8, words(there|8, there|9, there|10, there|11, there|12, there|13, there|14, there|15), "begins a folio of 4 pages"},
		"apart":          {4, words(there|8, there|10, there|9, there|11), "not side by side"},
		"swapped":        {1, words(1<<62 | 5), "not there"},
		"hidden":         {1, words(there), "does not show"},
		"beyond memory":  {1, words(there | 99), "not all there"},
	} {
		err := provePages(c.map_, c.pages, make([]byte, (c.pages+1)*8), read)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzProvePages(f *testing.F) {
	f.Add(words(pagemapPresent|8, pagemapPresent|9), words(flagHead, flagTail), 2)
	f.Fuzz(func(t *testing.T, pagemap, flags []byte, pages int) {
		if pages < 1 || pages > 512 {
			return
		}
		read := func(_ uint64, b []byte) (int, error) { return copy(b, flags) / 8 * 8, nil }
		err := provePages(pagemap, pages, make([]byte, (pages+1)*8), read)
		whole := len(pagemap) >= pages*8
		if err == nil && whole && len(flags) < pages*8 {
			t.Errorf("proven without flags")
		}
		if err == nil && whole && pages > 1 && binary.NativeEndian.Uint64(flags)&flagHead == 0 {
			t.Errorf("proven without a head")
		}
	})
}

var thpFiles = fstest.MapFS{
	thpDir + "/hpage_pmd_size":           {Data: []byte("2097152\n")},
	thpDir + "/enabled":                  {Data: []byte("always [madvise] never\n")},
	thpDir + "/hugepages-16kB/enabled":   {Data: []byte("always inherit madvise [never]\n")},
	thpDir + "/hugepages-64kB/enabled":   {Data: []byte("always inherit madvise [never]\n")},
	thpDir + "/hugepages-64kB/stats/x":   {},
	thpDir + "/hugepages-32kB/stats/x":   {}, // of files in memory only
	thpDir + "/hugepages-odd/enabled":    {},
	thpDir + "/hugepages-2048kB/enabled": {Data: []byte("always [inherit] madvise never\n")},
}

func TestFolioKnobs(t *testing.T) {
	if got := FolioSizes(thpFiles, 4); !slices.Equal(got, []int{4, 16, 64, 2048}) {
		t.Errorf("sizes %v", got)
	}
	for kb, want := range map[int]string{
		4:    "",
		16:   "16kB=madvise 64kB=never 2048kB=never",
		64:   "64kB=madvise 2048kB=never",
		2048: "2048kB=madvise",
	} {
		knobs, err := FolioKnobs(thpFiles, 4, kb)
		var got []string
		for _, k := range knobs {
			got = append(got, strings.TrimSuffix(strings.TrimPrefix(k.Path, "/"+thpDir+"/hugepages-"), "/enabled")+"="+k.Value)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%d KiB: %q, %v", kb, got, err)
		}
	}
	if _, err := FolioKnobs(thpFiles, 4, 32); err == nil {
		t.Error("32 KiB are not refused")
	}
	old := fstest.MapFS{thpDir + "/hpage_pmd_size": {Data: []byte("2097152")}, thpDir + "/enabled": {}}
	if knobs, err := FolioKnobs(old, 4, 2048); err != nil || len(knobs) != 1 || knobs[0].Path != "/"+thpDir+"/enabled" {
		t.Errorf("before 6.8: %v, %v", knobs, err)
	}
	if got := FolioSizes(fstest.MapFS{}, 64); !slices.Equal(got, []int{64}) {
		t.Errorf("without huge pages: %v", got)
	}
}

// node0 makes folios on the first node, or skips where it may not.
func node0(t *testing.T, size int, bytes int64) *Folios {
	t.Helper()
	f, err := NewFolios(0, size, bytes)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// Pages are where they were made, and a move to where they are is none.
func TestFolios(t *testing.T) {
	page := os.Getpagesize()
	f := node0(t, page, int64(64*page)+1)
	if f.N() != 64 || f.Bytes != int64(64*page) {
		t.Fatalf("%d folios, %d bytes", f.N(), f.Bytes)
	}
	if err := f.On(0, 0, f.N()); err != nil {
		t.Error(err)
	}
	if _, err := f.Move(0, 8, 64, 5); err != nil {
		t.Error(err)
	}
	if err := f.Intact(); err != nil {
		t.Error(err)
	}
	f.mem[7*page+page-1] ^= 1
	if err := f.Intact(); err == nil || !strings.Contains(err.Error(), fmt.Sprint("at ", 7*page>>10, " KiB")) {
		t.Errorf("a changed page: %v", err)
	}
	if _, err := f.Move(maxNodes-1, 0, 4, 0); err == nil || !strings.Contains(err.Error(), "offline") {
		t.Errorf("a node that is not there: %v", err)
	}
	var m *MoveError
	if err := f.On(1, 0, 4); !errors.As(err, &m) || m.Not != 4 || m.Folios != 4 || !strings.Contains(err.Error(), "4 on node 0") {
		t.Errorf("asked for another node: %v", err)
	}
	if _, err := f.Move(0, 4, 4, 0); err == nil {
		t.Error("a move of nothing is no error")
	}
	switch err := f.Prove(); {
	case errors.Is(err, ErrNoFrames) || errors.Is(err, os.ErrPermission):
		t.Logf("not proven: %v", err)
	case err != nil:
		t.Error(err)
	}
	for _, c := range []struct {
		node, size int
		bytes      int64
	}{{-1, page, 1 << 20}, {maxNodes, page, 1 << 20}, {0, page / 2, 1 << 20}, {0, 3 * page, 1 << 20}, {0, page, 1}} {
		if f, err := NewFolios(c.node, c.size, c.bytes); err == nil {
			f.Close()
			t.Errorf("%+v is no error", c)
		}
	}
}
