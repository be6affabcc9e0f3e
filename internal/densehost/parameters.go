// SPDX-License-Identifier: Apache-2.0

package densehost

// parameters is what the kernel shows of its network parameters and clocks, and
// the file that sets them.
func (w *writer) parameters() {
	w.files("proc/sys/net/core", "rmem_default", "212992", "rmem_max", "268435456", "wmem_default", "212992", "wmem_max", "268435456",
		"netdev_max_backlog", "250000", "somaxconn", "16384", "default_qdisc", "fq_codel")
	w.files("proc/sys/net/ipv4", "tcp_timestamps", "1", "tcp_window_scaling", "1", "tcp_congestion_control", "cubic",
		"tcp_available_congestion_control", "reno cubic", "conf/all/rp_filter", "0", "conf/default/rp_filter", "2")
	w.file("etc/sysctl.d/90-network.conf", "net.core.rmem_max = 268435456\nnet.core.wmem_max = 268435456\n"+
		"net.core.netdev_max_backlog = 250000\nnet.core.somaxconn = 16384\nnet.ipv4.tcp_congestion_control = cubic")
	w.files("sys/devices/system/clocksource/clocksource0", "current_clocksource", "tsc", "available_clocksource", "tsc hpet acpi_pm")
}
