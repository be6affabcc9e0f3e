// SPDX-License-Identifier: Apache-2.0

package profile

// MigrationVal is how memory is to move between nodes and tiers. Whether engines
// shall copy, only a measurement of the host tells: no layer that hostcheck
// brings says so.
type MigrationVal struct {
	Offload    Val[bool]     `yaml:"offload" doc:"whether copy engines are to copy what migrates; hostcheck tune plan migration finds out"`
	Engine     Val[string]   `yaml:"engine" enum:"ptdma,ae4dma,idxd" doc:"driver of the engines that are to copy; ptdma where nothing is said"`
	Channels   Val[int]      `yaml:"channels" range:"1..16" doc:"nr_dma_chan: channels of one batch"`
	Reasons    Val[[]string] `yaml:"reasons" enum:"compaction,memory_failure,memory_hotplug,syscall_or_cpuset,mempolicy_mbind,numa_misplaced,contig_range,longterm_pin,demotion,damon" doc:"reason_mask: migrations that engines copy"`
	Demotion   Val[bool]     `yaml:"demotion" doc:"whether reclaim moves pages to a slower memory tier and accesses bring them back; of no effect on one tier"`
	HugeFolios Val[bool]     `yaml:"huge_folios" doc:"whether 2M transparent huge pages are to be had by programs that ask, so that memory moves in large folios"`
}
