// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// IDs that name each other.
const (
	sysctlSocketBuffersID = "sysctl.socket_buffers"
	sysctlBacklogID       = "sysctl.backlog"
	sysctlSomaxconnID     = "sysctl.somaxconn"
	sysctlTCPDefaultsID   = "sysctl.tcp_defaults"
	sysctlCongestionID    = "sysctl.congestion"
	sysctlKeysID          = "sysctl.keys"

	congestionKey = "net.ipv4.tcp_congestion_control"
)

const (
	ipSysctlDoc  = "https://docs.kernel.org/networking/ip-sysctl.html"
	netSysctlDoc = "https://docs.kernel.org/admin-guide/sysctl/net.html"
	sysctlDMan   = "https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html"
)

var sysctlChecks = []*check.Check{
	sysctlSocketBuffers, sysctlBacklog, sysctlSomaxconn, sysctlTCPDefaults, sysctlCongestion, sysctlKeys, sysctlRPFilter, sysctlPersistence,
}

// judgeSysctls judges every parameter of a check.
func judgeSysctls(r *check.Run, id string) error {
	list := sysctlRules(r, id)
	if len(list) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "the profile has no rule about these parameters"})
	}
	prefetchRules(r, list)
	for i := range list {
		r.Report(judgeSysctl(r, &list[i]))
	}
	return nil
}

var sysctlSocketBuffers = &check.Check{
	ID: sysctlSocketBuffersID, Title: "Sockets may have buffers as large as the profile wants, and no larger by default", Severity: check.Low, FixTier: plan.Safe,
	Doc: `net.core.rmem_max and wmem_max bound what a program may ask for with SO_RCVBUF and SO_SNDBUF. They cost nothing until somebody
asks. A UDP receiver, a storage daemon or iperf -w on a fast path asks for megabytes and silently gets the limit.

They do not bound TCP's own growth: a TCP socket without SO_RCVBUF starts at the middle number of net.ipv4.tcp_rmem and grows up
to the third. RDMA uses none of these.

By hand, at once and for good:

    sysctl -w net.core.rmem_max=268435456
    echo 'net.core.rmem_max = 268435456' > /etc/sysctl.d/90-buffers.conf

Often copied and wrong: net.core.rmem_default and wmem_default of 16 MB "for bandwidth". TCP replaces them by tcp_rmem and
tcp_wmem, so no stream gains; every UDP, raw and Unix socket may then queue 16 MB, which on a host with thousands of sockets is
memory pressure. Also wrong: "sysctl -p" after editing a file in /etc/sysctl.d. It reads /etc/sysctl.conf alone, which Debian 13
no longer has; "sysctl --system" reads all.`,
	Refs: []string{netSysctlDoc, ipSysctlDoc, "https://man7.org/linux/man-pages/man7/socket.7.html"},
	Run:  func(_ context.Context, r *check.Run) error { return judgeSysctls(r, sysctlSocketBuffersID) },
}

var sysctlBacklog = &check.Check{
	ID: sysctlBacklogID, Title: "No packet is dropped in the queue between CPUs, or that queue is long", Severity: check.Low, FixTier: plan.Safe,
	Doc: `net.core.netdev_max_backlog bounds the queue of packets that one CPU hands to another (RPS, RFS), and of devices that have no
queue of their own: veth of containers, loopback, tunnels. Packets that a NIC's driver takes from its rings by NAPI never pass it,
and RDMA passes no queue of the kernel at all.

So a short queue is a fault only where something was dropped: the second column of /proc/net/softnet_stat (hexadecimal, one line
for each CPU) counts drops since boot. The check passes below the profile's length while that is 0, and says so.

By hand:

    awk '{ n += strtonum("0x" $2) } END { print n }' /proc/net/softnet_stat
    sysctl -w net.core.netdev_max_backlog=250000

Often copied and wrong: 250000 as a cure for drops in "ethtool -S" (rx_out_of_buffer, rx_missed): those happen in the NIC, and
rings, coalescing and interrupts are the place to look. A ring has its own maximum, which "ethtool -g" tells; a number from a guide is refused or
too small. A very long queue also means long delays before TCP learns of congestion.`,
	Refs: []string{netSysctlDoc, "https://docs.kernel.org/networking/scaling.html"},
	Run: func(_ context.Context, r *check.Run) error {
		list := sysctlRules(r, sysctlBacklogID)
		if len(list) == 0 {
			r.Report(check.Finding{Status: check.Skip, Why: "the profile has no rule about this queue"})
		}
		for i := range list {
			f := judgeSysctl(r, &list[i])
			if f.Status == check.Warn || f.Status == check.Fail {
				drops, why := r.Facts.BacklogDrops()
				f.Evidence = append(f.Evidence, check.Evidence{Source: "/proc/net/softnet_stat", Value: strconv.FormatInt(drops, 10) + " dropped"})
				switch {
				case why != "":
					f = check.Finding{Subject: f.Subject, Status: check.Unknown, Want: f.Want, Got: f.Got, Source: f.Source,
						Why: "whether packets were dropped there is not known: " + why}
				case drops == 0:
					f.Status, f.Fix, f.Next, f.Truth = check.Pass, nil, "", nil
					f.Got += ", and no packet was dropped there since boot"
					f.Why = "shorter than the profile's queue, which nothing on this host has needed"
				default:
					f.Got += fmt.Sprintf(", and %d packets were dropped there since boot", drops)
				}
			}
			r.Report(f)
		}
		return nil
	},
}

