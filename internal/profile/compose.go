// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Spread is a value in which good hosts differ.
type Spread struct {
	Key    string        `json:"key"`
	Values []SpreadValue `json:"values"`
}

// SpreadValue is one of those, and who has it.
type SpreadValue struct {
	Value string   `json:"value"`
	Hosts []string `json:"hosts"`
}

// Composed is a profile made from good hosts.
type Composed struct {
	Text   string
	Values int
	Spread []Spread
}

// sections are the lists and mappings that are taken, in the order of the file.
var sections = []string{"inventory", "cmdline.require", "iommu", "hugepages", "hugepages.pools", "modules", "system", "sysctl.keys", "nics"}

// Compose writes what all samples have in common as a profile, and what differs
// as comments. Drop leaves out what is known not to hold by itself; nil: nothing.
func Compose(samples []*Sample, tool string, drop func(section, entry string) bool) (*Composed, error) {
	c := &composer{samples: samples}
	c.head(tool)
	c.body(drop)
	c.out.Text = strings.Join(c.emptied(), "\n")
	if probs := Lint([]byte(c.out.Text), "the captured profile"); len(probs) > 0 {
		return nil, fmt.Errorf("hostcheck failed here: what it captured is not a profile: %w", Problems(probs))
	}
	return &c.out, nil
}

// body writes all sections.
func (c *composer) body(drop func(section, entry string) bool) {
	top := ""
	for _, section := range sections {
		body := c.section(section, drop)
		if body == "" {
			continue
		}
		area, list, nested := strings.Cut(section, ".")
		if area != top {
			c.b.WriteString("\n" + area + ":\n")
			top = area
		}
		if nested {
			c.b.WriteString("  " + list + ":\n")
			body = indented(body, "  ")
		}
		c.b.WriteString(indented(body, "  "))
	}
}

// sayable leaves out what a host has and a profile has no word for, such as a
// governor of a vendor's kernel.
func (s *Sample) sayable() {
	for i := range s.Taken {
		t := &s.Taken[i]
		if t.Why != "" {
			continue
		}
		c := &composer{samples: []*Sample{{Taken: []Taken{*t}}}}
		c.b.WriteString("schema: " + SchemaV1 + "\n")
		c.body(nil)
		if len(Lint([]byte(c.b.String()), "")) > 0 {
			t.Why, t.Value = "a profile has no word for "+t.Value, ""
		}
	}
}

type composer struct {
	samples []*Sample
	b       strings.Builder
	out     Composed
}

// head says whom the profile is from and for.
func (c *composer) head(tool string) {
	names := make([]string, len(c.samples))
	for i, s := range c.samples {
		names[i] = s.Name
	}
	shown := names
	if len(names) > 4 {
		shown = append(slices.Clone(names[:3]), fmt.Sprintf("%d more", len(names)-3))
	}
	fmt.Fprintf(&c.b, "# Captured by hostcheck %s from %s.\n", oneLine(tool), hostCount(names))
	if len(names) > 1 {
		c.b.WriteString("# What all of them have in common is a value; in what they differ is a comment.\n")
	}
	fmt.Fprintf(&c.b, "schema: %s\nname: captured\nlayer: site\nsource: %s\n", SchemaV1, Quoted(oneLine("captured from "+strings.Join(shown, ", "))))
	c.one("intent", func(s *Sample) string { return s.Intent })
	var match []string
	if v := c.same(func(s *Sample) string { return s.Platform.Arch }); v == "amd64" || v == "arm64" {
		match = append(match, "arch: ["+v+"]")
	}
	if v := c.same(func(s *Sample) string { return s.Platform.CPU }); slices.Contains([]string{"intel", "amd", "arm"}, v) {
		match = append(match, "cpu: ["+v+"]")
	}
	if match != nil {
		c.b.WriteString("match: {" + strings.Join(match, ", ") + "}\n")
	}
}

func hostCount(names []string) string {
	if len(names) == 1 {
		return oneLine(names[0])
	}
	return fmt.Sprintf("%d hosts", len(names))
}

// same is what all samples have, or "".
func (c *composer) same(get func(*Sample) string) string {
	v := get(c.samples[0])
	for _, s := range c.samples[1:] {
		if get(s) != v {
			return ""
		}
	}
	return v
}

func (c *composer) one(key string, get func(*Sample) string) {
	if v := c.same(get); v != "" {
		fmt.Fprintf(&c.b, "%s: %s\n", key, v)
	}
}

