// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Snapshot is what was asked of a host, with what came back: enough to give
// the same answers again ([Replay]), and no more. What is not in it was not
// captured, which is not the same as absent.
type Snapshot struct {
	Capture                   // with Exact set
	Files   map[string][]byte // real path -> bytes
	Links   map[string]string // real path -> target

	// Loose is for a tree that somebody else collected: what is not in it is
	// said to be absent, as in a directory, which proves nothing.
	Loose bool

	dirs map[string]bool
}

// Exact is what an exact capture says of its operations. Paths are real ones,
// behind all links, where they name what the tree holds, and as they were asked
// where they are part of an operation ("read /proc/cmdline").
type Exact struct {
	Live   bool              `json:"live"`             // taken of a running machine, not of a directory
	Lists  map[Name]Listing  `json:"lists,omitempty"`  // directory -> all of its names
	Heads  []Name            `json:"heads,omitempty"`  // files of which only the beginning was read
	Failed map[Name]Failure  `json:"failed,omitempty"` // operation -> why it failed
	Again  map[Name]Repeated `json:"again,omitempty"`  // operation -> its answer, where the tree gives another one
	Notes  map[Name]Note     `json:"notes,omitempty"`  // "trusted /etc/x" -> what looking at owners and modes gave
}

// Listing is the names in a directory.
type Listing struct {
	Names  []Name `json:"names"`
	Kernel bool   `json:"kernel,omitempty"` // on a file system of the kernel: what is not listed, the kernel lacks
}

// Repeated is an answer that differs from the one to the same question by
// another path.
type Repeated struct {
	Data  []byte `json:"data,omitempty"`
	Names []Name `json:"names,omitempty"`
}

// Note is what a look at something else than content gave.
type Note struct {
	Text string   `json:"text,omitempty"`
	Fail *Failure `json:"fail,omitempty"`
}

// Failure is a recorded error. Op and Path are those of an [Error] where they
// are not the question's own.
type Failure struct {
	Errno  Errno  `json:"errno,omitzero"`
	Error  string `json:"error,omitempty"` // of what is no errno
	Op     string `json:"op,omitempty"`
	Path   Name   `json:"path,omitempty"`
	Kernel bool   `json:"kernel,omitempty"` // its absence is the kernel's own word, see [Host.Lacks]
}

// Name is a path or name: bytes, for which JSON has no type. What is not UTF-8
// is written as a NUL and base64.
type Name string

// MarshalText writes the name.
func (n Name) MarshalText() ([]byte, error) {
	if s := string(n); utf8.ValidString(s) && !strings.HasPrefix(s, "\x00") {
		return []byte(s), nil
	}
	return []byte("\x00" + base64.StdEncoding.EncodeToString([]byte(n))), nil
}

