// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

var manaChecks = []*check.Check{manaPaired, manaDataPath, manaErrors}

const (
	manaDocs    = "https://learn.microsoft.com/azure/virtual-network/accelerated-networking-mana-linux"
	netvscDocs  = "https://docs.kernel.org/networking/device_drivers/ethernet/microsoft/netvsc.html"
	manaStats   = "drivers/net/ethernet/microsoft/mana/mana_ethtool.c"
	netvscStats = "drivers/net/hyperv/netvsc_drv.c, netvsc_get_ethtool_stats"
)

// manaNICs gives the interfaces of Microsoft's adapter.
func manaNICs(r *check.Run) []*facts.NIC {
	var list []*facts.NIC
	for _, n := range interfaces(r).List {
		if n.MANA() && !n.VF {
			list = append(list, n)
		}
	}
	return list
}

var manaPaired = &check.Check{
	ID: "mana.paired", Title: "Every MANA interface is joined to its synthetic one, and up", Severity: check.High,
	Doc: `In Azure a network interface of the machine shows twice in the guest: as a synthetic interface (eth0, driver hv_netvsc), which has the
address, and as a function of the adapter (enP…, driver mana), which carries the traffic. They have one MAC, and hv_netvsc takes the
other for its port as soon as both are there: "master eth0" in "ip link". Where that failed, everything works and goes through the
hypervisor's software switch, slower by an order of magnitude and at the cost of CPUs.

The check wants the link "master" of every MANA interface to lead to an interface of hv_netvsc with the same MAC, both up, and one MTU.

    ip -br link
    readlink /sys/class/net/enP*/master
    journalctl -k | grep hv_netvsc          # "VF registering", "Data path switched to VF"

Usual causes: a rule of udev or NetworkManager that renames, bonds, configures or sets down the enP… interface (it must be left unmanaged and without
an address; Azure's images bring such a rule), or two interfaces with one MAC. Set the MTU on the synthetic interface; hv_netvsc
passes it on.`,
	Refs:     []string{manaDocs, netvscDocs, "drivers/net/hyperv/netvsc_drv.c, netvsc_vf_join"},
	Requires: []string{"driver.bound"},
	Run:      runManaPaired,
}

func runManaPaired(_ context.Context, r *check.Run) error {
	for _, n := range manaNICs(r) {
		f := check.Finding{Subject: n.Subject(), Want: "a port of its synthetic interface, with the same MAC and MTU, both up"}
		judgePaired(r.Facts.NICs(), n, &f)
		r.Report(f)
	}
	return nil
}

func judgePaired(nics *facts.NICs, n *facts.NIC, f *check.Finding) {
	if n.Master == nil || n.MAC == nil || n.AdminUp == nil {
		f.Status, f.Why = check.Unknown, reasons(n.Unknown, "master", "mac", "admin_up")
		return
	}
	f.Evidence = []check.Evidence{{Source: n.Attr("master"), Value: master(n)}, {Source: n.Attr("address"), Value: *n.MAC}}
	upper := nics.Named(*n.Master)
	slow := "traffic takes the hypervisor's software switch: slower by an order of magnitude, and at the cost of CPUs"
	switch {
	case upper == nil || upper.Driver == nil || *upper.Driver != "hv_netvsc":
		f.Status, f.Got, f.Why = check.Fail, "master: "+master(n), slow
		f.Next = "see \"journalctl -k | grep hv_netvsc\"; leave " + n.Name + " unmanaged (no address, no bond, no rename by udev), then unbind and bind its driver or reboot"
		if twin := synthetic(nics, *n.MAC); twin != "" {
			f.Got += "; " + twin + " has the same MAC and does not have it as port"
			return
		}
		f.Got += "; no interface of hv_netvsc has its MAC"
		return
	case upper.MAC == nil || upper.AdminUp == nil:
		f.Status, f.Why = check.Unknown, reasons(upper.Unknown, "mac", "admin_up")
		return
	}
	f.Evidence = append(f.Evidence, check.Evidence{Source: upper.Attr("address"), Value: *upper.MAC})
	f.Got = "port of " + upper.Name
	switch {
	case *upper.MAC != *n.MAC:
		f.Status, f.Got, f.Why = check.Fail, f.Got+", whose MAC is "+*upper.MAC, "the port is that of another interface, and the switch drops what it sends with a foreign MAC"
		f.Next = "undo what changed a MAC (ip link show), and bind the driver anew"
	case !*n.AdminUp || !*upper.AdminUp:
		down := n
		if *n.AdminUp {
			down = upper
		}
		f.Status, f.Got, f.Why = check.Fail, f.Got+"; "+down.Name+" is down", slow
		f.Evidence = append(f.Evidence, check.Evidence{Source: down.Attr("flags"), Value: "not IFF_UP"})
		f.Next = "ip link set " + upper.Name + " up brings up both; find who sets " + down.Name + " down"
	case n.MTU != nil && upper.MTU != nil && *n.MTU != *upper.MTU:
		f.Status, f.Got = check.Warn, fmt.Sprintf("%s; MTU %d and %d", f.Got, *n.MTU, *upper.MTU)
		f.Why = "packets of the larger size are dropped on one of the two paths"
		f.Next = fmt.Sprintf("ip link set %s mtu N; hv_netvsc passes it on to %s", upper.Name, n.Name)
		f.Evidence = append(f.Evidence, check.Evidence{Source: n.Attr("mtu"), Value: strconv.Itoa(*n.MTU)}, check.Evidence{Source: upper.Attr("mtu"), Value: strconv.Itoa(*upper.MTU)})
	default:
		f.Status = check.Pass
	}
}