var sysctlSomaxconn = &check.Check{
	ID: sysctlSomaxconnID, Title: "Programs may queue as many new connections as they ask for", Severity: check.Low, FixTier: plan.Safe,
	Doc: `listen(fd, n) asks for a queue of n connections that wait to be accepted; the kernel cuts n to net.core.somaxconn and tells
nobody. When the queue is full, new connections are dropped and tried again a second later, then two, then four: a job that
starts on thousands of GPUs then "hangs" in its first collective. NCCL's root listens with 16384.

The kernel's default is 4096 since 5.4, and was 128 before. Each network namespace has its own: a container does not inherit it.

By hand:

    sysctl -w net.core.somaxconn=16384
    ss -ltn                                  # Send-Q of a listening socket is the length that it got
    nstat -az TcpExtListenOverflows TcpExtListenDrops

A program that already listens keeps what it got until it is started again. 65535, as many guides have it, does no harm, and no
good either where the programs ask for 128. net.ipv4.tcp_max_syn_backlog is another queue, in front of this one.`,
	Refs: []string{ipSysctlDoc, "https://github.com/NVIDIA/nccl/blob/master/src/misc/socket.cc"},
	Run:  func(_ context.Context, r *check.Run) error { return judgeSysctls(r, sysctlSomaxconnID) },
}

var sysctlTCPDefaults = &check.Check{
	ID: sysctlTCPDefaultsID, Title: "TCP has what the kernel gives it by default", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `Window scaling (net.ipv4.tcp_window_scaling) and timestamps (net.ipv4.tcp_timestamps) are on in every kernel. Without window
scaling a connection has at most 64 KB under way, which is 50 Mb/s at 10 ms. Without timestamps sequence numbers of a fast
connection can wrap unnoticed, and round trips are measured badly. Somebody who switched them off followed advice for other
hardware or a scanner's report; 2 (timestamps without a random offset) passes.

The check judges that they are on. There is nothing to write on a host where they are: lines that repeat a default only hide
the one line that matters.

By hand, find who switched it off, and switch it on:

    grep -rn tcp_timestamps /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d
    sysctl -w net.ipv4.tcp_timestamps=1

Rules of a profile about other net.ipv4.tcp_ parameters are judged here too. Of tcp_rmem and tcp_wmem the third number bounds
what a connection may grow to; it is worth raising on a path with a high product of bandwidth and delay, not within a rack.`,
	Refs: []string{ipSysctlDoc, "https://www.rfc-editor.org/rfc/rfc7323"},
	Run:  func(_ context.Context, r *check.Run) error { return judgeSysctls(r, sysctlTCPDefaultsID) },
}

var sysctlCongestion = &check.Check{
	ID: sysctlCongestionID, Title: "TCP's congestion control is the one that was asked for", Severity: check.Low, FixTier: plan.Safe,
	Doc: `net.ipv4.tcp_congestion_control names the algorithm of new TCP connections. It matters for the management path, downloads and
checkpoints over TCP; RDMA has its own (DCQCN) in the NIC.

Two things go wrong. The running one is none of the profile's. Or a file asks for one, and another runs: the module was missing or
not allowed when the file was read, the kernel answered ENOENT, and nobody looked. The check compares what runs with the profile
and with the line that decides at boot.

Writing the name loads the module tcp_NAME by itself where modules may be loaded at all. The list in
tcp_available_congestion_control has only what is loaded already: that a name is absent there proves nothing. What proves that it cannot be
had is a kernel without the module's file, and the finding says so. At boot the safe way is to load the module first:

    echo tcp_bbr > /etc/modules-load.d/tcp_bbr.conf
    modprobe tcp_bbr && sysctl -w net.ipv4.tcp_congestion_control=bbr

Often copied and wrong: that bbr needs net.core.default_qdisc=fq (TCP paces by itself since 4.13), and that it speeds up RDMA.`,
	Refs: []string{ipSysctlDoc, "https://github.com/google/bbr"},
	Run: func(_ context.Context, r *check.Run) error {
		list := sysctlRules(r, sysctlCongestionID)
		if len(list) == 0 {
			r.Report(check.Finding{Status: check.Skip, Why: "the profile names no congestion control"})
		}
		for i := range list {
			r.Report(judgeCongestion(r, &list[i]))
		}
		return nil
	},
}

