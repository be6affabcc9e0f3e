// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// ErrOffline is what a setting of a running kernel gives in a directory tree.
var ErrOffline = errors.New("a directory tree has no running kernel")

// Machine stands in for the running kernel, so that a tree can play a live
// machine in tests. Functions given to [Tx.Call] run as they are.
type Machine struct {
	Knob  func(path, text string) error                            // in place of write(2)
	Run   func(ctx context.Context, argv []string) ([]byte, error) // in place of a process
	Limit time.Duration                                            // how long a call may take; 0: as on a live machine
}

// KernelTime is how long the kernel may take over one write or call, unless a
// driver knows that it needs longer: see [Tx.Patient].
const KernelTime = 30 * time.Second

// HungError is a write or call that the kernel has not answered. Nobody can
// take it back: it may still be made, or never end.
type HungError struct{ After time.Duration }

func (e *HungError) Error() string {
	return fmt.Sprintf("the kernel has not answered for %v and may still be at it; dmesg may tell what it waits for, and \"hostcheck undo\" goes on once it answers", e.After)
}

// Tx is one transaction in progress, and the only way for a driver to change
// the host. Each method is refused once the context of the transaction ends,
// so that a signal stops between two writes; putting back is never stopped so.
type Tx struct {
	ctx     context.Context
	tree    tree
	log     *log
	machine *Machine
	back    bool          // putting back
	self    string        // the running hostcheck
	limit   time.Duration // of one call of the kernel; 0: KernelTime
}

// Patient is tx for calls that may take longer than [KernelTime].
func (tx *Tx) Patient(limit time.Duration) *Tx {
	t := *tx
	t.limit = limit
	return &t
}

// within waits for call as long as it may take. A call that hangs in the
// kernel cannot be ended; it is left behind, and nothing more is written.
func (tx *Tx) within(call func() error) error {
	limit := cmp.Or(tx.limit, KernelTime)
	if tx.machine != nil && tx.machine.Limit > 0 {
		limit = tx.machine.Limit
	}
	done := make(chan error, 1)
	go func() { done <- guard(call) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return &HungError{limit}
	}
}

func (tx *Tx) ready(what string) error {
	if err := tx.ctx.Err(); err != nil {
		return fmt.Errorf("stopped before it could %s: %w", what, context.Cause(tx.ctx))
	}
	return nil
}

func (tx *Tx) kernel(what string) error {
	if err := tx.ready(what); err != nil {
		return err
	}
	if tx.Offline() {
		return fmt.Errorf("cannot %s: %w", what, ErrOffline)
	}
	return nil
}

// Host gives a reader that has read nothing yet, for a driver that must look
// before it sets. The caller closes it.
func (tx *Tx) Host() (*host.Host, error) { return host.Open(tx.tree.root, host.Options{}) }

// tempName is fixed by file and transaction, so that undo finds what a killed
// run left; no reader of a configuration directory takes such a name.
func tempName(p, id string) string { return "." + path.Base(p) + ".hostcheck-" + id }

// ReplaceFile makes the file p hold v, at once: a reader sees the old or the
// new file. Absent removes it. Owner, mode and extended attributes stay, and
// come back with a file that is put back; a new one gets mode. p must be the
// target of a "file" change of the plan and hold what the plan says it does.
func (tx *Tx) ReplaceFile(p string, v Value, mode fs.FileMode) error {
	t := tx.log.txn
	i := slices.IndexFunc(t.Plan.Changes, func(c Change) bool { return c.Kind == KindFile && c.Target == p })
	if i < 0 || !clean(p) {
		return fmt.Errorf("cannot replace %s: it is not a file of the plan", p)
	}
	if err := tx.ready("replace " + p); err != nil {
		return err
	}
	if v.Present {
		announce := func(p string) error { return tx.log.append(record{Op: opMkdir, Path: p}) }
		if tx.back {
			announce = func(string) error { return nil }
		}
		if err := tx.tree.makeDir(path.Dir(p), 0o755, announce); err != nil {
			return err
		}
	}
	d, base, err := tx.tree.parent(p)
	if !v.Present && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	was, now, err := load(d, base)
	if err != nil {
		return fmt.Errorf("cannot replace %s: %w", p, err)
	}
	before, saved := t.images[p]
	switch {
	case !tx.back && !saved: // first touch
		if was != t.Plan.Changes[i].Before {
			return fmt.Errorf("cannot replace %s: it changed a moment ago", p)
		}
		r := record{Op: opImage, Path: p}
		if was.Present {
			r.Meta = &now
		}
		if err := tx.log.append(r); err != nil {
			return err
		}
	case tx.back && was.Present && !t.wrote(p, was): // only with force
		if err := tx.log.append(record{Op: opOverwrite, Path: p, Data: []byte(was.Text), Meta: &now}); err != nil {
			return err
		}
	}
	if !v.Present {
		return tx.tree.removeFile(p)
	}
	m := meta{Mode: uint32(mode.Perm()), UID: os.Geteuid(), GID: os.Getegid()}
	if was.Present {
		m = now
	}
	if tx.back && before != nil {
		m = *before
	}
	return tx.tree.store(d, p, tempName(p, t.ID), v.Text, m)
}

