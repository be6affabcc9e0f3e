// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) bundleInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "what a bundle is and holds, after every check of its content",
		Long:  "Reads a bundle to its end, which proves that it is whole and what its manifest says, and shows what it is of. With -f json, the manifest.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("hostcheck bundle inspect needs one FILE; - is standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := bundle.Open(args[0], a.stdin)
			if err != nil {
				return err
			}
			if a.json() {
				return a.writeJSON(b.Manifest)
			}
			return a.writeText(a.inspected(b))
		},
	}
}

func (a *app) inspected(b *bundle.Bundle) string {
	t := a.text()
	if b.Manifest == nil {
		return t.Table([][]string{{"kind", b.Kind}, {"holds", b.Host.String()}})
	}
	m := b.Manifest
	who := "root"
	if m.UID != 0 {
		who = fmt.Sprintf("user %d: what only root may read is unknown", m.UID)
	}
	rows := [][]string{
		{"bundle", m.Schema + ", whole: every entry is what the manifest says"},
		{"host", strings.TrimSpace(m.Host + " " + m.Arch)},
		{"sampled", m.Time.UTC().Format("2006-01-02T15:04:05Z") + ", from " + m.Source + ", as " + who},
		{"written by", "hostcheck " + m.Tool.Version + " (" + m.Tool.Commit + ")"},
		{"redaction", m.Redaction + ", " + strconv.Itoa(len(m.Pseudonyms)) + " pseudonyms"},
		{"holds", b.Host.String()},
	}
	if m.Time.IsZero() {
		rows[2][1] = "nobody knows when, from " + m.Source + ", as " + who
	}
	unread := [][]string{{"NOT READABLE", "WHY"}}
	for _, e := range m.Entries {
		if e.Type == "failed" && e.Errno != 2 && e.Errno != 20 && e.Errno != 21 && e.Errno != 22 {
			why := e.Error
			if e.Errno != 0 {
				why = e.Errno.Error()
			}
			unread = append(unread, []string{report.Clean(strings.TrimPrefix(string(e.Path), "host")), report.Clean(why)})
		}
	}
	for i := range rows {
		rows[i][1] = report.Clean(rows[i][1])
	}
	out := t.Table(rows)
	if len(unread) > 1 {
		out += "\n" + t.Table(unread)
	}
	return out
}

func (a *app) bundleDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff FILE FILE",
		Short: "what differs between two bundles: before and after, or two hosts; exit 1 when anything does",
		Long: `Compares what two bundles hold, in groups: kernel parameters, configuration, boot, devices, kernel, the kernel's recorded answers,
and what could not be read. Counters and what moves by itself are left out, and so are identifiers: addresses, names of hosts
and users, serial numbers. Exit 1 when anything differs, else 0.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 2:
				return errors.New("hostcheck bundle diff needs two files")
			case args[0] == "-" && args[1] == "-":
				return errors.New("only one of the two can be standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			first, err := bundle.Open(args[0], a.stdin)
			if err != nil {
				return err
			}
			second, err := bundle.Open(args[1], a.stdin)
			if err != nil {
				return err
			}
			all := bundle.Diff(first.Host, second.Host)
			if a.json() {
				if all == nil {
					all = []bundle.Change{}
				}
				err = a.writeJSON(struct {
					Schema  string          `json:"schema"`
					Changes []bundle.Change `json:"changes"`
				}{"hostcheck.bundle-diff/v1", all})
			} else {
				err = a.writeText(a.differences(all))
			}
			if err == nil && len(all) > 0 {
				return exit(report.ExitFindings)
			}
			return err
		},
	}
}

// differences is a diff as text: a line where both values are short, else a
// unified diff.
func (a *app) differences(all []bundle.Change) string {
	if len(all) == 0 {
		return "nothing differs\n"
	}
	var b strings.Builder
	group := ""
	for _, c := range all {
		if c.Group != group {
			if group != "" {
				b.WriteByte('\n')
			}
			group = c.Group
			b.WriteString(group + "\n")
		}
		before, after := value(c.Before), value(c.After)
		if !strings.Contains(before+after, "\n") && len(before)+len(after) < 160 {
			b.WriteString("  " + report.Clean(c.Path) + ": " + report.Clean(before) + " -> " + report.Clean(after) + "\n")
			continue
		}
		b.WriteString("  " + report.Clean(c.Path) + "\n")
		if c.Before == nil || c.After == nil {
			text := before
			side := "only in the first"
			if c.Before == nil {
				text, side = after, "only in the second"
			}
			fmt.Fprintf(&b, "    %s: a text of %d lines\n", side, strings.Count(text, "\n")+1)
			continue
		}
		lines := strings.Split(strings.TrimRight(udiff.Unified("first", "second", *c.Before+"\n", *c.After+"\n"), "\n"), "\n")
		for _, l := range lines[min(2, len(lines)):] {
			b.WriteString("    " + report.Clean(l) + "\n")
		}
	}
	return b.String()
}

func value(v *string) string {
	if v == nil {
		return "(not there)"
	}
	q := strconv.Quote(strings.ReplaceAll(*v, "\t", " "))
	return q[1 : len(q)-1]
}
