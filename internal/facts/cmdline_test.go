// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/host"
)

// testEnv is a host with 8 CPUs on two nodes, 1G pages and the defaults of
// Debian's kernel.
func testEnv(arch string) CmdlineEnv {
	e := CmdlineEnv{
		Arch: arch, Vendor: "GenuineIntel", PageSize: 4096, Release: "6.12.107+deb13-" + arch, Possible: cpuList("0-7"), Present: cpuList("0-7"),
		Nodes: cpuList("0-1"), GBPages: new(true),
		Config: map[string]string{"CONFIG_IOMMU_DEFAULT_DMA_LAZY": "y", "CONFIG_INTEL_IOMMU": "y", "CONFIG_AMD_IOMMU": "y", "CONFIG_NO_HZ_FULL": "y",
			"CONFIG_RCU_NOCB_CPU": "y", "CONFIG_CPU_ISOLATION": "y", "CONFIG_HUGETLBFS": "y", "CONFIG_PM_SLEEP_SMP": "y", "CONFIG_CMA": "y", "CONFIG_SMP": "y"},
	}
	if arch == "arm64" {
		e.Vendor = "ARM"
	}
	return e
}

func words(ws []word) []string {
	l := []string{}
	for _, w := range ws {
		l = append(l, "<"+w.name+">"+w.tail())
	}
	return l
}

func TestSplitCmdline(t *testing.T) {
	for _, tc := range []struct {
		text  string
		words []string
		init  []string
	}{
		{"", nil, nil},
		{" \t ", nil, nil},
		{"a b=1  c= ", []string{"<a>", "<b>=1", "<c>="}, nil},
		{"a\u00a0b", []string{"<a\xc2>", "<b>"}, nil}, // the second byte of U+00A0 is 0xA0
		{"a=\u00e0b", []string{"<a>=\xc3", "<b>"}, nil},
		{`a="x y" b`, []string{"<a>=x y", "<b>"}, nil},
		{`"a=x y" b`, []string{"<a>=x y", "<b>"}, nil},
		{`a=""1-3 b=1-3"" c=5,"1-3"`, []string{`<a>="1-3`, `<b>=1-3""`, `<c>=5,"1-3"`}, nil},
		{`a=b=c`, []string{"<a>=b=c"}, nil},
		{`=a =b=c`, []string{"<=a>", "<=b>=c"}, nil}, // a leading "=" belongs to the name
		{`a="open b=1`, []string{"<a>=open b=1"}, nil},
		{`a=" b`, []string{"<a>= b"}, nil},
		{`a="`, []string{"<a>="}, nil},
		{`"a b"`, []string{"<a b>"}, nil},
		{`a"b c"d e`, []string{`<a"b c"d>`, "<e>"}, nil},
		{"a -- b c=1 -- d", []string{"<a>"}, []string{"<b>", "<c>=1", "<-->", "<d>"}},
		{`a "--" b`, []string{"<a>"}, []string{"<b>"}},
		{"a --=1 b", []string{"<a>", "<-->=1", "<b>"}, nil},
		{"a --b", []string{"<a>", "<--b>"}, nil},
	} {
		got, init := splitCmdline(tc.text)
		if d := cmp.Diff(tc.words, words(got)); d != "" && len(tc.words)+len(got) > 0 {
			t.Errorf("%q: words (-want +got):\n%s", tc.text, d)
		}
		if d := cmp.Diff(tc.init, words(init)); d != "" && len(tc.init)+len(init) > 0 {
			t.Errorf("%q: for init (-want +got):\n%s", tc.text, d)
		}
	}
}

func TestTokensKeepTheirOrder(t *testing.T) {
	c := ParseCmdline(`hugepagesz=1G hugepages=2 hugepagesz=2M  hugepages=4 a="b c"`, testEnv("amd64"))
	want := []Token{
		{Name: "hugepagesz", Value: new("1G"), Raw: "hugepagesz=1G"}, {Name: "hugepages", Value: new("2"), Raw: "hugepages=2"},
		{Name: "hugepagesz", Value: new("2M"), Raw: "hugepagesz=2M"}, {Name: "hugepages", Value: new("4"), Raw: "hugepages=4"},
		{Name: "a", Value: new("b c"), Raw: `a="b c"`},
	}
	if d := cmp.Diff(want, c.Tokens); d != "" {
		t.Error(d)
	}
	if got := c.Find("huge-pages"); got != nil {
		t.Errorf("huge-pages is no name of hugepages: %v", got)
	}
	if !SameParam("nohz-full", "nohz_full") || SameParam("nohz-full", "nohzfull") {
		t.Error("dashes and underscores are equal in names, and nothing else is")
	}
}

