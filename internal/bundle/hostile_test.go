// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// small is a bundle of a few entries.
func small() *Bundle {
	s := host.NewSnapshot()
	s.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.Files["/proc/cmdline"] = []byte("quiet\n")
	s.Files["/sys/class/net/eth0/mtu"] = []byte("9000\n")
	s.Links["/sys/class/net/eth1"] = "../../devices/eth1"
	s.Exact.Lists["/sys/class/net"] = host.Listing{Names: []host.Name{"eth0", "eth1"}, Kernel: true}
	s.Exact.Failed["read /proc/secret"] = host.Failure{Errno: host.Errno(13)}
	return &Bundle{Kind: Kind, Host: s, Manifest: &Manifest{Host: "h", Redaction: "none", Time: s.Time}, Report: []byte("{}\n")}
}

// archive is a tar archive that a test may spoil.
type archive struct {
	manifest Manifest
	entries  []entry
}

type entry struct {
	tar.Header
	data []byte
}

func packed(t testing.TB, b *Bundle) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func parse(t testing.TB, file []byte) *archive {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	a := new(archive)
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		a.entries = append(a.entries, entry{*h, data})
	}
	if err := json.Unmarshal(a.entries[0].data, &a.manifest); err != nil {
		t.Fatal(err)
	}
	a.entries = a.entries[1:]
	return a
}

// add adds an entry, and the manifest's.
func (a *archive) add(h tar.Header, data string) {
	kind := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "link"}[h.Typeflag]
	sum := sha256.Sum256([]byte(data))
	h.Size, h.Mode = int64(len(data)), 0o644
	e := Entry{Path: host.Name(strings.TrimSuffix(h.Name, "/")), Type: kind, Size: h.Size, SHA256: hex.EncodeToString(sum[:]), Target: host.Name(h.Linkname)}
	a.manifest.Entries = append(a.manifest.Entries, e)
	a.entries = append(a.entries, entry{h, []byte(data)})
}

