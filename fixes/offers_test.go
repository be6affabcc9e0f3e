// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// trialHost is a fixture of a check on which it can be run again and again.
type trialHost struct {
	*testing.T
	*fixture.Fixture
	path  string
	check *check.Check
}

func (h trialHost) findings(root string) []check.Finding {
	h.Helper()
	return h.judge(root, h.check)[0].Findings
}

func (h trialHost) judge(root string, list ...*check.Check) []check.Result {
	h.Helper()
	live, err := host.Open(root, host.Options{})
	if err != nil {
		h.Fatal(err)
	}
	defer live.Close()
	out, err := trial.Run(live, list, trial.Options{Profile: h.Profile, Set: h.Set, Intent: h.Intent, Dir: filepath.Dir(h.path)})
	if err != nil {
		h.Fatal(err)
	}
	return out.Results
}

func (h trialHost) wishes(root string) (wishes []plan.Wish) {
	h.Helper()
	for _, f := range h.findings(root) {
		wishes = append(wishes, f.Fix...)
	}
	return wishes
}

func anyCheck(*check.Check) bool { return true }

// eachFailing runs f for the fixtures in which one of these checks fails or warns.
func eachFailing(t *testing.T, of func(*check.Check) bool, f func(trialHost)) {
	t.Helper()
	paths, err := filepath.Glob("../testdata/checks/*/*.txtar")
	if err != nil || len(paths) < 100 {
		t.Fatalf("%d fixtures: %v", len(paths), err)
	}
	for _, p := range paths {
		id, name := filepath.Base(filepath.Dir(p)), strings.TrimSuffix(filepath.Base(p), ".txtar")
		if word, _, _ := strings.Cut(name, "-"); word != "fail" && word != "warn" {
			continue
		}
		i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == id })
		if i < 0 || !of(checks.All()[i]) {
			continue
		}
		t.Run(id+"/"+name, func(t *testing.T) {
			f(trialHost{t, fixture.Load(t, p), p, checks.All()[i]})
		})
	}
}

var tierOrder = []plan.Tier{"", plan.Firmware, plan.Safe, plan.Link, plan.Boot} // firmware counts only by itself

// Every wish that a check makes is one that some verb takes: it becomes a
// change, or is refused for a reason that lies in the host. A check says truly
// how far its fixes go, and no two of them want one setting to differ.
func TestOffers(t *testing.T) {
	highest := map[string]plan.Tier{}
	kinds := map[string]bool{}
	eachFailing(t, anyCheck, func(h trialHost) {
		var wishes []plan.Wish
		findings := h.findings(h.Root) // beside others it may follow from one of them
		for _, r := range h.judge(h.Root, checks.All()...) {
			for _, f := range r.Findings {
				wishes = append(wishes, f.Fix...)
			}
			findings = append(findings, r.Findings...)
		}
		for _, f := range findings {
			if len(f.Fix) > 0 && f.Status != check.Fail && f.Status != check.Warn {
				h.Errorf("%s %s offers a fix", f.Status, f.Subject)
			}
			for _, w := range f.Fix {
				if w.Check != f.Check || w.Why == "" || w.Want == "" || w.Got == w.Want && w.Kind != "sysctl" { // a sysctl may lack its file alone
					h.Errorf("%+v", w)
				}
				kinds[w.Kind] = true
				if slices.Index(tierOrder, w.Tier) > slices.Index(tierOrder, highest[f.Check]) {
					highest[f.Check] = w.Tier
				}
			}
		}
		e := &plan.Engine{Root: h.Root, Tool: "test", Verbs: fixes.All(), Machine: &plan.Machine{}}
		p := plantest.Make(h.T, e, wishes)
		for _, r := range p.Refused {
			for _, step := range r.Steps {
				if said := plan.Prose(step); !plan.IsProse(said) {
					h.Errorf("a program could run the step: %s", said)
				}
			}
			for _, malformed := range []string{
				"knows no settings of kind", "is not a pool", "is not a setting of ethtool", "not one of the files that hostcheck writes", "is not seven of",
				"is not a token", "a token is", "hostcheck does not do this", "data center bridging has no", "is not the name of", "is not a count", "is not a number", "no congestion control setting", "page migration has no setting", "is no driver of copy engines",
			} {
				if strings.Contains(r.Reason+strings.Join(r.Steps, "\n"), malformed) {
					h.Errorf("%s = %q: %s", r.Setting, r.Want, r.Reason)
				}
			}
		}
	})
	for _, c := range checks.All() {
		if c.FixTier != highest[c.ID] {
			t.Errorf("%s says that its fixes have tier %q; in its fixtures the highest is %q", c.ID, c.FixTier, highest[c.ID])
		}
	}
	for _, k := range []string{"hugepages", "sysfs", "ethtool", "cmdline", "acs", "dcb", "dcqcn", "sriov", "manual", "modprobe", "unit", "migration"} {
		if !kinds[k] {
			t.Errorf("no fixture has a wish of kind %s", k)
		}
	}
}

