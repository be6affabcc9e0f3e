// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// DCQCN is RoCE congestion control of an mlx5 interface: kind "dcqcn", Target
// "0000:18:00.0 ens1np0", Name and value:
//
//	np 3, rp 3      on | off: the notification or reaction point of a priority
//	np_cnp_dscp     a number; this and all other parameters by the names of the
//	                in-tree driver's debugfs, whichever driver runs
//
// The out-of-tree driver has files for all of it; the in-tree driver has the
// parameters in debugfs and leaves the switches to the firmware. The NIC takes
// a new value while it runs and drops no packet (NVIDIA, "Explicit Congestion
// Notification"); it keeps none over a reboot or a new probe.
type DCQCN struct{}

// Kind is "dcqcn".
func (DCQCN) Kind() string { return "dcqcn" }

// DCQCNSetting names one setting of an interface.
func DCQCNSetting(subject, name string) plan.Setting {
	return plan.Setting{Kind: "dcqcn", Target: subject, Name: name}
}

// isSwitch tells the switches from the parameters.
func isSwitch(name string) bool {
	return strings.HasPrefix(name, "np ") || strings.HasPrefix(name, "rp ")
}

// dcqcnForm says which values a parameter takes.
func dcqcnForm(name string) form {
	switch {
	case name == "np_cnp_dscp", name == "rtt_resp_dscp":
		return number(0, 63)
	case name == "np_cnp_prio":
		return number(0, 7)
	case isSwitch(name), name == "np_cnp_prio_mode", name == "rtt_resp_dscp_valid", strings.HasPrefix(name, "rp_clamp_"):
		return number(0, 1)
	}
	return number(0, 1<<32-1)
}

// dcqcnFile is the file of a setting now.
func dcqcnFile(h *host.Host, s plan.Setting) (p string, ofed bool, err error) {
	ifname, err := interfaceOf(h, s.Target)
	if err != nil {
		return "", false, err
	}
	bdf, _ := device(s.Target)
	p, ofed = facts.DCQCNFile(h, ifname, bdf, s.Name)
	switch {
	case p != "":
		return p, ofed, nil
	case isSwitch(s.Name) && !ofed:
		return "", ofed, errors.New(facts.FirmwareOnly)
	}
	return "", ofed, fmt.Errorf("the driver of %s has no congestion control setting %q", ifname, s.Name)
}

// Read gives on or off, or the number.
func (DCQCN) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	p, _, err := dcqcnFile(h, s)
	if err != nil {
		return plan.Absent, err
	}
	text, err := h.Text(p)
	if err != nil {
		return plan.Absent, err
	}
	v, err := dcqcnForm(s.Name).read(text)
	if err != nil {
		return plan.Absent, fmt.Errorf("cannot read %s: %w", p, err)
	}
	if isSwitch(s.Name) {
		v = onOff(v != "0")
	}
	return plan.Text(v), nil
}

// dcqcnBytes is a value as its file takes it.
func dcqcnBytes(name, value string) (string, error) {
	if isSwitch(name) {
		bit := map[string]string{"on": "1", "off": "0"}[value]
		if bit == "" {
			return "", fmt.Errorf("%s is on or off, not %.40q", name, value)
		}
		return bit, nil
	}
	return dcqcnForm(name).check(value)
}

// Apply writes each file; the engine reads back what came of it.
func (DCQCN) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		h, err := tx.Host()
		if err != nil {
			return err
		}
		p, _, err := dcqcnFile(h, c.Setting)
		h.Close()
		if err != nil {
			return fmt.Errorf("cannot set %s: %w", c.Setting, err)
		}
		v, err := dcqcnBytes(c.Name, c.After.Text)
		if err != nil {
			return fmt.Errorf("cannot set %s: %w", c.Setting, err)
		}
		if err := tx.WriteKnob(p, v); err != nil {
			return err
		}
	}
	return nil
}

// ByHand is the line that sets it. Which driver runs is not known here.
func (DCQCN) ByHand(c plan.Change) string {
	bdf, ifname := device(c.Target)
	v, err := dcqcnBytes(c.Name, c.After.Text)
	if err != nil {
		return "set it to " + c.After.Text
	}
	if role, prio, ok := strings.Cut(c.Name, " "); ok {
		return fmt.Sprintf("echo %s > %s/%s/ecn/roce_%s/enable/%s", v, facts.NetClass, ifname, role, prio)
	}
	return fmt.Sprintf("echo %s > %s (or the file of that name below %s)", v, path.Join(facts.DebugMLX5, bdf, "cc_params", c.Name), path.Join(facts.NetClass, ifname, "ecn"))
}

