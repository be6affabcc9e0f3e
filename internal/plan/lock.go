// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBusy is matched by a [BusyError]: exit 11.
var ErrBusy = errors.New("another hostcheck is at work")

// BusyError is a lock that another hostcheck holds.
type BusyError struct{ PID int } // 0 when not known

func (e *BusyError) Error() string {
	if e.PID == 0 {
		return ErrBusy.Error() + "; try again when it has ended"
	}
	return fmt.Sprintf("another hostcheck (process %d) is at work; try again when it has ended", e.PID)
}

// Is makes it match [ErrBusy].
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// PackagesError is a package manager at work, whose scripts may write the same files.
type PackagesError struct {
	Lock string
	PID  int // 0 when not known
}

func (e *PackagesError) Error() string {
	who := ""
	if e.PID > 0 {
		who = fmt.Sprintf(" (process %d)", e.PID)
	}
	return fmt.Sprintf("a package manager%s is at work and holds %s; try again when it has ended", who, e.Lock)
}

// lock takes the lock of the journal: one of the open file, so that the kernel
// gives it back when the process ends, however it ends, and that it can be
// looked at without being taken.
func (j *journal) lock() (unlock func(), err error) {
	f, err := j.dir.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s/lock: %w", Dir, cause(err))
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = holder(f)
	} else if err != nil {
		err = fmt.Errorf("cannot lock %s/lock: %w", Dir, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if f.Truncate(0) == nil { // a courtesy to whoever finds it locked
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() {
		// by itself, because a process just being started still has the file open
		_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		f.Close()
	}, nil
}

// busy is a [BusyError] while someone holds the lock.
func (j *journal) busy() error {
	f, err := j.dir.Open("lock")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open %s/lock: %w", Dir, cause(err))
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return fmt.Errorf("cannot look at %s/lock: %w", Dir, err)
	}
	if l.Type == unix.F_UNLCK {
		return nil
	}
	return holder(f)
}

func holder(f *os.File) error {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return &BusyError{pid}
}

// packageLocks are held while packages are installed: dpkg and apt, rpm and dnf.
var packageLocks = []string{
	"/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock",
	"/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock",
}

// packages looks for a package manager at work. Their locks are fcntl(2) locks.
func (t tree) packages() error {
	for _, p := range packageLocks {
		d, base, err := t.parent(p)
		if err != nil {
			continue
		}
		f, err := d.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK, 0)
		d.Close()
		if err != nil {
			continue
		}
		l := unix.Flock_t{Type: unix.F_WRLCK}
		err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l)
		f.Close()
		if err == nil && l.Type != unix.F_UNLCK {
			return &PackagesError{p, max(0, int(l.Pid))}
		}
	}
	return nil
}
