// SPDX-License-Identifier: Apache-2.0

package report

import "github.com/hostcheck/hostcheck/internal/plan"

// Waived tells what became of a change of the waivers: verb is what they now
// are, names is which.
func (t Text) Waived(verb string, names []string, r Result) string {
	p := t.printer()
	switch r.Outcome {
	case OutcomeNothing:
		p.line("the waivers are so already")
	case plan.Applied:
		for _, n := range names {
			p.line(p.green.Render("✓") + " " + verb + ": " + p.bold.Render(Clean(n)))
		}
	default:
		p.outcome(r, r.Changed, false)
	}
	p.undo(r)
	return t.finish(&p.b)
}
