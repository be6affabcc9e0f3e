// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
)

// ManPage is the page of one command: the same sections as its help.
type ManPage struct {
	Command  string // "hostcheck bench vxlan"
	Short    string
	Sections []Section
	See      []string // names of other pages, "hostcheck(1)"
}

// Name is the file of the page, without the section of the manual:
// "hostcheck-bench-vxlan".
func (m ManPage) Name() string { return strings.ReplaceAll(m.Command, " ", "-") }

// roffText writes text so that groff(7) takes every character as itself.
var roffText = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

func roffLine(b *strings.Builder, text string) {
	text = roffText.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	b.WriteString(text + "\n")
}

// Roff gives the page in the language of man(7). The version stands in its foot.
func (m ManPage) Roff(version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 1 \"\" %q \"User Commands\"\n", strings.ToUpper(m.Name()), "hostcheck "+version)
	b.WriteString(".SH NAME\n")
	roffLine(&b, m.Name()+" - "+m.Short)
	title := "DESCRIPTION"
	for _, s := range m.Sections {
		if s.Title != "" {
			title = strings.ToUpper(s.Title)
		}
		if title != "" {
			fmt.Fprintf(&b, ".SH %q\n", title)
			title = ""
		} else {
			b.WriteString(".PP\n")
		}
		roffProse(&b, s.Text)
		for _, r := range s.Rows {
			b.WriteString(".TP\n.B ")
			roffLine(&b, strings.TrimSpace(r[0])) // a flag without a letter is indented in the help
			roffLine(&b, r[1])
		}
	}
	if len(m.See) > 0 {
		b.WriteString(".SH \"SEE ALSO\"\n")
		roffLine(&b, strings.Join(m.See, ", "))
	}
	return b.String()
}

// roffProse writes paragraphs; indented lines stay as they are.
func roffProse(b *strings.Builder, text string) {
	verbatim := false
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if indented != verbatim && line != "" {
			verbatim = indented
			b.WriteString(map[bool]string{true: ".PP\n.RS 4\n.nf\n", false: ".fi\n.RE\n"}[verbatim])
		}
		if line == "" {
			if !verbatim {
				b.WriteString(".PP\n")
			}
			continue
		}
		roffLine(b, strings.TrimSpace(line))
	}
	if verbatim {
		b.WriteString(".fi\n.RE\n")
	}
}

// Reference gives all pages as one document in Markdown.
func Reference(pages []ManPage) string {
	var b strings.Builder
	b.WriteString("# The command line\n\nGenerated from the code by `make generate`; `hostcheck help COMMAND` and `man hostcheck-COMMAND` say the same.\n")
	for _, m := range pages {
		fmt.Fprintf(&b, "\n## %s\n", m.Command)
		for _, s := range m.Sections {
			if s.Title != "" {
				fmt.Fprintf(&b, "\n%s:\n", s.Title)
			}
			if s.Text != "" {
				b.WriteString("\n" + markdownProse(s.Text) + "\n")
			}
			if len(s.Rows) > 0 {
				b.WriteString("\n```\n")
				width := 0
				for _, r := range s.Rows {
					width = max(width, len(r[0]))
				}
				for _, r := range s.Rows {
					b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s  %s", min(width, 36), r[0], r[1]), " ") + "\n")
				}
				b.WriteString("```\n")
			}
		}
	}
	return b.String()
}

// markdownProse keeps indented lines as code, and angle brackets from becoming
// tags.
func markdownProse(text string) string {
	var out []string
	code := false
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, " "); indented != code && line != "" {
			code = indented
			out = append(out, "```")
		}
		if !code {
			line = strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`).Replace(line)
		}
		out = append(out, line)
	}
	if code {
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}
