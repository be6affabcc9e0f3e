// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Expand turns wishes into changes: of an interface first who runs DCBX, then
// trust and its table, then PFC.
func (v DCB) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	mgmt := newMgmtRule(h, v.AllowMgmt)
	f := facts.New(h)
	for len(wishes) > 0 {
		target := wishes[0].Target
		elsewhere := func(w plan.Wish) bool { return w.Target != target }
		mine := slices.DeleteFunc(slices.Clone(wishes), elsewhere)
		wishes = slices.DeleteFunc(slices.Clone(wishes), func(w plan.Wish) bool { return !elsewhere(w) })
		p, err := openDCB(h, target)
		if err != nil {
			for _, w := range mine {
				refused = append(refused, refuse(w, err.Error()))
			}
			continue
		}
		slices.SortStableFunc(mine, func(a, b plan.Wish) int { return dcbRank(a.Name) - dcbRank(b.Name) })
		for _, w := range mine {
			owned := ownedBy(f, w)
			why, steps := p.add(w)
			switch {
			case why == "" && p.holds(w):
			case owned != nil:
				p.drop(w)
				refused = append(refused, *owned)
			case why != "":
				refused = append(refused, refuse(w, why, steps...))
			default:
				byHand, _ := dcbSteps(w, p.ifname, p.driver)
				if why, steps := mgmt.refuses(p.ifname, strings.Join(byHand, "; ")); why != "" {
					p.drop(w)
					refused = append(refused, refuse(w, why, steps...))
				}
			}
		}
		changes = append(changes, p.changes()...)
	}
	return changes, refused, nil
}

// dcbRank is the order in which wishes are looked at and made: trust before
// the entries of its table, PFC last.
func dcbRank(name string) int {
	switch name {
	case dcbDCBX:
		return 0
	case dcbTrust:
		return 1
	case dcbPFC:
		return 3
	}
	return 2
}

// dcbPort is one interface and what is wished of it.
type dcbPort struct {
	h      *host.Host
	target string
	ifname string
	driver string
	dcb    *host.DCB
	trust  string // what the out-of-tree driver's file says; "" without that file
	wishes []plan.Wish
}

func openDCB(h *host.Host, target string) (*dcbPort, error) {
	ifname, err := interfaceOf(h, target)
	if err != nil {
		return nil, err
	}
	p := &dcbPort{h: h, target: target, ifname: ifname, driver: driverOf(h, ifname)}
	p.dcb, err = h.DCB(ifname)
	switch {
	case host.NotOffered(err):
		return nil, fmt.Errorf("the driver of %s has no data center bridging", ifname)
	case errors.Is(err, host.ErrNotCaptured):
		return nil, fmt.Errorf("the data center bridging of %s is not in this tree", ifname)
	case err != nil:
		return nil, errors.New(host.Reason(err))
	}
	p.trust, err = h.Text(trustFile(ifname))
	if err != nil && !host.Absent(err) {
		return nil, errors.New(host.Reason(err))
	}
	return p, nil
}

// want gives the wish of a name that was taken, or "".
func (p *dcbPort) want(name string) string {
	for _, w := range p.wishes {
		if w.Name == name {
			return w.Want
		}
	}
	return ""
}

func (p *dcbPort) drop(w plan.Wish) {
	p.wishes = slices.DeleteFunc(p.wishes, func(o plan.Wish) bool { return o.Setting == w.Setting })
}

// hostOwned reports whether the host decides, now or after this plan. A driver
// that does not tell has nobody else.
func (p *dcbPort) hostOwned() bool {
	return p.dcb.DCBX == nil || *p.dcb.DCBX&host.DCBXHost != 0 || p.want(dcbDCBX) == "host"
}

