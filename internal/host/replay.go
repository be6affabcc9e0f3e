// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Replay gives a host that answers from a snapshot, and from nothing else:
// neither a file nor the running kernel is asked. source is the report's
// host.source.
func Replay(s *Snapshot, source string) *Host {
	h := newHost("/", Options{})
	h.source, h.replay, h.capture = source, s, &s.Capture
	s.index()
	h.do = func(op Op, _ *place) Answer {
		a := s.answer(op)
		if errors.Is(a.Err, ErrNotCaptured) {
			a.Err = &Error{op.Kind.String(), op.Path, s.missing()}
		}
		n := len(a.Data)
		for _, name := range a.Names {
			n += len(name)
		}
		h.bytes.Add(int64(len(a.Data)))
		if a.Err == nil && !h.hold(n) {
			return Answer{Err: &Error{op.Kind.String(), op.Path, ErrTotal}}
		}
		return a
	}
	return h
}

// Running reports whether the answers are a running machine's own, now or when
// they were captured, as opposed to those of a directory.
func (h *Host) Running() bool {
	return h.live || h.replay != nil && h.replay.Exact.Live
}

// Captured reports whether the answers come from a snapshot.
func (h *Host) Captured() bool { return h.replay != nil }

// index finds the directories of the tree.
func (s *Snapshot) index() {
	s.dirs = map[string]bool{"/": true}
	add := func(p string) {
		for !s.dirs[p] {
			s.dirs[p] = true
			p = path.Dir(p)
		}
	}
	for p := range s.Files {
		add(path.Dir(p))
	}
	for p := range s.Links {
		add(path.Dir(p))
	}
	for p := range s.Exact.Lists {
		add(string(p))
	}
}

// answer gives what op gave when it was asked. One that was not asked is
// answered from the tree where that is certain.
func (s *Snapshot) answer(op Op) Answer {
	if f, ok := s.Exact.Failed[op.key()]; ok {
		return Answer{Err: f.err(op.Kind.String(), op.Path)}
	}
	if r, ok := s.Exact.Again[op.key()]; ok {
		if op.Kind == ReadLink {
			return Answer{Link: string(r.Data)}
		}
		return Answer{Data: r.Data, Names: plain(r.Names)}
	}
	fail := func(err error) Answer { return Answer{Err: &Error{op.Kind.String(), op.Path, err}} }
	w := walker{known: s.Links, link: func(string) (string, error) { return "", unix.EINVAL }}
	real, err := w.realIn(s, op.Path, op.Kind != ReadLink)
	if err != nil {
		return fail(err)
	}
	data, isFile := s.Files[real]
	list, isListed := s.Exact.Lists[Name(real)]
	to, isLink := s.Links[real]
	isDir := isListed || s.isDir(real)
	switch {
	case op.Kind == ReadLink && isLink:
		return Answer{Link: to}
	case op.Kind == ReadLink && (isFile || isDir):
		return fail(unix.EINVAL)
	case op.Kind == ListDir && isListed:
		return Answer{Names: plain(list.Names)}
	case op.Kind == ListDir && isFile:
		return fail(unix.ENOTDIR)
	case op.Kind == ListDir && s.Loose && isDir:
		return Answer{Names: s.below(real)}
	case op.Kind == ListDir && isDir:
		return fail(ErrNotCaptured)
	case isDir && (op.Kind == ReadFile || op.Kind == ReadHead):
		return fail(unix.EISDIR)
	case op.Kind == ReadFile && isFile:
		if len(data) > maxBytes(op.Path) {
			return fail(ErrTooLarge)
		}
		if slices.Contains(s.Exact.Heads, Name(real)) {
			return fail(ErrNotCaptured)
		}
		return Answer{Data: data}
	case op.Kind == ReadHead && isFile:
		return Answer{Data: data[:min(len(data), HeadBytes)]}
	}
	if gone, _ := s.gone(real); gone || s.Loose {
		return fail(unix.ENOENT)
	}
	return fail(ErrNotCaptured)
}

// HasDir reports whether the tree has a directory at a real path.
func (s *Snapshot) HasDir(p string) bool { return s.isDir(p) }

func (s *Snapshot) isDir(p string) bool {
	if s.dirs == nil {
		s.index()
	}
	return s.dirs[p]
}

// below gives the names that the tree has in a directory.
func (s *Snapshot) below(dir string) []string {
	found := map[string]bool{}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	add := func(p string) {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			name, _, _ := strings.Cut(rest, "/")
			found[name] = true
		}
	}
	for p := range s.Files {
		add(p)
	}
	for p := range s.Links {
		add(p)
	}
	for p := range s.dirs {
		add(p)
	}
	delete(found, "")
	out := []string{}
	for n := range found {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// gone reports whether a listing on the way to a real path lacks its next name,
// and whether that listing is the kernel's own.
func (s *Snapshot) gone(real string) (gone, kernel bool) {
	for p := real; p != "/"; p = path.Dir(p) {
		l, ok := s.Exact.Lists[Name(path.Dir(p))]
		if !ok {
			continue
		}
		return !slices.Contains(l.Names, Name(path.Base(p))), l.Kernel
	}
	return false, false
}

// lacks is [Host.Lacks] of a snapshot.
func (s *Snapshot) lacks(e *Error) bool {
	for _, op := range opNames {
		if op == e.Op || op == "head" && e.Op == "read" {
			if f, ok := s.Exact.Failed[Name(op+" "+e.Path)]; ok {
				return f.Kernel
			}
		}
	}
	w := walker{}
	real, err := w.realIn(s, e.Path, e.Op != ReadLink.String())
	if err != nil {
		return false
	}
	gone, kernel := s.gone(real)
	return gone && kernel
}

// realIn resolves a path by the links of a snapshot.
func (w *walker) realIn(s *Snapshot, p string, last bool) (string, error) {
	w.known = map[string]string{}
	w.link = func(p string) (string, error) {
		if to, ok := s.Links[p]; ok {
			return to, nil
		}
		return "", syscall.EINVAL
	}
	return w.real(p, last)
}

// noted makes a look that is neither a read nor a query part of what a
// snapshot holds.
func (h *Host) noted(what, p string, look func() (string, error)) (string, error) {
	key := Name(what + " " + p)
	if h.replay != nil {
		n, ok := h.replay.Exact.Notes[key]
		switch {
		case !ok:
			return "", &Error{"stat", p, ErrNotCaptured}
		case n.Fail != nil:
			return "", n.Fail.err("stat", p)
		}
		return n.Text, nil
	}
	text, err := look()
	n := Note{Text: text}
	if err != nil {
		f := failure(err, "stat", p)
		n = Note{Fail: &f}
	}
	h.notesMu.Lock()
	defer h.notesMu.Unlock()
	if h.notes == nil {
		h.notes = map[Name]Note{}
	}
	h.notes[key] = n
	return text, err
}

// String tells how much a snapshot holds.
func (s *Snapshot) String() string {
	return fmt.Sprintf("%d files, %d links, %d listings, %d failures, %d queries", len(s.Files), len(s.Links), len(s.Exact.Lists), len(s.Exact.Failed), len(s.Queries))
}