func (a *archive) pack(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	m, err := json.Marshal(a.manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append([]entry{{tar.Header{Name: manifestName, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m))}, m}}, a.entries...) {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (a *archive) find(name string) *entry {
	for i := range a.entries {
		if a.entries[i].Name == name {
			return &a.entries[i]
		}
	}
	return nil
}

// The same bundle gives the same bytes, and reading gives it back.
func TestRoundTrip(t *testing.T) {
	first := packed(t, small())
	b, err := Read(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	b.Manifest.Entries = nil
	if !bytes.Equal(first, packed(t, b)) {
		t.Error("writing what was read gives other bytes")
	}
	h := b.Replay()
	if got, err := h.Text("/proc/cmdline"); got != "quiet" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for p, want := range map[string]string{
		"/proc/secret":            "permission denied",
		"/proc/never":             "not captured",
		"/sys/class/net/eth1/mtu": "not captured", // the link leads to what was not looked at
		"/sys/class/net/eth2/mtu": "no such file or directory",
		"/sys/class/net":          "is a directory",
	} {
		_, err := h.Read(p)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", p, err, want)
		}
		if lacks := h.Lacks(err); lacks != strings.HasPrefix(p, "/sys/class/net/eth2") {
			t.Errorf("%s: the kernel lacks it: %v", p, lacks)
		}
	}
}

func TestHostile(t *testing.T) {
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	raw := func(h tar.Header) func(*archive) {
		return func(a *archive) { h.Mode = 0o644; a.entries = append(a.entries, entry{h, nil}) }
	}
	cases := map[string]struct {
		spoil func(*archive)
		want  string
	}{
		"path up":           {func(a *archive) { a.add(file("host/../../etc/x"), "x") }, "not a clean path"},
		"path up first":     {func(a *archive) { a.add(file("../x"), "x") }, "not a clean path"},
		"absolute path":     {func(a *archive) { a.add(file("/etc/x"), "x") }, "not a clean path"},
		"dot path":          {func(a *archive) { a.add(file("host/./x"), "x") }, "not a clean path"},
		"below a link":      {func(a *archive) { a.add(link("host/l", "/etc"), ""); a.add(file("host/l/x"), "x") }, "lies below"},
		"below a file":      {func(a *archive) { a.add(file("host/f"), "x"); a.add(file("host/f/x"), "x") }, "lies below"},
		"link outside":      {func(a *archive) { a.add(link("l", "/etc"), "") }, "not one of the host"},
		"link elsewhere":    {func(a *archive) { a.find("host/sys/class/net/eth1").Linkname = "/etc/shadow" }, "the manifest says"},
		"hard link":         {raw(tar.Header{Name: "host/h", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}), "files, directories and symbolic links only"},
		"character device":  {raw(tar.Header{Name: "host/c", Typeflag: tar.TypeChar, Devmajor: 1}), "files, directories and symbolic links only"},
		"block device":      {raw(tar.Header{Name: "host/b", Typeflag: tar.TypeBlock, Devmajor: 8}), "files, directories and symbolic links only"},
		"FIFO":              {raw(tar.Header{Name: "host/p", Typeflag: tar.TypeFifo}), "files, directories and symbolic links only"},
		"twice":             {func(a *archive) { a.entries = append(a.entries, *a.find("host/proc/cmdline")) }, "is there twice"},
		"twice in manifest": {func(a *archive) { a.manifest.Entries = append(a.manifest.Entries, a.manifest.Entries[1]) }, "twice"},
		"not in manifest":   {raw(file("host/extra")), "not in the manifest"},
		"no place":          {func(a *archive) { a.add(file("evil.sh"), "x") }, "has no place"},
		"gone":              {func(a *archive) { a.entries = a.entries[:len(a.entries)-1] }, "truncated"},
		"other content":     {func(a *archive) { copy(a.find("host/proc/cmdline").data, "QUIET") }, "not what the manifest says"},
		"other type": {func(a *archive) {
			a.find("host/proc/cmdline").Typeflag = tar.TypeDir
			a.find("host/proc/cmdline").data = nil
			a.find("host/proc/cmdline").Size = 0
		}, "is a dir"},
		"from the future": {func(a *archive) { a.manifest.Schema, a.manifest.Tool.Version = "hostcheck.bundle/v9", "9.0" }, `hostcheck "9.0" wrote it`},
		"another schema":  {func(a *archive) { a.manifest.Schema = "" }, "has schema"},
		"long path":       {func(a *archive) { a.add(file("host/"+strings.Repeat("a/", 3000)+"x"), "x") }, "more than 4096"},
		"long link":       {func(a *archive) { a.add(link("host/l", strings.Repeat("a", 5000)), "") }, "more than 4096"},
		"large file":      {func(a *archive) { a.add(file("host/f"), strings.Repeat("0", host.MaxFile+1)) }, "at most"},
		"sparse": {func(a *archive) {
			h := file("host/f")
			h.PAXRecords = map[string]string{"HOSTCHECK.x": "y"}
			a.add(h, "x")
		}, ""},
		"no capture":         {func(a *archive) { a.drop(captureName) }, "has no host/.hostcheck/capture.json"},
		"capture of a tree":  {func(a *archive) { a.replace(captureName, `{"schema":"hostcheck.capture/v1"}`) }, "does not say what was asked"},
		"capture is no JSON": {func(a *archive) { a.replace(captureName, `{`) }, "cannot decode"},
		"links in a circle":  {func(a *archive) { a.add(link("host/a", "b"), ""); a.add(link("host/b", "a"), "") }, ""},
	}
	whole := packed(t, small())
	for name, tc := range cases {
		a := parse(t, whole)
		tc.spoil(a)
		b, err := Read(bytes.NewReader(a.pack(t)))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if name == "links in a circle" && err == nil {
			if _, err := b.Replay().Read("/a/x"); err == nil || !strings.Contains(err.Error(), "too many levels") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	n := len(cases)
	for cut := 0; cut < len(whole)-1; cut += 7 { // anywhere
		if _, err := Read(bytes.NewReader(whole[:cut])); err == nil {
			t.Fatalf("cut after %d of %d bytes it is still read", cut, len(whole))
		}
		n++
	}
	t.Logf("%d hostile bundles, all refused or harmless", n)
}

func (a *archive) drop(name string) {
	for i := range a.entries {
		if a.entries[i].Name == name {
			a.entries = append(a.entries[:i], a.entries[i+1:]...)
			break
		}
	}
	for i := range a.manifest.Entries {
		if string(a.manifest.Entries[i].Path) == name {
			a.manifest.Entries = append(a.manifest.Entries[:i], a.manifest.Entries[i+1:]...)
			break
		}
	}
}

func (a *archive) replace(name, data string) {
	a.drop(name)
	a.add(tar.Header{Name: name, Typeflag: tar.TypeReg}, data)
}

// A sparse file and one of a size that is only claimed, as no writer of Go makes them.
func TestSparse(t *testing.T) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	m := []byte(`{"schema":"hostcheck.bundle/v1","entries":[{"path":"host/f","type":"file","size":1099511627776}]}`)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: manifestName, Typeflag: tar.TypeReg, Size: int64(len(m))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(m); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 512)
	copy(block, "host/f")
	copy(block[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        S")
	copy(block[257:], "ustar  \x00")
	copy(block[386:], "00000000000\x0000000000000\x00")
	copy(block[483:], "77777777777\x00") // 8 GiB
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
	if _, err := z.Write(block); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(&out); err == nil || !strings.Contains(err.Error(), "type 'S'") && !strings.Contains(err.Error(), "cannot read the archive") {
		t.Errorf("a sparse file: %v", err)
	}
}

// zeros expands without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A small file that expands to much is refused before it is held.
func TestBombs(t *testing.T) {
	bomb := func(m string, h tar.Header) []byte {
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		w := tar.NewWriter(z)
		_ = w.WriteHeader(&tar.Header{Name: manifestName, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m))})
		_, _ = io.WriteString(w, m)
		_ = w.WriteHeader(&h)
		_, _ = io.Copy(w, io.LimitReader(zeros{}, min(h.Size, 8<<20)))
		_ = z.Close() // the archive itself is not ended
		return out.Bytes()
	}
	list := `{"schema":"hostcheck.bundle/v1","entries":[` + strings.Repeat(`{},`, MaxEntries+1) + `{}]}`
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"a large entry":    {bomb(`{"schema":"hostcheck.bundle/v1","entries":[{"path":"host/f","type":"file"}]}`, tar.Header{Name: "host/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 6 << 30}), "at most"},
		"many entries":     {bomb(list, tar.Header{Name: "x"}), "entries"},
		"a large manifest": {bomb("", tar.Header{Name: "x"})[:0], "not gzipped"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Read(bytes.NewReader(tc.file))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 512<<20 {
			t.Errorf("%s: %d MiB were allocated", name, got>>20)
		}
	}
	var out bytes.Buffer // one manifest that never ends
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	w := tar.NewWriter(z)
	_ = w.WriteHeader(&tar.Header{Name: manifestName, Typeflag: tar.TypeReg, Mode: 0o644, Size: 7 << 30})
	_ = w.Flush()
	_ = z.Close()
	if _, err := Read(&out); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a manifest of 7 GiB: %v", err)
	}
}

// Reading writes nothing.
func TestWritesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Chdir(dir)
	a := parse(t, packed(t, small()))
	a.add(tar.Header{Name: "host/../../x", Typeflag: tar.TypeReg}, "x")
	for _, file := range [][]byte{packed(t, small()), a.pack(t)} {
		b, err := Read(bytes.NewReader(file))
		if err == nil {
			_, _ = b.Replay().Read("/proc/cmdline")
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := packed(t, small())
	if b, err := Open(put("good", good), nil); err != nil || b.Kind != Kind {
		t.Errorf("%v", err)
	}
	if _, err := Open("-", bytes.NewReader(good)); err != nil {
		t.Errorf("standard input: %v", err)
	}
	for name, tc := range map[string]struct{ path, want string }{
		"missing":   {filepath.Join(dir, "gone"), "no such file"},
		"empty":     {put("empty", nil), "it is empty"},
		"text":      {put("text", []byte("hello")), "it is no bundle"},
		"directory": {dir, "--root"},
	} {
		if _, err := Open(tc.path, nil); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.path) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// Whatever a file holds, reading it ends with a bundle or an error, and a bundle
// answers every question.
func FuzzRead(f *testing.F) {
	whole := packed(f, small())
	z, err := gzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(plain[:len(plain)/2])
	f.Fuzz(func(t *testing.T, archive []byte) { // gzip would keep the fuzzer out
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.NoCompression)
		_, _ = z.Write(archive)
		_ = z.Close()
		b, err := Read(&out)
		if (err == nil) == (b == nil) {
			t.Fatalf("%v with the error %v", b, err)
		}
		if err != nil {
			return
		}
		h := b.Replay()
		for _, p := range []string{"/", "/proc/cmdline", "/sys/class/net/eth1/mtu", "/../x"} {
			for _, k := range []host.Kind{host.ReadFile, host.ListDir, host.ReadLink, host.ReadHead} {
				if a := h.Do(host.Op{Kind: k, Path: p}); a.Err == nil && a.Data == nil && a.Names == nil && a.Link == "" && k == host.ListDir {
					t.Fatalf("%s %s: no answer and no error", k, p)
				}
			}
		}
		if _, err := h.Snapshot(); err != nil {
			t.Fatal(err)
		}
	})
}
