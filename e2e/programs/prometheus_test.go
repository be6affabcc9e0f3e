// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// The textfile as packaging/prometheus writes it: into a directory of the user
// prometheus, linked to where node_exporter of Debian looks.
const (
	promFile = "/var/lib/hostcheck-prometheus/hostcheck.prom"
	promLink = "/var/lib/prometheus/node-exporter/hostcheck.prom"
)

// wanted is of a host what its room can hold: a setting of its network.
const wanted = `schema: hostcheck.profile/v1
name: site
layer: site
source: our build sheet
intent: guest
sysctl:
  keys:
    - {id: somaxconn, key: net.core.somaxconn, min: 16384, why: our programs ask for it}
`

// TestPrometheus: node_exporter serves what hostcheck writes, Prometheus raises
// the alerts of the shipped rules for the sick host and none for the healthy
// one, and a run while it is scraped is never seen half done.
func TestPrometheus(t *testing.T) {
	ctx := limit(t, 8*time.Minute)
	all := rooms(t, ctx, "monitor", "good", "sick")
	monitor, hosts := all[0], all[1:]
	t.Log(must(t, ctx, monitor, "versions", "prometheus --version | head -1; prometheus-node-exporter --version | head -1"))

	run := "HOSTCHECK_ONLY=sysctl.somaxconn " + unitCommand(t) // whatever the machine below is like
	for _, r := range hosts {
		must(t, ctx, r, "what the unit and the link of its head make", "install -d -o prometheus "+filepath.Dir(promFile)+" && ln -s "+promFile+" "+promLink)
		must(t, ctx, r, "what is wanted of the host", "mkdir -p /etc/hostcheck && cat >/etc/hostcheck/profile.yaml <<'end'\n"+wanted+"end")
	}
	good, sick := hosts[0], hosts[1]
	must(t, ctx, good, "a healthy host", "echo 65535 >/proc/sys/net/core/somaxconn")
	must(t, ctx, sick, "a sick host", "echo 100 >/proc/sys/net/core/somaxconn")
	exits(t, ctx, good, "the unit's command", 0, run)
	exits(t, ctx, sick, "the unit's command", 1, run)

	for _, r := range hosts {
		start(t, ctx, r, "setpriv --reuid prometheus --regid prometheus --clear-groups prometheus-node-exporter --collector.disable-defaults --collector.textfile --web.listen-address="+r.Address+":9100 --collector.textfile.directory="+filepath.Dir(promLink), "/tmp/node_exporter.log")
		until(t, ctx, r, "node_exporter answers", "curl -sf http://"+r.Address+":9100/metrics >/tmp/metrics && grep -q hostcheck_check_status /tmp/metrics")
	}

	push(t, ctx, monitor, "/tmp/p/hostcheck.rules.yml", shipped(t, "prometheus/hostcheck.rules.yml"), 0o644)
	push(t, ctx, monitor, "/tmp/p/hostcheck.test.yml", shipped(t, "prometheus/hostcheck.test.yml"), 0o644)
	must(t, ctx, sick, "the file is as Prometheus wants it", "promtool check metrics <"+promFile)
	must(t, ctx, monitor, "the rules do what their tests say", "cd /tmp/p && promtool test rules hostcheck.test.yml")
	// nobody waits ten minutes here
	atOnce := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(shipped(t, "prometheus/hostcheck.rules.yml"), "$1 0s")
	push(t, ctx, monitor, "/tmp/p/rules.yml", atOnce, 0o644)
	push(t, ctx, monitor, "/tmp/p/prometheus.yml", "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs:\n"+
		"- job_name: node\n  static_configs: [{targets: ['good:9100', 'sick:9100']}]\n", 0o644)
	must(t, ctx, monitor, "they and the configuration", "cd /tmp/p && promtool check config prometheus.yml")
	start(t, ctx, monitor, "cd /tmp/p && prometheus --config.file=prometheus.yml --storage.tsdb.path=/tmp/p/data --web.listen-address=127.0.0.1:9090", "/tmp/prometheus.log")

	alerts(t, ctx, monitor, "the sick host", "HostcheckFailing sick:9100 sysctl.somaxconn "+severityOf(t, ctx, sick, "sysctl.somaxconn"))
	until(t, ctx, monitor, "both hosts are scraped", `curl -sf http://127.0.0.1:9090/api/v1/query --data-urlencode 'query=count(hostcheck_check_status{id="sysctl.somaxconn"}) == 2' | grep -q '"value"'`)
	one := query(t, ctx, monitor, `hostcheck_check_status{id="sysctl.somaxconn"}`)
	if want := map[string]string{"good:9100": "0", "sick:9100": "6"}; !maps.Equal(one, want) {
		t.Errorf("the status is %v, want %v", one, want)
	}

	// a run that comes to no verdict is not the old good one
	must(t, ctx, sick, "healed", "echo 65535 >/proc/sys/net/core/somaxconn && "+run)
	must(t, ctx, good, "a slip in a profile", "cp /etc/hostcheck/profile.yaml /tmp && echo 'nonsense: 1' >>/etc/hostcheck/profile.yaml")
	exits(t, ctx, good, "the unit's command", 2, run)
	alerts(t, ctx, monitor, "no verdict", "HostcheckIncomplete good:9100  warning")
	// nor is a file that is gone
	must(t, ctx, good, "mended, and the other's file is gone", "cp /tmp/profile.yaml /etc/hostcheck && "+run)
	must(t, ctx, sick, "its file is gone", "rm "+promLink)
	alerts(t, ctx, monitor, "no file", "HostcheckMissing sick:9100  warning")

	// while it is written again and again, every scrape sees a whole file
	lines := must(t, ctx, good, "series of a whole file", "grep -c ^hostcheck_ "+promFile)
	start(t, ctx, good, "while :; do "+run+"; done", "/tmp/runs.log")
	got := must(t, ctx, good, "scrapes of five files", "cd /tmp && touch m && while [ $(grep ^node_textfile_mtime m | sort -u | wc -l) -lt 5 ]; do curl -sf 'http://"+good.Address+":9100/metrics?[1-20]' >>m || exit 9; done\n"+
		"awk '/^hostcheck_/ {n++} /^node_textfile_scrape_error/ {print n, $2; n = 0}' m | sort -u")
	if want := strings.TrimSpace(lines) + " 0\n"; got != want {
		t.Errorf("series and errors of the scrapes are %q, want %q in each", got, want)
	}
	if left := must(t, ctx, good, "nothing lies about", "ls -A "+filepath.Dir(promLink)); left != "hostcheck.prom\n" {
		t.Errorf("in the directory: %q", left)
	}
}

