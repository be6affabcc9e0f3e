// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: commands, flags, exit codes, and where the
// output goes. stdout is the result and nothing else.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/ansible"
	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	_ "github.com/hostcheck/hostcheck/internal/quiet" // first: see there
	"github.com/hostcheck/hostcheck/internal/report"
	"github.com/hostcheck/hostcheck/internal/units"
)

// Main runs hostcheck with the arguments of the process and gives its exit code.
func Main() int {
	// a reader that has seen enough ("| head") is not a failure: the write
	// gives EPIPE instead of a signal, and the exit code stays the verdict
	signal.Ignore(syscall.SIGPIPE)
	// a run allocates a few megabytes and ends: collecting them would take a
	// quarter of its time. Past the limit the collector works as ever.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	a := &app{args: os.Args[1:], env: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	if ansible.Called(os.Args) {
		a.args = []string{"ansible", "module", os.Args[1]}
	}
	a.caught = make(chan os.Signal, 2)
	signal.Notify(a.caught, os.Interrupt, syscall.SIGTERM)
	go a.signals(a.caught)
	return a.run()
}

// app is one invocation.
type app struct {
	args                  []string
	env                   []string // "NAME=value"
	stdin, stdout, stderr *os.File
	flags                 flags
	changes               fixFlags         // of the root command: "hostcheck --fix"
	commands              []*cobra.Command // in the order of the help
	measured              []string         // of the command check: files of measurements to show
	failed                error            // of the help, which cobra has no way to return
	bundle                *bundle.Bundle   // of --from, once it is read
	judged                bool             // a check ran, and its report is written
	every                 time.Duration    // of the command check: how often; 0: once
	unread                bool             // nobody reads stdout any more
	left                  int              // reads of earlier samples that never came back

	// Of a task of Ansible: what would be said on stderr, and the profiles that
	// are in no file, by the name that stands for them.
	heard  func(string)
	layers map[string][]byte

	// For tests: what there is instead of all checks and verbs, and a machine
	// that a tree plays.
	checks  []*check.Check
	verbs   []plan.Verb
	machine *plan.Machine
	self    string // the running hostcheck
	systemd func(context.Context) (units.Manager, error)

	caught chan os.Signal // what arrives here goes to onSignal

	voice voice // of a plugin

	// onSignal stops the work under way so that its partial result is still
	// written; nil where there is nothing to write.
	onSignal atomic.Pointer[func(syscall.Signal)]
}

// signals hands the first signal to the work under way; a second one, or one
// that nobody waits for, ends the process.
func (a *app) signals(ch <-chan os.Signal) {
	for s := range ch {
		n := s.(syscall.Signal)
		if stop := a.onSignal.Swap(nil); stop != nil {
			(*stop)(n)
			continue
		}
		code := report.ExitSignal + int(n)
		if e, ok := a.plugin(); ok && !a.isTask() {
			code = a.interrupted(e, n)
		}
		os.Exit(code) //nolint:forbidigo // the second signal waits for nothing
	}
}

// allChecks is every check there is, in a list of its own.
func (a *app) allChecks() []*check.Check {
	if a.checks != nil {
		return slices.Clone(a.checks)
	}
	return checks.All()
}

// live reports whether the machine that hostcheck runs on is meant.
func (a *app) live() bool { return a.flags.root == "/" && a.flags.from == "" }

// again is hostcheck and the flags that lead to the same host or tree.
func (a *app) again() []string {
	words := []string{"hostcheck"}
	switch {
	case a.flags.from != "":
		words = append(words, "--from", a.flags.from)
	case !a.live():
		words = append(words, "--root", a.flags.root)
	case os.Geteuid() != 0:
		words = []string{"sudo", "hostcheck"}
	}
	return words
}

// exit ends a command with a code and without a message: the output has said
// what there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// failure is an error with an exit code of its own; others are [report.ExitUsage].
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

// Unwrap gives the error.
func (f *failure) Unwrap() error { return f.err }

func (a *app) run() int {
	if e, ok := a.plugin(); ok && !a.isTask() {
		return a.runPlugin(e)
	}
	err := a.execute()
	var code exit
	switch {
	case err == nil:
		return report.ExitOK
	case errors.As(err, &code):
		return int(code)
	}
	a.say("%v", err)
	n := codeOf(err)
	a.writeUnjudged(n)
	return n
}

// codeOf is the exit code of an error.
func codeOf(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return report.ExitUsage
}

