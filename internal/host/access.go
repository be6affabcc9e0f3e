// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ReadOnly says why nobody can write a file of the running kernel from here,
// without opening it: a parameter that a network namespace only shows, or a
// container's /proc/sys. It is nil for what can be written, for what only root
// can write, and for everything in a tree.
func (h *Host) ReadOnly(p string) error {
	if h.replay != nil && h.replay.Exact.Live {
		if _, err := h.noted("writable", p, nil); !errors.Is(err, ErrNotCaptured) {
			return err
		}
		return nil
	}
	if !h.live {
		return nil
	}
	_, err := h.noted("writable", p, func() (string, error) { return "", readOnly(p) })
	return err
}

func readOnly(p string) error {
	err := unix.Faccessat(unix.AT_FDCWD, p, unix.W_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.EROFS) || os.Geteuid() == 0 && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
		return &Error{"write", p, err}
	}
	return nil
}