// synthetic names the interface of hv_netvsc with a MAC.
func synthetic(nics *facts.NICs, mac string) string {
	for _, o := range nics.List {
		if o.Driver != nil && *o.Driver == "hv_netvsc" && o.MAC != nil && *o.MAC == mac {
			return o.Name
		}
	}
	return ""
}

var manaDataPath = &check.Check{
	ID: "mana.datapath", Title: "Traffic takes the accelerated path", Severity: check.High,
	Doc: `A MANA interface that is joined and up need not be used: after a live migration or servicing of the host, or where the data path was not
switched, packets go through the synthetic interface's own queues. The statistics of hv_netvsc tell the two apart: vf_rx_packets and
vf_tx_packets count what the MANA interface carried, rx_queue_N_packets and tx_queue_N_packets what went through the hypervisor.

They are read twice, some seconds apart (interval_ms of the profile's rdma). The check passes when most of what moved took the accelerated
path. A few packets by the other way are normal: broadcasts, DHCP, and the first packet of what is not offloaded. With next to no traffic
there is nothing to judge (skip).

    ethtool -S eth0 | grep -E 'vf_(rx|tx)_packets|_queue_[0-9]+_packets'
    journalctl -k | grep 'Data path'        # "Data path switched to VF", or back "from VF"

When it does not come back by itself: ip link set enP… down, then up; else bind the driver anew (unbind and bind in
/sys/bus/pci/drivers/mana), from a console. When it comes and goes, see the scheduled events of the Azure metadata service.`,
	Refs:     []string{manaDocs, netvscStats},
	Requires: []string{"mana.paired"},
	Run:      runManaDataPath,
}

// fewPackets in an interval prove nothing.
const fewPackets = 20

var netvscQueue = pattern.Late(`^(rx|tx)_queue_[0-9]+_packets$`)

func runManaDataPath(ctx context.Context, r *check.Run) error {
	list := manaNICs(r)
	if len(list) == 0 {
		return nil
	}
	all := sampled(ctx, r)
	for _, n := range list {
		f := check.Finding{Subject: n.Subject(), Want: "most packets through the MANA interface"}
		if n.Master == nil || *n.Master == "" {
			f.Status, f.Why = check.Skip, "it is no port of a synthetic interface; see mana.paired"
			r.Report(f)
			continue
		}
		judgeDataPath(all.Of(facts.NICCounters(*n.Master)), &f)
		r.Report(f)
	}
	return nil
}

func judgeDataPath(c *facts.Counted, f *check.Finding) {
	if c == nil || c.Seconds == nil {
		f.Status, f.Why = check.Unknown, "the statistics of its synthetic interface are not known"
		if c != nil {
			f.Why += ": " + c.Unknown["seconds"]
		}
		return
	}
	var fast, slow uint64
	queues := 0
	for name := range c.Last {
		n, ok := c.Grown(name)
		switch {
		case !ok:
		case name == "vf_rx_packets" || name == "vf_tx_packets":
			fast += n
		case netvscQueue().MatchString(name):
			slow += n
			queues++
		}
	}
	_, counts := c.Grown("vf_rx_packets")
	if !counts || queues == 0 {
		f.Status, f.Why = check.Unknown, "its synthetic interface does not count the two paths"
		return
	}
	f.Got = fmt.Sprintf("%d packets by MANA, %d through the hypervisor in %s", fast, slow, seconds(*c.Seconds))
	f.Evidence = []check.Evidence{{Source: c.Source(), Value: fmt.Sprintf("vf_rx_packets and vf_tx_packets +%d, (rx|tx)_queue_N_packets +%d", fast, slow)}}
	switch {
	case fast >= slow && fast > 0:
		f.Status = check.Pass
	case fast+slow < fewPackets:
		f.Status, f.Why = check.Skip, "too little traffic to tell: run it under load"
	default:
		f.Status = check.Fail
		f.Why = "packets pass the hypervisor's software switch: slower by an order of magnitude, and at the cost of CPUs"
		f.Next = "see \"journalctl -k | grep 'Data path'\"; set the MANA interface down and up from a console, or bind its driver anew"
	}
}