// holds reports whether a wish is met already.
func (p *dcbPort) holds(w plan.Wish) bool {
	switch w.Name {
	case dcbDCBX:
		return (*p.dcb.DCBX&host.DCBXHost != 0) == (w.Want == "host")
	case dcbTrust:
		if p.trust != "" {
			return p.trust == w.Want
		}
		return (appText(p.dcb.Apps) != "none") == (w.Want == "dscp")
	case dcbPFC:
		mask, _ := parsePrios(w.Want)
		return p.dcb.PFC.Enable == mask
	}
	if w.Name == dcbApp {
		apps, err := tableOf(w.Want)
		return err == nil && appText(apps) == appText(p.dcb.Apps)
	}
	a := dscpWish(w)
	return a != nil && slices.Contains(p.dcb.Apps, *a)
}

// tableOf reads the DSCP entries of "app dscp" as somebody wishes them.
func tableOf(want string) ([]host.DCBApp, error) {
	apps, err := parseApps(want)
	for _, a := range apps {
		if a.Protocol > 63 || a.Priority > 7 {
			return nil, fmt.Errorf("DSCP %d in priority %d: a DSCP is 0 to 63, a priority 0 to 7", a.Protocol, a.Priority)
		}
	}
	return apps, err
}

// dscpWish is the entry that "dscp-prio 26" wishes, or nil.
func dscpWish(w plan.Wish) *host.DCBApp {
	name, dscp, _ := strings.Cut(w.Name, " ")
	d, err1 := strconv.Atoi(dscp)
	prio, err2 := strconv.Atoi(w.Want)
	if name != "dscp-prio" || err1 != nil || err2 != nil || d < 0 || d > 63 || prio < 0 || prio > 7 {
		return nil
	}
	return &host.DCBApp{Selector: host.DCBSelDSCP, Priority: uint8(prio), Protocol: uint16(d)}
}

// add takes a wish, or says why the device cannot have it.
func (p *dcbPort) add(w plan.Wish) (why string, steps []string) {
	steps, err := dcbSteps(w, p.ifname, p.driver)
	if err != nil {
		return err.Error(), nil
	}
	untold := func(what string) (string, []string) {
		return fmt.Sprintf("the driver of %s does not tell its %s", p.ifname, what), steps
	}
	switch w.Name {
	case dcbDCBX:
		switch {
		case p.dcb.DCBX == nil:
			return untold("DCBX mode")
		case p.holds(w):
			return "", nil
		case w.Want == "firmware":
			return "the switch would decide on PFC and trust from then on, and undo could not bring back what it changes", steps
		case *p.dcb.DCBX&host.DCBXHost == 0 && (*p.dcb.DCBX&host.DCBXLLD != 0 || p.driver == "ice" || p.driver == "i40e"):
			return "the firmware runs LLDP and DCBX itself, and the driver does not hand them over by this way", steps
		}
		p.wishes = append(p.wishes, w)
		return "", nil
	case dcbPFC:
		mask, _ := parsePrios(w.Want)
		switch n := bits.OnesCount8(mask); {
		case p.dcb.PFC == nil:
			return untold("PFC")
		case p.dcb.PFC.Cap > 0 && n > int(p.dcb.PFC.Cap):
			return fmt.Sprintf("%s can have PFC on %d priorities at a time, and %d are wanted", p.ifname, p.dcb.PFC.Cap, n), nil
		}
	default:
		if p.dcb.Apps == nil && (w.Name != dcbTrust || p.trust == "") {
			return untold("application table")
		}
	}
	switch {
	case p.holds(w):
		return "", nil
	case !p.hostOwned():
		return "the firmware runs DCBX: it refuses or overwrites what the host sets", append(p.handOver(), steps...)
	case (p.driver == "ice" || p.driver == "i40e") && exists(p.h, path.Join(facts.NetClass, p.ifname, "bonding_slave/state")):
		return p.driver + " changes no data center bridging of a port in a bond", []string{"take " + p.ifname + " out of its bond, run hostcheck again, and put it back"}
	}
	if trust := p.want(dcbTrust); w.Name == dcbApp && trust != "" && p.trust == "" && (trust == "dscp") != (w.Want != "none") {
		return fmt.Sprintf("trust is to be %s, which the table decides: %s", trust, w.Want), nil
	}
	if dscpWish(w) != nil {
		switch trust := p.want(dcbTrust); {
		case trust == "pcp" && p.trust == "":
			return "the 802.1p priority is to be trusted, which means a table without DSCP entries", nil
		case trust == "" && p.trust == "" && appText(p.dcb.Apps) == "none":
			return "the first DSCP entry switches " + p.ifname + " to trusting DSCP, which nobody asked for", []string{"let the profile say trust: dscp for it"}
		}
	}
	p.wishes = append(p.wishes, w)
	return "", nil
}

