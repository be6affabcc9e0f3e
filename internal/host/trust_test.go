// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

func trustTree(t *testing.T) (root string, h *host.Host) {
	t.Helper()
	root = t.TempDir()
	for _, d := range []string{"etc", "usr/local/sbin", "opt/bin", "tmp/x"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"usr/local/sbin/tool", "opt/bin/tool", "tmp/x/tool"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte("program\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"usr/bin": "/opt/bin", "usr/loop": "loop", "usr/near": "local/sbin", "usr/far": "../tmp/x"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"", "etc", "usr", "usr/local", "usr/local/sbin", "opt", "opt/bin", "tmp/x"} {
		if err := os.Chmod(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return root, h
}

func TestTrusted(t *testing.T) {
	root, h := trustTree(t)
	for p, want := range map[string]string{
		"/":                     "",
		"/usr/local/sbin/tool":  "",
		"/usr/bin/tool":         "", // a link to a trusted place
		"/usr/near/tool":        "",
		"/usr/far/tool":         "may write to /tmp (mode 1777)",
		"/tmp/x/tool":           "may write to /tmp (mode 1777)",
		"/usr/loop":             "too many levels of symbolic links",
		"/usr/local/sbin/other": "no such file",
	} {
		err := h.Trusted(p)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", p, err, want)
		}
	}
	// every step of the way counts, and the group as well as others
	for _, p := range []string{"usr/local/sbin/tool", "usr/local/sbin", "usr/local", "usr", ""} {
		full := filepath.Join(root, p)
		for _, mode := range []fs.FileMode{0o775, 0o757} {
			if err := os.Chmod(full, mode); err != nil {
				t.Fatal(err)
			}
			if err := h.Trusted("/usr/local/sbin/tool"); err == nil || !strings.Contains(err.Error(), "may write to /"+p) {
				t.Errorf("%s with mode %o: %v", p, mode, err)
			}
		}
		if err := os.Chmod(full, 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 && p != "" {
			if err := os.Chown(full, 12, 0); err != nil {
				t.Fatal(err)
			}
			if err := h.Trusted("/usr/local/sbin/tool"); err == nil || !strings.Contains(err.Error(), "belongs to user 12") {
				t.Errorf("%s of another user: %v", p, err)
			}
			if err := os.Chown(full, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Trusted("/usr/local/sbin/tool"); err != nil {
		t.Error(err)
	}
}

func TestSum(t *testing.T) {
	_, h := trustTree(t)
	want := sha256.Sum256([]byte("program\n"))
	if got, err := h.Sum("/usr/local/sbin/tool"); err != nil || got != hex.EncodeToString(want[:]) {
		t.Errorf("%s, %v", got, err)
	}
	for p, cause := range map[string]error{"/usr/local/sbin": host.ErrNotRegular, "/usr/none": fs.ErrNotExist} {
		if _, err := h.Sum(p); !errors.Is(err, cause) {
			t.Errorf("%s: %v, want %v", p, err, cause)
		}
	}
	if _, err := h.Sum("/usr/loop"); err == nil {
		t.Error("a link is followed")
	}
}
