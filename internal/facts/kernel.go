// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Kernel is the running kernel.
type Kernel struct {
	Release      *string           `json:"release"`                 // /proc/sys/kernel/osrelease, "6.12.107-amd64"
	Arch         *string           `json:"arch"`                    // as Go and Debian call it: "amd64", "arm64", …
	PageSize     *int              `json:"page_size"`               // bytes
	Config       map[string]string `json:"config"`                  // CONFIG_X -> y, m, or the value without quotes; an unset option is absent
	ConfigSource string            `json:"config_source,omitempty"` // the file that Config comes from
	Lockdown     *string           `json:"lockdown"`                // /sys/kernel/security/lockdown: none, integrity, confidentiality
	Taint        *int64            `json:"taint"`                   // /proc/sys/kernel/tainted, bits of admin-guide/tainted-kernels
	Vendor       *string           `json:"cpu_vendor"`              // /proc/cpuinfo: GenuineIntel, AuthenticAMD, ARM, …
	CPUFlags     []string          `json:"cpu_flags"`               // those of cpuFlagsWanted that CPU 0 has, in their order; nil when not known
	Hypervisor   *string           `json:"hypervisor"`              // "" on bare metal; "kvm", "hyperv", "vmware", … or "unnamed" for an unidentified one
	Unknown      Unknown           `json:"unknown,omitempty"`
}

// cpuFlagsWanted are the flags of /proc/cpuinfo that some fact or check needs.
var cpuFlagsWanted = []string{"lm", "pse", "pdpe1gb", "hypervisor", "vmx", "svm", "sme", "sev", "tdx_guest"}

// HasCPUFlag reports whether CPU 0 has one of the flags in CPUFlags; nil when
// the flags are not known.
func (k *Kernel) HasCPUFlag(name string) *bool {
	if k.CPUFlags == nil {
		return nil
	}
	for _, f := range k.CPUFlags {
		if f == name {
			return new(true)
		}
	}
	return new(false)
}

// Kernel gives the running kernel.
func (f *Facts) Kernel() *Kernel { return f.kernel.get(f, decodeKernel) }

const (
	pathOSRelease = "/proc/sys/kernel/osrelease"
	pathArch      = "/proc/sys/kernel/arch" // since 6.1
	pathTainted   = "/proc/sys/kernel/tainted"
	pathLockdown  = "/sys/kernel/security/lockdown"
	pathCPUInfo   = "/proc/cpuinfo"
	pathDMIVendor = "/sys/class/dmi/id/sys_vendor"
	pathDMIName   = "/sys/class/dmi/id/product_name"
	pathXen       = "/sys/hypervisor/type"
)

func decodeKernel(f *Facts) *Kernel {
	h := f.host
	var ops []host.Op
	for _, p := range []string{pathOSRelease, pathArch, pathTainted, pathLockdown, pathCPUInfo, pathDMIVendor, pathDMIName, pathXen} {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: p})
	}
	h.Prefetch(ops)

	k := new(Kernel)
	k.readRelease(h)
	if config, source, err := readConfig(h, k.Release); err != nil {
		k.Unknown.say("config", whyNot(h, err))
	} else {
		k.Config, k.ConfigSource = config, source
	}
	cpu, cpuErr := cpuInfo{}, error(nil)
	if b, err := h.Read(pathCPUInfo); err != nil {
		cpuErr = err
	} else {
		cpu = parseCPUInfo(string(b))
	}
	k.readArch(h, cpu)
	k.readPageSize(h)
	k.readLockdown(h)
	if n, err := h.Int(pathTainted); err != nil {
		k.Unknown.say("taint", whyNot(h, err))
	} else {
		k.Taint = &n
	}
	k.readVendor(h, cpu, cpuErr)
	k.readHypervisor(h, cpu)
	return k
}

func (k *Kernel) readRelease(h *host.Host) {
	s, err := h.Text(pathOSRelease)
	if host.Absent(err) {
		// recorded by uname, or in the banner: "Linux version RELEASE (…"
		u, uerr := h.Uname()
		if s = u.Release; uerr != nil {
			if v, e := h.Text("/proc/version"); e == nil {
				v, _ = strings.CutPrefix(v, "Linux version ")
				s, _, _ = strings.Cut(v, " ")
			}
		}
		if s != "" {
			err = nil
		}
	}
	switch {
	case err != nil:
		k.Unknown.say("release", whyNot(h, err))
	case !validRelease(s):
		k.Unknown.say("release", pathOSRelease+": not a release: "+strconv.QuoteToASCII(s[:min(len(s), 40)]))
	default:
		k.Release = &s
	}
}

