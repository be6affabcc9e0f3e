// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	cmaToS  = "/sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos"
	extra1G = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages"
	tclass  = "/sys/class/infiniband/mlx5_0/tc/1/traffic_class"
	extra   = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	thp     = "/sys/kernel/mm/transparent_hugepage/enabled"
)

func sysfsHost() map[string]string {
	return map[string]string{
		extra1G: "0\n", cmaToS: "0x30\n", tclass: "Global tclass=26\n", extra: "512\n", thp: "[always] madvise never\n",
		"/.hostcheck/capture.json": `{"schema":"hostcheck.capture/v1","whole":["/sys","/proc"]}`,
	}
}

// sysfsKnob plays the files: some show what they hold in other words.
func sysfsKnob(root string) func(p, s string) error {
	write := plantest.Knob(root)
	return func(p, s string) error {
		if strings.HasSuffix(p, "/rps_cpus") { // the kernel fills up with zeros
			s = strings.Repeat("0", max(0, 8-len(s))) + s
		}
		if strings.HasSuffix(p, "kB/enabled") {
			s = strings.TrimSpace(strings.Replace(" always inherit madvise never ", " "+s+" ", " ["+s+"] ", 1))
		}
		switch p {
		case tclass:
			if s = "Global tclass=" + s; s == "Global tclass=tclass=-1" {
				s = ""
			}
		case thp:
			words := " always madvise never "
			if !strings.Contains(words, " "+s+" ") {
				return syscall.EINVAL
			}
			s = strings.TrimSpace(strings.Replace(words, " "+s+" ", " ["+s+"] ", 1))
		case cmaToS:
			if s == "48" {
				s = "0x30"
			}
		}
		return write(p, s)
	}
}

func sysfsEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Sysfs{}}, Machine: &plan.Machine{Knob: sysfsKnob(root)}}
}

func file(p, want string) plan.Wish {
	return plan.Wish{Setting: fixes.SysfsSetting(p), Want: want, Tier: plan.Safe, Check: "dcqcn.enabled"}
}

var sysfsWishes = []plan.Wish{file(extra1G, "1"), file(cmaToS, "0x2e"), file(tclass, "106"), file(extra, "0"), file(thp, "madvise")}

func TestSysfsLoop(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setup(sysfsHost()), Engine: sysfsEngine, Wishes: sysfsWishes},
		both(both(holdsFile(extra1G, "1"), holdsFile(cmaToS, "46")), both(holdsFile(tclass, "Global tclass=106"), holdsFile(thp, "always [madvise] never"))))
	var diffs []string
	for _, c := range p.Changes {
		diffs = append(diffs, filepath.Base(c.Name)+" "+c.Diff)
		if c.Tier != plan.Safe || c.Persist || c.Why != "dcqcn.enabled" {
			t.Errorf("%+v", c)
		}
	}
	want := "traffic_class 26 -> 106; default_roce_tos 48 -> 46; nr_overcommit_hugepages 0 -> 1; nr_overcommit_hugepages 512 -> 0; enabled always -> madvise"
	if got := strings.Join(diffs, "; "); got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
}

// A forced traffic class can be taken away and given back; two spellings of
// one value are one.
func TestSysfsSpelling(t *testing.T) {
	plantest.ClosedLoop(t, plantest.Case{Setup: setup(sysfsHost()), Engine: sysfsEngine, Wishes: []plan.Wish{file(tclass, "-1")}},
		func(root string) error {
			b, err := os.ReadFile(filepath.Join(root, tclass))
			if err == nil && strings.Contains(string(b), "Global") {
				return syscall.EEXIST
			}
			return err
		})
	root := plantest.TempDir(t)
	plantest.Files(t, root, sysfsHost())
	if p := plantest.Make(t, sysfsEngine(root), []plan.Wish{file(cmaToS, "48"), file(thp, "always"), file(tclass, "0x1a"), file(extra, "0512")}); len(p.Changes) != 1 || p.Changes[0].After.Text != "330" {
		t.Errorf("%+v", p.Changes) // 0512 is octal to the kernel, too
	}
}

func TestSysfsCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: setup(sysfsHost()), Engine: sysfsEngine, Wishes: sysfsWishes})
	if !crashChild() && n < 80 {
		t.Errorf("only %d points tried", n)
	}
}

