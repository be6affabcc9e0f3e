// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Sysfs writes one file of the kernel: kind "sysfs", Name its path, no Target.
// Only files of the table below are written, each with values of its form.
// All are lost at a reboot.
type Sysfs struct{}

// Kind is "sysfs".
func (Sysfs) Kind() string { return "sysfs" }

// SysfsSetting names a file of the kernel.
func SysfsSetting(p string) plan.Setting { return plan.Setting{Kind: "sysfs", Name: p} }

// knob is files that may be written.
type knob struct {
	pattern  string // as path.Match takes it
	form     form
	tier     plan.Tier
	disturbs string
}

// form says which values a file takes and how it shows them.
type form struct {
	says  string                             // for people
	read  func(text string) (string, error)  // what the file shows -> value
	check func(value string) (string, error) // a wanted value in the one spelling
	write func(value string) string          // nil: as it is
}

// knobs are all files that hostcheck writes by this verb, and why each may be
// written on a running host.
var knobs = []knob{
	// the ToS byte of RoCE traffic: forced on all (out-of-tree driver), and
	// rdma_cm's default, which counts for connections that are made later
	{"/sys/class/infiniband/*/tc/1/traffic_class", trafficClass, plan.Safe, "RoCE traffic changes its class, and with it its queues in the fabric"},
	{"/sys/kernel/config/rdma_cm/*/ports/*/default_roce_tos", number(0, 255), plan.Safe, ""},
	// whether the host binds a driver to virtual functions that are made later
	{"/sys/bus/pci/devices/*/sriov_drivers_autoprobe", number(0, 1), plan.Safe, ""},
	// which CPUs a receive queue's packets are handed to: counts from the next packet
	{"/sys/class/net/*/queues/rx-*/rps_cpus", cpuMask, plan.Safe, "other CPUs process what the interface receives"},
	// how far a hugetlb pool may grow by itself: nothing is allocated or freed
	{"/sys/kernel/mm/hugepages/hugepages-*kB/nr_overcommit_hugepages", number(0, 1<<40), plan.Safe, "programs that live on surplus pages get no more of them"},
	// transparent huge pages: counts for memory that is mapped later
	{"/sys/kernel/mm/transparent_hugepage/enabled", choice, plan.Safe, ""},
	{"/sys/kernel/mm/transparent_hugepage/defrag", choice, plan.Safe, ""},
	// one size of them, likewise
	{"/sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled", choice, plan.Safe, ""},
	// whether reclaim moves pages to a slower tier of memory: counts from the next reclaim
	{facts.DemotionPath, trueFalse, plan.Safe, ""},
	// whether the kernel looks for pages that are alike; 2 also unshares those that it found
	{"/sys/kernel/mm/ksm/run", number(0, 2), plan.Safe, ""},
}

// number is a file with one number in it.
func number(lo, hi uint64) form {
	parse := func(s string) (string, error) {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return "", fmt.Errorf("%.40q is not a number", s)
		}
		return strconv.FormatUint(n, 10), nil
	}
	return form{
		says: fmt.Sprintf("a number from %d to %d", lo, hi),
		read: parse,
		check: func(s string) (string, error) {
			v, err := parse(s)
			if n, e := strconv.ParseUint(v, 10, 64); err == nil && (e != nil || n < lo || n > hi) {
				err = fmt.Errorf("%s is beyond %d to %d", v, lo, hi)
			}
			return v, err
		},
	}
}

var maskForm = pattern.Late(`^[0-9a-f]{1,8}(,[0-9a-f]{1,8})*$`)

// cpuMask is a file with a mask of CPUs, "00000000,0000ffff", which is written
// without leading zeros: "ffff".
var cpuMask = form{
	says: "a mask of CPUs in hex, with a comma between groups of 8 digits",
	read: tidyMask, check: tidyMask,
}

func tidyMask(s string) (string, error) {
	if s = strings.ToLower(strings.TrimSpace(s)); !maskForm().MatchString(s) || len(s) > facts.MaxCPUs/4 {
		return "", fmt.Errorf("%.40q is not a mask of CPUs", s)
	}
	var out []string
	for group := range strings.SplitSeq(s, ",") {
		group = strings.Repeat("0", 8-len(group)) + group
		if out != nil {
			out = append(out, group)
		} else if group = strings.TrimLeft(group, "0"); group != "" {
			out = append(out, group)
		}
	}
	if out == nil {
		return "0", nil
	}
	return strings.Join(out, ","), nil
}

var wordForm = pattern.Late(`^[a-z0-9+_-]+$`)

