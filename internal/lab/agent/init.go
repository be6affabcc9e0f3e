// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/hostcheck/hostcheck/internal/lab/tinyguest"
)

// initMain is process 1 of a tiny guest: no shell, no libc, no udev. It says
// on the console what the kernel made of its command line, runs /run-me with
// the arguments of /run-me.args where there is one, and powers the guest off.
// Each thing it says is one line that begins with [tinyguest.Mark].
func initMain() {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"}} {
		os.MkdirAll(m[1], 0o755)
		syscall.Mount(m[0], m[1], m[2], 0, "")
	}
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err == nil {
		os.Stdout, os.Stderr = console, console
		// nothing of the kernel's may come between: level 1 is emergencies only
		os.WriteFile("/proc/sys/kernel/printk", []byte("1\n"), 0)
	}
	say("kernel", kernelSaid())
	if _, err := os.Stat("/run-me"); err == nil {
		say("run", runMe())
	}
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func say(what string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(err.Error())
	}
	fmt.Printf("\n%s %s %s\n", tinyguest.Mark, what, b)
}

func runMe() (r tinyguest.Run) {
	var args []string
	if b, err := os.ReadFile("/run-me.args"); err == nil {
		args = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	c := exec.Command("/run-me", args...)
	c.Env = []string{"HOME=/", "LANG=C.UTF-8"}
	out, err := c.Output()
	r.Out = string(out)
	var x *exec.ExitError
	if errors.As(err, &x) {
		r.Code, r.Err = x.ExitCode(), string(x.Stderr)
	} else if err != nil {
		r.Code, r.Err = -1, err.Error()
	}
	return r
}

func kernelSaid() tinyguest.Kernel {
	k := tinyguest.Kernel{
		Arch: runtime.GOARCH, PageSize: os.Getpagesize(),
		Release: text("/proc/sys/kernel/osrelease"), Cmdline: text("/proc/cmdline"),
		Isolated: text("/sys/devices/system/cpu/isolated"), NohzFull: text("/sys/devices/system/cpu/nohz_full"),
		CPUs: text("/sys/devices/system/cpu/present"), Possible: text("/sys/devices/system/cpu/possible"), Nodes: text("/sys/devices/system/node/online"),
		Pools: map[string]string{}, Groups: map[string]string{}, Files: map[string]string{},
	}
	for line := range strings.Lines(text("/proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "Hugepagesize:"); ok {
			k.DefaultHugepage = strings.TrimSpace(rest)
		}
	}
	for _, p := range glob("/sys/devices/system/node/node*/hugepages/hugepages-*/nr_hugepages", "/sys/kernel/mm/hugepages/hugepages-*/nr_hugepages") {
		k.Pools[p] = text(p)
	}
	for _, p := range glob("/sys/kernel/iommu_groups/*/type") {
		k.Groups[p] = text(p)
	}
	for _, p := range glob("/sys/devices/system/node/node*/cpulist", "/sys/devices/system/node/node*/meminfo", "/proc/cpuinfo") {
		k.Files[p] = text(p)
	}
	k.Log = kernelLog()
	return k
}

func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSuffix(string(b), "\n")
}

func glob(patterns ...string) (paths []string) {
	for _, p := range patterns {
		m, _ := filepath.Glob(p)
		paths = append(paths, m...)
	}
	return paths
}

// kernelLog is the whole log, syslog(2) action 3.
func kernelLog() string {
	size, err := syscall.Klogctl(10, nil)
	if err != nil {
		return ""
	}
	buf := make([]byte, size)
	n, err := syscall.Klogctl(3, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
