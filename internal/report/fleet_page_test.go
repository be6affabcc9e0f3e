// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/chromium"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fleetOf is a fleet as a merge of so many reports gives it: racks of 40 hosts,
// 60 checks, and of many hosts one in fifty odd in one of eight ways.
func fleetOf(n int) *fleet.Fleet {
	f := &fleet.Fleet{Schema: fleet.Schema, FailOn: "fail", Tool: fleet.Tool{Version: "v1", Commit: "0123456789ab"}}
	list := checks.All()
	for i := range 60 {
		c := list[i*len(list)/60]
		f.Checks = append(f.Checks, fleet.Check{ID: c.ID, Title: c.Title, Severity: c.Severity})
	}
	calm := strings.Repeat("o", 52) + "ssssssss"
	odd := []struct {
		at       int
		letter   byte
		verdict  string
		exit     int
		got, why string
	}{
		{3, 'f', fleet.Failing, 1, "16 GT/s x8", "the link trained below what both ends can do"},
		{7, 'f', fleet.Failing, 1, "absent", ""},
		{11, 'u', fleet.Incomplete, 3, "", "cannot read /proc/iomem: permission denied"},
		{17, 'w', fleet.Compliant, 0, "9000", "jumbo frames cost memory here"},
		{23, 'p', fleet.Pending, 10, "default_hugepagesz=2M", ""},
		{29, 'f', fleet.Failing, 1, "0 pages of 1G", ""},
		{31, 'e', fleet.Incomplete, 3, "", "hostcheck failed: index out of range"},
		{37, 'v', fleet.Compliant, 0, "IOMMU off", ""},
	}
	random := rand.New(rand.NewPCG(1, 2))
	byVerdicts := map[string][]int{}
	var verdicts []string
	hosts := make([]fleet.Host, n)
	got := map[[2]int][]int{} // hosts of an odd and a variety of it
	for i := range n {
		kernel, boot, at := "6.1.0-31-amd64", fmt.Sprintf("boot-%d", i), fmt.Sprintf("2026-11-27T23:%02d:00Z", i%60)
		arch := "amd64"
		if i%9 == 4 {
			kernel = "6.12.9-arm64"
			arch = "arm64"
		}
		hosts[i] = fleet.Host{
			Name: fmt.Sprintf("node%05d", i+1), Verdict: fleet.Compliant, Kernel: &kernel, Arch: &arch, BootID: &boot, CapturedAt: &at, Profile: "sha256:1f", Version: "v1",
			Labels: map[string]string{"rack": fmt.Sprintf("r%03d", i/40+1), "role": []string{"gpu", "storage"}[i/40%2]},
		}
		v := []byte(calm)
		if i/40 == 2 {
			v[52] = 'w'
		}
		if random.IntN(min(50, max(3, n/20))) == 0 {
			k := random.IntN(len(odd))
			o := odd[k]
			v[o.at] = o.letter
			hosts[i].Verdict, hosts[i].Exit = o.verdict, o.exit
			variety := random.IntN(5)
			got[[2]int{k, variety}] = append(got[[2]int{k, variety}], i)
		}
		key := string(v)
		if byVerdicts[key] == nil {
			verdicts = append(verdicts, key)
		}
		byVerdicts[key] = append(byVerdicts[key], i)
	}
	name := func(all []int) string {
		var names []string
		for _, i := range all {
			names = append(names, hosts[i].Name)
		}
		return fleet.Fold(names)
	}
	slices.SortStableFunc(verdicts, func(a, b string) int { return len(byVerdicts[b]) - len(byVerdicts[a]) })
	for i, key := range verdicts {
		all := byVerdicts[key]
		c := fleet.Cluster{N: len(all), Hosts: name(all), Verdict: hosts[all[0]].Verdict, Verdicts: key}
		for j := range key {
			if i > 0 && key[j] != verdicts[0][j] {
				c.Differs = append(c.Differs, fleet.Differs{Check: f.Checks[j].ID, Here: fleet.Word(key[j]), Usual: fleet.Word(verdicts[0][j])})
			}
			counts := &f.Checks[j].Counts
			*map[byte]*int{'f': &counts.Fail, 'e': &counts.Error, 'w': &counts.Warn, 'p': &counts.Pending, 'u': &counts.Unknown, 'v': &counts.Waived, 'o': &counts.Pass, 's': &counts.Skip, '.': &counts.Absent}[key[j]] += len(all)
		}
		for _, h := range all {
			hosts[h].Cluster = i
		}
		f.Clusters = append(f.Clusters, c)
	}
	f.Hosts = hosts
	for k, o := range odd {
		for variety := range 5 {
			all := got[[2]int{k, variety}]
			if all == nil {
				continue
			}
			c := fleet.Case{Status: check.Fail, Pending: o.letter == 'p', Waived: o.letter == 'v', Subject: fmt.Sprintf("0000:%d3:00.0 ens%d", variety, variety), Want: "32 GT/s x16", Got: o.got, Why: o.why, Next: "reseat the card, then look again", N: len(all), Hosts: name(all)}
			switch o.letter {
			case 'u':
				c.Status = check.Unknown
			case 'w':
				c.Status = check.Warn
			case 'e':
				c.Status = check.Error
			}
			f.Checks[o.at].Cases = append(f.Checks[o.at].Cases, c)
			f.Outliers = append(f.Outliers, fleet.Outlier{Check: f.Checks[o.at].ID, Subject: c.Subject, What: "got", Value: o.got, Usual: "32 GT/s x16", N: len(all), Of: n, Share: float64(len(all)) / float64(n), Hosts: c.Hosts})
		}
	}
	if n > 120 {
		for i := range 4 {
			f.Checks[52].Cases = append(f.Checks[52].Cases, fleet.Case{Status: check.Warn, Want: "28.39.2048", Got: fmt.Sprintf("28.36.10%d0", i), N: 10, Hosts: fmt.Sprintf("node[%05d-%05d]", 81+10*i, 90+10*i)})
		}
		f.Outliers = append(f.Outliers, fleet.Outlier{What: "kernel", Value: "6.12.9-arm64", Usual: "6.1.0-31-amd64", N: n / 9, Of: n, Share: 1.0 / 9, Norm: "arch=arm64", Hosts: "node00005"})
	}
	for i := range hosts {
		s := &f.Summary
		s.Hosts++
		switch hosts[i].Verdict {
		case fleet.Failing:
			s.Failing++
		case fleet.Incomplete:
			s.Incomplete++
		case fleet.Pending:
			s.Pending++
		default:
			s.Compliant++
			if strings.Contains(f.Clusters[hosts[i].Cluster].Verdicts, "w") {
				s.Warning++
			}
		}
	}
	f.Summary.Lines, f.Summary.Problems, f.Summary.Repeated, f.Summary.Exit = n+3, 2, 1, 1
	f.Problems = []fleet.Problem{
		{Source: "reports.jsonl", Line: 17, Why: "the line ends in the middle of a report", Lost: true},
		{Source: "reports.jsonl", Line: 41, Host: "node00002", Why: "an older report of the same host"},
	}
	f.Since = &fleet.Since{Source: "yesterday.json", Hosts: n - 1, New: 1, NewHosts: "node00003"}
	f.Changed = []fleet.Changed{{Check: f.Checks[3].ID, Before: "pass", After: "fail", N: 1, Hosts: "node00002"}, {Check: f.Checks[7].ID, Before: "fail", After: "pass", N: 2, Hosts: "node[00001,00003]"}}
	f.Scattered = 41
	return f
}

