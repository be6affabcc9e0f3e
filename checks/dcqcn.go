// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var dcqcnChecks = []*check.Check{
	dcqcnEnabled, dcqcnCNP, dcqcnParams, dcqcnTrust, dcqcnPFC, dcqcnPause, dcqcnOwner, dcqcnToS, dcqcnPriority,
}

const (
	dcbDoc   = "https://man7.org/linux/man-pages/man8/dcb.8.html"
	mlx5Cong = "drivers/infiniband/hw/mlx5/cong.c"
	ofedECN  = "https://docs.nvidia.com/networking/display/mlnxofedv571020/explicit+congestion+notification+(ecn)"
	mlnxQoS  = "https://github.com/Mellanox/mlnx-tools (mlnx_qos)"
	nvidiaCC = "https://enterprise-support.nvidia.com/s/article/dcqcn-parameters"
)

// dcbSubject is an interface that the profile has rules for, with its data
// center bridging.
type dcbSubject struct {
	*profile.NICWant
	dcb *facts.DCBNIC
}

// dcbSubjects lists the Ethernet interfaces of the rules in which set is true.
// One without an entry (a virtual function of this host) is left out. Without
// a list of interfaces it reports that, if some rule would have a say.
func dcbSubjects(r *check.Run, set func(*profile.NICRule) bool) []dcbSubject {
	nics := r.Facts.NICs()
	if nics.List == nil {
		for i := range r.Profile.NICs {
			if set(&r.Profile.NICs[i]) {
				r.Report(check.Finding{Status: check.Unknown, Why: "the interfaces are not known: " + nics.Why})
				break
			}
		}
		return nil
	}
	var all []dcbSubject
	wants := r.Profile.SelectNICs(nics, r.Facts.PCI()).Wants
	for i := range wants {
		w := &wants[i]
		if d := r.Facts.DCB().Of(w.NIC.Name); d != nil && set(&w.Rule) {
			all = append(all, dcbSubject{w, d})
		}
	}
	return all
}

// dcbl is the evidence of one dcbnl answer.
func (s dcbSubject) dcbl(value string) []check.Evidence {
	return []check.Evidence{{Source: host.DCBKey(s.dcb.NIC), Value: value}}
}

// priorityList writes "3" or "3, 5", "none" for none.
func priorityList(p []int) string {
	if len(p) == 0 {
		return "none"
	}
	s := make([]string, len(p))
	for i, v := range p {
		s[i] = strconv.Itoa(v)
	}
	return strings.Join(s, ", ")
}

func sorted(p []int) []int {
	p = slices.Clone(p)
	slices.Sort(p)
	return slices.Compact(p)
}

var dcqcnEnabled = &check.Check{
	ID: "dcqcn.enabled", Title: "RoCE congestion control is enabled on the wanted priorities", Severity: check.High, FixTier: plan.Safe,
	Doc: `DCQCN has two ends: the notification point (NP) answers ECN-marked packets with congestion notification packets, the reaction
point (RP) slows the sender down when one arrives. Either one missing on the priority that RoCE uses leaves PFC to do its work: pause
frames spread through the fabric, and one slow receiver stops its neighbours.

Where to read it depends on the driver, and this is where most guides go wrong:

- MLNX_OFED and DOCA have a file per priority, /sys/class/net/IF/ecn/roce_np/enable/3 and roce_rp/enable/3.
- The in-tree driver has no such files and no switch. Enabling is firmware: ROCE_CC_PRIO_MASK_P1 (bit n is priority n; 255, all
  priorities, in every dump that was published). The files' absence does not mean that DCQCN is off. The check then says unknown
  and how to look, and never "off".
- Other drivers (irdma, bnxt_re, mana, efa) show it elsewhere or not at all: skipped, with the reason.

By hand, with the out-of-tree driver (lost at reboot):

    echo 1 > /sys/class/net/ens1np0/ecn/roce_np/enable/3
    echo 1 > /sys/class/net/ens1np0/ecn/roce_rp/enable/3

With any driver, look and set in firmware (takes effect after a firmware reset or reboot; hostcheck never writes it):

    mlxconfig -d 0000:18:00.0 query ROCE_CC_PRIO_MASK_P1

Often copied and wrong: to enable priority 3 here and stop. Trust, PFC, the DSCP of the CNPs, the application's ToS and the switches must
all mean the same priority; see the other dcqcn checks.`,
	Refs: []string{ofedECN, mlx5Cong, nvidiaCC}, Requires: []string{"rdma.device"},
	Run: runDCQCNEnabled,
}

