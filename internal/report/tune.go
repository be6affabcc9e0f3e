// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/hostcheck/hostcheck/internal/plan"
)

// TuneSchema names the format of [TunePlan].
const TuneSchema = "hostcheck.tune/v1"

// TunePlan is what "hostcheck tune plan MODULE -f json" writes.
type TunePlan struct {
	Schema string    `json:"schema" doc:"name and version of this format"`
	Module string    `json:"module"`
	Advice any       `json:"advice" doc:"what the module makes of the host; each module has a format of its own"`
	Plan   plan.Plan `json:"plan"`
}

// TuneModule is one module in "hostcheck tune list -f json".
type TuneModule struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Checks []string `json:"checks" doc:"IDs of the checks that judge the same subject"`
}

// TuneModules gives the list as text.
func (t Text) TuneModules(all []TuneModule) string {
	rows := [][]string{{"MODULE", "TITLE", "CHECKS"}}
	for _, m := range all {
		rows = append(rows, []string{m.Name, m.Title, strings.Join(m.Checks, ", ")})
	}
	return t.Table(rows)
}

// advice writes what a module says before its changes. A line that is too long
// goes on under the text behind its label, which two spaces set off.
func (p *printer) advice(text string) {
	if text == "" {
		return
	}
	for l := range strings.Lines(strings.TrimRight(text, "\n")) {
		l = Clean(strings.TrimRight(l, "\n"))
		words := strings.TrimLeft(l, " ")
		lead := l[:len(l)-len(words)]
		if _, rest, ok := strings.Cut(words, "  "); ok {
			words = strings.TrimLeft(rest, " ")
			lead = l[:len(l)-len(words)]
		}
		for _, part := range wrap(words, max(p.width()-lipgloss.Width(lead), 20)) {
			p.line(lead + part)
			lead = strings.Repeat(" ", lipgloss.Width(lead))
		}
	}
	p.line("")
}
