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
)

// firmware is what a guest with UEFI needs besides: OVMF, and variables that
// are its own and outlive a reboot.
func (g *Guest) firmware() ([]string, error) {
	if !g.options.UEFI {
		return nil, nil
	}
	tools, err := g.lab.tools()
	if err != nil {
		return nil, err
	}
	base, err := g.lab.uefi()
	if err != nil {
		return nil, err
	}
	vars := filepath.Join(g.dir, "vars.fd")
	if _, err := os.Stat(vars); errors.Is(err, os.ErrNotExist) {
		if err := copyFile(filepath.Join(base, "vars.fd"), vars, 0o600); err != nil {
			return nil, err
		}
	}
	return flash(tools, vars), nil
}

func flash(tools, vars string) []string {
	return []string{
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + filepath.Join(tools, "usr/share/OVMF/OVMF_CODE_4M.fd"),
		"-drive", "if=pflash,format=raw,unit=1,file=" + vars,
	}
}

// The disk of the guest with systemd-boot: the first partition is the EFI
// system partition, the second the root file system.
const (
	espSectors   = 400 << 11 // 400 MiB
	rootSector   = firstSector + espSectors
	espPartition = "U" // sfdisk's shortcut
)

// uefi is the layer with the disk that systemd-boot boots: the image's own root
// file system, and an EFI system partition that the guest's own kernel-install
// and bootctl filled.
func (l *Lab) uefi() (string, error) {
	image, err := l.image()
	if err != nil {
		return "", err
	}
	setup, err := os.ReadFile(l.file("uefi/setup.sh"))
	if err != nil {
		return "", err
	}
	tools, err := l.tools()
	if err != nil {
		return "", err
	}
	boot, err := l.bootPackages()
	if err != nil {
		return "", err
	}
	modules, err := l.Modules()
	if err != nil {
		return "", err
	}
	return l.layer("uefi", key(image, tools, modules, boot, string(setup), strings.Join(machine(Options{}), " ")), func(dir string) error {
		raw := filepath.Join(dir, "disk.raw")
		table := fmt.Sprintf("label: gpt\n%d,%d,%s\n%d,,L\n", firstSector, espSectors, espPartition, rootSector)
		if err := l.partition(raw, table, diskSize+espSectors*sectorSize+1<<20); err != nil {
			return err
		}
		if _, err := l.toolOutput("mkfs.vfat", "-F", "32", "-n", "ESP", "--offset", fmt.Sprint(firstSector), raw, fmt.Sprint(espSectors/2)); err != nil {
			return err
		}
		if _, err := output(exec.Command("dd", "if="+filepath.Join(image, "disk.raw"), "of="+raw, "bs=1M", fmt.Sprintf("skip=%d", firstSector*sectorSize>>20),
			fmt.Sprintf("seek=%d", rootSector*sectorSize>>20), "conv=sparse,notrunc", "status=none")); err != nil {
			return err
		}
		vars := filepath.Join(dir, "vars.fd")
		if err := copyFile(filepath.Join(tools, "usr/share/OVMF/OVMF_VARS_4M.fd"), vars, 0o600); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), bootTime)
		defer cancel()
		// the first boot is the firmware's, but with a kernel from outside, as there is no boot loader yet
		g, err := l.guest(Options{Name: "first-uefi"})
		if err != nil {
			return err
		}
		defer g.Close()
		g.disk = drive{raw, "raw"}
		err = g.power(ctx, append(flash(tools, vars), "-kernel", filepath.Join(image, "vmlinuz"), "-initrd", filepath.Join(image, "initrd"),
			"-append", "root=LABEL=labroot console=ttyS0 quiet mitigations=off no_timer_check")...)
		if err != nil {
			return err
		}
		if err := g.Settle(ctx); err != nil {
			return err
		}
		debs, _ := filepath.Glob(filepath.Join(boot, "*.deb"))
		for _, deb := range debs {
			if err := g.PushFile(ctx, deb, "/var/tmp/"+filepath.Base(deb), 0o644); err != nil {
				return err
			}
		}
		if err := g.pushModules(ctx, modules); err != nil {
			return err
		}
		if err := g.do(ctx, "install systemd-boot in the guest", "sh -eux", setup); err != nil {
			return err
		}
		if err := g.Off(ctx); err != nil {
			return err
		}
		if _, err := l.toolOutput("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(dir, "disk.qcow2")); err != nil {
			return err
		}
		return os.Remove(raw)
	})
}

// bootPackages are those that the guest gets for systemd-boot and that the
// image does not have, since the two boot loaders keep out of each other's way.
func (l *Lab) bootPackages() (string, error) {
	packages := []string{"systemd-boot", "systemd-boot-efi", "systemd-boot-tools", "dosfstools"}
	return l.layer("systemd-boot", key(suite, strings.Join(packages, " ")), func(dir string) error {
		run, err := apt(dir, "amd64")
		if err != nil {
			return err
		}
		if err := run("apt-get", "-qq", "update"); err != nil {
			return err
		}
		if err := run(append([]string{"apt-get", "-qq", "download"}, packages...)...); err != nil {
			return err
		}
		if err := run("sh", "-c", "mv *.deb .."); err != nil {
			return err
		}
		return os.RemoveAll(filepath.Join(dir, "apt"))
	})
}
