// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Everything is opened read-only and non-blocking: a FIFO then opens at once
// and is refused by its type. Raw system calls, because os.File would register
// each descriptor with the poller.
const openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY

func openRoot(root string) (int, error) {
	return unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// closeFD closes what was only read: there is nothing to lose.
func closeFD(fd int) { _ = unix.Close(fd) }

func closeRoot(fd int) {
	if fd >= 0 {
		closeFD(fd)
	}
}

// open opens p below the root. In a tree, links (absolute ones too) stay
// inside it: openat2(2) with RESOLVE_IN_ROOT. That gives EAGAIN where the path
// has a ".." and anything on the machine was renamed or mounted meanwhile.
func (h *Host) open(p string, flags int) (int, error) {
	for again := 0; ; {
		var fd int
		var err error
		if h.live {
			fd, err = unix.Open(p, flags, 0)
		} else {
			fd, err = unix.Openat2(h.fd, strings.TrimPrefix(p, "/"), &unix.OpenHow{
				Flags:   uint64(flags),
				Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
			if errors.Is(err, unix.EAGAIN) && again < 100 {
				again++
				continue
			}
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EAGAIN) {
				fd, err = h.openByParts(p, flags)
			}
		}
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openByParts is for kernels (before 5.6) and sandboxes without openat2: it
// resolves links itself, so that none leads out of the root.
func (h *Host) openByParts(p string, flags int) (int, error) {
	resolved, err := h.resolve(p, flags&unix.O_NOFOLLOW == 0)
	if err != nil {
		return -1, err
	}
	return unix.Openat(h.fd, "./"+resolved, flags|unix.O_NOFOLLOW, 0)
}

func (h *Host) resolve(p string, last bool) (string, error) {
	var done []string
	todo := strings.Split(path.Clean("/" + p)[1:], "/")
	buf := make([]byte, unix.PathMax)
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		at := strings.Join(append(slices.Clone(done), name), "/")
		n, err := unix.Readlinkat(h.fd, "./"+at, buf)
		if errors.Is(err, unix.EINVAL) || (err == nil && len(todo) == 0 && !last) {
			done = append(done, name)
			continue
		}
		if err != nil {
			return "", err
		}
		if links++; links > 40 {
			return "", unix.ELOOP
		}
		target := string(buf[:n])
		if path.IsAbs(target) {
			done = done[:0]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return strings.Join(done, "/"), nil
}

// place is what a worker keeps from one operation to the next: a buffer, and
// the directory that the group is in. Attributes of a device are read one after
// the other, and to walk to each from the root costs more than to read it.
type place struct {
	buf  []byte
	fd   int    // O_PATH, of dir
	dir  string // "" when none is open
	left int    // operations of the group that are not done, this one included
}

const placeBuf = 64 << 10

var placePool = sync.Pool{New: func() any { return &place{buf: make([]byte, placeBuf)} }}

// put gives the place back for the next batch, without what a large file needed.
func (at *place) put() {
	if len(at.buf) > placeBuf {
		at.buf = make([]byte, placeBuf)
	}
	placePool.Put(at)
}

func (at *place) leave() {
	if at.dir != "" {
		closeFD(at.fd)
		at.dir = ""
	}
}

// enter gives the directory of p, already open, and the name of p in it. It is
// opened where enough is to do in it to be worth while; else, and where it
// cannot be opened, ok is false and p is walked to from the root.
func (h *Host) enter(at *place, p string) (fd int, name string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	dir, name := p[:max(i, 0)], p[i+1:]
	if dir == "" || name == "" || name == "." || name == ".." {
		return 0, "", false
	}
	if at.dir == dir {
		return at.fd, name, true
	}
	if at.left < 3 {
		return 0, "", false
	}
	at.leave()
	fd, err := h.open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return 0, "", false
	}
	at.fd, at.dir = fd, dir
	return fd, name, true
}

// openAt opens p like open, in its directory where that is at hand. What is a
// link there is walked to from the root, which knows how far links may lead.
func (h *Host) openAt(at *place, p string, flags int) (int, error) {
	look := h.special && flags&unix.O_DIRECTORY == 0
	if dir, name, ok := h.enter(at, p); ok {
		var st unix.Stat_t
		if look && unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && special(st.Mode) {
			return -1, ErrNotRegular
		}
		fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW, 0)
		link := errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) && flags&unix.O_DIRECTORY != 0
		if !link && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	if look {
		if err := h.refuseSpecial(p); err != nil {
			return -1, err
		}
	}
	return h.open(p, flags)
}

// To open a device can be to act: a watchdog starts, a tape rewinds. On the
// live machine there is none where this package reads, but a tree may have been
// unpacked from anything. Where its nodes would open, to root and on a mount
// without nodev, each file is looked at before it is opened: one fstatat(2) per
// file, 5 % of a run on a dense tree.
func (h *Host) refuseSpecial(p string) error {
	fd, err := h.open(p, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if special(st.Mode) {
		return ErrNotRegular
	}
	return nil
}

// special reports whether a file is a device, a FIFO or a socket.
func special(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
		return false
	}
	return true
}

// noDevices reports whether fd lies on a mount on which no device opens.
func noDevices(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_NODEV != 0
}

// perform does one operation.
func (h *Host) perform(op Op, at *place) (a Answer) {
	if h.capture != nil {
		if errno, ok := h.capture.Errno[op.Path]; ok {
			return Answer{Err: &Error{op.Kind.String(), op.Path, errno}}
		}
	}
	p, err := h.ofHost(op.Path)
	switch {
	case err != nil:
	case op.Kind == ReadFile:
		a.Data, err = h.readFile(p, at)
	case op.Kind == ReadHead:
		a.Data, err = h.readHead(p, at)
	case op.Kind == ListDir:
		a.Names, err = h.readDir(p, at)
	case op.Kind == ReadLink:
		a.Link, err = h.readLink(p, at)
	}
	if err != nil {
		return Answer{Err: &Error{op.Kind.String(), op.Path, err}}
	}
	return a
}

// readFile reads until the end, which in procfs only an empty read proves;
// elsewhere a read that does not fill the buffer has met it. What kind of file
// it is matters only where nothing or very much came: a FIFO and a device give
// no small, complete answer.
func (h *Host) readFile(p string, at *place) ([]byte, error) {
	fd, err := h.openAt(at, p, openFlags)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	short := !strings.HasPrefix(p, "/proc/")
	limit := maxBytes(p)
	n, checked := 0, false
	for {
		m, err := readRetry(fd, at.buf[n:])
		if (err != nil || m == 0 && n == 0 || m == len(at.buf)-n) && !checked {
			checked = true
			if err := regular(fd, err); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return nil, err
		}
		n += m
		switch {
		case n > limit:
			return nil, ErrTooLarge
		case m == 0, short && n < len(at.buf):
			h.bytes.Add(int64(n))
			if !h.hold(n) {
				return nil, ErrTotal
			}
			return slices.Clone(at.buf[:n]), nil
		case n == len(at.buf):
			at.buf = append(at.buf, make([]byte, len(at.buf))...)
		}
	}
}

// readHead reads the first HeadBytes of a file on a disk.
func (h *Host) readHead(p string, at *place) ([]byte, error) {
	fd, err := h.openAt(at, p, openFlags)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	if err := regular(fd, unix.EFBIG); !errors.Is(err, unix.EFBIG) {
		return nil, err
	}
	buf := make([]byte, HeadBytes)
	n := 0
	for n < len(buf) {
		m, err := readRetry(fd, buf[n:])
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	h.bytes.Add(int64(n))
	if !h.hold(n) {
		return nil, ErrTotal
	}
	return slices.Clip(buf[:n]), nil
}

// maxBytes is how much of a file is read at most: more is no such file.
func maxBytes(p string) int {
	switch {
	case !strings.HasPrefix(p, "/sys/"):
		return MaxFile
	case strings.HasSuffix(p, "/config"):
		return MaxConfig
	}
	return MaxAttr
}

// hold counts what an answer keeps, and reports whether there is room for it.
func (h *Host) hold(n int) bool {
	if h.held.Add(int64(n)) <= h.budget {
		return true
	}
	h.held.Add(int64(-n))
	return false
}

// regular gives why a file is not one to read on, else the error of the read.
func regular(fd int, err error) error {
	var st unix.Stat_t
	if statErr := unix.Fstat(fd, &st); statErr != nil {
		return statErr
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFREG:
		if err == nil && st.Size > MaxFile {
			return ErrTooLarge
		}
		return err
	}
	return ErrNotRegular
}

// readRetry retries EINTR, and EAGAIN for a short while: some drivers answer
// it while busy, some for ever.
func readRetry(fd int, b []byte) (int, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && wait < 100*time.Millisecond:
			time.Sleep(wait)
		case err != nil:
			return 0, err
		default:
			return n, nil
		}
	}
}

func (h *Host) readDir(p string, at *place) ([]string, error) {
	fd, err := h.openAt(at, p, openFlags|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	names := []string{}
	for {
		n, err := unix.ReadDirent(fd, at.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(at.buf[:n], -1, names)
		if len(names) > MaxEntries {
			return nil, ErrTooLarge
		}
	}
	const stringHeader = 16 // bytes
	size := 0
	for _, name := range names {
		size += len(name) + stringHeader
	}
	if !h.hold(size) {
		return nil, ErrTotal
	}
	slices.Sort(names)
	return names, nil
}

func (h *Host) readLink(p string, at *place) (string, error) {
	buf := at.buf[:unix.PathMax]
	if dir, name, ok := h.enter(at, p); ok {
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
	if h.live {
		n, err := unix.Readlink(p, buf)
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
	fd, err := h.open(p, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	n, err := unix.Readlinkat(fd, "", buf)
	if errors.Is(err, unix.ENOENT) { // an empty path on what is not a link
		err = unix.EINVAL
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// kernelFS reports whether fd lies on a file system whose files the kernel
// makes up (statfs(2) magic): sysfs and procfs, and those mounted in sysfs.
func kernelFS(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.SYSFS_MAGIC, unix.PROC_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.SECURITYFS_MAGIC, configfsMagic:
		return true
	}
	return false
}

const configfsMagic = 0x62656570 // fs/configfs/mount.c

// pageSize is the running kernel's, in bytes.
func pageSize() int { return syscall.Getpagesize() }