func runDCQCNEnabled(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.DCQCN.Set }) {
		want, d := s.Rule.DCQCN, &s.dcb.DCQCN
		f := check.Finding{Subject: s.NIC.Subject(), Want: "NP and RP on " + priorityList(want.V), Source: want.Origin.String()}
		switch {
		case s.NIC.Driver != nil && *s.NIC.Driver != "mlx5_core":
			f.Status, f.Why = check.Skip, d.Unknown["np"]
		case d.NP == nil || d.RP == nil:
			f.Status, f.Why = check.Unknown, reasons(d.Unknown, "np", "rp")
			if d.Source != facts.FromOFED {
				f.Next = fmt.Sprintf("mlxconfig -d %s query ROCE_CC_PRIO_MASK_P1 (of a second port: _P2); bit n is priority n, 255 is all", s.dcb.BDF)
			}
		default:
			f.Got = fmt.Sprintf("NP on %s; RP on %s", priorityList(d.NP), priorityList(d.RP))
			judgeEnabled(&f, s)
		}
		r.Report(f)
	}
	return nil
}

func judgeEnabled(f *check.Finding, s dcbSubject) {
	d := &s.dcb.DCQCN
	var write []string
	for _, role := range []struct {
		dir string
		on  []int
	}{{"roce_np", d.NP}, {"roce_rp", d.RP}} {
		for _, prio := range s.Rule.DCQCN.V {
			p := fmt.Sprintf("%s/%s/ecn/%s/enable/%d", facts.NetClass, s.NIC.Name, role.dir, prio)
			value := "1"
			if !slices.Contains(role.on, prio) {
				value = "0"
				write = append(write, "echo 1 > "+p)
				f.Fix = append(f.Fix, offer(s.Rule.DCQCN.Origin, wishDCQCN(s.NIC, fmt.Sprintf("%s %d", strings.TrimPrefix(role.dir, "roce_"), prio), "off", "on", "congestion on this priority is left to PFC"))...)
			}
			f.Evidence = append(f.Evidence, check.Evidence{Source: p, Value: value})
		}
	}
	if len(f.Evidence) == 0 { // wanted on no priority: nothing can be short
		f.Evidence = []check.Evidence{{Source: facts.NetClass + "/" + s.NIC.Name + "/ecn", Value: f.Got}}
	}
	if f.Status = check.Pass; write != nil {
		f.Status = atMostWarn(check.Fail, s.Rule.DCQCN.Origin)
		f.Why = "on these priorities congestion is left to PFC, whose pauses spread through the fabric"
		f.Next = strings.Join(write, "; ")
	}
}

var dcqcnCNP = &check.Check{
	ID: "dcqcn.cnp_dscp", Title: "Congestion notification packets carry the DSCP that the fabric expects", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `A congestion notification packet (CNP) must not wait behind the congestion that it reports, so fabrics give it a DSCP, and by it a
strict-priority queue, of its own. NIC and switches must agree on that value.

There is no value that is right everywhere: cards ship with 48 (802.1p priority 6), NVIDIA's operator for Kubernetes writes 4. So no
profile of hostcheck gives one; take it from the switch configuration:

    --set nics.roce.cnp_dscp=48        # or cnp_dscp: 48 under the rule in /etc/hostcheck/profile.yaml

    cat /sys/class/net/ens1np0/ecn/roce_np/cnp_dscp                                  # MLNX_OFED, DOCA
    cat /sys/kernel/debug/mlx5/0000:18:00.0/cc_params/np_cnp_dscp                    # in-tree driver, as root
    echo 48 > …the same file                                                         # lost at reboot; CNP_DSCP_P1 in firmware stays

The in-tree files need a mounted debugfs, root, a bound mlx5_ib and no kernel lockdown. Any of these missing is unknown, not a fault.`,
	Refs: []string{nvidiaCC, mlx5Cong, ofedECN}, Requires: []string{"rdma.device"},
	Run: func(_ context.Context, r *check.Run) error {
		for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.CNPDSCP.Set }) {
			judgeParam(r, s, "", "np_cnp_dscp", s.Rule.CNPDSCP.V, s.Rule.CNPDSCP.Origin)
		}
		return nil
	},
}

