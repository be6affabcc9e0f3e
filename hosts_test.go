// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

// hostsEnv names a directory of unpacked host trees, one directory each.
const hostsEnv = "HOSTCHECK_HOSTS"

// Whatever a tree holds, every fact and every check ends with an answer, and
// the same tree gives the same bytes.
func TestBaseHosts(t *testing.T) {
	paths, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no base hosts: %v", err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			f := fixture.Load(t, p)
			judgeTree(t, f.Root, f.Intent)
		})
	}
}

// The same for trees of real hosts, which are not part of this repository.
func TestRealHosts(t *testing.T) {
	dir := os.Getenv(hostsEnv)
	if dir == "" {
		t.Skipf("%s names no directory of unpacked host trees", hostsEnv)
	}
	trees, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range trees {
		if !d.IsDir() {
			continue
		}
		n++
		t.Run(d.Name(), func(t *testing.T) { judgeTree(t, filepath.Join(dir, d.Name()), "") })
	}
	if n == 0 {
		t.Errorf("%s=%s holds no directory", hostsEnv, dir)
	}
}

func judgeTree(t *testing.T, root, intent string) {
	t.Helper()
	first, second := judgeOnce(t, root, intent), judgeOnce(t, root, intent)
	if !bytes.Equal(first, second) {
		t.Errorf("two runs on one tree differ:\n%s\n%s", first, second)
	}
}

// judgeOnce gives the facts and the report as JSON.
func judgeOnce(t *testing.T, root, intent string) []byte {
	t.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	return judgeHost(t, h, trial.Options{Intent: intent})
}

func judgeHost(t *testing.T, h *host.Host, opt trial.Options) []byte {
	t.Helper()
	opt.OnPanic = func(id string, stack []byte) { t.Errorf("%s panicked:\n%s", id, stack) }
	out, err := trial.Run(h, checks.All(), opt)
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, f := range out.Report.Findings {
		if f.Status == check.Error {
			t.Errorf("%s %s: error: %s", f.Check, f.Subject, f.Why)
		}
		if f.Status == check.Pass && len(f.Evidence) == 0 {
			t.Errorf("%s %s: a pass without evidence", f.Check, f.Subject)
		}
		judged++
	}
	if judged < len(checks.All()) {
		t.Errorf("%d findings of %d checks: some check said nothing", judged, len(checks.All()))
	}
	if s, n := out.Report.Summary, judged; s.Pass+s.Warn+s.Fail+s.Skip+s.Unknown+s.Error+s.Waived+s.Pending != n {
		t.Errorf("the summary %+v does not count the %d findings once each", s, n)
	}
	all, err := report.JSON(out.Report)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range facts.Areas {
		b, err := report.JSON(a.Get(out.Facts))
		if err != nil {
			t.Errorf("facts %s: %v", a.Name, err)
		}
		if !json.Valid(b) {
			t.Errorf("facts %s: not JSON", a.Name)
		}
		all = append(all, b...)
	}
	return all
}
