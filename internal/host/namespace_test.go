// SPDX-License-Identifier: Apache-2.0

package host

import "testing"

// Which parts of procfs are those of a namespace of whoever reads.
func TestNamespaced(t *testing.T) {
	for p, want := range map[string]string{
		"/proc/net":                         "net",
		"/proc/net/route":                   "net",
		"/proc/sys/net/core/rmem_max":       "net",
		"/proc/sys/net/ipv4/conf/eth0/mtu":  "net",
		"/proc/sys/kernel/hostname":         "uts",
		"/proc/sys/kernel/shmmax":           "ipc",
		"/proc/sys/kernel/sem":              "ipc",
		"/proc/sys/fs/mqueue/msg_max":       "ipc",
		"/proc/sysvipc/shm":                 "ipc",
		"/proc/sys/kernel/osrelease":        "",
		"/proc/sys/kernel/numa_balancing":   "",
		"/proc/sys/vm/nr_hugepages":         "",
		"/proc/sys/fs/file-max":             "",
		"/proc/network":                     "",
		"/proc/1/net/route":                 "", // whoever reads
		"/proc/cmdline":                     "",
		"/sys/class/net/eth0/mtu":           "", // of whoever mounted it
		"/host/proc/sys/net/core/somaxconn": "",
	} {
		kind, why := namespaced(p)
		if kind != want || (why == nil) != (want == "") {
			t.Errorf("%s: %q (%v), want %q", p, kind, why, want)
		}
	}
}
