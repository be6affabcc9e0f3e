// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/lab"
	"github.com/hostcheck/hostcheck/internal/report"
)

// TestBundle: a bundle of the guest replays, elsewhere in the guest and as
// nobody, to the verdict that is in it, byte for byte but for where it comes from.
func TestBundle(t *testing.T) {
	ctx := limit(t, 5*time.Minute)
	began := time.Now()
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "make it sick", spoil)
	must(t, ctx, g, "the bundle", "mkdir -m 755 /run/desk && hostcheck bundle create --redact none -o /run/desk/b.tar.gz -q && chmod 644 /run/desk/b.tar.gz")
	then := document[map[string]any](t, "its report", must(t, ctx, g, "its report", "tar -xzOf /run/desk/b.tar.gz report.json"))
	r := exits(t, ctx, g, "replay as nobody", int(then["summary"].(map[string]any)["exit"].(float64)), "cd /run/desk && setpriv --reuid 65534 --regid 65534 --clear-groups hostcheck --from b.tar.gz -f json")
	now := document[map[string]any](t, "replay", r.Out)
	for _, m := range []map[string]any{then, now} {
		delete(m["host"].(map[string]any), "source")
		delete(m["host"].(map[string]any), "captured_at")
	}
	if d := cmp.Diff(then, now); d != "" {
		t.Errorf("the replay differs:\n%s", d)
	}
	var rep report.Report
	if err := json.Unmarshal([]byte(r.Out), &rep); err != nil || len(rep.Findings) < 100 || rep.Summary.Fail == 0 {
		t.Errorf("%d findings, %+v, %v", len(rep.Findings), rep.Summary, err)
	}
	// the plan of the bundle is the plan of the host
	plan := func(step, from string) string {
		return exits(t, ctx, g, step, 1, "hostcheck plan sysctl"+from+" -f json | sed -n 's/^ *\"hash\": \"\\(.*\\)\",*$/\\1/p' | head -n1; exit 1").Out
	}
	if a, b := plan("the host's plan", ""), plan("the bundle's plan", " --from /run/desk/b.tar.gz"); a != b || a == "" {
		t.Errorf("the plans' hashes are %q and %q", a, b)
	}
	count("bundle", "a host replayed to the same verdict and plan", 1, allHeld(t), time.Since(began))
}
