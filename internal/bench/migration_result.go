// SPDX-License-Identifier: Apache-2.0

package bench

// MigrationSchema names the format of [Migration].
const MigrationSchema = "hostcheck.bench.migration/v1"

// Migration is what was measured of page migration between memory nodes: by this
// program on a host, or by others who published tables. Advice is drawn from
// it, never from a table of constants.
type Migration struct {
	Schema     string              `json:"schema"`
	Host       MigrationHost       `json:"host"`
	Conditions MigrationConditions `json:"conditions"`
	Rows       []MigrationRow      `json:"rows"`
	Copies     []MigrationCopy     `json:"copies"`    // the limit: what a program reaches that copies
	Tools      []MigrationTool     `json:"tools"`     // the same by other programs
	Discarded  []MigrationDiscard  `json:"discarded"` // runs that do not count, and why
	Skipped    []string            `json:"skipped"`   // what was not measured, and why
	Summary    []string            `json:"summary"`
}

// MigrationHost is what the figures hold for.
type MigrationHost struct {
	Kernel     string `json:"kernel"`
	Arch       string `json:"arch"`
	CPU        string `json:"cpu"`
	PageKB     int    `json:"page_kb"`
	Nodes      []int  `json:"nodes"`       // nodes with memory
	Driver     string `json:"driver"`      // of the copy engine ("ptdma"), or "" where the CPU copies
	Revision   string `json:"revision"`    // of the offload's control directory ("v6"), or ""
	BatchPages int    `json:"batch_pages"` // the kernel's NR_MAX_BATCHED_MIGRATION in base pages as measured; 0: not measured
}

// MigrationConditions is what was held still while it was measured.
type MigrationConditions struct {
	Bytes         int64  `json:"bytes"` // moved by each run
	Runs          int    `json:"runs"`  // of which a row is the mean
	NUMABalancing string `json:"numa_balancing"`
	KSM           string `json:"ksm"` // 0: off
	Governor      string `json:"governor"`
	// Background is how busy the CPUs were before the runs, percent: what other
	// programs take is missing in all figures.
	Background float64 `json:"background_busy"`
}

// MigrationRow is one setting and its figures.
type MigrationRow struct {
	From      int   `json:"from"` // node
	To        int   `json:"to"`   // node
	FolioKB   int   `json:"folio_kb"`
	Channels  int   `json:"channels"`   // of the copy engine; 0: the CPU copies
	Workers   int   `json:"workers"`    // threads that call move_pages at a time; 1 if not swept
	CallFolio int   `json:"call_folio"` // folios for each call; 0: everything in one
	CPUs      []int `json:"cpus"`       // that the workers were pinned to
	Bytes     int64 `json:"bytes"`      // moved by each run, where few folios for each call make it less than the conditions say
	// BatchPages is the kernel's batch limit during the run, base pages; 0: the
	// host's own.
	BatchPages int     `json:"batch_pages"`
	Runs       int     `json:"runs"`
	GBps       float64 `json:"gbps"` // 1e9 bytes a second, mean
	SD         float64 `json:"sd"`   // standard deviation of the same, sample
	// FirstUS is the median time from the unmapping of a batch's first folio until
	// it is usable again, microseconds; nil: not measured. FirstBy is how:
	// "tracepoints" or "blackout" (the longest stall that a reader saw).
	FirstUS *float64 `json:"first_us"`
	FirstBy string   `json:"first_by"`
}

// The ways to see the first folio of a batch.
const (
	FirstTracepoints = "tracepoints"
	FirstBlackout    = "blackout"
)

// MigrationDiscard is a run whose figures would mislead.
type MigrationDiscard struct {
	From    int    `json:"from"`
	To      int    `json:"to"`
	FolioKB int    `json:"folio_kb"`
	Why     string `json:"why"`
}

// MigrationCopy is memory of one node copied to another by programs, a thread
// for each CPU.
type MigrationCopy struct {
	From int     `json:"from"`
	To   int     `json:"to"`
	CPUs []int   `json:"cpus"`
	Runs int     `json:"runs"`
	GBps float64 `json:"gbps"` // 1e9 bytes copied a second, mean
	SD   float64 `json:"sd"`
}

// MigrationTool is what another program says of the same, or how long it takes.
type MigrationTool struct {
	Name string  `json:"name"` // "migspeed"
	From int     `json:"from"`
	To   int     `json:"to"`
	GBps float64 `json:"gbps"`
	Note string  `json:"note"` // what it does, and how it was measured
}
