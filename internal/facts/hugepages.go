// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// NodePool is the pool of one page size on one node.
type NodePool struct {
	SizeKB  int64   `json:"size_kb"`
	Node    int     `json:"node"`
	Total   *int64  `json:"total"` // pages
	Free    *int64  `json:"free"`
	Surplus *int64  `json:"surplus"`
	Dir     string  `json:"-"` // where it was read
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
	Dir        string  `json:"-"`
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
	Pools      []NodePool   `json:"pools"`      // per node, then per size; on a kernel without NUMA those of node 0 are the global ones
	Global     []GlobalPool `json:"global"`     // per size
	Meminfo    *GlobalPool  `json:"meminfo"`    // the default size's pool as /proc/meminfo has it; no Overcommit there
	Mounts     []HugeMount  `json:"mounts"`
	MemTotalKB *int64       `json:"mem_total_kb"`
	HugetlbKB  *int64       `json:"hugetlb_kb"` // "Hugetlb:" of /proc/meminfo: all sizes together
	Unknown    Unknown      `json:"unknown,omitempty"`

	// MountSource is the file that Mounts comes from.
	MountSource string `json:"-"`
	// Unlisted says of nodes whose pools could not be listed why.
	Unlisted map[int]string `json:"-"`
}

// Pool gives the pool of a size on a node, or nil.
func (p *Hugepages) Pool(node int, sizeKB int64) *NodePool {
	for i := range p.Pools {
		if p.Pools[i].Node == node && p.Pools[i].SizeKB == sizeKB {
			return &p.Pools[i]
		}
	}
	return nil
}

// Total gives how many pages of a size the host has and where that stands: the
// global pool, else the sum over the nodes, else /proc/meminfo, which has the
// default size alone. ok is false when none of them tells.
func (p *Hugepages) Total(sizeKB int64) (pages int64, source string, ok bool) {
	for _, g := range p.Global {
		if g.SizeKB == sizeKB && g.Total != nil {
			return *g.Total, path.Join(g.Dir, "nr_hugepages"), true
		}
	}
	found, complete := false, true
	for _, n := range p.Pools {
		if n.SizeKB != sizeKB {
			continue
		}
		if found = true; n.Total == nil {
			complete = false
			continue
		}
		pages += *n.Total
	}
	switch {
	case found && complete:
		return pages, pathNode + "/node*/hugepages/" + poolDir(sizeKB) + "/nr_hugepages", true
	case p.Meminfo != nil && p.Meminfo.SizeKB == sizeKB && p.Meminfo.Total != nil:
		return *p.Meminfo.Total, pathMeminfo, true
	}
	return 0, "", false
}

// Surplus gives how many of the pages that [Hugepages.Total] counts are
// surplus; nil and why when that is not known.
func (p *Hugepages) Surplus(sizeKB int64) (pages *int64, why string) {
	for _, g := range p.Global {
		if g.SizeKB == sizeKB && g.Total != nil {
			return g.Surplus, g.Unknown["surplus"]
		}
	}
	var sum int64
	found := false
	for _, n := range p.Pools {
		if n.SizeKB != sizeKB {
			continue
		}
		if n.Surplus == nil {
			found, why = false, n.Unknown["surplus"]
			break
		}
		found, sum = true, sum+*n.Surplus
	}
	switch {
	case found:
		return &sum, ""
	case p.Meminfo != nil && p.Meminfo.SizeKB == sizeKB:
		return p.Meminfo.Surplus, p.Meminfo.Unknown["surplus"]
	}
	return nil, why
}

