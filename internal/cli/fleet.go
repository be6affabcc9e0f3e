// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fleetFlags are those of "hostcheck fleet merge" and "hostcheck fleet report".
type fleetFlags struct {
	since  string
	labels string
	expect string
}

func (f *fleetFlags) add(s *pflag.FlagSet) {
	s.StringVar(&f.since, "since", "", "say what changed since the earlier merge in `FILE`, of \"hostcheck fleet merge\"")
	s.StringVar(&f.expect, "expect", "", "name the hosts of `FILE` that have not reported, a HOST or a list such as node[01-16] a line; labels may follow it")
	s.StringVar(&f.labels, "labels", "", "labels of hosts, from the lines \"HOST KEY=VALUE ...\" of `FILE`; HOST may be a list such as node[01-16]")
}

func (a *app) fleetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "fleet COMMAND",
		Short: "the reports of many hosts as one",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("hostcheck fleet needs one of %s", strings.Join(commandNames(c), ", "))
			}
			return unknown("fleet command", args[0], commandNames(c))
		},
	}
	c.AddCommand(a.fleetMerge(), a.fleetReport(), a.fleetPlan())
	return c
}

const fleetInput = `Reads reports of "hostcheck -f jsonl" (a line per host) or "hostcheck -f json", one or many in a file, packed with gzip or not; of a
directory, all files below it that end in .json, .jsonl or .ndjson, or so and .gz; - is standard input. Of several reports of a host the one sampled last
counts. A report that is broken, cut off or of an unknown format is a problem, and changes no other host's verdict. `

const fleetExit = `Exit 1 where a host fails, 3 where a host could not be judged, a report could not be used or a host of --expect is missing, 10 where one is pending a reboot, else 0.`

func (a *app) fleetMerge() *cobra.Command {
	var own fleetFlags
	c := &cobra.Command{
		Use:   "merge FILE|DIR|- ...",
		Short: "merge the reports of many hosts into one JSON document",
		Long: fleetInput + `Writes JSON, in the format of "hostcheck schema fleet": the verdict of every check over all hosts, hosts that are
alike, what sets few of them apart, and what changed since an earlier merge. "hostcheck fleet report" shows it. ` + fleetExit,
		Args: someFiles,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.fleet(args, own, false)
			if err != nil {
				return err
			}
			return a.writeFleet(f)
		},
	}
	own.add(c.Flags())
	return c
}

func (a *app) fleetReport() *cobra.Command {
	var own fleetFlags
	c := &cobra.Command{
		Use:   "report FILE|DIR|- ...",
		Short: "what the reports of many hosts come to: verdict, checks, hosts that differ",
		Long: fleetInput + `Or reads one merge of "hostcheck fleet merge" and shows it. With -f html, as one page without scripts: a heat map, a map of
hosts, and what leads from there to the hosts and to what they have. ` + fleetExit,
		Args: someFiles,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.fleet(args, own, true)
			if err != nil {
				return err
			}
			switch a.flags.format {
			case "json":
				return a.writeFleet(f)
			case formatHTML:
				b, err := report.FleetHTML(f)
				if err != nil {
					return err
				}
				if err := a.write(b); err != nil {
					return err
				}
				return fleetVerdict(f)
			}
			if err := a.writeText(a.text().Fleet(f)); err != nil {
				return err
			}
			return fleetVerdict(f)
		},
	}
	own.add(c.Flags())
	return c
}

// judgeFleet refuses flags of how a host is judged where reports are read, which
// were judged: a verdict on all checks would be taken for one on those of --only.
// What the environment says of them is meant for other commands.
func judgeFleet(c *cobra.Command, s *pflag.FlagSet) error {
	var none []string
	switch c.CommandPath() {
	case "hostcheck fleet merge", "hostcheck fleet report":
		none = []string{"only", "skip", "profile", "intent", "set", "root", "from"}
	case "hostcheck fleet plan":
		none = []string{"root", "from"}
	}
	for _, name := range none {
		if s.Changed(name) {
			return fmt.Errorf("%s goes by what the reports say and knows no --%s: give it where they are made", c.CommandPath(), name)
		}
	}
	return nil
}

func someFiles(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s needs files or directories of reports; - is standard input", c.CommandPath())
	}
	if n := len(slices.DeleteFunc(slices.Clone(args), func(s string) bool { return s != "-" })); n > 1 {
		return errors.New("standard input can be read once only")
	}
	return nil
}

func (a *app) writeFleet(f *fleet.Fleet) error {
	b, err := report.FleetJSON(f)
	if err != nil {
		return err
	}
	if err := a.write(b); err != nil {
		return err
	}
	return fleetVerdict(f)
}

// fleetVerdict is the exit code of a merge.
func fleetVerdict(f *fleet.Fleet) error {
	if f.Summary.Exit != report.ExitOK {
		return exit(f.Summary.Exit)
	}
	return nil
}