// fakes are the verbs that need no process, over a tree that plays a machine.
func fakes(root string) *plan.Engine {
	pools, files, vfs, dcbm := hugetlb(root, 1<<40), sysfsKnob(root), vfKernel(root), controls{root: root}
	return &plan.Engine{
		Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Sysfs{}, fixes.Hugepages{}, fixes.Ethtool{AllowMgmt: true, Set: tunnelKernel(root, setAnswer(root))}, fixes.DCB{Send: dcbKernel(root, true)}, fixes.DCQCN{}, fixes.SRIOV{}, fixes.Migration{Probe: dcbm.probe}},
		Machine: &plan.Machine{Knob: func(p, s string) error {
			switch {
			case strings.HasSuffix(p, "/nr_hugepages"):
				return pools(p, s)
			case strings.HasSuffix(p, "/sriov_numvfs"):
				return vfs(p, s)
			case strings.HasPrefix(p, v6Dir):
				return dcbm.knob(p, s)
			case strings.HasSuffix(p, "/traffic_class"):
				return plantest.Knob(root)(p, "Global tclass="+s)
			}
			return files(p, s)
		}},
	}
}

// The law of the closed loop with the checks themselves: one fails, its fix is
// planned, applied and verified; then it passes, nothing more is planned, and
// undo gives back the tree.
func TestChecksClosedLoop(t *testing.T) {
	done := map[string]bool{}
	eachFailing(t, anyCheck, func(h trialHost) {
		rewriteCapture(h.T, h.Root)
		online := func() []plan.Wish { // what a boot brings has its own tests
			return slices.DeleteFunc(h.wishes(h.Root), func(w plan.Wish) bool { return w.Tier == plan.Boot })
		}
		wishes := online()
		e := fakes(h.Root)
		if len(wishes) == 0 || slices.ContainsFunc(wishes, func(w plan.Wish) bool {
			return !slices.ContainsFunc(e.Verbs, func(v plan.Verb) bool { return v.Kind() == w.Kind })
		}) {
			return
		}
		if err := os.MkdirAll(filepath.Join(h.Root, "/var/lib"), 0o755); err != nil {
			h.Fatal(err)
		}
		old := plantest.Snapshot(h.T, h.Root)
		p := plantest.Make(h.T, e, wishes)
		if len(p.Refused) > 0 {
			if why := p.Refused[0].Reason; !strings.Contains(why, "in use") && !strings.Contains(why, "undo could not bring back") {
				h.Fatalf("refused: %v: %s", p.Refused[0].Setting, why)
			}
			return
		}
		was := worst(h.findings(h.Root))
		holds := func(context.Context) error {
			if now := worst(h.findings(h.Root)); slices.Index(check.Statuses, now) <= slices.Index(check.Statuses, was) {
				return errors.New("it is still " + string(now))
			}
			return nil
		}
		r, err := e.Apply(h.Context(), p, plan.Options{Allow: []plan.Tier{plan.Link}, Verify: holds})
		if err != nil || r.Outcome != plan.Applied {
			h.Fatalf("apply: %v %+v", err, r)
		}
		if again := plantest.Make(h.T, e, online()); len(again.Changes) > 0 {
			h.Errorf("planned again: %+v", again.Changes)
		}
		if u, err := e.Undo(h.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
			h.Fatalf("undo: %v %+v", err, u)
		}
		if d := plantest.Diff(old, plantest.Snapshot(h.T, h.Root)); d != "" {
			h.Errorf("undo does not give back the tree:\n%s", d)
		}
		if holds(h.Context()) == nil {
			h.Error("it holds after undo")
		}
		done[h.check.ID] = true
	})
	for _, id := range []string{"hugepages.pool", "hugepages.memoryless", "cmdline.hugepages", "dcqcn.enabled", "dcqcn.cnp_dscp", "dcqcn.params", "dcqcn.tos", "dcqcn.pause", "dcqcn.trust", "dcqcn.pfc", "dcqcn.priority", "dcqcn.owner", "sriov.vfs", "sriov.autoprobe", "link.rings", "link.channels", "link.features", "irq.rps", "vxlan.offload", "vxlan.segmentation", "vxlan.receive", "system.thp", "migration.offload", "migration.engine", "migration.tiers", "migration.thp"} {
		if !done[id] {
			t.Errorf("%s was not taken through its loop", id)
		}
	}
}

// worst gives the worst status of some findings.
func worst(list []check.Finding) check.Status {
	f := slices.MinFunc(list, func(a, b check.Finding) int {
		return slices.Index(check.Statuses, a.Status) - slices.Index(check.Statuses, b.Status)
	})
	return f.Status
}

// rewriteCapture writes the recorded answers as the fake driver does.
func rewriteCapture(t *testing.T, root string) {
	t.Helper()
	p := filepath.Join(root, host.CaptureFile)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
