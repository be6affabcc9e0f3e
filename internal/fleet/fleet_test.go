// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/report"
)

var (
	speed  = &check.Check{ID: "link.speed", Title: "Ports run at their speed", Severity: check.High}
	memory = &check.Check{ID: "system.memory", Title: "Enough memory is free", Severity: check.Low}
)

// made is a report to be changed before it is written.
type made struct {
	host, kernel, boot, at string
	findings               map[*check.Check][]check.Finding
	failOn                 check.Status
	signal                 int
}

// passing is a host on which all is well.
func passing(name string) *made {
	return &made{host: name, kernel: "6.12.1", boot: "b-" + name, at: "2026-11-02T08:00:00Z", findings: map[*check.Check][]check.Finding{
		speed:  {{Subject: "eth0", Status: check.Pass, Got: "400G", Evidence: []check.Evidence{{Source: "/sys/class/net/eth0/speed", Value: "400000"}}}},
		memory: {{Status: check.Pass, Got: "enough", Evidence: []check.Evidence{{Source: "/proc/meminfo", Value: "free of " + name}}}},
	}}
}

func (m *made) with(c *check.Check, f ...check.Finding) *made {
	m.findings[c] = f
	return m
}

func (m *made) report() *report.Report {
	in := report.Input{
		Tool: report.Tool{Version: "1.0", Commit: "abc"}, Profile: report.Profile{Intent: "guest", IntentSource: "stated", Hash: "h1"},
		FailOn: m.failOn, Signal: m.signal, Host: report.Host{Name: &m.host, Kernel: &m.kernel, BootID: &m.boot, Source: "live"},
	}
	if t, err := time.Parse(time.RFC3339, m.at); err == nil {
		in.Host.CapturedAt = report.Stamp(t)
	}
	if in.FailOn == "" {
		in.FailOn = check.Fail
	}
	for _, c := range []*check.Check{speed, memory} {
		if fs := m.findings[c]; fs != nil {
			in.Results = append(in.Results, check.Result{Check: c, Findings: fs})
		}
	}
	return report.New(in)
}

