// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab/tinyguest"
)

// Flavours are the kernels of tiny guests, by Debian's names.
const (
	AMD64    = "amd64"
	ARM64    = "arm64"
	ARM64x16 = "arm64-16k" // 16 KiB pages
)

// Tiny is a tiny guest: a kernel and one program, without disk, systemd or
// boot loader. It is up and gone in a few seconds.
type Tiny struct {
	Flavour string
	Append  string   // to the kernel's command line
	Program string   // a static program of this machine to run in it
	Args    []string // the program's
	IOMMU   bool     // amd64 only: VT-d and a NIC behind it
}

// TinySaid is what a tiny guest said.
type TinySaid struct {
	Kernel  tinyguest.Kernel
	Run     *tinyguest.Run // nil without a program, or where it did not come to it
	Console string
}

// tinyCPUs are on two nodes, half each, with 3 GiB each.
const tinyCPUs = 4

// tinyTime is how long a tiny guest may take: 4 to 8 s under TCG.
const tinyTime = 2 * time.Minute

// RunTiny boots a tiny guest and waits until it is off.
func (l *Lab) RunTiny(ctx context.Context, t Tiny) (*TinySaid, error) {
	kernel, err := l.tinyKernel(t.Flavour)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hostcheck-tiny-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd, err := l.initramfs(dir, t)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		said, err := l.tinyBoot(ctx, t, dir, kernel, initrd)
		if err == nil || try == 3 || !errors.Is(err, ErrStalled) {
			return said, err
		}
		l.say("tiny guest (%s): %v; it is started again", t.Append, err)
	}
}

func (l *Lab) tinyBoot(ctx context.Context, t Tiny, dir, kernel, initrd string) (*TinySaid, error) {
	ctx, cancel := context.WithTimeout(ctx, tinyTime)
	defer cancel()
	// no_timer_check: on a busy machine the emulated timer may miss the moment in which the kernel tries it
	program, console, more := "qemu-system-x86_64", "ttyS0", "no_timer_check "
	args := []string{"-machine", "q35,hpet=off", "-cpu", "max,vendor=GenuineIntel,pdpe1gb=on,svm=off"}
	if t.Flavour != AMD64 {
		program, console, more = "qemu-system-aarch64", "ttyAMA0", ""
		args = []string{"-machine", "virt", "-cpu", "max"}
	}
	if t.IOMMU {
		args = append(args, "-device", "intel-iommu,intremap=on", "-device", "igb")
	}
	out := filepath.Join(dir, "console")
	args = append(args, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot", "-accel", accel(),
		"-smp", fmt.Sprintf("%d,sockets=2", tinyCPUs), "-m", "6G",
		"-object", "memory-backend-ram,id=m0,size=3G", "-object", "memory-backend-ram,id=m1,size=3G",
		"-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1",
		"-chardev", "file,id=console,path="+out, "-serial", "chardev:console", "-kernel", kernel, "-initrd", initrd,
		"-append", strings.TrimSpace("console="+console+" quiet panic=-1 mitigations=off "+more+t.Append))
	c, err := l.Tool(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	qemu, err := c.CombinedOutput()
	b, _ := os.ReadFile(out)
	said := &TinySaid{Console: string(b)}
	if err != nil || ctx.Err() != nil {
		if strings.Contains(said.Console, "timer wakeup didn't happen") || ctx.Err() != nil && len(said.Console) == 0 {
			return said, fmt.Errorf("tiny guest %s (%s): %w", t.Flavour, t.Append, ErrStalled)
		}
		return said, fmt.Errorf("tiny guest %s (%s): %w %s\nits console ends:\n%s", t.Flavour, t.Append, errors.Join(err, ctx.Err()), qemu, said.Console[max(0, len(said.Console)-2000):])
	}
	return said, said.parse()
}

func (s *TinySaid) parse() error {
	found := false
	for line := range strings.Lines(s.Console) {
		rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), tinyguest.Mark+" ")
		if !ok {
			continue
		}
		word, text, _ := strings.Cut(rest, " ")
		switch word {
		case "kernel":
			found = true
			if err := json.Unmarshal([]byte(text), &s.Kernel); err != nil {
				return fmt.Errorf("the tiny guest's answer is garbled: %w", err)
			}
		case "run":
			s.Run = new(tinyguest.Run)
			if err := json.Unmarshal([]byte(text), s.Run); err != nil {
				return fmt.Errorf("the tiny guest's answer is garbled: %w", err)
			}
		}
	}
	if !found {
		return fmt.Errorf("the tiny guest said nothing; its console ends:\n%s", s.Console[max(0, len(s.Console)-2000):])
	}
	return nil
}

