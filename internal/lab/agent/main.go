// SPDX-License-Identifier: Apache-2.0

// Command agent runs inside the guests of the lab. Started as process 1 it is
// the whole user space of a tiny guest, see init.go; else it serves requests
// on the virtio-serial port:
//
//	agent /dev/virtio-ports/hostcheck.lab
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab/wire"
)

func main() {
	if os.Getpid() == 1 {
		initMain()
	}
	if len(os.Args) != 2 {
		os.Exit(2)
	}
	for {
		if f, err := os.OpenFile(os.Args[1], os.O_RDWR, 0); err == nil {
			serve(f)
			f.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// serve answers each request in a goroutine of its own, for one command that
// hangs must not keep the guest from answering.
func serve(f *os.File) {
	var mu sync.Mutex
	r := bufio.NewReaderSize(f, 1<<20)
	var line []byte
	for {
		part, err := r.ReadBytes('\n')
		line = append(line, part...)
		if errors.Is(err, io.EOF) { // nobody is connected on the other side
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return
		}
		var m wire.Message
		if json.Unmarshal(line, &m) == nil && m.ID != "" {
			go func() {
				a := answer(m)
				a.ID = m.ID
				b, _ := json.Marshal(a)
				mu.Lock()
				defer mu.Unlock()
				f.Write(append(b, '\n'))
			}()
		}
		line = line[:0]
	}
}

func answer(m wire.Message) (a wire.Message) {
	fault := func(err error) {
		if err != nil {
			a.Fault = err.Error()
		}
	}
	switch m.Op {
	case "ping":
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		a.Boot = strings.TrimSpace(string(b))
		fault(err)
	case "exec":
		return run(m)
	case "push":
		if err := os.MkdirAll(filepath.Dir(m.Path), 0o755); err != nil {
			fault(err)
			return a
		}
		if err := os.WriteFile(m.Path, m.Data, os.FileMode(m.Mode)); err != nil {
			fault(err)
			return a
		}
		fault(os.Chmod(m.Path, os.FileMode(m.Mode)))
	case "pull":
		b, err := os.ReadFile(m.Path)
		a.Data = b
		fault(err)
	default:
		a.Fault = "unknown request " + m.Op
	}
	return a
}

// output can be read while the command still writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.b.Bytes())
}

func run(m wire.Message) (a wire.Message) {
	c := exec.Command("/bin/sh", "-c", m.Command)
	c.Env = append(os.Environ(), "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	c.Dir = "/root"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = time.Second // for what the command left in the background with its output
	if m.Stdin != nil {
		c.Stdin = bytes.NewReader(m.Stdin)
	}
	var stdout, stderr output
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Start(); err != nil {
		a.Fault = err.Error()
		return a
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(time.Duration(m.Millis) * time.Millisecond):
		a.Late = true
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		select {
		case err = <-ended:
		case <-time.After(2 * time.Second): // it hangs in the kernel
		}
	}
	a.Out, a.Err = stdout.bytes(), stderr.bytes()
	var x *exec.ExitError
	if errors.As(err, &x) {
		a.Code = x.ExitCode()
		if ws, ok := x.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			a.Code = 128 + int(ws.Signal())
		}
	} else if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		a.Fault = err.Error()
	}
	return a
}
