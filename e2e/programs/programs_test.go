// SPDX-License-Identifier: Apache-2.0

//go:build vm

// Package programs runs hostcheck through the real programs that people run
// many hosts with, in rooms of the lab: namespaces over a tree of Debian.
package programs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

var (
	theLab *lab.Lab
	binary string // hostcheck, static
)

// hostcheck is where rooms have it.
const hostcheck = "/usr/bin/hostcheck"

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, "scenarios with real programs", func(l *lab.Lab, dir string) error {
		theLab, binary = l, filepath.Join(dir, "hostcheck")
		return l.Hostcheck(binary, "amd64")
	}))
}

// limit is the deadline of one scenario.
func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// rooms gives hosts of those names, which know each other, with hostcheck
// installed.
func rooms(t *testing.T, ctx context.Context, names ...string) []*lab.Room {
	t.Helper()
	h, err := theLab.House(ctx, map[string]string{hostcheck: binary})
	if err != nil {
		t.Fatalf("step \"make a house\": %v", err)
	}
	t.Cleanup(h.Close)
	var all []*lab.Room
	for _, name := range names {
		r, err := h.Room(ctx, name)
		if err != nil {
			t.Fatalf("step \"make the room %s\": %v", name, err)
		}
		t.Cleanup(r.Close)
		all = append(all, r)
	}
	if err := lab.Acquaint(ctx, all...); err != nil {
		t.Fatalf("step \"let the rooms know each other\": %v", err)
	}
	return all
}

// must runs a command in the room and wants exit code 0; it gives stdout.
func must(t *testing.T, ctx context.Context, r *lab.Room, step, command string) string {
	t.Helper()
	return exits(t, ctx, r, step, 0, command).Out
}

// exits runs a command in the room and wants that exit code.
func exits(t *testing.T, ctx context.Context, r *lab.Room, step string, code int, command string) lab.Result {
	t.Helper()
	res, err := r.Run(ctx, command)
	if err != nil {
		t.Fatalf("step %q: %v", step, err)
	}
	if res.Late || res.Code != code {
		t.Fatalf("step %q: exit code %d (late: %v), want %d, of: %s\nstdout: %s\nstderr: %s", step, res.Code, res.Late, code, command, res.Out, res.Err)
	}
	return res
}

// start runs a program in the background, and shows the end of its log where
// the test fails.
func start(t *testing.T, ctx context.Context, r *lab.Room, command, log string) {
	t.Helper()
	if err := r.Start(ctx, command, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			res, _ := r.Run(ctx, "tail -n 40 "+log)
			t.Logf("%s: %s: %s\n%s", r.Name, command, log, res.Out)
		}
	})
}

// until waits for a command to end with code 0.
func until(t *testing.T, ctx context.Context, r *lab.Room, step, command string) string {
	t.Helper()
	res, err := r.Until(ctx, command)
	if err != nil {
		t.Fatalf("step %q: %v", step, err)
	}
	return res.Out
}

// push writes a file into the room.
func push(t *testing.T, ctx context.Context, r *lab.Room, path, text string, mode os.FileMode) {
	t.Helper()
	if err := r.Push(ctx, path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// shipped is a file of packaging/.
func shipped(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(theLab.Source(), "packaging", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRooms: a room is a host of its own, and cannot change the machine.
func TestRooms(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	all := rooms(t, ctx, "node1", "node2")
	for i, r := range all {
		if got := strings.TrimSpace(must(t, ctx, r, "its name", "hostname")); got != r.Name {
			t.Errorf("room %d is called %q", i, got)
		}
		exits(t, ctx, r, "the machine's sysctls are out of reach", 2, "echo 4 >/proc/sys/kernel/printk")
		exits(t, ctx, r, "so is sysfs", 2, "echo 1 >/sys/kernel/mm/ksm/run")
		must(t, ctx, r, "its own network's are not", "echo 100 >/proc/sys/net/core/somaxconn")
		must(t, ctx, r, "hostcheck runs", "hostcheck version")
	}
	must(t, ctx, all[0], "node1 writes", "echo 1 >/srv/mine")
	exits(t, ctx, all[1], "node2 does not see it", 2, "ls /srv/mine")
	start(t, ctx, all[0], "python3 -m http.server 8000", "/tmp/log")
	until(t, ctx, all[1], "node2 reaches node1", "curl -sf http://node1:8000/etc/hostname")
}
