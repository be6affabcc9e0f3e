// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"path"
	"slices"
	"strings"
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
// inside it: openat2(2) with RESOLVE_IN_ROOT.
func (h *Host) open(p string, flags int) (int, error) {
	for {
		var fd int
		var err error
		if h.live {
			fd, err = unix.Open(p, flags, 0)
		} else {
			fd, err = unix.Openat2(h.fd, strings.TrimPrefix(p, "/"), &unix.OpenHow{
				Flags:   uint64(flags),
				Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
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

// perform does one operation; buf is scratch space that it may grow.
func (h *Host) perform(op Op, buf *[]byte) (a Answer) {
	if h.capture != nil {
		if errno, ok := h.capture.Errno[op.Path]; ok {
			return Answer{Err: &Error{op.Kind.String(), op.Path, errno}}
		}
	}
	var err error
	switch op.Kind {
	case ReadFile:
		a.Data, err = h.readFile(op.Path, buf)
	case ListDir:
		a.Names, err = h.readDir(op.Path, buf)
	case ReadLink:
		a.Link, err = h.readLink(op.Path, *buf)
	}
	if err != nil {
		return Answer{Err: &Error{op.Kind.String(), op.Path, err}}
	}
	return a
}

func (h *Host) readFile(p string, buf *[]byte) ([]byte, error) {
	fd, err := h.open(p, openFlags)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil, unix.EISDIR
		}
		return nil, ErrNotRegular
	}
	if st.Size > MaxFile {
		return nil, ErrTooLarge
	}
	n := 0
	for {
		if n == len(*buf) {
			if n > MaxFile {
				return nil, ErrTooLarge
			}
			*buf = append(*buf, make([]byte, len(*buf))...)
		}
		m, err := readRetry(fd, (*buf)[n:])
		if err != nil {
			return nil, err
		}
		n += m
		// a disk file that gave its whole size needs no second read to prove
		// the end; kernel files report 0 or a page
		if m == 0 || int64(n) == st.Size {
			break
		}
	}
	if n > MaxFile {
		return nil, ErrTooLarge
	}
	h.bytes.Add(int64(n))
	return slices.Clone((*buf)[:n]), nil
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

func (h *Host) readDir(p string, buf *[]byte) ([]string, error) {
	fd, err := h.open(p, openFlags|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	names := []string{}
	for {
		n, err := unix.ReadDirent(fd, *buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent((*buf)[:n], -1, names)
		if len(names) > MaxEntries {
			return nil, ErrTooLarge
		}
	}
	slices.Sort(names)
	return names, nil
}

func (h *Host) readLink(p string, buf []byte) (string, error) {
	buf = buf[:unix.PathMax]
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

// realKernelFS reports whether dir is a mounted sysfs or procfs (statfs(2)
// magic), as in a container that has the host's root mounted.
func realKernelFS(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false
	}
	return int64(st.Type) == unix.SYSFS_MAGIC || int64(st.Type) == unix.PROC_SUPER_MAGIC
}

// pageSize is the running kernel's, in bytes.
func pageSize() int { return syscall.Getpagesize() }
