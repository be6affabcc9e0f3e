// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

var update = flag.Bool("update", false, "rewrite the examples in docs/facts")

const docsDir = "../../docs/facts/"

// docExample is the example on a page of docs/facts: of which host, and what
// of the area.
type docExample struct {
	doc, host string
	entry     func(*Facts) any
}

var docExamples = []docExample{
	{"kernel", "hosts/vm-plain", func(f *Facts) any { return f.Kernel() }},
	{"cmdline", "hosts/rdma-intel", func(f *Facts) any {
		return ParseCmdline("ro iommu=pt isolcpus=2-3 hugepagesz=1G hugepages=0:8 hugepages=4", f.CmdlineEnv())
	}},
	{"boot", "checks/cmdline.next_boot/warn-live", func(f *Facts) any { return f.Boot() }},
	{"hugepages", "hosts/vm-plain", func(f *Facts) any { return f.Hugepages() }},
	{"cpus", "checks/cmdline.isolation/pass", func(f *Facts) any { return f.CPUs() }},
	{"numa", "hosts/rdma-intel", func(f *Facts) any { return f.NUMA() }},
	{"modules", "hosts/rdma-intel", func(f *Facts) any {
		m := *f.Modules()
		m.Loaded = slices.DeleteFunc(slices.Clone(m.Loaded), func(m Module) bool { return m.Name != "mlx5_core" && m.Name != "nvidia" })
		return &m
	}},
	{"iommu", "hosts/rdma-intel", func(f *Facts) any {
		i := *f.IOMMU()
		i.Groups = []IOMMUGroup{*i.Group("0000:18:00.0")}
		return &i
	}},
	{"pci", "hosts/rdma-intel", func(f *Facts) any { return f.PCIAll().At("0000:18:00.0") }},
	{"acs", "hosts/rdma-intel", func(f *Facts) any {
		list := f.ACS().List
		return list[slices.IndexFunc(list, func(p ACSPort) bool { return p.BDF == "0000:15:01.0" })]
	}},
	{"nics", "hosts/rdma-intel", func(f *Facts) any { return f.NICsAll().Named("ens1np0") }},
	{"rdma", "hosts/rdma-intel", func(f *Facts) any { return f.RDMA().Devices[0] }},
	{"sysctl", "checks/sysctl.persistence/fail", func(f *Facts) any {
		c := *f.Sysctl()
		c.Keys = slices.DeleteFunc(slices.Clone(c.Keys), func(k SysctlKey) bool { return k.Name != "net.core.rmem_max" })
		return &c
	}},
	{"vxlan", "checks/vxlan.steering/pass", func(f *Facts) any {
		v := *f.VXLAN()
		v.Devices, v.NICs = v.Devices[:1], v.NICs[:1]
		return &v
	}},
	{"counters", "checks/mana.datapath/pass", func(f *Facts) any {
		return f.Counters(context.Background(), FactsInterval).Of("ethtool eth0")
	}},
	{"rxfrag", "checks/rxfrag.pools/warn", func(f *Facts) any { return f.RXTraffic(context.Background(), FactsInterval) }},
	{"memlock", "checks/rdma.memlock/pass", func(f *Facts) any { return f.Memlock() }},
	{"owners", "owners/tuned", func(f *Facts) any { return f.Owners()[0] }},
	{"aer", "checks/pcie.errors/fail", func(f *Facts) any { return f.AER().Of("0000:18:00.0") }},
	{"sriov", "checks/sriov.persistence/fail-second", func(f *Facts) any { return f.SRIOVOf("0000:9a:00.0") }},
	{"irq", "checks/irq.local/fail-irqbalance", func(f *Facts) any {
		i := *f.IRQs()
		d := *i.Of("0000:18:00.0")
		d.IRQs = d.IRQs[3:]
		i.Devices, i.Steering = []*IRQDevice{&d}, []*Steering{i.Named("ens1np0")}
		return &i
	}},
	{"topology", "hosts/rdma-intel", func(f *Facts) any {
		t := *f.Topology()
		t.Devices = slices.DeleteFunc(slices.Clone(t.Devices), func(d Placed) bool { return d.BDF != "0000:18:00.0" })
		return &t
	}},
	{"kubelet", "checks/kubelet.hugepages/pass", func(f *Facts) any { return f.Kubelet() }},
	{"migration", "checks/migration.engine/pass", func(f *Facts) any { return f.Migration() }},
	{"system", "checks/system.governor/warn", func(f *Facts) any { return f.System() }},
	{"dcb", "checks/dcqcn.params/pass", func(f *Facts) any { return f.DCB().Of("ens1np0") }},
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(docsDir + name + ".md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The examples in docs/facts are what hostcheck really writes.
func TestDocsExamples(t *testing.T) {
	for _, tt := range docExamples {
		t.Run(tt.doc, func(t *testing.T) {
			doc := readDoc(t, tt.doc)
			head, example, ok := strings.Cut(doc, "```json\n")
			example, tail, end := strings.Cut(example, "\n```")
			if !ok || !end {
				t.Fatal("no example")
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(tt.entry(New(fixture.Load(t, "../../testdata/"+tt.host+".txtar").Host(t)))); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(b.String())
			if *update {
				if err := os.WriteFile(docsDir+tt.doc+".md", []byte(head+"```json\n"+want+"\n```"+tail), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, example); d != "" {
				t.Errorf("the example is not what hostcheck writes (-it writes +example):\n%s", d)
			}
		})
	}
}

// Every area has a page, and every field of it stands in the page's table.
func TestDocsFields(t *testing.T) {
	index := readDoc(t, "README")
	for _, a := range Areas {
		at := slices.IndexFunc(docExamples, func(e docExample) bool { return e.doc == a.Name })
		if at < 0 {
			t.Errorf("%s has no example", a.Name)
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			if !strings.Contains(index, "| ["+a.Name+"]("+a.Name+".md) |") {
				t.Error("docs/facts/README.md does not list it")
			}
			e := docExamples[at]
			fields := map[string]bool{}
			jsonFields(reflect.TypeOf(e.entry(New(fixture.Load(t, "../../testdata/"+e.host+".txtar").Host(t)))), fields)
			documented := tableFields(readDoc(t, a.Name))
			for f := range fields {
				if !documented[f] && f != "unknown" {
					t.Errorf("the table does not have the field %s", f)
				}
			}
			for f := range documented {
				if !fields[f] {
					t.Errorf("the table has %s, which is no field", f)
				}
			}
		})
	}
}

// jsonFields collects the names of the JSON keys of a type and of all below.
func jsonFields(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		jsonFields(t.Elem(), into)
	case reflect.Struct:
		for f := range t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && f.IsExported() {
				into[name] = true
				jsonFields(f.Type, into)
			}
		}
	default:
	}
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// tableFields gives the names in the first column of a page's table, in the
// manner of "`ports[].state`, `rate`": ports, state and rate.
func tableFields(doc string) map[string]bool {
	fields := map[string]bool{}
	for line := range strings.Lines(doc) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
			for part := range strings.SplitSeq(m[1], ".") {
				fields[strings.TrimSuffix(part, "[]")] = true
			}
		}
	}
	return fields
}
