// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tracepoints of page migration that every kernel has: a page's mapping is
// replaced by a migration entry, and an entry by the page at its new place. Of
// huge pages that a PMD maps there are others (include/trace/events/migrate.h,
// thp.h).
var firstEvents = []struct {
	name string
	set  bool
}{
	{"migrate/set_migration_pte", true},
	{"migrate/remove_migration_pte", false},
	{"thp/set_migration_pmd", true},
	{"thp/remove_migration_pmd", false},
}

// tracefs is where the tracepoints are described, if it is mounted.
var tracefs = []string{"sys/kernel/tracing", "sys/kernel/debug/tracing"}

// tracepoint is one of them as this kernel numbers and lays it out.
type tracepoint struct {
	id      int
	set     bool
	address int // offset of the address in its record
}

// tracepoints finds those of this kernel.
func tracepoints(root fs.FS) (out []tracepoint, err error) {
	for _, e := range firstEvents {
		var dir string
		for _, t := range tracefs {
			if _, err := fs.Stat(root, path.Join(t, "events", e.name, "id")); err == nil {
				dir = path.Join(t, "events", e.name)
				break
			}
		}
		if dir == "" {
			if strings.HasPrefix(e.name, "thp/") { // a kernel without huge pages
				continue
			}
			return nil, fmt.Errorf("there is no tracepoint %s: tracefs is not mounted on /sys/kernel/tracing, or the kernel is built without", e.name)
		}
		id, err := fs.ReadFile(root, path.Join(dir, "id"))
		if err != nil {
			return nil, fmt.Errorf("cannot read the tracepoint %s: %w", e.name, err)
		}
		format, err := fs.ReadFile(root, path.Join(dir, "format"))
		if err != nil {
			return nil, fmt.Errorf("cannot read the tracepoint %s: %w", e.name, err)
		}
		t := tracepoint{set: e.set}
		if t.id, err = strconv.Atoi(strings.TrimSpace(string(id))); err != nil || t.id <= 0 {
			return nil, fmt.Errorf("the tracepoint %s has the number %.20q", e.name, id)
		}
		if t.address, err = fieldOffset(format, "addr"); err != nil {
			return nil, fmt.Errorf("the tracepoint %s: %w", e.name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// fieldOffset finds an 8-byte field in a tracepoint's format file:
// "field:unsigned long addr;	offset:8;	size:8;	signed:0;".
func fieldOffset(format []byte, name string) (int, error) {
	for line := range bytes.Lines(format) {
		parts := strings.Split(string(line), ";")
		if len(parts) < 3 || !strings.HasSuffix(strings.TrimSpace(parts[0]), " "+name) {
			continue
		}
		offset, found := strings.CutPrefix(strings.TrimSpace(parts[1]), "offset:")
		n, err := strconv.Atoi(offset)
		if found && err == nil && n >= 0 && n < 4096 && strings.TrimSpace(parts[2]) == "size:8" {
			return n, nil
		}
	}
	return 0, fmt.Errorf("its format has no 8-byte field %s", name)
}

// watch records the tracepoints of the calling thread, in memory that goes
// with the process: nothing of tracefs is written.
type watch struct {
	points []tracepoint
	fds    []int
	ring   []byte // a page of control, and the records
}

const ringBytes = 8 << 20 // of records; two of about 60 bytes for each 4K page

// newWatch begins to record. It needs CAP_PERFMON.
func newWatch(points []tracepoint) (w *watch, err error) {
	w = &watch{points: points}
	defer func(made *watch) {
		if err != nil {
			made.close()
		}
	}(w)
	for _, p := range points {
		attr := unix.PerfEventAttr{
			Type: unix.PERF_TYPE_TRACEPOINT, Config: uint64(p.id),
			Sample: 1, Sample_type: unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_RAW, Bits: unix.PerfBitDisabled,
		}
		attr.Size = uint32(binary.Size(attr))
		fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("cannot record tracepoints: perf_event_open: %w", err)
		}
		w.fds = append(w.fds, fd)
	}
	if w.ring, err = unix.Mmap(w.fds[0], 0, os.Getpagesize()+ringBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("cannot record tracepoints: mmap: %w", err)
	}
	for _, fd := range w.fds[1:] {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_OUTPUT, w.fds[0]); err != nil {
			return nil, fmt.Errorf("cannot record tracepoints: %w", err)
		}
	}
	for _, fd := range w.fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return nil, fmt.Errorf("cannot record tracepoints: %w", err)
		}
	}
	return w, nil
}

