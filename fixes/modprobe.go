// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Modprobe loads kernel modules, now and at each boot: kind "modprobe", Name
// the module, no Target; the value is "loaded" or absent. With the module as
// Target, Name is one of its parameters and the wish becomes a file in
// /etc/modprobe.d, which counts when the module is loaded next.
type Modprobe struct {
	// Unload is delete_module(2); tests put their own here.
	Unload func(module string) error
}

// Loaded is the value of a module that is there.
const Loaded = "loaded"

// Kind is "modprobe".
func (Modprobe) Kind() string { return "modprobe" }

// ModuleSetting names a module as something to load.
func ModuleSetting(module string) plan.Setting {
	return plan.Setting{Kind: "modprobe", Name: facts.ModuleName(module)}
}

// ModuleParameter names a parameter of a module.
func ModuleParameter(module, parameter string) plan.Setting {
	return plan.Setting{Kind: "modprobe", Target: facts.ModuleName(module), Name: parameter}
}

var moduleForm = pattern.Late(`^[A-Za-z0-9_]{1,55}$`)

func moduleOf(s plan.Setting) (string, error) {
	if s.Target != "" {
		return "", fmt.Errorf("%s is a parameter, which counts when the module is loaded; it has no value of its own", s)
	}
	if !moduleForm().MatchString(s.Name) {
		return "", fmt.Errorf("%q is not the name of a kernel module", s.Name)
	}
	return s.Name, nil
}

// Read tells whether a module is loaded.
func (Modprobe) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	module, err := moduleOf(s)
	if err != nil {
		return plan.Absent, err
	}
	state, err := h.Text("/sys/module/" + module + "/initstate")
	switch {
	case host.Absent(err):
		return plan.Absent, nil
	case err != nil:
		return plan.Absent, err
	case state != "live":
		return plan.Absent, fmt.Errorf("the module %s is on its way in or out: %s", module, state)
	}
	return plan.Text(Loaded), nil
}

// Apply loads a module, and unloads one that a change loaded. One that is in
// use by then stays: see [Modprobe.Stays].
func (m Modprobe) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		module, err := moduleOf(c.Setting)
		if err != nil {
			return err
		}
		h, err := tx.Host()
		if err != nil {
			return err
		}
		now, err := m.Read(context.Background(), h, c.Setting)
		h.Close()
		if err == nil && now == c.After {
			continue
		}
		if c.After.Present {
			err = tx.Run("modprobe", "-q", "--", module)
		} else {
			err = tx.Patient(2*time.Minute).Call("unload "+module, func() error { return m.unload(module) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m Modprobe) unload(module string) error {
	unload := m.Unload
	if unload == nil {
		unload = func(module string) error { return unix.DeleteModule(module, unix.O_NONBLOCK) }
	}
	err := unload(module)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the module %s is in use (%w)", module, err)
	}
	return err
}

// Stays lets a module be that something uses by now: nothing depends on its
// absence, and taking it away would break its user.
func (Modprobe) Stays(_ context.Context, h *host.Host, c plan.Change, live plan.Value) string {
	if c.After.Present || !live.Present {
		return ""
	}
	dir := "/sys/module/" + c.Name
	if n, err := h.Int(dir + "/refcnt"); err == nil && n > 0 {
		return fmt.Sprintf("the module %s is in use (%d) and stays loaded; the next boot does not load it", c.Name, n)
	}
	if by, err := h.List(dir + "/holders"); err == nil && len(by) > 0 {
		return fmt.Sprintf("the module %s is used by %s and stays loaded; the next boot does not load it", c.Name, strings.Join(by, ", "))
	}
	return ""
}

// ByHand is how a person sets c.After.
func (Modprobe) ByHand(c plan.Change) string {
	if c.After.Present {
		return "modprobe " + c.Name
	}
	return "rmmod " + c.Name
}

// Expand loads modules with what they need, and writes the files for the boot.
func (Modprobe) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) ([]plan.Change, []plan.Refusal, error) {
	f := facts.New(h)
	conf := readModprobeConf(h)
	var changes []plan.Change
	var refused []plan.Refusal
	options := map[string][]plan.Wish{}
	for _, w := range wishes {
		if w.Target != "" {
			options[w.Target] = append(options[w.Target], w)
			continue
		}
		more, no := load(h, f, conf, w)
		if changes = append(changes, more...); no != nil {
			refused = append(refused, *no)
		}
	}
	for _, module := range slices.Sorted(maps.Keys(options)) {
		more, no := parameters(h, f, module, options[module])
		changes, refused = append(changes, more...), append(refused, no...)
	}
	return changes, refused, nil
}

