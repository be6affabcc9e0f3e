// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

var neverRead = regexp.MustCompile(`/(?:vpd|rom|resource\d+(?:_wc)?|kcore|kmem|mem)$`)

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
	for _, op := range h.Asked() { // to read these can disturb a device
		if neverRead.MatchString(op.Path) && op.Kind != host.ReadLink {
			t.Errorf("%s is %s", op.Path, op.Kind)
		}
	}
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
		if d := b.Host.Time.Sub(at); d < 0 || d > 10*time.Minute {
			t.Errorf("captured at %v, and judged at %v", b.Host.Time, at)
		}
	}
	replayed := b.Replay()
	got := judgeHost(t, replayed, opt)
	sameLines(t, want, got)
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

// The same after redaction on both sides: of the report, and of the host.
func redactedLaw(t *testing.T, root string, opt trial.Options, level bundle.Redaction) {
	t.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	judged := judgeHost(t, h, opt)
	s, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := bundle.NewRedactor(level)
	r.Learn(s)
	redacted, err := r.Snapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	sorted := func(b []byte) ([]byte, error) {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		return json.Marshal(v)
	}
	redact := func(b []byte) ([]byte, error) {
		b, err := r.JSON(b)
		if err != nil {
			return nil, err
		}
		return sorted(b)
	}
	sameLines(t, documents(t, judged, redact), documents(t, judgeHost(t, host.Replay(redacted, h.Source()), opt), sorted))
}

// documents passes JSON documents on, one a line.
func documents(t *testing.T, all []byte, each func([]byte) ([]byte, error)) []byte {
	t.Helper()
	var out []byte
	for d := json.NewDecoder(bytes.NewReader(all)); d.More(); {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		b, err := each(raw)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		if err := json.Indent(&lines, b, "", " "); err != nil {
			t.Fatal(err)
		}
		out = append(append(out, lines.Bytes()...), '\n')
	}
	return out
}

var clock = regexp.MustCompile(`"captured_at": ?"[^"]*"`)

func sameLines(t *testing.T, want, got []byte) {
	t.Helper()
	want, got = clock.ReplaceAll(want, nil), clock.ReplaceAll(got, nil) // a live host's goes on
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			t.Errorf("line %d of the report and facts:\nhost:   %s\nbundle: %s", i+1, w[i], g[i])
			return
		}
	}
	if len(w) != len(g) {
		t.Errorf("%d lines of the host, %d of the bundle", len(w), len(g))
	}
}

func TestReplayRedacted(t *testing.T) {
	paths, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no base hosts: %v", err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			f := fixture.Load(t, p)
			redactedLaw(t, f.Root, trial.Options{Intent: f.Intent}, bundle.Standard)
		})
	}
	t.Run("live", func(t *testing.T) { redactedLaw(t, "/", trial.Options{}, bundle.Standard) })
	if dir := os.Getenv(hostsEnv); dir != "" {
		trees, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range trees {
			t.Run(d.Name(), func(t *testing.T) { redactedLaw(t, filepath.Join(dir, d.Name()), trial.Options{}, bundle.Standard) })
		}
	}
}

// A bundle that an earlier version wrote replays: what was judged then is judged
// the same now, or is unknown because a check has come to need more.
func TestOldBundles(t *testing.T) {
	paths, err := filepath.Glob("testdata/bundles/*.tar.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no bundles: %v", err)
	}
	for _, p := range paths {
		b, err := bundle.Open(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		var then report.Report
		if err := json.Unmarshal(b.Report, &then); err != nil {
			t.Fatal(err)
		}
		out, err := trial.Run(b.Replay(), checks.All(), trial.Options{})
		if err != nil {
			t.Fatal(err)
		}
		now := map[string]check.Status{}
		for _, f := range out.Report.Findings {
			now[f.Check+" "+f.Subject] = f.Status
		}
		same := 0
		for _, f := range then.Findings {
			switch got, there := now[f.Check+" "+f.Subject]; {
			case there && got == f.Status:
				same++
			case got != check.Unknown:
				t.Errorf("%s: %s %q was %s and is %q", p, f.Check, f.Subject, f.Status, got)
			}
		}
		if same < len(then.Findings)*3/4 {
			t.Errorf("%s: %d of %d findings are the same", p, same, len(then.Findings))
		}
	}
}