var dcqcnParams = &check.Check{
	ID: "dcqcn.params", Title: "DCQCN parameters have the profile's values", Severity: check.Low, FixTier: plan.Safe,
	Doc: `How fast a sender slows down and recovers is set by some twenty parameters of the NIC. The card's defaults suit most fabrics, so no
profile of hostcheck gives values; a site that tunes them wants them equal on all hosts and kept over reboots:

    cc_params: ["np_min_time_between_cnps=4", "rp_ai_rate=5"]      # in a nics rule

The names are those of the in-tree driver's debugfs directory (/sys/kernel/debug/mlx5/BDF/cc_params); the out-of-tree driver's files are
read under the same names (/sys/class/net/IF/ecn/roce_rp/rpg_ai_rate is rp_ai_rate).

    grep . /sys/kernel/debug/mlx5/0000:18:00.0/cc_params/*
    echo 5 > /sys/kernel/debug/mlx5/0000:18:00.0/cc_params/rp_ai_rate     # lost at reboot

Often copied and wrong: parameter sets from a paper for 40G cards. Rates are in Mb/s and do not scale by themselves.`,
	Refs: []string{nvidiaCC, mlx5Cong, ofedECN}, Requires: []string{"rdma.device"},
	Run: func(_ context.Context, r *check.Run) error {
		for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.CCParams.Set }) {
			for _, want := range s.Rule.CCParams.V {
				name, value, _ := strings.Cut(want, "=")
				v, err := strconv.Atoi(value)
				if err != nil {
					return fmt.Errorf("the profile's cc_params %q: %w", want, err)
				}
				judgeParam(r, s, name, name, v, s.Rule.CCParams.Origin)
			}
		}
		return nil
	},
}

// judgeParam compares one parameter; suffix tells several of one interface apart.
func judgeParam(r *check.Run, s dcbSubject, suffix, name string, want int, origin profile.Origin) {
	d := &s.dcb.DCQCN
	f := check.Finding{Subject: strings.TrimSpace(s.NIC.Subject() + " " + suffix), Want: fmt.Sprintf("%s %d", name, want), Source: origin.String()}
	got, ok := d.Params[name]
	switch {
	case ok:
		f.Status, f.Got = check.Pass, fmt.Sprintf("%s %d", name, got)
		f.Evidence = []check.Evidence{{Source: d.ParamPath(name), Value: strconv.Itoa(got)}}
		if got != want {
			f.Status = atMostWarn(check.Fail, origin)
			f.Why = "NIC and fabric do not mean the same"
			if name != "np_cnp_dscp" {
				f.Why = "this host reacts to congestion unlike the profile's others"
			}
			f.Next = fmt.Sprintf("echo %d > %s (lost at reboot)", want, d.ParamPath(name))
			f.Fix = offer(origin, wishDCQCN(s.NIC, name, strconv.Itoa(got), strconv.Itoa(want), f.Why))
		}
	case d.Source == facts.DCBAbsent && s.NIC.Driver != nil && *s.NIC.Driver != "mlx5_core":
		f.Status, f.Why = check.Skip, d.Unknown["params"]
	case d.Params != nil && d.Unknown["params."+name] == "":
		f.Status = check.Unknown
		f.Why = fmt.Sprintf("this driver has no parameter %s; it has %s", name, strings.Join(paramNames(d.Params), ", "))
	default:
		f.Status, f.Why = check.Unknown, reasons(d.Unknown, "params", "params."+name)
	}
	r.Report(f)
}

func paramNames(m map[string]int) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

