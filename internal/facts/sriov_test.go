// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"
)

const vfTree = `whole: /sys
-- etc/hostname --
a
-- sys/bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:01:00.0 --
-- sys/devices/pci0000:00/0000:01:00.0/class --
0x020000
-- sys/devices/pci0000:00/0000:01:00.0/driver -> ../../../bus/pci/drivers/mlx5_core --
-- sys/devices/pci0000:00/0000:01:00.0/sriov_totalvfs --
8
-- sys/devices/pci0000:00/0000:01:00.0/sriov_numvfs --
0
-- sys/devices/pci0000:00/0000:01:00.0/sriov_drivers_autoprobe --
1
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/address --
02:00:00:00:00:01
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/ifindex --
7
-- sys/devices/pci0000:00/0000:01:00.0/net/eth1/device -> ../../../0000:01:00.0 --
-- sys/class/net/eth1 -> ../../devices/pci0000:00/0000:01:00.0/net/eth1 --
`

// linkText is a .link file.
func linkText(p, match, vfs string) string {
	s := "-- " + p + " --\n[Match]\n" + match + "\n[Link]\nNamePolicy=path\n"
	if vfs != "" {
		s += "SR-IOVVirtualFunctions=" + vfs + "\n"
	}
	return s
}

const netDir, ruleDir = "etc/systemd/network/", "etc/udev/rules.d/"

// What makes virtual functions at boot, of whichever kind.
func TestSRIOVAtBoot(t *testing.T) {
	tests := []struct{ name, add, want string }{
		{"nothing", "", ""},
		{"by path", linkText(netDir+"10-a.link", "Path=pci-0000:01:00.0", "4"), "link /etc/systemd/network/10-a.link 4 sure"},
		{"of another device", linkText(netDir+"10-a.link", "Path=pci-0000:02:00.0", "4"), ""},
		{"by address", linkText(netDir+"10-a.link", "MACAddress=02:00:00:00:00:01", "4"), "link /etc/systemd/network/10-a.link 4 sure"},
		{"of another address", linkText(netDir+"10-a.link", "MACAddress=02:00:00:00:00:02", "4"), ""},
		{"by driver", linkText(netDir+"10-a.link", "Driver=mlx5*", "4"), "link /etc/systemd/network/10-a.link 4 sure"},
		{"by a property", linkText(netDir+"10-a.link", "Property=X=1", "4"), "link /etc/systemd/network/10-a.link 4 perhaps"},
		{"udev says that it did not match", linkText(netDir+"10-a.link", "Property=X=1", "4") + linkText("usr/lib/systemd/network/99-default.link", "OriginalName=*", "") +
			"-- run/udev/data/n7 --\nE:ID_NET_LINK_FILE=/usr/lib/systemd/network/99-default.link\n", ""},
		{"udev says that it did", linkText(netDir+"10-a.link", "Property=X=1", "4") + "-- run/udev/data/n7 --\nE:ID_NET_LINK_FILE=/etc/systemd/network/10-a.link\n",
			"link /etc/systemd/network/10-a.link 4 sure"},
		{"behind another", linkText(netDir+"20-a.link", "Path=pci-0000:01:00.0", "4") + linkText(netDir+"10-b.link", "OriginalName=*", ""),
			"link /etc/systemd/network/20-a.link 4 sure blocked"},
		{"no number", linkText(netDir+"10-a.link", "Path=pci-0000:01:00.0", "many"), "link /etc/systemd/network/10-a.link ? sure"},
		{"a rule by name", "-- " + ruleDir + "a.rules --\n# sriov_numvfs\n" + `KERNEL=="eth1", ATTR{device/sriov_numvfs}="4"` + "\n", "udev /etc/udev/rules.d/a.rules:2 4 sure"},
		{"a rule for another", "-- " + ruleDir + "a.rules --\n" + `KERNEL=="eth2", ATTR{device/sriov_numvfs}="4"` + "\n", ""},
		{"a rule that runs a shell", "-- " + ruleDir + "a.rules --\n" + `KERNELS=="0000:01:00.0", RUN+="/bin/sh -c 'echo 4 > /sys/class/net/eth1/device/sriov_numvfs'"` + "\n",
			"udev /etc/udev/rules.d/a.rules:1 4 sure"},
		{"a rule for all", "-- " + ruleDir + "a.rules --\n" + `DRIVERS=="mlx5_core", ATTR{device/sriov_numvfs}="4"` + "\n", "udev /etc/udev/rules.d/a.rules:1 4 perhaps"},
		{"a unit that nobody starts", "-- etc/systemd/system/v.service --\n[Unit]\nBefore=network.target\n[Service]\nExecStart=/bin/sh -c 'echo 4 >/sys/class/net/eth1/device/sriov_numvfs'\n",
			"unit /etc/systemd/system/v.service:4 4 sure before network.target blocked"},
		{"netplan", "-- etc/netplan/a.yaml --\nnetwork:\n  ethernets:\n    eth1:\n      virtual-function-count: 4\n", "netplan /etc/netplan/a.yaml:4 4 sure"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := treeOf(t, vfTree+tt.add).SRIOVOf("0000:01:00.0")
			if d == nil || show(d.Autoprobe) != true {
				t.Fatalf("%+v", d)
			}
			var got []string
			for _, s := range d.AtBoot {
				words := []string{s.Kind, s.Source, "?", "perhaps"}
				if s.VFs != nil {
					words[2] = string(rune('0' + *s.VFs))
				}
				if s.Sure {
					words[3] = "sure"
				}
				if s.Before != "" {
					words = append(words, "before "+s.Before)
				}
				if s.Blocked != "" {
					words = append(words, "blocked")
				}
				got = append(got, strings.Join(words, " "))
			}
			if g := strings.Join(got, "; "); g != tt.want {
				t.Errorf("%q, want %q", g, tt.want)
			}
		})
	}
}

func FuzzVFLines(f *testing.F) {
	f.Add("KERNEL==\"eth1\", \\\n ATTR{device/sriov_numvfs}=\"4\"\n")
	f.Add("ExecStart=/bin/sh -c 'echo 99999 > /sys/class/net/eth1/device/sriov_numvfs'")
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range vfLines("/a", text) {
			if n := l.number(); n != nil && (*n < 0 || *n > 99999) {
				t.Errorf("%q makes %d", l.text, *n)
			}
			if sure, may := l.names("0000:01:00.0", []*NIC{{Name: "eth1"}}); sure && !may {
				t.Errorf("%q is surely for it, and may not be", l.text)
			}
		}
		if l := parseLink("/a", text); len(l.match) > strings.Count(text, "=") {
			t.Errorf("%q: %v", text, l.match)
		}
	})
}
