// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fleet"
)

// Lists of hosts take a bounded amount of memory, whatever the hosts are called
// and however often they are listed; short lists have room after long ones.
func TestLongLists(t *testing.T) {
	const hosts, checks = 2000, 70
	var findings []string
	for k := range checks {
		findings = append(findings, fmt.Sprintf(`{"check":"made.up%d","status":"fail"}`, k))
	}
	var b strings.Builder
	line := func(name string, findings ...string) {
		fmt.Fprintf(&b, `{"schema":"hostcheck.report/v1","tool":{},"host":{"name":%q},"profile":{},"summary":{"fail":%d,"exit":1},"findings":[%s]}`+"\n", name, len(findings), strings.Join(findings, ","))
	}
	for i := range hosts {
		name := strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprint(i)) // no number, so that they do not fold
		line(name+strings.Repeat("x", 240), findings...)
	}
	line("one", `{"check":"last.one","status":"fail"}`)
	f := merge(fleet.Options{}, b.String())
	size, empty := 0, 0
	for _, c := range f.Checks {
		for _, k := range c.Cases {
			size += len(k.Hosts)
			if k.Hosts == "" {
				empty++
			}
			if c.ID == "last.one" && k.Hosts != "one" || c.ID != "last.one" && k.N != hosts {
				t.Errorf("%s: %d hosts, %.20q", c.ID, k.N, k.Hosts)
			}
		}
	}
	if size > 24<<20 || len(f.Checks) != checks+1 || !strings.Contains(fmt.Sprint(whys(f)), fmt.Sprintf("%d lists of hosts are too long", empty)) {
		t.Errorf("%d bytes of lists, %d of them empty; problems %.300q", size, empty, whys(f))
	}
	if n := strings.Count(f.Clusters[0].Hosts, ",") + 1; n != hosts || f.Summary.Exit != 1 {
		t.Errorf("the cluster lists %d hosts", n)
	}
}
