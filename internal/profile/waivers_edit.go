// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The file of waivers belongs to people: adding and removing an entry leaves
// every other line as it is, comments included.

// emptyWaivers is a file without an entry.
const emptyWaivers = "# Findings that somebody decided to live with; see \"hostcheck waive --help\".\nschema: " + WaiverSchema + "\nwaivers: []\n"

// NoWaivers is a file that is not there yet.
func NoWaivers() *Waivers { return &Waivers{text: emptyWaivers} }

// places notes for each entry in which lines it stands.
func (s *source) places(entries []*ast.MappingValueNode, list []Waiver) {
	for i, e := range entries {
		seq, ok := e.Value.(*ast.SequenceNode)
		if !ok || e.Key.GetToken().Value != "waivers" {
			continue
		}
		end := 0
		if i+1 < len(entries) {
			end = place(entries[i+1]).Position.Line
		}
		for j := range seq.Values {
			w := &list[j]
			w.line = place(seq.Values[j]).Position.Line
			if w.next = end; j+1 < len(list) {
				w.next = place(seq.Values[j+1]).Position.Line
			}
			if !seq.IsFlowStyle {
				w.list = seq.Start.Position.Column
			}
		}
	}
}

// Text is the file.
func (ws *Waivers) Text() []byte { return []byte(ws.text) }

// Add gives the file with one more waiver, at the end. One for the same check
// and subject is replaced: old.
func (ws *Waivers) Add(w Waiver) (out *Waivers, old *Waiver, err error) {
	if i := slices.IndexFunc(ws.List, func(o Waiver) bool { return o.same(&w) }); i >= 0 {
		old = &ws.List[i]
		if ws, err = ws.Remove(i); err != nil {
			return nil, nil, err
		}
	}
	want := append(slices.Clone(ws.List), w)
	lines := strings.SplitAfter(strings.TrimRight(ws.text, "\n")+"\n", "\n")
	lines = lines[:len(lines)-1] // what stands behind the last line end
	if len(ws.List) == 0 {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "waivers:") })
		if i >= 0 {
			lines = slices.Delete(lines, i, i+1)
		} else {
			i = len(lines)
		}
		lines = slices.Insert(lines, i, "waivers:\n"+w.yaml(2))
	} else {
		last := &ws.List[len(ws.List)-1]
		i := len(lines)
		if last.next > 0 {
			i = last.next - 1
		}
		lines = slices.Insert(lines, i, w.yaml(max(0, last.list-1)))
	}
	out, err = ws.edited(lines, want)
	return out, old, err
}

// Remove gives the file without the waiver at an index.
func (ws *Waivers) Remove(i int) (*Waivers, error) {
	w := &ws.List[i]
	want := slices.Delete(slices.Clone(ws.List), i, i+1)
	lines := strings.SplitAfter(ws.text, "\n")
	to := len(lines)
	if w.next > 0 {
		to = w.next - 1
	}
	for to > w.line && blankOrComment(lines[to-1]) { // of the next one
		to--
	}
	lines = slices.Delete(slices.Clone(lines), w.line-1, to)
	if len(want) == 0 {
		for j, l := range lines {
			if strings.HasPrefix(l, "waivers:") {
				lines[j] = "waivers: []\n"
			}
		}
	}
	return ws.edited(lines, want)
}

func blankOrComment(l string) bool {
	l = strings.TrimSpace(l)
	return l == "" || l[0] == '#'
}

// edited is the file with those lines, if it then says what is wanted: a file
// that is written in an unusual way is left to a person.
func (ws *Waivers) edited(lines []string, want []Waiver) (*Waivers, error) {
	text := strings.Join(lines, "")
	out, err := ParseWaivers("the edited text", []byte(text))
	same := func(a, b Waiver) bool {
		return a.same(&b) && a.Until == b.Until && a.Owner == b.Owner && a.Reason == b.Reason
	}
	if err != nil || !slices.EqualFunc(out.List, want, same) {
		return nil, errors.New("the file is written in a way that hostcheck does not change; write each waiver as a block of its own, or edit it by hand")
	}
	return out, nil
}

// YAML is the entry as a person would write it.
func (w *Waiver) YAML() string { return w.yaml(2) }

// yaml is the entry as a block, its dash behind so many blanks.
func (w *Waiver) yaml(indent int) string {
	var b strings.Builder
	sep := strings.Repeat(" ", indent) + "- "
	for _, f := range [][2]string{{"check", w.Check}, {"subject", w.Subject}, {"until", w.Until}, {"owner", w.Owner}, {"reason", w.Reason}} {
		if f[1] == "" {
			continue
		}
		text := f[1]
		if f[0] != "check" && f[0] != "until" { // IDs and days are plain texts
			text = Quoted(text)
		}
		fmt.Fprintf(&b, "%s%s: %s\n", sep, f[0], text)
		sep = strings.Repeat(" ", indent+2)
	}
	return b.String()
}

// Quoted is a double-quoted YAML scalar: JSON's strings are those of YAML.
func Quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSpace(b.String())
}