// Sizes gives the page sizes that the kernel has pools for, the smallest
// first; nil when no directory of pools could be read.
func (p *Hugepages) Sizes() []int64 {
	var sizes []int64
	for _, g := range p.Global {
		sizes = append(sizes, g.SizeKB)
	}
	for _, n := range p.Pools {
		sizes = append(sizes, n.SizeKB)
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}

// Hugepages gives the host's hugetlb pools.
func (f *Facts) Hugepages() *Hugepages { return f.hugepages.get(f, decodeHugepages) }

func decodeHugepages(f *Facts) *Hugepages {
	h := f.host
	p := new(Hugepages)
	nodes, single, nodeErr := nodeNumbers(h)
	ops := []host.Op{{Kind: host.ListDir, Path: HugepagesPath}, {Kind: host.ReadFile, Path: pathMeminfo}}
	if !single {
		for _, n := range nodes {
			ops = append(ops, host.Op{Kind: host.ListDir, Path: NodePath(n) + "/hugepages"})
		}
	}
	h.Prefetch(ops)
	p.readMeminfo(h)

	global, globalErr := poolSizes(h, HugepagesPath)
	ops = ops[:0]
	for _, kb := range global {
		ops = appendReads(ops, path.Join(HugepagesPath, poolDir(kb)), globalAttrs[:])
	}
	perNode := make([][]int64, len(nodes))
	errs := make([]error, len(nodes))
	if !single {
		for i, n := range nodes {
			dir := NodePath(n) + "/hugepages"
			perNode[i], errs[i] = poolSizes(h, dir)
			for _, kb := range perNode[i] {
				ops = appendReads(ops, path.Join(dir, poolDir(kb)), nodeAttrs[:])
			}
		}
	}
	h.Prefetch(ops)

	p.Global = []GlobalPool{}
	for _, kb := range global {
		p.Global = append(p.Global, readGlobal(h, kb))
	}
	switch {
	case globalErr == nil, kernelLacks(h, globalErr): // a kernel without hugetlb has no directory
	default:
		p.Global = nil
		p.Unknown.say("global", whyNot(h, globalErr))
	}
	switch {
	case single:
		p.Pools = wholePools(p.Global)
		if p.Pools == nil {
			p.Unknown.say("pools", p.Unknown["global"])
		}
	case nodeErr != nil:
		p.Unknown.say("pools", whyNot(h, nodeErr))
	default:
		p.readNodes(h, nodes, perNode, errs)
	}
	p.readMounts(h)
	return p
}

var (
	globalAttrs = [...]string{"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages", "nr_overcommit_hugepages"}
	nodeAttrs   = [...]string{"nr_hugepages", "free_hugepages", "surplus_hugepages"}
)

func appendReads(ops []host.Op, dir string, names []string) []host.Op {
	for _, n := range names {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(dir, n)})
	}
	return ops
}

// poolSizes lists the page sizes that a directory has pools of, the smallest
// first.
func poolSizes(h *host.Host, dir string) ([]int64, error) {
	names, err := h.List(dir)
	if err != nil {
		return nil, err
	}
	sizes := []int64{}
	for _, n := range names {
		kb, ok := poolDirKB(n)
		switch {
		case ok:
			sizes = append(sizes, kb)
		case strings.HasPrefix(n, "hugepages-"):
			return nil, &host.Error{Op: "read", Path: path.Join(dir, n), Err: errors.New("not a page size of any kernel")}
		}
	}
	slices.Sort(sizes)
	return sizes, nil
}

// count reads one number of a pool: at most most pages.
func count(h *host.Host, dir, file, field string, most int64, u *Unknown) *int64 {
	p := path.Join(dir, file)
	n, err := h.Int(p)
	if err == nil && n < 0 {
		err = &host.Error{Op: "read", Path: p, Err: errors.New("negative")}
	}
	if err == nil && n > most {
		err = &host.Error{Op: "read", Path: p, Err: errors.New("more pages than a machine can have")}
	}
	if err != nil {
		u.say(field, whyNot(h, err))
		return nil
	}
	return &n
}

