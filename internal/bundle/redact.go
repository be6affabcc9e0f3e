// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Redaction is how much of a host's identity a bundle keeps to itself.
type Redaction string

// The levels.
const (
	None     Redaction = "none"
	Standard Redaction = "standard" // what identifies, and secrets
	Strict   Redaction = "strict"   // also comments in configuration, and labels of disks
)

// Redactions lists them.
var Redactions = []Redaction{None, Standard, Strict}

// Pseudonym is what stands in a bundle for something else.
type Pseudonym struct {
	Kind   string `json:"kind"`
	Stands string `json:"stands"`
	For    string `json:"for"`
}

// Redact replaces what identifies a host, its people and its network, and
// secrets. The same thing has the same pseudonym everywhere, in each of its
// spellings, and pseudonyms of one kind sort as what they stand for, so that a
// replay judges as before. Addresses keep their subnet and their number in it.
func Redact(s *host.Snapshot, level Redaction) (*host.Snapshot, []Pseudonym, error) {
	r := NewRedactor(level)
	r.Learn(s)
	out, err := r.Snapshot(s)
	if err != nil {
		return nil, nil, err
	}
	return out, r.Pseudonyms(), nil
}

// Redactor replaces in texts what it found in a snapshot.
type Redactor struct {
	level Redaction
	found map[kindOf]map[string]string // what is replaced -> pseudonym, "" until all are known
	words []word                       // known names, the longest first
	vocab map[string]bool              // words of the kernel's own paths
	nets  networks
	blank bool // all of a kind have the same pseudonym
}

// NewRedactor gives one that knows nothing yet.
func NewRedactor(level Redaction) *Redactor {
	r := &Redactor{level: level, found: map[kindOf]map[string]string{}, vocab: map[string]bool{}}
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	r.nets.key = [2]uint64{binary.BigEndian.Uint64(key[:8]), binary.BigEndian.Uint64(key[8:])}
	return r
}

// Learn looks for all that is to be replaced.
func (r *Redactor) Learn(s *host.Snapshot) {
	r.learnVocabulary(s)
	r.learnNames(s)
	r.nets.learn(s)
	note := func(text []byte, w where) {
		for _, f := range r.spans(text, w) {
			r.note(f.kind, f.value)
		}
	}
	r.each(s, note)
	r.assign()
}

func (r *Redactor) note(k kindOf, v string) {
	if r.found[k] == nil {
		r.found[k] = map[string]string{}
	}
	if _, ok := r.found[k][v]; !ok {
		r.found[k][v] = ""
	}
}

// each hands over every text of a snapshot, with where it stands.
func (r *Redactor) each(s *host.Snapshot, f func([]byte, where)) {
	name := func(n string) { f([]byte(n), where{path: n, name: true}) }
	for p, data := range s.Files {
		name(p)
		f(readable(p, data), where{path: p})
	}
	for p, to := range s.Links {
		name(p)
		name(to)
	}
	for p, l := range s.Exact.Lists {
		name(string(p))
		for _, n := range l.Names {
			f([]byte(n), where{path: path.Join(string(p), string(n)), name: true})
		}
	}
	failed := func(op host.Name, x *host.Failure) {
		_, p, _ := strings.Cut(string(op), " ")
		name(p)
		if x != nil {
			name(string(x.Path))
			f([]byte(x.Error), where{})
		}
	}
	for op, x := range s.Exact.Failed {
		failed(op, &x)
	}
	for op, x := range s.Exact.Again {
		failed(op, nil)
		_, p, _ := strings.Cut(string(op), " ")
		f(x.Data, where{path: p})
		for _, n := range x.Names {
			name(string(n))
		}
	}
	for op, x := range s.Exact.Notes {
		failed(op, x.Fail)
		f([]byte(x.Text), where{})
	}
	for key, raw := range s.Queries {
		f([]byte(key), where{name: true})
		if v, err := decodeAny(raw); err == nil {
			eachString(v, "", func(key, text string) string { f([]byte(text), where{key: key}); return text })
		}
	}
}

