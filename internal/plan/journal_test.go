// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

func validate(t *testing.T, b []byte) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(plan.JSONSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("plan.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("plan.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, b)
	}
}

// A journal that no run of hostcheck wrote is refused with the reason, and
// never acted on: not by undo, not by apply, not by status.
func TestHostileJournal(t *testing.T) {
	edit := func(name, from, to string) func(m *machine, dir string) error {
		return func(m *machine, dir string) error {
			p := filepath.Join(dir, name)
			b, err := os.ReadFile(p)
			if err != nil || !bytes.Contains(b, []byte(from)) {
				m.Fatalf("%v: no %s in %s", err, from, b)
			}
			return os.WriteFile(p, bytes.Replace(b, []byte(from), []byte(to), 1), 0o600)
		}
	}
	line := func(s string) func(m *machine, dir string) error {
		return func(_ *machine, dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(s + "\n")
			return err
		}
	}
	for name, c := range map[string]struct {
		do   func(m *machine, dir string) error
		says string
		root bool
	}{
		"not JSON":          {do: edit("plan.json", "{", "["), says: "cannot decode its plan"},
		"wrong type":        {do: edit("plan.json", `"changes": [`, `"changes": 7, "x": [`), says: "cannot decode its plan"},
		"unknown field":     {do: edit("plan.json", `"boot_id"`, `"boot"`), says: "unknown field"},
		"two documents":     {do: edit("plan.json", `{`, `{} {`), says: "something follows it"},
		"other ID":          {do: edit("plan.json", `"id": "2`, `"id": "1`), says: "its plan is"},
		"other value":       {do: edit("plan.json", "old = 1", "evil = 1"), says: "hash"},
		"other target":      {do: edit("plan.json", lone, "/etc/shadow"), says: "hash"},
		"escape":            {do: edit("plan.json", lone, "/etc/../../x"), says: "clean absolute path"},
		"no begin":          {do: edit("log", `"op":"begin"`, `"op":"verify"`), says: `it starts with "verify"`},
		"empty log":         {do: func(_ *machine, dir string) error { return os.Truncate(filepath.Join(dir, "log"), 0) }, says: "its log is empty"},
		"change beyond":     {do: line(`{"op":"intent","at":"2026-01-01T00:00:00Z","i":99}`), says: "change 99 is not in the plan"},
		"change before":     {do: line(`{"op":"done","at":"2026-01-01T00:00:00Z","i":-1}`), says: "change -1 is not in the plan"},
		"unknown record":    {do: line(`{"op":"exec","at":"2026-01-01T00:00:00Z","i":0}`), says: `record "exec" is not known`},
		"record of a list":  {do: line(`[]`), says: "cannot decode line"},
		"image elsewhere":   {do: line(`{"op":"image","at":"2026-01-01T00:00:00Z","i":0,"path":"/etc/shadow"}`), says: "not a file of the plan"},
		"image twice":       {do: line(`{"op":"image","at":"2026-01-01T00:00:00Z","i":0,"path":"` + lone + `"}`), says: "comes twice"},
		"directory outside": {do: line(`{"op":"mkdir","at":"2026-01-01T00:00:00Z","i":0,"path":"/home"}`), says: "not above a file"},
		"directory by ..":   {do: line(`{"op":"mkdir","at":"2026-01-01T00:00:00Z","i":0,"path":"/etc/x/.."}`), says: "not above a file"},
		"odd end":           {do: line(`{"op":"end","at":"2026-01-01T00:00:00Z","i":0,"result":"undone"}`), says: `end cannot be "undone"`},
		"begins twice":      {do: line(`{"op":"begin","at":"2026-01-01T00:00:00Z","i":0}`), says: "begins twice"},
		"set-id image":      {do: edit("log", `"mode":416`, `"mode":2541`), says: "mode"},
		"huge log":          {do: func(_ *machine, dir string) error { return os.Truncate(filepath.Join(dir, "log"), 1<<40) }, says: "not a regular file of at most"},
		"linked log": {do: func(m *machine, dir string) error {
			p := filepath.Join(dir, "log")
			return errors.Join(os.Rename(p, p+"2"), os.Symlink("log2", p))
		}, says: "not a regular file"},
		"linked directory": {do: func(_ *machine, dir string) error {
			return errors.Join(os.Rename(dir, dir+".x"), os.Symlink(filepath.Base(dir)+".x", dir))
		}, says: "not a directory"},
		"log for all to write":       {do: func(_ *machine, dir string) error { return os.Chmod(filepath.Join(dir, "log"), 0o666) }, says: "others may write"},
		"directory for all to write": {do: func(_ *machine, dir string) error { return os.Chmod(dir, 0o777) }, says: "others may write"},
		"foreign log":                {do: func(_ *machine, dir string) error { return os.Chown(filepath.Join(dir, "log"), 1, 1) }, says: "another user", root: true},
		"foreign directory":          {do: func(_ *machine, dir string) error { return os.Chown(dir, 1, 1) }, says: "another user", root: true},
		"no plan":                    {do: func(_ *machine, dir string) error { return os.Remove(filepath.Join(dir, "plan.json")) }, says: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			m := newMachine(t)
			id := m.apply(plan.Applied, everything(), plan.Options{}).Txn
			m.old = plantest.Snapshot(t, m.root)
			if err := c.do(m, m.path(filepath.Join(plan.Dir, id))); err != nil {
				t.Fatal(err)
			}
			_, err := m.Undo(ctx, id, plan.Options{Force: true})
			says(t, err, "not to be trusted", c.says)
			_, err = m.UndoAll(ctx, plan.Options{Force: true})
			says(t, err, c.says)
			_, err = m.Apply(ctx, sealed(knob("knob", knobA, "2", "3")), plan.Options{})
			says(t, err, id, c.says)
			pending, _, err := m.Status(ctx)
			if err != nil || len(pending) != 1 || pending[0].State != plan.Unreadable {
				t.Errorf("status: %v %v", pending, err)
			}
			m.same()
		})
	}
}