var dcqcnTrust = &check.Check{
	ID: "dcqcn.trust", Title: "The NIC trusts the header field that the profile wants", Severity: check.High, FixTier: plan.Link,
	Doc: `A received packet's priority comes from its DSCP (in the IP header) or from its 802.1p bits (in the VLAN tag). Routed RoCE v2 has no
VLAN tag across hops, so hosts of such fabrics trust DSCP. A NIC that trusts the other field puts all RoCE traffic into priority 0: PFC and
DCQCN, set up for priority 3, then never act.

Trust is read from the out-of-tree driver's file, else from the application table of dcbnl: mlx5 trusts DSCP exactly while the table
holds a DSCP entry.

    cat /sys/class/net/ens1np0/qos/trust            # MLNX_OFED, DOCA
    dcb app show dev ens1np0                        # iproute2, any driver: "dscp-prio …" means dscp

    mlnx_qos -i ens1np0 --trust dscp
    dcb app add dev ens1np0 dscp-prio 26:3          # the first DSCP entry switches mlx5 to DSCP, removing the last one back

Neither survives a reboot; let what configures the NIC do it. Changing trust rebuilds the queues of a running interface.`,
	Refs: []string{mlnxQoS, dcbDoc, "drivers/net/ethernet/mellanox/mlx5/core/en_dcbnl.c"},
	Run:  runDCQCNTrust,
}

func runDCQCNTrust(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.Trust.Set }) {
		want := s.Rule.Trust
		f := check.Finding{Subject: s.NIC.Subject(), Want: want.V, Source: want.Origin.String()}
		switch got := s.dcb.Trust; {
		case got == nil && s.dcb.DCBNL == facts.DCBAbsent:
			f.Status, f.Why = check.Skip, s.dcb.Unknown["trust"]
		case got == nil:
			f.Status, f.Why = check.Unknown, s.dcb.Unknown["trust"]
		default:
			f.Status, f.Got = check.Pass, *got
			source, value := s.dcb.Sources["trust"], *got
			if source == host.DCBKey(s.NIC.Name) {
				value = fmt.Sprintf("%d DSCP entries in the application table", dscpEntries(s.dcb))
			}
			f.Evidence = []check.Evidence{{Source: source, Value: value}}
			if *got != want.V {
				f.Status = atMostWarn(check.Fail, want.Origin)
				f.Why = "RoCE packets are put into the wrong priority, where neither PFC nor DCQCN acts"
				f.Fix = offer(want.Origin, wishNIC("dcb", s.NIC, "trust", *got, want.V, f.Why))
				f.Next = fmt.Sprintf("mlnx_qos -i %s --trust %s; with another driver add or remove the DSCP entries: dcb app show dev %s", s.NIC.Name, want.V, s.NIC.Name)
			}
		}
		r.Report(f)
	}
	return nil
}

func dscpEntries(d *facts.DCBNIC) (n int) {
	for _, a := range d.App {
		if a.Selector == "dscp" {
			n++
		}
	}
	return n
}

var dcqcnPFC = &check.Check{
	ID: "dcqcn.pfc", Title: "Priority flow control is on for exactly the wanted priorities", Severity: check.High, FixTier: plan.Link,
	Doc: `PFC pauses one priority so that its packets are not dropped. It must be on for RoCE's priority on the NIC and on every switch port
of the path, and off for all others: a second lossless priority takes buffer from the first, and ordinary traffic that can be
paused stops with it.

    dcb pfc show dev ens1np0                        # "prio-pfc 3:on" and the rest off
    dcb pfc set dev ens1np0 prio-pfc all:off 3:on
    mlnx_qos -i ens1np0 -f 0,0,0,1,0,0,0,0          # the same with mlnx-tools

Changing PFC on mlx5 toggles the link, so it is written only where it differs, and not on the interface one is logged in through. It
does not survive a reboot. ice refuses while its firmware runs LLDP: ethtool --set-priv-flags IF fw-lldp-agent off.

A fabric without PFC (lossy RoCE) is a choice, too: pfc: [] in the profile's rule then demands that it is off.`,
	Refs: []string{dcbDoc, mlnxQoS, "IEEE 802.1Q clause 36", "drivers/net/ethernet/mellanox/mlx5/core/en_dcbnl.c", "Documentation/networking/device_drivers/ethernet/intel/ice.rst"},
	Run:  runDCQCNPFC,
}