func decodeAny(raw []byte) (any, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(&v)
	return v, err
}

// eachString gives v with every string and key in it replaced by f.
func eachString(v any, key string, f func(key, text string) string) any {
	switch v := v.(type) {
	case string:
		return f(key, v)
	case []any:
		for i := range v {
			v[i] = eachString(v[i], key, f)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[f("", k)] = eachString(x, k, f)
		}
		return out
	}
	return v
}

// Snapshot gives s, which was learnt, with everything replaced.
func (r *Redactor) Snapshot(s *host.Snapshot) (*host.Snapshot, error) {
	out := host.NewSnapshot()
	out.Loose = s.Loose
	out.Time, out.Exact.Live = s.Time, s.Exact.Live
	name := func(p string) string { return string(r.replace([]byte(p), where{path: p, name: true})) }
	op := func(key host.Name) host.Name {
		what, p, _ := strings.Cut(string(key), " ")
		return host.Name(what + " " + name(p))
	}
	listed := func(dir string, all []host.Name) []host.Name {
		names := make([]host.Name, len(all))
		for i, n := range all {
			names[i] = host.Name(path.Base(name(path.Join(dir, string(n)))))
		}
		slices.Sort(names) // as the kernel's are given
		return names
	}
	failure := func(f host.Failure) host.Failure {
		f.Path = host.Name(name(string(f.Path)))
		f.Error = string(r.replace([]byte(f.Error), where{}))
		return f
	}
	for p, data := range s.Files {
		q := name(p)
		if _, ok := out.Files[q]; ok {
			return nil, fmt.Errorf("two files would both be %s", q)
		}
		out.Files[q] = r.file(p, data)
	}
	for p, to := range s.Links {
		out.Links[name(p)] = name(to)
	}
	for p, l := range s.Exact.Lists {
		out.Exact.Lists[host.Name(name(string(p)))] = host.Listing{Names: listed(string(p), l.Names), Kernel: l.Kernel}
	}
	for _, p := range s.Exact.Heads {
		out.Exact.Heads = append(out.Exact.Heads, host.Name(name(string(p))))
	}
	for key, f := range s.Exact.Failed {
		out.Exact.Failed[op(key)] = failure(f)
	}
	for key, x := range s.Exact.Again {
		_, p, _ := strings.Cut(string(key), " ")
		again := host.Repeated{Data: r.file(p, x.Data)}
		if x.Names != nil {
			again.Names = listed(p, x.Names)
		}
		out.Exact.Again[op(key)] = again
	}
	for key, n := range s.Exact.Notes {
		n.Text = string(r.replace([]byte(n.Text), where{}))
		if n.Fail != nil {
			f := failure(*n.Fail)
			n.Fail = &f
		}
		out.Exact.Notes[op(key)] = n
	}
	for p, e := range s.Errno {
		out.Errno[name(p)] = e
	}
	for key, raw := range s.Queries {
		b, err := r.JSON(raw)
		if err != nil {
			return nil, fmt.Errorf("the answer to %s: %w", key, err)
		}
		out.Queries[string(r.replace([]byte(key), where{name: true}))] = b
	}
	return out, nil
}

// file gives a file's content with everything replaced. Where its layout is by
// position, its length stays.
func (r *Redactor) file(p string, data []byte) []byte {
	if isUTF16(p) {
		return fromText(data, r.replace(readable(p, data), where{path: p}))
	}
	if strings.HasPrefix(p, "/sys/") && path.Base(p) == "config" {
		return withoutSerial(data)
	}
	fixed := path.Base(p) == "grubenv" || bytes.IndexByte(data, 0) >= 0 && !strings.HasPrefix(p, "/proc/")
	if !fixed {
		return r.replace(data, where{path: p})
	}
	out := r.replace(data, where{path: p, fixed: true})
	if path.Base(p) == "grubenv" && len(out) != len(data) { // its tail is filled with #
		out = append(bytes.TrimRight(out, "#"), bytes.Repeat([]byte("#"), len(data))...)[:len(data)]
	}
	return out
}

