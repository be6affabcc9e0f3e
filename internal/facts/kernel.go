// SPDX-License-Identifier: Apache-2.0

package facts

// Kernel is the running kernel.
type Kernel struct {
	Release    *string           `json:"release"`    // /proc/sys/kernel/osrelease, "6.12.107-amd64"
	Arch       *string           `json:"arch"`       // as Go and Debian call it: "amd64", "arm64", …
	PageSize   *int              `json:"page_size"`  // bytes
	Config     map[string]string `json:"config"`     // CONFIG_X -> y, m, or the value without quotes; an unset option is absent
	Lockdown   *string           `json:"lockdown"`   // /sys/kernel/security/lockdown: none, integrity, confidentiality
	Taint      *int64            `json:"taint"`      // /proc/sys/kernel/tainted, bits of admin-guide/tainted-kernels
	Vendor     *string           `json:"cpu_vendor"` // /proc/cpuinfo: GenuineIntel, AuthenticAMD, ARM, …
	Hypervisor *string           `json:"hypervisor"` // "" on bare metal; "kvm", "hyperv", "vmware", … or "unnamed" for an unidentified one
	Unknown    Unknown           `json:"unknown,omitempty"`
}

// Kernel gives the running kernel.
func (f *Facts) Kernel() *Kernel { return f.kernel.get(f, decodeKernel) }

func decodeKernel(f *Facts) *Kernel { panic("not written yet") }
