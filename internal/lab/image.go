// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// suite is the Debian release that tools and guest come from: the first with
// igb in QEMU and kernel 6.12.
const suite = "trixie"

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

var (
	toolPackages = []string{"qemu-system-x86", "qemu-system-arm", "qemu-utils", "e2fsprogs", "fdisk", "seabios", "ipxe-qemu", "cpio", "ovmf", "dosfstools", "mtools"}
	// what builds a module for the guest's kernel: this machine's gcc may be too old
	kbuildPackages = []string{"base-files", "bash", "coreutils", "dash", "sed", "grep", "gawk", "findutils", "make", "gcc", "libc6-dev", "linux-headers-amd64", "diffutils"}
	guestPackages  = []string{"systemd-sysv", "udev", "kmod", "initramfs-tools", "zstd", "grub-pc", "iproute2", "ethtool", "numactl", "rdma-core",
		"ibverbs-providers", "ibverbs-utils", "pciutils", "procps", "dbus", "e2fsprogs", "strace"}
)

// mirror is where Debian's packages come from: $HOSTCHECK_LAB_MIRROR, or what
// apt is configured with.
func mirror() (string, error) {
	if m := os.Getenv("HOSTCHECK_LAB_MIRROR"); m != "" {
		return m, nil
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask apt for its mirrors: %w", err)
	}
	for _, uri := range strings.Fields(string(out)) {
		if strings.HasSuffix(strings.TrimSuffix(uri, "/"), "/debian") {
			return uri, nil
		}
	}
	return "", errors.New("apt has no mirror of Debian: run apt-get update, or set HOSTCHECK_LAB_MIRROR")
}

// apt is an apt of the lab's own in dir/apt, for one architecture: the
// machine's lists and packages stay as they are.
func apt(dir, arch string) (run func(args ...string) error, err error) {
	m, err := mirror()
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "apt")
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{
		"status":       "",
		"sources.list": fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", arch, keyring, m, suite),
		"apt.conf": fmt.Sprintf("APT::Architecture %q; APT::Architectures %[1]q;\nDir::Etc::sourcelist \"%[2]s/sources.list\"; Dir::Etc::sourceparts \"-\";\n"+
			"Dir::State \"%[2]s/state\"; Dir::State::status \"%[2]s/status\"; Dir::Cache \"%[2]s/cache\";\nAPT::Sandbox::User \"root\";\nAcquire::Retries \"3\";\n", arch, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return func(args ...string) error {
		c := exec.Command(args[0], args[1:]...)
		c.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(dir, "apt.conf"))
		c.Dir = dir
		_, err := output(c)
		return err
	}, nil
}