func runDCQCNPFC(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.PFC.Set }) {
		want, got := sorted(s.Rule.PFC.V), s.dcb.PFC
		f := check.Finding{Subject: s.NIC.Subject(), Want: "PFC on " + priorityList(want), Source: s.Rule.PFC.Origin.String()}
		switch {
		case got == nil && s.dcb.DCBNL == facts.DCBAbsent && len(want) > 0:
			f.Status = atMostWarn(check.Fail, s.Rule.PFC.Origin)
			f.Got, f.Why = "no data center bridging", "the driver (or the kernel, without CONFIG_DCB) cannot do PFC at all"
			f.Evidence = s.dcbl("operation not supported")
			f.Next = "use a driver with DCB; for mlx5, CONFIG_MLX5_CORE_EN_DCB"
		case got == nil && s.dcb.DCBNL == facts.DCBAbsent:
			f.Status, f.Got = check.Pass, "no data center bridging"
			f.Evidence = s.dcbl("operation not supported")
		case got == nil:
			f.Status, f.Why = check.Unknown, s.dcb.Unknown["pfc"]
		default:
			f.Status, f.Got = check.Pass, "PFC on "+priorityList(got)
			f.Evidence = s.dcbl("pfc " + priorityList(got))
			if !slices.Equal(got, want) {
				f.Status = atMostWarn(check.Fail, s.Rule.PFC.Origin)
				f.Why, f.Next = whyPFC(got, want, s.NIC.Name)
				f.Fix = offer(s.Rule.PFC.Origin, wishNIC("dcb", s.NIC, "pfc", priorityList(got), priorityList(want), f.Why))
			}
		}
		r.Report(f)
	}
	return nil
}

func whyPFC(got, want []int, nic string) (why, next string) {
	set := "all:off"
	short := false
	for _, p := range want {
		set += fmt.Sprintf(" %d:on", p)
		short = short || !slices.Contains(got, p)
	}
	why = "a lossless priority too many takes buffers and stops ordinary traffic"
	if short {
		why = "RoCE packets are dropped when a buffer is full, and each loss costs a round of retransmission"
	}
	return why, fmt.Sprintf("dcb pfc set dev %s prio-pfc %s (mlx5 toggles the link)", nic, set)
}

var dcqcnPause = &check.Check{
	ID: "dcqcn.pause", Title: "Global pause is off where priority flow control is on", Severity: check.Medium, FixTier: plan.Link,
	Doc: `Global pause (IEEE 802.3x) stops a whole port, PFC one priority. They do not work together: a port uses one or the other, and a
global pause frame stops the priorities that PFC meant to keep running. Drivers and switches resolve the conflict differently. The check
looks at every interface that the profile has rules for and that has PFC on some priority.

    ethtool -a ens1np0
    ethtool -A ens1np0 rx off tx off          # mlx5 may take the link down for a moment

The setting does not survive a reboot; systemd.link has [Link] RxFlowControl=no, TxFlowControl=no.`,
	Refs: []string{"https://man7.org/linux/man-pages/man8/ethtool.8.html", "IEEE 802.1Q clause 36", "https://www.freedesktop.org/software/systemd/man/latest/systemd.link.html"},
	Run:  runDCQCNPause,
}

func runDCQCNPause(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(*profile.NICRule) bool { return true }) {
		if len(s.dcb.PFC) == 0 {
			continue
		}
		f := check.Finding{Subject: s.NIC.Subject(), Want: "global pause off, as PFC is on " + priorityList(s.dcb.PFC), Source: "IEEE 802.1Q clause 36"}
		if s.dcb.Pause == nil {
			f.Status, f.Why = check.Unknown, s.dcb.Unknown["pause"]
			r.Report(f)
			continue
		}
		p := *s.dcb.Pause
		f.Status, f.Got = check.Pass, fmt.Sprintf("rx %s, tx %s", onOff(p.RX), onOff(p.TX))
		f.Evidence = append(s.dcbl("pfc "+priorityList(s.dcb.PFC)), check.Evidence{Source: "ethtool " + s.NIC.Name + " pause", Value: f.Got})
		if p.RX || p.TX {
			f.Status = check.Fail
			f.Why = "a global pause frame stops the priorities that PFC keeps apart"
			f.Next = "ethtool -A " + s.NIC.Name + " autoneg off rx off tx off"
			if p.RX {
				f.Fix = append(f.Fix, wishNIC("ethtool", s.NIC, "pause rx", "on", "off", f.Why))
			}
			if p.TX {
				f.Fix = append(f.Fix, wishNIC("ethtool", s.NIC, "pause tx", "on", "off", f.Why))
			}
		}
		r.Report(f)
	}
	return nil
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

