// SPDX-License-Identifier: Apache-2.0

//go:build root

package host

import (
	"errors"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRootEthtool asks real devices what ethtool(8) asks, and compares.
func TestRootEthtool(t *testing.T) {
	needs(t, "ip", "ethtool")
	eachInterface(t, compareWithEthtool)
}

func compareWithEthtool(t *testing.T, ifname string) {
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()

	d, err := h.EthtoolDriver(ifname)
	if said, ok := toolSays(t, err, "-i", ifname); ok {
		same(t, "-i", map[string]string{"driver": d.Driver, "version": d.Version, "firmware-version": d.Firmware, "bus-info": d.Bus}, said)
	}
	r, err := h.EthtoolRings(ifname)
	if said, ok := toolSays(t, err, "-g", ifname); ok {
		same(t, "-g", numbers(map[string]int{"max RX": r.RXMax, "max TX": r.TXMax, "RX": r.RX, "TX": r.TX}), naught(said))
	}
	c, err := h.EthtoolChannels(ifname)
	if said, ok := toolSays(t, err, "-l", ifname); ok {
		same(t, "-l", numbers(map[string]int{
			"max RX": c.RXMax, "max TX": c.TXMax, "max Other": c.OtherMax, "max Combined": c.CombinedMax,
			"RX": c.RX, "TX": c.TX, "Other": c.Other, "Combined": c.Combined,
		}), naught(said))
	}
	p, err := h.EthtoolPause(ifname)
	if said, ok := toolSays(t, err, "-a", ifname); ok {
		same(t, "-a", onOff(map[string]bool{"Autonegotiate": p.Autoneg, "RX": p.RX, "TX": p.TX}), said)
	}
	compareFeatures(t, h, ifname)
	comparePrivFlags(t, h, ifname)
}

// legacyFeatures are the words of "ethtool -k" that are not the kernel's own
// names. The empty ones stand for the group listed below each.
var legacyFeatures = map[string]string{
	"rx-checksumming": "rx-checksum", "generic-segmentation-offload": "tx-generic-segmentation", "generic-receive-offload": "rx-gro",
	"large-receive-offload": "rx-lro", "rx-vlan-offload": "rx-vlan-hw-parse", "tx-vlan-offload": "tx-vlan-hw-insert",
	"ntuple-filters": "rx-ntuple-filter", "receive-hashing": "rx-hashing",
	"tx-checksumming": "", "scatter-gather": "", "tcp-segmentation-offload": "", "udp-fragmentation-offload": "",
}

func compareFeatures(t *testing.T, h *Host, ifname string) {
	features, err := h.EthtoolFeatures(ifname)
	said, ok := toolSays(t, err, "-k", ifname)
	if !ok {
		return
	}
	kernel := map[string]string{}
	for name, v := range said {
		if own, legacy := legacyFeatures[name]; legacy {
			name = own
		}
		if name != "" {
			kernel[name], _, _ = strings.Cut(v, " ") // "off [fixed]"
		}
	}
	// both ways: no feature of ours is made up, and none is missing
	for name := range kernel {
		if _, ok := features[name]; !ok {
			t.Errorf("-k: ethtool has %s, we have not", name)
		}
	}
	same(t, "-k", onOff(features), kernel)
}

func comparePrivFlags(t *testing.T, h *Host, ifname string) {
	flags, err := h.EthtoolPrivFlags(ifname)
	if err == nil && len(flags) == 0 {
		// the driver has an empty list of names, which ethtool says in its own way
		out, err := exec.Command("ethtool", "--show-priv-flags", ifname).CombinedOutput()
		if err == nil && strings.Contains(string(out), ": o") {
			t.Errorf("we were told of no private flags, ethtool of %s", out)
		}
		return
	}
	if said, ok := toolSays(t, err, "--show-priv-flags", ifname); ok {
		same(t, "--show-priv-flags", onOff(flags), said)
		if len(said) != len(flags) {
			t.Errorf("--show-priv-flags: we were told of %d, ethtool of %d", len(flags), len(said))
		}
	}
}

// toolSays runs ethtool and reads its "name: value" lines; those below "Pre-set
// maximums" get "max " before their name. When we were told an error, ethtool
// must have been told the same, and ok is false.
func toolSays(t *testing.T, told error, option, ifname string) (said map[string]string, ok bool) {
	t.Helper()
	b, err := exec.Command("ethtool", option, ifname).CombinedOutput()
	out := string(b)
	for errno, words := range map[syscall.Errno]string{
		syscall.EOPNOTSUPP: "Operation not supported", syscall.ENODEV: "No such device", syscall.EPERM: "Operation not permitted", syscall.EINVAL: "Invalid argument",
	} {
		if errors.Is(told, errno) {
			if err == nil || !strings.Contains(out, words) {
				t.Errorf("%s: we were told %v, ethtool: %v %s", option, told, err, out)
			}
			return nil, false
		}
	}
	if told != nil || err != nil {
		t.Errorf("%s: we were told %v, ethtool: %v %s", option, told, err, out)
		return nil, false
	}
	said, prefix := map[string]string{}, ""
	for line := range strings.Lines(out) {
		switch name, v, found := strings.Cut(strings.TrimSpace(line), ":"); {
		case name == "Pre-set maximums":
			prefix = "max "
		case name == "Current hardware settings":
			prefix = ""
		case found && (v != "" || option == "-i"):
			said[prefix+strings.TrimSpace(name)] = strings.TrimSpace(v)
		}
	}
	if len(said) == 0 {
		t.Errorf("%s: cannot read what ethtool says: %s", option, out)
	}
	return said, true
}

// same wants each of our values among those of ethtool.
func same(t *testing.T, option string, ours, said map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if v, ok := said[name]; !ok || v != ours[name] {
			t.Errorf("%s: %s is %q to us, %q to ethtool (said: %t)", option, name, ours[name], v, ok)
		}
	}
}

func numbers(ours map[string]int) map[string]string {
	m := map[string]string{}
	for name, n := range ours {
		m[name] = strconv.Itoa(n)
	}
	return m
}

func onOff(ours map[string]bool) map[string]string {
	m := map[string]string{}
	for name, on := range ours {
		m[name] = map[bool]string{true: "on", false: "off"}[on]
	}
	return m
}

// naught writes the "n/a" of ethtool as the 0 that the ioctl gives.
func naught(said map[string]string) map[string]string {
	for name, v := range said {
		if v == "n/a" {
			said[name] = "0"
		}
	}
	return said
}
