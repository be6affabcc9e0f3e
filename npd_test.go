// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/report"
)

// The configuration of a custom plugin monitor
// (k8s.io/node-problem-detector/pkg/custompluginmonitor/types, v1.36).
type (
	npdConfig struct {
		Plugin       string `json:"plugin"`
		PluginConfig struct {
			InvokeInterval string `json:"invoke_interval"`
			Timeout        string `json:"timeout"`
			MaxOutput      int    `json:"max_output_length"`
			Concurrency    int    `json:"concurrency"`
			UpdateMessage  bool   `json:"enable_message_change_based_condition_update"`
			SkipInitial    bool   `json:"skip_initial_status"`
		} `json:"pluginConfig"`
		Source     string         `json:"source"`
		Metrics    bool           `json:"metricsReporting"`
		Conditions []npdCondition `json:"conditions"`
		Rules      []npdRule      `json:"rules"`
	}
	npdCondition struct {
		Type    string `json:"type"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	npdRule struct {
		Type      string   `json:"type"`
		Condition string   `json:"condition"`
		Reason    string   `json:"reason"`
		Path      string   `json:"path"`
		Args      []string `json:"args"`
		Timeout   string   `json:"timeout"`
	}
)

const npdDir = "packaging/kubernetes/node-problem-detector"

// npdRun runs a plugin as node-problem-detector does: its time-out kills the
// process group, stdout counts up to 4 KiB and is cut at the configured length,
// and every exit code beyond 0 and 1 is unknown, that of a killed process, too.
func npdRun(t *testing.T, timeout time.Duration, most int, name string, args ...string) (state int, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	var stdout bytes.Buffer
	c.Stdout = &stdout
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	out := strings.TrimSpace(string(stdout.Bytes()[:min(stdout.Len(), 4096)]))
	if ctx.Err() != nil {
		out = "Timeout when running plugin " + name + ": state - " + c.ProcessState.String() + ". output - " + out
	}
	out = out[:min(len(out), most)]
	switch code := c.ProcessState.ExitCode(); code {
	case report.NPDOK, report.NPDProblem:
		return code, out
	}
	return report.NPDUnknown, out
}

func npdConfigs(t *testing.T) map[string]npdConfig {
	t.Helper()
	files, err := filepath.Glob(npdDir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	all := map[string]npdConfig{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		var c npdConfig
		if err := d.Decode(&c); err != nil || d.More() {
			t.Fatalf("%s: %v", f, err)
		}
		all[f] = c
	}
	return all
}

// The rules are ones that node-problem-detector takes: one per area and
// condition, and hostcheck ends before it is killed.
func TestNPDRules(t *testing.T) {
	where := map[string]string{}
	seconds := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			t.Fatalf("%q is no time: %v", s, err)
		}
		return d
	}
	for f, c := range npdConfigs(t) {
		p := c.PluginConfig
		global := seconds(p.Timeout)
		if c.Plugin != "custom" || c.Source == "" || p.MaxOutput < 80 || p.Concurrency < 1 {
			t.Errorf("%s: %+v", f, c)
		}
		if !p.SkipInitial {
			t.Errorf("%s: a node is in order before it is judged", f)
		}
		if all := time.Duration(len(c.Rules)) * global; all > seconds(p.InvokeInterval) {
			t.Errorf("%s: %d rules take up to %v, and begin anew every %s", f, len(c.Rules), all, p.InvokeInterval)
		}
		if len(c.Conditions) != len(c.Rules) {
			t.Errorf("%s: %d conditions and %d rules", f, len(c.Conditions), len(c.Rules))
		}
		for i, r := range c.Rules {
			k := c.Conditions[i]
			if r.Type != "permanent" || r.Condition != k.Type || r.Reason == k.Reason || r.Reason == "" || k.Reason == "" || k.Message == "" {
				t.Errorf("%s: %+v does not go with %+v", f, r, k)
			}
			if where[r.Condition] != "" {
				t.Errorf("%s is in %s and %s", r.Condition, where[r.Condition], f)
			}
			where[r.Condition] = f
			area := r.Args[0]
			if where[area] != "" || !slices.Contains(checks.Areas, area) {
				t.Errorf("%s: %q is no area, or has another rule in %s", f, area, where[area])
			}
			where[area] = f
			i := slices.Index(r.Args, "--timeout")
			if own, killed := seconds(r.Args[i+1]), seconds(r.Timeout); i < 0 || own+5*time.Second > killed || killed > global {
				t.Errorf("%s: %s: hostcheck ends after %v, it is killed after %v, and all rules have %v", f, area, own, killed, global)
			}
		}
	}
	for _, area := range checks.Areas {
		if where[area] == "" {
			t.Errorf("no rule judges %s", area)
		}
	}
}

// Each rule, run as node-problem-detector runs it, on a sick host: the condition
// is what the report says, and the message has the finding within the 80 bytes
// that the examples keep.
func TestNPDHarness(t *testing.T) {
	self, err := exec.LookPath("hostcheck")
	if err != nil {
		t.Fatal(err)
	}
	root := fixture.Load(t, "testdata/hosts/rdma-intel-sick.txtar").Root
	judge := func(words ...string) (rep report.Report) {
		out, _ := exec.Command(self, append(words, "--root", root, "-f", "json")...).Output() // exits 1
		if err := json.Unmarshal(out, &rep); err != nil {
			t.Fatal(err)
		}
		return rep
	}
	rep := judge()
	found := map[string]map[check.Status]int{}
	for _, f := range rep.Findings {
		area, _, _ := strings.Cut(f.Check, ".")
		if found[area] == nil {
			found[area] = map[check.Status]int{}
		}
		found[area][f.Status]++
	}
	states := map[int]int{}
	for f, c := range npdConfigs(t) {
		for _, r := range c.Rules {
			args := slices.Clone(r.Args)
			args[slices.Index(args, "/host")] = root
			state, message := npdRun(t, time.Minute, 80, self, args...)
			states[state]++
			want, n := report.NPDOK, found[r.Args[0]]
			switch {
			case n[check.Fail] > 0:
				want = report.NPDProblem
			case n[check.Pass]+n[check.Warn] == 0, n[check.Unknown]+n[check.Error] > n[check.Pass]:
				want = report.NPDUnknown
			}
			if state != want { // alone, an area does not know what another one has failed for
				rep := judge(r.Args[0])
				want = rep.NPDState(false)
			}
			if state != want || message == "" {
				t.Errorf("%s: %s: state %d, want %d (%v): %q", f, r.Condition, state, want, n, message)
			}
			if state == report.NPDProblem && !strings.Contains(message, " "+r.Args[0]+".") {
				t.Errorf("%s: the first 80 bytes name no check: %q", r.Condition, message)
			}
		}
	}
	if states[report.NPDOK] < 3 || states[report.NPDProblem] < 3 || states[report.NPDUnknown] < 3 {
		t.Errorf("states: %v", states)
	}
	// killed, and a mistake in the rule
	if state, message := npdRun(t, time.Millisecond, 80, self, "-f", "npd"); state != report.NPDUnknown || !strings.HasPrefix(message, "Timeout when running") {
		t.Errorf("killed: %d %q", state, message)
	}
	if state, message := npdRun(t, time.Minute, 80, self, "rdmaa", "-f", "npd"); state != report.NPDUnknown || !strings.Contains(message, `"rdmaa"`) {
		t.Errorf("a wrong area: %d %q", state, message)
	}
}
