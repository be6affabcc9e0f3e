// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/bench"
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

	formatPrometheus = "prometheus"
	formatNagios     = "nagios"
	formatNPD        = "npd"
	formatNFD        = "nfd"
)

// formatsOf is those that a command has.
func (a *app) formatsOf(c *cobra.Command) []string {
	switch {
	case c.CommandPath() == "hostcheck fleet report":
		return []string{formatHTML}
	case c.Name() == "topo":
		return []string{formatSVG}
	case c.Name() == "check" || !c.HasParent() && !a.changes.fix:
		return []string{formatHTML, formatMD, formatJUnit, formatJSONL, formatPrometheus, formatNagios, formatNPD, formatNFD}
	}
	return nil
}

// document is the report of a judged sample in the format that is asked for;
// nil where it is text.
func (a *app) document(ctx context.Context, s *sample, rep *report.Report, measured []*bench.Stored) ([]byte, error) {
	switch a.flags.format {
	case "json":
		return report.JSON(rep)
	case formatJSONL:
		return report.JSONLine(rep)
	case formatMD:
		return []byte(report.Markdown(rep)), nil
	case formatJUnit:
		return report.JUnit(rep)
	case formatPrometheus:
		return report.Prometheus(rep, clock(s.host)), nil
	case formatNagios:
		return report.Nagios(rep, s.late), nil
	case formatNPD:
		return report.NPD(rep, s.late), nil
	case formatNFD:
		return report.NFD(rep, time.Now().Add(a.valid())), nil
	case formatHTML:
		p := report.Page{Report: rep, Checks: a.allChecks(), Again: append(a.again(), a.judgedBy()...), Bench: measured}
		if s.profile.Hash != "" { // else the host did not even answer in time
			p.Facts, p.Near = s.facts, nearEnough(s.profile)
			p.Plan, p.NoPlan = a.wished(ctx, s)
		}
		return p.HTML()
	}
	return nil, nil
}

// exitCode is how a check run ends, in the terms of what asked for its format.
func (a *app) exitCode(s *sample, rep *report.Report) int {
	switch a.flags.format {
	case formatNagios:
		return rep.NagiosState(s.late)
	case formatNPD:
		return rep.NPDState(s.late)
	}
	return rep.Summary.Exit
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

// measurements reads the files of --bench, before anything else is done.
func (a *app) measurements() ([]*bench.Stored, error) {
	if len(a.measured) > 0 && a.flags.format != formatHTML {
		return nil, errors.New("--bench goes with -f html")
	}
	var out []*bench.Stored
	for _, name := range a.measured {
		b, err := readGiven(name, bench.MaxStored)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		m, err := bench.ReadStored(b)
		if err != nil {
			return nil, fmt.Errorf("cannot show %s: %w", name, err)
		}
		out = append(out, m)
	}
	return out, nil
}
