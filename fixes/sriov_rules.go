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

// passesOn is true of drivers that hand a device to a guest or a program.
func passesOn(driver string) bool {
	return strings.HasPrefix(driver, "vfio") || strings.HasSuffix(driver, "_vfio_pci") || strings.HasSuffix(driver, "-vfio-pci") ||
		slices.Contains([]string{"igb_uio", "uio_pci_generic", "pci-stub", "pciback", "xen-pciback"}, driver)
}

// usedAs says what this host does with an interface, "" for nothing.
func usedAs(h *host.Host, ifname string, routes []facts.Route) string {
	if master, err := h.LinkBase(path.Join(facts.NetClass, ifname, "master")); err == nil {
		return fmt.Sprintf("%s is a port of %s", ifname, master)
	}
	names, _ := h.List(path.Join(facts.NetClass, ifname))
	for _, n := range names {
		if upper, ok := strings.CutPrefix(n, "upper_"); ok {
			return fmt.Sprintf("%s stands on %s", upper, ifname)
		}
	}
	for _, r := range routes {
		if r.IfName == ifname && !r.Net.Addr().IsLinkLocalUnicast() && !r.Net.Addr().IsMulticast() {
			return fmt.Sprintf("%s is up and has an address or a route (%s)", ifname, r.Net)
		}
	}
	return ""
}

// handedOut gives the functions that guests, containers or programs have.
func handedOut(list []vf) (out []string) {
	for _, v := range list {
		if v.given != "" {
			out = append(out, v.bdf+" is "+v.given)
		}
	}
	return out
}

// sentence joins a few of many.
func sentence(list []string) string {
	const most = 4
	if n := len(list) - most; n > 0 {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(list, "; ")
}

// Expand refuses what the device cannot have, what others own, and to destroy
// functions that somebody uses. The rest is: down to none, autoprobe, up to
// the wanted number, and the file that says it at the next boot.
func (v SRIOV) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	mgmt := newMgmtRule(h, v.AllowMgmt)
	f := facts.New(h)
	for _, w := range wishes {
		if w.Name == autoprobe && slices.ContainsFunc(wishes, func(o plan.Wish) bool { return o.Target == w.Target && o.Name == numVFs }) {
			continue // between the two steps of the other
		}
		p := pf{h: h, f: f, wish: w}
		why, steps := p.open()
		switch owned := p.owner(); {
		case why != "":
		case p.held():
			continue
		case owned != nil:
			refused = append(refused, *owned)
			continue
		default:
			if why, steps = p.busy(); why == "" {
				why, steps = mgmt.refuses(p.ifname, v.ByHand(plan.Change{Setting: w.Setting, After: plan.Text(w.Want)}))
			}
		}
		if why != "" {
			refused = append(refused, refuse(w, why, steps...))
			continue
		}
		i := slices.IndexFunc(wishes, func(o plan.Wish) bool { return o.Setting == SRIOVAutoprobe(w.Target) })
		var probe *plan.Wish
		if i >= 0 {
			probe = &wishes[i]
		}
		if probe != nil && probe.Want != "on" && probe.Want != "off" {
			refused = append(refused, refuse(*probe, fmt.Sprintf("autoprobe is on or off, not %q", probe.Want)))
			probe = nil
		}
		changes = append(changes, p.changes(probe)...)
	}
	return changes, refused, nil
}

// pf is one physical function and a wish for it.
type pf struct {
	h          *host.Host
	f          *facts.Facts
	wish       plan.Wish
	bdf        string
	ifname     string
	now, want  int64
	vfs        []vf
	linkFile   string // .link file that is to say the number, and its text
	linkText   string
	notLasting string // why there is none
}

