// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"

	"github.com/hostcheck/hostcheck/internal/report"
)

// text is how text is laid out for where it goes: the terminal's width, else
// COLUMNS, else 100; ASCII unless the locale is UTF-8. In a pipe it does not
// name the host: who gathers the texts of many folds those that are alike.
func (a *app) text() report.Text {
	if a.toTerminal() {
		return a.textFor(a.stdout)
	}
	t := a.textFor(nil)
	t.Unnamed = !a.toFile() && a.flags.from == ""
	return t
}

func (a *app) textFor(terminal *os.File) report.Text {
	t := report.Text{Width: 100, ASCII: !a.utf8(), Verbose: a.flags.verbose, Quiet: a.flags.quiet}
	if terminal != nil {
		if w, _, err := term.GetSize(int(terminal.Fd())); err == nil && w > 0 {
			t.Width = w
			return t
		}
	}
	if n, err := strconv.Atoi(a.getenv("COLUMNS")); err == nil && n > 0 && n < 1000 {
		t.Width = n
	}
	return t
}

// toFile reports whether the result goes to the file of --output.
func (a *app) toFile() bool { return a.flags.output != "" && a.flags.output != "-" }

func (a *app) toTerminal() bool {
	return !a.toFile() && term.IsTerminal(int(a.stdout.Fd()))
}

// utf8 reports whether the locale's character set is UTF-8 (locale(7): LC_ALL,
// then LC_CTYPE, then LANG).
func (a *app) utf8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.getenv(name); v != "" {
			v = strings.ReplaceAll(strings.ToLower(v), "-", "")
			return strings.Contains(v, "utf8")
		}
	}
	return false
}

// colour passes text on with its colours where they are wanted: with --color
// always, or on a terminal that has them and no NO_COLOR (no-color.org). The
// terminal is never asked.
func (a *app) colour(w io.Writer, terminal bool) io.Writer {
	want := false
	switch a.flags.color {
	case "always":
		want = true
	case "auto":
		want = terminal && a.getenv("NO_COLOR") == "" && colorprofile.Env(a.env) >= colorprofile.ANSI
	}
	if want {
		return &colorprofile.Writer{Forward: w, Profile: colorprofile.TrueColor} // as it is
	}
	return &colorprofile.Writer{Forward: w, Profile: colorprofile.NoTTY}
}

func (a *app) getenv(name string) string {
	for i := len(a.env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// writeFile replaces a file's content whole or not at all: a new file beside
// it, synced, then renamed over it. An existing file keeps its mode, and its
// owner and group where the caller may give them; a new one is the owner's alone, because a report holds what only root may read. Links
// are followed; what is not a regular file (/dev/null, a FIFO) is written to.
func writeFile(name string, b []byte) error { return writeFileMode(name, b, 0o600) }

// writeFileMode is writeFile with the mode of a new file.
func writeFileMode(name string, b []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	} else if st, lerr := os.Lstat(name); lerr == nil && st.Mode()&fs.ModeSymlink != 0 {
		return err // a link to nowhere: do not replace it
	}
	uid, gid := -1, -1
	switch st, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case st.IsDir():
		return syscall.EISDIR
	case !st.Mode().IsRegular():
		f, err := openSpecial(name)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(err, f.Close())
	default:
		mode = st.Mode().Perm()
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(sys.Uid), int(sys.Gid)
		}
	}
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = io.Copy(f, bytes.NewReader(b))
	if err == nil {
		if f.Chown(uid, gid) != nil { // only root gives files away
			_ = f.Chown(-1, gid)
		}
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openSpecial opens what is not a regular file for writing. A FIFO without a
// reader would hold the run up for ever: it gets a moment to find one.
func openSpecial(name string) (*os.File, error) {
	for tries := 50; ; tries-- {
		f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		switch {
		case !errors.Is(err, syscall.ENXIO):
			return f, err
		case tries == 0:
			return nil, errors.New("nobody reads it")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cause is err without the operation and the (temporary) path.
func cause(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}
