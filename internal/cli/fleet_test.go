// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A FIFO that lies about in a directory of reports is named, and not waited for.
func TestFleetFIFO(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "n1.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "n2.jsonl")); err != nil {
		t.Fatal(err)
	}
	reports := filepath.Join(t.TempDir(), "reports.jsonl")
	line := `{"schema":"hostcheck.report/v1","tool":{},"host":{"name":"n1"},"profile":{},"summary":{"pass":1,"exit":0},"findings":[{"check":"a.b","status":"pass"}]}` + "\n"
	if err := os.WriteFile(reports, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"fleet", "merge", dir},
		{"fleet", "plan", "--max-hosts", "1", "--max-fraction", "1", "-f", "json", dir, reports},
		{"fleet", "plan", "--max-hosts", "1", "--max-fraction", "1", "-f", "json", "--done", dir, reports},
	} {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan int, 1)
		go func() {
			done <- (&app{args: args, stdin: out, stdout: out, stderr: out}).run()
		}()
		select {
		case code := <-done:
			_ = out.Close()
			if text, _ := os.ReadFile(out.Name()); code != 3 || bytes.Count(text, []byte("it is no regular file")) != 2 {
				t.Errorf("%v: exit %d\n%s", args, code, text)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%v waits", args)
		}
	}
}
