// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

var rdmaSubnets = &check.Check{
	ID: "rdma.subnets", Title: "Rails that share a subnet answer and send for themselves", Severity: check.Medium, FixTier: plan.Safe,
	Doc: `Several rails with addresses in one IPv4 subnet look like one network with several doors to the kernel. By default any rail answers ARP
for the address of any other. Peers then learn the MAC of the wrong port, and a NIC drops RoCE packets whose address is not in its own GID
table: some pairs of rails connect and others time out, differently after each reboot. And what is sent to the subnet leaves by the first
rail of the main routing table, whatever its source address: TCP of all rails on one link. rdma_cm, too, before kernel 6.1 (and its stable
backports), refused a request (EHOSTUNREACH) when the main table would answer by another rail; since then it asks for the rail itself.

Two remedies: a subnet for each rail, which is simplest (often /31); or arp_ignore=1 and arp_announce=2 on each rail, and policy routing, a
table and a rule for each. Judged are the rails of the profile with a network in common in /proc/net/route. Without the ARP settings, where
as with rp_filter the larger of net.ipv4.conf.all and the interface's own counts, the check fails. Without a rule for a rail's
address (or for the interface) that leads to another table than main it warns; the first rail of the table needs none. Whether that
table holds the right routes is not judged. Ports of a bond and rails in a VRF are no doors of their own and are left out.

By hand, for each rail:

    sysctl -w net.ipv4.conf.ens2np0.arp_ignore=1 net.ipv4.conf.ens2np0.arp_announce=2
    ip route add 10.0.0.0/24 dev ens2np0 src 10.0.0.12 table 102
    ip rule add from 10.0.0.12/32 table 102 priority 1002

For good: a file in /etc/sysctl.d, and netplan's routing-policy, RoutingPolicyRule of systemd-networkd, or rules of NetworkManager.

Often copied and wrong: net.ipv4.conf.all.rp_filter=2 "for multi-rail". It stops the kernel from dropping TCP packets that came in by the
other door; it changes neither who answers ARP nor which way packets leave, and RoCE data never meets it.`,
	Refs: []string{
		ipSysctlDoc, "drivers/infiniband/core/cma.c, validate_ipv4_net_dev; commit eb83f502adb0", "https://man7.org/linux/man-pages/man8/ip-rule.8.html",
	},
	Requires: []string{"rdma.port"},
	Run:      runSubnets,
}

func runSubnets(_ context.Context, r *check.Run) error {
	rails := map[string]*facts.NIC{}
	for _, w := range selected(r) {
		if n := w.NIC; w.Rule.Rail.V && !w.NIC.VF && (n.Master == nil || *n.Master == "") {
			rails[n.Name] = n
		}
	}
	if len(rails) < 2 {
		r.Report(check.Finding{Status: check.Skip, Why: "there are no two rails, as rules of the profile mark them, that could share a subnet"})
		return nil
	}
	links, why := r.Facts.OnLink()
	if why != "" {
		r.Report(check.Finding{Status: check.Unknown, Why: "the networks of the rails are not known: " + why})
		return nil
	}
	links = slices.DeleteFunc(links, func(l facts.OnLink) bool { return rails[l.Interface] == nil })
	var names []string
	for _, l := range links {
		names = append(names, arpKeys(l.Interface)...)
	}
	s := r.Facts.Sysctl()
	s.Prefetch(names)
	for i, l := range links {
		j := slices.IndexFunc(links, func(o facts.OnLink) bool { return o.Interface != l.Interface && o.Network.Overlaps(l.Network) })
		f := check.Finding{Subject: rails[l.Interface].Subject(), Want: "a subnet of its own, or arp_ignore, arp_announce and a rule of policy routing"}
		f.Evidence = []check.Evidence{{Source: facts.PathRoutes, Value: l.Interface + " " + l.Network.String()}}
		if j < 0 {
			f.Status, f.Got = check.Pass, l.Network.String()+" is of this rail alone"
			r.Report(f)
			continue
		}
		f.Got = fmt.Sprintf("%s is on %s, too", l.Network, links[j].Interface)
		f.Evidence = append(f.Evidence, check.Evidence{Source: facts.PathRoutes, Value: links[j].Interface + " " + links[j].Network.String()})
		judgeSharedSubnet(r, &f, l, i < j)
		r.Report(f)
	}
	if len(links) == 0 {
		r.Report(check.Finding{Status: check.Skip, Why: "no rail has an IPv4 network of its own in " + facts.PathRoutes})
	}
	return nil
}

func arpKeys(ifname string) []string {
	var keys []string
	for _, of := range []string{"all", ifname} {
		for _, k := range []string{"arp_ignore", "arp_announce"} {
			keys = append(keys, facts.SysctlName("net/ipv4/conf/"+of+"/"+k))
		}
	}
	return keys
}

