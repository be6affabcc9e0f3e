// SPDX-License-Identifier: Apache-2.0

package facts

// NodePool is the pool of one page size on one node.
type NodePool struct {
	SizeKB  int64   `json:"size_kb"`
	Node    int     `json:"node"`
	Total   *int64  `json:"total"` // pages
	Free    *int64  `json:"free"`
	Surplus *int64  `json:"surplus"`
	Unknown Unknown `json:"unknown,omitempty"`
}

// GlobalPool is the pool of one page size over the whole host.
type GlobalPool struct {
	SizeKB     int64   `json:"size_kb"`
	Total      *int64  `json:"total"`
	Free       *int64  `json:"free"`
	Reserved   *int64  `json:"reserved"`
	Surplus    *int64  `json:"surplus"`
	Overcommit *int64  `json:"overcommit"`
	Unknown    Unknown `json:"unknown,omitempty"`
}

// HugeMount is one hugetlbfs mount.
type HugeMount struct {
	Path   string `json:"path"`
	SizeKB *int64 `json:"size_kb"` // of its pages; nil where the options leave it to a default that is not known
}

// Hugepages is the hugetlb pools as they are (live), not as they were asked for.
type Hugepages struct {
	DefaultKB  *int64       `json:"default_kb"` // Hugepagesize of /proc/meminfo
	Pools      []NodePool   `json:"pools"`
	Global     []GlobalPool `json:"global"`
	Mounts     []HugeMount  `json:"mounts"`
	MemTotalKB *int64       `json:"mem_total_kb"`
	HugetlbKB  *int64       `json:"hugetlb_kb"` // "Hugetlb:" of /proc/meminfo: all sizes together
	Unknown    Unknown      `json:"unknown,omitempty"`
}

// Hugepages gives the host's hugetlb pools.
func (f *Facts) Hugepages() *Hugepages { return f.hugepages.get(f, decodeHugepages) }

func decodeHugepages(f *Facts) *Hugepages { panic("not written yet") }
