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
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Read reads a bundle. It holds at most [MaxBytes] of content and writes nothing
// anywhere; what is odd is refused, even where it would do no harm.
func Read(r io.Reader) (*Bundle, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("it is not gzipped: %w", err)
	}
	all := &limited{r: z, left: MaxBytes + maxManifest}
	in := &reader{tar: tar.NewReader(all), seen: map[string]string{}}
	b, err := in.bundle()
	if err == nil {
		_, err = io.Copy(io.Discard, all) // to the checksum behind the archive
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("it is truncated: %w", err)
	case errors.Is(err, gzip.ErrChecksum):
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// limited ends a stream that expands beyond all bounds.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("it expands to more than %d MiB", (MaxBytes+maxManifest)>>20)
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	return n, err
}

type reader struct {
	tar      *tar.Reader
	manifest *Manifest
	want     map[string]*Entry
	seen     map[string]string // path -> type
	total    int64
}

func (in *reader) bundle() (*Bundle, error) {
	if err := in.readManifest(); err != nil {
		return nil, err
	}
	b := &Bundle{Kind: Kind, Manifest: in.manifest, Host: host.NewSnapshot()}
	var capture []byte
	for {
		h, err := in.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the archive: %w", err)
		}
		e, err := in.accept(h)
		if err != nil {
			return nil, err
		}
		data, err := in.content(h, e)
		if err != nil {
			return nil, err
		}
		p, ofHost := strings.CutPrefix(string(e.Path), hostDir+"/")
		switch {
		case string(e.Path) == captureName:
			capture = data
		case e.Type == "dir":
		case ofHost && e.Type == "link":
			b.Host.Links["/"+p] = h.Linkname
		case ofHost:
			b.Host.Files["/"+p] = data
		case string(e.Path) == reportName:
			b.Report = data
		case string(e.Path) == planName:
			b.Plan = data
		default:
			return nil, fmt.Errorf("entry %.200q has no place in a bundle", e.Path)
		}
	}
	if len(in.seen) != len(in.want) {
		for p := range in.want {
			if _, ok := in.seen[p]; !ok {
				return nil, fmt.Errorf("it is truncated: %.200q is in the manifest and not in the archive", p)
			}
		}
	}
	if capture == nil {
		return nil, fmt.Errorf("it has no %s", captureName)
	}
	c, err := host.DecodeCapture(capture)
	if err != nil {
		return nil, err
	}
	if c.Exact == nil {
		return nil, fmt.Errorf("%s does not say what was asked", captureName)
	}
	b.Host.Capture = *c
	return b, nil
}

func (in *reader) readManifest() error {
	h, err := in.tar.Next()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the archive is empty")
	case err != nil:
		return fmt.Errorf("cannot read the archive: %w", err)
	case h.Name != manifestName || h.Typeflag != tar.TypeReg:
		return fmt.Errorf("it is no bundle: its first entry is %.200q, not %s", h.Name, manifestName)
	case h.Size > maxManifest:
		return fmt.Errorf("%s has %d bytes; at most %d are read", manifestName, h.Size, maxManifest)
	}
	b, err := in.read(h)
	if err != nil {
		return err
	}
	var head struct {
		Schema string `json:"schema"`
		Tool   Tool   `json:"tool"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("cannot decode %s: %w", manifestName, err)
	}
	if head.Schema != Schema {
		why := ""
		if strings.HasPrefix(head.Schema, "hostcheck.bundle/") {
			why = fmt.Sprintf("; hostcheck %.60q wrote it, use that or a later one", head.Tool.Version)
		}
		return fmt.Errorf("%s has schema %.60q; this hostcheck reads %s%s", manifestName, head.Schema, Schema, why)
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("cannot decode %s: %w", manifestName, err)
	}
	in.manifest, in.want = m, make(map[string]*Entry, len(m.Entries))
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type == "failed" {
			continue
		}
		if in.want[string(e.Path)] != nil {
			return fmt.Errorf("the manifest has %.200q twice", e.Path)
		}
		in.want[string(e.Path)] = e
	}
	return nil
}

var types = map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "link"}

// accept gives the manifest's entry for a header, or why there may be no such
// entry.
func (in *reader) accept(h *tar.Header) (*Entry, error) {
	kind := types[h.Typeflag]
	if kind == "" {
		return nil, fmt.Errorf("entry %.200q is of tar type %q; a bundle holds files, directories and symbolic links only", h.Name, h.Typeflag)
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return nil, fmt.Errorf("entry %.200q is a sparse file", h.Name)
		}
	}
	p := h.Name
	if kind == "dir" {
		p = strings.TrimSuffix(p, "/")
	}
	switch {
	case len(p) > maxPath || len(h.Linkname) > maxPath:
		return nil, fmt.Errorf("entry %.200q… has a path of more than %d bytes", p, maxPath)
	case p != path.Clean(p) || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0):
		return nil, fmt.Errorf("entry %.200q is not a clean path inside the archive", h.Name)
	}
	if _, ok := in.seen[p]; ok {
		return nil, fmt.Errorf("entry %.200q is there twice", p)
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if t := in.seen[d]; t != "" && t != "dir" {
			return nil, fmt.Errorf("entry %.200q lies below %.200q, which is a %s", p, d, t)
		}
	}
	e := in.want[p]
	switch {
	case e == nil:
		return nil, fmt.Errorf("entry %.200q is not in the manifest", p)
	case e.Type != kind:
		return nil, fmt.Errorf("entry %.200q is a %s; the manifest says %.20q", p, kind, e.Type)
	case kind == "link" && string(e.Target) != h.Linkname:
		return nil, fmt.Errorf("link %.200q leads to %.200q; the manifest says %.200q", p, h.Linkname, e.Target)
	case kind == "link" && !strings.HasPrefix(p, hostDir+"/"):
		return nil, fmt.Errorf("link %.200q is not one of the host", p)
	}
	in.seen[p] = kind
	return e, nil
}

// limit is how large a file may be.
func limit(p string) int64 {
	switch {
	case p == captureName:
		return maxCapture
	case strings.HasPrefix(p, hostDir+"/"):
		return host.MaxFile
	}
	return maxDocument
}

func (in *reader) content(h *tar.Header, e *Entry) ([]byte, error) {
	if e.Type != "file" {
		return nil, nil
	}
	if most := limit(string(e.Path)); h.Size > most {
		return nil, fmt.Errorf("entry %.200q has %d bytes; at most %d are read", e.Path, h.Size, most)
	}
	if in.total += h.Size; in.total > MaxBytes {
		return nil, fmt.Errorf("it expands to more than %d MiB", MaxBytes>>20)
	}
	b, err := in.read(h)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if int64(len(b)) != e.Size || hex.EncodeToString(sum[:]) != e.SHA256 {
		return nil, fmt.Errorf("entry %.200q is not what the manifest says: %d bytes with SHA-256 %x", e.Path, len(b), sum)
	}
	return b, nil
}

// read reads an entry as it comes: a size that is only claimed costs no memory.
func (in *reader) read(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, in.tar)
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("entry %.200q: %w", h.Name, err)
	}
	return b.Bytes(), nil
}
