// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// TestInterruptedRunStillWritesItsReport: what was judged before the signal is
// written whole, what was not is unknown, and the exit code is the signal's.
func TestInterruptedRunStillWritesItsReport(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		a := &app{stdout: out, stderr: out}
		a.flags = flags{root: root, format: "json", failOn: "fail", timeout: 1 << 40, checkTimeout: 1 << 40, color: "never"}
		judged := make(chan struct{})
		good := &check.Check{ID: "a.good", Severity: check.Low, Run: func(_ context.Context, r *check.Run) error {
			defer close(judged)
			r.Report(check.Finding{Status: check.Pass, Evidence: []check.Evidence{{Source: "/x", Value: "1"}}})
			return nil
		}}
		hangs := &check.Check{ID: "a.hangs", Severity: check.Low, Run: func(context.Context, *check.Run) error {
			<-judged
			(*a.onSignal.Load())(s)
			select {}
		}}
		var code exit
		if err := a.check([]*check.Check{good, hangs}); !errors.As(err, &code) || int(code) != 128+int(s) {
			t.Errorf("%v: got %v, want exit %d", s, err, 128+int(s))
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		var r report.Report
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatalf("%v: not one JSON document: %v\n%s", s, err, b)
		}
		if len(r.Findings) != 2 || r.Findings[0].Status != check.Pass || r.Findings[1].Status != check.Unknown || r.Findings[1].Why != "interrupted" {
			t.Errorf("%v: got %+v, want a pass and an unknown that was interrupted", s, r.Findings)
		}
	}
}

// TestPluginStopped: what a signal stops early is unknown to Nagios, with a
// first line that says so, and so is what the time was over for.
func TestPluginStopped(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, timeout := range map[string]string{
		"HOSTCHECK UNKNOWN - INTERRUPTED: ":                       "1h",
		"HOSTCHECK UNKNOWN - INCOMPLETE: the run took too long: ": "200ms",
	} {
		judged := make(chan struct{})
		good := &check.Check{ID: "a.good", Severity: check.Low, Run: func(_ context.Context, r *check.Run) error {
			defer close(judged)
			r.Report(check.Finding{Status: check.Pass, Evidence: []check.Evidence{{Source: "/x", Value: "1"}}})
			return nil
		}}
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		a := &app{stdin: out, stdout: out, stderr: out, args: []string{"-f", "nagios", "--check-timeout", "1h", "--root", root, "--timeout", timeout}}
		hangs := &check.Check{ID: "a.hangs", Severity: check.Low, Run: func(context.Context, *check.Run) error {
			<-judged
			if timeout == "1h" {
				(*a.onSignal.Load())(syscall.SIGTERM)
			}
			select {}
		}}
		a.checks = []*check.Check{good, hangs}
		if code := a.run(); code != report.NagiosUnknown {
			t.Errorf("%s: exit code %d, want 3", want, code)
		}
		if b, _ := os.ReadFile(out.Name()); !strings.HasPrefix(string(b), want) {
			t.Errorf("want %s..., got %s", want, b)
		}
	}
}

func TestTimeoutsAreUnknowns(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	hangs := &check.Check{ID: "a.hangs", Severity: check.Low, Run: func(context.Context, *check.Run) error { select {} }}
	for want, f := range map[string]flags{
		"the run did not end within 20ms":   {timeout: 20e6, checkTimeout: 1 << 40},
		"the check did not end within 20ms": {timeout: 1 << 40, checkTimeout: 20e6},
	} {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		f.root, f.format, f.failOn = root, "json", "fail"
		a := &app{stdout: out, stderr: out, flags: f}
		var code exit
		if err := a.check([]*check.Check{hangs}); !errors.As(err, &code) || code != report.ExitIncomplete {
			t.Errorf("got %v, want exit 3", err)
		}
		b, _ := os.ReadFile(out.Name())
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in:\n%s", want, b)
		}
	}
}

