// SPDX-License-Identifier: Apache-2.0

// Package bench measures what no file tells. What a measurement needs of a
// host it makes for itself and leaves nothing behind: the kernel takes network
// namespaces that have no name away with the threads that hold them, also when
// the process is killed.
package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// space is a network namespace that a thread of this process is in, and
// nothing else names.
type space struct {
	fd    int // of the namespace
	calls chan func()
}

// newSpace makes one. It needs CAP_SYS_ADMIN.
func newSpace() (*space, error) {
	s := &space{calls: make(chan func())}
	made := make(chan error)
	onOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		s.fd = fd
		made <- err
		if err != nil {
			return
		}
		for call := range s.calls {
			call()
		}
	})
	if err := <-made; err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("cannot make a network namespace: %w; this needs root (CAP_SYS_ADMIN), and not every container may", os.ErrPermission)
		}
		return nil, fmt.Errorf("cannot make a network namespace: %w", err)
	}
	return s, nil
}

// onOwnThread runs f in a goroutine on a thread that ends with it, and the
// namespace with that. The main thread never ends: where the goroutine comes to
// lie on that, another takes over while this one keeps it.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is of no use to others
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		ended := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			defer close(ended)
			f()
		}()
		<-ended
		runtime.UnlockOSThread()
	}()
}

// do calls f on the thread that is in the namespace.
func (s *space) do(f func() error) error {
	done := make(chan error)
	s.calls <- func() { done <- f() }
	return <-done
}

// close gives the namespace up; the kernel takes it away with all that is in it.
func (s *space) close() {
	close(s.calls)
	_ = unix.Close(s.fd)
}
