// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// DCB is the data center bridging of an interface: kind "dcb", Target
// "0000:18:00.0 ens1np0", Name and value:
//
//	trust           dscp | pcp
//	pfc             priorities with flow control: "3", "3,5", "none"
//	dcbx            host | firmware
//	dscp-prio 26    the priority of that DSCP
//
// Tier link, for mlx5 takes the port down for PFC: shown and not done.
type DCB struct{ byHand }

// Kind is "dcb".
func (DCB) Kind() string { return "dcb" }

// DCBSetting names one setting of an interface.
func DCBSetting(subject, name string) plan.Setting {
	return plan.Setting{Kind: "dcb", Target: subject, Name: name}
}

// Expand refuses all wishes, each with the commands for the interface's driver.
func (DCB) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	mgmt, _ := managed(h)
	f := facts.New(h)
	for _, w := range wishes {
		if owned := ownedBy(f, w); owned != nil {
			refused = append(refused, *owned)
			continue
		}
		ifname, err := interfaceOf(h, w.Target)
		if err != nil {
			refused = append(refused, refuse(w, err.Error()))
			continue
		}
		driver, _ := h.LinkBase(path.Join(facts.NetClass, ifname, "device/driver"))
		steps, err := dcbSteps(w, ifname, driver)
		switch {
		case err != nil:
			refused = append(refused, refuse(w, err.Error()))
			continue
		case mgmt[ifname] != "":
			steps = append([]string{fmt.Sprintf("from a console that does not depend on %s: %s", ifname, mgmt[ifname])}, steps...)
		}
		steps = append(steps, "it is lost at a reboot: have what configures the interface do it too")
		refused = append(refused, refuse(w, "tier link: hostcheck does not change data center bridging; by hand:", steps...))
	}
	return nil, refused, nil
}

func dcbSteps(w plan.Wish, ifname, driver string) ([]string, error) {
	mlx5 := driver == "mlx5_core"
	tools := func(mlnx, dcb string) []string {
		if mlx5 {
			return []string{mlnx, "or with iproute2: " + dcb}
		}
		return []string{dcb}
	}
	name, dscp, _ := strings.Cut(w.Name, " ")
	switch {
	case name == "trust" && (w.Want == "dscp" || w.Want == "pcp"):
		dcb := fmt.Sprintf("dcb app add dev %s dscp-prio 26:3 (the first DSCP entry switches trust; one for each DSCP of the fabric)", ifname)
		if w.Want == "pcp" {
			dcb = fmt.Sprintf("dcb app flush dev %s dscp-prio (the last DSCP entry gone, 802.1p counts again)", ifname)
		}
		return tools(fmt.Sprintf("mlnx_qos -i %s --trust %s", ifname, w.Want), dcb), nil
	case name == "pfc":
		prios, err := priorities(w.Want)
		if err != nil {
			return nil, err
		}
		mask, set := make([]string, 8), "all:off"
		for i := range mask {
			mask[i] = "0"
			if slices.Contains(prios, i) {
				mask[i] = "1"
				set += fmt.Sprintf(" %d:on", i)
			}
		}
		steps := tools(fmt.Sprintf("mlnx_qos -i %s -f %s", ifname, strings.Join(mask, ",")), fmt.Sprintf("dcb pfc set dev %s prio-pfc %s", ifname, set))
		switch driver {
		case "mlx5_core":
			steps = append([]string{"the port's link goes down and up: drain the host's jobs first"}, steps...)
		case "ice":
			steps = append([]string{fmt.Sprintf("ethtool --set-priv-flags %s fw-lldp-agent off (before, the firmware refuses)", ifname)}, steps...)
		}
		return append(steps, fmt.Sprintf("ethtool -A %s autoneg off rx off tx off (global pause and PFC exclude each other)", ifname)), nil
	case name == "dcbx" && (w.Want == "host" || w.Want == "firmware"):
		onOff := map[string]string{"host": "off", "firmware": "on"}[w.Want]
		switch driver {
		case "mlx5_core":
			return []string{fmt.Sprintf("mlnx_qos -i %s -d %s", ifname, map[string]string{"host": "os", "firmware": "fw"}[w.Want])}, nil
		case "ice", "i40e":
			flag := map[string]string{"ice": "fw-lldp-agent", "i40e": "disable-fw-lldp"}[driver]
			if driver == "i40e" { // the flag says the opposite
				onOff = map[string]string{"off": "on", "on": "off"}[onOff]
			}
			return []string{fmt.Sprintf("ethtool --set-priv-flags %s %s %s", ifname, flag, onOff)}, nil
		}
		if w.Want == "host" {
			return []string{fmt.Sprintf("dcb dcbx set dev %s host ieee", ifname)}, nil
		}
		return []string{fmt.Sprintf("dcb dcbx set dev %s lld-managed ieee", ifname)}, nil
	case name == "dscp-prio":
		d, err := strconv.Atoi(dscp)
		p, err2 := strconv.Atoi(w.Want)
		if err != nil || err2 != nil || d < 0 || d > 63 || p < 0 || p > 7 {
			return nil, fmt.Errorf("DSCP %q in priority %q: a DSCP is 0 to 63, a priority 0 to 7", dscp, w.Want)
		}
		return tools(fmt.Sprintf("mlnx_qos -i %s --dscp2prio set,%d,%d", ifname, d, p), fmt.Sprintf("dcb app replace dev %s dscp-prio %d:%d", ifname, d, p)), nil
	}
	return nil, fmt.Errorf("data center bridging has no %s %q", w.Name, w.Want)
}

// priorities reads "3,5"; "none" is none.
func priorities(s string) ([]int, error) {
	if s == "none" {
		return nil, nil
	}
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 || n > 7 {
			return nil, fmt.Errorf("%q is not a list of priorities from 0 to 7", s)
		}
		out = append(out, n)
	}
	return out, nil
}
