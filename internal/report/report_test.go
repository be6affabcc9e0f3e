// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares with a file of testdata/golden at the repository's root.
func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("..", "..", "testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got), \"go test ./... -update\" accepts:\n%s", name, d)
	}
}

func plain(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	if _, err := io.WriteString(&colorprofile.Writer{Forward: &b, Profile: colorprofile.NoTTY}, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func ptr[T any](v T) *T { return &v }

func seen(source, value string) []check.Evidence {
	return []check.Evidence{{Source: source, Value: value}}
}

// results are those of a host with something of everything.
func results() []check.Result {
	vf := func(i int) string { return fmt.Sprintf("0000:1a:%02x.%d", (i+2)/8, (i+2)%8) }
	cmdline := check.Result{Check: &check.Check{ID: "cmdline.tokens", Title: "The kernel command line holds what the profile requires", Severity: check.High}}
	cmdline.Findings = append(cmdline.Findings,
		check.Finding{Status: check.Pass, Subject: "iommu=pt", Got: "iommu=pt", Evidence: seen("/proc/cmdline", "iommu=pt quiet")},
		check.Finding{
			Status: check.Fail, Pending: true, Subject: "hugepages=1024", Want: "hugepages=1024", Got: "absent",
			Why: "the pools are filled at boot, before memory is fragmented", Next: "reboot: the boot loader already has it",
			Truth: &check.Truth{Configured: "hugepages=1024", NextBoot: "hugepages=1024", Live: "absent"}, Evidence: seen("/proc/cmdline", "iommu=pt quiet"),
		})
	pools := check.Result{Check: &check.Check{ID: "hugepages.pools", Title: "Every node has its hugepages", Severity: check.Medium}}
	for node := range 2 {
		pools.Findings = append(pools.Findings, check.Finding{
			Status: check.Pass, Subject: fmt.Sprintf("node%d 2M", node), Got: "1024 pages",
			Evidence: seen(fmt.Sprintf("/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages", node), "1024"),
		})
	}
	mtu := check.Result{Check: &check.Check{ID: "link.mtu", Title: "RDMA ports carry jumbo frames", Severity: check.Medium}}
	for i, got := range []string{"1500", "1500", "9000", "4096"} {
		status := check.Warn
		if got == "9000" {
			status = check.Pass
		}
		name := fmt.Sprintf("enp%ds0np0", 26+i*10)
		mtu.Findings = append(mtu.Findings, check.Finding{
			Status: status, Subject: fmt.Sprintf("0000:%x:00.0 %s", 26+i*10, name), Want: "at least 4200", Got: got,
			Why: "RoCE needs room for its headers above a 4096 byte payload", Next: "ip link set dev " + name + " mtu 9000",
			Source: "rdma-400g: include/rdma/ib_addr.h", Evidence: seen("/sys/class/net/"+name+"/mtu", got),
			Fix: []plan.Wish{{Setting: plan.Setting{Kind: "link", Target: name, Name: "mtu"}, Got: got, Want: "9000", Tier: plan.Link}},
		})
	}
	speed := check.Result{Check: &check.Check{ID: "link.speed", Title: "Ports run at the full speed of the fabric", Severity: check.High}}
	for i := range 32 {
		speed.Findings = append(speed.Findings, check.Finding{
			Status: check.Unknown, Subject: vf(i), Want: "400000 Mb/s",
			Why:  "/sys/bus/pci/devices/" + vf(i) + "/config: permission denied (needs root)",
			Next: "run hostcheck as root",
		})
	}
	speed.Findings = append(speed.Findings, check.Finding{
		Status: check.Fail, Subject: "0000:1a:00.0 enp26s0np0", Want: "400000 Mb/s", Got: "200000 Mb/s",
		Why:      "half the lanes of this port are dark: every collective runs at the pace of its slowest rail, so one slow port halves the whole job",
		Next:     "look at the cable and the transceiver: ethtool -m enp26s0np0",
		Evidence: seen("/sys/class/net/enp26s0np0/speed", "200000"),
	})
	width := check.Result{Check: &check.Check{ID: "link.width", Title: "PCIe links have all their lanes", Severity: check.High}, Findings: []check.Finding{
		{Status: check.Unknown, Subject: vf(0), Why: "/sys/bus/pci/devices/" + vf(0) + "/config: permission denied (needs root)"},
	}}
	broken := check.Result{Check: &check.Check{ID: "numa.distance", Title: "Distances are sane", Severity: check.Low}, Findings: []check.Finding{
		{Status: check.Error, Why: "hostcheck failed here: runtime error: index out of range", Next: "please report this with a bundle of the host"},
	}}
	idle := func(id string) check.Result {
		return check.Result{Check: &check.Check{ID: id, Title: "T", Severity: check.Info}, Findings: []check.Finding{
			{Status: check.Skip, Why: "nothing on this host is a subject of this check"},
		}}
	}
	return []check.Result{cmdline, pools, mtu, speed, width, broken, idle("vxlan.offload"), idle("mana.queues")}
}

func input(rs []check.Result) report.Input {
	return report.Input{
		Tool: report.Tool{Version: "v1.2.3", Commit: "abcdef012345"},
		Host: report.Host{
			Name: ptr("gpu-07"), Kernel: ptr("6.12.107-amd64"), Arch: ptr("amd64"), PageSize: ptr(4096),
			BootID: ptr("1f0c"), CapturedAt: report.Stamp(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Source: "live",
		},
		Profile: report.Profile{Layers: []string{"base", "intel", "mlx5", "rdma-400g"}, Intent: "baremetal-gpudirect", IntentSource: "assumed", Hash: "0a1b"},
		Results: rs, FailOn: check.Fail,
	}
}

func TestTextGolden(t *testing.T) {
	r := report.New(input(results()))
	clean := report.New(input(results()[1:2]))
	for name, c := range map[string]struct {
		r    *report.Report
		text report.Text
		raw  bool
	}{
		"text-80":         {r, report.Text{Width: 80}, false},
		"text-120":        {r, report.Text{Width: 120}, false},
		"text-80-ascii":   {r, report.Text{Width: 80, ASCII: true}, false},
		"text-80-verbose": {r, report.Text{Width: 80, Verbose: true}, false},
		"text-80-quiet":   {r, report.Text{Width: 80, Quiet: true}, false},
		"text-80-colour":  {r, report.Text{Width: 80}, true},
		"text-80-clean":   {clean, report.Text{Width: 80}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.text.Report(c.r)
			for l := range strings.Lines(s) {
				if w := lipgloss.Width(strings.TrimSuffix(l, "\n")); w > c.text.Width {
					t.Errorf("a line of %d cells in %d columns: %q", w, c.text.Width, l)
				}
			}
			if !c.raw {
				s = plain(t, s)
				for l := range strings.Lines(s) {
					if strings.HasSuffix(l, " \n") {
						t.Errorf("a line ends in a blank: %q", l)
					}
				}
			}
			if c.text.ASCII && strings.ContainsFunc(s, func(r rune) bool { return r > 126 }) {
				t.Errorf("not ASCII: %q", s)
			}
			golden(t, "report/"+name+".txt", s)
		})
	}
}

func TestJSONGolden(t *testing.T) {
	b, err := report.JSON(report.New(input(results())))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report/report.json", string(b))
	validate(t, "report", b)
}

func TestFoldingSaysEverythingOnce(t *testing.T) {
	s := plain(t, report.Text{Width: 80}.Report(report.New(input(results()))))
	for text, n := range map[string]int{
		"permission denied (needs root)": 1, // of 33 findings
		"mtu 9000":                       1, // of 3 findings
		"link.speed, link.width":         1,
		"32 findings need root":          0,
		"33 findings need root":          1,
		"1500 on 0000:1a:00.0 enp26s0np0, 0000:24:00.0 enp36s0np0": 1,
		"4096 on 0000:38:00.0 enp56s0np0":                          1,
		"not applicable here":                                      1,
	} {
		if got := strings.Count(strings.Join(strings.Fields(s), " "), text); got != n {
			t.Errorf("%q stands %d times, want %d, in:\n%s", text, got, n, s)
		}
	}
	order := []string{"── link", "── numa", "── cmdline", "── in order", "── not applicable"}
	at := -1
	for _, h := range order {
		i := strings.Index(s, h)
		if i <= at {
			t.Errorf("%q is not after the ones before it:\n%s", h, s)
		}
		at = i
	}
}

// No line of a report is wider than the terminal, down to 40 columns.
func TestNoLineIsTooWide(t *testing.T) {
	rep := report.New(input(results()))
	for _, c := range []struct{ width, most int }{{20, 40}, {40, 40}, {47, 47}, {60, 60}, {100, 100}} {
		for _, text := range []report.Text{{}, {Verbose: true}, {Quiet: true}} {
			text.Width = c.width
			for l := range strings.Lines(text.Report(rep)) {
				if n := lipgloss.Width(strings.TrimSuffix(l, "\n")); n > c.most {
					t.Errorf("width %d, verbose %v, quiet %v: %d cells: %s", c.width, text.Verbose, text.Quiet, n, plain(t, l))
				}
			}
		}
	}
}

// JSON is read in terminals, too: what would drive one, or hide text, is
// escaped, and means the same to a program.
func TestJSONEscapesWhatDoesNotPrint(t *testing.T) {
	hostile := "a\u009b31m\u007f\u0085\u202e\u200b\u2028\ufeff\u00ad\U000e0041ü→𝄞"
	in := input([]check.Result{{Check: &check.Check{ID: "a.x"}, Findings: []check.Finding{{Check: "a.x", Status: check.Unknown, Why: hostile}}}})
	for name, v := range map[string]any{"report": report.New(in), "other": map[string]string{hostile: hostile}} {
		b, err := report.JSON(v)
		if err != nil {
			t.Fatal(err)
		}
		if want := `a\u009b31m\u007f\u0085\u202e\u200b\u2028\ufeff\u00ad\udb40\udc41ü→𝄞`; !strings.Contains(string(b), want) {
			t.Errorf("%s: no %s in\n%s", name, want, b)
		}
		var back any
		if err := json.Unmarshal(b, &back); err != nil || !strings.Contains(fmt.Sprint(back), hostile) {
			t.Errorf("%s: %v, reads back as %q", name, err, back)
		}
	}
}

// A host can be made to give very many findings: the text stays in proportion.
// (Comparing each with each, this takes minutes.)
func TestManyFindings(t *testing.T) {
	const n = 20000
	var fs []check.Finding
	for i := range n {
		fs = append(fs,
			check.Finding{Check: "a.x", Status: check.Fail, Subject: fmt.Sprintf("s%d", i), Want: "w", Got: fmt.Sprint("got ", i), Why: "same", Evidence: seen("/x", fmt.Sprint(i))},
			check.Finding{Check: "a.x", Status: check.Unknown, Subject: "s", Why: fmt.Sprint("why ", i)})
	}
	rep := report.New(input([]check.Result{{Check: &check.Check{ID: "a.x", Title: "many"}, Findings: fs}}))
	for _, text := range []report.Text{{}, {Verbose: true}} {
		got := plain(t, text.Report(rep))
		for _, want := range []string{"got   got 19999", "why   why 19999"} {
			if strings.Count(got, want) != 1 {
				t.Errorf("verbose %v: %q stands %d times, want once", text.Verbose, want, strings.Count(got, want))
			}
		}
	}
}

func TestVerboseHidesNoSubject(t *testing.T) {
	r := report.New(input(results()))
	s := plain(t, report.Text{Width: 100, Verbose: true}.Report(r))
	for _, f := range r.Findings {
		if !strings.Contains(s, f.Subject) {
			t.Errorf("subject %q is missing", f.Subject)
		}
		for _, e := range f.Evidence {
			if !strings.Contains(strings.Join(strings.Fields(s), ""), strings.Join(strings.Fields(e.Source+":"+e.Value), "")) {
				t.Errorf("evidence %v is missing", e)
			}
		}
	}
}

func TestExit(t *testing.T) {
	of := func(ss ...check.Status) []check.Result {
		r := check.Result{Check: &check.Check{ID: "a.b", Severity: check.High}}
		for _, s := range ss {
			r.Findings = append(r.Findings, check.Finding{Check: "a.b", Status: s})
		}
		return []check.Result{r}
	}
	pending := of(check.Pass, check.Fail)
	pending[0].Findings[1].Pending = true
	pendingAndUnknown := of(check.Unknown, check.Fail)
	pendingAndUnknown[0].Findings[1].Pending = true
	required := func(id string) bool { return id == "a.b" }
	for name, c := range map[string]struct {
		in     report.Input
		exit   int
		counts string
	}{
		"nothing ran":                {report.Input{}, 3, ""},
		"only skips":                 {report.Input{Results: of(check.Skip)}, 3, "skip"},
		"only unknown":               {report.Input{Results: of(check.Unknown)}, 3, "unknown"},
		"pass":                       {report.Input{Results: of(check.Pass, check.Skip, check.Unknown)}, 0, "pass skip unknown"},
		"required unknown":           {report.Input{Results: of(check.Pass, check.Unknown), Required: required}, 3, "pass unknown"},
		"required error":             {report.Input{Results: of(check.Pass, check.Error), Required: required}, 3, "pass error"},
		"error, not required":        {report.Input{Results: of(check.Pass, check.Error)}, 0, "pass error"},
		"warn":                       {report.Input{Results: of(check.Pass, check.Warn)}, 0, "pass warn"},
		"warn, failing on it":        {report.Input{Results: of(check.Pass, check.Warn), FailOn: check.Warn}, 1, "pass warn"},
		"fail before incomplete":     {report.Input{Results: of(check.Fail, check.Unknown), Required: required}, 1, "fail unknown"},
		"pending":                    {report.Input{Results: pending}, 10, "pass pending"},
		"pending, failing on warn":   {report.Input{Results: pending, FailOn: check.Warn}, 10, "pass pending"},
		"incomplete before pending":  {report.Input{Results: pendingAndUnknown, Required: required}, 3, "unknown pending"},
		"interrupted before failing": {report.Input{Results: of(check.Fail), Signal: 2}, 130, "fail"},
		"terminated":                 {report.Input{Results: of(check.Pass), Signal: 15}, 143, "pass"},
	} {
		s := report.New(c.in).Summary
		if s.Exit != c.exit {
			t.Errorf("%s: exit %d, want %d", name, s.Exit, c.exit)
		}
		b, _ := json.Marshal(s)
		var counts map[string]int
		_ = json.Unmarshal(b, &counts)
		delete(counts, "exit")
		for k, n := range counts {
			if want := slices.Contains(strings.Fields(c.counts), k); (n == 1) != want || n > 1 {
				t.Errorf("%s: %s is %d, want %v", name, k, n, want)
			}
		}
		if report.Meaning(s.Exit) == "unknown" {
			t.Errorf("exit code %d has no meaning", s.Exit)
		}
	}
}

func TestSubjectsInNaturalOrder(t *testing.T) {
	want := []string{
		"", "0000:0a:00.0", "0000:10:00.0", "0000:1a:00.0 eth2", "0000:1a:00.0 eth10", "0000:1a:0a.0", "10000:00:00.0",
		"eth0", "eth1", "eth01", "eth2", "eth10", "node0 2M", "node2 1G", "node10 2M",
	}
	rs := []check.Result{{Check: &check.Check{ID: "a.b"}}}
	for _, i := range []int{7, 3, 12, 0, 9, 14, 1, 6, 11, 4, 2, 13, 8, 5, 10} {
		rs[0].Findings = append(rs[0].Findings, check.Finding{Status: check.Skip, Subject: want[i]})
	}
	var got []string
	for _, f := range report.New(report.Input{Results: rs}).Findings {
		got = append(got, f.Subject)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestHostileTextCannotDriveTheTerminal(t *testing.T) {
	bad := "\x1b]0;owned\a\x1b[2Jeth0\r\n\u202egnp\xff\x9b31m"
	rs := []check.Result{{Check: &check.Check{ID: "a.b", Title: "t"}, Findings: []check.Finding{{
		Status: check.Fail, Subject: bad, Want: bad, Got: bad, Why: bad, Next: bad, Source: bad,
		Truth: &check.Truth{Configured: bad}, Evidence: seen(bad, bad), Fix: []plan.Wish{{Setting: plan.Setting{Target: bad, Name: bad}, Got: bad, Want: bad}},
	}}}}
	in := input(rs)
	in.Host.Name, in.Host.Kernel, in.Profile.Layers = &bad, &bad, []string{bad}
	s := report.Text{Width: 80, Verbose: true}.Report(report.New(in))
	s = plain(t, s)
	for _, c := range []string{"\x1b", "\a", "\r", "\u202e", "\x9b", "\xff"} {
		if strings.Contains(s, c) {
			t.Errorf("%q got through:\n%q", c, s)
		}
	}
	if !strings.Contains(s, `\x1b]0;owned\a`) {
		t.Errorf("the text is not shown at all:\n%s", s)
	}
}

// validate checks a document with the schema of that name.
func validate(t *testing.T, name string, doc []byte) {
	t.Helper()
	schema, err := report.JSON(report.JSONSchema(name))
	if err != nil {
		t.Fatal(err)
	}
	s, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///"+name, s); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("mem:///" + name)
	if err != nil {
		t.Fatalf("the schema is not valid: %v", err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(v); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func TestSchemasRefuse(t *testing.T) {
	b, err := report.JSON(report.New(input(results())))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct{ old, new string }{
		{`"schema": "hostcheck.report/v1"`, `"schema": "hostcheck.report/v2"`},
		{`"status":"pass"`, `"status":"good"`},
		{`"page_size":4096`, `"page_size":"4096"`},
		{`"intent_source":"assumed",`, ``},
		{`"evidence":[`, `"evidences":[`},
	} {
		bad := bytes.Replace(b, []byte(change.old), []byte(change.new), 1)
		if bytes.Equal(bad, b) {
			t.Fatalf("nothing to change: %s", change.old)
		}
		ok := t.Run(change.new, func(t *testing.T) {
			schema, _ := report.JSON(report.JSONSchema("report"))
			s, _ := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
			c := jsonschema.NewCompiler()
			if err := c.AddResource("mem:///r", s); err != nil {
				t.Fatal(err)
			}
			v, _ := jsonschema.UnmarshalJSON(bytes.NewReader(bad))
			if c.MustCompile("mem:///r").Validate(v) == nil {
				t.Errorf("accepted after %s became %s", change.old, change.new)
			}
		})
		_ = ok
	}
}

func TestSchemaGolden(t *testing.T) {
	for _, name := range []string{"report", "list"} {
		b, err := report.JSON(report.JSONSchema(name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "schema/"+name+".json", string(b))
	}
	if report.JSONSchema("nothing") != nil {
		t.Error("there is a schema without a name")
	}
}

// A report is laid out in lines of its own, and is otherwise what the encoder writes.
func TestReportJSON(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		r := &report.Report{Schema: "s", Profile: report.Profile{Layers: []string{"a<b"}}, Findings: []report.Finding{}}
		for i := range n {
			r.Findings = append(r.Findings, report.Finding{Check: "link.speed", Subject: string(rune('a' + i)), Why: "<&>\n", Evidence: []check.Evidence{{Source: "/x", Value: "1"}}})
		}
		got, err := report.JSON(r)
		if err != nil {
			t.Fatal(err)
		}
		var lines, plain bytes.Buffer
		if err := json.Compact(&lines, got); err != nil {
			t.Fatal(err)
		}
		e := json.NewEncoder(&plain)
		e.SetEscapeHTML(false)
		if err := e.Encode(r); err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(plain.String()); lines.String() != want {
			t.Errorf("%d findings:\n%s\nwant\n%s", n, lines.String(), want)
		}
		if want := 8 + n + min(n, 1); bytes.Count(got, []byte("\n")) != want {
			t.Errorf("%d findings are %d lines, want %d:\n%s", n, bytes.Count(got, []byte("\n")), want, got)
		}
	}
}
