// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/hostcheck/hostcheck/internal/plan"
)

// PlanSchema names the format of [Plan].
const PlanSchema = "hostcheck.fleet-plan/v1"

// Plan is what "hostcheck fleet plan" writes: which hosts need which fix, in
// which order, and how far it has come. It is a function of the reports and the
// caps; nothing is remembered, and nothing is run.
type Plan struct {
	Schema       string      `json:"schema" doc:"name and version of this format"`
	Hash         string      `json:"hash" doc:"SHA-256 of the plan without its progress: the same reports and caps give the same hash"`
	Tool         Tool        `json:"tool" doc:"the hostcheck that planned"`
	State        string      `json:"state" enum:"next,waiting,stopped,complete" doc:"next: a batch is to be run; waiting: hosts of the last one have not reported; stopped: one of them is not fit; complete: no batch is left"`
	Why          string      `json:"why" doc:"the state in words"`
	Next         *int        `json:"next" doc:"number of the batch to run now; null when none is given"`
	Caps         Caps        `json:"caps"`
	Allow        []plan.Tier `json:"allow" doc:"tiers of changes that are allowed: safe, link, boot"`
	Summary      PlanSummary `json:"summary"`
	Batches      []Batch     `json:"batches" doc:"in the order in which they are to be run"`
	Holding      []Holding   `json:"holding" doc:"hosts of a batch that was run that hold the next one back"`
	LeftOut      []LeftOut   `json:"left_out" doc:"hosts that are not planned, by reason"`
	Problems     []Problem   `json:"problems" doc:"what is no usable report, or one of several of the same host; then what else there is to know"`
	MoreProblems int         `json:"more_problems" doc:"problems beyond those listed"`
}

// Caps is how many hosts may be worked on at once.
type Caps struct {
	MaxHosts    int    `json:"max_hosts" doc:"of --max-hosts"`
	MaxFraction string `json:"max_fraction" doc:"of --max-fraction, a decimal number; part of hosts, rounded down"`
	Hosts       int    `json:"hosts" doc:"hosts of the fleet: all that have a usable report"`
	AtOnce      int    `json:"at_once" doc:"the smaller of the two"`
	Spread      string `json:"spread" doc:"label of which each group has a cap of its own: the same part of its hosts, rounded down, but at least one; empty: none"`
	Groups      int    `json:"groups" doc:"groups by that label"`
	Unlabelled  int    `json:"unlabelled" doc:"hosts that the labels do not name; together they are one group"`
}

// PlanSummary counts hosts.
type PlanSummary struct {
	Hosts    int `json:"hosts" doc:"with a usable report"`
	Planned  int `json:"planned" doc:"of them, in a batch"`
	Fit      int `json:"fit" doc:"of them, without a finding that asks for a fix"`
	LeftOut  int `json:"left_out" doc:"of them, neither"`
	Unjudged int `json:"unjudged" doc:"of those left out, whose report is no verdict on them"`
	Failing  int `json:"failing" doc:"of those left out, that fail, and will"`
	Done     int `json:"done" doc:"of the planned ones, fit when they were judged again"`
	Pending  int `json:"pending" doc:"fit only after the next boot: of those done, and of those left out because they wait for it"`
	Problems int `json:"problems" doc:"reports that could not be used"`
	Exit     int `json:"exit" doc:"exit code: 4 stopped, 1 a batch is to be run, 3 a host has not reported or could not be judged, 10 all is done and a host is pending, 0 all is done"`
}

// States of a plan and of its batches.
const (
	PlanNext     = "next"
	PlanWaiting  = "waiting"
	PlanStopped  = "stopped"
	PlanComplete = "complete"
	batchDone    = "done"
	batchLater   = "later"
)

// Batch is hosts that may be worked on at once.
type Batch struct {
	Number int    `json:"number" doc:"from 1"`
	Canary bool   `json:"canary" doc:"one host of each kind, before all others: kernel, architecture, profile and what is to be fixed make a kind"`
	State  string `json:"state" enum:"done,next,waiting,stopped,later"`
	N      int    `json:"n" doc:"number of hosts"`
	Hosts  string `json:"hosts" doc:"folded"`
	Steps  []Step `json:"steps" doc:"what to run, and where; each host stands in one"`
}

// Step is a command for the hosts that need the same.
type Step struct {
	Command []string    `json:"command" doc:"words of the command to run on each of these hosts, as root"`
	Checks  []string    `json:"checks" doc:"what it makes pass"`
	Tiers   []plan.Tier `json:"tiers" doc:"of the changes that it makes: safe, link, boot"`
	Stays   []string    `json:"stays" doc:"checks that fail there and that this does not mend"`
	Hosts   string      `json:"hosts" doc:"folded"`
	Names   []string    `json:"names" doc:"the same, one by one"`
}

// Holding is a host that holds the next batch back.
type Holding struct {
	Host  string `json:"host"`
	Batch int    `json:"batch"`
	State string `json:"state" enum:"failed,unjudged,missing,stale" doc:"stale: its report is not newer than the one it was planned from"`
	Why   string `json:"why"`
}

// LeftOut is hosts that no batch has, for one reason.
type LeftOut struct {
	Why   string `json:"why"`
	N     int    `json:"n" doc:"number of hosts"`
	Hosts string `json:"hosts" doc:"folded"`
}

// seal sets the hash: over what is planned, and not how far it has come or
// what was read beside.
func (p *Plan) seal() {
	type planned struct {
		Canary bool
		Steps  []Step
	}
	doc := struct {
		Schema  string
		Tool    Tool
		Caps    Caps
		Allow   []plan.Tier
		Batches []planned
		LeftOut []LeftOut
	}{p.Schema, p.Tool, p.Caps, p.Allow, nil, p.LeftOut}
	for _, b := range p.Batches {
		doc.Batches = append(doc.Batches, planned{b.Canary, b.Steps})
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(b)
	p.Hash = hex.EncodeToString(sum[:])
}
