// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var systemGovernor = &check.Check{
	ID: "system.governor", Title: "CPUs run at the frequency policy that the profile wants", Severity: check.Low,
	Doc: `Each frequency policy of the kernel has a driver and a governor. CPUs with the same ones are judged together; the subject names
them. What the governor means depends on the driver:

  - acpi-cpufreq, cppc_cpufreq, intel_cpufreq, amd-pstate: the governor chooses. performance is the highest frequency, powersave the
    LOWEST one always, ondemand and schedutil follow the load
  - intel_pstate and amd-pstate-epp (their active mode): the processor chooses. powersave here is the normal, dynamic mode, and
    energy_performance_preference says how eager it is: performance, balance_performance, default, balance_power, power.
    A dynamic mode that prefers performance passes; a balanced one warns, one for power fails

Where no driver sets frequencies (guests, firmware in charge, such as Dell's "System DBPM" and HPE's "Static High") it is skipped.

By hand, and for good with TuneD's [cpu] governor=, or a unit that runs the same at boot:

    grep -H . /sys/devices/system/cpu/cpufreq/policy*/scaling_{driver,governor}
    cpupower frequency-set -g performance
    echo performance | tee /sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference

The firmware has a profile of its own ("Maximum Performance") that bounds all of this.

Often copied and wrong: that powersave is slow. With acpi-cpufreq it is, with intel_pstate it is not.`,
	Refs: []string{"https://docs.kernel.org/admin-guide/pm/cpufreq.html", pstateDoc, "https://docs.kernel.org/admin-guide/pm/amd-pstate.html", "https://github.com/Mellanox/mlnx-tools/blob/master/python/mlnx_tune"},
	Run:  runSystemGovernor,
}

func runSystemGovernor(_ context.Context, r *check.Run) error {
	want, s := r.Profile.System.Governor, r.Facts.System()
	switch {
	case !want.Set:
		r.Report(check.Finding{Status: check.Skip, Why: "the profile does not say which governor it wants"})
	case s.Frequency == nil:
		r.Report(check.Finding{Status: check.Unknown, Why: s.Unknown["frequency"]})
	case len(s.Frequency) == 0:
		r.Report(check.Finding{Status: check.Skip, Why: "no driver of this kernel sets frequencies: the hypervisor or the firmware does"})
	default:
		for i := range s.Frequency {
			r.Report(governorOf(&s.Frequency[i], want))
		}
	}
	return nil
}

func governorOf(c *facts.CPUFreq, want profile.Val[[]string]) check.Finding {
	f := check.Finding{Subject: "CPUs " + c.CPUs, Status: check.Pass, Want: strings.Join(want.V, " or "), Source: want.Origin.String(),
		Got:      c.Governor + " of " + c.Driver,
		Evidence: []check.Evidence{{Source: c.Dir + "/scaling_governor", Value: c.Governor}, {Source: c.Dir + "/scaling_driver", Value: c.Driver}}}
	prefers := text(c.Preference)
	if c.Preference != nil {
		f.Got += ", prefers " + prefers
		f.Evidence = append(f.Evidence, check.Evidence{Source: c.Dir + "/energy_performance_preference", Value: prefers})
	}
	if slices.Contains(want.V, c.Governor) {
		return f
	}
	f.Status = atMostWarn(check.Fail, want.Origin)
	f.Why = reason(want.Origin, "it decides how long a core takes to run at full speed")
	f.Next = "cpupower frequency-set -g " + want.V[0] + "; for each boot, in a profile of TuneD or a unit"
	if !c.Active() || c.Governor != "powersave" || !slices.Contains(want.V, "performance") {
		return f
	}
	switch prefers {
	case "performance":
		f.Status, f.Why, f.Next = check.Pass, "powersave of "+c.Driver+" is its dynamic mode, and it prefers performance", ""
	case "power", "balance_power":
	default:
		f.Status = check.Warn
		f.Why = "powersave of " + c.Driver + " is its dynamic mode, not the slow governor; it still saves power at the cost of latency"
		f.Next += "; or leave the governor, and write performance to energy_performance_preference"
	}
	return f
}

// slowClocks take a trip to a chip on the board for each look at the time, or
// tick as coarsely as the timer interrupt.
var slowClocks = []string{"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"}

// guestClocks are what hypervisors offer, as fast as the TSC.
var guestClocks = []string{"kvm-clock", "hyperv_clocksource_tsc_page", "xen", "vmware"}

