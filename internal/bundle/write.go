// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Names in the archive.
const (
	manifestName = "manifest.json"
	reportName   = "report.json"
	planName     = "plan.json"
	hostDir      = "host"
	captureName  = hostDir + "/" + host.CaptureFile
)

// item is an entry with its content.
type item struct {
	Entry
	data []byte
}

// Write writes a bundle. The manifest's entries are made here; the same bundle
// gives the same bytes.
func Write(w io.Writer, b *Bundle) error {
	items, err := b.items()
	if err != nil {
		return err
	}
	m := *b.Manifest
	m.Schema = Schema
	if m.Pseudonyms == nil {
		m.Pseudonyms = []string{}
	}
	m.Entries = append(make(Entries, 0, len(items)), failures(b.Host)...)
	total := 0
	for i := range items {
		m.Entries = append(m.Entries, items[i].Entry)
		total += len(items[i].data)
	}
	manifest, err := document(m)
	if err != nil {
		return err
	}
	if len(m.Entries) > MaxEntries || total > MaxBytes || len(manifest) > maxManifest {
		return fmt.Errorf("the bundle would hold %d entries with %d bytes; at most %d entries with %d bytes can be read again", len(m.Entries), total, MaxEntries, MaxBytes)
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, i := range append([]item{{Entry{Path: manifestName, Type: "file"}, manifest}}, items...) {
		h := &tar.Header{Name: string(i.Path), Mode: 0o644, ModTime: m.Time, Typeflag: tar.TypeReg, Size: int64(len(i.data))}
		switch i.Type {
		case "dir":
			h.Name, h.Mode, h.Typeflag = h.Name+"/", 0o755, tar.TypeDir
		case "link":
			h.Mode, h.Typeflag, h.Linkname = 0o777, tar.TypeSymlink, string(i.Target)
		}
		if h.ModTime.IsZero() {
			h.ModTime = h.ModTime.AddDate(1969, 0, 0) // 1970: tar has no earlier time
		}
		h.ModTime = h.ModTime.Truncate(1e9) // whole seconds fit into the classic header
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(i.data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func document(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}

func file(p string, data []byte) item {
	sum := sha256.Sum256(data)
	return item{Entry{Path: host.Name(p), Type: "file", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}, data}
}

// items are the entries behind the manifest, sorted, directories before what is in them.
func (b *Bundle) items() ([]item, error) {
	var all []item
	for name, data := range map[string][]byte{reportName: b.Report, planName: b.Plan} {
		if data != nil {
			all = append(all, file(name, data))
		}
	}
	dirs := map[string]bool{}
	up := func(p string) {
		for d := path.Dir(p); d != "." && !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	s := b.Host
	for p, data := range s.Files {
		all = append(all, file(hostDir+p, data))
		up(hostDir + p)
	}
	for p, to := range s.Links {
		all = append(all, item{Entry: Entry{Path: host.Name(hostDir + p), Type: "link", Target: host.Name(to)}})
		up(hostDir + p)
	}
	for p := range s.Exact.Lists {
		if p != "/" {
			dirs[hostDir+string(p)] = true
			up(hostDir + string(p))
		}
	}
	for _, i := range all {
		if p := string(i.Path); p == captureName || strings.HasPrefix(p, captureName+"/") {
			return nil, fmt.Errorf("the host itself has a file %s", strings.TrimPrefix(p, hostDir))
		}
	}
	c, err := document(s.Capture)
	if err != nil {
		return nil, err
	}
	if len(c) > maxCapture {
		return nil, fmt.Errorf("%s would have %d bytes; at most %d can be read again", captureName, len(c), maxCapture)
	}
	all = append(all, file(captureName, c))
	up(captureName)
	for d := range dirs {
		all = append(all, item{Entry: Entry{Path: host.Name(d), Type: "dir"}})
	}
	slices.SortFunc(all, func(a, b item) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return all, nil
}

// failures list what could not be read, for who looks into the manifest; what is
// replayed is in the capture.
func failures(s *host.Snapshot) []Entry {
	var out []Entry
	for _, op := range slices.Sorted(maps.Keys(s.Exact.Failed)) {
		f := s.Exact.Failed[op]
		_, p, _ := strings.Cut(string(op), " ")
		if _, there := s.Links[p]; there || f.Errno == 0 && f.Error == "" {
			continue
		}
		if _, there := s.Files[p]; there {
			continue
		}
		e := Entry{Path: host.Name(hostDir + p), Type: "failed", Errno: f.Errno, Error: f.Error}
		if n := len(out); n == 0 || out[n-1] != e {
			out = append(out, e)
		}
	}
	return out
}
