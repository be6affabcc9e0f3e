// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Migration is who copies when the kernel migrates memory: kind "migration",
// Target the driver of the copy engines that it is meant for ("ptdma"), or
// "cpu_mt" for kernel threads. Name and value:
//
//	offloading    on | off
//	nr_dma_chan   1 to 16; engines alone
//	reason_mask   reasons with commas, or all, or none; engines alone
//	threads       1 to 32; cpu_mt alone
//
// The files are in another place with each posting of the kernel's patches; the
// table of [facts.FindOffload] has them. They are set in the order off,
// channels, reasons, on, each is read back, and taken back in reverse. Once on,
// some memory is moved and back: where the kernel does not count it as copied by
// engines, or it changed on the way, everything is taken back.
type Migration struct {
	// Probe moves memory from one node to another and back, and fails where it
	// does not hold what it held; tests put their own here.
	Probe func(from, to int) error
}

// Targets and names of the kind.
const (
	kindMigration = "migration"
	CPUMT         = "cpu_mt"
)

// Kind is "migration".
func (Migration) Kind() string { return kindMigration }

// MigrationSetting names one setting.
func MigrationSetting(engine, name string) plan.Setting {
	return plan.Setting{Kind: kindMigration, Target: engine, Name: name}
}

// Whole says that half of it is no use.
func (Migration) Whole() bool { return true }

var onOffForm = form{
	says: "on or off",
	read: func(s string) (string, error) {
		on, ok := facts.ParseKernelBool(s)
		if !ok {
			return "", fmt.Errorf("%.40q is neither on nor off", s)
		}
		return onOff(on), nil
	},
	check: func(s string) (string, error) {
		if s != "on" && s != "off" {
			return "", fmt.Errorf("it is on or off, not %.40q", s)
		}
		return s, nil
	},
	write: func(s string) string { return map[string]string{"on": "1", "off": "0"}[s] },
}

// reasonMask is compared as a set: the kernel reads names back whatever it was
// given, in its own order.
var reasonMask = form{says: "reasons with commas between, all or none", read: tidyReasons, check: tidyReasons}

func tidyReasons(s string) (string, error) {
	names, err := facts.ParseReasons(s)
	return facts.FormatReasons(names), err
}

// migrationForm gives the form of a setting.
func migrationForm(s plan.Setting) (form, error) {
	threads := s.Target == CPUMT
	switch {
	case !threads && facts.EngineDriverOf(s.Target) == nil:
		return form{}, fmt.Errorf("%.40q is no driver of copy engines that hostcheck knows, nor %s", s.Target, CPUMT)
	case s.Name == facts.OffloadSwitch:
		return onOffForm, nil
	case s.Name == facts.OffloadChannels && !threads:
		return number(1, 16), nil
	case s.Name == facts.OffloadReasons && !threads:
		return reasonMask, nil
	case s.Name == facts.CPUMTThreads && threads:
		return number(1, 32), nil
	}
	return form{}, fmt.Errorf("page migration has no setting %.40q of %s", s.Name, s.Target)
}

// migrationFile is the file of a setting now.
func migrationFile(h *host.Host, s plan.Setting) (p string, f form, err error) {
	if f, err = migrationForm(s); err != nil {
		return "", f, err
	}
	if s.Target == CPUMT {
		return path.Join(facts.PathCPUMT, s.Name), f, nil
	}
	rev, err := facts.FindOffload(h)
	if err == nil && rev == nil {
		err = gone(noOffload)
	}
	if err != nil {
		return "", f, err
	}
	return path.Join(rev.Dir, s.Name), f, nil
}

const noOffload = "this kernel has no copy offload for page migration; no released kernel has it"

// Read gives the value in the one spelling of its form.
func (Migration) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	p, f, err := migrationFile(h, s)
	if err != nil {
		return plan.Absent, err
	}
	text, err := h.Text(p)
	if err != nil {
		return plan.Absent, err
	}
	v, err := f.read(text)
	if err != nil {
		return plan.Absent, fmt.Errorf("cannot read %s: %w", p, err)
	}
	return plan.Text(v), nil
}