var manaErrors = &check.Check{
	ID: "mana.errors", Title: "No error counter of a MANA interface grows", Severity: check.Medium,
	Doc: `The statistics of the mana driver are read twice, and errors that grew between are judged; totals since the driver started are
named beside. The counters of the hardware (hc_…) are fetched by the driver every two seconds, so the interval is three
(interval_ms of the profile's rdma, where MANA is). They read as zero while the port is down.

How to read what grew:

    hc_rx_discards_no_wqe      no receive buffer was posted in time: the ring is too small or the CPU too late. It counts for
                               the whole adapter, not for one port. A warning: a larger ring (ethtool -G enP… rx 2048), more queues
    hc_rx_err_*, hc_tx_err_*   the hardware refused packets: a port that is disabled, or packets that break its rules (VLAN, source
                               address, MTU)
    tx_cq_err, tx_cqe_unknown_type, rx_cqe_unknown_type
                               completions that the driver does not understand: driver and firmware do not fit
    tx_N_mana_map_err          memory could not be mapped for sending
    rx_N_pkt_len0_err          packets of no length
    hc_rx_pkt_drop_phy, hc_tx_pkt_drop_phy
                               dropped at the port, by Azure's limits for the size of the machine or for want of buffer

By hand:

    ethtool -S enP30832s1 | grep -E 'err|discard|unknown|drop'
    ethtool -g enP30832s1
    journalctl -k | grep -iE 'mana|HWC timeout'      # "HWC timeout occurred", "Start MANA recovery mode"`,
	Refs:     []string{manaDocs, manaStats},
	Requires: []string{"mana.paired"},
	Run:      runManaErrors,
}

// manaError is a counter that counts what should not be.
var manaError = pattern.Late(`^(hc_(rx|tx)_err_.*|hc_(rx|tx)_pkt_drop_phy|tx_cq_err|(rx|tx)_cqe_unknown_type|tx_[0-9]+_mana_map_err|rx_[0-9]+_pkt_len0_err)$`)

const manaNoBuffer = "hc_rx_discards_no_wqe"

func runManaErrors(ctx context.Context, r *check.Run) error {
	list := manaNICs(r)
	if len(list) == 0 {
		return nil
	}
	all := sampled(ctx, r)
	for _, n := range list {
		f := check.Finding{Subject: n.Subject(), Want: "no error counter grows"}
		judgeManaErrors(n, all.Of(facts.NICCounters(n.Name)), &f)
		r.Report(f)
	}
	return nil
}

func judgeManaErrors(n *facts.NIC, c *facts.Counted, f *check.Finding) {
	switch {
	case c == nil || c.Seconds == nil:
		f.Status, f.Why = check.Unknown, "its statistics are not known"
		if c != nil {
			f.Why += ": " + c.Unknown["seconds"]
		}
		return
	case n.AdminUp != nil && !*n.AdminUp:
		f.Status, f.Why = check.Skip, "the interface is down, and its counters read as zero"
		return
	}
	over := " in " + seconds(*c.Seconds)
	var grown, since []string
	known := 0
	for _, name := range slices.Sorted(maps.Keys(c.Last)) {
		if !manaError().MatchString(name) && name != manaNoBuffer {
			continue
		}
		known++
		g, ok := c.Grown(name)
		switch {
		case ok && g > 0:
			grown = append(grown, fmt.Sprintf("%s +%d", name, g))
			f.Evidence = append(f.Evidence, check.Evidence{Source: c.Source(), Value: fmt.Sprintf("%s %d to %d%s", name, c.First[name], c.Last[name], over)})
		case c.Last[name] > 0:
			since = append(since, fmt.Sprintf("%s %d", name, c.Last[name]))
		}
	}
	switch {
	case known == 0:
		f.Status, f.Why = check.Unknown, "the driver shows none of the error counters that hostcheck knows"
		return
	case len(grown) == 0:
		f.Status, f.Got = check.Pass, "none"+over
		if len(since) > 0 {
			f.Got += "; since the driver started: " + strings.Join(since, ", ")
		}
		f.Evidence = []check.Evidence{{Source: c.Source(), Value: fmt.Sprintf("%d error counters, none grew%s", known, over)}}
		return
	}
	f.Got = strings.Join(grown, ", ") + over
	f.Status, f.Why = check.Fail, "the adapter or its driver refuses or loses packets"
	f.Next = "see \"journalctl -k | grep -i mana\"; update the kernel, and give these counters to Azure's support"
	if len(grown) == 1 && strings.HasPrefix(grown[0], manaNoBuffer+" ") {
		f.Status, f.Why = check.Warn, "received packets found no buffer, on some port of the adapter: the ring is too small, or the CPU comes too late"
		f.Next = "ethtool -G " + n.Name + " rx 2048 interrupts the traffic for a moment; look at busy CPUs first (irq)"
		if n.Rings != nil {
			f.Evidence = append(f.Evidence, check.Evidence{Source: "ethtool " + n.Name + " rings", Value: fmt.Sprintf("rx %d of %d", n.Rings.RX, n.Rings.RXMax)})
		}
	}
}
