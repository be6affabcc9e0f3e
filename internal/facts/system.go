// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// System is what holds for the machine as a whole: memory management, clock,
// CPU frequency, and what stands between the kernel and the hardware.
type System struct {
	THP           *string   `json:"thp"`            // /sys/kernel/mm/transparent_hugepage/enabled: always, madvise, never
	THPDefrag     *string   `json:"thp_defrag"`     // …/defrag
	NUMABalancing *int64    `json:"numa_balancing"` // /proc/sys/kernel/numa_balancing: 0 off, 1 on, 2 memory tiering
	Clocksource   *string   `json:"clocksource"`    // current_clocksource: tsc, kvm-clock, …
	Clocksources  []string  `json:"clocksources"`   // available_clocksource
	UnstableTSC   *string   `json:"unstable_tsc"`   // the line of the kernel log that says so, "" for none
	Frequency     []CPUFreq `json:"frequency"`      // by driver, governor and preference; [] where no driver sets it
	Confidential  *string   `json:"confidential"`   // "" or the memory encryption of this guest: "tdx", "sev-snp", "sev"
	BounceFull    *string   `json:"bounce_full"`    // the first line of the kernel log about a full swiotlb, "" for none
	Container     *string   `json:"container"`      // "" or the name that a container manager gives: docker, podman, …
	Unknown       Unknown   `json:"unknown,omitempty"`
}

// CPUFreq is CPUs that have one frequency policy in common.
type CPUFreq struct {
	Driver     string  `json:"driver"`     // scaling_driver
	Governor   string  `json:"governor"`   // scaling_governor
	Preference *string `json:"preference"` // energy_performance_preference; nil where the driver has none
	CPUs       string  `json:"cpus"`       // list of all CPUs with these
	Dir        string  `json:"dir"`        // of the first of them
}

// Active reports whether the driver chooses the frequency by itself: the
// governors performance and powersave then are no more than its two modes.
// Passive, the same drivers are called intel_cpufreq and amd-pstate
// (admin-guide/pm/intel_pstate.rst, amd-pstate.rst).
func (c *CPUFreq) Active() bool { return c.Driver == "intel_pstate" || c.Driver == "amd-pstate-epp" }

const (
	pathTHP         = "/sys/kernel/mm/transparent_hugepage"
	pathClocksource = "/sys/devices/system/clocksource/clocksource0"
	pathCPUFreq     = pathCPU + "/cpufreq"

	// NUMABalancingPath is the switch of automatic NUMA balancing.
	NUMABalancingPath = "/proc/sys/kernel/numa_balancing"
)

// THPPath is the mode of transparent huge pages.
const THPPath = pathTHP + "/enabled"

// ClocksourcePath is the clock in use.
const ClocksourcePath = pathClocksource + "/current_clocksource"

// System gives what holds for the machine as a whole.
func (f *Facts) System() *System { return f.system.get(f, decodeSystem) }

func decodeSystem(f *Facts) *System {
	h := f.host
	var ops []host.Op
	for _, p := range []string{THPPath, pathTHP + "/defrag", NUMABalancingPath, ClocksourcePath, pathClocksource + "/available_clocksource", "/run/systemd/container"} {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
	}
	h.Prefetch(ops)
	s := new(System)
	s.THP = s.choice(h, "thp", THPPath)
	s.THPDefrag = s.choice(h, "thp_defrag", pathTHP+"/defrag")
	if n, err := h.Int(NUMABalancingPath); err != nil {
		s.Unknown.say("numa_balancing", whyNot(h, err))
	} else {
		s.NUMABalancing = &n
	}
	if c, err := h.Text(ClocksourcePath); err != nil {
		s.Unknown.say("clocksource", whyNot(h, err))
	} else {
		s.Clocksource = &c
	}
	if c, err := h.Text(pathClocksource + "/available_clocksource"); err != nil {
		s.Unknown.say("clocksources", whyNot(h, err))
	} else {
		s.Clocksources = append([]string{}, strings.Fields(c)...)
	}
	s.readFrequency(h)
	s.readLog(f)
	s.readContainer(h)
	return s
}

func (s *System) choice(h *host.Host, field, p string) *string {
	text, err := h.Text(p)
	if err != nil {
		s.Unknown.say(field, whyNot(h, err))
		return nil
	}
	word, ok := parseBracketed(text)
	if !ok {
		s.Unknown.say(field, p+": no mode is marked in it")
		return nil
	}
	return &word
}

