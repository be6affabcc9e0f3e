// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The two samples are two readings: what grows between them shows.
func TestSampleCounters(t *testing.T) {
	dir := t.TempDir()
	set := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strconv.Itoa(n)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("grows", 5)
	set("stays", 7)
	set("lifespan", 10)
	set("falls", 9)
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("many\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Counters("x"); !errors.Is(err, ErrNotSampled) {
		t.Errorf("before the sample: %v", err)
	}
	const interval = 80 * time.Millisecond
	go func() {
		time.Sleep(interval / 2)
		set("grows", 8)
		set("falls", 1)
	}()
	h.SampleCounters(t.Context(), interval, []CounterSource{{Name: "a", Dirs: []string{dir, dir + "/absent"}}, {Name: "none", Dirs: []string{dir + "/absent"}},
		{Name: "table", File: dir + "/grows", Parse: func(text string) (map[string]uint64, error) {
			return map[string]uint64{"bytes": uint64(text[0])}, nil
		}},
		{Name: "gone", File: dir + "/absent"}})
	if c, err := h.Counters("table"); err != nil || c.First["bytes"] != '5' || c.Last["bytes"] != '8' {
		t.Errorf("a file that is parsed: %+v, %v", c, err)
	}
	if _, err := h.Counters("gone"); !Absent(err) {
		t.Errorf("a file that is not there: %v", err)
	}
	c, err := h.Counters("a")
	if err != nil || c.Seconds < interval.Seconds() || len(c.First) != 3 {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, want := range map[string]struct {
		n  uint64
		ok bool
	}{"grows": {3, true}, "stays": {0, true}, "falls": {0, false}, "text": {0, false}, "lifespan": {0, false}} {
		if n, ok := c.Grown(name); ok != want.ok || ok && n != want.n {
			t.Errorf("%s grew by %d, %v", name, n, ok)
		}
	}
	if c, err := h.Counters("none"); err != nil || len(c.First) > 0 || len(c.Last) > 0 {
		t.Errorf("an object without counters: %+v, %v", c, err)
	}
}

// Nobody waits for an interval that was interrupted.
func TestSampleCountersInterrupted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "n"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	cancel(why)
	start := time.Now()
	h.SampleCounters(ctx, time.Hour, []CounterSource{{Name: "a", Dirs: []string{dir}}})
	if _, err := h.Counters("a"); !errors.Is(err, why) || time.Since(start) > time.Minute {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// A tree's counters are those that were recorded, and nothing waits for them.
func TestRecordedCounters(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/c/n": "1\n",
		CaptureFile: `{"schema": "hostcheck.capture/v1", "queries": {"counters a": {"answer":
			{"seconds": 2, "first": {"n": 1}, "last": {"n": 4}}}}}`,
	} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	start := time.Now()
	h.SampleCounters(t.Context(), time.Hour, []CounterSource{{Name: "a", Dirs: []string{"/sys/c"}}, {Name: "b", Dirs: []string{"/sys/c"}}})
	if time.Since(start) > time.Minute {
		t.Error("a tree was waited for")
	}
	if c, err := h.Counters("a"); err != nil || c.Seconds != 2 || c.Last["n"] != 4 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := h.Counters("b"); !errors.Is(err, ErrNotCaptured) {
		t.Errorf("%v", err)
	}
}

// A table is a file of lines with a name and a number, of which some are kept.
func TestSampleTable(t *testing.T) {
	p := filepath.Join(t.TempDir(), "vmstat")
	if err := os.WriteFile(p, []byte("kept 5\nleft 6\nkept_too 18446744073709551615\nbroken x\nkept_alone\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	kept := func(text string) (map[string]uint64, error) {
		n := map[string]uint64{}
		for line := range strings.Lines(text) {
			name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
			if v, err := strconv.ParseUint(number, 10, 64); err == nil && name != "left" {
				n[name] = v
			}
		}
		return n, nil
	}
	h.SampleCounters(t.Context(), time.Millisecond, []CounterSource{{Name: "a", File: p, Parse: kept}, {Name: "gone", File: p + "2", Parse: kept}})
	c, err := h.Counters("a")
	if err != nil || len(c.First) != 2 || c.Last["kept"] != 5 || c.Last["kept_too"] != 1<<64-1 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := h.Counters("gone"); !Absent(err) {
		t.Errorf("a table that is not there: %v", err)
	}
}
