// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

var cmdlineIsolation = &check.Check{
	ID: "cmdline.isolation", Title: "CPU isolation leaves each node its housekeeping CPUs", Severity: check.High,
	Doc: `isolcpus= takes CPUs out of load balancing for good: a task gets there by being pinned, and several pinned to one CPU share it while
others idle. The kernel's own work, interrupts of NICs and the kubelet need CPUs too, on every node, and the kernel itself
insists on one for the whole host only.

The check takes the CPUs that are isolated (the kernel's own word in /sys/devices/system/cpu/isolated where it can be read, else what the
text leads to) and judges:

  - share: the part of the online CPUs that is isolated (cmdline.isolated_percent_max of the profile)
  - nodeN: how many CPUs of the node are left (cmdline.housekeeping_per_node). A node that is isolated whole has its devices'
    interrupts and kernel threads served across the socket
  - cpu0: the boot CPU does work that cannot be moved
  - siblings: a core of which one thread is isolated and the other is not gives neither isolation nor the second thread
  - nohz_full: CPUs without a tick that the scheduler still balances on

By hand: derive the list from the topology (lscpu -e=CPU,NODE,CORE), keep one or two whole cores of each node, and take CPU 0 among
them. Better, leave the command line alone and use cpusets: systemd's AllowedCPUs=, or the kubelet's static CPU manager
with reservedSystemCPUs. For interrupts alone: isolcpus=managed_irq,….

Often copied and wrong: isolcpus=0-31 nohz_full=0-31 rcu_nocbs=0-31. On most hosts this is a whole socket with CPU 0 in it and without the
sibling threads; nohz_full= drops the boot CPU anyway, and rcu_nocbs= adds nothing to it. isolcpus= is deprecated.`,
	Refs: []string{paramsDoc, "kernel/sched/isolation.c", "Documentation/admin-guide/cgroup-v2.rst", "Documentation/timers/no_hz.rst"},
	Run:  runCmdlineIsolation,
}

// isolationFacts are the CPUs that the check judges.
type isolationFacts struct {
	r        *check.Run
	isolated facts.CPUSet
	nohz     facts.CPUSet
	online   facts.CPUSet
	evidence []check.Evidence
}

func runCmdlineIsolation(_ context.Context, r *check.Run) error {
	s := &isolationFacts{r: r}
	cpus := r.Facts.CPUs()
	unknown := func(what, why string) error {
		r.Report(check.Finding{Status: check.Unknown, Why: what + ": " + why})
		return nil
	}
	var why string
	if s.isolated, why = s.read(cpus.Isolated, r.Facts.Cmdline().Effects.Isolated, "isolated"); why != "" {
		return unknown("which CPUs are isolated is not known", why)
	}
	if s.nohz, why = s.read(cpus.NohzFull, r.Facts.Cmdline().Effects.NohzFull, "nohz_full"); why != "" {
		return unknown("which CPUs run without a tick is not known", why)
	}
	if s.isolated.Len() == 0 && s.nohz.Len() == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "no CPU is isolated", Evidence: s.evidence})
		return nil
	}
	if cpus.Online == nil {
		return unknown("which CPUs are online is not known", cpus.Unknown["online"])
	}
	var err error
	if s.online, err = facts.ParseCPUSet(*cpus.Online); err != nil || s.online.Len() == 0 {
		return unknown("which CPUs are online is not known", fmt.Sprint(err))
	}
	s.evidence = append(s.evidence, check.Evidence{Source: "/sys/devices/system/cpu/online", Value: *cpus.Online})
	s.share()
	s.nodes()
	if s.isolated.Len() > 0 {
		s.bootCPU()
		s.siblings()
	}
	s.tickless()
	return nil
}

// read takes the kernel's word, or the computed effect where there is none.
func (s *isolationFacts) read(live, asked *string, field string) (set facts.CPUSet, why string) {
	cpus, c := s.r.Facts.CPUs(), s.r.Facts.Cmdline()
	switch {
	case live != nil:
		s.evidence = append(s.evidence, check.Evidence{Source: "/sys/devices/system/cpu/" + field, Value: orNone(*live)})
	case asked != nil:
		live = asked
		s.evidence = append(s.evidence, check.Evidence{Source: cmdlineFile, Value: "leads to " + field + " " + orNone(*asked)})
	default:
		return set, reasons(cpus.Unknown, field) + "; " + reasons(c.Effects.Unknown, field)
	}
	set, err := facts.ParseCPUSet(*live)
	if err != nil {
		return set, err.Error()
	}
	return set, ""
}

func (s *isolationFacts) report(f check.Finding) {
	f.Evidence = append(f.Evidence, s.evidence...)
	s.r.Report(f)
}

func (s *isolationFacts) share() {
	most := s.r.Profile.Cmdline.IsolatedPercentMax
	if !most.Set {
		return
	}
	n, all := s.isolated.And(s.online).Len(), s.online.Len()
	f := check.Finding{Subject: "share", Status: check.Pass, Source: most.Origin.String(),
		Want: fmt.Sprintf("at most %d %% of the online CPUs isolated", most.V), Got: fmt.Sprintf("%d of %d CPUs, %d %%", n, all, n*100/all)}
	if n*100 > most.V*all {
		f.Status = atMostWarn(check.Fail, most.Origin)
		f.Why = "the scheduler spreads all unpinned work over what is left"
		f.Next = "isolate fewer CPUs, or use cpusets, which can be changed while the host runs"
	}
	s.report(f)
}

