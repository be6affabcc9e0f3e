// SPDX-License-Identifier: Apache-2.0

// Package plan holds changes to a host as data: what a fix would set, where,
// and at what risk. Nothing here touches a machine.
package plan

// Tier is the risk class of a change.
type Tier string

// The tiers, from the least to the most disturbing.
const (
	Safe     Tier = "safe"     // online, reversible at once
	Link     Tier = "link"     // may flap a port, rebind a driver or destroy VFs
	Boot     Tier = "boot"     // takes effect at the next boot
	Firmware Tier = "firmware" // printed, never done
)

// Setting names one thing that can be set.
type Setting struct {
	Kind   string `json:"kind"`   // "sysctl", "cmdline", "hugepages", "manual", …
	Target string `json:"target"` // the device or file, "" when the kind has one
	Name   string `json:"name"`
}

// Change is one setting with its value before and after. It is data only.
type Change struct {
	Setting
	Before  string `json:"before"`
	After   string `json:"after"`
	Tier    Tier   `json:"tier"`
	Persist bool   `json:"-"`
	Why     string `json:"-"`
}
