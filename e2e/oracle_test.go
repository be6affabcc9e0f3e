// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/lab/tinyguest"
)

// effects is what a command line does, in a form in which a prediction and a
// kernel can be compared.
type effects struct {
	Pools                       []string // "2048=7": pages by size in kB; how the kernel spreads them is its own affair
	DefaultHugepageKB           string
	Isolated, NohzFull, Offload string // as the kernel prints CPU lists
	Domain                      string // of the IOMMU by default: identity, DMA, DMA-FQ
	Unknown                     string // the parameters that the kernel does not know
}

// TestOracle boots command lines and compares what the kernel made of each with
// what hostcheck predicts from the text, the CPUs and nodes and the kernel's
// configuration alone. The lines are made by a seed ($HOSTCHECK_ORACLE_SEED
// for others than those of every run).
func TestOracle(t *testing.T) {
	began := time.Now()
	ctx := limit(t, 40*time.Minute)
	seed := uint64(1)
	if s := os.Getenv("HOSTCHECK_ORACLE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("HOSTCHECK_ORACLE_SEED: %v", err)
		}
	}
	lines := map[string]int{lab.AMD64: 56, lab.ARM64: 12}
	if testing.Short() {
		lines = map[string]int{lab.AMD64: 10, lab.ARM64: 4}
	}
	for _, flavour := range slices.Sorted(maps.Keys(lines)) {
		base, err := theLab.RunTiny(ctx, lab.Tiny{Flavour: flavour, IOMMU: flavour == lab.AMD64})
		if err != nil {
			t.Fatalf("step \"boot %s with nothing on the command line\": %v", flavour, err)
		}
		config, err := theLab.KernelConfig(flavour)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: kernel %s, seed %d", flavour, base.Kernel.Release, seed)
		r := rand.New(rand.NewPCG(seed, uint64(len(flavour))))
		var mu sync.Mutex
		held := 0
		work := make(chan string)
		var wg sync.WaitGroup
		for range 2 { // a boot keeps one core busy
			wg.Go(func() {
				for line := range work {
					said, err := theLab.RunTiny(ctx, lab.Tiny{Flavour: flavour, Append: line, IOMMU: flavour == lab.AMD64})
					if err != nil {
						t.Errorf("step \"boot %s\" with %q: %v", flavour, line, err)
						continue
					}
					want, err := observed(said.Kernel)
					if err != nil {
						t.Errorf("%s %q: %v", flavour, line, err)
						continue
					}
					got, err := predicted(t.TempDir(), base.Kernel, config, said.Kernel.Cmdline)
					if err != nil {
						t.Errorf("step \"predict %s\" with %q: %v", flavour, line, err)
						continue
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s %q: the kernel (-) did otherwise than predicted (+):\n%s%s", flavour, line, diff, record(said.Kernel, want))
						continue
					}
					mu.Lock()
					held++
					mu.Unlock()
				}
			})
		}
		for range lines[flavour] {
			work <- generate(r, flavour)
		}
		close(work)
		wg.Wait()
		count("kernel as oracle", fmt.Sprintf("command lines on %s (%s)", flavour, base.Kernel.Release), lines[flavour], held, time.Since(began))
		began = time.Now()
	}
}

