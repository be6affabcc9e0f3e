// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/report"
)

// documented is a command line in a code block of the documentation.
type documented struct {
	where string
	args  []string
}

// reads are the commands that a test may run as they are written.
var reads = []string{"hostcheck", "check", "list", "explain", "facts", "topo", "detect", "show", "plan", "schema", "man", "completion", "version", "history", "status"}

// placeholder is what a reader puts something else in place of.
var placeholder = regexp.MustCompile(`^([A-Z]{2,}|.*(/mnt/|my\.yaml|/tmp/).*|-|[\w.-]+\.(tgz|tar\.[gx]z)|sosreport-[\w-]+/|[\w.-]+\.jsonl?)$`)

// TestDocumentedCommands: every command in the documentation is one that
// hostcheck takes, and those that only read are run on a sick host's tree.
func TestDocumentedCommands(t *testing.T) {
	all := documentedCommands(t)
	root := fixture.Load(t, "../../testdata/hosts/rdma-intel-sick.txtar").Root
	t.Chdir(t.TempDir())
	ran := 0
	for _, d := range all {
		line := "hostcheck " + strings.Join(d.args, " ")
		c, err := parsed(t, d.args)
		if err != nil {
			t.Errorf("%s: %s: %v", d.where, line, err)
			continue
		}
		changes := c.Flags().Changed("fix") && !c.Flags().Changed("dry-run")
		if changes || !slices.Contains(reads, c.Name()) || slices.ContainsFunc(d.args, placeholder.MatchString) {
			continue
		}
		args := d.args
		if !c.Flags().Changed("root") && !c.Flags().Changed("from") {
			args = append([]string{"--root", root}, args...)
		}
		out, err := os.Create("out")
		if err != nil {
			t.Fatal(err)
		}
		a := &app{args: args, stdin: out, stdout: out, stderr: out}
		code := a.run()
		out.Close()
		if code == report.ExitUsage {
			text, _ := os.ReadFile("out")
			t.Errorf("%s: %s: exit %d: %.300s", d.where, line, code, text)
		}
		ran++
	}
	if len(all) < 40 || ran < 30 {
		t.Errorf("only %d commands found, %d run", len(all), ran)
	}
	t.Logf("%d commands in the documentation, %d of them run", len(all), ran)
}

// parsed resolves a command line as hostcheck would, and runs nothing.
func parsed(t *testing.T, args []string) (*cobra.Command, error) {
	t.Helper()
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	root := a.root()
	c, rest, err := root.Find(args)
	if err != nil {
		return nil, err
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(rest); err != nil && err != pflag.ErrHelp { //nolint:errorlint // never wrapped
		return nil, err
	}
	return c, c.ValidateArgs(c.Flags().Args())
}

func documentedCommands(t *testing.T) (all []documented) {
	t.Helper()
	files := []string{"../../README.md", "../../SECURITY.md", "../../CONTRIBUTING.md"}
	err := filepath.WalkDir("../../docs", func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".md") && d.Name() != "cli.md" && d.Name() != "checks.md" { // made of the code
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`)
	comment := regexp.MustCompile(`\s{2,}\S.*$|\s#\s.*$`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code := false
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "```") {
				code = !code
				continue
			}
			line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "# "), "sudo ")
			if !code || line != "hostcheck" && !strings.HasPrefix(line, "hostcheck ") {
				continue
			}
			line = comment.ReplaceAllString(line, "")
			for _, end := range []string{" | ", " > ", " >", " && ", " || ", "; ", " &"} {
				line, _, _ = strings.Cut(line, end)
			}
			if strings.ContainsAny(line, "[…") {
				continue // a usage line
			}
			var args []string
			for _, w := range word.FindAllString(line, -1)[1:] {
				args = append(args, strings.NewReplacer(`'`, "", `"`, "").Replace(w))
			}
			all = append(all, documented{strings.TrimPrefix(f, "../../"), args})
		}
	}
	return all
}

// TestDocumentedProfiles: whole profiles in the documentation lint, and judge.
func TestDocumentedProfiles(t *testing.T) {
	text, err := os.ReadFile("../../docs/profile.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(schema: .*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("no whole profile found")
	}
	root := fixture.Load(t, "../../testdata/hosts/rdma-intel-sick.txtar").Root
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "site.yaml")
		if err := os.WriteFile(file, b[1], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"profile", "lint", file}, {"--root", root, "--profile", file, "-q", "link"}} {
			out, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			a := &app{args: args, stdin: out, stdout: out, stderr: out}
			if code := a.run(); code == report.ExitUsage {
				said, _ := os.ReadFile(out.Name())
				t.Errorf("hostcheck %s: exit code %d: %s", strings.Join(args, " "), code, said)
			}
			out.Close()
		}
	}
}