// section writes the values of a section, without its name.
func (c *composer) section(section string, drop func(section, entry string) bool) string {
	type item struct{ entry, key string }
	var entries []string
	keys := map[string][]string{} // of an entry
	values := map[item]map[string][]string{}
	for _, s := range c.samples {
		for _, t := range s.Taken {
			if t.Section != section || drop != nil && drop(section, t.Entry) {
				continue
			}
			i := item{t.Entry, t.Key}
			if !slices.Contains(entries, t.Entry) {
				entries = append(entries, t.Entry)
			}
			if values[i] == nil {
				values[i] = map[string][]string{}
				keys[t.Entry] = append(keys[t.Entry], t.Key)
			}
			v := t.Value
			if t.Why != "" {
				v = "not taken (" + oneLine(t.Why) + ")"
			}
			if !slices.Contains(values[i][v], s.Name) {
				values[i][v] = append(values[i][v], s.Name)
			}
		}
	}
	var b strings.Builder
	for _, e := range entries {
		var held, differs []string
		for _, key := range keys[e] {
			got := values[item{e, key}]
			n := 0
			for _, names := range got {
				n += len(names)
			}
			for _, s := range c.samples {
				if had(got, s.Name) {
					continue
				}
				why := "none"
				if u := s.Unknown[section]; u != "" {
					why = "not known (" + oneLine(u) + ")"
				}
				got[why] = append(got[why], s.Name)
			}
			if len(got) == 1 && n == len(c.samples) {
				v := soleKey(got)
				if !strings.HasPrefix(v, "not taken (") {
					if key != "" {
						held = append(held, key+": "+v)
					} else {
						held = append(held, "")
					}
					c.out.Values++
					continue
				}
			}
			differs = append(differs, c.spread(section, e, key, got))
		}
		b.WriteString(written(e, held, differs))
	}
	return b.String()
}

func had(got map[string][]string, name string) bool {
	for _, names := range got {
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

func soleKey(m map[string][]string) string {
	for k := range m {
		return k
	}
	return ""
}

// spread notes a difference and words it as a comment.
func (c *composer) spread(section, entry, key string, got map[string][]string) string {
	name := key
	sp := Spread{Key: section, Values: []SpreadValue{}}
	if head, _, _ := strings.Cut(entry, "\n"); head != "" {
		_, what, _ := strings.Cut(head, ": ")
		sp.Key = join(sp.Key, strings.Trim(what, `"`))
		name = first(name, head)
	}
	if key != "" {
		sp.Key = join(sp.Key, key)
	}
	var parts []string
	for _, s := range c.samples { // in the order of the hosts
		for v, names := range got {
			if names[0] != s.Name {
				continue
			}
			sp.Values = append(sp.Values, SpreadValue{v, names})
			who := strings.Join(names, ", ")
			if len(names) > 4 {
				who = fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
			}
			parts = append(parts, v+" on "+who)
		}
	}
	slices.SortFunc(sp.Values, func(a, b SpreadValue) int { return strings.Compare(a.Value, b.Value) })
	slices.Sort(parts)
	c.out.Spread = append(c.out.Spread, sp)
	return "# " + oneLine(name+": "+strings.Join(parts, "; "))
}

// written is an entry of a list, or keys of a mapping. An entry of which
// nothing holds is a comment as a whole.
func written(entry string, held, differs []string) string {
	if entry == "" {
		return lined(append(held, differs...))
	}
	head := strings.Split(entry, "\n")
	switch {
	case len(held) > 0:
	case len(differs) == 1 && strings.HasPrefix(differs[0], "# "+head[0]): // which names it
		return lined(differs)
	default:
		for i := range head {
			head[i] = "# " + oneLine(head[i])
		}
		head[0] = "# - " + strings.TrimPrefix(head[0], "# ")
		return lined(append(head, differs...))
	}
	var lines []string
	for _, l := range append(head, held...) {
		if l != "" {
			lines = append(lines, l)
		}
	}
	lines = append(lines, differs...)
	for i := range lines {
		lines[i] = "  " + lines[i]
	}
	lines[0] = "- " + strings.TrimPrefix(lines[0], "  ")
	return lined(lines)
}

func lined(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

func indented(s, by string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		b.WriteString(by + l)
	}
	return b.String()
}

// emptied turns names of sections and lists that hold nothing but comments
// into comments: an empty key is a mistake.
func (c *composer) emptied() []string {
	lines := strings.Split(c.b.String(), "\n")
	depth := func(l string) int { return len(l) - len(strings.TrimLeft(l, " ")) }
	for i := len(lines) - 1; i >= 0; i-- {
		l := lines[i]
		t := strings.TrimSpace(l)
		if !strings.HasSuffix(t, ":") || strings.HasPrefix(t, "#") || strings.HasPrefix(t, "-") {
			continue
		}
		holds := false
		for _, below := range lines[i+1:] {
			s := strings.TrimSpace(below)
			if s != "" && depth(below) <= depth(l) {
				break
			}
			if s != "" && s[0] != '#' {
				holds = true
				break
			}
		}
		if !holds {
			lines[i] = strings.Repeat(" ", depth(l)) + "# " + t
		}
	}
	return lines
}

// oneLine is a text from a host as it may stand in a comment.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 400 {
		return string(r[:400]) + "…"
	}
	return s
}