// judgeSharedSubnet judges a rail whose network is on another rail, too; first
// is true of the rail that the main table uses.
func judgeSharedSubnet(r *check.Run, f *check.Finding, l facts.OnLink, first bool) {
	ignore, announce, why := effectiveARP(r.Facts.Sysctl(), l.Interface)
	if why != "" {
		f.Status, f.Why = check.Unknown, why
		return
	}
	arp := fmt.Sprintf("arp_ignore %d, arp_announce %d", ignore, announce)
	f.Evidence = append(f.Evidence, check.Evidence{Source: "net.ipv4.conf." + l.Interface + " and all", Value: arp})
	f.Got += "; " + arp
	if ignore < 1 || announce != 2 {
		f.Status = check.Fail
		f.Why = "rails answer ARP for each other's addresses, so peers send RoCE packets to a port that drops them"
		f.Next = fmt.Sprintf("sysctl -w net.ipv4.conf.%s.arp_ignore=1 net.ipv4.conf.%s.arp_announce=2, and a file in /etc/sysctl.d; or give each rail a subnet of its own", l.Interface, l.Interface)
		f.Fix = arpWishes(r.Facts.Sysctl(), l.Interface, ignore, announce)
		return
	}
	if first {
		f.Status = check.Pass
		return
	}
	rule, why := ruleOf(r, l)
	switch {
	case why != "":
		f.Status, f.Why = check.Unknown, "the rules of policy routing are not known: "+why
	case rule == "":
		f.Status = check.Warn
		f.Got += "; no rule of policy routing is for this rail"
		f.Why = "TCP of this rail leaves by another one, and before kernel 6.1 rdma_cm refuses connections over it"
		f.Next = fmt.Sprintf("give each rail a subnet of its own, or add for its address: ip route add %s dev %s src ADDRESS table 102; ip rule add from ADDRESS/32 table 102", l.Network, l.Interface)
		f.Evidence = append(f.Evidence, check.Evidence{Source: "rules inet", Value: "none for " + l.Interface})
	default:
		f.Status = check.Pass
		f.Got += "; " + rule
		f.Evidence = append(f.Evidence, check.Evidence{Source: "rules inet", Value: rule})
	}
}

// arpWishes sets what is missing on the interface itself; all is left alone.
func arpWishes(s *facts.Sysctl, ifname string, ignore, announce int) []plan.Wish {
	var wishes []plan.Wish
	for _, w := range []struct {
		key     string
		missing bool
		want    string
	}{{"arp_ignore", ignore < 1, "1"}, {"arp_announce", announce != 2, "2"}} {
		k := s.Key(facts.SysctlName("net/ipv4/conf/" + ifname + "/" + w.key))
		if w.missing && k.Running != nil {
			wishes = append(wishes, plan.Wish{Setting: plan.Setting{Kind: "sysctl", Name: k.Name}, Got: *k.Running, Want: w.want, Tier: plan.Safe,
				Why: "a rail must answer ARP for itself alone"})
		}
	}
	return wishes
}

// effectiveARP is what counts for an interface: the larger of its own and all
// (IN_DEV_ARP_IGNORE, IN_DEV_ARP_ANNOUNCE).
func effectiveARP(s *facts.Sysctl, ifname string) (ignore, announce int, why string) {
	keys := arpKeys(ifname)
	var n [4]int
	for i, name := range keys {
		k := s.Key(name)
		if k.Running == nil {
			return 0, 0, k.Unknown["running"]
		}
		v, err := strconv.Atoi(*k.Running)
		if err != nil {
			return 0, 0, k.Path() + ": not a number"
		}
		n[i] = v
	}
	return max(n[0], n[2]), max(n[1], n[3]), ""
}

// ruleOf finds the rule that leads what a rail sends to a table of its own.
func ruleOf(r *check.Run, l facts.OnLink) (rule, why string) {
	rules, err := r.Facts.Host().PolicyRules()
	if err != nil {
		return "", host.Reason(err)
	}
	var own []facts.IPv4
	for _, d := range r.Facts.RDMA().Devices {
		for _, p := range d.Ports {
			for _, g := range p.GIDs {
				if a, ok := g.IPv4(); ok && g.Ndev == l.Interface && l.Network.Contains(a) {
					own = append(own, a)
				}
			}
		}
	}
	for _, p := range rules {
		if p.Mark || !p.VRF && (p.Table == 0 || p.Table >= 253 && p.Table <= 255) {
			continue
		}
		src, ok := facts.ParseIPv4Net(p.Src)
		from := ok && slices.ContainsFunc(own, src.Contains)
		if from || p.OIF == l.Interface {
			return fmt.Sprintf("rule %d from %s lookup %d", p.Priority, orAll(p.Src), p.Table), ""
		}
	}
	return "", ""
}

func orAll(s string) string {
	if s == "" {
		return "all"
	}
	return s
}
