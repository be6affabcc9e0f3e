// SPDX-License-Identifier: Apache-2.0

package slurm

import "fmt"

// HealthSchema names the format of [Health].
const HealthSchema = "hostcheck.slurm/v1"

// Health is one run of "hostcheck slurm health".
type Health struct {
	Schema  string   `json:"schema" doc:"name and version of this format"`
	Verdict *Verdict `json:"verdict"`
	Node    *Node    `json:"node" doc:"as Slurm has it before the step; null where Slurm was not asked, or did not answer"`
	Step    Step     `json:"step" doc:"what follows"`
	DryRun  bool     `json:"dry_run"`
	Done    bool     `json:"done" doc:"the step was made"`
	Error   string   `json:"error" doc:"why Slurm could not be told, or the verdict not be kept"`
}

// Told is what Slurm has, and what was done, on a line.
func (h *Health) Told() string {
	line := h.Verdict.Node + " in Slurm: "
	if h.Node != nil {
		line += h.Node.State + ", "
	}
	verb := map[Action]string{Drain: "drained", Resume: "resumed"}[h.Step.Action]
	switch {
	case verb == "" && h.Step.Why == "":
		return line + "could not be asked"
	case verb == "":
		return line + h.Step.Why
	case h.Done:
		return fmt.Sprintf("%s%s: %s (%s)", line, verb, h.Step.Reason, h.Step.Why)
	case h.DryRun:
		return fmt.Sprintf("%swould be %s: %s (%s)", line, verb, h.Step.Reason, h.Step.Why)
	}
	return fmt.Sprintf("%scould not be %s: %s", line, verb, h.Step.Reason)
}

// Same reports whether Slurm knows this verdict from an earlier one of this
// boot: both say that the host is fit.
func (v *Verdict) Same(before *Verdict) bool {
	return before != nil && before.Told && before.Node == v.Node && before.BootID == v.BootID && before.Outcome == Fit && v.Outcome == Fit
}

// Shuts reports whether the verdict is one of this boot that keeps jobs from
// the node until the host was judged fit. A nil one does not.
func (v *Verdict) Shuts(node string) bool {
	if v == nil || v.Outcome != Unfit || v.Node != node {
		return false
	}
	_, err := v.Age()
	return err == nil
}