func TestKernelNumbers(t *testing.T) {
	for text, want := range map[string]uint64{
		"2M": 2 << 20, "2MB": 2 << 20, "1Gi": 1 << 30, "1g": 1 << 30, "2M,1G": 2 << 20, "0x200000": 2 << 20, "010k": 8 << 10, "": 0, "G": 0, "1T": 1 << 40, "3P": 3 << 50, "1E": 1 << 60, "0x": 0, "7z": 7,
	} {
		if got, _ := memparse(text); got != want {
			t.Errorf("memparse(%q) = %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"1": "true", "y": "true", "Yes": "true", "on": "true", "oN": "true", "true": "true", "T": "true", "0": "false", "off": "false", "No": "false", "f": "false", "": "", "o": "", "2": "", "pt": "", "enable": "",
	} {
		v, ok := kstrtobool(text)
		got := ""
		if ok {
			got = fmt.Sprint(v)
		}
		if got != want {
			t.Errorf("kstrtobool(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestKernelCPUList(t *testing.T) {
	for _, tc := range []struct{ text, want string }{ // on 32 CPUs; "!" is refused
		{"0-3,8", "0-3,8"},
		{"3,1,1-2", "1-3"},
		{"0-31:2/4", "0-1,4-5,8-9,12-13,16-17,20-21,24-25,28-29"},
		{"1-6:2/4,9", "1-2,5-6,9"},
		{"0-7:0/2", ""},
		{"0-3:4/4", "0-3"},
		{"0-3:5/4", "!"},
		{"0-3:1/0", "!"},
		{"N", "31"},
		{"30-N", "30-31"},
		{"all", "0-31"},
		{"ALL:1/8", "0,8,16,24"},
		{"1,,2, 3", "1-3"},
		{" , ", ""},
		{"", ""},
		{"3-1", "!"},
		{"4-32", "!"},
		{"32", "!"},
		{"1-", "!"},
		{"-1", "!"},
		{"1x", "!"},
		{"0x3", "!"},
		{"n", "!"},
		{"1:1/2", "!"},
		{"4294967296", "!"},
		{"99999999999999999999999", "!"},
		{"0-3:1/2,", "0,2"},
		{"0-3:1/2all", "0-31"}, // as the kernel reads it
	} {
		set, err := parseKernelCPUList(tc.text, 32)
		got := set.String()
		if err != nil {
			got = "!"
		}
		if got != tc.want {
			t.Errorf("%q is %q, want %q (%v)", tc.text, got, tc.want, err)
		}
	}
}

// parse gives the effects of a text on the test host, after change.
func parse(t *testing.T, arch, text string, change func(*CmdlineEnv)) *Cmdline {
	t.Helper()
	env := testEnv(arch)
	if change != nil {
		change(&env)
	}
	return ParseCmdline(text, env)
}

// problems writes what is wrong as "kind token", sorted.
func problems(c *Cmdline, area string) string {
	var l []string
	for _, p := range c.Problems {
		if p.Area == area && !slices.Contains(l, p.Kind+" "+p.Token) {
			l = append(l, p.Kind+" "+p.Token)
		}
		if p.Why == "" {
			l = append(l, "NO REASON FOR "+p.Token)
		}
	}
	slices.Sort(l)
	return strings.Join(l, "; ")
}

func requests(rs []HugepageRequest) string {
	if rs == nil {
		return "unknown"
	}
	var l []string
	for _, r := range rs {
		l = append(l, fmt.Sprintf("%s@%d=%d", SizeName(r.SizeKB), r.Node, r.Count))
	}
	return strings.Join(l, " ")
}

func TestHugepageMachine(t *testing.T) {
	for _, tc := range []struct{ text, want, deflt, problems string }{
		{"", "", "2M", ""},
		{"hugepages=7", "2M@-1=7", "2M", ""},
		{"default_hugepagesz=1G hugepagesz=1G hugepages=3", "1G@-1=3", "1G", ""},
		{"default_hugepagesz=1G hugepages=3", "1G@-1=3", "1G", ""},
		{"hugepages=3 default_hugepagesz=1G", "1G@-1=3", "1G", ""},
		{"hugepages=3 default_hugepagesz=1G hugepages=2", "1G@-1=5", "1G", ""}, // gigantic pages are taken at once, twice
		{"hugepages=3 default_hugepagesz=2M hugepages=2", "2M@-1=2", "2M", ""},
		{"hugepagesz=2M hugepages=4 hugepagesz=1G hugepages=2", "2M@-1=4 1G@-1=2", "2M", ""},
		{"hugepagesz=2M hugepages=4 hugepages=5", "2M@-1=4", "2M", "ignored hugepages=5"},
		{"hugepagesz=1G hugepages=1 hugepagesz=1G hugepages=2", "1G@-1=1", "2M", "ignored hugepages=2; ignored hugepagesz=1G"},
		{"hugepagesz=1G hugepagesz=1G hugepages=2", "", "2M", "ignored hugepages=2; ignored hugepagesz=1G"},
		{"hugepagesz=3M hugepages=2 hugepages=4", "2M@-1=4", "2M", "ignored hugepages=2; refused hugepagesz=3M"},
		{"hugepagesz=64K hugepages=2", "", "2M", "ignored hugepages=2; refused hugepagesz=64K"},
		{"hugepages=0:2,1:3", "2M@0=2 2M@1=3", "2M", ""},
		{"hugepages=0:2,1:3,0:5", "2M@0=5 2M@1=3", "2M", "partial hugepages=0:2,1:3,0:5"},
		{"hugepages=0:2,7:3", "", "2M", "refused hugepages=0:2,7:3"},
		{"hugepages=0:2,7:3 hugepages=9", "2M@-1=9", "2M", "refused hugepages=0:2,7:3"},
		{"hugepages=0:2,9", "", "2M", "refused hugepages=0:2,9"},
		{"hugepages=0:0", "", "2M", ""},
		{"hugepages=0:0,1:4", "2M@1=4", "2M", ""},
		{"hugepages=0:3 default_hugepagesz=2M hugepages=9", "2M@0=3", "2M", ""}, // counts by node go first
		{"hugepages=5abc", "2M@-1=5", "2M", "partial hugepages=5abc"},
		{"hugepages=0x10", "", "2M", "partial hugepages=0x10"},
		{"hugepages=7,0:3", "2M@-1=7", "2M", "partial hugepages=7,0:3"},
		{"hugepages=x hugepages=2", "2M@-1=2", "2M", "refused hugepages=x"},
		{"hugepages=-5", "", "2M", "refused hugepages=-5"},
		{"hugepages= hugepages=2", "", "2M", "ignored hugepages=2; partial hugepages="},
		{"hugepagesz=2MB hugepages=3", "2M@-1=3", "2M", ""},
		{"hugepagesz=2M,1G hugepages=3", "2M@-1=3", "2M", "partial hugepagesz=2M,1G"},
		{"hugepagesz=1048576 hugepages=3", "", "2M", "ignored hugepages=3; refused hugepagesz=1048576"},
		{"default_hugepagesz=3M hugepages=1 default_hugepagesz=1G hugepages=2", "1G@-1=2", "1G", "ignored hugepages=1; refused default_hugepagesz=3M"},
		{"default_hugepagesz=1G hugepages=1 default_hugepagesz=2M hugepages=2", "1G@-1=1", "1G", "ignored default_hugepagesz=2M; ignored hugepages=2"},
		{"hugepagesz=1G hugepagesz=2M default_hugepagesz=1G hugepages=4", "2M@-1=4", "1G", "partial hugepages=4"},
		{"hugepages=64 hugepagesz=1G", "2M@-1=64", "2M", "partial hugepagesz=1G"},
		{"hugepages=7 hugepagesz=2M hugepages=8", "2M@-1=7", "2M", "overridden hugepagesz=2M"},
		{"hugepagesz=1G hugepages=0:1,1:1 hugetlb_cma=2G", "", "2M", "ignored hugepagesz=1G"},
		{"hugepagesz=1G hugepages=1 hugetlb_cma=512M", "1G@-1=1", "2M", "ignored hugetlb_cma=512M"},
		{"hugepagesz=1G hugepages=1 hugetlb_cma=0:1G,7:1G", "", "2M", "ignored hugepagesz=1G; partial hugetlb_cma=0:1G,7:1G"},
		{"hugepagesz hugepages default_hugepagesz", "", "2M", ""}, // without "=" they are other words
	} {
		c := parse(t, "amd64", tc.text, nil)
		if got := requests(c.Effects.Hugepages); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.text, got, tc.want)
		}
		if got := SizeName(*c.Effects.DefaultHugepageKB); got != tc.deflt {
			t.Errorf("%s: default %s, want %s", tc.text, got, tc.deflt)
		}
		if got := problems(c, "hugepages"); got != tc.problems {
			t.Errorf("%s: problems %q, want %q", tc.text, got, tc.problems)
		}
	}
}

func TestHugepageSizesOfTheHost(t *testing.T) {
	pages := func(kb int) func(*CmdlineEnv) { return func(e *CmdlineEnv) { e.PageSize = kb << 10 } }
	for _, tc := range []struct {
		arch, text string
		change     func(*CmdlineEnv)
		want       string
	}{
		{"amd64", "hugepagesz=1G hugepages=1", func(e *CmdlineEnv) { e.GBPages = new(false) }, " default 2M"},
		{"amd64", "hugepagesz=1G hugepages=1", func(e *CmdlineEnv) { e.GBPages = nil }, "unknown default 2M"},
		{"amd64", "default_hugepagesz=1G", func(e *CmdlineEnv) { e.GBPages = nil }, "unknown default unknown"},
		{"amd64", "hugepages=1", func(e *CmdlineEnv) { e.GBPages = nil }, "2M@-1=1 default 2M"},
		{"amd64", "hugepages=0:1", func(e *CmdlineEnv) { e.Nodes = nil }, "unknown default 2M"},
		{"amd64", "hugepages=1", func(e *CmdlineEnv) { e.Nodes = nil }, "2M@-1=1 default 2M"},
		{"arm64", "hugepages=1 hugepagesz=64K hugepages=2 hugepagesz=32M hugepages=3 hugepagesz=1G hugepages=4 hugepagesz=512M hugepages=5", pages(4),
			"64K@-1=2 2M@-1=1 32M@-1=3 1G@-1=4 default 2M"},
		{"arm64", "hugepages=1 hugepagesz=2M hugepages=2 hugepagesz=1G hugepages=3 hugepagesz=64K hugepages=4", pages(16), "2M@-1=2 32M@-1=1 1G@-1=3 default 32M"},
		{"arm64", "hugepages=1 hugepagesz=2M hugepages=2 hugepagesz=16G hugepages=3 hugepagesz=1G hugepages=4", pages(64), "2M@-1=2 512M@-1=1 16G@-1=3 default 512M"},
		{"arm64", "hugepages=1", pages(0), "unknown default unknown"},
		{"s390x", "hugepages=1", nil, "unknown default unknown"},
		{"s390x", "quiet", nil, " default unknown"},
		{"", "hugepages=1", nil, "unknown default unknown"},
		{"arm64", "hugepagesz=32M hugepages=2 hugetlb_cma=1G", pages(4), " default 2M"}, // 32M is gigantic with 4K pages
		{"amd64", "hugepagesz=1G hugepages=2 hugetlb_cma=1G", func(e *CmdlineEnv) { whole(e, "CMA") }, "1G@-1=2 default 2M"},
	} {
		e := parse(t, tc.arch, tc.text, tc.change).Effects
		got := requests(e.Hugepages) + " default "
		if e.DefaultHugepageKB == nil {
			got += "unknown"
		} else {
			got += SizeName(*e.DefaultHugepageKB)
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.arch, tc.text, got, tc.want)
		}
		for field, missing := range map[string]bool{"hugepages": e.Hugepages == nil, "default_hugepage_kb": e.DefaultHugepageKB == nil} {
			if missing != (e.Unknown[field] != "") {
				t.Errorf("%s %s: %s is missing: %t, reason %q", tc.arch, tc.text, field, missing, e.Unknown[field])
			}
		}
	}
}

// whole makes the configuration one that is believed to be whole, without the
// given symbols.
func whole(e *CmdlineEnv, without ...string) {
	for n := range wholeConfig {
		e.Config[fmt.Sprintf("CONFIG_OTHER_%d", n)] = "y"
	}
	for _, w := range without {
		delete(e.Config, "CONFIG_"+w)
	}
}

func TestCmdlineIsolation(t *testing.T) {
	for _, tc := range []struct{ arch, text, isolated, managed, nohz, rcu, unknown, problems string }{
		{"amd64", "", "", "", "", "", "", ""},
		{"amd64", "isolcpus=1-3", "1-3", "", "", "", "", ""},
		{"amd64", "isolcpus=0-3", "0-3", "", "", "", "", ""},
		{"amd64", "isolcpus=0-7", "1-7", "", "", "", "", "partial isolcpus=0-7"},
		{"amd64", "isolcpus=managed_irq,domain,2-3", "2-3", "2-3", "", "", "", ""},
		{"amd64", "isolcpus=managed_irq,2-3", "", "2-3", "", "", "", ""},
		{"amd64", "isolcpus=nohz,2-3", "", "", "2-3", "2-3", "", ""},
		{"amd64", "isolcpus=future,2-3", "2-3", "", "", "", "", "partial isolcpus=future,2-3"},
		{"amd64", "isolcpus=flag2,2-3", "", "", "", "", "isolcpus=flag2,2-3", "refused isolcpus=flag2,2-3"},
		{"amd64", "isolcpus=all", "", "", "", "", "isolcpus=all", "refused isolcpus=all"},
		{"amd64", "isolcpus=N quiet", "", "", "", "", "isolcpus=N", "refused isolcpus=N"},
		{"amd64", "isolcpus=domain 1-3", "1-3", "", "", "", "1-3", ""}, // the kernel steps over the end of the word
		{"amd64", "isolcpus=domain 1-3 quiet", "", "", "", "", "1-3 isolcpus=domain", "refused isolcpus=domain"},
		{"amd64", "isolcpus=4-15", "", "", "", "", "isolcpus=4-15", "refused isolcpus=4-15"},
		{"amd64", "isolcpus=", "", "", "", "", "isolcpus=", "ignored isolcpus="},
		{"amd64", "isolcpus", "", "", "", "", "isolcpus", ""},
		{"amd64", "isolcpus=1-3 isolcpus=1-4", "1-3", "", "", "", "isolcpus=1-4", "refused isolcpus=1-4"},
		{"amd64", "isolcpus=1-3 isolcpus=1,2,3", "1-3", "", "", "", "", "redundant isolcpus=1,2,3"},
		{"amd64", "isolcpus=1-3 isolcpus=managed_irq,4", "1-3", "4", "", "", "", ""},
		{"amd64", "nohz_full=1-3 isolcpus=4-5", "4-5", "", "1-3", "1-3", "", ""},
		{"amd64", "nohz_full=1-3 isolcpus=nohz,4-5", "", "", "1-3", "1-3", "isolcpus=nohz,4-5", "refused isolcpus=nohz,4-5"},
		{"amd64", "nohz_full=0-3", "", "", "1-3", "1-3", "", "partial nohz_full=0-3"},
		{"amd64", "nohz_full=0", "", "", "", "", "", "partial nohz_full=0"},
		{"amd64", "nohz_full=all", "", "", "1-7", "1-7", "", "partial nohz_full=all"},
		{"amd64", "nohz-full=6-N", "", "", "6-7", "6-7", "", ""},
		{"amd64", "nohz_full=1-3 rcu_nocbs=1-3", "", "", "1-3", "1-3", "", "redundant rcu_nocbs=1-3"},
		{"amd64", "nohz_full=1-3 rcu_nocbs=5", "", "", "1-3", "1-3,5", "", ""},
		{"amd64", "rcu_nocbs=1-2 rcu_nocbs=5", "", "", "", "5", "", "overridden rcu_nocbs=1-2"},
		{"amd64", "rcu_nocbs=1-12", "", "", "", "0-7", "", "partial rcu_nocbs=1-12"},
		{"amd64", "rcu_nocbs=all", "", "", "", "0-7", "", ""},
		{"amd64", "rcu_nocbs", "", "", "", "", "", ""},
		{"amd64", "rcu_nocb_poll", "", "", "", "", "", ""},
		{"amd64", "maxcpus=4 isolcpus=4-7", "4-7", "", "", "", "", ""},
		{"amd64", "maxcpus=4 isolcpus=0-3", "1-3", "", "", "", "", "partial isolcpus=0-3"},
		{"amd64", "maxcpus=2 maxcpus=4 isolcpus=0-2", "0-2", "", "", "", "", "overridden maxcpus=2"},
		{"amd64", "nr_cpus=6 nr_cpus=4 isolcpus=2-4", "", "", "", "", "isolcpus=2-4", "overridden nr_cpus=6; refused isolcpus=2-4"},
		{"amd64", "nr_cpus=4 nr_cpus=6 isolcpus=2-3", "2-3", "", "", "", "", "overridden nr_cpus=6"},
		{"amd64", "nr_cpus=x", "", "", "", "", "", "ignored nr_cpus=x"},
		{"amd64", "nosmp isolcpus=1-3", "", "", "", "", "isolcpus=1-3", "refused isolcpus=1-3"},
		{"arm64", "isolcpus=0-3", "1-3", "", "", "", "", "partial isolcpus=0-3"}, // only the boot CPU is present so early
		{"arm64", "isolcpus=0", "", "", "", "", "isolcpus=0", "ignored isolcpus=0; partial isolcpus=0"},
		{"arm64", "nohz_full=0-3", "", "", "1-3", "1-3", "", "partial nohz_full=0-3"},
	} {
		c := parse(t, tc.arch, tc.text, nil)
		e := c.Effects
		got := []string{*e.Isolated, *e.ManagedIRQ, *e.NohzFull, *e.RcuNocbs, strings.Join(c.UnknownParams, " "), problems(c, "isolation")}
		want := []string{tc.isolated, tc.managed, tc.nohz, tc.rcu, tc.unknown, tc.problems}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s %s: isolated, managed_irq, nohz_full, rcu_nocbs, unknown, problems (-want +got):\n%s", tc.arch, tc.text, d)
		}
	}
}

func TestIsolationNeedsTheHost(t *testing.T) {
	noCPUs := func(e *CmdlineEnv) { e.Possible, e.Present = nil, nil }
	e := parse(t, "amd64", "isolcpus=1-3 rcu_nocbs=5", noCPUs).Effects
	for field, v := range map[string]*string{"isolated": e.Isolated, "managed_irq": e.ManagedIRQ, "nohz_full": e.NohzFull, "rcu_nocbs": e.RcuNocbs} {
		if v != nil || e.Unknown[field] == "" {
			t.Errorf("%s is %v (reason %q) although the CPUs are not known", field, show(v), e.Unknown[field])
		}
	}
	e = parse(t, "amd64", "quiet", noCPUs).Effects
	if e.Isolated == nil || *e.Isolated != "" || e.RcuNocbs == nil || e.Unknown["isolated"] != "" {
		t.Errorf("no option needs no CPUs: %+v", e)
	}

	c := parse(t, "amd64", "nohz_full=1-3 rcu_nocbs=1", func(e *CmdlineEnv) { whole(e, "NO_HZ_FULL", "RCU_NOCB_CPU") })
	if *c.Effects.NohzFull != "" || *c.Effects.RcuNocbs != "" || problems(c, "isolation") != "ignored rcu_nocbs=1; refused nohz_full=1-3" {
		t.Errorf("a kernel without them: %+v, %s", c.Effects, problems(c, "isolation"))
	}
	if got := strings.Join(c.UnknownParams, " "); got != "nohz_full=1-3 rcu_nocbs=1" {
		t.Errorf("a kernel without them logs %q", got)
	}
	c = parse(t, "amd64", "nohz_full=1-3", func(e *CmdlineEnv) { e.Config = nil })
	if *c.Effects.NohzFull != "1-3" || len(c.Effects.Assumed) == 0 {
		t.Errorf("without a configuration: %v, assumed %q", *c.Effects.NohzFull, c.Effects.Assumed)
	}
	c = parse(t, "amd64", "", func(e *CmdlineEnv) { e.Config["CONFIG_RCU_NOCB_CPU_DEFAULT_ALL"] = "y" })
	if *c.Effects.RcuNocbs != "0-7" {
		t.Errorf("CONFIG_RCU_NOCB_CPU_DEFAULT_ALL: %q, want 0-7", *c.Effects.RcuNocbs)
	}
	c = parse(t, "amd64", "nohz_full=0-1", func(e *CmdlineEnv) { whole(e, "PM_SLEEP_SMP") })
	if *c.Effects.NohzFull != "0-1" {
		t.Errorf("a kernel that cannot sleep keeps the boot CPU in: %q", *c.Effects.NohzFull)
	}
}

func TestCmdlineIOMMU(t *testing.T) {
	amd := func(e *CmdlineEnv) { e.Vendor = "AuthenticAMD" }
	config := func(on string) func(*CmdlineEnv) {
		return func(e *CmdlineEnv) {
			delete(e.Config, "CONFIG_IOMMU_DEFAULT_DMA_LAZY")
			e.Config["CONFIG_"+on] = "y"
		}
	}
	for _, tc := range []struct {
		arch, text string
		change     func(*CmdlineEnv)
		deflt      string
		state      string // "on", "off", "" not known
		problems   string
	}{
		{"amd64", "", nil, "DMA-FQ", "", ""},
		{"amd64", "iommu=pt", nil, "identity", "", ""},
		{"amd64", "intel_iommu=on iommu=pt", nil, "identity", "on", ""},
		{"amd64", "iommu=pt iommu=nopt", nil, "DMA-FQ", "", "overridden iommu=pt"},
		{"amd64", "iommu=nopt iommu.passthrough=1", nil, "identity", "", "overridden iommu=nopt"},
		{"amd64", "iommu.passthrough=1 iommu=nopt", nil, "DMA-FQ", "", "overridden iommu.passthrough=1"},
		{"amd64", "iommu=pt iommu.passthrough=on", nil, "identity", "", "redundant iommu=pt"},
		{"amd64", "iommu=soft,pt", nil, "identity", "", ""},
		{"amd64", "iommu=ptx", nil, "identity", "", "partial iommu=ptx"},
		{"amd64", "iommu=on", nil, "DMA-FQ", "", "not-a-value iommu=on"},
		{"amd64", "iommu=usedac,pt", nil, "DMA-FQ", "", "ignored iommu=usedac,pt"},
		{"amd64", "iommu=forcesac", nil, "DMA-FQ", "", "ignored iommu=forcesac"},
		{"amd64", "iommu", nil, "DMA-FQ", "", "ignored iommu"},
		{"amd64", "iommu=off intel_iommu=on", nil, "DMA-FQ", "off", ""},
		{"amd64", "intel_iommu=off", nil, "DMA-FQ", "off", ""},
		{"amd64", "intel_iommu=off iommu=pt", nil, "identity", "off", "redundant iommu=pt"},
		{"amd64", "intel_iommu=off intel_iommu=on", nil, "DMA-FQ", "on", "overridden intel_iommu=on"},
		{"amd64", "intel_iommu=onoff,sm_on", nil, "DMA-FQ", "on", "partial intel_iommu=onoff,sm_on"},
		{"amd64", "intel_iommu=on,strict iommu.strict=0", nil, "DMA", "on", "partial intel_iommu=on,strict"},
		{"amd64", "intel_iommu=pt", nil, "DMA-FQ", "", "not-a-value intel_iommu=pt"},
		{"amd64", "iommu.strict=1", nil, "DMA", "", ""},
		{"amd64", "iommu.strict=1 iommu.strict=off", nil, "DMA-FQ", "", "overridden iommu.strict=1"},
		{"amd64", "iommu.passthrough=pt", nil, "DMA-FQ", "", "refused iommu.passthrough=pt"},
		{"amd64", "iommu-passthrough=1", nil, "DMA-FQ", "", ""}, // a dot is a dot
		{"amd64", "amd_iommu=on", amd, "DMA-FQ", "on", "not-a-value amd_iommu=on"},
		{"amd64", "amd_iommu=off", amd, "DMA-FQ", "off", ""},
		{"amd64", "amd_iommu=fullflush", amd, "DMA", "on", "partial amd_iommu=fullflush"},
		{"amd64", "intel_iommu=on iommu=pt", amd, "identity", "on", "redundant intel_iommu=on"},
		{"amd64", "amd_iommu=off", nil, "DMA-FQ", "", "redundant amd_iommu=off"},
		{"amd64", "", config("IOMMU_DEFAULT_PASSTHROUGH"), "identity", "", ""},
		{"amd64", "iommu=nopt", config("IOMMU_DEFAULT_PASSTHROUGH"), "DMA-FQ", "", ""},
		{"amd64", "", config("IOMMU_DEFAULT_DMA_STRICT"), "DMA", "", ""},
		{"amd64", "iommu.strict=0", config("IOMMU_DEFAULT_DMA_STRICT"), "DMA-FQ", "", ""},
		{"amd64", "", config("INTEL_IOMMU_DEFAULT_ON"), "", "on", ""},
		{"amd64", "", config("INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF"), "", "on", ""},
		{"amd64", "", config("INTEL_IOMMU_DEFAULT_OFF"), "", "off", ""},
		{"amd64", "", func(e *CmdlineEnv) { whole(e) }, "DMA-FQ", "off", ""},
		{"amd64", "", func(e *CmdlineEnv) { e.Config = nil }, "", "", ""},
		{"amd64", "iommu=pt", func(e *CmdlineEnv) { e.Config = nil }, "identity", "", ""},
		{"amd64", "iommu=nopt", func(e *CmdlineEnv) { e.Config = nil }, "", "", ""},
		{"amd64", "intel_iommu=on", func(e *CmdlineEnv) { whole(e, "INTEL_IOMMU") }, "DMA-FQ", "off", "ignored intel_iommu=on"},
		{"arm64", "iommu=pt", nil, "DMA-FQ", "", "ignored iommu=pt"},
		{"arm64", "iommu.passthrough=1", nil, "identity", "", ""},
		{"arm64", "iommu.strict=1 intel_iommu=on", nil, "DMA", "", "ignored intel_iommu=on"},
	} {
		c := parse(t, tc.arch, tc.text, tc.change)
		e := c.Effects.IOMMU
		state := ""
		if e.Enabled != nil {
			state = map[bool]string{true: "on", false: "off"}[*e.Enabled]
		}
		if e.Default != tc.deflt || state != tc.state {
			t.Errorf("%s %s: default %q, state %q; want %q, %q", tc.arch, tc.text, e.Default, state, tc.deflt, tc.state)
		}
		if got := problems(c, "iommu"); got != tc.problems {
			t.Errorf("%s %s: problems %q, want %q", tc.arch, tc.text, got, tc.problems)
		}
		asksOff := strings.Contains(tc.text, "iommu=off") && !strings.Contains(tc.text, "intel_iommu=on") || strings.HasPrefix(tc.text, "iommu=off")
		if tc.problems == "" && e.Disabled != asksOff {
			t.Errorf("%s %s: disabled is %t", tc.arch, tc.text, e.Disabled)
		}
		if (tc.problems != "") != (len(e.Notes) > 0) {
			t.Errorf("%s %s: notes %q", tc.arch, tc.text, e.Notes)
		}
	}
}

func TestCmdlinePCI(t *testing.T) {
	for _, tc := range []struct{ arch, text, acs, problems string }{
		{"amd64", "pci=realloc,noats", "", ""},
		{"amd64", "pci=nommconf,noaer", "", ""},
		{"arm64", "pci=nommconf,noaer", "", "not-a-value pci=nommconf,noaer"},
		{"arm64", "pci=pcie_bus_safe", "", ""},
		{"amd64", "pci=noaerx", "", "not-a-value pci=noaerx"},
		{"amd64", "pci=noatsx,reallocating", "", ""}, // prefixes
		{"amd64", "pci=disable_acs_redir=0000:01:00.0;0000:02:00.0", "disable_acs_redir=0000:01:00.0;0000:02:00.0", ""},
		{"amd64", "pci=disable_acs_redir=0000:01:00.0,0000:02:00.0", "disable_acs_redir=0000:01:00.0", "not-a-value pci=disable_acs_redir=0000:01:00.0,0000:02:00.0"},
		{"amd64", "pci=disable_acs_redir=a pci=disable_acs_redir=b", "disable_acs_redir=b", "overridden pci=disable_acs_redir=a"},
		{"amd64", "pci=config_acs=xx1@a pci=disable_acs_redir=b", "disable_acs_redir=b config_acs=xx1@a", ""},
		{"amd64", "pci=config_acs=a", "config_acs=a", "refused pci=config_acs=a"},
		{"amd64", "pci=config_acs=12@a", "config_acs=12@a", "refused pci=config_acs=12@a"},
		{"amd64", "pci=config_acs=xxx0000000@a", "config_acs=xxx0000000@a", ""},
		{"amd64", "pci=config_acs=10000000@a", "config_acs=10000000@a", "refused pci=config_acs=10000000@a"},
	} {
		c := parse(t, tc.arch, tc.text, nil)
		if *c.Effects.ACS != tc.acs {
			t.Errorf("%s: ACS %q, want %q", tc.text, *c.Effects.ACS, tc.acs)
		}
		if got := problems(c, "pci"); got != tc.problems {
			t.Errorf("%s: problems %q, want %q", tc.text, got, tc.problems)
		}
	}
}

func TestUnknownParams(t *testing.T) {
	old := func(e *CmdlineEnv) { e.Release = "6.8.0-45-generic" }
	for _, tc := range []struct {
		arch, text string
		change     func(*CmdlineEnv)
		want       string
	}{
		{"amd64", "quiet root=/dev/vda1 ro console=ttyS0", nil, ""},
		{"amd64", "foo=1 bar", nil, "bar foo=1"}, // words first, as the kernel logs them
		{"amd64", "foo=1 other=2 foo=3", nil, "foo=3 other=2"},
		{"amd64", "foo.bar=1 rd.shell systemd.unit=x", nil, ""}, // a dot: for a module
		{"amd64", `foo="a b"`, nil, "foo=a b"},
		{"amd64", "HOME=/root TERM=vt100 x=1", nil, "x=1"},
		{"amd64", "before init=/bin/sh after", nil, "after"},
		{"amd64", "foo -- bar baz=1", nil, "foo"},
		{"amd64", "BOOT_IMAGE=/vmlinuz kexec", nil, ""},
		{"amd64", "BOOT_IMAGE=/vmlinuz", old, "BOOT_IMAGE=/vmlinuz"},
		{"amd64", "BOOT_IMAGE=/vmlinuz", func(e *CmdlineEnv) { e.Release = "6.18.0" }, ""},
		{"amd64", "BOOT_IMAGE=/vmlinuz", func(e *CmdlineEnv) { e.Release = "6.12.53" }, "BOOT_IMAGE=/vmlinuz"},
		{"amd64", "rocket rw ro rwx", nil, "rocket rwx"},
		{"amd64", "iommu=pt kpti=off", nil, "kpti=off"},
		{"arm64", "iommu=pt kpti=off", nil, "iommu=pt"},
		{"amd64", "isolcpus=4-15 hugepages=x iommu.strict=maybe", nil, "isolcpus=4-15"}, // the last two are refused without a word there
		{"amd64", "transparent_hugepage=Never transparent_hugepage=madvise", nil, "transparent_hugepage=Never"},
		{"amd64", "nohz=maybe psi=1 highres=x", nil, "nohz=maybe highres=x"},
		{"amd64", "print_fatal_signals=1 print-fatal-signals=1", nil, ""},
		{"amd64", "hung_task_panic=1", nil, ""}, // a sysctl by another name
		{"amd64", "pcie_acs_override=downstream", nil, "pcie_acs_override=downstream"},
		{"amd64", "apparmor=1", func(e *CmdlineEnv) { whole(e) }, "apparmor=1"},
		{"amd64", "apparmor=1", func(e *CmdlineEnv) { whole(e); e.Config["CONFIG_SECURITY_APPARMOR"] = "y" }, ""},
		{"amd64", "apparmor=1", func(e *CmdlineEnv) { e.Config = nil }, ""}, // not known: taken to be built in
		{"amd64", "=x", nil, "=x"},
	} {
		c := parse(t, tc.arch, tc.text, tc.change)
		if got := strings.Join(c.UnknownParams, " "); got != tc.want || c.UnknownParams == nil {
			t.Errorf("%s %s: %q, want %q", tc.arch, tc.text, got, tc.want)
		}
	}
	for _, arch := range []string{"", "ppc64le"} {
		if c := parse(t, arch, "foo=1", nil); c.UnknownParams != nil || c.Unknown["unknown_params"] == "" {
			t.Errorf("architecture %q: %v, reason %q", arch, c.UnknownParams, c.Unknown["unknown_params"])
		}
	}
}

func TestKnownParams(t *testing.T) {
	known := KnownParams()
	for _, name := range []string{"isolcpus", "hugepages", "iommu", "intel_iommu", "amd_iommu", "nr_cpus", "quiet", "ro", "kpti", "console", "transparent_hugepage"} {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not known", name)
		}
	}
	if len(known) < 500 || !slices.IsSorted(known) {
		t.Errorf("%d names, sorted: %t", len(known), slices.IsSorted(known))
	}
}