// generate makes a command line: some options with good values, odd ones, and
// ones that kernels refuse, repeated at times and in any order.
func generate(r *rand.Rand, flavour string) string {
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	cpus := func() string {
		return one("1", "1-3", "2-3", "1,3", "3", "0-1", "0-3", "2", "1-N", "all", "0-3:1/2", "1-3:2/3", "4-9", "2-9", "x1", "", "1-", "3-1", "N", "1,,2", "0x1")
	}
	size := func() string { return one("2M", "1G", "2M", "2048K", "2MB", "1Gi", "3M", "64K", "2097152", "") }
	pages := func(size string) string {
		if strings.HasPrefix(size, "1G") { // what two nodes of 3 GiB surely have
			return one("1", "0:1", "1:1", "0", "1x")
		}
		return one("1", "7", "32", "0:4,1:6", "1:5", "0:3,0:2", "0", "0:4,7:1", "x", "-1", "5abc", "0x10", "12 ", "1:2x")
	}
	groups := []func() string{
		func() string {
			return "isolcpus=" + one("", "domain,", "managed_irq,", "nohz,", "nohz,domain,", "managed_irq,domain,", "foo,", "f00,", "domain,foo,") + cpus()
		},
		func() string { return one("nohz_full=", "nohz-full=") + cpus() },
		func() string { return one("rcu_nocbs=", "rcu_nocbs=", "rcu-nocbs=") + cpus() },
		func() string { return "hugepages=" + pages("2M") },
		func() string { s := size(); return "hugepagesz=" + s + " hugepages=" + pages(s) },
		func() string {
			s := size()
			return "default_hugepagesz=" + s + one("", " hugepages="+pages(s), " hugepagesz="+s+" hugepages="+pages(s))
		},
		func() string {
			return one("iommu.passthrough=", "iommu.passthrough=", "iommu.strict=") + one("0", "1", "y", "n", "on", "off", "pt", "")
		},
		func() string {
			return "iommu=" + one("pt", "nopt", "on", "soft", "pt,nopt", "usedac,pt", "ptx", "merge,pt", "force")
		},
		func() string {
			return one("intel_iommu=", "amd_iommu=") + one("on", "on,strict", "on,sm_off", "igfx_off,on", "fullflush", "onx")
		},
		func() string {
			return one("foo", "foo=1", "foo.bar=1", "quux=\"a b\"", "\"un known=1\"", "systemd.unit=x.target", "ro", "splash", "HOME=/x", "transparent_hugepage=maybe",
				"transparent_hugepage=madvise", "numa_balancing=disable", "pcie_acs_override=downstream", "tsx=on", "mce=off", "nokaslr", "nosmt", "audit=0", "skew_tick=1",
				"intel_pstate=disable", "processor.max_cstate=1", "idle=halt", "nowatchdog", "tsc=reliable", "rcupdate.rcu_expedited=1", "kthread_cpus=0", "irqaffinity=0", "nmi_watchdog=0")
		},
		func() string { return one("maxcpus=2", "nr_cpus=3", "nr_cpus=2", "maxcpus=3", "nosmp") },
	}
	var options []string
	for range 1 + r.IntN(5) {
		options = append(options, groups[r.IntN(len(groups))]())
	}
	if r.IntN(8) == 0 {
		options = append(options, "--", one("single", "isolcpus=1-3", "a=b"))
	}
	return strings.Join(options, " ")
}

var (
	reUnknown = regexp.MustCompile(`Unknown kernel command line parameters "(.*)", will be passed to user space`)
	reOffload = regexp.MustCompile(`rcu: *\tOffload RCU callbacks from CPUs: ([0-9,-]*)\.`)
	reDomain  = regexp.MustCompile(`iommu: Default domain type: (\S+)`)
	rePolicy  = regexp.MustCompile(`iommu: DMA domain TLB invalidation policy: (\S+) mode`)
)

// observed is what the kernel made of its command line.
func observed(k tinyguest.Kernel) (effects, error) {
	e := effects{Isolated: k.Isolated, NohzFull: k.NohzFull, DefaultHugepageKB: strings.TrimSuffix(k.DefaultHugepage, " kB")}
	if e.NohzFull == "(null)" { // lib/vsprintf.c, of a mask that is not there
		e.NohzFull = ""
	}
	if k.Log == "" {
		return e, fmt.Errorf("the guest gave no kernel log")
	}
	sum := map[string]int{}
	for p, text := range k.Pools {
		if !strings.HasPrefix(p, "/sys/devices/system/node/") {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return e, fmt.Errorf("%s: %w", p, err)
		}
		sum[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(filepath.Dir(p)), "hugepages-"), "kB")] += n
	}
	e.Pools = pools(sum)
	first := func(re *regexp.Regexp) string {
		if m := re.FindStringSubmatch(k.Log); m != nil {
			return m[1]
		}
		return ""
	}
	e.Unknown, e.Offload = first(reUnknown), first(reOffload)
	switch domain, policy := first(reDomain), first(rePolicy); {
	case domain == "Passthrough":
		e.Domain = "identity"
	case domain == "Translated" && policy == "lazy":
		e.Domain = "DMA-FQ"
	case domain == "Translated" && policy == "strict":
		e.Domain = "DMA"
	default:
		return e, fmt.Errorf("the kernel logged %q and %q as its default domain", domain, policy)
	}
	// and what devices really got, where there is an IOMMU at work
	for p, kind := range k.Groups {
		if kind != e.Domain && !(kind == "DMA" && e.Domain == "DMA-FQ") { // a driver may ask for less laziness
			return e, fmt.Errorf("%s says %s, and the kernel's log %s", p, kind, e.Domain)
		}
	}
	return e, nil
}

