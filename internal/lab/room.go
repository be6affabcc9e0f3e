// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programPackages are the engines that run hostcheck on many hosts, and what
// tests need beside them.
var programPackages = []string{"slurmctld", "slurmd", "slurm-client", "munge", "ansible-core", "prometheus", "prometheus-node-exporter",
	"nagios4-core", "monitoring-plugins-basic", "clustershell", "pdsh", "jq", "curl", "iproute2", "procps", "ethtool", "python3", "openssh-server"}

// programs is a tree of Debian with the engines, configured, none of them
// started. It is mounted under rooms and never written to.
func (l *Lab) programs() (string, error) {
	dir, err := l.layer("programs", key(suite, strings.Join(programPackages, " ")), func(dir string) error {
		return l.debootstrap(dir, "tree", "essential", programPackages)
	})
	return filepath.Join(dir, "tree"), err
}

// House is a network that leads nowhere, and the rooms on it.
type House struct {
	lab   *Lab
	dir   string // of the house; a tmpfs per room is mounted below it, in the room only
	tree  string
	over  string // what every room has on top of the tree
	net   *exec.Cmd
	rooms int
}

// Room is a host to the programs in it: its own mounts, network, processes,
// host name and IPC over the running kernel. What it writes is in memory and
// goes with it. /sys is read only, and of /proc/sys all but net: the rest is
// the machine's.
type Room struct {
	Name    string
	Address string // on the house's network, "10.77.0.1"

	house *House
	init  *exec.Cmd
	pid   int // of its first process, as the machine counts
}

// House makes an empty one. files are put into each room: a path there to a
// file here.
func (l *Lab) House(ctx context.Context, files map[string]string) (*House, error) {
	for _, need := range []string{"unshare", "nsenter", "ip", "mount"} {
		if _, err := exec.LookPath(need); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed", ErrUnavailable, need)
		}
	}
	tree, err := l.programs()
	if err != nil {
		return nil, err
	}
	h := &House{lab: l, tree: tree}
	if h.dir, err = os.MkdirTemp("", "hostcheck-house-"); err != nil {
		return nil, err
	}
	h.over = filepath.Join(h.dir, "over")
	for to, from := range files {
		to = filepath.Join(h.over, to)
		if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = copyFile(from, to, 0o755)
		}
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("lab: cannot furnish rooms: %w", err)
		}
	}
	if h.net, err = first(exec.Command("unshare", "--net", "sh", "-c",
		"ip link add house type bridge && ip link set house up && echo ready && exec sleep infinity")); err != nil {
		h.Close()
		return nil, fmt.Errorf("lab: cannot make a network: %w", err)
	}
	return h, nil
}

// first starts a command that says "ready", which then lives as long as this
// process.
func first(c *exec.Cmd) (*exec.Cmd, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		err := c.Wait()
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return c, nil
}

// furnish makes the root of a room and becomes its first process, which reaps
// what others leave. $1: the tree, $2: what lies on top, $3: a directory.
const furnish = `set -e
mount -t tmpfs -o mode=0755 room "$3"
mkdir "$3/upper" "$3/work" "$3/root" "$3/net"
mount -t overlay -o "lowerdir=$2:$1,upperdir=$3/upper,workdir=$3/work" room "$3/root"
cd "$3/root"
mount -t proc proc proc
mount -t proc proc ../net
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind ../net/sys/net proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=0755 dev dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=0755 run run
mkdir -p .old
pivot_root . .old
umount -l /.old
ip link set lo up
echo ready
exec 0</dev/null
while :; do sleep 1000 & wait; done
`

