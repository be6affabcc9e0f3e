// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CaptureFile is where a captured tree keeps what files cannot say.
const CaptureFile = ".hostcheck/capture.json"

// CaptureSchema names the format of [CaptureFile].
const CaptureSchema = "hostcheck.capture/v1"

// Capture is what a captured tree says beside its files.
type Capture struct {
	Schema  string                     `json:"schema"`
	Time    time.Time                  `json:"time,omitzero"`
	Whole   []string                   `json:"whole,omitempty"`   // tops ("/sys", "/proc") of which everything that exists was taken
	Errno   map[string]Errno           `json:"errno,omitempty"`   // path -> why it could not be read
	Queries map[string]json.RawMessage `json:"queries,omitempty"` // key -> recorded answer, see [Recorded]
	Exact   *Exact                     `json:"exact,omitempty"`   // of a tree that holds what was asked, and no more

	// In names what somebody else collected, "a sosreport": what is not there is said to be not in that.
	In string `json:"-"`
}

// missing is the reason for what is not in the capture.
func (c *Capture) missing() error {
	if c == nil || c.In == "" {
		return ErrNotCaptured
	}
	return notIn(c.In)
}

// notIn is an [ErrNotCaptured] that names what was looked into.
type notIn string

func (n notIn) Error() string        { return "not in " + string(n) }
func (n notIn) Is(target error) bool { return target == ErrNotCaptured }

// Recorded is one recorded kernel answer: exactly one of its fields is set.
type Recorded struct {
	Answer json.RawMessage `json:"answer,omitempty"`
	Errno  Errno           `json:"errno,omitzero"`
	Error  string          `json:"error,omitempty"` // a failure that is not an errno
	Empty  bool            `json:"empty,omitempty"` // the answer was an empty list, or none
}

// Errno is an errno that is written by its name ("EACCES").
type Errno syscall.Errno

func (e Errno) Error() string { return syscall.Errno(e).Error() }

// Is lets an Errno match the syscall.Errno of the same number, and what that matches.
func (e Errno) Is(target error) bool {
	if n, ok := target.(syscall.Errno); ok {
		return syscall.Errno(e) == n
	}
	return syscall.Errno(e).Is(target)
}

// MarshalText writes the name.
func (e Errno) MarshalText() ([]byte, error) { return []byte(unix.ErrnoName(syscall.Errno(e))), nil }

// UnmarshalText reads a name.
func (e *Errno) UnmarshalText(b []byte) error {
	if string(b) == "EOPNOTSUPP" { // ErrnoName knows this number as ENOTSUP
		*e = Errno(unix.EOPNOTSUPP)
		return nil
	}
	for n := syscall.Errno(1); n < 200; n++ {
		if unix.ErrnoName(n) == string(b) {
			*e = Errno(n)
			return nil
		}
	}
	return fmt.Errorf("unknown errno name %s", quoteShort(string(b)))
}

const maxCapture = 64 << 20

// loadCapture reads the capture file of the tree; a tree need not have one. No
// link is followed: what another tree says is not this one's.
func (h *Host) loadCapture() (*Capture, error) {
	dir, name := path.Split(CaptureFile)
	dir = path.Clean(dir) // a slash at the end would follow a link
	at, err := h.open(dir, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is not a directory", dir)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer closeFD(at)
	b, err := readCapture(at, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", CaptureFile, err)
	}
	return DecodeCapture(b)
}

// DecodeCapture decodes the content of a [CaptureFile].
func DecodeCapture(b []byte) (*Capture, error) {
	c := new(Capture)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("cannot decode %s: %w", CaptureFile, err)
	}
	if c.Schema != CaptureSchema {
		return nil, fmt.Errorf("%s has schema %s; this hostcheck reads %s", CaptureFile, quoteShort(c.Schema), CaptureSchema)
	}
	return c, nil
}

func readCapture(at int, name string) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxCapture {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", maxCapture)
	}
	fd, err := unix.Openat(at, name, openFlags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), CaptureFile)
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxCapture))
}