// load brings a module in: what it depends on first, one change for each, so
// that undo takes out exactly what came in.
func load(h *host.Host, f *facts.Facts, conf modprobeConf, w plan.Wish) ([]plan.Change, *plan.Refusal) {
	no := func(reason string, steps ...string) ([]plan.Change, *plan.Refusal) {
		r := refuse(w, reason, steps...)
		return nil, &r
	}
	if _, err := moduleOf(w.Setting); err != nil {
		return no(err.Error())
	}
	if w.Want != Loaded {
		return no(fmt.Sprintf("a module can be wished %q only; hostcheck unloads only what it loaded", Loaded))
	}
	if why := conf.unknown; why != "" {
		return no("what modprobe is told to do is not known: " + why)
	}
	if line := conf.forbids(w.Name); line != "" {
		return no(fmt.Sprintf("somebody forbids the module %s: %s", w.Name, line), "remove that line if it is no longer meant, and run hostcheck again")
	}
	if r := ownedBy(f, w); r != nil {
		return nil, r
	}
	if mod, _ := f.Modules().Find(w.Name); mod != nil && mod.State == "built-in" {
		return nil, nil // always there
	}
	needs, why := dependencies(h, f, w.Name)
	if why != "" {
		return no(why)
	}
	var changes []plan.Change
	for _, module := range append(needs, w.Name) {
		reason := because(w)
		if module != w.Name {
			reason = w.Name + " needs it; " + reason
		}
		changes = append(changes, plan.Change{Setting: ModuleSetting(module), After: plan.Text(Loaded), Tier: w.Tier, Persist: true, Why: reason})
	}
	p := "/etc/modules-load.d/hostcheck-" + w.Name + ".conf"
	text, err := h.Read(p)
	switch at := conf.loads[w.Name]; {
	case at != "" && at != p, err == nil && at == p && !own(string(text)): // somebody sees to it
	case err == nil && !own(string(text)):
		return no(p + " is there and is not of hostcheck's making; move it away")
	default:
		changes = append(changes, ownFile(p, w.Name+"\n", w.Tier, "loads "+w.Name+" at each boot"))
	}
	return changes, nil
}

func ownFile(p, text string, tier plan.Tier, why string) plan.Change {
	return plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: p}, After: plan.Text(ownHeader + text), Tier: tier, Persist: true, Why: why}
}

var parameterForm = pattern.Late(`^[A-Za-z0-9_]{1,64}$`)

// parameters writes the options of one module. They count when it is loaded
// next: at once for one that is not there, else at the next boot.
func parameters(h *host.Host, f *facts.Facts, module string, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal) {
	p := "/etc/modprobe.d/hostcheck-" + module + ".conf"
	set := map[string]string{}
	if b, err := h.Read(p); err == nil {
		if !own(string(b)) {
			for _, w := range wishes {
				refused = append(refused, refuse(w, p+" is there and is not of hostcheck's making; move it away"))
			}
			return nil, refused
		}
		for _, l := range facts.ModprobeLines(string(b)) {
			if len(l.Words) > 2 && l.Words[0] == "options" && facts.ModuleName(l.Words[1]) == module {
				for _, o := range l.Words[2:] {
					k, v, _ := strings.Cut(o, "=")
					set[k] = v
				}
			}
		}
	}
	var names []string
	tier := plan.Safe
	for _, w := range wishes {
		switch r := ownedBy(f, w); {
		case !moduleForm().MatchString(module) || !parameterForm().MatchString(w.Name) || !valueForm().MatchString(w.Want) || strings.ContainsAny(w.Want, ` "'#\`):
			refused = append(refused, refuse(w, "this is not a parameter of a module with a value of one word"))
			continue
		case r != nil:
			refused = append(refused, *r)
			continue
		}
		if mod, _ := f.Modules().Find(module); mod != nil && mod.State == "built-in" {
			refused = append(refused, refuse(w, "the module is built into the kernel, which takes its parameters from the command line",
				fmt.Sprintf("put %s.%s=%s on the kernel command line", module, w.Name, w.Want)))
			continue
		} else if mod != nil {
			tier = plan.Boot
		}
		set[w.Name] = w.Want
		names = append(names, w.Name)
		if slices.Index(plan.Tiers, w.Tier) > slices.Index(plan.Tiers, tier) {
			tier = w.Tier
		}
	}
	if len(names) == 0 {
		return nil, refused
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "options %s %s=%s\n", module, k, set[k])
	}
	c := ownFile(p, b.String(), tier, because(wishes[0]))
	c.Disturbs = "counts when " + module + " is loaded next; where the initramfs loads it, the initramfs must be made again first (update-initramfs -u, dracut -f)"
	return []plan.Change{c}, refused
}

// moduleList gives the text of modules.dep (depmod(8)) of the running kernel,
// and where it is.
func moduleList(h *host.Host, f *facts.Facts) (p, text, why string) {
	k := f.Kernel()
	if k.Release == nil {
		return "", "", "the kernel's release is not known: " + k.Unknown["release"]
	}
	p = "/lib/modules/" + *k.Release + "/modules.dep"
	b, err := h.Read(p)
	if host.Absent(err) { // a usr-merged tree that lacks the link /lib
		if usr, e := h.Read("/usr" + p); e == nil {
			b, err = usr, nil
		}
	}
	if err != nil {
		return p, "", "which modules this kernel has is not known: " + host.Reason(err)
	}
	return p, string(b), ""
}

// needed finds a module in modules.dep, with what it needs.
func needed(text, module string) (needs []string, found bool) {
	name := func(file string) string {
		base, _, _ := strings.Cut(path.Base(file), ".ko")
		return facts.ModuleName(base)
	}
	for line := range strings.Lines(text) {
		if file, list, ok := strings.Cut(line, ":"); ok && name(file) == module {
			for d := range strings.FieldsSeq(list) {
				needs = append(needs, name(d))
			}
			return needs, true
		}
	}
	return nil, false
}

// dependencies lists what a module needs and is not loaded, the innermost
// first: in modules.dep the last needs nothing of the others.
func dependencies(h *host.Host, f *facts.Facts, module string) (missing []string, why string) {
	p, text, why := moduleList(h, f)
	if why != "" {
		return nil, why
	}
	needs, found := needed(text, module)
	if !found {
		return nil, fmt.Sprintf("this kernel has no module %s: %s does not list it", module, p)
	}
	for _, d := range slices.Backward(needs) {
		if mod, _ := f.Modules().Find(d); mod == nil {
			missing = append(missing, d)
		}
	}
	return missing, ""
}
