// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab/wire"
)

// Guest is one QEMU and its disk. Its methods may be called from several
// goroutines.
type Guest struct {
	Name string

	lab     *Lab
	options Options
	dir     string // disk, sockets, console; removed by Close
	disk    drive
	base    drive // what the disk was at the start, for the recording

	mu   sync.Mutex
	qemu *process // nil when it is off
	boot string   // boot id that the agent last told
	said int      // bytes of the console before the power came on
}

// process is a running QEMU.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	mon   *monitor
	agent net.Conn
	wmu   sync.Mutex
	amu   sync.Mutex
	waits map[string]chan wire.Message
}

// guest makes a guest with a directory and no disk yet, not started.
func (l *Lab) guest(o Options) (*Guest, error) {
	if o.Name == "" {
		o.Name = "guest"
	}
	dir, err := os.MkdirTemp("", "hostcheck-lab-") // short: a socket's path has 107 bytes at most
	if err != nil {
		return nil, err
	}
	return &Guest{Name: o.Name, lab: l, options: o, dir: dir}, nil
}

// onOverlay starts a guest, with further arguments for QEMU, on a disk of its
// own over base, which is never written.
func (l *Lab) onOverlay(ctx context.Context, o Options, base drive, args ...string) (*Guest, error) {
	g, err := l.guest(o)
	if err != nil {
		return nil, err
	}
	g.base, g.disk = base, drive{filepath.Join(g.dir, "disk.qcow2"), "qcow2"}
	_, err = l.toolOutput("qemu-img", "create", "-q", "-f", "qcow2", "-F", base.format, "-b", base.path, g.disk.path)
	if err == nil {
		err = g.power(ctx, args...)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// power starts QEMU on the guest's disk.
func (g *Guest) power(ctx context.Context, args ...string) error {
	sock := func(name string) string { return filepath.Join(g.dir, name) }
	for _, s := range []string{"agent", "qmp"} {
		os.Remove(sock(s))
	}
	all := append(machine(g.options), storage(g.options, g.disk, sock("writes"))...)
	all = append(all, "-name", "hostcheck-lab-"+g.Name,
		"-chardev", "socket,id=agent,path="+sock("agent")+",server=on,wait=off",
		"-serial", "chardev:console",
		"-qmp", "unix:"+sock("qmp")+",server=on,wait=off")
	if g.options.Terminal {
		all = append(all, "-chardev", "stdio,id=console,mux=on,signal=off", "-mon", "chardev=console")
	} else {
		all = append(all, "-chardev", "file,id=console,path="+g.ConsolePath()+",append=on")
	}
	if g.options.Record {
		f, err := os.OpenFile(sock("writes"), os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		f.Close()
	}
	firmware, err := g.firmware()
	if err != nil {
		return err
	}
	all = append(all, firmware...)
	cmd, err := g.lab.Tool(context.Background(), "qemu-system-x86_64", append(all, args...)...)
	if err != nil {
		return err
	}
	said, err := os.Create(sock("qemu.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if g.options.Terminal {
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	}
	g.mu.Lock()
	g.said = len(g.Console())
	g.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start QEMU: %w", err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{}), waits: map[string]chan wire.Message{}}
	go func() { cmd.Wait(); close(p.ended) }()
	dial := func(name string) (c net.Conn, err error) {
		for {
			if c, err = net.Dial("unix", sock(name)); err == nil {
				return c, nil
			}
			select {
			case <-p.ended:
				text, _ := os.ReadFile(sock("qemu.log"))
				return nil, fmt.Errorf("QEMU ended at once: %s", strings.TrimSpace(string(text)))
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	fail := func(err error) error {
		cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("guest %s: %w", g.Name, err)
	}
	c, err := dial("qmp")
	if err != nil {
		return fail(err)
	}
	if p.mon, err = newMonitor(c); err != nil {
		return fail(err)
	}
	if p.agent, err = dial("agent"); err != nil {
		return fail(err)
	}
	go p.read()
	g.mu.Lock()
	g.qemu, g.boot = p, ""
	g.mu.Unlock()
	return nil
}

func (p *process) read() {
	r := bufio.NewReaderSize(p.agent, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var m wire.Message
		if json.Unmarshal(line, &m) != nil {
			continue
		}
		p.amu.Lock()
		if ch := p.waits[m.ID]; ch != nil {
			ch <- m
			delete(p.waits, m.ID)
		}
		p.amu.Unlock()
	}
}

// ErrOff is what a guest that is not running answers.
var ErrOff = errors.New("the guest is off")

func (g *Guest) process() (*process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.qemu == nil {
		return nil, fmt.Errorf("guest %s: %w", g.Name, ErrOff)
	}
	return g.qemu, nil
}

func (g *Guest) ask(ctx context.Context, m wire.Message) (wire.Message, error) {
	p, err := g.process()
	if err != nil {
		return wire.Message{}, err
	}
	m.ID = rand.Text()
	b, err := json.Marshal(m)
	if err != nil {
		return wire.Message{}, err
	}
	ch := make(chan wire.Message, 1)
	p.amu.Lock()
	p.waits[m.ID] = ch
	p.amu.Unlock()
	defer func() {
		p.amu.Lock()
		delete(p.waits, m.ID)
		p.amu.Unlock()
	}()
	// a line end first: it closes a line that a reset left half-written. A
	// guest that reads nothing takes nothing.
	p.wmu.Lock()
	if d, ok := ctx.Deadline(); ok {
		p.agent.SetWriteDeadline(d)
	} else {
		p.agent.SetWriteDeadline(time.Time{})
	}
	_, err = p.agent.Write(append(append([]byte{'\n'}, b...), '\n'))
	p.wmu.Unlock()
	if err != nil {
		return wire.Message{}, fmt.Errorf("guest %s: %w", g.Name, err)
	}
	select {
	case a := <-ch:
		if a.Fault != "" {
			return a, fmt.Errorf("guest %s: %s %s%s: %s", g.Name, m.Op, m.Path, m.Command, a.Fault)
		}
		return a, nil
	case <-p.ended:
		return wire.Message{}, fmt.Errorf("guest %s: %s: %w", g.Name, m.Op, errGone)
	case <-ctx.Done():
		return wire.Message{}, fmt.Errorf("guest %s: no answer to %s %s%s: %w", g.Name, m.Op, m.Path, m.Command, ctx.Err())
	}
}

// Result is how a command in the guest ended.
type Result struct {
	Out, Err string
	Code     int  // 128+N for signal N
	Late     bool // it did not end in its time
}

// commandTime is that of a command whose context has no deadline.
const commandTime = 5 * time.Minute

// Run gives a command to the guest's /bin/sh. An error is the lab's; a command
// that fails has a code.
func (g *Guest) Run(ctx context.Context, command string) (Result, error) {
	return g.RunInput(ctx, command, nil)
}

// RunInput is [Guest.Run] with something to read for the command.
func (g *Guest) RunInput(ctx context.Context, command string, stdin []byte) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		c, cancel := context.WithTimeout(ctx, commandTime)
		defer cancel()
		ctx = c
	}
	d, _ := ctx.Deadline()
	left := time.Until(d) - time.Second // the agent's answer comes first
	a, err := g.ask(ctx, wire.Message{Op: "exec", Command: command, Stdin: stdin, Millis: max(left, time.Second).Milliseconds()})
	return Result{string(a.Out), string(a.Err), a.Code, a.Late}, err
}

// do runs a command that has to succeed.
func (g *Guest) do(ctx context.Context, what, command string, stdin []byte) error {
	r, err := g.RunInput(ctx, command, stdin)
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	if r.Code != 0 || r.Late {
		return fmt.Errorf("cannot %s: exit code %d\n%s%s", what, r.Code, r.Out, r.Err)
	}
	return nil
}

// Push writes a file in the guest.
func (g *Guest) Push(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	_, err := g.ask(ctx, wire.Message{Op: "push", Path: path, Data: data, Mode: uint32(mode.Perm())})
	return err
}

// PushFile copies a file of this machine into the guest.
func (g *Guest) PushFile(ctx context.Context, from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return g.Push(ctx, to, b, mode)
}

// Pull reads a file of the guest.
func (g *Guest) Pull(ctx context.Context, path string) ([]byte, error) {
	a, err := g.ask(ctx, wire.Message{Op: "pull", Path: path})
	return a.Data, err
}

// Await waits until the agent of another boot than before answers, and gives
// its boot id.
func (g *Guest) Await(ctx context.Context) (string, error) {
	g.mu.Lock()
	before := g.boot
	g.mu.Unlock()
	for {
		c, cancel := context.WithTimeout(ctx, 3*time.Second)
		a, err := g.ask(c, wire.Message{Op: "ping"})
		cancel()
		switch {
		case err == nil && a.Boot != before:
			g.mu.Lock()
			g.boot = a.Boot
			g.mu.Unlock()
			return a.Boot, nil
		case errors.Is(err, errGone) || errors.Is(err, ErrOff):
			return "", err
		case g.stalled():
			return "", fmt.Errorf("guest %s: %w", g.Name, ErrStalled)
		case ctx.Err() != nil:
			return "", fmt.Errorf("guest %s: it did not come up: %w\nits console ends:\n%s", g.Name, ctx.Err(), g.consoleEnd(2000))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ErrStalled is a guest whose emulated CPU lost a timer interrupt and sleeps for
// ever: QEMU's doing, now and then, on a machine with more work than cores.
var ErrStalled = errors.New("the emulator lost a timer interrupt, and a CPU of the guest sleeps for ever")

// stalled looks at what the console said since the power came on: an earlier
// stall is over.
func (g *Guest) stalled() bool {
	g.mu.Lock()
	said := g.said
	g.mu.Unlock()
	s := g.Console()[said:]
	return strings.Contains(s[max(0, len(s)-20000):], "timer wakeup didn't happen")
}

// Settle waits for a new boot until udev and systemd are done: just after the
// agent answers, drivers may not be bound yet.
func (g *Guest) Settle(ctx context.Context) error {
	if _, err := g.Await(ctx); err != nil {
		return err
	}
	_, err := g.Run(ctx, "udevadm settle -t 120; systemctl is-system-running --wait")
	return err
}

// Reboot has the guest reboot by itself, and waits until it is settled again.
func (g *Guest) Reboot(ctx context.Context) error {
	if _, err := g.Run(ctx, "systemctl reboot --no-block"); err != nil {
		return err
	}
	return g.Settle(ctx)
}

// Reset is the reset button: what the guest's disk has not been given is lost.
func (g *Guest) Reset(ctx context.Context) error {
	_, err := g.QMP(ctx, "system_reset", nil)
	return err
}

// QMP gives QEMU one command.
func (g *Guest) QMP(ctx context.Context, command string, args map[string]any) (json.RawMessage, error) {
	p, err := g.process()
	if err != nil {
		return nil, err
	}
	return p.mon.do(ctx, command, args)
}

// Event gives what is closed when QEMU reports the event, such as RESET,
// SHUTDOWN, WATCHDOG.
func (g *Guest) Event(name string) (<-chan struct{}, error) {
	p, err := g.process()
	if err != nil {
		return nil, err
	}
	return p.mon.event(name), nil
}

// Cut is a power cut: QEMU is killed.
func (g *Guest) Cut() {
	g.mu.Lock()
	p := g.qemu
	g.qemu, g.boot = nil, ""
	g.mu.Unlock()
	if p == nil {
		return
	}
	p.cmd.Process.Kill()
	<-p.ended
	p.agent.Close()
	p.mon.c.Close()
}

// Off powers the guest off in order.
func (g *Guest) Off(ctx context.Context) error {
	p, err := g.process()
	if err != nil {
		return err
	}
	if _, err := g.Run(ctx, "systemctl poweroff --no-block"); err != nil {
		return err
	}
	select {
	case <-p.ended:
		g.Cut()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("guest %s: it did not power off: %w", g.Name, ctx.Err())
	}
}

// Wait waits until QEMU ends.
func (g *Guest) Wait() {
	if p, err := g.process(); err == nil {
		<-p.ended
	}
}

// On starts a guest that is off on the disk that it has. It comes up through
// its boot loader; call [Guest.Settle] next. A recording begins anew.
func (g *Guest) On(ctx context.Context) error { return g.power(ctx) }

// Close ends the guest and removes its directory.
func (g *Guest) Close() {
	g.Cut()
	os.RemoveAll(g.dir)
}

// ConsolePath is the file that the guest's serial console goes to.
func (g *Guest) ConsolePath() string { return filepath.Join(g.dir, "console") }

// Console is what the guest's serial console said since the guest was made.
func (g *Guest) Console() string {
	b, _ := os.ReadFile(g.ConsolePath())
	return string(b)
}

func (g *Guest) consoleEnd(n int) string {
	s := g.Console()
	return s[max(0, len(s)-n):]
}

// Dir is the guest's directory on this machine.
func (g *Guest) Dir() string { return g.dir }
