// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// IOMMUGroup is one isolation group.
type IOMMUGroup struct {
	ID       int      `json:"id"`
	Type     *string  `json:"type"`     // DMA, DMA-FQ, identity, blocked, unmanaged, …
	Devices  []string `json:"devices"`  // BDFs, or platform device names; nil when unreadable
	Reserved []string `json:"reserved"` // regions of type direct (RMRR) as "0x… 0x… direct"; nil when unreadable
	Unknown  Unknown  `json:"unknown,omitempty"`
}

// Path is one of the group's files.
func (g *IOMMUGroup) Path(name string) string {
	return path.Join(pathGroups, strconv.Itoa(g.ID), name)
}

// IOMMU is what the kernel really does, whatever its command line says.
type IOMMU struct {
	Active   *bool        `json:"active"`             // at least one unit is registered
	Units    []string     `json:"units"`              // names in /sys/class/iommu: dmar0, ivhd0, smmu3.…
	Firmware *string      `json:"firmware,omitempty"` // looked up while no unit is active: the ACPI table that describes one (DMAR, IVRS, IORT), "" for none
	Groups   []IOMMUGroup `json:"groups"`             // by number
	Unknown  Unknown      `json:"unknown,omitempty"`

	byDevice map[string]*IOMMUGroup
}

// Group gives the group of a device, or nil.
func (i *IOMMU) Group(bdf string) *IOMMUGroup { return i.byDevice[bdf] }

// IOMMU gives the host's IOMMU state.
func (f *Facts) IOMMU() *IOMMU { return f.iommu.get(f, decodeIOMMU) }

// Where the kernel shows its IOMMUs, their groups, and the firmware's tables.
const (
	IOMMUUnits = "/sys/class/iommu"
	ACPITables = "/sys/firmware/acpi/tables"
	pathGroups = "/sys/kernel/iommu_groups"
)

func decodeIOMMU(f *Facts) *IOMMU {
	h := f.host
	i := &IOMMU{byDevice: map[string]*IOMMUGroup{}}
	h.Prefetch([]host.Op{{Kind: host.ListDir, Path: IOMMUUnits}, {Kind: host.ListDir, Path: pathGroups}})

	units, err := h.List(IOMMUUnits)
	switch {
	case err == nil:
		i.Units = units
	case kernelLacks(h, err): // built without CONFIG_IOMMU_API
		i.Units = []string{}
	default:
		i.Unknown.say("units", whyNot(h, err))
	}
	i.readGroups(h)
	// only a registered unit gives a group one of these
	typed := slices.ContainsFunc(i.Groups, func(g IOMMUGroup) bool { return g.Type != nil && translating(*g.Type) })
	switch {
	case i.Units != nil && len(i.Units) == 0 && typed:
		i.Unknown.say("active", IOMMUUnits+" lists no unit, and "+pathGroups+" has domain types that only an active one gives")
	case i.Units != nil:
		i.Active = new(len(i.Units) > 0)
	case typed:
		i.Active = new(true)
	default:
		i.Unknown.say("active", i.Unknown["units"])
	}
	if len(i.Units) > 0 && i.Groups != nil && len(i.Groups) == 0 {
		i.Groups = nil
		i.Unknown.say("groups", IOMMUUnits+" lists active units, and "+pathGroups+" is empty")
	}
	if i.Active != nil && !*i.Active {
		i.readFirmware(h)
	}
	return i
}

// readFirmware tells an IOMMU that nobody switched on from one that the
// firmware does not offer.
func (i *IOMMU) readFirmware(h *host.Host) {
	names, err := h.List(ACPITables)
	if err != nil {
		i.Unknown.say("firmware", whyNot(h, err))
		return
	}
	i.Firmware = new("")
	for _, table := range []string{"DMAR", "IVRS", "IORT", "VIOT"} {
		if slices.Contains(names, table) {
			i.Firmware = &table
			return
		}
	}
}

// translating is true of the types that a group has only under an IOMMU; the
// groups of vfio's no-IOMMU mode are "unknown".
func translating(kind string) bool {
	switch kind {
	case "DMA", "DMA-FQ", "identity", "blocked", "unmanaged":
		return true
	}
	return false
}

func (i *IOMMU) readGroups(h *host.Host) {
	names, err := h.List(pathGroups)
	if err != nil {
		if kernelLacks(h, err) {
			i.Groups = []IOMMUGroup{}
			return
		}
		i.Unknown.say("groups", whyNot(h, err))
		return
	}
	i.Groups = make([]IOMMUGroup, 0, len(names))
	for _, name := range names {
		if id, ok := numbered(name, ""); ok {
			i.Groups = append(i.Groups, IOMMUGroup{ID: id})
		}
	}
	slices.SortFunc(i.Groups, func(a, b IOMMUGroup) int { return a.ID - b.ID })

	ops := make([]host.Op, 0, 3*len(i.Groups))
	for n := range i.Groups {
		g := &i.Groups[n]
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: g.Path("type")}, host.Op{Kind: host.ListDir, Path: g.Path("devices")},
			host.Op{Kind: host.ReadFile, Path: g.Path("reserved_regions")})
	}
	h.Prefetch(ops)
	for n := range i.Groups {
		g := &i.Groups[n]
		g.read(h)
		for _, d := range g.Devices {
			i.byDevice[d] = g
		}
	}
}

func (g *IOMMUGroup) read(h *host.Host) {
	if s, err := h.Text(g.Path("type")); err != nil {
		g.Unknown.say("type", whyNot(h, err))
	} else {
		g.Type = &s
	}
	if names, err := h.List(g.Path("devices")); err != nil {
		g.Unknown.say("devices", whyNot(h, err))
	} else {
		g.Devices = names
	}
	if b, err := h.Read(g.Path("reserved_regions")); err != nil {
		g.Unknown.say("reserved", whyNot(h, err))
	} else {
		g.Reserved = directRegions(string(b))
	}
}

// directRegions keeps the regions that the firmware wants mapped one to one
// for good ("direct"); "direct-relaxable", "msi" and "reserved" block nothing.
func directRegions(text string) []string {
	direct := []string{}
	for line := range strings.SplitSeq(text, "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "direct" {
			direct = append(direct, strings.Join(f, " "))
		}
	}
	return direct
}
