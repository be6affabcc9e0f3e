// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/cli"
	"github.com/hostcheck/hostcheck/internal/fixture"
)

var update = flag.Bool("update", false, "rewrite golden files and the files in scripts")

// TestMain lets scripts, and the tests here, run this test binary as hostcheck.
func TestMain(m *testing.M) {
	run := func() { os.Exit(cli.Main()) }
	testscript.Main(m, map[string]func(){"hostcheck": run, "AnsiballZ_hostcheck": run}) // as Ansible calls a module
}

// TestScripts runs testdata/script/*.txtar: the command line as people use it.
func TestScripts(t *testing.T) {
	repository, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("COLUMNS", "100")
			env.Setenv("REPO", repository)
			env.Setenv("ESC", "\x1b")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"judged":     judged,
			"full":       fullDisk,
			"pipe":       brokenPipe,
			"terminal":   terminal,
			"cells":      cells,
			"host":       makeHost,
			"garbage":    garbage,
			"garbageall": garbageAll,
			"validate":   validate,
			"lines":      lines,
			"mode":       mode,
			"islink":     isLink,
			"nofiles":    noFiles,
			"snapshot":   snapshot,
			"answer":     answer,
			"locked":     locked,
			"change":     change,
			"hash":       planHash,
			"samereport": sameReport,
		},
	})
}

// exits CODE [ARG ...] runs hostcheck and wants exactly that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if code := run(ts, args[1:]); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// samereport FILE FILE wants two reports that differ in where the host was read from only.
func sameReport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: samereport FILE FILE")
	}
	source := func(s string) string { return strings.Replace(s, `"source":"bundle"}`, `"source":"root"}`, 1) }
	a, b := source(ts.ReadFile(args[0])), source(ts.ReadFile(args[1]))
	if a != b {
		ts.Fatalf("the reports differ:\n%s", cmp.Diff(a, b))
	}
}

// judged [ARG ...] runs hostcheck and wants a report: whatever the verdict, no
// usage error and no crash.
func judged(ts *testscript.TestScript, neg bool, args []string) {
	if code := run(ts, args); neg || !slices.Contains([]int{0, 1, 3, 10}, code) {
		ts.Fatalf("exit code %d, want a verdict", code)
	}
}

func run(ts *testscript.TestScript, args []string) int {
	err := ts.Exec("hostcheck", args...)
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if s := ts.ReadFile("stderr"); strings.Contains(s, "panic:") || strings.Contains(s, "goroutine ") {
		ts.Fatalf("a panic")
	}
	return code
}

// full ARG ... runs hostcheck with a full disk behind stdout.
func fullDisk(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	code, stderr := runTo(ts, f, args)
	if want := "hostcheck: cannot write the result: no space left on device\n"; neg || code != 2 || stderr != want {
		ts.Fatalf("exit code %d and %q, want 2 and %q", code, stderr, want)
	}
}

// pipe ARG ... runs hostcheck with a stdout that nobody reads.
func brokenPipe(ts *testscript.TestScript, neg bool, args []string) {
	r, w, err := os.Pipe()
	ts.Check(err)
	ts.Check(r.Close())
	defer w.Close()
	if code, stderr := runTo(ts, w, args); neg || code != 0 || stderr != "" {
		ts.Fatalf("exit code %d and %q, want 0 and silence", code, stderr)
	}
}

// terminal COLUMNS ARG ... runs hostcheck with a pseudo-terminal of that width
// as its stdout and stderr; what it shows is the stdout of the command.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: terminal COLUMNS [ARG ...]")
	}
	columns, err := strconv.ParseUint(args[0], 10, 16)
	ts.Check(err)
	master, slave := openTerminal(ts, uint16(columns))
	defer master.Close()
	shown := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(master) // ends with EIO when the last slave is closed
		shown <- b
	}()
	c := exec.Command(hostcheckPath(ts), args[1:]...)
	c.Stdout, c.Stderr = slave, slave
	c.Env = environ(ts)
	err = c.Run()
	ts.Check(slave.Close())
	b := <-shown
	if c.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	_, err = ts.Stdout().Write(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	ts.Check(err)
}