// debootstrap unpacks Debian packages into dir/name with mmdebstrap, which is
// itself unpacked from its package.
func (l *Lab) debootstrap(dir, name, variant string, packages []string, more ...string) error {
	m, err := mirror()
	if err != nil {
		return err
	}
	boot, err := l.layer("mmdebstrap", key(suite), func(dir string) error {
		run, err := apt(dir, "amd64")
		if err != nil {
			return err
		}
		if err := run("apt-get", "-qq", "update"); err != nil {
			return err
		}
		if err := run("apt-get", "-qq", "download", "mmdebstrap"); err != nil {
			return err
		}
		deb, err := filepath.Glob(filepath.Join(dir, "apt/mmdebstrap_*.deb"))
		if err != nil || len(deb) != 1 {
			return fmt.Errorf("no package mmdebstrap in %s", suite)
		}
		_, err = output(exec.Command("dpkg", "-x", deb[0], dir))
		return err
	})
	if err != nil {
		return err
	}
	args := []string{"--quiet", "--mode=root", "--variant=" + variant, "--arch=amd64", "--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		`--aptopt=Apt::Install-Recommends "false"`, `--aptopt=Acquire::Retries "3"`, "--include=" + strings.Join(packages, ",")}
	args = append(args, more...)
	args = append(args, suite, filepath.Join(dir, name), fmt.Sprintf("deb [signed-by=%s] %s %s main", keyring, m, suite))
	c := exec.Command(filepath.Join(boot, "usr/bin/mmdebstrap"), args...)
	c.Env = append(os.Environ(), "TMPDIR="+dir, "DEBIAN_FRONTEND=noninteractive", "PATH="+filepath.Join(boot, "usr/bin")+":"+os.Getenv("PATH"))
	_, err = output(c)
	return err
}

func (l *Lab) tools() (string, error) {
	return l.layer("tools", key(suite, strings.Join(toolPackages, " ")), func(dir string) error {
		if err := l.debootstrap(dir, "tree", "extract", toolPackages); err != nil {
			return err
		}
		// the layer is the tree itself
		entries, err := os.ReadDir(filepath.Join(dir, "tree"))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := os.Rename(filepath.Join(dir, "tree", e.Name()), filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		return os.Remove(filepath.Join(dir, "tree"))
	})
}

// kbuild is a tree to chroot into, with gcc and the kernel's headers.
func (l *Lab) kbuild() (string, error) {
	return l.layer("kbuild", key(suite, strings.Join(kbuildPackages, " ")), func(dir string) error {
		if err := l.debootstrap(dir, "tree", "extract", kbuildPackages); err != nil {
			return err
		}
		root := filepath.Join(dir, "tree")
		for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
			if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		for link, to := range map[string]string{"usr/bin/awk": "gawk", "usr/bin/sh": "dash"} {
			os.Remove(filepath.Join(root, link))
			if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
			return err
		}
		null := filepath.Join(root, "dev/null")
		if _, err := os.Stat(null); err != nil {
			return unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
		}
		return nil
	})
}

// kernelOf is the release of the kernel that kbuild has the headers of.
func kernelOf(kbuild string) (string, error) {
	m, _ := filepath.Glob(filepath.Join(kbuild, "tree/usr/lib/modules/*-amd64"))
	if len(m) != 1 {
		return "", fmt.Errorf("lab: %d kernels in %s, and not one", len(m), kbuild)
	}
	return filepath.Base(m[0]), nil
}

// Modules gives the directory with the lab's own kernel modules, as laid out
// below testdata/lab/modules.
func (l *Lab) Modules() (string, error) {
	kb, err := l.kbuild()
	if err != nil {
		return "", err
	}
	kernel, err := kernelOf(kb)
	if err != nil {
		return "", err
	}
	source, err := tree(l.file("modules"))
	if err != nil {
		return "", err
	}
	return l.layer("modules", key(kernel, source), func(dir string) error {
		work := filepath.Join(kb, "tree/src-"+filepath.Base(dir))
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := os.CopyFS(work, os.DirFS(l.file("modules"))); err != nil {
			return err
		}
		defer os.RemoveAll(work)
		c := exec.Command("chroot", filepath.Join(kb, "tree"), "/usr/bin/make", "-s", "-C", "/lib/modules/"+kernel+"/build", "M=/"+filepath.Base(work), "modules")
		c.Env = []string{"PATH=/usr/bin:/usr/sbin", "HOME=/"}
		if _, err := output(c); err != nil {
			return err
		}
		return filepath.WalkDir(work, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(p) != ".ko" {
				return err
			}
			rel, _ := filepath.Rel(work, p)
			to := filepath.Join(dir, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return copyFile(p, to, 0o644)
		})
	})
}

// agent builds the program that serves in guests.
func (l *Lab) agent(arch string) (string, error) {
	dir, err := l.layer("agent", key(arch, l.agentSource()), func(dir string) error {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "agent"), "./internal/lab/agent")
		c.Dir = l.source
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		_, err := output(c)
		return err
	})
	return filepath.Join(dir, "agent"), err
}

func (l *Lab) agentSource() string {
	var all []string
	for _, d := range []string{"agent", "wire", "tinyguest"} {
		s, _ := tree(filepath.Join(l.source, "internal/lab", d))
		all = append(all, s)
	}
	return strings.Join(all, "")
}