// Room adds a host of that name. Names of earlier rooms, and of this one, are
// in each one's /etc/hosts.
func (h *House) Room(ctx context.Context, name string) (*Room, error) {
	h.rooms++
	r := &Room{Name: name, Address: fmt.Sprintf("10.77.0.%d", h.rooms), house: h}
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(h.over, 0o755); err != nil {
		return nil, err
	}
	var err error
	r.init, err = first(exec.Command("unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private",
		"sh", "-c", furnish, "room", h.tree, h.over, dir))
	if err != nil {
		return nil, fmt.Errorf("lab: cannot make the room %s: %w", name, err)
	}
	if r.pid, err = child(r.init.Process.Pid); err != nil {
		r.Close()
		return nil, err
	}
	// the kernel's limit of an interface's name is 15
	outer := fmt.Sprintf("room%d", h.rooms)
	for _, step := range []string{
		fmt.Sprintf("nsenter -t %d -n ip link add %s type veth peer name eth0 netns %d", h.net.Process.Pid, outer, r.pid),
		fmt.Sprintf("nsenter -t %d -n ip link set %s master house up", h.net.Process.Pid, outer),
		fmt.Sprintf("nsenter -t %d -n ip addr add %s/24 dev eth0", r.pid, r.Address),
		fmt.Sprintf("nsenter -t %d -n ip link set eth0 up", r.pid),
		fmt.Sprintf("nsenter -t %d -u hostname %s", r.pid, name),
	} {
		if _, err := output(exec.CommandContext(ctx, "sh", "-c", step)); err != nil {
			r.Close()
			return nil, fmt.Errorf("lab: cannot connect the room %s: %w", name, err)
		}
	}
	if res, err := r.Run(ctx, fmt.Sprintf("echo %s >/etc/hostname; printf '127.0.0.1 localhost\n' >/etc/hosts", name)); err != nil || res.Code != 0 {
		r.Close()
		return nil, errors.Join(err, fmt.Errorf("lab: cannot name the room %s: %s", name, res.Err))
	}
	return r, nil
}

// child is the one child of a process.
func child(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return 0, fmt.Errorf("lab: cannot find the first process of a room: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("lab: %q is not the one first process of a room", b)
	}
	return n, nil
}

// Acquaint puts the rooms into each other's /etc/hosts.
func Acquaint(ctx context.Context, rooms ...*Room) error {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for _, r := range rooms {
		fmt.Fprintf(&hosts, "%s %s\n", r.Address, r.Name)
	}
	for _, r := range rooms {
		if err := r.Push(ctx, "/etc/hosts", []byte(hosts.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command is one for /bin/sh in the room, as root, with a plain environment.
func (r *Room) command(ctx context.Context, command string) *exec.Cmd {
	c := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(r.pid), "-m", "-u", "-i", "-n", "-p", "--root", "--wd", "/bin/sh", "-c", command)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=dumb"}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // a daemon that it started may hold the pipes
	return c
}

// Run gives a command to the room's /bin/sh. An error is the lab's; a command
// that fails has a code. What it leaves running in the background lives on.
func (r *Room) Run(ctx context.Context, command string) (Result, error) {
	return r.RunInput(ctx, command, nil)
}

// RunInput is [Room.Run] with standard input.
func (r *Room) RunInput(ctx context.Context, command string, stdin []byte) (Result, error) {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	c := r.command(ctx, command)
	var out, said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &said
	err := c.Run()
	res := Result{Out: out.String(), Err: said.String(), Late: ctx.Err() != nil}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		res.Code = exit.ExitCode()
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			res.Code = 128 + int(s.Signal())
		}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return res, fmt.Errorf("lab: room %s: %w", r.Name, err)
	}
	return res, nil
}

// Start runs a program in the room until the room is closed; what it says is
// in the room's file log.
func (r *Room) Start(ctx context.Context, command, log string) error {
	res, err := r.Run(ctx, fmt.Sprintf("exec 0</dev/null >%s 2>&1; setsid sh -c '%s' &", log, strings.ReplaceAll(command, "'", `'\''`)))
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("lab: room %s: cannot start %s: %s", r.Name, command, res.Err)
	}
	return err
}

// Push writes a file into the room, with the directories above it.
func (r *Room) Push(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	res, err := r.RunInput(ctx, fmt.Sprintf("mkdir -p '%s' && cat >'%s' && chmod %o '%[2]s'", filepath.Dir(path), path, mode), data)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("lab: room %s: cannot write %s: %s", r.Name, path, res.Err)
	}
	return err
}

// Until runs a command again and again until it ends with code 0, or ctx does.
func (r *Room) Until(ctx context.Context, command string) (Result, error) {
	for {
		res, err := r.Run(ctx, command)
		if err != nil || res.Code == 0 {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, fmt.Errorf("lab: room %s: until the time was over, exit code %d of: %s\n%s%s", r.Name, res.Code, command, res.Out, res.Err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Close ends the room, with all that runs in it.
func (r *Room) Close() { end(r.init) }

// Close ends the network and removes the house's files. The rooms go first.
func (h *House) Close() {
	end(h.net)
	os.RemoveAll(h.dir)
}

func end(c *exec.Cmd) {
	if c != nil {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	}
}