func (m *made) line(t testing.TB) string {
	t.Helper()
	b, err := report.JSONLine(m.report())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func merge(o fleet.Options, texts ...string) *fleet.Fleet {
	m := fleet.New(o)
	for i, s := range texts {
		m.Read(fmt.Sprintf("f%d", i+1), strings.NewReader(s))
	}
	return m.Fleet()
}

// whys are the problems, as "source:line host: why".
func whys(f *fleet.Fleet) []string {
	out := []string{}
	for _, p := range f.Problems {
		s := fmt.Sprintf("%s:%d %s: %s", p.Source, p.Line, p.Host, p.Why)
		if p.Lost {
			s = "LOST " + s
		}
		out = append(out, s)
	}
	return out
}

func verdicts(f *fleet.Fleet) map[string]string {
	out := map[string]string{}
	for _, h := range f.Hosts {
		out[h.Name] = h.Verdict
	}
	return out
}

// What is no usable report is a problem that says where and why, and the host
// before it and the one behind it count as ever.
func TestBroken(t *testing.T) {
	good := passing("n2").line(t)
	edited := func(old, now string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the report has no %s", old)
		}
		return strings.Replace(good, old, now, 1)
	}
	var indented bytes.Buffer
	b, err := report.JSON(passing("n2").report())
	if err != nil {
		t.Fatal(err)
	}
	indented.Write(b[:len(b)/2])
	for name, c := range map[string]struct{ text, why string }{
		"cut":            {good[:len(good)/2] + "\n", "it is cut off"},
		"cut, indented":  {indented.String() + "\n", "it is cut off"},
		"words":          {"ssh: connect to host n2: Connection timed out\n", `it is no report: it begins with "ssh: connect to host n2: Conne..."`},
		"another object": {`{"a": 1}` + "\n", "it is no report: it has no schema"},
		"two in a line":  {strings.TrimSpace(good) + good, "reports of one line each end with a newline"},
		"a list":         {"[" + strings.TrimSpace(good) + "]\n", "jq -c '.[]'"},
		"UTF-16":         {"\xff\xfe{\x00\"\x00s\x00\n", "iconv -f UTF-16 -t UTF-8"},
		"folded":         {"---------------\n", "what clush -b and dshbak fold is not taken apart"},
		"text":           {"n2: ✗ NOT FIT   1 fail · 122 pass\n", "; that is text for a person: collect with -f jsonl"},
		"version 2":      {edited("report/v1", "report/v2"), "is not known"},
		"a merge":        {edited("hostcheck.report/v1", "hostcheck.fleet/v1"), "it is a merge"},
		"no name":        {edited(`"name":"n2"`, `"name":null`), "does not name its host"},
		"a list as name": {edited(`"name":"n2"`, `"name":"n[1-3]"`), "a name that no host can have"},
		"twice a key":    {edited(`"findings":[`, `"findings":[],"findings":[`), `it has "findings" twice`},
		"long boot_id":   {edited(`"boot_id":"b-n2"`, `"boot_id":"`+strings.Repeat("b", 65)+`"`), "of more than 64 bytes"},
		"no exit":        {edited(`"exit":0`, `"code":0`), "no exit code"},
		"edited":         {edited(`"status":"pass"`, `"status":"fail"`), "does not count what its findings say"},
		"no status":      {edited(`"status":"pass"`, `"status":"fine"`), "status that is not known"},
		"bad finding":    {edited(`"got":"400G"`, `"got":400`), "cannot be decoded"},
		"bad escape":     {edited(`400G`, `\q`), "no valid JSON"},
		"bad key":        {edited(`"tool":`, `"more":[1,}],"tool":`), `"more" is no valid JSON`},
		"no comma":       {edited(`,"host":`, ` "host":`), "no valid JSON"},
		"no findings":    {edited(`"findings":[`, `"others":[`), "it has no findings"},
	} {
		t.Run(name, func(t *testing.T) {
			f := merge(fleet.Options{}, passing("n1").line(t)+c.text+passing("n3").line(t))
			if diff := cmp.Diff(map[string]string{"n1": fleet.Compliant, "n3": fleet.Compliant}, verdicts(f)); diff != "" {
				t.Errorf("hosts (-want +got):\n%s", diff)
			}
			if len(f.Problems) != 1 || !strings.Contains(f.Problems[0].Why, c.why) || f.Problems[0].Line != 2 || !f.Problems[0].Lost {
				t.Errorf("problems %q, want one of line 2 with %q", whys(f), c.why)
			}
			if f.Summary.Exit != report.ExitIncomplete || f.Summary.Problems != 1 {
				t.Errorf("summary %+v, want one problem and exit 3", f.Summary)
			}
		})
	}
}

// A report that was cut off at any byte is never a host, nor does it touch one.
func TestCutAnywhere(t *testing.T) {
	good := strings.TrimSpace(passing("n2").line(t))
	m := fleet.New(fleet.Options{})
	m.Read("first", strings.NewReader(passing("n1").line(t)))
	for n := 1; n < len(good); n++ {
		m.Read(fmt.Sprint(n), strings.NewReader(good[:n]))
	}
	if f := m.Fleet(); len(f.Hosts) != 1 || f.Hosts[0].Verdict != fleet.Compliant || f.Summary.Problems != len(good)-1 {
		t.Errorf("hosts %v, %d problems of %d", verdicts(f), f.Summary.Problems, len(good)-1)
	}
}

