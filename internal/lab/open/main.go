// SPDX-License-Identifier: Apache-2.0

// Command open gives a person a guest of the lab on this terminal, with
// hostcheck and the lab's kernel modules installed ("make lab"). Log in as
// root, without a password; ctrl-a x ends the guest, ctrl-a c is QEMU's monitor.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hostcheck/hostcheck/internal/lab"
)

func main() {
	var o lab.Options
	flag.BoolVar(&o.UEFI, "uefi", false, "the guest with systemd-boot")
	flag.BoolVar(&o.Watchdog, "watchdog", false, "with a watchdog that resets the guest")
	flag.BoolVar(&o.Bare, "bare", false, "without NICs, switch and bridge")
	flag.Parse()
	if err := open(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(o lab.Options) error {
	ctx := context.Background()
	l, err := lab.Open(os.Stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hostcheck-open-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "hostcheck")
	c := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	c.Dir, c.Stderr = l.Source(), os.Stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := c.Run(); err != nil {
		return fmt.Errorf("cannot build hostcheck: %w", err)
	}
	o.Name, o.Terminal = "lab", true
	start := l.Settled
	if o.UEFI || o.Watchdog || o.Bare {
		start = l.Boot
	}
	g, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.PushFile(ctx, program, "/usr/local/sbin/hostcheck", 0o755); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\r\nlab: the guest is up: press enter and log in as root; modules are in %s; ctrl-a x ends it\r\n", lab.ModulesDir)
	g.Wait()
	return nil
}