// Offline reports whether a directory tree is changed, which no kernel runs.
func (tx *Tx) Offline() bool { return !tx.tree.live() && tx.machine == nil }

// Undoing reports whether a transaction is taken back.
func (tx *Tx) Undoing() bool { return tx.back }

// Link makes p a symbolic link to a path, or for to "" removes the link p, and a
// directory of links such as x.wants that is empty then. Where systemd runs,
// systemctl does it; this is for a tree.
func (tx *Tx) Link(p, to string) error {
	if err := tx.ready("link " + p); err != nil {
		return err
	}
	if !clean(p) || !tx.Offline() {
		return fmt.Errorf("cannot link %s: it is not in a directory tree", p)
	}
	if to == "" {
		if err := tx.tree.removeFile(p); err != nil {
			return err
		}
		if !slices.Contains([]string{".wants", ".requires", ".upholds"}, path.Ext(path.Dir(p))) {
			return nil
		}
		return tx.tree.removeDir(path.Dir(p))
	}
	if err := tx.tree.makeDir(path.Dir(p), 0o755, func(string) error { return nil }); err != nil {
		return err
	}
	d, base, err := tx.tree.parent(p)
	if err != nil {
		return err
	}
	defer d.Close()
	if now, err := d.Readlink(base); err == nil && now == to {
		return nil
	}
	if err := tx.tree.do("link "+p+" to "+to, func() error { return d.Symlink(to, base) }); err != nil {
		return err
	}
	return tx.tree.syncDir(d, path.Dir(p))
}

// WriteKnob writes text to a file of the kernel below /proc or /sys with one
// write(2). The error says when the kernel refuses the value.
func (tx *Tx) WriteKnob(p, text string) error {
	what := fmt.Sprintf("write %q to %s", text, p)
	if err := tx.kernel(what); err != nil {
		return err
	}
	if !clean(p) || !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") {
		return fmt.Errorf("cannot %s: it is not below /proc or /sys", what)
	}
	return tx.tree.do(what, func() error {
		return tx.within(func() error {
			if tx.machine != nil {
				return tx.machine.Knob(p, text)
			}
			return writeOnce(p, text)
		})
	})
}

// writeOnce neither creates nor truncates. It takes any count from the kernel:
// some drivers return more than they were given, which os.File panics on.
func writeOnce(p, text string) error {
	fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Write(fd, []byte(text))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EBUSY):
			return fmt.Errorf("the kernel refuses this value (%w)", err)
		case err != nil:
			return err
		case n < len(text):
			return fmt.Errorf("the kernel took %d of %d bytes", n, len(text))
		default:
			return nil
		}
	}
}

// Call makes one changing call that is not a file: an ioctl, a netlink
// request. name says it in words: "set rings of eth0".
func (tx *Tx) Call(name string, call func() error) error {
	if err := tx.kernel(name); err != nil {
		return err
	}
	return tx.tree.do(name, func() error { return tx.within(call) })
}

// commands are the programs that may be started, by the first path that exists.
var commands = map[string][]string{
	"bootctl":          {"/usr/bin/bootctl", "/bin/bootctl"},
	"modprobe":         {"/usr/sbin/modprobe", "/sbin/modprobe"},
	"systemctl":        {"/usr/bin/systemctl", "/bin/systemctl"},
	"udevadm":          {"/usr/bin/udevadm", "/bin/udevadm", "/sbin/udevadm"},
	"update-initramfs": {"/usr/sbin/update-initramfs"},
	"grub-mkconfig":    {"/usr/sbin/grub-mkconfig"},
}

const (
	commandTime   = 2 * time.Minute
	commandOutput = 16 << 10 // bytes kept
)

// Run starts one of the few sanctioned programs with a fixed environment and
// waits for it. What it printed goes to the journal and into the error.
func (tx *Tx) Run(argv ...string) error {
	what := "run " + strings.Join(argv, " ")
	if err := tx.kernel(what); err != nil {
		return err
	}
	if len(argv) == 0 || commands[argv[0]] == nil {
		return fmt.Errorf("cannot %s: it is not one of the programs that hostcheck starts", what)
	}
	run := func(ctx context.Context, argv []string) ([]byte, error) {
		list := commands[argv[0]]
		i := slices.IndexFunc(list, func(p string) bool { _, err := os.Stat(p); return err == nil })
		if i < 0 {
			return nil, fmt.Errorf("%s is not there", list[0])
		}
		return start(ctx, list[i], argv[1:]...)
	}
	if tx.machine != nil {
		run = tx.machine.Run
	}
	var out []byte
	err := tx.tree.do(what, func() (err error) { out, err = run(tx.ctx, argv); return err })
	text := strings.ToValidUTF8(string(out[:min(len(out), commandOutput)]), "?")
	r := record{Op: opRun, Argv: argv, Output: text}
	if err != nil {
		r.Error = err.Error()
		if s := strings.TrimSpace(text); s != "" {
			err = fmt.Errorf("%w; it says: %s", err, s)
		}
	}
	if logErr := tx.log.append(r); err == nil && !tx.back {
		err = logErr
	}
	return err
}

// start runs a program to its end or the time limit: a signal to us lets it
// finish, so that what it was doing is whole before it is put back.
func start(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end within %v", commandTime)
	}
	return out, err
}
