// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkStates are the values of hostcheck_check_status in their order: the
// first is -1, a pass 0, and what is worse is more.
var checkStates = []string{"skip", "pass", "waived", "pending", "unknown", "warn", "error", "fail"}

// Prometheus gives the report in the text format of Prometheus, as a textfile
// for node_exporter
// (https://prometheus.io/docs/instrumenting/exposition_formats/). Series have no
// subject: a host has as many as it has checks, and a few. Nothing in a series
// says when, because node_exporter refuses a file with timestamps; now is the
// value of one.
func Prometheus(r *Report, now time.Time) []byte {
	m := r.metrics(now)
	m.info(r)
	m.family("hostcheck_check_status", "Worst finding of the check: -1 skip (nothing here to judge), 0 pass, 1 waived, 2 pending a reboot, 3 unknown, 4 warn, 5 error, 6 fail.")
	worst := map[string]int{}
	var order []*Finding
	for i := range r.Findings {
		f := &r.Findings[i]
		level := slices.Index(checkStates, f.state()) - 1
		if was, known := worst[f.Check]; !known {
			order = append(order, f)
			worst[f.Check] = level
		} else {
			worst[f.Check] = max(was, level)
		}
	}
	for _, f := range order {
		m.series("hostcheck_check_status", worst[f.Check], "id", f.Check, "severity", string(f.Severity))
	}
	m.family("hostcheck_findings", "Findings by status; each is counted once.")
	s := &r.Summary
	for i, n := range []int{s.Skip, s.Pass, s.Waived, s.Pending, s.Unknown, s.Warn, s.Error, s.Fail} {
		m.series("hostcheck_findings", n, "status", checkStates[i])
	}
	m.family("hostcheck_reboot_pending", "1 where something is configured that holds from the next boot on.")
	m.series("hostcheck_reboot_pending", min(s.Pending, 1))
	return m.Bytes()
}

// PrometheusUnjudged is what stands in the textfile of a host that was not
// judged at all: the exit code, and no verdict on any check.
func PrometheusUnjudged(t Tool, code int, now time.Time) []byte {
	r := &Report{Tool: t, Summary: Summary{Exit: code}}
	m := r.metrics(now)
	m.info(r)
	return m.Bytes()
}

// metrics writes one textfile.
type metrics struct{ bytes.Buffer }

// metrics begins with what holds of every run.
func (r *Report) metrics(now time.Time) *metrics {
	m := &metrics{}
	m.family("hostcheck_last_run_timestamp_seconds", "When the host was sampled, in seconds since 1970.")
	m.series("hostcheck_last_run_timestamp_seconds", int(now.Unix()))
	m.family("hostcheck_exit_code", "Exit code of the run: 0 compliant, 1 findings remain, 2 not run (usage, profile), 3 incomplete, 10 pending a reboot, above 128 interrupted.")
	m.series("hostcheck_exit_code", r.Summary.Exit)
	return m
}

func (m *metrics) info(r *Report) {
	m.family("hostcheck_info", "What judged the host, and by which profile; always 1.")
	m.series("hostcheck_info", 1, "version", r.Tool.Version, "profile_hash", r.Profile.Hash,
		"intent", r.Profile.Intent, "intent_source", r.Profile.IntentSource)
}

func (m *metrics) family(name, help string) {
	_, _ = fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// series writes one sample; labels are names and values in turn.
func (m *metrics) series(name string, value int, labels ...string) {
	m.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		m.WriteString([]string{"{", ","}[min(i, 1)] + labels[i] + `="` + labelEscapes.Replace(Clean(labels[i+1])) + `"`)
	}
	if len(labels) > 0 {
		m.WriteByte('}')
	}
	m.WriteString(" " + strconv.Itoa(value) + "\n")
}
