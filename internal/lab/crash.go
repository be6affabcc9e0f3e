// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Recording is every write that a guest made to its disk, in order, with the
// flushes between them. From it come the states that a power cut could have
// left.
type Recording struct {
	lab     *Lab
	dir     string // the guest's
	entries []entry
	log     *os.File
	base    string // the partition before the first write

	durable string // the partition after the first `applied` entries
	applied int
}

// entry is one record of the log, Documentation/admin-guide/device-mapper/log-writes.rst:
// a header sector (sector, sectors, flags, data length: 64 bits each,
// little-endian) and the data.
type entry struct {
	sector, sectors, flags uint64
	offset                 int64 // of the data in the log
}

const (
	flagFlush   = 1
	flagFUA     = 2
	flagDiscard = 4
)

// Mark is how many writes there are so far: what a guest does between two
// marks lies between them in the recording.
func (g *Guest) Mark() (int, error) {
	f, err := os.Open(filepath.Join(g.dir, "writes"))
	if err != nil {
		return 0, fmt.Errorf("guest %s does not record: %w", g.Name, err)
	}
	defer f.Close()
	entries, err := readLog(f)
	return len(entries), err
}

// Recording gives the writes of a guest that is off; call it before
// [Guest.On], which begins a new one.
func (g *Guest) Recording() (*Recording, error) {
	f, err := os.Open(filepath.Join(g.dir, "writes"))
	if err != nil {
		return nil, fmt.Errorf("guest %s does not record: %w", g.Name, err)
	}
	r := &Recording{lab: g.lab, dir: g.dir, log: f, base: filepath.Join(g.dir, "base.part"), durable: filepath.Join(g.dir, "durable.part")}
	if r.entries, err = readLog(f); err != nil {
		return nil, err
	}
	whole := filepath.Join(g.dir, "base.raw")
	if _, err := g.lab.toolOutput("qemu-img", "convert", "-f", g.base.format, "-O", "raw", g.base.path, whole); err != nil {
		return nil, err
	}
	defer os.Remove(whole)
	// the partition alone: e2fsck forgets an offset when it has replayed a journal
	if _, err := output(exec.Command("dd", "if="+whole, "of="+r.base, "bs=1M", fmt.Sprintf("skip=%d", firstSector*sectorSize>>20), "conv=sparse", "status=none")); err != nil {
		return nil, err
	}
	return r, sparseCopy(r.base, r.durable)
}

func sparseCopy(from, to string) error {
	_, err := output(exec.Command("cp", "--sparse=always", "--reflink=auto", from, to))
	return err
}

// readLog reads the headers. The log's superblock is its first sector; a
// header of zeros ends it.
func readLog(f io.ReaderAt) ([]entry, error) {
	var entries []entry
	head := make([]byte, 32)
	for at := int64(sectorSize); ; {
		if _, err := f.ReadAt(head, at); err == io.EOF {
			return entries, nil
		} else if err != nil {
			return nil, fmt.Errorf("cannot read the recording: %w", err)
		}
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }
		e := entry{u(0), u(1), u(2), at + sectorSize}
		if e.sectors == 0 && e.flags == 0 {
			return entries, nil
		}
		at = e.offset
		if e.flags&flagDiscard == 0 {
			at += int64(e.sectors) * sectorSize
		}
		if at < e.offset || e.sectors > 1<<22 {
			return nil, fmt.Errorf("the recording has a write of %d sectors at %d", e.sectors, e.offset)
		}
		entries = append(entries, e)
	}
}

// Len is how many writes there are.
func (r *Recording) Len() int { return len(r.entries) }

// Points spreads n points evenly over the writes from one mark to another, the
// last one included.
func Points(from, to, n int) []int {
	var points []int
	for i := range n {
		points = append(points, from+(to-from)*(i+1)/n)
	}
	return slices.Compact(points)
}

// State writes to path the partition as a power cut after the first n writes
// may leave it: what was flushed is there; of the writes since the last flush
// some are lost: all with seed 0, a random half with another. It then has the
// file system check itself, as at boot, and fails where that needs a person.
func (r *Recording) State(path string, n int, seed uint64) error {
	n = min(n, len(r.entries))
	flushed := 0
	for i, e := range r.entries[:n] {
		if e.flags&flagFlush != 0 {
			flushed = i + 1
		}
	}
	if flushed < r.applied { // points come in order; else begin again
		if err := sparseCopy(r.base, r.durable); err != nil {
			return err
		}
		r.applied = 0
	}
	if err := r.write(r.durable, r.entries[r.applied:flushed], func(entry) bool { return true }); err != nil {
		return err
	}
	r.applied = flushed
	if err := sparseCopy(r.durable, path); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	err := r.write(path, r.entries[flushed:n], func(e entry) bool {
		return e.flags&flagFUA != 0 || seed != 0 && random.IntN(2) == 1
	})
	if err != nil {
		return err
	}
	c, err := r.lab.Tool(context.Background(), "e2fsck", "-fp", path)
	if err != nil {
		return err
	}
	if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() > 1 { // 1: mended
		return fmt.Errorf("power cut after write %d (seed %d): the file system does not mend itself: %w\n%s", n, seed, err, out)
	}
	return nil
}

func (r *Recording) write(path string, entries []entry, keep func(entry) bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, e := range entries {
		if !keep(e) || e.flags&flagDiscard != 0 || e.sectors == 0 || e.sector < firstSector {
			continue
		}
		b := make([]byte, e.sectors*sectorSize)
		if _, err := r.log.ReadAt(b, e.offset); err != nil {
			return fmt.Errorf("cannot read the recording: %w", err)
		}
		if _, err := f.WriteAt(b, int64(e.sector-firstSector)*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

// Extract copies a directory or file of a partition ("/etc") below dir, with
// owners and modes. What is not there is no error.
func (l *Lab) Extract(partition, path, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
		return err
	}
	out, err := l.toolOutput("debugfs", "-R", fmt.Sprintf("rdump %q %q", path, filepath.Join(dir, filepath.Dir(path))), partition)
	if err != nil {
		return err
	}
	if strings.Contains(out, "rdump:") && !strings.Contains(out, "File not found") {
		return fmt.Errorf("cannot copy %s out of the disk: %s", path, out)
	}
	return nil
}

// BootState makes the guest's disk the partition of a power cut: the next
// [Guest.On] boots it.
func (g *Guest) BootState(partition string) error {
	if _, err := g.process(); err == nil {
		return fmt.Errorf("guest %s is running", g.Name)
	}
	whole := filepath.Join(g.dir, "state.raw")
	if _, err := g.lab.toolOutput("qemu-img", "convert", "-f", g.base.format, "-O", "raw", g.base.path, whole); err != nil {
		return err
	}
	// before the partition lie its table and GRUB; behind that only what the state has
	head := make([]byte, firstSector*sectorSize)
	f, err := os.OpenFile(whole, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(0), f.Truncate(diskSize)); err != nil {
		return err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	if _, err := output(exec.Command("dd", "if="+partition, "of="+whole, "bs=1M", fmt.Sprintf("seek=%d", firstSector*sectorSize>>20), "conv=sparse,notrunc", "status=none")); err != nil {
		return err
	}
	g.disk = drive{whole, "raw"}
	return nil
}
