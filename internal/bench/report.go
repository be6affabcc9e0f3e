// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// full is the share of a CPU's time from which it has none to give, percent.
const full = 90

// noisy is the load of others from which figures are no longer the kernel's,
// percent.
const noisy = 10

// busiest is the CPU with the least idle time.
func busiest(list []Core) (c Core, ok bool) {
	if len(list) == 0 {
		return c, false
	}
	return slices.MaxFunc(list, func(a, b Core) int {
		switch {
		case a.Busy < b.Busy:
			return -1
		case a.Busy > b.Busy:
			return 1
		}
		return b.CPU - a.CPU
	}), true
}

// bound says what kept a run from being faster.
func bound(list []Core) string {
	top, ok := busiest(list)
	if !ok {
		return "not known: the kernel counted no time"
	}
	n := 0
	for _, c := range list {
		if c.Busy >= full {
			n++
		}
	}
	where := fmt.Sprintf("%.0f%% softirq, %.0f%% system, %.0f%% user", top.SoftIRQ, top.System, top.User)
	if top.Steal >= 5 {
		where += fmt.Sprintf(", %.0f%% taken by the hypervisor", top.Steal)
	}
	switch {
	case n == len(list):
		return fmt.Sprintf("every CPU is full (the busiest, CPU %d: %s)", top.CPU, where)
	case n > 1:
		return fmt.Sprintf("%d CPUs are full (the busiest, CPU %d: %s)", n, top.CPU, where)
	case n == 1:
		return fmt.Sprintf("CPU %d is full: %s", top.CPU, where)
	}
	return fmt.Sprintf("no CPU is full (the busiest, CPU %d, is %.0f%% busy: %s): the two ends wait for each other", top.CPU, top.Busy, where)
}

func (v *VXLAN) run(path, segmentation string, several bool) *VXLANRun {
	for i := range v.Runs {
		if r := &v.Runs[i]; r.Path == path && r.Segmentation == segmentation && (r.Streams > 1) == several {
			return r
		}
	}
	return nil
}

// summarise says what the runs tell beside each other.
func (v *VXLAN) summarise() {
	if v.Background >= noisy {
		v.Summary = append(v.Summary, fmt.Sprintf("other programs kept the CPUs %.0f%% busy before the runs: all figures are of what they leave, and vary with them", v.Background))
	}
	for _, s := range []string{Offload, Software} {
		for _, several := range []bool{false, true} {
			bare, tunnel := v.run(Bare, s, several), v.run(Tunnel, s, several)
			if bare == nil || tunnel == nil {
				continue
			}
			v.Summary = append(v.Summary, fmt.Sprintf("%s, segmentation by %s: the tunnel has %.0f%% of the bare path (%.1f of %.1f Gb/s) for %.2f times the CPU time of a byte; %s",
				streamCount(tunnel.Streams), s, 100*tunnel.Gbps/bare.Gbps, tunnel.Gbps, bare.Gbps, ratio(tunnel.CPUPerByte, bare.CPUPerByte), tunnel.Bound))
		}
	}
	if a, b := v.run(Tunnel, Offload, false), v.run(Tunnel, Software, false); a != nil && b != nil {
		v.Summary = append(v.Summary, fmt.Sprintf("what tunnel offloads are worth to one stream here: %.1f instead of %.1f Gb/s", a.Gbps, b.Gbps))
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func streamCount(n int) string {
	if n == 1 {
		return "1 stream"
	}
	return fmt.Sprintf("%d streams", n)
}

// Text is the result as a table and what it tells.
func (v *VXLAN) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "TCP between two network namespaces of this host, %d CPUs, %.3g s each, MTU %d (%d within the tunnel)\n\n", v.CPUs, v.Seconds, v.MTU, v.InnerMTU)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "path\tsegmentation\tstreams\tGb/s\tCPU ns/byte\tbusiest CPU\tbusy\tsoftirq\tsystem")
	for i := range v.Runs {
		r := &v.Runs[i]
		c, _ := busiest(r.Cores)
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%.2f\t%.3f\t%d\t%.0f%%\t%.0f%%\t%.0f%%\n", r.Path, r.Segmentation, r.Streams, r.Gbps, r.CPUPerByte, c.CPU, c.Busy, c.SoftIRQ, c.System)
	}
	_ = w.Flush() // a strings.Builder takes everything
	b.WriteString("\nsoftirq of each CPU\n")
	for i := range v.Runs {
		r := &v.Runs[i]
		fmt.Fprintf(&b, "  %-5s %-8s %-11s", r.Path, r.Segmentation, streamCount(r.Streams))
		for _, c := range top(r.Cores) {
			fmt.Fprintf(&b, "  %d:%.0f%%", c.CPU, c.SoftIRQ)
		}
		b.WriteString("\n")
	}
	if len(v.Summary) > 0 {
		b.WriteString("\n")
	}
	for _, s := range v.Summary {
		b.WriteString("- " + s + "\n")
	}
	return b.String()
}

// top gives the CPUs with the most softirq of many, by number.
func top(list []Core) []Core {
	const most = 16
	if len(list) <= most {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Core) int {
		switch {
		case a.SoftIRQ > b.SoftIRQ:
			return -1
		case a.SoftIRQ < b.SoftIRQ:
			return 1
		}
		return a.CPU - b.CPU
	})
	list = list[:most]
	slices.SortFunc(list, func(a, b Core) int { return a.CPU - b.CPU })
	return list
}