// readFrequency reads the policies: /sys/devices/system/cpu/cpufreq/policyN,
// or the directory of each CPU before 4.3.
func (s *System) readFrequency(h *host.Host) {
	dirs, err := policyDirs(h)
	if err != nil {
		s.Unknown.say("frequency", whyNot(h, err))
		return
	}
	s.Frequency = []CPUFreq{}
	files := []string{"scaling_driver", "scaling_governor", "energy_performance_preference", "affected_cpus"}
	var ops []host.Op
	for _, d := range dirs {
		for _, n := range files {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(d, n)})
		}
	}
	h.Prefetch(ops)
	sets := map[int]CPUSet{}
	for _, d := range dirs {
		c := CPUFreq{Dir: d}
		var cpus string
		for i, to := range []*string{&c.Driver, &c.Governor, nil, &cpus} {
			if to == nil {
				continue
			}
			if *to, err = h.Text(path.Join(d, files[i])); err != nil {
				s.Unknown.say("frequency", whyNot(h, err))
				s.Frequency = nil
				return
			}
		}
		if p, err := h.Text(path.Join(d, files[2])); err == nil {
			c.Preference = &p
		}
		set, err := ParseCPUSet(strings.Join(strings.Fields(cpus), ","))
		if err != nil {
			s.Unknown.say("frequency", fmt.Sprintf("%s/affected_cpus: %v", d, err))
			s.Frequency = nil
			return
		}
		if set.Len() == 0 { // all its CPUs are offline
			continue
		}
		i := slices.IndexFunc(s.Frequency, func(o CPUFreq) bool {
			return o.Driver == c.Driver && o.Governor == c.Governor && text(o.Preference) == text(c.Preference)
		})
		if i < 0 {
			i = len(s.Frequency)
			s.Frequency = append(s.Frequency, c)
		}
		sets[i] = sets[i].Or(set)
		s.Frequency[i].CPUs = sets[i].String()
	}
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// policyDirs lists the policies in the order of their numbers; none where the
// kernel has no driver for them.
func policyDirs(h *host.Host) (dirs []string, err error) {
	type policy struct {
		n   int
		dir string
	}
	var all []policy
	names, err := h.List(pathCPUFreq)
	for _, name := range names {
		if n, ok := numbered(name, "policy"); ok {
			all = append(all, policy{n, path.Join(pathCPUFreq, name)})
		}
	}
	if err != nil && !host.Absent(err) {
		return nil, err
	}
	if err != nil { // of an older kernel, or of none
		cpus, lerr := h.List(pathCPU)
		if lerr != nil {
			return nil, lerr
		}
		for _, name := range cpus {
			dir := path.Join(pathCPU, name, "cpufreq")
			if n, ok := numbered(name, "cpu"); ok {
				if files, err := h.List(dir); err == nil && slices.Contains(files, "scaling_governor") {
					all = append(all, policy{n, dir})
				}
			}
		}
	}
	if len(all) == 0 && err != nil && !kernelLacks(h, err) {
		return nil, err
	}
	slices.SortFunc(all, func(a, b policy) int { return cmp.Compare(a.n, b.n) })
	for _, p := range all {
		dirs = append(dirs, p.dir)
	}
	return dirs, nil
}

// readLog takes what the kernel said of the clock, of memory encryption and of
// bounce buffers.
func (s *System) readLog(f *Facts) {
	lines, err := f.host.KernelLog()
	if flag := f.Kernel().HasCPUFlag("tdx_guest"); flag != nil && *flag {
		s.Confidential = new("tdx")
	}
	if err != nil {
		why := host.Reason(err)
		s.Unknown.say("unstable_tsc", why)
		s.Unknown.say("bounce_full", why)
		if s.Confidential == nil {
			s.Unknown.say("confidential", why)
		}
		return
	}
	first := func(words ...string) *string {
		for _, l := range lines {
			for _, w := range words {
				if strings.Contains(l, w) {
					return &l
				}
			}
		}
		return new("")
	}
	s.UnstableTSC = first("Marking TSC unstable", "Marking clocksource 'tsc' as unstable")
	s.BounceFull = first("swiotlb buffer is full")
	if s.Confidential == nil {
		s.Confidential = new(encryption(*first("Memory Encryption Features active")))
	}
}

// encryption reads "Memory Encryption Features active: AMD SEV SEV-ES
// SEV-SNP". SME alone is of a host (arch/x86/mm/mem_encrypt.c).
func encryption(line string) string {
	_, features, _ := strings.Cut(line, "active:")
	has := func(w string) bool { return slices.Contains(strings.Fields(features), w) }
	switch {
	case has("TDX"):
		return "tdx"
	case has("SEV-SNP"):
		return "sev-snp"
	case has("SEV-ES"):
		return "sev-es"
	case has("SEV"):
		return "sev"
	}
	return ""
}

// readContainer tells what a container manager left for those inside: systemd
// writes the name where it is the first process, docker and podman leave a
// file. In a tree that is read from outside this says nothing of us.
func (s *System) readContainer(h *host.Host) {
	if name, err := h.Text("/run/systemd/container"); err == nil && name != "" {
		s.Container = &name
		return
	}
	for _, c := range [...][2]string{{"/.dockerenv", "docker"}, {"/run/.containerenv", "podman"}, {"/var/run/secrets/kubernetes.io", "kubernetes"}} {
		if there(h, c[0]) {
			s.Container = &c[1]
			return
		}
	}
	s.Container = new("")
}
