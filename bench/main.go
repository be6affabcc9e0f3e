// SPDX-License-Identifier: Apache-2.0

// Command bench measures a check run: against merely reading the same files
// (the floor), against a shell checklist, and how it grows with the host; a
// bundle against a sosreport; and the reports of a fleet, merged and planned from,
// against jq.
//
// Times are medians of runs that alternate, on a tree in memory that is warm.
// Nothing here passes or fails; the goals stand beside the numbers.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/densehost"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] { // what the benchmark runs itself as
		case "floor":
			os.Exit(floorMain(os.Args[2:]))
		case "spawn":
			os.Exit(spawnMain(os.Args[2:]))
		}
	}
	var b bench
	flag.IntVar(&b.rounds, "rounds", 21, "runs of each kind; the median counts")
	flag.IntVar(&b.times, "times", 8, "the larger host is so many times the dense one")
	flag.StringVar(&b.dir, "dir", "/dev/shm", "where to put the trees; a tmpfs")
	fleets := flag.String("fleets", "1000,10000,100000", "numbers of hosts of the fleets; the files are in TMPDIR, of 42 kB a host")
	flag.Parse()
	b.shape, b.checklist, b.beside = densehost.Dense, "bench/seed-checklist.sh", true
	var err error
	if b.fleets, err = sizes(*fleets); err == nil {
		err = b.run(os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds, times int
	dir           string
	shape         densehost.Shape
	checklist     string
	beside        bool // other collectors, which take their time
	fleets        []int

	hostcheck string // the binary
	self      string
	out       *tabwriter.Writer
	read      []string
}

func (b *bench) run(w io.Writer) error {
	tmp, err := os.MkdirTemp(b.dir, "hostcheck-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	bin, err := os.MkdirTemp("", "hostcheck-bench-") // /dev/shm may not allow programs
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := b.build(bin); err != nil {
		return err
	}
	fmt.Fprintln(w, machine())
	b.out = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer b.out.Flush()

	fmt.Fprintln(b.out, "\na run on a tree in memory\tcheck\tfloor\tratio\tper function\tgoal")
	small, err := b.tree(filepath.Join(tmp, "1"), "1×", b.shape)
	if err != nil {
		return err
	}
	large, err := b.tree(filepath.Join(tmp, "n"), fmt.Sprintf("%d×", b.times), b.shape.Times(b.times))
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n%s\n", strings.Join(b.read, "\n"))
	n := float64(b.times)
	fmt.Fprintf(b.out, "\ngrowth per PCI function, 1× to %d×\ttime\tCPU\npart of the process\t%.2f\t%.2f\n", b.times,
		float64(large.Wall)/float64(small.Wall)/n, float64(large.CPU)/float64(small.CPU)/n)

	if err := b.live(); err != nil {
		return err
	}
	if b.beside {
		if err := b.sos(); err != nil {
			return err
		}
	}
	if err := b.start(); err != nil {
		return err
	}
	return b.fleet()
}

// build makes the product, and this program for what it runs itself as.
func (b *bench) build(dir string) error {
	b.hostcheck, b.self = filepath.Join(dir, "hostcheck"), filepath.Join(dir, "bench")
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("cannot find the module: %w", err)
	}
	for out, pkg := range map[string]string{b.hostcheck: ".", b.self: "./bench"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
		cmd.Dir = strings.TrimSpace(string(root))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %s", pkg, text)
		}
	}
	return nil
}

// tree measures one tree and gives the medians of the process.
func (b *bench) tree(dir, name string, shape densehost.Shape) (cost, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return cost{}, err
	}
	if err := densehost.Write(dir, shape); err != nil {
		return cost{}, err
	}
	asked, stats, err := sources(dir)
	if err != nil {
		return cost{}, err
	}
	list := dir + ".list"
	if err := writeList(list, asked); err != nil {
		return cost{}, err
	}

	check := []string{b.hostcheck, "check", "--root", dir, "-f", "json"}
	floor := []string{b.self, "floor", dir, list}
	var process, processFloor, inside, insideFloor costs
	for i := range b.rounds + 1 { // the first round warms up
		var p, pf spawned
		var in, inf cost
		if p, err = b.spawn(check); err == nil {
			pf, err = b.spawn(floor)
		}
		if err == nil {
			in, err = judge(dir)
		}
		if err == nil {
			inf, err = readAll(dir, asked)
		}
		if err != nil {
			return cost{}, err
		}
		if i > 0 {
			process, processFloor = append(process, p.cost), append(processFloor, pf.cost)
			inside, insideFloor = append(inside, in), append(insideFloor, inf)
		}
	}
	n := shape.Functions()
	fmt.Fprintf(b.out, "%s: %d PCI functions, %d VFs\t\t\t\t\t\n", name, n, shape.Copies*shape.Switches*shape.NICsPerSwitch*shape.VFs)
	row := func(what string, check, floor time.Duration, goal string) {
		perFunction := float64(check.Microseconds()) / float64(n)
		fmt.Fprintf(b.out, "  %s\t%s\t%s\t%.2f\t%.1f µs\t%s\n", what, ms(check), ms(floor), float64(check)/float64(floor), perFunction, goal)
	}
	p, pf, in, inf := process.median(), processFloor.median(), inside.median(), insideFloor.median()
	row("the process, time", p.Wall, pf.Wall, "≤ 1.5")
	row("the process, CPU", p.CPU, pf.CPU, "")
	row("in process, time", in.Wall, inf.Wall, "≤ 1.5")
	row("in process, CPU", in.CPU, inf.CPU, "")
	fmt.Fprintf(b.out, "  peak memory\t%.1f MiB\t%.1f MiB\t\t\t\n", float64(p.PeakKB)/1024, float64(pf.PeakKB)/1024)
	b.read = append(b.read, fmt.Sprintf("%s reads %d files, %d links and %d directories, %d bytes", name, stats.Files, stats.Links, stats.Dirs, stats.Bytes))
	return p, nil
}

