// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Of a large file the beginning is read, of a small one all; what is no file
// is refused.
func TestHead(t *testing.T) {
	root := t.TempDir()
	for p, size := range map[string]int{"etc/large": host.MaxFile + 1, "etc/small": 5} {
		full := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "etc/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for p, want := range map[string]int{"/etc/large": host.HeadBytes, "/etc/small": 5} {
		if b, err := h.Head(p); err != nil || len(b) != want {
			t.Errorf("%s: %d bytes, %v; want %d", p, len(b), err, want)
		}
	}
	if _, err := h.Read("/etc/large"); !errors.Is(err, host.ErrTooLarge) {
		t.Errorf("the whole of a large file: %v", err)
	}
	for p, want := range map[string]error{"/etc": syscall.EISDIR, "/etc/fifo": host.ErrNotRegular, "/etc/none": syscall.ENOENT} {
		if _, err := h.Head(p); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
}
