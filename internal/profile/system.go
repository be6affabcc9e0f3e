// SPDX-License-Identifier: Apache-2.0

package profile

// SystemVal is the wanted state of memory management and CPUs.
type SystemVal struct {
	PageSize      Val[[]string] `yaml:"page_size" enum:"4K,16K,64K" doc:"acceptable base page sizes of the kernel"`
	THP           Val[[]string] `yaml:"thp" enum:"always,madvise,never" doc:"acceptable modes of transparent huge pages, the preferred one first"`
	NUMABalancing Val[bool]     `yaml:"numa_balancing" doc:"whether automatic NUMA balancing is to run; of no effect on one node"`
	Lockdown      Val[[]string] `yaml:"lockdown" enum:"none,integrity,confidentiality" doc:"acceptable modes of kernel lockdown"`
	Governor      Val[[]string] `yaml:"governor" enum:"performance,schedutil,ondemand,conservative,powersave,userspace" doc:"acceptable governors of CPU frequency; drivers that choose the frequency by themselves are judged apart"`
	FullView      Val[bool]     `yaml:"full_view" doc:"what is closed to hostcheck (no root, a container, lockdown) is a failure, not unknown"`
}
