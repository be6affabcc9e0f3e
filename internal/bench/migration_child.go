// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// killTime is how long a process that was killed may take to end: the kernel
// finishes the batch at hand first, and a copy engine that is stuck holds one
// for 10 seconds.
const killTime = 20 * time.Second

// child runs a job in a process of its own, and gives each answer to each. The
// process ends with ctx, and with this one, however that ends.
func child(ctx context.Context, self []string, j job, each func(pid int, a answer, end func()) error) error {
	input, err := json.Marshal(j)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig is of the thread that starts it
	defer runtime.UnlockOSThread()
	c := exec.Command(self[0], self[1:]...)
	c.Env = []string{"LC_ALL=C"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		return fmt.Errorf("cannot start a worker: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
	defer stop()
	read := make(chan error, 1)
	go func() {
		if _, err := in.Write(append(input, '\n')); err != nil {
			read <- err
			return
		}
		read <- answers(out, func(a answer) error { return each(c.Process.Pid, a, func() { _ = in.Close() }) })
	}()
	var failed error
	select {
	case failed = <-read:
	case <-ctx.Done():
		select {
		case failed = <-read:
		case <-time.After(killTime):
			return fmt.Errorf("%w; the worker (process %d) hangs in the kernel: dmesg may tell why", context.Cause(ctx), c.Process.Pid)
		}
	}
	_ = in.Close()
	if failed != nil {
		_ = c.Process.Kill()
	}
	err = c.Wait()
	switch text := strings.TrimSpace(said.String()); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed != nil:
		return failed
	case err != nil && text != "":
		return fmt.Errorf("a worker failed: %w: %.300s", err, text)
	case err != nil:
		return fmt.Errorf("a worker failed: %w", err)
	}
	return nil
}

// answers reads the lines of a worker.
func answers(r io.Reader, each func(answer) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 4<<20)
	for s.Scan() {
		var a answer
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			return fmt.Errorf("a worker said %.80q: %w", s.Text(), err)
		}
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if err := each(a); err != nil {
			return err
		}
	}
	return s.Err()
}
