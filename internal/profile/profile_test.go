// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hostcheck/hostcheck/internal/facts"
)

func ptr[T any](v T) *T { return &v }

func chosen(p Platform) Platform {
	p.choose(func(string) int { return 0 })
	return p
}

func cx7(bdf string, mbps int) Function {
	return Function{BDF: bdf, ID: "15b3:1021", Class: "020000", Driver: "mlx5_core", Speed: mbps}
}

func gpu(bdf, driver string) Function {
	return Function{BDF: bdf, ID: "10de:2330", Class: "030200", Driver: driver}
}

func intelHost() Platform {
	return chosen(Platform{Arch: "amd64", CPU: "intel", PageSize: 4096, Release: "6.12.107+deb13-amd64", Hypervisor: ptr(""),
		Functions: []Function{cx7("0000:1a:00.0", 400000), gpu("0000:1b:00.0", "nvidia")}})
}

func amdHost() Platform {
	p := intelHost()
	p.CPU, p.Functions[0].Speed = "amd", 0
	return chosen(p)
}

func mana() []Function {
	return []Function{{BDF: "7870:00:00.0", ID: "1414:00ba", Class: "020000", Driver: "mana"}}
}

func azureX86() Platform {
	return chosen(Platform{Arch: "amd64", CPU: "amd", PageSize: 4096, Release: "6.18.4-azure", Hypervisor: ptr("hyperv"), Cloud: "azure", Functions: mana()})
}

func azureArm() Platform {
	return chosen(Platform{Arch: "arm64", CPU: "arm", PageSize: 65536, Release: "6.14.0-1012-azure", Hypervisor: ptr("hyperv"), Cloud: "azure", Functions: mana()})
}

func grace() Platform {
	return chosen(Platform{Arch: "arm64", CPU: "arm", PageSize: 65536, Release: "6.14.0-1007-nvidia-64k", Hypervisor: ptr(""),
		Functions: []Function{{BDF: "0000:01:00.0", ID: "15b3:1023", Class: "020700", Driver: "mlx5_core"},
			{BDF: "0009:03:00.0", ID: "15b3:2100", Class: "080100", Driver: "mlx5_core"}, gpu("0009:06:00.0", "nvidia")}})
}

func load(t *testing.T, o LoadOptions) (*Profile, []Warning) {
	t.Helper()
	p, w, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return p, w
}

func file1(texts ...string) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		for i, text := range texts {
			if path == fmt.Sprintf("./%d.yaml", i+1) {
				return []byte(text), nil
			}
		}
		return nil, fs.ErrNotExist
	}
}

