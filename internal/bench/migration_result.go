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
	Discarded  []MigrationDiscard  `json:"discarded"` // runs that do not count, and why
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
	Governor      string `json:"governor"`
}

// MigrationRow is one setting and its figures.
type MigrationRow struct {
	From      int `json:"from"` // node
	To        int `json:"to"`   // node
	FolioKB   int `json:"folio_kb"`
	Channels  int `json:"channels"`   // of the copy engine; 0: the CPU copies
	Workers   int `json:"workers"`    // threads that call move_pages at a time; 1 if not swept
	CallFolio int `json:"call_folio"` // folios for each call; 0: everything in one
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

// MigrationDiscard is a run whose figures would mislead.
type MigrationDiscard struct {
	From    int    `json:"from"`
	To      int    `json:"to"`
	FolioKB int    `json:"folio_kb"`
	Why     string `json:"why"`
}
