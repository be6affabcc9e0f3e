// SPDX-License-Identifier: Apache-2.0

// Package profile holds golden profiles: the values that a host is judged by,
// each with its source and scope, merged from layers.
package profile

// Profile is the merged golden values for one host. Checks read the values
// directly: p.Cmdline.Require, p.Hugepages.Pools, ….
type Profile struct {
	Layers       []string // names of the merged layers, in order: "base", "intel", "rdma-400g", "--set"
	Intent       string   // one of [Intents], or "" when none is stated and none could be assumed
	IntentSource string   // [Stated] or [Assumed]
	IntentWhy    string   // of an assumed intent: what it was assumed from, or why none was
	Hash         string   // SHA-256, hex, over the merged values, the intent and Require
	Require      []string // globs of check IDs that must be judged: unknown or error there makes the run incomplete
	Values
}

// Who the intent comes from. An assumed intent yields at most a warning and
// never a change.
const (
	Stated  = "stated"
	Assumed = "assumed"
)

// Intents are the purposes that no hardware can tell.
var Intents = []string{"baremetal-gpudirect", "sriov-tenant", "vm-gpudirect", "grace-direct-nic", "guest"}