var dcqcnOwner = &check.Check{
	ID: "dcqcn.owner", Title: "DCBX is run by the wanted side", Severity: check.Medium, FixTier: plan.Link,
	Doc: `DCBX negotiates PFC, ETS and application priorities with the switch. Either software on the host runs it, or the NIC's firmware. While
the firmware does, the switch decides: what the host sets is refused or overwritten, and PFC may change when a cable is moved.

The check reads the DCBX flags of dcbnl: without "host" the firmware is the owner. Where the profile does not say who should be
(dcbx: host or firmware in the rule), it warns when the profile wants PFC or trust set from the host and the firmware owns them.

    dcb dcbx show dev ens1np0
    mlnx_qos -i ens1np0 -d os                                # mlx5: hand it to the host
    dcb dcbx set dev ens1np0 host ieee
    ethtool --set-priv-flags ens3 fw-lldp-agent off          # ice

Do not run lldpad beside a static configuration: it writes its own idea of it.`,
	Refs: []string{dcbDoc, mlnxQoS, "include/uapi/linux/dcbnl.h, DCB_CAP_DCBX_*", "Documentation/networking/device_drivers/ethernet/intel/ice.rst"},
	Run:  runDCQCNOwner,
}

func runDCQCNOwner(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(n *profile.NICRule) bool { return n.DCBX.Set || n.PFC.Set || n.Trust.Set }) {
		stated := s.Rule.DCBX
		want, source, origin := "host", "", stated.Origin
		switch {
		case stated.Set:
			want, source = stated.V, stated.Origin.String()
		case s.Rule.PFC.Set:
			source, origin = s.Rule.PFC.Origin.String(), s.Rule.PFC.Origin
		default:
			source, origin = s.Rule.Trust.Origin.String(), s.Rule.Trust.Origin
		}
		f := check.Finding{Subject: s.NIC.Subject(), Want: want, Source: source}
		if s.dcb.DCBX == nil {
			f.Status, f.Why = check.Unknown, s.dcb.Unknown["dcbx"]
			if s.dcb.DCBNL != facts.DCBUnknown {
				f.Status = check.Skip
			}
			r.Report(f)
			continue
		}
		f.Status, f.Got = check.Pass, "firmware"
		if slices.Contains(s.dcb.DCBX, "host") {
			f.Got = "host"
		}
		f.Evidence = s.dcbl("dcbx " + spaced(s.dcb.DCBX, "no flags"))
		if f.Got != want {
			f.Status = check.Warn
			if stated.Set {
				f.Status = atMostWarn(check.Fail, stated.Origin)
			}
			if f.Why = "the switch and the firmware decide on PFC and trust: what the host sets is refused or overwritten"; want == "firmware" {
				f.Why = "the firmware does not follow the switch; the host's own settings hold"
			}
			f.Next = handOver(want, s.NIC.Name)
			f.Fix = offer(origin, wishNIC("dcb", s.NIC, "dcbx", f.Got, want, f.Why))
		}
		r.Report(f)
	}
	return nil
}

// handOver says how DCBX is given to the host or the firmware.
func handOver(to, nic string) string {
	if to == "host" {
		return fmt.Sprintf("mlnx_qos -i %s -d os (mlx5); dcb dcbx set dev %s host ieee; ice: ethtool --set-priv-flags %s fw-lldp-agent off", nic, nic, nic)
	}
	return fmt.Sprintf("mlnx_qos -i %s -d fw (mlx5); ice: ethtool --set-priv-flags %s fw-lldp-agent on", nic, nic)
}

