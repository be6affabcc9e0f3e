// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Folios is memory of this process on one memory node, outside of Go's heap:
// folios of one size, each with an address for move_pages(2) of its own. More
// than one address in a folio would make the kernel flush its batch at each.
type Folios struct {
	Bytes int64 // of all
	Size  int   // of a folio, bytes

	mapped []byte // all that was mapped
	mem    []byte // of that the folios, aligned
	args   []byte // of move_pages: an address, a node and a status for each folio
}

const (
	addressSize = 8
	intSize     = 4

	untouched = -1 << 30 // a status that the kernel does not write
)

// at is where memory lies that is no part of Go's heap, and so never moves.
func at(b []byte) uintptr { return reflect.ValueOf(b).Pointer() }

// hugeAlign is what a mapping is aligned to: the largest folio of most kernels.
const hugeAlign = 2 << 20

// NewFolios maps memory, binds it to a node and writes to all of it. Which
// folios the kernel makes of it follows from /sys/kernel/mm/transparent_hugepage
// (see [FolioKnobs]); [Folios.Prove] tells whether they are of the wanted size.
func NewFolios(node, size int, bytes int64) (f *Folios, err error) {
	page := os.Getpagesize()
	if size < page || size&(size-1) != 0 || bytes < int64(size) {
		return nil, fmt.Errorf("cannot make folios of %d bytes in %d bytes: this kernel's pages have %d", size, bytes, page)
	}
	f = &Folios{Size: size, Bytes: bytes / int64(size) * int64(size)}
	align := max(size, hugeAlign)
	defer func(made *Folios) {
		if err != nil {
			made.Close()
		}
	}(f)
	if f.mapped, err = anonymous(f.Bytes + 2*int64(align)); err != nil {
		return nil, err
	}
	start := align - int(at(f.mapped)%uintptr(align))
	f.mem = f.mapped[start : int64(start)+f.Bytes]
	if f.args, err = anonymous(int64(f.N()) * (addressSize + 2*intSize)); err != nil {
		return nil, err
	}
	for i := range f.N() {
		binary.NativeEndian.PutUint64(f.args[i*addressSize:], uint64(at(f.mem))+uint64(i)*uint64(size))
	}
	if err := bind(f.mapped, node); err != nil {
		return nil, err
	}
	advice := unix.MADV_HUGEPAGE
	if size == page {
		advice = unix.MADV_NOHUGEPAGE
	}
	if err := unix.Madvise(f.mapped, advice); err != nil && (advice == unix.MADV_HUGEPAGE || !errors.Is(err, unix.EINVAL)) { // EINVAL: it has none
		return nil, fmt.Errorf("cannot ask for folios of %d KiB: madvise: %w", size>>10, err)
	}
	for i := 0; i < len(f.mem); i += page {
		f.mark(i, page)
	}
	return f, nil
}

// N is how many folios there are.
func (f *Folios) N() int { return int(f.Bytes / int64(f.Size)) }

// Close gives the memory back.
func (f *Folios) Close() {
	for _, b := range [][]byte{f.mapped, f.args} {
		if b != nil {
			_ = unix.Munmap(b)
		}
	}
	f.mapped, f.mem, f.args = nil, nil, nil
}

// mark writes what no two pages have alike to both ends of a page.
func (f *Folios) mark(i, page int) {
	binary.NativeEndian.PutUint64(f.mem[i:], uint64(i)+1)
	binary.NativeEndian.PutUint64(f.mem[i+page-8:], ^uint64(i))
}

// Intact tells whether all pages still hold what was written to their ends.
func (f *Folios) Intact() error {
	page := os.Getpagesize()
	for i := 0; i < len(f.mem); i += page {
		if binary.NativeEndian.Uint64(f.mem[i:]) != uint64(i)+1 || binary.NativeEndian.Uint64(f.mem[i+page-8:]) != ^uint64(i) {
			return fmt.Errorf("memory changed while it was moved: the page at %d KiB does not hold what was written to it", i>>10)
		}
	}
	return nil
}

// MoveError is folios that are not on the node that they were moved to.
type MoveError struct {
	Folios int // that were to be moved
	Not    int // of which so many were not
	Why    []string
}

func (e *MoveError) Error() string {
	return fmt.Sprintf("%d of %d folios were not moved: %s", e.Not, e.Folios, strings.Join(e.Why, ", "))
}

// Move moves folios [i, j) to a node on the calling thread, n with each call
// of move_pages (0: all with one), and gives the time in the calls. An error
// is a [MoveError] where folios stayed where they were.
func (f *Folios) Move(node, i, j, n int) (time.Duration, error) {
	if i < 0 || j > f.N() || i >= j {
		return 0, fmt.Errorf("there are %d folios, not %d to %d", f.N(), i, j)
	}
	f.aim(node, i, j)
	start := time.Now()
	failed := f.call(i, j, n)
	took := time.Since(start)
	return took, f.moved(node, i, j, failed)
}

// aim prepares a move: what is left of it are the calls.
func (f *Folios) aim(node, i, j int) {
	for k := i; k < j; k++ {
		f.put(f.nodes(), k, node)
		f.put(f.statuses(), k, untouched)
	}
}

// errLeft is a call that left folios where they were.
var errLeft = errors.New("folios were left")

