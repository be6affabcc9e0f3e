// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/report"
)

// every starts a hostcheck that judges a sick host each second.
func every(t *testing.T) (*exec.Cmd, io.ReadCloser) {
	t.Helper()
	self, err := exec.LookPath("hostcheck")
	if err != nil {
		t.Fatal(err)
	}
	root := fixture.Load(t, "testdata/hosts/rdma-intel-sick.txtar").Root
	c := exec.CommandContext(t.Context(), self, "check", "cmdline", "--root", root, "--every", "1s", "-f", "jsonl")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, out
}

// With --every one report follows another, whatever the verdict, until a signal
// ends the process.
func TestEvery(t *testing.T) {
	c, out := every(t)
	lines := bufio.NewReader(out)
	for i := range 3 {
		line, err := lines.ReadBytes('\n')
		var r report.Report
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil || r.Summary.Exit != report.ExitFindings {
			t.Fatalf("report %d: %v, exit %d", i, err, r.Summary.Exit)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.ExitCode() != report.ExitSignal+int(syscall.SIGTERM) {
		t.Errorf("it ended with %v", err)
	}
}

// When nobody reads the reports any more, no more are made.
func TestEveryUnread(t *testing.T) {
	c, out := every(t)
	if _, err := bufio.NewReader(out).ReadBytes('\n'); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