// Apply writes each file and reads it back before the next: the engine would
// read back the last of a setting alone, and channels must not change while
// engines are on.
func (v Migration) Apply(ctx context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		if err := v.set(ctx, tx, c); err != nil {
			return err
		}
		if c.Name == facts.OffloadSwitch && c.After == plan.Text("on") && !tx.Undoing() {
			if err := v.prove(tx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v Migration) set(ctx context.Context, tx *plan.Tx, c plan.Change) error {
	h, err := tx.Host()
	if err != nil {
		return err
	}
	p, f, err := migrationFile(h, c.Setting)
	h.Close()
	if err != nil {
		return fmt.Errorf("cannot set %s: %w", c.Setting, err)
	}
	text, err := f.check(c.After.Text)
	if err != nil {
		return fmt.Errorf("cannot set %s: %w", c.Setting, err)
	}
	if f.write != nil {
		text = f.write(text)
	}
	if err := tx.WriteKnob(p, text); err != nil {
		return err
	}
	if h, err = tx.Host(); err != nil {
		return err
	}
	defer h.Close()
	live, err := v.Read(ctx, h, c.Setting)
	switch {
	case err != nil:
		return fmt.Errorf("cannot read %s back: %w", p, err)
	case live != c.After:
		return fmt.Errorf("%s was set to %q without an error, but still reads %q: the write was ignored", c.Setting, c.After, live)
	}
	return nil
}

// prove moves memory, and wants the kernel to have counted what engines copied:
// a kernel that finds no channel takes the CPU, and says so nowhere.
func (v Migration) prove(tx *plan.Tx, c plan.Change) error {
	was, nodes, err := proofOf(tx)
	if err != nil {
		return err
	}
	probe := v.Probe
	if probe == nil {
		probe = moveSome
	}
	what := fmt.Sprintf("move memory from node %d to node %d and back, to see who copies it", nodes[0], nodes[1])
	if err := tx.Call(what, func() error { return probe(nodes[0], nodes[1]) }); err != nil {
		return err
	}
	if was == nil || c.Target == CPUMT { // this posting counts nothing: that memory is intact is all that can be shown
		return nil
	}
	now, _, err := proofOf(tx)
	switch {
	case err != nil:
		return err
	case now == nil:
		return errors.New("cannot prove that engines copy: the kernel stopped to count it")
	case *now <= *was:
		return fmt.Errorf("engines copied nothing: memory was moved and is intact, but %s stayed at %d, so the CPU copied; no channel could be taken, or none of %s can copy here", facts.FoliosMigrated, *was, c.Target)
	}
	return nil
}

// proofOf reads the counter of folios that engines copied, nil where the posting
// has none, and two nodes to move between.
func proofOf(tx *plan.Tx) (migrated *int64, nodes []int, err error) {
	h, err := tx.Host()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	if nodes = facts.New(h).NUMA().WithMemory; len(nodes) < 2 {
		return nil, nil, errors.New("cannot prove who copies: there are no two nodes with memory to move between")
	}
	rev, err := facts.FindOffload(h)
	if err != nil || rev == nil || !rev.Counts {
		return nil, nodes, err
	}
	n, err := h.Int(path.Join(rev.Dir, facts.FoliosMigrated))
	return &n, nodes, err
}

// ByHand is the line that sets it. Which posting runs is not known here.
func (Migration) ByHand(c plan.Change) string {
	f, err := migrationForm(c.Setting)
	if err != nil {
		return "set it to " + c.After.Text
	}
	text := c.After.Text
	if f.write != nil {
		text = f.write(text)
	}
	if c.Target == CPUMT {
		return fmt.Sprintf("echo %s > %s", text, path.Join(facts.PathCPUMT, c.Name))
	}
	dirs := facts.OffloadDirs()
	return fmt.Sprintf("echo %s > %s (of older postings in %s or %s)", text, path.Join(dirs[0], c.Name), dirs[1], dirs[2])
}

// Expand puts the changes in order, or refuses all of an engine.
func (Migration) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	f := facts.New(h)
	byTarget := map[string][]plan.Wish{}
	var targets []string
	for _, w := range wishes {
		if byTarget[w.Target] == nil {
			targets = append(targets, w.Target)
		}
		byTarget[w.Target] = append(byTarget[w.Target], w)
	}
	engine := ""
	for _, target := range targets {
		mine := byTarget[target]
		no := func(why string, steps ...string) {
			for _, w := range mine {
				refused = append(refused, refuse(w, why, steps...))
			}
		}
		if target != CPUMT && engine != "" {
			no("the copy offload has one set of files, and they are asked for on behalf of " + engine + " already")
			continue
		}
		if target != CPUMT {
			engine = target
		}
		if why, steps := migrationClosed(f, mine); why != "" {
			no(why, steps...)
			continue
		}
		if owned := ownedBy(f, mine[0]); owned != nil {
			refused = append(refused, *owned)
			continue
		}
		changes = append(changes, migrationOrder(f.Migration(), mine)...)
	}
	return changes, refused, nil
}

// migrationOrder gives the changes of one target in the order that is safe:
// off, channels or threads, reasons, on.
func migrationOrder(m *facts.Migration, wishes []plan.Wish) (changes []plan.Change) {
	target := wishes[0].Target
	disturbs := "pages that migrate are copied by " + target + "; an engine that hangs holds a batch for up to 10 s"
	on := m.Offload != nil && m.Offload.On != nil && *m.Offload.On
	if target == CPUMT {
		on, disturbs = m.CPUMT.On != nil && *m.CPUMT.On, "pages that migrate are copied by several CPUs at a time"
	} else if !m.Offload.Rev().Counts {
		disturbs += "; this posting of the patches does not count what engines copied: only that memory stays intact can be shown"
	}
	change := func(w plan.Wish, value string) plan.Change {
		return plan.Change{Setting: w.Setting, After: plan.Text(value), Tier: plan.Safe, Why: because(w), Disturbs: disturbs}
	}
	final := on
	var toggle *plan.Wish
	var set []plan.Change
	for _, name := range []string{facts.OffloadChannels, facts.CPUMTThreads, facts.OffloadReasons} {
		if i := slices.IndexFunc(wishes, func(w plan.Wish) bool { return w.Name == name }); i >= 0 {
			f, _ := migrationForm(wishes[i].Setting)
			v, _ := f.check(wishes[i].Want) // migrationClosed has looked
			if v != migrationNow(m, wishes[i].Setting) {
				set = append(set, change(wishes[i], v))
			}
		}
	}
	if i := slices.IndexFunc(wishes, func(w plan.Wish) bool { return w.Name == facts.OffloadSwitch }); i >= 0 {
		toggle, final = &wishes[i], wishes[i].Want == "on"
	} else if len(set) > 0 {
		toggle = &plan.Wish{Setting: MigrationSetting(target, facts.OffloadSwitch), Check: wishes[0].Check, Why: "off while its settings change"}
	}
	if on && (len(set) > 0 || !final) && toggle != nil {
		changes = append(changes, change(*toggle, "off"))
	}
	var narrow *plan.Change
	if final && toggle != nil && (!on || len(set) > 0) {
		set, narrow = probed(m, target, set, toggle)
	}
	changes = append(changes, set...)
	if final && toggle != nil {
		changes = append(changes, change(*toggle, "on"))
	}
	if narrow != nil {
		changes = append(changes, *narrow)
	}
	return changes
}

// probed lets the proof count where its reason, a call of move_pages, is not
// among those that are offloaded: it is, until the proof is done.
func probed(m *facts.Migration, target string, set []plan.Change, toggle *plan.Wish) (first []plan.Change, last *plan.Change) {
	const reason = "syscall_or_cpuset"
	i := slices.IndexFunc(set, func(c plan.Change) bool { return c.Name == facts.OffloadReasons })
	mask := migrationNow(m, MigrationSetting(target, facts.OffloadReasons))
	if i >= 0 {
		mask = set[i].After.Text
	}
	names, err := facts.ParseReasons(mask)
	if target == CPUMT || mask == "" || err != nil || slices.Contains(names, reason) {
		return set, nil
	}
	wider, _ := facts.ParseReasons(strings.Join(append(names, reason), ","))
	proof := plan.Change{
		Setting: MigrationSetting(target, facts.OffloadReasons), After: plan.Text(facts.FormatReasons(wider)), Tier: plan.Safe,
		Why: because(plan.Wish{Check: toggle.Check, Why: "until some memory is moved, to see who copies it"}),
	}
	final := proof
	final.After = plan.Text(mask)
	if i >= 0 {
		final.Why, final.Disturbs = set[i].Why, set[i].Disturbs
		set = slices.Delete(slices.Clone(set), i, i+1)
	}
	return append(set, proof), &final
}

// migrationNow is what the facts say that a setting holds, "" where they do not.
func migrationNow(m *facts.Migration, s plan.Setting) string {
	number := func(n *int64) string {
		if n == nil {
			return ""
		}
		return fmt.Sprint(*n)
	}
	switch {
	case s.Name == facts.CPUMTThreads && m.CPUMT != nil:
		return number(m.CPUMT.Threads)
	case s.Name == facts.OffloadChannels && m.Offload != nil:
		return number(m.Offload.Channels)
	case s.Name == facts.OffloadReasons && m.Offload != nil && m.Offload.Reasons != nil:
		return facts.FormatReasons(m.Offload.Reasons)
	}
	return ""
}
