// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"
)

func TestParseUnitLimit(t *testing.T) {
	for in, want := range map[string]Limit{
		"infinity":    {Unlimited, Unlimited},
		"65536":       {65536, 65536},
		"64K":         {65536, 65536},
		"8M":          {8 << 20, 8 << 20},
		"1G:infinity": {1 << 30, Unlimited},
		"1K:2K":       {1 << 10, 2 << 10},
		"100B":        {100, 100},
	} {
		if got, ok := parseUnitLimit(in); !ok || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "unlimited", "-1", "8Q", "2K:1K", "infinity:1K", "1:2:3", "99999999999E", "8388608E"} {
		if got, ok := parseUnitLimit(in); ok {
			t.Errorf("%q passes as %+v", in, got)
		}
	}
}

func TestParseProcessLimit(t *testing.T) {
	const text = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max locked memory         8388608              unlimited            bytes     \n"
	if got, ok := parseProcessLimit(text, "Max locked memory"); !ok || got != (Limit{8388608, Unlimited}) {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, bad := range []string{"", "Max locked memory", "Max locked memory a b", "Max locked memory -5 5"} {
		if got, ok := parseProcessLimit(bad, "Max locked memory"); ok {
			t.Errorf("%q passes as %+v", bad, got)
		}
	}
}

func TestLoginLimits(t *testing.T) {
	m := &Memlock{Logins: parseLimits(`# comment
* soft memlock unlimited # all
*   hard  memlock  1024
@hpc - memlock infinity
root - MEMLOCK -1
* soft nofile 5
* sometimes memlock 5
* - memlock many
* - memlock
`, "/f")}
	for domain, want := range map[string]struct {
		soft, hard int64
		from       string
	}{
		"*":    {1 << 20, 1 << 20, "/f:3"}, // the hard limit cuts the soft one
		"@hpc": {Unlimited, Unlimited, "/f:4"},
		"root": {Unlimited, Unlimited, "/f:5"},
	} {
		soft, hard, from := m.Login(domain)
		if soft == nil || hard == nil || *soft != want.soft || *hard != want.hard || from != want.from {
			t.Errorf("%s: %v, %v, %q", domain, soft, hard, from)
		}
	}
	if soft, hard, _ := m.Login("somebody"); soft != nil || hard != nil {
		t.Error("a domain without rules has a limit")
	}
}

// Drop-ins count by their names, whatever directory they are in; one of the
// same name in /etc hides that of /usr, and a link to /dev/null hides it, too.
func TestServiceDropIns(t *testing.T) {
	f := treeOf(t, `whole: /sys /proc
-- usr/lib/systemd/system/containerd.service --
[Service]
LimitMEMLOCK=1M
-- usr/lib/systemd/system/containerd.service.d/50-a.conf --
[Service]
LimitMEMLOCK=2M
-- usr/lib/systemd/system/containerd.service.d/60-b.conf --
[Service]
LimitMEMLOCK=3M
-- usr/lib/systemd/system/service.d/55-all.conf --
[Service]
LimitMEMLOCK=4M
-- etc/systemd/system/containerd.service.d/60-b.conf -> /dev/null --
-- etc/systemd/system/containerd.service.d/70-c.conf --
[Unit]
LimitMEMLOCK=5M
-- usr/lib/systemd/system/crio.service --
[Service]
-- etc/systemd/system/docker.service -> /dev/null --
-- usr/lib/systemd/system/docker.service --
[Service]
`)
	got := map[string]string{}
	for _, s := range f.Memlock().Services {
		got[s.Unit] = s.From
		if s.Unit == "containerd.service" && (s.Configured == nil || s.Configured.Soft != 4<<20) {
			t.Errorf("%+v", s.Configured)
		}
	}
	if len(got) != 2 || got["containerd.service"] != "/usr/lib/systemd/system/service.d/55-all.conf:2" || got["crio.service"] != got["containerd.service"] {
		t.Errorf("%v", got)
	}
}

func FuzzMemlock(f *testing.F) {
	f.Add("8M:infinity", "Max locked memory 65536 unlimited bytes\n", "* - memlock -1\n@a soft memlock 64\n")
	f.Fuzz(func(t *testing.T, unit, proc, conf string) {
		if l, ok := parseUnitLimit(unit); ok && (l.Soft < Unlimited || !enough(l.Hard, l.Soft)) {
			t.Errorf("%q: %+v", unit, l)
		}
		if l, ok := parseProcessLimit(proc, "Max locked memory"); ok && (l.Soft < Unlimited || l.Hard < Unlimited) {
			t.Errorf("%q: %+v", proc, l)
		}
		m := &Memlock{Logins: parseLimits(conf, "/f")}
		for _, r := range m.Logins {
			if soft, hard, from := m.Login(r.Domain); soft == nil && hard == nil || !strings.HasPrefix(from, "/f:") || r.Limit < Unlimited {
				t.Errorf("%q: %+v", conf, r)
			}
		}
	})
}
