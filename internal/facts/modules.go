// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Module is one loaded kernel module.
type Module struct {
	Name    string  `json:"name"`              // with underscores
	State   string  `json:"state"`             // Live, Loading, Unloading; "built-in"
	Version *string `json:"version,omitempty"` // /sys/module/X/version of the drivers in moduleVersions, "" for none, as in-tree mlx5_core has; nil otherwise
	Taint   *string `json:"taint"`             // letters of /proc/modules, "OE" for an out-of-tree unsigned one; "" for none
	Unknown Unknown `json:"unknown,omitempty"`
}

// Modules is what the kernel has loaded.
type Modules struct {
	Loaded  []Module `json:"loaded"`   // /proc/modules, sorted by name
	BuiltIn []string `json:"built_in"` // /lib/modules/RELEASE/modules.builtin (names), nil when unknown
	Unknown Unknown  `json:"unknown,omitempty"`
}

// moduleVersions are the modules whose version tells an in-tree build from a
// vendor's: network drivers, their RDMA halves and the RDMA core.
var moduleVersions = []string{
	"bnxt_en", "bnxt_re", "efa", "ena", "i40e", "ib_core", "ice", "irdma", "ixgbe", "mana", "mana_ib",
	"mlx4_core", "mlx4_en", "mlx4_ib", "mlx5_core", "mlx5_ib", "nvidia", "nvidia_peermem", "qede", "qedr",
}

// ModuleName writes a module's name as the kernel does, with underscores.
func ModuleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// Find gives a module by name, loaded or built in ("built-in" is then its
// State). When it is neither, known tells whether that is certain: an
// unreadable list of built-in ones may hold it.
func (m *Modules) Find(name string) (mod *Module, known bool) {
	name = ModuleName(name)
	if i, ok := slices.BinarySearchFunc(m.Loaded, name, func(m Module, n string) int { return strings.Compare(m.Name, n) }); ok {
		return &m.Loaded[i], true
	}
	if slices.Contains(m.BuiltIn, name) {
		return &Module{Name: name, State: "built-in", Taint: new("")}, true
	}
	return nil, m.Loaded != nil && m.BuiltIn != nil
}

// Modules gives the host's kernel modules.
func (f *Facts) Modules() *Modules { return f.modules.get(f, decodeModules) }

const pathModules = "/proc/modules"

func decodeModules(f *Facts) *Modules {
	h := f.host
	m := new(Modules)
	switch b, err := h.Read(pathModules); {
	case err == nil:
		m.Loaded = parseModules(string(b))
		readVersions(h, m.Loaded)
	case kernelLacks(h, err): // a kernel without CONFIG_MODULES
		m.Loaded = []Module{}
	default:
		m.Unknown.say("loaded", whyNot(h, err))
	}
	m.readBuiltIn(h, f.Kernel())
	return m
}

// parseModules reads /proc/modules: name, size, references, users, state,
// address and taint letters in parentheses. Sorted by name.
func parseModules(text string) []Module {
	mods := []Module{}
	for line := range strings.SplitSeq(text, "\n") {
		w := strings.Fields(line)
		if len(w) < 5 {
			continue
		}
		m := Module{Name: ModuleName(w[0]), State: w[4], Taint: new("")}
		if last := w[len(w)-1]; len(w) > 5 && len(last) > 2 && last[0] == '(' && last[len(last)-1] == ')' {
			// "-" and "+" stand for going and coming (kernel/module/procfs.c)
			m.Taint = new(strings.Trim(last[1:len(last)-1], "-+"))
		}
		mods = append(mods, m)
	}
	slices.SortFunc(mods, func(a, b Module) int { return strings.Compare(a.Name, b.Name) })
	return mods
}

func readVersions(h *host.Host, mods []Module) {
	var ops []host.Op
	for i := range mods {
		if slices.Contains(moduleVersions, mods[i].Name) {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: versionPath(mods[i].Name)})
		}
	}
	h.Prefetch(ops)
	for i := range mods {
		m := &mods[i]
		if !slices.Contains(moduleVersions, m.Name) {
			continue
		}
		switch s, err := h.Text(versionPath(m.Name)); {
		case err == nil:
			m.Version = &s
		case kernelLacks(h, err):
			m.Version = new("")
		default:
			m.Unknown.say("version", whyNot(h, err))
		}
	}
}

func versionPath(module string) string { return "/sys/module/" + module + "/version" }

func (m *Modules) readBuiltIn(h *host.Host, k *Kernel) {
	if k.Release == nil {
		m.Unknown.say("built_in", "the kernel release is not known: "+k.Unknown["release"])
		return
	}
	p := "/lib/modules/" + *k.Release + "/modules.builtin"
	b, err := h.Read(p)
	if host.Absent(err) { // a usr-merged tree that lacks the link /lib
		if usr, e := h.Read("/usr" + p); e == nil {
			b, err = usr, nil
		}
	}
	if err != nil {
		m.Unknown.say("built_in", whyNot(h, err))
		return
	}
	m.BuiltIn = parseBuiltIn(string(b))
}

// parseBuiltIn reads modules.builtin: a path such as kernel/net/ipv6/ipv6.ko
// per line. Sorted.
func parseBuiltIn(text string) []string {
	names := []string{}
	for line := range strings.SplitSeq(text, "\n") {
		if name, ok := strings.CutSuffix(path.Base(strings.TrimSpace(line)), ".ko"); ok && name != "" {
			names = append(names, ModuleName(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ModuleFile reports whether the running kernel has a file of a module, by
// modules.dep (depmod(8)); why says why that is not known.
func (f *Facts) ModuleFile(name string) (there bool, why string) {
	k := f.Kernel()
	if k.Release == nil {
		return false, "the kernel release is not known: " + k.Unknown["release"]
	}
	p := "/lib/modules/" + *k.Release + "/modules.dep"
	b, err := f.host.Read(p)
	if host.Absent(err) { // a usr-merged tree that lacks the link /lib
		if usr, e := f.host.Read("/usr" + p); e == nil {
			b, err = usr, nil
		}
	}
	if err != nil {
		return false, whyNot(f.host, err)
	}
	return slices.Contains(parseModulesDep(string(b)), ModuleName(name)), ""
}

// parseModulesDep gives the names in modules.dep: "kernel/net/ipv4/tcp_bbr.ko.xz: …".
func parseModulesDep(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		file, _, ok := strings.Cut(line, ":")
		if base, _, ko := strings.Cut(path.Base(file), ".ko"); ok && ko && base != "" {
			names = append(names, ModuleName(base))
		}
	}
	return names
}