func TestCmdlineLimits(t *testing.T) {
	many := func(n int, format string) string {
		var l []string
		for i := range n {
			l = append(l, fmt.Sprintf(format, i))
		}
		return strings.Join(l, " ")
	}
	long := func(n int) string { return "quiet " + strings.Repeat("x", n-6) }
	for _, tc := range []struct{ name, arch, text, want string }{
		{"31 options", "amd64", many(31, "site%d=1"), ""},
		{"32 options", "amd64", many(32, "site%d=1"), "fatal "},
		{"32 of one name", "amd64", strings.Repeat("site=1 ", 32), ""},
		{"32 words", "amd64", many(32, "site%d"), ""},
		{"33 words", "amd64", many(33, "site%d"), "fatal "},
		{"32 words for init", "amd64", "-- " + many(32, "%d"), ""},
		{"33 words for init", "amd64", "-- " + many(33, "%d"), "fatal "},
		{"words on both sides", "amd64", many(10, "site%d") + " -- " + many(23, "%d"), "fatal "},
		{"short", "amd64", long(1800), ""},
		{"long", "amd64", long(2040), "partial "},
		{"cut", "amd64", long(2047), "fatal "},
		{"cut, arm64", "arm64", long(2047), "fatal "},
		{"long, s390x", "s390x", long(2047), ""},
	} {
		if got := problems(parse(t, tc.arch, tc.text, nil), ""); got != tc.want {
			t.Errorf("%s: problems %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestRepeatedScalars(t *testing.T) {
	for text, want := range map[string]string{
		"root=/dev/a root=/dev/b":                             "overridden root=/dev/a",
		"panic=1 panic=1":                                     "redundant panic=1",
		"mitigations=off mitigations=auto":                    "overridden mitigations=off",
		"console=tty0 console=ttyS0":                          "",
		"hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=1": "",
		"psi=maybe": "refused psi=maybe",
	} {
		if got := problems(parse(t, "amd64", text, nil), ""); got != want {
			t.Errorf("%s: problems %q, want %q", text, got, want)
		}
	}
}

func TestBootconfig(t *testing.T) {
	bc := "kernel.iommu = \"pt\"\nkernel.console = \"tty0\", \"ttyS0\"\nkernel.nr_cpus = \"4\"\nkernel.isolcpus = \"1-3\"\ninit.x = \"1\"\n" +
		"# Parameters from bootloader:\n# quiet bootconfig\n"
	text := `iommu="pt" console="tty0" console="ttyS0" nr_cpus="4" isolcpus="1-3" quiet bootconfig -- x`
	c := parse(t, "amd64", text, func(e *CmdlineEnv) { e.Bootconfig = &bc })
	if *c.Effects.Isolated != "1-3" || c.Effects.IOMMU.Default != "DMA-FQ" {
		t.Errorf("isolcpus is in time, iommu is too late: isolated %q, default %s", *c.Effects.Isolated, c.Effects.IOMMU.Default)
	}
	var from []string
	for _, tok := range c.Tokens {
		if tok.Source == "bootconfig" {
			from = append(from, tok.Name)
		}
	}
	if d := cmp.Diff([]string{"iommu", "console", "console", "nr_cpus", "isolcpus"}, from); d != "" {
		t.Error(d)
	}
	if got := problems(c, "iommu") + "|" + problems(c, ""); got != `ignored iommu="pt"|ignored nr_cpus="4"` {
		t.Errorf("problems %q", got)
	}
	if d := cmp.Diff([]string{"x"}, c.InitArgs); d != "" {
		t.Error(d)
	}
	other := "kernel.foo = \"1\"\n"
	if c := parse(t, "amd64", text, func(e *CmdlineEnv) { e.Bootconfig = &other }); c.Tokens[0].Source != "" || c.Effects.IOMMU.Default != "identity" {
		t.Error("a bootconfig of another boot marks nothing")
	}
}

func TestBuiltinText(t *testing.T) {
	c := parse(t, "amd64", "quiet", func(e *CmdlineEnv) {
		e.Config["CONFIG_CMDLINE"], e.Config["CONFIG_CMDLINE_OVERRIDE"] = "quiet", "y"
	})
	if c.Builtin == nil || *c.Builtin != "quiet" || problems(c, "") != "ignored " {
		t.Errorf("built in: %v, problems %q", show(c.Builtin), problems(c, ""))
	}
}

func TestDecodeCmdline(t *testing.T) {
	f := base(t, "rdma-intel")
	c := f.Cmdline()
	if got := requests(c.Effects.Hugepages); got != "1G@0=32 1G@1=32" {
		t.Errorf("hugepages %s", got)
	}
	if c.Effects.IOMMU.Default != "identity" || !strings.HasPrefix(*c.Effects.ACS, "config_acs=xx000x0@0000:17:00.0;") || len(c.Problems) != 0 || len(c.Unknown) != 0 {
		t.Errorf("%+v", c)
	}
	if again := ParseCmdline(*c.Text, f.CmdlineEnv()); cmp.Diff(c, again) != "" {
		t.Error("the facts are not what the text and the host give")
	}
	c = treeOf(t, "-- proc/cmdline [errno EACCES] --\n").Cmdline()
	if c.Text != nil || !strings.Contains(c.Unknown["text"], "EACCES") && !strings.Contains(c.Unknown["text"], "permission denied") ||
		c.Effects.Hugepages != nil || c.Effects.Unknown["hugepages"] == "" || c.Effects.Unknown["isolated"] == "" {
		t.Errorf("unreadable: %+v", c)
	}
}

func FuzzParseCmdline(f *testing.F) {
	for _, text := range []string{
		"", "quiet", `a="b c" "d e=f" -- "g`, "hugepagesz=1G hugepages=0:1,1:1 default_hugepagesz=2M hugepages=5abc hugetlb_cma=1:2G", "isolcpus=managed_irq,1-3:1/2 nohz_full=all",
		"isolcpus=domain 1-3", "iommu=pt,on intel_iommu=on,strict pci=config_acs=1@a;b,c", "rcu_nocbs nr_cpus=-1 maxcpus=99999999999", "=", "\"", "a=\"\" b\xa0c \xc3\xa0=\xff",
		"isolcpus=\xe4,1-3", "hugepages=18446744073709551615 hugepages=0:18446744073709551615",
	} {
		for _, arch := range []string{"amd64", "arm64", ""} {
			f.Add(text, arch, "kernel.a = \"1\"\n")
		}
	}
	f.Fuzz(func(t *testing.T, text, arch, bootconfig string) {
		env := testEnv(arch)
		env.Bootconfig = &bootconfig
		c := ParseCmdline(text, env)

		ws, init := splitCmdline(text)
		if len(c.Tokens) != len(ws) || len(c.InitArgs) != len(init) {
			t.Fatalf("%d tokens and %d for init of %d and %d words", len(c.Tokens), len(c.InitArgs), len(ws), len(init))
		}
		// The raw words in order are the text without the white space between them.
		rest, _, _ := strings.Cut(text, "\x00")
		for _, w := range ws {
			rest = skipSpaces(rest)
			if !strings.HasPrefix(rest, w.raw) {
				t.Fatalf("%q does not follow in %q", w.raw, rest)
			}
			rest = rest[len(w.raw):]
		}
		if len(init) == 0 && strings.Trim(strings.ReplaceAll(rest, "\xa0", ""), "\"- \t\n\v\f\r") != "" {
			t.Fatalf("%q is in no word", rest)
		}
		for _, r := range c.Effects.Hugepages {
			if r.Count <= 0 || r.SizeKB <= 0 || r.Node < -1 || r.Node > 1 {
				t.Fatalf("request %+v", r)
			}
		}
		for _, list := range []*string{c.Effects.Isolated, c.Effects.ManagedIRQ, c.Effects.NohzFull, c.Effects.RcuNocbs} {
			if list == nil {
				continue
			}
			set, err := ParseCPUSet(*list)
			if err != nil || set.Minus(*env.Possible).Len() > 0 {
				t.Fatalf("%q is no list of the host's CPUs (%v)", *list, err)
			}
		}
		for _, p := range c.Problems {
			if p.Why == "" || p.Kind == "" {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}

func TestWhatIsNoCommandLine(t *testing.T) {
	for text, want := range map[string]string{
		"quiet a=\"b\tc\"\n":                     "",
		"b\xa0c \xc3\xa0 ü\n":                    "",
		"":                                       "",
		"quiet\x00iommu=off":                     "/proc/cmdline: not text: control character 0x00 at offset 5",
		"quiet \x7f":                             "/proc/cmdline: not text: control character 0x7f at offset 6",
		"a\xff":                                  "/proc/cmdline: not text: byte 0xff at offset 1",
		strings.Repeat("x ", maxCmdline/2) + "y": "/proc/cmdline: 40961 bytes, more than any kernel keeps (40960)",
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "proc", "cmdline"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := New(h).Cmdline()
		if c.Unknown["text"] != want || (c.Text == nil) != (want != "") || c.Effects.Unknown["iommu"] != want {
			t.Errorf("%.40q: text %v, unknown %q, want %q", text, c.Text, c.Unknown["text"], want)
		}
		h.Close()
	}
}
