// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const captured = `{
  "schema": "hostcheck.capture/v1",
  "time": "2026-01-02T03:04:05Z",
  "whole": ["/sys"],
  "errno": {"/sys/secret": "EACCES", "/sys/dir": "EIO", "/sys/noop": "EOPNOTSUPP"},
  "queries": {
    "ethtool eth0 rings": {"answer": {"rx": 5}},
    "ethtool eth0 channels": {"errno": "EOPNOTSUPP"},
    "klog": {"error": "the log has wrapped"},
    "wrong": {"answer": "text"},
    "damaged": [1],
    "null": {"answer": null},
    "nothing": {},
    "dcb eth0 ieee": {"answer": null}
  }
}`

func TestCapture(t *testing.T) {
	h := open(t, tree(t, map[string]string{
		CaptureFile: captured, "sys/secret": "readable here", "sys/dir/x": "1", "sys/noop": "",
	}))
	for p, want := range map[string]error{
		"/sys/secret": syscall.EACCES,
		"/sys/dir":    syscall.EIO,
		"/sys/noop":   syscall.EOPNOTSUPP,
		"/sys/dir/y":  syscall.ENOENT,
	} {
		if _, err := h.Read(p); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
	if _, err := h.List("/sys/dir"); !errors.Is(err, syscall.EIO) {
		t.Errorf("list: %v", err)
	}
	if _, err := h.Read("/sys/secret"); !errors.Is(err, os.ErrPermission) || !strings.Contains(Reason(err), "needs root") {
		t.Errorf("a recorded errno is told as a real one: %v", err)
	}
	if !lacks(h, "/sys/gone/x") || lacks(h, "/proc/gone") || lacks(h, "/sys/noop/x") || lacks(h, "/sys/dir") || lacks(h, "/etc/gone") {
		t.Error("whole")
	}
	if got := h.Time(); !got.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("time %v", got)
	}

	live := func() (int, error) { t.Error("the running kernel was asked"); return 0, nil }
	type rings struct{ RX int }
	if r, err := Ask(h, "ethtool eth0 rings", func() (rings, error) { panic("asked") }); r.RX != 5 || err != nil {
		t.Errorf("rings %v, %v", r, err)
	}
	for key, want := range map[string]string{
		"ethtool eth0 channels": "cannot query ethtool eth0 channels: operation not supported",
		"klog":                  "cannot query klog: the log has wrapped",
		"wrong":                 "cannot query wrong: the recorded answer cannot be decoded",
		"damaged":               "cannot query damaged: the recorded answer cannot be decoded",
		"null":                  "cannot query null: the recorded answer cannot be decoded",
		"nothing":               "cannot query nothing: the recorded answer cannot be decoded",
		"never asked":           "cannot query never asked: not captured",
	} {
		if _, err := Ask(h, key, live); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", key, err, want)
		}
	}
	if d, err := h.DCB("eth0"); d != nil || err == nil || !strings.Contains(err.Error(), "cannot be decoded") {
		t.Errorf("null for an answer: %v, %v", d, err)
	}
	if _, err := Ask(h, "ethtool eth0 channels", live); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("%v", err)
	}
	if _, err := Ask(open(t, tree(t, nil)), "ethtool eth0 rings", live); !errors.Is(err, ErrNotCaptured) {
		t.Errorf("a tree without a capture file: %v", err)
	}
}

func TestCaptureFileRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"schema":  {`{"schema": "hostcheck.capture/v9"}`, `has schema "hostcheck.capture/v9"; this hostcheck reads hostcheck.capture/v1`},
		"none":    {`{}`, `has schema ""`},
		"damaged": {`{"schema": `, "cannot decode"},
		"errno":   {`{"schema": "hostcheck.capture/v1", "errno": {"/a": "EWHAT"}}`, `unknown errno name "EWHAT"`},
		"link":    {"-> /etc/passwd", "not a regular file"},
		"dir":     {"", "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := CaptureFile
			if name == "dir" {
				p += "/"
			}
			root := tree(t, map[string]string{p: tc.text})
			_, err := Open(root, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), root) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	root := tree(t, map[string]string{CaptureFile: ""})
	must(t, os.Truncate(filepath.Join(root, CaptureFile), maxCapture+1))
	if _, err := Open(root, Options{}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a huge capture file: %v", err)
	}
}

// A capture file is the tree's own: a link to one elsewhere is refused.
func TestCaptureFileElsewhere(t *testing.T) {
	other := tree(t, map[string]string{CaptureFile: captured, "sys/copy/capture.json": captured})
	for name, target := range map[string]string{
		"outside":    filepath.Join(other, ".hostcheck"),
		"nowhere":    "gone",
		"inside too": "sys/copy",
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, map[string]string{"sys/copy/capture.json": captured, ".hostcheck": "-> " + target})
			if _, err := Open(root, Options{}); err == nil || !strings.Contains(err.Error(), ".hostcheck is not a directory") {
				t.Errorf("got %v", err)
			}
		})
	}
	root := tree(t, map[string]string{".hostcheck": "a file"})
	if _, err := Open(root, Options{}); err == nil || !strings.Contains(err.Error(), ".hostcheck is not a directory") {
		t.Errorf("a file: %v", err)
	}
	if h := open(t, tree(t, map[string]string{".hostcheck/other": ""})); h.capture != nil {
		t.Error("a directory without the file")
	}
}

func TestErrnoNames(t *testing.T) {
	for n := syscall.Errno(1); n < 134; n++ {
		b, err := Errno(n).MarshalText()
		if err != nil || len(b) == 0 {
			continue // not every number has a name
		}
		var back Errno
		if err := back.UnmarshalText(b); err != nil || syscall.Errno(back) != n {
			t.Errorf("%s (%d) came back as %d, %v", b, n, back, err)
		}
		if !errors.Is(Errno(n), n) {
			t.Errorf("%s is not itself", b)
		}
	}
	if errors.Is(Errno(syscall.EIO), syscall.ENOENT) {
		t.Error("EIO is ENOENT")
	}
}

// Whatever the capture file of a tree holds, opening the tree and asking it
// ends with an answer or an error.
func FuzzCapture(f *testing.F) {
	f.Add([]byte(captured))
	f.Add([]byte(`{"schema":"hostcheck.capture/v1","queries":{"q":null,"r":{"answer":null},"s":{"errno":"","error":""}}}`))
	f.Add([]byte(`{"schema":"hostcheck.capture/v1","time":"yesterday"}`))
	root := tree(f, map[string]string{CaptureFile: "", "sys/secret": "v"})
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.WriteFile(filepath.Join(root, CaptureFile), b, 0o644))
		h, err := Open(root, Options{})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "cannot use "+root) {
				t.Fatalf("the error does not name the tree: %v", err)
			}
			return
		}
		defer h.Close()
		_, hasErrno := h.capture.Errno["/sys/secret"]
		if data, err := h.Read("/sys/secret"); (err != nil) != hasErrno || err == nil && string(data) != "v" {
			t.Fatalf("%q, %v; errno recorded: %v", data, err, hasErrno)
		}
		for key := range h.capture.Queries {
			if v, err := Ask(h, key, func() (map[string]json.RawMessage, error) { panic("asked live") }); (err == nil) != (v != nil) {
				t.Fatalf("%s: %v with the error %v; want one of them", key, v, err)
			}
		}
	})
}