func fleetHTML(t *testing.T, f *fleet.Fleet) string {
	t.Helper()
	b, err := report.FleetHTML(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFleetPageStructure(t *testing.T) {
	for n, links := range map[int]int{2: 20, 300: 150, 3000: 300} {
		inert(t, fleetHTML(t, fleetOf(n)), links)
	}
	empty, err := report.FleetHTML(&fleet.Fleet{Schema: fleet.Schema, Summary: fleet.Summary{Exit: report.ExitIncomplete}})
	if err != nil || !strings.Contains(string(empty), "NO HOST: there is no usable report") || !strings.Contains(string(empty), `class="verdict unsure"`) {
		t.Errorf("a fleet without a host: %v", err)
	}
}

// The whole of a small page, but for its style sheet.
func TestFleetPageGolden(t *testing.T) {
	s := fleetHTML(t, fleetOf(3))
	s = regexp.MustCompile(`(?s)<style>.*</style>`).ReplaceAllString(s, "<style></style>")
	s = regexp.MustCompile(`sha256-[A-Za-z0-9/=]+(&#43;[A-Za-z0-9/=]*)*`).ReplaceAllString(s, "sha256-")
	golden(t, "report/fleet.html", s)
}

// What the page says first, for each way that a fleet can be.
func TestFleetPageVerdict(t *testing.T) {
	for want, s := range map[string]fleet.Summary{
		"bad ✗ 1 OF 1,000 HOSTS IS NOT FIT":                   {Hosts: 1000, Failing: 1, Incomplete: 3, Compliant: 996, Exit: 1},
		"bad ✗ THE HOST IS NOT FIT":                           {Hosts: 1, Failing: 1, Exit: 1},
		"unsure ? 3 OF 10 HOSTS COULD NOT BE JUDGED":          {Hosts: 10, Incomplete: 3, Pending: 1, Compliant: 6, Exit: 3},
		"unsure ? INCOMPLETE: not every report could be used": {Hosts: 10, Compliant: 10, Problems: 1, Exit: 3},
		"uneasy ↻ 2 OF 10 HOSTS ARE FIT AFTER THE NEXT BOOT":  {Hosts: 10, Pending: 2, Compliant: 8, Exit: 10},
		"uneasy ! ALL FIT, 4 OF 10 HOSTS with warnings":       {Hosts: 10, Compliant: 10, Warning: 4},
		"good ✓ ALL 1,234,567 FIT":                            {Hosts: 1234567, Compliant: 1234567},
		"unsure ? INCOMPLETE":                                 {Hosts: 10, Compliant: 10, Exit: 130},
		"unsure ? NO HOST: there is no usable report":         {Problems: 2, Exit: 3},
	} {
		out := fleetHTML(t, &fleet.Fleet{Summary: s})
		m := regexp.MustCompile(`<div class="verdict (\w+)">\n<p class="word"><span aria-hidden="true">(.)</span> ([^<]*)</p>`).FindStringSubmatch(out)
		if m == nil || strings.Join(m[1:], " ") != want {
			t.Errorf("%+v: %q, not %q", s, m, want)
		}
	}
}

// fleetSeeded is a fleet with s in every place that a report fills.
func fleetSeeded(s string) *fleet.Fleet {
	f := fleetOf(150)
	fill(reflect.ValueOf(f).Elem(), s)
	for i := range f.Hosts {
		h := &f.Hosts[i]
		h.Labels = map[string]string{s: fmt.Sprint(s, i/40), "rack": fmt.Sprint(s, i/30)}
		h.Verdict = []string{fleet.Failing, fleet.Compliant, fleet.Incomplete, fleet.Pending}[i%4]
	}
	for i := range f.Clusters {
		f.Clusters[i].Verdicts = strings.Repeat("fewpuvos.x", 6)
		f.Clusters[i].Hosts = s + "[1-3]"
	}
	for i := range f.Checks {
		f.Checks[i].ID = fmt.Sprint("x.", s, i)
		if i%2 == 0 {
			f.Checks[i].Cases = []fleet.Case{{Status: check.Status(s), Subject: s, Want: s, Got: s, Why: s, Next: s, Hosts: s, N: 2}}
			f.Checks[i].Counts.Fail = 1
		}
	}
	f.Outliers[0].Norm = ""
	return f
}

func TestFleetPageHostile(t *testing.T) {
	s, calm := fleetHTML(t, fleetSeeded(evil)), fleetHTML(t, fleetSeeded(harmless+strings.Repeat(".", len(evil)-len(harmless))))
	judgeHostile(t, s, calm, 500)
	style, _, _ := strings.Cut(s, "</style>")
	if strings.Contains(style[strings.Index(style, "<style>"):], "zq") {
		t.Error("a text from a host is in the style sheet")
	}
}

// A page stays small, whatever there is to show.
func TestFleetPageSize(t *testing.T) {
	for name, tt := range map[string]struct {
		f    *fleet.Fleet
		most int
	}{
		"10,000 hosts": {fleetOf(10_000), 1 << 20},
		"worst":        {worstFleet(), 6 << 20},
	} {
		if s := fleetHTML(t, tt.f); len(s) > tt.most {
			t.Errorf("%s: %d bytes", name, len(s))
		}
	}
}

// worstFleet has 2,000 hosts, all of them failing, each in its own way, with
// long names that do not fold.
func worstFleet() *fleet.Fleet {
	f := &fleet.Fleet{Schema: fleet.Schema}
	long := strings.Repeat("x", 4000)
	differs := slices.Repeat([]fleet.Differs{{Check: "area0.check0", Here: "fail", Usual: "pass"}}, 200)
	for i := range 200 {
		c := fleet.Check{ID: fmt.Sprintf("area%d.check%d", i%20, i), Title: long, Severity: check.High, Counts: fleet.Counts{Fail: 2000}}
		for j := range 20 {
			c.Cases = append(c.Cases, fleet.Case{Status: check.Fail, Subject: fmt.Sprint(j, long), Want: fmt.Sprint(j, long), Got: fmt.Sprint(j, long), Why: fmt.Sprint(j, long), Next: fmt.Sprint(j, long), N: 1000, Hosts: strings.Repeat(long, 20)})
		}
		f.Checks = append(f.Checks, c)
	}
	for i := range 2000 {
		name := fmt.Sprintf("%x-host", i*7919)
		f.Hosts = append(f.Hosts, fleet.Host{Name: name, Verdict: fleet.Failing, Cluster: i, Kernel: &long, Labels: map[string]string{"rack": long, "serial": name}})
		f.Clusters = append(f.Clusters, fleet.Cluster{N: 1, Hosts: name, Verdict: fleet.Failing, Verdicts: strings.Repeat("f", 200), Differs: differs})
		f.Outliers = append(f.Outliers, fleet.Outlier{What: long, Value: long, Usual: long, Group: long, Hosts: long})
		f.Problems = append(f.Problems, fleet.Problem{Source: long, Why: long})
		f.Changed = append(f.Changed, fleet.Changed{Check: long, Before: long, After: long, Hosts: long})
	}
	f.Summary = fleet.Summary{Hosts: 2000, Failing: 2000, Exit: 1}
	return f
}

// In a browser: what [chromium.Browser.Look] asks of a page; boxes and lists
// that hide rows, links that lead to what they say.
func TestFleetPageInChromium(t *testing.T) {
	c := chromium.New(t)
	c.Look("hostile", fleetHTML(t, fleetSeeded(evil)))
	page := fleetHTML(t, fleetOf(500))
	c.Look("fleet", page)
	file := filepath.Join(t.TempDir(), "fleet.html")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	c.As("light", 1200)
	c.Open("file://" + file)
	seen := func(selector string) (n int) {
		c.Eval(fmt.Sprintf("[...document.querySelectorAll(%q)].filter(e => e.checkVisibility()).length", selector), &n)
		return n
	}
	do := func(js string) { c.Eval(js+"; void document.body.offsetHeight", nil) }
	all, failing, rows := seen("article.row"), seen("article.finding.fail"), seen(".hostlist tbody tr")
	if all == 0 || failing == 0 || failing >= all || rows < 3 {
		t.Fatalf("%d findings, %d of them fail, %d hosts", all, failing, rows)
	}
	do("document.getElementById('q-f').click()")
	if n := seen("article.finding.fail:not(.alike)"); n != 0 {
		t.Errorf("without failures, %d are seen", n)
	}
	if n := seen("article.finding.unknown:not(.alike)"); n == 0 {
		t.Error("without failures, what is unknown is not seen either")
	}
	do("document.getElementById('q-f').click()")
	do("document.getElementById('a0').selected = true")
	if n, areas := seen("article.row"), seen("article.row.a0"); n != areas || n == 0 || n == all {
		t.Errorf("%d findings of one area, %d others; %d of all", areas, n-areas, all)
	}
	do("document.querySelector('.filter select').selectedIndex = 0")
	if n := seen("article.row"); n != all {
		t.Errorf("with the filter as at first, %d findings are seen, not %d", n, all)
	}
	do("location.hash = document.querySelector('.pick').id")
	if n := seen(".hostlist tbody tr"); n == 0 || n == rows || seen(".only") != 1 {
		t.Errorf("by a label, %d hosts of %d are listed", n, rows)
	}
	// every cell of the heat map leads to a case of that verdict
	var wrong []string
	c.Eval(`[...document.querySelectorAll('.heat td a')].filter(a => { const to = document.getElementById(a.hash.slice(1)); return !to || !to.matches('.case.' + a.parentElement.className) }).map(a => a.hash)`, &wrong)
	if len(wrong) > 0 {
		t.Errorf("cells that lead to no case: %q", wrong)
	}
	var open bool
	do("location.hash = [...document.querySelectorAll('.cases .case')][0].id")
	if c.Eval("document.querySelector(':target').checkVisibility()", &open); !open {
		t.Error("a link to a folded case does not unfold it")
	}
}
