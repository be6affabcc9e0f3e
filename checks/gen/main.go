// SPDX-License-Identifier: Apache-2.0

// Command gen writes docs/checks.md, the catalogue of all checks, from the
// checks themselves. "make drift" fails when the file is out of date.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/hostcheck/hostcheck/checks"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: gen OUTPUT.md")
	}
	if err := os.WriteFile(os.Args[1], catalogue(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func catalogue() []byte {
	var b bytes.Buffer
	b.WriteString("# Checks\n\nGenerated from the code by `make generate`; `hostcheck explain ID` prints the same.\n\n")
	b.WriteString("| check | what holds when it passes | severity | fix |\n| --- | --- | --- | --- |\n")
	all := checks.All()
	for _, c := range all {
		fix := string(c.FixTier)
		if fix == "" {
			fix = "by hand"
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s |\n", c.ID, anchor(c.ID), c.Title, c.Severity, fix)
	}
	for _, c := range all {
		fmt.Fprintf(&b, "\n## %s\n\n**%s** (severity %s)\n\n%s\n", c.ID, c.Title, c.Severity, strings.TrimSpace(c.Doc))
		if len(c.Requires) > 0 {
			fmt.Fprintf(&b, "\nNoise when one of these fails: %s.\n", strings.Join(c.Requires, ", "))
		}
		b.WriteString("\nReferences:\n\n")
		for _, r := range c.Refs {
			fmt.Fprintf(&b, "- %s\n", r)
		}
	}
	return b.Bytes()
}

// anchor is how Markdown renderers name a heading.
func anchor(id string) string {
	return strings.ReplaceAll(strings.ToLower(id), ".", "")
}