// TestTimeoutCoversTheLook: a host that hangs while the profile is chosen for it
// is reported, too, with every check unknown.
func TestTimeoutCoversTheLook(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stdout: out, stderr: out, flags: flags{root: root, format: "json", failOn: "fail", timeout: 1, checkTimeout: 1 << 40}}
	never := &check.Check{ID: "a.never", Severity: check.Low, Run: func(context.Context, *check.Run) error {
		t.Error("a check ran without a profile")
		return nil
	}}
	var code exit
	if err := a.check([]*check.Check{never}); !errors.As(err, &code) || code != report.ExitIncomplete {
		t.Errorf("got %v, want exit 3", err)
	}
	b, _ := os.ReadFile(out.Name())
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil || len(r.Profile.Layers) != 0 || len(r.Findings) != 1 || r.Findings[0].Why != "the run did not end within 1ns" {
		t.Errorf("%v: got %+v, want one unknown and no profile:\n%s", err, r, b)
	}
}

// TestWriteFileLeavesTheOldFile: where the new content cannot be put in place,
// the old file is untouched and no other file stays behind.
func TestWriteFileLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out")
	if err := os.WriteFile(name, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(name, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(name); string(b) != "new" {
		t.Errorf("got %q", b)
	}
	if st, _ := os.Stat(name); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want that of the old file", st.Mode())
	}
	if err := writeFile(filepath.Join(name, "below"), []byte("x")); err == nil {
		t.Error("wrote below a file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// TestWriteFileKeepsTheOwner needs a group besides the own one, or root.
func TestWriteFileKeepsTheOwner(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(name, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	groups, _ := os.Getgroups()
	uid, gid := os.Getuid(), -1
	for _, g := range groups {
		if g != os.Getegid() {
			gid = g
		}
	}
	if uid == 0 {
		uid, gid = 12345, 54321
	}
	if err := os.Chown(name, uid, gid); gid < 0 || err != nil {
		t.Skip("the test cannot give a file to another group")
	}
	if err := writeFile(name, []byte("new")); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); int(sys.Uid) != uid || int(sys.Gid) != gid || st.Mode().Perm() != 0o640 {
		t.Errorf("owner %d:%d mode %v, want %d:%d and 0640", sys.Uid, sys.Gid, st.Mode(), uid, gid)
	}
}

// TestWriteFileToFIFO: without a reader it is an error, with one it is written.
func TestWriteFileToFIFO(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(name, []byte("x")); err == nil || err.Error() != "nobody reads it" {
		t.Errorf("got %v, want that nobody reads it", err)
	}
	read := make(chan string)
	go func() {
		b, _ := os.ReadFile(name)
		read <- string(b)
	}()
	if err := writeFile(name, []byte("whole")); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != "whole" {
		t.Errorf("the reader got %q", got)
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"link", "link.speed", "link.mtu", "iommu.domain", "hugepages", "list"}
	for word, want := range map[string]string{
		"link.sped":                 "link.speed",
		"lnik":                      "link", // a swap is one slip
		"LINK":                      "link",
		"speed":                     "link.speed",
		"iommu.domian":              "iommu.domain",
		"huge":                      "hugepages",
		"lits":                      "list",
		"x":                         "",
		"":                          "",
		"completely":                "",
		strings.Repeat("link", 100): "",
	} {
		got := didYouMean(word, known)
		if want == "" && got != "" || want != "" && got != `; did you mean "`+want+`"?` {
			t.Errorf("%.20q: got %q, want %q", word, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		glob, id string
		want     bool
	}{
		{"link", "link.speed", true},
		{"lin*", "link.speed", true},
		{"link.*", "link.speed", true},
		{"*.speed", "link.speed", true},
		{"*", "link.speed", true},
		{"link.speed", "link.speed", true},
		{"link.sp", "link.speed", false},
		{"speed", "link.speed", false},
		{"[", "link.speed", false},
		{"", "link.speed", false},
	} {
		if got := matches(c.glob, c.id); got != c.want {
			t.Errorf("%q and %s: %v, want %v", c.glob, c.id, got, c.want)
		}
	}
}

func TestLocale(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want bool
	}{
		{nil, false},
		{[]string{"LANG=C.UTF-8"}, true},
		{[]string{"LANG=en_US.utf8"}, true},
		{[]string{"LANG=en_US.UTF-8", "LC_ALL=C"}, false},
		{[]string{"LANG=C", "LC_CTYPE=de_DE.UTF-8"}, true},
		{[]string{"LANG=de_DE.UTF-8", "LC_ALL="}, true},
		{[]string{"LANG=POSIX"}, false},
	} {
		if got := (&app{env: c.env}).utf8(); got != c.want {
			t.Errorf("%v: %v, want %v", c.env, got, c.want)
		}
	}
}