// A document that does not end hides no report behind it, however long it is.
func TestEndless(t *testing.T) {
	line := strings.Repeat("x", 1<<20) + "\n"
	f := merge(fleet.Options{}, "{\n"+strings.Repeat(line, fleet.MaxReport>>20+1)+passing("n1").line(t)+"{\n"+passing("n2").with(speed, slow).line(t))
	if v := verdicts(f); len(v) != 2 || v["n2"] != fleet.Failing || f.Summary.Problems != 2 || !strings.Contains(f.Problems[0].Why, "longer than 32 MiB") || f.Problems[1].Why != "it is cut off" {
		t.Errorf("hosts %v, problems %q", v, whys(f))
	}
}

// Reports come one a line, indented, one after the other, and packed.
func TestForms(t *testing.T) {
	indented, err := report.JSON(passing("n2").report())
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(passing("n3").line(t) + passing("n4").line(t))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f := merge(fleet.Options{}, passing("n1").line(t)+string(indented)+"\r\n"+strings.TrimSpace(passing("n5").line(t)), packed.String())
	if len(f.Hosts) != 5 || len(f.Problems) != 0 || f.Summary.Exit != report.ExitOK {
		t.Errorf("hosts %v, problems %q", verdicts(f), whys(f))
	}
	if f := merge(fleet.Options{}, "n1: "+passing("n1").line(t)+"n2: "+passing("n2").line(t)); len(f.Hosts) != 2 || len(f.Problems) != 0 {
		t.Errorf("with names before them: hosts %v, problems %q", verdicts(f), whys(f))
	}
	if f := merge(fleet.Options{}, "\ufeff"+passing("n1").line(t)); len(f.Hosts) != 1 || len(f.Problems) != 0 {
		t.Errorf("with the mark of UTF-8: hosts %v, problems %q", verdicts(f), whys(f))
	}
	cut := merge(fleet.Options{}, packed.String()[:packed.Len()-12])
	if cut.Summary.Exit != report.ExitIncomplete || cut.Summary.Problems == 0 {
		t.Errorf("a packed file that is cut off: %+v", cut.Summary)
	}
	if empty := merge(fleet.Options{}, "\n"); empty.Summary.Exit != report.ExitIncomplete || len(empty.Problems) != 1 {
		t.Errorf("an empty file: %+v", empty.Summary)
	}
}

func TestVerdicts(t *testing.T) {
	fail := check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}
	warn := check.Finding{Status: check.Warn, Got: "little"}
	pending := check.Finding{Status: check.Fail, Pending: true}
	unknown := check.Finding{Subject: "eth0", Status: check.Unknown, Why: "cannot read it"}
	interrupted := passing("i")
	interrupted.signal = 15
	strict := passing("s").with(memory, warn)
	strict.failOn = check.Warn
	green := strings.Replace(passing("g").with(speed, fail).line(t), `"exit":1`, `"exit":0`, 1)
	for name, c := range map[string]struct {
		line, want string
		exit       int
		failOn     check.Status
	}{
		"fail":              {passing("f").with(speed, fail).line(t), fleet.Failing, 1, ""},
		"fail, exit edited": {green, fleet.Failing, 1, ""},
		"warn":              {passing("w").with(memory, warn).line(t), fleet.Compliant, 0, ""},
		"warn counts here":  {passing("w").with(memory, warn).line(t), fleet.Failing, 1, check.Warn},
		"warn counted":      {strict.line(t), fleet.Failing, 1, ""},
		"pending":           {passing("p").with(memory, pending).line(t), fleet.Pending, 10, ""},
		"interrupted":       {interrupted.line(t), fleet.Incomplete, 3, ""},
		"nothing judged":    {passing("u").with(speed, unknown).with(memory).line(t), fleet.Incomplete, 3, ""},
		"usage error":       {strings.Replace(passing("x").line(t), `"exit":0`, `"exit":2`, 1), fleet.Incomplete, 3, ""},
		"hardly judged":     {passing("h").with(speed, unknown, check.Finding{Subject: "eth1", Status: check.Unknown}).line(t), fleet.Incomplete, 3, ""},
		"unknown, optional": {passing("o").with(speed, unknown).line(t), fleet.Compliant, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := merge(fleet.Options{FailOn: c.failOn}, passing("a").line(t)+c.line)
			if len(f.Hosts) != 2 || f.Hosts[1].Verdict != c.want || f.Summary.Exit != c.exit {
				t.Errorf("hosts %v, exit %d, problems %q; want %s, %d", verdicts(f), f.Summary.Exit, whys(f), c.want, c.exit)
			}
		})
	}
}

