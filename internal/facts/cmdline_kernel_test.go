// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// kernelCase is what a real kernel made of one command line.
type kernelCase struct {
	env  CmdlineEnv
	said map[string]string
}

// kernelCases reads the records of testdata/cmdline.
func kernelCases(t *testing.T) []kernelCase {
	t.Helper()
	files, err := filepath.Glob("testdata/cmdline/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no records of real kernels: %v", err)
	}
	var cases []kernelCase
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		env := CmdlineEnv{PageSize: 4096, Nodes: cpuList("0-1"), GBPages: new(true), Config: map[string]string{}}
		for i, record := range strings.Split(string(b), "\n\n") {
			said := map[string]string{}
			for line := range strings.Lines(record) {
				if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); ok && !strings.HasPrefix(line, "#") && k != "log" {
					said[k] = strings.TrimPrefix(v, " ")
				}
			}
			if i == 0 {
				env.Arch, env.Release = said["arch"], said["release"]
				for _, c := range strings.Fields(said["config"]) {
					k, v, _ := strings.Cut(c, "=")
					env.Config["CONFIG_"+k] = v
				}
				for n := range wholeConfig { // stands for the thousands that nothing here looks at
					env.Config[fmt.Sprintf("CONFIG_OTHER_%d", n)] = "y"
				}
				continue
			}
			e := env
			e.Possible = cpuList("0-7")
			e.Present = e.Possible
			cases = append(cases, kernelCase{e, said})
		}
	}
	return cases
}

func cpuList(s string) *CPUSet {
	set, err := ParseCPUSet(s)
	if err != nil {
		panic(err)
	}
	return &set
}

func TestRealKernelsAgree(t *testing.T) {
	for _, k := range kernelCases(t) {
		text := k.said["text"]
		t.Run(k.env.Arch+" "+text[strings.Index(text, "mitigations=off")+len("mitigations=off"):], func(t *testing.T) {
			c := ParseCmdline(text, k.env)
			e := c.Effects
			for _, f := range []struct {
				name string
				got  *string
			}{{"isolated", e.Isolated}, {"nohz_full", e.NohzFull}, {"rcu_nocbs", e.RcuNocbs}} {
				if f.got == nil || *f.got != k.said[f.name] {
					t.Errorf("%s: %v, the kernel has %q", f.name, show(f.got), k.said[f.name])
				}
			}
			if got := strings.Join(c.UnknownParams, " "); got != jsonText(k.said["unknown"]) {
				t.Errorf("unknown: %q, the kernel logged %q", got, k.said["unknown"])
			}
			if got := fmt.Sprint(show(e.DefaultHugepageKB)); got != k.said["default_kb"] {
				t.Errorf("default size: %s kB, the kernel has %s kB", got, k.said["default_kb"])
			}
			if got, want := requestTotals(e.Hugepages), poolTotals(t, k.said["hugepages"]); !slices.Equal(got, want) {
				t.Errorf("hugepages: %v, the kernel has %v", got, want)
			}
			domain := map[string]string{"identity": "Passthrough", "DMA": "Translated strict", "DMA-FQ": "Translated lazy"}[e.IOMMU.Default]
			if domain != k.said["domain"] {
				t.Errorf("IOMMU: %s, the kernel logged %q", e.IOMMU.Default, k.said["domain"])
			}
		})
	}
}

// requestTotals sums requests by size: how the kernel spreads pages over nodes
// that have room is not compared.
func requestTotals(rs []HugepageRequest) []string {
	sum := map[string]int64{}
	for _, r := range rs {
		sum[fmt.Sprint(r.SizeKB)] += r.Count
	}
	return totals(sum)
}

func poolTotals(t *testing.T, s string) []string {
	t.Helper()
	sum := map[string]int64{}
	for _, pool := range strings.Fields(s) {
		size, rest, _ := strings.Cut(pool, "@")
		var node, n int64
		if _, err := fmt.Sscanf(rest, "%d=%d", &node, &n); err != nil {
			t.Fatal(err)
		}
		sum[size] += n
	}
	return totals(sum)
}

func totals(sum map[string]int64) []string {
	var l []string
	for size, n := range sum {
		l = append(l, fmt.Sprintf("%s=%d", size, n))
	}
	slices.Sort(l)
	return l
}
