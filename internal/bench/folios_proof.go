// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Bits of /proc/PID/pagemap and of /proc/kpageflags (Documentation/
// admin-guide/mm/pagemap.rst), 8 bytes for each page.
const (
	pagemapPresent = 1 << 63
	pagemapFrame   = 1<<55 - 1

	flagHead = 1 << 15 // KPF_COMPOUND_HEAD
	flagTail = 1 << 16 // KPF_COMPOUND_TAIL
)

// ErrNoFrames is a kernel that does not show the numbers of page frames: it
// does so only to those with CAP_SYS_ADMIN in the first user namespace.
var ErrNoFrames = errors.New("the kernel does not show page frames: folio sizes cannot be proven")

// Prove tells whether all memory is in folios of exactly the wanted size. It
// asks the kernel which page frames they are and what these are part of, and
// needs root.
func (f *Folios) Prove() error {
	page := os.Getpagesize()
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return fmt.Errorf("cannot prove the folios' size: %w", err)
	}
	defer func() { _ = pagemap.Close() }()
	flags, err := os.Open("/proc/kpageflags")
	if err != nil {
		return fmt.Errorf("cannot prove the folios' size: %w", err)
	}
	defer func() { _ = flags.Close() }()
	pages := f.Size / page
	// a MiB of the map at a time
	window := max(1, (128<<10)/pages) * pages
	maps, buffer := make([]byte, window*8), make([]byte, (pages+1)*8)
	read := func(frame uint64, b []byte) (int, error) {
		n, err := flags.ReadAt(b, int64(frame)*8)
		if n > 0 || errors.Is(err, io.EOF) {
			return n / 8 * 8, nil
		}
		return 0, err
	}
	for first, all := 0, len(f.mem)/page; first < all; first += window {
		b := maps[:min(window, all-first)*8]
		if _, err := pagemap.ReadAt(b, int64(at(f.mem)/uintptr(page)+uintptr(first))*8); err != nil {
			return fmt.Errorf("cannot prove the folios' size: %w", err)
		}
		if err := provePages(b, pages, buffer, read); err != nil {
			return fmt.Errorf("not all folios are of %d KiB: at %d KiB %w", f.Size>>10, first*page>>10, err)
		}
	}
	return nil
}

// provePages judges a part of a pagemap: whether it consists of folios of so
// many pages each. flags reads the flags of frames into b, fewer at the end of
// memory.
func provePages(pagemap []byte, pages int, b []byte, flags func(frame uint64, b []byte) (int, error)) error {
	for i := 0; i+pages*8 <= len(pagemap); i += pages * 8 {
		first := uint64(0)
		for k := range pages {
			e := binary.NativeEndian.Uint64(pagemap[i+k*8:])
			frame := e & pagemapFrame
			switch {
			case e&pagemapPresent == 0:
				return fmt.Errorf("page %d is not there", i/8+k)
			case frame == 0:
				return ErrNoFrames
			case k == 0:
				first = frame
			case frame != first+uint64(k):
				return fmt.Errorf("pages %d and %d are not side by side", i/8, i/8+k)
			}
		}
		n, err := flags(first, b[:(pages+1)*8]) // one more: where the folio ends
		if err != nil {
			return fmt.Errorf("no flags of page %d: %w", i/8, err)
		}
		if n < pages*8 {
			return fmt.Errorf("the flags of page %d are not all there", i/8)
		}
		if why := shape(b[:n], pages); why != "" {
			return fmt.Errorf("page %d %s", i/8, why)
		}
	}
	return nil
}

// shape says why flags are not those of one folio of so many pages, which
// starts with the first and ends with the last of them.
func shape(flags []byte, pages int) string {
	for k := 0; k*8 < len(flags); k++ {
		v := binary.NativeEndian.Uint64(flags[k*8:])
		head, tail := v&flagHead != 0, v&flagTail != 0
		switch {
		case k == 0 && tail:
			return "is within a larger folio"
		case k == 0 && head != (pages > 1):
			if head {
				return "begins a larger folio"
			}
			return "is a page of its own"
		case k > 0 && k < pages && !tail:
			return fmt.Sprintf("begins a folio of %d pages", k)
		case k == pages && tail:
			return "begins a larger folio"
		}
	}
	return ""
}