func render(p *Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "layers: %s\nintent: %s (%s: %s)\nrequire: %s\n", strings.Join(p.Layers, ", "), p.Intent, p.IntentSource, p.IntentWhy, strings.Join(p.Require, " "))
	for _, r := range p.Rows() {
		mark := "  "
		if !r.Applied {
			mark = "- "
		}
		fmt.Fprintf(&b, "%s%s = %s  [%s]", mark, r.Key, r.Value, r.Origin)
		if r.Why != "" {
			fmt.Fprintf(&b, "  (%s)", r.Why)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestGoldenProfiles(t *testing.T) {
	hosts := map[string]Platform{"intel": intelHost(), "amd": amdHost(), "azure-x86-4k": azureX86(), "azure-arm64-64k": azureArm(), "grace": grace()}
	for name, host := range hosts {
		for _, role := range append([]string{""}, "vxlan-overlay", "page-migration", "k8s-gpu") {
			file := name
			var names []string
			if role != "" {
				file, names = name+"+"+role, []string{role}
			}
			if role != "" && name != "intel" && name != "azure-arm64-64k" {
				continue
			}
			t.Run(file, func(t *testing.T) {
				p, _ := load(t, LoadOptions{Platform: host, Names: names})
				golden(t, filepath.Join("..", "..", "testdata", "profiles", "golden", file+".txt"), render(p))
			})
		}
	}
}

// What the issue promises of each platform, said apart from the golden texts.
func TestEmbeddedPromises(t *testing.T) {
	tokens := func(rs []TokenRule) (s []string) {
		for _, r := range rs {
			s = append(s, r.Token)
		}
		return s
	}
	for _, tc := range []struct {
		name      string
		host      Platform
		layers    []string
		intent    string
		require   []string
		forbid    []string
		notForbid []string
	}{
		{"intel", intelHost(), []string{"base", "intel", "mlx5", "rdma-400g"}, "baremetal-gpudirect", []string{"iommu=pt"}, []string{"amd_iommu=on", "iommu=on", "pcie_acs_override"}, []string{"intel_iommu=on"}},
		{"amd", amdHost(), []string{"base", "amd", "mlx5", "rdma-400g"}, "baremetal-gpudirect", []string{"iommu=pt"}, []string{"amd_iommu=on", "intel_iommu=on"}, nil},
		{"azure x86", azureX86(), []string{"base", "amd", "azure", "mana", "azure-mana"}, "guest", nil, []string{"numa=off", "swiotlb=force"}, []string{"hugepagesz=1G"}},
		{"azure arm64", azureArm(), []string{"base", "arm64", "arm64-64k", "azure", "mana", "azure-mana"}, "guest", nil, []string{"hugepagesz=1G", "iommu=pt"}, []string{"iommu=on", "swiotlb=force"}},
		{"grace", grace(), []string{"base", "arm64", "arm64-64k", "grace", "mlx5", "rdma-400g"}, "grace-direct-nic", nil, []string{"iommu.passthrough=1"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, _ := load(t, LoadOptions{Platform: tc.host})
			if !slices.Equal(p.Layers, tc.layers) {
				t.Errorf("layers are %v, want %v", p.Layers, tc.layers)
			}
			if p.Intent != tc.intent || p.IntentSource != Assumed || p.IntentWhy == "" {
				t.Errorf("intent is %q (%s: %s), want %q assumed, with a reason", p.Intent, p.IntentSource, p.IntentWhy, tc.intent)
			}
			if got := tokens(p.Cmdline.Require); !slices.Equal(got, tc.require) {
				t.Errorf("required tokens are %v, want %v", got, tc.require)
			}
			got := tokens(p.Cmdline.Forbid)
			for _, want := range tc.forbid {
				if !slices.Contains(got, want) {
					t.Errorf("%s is not forbidden; forbidden are %v", want, got)
				}
			}
			for _, not := range tc.notForbid {
				if slices.Contains(got, not) {
					t.Errorf("%s is forbidden", not)
				}
			}
		})
	}
	// SR-IOV tenants need the IOMMU on; a stated intent is no assumption.
	p, _ := load(t, LoadOptions{Platform: intelHost(), Intent: "sriov-tenant"})
	if p.IOMMU.State.V != "on" || p.IOMMU.State.Origin.Assumed || !slices.Contains(tokens(p.Cmdline.Require), "intel_iommu=on") {
		t.Errorf("sriov-tenant on Intel: %+v, %v", p.IOMMU.State, tokens(p.Cmdline.Require))
	}
	p, _ = load(t, LoadOptions{Platform: amdHost(), Intent: "sriov-tenant"})
	if p.IOMMU.State.V != "on" || !slices.Equal(tokens(p.Cmdline.Require), []string{"iommu=pt"}) {
		t.Errorf("sriov-tenant on AMD: %+v, %v", p.IOMMU.State, tokens(p.Cmdline.Require))
	}
	// An assumed intent marks what depends on it.
	p, _ = load(t, LoadOptions{Platform: grace()})
	if !p.IOMMU.State.Origin.Assumed || !slices.Equal(p.IOMMU.DomainTypes.V, []string{"DMA", "DMA-FQ"}) {
		t.Errorf("grace: %+v", p.IOMMU)
	}
}

func TestEmbeddedAreSound(t *testing.T) {
	entries, err := embeddedFS.ReadDir("embedded")
	if err != nil || len(entries) != len(order) {
		t.Fatalf("%d embedded files, %d in the order: %v", len(entries), len(order), err)
	}
	rank := []string{"base", "platform", "device", "role"}
	last := 0
	for _, name := range order {
		data, err := Text(name)
		if err != nil {
			t.Fatal(err)
		}
		if ps := Lint(data, name+".yaml"); len(ps) > 0 {
			t.Errorf("%v", Problems(ps))
		}
		f := embeddedFile(name)
		if f == nil || f.Name != name || f.Title == "" || f.Source != "" || f.Intent != "" || len(f.Roles) != 0 {
			t.Errorf("%s: an embedded layer has its own name, a title, a source per value, and states no intent", name)
			continue
		}
		if r := slices.Index(rank, f.Layer); r < last {
			t.Errorf("%s: layer %q stands out of order", name, f.Layer)
		} else {
			last = r
		}
		sources(t, name, reflect.ValueOf(&f.Values).Elem())
	}
}

// encodeLayers makes what decodedLayers takes, without what is zero: most of a
// layer is.
func encodeLayers(t *testing.T, l decodedText) []byte {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if b, err = json.MarshalIndent(set(doc), "", " "); err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// set is what is not zero in a JSON value; nil where nothing is.
func set(v any) any {
	switch v := v.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(k string, _ any) bool {
			if k == "Virtual" { // a pointer: no is an answer
				return v[k] == nil
			}
			v[k] = set(v[k])
			return v[k] == nil
		})
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = set(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case json.Number:
		if v == "0" {
			return nil
		}
	}
	return v
}

// The result of decoding that comes with the program is that of its text.
func TestDecodedLayers(t *testing.T) {
	want, problems := parseLayers()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	data := encodeLayers(t, decodedText{textHash(), want})
	if *update {
		if err := os.WriteFile("embedded/layers.json", data, 0o644); err != nil {
			t.Fatal(err)
		}
		decoded = data
	}
	got := decodedLayers(decoded)
	if got == nil {
		t.Fatal("embedded/layers.json is of another text: the program works, but decodes the text at each start; make golden writes it")
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("embedded/layers.json does not hold what the text says")
	}
	for name, data := range map[string][]byte{"nothing": nil, "cut short": data[:len(data)/2], "of another text": encodeLayers(t, decodedText{Files: want})} {
		if fs := decodedLayers(data); fs != nil {
			t.Errorf("%s: %d layers", name, len(fs))
		}
	}
}

// sources asserts that every value and rule names its source.
func sources(t *testing.T, key string, v reflect.Value) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case value:
		if x.isSet() && (x.origin().Source == "" || x.origin().Line == 0 || x.origin().Layer == "") {
			t.Errorf("%s: no source, line or layer: %+v", key, x.origin())
		}
		return
	case rule:
		if !x.dropped() && (x.origin().Source == "" || x.origin().Line == 0) {
			t.Errorf("%s.%s: no source or line", key, x.ruleID())
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fields(v.Type()) {
			sources(t, key+"."+f.key, v.FieldByIndex(f.index))
		}
	case reflect.Slice:
		for i := range v.Len() {
			sources(t, key, v.Index(i))
		}
	default:
	}
}

func TestLayersLieOverEachOther(t *testing.T) {
	site := head + `
source: site handbook
inventory: {gpus: 8, rails: {value: 8, source: bill of materials}}
hugepages: {node_percent_max: 70}
cmdline:
  forbid:
    - {id: pcie_acs_override, drop: true}
    - {id: isolcpus, token: isolcpus}
nics:
  - {id: rdma, match: {name: "en*"}, speed_mbps: 200000}
require: ["hugepages.*", "link.*"]
`
	over := head + "inventory: {gpus: 4}\nintent: sriov-tenant\n"
	p, ws := load(t, LoadOptions{Platform: intelHost(), Names: []string{"./1.yaml"}, ReadFile: file1(over),
		ReadSite: func(path string) ([]byte, error) { return []byte(site), nil },
		Set:      []string{"inventory.rails=2", "nics.roce.mtu_min=9000", "hugepages.pools.2M.per_node=16", "hugepages.default_size=2M"}})
	if len(ws) != 0 {
		t.Errorf("warnings: %v", ws)
	}
	if want := []string{"base", "intel", "mlx5", "rdma-400g", SitePath, "./1.yaml", "--set"}; !slices.Equal(p.Layers, want) {
		t.Errorf("layers are %v, want %v", p.Layers, want)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	check("gpus", p.Inventory.GPUs.V, 4)
	check("gpus from", p.Inventory.GPUs.Origin.String(), "./1.yaml")
	check("rails", p.Inventory.Rails.V, 2)
	check("rails from", p.Inventory.Rails.Origin.String(), "--set")
	check("node_percent_max", p.Hugepages.NodePercentMax.V, 70)
	check("node_percent_max from", p.Hugepages.NodePercentMax.Origin.String(), SitePath+": site handbook")
	check("pools", p.Hugepages.Pools[0].Size+" "+fmt.Sprint(p.Hugepages.Pools[0].PerNode.V), "2M 16")
	check("intent", p.Intent+" "+p.IntentSource, "sriov-tenant stated")
	check("require", p.Require, []string{"cmdline.forbidden", "cmdline.ineffective", "cmdline.*", "iommu.*", "driver.*", "link.*", "rdma.*", "hugepages.*"})
	var forbidden []string
	for _, r := range p.Cmdline.Forbid {
		forbidden = append(forbidden, r.ID)
	}
	if slices.Contains(forbidden, "pcie_acs_override") || !slices.Contains(forbidden, "isolcpus") {
		t.Errorf("forbidden are %v", forbidden)
	}
	var nics []string
	for _, r := range p.NICs {
		nics = append(nics, r.ID)
		if r.ID == "roce" && (r.MTUMin.V != 9000 || r.MTUMin.Origin.Layer != "--set") {
			t.Errorf("roce: %+v", r.MTUMin)
		}
	}
	check("nics", nics, []string{"mlx5", "rdma-mlx5", "rdma-bnxt", "roce", "rdma"})
	rows := map[string][]Row{}
	for _, r := range p.Rows() {
		rows[r.Key] = append(rows[r.Key], r)
	}
	g := rows["inventory.gpus"]
	if len(g) != 2 || g[0].Applied || g[0].Why != "replaced by ./1.yaml" || g[0].Value != "8" || !g[1].Applied {
		t.Errorf("rows of inventory.gpus: %+v", g)
	}
	if r := rows["cmdline.forbid.pcie_acs_override"]; len(r) != 2 || r[0].Why != "dropped by "+SitePath {
		t.Errorf("rows of the dropped rule: %+v", r)
	}
	if r := rows["nics.rdma.carrier"]; len(r) != 1 || r[0].Applied || r[0].Why != "replaced by "+SitePath {
		t.Errorf("rows of a replaced rule's value: %+v", r)
	}
	// The embedded layers are shared: nothing above may have changed them.
	again, _ := load(t, LoadOptions{Platform: intelHost()})
	if again.Hugepages.NodePercentMax.V != 60 || len(again.NICs) != 5 || again.Hash == p.Hash {
		t.Error("a load changed what another one sees")
	}
}

func TestNamedLayerComesLast(t *testing.T) {
	site := head + "hugepages: {overcommit: true}\n"
	p, ws := load(t, LoadOptions{Platform: intelHost(), Names: []string{"k8s-gpu", "amd", "k8s-gpu"}, ReadSite: func(string) ([]byte, error) { return []byte(site), nil }})
	if want := []string{"base", "intel", "mlx5", "rdma-400g", SitePath, "amd", "k8s-gpu"}; !slices.Equal(p.Layers, want) {
		t.Errorf("layers are %v, want %v", p.Layers, want)
	}
	if p.Hugepages.Overcommit.V || p.Hugepages.Overcommit.Origin.Layer != "k8s-gpu" {
		t.Errorf("overcommit is %+v", p.Hugepages.Overcommit)
	}
	if len(ws) != 1 || ws[0] != "profile amd is not for this host: the processor is intel, not amd" {
		t.Errorf("warnings: %v", ws)
	}
	// A file's roles lie below the file.
	p, _ = load(t, LoadOptions{Platform: intelHost(), Names: []string{"./1.yaml"}, ReadFile: file1(head + "roles: [vxlan-overlay, rdma-400g]\nmodules: {require: [vxlan, geneve]}\n")})
	if want := []string{"base", "intel", "mlx5", "rdma-400g", "vxlan-overlay", "./1.yaml"}; !slices.Equal(p.Layers, want) {
		t.Errorf("layers are %v, want %v", p.Layers, want)
	}
	if !slices.Equal(p.Modules.Require.V, []string{"vxlan", "geneve"}) {
		t.Errorf("modules are %v", p.Modules.Require.V)
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts LoadOptions
		want string
	}{
		{"unknown name", LoadOptions{Names: []string{"rdma-40g"}}, `unknown profile "rdma-40g"; did you mean "rdma-400g"?; a file is named with its path, ./rdma-40g`},
		{"missing file", LoadOptions{Names: []string{"./no.yaml"}}, "cannot read profile ./no.yaml: file does not exist"},
		{"bad file", LoadOptions{Names: []string{"./1.yaml"}, ReadFile: file1(head + "x: 1\n")}, "./1.yaml:2:1: unknown key"},
		{"unknown role", LoadOptions{Names: []string{"./1.yaml"}, ReadFile: file1(head + "roles: [rdma]\n")}, `./1.yaml:2:9: roles "rdma": unknown profile "rdma"`},
		{"unknown intent", LoadOptions{Intent: "guests"}, `unknown intent "guests"; did you mean "guest"?`},
		{"unreadable site", LoadOptions{ReadSite: func(string) ([]byte, error) { return nil, syscall.EACCES }}, "cannot use the site's profile: permission denied"},
		{"set without value", LoadOptions{Set: []string{"inventory.gpus"}}, "--set inventory.gpus: want key=value"},
		{"set of nothing", LoadOptions{Set: []string{"inventory.gpus="}}, "no value is given"},
		{"set of a word", LoadOptions{Set: []string{"inventory.gpus=eight"}}, "gpus takes a whole number"},
		{"set out of range", LoadOptions{Set: []string{"hugepages.node_percent_max=200"}}, "out of range: 200 is not within 0 to 100"},
		{"set of an unknown key", LoadOptions{Set: []string{"hugepages.default_siz=1G"}}, `unknown key "hugepages.default_siz"; did you mean "hugepages.default_size"?`},
		{"set of a section", LoadOptions{Set: []string{"hugepages=1"}}, "hugepages is not a value"},
		{"set of a rule", LoadOptions{Set: []string{"nics.rdma=1"}}, "nics.rdma is not a value"},
		{"set below a value", LoadOptions{Set: []string{"inventory.gpus.x=1"}}, `inventory.gpus has no key "x"`},
		{"set of an unknown rule", LoadOptions{Set: []string{"nics.rdam.speed_mbps=1000"}}, `there is no rule "rdam" in nics (there are: mlx5, rdma, rdma-mlx5, rdma-bnxt, roce), and as a new one it is not complete`},
		{"set of a bad size", LoadOptions{Set: []string{"hugepages.default_size=1X"}}, `default_size "1X": a hugepage size`},
		{"set of YAML tricks", LoadOptions{Set: []string{"inventory.gpus=&a 8"}}, "anchors (&) are not accepted"},
		{"set of provenance", LoadOptions{Set: []string{"cmdline.forbid.iommu_on.source=x"}}, `unknown key "cmdline.forbid.iommu_on.source"`},
		{"set breaks a rule", LoadOptions{Set: []string{"nics.roce.mtu_max=1500"}}, "mtu_max 1500 is below mtu_min 4192"},
		{"contradiction", LoadOptions{Names: []string{"./1.yaml"}, ReadFile: file1(head + "cmdline: {require: [{token: amd_iommu=on}]}\n")},
			`both requires and forbids "amd_iommu=on" on the command line: required by ./1.yaml (amd_iommu_on), forbidden by base (amd_iommu_on)`},
		{"warns beyond its limit", LoadOptions{Set: []string{"hugepages.node_percent_warn=80"}}, "node_percent_warn 80 (--set), node_percent_max 60 (base)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.opts.Platform = intelHost()
			if tc.opts.ReadFile == nil {
				tc.opts.ReadFile = file1()
			}
			p, _, err := Load(tc.opts)
			if err == nil || p != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
	// No site file is no error.
	for _, err := range []error{syscall.ENOENT, syscall.ENOTDIR} {
		if _, _, err := Load(LoadOptions{Platform: intelHost(), ReadSite: func(string) ([]byte, error) { return nil, err }}); err != nil {
			t.Error(err)
		}
	}
	_, _, err := Load(LoadOptions{Platform: intelHost(), Names: []string{"./1.yaml"}, ReadFile: file1(head + "x: 1\ny: 2\n")})
	if ps, ok := errors.AsType[Problems](err); !ok || len(ps) != 2 {
		t.Errorf("the problems of a file are %v", err)
	}
}

func TestSetForms(t *testing.T) {
	p, _ := load(t, LoadOptions{Platform: intelHost(), Set: []string{
		"modules.require=a,b", "iommu.domain_types=[identity, DMA]", "iommu.state=off", "hugepages.overcommit=true",
		"cmdline.require.hp.token=hugepages=4", "cmdline.forbid.iommu_on.drop=true", "cmdline.forbid.amd_iommu_on.severe=true",
		"nics.mgmt.match.name=eno1", "nics.mgmt.mtu_max=1500", "nics.rdma.modules=[mlx5_ib]", "hugepages.pools.1G.total=4", "hugepages.pools.1G.total=8",
	}})
	if got := fmt.Sprintln(p.Modules.Require.V, p.IOMMU.DomainTypes.V, p.IOMMU.State.V, p.Hugepages.Overcommit.V, p.Hugepages.Pools[0].Total.V); got != "[a b] [identity DMA] off true 8\n" {
		t.Errorf("values are %s", got)
	}
	if r := p.Cmdline.Require; len(r) != 2 || r[1].Token != "hugepages=4" || r[1].Layer != "--set" {
		t.Errorf("required: %+v", r)
	}
	for _, r := range p.Cmdline.Forbid {
		if r.ID == "iommu_on" || r.ID == "amd_iommu_on" && !r.Severe {
			t.Errorf("forbidden: %+v", r)
		}
	}
	last := p.NICs[len(p.NICs)-1]
	if last.ID != "mgmt" || last.Match.Name != "eno1" || last.MTUMax.V != 1500 {
		t.Errorf("the new rule is %+v", last)
	}
}

func TestHash(t *testing.T) {
	base, _ := load(t, LoadOptions{Platform: intelHost()})
	if len(base.Hash) != 64 {
		t.Fatalf("hash is %q", base.Hash)
	}
	same, _ := load(t, LoadOptions{Platform: intelHost(), Names: []string{"./1.yaml"}, ReadFile: file1("# a comment\n" + head + "title: x\nhugepages: {node_percent_max: {why: same, value: 60}}\n")})
	if same.Hash != base.Hash {
		t.Error("the hash follows what is written about values, not the values")
	}
	for _, o := range []LoadOptions{
		{Set: []string{"hugepages.node_percent_max=61"}},
		{Set: []string{"nics.rdma.match.name=en*"}},
		{Set: []string{"cmdline.forbid.iommu_on.severe=true"}},
		{Intent: "guest"},
		{Intent: "baremetal-gpudirect"}, // stated now: no longer at most a warning
		{Names: []string{"./1.yaml"}, ReadFile: file1(head + "require: [\"acs.*\"]\n")},
	} {
		o.Platform = intelHost()
		if p, _ := load(t, o); p.Hash == base.Hash {
			t.Errorf("the hash does not see %+v", o)
		}
	}
}

func TestScopes(t *testing.T) {
	text := func(scope string) string { return head + "inventory: {gpus: {value: 8, " + scope + "}}\n" }
	unknown := Platform{}
	for _, tc := range []struct {
		scope string
		host  Platform
		want  bool
		why   string
	}{
		{"arch: [amd64]", intelHost(), true, ""},
		{"arch: [arm64]", intelHost(), false, "the architecture is amd64, not arm64"},
		{"cpu: [amd, intel]", intelHost(), true, ""},
		{"cpu: [amd]", intelHost(), false, "the processor is intel, not amd"},
		{"page_size: [64K]", azureArm(), true, ""},
		{"page_size: [64K]", intelHost(), false, "the page size is 4K, not 64K"},
		{`kernel: ">=6.12"`, intelHost(), true, ""},
		{`kernel: ">=6.12.107 <6.12.108"`, intelHost(), true, ""},
		{`kernel: ">=6.12.108"`, intelHost(), false, "kernel 6.12.107+deb13-amd64 is not >=6.12.108"},
		{`kernel: "<6.2"`, intelHost(), false, "is not <6.2"},
		{`kernel: ">=6.9 <6.14"`, azureArm(), false, "kernel 6.14.0-1012-azure is not >=6.9 <6.14"},
		{"arch: [arm64]", unknown, true, "kept, although its scope cannot be judged: the architecture is not known"},
		{`kernel: ">=6.12"`, unknown, true, "the kernel release is not known"},
		{`arch: [arm64], kernel: ">=6.12"`, Platform{Arch: "amd64"}, false, "the architecture is amd64"},
		{"intent: [guest]", azureArm(), true, "the intent guest is assumed"},
		{"intent: [guest]", intelHost(), false, "for the intent guest; the intent is baremetal-gpudirect"},
		{"intent: [guest]", unknown, false, "the intent is not known"},
	} {
		p, _ := load(t, LoadOptions{Platform: tc.host, Names: []string{"./1.yaml"}, ReadFile: file1(text(tc.scope))})
		var row Row
		for _, r := range p.Rows() {
			if r.Key == "inventory.gpus" {
				row = r
			}
		}
		if p.Inventory.GPUs.Set != tc.want || row.Applied != tc.want || !strings.Contains(row.Why, tc.why) || tc.why == "" && row.Why != "" {
			t.Errorf("%s on %s %s: %t (%s), want %t (%s)", tc.scope, tc.host.Arch, tc.host.Release, row.Applied, row.Why, tc.want, tc.why)
		}
	}
}

func TestKernelRelease(t *testing.T) {
	for release, want := range map[string]string{"6.8.0-1014-azure": "[6 8 0]", "6.12.107+deb13-amd64": "[6 12 107]", "5.15": "[5 15]", "6.6-rc1": "[6 6]", "6": "", "": "", "x": "", "6..8": ""} {
		v, ok := releaseVersion(release)
		if ok != (want != "") || ok && fmt.Sprint(v) != want {
			t.Errorf("%q is %v, %t; want %s", release, v, ok, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"64K": 64, "2M": 2048, "32M": 32768, "512M": 524288, "1G": 1 << 20, "16G": 16 << 20} {
		if kb, err := ParseSize(s); err != nil || kb != want {
			t.Errorf("%s is %d, %v; want %d", s, kb, err, want)
		}
	}
	for _, s := range []string{"", "M", "1", "1T", "2MB", "3M", "02M", "-2M", "+2M", "32K", "32G", "0G", "2m", " 2M", "99999999G", "2.5M"} {
		if kb, err := ParseSize(s); err == nil {
			t.Errorf("%q is %d", s, kb)
		}
	}
}

func TestChoiceSaysWhy(t *testing.T) {
	vm := intelHost()
	vm.Hypervisor = ptr("kvm")
	slow := intelHost()
	slow.Functions = []Function{cx7("0000:1a:00.0", 100000)}
	down := intelHost()
	down.Functions = []Function{cx7("0000:1a:00.0", 100000), cx7("0000:1b:00.0", 0)}
	vf := intelHost()
	vf.Functions = []Function{{BDF: "0000:1a:00.1", ID: "15b3:101e", Class: "020000", Driver: "mlx5_core", VF: true}}
	blind := intelHost()
	blind.Functions, blind.FunctionsWhy = nil, "/sys/bus/pci/devices: not captured"
	dark := intelHost()
	dark.Hypervisor, dark.CPU = nil, ""
	for _, tc := range []struct {
		name, layer string
		host        Platform
		want        bool
		why         string
	}{
		{"every host", "base", Platform{}, true, "every host"},
		{"rails", "rdma-400g", intelHost(), true, "0000:1a:00.0"},
		{"in a VM", "rdma-400g", vm, false, "this is a virtual machine (kvm)"},
		{"slow", "rdma-400g", slow, false, "there are 1, but the fastest runs at 100000 Mb/s, below 200000"},
		{"one is down", "rdma-400g", down, true, "0000:1b:00.0"},
		{"only a VF", "rdma-400g", vf, false, "no NIC of the 400G class"},
		{"a VF is a device of mlx5", "mlx5", vf, true, "function bound to mlx5_core: 0000:1a:00.1"},
		{"no bus", "mlx5", blind, false, "the PCI functions are not known: /sys/bus/pci/devices: not captured"},
		{"not known where it runs", "rdma-400g", dark, false, "whether this is a virtual machine is not known"},
		{"not known by whom", "intel", dark, false, "the processor is not known"},
		{"other maker", "amd", intelHost(), false, "the processor is intel, not amd"},
		{"no cloud", "azure", intelHost(), false, "the cloud is none that is known, not azure"},
		{"never by hardware", "k8s-gpu", intelHost(), false, "choose it by name"},
		{"4K pages", "arm64-64k", azureX86(), false, "the architecture is amd64, not arm64; the page size is 4K, not 64K"},
	} {
		p := chosen(tc.host)
		i := slices.IndexFunc(p.Layers, func(l LayerMatch) bool { return l.Name == tc.layer })
		if l := p.Layers[i]; l.Matches != tc.want || !strings.Contains(l.Why, tc.why) {
			t.Errorf("%s: %s is %t (%s), want %t (%s)", tc.name, tc.layer, l.Matches, l.Why, tc.want, tc.why)
		}
	}
}

func TestAssumedIntent(t *testing.T) {
	with := func(fs ...Function) Platform {
		p := intelHost()
		p.Functions = fs
		return chosen(p)
	}
	vfioVF := Function{BDF: "0000:1a:00.1", ID: "15b3:101e", Class: "020000", Driver: "vfio-pci", VF: true}
	unknown := intelHost()
	unknown.Hypervisor = nil
	for name, tc := range map[string]struct {
		host      Platform
		want, why string
	}{
		"a guest":       {azureX86(), "guest", "hyperv"},
		"rails":         {with(cx7("0000:1a:00.0", 400000), gpu("0000:1b:00.0", "nvidia")), "baremetal-gpudirect", "0000:1b:00.0"},
		"tenants":       {with(cx7("0000:1a:00.0", 400000), vfioVF, gpu("0000:1b:00.0", "nvidia")), "sriov-tenant", "0000:1a:00.1"},
		"GPUs for VMs":  {with(cx7("0000:1a:00.0", 400000), vfioVF, gpu("0000:1b:00.0", "vfio-pci")), "vm-gpudirect", "bound to vfio-pci"},
		"grace":         {grace(), "grace-direct-nic", "0009:03:00.0"},
		"no GPU":        {with(cx7("0000:1a:00.0", 400000)), "", "the hardware suggests none"},
		"not known":     {chosen(unknown), "", "is not known"},
		"plain machine": {with(), "", "the hardware suggests none"},
	} {
		if tc.host.Intent != tc.want || !strings.Contains(tc.host.IntentWhy, tc.why) {
			t.Errorf("%s: %q (%s), want %q (%s)", name, tc.host.Intent, tc.host.IntentWhy, tc.want, tc.why)
		}
	}
}

func TestSelectNICs(t *testing.T) {
	nic := func(name, bdf, driver string, vf bool) *facts.NIC {
		return &facts.NIC{Name: name, BDF: &bdf, Driver: &driver, VF: vf, Type: ptr(1)}
	}
	p, _ := load(t, LoadOptions{Platform: chosen(Platform{}), Names: []string{"./1.yaml"}, ReadFile: file1(head + `
nics:
  - {id: all, match: {name: "en*"}, mtu_min: 1500, carrier: true}
  - {id: mlx, match: {driver: mlx5_core}, mtu_min: {value: 4192, source: "ib_addr.h"}, rail: true, min: 1}
  - {id: vfs, match: {driver: mlx5_core, kind: vf}, mtu_max: 1500}
  - {id: cx7, match: {pci: ["15b3:1021"]}, speed_mbps: 400000}
  - {id: ib, match: {link: infiniband}, carrier: false}
  - {id: none, match: {driver: "bnxt*"}, min: 2}
`)})
	port := nic("enp1s0", "0000:01:00.0", "mlx5_core", false)
	vf := nic("enp1s0v0", "0000:01:00.1", "mlx5_core", true)
	dummy := nic("en-dummy", "", "", false)
	blind := &facts.NIC{Name: "ibp1", BDF: ptr("0000:02:00.0")}
	nics := &facts.NICs{List: []*facts.NIC{dummy, port, vf, blind}}
	s := p.SelectNICs(nics, nil)

	w := s.For("enp1s0")
	if w == nil || !slices.Equal(w.Rules, []string{"all", "mlx"}) {
		t.Fatalf("enp1s0: %+v", w)
	}
	if r := w.Rule; r.MTUMin.V != 4192 || r.MTUMin.Origin.Source != "ib_addr.h" || !r.Carrier.V || !r.Rail.V || r.Min.Set || r.MTUMax.Set {
		t.Errorf("the effective rule is %+v", r)
	}
	if one := p.NICRulesFor(port, nil); !reflect.DeepEqual(one.Rule, w.Rule) {
		t.Errorf("one by one it is %+v", one)
	}
	if w := s.For("enp1s0v0"); w == nil || !slices.Equal(w.Rules, []string{"vfs"}) || w.Rule.MTUMax.V != 1500 {
		t.Errorf("the VF: %+v", w)
	}
	if s.For("en-dummy") != nil || s.For("ibp1") != nil {
		t.Error("a rule for devices matches a virtual interface, or one about which nothing is known")
	}
	by := map[string]RuleSelection{}
	for _, r := range s.Rules {
		by[r.Rule.ID] = r
	}
	if r := by["none"]; len(r.Names) != 0 || r.Rule.Min.V != 2 || !slices.Equal(r.Undecided, []string{"ibp1: its driver is not known"}) {
		t.Errorf("the rule that matches nothing: %+v", r)
	}
	if r := by["cx7"]; len(r.Names) != 0 || !slices.Equal(r.Undecided, []string{"enp1s0: its PCI id is not known", "ibp1: its PCI id is not known"}) {
		t.Errorf("without the bus, the PCI ids are not known: %+v", r)
	}
	if r := by["mlx"]; !slices.Equal(r.Names, []string{"enp1s0"}) {
		t.Errorf("mlx matches %v", r.Names)
	}
	if r := by["ib"]; !slices.Equal(r.Undecided, []string{"ibp1: its link layer is not known"}) {
		t.Errorf("ib: %+v", r)
	}
}

func TestSchemaAcceptsWhatTheReaderAccepts(t *testing.T) {
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("profile.json", doc); err != nil {
		t.Fatal(err)
	}
	sch, err := c.Compile("profile.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text []byte) error {
		js, err := yaml.YAMLToJSON(text)
		if err != nil {
			return err
		}
		var v any
		if err := json.Unmarshal(js, &v); err != nil {
			return err
		}
		return sch.Validate(v)
	}
	for _, info := range List() {
		text, _ := Text(info.Name)
		if err := validate(text); err != nil {
			t.Errorf("%s: %v", info.Name, err)
		}
	}
	good := head + "nics: [{id: old, drop: true}]\nhugepages: {pools: [{size: 1G, per_node: {value: 4, why: x}}]}\n"
	if err := validate([]byte(good)); err != nil || len(Lint([]byte(good), "x")) > 0 {
		t.Errorf("%v, %v", err, Lint([]byte(good), "x"))
	}
	for _, bad := range []string{
		"title: x\n", "schema: hostcheck.profile/v2\n", head + "x: 1\n", head + "inventory: {gpus: -1}\n", head + "inventory: {gpus: {why: x}}\n",
		head + "nics: [{id: a}]\n", head + "cmdline: {forbid: [{id: a}]}\n", head + "hugepages: {pools: [{per_node: 1}]}\n", head + "iommu: {state: maybe}\n",
		head + "intent: x\n", head + "modules: {require: [\"a b\"]}\n", head + "iommu: {state: {value: any, kernel: \"6\"}}\n",
	} {
		if err := validate([]byte(bad)); err == nil {
			t.Errorf("the schema accepts %q", bad)
		}
		if len(Lint([]byte(bad), "x")) == 0 {
			t.Errorf("the reader accepts %q", bad)
		}
	}
}

func TestKeysCanBeSet(t *testing.T) {
	keys := Keys()
	for _, want := range []string{"inventory.gpus", "cmdline.forbid.ID.token", "nics.ID.match.driver", "nics.ID.speed_mbps", "hugepages.pools.ID.per_node", "modules.require"} {
		if !slices.Contains(keys, want) {
			t.Errorf("%s is not among the keys", want)
		}
	}
	for _, key := range keys {
		if strings.Contains(key, "source") || strings.Contains(key, ".arch") {
			t.Errorf("%s is provenance, not a value", key)
		}
	}
}

func BenchmarkEmbedded(b *testing.B) {
	for b.Loop() {
		for _, name := range order {
			data, _ := Text(name)
			if _, ps := parseFile(name, data); len(ps) > 0 {
				b.Fatal(ps)
			}
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	p := intelHost()
	for b.Loop() {
		if _, _, err := Load(LoadOptions{Platform: p}); err != nil {
			b.Fatal(err)
		}
	}
}