var systemClock = &check.Check{
	ID: "system.clocksource", Title: "The clock source is one that programs read without the kernel", Severity: check.Medium,
	Doc: `Each time stamp that a program takes reads the clock source. tsc, Arm's arch_sys_counter and the pages that hypervisors offer are read
in some 20 ns without entering the kernel. hpet and acpi_pm are chips behind a slow bus: a microsecond and more, one CPU at a time. On a host
with hundreds of cores, programs that measure themselves (NCCL, MPI, tracing, Go) then slow each other down.

Right on bare metal of x86 is tsc. In guests it is also kvm-clock, hyperv_clocksource_tsc_page or xen: their hypervisor knows
best, and a switch to tsc can make time jump after a migration. hyperv_clocksource_msr is what is left where the page is missing: an exit
to the hypervisor each time.

Why it is not tsc stands in the kernel log: "Marking TSC unstable due to …" or "timekeeping watchdog …: Marking clocksource 'tsc' as
unstable". Then it is gone from available_clocksource. That is firmware that sets the TSCs apart, a watchdog that was late under
load (fixed in many kernels since), or clocksource= on the command line.

By hand:

    cat /sys/devices/system/clocksource/clocksource0/{current,available}_clocksource
    dmesg | grep -iE 'tsc|clocksource'
    echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource    # only where it is offered

Often copied and wrong: tsc=reliable or tsc=nowatchdog without a look at why it was given up. If the TSCs really drift, time
runs backwards between cores. Update the firmware and the kernel first.`,
	Refs: []string{"https://docs.kernel.org/timers/timekeeping.html", "https://docs.kernel.org/virt/hyperv/clocks.html", "https://docs.kernel.org/admin-guide/kernel-parameters.html"},
	Run:  runSystemClock,
}

func runSystemClock(_ context.Context, r *check.Run) error {
	s, k := r.Facts.System(), r.Facts.Kernel()
	if s.Clocksource == nil {
		r.Report(check.Finding{Status: check.Unknown, Why: s.Unknown["clocksource"]})
		return nil
	}
	got := *s.Clocksource
	guest := text(k.Hypervisor) != ""
	f := check.Finding{Status: check.Pass, Want: "tsc", Got: got, Source: "kernel Documentation/timers/timekeeping.rst; arch/x86/kernel/tsc.c",
		Evidence: []check.Evidence{{Source: facts.ClocksourcePath, Value: got}}}
	offered := slices.Contains(s.Clocksources, "tsc")
	if s.Clocksources != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "/sys/devices/system/clocksource/clocksource0/available_clocksource", Value: strings.Join(s.Clocksources, " ")})
	}
	if line := text(s.UnstableTSC); line != "" {
		f.Evidence = append(f.Evidence, check.Evidence{Source: "klog", Value: line})
	}
	if guest {
		f.Want = "tsc, or the clock of the hypervisor"
	}
	if k.Arch != nil && *k.Arch == "arm64" {
		f.Want = "arch_sys_counter"
	}
	f.Why = "each look at the time is a slow access to a device, one CPU at a time"
	switch {
	case got == "tsc", got == "arch_sys_counter", guest && slices.Contains(guestClocks, got):
		f.Why = ""
	case slices.Contains(slowClocks, got):
		f.Status = check.Fail
		f.Next = "look in \"dmesg | grep -i tsc\" why the kernel gave tsc up, update firmware and kernel, and take clocksource= off the command line"
		if offered {
			f.Next = fmt.Sprintf("tsc is offered: find who chose %s (clocksource= on the command line), and echo tsc > %s", got, facts.ClocksourcePath)
		}
		if guest {
			f.Next = "choose the clock of the hypervisor or tsc where available_clocksource offers it; else set the machine type or features of the guest"
		}
	case got == "hyperv_clocksource_msr":
		f.Status, f.Why = check.Warn, "each look at the time is an exit to the hypervisor"
		f.Next = "update the hypervisor, which does not offer its reference page, or choose tsc where it is offered"
	case slices.Contains(guestClocks, got) && k.Hypervisor == nil:
		f = check.Finding{Status: check.Unknown, Got: got, Evidence: f.Evidence, Why: "right in a guest, and whether this is one is not known: " + k.Unknown["hypervisor"]}
	default:
		f = check.Finding{Status: check.Skip, Got: got, Evidence: f.Evidence, Why: "nothing is known here about this clock source"}
	}
	r.Report(f)
	return nil
}