// handOver is how DCBX is given to the host.
func (p *dcbPort) handOver() []string {
	steps, _ := dcbSteps(plan.Wish{Setting: DCBSetting(p.target, dcbDCBX), Want: "host"}, p.ifname, p.driver)
	return append(steps, "or let the profile say dcbx: host, and run hostcheck again")
}

// changes are what the wishes that were taken come to.
func (p *dcbPort) changes() (out []plan.Change) {
	change := func(name, after, disturbs string, wishes ...plan.Wish) {
		out = append(out, plan.Change{
			Setting: DCBSetting(p.target, name), After: plan.Text(after), Tier: plan.Link, Why: united(wishes), Disturbs: disturbs,
		})
	}
	const rebuilt = "the driver rebuilds the queues of the interface: packets are lost for a moment"
	var table []plan.Wish
	for _, w := range p.wishes {
		if w.Name != dcbPFC && w.Name != dcbDCBX && (w.Name != dcbTrust || p.trust == "") {
			table = append(table, w)
		}
	}
	for _, w := range p.wishes {
		switch w.Name {
		case dcbDCBX:
			mode := *p.dcb.DCBX | host.DCBXHost
			if mode&(host.DCBXCEE|host.DCBXIEEE) == 0 {
				mode |= host.DCBXIEEE
			}
			change(dcbDCBX, modeText(mode), "PFC, ETS and trust no longer follow the switch", w)
		case dcbPFC:
			mask, _ := parsePrios(w.Want)
			disturbs := "the driver may restart the port"
			if p.driver == "mlx5_core" {
				disturbs = "the port's link goes down and up"
			}
			if pause, err := p.h.EthtoolPause(p.ifname); err == nil && mask != 0 && (pause.RX || pause.TX) {
				disturbs += "; global pause is on, which excludes PFC: see dcqcn.pause"
			}
			change(dcbPFC, prioText(mask), disturbs, w)
		default:
			if !slices.ContainsFunc(table, func(t plan.Wish) bool { return t.Setting == w.Setting }) {
				change(dcbTrust, w.Want, rebuilt, w)
			} else if w.Setting == table[0].Setting { // one change for all of the table
				change(dcbApp, appText(p.table(table)), rebuilt, table...)
			}
		}
	}
	return out
}

// table gives the DSCP entries that the wishes come to. A table that had none
// gets one for each DSCP, with the priority of the hardware's default map
// (dscp>>3), as mlnx_qos does it: what an entry's absence means is the
// driver's secret once it trusts DSCP.
func (p *dcbPort) table(wishes []plan.Wish) []host.DCBApp {
	apps := slices.DeleteFunc(slices.Clone(p.dcb.Apps), func(a host.DCBApp) bool { return a.Selector != host.DCBSelDSCP })
	for _, w := range wishes {
		a := dscpWish(w)
		switch {
		case a != nil:
			apps = slices.DeleteFunc(apps, func(o host.DCBApp) bool { return o.Protocol == a.Protocol })
			apps = append(apps, *a)
		case w.Name == dcbApp:
			apps, _ = tableOf(w.Want) // add has looked
		case w.Want == "pcp":
			return nil
		default:
			for dscp := range uint16(64) {
				apps = append(apps, host.DCBApp{Selector: host.DCBSelDSCP, Priority: uint8(dscp >> 3), Protocol: dscp})
			}
		}
	}
	return apps
}

