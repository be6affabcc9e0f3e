// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CallTime is how long one scontrol may take. Slurm's own limit of a health
// check, 60 s, must hold two of them and the checks.
const CallTime = 10 * time.Second

// maxOutput bounds what is kept of what scontrol says, in bytes.
const maxOutput = 256 << 10

// Scontrol is Slurm's own tool, the only program that is run here.
type Scontrol struct {
	Program string        // absolute
	Conf    string        // SLURM_CONF; "": Slurm's default
	Limit   time.Duration // of a call
}

// places are where scontrol is looked for.
var places = []string{"/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin", "/opt/slurm/current/bin"}

// Find gives the scontrol to run: the one that is named, that of the
// installation whose slurmd started us, or the first of the usual places. It is
// run as root, so nobody else may be able to change it.
func Find(named string, d *Slurmd) (string, error) {
	if named != "" {
		if !filepath.IsAbs(named) {
			return "", fmt.Errorf("--scontrol needs an absolute path, not %s", named)
		}
		return named, trusted(named)
	}
	dirs := places
	if d != nil && d.Program != "" {
		dirs = append([]string{path.Join(path.Dir(d.Program), "../bin")}, dirs...)
	}
	for _, dir := range dirs {
		p := path.Join(dir, "scontrol")
		switch err := trusted(p); {
		case err == nil:
			return p, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return "", err
		}
	}
	return "", fmt.Errorf("there is no scontrol in %s; --scontrol FILE says where it is", strings.Join(dirs, ", "))
}

// trusted says who besides root and ourselves could change what p holds, or
// make it lead elsewhere: it looks at p, at all directories above it, and at
// where links lead. In a sticky directory nobody can replace what is not theirs.
func trusted(p string) error {
	todo := strings.Split(strings.TrimPrefix(path.Clean(p), "/"), "/")
	at := "/"
	for links := 0; ; {
		st, err := os.Lstat(at)
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("cannot tell whose %s is", at)
		}
		sticky := st.IsDir() && st.Mode()&fs.ModeSticky != 0
		switch {
		case sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
			return fmt.Errorf("%s is not to be trusted: it belongs to user %d", at, sys.Uid)
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			if links++; err == nil && links > 40 {
				err = &fs.PathError{Op: "readlink", Path: p, Err: syscall.ELOOP}
			}
			if err != nil {
				return err
			}
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(at), to)
			}
			todo = append(strings.Split(strings.TrimPrefix(path.Clean(to), "/"), "/"), todo...)
			at = "/"
			continue
		case st.Mode()&0o022 != 0 && !sticky:
			return fmt.Errorf("%s is not to be trusted: others than its owner may write to it (mode %04o)", at, st.Mode().Perm())
		}
		if len(todo) == 0 || todo[0] == "" {
			return nil
		}
		at, todo = path.Join(at, todo[0]), todo[1:]
	}
}

// Show asks the controller for a node.
func (s *Scontrol) Show(ctx context.Context, node string) (*Node, error) {
	if err := CheckName(node); err != nil {
		return nil, err
	}
	out, err := s.call(ctx, "show", "node", node)
	if err != nil {
		return nil, err
	}
	return ParseNode(out, node)
}

// Tell makes a step. UNDRAIN lifts a drain and nothing else: RESUME would also
// bring back a node that went down meanwhile, or cancel its reboot.
func (s *Scontrol) Tell(ctx context.Context, node string, step Step) error {
	if err := CheckName(node); err != nil {
		return err
	}
	state := map[Action]string{Drain: "DRAIN", Resume: "UNDRAIN"}[step.Action]
	if state == "" {
		return nil
	}
	_, err := s.call(ctx, "update", "NodeName="+node, "State="+state, "Reason="+step.Reason)
	return err
}

// call runs scontrol. Where it does not end in time it is killed, and where
// even that hangs (a program on a file system that does not answer), left
// behind.
func (s *Scontrol) call(ctx context.Context, args ...string) (string, error) {
	what := "scontrol " + args[0]
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	type answer struct {
		out string
		err error
	}
	done := make(chan answer, 1)
	go func() {
		out, err := s.run(ctx, args)
		done <- answer{out, err}
	}()
	hung := fmt.Errorf("%s did not answer within %v", what, s.Limit)
	select {
	case a := <-done:
		switch {
		case ctx.Err() != nil:
			return "", hung
		case a.err != nil && a.out != "":
			return "", fmt.Errorf("%s: %w; it says: %.300s", what, a.err, strings.Join(strings.Fields(a.out), " "))
		case a.err != nil:
			return "", fmt.Errorf("%s: %w", what, a.err)
		}
		return a.out, nil
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(2 * time.Second): // than the killed one may take to go
	}
	return "", hung
}

func (s *Scontrol) run(ctx context.Context, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, s.Program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if s.Conf != "" {
		cmd.Env = append(cmd.Env, "SLURM_CONF="+s.Conf)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, said limited
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil {
		return out.kept.String() + said.kept.String(), err
	}
	if out.full {
		return "", fmt.Errorf("it says more than %d bytes", maxOutput)
	}
	return out.kept.String(), nil
}

// limited keeps the first maxOutput bytes.
type limited struct {
	kept bytes.Buffer
	full bool
}

// Write takes everything.
func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), maxOutput-l.kept.Len())
	l.full = l.full || n < len(b)
	_, _ = l.kept.Write(b[:n])
	return len(b), nil
}

// Me is the user that Slurm shows as the owner of reasons that we set.
func Me() string {
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}