// The whole journal directory is not ours, or not there.
func TestJournalDirectory(t *testing.T) {
	m := newMachine(t)
	if list, err := m.History(); err != nil || list != nil {
		t.Errorf("%v %v", list, err)
	}
	if p, busy, err := m.Status(ctx); err != nil || busy != nil || p != nil {
		t.Errorf("%v %v %v", p, busy, err)
	}
	m.same() // neither made anything
	if _, err := os.Lstat(m.path(plan.Dir)); !os.IsNotExist(err) {
		t.Error("reading made the journal")
	}
	if err := os.Mkdir(m.path(plan.Dir), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.path(plan.Dir), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := m.Apply(ctx, everything(), plan.Options{})
	says(t, err, "others may write")
	if err := os.Chmod(m.path(plan.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	r := m.apply(plan.Applied, everything(), plan.Options{})
	for p, want := range map[string]os.FileMode{r.Txn: os.ModeDir | 0o700, r.Txn + "/log": 0o600, r.Txn + "/plan.json": 0o600, "lock": 0o600} {
		if fi, err := os.Lstat(m.path(filepath.Join(plan.Dir, p))); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v %v, want %v", p, err, fi.Mode(), want)
		}
	}
}

// A last line that was cut by a crash is dropped, and undo goes on behind it.
func TestTornLog(t *testing.T) {
	m := newMachine(t)
	id := m.apply(plan.Applied, everything(), plan.Options{}).Txn
	p := filepath.Join(plan.Dir, id, "log")
	whole := m.text(p)
	cut := strings.LastIndex(strings.TrimSuffix(whole, "\n"), "\n") + 10
	if err := os.Truncate(m.path(p), int64(cut)); err != nil {
		t.Fatal(err)
	}
	if m.states() != "unfinished" {
		t.Error(m.states())
	}
	m.undo(plan.Undone, id, plan.Options{})
	m.same()
	for l := range strings.Lines(m.text(p)) {
		if !json.Valid([]byte(l)) || !strings.HasSuffix(l, "\n") {
			t.Errorf("broken line %q", l)
		}
	}
}

// A full disk takes half a line: the half is cut off, so that putting back can
// go on in the journal.
func TestHalfALine(t *testing.T) {
	m := newMachine(t)
	broken := false
	m.Fault = func(point string) error {
		p, ok := strings.CutPrefix(point, "after write "+plan.Dir)
		if !ok || broken {
			return nil
		}
		p = m.path(plan.Dir + p)
		b, _ := os.ReadFile(p) // not there yet under this name when it begins
		if !bytes.Contains(b, []byte("done")) {
			return nil
		}
		broken = true
		return errors.Join(syscall.ENOSPC, os.Truncate(p, int64(len(b)-7)))
	}
	r := m.apply(plan.Restored, everything(), plan.Options{})
	if !errors.Is(r.Cause, syscall.ENOSPC) || r.Journal != nil || m.states() != "restored" {
		t.Errorf("%+v %s", r, m.states())
	}
	m.same()
}

// What decodes is consistent: undo relies on it without looking again.
func FuzzJournal(f *testing.F) {
	root := f.TempDir()
	setup(f, root)
	r, err := engine(root).Apply(ctx, everything(), plan.Options{})
	if err != nil {
		f.Fatal(err)
	}
	dir := filepath.Join(root, plan.Dir, r.Txn)
	planJSON, err1 := os.ReadFile(filepath.Join(dir, "plan.json"))
	log, err2 := os.ReadFile(filepath.Join(dir, "log"))
	if err := errors.Join(err1, err2); err != nil {
		f.Fatal(err)
	}
	f.Add(planJSON, log)
	f.Add(planJSON, log[:len(log)/2])
	f.Add(planJSON, []byte(`{"op":"begin","at":"2026-01-01T00:00:00Z","i":0}`+"\n"+`{"op":"mkdir","at":"2026-01-01T00:00:00Z","i":0,"path":"/etc/../x"}`+"\n"))
	f.Add([]byte(`{}`), []byte("\n"))
	f.Fuzz(func(t *testing.T, planJSON, log []byte) {
		if err := plan.ParseInvariants(r.Txn, planJSON, log); err != nil {
			t.Error(err)
		}
	})
}