// Of several reports of a host the newest counts, in whatever order they come.
func TestRepeated(t *testing.T) {
	old, late := passing("n1"), passing("n1").with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"})
	late.at = "2026-11-02T09:00:00Z"
	for _, order := range [][]*made{{old, late}, {late, old}} {
		f := merge(fleet.Options{}, order[0].line(t)+order[1].line(t)+passing("n2").line(t))
		if diff := cmp.Diff(map[string]string{"n1": fleet.Failing, "n2": fleet.Compliant}, verdicts(f)); diff != "" || f.Summary.Repeated != 1 || f.Summary.Problems != 0 {
			t.Errorf("%+v (-want +got):\n%s", f.Summary, diff)
		}
	}
	same := merge(fleet.Options{}, old.line(t)+old.line(t))
	if want := []string{"f1:2 n1: it is the same report again"}; !slices.Equal(whys(same), want) || same.Summary.Exit != 0 {
		t.Errorf("problems %q, exit %d", whys(same), same.Summary.Exit)
	}
	// neither is newer: the worse one counts, and something is wrong
	late.at = old.at
	for _, order := range [][]*made{{old, late}, {late, old}} {
		f := merge(fleet.Options{}, order[0].line(t)+order[1].line(t))
		if f.Hosts[0].Verdict != fleet.Failing || f.Summary.Problems != 1 || !strings.Contains(f.Problems[0].Why, "the worse one counts") {
			t.Errorf("hosts %v, problems %q", verdicts(f), whys(f))
		}
	}
	other := passing("n1")
	other.boot = "another"
	if f := merge(fleet.Options{}, old.line(t)+other.line(t)); f.Summary.Exit != 3 || !strings.Contains(f.Problems[0].Why, "two hosts have this name") {
		t.Errorf("exit %d, problems %q", f.Summary.Exit, whys(f))
	}
}

func TestChecksAndClusters(t *testing.T) {
	var lines strings.Builder
	for i := 1; i <= 12; i++ {
		m := passing(fmt.Sprintf("n%02d", i))
		switch i {
		case 3, 4, 5:
			m.with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Want: "400G", Got: "100G", Next: "reseat the cable"},
				check.Finding{Subject: "eth1", Status: check.Pass, Got: "400G", Evidence: []check.Evidence{{Source: "s", Value: "v"}}})
		case 9:
			delete(m.findings, memory)
		}
		lines.WriteString(m.line(t))
	}
	f := merge(fleet.Options{}, lines.String())
	if len(f.Checks) != 2 || f.Checks[0].ID != speed.ID || f.Checks[1].ID != memory.ID {
		t.Fatalf("checks %+v", f.Checks)
	}
	if diff := cmp.Diff([]fleet.Counts{{Fail: 3, Pass: 9}, {Pass: 11, Absent: 1}}, []fleet.Counts{f.Checks[0].Counts, f.Checks[1].Counts}); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]fleet.Case{{Status: check.Fail, Subject: "eth0", Want: "400G", Got: "100G", Next: "reseat the cable", N: 3, Hosts: "n[03-05]"}}, f.Checks[0].Cases); diff != "" {
		t.Errorf("cases (-want +got):\n%s", diff)
	}
	want := []fleet.Cluster{
		{N: 8, Hosts: "n[01-02,06-08,10-12]", Verdict: fleet.Compliant, Verdicts: "oo", Differs: []fleet.Differs{}},
		{N: 3, Hosts: "n[03-05]", Verdict: fleet.Failing, Verdicts: "fo", Differs: []fleet.Differs{{Check: "link.speed", Here: "fail", Usual: "pass"}}},
		{N: 1, Hosts: "n09", Verdict: fleet.Compliant, Verdicts: "o.", Differs: []fleet.Differs{{Check: "system.memory", Here: "absent", Usual: "pass"}}},
	}
	if diff := cmp.Diff(want, f.Clusters); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
}

