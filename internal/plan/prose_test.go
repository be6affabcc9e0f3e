// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"

	"github.com/hostcheck/hostcheck/internal/plan"
)

func TestProse(t *testing.T) {
	for text, want := range map[string]string{
		"hostcheck --fix link.mtu --allow link":           "",
		"/usr/local/sbin/hostcheck undo 20260102":         "",
		"drain the host, then mlxfwreset -d 18:00.0":      "",
		"https://example.org/how says it":                 "by hand: https://example.org/how says it",
		"reboot":                                          "by hand: reboot",
		"reboot, when that is convenient":                 "by hand: reboot, when that is convenient",
		"  setpci -s 18:00.0 68.w=5000:f000":              "by hand: setpci -s 18:00.0 68.w=5000:f000",
		"/usr/sbin/update-grub":                           "by hand: /usr/sbin/update-grub",
		"LANG=C rm -rf x":                                 "by hand: LANG=C rm -rf x",
		"drain the host; reboot":                          "by hand: drain the host, then reboot",
		"modprobe tcp_bbr && sysctl -w a=b":               "by hand: modprobe tcp_bbr, then sysctl -w a=b",
		"see it with dmesg | grep mlx5; nothing else":     "",
		"sysctl -w a=b sets it; for good, write a file":   "by hand: sysctl -w a=b sets it; for good, write a file",
		"hostcheck undo; reboot":                          "by hand: hostcheck undo, then reboot",
		"`reboot`":                                        "by hand: , then reboot`",
		">/etc/passwd":                                    "by hand: >/etc/passwd",
		"mlxconfig -d 0000:18:00.0 set LINK_TYPE_P1=2":    "by hand: mlxconfig -d 0000:18:00.0 set LINK_TYPE_P1=2",
		"first on every switch port: ip link set mtu 900": "",
	} {
		if want == "" {
			want = text
		}
		if got := plan.Prose(text); got != want || !plan.IsProse(got) {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
