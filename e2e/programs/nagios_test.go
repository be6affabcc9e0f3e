// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/lab"
)

// nagiosMain is the configuration of a Nagios that checks everything at once;
// intervals are in seconds.
const nagiosMain = `log_file=/srv/nagios/nagios.log
cfg_dir=/srv/nagios/objects
object_cache_file=/srv/nagios/objects.cache
precached_object_file=/srv/nagios/objects.precache
status_file=/srv/nagios/status.dat
status_update_interval=1
nagios_user=nagios
nagios_group=nagios
command_file=/srv/nagios/nagios.cmd
lock_file=/srv/nagios/nagios.pid
temp_file=/srv/nagios/nagios.tmp
temp_path=/tmp
check_result_path=/srv/nagios/results
check_result_reaper_frequency=1
interval_length=1
service_inter_check_delay_method=n
service_check_timeout=60
execute_service_checks=1
retain_state_information=0
use_syslog=0
check_for_updates=0
date_format=iso8601
`

const nagiosObjects = `define timeperiod {
    timeperiod_name always
    alias always
    sunday 00:00-24:00
    monday 00:00-24:00
    tuesday 00:00-24:00
    wednesday 00:00-24:00
    thursday 00:00-24:00
    friday 00:00-24:00
    saturday 00:00-24:00
}
define command {
    command_name up
    command_line /bin/true
}
define contact {
    contact_name nobody
    host_notifications_enabled 0
    service_notifications_enabled 0
    host_notification_period always
    service_notification_period always
    host_notification_commands up
    service_notification_commands up
}
define host {
    host_name room
    address 127.0.0.1
    check_command up
    max_check_attempts 1
    check_interval 3600
    contacts nobody
}
`