// canWatch tries it.
func canWatch(points []tracepoint) error {
	done := make(chan error)
	onOwnThread(func() {
		w, err := newWatch(points)
		if err == nil {
			w.close()
		}
		done <- err
	})
	return <-done
}

func (w *watch) close() {
	if w.ring != nil {
		_ = unix.Munmap(w.ring)
	}
	for _, fd := range w.fds {
		_ = unix.Close(fd)
	}
	w.fds, w.ring = nil, nil
}

// headAt is where struct perf_event_mmap_page has data_head (include/uapi/
// linux/perf_event.h).
const headAt = 1024

// stop ends the recording and gives what was recorded.
func (w *watch) stop() ([]traced, error) {
	for _, fd := range w.fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
			return nil, fmt.Errorf("cannot end the record of tracepoints: %w", err)
		}
	}
	head := binary.NativeEndian.Uint64(w.ring[headAt:])
	records := w.ring[os.Getpagesize():]
	return parseTraced(records[:min(head, uint64(len(records)))], w.points), nil // nothing was read yet, so that it has not wrapped
}

// traced is one moment of a migration.
type traced struct {
	at      time.Duration
	set     bool // unmapped; else mapped again
	address uint64
}

// parseTraced reads the records of perf: a header of type (4 bytes), misc (2)
// and size (2); in a sample then the time (8), and the size (4) and bytes of
// the tracepoint's own record, which starts with its number (2). Where
// something is lost or torn, it ends: what comes after would not fit together.
func parseTraced(b []byte, points []tracepoint) (out []traced) {
	for len(b) >= 8 {
		kind, size := binary.NativeEndian.Uint32(b), int(binary.NativeEndian.Uint16(b[6:]))
		if size < 8 || size > len(b) || kind == unix.PERF_RECORD_LOST {
			return out
		}
		record := b[8:size]
		b = b[size:]
		if kind != unix.PERF_RECORD_SAMPLE || len(record) < 14 {
			continue
		}
		raw := record[12:]
		for _, p := range points {
			if int(binary.NativeEndian.Uint16(raw)) == p.id && p.address+8 <= len(raw) {
				out = append(out, traced{time.Duration(binary.NativeEndian.Uint64(record)), p.set, binary.NativeEndian.Uint64(raw[p.address:])})
			}
		}
	}
	return out
}

// batch is one batch of the kernel: it unmaps some folios, then moves them.
type batch struct {
	folios int           // unmapped before the first was back
	first  time.Duration // from the first unmapping until a folio is back
}

// batches finds the batches in what was recorded: one that is unmapped after
// another came back begins a new one. A folio of many PTEs counts once.
func batches(list []traced, folio int) (out []batch) {
	seen := map[uint64]bool{}
	var began time.Duration
	back := true
	for _, t := range list {
		switch {
		case t.set && back:
			clear(seen)
			began, back = t.at, false
			seen[t.address/uint64(folio)] = true
		case t.set:
			seen[t.address/uint64(folio)] = true
		case !back:
			back = true
			if t.at >= began {
				out = append(out, batch{len(seen), t.at - began})
			}
		}
	}
	return out
}

// blackout reads a byte again and again until end is closed, and gives the
// longest time that a read took: what a program sees of the migration of one
// folio.
func blackout(b []byte, end <-chan struct{}) (longest time.Duration, err error) {
	last, sum := time.Now(), byte(0)
	for {
		for i := range 256 {
			sum += b[i]
			now := time.Now()
			longest = max(longest, now.Sub(last))
			last = now
		}
		select {
		case <-end:
			if sum == 1 && longest == 0 {
				return 0, errors.New("no time passes")
			}
			return longest, nil
		default:
		}
	}
}