// predicted is what hostcheck says of a root that has nothing but the text, the
// machine's CPUs and nodes and the kernel's configuration.
func predicted(root string, base tinyguest.Kernel, config, cmdline string) (effects, error) {
	files := map[string]string{
		"/proc/cmdline": cmdline + "\n", "/proc/sys/kernel/osrelease": base.Release + "\n", "/boot/config-" + base.Release: config,
		"/sys/devices/system/cpu/possible": base.Possible + "\n", "/sys/devices/system/cpu/present": base.CPUs + "\n", "/sys/devices/system/node/online": base.Nodes + "\n",
	}
	for p, text := range base.Files {
		if p == "/proc/cpuinfo" || filepath.Base(p) == "cpulist" {
			files[p] = text + "\n"
		}
	}
	for p, text := range files {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return effects{}, err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return effects{}, err
		}
	}
	out, err := exec.Command(built["amd64"], "facts", "cmdline", "--root", root, "-f", "json").Output()
	if err != nil {
		return effects{}, fmt.Errorf("hostcheck facts: %w", err)
	}
	var f struct {
		Cmdline struct {
			UnknownParams []string `json:"unknown_params"`
			Unknown       map[string]string
			Effects       struct {
				Hugepages []struct {
					SizeKB int `json:"size_kb"`
					Count  int
				}
				DefaultHugepageKB *int   `json:"default_hugepage_kb"`
				Isolated          string `json:"isolated"`
				NohzFull          string `json:"nohz_full"`
				RcuNocbs          string `json:"rcu_nocbs"`
				IOMMU             struct{ Default string }
				Unknown           map[string]string
			}
		}
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return effects{}, err
	}
	c := f.Cmdline
	delete(c.Effects.Unknown, "iommu.enabled") // whether there is one at work is the firmware's affair; by what domain is not
	if len(c.Unknown)+len(c.Effects.Unknown) > 0 || c.Effects.DefaultHugepageKB == nil {
		return effects{}, fmt.Errorf("not everything is predicted: %v %v", c.Unknown, c.Effects.Unknown)
	}
	sum := map[string]int{}
	for _, h := range c.Effects.Hugepages {
		sum[strconv.Itoa(h.SizeKB)] += h.Count
	}
	return effects{
		Pools: pools(sum), DefaultHugepageKB: strconv.Itoa(*c.Effects.DefaultHugepageKB),
		Isolated: c.Effects.Isolated, NohzFull: c.Effects.NohzFull, Offload: c.Effects.RcuNocbs,
		Domain: c.Effects.IOMMU.Default, Unknown: strings.Join(c.UnknownParams, " "),
	}, nil
}

// pools leaves out the sizes that have no pages.
func pools(sum map[string]int) []string {
	list := []string{}
	for size, n := range sum {
		if n != 0 {
			list = append(list, fmt.Sprintf("%s=%d", size, n))
		}
	}
	slices.Sort(list)
	return list
}

// record is a case for internal/facts/testdata/cmdline.
func record(k tinyguest.Kernel, e effects) string {
	return fmt.Sprintf("\ntext: %s\nisolated: %s\nnohz_full: %s\nrcu_nocbs: %s\npools: %s\ndefault_kb: %s\nunknown: %s\ndomain: %s\n",
		k.Cmdline, e.Isolated, e.NohzFull, e.Offload, strings.Join(e.Pools, " "), e.DefaultHugepageKB, e.Unknown, e.Domain)
}