// open reads the device, or says why it cannot have what is wished.
func (p *pf) open() (why string, steps []string) {
	w := p.wish
	if p.bdf, _ = device(w.Target); p.bdf == "" || w.Name != numVFs && w.Name != autoprobe {
		return fmt.Sprintf("%s is not a setting of the virtual functions of a PCI function", w.Setting), nil
	}
	dir := path.Join(facts.PCIDevices, p.bdf)
	if class, err := p.h.Text(path.Join(dir, "class")); err == nil && !strings.HasPrefix(class, "0x02") {
		return fmt.Sprintf("hostcheck changes virtual functions of network devices only, and %s is none (class %s)", p.bdf, class), nil
	}
	switch driver := driverOfPCI(p.h, w.Target); {
	case driver == "":
		return "no driver is bound to " + p.bdf + ", and only that makes virtual functions", []string{"echo " + p.bdf + " > /sys/bus/pci/drivers_probe"}
	case passesOn(driver):
		return fmt.Sprintf("%s itself is bound to %s: a guest or a program has it", p.bdf, driver), nil
	}
	var err error
	if p.ifname, err = interfaceOf(p.h, w.Target); err != nil {
		return err.Error() + "; or its interface is in another network namespace", nil
	}
	if w.Name == autoprobe {
		if w.Want != "on" && w.Want != "off" {
			return fmt.Sprintf("autoprobe is on or off, not %q", w.Want), nil
		}
		if _, err := p.h.Int(path.Join(dir, "sriov_drivers_autoprobe")); err != nil {
			return host.Reason(err), nil
		}
		return "", nil
	}
	want, err := strconv.ParseUint(w.Want, 10, 16)
	if err != nil {
		return fmt.Sprintf("%s is no number of virtual functions", w.Want), nil
	}
	p.want = int64(want)
	total, err := p.h.Int(path.Join(dir, "sriov_totalvfs"))
	switch {
	case err != nil:
		return "how many virtual functions it can have is not known: " + host.Reason(err), nil
	case total == 0 && want > 0:
		return "its firmware gives no virtual functions", []string{"switch SR-IOV on in the firmware: mlxconfig -d " + p.bdf + " set SRIOV_EN=1 NUM_OF_VFS=" + w.Want + ", then mlxfwreset or a reboot"}
	case p.want > total:
		return fmt.Sprintf("it can have %d virtual functions, and %d are wanted", total, want), []string{fmt.Sprintf("ask for %d or fewer, or raise NUM_OF_VFS in the firmware", total)}
	}
	if p.now, err = p.h.Int(path.Join(dir, "sriov_numvfs")); err != nil {
		return "how many virtual functions it has is not known: " + host.Reason(err), nil
	}
	p.vfs = vfsOf(p.h, w.Target)
	return "", nil
}

// held reports whether the wish is met already.
func (p *pf) held() bool {
	if p.wish.Name == numVFs {
		return p.now == p.want
	}
	n, _ := p.h.Int(path.Join(facts.PCIDevices, p.bdf, "sriov_drivers_autoprobe"))
	return onOff(n != 0) == p.wish.Want
}

// busy says who uses what would be destroyed.
func (p *pf) busy() (why string, steps []string) {
	if p.wish.Name != numVFs || p.now == 0 {
		return "", nil
	}
	lost := fmt.Sprintf("the %d virtual functions there are would be destroyed, and ", p.now)
	if held := handedOut(p.vfs); len(held) > 0 {
		return lost + sentence(held), []string{"stop the guests, pods or programs that have them, and run hostcheck again"}
	}
	var used []string
	for _, v := range p.vfs {
		if v.used != "" {
			used = append(used, v.used)
		}
	}
	if len(used) > 0 {
		return lost + sentence(used), []string{"take them out of use (ip link set … down, nomaster), and run hostcheck again"}
	}
	if len(p.vfs) < int(p.now) {
		return lost + "not all of them can be seen here", []string{"look into " + path.Join(facts.PCIDevices, p.bdf) + "/virtfn*"}
	}
	if id, err := p.h.Text(path.Join(facts.NetClass, p.ifname, "phys_switch_id")); err == nil && id != "" {
		return lost + "so would their representors: " + p.ifname + " is in switchdev mode", []string{"let what configures its switch (Open vSwitch, an operator) change the number"}
	}
	return "", nil
}

// changes are what the wish comes to, with autoprobe where that is wished too.
func (p *pf) changes(probe *plan.Wish) (out []plan.Change) {
	add := func(s plan.Setting, w plan.Wish, after, disturbs string) {
		out = append(out, plan.Change{Setting: s, After: plan.Text(after), Tier: plan.Link, Why: because(w), Disturbs: disturbs})
	}
	if p.wish.Name == autoprobe {
		add(p.wish.Setting, p.wish, p.wish.Want, "")
		out[0] = untilReboot(out[0])
		return out
	}
	p.persistence()
	const driver = "some drivers restart the physical function's port"
	if p.now > 0 {
		add(p.wish.Setting, p.wish, "0", fmt.Sprintf("the %d virtual functions there are go, with their addresses, VLANs and rates, which undo does not bring back; %s", p.now, driver))
	}
	if probe != nil {
		add(probe.Setting, *probe, probe.Want, "")
		out[len(out)-1] = untilReboot(out[len(out)-1])
	}
	if p.want > 0 {
		add(p.wish.Setting, p.wish, p.wish.Want, driver)
	}
	for i := range out {
		if out[i].Name != numVFs {
			continue
		}
		if out[i].Persist = p.notLasting == "" || p.want == 0; !out[i].Persist && i == len(out)-1 {
			out[i] = untilReboot(out[i])
			out[i].Disturbs += "; hostcheck writes no .link file for it, for " + p.notLasting
		}
	}
	if p.linkFile != "" {
		c := plan.Change{
			Setting: plan.Setting{Kind: plan.KindFile, Target: p.linkFile}, Tier: plan.Link, Persist: true,
			Why: fmt.Sprintf("%s: at each boot %s gets its virtual functions", p.wish.Check, p.bdf),
		}
		if p.linkText != "" {
			c.After = plan.Text(p.linkText)
		} else {
			c.Why = fmt.Sprintf("%s: no virtual functions at the next boot either", p.wish.Check)
		}
		out = append(out, c)
	}
	return out
}
