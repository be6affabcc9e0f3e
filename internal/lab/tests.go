// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Main is TestMain of a package of scenarios: it opens the lab, has ready make
// what they need in a directory that goes with them, runs them, and gives the
// exit code. Where there is no lab, all are skipped in one line; with
// $HOSTCHECK_LAB_REQUIRED that is a failure.
func Main(m interface{ Run() int }, scenarios string, ready func(l *Lab, dir string) error) int {
	l, err := Open(os.Stderr)
	if errors.Is(err, ErrUnavailable) {
		fmt.Printf("skipping all %s: %v\n", scenarios, err)
		if os.Getenv("HOSTCHECK_LAB_REQUIRED") != "" {
			return 1
		}
		return 0
	}
	dir := ""
	if err == nil {
		dir, err = os.MkdirTemp("", "hostcheck-e2e-")
		defer os.RemoveAll(dir)
	}
	if err == nil {
		err = ready(l, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Hostcheck builds the static binary for an architecture.
func (l *Lab) Hostcheck(file, arch string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	c.Dir = l.source
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build hostcheck for %s: %w\n%s", arch, err, out)
	}
	return nil
}
