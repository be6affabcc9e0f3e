// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// KernelTop is "/sys" or "/proc" where err says that a file below it does not
// exist (ENOENT), else "".
func KernelTop(err error) string {
	var e *Error
	if !errors.Is(err, syscall.ENOENT) || !errors.As(err, &e) {
		return "" // ENOTDIR too: the kernel has no file where it has a directory
	}
	for _, top := range []string{"/sys", "/proc"} {
		if strings.HasPrefix(e.Path, top+"/") {
			return top
		}
	}
	return ""
}

// Lacks reports whether err is the kernel's own word that it has no such file:
// it does not exist (ENOENT) below /sys or /proc, and a capture says that it
// took the whole of that, or the deepest directory on the way to it that does
// exist lies on a file system that the kernel fills. A chroot, a container's
// mask or a tree that was not captured whole proves nothing: the file may just
// not be shown.
func (h *Host) Lacks(err error) bool {
	top := KernelTop(err)
	if top == "" {
		return false
	}
	if h.replay != nil {
		var e *Error
		return errors.As(err, &e) && h.replay.lacks(e)
	}
	if h.capture != nil && slices.Contains(h.capture.Whole, top) {
		return true
	}
	var e *Error
	errors.As(err, &e)
	if e.Op != ReadLink.String() && h.isLink(e.Path) {
		return false // it leads to what is not shown
	}
	return h.onKernelFS(path.Dir(e.Path))
}

// onKernelFS reports whether dir, or the deepest of its parents that exists,
// lies on a file system of the kernel. Each directory is looked at once.
func (h *Host) onKernelFS(dir string) bool {
	h.kernelMu.Lock()
	on, known := h.kernelDirs[dir]
	h.kernelMu.Unlock()
	if known {
		return on
	}
	fd, err := h.open(dir, unix.O_PATH|unix.O_CLOEXEC)
	switch {
	case err == nil:
		on = kernelFS(fd)
		closeFD(fd)
	case errors.Is(err, unix.ENOENT) && len(dir) > 1 && !h.isLink(dir):
		on = h.onKernelFS(path.Dir(dir))
	}
	h.kernelMu.Lock()
	h.kernelDirs[dir] = on
	h.kernelMu.Unlock()
	return on
}

func (h *Host) isLink(p string) bool {
	at := placePool.Get().(*place)
	defer at.put()
	at.left = 0
	_, err := h.readLink(p, at)
	return err == nil
}