var dcqcnToS = &check.Check{
	ID: "dcqcn.tos", Title: "The forced RoCE traffic class is the byte that was meant", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `RoCE traffic takes its DSCP from a ToS byte: DSCP in the upper six bits, ECN in the lower two. 106 is DSCP 26 with ECT(0); 104 is DSCP
26 without. Three places set it: the application (NCCL_IB_TC, default 0), the default of rdma_cm, and with MLNX_OFED or DOCA
a file that forces it on everything:

    cat /sys/class/infiniband/mlx5_0/tc/1/traffic_class        # "Global tclass=106"
    echo 106 > /sys/class/infiniband/mlx5_0/tc/1/traffic_class
    cma_roce_tos -d mlx5_0 -t 106

The trap: all of them take the whole byte. Writing 26 for "DSCP 26" gives DSCP 6, which is priority 0: the traffic is neither lossless nor
controlled, and nothing complains. The check compares the byte with the profile's tos, where given (equal DSCP is enough); without one it
fails a byte that is in a priority without PFC while the same number as a DSCP would be in one with PFC.

Where nothing is forced the application decides, and no file tells: skipped. The rdma_cm default can only be read after somebody
made its configfs directory, which changes the host; hostcheck reads it where it is and does not make it.`,
	Refs: []string{"drivers/infiniband/core/cma_configfs.c", mlnxQoS, "RFC 2474", "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"}, Requires: []string{"rdma.device"},
	Run: runDCQCNToS,
}

func runDCQCNToS(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(*profile.NICRule) bool { return true }) {
		judged := false
		for _, place := range []struct {
			field string
			v     *int
		}{{"traffic_class", s.dcb.TrafficClass}, {"default_roce_tos", s.dcb.DefaultToS}} {
			if place.v != nil {
				judged = true
				judgeToS(r, s, place.field, *place.v)
			}
		}
		if judged || !s.Rule.ToS.Set {
			continue
		}
		f := check.Finding{Subject: s.NIC.Subject(), Want: tosText(s.Rule.ToS.V), Source: s.Rule.ToS.Origin.String()}
		f.Status, f.Why = check.Unknown, s.dcb.Unknown["traffic_class"]
		if s.dcb.Unforced {
			f.Status, f.Why = check.Skip, "nothing on the host forces a ToS, so the applications decide: "+f.Why
		}
		r.Report(f)
	}
	return nil
}

func judgeToS(r *check.Run, s dcbSubject, field string, tos int) {
	source := s.dcb.Sources[field]
	f := check.Finding{
		Subject: s.NIC.Subject() + " " + field, Got: tosText(tos),
		Evidence: []check.Evidence{{Source: source, Value: strconv.Itoa(tos)}},
	}
	want := s.Rule.ToS
	trapped := trappedToS(s.dcb, tos)
	switch {
	case want.Set:
		f.Want, f.Source = tosText(want.V), want.Origin.String()
		f.Status = check.Pass
		if tos>>2 != want.V>>2 {
			f.Status = atMostWarn(check.Fail, want.Origin)
			f.Why = "RoCE traffic is in another class than the fabric's"
			f.Next = fmt.Sprintf("write %d: %s", want.V, source)
			f.Fix = offer(want.Origin, wishFile(source, strconv.Itoa(tos), strconv.Itoa(want.V), f.Why))
		}
	case trapped:
		f.Want, f.Source = fmt.Sprintf("%d or %d, if DSCP %d is meant", tos<<2, tos<<2|2, tos), "RFC 2474"
		f.Status = check.Fail
		f.Next = fmt.Sprintf("write %d (DSCP %d, ECT(0)): %s", tos<<2|2, tos, source)
	case len(s.dcb.PFC) == 0:
		f.Status, f.Why = check.Skip, "the profile wants no ToS, and no priority has PFC to compare with"
	default:
		f.Want, f.Source = "the whole byte, not the DSCP alone", "RFC 2474"
		f.Status = check.Pass
		f.Evidence = append(f.Evidence, s.dcbl("pfc "+priorityList(s.dcb.PFC))...)
	}
	if trapped && (f.Status == check.Fail || f.Status == check.Warn) {
		prio, _ := s.dcb.PriorityOf(tos >> 2)
		f.Why = fmt.Sprintf("the number was taken for a DSCP, but it is the whole byte: packets carry DSCP %d, which is priority %d, without PFC", tos>>2, prio)
		f.Evidence = append(f.Evidence, s.dcbl("pfc "+priorityList(s.dcb.PFC))...)
	}
	r.Report(f)
}