func TestSysfsUnwilling(t *testing.T) {
	for name, c := range map[string]struct {
		write func(root string) func(p, s string) error
		says  string
	}{
		"EINVAL":  {func(string) func(p, s string) error { return func(string, string) error { return syscall.EINVAL } }, "cannot write \"106\" to " + tclass + ": invalid argument"},
		"EBUSY":   {func(string) func(p, s string) error { return func(string, string) error { return syscall.EBUSY } }, "device or resource busy"},
		"ERANGE":  {func(string) func(p, s string) error { return func(string, string) error { return syscall.ERANGE } }, "numerical result out of range"},
		"ignored": {func(string) func(p, s string) error { return func(string, string) error { return nil } }, "was set to \"106\" without an error, but still reads \"26\": the write was ignored"},
		"rounded": {func(root string) func(p, s string) error {
			return func(p, s string) error { return sysfsKnob(root)(p, strings.Replace(s, "106", "104", 1)) }
		}, "was set to \"106\" without an error, but reads \"104\""},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: setup(sysfsHost()),
				Engine: func(root string) *plan.Engine {
					e := sysfsEngine(root)
					e.Machine.Knob = c.write(root)
					return e
				},
				Wishes: []plan.Wish{file(extra1G, "1"), file(tclass, "106")},
			}, c.says)
		})
	}
}

func TestSysfsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"not in the table":    {sysfsHost(), file("/sys/class/net/ens1np0/mtu", "9000"), []string{"not one of the files that hostcheck writes"}},
		"core pattern":        {sysfsHost(), file("/proc/sys/kernel/core_pattern", "|/tmp/x"), []string{"not one of the files"}},
		"climbs out":          {sysfsHost(), file("/sys/class/infiniband/mlx5_0/tc/1/../1/traffic_class", "1"), []string{"not one of the files"}},
		"slash in a name":     {sysfsHost(), file("/sys/class/infiniband/a/b/tc/1/traffic_class", "1"), []string{"not one of the files"}},
		"target":              {sysfsHost(), plan.Wish{Setting: plan.Setting{Kind: "sysfs", Target: "x", Name: extra1G}, Want: "1"}, []string{"not one of the files"}},
		"out of range":        {sysfsHost(), file(cmaToS, "256"), []string{"takes a number from 0 to 255", "256 is beyond 0 to 255"}},
		"no number":           {sysfsHost(), file(extra1G, "on"), []string{`"on" is not a number`}},
		"tos":                 {sysfsHost(), file(tclass, "256"), []string{"a ToS byte from 0 to 255, or -1 for none"}},
		"no such choice":      {sysfsHost(), file(thp, "defer"), []string{"takes one of always, madvise, never"}},
		"not there":           {sysfsHost(), file("/sys/class/infiniband/mlx5_9/tc/1/traffic_class", "1"), []string{"is not there: this kernel or driver has no such switch"}},
		"newline in a choice": {sysfsHost(), file(thp, "never\nalways"), []string{"is not a word"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, sysfsEngine, c.wish, c.says...) })
	}
}

// One mask has one spelling, whatever the kernel fills it up with.
func TestSysfsMask(t *testing.T) {
	const rps = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
	files := sysfsHost()
	files[rps] = "0000ffff\n"
	p := plantest.ClosedLoop(t, plantest.Case{Setup: setup(files), Engine: sysfsEngine, Wishes: []plan.Wish{file(rps, "000000FF")}}, holdsFile(rps, "000000ff"))
	if len(p.Changes) != 1 || p.Changes[0].Diff != "ffff -> ff" {
		t.Errorf("%+v", p.Changes)
	}
	for want, refused := range map[string]bool{"0": false, "1,00000000": false, "ffffffffff": true, "0-3": true, "": true, ",1": true, "x": true} {
		root := t.TempDir()
		setup(files)(t, root)
		got := plantest.Make(t, sysfsEngine(root), []plan.Wish{file(rps, want)})
		if (len(got.Refused) > 0) != refused {
			t.Errorf("%q: refused %+v, changes %+v", want, got.Refused, got.Changes)
		}
	}
}