// JSON gives a JSON document with every string and key in it replaced; keys are
// sorted.
func (r *Redactor) JSON(raw []byte) ([]byte, error) {
	v, err := decodeAny(raw)
	if err != nil {
		return nil, err
	}
	return json.Marshal(eachString(v, "", func(key, text string) string { return string(r.replace([]byte(text), where{key: key})) }))
}

func (r *Redactor) replace(text []byte, w where) []byte {
	all := r.spans(text, w)
	if len(all) == 0 {
		return text
	}
	var out []byte
	at := 0
	for _, f := range all {
		new := r.stands(f)
		if n := f.end - f.start; w.fixed && len(new) != n {
			new = (new + strings.Repeat(" ", n))[:n]
		}
		out = append(append(out, text[at:f.start]...), new...)
		at = f.end
	}
	return append(out, text[at:]...)
}

// stands is the pseudonym in the spelling of what it replaces.
func (r *Redactor) stands(f span) string {
	if r.blank {
		return "<" + string(f.kind) + ">"
	}
	p, ok := r.found[f.kind][f.value]
	if !ok || p == "" {
		r.note(f.kind, f.value)
		p = r.pseudonym(f.kind, f.value, len(r.found[f.kind]))
		r.found[f.kind][f.value] = p
	}
	if f.spell != nil {
		return f.spell(p)
	}
	return p
}

// assign gives pseudonyms in the order of what they stand for.
func (r *Redactor) assign() {
	for _, k := range kindOrder {
		all := make([]string, 0, len(r.found[k]))
		for v := range r.found[k] {
			all = append(all, v)
		}
		slices.Sort(all)
		for i, v := range all {
			r.found[k][v] = r.pseudonym(k, v, i+1)
		}
	}
}

// Pseudonyms lists what stands for what.
func (r *Redactor) Pseudonyms() []Pseudonym {
	var out []Pseudonym
	for k, all := range r.found {
		for v, p := range all {
			if v != p {
				out = append(out, Pseudonym{string(k), strings.ToValidUTF8(p, "?"), strings.ToValidUTF8(v, "?")})
			}
		}
	}
	slices.SortFunc(out, func(a, b Pseudonym) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Stands, b.Stands), cmp.Compare(a.For, b.For))
	})
	return out
}

func isUTF16(p string) bool { return strings.HasPrefix(p, "/sys/firmware/efi/efivars/") }

// efiAttributes stand before the content of an EFI variable.
const efiAttributes = 4

// readable gives the text of a file: of an EFI variable in UTF-16, as UTF-8.
func readable(p string, data []byte) []byte {
	if !isUTF16(p) || len(data) < efiAttributes {
		return data
	}
	var out []byte
	for i := efiAttributes; i+1 < len(data); i += 2 {
		out = utf8.AppendRune(out, rune(uint16(data[i])|uint16(data[i+1])<<8))
	}
	return out
}

// fromText puts a text into an EFI variable; one that did not change stays as
// it is, bytes that are no UTF-16 included.
func fromText(data, text []byte) []byte {
	if bytes.Equal(text, readable("/sys/firmware/efi/efivars/", data)) {
		return data
	}
	out := bytes.Clone(data[:efiAttributes])
	for _, c := range string(text) {
		out = append(out, byte(c), byte(c>>8))
	}
	return out
}

// withoutSerial gives a PCI configuration space whose Device Serial Number
// capability (PCI Express Base, 7.9.3) is zero: it holds the MAC of a NIC.
func withoutSerial(config []byte) []byte {
	out := bytes.Clone(config)
	for at, n := 0x100, 0; at+12 <= len(out) && at >= 0x100 && n < 960; n++ {
		head := uint32(out[at]) | uint32(out[at+1])<<8 | uint32(out[at+2])<<16 | uint32(out[at+3])<<24
		if head&0xffff == 3 {
			clear(out[at+4 : at+12])
		}
		at = int(head>>20) &^ 3
	}
	return out
}
