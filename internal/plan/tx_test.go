// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One write to what is there: neither made nor emptied before.
func TestWriteOnce(t *testing.T) {
	p := filepath.Join(t.TempDir(), "knob")
	if err := writeOnce(p, "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(p, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeOnce(p, "1"); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(p); string(b) != "1bc" {
		t.Errorf("%q", b)
	}
	if err := writeOnce("/proc/self/mem", "x"); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("%v", err)
	}
	if err := writeOnce("/dev/full", "x"); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	if err := writeOnce("/proc/self/oom_score_adj", "seven"); err == nil || !strings.Contains(err.Error(), "the kernel refuses this value (invalid argument)") {
		t.Errorf("%v", err)
	}
}

func TestStart(t *testing.T) {
	t.Setenv("SECRET", "x")
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a signal lets a program finish
	out, err := start(ctx, "/bin/sh", "-c", "echo $SECRET$LC_ALL$PATH; echo two >&2; exit 3")
	if err == nil || err.Error() != "exit status 3" || string(out) != "C/usr/sbin:/usr/bin:/sbin:/bin\ntwo\n" {
		t.Errorf("%q %v", out, err)
	}
}