func readGlobal(h *host.Host, kb int64) GlobalPool {
	g := GlobalPool{SizeKB: kb, Dir: path.Join(HugepagesPath, poolDir(kb))}
	for i, to := range [...]struct {
		field string
		v     **int64
	}{{"total", &g.Total}, {"free", &g.Free}, {"reserved", &g.Reserved}, {"surplus", &g.Surplus}, {"overcommit", &g.Overcommit}} {
		most := maxMemKB / kb
		if to.field == "overcommit" { // a permission, for which the kernel takes any number
			most = math.MaxInt64
		}
		*to.v = count(h, g.Dir, globalAttrs[i], to.field, most, &g.Unknown)
	}
	return g
}

// readNodes reads the nodes' pools. A node whose directory cannot be read has
// no pools here and is named in Unknown; one without memory has none at all.
func (p *Hugepages) readNodes(h *host.Host, nodes []int, sizes [][]int64, errs []error) {
	p.Pools = []NodePool{}
	listed := 0
	for i, node := range nodes {
		dir := NodePath(node) + "/hugepages"
		if errs[i] != nil {
			if !kernelLacks(h, errs[i]) {
				if p.Unlisted == nil {
					p.Unlisted = map[int]string{}
					p.Unknown.say("pools", whyNot(h, errs[i]))
				}
				p.Unlisted[node] = whyNot(h, errs[i])
				continue
			}
		}
		listed++
		for _, kb := range sizes[i] {
			n := NodePool{SizeKB: kb, Node: node, Dir: path.Join(dir, poolDir(kb))}
			n.Total = count(h, n.Dir, nodeAttrs[0], "total", maxMemKB/kb, &n.Unknown)
			n.Free = count(h, n.Dir, nodeAttrs[1], "free", maxMemKB/kb, &n.Unknown)
			n.Surplus = count(h, n.Dir, nodeAttrs[2], "surplus", maxMemKB/kb, &n.Unknown)
			p.Pools = append(p.Pools, n)
		}
	}
	if listed == 0 {
		p.Pools = nil
		if p.Unlisted == nil {
			p.Unknown.say("pools", pathNode+": lists no node")
		}
	}
}

// wholePools are the pools of node 0 of a kernel without NUMA: the global ones.
func wholePools(global []GlobalPool) []NodePool {
	if global == nil {
		return nil
	}
	pools := []NodePool{}
	for _, g := range global {
		n := NodePool{SizeKB: g.SizeKB, Total: g.Total, Free: g.Free, Surplus: g.Surplus, Dir: g.Dir}
		for _, field := range []string{"total", "free", "surplus"} {
			if why := g.Unknown[field]; why != "" {
				n.Unknown.say(field, why)
			}
		}
		pools = append(pools, n)
	}
	return pools
}

func (p *Hugepages) readMeminfo(h *host.Host) {
	fields := []string{"default_kb", "meminfo", "mem_total_kb", "hugetlb_kb"}
	b, err := h.Read(pathMeminfo)
	if err != nil {
		for _, f := range fields {
			p.Unknown.say(f, whyNot(h, err))
		}
		return
	}
	m := parseMeminfo(string(b))
	get := func(name, field string, u *Unknown) *int64 {
		if n, ok := m[name]; ok {
			return &n
		}
		u.say(field, pathMeminfo+": has no "+name)
		return nil
	}
	p.DefaultKB = get("Hugepagesize", fields[0], &p.Unknown)
	p.MemTotalKB = get("MemTotal", fields[2], &p.Unknown)
	p.HugetlbKB = get("Hugetlb", fields[3], &p.Unknown) // since 4.18
	if p.DefaultKB == nil {
		p.Unknown.say(fields[1], p.Unknown[fields[0]])
		return
	}
	g := &GlobalPool{SizeKB: *p.DefaultKB, Dir: pathMeminfo}
	g.Total = get("HugePages_Total", "total", &g.Unknown)
	g.Free = get("HugePages_Free", "free", &g.Unknown)
	g.Reserved = get("HugePages_Rsvd", "reserved", &g.Unknown)
	g.Surplus = get("HugePages_Surp", "surplus", &g.Unknown)
	g.Unknown.say("overcommit", pathMeminfo+": does not have it")
	p.Meminfo = g
}
