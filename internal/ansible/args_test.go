// SPDX-License-Identifier: Apache-2.0

package ansible

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCalled(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want bool
	}{
		{[]string{"/root/.ansible/tmp/ansible-tmp-1-2-3/AnsiballZ_hostcheck", "/root/.ansible/tmp/ansible-tmp-1-2-3/args"}, true},
		{[]string{"AnsiballZ_hostcheck"}, false},
		{[]string{"AnsiballZ_hostcheck", "--help"}, false},
		{[]string{"AnsiballZ_hostcheck", "a", "b"}, false},
		{[]string{"hostcheck", "/root/.ansible/tmp/args"}, false},
		{[]string{"/AnsiballZ_x/hostcheck", "args"}, false},
		{nil, false},
	} {
		if got := Called(c.argv); got != c.want {
			t.Errorf("%v: %v", c.argv, got)
		}
	}
}

// core is what ansible-core 2.14 adds to the arguments of each task.
const core = `"_ansible_check_mode": true, "_ansible_no_log": false, "_ansible_debug": false, "_ansible_diff": true, "_ansible_verbosity": 0,
	"_ansible_version": "2.14.18", "_ansible_module_name": "hostcheck", "_ansible_syslog_facility": "LOG_USER",
	"_ansible_selinux_special_fs": ["fuse", "nfs"], "_ansible_string_conversion_action": "warn", "_ansible_socket": null,
	"_ansible_shell_executable": "/bin/sh", "_ansible_keep_remote_files": false, "_ansible_tmpdir": "/root/.ansible/tmp/x/", "_ansible_remote_tmp": "~/.ansible/tmp"`

