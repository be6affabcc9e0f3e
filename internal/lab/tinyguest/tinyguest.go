// SPDX-License-Identifier: Apache-2.0

// Package tinyguest is what process 1 of a tiny guest says on its console: one
// line for each thing, [Mark], a word and a JSON value.
package tinyguest

// Mark begins each line.
const Mark = "@hostcheck-lab"

// Kernel is what a kernel made of its command line, "@hostcheck-lab kernel".
type Kernel struct {
	Arch     string `json:"arch"`
	PageSize int    `json:"page_size"` // bytes
	Release  string `json:"release"`
	Cmdline  string `json:"cmdline"`

	CPUs     string `json:"cpus"`     // present, as a kernel list
	Possible string `json:"possible"` // as a kernel list
	Nodes    string `json:"nodes"`    // online, as a kernel list
	Isolated string `json:"isolated"` // as a kernel list
	NohzFull string `json:"nohz_full"`

	DefaultHugepage string            `json:"default_hugepage"` // "2048 kB"
	Pools           map[string]string `json:"pools"`            // path of nr_hugepages to its text
	Groups          map[string]string `json:"groups"`           // path of an IOMMU group's type to its text
	Files           map[string]string `json:"files"`            // what a decoder needs to know of the machine
	Log             string            `json:"log"`
}

// Run is how a program in the guest ended, "@hostcheck-lab run".
type Run struct {
	Out  string `json:"out"`
	Err  string `json:"err"`
	Code int    `json:"code"` // -1: it could not be started
}
