// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// Node is a node as its controller sees it, of "scontrol show node NAME".
type Node struct {
	Name   string `json:"name"`
	State  string `json:"state" doc:"as scontrol shows it, IDLE+DRAIN"`
	Reason string `json:"reason"`
	Owner  string `json:"owner" doc:"who set the reason; empty where Slurm does not say, or where it cannot be told for sure"`
	Known  bool   `json:"registered" doc:"slurmd has registered with the controller"`
}

// ErrNoNode is what a controller that knows no such node gives.
var ErrNoNode = errors.New("Slurm knows no such node") //nolint:revive,staticcheck // a name

var nodeName = pattern.Late(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// CheckName refuses what scontrol would take for more than one node.
func CheckName(name string) error {
	if !nodeName().MatchString(name) || strings.EqualFold(name, "all") {
		return fmt.Errorf("%.80q is not the name of one node; slurmd gives it as SLURMD_NODENAME, --node says another", name)
	}
	return nil
}

// ParseNode reads what "scontrol show node NAME" prints. Keys of other than
// Slurm's making come last (Reason, Comment, Extra) and may hold any text: the
// first State counts, and a second Reason makes its owner unknown.
func ParseNode(text, name string) (*Node, error) {
	n := &Node{}
	reasons := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n\r ")
		if v, ok := strings.CutPrefix(line, "NodeName="); ok {
			if n.Name != "" {
				return nil, fmt.Errorf("scontrol shows more than one node for %q", name)
			}
			n.Name, _, _ = strings.Cut(v, " ")
			continue
		}
		if n.Name == "" {
			continue
		}
		if v, ok := strings.CutPrefix(line, "   Reason="); ok {
			if reasons++; reasons == 1 {
				n.Reason, n.Owner = owned(v)
			} else {
				n.Owner = ""
			}
			continue
		}
		if reasons > 0 {
			continue // the rest of the reason, a comment
		}
		for f := range strings.FieldsSeq(line) {
			switch v, _, _ := strings.Cut(strings.TrimPrefix(f, "State="), " "); {
			case strings.HasPrefix(f, "State=") && strings.HasPrefix(line, "   State=") && n.State == "":
				n.State = v
			case strings.HasPrefix(f, "SlurmdStartTime=") && strings.HasPrefix(line, "   BootTime="):
				n.Known = f != "SlurmdStartTime=None" && f != "SlurmdStartTime=Unknown"
			}
		}
	}
	switch {
	case n.Name == "":
		return nil, ErrNoNode
	case n.Name != name:
		return nil, fmt.Errorf("scontrol shows the node %.80q for %q", n.Name, name)
	case n.State == "":
		return nil, fmt.Errorf("scontrol shows no state of %s", name)
	}
	return n, nil
}

// owner is at the end of a reason: "text [root@2026-11-27T23:53:45]".
var owner = pattern.Late(`^(.*?) ?\[([^@\[\]]+)@[0-9TZ:+.-]+\]$`)

func owned(reason string) (text, who string) {
	if m := owner().FindStringSubmatch(reason); m != nil {
		return m[1], m[2]
	}
	return reason, ""
}

// flags are the words of the state: the base state, and what is added to it.
// One-letter marks at the end are those of older versions.
func (n *Node) flags() []string {
	var all []string
	for w := range strings.SplitSeq(strings.ToUpper(n.State), "+") {
		word := strings.TrimRight(w, "*~#!%$@^-")
		all = append(all, word)
		if strings.Contains(w[len(word):], "*") {
			all = append(all, "NOT_RESPONDING")
		}
		if strings.ContainsAny(w[len(word):], "~#!%") {
			all = append(all, "POWER")
		}
		if strings.ContainsAny(w[len(word):], "@^") {
			all = append(all, "REBOOT")
		}
	}
	return all
}

// working are base states in which a node runs jobs or waits for some.
var working = []string{"IDLE", "ALLOCATED", "ALLOC", "MIXED", "MIX", "COMPLETING", "COMP", "RESERVED", "RESV", "PLANNED", "MAINT", "MAINTENANCE",
	"DRAIN", "DRAINED", "DRAINING", "BLOCKED"}

// away says why a node is nobody's to drain or resume; "" where it is.
func (n *Node) away() string {
	all := n.flags()
	if !n.Known || all[0] == "UNKNOWN" {
		return "slurmd has not registered yet"
	}
	for _, f := range all {
		switch {
		case f == "NOT_RESPONDING":
			return "it does not answer its controller"
		case strings.HasPrefix(f, "REBOOT"):
			return "it is about to reboot"
		case strings.HasPrefix(f, "POWER"):
			return "it is being powered up or down"
		case f == "DOWN" || f == "ERROR" || strings.HasPrefix(f, "FAIL") || f == "FUTURE" || f == "INVALID_REG" || f == "INVAL":
			return "somebody else must see to it first"
		}
	}
	if !slices.Contains(working, all[0]) {
		return "hostcheck does not know that state"
	}
	return ""
}

// Drained reports whether the node takes no new jobs, or is about to.
func (n *Node) Drained() bool {
	return slices.ContainsFunc(n.flags(), func(f string) bool { return f == "DRAIN" || f == "DRAINED" || f == "DRAINING" })
}

// Action is what Slurm is told.
type Action string

// The actions.
const (
	Nothing Action = "none"
	Drain   Action = "drain"
	Resume  Action = "resume"
)

// Step is what follows from a verdict for a node.
type Step struct {
	Action Action `json:"action" enum:"none,drain,resume"`
	Reason string `json:"reason" doc:"that the node gets"`
	Why    string `json:"why"`
}

// resumed is the reason of a node that we resumed. Slurm keeps the old one
// otherwise, and what it drains later must not look like ours.
const resumed = "resumed by hostcheck"

// Decide says what to tell Slurm about a node, me being the user that its
// controller takes us for. Only a drain of ours is ever lifted or given another
// reason, and none is added to one of somebody else.
func Decide(v *Verdict, n *Node, me string) Step {
	if why := n.away(); why != "" {
		return Step{Nothing, "", "left as it is: " + why}
	}
	ids, more, ours := because(n.Reason)
	ours = ours && n.Owner == me && me != ""
	switch {
	case !n.Drained() && v.Outcome == Unfit:
		return Step{Drain, v.Reason(), "it takes no new jobs until it is fit"}
	case !n.Drained():
		return Step{Nothing, "", "nothing to do"}
	case !ours:
		return Step{Nothing, "", fmt.Sprintf("left as it is: drained by %s: %s", orSomebody(n.Owner), n.Reason)}
	}
	switch v.Outcome {
	case Unfit:
		if was, _, _ := strings.Cut(strings.TrimPrefix(n.Reason, prefix), ": "); was == shortened(v.Failed) {
			return Step{Nothing, "", "drained already"}
		}
		return Step{Drain, v.Reason(), "drained already, now for another reason"}
	case Fit:
		for _, id := range ids {
			if !slices.Contains(v.Held, id) {
				return Step{Nothing, "", fmt.Sprintf("stays drained: %s, for which it was drained, could not be judged this time", id)}
			}
		}
		if more && len(v.Open) > 0 {
			return Step{Nothing, "", fmt.Sprintf("stays drained: %s could not be judged this time", v.Open[0])}
		}
		return Step{Resume, resumed, "what it was drained for holds again"}
	default:
		return Step{Nothing, "", "stays drained until the host can be judged"}
	}
}

func orSomebody(name string) string {
	if name == "" {
		return "somebody"
	}
	return name
}