// environ is the script's environment as far as hostcheck looks at it.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "WORK", "TERM", "TMUX", "NO_COLOR", "COLUMNS", "LANG", "LC_ALL"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// cells FILE MAX wants no line wider than MAX cells, and one that is so wide.
func cells(ts *testscript.TestScript, neg bool, args []string) {
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	widest := 0
	for l := range strings.Lines(ts.ReadFile(args[0])) {
		widest = max(widest, lipgloss.Width(strings.TrimSuffix(l, "\n")))
	}
	if neg || widest != most {
		ts.Fatalf("the widest line has %d cells, want %d", widest, most)
	}
}

func hostcheckPath(ts *testscript.TestScript) string {
	path, err := exec.LookPath("hostcheck") // testscript put it there
	ts.Check(err)
	return path
}

func runTo(ts *testscript.TestScript, stdout *os.File, args []string) (int, string) {
	c := exec.Command(hostcheckPath(ts), args...)
	var stderr strings.Builder
	c.Stdout, c.Stderr, c.Env = stdout, &stderr, environ(ts)
	if err := c.Run(); err != nil && c.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	return c.ProcessState.ExitCode(), stderr.String()
}

// garbage FILE N writes N bytes of noise, the same ones every time.
func garbage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: garbage FILE N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), noise(n), 0o644))
}

// garbageall DIR NAME N makes every file of a name below a directory noise.
func garbageAll(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: garbageall DIR NAME N")
	}
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	found := false
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() != args[1] {
			return err
		}
		found = true
		return os.WriteFile(p, noise(n), 0o644)
	}))
	if !found {
		ts.Fatalf("no file is called %s", args[1])
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	st, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); neg || got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func isLink(ts *testscript.TestScript, neg bool, args []string) {
	st, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if neg || st.Mode()&fs.ModeSymlink == 0 {
		ts.Fatalf("%s is not a link any more", args[0])
	}
}

// nofiles PREFIX wants no file in the working directory whose name begins so.
func noFiles(ts *testscript.TestScript, neg bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs(args[0]) + "*")
	ts.Check(err)
	if neg || len(found) > 0 {
		ts.Fatalf("left behind: %v", found)
	}
}

// host NAME DIR materialises testdata/hosts/NAME.txtar in DIR.
func makeHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: host NAME DIR")
	}
	a, err := fixture.Parse(filepath.Join(ts.Getenv("REPO"), "testdata", "hosts", args[0]+".txtar"))
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(a.Write(dir))
}

// validate FILE SCHEMA checks one JSON document, and that nothing follows it.
func validate(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] validate FILE SCHEMA")
	}
	if err := valid(ts.ReadFile(args[0]), ts.ReadFile(args[1])); (err != nil) != neg {
		ts.Fatalf("%s: valid: %v, want %v: %v", args[0], err == nil, !neg, err)
	}
}

// valid judges one JSON document by a schema.
func valid(doc, schema string) error {
	s, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///schema", s); err != nil {
		return err
	}
	compiled, err := c.Compile("mem:///schema")
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
	if err != nil {
		return err
	}
	return compiled.Validate(v)
}

// lines FILE MAX wants no line of more than MAX characters.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE MAX")
	}
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	for l := range strings.Lines(ts.ReadFile(args[0])) {
		if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > most {
			ts.Fatalf("a line of %d characters: %s", n, l)
		}
	}
}

// command is this test binary as hostcheck in a bare environment.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript.Main runs the command that the program is called as
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "hostcheck")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(dir, "hostcheck"), args...)
	c.Env = append([]string{}, env...) // nil would be the environment of the tests
	return c
}