// unitCommand is what the shipped unit runs, by its user and with its
// capabilities, as a shell line.
func unitCommand(t *testing.T) string {
	t.Helper()
	value := map[string]string{}
	s := bufio.NewScanner(strings.NewReader(shipped(t, "prometheus/hostcheck-prometheus.service")))
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), "="); ok && !strings.HasPrefix(k, "#") {
			value[k] = v
		}
	}
	caps := strings.NewReplacer("CAP_", "+", " ", ",").Replace(strings.ToLower(value["AmbientCapabilities"]))
	caps = "-all," + strings.ReplaceAll(caps, "cap_", "+")
	if value["User"] != "prometheus" || value["AmbientCapabilities"] != value["CapabilityBoundingSet"] || !strings.Contains(value["ExecStart"], promFile) {
		t.Fatalf("the unit is another one: %v", value)
	}
	return "setpriv --reuid " + value["User"] + " --regid prometheus --clear-groups --no-new-privs --inh-caps=" + caps + " --ambient-caps=" + caps + " --bounding-set=" + caps + " " + value["ExecStart"]
}

// severityOf is the severity of the alert for a check.
func severityOf(t *testing.T, ctx context.Context, r *lab.Room, id string) string {
	t.Helper()
	var all []struct{ Severity string }
	if err := json.Unmarshal([]byte(must(t, ctx, r, "a check's severity", "hostcheck list -f json "+id)), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v: %v", all, err)
	}
	return map[string]string{"high": "critical", "medium": "warning", "low": "info", "info": "info"}[all[0].Severity]
}

// alerts waits until exactly these alerts fire in Prometheus: name, instance,
// check and severity of each.
func alerts(t *testing.T, ctx context.Context, r *lab.Room, step string, want ...string) {
	t.Helper()
	for {
		var got []string
		for _, l := range series(t, ctx, r, `ALERTS{alertstate="firing"}`) {
			got = append(got, strings.Join([]string{l.Metric["alertname"], l.Metric["instance"], l.Metric["id"], l.Metric["severity"]}, " "))
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		if ctx.Err() != nil || t.Context().Err() != nil {
			t.Fatalf("step %q: firing are %q, want %q", step, got, want)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// sample is one series with its value now.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// series asks Prometheus; none while it does not answer yet.
func series(t *testing.T, ctx context.Context, r *lab.Room, query string) []sample {
	t.Helper()
	res, err := r.Run(ctx, "curl -sfG http://127.0.0.1:9090/api/v1/query --data-urlencode 'query="+query+"'")
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	var answer struct{ Data struct{ Result []sample } }
	if res.Code == 0 {
		if err := json.Unmarshal([]byte(res.Out), &answer); err != nil {
			t.Fatalf("%v: %s", err, res.Out)
		}
	}
	return answer.Data.Result
}

// query gives a value for each instance.
func query(t *testing.T, ctx context.Context, r *lab.Room, q string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, s := range series(t, ctx, r, q) {
		got[s.Metric["instance"]], _ = s.Value[1].(string)
	}
	return got
}