// call moves what [Folios.aim] prepared.
func (f *Folios) call(i, j, n int) error {
	if n <= 0 || n > j-i {
		n = j - i
	}
	for k := i; k < j; k += n {
		left, err := movePages(f.args[k*addressSize:], f.nodes()[k*intSize:], f.statuses()[k*intSize:], min(n, j-k))
		if err != nil {
			return err
		}
		if left > 0 { // no error number, and no success; the statuses are not filled in
			return errLeft
		}
	}
	return nil
}

// moved judges what became of a move.
func (f *Folios) moved(node, i, j int, failed error) error {
	if failed != nil && !errors.Is(failed, errLeft) {
		return fmt.Errorf("cannot move folios to node %d: move_pages: %w", node, failed)
	}
	for k := i; failed == nil && k < j; k++ {
		if f.get(f.statuses(), k) != node {
			failed = errLeft
		}
	}
	if failed == nil {
		return nil
	}
	if err := f.On(node, i, j); err != nil {
		return err
	}
	return errors.New("the kernel said that folios were left, and then that all are where they belong: it may have split them")
}

// On tells whether folios [i, j) are on a node; else it is a [MoveError].
func (f *Folios) On(node, i, j int) error {
	for k := i; k < j; k++ {
		f.put(f.statuses(), k, untouched)
	}
	if _, err := movePages(f.args[i*addressSize:], nil, f.statuses()[i*intSize:], j-i); err != nil {
		return fmt.Errorf("cannot ask where folios are: move_pages: %w", err)
	}
	e := &MoveError{Folios: j - i}
	count := map[int]int{}
	for k := i; k < j; k++ {
		if s := f.get(f.statuses(), k); s != node {
			e.Not++
			count[s]++
		}
	}
	if e.Not == 0 {
		return nil
	}
	for _, s := range slices.Sorted(maps.Keys(count)) {
		e.Why = append(e.Why, fmt.Sprintf("%d %s", count[s], statusWords(s)))
	}
	return e
}

func (f *Folios) nodes() []byte    { return f.args[f.N()*addressSize:] }
func (f *Folios) statuses() []byte { return f.args[f.N()*(addressSize+intSize):] }

func (f *Folios) put(b []byte, k, v int) {
	binary.NativeEndian.PutUint32(b[k*intSize:], uint32(int32(v)))
}

func (f *Folios) get(b []byte, k int) int {
	return int(int32(binary.NativeEndian.Uint32(b[k*intSize:])))
}

// statusWords says what a status of move_pages means (move_pages(2)).
func statusWords(s int) string {
	switch unix.Errno(-s) {
	case unix.EACCES:
		return "shared with another process"
	case unix.EBUSY:
		return "busy: the kernel could not isolate them"
	case unix.EFAULT:
		return "not mapped"
	case unix.EIO:
		return "not written back"
	case unix.EINVAL:
		return "not movable"
	case unix.ENOENT:
		return "not present"
	case unix.ENOMEM:
		return "without room on the target node"
	default:
	}
	if s >= 0 {
		return fmt.Sprintf("on node %d", s)
	}
	if s == untouched {
		return "never tried"
	}
	return unix.Errno(-s).Error()
}

// anonymous maps private memory of this process.
func anonymous(bytes int64) ([]byte, error) {
	if int64(int(bytes)) != bytes {
		return nil, fmt.Errorf("cannot map %d bytes on this machine", bytes)
	}
	b, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("cannot map %d MiB: %w", bytes>>20, err)
	}
	return b, nil
}

const maxNodes = 1024 // of the kernel: CONFIG_NODES_SHIFT is at most 10

// bind makes the kernel take memory for b from one node only.
func bind(b []byte, node int) error {
	if node < 0 || node >= maxNodes {
		return fmt.Errorf("there is no node %d", node)
	}
	mask, err := anonymous(maxNodes / 8)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(mask) }()
	word := node / 64 * 8
	binary.NativeEndian.PutUint64(mask[word:], 1<<(node%64))
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, at(b), uintptr(len(b)), unix.MPOL_BIND, at(mask), maxNodes+1, 0) // one more: the kernel counts one less
	if errno != 0 {
		return fmt.Errorf("cannot bind memory to node %d: mbind: %w", node, nodeError(errno))
	}
	return nil
}

// movePages moves n pages of this process, or without nodes asks where they
// are. left is how many the kernel did not move, those never tried included:
// it is no error.
func movePages(addresses, nodes, statuses []byte, n int) (left int, err error) {
	to := uintptr(0)
	if nodes != nil {
		to = at(nodes)
	}
	r, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(n), at(addresses), to, at(statuses), unix.MPOL_MF_MOVE)
	if errno != 0 {
		return 0, nodeError(errno)
	}
	return int(r), nil
}

// nodeError adds what an error of the two calls means.
func nodeError(errno unix.Errno) error {
	switch errno {
	case unix.EACCES:
		return fmt.Errorf("%w: the cpuset of this process does not have the node", errno)
	case unix.ENODEV:
		return fmt.Errorf("%w: the node is offline", errno)
	case unix.EINVAL:
		return fmt.Errorf("%w: the node has no memory, or this process may not use it", errno)
	case unix.ENOSYS:
		return fmt.Errorf("%w: this kernel is built without page migration (CONFIG_MIGRATION, CONFIG_NUMA)", errno)
	default:
		return errno
	}
}
