// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
)

// The replay law: check(capture(X)) == check(X), byte for byte, with the facts.
func replayLaw(t *testing.T, root string, opt trial.Options) {
	t.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	at := h.Time()
	want := judgeHost(t, h, opt)
	s, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := bundle.Write(&file, &bundle.Bundle{Host: s, Manifest: &bundle.Manifest{}}); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	b.Kind = h.Source() // the one thing that differs on purpose
	if h.Live() {
		if d := b.Host.Time.Sub(at); d < 0 || d > time.Minute {
			t.Errorf("captured at %v, and judged at %v", b.Host.Time, at)
		}
		b.Host.Time = at
	}
	replayed := b.Replay()
	got := judgeHost(t, replayed, opt)
	if !bytes.Equal(want, got) {
		w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
		for i := range min(len(w), len(g)) {
			if w[i] != g[i] {
				t.Errorf("line %d of the report and facts:\nhost:   %s\nbundle: %s", i+1, w[i], g[i])
				break
			}
		}
	}
	again, err := replayed.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := again.String(), s.String(); a != b {
		t.Errorf("a bundle of the bundle holds %s, the bundle %s", a, b)
	}
}

func TestReplayHosts(t *testing.T) {
	paths, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no base hosts: %v", err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			f := fixture.Load(t, p)
			replayLaw(t, f.Root, trial.Options{Intent: f.Intent})
		})
	}
}

func TestReplayFixtures(t *testing.T) {
	paths, err := filepath.Glob("testdata/checks/*/*.txtar")
	if err != nil || len(paths) < 100 {
		t.Fatalf("%d check fixtures: %v", len(paths), err)
	}
	for _, p := range paths {
		t.Run(strings.TrimPrefix(p, "testdata/checks/"), func(t *testing.T) {
			t.Parallel()
			f := fixture.Load(t, p)
			replayLaw(t, f.Root, trial.Options{Profile: f.Profile, Set: f.Set, Intent: f.Intent, Dir: filepath.Dir(p)})
		})
	}
	t.Logf("%d fixtures", len(paths))
}

func TestReplayRealHosts(t *testing.T) {
	dir := os.Getenv(hostsEnv)
	if dir == "" {
		t.Skipf("%s names no directory of unpacked host trees", hostsEnv)
	}
	trees, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range trees {
		if d.IsDir() {
			t.Run(d.Name(), func(t *testing.T) { replayLaw(t, filepath.Join(dir, d.Name()), trial.Options{}) })
		}
	}
}

// This machine, whatever it is, as whoever runs the test.
func TestReplayLive(t *testing.T) { replayLaw(t, "/", trial.Options{}) }