// hostcheck runs it and gives what it wrote.
func hostcheck(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := command(t, env, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok && err != nil {
		t.Fatal(e, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// golden compares with a file in testdata/golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); \"make golden\" accepts:\n%s", name, d)
	}
}

// TestGoldenHosts judges every base host, and runs every command that reads on
// one of them: what these print is what a reader of a change looks at.
func TestGoldenHosts(t *testing.T) {
	hosts, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(hosts) == 0 {
		t.Fatal("no hosts", err)
	}
	utf8 := []string{"LANG=C.UTF-8"}
	for _, h := range hosts {
		name := strings.TrimSuffix(filepath.Base(h), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fixture.Load(t, h)
			args := []string{"--root", f.Root}
			for _, p := range f.Profile {
				args = append(args, "--profile", p)
			}
			for _, s := range f.Set {
				args = append(args, "--set", s)
			}
			if f.Intent != "" {
				args = append(args, "--intent", f.Intent)
			}
			type output struct {
				file string
				env  []string
				args []string
			}
			outputs := []output{
				{"80.txt", append(utf8, "COLUMNS=80"), nil},
				{"topo-80.txt", append(utf8, "COLUMNS=80"), []string{"topo"}},
				{"report.json", nil, []string{"-f", "json"}},
			}
			all := []output{
				{"120-verbose.txt", append(utf8, "COLUMNS=120"), []string{"-v"}},
				{"80-colour.txt", append(utf8, "COLUMNS=80"), []string{"--color", "always"}},
				{"80-ascii.txt", []string{"LANG=C", "COLUMNS=80"}, nil},
				{"quiet.txt", utf8, []string{"-q"}},
				{"facts.txt", utf8, []string{"facts"}},
				{"facts.json", nil, []string{"facts", "-f", "json"}},
				{"topo-ascii.txt", []string{"LANG=C", "COLUMNS=80"}, []string{"topo"}},
				{"topo-200.txt", append(utf8, "COLUMNS=200"), []string{"topo"}},
				{"topo-svg.txt", nil, []string{"topo", "-f", "svg"}},
				{"detect.txt", utf8, []string{"profile", "detect"}},
				{"profile.txt", utf8, []string{"profile", "show"}},
			}
			if name == "rdma-intel" {
				outputs = append(outputs, all...)
			}
			if name == "rdma-intel-sick" || name == "vm-plain" {
				outputs = append(outputs,
					output{"page.html", nil, []string{"-f", "html"}},
					output{"page.md", nil, []string{"-f", "md"}},
					output{"junit.xml", nil, []string{"-f", "junit"}},
				)
			}
			for _, what := range []string{"report", "facts"} {
				schema, _, _ := hostcheck(t, nil, "schema", what)
				c := append([]string{"-f", "json"}, args...)
				if what == "facts" {
					c = append(c, "facts")
				}
				out, _, _ := hostcheck(t, nil, c...)
				if err := valid(out, schema); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			for _, c := range outputs {
				out, errs, code := hostcheck(t, c.env, append(c.args, args...)...)
				if strings.Contains(out, f.Root) {
					t.Errorf("%s: the output names the directory of the tree", c.file)
				}
				if filepath.Ext(c.file) != ".txt" { // what reads it wants nothing else
					golden(t, filepath.Join(name, c.file), out)
					continue
				}
				golden(t, filepath.Join(name, c.file), fmt.Sprintf("%sstderr: %q\nexit: %d\n", out, errs, code))
			}
		})
	}
}

// TestColourOnlyAddsColour: the coloured text without its colours is the plain one.
func TestColourOnlyAddsColour(t *testing.T) {
	f := fixture.Load(t, "testdata/hosts/rdma-intel.txtar")
	env := []string{"LANG=C.UTF-8"}
	plain, _, _ := hostcheck(t, env, "--root", f.Root)
	coloured, _, _ := hostcheck(t, env, "--root", f.Root, "--color=always")
	if plain == coloured || !strings.Contains(coloured, "\x1b[") || strings.Contains(plain, "\x1b") {
		t.Error("colour is not what makes the difference")
	}
	var b strings.Builder
	if _, err := io.WriteString(&colorprofile.Writer{Forward: &b, Profile: colorprofile.NoTTY}, coloured); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(plain, b.String()); d != "" {
		t.Error(d)
	}
}

// TestSignals: a signal ends the process with the code of the signal, and
// without a word, also while it waits for a reader that does not come.
func TestSignals(t *testing.T) {
	f := fixture.Load(t, "testdata/hosts/rdma-intel.txtar")
	for s, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
			t.Fatal(err)
		}
		c := command(t, nil, "facts", "-f", "json", "--root", f.Root)
		var errs bytes.Buffer
		c.Stdout, c.Stderr = w, &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		// a first byte means that it writes, and it has more than fits
		if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != want || errs.Len() > 0 {
			t.Errorf("%v: exit code %d and %q, want %d and silence", s, code, errs.String(), want)
		}
	}
}