// coupled are parameters with which the in-tree driver writes another one:
// that one's name, and what it writes there (drivers/infiniband/hw/mlx5/cong.c,
// mlx5_ib_set_cc_param_mask_val). The other must hold that already, for
// nothing else would put it back.
var coupled = map[string]struct{ name, value string }{
	"np_cnp_prio":         {"np_cnp_prio_mode", "0"},
	"np_cnp_prio_mode":    {"np_cnp_prio", "0"},
	"rtt_resp_dscp":       {"rtt_resp_dscp_valid", "1"},
	"rtt_resp_dscp_valid": {"rtt_resp_dscp", "0"},
}

// Expand refuses what the driver does not offer, what the kernel locks, and
// values beyond the field.
func (v DCQCN) Expand(ctx context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	f := facts.New(h)
	for _, w := range wishes {
		why, steps := v.closed(ctx, f, w)
		switch owned := ownedBy(f, w); {
		case owned != nil:
			refused = append(refused, *owned)
			continue
		case why != "":
			refused = append(refused, refuse(w, why, steps...))
			continue
		}
		c := plan.Change{Setting: w.Setting, After: plan.Text(w.Want), Tier: plan.Safe, Why: because(w)}
		if !isSwitch(w.Name) {
			want, _ := dcqcnBytes(w.Name, w.Want) // closed has looked
			c.After = plan.Text(want)
		}
		if strings.HasPrefix(w.Name, "rp") {
			c.Disturbs = "flows under congestion change their pace"
		}
		changes = append(changes, c)
	}
	return changes, refused, nil
}

// closed says why a wish cannot be met on this host.
func (v DCQCN) closed(ctx context.Context, f *facts.Facts, w plan.Wish) (why string, steps []string) {
	h := f.Host()
	byHand := v.ByHand(plan.Change{Setting: w.Setting, After: plan.Text(w.Want)})
	ifname, err := interfaceOf(h, w.Target)
	if err != nil {
		return err.Error(), nil
	}
	if driver := driverOf(h, ifname); driver != "mlx5_core" {
		return fmt.Sprintf("%s is driven by %s, which does not show congestion control", ifname, orText(driver, "nothing")), nil
	}
	if _, err := dcqcnBytes(w.Name, w.Want); err != nil {
		return fmt.Sprintf("%s takes %s: %v", w.Name, dcqcnForm(w.Name).says, err), nil
	}
	bdf, _ := device(w.Target)
	p, ofed, err := dcqcnFile(h, w.Setting)
	if err != nil {
		if isSwitch(w.Name) && !ofed {
			steps = []string{
				"mlxconfig -d " + bdf + " query ROCE_CC_PRIO_MASK_P1 (bit n is priority n; of a second port: _P2)",
				"mlxconfig -d " + bdf + " set ROCE_CC_PRIO_MASK_P1=255, then drain the host and mlxfwreset, or reboot",
			}
		}
		return err.Error(), steps
	}
	_, err = h.Text(p)
	lockdown := f.Kernel().Lockdown
	switch {
	case !ofed && lockdown != nil && *lockdown != "none":
		return "kernel lockdown is " + *lockdown + ", which closes debugfs even to root", []string{"switch Secure Boot off in the firmware setup, if the host may run without it", byHand}
	case host.Absent(err) && !ofed:
		return p + " is not there: debugfs is not mounted, mlx5_ib is not bound, or the firmware permits no congestion control commands", []string{"mount -t debugfs none /sys/kernel/debug; modprobe mlx5_ib"}
	case host.Absent(err):
		return p + " is not there: this version of the driver has no such parameter", nil
	case errors.Is(err, fs.ErrPermission):
		return host.Reason(err), []string{"as root: " + byHand}
	case err != nil:
		return host.Reason(err), nil
	}
	if other, ok := coupled[w.Name]; ok && !ofed {
		now, err := v.Read(ctx, h, DCQCNSetting(w.Target, other.name))
		want := plan.Text(w.Want)
		if live, readErr := v.Read(ctx, h, w.Setting); readErr == nil && live == want {
			return "", nil
		}
		switch {
		case err != nil:
			return fmt.Sprintf("the driver writes %s along with it, and what that holds is not known: %s", other.name, host.Reason(err)), nil
		case now.Text != other.value:
			return fmt.Sprintf("the driver writes %s to %s along with it, which holds %s, and undo could not bring that back", other.value, other.name, now.Text), []string{byHand}
		}
	}
	return "", nil
}