// sources judges the tree once and gives what was read for it.
func sources(dir string) ([]host.Op, host.Stats, error) {
	h, err := host.Open(dir, host.Options{})
	if err != nil {
		return nil, host.Stats{}, err
	}
	defer h.Close()
	if _, err := trial.Run(h, checks.All(), trial.Options{}); err != nil {
		return nil, host.Stats{}, err
	}
	return h.Asked(), h.Stats(), nil
}

// judge measures a whole run in this process: from opening the tree to the JSON.
func judge(dir string) (cost, error) {
	return measure(func() error {
		h, err := host.Open(dir, host.Options{})
		if err != nil {
			return err
		}
		defer h.Close()
		out, err := trial.Run(h, checks.All(), trial.Options{})
		if err != nil {
			return err
		}
		_, err = report.JSON(out.Report)
		return err
	})
}

// live compares with the shell checklist on the machine this runs on.
func (b *bench) live() error {
	script, err := filepath.Abs(b.checklist)
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, "\non this machine, live\thostcheck\tshell checklist\ttimes as fast\tgoal")
	var fast, slow costs
	for i := range b.rounds + 1 {
		p, err := b.spawn([]string{b.hostcheck, "check", "-f", "json"})
		if err != nil {
			return err
		}
		s, err := b.spawn([]string{"/bin/sh", script})
		if err != nil {
			fmt.Fprintf(b.out, "not compared: %v\n", err)
			return nil
		}
		if i > 0 {
			fast, slow = append(fast, p.cost), append(slow, s.cost)
		}
	}
	f, s := fast.median(), slow.median()
	fmt.Fprintf(b.out, "  time\t%s\t%s\t%.1f\t≥ 3\n  CPU\t%s\t%s\t%.1f\n", ms(f.Wall), ms(s.Wall), float64(s.Wall)/float64(f.Wall),
		ms(f.CPU), ms(s.CPU), float64(s.CPU)/float64(f.CPU))
	fmt.Fprintf(b.out, "  peak memory\t%.1f MiB\n", float64(f.PeakKB)/1024)
	return nil
}

// start times the smallest command.
func (b *bench) start() error {
	var c costs
	for range 20 {
		p, err := b.spawn([]string{b.hostcheck, "version"})
		if err != nil {
			return err
		}
		c = append(c, p.cost)
	}
	m := c.median()
	fmt.Fprintf(b.out, "\nstart-up, median of 20\ttime\tCPU\tpeak memory\tgoal\n  hostcheck version\t%s\t%s\t%.1f MiB\t< 10 ms\n", ms(m.Wall), ms(m.CPU), float64(m.PeakKB)/1024)
	return nil
}

// spawned is what one process took.
type spawned struct {
	cost
	Exit   int
	Stderr string
}

// spawn runs a program from a small process: the largest resident set that the
// kernel reports for a child starts with that of the parent that forked it.
func (b *bench) spawn(args []string) (spawned, error) {
	out, err := exec.Command(b.self, append([]string{"spawn"}, args...)...).Output()
	if err != nil {
		return spawned{}, fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	var s spawned
	if err := json.Unmarshal(out, &s); err != nil {
		return s, err
	}
	if s.Exit != 0 && s.Exit != 1 && s.Exit != 3 { // a verdict
		return s, fmt.Errorf("%s: exit %d: %s", strings.Join(args, " "), s.Exit, strings.TrimSpace(s.Stderr))
	}
	return s, nil
}

// spawnMain runs a program and writes what it took.
func spawnMain(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	s := spawned{Stderr: stderr.String()}
	s.Wall = time.Since(start)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		s.Exit = exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.PeakKB = peakKB(cmd.ProcessState)
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return 1
	}
	return 0
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// machine is one line about where the numbers come from.
func machine() string {
	model, release := "unknown processor", "unknown kernel"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s, GOMAXPROCS %d, %d readers",
		model, runtime.NumCPU(), release, runtime.Version(), runtime.GOMAXPROCS(0), host.Workers())
}
