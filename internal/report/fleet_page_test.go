// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fleet"
	"github.com/hostcheck/hostcheck/internal/report"
)

// fleetOf is a fleet as a merge of so many reports gives it: racks of 40 hosts,
// 60 checks, and one host in fifty odd in one of eight ways.
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
		if random.IntN(50) == 0 || n < 10 && i == 1 {
			k := random.IntN(len(odd))
			o := odd[k]
			v[o.at] = o.letter
			hosts[i].Verdict, hosts[i].Exit = o.verdict, o.exit
			got[[2]int{k, random.IntN(5)}] = append(got[[2]int{k, random.IntN(5)}], i)
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
		f.Checks[52].Cases = append(f.Checks[52].Cases, fleet.Case{Status: check.Warn, Want: "28.39.2048", Got: "28.36.1010", N: 40, Hosts: "node[00081-00120]"})
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