// TestNagios: Nagios runs hostcheck by the shipped command, and sees the state,
// the line, the performance data and the long text; what is no verdict is
// unknown to it.
func TestNagios(t *testing.T) {
	ctx := limit(t, 8*time.Minute)
	r := rooms(t, ctx, "room")[0]
	t.Log(must(t, ctx, r, "version", "nagios4 --version | sed -n 2p"))
	plant(t, ctx, r, "rdma-intel", "/srv/good")
	plant(t, ctx, r, "rdma-intel-sick", "/srv/sick")
	plant(t, ctx, r, "vm-plain", "/srv/warned")
	must(t, ctx, r, "a token that is no good", "sed -i 's/$/ amd_iommu=on/' /srv/warned/proc/cmdline")
	push(t, ctx, r, "/srv/broken.yaml", "name: [\n", 0o644)

	command := regexp.MustCompile(`(?m)^ +command_line +(/usr/bin/hostcheck .*)$`).FindStringSubmatch(shipped(t, "nagios/hostcheck.cfg"))
	if command == nil {
		t.Fatal("hostcheck.cfg has no command for this machine")
	}
	services := []struct{ name, args, state, line, perfdata, long string }{
		{"good", "--root /srv/good", "0", "HOSTCHECK OK - FIT", "fail=0;;0;0 error=0;;;0 ", "unknown rxfrag.pools: "},
		{"sick", "--root /srv/sick", "2", "HOSTCHECK CRITICAL - NOT FIT: 4 fail, ", "fail=4;;0;0 error=0;;;0 ", "FAIL link.speed 0000:18:00.0 ens1np0: 200G, want at least 400G"},
		{"warned", "--root /srv/warned", "1", "HOSTCHECK WARNING - FIT, with warnings: 1 warn", "fail=0;;0;0 error=0;;;0 ", "warn cmdline.forbidden amd_iommu=on: "},
		{"gone", "--root /srv/gone", "3", "HOSTCHECK UNKNOWN - cannot use /srv/gone as a host root", "", ""},
		{"late", "--root /srv/good --timeout 1ns", "3", "HOSTCHECK UNKNOWN - INCOMPLETE: ", "fail=0;;0;0 error=0;;;0 ", "unknown "},
		{"slip", "--bogus", "3", "HOSTCHECK UNKNOWN - unknown flag --bogus", "", ""},
		{"profile", "--root /srv/good --profile /srv/broken.yaml", "3", "HOSTCHECK UNKNOWN - ", "", ""},
		{"live", "", "", "HOSTCHECK ", "fail=", ""}, // this machine, whatever it is like, as the user nagios
	}
	var objects strings.Builder
	objects.WriteString(nagiosObjects)
	for _, s := range services {
		fmt.Fprintf(&objects, "define command {\n command_name %s\n command_line %s %s\n}\n", s.name, command[1], s.args)
		fmt.Fprintf(&objects, "define service {\n use hostcheck\n host_name room\n service_description %s\n check_command %[1]s\n check_interval 3600\n max_check_attempts 1\n"+
			" check_period always\n contacts nobody\n}\n", s.name)
	}
	push(t, ctx, r, "/srv/nagios/nagios.cfg", nagiosMain, 0o644)
	push(t, ctx, r, "/srv/nagios/objects/hostcheck.cfg", shipped(t, "nagios/hostcheck.cfg"), 0o644)
	push(t, ctx, r, "/srv/nagios/objects/room.cfg", objects.String(), 0o644)
	must(t, ctx, r, "its directories", "mkdir /srv/nagios/results && chown -R nagios:nagios /srv/nagios")
	must(t, ctx, r, "Nagios takes the configuration", "nagios4 -v /srv/nagios/nagios.cfg")
	start(t, ctx, r, "nagios4 /srv/nagios/nagios.cfg", "/tmp/nagios.log")
	until(t, ctx, r, "everything was checked", fmt.Sprintf(`test "$(sed -n '/^servicestatus {/,/}/p' /srv/nagios/status.dat | grep -c has_been_checked=1)" = %d`, len(services)))

	seen := serviceStatus(must(t, ctx, r, "what Nagios made of it", "cat /srv/nagios/status.dat"))
	for _, s := range services {
		got := seen[s.name]
		if s.state != "" && got["current_state"] != s.state {
			t.Errorf("%s: state %s, want %s: %v", s.name, got["current_state"], s.state, got)
		}
		if !strings.HasPrefix(got["plugin_output"], s.line) || !strings.HasPrefix(got["performance_data"], s.perfdata) || s.perfdata == "" && got["performance_data"] != "" || !strings.Contains(got["long_plugin_output"], s.long) {
			t.Errorf("%s: Nagios has\n%s\n%s\n%s\nwant\n%s...\n%s...\n...%s...", s.name, got["plugin_output"], got["performance_data"], got["long_plugin_output"], s.line, s.perfdata, s.long)
		}
	}
	if got := seen["live"]; !regexp.MustCompile(`^HOSTCHECK (OK|WARNING|CRITICAL|UNKNOWN) - `).MatchString(got["plugin_output"]) || !regexp.MustCompile(` (pass|unknown)=[1-9]`).MatchString(got["performance_data"]) {
		t.Errorf("of this machine Nagios has %v", got)
	}
}

// serviceStatus reads the services of a status.dat.
func serviceStatus(text string) map[string]map[string]string {
	all := map[string]map[string]string{}
	var one map[string]string
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		k, v, ok := strings.Cut(l, "=")
		switch {
		case strings.HasSuffix(l, " {"):
			one = map[string]string{}
		case l == "}" && one["service_description"] != "":
			all[one["service_description"]] = one
		case ok && one != nil:
			one[k] = v
		}
	}
	return all
}

// plant puts a host of testdata/hosts into the room as a tree.
func plant(t *testing.T, ctx context.Context, r *lab.Room, host, dir string) {
	t.Helper()
	b, err := exec.CommandContext(ctx, "tar", "-C", fixture.Load(t, "../../testdata/hosts/"+host+".txtar").Root, "-c", ".").Output()
	if err != nil {
		t.Fatalf("step \"pack %s\": %v", host, err)
	}
	res, err := r.RunInput(ctx, "mkdir -p "+dir+" && tar -x -C "+dir+" && chmod 755 "+dir, b)
	if err != nil || res.Code != 0 {
		t.Fatalf("step \"plant %s\": %v, exit code %d: %s", host, err, res.Code, res.Err)
	}
}
