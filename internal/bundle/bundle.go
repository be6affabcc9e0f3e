// SPDX-License-Identifier: Apache-2.0

// Package bundle writes and reads bundles: what was asked of a host in one
// file, so that somebody else gets the same verdict without the host.
//
// A bundle is a gzipped tar archive that any tool opens:
//
//	manifest.json                  what it is, and the size and SHA-256 of every file
//	host/...                       the host's files, directories and links, where they lie on it
//	host/.hostcheck/capture.json   what files cannot say: errnos, the kernel's recorded answers
//	report.json, plan.json         the verdict and the plan of that moment
//
// Reading one unpacks nothing: it is kept in memory, in bounds, and a host that
// replays it asks nothing else. An archive that is not exactly what its manifest
// says is refused with the reason.
package bundle

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Schema names the format of a bundle. A reader takes this version and no other.
const Schema = "hostcheck.bundle/v1"

// Limits of a bundle. What is beyond is refused before it is held.
const (
	MaxBytes    = 384 << 20 // of all content together
	MaxEntries  = 400_000
	maxManifest = 64 << 20 // an entry of it has some 150 bytes
	maxCapture  = 32 << 20
	maxDocument = 32 << 20 // report, plan
	maxPath     = 4096
)

// Kind of a bundle of ours, the report's host.source.
const Kind = "bundle"

// Manifest is what a bundle says of itself.
type Manifest struct {
	Schema    string    `json:"schema"`
	Tool      Tool      `json:"tool"`
	Time      time.Time `json:"time,omitzero"` // when the host was sampled
	Host      string    `json:"host"`
	Arch      string    `json:"arch"`
	UID       int       `json:"uid"`       // that the host was read as: 0 is root
	Source    string    `json:"source"`    // what the host was read from: live, root, bundle
	Program   string    `json:"program"`   // path of the hostcheck that ran, which units of a plan may run
	Redaction string    `json:"redaction"` // none, standard, strict

	// Pseudonyms stand in the bundle for what was redacted.
	Pseudonyms []string `json:"pseudonyms"`

	Entries Entries `json:"entries"`
}

// Entries are decoded one by one, so that a short text cannot make many.
type Entries []Entry

// UnmarshalJSON decodes a list of at most [MaxEntries].
func (l *Entries) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("entries is not a list")
	}
	*l = nil
	for d.More() {
		if len(*l) == MaxEntries {
			return fmt.Errorf("more than %d entries", MaxEntries)
		}
		var e Entry
		if err := d.Decode(&e); err != nil {
			return err
		}
		*l = append(*l, e)
	}
	return nil
}

// Tool is the hostcheck that wrote the bundle.
type Tool struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
}

// Entry is one entry of the archive, or a path of the host that could not be read.
type Entry struct {
	Path   host.Name  `json:"path"`
	Type   string     `json:"type"` // file, dir, link, failed
	Size   int64      `json:"size,omitempty"`
	SHA256 string     `json:"sha256,omitempty"`
	Target host.Name  `json:"target,omitempty"` // of a link
	Errno  host.Errno `json:"errno,omitzero"`
	Error  string     `json:"error,omitempty"` // a reason that is no errno
}

// Bundle is a host to replay.
type Bundle struct {
	Kind     string // the report's host.source: "bundle", or the name of what somebody else collected
	Host     *host.Snapshot
	Manifest *Manifest // nil for a foreign kind
	Report   []byte    // JSON; nil where there is none
	Plan     []byte
}

// Replay gives the host.
func (b *Bundle) Replay() *host.Host { return host.Replay(b.Host, b.Kind) }

// kind is one format. A foreign collector's is a line in kinds with a reader
// that fills a [host.Snapshot] with Loose set.
type kind struct {
	name string
	is   func(head []byte) bool // from the first bytes, of which there may be few
	read func(r io.Reader) (*Bundle, error)
}

var kinds = []kind{
	{Kind, isBundle, Read},
	{KindSOS, isSOS, readSOS},
	{KindGHW, isGHW, readGHW},
	{KindRDMATopo, isRDMATopo, readRDMATopo},
}

// headBytes is how much of a file its kind is told from.
const headBytes = 64 << 10

// Open reads the bundle in a file, or from in where name is "-". The error
// names the file and says what is wrong with it.
func Open(name string, in io.Reader) (*Bundle, error) {
	b, err := open(name, in)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", shown(name), err)
	}
	return b, nil
}

func shown(name string) string {
	if name == "-" {
		return "the bundle on standard input"
	}
	return "the bundle " + name
}

func open(name string, in io.Reader) (*Bundle, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			var pe *fs.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			return nil, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if st.IsDir() && IsCollected(name) {
			return openSOS(name)
		}
		if st.IsDir() {
			return nil, errors.New("it is a directory; a host's tree is given with --root")
		}
		in = f
	}
	if in == nil {
		return nil, errors.New("there is no standard input")
	}
	r := bufio.NewReaderSize(in, headBytes)
	head, err := r.Peek(headBytes)
	switch {
	case len(head) == 0 && (err == nil || errors.Is(err, io.EOF)):
		return nil, errors.New("it is empty")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	for _, k := range kinds {
		if k.is(head) {
			return k.read(r)
		}
	}
	return nil, errors.New("it is no bundle: \"hostcheck bundle create\" writes a gzipped tar archive that begins with manifest.json; a sosreport, a snapshot of ghw and a dump of rdma_topo are read, too")
}

// isBundle reports whether a file begins with a gzipped tar whose first entry is
// the manifest.
func isBundle(head []byte) bool {
	z, err := gzip.NewReader(bytes.NewReader(head))
	if err != nil {
		return false
	}
	name := make([]byte, 100)
	if _, err := io.ReadFull(z, name); err != nil {
		return false
	}
	return strings.TrimRight(string(name), "\x00") == manifestName
}
