// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"
)

// processor is a table of SMBIOS with a processor whose version is v.
func processor(v string) []byte {
	fields := make([]byte, 0x30)
	fields[0], fields[1], fields[smbiosVersion] = smbiosProcessor, byte(len(fields)), 2
	bios := append([]byte{0, 6, 0, 0, 1, 2}, "Microsoft\x004.1\x00\x00"...)
	return append(append(bios, fields...), "Ampere\x00"+v+"\x00\x00\x7f\x04\x00\x00\x00\x00"...)
}

func TestProcessorVersion(t *testing.T) {
	if v, err := processorVersion(processor("Cobalt 200 ")); err != nil || v != "Cobalt 200" {
		t.Errorf("%q, %v", v, err)
	}
	whole := processor("Cobalt 200")
	for _, b := range [][]byte{nil, whole[:10], whole[:40], {4, 2, 0, 0}, []byte("\x7f\x04\x00\x00\x00\x00")} {
		if v, err := processorVersion(b); err == nil {
			t.Errorf("%v gives %q", b, v)
		}
	}
}

func TestUptime(t *testing.T) {
	if v, err := parseUptime("350735.47 234388.90"); err != nil || v != 350735 {
		t.Errorf("%d, %v", v, err)
	}
	for _, s := range []string{"", "x", "99999999999999999999.1"} {
		if v, err := parseUptime(s); err == nil {
			t.Errorf("%q gives %d", s, v)
		}
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(processor("Cobalt 200"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := processorVersion(b); err == nil && strings.ContainsRune(v, 0) {
			t.Errorf("%q", v)
		}
		_, _ = parseUptime(string(b))
	})
}

// The layout follows from what the host shows; what is not known of it leaves
// no prediction, and says why.
func TestRXFrag(t *testing.T) {
	const nic = "pci0000:00/0000:00:01.0/net/eth1"
	base := "whole: /sys /proc\n-- sys/class/net/eth1 -> ../../devices/" + nic + " --\n" +
		"-- sys/bus/pci/devices/0000:00:01.0 -> ../../../devices/pci0000:00/0000:00:01.0 --\n" +
		"-- sys/devices/pci0000:00/0000:00:01.0/class --\n0x020000\n-- sys/devices/pci0000:00/0000:00:01.0/vendor --\n0x1414\n-- sys/devices/pci0000:00/0000:00:01.0/device --\n0x00ba\n" +
		"-- sys/devices/pci0000:00/0000:00:01.0/driver -> ../../../bus/pci/drivers/mana --\n-- sys/bus/pci/drivers/mana/bind --\n\n" +
		"-- sys/devices/" + nic + "/ifindex --\n3\n-- sys/devices/" + nic + "/mtu --\n1500\n-- proc/config.gz [errno EACCES] --\n" +
		"-- query: pagesize --\n65536\n-- query: netdev page-pools --\n[{\"id\": 1, \"ifindex\": 3, \"inflight\": 60, \"bytes\": 3932160}]\n-- query: link xdp --\n{}\n" +
		"-- query: ethtool eth1 rings --\n{\"rx\": 1024}\n-- query: ethtool eth1 channels --\n{\"combined\": 2}\n"
	f := treeOf(t, base+"-- query: ethtool eth1 privflags --\n{\"full-page-rx\": true}\n-- query: btf mana [errno ENOENT] --\n")
	r := f.RXFrag()
	if len(r.NICs) != 1 {
		t.Fatalf("%d interfaces: %+v", len(r.NICs), f.NICs().List)
	}
	n := r.NICs[0]
	if n.Shares == nil || !*n.Shares || n.On == nil || !*n.On || n.Unknown["synced"] == "" {
		t.Errorf("who has the switch can share: %+v", n)
	}
	if n.Predicted != nil || !strings.Contains(n.Unknown["predicted"], "config") {
		t.Errorf("without the kernel's configuration: %+v, %q", n.Predicted, n.Unknown["predicted"])
	}
	if n.Observed == nil || n.Observed.Pages != 60 || n.Observed.Pools != 1 {
		t.Errorf("observed: %+v", n.Observed)
	}
}
