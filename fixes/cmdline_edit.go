// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// The settings of GRUB that make up the kernel command line, in this order.
const (
	grubLinux   = "GRUB_CMDLINE_LINUX"
	grubNormal  = "GRUB_CMDLINE_LINUX_DEFAULT" // not for recovery entries
	maxInitArgs = 31                           // unknown words with a value; one more makes the kernel panic
	maxLine     = 2047                         // bytes, on x86 and 64-bit Arm
)

// neverRemoved are parameters without which a host may not come back, or whose
// loss is seen only when it is too late.
var neverRemoved = []string{"root", "console", "crashkernel"}

// grubWord is a word of a value; a removed one keeps its place until all is done.
type grubWord struct {
	facts.GrubWord
	removed bool
}

// editGrub adds and removes tokens in the two settings. An item is one token,
// or several that stay together in this order. A token takes the place of a
// removed one of its name; any other comes last. Every other word stays as it
// is written.
func editGrub(values map[string]string, add, remove []string) (map[string]string, error) {
	words := map[string][]grubWord{}
	for _, name := range []string{grubLinux, grubNormal} {
		list, err := facts.GrubWords(values[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, w := range list {
			words[name] = append(words[name], grubWord{w, false})
		}
	}
	if err := editWords(words, add, remove, facts.QuoteGrub, "stands in neither of GRUB's settings"); err != nil {
		return nil, err
	}
	out := maps.Clone(values)
	for name, list := range words {
		var raw []string
		for _, w := range list {
			if !w.removed {
				raw = append(raw, w.Raw)
			}
		}
		out[name] = strings.Join(raw, " ")
	}
	return out, nil
}

// editLine is editGrub for tokens that no boot loader quotes; missing is what to
// say of one that is not there.
func editLine(tokens, add, remove []string, missing string) (out []string, err error) {
	words := map[string][]grubWord{}
	for _, t := range tokens {
		words[grubNormal] = append(words[grubNormal], grubWord{facts.GrubWord{Raw: t, Text: t}, false})
	}
	bare := func(t string) (string, error) { return t, nil }
	if err := editWords(words, add, remove, bare, missing); err != nil {
		return nil, err
	}
	for _, w := range words[grubNormal] {
		if !w.removed {
			out = append(out, w.Text)
		}
	}
	return out, nil
}

func editWords(words map[string][]grubWord, add, remove []string, quote func(string) (string, error), missing string) error {
	for _, item := range remove {
		tokens := strings.Fields(item)
		for _, t := range tokens {
			if name, _, _ := strings.Cut(t, "="); slices.Contains(neverRemoved, name) {
				return fmt.Errorf("hostcheck never takes %s= off the command line", name)
			}
		}
		found := false
		for _, name := range []string{grubLinux, grubNormal} {
			for at := indexRun(words[name], tokens); at >= 0; at = indexRun(words[name], tokens) {
				found = true
				for i := range tokens {
					words[name][at+i].removed = true
				}
			}
		}
		if !found {
			return fmt.Errorf("%s %s, so that nothing there takes it away", item, missing)
		}
	}
	for _, item := range add {
		tokens := strings.Fields(item)
		if indexRun(words[grubLinux], tokens) >= 0 || indexRun(words[grubNormal], tokens) >= 0 {
			continue
		}
		var more []grubWord
		for _, t := range tokens {
			raw, err := quote(t)
			if err != nil {
				return err
			}
			more = append(more, grubWord{facts.GrubWord{Raw: raw, Text: t}, false})
		}
		name, at := placeFor(words, tokens[0])
		words[name] = slices.Insert(words[name], at, more...)
	}
	return nil
}

// indexRun finds tokens in a row, -1 when they are not there.
func indexRun(words []grubWord, tokens []string) int {
	for i := 0; i+len(tokens) <= len(words); i++ {
		same := true
		for k, t := range tokens {
			same = same && !words[i+k].removed && words[i+k].Text == t
		}
		if same && len(tokens) > 0 {
			return i
		}
	}
	return -1
}

// placeFor gives where a new token goes.
func placeFor(words map[string][]grubWord, token string) (name string, at int) {
	param, _, _ := strings.Cut(token, "=")
	for _, name := range []string{grubNormal, grubLinux} {
		for i, w := range words[name] {
			if p, _, _ := strings.Cut(w.Text, "="); w.removed && facts.SameParam(p, param) {
				return name, i
			}
		}
	}
	return grubNormal, len(words[grubNormal])
}

// configuredText is what the kernel gets of the two settings.
func configuredText(values map[string]string) (tokens []string, err error) {
	for _, name := range []string{grubLinux, grubNormal} {
		list, err := facts.GrubWords(values[name])
		if err != nil {
			return nil, err
		}
		for _, w := range list {
			if w.Text == "" {
				return nil, fmt.Errorf("%s holds %s, which only GRUB can complete", name, w.Raw)
			}
			tokens = append(tokens, w.Text)
		}
	}
	return tokens, nil
}

// swapRun replaces old by new where old stands in a row in line.
func swapRun(line, old, new []string) ([]string, error) {
	if len(old) == 0 {
		return slices.Concat(line, new), nil
	}
	for i := 0; i+len(old) <= len(line); i++ {
		if slices.Equal(line[i:i+len(old)], old) {
			return slices.Concat(line[:i], new, line[i+len(old):]), nil
		}
	}
	return nil, errors.New("the boot entry does not hold the settings in a row")
}

// sane refuses a command line that a host may not boot with, or that lost more
// than was asked for.
func sane(f *facts.Facts, kernel string, old, new, removed []string) error {
	left := map[string]int{}
	for _, t := range new {
		left[t]++
	}
	for _, item := range removed {
		for t := range strings.FieldsSeq(item) {
			left[t] += len(old) // may be gone as often as it was there
		}
	}
	for _, t := range old {
		if left[t]--; left[t] < 0 {
			return fmt.Errorf("%s would be lost", t)
		}
	}
	env := f.CmdlineEnv()
	text := "BOOT_IMAGE=" + kernel + " " + strings.Join(new, " ")
	before, after := facts.ParseCmdline(strings.Join(old, " "), env), facts.ParseCmdline(text, env)
	if len(text) > maxLine {
		return fmt.Errorf("the command line would have %d bytes, and the kernel reads %d", len(text), maxLine)
	}
	n := 0
	for _, u := range after.UnknownParams {
		if strings.Contains(u, "=") {
			n++
		}
	}
	if n > maxInitArgs {
		return fmt.Errorf("the command line would have %d words with a value that the kernel does not know, and it panics at more than %d", n, maxInitArgs)
	}
	for _, p := range after.Problems {
		if p.Kind == facts.KindFatal {
			return errors.New("the host may not boot with it: " + p.Why)
		}
	}
	if is := after.Effects.Isolated; is != nil && (before.Effects.Isolated == nil || *before.Effects.Isolated != *is) {
		if set, err := facts.ParseCPUSet(*is); err == nil && set.Has(0) {
			return fmt.Errorf("it would isolate the boot CPU (%s)", *is)
		}
	}
	return saneHugepages(f, before, after)
}

// saneHugepages refuses pools that leave a host too little memory to boot, or a
// node less than growing them while the host runs would.
func saneHugepages(f *facts.Facts, before, after *facts.Cmdline) error {
	if slices.Equal(before.Effects.Hugepages, after.Effects.Hugepages) {
		return nil
	}
	var asked, memory int64
	for _, q := range after.Effects.Hugepages {
		asked += q.Count * q.SizeKB
	}
	for _, n := range f.CPUs().Nodes {
		if n.MemKB == nil {
			continue
		}
		memory += *n.MemKB
		if was, will := askedOf(before, n.Node), askedOf(after, n.Node); will > was && will > mostKB(*n.MemKB) {
			return fmt.Errorf("its huge pages would take %s of the %s of node%d; all sizes together may take %s (%d %%, and 16 GiB or a tenth must stay)",
				facts.MemName(will), facts.MemName(*n.MemKB), n.Node, facts.MemName(mostKB(*n.MemKB)), poolPercent)
		}
	}
	if memory > 0 && asked > memory/10*9 {
		return fmt.Errorf("its huge pages would take %d of %d MiB of memory", asked>>10, memory>>10)
	}
	return nil
}

// askedOf is what a command line reserves on a node by name, in kB.
func askedOf(c *facts.Cmdline, node int) (kb int64) {
	for _, q := range c.Effects.Hugepages {
		if q.Node == node {
			kb += q.Count * q.SizeKB
		}
	}
	return kb
}
