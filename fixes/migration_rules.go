// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// migrationClosed says why the wishes for one target cannot be met on this host.
func migrationClosed(f *facts.Facts, wishes []plan.Wish) (why string, steps []string) {
	m, target := f.Migration(), wishes[0].Target
	for _, w := range wishes {
		form, err := migrationForm(w.Setting)
		if err != nil {
			return err.Error(), nil
		}
		if _, err := form.check(w.Want); err != nil {
			return fmt.Sprintf("%s takes %s: %v", w.Name, form.says, err), nil
		}
	}
	if target == CPUMT {
		return threadsClosed(f, m, wishes)
	}
	switch {
	case m.Available == nil:
		return "whether this kernel has a copy offload for page migration is not known: " + m.Unknown["available"], nil
	case !*m.Available:
		return noOffload, []string{"where the kernel was built with it as a module: modprobe dcbm"}
	case m.Offload.On == nil:
		return "whether it is on is not known: " + m.Offload.Unknown[facts.OffloadSwitch], nil
	}
	rev := m.Offload.Rev()
	for _, w := range wishes {
		switch {
		case w.Name == facts.OffloadChannels && m.Offload.Channels == nil:
			return fmt.Sprintf("this posting of the patches (%s) has no %s: %s", rev.Posted, w.Name, orText(m.Offload.Unknown[w.Name], "it uses one channel")), nil
		case w.Name == facts.OffloadReasons && m.Offload.Reasons == nil:
			return fmt.Sprintf("this posting of the patches (%s) has no %s: %s", rev.Posted, w.Name, orText(m.Offload.Unknown[w.Name], "what is offloaded cannot be chosen")), nil
		}
	}
	if !finallyOn(wishes, *m.Offload.On) {
		return "", nil
	}
	if m.CPUMT != nil && (m.CPUMT.On == nil || *m.CPUMT.On) {
		return "copies by kernel threads (" + facts.PathCPUMT + ") may be on; one migrator at a time", []string{"echo 0 > " + facts.PathCPUMT + "/" + facts.OffloadSwitch}
	}
	if why, steps := engineClosed(m, target, wishes); why != "" {
		return why, steps
	}
	return oneNode(f)
}

func finallyOn(wishes []plan.Wish, now bool) bool {
	for _, w := range wishes {
		if w.Name == facts.OffloadSwitch {
			return w.Want == "on"
		}
	}
	return now
}

// oneNode refuses where nothing could be moved to see who copies.
func oneNode(f *facts.Facts) (string, []string) {
	n := f.NUMA()
	switch {
	case n.WithMemory == nil:
		return "which nodes have memory is not known: " + joined(n.Unknown), nil
	case len(n.WithMemory) < 2:
		return "one node has memory, so nothing migrates between nodes, and whether engines work could not be proven", nil
	}
	return "", nil
}

// engineClosed holds the list of engines that may copy, and why each other may
// not: the kernel takes any channel that can copy, in the order in which drivers
// registered, and cannot be told which (drivers/dma/dmaengine.c,
// dma_request_chan_by_mask).
func engineClosed(m *facts.Migration, target string, wishes []plan.Wish) (why string, steps []string) {
	d := facts.EngineDriverOf(target)
	rev := m.Offload.Rev()
	if m.Engines == nil {
		return "which engines there are is not known: " + m.Unknown["engines"], nil
	}
	switch {
	case target == "ptdma" || target == "ae4dma":
	case target == "idxd" && rev.InOrder:
	case target == "idxd":
		return "engines of idxd finish out of order, and this posting of the patches (" + rev.Posted + ") may then take a copy for done that is not: data would be lost", nil
	default:
		return target + " is not among the engines that may copy for page migration: " + d.Note, nil
	}
	free, all := 0, 0
	for _, e := range m.Engines {
		driver := "an unknown driver"
		if e.Driver != nil {
			driver = *e.Driver
		}
		switch {
		case driver == target:
			free, all = free+e.Free(), all+len(e.Channels)
		case e.Copies != nil && !*e.Copies:
		case e.Copies == nil:
			return fmt.Sprintf("the kernel takes any channel that can copy, and whether those of %s can is not known: %s", e.Device, e.Unknown["copies"]),
				[]string{unbind(e, driver)}
		default:
			note := ""
			if other := facts.EngineDriverOf(driver); other != nil && other.Note != "" {
				note = " (" + other.Note + ")"
			}
			return fmt.Sprintf("the kernel takes any channel that can copy, and may take those of %s, driver %s%s", e.Device, driver, note), []string{unbind(e, driver)}
		}
	}
	want := 1
	if m.Offload.Channels != nil {
		want = int(*m.Offload.Channels)
	}
	for _, w := range wishes {
		if n, err := strconv.Atoi(w.Want); w.Name == facts.OffloadChannels && err == nil {
			want = n
		}
	}
	switch {
	case all == 0:
		return "there is no engine of " + target + ": it could be switched on all the same, and the CPU would copy", []string{"modprobe " + target}
	case free == 0:
		return fmt.Sprintf("all %d channels of %s are in use: it could be switched on all the same, and the CPU would copy", all, target), []string{"look who uses them: cat /sys/kernel/debug/dmaengine/summary"}
	case free < want && wantsChannels(wishes):
		return fmt.Sprintf("%d channels are wanted, and %d of %s are free", want, free, target), nil
	}
	return "", nil
}

