// SPDX-License-Identifier: Apache-2.0

//go:build root

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/bench"
)

// spaces gives the network namespaces of all processes, and this host's
// interfaces.
func spaces(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*/ns/net")
	for _, p := range tasks {
		if ns, err := os.Readlink(p); err == nil && !slices.Contains(all, ns) {
			all = append(all, ns)
		}
	}
	slices.Sort(all)
	return all
}

// TestRootBench measures for a moment, then longer and is stopped: by SIGINT
// it tells so, and in any way it leaves no namespace and no interface.
func TestRootBench(t *testing.T) {
	before := spaces(t)
	clean := func(when string) {
		t.Helper()
		for range 100 {
			left := slices.DeleteFunc(spaces(t), func(s string) bool { return slices.Contains(before, s) })
			if len(left) == 0 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%s: left behind: %q", when, spaces(t))
	}
	plot := filepath.Join(t.TempDir(), "plot.svg")
	out, errs, code := hostcheck(t, nil, "bench", "vxlan", "--duration", "100ms", "--streams", "2", "-f", "json", "--plot", plot)
	if strings.Contains(errs, "cannot make a") {
		t.Skipf("skipped: %s", errs)
	}
	var v bench.VXLAN
	if code != 0 || json.Unmarshal([]byte(out), &v) != nil || v.Schema != bench.VXLANSchema || len(v.Runs) != 8 || strings.Count(errs, "run ") != 8 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if b, err := os.ReadFile(plot); err != nil || xml.Unmarshal(b, new(struct{})) != nil || !bytes.HasPrefix(b, []byte("<svg")) {
		t.Errorf("the plot: %v %s", err, b)
	}
	clean("ended by itself")
	for _, n := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		c := command(t, nil, "bench", "vxlan", "--duration", "1m")
		var said bytes.Buffer
		c.Stderr = &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for range 200 { // until it has made them
			if made := slices.DeleteFunc(spaces(t), func(s string) bool { return slices.Contains(before, s) }); len(made) == 2 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := c.Process.Signal(n); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := c.Wait(); err == nil || errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%v: %v", n, err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%v: it took %v to stop", n, d)
		}
		if n != syscall.SIGKILL && (c.ProcessState.ExitCode() != 128+int(n) || !strings.Contains(said.String(), "interrupted after 0 of 8 runs")) {
			t.Errorf("%v: exit %d: %s", n, c.ProcessState.ExitCode(), said.String())
		}
		clean(n.String())
	}
}
