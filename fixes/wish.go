// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// because is a change's reason: who wants it, and why.
func because(w plan.Wish) string {
	if w.Why == "" {
		return w.Check
	}
	return w.Check + ": " + w.Why
}

// united is a change's reason where several wishes ask for it.
func united(wishes []plan.Wish) string {
	var ids, whys []string
	for _, w := range wishes {
		if !slices.Contains(ids, w.Check) {
			ids = append(ids, w.Check)
		}
		if w.Why != "" && !slices.Contains(whys, w.Why) {
			whys = append(whys, w.Why)
		}
	}
	return because(plan.Wish{Check: strings.Join(ids, ", "), Why: strings.Join(whys, "; ")})
}

// untilReboot is for a setting that the kernel forgets at a reboot and that no
// file of the host's own keeps: it says so beside what the change disturbs.
func untilReboot(c plan.Change) plan.Change {
	c.Persist = false
	c.Disturbs = strings.TrimPrefix(c.Disturbs+"; lost at a reboot and a new probe of the driver", "; ")
	return c
}

// refuse is a wish that does not become a change, with what a person can do.
func refuse(w plan.Wish, reason string, steps ...string) plan.Refusal {
	return plan.Refusal{Setting: w.Setting, Want: w.Want, Reason: reason, Steps: steps}
}

// gone is why a setting is not there at all, such as a device that is away:
// after a reboot there is then nothing to undo.
type gone string

func (e gone) Error() string { return string(e) }

// Is makes it match fs.ErrNotExist.
func (gone) Is(target error) bool { return target == fs.ErrNotExist }

// byHand is the other half of a kind that is shown and not done: its wishes
// all become refusals with steps, so there is nothing to read or apply.
type byHand struct{}

func (byHand) Read(_ context.Context, _ *host.Host, s plan.Setting) (plan.Value, error) {
	return plan.Absent, fmt.Errorf("cannot read %s: hostcheck shows settings of kind %s and does not make them", s, s.Kind)
}

func (byHand) Apply(_ context.Context, _ *plan.Tx, changes []plan.Change) error {
	return fmt.Errorf("cannot set %s: hostcheck shows settings of kind %s and does not make them", changes[0].Setting, changes[0].Kind)
}

// joined gives the reasons why something is not known, each once.
func joined(u facts.Unknown) string {
	var why []string
	for _, field := range slices.Sorted(maps.Keys(u)) {
		if !slices.Contains(why, u[field]) {
			why = append(why, u[field])
		}
	}
	return orNothing(why)
}

func orNothing(words []string) string {
	if len(words) == 0 {
		return "nothing that is known"
	}
	return strings.Join(words, ", ")
}

// kernelBefore reports whether the kernel is known to be older than a release;
// a distribution may have taken a feature back to an older one all the same.
func kernelBefore(f *facts.Facts, release string) bool {
	k := f.Kernel().Release
	if k == nil {
		return false
	}
	v := facts.ReleaseNumbers(*k)
	return v != "" && facts.CompareVersions(v, release) < 0
}

// exists reports whether a path is there: a file, or anything that is no file.
func exists(h *host.Host, p string) bool {
	_, err := h.Read(p)
	return err == nil || !host.Absent(err)
}

// device takes a target such as "0000:18:00.0 ens1np0" apart; either part may
// be missing.
func device(target string) (bdf, ifname string) {
	for word := range strings.FieldsSeq(target) {
		switch {
		case strings.Count(word, ":") == 2 && strings.Contains(word, "."):
			bdf = word
		case ifname == "":
			ifname = word
		}
	}
	return bdf, ifname
}

// driverOf gives the driver of an interface, "" of a virtual one.
func driverOf(h *host.Host, ifname string) string {
	driver, _ := h.LinkBase(path.Join(facts.NetClass, ifname, "device/driver"))
	return driver
}
