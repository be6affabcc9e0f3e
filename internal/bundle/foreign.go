// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// What other collectors wrote is read for the files of the host that lie in it
// as they did there. Nothing that is missing is taken for absent, and a
// directory's names are given only where the collector takes all of them: the
// rest is not known.

// maxStream bounds what a foreign archive may expand to: logs, which are passed
// over, are most of it.
const maxStream = 4 << 30

// collector is what reading one kind takes from an archive.
type collector interface {
	// place gives the path on the host for a path in the archive, or "" for
	// what is none of the host's files.
	place(p string) string
	// extra reports whether the content of p is wanted for another reason.
	extra(p string) bool
}

// foreign is a tree that somebody else collected, as far as it was read.
type foreign struct {
	snap    *host.Snapshot
	extras  map[string][]byte
	names   map[string]map[string]bool // directory on the host -> names in it
	seen    map[string]byte            // path in the archive -> type
	written time.Time                  // when the collector wrote its own version
	total   int64
	entries int
}

func newForeign(in string) *foreign {
	s := host.NewSnapshot()
	s.In = in
	return &foreign{snap: s, extras: map[string][]byte{}, names: map[string]map[string]bool{"/": {}}, seen: map[string]byte{}}
}

// readTar takes what the collector wants out of a tar archive.
func (f *foreign) readTar(r io.Reader, c collector) error {
	all := &limited{r: r, left: maxStream}
	in := tar.NewReader(all)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			if _, err = io.Copy(io.Discard, all); err == nil { // to the checksum
				return nil
			}
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("it is truncated: %w", err)
		case errors.Is(err, gzip.ErrChecksum):
			return fmt.Errorf("it is damaged: %w", err)
		case err != nil:
			return fmt.Errorf("cannot read the archive: %w", err)
		}
		sparse := false
		for k := range h.PAXRecords {
			sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
		}
		kind := types[h.Typeflag]
		if sparse || kind == "" { // devices, sockets, hard links: no facts
			kind = "other"
		}
		p := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		if p == "" || p == "." {
			continue
		}
		if err := f.entry(part{p, kind, h.Linkname, h.Size, h.ModTime}, in, c); err != nil {
			return err
		}
	}
}

// part is one entry of an archive.
type part struct {
	path, kind, target string
	size               int64
	time               time.Time
}

// entry takes one entry.
func (f *foreign) entry(i part, r io.Reader, c collector) error {
	f.entries++
	p, kind, target, size := i.path, i.kind, i.target, i.size
	switch {
	case f.entries > MaxEntries:
		return fmt.Errorf("it has more than %d entries", MaxEntries)
	case len(p) > maxPath || len(target) > maxPath:
		return fmt.Errorf("entry %.200q… has a path of more than %d bytes", p, maxPath)
	case p != path.Clean(p) || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0):
		return fmt.Errorf("entry %.200q is not a clean path inside the archive", p)
	}
	if t, twice := f.seen[p]; twice && (t != 'd' || kind != "dir") {
		return fmt.Errorf("entry %.200q is there twice", p)
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if t, ok := f.seen[d]; ok && t != 'd' {
			return fmt.Errorf("entry %.200q lies below %.200q, which is no directory", p, d)
		}
	}
	f.seen[p] = kind[0]
	at := c.place(p)
	switch {
	case at == "" && (kind != "file" || !c.extra(p)), kind == "other":
		return nil
	case kind == "dir":
		f.note(at)
		if f.names[at] == nil {
			f.names[at] = map[string]bool{}
		}
		return nil
	case kind == "link":
		f.note(at)
		f.snap.Links[at] = target
		return nil
	case size > host.MaxFile:
		return nil // a log; the host's reader would not take it either
	}
	if f.total += size; f.total > MaxBytes {
		return fmt.Errorf("it holds more than %d MiB of what is read", MaxBytes>>20)
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, size+1))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("entry %.200q: %w", p, err)
	}
	if at == "" {
		f.extras[p] = b.Bytes()
		if path.Base(p) == "version.txt" {
			f.written = i.time
		}
		return nil
	}
	f.file(at, b.Bytes())
	return nil
}

// file is a file of the host.
func (f *foreign) file(at string, data []byte) {
	f.note(at)
	f.snap.Files[at] = data
}

// note makes a path one of the names in the directories above it.
func (f *foreign) note(at string) {
	for at != "/" {
		dir := path.Dir(at)
		if f.names[dir] == nil {
			f.names[dir] = map[string]bool{}
		}
		if f.names[dir][path.Base(at)] {
			return
		}
		f.names[dir][path.Base(at)] = true
		at = dir
	}
}

// list tells the names in the directories of which the collector takes all.
func (f *foreign) list(whole func(dir string) bool) {
	for dir, names := range f.names {
		if !whole(dir) {
			continue
		}
		l := host.Listing{Names: []host.Name{}}
		for n := range names {
			l.Names = append(l.Names, host.Name(n))
		}
		slices.Sort(l.Names)
		f.snap.Exact.Lists[host.Name(dir)] = l
	}
}

// answer records what the kernel was asked and a command printed.
func (f *foreign) answer(key string, json []byte) {
	f.snap.Queries[key] = json
}

// firstName gives the name of the first entry of a tar archive, from its
// beginning; "" where it is none.
func firstName(r io.Reader) string {
	h, err := tar.NewReader(r).Next()
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(h.Name, "./")
}

// opened takes the compression away.
func opened(r io.Reader, head []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(head, xzMagic):
		return newXZ(r)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	}
	return r, nil
}