// archOf maps what uname -m says to the name that Go and Debian use.
var archOf = map[string]string{
	"x86_64": "amd64", "i386": "386", "i486": "386", "i586": "386", "i686": "386",
	"aarch64": "arm64", "aarch64_be": "arm64be", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm", "arm": "arm",
	"ppc64le": "ppc64le", "ppc64": "ppc64", "riscv64": "riscv64", "s390x": "s390x", "loongarch64": "loong64",
}

// archConfig maps the option that names an architecture, for a tree that does
// not hold uname's answer.
var archConfig = [...]struct{ option, arch string }{
	{"CONFIG_X86_64", "amd64"}, {"CONFIG_X86_32", "386"}, {"CONFIG_ARM64", "arm64"}, {"CONFIG_ARM", "arm"},
	{"CONFIG_S390", "s390x"}, {"CONFIG_LOONGARCH", "loong64"},
}

func (k *Kernel) readArch(h *host.Host, cpu cpuInfo) {
	machine, err := h.Text(pathArch)
	if err != nil {
		if u, uerr := h.Uname(); uerr == nil {
			machine = u.Machine
		}
	}
	arch := archOf[machine]
	for _, c := range archConfig {
		if arch == "" && k.Config[c.option] == "y" {
			arch = c.arch
		}
	}
	if arch == "" {
		arch = cpu.arch
	}
	if arch == "" && k.Release != nil { // Fedora and its kin: "….el9.ppc64le"
		arch = archOf[(*k.Release)[strings.LastIndexByte(*k.Release, '.')+1:]]
	}
	switch {
	case arch != "":
		k.Arch = &arch
	case machine != "":
		k.Arch = &machine // one that has no other name here
	default:
		k.Unknown.say("arch", whyNot(h, err)+", and nothing else in the tree tells it")
	}
}

// pageConfig maps the options that choose a page size; the first form is that
// of 6.9 and later.
var pageConfig = [...]struct {
	option string
	size   int
}{
	{"CONFIG_PAGE_SIZE_4KB", 4 << 10}, {"CONFIG_PAGE_SIZE_16KB", 16 << 10}, {"CONFIG_PAGE_SIZE_64KB", 64 << 10},
	{"CONFIG_ARM64_4K_PAGES", 4 << 10}, {"CONFIG_ARM64_16K_PAGES", 16 << 10}, {"CONFIG_ARM64_64K_PAGES", 64 << 10},
	{"CONFIG_PPC_4K_PAGES", 4 << 10}, {"CONFIG_PPC_64K_PAGES", 64 << 10},
}

func (k *Kernel) readPageSize(h *host.Host) {
	if k.Arch != nil {
		switch *k.Arch {
		case "amd64", "386", "riscv64", "s390x":
			k.PageSize = new(4096) // the only one these have
			return
		}
	}
	n, err := h.PageSize()
	if err == nil && n >= 4096 {
		k.PageSize = &n
		return
	}
	for _, c := range pageConfig {
		if k.Config[c.option] == "y" {
			k.PageSize = new(c.size)
			return
		}
	}
	if k.Arch != nil && *k.Arch == "arm64" {
		if n := armPageSize(h); n != 0 {
			k.PageSize = &n
			return
		}
	}
	k.Unknown.say("page_size", "neither the kernel configuration nor the hugepage sizes tell it")
}

// armPageSize tells the page size of an arm64 kernel by its hugepage sizes,
// which each granule has its own of (Documentation/arch/arm64/hugetlbpage.rst):
//
//	 4K: 64K   2M  32M    1G
//	16K:  2M  32M   1G
//	64K:  2M 512M  16G
//
// 0 means that they do not tell. The default size alone counts only when
// nobody chose it on the command line.
func armPageSize(h *host.Host) int {
	dirs, err := h.List(HugepagesPath)
	if err == nil && len(dirs) > 0 {
		has := map[int64]bool{}
		for _, d := range dirs {
			if kb, ok := poolDirKB(d); ok {
				has[kb] = true
			}
		}
		switch {
		case has[512<<10], has[16<<20]:
			return 64 << 10
		case has[64]:
			return 4 << 10
		case has[32<<10]:
			return 16 << 10
		}
	}
	cmdline, err := h.Text("/proc/cmdline")
	if err != nil || strings.Contains(strings.ReplaceAll(cmdline, "-", "_"), "default_hugepagesz") {
		return 0
	}
	b, err := h.Read(pathMeminfo)
	if err != nil {
		return 0
	}
	switch parseMeminfo(string(b))["Hugepagesize"] {
	case 2 << 10:
		return 4 << 10
	case 32 << 10:
		return 16 << 10
	case 512 << 10:
		return 64 << 10
	}
	return 0
}

