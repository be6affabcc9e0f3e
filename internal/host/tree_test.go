// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree makes a root directory. A key ending in "/" is a directory, a value
// starting with "-> " a link, anything else a file.
func tree(t testing.TB, things map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, top := range []string{"proc", "sys", "etc"} {
		must(t, os.MkdirAll(filepath.Join(root, top), 0o755))
	}
	for p, v := range things {
		at := filepath.Join(root, p)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		target, isLink := strings.CutPrefix(v, "-> ")
		switch {
		case strings.HasSuffix(p, "/"):
			must(t, os.MkdirAll(at, 0o755))
		case isLink:
			must(t, os.Symlink(target, at))
		default:
			must(t, os.WriteFile(at, []byte(v), 0o644))
		}
	}
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, root string) *Host {
	t.Helper()
	h, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// quick is a deadline that tests wait for on purpose.
const quick = 50 * time.Millisecond

func openQuick(t testing.TB, root string) *Host {
	t.Helper()
	h, err := Open(root, Options{Deadline: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}
