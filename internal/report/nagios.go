// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hostcheck/hostcheck/internal/check"
)

// The states of a service, which are the exit codes of a plugin
// (https://nagios-plugins.org/doc/guidelines.html).
const (
	NagiosOK = iota
	NagiosWarning
	NagiosCritical
	NagiosUnknown
)

// What a plugin may write: NRPE's first protocol carries 1 KiB, which the first
// line must fit, and Nagios keeps 8 KiB.
const (
	nagiosLine = 600
	nagiosAll  = 4000
)

var nagiosStates = []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

// NagiosState is the state of the service that a report stands for. A host
// that was not judged, or hardly, is unknown and never OK; late says that the
// run came to an end before its checks did.
func (r *Report) NagiosState(late bool) int {
	s := &r.Summary
	switch {
	case s.Exit == ExitFindings:
		return NagiosCritical
	case s.Exit != ExitOK && s.Exit != ExitPending, late, s.hardly():
		return NagiosUnknown
	case s.Exit == ExitPending, s.Warn > 0:
		return NagiosWarning
	}
	return NagiosOK
}

// Nagios gives the report as the output of a Nagios or Icinga plugin: the state
// with the counts and the checks that make it, the counts as performance data,
// then a line for each finding that needs attention, the worst first.
func Nagios(r *Report, late bool) []byte {
	r = cleaned(r)
	s := &r.Summary
	state := r.NagiosState(late)
	_, word, _ := s.verdict()
	if late && s.Exit < ExitSignal && state == NagiosUnknown {
		word = "INCOMPLETE: the run took too long"
	}
	var ids, lines []string
	for _, b := range worstFirst(r.Findings) {
		for _, id := range b.checks {
			if b.Waiver == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		lines = append(lines, b.nagios())
	}
	first := word + ": " + strings.ReplaceAll((&printer{}).counts(s, false), " · ", ", ")
	if len(ids) > 0 {
		first += ": " + shorten(ids, 160, false)
	}
	return nagios(state, first, s.perfdata(), lines)
}

// worstFirst is what needs attention, the worst first.
func worstFirst(findings []Finding) []*block {
	var blocks []*block
	for _, a := range foldAreas(findings) {
		blocks = append(blocks, a.blocks...)
	}
	slices.SortStableFunc(blocks, func(x, y *block) int { return rank(&x.Finding) - rank(&y.Finding) })
	return blocks
}

// NagiosUnjudged is the output where nothing was judged, with the reason.
func NagiosUnjudged(why string) []byte {
	lines := strings.Split(why, "\n")
	return nagios(NagiosUnknown, lines[0], "", lines[1:])
}

// nagios lays output out. Only the first line holds a "|", which is what
// performance data begins with.
func nagios(state int, first, perfdata string, lines []string) []byte {
	first = "HOSTCHECK " + nagiosStates[state] + " - " + first
	out := bounded(first, nagiosLine-len(perfdata))
	if perfdata != "" {
		out += " | " + perfdata
	}
	out += "\n"
	for i, l := range lines {
		more := fmt.Sprintf("and %d more\n", len(lines)-i)
		l = bounded(l, nagiosLine) + "\n"
		if len(out)+len(l)+len(more) > nagiosAll {
			out += more
			break
		}
		out += l
	}
	return []byte(out)
}

// bounded is a text without what means something to the engine, and beyond
// ASCII only what is whole, in at most so many bytes.
func bounded(s string, most int) string {
	s = strings.ReplaceAll(ascii.Replace(Clean(s)), "|", "/")
	if len(s) <= most {
		return s
	}
	s = s[:most-len("...")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// nagios is a block on one line.
func (b *block) nagios() string {
	_, word, _ := (&palette{}).mark(b.Status, b.Pending, b.Waiver != nil)
	subjects := nonEmpty(b.subjects()...)
	l := word + " " + shorten(b.checks, 80, false)
	if len(subjects) > 0 {
		l += " " + shorten(subjects, 120, false)
	}
	switch {
	case b.Waiver != nil:
		return l + ": " + b.message()
	case b.short(), b.Status == check.Error:
		return l + ": " + b.Why
	}
	var got []string
	for _, it := range b.items {
		got = append(got, nonEmpty(it.got)...)
	}
	says := nonEmpty(shorten(got, 120, false))
	if b.Want != "" {
		says = append(says, "want "+b.Want)
	}
	if says == nil {
		says = nonEmpty(b.Title)
	}
	return l + ": " + strings.Join(says, ", ")
}

// perfdata is the counts as performance data, with what makes the service
// critical or a warning where one is too many.
func (s *Summary) perfdata() string {
	var out []string
	for _, c := range []struct {
		label      string
		n          int
		thresholds string
	}{
		{"fail", s.Fail, ";;0"}, {"error", s.Error, ";;"}, {"unknown", s.Unknown, ";;"}, {"warn", s.Warn, ";0;"},
		{"pending", s.Pending, ";0;"}, {"waived", s.Waived, ";;"}, {"pass", s.Pass, ";;"}, {"skip", s.Skip, ";;"},
	} {
		out = append(out, c.label+"="+strconv.Itoa(c.n)+c.thresholds+";0")
	}
	return strings.Join(out, " ")
}
