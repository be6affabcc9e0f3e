// SPDX-License-Identifier: Apache-2.0

// Command bench measures a check run: against merely reading the same files
// (the floor), against a shell checklist, and how it grows with the host.
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
	"slices"
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
	flag.Parse()
	b.shape, b.checklist = densehost.Dense, "bench/seed-checklist.sh"
	if err := b.run(os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds, times int
	dir           string
	shape         densehost.Shape
	checklist     string

	hostcheck string // the binary
	self      string
	out       *tabwriter.Writer
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

	fmt.Fprintln(b.out, "\na check run on a tree in memory\tthe process\tthe floor\tratio\tin process\tthe floor\tratio\tper function\tpeak memory\tfiles, links, dirs\tbytes")
	small, err := b.tree(filepath.Join(tmp, "1"), "1×", b.shape)
	if err != nil {
		return err
	}
	large, err := b.tree(filepath.Join(tmp, "n"), fmt.Sprintf("%d×", b.times), b.shape.Times(b.times))
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "goal\t\t\t≤ 1.50\t\t\t≤ 1.50\t\t\t\t\n")
	growth := float64(large) / float64(small) / float64(b.times)
	fmt.Fprintf(b.out, "\ngrowth per PCI function from 1× to %d×: %.2f\n", b.times, growth)

	if err := b.live(); err != nil {
		return err
	}
	return b.start()
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

// tree measures one tree and gives the median time of the process.
func (b *bench) tree(dir, name string, shape densehost.Shape) (time.Duration, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	if err := densehost.Write(dir, shape); err != nil {
		return 0, err
	}
	asked, stats, err := sources(dir)
	if err != nil {
		return 0, err
	}
	list := dir + ".list"
	if err := writeList(list, asked); err != nil {
		return 0, err
	}

	check := []string{b.hostcheck, "check", "--root", dir, "-f", "json"}
	floor := []string{b.self, "floor", dir, list}
	var process, processFloor, inside, insideFloor []time.Duration
	var peak int64
	for i := range b.rounds + 1 { // the first round warms up
		p, err := b.spawn(check)
		if err != nil {
			return 0, err
		}
		pf, err := b.spawn(floor)
		if err != nil {
			return 0, err
		}
		in, err := judge(dir)
		if err != nil {
			return 0, err
		}
		inf, err := readAll(dir, asked)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			continue
		}
		process, processFloor = append(process, p.Wall), append(processFloor, pf.Wall)
		inside, insideFloor = append(inside, in), append(insideFloor, inf)
		peak = max(peak, p.PeakKB)
	}
	p, pf, in, inf := median(process), median(processFloor), median(inside), median(insideFloor)
	n := shape.Functions()
	fmt.Fprintf(b.out, "%s: %d PCI functions\t%s\t%s\t%.2f\t%s\t%s\t%.2f\t%.1f µs\t%.1f MiB\t%d, %d, %d\t%d\n",
		name, n, ms(p), ms(pf), float64(p)/float64(pf), ms(in), ms(inf), float64(in)/float64(inf),
		float64(p.Microseconds())/float64(n), float64(peak)/1024, stats.Files, stats.Links, stats.Dirs, stats.Bytes)
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

// judge times a whole run in this process: from opening the tree to the JSON.
func judge(dir string) (time.Duration, error) {
	runtime.GC()
	start := time.Now()
	h, err := host.Open(dir, host.Options{})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	out, err := trial.Run(h, checks.All(), trial.Options{})
	if err != nil {
		return 0, err
	}
	if _, err := report.JSON(out.Report); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// live compares with the shell checklist on the machine this runs on.
func (b *bench) live() error {
	script, err := filepath.Abs(b.checklist)
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, "\non this machine, live\thostcheck\tshell checklist\ttimes as fast")
	var fast, slow []time.Duration
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
			fast, slow = append(fast, p.Wall), append(slow, s.Wall)
		}
	}
	fmt.Fprintf(b.out, "%d checks\t%s\t%s\t%.1f\ngoal\t\t\t≥ 3.0\n", len(checks.All()), ms(median(fast)), ms(median(slow)),
		float64(median(slow))/float64(median(fast)))
	return nil
}

// start times the smallest command.
func (b *bench) start() error {
	var d []time.Duration
	for range 20 {
		p, err := b.spawn([]string{b.hostcheck, "version"})
		if err != nil {
			return err
		}
		d = append(d, p.Wall)
	}
	fmt.Fprintf(b.out, "\nstart-up: hostcheck version, median of 20\t%s\ngoal\t< 10 ms\n", ms(median(d)))
	return nil
}

// spawned is what one process took.
type spawned struct {
	Wall   time.Duration `json:"wall"`
	PeakKB int64         `json:"peak_kb"` // largest resident set
	Exit   int           `json:"exit"`
	Stderr string        `json:"stderr"`
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
	s := spawned{Wall: time.Since(start), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		s.Exit = exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.PeakKB = peakKB(cmd.ProcessState)
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return 1
	}
	return 0
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
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
