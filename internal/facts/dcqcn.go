// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/hostcheck/hostcheck/internal/host"
)

// DebugMLX5 is where the in-tree mlx5 driver has its debugfs, by PCI address.
const DebugMLX5 = "/sys/kernel/debug/mlx5"

// ofedParams maps the files of the out-of-tree driver below /sys/class/net/IF/ecn
// to the names that the in-tree driver gives the same firmware fields
// (drivers/infiniband/hw/mlx5/cong.c).
var ofedParams = map[string]string{
	"roce_np/cnp_dscp":                      "np_cnp_dscp",
	"roce_np/cnp_802p_prio":                 "np_cnp_prio",
	"roce_np/min_time_between_cnps":         "np_min_time_between_cnps",
	"roce_rp/clamp_tgt_rate":                "rp_clamp_tgt_rate",
	"roce_rp/clamp_tgt_rate_after_time_inc": "rp_clamp_tgt_rate_ati",
	"roce_rp/rpg_time_reset":                "rp_time_reset",
	"roce_rp/rpg_byte_reset":                "rp_byte_reset",
	"roce_rp/rpg_threshold":                 "rp_threshold",
	"roce_rp/rpg_ai_rate":                   "rp_ai_rate",
	"roce_rp/rpg_max_rate":                  "rp_max_rate",
	"roce_rp/rpg_hai_rate":                  "rp_hai_rate",
	"roce_rp/rpg_min_dec_fac":               "rp_min_dec_fac",
	"roce_rp/rpg_min_rate":                  "rp_min_rate",
	"roce_rp/rate_to_set_on_first_cnp":      "rp_rate_to_set_on_first_cnp",
	"roce_rp/dce_tcp_g":                     "rp_dce_tcp_g",
	"roce_rp/dce_tcp_rtt":                   "rp_dce_tcp_rtt",
	"roce_rp/rate_reduce_monitor_period":    "rp_rate_reduce_monitor_period",
	"roce_rp/initial_alpha_value":           "rp_initial_alpha_value",
	"roce_rp/rpg_gd":                        "rp_gd",
}

// DCQCNParams lists the names of the parameters that profiles may give.
func DCQCNParams() []string {
	names := []string{"np_cnp_prio_mode", "rtt_resp_dscp", "rtt_resp_dscp_valid"} // in-tree only
	for _, n := range ofedParams {
		names = append(names, n)
	}
	return names
}

func ecnDir(nic string) string { return NetClass + "/" + nic + "/ecn" }

func ccParamsDir(bdf string) string { return DebugMLX5 + "/" + bdf + "/cc_params" }

func enableFile(nic, role string, prio int) string {
	return fmt.Sprintf("%s/%s/enable/%d", ecnDir(nic), role, prio)
}

// DCQCNFile gives the file that holds one setting of an interface: a parameter
// by its name, or the switch "np 3" or "rp 3" of a priority. It is the
// out-of-tree driver's where that has its directory, else the in-tree driver's
// in debugfs; "" where that driver has none by this name. ofed tells which.
func DCQCNFile(h *host.Host, nic, bdf, name string) (p string, ofed bool) {
	_, err := h.List(ecnDir(nic))
	ofed = err == nil
	role, prio, isSwitch := strings.Cut(name, " ")
	switch {
	case isSwitch && ofed && (role == "np" || role == "rp") && len(prio) == 1 && prio >= "0" && prio <= "7":
		return ecnDir(nic) + "/roce_" + role + "/enable/" + prio, ofed
	case isSwitch:
		return "", ofed
	case !ofed && ccParam(name) && !strings.Contains(name, "/"):
		return ccParamsDir(bdf) + "/" + name, ofed
	}
	for file, n := range ofedParams {
		if ofed && n == name {
			return ecnDir(nic) + "/" + file, ofed
		}
	}
	return "", ofed
}

// prefetchDCQCN reads what the mlx5 interfaces have, in three batches: which
// directories there are, what is in them, and the traffic class files.
func prefetchDCQCN(f *Facts, list []*DCBNIC, drivers []string) {
	h := f.host
	var ops []host.Op
	for i, n := range list {
		if drivers[i] == "mlx5_core" {
			ops = append(ops, host.Op{Kind: host.ListDir, Path: ecnDir(n.NIC)}, host.Op{Kind: host.ReadFile, Path: n.trustPath()})
			if dev, _ := rdmaOf(f, n); dev != nil {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: tclassPath(dev)})
			}
		}
	}
	h.Prefetch(ops)
	ops = ops[:0]
	for i, n := range list {
		if drivers[i] != "mlx5_core" {
			continue
		}
		if _, err := h.List(ecnDir(n.NIC)); err != nil {
			ops = append(ops, host.Op{Kind: host.ListDir, Path: ccParamsDir(n.BDF)})
			continue
		}
		for file := range ofedParams {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: ecnDir(n.NIC) + "/" + file})
		}
		for prio := range 8 {
			for _, role := range []string{"roce_np", "roce_rp"} {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: enableFile(n.NIC, role, prio)})
			}
		}
	}
	h.Prefetch(ops)
	ops = ops[:0]
	for i, n := range list {
		if drivers[i] != "mlx5_core" {
			continue
		}
		if _, err := h.List(ecnDir(n.NIC)); err == nil {
			continue
		}
		names, _ := h.List(ccParamsDir(n.BDF))
		for _, name := range names {
			if ccParam(name) {
				ops = append(ops, host.Op{Kind: host.ReadFile, Path: ccParamsDir(n.BDF) + "/" + name})
			}
		}
	}
	h.Prefetch(ops)
}