func TestSince(t *testing.T) {
	fail := check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"}
	before := merge(fleet.Options{}, passing("n1").line(t)+passing("n2").with(speed, fail).line(t)+passing("n3").line(t)+passing("n4").line(t))
	now := merge(fleet.Options{Since: before, From: "old.json"}, passing("n1").with(speed, fail).line(t)+passing("n2").line(t)+passing("n3").with(speed, fail).line(t)+passing("n5").line(t))
	if diff := cmp.Diff(&fleet.Since{Source: "old.json", Hosts: 4, New: 1, NewHosts: "n5", Gone: 1, GoneHosts: "n4"}, now.Since); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
	want := []fleet.Changed{{Check: "link.speed", Before: "pass", After: "fail", N: 2, Hosts: "n[1,3]"}, {Check: "link.speed", Before: "fail", After: "pass", N: 1, Hosts: "n2"}}
	if diff := cmp.Diff(want, now.Changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

// What is written is read back the same.
func TestWriteAndDecode(t *testing.T) {
	f := merge(fleet.Options{FailOn: check.Warn, Labels: map[string]map[string]string{"n1": {"rack": "r1"}}},
		passing("n1").line(t)+"rubbish\n"+passing("n2").with(speed, check.Finding{Status: check.Warn, Got: "x"}).line(t))
	b, err := report.FleetJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	if is, _, err := fleet.Peek(bytes.NewReader(b)); !is || err != nil {
		t.Errorf("it is not known as a merge: %v", err)
	}
	got, err := fleet.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	for old, now := range map[string]string{
		`"cluster":1`: `"cluster":2`, `"verdicts":"wo"`: `"verdicts":"w"`, `"verdict":"failing"`: `"verdict":"fine"`,
		`"hosts":2`: `"hosts":3`, "hostcheck.fleet/v1": "hostcheck.fleet/v2", `"checks"`: `"chekcs"`,
	} {
		if !bytes.Contains(b, []byte(old)) {
			t.Errorf("the merge has no %s", old)
		}
		if _, err := fleet.Decode(bytes.NewReader(bytes.ReplaceAll(b, []byte(old), []byte(now)))); err == nil {
			t.Errorf("with %s for %s it is still a merge", now, old)
		}
	}
}

// With less memory than the fleet needs every host is still judged and counted.
func TestLittleMemory(t *testing.T) {
	var lines strings.Builder
	for i := range 1000 {
		m := passing(fmt.Sprintf("n%04d", i))
		if i == 999 {
			m.with(speed, check.Finding{Subject: "eth0", Status: check.Fail, Got: "100G"})
		}
		lines.WriteString(m.line(t))
	}
	f := merge(fleet.Options{Memory: 200_000}, lines.String())
	s := f.Summary
	if s.Hosts != 1000 || s.Failing != 1 || s.Compliant != 999 || s.Exit != 1 {
		t.Errorf("summary %+v", s)
	}
	if f.MoreHosts == 0 || len(f.Hosts)+f.MoreHosts != 1000 || len(f.Hosts) < 100 {
		t.Errorf("%d hosts listed and %d more", len(f.Hosts), f.MoreHosts)
	}
	if n := len(f.Problems); n != 1 || !strings.Contains(f.Problems[0].Why, "more than is kept in memory") {
		t.Errorf("problems %q", whys(f))
	}
}