func (s *isolationFacts) nodes() {
	least := s.r.Profile.Cmdline.HousekeepingPerNode
	if !least.Set || s.isolated.Len() == 0 {
		return
	}
	for _, n := range s.r.Facts.CPUs().Nodes {
		f := check.Finding{Subject: nodeName(n.Node), Source: least.Origin.String(), Want: fmt.Sprintf("%d or more CPUs not isolated", least.V)}
		if n.CPUs == nil {
			f.Status, f.Why = check.Unknown, n.Unknown["cpus"]
			s.r.Report(f)
			continue
		}
		cpus, err := facts.ParseCPUSet(*n.CPUs)
		if err != nil || cpus.And(s.online).Len() == 0 {
			continue // a node of memory alone
		}
		cpus = cpus.And(s.online)
		left := cpus.Minus(s.isolated)
		f.Status, f.Got = check.Pass, fmt.Sprintf("%d of %d CPUs: %s", left.Len(), cpus.Len(), orNone(left.String()))
		f.Evidence = []check.Evidence{{Source: path.Join(facts.NodePath(n.Node), "cpulist"), Value: *n.CPUs}}
		if left.Len() < least.V {
			f.Status = atMostWarn(check.Fail, least.Origin)
			f.Why = "interrupts of the node's devices and its kernel threads have too few CPUs there"
			if left.Len() == 0 {
				f.Why = "the whole node is isolated: interrupts of its devices and its kernel threads run on another socket"
			}
			f.Next = "leave whole cores of this node out of isolcpus=, which now takes " + cpus.And(s.isolated).String() + " of it"
		}
		s.report(f)
	}
}

func (s *isolationFacts) bootCPU() {
	f := check.Finding{Subject: "cpu0", Status: check.Pass, Source: "kernel/sched/isolation.c", Want: "the boot CPU not isolated", Got: "not isolated"}
	if s.isolated.Has(0) {
		f.Status, f.Got = check.Warn, "isolated"
		f.Why = "timekeeping and other work of the boot CPU cannot be moved, and disturbs what is pinned there"
		f.Next = "leave CPU 0 and its sibling out of isolcpus="
	}
	s.report(f)
}

func siblingsPath(cpu int) string {
	return "/sys/devices/system/cpu/cpu" + strconv.Itoa(cpu) + "/topology/thread_siblings_list"
}

// siblings finds cores of which a part is isolated.
func (s *isolationFacts) siblings() {
	h := s.r.Facts.Host()
	list := s.isolated.And(s.online).List()
	ops := make([]host.Op, len(list))
	for i, cpu := range list {
		ops[i] = host.Op{Kind: host.ReadFile, Path: siblingsPath(cpu)}
	}
	h.Prefetch(ops)
	f := check.Finding{Subject: "siblings", Status: check.Pass, Source: "Documentation/admin-guide/cputopology.rst",
		Want: "cores isolated with all their threads", Got: fmt.Sprintf("%d CPUs on whole cores", len(list))}
	var split []string
	for _, cpu := range list {
		text, err := h.Text(siblingsPath(cpu))
		core, perr := facts.ParseCPUSet(text)
		if err == nil {
			err = perr
		}
		if err != nil {
			f.Status, f.Got, f.Why = check.Unknown, "", "which threads share a core is not known: "+host.Reason(err)
			s.r.Report(f)
			return
		}
		if len(f.Evidence) == 0 {
			f.Evidence = []check.Evidence{{Source: siblingsPath(cpu), Value: text}}
		}
		if out := core.And(s.online).Minus(s.isolated); out.Len() > 0 {
			if len(split) == 0 {
				f.Evidence = []check.Evidence{{Source: siblingsPath(cpu), Value: text}}
			}
			split = append(split, fmt.Sprintf("%d (beside %s)", cpu, out))
		}
	}
	if len(split) > 0 {
		f.Status = check.Warn
		f.Got = fmt.Sprintf("%d isolated CPUs share their core: %s", len(split), strings.Join(split[:min(len(split), 8)], ", "))
		f.Why = "the other thread of the core runs unpinned work and takes its share of the core"
		f.Next = "isolate both threads of a core or none; lscpu -e=CPU,CORE shows the pairs"
	}
	s.report(f)
}

func (s *isolationFacts) tickless() {
	if s.nohz.Len() == 0 {
		return
	}
	f := check.Finding{Subject: "nohz_full", Status: check.Pass, Source: "Documentation/timers/no_hz.rst",
		Want: "CPUs without a tick isolated as well", Got: "CPUs " + s.nohz.String()}
	if loose := s.nohz.Minus(s.isolated); loose.Len() > 0 {
		f.Status = check.Warn
		f.Got = "CPUs " + loose.String() + " have no tick and are not isolated by isolcpus="
		f.Why = "the tick stops only while one task runs; the scheduler moves others there, and each entry to the kernel costs more"
		f.Next = "keep other work off them with cpusets (a partition of type isolated), or drop nohz_full="
	}
	s.report(f)
}