// ccParam reports whether a file of cc_params is a parameter. Every read of
// one is a command to the firmware, so nothing else is read.
func ccParam(name string) bool {
	return strings.HasPrefix(name, "np_") || strings.HasPrefix(name, "rp_") || strings.HasPrefix(name, "rtt_")
}

// none notes that nothing of DCQCN is known, and why.
func (d *DCQCN) none(source, why string) {
	d.Source, d.NP, d.RP, d.Params = source, nil, nil, nil
	for _, field := range []string{"np", "rp", "params"} {
		d.Unknown.say(field, why)
	}
}

func (n *DCBNIC) readDCQCN(f *Facts) {
	h, d := f.host, &n.DCQCN
	_, err := h.List(ecnDir(n.NIC))
	switch {
	case err == nil:
		d.readOFED(h, n.NIC)
	case host.Absent(err):
		d.readCCParams(f, n.BDF)
		// without the out-of-tree driver's files nobody but the firmware knows
		why := FirmwareOnly
		if !kernelLacks(h, err) {
			why = whyNot(h, err)
		}
		d.Unknown.say("np", why)
		d.Unknown.say("rp", why)
	default:
		d.none(DCBUnknown, host.Reason(err))
	}
}

func (d *DCQCN) readOFED(h *host.Host, nic string) {
	d.Source, d.Params, d.paths = FromOFED, map[string]int{}, map[string]string{}
	d.NP = d.readEnable(h, nic, "roce_np", "np")
	d.RP = d.readEnable(h, nic, "roce_rp", "rp")
	for file, name := range ofedParams {
		d.readParam(h, name, ecnDir(nic)+"/"+file)
	}
}

// readEnable gives the priorities with 1 in their file; one that cannot be
// read makes the answer unknown.
func (d *DCQCN) readEnable(h *host.Host, nic, role, field string) []int {
	on := []int{}
	for prio := range 8 {
		v, err := h.Int(enableFile(nic, role, prio))
		switch {
		case err != nil:
			d.Unknown.say(field, whyNot(h, err))
			return nil
		case v == 1:
			on = append(on, prio)
		}
	}
	return on
}

func (d *DCQCN) readParam(h *host.Host, name, p string) {
	v, err := h.Int(p)
	switch {
	case err == nil:
		d.Params[name], d.paths[name] = int(v), p
	case !kernelLacks(h, err): // not every version has every parameter
		d.Unknown.say("params."+name, whyNot(h, err))
	}
}

// FirmwareOnly is why the in-tree driver cannot tell on which priorities
// DCQCN is enabled.
const FirmwareOnly = "the in-tree driver has no switch for it: the firmware's ROCE_CC_PRIO_MASK_P1 decides (mlxconfig or mstconfig shows it)"

func (d *DCQCN) readCCParams(f *Facts, bdf string) {
	h := f.host
	dir := ccParamsDir(bdf)
	names, err := h.List(dir)
	if err != nil {
		d.none(ccAbsent(h, bdf, err))
		return
	}
	d.Source, d.Params, d.paths = FromCCParams, map[string]int{}, map[string]string{}
	for _, name := range names {
		if !ccParam(name) {
			continue
		}
		p := dir + "/" + name
		if _, err := h.Text(p); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			// debugfs is closed as a whole: one reason says it for all
			d.Params, d.paths = nil, nil
			d.Source = DCBUnknown
			why := host.Reason(err)
			if l := f.Kernel().Lockdown; l != nil && *l != "none" {
				why = fmt.Sprintf("%s: %v; kernel lockdown is %q, which closes debugfs even to root", p, syscall.EPERM, *l)
			}
			d.Unknown.say("params", why)
			return
		}
		d.readParam(h, name, p)
	}
}

// ccAbsent tells apart why there is no cc_params directory: it cannot be seen,
// debugfs is not mounted or was not captured, or the driver offers none.
func ccAbsent(h *host.Host, bdf string, err error) (source, why string) {
	if !host.Absent(err) {
		return DCBUnknown, host.Reason(err)
	}
	if _, listErr := h.List(DebugMLX5 + "/" + bdf); listErr == nil && h.Lacks(err) {
		return DCBAbsent, ccParamsDir(bdf) + ": absent; mlx5_ib is not bound, or the firmware does not permit congestion control commands (a VF, a guest)"
	}
	top, err := h.List("/sys/kernel/debug")
	switch {
	case err != nil:
		return DCBUnknown, whyNot(h, err)
	case len(top) == 0:
		return DCBUnknown, "/sys/kernel/debug: empty, debugfs is not mounted"
	}
	return DCBUnknown, ccParamsDir(bdf) + ": absent, and so is " + DebugMLX5 + "/" + bdf
}