// diskSize is that of the guest's disk; its only partition begins at
// [firstSector].
const (
	diskSize    = 2 << 30
	firstSector = 2048
	sectorSize  = 512
)

// image makes the guest's disk, and beside it the kernel and initramfs that
// are on it. Where the mirror has a newer kernel by now than the headers that
// are here, these are had anew.
func (l *Lab) image() (string, error) {
	dir, err := l.imageOnce()
	if err != nil && (strings.Contains(err.Error(), "Unable to locate package linux-image-") || strings.Contains(err.Error(), "no installation candidate")) {
		kb, kerr := l.kbuild()
		if kerr != nil {
			return "", kerr
		}
		l.say("the mirror has another kernel by now: kbuild is made anew")
		if kerr := os.RemoveAll(kb); kerr != nil {
			return "", kerr
		}
		return l.imageOnce()
	}
	return dir, err
}

func (l *Lab) imageOnce() (string, error) {
	guest, err := tree(l.file("guest"))
	if err != nil {
		return "", err
	}
	kb, err := l.kbuild()
	if err != nil {
		return "", err
	}
	toolsDir, err := l.tools()
	if err != nil {
		return "", err
	}
	kernel, err := kernelOf(kb)
	if err != nil {
		return "", err
	}
	return l.layer("image", key(toolsDir, kernel, guest, l.agentSource(), strings.Join(guestPackages, " ")), func(dir string) error {
		agent, err := l.agent("amd64")
		if err != nil {
			return err
		}
		hook := func(name string) string {
			return fmt.Sprintf("HERE=%s AGENT=%s %s \"$1\"", l.file("guest"), agent, l.file("guest/"+name))
		}
		err = l.debootstrap(dir, "tree", "minbase", append([]string{"linux-image-" + kernel}, guestPackages...),
			"--essential-hook="+hook("essential.sh"), "--customize-hook="+hook("customize.sh"))
		if err != nil {
			return err
		}
		root := filepath.Join(dir, "tree")
		for from, to := range map[string]string{"vmlinuz-": "vmlinuz", "initrd.img-": "initrd", "config-": "config"} {
			if err := copyFile(filepath.Join(root, "boot", from+kernel), filepath.Join(dir, to), 0o644); err != nil {
				return err
			}
		}
		disk := filepath.Join(dir, "disk.raw")
		if err := l.partition(disk, fmt.Sprintf("label: dos\n%d,,L,*\n", firstSector), diskSize); err != nil {
			return err
		}
		if _, err := l.toolOutput("mke2fs", "-q", "-t", "ext4", "-L", "labroot", "-d", root,
			"-E", fmt.Sprintf("offset=%d,lazy_itable_init=0", firstSector*sectorSize), disk, fmt.Sprint((diskSize-firstSector*sectorSize)/1024)+"K"); err != nil {
			return err
		}
		if err := os.RemoveAll(root); err != nil {
			return err
		}
		return l.provision(dir, disk)
	})
}

// partition makes an empty disk of that many bytes with a table, sfdisk(8).
func (l *Lab) partition(disk, table string, size int64) error {
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	c, err := l.Tool(context.Background(), "sfdisk", "-q", disk)
	if err != nil {
		return err
	}
	c.Stdin = strings.NewReader(table)
	_, err = output(c)
	return err
}

// provision boots the disk once without a boot loader, and the guest installs
// GRUB on its own disk, as a real host would.
func (l *Lab) provision(dir, disk string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	g, err := l.guest(Options{Name: "first"})
	if err != nil {
		return err
	}
	defer g.Close()
	g.disk = drive{disk, "raw"}
	err = g.power(ctx, "-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"), "-append", "root=/dev/vda1 console=ttyS0 quiet mitigations=off no_timer_check")
	if err != nil {
		return err
	}
	if err := g.Settle(ctx); err != nil {
		return err
	}
	if err := g.do(ctx, "install GRUB in the guest", "grub-install /dev/vda && update-grub && sync", nil); err != nil {
		return err
	}
	return g.Off(ctx)
}