func judgeCongestion(r *check.Run, p *paramRules) check.Finding {
	s := r.Facts.Sysctl()
	k := s.Key(p.name)
	f := judgeSysctl(r, p)
	a := s.AtBoot(&k)
	if f.Status == check.Pass && a != nil && a.Value != f.Got && p.fine(a.Value) {
		f.Status, f.Truth = check.Warn, sysctlTruth(s, &k)
		f.Want = a.Value + ", as " + a.At() + " asks"
		f.Why = "the kernel did not take the name at boot, most often because its module was not there, or somebody changed it since; the file's wish is not fulfilled"
		f.Evidence = append(f.Evidence, check.Evidence{Source: a.At(), Value: a.Value})
		f.Next = fmt.Sprintf("modprobe tcp_%s && sysctl -w %s=%s; for the next boot, put tcp_%s into a file in /etc/modules-load.d", a.Value, p.name, a.Value, a.Value)
		f.Fix = sysctlWish(ruleOrigin(p.rules[0]), p.name, f.Got, a.Value, p.name+" must be what "+a.At()+" asks for")
	}
	for _, w := range slices.Clone(f.Fix) {
		if missingAlgorithm(r, w.Want, &f) {
			f.Fix = nil
			break
		}
		if mod, known := r.Facts.Modules().Find("tcp_" + w.Want); mod == nil && known && w.Want != "reno" {
			load := w
			load.Setting = plan.Setting{Kind: "modprobe", Name: "tcp_" + w.Want}
			load.Got, load.Want = "not loaded", "loaded"
			f.Fix = append(f.Fix, load)
		}
	}
	return f
}

// missingAlgorithm tells where a congestion control cannot be had: it is
// neither loaded nor built in, and this kernel has no such module.
func missingAlgorithm(r *check.Run, name string, f *check.Finding) bool {
	mod, known := r.Facts.Modules().Find("tcp_" + name)
	there, why := r.Facts.ModuleFile("tcp_" + name)
	if mod != nil || !known || there || why != "" || name == "reno" {
		return false
	}
	f.Why += "; this kernel has no module tcp_" + name + ", so that the name is refused (ENOENT), at the next boot too"
	f.Next = "install the package that holds tcp_" + name + " for this kernel (Ubuntu: linux-modules-extra-…), or ask for another algorithm: see /proc/sys/net/ipv4/tcp_available_congestion_control"
	f.Evidence = append(f.Evidence, check.Evidence{Source: "modules.dep", Value: "does not list tcp_" + name})
	return true
}

var sysctlKeys = &check.Check{
	ID: sysctlKeysID, Title: "Other kernel parameters are as the profile says", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `A profile can hold rules about any kernel parameter below /proc/sys; those that no other check of this area judges are judged
here. The profiles that hostcheck brings have none. A site adds them in /etc/hostcheck/profile.yaml:

    sysctl:
      keys:
        - key: kernel.numa_balancing
          one_of: ["0"]
          source: "our runbook, page 12"
          why: Pages of pinned buffers are scanned for nothing.
        - key: vm.max_map_count
          min: 262144
          source: "Elasticsearch documentation"

"min" and "max" are limits of a number; of a parameter with several numbers "field" says which, from 1. "one_of" lists whole
values. "advice: true" makes a warning of a failure. A dot within an interface's name is written as a slash:
net.ipv4.conf.eth0/100.arp_ignore.

By hand, read and set a parameter; the name is the path below /proc/sys with dots:

    sysctl kernel.numa_balancing
    sysctl -w kernel.numa_balancing=0`,
	Refs: []string{"https://docs.kernel.org/admin-guide/sysctl/index.html", sysctlDMan},
	Run:  func(_ context.Context, r *check.Run) error { return judgeSysctls(r, sysctlKeysID) },
}