// execute runs the command of the arguments.
func (a *app) execute() error {
	root := a.root()
	root.SetArgs(a.args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	if err := root.Execute(); err != nil {
		return err
	}
	return a.failed
}

// say writes a message for a person to stderr.
func (a *app) say(format string, args ...any) {
	lines := strings.Split(fmt.Sprintf(format, args...), "\n")
	for i, l := range lines {
		lines[i] = indentOf(l) + report.Clean(strings.TrimSpace(l))
	}
	if a.heard != nil {
		a.heard(strings.Join(lines, "\n"))
		return
	}
	_, _ = fmt.Fprintln(a.stderr, "hostcheck: "+strings.Join(lines, "\n"))
}

func indentOf(l string) string { return l[:len(l)-len(strings.TrimLeft(l, " "))] }

// warn is say for what does not stop the run; --quiet silences it.
func (a *app) warn(format string, args ...any) {
	switch {
	case a.heard != nil:
		a.say(format, args...)
	case !a.flags.quiet:
		a.say("warning: "+format, args...)
	}
}

// root makes the command tree.
func (a *app) root() *cobra.Command {
	root := a.checkCommand("hostcheck [AREA|ID ...]")
	root.Short = "is this Linux host fit for RDMA, GPU and cloud networking?"
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if a.isTask() {
			return nil
		}
		if err := judgeFleet(c, root.PersistentFlags()); err != nil {
			return err
		}
		a.flags.formats = a.formatsOf(c)
		if err := a.readEnv(root.PersistentFlags()); err != nil {
			return err
		}
		return a.judgeFrom(c, root.PersistentFlags())
	}
	a.flags.add(root.PersistentFlags())
	a.changes.addFix(root.Flags())
	a.completeFlags(root)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(a.help)
	root.SetUsageFunc(func(c *cobra.Command) error { a.help(c, nil); return nil })

	check := a.checkCommand("check [AREA|ID ...]")
	check.Short = "diagnose; reads only, changes nothing; the same as without a command"
	check.Flags().DurationVar(&a.every, "every", 0, "judge again after this `TIME`, in the foreground, until a signal ends it: for what keeps a process running, as a DaemonSet does")
	check.Flags().StringArrayVar(&a.measured, "bench", nil, "show the measurement in `FILE`, of \"hostcheck bench ... -f json\", in the page of -f html; repeatable")
	a.commands = []*cobra.Command{
		check, a.planCommand(), a.fixCommand(), a.undoCommand(), a.confirmCommand(), a.historyCommand(), a.statusCommand(),
		a.listCommand(), a.explainCommand(), a.factsCommand(), a.topoCommand(), a.profileCommand(), a.waiveCommand(), a.tuneCommand(), a.bundleCommand(), a.benchCommand(), a.fleetCommand(),
		a.slurmCommand(), a.ansibleCommand(),
		a.schemaCommand(), a.manCommand(), a.completionCommand(), a.versionCommand(),
	}
	root.AddCommand(a.commands...)
	root.AddCommand(a.expireCommand(), a.settingsCommand(), a.trialCommand()) // for units to run
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Short: "what a command does", RunE: func(_ *cobra.Command, args []string) error {
		c, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 {
			return unknown("command", args[0], commandNames(root))
		}
		a.help(c, nil)
		return nil
	}})
	return root
}

func commandNames(c *cobra.Command) []string {
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			names = append(names, sub.Name())
		}
	}
	return names
}

// write puts a result on stdout, or in the file of --output. Nobody reading
// any more is no error.
func (a *app) write(b []byte) error {
	if name := a.flags.output; a.toFile() {
		mode := fs.FileMode(0o600)
		if a.flags.format == formatPrometheus || a.flags.format == formatNFD { // names no device and no path, and node_exporter or nfd-worker must read it
			mode = 0o644
		}
		if err := writeFileMode(name, b, mode); err != nil {
			return fmt.Errorf("cannot write %s: %w", name, cause(err))
		}
		return nil
	}
	a.voice.take()
	_, err := a.stdout.Write(b)
	a.unread = errors.Is(err, syscall.EPIPE)
	if err != nil && !a.unread {
		return fmt.Errorf("cannot write the result: %w", cause(err))
	}
	return nil
}

// writeText puts a text with colour sequences on stdout or in a file, without
// them where colour is not wanted.
func (a *app) writeText(s string) error { return a.write(a.coloured(s, a.toTerminal())) }

// coloured is a text as it goes to a terminal or elsewhere.
func (a *app) coloured(s string, terminal bool) []byte {
	var b bytes.Buffer
	_, _ = io.WriteString(a.colour(&b, terminal), s) // a buffer takes everything
	return b.Bytes()
}

// writeJSON puts a value on stdout or in a file.
func (a *app) writeJSON(v any) error {
	b, err := report.JSON(v)
	if err != nil {
		return err
	}
	return a.write(b)
}

func (a *app) json() bool { return a.flags.format == "json" }