// UnmarshalText reads one.
func (n *Name) UnmarshalText(b []byte) error {
	if len(b) == 0 || b[0] != 0 {
		*n = Name(b)
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(string(b[1:]))
	*n = Name(raw)
	return err
}

// opNames tell operations apart in a capture, unlike those of errors.
var opNames = [...]string{"read", "list", "link", "head"}

func (op Op) key() Name { return Name(opNames[op.Kind] + " " + op.Path) }

// sentinels are the reasons that are told by their text.
var sentinels = []error{ErrDeadline, ErrBlocked, ErrTooLarge, ErrTotal, ErrNotRegular, ErrNotCaptured, ErrNotSampled, ErrNetNamespace, ErrUTSNamespace, ErrIPCNamespace}

// reason gives an error that is the one of the text, or wraps it.
func reason(text string) error {
	for _, s := range sentinels {
		if rest, ok := strings.CutPrefix(text, s.Error()); ok {
			if rest == "" {
				return s
			}
			if strings.HasPrefix(rest, "; ") {
				return fmt.Errorf("%w%s", s, rest)
			}
		}
	}
	return errors.New(text)
}

// failure records err, the answer to op on p.
func failure(err error, op, p string) Failure {
	var f Failure
	if e, ok := err.(*Error); ok { //nolint:errorlint // one that is wrapped has a text of its own
		if e.Op != op || e.Path != p {
			f.Op, f.Path = e.Op, Name(e.Path)
		}
		err = e.Err
	} else {
		f.Op = "-"
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case syscall.Errno:
		f.Errno = Errno(e)
	case Errno:
		f.Errno = e
	default:
		f.Error = err.Error()
	}
	if f.Errno != 0 && unix.ErrnoName(syscall.Errno(f.Errno)) == "" { // has no name to be written by
		f.Errno, f.Error = 0, err.Error()
	}
	return f
}

// err is the error that was recorded.
func (f *Failure) err(op, p string) error {
	cause := error(syscall.Errno(f.Errno))
	if f.Errno == 0 {
		cause = reason(f.Error)
	}
	switch {
	case f.Op == "-":
		return cause
	case f.Op != "":
		return &Error{f.Op, string(f.Path), cause}
	}
	return &Error{op, p, cause}
}

// Snapshot gives all that was asked of the host until now. Nothing is asked
// that was not, but for where links on the way lead.
func (h *Host) Snapshot() (*Snapshot, error) {
	s := NewSnapshot()
	s.Time, s.Exact.Live = h.Time(), h.Running()
	walk := &walker{link: func(p string) (string, error) { return h.linkOnWay(p) }, known: map[string]string{}}
	asked := h.Asked()
	whole := map[string]bool{} // files that were read to their end
	for _, op := range asked {
		a := h.Do(op)
		if a.Err != nil {
			s.fail(h, op, a.Err)
			continue
		}
		real, err := walk.real(op.Path, op.Kind != ReadLink)
		if err != nil {
			continue // it led somewhere a moment ago: kept as an answer below
		}
		switch op.Kind {
		case ReadFile:
			s.Files[real] = a.Data
			whole[real] = true
		case ReadHead:
			if !whole[real] {
				s.Files[real] = a.Data
				if len(a.Data) == HeadBytes {
					s.Exact.Heads = append(s.Exact.Heads, Name(real))
				}
			}
		case ListDir:
			s.Exact.Lists[Name(real)] = Listing{names(a.Names), h.kernelDir(real)}
		case ReadLink:
			s.Links[real] = a.Link
		}
	}
	for l, target := range walk.known {
		if target != "" {
			s.Links[l] = target
		}
	}
	s.Exact.Heads = slices.DeleteFunc(s.Exact.Heads, func(n Name) bool { return whole[string(n)] })
	slices.Sort(s.Exact.Heads)
	s.Exact.Heads = slices.Compact(s.Exact.Heads)
	for _, op := range asked { // what the tree would answer otherwise, as where a file changed between two paths to it
		a := h.Do(op)
		if a.Err != nil {
			continue
		}
		b := s.answer(op)
		if b.Err == nil && bytes.Equal(a.Data, b.Data) && slices.Equal(a.Names, b.Names) && a.Link == b.Link {
			continue
		}
		r := Repeated{Data: a.Data, Names: names(a.Names)}
		if op.Kind == ReadLink {
			r.Data = []byte(a.Link)
		}
		s.Exact.Again[op.key()] = r
	}
	if err := h.recordQueries(s); err != nil {
		return nil, err
	}
	h.notesMu.Lock()
	defer h.notesMu.Unlock()
	maps.Copy(s.Exact.Notes, h.notes)
	if h.replay != nil {
		for k, n := range h.replay.Exact.Notes {
			if _, ok := s.Exact.Notes[k]; !ok {
				s.Exact.Notes[k] = n
			}
		}
	}
	return s, nil
}

// NewSnapshot gives an empty one.
func NewSnapshot() *Snapshot {
	return &Snapshot{
		Capture: Capture{
			Schema: CaptureSchema, Errno: map[string]Errno{}, Queries: map[string]json.RawMessage{},
			Exact: &Exact{Lists: map[Name]Listing{}, Failed: map[Name]Failure{}, Again: map[Name]Repeated{}, Notes: map[Name]Note{}},
		},
		Files: map[string][]byte{}, Links: map[string]string{},
	}
}

// fail records a failed operation. What was not captured in the first place
// stays so.
func (s *Snapshot) fail(h *Host, op Op, err error) {
	if errors.Is(err, ErrNotCaptured) {
		return
	}
	f := failure(err, op.Kind.String(), op.Path)
	f.Kernel = h.Lacks(err)
	s.Exact.Failed[op.key()] = f
	switch syscall.Errno(f.Errno) {
	case 0, unix.ENOENT, unix.ENOTDIR, unix.EINVAL, unix.EISDIR, unix.ELOOP: // a tree that is unpacked says so by itself
	default:
		if utf8.ValidString(op.Path) {
			s.Errno[op.Path] = f.Errno
		}
	}
}

// recordQueries takes the kernel's other answers.
func (h *Host) recordQueries(s *Snapshot) error {
	h.queryMu.Lock()
	all := maps.Clone(h.queries)
	h.queryMu.Unlock()
	for key, q := range all {
		<-q.done
		var r Recorded
		if q.err != nil {
			if errors.Is(q.err, ErrNotCaptured) {
				continue
			}
			f := failure(q.err, "query", key)
			r = Recorded{Errno: f.Errno, Error: f.Error}
		} else {
			b, err := json.Marshal(q.answer)
			if err != nil {
				return fmt.Errorf("cannot record the answer to %s: %w", key, err)
			}
			r.Answer = b
			if v := reflect.ValueOf(q.answer); string(b) == "null" && v.IsValid() {
				r = Recorded{Empty: true}
			}
		}
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("cannot record the answer to %s: %w", key, err)
		}
		s.Queries[key] = b
	}
	return nil
}

func names(all []string) []Name {
	out := make([]Name, len(all))
	for i, n := range all {
		out[i] = Name(n)
	}
	return out
}

func plain(all []Name) []string {
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = string(n)
	}
	return out
}

// linkOnWay reads a link that nobody asked for.
func (h *Host) linkOnWay(p string) (string, error) {
	if h.replay != nil {
		if to, ok := h.replay.Links[p]; ok {
			return to, nil
		}
		return "", unix.EINVAL
	}
	at := placePool.Get().(*place)
	defer at.put()
	at.left = 0
	return h.readLink(p, at)
}

func (h *Host) kernelDir(real string) bool {
	if h.replay != nil {
		return h.replay.Exact.Lists[Name(real)].Kernel
	}
	if h.capture != nil {
		for _, top := range h.capture.Whole {
			if real == top || strings.HasPrefix(real, top+"/") {
				return true
			}
		}
	}
	return (strings.HasPrefix(real, "/sys") || strings.HasPrefix(real, "/proc")) && h.onKernelFS(real)
}

// walker resolves paths one name after the other.
type walker struct {
	link  func(p string) (string, error) // an error: no link
	known map[string]string              // path -> target; "" is no link
}

const maxLinks = 40 // as in the kernel

// real gives p behind all links; its last name is followed where last is set.
func (w *walker) real(p string, last bool) (string, error) {
	at := "/"
	todo := strings.Split(path.Clean("/" + p)[1:], "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		if len(todo) == 0 && !last {
			return next, nil
		}
		to, ok := w.known[next]
		if !ok {
			if target, err := w.link(next); err == nil {
				to = target
			}
			w.known[next] = to
		}
		if to == "" {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		if path.IsAbs(to) {
			at = "/"
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	return at, nil
}