// dcbSteps is a wish by hand, or why there is no such thing.
func dcbSteps(w plan.Wish, ifname, driver string) ([]string, error) {
	mlx5 := driver == "mlx5_core"
	tools := func(mlnx, dcb string) []string {
		if mlx5 {
			return []string{mlnx, "or with iproute2: " + dcb}
		}
		return []string{dcb}
	}
	switch name, dscp, _ := strings.Cut(w.Name, " "); {
	case w.Name == dcbTrust && (w.Want == "dscp" || w.Want == "pcp"):
		dcb := fmt.Sprintf("dcb app add dev %s dscp-prio 26:3 (the first DSCP entry switches trust; one for each DSCP of the fabric)", ifname)
		if w.Want == "pcp" {
			dcb = fmt.Sprintf("dcb app flush dev %s dscp-prio (the last DSCP entry gone, 802.1p counts again)", ifname)
		}
		return tools(fmt.Sprintf("mlnx_qos -i %s --trust %s", ifname, w.Want), dcb), nil
	case w.Name == dcbApp:
		_, err := tableOf(w.Want)
		return []string{DCB{}.ByHand(plan.Change{Setting: DCBSetting(ifname, dcbApp), After: plan.Text(w.Want)})}, err
	case w.Name == dcbPFC:
		mask, err := parsePrios(w.Want)
		if err != nil {
			return nil, err
		}
		flags := make([]string, 8)
		for i := range flags {
			flags[i] = strconv.Itoa(int(mask >> i & 1))
		}
		set := DCB{}.ByHand(plan.Change{Setting: DCBSetting(ifname, dcbPFC), After: plan.Text(prioText(mask))})
		return append(tools(fmt.Sprintf("mlnx_qos -i %s -f %s", ifname, strings.Join(flags, ",")), set),
			fmt.Sprintf("ethtool -A %s autoneg off rx off tx off (global pause and PFC exclude each other)", ifname)), nil
	case w.Name == dcbDCBX && (w.Want == "host" || w.Want == "firmware"):
		return dcbxSteps(w.Want, ifname, driver), nil
	case name == "dscp-prio":
		if dscpWish(w) == nil {
			return nil, fmt.Errorf("DSCP %q in priority %q: a DSCP is 0 to 63, a priority 0 to 7", dscp, w.Want)
		}
		return tools(fmt.Sprintf("mlnx_qos -i %s --dscp2prio set,%s,%s", ifname, dscp, w.Want), fmt.Sprintf("dcb app replace dev %s dscp-prio %s:%s", ifname, dscp, w.Want)), nil
	}
	return nil, fmt.Errorf("data center bridging has no %s %q", w.Name, w.Want)
}

func dcbxSteps(to, ifname, driver string) []string {
	lldp := map[string]string{"host": "off", "firmware": "on"}[to]
	switch driver {
	case "mlx5_core":
		return []string{fmt.Sprintf("mlnx_qos -i %s -d %s", ifname, map[string]string{"host": "os", "firmware": "fw"}[to])}
	case "ice":
		return []string{fmt.Sprintf("ethtool --set-priv-flags %s fw-lldp-agent %s", ifname, lldp)}
	case "i40e": // the flag says the opposite
		return []string{fmt.Sprintf("ethtool --set-priv-flags %s disable-fw-lldp %s", ifname, map[string]string{"off": "on", "on": "off"}[lldp])}
	}
	mode := map[string]string{"host": "host", "firmware": "lld-managed"}[to]
	return []string{fmt.Sprintf("dcb dcbx set dev %s %s ieee", ifname, mode)}
}
