// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Formats beyond text and JSON.
const (
	formatSVG   = "svg"
	formatHTML  = "html"
	formatMD    = "md"
	formatJUnit = "junit"
	formatJSONL = "jsonl"
)

// formatsOf is those that a command has.
func (a *app) formatsOf(c *cobra.Command) []string {
	switch {
	case c.Name() == "topo":
		return []string{formatSVG}
	case c.Name() == "check" || !c.HasParent() && !a.changes.fix:
		return []string{formatHTML, formatMD, formatJUnit, formatJSONL}
	}
	return nil
}

// document is the report of a judged sample in the format that is asked for;
// nil where it is text.
func (a *app) document(ctx context.Context, s *sample, rep *report.Report) ([]byte, error) {
	switch a.flags.format {
	case "json":
		return report.JSON(rep)
	case formatJSONL:
		return report.JSONLine(rep)
	case formatMD:
		return []byte(report.Markdown(rep)), nil
	case formatJUnit:
		return report.JUnit(rep)
	case formatHTML:
		p := report.Page{Report: rep, Checks: a.allChecks(), Again: append(a.again(), a.judgedBy()...)}
		if s.profile.Hash != "" { // else the host did not even answer in time
			p.Facts = s.facts
			p.Plan, p.NoPlan = a.wished(ctx, s)
		}
		return p.HTML()
	}
	return nil, nil
}

// wished is the plan of all that the findings wish, whatever its tier; or why
// there is none.
func (a *app) wished(ctx context.Context, s *sample) (*plan.Plan, string) {
	wanted := wishes(s.results)
	p, err := a.engine(false).Plan(ctx, s.host, s.profile.Hash, wanted)
	if err != nil {
		return nil, err.Error()
	}
	p = fixes.LeaveToBoot(p, wanted)
	return &p, ""
}