func wantsChannels(wishes []plan.Wish) bool {
	return slices.ContainsFunc(wishes, func(w plan.Wish) bool { return w.Name == facts.OffloadChannels })
}

func unbind(e *facts.CopyEngine, driver string) string {
	if !pciForm().MatchString(e.Device) || strings.Contains(driver, " ") || driver == "" {
		return "unload the driver of " + e.Device + ", if nothing needs it"
	}
	return fmt.Sprintf("if nothing needs it: echo %s > /sys/bus/pci/drivers/%s/unbind", e.Device, driver)
}

func threadsClosed(f *facts.Facts, m *facts.Migration, wishes []plan.Wish) (string, []string) {
	switch {
	case m.CPUMT == nil && m.Unknown["cpu_mt"] != "":
		return "whether this kernel copies by threads is not known: " + m.Unknown["cpu_mt"], nil
	case m.CPUMT == nil:
		return "this kernel has no " + facts.PathCPUMT + ": only two postings of the patches had it, in 2025", nil
	case m.CPUMT.On == nil:
		return "whether it is on is not known: " + m.CPUMT.Unknown[facts.OffloadSwitch], nil
	case !finallyOn(wishes, *m.CPUMT.On):
		return "", nil
	case m.Offload != nil && (m.Offload.On == nil || *m.Offload.On):
		return "the offload to engines may be on; one migrator at a time", []string{"echo 0 > " + m.Offload.Path(facts.OffloadSwitch)}
	}
	return oneNode(f)
}

// moveSome moves a few MiB to another node and back, in folios of both sizes
// that postings look at: the first copies pages alone, others may leave small
// batches to the CPU.
func moveSome(from, to int) error {
	const size, bytes = 2 << 20, 16 << 20
	for _, folio := range []int{size, unix.Getpagesize()} {
		f, err := bench.NewFolios(from, folio, bytes)
		if err != nil {
			return err
		}
		err = moveThere(f, from, to)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func moveThere(f *bench.Folios, from, to int) error {
	for _, node := range []int{to, from} {
		if _, err := f.Move(node, 0, f.N(), 0); err != nil {
			return err
		}
		if err := f.Intact(); err != nil {
			return err
		}
	}
	return nil
}

// MigrationModule wishes the module of the copy offload loaded at each boot,
// where it is one: its settings cannot be made again without. false: it is built
// in, or not there.
func MigrationModule(f *facts.Facts) (plan.Wish, bool) {
	const module = "dcbm"
	mod, _ := f.Modules().Find(module)
	return plan.Wish{
		Setting: ModuleSetting(module), Want: Loaded, Tier: plan.Safe, Why: "its settings are made again at each boot",
	}, mod != nil && mod.State != "built-in"
}

// checkMigration takes what the verb takes, and no more threads or engines than
// it knows.
func checkMigration(s Saved) error {
	form, err := migrationForm(s.setting())
	if err == nil {
		_, err = form.check(s.Value)
	}
	return err
}

// loadMigration needs the control files, whose module may come later.
func loadMigration(h *host.Host, s plan.Setting) (plan.Setting, error) {
	p, _, err := migrationFile(h, s)
	if err == nil && !exists(h, p) {
		err = gone(p + " is not there")
	}
	return s, err
}