// tosText writes "106 (DSCP 26, ECT(0))".
func tosText(tos int) string {
	ecn := []string{"not ECN-capable", "ECT(1)", "ECT(0)", "CE"}[tos&3]
	return fmt.Sprintf("%d (DSCP %d, %s)", tos, tos>>2, ecn)
}

// trappedToS is true of a byte whose DSCP has no PFC, while the same number
// taken for a DSCP has.
func trappedToS(d *facts.DCBNIC, tos int) bool {
	if tos > 63 || tos == 0 {
		return false
	}
	as, _ := d.PriorityOf(tos >> 2)
	meant, _ := d.PriorityOf(tos)
	return !slices.Contains(d.PFC, as) && slices.Contains(d.PFC, meant)
}

var dcqcnPriority = &check.Check{
	ID: "dcqcn.priority", Title: "The DSCP of RoCE traffic leads to a priority with PFC", Severity: check.High, FixTier: plan.Link,
	Doc: `Trust, PFC and ToS can each be right and still not meet: what joins them is the map from DSCP to priority. Its default is the upper
three bits (DSCP 26 is priority 3, 48 is 6); an entry in the application table overrides it, and a leftover entry moves the traffic
out of the lossless priority.

The check takes the DSCP of the ToS byte that is forced on the host, else of the profile's tos, and follows it through the table, on
interfaces that trust DSCP and have PFC on some priority.

    dcb app show dev ens1np0 dscp-prio
    dcb app replace dev ens1np0 dscp-prio 26:3
    mlnx_qos -i ens1np0 --dscp2prio set,26,3`,
	Refs: []string{dcbDoc, mlnxQoS}, Requires: []string{"dcqcn.trust", "dcqcn.pfc", "dcqcn.tos"},
	Run: runDCQCNPriority,
}

func runDCQCNPriority(_ context.Context, r *check.Run) error {
	for _, s := range dcbSubjects(r, func(*profile.NICRule) bool { return true }) {
		d := s.dcb
		tos, from, origin := d.TrafficClass, d.Sources["traffic_class"], profile.Origin{}
		if tos == nil && s.Rule.ToS.Set {
			tos, origin = &s.Rule.ToS.V, s.Rule.ToS.Origin
			from = origin.String()
		}
		if tos == nil || len(d.PFC) == 0 || d.Trust == nil || *d.Trust != "dscp" {
			continue
		}
		dscp := *tos >> 2
		prio, listed := d.PriorityOf(dscp)
		f := check.Finding{
			Subject: s.NIC.Subject(), Want: fmt.Sprintf("DSCP %d in priority %s", dscp, priorityList(d.PFC)), Source: from,
			Got: fmt.Sprintf("DSCP %d in priority %d", dscp, prio),
		}
		entry := fmt.Sprintf("dscp %d: priority %d", dscp, prio)
		if !listed {
			entry = fmt.Sprintf("no entry for DSCP %d", dscp)
		}
		f.Evidence = s.dcbl(entry + ", pfc " + priorityList(d.PFC))
		switch {
		case !listed && (s.NIC.Driver == nil || *s.NIC.Driver != "mlx5_core"):
			f.Status, f.Why, f.Got = check.Unknown, "the table has no entry for this DSCP, and this driver's default is not known", ""
		case slices.Contains(d.PFC, prio):
			f.Status = check.Pass
		default:
			f.Status = atMostWarn(check.Fail, origin)
			f.Why = "RoCE traffic is in a priority without PFC, where it is dropped under congestion"
			if !trappedToS(d, *tos) { // else the byte is wrong, and not the table
				f.Fix = offer(origin, wishNIC("dcb", s.NIC, fmt.Sprintf("dscp-prio %d", dscp), strconv.Itoa(prio), strconv.Itoa(d.PFC[0]), f.Why))
			}
			f.Next = fmt.Sprintf("dcb app replace dev %s dscp-prio %d:%d, or see whether PFC is on the wrong priority", s.NIC.Name, dscp, d.PFC[0])
		}
		r.Report(f)
	}
	return nil
}