func (k *Kernel) readLockdown(h *host.Host) {
	s, err := h.Text(pathLockdown)
	if err == nil {
		mode, ok := parseBracketed(s)
		if !ok {
			k.Unknown.say("lockdown", pathLockdown+": no mode is marked in it")
			return
		}
		k.Lockdown = &mode
		return
	}
	switch {
	case host.Absent(err) && k.Config != nil && k.Config["CONFIG_SECURITY_LOCKDOWN_LSM"] == "":
		k.Lockdown = new("none") // not built in
	case h.Lacks(err):
		k.Unknown.say("lockdown", host.Reason(err)+" (securityfs is not mounted here, or the kernel has no lockdown)")
	default:
		k.Unknown.say("lockdown", whyNot(h, err))
	}
}

// parseBracketed gives the word in brackets of "[none] integrity …".
func parseBracketed(s string) (word string, ok bool) {
	for _, w := range strings.Fields(s) {
		if len(w) > 2 && w[0] == '[' && w[len(w)-1] == ']' {
			return w[1 : len(w)-1], true
		}
	}
	return "", false
}

func (k *Kernel) readVendor(h *host.Host, cpu cpuInfo, err error) {
	if err == nil && cpu.vendor == "" {
		err = errors.New(pathCPUInfo + ": names no maker")
	}
	if err != nil {
		k.Unknown.say("cpu_vendor", whyNot(h, err))
	} else {
		k.Vendor = &cpu.vendor
	}
	switch {
	case cpu.flags != nil:
		k.CPUFlags = []string{}
		for _, name := range cpuFlagsWanted {
			if cpu.flags[name] {
				k.CPUFlags = append(k.CPUFlags, name)
			}
		}
	case err != nil:
		k.Unknown.say("cpu_flags", whyNot(h, err))
	default:
		k.Unknown.say("cpu_flags", pathCPUInfo+": lists no x86 flags")
	}
}

// readHypervisor tells a guest from bare metal. On x86 the CPU flag decides,
// and DMI gives the name; elsewhere DMI is all there is.
func (k *Kernel) readHypervisor(h *host.Host, cpu cpuInfo) {
	if s, err := h.Text(pathXen); err == nil && s != "" {
		k.Hypervisor = &s
		return
	}
	vendor, err := h.Text(pathDMIVendor)
	product, _ := h.Text(pathDMIName)
	name, sure := dmiHypervisor(vendor, product)
	x86 := cpu.flags != nil
	switch {
	case sure, name != "" && (!x86 || cpu.flags["hypervisor"]):
		k.Hypervisor = &name
	case x86 && cpu.flags["hypervisor"], cpu.platform == "pSeries":
		k.Hypervisor = new("unnamed")
	case x86, cpu.platform == "PowerNV", err == nil && vendor != "":
		k.Hypervisor = new("")
	case err != nil:
		k.Unknown.say("hypervisor", whyNot(h, err))
	default:
		k.Unknown.say("hypervisor", pathDMIVendor+": empty")
	}
}

// dmiHypervisor names the hypervisor that the firmware's maker and product
// stand for. It is sure where they cannot be those of a real machine: clouds
// put the same maker on their bare-metal instances.
func dmiHypervisor(vendor, product string) (name string, sure bool) {
	has := func(s string, words ...string) bool {
		for _, w := range words {
			if strings.Contains(s, w) {
				return true
			}
		}
		return false
	}
	switch {
	case vendor == "Microsoft Corporation" && product == "Virtual Machine":
		return "hyperv", true
	case has(vendor, "VMware", "VMW"):
		return "vmware", true
	case has(product, "VirtualBox"), has(vendor, "innotek"):
		return "virtualbox", true
	case has(vendor, "Xen"), product == "HVM domU":
		return "xen", true
	case has(vendor, "Parallels"), has(product, "Parallels"):
		return "parallels", true
	case has(vendor, "Apple") && has(product, "Virtual"):
		return "apple", true
	case has(vendor, "QEMU", "Bochs", "KubeVirt", "OpenStack"), has(product, "KVM", "KubeVirt", "OpenStack", "Standard PC (", "QEMU Virtual Machine"):
		return "kvm", true
	case vendor == "Amazon EC2":
		if strings.Contains(product, ".metal") {
			return "", false
		}
		return "kvm", false
	case has(product, "Google Compute Engine", "Alibaba Cloud ECS"), has(vendor, "Google", "Alibaba Cloud", "Tencent Cloud", "DigitalOcean", "Hetzner"):
		return "kvm", false
	}
	return "", false
}