// initramfs is a cpio archive of the agent as /init and the program.
func (l *Lab) initramfs(dir string, t Tiny) (string, error) {
	arch := t.Flavour
	if arch == ARM64x16 {
		arch = ARM64
	}
	agent, err := l.agent(arch)
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "var/lib", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	files := []string{"dev", "proc", "sys", "run", "tmp", "var", "var/lib", "etc", "init"}
	if err := copyFile(agent, filepath.Join(root, "init"), 0o755); err != nil {
		return "", err
	}
	if t.Program != "" {
		files = append(files, "run-me", "run-me.args")
		if err := copyFile(t.Program, filepath.Join(root, "run-me"), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(root, "run-me.args"), []byte(strings.Join(t.Args, "\n")+"\n"), 0o644); err != nil {
			return "", err
		}
	}
	out := filepath.Join(dir, "initrd")
	c, err := l.Tool(context.Background(), "cpio", "-o", "-H", "newc", "--quiet", "-O", out)
	if err != nil {
		return "", err
	}
	c.Dir = root
	c.Stdin = strings.NewReader(strings.Join(files, "\n") + "\n")
	_, err = output(c)
	return out, err
}

// KernelConfig is the text of the amd64 guest's /boot/config-RELEASE, for tiny
// guests of amd64 have the same kernel.
func (l *Lab) KernelConfig(flavour string) (string, error) {
	k, err := l.tinyKernel(flavour)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(k), "config"))
	return string(b), err
}

// tinyKernel is the path of a flavour's kernel.
func (l *Lab) tinyKernel(flavour string) (string, error) {
	if flavour == AMD64 {
		dir, err := l.image()
		return filepath.Join(dir, "vmlinuz"), err
	}
	flavours := []string{ARM64, ARM64x16}
	dir, err := l.layer("kernels", key(suite, strings.Join(flavours, " ")), func(dir string) error {
		run, err := apt(dir, "arm64")
		if err != nil {
			return err
		}
		if err := run("apt-get", "-qq", "update"); err != nil {
			return err
		}
		for _, f := range flavours {
			if err := unpackKernel(run, dir, f); err != nil {
				return err
			}
		}
		return os.RemoveAll(filepath.Join(dir, "apt"))
	})
	return filepath.Join(dir, flavour, "vmlinuz"), err
}

// unpackKernel puts the kernel of linux-image-FLAVOUR and its configuration
// into dir/FLAVOUR.
func unpackKernel(run func(...string) error, dir, flavour string) error {
	if err := run("sh", "-c", `apt-get -qq download "$(apt-cache depends "linux-image-$1" | awk '/Depends:/ { print $2; exit }')"`, "sh", flavour); err != nil {
		return err
	}
	deb, _ := filepath.Glob(filepath.Join(dir, "apt/linux-image-*.deb"))
	if len(deb) != 1 {
		return fmt.Errorf("no kernel linux-image-%s in %s", flavour, suite)
	}
	to := filepath.Join(dir, flavour)
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	if _, err := output(exec.Command("sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -xC "$2" --strip-components=2 --wildcards './boot/vmlinuz-*' './boot/config-*'`, "sh", deb[0], to)); err != nil {
		return err
	}
	for _, name := range []string{"vmlinuz", "config"} {
		m, _ := filepath.Glob(filepath.Join(to, name+"-*"))
		if len(m) != 1 {
			return fmt.Errorf("no %s in linux-image-%s", name, flavour)
		}
		if err := os.Rename(m[0], filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return os.Remove(deb[0])
}