// collectOften bounds memory: other than the run on one host, that on a fleet
// may go through a great deal.
func collectOften() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(200 << 20)
}

// fleet reads reports and merges them; with merged, it may be one merge
// instead, as it was written.
func (a *app) fleet(args []string, own fleetFlags, merged bool) (*fleet.Fleet, error) {
	collectOften()
	var known []string
	for _, c := range a.allChecks() {
		known = append(known, c.ID)
	}
	o := fleet.Options{Checks: known, Now: time.Now(), Tool: fleet.Tool(tool()), FailOn: check.Status(a.flags.failOn), From: own.since}
	if own.labels != "" {
		var err error
		if o.Labels, err = readHosts("labels", own.labels, fleet.ReadLabels); err != nil {
			return nil, err
		}
	}
	if own.expect != "" {
		var err error
		if o.Expect, err = readHosts("expected hosts", own.expect, fleet.ReadHosts); err != nil {
			return nil, err
		}
		if o.List = own.expect; len(o.Expect) == 0 {
			return nil, fmt.Errorf("%s names no host that --expect could look for", own.expect)
		}
	}
	if own.since != "" {
		f, err := openGiven(own.since)
		if err != nil {
			return nil, fmt.Errorf("cannot read merge %s: %w", own.since, err)
		}
		_, all, err := fleet.Peek(f)
		if err == nil {
			o.Since, err = fleet.Earlier(all)
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot compare with %s: %w", own.since, err)
		}
	}
	m := fleet.New(o)
	files, err := reportFiles(args, m)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name := file.name
		f, err := a.openReports(file)
		if err != nil {
			m.Lost(name, "it cannot be read: "+cause(err).Error())
			continue
		}
		is, all, err := fleet.Peek(f)
		switch {
		case err != nil:
			m.Lost(name, err.Error())
		case is && merged && len(files) == 1:
			old, err := fleet.Decode(all)
			_ = f.Close()
			switch {
			case err != nil:
				return nil, fmt.Errorf("cannot show %s: %w", name, err)
			case own != fleetFlags{} || o.FailOn == check.Warn && old.FailOn != string(check.Warn):
				return nil, fmt.Errorf("%s is a merge, which was made with its own --since, --labels, --expect and --fail-on: give them to \"hostcheck fleet merge\"", name)
			}
			return old, nil
		default:
			m.Read(name, all)
		}
		_ = f.Close()
	}
	return m.Fleet(), nil
}

// readHosts reads a file that says something of hosts.
func readHosts[T any](what, name string, read func(io.Reader) (T, error)) (hosts T, err error) {
	f, err := openGiven(name)
	if err != nil {
		return hosts, fmt.Errorf("cannot read %s %s: %w", what, name, err)
	}
	hosts, err = read(f)
	_ = f.Close()
	if err != nil {
		return hosts, fmt.Errorf("cannot use %s %s: %w", what, name, err)
	}
	return hosts, nil
}

// reportFile is a file of reports.
type reportFile struct {
	name  string
	found bool // below a directory, not named by anybody
}

func (a *app) openReports(file reportFile) (io.ReadCloser, error) {
	switch {
	case file.name == "-":
		return io.NopCloser(a.stdin), nil
	case file.found:
		return openFound(file.name)
	}
	return openGiven(file.name)
}

// openFound opens a file that nobody named: a regular one only, for a FIFO or
// a device may keep its reader forever.
func openFound(name string) (*os.File, error) {
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, cause(err)
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be another one by now
	if err != nil {
		return nil, cause(err)
	}
	st, err = f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, cause(err)
	}
	return f, nil
}

// openGiven opens a file for reading; a FIFO is waited for, as it is meant.
func openGiven(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, cause(err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = syscall.EISDIR
	}
	if err != nil {
		_ = f.Close()
		return nil, cause(err)
	}
	return f, nil
}

// reportFiles gives the files that the arguments mean: one that was named and
// is not there is an error, one that cannot be read is a lost report.
func reportFiles(args []string, m interface{ Lost(name, why string) }) ([]reportFile, error) {
	var files []reportFile
	for _, name := range args {
		if name == "-" {
			files = append(files, reportFile{name: name})
			continue
		}
		st, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
		}
		if !st.IsDir() {
			files = append(files, reportFile{name: name})
			continue
		}
		n := len(files)
		err = filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				m.Lost(p, "it cannot be read: "+cause(err).Error())
			case strings.HasPrefix(d.Name(), ".") && p != name:
				if d.IsDir() {
					return fs.SkipDir
				}
			case !d.IsDir() && reportName(d.Name()):
				files = append(files, reportFile{p, true})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
		}
		if len(files) == n {
			m.Lost(name, "no file below it ends in .json, .jsonl or .ndjson, or so and .gz")
		}
	}
	return files, nil
}

func reportName(name string) bool {
	switch filepath.Ext(strings.TrimSuffix(name, ".gz")) {
	case ".json", ".jsonl", ".ndjson":
		return true
	}
	return false
}
