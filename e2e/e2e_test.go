// SPDX-License-Identifier: Apache-2.0

//go:build vm

// Package e2e runs hostcheck on real kernels: each file is one kind of scenario
// in a guest of the lab (internal/lab). With -short, as "make test-vm" does it,
// each scenario runs its quick part; "make e2e" runs everything.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

var (
	theLab *lab.Lab
	built  = map[string]string{} // architecture to hostcheck's static binary
	madeIn string                // directory of what is built; it goes with the scenarios
	score  board
)

func TestMain(m *testing.M) {
	code := lab.Main(m, "VM scenarios", func(l *lab.Lab, dir string) error {
		theLab, madeIn = l, dir
		for _, arch := range []string{"amd64", "arm64"} {
			built[arch] = filepath.Join(dir, "hostcheck-"+arch)
			if err := l.Hostcheck(built[arch], arch); err != nil {
				return err
			}
		}
		return nil
	})
	score.print(os.Stdout)
	os.Exit(code)
}

// board is what the scenarios counted, in the order of their first count.
type board struct {
	mu   sync.Mutex
	rows []*row
}

type row struct {
	scenario, what string
	tried, held    int
	seconds        float64
}

// count adds to the scenario's row: how many of these were tried, and how many
// came out as they must.
func count(scenario, what string, tried, held int, took time.Duration) {
	score.mu.Lock()
	defer score.mu.Unlock()
	for _, r := range score.rows {
		if r.scenario == scenario && r.what == what {
			r.tried, r.held, r.seconds = r.tried+tried, r.held+held, r.seconds+took.Seconds()
			return
		}
	}
	score.rows = append(score.rows, &row{scenario, what, tried, held, took.Seconds()})
}

func (b *board) print(w *os.File) {
	if len(b.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| scenario | counted | tried | held | s |\n| --- | --- | ---: | ---: | ---: |\n")
	for _, r := range b.rows {
		fmt.Fprintf(w, "| %s | %s | %d | %d | %.0f |\n", r.scenario, r.what, r.tried, r.held, r.seconds)
	}
	fmt.Fprintln(w)
}

// limit is the deadline of one scenario.
func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// settled gives a guest from the snapshot, with hostcheck installed.
func settled(t *testing.T, ctx context.Context, o lab.Options) *lab.Guest {
	t.Helper()
	return prepare(t, ctx, o, theLab.Settled)
}

// booted gives a guest that came up through its boot loader, with hostcheck
// installed.
func booted(t *testing.T, ctx context.Context, o lab.Options) *lab.Guest {
	t.Helper()
	return prepare(t, ctx, o, theLab.Boot)
}

func prepare(t *testing.T, ctx context.Context, o lab.Options, start func(context.Context, lab.Options) (*lab.Guest, error)) *lab.Guest {
	t.Helper()
	if o.Name == "" {
		o.Name = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-"))
	}
	g, err := start(ctx, o)
	if err != nil {
		t.Fatalf("step \"start the guest\": %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keep(t, g)
		}
		g.Close()
	})
	if err := g.PushFile(ctx, built["amd64"], hostcheck, 0o755); err != nil {
		t.Fatalf("step \"install hostcheck\": %v", err)
	}
	return g
}

// hostcheck is where guests have it.
const hostcheck = "/usr/local/sbin/hostcheck"

// keep saves what a failed scenario leaves to look at.
func keep(t *testing.T, g *lab.Guest) {
	dir := os.Getenv("HOSTCHECK_E2E_OUT")
	if dir == "" {
		dir = filepath.Join(theLab.Source(), "dist/e2e")
	}
	dir = filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Logf("cannot keep what there is to see: %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	os.WriteFile(filepath.Join(dir, g.Name+".console"), []byte(g.Console()), 0o644)
	for name, command := range map[string]string{
		".journal":   "journalctl -b --no-pager; echo; dmesg",
		".hostcheck": "hostcheck status; hostcheck history -v; tail -n +1 /var/lib/hostcheck/*/* /var/lib/hostcheck/* 2>/dev/null",
	} {
		r, err := g.Run(ctx, command)
		text := r.Out + r.Err
		if err != nil {
			text += "\nnot all there is: " + err.Error() + "\n"
		}
		os.WriteFile(filepath.Join(dir, g.Name+name), []byte(text), 0o644)
	}
	t.Logf("console, journal and hostcheck's state of guest %s: %s", g.Name, dir)
}

// must runs a command in the guest and wants exit code 0; it gives stdout.
func must(t *testing.T, ctx context.Context, g *lab.Guest, step, command string) string {
	t.Helper()
	return exits(t, ctx, g, step, 0, command).Out
}

// exits runs a command in the guest and wants that exit code.
func exits(t *testing.T, ctx context.Context, g *lab.Guest, step string, code int, command string) lab.Result {
	t.Helper()
	r, err := g.Run(ctx, command)
	if err != nil {
		t.Fatalf("step %q: %v", step, err)
	}
	if r.Late || r.Code != code {
		t.Fatalf("step %q: exit code %d (late: %v), want %d, of: %s\nstdout: %s\nstderr: %s", step, r.Code, r.Late, code, command, r.Out, r.Err)
	}
	return r
}
