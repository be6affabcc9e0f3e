// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
)

// What a custom plugin of node-problem-detector says by its exit code: the
// condition of the node is False, True or Unknown. Any other code is unknown, too
// (k8s.io/node-problem-detector/pkg/custompluginmonitor/plugin).
const (
	NPDOK = iota
	NPDProblem
	NPDUnknown
)

// npdLine bounds the line in bytes: node-problem-detector takes 4 KiB, and an
// event of Kubernetes carries 1024. It cuts at max_output_length besides, by
// itself 80 and in the middle of a character.
const npdLine = 1000

// NPDState is the exit code that a report stands for. A host that was not
// judged, or hardly, is unknown and never in order; what a reboot will cure is
// a problem until then.
func (r *Report) NPDState(late bool) int {
	s := &r.Summary
	switch {
	case s.Exit == ExitFindings:
		return NPDProblem
	case s.Exit != ExitOK && s.Exit != ExitPending, late, s.hardly():
		return NPDUnknown
	case s.Exit == ExitPending:
		return NPDProblem
	}
	return NPDOK
}

// NPD gives the report as the output of a custom plugin of
// node-problem-detector: one line of ASCII, the worst finding first.
func NPD(r *Report, late bool) []byte {
	r = cleaned(r)
	s := &r.Summary
	var says []string
	for _, b := range worstFirst(r.Findings) {
		if b.Waiver == nil {
			says = append(says, b.nagios())
		}
	}
	counts := strings.ReplaceAll((&printer{}).counts(s, false), " · ", ", ")
	state := r.NPDState(late)
	switch {
	case state == NPDUnknown && late:
		says = append([]string{"the run took too long"}, says...)
	case state == NPDUnknown && s.Exit > ExitSignal:
		says = append([]string{"interrupted"}, says...)
	case state == NPDOK, says == nil:
		_, word, _ := s.verdict()
		says = append([]string{word + ": " + counts}, says...)
	}
	return npd(strings.Join(says, "; "))
}

// NPDUnjudged is the output where nothing was judged, with the reason.
func NPDUnjudged(why string) []byte { return npd("hostcheck did not judge: " + why) }

func npd(line string) []byte {
	line = strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, ascii.Replace(Clean(line)))
	if len(line) > npdLine {
		line = line[:npdLine-len("...")] + "..."
	}
	return fmt.Appendln(nil, line)
}
