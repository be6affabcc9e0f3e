// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Trusted says who besides root could change what p holds, or make p lead
// elsewhere; it is nil where nobody can. It looks at p, at every directory
// above it and, where one of them is a link, at where that leads. In a tree
// the owner of its top plays root, so that anybody can unpack and judge one.
// Access control lists count: their mask shows as the permissions of the group.
func (h *Host) Trusted(p string) error {
	_, err := h.noted("trusted", p, func() (string, error) { return "", h.trusted(p) })
	return err
}

func (h *Host) trusted(p string) error {
	var root unix.Stat_t
	if err := h.lstat("/", &root); err != nil {
		return err
	}
	owner := uint32(0)
	if !h.live {
		owner = root.Uid
	}
	todo := strings.Split(path.Clean("/" + p)[1:], "/")
	at := "/"
	for links := 0; ; {
		var st unix.Stat_t
		if err := h.lstat(at, &st); err != nil {
			return err
		}
		switch kind := st.Mode & unix.S_IFMT; {
		case st.Uid != owner:
			return fmt.Errorf("%s belongs to user %d, not to root", at, st.Uid)
		case kind == unix.S_IFLNK:
			to, err := h.Link(at)
			if links++; links > 40 {
				err = &Error{"link", p, unix.ELOOP}
			}
			if err != nil {
				return err
			}
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(at), to)
			}
			todo = append(strings.Split(path.Clean(to)[1:], "/"), todo...)
			at = "/"
			continue
		case st.Mode&0o022 != 0:
			return fmt.Errorf("others than root may write to %s (mode %04o)", at, st.Mode&0o7777)
		}
		for len(todo) > 0 && todo[0] == "" { // of "/" alone
			todo = todo[1:]
		}
		if len(todo) == 0 {
			return nil
		}
		at, todo = path.Join(at, todo[0]), todo[1:]
	}
}

func (h *Host) lstat(p string, st *unix.Stat_t) error {
	fd, err := h.open(path.Join("/", p), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if p == "/" && !h.live {
		fd, err = unix.Openat(h.fd, ".", unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return &Error{"stat", p, err}
	}
	defer closeFD(fd)
	if err := unix.Fstat(fd, st); err != nil {
		return &Error{"stat", p, err}
	}
	return nil
}

// maxSum bounds a file that is summed: a program.
const maxSum = 512 << 20

// Sum gives the SHA-256 of a regular file of any size, in hex. A link is not
// followed. It is read each time, and not kept.
func (h *Host) Sum(p string) (string, error) {
	return h.noted("sum", p, func() (string, error) { return h.sum(p) })
}

func (h *Host) sum(p string) (string, error) {
	fd, err := h.open(p, openFlags|unix.O_NOFOLLOW)
	if err != nil {
		return "", &Error{"read", p, err}
	}
	defer closeFD(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = ErrNotRegular
	case st.Size > maxSum:
		err = ErrTooLarge
	}
	sum := sha256.New()
	buf := make([]byte, 256<<10)
	for err == nil {
		var n int
		if n, err = unix.Read(fd, buf); errors.Is(err, unix.EINTR) {
			err = nil
			continue
		}
		if err == nil && n == 0 {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err == nil {
			sum.Write(buf[:n])
		}
	}
	return "", &Error{"read", p, err}
}