// choice is a file that lists what it takes and has the one in force in
// brackets: "always [madvise] never".
var choice = form{
	says: "one word",
	read: func(s string) (string, error) {
		for w := range strings.FieldsSeq(s) {
			if v, ok := strings.CutPrefix(w, "["); ok && strings.HasSuffix(v, "]") {
				return strings.TrimSuffix(v, "]"), nil
			}
		}
		return "", fmt.Errorf("%.60q has no word in brackets", s)
	},
	check: func(s string) (string, error) {
		if !wordForm().MatchString(s) {
			return "", fmt.Errorf("%.40q is not a word", s)
		}
		return s, nil
	},
}

// trueFalse is a file that shows words and takes any spelling of a boolean.
var trueFalse = form{says: "true or false", read: tidyBool, check: tidyBool}

func tidyBool(s string) (string, error) {
	on, ok := facts.ParseKernelBool(s)
	if !ok {
		return "", fmt.Errorf("%.40q is neither true nor false", s)
	}
	return strconv.FormatBool(on), nil
}

var globalTclass = pattern.Late(`(?m)^Global tclass=([0-9]{1,3})\s*$`)

// trafficClass shows "Global tclass=106" and takes "106"; none is -1.
var trafficClass = form{
	says: "a ToS byte from 0 to 255, or -1 for none",
	read: func(s string) (string, error) {
		if m := globalTclass().FindStringSubmatch(s); m != nil {
			return number(0, 255).check(m[1])
		}
		return "-1", nil
	},
	check: func(s string) (string, error) {
		if s == "-1" {
			return s, nil
		}
		return number(0, 255).check(s)
	},
	write: func(s string) string {
		if s == "-1" {
			return "tclass=-1"
		}
		return s
	},
}

// knobOf gives the entry of the table for a setting.
func knobOf(s plan.Setting) (*knob, error) {
	if s.Target == "" && path.IsAbs(s.Name) && path.Clean(s.Name) == s.Name {
		for i := range knobs {
			if ok, _ := path.Match(knobs[i].pattern, s.Name); ok {
				return &knobs[i], nil
			}
		}
	}
	return nil, fmt.Errorf("%s is not one of the files that hostcheck writes", s.Name)
}

// Read gives the file's value in the one spelling of its form.
func (Sysfs) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	k, err := knobOf(s)
	if err != nil {
		return plan.Absent, err
	}
	text, err := h.Text(s.Name)
	if err != nil {
		return plan.Absent, err
	}
	v, err := k.form.read(text)
	if err != nil {
		return plan.Absent, fmt.Errorf("cannot read %s: %w", s.Name, err)
	}
	return plan.Text(v), nil
}

// Apply writes each file; the engine reads back what came of it.
func (Sysfs) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		k, err := knobOf(c.Setting)
		if err != nil {
			return err
		}
		v, err := k.form.check(c.After.Text)
		if err != nil {
			return fmt.Errorf("cannot set %s: %w", c.Name, err)
		}
		if k.form.write != nil {
			v = k.form.write(v)
		}
		if err := tx.WriteKnob(c.Name, v); err != nil {
			return err
		}
	}
	return nil
}

// ByHand is the line that sets it.
func (Sysfs) ByHand(c plan.Change) string {
	v := c.After.Text
	if k, err := knobOf(c.Setting); err == nil && k.form.write != nil {
		v = k.form.write(v)
	}
	return "echo " + v + " > " + c.Name
}

// Expand refuses files that are not in the table, are not there, or do not
// take the value.
func (Sysfs) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	f := facts.New(h)
	for _, w := range wishes {
		c := plan.Change{Setting: w.Setting, Why: because(w)}
		k, err := knobOf(w.Setting)
		if err != nil {
			refused = append(refused, refuse(w, err.Error()))
			continue
		}
		c.Tier, c.Disturbs = k.tier, k.disturbs
		want, err := k.form.check(w.Want)
		if err != nil {
			refused = append(refused, refuse(w, fmt.Sprintf("%s takes %s: %v", w.Name, k.form.says, err)))
			continue
		}
		c.After = plan.Text(want)
		if owned := ownedBy(f, w); owned != nil {
			refused = append(refused, *owned)
			continue
		}
		if why, steps := k.closed(f, c); why != "" {
			refused = append(refused, refuse(w, why, steps...))
			continue
		}
		changes = append(changes, c)
	}
	return changes, refused, nil
}

// closed says why a file cannot be written with a value on this host.
func (k *knob) closed(f *facts.Facts, c plan.Change) (why string, steps []string) {
	p, want := c.Name, c.After.Text
	text, err := f.Host().Text(p)
	switch {
	case host.Absent(err):
		return p + " is not there: this kernel or driver has no such switch", nil
	case err != nil:
		return host.Reason(err), nil
	}
	if !strings.Contains(text, "[") {
		return "", nil
	}
	var words []string
	for word := range strings.FieldsSeq(text) {
		words = append(words, strings.Trim(word, "[]"))
	}
	if !slices.Contains(words, want) {
		return fmt.Sprintf("%s takes one of %s", p, strings.Join(words, ", ")), nil
	}
	return "", nil
}