// TestPluginSignals: a plugin that a signal ends says so on one line with the
// state unknown, whatever it was at, or gives the verdict that it came to.
func TestPluginSignals(t *testing.T) {
	f := fixture.Load(t, "testdata/hosts/rdma-intel.txtar")
	wait := func(c *exec.Cmd) { // a signal that nothing follows is a failure, and no hanging test
		defer time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() }).Stop()
		_ = c.Wait()
	}
	judge := func(out string, code int) string {
		word, ok := map[int]string{0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}[code]
		if first, _, whole := strings.Cut(out, "\n"); !ok || !whole || !strings.HasPrefix(first, "HOSTCHECK "+word+" - ") || strings.Count(out, "HOSTCHECK ") != 1 {
			return fmt.Sprintf("exit code %d and %q", code, out)
		}
		return ""
	}
	for s, name := range map[syscall.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM"} {
		for format, want := range map[string]struct {
			code int
			line string
		}{
			"nagios": {3, "HOSTCHECK UNKNOWN - interrupted by " + name + " before there was a verdict\n"},
			"npd":    {2, "hostcheck did not judge: interrupted by " + name + " before there was a verdict\n"},
		} {
			// while it starts: the bundle does not come
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			c := command(t, nil, "-f", format, "--from", "-")
			var out bytes.Buffer
			c.Stdin, c.Stdout = r, &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteString("\x1f\x8b"); err != nil {
				t.Fatal(err)
			}
			for left := 1; left > 0; time.Sleep(time.Millisecond) { // until it reads
				if left, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil {
					t.Fatal(err)
				}
			}
			r.Close()
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			wait(c)
			if code := c.ProcessState.ExitCode(); code != want.code || out.String() != want.line {
				t.Errorf("%s, %s: exit code %d and %q, want %d and %q", name, format, code, out.String(), want.code, want.line)
			}
		}

		// while it waits for a reader that does not come: no line, but an end
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		c := command(t, nil, "-f", "nagios", "--root", f.Root)
		c.Stdout = w
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		time.Sleep(500 * time.Millisecond)
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		wait(c)
		if code := c.ProcessState.ExitCode(); code != 3 {
			t.Errorf("%s without a reader: exit code %d, want 3", name, code)
		}

		// at any moment
		for after := time.Duration(0); after < 300*time.Millisecond; after += 25 * time.Millisecond {
			c := command(t, nil, "-f", "nagios", "--root", f.Root)
			var out bytes.Buffer
			c.Stdout = &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			_ = c.Process.Signal(s) // it may have ended
			wait(c)
			if st := c.ProcessState.Sys().(syscall.WaitStatus); st.Signaled() && st.Signal() == s {
				continue // before the first line of main
			}
			if wrong := judge(out.String(), c.ProcessState.ExitCode()); wrong != "" {
				t.Errorf("%s after %v: %s", name, after, wrong)
			}
		}
	}
}