func TestParse(t *testing.T) {
	for in, want := range map[string]Args{
		`{}`:                {State: Checked},
		`{` + core + `}`:    {State: Checked, Check: true, Diff: true},
		`{"state":"fixed"}`: {State: Fixed},
		`{"state":"undone","txn":"20260101T000000-abcd"}`: {State: Undone, Txn: "20260101T000000-abcd"},
		// what a role leaves of variables that nobody set
		`{"state":"checked","allow":[],"txn":"","only":null,"set":{},"timeout":""}`: {State: Checked},
		`{"only":["link","sysctl.*"],"skip":"irq, numa"}`:                           {State: Checked, Only: []string{"link", "sysctl.*"}, Skip: []string{"irq", "numa"}},
		`{"set":{"b.c":16,"a":true,"l":["x","y"]}}`:                                 {State: Checked, Set: []string{"a=true", "b.c=16", `l=["x","y"]`}},
		`{"set":"a=1,2"}`:                        {State: Checked, Set: []string{"a=1,2"}},
		`{"set":["a=1,2","b=3"]}`:                {State: Checked, Set: []string{"a=1,2", "b=3"}},
		`{"timeout":90,"fail_on":"warn"}`:        {State: Checked, Timeout: 90 * time.Second, FailOn: "warn"},
		`{"timeout":"1m30s","root":"/mnt"}`:      {State: Checked, Timeout: 90 * time.Second, Root: "/mnt"},
		`{"timeout":"0.5","intent":"guest"}`:     {State: Checked, Timeout: 500 * time.Millisecond, Intent: "guest"},
		`{"profile":"rdma-400g,/etc/site.yaml"}`: {State: Checked, Profile: []Layer{{Name: "rdma-400g"}, {Name: "/etc/site.yaml"}}},
		`{"profile":{"name":"r\ud83d\ude00ck"}}`: {State: Checked, Profile: []Layer{{Text: []byte("{\n  \"name\": \"r😀ck\",\n  \"schema\": \"hostcheck.profile/v1\"\n}\n")}}},
		`{"profile":["mlx5",{"schema":"x/v2","n":9007199254740993}]}`: {State: Checked, Profile: []Layer{{Name: "mlx5"},
			{Text: []byte("{\n  \"n\": 9007199254740993,\n  \"schema\": \"x/v2\"\n}\n")}}},
		`{"state":"fixed","allow":"link,boot","allow_mgmt":"Yes","confirm":"auto","plan_hash":"` + strings.Repeat("0a", 32) + `"}`: {State: Fixed,
			Allow: []string{"link", "boot"}, AllowMgmt: true, Confirm: "auto", PlanHash: strings.Repeat("0a", 32)},
		`{"state":"fixed","allow_mgmt":0}`: {State: Fixed},
	} {
		got, err := Parse([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", in, err, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "file is empty",
		" \n":                               "file is empty",
		"null":                              "want one JSON object",
		"[]":                                "want one JSON object",
		`{"state":"fixed"`:                  "want one JSON object",
		`{"state":"fixed"} x`:               "want one JSON object",
		`{"_ansible_check_mode":"yes"}`:     `_ansible_check_mode must be true or false, not "\"yes\""`,
		`{"_ansible_check_mode":null}`:      "_ansible_check_mode must be true or false",
		`{"_ansible_diff":1}`:               "_ansible_diff must be true or false",
		`{"stat":"fixed"}`:                  `unknown option "stat"; known: allow, allow_mgmt, confirm, fail_on, intent, only, plan_hash, profile, root, set, skip, state, timeout, txn`,
		`{"_ansiblex":1}`:                   `unknown option "_ansiblex"`,
		`{"state":"present"}`:               `option state: want checked or fixed or confirmed or undone, not "present"`,
		`{"state":["fixed"]}`:               "option state: want a text",
		`{"allow":"link"}`:                  "option allow goes with state fixed, not with checked",
		`{"state":"fixed","txn":"x"}`:       "option txn goes with state confirmed or undone, not with fixed",
		`{"state":"undone","only":"x"}`:     "option only goes with state checked or fixed",
		`{"state":"fixed","allow":"all"}`:   `option allow: want link or boot, not "all"`,
		`{"state":"fixed","allow":[{}]}`:    "option allow: want a text",
		`{"state":"fixed","allow":{"a":1}}`: "option allow: want a list of texts",
		`{"state":"fixed","allow_mgmt":"perhaps"}`: `option allow_mgmt: want true or false, not "perhaps"`,
		`{"state":"fixed","plan_hash":"ABC"}`:      "option plan_hash: want the 64 hexadecimal digits",
		`{"timeout":-1}`:                           "option timeout: want a time such as 90s",
		`{"timeout":"NaN"}`:                        "option timeout: want a time such as 90s",
		`{"timeout":1e300}`:                        "option timeout: want a time such as 90s",
		`{"set":{"a":{"b":1}}}`:                    "option set: a: want a value",
		`{"profile":[["x",{}]]}`:                   "option profile: want names of profiles",
		`{"root":"a\u0000b"}`:                      "NUL byte",
	} {
		if _, err := Parse([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

// A task that asks for check mode is in check mode or refused, whatever else it
// holds; what was understood is what a task may hold.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"state":"fixed",` + core + `,"allow":["link"],"set":{"a.b":[1]},"profile":[{"x":{"y":1}},"z"],"timeout":"90"}`))
	f.Add([]byte(`{"_ansible_check_mode":true,"_ansible_check_mode":false}`))
	f.Add([]byte(`{"timeout":1e9,"skip":"a,b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Parse(b)
		if err != nil {
			if err.Error() == "" {
				t.Error("no reason")
			}
			return
		}
		var all map[string]any
		if err := json.Unmarshal(b, &all); err != nil || a.Check != (all["_ansible_check_mode"] == true) {
			t.Errorf("check mode %v, want %v (%v)", a.Check, all["_ansible_check_mode"], err)
		}
		if !slices.Contains(States, a.State) || a.Timeout < 0 {
			t.Errorf("%+v", a)
		}
		if a.State != Fixed && (a.Allow != nil || a.AllowMgmt || a.PlanHash != "") {
			t.Errorf("what loosens a fix goes with another state: %+v", a)
		}
		for _, l := range a.Profile {
			if l.Text != nil && l.Name != "" {
				t.Errorf("a layer with a name and a text: %+v", l)
			}
			if l.Text != nil && !json.Valid(l.Text) {
				t.Errorf("a profile that is no JSON: %q", l.Text)
			}
		}
	})
}
